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
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { parse as parseQuery } from 'node:querystring';
import type { Duplex } from 'node:stream';
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify';
import type { Ids } from '../domain/ids.ts';
import { createPartTokens, createPartUrls, PART_PATH } from '../domain/inbound.ts';
import { createShortener, LINK_PATH } from '../domain/links.ts';
import { createNetworks } from '../domain/networks.ts';
import type { Routing } from '../domain/routing.ts';
import type { Env } from '../env.ts';
import { type Store, StoreUnavailable } from '../store/contract.ts';
import { ADMIN, createAdmin } from './admin.ts';
import { type Caller, createAuth } from './auth.ts';
import { createBulks } from './bulks.ts';
import { CLICKS, createClicks } from './clicks.ts';
import { createContent } from './content.ts';
import { describeRoutes, NO_SCHEMAS } from './document.ts';
import { type Answer, apiError, errorFor, JSON_HEADERS, unavailable } from './errors.ts';
import { createFeed } from './feed.ts';
import { createGate } from './gate.ts';
import { type Body, createExchange, NO_ANSWER, parserWords, unclearHead } from './http.ts';
import { createInbox, INBOX, OPT_OUTS } from './inbox.ts';
import type { Asker } from './intake.ts';
import { createLimits } from './limits.ts';
import { createLinks, type Geo } from './links.ts';
import { createSend, type Intake } from './messages.ts';
import { createMetrics, createMetricsLock } from './metrics.ts';
import { operations } from './openapi.ts';
import { operatorOperations } from './openapi-admin.ts';
import type { PasswordWork } from './passwords.ts';
import { allowOf, BULK_STATUS, BULKS, CONTENT, PROBES, pathOf, replayedId, SEND, STORY } from './paths.ts';
import { createReads } from './reads.ts';
import { createReady } from './ready.ts';
import { createSessions } from './sessions.ts';
import { ADVANCED, createV1, OLDER_LOGS, OLDER_REPORTS } from './v1.ts';
import { createWebhookDesk, DELIVERIES, ENDPOINTS, REARM, REPLAY } from './webhooks.ts';

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

const DAY_MS = 86_400_000;
/** Seconds after which a client should come back while the store takes no writes. */
const RETRY_AFTER_S = 5;

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
    linkDays: number;
    networks: Readonly<Record<string, string>>;
    adminKey: string | null;
    adminAllow: readonly string[];
    metricsAllow: readonly string[];
    metricsToken: string | null;
    trustedProxies: readonly string[];
    maxWaiting: number;
  };
  /** Our certificate and its key (PEM): https only. Absent = plain HTTP. */
  tls?: { cert: string; key: string };
  ids: Ids;
  routing: Routing;
  /** Less only in tests. */
  passwordWork?: PasswordWork;
  /** False = only the probes and metrics: this process has other work. */
  customers?: boolean;
  carrierCounters(): Promise<Record<string, unknown>>;
  /** What is wrong with a URL that we shall call (words of a violation), null = nothing. */
  checkCallout(url: string): string | null;
  /** Where clicks come from, by the operator's database; absent = there is none. */
  geo?: Geo;
}

