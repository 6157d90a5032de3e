/**
 * claim: the leased right to submit. Turning over accounts, then lines, then runs; fresh messages and retries alternate.
 * Rows are locked SKIP LOCKED, so a claim never waits for another node's (and cannot deadlock); the pure `admit` decides
 * here, inside the transaction, for what was loaded; cursors, leases, tokens and the bulk's rate bucket are written in one
 * statement. A fresh message costs one flight row; a run of ten thousand costs one cursor.
 *
 * Several nodes may claim one lane: who comes while another is at work there is given nothing, due at once. Lines are locked
 * all the same, for those who steer and sweep.
 */

import type { SpecRow } from '../../domain/rows.ts';
import { admit } from '../../domain/schedule.ts';
import { STATE, type State } from '../../domain/status.ts';
import { bucketOf, byTurns, startOf, viewOf } from '../clock.ts';
import type { Claim, Claims } from '../contract.ts';
import { ACCOUNT_QUANTUM, AHEAD_MS, LINE_QUANTUM, type RetryRow } from '../waiting.ts';
import type { Lines } from './lines.ts';
import { readSpecs } from './rows.ts';
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
} from './runs.ts';
import { byKey, list, sql, type Tx } from './tx.ts';

/** Runs of one line loaded in one round. */
const DEPTH_MAX = 256;
/** Accounts looked at in one round, and rounds in one claim. */
const TURNS = 64;
const ROUNDS = 6;

/** Columns of `retry t`. */
export const RETRY =
  't.leader, t.line, t.run, t.members, t.sent, t.generation, t.attempts, t.held, t.valid_until, t.due_at';

/** Lines remembered as to whose turn it is, fresh or retry. */
const FLIPS = 10_000;

const SQL = {
  turns: sql(`SELECT account, low_at FROM turn WHERE lane = $1 AND due_at <= $2 ORDER BY due_at, seq LIMIT ${TURNS}`),
  lines:
    sql(`SELECT l.no, l.account, l.bulk, l.low_at, l.tried FROM unnest($2::bigint[], $5::bigint[]) WITH ORDINALITY AS a(account, low_at, place)
    CROSS JOIN LATERAL (SELECT n.no, n.account, n.bulk, n.low_at, n.due_at, n.seq,
        EXISTS (SELECT 1 FROM retry t WHERE t.line = n.no AND t.due_at >= n.low_at AND t.due_at <= $3) AS tried FROM line n
      WHERE n.lane = $1 AND n.account = a.account AND n.due_at >= a.low_at AND n.due_at <= $3 ORDER BY n.due_at, n.seq LIMIT $4
      FOR NO KEY UPDATE SKIP LOCKED) l ORDER BY a.place, l.due_at, l.seq`),
  bulks: sql(`SELECT ${BULK} FROM bulk b WHERE b.no = ANY($1::bigint[]) FOR NO KEY UPDATE OF b SKIP LOCKED`),
  runs: sql(`SELECT ${RUN} FROM unnest($1::bigint[], $4::bigint[]) AS l(line, low_at)
    CROSS JOIN LATERAL (SELECT n.no, n.line, n.spec, n.next, n."end", n.members, n.days, n.from_min, n.to_min, n.validity,
      n.opens_at, n.limited, n.moves, n.media, n.due_at, n.seq FROM run n WHERE n.line = l.line AND n.due_at >= l.low_at AND n.due_at <= $2
      ORDER BY n.due_at, n.seq LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED) r ORDER BY r.due_at, r.seq`),
  retries: sql(`SELECT ${RETRY} FROM unnest($1::bigint[], $4::bigint[]) AS l(line, low_at)
    CROSS JOIN LATERAL (SELECT n.leader, n.line, n.run, n.members, n.sent, n.generation, n.attempts, n.held, n.valid_until,
      n.due_at FROM retry n WHERE n.line = l.line AND n.due_at >= l.low_at AND n.due_at <= $2
      ORDER BY n.due_at, n.leader LIMIT $3 FOR UPDATE SKIP LOCKED) t ORDER BY t.due_at, t.leader`),
  runsOf: sql(`SELECT ${RUN} FROM run r WHERE r.no = ANY($1::bigint[])`),
  // Only messages that still wait: a duplicate id has no row, a timely report or an expiry has made others final.
  pending: sql(`SELECT m.no, m."to", m.key, m.state FROM unnest($1::bigint[], $2::bigint[]) AS x(first, "end")
    JOIN message m ON m.no >= x.first AND m.no < x."end" AND m.state IN (${STATE.pending}, ${STATE.uncertain})`),
  fly: sql(`WITH gone AS (DELETE FROM retry WHERE leader = ANY($12::bigint[])),
    waits AS (UPDATE retry t SET free_at = coalesce(t.free_at, t.due_at), due_at = x.due_at FROM unnest($13::bigint[], $14::bigint[]) AS x(leader, due_at)
      WHERE t.leader = x.leader)
    INSERT INTO flight (leader, token, lane, run, members, sent, generation, attempts, held, valid_until, lease_until)
    SELECT leader, token, $1, run, members, sent, generation, attempts, held, valid_until, $2
    FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[], $8::integer[], $9::integer[],
      $10::integer[], $11::bigint[])
      AS x(leader, token, run, members, sent, generation, attempts, held, valid_until)`),
};

