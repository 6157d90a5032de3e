/**
 * What MMSCs call: POST /mm7/{carrier}. Delivery reports and read replies go to `onReport`, messages
 * from handsets to `onInbound`.
 *
 * Promises: a call is answered with 1000 only after its hook has resolved, that is, after it is durable; when that fails, the
 * answer is a 503 with a SOAP fault, so that the peer repeats. Answers are in the peer's namespace, MM7 version and SOAP
 * version, with its TransactionID. Bodies, headers, times, connections, bytes in memory and calls at work have limits: what is
 * beyond them is answered 503, and so repeated. Calls of one moment reach the hooks together, so that their commits are shared.
 *
 * Who calls: a carrier with `allow` only from these addresses; with `secret` it must show it, as the password of HTTP Basic (any
 * user name), as `X-Postcard-Secret`, or, for peers that can do neither, as `?secret=` (which proxies may log); with `clientCa`
 * only over TLS with a certificate of that authority (and that name). With none of them, whoever reaches the port is believed:
 * keep it inside the carrier's network. With a certificate of ours, the one port takes TLS and plain HTTP alike.
 *
 * Fails: rejects when the address cannot be listened on, or a certificate cannot be used. A failing connection harms no other.
 */
import { createHash, timingSafeEqual, X509Certificate } from 'node:crypto';
import {
  createServer as createHttp,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttps, type Server as HttpsServer } from 'node:https';
