/**
 * The marks of destinations (store/sought.ts) on PostgreSQL: made by the sweep of one node at a time, a block a step, and read by
 * logs. `unsought` is filled by a trigger, so that what nodes of older versions accept is found too.
 */
import { markOf, newestFirst, numbersIn, packBlock, WAITING_MOST } from '../sought.ts';
import { SOUGHT_LOCK } from './schema.ts';
import { type Ask, list, plain, sql, type Tx, texts } from './tx.ts';

/** Messages of a block. Nobody waits for this step: it may be larger than the embedded engine's. */
const BLOCK = 16_384;
/** A row holds some 64 marks; a search over 10 000 000 messages reads 610 rows. Stored: never to be changed. */
const BUCKETS = 256;
/** Between two looks whether there is a block to make. */
const LOOK_MS = 5_000;
/** Between two walks over the blocks, and those looked at in one step of it. */
const WALK_MS = 60_000;
const WALK = 100;

const SQL = {
  alone: sql(`SELECT pg_try_advisory_xact_lock(${SOUGHT_LOCK}) AS held`),
  waiting: sql('SELECT account, spec, first, "end" AS "end" FROM unsought ORDER BY account, spec LIMIT $1'),
  messages:
    sql(`SELECT m.no, r.account, m."to" FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS r (account, first, "end")
    CROSS JOIN LATERAL (SELECT no, "to" FROM message q WHERE q.no >= r.first AND q.no < r."end" OFFSET 0) m`),
  done: sql(`DELETE FROM unsought WHERE ctid = ANY(ARRAY(SELECT u.ctid FROM unnest($1::bigint[], $2::bigint[]) AS r (account, spec)
    CROSS JOIN LATERAL (SELECT ctid FROM unsought q WHERE q.account = r.account AND q.spec = r.spec OFFSET 0) u))`),
  part: sql('UPDATE unsought SET first = $3 WHERE account = $1 AND spec = $2'),
  block: sql('INSERT INTO sought_block (first, last) VALUES ($1, $2) RETURNING no'),
  put: sql(`INSERT INTO sought (bucket, block, body) SELECT bucket, $1, body
    FROM unnest($2::integer[], $3::text[]::bytea[]) AS x (bucket, body)`),
  blocks: sql(`SELECT b.no, EXISTS (SELECT 1 FROM message m WHERE m.no >= b.first AND m.no <= b.last) AS left
    FROM (SELECT no, first, last FROM sought_block WHERE no > $1 ORDER BY no LIMIT ${WALK}) b ORDER BY b.no`),
  drop: sql('DELETE FROM sought WHERE bucket = ANY($1::integer[]) AND block = ANY($2::bigint[])'),
  blockDrop: sql('DELETE FROM sought_block WHERE no = ANY($1::bigint[])'),
  // An account's own: what waits of the others says nothing of it.
  waits: sql(`SELECT coalesce(sum(w.n), 0)::bigint AS n, count(*) AS specs FROM
    (SELECT "end" - first AS n FROM unsought WHERE account = $1 LIMIT ${WAITING_MOST}) w`),
  unmarked: sql(`SELECT m.no FROM unsought u CROSS JOIN LATERAL
      (SELECT no FROM message q WHERE q.no >= u.first AND q.no < u."end" AND q.no < $2 AND q."to" = $3 OFFSET 0) m
    WHERE u.account = $1`),
  rows: sql('SELECT body FROM sought WHERE bucket = $1'),
};

interface Waiting {
  account: number;
  spec: number;
  first: number;
  end: number;
}

