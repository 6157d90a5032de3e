/**
 * What an MMSC calls with, read into our words: DeliveryReportReq and ReadReplyReq as a CarrierReport, DeliverReq as a
 * CarrierInbound. Pure.
 *
 * Promises: any order, prefix, namespace and wrapping is read; a status word that is not known never ends a message; what a
 * DeliverReq leaves out is absent, not a fault; a repeated DeliverReq gets the same id. Names of parts are safe and unique.
 *
 * Fails: a string that says what is missing or cannot be read.
 */
import { createHash } from 'node:crypto';
import { international } from '../../domain/address.ts';
import { wireNames } from '../../domain/content.ts';
import type { CarrierInbound, CarrierReport, Part, Priority, ReportKind } from '../../domain/submission.ts';
import { childOf, textOf, type XmlElement } from '../../xml.ts';
import { decodedWords, headerValue, type MimePartIn, mediaType, readMultipart } from '../mime.ts';
import { addressDigits, bounded, type CodeTables, errorOf } from './answer.ts';
import type { SoapMessage } from './soap.ts';

/** Who calls, and what its settings say about how it speaks. */
export interface Caller extends CodeTables {
  name: string;
  /** How the ids of its reports differ from those of its answers; as they are unless given. */
  reportIdForm?: 'as-is' | 'hex-to-dec' | 'dec-to-hex';
}

/** MMStatus by its letters in lower case, as the releases and the field spell it. */
const KINDS: ReadonlyMap<string, ReportKind> = new Map<string, ReportKind>(
  Object.entries({
    retrieved: 'retrieved',
    delivered: 'retrieved',
    deferred: 'deferred',
    forwarded: 'forwarded',
    processing: 'forwarded',
    rejected: 'rejected',
    expired: 'expired',
    indeterminate: 'indeterminate',
    // Ended without delivery, for reasons that no kind of ours has a word for.
    deliveryconditionnotmet: 'indeterminate',
    cancelled: 'indeterminate',
    canceled: 'indeterminate',
    replaced: 'indeterminate',
    unrecognised: 'unrecognised',
    unrecognized: 'unrecognised',
    unreachable: 'unreachable',
    notsupported: 'unsupported',
    unsupported: 'unsupported',
  } as const),
);
/** Kinds that a status code beside them may explain. */
const EXPLAINED: ReadonlySet<ReportKind> = new Set(['rejected', 'indeterminate', 'unrecognised', 'unreachable']);
/** 15008 EC_PROVIDER_DELIVERY_ERROR: another relay refused, not the recipient. */
const OTHER_RELAY = 15008;

/** A DeliveryReportReq. `known` false: the status word means nothing to us; it moves a message no further. */
export function readReport(caller: Caller, body: XmlElement): { report: CarrierReport; known: boolean } | string {
  const carrierMessageId = textOf(body, 'MessageID');
  if (!carrierMessageId) return 'MessageID missing';
  const word = textOf(body, 'MMStatus');
  if (!word) return 'MMStatus missing';
  const found = KINDS.get(word.toLowerCase().replace(/[^a-z]/g, ''));
  const kind = found ?? 'forwarded';
  const extension = textOf(body, 'MMStatusExtension');
  const statusElement = childOf(body, 'Status') ?? body;
  const code = textOf(statusElement, 'StatusCode');
  const report: CarrierReport = {
    carrier: caller.name,
    carrierMessageId: messageId(carrierMessageId, caller),
    addresses: addressesOf(body),
    kind,
    words: bounded([word, extension, code, textOf(statusElement, 'StatusText')].filter(Boolean).join(' ')),
  };
  if (EXPLAINED.has(kind)) {
    if (code !== undefined && /^[2-4]\d{3}$/.test(code)) report.error = errorOf(Number(code), caller);
    else if (extension === 'RejectionByOtherRS') report.error = OTHER_RELAY;
  }
  const at = Date.parse(textOf(body, 'Date') ?? '');
  if (!Number.isNaN(at)) report.at = at;
  return { report, known: found !== undefined };
}

/** A ReadReplyReq: noted in the message's story, it moves no status. Null = it names no message: nothing to note. */
export function readReadReply(caller: Caller, body: XmlElement): CarrierReport | null {
  const carrierMessageId = textOf(body, 'MessageID');
  if (!carrierMessageId) return null;
  const report: CarrierReport = {
    carrier: caller.name,
    carrierMessageId: messageId(carrierMessageId, caller),
    addresses: addressesOf(body),
    kind: 'read',
    words: bounded(`read reply: ${textOf(body, 'MMStatus') ?? ''} ${textOf(body, 'StatusText') ?? ''}`),
  };
  const at = Date.parse(textOf(body, 'TimeStamp') ?? textOf(body, 'Date') ?? '');
  if (!Number.isNaN(at)) report.at = at;
  return report;
}

