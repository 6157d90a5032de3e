/**
 * The customer's door: one node:http server. The two POSTs that take bodies are plain functions ahead of the router (ADR 6);
 * all else goes through Fastify.
 *
 * Promises: every request that HTTP can parse gets exactly one answer, in the form that its path's family has; no input makes
 * a 500 (one is a bug, logged with its stack and answered E500); limits of time, size and number are those below; `close`
 * lets open requests finish.
 *
 * Fails: `createApi` rejects when the store's keys cannot be read; `listen` rejects with what the system says of the address
 * (EADDRINUSE).
 */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { parse as parseQuery } from 'node:querystring';
import type { Duplex } from 'node:stream';
import swagger from '@fastify/swagger';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import { createJsonSchemaTransform, createJsonSchemaTransformObject } from 'fastify-type-provider-zod';
import type { Ids } from '../domain/ids.ts';
import type { Routing } from '../domain/routing.ts';
import type { Env } from '../env.ts';
import { type Store, StoreUnavailable } from '../store/contract.ts';
import { createAuth } from './auth.ts';
import { createBulks } from './bulks.ts';
import { createContent } from './content.ts';
import { type Answer, apiError, errorFor, JSON_HEADERS, unauthorized, unavailable } from './errors.ts';
import { createFeed } from './feed.ts';
import { type Body, createExchange } from './http.ts';
import { createSend, type Intake } from './messages.ts';
import { createMetrics } from './metrics.ts';
import { operations, tidy } from './openapi.ts';
import { createReads } from './reads.ts';

// Against clients that are slow, many or broken. Node's parser is strict and stays so (a second Content-Length, both
// Content-Length and Transfer-Encoding, bad chunks: 400), since whoever stands in front may read them otherwise.
/** All headers must have come. */
const HEADERS_MS = 10_000;
/** The whole request must have come: 8 MiB in it is 1.1 Mbit/s. */
const REQUEST_MS = 60_000;
/** How often the two are looked at. */
const CHECK_MS = 2_000;
/** A connection without a request. Longer than the 5 s of common clients' pools would close it, shorter than most proxies'. */
const KEEP_ALIVE_MS = 30_000;
/** Of all headers of a request together. */
const HEADERS_BYTES = 16 * 1024;
const HEADERS_COUNT = 100;
/** Open at a time; further ones are closed at once. Each costs some 20 KB and a file descriptor. */
const CONNECTIONS = 10_000;
/** How long a close waits for open answers. */
const CLOSE_MS = 10_000;
/** How long a connection that was told 400 may take to read it. */
const LINGER_MS = 1_000;

/** Seconds after which a client should come back while the store takes no writes. */
const RETRY_AFTER_S = 5;
/** The store's answer to "can you write?" counts for this long, so that probes cost no more than one write a second. */
const READY_MS = 1_000;
const READY_TIMEOUT_MS = 2_000;

export interface ApiOptions {
  store: Store;
  env: Env;
  /** What the door must know of the configuration; main passes all of it. */
  config: {
    logsHours: number;
    maxMessages: number;
    maxDestinations: number;
    maxSegments: number;
    maxBodyBytes: number;
    maxUploadBytes: number;
    uploadValidityMinutes: number;
    publicUrl: string;
  };
  ids: Ids;
  routing: Routing;
  /** False = only the probes and metrics: this process has other work. */
  customers?: boolean;
  carrierCounters(): Promise<Record<string, unknown>>;
  /** What is wrong with a URL that we shall call (words of a violation), null = nothing. */
  checkCallout(url: string): string | null;
}

export interface Api {
  /** Resolves with the URL where it listens (port 0 = any free one). */
  listen(at: { host: string; port: number }): Promise<string>;
  /** No new connections; open answers finish, at most `CLOSE_MS`. */
  close(): Promise<void>;
}

