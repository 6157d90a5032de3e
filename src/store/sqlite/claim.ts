/**
 * claim: the leased right to submit. Turning over accounts, then lines, then runs; fresh messages and retries alternate.
 * The pure `admit` decides for a run; cursor, lease, token and the bulk's rate bucket move in the caller's transaction,
 * so a crash loses nobody. A fresh message costs one flight row; a run of ten thousand costs one cursor.
 */

import { legOf, spanOf } from '../../domain/failover.ts';
import type { SpecRow } from '../../domain/rows.ts';
import { admit } from '../../domain/schedule.ts';
import { STATE, type State } from '../../domain/status.ts';
import { bucketOf, byTurns, closing, earlyOf, startOf, type Turns, viewOf } from '../clock.ts';
import type { Claim, Claims } from '../contract.ts';
import { ACCOUNT_QUANTUM, AHEAD_MS, again, DRAIN_MS, LINE_QUANTUM, type RetryRow, UNTRIED } from '../waiting.ts';
import type { Events } from './events.ts';
import type { InboundVerbs } from './inbound.ts';
import type { LineRow, Lines } from './lines.ts';
import type { Reads } from './rows.ts';
import type { BulkRow, RunRow, Runs } from './runs.ts';
import { prepare, type Tx } from './tx.ts';

export const RETRY = 'leader, line, run, members, sent, generation, attempts, held, valid_until, due_at';

/** Lines remembered as to whose turn it is, fresh or retry. */
const FLIPS = 10_000;

/** The start of what leaves before it; null = its time has come. */
function earlyStart(earlyMs: number, start: number | null, now: number): number | null {
  return earlyMs > 0 && start !== null && start > now ? start : null;
}

