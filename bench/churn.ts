/**
 * Does what waits cost anything? Churn (a message is inserted, claimed, settled, reported, its webhook formed and settled: an
 * insert and five changes, each durable) in a store where 1 000 000 scheduled messages wait, against the same churn in an
 * empty store, in turns, through the very verbs that the server uses. Then the server itself on those million: what it costs
 * while nothing is due, and how long after a kill -9 it takes from its start to its first submission.
 *
 * A bare fdatasync runs between the bursts: its longest is what the disk alone adds to a stall. Rows are checked
 * after each burst; ends with code 1 when one is wrong, never because a machine is slow.
 *
 * --flat MINUTES: instead of all that, the same churn beside a sweep that removes what is older than half a minute, and how large the store
 * is each half minute: what comes and goes must not leave anything behind. The dead rows of PostgreSQL are left to its autovacuum.
 *
 * Over the whole churn on PostgreSQL somebody else holds a snapshot of both databases (not with --free), so that nothing dead can be cleared.
 *
 *   node bench/churn.ts [--waiting 1000000] [--minutes M | --rounds 7] [--seconds 3] [--part churn|server] [--idle 20]
 *     [--postgres URL [--only] [--free]] [--quick] [--flat MINUTES]
 *
 * --minutes: churn for so long on each engine, instead of so many rounds. --part: only the churn, or only the server. --postgres (or
 * POSTCARD_TEST_POSTGRES): on that server too (--only: there alone), in databases of their own that are dropped at the end. --quick: a few
 * thousand rows, for CI.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  closeSync,
  fdatasyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import pg from 'pg';
import type { Accept } from '../src/domain/rows.ts';
import { realEnv } from '../src/env.ts';
import type { Claim, Store } from '../src/store/contract.ts';
import { openPostgres } from '../src/store/postgres/postgres.ts';
import { connectSqlite, openSqlite } from '../src/store/sqlite/sqlite.ts';
import { freePorts, type Ports } from '../test/torture/server.ts';
import { bodyOf, rowsOf } from './rows.ts';

const { values: given } = parseArgs({
  options: {
    waiting: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    idle: { type: 'string' },
    postgres: { type: 'string' },
    only: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    flat: { type: 'string' },
    minutes: { type: 'string' },
    part: { type: 'string' },
    free: { type: 'boolean', default: false },
  },
});
const SERVER = given.postgres ?? process.env.POSTCARD_TEST_POSTGRES;
const MINUTES = given.minutes === undefined ? null : Number(given.minutes);
const QUICK = given.quick;
const WAITING = Number(given.waiting ?? (QUICK ? 3_000 : 1_000_000));
/** Of them, requests of one message with a schedule of their own: a line each. The rest are one bulk. */
const ALONE = Math.floor(WAITING / 50);
const BURST_MS = Number(given.seconds ?? (QUICK ? 0.3 : 3)) * 1000;
/** A burst on each side and what follows it. */
const ROUND_MS = 2 * BURST_MS + 2_500;
const ROUNDS = MINUTES === null ? Number(given.rounds ?? (QUICK ? 2 : 7)) : Math.ceil((MINUTES * 60_000) / ROUND_MS);
const IDLE_MS = Number(given.idle ?? (QUICK ? 1 : 20)) * 1000;
/** Messages in a round trip through all verbs; two of them are under way at a time. */
const BATCH = 200;
const PUMPS = 2;
const DAY = 86_400_000;
const KEY = randomBytes(20).toString('hex');
const HOOK = { url: 'http://127.0.0.1/hook', contentType: 'application/json' };

const root = fileURLToPath(new URL('..', import.meta.url));
const dir = mkdtempSync(join(root, 'data-bench-churn-'));
const children: ChildProcess[] = [];
const env = realEnv({ level: 'error' });

function check(condition: boolean, words: string): void {
  if (!condition) throw new Error(`wrong: ${words}`);
}

