/**
 * How long a page of logs takes over many messages (default 1 000 000): one account, requests of 1 to 1000 destinations, a fifth of
 * the messages not final. Rows are written straight into the tables; the sweep that makes the marks of destinations and the queries are
 * the engine's own. The embedded engine, or with --postgres a database of its own on that server (which is dropped at the end).
 *
 *   node bench/logs.ts [--rows 10000000] [--rounds 200] [--file PATH | --postgres URL]
 *
 * Prints how long a step of that sweep takes, and p50, p99 and max in ms of the store's part of each kind of question.
 */
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { realEnv } from '../src/env.ts';
import type { MessageFilter, MessageRow, Page } from '../src/store/contract.ts';
import { openPostgres } from '../src/store/postgres/postgres.ts';
import { openEngine } from '../src/store/sqlite/engine.ts';
import { createReader } from '../src/store/sqlite/read.ts';
import { createReads } from '../src/store/sqlite/rows.ts';
import { BLOCK } from '../src/store/sqlite/sought.ts';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '1000000' },
    file: { type: 'string' },
    rounds: { type: 'string', default: '200' },
    postgres: { type: 'string' },
  },
});
const ROWS = Number(values.rows);
const ROUNDS = Number(values.rounds);
const NOW = Date.UTC(2026, 10, 24, 12);
const HOUR = 3_600_000;
/** All came in within this time. */
const SPAN = 7 * 24 * HOUR;

/** What is asked. */
interface Subject {
  logs(filter: MessageFilter): Promise<Page<MessageRow>>;
  /** The first row that a statement finds; `$1` is its one value. */
  row(sql: string, value: number): Promise<Record<string, unknown>>;
  close(): Promise<void>;
}

const dir = values.file === undefined ? mkdtempSync(join(tmpdir(), 'postcard-logs-')) : null;
const file = values.file ?? join(dir as string, 'logs.db');

function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function fill(): void {
  openEngine({ file, retentionMs: 365 * 24 * HOUR, now: NOW, synchronous: 'OFF' }).close();
  const db = new DatabaseSync(file);
  db.exec('PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; PRAGMA cache_size = -200000');
  const spec =
    db.prepare(`INSERT INTO spec (no, account, bulk, first, "end", accepted_at, endpoint, intermediate, sender, campaign,
    entity, application, body) VALUES (?, 1, ?, ?, ?, ?, NULL, 0, ?, ?, NULL, NULL, ?)`);
  const bulk =
    db.prepare(`INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us, limited_at, paused_at, pauses,
    canceled_at) VALUES (?, 1, ?, ?, NULL, 0, 0, NULL, NULL, '[]', NULL)`);
  const message = db.prepare(`INSERT INTO message (no, account, spec, "to", key, state, status, error, sent_at, done_at)
    VALUES (?, 1, ?, ?, NULL, ?, ?, 0, ?, ?)`);
  const body = JSON.stringify({
    sender: 'Shop',
    content: { messageSegments: [{ type: 'TEXT', text: 'x'.repeat(120) }] },
  });
  const next = random(1);
  let no = 1;
  let rows = 0;
  for (let request = 0; rows < ROWS; request++) {
    if (request % 50 === 0) db.exec(request === 0 ? 'BEGIN' : 'COMMIT; BEGIN');
    const size = Math.min(ROWS - rows, [1, 10, 100, 1000][Math.floor(next() * 4)] as number);
    const at = Math.floor(NOW - SPAN + (rows / ROWS) * SPAN);
    const bulkNo = no++;
    const specNo = no++;
    bulk.run(bulkNo, `bulk-${request}`, at);
    spec.run(specNo, bulkNo, no, no + size, at, `Shop ${request % 20}`, `campaign-${request % 200}`, body);
    for (let n = 0; n < size; n++, no++, rows++) {
      const draw = next();
      const [state, status] = draw < 0.7 ? [3, 5] : draw < 0.8 ? [4, 9] : draw < 0.9 ? [1, 3] : [0, 26];
      const to = String(41_790_000_000 + Math.floor(next() * 9_999_999));
      message.run(no, specNo, to, state as number, status as number, at + 1000, state === 3 ? at + 9000 : null);
    }
  }
  db.exec('COMMIT');
  db.close();
}

/** The engine's own sweep until it has made all marks; its steps are timed. */
function mark(): void {
  const engine = openEngine({ file, retentionMs: 365 * 24 * HOUR, now: NOW, synchronous: 'OFF' });
  const waiting = new DatabaseSync(file, { readOnly: true });
  const left = waiting.prepare('SELECT coalesce(sum("end" - first), 0) AS n FROM unsought');
  const times: number[] = [];
  for (let now = NOW; Number((left.get() as { n: number }).n) >= BLOCK; now += 2_000) {
    const from = performance.now();
    engine.apply([['sweep', null]], now);
    times.push(performance.now() - from);
  }
  waiting.close();
  engine.close();
  show(`a step of the sweep that makes ${BLOCK} marks`, times);
}

function show(name: string, times: number[]): void {
  times.sort((a, b) => a - b);
  const at = (share: number): string =>
    (times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0).toFixed(1);
  console.log(
    `${name.padEnd(56)} p50 ${at(0.5).padStart(7)}  p99 ${at(0.99).padStart(7)}  max ${at(1).padStart(7)} ms`,
  );
}