const SEND = '/mms/2/messages';
const CONTENT = '/mms/1/content';
const BULKS = '/mms/2/bulks';
const BULK_STATUS = '/mms/2/bulks/status';
const STORY = '/mms/2/messages/';
/** Every path and the methods that it has, as the Allow header says them. */
const ALLOW = new Map([
  [SEND, 'POST'],
  [CONTENT, 'POST'],
  ['/mms/2/reports', 'GET'],
  [BULKS, 'GET, PUT'],
  [BULK_STATUS, 'GET, PUT'],
  ['/mms/2/logs', 'GET'],
  ['/mms/2/events', 'GET'],
  ['/livez', 'GET, HEAD'],
  ['/readyz', 'GET, HEAD'],
  ['/metrics', 'GET, HEAD'],
  ['/openapi.json', 'GET, HEAD'],
]);

/** What every process has, whatever its roles. */
const PROBES = new Set(['/livez', '/readyz', '/metrics']);

function allowOf(path: string): string | undefined {
  const allow = ALLOW.get(path);
  if (allow !== undefined) return allow;
  return path.length > STORY.length && path.startsWith(STORY) && !path.includes('/', STORY.length) ? 'GET' : undefined;
}

const NO_HOST = apiError('E400', {
  violations: [{ property: 'Host', violation: 'must be given in HTTP/1.1' }],
  headers: { connection: 'close' },
});
const EXPECTATION = apiError('E400', {
  violations: [{ property: 'Expect', violation: 'must be 100-continue or absent' }],
  headers: { connection: 'close' },
});
const BAD_URL = apiError('E400', { violations: [{ property: '', violation: 'URL is not valid.' }] });

