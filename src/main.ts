/**
 * Starts a server and stops it: opens the store, starts the chosen roles on their threads (`wiring/`), opens the door, stops
 * them in order. Main thread: the customer's door (or only the probes, without the role `api`). Thread `carriers`: dispatch,
 * media and the listener that carriers call (role `dispatch`), webhooks (role `webhooks`). Thread `sandbox`: the carrier in a
 * box, which meets the others over sockets only. The embedded store has two threads of its own; on PostgreSQL every thread has
 * connections of its own.
 *
 * Promises: all threads and the door load their code at once, while the store opens. Fails: `startServer` rejects with
 * StartError, one line for each thing that is wrong, after undoing what it had started. A thread that dies later ends the
 * process: its supervisor starts it again, and G1-G12 hold over a crash.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { hostname } from 'node:os';
import type { Config, Role, Sources } from './config.ts';
import { isLoopback, SANDBOX, withoutPassword } from './configured.ts';
import { createIds } from './domain/ids.ts';
import { createRouteSwitch, type Router } from './domain/routing.ts';
import type { Env } from './env.ts';
import { checkCallout } from './net/callout.ts';
import { createReloader, fileState } from './reload.ts';
import type { Store } from './store/contract.ts';
import { startReseal } from './store/seal.ts';
import { apiTls } from './wiring/certificates.ts';
import { carrierLanes, routerFor } from './wiring/lanes.ts';
import type { SandboxPlace } from './wiring/serving.ts';
import { portTaken, StartError, startLines } from './wiring/start-error.ts';
import { openStore, type StoreHost } from './wiring/store.ts';
import { launch, type Thread } from './wiring/threads.ts';

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

/**
 * Starts everything that the configuration asks for and resolves when it is ready to take messages. With `sources`, where the
 * configuration came from, it is watched and taken over again when it changes.
 */
export async function startServer(config: Config, options: { env: Env; sources?: Sources }): Promise<Running> {
  const { env } = options;
  const has = (role: Role): boolean => config.roles.includes(role);
  const node = config.node ?? `${hostname()}-${process.pid}`;
  const undo: (() => Promise<unknown>)[] = [];
  const crash = (message: string): void => {
    env.log.error({ reason: message }, 'a part died; ending');
    process.exit(70);
  };
  try {
    checkDataDir(config.dataDir);
    const tls = apiTls(config);
    let host: StoreHost | null = null;
    let box: Thread | null = null;
    let carriers: Thread | null = null;
    // Undone in the reverse order: the sandbox outlives those that call it, what is in flight at a stop still gets its answer. Said
    // before the first of them is there: each may be the one that cannot be had.
    undo.push(async () => host?.close());
    undo.push(async () => box?.stop());
    undo.push(async () => carriers?.stop());
    carriers = has('dispatch') || has('webhooks') ? launch('carriers', crash) : null;
    box = config.sandbox && has('sandbox') ? launch('sandbox', crash) : null;
    const door = loadDoor();
    host = await openStore(config, node, env, crash);
    const { store } = host;

    const theirs = await carriers?.begin({ config, store: host.link(), reportUrl: null });
    const carrierUrl = has('dispatch') ? (theirs?.url ?? null) : null;
    let sandbox: SandboxPlace | null = config.sandbox ? sandboxElsewhere(config) : null;
    let sandboxUrl: string | null = null;
    if (box) {
      const reportUrl = `${carrierUrl ?? config.carrierUrl}/mm7/${SANDBOX}`;
      const { url, smppPort } = await box.begin({ config, store: null, reportUrl });
      sandboxUrl = url;
      sandbox = { url, smppHost: new URL(url).hostname, smppPort };
    }
    await carriers?.go(sandbox);
    const routes = createRouteSwitch(await routesOf(config, store));
    // Before the door opens: nobody with the right key may be refused.
    if (has('api')) await putConfiguredKey(store, config);
    const { createApi } = await door;
    const api = await createApi({
      store,
      env,
      config,
      customers: has('api'),
      ...(tls === null ? {} : { tls }),
      ids: createIds((await store.identity()).idKey),
      routing: routes.routing,
      carrierCounters: async () => (await carriers?.counters()) ?? {},
      checkCallout: checkCallout(config.outboundAllow),
      ...(config.geoDatabase === null ? {} : { geo: await readGeo(config.geoDatabase, env) }),
    });
    undo.push(() => api.close());
    const url = await api.listen({ host: config.host, port: config.port }).catch((error: unknown) => {
      throw new StartError([portTaken('POSTCARD_PORT', config.host, config.port, error)]);
    });
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
    throw error instanceof StartError ? error : new StartError(startLines(error));
  }
}

/** Numbers of all accounts. */
async function accountsOf(store: Store): Promise<number[]> {
  return (await store.directory(-1))?.accounts.map(({ no }) => no) ?? [];
}

/** Loads the code of the door, the largest part there is. Awaited late: until then a failure keeps still. */
function loadDoor(): Promise<typeof import('./api/server.ts')> {
  const loading = import('./api/server.ts');
  loading.catch(() => undefined);
  return loading;
}

/** The operator's database of places. */
async function readGeo(path: string, env: Env) {
  const { followGeo } = await import('./api/geo.ts');
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

/** The sandbox of another process. */
function sandboxElsewhere({ sandboxUrl, sandboxSmppPort }: Config): SandboxPlace {
  return { url: sandboxUrl, smppHost: new URL(sandboxUrl).hostname, smppPort: sandboxSmppPort };
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
