/**
 * SubmitReq as bytes (3GPP TS 23.140, 8.7.1): a multipart/related of the SOAP envelope and the content, which is itself a
 * multipart/related of the presentation and the media parts.
 *
 * Promises: elements stand in the schema's order whatever the release; no value can break XML or MIME; the same submission
 * gives the same bytes but for the boundary. All that the messages of one content share is encoded once: per message only
 * the envelope is printed.
 *
 * Fails: nothing here fails.
 */
import { fileNames } from '../../domain/content.ts';
import { makeSmil } from '../../domain/smil.ts';
import { type Part, SUBMIT_REQ_CHILDREN, type Submission } from '../../domain/submission.ts';
import { element, text, type XmlText } from '../../xml.ts';
import { type Frame, frameMultipart, type MimePartOut, writeMultipart } from '../mime.ts';
import { envelope, mm7, mm7Text, operation } from './soap.ts';

/** What of a carrier's settings shapes its requests (`Mm7CarrierConfig` has them all; docs/MM7.md says what they are for). */
export interface SubmitOptions {
  namespace: string;
  version: string;
  vaspId?: string;
  vasId?: string;
  serviceCode?: string;
  transferEncoding: 'binary' | 'base64';
  /** Whether numbers carry a leading `+`; default true. */
  plus?: boolean;
  /** Added to every number. */
  numberSuffix?: string;
  /** The element that numbers stand in; default number. */
  numberForm?: 'number' | 'rfc2822';
  /** The element of the sender; default auto: by what it is. */
  senderForm?: 'auto' | 'number' | 'shortCode' | 'rfc2822' | 'omit';
  chargedParty?: 'Sender' | 'Recipient' | 'Both' | 'Neither' | 'ThirdParty';
  chargedPartyId?: string;
  messageClass?: 'Personal' | 'Informational' | 'Advertisement' | 'Auto';
  priority?: 'Normal' | 'High' | 'Low';
  readReply?: boolean;
  distributionIndicator?: boolean;
  allowAdaptations?: boolean;
  /** Whether delivery reports are asked for; default true. */
  reports?: boolean;
  /** ExpiryDate as an instant (default), as a duration, or not at all. */
  expiry?: 'absolute' | 'relative' | 'none';
  extraElements?: readonly ExtraElement[];
  /** Where the reseller code goes, where it goes into the envelope. */
  resellerCode?: { element?: string; namespace?: string; after?: string; header?: string };
  /** What of the carrier's profile shapes the content. */
  profile?: { smil: 'required' | 'optional' | 'none' };
}

/** An element of a carrier's own. */
export interface ExtraElement {
  name: string;
  /** With {sender}, {recipient}, {transactionId}, {campaignReferenceId} and {resellerCode}; empty = left out. */
  value?: string;
  attributes?: Readonly<Record<string, string>>;
  /** Where it is not MM7's. */
  namespace?: string;
  /** The child of SubmitReq that it follows; absent = its own place in the schema. */
  after?: string;
}

/** One request's body, in pieces: `closing` is shared by all messages of a content. */
export interface SubmitBody {
  contentType: string;
  opening: Buffer;
  closing: Uint8Array;
}

const ROOT_ID = 'mm7-submit@postcard';
const CONTENT_ID = 'content@postcard';
/** Between the content's parts, unless one of them holds it. Always the same, so that the headers are printed once. */
const CONTENT_BOUNDARY = '=_postcard';

interface Shared {
  sender: string;
  subject: string | undefined;
  smil: string | undefined;
  frame: Frame;
  /** SubmitReq's children behind MM7Version, in order; a function prints what differs from message to message. */
  children: readonly Child[];
}

type Child = XmlText | ((submission: Submission) => XmlText | null);
/** `once`: printed once for all messages of a content. */
type Slot = Child | { once(submission: Submission): XmlText | null };