import { type AddressInfo, BlockList, createServer as createTcp, isIPv6, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { CarrierInbound, CarrierReport } from '../../domain/submission.ts';
import type { Env } from '../../env.ts';
import type { XmlText } from '../../xml.ts';
import { bounded } from './answer.ts';
import { type Caller, readDeliver, readReadReply, readReport } from './calls.ts';
import {
  envelope,
  fault,
  MM7_NAMESPACE,
  MM7_VERSION,
  operation,
  readSoap,
  SOAP_11,
  type SoapMessage,
  soapType,
  status,
} from './soap.ts';

/** A carrier that may call; `name` is part of the path. */
export interface Inbound extends Caller {
  secret?: string;
  /** Networks with prefix length, like 10.0.0.0/8. */
  allow?: readonly string[];
  /** PEM: authorities of its client certificate. */
  clientCa?: string;
  /** CN or DNS name that the certificate must have. */
  clientName?: string;
  /** Whether plain HTTP is refused; a clientCa implies it. */
  tls?: boolean;
}

export interface ListenerOptions {
  host: string;
  /** 0 = any free one. */
  port: number;
  /** Our certificate and its key, PEM. */
  tls?: { cert: string; key: string };
  carriers: readonly Inbound[];
  /** Resolves once the report is durable; rejects when it is not (the peer will repeat it). */
  onReport(report: CarrierReport): Promise<void>;
  /** Resolves once the message is durable; rejects when it is not. `id`: for the log. */
  onInbound(message: CarrierInbound): Promise<{ id: string }>;
  env: Env;
}

export interface Listener {
  /** e.g. http://127.0.0.1:8082 */
  url: string;
  /**
   * Who may call from now on, and our certificate where it was renewed; calls that are being served end as they began. Throws
   * for a certificate that cannot be used. Whether there is TLS at all is decided at the start.
   */
  setCarriers(carriers: readonly Inbound[], tls?: ListenerOptions['tls']): void;
  /** Figures for the metrics page. `refused`: not let in; `busy`: beyond a limit; `failed`: the hook rejected. */
  counters(): {
    reports: number;
    inbound: number;
    refused: number;
    invalid: number;
    busy: number;
    failed: number;
    open: number;
  };
  /** Takes no new calls, lets running ones end (at most `CLOSE_MS`), then closes. */
  close(): Promise<void>;
}

/** A DeliverReq with its pictures; reports are about 1 kB. */
const BODY_BYTES = 12 * 1024 * 1024;
/** Of all bodies in memory; beyond, 503. */
const OPEN_BYTES = 128 * 1024 * 1024;
/** Calls being read or waiting for their commit; beyond, 503. */
const OPEN_CALLS = 2_000;
const CONNECTIONS = 512;
const HEADERS_MS = 10_000;
const REQUEST_MS = 30_000;
const KEEP_ALIVE_MS = 75_000;
/** For the first byte of a connection, where it tells TLS from HTTP. */
const FIRST_BYTE_MS = 10_000;
const CLOSE_MS = 5_000;
/** When to repeat what the store could not take. */
const RETRY_AFTER_S = 5;
/** First byte of a TLS handshake. */
const HANDSHAKE = 0x16;

/** What is known of a carrier that calls. */
interface Gate {
  caller: Inbound;
  secret: Buffer | null;
  allow: BlockList | null;
  authorities: X509Certificate[];
}

/** Starts listening. */
export async function createMm7Listener(options: ListenerOptions): Promise<Listener> {
  const { env } = options;
  const counts = { reports: 0, inbound: 0, refused: 0, invalid: 0, busy: 0, failed: 0 };
  let gates = new Map<string, Gate>();
  let openCalls = 0;
  let openBytes = 0;
  let closing = false;

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [target = '', query = ''] = (request.url ?? '').split('?', 2);
    // Whole URLs are a form that servers must take (RFC 9112, 3.2.2); a slash at the end is added by some who copy one.
    const path = target.replace(/^https?:\/\/[^/]*/i, '');
    const carrier = /^\/mm7\/([^/]*)\/?$/.exec(path)?.[1] ?? '';
    const gate = gates.get(carrier);
    if (gate === undefined) return refuse(response, 404, 'no such carrier\n');
    if (request.method !== 'POST') return refuse(response, 405, 'POST only\n', { allow: 'POST' });
    const barred = bars(gate, request, query);
    if (barred) {
      counts.refused++;
      env.log.warn({ carrier, from: request.socket.remoteAddress, reason: barred.why }, 'call not let in');
      return refuse(response, barred.code, barred.words, barred.headers);
    }
    const encoding = request.headers['content-encoding'];
    if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
      return refuse(response, 415, 'no Content-Encoding, please\n');
    }
    if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES) return refuse(response, 413, 'too long\n');
    if (openCalls >= OPEN_CALLS) return busy(response);
    openCalls++;
    let size = 0;
    try {
      const body = await readBody(request, (bytes) => {
        size += bytes;
        openBytes += bytes;
        return openBytes <= OPEN_BYTES;
      });
      if (body === 'too long') return refuse(response, 413, 'too long\n');
      if (body === 'no room') return busy(response);
      const soap = readSoap(request.headers['content-type'], body, { size: BODY_BYTES });
      if (!soap.ok) {
        counts.invalid++;
        env.log.warn({ carrier, reason: soap.fault }, 'call that is not MM7');
        return answer(response, 400, null, failure('Client', 4004, `Validation error: ${soap.fault}`, null));
      }
      const { status: code, body: result } = await serve(gate.caller, soap.message);
      if (closing) response.setHeader('connection', 'close');
      answer(response, code, soap.message, result);
    } finally {
      openCalls--;
      openBytes -= size;
    }
  }

  function busy(response: ServerResponse): void {
    counts.busy++;
    refuse(response, 503, 'busy\n', { 'retry-after': String(RETRY_AFTER_S) });
  }

  /** The operation's own answer. */
  async function serve(caller: Inbound, message: SoapMessage): Promise<{ status: number; body: XmlText }> {
    const carrier = caller.name;
    const unusable = (reason: string): { status: number; body: XmlText } => {
      counts.invalid++;
      env.log.warn({ carrier, operation: message.operation, reason }, 'call that cannot be used');
      return { status: 400, body: failure('Client', 4004, `Validation error: ${reason}`, message) };
    };
    const keep = async (hook: () => Promise<unknown>, name: Answer): Promise<{ status: number; body: XmlText }> => {
      try {
        await hook();
      } catch (error) {
        counts.failed++;
        env.log.error({ carrier, operation: message.operation, err: error }, 'call could not be kept');
        return { status: 503, body: failure('Server', 4006, 'Service unavailable', message) };
      }
      return { status: 200, body: success(name, message) };
    };
    switch (message.operation) {
      case 'DeliveryReportReq': {
        const read = readReport(caller, message.body);
        if (typeof read === 'string') return unusable(read);
        if (!read.known) env.log.warn({ carrier, words: read.report.words }, 'report with an unknown status');
        counts.reports++;
        return keep(() => options.onReport(read.report), 'DeliveryReportRsp');
      }
      case 'ReadReplyReq': {
        const read = readReadReply(caller, message.body);
        if (read === null) {
          env.log.info({ carrier }, 'read reply for no message');
          return { status: 200, body: success('ReadReplyRsp', message) };
        }
        return keep(() => options.onReport(read), 'ReadReplyRsp');
      }
      case 'DeliverReq': {
        const read = readDeliver(caller, message);
        if (typeof read === 'string') return unusable(read);
        counts.inbound++;
        return keep(async () => {
          const { id } = await options.onInbound(read);
          env.log.info(
            { carrier, from: read.from, to: read.to, parts: read.parts.length, id },
            'message from a handset',
          );
        }, 'DeliverRsp');
      }
      default:
        counts.invalid++;
        env.log.warn({ carrier, operation: message.operation.slice(0, 60) }, 'operation not supported');
        return { status: 500, body: failure('Client', 4003, 'Unsupported operation', message) };
    }
  }

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    handle(request, response).catch((error: unknown) => {
      // The peer left in the middle; there is nobody to answer.
      if (request.destroyed || response.destroyed) return;
      env.log.error({ err: error }, 'call failed');
      if (response.headersSent) response.destroy();
      else refuse(response, 500, 'internal error\n');
    });
  };
  const limits = {
    headersTimeout: HEADERS_MS,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    maxHeaderSize: 16 * 1024,
  };
  const prepared = <S extends HttpServer | HttpsServer>(server: S): S => {
    server.maxConnections = CONNECTIONS;
    // A peer that closes its sending half behind a report still waits for the answer. Not in node's types.
    (server as S & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
    server.on('clientError', (_, socket) => socket.destroy());
    return server;
  };
  const plain = prepared(createHttp(limits, onRequest));
  let { tls } = options;
  /** The newest takes new connections; older ones keep those that they have. */
  const secure: HttpsServer[] = [];

  function setCarriers(carriers: readonly Inbound[], renewed?: ListenerOptions['tls']): void {
    if (tls && renewed) tls = renewed;
    const next = new Map(carriers.map((caller) => [caller.name, gateOf(caller)]));
    if (tls) {
      const authorities = carriers.flatMap(({ clientCa }) => (clientCa === undefined ? [] : [clientCa]));
      // Who has no certificate is judged by its gate, not by the handshake: others share the port.
      const ask = authorities.length > 0 ? { ca: authorities, requestCert: true, rejectUnauthorized: false } : {};
      const server = prepared(createHttps({ ...limits, ...tls, ...ask }, onRequest));
      server.on('tlsClientError', (_, socket) => socket.destroy());
      secure.unshift(server);
      for (const old of secure.splice(2)) old.closeAllConnections();
    }
    gates = next;
  }
  setCarriers(options.carriers);

  /** Connections whose first byte has not come. */
  const silent = new Set<Socket>();
  const front = tls ? createFront(plain, () => secure[0] as HttpsServer, silent, env) : plain;
  front.maxConnections = CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    front.once('error', reject);
    front.listen(options.port, options.host, () => {
      front.off('error', reject);
      resolve();
    });
  });
  front.on('error', (error) => env.log.error({ err: error }, 'listener for carriers'));
  const { address, family, port } = front.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    setCarriers,
    counters: () => ({ ...counts, open: openCalls }),
    close: () =>
      new Promise((resolve) => {
        closing = true;
        const servers = [plain, ...secure];
        const limit = env.clock.setTimeout(() => {
          for (const server of servers) server.closeAllConnections();
        }, CLOSE_MS);
        front.close(() => {
          limit.cancel();
          resolve();
        });
        for (const socket of silent) socket.destroy();
        for (const server of servers) server.closeIdleConnections();
      }),
  };
}

