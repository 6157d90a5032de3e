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
import { accessSync, constants, mkdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { isMainThread, type MessagePort, parentPort, Worker, workerData } from 'node:worker_threads';
import { createApi } from './api/server.ts';
import type { Carrier } from './carriers/carrier.ts';
import { createMm7Listener } from './carriers/mm7/listener.ts';
import { createMm7Carrier, type Mm7Config } from './carriers/mm7/mm7.ts';
import { startSandbox } from './carriers/sandbox/sandbox.ts';
import { type Config, isSqlite, type Role, withoutPassword } from './config.ts';
import { createDispatch, type LaneOptions } from './dispatch/dispatch.ts';
import { createIds, type Ids } from './domain/ids.ts';
import { createRouting } from './domain/routing.ts';
import { type Env, realEnv } from './env.ts';
import { createMedia } from './media/media.ts';
import { checkCallout, createOutbound } from './net/outbound.ts';
import type { Store } from './store/contract.ts';
import { inspectPostgres, type ServerFacts } from './store/postgres/inspect.ts';
import { openPostgres } from './store/postgres/postgres.ts';
import {
  type BackupResult,
  backupSqlite,
  type DataFiles,
  type RestoreResult,
  restoreSqlite,
} from './store/sqlite/backup.ts';
import { connectSqlite, openSqlite, type SqlitePorts, sqliteFiles } from './store/sqlite/sqlite.ts';
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
  stop(): Promise<void>;
}

/** The first account. */
const ACCOUNT = 1;
/** How long a stop waits for what is in flight; with the rest of the stop it stays under 35 s (G14). */
const STOP_MS = 30_000;
const DAY_MS = 86_400_000;

/** Starts everything that the configuration asks for and resolves when it is ready to take messages. */
export async function startServer(config: Config, options: { env: Env }): Promise<Running> {
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
    const store = await connectStore(host.link(), env);
    undo.push(() => store.close());

    const works = has('dispatch') || has('webhooks');
    const carriers = works ? await startThread('carriers', config, host.link(), crash) : null;
    const stopCarriers = async (): Promise<void> => carriers?.stop();
    undo.push(stopCarriers);
    const carrierUrl = has('dispatch') ? (carriers?.ready.url ?? null) : null;
    let sandboxUrl: string | null = null;
    if (config.sandbox && has('sandbox')) {
      const reportUrl = `${carrierUrl ?? config.carrierUrl}/mm7/${SANDBOX}`;
      const sandbox = await startThread('sandbox', config, null, crash, reportUrl);
      // The peer outlives its callers: what is in flight at a stop still gets its answer.
      undo.splice(undo.indexOf(stopCarriers), 0, () => sandbox.stop());
      sandboxUrl = sandbox.ready.url;
    }
    await carriers?.go(sandboxUrl ?? (config.sandbox ? config.sandboxUrl : null));
    const lanes = await carrierLanes(config, store);
    // Before the door opens: nobody with the right key may be refused.
    if (has('api')) await putConfiguredKey(store, config);
    const api = await createApi({
      store,
      env,
      config,
      customers: has('api'),
      ids: createIds((await store.identity()).idKey),
      // Configured carriers route; the sandbox only while there is none.
      routing: createRouting(
        (config.carriers.length > 0 ? lanes.slice(0, config.carriers.length) : lanes).map(numbers),
      ),
      carrierCounters: async () => (await carriers?.counters()) ?? {},
      checkCallout: checkCallout(config.outboundAllow),
    });
    undo.push(() => api.close());
    const url = await listen(api, config);
    // Last: a key is shown once, so it is made only by a start that succeeds.
    const firstKey = has('api') ? await ensureFirstKey(store, config, env) : null;
    const where = withoutPassword(config.store);
    env.log.info(
      { url, carrierUrl, sandboxUrl: sandboxUrl ?? undefined, roles: config.roles, node, store: where },
      'ready',
    );
    return { url, sandboxUrl, carrierUrl, firstKey, stop: () => unwind(undo, env) };
  } catch (error) {
    await unwind(undo, env);
    throw error instanceof StartError
      ? error
      : new StartError([error instanceof Error ? error.message : String(error)]);
  }
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
      await (await connectStore(link, env)).close();
      return { link: () => link, close: async () => undefined };
    }
    const file = config.store.slice('sqlite:'.length);
    const host = await openSqlite({ dataDir: config.dataDir, file, retentionMs, retentionMessages, onCrash });
    return { link: () => ({ sqlite: host.connect() }), close: () => host.close() };
  } catch (error) {
    throw new StartError([`the store ${shown} cannot be opened: ${(error as Error).message}`]);
  }
}

