/**
 * Proof of the row model: 1 000 000 messages in one paused bulk, 10 000 bulks of one waiting all the time, one account sending
 * all the time. Prints what a claim of 64, steering the big bulk, an accept and a step of the sweep cost over the churn.
 * Ends with code 1 when a row is wrong, never for a slow machine.
 *
 * The embedded engine: before the commit's sync (synchronous=OFF here; what a sync costs is the disk's business and measured
 * in run.ts). The control is hashing, about as long as a claim: its p99 is what the machine adds, whoever else uses it.
 * Checkpoints run between the rounds, as the reader thread's do.
 * PostgreSQL: through the store, so with round trips and synced commits, in a database of its own that is dropped at the end.
 * The control is the smallest transaction (a KB of content): what a commit costs by itself. A transaction of somebody
 * else's is held open over all of the churn (not with --free), so that no dead row can be cleared.
 *
 *   node bench/model.ts [minutes of churn, default 0.2] [directory] [--postgres URL [--free]]
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseArgs } from 'node:util';
import pg from 'pg';
import type { Accept } from '../src/domain/rows.ts';
import { realEnv } from '../src/env.ts';
import type { Claim, Settle, Store } from '../src/store/contract.ts';
import { openPostgres } from '../src/store/postgres/postgres.ts';
import { type Op, openEngine } from '../src/store/sqlite/engine.ts';

const { values: given, positionals } = parseArgs({
  allowPositionals: true,
  options: { postgres: { type: 'string' }, free: { type: 'boolean', default: false } },
});
const minutes = Number(positionals[0] ?? '0.2');
const BIG = 1_000_000;
const SMALL = 10_000;
const BATCH = 64;
/** Small requests on their way at a time. */
const TOGETHER = 256;
/** p99 of a claim, and of steering, before what the commit costs by itself. */
const AIM_CLAIM_MS = 5;
const AIM_STEER_MS = 10;

/** A store under proof. */
interface Subject {
  store: Pick<Store, 'reserve' | 'lane' | 'accept' | 'claim' | 'bulkSteer' | 'sweep'>;
  /** Settles claims and reports what was submitted, together. */
  finish(settles: Settle[]): Promise<void>;
  control(): Promise<void>;
  controlName: string;
  /** A statement `SELECT count(*) AS n ...`. */
  count(sql: string): Promise<number>;
  /** Called before the churn, and every 50 rounds of it. */
  churns(): Promise<void>;
  rested(): Promise<void>;
  /** Words on what has grown. */
  growth(): Promise<string>;
  close(): Promise<void>;
}

const reportOf = (settle: Settle) => ({
  carrier: 'bench',
  carrierMessageId: `m${settle.leader}`,
  addresses: [],
  kind: 'retrieved' as const,
  words: 'retrieved',
});

function embedded(directory: string): Subject {
  const dir = mkdtempSync(join(directory, 'postcard-model-'));
  const file = join(dir, 'model.db');
  const engine = openEngine({ file, retentionMs: 1e12, now: Date.now(), synchronous: 'OFF' });
  const checkpoint = new DatabaseSync(file);
  const block = Buffer.alloc(768 * 1024, 1);
  const apply = (ops: Op[]): unknown[] =>
    engine.apply(ops, Date.now()).map((result) => {
      if (!('ok' in result)) throw new Error(JSON.stringify(result));
      return result.ok;
    });
  const one = async <Result>(...op: Op): Promise<Result> => apply([op])[0] as Result;
  return {
    store: {
      reserve: (count) => one('reserve', count),
      lane: (carrier, policy) => one('lane', { carrier, ...policy }),
      accept: (request) => one('accept', request),
      claim: (lane, limit, leaseMs) => one('claim', { lane, limit, leaseMs }),
      bulkSteer: (account, bulk, changes) => one('bulkSteer', { account, bulk, changes }),
      sweep: () => one('sweep', null),
    },
    async finish(settles) {
      const ops: Op[] = settles.map((settle) => ['settle', settle]);
      const answers = apply([...ops, ...settles.map((settle): Op => ['report', reportOf(settle)])]);
      const good = answers.filter((answer) => answer === true || (answer as { known?: boolean }).known === true);
      check(good.length === 2 * settles.length, 'a settle or report was not taken');
    },
    async control() {
      createHash('sha256').update(block).digest();
    },
    controlName: 'control: hashing',
    count: async (sql) => (checkpoint.prepare(sql).get() as { n: number }).n,
    churns: async () => undefined,
    async rested() {
      const large = statSync(`${file}-wal`).size > 64 * 1024 * 1024;
      checkpoint.exec(`PRAGMA wal_checkpoint(${large ? 'RESTART' : 'PASSIVE'})`);
    },
    growth: async () => `${Math.round(statSync(file).size / 1024 / 1024)} MiB`,
    async close() {
      checkpoint.close();
      engine.close();
      rmSync(dir, { recursive: true });
    },
  };
}

