/**
 * One request in, one answer out over node:http: bodies read under a limit, answers written in one go, refusals that the
 * client really sees although it is still sending.
 *
 * Promises: no body is held beyond its limit, all bodies together not beyond `BODIES_MAX`; every request gets at most one
 * answer; nothing here throws for anything a client does.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../env.ts';
import { type Answer, apiError, formOf } from './errors.ts';
import type { Bytes } from './inbox.ts';

/** Bytes of all bodies that are being read or worked on; above it requests are told to come back (503). */
const BODIES_MAX = 256 * 1024 * 1024;
/** How much of a refused body is read and thrown away, and for how long, so that the client gets to read the answer. */
const DRAIN_BYTES = 64 * 1024 * 1024;
const DRAIN_MS = 10_000;

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
  /** Answers a request whose body is (partly) unread, then reads the rest away within limits. */
  refuse(request: IncomingMessage, response: ServerResponse, answer: Answer): void;
  /** From now on connections end with their answer. */
  closing(): void;
}

const CLOSING = { connection: 'close' };
const TWO_HOSTS = apiError('E400', {
  violations: [{ property: 'Host', violation: 'must be given once' }],
  headers: CLOSING,
});
const ODD_CODING = apiError('E400', {
  violations: [{ property: 'Transfer-Encoding', violation: 'must be chunked or absent' }],
  headers: CLOSING,
});

/**
 * What Node's strict parser lets pass although servers in a row may read it differently: a second Host (RFC 9112, 3.2), a transfer
 * coding other than chunked (6.1). `raw` = names and values in turn. Null = nothing of that.
 */
export function unclearHead(raw: readonly string[]): Answer | null {
  let hosts = 0;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string;
    if (name.length === 4 && name.toLowerCase() === 'host') {
      if (++hosts > 1) return TWO_HOSTS;
    } else if (name.length === 17 && name.toLowerCase() === 'transfer-encoding') {
      if ((raw[i + 1] as string).toLowerCase() !== 'chunked') return ODD_CODING;
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

  /** `hold` = whole on the wire, but not ended: the end of an answer ends a connection that is not kept. */
  function give(response: ServerResponse, answer: Answer | Bytes, hold = false): void {
    if (response.headersSent || response.destroyed) return;
    if (answer.status === NO_ANSWER.status) {
      response.destroy();
      return;
    }
    const { body, headers } = isText(answer) ? formOf(answer, response.req.headers.accept) : answer;
    // A flat list: node takes it as it is, and header and body leave in one write.
    const list: (string | number)[] = ['content-length', Buffer.byteLength(body)];
    for (const name in headers) list.push(name, headers[name] as string);
    for (const [name, value] of always) if (headers[name] === undefined) list.push(name, value);
    if (closing) list.push('connection', 'close');
    onAnswer(answer.status);
    response.writeHead(answer.status, list as string[]);
    if (hold) response.write(body);
    else response.end(body);
  }

  function drain(request: IncomingMessage, response: ServerResponse): void {
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
    release(bytes) {
      held -= bytes;
    },
    closing() {
      closing = true;
    },
    read(request, limit, then) {
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
      if (request.complete) {
        give(response, answer);
        return;
      }
      // A client that waits for "100 Continue" has sent nothing yet: what it would send next is anybody's guess.
      if (request.headers.expect !== undefined && request.readableDidRead === false) {
        give(response, { ...answer, headers: { ...answer.headers, connection: 'close' } });
        return;
      }
      give(response, answer, true);
      drain(request, response);
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