/** Steps over transactions that the caller opens. `size`: messages of a block, fewer than usual only in tests. */
export function createSought(size: number = BLOCK) {
  let lookAt = 0;
  let walkAt = 0;
  let place = 0;

  /** Makes a block where enough wait. True = more may wait. */
  async function make(tx: Tx): Promise<boolean> {
    const waiting = await tx.query<Waiting>(SQL.waiting, [size]);
    const taken: Waiting[] = [];
    let room = size;
    for (const row of waiting) {
      if (room <= 0) break;
      taken.push({ ...row, end: Math.min(row.end, row.first + room) });
      room -= row.end - row.first;
    }
    if (room > 0) {
      tx.afterCommit(() => {
        lookAt = tx.now + LOOK_MS;
      });
      return false;
    }
    const messages = await tx.query<{ no: number; account: number; to: string }>(SQL.messages, [
      list(taken.map(({ account }) => account)),
      list(taken.map(({ first }) => first)),
      list(taken.map(({ end }) => end)),
    ]);
    if (messages.length > 0) {
      const nos = messages.map(({ no }) => no).sort((a, b) => a - b);
      const [block] = await tx.query<{ no: number }>(SQL.block, [nos[0] as number, nos.at(-1) as number]);
      const rows = packBlock(messages, BUCKETS);
      const bodies = rows.map(({ body }) => `\\x${Buffer.from(body).toString('hex')}`);
      tx.later(SQL.put, [(block as { no: number }).no, list(rows.map(({ bucket }) => bucket)), texts(bodies)]);
    }
    // The last one may be taken in part only.
    const cut = room < 0 ? taken.pop() : undefined;
    if (cut) tx.later(SQL.part, [cut.account, cut.spec, cut.end]);
    if (taken.length > 0) {
      tx.later(SQL.done, [list(taken.map(({ account }) => account)), list(taken.map(({ spec }) => spec))]);
    }
    return true;
  }

  /** Blocks of which no message is left leave. True = the walk is not at its end. */
  async function walk(tx: Tx): Promise<boolean> {
    const blocks = await tx.query<{ no: number; left: boolean }>(SQL.blocks, [place]);
    const gone = blocks.filter(({ left }) => !left).map(({ no }) => no);
    if (gone.length > 0) {
      tx.later(SQL.drop, [list(Array.from({ length: BUCKETS }, (_, bucket) => bucket)), list(gone)]);
      tx.later(SQL.blockDrop, [list(gone)]);
    }
    const more = blocks.length === WALK;
    tx.afterCommit(() => {
      place = more ? (blocks.at(-1)?.no ?? 0) : 0;
      if (!more) walkAt = tx.now + WALK_MS;
    });
    return more;
  }

  return {
    /** Whether a step may have work; asked before a transaction is begun for it. */
    due: (now: number): boolean => now >= lookAt || now >= walkAt,
    /** One bounded step. True = more is left. */
    async step(tx: Tx): Promise<boolean> {
      const [alone] = await tx.query<{ held: boolean }>(SQL.alone);
      if (!alone?.held) {
        // Another node makes them.
        tx.afterCommit(() => {
          lookAt = tx.now + LOOK_MS;
          walkAt = Math.max(walkAt, tx.now + LOOK_MS);
        });
        return false;
      }
      if (tx.now >= lookAt && (await make(tx))) return true;
      return tx.now >= walkAt && (await walk(tx));
    },
  };
}

/** Numbers of an account's messages to a destination, newest first, below `before`, a few of them perhaps of others; null = too much waits. */
export async function soughtNumbers(ask: Ask, account: number, to: string, before: number): Promise<number[] | null> {
  const [waits] = await ask.query<{ n: number; specs: number }>(SQL.waits, [account]);
  if (!waits || waits.n >= WAITING_MOST || waits.specs >= WAITING_MOST) return null;
  const name = plain(to);
  const found = (await ask.query<{ no: number }>(SQL.unmarked, [account, before, name])).map(({ no }) => no);
  const { spread, mark } = markOf(account, name);
  for (const { body } of await ask.query<{ body: Uint8Array }>(SQL.rows, [spread % BUCKETS])) {
    numbersIn(body, mark, before, found);
  }
  return newestFirst(found);
}