/** One port for both: the first byte tells a TLS handshake from a request. */
function createFront(
  plain: HttpServer,
  secure: () => HttpsServer,
  silent: Set<Socket>,
  env: Env,
): ReturnType<typeof createTcp> {
  return createTcp({ allowHalfOpen: true }, (socket: Socket) => {
    silent.add(socket);
    const limit = env.clock.setTimeout(() => socket.destroy(), FIRST_BYTE_MS);
    const heard = (): void => {
      silent.delete(socket);
      limit.cancel();
    };
    const onError = (): void => void socket.destroy();
    socket.on('error', onError);
    socket.once('close', heard);
    socket.once('readable', () => {
      heard();
      const first = socket.read(1) as Buffer | null;
      if (first === null) return void socket.destroy();
      socket.unshift(first);
      socket.off('error', onError);
      (first[0] === HANDSHAKE ? secure() : plain).emit('connection', socket);
    });
  });
}

// ------------------------------------------------------------------------------------------------------------------ who

function gateOf(caller: Inbound): Gate {
  let allow: BlockList | null = null;
  if (caller.allow !== undefined) {
    allow = new BlockList();
    for (const network of caller.allow) {
      const [address = '', prefix = ''] = network.split('/');
      const six = isIPv6(address);
      allow.addSubnet(address, prefix === '' ? (six ? 128 : 32) : Number(prefix), six ? 'ipv6' : 'ipv4');
    }
  }
  const blocks = caller.clientCa?.match(/-----BEGIN [^-]+-----[^-]+-----END [^-]+-----/g) ?? [];
  return {
    caller,
    secret: caller.secret === undefined ? null : digest(caller.secret),
    allow,
    authorities: blocks.map((block) => new X509Certificate(block)),
  };
}