/** A line with what was loaded of it. */
interface Serving {
  no: number;
  account: number;
  /** Nothing of it is due before. */
  lowAt: number;
  bulk: BulkRow | null;
  runs: RunRow[];
  retries: RetryRow[];
}

interface Pending {
  no: number;
  to: string;
  key: string | null;
  state: State;
}

interface Flight {
  claim: Claim;
  run: number;
  members: number;
  held: number;
}

/** One round's decisions, written together. */
class Plan {
  readonly claims: Claim[] = [];
  private readonly tx: Tx;
  private readonly book: RunBook;
  /** Runs of retries, by number. */
  private readonly retryRuns: Map<number, RunRow>;
  /** Messages that wait, of all that was loaded, by number. */
  private readonly pending: Map<number, Pending>;
  /** Up to which number of a run messages were looked for. */
  private readonly loadedTo: Map<number, number>;
  /** Lines whose last served submission was a retry; lost at a restart, which costs one turn. */
  private readonly lastWasRetry: Set<number>;
  private readonly flights: Flight[] = [];
  private readonly retriesGone: number[] = [];
  private readonly retriesWait = new Map<number, number>();

  constructor(
    tx: Tx,
    loaded: { retryRuns: Map<number, RunRow>; pending: Map<number, Pending>; loadedTo: Map<number, number> },
    lastWasRetry: Set<number>,
  ) {
    this.tx = tx;
    this.book = new RunBook(tx);
    this.retryRuns = loaded.retryRuns;
    this.pending = loaded.pending;
    this.loadedTo = loaded.loadedTo;
    this.lastWasRetry = lastWasRetry;
  }

  private waiting(first: number, end: number): Pending[] {
    const found: Pending[] = [];
    for (let no = first; no < end; no++) {
      const message = this.pending.get(no);
      if (message) found.push(message);
    }
    return found;
  }

  private fly(
    run: RunRow,
    members: Pending[],
    span: { leader: number; members: number },
    state: { generation: number; attempts: number; held: number },
    time: { notBeforeUs: number; paced: boolean; validUntil: number },
  ): void {
    const claim: Claim = {
      token: this.tx.seq(),
      leader: span.leader,
      spec: run.spec,
      members: members.map(({ no, to, key }) => ({ no, to, key })),
      generation: state.generation,
      attempt: state.attempts + 1,
      ...time,
    };
    this.claims.push(claim);
    this.flights.push({ claim, run: run.no, members: span.members, held: state.held });
  }

