/**
 * Handsets that send: what `POST /sandbox/handsets/{msisdn}/messages` may say, and the loop that tells the operator of it by
 * DeliverReq.
 *
 * Promises: all that is wrong with a request is said at once, by path. A message is told until it is answered with 1000 or 48 h
 * have passed, always with the same bytes; what waits is in the ledger only, so a restart goes on where the last run was. At
 * most `IN_FLIGHT` are on their way.
 *
 * Fails: nobody answers, or not with 1000: again after `BACKOFF`. The disk refuses: again a second later.
 */
import type { Env, Timer } from '../../env.ts';
import { BACKOFF, BACKOFF_LAST, GIVE_UP_MS, STOP_MS } from './backoff.ts';
import type { Callback } from './callback.ts';
import type { Outgoing, OutgoingRows } from './outgoing-ledger.ts';

/** What a handset sends. Addresses in digits. */
export interface HandsetSends {
  to: string[];
  cc: string[];
  subject: string | null;
  parts: { contentType: string; contentId: string | null; bytes: Uint8Array }[];
}

/** `property` is a JSON path. */
interface Violation {
  property: string;
  violation: string;
}

const ADDRESSES = 20;
const PARTS = 25;
const SUBJECT = 200;
const BYTES = 8 * 1024 * 1024;
const MEDIA_TYPE = /^[a-z0-9!#$&^_.+-]{1,60}\/[a-z0-9!#$&^_.+-]{1,60}(?:;\s*charset="?[a-z0-9_.:-]{1,40}"?)?$/i;

/** Reads the body of the request. */
export function readSends(
  body: Uint8Array,
): { ok: true; sends: HandsetSends } | { ok: false; violations: Violation[] } {
  const violations: Violation[] = [];
  const wrong = (property: string, violation: string): void => void violations.push({ property, violation });
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
  } catch {
    return { ok: false, violations: [{ property: '', violation: 'must be JSON in UTF-8' }] };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { ok: false, violations: [{ property: '', violation: 'must be an object' }] };
  }
  const given = value as Record<string, unknown>;

  const addresses = (name: 'to' | 'cc', least: number): string[] => {
    const list = given[name] ?? (least === 0 ? [] : undefined);
    if (list === undefined) wrong(name, 'must not be null');
    else if (!Array.isArray(list)) wrong(name, 'must be an array of numbers as text, like ["441134960000"]');
    else if (list.length < least || list.length > ADDRESSES)
      wrong(name, `size must be between ${least} and ${ADDRESSES}`);
    else {
      return list.flatMap((one: unknown, n) => {
        const digits = typeof one === 'string' ? /^\+?(\d{3,15})$/.exec(one)?.[1] : undefined;
        if (digits === undefined) wrong(`${name}[${n}]`, 'must be 3 to 15 digits, as text, with or without +');
        return digits === undefined ? [] : [digits];
      });
    }
    return [];
  };
  const to = addresses('to', 1);
  const cc = addresses('cc', 0);
  const subject = given.subject ?? null;
  if (subject !== null && typeof subject !== 'string') wrong('subject', 'must be a string');
  else if (subject !== null && subject.length > SUBJECT) wrong('subject', `size must be between 0 and ${SUBJECT}`);

  const parts: HandsetSends['parts'] = [];
  let size = 0;
  const list = given.parts;
  if (list === undefined || list === null) wrong('parts', 'must not be null');
  else if (!Array.isArray(list)) wrong('parts', 'must be an array');
  else if (list.length === 0 || list.length > PARTS) wrong('parts', `size must be between 1 and ${PARTS}`);
  else {
    list.forEach((one: unknown, n) => {
      const at = `parts[${n}]`;
      if (typeof one !== 'object' || one === null || Array.isArray(one)) {
        wrong(at, 'must be an object');
        return;
      }
      const part = one as Record<string, unknown>;
      const { contentType, contentId = null } = part;
      if (typeof contentType !== 'string' || !MEDIA_TYPE.test(contentType)) {
        wrong(`${at}.contentType`, 'must be a media type, like image/jpeg');
      }
      if (contentId !== null && (typeof contentId !== 'string' || !/^[\x21-\x7e]{1,100}$/.test(contentId))) {
        wrong(`${at}.contentId`, 'must be 1 to 100 visible ASCII characters');
      }
      const { type, bytes } = bytesOf(part, String(contentType), at, wrong);
      size += bytes.byteLength;
      parts.push({ contentType: type, contentId: contentId as string | null, bytes });
    });
    if (size > BYTES) wrong('parts', `must be at most ${BYTES} bytes together`);
  }
  if (violations.length > 0) return { ok: false, violations };
  return { ok: true, sends: { to, cc, subject: subject as string | null, parts } };
}

