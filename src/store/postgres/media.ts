/**
 * LINK segments on their way to bytes, uploads, content, and the runs that wait for them: a run opens when every segment of
 * its spec has bytes; a segment that failed for good ends the spec's messages with the error that says why.
 *
 * Content bytes stand in a table of their own, written on a connection of their own and committed before the accept that
 * refers to them; checked against the hash when read, so damaged bytes are never sent.
 */
import { createHash } from 'node:crypto';
import type { MediaJob, MediaOutcome, Upload, Variant } from '../contract.ts';
import { WORDS_MAX } from '../waiting.ts';
import type { Lines } from './lines.ts';
import { RUN, RunBook, type RunColumns, toRun } from './runs.ts';
import { type Ask, list, plain, sql, type Tx, texts } from './tx.ts';

const SQL = {
  due: sql(`SELECT m.spec, m.segment, s.account, m.url, m.content_type, m.tries FROM media m
    CROSS JOIN LATERAL (SELECT account FROM spec q WHERE q.no = m.spec OFFSET 0) s
    WHERE m.due_at <= $1 ORDER BY m.due_at LIMIT $2 FOR NO KEY UPDATE OF m SKIP LOCKED`),
  lease: sql(`UPDATE media m SET due_at = $3 FROM unnest($1::bigint[], $2::integer[]) AS x(spec, segment)
    WHERE m.spec = x.spec AND m.segment = x.segment AND m.spec = ANY($1::bigint[])`),
  min: sql('SELECT min(due_at) AS due FROM media WHERE due_at IS NOT NULL'),
  // Of what still waits for it; a run that expired needs no bytes.
  validUntil: sql(`SELECT s.no AS spec, max(r.opens_at + r.validity) AS at FROM spec s
    JOIN run r ON r.no >= s.first AND r.no < s."end" AND r.media AND r.next < r."end"
    WHERE s.no = ANY($1::bigint[]) GROUP BY s.no`),
  // All segments of the spec are locked, in order, so that the last of two that end together sees the other.
  lock: sql('SELECT segment, hash FROM media WHERE spec = $1 ORDER BY segment FOR NO KEY UPDATE'),
  ready: sql(
    `UPDATE media SET hash = $3, content_type = $4, name = $5, due_at = NULL WHERE spec = $1 AND segment = $2`,
  ),
  // What counts is a fetch that failed, not a lease: one that was lost or put off has asked nobody.
  again:
    sql(`UPDATE media SET due_at = $3, tries = tries + 1, words = $4 WHERE spec = $1 AND segment = $2 AND hash IS NULL
    AND due_at IS NOT NULL`),
  drop: sql('UPDATE media SET due_at = NULL WHERE spec = ANY($1::bigint[]) AND due_at IS NOT NULL'),
  open: sql('SELECT count(*) AS n FROM media WHERE spec = $1 AND hash IS NULL'),
  runs: sql(`SELECT ${RUN}, l.lane FROM spec s
    CROSS JOIN LATERAL (SELECT * FROM run q WHERE q.no >= s.first AND q.no < s."end" AND q.media ORDER BY q.no
      FOR NO KEY UPDATE) r
    CROSS JOIN LATERAL (SELECT lane FROM line q WHERE q.no = r.line OFFSET 0) l
    WHERE s.no = $1 ORDER BY r.no`),
  runsOpen: sql(`UPDATE run r SET media = false, due_at = CASE WHEN r.next < r."end" THEN $3::bigint END, seq = x.seq
    FROM unnest($1::bigint[], $2::bigint[]) AS x(no, seq) WHERE r.no = x.no AND r.no = ANY($1::bigint[])`),
  upload: sql(`INSERT INTO upload (account, id, name, hash, content_type, size, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, id) DO UPDATE SET name = excluded.name, hash = excluded.hash,
      content_type = excluded.content_type, size = excluded.size, expires_at = excluded.expires_at`),
  uploadNames: sql('SELECT id, name FROM upload WHERE account = $1 AND id = ANY($2::text[])'),
  put: sql(
    // What lies elsewhere is not to be had by those who put it here; what was damaged since is whole again.
    `WITH lost AS (INSERT INTO content_lost (place) SELECT place FROM content WHERE hash = $1 AND place IS NOT NULL
      ON CONFLICT DO NOTHING)
    INSERT INTO content AS c (hash, at, bytes) VALUES ($1, $2, $3) ON CONFLICT (hash) DO UPDATE SET at = excluded.at,
      bytes = CASE WHEN c.place IS NULL AND c.bytes = excluded.bytes THEN c.bytes ELSE excluded.bytes END, place = NULL`,
  ),
  content: sql('SELECT bytes FROM content WHERE hash = $1 AND place IS NULL'),
  contentAt: sql('SELECT place FROM content WHERE hash = $1'),
  contentUsed: sql('UPDATE content SET at = $2 WHERE hash = $1 RETURNING place'),
  contentPlaced: sql(`INSERT INTO content (hash, at, bytes, place) VALUES ($1, $2, ''::bytea, $3)
    ON CONFLICT (hash) DO UPDATE SET at = excluded.at RETURNING place`),
  placesLost: sql('SELECT place FROM content_lost ORDER BY place LIMIT $1'),
  placesGone: sql('DELETE FROM content_lost WHERE place = ANY($1::text[])'),
  variant: sql('SELECT hash, content_type FROM variant WHERE source = $1 AND profile = $2'),
  variantPut: sql(`INSERT INTO variant (source, profile, hash, content_type, at) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (source, profile) DO UPDATE SET hash = excluded.hash, content_type = excluded.content_type, at = excluded.at`),
  idle: sql(`SELECT greatest(h.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
    (SELECT min(due_at) FROM media WHERE due_at IS NOT NULL) AS due FROM high_water h`),
};

