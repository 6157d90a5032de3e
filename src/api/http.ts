/**
 * One request in, one answer out over node:http: bodies read under a limit, answers written in one go, refusals that the
 * client really sees although it is still sending.
 *
 * Promises: no body is held beyond its limit, all bodies together not beyond `BODIES_MAX`; every request gets at most one
 * answer; nothing here throws for anything a client does. Refusals are told at a bounded pace, each within `HELD_MS`.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { PACE_MS, Pace } from '../domain/limits.ts';
import type { Clock } from '../env.ts';
import { type Answer, apiError, formOf } from './errors.ts';
import type { Bytes } from './inbox.ts';

/** Bytes of all bodies that are being read or worked on; above it requests are told to come back (503). */
const BODIES_MAX = 256 * 1024 * 1024;
/** How much of a refused body is read and thrown away, and for how long, so that the client gets to read the answer. */
const DRAIN_BYTES = 64 * 1024 * 1024;
const DRAIN_MS = 10_000;
/** No refusal waits longer. One a connection waits at most, and it holds nothing else. */
const HELD_MS = 2_000;
/** So many wait at most, nine tenths of the connections that may be open; then the oldest is told, so that there is room for new ones. */
const HELD_MOST = 9_000;

/**
 * On every answer that does not say otherwise: a browser shows nothing of it as a page, in no frame, runs nothing and tells no one
 * where it came from. (Content of customers and handsets leaves by this door too.)
 */
const SECURITY: Readonly<Record<string, string>> = Object.freeze({
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'; sandbox",
  'referrer-policy': 'no-referrer',
});
/** Given as an answer, it breaks the connection off: nobody knows what became of the request, and no status says that. */
export const NO_ANSWER: Answer = Object.freeze({ status: 0, headers: {}, body: '' });
/** Where we speak TLS: a year of nothing else. */
const HSTS = 'max-age=31536000';

/** What became of a body. `gone`: the client went away, there is nobody to answer. */
export type Body = { kind: 'whole'; bytes: Buffer } | { kind: 'tooLarge' } | { kind: 'busy' } | { kind: 'gone' };

const TOO_LARGE: Body = { kind: 'tooLarge' };
const BUSY: Body = { kind: 'busy' };
const GONE: Body = { kind: 'gone' };
const NOTHING = Buffer.alloc(0);

export interface Exchange {
  /**
   * Reads a body of at most `limit` bytes and calls `then` once. The bytes count as held until `release(bytes.length)`;
   * for the other kinds nothing is held.
   */
  read(request: IncomingMessage, limit: number, then: (body: Body) => void): void;
  release(bytes: number): void;
  /** Writes an answer, once, errors as JSON or XML by Accept; later ones and those to clients that have gone are dropped. */
  give(response: ServerResponse, answer: Answer | Bytes): void;
  /** Answers a request whose body is (partly) unread, in its turn, then reads the rest away within limits. */
  refuse(request: IncomingMessage, response: ServerResponse, answer: Answer): void;
  /** Does what is said to somebody who gets nothing else in its turn among the refusals. */
  inTurn(work: () => void): void;
  /** From now on connections end with their answer. */
  closing(): void;
}

/** A refusal that waits for its turn. */
interface Late {
  tell(): void;
  until: number;
  /** What it answers; null = no request of its own. */
  response: ServerResponse | null;
}
const LATE = Symbol('the refusal that waits on a connection');
type Waiting = Socket & { [LATE]?: Late };

const CLOSING = { connection: 'close' };
const TWO_HOSTS = apiError('E400', {
  violations: [{ property: 'Host', violation: 'must be given once' }],
  headers: CLOSING,
});
const ODD_CODING = apiError('E400', {
  violations: [{ property: 'Transfer-Encoding', violation: 'must be chunked or absent' }],
  headers: CLOSING,
});

const TWO_KEYS = apiError('E400', {
  violations: [{ property: 'Authorization', violation: 'must be given once' }],
  headers: CLOSING,
});
const ODD_VERSION = apiError('E400', {
  violations: [{ property: '', violation: 'the request must be HTTP/1.1 or HTTP/1.0' }],
  headers: CLOSING,
});