  /** Submissions taken (0 or 1). */
  private retry(line: Serving, retry: RetryRow): number {
    const { tx, book } = this;
    const { bulk } = line;
    const run = this.retryRuns.get(retry.run);
    const members = this.waiting(retry.leader, retry.leader + retry.members);
    if (!run || members.length === 0) {
      this.retriesGone.push(retry.leader);
      return 0;
    }
    const view = viewOf(run, bulk, startOf(run, bulk) ?? tx.now, 1);
    const bucket = bucketOf(bulk);
    const admission = admit({ ...view, validUntil: retry.valid_until }, bucket, tx.now, 1, AHEAD_MS);
    if (admission.kind !== 'go') {
      // Past its validity: the sweep ends it truthfully; until then it is not claimable.
      this.retriesWait.set(retry.leader, admission.kind === 'wait' ? admission.until : tx.now + 60_000);
      return 0;
    }
    this.retriesGone.push(retry.leader);
    book.charge(bulk, admission.bucketNext + (members.length - 1) * admission.stepUs);
    // Fewer members than last time are another submission; but what may have reached the carrier keeps its id.
    const other = members.length < retry.sent && members.every((member) => member.state === STATE.pending);
    const state = { ...retry, generation: retry.generation + (other ? 1 : 0) };
    const time = { notBeforeUs: admission.firstAt, paced: bucket !== null, validUntil: retry.valid_until };
    this.fly(run, members, { leader: retry.leader, members: retry.members }, state, time);
    return 1;
  }

  /** Submissions taken; the run goes to the end of `line` while it has more that is due. */
  private run(line: Serving, run: RunRow, quota: number): number {
    const { tx, book } = this;
    const { bulk } = line;
    const group = run.members > 0;
    const left = run.end - run.next;
    const bucket = bucketOf(bulk);
    book.adopt(run, bulk);
    const start = startOf(run, bulk);
    if (start === null || left <= 0) {
      book.move(run, run.next, left <= 0 ? null : tx.now + 60_000);
      return 0;
    }
    // What was not loaded is for the next round.
    const known = (this.loadedTo.get(run.no) ?? run.next) - run.next;
    if (known <= 0) return 0;
    const view = viewOf(run, bulk, start, group ? 1 : left);
    const admission = admit(view, bucket, tx.now, group ? 1 : Math.min(quota, left, known), AHEAD_MS);
    if (admission.kind === 'expired') {
      if (byTurns(run, start, bulk)) book.passed(run, bulk, admission);
      // All of them: the sweep's look at the run is due.
      else book.move(run, run.next, null);
      return 0;
    }
    if (admission.kind === 'wait') {
      book.move(run, run.next, admission.until);
      return 0;
    }
    const end = run.next + (group ? left : admission.count);
    const messages = this.waiting(run.next, end);
    const fresh = { generation: 0, attempts: 0, held: 0 };
    const { firstAt, stepUs, validUntil } = admission;
    const paced = bucket !== null;
    let taken = 0;
    if (group) {
      if (messages.length > 0) {
        const span = { leader: run.next, members: left };
        this.fly(run, messages, span, fresh, { notBeforeUs: firstAt, paced, validUntil });
        taken = 1;
        book.charge(bulk, admission.bucketNext + (messages.length - 1) * stepUs);
      }
    } else {
      for (const message of messages) {
        const span = { leader: message.no, members: 1 };
        this.fly(run, [message], span, fresh, { notBeforeUs: firstAt + taken * stepUs, paced, validUntil });
        taken++;
      }
      // Numbers without a message to send (a duplicate id) take no turn.
      book.charge(bulk, admission.bucketNext - (admission.count - taken) * stepUs);
    }
    if (byTurns(run, start, bulk)) book.deadline(validUntil, run.next, end, run.no);
    book.move(run, end, tx.now);
    if (end < run.end) line.runs.push(run);
    return taken;
  }

  private flip(line: number, retry: boolean): void {
    if (!retry) {
      this.lastWasRetry.delete(line);
      return;
    }
    if (this.lastWasRetry.size >= FLIPS) this.lastWasRetry.clear();
    this.lastWasRetry.add(line);
  }

