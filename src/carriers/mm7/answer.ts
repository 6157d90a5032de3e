/**
 * What a carrier's answer to a SubmitReq means, as an Outcome. Pure; `statusOutcome` and `httpOutcome` are the tables.
 *
 * The rule behind them: refused, deferred and throttled claim that the carrier did not take the message, so they need an
 * answer that says so. An answer that cannot be understood is unknown.
 *
 * Promises: any bytes get an outcome; words are the carrier's code and text, at most 200 characters on one line.
 *
 * Sources: 3GPP TS 23.140 (status codes of MM7) and what carriers in the field answer.
 */
import { international } from '../../domain/address.ts';
import type { Failure, Outcome, Submission } from '../../domain/submission.ts';
import type { XmlElement } from '../../xml.ts';
import { faultSide, type Mm7Status, readSoap, type SoapMessage, statusOf } from './soap.ts';

/** An HTTP answer, whole. */
export interface HttpAnswer {
  status: number;
  contentType: string | undefined;
  retryAfter: string | undefined;
  /** Where a redirect leads; we do not follow it. */
  location?: string | undefined;
  body: Uint8Array;
}

/** Ids of the error table (`domain/codes.ts`) that a carrier's refusal maps to. */
const ERROR = {
  /** General, may heal. */
  general: 15000,
  /** General, for good. */
  provider: 15008,
  recipientNotFound: 15009,
  senderNotProvisioned: 15010,
  contentBlocked: 15013,
  contentTooBig: 15026,
  invalidDestination: 15201,
} as const;

/** A carrier that asks to slow down without saying for how long. */
const SLOW_DOWN_MS = 2_000;
const RETRY_AFTER_MIN_MS = 1_000;
const RETRY_AFTER_MAX_MS = 3_600_000;

type Verdict = readonly ['refused' | 'deferred' | 'throttled', number];

/**
 * MM7 status codes. What is not here counts as the x000 of its class (the specification's own rule), and what is in no
 * class as 3000. 4001 and 4002 say that the link is set up wrongly, nothing of this message: it waits until somebody mends it.
 */
const VERDICTS: Readonly<Record<number, Verdict>> = {
  2000: ['refused', ERROR.provider],
  2001: ['refused', ERROR.senderNotProvisioned],
  2002: ['refused', ERROR.invalidDestination],
  2003: ['refused', ERROR.recipientNotFound],
  2004: ['refused', ERROR.contentBlocked],
  3000: ['deferred', ERROR.general],
  3001: ['refused', ERROR.provider],
  3002: ['refused', ERROR.provider],
  3003: ['refused', ERROR.provider],
  3004: ['refused', ERROR.provider],
  // Vendor range; "throughput exceeded" where it is used.
  3510: ['throttled', ERROR.general],
  4000: ['deferred', ERROR.general],
  4001: ['deferred', ERROR.senderNotProvisioned],
  4002: ['deferred', ERROR.general],
  4003: ['refused', ERROR.provider],
  4004: ['refused', ERROR.provider],
  // "Must not be resent."
  4005: ['refused', ERROR.provider],
  4006: ['deferred', ERROR.general],
  4007: ['refused', ERROR.senderNotProvisioned],
  4008: ['refused', ERROR.provider],
};

/** What a carrier's settings say of its own codes; what is not in them follows the table. */
export interface CodeTables {
  /** Status code -> what becomes of the message. */
  statusCodes?: Readonly<Record<string, 'refuse' | 'retry' | 'throttle'>>;
  /** Status code -> id of the error table. */
  errors?: Readonly<Record<string, number>>;
}

const KIND = { refuse: 'refused', retry: 'deferred', throttle: 'throttled' } as const;

function verdict(code: number, own: CodeTables): Verdict {
  const [kind, id] = VERDICTS[code] ?? VERDICTS[Math.floor(code / 1000) * 1000] ?? VERDICTS[3000]!;
  const said = own.statusCodes?.[code];
  return [said === undefined ? kind : KIND[said], own.errors?.[code] ?? id];
}

/** The error id that a status code (not of class 1) stands for. */
export function errorOf(code: number, own: CodeTables = {}): number {
  return verdict(code, own)[1];
}

