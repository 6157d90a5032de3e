/**
 * The carrier in a box: an MMSC that speaks MM7 as a peer would, an SMSC beside it (`smsc.ts`), and handsets with an inbox behind
 * both. It meets everybody over sockets only and knows nothing of Postcard: SubmitReq come in by `POST /mm7`, DeliveryReportReq
 * and, for what handsets send, DeliverReq go out to one URL of the operator's, `GET /sandbox` explains itself. It can misbehave on demand, by the last digits of a number
 * (`behaviours.ts`).
 *
 * Promises: a submission is answered with 1000 after its commit, a repeated TransactionID (within its VASPID) is dropped and
 * answered like the first; what was taken, pending reports and inboxes survive kill -9 (`ledger.ts`). Bodies, connections,
 * bytes in memory and what is kept have limits.
 *
 * Fails: `startSandbox` rejects when the port or the file cannot be had. A request that is wrong is answered with the MM7
 * status that says why; a disk that refuses, with 4006.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fallbackName, wireNames } from '../../domain/content.ts';
import { formatInstant } from '../../domain/schedule.ts';
import { makeSmil } from '../../domain/smil.ts';
import type { Env, Timer } from '../../env.ts';
import { BEHAVIOURS, BUSY_TIMES, behaviourOf, NO_MMS_STATUS, ORDINARY, SLOW_MS } from './behaviours.ts';
import { createCallback } from './callback.ts';
import { inOrder, partHeaders, smsPart, viewMessages, viewSms } from './handsets.ts';
import {
  CONTENT_BYTES,
  HANDSET_MESSAGES,
  KEEP_MS,
  KEEP_SUBMISSIONS,
  type Ledger,
  openLedger,
  type Taken,
} from './ledger.ts';
import { createOutgoing, type OutgoingLoop, readSends } from './outgoing.ts';
import {
  type Amend,
  type Dialect,
  printDeliver,
  printFault,
  printResponse,
  type Recipient,
  readSubmit,
  type Status,
} from './peer.ts';
import { createReports, IN_FLIGHT, type Reports } from './reports.ts';
import { type SmscServer, startSmsc } from './smsc.ts';

/** For whoever sets up carriers that are to meet this sandbox. */
export { NO_MMS_STATUS } from './behaviours.ts';
export { TRANSACTION_TAG } from './smsc.ts';

const MIB = 1024 * 1024;
/** Of one SubmitReq. */
const BODY_BYTES = 10 * MIB;
/** A larger body is read away up to here, so that the answer reaches a peer that is still sending; beyond, it is cut off. */
const DRAIN_BYTES = 4 * BODY_BYTES;
/** Of all bodies in memory; beyond, 503. */
const OPEN_BYTES = 128 * MIB;
const CONNECTIONS = 1_024;
const HEADERS_MS = 15_000;
const REQUEST_MS = 60_000;
const KEEP_ALIVE_MS = 65_000;
const SWEEP_MS = 60_000;
/** What `close` waits for open answers. */
const CLOSE_MS = 5_000;
const HANDSETS_LISTED = 1_000;
const GARBAGE = Buffer.from('\u0000\u0001<<< this is not the SOAP you are looking for & never was');

export interface SandboxOptions {
  host: string;
  /** 0 = any free one. */
  port: number;
  /** Of the SMSC, on the same host; 0 = any free one, absent = no SMSC. */
  smppPort?: number;
  /** Its own SQLite file; made when missing. */
  file: string;
  /** Where DeliveryReportReq and DeliverReq are posted. */
  reportUrl: string;
  env: Env;
}

/** A started sandbox. */
export interface Sandbox {
  url: string;
  /** Null = no SMSC was asked for. */
  smppPort: number | null;
  close(): Promise<void>;
}

/**
 * Starts the sandbox; resolves when it listens. Rejects with the system's error (EADDRINUSE ..., `port` says which one) or what is
 * wrong with the file.
 */
