/**
 * Figures of bulks. A transaction appends one row a bulk with what it changed; the sweep folds these rows into one sum a bulk
 * (one node at a time). No counter is hot, and no two transactions wait for each other over a figure.
 *
 * Promises: rows and sum together are exact at every instant, whether folded or not. A request without a bulk of its own is
 * not tallied: it is bounded (a request), and counted when asked for.
 */
import { STATE, type State } from '../../domain/status.ts';
import type { Progress } from '../contract.ts';
import { NO_PROGRESS, placeOf } from '../steering.ts';
import { FOLD_LOCK } from './schema.ts';
import { type Ask, list, sql, type Tx } from './tx.ts';

/** Rows folded in one step. */
const FOLD = 5_000;
const FIGURES = 'accepted, waiting, sent, delivered, failed';

const SQL = {
  add: sql(`INSERT INTO tally (bulk, ${FIGURES}) SELECT bulk, ${FIGURES}
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS x(bulk, ${FIGURES})`),
  alone: sql(`SELECT pg_try_advisory_xact_lock(${FOLD_LOCK}) AS held`),
  fold: sql(`WITH gone AS (DELETE FROM tally WHERE ctid = ANY(ARRAY(
      SELECT ctid FROM tally WHERE no > $1 ORDER BY no LIMIT ${FOLD}))
      RETURNING bulk, ${FIGURES}),
    added AS (INSERT INTO tally_sum AS t (bulk, ${FIGURES})
      SELECT bulk, sum(accepted), sum(waiting), sum(sent), sum(delivered), sum(failed) FROM gone GROUP BY bulk ORDER BY bulk
      ON CONFLICT (bulk) DO UPDATE SET accepted = t.accepted + excluded.accepted, waiting = t.waiting + excluded.waiting,
        sent = t.sent + excluded.sent, delivered = t.delivered + excluded.delivered, failed = t.failed + excluded.failed)
    SELECT count(*) AS n FROM gone`),
  // One statement, one snapshot: a fold in between moves rows, not figures.
  sums: sql(`SELECT bulk, sum(accepted)::bigint AS accepted, sum(waiting)::bigint AS waiting, sum(sent)::bigint AS sent,
      sum(delivered)::bigint AS delivered, sum(failed)::bigint AS failed
    FROM (SELECT bulk, ${FIGURES} FROM tally WHERE bulk = ANY($1::bigint[])
      UNION ALL SELECT bulk, ${FIGURES} FROM tally_sum WHERE bulk = ANY($1::bigint[])) t GROUP BY bulk`),
  // A bulk's uncounted specs are its first request's, and come first.
  uncounted: sql(`SELECT s.no, s.account, s.first, s."end" AS "end", s.accepted_at, s.counted FROM spec s
    WHERE s.bulk = $1 AND s.first > $2 ORDER BY s.first LIMIT 100`),
  count: sql(`SELECT count(*) AS accepted, count(*) FILTER (WHERE m.state = ${STATE.pending}) AS waiting,
      count(*) FILTER (WHERE m.state IN (${STATE.submitted}, ${STATE.uncertain})) AS sent,
      count(*) FILTER (WHERE m.state = ${STATE.delivered}) AS delivered,
      count(*) FILTER (WHERE m.state > ${STATE.delivered}) AS failed
    FROM unnest($1::bigint[], $2::bigint[]) AS x(first, "end") JOIN message m ON m.no >= x.first AND m.no < x."end"`),
};

/** What one transaction changes. */
export class Tallies {
  private readonly open = new Map<number, Progress>();

  private of(bulk: number): Progress {
    let tally = this.open.get(bulk);
    if (!tally) {
      tally = { ...NO_PROGRESS };
      this.open.set(bulk, tally);
    }
    return tally;
  }

  accepted(bulk: number, state: State): void {
    const tally = this.of(bulk);
    tally.accepted++;
    tally[placeOf(state)]++;
  }

  moved(bulk: number, from: State, to: State): void {
    const [left, reached] = [placeOf(from), placeOf(to)];
    if (left === reached) return;
    const tally = this.of(bulk);
    tally[left]--;
    tally[reached]++;
  }

  async flush(tx: Tx): Promise<void> {
    if (this.open.size === 0) return;
    const rows = [...this.open];
    const of = (pick: (tally: Progress) => number): string => list(rows.map(([, tally]) => pick(tally)));
    tx.later(SQL.add, [
      list(rows.map(([bulk]) => bulk)),
      of((tally) => tally.accepted),
      of((tally) => tally.waiting),
      of((tally) => tally.sent),
      of((tally) => tally.delivered),
      of((tally) => tally.failed),
    ]);
    this.open.clear();
  }
}

/** Folds one step of the rows above `since`. True = more is left. */
export async function foldTallies(tx: Tx, since: number): Promise<boolean> {
  const [alone] = await tx.query<{ held: boolean }>(SQL.alone);
  if (!alone?.held) return false;
  const [row] = await tx.query<{ n: number }>(SQL.fold, [since]);
  return row?.n === FOLD;
}

/** The figures of bulks with rows of their own (zeros where nothing was tallied). */
export async function tallied(ask: Ask, bulks: number[]): Promise<Map<number, Progress>> {
  const rows = await ask.query<Progress & { bulk: number }>(SQL.sums, [list(bulks)]);
  return new Map(rows.map(({ bulk, ...figures }) => [bulk, figures]));
}

/** A bulk's messages that are in no tally, and what its first spec says; null = it has no spec. */
export async function uncounted(
  ask: Ask,
  bulk: number,
): Promise<{ account: number; acceptedAt: number; figures: Progress } | null> {
  type Row = { no: number; account: number; first: number; end: number; accepted_at: number; counted: boolean };
  let first: Row | null = null;
  const figures: Progress = { ...NO_PROGRESS };
  // They are its first request's and follow its own number. A join may have lower ones, of another node's block.
  for (let place = bulk; ; ) {
    const rows = await ask.query<Row>(SQL.uncounted, [bulk, place]);
    first ??= rows[0] ?? null;
    const end = rows.findIndex((row) => row.counted);
    const open = end < 0 ? rows : rows.slice(0, end);
    if (open.length > 0) {
      const spans = [list(open.map((row) => row.first)), list(open.map((row) => row.end))];
      const [counted] = await ask.query<Progress>(SQL.count, spans);
      if (counted) add(figures, counted);
    }
    const last = rows.at(-1);
    if (open.length < 100 || !last) break;
    place = last.first;
  }
  return first && { account: first.account, acceptedAt: first.accepted_at, figures };
}

/** Adds `more` to `figures`. */
export function add(figures: Progress, more: Progress): void {
  figures.accepted += more.accepted;
  figures.waiting += more.waiting;
  figures.sent += more.sent;
  figures.delivered += more.delivered;
  figures.failed += more.failed;
}
