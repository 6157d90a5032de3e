/**
 * What comes back: settle (the outcome of an attempt), release, report (what the carrier tells later), and the endings
 * that time brings (lost leases, the end of validity). A group of them is one transaction: all rows it needs are locked and
 * loaded, decided in memory in the order of arrival, and written with one statement per kind.
 *
 * Settle and report meet at the row of `carrier_ref`: whichever comes first makes it and holds its lock until the commit,
 * so the second finds the first on any node (G4, G5, G7). Locks are always taken in this order, each kind by number:
 * bulk, run, flight, carrier_ref, retry, message.
 */
import { legOf } from '../../domain/failover.ts';
import { admit } from '../../domain/schedule.ts';
import { isFinal, STATE } from '../../domain/status.ts';
import { type CarrierReport, refOf } from '../../domain/submission.ts';
import { bucketOf, byTurns, startOf, viewOf } from '../clock.ts';
import type { Reported, Settle } from '../contract.ts';
import type { FlightRow } from '../outcomes.ts';
import { UNTRIED, type Untried } from '../waiting.ts';
import { type Back, type BackOp, loadBack, writeBack } from './back.ts';
import { Desk, type LaneRow, refKey } from './desk.ts';
import { loadEnds } from './ends.ts';
import type { createEvents } from './events.ts';
import type { Lines } from './lines.ts';
import {
  BULK,
  type BulkColumns,
  type BulkRow,
  RUN,
  RunBook,
  type RunColumns,
  type RunRow,
  toBulk,
  toRun,
  untriedOf,
  waitingAt,
} from './runs.ts';
import { byKey, list, sql, type Tx, texts, together } from './tx.ts';

/** Parked reports: kept this long, and about this many. */
export const PARKED_MS = 48 * 3_600_000;
const PARKED_MAX = 100_000;
/** Messages, runs and ranges looked at in one step of the sweep. */
const STEP = 500;
/** Lost leases concluded in one step. */
const LOST = 64;
/** 15000 EC_MMS_GENERAL_ERROR: what an attempt without an answer is booked under. */
const UNKNOWN_ERROR = 15000;

const FLIGHT = `f.leader, f.token, f.lane, coalesce(f.line, r.line) AS line, f.run, f.members, f.sent, f.generation, f.attempts, f.held, f.valid_until,
  f.lease_until, f.turn_from, f.turn_end`;

/** OFFSET 0: see refs. */
const LINE = 'CROSS JOIN LATERAL (SELECT line FROM run q WHERE q.no = f.run OFFSET 0) r';