/**
 * What Node's strict parser lets pass although servers in a row may read it differently: a second Host (RFC 9112, 3.2), a transfer
 * coding other than chunked or in HTTP/1.0 (6.1), a second Authorization (one of them takes the first, another the last), another
 * version. `raw` = names and values in turn. Null = nothing of that.
 */
export function unclearHead(raw: readonly string[], version = '1.1'): Answer | null {
  if (version !== '1.1' && version !== '1.0') return ODD_VERSION;
  let hosts = 0;
  let keys = 0;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string;
    if (name.length === 4 && name.toLowerCase() === 'host') {
      if (++hosts > 1) return TWO_HOSTS;
    } else if (name.length === 17 && name.toLowerCase() === 'transfer-encoding') {
      if (version !== '1.1' || (raw[i + 1] as string).toLowerCase() !== 'chunked') return ODD_CODING;
    } else if (name.length === 13 && name.toLowerCase() === 'authorization') {
      if (++keys > 1) return TWO_KEYS;
    }
  }
  return null;
}

/** `onAnswer` is told the status of each answer; `bodiesMax` in bytes; `secure` = behind our own TLS. */
export function createExchange(
  clock: Clock,
  onAnswer: (status: number) => void,
  bodiesMax: number = BODIES_MAX,
  secure = false,
): Exchange {
  const always = Object.entries(secure ? { ...SECURITY, 'strict-transport-security': HSTS } : SECURITY);
  let held = 0;
  let closing = false;
  /** Refusals that wait, in order. */
  const late = new Set<Late>();
  const pace = new Pace();
  let due = 0;
  let pacing = false;
  /** The last answer and what was written of it: in a rush it is the same one time after time. */
  let last: { answer: Answer; accept: string | undefined; body: string; list: string[] } | null = null;

  /** `hold` = whole on the wire, but not ended: the end of an answer ends a connection that is not kept. */
  function give(response: ServerResponse, answer: Answer | Bytes, hold = false): void {
    if (response.headersSent || response.destroyed) return;
    goAhead(response.req.socket, response);
    if (answer.status === NO_ANSWER.status) {
      response.destroy();
      return;
    }
    const { accept } = response.req.headers;
    const { body, headers } = isText(answer) ? formOf(answer, accept) : answer;
    onAnswer(answer.status);
    response.writeHead(answer.status, listed(body, headers));
    if (hold) response.write(body);
    else response.end(body);
  }

  /** A flat list: node takes it as it is, and header and body leave in one write. */
  function listed(body: string | Uint8Array, headers: Readonly<Record<string, string>>): string[] {
    const list: (string | number)[] = ['content-length', Buffer.byteLength(body)];
    for (const name in headers) list.push(name, headers[name] as string);
    for (const [name, value] of always) if (headers[name] === undefined) list.push(name, value);
    if (closing) list.push('connection', 'close');
    return list as string[];
  }

  /** As `give`, for what is given many times: the same bytes without being put together again. */
  function again(response: ServerResponse, answer: Answer): void {
    if (response.headersSent || response.destroyed) return;
    const { accept } = response.req.headers;
    if (last === null || last.answer !== answer || last.accept !== accept || closing) {
      const { body, headers } = formOf(answer, accept);
      last = { answer, accept, body, list: listed(body, headers) };
    }
    onAnswer(answer.status);
    response.writeHead(answer.status, last.list);
    response.end(last.body);
  }

  function tell(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
    delete (request.socket as Waiting)[LATE];
    if (request.complete) {
      if (answer.status === NO_ANSWER.status) give(response, answer);
      else again(response, answer);
      return;
    }
    give(response, answer, true);
    drain(request, response);
  }

  function period(): void {
    due = clock.monotonic() + PACE_MS;
    clock.setTimeout(turn, PACE_MS);
  }

  function turn(): void {
    const now = clock.monotonic();
    let left = pace.next(late.size, now - due);
    pacing = left > 0;
    for (const one of late) {
      if (left-- <= 0 && one.until > now) break;
      late.delete(one);
      one.tell();
    }
    if (pacing) period();
  }

  /** Now, or when it is its turn; what waits and how. */
  function inTurn(tell: () => void, response: ServerResponse | null = null): Late | null {
    if (!pacing) {
      pacing = true;
      period();
    }
    if (pace.free(late.size)) {
      // A small body has come with its headers, and is seen to have when all that was read is parsed.
      process.nextTick(tell);
      return null;
    }
    if (late.size >= HELD_MOST) {
      const oldest = late.values().next().value as Late;
      late.delete(oldest);
      oldest.tell();
    }
    const one: Late = { tell, until: clock.monotonic() + HELD_MS, response };
    late.add(one);
    return one;
  }

  /**
   * Another request has come on this connection: its client did not wait for what waits there, so nothing is won by it. Where that
   * is the refusal of `response` itself, it is left out: another answer comes first (its body turned out to be broken, say).
   */
  function goAhead(socket: Waiting, response: ServerResponse | null = null): void {
    const one = socket[LATE];
    if (one === undefined) return;
    delete socket[LATE];
    if (late.delete(one) && one.response !== response) one.tell();
  }

  function drain(request: IncomingMessage, response: ServerResponse): void {
    // Its client left before its turn came: there is no end to wait for.
    if (request.destroyed) return;
    let left = DRAIN_BYTES;
    const timer = clock.setTimeout(() => request.destroy(), DRAIN_MS);
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length;
      if (left < 0) request.destroy();
    });
    request.on('end', () => response.end());
    request.on('close', () => timer.cancel());
    request.resume();
  }

  return {
    give: (response, answer) => give(response, answer),
    inTurn: (work) => void inTurn(work),
    release(bytes) {
      held -= bytes;
    },
    closing() {
      closing = true;
    },
    read(request, limit, then) {
      goAhead(request.socket);
      let first: Buffer | null = null;
      let more: Buffer[] | null = null;
      let size = 0;
      let done = false;
      const finish = (body: Body): void => {
        done = true;
        if (body.kind !== 'whole') held -= size;
        then(body);
      };
      request.on('data', (chunk: Buffer) => {
        if (done) return;
        size += chunk.length;
        held += chunk.length;
        if (size > limit) finish(TOO_LARGE);
        else if (held > bodiesMax) finish(BUSY);
        else if (first === null) first = chunk;
        else if (more === null) more = [first, chunk];
        else more.push(chunk);
      });
      request.on('end', () => {
        if (done) return;
        finish({ kind: 'whole', bytes: more === null ? (first ?? NOTHING) : Buffer.concat(more, size) });
      });
      request.on('close', () => {
        if (!done) finish(GONE);
      });
    },
    refuse(request, response, answer) {
      // A client that waits for "100 Continue" has sent nothing yet: what it would send next is anybody's guess.
      if (!request.complete && request.headers.expect !== undefined && request.readableDidRead === false) {
        give(response, { ...answer, headers: { ...answer.headers, connection: 'close' } });
        return;
      }
      goAhead(request.socket, response);
      const one = inTurn(() => tell(request, response, answer), response);
      if (one !== null) (request.socket as Waiting)[LATE] = one;
    },
  };
}

function isText(answer: Answer | Bytes): answer is Answer {
  return typeof answer.body === 'string';
}

/** What node's parser found, in words that quote nothing. */
export function parserWords(
  code: string | undefined,
  { bytes, headersMs, requestMs }: { bytes: number; headersMs: number; requestMs: number },
): string {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return `Request headers are larger than ${bytes} bytes.`;
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return `Request did not arrive within ${requestMs / 1000} s (its headers within ${headersMs / 1000} s).`;
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return 'Request has chunk extensions that are too large.';
    default:
      return `Request is not valid HTTP/1.1${code === undefined ? '' : ` (${code})`}.`;
  }
}
