/**
 * Bulks: what becomes of their messages in figures (tallies), how they stand (get, list), and steering. A steering verb
 * changes the bulk's row and its lines, O(lanes) whatever its size; what follows for runs and messages is brought to them by
 * the sweep in bounded steps (`drain`). Claims apply it to each run that they touch, so nothing leaves against a steering
 * that has been committed.
 *
 * A tally is one row a bulk, written at most once a commit: the engine is the only writer and adds up first. A request
 * without a bulk of its own is not tallied: it is bounded (a request), and counted when asked for.
 */
import type { DatabaseSync } from 'node:sqlite';
import { smsLeader } from '../../domain/failover.ts';
import { STATE, type State } from '../../domain/status.ts';
import { byTurns, earlyOf, startOf } from '../clock.ts';
import type { Bulk, BulkChange, BulkName, Progress, Steered } from '../contract.ts';
import {
  CANCELED_WORDS,
  NO_PROGRESS,
  PAUSED_MAX_MS,
  PLAIN_BULK,
  placeOf,
  printSpeed,
  RECALL_MS,
  shownBulk,
  steered,
} from '../steering.ts';
import type { CallBacks } from './callback.ts';
import type { Events, Live } from './events.ts';
import type { Lines } from './lines.ts';
import {
  BULK,
  type BulkColumns,
  type BulkRow,
  RUN,
  type RunColumns,
  type RunRow,
  type Runs,
  toBulk,
  toRun,
} from './runs.ts';
import { prepare, type Tx } from './tx.ts';

/** Runs read in one step of a drain. */
const RUNS = 200;
/** Bulks given up in one step. */
const GIVEN_UP = 20;
/** Messages that one page of a list may count. */
const LIST_COUNTED = 50_000;

export type Tallies = ReturnType<typeof createTallies>;

/** Figures of bulks, added up over a group of ops and written with its commit. */
export function createTallies(db: DatabaseSync) {
  const add = prepare(
    db,
    `INSERT INTO tally (bulk, accepted, waiting, sent, delivered, failed) VALUES (?, ?, ?, ?, ?, ?)
     ON CONFLICT (bulk) DO UPDATE SET accepted = accepted + excluded.accepted, waiting = waiting + excluded.waiting,
       sent = sent + excluded.sent, delivered = delivered + excluded.delivered, failed = failed + excluded.failed`,
  );
  const open = new Map<number, Progress>();

  function of(bulk: number): Progress {
    let tally = open.get(bulk);
    if (!tally) {
      tally = { ...NO_PROGRESS };
      open.set(bulk, tally);
    }
    return tally;
  }

  return {
    accepted(bulk: number, state: State): void {
      const tally = of(bulk);
      tally.accepted++;
      tally[placeOf(state)]++;
    },
    moved(bulk: number, from: State, to: State): void {
      const [left, reached] = [placeOf(from), placeOf(to)];
      if (left === reached) return;
      const tally = of(bulk);
      tally[left]--;
      tally[reached]++;
    },
    /** Before the commit, and before figures are read in the same transaction. */
    flush(): void {
      for (const [bulk, { accepted, waiting, sent, delivered, failed }] of open) {
        add.run(bulk, accepted, waiting, sent, delivered, failed);
      }
      open.clear();
    },
    /** After a rollback. */
    forget: (): void => open.clear(),
  };
}

const PLACES = ['accepted', 'waiting', 'sent', 'delivered', 'failed'] as const;

