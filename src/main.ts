/**
 * The only wiring: opens the store, starts the chosen roles on their threads, stops them in order. Main thread: the customer's
 * door (or only the probes, without the role `api`). Worker `carriers`: dispatch, media and the listener that carriers call
 * (role `dispatch`), webhooks (role `webhooks`). Worker `sandbox`: the carrier in a box, which meets the others over sockets
 * only. The embedded store has two threads of its own; on PostgreSQL every thread has connections of its own.
 *
 * Fails: `startServer` rejects with StartError, one line for each thing that is wrong, after undoing what it had started. A
 * thread that dies later ends the process: its supervisor starts it again, and G1-G12 hold over a crash.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { isatty } from 'node:tty';
import { isMainThread, type MessagePort, parentPort, Worker, workerData } from 'node:worker_threads';
import { followGeo } from './api/geo.ts';
import { createApi } from './api/server.ts';
import { inboundOf, isMm7, SANDBOX } from './carrier-settings.ts';
import { createMm7Listener } from './carriers/mm7/listener.ts';
import { startSandbox } from './carriers/sandbox/sandbox.ts';
import { type Config, isLoopback, isSqlite, type Role, type Sources, withoutPassword } from './config.ts';
import { createDispatch } from './dispatch/dispatch.ts';
import { createIds, type Ids } from './domain/ids.ts';
import { createPartUrls } from './domain/inbound.ts';
import { createShortener } from './domain/links.ts';
import { createNetworks } from './domain/networks.ts';
import { createRouteSwitch, type Router } from './domain/routing.ts';
import type { CarrierInbound, CarrierReport } from './domain/submission.ts';
import { type Env, realEnv } from './env.ts';
import {
  bindsOf,
  type CarrierNeeds,
  carrierLanes,
  closeCarrier,
  type MadeCarrier,
  routerFor,
  type SandboxPlace,
  servedLanes,
} from './lanes.ts';

export { probeSmscs } from './lanes.ts';

import { createFitter } from './media/fit.ts';
import { createFitting } from './media/fitting.ts';
import { createMedia } from './media/media.ts';
import { checkCallout, createOutbound } from './net/outbound.ts';
import { createReloader, fileState } from './reload.ts';
import { type Blobs, openS3, probeBlobs, readS3, withBlobs } from './store/blobs.ts';
import type { Store } from './store/contract.ts';
import { inspectPostgres, type ServerFacts } from './store/postgres/inspect.ts';
import { openPostgres } from './store/postgres/postgres.ts';
import { createSealer, type Reseal, startReseal, withSealed } from './store/seal.ts';
import {
  type BackupResult,
  backupSqlite,
  type DataFiles,
  type RestoreResult,
  restoreSqlite,
} from './store/sqlite/backup.ts';
import { connectSqlite, openSqlite, type SqlitePorts, sqliteFiles } from './store/sqlite/sqlite.ts';
import { createInboundIntake } from './webhooks/inbound.ts';
import { createWebhooks } from './webhooks/webhooks.ts';

/** The server could not start; each line names one thing that is wrong and what would be right. */
export class StartError extends Error {
  override readonly name = 'StartError';
  readonly lines: string[];
  constructor(lines: string[]) {
    super(lines.join('\n'));
    this.lines = lines;
  }
}

export type { ServerFacts } from './store/postgres/inspect.ts';

/** A started server. */
export interface Running {
  /** Where customers call, e.g. http://127.0.0.1:8080; without the role `api` only the probes are there. */
  url: string;
  /** Null where this process has no sandbox. */
  sandboxUrl: string | null;
  /** Where carriers call, MM7 under /mm7/{carrier}; null without the role `dispatch`. */
  carrierUrl: string | null;
  /** The first account's key in clear, only when it was made by this start. */
  firstKey: string | null;
  /** Takes a changed configuration over, as far as that goes without a restart; the log says what came of it. Never rejects. */
  reload(): Promise<void>;
  stop(): Promise<void>;
}