/** Why a call is not let in; null = it is. */
function bars(
  gate: Gate,
  request: IncomingMessage,
  query: string,
): { code: number; words: string; why: string; headers?: Record<string, string> } | null {
  const { caller, secret, allow, authorities } = gate;
  const { remoteAddress = '' } = request.socket;
  if (allow !== null && !allow.check(remoteAddress, isIPv6(remoteAddress) ? 'ipv6' : 'ipv4')) {
    return { code: 403, words: 'not from this address\n', why: 'address' };
  }
  const tls = (request.socket as TLSSocket).encrypted === true ? (request.socket as TLSSocket) : null;
  if (tls === null && (caller.tls === true || caller.clientCa !== undefined)) {
    return { code: 403, words: 'by https only\n', why: 'plain HTTP' };
  }
  if (caller.clientCa !== undefined && !certified(tls as TLSSocket, authorities, caller.clientName)) {
    return { code: 403, words: 'not with this certificate\n', why: 'certificate' };
  }
  if (secret !== null && !shows(request, query, secret)) {
    return {
      code: 401,
      words: 'wrong secret\n',
      why: 'secret',
      headers: { 'www-authenticate': 'Basic realm="postcard"' },
    };
  }
  return null;
}

/** Whether the peer's certificate is good, of one of these authorities (which are not all that the port knows), and so named. */
function certified(socket: TLSSocket, authorities: X509Certificate[], name: string | undefined): boolean {
  if (!socket.authorized) return false;
  const leaf = socket.getPeerX509Certificate();
  if (!leaf) return false;
  const chain: X509Certificate[] = [];
  for (let one: X509Certificate | undefined = leaf; one && chain.length < 10; one = one.issuerCertificate) {
    chain.push(one);
    if (one.issuerCertificate === one || one.issuerCertificate?.fingerprint256 === one.fingerprint256) break;
  }
  const ours = chain.some((one) =>
    authorities.some(
      (ca) => ca.fingerprint256 === one.fingerprint256 || (one.checkIssued(ca) && one.verify(ca.publicKey)),
    ),
  );
  if (!ours || name === undefined) return ours;
  return leaf.checkHost(name) !== undefined || leaf.subject.split('\n').includes(`CN=${name}`);
}