export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { env } = options;
  const ledger = openLedger(options.file, env);
  const callback = createCallback({ url: options.reportUrl, connections: IN_FLIGHT + 8, env });
  const reports = createReports({ ledger, callback, env });
  const outgoing = createOutgoing({ rows: ledger.outgoing, callback, env });
  const closing = new AbortController();
  const door = new Door(ledger, reports, outgoing, env, closing.signal);
  const server = createServer(
    { headersTimeout: HEADERS_MS, requestTimeout: REQUEST_MS, keepAliveTimeout: KEEP_ALIVE_MS },
    (request, response) => {
      response.on('finish', () => {
        if (closing.signal.aborted) setImmediate(() => server.closeIdleConnections());
      });
      void door.serve(request, response);
    },
  );
  server.maxConnections = CONNECTIONS;
  let smsc: SmscServer | null = null;
  // A peer that closes its sending half behind its request still waits for the answer. Not in node's types.
  (server as typeof server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options.port, options.host, () => {
        server.off('error', reject);
        resolve();
      });
    });
    if (options.smppPort !== undefined) {
      smsc = await startSmsc({ host: options.host, port: options.smppPort, ledger, env });
    }
  } catch (error) {
    server.close();
    await reports.stop();
    await callback.close();
    ledger.close();
    throw error;
  }
  server.on('error', (error) => env.log.error({ err: error }, 'sandbox: server error'));
  door.url = urlOf(options.host, (server.address() as AddressInfo).port);
  reports.start();
  outgoing.start();

  let sweepTimer: Timer;
  const sweep = async (): Promise<void> => {
    try {
      while (await ledger.sweep());
    } catch (error) {
      env.log.warn({ err: error }, 'sandbox: sweep failed, will try again');
    }
    if (!closing.signal.aborted) sweepTimer = env.clock.setTimeout(sweepSoon, SWEEP_MS);
  };
  let sweeping = Promise.resolve();
  const sweepSoon = (): void => {
    sweeping = sweep();
  };
  sweepTimer = env.clock.setTimeout(sweepSoon, SWEEP_MS);

  let closed: Promise<void> | null = null;
  const close = async (): Promise<void> => {
    closing.abort();
    sweepTimer.cancel();
    const limit = env.clock.setTimeout(() => server.closeAllConnections(), CLOSE_MS);
    await smsc?.close();
    await new Promise<void>((resolve) => server.close(() => resolve()));
    limit.cancel();
    await Promise.all([reports.stop(), outgoing.stop()]);
    await callback.close();
    await sweeping;
    ledger.close();
  };
  return {
    url: door.url,
    smppPort: smsc?.port ?? null,
    close() {
      closed ??= close();
      return closed;
    },
  };
}

/** An address one can call: "any" is not. */
function urlOf(host: string, port: number): string {
  const callable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http://${callable.includes(':') ? `[${callable}]` : callable}:${port}`;
}

type Body = { ok: true; bytes: Buffer } | { ok: false; why: 'too large' | 'no room' | 'gone' };

/** Requests and their answers. */
class Door {
  url = '';
  readonly #ledger: Ledger;
  readonly #reports: Reports;
  readonly #outgoing: OutgoingLoop;
  readonly #env: Env;
  readonly #closing: AbortSignal;
  #openBytes = 0;

  constructor(ledger: Ledger, reports: Reports, outgoing: OutgoingLoop, env: Env, closing: AbortSignal) {
    this.#ledger = ledger;
    this.#reports = reports;
    this.#outgoing = outgoing;
    this.#env = env;
    this.#closing = closing;
  }

  /** Never rejects. */
  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    request.on('error', () => {});
    if (this.#closing.aborted) response.shouldKeepAlive = false;
    try {
      await this.#route(request, response);
    } catch (error) {
      this.#env.log.error({ err: error }, 'sandbox: a request failed');
      if (!response.headersSent) json(response, 500, { error: 'internal error of the sandbox, see its log' });
      else response.destroy();
    }
    // A body that nobody wanted.
    if (!request.complete) request.resume();
  }