/** The first account. */
const ACCOUNT = 1;
/** How long a stop waits for what is in flight; with the rest of the stop it stays under 35 s (G14). */
const STOP_MS = 30_000;
const DAY_MS = 86_400_000;
/** The default of POSTCARD_SANDBOX_SMPP_PORT. Up here: threads run from within this file's body. */
const USUAL_SMPP_PORT = 2775;

/**
 * Starts everything that the configuration asks for and resolves when it is ready to take messages. With `sources`, where the
 * configuration came from, it is watched and taken over again when it changes.
 */
export async function startServer(config: Config, options: { env: Env; sources?: Sources }): Promise<Running> {
  const { env } = options;
  const has = (role: Role): boolean => config.roles.includes(role);
  const node = config.node ?? `${hostname()}-${process.pid}`;
  checkDataDir(config.dataDir);
  const undo: (() => Promise<unknown>)[] = [];
  const crash = (message: string): void => {
    env.log.error({ reason: message }, 'a part died; ending');
    process.exit(70);
  };
  try {
    const host = await openStore(config, node, env, crash);
    undo.push(() => host.close());
    const store = await connectStore(host.link(), config, env);
    undo.push(() => store.close());

    const works = has('dispatch') || has('webhooks');
    const carriers = works ? await startThread('carriers', config, host.link(), crash) : null;
    const stopCarriers = async (): Promise<void> => carriers?.stop();
    undo.push(stopCarriers);
    const carrierUrl = has('dispatch') ? (carriers?.ready.url ?? null) : null;
    let sandbox: SandboxPlace | null = config.sandbox ? sandboxElsewhere(config) : null;
    let sandboxUrl: string | null = null;
    if (config.sandbox && has('sandbox')) {
      const reportUrl = `${carrierUrl ?? config.carrierUrl}/mm7/${SANDBOX}`;
      const thread = await startThread('sandbox', config, null, crash, reportUrl);
      // The peer outlives its callers: what is in flight at a stop still gets its answer.
      undo.splice(undo.indexOf(stopCarriers), 0, () => thread.stop());
      sandboxUrl = thread.ready.url;
      sandbox = { url: sandboxUrl, smppHost: new URL(sandboxUrl).hostname, smppPort: thread.ready.smppPort };
    }
    await carriers?.go(sandbox);
    const routes = createRouteSwitch(await routesOf(config, store));
    // Before the door opens: nobody with the right key may be refused.
    if (has('api')) await putConfiguredKey(store, config);
    const api = await createApi({
      store,
      env,
      config,
      customers: has('api'),
      ...given('tls', apiTls(config)),
      ids: createIds((await store.identity()).idKey),
      routing: routes.routing,
      carrierCounters: async () => (await carriers?.counters()) ?? {},
      checkCallout: checkCallout(config.outboundAllow),
      ...(config.geoDatabase === null ? {} : { geo: readGeo(config.geoDatabase, env) }),
    });
    undo.push(() => api.close());
    const url = await listen(api, config);
    // Last: a key is shown once, so it is made only by a start that succeeds.
    const firstKey = has('api') ? await ensureFirstKey(store, config, env) : null;
    if (has('api')) undo.push(startReseal(store, accountsOf(store), env.log));
    const where = withoutPassword(config.store);
    env.log.info(
      { url, carrierUrl, sandboxUrl: sandboxUrl ?? undefined, roles: config.roles, node, store: where },
      'ready',
    );
    if (!isLoopback(config.host) && config.tlsCert === null) {
      env.log.warn(
        { host: config.host },
        'others reach us without TLS, keys travel in clear: give POSTCARD_TLS_CERT, or put a proxy with TLS in front',
      );
    }
    let reload: Running['reload'] = async () => undefined;
    if (options.sources) {
      const reloader = createReloader({
        env,
        config,
        sources: options.sources,
        stateOf: fileState,
        async apply(next) {
          const renewed = apiTls(next);
          if (renewed !== null) api.renew(renewed);
          routes.turn(await routesOf(next, store));
          await carriers?.reconfigure(next);
        },
      });
      undo.push(() => reloader.stop());
      reload = async () => void (await reloader.reload());
    }
    // What was compiled now is there for the next start, however this one ends (cli/compiled.ts).
    flushCompileCache();
    return { url, sandboxUrl, carrierUrl, firstKey, reload, stop: () => unwind(undo, env) };
  } catch (error) {
    await unwind(undo, env);
    throw error instanceof StartError
      ? error
      : new StartError([error instanceof Error ? error.message : String(error)]);
  }
}

