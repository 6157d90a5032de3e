/**
 * MM7 as the MMSC's side speaks it: takes SubmitReq, CancelReq and ReplaceReq apart, prints their answers, faults,
 * DeliveryReportReq and DeliverReq. Reads with its own,
 * strict eyes (the carrier's reader is tolerant on purpose), so that a slip of the carrier's printing shows here.
 *
 * Promises: any 3GPP TS 23.140 namespace of release 5 or 6 (or none) and any order of elements is understood; a value or an
 * element that the schema does not know is refused, naming it. Answers carry the request's TransactionID, namespace and
 * version.
 *
 * Fails: nothing throws; what is wrong with a request is a `Problem` with the MM7 status that says so.
 */
import { createHash } from 'node:crypto';
import { childOf, element, readXml, text, textOf, type XmlElement, type XmlText } from '../../xml.ts';
import { headerValue, type MimePartIn, readMultipart, writeMultipart } from '../mime.ts';
import {
  envelope,
  fault,
  MM7_NAMESPACE,
  MM7_VERSION,
  mm7,
  mm7Text,
  operation,
  readSoap,
  SOAP_11,
  status,
  statusOf,
} from '../mm7/soap.ts';
import { NO_MMS_STATUS, type ReportStatus } from './behaviours.ts';

const MM7 = /^http:\/\/www\.3gpp\.org\/ftp\/Specs\/archive\/23_series\/23\.140\/schema\/REL-[56]-MM7-1-[0-5]$/;
const VERSION = /^[56]\.\d{1,2}\.\d{1,2}$/;

/** Of the SOAP part. */
const ENVELOPE_BYTES = 1024 * 1024;
const PARTS = 100;
const RECIPIENTS = 500;
const TRANSACTION_ID = 256;
/** Answers a request whose TransactionID could not be read (as other MMSCs do). */
const NO_TRANSACTION = '0000';
/** EarliestDeliveryTime may lie so far ahead that reports are over before the submission is forgotten. */
const EARLIEST_MS = 4 * 86_400_000;

/** How a request named itself; its answer does the same. */
export interface Dialect {
  transactionId: string | null;
  namespace: string;
  version: string;
  /** What answers it; SubmitRsp unless given. */
  response?: Response;
}

const RESPONSE: Readonly<Record<string, Response>> = {
  SubmitReq: 'SubmitRsp',
  CancelReq: 'CancelRsp',
  ReplaceReq: 'ReplaceRsp',
};
type Response = 'SubmitRsp' | 'CancelRsp' | 'ReplaceRsp';

export interface Address {
  kind: 'Number' | 'ShortCode' | 'RFC2822Address';
  /** As the VASP wrote it. */
  text: string;
}

export interface Recipient extends Address {
  /** Digits. */
  msisdn: string;
  list: 'To' | 'Cc' | 'Bcc';
}

interface SubmitPart {
  /** Media type and charset. */
  contentType: string;
  contentId: string;
  bytes: Uint8Array;
  /** SHA-256. */
  hash: Uint8Array;
}

export interface SubmitReq {
  transactionId: string;
  namespace: string;
  version: string;
  /** VASPID, '' where there is none: TransactionIDs are unique within it. */
  vasp: string;
  /** `shown`: as the handset shows it, digits without `+` or a name. */
  sender: Address & { shown: string };
  /** Each number once. */
  recipients: Recipient[];
  subject: string | null;
  /** DeliveryReport was asked for. */
  reports: boolean;
  /** Epoch ms; not delivered before, or later. */
  earliestAt: number | null;
  expiresAt: number | null;
  parts: SubmitPart[];
}

/** An MM7 status: what an answer other than 1000 says. */
export interface Status {
  code: number;
  details?: string;
  /** Recipients that it is about; those of 1100 do not exist (2003), unless they have a code of their own. */
  recipients?: (Address & { code?: number })[];
}

/** `fault`: the request as such cannot be processed, so the answer is a SOAP fault; else a SubmitRsp. */
interface Problem extends Status {
  fault: boolean;
}