/** Reads the answer to `submission`. `now` (epoch ms) is for a Retry-After that is a date. */
export function outcomeOf(answer: HttpAnswer, submission: Submission, now: number, own: CodeTables = {}): Outcome {
  const retryAfterMs = parseRetryAfter(answer.retryAfter, now);
  const soap = answer.body.byteLength > 0 ? readSoap(answer.contentType, answer.body) : null;
  // The body first: faults come with any HTTP status (200, 400, 500, 502 have been seen).
  if (soap?.ok) {
    const outcome = soapOutcome(soap.message, answer.status, submission, retryAfterMs, own);
    if (outcome) return outcome;
  } else if (soap) {
    // Failures that are not well-formed have been seen; a success in such a state is not believed.
    const code = Number(/<(?:[\w.-]+:)?StatusCode\s*>\s*(\d{4,5})\s*</.exec(soap.text)?.[1] ?? 0);
    if (code >= 2000) return statusOutcome(code, `${code} (in a damaged answer)`, retryAfterMs, own);
  }
  const why = soap === null ? 'empty answer' : soap.ok ? unexpected(soap.message) : soap.fault;
  return httpOutcome(answer.status, answer.status === 401 ? REFUSES_US : why + redirect(answer), retryAfterMs);
}

const REFUSES_US = 'the carrier refuses our user name or password';

/** What an answer without a status code that could be understood says. */
function unexpected(message: SoapMessage): string {
  const { children } = message.body;
  const status = children.find((child) => child.name === 'Status')?.children ?? children;
  const written = status.find((child) => child.name === 'StatusCode')?.text.trim();
  const words = `unexpected ${message.operation}`;
  return written === undefined || message.operation === 'Fault'
    ? words
    : `${words} with StatusCode "${written.slice(0, 20)}" ${statusOf(message).text}`;
}

/** The host that a redirect names, and nothing else of its URL. */
function redirect({ status, location }: HttpAnswer): string {
  if (status < 300 || status > 399 || location === undefined) return '';
  const host = URL.parse(location)?.host.slice(0, 100);
  return host ? `, redirects to ${host}` : ', redirects to another path';
}

/** Null = the message says nothing about a submission. */
function soapOutcome(
  message: SoapMessage,
  httpStatus: number,
  submission: Submission,
  retryAfterMs: number | undefined,
  own: CodeTables,
): Outcome | null {
  const status = statusOf(message);
  const words = bounded(status.code > 0 ? `${status.code} ${status.text}${detailed(status)}` : status.text);
  if (message.operation === 'Fault') {
    if (status.code >= 2000) return statusOutcome(status.code, words, retryAfterMs, own);
    // A fault with a success code contradicts itself.
    if (status.code > 0) return { kind: 'unknown', error: { id: ERROR.general, words: `fault with ${words}` } };
    // A gateway's fault: its HTTP status says more (who we are, how fast, how long).
    if (![200, 400, 500].includes(httpStatus)) return null;
    const side = faultSide(message);
    const fault = bounded(`SOAP fault ${side || 'without code'}: ${status.text}`);
    if (side === 'Client') return { kind: 'refused', error: { id: ERROR.provider, words: fault } };
    return { kind: 'deferred', error: { id: ERROR.general, words: fault }, ...wish(retryAfterMs), ...ELSEWHERE };
  }
  if (status.code === 0) return null;
  if (status.code >= 2000 || status.code < 1000) return statusOutcome(status.code, words, retryAfterMs, own);
  if (message.operation !== 'SubmitRsp') return null;
  if (message.transactionId !== null && message.transactionId !== submission.transactionId) {
    // Taking another message's id as ours would give us its reports.
    return { kind: 'unknown', error: { id: ERROR.general, words: bounded(`answer to another transaction: ${words}`) } };
  }
  return accepted(message, status, words, submission, own);
}

/** What a refusal says besides its text. An answer of class 1 has recipients there, which are read one by one. */
function detailed({ code, details }: Mm7Status): string {
  if (code < 2000 || !details) return '';
  const found: string[] = [];
  const visit = (element: XmlElement): void => {
    const text = element.text.trim();
    if (text !== '' && found.length < 10) found.push(text.slice(0, 200));
    for (const child of element.children) visit(child);
  };
  visit(details);
  return found.length === 0 ? '' : ` (${found.join(', ')})`;
}

function accepted(
  message: SoapMessage,
  status: Mm7Status,
  words: string,
  submission: Submission,
  own: CodeTables,
): Outcome {
  const refused = status.code === 1100 ? refusedIn(status, submission, words, own) : [];
  if (refused.length > 0 && refused.length === submission.recipients.length) {
    return { kind: 'refused', error: refused[0]!.error };
  }
  const carrierMessageId = message.body.children.find((child) => child.name === 'MessageID')?.text.trim();
  return {
    kind: 'accepted',
    // Without an id no report can be matched, but it was taken; ours is unique.
    carrierMessageId: carrierMessageId || submission.transactionId,
    words: carrierMessageId ? words : bounded(`${words} (no MessageID)`),
    ...(refused.length > 0 ? { refused } : {}),
  };
}

/**
 * 1100: Details says who was refused, in no agreed form. Every address in it that is a recipient's counts, with the status
 * code that stands in the same element where there is one (class 1 = not refused). A list that names everybody and gives no
 * codes tells nobody apart.
 */
