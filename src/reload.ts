/**
 * Takes a changed configuration over while the server runs: carriers, routes, the number table and who must give a reseller code.
 * Looks at the YAML file, the files it names and our certificate every `WATCH_MS`, and when it is asked (SIGHUP).
 *
 * Promises: a configuration is checked as a whole; with one mistake in it nothing changes, and each mistake is one line in the
 * log. What cannot change without a restart is named, once, and stays as it is. One change at a time, in order.
 *
 * Fails: a change that cannot be brought about is logged; the next reload tries it again.
 */
import { statSync } from 'node:fs';
import { type CarrierChanges, changedKeys, diffCarriers } from './carrier-settings.ts';
import { type Config, loadConfig, type Sources } from './config.ts';
import type { Env, Timer } from './env.ts';

const WATCH_MS = 2_000;
/** What a reload can change. */
const RELOADABLE = ['carriers', 'routes', 'networks', 'resellerCodeRequired', 'failoverAfterUnknown'] as const;

export interface ReloaderOptions {
  env: Env;
  /** The configuration that runs. */
  config: Config;
  sources: Sources;
  /** Names the state of a file: differs when the file does, '' = there is none. */
  stateOf(path: string): string;
  /** Brings the change about. `certificate`: our own was renewed. Rejects = it could not be. */
  apply(next: Config, changes: CarrierChanges & { certificate: boolean }): Promise<void>;
}

/** What came of a reload. */
export type Reloaded = 'changed' | 'unchanged' | 'invalid' | 'failed';

export interface Reloader {
  /** Reads everything again, whether it looks changed or not. Never rejects. */
  reload(): Promise<Reloaded>;
  /** Ends the watch; resolves when a change that is under way has ended. */
  stop(): Promise<void>;
}

/** Watches from now on. */
export function createReloader(options: ReloaderOptions): Reloader {
  const { env, stateOf, apply } = options;
  let { config } = options;
  let files = read().paths;
  let seen = states();
  let certificate = stateOfCertificate(config);
  /** Told already. */
  let unheard = '';
  let timer: Timer | null = null;
  let stopped = false;
  let turn: Promise<unknown> = Promise.resolve();

  function read(): { loaded: ReturnType<typeof loadConfig>; paths: string[] } {
    const paths = new Set<string>();
    const { sources } = options;
    const loaded = loadConfig({
      ...sources,
      readFile(path) {
        paths.add(path);
        return sources.readFile(path);
      },
    });
    return { loaded, paths: [...paths] };
  }

  function states(): string {
    const own = certificates(config).filter((path) => path !== null);
    return [...files, ...own].map((path) => `${path} ${stateOf(path)}`).join('\n');
  }

  function certificates({ tlsCert, tlsKey, carrierTlsCert, carrierTlsKey }: Config): (string | null)[] {
    return [tlsCert, tlsKey, carrierTlsCert, carrierTlsKey];
  }

  function stateOfCertificate(config: Config): string {
    return certificates(config)
      .map((path) => (path === null ? '' : stateOf(path)))
      .join(' ');
  }

  async function now(): Promise<Reloaded> {
    const { loaded, paths } = read();
    files = paths;
    seen = states();
    if (!loaded.ok) {
      for (const mistake of loaded.mistakes) env.log.error({ mistake }, 'configuration not taken over');
      return 'invalid';
    }
    const fixed = changedKeys(config, loaded.config).filter((key) => !(RELOADABLE as readonly string[]).includes(key));
    const told = fixed.map((key) => `${key} ${JSON.stringify(loaded.config[key as keyof Config])}`).join('\n');
    if (fixed.length > 0 && told !== unheard) {
      env.log.warn({ settings: fixed }, 'these settings changed, and count from the next start on');
    }
    unheard = told;
    const { carriers, routes, networks, resellerCodeRequired, failoverAfterUnknown } = loaded.config;
    const next: Config = { ...config, carriers, routes, networks, resellerCodeRequired, failoverAfterUnknown };
    const changes = diffCarriers(config, next);
    const renewed = stateOfCertificate(config);
    const { added, removed, changed, routing } = changes;
    if (added.length + removed.length + changed.length === 0 && !routing && renewed === certificate) return 'unchanged';
    try {
      await apply(next, { ...changes, certificate: renewed !== certificate });
    } catch (error) {
      env.log.error({ err: error }, 'configuration not taken over');
      return 'failed';
    }
    config = next;
    certificate = renewed;
    env.log.info(
      {
        added: added.map(({ name }) => name),
        removed: removed.map(({ name }) => name),
        changed: changed.map(({ carrier, keys }) => `${carrier.name}: ${keys.join(', ')}`),
        routing,
      },
      'configuration taken over',
    );
    return 'changed';
  }

  function queued<T>(act: () => Promise<T>): Promise<T> {
    const done = turn.then(act);
    turn = done.catch(() => undefined);
    return done;
  }

  function watch(): void {
    timer = env.clock.setTimeout(() => {
      void queued(async () => {
        // A file that is being written is looked at again when it has come to rest.
        if (!stopped && states() !== seen) await now();
      }).finally(() => {
        if (!stopped) watch();
      });
    }, WATCH_MS);
  }
  watch();

  return {
    reload: () => queued(async () => (stopped ? 'unchanged' : now())),
    async stop() {
      stopped = true;
      timer?.cancel();
      await turn;
    },
  };
}

/** The state of a file on this machine: when it was changed last, how long it is, which one it is (links move to change many at once). */
export function fileState(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false, bigint: true });
  return found ? `${found.mtimeNs} ${found.size} ${found.ino}` : '';
}
