/**
 * A PostgreSQL server of the torture's own, in a directory of its own, that may be killed at will.
 *
 * A standby of one copies it, follows it over a stream, and takes over when it is promoted.
 *
 * Promises: started with the server's safe defaults (fsync on); whoever kills it can start it again on the same port; it
 * runs as an unprivileged user also where the torture runs as root, because PostgreSQL refuses to.
 * Fails: rejects when there are no server programs (see `clusterPrograms`), or when it does not start within START_MS.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { freePort } from './server.ts';

/** How long a server may take to end before it is told harder. */
const END_MS = 20_000;
const START_MS = 60_000;
/** Where distributions that keep several versions put the server's programs. */
const VERSIONS = '/usr/lib/postgresql';

export interface Cluster {
  port: number;
  /** URL of a database, through `port` (a proxy's, where given). */
  url(database: string, port?: number): string;
  /** Process id of the server itself; null = it does not run. */
  pid(): number | null;
  start(): Promise<void>;
  /** kill -9 of the server; resolves when it is gone. Its children notice and go too. */
  kill(): Promise<void>;
  /** kill -9 of one backend: the server drops all connections, recovers and goes on by itself. */
  killBackend(database: string): Promise<boolean>;
  /** `immediate` = as after a crash; `fast` = connections are ended in order. */
  stop(how: 'fast' | 'immediate'): Promise<void>;
  /** A copy that follows this one; from its return on, a commit here waits until it is on the copy's disk, too. */
  standby(): Promise<Cluster>;
  /** Makes a standby take writes. It does not wait for a standby of its own. */
  promote(): Promise<void>;
  close(): Promise<void>;
}

/** Directory of initdb and postgres; null = not installed. */
export function clusterPrograms(): string | null {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a)) : [];
  const places = [...versions.map((version) => join(VERSIONS, version, 'bin')), ...(process.env.PATH ?? '').split(':')];
  return places.find((place) => existsSync(join(place, 'initdb')) && existsSync(join(place, 'postgres'))) ?? null;
}

/** The user that the server runs as. */
function owner(): { uid: number; gid: number } | null {
  if (process.getuid?.() !== 0) return null;
  const id = (flag: string): number => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/** Makes a cluster with the given databases, in a fresh directory under `parent`, and starts it. */
export function startCluster(databases: string[], parent = tmpdir()): Promise<Cluster> {
  return openCluster(databases, parent, null);
}

/** A cluster of its own, or a copy of the one at port `follows`. */
async function openCluster(databases: string[], parent: string, follows: number | null): Promise<Cluster> {
  const programs = clusterPrograms();
  if (programs === null) throw new Error('no PostgreSQL server programs found');
  const user = owner();
  const dir = mkdtempSync(join(parent, 'postcard-pg-'));
  if (user) chownSync(dir, user.uid, user.gid);
  const data = join(dir, 'data');
  const as = { ...user, cwd: dir, env: { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' } };
  const quiet = { ...as, stdio: 'ignore' } as const;
  if (follows === null) {
    const init = ['-D', data, '-U', 'postcard', '-A', 'trust', '--no-sync', '-E', 'UTF8'];
    execFileSync(join(programs, 'initdb'), init, quiet);
  } else {
    const from = ['-h', '127.0.0.1', '-p', String(follows), '-U', 'postcard'];
    execFileSync(join(programs, 'pg_basebackup'), [...from, '-D', data, '-R', '-X', 'stream', '-c', 'fast'], quiet);
  }
  const port = await freePort();
  let server: ChildProcess | null = null;
  let output = '';

  const url = (database: string, through = port): string => `postgres://postcard@127.0.0.1:${through}/${database}`;

  /** Asks a server that runs; one that recovers from what was done to it is waited for. */
  async function ask<Row>(database: string, text: string): Promise<Row[]> {
    for (const until = Date.now() + START_MS; ; ) {
      try {
        return await askOnce<Row>(database, text);
      } catch (error) {
        // An answer to the question itself is the answer: class 57 is a server that goes, comes or was hurt.
        const { code = '', severity } = error as { code?: string; severity?: string };
        if ((severity !== undefined && !code.startsWith('57')) || !running() || Date.now() > until) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  async function askOnce<Row>(database: string, text: string): Promise<Row[]> {
    const client = new pg.Client({
      connectionString: url(database),
      connectionTimeoutMillis: 3_000,
      query_timeout: 5_000,
    });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return (await client.query(text)).rows as Row[];
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  function running(): boolean {
    return server !== null && server.exitCode === null && server.signalCode === null;
  }

  async function start(): Promise<void> {
    const until = Date.now() + START_MS;
    for (;;) {
      if (!running()) {
        // After a kill -9 the old children may hold the shared memory for a moment: it refuses, and is asked again.
        const args = ['-D', data, '-p', String(port), '-k', dir, '-c', 'listen_addresses=127.0.0.1'];
        const settings = ['-c', 'shared_buffers=64MB', '-c', 'max_connections=80', '-c', 'max_wal_size=256MB'];
        server = spawn(join(programs as string, 'postgres'), [...args, ...settings], {
          ...as,
          stdio: ['ignore', 'ignore', 'pipe'],
        });
        server.stderr?.on('data', (chunk: Buffer) => {
          output = (output + chunk.toString()).slice(-8_000);
        });
      }
      const up = await askOnce('postgres', 'SELECT 1').then(
        () => true,
        () => false,
      );
      if (up) return;
      if (Date.now() > until) throw new Error(`PostgreSQL did not start:\n${output}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    if (!server || !running()) return;
    const gone = once(server, 'exit').then(() => true);
    // A server that was hurt a moment before may miss the signal to its checkpointer and never end: then harder.
    for (const harder of [signal, 'SIGQUIT', 'SIGKILL'] as const) {
      server.kill(harder);
      const late = new Promise<false>((resolve) => setTimeout(() => resolve(false), END_MS));
      if (await Promise.race([gone, late])) return;
    }
    await gone;
  }

  await start();
  for (const database of databases) await ask('postgres', `CREATE DATABASE "${database}"`);
  return {
    port,
    url,
    pid: () => (running() ? (server?.pid ?? null) : null),
    start,
    kill: () => end('SIGKILL'),
    async killBackend(database) {
      const found = await ask<{ pid: number }>(
        'postgres',
        `SELECT pid FROM pg_stat_activity WHERE datname = '${database}' ORDER BY random() LIMIT 1`,
      );
      const pid = found[0]?.pid;
      if (pid === undefined) return false;
      try {
        process.kill(pid, 'SIGKILL');
        return true;
      } catch {
        return false;
      }
    },
    async standby() {
      const copy = await openCluster([], parent, port);
      // After the copy was made, which would have taken the setting over.
      await ask('postgres', "ALTER SYSTEM SET synchronous_standby_names = '*'");
      await ask('postgres', 'SELECT pg_reload_conf()');
      for (const until = Date.now() + START_MS; Date.now() < until; ) {
        const rows = await ask<{ state: string }>('postgres', 'SELECT sync_state AS state FROM pg_stat_replication');
        if (rows.some((row) => row.state === 'sync')) return copy;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      await copy.close();
      throw new Error('the standby does not follow');
    },
    async promote() {
      await ask('postgres', 'SELECT pg_promote()');
    },
    stop: (how) => end(how === 'fast' ? 'SIGINT' : 'SIGQUIT'),
    async close() {
      await end('SIGQUIT');
      for (let tries = 0; ; tries++) {
        try {
          rmSync(dir, { recursive: true, force: true });
          return;
        } catch (error) {
          // A child of a killed server may still be writing.
          if (tries === 50) throw error;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
    },
  };
}
