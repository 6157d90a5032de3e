/**
 * How long a page of logs takes over many messages (default 10 000 000), on the embedded engine: one account, requests of 1 to
 * 1000 destinations, a fifth of the messages not final. Rows are written straight into the tables; the queries are the engine's own.
 *
 *   node bench/logs.ts [--rows 10000000] [--file PATH] [--rounds 200]
 *
 * Prints p50, p99 and max in ms of the store's part of each kind of question, and what a page that finds nothing walks over.
 */
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseArgs } from 'node:util';
import type { MessageFilter } from '../src/store/contract.ts';
import { openEngine } from '../src/store/sqlite/engine.ts';
import { createReader } from '../src/store/sqlite/read.ts';
import { createReads } from '../src/store/sqlite/rows.ts';

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '10000000' },
    file: { type: 'string' },
    rounds: { type: 'string', default: '200' },
  },
});
const ROWS = Number(values.rows);
const ROUNDS = Number(values.rounds);
const NOW = Date.UTC(2026, 10, 24, 12);
const HOUR = 3_600_000;
/** All came in within this time. */
const SPAN = 7 * 24 * HOUR;

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

if (!existsSync(file)) {
  console.error(`writing ${ROWS} messages to ${file} ...`);
  fill();
}
console.error(`${(statSync(file).size / 2 ** 20).toFixed(0)} MiB`);

const db = new DatabaseSync(file, { readOnly: true });
db.exec('PRAGMA cache_size = -32768');
const reader = createReader(db, createReads(db));
const last = Number((db.prepare('SELECT max(no) AS no FROM message').get() as { no: number }).no);
const next = random(7);
const some = (): { no: number; to: string; bulk: number } => {
  const row = db
    .prepare(
      `SELECT m.no, m."to", s.bulk FROM message m JOIN spec s ON s.no = m.spec WHERE m.no >= ? ORDER BY m.no LIMIT 1`,
    )
    .get(Math.floor(next() * last));
  return row as { no: number; to: string; bulk: number };
};
const since = NOW - 48 * HOUR;

const QUESTIONS: Record<string, () => Partial<MessageFilter>> = {
  'the newest 50': () => ({ since }),
  'a page in the middle': () => ({ before: some().no, since: 0 }),
  'one message': () => ({ messages: { nos: [some().no], keys: [] } }),
  'one bulk': () => ({ bulks: { nos: [some().bulk], ids: [] } }),
  'a sender, 48 h': () => ({ sender: 'Shop 7', since }),
  'a campaign, 48 h': () => ({ campaigns: ['campaign-77'], since }),
  'UNDELIVERABLE, 48 h': () => ({ generalStatus: 'UNDELIVERABLE', since }),
  'an hour two days ago': () => ({ since: since - HOUR, until: since }),
  'a destination of the newest 100 000': () => {
    const row = db
      .prepare(`SELECT "to" FROM message WHERE no >= ? ORDER BY no LIMIT 1`)
      .get(last - Math.floor(next() * 100_000));
    return { destination: (row as { to: string }).to, since, limit: 1 };
  },
  'a destination that is nowhere: one call of the store': () => ({ destination: '49', since }),
};

for (const [name, ask] of Object.entries(QUESTIONS)) {
  const slow = name.includes('nowhere');
  const times: number[] = [];
  for (let round = 0; round < (slow ? Math.min(10, ROUNDS) : ROUNDS); round++) {
    const filter = { account: 1, limit: 50, ...ask() };
    const from = performance.now();
    reader.logs(filter);
    times.push(performance.now() - from);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): string =>
    (times[Math.min(times.length - 1, Math.floor(times.length * share))] as number).toFixed(1);
  console.log(
    `${name.padEnd(56)} p50 ${at(0.5).padStart(7)}  p99 ${at(0.99).padStart(7)}  max ${at(1).padStart(7)} ms`,
  );
}

const from = performance.now();
let calls = 0;
for (let before: number | undefined; ; ) {
  const page = reader.logs({ account: 1, limit: 50, destination: '49', ...(before === undefined ? {} : { before }) });
  calls++;
  if (page.next === null) break;
  before = page.next;
}
console.log(`a destination that is nowhere, to the end: ${(performance.now() - from).toFixed(0)} ms in ${calls} calls`);
db.close();
if (dir !== null) rmSync(dir, { recursive: true });
