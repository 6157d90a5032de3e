/**
 * reroute: what waits on the lanes of one carrier goes to another's, in bounded steps; for a carrier that left the configuration.
 * What may have reached it stays: it ends by a report, or as not known. So does what is in flight, until it comes back.
 */
import type { Channel } from '../../domain/routing.ts';
import { STATE } from '../../domain/status.ts';
import type { Rerouted } from '../contract.ts';
import { channelOf } from '../waiting.ts';
import type { LineRow, Lines } from './lines.ts';
import type { Runs } from './runs.ts';
import { prepare, type Tx } from './tx.ts';

/** Lines looked at, and runs or retries of one line moved, in one step. */
const LINES = 20;
const STEP = 500;

/** None of its members may have reached a carrier. */
const UNSENT = `NOT EXISTS (SELECT 1 FROM message m WHERE m.no >= abs(t.leader) AND m.no < abs(t.leader) + t.members
  AND m.state = ${STATE.uncertain})`;

/** Lines of a carrier with something that may go; by the index that its kind of lines has. */
const linesWhere = (kind: string): string =>
  `SELECT l.no, l.lane, l.account, l.bulk, l.paused FROM lane n CROSS JOIN line l ON l.lane = n.no
   WHERE n.carrier = ? AND ${kind} AND (EXISTS (SELECT 1 FROM run r WHERE r.line = l.no AND r.due_at IS NOT NULL)
     OR EXISTS (SELECT 1 FROM retry t WHERE t.line = l.no AND ${UNSENT})) LIMIT ${LINES}`;

/** The verb `reroute` on the transaction that it is given. */
export function createReroute(tx: Tx, lines: Lines, runs: Runs) {
  const db = tx.db;
  const q = {
    lanes: prepare<{ no: number }>(db, 'SELECT no FROM lane WHERE carrier = ? ORDER BY shard'),
    lines: prepare<LineRow>(db, linesWhere('l.bulk IS NOT NULL')),
    express: prepare<LineRow>(db, linesWhere('l.bulk IS NULL')),
    one: prepare<{ leader: number; ways: string | null }>(
      db,
      `SELECT leader, ways FROM (SELECT no AS leader, ways FROM run WHERE line = ?1 AND due_at IS NOT NULL LIMIT 1)
       UNION ALL SELECT leader, ways FROM (SELECT leader, (SELECT r.ways FROM run r WHERE r.no = t.run) AS ways FROM retry t
         WHERE line = ?1 AND ${UNSENT} LIMIT 1) LIMIT 1`,
    ),
    runs: prepare<{ no: number; n: number }>(
      db,
      `SELECT no, "end" - next AS n FROM run WHERE line = ? AND due_at IS NOT NULL ORDER BY due_at LIMIT ${STEP}`,
    ),
    // That one may not keep the time; the one before may have some of it.
    runLine: prepare(db, 'UPDATE run SET line = ?, early_ms = -abs(early_ms) WHERE no = ?'),
    // Where an MMS without a carrier of its own goes, its SMS goes too: the one before has left.
    smsLane: prepare(
      db,
      `UPDATE run SET ways = json_set(ways, '$.sms.lane', ?) WHERE no = ? AND ways LIKE '%"smsOnly"%'`,
    ),
    retries: prepare<{ leader: number; run: number; members: number }>(
      db,
      `SELECT leader, run, members FROM retry t WHERE line = ? AND ${UNSENT} ORDER BY due_at LIMIT ${STEP}`,
    ),
    // Another carrier gets another submission.
    retryLine: prepare(db, 'UPDATE retry SET line = ?, generation = generation + 1 WHERE leader = ?'),
  };
  return function reroute(from: string, to: string, channel?: Channel): Rerouted | null {
    const targets = q.lanes.all(to).map(({ no }) => no);
    if (targets.length === 0 || from === to || q.lanes.all(from).length === 0) return null;
    let count = 0;
    const found = [...q.express.all(from), ...q.lines.all(from)];
    // A carrier's lanes are of one channel: what waits on one line tells it.
    const [one] = found;
    const waiting = one && q.one.get(one.no);
    if (waiting && channel !== undefined && channelOf(waiting, one.lane) !== channel) {
      return { count: 0, next: null, otherChannel: true };
    }
    for (const line of found) {
      const bulk = runs.bulkOf(line);
      const paused = bulk !== null && (bulk.pausedAt !== null || bulk.canceledAt !== null);
      const lane = targets[line.no % targets.length] as number;
      const target = lines.get(lines.line(lane, line.account, line.bulk, paused));
      for (const run of q.runs.all(line.no)) {
        q.runLine.run(target.no, run.no);
        q.smsLane.run(lane, run.no);
        count += run.n;
      }
      for (const { leader, run, members } of q.retries.all(line.no)) {
        q.retryLine.run(target.no, leader);
        q.smsLane.run(lane, run);
        count += members;
      }
      for (const one of [line, target]) {
        lines.rest(one);
        lines.restTurn(one.lane, one.account);
      }
      tx.hint('lane');
    }
    return { count, next: found.length > 0 ? 0 : null };
  };
}
