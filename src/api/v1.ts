/**
 * The deprecated endpoints of the first version, for code that still speaks it: POST /mms/1/advanced, GET /mms/1/reports and GET
 * /mms/1/logs. Translations of shapes only: numbering, accept, limits and reads are those of /mms/2.
 *
 * Promises: requests in JSON or XML, answers in the published old shapes, errors in the older form, with the headers Deprecation,
 * Sunset and Link on all that is answered here. What /mms/2 would refuse is refused, named as the old request calls it. A repeated request gives the same
 * translation, so an Idempotency-Key holds; media in base64 become uploads under ids made from their bytes.
 *
 * What /mms/2 cannot do in one request is refused: messages with different sendAt (400). Reports by webhook have the old shape too
 * (webhooks/payload.ts). Fails: rejects with StoreUnavailable or a bug.
 */
import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import type { Store } from '../store/contract.ts';
import { element, readXml, text, XML_DECLARATION, type XmlElement, type XmlText } from '../xml.ts';
import { type Answer, deprecation, errorFor, JSON_HEADERS, olderError, prefersXml } from './errors.ts';
import { parseJson } from './json.ts';
import type { Intake, SendHead } from './messages.ts';
import type { Reads } from './reads.ts';
import { isObject, type Violation } from './violations.ts';

export const ADVANCED = '/mms/1/advanced';
export const OLDER_REPORTS = '/mms/1/reports';
export const OLDER_LOGS = '/mms/1/logs';

/** Media in a request are kept for as long as it may wait for its turn: sendAt is at most 180 days ahead, validity 48 h. */
const MEDIA_MS = 183 * 86_400_000;
/** Characters of a media type, and of the name of a part. */
const NAME_MAX = 255;

const XML_TYPE = 'application/xml; charset=UTF-8';

type Members = Record<string, unknown>;

/** What is known of a request before its body is read. */
export interface OlderHead extends SendHead {
  /** The answer is wanted as XML. */
  accept: string | undefined;
  /** The body is XML. */
  xml: boolean;
}

/** The three endpoints. */
export interface V1 {
  send: Intake<OlderHead>;
  reports(account: number, query: unknown): Promise<Answer>;
  logs(account: number, query: unknown): Promise<Answer>;
}

/** `send` and `reads` are those of /mms/2. */
export function createV1(options: {
  send: Intake<SendHead>;
  reads: Pick<Reads, 'reports' | 'logs'>;
  store: Pick<Store, 'putContent' | 'putUpload'>;
  maxUploadBytes: number;
}): V1 {
  const { send, reads, store, maxUploadBytes } = options;

  async function keep(account: number, { bytes, contentType, name, id }: Media): Promise<void> {
    const digest = hash('sha256', bytes);
    await store.putContent(digest, bytes);
    const size = bytes.length;
    await store.putUpload({ account, id, name, hash: digest, contentType, size, validityMs: MEDIA_MS });
  }

  async function accept(head: OlderHead, bytes: Buffer): Promise<Answer> {
    const parsed = head.xml ? parseXml(bytes, send.limit) : parseJson(bytes);
    if (!parsed.ok) return olderError('E400', { text: `Bad request: ${parsed.fault}` });
    const made = requestOf(parsed.value, maxUploadBytes);
    if (made.violations.length > 0) return badRequest(made.violations);
    for (const media of made.media) await keep(head.account, media);
    const answer = await send.body(head, Buffer.from(JSON.stringify(made.request)));
    return answer.status === 200 ? sendAnswer(answer, head.accept) : older(answer, olderPath);
  }

  return {
    send: {
      limit: send.limit,
      tooLarge: errorFor(ADVANCED, 'E413'),
      head(headers: IncomingHttpHeaders, account: number) {
        const xml = isXml(headers['content-type']);
        const head = send.head(xml ? { ...headers, 'content-type': 'application/json' } : headers, account);
        if ('status' in head) return dated(ADVANCED, older(head, olderPath));
        return { ...head, accept: headers.accept, xml, older: true };
      },
      async body(head, bytes) {
        return dated(ADVANCED, await accept(head, bytes));
      },
    },
    async reports(account, query) {
      const answer = await reads.reports(account, query);
      const given = answer.status === 200 ? results(answer, olderReport) : older(answer, (path) => path);
      return dated(OLDER_REPORTS, given);
    },
    async logs(account, query) {
      const given: Members = isObject(query) ? query : {};
      const { from, to, useCursor: _, cursor: __, ...rest } = given;
      const answer = await reads.logs(account, { ...rest, sender: from, destination: to });
      const named = (path: string): string => ({ sender: 'from', destination: 'to' })[path] ?? path;
      return dated(OLDER_LOGS, answer.status === 200 ? results(answer, olderLog) : older(answer, named));
    },
  };
}

