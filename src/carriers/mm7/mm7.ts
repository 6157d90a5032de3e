/**
 * The MM7 carrier, outbound: one SubmitReq over HTTP per submission, what the MMSC's answer means, CancelReq and ReplaceReq.
 *
 * Promises: the contract of `carrier.ts`. A pool of at most `concurrency` kept connections of its own; no redirects; an
 * answer is read up to `ANSWER_BYTES`; nothing is sent twice here, but for Digest: a 401 that brings a challenge has not taken
 * the request, which goes once more with the answer to it. The instant the first byte may have left decides between
 * deferred (before) and unknown (after).
 *
 * Fails: as outcomes only. `createMm7Carrier` throws for a URL that is none (settings have checked it).
 */
import type { Dispatcher } from 'undici';
import { buildConnector, Pool } from 'undici';
import type { Outcome, Submission } from '../../domain/submission.ts';
import type { Env } from '../../env.ts';
import { passingContinue } from '../../net/interim.ts';
import { cachedNames, lookupBy, type Resolve, systemNames } from '../../net/names.ts';
import type { Carrier, Hand } from '../carrier.ts';
import { bounded, type CodeTables, type HttpAnswer, isGranted, outcomeOf } from './answer.ts';
import { createDigest, type Digest } from './digest.ts';
import { createSubmitEncoder, printCancel, printReplace, type SubmitBody, type SubmitOptions } from './submit.ts';

/** What the carrier needs of its settings (`Mm7CarrierConfig` in carrier-settings.ts has them all). */
export interface Mm7Config extends SubmitOptions, CodeTables {
  name: string;
  url: string;
  /** HTTP Basic or Digest, with `password`. */
  username?: string;
  password?: string;
  auth?: 'basic' | 'digest';
  /** PEM texts: authorities to believe instead of the well-known ones, our certificate and its key. */
  tls?: { ca?: string; cert?: string; key?: string; passphrase?: string; servername?: string };
  /** Sent in quotes; default empty. */
  soapAction?: string;
  extraHeaders?: Readonly<Record<string, string>>;
  /** Whether the carrier knows CancelReq; default true. */
  cancel?: boolean;
  /** Submissions in flight, and so connections. */
  concurrency: number;
  /** Dispatch aborts after this long; our own time-outs stay below it. */
  timeoutMs: number;
}

/** An MMSC answers with a kB. */
const ANSWER_BYTES = 256 * 1024;
/** Bodies up to this are copied into one write; beyond it the shared content goes out as it is. */
const ONE_WRITE_BYTES = 64 * 1024;
const CONNECT_MS = 10_000;
/** Idle connections are left before common servers close them (5 s), so that no request meets a closing one. */
const IDLE_MS = 4_000;
/** 15000 EC_MMS_GENERAL_ERROR: may heal. */
const GENERAL = 15000;

