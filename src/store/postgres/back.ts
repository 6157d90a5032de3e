/**
 * What follows for bulk, run and deadlines when a submission comes back that has not left: it gives its turns of the speed limit
 * back, and where nothing of it ever left, its validity has not begun. settle.ts says which those are.
 *
 * Promises: bulks, then runs are locked before any flight (`loadBack`); while they are, no claim is at work on the turns.
 */
import type { CarrierReport } from '../../domain/submission.ts';
import { returned } from '../clock.ts';
import type { Settle } from '../contract.ts';
import type { FlightRow } from '../outcomes.ts';
import { AHEAD_MS, TOLD, turnDue } from '../waiting.ts';
import type { Lines, Wake } from './lines.ts';
import { BULK, type BulkColumns, type BulkRow, RunBook, toBulk } from './runs.ts';
import { byKey, list, sql, type Tx } from './tx.ts';

/** A verb that tells what became of a claim, or of a submission. */
export type BackOp =
  | { verb: 'settle'; arg: Settle }
  | { verb: 'report'; arg: CarrierReport }
  | { verb: 'release'; arg: { claims: { token: number; leader: number }[]; until: number; elsewhere: boolean } };

/** Bulks that are locked, and what has come back by the end of a group. */
export interface Back {
  bulks: Map<number, BulkRow>;
  bulkOf: Map<number, number>;
  /** `untried`: nothing of it ever left. */
  flights: (FlightRow & { untried: boolean })[];
}

const SQL = {
  of: sql(`SELECT f.leader, f.run, CASE WHEN f.turn_end IS NULL THEN 0 ELSE l.bulk END AS bulk FROM flight f
    CROSS JOIN LATERAL (SELECT line FROM run q WHERE q.no = f.run OFFSET 0) r
    CROSS JOIN LATERAL (SELECT bulk FROM line q WHERE q.no = r.line OFFSET 0) l WHERE f.leader = ANY($1::bigint[])`),
  bulks: sql(`SELECT ${BULK} FROM bulk b WHERE b.no = ANY($1::bigint[]) ORDER BY b.no FOR NO KEY UPDATE OF b`),
  runs: sql('SELECT no FROM run WHERE no = ANY($1::bigint[]) ORDER BY no FOR NO KEY UPDATE'),
  covers: sql(`SELECT d.at, d.first, d."end" AS "end", d.run FROM deadline d WHERE d.error IS NULL AND EXISTS (
      SELECT 1 FROM unnest($1::bigint[], $2::bigint[]) AS x(at, leader)
      WHERE d.at = x.at AND d.first <= x.leader AND d."end" > x.leader)
    AND d.at = ANY($1::bigint[]) ORDER BY d.at, d.first FOR UPDATE`),
  coversDelete: sql(`DELETE FROM deadline d USING unnest($1::bigint[], $2::bigint[]) AS x(at, first)
    WHERE d.at = x.at AND d.first = x.first AND d.at = ANY($1::bigint[])`),
  look: sql(`UPDATE run r SET look_at = least(coalesce(r.look_at, x.at), x.at)
    FROM (SELECT no, min(at) AS at FROM unnest($1::bigint[], $2::bigint[]) AS y(no, at) GROUP BY no) x
    WHERE r.no = x.no AND r.no = ANY($1::bigint[])`),
  lines: sql('SELECT no, lane FROM line WHERE bulk = $1 AND bulk <> 0'),
  // A run that somebody has is looked at by that one.
  tellRuns: sql(`UPDATE run r SET due_at = $2, look_at = least(coalesce(r.look_at, $2::bigint), $2::bigint)
    WHERE r.no = ANY(ARRAY(SELECT x.no FROM unnest($1::bigint[]) AS l(no)
      CROSS JOIN LATERAL (SELECT n.no FROM run n WHERE n.line = l.no AND n.due_at >= $3
        ORDER BY n.due_at, n.seq LIMIT ${TOLD} FOR NO KEY UPDATE SKIP LOCKED) x)) RETURNING r.line`),
  tellRetries: sql(`UPDATE retry t SET due_at = $2
    WHERE t.leader = ANY(ARRAY(SELECT x.leader FROM unnest($1::bigint[]) AS l(no)
      CROSS JOIN LATERAL (SELECT n.leader FROM retry n WHERE n.line = l.no AND n.due_at >= $3
        AND n.free_at IS NOT NULL ORDER BY n.due_at LIMIT ${TOLD} FOR UPDATE SKIP LOCKED) x)) RETURNING t.line`),
};