export interface Api {
  /** Resolves with the URL where it listens (port 0 = any free one). */
  listen(at: { host: string; port: number }): Promise<string>;
  /** New connections get this certificate; nothing where there was none at the start. Throws where it is none. */
  renew(tls: { cert: string; key: string }): void;
  /** No new connections; open answers finish, at most `CLOSE_MS`. */
  close(): Promise<void>;
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
  // Before anything that would have to be undone.
  const { idKey } = await store.identity();
  const auth = await createAuth(store, env, options.passwordWork);
  const allowances = createLimits({ store, clock });
  const { trustedProxies, maxWaiting, adminKey, adminAllow } = config;
  const gate = createGate({ auth, limits: allowances, store, clock, trustedProxies, maxWaiting });
  const { addressOf, sureAddressOf } = gate;
  const admin = createAdmin({
    store,
    env,
    auth,
    adminKey,
    adminAllow,
    sureAddressOf,
    checkCallout,
    channels: () => routing.channels,
  });
  const tokenIntake = createSessions(auth, addressOf);
  const { ready, accepting } = createReady(store, env);
  const networks = createNetworks(config.networks);
  const feed = createFeed({ store, env, ids, networks });
  const reads = createReads({ store, env, ids, logsHours: config.logsHours, routing: options.routing, networks });
  const metrics = createMetrics({
    store,
    env,
    carrierCounters: options.carrierCounters,
    served: () => routing.names,
    links: () => ({ ...links.counters() }),
    connections: () =>
      new Promise((resolve, reject) => {
        server.getConnections((error, count) => (error ? reject(error) : resolve(count)));
      }),
    listeners: () => feed.listeners(),
    door: () => gate.figures(),
    ready,
  });
  const metricsLock = createMetricsLock({ allow: config.metricsAllow, token: config.metricsToken, sureAddressOf });
  const exchange = createExchange(clock, (status) => metrics.answered(status), undefined, options.tls !== undefined);
  const settings = {
    limits: { messages: config.maxMessages, destinations: config.maxDestinations, segments: config.maxSegments },
    checkCallout,
  };
  const send = createSend({
    ...settings,
    maxBodyBytes: config.maxBodyBytes,
    store: accepting,
    env,
    ids,
    routing,
    policy: auth.policy,
    judge: allowances.judge,
    domain: auth.domain,
    linkKeepMs: config.linkDays * DAY_MS,
    shortener: createShortener(config.publicUrl, idKey),
    onAccept: (...counts) => metrics.accepted(...counts),
  });
  const content = createContent({
    maxUploadBytes: config.maxUploadBytes,
    validityMinutes: config.uploadValidityMinutes,
    store,
    env,
  });
  const v1 = createV1({ send, reads, store, maxUploadBytes: config.maxUploadBytes });
  const bulks = createBulks({ store, env, ids });
  const webhooks = createWebhookDesk({ store, env, ids, checkCallout });
  const tokens = createPartTokens(idKey);
  const inbox = createInbox({ store, env, ids, tokens, urls: createPartUrls(config.publicUrl, idKey) });
  const links = createLinks({
    store,
    env,
    ids,
    idKey,
    exchange,
    addressOf,
    ...(options.geo ? { geo: options.geo } : {}),
  });
  const clicks = createClicks({ store, ids });
  let closing = false;

  /** What a thrown error is to the client. */
  function failed(path: string, error: unknown): Answer {
    if (error instanceof StoreUnavailable) {
      log.warn({ path, reason: error.message }, 'store unavailable');
      // A 503 would say that nothing was done.
      if (error.unknown) return NO_ANSWER;
      return unavailable(path, RETRY_AFTER_S);
    }
    log.error({ err: error, path }, 'request failed: a bug');
    return errorFor(path, 'E500');
  }

  // --- POSTs with a body ---------------------------------------------------------------------------------------------

  /** Through the gate first: what is refused there is refused before its body is read. */
  function post<Head extends object>(
    path: string,
    intake: Intake<Head>,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const next = (caller: Caller | Answer): void => {
      const head = 'status' in caller ? caller : intake.head(request.headers, caller.account);
      if ('status' in head) {
        exchange.refuse(request, response, head as Answer);
        return;
      }
      take(path, intake, request, response, async (bytes) => {
        const place = gate.enter(path, (caller as Caller).account);
        if (place !== null && 'status' in place) return place;
        let given: Answer | undefined;
        try {
          given = await intake.body(head as Head, bytes);
          return given;
        } finally {
          place?.leave(given);
        }
      });
    };
    const passed = gate.pass(request, path);
    if (passed instanceof Promise) {
      passed.then(next).catch((error) => exchange.refuse(request, response, failed(path, error)));
    } else next(passed);
  }

  /** A body of at most `limit` bytes, and what `work` answers to it. */
  function take(
    path: string,
    { limit, tooLarge = errorFor(path, 'E413') }: { limit: number; tooLarge?: Answer },
    request: IncomingMessage,
    response: ServerResponse,
    work: (bytes: Buffer) => Promise<Answer>,
  ): void {
    const declared = request.headers['content-length'];
    if (declared !== undefined && Number(declared) > limit) {
      exchange.refuse(request, response, tooLarge);
      return;
    }
    if (request.headers.expect !== undefined) response.writeContinue();
    exchange.read(request, limit, (body: Body) => {
      switch (body.kind) {
        case 'gone':
          return;
        case 'tooLarge':
          exchange.refuse(request, response, tooLarge);
          return;
        case 'busy':
          exchange.refuse(request, response, unavailable(path, 1));
          return;
        case 'whole':
          void work(body.bytes)
            .catch((error: unknown) => failed(path, error))
            .then((given) => {
              if (given.status === 429) exchange.refuse(request, response, given);
              else exchange.give(response, given);
              exchange.release(body.bytes.length);
            });
      }
    });
  }