  async #route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '', query = ''] = (request.url ?? '').split('?', 2);
    if (path === '/mm7') {
      return allowed(request, response, ['POST']) ? this.#submit(request, response) : undefined;
    }
    if (path === '/sandbox') {
      return allowed(request, response, ['GET', 'HEAD']) ? json(response, 200, this.#about()) : undefined;
    }
    if (path === '/sandbox/handsets') {
      return allowed(request, response, ['GET', 'HEAD']) ? this.#handsets(request, response, query) : undefined;
    }
    const handset =
      /^\/sandbox\/handsets\/(?:\+|%2B)?(\d{1,20})\/messages(?:\/([0-9a-f]{1,64})\/parts\/(\d{1,4}))?$/i.exec(path);
    if (!handset) {
      return json(response, 404, {
        error: 'no such path; GET /sandbox lists them. A handset is its number in digits, without + or blanks',
      });
    }
    const msisdn = handset[1]!;
    if (handset[2] !== undefined) {
      if (!allowed(request, response, ['GET', 'HEAD'])) return;
      const found = this.#part(msisdn, handset[2].toLowerCase(), Number(handset[3]));
      if (!found) return json(response, 404, { error: 'no such part on this handset' });
      return send(response, 200, partHeaders(found.part), found.bytes);
    }
    if (!allowed(request, response, ['GET', 'HEAD', 'DELETE', 'POST'])) return;
    if (request.method === 'POST') return this.#handsetSends(request, response, msisdn);
    if (request.method === 'DELETE') return json(response, 200, { deleted: await this.#ledger.empty(msisdn) });
    const bytes = (sha256: string): Uint8Array | null => this.#ledger.bytes(sha256);
    const base = this.#base(request);
    const mms = viewMessages(this.#ledger.inbox(msisdn), msisdn, base, bytes);
    return json(response, 200, {
      messages: inOrder([...mms, ...viewSms(this.#ledger.sms.inbox(msisdn), msisdn, base)]),
    });
  }

  #part(msisdn: string, id: string, n: number): ReturnType<Ledger['part']> {
    const sms = n === 0 ? this.#ledger.sms.one(msisdn, id) : null;
    return sms ? smsPart(sms.text) : this.#ledger.part(msisdn, id, n);
  }

  /** What a handset sends: kept before the answer, then told by DeliverReq. */
  async #handsetSends(request: IncomingMessage, response: ServerResponse, msisdn: string): Promise<void> {
    const body = await this.#read(request);
    if (!body.ok) return this.#unread(response, body.why);
    try {
      const read = readSends(body.bytes);
      if (!read.ok) return json(response, 400, { error: 'the message cannot be sent', violations: read.violations });
      const { to, cc, subject, parts: given } = read.sends;
      const names = wireNames(
        given.map(({ contentId, contentType }, n) => ({
          ...(contentId === null ? {} : { contentId }),
          fallback: fallbackName(contentType, n + 1),
        })),
      );
      const parts = given.map(({ contentType, bytes }, n) => ({ contentType, bytes, contentId: names[n] as string }));
      const id = Buffer.from(this.#env.random.bytes(12)).toString('hex');
      const at = this.#env.clock.now();
      const printed = printDeliver({
        transactionId: id,
        sender: msisdn,
        to,
        cc,
        subject,
        at,
        parts,
        smil: makeSmil(parts),
      });
      const kept = await this.#ledger.outgoing.add({ id, msisdn, ...printed });
      if (!kept) {
        response.setHeader('retry-after', '5');
        return json(response, 503, { error: 'too many messages of handsets wait already' });
      }
      this.#outgoing.wake();
      return json(response, 202, { id, from: msisdn, to, cc, subject, parts: parts.map(({ contentId }) => contentId) });
    } finally {
      this.#openBytes -= body.bytes.byteLength;
    }
  }

  // -------------------------------------------------------------------------------------------------------------- MM7

  async #submit(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await this.#read(request);
    if (!body.ok) return this.#unread(response, body.why);
    try {
      await this.#answer(request, response, body.bytes);
    } finally {
      this.#openBytes -= body.bytes.byteLength;
    }
  }

  async #answer(http: IncomingMessage, response: ServerResponse, body: Buffer): Promise<void> {
    const read = readSubmit(http.headers['content-type'] ?? '', body, this.#env.clock.now());
    if (!read.ok) {
      const { dialect, problem } = read;
      this.#ledger.count('refused');
      if (problem.fault) return soap(response, 500, printFault(dialect, problem));
      return soap(response, 200, printResponse(dialect, problem, null));
    }
    if ('amend' in read) return this.#amend(response, read.amend);
    const { request, fingerprint } = read;
    const fates = new Set(request.recipients.map((to) => behaviourOf(to.msisdn).atSubmit));
    if (fates.size === 1 && fates.has('unknown')) {
      this.#ledger.count('refused');
      return soap(response, 200, printResponse(request, { code: 2003, recipients: request.recipients }, null));
    }
    if (fates.size === 1 && fates.has('noMms')) {
      this.#ledger.count('refused');
      const details = 'handset does not support MMS';
      return soap(
        response,
        200,
        printResponse(request, { code: NO_MMS_STATUS, details, recipients: request.recipients }, null),
      );
    }
    const busyTimes = fates.has('busy') ? BUSY_TIMES : 0;
    let taken: Taken;
    try {
      taken = await this.#ledger.take({ request, fingerprint, busyTimes });
    } catch (error) {
      this.#env.log.error({ err: error }, 'sandbox: a submission could not be stored');
      return soap(response, 200, printResponse(request, { code: 4006, details: 'the disk refuses' }, null));
    }
    switch (taken.kind) {
      case 'busy':
        return soap(response, 200, printResponse(request, { code: 4006, details: 'busy, try again' }, null));
      case 'full':
        return soap(response, 200, printResponse(request, { code: 4006, details: 'the sandbox is full' }, null));
      case 'repeated':
        // Whatever went wrong with the first answer, this one is right.
        return soap(response, 200, success(request, taken.messageId, taken.refused));
      case 'taken':
        break;
    }
    if (taken.dueAt !== null) this.#reports.wake(taken.dueAt);
    if (fates.has('slow')) await this.#env.clock.sleep(SLOW_MS, this.#closing);
    if (fates.has('cut')) {
      this.#ledger.count('cut');
      http.socket.destroy();
      return;
    }
    if (fates.has('garbage')) {
      this.#ledger.count('garbage');
      return send(response, 200, { 'content-type': SOAP_TYPE }, GARBAGE);
    }
    return soap(response, 200, success(request, taken.messageId, taken.refused));
  }

  async #amend(response: ServerResponse, amend: Amend): Promise<void> {
    const { operation, vasp, messageId, earliestAt } = amend;
    const outcome = await (operation === 'CancelReq'
      ? this.#ledger.cancel(vasp, messageId)
      : this.#ledger.move(vasp, messageId, earliestAt)
    ).catch((error: unknown) => {
      this.#env.log.error({ err: error }, 'sandbox: a request could not be stored');
      return 'failed' as const;
    });
    if (earliestAt !== null) this.#reports.wake(Math.max(earliestAt, this.#env.clock.now()));
    const code = { done: 1000, unknown: 2005, late: 3001, failed: 4006 }[outcome];
    soap(response, 200, printResponse(amend, { code }, null));
  }

  /** The bytes count as open until the caller gives them back. */
  #read(request: IncomingMessage): Promise<Body> {
    return new Promise((resolve) => {
      const chunks: Buffer[] = [];
      let size = 0;
      let failed: 'too large' | 'no room' | null = null;
      const release = (): void => {
        this.#openBytes -= chunks.reduce((sum, chunk) => sum + chunk.length, 0);
        chunks.length = 0;
      };
      if (Number(request.headers['content-length'] ?? 0) > DRAIN_BYTES) {
        resolve({ ok: false, why: 'too large' });
        return;
      }
      request.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (failed === null && size > BODY_BYTES) failed = 'too large';
        if (failed === null && this.#openBytes + chunk.length > OPEN_BYTES) failed = 'no room';
        if (failed === null) {
          chunks.push(chunk);
          this.#openBytes += chunk.length;
          return;
        }
        release();
        if (size > DRAIN_BYTES) {
          request.pause();
          resolve({ ok: false, why: failed });
        }
      });
      request.on('end', () => {
        resolve(failed ? { ok: false, why: failed } : { ok: true, bytes: Buffer.concat(chunks, size) });
      });
      request.on('close', () => {
        if (request.complete) return;
        release();
        resolve({ ok: false, why: 'gone' });
      });
    });
  }

  #unread(response: ServerResponse, why: 'too large' | 'no room' | 'gone'): void {
    if (why === 'gone') return;
    this.#ledger.count('refused');
    if (!response.req.complete) {
      // What is still coming is not read: the connection ends with the answer.
      response.shouldKeepAlive = false;
      response.on('finish', () => response.req.socket.destroySoon());
    }
    // Without SOAP: nothing of the request is known.
    if (why === 'too large') json(response, 413, { error: `a request has at most ${BODY_BYTES} bytes` });
    else {
      response.setHeader('retry-after', '1');
      json(response, 503, { error: 'too many bytes are on their way already' });
    }
  }

