/**
 * Content bytes, once by SHA-256, in a file of their own: a 5 MB picture must not stand in the way of the accepts that share
 * the writer. Written (and synced) before the accept that refers to it; checked against the hash when read, so damaged
 * bytes are never sent; collected when nothing has referred to them for a day.
 */
import { createHash } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import { prepare } from './tx.ts';

/** Unreferenced content younger than this may be about to be referred to. */
const ORPHAN_MS = 24 * 3_600_000;

/** Hashes looked at in one step of the collection. */
const COLLECT = 200;

/** A question or a note about where bytes lie that are not in the file; the answers are those of `ContentIndex`. */
export type PlaceCall =
  | { ask: 'at' | 'used'; hash: string }
  | { ask: 'placed'; hash: string; place: string }
  | { ask: 'lost'; limit: number }
  | { ask: 'gone'; places: string[] };

export interface ContentFile {
  place(call: PlaceCall, now: number): { place: string | null } | null | string[];
  put(items: { hash: string; bytes: Uint8Array }[], now: number): void;
  get(hash: string): Uint8Array | null;
  /**
   * One bounded step of the collection, after `place` in hash order: drops what is a day old and referred to by nobody.
   * Returns the place to go on from, '' = from the beginning. What is about to be referred to was put (and so touched) less
   * than a day ago; what is referred to through an upload is referred to until its messages are gone.
   */
  collect(now: number, place: string, isReferred: (hash: string) => boolean): string;
  close(): void;
}

/** Opens or makes the content file; throws what SQLite says of it. */
export function openContent(file: string): ContentFile {
  const db = new DatabaseSync(file);
  db.exec(`PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA page_size = 8192;
    CREATE TABLE IF NOT EXISTS content (hash TEXT PRIMARY KEY, at INTEGER NOT NULL, bytes BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS lost (place TEXT PRIMARY KEY)`);
  // Where the bytes lie, if not here (then they are empty here).
  const known = db.prepare("SELECT 1 FROM pragma_table_info('content') WHERE name = 'place'").get() !== undefined;
  if (!known) db.exec('ALTER TABLE content ADD COLUMN place TEXT');
  const q = {
    touch: prepare(db, 'UPDATE content SET at = ? WHERE hash = ?'),
    touchHere: prepare(db, 'UPDATE content SET at = ? WHERE hash = ? AND place IS NULL AND bytes = ?'),
    add: prepare(
      db,
      `INSERT INTO content (hash, at, bytes) VALUES (?, ?, ?)
       ON CONFLICT (hash) DO UPDATE SET at = excluded.at, bytes = excluded.bytes, place = NULL`,
    ),
    get: prepare<{ bytes: Uint8Array }>(db, 'SELECT bytes FROM content WHERE hash = ? AND place IS NULL'),
    at: prepare<{ place: string | null }>(db, 'SELECT place FROM content WHERE hash = ?'),
    placed: prepare(
      db,
      `INSERT INTO content (hash, at, bytes, place) VALUES (?, ?, x'', ?)
       ON CONFLICT (hash) DO UPDATE SET at = excluded.at`,
    ),
    loses: prepare(
      db,
      'INSERT OR IGNORE INTO lost (place) SELECT place FROM content WHERE hash = ? AND place IS NOT NULL',
    ),
    lost: prepare<{ place: string }>(db, 'SELECT place FROM lost ORDER BY place LIMIT ? + 0'),
    gone: prepare(db, 'DELETE FROM lost WHERE place = ?'),
    old: prepare<{ hash: string }>(db, 'SELECT hash FROM content WHERE hash > ? AND at <= ? ORDER BY hash LIMIT ? + 0'),
    drop: prepare(db, 'DELETE FROM content WHERE hash = ?'),
  };
  const inTransaction = (work: () => void): void => {
    db.exec('BEGIN IMMEDIATE');
    try {
      work();
      db.exec('COMMIT');
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK');
      throw error;
    }
  };
  return {
    put(items, now) {
      inTransaction(() => {
        for (const { hash, bytes } of items) {
          if (q.touchHere.run(now, hash, bytes) > 0) continue;
          // What lies elsewhere is not to be had by those who put it here; what was damaged is whole again.
          q.loses.run(hash);
          q.add.run(hash, now, bytes);
        }
      });
    },
    get(hash) {
      const bytes = q.get.get(hash)?.bytes;
      if (!bytes) return null;
      return createHash('sha256').update(bytes).digest('hex') === hash ? bytes : null;
    },
    place(call, now) {
      switch (call.ask) {
        case 'at':
          return q.at.get(call.hash) ?? null;
        case 'used':
          q.touch.run(now, call.hash);
          return q.at.get(call.hash) ?? null;
        case 'placed':
          q.placed.run(call.hash, now, call.place);
          return q.at.get(call.hash) ?? null;
        case 'lost':
          return q.lost.all(call.limit).map((row) => row.place);
        case 'gone':
          inTransaction(() => {
            for (const place of call.places) q.gone.run(place);
          });
          return null;
      }
    },
    collect(now, place, isReferred) {
      const hashes = q.old.all(place, now - ORPHAN_MS, COLLECT).map((row) => row.hash);
      inTransaction(() => {
        for (const hash of hashes) {
          if (isReferred(hash)) continue;
          q.loses.run(hash);
          q.drop.run(hash);
        }
      });
      return hashes.length === COLLECT ? (hashes.at(-1) as string) : '';
    },
    close: () => db.close(),
  };
}
