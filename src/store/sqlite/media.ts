/**
 * LINK segments on their way to bytes, uploads, and the runs that wait for them: a run opens when every segment of its
 * spec has bytes; a segment that failed for good ends the spec's messages with the error that says why.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { MediaJob, MediaOutcome, Upload, Variant } from '../contract.ts';
import { WORDS_MAX } from '../waiting.ts';
import type { Lines } from './lines.ts';
import type { Runs } from './runs.ts';
import { prepare, type Tx } from './tx.ts';

/** Uploads and the fetching of links on the transaction that they are given. */
export function createMedia(tx: Tx, lines: Lines, runs: Runs) {
  const db = tx.db;
  const q = {
    due: prepare<{
      spec: number;
      segment: number;
      account: number;
      url: string;
      content_type: string | null;
      tries: number;
    }>(
      db,
      `SELECT m.spec, m.segment, s.account, m.url, m.content_type, m.tries FROM media m JOIN spec s ON s.no = m.spec
       WHERE m.due_at <= ? ORDER BY m.due_at LIMIT ? + 0`,
    ),
    lease: prepare(db, 'UPDATE media SET due_at = ? WHERE spec = ? AND segment = ?'),
    free: prepare(db, 'UPDATE media SET due_at = 0 WHERE due_at IS NOT NULL AND tries = 0'),
    min: prepare<{ due: number | null }>(db, 'SELECT min(due_at) AS due FROM media WHERE due_at IS NOT NULL'),
    // Of what still waits for it; a run that expired needs no bytes.
    validUntil: prepare<{ at: number | null }>(
      db,
      `SELECT max(opens_at + validity) AS at FROM run
       WHERE no >= (SELECT first FROM spec WHERE no = ?1) AND no < (SELECT "end" FROM spec WHERE no = ?1)
         AND media = 1 AND next < "end"`,
    ),
    ready: prepare(
      db,
      'UPDATE media SET hash = ?, content_type = ?, name = ?, due_at = NULL WHERE spec = ? AND segment = ?',
    ),
    // What counts is a fetch that failed, not a lease: one that was lost or put off has asked nobody.
    again: prepare(
      db,
      `UPDATE media SET due_at = ?, tries = tries + 1, words = ? WHERE spec = ? AND segment = ? AND hash IS NULL
         AND due_at IS NOT NULL`,
    ),
    drop: prepare(db, 'UPDATE media SET due_at = NULL WHERE spec = ? AND due_at IS NOT NULL'),
    open: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM media WHERE spec = ? AND hash IS NULL'),
    runs: prepare<{ no: number; line: number; lane: number; account: number; next: number; end: number }>(
      db,
      `SELECT r.no, r.line, l.lane, l.account, r.next, r."end" AS "end" FROM run r JOIN line l ON l.no = r.line
       WHERE r.no >= (SELECT first FROM spec WHERE no = ?) AND r.no < (SELECT "end" FROM spec WHERE no = ?)
         AND r.media = 1`,
    ),
    runOpen: prepare(db, 'UPDATE run SET media = 0, due_at = ?, seq = ? WHERE no = ?'),
    upload: prepare(
      db,
      `INSERT OR REPLACE INTO upload (account, id, name, hash, content_type, size, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
    ),
    variant: prepare(
      db,
      'INSERT OR REPLACE INTO variant (source, profile, hash, content_type, at) VALUES (?, ?, ?, ?, ?)',
    ),
  };
  return {
    putVariant(source: string, profile: string, { hash, contentType }: Variant): void {
      q.variant.run(source, profile, hash, contentType, tx.now);
    },
    next(limit: number, leaseMs: number): { now: number; jobs: MediaJob[]; nextDue: number | null } {
      const jobs: MediaJob[] = [];
      for (const row of q.due.all(tx.now, limit)) {
        const validUntil = q.validUntil.get(row.spec)?.at ?? null;
        if (validUntil === null) {
          q.drop.run(row.spec);
          continue;
        }
        q.lease.run(tx.now + leaseMs, row.spec, row.segment);
        jobs.push({
          spec: row.spec,
          segment: row.segment,
          account: row.account,
          url: row.url,
          contentType: row.content_type,
          tries: row.tries + 1,
          // A pause may have moved it on.
          validUntil: validUntil > tx.now ? validUntil : tx.now + 60_000,
        });
      }
      return { now: tx.now, jobs, nextDue: q.min.get()?.due ?? null };
    },
    /** First fetches of a process that died begin anew at once; what has failed before keeps its time, or its lease. */
    freeLeases(): void {
      q.free.run();
    },
    settle(job: { spec: number; segment: number }, outcome: MediaOutcome): void {
      if (outcome.kind === 'again') {
        q.again.run(tx.now + outcome.afterMs, outcome.words.slice(0, WORDS_MAX), job.spec, job.segment);
        return;
      }
      if (outcome.kind === 'ready') {
        q.ready.run(outcome.hash, outcome.contentType, outcome.name, job.spec, job.segment);
        if ((q.open.get(job.spec)?.n ?? 0) > 0) return;
        for (const run of q.runs.all(job.spec, job.spec)) {
          q.runOpen.run(run.next < run.end ? tx.now : null, tx.seq(), run.no);
          if (run.next < run.end) lines.wake(run.line, run.lane, run.account, tx.now);
        }
        return;
      }
      q.drop.run(job.spec);
      for (const row of q.runs.all(job.spec, job.spec)) {
        const run = runs.get(row.no);
        if (!run) continue;
        // The sweep writes their ends, in steps.
        runs.deadline(tx.now, run.next, run.end, run.no, {
          error: outcome.error,
          words: outcome.words.slice(0, WORDS_MAX),
        });
        runs.move(run, run.end, null);
        runs.look(run.no, null);
      }
    },
    putUpload(upload: Upload): void {
      q.upload.run(
        upload.account,
        upload.id,
        upload.name,
        upload.hash,
        upload.contentType,
        upload.size,
        tx.now + upload.validityMs,
      );
    },
  };
}

/** Reads of the content's side, for the thread that reads. */
export function createContentReads(db: DatabaseSync) {
  const q = {
    variant: prepare<Variant>(
      db,
      'SELECT hash, content_type AS contentType FROM variant WHERE source = ? AND profile = ?',
    ),
    upload: prepare<{ name: string }>(db, 'SELECT name FROM upload WHERE account = ? AND id = ?'),
    referred: prepare<{ one: number }>(
      db,
      `SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM media WHERE hash = ?1) OR EXISTS (SELECT 1 FROM upload WHERE hash = ?1)
         OR EXISTS (SELECT 1 FROM variant WHERE hash = ?1) OR EXISTS (SELECT 1 FROM inbound_part WHERE hash = ?1)`,
    ),
  };
  return {
    variant: (source: string, profile: string): Variant | null => q.variant.get(source, profile) ?? null,
    uploadNames: (account: number, ids: string[]): { id: string; name: string }[] =>
      ids.flatMap((id) => {
        const row = q.upload.get(account, id);
        return row ? [{ id, name: row.name }] : [];
      }),
    /** Whether something still needs these bytes. */
    isReferred: (hash: string): boolean => q.referred.get(hash) !== undefined,
  };
}
