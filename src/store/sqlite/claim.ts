/**
 * claim: the leased right to submit. Turning over accounts, then lines, then runs; fresh messages and retries alternate.
 * The pure `admit` decides for a run; cursor, lease, token and the bulk's rate bucket move in the caller's transaction,
 * so a crash loses nobody. A fresh message costs one flight row; a run of ten thousand costs one cursor.
 */
import type { SpecRow } from '../../domain/rows.ts';
import { admit, type RateBucket, type Window } from '../../domain/schedule.ts';
import type { Claim, Claims } from '../contract.ts';
import type { LineRow, Lines } from './lines.ts';
import type { Reads } from './rows.ts';
import { prepare, type Tx } from './tx.ts';

/** Submissions one account may take before the next account's turn, and one line before the next line's. */
const ACCOUNT_QUANTUM = 32;
const LINE_QUANTUM = 16;
/** How far ahead slots of a speed limit are handed out, with their instants (design 7, clock). */
const AHEAD_MS = 250;

export interface BulkRow {
  no: number;
  interval_us: number;
  next_us: number;
  paused_at: number | null;
  resumed_at: number | null;
}

export interface RunRow {
  no: number;
  spec: number;
  next: number;
  end: number;
  members: number;
  send_at: number | null;
  days: number | null;
  from_min: number | null;
  to_min: number | null;
  validity: number;
  valid_until: number | null;
  accepted_at: number;
}

export interface RetryRow {
  leader: number;
  line: number;
  run: number;
  members: number;
  generation: number;
  attempts: number;
  held: number;
  valid_until: number;
  due_at: number;
}

/** The end of a run's validity: a pause that began before the clock started moves it to the resumption (design 5). */
export function validUntilOf(
  run: { valid_until: number | null; validity: number },
  bulk: BulkRow | null,
): number | null {
  if (run.valid_until === null || !bulk || bulk.paused_at === null || bulk.resumed_at === null) return run.valid_until;
  const opening = run.valid_until - run.validity;
  return bulk.paused_at <= opening && bulk.resumed_at > opening ? bulk.resumed_at + run.validity : run.valid_until;
}

function windowOf(run: RunRow): Window | null {
  return run.days === null ? null : { days: run.days, from: run.from_min as number, to: run.to_min as number };
}

const RUN_COLUMNS = `r.no, r.spec, r.next, r."end" AS "end", r.members, r.send_at, r.days, r.from_min, r.to_min, r.validity,
  r.valid_until, (SELECT s.accepted_at FROM spec s WHERE s.no = r.spec) AS accepted_at`;