/** Makes the server; it listens when told to. Rejects when the keys cannot be read from the store. */
export async function createApi(options: ApiOptions): Promise<Api> {
  const { store, env, config, ids, routing, checkCallout, customers = true } = options;
  const { clock, log } = env;
  const auth = await createAuth(store, env);
  const ready = createReady(store, env);
  const feed = createFeed({ store, env, ids });
  const reads = createReads({ store, env, ids, logsHours: config.logsHours });
  const metrics = createMetrics({
    store,
    env,
    carrierCounters: options.carrierCounters,
    connections: () =>
      new Promise((resolve, reject) => {
        server.getConnections((error, count) => (error ? reject(error) : resolve(count)));
      }),
    listeners: () => feed.listeners(),
    ready,
  });
  const exchange = createExchange(clock, (status) => metrics.answered(status));
  const settings = {
    limits: { messages: config.maxMessages, destinations: config.maxDestinations, segments: config.maxSegments },
    checkCallout,
  };
  const send = createSend({
    ...settings,
    maxBodyBytes: config.maxBodyBytes,
    store,
    env,
    ids,
    routing,
    auth,
    onAccept: (...counts) => metrics.accepted(...counts),
  });
  const content = createContent({
    maxUploadBytes: config.maxUploadBytes,
    validityMinutes: config.uploadValidityMinutes,
    store,
    env,
    auth,
  });
  const bulks = createBulks({ store, env, ids, auth });
  let closing = false;

  /** What a thrown error is to the client. */
  function failed(path: string, error: unknown): Answer {
    if (error instanceof StoreUnavailable) {
      log.warn({ path, reason: error.message }, 'store unavailable');
      return unavailable(path, RETRY_AFTER_S);
    }
    log.error({ err: error, path }, 'request failed: a bug');
    return errorFor(path, 'E500');
  }

  // --- POSTs with a body ---------------------------------------------------------------------------------------------

  function post<Head extends object>(
    path: string,
    intake: Intake<Head>,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const head = intake.head(request.headers);
    if ('status' in head) {
      exchange.refuse(request, response, head as Answer);
      return;
    }
    const declared = request.headers['content-length'];
    if (declared !== undefined && Number(declared) > intake.limit) {
      exchange.refuse(request, response, intake.tooLarge);
      return;
    }
    if (request.headers.expect !== undefined) response.writeContinue();
    exchange.read(request, intake.limit, (body: Body) => {
      switch (body.kind) {
        case 'gone':
          return;
        case 'tooLarge':
          exchange.refuse(request, response, intake.tooLarge);
          return;
        case 'busy':
          exchange.refuse(request, response, unavailable(path, 1));
          return;
        case 'whole':
          void answer(path, intake, head, body.bytes, response);
      }
    });
  }

  async function answer<Head>(
    path: string,
    intake: Intake<Head>,
    head: Head,
    bytes: Buffer,
    response: ServerResponse,
  ): Promise<void> {
    let given: Answer;
    try {
      given = await intake.body(head, bytes);
    } catch (error) {
      given = failed(path, error);
    }
    exchange.give(response, given);
    exchange.release(bytes.length);
  }

  // --- Everything else -----------------------------------------------------------------------------------------------

  const app = Fastify({
    logger: false,
    exposeHeadRoutes: false,
    // An own message id has up to 200 code points, each up to 12 characters in a URL.
    routerOptions: { maxParamLength: 4096 },
    frameworkErrors: (_error, _request, reply) => hijack(reply, BAD_URL),
  });
  // The schemas of routes are for the document; what validates is queries.ts, in the house's words.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.setNotFoundHandler((request, reply) => hijack(reply, errorFor(request.url, 'E404')));
  app.setErrorHandler((error, request, reply) => hijack(reply, failed(pathOf(request.url), error)));

  function hijack(reply: FastifyReply, given: Answer): void {
    reply.hijack();
    exchange.give(reply.raw, given);
  }

  const open = (make: () => Answer | Promise<Answer>) => async (request: FastifyRequest, reply: FastifyReply) => {
    let given: Answer;
    try {
      given = await make();
    } catch (error) {
      given = failed(pathOf(request.url), error);
    }
    hijack(reply, given);
  };
  const locked =
    (make: (account: number, request: FastifyRequest) => Promise<Answer>) =>
    async (request: FastifyRequest, reply: FastifyReply) => {
      const account = auth.account(request.headers.authorization);
      const given = account === null ? unauthorized(pathOf(request.url)) : null;
      await open(() => given ?? make(account as number, request))(request, reply);
    };

  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Postcard',
        version: '2',
        description: "Send MMS and follow what becomes of them. Field by field Infobip's MMS API v2.",
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: config.publicUrl === '' ? '/' : config.publicUrl }],
      components: {
        securitySchemes: {
          APIKeyHeader: {
            type: 'apiKey',
            name: 'Authorization',
            in: 'header',
            description: 'App, a space and the key.',
          },
        },
      },
    },
    transform: createJsonSchemaTransform({}),
    transformObject: createJsonSchemaTransformObject({}),
  });
  const described = operations(settings);
  let document = '';
  const text = (status: number, body: string, type = 'text/plain; charset=utf-8'): Answer => ({
    status,
    headers: { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' },
    body,
  });

  app.post(SEND, { schema: described.send }, (request, reply) => {
    reply.hijack();
    post(SEND, send, request.raw, reply.raw);
  });
  app.post(CONTENT, { schema: described.content }, (request, reply) => {
    reply.hijack();
    post(CONTENT, content, request.raw, reply.raw);
  });
  app.get(
    `${STORY}:messageId`,
    { schema: described.story },
    locked((account, request) => reads.story(account, (request.params as { messageId: string }).messageId)),
  );
  app.get(
    '/mms/2/reports',
    { schema: described.reports },
    locked((account, request) => reads.reports(account, request.query)),
  );
  app.get(
    '/mms/2/logs',
    { schema: described.logs },
    locked((account, request) => reads.logs(account, request.query)),
  );
  app.get(
    BULKS,
    { schema: described.bulks },
    locked((account, request) => bulks.get(account, request.query)),
  );
  app.get(
    BULK_STATUS,
    { schema: described.bulkStatus },
    locked((account, request) => bulks.getStatus(account, request.query)),
  );
  // For the document: `route` has answered before.
  app.put(BULKS, { schema: described.changeBulk }, (_request, reply) => hijack(reply, errorFor(BULKS, 'E500')));
  app.put(BULK_STATUS, { schema: described.changeBulkStatus }, (_request, reply) =>
    hijack(reply, errorFor(BULK_STATUS, 'E500')),
  );
  app.get('/mms/2/events', { schema: described.events }, (request, reply) => {
    const account = auth.account(request.headers.authorization);
    if (account === null) {
      hijack(reply, unauthorized('/mms/2/events'));
      return;
    }
    if (closing) {
      hijack(reply, unavailable('/mms/2/events', RETRY_AFTER_S));
      return;
    }
    const last = request.headers['last-event-id'];
    const taken = feed.listen(account, typeof last === 'string' ? last : undefined);
    if ('status' in taken) {
      hijack(reply, taken);
      return;
    }
    reply.hijack();
    metrics.answered(200);
    // A stream has no end to wait for: whoever stops speaking has left, and frees its place at once.
    request.raw.socket.once('end', () => reply.raw.destroy());
    taken.start(reply.raw);
  });
  const probes = {
    livez: open(() => text(200, 'ok\n')),
    readyz: open(async () => (!closing && (await ready()) ? text(200, 'ok\n') : text(503, 'not ready\n'))),
    metrics: open(async () => text(200, await metrics.page(), metrics.contentType)),
    openapi: open(() => ({ status: 200, headers: JSON_HEADERS, body: document })),
  };
  for (const name of ['livez', 'readyz', 'metrics', 'openapi'] as const) {
    const path = name === 'openapi' ? '/openapi.json' : `/${name}`;
    app.get(path, { schema: described[name], exposeHeadRoute: false }, probes[name]);
    app.head(path, { schema: { hide: true } as object }, probes[name]);
  }
  await app.ready();
  document = JSON.stringify(tidy(app.swagger() as unknown as Record<string, unknown>));

  // --- The server ----------------------------------------------------------------------------------------------------

  /** The response that a connection works on, for what its parser finds wrong behind it. */
  type Tagged = Duplex & { [CURRENT]?: ServerResponse };

  function serve(request: IncomingMessage, response: ServerResponse): void {
    (request.socket as Tagged)[CURRENT] = response;
    try {
      const url = request.url as string;
      if (customers && url === SEND && request.method === 'POST' && request.headers.host !== undefined) {
        post(SEND, send, request, response);
        return;
      }
      route(request, response);
    } catch (error) {
      exchange.refuse(request, response, failed(pathOf(request.url ?? ''), error));
    }
  }

  function route(request: IncomingMessage, response: ServerResponse): void {
    if (request.headers.host === undefined && request.httpVersion === '1.1') {
      exchange.refuse(request, response, NO_HOST);
      return;
    }
    // Proxies may send the absolute form (RFC 9112, 3.2.2).
    request.url = (request.url as string).replace(/^https?:\/\/[^/?#]*/i, '');
    const path = pathOf(request.url);
    const allow = customers || PROBES.has(path) ? allowOf(path) : undefined;
    if (allow === undefined) {
      exchange.refuse(request, response, errorFor(path, 'E404'));
      return;
    }
    if (!allow.split(', ').includes(request.method as string)) {
      exchange.refuse(request, response, errorFor(path, 'E405', { headers: { allow } }));
      return;
    }
    if (path === SEND) {
      post(SEND, send, request, response);
      return;
    }
    if (path === CONTENT) {
      post(CONTENT, content, request, response);
      return;
    }
    if (request.method === 'PUT') {
      const query = parseQuery(request.url.slice(path.length + 1));
      const intake = path === BULKS ? bulks.put(query) : bulks.putStatus(query);
      post(path, intake, request, response);
      return;
    }
    app.routing(request, response);
  }

  const server = createServer(
    {
      insecureHTTPParser: false,
      // Our own answer to a missing Host has a body.
      requireHostHeader: false,
      maxHeaderSize: HEADERS_BYTES,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      connectionsCheckingInterval: CHECK_MS,
      keepAliveTimeout: KEEP_ALIVE_MS,
      // Answers are one write: waiting to fill a packet would only delay them.
      noDelay: true,
    },
    serve,
  );
  server.maxHeadersCount = HEADERS_COUNT;
  // A client that has said all it will say (`nc -N`, some proxies) still waits for its answer; by default node hangs up on
  // it, though the message was taken. Not in the types.
  (server as typeof server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  server.maxConnections = CONNECTIONS;
  /** For `close`: node does not count a connection as idle before its first request. */
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  // As 'request'; "100 Continue" is said when the headers pass.
  server.on('checkContinue', serve);
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    exchange.refuse(request, response, EXPECTATION);
  });
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    hangUp(socket, errorFor('', 'E405', { headers: { allow: 'GET, HEAD, POST' } }));
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => {
    const current = (socket as Tagged)[CURRENT];
    if (!socket.writable || error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const given = apiError('E400', { violations: [{ property: '', violation: parserWords(error.code) }] });
    if (current === undefined || (current.writableFinished && current.req.complete)) {
      hangUp(socket, given);
      return;
    }
    // Its own request is broken and not answered yet: that is the answer. What is broken behind a sound request must not
    // look like the answer to that one, so the connection ends when it is answered.
    if (!current.headersSent && !current.req.complete) {
      exchange.give(current, { ...given, headers: { ...given.headers, connection: 'close' } });
      return;
    }
    if (current.writableFinished) socket.destroy();
    else current.once('finish', () => socket.destroy());
  });

  /** Answers a connection that has no response of its own. */
  function hangUp(socket: Duplex, given: Answer): void {
    metrics.answered(given.status);
    const lines = Object.entries(given.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    const length = Buffer.byteLength(given.body);
    const status = given.status === 400 ? '400 Bad Request' : '405 Method Not Allowed';
    socket.end(
      `HTTP/1.1 ${status}\r\n${lines.join('')}content-length: ${length}\r\nconnection: close\r\n\r\n${given.body}`,
    );
    const timer = clock.setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => timer.cancel());
  }

  return {
    listen: ({ host, port }) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host, port }, () => {
          server.off('error', reject);
          // Running out of file descriptors and the like: told, and survived.
          server.on('error', (error) => log.error({ err: error }, 'server'));
          const bound = (server.address() as AddressInfo).port;
          resolve(`http://${host.includes(':') ? `[${host}]` : host}:${bound}`);
        });
      }),
    async close() {
      closing = true;
      exchange.closing();
      feed.close();
      if (server.listening) {
        const limit = clock.setTimeout(() => server.closeAllConnections(), CLOSE_MS);
        const closed = new Promise((resolve) => server.close(resolve));
        for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
        await closed;
        limit.cancel();
      }
      auth.close();
      metrics.close();
      await app.close();
    },
  };
}