/** With the headers that say what will become of the endpoint. */
function dated(path: string, answer: Answer): Answer {
  return { ...answer, headers: { ...answer.headers, ...deprecation(path) } };
}

// --- Requests --------------------------------------------------------------------------------------------------------

/** Whether a Content-Type is XML in UTF-8. */
function isXml(contentType: string | undefined): boolean {
  return /^(application|text)\/xml\s*(;\s*charset="?utf-?8"?\s*)?$/i.test(contentType ?? '');
}

/** Elements that are lists, and what their items are called. Source: the published XML examples. */
const LISTS: Readonly<Record<string, string>> = {
  messages: 'message',
  destinations: 'destination',
  messageSegments: 'messageSegments',
  group: 'group',
  days: 'days',
};
const INTEGERS = new Set(['validityPeriod', 'hour', 'minute', 'resellerCode']);
const BOOLEANS = new Set(['intermediateReport']);
/** Twice what 10 000 destinations with ids of their own take. */
const XML_LIMITS = { depth: 16, elements: 60_000 };

/** A body in XML (root MmsAdvancedRequest) as the JSON that says the same. */
function parseXml(bytes: Buffer, size: number): { ok: true; value: unknown } | { ok: false; fault: string } {
  const read = readXml(bytes, { ...XML_LIMITS, size });
  if (!read.ok) return { ok: false, fault: `not well-formed XML: ${read.fault}` };
  if (read.root.name !== 'MmsAdvancedRequest') return { ok: false, fault: 'the root must be MmsAdvancedRequest' };
  const value = memberOf(read.root);
  return { ok: true, value: isObject(value) ? value : {} };
}

/** Items of a list are called like the list or otherwise; a leaf is a text unless its name says more. */
function memberOf({ name, children, text: said }: XmlElement): unknown {
  const item = Object.hasOwn(LISTS, name) ? LISTS[name] : undefined;
  if (item !== undefined && children.every((child) => child.name === item) && (children.length > 0 || blank(said))) {
    return children.map(memberOf);
  }
  if (children.length > 0) return membersOf(children);
  if (INTEGERS.has(name) && /^\s*-?\d{1,15}\s*$/.test(said)) return Number(said);
  if (BOOLEANS.has(name) && /^\s*(true|false)\s*$/.test(said)) return said.trim() === 'true';
  return said;
}

/** What is there more than once is a list of all of them: where one is meant that is refused, not all but the last lost. */
function membersOf(children: readonly XmlElement[]): Members {
  const found = new Map<string, unknown[]>();
  for (const child of children) {
    const before = found.get(child.name);
    if (before) before.push(memberOf(child));
    else found.set(child.name, [memberOf(child)]);
  }
  return Object.fromEntries([...found].map(([name, values]) => [name, values.length === 1 ? values[0] : values]));
}

const blank = (said: string): boolean => said.trim() === '';

/** A segment in base64. */
interface Media {
  id: string;
  name: string;
  contentType: string;
  bytes: Buffer;
}

interface Translated {
  /** For POST /mms/2/messages, which looks at what it is: what is no object or has the wrong type is handed on. */
  request: unknown;
  media: Media[];
  /** What only this version has. */
  violations: Violation[];
}

function requestOf(body: unknown, maxUploadBytes: number): Translated {
  const media: Media[] = [];
  const violations: Violation[] = [];
  if (!isObject(body) || !Array.isArray(body.messages)) return { request: body, media, violations };
  const { bulkId, messages } = body as { bulkId?: unknown; messages: unknown[] };
  const times = new Set<unknown>();
  const translated = messages.map((message, m) => {
    if (!isObject(message)) return message;
    times.add(message.sendAt ?? undefined);
    return messageOf(message, (segment, s) => {
      const property = `messages[${m}].messageSegments[${s}]`;
      const found = mediaOf(segment, maxUploadBytes);
      if (typeof found === 'string') violations.push({ property: `${property}.contentBase64`, violation: found });
      else media.push(found);
      return typeof found === 'string' ? '' : found.id;
    });
  });
  const [sendAt] = times;
  if (times.size > 1) violations.push({ property: 'messages', violation: 'must all have the same sendAt' });
  const schedule = defined({ bulkId: bulkId ?? undefined, sendAt });
  return {
    request: { messages: translated, ...(schedule === undefined ? {} : { options: { schedule } }) },
    media,
    violations,
  };
}