  /** Serves a line up to `quota`; fresh messages and retries alternate. */
  serve(line: Serving, quota: number): number {
    let taken = 0;
    // The runs present now: one that is put back waits for the line's next visit.
    let waiting = line.runs.length;
    while (taken < quota && (line.retries.length > 0 || waiting > 0)) {
      const retry = line.retries[0];
      // Never tried: put back by a stop or a pause of its lane, so it was there before all that is fresh.
      const first = retry?.attempts === 0;
      if (retry && (waiting === 0 || first || !this.lastWasRetry.has(line.no))) {
        line.retries.shift();
        const served = this.retry(line, retry);
        taken += served;
        if (served > 0 && waiting > 0 && !first) this.flip(line.no, true);
        continue;
      }
      const run = line.runs.shift() as RunRow;
      waiting--;
      // While others wait beside it, a run takes one; alone it takes what is free.
      const share = waiting > 0 || line.retries.length > 0 ? 1 : quota - taken;
      taken += this.run(line, run, share);
      this.flip(line.no, false);
    }
    return taken;
  }

  async write(lane: number, leaseUntil: number): Promise<void> {
    const { flights } = this;
    const of = (pick: (flight: Flight) => number): string => list(flights.map(pick));
    await this.tx.query(SQL.fly, [
      lane,
      leaseUntil,
      of(({ claim }) => claim.leader),
      of(({ claim }) => claim.token),
      of((flight) => flight.run),
      of((flight) => flight.members),
      of(({ claim }) => claim.members.length),
      of(({ claim }) => claim.generation),
      of(({ claim }) => claim.attempt),
      of((flight) => flight.held),
      of(({ claim }) => claim.validUntil),
      list(this.retriesGone),
      list([...this.retriesWait.keys()]),
      list([...this.retriesWait.values()]),
    ]);
    await this.book.flush();
  }
}