  // --------------------------------------------------------------------------------------------------------- for people

  #base(request: IncomingMessage): string {
    const { host } = request.headers;
    // As the caller reached it: behind a mapped port, or when listening on every address, only the caller knows.
    return host && /^[A-Za-z0-9.:[\]-]{1,255}$/.test(host) ? `http://${host}` : this.url;
  }

  #about(): object {
    const digits: Record<string, string> = {};
    for (const [number, { what }] of Object.entries(BEHAVIOURS)) digits[`...${number}`] = what;
    return {
      what: 'A mobile carrier in a box: an MMSC that speaks MM7, and handsets. No message leaves this machine.',
      paths: {
        'POST /mm7': 'MM7 SubmitReq, CancelReq, ReplaceReq',
        'SMPP 3.4': 'an SMSC on a port of its own (POSTCARD_SANDBOX_SMPP_PORT), any system id and password',
        'GET /sandbox/handsets': 'handsets that have messages',
        'GET /sandbox/handsets/{msisdn}/messages': 'what lies on a handset, oldest first; DELETE empties it',
        'POST /sandbox/handsets/{msisdn}/messages':
          'the handset sends an MMS: {"to":["441134960000"],"cc"?,"subject"?,"parts":[{"contentType","contentId"?,"text"|"base64"}]}',
      },
      behaviours: { ...digits, 'any other': ORDINARY.what },
      counters: this.#ledger.counters(),
      limits: {
        requestBytes: BODY_BYTES,
        messagesPerHandset: HANDSET_MESSAGES,
        contentBytes: CONTENT_BYTES,
        submissions: KEEP_SUBMISSIONS,
        keptDays: KEEP_MS / 86_400_000,
      },
    };
  }

  #handsets(request: IncomingMessage, response: ServerResponse, query: string): void {
    const after = new URLSearchParams(query).get('after') ?? '';
    const base = this.#base(request);
    const found = this.#ledger.handsets(after, HANDSETS_LISTED);
    const handsets = found.map(({ msisdn, messages, lastReceivedAt }) => ({
      msisdn,
      messages,
      lastReceivedAt: formatInstant(lastReceivedAt),
      url: `${base}/sandbox/handsets/${msisdn}/messages`,
    }));
    const last = found.length === HANDSETS_LISTED ? found.at(-1) : undefined;
    json(response, 200, { handsets, ...(last ? { next: `${base}/sandbox/handsets?after=${last.msisdn}` } : {}) });
  }
}

