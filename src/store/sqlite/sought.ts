/**
 * The marks of destinations (store/sought.ts) on the embedded engine: made by the sweep, a block a step, and read by logs.
 */
import type { DatabaseSync } from 'node:sqlite';
import { markOf, newestFirst, numbersIn, packBlock, WAITING_MOST } from '../sought.ts';
import { prepare, type Tx } from './tx.ts';

/** Messages of a block: a step of some 5 ms. */
export const BLOCK = 4096;
/** A row holds some 64 marks; a search over 10 000 000 messages reads 2 500 rows. Stored: never to be changed. */
const BUCKETS = 64;
/** Between two looks whether there is a block to make. */
const LOOK_MS = 1_000;
/** Between two walks over the blocks, and those looked at in one step of it. */
const WALK_MS = 60_000;
const WALK = 50;

/** Steps on the writer's transaction. `block`: messages of a block, fewer than BLOCK only in tests. */
export function createSought(tx: Tx, block: number = BLOCK) {
  const db = tx.db;
  const q = {
    waiting: prepare<{ n: number }>(
      db,
      `SELECT coalesce(sum(n), 0) AS n FROM (SELECT "end" - first AS n FROM unsought LIMIT ? + 0)`,
    ),
    messages: prepare<{ spec: number; account: number; no: number; to: string }>(
      db,
      `SELECT u.spec, u.account, m.no, m."to" AS "to" FROM unsought u CROSS JOIN message m
       WHERE m.no >= u.first AND m.no < u."end" ORDER BY u.account, u.spec, m.no LIMIT ? + 0`,
    ),
    done: prepare(db, 'DELETE FROM unsought WHERE (account, spec) < (?, ?)'),
    part: prepare(db, 'UPDATE unsought SET first = ? WHERE account = ? AND spec = ?'),
    all: prepare(db, 'DELETE FROM unsought'),
    block: prepare<{ no: number }>(db, 'INSERT INTO sought_block (first, last) VALUES (?, ?) RETURNING no'),
    put: prepare(db, 'INSERT INTO sought (bucket, block, body) VALUES (?, ?, ?)'),
    blocks: prepare<{ no: number; left: number }>(
      db,
      `SELECT no, EXISTS (SELECT 1 FROM message m WHERE m.no >= b.first AND m.no <= b.last) AS left
       FROM sought_block b WHERE no > ? ORDER BY no LIMIT ${WALK}`,
    ),
    drop: prepare(db, 'DELETE FROM sought WHERE bucket = ? AND block = ?'),
    blockDrop: prepare(db, 'DELETE FROM sought_block WHERE no = ?'),
  };
  let lookAt = 0;
  let walkAt = 0;
  let place = 0;

  /** Makes a block where enough wait. True = more may wait. */
  function make(): boolean {
    if (tx.now < lookAt) return false;
    if ((q.waiting.get(block)?.n ?? 0) < block) {
      lookAt = tx.now + LOOK_MS;
      return false;
    }
    const messages = q.messages.all(block);
    if (messages.length > 0) {
      // No spread: there may be as many as a call takes arguments.
      const nos = messages.map(({ no }) => no).sort((a, b) => a - b);
      const made = q.block.get(nos[0] as number, nos.at(-1) as number)?.no as number;
      for (const { bucket, body } of packBlock(messages, BUCKETS)) q.put.run(bucket, made, body);
    }
    const last = messages.at(-1);
    if (messages.length < block || !last) q.all.run();
    else {
      q.done.run(last.account, last.spec);
      q.part.run(last.no + 1, last.account, last.spec);
    }
    return true;
  }

  /** Blocks of which no message is left leave. True = the walk is not at its end. */
  function walk(): boolean {
    if (tx.now < walkAt) return false;
    const blocks = q.blocks.all(place);
    for (const { no, left } of blocks) {
      place = no;
      if (left === 1) continue;
      for (let bucket = 0; bucket < BUCKETS; bucket++) q.drop.run(bucket, no);
      q.blockDrop.run(no);
      // One a step: each is some rows.
      return true;
    }
    if (blocks.length === WALK) return true;
    place = 0;
    walkAt = tx.now + WALK_MS;
    return false;
  }

  /** One bounded step. True = more is left. */
  return function sought(): boolean {
    return make() || walk();
  };
}

/** Numbers of an account's messages to a destination, by a connection that only reads. */
export function createSoughtReads(db: DatabaseSync) {
  const q = {
    waiting: prepare<{ n: number; specs: number }>(
      db,
      `SELECT coalesce(sum(n), 0) AS n, count(*) AS specs FROM (SELECT "end" - first AS n FROM unsought LIMIT ${WAITING_MOST})`,
    ),
    waits: prepare<{ no: number }>(
      db,
      `SELECT m.no FROM unsought u CROSS JOIN message m
       WHERE u.account = ? AND m.no >= u.first AND m.no < u."end" AND m.no < ? AND m."to" = ?`,
    ),
    rows: prepare<{ body: Uint8Array }>(db, 'SELECT body FROM sought WHERE bucket = ?'),
  };
  /** Newest first, below `before`, a few of them perhaps of others; null = too much waits for its marks. */
  return function find(account: number, to: string, before: number): number[] | null {
    const waiting = q.waiting.get();
    if (!waiting || waiting.n >= WAITING_MOST || waiting.specs >= WAITING_MOST) return null;
    const found = q.waits.all(account, before, to).map(({ no }) => no);
    const { spread, mark } = markOf(account, to);
    for (const { body } of q.rows.all(spread % BUCKETS)) numbersIn(body, mark, before, found);
    return newestFirst(found);
  };
}
