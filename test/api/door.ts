/**
 * A whole customer's door for tests: real HTTP on a free port, a real store: SQLite in a directory of its own, or PostgreSQL in a
 * database of its own.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createApi } from '../../src/api/server.ts';
import { loadConfig } from '../../src/config.ts';
import { createIds, type Ids } from '../../src/domain/ids.ts';
import { createRouting, type Routing } from '../../src/domain/routing.ts';
import type { Outcome } from '../../src/domain/submission.ts';
import { type Clock, type LogLine, realClock, testEnv } from '../../src/env.ts';
import type { Store } from '../../src/store/contract.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import { connectSqlite, openSqlite } from '../../src/store/sqlite/sqlite.ts';
import { ownDatabase } from '../postgres.ts';
import { URL as NOT_A_URL, NOW } from './send.table.ts';

export const KEY = 'door-key-0123456789abcdef';
/** Of another account. */
export const OTHER_KEY = 'other-key-0123456789abcdef';
export const CARRIER = 'test';

export interface Given {
  status: number;
  headers: Headers;
  body: string;
}

export interface OpenDoor {
  url: string;
  port: number;
  /** Where the server keeps its files. */
  dataDir: string;
  store: Store;
  ids: Ids;
  /** What was logged. */
  lines: LogLine[];
  /** A request with the first account's key. */
  ask(path: string, init?: RequestInit): Promise<Given>;
  /** POST /mms/2/messages. */
  send(body: unknown, headers?: Record<string, string>): Promise<Given>;
  /** Another certificate for new connections. */
  renew(tls: { cert: string; key: string }): void;
  /** Everything the server writes to a connection on which `text` was written, until it closes or `enough` matches. */
  raw(text: string | Buffer, enough?: RegExp): Promise<string>;
  /** The one carrier's lane takes what waits and says `outcome` to each. */
  submit(outcome: (to: string) => Outcome): Promise<void>;
  close(): Promise<void>;
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

type Opened = { store: Store; end(): Promise<unknown> };
const RETENTION_MS = 7 * 86_400_000;

async function embedded(dataDir: string): Promise<Opened> {
  const host = await openSqlite({
    dataDir,
    retentionMs: RETENTION_MS,
    synchronous: 'OFF',
    onCrash: (message) => {
      throw new Error(message);
    },
  });
  return { store: connectSqlite(host.connect()), end: () => host.close() };
}

async function shared(): Promise<Opened> {
  const database = ownDatabase('door');
  await database.make();
  const { log } = testEnv();
  const { url } = database;
  const store = await openPostgres({ url, node: 'door', retentionMs: RETENTION_MS, log, clock: realClock });
  return { store, end: database.drop };
}

/**
 * `wrap`: another store in front of the real one, to make it fail. The door's wall clock stands at the golden table's NOW
 * unless `now` gives another (the store's does not). Rejects as `listen` does, with everything closed.
 */
export async function openDoor(
  options: {
    settings?: Record<string, string>;
    wrap?: (store: Store) => Store;
    port?: number;
    now?: () => number;
    /** Where messages go, given the one lane; all to it unless given. */
    routing?: (lane: number) => Routing;
    /** 'postgres': the store is a database of its own; only where the tests have a server. */
    engine?: 'sqlite' | 'postgres';
    /** PEM: the door speaks https. */
    tls?: { cert: string; key: string };
    /** The door's clock in whole, instead of `now`; the store's is not it. */
    clock?: Clock;
  } = {},
): Promise<OpenDoor> {
  const dataDir = mkdtempSync(join(tmpdir(), 'postcard-door-'));
  const loaded = loadConfig({
    env: { POSTCARD_DATA_DIR: dataDir, ...options.settings },
    cwd: dataDir,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  const { store, end } = await (options.engine === 'postgres' ? shared() : embedded(dataDir));
  await store.putKey({ hash: sha256(KEY), account: 1, label: 'test' }, false);
  await store.putKey({ hash: sha256(OTHER_KEY), account: 2, label: 'test' }, false);
  const lane = await store.lane(CARRIER, { onUnknown: 'hold', reports: true });
  const ids = createIds((await store.identity()).idKey);
  const { random, log, lines } = testEnv();
  const api = await createApi({
    store: options.wrap ? options.wrap(store) : store,
    env: { clock: options.clock ?? { ...realClock, now: options.now ?? (() => NOW) }, random, log },
    config: loaded.config,
    ...(options.tls ? { tls: options.tls } : {}),
    ids,
    routing: options.routing?.(lane) ?? createRouting([[lane]]),
    passwordWork: { N: 1024, r: 8, p: 1 },
    carrierCounters: async () => ({
      lanes: [{ lane: CARRIER, inFlight: 2, outcomes: { accepted: 3 }, blocked: false }],
      webhooks: { posts: 4 },
    }),
    checkCallout: (url) => {
      const parsed = URL.parse(url);
      return parsed !== null && /^https?:$/.test(parsed.protocol) ? null : NOT_A_URL;
    },
  });
  const close = async (): Promise<void> => {
    await api.close();
    await store.close();
    await end();
    rmSync(dataDir, { recursive: true, force: true });
  };
  const url = await api.listen({ host: '127.0.0.1', port: options.port ?? 0 }).catch(async (error: unknown) => {
    await close();
    throw error;
  });
  const port = Number(new URL(url).port);

  async function ask(path: string, init: RequestInit = {}): Promise<Given> {
    const answer = await fetch(url + path, { ...init, headers: { authorization: `App ${KEY}`, ...init.headers } });
    return { status: answer.status, headers: answer.headers, body: await answer.text() };
  }

  return {
    url,
    port,
    dataDir,
    store,
    ids,
    lines,
    ask,
    renew: (tls) => api.renew(tls),
    send: (body, headers = {}) =>
      ask('/mms/2/messages', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body:
          typeof body === 'string' || body instanceof Uint8Array
            ? (body as NonNullable<RequestInit['body']>)
            : JSON.stringify(body),
      }),
    raw: (text, enough) =>
      new Promise((resolve, reject) => {
        const socket = connect(port, '127.0.0.1', () => socket.write(text));
        let got = '';
        socket.setEncoding('utf8');
        socket.on('data', (chunk: string) => {
          got += chunk;
          if (enough?.test(got)) socket.destroy();
        });
        socket.on('close', () => resolve(got));
        socket.on('error', (error) => (got === '' ? reject(error) : resolve(got)));
      }),
    async submit(outcome) {
      const { claims } = await store.claim(lane, 100, 60_000);
      for (const { token, leader, members } of claims) {
        const to = members[0]?.to ?? '';
        await store.settle({ lane, token, leader, outcome: outcome(to), startedAt: Date.now(), tookMs: 12 });
      }
    },
    close,
  };
}
