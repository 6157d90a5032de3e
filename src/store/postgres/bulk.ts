/**
 * Steering a bulk: pause and resume. The bulk's row is locked FOR UPDATE, which waits for accepts that join it (KEY SHARE) and
 * is passed by claims (SKIP LOCKED); then its lines, then what is under them. O(lines), whatever the bulk's size.
 */
import { resumed } from '../clock.ts';
import type { Lines } from './lines.ts';
import { lineKey } from './lines.ts';
import { BULK, type BulkColumns, type BulkRow, RunBook, toBulk } from './runs.ts';
import { Conflict, list, plain, sql, type Tx } from './tx.ts';

const SQL = {
  byNo: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.no = $2 FOR UPDATE OF b`),
  byId: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.id = $2 FOR UPDATE OF b`),
  ofSpecs: sql('SELECT accepted_at FROM spec WHERE bulk = $1 AND account = $2 ORDER BY no LIMIT 1'),
  add: sql(`INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us, pauses)
    VALUES ($1, $2, NULL, $3, NULL, 0, 0, '[]') ON CONFLICT DO NOTHING RETURNING no`),
  expressRuns:
    sql(`SELECT r.no, r."end" AS "end", r.line, l.lane FROM spec s JOIN run r ON r.no >= s.first AND r.no < s."end"
    JOIN line l ON l.no = r.line WHERE s.bulk = $1 AND s.account = $2 AND l.bulk = 0 ORDER BY r.no FOR UPDATE OF r`),
  runLine: sql(
    `UPDATE run r SET line = x.line FROM unnest($1::bigint[], $2::bigint[]) AS x(no, line) WHERE r.no = x.no`,
  ),
  // What is in flight comes back to the line that its run has then.
  retryLine:
    sql(`UPDATE retry t SET line = x.line FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(no, "end", line)
    WHERE t.leader >= x.no AND t.leader < x."end"`),
  lines: sql('SELECT no FROM line WHERE bulk = $1 AND bulk <> 0'),
  paused: sql('UPDATE line SET paused = $2 WHERE no = ANY($1::bigint[])'),
};

export function createBulkSteer(lines: Lines) {
  /** Rests lines and their accounts' turns; the lines are locked here. */
  async function rest(tx: Tx, nos: number[]): Promise<void> {
    const held = await lines.lock(tx, nos);
    await lines.rest(
      tx,
      held.map((line) => line.no),
    );
    const byLane = new Map<number, number[]>();
    for (const { lane, account } of held) byLane.set(lane, [...(byLane.get(lane) ?? []), account]);
    for (const [lane, accounts] of [...byLane].sort(([a], [b]) => a - b)) await lines.restTurns(tx, lane, accounts);
  }

  /** An express bulk gets rows of its own the first time it is paused. */
  async function ownBulk(tx: Tx, account: number, no: number): Promise<boolean> {
    const [spec] = await tx.query<{ accepted_at: number }>(SQL.ofSpecs, [no, account]);
    if (!spec) return false;
    const made = await tx.query(SQL.add, [no, account, spec.accepted_at]);
    if (made.length === 0) throw new Conflict('the bulk was steered by another node at the same moment');
    const runs = await tx.query<{ no: number; end: number; line: number; lane: number }>(SQL.expressRuns, [
      no,
      account,
    ]);
    if (runs.length === 0) return true;
    const keys = runs.map(({ lane }) => ({ lane, account, bulk: no, paused: false }));
    const found = await lines.find(tx, keys);
    const lineOf = keys.map((key) => found.get(lineKey(key)) as number);
    const nos = list(runs.map((run) => run.no));
    await tx.query(SQL.runLine, [nos, list(lineOf)]);
    await tx.query(SQL.retryLine, [nos, list(runs.map((run) => run.end)), list(lineOf)]);
    await rest(tx, [...new Set([...runs.map((run) => run.line), ...lineOf])]);
    return true;
  }

  /** False = no such bulk of that account, or a cancelled one. */
  return async function bulkSteer(
    tx: Tx,
    account: number,
    by: { no: number } | { id: string },
    to: 'PAUSED' | 'PROCESSING',
  ): Promise<boolean> {
    const pause = to === 'PAUSED';
    const find = async (): Promise<BulkRow | null> => {
      const [row] =
        'no' in by
          ? await tx.query<BulkColumns>(SQL.byNo, [account, by.no])
          : await tx.query<BulkColumns>(SQL.byId, [account, plain(by.id)]);
      return row ? toBulk(row) : null;
    };
    let bulk = await find();
    if (!bulk && 'no' in by) {
      // Never steered, so it is running.
      if (!pause) return (await tx.query(SQL.ofSpecs, [by.no, account])).length > 0;
      if (await ownBulk(tx, account, by.no)) bulk = await find();
    }
    if (!bulk || bulk.canceledAt !== null) return false;
    if ((bulk.pausedAt !== null) === pause) return true;
    const book = new RunBook(tx);
    book.setClock(bulk, pause ? { ...bulk, pausedAt: tx.now } : resumed(bulk, tx.now));
    await book.flush();
    const held = await lines.lock(
      tx,
      (await tx.query<{ no: number }>(SQL.lines, [bulk.no])).map((line) => line.no),
    );
    const nos = held.map((line) => line.no);
    await tx.query(SQL.paused, [list(nos), pause]);
    await rest(tx, nos);
    if (!pause) tx.hint('lane');
    return true;
  };
}