const CURRENT = Symbol('the response being worked on');

function pathOf(url: string): string {
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
}

/** What node's parser found, in words that quote nothing. */
function parserWords(code: string | undefined): string {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return `Request headers are larger than ${HEADERS_BYTES} bytes.`;
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return `Request did not arrive within ${REQUEST_MS / 1000} s (its headers within ${HEADERS_MS / 1000} s).`;
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return 'Request has chunk extensions that are too large.';
    default:
      return `Request is not valid HTTP/1.1${code === undefined ? '' : ` (${code})`}.`;
  }
}

/** Whether the store takes writes: asked by writing, at most once in `READY_MS`, shared by all who ask. */
function createReady(store: Store, env: Env): () => Promise<boolean> {
  let asked = Number.NEGATIVE_INFINITY;
  let latest: Promise<boolean> = Promise.resolve(false);
  async function ask(): Promise<boolean> {
    const answered = new AbortController();
    try {
      return await Promise.race([
        store.reserve(1).then(() => true),
        env.clock.sleep(READY_TIMEOUT_MS, answered.signal).then(() => false),
      ]);
    } catch (error) {
      env.log.warn({ err: error }, 'not ready');
      return false;
    } finally {
      answered.abort();
    }
  }
  return () => {
    const now = env.clock.monotonic();
    if (now - asked >= READY_MS) {
      asked = now;
      latest = ask();
    }
    return latest;
  };
}