function messageOf(message: Members, upload: (segment: Members, at: number) => string): Members {
  const { from, destinations, title, messageSegments, validityPeriod, deliveryTimeWindow, regional } = message;
  const { entityId, applicationId, notifyUrl, intermediateReport, callbackData } = message;
  const segments = Array.isArray(messageSegments)
    ? messageSegments.map((one: unknown, at) => (isObject(one) ? segmentOf(one, () => upload(one, at)) : one))
    : messageSegments;
  return {
    sender: from,
    destinations,
    content: { title, messageSegments: segments },
    options: defined({
      platform: defined({ entityId, applicationId }),
      validityPeriod: validityPeriod == null ? undefined : { amount: validityPeriod, timeUnit: 'MINUTES' },
      deliveryTimeWindow,
      regional,
    }),
    webhooks: defined({ delivery: defined({ url: notifyUrl, intermediateReport }), callbackData }),
  };
}

/** Segments had no type: their members tell what they are. */
function segmentOf(segment: Members, upload: () => string): Members {
  const { contentId, contentType, contentUrl, smil, uploadedContentId, text: said } = segment;
  if (segment.contentBase64 != null) return { type: 'UPLOADED_REFERENCE', contentId, uploadedContentId: upload() };
  if (contentUrl != null) return { type: 'LINK', contentId, contentUrl, contentType };
  if (smil != null) return { type: 'SMIL', contentId, smil, contentType };
  if (uploadedContentId != null) return { type: 'UPLOADED_REFERENCE', contentId, uploadedContentId };
  if (said != null) return { type: 'TEXT', contentId, text: said };
  return { contentId };
}

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?$/;