/** The store's clock and when content is to be fetched next (null = nothing is), for an idle node's polls. */
export async function peekMedia(ask: Ask): Promise<{ now: number; due: number | null }> {
  const [row] = await ask.query<{ now: number; due: number | null }>(SQL.idle);
  if (!row) throw new Error('the store has no clock row');
  return row;
}

/** Up to `limit` links to fetch, leased for `leaseMs`. */
export async function mediaNext(
  tx: Tx,
  limit: number,
  leaseMs: number,
): Promise<{ now: number; jobs: MediaJob[]; nextDue: number | null }> {
  type Row = {
    spec: number;
    segment: number;
    account: number;
    url: string;
    content_type: string | null;
    tries: number;
  };
  const rows = await tx.query<Row>(SQL.due, [tx.now, limit]);
  const until = new Map<number, number>();
  if (rows.length > 0) {
    for (const row of await tx.query<{ spec: number; at: number }>(SQL.validUntil, [
      list(rows.map((one) => one.spec)),
    ])) {
      until.set(row.spec, row.at);
    }
    const dead = rows.filter((row) => !until.has(row.spec));
    if (dead.length > 0) tx.later(SQL.drop, [list(dead.map((row) => row.spec))]);
  }
  const leasing = rows.filter((row) => until.has(row.spec));
  if (leasing.length > 0) {
    const segments = list(leasing.map((row) => row.segment));
    tx.later(SQL.lease, [list(leasing.map((row) => row.spec)), segments, tx.now + leaseMs]);
  }
  const [min] = await tx.query<{ due: number | null }>(SQL.min);
  const jobs = leasing.map(({ spec, segment, account, url, content_type: contentType, tries }) => {
    const validUntil = until.get(spec) as number;
    // A pause may have moved it on.
    const end = validUntil > tx.now ? validUntil : tx.now + 60_000;
    return { spec, segment, account, url, contentType, tries: tries + 1, validUntil: end };
  });
  return { now: tx.now, jobs, nextDue: min?.due ?? null };
}

