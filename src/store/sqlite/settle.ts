/**
 * What comes back: settle (the outcome of an attempt), release, report (what the carrier tells later), and the endings
 * that time brings (lost leases, the end of validity). Settle and report meet at `carrier_ref`: a report that comes
 * before the settle which teaches its id is parked and applied there; first final wins (G4, G5, G7).
 */
import { carrierRetryDelay, HOLD_MS, unknownRetryDelay } from '../../domain/retry.ts';
import { isFinal, STATE } from '../../domain/status.ts';
import type { CarrierReport, Outcome } from '../../domain/submission.ts';
import type { Settle } from '../contract.ts';
import { type BulkRow, type RetryRow, type RunRow, validUntilOf } from './claim.ts';
import type { Events, Live } from './events.ts';
import type { LineRow, Lines } from './lines.ts';
import { prepare, type Tx } from './tx.ts';

/** Parked reports: kept this long, and at most this many. */
const PARKED_MS = 48 * 3_600_000;
const PARKED_MAX = 100_000;
/** Numbers looked at in one step of the sweep. */
const SWEEP_SPAN = 500;

interface FlightRow {
  leader: number;
  token: number;
  lane: number;
  line: number;
  run: number;
  members: number;
  generation: number;
  attempts: number;
  held: number;
  valid_until: number;
  lease_until: number;
}

const FLIGHT = 'leader, token, lane, line, run, members, generation, attempts, held, valid_until, lease_until';
const LIVE = 'no, account, spec, state, status, error, sent_at';

