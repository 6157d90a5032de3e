/**
 * Which store there is, and everything that hangs on that: how it is opened once for a process and reached from its threads,
 * where the bytes of content lie, what its files are, and what can be seen of it from outside. Engines are loaded by name
 * when the configuration asks for them: an embedded installation never loads PostgreSQL's client, nor the other way round.
 *
 * Fails: opening rejects with StartError; what is asked from outside fails as the engine's own functions say.
 */
import { join } from 'node:path';
import type { MessagePort } from 'node:worker_threads';
import type { Config } from '../config.ts';
import { isSqlite, withoutPassword } from '../configured.ts';
import type { Env } from '../env.ts';
import type { ContentIndex, Store } from '../store/contract.ts';
import type { ServerFacts } from '../store/postgres/inspect.ts';
import { createSealer, type Reseal, withSealed } from '../store/seal.ts';
import type { BackupResult, DataFiles, RestoreResult } from '../store/sqlite/backup.ts';
import { connectSqlite, openSqlite, type SqlitePorts, sqliteFiles } from '../store/sqlite/sqlite.ts';
import { StartError } from './start-error.ts';

export type { ServerFacts } from '../store/postgres/inspect.ts';

const DAY_MS = 86_400_000;

/** How a thread reaches the store: over ports to the embedded engine's threads, or by connections of its own. */
export type StoreLink =
  | { sqlite: SqlitePorts }
  | { postgres: { url: string; node: string; retentionMs: number; retentionMessages: number } };

/** What has to be transferred with a link. */
export function portsOf(link: StoreLink | null): MessagePort[] {
  return link && 'sqlite' in link ? [link.sqlite.writer, link.sqlite.reader] : [];
}

/** The store of this process. */
export interface StoreHost {
  /** For the thread that opened it. */
  store: Store & Reseal;
  /** For one more thread. */
  link(): StoreLink;
  /** After every other thread has closed its own. */
  close(): Promise<void>;
}

/** Opens the configured store, brought up to date and judged once. `onCrash`: it is lost, and the process should end. */
export async function openStore(
  config: Config,
  node: string,
  env: Env,
  onCrash: (why: string) => void,
): Promise<StoreHost> {
  const { retentionMessages } = config;
  const retentionMs = config.retentionDays * DAY_MS;
  try {
    const blobs = await blobsOf(config, env);
    if (!isSqlite(config.store)) {
      const link: StoreLink = { postgres: { url: config.store, node, retentionMs, retentionMessages } };
      const engine = await openPostgres(link, env);
      const store = await orClosed(engine, () => dressed(engine, blobs, config, env));
      if (engine.wall.role === null) {
        env.log.warn(
          { why: engine.wall.why },
          'no row-level security: accounts are kept apart by our statements alone',
        );
      }
      return { store, link: () => link, close: () => store.close() };
    }
    const file = config.store.slice('sqlite:'.length);
    const host = await openSqlite({ dataDir: config.dataDir, file, retentionMs, retentionMessages, onCrash });
    const store = await orClosed(host, () => dressed(connectSqlite(host.connect()), blobs, config, env));
    const close = async (): Promise<void> => {
      await store.close();
      await host.close();
    };
    return { store, link: () => ({ sqlite: host.connect() }), close };
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError([`the store ${withoutPassword(config.store)} cannot be opened: ${(error as Error).message}`]);
  }
}

/** What is made of something open, which is closed where that fails: its lock is somebody else's then. */
async function orClosed<Made>(open: { close(): Promise<void> }, make: () => Made): Promise<Made> {
  try {
    return make();
  } catch (error) {
    await open.close();
    throw error;
  }
}

/** The store as another thread sees it. */
export async function connectStore(link: StoreLink, config: Config, env: Env): Promise<Store> {
  const blobs = await blobsOf(config, env);
  return dressed('sqlite' in link ? connectSqlite(link.sqlite) : await openPostgres(link, env), blobs, config, env);
}

async function openPostgres(link: Extract<StoreLink, { postgres: unknown }>, env: Env) {
  const engine = await import('../store/postgres/postgres.ts');
  return engine.openPostgres({ ...link.postgres, log: env.log, clock: env.clock });
}

type Around = (store: Store & ContentIndex) => Store;

/** An engine with what lies around both alike: sealed secrets, and content in a place of its own. */
function dressed(engine: Store & ContentIndex, blobs: Around | null, config: Config, env: Env): Store & Reseal {
  // Also without a key: what was sealed once must never be taken for the secret itself.
  const sealed = withSealed(engine, createSealer(config.secretKey?.split(',') ?? []), env);
  return blobs === null ? sealed : { ...blobs(sealed), reseal: sealed.reseal };
}

/** What keeps the bytes of content elsewhere; null = they are in the store. */
async function blobsOf(config: Config, env: Env): Promise<Around | null> {
  if (config.contentStore === null) return null;
  const { openS3, readS3, withBlobs } = await import('../store/blobs.ts');
  const read = readS3(config);
  if (typeof read === 'string') throw new StartError([`POSTCARD_CONTENT_STORE: ${read}`]);
  if (read === null) return null;
  const blobs = openS3(read, env);
  return (store) => withBlobs(store, blobs, env);
}

// --------------------------------------------------------------------------------------------------- seen from outside

/** What is wrong with the configured content store, '' = nothing. */
export async function probeContentStore(config: Config, env: Env): Promise<string> {
  const { openS3, probeBlobs, readS3 } = await import('../store/blobs.ts');
  const read = readS3(config);
  return typeof read === 'string' ? read : read === null ? '' : probeBlobs(openS3(read, env), env);
}

/** Looks at the PostgreSQL servers of the configured store and changes nothing there. */
export async function inspectStore(config: Config, env: Env): Promise<ServerFacts[]> {
  const { inspectPostgres } = await import('../store/postgres/inspect.ts');
  return inspectPostgres(config.store, env.clock);
}

/** Copies everything of an embedded installation into the new directory `dest`, beside a running server. */
export async function backupData(
  config: Config,
  dest: string,
  options: { env: Env; version: string; stop: AbortSignal },
): Promise<BackupResult> {
  const { env, version, stop } = options;
  const { backupSqlite } = await import('../store/sqlite/backup.ts');
  return backupSqlite({ from: dataFiles(config), dest, version, now: () => env.clock.now(), stop });
}

/** Puts a backup where a server with this configuration looks for its data. `force` moves what is there aside. */
export async function restoreData(
  config: Config,
  source: string,
  options: { env: Env; force: boolean },
): Promise<RestoreResult> {
  const { restoreSqlite } = await import('../store/sqlite/backup.ts');
  return restoreSqlite({ source, to: dataFiles(config), force: options.force, now: options.env.clock.now() });
}

function dataFiles(config: Config): DataFiles {
  const { file, contentFile, lockFile } = sqliteFiles(config.dataDir, config.store.slice('sqlite:'.length));
  const sandbox = sandboxFile(config.dataDir);
  return { log: file, content: contentFile, sandbox, locks: [lockFile, sandbox.replace(/\.db$/, '.lock')] };
}

/** The file of the carrier in a box. */
export function sandboxFile(dataDir: string): string {
  return join(dataDir, 'sandbox.db');
}
