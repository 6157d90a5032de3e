/**
 * The only way to an address that a customer gave: report receivers, media links, click receivers.
 *
 * Promises: http and https only, no credentials in URLs, no ports of other protocols; every address is judged where the connection is made
 * (`addresses.ts`), so literals in any spelling, looked-up names, names that change their answer and each redirect pass
 * the same gate, and a socket that ended elsewhere is dropped. TLS is verified against the name. Nothing is followed
 * unasked: `post` never follows a redirect, `fetch` at most as many as told. Time, bytes, header bytes, decompression,
 * connections per origin and remembered origins are limited. Idle connections are kept 1.5 s unless the peer says how
 * long it keeps them: a shorter time than common servers' own (2 s and more), so a POST does not meet a closing one.
 *
 * Fails: never throws; each way to fail is a `CallFault` with words for the customer's eyes.
 */
import { isIP, type Socket } from 'node:net';
import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, type ZlibOptions } from 'node:zlib';
import { LRUCache } from 'lru-cache';
import { buildConnector, type Dispatcher, Pool } from 'undici';
import type { Env } from '../env.ts';
import { type AddressRules, addressRules } from './addresses.ts';
import { NOT_A_URL, portFault, readUrl, spaced } from './callout.ts';
import { passingContinue } from './interim.ts';
import { cachedNames, NameFault, type Resolve, systemNames } from './names.ts';

/** Why a call came to nothing. */
export type CallFaultKind =
  /** Not an http(s) URL without credentials. */
  | 'url'
  /** An address we may not call. */
  | 'refused-address'
  /** The name servers did not answer. */
  | 'dns'
  /** There is no such name. */
  | 'no-such-name'
  | 'connect'
  | 'tls'
  | 'timeout'
  /** The peer closed the connection before it answered. */
  | 'closed'
  | 'too-big'
  /** What came is not HTTP as we read it. */
  | 'protocol'
  | 'too-many-redirects'
  /** `close` was called. */
  | 'stopped';

/** A call that got no answer. */
export interface CallFault {
  ok: false;
  kind: CallFaultKind;
  /** One line, without the URL's path or query. */
  words: string;
}

type Headers = Readonly<Record<string, string>>;

/** The peer answered, with whatever status. */
export interface Posted {
  ok: true;
  status: number;
  headers: Headers;
  /** The beginning of the answer as text, control characters as spaces; at most 500 characters. */
  excerpt: string;
}

/** The peer answered, with whatever status; `body` is empty unless it is 200. */
export interface Fetched {
  ok: true;
  status: number;
  headers: Headers;
  body: Uint8Array;
  /** After redirects. */
  url: string;
}

/** What to post, and for how long to wait. */
export interface PostOptions {
  headers: Record<string, string>;
  body: string;
  /** From the call to the answer's status; an answer's text gets one second more. */
  timeoutMs: number;
}

/** The limits of a fetch. */
export interface FetchOptions {
  headers?: Record<string, string>;
  /** From the call to the last byte, redirects included. */
  timeoutMs: number;
  /** Of the body, on the wire and unpacked. */
  maxBytes: number;
  /** Redirects to follow. */
  redirects: number;
}

/** The client for customers' addresses. */
export interface Outbound {
  post(url: string, options: PostOptions): Promise<Posted | CallFault>;
  fetch(url: string, options: FetchOptions): Promise<Fetched | CallFault>;
  /** Ends what is in flight (kind `stopped`) and all connections. */
  close(): Promise<void>;
}

/** What main gives to it; the rest is for tests. */
export interface OutboundOptions {
  /** Networks (CIDR) that may be called besides the public ones. */
  allow: readonly string[];
  env: Env;
  /** Instead of the machine's resolver. */
  resolve?: Resolve;
  /** Instead of real sockets: is given one judged address as `hostname`. */
  dial?: buildConnector.connector;
}

const CONNECT_MS = 4_000;
/** Addresses of a name that are tried, one after the other. */
const TRIED_ADDRESSES = 4;
const IDLE_MS = 1_500;
const IDLE_MAX_MS = 30_000;
/** A connection in steady use is renewed after this, so that a changed name is noticed. */
const CONNECTION_MS = 300_000;
const ORIGINS = 1_000;
const CONNECTIONS_PER_ORIGIN = 32;
const HEADER_BYTES = 16 * 1024;
/** What is read of an answer to a POST. */
const ANSWER_BYTES = 16 * 1024;
/** How long an answer's text may take after its status. */
const ANSWER_MS = 1_000;
const EXCERPT = 500;
/** Plain against packed bytes: beyond this a body is a bomb. Text packs 10 to 1, media hardly. */
const UNPACK_RATIO = 20;
/** Small bodies may pack better: everything up to this is fine. */
const UNPACK_FREE = 64 * 1024;