/** Makes the encoder of one carrier. `boundary` gives a fresh one that nobody can guess; `now` (epoch ms) is for durations. */
export function createSubmitEncoder(
  options: SubmitOptions,
  boundary: () => string,
  now: () => number = () => 0,
): (submission: Submission) => SubmitBody {
  // By the identity of `parts`: the same array for all messages of one content, gone when dispatch lets go of it.
  const cache = new WeakMap<Part[], Shared>();
  const slots = slotsOf(options, now);

  function share(submission: Submission): Shared {
    const known = cache.get(submission.parts);
    const { sender, subject, smil } = submission;
    if (known && known.sender === sender && known.subject === subject && known.smil === smil) return known;
    const made: Shared = {
      sender,
      subject,
      smil,
      frame: frameContent(submission, options, boundary()),
      children: childrenOf(submission),
    };
    cache.set(submission.parts, made);
    return made;
  }

  function childrenOf(submission: Submission): Child[] {
    const children: Child[] = [];
    for (const slot of slots) {
      const child = typeof slot === 'object' ? slot.once(submission) : slot;
      if (child) children.push(child);
    }
    return children;
  }

  return (submission) => {
    const { frame, children } = share(submission);
    const body = operation(
      'SubmitReq',
      options,
      ...children.map((child) => (typeof child === 'string' ? child : child(submission))),
    );
    const soap = envelope({ transactionId: oneLine(submission.transactionId), namespace: options.namespace, body });
    return {
      contentType: frame.contentType,
      opening: Buffer.from(frame.opening + soap, 'utf8'),
      closing: frame.closing,
    };
  };
}

/** SubmitReq's children in order, as far as the carrier's settings alone decide them. */
function slotsOf(options: SubmitOptions, now: () => number): Slot[] {
  const own = ownElements(options);
  const found = new Map<string, Slot | null>();
  found.set('SenderIdentification', { once: ({ sender }) => identification(sender, options) });
  found.set('Recipients', (one) =>
    element('mm7:Recipients', null, mm7('To', ...one.recipients.map((to) => address(to, options)))),
  );
  found.set('ServiceCode', mm7Text('ServiceCode', options.serviceCode));
  found.set('MessageClass', mm7Text('MessageClass', options.messageClass));
  found.set('EarliestDeliveryTime', (one) =>
    one.earliestAt === undefined ? null : mm7Text('EarliestDeliveryTime', instant(one.earliestAt)),
  );
  if (options.expiry !== 'none') {
    const relative = options.expiry === 'relative';
    found.set('ExpiryDate', (one) =>
      mm7Text('ExpiryDate', relative ? duration(one.validUntil - now()) : instant(one.validUntil)),
    );
  }
  found.set('DeliveryReport', element('mm7:DeliveryReport', null, text(String(options.reports !== false))));
  found.set('ReadReply', mm7Text('ReadReply', options.readReply?.toString()));
  found.set('Priority', mm7Text('Priority', options.priority));
  found.set('Subject', { once: ({ subject }) => mm7Text('Subject', oneLine(subject ?? '')) });
  found.set('ChargedParty', mm7Text('ChargedParty', options.chargedParty));
  found.set('ChargedPartyID', mm7Text('ChargedPartyID', options.chargedPartyId));
  found.set('DistributionIndicator', mm7Text('DistributionIndicator', options.distributionIndicator?.toString()));
  const adapt = options.allowAdaptations?.toString();
  found.set('Content', element('mm7:Content', { href: `cid:${CONTENT_ID}`, allowAdaptations: adapt }));
  const slots: Slot[] = [];
  for (const name of SUBMIT_REQ_CHILDREN) {
    // An element of the carrier's own with the name of one of ours stands in its stead.
    const slot = own.has(name) ? null : found.get(name);
    if (slot) slots.push(slot);
    for (const extra of own.get(name) ?? []) slots.push(extra);
    for (const extra of own.get(`after ${name}`) ?? []) slots.push(extra);
  }
  return slots;
}

