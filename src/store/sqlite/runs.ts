/**
 * Runs and the clocks over them: the one place that turns rows of run and bulk into what `admit` and the sweep decide by, and
 * that moves a run's cursor and a bulk's bucket. Claims and the sweep share it, so they cannot disagree on who is too late.
 */
import { legOf, spanOf } from '../../domain/failover.ts';
import { type Admission, nextOpening } from '../../domain/schedule.ts';
import { STATE } from '../../domain/status.ts';
import { type BulkClock, byTurns, heldEarly, startOf } from '../clock.ts';
import {
  type BulkColumns,
  type BulkRow,
  type RunColumns,
  type RunRow,
  TOLD,
  toBulk,
  toRun,
  turnDue,
  UNTRIED,
  type Untried,
} from '../waiting.ts';
import type { LineRow } from './lines.ts';
import { prepare, type Tx } from './tx.ts';

export { type BulkColumns, type BulkRow, type RunColumns, type RunRow, toBulk, toRun } from '../waiting.ts';

/** Columns of `run r`. */
export const RUN = `r.no, r.line, r.spec, r.next, r."end" AS "end", r.members, r.days, r.from_min, r.to_min, r.validity,
  r.opens_at, r.limited, r.moves, r.media, r.early_ms, r.intermediate`;
export const BULK = `no, id, interval_us, next_us, limited_at, paused_at, pauses, canceled_at, accepted_at, send_at, moves,
  speed`;

export type Runs = ReturnType<typeof createRuns>;

