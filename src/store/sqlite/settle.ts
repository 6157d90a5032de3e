/**
 * What comes back: settle (the outcome of an attempt), release, report (what the carrier tells later), and the endings
 * that time brings (lost leases, the end of validity). Settle and report meet at `carrier_ref`: a report that comes
 * before the settle which teaches its id is parked and applied there; first final wins (G4, G5, G7).
 */
import { legOf, nextLane, readWays, smsLeader, spanOf } from '../../domain/failover.ts';
import { admit } from '../../domain/schedule.ts';
import { STATE } from '../../domain/status.ts';
import { type CarrierReport, type Outcome, refOf } from '../../domain/submission.ts';
import { bucketOf, byTurns, closedAt, endedWords, returned, startOf, viewOf } from '../clock.ts';
import type { Reported, Settle } from '../contract.ts';
import {
  ATTEMPTS,
  applyReport,
  conclude as concluded,
  type FlightRow,
  type Hands,
  leaderOf,
  mayGoOn,
  validityEnded,
} from '../outcomes.ts';
import { AHEAD_MS, UNTRIED } from '../waiting.ts';
import { RETRY } from './claim.ts';
import type { Events, Live } from './events.ts';
import type { LineRow, Lines } from './lines.ts';
import type { RunRow, Runs } from './runs.ts';
import { prepare, type Tx } from './tx.ts';

/** Parked reports: kept this long, and at most this many. */
const PARKED_MS = 48 * 3_600_000;
const PARKED_MAX = 100_000;
/** Messages, runs and ranges looked at in one step of the sweep. */
const STEP = 500;
/** Lost leases concluded in one step. */
const LOST = 64;
const FLIGHT = `leader, token, lane, line, run, members, sent, generation, attempts, held, valid_until, lease_until,
  turn_from, turn_end`;
const LIVE = 'no, account, spec, state, status, error, sent_at, leg';

/** A member of a submission. */
type Member = Live & { to: string; key: string | null };