const median = (of: number[]): number => [...of].sort((a, b) => a - b)[Math.floor(of.length / 2)] ?? 0;
const show = (of: number[], digits: number): string =>
  `${median(of).toFixed(digits)} [${Math.min(...of).toFixed(digits)}..${Math.max(...of).toFixed(digits)}]`;
const line = (name: string, value: string): void => console.log(`  ${name.padEnd(64)} ${value}`);

// ------------------------------------------------------------------------------------------------------------- engines

/** A store that can be closed and opened again, and served by a server. */
interface Place {
  open(retentionMs?: number): Promise<{ store: Store; close(): Promise<void> }>;
  /** After it was filled. */
  settleDown(): Promise<void>;
  settings: Record<string, string>;
  /** Bytes on disk. */
  size(): Promise<number>;
  /** Holds a snapshot of it until the answer is called. */
  hold(): Promise<() => Promise<void>>;
}

function sqlitePlace(name: string): Place {
  const dataDir = join(dir, name);
  mkdirSync(dataDir, { recursive: true });
  return {
    settings: { POSTCARD_DATA_DIR: dataDir },
    settleDown: async () => {},
    size: async () => statSync(join(dataDir, 'postcard.db')).size,
    hold: async () => async () => {},
    async open(retentionMs = 3650 * DAY) {
      const onCrash = (words: string): never => {
        throw new Error(words);
      };
      const host = await openSqlite({ dataDir, retentionMs, onCrash });
      const store = connectSqlite(host.connect());
      return {
        store,
        async close() {
          await store.close();
          await host.close();
        },
      };
    },
  };
}

function postgresPlace(name: string, url: string): Place {
  const dataDir = join(dir, `pg-${name}`);
  mkdirSync(dataDir, { recursive: true });
  return {
    settings: { POSTCARD_DATA_DIR: dataDir, POSTCARD_STORE: url },
    settleDown: async () => void (await admin(url, 'VACUUM ANALYZE')),
    size: async () => Number((await admin(url, 'SELECT pg_database_size(current_database()) AS n'))[0]?.n),
    async hold() {
      if (given.free) return async () => {};
      const client = new pg.Client({ connectionString: url });
      await client.connect();
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
      return () => client.end();
    },
    async open(retentionMs = 3650 * DAY) {
      const store = await openPostgres({ url, node: 'bench', retentionMs, log: env.log, clock: env.clock });
      return { store, close: () => store.close() };
    },
  };
}

