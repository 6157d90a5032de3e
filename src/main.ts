/**
 * The only wiring: opens the store, starts the chosen rooms on their threads, stops them in order. Main thread: the customer's
 * door. Worker `carriers`: dispatch, webhooks, media and the listener that carriers call. Worker `sandbox`: the carrier in a
 * box, which meets the others over sockets only. The store has two threads of its own.
 *
 * Fails: `startServer` rejects with StartError, one line for each thing that is wrong, after undoing what it had started. A
 * thread that dies later ends the process: its supervisor starts it again, and G1-G12 hold over a crash.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { isatty } from 'node:tty';
import { isMainThread, type MessagePort, parentPort, Worker, workerData } from 'node:worker_threads';
import { createApi } from './api/server.ts';
import { createMm7Listener } from './carriers/mm7/listener.ts';
import { createMm7Carrier, type Mm7Config } from './carriers/mm7/mm7.ts';
import { startSandbox } from './carriers/sandbox/sandbox.ts';
import type { Config } from './config.ts';
import { createDispatch, type LaneOptions } from './dispatch/dispatch.ts';
import { createIds } from './domain/ids.ts';
import { createRouting } from './domain/routing.ts';
import { type Env, realEnv } from './env.ts';
import { createMedia } from './media/media.ts';
import { checkCallout, createOutbound } from './net/outbound.ts';
import type { Store } from './store/contract.ts';
import { connectSqlite, openSqlite, type SqliteHost, type SqlitePorts } from './store/sqlite/sqlite.ts';
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

export interface Running {
  /** Where customers call, e.g. http://127.0.0.1:8080. */
  url: string;
  sandboxUrl: string | null;
  /** Where carriers call; MM7 under /mm7/{carrier}. */
  carrierUrl: string;
  /** The first account's key in clear, only when it was made by this start. */
  firstKey: string | null;
  stop(): Promise<void>;
}

/** The first account. */
const ACCOUNT = 1;
/** How long a stop waits for what is in flight; with the rest of the stop it stays under 35 s (G14). */
const STOP_MS = 30_000;