// ------------------------------------------------------------------------------------------------------------- faults

class RefusedAddress extends Error {
  override readonly name = 'RefusedAddress';
}

class Stopped extends Error {
  override readonly name = 'Stopped';
}

function fault(kind: CallFaultKind, words: string): CallFault {
  return { ok: false, kind, words };
}

/** Node's and OpenSSL's names for a failed handshake or certificate. */
const TLS_CODE = /^(ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|EPROTO$)/;
const CONNECT_CODES = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EADDRNOTAVAIL',
  'EACCES',
  'EINVAL',
  'ENETDOWN',
]);
const isShut = (error: unknown): boolean => CONNECT_CODES.has(String((error as { code?: unknown } | null)?.code ?? ''));
const CLOSED_CODES = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET', 'UND_ERR_CLOSED', 'UND_ERR_DESTROYED']);

function faultOf(error: unknown): CallFault {
  if (error instanceof RefusedAddress) return fault('refused-address', error.message);
  if (error instanceof NameFault) return fault(error.mayHeal ? 'dns' : 'no-such-name', error.message);
  if (error instanceof Stopped) return fault('stopped', 'the server is stopping');
  const code = String((error as { code?: unknown } | null)?.code ?? '');
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT') return fault('timeout', 'no connection in time');
  if (CONNECT_CODES.has(code)) return fault('connect', `no connection (${code})`);
  if (TLS_CODE.test(code)) return fault('tls', `TLS failed (${code})`);
  if (CLOSED_CODES.has(code)) return fault('closed', 'the connection was closed before an answer');
  if (code === 'UND_ERR_HEADERS_OVERFLOW') return fault('protocol', `answer headers over ${HEADER_BYTES} bytes`);
  return fault('protocol', `not an HTTP answer (${code || 'unreadable'})`);
}

// ------------------------------------------------------------------------------------------------------------- client

/** What `call` hands back; `complete` false = the body was cut off by a limit or the peer. */
interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
  end: 'complete' | 'too-big' | 'late' | 'broken';
}

/** What to read of an answer, decided by its status. */
interface Reading {
  maxBytes: number;
  /** Ms for the body after the status; null = within the call's own time. */
  graceMs: number | null;
}