/** Numbers of all accounts. */
async function accountsOf(store: Store): Promise<number[]> {
  return (await store.directory(-1))?.accounts.map(({ no }) => no) ?? [];
}

/** The operator's database of places. */
function readGeo(path: string, env: Env): ReturnType<typeof followGeo> {
  const file = { path, read: () => readFile(path), state: () => fileState(path) };
  try {
    const state = file.state();
    return followGeo(file, { bytes: readFileSync(path), state }, env);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
    throw new StartError([`POSTCARD_GEO_DATABASE: ${path} cannot be used (${why}); name a MaxMind database (.mmdb)`]);
  }
}

/** The ways of the messages that come in. */
async function routesOf(config: Config, store: Store): Promise<Router> {
  return routerFor(config, await carrierLanes(config, store));
}

/** Last started, first stopped: the door, then the carriers, then the store. */
async function unwind(undo: (() => Promise<unknown>)[], env: Env): Promise<void> {
  for (const step of undo.splice(0).reverse()) {
    try {
      await step();
    } catch (error) {
      env.log.error({ err: error }, 'stopping: one step failed');
    }
  }
}

function checkDataDir(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    accessSync(dir, constants.W_OK | constants.R_OK);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new StartError([
      `POSTCARD_DATA_DIR: cannot write to ${dir} (${why}); name a directory this user may write to`,
    ]);
  }
}

// --------------------------------------------------------------------------------------------------- the data, from outside

/** Copies everything of an embedded installation into the new directory `dest`, beside a running server. */
export function backupData(
  config: Config,
  dest: string,
  options: { env: Env; version: string; stop: AbortSignal },
): Promise<BackupResult> {
  const { env, version, stop } = options;
  return backupSqlite({ from: dataFiles(config), dest, version, now: () => env.clock.now(), stop });
}

/** Puts a backup where a server with this configuration looks for its data. `force` moves what is there aside. */
export function restoreData(config: Config, source: string, options: { env: Env; force: boolean }): RestoreResult {
  return restoreSqlite({ source, to: dataFiles(config), force: options.force, now: options.env.clock.now() });
}

/** Looks at the PostgreSQL servers of the configured store and changes nothing there. */
export function inspectStore(config: Config, env: Env): Promise<ServerFacts[]> {
  return inspectPostgres(config.store, env.clock);
}

function dataFiles(config: Config): DataFiles {
  const { file, contentFile, lockFile } = sqliteFiles(config.dataDir, config.store.slice('sqlite:'.length));
  const sandbox = sandboxFile(config.dataDir);
  return { log: file, content: contentFile, sandbox, locks: [lockFile, sandbox.replace(/\.db$/, '.lock')] };
}

function sandboxFile(dataDir: string): string {
  return join(dataDir, 'sandbox.db');
}

// --------------------------------------------------------------------------------------------------------------- store

/** How a thread reaches the store: over ports to the embedded engine's threads, or by connections of its own. */
type StoreLink =
  | { sqlite: SqlitePorts }
  | { postgres: { url: string; node: string; retentionMs: number; retentionMessages: number } };

interface StoreHost {
  link(): StoreLink;
  close(): Promise<void>;
}

