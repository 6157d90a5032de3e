/**
 * What MMSCs call: POST /mm7/{carrier}. Delivery reports are taken and answered; read replies are acknowledged and logged;
 * messages from handsets are refused in MM7's words until there is somewhere to put them.
 *
 * Promises: a report is answered with 1000 only after `onReport` has resolved, that is, after it is durable; when that
 * fails, the answer is a 503 with a SOAP fault, so that the peer repeats. Answers are in the peer's namespace, MM7 version and
 * SOAP version, with its TransactionID. Any prefix, namespace, order and wrapping is read; a status word that is not known
 * never ends a message. Bodies, headers, times and connections are bounded.
 *
 * A carrier with an `inboundSecret` must show it: as the password of HTTP Basic (any user name), as `X-Postcard-Secret`, or,
 * for peers that can do neither, as `?secret=` (which proxies may log). Without one, whoever reaches the port is believed:
 * keep it inside the carrier's network.
 *
 * Fails: rejects when the address cannot be listened on. A failing connection harms no other.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { CarrierReport, ReportKind } from '../../domain/submission.ts';
import type { Env } from '../../env.ts';
import { childOf, textOf, type XmlElement, type XmlText } from '../../xml.ts';
import { addressDigits, bounded, errorOf } from './answer.ts';
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

export interface ListenerOptions {
  host: string;
  /** 0 = any free one. */
  port: number;
  /** Who may call; `name` is part of the path. */
  carriers: { name: string; inboundSecret?: string }[];
  /** Resolves once the report is durable; rejects when it is not (the peer will repeat it). */
  onReport(report: CarrierReport): Promise<void>;
  env: Env;
}

export interface Listener {
  /** e.g. http://127.0.0.1:8082 */
  url: string;
  /** Takes no new calls, lets running ones end (at most `CLOSE_MS`), then closes. */
  close(): Promise<void>;
}

/** Reports are about 1 kB. */
const BODY_BYTES = 1024 * 1024;
const CONNECTIONS = 512;
const HEADERS_MS = 10_000;
const REQUEST_MS = 30_000;
const KEEP_ALIVE_MS = 75_000;
const CLOSE_MS = 5_000;
/** When to repeat what the store could not take. */
const RETRY_AFTER_S = 5;