/** Makes the one client for customers' addresses. It opens nothing until it is used. */
export function createOutbound(options: OutboundOptions): Outbound {
  const { env } = options;
  const rules = addressRules(options.allow);
  const names = cachedNames(options.resolve ?? systemNames(env), env);
  const dial = options.dial ?? buildConnector({ timeout: CONNECT_MS, allowH2: false, maxCachedSessions: 500 });
  const connect = passingContinue(guard(rules, names, dial));
  const closing = new Set<Promise<void>>();
  const aborts = new Set<(reason: Error) => void>();
  let stopped = false;

  const pools = new LRUCache<string, Pool>({
    max: ORIGINS,
    dispose: (pool) => {
      // Requests that it still holds run on to their own end.
      const done = pool.close().finally(() => closing.delete(done));
      closing.add(done);
    },
  });

  function poolOf(origin: string): Pool {
    const known = pools.get(origin);
    if (known) return known;
    const pool = new Pool(origin, {
      connect,
      connections: CONNECTIONS_PER_ORIGIN,
      pipelining: 1,
      allowH2: false,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: IDLE_MAX_MS,
      clientTtl: CONNECTION_MS,
      maxHeaderSize: HEADER_BYTES,
      // Each call has one clock of its own, over all of its phases.
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    pools.set(origin, pool);
    return pool;
  }

  /** One request to one URL. Resolves at the status's fate; never rejects. */
  function call(
    url: URL,
    request: { method: 'GET' | 'POST'; headers: Record<string, string>; body: string | null; timeoutMs: number },
    reading: (status: number, headers: Record<string, string>) => Reading,
  ): Promise<Answer | CallFault> {
    return new Promise((resolve) => {
      let controller: Dispatcher.DispatchController | null = null;
      let answer: Answer | null = null;
      let limit: Reading = { maxBytes: 0, graceMs: null };
      let size = 0;
      const chunks: Buffer[] = [];
      let done = false;

      const finish = (result: Answer | CallFault): void => {
        if (done) return;
        done = true;
        timer.cancel();
        aborts.delete(abort);
        resolve(result);
      };
      /** Ends an answer that has begun; a call without one fails. */
      const cut = (end: Answer['end'], otherwise: CallFault): void => {
        finish(answer ? { ...answer, body: Buffer.concat(chunks), end } : otherwise);
      };
      const abort = (reason: Error): void => {
        cut('broken', faultOf(reason));
        controller?.abort(reason);
      };
      const late = (): void => {
        cut('late', fault('timeout', `no answer within ${request.timeoutMs / 1000} s`));
        controller?.abort(new Error('out of time'));
      };
      let timer = env.clock.setTimeout(late, request.timeoutMs);
      if (stopped) return finish(fault('stopped', 'the server is stopping'));
      aborts.add(abort);

      const handler: Dispatcher.DispatchHandler = {
        onRequestStart(given) {
          // Out of time while it waited for a connection: it must not leave any more.
          if (done) given.abort(new Error('out of time'));
          else controller = given;
        },
        onResponseStart(given, status, headers) {
          if (done || status < 200) return;
          answer = { status, headers: plain(headers), body: Buffer.alloc(0), end: 'complete' };
          limit = reading(status, answer.headers);
          if (limit.maxBytes === 0) {
            cut('complete', fault('protocol', ''));
            given.abort(new Error('enough'));
          } else if (limit.graceMs !== null) {
            timer.cancel();
            timer = env.clock.setTimeout(late, limit.graceMs);
          }
        },
        onResponseData(given, chunk) {
          if (done) return;
          const room = limit.maxBytes - size;
          size += chunk.length;
          chunks.push(chunk.length > room ? chunk.subarray(0, room) : chunk);
          if (chunk.length <= room) return;
          cut('too-big', fault('protocol', ''));
          given.abort(new Error('too big'));
        },
        onResponseEnd() {
          cut('complete', fault('protocol', 'not an HTTP answer (empty)'));
        },
        onResponseError(_, error) {
          cut('broken', faultOf(error));
        },
      };
      try {
        poolOf(url.origin).dispatch(
          { path: url.pathname + url.search, method: request.method, headers: request.headers, body: request.body },
          handler,
        );
      } catch (error) {
        finish(faultOf(error));
      }
    });
  }

  return {
    async post(text, { headers, body, timeoutMs }) {
      const url = readUrl(text);
      if (url === null) return fault('url', NOT_A_URL);
      const port = portFault(url);
      if (port !== null) return fault('url', port);
      const result = await call(url, { method: 'POST', headers, body, timeoutMs }, () => ({
        maxBytes: ANSWER_BYTES,
        graceMs: ANSWER_MS,
      }));
      if (!('status' in result)) return result;
      const packed = (result.headers['content-encoding'] ?? 'identity') !== 'identity';
      const excerpt = packed ? '' : excerptOf(result.body);
      return { ok: true, status: result.status, headers: result.headers, excerpt };
    },

    async fetch(text, { headers, timeoutMs, maxBytes, redirects }) {
      const end = env.clock.monotonic() + timeoutMs;
      let url = readUrl(text);
      for (let hop = 0; ; hop += 1) {
        if (url === null) return fault('url', hop === 0 ? NOT_A_URL : 'redirected to what is not a valid url');
        const port = portFault(url);
        if (port !== null) return fault('url', hop === 0 ? port : `the redirect ${port}`);
        const left = end - env.clock.monotonic();
        if (left <= 0) return fault('timeout', `not had within ${timeoutMs / 1000} s`);
        const result = await call(
          url,
          { method: 'GET', headers: { 'accept-encoding': 'identity', ...headers }, body: null, timeoutMs: left },
          (status, { 'content-length': length }) => ({
            // What says that it is too big need not be read to find out.
            maxBytes: status === 200 && !(Number(length) > maxBytes) ? maxBytes : 0,
            graceMs: null,
          }),
        );
        if (!('status' in result)) {
          return result.kind === 'timeout' ? fault('timeout', `not had within ${timeoutMs / 1000} s`) : result;
        }
        const { status } = result;
        const to = REDIRECTS.has(status) ? result.headers.location : undefined;
        if (to !== undefined) {
          if (hop >= redirects) return fault('too-many-redirects', `more than ${redirects} redirects`);
          const next = URL.parse(to, url.href);
          url = next === null ? null : readUrl(next.href);
          continue;
        }
        const done = { ok: true as const, status, headers: result.headers, url: url.href };
        if (status !== 200) return { ...done, body: new Uint8Array(0) };
        if (result.end === 'too-big' || Number(result.headers['content-length']) > maxBytes) {
          return fault('too-big', `more than ${maxBytes} bytes`);
        }
        if (result.end === 'late') return fault('timeout', `not had within ${timeoutMs / 1000} s`);
        if (result.end === 'broken') return fault('closed', 'the connection was closed before the end');
        const body = await unpack(result.body, result.headers['content-encoding'], maxBytes);
        return body instanceof Uint8Array ? { ...done, body } : body;
      }
    },

    async close() {
      stopped = true;
      const reason = new Stopped();
      for (const abort of [...aborts]) abort(reason);
      const open = [...pools.values()];
      // Destroyed first: what `dispose` then closes has nothing left to wait for.
      await Promise.all(open.map((pool) => pool.destroy(reason)));
      pools.clear();
      await Promise.allSettled(closing);
    },
  };
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** The connector: turns a host into addresses, judges each, dials only what passed, and looks where the socket ended. */
function guard(
  rules: AddressRules,
  names: (name: string) => Promise<string[]>,
  dial: buildConnector.connector,
): buildConnector.connector {
  const once = (to: buildConnector.Options): Promise<Socket> =>
    new Promise((resolve, reject) => {
      dial(to, (error, socket) => (error === null ? resolve(socket as Socket) : reject(error)));
    });

  async function open(options: buildConnector.Options): Promise<Socket> {
    const { hostname, protocol } = options;
    const isLiteral = isIP(hostname) !== 0;
    const found = isLiteral ? [hostname] : await names(hostname);
    const faults = found.map((address) => rules.fault(address));
    const good = found.filter((_, i) => faults[i] === null).slice(0, TRIED_ADDRESSES);
    if (good.length === 0) throw refused(faults[0]);
    let last: unknown;
    for (const address of good) {
      try {
        const { servername: _, ...rest } = options;
        // The certificate must be the name's, whatever address it led to.
        const byName = protocol === 'https:' && !isLiteral ? { servername: hostname.replace(/\.$/, '') } : {};
        const socket = await once({ ...rest, ...byName, hostname: address });
        const ended = socket.remoteAddress === undefined ? null : rules.fault(socket.remoteAddress);
        if (ended === null) return socket;
        socket.destroy();
        throw refused(ended);
      } catch (error) {
        // What was said at an open door tells more than that another one is shut.
        if (last === undefined || !isShut(error)) last = error;
      }
    }
    throw last;
  }

  return (options, callback) => {
    open(options).then(
      (socket) => callback(null, socket),
      (error: Error) => callback(error, null),
    );
  };
}

function refused(range: string | null | undefined): RefusedAddress {
  return new RefusedAddress(
    `not a public address (${spaced(range ?? 'unknown')}); POSTCARD_OUTBOUND_ALLOW lists exceptions`,
  );
}

/** One value a name: repeated headers are joined as RFC 9110 5.3 has it. */
function plain(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const out: Record<string, string> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) out[name] = Array.isArray(value) ? value.join(', ') : value;
  }
  return out;
}

function excerptOf(body: Buffer): string {
  const text = body.subarray(0, 4 * EXCERPT).toString('utf8');
  return text
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]+/g, ' ')
    .trim()
    .slice(0, EXCERPT)
    .toWellFormed();
}