/** CancelReq or ReplaceReq: what is to happen to a message that was taken. */
export interface Amend extends Dialect {
  operation: 'CancelReq' | 'ReplaceReq';
  transactionId: string;
  /** VASPID, '' where there is none: it may amend its own only. */
  vasp: string;
  messageId: string;
  /** Of a ReplaceReq, epoch ms; null = as it was. */
  earliestAt: number | null;
}

export type Read =
  | { ok: true; request: SubmitReq; fingerprint: Uint8Array }
  | { ok: true; amend: Amend }
  | { ok: false; dialect: Dialect; problem: Problem };

const STATUS_TEXT: Record<number, string> = {
  1000: 'Success',
  1100: 'Partial success',
  [NO_MMS_STATUS]: 'Handset does not support MMS',
  2002: 'Address error',
  2003: 'Address not found',
  2004: 'Multimedia content refused',
  2005: 'Message ID not found',
  2007: 'Message format corrupt',
  3001: 'Not possible',
  4002: 'Unsupported version',
  4003: 'Unsupported operation',
  4004: 'Validation error',
  4006: 'Service unavailable',
};

// ------------------------------------------------------------------------------------------------------------- reading

/** Thrown inside this file only. */
class Refusal extends Error {
  readonly problem: Problem;
  constructor(problem: Problem) {
    super(problem.details);
    this.problem = problem;
  }
}

function unfit(code: number, details: string): never {
  throw new Refusal({ code, details, fault: true });
}

function refuse(code: number, details: string, recipients?: Address[]): never {
  throw new Refusal({ code, details, fault: false, ...(recipients ? { recipients } : {}) });
}

/** Reads the body of a POST. @param now epoch ms, for durations. */
export function readSubmit(contentType: string, body: Uint8Array, now: number): Read {
  const dialect: Dialect = { transactionId: null, namespace: MM7_NAMESPACE, version: MM7_VERSION };
  try {
    const { soap, parts } = openBody(contentType, body);
    const read = readOperation(soap, parts, dialect, now);
    if ('operation' in read) return { ok: true, amend: read };
    const request = read;
    const words = createHash('sha256').update(
      JSON.stringify([request.vasp, request.sender, request.recipients.map((to) => to.msisdn), request.subject]),
    );
    for (const part of request.parts) words.update(part.hash);
    return { ok: true, request, fingerprint: words.digest() };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { ok: false, dialect, problem: error.problem };
  }
}

function openBody(contentType: string, body: Uint8Array): { soap: Uint8Array; parts: MimePartIn[] } {
  const { value, params } = headerValue(contentType);
  if (value === 'text/xml' || value === 'application/xml') return { soap: body, parts: [] };
  if (value !== 'multipart/related') {
    return unfit(4004, 'Content-Type must be multipart/related (or text/xml for a request without content)');
  }
  const read = readMultipart(contentType, body, { parts: PARTS });
  if (!read.ok) return unfit(4004, read.fault);
  const start = params.start ? bare(params.start) : null;
  const root = start === null ? read.parts[0] : read.parts.find((part) => part.contentId === start);
  if (!root) return unfit(4004, 'start names no part');
  return { soap: root.bytes, parts: read.parts.filter((part) => part !== root) };
}