/** Starts listening. */
export async function createMm7Listener(options: ListenerOptions): Promise<Listener> {
  const { env } = options;
  const secrets = new Map<string, Buffer | null>();
  for (const { name, inboundSecret } of options.carriers) {
    secrets.set(name, inboundSecret === undefined ? null : digest(inboundSecret));
  }

  let closing = false;

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = '', query = ''] = (request.url ?? '').split('?', 2);
    const carrier = path.startsWith('/mm7/') ? path.slice(5) : '';
    const secret = secrets.get(carrier);
    if (secret === undefined) return refuse(response, 404, 'no such carrier\n');
    if (request.method !== 'POST') return refuse(response, 405, 'POST only\n', { allow: 'POST' });
    if (secret !== null && !shows(request, query, secret)) {
      env.log.warn({ carrier, from: request.socket.remoteAddress }, 'call without the right secret');
      return refuse(response, 401, 'wrong secret\n', { 'www-authenticate': 'Basic realm="postcard"' });
    }
    const encoding = request.headers['content-encoding'];
    if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
      return refuse(response, 415, 'no Content-Encoding, please\n');
    }
    if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES) return refuse(response, 413, 'too long\n');
    const body = await readBody(request);
    if (body === null) return refuse(response, 413, 'too long\n');
    const soap = readSoap(request.headers['content-type'], body, { size: BODY_BYTES });
    if (!soap.ok) {
      env.log.warn({ carrier, reason: soap.fault }, 'call that is not MM7');
      return answer(response, 400, null, failure('Client', 4004, `Validation error: ${soap.fault}`, null));
    }
    const { status: code, body: result } = await serve(carrier, soap.message);
    if (closing) response.setHeader('connection', 'close');
    answer(response, code, soap.message, result);
  }

  /** The operation's own answer. */
  async function serve(carrier: string, message: SoapMessage): Promise<{ status: number; body: XmlText }> {
    switch (message.operation) {
      case 'DeliveryReportReq': {
        const read = readReport(carrier, message.body);
        if (typeof read === 'string') {
          env.log.warn({ carrier, reason: read }, 'report that cannot be used');
          return { status: 400, body: failure('Client', 4004, `Validation error: ${read}`, message) };
        }
        if (!read.known) env.log.warn({ carrier, words: read.report.words }, 'report with an unknown status');
        try {
          await options.onReport(read.report);
        } catch (error) {
          env.log.error({ carrier, err: error }, 'report could not be kept');
          return { status: 503, body: failure('Server', 4006, 'Service unavailable', message) };
        }
        return { status: 200, body: success('DeliveryReportRsp', message) };
      }
      case 'ReadReplyReq': {
        const { carrierMessageId, words } = readReplyOf(message.body);
        env.log.info({ carrier, carrierMessageId, words }, 'read reply');
        return { status: 200, body: success('ReadReplyRsp', message) };
      }
      default:
        env.log.warn({ carrier, operation: message.operation.slice(0, 60) }, 'operation not supported');
        return { status: 500, body: failure('Client', 4003, 'Unsupported operation', message) };
    }
  }

  const server = createServer(
    {
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: 16 * 1024,
    },
    (request, response) => {
      handle(request, response).catch((error: unknown) => {
        // The peer left in the middle; there is nobody to answer.
        if (request.destroyed || response.destroyed) return;
        env.log.error({ err: error }, 'call failed');
        if (response.headersSent) response.destroy();
        else refuse(response, 500, 'internal error\n');
      });
    },
  );
  server.maxConnections = CONNECTIONS;
  // A peer that closes its sending half behind a report still waits for the answer. Not in node's types.
  (server as typeof server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  server.on('clientError', (_, socket) => socket.destroy());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  const { address, family, port } = server.address() as AddressInfo;
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`,
    close: () =>
      new Promise((resolve) => {
        closing = true;
        const limit = env.clock.setTimeout(() => server.closeAllConnections(), CLOSE_MS);
        server.close(() => {
          limit.cancel();
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}

// ------------------------------------------------------------------------------------------------------------------ HTTP

/** Null = longer than the limit; the rest is then left unread. Rejects when the peer leaves. */
function readBody(request: IncomingMessage): Promise<Buffer | null> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.byteLength;
      if (size <= BODY_BYTES) chunks.push(chunk);
      else {
        request.pause();
        resolve(null);
      }
    });
    request.on('end', () => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size)));
    request.on('error', reject);
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
    const pair = Buffer.from(basic, 'base64').toString('utf8');
    shown.push(pair.slice(pair.indexOf(':') + 1));
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

function success(name: 'DeliveryReportRsp' | 'ReadReplyRsp', peer: SoapMessage): XmlText {
  return operation(name, voice(peer), status(1000, 'Success'));
}

function failure(side: 'Client' | 'Server', code: number, words: string, peer: SoapMessage | null): XmlText {
  const detail = operation('VASPErrorRsp', voice(peer), status(code, bounded(words)));
  return fault(side, bounded(words), detail, peer?.soapNamespace);
}

/** MMStatus by its letters in lower case, as the releases and the field spell it. */
const KINDS: ReadonlyMap<string, ReportKind> = new Map<string, ReportKind>(
  Object.entries({
    retrieved: 'retrieved',
    delivered: 'retrieved',
    deferred: 'deferred',
    forwarded: 'forwarded',
    processing: 'forwarded',
    rejected: 'rejected',
    expired: 'expired',
    indeterminate: 'indeterminate',
    // Ended without delivery, for reasons that no kind of ours has a word for.
    deliveryconditionnotmet: 'indeterminate',
    cancelled: 'indeterminate',
    canceled: 'indeterminate',
    replaced: 'indeterminate',
    unrecognised: 'unrecognised',
    unrecognized: 'unrecognised',
    unreachable: 'unreachable',
    notsupported: 'unsupported',
    unsupported: 'unsupported',
  } as const),
);
/** Kinds that a status code beside them may explain. */
const EXPLAINED: ReadonlySet<ReportKind> = new Set(['rejected', 'indeterminate', 'unrecognised', 'unreachable']);
/** 15008 EC_PROVIDER_DELIVERY_ERROR: another relay refused, not the recipient. */
const OTHER_RELAY = 15008;

/** A string is what is wrong with it. `known` false: the status word means nothing to us; it moves a message no further. */
function readReport(carrier: string, body: XmlElement): { report: CarrierReport; known: boolean } | string {
  const carrierMessageId = textOf(body, 'MessageID');
  if (!carrierMessageId) return 'MessageID missing';
  const word = textOf(body, 'MMStatus');
  if (!word) return 'MMStatus missing';
  const found = KINDS.get(word.toLowerCase().replace(/[^a-z]/g, ''));
  const kind = found ?? 'forwarded';
  const extension = textOf(body, 'MMStatusExtension');
  const statusElement = childOf(body, 'Status') ?? body;
  const code = textOf(statusElement, 'StatusCode');
  const report: CarrierReport = {
    carrier,
    carrierMessageId: carrierMessageId.slice(0, ID_LENGTH),
    addresses: addressesOf(body),
    kind,
    words: bounded([word, extension, code, textOf(statusElement, 'StatusText')].filter(Boolean).join(' ')),
  };
  if (EXPLAINED.has(kind)) {
    if (code !== undefined && /^[2-4]\d{3}$/.test(code)) report.error = errorOf(Number(code));
    else if (extension === 'RejectionByOtherRS') report.error = OTHER_RELAY;
  }
  const at = Date.parse(textOf(body, 'Date') ?? '');
  if (!Number.isNaN(at)) report.at = at;
  return { report, known: found !== undefined };
}

function readReplyOf(body: XmlElement): { carrierMessageId: string; words: string } {
  return { carrierMessageId: textOf(body, 'MessageID') ?? '', words: bounded(textOf(body, 'MMStatus') ?? '') };
}

/** Ids are some dozens of characters. */
const ID_LENGTH = 500;
/** Addresses named in one report at most. */
const ADDRESSES = 500;

/** All addresses of either side, wrapped in To or not, one or several. Peers swap the sides. */
function addressesOf(body: XmlElement): string[] {
  const found = new Set<string>();
  const visit = (element: XmlElement): void => {
    const digits = addressDigits(element.text);
    if (digits !== '' && found.size < ADDRESSES) found.add(digits.slice(0, 100));
    for (const child of element.children) visit(child);
  };
  for (const child of body.children) {
    if (child.name === 'Recipient' || child.name === 'Recipients' || child.name === 'Sender') visit(child);
  }
  return [...found];
}