/** The id as the carrier's answers write it. */
function messageId(written: string, { reportIdForm = 'as-is' }: Caller): string {
  const id = written.slice(0, ID_LENGTH);
  const [, before = '', bare = '', behind = ''] = /^(\s*<?)([0-9A-Fa-f]{1,64})(@[^>]*>?|>?\s*)$/.exec(id) ?? [];
  if (bare === '' || reportIdForm === 'as-is') return id;
  if (reportIdForm === 'hex-to-dec') return before + BigInt(`0x${bare}`).toString() + behind;
  return /^\d+$/.test(bare) ? before + BigInt(bare).toString(16) + behind : id;
}

/** Ids are some dozens of characters. */
const ID_LENGTH = 500;
/** Addresses named in one report at most. */
const ADDRESSES = 500;

/** All addresses of either side, wrapped in To or not, one or several. Peers swap the sides. */
function addressesOf(body: XmlElement): string[] {
  const found = new Set<string>();
  const visit = (element: XmlElement): void => {
    const digits = addressDigits(element.text);
    if (digits !== '' && found.size < ADDRESSES) found.add(digits.slice(0, 100));
    for (const child of element.children) visit(child);
  };
  for (const child of body.children) {
    if (child.name === 'Recipient' || child.name === 'Recipients' || child.name === 'Sender') visit(child);
  }
  return [...found];
}

// ------------------------------------------------------------------------------------------------------------ DeliverReq

/** Media parts of one message from a handset. */
const PARTS = 100;
const SUBJECT = 1000;
/** Multiparts within multiparts that are opened. */
const DEPTH = 3;
const RECIPIENTS = 200;

const PRIORITIES: ReadonlyMap<string, Priority> = new Map([
  ['normal', 'Normal'],
  ['high', 'High'],
  ['low', 'Low'],
]);

/** The model by its profile's URL: the file's name without its ending. What is no URL stands as it is. */
function handsetOf(profile: string): string {
  const path = URL.parse(profile.trim())?.pathname;
  const name = path?.match(/([^/]+?)(?:\.(?:xml|rdf))?\/?$/i)?.[1] ?? profile;
  return bounded(name);
}

/** A DeliverReq: what a handset sent. */
export function readDeliver(caller: Caller, message: SoapMessage): CarrierInbound | string {
  const { body } = message;
  const media = contentOf(message);
  if (typeof media === 'string') return media;
  const recipients = childOf(body, 'Recipients');
  const inbound: CarrierInbound = {
    carrier: caller.name,
    channel: 'MMS',
    id: '',
    from: addressIn(childOf(body, 'Sender'))[0] ?? '',
    to: addressIn(recipients, 'To'),
    cc: addressIn(recipients, 'Cc'),
    parts: media,
  };
  const subject = textOf(body, 'Subject');
  if (subject)
    inbound.subject = decodedWords(subject.slice(0, 4 * SUBJECT))
      .slice(0, SUBJECT)
      .toWellFormed();
  const priority = PRIORITIES.get((textOf(body, 'Priority') ?? '').toLowerCase());
  if (priority) inbound.priority = priority;
  const userAgent = handsetOf(childOf(body, 'UACapabilities')?.attributes.UAProf ?? '');
  if (userAgent !== '') inbound.userAgent = userAgent;
  const answers = textOf(body, 'LinkedID');
  if (answers) inbound.answers = messageId(answers, caller);
  const at = Date.parse(textOf(body, 'TimeStamp') ?? '');
  if (!Number.isNaN(at)) inbound.at = at;
  inbound.id = idOf(message, inbound);
  return inbound;
}

/**
 * The message's own id where the peer gives one (it is not in the schema). Else its TransactionID, which a repetition shares, with
 * what it says: some peers count TransactionIDs from the start after a restart, and then another message must be another one.
 */
function idOf(message: SoapMessage, inbound: CarrierInbound): string {
  const own = textOf(message.body, 'MessageID');
  if (own) return own.slice(0, ID_LENGTH);
  const { from, to, subject = '', at = 0, parts } = inbound;
  const hash = createHash('sha256').update(JSON.stringify([from, to, subject, at]));
  for (const part of parts) hash.update(`\n${part.contentType}\n${part.bytes.byteLength}\n`).update(part.bytes);
  const what = hash.digest('hex').slice(0, 32);
  const { transactionId } = message;
  return transactionId === null ? what : `${transactionId.slice(0, ID_LENGTH - 33)}~${what}`;
}