function readOperation(soap: Uint8Array, parts: MimePartIn[], dialect: Dialect, now: number): SubmitReq | Amend {
  const xml = readXml(soap, { size: ENVELOPE_BYTES });
  if (!xml.ok) return unfit(4004, `the SOAP part cannot be read: ${xml.fault}`);
  const { root } = xml;
  if (root.name !== 'Envelope' || root.uri !== SOAP_11) return unfit(4004, 'not a SOAP 1.1 envelope');
  const transaction = childOf(root, 'Header', 'TransactionID');
  const operations = childOf(root, 'Body')?.children ?? [];
  const request = operations[0];
  const uri = [request?.uri, transaction?.uri].find((one) => one !== undefined && MM7.test(one));
  if (uri) dialect.namespace = uri;
  const id = transaction?.text.trim() ?? '';
  if (id.length > TRANSACTION_ID) return unfit(4004, `TransactionID longer than ${TRANSACTION_ID} characters`);
  if (id !== '') dialect.transactionId = id;
  if (!request || operations.length !== 1) return unfit(4004, 'Body must hold exactly one operation');
  const version = textOf(request, 'MM7Version');
  if (version !== undefined && VERSION.test(version)) dialect.version = version;
  if (request.uri !== '' && !MM7.test(request.uri)) return unfit(4004, 'the operation is in no MM7 namespace');
  if (id === '') return unfit(4004, 'TransactionID is missing');
  const amends = request.name === 'CancelReq' || request.name === 'ReplaceReq';
  if (request.name !== 'SubmitReq' && !amends) {
    return unfit(4003, `${request.name.slice(0, 80)} is not supported here`);
  }
  dialect.response = RESPONSE[request.name] as Response;
  if (version === undefined) return unfit(4004, 'MM7Version is missing');
  if (!VERSION.test(version)) return unfit(4002, 'MM7Version must be 5.x.x or 6.x.x');
  if (amends) return readAmend(request, dialect as Dialect & { transactionId: string }, now);
  checkElements(request);
  const who = childOf(request, 'SenderIdentification');
  if (!who) return refuse(4004, 'SenderIdentification is missing');
  return {
    transactionId: id,
    namespace: dialect.namespace,
    version,
    vasp: textOf(who, 'VASPID') ?? '',
    sender: readSender(who),
    recipients: readRecipients(request),
    subject: textOf(request, 'Subject') ?? null,
    reports: readBoolean(request, 'DeliveryReport'),
    earliestAt: readEarliest(request, now),
    expiresAt: readTime(request, 'ExpiryDate', now),
    parts: readContent(request, parts),
  };
}

function readAmend(request: XmlElement, dialect: Dialect & { transactionId: string }, now: number): Amend {
  const who = childOf(request, 'SenderIdentification');
  if (!who) return refuse(4004, 'SenderIdentification is missing');
  const messageId = textOf(request, 'MessageID');
  if (!messageId) return refuse(4004, 'MessageID is missing');
  if (request.name === 'ReplaceReq' && childOf(request, 'Content')) {
    return refuse(4003, 'a ReplaceReq with Content is not supported here');
  }
  return {
    ...dialect,
    operation: request.name as Amend['operation'],
    vasp: textOf(who, 'VASPID') ?? '',
    messageId: bare(messageId),
    earliestAt: request.name === 'ReplaceReq' ? readEarliest(request, now) : null,
  };
}

/** SubmitReq's children and their values where the schema lists them (REL-6-MM7-1-4, which includes the older ones). */
const ANY = null;
const ELEMENTS: Record<string, readonly string[] | null> = {
  MM7Version: ANY,
  SenderIdentification: ANY,
  Extension: ANY,
  Recipients: ANY,
  PreferredChannels: ANY,
  ServiceCode: ANY,
  LinkedID: ANY,
  MessageClass: ['Personal', 'Informational', 'Advertisement', 'Auto'],
  TimeStamp: ANY,
  ReplyCharging: ANY,
  EarliestDeliveryTime: ANY,
  ExpiryDate: ANY,
  DeliveryReport: ANY,
  ReadReply: ANY,
  Priority: ['Normal', 'High', 'Low'],
  Subject: ANY,
  ChargedParty: ['Sender', 'Recipient', 'Both', 'Neither', 'ThirdParty'],
  ChargedPartyID: ANY,
  ThirdPartyPayer: ANY,
  DistributionIndicator: ANY,
  DeliveryCondition: ANY,
  ApplicID: ANY,
  ReplyApplicID: ANY,
  AuxApplicInfo: ANY,
  ContentClass: [
    'text',
    'image-basic',
    'image-rich',
    'video-basic',
    'video-rich',
    'megapixel',
    'content-basic',
    'content-rich',
  ],
  DRMContent: ANY,
  Content: ANY,
  AdditionalInformation: ANY,
  MessageExtraData: ANY,
};
const REPEATED = new Set(['Extension', 'Content', 'AdditionalInformation']);