/** How bulks stand, on either connection. */
export function createBulkReads(db: DatabaseSync) {
  const q = {
    byNo: prepare<BulkColumns>(db, `SELECT ${BULK} FROM bulk WHERE no = ? AND account = ?`),
    byId: prepare<BulkColumns>(db, `SELECT ${BULK} FROM bulk WHERE account = ? AND id = ?`),
    list: prepare<BulkColumns>(
      db,
      `SELECT ${BULK} FROM bulk WHERE account = ? AND no < ? ORDER BY no DESC LIMIT ? + 0`,
    ),
    tally: prepare<Progress>(db, 'SELECT accepted, waiting, sent, delivered, failed FROM tally WHERE bulk = ?'),
    counted: prepare<Progress>(
      db,
      `SELECT count(*) AS accepted, coalesce(sum(state = ${STATE.pending}), 0) AS waiting,
         coalesce(sum(state IN (${STATE.submitted}, ${STATE.uncertain})), 0) AS sent,
         coalesce(sum(state = ${STATE.delivered}), 0) AS delivered, coalesce(sum(state > ${STATE.delivered}), 0) AS failed
       FROM message WHERE no >= ? AND no < ?`,
    ),
    // A bulk's uncounted specs are its first request's: they follow its own number. A join may have lower ones, of another block.
    spec: prepare<{ account: number; first: number; end: number; accepted_at: number; counted: number; no: number }>(
      db,
      `SELECT account, first, "end" AS "end", accepted_at, counted, no FROM spec WHERE bulk = ? AND no > ?
       ORDER BY no LIMIT 1`,
    ),
  };

  /** Figures of a bulk, and what its first spec says. */
  function progress(bulk: number): { figures: Progress; account: number | null; acceptedAt: number; looked: number } {
    const figures = { ...(q.tally.get(bulk) ?? NO_PROGRESS) };
    let [account, acceptedAt, looked]: [number | null, number, number] = [null, 0, 0];
    for (let place = bulk; ; ) {
      const spec = q.spec.get(bulk, place);
      if (!spec) break;
      account ??= spec.account;
      acceptedAt ||= spec.accepted_at;
      if (spec.counted === 1) break;
      place = spec.no;
      const counted = q.counted.get(spec.first, spec.end) ?? NO_PROGRESS;
      for (const place of PLACES) figures[place] += counted[place];
      looked += counted.accepted;
    }
    return { figures, account, acceptedAt, looked };
  }

  return {
    /** A bulk with its figures; `own` false = it has no row, because nothing has made it need one. */
    find(account: number, name: BulkName): { bulk: BulkRow; figures: Progress; own: boolean } | null {
      const row = 'no' in name ? q.byNo.get(name.no, account) : q.byId.get(account, name.id);
      if (row) return { bulk: toBulk(row), figures: progress(row.no).figures, own: true };
      if (!('no' in name)) return null;
      const found = progress(name.no);
      if (found.account !== account) return null;
      const bulk: BulkRow = { ...PLAIN_BULK, no: name.no, id: null, acceptedAt: found.acceptedAt };
      return { bulk, figures: found.figures, own: false };
    },
    figures: (bulk: number): Progress => progress(bulk).figures,
    get(account: number, name: BulkName, now: number): Bulk | null {
      const found = this.find(account, name);
      return found && shownBulk(found.bulk, found.figures, now);
    },
    list(
      account: number,
      limit: number,
      before: number | undefined,
      now: number,
    ): { bulks: Bulk[]; next: number | null } {
      const bulks: Bulk[] = [];
      let budget = LIST_COUNTED;
      const rows = q.list.all(account, before ?? Number.MAX_SAFE_INTEGER, limit + 1);
      for (const row of rows) {
        if (bulks.length >= limit || budget <= 0) return { bulks, next: bulks.at(-1)?.no ?? null };
        const { figures, looked } = progress(row.no);
        budget -= looked + 1;
        bulks.push(shownBulk(toBulk(row), figures, now));
      }
      return { bulks, next: null };
    },
  };
}