/** The work of one claim: up to `limit` submissions of a lane, leased for `leaseMs`, and when the lane is due next. Never waits for another claim. */
export function createClaim(lines: Lines) {
  const lastWasRetry = new Set<number>();

  /** Loads due lines of the next accounts, serves them in turns, writes. Null = nothing was there to serve. */
  async function round(tx: Tx, lane: number, limit: number, leaseMs: number): Promise<Claim[] | null> {
    const turns = await tx.query<{ account: number; low_at: number }>(SQL.turns, [lane, tx.now]);
    if (turns.length === 0) return null;
    const accounts = turns.map((turn) => turn.account);
    const each = Math.max(1, Math.ceil(limit / accounts.length));
    // tried = a retry is due. One that comes after this look has a wake, which the next claim takes.
    type LineRow = { no: number; account: number; bulk: number; low_at: number; tried: boolean };
    const locked = await tx.query<LineRow>(SQL.lines, [
      lane,
      list(accounts),
      tx.now,
      Math.min(each, 64),
      list(turns.map((turn) => turn.low_at)),
    ]);
    if (locked.length === 0) {
      // All served by other nodes at this moment, or a turn that promised too much.
      await lines.restOwnTurns(tx, lane, accounts, tx.now);
      return null;
    }
    const bulkNos = locked.filter((line) => line.bulk !== 0).map((line) => line.bulk);
    const bulks =
      bulkNos.length === 0
        ? new Map<number, BulkRow>()
        : byKey((await tx.query<BulkColumns>(SQL.bulks, [list(bulkNos)])).map(toBulk), (bulk) => bulk.no);
    const serving = new Map<number, Serving>();
    for (const { no, account, bulk, low_at: lowAt } of locked) {
      const row = bulk === 0 ? null : bulks.get(bulk);
      // Its bulk is being steered: left as it is for the next claim.
      if (row !== undefined) serving.set(no, { no, account, lowAt, bulk: row, runs: [], retries: [] });
    }
    if (serving.size === 0) return null;
    const nos = list([...serving.keys()]);
    const lows = list([...serving.values()].map((line) => line.lowAt));
    const depth = Math.min(DEPTH_MAX, Math.max(2, Math.ceil((2 * limit) / serving.size)));
    const runs = (await tx.query<RunColumns>(SQL.runs, [nos, tx.now, depth, lows])).map(toRun);
    for (const run of runs) serving.get(run.line)?.runs.push(run);
    const tried = locked.some((line) => line.tried);
    const retries = tried ? await tx.query<RetryRow>(SQL.retries, [nos, tx.now, depth, lows]) : [];
    for (const retry of retries) serving.get(retry.line)?.retries.push(retry);
    const retryRuns =
      retries.length === 0
        ? new Map<number, RunRow>()
        : byKey(
            (await tx.query<RunColumns>(SQL.runsOf, [list(retries.map((retry) => retry.run))])).map(toRun),
            (run) => run.no,
          );
    // A run that is loaded twice (fresh, and for its retry) must be one: its cursor moves.
    for (const run of runs) if (retryRuns.has(run.no)) retryRuns.set(run.no, run);
    // The messages that may be taken: of one run alone all that is asked for, of many their share.
    const share = Math.max(LINE_QUANTUM, Math.ceil((2 * limit) / Math.max(1, runs.length)));
    const loadedTo = new Map(
      runs.map((run) => [run.no, run.members > 0 ? run.end : Math.min(run.end, run.next + Math.min(limit, share))]),
    );
    const spans = [
      ...runs.map((run) => [run.next, loadedTo.get(run.no) as number] as const),
      ...retries.map((retry) => [retry.leader, retry.leader + retry.members] as const),
    ];
    const pending = byKey(
      await tx.query<Pending>(SQL.pending, [list(spans.map(([first]) => first)), list(spans.map(([, end]) => end))]),
      (message) => message.no,
    );
    const plan = new Plan(tx, { retryRuns, pending, loadedTo }, lastWasRetry);
    const byAccount = new Map<number, Serving[]>();
    for (const line of serving.values()) byAccount.set(line.account, [...(byAccount.get(line.account) ?? []), line]);
    const ring = [...byAccount.values()];
    let left = limit;
    // Who was not reached keeps its place in the ring.
    const visited = new Map<number, number>();
    for (let own = ring.shift(); own && left > 0; own = ring.shift()) {
      let quota = Math.min(ACCOUNT_QUANTUM, left);
      for (let line = own.shift(); line; line = own.shift()) {
        visited.set(line.no, line.account);
        const taken = plan.serve(line, Math.min(LINE_QUANTUM, quota));
        quota -= taken;
        left -= taken;
        if (taken > 0 && (line.runs.length > 0 || line.retries.length > 0)) own.push(line);
        if (quota <= 0) break;
      }
      if (own.length > 0) ring.push(own);
    }
    await plan.write(lane, tx.now + leaseMs);
    await lines.rest(tx, [...visited.keys()], tx.now);
    await lines.restOwnTurns(tx, lane, [...visited.values()], tx.now);
    return plan.claims;
  }

  return async function claim(tx: Tx, lane: number, limit: number, leaseMs: number): Promise<Claims> {
    const claims: Claim[] = [];
    // Never waits, so it can be in no circle of those who wait: whoever works on this lane now is short.
    if (!(await lines.fold(tx, lane))) return { now: tx.now, claims, specs: [], nextDue: tx.now };
    for (let rounds = 0; claims.length < limit && rounds < ROUNDS; rounds++) {
      const more = await round(tx, lane, limit - claims.length, leaseMs);
      if (more === null) break;
      claims.push(...more);
    }
    const specs: SpecRow[] = await readSpecs(
      tx,
      claims.map((one) => one.spec),
    );
    const { woken, due } = await lines.peek(tx, lane);
    return { now: tx.now, claims, specs, nextDue: woken ? Math.min(tx.now, due ?? tx.now) : due };
  };
}