/** What became of a fetch: opens the runs that waited for it, tries again later, or ends their messages. */
export function createMediaSettle(lines: Lines) {
  return async function mediaSettle(
    tx: Tx,
    job: { spec: number; segment: number },
    outcome: MediaOutcome,
  ): Promise<void> {
    if (outcome.kind === 'again') {
      const words = plain(outcome.words.slice(0, WORDS_MAX));
      tx.later(SQL.again, [job.spec, job.segment, tx.now + outcome.afterMs, words]);
      return;
    }
    tx.later(SQL.lock, [job.spec]);
    if (outcome.kind === 'ready') {
      const { hash, contentType, name } = outcome;
      tx.later(SQL.ready, [job.spec, job.segment, hash, contentType, plain(name)]);
      const [open] = await tx.query<{ n: number }>(SQL.open, [job.spec]);
      if ((open?.n ?? 0) > 0) return;
    } else await tx.query(SQL.drop, [list([job.spec])]);
    const runs = await tx.query<RunColumns & { lane: number }>(SQL.runs, [job.spec]);
    if (runs.length === 0) return;
    if (outcome.kind === 'ready') {
      tx.later(SQL.runsOpen, [list(runs.map((run) => run.no)), list(runs.map(() => tx.seq())), tx.now]);
      const open = runs.filter((run) => run.next < run.end);
      await lines.wake(
        tx,
        open.map(({ lane, line }) => ({ lane, line, due: tx.now })),
      );
      return;
    }
    const book = new RunBook(tx);
    const failed = { error: outcome.error, words: outcome.words.slice(0, WORDS_MAX) };
    for (const run of runs.map(toRun)) {
      // The sweep writes their ends, in steps.
      book.deadline(tx.now, run.next, run.end, run.no, failed);
      book.move(run, run.end, null);
      book.look(run.no, null);
    }
    await book.flush();
  };
}

/** Names stored content as an account's upload, for `validityMs` from now; the same id is replaced. */
export async function putUpload(tx: Tx, upload: Upload): Promise<void> {
  const { account, id, name, hash, contentType, size, validityMs } = upload;
  tx.later(SQL.upload, [account, id, plain(name), hash, contentType, size, tx.now + validityMs]);
}

/** Stores bytes under their hashes; what is there already, and whole, is only marked as used now. */
async function putContent(tx: Tx, items: { hash: string; bytes: Uint8Array }[]): Promise<void> {
  for (const { hash, bytes } of items) tx.later(SQL.put, [hash, tx.now, bytes]);
}

/** Bytes of a hash, null when gone or damaged. */
export async function content(ask: Ask, hash: string): Promise<Uint8Array | null> {
  const [row] = await ask.query<{ bytes: Uint8Array }>(SQL.content, [hash]);
  if (!row) return null;
  return createHash('sha256').update(row.bytes).digest('hex') === hash ? row.bytes : null;
}

/** The names of those of an account's uploads that are known. */
export async function uploadNames(ask: Ask, account: number, ids: string[]): Promise<{ id: string; name: string }[]> {
  return ask.query<{ id: string; name: string }>(SQL.uploadNames, [account, texts(ids)]);
}

/** What a content became under a profile, null where it was never fitted so. */
export async function variant(ask: Ask, source: string, profile: string): Promise<Variant | null> {
  const [row] = await ask.query<{ hash: string; content_type: string }>(SQL.variant, [source, profile]);
  return row ? { hash: row.hash, contentType: row.content_type } : null;
}

/** Keeps what a content became under a profile. */
export async function putVariant(tx: Tx, source: string, profile: string, made: Variant): Promise<void> {
  tx.later(SQL.variantPut, [source, profile, made.hash, made.contentType, tx.now]);
}

type Place = { place: string | null };

/** Where content lies; see `ContentIndex`. */
export async function contentAt(ask: Ask, hash: string): Promise<Place | null> {
  return (await ask.query<Place>(SQL.contentAt, [hash]))[0] ?? null;
}

/** Content on the connection that writes content: one hash is put, or a place of it is noted, or places are gone. */
export type ContentOp =
  | { verb: 'put'; hash: string; bytes: Uint8Array }
  | { verb: 'used'; hash: string }
  | { verb: 'placed'; hash: string; place: string }
  | { verb: 'gone'; places: string[] };

/** Does these in order; the answers are those of `ContentIndex`. */
export async function contentOps(tx: Tx, ops: ContentOp[]): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (const op of ops) {
    if (op.verb === 'put') answers.push(await putContent(tx, [op]));
    else if (op.verb === 'gone') answers.push(void (await tx.query(SQL.placesGone, [texts(op.places)])));
    else {
      const values = op.verb === 'used' ? [op.hash, tx.now] : [op.hash, tx.now, op.place];
      const [row] = await tx.query<Place>(op.verb === 'used' ? SQL.contentUsed : SQL.contentPlaced, values);
      answers.push(row ?? null);
    }
  }
  return answers;
}

/** Places that are to be deleted. */
export async function placesLost(ask: Ask, limit: number): Promise<string[]> {
  return (await ask.query<{ place: string }>(SQL.placesLost, [limit])).map((row) => row.place);
}