function refusedIn(
  status: Mm7Status,
  submission: Submission,
  words: string,
  own: CodeTables,
): { recipient: string; error: Failure }[] {
  if (!status.details || submission.recipients.length < 2) return [];
  const left = new Set(submission.recipients);
  const refused: { recipient: string; error: Failure }[] = [];
  let coded = false;
  const visit = (element: XmlElement, code: number): void => {
    const told = element.children.find((child) => child.name === 'StatusCode')?.text.trim();
    const within = told && /^\d{4,5}$/.test(told) ? Number(told) : code;
    for (const word of element.name === 'StatusCode' ? [] : element.text.split(/[\s,;]+/)) {
      const digits = addressDigits(word);
      if (!left.delete(digits)) continue;
      if (within > 0) coded = true;
      if (within > 0 && within < 2000) continue;
      const error = within > 0 ? errorOf(within, own) : ERROR.invalidDestination;
      refused.push({
        recipient: digits,
        error: { id: error, words: within > 0 ? bounded(`${within} in ${words}`) : words },
      });
    }
    for (const child of element.children) visit(child, within);
  };
  visit(status.details, 0);
  return left.size === 0 && !coded ? [] : refused;
}

/** `+385911234567/TYPE=PLMN`, `tel:385911234567`, `00385911234567` and the like as digits; a short code stays as it is. */
export function addressDigits(address: string): string {
  const bare = address
    .trim()
    .replace(/\/TYPE=.*$/i, '')
    .replace(/^tel:/i, '')
    .replace(/^\+/, '');
  return international(bare);
}

function statusOutcome(code: number, words: string, retryAfterMs: number | undefined, own: CodeTables): Outcome {
  const [kind, id] = verdict(code, own);
  const error = { id, words };
  if (kind === 'throttled') return { kind, retryAfterMs: retryAfterMs ?? SLOW_DOWN_MS, error };
  // Class 4 is about the service, and 4007 about who may use it: another carrier may not share that.
  const elsewhere = code >= 4000 && code < 5000 && (kind === 'deferred' || code === NOT_ALLOWED) ? ELSEWHERE : {};
  if (kind === 'refused') return { kind, error, ...elsewhere };
  return { kind, error, ...wish(retryAfterMs), ...elsewhere };
}

/** Another carrier may take it. */
const ELSEWHERE = { elsewhere: true } as const;
/** 4007: the service code or VASP is not allowed. */
const NOT_ALLOWED = 4007;

/** Whether the answer to a CancelReq or ReplaceReq says that it was done. What cannot be read says nothing. */
export function isGranted(answer: HttpAnswer): boolean {
  const soap = answer.body.byteLength > 0 ? readSoap(answer.contentType, answer.body) : null;
  if (!soap?.ok || soap.message.operation === 'Fault') return false;
  const { code } = statusOf(soap.message);
  return code >= 1000 && code < 2000;
}

/**
 * An answer without SOAP in it. 401, 403, 404 and their like say that the link is set up wrongly, nothing of this message.
 * Gateways answer 502 and 504 when the MMSC behind them may have taken it; 2xx that cannot be read may mean anything.
 */
function httpOutcome(status: number, why: string, retryAfterMs: number | undefined): Outcome {
  const error = { id: ERROR.general as number, words: bounded(`HTTP ${status}: ${why}`) };
  if (status === 429 || (status === 503 && retryAfterMs !== undefined)) {
    return { kind: 'throttled', retryAfterMs: retryAfterMs ?? SLOW_DOWN_MS, error };
  }
  if (status === 413) return { kind: 'refused', error: { ...error, id: ERROR.contentTooBig } };
  if (status === 415) return { kind: 'refused', error: { ...error, id: ERROR.contentBlocked } };
  if (status === 400 || status === 422) return { kind: 'refused', error: { ...error, id: ERROR.provider } };
  if (status < 300 || status === 502 || status === 504) return { kind: 'unknown', error };
  return { kind: 'deferred', error, ...wish(retryAfterMs), ...ELSEWHERE };
}

function wish(retryAfterMs: number | undefined): { retryAfterMs?: number } {
  return retryAfterMs === undefined ? {} : { retryAfterMs };
}

/** Seconds or an HTTP date as ms, held to 1 s..1 h; undefined for anything else. */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  const ms = /^\s*\d{1,15}\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  if (Number.isNaN(ms)) return undefined;
  return Math.min(Math.max(ms, RETRY_AFTER_MIN_MS), RETRY_AFTER_MAX_MS);
}

/** One line of at most 200 characters. */
export function bounded(words: string): string {
  return words
    .slice(0, 400)
    .toWellFormed()
    .replace(/[\u0000-\u001f\u007f-\u009f\s]+/g, ' ')
    .trim()
    .slice(0, 200)
    .toWellFormed();
}