async function openStore(config: Config, node: string, env: Env, onCrash: (why: string) => void): Promise<StoreHost> {
  const { retentionMessages } = config;
  const retentionMs = config.retentionDays * DAY_MS;
  const shown = withoutPassword(config.store);
  try {
    if (!isSqlite(config.store)) {
      const link: StoreLink = { postgres: { url: config.store, node, retentionMs, retentionMessages } };
      // Brought up to date and judged once, before any thread starts.
      const first = await openPostgres({ ...link.postgres, log: env.log, clock: env.clock });
      if (first.wall.role === null) {
        env.log.warn({ why: first.wall.why }, 'no row-level security: accounts are kept apart by our statements alone');
      }
      await first.close();
      return { link: () => link, close: async () => undefined };
    }
    const file = config.store.slice('sqlite:'.length);
    const host = await openSqlite({ dataDir: config.dataDir, file, retentionMs, retentionMessages, onCrash });
    return { link: () => ({ sqlite: host.connect() }), close: () => host.close() };
  } catch (error) {
    throw new StartError([`the store ${shown} cannot be opened: ${(error as Error).message}`]);
  }
}

async function connectStore(link: StoreLink, config: Config, env: Env): Promise<Store & Reseal> {
  const blobs = blobsOf(config, env);
  const engine =
    'sqlite' in link
      ? connectSqlite(link.sqlite)
      : await openPostgres({ ...link.postgres, log: env.log, clock: env.clock });
  // Also without a key: what was sealed once must never be taken for the secret itself.
  const sealed = withSealed(engine, createSealer(config.secretKey?.split(',') ?? []), env);
  return blobs === null ? sealed : { ...withBlobs(sealed, blobs, env), reseal: sealed.reseal };
}

/** Where the bytes of content are kept; null = in the store. */
function blobsOf(config: Config, env: Env): Blobs | null {
  const read = readS3(config);
  if (typeof read === 'string') throw new StartError([`POSTCARD_CONTENT_STORE: ${read}`]);
  return read === null ? null : openS3(read, env);
}

/** What is wrong with the configured content store, '' = nothing. */
export async function probeContentStore(config: Config, env: Env): Promise<string> {
  const read = readS3(config);
  return typeof read === 'string' ? read : read === null ? '' : probeBlobs(openS3(read, env), env);
}

async function listen(api: Awaited<ReturnType<typeof createApi>>, config: Config): Promise<string> {
  try {
    return await api.listen({ host: config.host, port: config.port });
  } catch (error) {
    throw new StartError([portTaken('POSTCARD_PORT', config.host, config.port, error)]);
  }
}

function portTaken(setting: string, host: string, port: number, error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
  const why = code === 'EADDRINUSE' ? 'is taken by another process' : `cannot be opened (${code})`;
  return `${setting}: ${host}:${port} ${why}; stop that process or choose another port with ${setting}`;
}

function isPortError(error: unknown): boolean {
  return ['EADDRINUSE', 'EACCES', 'EADDRNOTAVAIL', 'ENOTFOUND'].includes((error as NodeJS.ErrnoException).code ?? '');
}

function keyHash(key: string): string {
  return createHash('sha256').update(key).digest('hex');
}

async function putConfiguredKey(store: Store, config: Config): Promise<void> {
  if (config.apiKey === null) return;
  await store.putKey({ hash: keyHash(config.apiKey), account: ACCOUNT, label: 'configured' }, true);
}

/** Makes sure that the first account has a key. Returns it in clear when it was made here. */
async function ensureFirstKey(store: Store, config: Config, env: Env): Promise<string | null> {
  if (config.apiKey !== null) return null;
  if ((await store.keys()).some((key) => key.account === ACCOUNT)) return null;
  const key = Buffer.from(env.random.bytes(32)).toString('hex');
  await store.putKey({ hash: keyHash(key), account: ACCOUNT, label: 'first' }, false);
  return key;
}

// ------------------------------------------------------------------------------------------------------------- threads

/** The sandbox of another process. */
function sandboxElsewhere({ sandboxUrl, sandboxSmppPort }: Config): SandboxPlace {
  return { url: sandboxUrl, smppHost: new URL(sandboxUrl).hostname, smppPort: sandboxSmppPort };
}

interface ThreadStart {
  role: 'carriers' | 'sandbox';
  config: Config;
  /** Null for the sandbox, which has nothing to do with it. */
  store: StoreLink | null;
  reportUrl: string | null;
}