  // --- Everything else -----------------------------------------------------------------------------------------------

  const app = Fastify({
    logger: false,
    exposeHeadRoutes: false,
    // What validates is queries.ts, in the house's words: Fastify's compilers of schemas are not even loaded.
    schemaController: NO_SCHEMAS,
    // An own message id has up to 200 code points, each up to 12 characters in a URL.
    routerOptions: { maxParamLength: 4096 },
    frameworkErrors: (_error, _request, reply) => hijack(reply, BAD_URL),
  });
  // No route behind the router reads a body: whatever a client sends with a DELETE is thrown away, and never an error.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, body, done) => {
    body.resume();
    done(null);
  });
  app.setNotFoundHandler((request, reply) => hijack(reply, errorFor(request.url, 'E404')));
  app.setErrorHandler((error, request, reply) => hijack(reply, failed(pathOf(request.url), error)));

  function hijack(reply: FastifyReply, given: Answer): void {
    reply.hijack();
    exchange.give(reply.raw, given);
  }

  type Making = (request: FastifyRequest) => Answer | Promise<Answer>;
  const open = (make: Making) => async (request: FastifyRequest, reply: FastifyReply) => {
    let given: Answer;
    try {
      given = await make(request);
    } catch (error) {
      given = failed(pathOf(request.url), error);
    }
    hijack(reply, given);
  };
  /** Who asks; null = was refused, which is told at the pace of all refusals (ADR 16). */
  async function passed(request: FastifyRequest, reply: FastifyReply): Promise<Caller | null> {
    const path = pathOf(request.url);
    const caller = await Promise.resolve(gate.pass(request.raw, path)).catch((error: unknown) => failed(path, error));
    if (!('status' in caller)) return caller;
    refuse(reply, caller);
    return null;
  }
  function refuse(reply: FastifyReply, given: Answer): void {
    reply.hijack();
    exchange.refuse(reply.request.raw, reply.raw, given);
  }
  const locked =
    (make: (account: number, request: FastifyRequest) => Promise<Answer>) =>
    async (request: FastifyRequest, reply: FastifyReply) => {
      const caller = await passed(request, reply);
      if (caller !== null) await open(() => make(caller.account, request))(request, reply);
    };

  const documented = describeRoutes(app, config.publicUrl, env.clock);
  const described = operations(settings);
  const text = (status: number, body: string, type = 'text/plain; charset=utf-8'): Answer => ({
    status,
    headers: { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' },
    body,
  });

  /** A route of the caller's own things, without a body. */
  const own = (
    method: 'get' | 'delete',
    path: string,
    schema: object,
    make: (account: number, request: FastifyRequest) => Promise<Answer>,
  ): void => void app[method](path, { schema }, locked(make));

  app.post(SEND, { schema: described.send }, (request, reply) => {
    reply.hijack();
    post(SEND, send, request.raw, reply.raw);
  });
  app.post(CONTENT, { schema: described.content }, (request, reply) => {
    reply.hijack();
    post(CONTENT, content, request.raw, reply.raw);
  });
  own('get', `${STORY}:messageId`, described.story, (account, request) =>
    reads.story(account, (request.params as { messageId: string }).messageId),
  );
  own('get', '/mms/2/reports', described.reports, (account, request) => reads.reports(account, request.query));
  own('get', '/mms/2/logs', described.logs, (account, request) => reads.logs(account, request.query));
  own('get', BULKS, described.bulks, (account, request) => bulks.get(account, request.query));
  own('get', BULK_STATUS, described.bulkStatus, (account, request) => bulks.getStatus(account, request.query));
  // For the document: `route` has answered before.
  app.put(BULKS, { schema: described.changeBulk }, (_request, reply) => hijack(reply, errorFor(BULKS, 'E500')));
  app.put(BULK_STATUS, { schema: described.changeBulkStatus }, (_request, reply) =>
    hijack(reply, errorFor(BULK_STATUS, 'E500')),
  );
  own('get', INBOX, described.inbox, (account, request) => inbox.reports(account, request.query));
  app.get(`${PART_PATH}:token`, { schema: described.part, exposeHeadRoute: true }, async (request, reply) => {
    reply.hijack();
    try {
      exchange.give(reply.raw, await inbox.part((request.params as { token: string }).token));
    } catch (error) {
      exchange.give(reply.raw, failed(PART_PATH, error));
    }
  });
  own('get', OPT_OUTS, described.optOuts, (account, request) => inbox.optOuts(account, request.query));
  own('delete', OPT_OUTS, described.deleteOptOut, (account, request) => inbox.deleteOptOut(account, request.query));
  own('get', DELIVERIES, described.deliveries, (account, request) => webhooks.deliveries(account, request.query));
  own('get', ENDPOINTS, described.endpoints, (account) => webhooks.endpoints(account));
  own('delete', ENDPOINTS, described.deleteEndpoint, (account, request) =>
    webhooks.deleteEndpoint(account, request.query),
  );
  // For the document, as above.
  const taken = (path: string) => (_request: FastifyRequest, reply: FastifyReply) =>
    hijack(reply, errorFor(path, 'E500'));
  app.post(OPT_OUTS, { schema: described.addOptOuts }, taken(OPT_OUTS));
  app.post(`${DELIVERIES}/:id/replay`, { schema: described.replayOne }, taken(DELIVERIES));
  app.post(REPLAY, { schema: described.replay }, taken(REPLAY));
  app.post(REARM, { schema: described.rearm }, taken(REARM));
  app.put(ENDPOINTS, { schema: described.putEndpoint }, taken(ENDPOINTS));
  for (const { method, url, schema } of operatorOperations()) app.route({ method, url, schema, handler: taken(url) });
  app.post(ADVANCED, { schema: described.advanced }, (_request, reply) => hijack(reply, errorFor(ADVANCED, 'E500')));
  const asked = [
    [OLDER_REPORTS, described.olderReports, v1.reports],
    [OLDER_LOGS, described.olderLogs, v1.logs],
    [CLICKS, described.clicks, clicks],
  ] as const;
  for (const [path, schema, ask] of asked) {
    app.get(
      path,
      { schema },
      locked((account, request) => ask(account, request.query)),
    );
  }
  app.get('/mms/2/events', { schema: described.events }, async (request, reply) => {
    const caller = await passed(request, reply);
    if (caller === null) return;
    if (closing) {
      hijack(reply, unavailable('/mms/2/events', RETRY_AFTER_S));
      return;
    }
    const last = request.headers['last-event-id'];
    const taken = feed.listen(caller.account, typeof last === 'string' ? last : undefined, request.query);
    if ('status' in taken) {
      refuse(reply, taken);
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
    metrics: open(async ({ raw }) => metricsLock(raw) ?? text(200, await metrics.page(), metrics.contentType)),
    openapi: open(async () => ({ status: 200, headers: JSON_HEADERS, body: await documented() })),
  };
  for (const name of ['livez', 'readyz', 'metrics', 'openapi'] as const) {
    const path = name === 'openapi' ? '/openapi.json' : `/${name}`;
    app.get(path, { schema: described[name], exposeHeadRoute: false }, probes[name]);
    app.head(path, { schema: { hide: true } as object }, probes[name]);
  }
  await app.ready();

  // --- The server ----------------------------------------------------------------------------------------------------

  /** The response that a connection works on, for what its parser finds wrong behind it. */
  type Tagged = Duplex & { [CURRENT]?: ServerResponse };

  function serve(request: IncomingMessage, response: ServerResponse): void {
    (request.socket as Tagged)[CURRENT] = response;
    try {
      const unclear = unclearHead(request.rawHeaders, request.httpVersion);
      if (unclear !== null) {
        // Where its body ends is what is unclear: none of it is waited for.
        exchange.give(response, unclear);
        return;
      }
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
    if (customers && path.startsWith(LINK_PATH)) {
      links.serve(path, request, response);
      return;
    }
    if (customers && path.startsWith(ADMIN)) {
      administer(request, response, path);
      return;
    }
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
    if (path === ADVANCED) {
      post(ADVANCED, v1.send, request, response);
      return;
    }
    const token = tokenIntake(request.method as string, path);
    if (token !== null) {
      take(path, token, request, response, (bytes) => token.body(request, bytes));
      return;
    }
    const own = ownIntake(request.method as string, path);
    if (own !== null) {
      post(path, own, request, response);
      return;
    }
    if (request.method === 'PUT') {
      const query = parseQuery(request.url.slice(path.length + 1));
      const intake = path === BULKS ? bulks.put(query) : bulks.putStatus(query);
      post(path, intake, request, response);
      return;
    }
    // Nobody there asks for it, and Fastify refuses one that is none.
    delete request.headers['content-type'];
    app.routing(request, response);
  }

  function administer(request: IncomingMessage, response: ServerResponse, path: string): void {
    const refused = admin.refuse(request, path);
    if (refused !== null) {
      exchange.refuse(request, response, refused);
      return;
    }
    const query = new URLSearchParams((request.url as string).slice(path.length + 1));
    take(path, admin, request, response, (bytes) => admin.answer(request, path, query, bytes));
  }

  /** Small bodies of our own endpoints; null = it is none of these. */
  function ownIntake(method: string, path: string): Intake<Asker> | null {
    if (method === 'PUT') return path === ENDPOINTS ? webhooks.putEndpoint : null;
    if (method !== 'POST') return null;
    const id = replayedId(path);
    if (id !== null) return webhooks.replayOne(id);
    if (path === REPLAY) return webhooks.replay;
    if (path === REARM) return webhooks.rearm;
    return path === OPT_OUTS ? inbox.addOptOuts : null;
  }

  const limits = {
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
  };
  const secured = options.tls
    ? createTlsServer({ ...limits, ...options.tls, minVersion: 'TLSv1.2', handshakeTimeout: HEADERS_MS }, serve)
    : null;
  const server = secured ?? createServer(limits, serve);
  server.maxHeadersCount = HEADERS_COUNT;
  // A client that has said all it will say (`nc -N`, some proxies) still waits for its answer; by default node hangs up on
  // it, though the message was taken. Not in the types.
  (server as typeof server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
  server.maxConnections = CONNECTIONS;
  /** For `close`: node does not count a connection as idle before its first request. */
  const sockets = new Set<Socket>();
  const track = (socket: Socket): void => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  };
  server.on('connection', track);
  // Its greetings count as bytes read: one without a request is told by that.
  server.on('secureConnection', track);
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
    const given = apiError('E400', {
      violations: [
        {
          property: '',
          violation: parserWords(error.code, { bytes: HEADERS_BYTES, headersMs: HEADERS_MS, requestMs: REQUEST_MS }),
        },
      ],
    });
    const ending = { ...given, headers: { ...given.headers, connection: 'close' } };
    if (current === undefined || (current.writableFinished && current.req.complete)) {
      if (error.code !== 'ERR_HTTP_REQUEST_TIMEOUT') {
        hangUp(socket, given);
        return;
      }
      // Slow ones are found by the thousand at once, and must not hold up anybody else. One whose request comes meanwhile is served;
      // one of which only the head has come is ended: node looks at the time of a request once, nothing else would end it.
      exchange.inTurn(() => {
        const next = (socket as Tagged)[CURRENT];
        if (next !== undefined && next !== current) {
          if (!next.req.complete) exchange.give(next, ending);
        } else if (socket.writable) hangUp(socket, given);
      });
      return;
    }
    // Its own request is broken and not answered yet: that is the answer. What is broken behind a sound request must not
    // look like the answer to that one, so the connection ends when it is answered.
    if (!current.headersSent && !current.req.complete) {
      exchange.give(current, ending);
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
    renew: (tls) => secured?.setSecureContext({ ...tls, minVersion: 'TLSv1.2' }),
    listen: ({ host, port }) =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host, port }, () => {
          server.off('error', reject);
          // Running out of file descriptors and the like: told, and survived.
          server.on('error', (error) => log.error({ err: error }, 'server'));
          const bound = (server.address() as AddressInfo).port;
          resolve(`http${secured ? 's' : ''}://${host.includes(':') ? `[${host}]` : host}:${bound}`);
        });
      }),
    async close() {
      closing = true;
      exchange.closing();
      feed.close();
      if (server.listening) {
        const limit = clock.setTimeout(() => server.closeAllConnections(), CLOSE_MS);
        const closed = new Promise((resolve) => server.close(resolve));
        for (const socket of sockets) {
          const greeted = 'encrypted' in socket && (socket as Tagged)[CURRENT] === undefined;
          if (greeted || socket.bytesRead === 0) socket.destroy();
        }
        await closed;
        limit.cancel();
      }
      await links.close();
      auth.close();
      metrics.close();
      await app.close();
    },
  };
}

const CURRENT = Symbol('the response being worked on');