/** The bytes of a segment, or what is wrong with them. */
function mediaOf({ contentBase64, contentType, contentId }: Members, max: number): Media | string {
  if (typeof contentBase64 !== 'string') return 'must be a string';
  const given = contentBase64.replace(/\s+/g, '');
  if (given === '') return 'must not be blank';
  if (!BASE64.test(given)) return 'is not valid Base64';
  if (
    typeof contentType !== 'string' ||
    !/^[\w!#$&^.+-]{1,127}\/[\w!#$&^.+-]{1,127}(\s*;[^\0\r\n]{0,200})?$/.test(contentType)
  ) {
    return 'needs a contentType that is a media type';
  }
  const bytes = Buffer.from(given, 'base64');
  if (bytes.length > max) return `must not be larger than ${max} bytes`;
  const name = typeof contentId === 'string' ? contentId.slice(0, NAME_MAX) : '';
  // The same for the same segment, so that a repeated request is the same request.
  const id = hash('sha256', JSON.stringify([hash('sha256', bytes), contentType, name])).toUpperCase();
  return { id, name, contentType, bytes };
}

/** Without members that are absent; undefined = none is left. */
function defined(members: Members): Members | undefined {
  const given = Object.entries(members).filter(([, value]) => value !== undefined && value !== null);
  return given.length === 0 ? undefined : Object.fromEntries(given);
}

// --- Answers ---------------------------------------------------------------------------------------------------------

interface Accepted {
  bulkId: string;
  messages: { messageId: string; status: object; destination: string }[];
}

function sendAnswer(answer: Answer, accept: string | undefined): Answer {
  const { bulkId, messages } = JSON.parse(answer.body) as Accepted;
  const entries = messages.map(({ destination, status, messageId }) => ({ to: destination, status, messageId }));
  if (accept === undefined || !prefersXml(accept)) {
    return { ...answer, body: JSON.stringify({ bulkId, messages: entries }) };
  }
  const list = entries.map((entry) => element('messages', null, ...members(entry)));
  const root = element('SendResult', null, element('bulkId', null, text(bulkId)), element('messages', null, ...list));
  return { ...answer, headers: { ...answer.headers, 'content-type': XML_TYPE }, body: XML_DECLARATION + root };
}

function members(value: object): XmlText[] {
  return Object.entries(value).map(([name, member]: [string, unknown]) =>
    element(name, null, ...(isObject(member) ? members(member) : [text(String(member))])),
  );
}

function results(answer: Answer, translate: (item: Members) => Members): Answer {
  const { results: items } = JSON.parse(answer.body) as { results: Members[] };
  return { ...answer, body: JSON.stringify({ results: items.map(translate) }) };
}

/** A status or error without the members that came later. */
function viewOf(view: unknown): object {
  const { action: _, permanent: __, ...rest } = view as Members;
  return rest;
}

function olderReport(item: Members): Members {
  const { bulkId, messageId, to, sender, sentAt, doneAt, messageCount, mccMnc, callbackData } = item;
  const counted = { mmsCount: messageCount, mccMnc, callbackData, price: item.price };
  const told = { status: viewOf(item.status), error: viewOf(item.error) };
  // Members that are undefined do not appear.
  return { bulkId, messageId, to, from: sender, sentAt, doneAt, ...counted, ...told, ...(item.platform as object) };
}

function olderLog(item: Members): Members {
  const { bulkId, messageId, destination, sender, title, content, sentAt, doneAt, messageCount, mccMnc } = item;
  const { messageSegments = [] } = isObject(content) ? (content as { messageSegments?: Members[] }) : {};
  return {
    bulkId,
    messageId,
    to: destination,
    from: sender,
    title,
    messageSegments: messageSegments.map(({ type: _, ...segment }) => segment),
    sentAt,
    doneAt,
    mmsCount: messageCount,
    mccMnc,
    price: item.price,
    status: viewOf(item.status),
    error: viewOf(item.error),
    ...(item.platform as object),
  };
}

// --- Errors ----------------------------------------------------------------------------------------------------------

/** The older form of a refusal, with what is wrong under the names that `named` gives. */
function older(answer: Answer, named: (path: string) => string): Answer {
  const {
    errorCode,
    violations = [],
    requestError,
  } = JSON.parse(answer.body) as {
    errorCode?: Parameters<typeof olderError>[0];
    violations?: Violation[];
    requestError?: object;
  };
  if (requestError !== undefined || errorCode === undefined) return answer;
  const renamed = violations.map(
    ({ property, violation }) => shapeless(named(property)) ?? { property: named(property), violation },
  );
  if (answer.status === 400) return badRequest(renamed);
  const { 'content-type': _, ...headers } = answer.headers;
  return olderError(errorCode, { headers });
}

/** Segments of this version have no type: what lacks one there has none of the members that tell it. */
function shapeless(path: string): Violation | null {
  const segment = /^(messages\[\d+\]\.messageSegments\[\d+\])\.type$/.exec(path)?.[1];
  if (segment === undefined) return null;
  return { property: segment, violation: 'must have text, contentUrl, smil, contentBase64 or uploadedContentId' };
}

function badRequest(violations: readonly Violation[]): Answer {
  const validationErrors: Record<string, string[]> = {};
  for (const { property, violation } of violations) {
    validationErrors[property] = [...(validationErrors[property] ?? []), violation];
  }
  const exception = {
    messageId: 'BAD_REQUEST',
    text: 'Bad request',
    ...(violations.length > 0 ? { validationErrors } : {}),
  };
  return {
    status: 400,
    headers: JSON_HEADERS,
    body: JSON.stringify({ requestError: { serviceException: exception } }),
  };
}

/** Names of /mms/2, longest first, and what the old request calls them. */
const NAMES: [RegExp, string][] = [
  [/^options\.schedule\.bulkId$/, 'bulkId'],
  [/^options\.schedule\.sendAt$/, 'messages[0].sendAt'],
  [/^(messages\[\d+\])\.sender$/, '$1.from'],
  [/^(messages\[\d+\])\.content\.(.+)$/, '$1.$2'],
  [/^(messages\[\d+\])\.content$/, '$1.messageSegments'],
  [/^(messages\[\d+\])\.options\.platform\.(.+)$/, '$1.$2'],
  [/^(messages\[\d+\])\.options\.validityPeriod\.amount$/, '$1.validityPeriod'],
  [/^(messages\[\d+\])\.options\.(.+)$/, '$1.$2'],
  [/^(messages\[\d+\])\.webhooks\.delivery\.url$/, '$1.notifyUrl'],
  [/^(messages\[\d+\])\.webhooks\.delivery\.(.+)$/, '$1.$2'],
  [/^(messages\[\d+\])\.webhooks\.(.+)$/, '$1.$2'],
];

function olderPath(path: string): string {
  const rule = NAMES.find(([pattern]) => pattern.test(path));
  return rule ? path.replace(...rule) : path;
}