/** A carrier for one configured MMSC. `resolve`: names to addresses. */
export function createMm7Carrier(config: Mm7Config, env: Env, resolve: Resolve = systemNames(env)): Carrier {
  const url = new URL(config.url);
  const path = `${url.pathname}${url.search}`;
  // Below dispatch's own limit, so that the words can say which phase took too long.
  const phaseMs = Math.max(1, Math.floor(config.timeoutMs * 0.9));
  const pool = new Pool(url.origin, {
    connections: config.concurrency,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: IDLE_MS,
    keepAliveMaxTimeout: 60_000,
    headersTimeout: phaseMs,
    bodyTimeout: phaseMs,
    maxHeaderSize: 16 * 1024,
    connect: passingContinue(
      endingByAlert(
        buildConnector({
          ...config.tls,
          timeout: Math.min(CONNECT_MS, phaseMs),
          allowH2: false,
          lookup: lookupBy(cachedNames(resolve, env)),
        }),
      ),
    ),
  });
  const encode = createSubmitEncoder(config, createBoundaries(env), () => env.clock.now());
  const fixed = ['soapaction', `"${config.soapAction ?? ''}"`, 'user-agent', 'Postcard'];
  for (const [name, value] of Object.entries(config.extraHeaders ?? {})) fixed.push(name.toLowerCase(), value);
  const { username, password = '' } = config;
  let digest: Digest | null = null;
  if (username !== undefined && config.auth === 'digest') {
    digest = createDigest(username, password, (n) => env.random.bytes(n));
  } else if (username !== undefined) {
    fixed.push('authorization', `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`);
  }
  const resellerHeader = config.resellerCode?.header?.toLowerCase();

  /**
   * One exchange; with Digest a second one where the first was answered with a challenge. `open` is asked before each: what was
   * challenged was not taken, and its time may be over when the challenge comes.
   */
  async function ask(
    body: SubmitBody,
    more: string[],
    signal: AbortSignal,
    open?: () => boolean,
  ): Promise<HttpAnswer | Failed> {
    for (let again = false; ; again = true) {
      const proof = digest?.authorize('POST', path, [body.opening, body.closing]) ?? null;
      const headers = [...fixed, ...more, ...(proof === null ? [] : ['authorization', proof.value])];
      const result = await post(pool, path, headers, body, { signal, phaseMs, open });
      if (digest === null || !('status' in result)) return result;
      digest.informed(result.authenticationInfo);
      if (result.status !== 401 || again || !digest.challenged(result.challenges, proof?.nonce ?? null)) return result;
      if (signal.aborted) return { sent: false, words: 'no time left to answer the challenge' };
    }
  }

  /** A request about an earlier one, without attachments: whether it was granted. */
  async function follow(opening: Buffer, signal: AbortSignal): Promise<boolean> {
    const body = { contentType: 'text/xml; charset=utf-8', opening, closing: new Uint8Array(0) };
    const result = await ask(body, [], signal);
    return 'status' in result && isGranted(result);
  }

  return {
    name: config.name,
    async submit(submission: Submission, signal: AbortSignal, hand?: Hand): Promise<Outcome> {
      if (signal.aborted) return unsent('aborted before it was sent');
      const body = encode(submission);
      const { resellerCode } = submission;
      const more =
        resellerHeader === undefined || resellerCode === undefined ? [] : [resellerHeader, String(resellerCode)];
      const result = await ask(body, more, signal, hand?.open);
      if ('status' in result) return outcomeOf(result, submission, env.clock.now(), config);
      if (result.sent) return { kind: 'unknown', error: { id: GENERAL, words: result.words } };
      // Nobody there: another carrier may be.
      return signal.aborted ? unsent(result.words) : { ...unsent(result.words), elsewhere: true };
    },
    ...(config.cancel === false
      ? {}
      : {
          async cancel(
            carrierMessageId: string,
            { transactionId, sender }: { transactionId: string; sender: string },
            signal: AbortSignal,
          ): Promise<boolean> {
            if (signal.aborted) return false;
            const earlier = { transactionId: `${transactionId}-cancel`, carrierMessageId, sender };
            const opening = Buffer.from(printCancel(config, earlier), 'utf8');
            return follow(opening, signal);
          },
        }),
    async replace(carrierMessageId, { transactionId, sender, earliestAt }, signal): Promise<boolean> {
      if (signal.aborted) return false;
      const earlier = { transactionId: `${transactionId}-${earliestAt}`, carrierMessageId, sender, earliestAt };
      return follow(Buffer.from(printReplace(config, earlier), 'utf8'), signal);
    },
    close: () => pool.destroy(),
  };
}

/** Boundaries of 16 random bytes. Drawn 64 at a time: each draw is a call of the system. */
function createBoundaries(env: Env): () => string {
  let drawn = Buffer.alloc(0);
  return () => {
    if (drawn.length === 0) drawn = Buffer.from(env.random.bytes(64 * 16));
    const own = drawn.subarray(0, 16);
    drawn = drawn.subarray(16);
    return `pc-${own.toString('hex')}`;
  };
}

/**
 * In TLS 1.3 a client may send before the server has looked at its certificate; that the server wants another one comes as an
 * alert after the request, which it has not read then (RFC 8446, 4.4.2.4 and 6.2). OpenSSL's names of such alerts.
 */
const NOT_OUR_CERTIFICATE =
  /^ERR_SSL_.*ALERT_(?:(?:NO|BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)$/;

/** A connector whose sockets end by such an alert: undici would call it an end by the peer, of a request that may have been taken. */
function endingByAlert(dial: buildConnector.connector): buildConnector.connector {
  return (options, callback) =>
    dial(options, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      socket.on('error', (alert: NodeJS.ErrnoException) => {
        if (NOT_OUR_CERTIFICATE.test(alert.code ?? '')) socket.destroy(alert);
      });
      callback(null, socket);
    });
}

function unsent(words: string): Extract<Outcome, { kind: 'deferred' }> {
  return { kind: 'deferred', error: { id: GENERAL, words }, unsent: true };
}

/** `sent`: a byte of the request may have left. */
type Failed = { sent: boolean; words: string };

/** With what Digest asks for. */
interface Answered extends HttpAnswer {
  challenges: string[];
  authenticationInfo: string | undefined;
}