/** Addresses in an element (of those children, where named): in digits where they are numbers. */
function addressIn(element: XmlElement | undefined, ...lists: string[]): string[] {
  const found = new Set<string>();
  const visit = (one: XmlElement): void => {
    const written = one.text.trim();
    // `+385911234567/TYPE=PLMN@mms.example` is a number, `somebody@example.net` is none.
    const number = /^(?:tel:)?\+?[\d().\s-]{3,24}(?=$|\/TYPE=PLMN)/i.exec(written)?.[0].replace(/[^\d]/g, '');
    const address = number === undefined ? addressDigits(written).slice(0, 100).toWellFormed() : international(number);
    if (address !== '' && found.size < RECIPIENTS) found.add(address);
    for (const child of one.children) visit(child);
  };
  if (element) {
    const chosen = element.children.filter((child) => lists.includes(child.name));
    // Addresses may stand in Recipients itself.
    const direct = lists.includes('To') ? element.children.filter((child) => !/^(?:To|Cc|Bcc)$/.test(child.name)) : [];
    if (lists.length === 0) visit(element);
    else for (const child of [...chosen, ...direct]) visit(child);
  }
  return [...found];
}

/** The media parts: what Content names, else all that is attached; without the presentation. */
function contentOf(message: SoapMessage): Part[] | string {
  const { body, attachments } = message;
  const hrefs = body.children.filter((child) => child.name === 'Content').map((child) => child.attributes.href ?? '');
  const named = hrefs
    .map((href) => attachments.find((part) => isNamed(href, part)))
    .filter((part) => part !== undefined);
  const found: MimePartIn[] = [];
  for (const part of named.length > 0 ? new Set(named) : attachments) {
    const fault = flatten(part, found, DEPTH);
    if (fault !== null) return fault;
  }
  if (found.length > PARTS) return `more than ${PARTS} parts`;
  const media = found.filter((part) => !/^application\/smil/.test(mediaType(part.contentType)));
  const names = wireNames(media.map((part, n) => ({ contentId: nameOf(part), fallback: `part_${n + 1}` })));
  return media.map((part, n) => ({ contentId: names[n] as string, contentType: typeOf(part), bytes: part.bytes }));
}

/** Puts a part's own parts into `out`; a string is what is wrong. */
function flatten(part: MimePartIn, out: MimePartIn[], depth: number): string | null {
  if (!/^\s*multipart\//i.test(part.contentType)) {
    if (out.length <= PARTS) out.push(part);
    return null;
  }
  if (depth === 0) return 'multiparts nested too deep';
  const inner = readMultipart(part.contentType, part.bytes, { parts: PARTS });
  if (!inner.ok) return inner.fault;
  for (const one of inner.parts) {
    const fault = flatten(one, out, depth - 1);
    if (fault !== null) return fault;
  }
  return null;
}

/** RFC 2392: `cid:` and percent-encoding, brackets or none; peers also name Content-Location. */
function isNamed(href: string, part: MimePartIn): boolean {
  const written = href
    .trim()
    .replace(/^cid:/i, '')
    .replace(/^<(.*)>$/s, '$1');
  if (written === '') return false;
  let decoded = written;
  try {
    decoded = decodeURIComponent(written);
  } catch {
    // Not encoded then.
  }
  const location = part.headers['content-location'];
  return [part.contentId, location].some(
    (own) => own !== null && own !== undefined && (own === written || own === decoded),
  );
}

/** What the handset called it. */
function nameOf(part: MimePartIn): string {
  const location = part.headers['content-location']?.trim().replace(/^<(.*)>$/s, '$1');
  const { name } = headerValue(part.contentType).params;
  const { filename } = headerValue(part.headers['content-disposition'] ?? '').params;
  return (location || name || filename || part.contentId || '').replace(/^.*[/\\]/s, '');
}

/** Media type and charset. */
function typeOf(part: MimePartIn): string {
  const { charset } = headerValue(part.contentType).params;
  const known = charset !== undefined && /^[A-Za-z0-9_:.-]{1,40}$/.test(charset);
  return `${mediaType(part.contentType)}${known ? `; charset=${charset.toLowerCase()}` : ''}`;
}