export function createSettle(tx: Tx, lines: Lines, events: Events) {
  const db = tx.db;
  const q = {
    flight: prepare<FlightRow>(db, `SELECT ${FLIGHT} FROM flight WHERE leader = ?`),
    flightDelete: prepare(db, 'DELETE FROM flight WHERE leader = ?'),
    flightLost: prepare<FlightRow>(db, `SELECT ${FLIGHT} FROM flight WHERE lease_until <= ? LIMIT 64`),
    flightOver: prepare<FlightRow>(
      db,
      `SELECT ${FLIGHT} FROM flight WHERE leader <= ? AND leader + members > ? LIMIT 1`,
    ),
    flightsFreed: prepare(db, 'UPDATE flight SET lease_until = 0'),
    lane: prepare<{ on_unknown: 'hold' | 'retry' | 'fail'; reports: number }>(
      db,
      'SELECT on_unknown, reports FROM lane WHERE no = ?',
    ),
    attempt: prepare(
      db,
      `INSERT OR REPLACE INTO attempt (leader, n, generation, lane, at, took, outcome, error, words, ref)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    attemptCount: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM attempt WHERE leader = ?'),
    members: prepare<Live & { to: string }>(db, `SELECT ${LIVE}, "to" FROM message WHERE no >= ? AND no < ?`),
    refAdd: prepare(db, 'INSERT OR IGNORE INTO carrier_ref (lane, ref, leader, members) VALUES (?, ?, ?, ?)'),
    ref: prepare<{ leader: number; members: number }>(
      db,
      'SELECT leader, members FROM carrier_ref WHERE lane = ? AND ref = ?',
    ),
    park: prepare(db, 'INSERT INTO parked (lane, ref, at, report) VALUES (?, ?, ?, ?)'),
    parkedCount: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM parked'),
    parked: prepare<{ no: number; report: string }>(
      db,
      'SELECT no, report FROM parked WHERE lane = ? AND ref = ? ORDER BY no',
    ),
    parkedDelete: prepare(db, 'DELETE FROM parked WHERE no = ?'),
    parkedOld: prepare(db, 'DELETE FROM parked WHERE at <= ? AND no IN (SELECT no FROM parked ORDER BY no LIMIT 200)'),
    retryAdd: prepare(
      db,
      `INSERT OR REPLACE INTO retry (leader, line, run, members, generation, attempts, held, valid_until, due_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    retry: prepare<RetryRow>(
      db,
      `SELECT leader, line, run, members, generation, attempts, held, valid_until, due_at FROM retry WHERE leader = ?`,
    ),
    retryDelete: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    due: prepare<{ at: number; first: number; end: number; run: number; whole: number }>(
      db,
      'SELECT at, first, "end" AS "end", run, whole FROM deadline WHERE at <= ? ORDER BY at, first LIMIT 1',
    ),
    dueDelete: prepare(db, 'DELETE FROM deadline WHERE at = ? AND first = ?'),
    dueAdd: prepare(db, 'INSERT OR REPLACE INTO deadline (at, first, "end", run, whole) VALUES (?, ?, ?, ?, ?)'),
    run: prepare<Pick<RunRow, 'no' | 'next' | 'end' | 'members' | 'valid_until' | 'validity'> & { line: number }>(
      db,
      'SELECT no, line, next, "end" AS "end", members, valid_until, validity FROM run WHERE no = ?',
    ),
    runEnd: prepare(db, 'UPDATE run SET next = "end", due_at = NULL WHERE no = ?'),
    bulkOfLine: prepare<BulkRow>(
      db,
      `SELECT b.no, b.interval_us, b.next_us, b.paused_at, b.resumed_at FROM line l JOIN bulk b ON b.no = l.bulk
       WHERE l.no = ?`,
    ),
    unfinished: prepare<Live>(
      db,
      `SELECT ${LIVE} FROM message WHERE no >= ? AND no < ? AND state < ${STATE.delivered}`,
    ),
  };
  let parkedEstimate = q.parkedCount.get()?.n ?? 0;

  function line(no: number): LineRow {
    return lines.get(no);
  }

  /** A submission that goes back to waiting. */
  function again(flight: FlightRow, due: number, attempts: number, held: number): void {
    q.retryAdd.run(
      flight.leader,
      flight.line,
      flight.run,
      flight.members,
      flight.generation,
      attempts,
      held,
      flight.valid_until,
      due,
    );
    const row = line(flight.line);
    lines.wake(row.no, row.lane, row.account, due);
  }

  function conclude(flight: FlightRow, outcome: Outcome, words: string): void {
    const policy = q.lane.get(flight.lane);
    if (!policy) throw new Error(`lane ${flight.lane} is gone`);
    const members = q.members.all(flight.leader, flight.leader + flight.members);
    switch (outcome.kind) {
      case 'accepted': {
        const ref = refOf(outcome.carrierMessageId);
        q.refAdd.run(flight.lane, ref, flight.leader, flight.members);
        for (const member of members) {
          const refused = outcome.refused?.find((one) => one.recipient === member.to);
          if (refused) {
            events.change(member, { kind: 'refused', error: refused.error.id }, refused.error.words ?? words);
          } else events.change(member, { kind: 'accepted', reports: policy.reports === 1 }, words);
        }
        applyParked(flight.lane, ref);
        return;
      }
      case 'deferred':
        for (const member of members) events.change(member, { kind: 'deferred', error: outcome.error.id }, words);
        again(flight, tx.now + carrierRetryDelay(flight.attempts, outcome.retryAfterMs), flight.attempts, flight.held);
        return;
      case 'throttled':
        again(flight, tx.now + Math.max(0, outcome.retryAfterMs), flight.attempts - 1, flight.held);
        return;
      case 'refused':
        for (const member of members) events.change(member, { kind: 'refused', error: outcome.error.id }, words);
        return;
      case 'unknown': {
        // After a hold the submission is repeated once; unknown again, and only a report or the end of validity decides.
        const last = policy.on_unknown === 'hold' && flight.held === 1;
        for (const member of members) {
          // With policy retry, too, the message is uncertain until an attempt or a report decides: it may have arrived, so
          // at the end of its validity 29 is true and "never delivered" is not.
          const fate = policy.on_unknown === 'fail' ? 'fail' : 'hold';
          events.change(member, { kind: 'unknown', error: outcome.error.id, policy: fate }, words);
        }
        if (policy.on_unknown === 'fail' || last) return;
        if (policy.on_unknown === 'retry') {
          const delay = flight.attempts < 3 ? unknownRetryDelay : carrierRetryDelay(flight.attempts);
          again(flight, tx.now + delay, flight.attempts, 0);
        } else again(flight, tx.now + HOLD_MS, flight.attempts, 1);
        return;
      }
    }
  }

  function applyParked(lane: number, ref: string): void {
    if (parkedEstimate === 0) return;
    for (const row of q.parked.all(lane, ref)) {
      q.parkedDelete.run(row.no);
      parkedEstimate--;
      applyReport(lane, ref, JSON.parse(row.report) as CarrierReport);
    }
  }

  /** False = the id is not known (yet). */
  function applyReport(lane: number, ref: string, report: CarrierReport): boolean {
    const found = q.ref.get(lane, ref);
    if (!found) return false;
    const members = q.members.all(found.leader, found.leader + found.members);
    const named = members.length === 1 ? members : members.filter((member) => report.addresses.includes(member.to));
    for (const member of named) {
      const waited = member.state === STATE.pending || member.state === STATE.uncertain;
      const event = { kind: 'report', report: report.kind, ...(report.error ? { error: report.error } : {}) } as const;
      if (!events.change(member, event, report.words)) events.note(member, report.words);
      else if (waited && members.length === 1 && isFinal(member.state)) q.retryDelete.run(found.leader);
    }
    return true;
  }

  function expire(message: Live): void {
    const retry = q.retry.get(message.no);
    if (retry?.members === 1) q.retryDelete.run(message.no);
    const tried = message.state !== STATE.pending || message.error !== 0 || retry !== undefined;
    const attempts = q.attemptCount.get(message.no)?.n ?? 0;
    const words = attempts === 0 ? 'validity ended, never tried' : `validity ended after ${attempts} attempts`;
    events.change(message, { kind: 'validityEnded', tried, lastError: message.error }, words);
  }

  /** One step of one deadline. True = more may be due. */
  function sweepDeadline(): boolean {
    const due = q.due.get(tx.now);
    if (!due) return false;
    q.dueDelete.run(due.at, due.first);
    const run = q.run.get(due.run);
    if (!run) return true;
    const bulk = q.bulkOfLine.get(run.line) ?? null;
    if (due.whole === 1 && bulk && run.valid_until !== null) {
      const paused = line(run.line).paused === 1;
      const opening = run.valid_until - run.validity;
      // Paused before its clock could start: look again later, the resumption decides.
      const until = paused && (bulk.paused_at ?? 0) <= opening ? tx.now + 60_000 : validUntilOf(run, bulk);
      if (until !== null && until > tx.now) {
        q.dueAdd.run(until, due.first, due.end, due.run, due.whole);
        return true;
      }
    }
    if (due.whole === 1 && run.next < run.end) {
      q.runEnd.run(run.no);
      const row = line(run.line);
      if (row.paused === 0) lines.rest(row);
      lines.restTurn(row.lane, row.account);
    }
    const end = Math.min(due.end, due.first + SWEEP_SPAN);
    if (end < due.end) q.dueAdd.run(due.at, end, due.end, due.run, due.whole);
    for (const message of q.unfinished.all(due.first, end)) {
      const flight = q.flightOver.get(message.no, message.no);
      // In flight: its settle comes first, or the loss of its lease.
      if (flight) q.dueAdd.run(Math.max(flight.lease_until, tx.now) + 1000, message.no, message.no + 1, run.no, 0);
      else expire(message);
    }
    return true;
  }

  function lose(flight: FlightRow): void {
    q.flightDelete.run(flight.leader);
    const words = 'the node that submitted it was lost before the outcome was known';
    q.attempt.run(
      flight.leader,
      attemptNo(flight.leader),
      flight.generation,
      flight.lane,
      tx.now,
      0,
      'unknown',
      UNKNOWN_ERROR,
      words,
      null,
    );
    conclude(flight, { kind: 'unknown', error: { id: UNKNOWN_ERROR, words } }, words);
  }

  function attemptNo(leader: number): number {
    return (q.attemptCount.get(leader)?.n ?? 0) + 1;
  }

  return {
    settle(settle: Settle): boolean {
      const { outcome } = settle;
      const flight = q.flight.get(settle.leader);
      if (!flight || flight.token !== settle.token) {
        // Too late to decide, but the carrier's id is worth knowing: its report will come.
        if (outcome.kind === 'accepted') {
          const members = q.retry.get(settle.leader)?.members ?? flight?.members ?? 1;
          const ref = refOf(outcome.carrierMessageId);
          q.refAdd.run(settle.lane, ref, settle.leader, members);
          applyParked(settle.lane, ref);
        }
        return false;
      }
      q.flightDelete.run(flight.leader);
      const words = outcome.kind === 'accepted' ? (outcome.words ?? '') : (outcome.error?.words ?? '');
      q.attempt.run(
        flight.leader,
        attemptNo(flight.leader),
        flight.generation,
        flight.lane,
        settle.startedAt,
        settle.tookMs,
        outcome.kind,
        outcome.kind === 'accepted' ? 0 : (outcome.error?.id ?? 0),
        words.slice(0, 500),
        outcome.kind === 'accepted' ? outcome.carrierMessageId.slice(0, 500) : null,
      );
      conclude(flight, outcome, words);
      return true;
    },

    release(claims: { token: number; leader: number }[], until: number): void {
      for (const claim of claims) {
        const flight = q.flight.get(claim.leader);
        if (!flight || flight.token !== claim.token) continue;
        q.flightDelete.run(claim.leader);
        again(flight, Math.max(until, tx.now), flight.attempts - 1, flight.held);
      }
    },

    report(report: CarrierReport): boolean {
      const lane = lines.laneNo(report.carrier);
      if (lane === null) return false;
      const ref = refOf(report.carrierMessageId);
      if (applyReport(lane, ref, report)) return true;
      if (parkedEstimate < PARKED_MAX) {
        q.park.run(lane, ref, tx.now, JSON.stringify({ ...report, words: report.words.slice(0, 500) }));
        parkedEstimate++;
      }
      return false;
    },

    /** At start on a store of one process: nobody else can hold a lease. */
    freeLeases: (): number => q.flightsFreed.run(),

    /** One bounded step. True = more is left. */
    sweep(): boolean {
      const lost = q.flightLost.all(tx.now);
      for (const flight of lost) lose(flight);
      const more = sweepDeadline();
      const old = q.parkedOld.run(tx.now - PARKED_MS);
      parkedEstimate -= old;
      return lost.length === 64 || more || old === 200;
    },
    /** After a rollback. */
    forget(): void {
      parkedEstimate = q.parkedCount.get()?.n ?? 0;
    },
  };
}

/** 15000 EC_MMS_GENERAL_ERROR: what an attempt without an answer is booked under. */
const UNKNOWN_ERROR = 15000;

/**
 * A carrier's message id as it is compared: peers add brackets, a host, white space or change the case between the
 * answer and the report (TS 23.140 implementations in the field).
 */
export function refOf(id: string): string {
  const bare = id.trim().replace(/^<|>$/g, '').trim();
  const at = bare.indexOf('@');
  return (at > 0 ? bare.slice(0, at) : bare).toLowerCase().slice(0, 500);
}