/** The carrier's own elements by their place: the name of the child in whose place they stand, or `after NAME`. */
function ownElements(options: SubmitOptions): ReadonlyMap<string, Child[]> {
  const found = new Map<string, Child[]>();
  const add = (extra: ExtraElement): void => {
    const place = extra.after === undefined ? extra.name : `after ${extra.after}`;
    const child: Child = (submission) => printExtra(extra, submission);
    found.set(place, [...(found.get(place) ?? []), child]);
  };
  for (const extra of options.extraElements ?? []) add(extra);
  const { element: name, namespace, after } = options.resellerCode ?? {};
  if (name !== undefined) {
    add({
      name,
      value: '{resellerCode}',
      ...(namespace === undefined ? {} : { namespace }),
      ...(after === undefined ? {} : { after }),
    });
  }
  return found;
}

function printExtra(extra: ExtraElement, submission: Submission): XmlText | null {
  const value = extra.value === undefined ? '' : filled(extra.value, submission);
  // What was to carry something and has nothing is left out.
  if (extra.value !== undefined && value === '') return null;
  const attributes = { ...extra.attributes };
  if (extra.namespace === undefined) return element(`mm7:${extra.name}`, attributes, text(value));
  return element(`own:${extra.name}`, { 'xmlns:own': extra.namespace, ...attributes }, text(value));
}

function filled(template: string, submission: Submission): string {
  const values: Record<string, string | undefined> = {
    sender: submission.sender,
    recipient: submission.recipients[0],
    transactionId: submission.transactionId,
    campaignReferenceId: submission.campaignReferenceId,
    resellerCode: submission.resellerCode?.toString(),
  };
  return oneLine(
    template.replace(/\{(\w+)\}/g, (whole, name: string) =>
      Object.hasOwn(values, name) ? (values[name] ?? '') : whole,
    ),
  );
}

function identification(sender: string, options: SubmitOptions): XmlText | null {
  return mm7(
    'SenderIdentification',
    mm7Text('VASPID', options.vaspId),
    mm7Text('VASID', options.vasId),
    sender !== '' && options.senderForm !== 'omit' && mm7('SenderAddress', senderAddress(sender, options)),
  );
}

// ------------------------------------------------------------------------------------------------- what was submitted before

/** What CancelReq and ReplaceReq name. */
export interface Earlier {
  /** Of this request, not of the submission. */
  transactionId: string;
  /** The carrier's, exactly as it wrote it. */
  carrierMessageId: string;
  sender: string;
}

/** CancelReq: the carrier shall not deliver what it took. A document without attachments. */
export function printCancel(options: SubmitOptions, earlier: Earlier): string {
  const body = operation(
    'CancelReq',
    options,
    identification(earlier.sender, options),
    mm7Text('MessageID', oneLine(earlier.carrierMessageId)),
  );
  return envelope({ transactionId: oneLine(earlier.transactionId), namespace: options.namespace, body });
}

/**
 * ReplaceReq without content: what the carrier took early is to be delivered from `earliestAt` (epoch ms) on.
 */
export function printReplace(options: SubmitOptions, earlier: Earlier & { earliestAt: number }): string {
  const body = operation(
    'ReplaceReq',
    options,
    identification(earlier.sender, options),
    mm7Text('MessageID', oneLine(earlier.carrierMessageId)),
    mm7Text('ServiceCode', options.serviceCode),
    mm7Text('ReadReply', options.readReply?.toString()),
    mm7Text('EarliestDeliveryTime', instant(earlier.earliestAt)),
    mm7Text('DistributionIndicator', options.distributionIndicator?.toString()),
  );
  return envelope({ transactionId: oneLine(earlier.transactionId), namespace: options.namespace, body });
}

// -------------------------------------------------------------------------------------------------------------- content