async function connectStore(link: StoreLink, env: Env): Promise<Store> {
  if ('sqlite' in link) return connectSqlite(link.sqlite);
  return openPostgres({ ...link.postgres, log: env.log, clock: env.clock });
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

const SANDBOX = 'sandbox';

interface ThreadStart {
  role: 'carriers' | 'sandbox';
  config: Config;
  /** Null for the sandbox, which has nothing to do with it. */
  store: StoreLink | null;
  reportUrl: string | null;
}

type ToThread = { go: { sandboxUrl: string | null } } | { stop: true } | { counters: number };
type FromThread =
  | { ready: { url: string } }
  | { failed: string[] }
  | { going: true }
  | { counters: number; value: Record<string, unknown> }
  | { stopped: true };

interface Thread {
  ready: { url: string };
  /** Starts the work; `sandboxUrl` null = there is no sandbox. */
  go(sandboxUrl: string | null): Promise<void>;
  counters(): Promise<Record<string, unknown>>;
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
      } else if ('stopped' in message) stopped?.();
      else {
        ready = true;
        resolve({
          ready: message.ready,
          go: (sandboxUrl) =>
            new Promise((done) => {
              going = done;
              tell({ go: { sandboxUrl } });
            }),
          counters: () =>
            new Promise((done) => {
              asked.set(++question, done);
              tell({ counters: question });
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

async function runSandbox(start: ThreadStart, env: Env, say: (message: FromThread) => void): Promise<void> {
  const { host, sandboxPort, dataDir } = start.config;
  const sandbox = await startSandbox({
    host,
    port: sandboxPort,
    file: sandboxFile(dataDir),
    reportUrl: start.reportUrl as string,
    env,
  }).catch((error: unknown) => {
    throw new StartError([
      isPortError(error)
        ? portTaken('POSTCARD_SANDBOX_PORT', host, sandboxPort, error)
        : `the sandbox's file in ${dataDir} cannot be opened: ${(error as Error).message}`,
    ]);
  });
  say({ ready: { url: sandbox.url } });
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
  const store = await connectStore(link, env);
  const { install, idKey } = await store.identity();
  const ids = createIds(idKey);
  const outbound = createOutbound({ allow: config.outboundAllow, env });
  const webhooks = has('webhooks') ? createWebhooks({ store, outbound, env, ids }) : null;
  const media = has('dispatch') ? createMedia({ store, outbound, env }) : null;
  const listener = has('dispatch') ? await listenToCarriers(config, store, ids, env) : null;
  let dispatch: ReturnType<typeof createDispatch> | null = null;
  parentPort?.on('message', async (message: ToThread) => {
    if ('go' in message) {
      if (has('dispatch')) {
        const lanes = dispatchLanes(await carrierLanes(config, store), message.go.sandboxUrl, env);
        const node = 'postgres' in link ? link.postgres.node : 'one';
        dispatch = createDispatch({ store, env, install, ids, node, lanes });
        dispatch.start();
      }
      webhooks?.start();
      media?.start();
      say({ going: true });
    }
    if ('counters' in message) {
      const value = { lanes: dispatch?.counters() ?? [], webhooks: webhooks?.counters() ?? {} };
      say({ counters: message.counters, value });
    }
    if ('stop' in message) {
      // First no new submissions; reports of what was in flight may still come until the last one is settled.
      await Promise.all([dispatch?.stop(STOP_MS), webhooks?.stop(), media?.stop()]);
      await listener?.close();
      await outbound.close();
      await store.close();
      say({ stopped: true });
      process.exit(0);
    }
  });
  say({ ready: { url: listener?.url ?? '' } });
}

function listenToCarriers(config: Config, store: Store, ids: Ids, env: Env): ReturnType<typeof createMm7Listener> {
  const { host, carrierPort: port } = config;
  return createMm7Listener({
    host,
    port,
    carriers: [
      ...config.carriers.map(({ name, inboundSecret }) => ({ name, ...(inboundSecret ? { inboundSecret } : {}) })),
      ...(config.sandbox ? [{ name: SANDBOX }] : []),
    ],
    onReport: async (report) => {
      const { known, messages } = await store.report(report);
      const { carrier, carrierMessageId, kind } = report;
      const messageIds = messages.map(({ no, key }) => key ?? ids.print('message', no));
      env.log.info({ carrier, carrierMessageId, report: kind, messageIds, parked: !known }, 'report');
    },
    env,
  }).catch((error: unknown) => {
    throw new StartError([portTaken('POSTCARD_CARRIER_PORT', host, port, error)]);
  });
}

// --------------------------------------------------------------------------------------------------------------- lanes

/** Lanes of one carrier on a store of many nodes, so that several can share its work. */
const SHARDS = 4;
/** Enough that 5 s answers of 9909 do not starve the rest. */
const SANDBOX_SLOTS = 64;

interface CarrierLanes {
  numbers: number[];
  /** Lanes that a configuration with more slots or a higher rate may have left work on: served, but nothing new goes there. */
  spare: number[];
  concurrency: number;
  /** 0 = no limit. */
  ratePerSecond: number;
  timeoutMs: number;
  /** Null = the sandbox. */
  config: Config['carriers'][number] | null;
}

const numbers = (lanes: CarrierLanes): number[] => lanes.numbers;

/** The lanes of each carrier, configured ones first, in their order; the same for every process with this configuration. */
async function carrierLanes(config: Config, store: Store): Promise<CarrierLanes[]> {
  const all: CarrierLanes[] = [];
  const add = async (
    name: string,
    policy: Parameters<Store['lane']>[1],
    pace: Omit<CarrierLanes, 'numbers' | 'spare'>,
  ): Promise<void> => {
    const { concurrency, ratePerSecond } = pace;
    const most = Math.min(SHARDS, concurrency, ratePerSecond > 0 ? Math.max(1, Math.floor(ratePerSecond)) : SHARDS);
    const [shards, count] = isSqlite(config.store) ? [1, 1] : [SHARDS, most];
    const lanes: number[] = [];
    for (let shard = 0; shard < shards; shard++) lanes.push(await store.lane(name, policy, shard));
    all.push({ ...pace, numbers: lanes.slice(0, count), spare: lanes.slice(count) });
  };
  for (const carrier of config.carriers) {
    const { concurrency, timeoutMs, onUnknown, reports } = carrier;
    const ratePerSecond = carrier.ratePerSecond ?? 0;
    await add(carrier.name, { onUnknown, reports }, { concurrency, ratePerSecond, timeoutMs, config: carrier });
  }
  if (config.sandbox) {
    const pace = { concurrency: SANDBOX_SLOTS, ratePerSecond: 0, timeoutMs: 30_000, config: null };
    await add(SANDBOX, { onUnknown: 'retry', reports: true }, pace);
  }
  return all;
}

/** What dispatch serves. The lanes of a carrier divide its slots and its rate, and share its connections. */
function dispatchLanes(all: CarrierLanes[], sandboxUrl: string | null, env: Env): LaneOptions[] {
  return all.flatMap((lanes) => {
    const { numbers, spare, concurrency, ratePerSecond, timeoutMs, config } = lanes;
    const carrier: Carrier = createMm7Carrier(config ?? sandboxCarrier(sandboxUrl as string), env);
    const serving = numbers.map((no, shard) => ({
      no,
      carrier,
      concurrency: share(concurrency, shard, numbers.length),
      ratePerSecond: share(ratePerSecond, shard, numbers.length),
      timeoutMs,
    }));
    const slow = Math.min(1, ratePerSecond / SHARDS);
    return [...serving, ...spare.map((no) => ({ no, carrier, concurrency: 1, ratePerSecond: slow, timeoutMs }))];
  });
}

/** Whole parts, so that a rate that each lane holds in every second is held by all together; the first takes the fraction. */
function share(total: number, shard: number, count: number): number {
  const whole = Math.floor(total);
  const rest = shard === 0 ? total - whole : 0;
  return Math.floor(whole / count) + (shard < whole % count ? 1 : 0) + rest;
}

function sandboxCarrier(url: string): Mm7Config {
  return {
    name: SANDBOX,
    url: `${url}/mm7`,
    namespace: 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4',
    version: '6.8.0',
    vaspId: 'postcard',
    vasId: 'postcard',
    transferEncoding: 'binary',
    concurrency: SANDBOX_SLOTS,
    timeoutMs: 30_000,
  };
}