async function postgres(server: string): Promise<Subject> {
  const database = `postcard_model_${randomBytes(5).toString('hex')}`;
  const url = new URL(server);
  url.pathname = `/${database}`;
  const admin = new pg.Client({ connectionString: server });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${database}`);
  const env = realEnv({ level: 'warn' });
  const store = await openPostgres({
    url: url.href,
    node: 'model',
    retentionMs: 1e12,
    log: env.log,
    clock: env.clock,
  });
  const side = new pg.Client({ connectionString: url.href, options: '-c search_path=postcard' });
  await side.connect();
  const other = new pg.Client({ connectionString: url.href });
  await other.connect();
  return {
    store,
    async finish(settles) {
      const fresh = await Promise.all(settles.map((settle) => store.settle(settle)));
      const told = await Promise.all(settles.map((settle) => store.report(reportOf(settle))));
      check(fresh.every(Boolean) && told.every((one) => one.known), 'a settle or report was not taken');
    },
    async control() {
      const bytes = randomBytes(1024);
      await store.putContent(createHash('sha256').update(bytes).digest('hex'), bytes);
    },
    controlName: 'control: 1 KB stored',
    count: async (sql) => Number((await side.query(sql)).rows[0].n),
    async churns() {
      await side.query('VACUUM (ANALYZE)');
      if (given.free) return;
      await other.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
    },
    rested: async () => undefined,
    async growth() {
      const { rows } =
        await side.query(`SELECT relname AS name, pg_total_relation_size(relid) AS bytes, n_dead_tup AS dead
        FROM pg_stat_user_tables WHERE relname IN ('bulk', 'line', 'turn', 'run', 'flight', 'wake', 'mark', 'tally') ORDER BY relname`);
      return rows
        .map(({ name, bytes, dead }) => `${name} ${(Number(bytes) / 1024 / 1024).toFixed(1)} MiB (${dead} dead)`)
        .join(', ');
    },
    async close() {
      await other.end();
      await side.end();
      await store.close();
      await admin.query(`DROP DATABASE ${database} WITH (FORCE)`);
      await admin.end();
    },
  };
}

function check(condition: boolean, words: string): void {
  if (!condition) throw new Error(`wrong: ${words}`);
}

/** Ms by the clock. (A thread's processor time is counted in ticks of 4 ms here: too coarse to help on a shared machine.) */
async function timed(work: () => Promise<unknown>): Promise<number> {
  const begin = process.hrtime.bigint();
  await work();
  return Number(process.hrtime.bigint() - begin) / 1e6;
}

function summary(name: string, costs: number[], aim?: number): void {
  const sorted = [...costs].sort((a, b) => a - b);
  const at = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0;
  const fifth = Math.max(1, Math.floor(costs.length / 5));
  const median = (some: number[]): number => [...some].sort((a, b) => a - b)[Math.floor(some.length / 2)] ?? 0;
  const growth = (median(costs.slice(-fifth)) / median(costs.slice(0, fifth))).toFixed(2);
  const figures = [0.5, 0.9, 0.99, 1].map((q) => at(q).toFixed(2).padStart(6)).join(' ');
  const verdict = aim === undefined ? '' : `   aim p99 <= ${aim}: ${at(0.99) <= aim ? 'held' : 'missed'}`;
  console.log(`${name.padEnd(28)} n ${String(costs.length).padStart(6)}   ${figures}   ${growth}${verdict}`);
}

/** What a claim costs in units of what was measured beside it. */
function ratios(claims: number[], controls: number[]): void {
  const at = (costs: number[], q: number): number =>
    [...costs].sort((a, b) => a - b)[Math.min(costs.length - 1, Math.floor(q * costs.length))] ?? 0;
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((q) => (at(claims, q) / at(controls, q)).toFixed(1));
  console.log(`RATIO claim / control: p50 ${p50}, p90 ${p90}, p99 ${p99}`);
}

function request(lane: number, first: number, account: number, count: number, bulkId: string | null): Accept {
  const start = first + 2;
  return {
    account,
    first,
    bulkId,
    sendAt: null,
    intervalUs: null,
    specs: [
      {
        first: start,
        end: start + count,
        sender: 'Bench',
        campaign: null,
        entity: null,
        application: null,
        endpoint: null,
        intermediate: false,
        notify: true,
        body: '{"sender":"Bench","content":{"messageSegments":[{"type":"TEXT","text":"hello"}]}}',
        uploads: [],
        links: [],
      },
    ],
    runs: [
      { first: start, end: start + count, spec: first + 1, lane, group: false, window: null, validityMs: 172_800_000 },
    ],
    to: Array.from({ length: count }, (_, i) => String(441134960000 + (i % 100_000))),
    refused: [],
    keys: [],
    idem: null,
  };
}

async function prove(subject: Subject): Promise<void> {
  const { store } = subject;
  const lane = await store.lane('bench', { onUnknown: 'hold', reports: true });
  let next = 0;
  let end = 0;
  /** Numbers for `count` messages in blocks, as the door takes them. */
  async function numbers(count: number): Promise<number> {
    if (next + count + 2 > end) {
      next = await store.reserve(20_000);
      end = next + 20_000;
    }
    next += count + 2;
    return next - count - 2;
  }
  async function accept(account: number, count: number, bulkId: string | null, first: number): Promise<void> {
    const answer = await store.accept(request(lane, first, account, count, bulkId));
    check(answer.kind === 'accepted' && answer.duplicates.length === 0, `accept answered ${answer.kind}`);
  }
  async function steer(kind: 'pause' | 'resume'): Promise<void> {
    const answer = await store.bulkSteer(1, { id: 'big' }, [{ kind }]);
    check(answer.kind === 'done', `steering answered ${answer.kind}`);
  }
  let bulks = 0;
  async function acceptSmall(count: number): Promise<void> {
    for (let left = count; left > 0; left -= TOGETHER) {
      const firsts: number[] = [];
      while (firsts.length < Math.min(TOGETHER, left)) firsts.push(await numbers(1));
      await Promise.all(firsts.map((first) => accept(2, 1, `bulk-${bulks++}`, first)));
    }
  }

  console.log(`filling: ${BIG} messages in one paused bulk; ${SMALL} bulks of one`);
  await accept(1, 1, 'big', await numbers(1));
  await steer('pause');
  const fill = await timed(async () => {
    for (let n = 0; n < BIG / 10_000; n++) await accept(1, 10_000, 'big', await numbers(10_000));
  });
  const small = await timed(() => acceptSmall(SMALL));
  console.log(`${BIG} in ${(fill / 1000).toFixed(1)} s, ${SMALL} bulks in ${(small / 1000).toFixed(1)} s`);
  await subject.churns();
  console.log(`before the churn: ${await subject.growth()}`);

  const claims: number[] = [];
  const accepts: number[] = [];
  const steers: number[] = [];
  const sweeps: number[] = [];
  const finishes: number[] = [];
  const controls: number[] = [];
  const deadline = Date.now() + minutes * 60_000;
  let rounds = 0;
  let submitted = 0;
  while (Date.now() < deadline) {
    // What the last round took comes in again: half a request of the live account, half new bulks of one.
    const live = await numbers(BATCH / 2);
    accepts.push(await timed(() => accept(3, BATCH / 2, null, live)));
    await acceptSmall(BATCH / 2);

    const taken: Claim[] = [];
    claims.push(
      await timed(async () => {
        const { claims: found, specs } = await store.claim(lane, BATCH, 90_000);
        taken.push(...found);
        check(!specs.some((spec) => spec.account === 1), 'a message of the paused bulk was claimed');
      }),
    );
    check(taken.length === BATCH, `a claim took ${taken.length} of ${BATCH}`);
    controls.push(await timed(() => subject.control()));
    const settles = taken.map(
      ({ token, leader }): Settle => ({
        lane,
        token,
        leader,
        outcome: { kind: 'accepted', carrierMessageId: `m${leader}` },
        startedAt: Date.now(),
        tookMs: 1,
      }),
    );
    finishes.push(await timed(() => subject.finish(settles)));
    submitted += taken.length;
    if (rounds % 20 === 0) {
      // The line wakes for an instant only: nothing is claimed in between.
      steers.push(await timed(() => steer('resume')));
      steers.push(await timed(() => steer('pause')));
      sweeps.push(await timed(() => store.sweep()));
    }
    if (rounds % 50 === 0) await subject.rested();
    rounds++;
  }
  const delivered = await subject.count('SELECT count(*) AS n FROM message WHERE state = 3');
  const waiting = await subject.count('SELECT count(*) AS n FROM message WHERE state = 0');
  check(delivered === submitted, `${submitted} were submitted, ${delivered} are delivered`);
  check(waiting === BIG + 1 + SMALL, `${waiting} wait, not ${BIG + 1 + SMALL}`);
  check((await subject.count('SELECT count(*) AS n FROM flight')) === 0, 'claims are left open');

  console.log(`after the churn: ${await subject.growth()}`);
  console.log('ms: p50, p90, p99, max; medians of the last fifth / the first fifth');
  const half = Math.floor(claims.length / 2);
  summary(`claim of ${BATCH}, first half`, claims.slice(0, half), AIM_CLAIM_MS);
  summary(`claim of ${BATCH}, second half`, claims.slice(half), AIM_CLAIM_MS);
  summary(`claim of ${BATCH}`, claims);
  summary(subject.controlName, controls);
  ratios(claims, controls);
  summary(`settle and report of ${BATCH}`, finishes);
  summary(`accept of ${BATCH / 2}`, accepts);
  summary(`pause or resume of ${BIG}`, steers, AIM_STEER_MS);
  summary('a step of the sweep', sweeps);
  console.log(`${rounds} rounds, ${submitted} submitted and delivered`);
}

const subject = given.postgres ? await postgres(given.postgres) : embedded(positionals[1] ?? tmpdir());
try {
  await prove(subject);
} finally {
  await subject.close();
}