function frameContent(submission: Submission, options: SubmitOptions, boundary: string): Frame {
  const { parts } = submission;
  const { transferEncoding } = options;
  const bare = options.profile?.smil === 'none';
  const names = fileNames(parts);
  const start = presentationId([...names, ...parts.map((part) => part.contentId)]);
  const inner: MimePartOut[] = [
    {
      contentType: 'application/smil; charset=utf-8',
      contentId: start,
      name: start,
      encoding: transferEncoding === 'base64' ? 'base64' : '8bit',
      bytes: submission.smil === undefined ? presentationOf(parts) : Buffer.from(submission.smil, 'utf8'),
    },
    ...parts.map(
      (part, i): MimePartOut => ({
        contentType: part.contentType,
        contentId: part.contentId,
        name: names[i] as string,
        encoding: transferEncoding,
        bytes: part.bytes,
      }),
    ),
  ];
  const content = writeMultipart(
    bare
      ? { subtype: 'mixed', parts: inner.slice(1), boundary: CONTENT_BOUNDARY }
      : { subtype: 'related', type: 'application/smil', start, parts: inner, boundary: CONTENT_BOUNDARY },
  );
  return frameMultipart({
    subtype: 'related',
    type: 'text/xml',
    start: ROOT_ID,
    boundary,
    first: { contentType: 'text/xml; charset=utf-8', contentId: ROOT_ID },
    parts: [
      {
        contentType: content.contentType,
        contentId: CONTENT_ID,
        encoding: transferEncoding === 'base64' ? '8bit' : 'binary',
        bytes: content.body,
      },
    ],
  });
}

/** Presentations made lately: a customer's messages are mostly of one make, and one takes 5 us. */
const presentations = new Map<string, Buffer>();
const PRESENTATIONS = 200;
/** Longer ones are not kept. */
const PRESENTATION_LENGTH = 4_000;

function presentationOf(parts: Part[]): Buffer {
  const key = JSON.stringify(parts.map(({ contentType, contentId }) => [contentType, contentId]));
  const known = presentations.get(key);
  if (known !== undefined) return known;
  const made = Buffer.from(makeSmil(parts), 'utf8');
  if (key.length + made.byteLength <= PRESENTATION_LENGTH) {
    if (presentations.size >= PRESENTATIONS) presentations.clear();
    presentations.set(key, made);
  }
  return made;
}

/** A name that no part has. */
function presentationId(names: readonly string[]): string {
  const used = new Set(names.map((name) => name.toLowerCase()));
  let id = 'presentation.smil';
  for (let n = 2; used.has(id); n++) id = `presentation_${n}.smil`;
  return id;
}

/** Numbers have 7 digits or more; short codes and names (there is no element for names) go as ShortCode. */
function address(value: string, options: SubmitOptions): XmlText {
  const digits = value.startsWith('+') ? value.slice(1) : value;
  if (!/^\d{7,15}$/.test(digits)) return element('mm7:ShortCode', null, text(oneLine(value)));
  return element(
    options.numberForm === 'rfc2822' ? 'mm7:RFC2822Address' : 'mm7:Number',
    null,
    numberText(digits, options),
  );
}

function numberText(digits: string, options: SubmitOptions): XmlText {
  return text(`${options.plus === false ? '' : '+'}${digits}${options.numberSuffix ?? ''}`);
}

function senderAddress(value: string, options: SubmitOptions): XmlText {
  const form = options.senderForm ?? 'auto';
  if (form === 'auto') return address(value, options);
  const digits = value.startsWith('+') ? value.slice(1) : value;
  if (form === 'shortCode') return element('mm7:ShortCode', null, text(oneLine(digits)));
  const own = /^\d{7,15}$/.test(digits) ? numberText(digits, options) : text(oneLine(digits));
  return element(form === 'rfc2822' ? 'mm7:RFC2822Address' : 'mm7:Number', null, own);
}

/** Control characters have no place in a one-line field; a blank keeps the words apart. */
function oneLine(value: string): string {
  return value.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ').trim();
}

/** xs:dateTime in whole seconds of UTC; null for what is no instant. */
function instant(ms: number): string | null {
  return Math.abs(ms) <= 8.64e15 ? `${new Date(ms).toISOString().slice(0, 19)}Z` : null;
}

/** xs:duration in whole seconds, at least one. */
function duration(ms: number): string | null {
  return Number.isFinite(ms) ? `PT${Math.max(1, Math.floor(ms / 1000))}S` : null;
}
