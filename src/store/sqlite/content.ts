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

export interface ContentFile {
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
    CREATE TABLE IF NOT EXISTS content (hash TEXT PRIMARY KEY, at INTEGER NOT NULL, bytes BLOB NOT NULL)`);
  const q = {
    touch: prepare(db, 'UPDATE content SET at = ? WHERE hash = ?'),
    add: prepare(db, 'INSERT INTO content (hash, at, bytes) VALUES (?, ?, ?)'),
    get: prepare<{ bytes: Uint8Array }>(db, 'SELECT bytes FROM content WHERE hash = ?'),
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
        for (const { hash, bytes } of items) if (q.touch.run(now, hash) === 0) q.add.run(hash, now, bytes);
      });
    },
    get(hash) {
      const bytes = q.get.get(hash)?.bytes;
      if (!bytes) return null;
      return createHash('sha256').update(bytes).digest('hex') === hash ? bytes : null;
    },
    collect(now, place, isReferred) {
      const hashes = q.old.all(place, now - ORPHAN_MS, COLLECT).map((row) => row.hash);
      inTransaction(() => {
        for (const hash of hashes) if (!isReferred(hash)) q.drop.run(hash);
      });
      return hashes.length === COLLECT ? (hashes.at(-1) as string) : '';
    },
    close: () => db.close(),
  };
}