async function embedded(): Promise<Subject> {
  if (!existsSync(file)) {
    console.error(`writing ${ROWS} messages to ${file} ...`);
    fill();
    mark();
  }
  console.error(`${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`);
  const db = new DatabaseSync(file, { readOnly: true });
  db.exec('PRAGMA cache_size = -32768');
  const reader = createReader(db, createReads(db));
  return {
    logs: async (filter) => reader.logs(filter),
    row: async (sql, value) => db.prepare(sql.replace('$1', '?')).get(value) as Record<string, unknown>,
    async close() {
      db.close();
      if (dir !== null) rmSync(dir, { recursive: true });
    },
  };
}

const FILL = [
  `INSERT INTO spec (no, account, bulk, first, "end", accepted_at, endpoint, intermediate, sender, campaign, entity, application, body)
   SELECT upto - size, 1, upto - size - 1, upto - size + 1, upto + 1, $2::bigint - $3::bigint + ($3::bigint * upto) / $1::bigint, NULL, false,
     'Shop ' || g % 20, 'campaign-' || g % 200, NULL, NULL, '{"sender":"Shop","content":{"messageSegments":[]}}'
   FROM (SELECT g, size, sum(size + 2) OVER (ORDER BY g) AS upto FROM
     (SELECT g, (ARRAY[1, 10, 100, 1000])[1 + floor(random() * 4)::integer] AS size FROM generate_series(1, ($1::bigint / 270)::integer) g) r) s`,
  `INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us)
   SELECT bulk, account, 'bulk-' || no, accepted_at, NULL, 0, 0 FROM spec`,
  `INSERT INTO message (no, account, spec, "to", key, state, status, error, sent_at, done_at)
   SELECT n, 1, s.no, (41790000000 + floor(random() * 9999999))::bigint::text, NULL, CASE WHEN n % 10 < 8 THEN 3 WHEN n % 10 = 8 THEN 4 ELSE 0 END,
     CASE WHEN n % 10 < 8 THEN 5 WHEN n % 10 = 8 THEN 9 ELSE 26 END, 0, s.accepted_at + 1000, s.accepted_at + 9000
   FROM spec s CROSS JOIN LATERAL generate_series(s.first, s."end" - 1) n`,
  'ANALYZE',
];

async function server(url: string): Promise<Subject> {
  const name = `postcard_logs_${process.pid}`;
  const at = new URL(url);
  at.pathname = `/${name}`;
  const admin = new pg.Client(url);
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  const env = realEnv({ level: 'error' });
  // As of the time of the rows: nothing is too old to be kept.
  let now = NOW;
  const options = { url: at.href, node: 'bench', retentionMs: 365 * 24 * HOUR, log: env.log, clock: env.clock };
  const store = await openPostgres({ ...options, testNow: () => now });
  const client = new pg.Client(at.href);
  await client.connect();
  await client.query('SET search_path = postcard');
  console.error(`writing about ${ROWS} messages to ${name} ...`);
  for (const statement of FILL) {
    await client.query(statement, statement.includes('$1') ? [ROWS, NOW, SPAN] : []);
  }
  const times: number[] = [];
  for (let left = Number.POSITIVE_INFINITY; left >= 16_384; now += 10_000) {
    const from = performance.now();
    await store.sweep();
    times.push(performance.now() - from);
    left = Number((await client.query('SELECT sum("end" - first) AS n FROM unsought')).rows[0].n ?? 0);
  }
  show('a sweep while marks are made', times);
  return {
    logs: (filter) => store.logs(filter),
    row: async (sql, value) => (await client.query(sql, [value])).rows[0],
    async close() {
      await client.end();
      await store.close();
      await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
      await admin.end();
    },
  };
}

const subject = await (values.postgres === undefined ? embedded() : server(values.postgres));
const last = Number((await subject.row('SELECT max(no) AS no FROM message WHERE no > $1', 0)).no);
const next = random(7);
const some = async (at = Math.floor(next() * last)): Promise<{ no: number; to: string; bulk: number }> => {
  const row = await subject.row(
    `SELECT m.no, m."to", s.bulk FROM message m JOIN spec s ON s.no = m.spec WHERE m.no >= $1 ORDER BY m.no LIMIT 1`,
    at,
  );
  return { no: Number(row.no), to: String(row.to), bulk: Number(row.bulk) };
};
const since = NOW - 48 * HOUR;

const QUESTIONS: Record<string, () => Promise<Partial<MessageFilter>>> = {
  'the newest 50': async () => ({ since }),
  'a page in the middle': async () => ({ before: (await some()).no, since: 0 }),
  'one message': async () => ({ messages: { nos: [(await some()).no], keys: [] } }),
  'one bulk': async () => ({ bulks: { nos: [(await some()).bulk], ids: [] } }),
  'a sender, 48 h': async () => ({ sender: 'Shop 7', since }),
  'a campaign, 48 h': async () => ({ campaigns: ['campaign-77'], since }),
  'UNDELIVERABLE, 48 h': async () => ({ generalStatus: 'UNDELIVERABLE', since }),
  'an hour two days ago': async () => ({ since: since - HOUR, until: since }),
  'a destination, 48 h': async () => ({ destination: (await some()).to, since }),
  'a destination, all that is kept': async () => ({ destination: (await some()).to }),
  'a destination of the newest 4 000': async () => ({
    destination: (await some(last - Math.floor(next() * 4_000))).to,
    since,
  }),
  'a destination that is nowhere': async () => ({ destination: `49${Math.floor(next() * 1e9)}` }),
};

for (const [name, ask] of Object.entries(QUESTIONS)) {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const filter = { account: 1, limit: 50, ...(await ask()) };
    const from = performance.now();
    const page = await subject.logs(filter);
    times.push(performance.now() - from);
    if (filter.destination !== undefined && page.next !== null)
      throw new Error('a search by destination was cut short');
  }
  show(name, times);
}
await subject.close();