/** What an exchange keeps to. */
interface Terms {
  signal: AbortSignal;
  phaseMs: number;
  /** Asked right before the first byte; false = nothing leaves. Absent = it may. */
  open?: (() => boolean) | undefined;
}

function post(
  pool: Pool,
  path: string,
  fixed: string[],
  { contentType, opening, closing }: SubmitBody,
  terms: Terms,
): Promise<Answered | Failed> {
  const length = opening.byteLength + closing.byteLength;
  const headers = [...fixed, 'content-type', contentType, 'content-length', String(length)];
  // undici takes any iterable of chunks; its types know streams only.
  const body =
    length <= ONE_WRITE_BYTES
      ? Buffer.concat([opening, closing], length)
      : ([opening, closing] as unknown as Dispatcher.DispatchOptions['body']);
  return new Promise((resolve) => {
    const exchange = new Exchange(resolve, terms);
    try {
      pool.dispatch({ path, method: 'POST', headers, body }, exchange);
    } catch (error) {
      exchange.onResponseError(null, error as Error);
    }
  });
}

/** One request and its answer; settles exactly once. */
class Exchange implements Dispatcher.DispatchHandler {
  private readonly resolve: (result: Answered | Failed) => void;
  private readonly signal: AbortSignal;
  private readonly phaseMs: number;
  private readonly open: (() => boolean) | undefined;
  private readonly onAbort: () => void;
  private controller: Dispatcher.DispatchController | null = null;
  private sent = false;
  private done = false;
  private status = 0;
  private headers: Record<string, string | string[] | undefined> = {};
  private chunks: Buffer[] = [];
  private size = 0;

  constructor(resolve: (result: Answered | Failed) => void, { signal, phaseMs, open }: Terms) {
    this.resolve = resolve;
    this.signal = signal;
    this.phaseMs = phaseMs;
    this.open = open;
    this.onAbort = () => {
      this.settle({ sent: this.sent, words: this.sent ? 'no answer in time' : 'no connection in time' });
      this.controller?.abort(new Error('aborted'));
    };
    signal.addEventListener('abort', this.onAbort, { once: true });
  }

  /** The last moment before the first byte goes to the socket. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (!this.done && this.open?.() === false) this.settle({ sent: false, words: 'its time was over' });
    if (this.done) {
      controller.abort(new Error('aborted'));
      return;
    }
    this.controller = controller;
    this.sent = true;
  }

  onResponseStart(_: unknown, status: number, headers: Record<string, string | string[] | undefined>): void {
    // 1xx are no answers.
    if (status < 200) return;
    this.status = status;
    this.headers = headers;
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.size += chunk.byteLength;
    if (this.size <= ANSWER_BYTES) {
      this.chunks.push(chunk);
      return;
    }
    this.settle({ sent: true, words: `answer longer than ${ANSWER_BYTES} bytes` });
    controller.abort(new Error('answer too long'));
  }

  onResponseEnd(): void {
    this.settle({
      status: this.status,
      contentType: first(this.headers['content-type']),
      retryAfter: first(this.headers['retry-after']),
      location: first(this.headers.location),
      challenges: [this.headers['www-authenticate'] ?? []].flat(),
      authenticationInfo: first(this.headers['authentication-info']),
      body: this.chunks.length === 1 ? this.chunks[0]! : Buffer.concat(this.chunks, this.size),
    });
  }

  onResponseError(_: unknown, error: Error): void {
    const code = (error as { code?: unknown }).code;
    if (typeof code === 'string' && NOT_OUR_CERTIFICATE.test(code)) {
      this.settle({ sent: false, words: `the carrier wants a TLS certificate of ours, or another one (${code})` });
      return;
    }
    const words =
      slow(code, this.phaseMs) ?? bounded(typeof code === 'string' ? `${code} ${error.message}` : error.message);
    this.settle({ sent: this.sent, words: words || 'connection failed' });
  }

  private settle(result: Answered | Failed): void {
    if (this.done) return;
    this.done = true;
    this.signal.removeEventListener('abort', this.onAbort);
    this.resolve(result);
  }
}

/** What ran out of time, and after how long; null = nothing did. */
function slow(code: unknown, phaseMs: number): string | null {
  const after = (ms: number): string => (ms < 1000 ? `${ms} ms` : `${Math.round(ms / 100) / 10} s`);
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return `no answer within ${after(phaseMs)}`;
  if (code === 'UND_ERR_BODY_TIMEOUT') return `the answer stood still for ${after(phaseMs)}`;
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return `no connection within ${after(Math.min(CONNECT_MS, phaseMs))}`;
  return null;
}

function first(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