export function createClaim(tx: Tx, lines: Lines, reads: Reads) {
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
    bulk: prepare<BulkRow>(db, 'SELECT no, interval_us, next_us, paused_at, resumed_at FROM bulk WHERE no = ?'),
    bulkNext: prepare(db, 'UPDATE bulk SET next_us = ? WHERE no = ?'),
    runs: prepare<RunRow>(
      db,
      `SELECT ${RUN_COLUMNS} FROM run r WHERE r.line = ? AND r.due_at <= ? ORDER BY r.due_at, r.seq LIMIT ?`,
    ),
    run: prepare<RunRow>(db, `SELECT ${RUN_COLUMNS} FROM run r WHERE r.no = ?`),
    runMove: prepare(db, 'UPDATE run SET next = ?, due_at = ?, seq = ? WHERE no = ?'),
    retries: prepare<RetryRow>(
      db,
      `SELECT leader, line, run, members, generation, attempts, held, valid_until, due_at FROM retry
       WHERE line = ? AND due_at <= ? ORDER BY due_at LIMIT ?`,
    ),
    retryDelete: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    retryWait: prepare(db, 'UPDATE retry SET due_at = ? WHERE leader = ?'),
    // Only messages that still wait: a duplicate id has no row, a timely report or an expiry has made others final.
    pending: prepare<{ no: number; to: string }>(
      db,
      'SELECT no, "to" FROM message WHERE no >= ? AND no < ? AND state IN (0, 2)',
    ),
    flight: prepare(
      db,
      `INSERT INTO flight (leader, token, lane, line, run, members, generation, attempts, held, valid_until, lease_until)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    deadline: prepare(db, 'INSERT OR REPLACE INTO deadline (at, first, "end", run, whole) VALUES (?, ?, ?, ?, 0)'),
  };

  let out: Claim[] = [];
  let lease = 0;

  function fly(
    line: LineRow,
    run: RunRow,
    members: { no: number; to: string }[],
    span: { leader: number; members: number },
    state: { generation: number; attempts: number; held: number },
    notBeforeUs: number,
    validUntil: number,
  ): void {
    const token = tx.seq();
    q.flight.run(
      span.leader,
      token,
      line.lane,
      line.no,
      run.no,
      span.members,
      state.generation,
      state.attempts + 1,
      state.held,
      validUntil,
      lease,
    );
    out.push({
      token,
      leader: span.leader,
      spec: run.spec,
      members,
      generation: state.generation,
      attempt: state.attempts + 1,
      notBeforeUs,
      validUntil,
    });
  }

  const bucketOf = (bulk: BulkRow | null): RateBucket | null =>
    bulk && bulk.interval_us > 0 ? { intervalUs: bulk.interval_us, next: bulk.next_us } : null;

  function charge(bulk: BulkRow | null, next: number): void {
    if (!bulk || bulk.interval_us === 0) return;
    bulk.next_us = next;
    q.bulkNext.run(next, bulk.no);
  }

  /** Returns submissions taken (0 or 1). */
  function serveRetry(line: LineRow, bulk: BulkRow | null, retry: RetryRow): number {
    const run = q.run.get(retry.run);
    const members = q.pending.all(retry.leader, retry.leader + retry.members);
    if (!run || members.length === 0) {
      q.retryDelete.run(retry.leader);
      return 0;
    }
    const admission = admit(
      {
        acceptedAt: run.accepted_at,
        sendAt: run.send_at,
        window: windowOf(run),
        validityMs: run.validity,
        validUntil: retry.valid_until,
        remaining: 1,
      },
      bucketOf(bulk),
      tx.now,
      1,
      AHEAD_MS,
    );
    if (admission.kind !== 'go') {
      // Past its validity: the sweep ends it truthfully; until then it is not claimable.
      q.retryWait.run(admission.kind === 'wait' ? admission.until : tx.now + 60_000, retry.leader);
      return 0;
    }
    q.retryDelete.run(retry.leader);
    charge(bulk, admission.bucketNext + (members.length - 1) * admission.stepUs);
    const span = { leader: retry.leader, members: retry.members };
    fly(line, run, members, span, retry, admission.firstAt, retry.valid_until);
    return 1;
  }

  /** Returns submissions taken. */
  function serveRun(line: LineRow, bulk: BulkRow | null, run: RunRow, quota: number): number {
    const group = run.members > 0;
    const left = run.end - run.next;
    const bucket = bucketOf(bulk);
    const until = bucket ? null : validUntilOf(run, bulk);
    const admission = admit(
      {
        acceptedAt: run.accepted_at,
        sendAt: run.send_at,
        window: windowOf(run),
        validityMs: run.validity,
        validUntil: until,
        remaining: group ? 1 : left,
      },
      bucket,
      tx.now,
      group ? 1 : Math.min(quota, left),
      AHEAD_MS,
    );
    if (admission.kind === 'expired') {
      // The sweep ends them. Without a limit the run's own deadline does; under one, those whose turn passed unused.
      const next = bucket ? run.next + admission.count : run.next;
      if (bucket) q.deadline.run(admission.at, run.next, next, run.no);
      charge(bulk, admission.bucketNext);
      q.runMove.run(next, bucket && next < run.end ? tx.now : null, tx.seq(), run.no);
      return 0;
    }
    if (admission.kind === 'wait') {
      q.runMove.run(run.next, admission.until, tx.seq(), run.no);
      return 0;
    }
    const count = group ? left : admission.count;
    const end = run.next + count;
    const messages = q.pending.all(run.next, end);
    const fresh = { generation: 0, attempts: 0, held: 0 };
    let taken = 0;
    if (group) {
      if (messages.length > 0) {
        fly(line, run, messages, { leader: run.next, members: left }, fresh, admission.firstAt, admission.validUntil);
        taken = 1;
      }
      charge(bulk, admission.bucketNext + Math.max(0, messages.length - 1) * admission.stepUs);
    } else {
      for (const message of messages) {
        const at = admission.firstAt + taken * admission.stepUs;
        fly(line, run, [message], { leader: message.no, members: 1 }, fresh, at, admission.validUntil);
        taken++;
      }
      charge(bulk, admission.bucketNext);
    }
    if (bucket) q.deadline.run(admission.validUntil, run.next, end, run.no);
    q.runMove.run(end, end < run.end ? tx.now : null, tx.seq(), run.no);
    return taken;
  }

  function serveLine(line: LineRow, quota: number): number {
    const bulk = line.bulk === null ? null : (q.bulk.get(line.bulk) ?? null);
    const retries = q.retries.all(line.no, tx.now, quota);
    const runs = q.runs.all(line.no, tx.now, quota);
    let taken = 0;
    let r = 0;
    let n = 0;
    while (taken < quota && (r < retries.length || n < runs.length)) {
      const retry = retries[r];
      if (retry) {
        r++;
        taken += serveRetry(line, bulk, retry);
      }
      const run = runs[n];
      if (run && taken < quota) {
        n++;
        // While others wait beside it, a run takes one; alone it takes what is free.
        const share = runs.length - n > 0 || retries.length - r > 0 ? 1 : quota - taken;
        taken += serveRun(line, bulk, run, share);
      }
    }
    return taken;
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
    return { now: tx.now, claims: out, specs, nextDue: lines.nextDue(lane) };
  };
}