/** Steering and its drains, on the transaction that they are given. */
export function createBulks(
  tx: Tx,
  lines: Lines,
  runs: Runs,
  events: Events,
  tallies: Tallies,
  callBacks: Pick<CallBacks, 'add'>,
) {
  const db = tx.db;
  const reads = createBulkReads(db);
  const q = {
    add: prepare(
      db,
      `INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us, limited_at, paused_at, pauses,
         canceled_at) VALUES (?, ?, NULL, ?, NULL, 0, 0, NULL, NULL, '[]', NULL)`,
    ),
    expressRuns: prepare<{ no: number; end: number; line: number; lane: number; account: number }>(
      db,
      `SELECT r.no, r."end" AS "end", r.line, l.lane, l.account FROM spec s
       JOIN run r ON r.no >= s.first AND r.no < s."end" JOIN line l ON l.no = r.line WHERE s.bulk = ? AND l.bulk IS NULL`,
    ),
    expressSmsRuns: prepare<{ no: number; end: number; line: number; lane: number; account: number }>(
      db,
      `SELECT r.no, r."end" AS "end", r.line, l.lane, l.account FROM spec s
       JOIN run r ON r.no > -s."end" AND r.no <= -s.first JOIN line l ON l.no = r.line WHERE s.bulk = ? AND l.bulk IS NULL`,
    ),
    smsRuns: prepare<RunColumns>(
      db,
      `SELECT ${RUN} FROM run r WHERE r.no > -?1 AND r.no <= -?2 AND (r.next < r."end" OR r.moves < ?3) AND
         (r.moves < ?3 OR r.due_at > ?4) ORDER BY r.no LIMIT ${RUNS}`,
    ),
    runLine: prepare(db, 'UPDATE run SET line = ? WHERE no = ?'),
    // Each on its own lane: it may have been handed on to another carrier.
    retriesOn: prepare<{ leader: number; line: number; lane: number }>(
      db,
      'SELECT t.leader, t.line, l.lane FROM retry t CROSS JOIN line l ON l.no = t.line WHERE t.leader >= ? AND t.leader < ?',
    ),
    flightsOn: prepare<{ leader: number; line: number; lane: number }>(
      db,
      'SELECT t.leader, t.line, l.lane FROM flight t CROSS JOIN line l ON l.no = t.line WHERE t.leader >= ? AND t.leader < ?',
    ),
    retryLine: prepare(db, 'UPDATE retry SET line = ? WHERE leader = ?'),
    flightLine: prepare(db, 'UPDATE flight SET line = ? WHERE leader = ?'),
    steer: prepare(
      db,
      `UPDATE bulk SET send_at = ?, moves = ?, canceled_at = ?, speed = ?, drain = CASE WHEN ? THEN 0 ELSE drain END,
         drain_no = CASE WHEN ? THEN 0 ELSE drain_no END WHERE no = ?`,
    ),
    givenUp: prepare<BulkColumns>(
      db,
      `SELECT ${BULK} FROM bulk WHERE paused_at <= ? AND canceled_at IS NULL ORDER BY paused_at LIMIT ${GIVEN_UP}`,
    ),
    draining: prepare<BulkColumns & { drain: number; drain_no: number }>(
      db,
      `SELECT ${BULK}, drain, drain_no FROM bulk WHERE drain IS NOT NULL ORDER BY drain LIMIT 1`,
    ),
    drained: prepare(db, 'UPDATE bulk SET drain = ?, drain_no = ? WHERE no = ?'),
    runsOf: prepare<RunColumns & { s_no: number }>(
      db,
      `SELECT ${RUN}, s.no AS s_no FROM spec s JOIN run r ON r.no >= s.first AND r.no < s."end"
       WHERE s.bulk = ? AND s.no >= ? AND r."end" > ? ORDER BY s.no, r.no LIMIT ${RUNS}`,
    ),
    close: prepare(
      db,
      'UPDATE run SET next = "end", due_at = NULL, look_at = CASE WHEN next = no THEN NULL ELSE look_at END WHERE no = ?',
    ),
    unfinished: prepare<Live>(
      db,
      `SELECT no, account, spec, state, status, error, sent_at, leg FROM message
       WHERE no >= ? AND no < ? AND state < ${STATE.delivered} ORDER BY no LIMIT ? + 0`,
    ),
    flightOver: prepare<{ leader: number; members: number }>(
      db,
      'SELECT leader, members FROM flight WHERE leader <= ? ORDER BY leader DESC LIMIT 1',
    ),
    retryDelete: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    retriesFree: prepare(
      db,
      'UPDATE retry SET due_at = free_at, free_at = NULL WHERE leader >= ? AND leader < ? AND free_at IS NOT NULL',
    ),
    retriesDue: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM retry WHERE leader >= ? AND leader < ?',
    ),
    recallAdd: prepare(db, 'INSERT OR REPLACE INTO recall (no, at) VALUES (?, ?)'),
    recallDelete: prepare(db, 'DELETE FROM recall WHERE no = ?'),
    recalls: prepare<Live & { at: number }>(
      db,
      `SELECT m.no, m.account, m.spec, m.state, m.status, m.error, m.sent_at, m.leg, c.at FROM recall c JOIN message m ON m.no = c.no
       WHERE c.at <= ? ORDER BY c.at LIMIT ? + 0`,
    ),
    runOf: prepare<RunColumns>(db, `SELECT ${RUN} FROM run r WHERE no <= ? ORDER BY no DESC LIMIT 1`),
  };

  /** A request without a bulk of its own gets one, with lines of its own. */
  function own(account: number, bulk: BulkRow): void {
    q.add.run(bulk.no, account, bulk.acceptedAt);
    const left = new Set<number>();
    for (const run of [...q.expressRuns.all(bulk.no), ...q.expressSmsRuns.all(bulk.no)]) {
      const line = lines.line(run.lane, run.account, bulk.no, false);
      q.runLine.run(line, run.no);
      // What is in flight comes back to the line it will then belong to.
      for (const [found, move] of [
        [q.retriesOn.all(run.no, run.end), q.retryLine],
        [q.flightsOn.all(run.no, run.end), q.flightLine],
      ] as const) {
        for (const from of found) {
          const to = lines.line(from.lane, run.account, bulk.no, false);
          move.run(to, from.leader);
          left.add(from.line);
          left.add(to);
        }
      }
      left.add(run.line);
      left.add(line);
    }
    for (const no of left) {
      const line = lines.get(no);
      lines.rest(line);
      lines.restTurn(line.lane, line.account);
    }
  }

  /** Writes what steering has decided, and tells the lines. */
  function apply(bulk: BulkRow, to: BulkRow, drain: boolean): void {
    const moved = to.moves > bulk.moves;
    runs.setClock(bulk, to);
    const flag = drain ? 1 : 0;
    q.steer.run(to.sendAt, to.moves, to.canceledAt, printSpeed(to.speed), flag, flag, bulk.no);
    const still = to.pausedAt !== null || to.canceledAt !== null;
    for (const line of lines.ofBulk(bulk.no)) {
      if ((line.paused === 1) !== still) lines.pause(line, still);
      // Its runs are due when they were: that is looked at again at the new instant, not before.
      else if (!still && moved && to.sendAt !== null) lines.dueAt(line, to.sendAt);
    }
  }

  function steer(account: number, name: BulkName, changes: BulkChange[]): Steered {
    tallies.flush();
    const found = reads.find(account, name);
    if (!found) return { kind: 'notFound' };
    const { bulk, figures } = found;
    const steering = steered(bulk, figures, changes, tx.now);
    if (steering.kind === 'conflict') return steering;
    const to: BulkRow = { ...bulk, ...steering.to };
    if (steering.to !== bulk) {
      if (!found.own) own(account, bulk);
      apply({ ...bulk }, to, steering.drain);
    }
    return { kind: 'done', bulk: shownBulk(to, figures, tx.now) };
  }

  // --- What follows, in steps ---

  /** Bulks that were paused for too long. */
  function giveUp(): boolean {
    const rows = q.givenUp.all(tx.now - PAUSED_MAX_MS);
    if (rows.length === 0) return false;
    tallies.flush();
    for (const row of rows) {
      const bulk = toBulk(row);
      const figures = reads.figures(bulk.no);
      // Nothing is left to give up: the pause is over.
      const kind = figures.waiting + figures.sent > 0 ? 'cancel' : 'resume';
      const steering = steered(bulk, figures, [{ kind }], tx.now);
      if (steering.kind === 'done') apply({ ...bulk }, { ...bulk, ...steering.to }, steering.drain);
    }
    return rows.length === GIVEN_UP;
  }

  function inFlight({ no, leg }: Live): boolean {
    const place = leg === 1 ? smsLeader(no) : no;
    const flight = q.flightOver.get(place);
    return flight !== undefined && flight.leader + flight.members > place;
  }

  /** A message of a cancelled bulk. What a carrier may have runs on; it is not sent again. */
  function cancel(message: Live, run: RunRow | null): void {
    const leader = message.leg === 1 ? smsLeader(message.no) : run && run.members > 0 ? run.no : message.no;
    q.retryDelete.run(leader);
    if (message.leg === 1) q.close.run(leader);
    if (message.state === STATE.submitted) callBacks.add(leader);
    events.change(message, { kind: 'cancelled' }, CANCELED_WORDS);
  }

  /** Ends up to `most` messages of a run from number `from` on. The number to go on with; null = all are done. */
  function cancelRun(run: RunRow, from: number, most: number): { next: number | null; cost: number } {
    q.close.run(run.no);
    const messages = q.unfinished.all(Math.max(from, run.no), run.end, most);
    for (const message of messages) {
      if (inFlight(message)) q.recallAdd.run(message.no, tx.now + RECALL_MS);
      else cancel(message, run);
    }
    const last = messages.at(-1);
    return { next: last && messages.length === most ? last.no + 1 : null, cost: messages.length + 1 };
  }

  /** The SMS legs of a run's messages likewise, up to RUNS of them. True = more are left. */
  function tellSms(run: RunRow, bulk: BulkRow): boolean {
    q.retriesFree.run(1 - run.end, 1 - run.no);
    const rows = q.smsRuns.all(run.end, run.no, bulk.moves, tx.now);
    for (const row of rows) tellRun(toRun(row), bulk, tx.now);
    return rows.length === RUNS;
  }

  /** A run of a bulk that was moved, or has another pace: looked at again as soon as it may leave. */
  function tellRun(run: RunRow, bulk: BulkRow, at = Number.POSITIVE_INFINITY): void {
    runs.adopt(run, bulk);
    q.retriesFree.run(run.no, run.end);
    const start = startOf(run, bulk);
    const due = Math.min((start ?? run.opensAt) - earlyOf(run, start, bulk), at);
    if (run.next < run.end) runs.move(run, run.next, due);
    // At another pace its turns may be over sooner than the sweep was to see, and what waits for its content is claimed by nobody.
    if (run.next < run.end && byTurns(run, start, bulk)) runs.look(run.no, tx.now);
    const line = lines.get(run.line);
    if (run.next < run.end && !run.closed) lines.wake(line.no, line.lane, line.account, due);
    const retry = q.retriesDue.get(run.no, run.end)?.due ?? null;
    if (retry !== null) lines.wake(line.no, line.lane, line.account, retry);
  }

  /** Up to `most` messages or runs of the bulk that has waited longest. What it cost; 0 = none drains. */
  function drain(most: number): number {
    const row = q.draining.get();
    if (!row) return 0;
    const bulk = toBulk(row);
    let [spec, place, cost] = [row.drain, row.drain_no, 1];
    const found = q.runsOf.all(bulk.no, spec, place);
    for (const columns of found) {
      if (cost >= most) break;
      const run = toRun(columns);
      spec = columns.s_no;
      if (bulk.canceledAt === null) {
        tellRun(run, bulk);
        cost += 1;
        if (tellSms(run, bulk)) {
          // Told again, at the next step, with those that are left.
          place = run.no;
          cost = most;
          break;
        }
        place = run.end;
        continue;
      }
      const done = cancelRun(run, place, most - cost);
      place = done.next ?? run.end;
      cost += done.cost;
    }
    const over = found.length < RUNS && cost < most;
    q.drained.run(over ? null : spec, over ? 0 : place, bulk.no);
    if (over) {
      for (const line of lines.ofBulk(bulk.no)) {
        lines.rest(line);
        lines.restTurn(line.lane, line.account);
      }
    }
    return cost;
  }

  function recall(most: number): number {
    const rows = q.recalls.all(tx.now, most);
    for (const message of rows) {
      if (inFlight(message)) {
        q.recallAdd.run(message.no, tx.now + RECALL_MS);
        continue;
      }
      q.recallDelete.run(message.no);
      const run = q.runOf.get(message.no);
      if (message.state < STATE.delivered) cancel(message, run ? toRun(run) : null);
    }
    return rows.length;
  }

  return {
    steer,
    /** The bulk of a request that named none, with a row from now on; null = there is none of that number. */
    generated(account: number, no: number): BulkRow | null {
      const found = reads.find(account, { no });
      if (found && !found.own) own(account, found.bulk);
      return found && runs.bulk(account, { no });
    },
    /** One step of about `most` messages; what it cost. */
    sweep(most: number): number {
      let cost = giveUp() ? GIVEN_UP : 0;
      while (cost < most) {
        const step = drain(most - cost);
        if (step === 0) break;
        cost += step;
      }
      return cost + (cost < most ? recall(most - cost) : 0);
    },
  };
}
