/**
 * What row-level security costs on PostgreSQL: the same verbs of accounts with the wall and without, in turns on one database, so
 * that only the ratio says something.
 *
 *   node bench/wall.ts --postgres postgres://... [--rounds 20] [--accounts 8]
 *
 * The server must let us create databases. accept 1 = requests of one message, 32 at a time, over all accounts; accept 100 = of a
 * hundred, 4 at a time; the reads are of one account, 8 at a time, over what was accepted.
 */
import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { realEnv } from '../src/env.ts';
import { openPostgres, type PostgresStore } from '../src/store/postgres/postgres.ts';
import { createDesk, type Desk } from '../test/conformance/desk.ts';

const { values: given } = parseArgs({
  options: {
    postgres: { type: 'string' },
    rounds: { type: 'string', default: '20' },
    accounts: { type: 'string', default: '8' },
  },
});
if (given.postgres === undefined) throw new Error('--postgres is needed');
const rounds = Number(given.rounds);
const accounts = Number(given.accounts);

const database = `postcard_wall_bench_${randomBytes(4).toString('hex')}`;
const admin = new pg.Client({ connectionString: given.postgres });
await admin.connect();
await admin.query(`CREATE DATABASE ${database}`);
const url = new URL(given.postgres);
url.pathname = `/${database}`;
const env = realEnv({ level: 'silent' });

function deskOf(store: PostgresStore): Desk {
  const never = (): never => {
    throw new Error('not here');
  };
  return createDesk({ store, advance: never, now: () => env.clock.now(), crash: never, close: () => store.close() });
}

async function many(count: number, width: number, work: (n: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let n = next++; n < count; n = next++) await work(n);
  };
  await Promise.all(Array.from({ length: width }, worker));
}

try {
  const open = () => openPostgres({ url: url.href, node: 'bench', retentionMs: 1e9, log: env.log, clock: env.clock });
  const [walled, bare] = [await open(), await open()];
  if (walled.wall.role === null) throw new Error(walled.wall.why);
  (bare.wall as { role: string | null }).role = null;
  const sides = [walled, bare].map((store) => ({ store, desk: deskOf(store) }));
  for (const { desk } of sides) await desk.open();

  const hundred = Array.from({ length: 100 }, (_, n) => `49170${1_000_000 + n}`);
  const nos: number[] = [];
  const verbs: Record<string, (side: (typeof sides)[number]) => Promise<void>> = {
    'accept 1': ({ desk }) =>
      many(256, 32, async (n) => {
        const no = await desk.one({ account: 1 + (n % accounts), endpoint: 'https://shop.example/hook' });
        if (n % accounts === 0) nos.push(no);
      }),
    'accept 100': ({ desk }) => many(16, 4, (n) => desk.accept({ account: 1 + (n % accounts), to: hundred })),
    story: ({ store }) => many(64, 8, (n) => store.story(1, { no: nos[(n * 7919) % nos.length] as number })),
    'logs, a page of 50': ({ store }) => many(32, 8, () => store.logs({ account: 1, limit: 50 })),
    feed: ({ store }) => many(64, 8, () => store.feed(1, -1, 50)),
    uploadNames: ({ store }) => many(128, 8, () => store.uploadNames(1, ['none'])),
  };
  const took = new Map<string, [number[], number[]]>();
  for (let round = -2; round < rounds; round++) {
    for (const [verb, run] of Object.entries(verbs)) {
      // Who is first changes from round to round.
      for (const at of round % 2 === 0 ? [0, 1] : [1, 0]) {
        const began = performance.now();
        await run(sides[at] as (typeof sides)[number]);
        const times = took.get(verb) ?? [[], []];
        if (round >= 0) times[at]?.push(performance.now() - began);
        took.set(verb, times);
      }
    }
  }
  const median = (times: number[]): number => times.sort((a, b) => a - b)[times.length >> 1] as number;
  for (const [verb, [one, other]] of took) {
    const ratios = one.map((time, n) => time / (other[n] as number));
    console.log(
      `${verb.padEnd(20)} with ${median(one).toFixed(1)} ms, without ${median(other).toFixed(1)} ms; ratio of medians ${(median(one) / median(other)).toFixed(2)}, median of ratios ${median(ratios).toFixed(2)}`,
    );
  }
  await Promise.all([walled.close(), bare.close()]);
} finally {
  await admin.query(`DROP DATABASE ${database} WITH (FORCE)`);
  await admin.end();
}