// ------------------------------------------------------------------------------------------------------------------ HTTP

/** Rejects when the peer leaves. `room` counts bytes; false = there is none. What is too much is left unread. */
function readBody(
  request: IncomingMessage,
  room: (bytes: number) => boolean,
): Promise<Buffer | 'too long' | 'no room'> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let over = false;
    request.on('data', (chunk: Buffer) => {
      if (over) return;
      size += chunk.byteLength;
      const fits = room(chunk.byteLength);
      if (fits && size <= BODY_BYTES) {
        chunks.push(chunk);
        return;
      }
      over = true;
      request.pause();
      resolve(fits ? 'too long' : 'no room');
    });
    request.on('end', () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size)));
    request.on('error', reject);
    request.on('close', () => reject(new Error('the peer left')));
  });
}

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret, 'utf8').digest();
}

/** Compares digests: equal length, and in constant time. */
function shows(request: IncomingMessage, query: string, secret: Buffer): boolean {
  const shown: (string | null | undefined)[] = [];
  const basic = /^Basic\s+([A-Za-z0-9+/=]+)\s*$/i.exec(request.headers.authorization ?? '')?.[1];
  if (basic !== undefined) {
    // The charset is not told (RFC 7617): old clients write ISO-8859-1.
    for (const charset of ['utf8', 'latin1'] as const) {
      const pair = Buffer.from(basic, 'base64').toString(charset);
      shown.push(pair.slice(pair.indexOf(':') + 1));
    }
  }
  const header = request.headers['x-postcard-secret'];
  // Node reads header bytes as ISO-8859-1; the peer may have meant UTF-8.
  if (typeof header === 'string') shown.push(header, Buffer.from(header, 'latin1').toString('utf8'));
  shown.push(new URLSearchParams(query).get('secret'));
  return shown.some((one) => typeof one === 'string' && timingSafeEqual(digest(one), secret));
}

/** An answer before there is any MM7 to answer in. The connection closes: what is left of the body is not read. */
function refuse(response: ServerResponse, code: number, words: string, headers: Record<string, string> = {}): void {
  response.writeHead(code, {
    'content-type': 'text/plain; charset=utf-8',
    'content-length': Buffer.byteLength(words),
    connection: 'close',
    ...headers,
  });
  response.end(words);
}

function answer(response: ServerResponse, code: number, peer: SoapMessage | null, body: XmlText): void {
  const soapNamespace = peer?.soapNamespace ?? SOAP_11;
  const xml = envelope({
    // What Mbuni, too, answers where there is none.
    transactionId: peer?.transactionId ?? '0000',
    namespace: peer?.namespace ?? MM7_NAMESPACE,
    soapNamespace,
    body,
  });
  const headers: Record<string, string | number> = {
    'content-type': soapType(soapNamespace),
    'content-length': Buffer.byteLength(xml),
  };
  if (code === 503) headers['retry-after'] = RETRY_AFTER_S;
  response.writeHead(code, headers);
  response.end(xml);
}

// ------------------------------------------------------------------------------------------------------------------- MM7

function voice(peer: SoapMessage | null): { namespace: string; version: string } {
  return { namespace: peer?.namespace ?? MM7_NAMESPACE, version: peer?.version ?? MM7_VERSION };
}

type Answer = 'DeliveryReportRsp' | 'ReadReplyRsp' | 'DeliverRsp';

function success(name: Answer, peer: SoapMessage): XmlText {
  return operation(name, voice(peer), status(1000, 'Success'));
}

function failure(side: 'Client' | 'Server', code: number, words: string, peer: SoapMessage | null): XmlText {
  const detail = operation('VASPErrorRsp', voice(peer), status(code, bounded(words)));
  return fault(side, bounded(words), detail, peer?.soapNamespace);
}