/** Locks what a group of ops may give back to. */
export async function loadBack(tx: Tx, ops: readonly BackOp[]): Promise<Back> {
  const back: Back = { bulks: new Map(), bulkOf: new Map(), flights: [] };
  const leaders = ops.flatMap((op) => {
    if (op.verb === 'release') return op.arg.claims.map((claim) => claim.leader);
    return op.verb === 'settle' && op.arg.outcome.kind === 'contentFailed' ? [op.arg.leader] : [];
  });
  if (leaders.length === 0) return back;
  const rows = await tx.query<{ leader: number; run: number; bulk: number }>(SQL.of, [list(leaders)]);
  for (const { leader, bulk } of rows) if (bulk !== 0) back.bulkOf.set(leader, bulk);
  const bulks = [...new Set(back.bulkOf.values())];
  if (bulks.length > 0) {
    const found = await tx.query<BulkColumns>(SQL.bulks, [list(bulks)]);
    back.bulks = byKey(found.map(toBulk), (bulk) => bulk.no);
  }
  if (rows.length > 0) await tx.query(SQL.runs, [list([...new Set(rows.map((row) => row.run))])]);
  return back;
}

/** Writes what came back to bulks, runs and deadlines, and tells those who may have the turns. */
export async function writeBack(tx: Tx, lines: Lines, back: Back): Promise<void> {
  if (back.flights.length === 0) return;
  const book = new RunBook(tx);
  const untried = back.flights.filter((flight) => flight.untried);
  if (untried.length > 0) await anew(tx, book, untried);
  const told = new Map<number, { from: number; due: number }>();
  // The last turn first: it goes back only where it is the bulk's last.
  const flights = [...back.flights].sort((a, b) => (b.turn_end ?? 0) - (a.turn_end ?? 0));
  for (const flight of flights) {
    const bulk = back.bulks.get(back.bulkOf.get(flight.leader) ?? 0);
    const { turn_from: before, turn_end: end } = flight;
    if (!bulk || before === null || end === null) continue;
    const next = returned(bulk, { from: before, end }, flight.untried ? 0 : tx.now * 1000);
    if (next === null) continue;
    book.charge(bulk, next);
    const from = told.get(bulk.no)?.from ?? turnDue(end);
    told.set(bulk.no, { from, due: Math.max(Math.ceil(next / 1000) - AHEAD_MS, tx.now) });
  }
  await book.flush();
  const wakes: Wake[] = [];
  for (const [bulk, { from, due }] of told) {
    if (due >= from) continue;
    const rows = await tx.query<{ no: number; lane: number }>(SQL.lines, [bulk]);
    const values = [list(rows.map((row) => row.no)), due, from];
    const runs = await tx.query<{ line: number }>(SQL.tellRuns, values);
    const retries = await tx.query<{ line: number }>(SQL.tellRetries, values);
    const heard = new Set([...runs, ...retries].map((row) => row.line));
    for (const { no, lane } of rows) if (heard.has(no)) wakes.push({ lane, line: no, due });
  }
  await lines.wake(tx, wakes);
}

/** Submissions that ended at `valid_until` by their claim have not left: their clocks are their runs' again. */
async function anew(tx: Tx, book: RunBook, flights: readonly FlightRow[]): Promise<void> {
  const ats = list(flights.map((flight) => flight.valid_until));
  await tx.query(SQL.look, [list(flights.map((flight) => flight.run)), ats]);
  type Row = { at: number; first: number; end: number; run: number };
  const covers = await tx.query<Row>(SQL.covers, [ats, list(flights.map((flight) => flight.leader))]);
  if (covers.length === 0) return;
  await tx.query(SQL.coversDelete, [list(covers.map((row) => row.at)), list(covers.map((row) => row.first))]);
  const spans = [...flights].sort((a, b) => a.leader - b.leader);
  for (const { at, first, end, run } of covers) {
    let from = first;
    for (const { leader, members, valid_until } of spans) {
      if (valid_until !== at || leader < from || leader >= end) continue;
      book.deadline(at, from, leader, run);
      from = leader + members;
    }
    book.deadline(at, from, end, run);
  }
}