/** Settle, release, report and the endings that time brings, on the transaction that they are given. */
export function createSettle(tx: Tx, lines: Lines, runs: Runs, events: Events) {
  const db = tx.db;
  const q = {
    flight: prepare<FlightRow>(db, `SELECT ${FLIGHT} FROM flight WHERE leader = ?`),
    flightDelete: prepare(db, 'DELETE FROM flight WHERE leader = ?'),
    flightLost: prepare<FlightRow>(db, `SELECT ${FLIGHT} FROM flight WHERE lease_until <= ? LIMIT ${LOST}`),
    // Spans do not overlap: only the nearest leader can cover a number.
    flightOver: prepare<FlightRow>(db, `SELECT ${FLIGHT} FROM flight WHERE leader <= ? ORDER BY leader DESC LIMIT 1`),
    flightsFreed: prepare(db, 'UPDATE flight SET lease_until = 0'),
    attempt: prepare(
      db,
      `INSERT OR REPLACE INTO attempt (leader, n, generation, lane, at, took, outcome, error, words, ref)
       VALUES (?1, min((SELECT count(*) FROM attempt WHERE leader = ?1) + 1, ${ATTEMPTS}), ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    tried: prepare<{ outcome: string; words: string }>(
      db,
      'SELECT outcome, words FROM attempt WHERE leader = ? ORDER BY n',
    ),
    members: prepare<Member>(db, `SELECT ${LIVE}, "to", key FROM message WHERE no >= ? AND no < ? ORDER BY no`),
    // `lane` of carrier_ref and parked is the carrier's home. An id given twice: carriers begin anew after a reset, so the
    // newest submission is meant.
    refAdd: prepare(db, 'INSERT OR REPLACE INTO carrier_ref (lane, ref, leader, members) VALUES (?, ?, ?, ?)'),
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
    parkedOld: prepare(
      db,
      'DELETE FROM parked WHERE no IN (SELECT no FROM parked WHERE at <= ? ORDER BY at LIMIT 200)',
    ),
    retryAdd: prepare(db, `INSERT OR REPLACE INTO retry (${RETRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    retryDelete: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    ways: prepare<{ ways: string | null }>(db, 'SELECT ways FROM run WHERE no = ?'),
    retry: prepare<{ run: number; members: number; valid_until: number }>(
      db,
      'SELECT run, members, valid_until FROM retry WHERE leader = ?',
    ),
    due: prepare<{ at: number; first: number; end: number; run: number; error: number | null; words: string | null }>(
      db,
      'SELECT at, first, "end" AS "end", run, error, words FROM deadline WHERE at <= ? ORDER BY at, first LIMIT 1',
    ),
    dueDelete: prepare(db, 'DELETE FROM deadline WHERE at = ? AND first = ?'),
    unfinished: prepare<Live>(
      db,
      `SELECT ${LIVE} FROM message WHERE no >= ? AND no < ? AND state < ${STATE.delivered}
       ORDER BY no`,
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
      flight.sent,
      flight.generation,
      attempts,
      held,
      flight.valid_until,
      due,
    );
    const row = line(flight.line);
    lines.wake(row.no, row.lane, row.account, due);
  }

  /** It has not left, so others may have its turns; `untried`: it may itself, with its validity from there on. */
  function giveBack(flight: FlightRow, untried: boolean): void {
    const { turn_from: from, turn_end: end } = flight;
    if (from === null || end === null) return;
    const bulk = runs.bulkOf(line(flight.line));
    const next = bulk && returned(bulk, { from, end }, untried ? 0 : tx.now * 1000);
    if (bulk === null || next === null) return;
    runs.charge(bulk, next);
    const due = Math.max(Math.ceil(next / 1000) - AHEAD_MS, tx.now);
    for (const row of lines.ofBulk(bulk.no)) {
      if (runs.tell(row.no, end, due)) lines.wake(row.no, row.lane, row.account, due);
    }
  }

  const hands: Hands<Member> = {
    change: (member, event, words) => events.change(member, event, words),
    reportLate: (member, report, words) => events.reportLate(member, report, words),
    note: (member, words) => events.note(member, words),
    learn,
    applyParked,
    goOn(flight) {
      const lane = nextOf(flight);
      if (lane === null) return false;
      again(on(flight, lane), tx.now, flight.attempts, 0);
      return true;
    },
    again,
    drop(leader) {
      const retry = q.retry.get(leader);
      // As nearly always.
      if (!retry) return;
      if (retry.valid_until === UNTRIED) leftAfterAll(leader, retry);
      q.retryDelete.run(leader);
    },
  };

  function conclude(flight: FlightRow, outcome: Outcome, words: string): void {
    const policy = lines.policy(flight.lane);
    const home = lines.home(flight.lane);
    concluded(hands, flight, membersOf(flight), outcome, words, { now: tx.now, home, policy });
  }

  /** The lane of the next choice behind the one that a submission was on; null = there is none. */
  function nextOf(flight: FlightRow): number | null {
    const ways = readWays(q.ways.get(flight.run)?.ways ?? null);
    return nextLane(ways, legOf(flight.leader), flight.lane);
  }

  /** The flight as it waits on another lane: another submission, since another carrier gets it. */
  function on(flight: FlightRow, lane: number): FlightRow {
    const from = line(flight.line);
    const bulk = runs.bulkOf(from);
    const no = lines.line(
      lane,
      from.account,
      from.bulk,
      bulk !== null && (bulk.pausedAt !== null || bulk.canceledAt !== null),
    );
    return { ...flight, line: no, generation: flight.generation + 1 };
  }

  function membersOf({ leader, members }: { leader: number; members: number }) {
    const { first, end } = spanOf(leader, members);
    return q.members.all(first, end);
  }

  /** An answer without an id teaches nothing: all such answers would share it. */
  function learn(home: number, ref: string, { leader, members }: { leader: number; members: number }): void {
    if (ref !== '') q.refAdd.run(home, ref, leader, members);
  }

  function applyParked(home: number, ref: string): void {
    if (parkedEstimate === 0 || ref === '') return;
    for (const row of q.parked.all(home, ref)) {
      q.parkedDelete.run(row.no);
      parkedEstimate--;
      reported(home, ref, JSON.parse(row.report) as CarrierReport);
    }
  }

  /** The messages it is about; null = the id is not known (yet). */
  function reported(home: number, ref: string, report: CarrierReport): Reported['messages'] | null {
    const found = ref === '' ? undefined : q.ref.get(home, ref);
    return found ? applyReport(hands, found, membersOf(found), report) : null;
  }

  /** Put back as if nothing of it had left, and yet its carrier has it: its clock runs, at the latest from now. */
  function leftAfterAll(leader: number, untried: { run: number; members: number }): void {
    const run = runs.get(untried.run);
    if (run) runs.deadline(tx.now + run.validityMs, leader, leader + untried.members, run.no);
  }

  function expire(message: Live, run: RunRow | null): void {
    const leader = leaderOf(message, run);
    // All members end with their submission, so its retry has nobody left.
    q.retryDelete.run(leader);
    const paused = run !== null && line(run.line).paused === 1;
    const closed = closedAt(run, tx.now);
    const unfetched = run?.closed ?? false;
    const attempts = q.tried.all(leader);
    const words = endedWords({ state: message.state, error: message.error, attempts, paused, closed, unfetched });
    events.change(message, validityEnded(message), words);
  }

  /** Up to `most` numbers of the earliest range that is due. Returns what it cost, 0 = none is due. */
  function sweepDeadline(most: number): number {
    const due = q.due.get(tx.now);
    if (!due) return 0;
    q.dueDelete.run(due.at, due.first);
    const failed = due.error === null ? undefined : { error: due.error, words: due.words ?? '' };
    const end = Math.min(due.end, due.first + most);
    runs.deadline(due.at, end, due.end, due.run, failed);
    const run = runs.get(due.run);
    const span = spanOf(due.first, end - due.first);
    for (const message of q.unfinished.all(span.first, span.end)) {
      // The end of one leg is not the other's.
      if (message.leg !== legOf(due.first)) continue;
      if (failed) {
        events.change(message, { kind: 'contentFailed', error: failed.error }, failed.words);
        continue;
      }
      const place = message.leg === 1 ? smsLeader(message.no) : message.no;
      const flight = q.flightOver.get(place);
      if (flight && flight.leader + flight.members > place) {
        // In flight: its settle comes first, or the loss of its lease.
        runs.deadline(Math.max(flight.lease_until, tx.now) + 1000, place, place + 1, due.run);
      } else expire(message, run);
    }
    return end - due.first + 1;
  }

  /** Whether the validity of a run has ended, all of it or the turns that passed unused. False = no run is to look at. */
  function sweepRun(): boolean {
    const run = runs.toLook();
    if (!run) return false;
    const row = line(run.line);
    const bulk = runs.bulkOf(row);
    runs.adopt(run, bulk);
    const start = startOf(run, bulk);
    const turns = byTurns(run, start, bulk);
    const again = turns ? runs.untried(run)[0] : undefined;
    if (turns && run.next >= run.end && !again) runs.look(run.no, null);
    else if (start === null || (turns && row.paused === 1)) {
      // Its clock stands still, and runs in full once it starts.
      runs.look(run.no, tx.now + run.validityMs);
    } else if (turns) {
      const remaining = again || run.members > 0 ? 1 : run.end - run.next;
      const admission = admit(viewOf(run, bulk, start, remaining), bucketOf(bulk), tx.now, 1, 0);
      if (admission.kind === 'expired') {
        if (again) runs.passedAgain(run, bulk, again, admission);
        else runs.passed(run, bulk, admission);
        runs.look(run.no, again || run.next < run.end ? tx.now : null);
        relax(row);
      } else {
        runs.look(run.no, admission.kind === 'go' ? admission.validUntil : Math.max(admission.until, tx.now + 1000));
      }
    } else {
      const end = start + run.validityMs;
      if (end > tx.now) {
        runs.look(run.no, end);
        return true;
      }
      // Claimed ones too: they share the clock.
      runs.deadline(tx.now, run.no, run.end, run.no);
      const waited = run.next < run.end;
      runs.move(run, run.end, null);
      runs.look(run.no, null);
      if (waited) relax(row);
    }
    return true;
  }

  /** Something left the line without being claimed. */
  function relax(row: LineRow): void {
    lines.rest(row);
    lines.restTurn(row.lane, row.account);
  }

  function lose(flight: FlightRow): void {
    q.flightDelete.run(flight.leader);
    const words = 'the node that submitted it was lost before the outcome was known';
    q.attempt.run(flight.leader, flight.generation, flight.lane, tx.now, 0, 'unknown', UNKNOWN_ERROR, words, null);
    conclude(flight, { kind: 'unknown', error: { id: UNKNOWN_ERROR, words } }, words);
  }

  return {
    settle(settle: Settle): boolean {
      const { outcome } = settle;
      const flight = q.flight.get(settle.leader);
      if (!flight || flight.token !== settle.token) {
        // Too late to decide, but the carrier's id is worth knowing: its report will come.
        if (outcome.kind === 'accepted') {
          // A group's leader is the number of its run.
          const members = Math.max(1, runs.get(settle.leader)?.members ?? 1);
          const ref = refOf(outcome.carrierMessageId);
          const home = lines.home(settle.lane);
          learn(home, ref, { leader: settle.leader, members });
          applyParked(home, ref);
        }
        return false;
      }
      q.flightDelete.run(flight.leader);
      if (outcome.kind === 'contentFailed') giveBack(flight, false);
      const words = outcome.kind === 'accepted' ? (outcome.words ?? '') : (outcome.error?.words ?? '');
      q.attempt.run(
        flight.leader,
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

    release(claims: { token: number; leader: number }[], until: number, elsewhere = false): number {
      let moved = 0;
      const flights = claims.flatMap((claim) => {
        const flight = q.flight.get(claim.leader);
        return flight?.token === claim.token ? [flight] : [];
      });
      // The last turn first: it goes back only where it is the bulk's last.
      flights.sort((a, b) => (b.turn_end ?? 0) - (a.turn_end ?? 0));
      for (const flight of flights) {
        q.flightDelete.run(flight.leader);
        // Asked to wait is an attempt here: it has left.
        const untried = flight.attempts === 1 && flight.valid_until > tx.now && !q.tried.get(flight.leader);
        if (untried) runs.anew(flight.run, flight, flight.valid_until);
        const back = untried ? { ...flight, valid_until: UNTRIED } : flight;
        const lane = elsewhere && mayGoOn(flight.leader, membersOf(flight)) ? nextOf(flight) : null;
        if (lane !== null) moved++;
        const due = lane === null ? Math.max(until, tx.now) : tx.now;
        again(lane === null ? back : on(back, lane), due, flight.attempts - 1, flight.held);
        giveBack(flight, untried);
      }
      return moved;
    },

    report(report: CarrierReport): Reported {
      const home = lines.homeOf(report.carrier);
      if (home === null) return { known: false, messages: [] };
      const ref = refOf(report.carrierMessageId);
      const messages = reported(home, ref, report);
      if (messages) return { known: true, messages };
      if (ref !== '' && parkedEstimate < PARKED_MAX) {
        q.park.run(home, ref, tx.now, JSON.stringify({ ...report, words: report.words.slice(0, 500) }));
        parkedEstimate++;
      }
      return { known: false, messages: [] };
    },

    /** At start on a store of one process: nobody else can hold a lease. */
    freeLeases: (): number => q.flightsFreed.run(),

    /** One bounded step. True = more is left. */
    sweep(): boolean {
      const lost = q.flightLost.all(tx.now);
      for (const flight of lost) lose(flight);
      let left = STEP;
      while (left > 0 && sweepRun()) left--;
      while (left > 0) {
        const cost = sweepDeadline(left);
        if (cost === 0) break;
        left -= cost;
      }
      const old = q.parkedOld.run(tx.now - PARKED_MS);
      parkedEstimate -= old;
      return lost.length === LOST || left <= 0 || old === 200;
    },
    /** After a rollback. */
    forget(): void {
      parkedEstimate = q.parkedCount.get()?.n ?? 0;
    },
  };
}

/** 15000 EC_MMS_GENERAL_ERROR: what an attempt without an answer is booked under. */
const UNKNOWN_ERROR = 15000;