/** Starts everything that the configuration asks for and resolves when it is ready to take messages. */
export async function startServer(config: Config, options: { env: Env }): Promise<Running> {
  const { env } = options;
  checkDataDir(config.dataDir);
  const undo: (() => Promise<unknown>)[] = [];
  const crash = (message: string): void => {
    env.log.error({ reason: message }, 'a part died; ending');
    process.exit(70);
  };
  try {
    const host = await openStore(config, crash);
    undo.push(() => host.close());
    const store = connectSqlite(host.connect());
    undo.push(() => store.close());
    const carriers = await startThread('carriers', config, host.connect(), crash);
    const stopCarriers = (): Promise<void> => carriers.stop();
    undo.push(stopCarriers);
    const carrierUrl = carriers.ready.url;
    let sandboxUrl: string | null = null;
    if (config.sandbox) {
      const reportUrl = `${carrierUrl}/mm7/${SANDBOX}`;
      const sandbox = await startThread('sandbox', config, null, crash, reportUrl);
      // The peer outlives its callers: what is in flight at a stop still gets its answer.
      undo.splice(undo.indexOf(stopCarriers), 0, () => sandbox.stop());
      sandboxUrl = sandbox.ready.url;
    }
    const lanes = await carriers.go(sandboxUrl);
    const api = await createApi({
      store,
      env,
      config,
      ids: createIds((await store.identity()).idKey),
      routing: createRouting(lanes),
      carrierCounters: () => carriers.counters(),
      checkCallout: checkCallout(config.outboundAllow),
    });
    undo.push(() => api.close());
    const url = await listen(api, config);
    // Last: a key is shown once, so it is made only by a start that succeeds.
    const firstKey = await ensureKey(store, config, env);
    env.log.info({ url, carrierUrl, sandboxUrl: sandboxUrl ?? undefined }, 'ready');
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

async function openStore(config: Config, onCrash: (message: string) => void): Promise<SqliteHost> {
  try {
    return await openSqlite({ dataDir: config.dataDir, retentionMs: config.retentionDays * 86_400_000, onCrash });
  } catch (error) {
    throw new StartError([`the store in ${config.dataDir} cannot be opened: ${(error as Error).message}`]);
  }
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

/** Makes sure that the first account has a key. Returns it in clear when it was made here. */
async function ensureKey(store: Store, config: Config, env: Env): Promise<string | null> {
  const hash = (key: string): string => createHash('sha256').update(key).digest('hex');
  if (config.apiKey) {
    await store.putKey({ hash: hash(config.apiKey), account: ACCOUNT, label: 'configured' }, true);
    return null;
  }
  if ((await store.keys()).some((key) => key.account === ACCOUNT)) return null;
  const key = Buffer.from(env.random.bytes(32)).toString('hex');
  await store.putKey({ hash: hash(key), account: ACCOUNT, label: 'first' }, false);
  return key;
}

// ------------------------------------------------------------------------------------------------------------- threads

const SANDBOX = 'sandbox';

interface ThreadStart {
  role: 'carriers' | 'sandbox';
  config: Config;
  ports: SqlitePorts | null;
  reportUrl: string | null;
}

type ToThread = { go: { sandboxUrl: string | null } } | { stop: true } | { counters: number };
type FromThread =
  | { ready: { url: string } }
  | { failed: string[] }
  | { lanes: number[] }
  | { counters: number; value: Record<string, unknown> }
  | { stopped: true };

interface Thread {
  ready: { url: string };
  go(sandboxUrl: string | null): Promise<number[]>;
  counters(): Promise<Record<string, unknown>>;
  stop(): Promise<void>;
}

function startThread(
  role: ThreadStart['role'],
  config: Config,
  ports: SqlitePorts | null,
  onCrash: (message: string) => void,
  reportUrl: string | null = null,
): Promise<Thread> {
  const start: ThreadStart = { role, config, ports, reportUrl };
  const transfer: MessagePort[] = ports ? [ports.writer, ports.reader] : [];
  const worker = new Worker(new URL('./main.ts', import.meta.url), { workerData: start, transferList: transfer });
  let lanes: ((lanes: number[]) => void) | null = null;
  let stopped: (() => void) | null = null;
  const asked = new Map<number, (value: Record<string, unknown>) => void>();
  let question = 0;
  const tell = (message: ToThread): void => worker.postMessage(message);
  return new Promise((resolve, reject) => {
    let ready = false;
    worker.on('message', (message: FromThread) => {
      if ('failed' in message) reject(new StartError(message.failed));
      else if ('lanes' in message) lanes?.(message.lanes);
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
              lanes = done;
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
    file: join(dataDir, 'sandbox.db'),
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
  const store = connectSqlite(start.ports as SqlitePorts);
  const { install, idKey } = await store.identity();
  const ids = createIds(idKey);
  const outbound = createOutbound({ allow: config.outboundAllow, env });
  const webhooks = createWebhooks({ store, outbound, env, ids });
  const media = createMedia({ store, outbound, env });
  const listener = await createMm7Listener({
    host: config.host,
    port: config.carrierPort,
    carriers: [
      ...config.carriers.map(({ name, inboundSecret }) => ({ name, ...(inboundSecret ? { inboundSecret } : {}) })),
      ...(config.sandbox ? [{ name: SANDBOX }] : []),
    ],
    onReport: async (report) => {
      const known = await store.report(report);
      env.log.info(
        { carrier: report.carrier, carrierMessageId: report.carrierMessageId, report: report.kind, parked: !known },
        'report',
      );
    },
    env,
  }).catch((error: unknown) => {
    throw new StartError([portTaken('POSTCARD_CARRIER_PORT', config.host, config.carrierPort, error)]);
  });
  let dispatch: ReturnType<typeof createDispatch> | null = null;
  parentPort?.on('message', async (message: ToThread) => {
    if ('go' in message) {
      const lanes = await openLanes(config, store, env, message.go.sandboxUrl);
      dispatch = createDispatch({ store, env, install, lanes });
      dispatch.start();
      webhooks.start();
      media.start();
      // Configured carriers route; the sandbox only while there is none (design 5).
      const routed = config.carriers.length > 0 ? lanes.slice(0, config.carriers.length) : lanes;
      say({ lanes: routed.map((lane) => lane.no) });
    }
    if ('counters' in message) {
      say({ counters: message.counters, value: { lanes: dispatch?.counters() ?? [], webhooks: webhooks.counters() } });
    }
    if ('stop' in message) {
      // First no new submissions; reports of what was in flight may still come until the last one is settled.
      await Promise.all([dispatch?.stop(STOP_MS), webhooks.stop(), media.stop()]);
      await listener.close();
      await outbound.close();
      await store.close();
      say({ stopped: true });
      process.exit(0);
    }
  });
  say({ ready: { url: listener.url } });
}

/** A lane for each carrier, configured ones first, in their order. */
async function openLanes(config: Config, store: Store, env: Env, sandboxUrl: string | null): Promise<LaneOptions[]> {
  const lanes: LaneOptions[] = [];
  for (const carrier of config.carriers) {
    const no = await store.lane(carrier.name, { onUnknown: carrier.onUnknown, reports: carrier.reports });
    const { concurrency, timeoutMs } = carrier;
    const made = createMm7Carrier(carrier, env);
    lanes.push({ no, carrier: made, concurrency, ratePerSecond: carrier.ratePerSecond ?? 0, timeoutMs });
  }
  if (sandboxUrl) {
    const no = await store.lane(SANDBOX, { onUnknown: 'retry', reports: true });
    const carrier = createMm7Carrier(sandboxCarrier(sandboxUrl), env);
    lanes.push({ no, carrier, concurrency: SANDBOX_SLOTS, ratePerSecond: 0, timeoutMs: 30_000 });
  }
  return lanes;
}

/** Enough that 5 s answers of 9909 do not starve the rest. */
const SANDBOX_SLOTS = 64;

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