/** The verb `claim` on the transaction that it is given. */
export function createClaim(
  tx: Tx,
  lines: Lines,
  runs: Runs,
  reads: Reads,
  { screen }: Pick<InboundVerbs, 'screen'>,
  { claimed }: Pick<Events, 'claimed'>,
) {
  const db = tx.db;
  const q = {
    turn: prepare<{ account: number }>(
      db,
      'SELECT account FROM turn WHERE lane = ? AND due_at <= ? ORDER BY due_at, seq LIMIT 1',
    ),
    line: prepare<LineRow>(
      db,
      `SELECT no, lane, account, bulk, paused FROM line
       WHERE lane = ? AND account = ? AND due_at <= ? ORDER BY due_at, seq LIMIT 1`,
    ),
    retries: prepare<RetryRow>(
      db,
      `SELECT ${RETRY} FROM retry WHERE line = ? AND due_at <= ? ORDER BY due_at, leader LIMIT ? + 0`,
    ),
    retryDelete: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    // What it waited for before is kept: its bulk may get another pace or sendAt.
    retryWait: prepare(db, 'UPDATE retry SET free_at = coalesce(free_at, due_at), due_at = ? WHERE leader = ?'),
    // Only messages that still wait: a duplicate id has no row, a timely report or an expiry has made others final.
    pending: prepare<{ no: number; to: string; key: string | null; state: State }>(
      db,
      `SELECT no, "to", key, state FROM message
       WHERE no >= ? AND no < ? AND leg = ? AND state IN (${STATE.pending}, ${STATE.uncertain}) ORDER BY no`,
    ),
    flight: prepare(
      db,
      `INSERT INTO flight (leader, token, lane, line, run, members, sent, generation, attempts, held, valid_until,
         lease_until, turn_from, turn_end) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
  };
  // Whether a line's last served submission was a retry; lost at a restart, which costs one turn.
  const lastWasRetry = new Set<number>();

  let out: Claim[] = [];
  let lease = 0;

  /** Those of a submission that wait on its leg. */
  function pending(leader: number, members: number) {
    const { first, end } = spanOf(leader, members);
    return q.pending.all(first, end, legOf(leader));
  }

  function fly(
    line: LineRow,
    run: RunRow,
    members: { no: number; to: string; key: string | null }[],
    span: { leader: number; members: number },
    state: { generation: number; attempts: number; held: number },
    notBeforeUs: number,
    /** Null = it needs none. */
    turns: Turns | null,
    /** `start`: of its run's clock, where it leaves before that. */
    { validUntil, start }: { validUntil: number; start: number | null },
  ): void {
    const token = tx.seq();
    q.flight.run(
      span.leader,
      token,
      line.lane,
      line.no,
      run.no,
      span.members,
      members.length,
      state.generation,
      state.attempts + 1,
      state.held,
      validUntil,
      lease,
      turns?.from ?? null,
      turns?.end ?? null,
    );
    out.push({
      token,
      leader: span.leader,
      spec: run.spec,
      members: members.map(({ no, to, key }) => ({ no, to, key })),
      generation: state.generation,
      attempt: state.attempts + 1,
      notBeforeUs,
      paced: turns !== null,
      ...(start === null ? {} : { earliestAt: start }),
      validUntil,
      ...closing(run.window, notBeforeUs),
    });
    claimed(run, members);
  }

  /** Returns submissions taken (0 or 1). */
  function serveRetry(line: LineRow, bulk: BulkRow | null, retry: RetryRow): number {
    const run = runs.get(retry.run);
    const waiting = pending(retry.leader, retry.members);
    if (!run || waiting.length === 0) {
      q.retryDelete.run(retry.leader);
      return 0;
    }
    const untried = retry.valid_until === UNTRIED;
    const start = startOf(run, bulk);
    if (untried && (start === null || run.moves < (bulk?.moves ?? 0))) {
      // The drain of its bulk brings the new sendAt to its run first.
      q.retryWait.run(tx.now + DRAIN_MS, retry.leader);
      return 0;
    }
    // Handed on to another carrier: that one does not keep the time.
    const earlyMs = retry.line === run.line ? earlyOf(run, start, bulk) : 0;
    const view = viewOf(run, bulk, start ?? tx.now, 1, earlyMs);
    const bucket = bucketOf(bulk);
    const admission = admit(untried ? view : { ...view, validUntil: retry.valid_until }, bucket, tx.now, 1, AHEAD_MS);
    if (admission.kind !== 'go') {
      // Past its validity: the sweep ends it truthfully; until then it is not claimable.
      q.retryWait.run(admission.kind === 'wait' ? admission.until : tx.now + 60_000, retry.leader);
      return 0;
    }
    q.retryDelete.run(retry.leader);
    const members = screen(line.account, run.spec, waiting, legOf(run.no));
    if (members.length === 0) return 0;
    const end = admission.bucketNext + (members.length - 1) * admission.stepUs;
    runs.charge(bulk, end);
    // Fewer members than last time are another submission; but what may have reached the carrier keeps its id.
    const other = members.length < retry.sent && members.every((member) => member.state === STATE.pending);
    const state = { ...retry, generation: retry.generation + (other ? 1 : 0) };
    const span = { leader: retry.leader, members: retry.members };
    const time = { validUntil: admission.validUntil, start: earlyStart(earlyMs, start, tx.now) };
    fly(line, run, members, span, state, admission.firstAt, bucket && { from: bucket.next, end }, time);
    if (untried && (time.start !== null || byTurns(run, start, bulk))) {
      runs.deadline(admission.validUntil, retry.leader, retry.leader + retry.members, run.no);
    }
    return 1;
  }

  /** Returns submissions taken. */
  function serveRun(line: LineRow, bulk: BulkRow | null, run: RunRow, quota: number): number {
    const group = run.members > 0;
    const left = run.end - run.next;
    const bucket = bucketOf(bulk);
    runs.adopt(run, bulk);
    const start = startOf(run, bulk);
    if (start === null || left <= 0) {
      runs.move(run, run.next, left <= 0 ? null : tx.now + 60_000);
      return 0;
    }
    const earlyMs = earlyOf(run, start, bulk);
    const view = viewOf(run, bulk, start, group ? 1 : left, earlyMs);
    const admission = admit(view, bucket, tx.now, group ? 1 : Math.min(quota, left), AHEAD_MS);
    if (admission.kind === 'expired') {
      if (byTurns(run, start, bulk)) runs.passed(run, bulk, admission);
      // All of them: the sweep's look at the run is due.
      else runs.move(run, run.next, null);
      return 0;
    }
    if (admission.kind === 'wait') {
      runs.move(run, run.next, admission.until);
      return 0;
    }
    const end = run.next + (group ? left : admission.count);
    const messages = screen(line.account, run.spec, pending(run.next, end - run.next), legOf(run.no));
    const fresh = { generation: 0, attempts: 0, held: 0 };
    const { firstAt, stepUs, validUntil } = admission;
    const time = { validUntil, start: earlyStart(earlyMs, start, tx.now) };
    let taken = 0;
    if (group) {
      if (messages.length > 0) {
        const span = { leader: run.next, members: left };
        const turnEnd = firstAt + messages.length * stepUs;
        fly(line, run, messages, span, fresh, firstAt, bucket && { from: bucket.next, end: turnEnd }, time);
        runs.charge(bulk, turnEnd);
        taken = 1;
      }
    } else {
      for (const message of messages) {
        const span = { leader: legOf(run.no) === 1 ? run.no : message.no, members: 1 };
        const turn = firstAt + taken * stepUs;
        const turns = bucket && { from: taken === 0 ? bucket.next : turn, end: turn + stepUs };
        fly(line, run, [message], span, fresh, turn, turns, time);
        taken++;
      }
      // Numbers without a message to send (a duplicate id, an opt-out) take no turn, and move no clock.
      if (taken > 0) runs.charge(bulk, admission.bucketNext - (admission.count - taken) * stepUs);
    }
    // What leaves early has an end of its own, too: whatever its bulk's limit or a pause makes of the rest.
    if (time.start !== null || byTurns(run, start, bulk)) runs.deadline(validUntil, run.next, end, run.no);
    runs.move(run, end, tx.now);
    return taken;
  }

  function serveLine(line: LineRow, quota: number): number {
    const bulk = runs.bulkOf(line);
    const retries = q.retries.all(line.no, tx.now, quota);
    const waiting = runs.due(line.no, quota);
    let taken = 0;
    let r = 0;
    let n = 0;
    while (taken < quota && (r < retries.length || n < waiting.length)) {
      const retry = retries[r];
      const run = waiting[n];
      // Never tried: put back by a stop or a pause of its lane, so it was there before all that is fresh.
      const first = retry?.attempts === 0;
      if (retry && (!run || first || !lastWasRetry.has(line.no))) {
        r++;
        const served = serveRetry(line, bulk, retry);
        taken += served;
        if (served > 0 && run && !first) flip(line.no, true);
        continue;
      }
      if (!run) break;
      n++;
      // While others wait beside it, a run takes one; alone it takes what is free.
      const share = waiting.length - n > 0 || retries.length - r > 0 ? 1 : quota - taken;
      taken += serveRun(line, bulk, run, share);
      flip(line.no, false);
    }
    return taken;
  }

  function flip(line: number, retry: boolean): void {
    if (!retry) {
      lastWasRetry.delete(line);
      return;
    }
    if (lastWasRetry.size >= FLIPS) lastWasRetry.clear();
    lastWasRetry.add(line);
  }

  function serveAccount(lane: number, account: number, quota: number): number {
    let taken = 0;
    for (let visits = 0; taken < quota && visits < 64; visits++) {
      const line = q.line.get(lane, account, tx.now);
      if (!line) break;
      taken += serveLine(line, Math.min(LINE_QUANTUM, quota - taken));
      lines.rest(line);
    }
    return taken;
  }

  return function claim(lane: number, limit: number, leaseMs: number): Claims {
    out = [];
    lease = tx.now + leaseMs;
    for (let visits = 0; out.length < limit && visits < 64; visits++) {
      const turn = q.turn.get(lane, tx.now);
      if (!turn) break;
      serveAccount(lane, turn.account, Math.min(ACCOUNT_QUANTUM, limit - out.length));
      lines.restTurn(lane, turn.account);
    }
    const specNos = new Set(out.map((one) => one.spec));
    const specs: SpecRow[] = reads.specs([...specNos]);
    return { now: tx.now, claims: out, specs, nextDue: again(lines.nextDue(lane), tx.now, out.length) };
  };
}