const SQL = {
  lanes: sql(`SELECT l.no, l.carrier, l.on_unknown, l.reports, h.no AS home FROM lane l
    JOIN lane h ON h.carrier = l.carrier AND h.shard = 0`),
  flights: sql(`SELECT ${FLIGHT} FROM flight f ${LINE} WHERE f.leader = ANY($1::bigint[])
    ORDER BY f.leader FOR UPDATE OF f`),
  flightsLost: sql(`SELECT ${FLIGHT} FROM flight f ${LINE} WHERE f.lease_until >= $2
    AND f.lease_until <= $1 ORDER BY f.lease_until LIMIT ${LOST} FOR UPDATE OF f SKIP LOCKED`),
  // OFFSET 0: looked up one by one. As a join, a plan made while the table was empty reads all of it for each row, for as long as
  // that plan is kept (66 instead of 1 ms a batch, measured).
  refs: sql(`SELECT c.lane, c.ref, c.leader, c.members FROM unnest($1::text[], $2::text[]) AS x(carrier, ref)
    CROSS JOIN LATERAL (SELECT no FROM lane q WHERE q.carrier = x.carrier AND q.shard = 0 OFFSET 0) h
    CROSS JOIN LATERAL (SELECT lane, ref, leader, members FROM carrier_ref r WHERE r.lane = h.no AND r.ref = x.ref OFFSET 0) c WHERE c.leader IS NOT NULL`),
  members: sql('SELECT no, members FROM run WHERE no = ANY($1::bigint[])'),
  // An id given twice: carriers begin anew after a reset, so the newest submission is meant.
  refsMeet: sql(`INSERT INTO carrier_ref AS c (lane, ref, leader, members)
    SELECT lane, ref, leader, members FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::integer[])
      AS x(lane, ref, leader, members) ORDER BY lane, ref COLLATE "C"
    ON CONFLICT (lane, ref) DO UPDATE SET leader = coalesce(excluded.leader, c.leader),
      members = CASE WHEN excluded.leader IS NULL THEN c.members ELSE excluded.members END
    RETURNING lane, ref, leader, members`),
  parked: sql(`SELECT p.no, p.lane, p.ref, p.report FROM unnest($1::bigint[], $2::text[]) AS x(lane, ref)
    CROSS JOIN LATERAL (SELECT no, lane, ref, report FROM parked r WHERE r.lane = x.lane AND r.ref = x.ref OFFSET 0) p ORDER BY p.no`),
  park: sql(`INSERT INTO parked (lane, ref, at, report) SELECT lane, ref, $4::bigint, report
    FROM unnest($1::bigint[], $2::text[], $3::text[]) AS x(lane, ref, report)`),
  parkedCount: sql('SELECT count(*) AS n FROM parked'),
  parkedOld: sql(`DELETE FROM parked WHERE no = ANY(ARRAY(
      SELECT no FROM parked WHERE at <= $1 ORDER BY at LIMIT 200 FOR UPDATE SKIP LOCKED))
    RETURNING lane, ref`),
  refsEmpty: sql(`DELETE FROM carrier_ref c USING unnest($1::bigint[], $2::text[]) AS x(lane, ref)
    WHERE c.lane = x.lane AND c.ref = x.ref AND c.lane = ANY($1::bigint[]) AND c.ref = ANY($2::text[]) AND c.leader IS NULL
      AND NOT EXISTS (SELECT 1 FROM parked p WHERE p.lane = c.lane AND p.ref = c.ref)`),
  due: sql(`SELECT at, first, "end" AS "end", run, error, words FROM deadline WHERE at >= $2 AND at <= $1 ORDER BY at, first LIMIT ${STEP}
    FOR UPDATE SKIP LOCKED`),
  dueDelete: sql(`DELETE FROM deadline d USING unnest($1::bigint[], $2::bigint[]) AS x(at, first)
    WHERE d.at = x.at AND d.first = x.first AND d.at = ANY($1::bigint[])`),
  toLook: sql(`SELECT ${RUN} FROM run r WHERE r.look_at >= $2 AND r.look_at <= $1 ORDER BY r.look_at LIMIT ${STEP}
    FOR NO KEY UPDATE OF r SKIP LOCKED`),
  linesOf: sql('SELECT no, lane, account, bulk, paused FROM line WHERE no = ANY($1::bigint[])'),
  bulks: sql(`SELECT ${BULK} FROM bulk b WHERE b.no = ANY($1::bigint[]) FOR NO KEY UPDATE OF b SKIP LOCKED`),
  // Locked, so that a claim that is taking some of them has ended and its flights are seen.
  runs: sql(`SELECT ${RUN} FROM run r WHERE r.no = ANY($1::bigint[]) ORDER BY r.no FOR NO KEY UPDATE OF r`),
  // By place: the SMS leg of a message stands under its number below 0.
  unfinished:
    sql(`SELECT CASE WHEN x.first < 0 THEN -m.no ELSE m.no END AS no FROM unnest($1::bigint[], $2::bigint[]) AS x(first, "end")
    JOIN message m ON m.no >= CASE WHEN x.first < 0 THEN 1 - x."end" ELSE x.first END
      AND m.no < CASE WHEN x.first < 0 THEN 1 - x.first ELSE x."end" END AND m.state < ${STATE.delivered}`),
  // Flights never overlap: the nearest leader at or below a number is the only one that can hold it.
  over: sql(`SELECT n.no, f.lease_until FROM unnest($1::bigint[]) AS n(no) CROSS JOIN LATERAL (
      SELECT leader, members, lease_until FROM flight WHERE leader <= n.no ORDER BY leader DESC LIMIT 1) f
    WHERE f.leader + f.members > n.no`),
};