/** Of exactly one of `text` and `base64`. `type` names the charset that a text was written in. */
function bytesOf(
  part: Record<string, unknown>,
  type: string,
  at: string,
  wrong: (property: string, violation: string) => void,
): { type: string; bytes: Uint8Array } {
  const { text = null, base64 = null } = part;
  if ((text === null) === (base64 === null)) wrong(at, 'must have either text or base64');
  else if (text !== null && typeof text !== 'string') wrong(`${at}.text`, 'must be a string');
  else if (text !== null) return written(text, type);
  else if (
    typeof base64 !== 'string' ||
    !/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(base64)
  ) {
    wrong(`${at}.base64`, 'must be base64 without line breaks');
  } else return { type, bytes: Buffer.from(base64, 'base64') };
  return { type, bytes: new Uint8Array(0) };
}

/** In ISO-8859-1 or ASCII where that is asked for and holds it all, else in UTF-8. */
function written(text: string, type: string): { type: string; bytes: Uint8Array } {
  const charset = /;\s*charset="?([^"]*)/i.exec(type)?.[1]?.toLowerCase();
  const letters = charset === 'iso-8859-1' ? /^[\0-\xff]*$/ : charset === 'us-ascii' ? /^[\0-\x7f]*$/ : null;
  if (letters?.test(text)) return { type, bytes: Buffer.from(text, 'latin1') };
  return {
    type: charset === undefined ? type : type.replace(/;.*$/s, '; charset=utf-8'),
    bytes: Buffer.from(text, 'utf8'),
  };
}

// ------------------------------------------------------------------------------------------------------------- the loop

const IN_FLIGHT = 8;
/** Due times this close share a wake-up. */
const TICK_MS = 10;
const DISK_MS = 1_000;

export interface OutgoingLoop {
  start(): void;
  /** Something is due. */
  wake(): void;
  /** Nothing new leaves; what is on its way is answered, or told again after the next start. */
  stop(): Promise<void>;
}

/** Nothing is sent before `start`. */
export function createOutgoing({
  rows,
  callback,
  env,
}: {
  rows: OutgoingRows;
  callback: Callback;
  env: Env;
}): OutgoingLoop {
  const abort = new AbortController();
  const busy = new Set<number>();
  let timer: Timer | null = null;
  let stopping = false;
  let started = false;
  let idle: (() => void) | null = null;

  function pump(): void {
    if (stopping || !started) return;
    const now = env.clock.now();
    while (busy.size < IN_FLIGHT) {
      const next = rows.due(now, busy);
      if (!next) break;
      busy.add(next.no);
      void carry(next);
    }
    if (busy.size >= IN_FLIGHT) return;
    const due = rows.nextDue(now);
    timer?.cancel();
    timer = due === null ? null : env.clock.setTimeout(pump, Math.max(TICK_MS, due - now));
  }

  async function carry(message: Outgoing): Promise<void> {
    try {
      await tell(message);
    } catch (error) {
      env.log.error({ err: error }, 'sandbox: a DeliverReq could not be noted');
      await env.clock.sleep(DISK_MS, abort.signal);
    }
    busy.delete(message.no);
    if (stopping && busy.size === 0) idle?.();
    pump();
  }

  async function tell(message: Outgoing): Promise<void> {
    const { contentType, body, tries, id, sentAt } = message;
    if (await callback.post(contentType, body, 'DeliverRsp', abort.signal)) {
      return rows.end(message, 'deliverReqTaken');
    }
    if (abort.signal.aborted) return;
    const now = env.clock.now();
    if (now - sentAt >= GIVE_UP_MS) {
      env.log.warn({ id }, 'sandbox: nobody took what a handset sent for 48 h, given up');
      return rows.end(message, 'deliverReqGivenUp');
    }
    if (tries === 0)
      env.log.warn({ url: callback.origin, id }, 'sandbox: a DeliverReq was not taken, will be told again');
    return rows.postpone(message, now + (BACKOFF[tries] ?? BACKOFF_LAST));
  }

  return {
    start() {
      started = true;
      pump();
    },
    wake: pump,
    async stop() {
      stopping = true;
      timer?.cancel();
      if (busy.size === 0) return;
      const limit = env.clock.setTimeout(() => abort.abort(), STOP_MS);
      await new Promise<void>((resolve) => {
        idle = resolve;
      });
      limit.cancel();
    },
  };
}
