/**
 * Bulks: how they stand, and steering. A steering verb locks the bulk's row FOR UPDATE, which waits for accepts that join it
 * (KEY SHARE) and is passed by claims (SKIP LOCKED), then changes it and its lines: O(lanes), whatever the bulk's size. What
 * follows for runs and messages is brought to them by the sweep in bounded steps (`drain`); claims apply it to each run that
 * they touch, so nothing leaves against a steering that has been committed.
 *
 * A step of a drain holds its bulk's lock, so no claim is at work on the bulk's runs and retries beside it. Locks: bulk, run,
 * retry, message.
 */
import { type Leg, lanesOfWays, readWays, smsLeader } from '../../domain/failover.ts';
import { STATE } from '../../domain/status.ts';
import { byTurns, earlyOf, startOf } from '../clock.ts';
import type { Bulk, BulkChange, BulkName, Progress, Steered } from '../contract.ts';
import {
  CANCELED_WORDS,
  NO_PROGRESS,
  PAUSED_MAX_MS,
  PLAIN_BULK,
  printSpeed,
  RECALL_MS,
  shownBulk,
  steered,
} from '../steering.ts';
import { addCallBacks, sweepCallBacks } from './callback.ts';
import type { createEvents } from './events.ts';
import { type Lines, lineKey, type Wake } from './lines.ts';
import { BULK, type BulkColumns, type BulkRow, RUN, RunBook, type RunColumns, toBulk, toRun } from './runs.ts';
import { add, tallied, uncounted } from './tally.ts';
import { type Ask, byKey, Conflict, list, plain, sql, type Tx } from './tx.ts';

/** Messages of one step; runs of one step; bulks given up in one step. */
const STEP = 500;
const RUNS = 200;
const GIVEN_UP = 20;
/** Messages that one page of a list may count. */
const LIST_COUNTED = 50_000;

const MESSAGE = 'm.no, m.state, m.leg, r.no AS run, r.members';