/** Reads of runs and their bulks on the transaction that they are given. */
export function createRuns(tx: Tx) {
  const db = tx.db;
  const q = {
    one: prepare<RunColumns>(db, `SELECT ${RUN} FROM run r WHERE no = ?`),
    due: prepare<RunColumns>(
      db,
      `SELECT ${RUN} FROM run r WHERE line = ? AND due_at <= ? ORDER BY due_at, seq LIMIT ? + 0`,
    ),
    toLook: prepare<RunColumns>(db, `SELECT ${RUN} FROM run r WHERE look_at <= ? ORDER BY look_at LIMIT 1`),
    adopt: prepare(db, 'UPDATE run SET opens_at = ?, send_at = ?, moves = ?, look_at = ? WHERE no = ?'),
    move: prepare(db, 'UPDATE run SET next = ?, due_at = ?, seq = ? WHERE no = ?'),
    look: prepare(db, 'UPDATE run SET look_at = ? WHERE no = ?'),
    deadline: prepare(
      db,
      `INSERT INTO deadline (at, first, "end", run, error, words) VALUES (?, ?, ?, ?, ?, ?)
       ON CONFLICT (at, first) DO UPDATE SET "end" = max("end", excluded."end")`,
    ),
    heldDeadlines: prepare(db, 'DELETE FROM deadline WHERE at = ? AND first >= ? AND first < ? AND error IS NULL'),
    heldRetries: prepare(db, 'UPDATE retry SET valid_until = ? WHERE leader >= ? AND leader < ? AND valid_until = ?'),
    heldFlights: prepare(db, 'UPDATE flight SET valid_until = ? WHERE leader >= ? AND leader < ? AND valid_until = ?'),
    heldTaken: prepare(
      db,
      `INSERT OR REPLACE INTO callback (leader, lane, at, generation, ref, earliest_at)
       SELECT a.leader, a.lane, ?1, a.generation, a.ref, ?2 FROM attempt a
       WHERE a.leader >= ?3 AND a.leader < ?4 AND a.outcome = 'accepted' AND a.ref <> '' AND EXISTS (SELECT 1 FROM message m
         WHERE m.no >= a.leader AND m.no < a.leader + ?5 AND m.state = ${STATE.submitted})`,
    ),
    heldFlying: prepare(
      db,
      `INSERT OR REPLACE INTO callback (leader, lane, at, generation, ref, earliest_at)
       SELECT leader, lane, ?1, generation, '', ?2 FROM flight WHERE leader >= ?3 AND leader < ?4`,
    ),
    lookBefore: prepare(db, 'UPDATE run SET look_at = min(coalesce(look_at, ?1), ?1) WHERE no = ?2'),
    covers: prepare<{ first: number; end: number }>(
      db,
      'SELECT first, "end" AS "end" FROM deadline WHERE at = ? AND first <= ? AND "end" > ? AND error IS NULL',
    ),
    deadlineEnd: prepare(db, 'UPDATE deadline SET "end" = ? WHERE at = ? AND first = ?'),
    deadlineDelete: prepare(db, 'DELETE FROM deadline WHERE at = ? AND first = ?'),
    untried: prepare<Untried>(
      db,
      `SELECT leader, members FROM retry WHERE run = ? AND valid_until = ${UNTRIED} ORDER BY leader`,
    ),
    ends: prepare(db, 'UPDATE retry SET valid_until = ? WHERE leader = ?'),
    // A repeated id has no row, who wants none is final: neither had a turn to lose.
    waiting: prepare<{ no: number }>(
      db,
      `SELECT no FROM message WHERE no >= ? AND no < ? AND leg = ? AND state IN (${STATE.pending}, ${STATE.uncertain})
       ORDER BY no LIMIT ? + 0`,
    ),
    tellRuns: prepare(
      db,
      `UPDATE run SET due_at = ?1, look_at = min(coalesce(look_at, ?1), ?1) WHERE no IN (
         SELECT no FROM run WHERE line = ?2 AND due_at >= ?3 ORDER BY due_at, seq LIMIT ${TOLD})`,
    ),
    tellRetries: prepare(
      db,
      `UPDATE retry SET due_at = ?1 WHERE leader IN (
         SELECT leader FROM retry WHERE line = ?2 AND due_at >= ?3 AND free_at IS NOT NULL ORDER BY due_at LIMIT ${TOLD})`,
    ),
    bulk: prepare<BulkColumns>(db, `SELECT ${BULK} FROM bulk WHERE no = ?`),
    bulkByNo: prepare<BulkColumns>(db, `SELECT ${BULK} FROM bulk WHERE no = ? AND account = ?`),
    bulkById: prepare<BulkColumns>(db, `SELECT ${BULK} FROM bulk WHERE account = ? AND id = ?`),
    bulkNext: prepare(db, 'UPDATE bulk SET next_us = ? WHERE no = ?'),
    bulkClock: prepare(
      db,
      'UPDATE bulk SET interval_us = ?, next_us = ?, limited_at = ?, paused_at = ?, pauses = ? WHERE no = ?',
    ),
  };

  /** Of the numbers [first, end) of a run the first `most` with a message that waits: how many, and the number behind them. */
  function waitingAt(first: number, end: number, most: number): { count: number; next: number } {
    const span = spanOf(first, end - first);
    const nos = q.waiting.all(span.first, span.end, legOf(first), most);
    return { count: nos.length, next: nos.length < most || first < 0 ? end : (nos.at(-1)?.no ?? end - 1) + 1 };
  }

  /** What has left of a run before its time ends later, and its carrier is asked to keep it until `sendAt`. At most a request's messages. */
  function hold(run: RunRow, ended: number, sendAt: number): void {
    const ends = sendAt + run.validityMs;
    q.heldDeadlines.run(ended, run.no, run.end);
    q.heldRetries.run(ends, run.no, run.end, ended);
    q.heldFlights.run(ends, run.no, run.end, ended);
    // A group is one submission of all its numbers.
    q.heldTaken.run(tx.now, sendAt, run.no, run.next, run.members > 0 ? run.end - run.no : 1);
    q.heldFlying.run(tx.now, sendAt, run.no, run.next);
  }

  const runs = {
    get(no: number): RunRow | null {
      const row = q.one.get(no);
      return row ? toRun(row) : null;
    },
    due: (line: number, limit: number): RunRow[] => q.due.all(line, tx.now, limit).map(toRun),
    /** The run that the sweep must look at first. */
    toLook(): RunRow | null {
      const row = q.toLook.get(tx.now);
      return row ? toRun(row) : null;
    },
    look: (no: number, at: number | null): number => q.look.run(at, no),
    /** Move the cursor; `due` null = nothing of it may be claimed. */
    move(run: RunRow, next: number, due: number | null): void {
      run.next = next;
      q.move.run(next, next < run.end && !run.closed ? due : null, tx.seq(), run.no);
    },
    /** Numbers [first, end) end at `at` unless they are final by then. */
    deadline(at: number, first: number, end: number, run: number, failed?: { error: number; words: string }): void {
      if (first < end) q.deadline.run(at, first, end, run, failed?.error ?? null, failed?.words ?? null);
    },

    /**
     * A run whose bulk's sendAt was moved takes the new one, before anything of it is claimed or ends. What has left keeps its
     * clock, unless it left early and its carrier keeps the time; what waits, or was put back before it left, gets a new one.
     */
    adopt(run: RunRow, bulk: BulkRow | null): void {
      if (bulk === null || bulk.sendAt === null || run.moves >= bulk.moves) return;
      const before = { ...bulk, moves: run.moves };
      const start = startOf(run, before);
      const untried = runs.untried(run);
      const held = heldEarly(run, tx.now);
      if (held) hold(run, run.opensAt + run.validityMs, bulk.sendAt);
      if (held || (start !== null && !byTurns(run, start, before))) {
        const at = (held ? bulk.sendAt : (start as number)) + run.validityMs;
        let first = run.no;
        for (const { leader, members } of untried) {
          runs.deadline(at, first, leader, run.no);
          first = leader + members;
        }
        runs.deadline(at, first, run.next, run.no);
      }
      run.opensAt = nextOpening(run.window, bulk.sendAt);
      run.moves = bulk.moves;
      const look = run.next < run.end || untried.length > 0 ? run.opensAt + run.validityMs : null;
      q.adopt.run(run.opensAt, bulk.sendAt, run.moves, look, run.no);
    },

    /** The bulk of a line; null for express lines. */
    bulkOf(line: LineRow): BulkRow | null {
      const row = line.bulk === null ? undefined : q.bulk.get(line.bulk);
      return row ? toBulk(row) : null;
    },
    bulk(account: number, by: { no: number } | { id: string }): BulkRow | null {
      const row = 'no' in by ? q.bulkByNo.get(by.no, account) : q.bulkById.get(account, by.id);
      return row ? toBulk(row) : null;
    },
    setClock(bulk: BulkRow, to: BulkClock): void {
      Object.assign(bulk, to);
      const pauses = JSON.stringify(to.pauses);
      q.bulkClock.run(to.intervalUs, to.nextUs, to.limitedAt, to.pausedAt, pauses, bulk.no);
    },
    /** Take turns of a bulk with a limit. */
    charge(bulk: BulkRow | null, nextUs: number): void {
      if (!bulk || bulk.intervalUs === 0 || nextUs === bulk.nextUs) return;
      bulk.nextUs = nextUs;
      q.bulkNext.run(nextUs, bulk.no);
    },

    /** What was put back before anything of it left, and has no clock of its own. */
    untried: (run: RunRow): Untried[] => q.untried.all(run.no),
    /** A submission that ended at `at` by its claim has not left: its clock is its run's again. */
    anew(run: number, span: { leader: number; members: number }, at: number): void {
      const end = span.leader + span.members;
      for (const covers of q.covers.all(at, span.leader, span.leader)) {
        if (covers.first < span.leader) q.deadlineEnd.run(span.leader, at, covers.first);
        else q.deadlineDelete.run(at, covers.first);
        runs.deadline(at, end, covers.end, run);
      }
      q.lookBefore.run(at, run);
    },
    /** Those of a line that wait for the turn that ends at `turnEnd` may have an earlier one, at `due`. True = there are any. */
    tell(line: number, turnEnd: number, due: number): boolean {
      const wait = turnDue(turnEnd);
      if (due >= wait) return false;
      return q.tellRuns.run(due, line, wait) + q.tellRetries.run(due, line, wait) > 0;
    },

    /** The turns of one that was put back before it left have passed unused: it ends with the next steps of the sweep. */
    passedAgain(
      run: RunRow,
      bulk: BulkRow | null,
      { leader, members }: Untried,
      admission: Extract<Admission, { kind: 'expired' }>,
    ): void {
      runs.pass(bulk, admission, waitingAt(leader, leader + members, members).count);
      runs.deadline(tx.now, leader, leader + members, run.no);
      q.ends.run(tx.now, leader);
    },
    /** Turns of the run that passed unused: their messages end with the next steps of the sweep. */
    passed(run: RunRow, bulk: BulkRow | null, admission: Extract<Admission, { kind: 'expired' }>): void {
      const group = run.members > 0;
      const { count, next } = waitingAt(run.next, run.end, group ? run.end - run.next : admission.count);
      runs.pass(bulk, admission, count);
      runs.deadline(tx.now, run.next, next, run.no);
      runs.move(run, next, tx.now);
    },
    /** `turns` messages have lost their turns; what `admission` counted beyond them nobody had. */
    pass(bulk: BulkRow | null, admission: Extract<Admission, { kind: 'expired' }>, turns: number): void {
      if (bulk && turns > 0) runs.charge(bulk, admission.bucketNext + (turns - admission.count) * bulk.intervalUs);
    },
  };
  return runs;
}