type Unpack = (packed: Uint8Array, options: ZlibOptions) => Promise<Buffer>;
const UNPACK: Record<string, Unpack> = {
  gzip: promisify(gunzip) as Unpack,
  'x-gzip': promisify(gunzip) as Unpack,
  deflate: promisify(inflate) as Unpack,
  br: promisify(brotliDecompress) as Unpack,
};

const RATIO_WORDS = `grows more than ${UNPACK_RATIO} times when unpacked`;

/** We ask for plain bytes; some servers pack them all the same. One packing at most, and no bombs. */
async function unpack(body: Buffer, encoding: string | undefined, maxBytes: number): Promise<Uint8Array | CallFault> {
  const name = (encoding ?? 'identity').trim().toLowerCase();
  if (name === 'identity' || name === '') return body;
  const how = UNPACK[name];
  if (!how) return fault('protocol', 'a content encoding that we do not read');
  const most = Math.min(maxBytes, Math.max(UNPACK_FREE, body.length * UNPACK_RATIO));
  try {
    return await how(body, { maxOutputLength: most });
  } catch (error) {
    return (error as { code?: string }).code === 'ERR_BUFFER_TOO_LARGE'
      ? fault('too-big', most < maxBytes ? RATIO_WORDS : `more than ${most} bytes when unpacked`)
      : fault('protocol', `not ${name} as it says`);
  }
}