function checkElements(submit: XmlElement): void {
  const seen = new Set<string>();
  for (const child of submit.children) {
    // A vendor's own.
    if (child.uri !== '' && child.uri !== submit.uri && !MM7.test(child.uri)) continue;
    if (!Object.hasOwn(ELEMENTS, child.name)) refuse(4004, `SubmitReq has no ${child.name.slice(0, 80)}`);
    if (seen.has(child.name) && !REPEATED.has(child.name)) refuse(4004, `${child.name} stands twice`);
    seen.add(child.name);
    const values = ELEMENTS[child.name];
    if (values && !values.includes(child.text.trim())) {
      refuse(2007, `${child.name} must be one of ${values.join(', ')}`);
    }
  }
  for (const name of ['ReadReply', 'DistributionIndicator', 'DRMContent']) readBoolean(submit, name);
  const stamp = textOf(submit, 'TimeStamp');
  if (stamp !== undefined && dateTime(stamp) === null) refuse(2007, 'TimeStamp must be a dateTime');
}

function readBoolean(submit: XmlElement, name: string): boolean {
  const value = textOf(submit, name)?.toLowerCase();
  if (value === 'true' || value === '1') return true;
  if (value === undefined || value === 'false' || value === '0') return false;
  return refuse(2007, `${name} must be true or false`);
}

function dateTime(value: string): number | null {
  const match = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:\d\d)?$/.exec(value);
  if (!match) return null;
  const at = Date.parse(match[1] ? value : `${value}Z`);
  return Number.isNaN(at) ? null : at;
}