async function admin(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

// ---------------------------------------------------------------------------------------------------------------- rows

/** Numbers are taken in large blocks, as the server does. */
class Desk {
  readonly store: Store;
  lane = 0;
  #next = 0;
  #end = 0;

  constructor(store: Store) {
    this.store = store;
  }

  async open(): Promise<void> {
    this.lane = await this.store.lane('bench', { onUnknown: 'retry', reports: true });
  }

  async request(count: number, more: { bulkId?: string; sendAt?: number } = {}): Promise<Accept> {
    if (this.#next + count + 2 > this.#end) {
      const size = Math.max(100_000, count + 2);
      this.#next = await this.store.reserve(size);
      this.#end = this.#next + size;
    }
    const first = this.#next;
    this.#next += count + 2;
    const spec = { endpoint: HOOK, body: bodyOf('x'.repeat(300)) };
    const rows = rowsOf({ first, count, lane: this.lane }, { bulkId: more.bulkId ?? null, spec });
    return { ...rows, sendAt: more.sendAt ?? null };
  }

  async accept(...of: Parameters<Desk['request']>): Promise<number> {
    const rows = await this.request(...of);
    const answer = await this.store.accept(rows);
    check(answer.kind === 'accepted', `accept answered ${answer.kind}`);
    return rows.first + 2;
  }

  async fill(): Promise<void> {
    const sendAt = env.clock.now() + 30 * DAY;
    for (let left = WAITING - ALONE; left > 0; left -= 10_000) {
      await this.accept(Math.min(10_000, left), { bulkId: 'later', sendAt });
    }
    for (let left = ALONE; left > 0; left -= 1000) {
      const part = Array.from({ length: Math.min(1000, left) }, () => this.accept(1, { sendAt }));
      await Promise.all(part);
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- churn

interface Burst {
  perSecond: number;
  cpuUs: number;
  /** Longest answer of one verb, ms, and which verb it was. */
  stall: number;
  verb: string;
  done: number;
}

async function burst(desk: Desk, ms: number): Promise<Burst> {
  const { store, lane } = desk;
  let stall = 0;
  let longest = '';
  let done = 0;
  const timed = async <Result>(name: string, verb: Promise<Result>): Promise<Result> => {
    const begin = performance.now();
    const result = await verb;
    const took = performance.now() - begin;
    if (took > stall) [stall, longest] = [took, name];
    return result;
  };
  const begin = performance.now();
  const cpu = process.cpuUsage();
  async function pump(): Promise<void> {
    while (performance.now() - begin < ms) {
      await Promise.all(Array.from({ length: BATCH }, () => timed('accept', desk.accept(1))));
      // The other pump may take what this one brought; together they take everything.
      const claims: Claim[] = [];
      for (let tries = 0; claims.length < BATCH && tries < 20; tries++) {
        claims.push(...(await timed('claim', store.claim(lane, BATCH - claims.length, 90_000))).claims);
      }
      await Promise.all(
        claims.map(async (claim) => {
          const outcome = { kind: 'accepted', carrierMessageId: `m${claim.leader}` } as const;
          const settle = {
            lane,
            token: claim.token,
            leader: claim.leader,
            outcome,
            startedAt: env.clock.now(),
            tookMs: 1,
          };
          check(await timed('settle', store.settle(settle)), 'a settle found its claim gone');
        }),
      );
      await Promise.all(
        claims.map((claim) =>
          timed(
            'report',
            store.report({
              carrier: 'bench',
              carrierMessageId: `m${claim.leader}`,
              addresses: [],
              kind: 'retrieved',
              words: 'retrieved',
            }),
          ),
        ),
      );
      done += claims.length;
      await tell();
    }
  }
  async function tell(): Promise<void> {
    const { webhooks } = await timed('webhookNext', store.webhookNext(8, 30_000));
    await Promise.all(
      webhooks.map(async ({ no, token }) =>
        timed(
          'webhookSettle',
          store.webhookSettle({ no, token, ok: true, status: 200, tookMs: 1, excerpt: '', body: null }),
        ),
      ),
    );
  }
  await Promise.all(Array.from({ length: PUMPS }, pump));
  const seconds = (performance.now() - begin) / 1000;
  const used = process.cpuUsage(cpu);
  const result = { perSecond: done / seconds, cpuUs: (used.user + used.system) / done, stall, verb: longest, done };
  // What is left over of the last round, outside the measure.
  for (let tries = 0; tries < 200; tries++) {
    const { claims } = await store.claim(lane, BATCH, 90_000);
    for (const claim of claims) await finish(desk, claim);
    await tell();
    const { inFlight, webhooksWaiting } = await freshStats(store);
    if (claims.length === 0 && inFlight === 0 && webhooksWaiting === 0) return result;
  }
  throw new Error('wrong: a burst is not finished after its end');
}

async function finish(desk: Desk, claim: Claim): Promise<void> {
  const { store, lane } = desk;
  const { token, leader } = claim;
  const outcome = { kind: 'accepted', carrierMessageId: `m${leader}` } as const;
  await store.settle({ lane, token, leader, outcome, startedAt: env.clock.now(), tookMs: 1 });
  const addresses: string[] = [];
  await store.report({
    carrier: 'bench',
    carrierMessageId: `m${leader}`,
    addresses,
    kind: 'retrieved',
    words: 'retrieved',
  });
}

/** Ms after which a finished message may go in the flat run. */
const SOON_MS = 30_000;
/** Messages of each half minute in the flat run: a rate that a busy machine holds, so that sizes can be compared. */
const HALF_MINUTE = 6_000;

async function flat(name: string, place: Place, minutes: number): Promise<void> {
  console.log(`${name}: churn and retention for ${minutes} minutes; messages so far, MiB`);
  const { store, close } = await place.open(SOON_MS);
  const desk = new Desk(store);
  await desk.open();
  let ended = false;
  const sweeping = (async () => {
    while (!ended) if (!(await store.sweep())) await env.clock.sleep(200);
  })();
  const sizes: number[] = [];
  let done = 0;
  for (let at = 0; at < minutes * 2; at++) {
    const until = performance.now() + 30_000;
    for (const goal = (at + 1) * HALF_MINUTE; done < goal && performance.now() < until; )
      done += (await burst(desk, 1_000)).done;
    await env.clock.sleep(Math.max(0, until - performance.now()));
    sizes.push((await place.size()) / 1024 ** 2);
    line(String(done), (sizes.at(-1) ?? 0).toFixed(1));
  }
  ended = true;
  await sweeping;
  await close();
  const half = sizes.slice(Math.floor(sizes.length / 2));
  const growth =
    Math.max(...half.slice(Math.floor(half.length / 2))) / Math.max(...half.slice(0, Math.ceil(half.length / 2)));
  line('largest of the last quarter / of the quarter before it (aim <= 1.1)', growth.toFixed(2));
}

/** The store counts at most once a second. */
async function freshStats(store: Store): ReturnType<Store['stats']> {
  await env.clock.sleep(1100);
  return store.stats();
}

/** Longest of a series of fdatasync, ms. */
function bareSync(): number {
  const fd = openSync(join(dir, 'sync.log'), 'a');
  const block = Buffer.alloc(16_384, 0x61);
  let longest = 0;
  for (let n = 0; n < (QUICK ? 5 : 100); n++) {
    const begin = performance.now();
    writeSync(fd, block);
    fdatasyncSync(fd);
    longest = Math.max(longest, performance.now() - begin);
  }
  closeSync(fd);
  return longest;
}

async function churn(empty: Place, full: Place): Promise<void> {
  const [a, b] = [await empty.open(), await full.open()];
  const desks = { empty: new Desk(a.store), full: new Desk(b.store) };
  const figures: Record<'empty' | 'full', Burst[]> = { empty: [], full: [] };
  const syncs: number[] = [];
  const held: (() => Promise<void>)[] = [];
  try {
    for (const desk of Object.values(desks)) await desk.open();
    const begin = performance.now();
    await desks.full.fill();
    line(`filling: ${WAITING} waiting messages, ${ALONE} with a line of their own`, `${seconds(begin)} s`);
    await full.settleDown();
    // Caches, plans and first pages of both.
    for (const desk of Object.values(desks)) await burst(desk, BURST_MS / 3);
    for (const place of [empty, full]) held.push(await place.hold());
    const sizes = [await empty.size(), await full.size()];
    for (let round = 0; round < ROUNDS; round++) {
      const order = round % 2 === 0 ? (['empty', 'full'] as const) : (['full', 'empty'] as const);
      for (const which of order) {
        syncs.push(bareSync());
        figures[which].push(await burst(desks[which], BURST_MS));
      }
    }
    for (const [n, place] of [empty, full].entries()) {
      const mib = [sizes[n] ?? 0, await place.size()].map((bytes) => (bytes / 1024 ** 2).toFixed(0));
      line(`${n === 0 ? 'empty' : 'full'}: size at the start and at the end, MiB`, mib.join(' -> '));
    }
    const { waiting, inFlight } = await freshStats(b.store);
    check(waiting === WAITING && inFlight === 0, `${waiting} wait, not ${WAITING}, and ${inFlight} are in flight`);
    const { rows } = await b.store.logs({ account: 1, limit: 1000, generalStatus: 'DELIVERED' });
    const wanted = Math.min(
      1000,
      figures.full.reduce((sum, one) => sum + one.done, 0),
    );
    check(rows.length >= wanted, `${rows.length} of ${wanted} are shown as delivered`);
  } finally {
    for (const release of held) await release();
    await a.close();
    await b.close();
  }
  const of = (which: 'empty' | 'full', pick: (one: Burst) => number): number[] => figures[which].map(pick);
  const ratios = (pick: (one: Burst) => number): number[] =>
    figures.full.map((one, n) => pick(one) / pick(figures.empty[n] as Burst));
  line(
    'empty: messages/s',
    show(
      of('empty', (one) => one.perSecond),
      0,
    ),
  );
  line(
    'full: messages/s',
    show(
      of('full', (one) => one.perSecond),
      0,
    ),
  );
  const rate = median(of('full', (one) => one.perSecond)) / median(of('empty', (one) => one.perSecond));
  line(
    `RATIO full / empty, messages/s (aim >= 0.85); by round: ${show(
      ratios((one) => one.perSecond),
      2,
    )}`,
    rate.toFixed(2),
  );
  line(
    'empty: CPU us a message in this process',
    show(
      of('empty', (one) => one.cpuUs),
      0,
    ),
  );
  line(
    'full: CPU us a message in this process',
    show(
      of('full', (one) => one.cpuUs),
      0,
    ),
  );
  line(
    'empty: longest answer of a verb in a burst, ms',
    show(
      of('empty', (one) => one.stall),
      0,
    ),
  );
  line(
    'full: longest answer of a verb in a burst, ms (aim <= 100)',
    show(
      of('full', (one) => one.stall),
      0,
    ),
  );
  const worst = figures.full.reduce((a, b) => (b.stall > a.stall ? b : a));
  line('full: longest of all, ms', `${worst.stall.toFixed(0)} (${worst.verb})`);
  const third = Math.ceil(figures.full.length / 3);
  const late = median(of('full', (one) => one.perSecond).slice(-third));
  const early = median(of('full', (one) => one.perSecond).slice(0, third));
  line('full: messages/s, last third of the rounds / first third', (late / early).toFixed(2));
  line('longest bare fdatasync between the bursts, ms', show(syncs, 1));
}

const seconds = (begin: number): string => ((performance.now() - begin) / 1000).toFixed(1);

// -------------------------------------------------------------------------------------------------------------- server

interface Server {
  child: ChildProcess;
  startedAt: number;
}

function startServer(place: Place, ports: Ports, sinkPort: number): Server {
  const config = join(dir, 'server.yaml');
  const carrier = `name: bench, type: mm7, url: 'http://127.0.0.1:${sinkPort}/mm7', concurrency: 64, onUnknown: retry`;
  writeFileSync(config, `carriers: [{ ${carrier} }]\n`);
  const startedAt = performance.now();
  const child = spawn(process.execPath, [join(root, 'src/cli/postcard.ts'), 'serve'], {
    env: {
      PATH: process.env.PATH,
      POSTCARD_CONFIG: config,
      POSTCARD_PORT: String(ports.api),
      POSTCARD_CARRIER_PORT: String(ports.carrier),
      POSTCARD_SANDBOX: 'false',
      POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
      POSTCARD_API_KEY: KEY,
      // A node that comes back under its name has its lanes at once; another waits for the lease to run out.
      POSTCARD_NODE: 'bench',
      POSTCARD_LOG_LEVEL: 'warn',
      // As the command sets it (bin/postcard.cjs).
      NODE_COMPILE_CACHE: join(root, 'node_modules/.cache/postcard'),
      ...place.settings,
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  children.push(child);
  return { child, startedAt };
}

async function until(words: string, holds: () => Promise<boolean>): Promise<void> {
  for (const end = performance.now() + 120_000; performance.now() < end; ) {
    if (await holds().catch(() => false)) return;
    await env.clock.sleep(10);
  }
  throw new Error(`wrong: ${words} for two minutes`);
}

const isReady = (ports: Ports) => async (): Promise<boolean> =>
  (await fetch(`http://127.0.0.1:${ports.api}/readyz`)).ok;

/** Ms of processor time that a process, all its threads, has used. */
function used(child: ChildProcess): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function kill(server: Server): Promise<void> {
  const gone = once(server.child, 'exit');
  server.child.kill('SIGKILL');
  await gone;
}

async function waitingCost(places: [name: string, Place][]): Promise<void> {
  for (const [name, place] of places) {
    const ports = await freePorts();
    const sink = spawn(process.execPath, [join(root, 'bench/sink.ts'), String(ports.carrier)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(sink);
    const [printed] = (await once(createInterface({ input: sink.stdout as NodeJS.ReadableStream }), 'line')) as [
      string,
    ];
    const sinkPort = Number(printed);
    const submits = async (): Promise<number> =>
      ((await (await fetch(`http://127.0.0.1:${sinkPort}/count`)).json()) as { submits: number }).submits;

    const first = startServer(place, ports, sinkPort);
    await until('the server is not ready', isReady(ports));
    // What a start leaves to do: checkpoints, and marks of all that was filled in past the server.
    await env.clock.sleep(QUICK ? 200 : 30_000);
    const before = used(first.child);
    const begin = performance.now();
    await env.clock.sleep(IDLE_MS);
    const share = (used(first.child) - before) / (performance.now() - begin);
    check((await submits()) === 0, 'a message left that is not due for a month');
    await kill(first);

    // One that is due: accepted by a node that then died.
    const { store, close } = await place.open();
    const desk = new Desk(store);
    await desk.open();
    await desk.accept(1);
    await close();
    const again = startServer(place, ports, sinkPort);
    await until('the server is not ready', isReady(ports));
    const readyMs = performance.now() - again.startedAt;
    await until('nothing was submitted', async () => (await submits()) > 0);
    const tookMs = performance.now() - again.startedAt;
    const cpuMs = used(again.child);
    await kill(again);
    sink.kill('SIGKILL');
    const aims = name === 'full' ? [' (aim <= 1)', ' (aim <= 3)'] : ['', ''];
    line(`${name}: server with nothing due, % of a core${aims[0]}`, (share * 100).toFixed(2));
    const words = `${(tookMs / 1000).toFixed(2)} (ready after ${(readyMs / 1000).toFixed(2)}; ${(cpuMs / 1000).toFixed(2)} of CPU)`;
    line(`${name}: start after kill -9 to first submission, s${aims[1]}`, words);
  }
}

/** What waits, for the server alone. */
async function fillOnly(full: Place): Promise<void> {
  const { store, close } = await full.open();
  const desk = new Desk(store);
  await desk.open();
  await desk.fill();
  await close();
  await full.settleDown();
}

// ------------------------------------------------------------------------------------------------------------------ run

async function measure(name: string, empty: Place, full: Place): Promise<void> {
  if (given.flat !== undefined) return flat(name, empty, Number(given.flat));
  console.log(`${name}: ${ROUNDS} rounds of ${BURST_MS / 1000} s each, in turns; median [min..max]`);
  if (given.part !== 'server') await churn(empty, full);
  else await fillOnly(full);
  if (given.part === 'churn') return;
  await waitingCost([
    ['empty', empty],
    ['full', full],
  ]);
}

try {
  console.log(`${process.version}, ${new Date(env.clock.now()).toISOString()}`);
  if (!given.only || !SERVER) {
    await measure('SQLite', sqlitePlace('empty'), sqlitePlace('full'));
  }
  if (SERVER) {
    const names = ['empty', 'full'].map((name) => `postcard_churn_${name}_${process.pid}`);
    const urls = names.map((name) => {
      const url = new URL(SERVER);
      url.pathname = `/${name}`;
      return url.href;
    });
    try {
      for (const name of names) await admin(SERVER, `CREATE DATABASE ${name}`);
      await measure('PostgreSQL', postgresPlace('empty', urls[0] as string), postgresPlace('full', urls[1] as string));
    } finally {
      for (const name of names) await admin(SERVER, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    }
  }
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
}