type ToThread =
  | { go: { sandbox: SandboxPlace | null } }
  | { stop: true }
  | { counters: number }
  | { reconfigure: Config };
type FromThread =
  /** `smppPort`: the sandbox's, else 0. */
  | { ready: { url: string; smppPort: number } }
  | { failed: string[] }
  | { going: true }
  | { counters: number; value: Record<string, unknown> }
  /** Null = done, else why not. */
  | { reconfigured: string | null }
  | { stopped: true };

interface Thread {
  ready: { url: string; smppPort: number };
  /** Starts the work; `sandbox` null = there is none. */
  go(sandbox: SandboxPlace | null): Promise<void>;
  counters(): Promise<Record<string, unknown>>;
  /** Works by this configuration from now on. Rejects = it does not. One at a time. */
  reconfigure(config: Config): Promise<void>;
  stop(): Promise<void>;
}

function startThread(
  role: ThreadStart['role'],
  config: Config,
  store: StoreLink | null,
  onCrash: (message: string) => void,
  reportUrl: string | null = null,
): Promise<Thread> {
  const start: ThreadStart = { role, config, store, reportUrl };
  const transfer: MessagePort[] = store && 'sqlite' in store ? [store.sqlite.writer, store.sqlite.reader] : [];
  const worker = new Worker(new URL('./main.ts', import.meta.url), { workerData: start, transferList: transfer });
  let going: (() => void) | null = null;
  let stopped: (() => void) | null = null;
  let reconfigured: ((why: string | null) => void) | null = null;
  const asked = new Map<number, (value: Record<string, unknown>) => void>();
  let question = 0;
  const tell = (message: ToThread): void => worker.postMessage(message);
  return new Promise((resolve, reject) => {
    let ready = false;
    worker.on('message', (message: FromThread) => {
      if ('failed' in message) reject(new StartError(message.failed));
      else if ('going' in message) going?.();
      else if ('counters' in message) {
        asked.get(message.counters)?.(message.value);
        asked.delete(message.counters);
      } else if ('reconfigured' in message) reconfigured?.(message.reconfigured);
      else if ('stopped' in message) stopped?.();
      else {
        ready = true;
        resolve({
          ready: message.ready,
          go: (sandbox) =>
            new Promise((done) => {
              going = done;
              tell({ go: { sandbox } });
            }),
          counters: () =>
            new Promise((done) => {
              asked.set(++question, done);
              tell({ counters: question });
            }),
          reconfigure: (next) =>
            new Promise((done, fail) => {
              reconfigured = (why) => (why === null ? done() : fail(new Error(why)));
              tell({ reconfigure: next });
            }),
          stop: () =>
            new Promise((done) => {
              stopped = done;
              tell({ stop: true });
            }),
        });
      }
    });
    const died = (why: string): void => {
      if (stopped) stopped();
      else if (ready) onCrash(`${role}: ${why}`);
      else reject(new Error(`${role}: ${why}`));
    };
    worker.on('error', (error) => died(error instanceof Error ? (error.stack ?? error.message) : String(error)));
    worker.on('exit', (code) => died(`ended with code ${code}`));
  });
}

if (!isMainThread && (workerData as ThreadStart | null)?.role) await runThread(workerData as ThreadStart);

async function runThread(start: ThreadStart): Promise<void> {
  const env = realEnv({ level: start.config.logLevel, pretty: isatty(2) });
  const say = (message: FromThread): void => parentPort?.postMessage(message);
  try {
    if (start.role === 'sandbox') await runSandbox(start, env, say);
    else await runCarriers(start, env, say);
  } catch (error) {
    say({
      failed: error instanceof StartError ? error.lines : [error instanceof Error ? error.message : String(error)],
    });
  }
}