const SOAP_TYPE = 'text/xml; charset=utf-8';

function hasNoMms(recipient: Recipient): boolean {
  return behaviourOf(recipient.msisdn).atSubmit === 'noMms';
}

function success(dialect: Dialect, messageId: string, refused: Recipient[]): string {
  const recipients = refused.map((one) => ({ ...one, ...(hasNoMms(one) ? { code: NO_MMS_STATUS } : {}) }));
  const status: Status = refused.length > 0 ? { code: 1100, recipients } : { code: 1000 };
  return printResponse(dialect, status, messageId);
}

function allowed(request: IncomingMessage, response: ServerResponse, methods: string[]): boolean {
  if (methods.includes(request.method ?? '')) return true;
  response.setHeader('allow', methods.join(', '));
  json(response, 405, { error: `only ${methods.join(', ')} here` });
  return false;
}

function soap(response: ServerResponse, code: number, xml: string): void {
  send(response, code, { 'content-type': SOAP_TYPE }, Buffer.from(xml));
}

function json(response: ServerResponse, code: number, value: object): void {
  const headers = {
    'content-type': 'application/json; charset=utf-8',
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
  };
  send(response, code, headers, Buffer.from(JSON.stringify(value)));
}

function send(response: ServerResponse, code: number, headers: Record<string, string>, bytes: Uint8Array): void {
  response.writeHead(code, { ...headers, 'content-length': String(bytes.byteLength) });
  // Node leaves the body of an answer to HEAD out by itself.
  response.end(bytes);
}