const SQL = {
  now: sql(
    `SELECT greatest(h.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now FROM high_water h`,
  ),
  byNo: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.no = $2`),
  byId: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.id = $2`),
  shareNo: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.no = $2 FOR KEY SHARE OF b`),
  list: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.no < $2 ORDER BY b.no DESC LIMIT $3`),
  // Of which bulks the first spec is in no tally.
  uncounted: sql(`SELECT b.no FROM unnest($1::bigint[]) AS b(no) CROSS JOIN LATERAL (SELECT s.counted FROM spec s
    WHERE s.bulk = b.no AND s.first > b.no ORDER BY s.first LIMIT 1) f WHERE NOT f.counted`),
  lockNo: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.no = $2 FOR UPDATE OF b`),
  lockId: sql(`SELECT ${BULK} FROM bulk b WHERE b.account = $1 AND b.id = $2 FOR UPDATE OF b`),
  add: sql(`INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us, pauses)
    VALUES ($1, $2, NULL, $3, NULL, 0, 0, '[]') ON CONFLICT DO NOTHING RETURNING no`),
  expressRuns: sql(`SELECT r.no, r."end" AS "end", r.line, r.ways, l.lane FROM spec s
    CROSS JOIN LATERAL (SELECT no, "end", line, ways FROM run q WHERE q.no >= s.first AND q.no < s."end" ORDER BY q.no FOR UPDATE) r
    CROSS JOIN LATERAL (SELECT lane, bulk FROM line q WHERE q.no = r.line OFFSET 0) l
    WHERE s.bulk = $1 AND s.account = $2 AND l.bulk = 0 ORDER BY r.no`),
  expressSmsRuns: sql(`SELECT r.no, r."end" AS "end", r.line, NULL AS ways, l.lane FROM spec s
    CROSS JOIN LATERAL (SELECT no, "end", line FROM run q WHERE q.no > -s."end" AND q.no <= -s.first ORDER BY q.no FOR UPDATE) r
    CROSS JOIN LATERAL (SELECT lane, bulk FROM line q WHERE q.no = r.line OFFSET 0) l
    WHERE s.bulk = $1 AND s.account = $2 AND l.bulk = 0 ORDER BY r.no`),
  runLine: sql(
    `UPDATE run r SET line = x.line FROM unnest($1::bigint[], $2::bigint[]) AS x(no, line)
      WHERE r.no = x.no AND r.no = ANY($1::bigint[])`,
  ),
  // What is in flight comes back to the line that its run has then.
  // Each on its own lane: it may have been handed on to another carrier.
  retryLine: sql(`UPDATE retry t SET line = coalesce((SELECT n.no FROM line o CROSS JOIN LATERAL (SELECT no FROM line q
        WHERE q.lane = o.lane AND q.account = o.account AND q.bulk = $4 OFFSET 0) n WHERE o.no = t.line), x.line) FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(no, "end", line)
    WHERE t.leader >= x.no AND t.leader < x."end"`),
  flightLine: sql(`UPDATE flight f SET line = (SELECT n.no FROM line o CROSS JOIN LATERAL (SELECT no FROM line q
        WHERE q.lane = o.lane AND q.account = o.account AND q.bulk = $3 OFFSET 0) n WHERE o.no = f.line) FROM unnest($1::bigint[], $2::bigint[]) AS x(no, "end")
    WHERE f.leader >= x.no AND f.leader < x."end" AND f.line IS NOT NULL`),
  steer: sql(`UPDATE bulk SET send_at = $2, moves = $3, canceled_at = $4, speed = $5,
      drain = CASE WHEN $6::boolean THEN 0 ELSE drain END, drain_no = CASE WHEN $6::boolean THEN 0 ELSE drain_no END
    WHERE no = $1`),
  lines: sql('SELECT no FROM line WHERE bulk = $1 AND bulk <> 0'),
  wakesGone: sql('DELETE FROM wake WHERE line = ANY($1::bigint[])'),
  paused: sql('UPDATE line SET paused = $2 WHERE no = ANY($1::bigint[])'),
  dueAt: sql(`UPDATE line l SET due_at = $3, seq = x.seq FROM unnest($1::bigint[], $2::bigint[]) AS x(no, seq)
    WHERE l.no = x.no AND l.no = ANY($1::bigint[]) AND NOT l.paused`),
  givenUp: sql(`SELECT ${BULK} FROM bulk b WHERE b.paused_at <= $1 AND b.canceled_at IS NULL ORDER BY b.paused_at
    LIMIT ${GIVEN_UP} FOR UPDATE OF b SKIP LOCKED`),
  draining: sql(`SELECT ${BULK}, b.drain, b.drain_no FROM bulk b WHERE b.drain IS NOT NULL ORDER BY b.drain LIMIT 1
    FOR NO KEY UPDATE OF b SKIP LOCKED`),
  drained: sql('UPDATE bulk SET drain = $2, drain_no = $3 WHERE no = $1'),
  // By the index spec_bulk_first: numbers of specs and of their messages have one order. Of the request that a step before ended in all
  // specs are looked at again; their runs end before $3.
  runsOf: sql(`SELECT ${RUN}, s.no AS s_no, l.lane
    FROM (SELECT no, first, "end" FROM spec q WHERE q.bulk = $1 AND q.first >= $2 ORDER BY q.first OFFSET 0) s
    CROSS JOIN LATERAL (SELECT ${RUN} FROM run r WHERE r.no >= s.first AND r.no < s."end" AND r."end" > $3
      ORDER BY r.no LIMIT ${RUNS} FOR NO KEY UPDATE) r
    CROSS JOIN LATERAL (SELECT lane, bulk FROM line q WHERE q.no = r.line OFFSET 0) l LIMIT ${RUNS}`),
  // Not told yet: it knows fewer moves, or is due later than now; a retry of it that waits for the bulk likewise.
  smsRuns: sql(`SELECT ${RUN}, 0 AS s_no, l.lane FROM unnest($1::bigint[], $2::bigint[]) AS x(no, "end")
    CROSS JOIN LATERAL (SELECT ${RUN} FROM run r WHERE r.no > -x."end" AND r.no <= -x.no
        AND (r.moves < $3 OR r.due_at > $4 OR (SELECT t.free_at FROM retry t WHERE t.leader = r.no) IS NOT NULL)
      ORDER BY r.no LIMIT ${RUNS} FOR NO KEY UPDATE) r
    CROSS JOIN LATERAL (SELECT lane FROM line q WHERE q.no = r.line OFFSET 0) l LIMIT ${RUNS}`),
  close: sql(`UPDATE run SET next = "end", due_at = NULL, look_at = CASE WHEN next = no THEN NULL ELSE look_at END
    WHERE no = ANY($1::bigint[])`),
  retriesFree: sql(`UPDATE retry t SET due_at = coalesce(t.free_at, t.due_at), free_at = NULL
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(no, "end", lane)
    WHERE t.leader >= x.no AND t.leader < x."end"
    RETURNING coalesce((SELECT l.lane FROM line l WHERE l.no = t.line), x.lane) AS lane, t.line, t.due_at`),
  // The nearest run at or below a number is its own, but for those refused at the door, which are final.
  unfinished: sql(`SELECT ${MESSAGE} FROM unnest($1::bigint[], $2::bigint[]) AS x(first, "end")
    CROSS JOIN LATERAL (SELECT no, state, leg FROM message q WHERE q.no >= x.first AND q.no < x."end"
      AND q.state < ${STATE.delivered} OFFSET 0) m
    CROSS JOIN LATERAL (SELECT n.no, n.members FROM run n WHERE n.no <= m.no ORDER BY n.no DESC LIMIT 1) r
    ORDER BY m.no LIMIT $3`),
  recalls: sql(`SELECT c.no FROM recall c WHERE c.at <= $1 ORDER BY c.at LIMIT ${STEP} FOR UPDATE SKIP LOCKED`),
  recallAdd: sql(`INSERT INTO recall (no, at) SELECT no, $2::bigint FROM unnest($1::bigint[]) AS x(no)
    ON CONFLICT (no) DO UPDATE SET at = excluded.at`),
  recallDelete: sql('DELETE FROM recall WHERE no = ANY($1::bigint[])'),
  retriesLock: sql('SELECT leader FROM retry WHERE leader = ANY($1::bigint[]) ORDER BY leader FOR UPDATE'),
  retriesDelete: sql('DELETE FROM retry WHERE leader = ANY($1::bigint[])'),
  over: sql(`SELECT n.no FROM unnest($1::bigint[]) AS n(no) CROSS JOIN LATERAL (
      SELECT leader, members FROM flight WHERE leader <= n.no ORDER BY leader DESC LIMIT 1) f
    WHERE f.leader + f.members > n.no`),
};

interface Found {
  bulk: BulkRow;
  figures: Progress;
  /** False = it has no row, because nothing has made it need one. */
  own: boolean;
}

async function find(ask: Ask, account: number, name: BulkName, lock: boolean): Promise<Found | null> {
  const [row] =
    'no' in name
      ? await ask.query<BulkColumns>(lock ? SQL.lockNo : SQL.byNo, [account, name.no])
      : await ask.query<BulkColumns>(lock ? SQL.lockId : SQL.byId, [account, plain(name.id)]);
  if (row) {
    const figures = { ...((await tallied(ask, [row.no])).get(row.no) ?? NO_PROGRESS) };
    const rest = await uncounted(ask, row.no);
    if (rest) add(figures, rest.figures);
    return { bulk: toBulk(row), figures, own: true };
  }
  if (!('no' in name)) return null;
  const rest = await uncounted(ask, name.no);
  if (!rest || rest.account !== account) return null;
  const bulk: BulkRow = { ...PLAIN_BULK, no: name.no, id: null, acceptedAt: rest.acceptedAt };
  return { bulk, figures: rest.figures, own: false };
}

async function clock(ask: Ask, testNow: (() => number) | null): Promise<number> {
  if (testNow) return testNow();
  const [row] = await ask.query<{ now: number }>(SQL.now);
  if (!row) throw new Error('the store has no clock row');
  return row.now;
}

/** A bulk as it stands; `testNow` as in the options. */
export async function bulkGet(
  ask: Ask,
  account: number,
  name: BulkName,
  testNow: (() => number) | null,
): Promise<Bulk | null> {
  const found = await find(ask, account, name, false);
  return found && shownBulk(found.bulk, found.figures, await clock(ask, testNow));
}

/** A page of bulks, newest first. */
export async function bulkList(
  ask: Ask,
  account: number,
  limit: number,
  before: number | undefined,
  testNow: (() => number) | null,
): Promise<{ bulks: Bulk[]; next: number | null }> {
  const values = [account, before ?? Number.MAX_SAFE_INTEGER, limit + 1];
  const rows = (await ask.query<BulkColumns>(SQL.list, values)).map(toBulk);
  const nos = rows.map((row) => row.no);
  const sums = await tallied(ask, nos);
  const open = byKey(await ask.query<{ no: number }>(SQL.uncounted, [list(nos)]), (row) => row.no);
  const now = await clock(ask, testNow);
  const bulks: Bulk[] = [];
  let budget = LIST_COUNTED;
  for (const row of rows) {
    if (bulks.length >= limit || budget <= 0) return { bulks, next: bulks.at(-1)?.no ?? null };
    const figures = { ...(sums.get(row.no) ?? NO_PROGRESS) };
    const rest = open.has(row.no) ? await uncounted(ask, row.no) : null;
    if (rest) {
      add(figures, rest.figures);
      budget -= rest.figures.accepted;
    }
    bulks.push(shownBulk(row, figures, now));
  }
  return { bulks, next: null };
}

/** Steering and what follows. */
export function createBulks(lines: Lines, events: ReturnType<typeof createEvents>) {
  /** Rests lines and their accounts' turns; the lines are locked here. */
  async function rest(tx: Tx, nos: number[]): Promise<void> {
    const held = await lines.lock(tx, nos);
    // Their wakes have told; what they told of is seen by the rest.
    tx.later(SQL.wakesGone, [list(held.map((line) => line.no))]);
    await lines.rest(
      tx,
      held.map((line) => line.no),
    );
    await restTurns(tx, held);
  }

  async function restTurns(tx: Tx, held: { lane: number; account: number }[]): Promise<void> {
    const byLane = new Map<number, number[]>();
    for (const { lane, account } of held) byLane.set(lane, [...(byLane.get(lane) ?? []), account]);
    for (const [lane, accounts] of [...byLane].sort(([a], [b]) => a - b)) await lines.restTurns(tx, lane, accounts);
  }

  /** A request without a bulk of its own gets one, with lines of its own. */
  async function own(tx: Tx, account: number, bulk: BulkRow): Promise<void> {
    const made = await tx.query(SQL.add, [bulk.no, account, bulk.acceptedAt]);
    if (made.length === 0) throw new Conflict('the bulk was steered by another node at the same moment');
    type Run = { no: number; end: number; line: number; lane: number; ways: string | null };
    const first = await tx.query<Run>(SQL.expressRuns, [bulk.no, account]);
    if (first.length === 0) return;
    const runs = [...first, ...(await tx.query<Run>(SQL.expressSmsRuns, [bulk.no, account]))];
    const key = (lane: number) => ({ lane, account, bulk: bulk.no, paused: false });
    const keys = runs.map(({ lane }) => key(lane));
    // Where its messages may go later.
    const more = new Set(first.flatMap(({ ways }) => lanesOfWays(readWays(ways))));
    if (more.size > 0) await lines.find(tx, [...more].map(key));
    const found = await lines.find(tx, keys);
    const lineOf = keys.map((key) => found.get(lineKey(key)) as number);
    const nos = list(runs.map((run) => run.no));
    tx.later(SQL.runLine, [nos, list(lineOf)]);
    const ends = list(runs.map((run) => run.end));
    tx.later(SQL.retryLine, [nos, ends, list(lineOf), bulk.no]);
    tx.later(SQL.flightLine, [nos, ends, bulk.no]);
    await rest(tx, [...new Set([...runs.map((run) => run.line), ...lineOf, ...(await linesOf(tx, bulk.no))])]);
  }

  async function linesOf(tx: Tx, bulk: number): Promise<number[]> {
    return (await tx.query<{ no: number }>(SQL.lines, [bulk])).map((line) => line.no);
  }

  /** Writes what steering has decided, and tells the lines. */
  async function apply(tx: Tx, bulk: BulkRow, to: BulkRow, drain: boolean): Promise<void> {
    const book = new RunBook(tx);
    book.setClock({ ...bulk }, to);
    await book.flush();
    tx.later(SQL.steer, [bulk.no, to.sendAt, to.moves, to.canceledAt, printSpeed(to.speed), drain]);
    const held = await lines.lock(tx, await linesOf(tx, bulk.no));
    const nos = held.map((line) => line.no);
    const still = to.pausedAt !== null || to.canceledAt !== null;
    tx.later(SQL.paused, [list(nos), still]);
    if (!still && to.moves > bulk.moves && to.sendAt !== null) {
      // Its runs are due when they were: that is looked at again at the new instant, not before.
      tx.later(SQL.dueAt, [list(nos), list(nos.map(() => tx.seq())), Math.max(to.sendAt, tx.now)]);
      await restTurns(tx, held);
    } else await rest(tx, nos);
    if (!still) tx.hint('lane');
  }

  async function steer(tx: Tx, account: number, name: BulkName, changes: BulkChange[]): Promise<Steered> {
    const found = await find(tx, account, name, true);
    if (!found) return { kind: 'notFound' };
    const { bulk, figures } = found;
    const steering = steered(bulk, figures, changes, tx.now);
    if (steering.kind === 'conflict') return steering;
    const to: BulkRow = { ...bulk, ...steering.to };
    if (steering.to !== bulk) {
      if (!found.own) await own(tx, account, bulk);
      await apply(tx, bulk, to, steering.drain);
    }
    return { kind: 'done', bulk: shownBulk(to, figures, tx.now) };
  }

  // --- What follows, in steps ---

  /** Bulks that were paused for too long. */
  async function giveUp(tx: Tx): Promise<boolean> {
    const rows = await tx.query<BulkColumns & { account: number }>(SQL.givenUp, [tx.now - PAUSED_MAX_MS]);
    for (const row of rows) {
      const found = await find(tx, row.account, { no: row.no }, true);
      if (!found) continue;
      const { bulk, figures } = found;
      // Nothing is left to give up: the pause is over.
      const kind = figures.waiting + figures.sent > 0 ? 'cancel' : 'resume';
      const steering = steered(bulk, figures, [{ kind }], tx.now);
      if (steering.kind === 'done') await apply(tx, bulk, { ...bulk, ...steering.to }, steering.drain);
    }
    return rows.length === GIVEN_UP;
  }

  interface Open {
    no: number;
    leg: Leg;
    run: number;
    members: number;
  }

  const leaderOf = ({ no, leg, run, members }: Open): number => (leg === 1 ? smsLeader(no) : members > 0 ? run : no);

  /** Ends messages of cancelled bulks; those in flight are looked at again later. What a carrier may have runs on. */
  async function cancel(tx: Tx, messages: Open[]): Promise<void> {
    if (messages.length === 0) return;
    const sms = messages.filter(({ leg }) => leg === 1);
    if (sms.length > 0) tx.later(SQL.close, [list(sms.map(leaderOf))]);
    tx.later(SQL.retriesLock, [list([...new Set(messages.map(leaderOf))])]);
    const changes = events.begin(tx);
    await changes.load(messages.map((message) => message.no));
    // After the messages are locked: no settle is at work on them, so a flight that is not seen is over.
    const places = messages.map(({ no, leg }) => (leg === 1 ? smsLeader(no) : no));
    const flying = new Set((await tx.query<{ no: number }>(SQL.over, [list(places)])).map((row) => Math.abs(row.no)));
    // Its other leg began in between: that one is looked at again.
    for (const { no, leg } of messages) if (changes.get(no) && changes.get(no)?.leg !== leg) flying.add(no);
    const landed = messages.filter(({ no }) => !flying.has(no));
    if (flying.size > 0) tx.later(SQL.recallAdd, [list([...flying]), tx.now + RECALL_MS]);
    if (landed.length > 0) {
      tx.later(SQL.retriesDelete, [list([...new Set(landed.map(leaderOf))])]);
    }
    const out = landed.filter(({ no }) => changes.get(no)?.state === STATE.submitted);
    addCallBacks(tx, [...new Set(out.map(leaderOf))]);
    for (const { no } of landed) {
      const message = changes.get(no);
      if (message) changes.change(message, { kind: 'cancelled' }, CANCELED_WORDS);
    }
    await changes.flush();
  }

  type DrainRun = RunColumns & { s_no: number; lane: number };

  /** Runs of a bulk that was moved, or has another pace: looked at again as soon as they may leave. */
  async function tell(tx: Tx, bulk: BulkRow, rows: DrainRun[], at = Number.POSITIVE_INFINITY): Promise<void> {
    if (rows.length === 0) return;
    const book = new RunBook(tx);
    const wakes: Wake[] = [];
    for (const row of rows) {
      const run = toRun(row);
      book.adopt(run, bulk);
      if (run.next >= run.end) continue;
      const start = startOf(run, bulk);
      const due = Math.min((start ?? run.opensAt) - earlyOf(run, start, bulk), at);
      book.move(run, run.next, due);
      // At another pace its turns may be over sooner than the sweep was to see, and what waits for its content is claimed by nobody.
      if (byTurns(run, start, bulk)) book.look(run.no, tx.now);
      if (!run.closed) wakes.push({ lane: row.lane, line: run.line, due });
    }
    await book.flush();
    const freed = await tx.query<{ lane: number; line: number; due_at: number }>(SQL.retriesFree, [
      list(rows.map((row) => row.no)),
      list(rows.map((row) => row.end)),
      list(rows.map((row) => row.lane)),
    ]);
    for (const { lane, line, due_at: due } of freed) wakes.push({ lane, line, due });
    await lines.wake(tx, wakes);
  }

  /** The SMS legs of these runs' messages that have still to be told, up to RUNS of them. */
  async function smsOf(tx: Tx, bulk: BulkRow, rows: DrainRun[]): Promise<DrainRun[]> {
    if (rows.length === 0) return [];
    const spans = [list(rows.map(({ no }) => no)), list(rows.map(({ end }) => end))];
    return tx.query<DrainRun>(SQL.smsRuns, [...spans, bulk.moves, tx.now]);
  }

  /** One step of the bulk that has waited longest. True = more may be left. */
  async function drain(tx: Tx): Promise<boolean> {
    const [row] = await tx.query<BulkColumns & { drain: number; drain_no: number }>(SQL.draining);
    if (!row) return false;
    const bulk = toBulk(row);
    const rows = await tx.query<DrainRun>(SQL.runsOf, [bulk.no, row.drain, row.drain_no]);
    const last = rows.at(-1);
    let [spec, place, over] = [last?.s_no ?? 0, last?.end ?? 0, rows.length < RUNS];
    if (bulk.canceledAt === null) {
      await tell(tx, bulk, rows);
      const sms = await smsOf(tx, bulk, rows);
      await tell(tx, bulk, sms, tx.now);
      // Told again at the next step, with those that are left.
      if (sms.length === RUNS) [spec, place, over] = [row.drain, row.drain_no, false];
    } else {
      tx.later(SQL.close, [list(rows.map((run) => run.no))]);
      const spans = [list(rows.map((run) => Math.max(run.no, row.drain_no))), list(rows.map((run) => run.end))];
      const messages = await tx.query<Open>(SQL.unfinished, [...spans, STEP]);
      await cancel(tx, messages);
      const end = messages.at(-1);
      if (messages.length === STEP && end) {
        spec = rows.findLast((run) => run.no <= end.no)?.s_no ?? 0;
        place = end.no + 1;
        over = false;
      }
    }
    tx.later(SQL.drained, [bulk.no, over ? null : spec, over ? 0 : place]);
    if (over) await rest(tx, await linesOf(tx, bulk.no));
    return true;
  }

  async function recall(tx: Tx): Promise<boolean> {
    const rows = await tx.query<{ no: number }>(SQL.recalls, [tx.now]);
    if (rows.length === 0) return false;
    const nos = rows.map((row) => row.no);
    tx.later(SQL.recallDelete, [list(nos)]);
    await cancel(tx, await tx.query<Open>(SQL.unfinished, [list(nos), list(nos.map((no) => no + 1)), STEP]));
    return rows.length === STEP;
  }

  return {
    steer,
    /** The bulk of a request that named none, with a row from now on; null = there is none of that number. */
    async generated(tx: Tx, account: number, no: number): Promise<BulkRow | null> {
      const found = await find(tx, account, { no }, false);
      if (!found) return null;
      if (!found.own) await own(tx, account, found.bulk);
      const [row] = await tx.query<BulkColumns>(SQL.shareNo, [account, no]);
      return row ? toBulk(row) : null;
    },
    /** One bounded step of what follows from steering. True = more may be left. */
    async sweep(tx: Tx): Promise<boolean> {
      const given = await giveUp(tx);
      const drained = await drain(tx);
      const old = await sweepCallBacks(tx);
      return (await recall(tx)) || drained || given || old;
    },
  };
}