async function runSandbox(
  { config, reportUrl }: ThreadStart,
  env: Env,
  say: (message: FromThread) => void,
): Promise<void> {
  const { host, sandboxPort, sandboxSmppPort, dataDir } = config;
  const start = (smppPort: number): ReturnType<typeof startSandbox> =>
    startSandbox({
      host,
      port: sandboxPort,
      smppPort,
      file: sandboxFile(dataDir),
      reportUrl: reportUrl as string,
      env,
    });
  const sandbox = await start(sandboxSmppPort)
    .catch((error: unknown) => {
      const { code, port } = error as { code?: string; port?: number };
      // Nobody asked for the usual port: a second server beside the first need not name another.
      if (code !== 'EADDRINUSE' || port !== sandboxSmppPort || port !== USUAL_SMPP_PORT) throw error;
      env.log.warn({ port }, 'POSTCARD_SANDBOX_SMPP_PORT is taken; the sandbox takes SMPP on another port');
      return start(0);
    })
    .catch((error: unknown) => {
      const smpp = (error as { port?: number }).port === sandboxSmppPort;
      throw new StartError([
        isPortError(error)
          ? portTaken(
              smpp ? 'POSTCARD_SANDBOX_SMPP_PORT' : 'POSTCARD_SANDBOX_PORT',
              host,
              smpp ? sandboxSmppPort : sandboxPort,
              error,
            )
          : `the sandbox's file in ${dataDir} cannot be opened: ${(error as Error).message}`,
      ]);
    });
  say({ ready: { url: sandbox.url, smppPort: sandbox.smppPort ?? 0 } });
  flushCompileCache();
  parentPort?.on('message', async (message: ToThread) => {
    if (!('stop' in message)) return;
    await sandbox.close();
    say({ stopped: true });
    process.exit(0);
  });
}