/** A carrier's id, under its home lane, and the submission that it names. */
interface Ref {
  lane: number;
  ref: string;
  leader: number;
  members: number;
}

function homeOf(lanes: Map<number, LaneRow>, no: number): number {
  const lane = lanes.get(no);
  if (!lane) throw new Error(`lane ${no} is gone`);
  return lane.home;
}

/** The work of what comes back (`group`, results in order) and the steps of the sweep, each true while more may be due. */
export function createSettle(lines: Lines, events: ReturnType<typeof createEvents>) {
  /** Parked reports as last counted by the sweep; a bound, not a promise. */
  let parkedSeen = 0;
  let parkedCountedAt = 0;

  async function lanesOf(tx: Tx): Promise<Map<number, LaneRow>> {
    return byKey(await tx.query<LaneRow>(SQL.lanes), (lane) => lane.no);
  }

  /** The ids of reports: most are known, and need no lock. */
  async function known(tx: Tx, ops: readonly BackOp[]): Promise<Ref[]> {
    const wanted = byKey(
      ops.flatMap((op) => {
        const ref = op.verb === 'report' ? refOf(op.arg.carrierMessageId) : '';
        return op.verb === 'report' && ref !== '' ? [{ carrier: op.arg.carrier, ref }] : [];
      }),
      ({ carrier, ref }) => `${carrier} ${ref}`,
    );
    if (wanted.size === 0) return [];
    const rows = [...wanted.values()];
    return tx.query<Ref>(SQL.refs, [texts(rows.map((row) => row.carrier)), texts(rows.map((row) => row.ref))]);
  }

  /** Makes and locks the ids of a group that are taught or not known yet, and takes the reports that were parked under them. */
  async function meet(desk: Desk, taught: Ref[], reported: { lane: number; ref: string }[]): Promise<void> {
    const { tx } = desk;
    const wanted = byKey(
      reported.filter(({ lane, ref }) => ref !== '' && !desk.refs.has(refKey(lane, ref))),
      (one) => refKey(one.lane, one.ref),
    );
    const meeting = new Map<string, { lane: number; ref: string; leader: number | null; members: number }>();
    for (const [key, { lane, ref }] of wanted) meeting.set(key, { lane, ref, leader: null, members: 0 });
    for (const row of taught) if (row.ref !== '') meeting.set(refKey(row.lane, row.ref), row);
    if (meeting.size === 0) return;
    const rows = [...meeting.values()];
    const places = (refs: readonly { lane: number; ref: string }[]): string[] => [
      list(refs.map((row) => row.lane)),
      texts(refs.map((row) => row.ref)),
    ];
    type Parked = { no: number; lane: number; ref: string; report: string };
    const parkedAt = async (refs: readonly { lane: number; ref: string }[]): Promise<Parked[]> =>
      refs.length === 0 ? [] : tx.query<Parked>(SQL.parked, places(refs));
    const [met, parked] = await together([
      tx.query<{ lane: number; ref: string; leader: number | null; members: number }>(SQL.refsMeet, [
        ...places(rows),
        list(rows.map((row) => row.leader)),
        list(rows.map((row) => row.members)),
      ]),
      // Behind the locks that the statement before it takes. Not of ids that stay unknown: any number may be parked under one.
      parkedAt(rows.filter(({ leader }) => leader !== null)),
    ]);
    // What this group teaches it learns at its own turn; what another taught meanwhile, now.
    const own = new Set(taught.map((row) => refKey(row.lane, row.ref)));
    const others = met.filter(({ lane, ref, leader }) => leader !== null && !own.has(refKey(lane, ref)));
    for (const { lane, ref, leader, members } of others) desk.learn(lane, ref, leader as number, members);
    for (const { no, lane, ref, report } of [...parked, ...(await parkedAt(others))]) {
      desk.park(lane, ref, JSON.parse(report) as CarrierReport, no);
    }
  }

  /** One transaction of settles, reports and releases, in the order of arrival. */
  async function group(tx: Tx, ops: BackOp[]): Promise<unknown[]> {
    const leaders = new Set<number>();
    for (const op of ops) {
      if (op.verb === 'settle') leaders.add(op.arg.leader);
      if (op.verb === 'release') for (const claim of op.arg.claims) leaders.add(claim.leader);
    }
    const back = await loadBack(tx, ops);
    // Asked in one piece, the lanes behind the BEGIN; so is what follows in `meet` and `load`: the server takes locks in the order of asking.
    const [lanes, flying, refs] = await together([
      lanesOf(tx),
      leaders.size === 0 ? [] : tx.query<FlightRow>(SQL.flights, [list([...leaders])]),
      known(tx, ops),
    ]);
    const homes = new Map([...lanes.values()].map((lane) => [lane.carrier, lane.home]));
    const flights = byKey(flying, (flight) => flight.leader);
    const desk = new Desk(tx, lines, events.begin(tx), lanes);
    for (const { lane, ref, leader, members } of refs) desk.learn(lane, ref, leader, members);

    // A settle that is too late has no flight; a group's leader is the number of its run.
    const late = ops.flatMap((op) =>
      op.verb === 'settle' && flights.get(op.arg.leader)?.token !== op.arg.token && op.arg.outcome.kind === 'accepted'
        ? [op.arg.leader]
        : [],
    );
    const groups = late.length === 0 ? [] : await tx.query<{ no: number; members: number }>(SQL.members, [list(late)]);
    const groupSize = new Map(groups.map((row) => [row.no, row.members]));
    const taught: Ref[] = [];
    const reported: { lane: number; ref: string }[] = [];
    for (const op of ops) {
      if (op.verb === 'settle' && op.arg.outcome.kind === 'accepted') {
        const { lane, leader, outcome } = op.arg;
        const members = groupSize.get(leader) || (flights.get(leader)?.members ?? 1);
        taught.push({ lane: homeOf(lanes, lane), ref: refOf(outcome.carrierMessageId), leader, members });
      }
      if (op.verb === 'report') {
        const home = homes.get(op.arg.carrier);
        if (home !== undefined) reported.push({ lane: home, ref: refOf(op.arg.carrierMessageId) });
      }
    }
    const moving = ops.flatMap((op) => {
      if (op.verb === 'release') return op.arg.elsewhere ? op.arg.claims.map(({ leader }) => leader) : [];
      return op.verb === 'settle' && 'elsewhere' in op.arg.outcome && op.arg.outcome.elsewhere ? [op.arg.leader] : [];
    });
    await desk.loadChoices(moving.flatMap((leader) => flights.get(leader) ?? []));
    const own = new Set(taught.map(({ lane, ref }) => refKey(lane, ref)));
    const strange = reported.some(({ lane, ref }) => {
      const key = refKey(lane, ref);
      return ref !== '' && !desk.refs.has(key) && !own.has(key);
    });
    const meeting = meet(desk, taught, reported);
    // Another node may have taught it since: then its rows, too, take their place in the order of locks and of event numbers.
    if (strange) await meeting;
    await together([meeting, desk.load([...flights.values(), ...desk.refs.values(), ...taught], [...leaders])]);

    const results: (boolean | Reported | number)[] = [];
    for (const op of ops) {
      if (op.verb === 'settle') results.push(settle(desk, back, flights, op.arg, groupSize));
      else if (op.verb === 'report') results.push(report(desk, homes.get(op.arg.carrier), op.arg));
      else results.push(release(desk, back, flights, op.arg));
    }
    const toPark = [...desk.parked.values()].flat().filter((row) => row.no === null);
    if (toPark.length > 0 && parkedSeen < PARKED_MAX) {
      parkedSeen += toPark.length;
      tx.later(SQL.park, [
        list(toPark.map((row) => row.lane)),
        texts(toPark.map((row) => row.ref)),
        texts(toPark.map((row) => JSON.stringify(row.report))),
        tx.now,
      ]);
    }
    await desk.flush();
    await writeBack(tx, lines, back);
    return results;
  }

  function report(desk: Desk, home: number | undefined, op: CarrierReport): Reported {
    const ref = refOf(op.carrierMessageId);
    const messages = home === undefined ? null : desk.applyReport(home, ref, op);
    if (messages) return { known: true, messages };
    if (home !== undefined && ref !== '') desk.park(home, ref, { ...op, words: op.words.slice(0, 500) }, null);
    return { known: false, messages: [] };
  }

  function release(
    desk: Desk,
    back: Back,
    flights: Map<number, FlightRow>,
    op: { claims: { token: number; leader: number }[]; until: number; elsewhere: boolean },
  ): number {
    let moved = 0;
    for (const claim of op.claims) {
      const flight = flights.get(claim.leader);
      if (!flight || flight.token !== claim.token) continue;
      flights.delete(claim.leader);
      desk.endFlight(flight);
      // Asked to wait is an attempt here: it has left.
      const untried =
        flight.attempts === 1 && flight.valid_until > desk.tx.now && !desk.attemptCounts.get(flight.leader);
      back.flights.push({ ...flight, untried });
      const row = untried ? { ...flight, valid_until: UNTRIED } : flight;
      const members = desk.changes.span(flight.leader, flight.members);
      if (op.elsewhere && desk.goesOn(row, members, flight.attempts - 1)) moved++;
      else desk.again(row, Math.max(op.until, desk.tx.now), flight.attempts - 1, flight.held);
    }
    return moved;
  }

  function settle(
    desk: Desk,
    back: Back,
    flights: Map<number, FlightRow>,
    op: Settle,
    groupSize: Map<number, number>,
  ): boolean {
    const { outcome } = op;
    const flight = flights.get(op.leader);
    if (!flight || flight.token !== op.token) {
      // Too late to decide, but the carrier's id is worth knowing: its report will come.
      if (outcome.kind === 'accepted') {
        const ref = refOf(outcome.carrierMessageId);
        const home = homeOf(desk.lanes, op.lane);
        desk.learn(home, ref, op.leader, groupSize.get(op.leader) || (flight?.members ?? 1));
        desk.applyParked(home, ref);
      }
      return false;
    }
    flights.delete(op.leader);
    desk.endFlight(flight);
    if (outcome.kind === 'contentFailed') back.flights.push({ ...flight, untried: false });
    const words = outcome.kind === 'accepted' ? (outcome.words ?? '') : (outcome.error?.words ?? '');
    desk.addAttempt(flight, {
      at: op.startedAt,
      took: op.tookMs,
      outcome: outcome.kind,
      error: outcome.kind === 'accepted' ? 0 : (outcome.error?.id ?? 0),
      words,
      ref: outcome.kind === 'accepted' ? outcome.carrierMessageId.slice(0, 500) : null,
    });
    desk.conclude(flight, outcome, words);
    return true;
  }

  /** Flights whose lease has ended: what became of them is known to nobody. */
  async function sweepFlights(tx: Tx, since: number): Promise<boolean> {
    const lost = await tx.query<FlightRow>(SQL.flightsLost, [tx.now, since]);
    if (lost.length === 0) return false;
    const desk = new Desk(tx, lines, events.begin(tx), await lanesOf(tx));
    await desk.load(
      lost,
      lost.map(({ leader }) => leader),
    );
    const words = 'the node that submitted it was lost before the outcome was known';
    for (const flight of lost) {
      desk.endFlight(flight);
      desk.addAttempt(flight, { at: tx.now, took: 0, outcome: 'unknown', error: UNKNOWN_ERROR, words, ref: null });
      desk.conclude(flight, { kind: 'unknown', error: { id: UNKNOWN_ERROR, words } }, words);
    }
    await desk.flush();
    return lost.length === LOST;
  }

  interface Due {
    at: number;
    first: number;
    end: number;
    run: number;
    error: number | null;
    words: string | null;
  }

  /** Ranges whose end has come: up to STEP numbers. True = more may be due. */
  async function sweepDeadlines(tx: Tx, since: number): Promise<boolean> {
    const due = await tx.query<Due>(SQL.due, [tx.now, since]);
    if (due.length === 0) return false;
    const book = new RunBook(tx);
    const gone: Due[] = [];
    const spans: Due[] = [];
    for (let left = STEP, at = 0; left > 0 && at < due.length; at++) {
      const one = due[at] as Due;
      gone.push(one);
      const end = Math.min(one.end, one.first + left);
      left -= end - one.first + 1;
      const failed = one.error === null ? undefined : { error: one.error, words: one.words ?? '' };
      book.deadline(one.at, end, one.end, one.run, failed);
      spans.push({ ...one, end });
    }
    const runs = byKey(
      (await tx.query<RunColumns>(SQL.runs, [list([...new Set(spans.map((span) => span.run))])])).map(toRun),
      (run) => run.no,
    );
    tx.later(SQL.dueDelete, [list(gone.map((row) => row.at)), list(gone.map((row) => row.first))]);
    const unfinished = await tx.query<{ no: number }>(SQL.unfinished, [
      list(spans.map((row) => row.first)),
      list(spans.map((row) => row.end)),
    ]);
    const nos = unfinished.map((row) => row.no);
    const desk = new Desk(tx, lines, events.begin(tx), new Map());
    // Retries first: a claim that is taking one holds it, and its flight is visible once we have it.
    const leaders = spans.flatMap((span) => ((runs.get(span.run)?.members ?? 0) > 0 ? [span.run] : []));
    await desk.load(
      [...nos, ...leaders].map((leader) => ({ leader, members: 1 })),
      [],
    );
    const words = await loadEnds(tx, [...nos, ...leaders], [...runs.values()]);
    const flying = byKey(
      nos.length === 0 ? [] : await tx.query<{ no: number; lease_until: number }>(SQL.over, [list(nos)]),
      (row) => row.no,
    );
    for (const span of spans) {
      for (let no = span.first; no < span.end; no++) {
        const message = desk.changes.get(Math.abs(no));
        // The end of one leg is not the other's.
        if (!message || isFinal(message.state) || message.leg !== legOf(no)) continue;
        if (span.error !== null) {
          desk.changes.change(message, { kind: 'contentFailed', error: span.error }, span.words ?? '');
          continue;
        }
        const flight = flying.get(no);
        // In flight: its settle comes first, or the loss of its lease.
        if (flight) book.deadline(Math.max(flight.lease_until, tx.now) + 1000, no, no + 1, span.run);
        else {
          const run = runs.get(span.run) ?? null;
          desk.expire(message, run, words);
        }
      }
    }
    await desk.flush();
    await book.flush();
    return (
      spans.length < due.length || due.length === STEP || spans.some((span, at) => span.end < (due[at] as Due).end)
    );
  }

  /** Whether the validity of runs has ended, all of it or the turns that passed unused. True = more may be to look at. */
  async function sweepRuns(tx: Tx, since: number): Promise<boolean> {
    const found = (await tx.query<RunColumns>(SQL.toLook, [tx.now, since])).map(toRun);
    if (found.length === 0) return false;
    type Line = { no: number; lane: number; account: number; bulk: number; paused: boolean };
    const rows = byKey(
      await tx.query<Line>(SQL.linesOf, [list([...new Set(found.map((run) => run.line))])]),
      (line) => line.no,
    );
    const bulkNos = [...rows.values()].filter((line) => line.bulk !== 0).map((line) => line.bulk);
    const bulks =
      bulkNos.length === 0
        ? new Map<number, BulkRow>()
        : byKey((await tx.query<BulkColumns>(SQL.bulks, [list(bulkNos)])).map(toBulk), (bulk) => bulk.no);
    const untried = await untriedOf(
      tx,
      found.map((run) => run.no),
    );
    const book = new RunBook(tx);
    const relaxed = new Set<number>();
    let looked = 0;
    for (const run of found) {
      const line = rows.get(run.line);
      const bulk = line?.bulk ? bulks.get(line.bulk) : null;
      // Its bulk is claimed from or steered at this moment: looked at the next time.
      if (!line || bulk === undefined) continue;
      looked++;
      if (await look(tx, book, run, bulk, line.paused, untried.get(run.no)?.[0])) relaxed.add(line.no);
    }
    await book.flush();
    if (relaxed.size > 0) {
      const held = await lines.lock(tx, [...relaxed]);
      await lines.rest(
        tx,
        held.map((line) => line.no),
      );
      for (const lane of [...new Set(held.map((line) => line.lane))].sort((a, b) => a - b)) {
        const accounts = held.filter((line) => line.lane === lane).map((line) => line.account);
        await lines.restTurns(tx, lane, accounts);
      }
    }
    return looked > 0;
  }

  /** One run's look. True = something left its line without being claimed. */
  async function look(
    tx: Tx,
    book: RunBook,
    run: RunRow,
    bulk: BulkRow | null,
    paused: boolean,
    again: Untried | undefined,
  ): Promise<boolean> {
    const { now } = tx;
    book.adopt(run, bulk);
    const start = startOf(run, bulk);
    const turns = byTurns(run, start, bulk);
    if (turns && run.next >= run.end && !again) {
      book.look(run.no, null);
      return false;
    }
    if (start === null || (turns && paused)) {
      // Its clock stands still, and runs in full once it starts.
      book.look(run.no, now + run.validityMs);
      return false;
    }
    if (turns) {
      const remaining = again || run.members > 0 ? 1 : run.end - run.next;
      const admission = admit(viewOf(run, bulk, start, remaining), bucketOf(bulk), now, 1, 0);
      if (admission.kind !== 'expired') {
        book.look(run.no, admission.kind === 'go' ? admission.validUntil : Math.max(admission.until, now + 1000));
        return false;
      }
      if (again) {
        const { count: turns } = await waitingAt(tx, again.leader, again.leader + again.members, again.members);
        book.passedAgain(run, bulk, again, { admission, turns });
      } else {
        const most = run.members > 0 ? run.end - run.next : admission.count;
        const { count: turns, next } = await waitingAt(tx, run.next, run.end, most);
        book.passed(run, bulk, next, { admission, turns });
      }
      book.look(run.no, again || run.next < run.end ? now : null);
      return true;
    }
    const end = start + run.validityMs;
    if (end > now) {
      book.look(run.no, end);
      return false;
    }
    // Claimed ones too: they share the clock.
    book.deadline(now, run.no, run.end, run.no);
    const waited = run.next < run.end;
    book.move(run, run.end, null);
    book.look(run.no, null);
    return waited;
  }

  async function sweepParked(tx: Tx): Promise<boolean> {
    const old = await tx.query<{ lane: number; ref: string }>(SQL.parkedOld, [tx.now - PARKED_MS]);
    if (old.length > 0) {
      const unique = [...byKey(old, (row) => refKey(row.lane, row.ref)).values()];
      tx.later(SQL.refsEmpty, [list(unique.map((row) => row.lane)), texts(unique.map((row) => row.ref))]);
    }
    if (tx.now - parkedCountedAt >= 60_000) {
      parkedCountedAt = tx.now;
      const [row] = await tx.query<{ n: number }>(SQL.parkedCount);
      parkedSeen = row?.n ?? 0;
    }
    return old.length === 200;
  }

  return { group, sweepFlights, sweepRuns, sweepDeadlines, sweepParked };
}