/** xs:duration, months and years by their average length. */
function duration(value: string): number | null {
  const match =
    /^P(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,6})D)?(?:T(?:(\d{1,7})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?$/.exec(value);
  if (!match || value.endsWith('P') || value.endsWith('T')) return null;
  const [years = 0, months = 0, days = 0, hours = 0, minutes = 0, seconds = 0] = match
    .slice(1)
    .map((n) => Number(n ?? 0));
  return ((years * 365.25 + months * 30.4375 + days) * 86_400 + hours * 3600 + minutes * 60 + seconds) * 1000;
}

function readTime(submit: XmlElement, name: string, now: number): number | null {
  const value = textOf(submit, name);
  if (value === undefined) return null;
  const length = duration(value);
  const at = length === null ? dateTime(value) : Math.round(now + length);
  return at ?? refuse(2007, `${name} must be a dateTime or a duration`);
}

function readEarliest(submit: XmlElement, now: number): number | null {
  const at = readTime(submit, 'EarliestDeliveryTime', now);
  if (at !== null && at > now + EARLIEST_MS) refuse(2007, 'EarliestDeliveryTime lies more than 4 days ahead');
  return at;
}

function isAddress(child: XmlElement): boolean {
  return child.name === 'Number' || child.name === 'ShortCode' || child.name === 'RFC2822Address';
}

function addressOf(child: XmlElement): Address {
  return { kind: child.name as Address['kind'], text: child.text.trim() };
}

/** `+49170/TYPE=PLMN@mms.example` and `49170` are the same number. */
function plain(address: string): string {
  return address
    .replace(/@.*$/s, '')
    .replace(/\/TYPE=PLMN$/i, '')
    .replace(/^\+/, '');
}

function readSender(who: XmlElement): SubmitReq['sender'] {
  const given = childOf(who, 'SenderAddress');
  const inner = given?.children.find(isAddress);
  if (inner) {
    const address = addressOf(inner);
    // A name may contain an @; only what begins like a number is one.
    return { ...address, shown: /^\+?\d/.test(address.text) ? plain(address.text) : address.text };
  }
  const own = given?.text.trim() || textOf(who, 'VASID') || textOf(who, 'VASPID') || '';
  return { kind: 'ShortCode', text: own, shown: /^\+?\d/.test(own) ? plain(own) : own };
}

function readRecipients(submit: XmlElement): Recipient[] {
  const recipients = new Map<string, Recipient>();
  const bad: Address[] = [];
  for (const list of childOf(submit, 'Recipients')?.children ?? []) {
    if (list.name !== 'To' && list.name !== 'Cc' && list.name !== 'Bcc') {
      refuse(4004, `Recipients has no ${list.name.slice(0, 80)}`);
    }
    for (const child of list.children) {
      if (!isAddress(child)) refuse(4004, `${list.name} has no ${child.name.slice(0, 80)}`);
      const address = addressOf(child);
      const msisdn = plain(address.text);
      if (!/^\d{1,20}$/.test(msisdn)) bad.push(address);
      else if (!recipients.has(msisdn)) {
        recipients.set(msisdn, { ...address, msisdn, list: list.name as Recipient['list'] });
      }
    }
  }
  if (bad.length > 0) refuse(2002, 'not a number', bad.slice(0, 50));
  if (recipients.size === 0) refuse(2002, 'Recipients are missing');
  if (recipients.size > RECIPIENTS) refuse(2007, `more than ${RECIPIENTS} recipients`);
  return [...recipients.values()];
}

function readContent(submit: XmlElement, attached: MimePartIn[]): SubmitPart[] {
  const out: SubmitPart[] = [];
  for (const content of submit.children.filter((child) => child.name === 'Content')) {
    const href = content.attributes.href ?? '';
    const part = attached.find((one) => one.contentId !== null && cidMatches(href, one.contentId));
    if (!part) return refuse(2004, 'Content/@href names no part of the request');
    if (!headerValue(part.contentType).value.startsWith('multipart/')) out.push(submitPart(part, out.length));
    else {
      const inner = readMultipart(part.contentType, part.bytes, { parts: PARTS });
      if (!inner.ok) return refuse(2004, inner.fault);
      for (const one of inner.parts) out.push(submitPart(one, out.length));
    }
  }
  if (out.length === 0) refuse(2004, 'Content is missing');
  if (out.length > PARTS) refuse(2004, `more than ${PARTS} parts`);
  return out;
}

function bare(id: string): string {
  return id.trim().replace(/^<(.*)>$/s, '$1');
}

function cidMatches(href: string, contentId: string): boolean {
  const id = bare(href.replace(/^cid:/i, ''));
  if (id === contentId) return true;
  try {
    return decodeURIComponent(id) === contentId;
  } catch {
    return false;
  }
}

function submitPart(part: MimePartIn, n: number): SubmitPart {
  const { value, params } = headerValue(part.contentType);
  const type = /^[a-z0-9!#$&^_.+-]{1,127}\/[a-z0-9!#$&^_.+-]{1,127}$/.test(value) ? value : 'application/octet-stream';
  const charset = /^[A-Za-z0-9_:.-]{1,40}$/.test(params.charset ?? '') ? `; charset=${params.charset}` : '';
  const contentId = part.contentId || part.headers['content-location'] || params.name || `part-${n + 1}`;
  return {
    contentType: type + charset,
    contentId,
    bytes: part.bytes,
    hash: createHash('sha256').update(part.bytes).digest(),
  };
}

// ------------------------------------------------------------------------------------------------------------- printing

function printAddress(address: Address): XmlText {
  return element(`mm7:${address.kind}`, null, text(address.text));
}

function printStatus({ code, details, recipients = [] }: Status): XmlText {
  // The schema leaves Details open; each recipient stands there with a status of its own.
  const own = code === 1100 ? 2003 : code;
  return status(
    code,
    STATUS_TEXT[code] ?? 'Server error',
    details === undefined ? null : text(details),
    ...recipients.map((one) => mm7('Recipient', printAddress(one), mm7Text('StatusCode', one.code ?? own))),
  );
}

function printed(dialect: Dialect, body: XmlText): string {
  return envelope({ transactionId: dialect.transactionId ?? NO_TRANSACTION, namespace: dialect.namespace, body });
}

/** SubmitRsp, or what else answers the request. `messageId` null for what was not taken. */
export function printResponse(dialect: Dialect, answer: Status, messageId: string | null): string {
  const name = dialect.response ?? 'SubmitRsp';
  return printed(dialect, operation(name, dialect, printStatus(answer), mm7Text('MessageID', messageId)));
}

/** A SOAP fault with an RSErrorRsp. */
export function printFault(dialect: Dialect, answer: Status): string {
  const ours = answer.code === 4006;
  const detail = operation('RSErrorRsp', dialect, printStatus(answer));
  return printed(dialect, fault(ours ? 'Server' : 'Client', STATUS_TEXT[answer.code] ?? 'Server error', detail));
}

export interface Report extends Dialect {
  messageId: string;
  recipient: Address;
  sender: Address;
  /** Epoch ms. */
  at: number;
  status: ReportStatus;
}

/** A DeliveryReportReq in the dialect of the submission that it belongs to. */
export function printReport(report: Report): string {
  const body = operation(
    'DeliveryReportReq',
    report,
    mm7Text('MMSRelayServerID', 'postcard-sandbox'),
    mm7Text('MessageID', report.messageId),
    mm7('Recipient', printAddress(report.recipient)),
    mm7('Sender', printAddress(report.sender)),
    mm7Text('Date', new Date(report.at).toISOString()),
    mm7Text('MMStatus', report.status),
    report.status === 'Rejected' && mm7Text('MMStatusExtension', 'RejectionByMMSRecipient'),
    mm7Text('StatusText', REPORT_TEXT[report.status]),
  );
  return printed(report, body);
}

/** Reads on from the status: "Retrieved by the handset". */
const REPORT_TEXT: Record<ReportStatus, string> = {
  Retrieved: 'by the handset',
  Deferred: 'until the handset fetches it',
  Rejected: 'by the handset',
  Expired: 'before the handset fetched it',
};

/** Whether an answer took what it answers: `response` (like DeliveryReportRsp) with status 1000. */
export function isTaken(contentType: string | undefined, body: Uint8Array, response: string): boolean {
  const read = readSoap(contentType, body);
  return read.ok && read.message.operation === response && statusOf(read.message).code === 1000;
}

/** A message that a handset sends, addresses in digits. */
export interface Deliver {
  transactionId: string;
  sender: string;
  to: readonly string[];
  cc: readonly string[];
  subject: string | null;
  /** Epoch ms. */
  at: number;
  /** Content-IDs as they are; each part needs one of its own. */
  parts: readonly { contentType: string; contentId: string; bytes: Uint8Array }[];
  /** The presentation. */
  smil: string;
}

/** A DeliverReq with its content, as a body and its Content-Type. */
export function printDeliver(deliver: Deliver): { contentType: string; body: Uint8Array } {
  const dialect: Dialect = { transactionId: deliver.transactionId, namespace: MM7_NAMESPACE, version: MM7_VERSION };
  const address = (digits: string): XmlText =>
    digits.length < 7 ? element('mm7:ShortCode', null, text(digits)) : element('mm7:Number', null, text(`+${digits}`));
  const body = operation(
    'DeliverReq',
    dialect,
    mm7Text('MMSRelayServerID', 'postcard-sandbox'),
    mm7('Sender', address(deliver.sender)),
    mm7(
      'Recipients',
      mm7('To', ...deliver.to.map(address)),
      deliver.cc.length > 0 && mm7('Cc', ...deliver.cc.map(address)),
    ),
    mm7Text('TimeStamp', new Date(deliver.at).toISOString()),
    mm7Text('Priority', 'Normal'),
    mm7Text('Subject', deliver.subject),
    element('mm7:Content', { href: 'cid:content@postcard-sandbox' }),
  );
  const start = 'presentation.smil@postcard-sandbox';
  const content = writeMultipart({
    subtype: 'related',
    type: 'application/smil',
    start,
    parts: [
      {
        contentType: 'application/smil; charset=utf-8',
        contentId: start,
        encoding: '8bit',
        bytes: Buffer.from(deliver.smil),
      },
      ...deliver.parts.map(({ contentType, contentId, bytes }) => ({
        contentType,
        contentId,
        name: contentId,
        encoding: 'binary' as const,
        bytes,
      })),
    ],
  });
  const whole = writeMultipart({
    subtype: 'related',
    type: 'text/xml',
    start: 'mm7-deliver@postcard-sandbox',
    parts: [
      {
        contentType: 'text/xml; charset=utf-8',
        contentId: 'mm7-deliver@postcard-sandbox',
        encoding: '8bit',
        bytes: Buffer.from(printed(dialect, body), 'utf8'),
      },
      {
        contentType: content.contentType,
        contentId: 'content@postcard-sandbox',
        encoding: 'binary',
        bytes: content.body,
      },
    ],
  });
  return { contentType: whole.contentType, body: whole.body };
}