async function runCarriers(start: ThreadStart, env: Env, say: (message: FromThread) => void): Promise<void> {
  const { config } = start;
  const has = (role: Role): boolean => config.roles.includes(role);
  const link = start.store as StoreLink;
  const store = await connectStore(link, config, env);
  const { install, idKey } = await store.identity();
  const ids = createIds(idKey);
  const outbound = createOutbound({ allow: config.outboundAllow, env });
  const webhooks = has('webhooks')
    ? createWebhooks({
        store,
        outbound,
        env,
        ids,
        partUrls: createPartUrls(config.publicUrl, idKey),
        networks: createNetworks(config.networks),
      })
    : null;
  const media = has('dispatch') ? createMedia({ store, outbound, env }) : null;
  const fitting = createFitting(env);
  const hooks = carrierHooks(config, store, ids, env);
  const listener = has('dispatch') ? await listenToCarriers(config, hooks, env) : null;
  let dispatch: ReturnType<typeof createDispatch> | null = null;
  let closeCarriers = async (): Promise<void> => undefined;
  let binds = (): ReturnType<typeof bindsOf> => [];
  /** One at a time: main waits for each. */
  let reconfigure: ((next: Config) => Promise<void>) | null = null;
  parentPort?.on('message', async (message: ToThread) => {
    if ('go' in message) {
      if (has('dispatch')) {
        const fitter = createFitter({ env, store, fitting });
        const smsHooks = { ...hooks, onInbound: async (mo: CarrierInbound) => void (await hooks.onInbound(mo)) };
        const needs: CarrierNeeds = { sandbox: message.go.sandbox, fitter, hooks: smsHooks, env };
        let made: ReadonlyMap<string, MadeCarrier> = new Map();
        let lanes: ReturnType<typeof servedLanes>['lanes'];
        ({ lanes, made } = servedLanes(await carrierLanes(config, store), needs, made));
        const node = 'postgres' in link ? link.postgres.node : 'one';
        const shortener = createShortener(config.publicUrl, idKey);
        const running = createDispatch({ store, env, install, shortener, ids, node, lanes });
        dispatch = running;
        dispatch.start();
        reconfigure = async (next) => {
          listener?.setCarriers(callers(next), listenerTls(next) ?? undefined);
          const before = made;
          ({ lanes, made } = servedLanes(await carrierLanes(next, store), needs, before));
          await running.relane(lanes, STOP_MS);
          for (const [id, old] of before) if (made.get(id) !== old) await closeCarrier(old);
        };
        binds = () => bindsOf(made);
        closeCarriers = async () => void (await Promise.all([...made.values()].map(closeCarrier)));
      }
      webhooks?.start();
      media?.start();
      say({ going: true });
      flushCompileCache();
    }
    if ('counters' in message) {
      const value = { lanes: dispatch?.counters() ?? [], binds: binds(), webhooks: webhooks?.counters() ?? {} };
      say({ counters: message.counters, value });
    }
    if ('reconfigure' in message) {
      const why = await (reconfigure?.(message.reconfigure) ?? Promise.resolve()).then(
        () => null,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      say({ reconfigured: why });
    }
    if ('stop' in message) {
      // First no new submissions; reports of what was in flight may still come until the last one is settled.
      await Promise.all([dispatch?.stop(STOP_MS), webhooks?.stop(), media?.stop()]);
      await Promise.all([listener?.close(), closeCarriers()]);
      await fitting.close();
      await outbound.close();
      await store.close();
      say({ stopped: true });
      process.exit(0);
    }
  });
  say({ ready: { url: listener?.url ?? '', smppPort: 0 } });
}

/** Where all that carriers tell goes. Both resolve after the commit. */
function carrierHooks(config: Config, store: Store, ids: Ids, env: Env) {
  const words = { stop: config.stopWords, start: config.startWords };
  return {
    onInbound: createInboundIntake({ store, ids, words, log: env.log }),
    async onReport(report: CarrierReport): Promise<void> {
      const { known, messages } = await store.report(report);
      const { carrier, carrierMessageId, kind } = report;
      const messageIds = messages.map(({ no, key }) => key ?? ids.print('message', no));
      env.log.info({ carrier, carrierMessageId, report: kind, messageIds, parked: !known }, 'report');
    },
  };
}

function listenToCarriers(
  config: Config,
  hooks: ReturnType<typeof carrierHooks>,
  env: Env,
): ReturnType<typeof createMm7Listener> {
  const { host, carrierPort: port } = config;
  const tls = listenerTls(config);
  return createMm7Listener({
    host,
    port,
    ...(tls ? { tls } : {}),
    carriers: callers(config),
    ...hooks,
    env,
  }).catch((error: unknown) => {
    throw new StartError([portTaken('POSTCARD_CARRIER_PORT', host, port, error)]);
  });
}

/** Who may call the listener. */
function callers(config: Config): Parameters<Awaited<ReturnType<typeof createMm7Listener>>['setCarriers']>[0] {
  return [...config.carriers.filter(isMm7).map(inboundOf), ...(config.sandbox ? [{ name: SANDBOX }] : [])];
}

interface Certificate {
  cert: string;
  key: string;
}

/** Our certificate for carriers that call by https; null = there is none. */
function listenerTls({ carrierTlsCert: cert, carrierTlsKey: key }: Config): Certificate | null {
  return certificate('POSTCARD_CARRIER_TLS', cert, key);
}

/** Our certificate for customers; null = there is none. */
function apiTls({ tlsCert, tlsKey }: Config): Certificate | null {
  return certificate('POSTCARD_TLS', tlsCert, tlsKey);
}

function given<const Name extends string, Value>(name: Name, value: Value | null): { [N in Name]?: Value } {
  return (value === null ? {} : { [name]: value }) as { [N in Name]?: Value };
}

function certificate(settings: string, certFile: string | null, keyFile: string | null): Certificate | null {
  if (certFile === null || keyFile === null) return null;
  const read = (name: string, file: string): string => {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code ?? String(error);
      throw new StartError([`${name}: cannot read ${file} (${why}); name a readable PEM file`]);
    }
  };
  const pair = { cert: read(`${settings}_CERT`, certFile), key: read(`${settings}_KEY`, keyFile) };
  try {
    createSecureContext(pair);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new StartError([`${settings}_CERT: ${certFile} and ${keyFile} are no certificate with its key (${why})`]);
  }
  return pair;
}
