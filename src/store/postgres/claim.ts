/**
 * claim: the leased right to submit. Turning over accounts, then lines, then runs; fresh messages and retries alternate.
 * Rows are locked SKIP LOCKED, so a claim never waits for another node's (and cannot deadlock); the pure `admit` decides
 * here, inside the transaction, for what was loaded; cursors, leases, tokens and the bulk's rate bucket are written in one
 * statement. A fresh message costs one flight row; a run of ten thousand costs one cursor.
 *
 * Several nodes may claim one lane: who comes while another is at work there is given nothing, due at once. Lines are locked
 * all the same, for those who steer and sweep.
 */

import { legOf } from '../../domain/failover.ts';
import type { SpecRow } from '../../domain/rows.ts';
import { admit } from '../../domain/schedule.ts';
import { STATE, type State } from '../../domain/status.ts';
import { bucketOf, byTurns, startOf, type Turns, viewOf } from '../clock.ts';
import type { Claim } from '../contract.ts';
import { ACCOUNT_QUANTUM, AHEAD_MS, DRAIN_MS, LINE_QUANTUM, type RetryRow, UNTRIED } from '../waiting.ts';
import { RING } from './inside.ts';
import type { Lines } from './lines.ts';
import { readSpecs } from './rows.ts';
import { type BulkRow, RunBook, type RunRow, toBulk, toRun } from './runs.ts';
import { byKey, list, sql, type Tx } from './tx.ts';

/** Looks for more in one claim. */
const ROUNDS = 6;

/** Lines remembered as to whose turn it is, fresh or retry. */
const FLIPS = 10_000;

const SQL = {
  fly: sql(`WITH gone AS (DELETE FROM retry WHERE leader = ANY($12::bigint[])),
    waits AS (UPDATE retry t SET free_at = coalesce(t.free_at, t.due_at), due_at = x.due_at FROM unnest($13::bigint[], $14::bigint[]) AS x(leader, due_at)
      WHERE t.leader = x.leader AND t.leader = ANY($13::bigint[]))
    INSERT INTO flight (leader, token, lane, run, members, sent, generation, attempts, held, valid_until, lease_until, turn_from, turn_end,
      line)
    SELECT leader, token, $1, run, members, sent, generation, attempts, held, valid_until, $2, turn_from, turn_end, line
    FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::integer[], $7::integer[], $8::integer[], $9::integer[],
      $10::integer[], $11::bigint[], $15::float8[], $16::float8[], $17::bigint[])
      AS x(leader, token, run, members, sent, generation, attempts, held, valid_until, turn_from, turn_end, line)`),
};

/** A line with what was loaded of it. */
interface Serving {
  no: number;
  account: number;
  /** Its account has more lines than take turns by themselves. */
  full: boolean;
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
  turns: Turns | null;
  /** Where it was handed on to another carrier; null = its run's. */
  line: number | null;
}

/** One round's decisions, written together. */
class Plan {
  readonly claims: Claim[] = [];
  private readonly tx: Tx;
  private readonly book: RunBook;
  /** Runs of retries, by number. */
  private readonly retryRuns: Map<number, RunRow>;
  /** Messages that wait, of all that was loaded, by number (below 0 = its SMS leg). */
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
    line: number,
    run: RunRow,
    members: Pending[],
    span: { leader: number; members: number },
    state: { generation: number; attempts: number; held: number },
    /** `turns` null = it needs none. */
    { turns, ...time }: { notBeforeUs: number; turns: Turns | null; validUntil: number },
  ): void {
    const claim: Claim = {
      token: this.tx.seq(),
      leader: span.leader,
      spec: run.spec,
      members: members.map(({ no, to, key }) => ({ no, to, key })),
      generation: state.generation,
      attempt: state.attempts + 1,
      paced: turns !== null,
      ...time,
    };
    this.claims.push(claim);
    this.flights.push({
      claim,
      run: run.no,
      members: span.members,
      held: state.held,
      turns,
      line: line === run.line ? null : line,
    });
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
    const untried = retry.valid_until === UNTRIED;
    const start = startOf(run, bulk);
    if (untried && (start === null || run.moves < (bulk?.moves ?? 0))) {
      // The drain of its bulk brings the new sendAt to its run first.
      this.retriesWait.set(retry.leader, tx.now + DRAIN_MS);
      return 0;
    }
    const view = viewOf(run, bulk, start ?? tx.now, 1);
    const bucket = bucketOf(bulk);
    const admission = admit(untried ? view : { ...view, validUntil: retry.valid_until }, bucket, tx.now, 1, AHEAD_MS);
    if (admission.kind !== 'go') {
      // Past its validity: the sweep ends it truthfully; until then it is not claimable.
      this.retriesWait.set(retry.leader, admission.kind === 'wait' ? admission.until : tx.now + 60_000);
      return 0;
    }
    this.retriesGone.push(retry.leader);
    const end = admission.bucketNext + (members.length - 1) * admission.stepUs;
    book.charge(bulk, end);
    // Fewer members than last time are another submission; but what may have reached the carrier keeps its id.
    const other = members.length < retry.sent && members.every((member) => member.state === STATE.pending);
    const state = { ...retry, generation: retry.generation + (other ? 1 : 0) };
    const { firstAt, validUntil } = admission;
    const time = { notBeforeUs: firstAt, turns: bucket && { from: bucket.next, end }, validUntil };
    this.fly(line.no, run, members, { leader: retry.leader, members: retry.members }, state, time);
    if (untried && byTurns(run, start, bulk)) {
      book.deadline(validUntil, retry.leader, retry.leader + retry.members, run.no);
    }
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
    let taken = 0;
    if (group) {
      if (messages.length > 0) {
        const span = { leader: run.next, members: left };
        const turnEnd = firstAt + messages.length * stepUs;
        const turns = bucket && { from: bucket.next, end: turnEnd };
        this.fly(line.no, run, messages, span, fresh, { notBeforeUs: firstAt, turns, validUntil });
        taken = 1;
        book.charge(bulk, turnEnd);
      }
    } else {
      for (const message of messages) {
        const span = { leader: legOf(run.no) === 1 ? run.no : message.no, members: 1 };
        const turn = firstAt + taken * stepUs;
        const turns = bucket && { from: taken === 0 ? bucket.next : turn, end: turn + stepUs };
        this.fly(line.no, run, [message], span, fresh, { notBeforeUs: turn, turns, validUntil });
        taken++;
      }
      // Numbers without a message to send (a duplicate id, an opt-out) take no turn, and move no clock.
      if (taken > 0) book.charge(bulk, admission.bucketNext - (admission.count - taken) * stepUs);
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
    this.tx.later(SQL.fly, [
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
      list(flights.map((flight) => flight.turns?.from ?? null)),
      list(flights.map((flight) => flight.turns?.end ?? null)),
      list(flights.map((flight) => flight.line)),
    ]);
    await this.book.flush();
  }
}

/** What one round took; `served` = whether wakes wait, and when the lane may have more. */
interface Round {
  claims: Claim[];
  served: Promise<{ woken: boolean; due: number | null }>;
}

/** A claim before its last answers: they may be on their way behind the COMMIT. */
export interface Claimed {
  now: number;
  claims: Claim[];
  specs: Promise<SpecRow[]>;
  served: Round['served'];
}

/** The work of one claim: up to `limit` submissions of a lane, leased for `leaseMs`, and when the lane is due next. Never waits for another claim. */
export function createClaim(lines: Lines) {
  const lastWasRetry = new Set<number>();

  /** Loads due lines of the next accounts (`first`: after the wakes), serves them in turns, writes. */
  async function round(tx: Tx, lane: number, limit: number, leaseMs: number, first: boolean): Promise<Round | null> {
    const loaded = await lines.load(tx, lane, first, limit);
    if (loaded === null) return null;
    const bulks = byKey((loaded.bulks ?? []).map(toBulk), (bulk) => bulk.no);
    const serving = new Map<number, Serving>();
    for (const { no, account, bulk, full } of loaded.lines ?? []) {
      const row = bulk === 0 ? null : bulks.get(bulk);
      // Its bulk is being steered: left as it is for the next claim.
      if (row !== undefined) serving.set(no, { no, account, full, bulk: row, runs: [], retries: [] });
    }
    const runs: RunRow[] = [];
    const loadedTo = new Map<number, number>();
    for (const row of loaded.runs ?? []) {
      const run = toRun(row);
      runs.push(run);
      loadedTo.set(run.no, row.loaded_to);
      serving.get(run.line)?.runs.push(run);
    }
    for (const retry of loaded.retries ?? []) serving.get(retry.line)?.retries.push(retry);
    const retryRuns = byKey((loaded.retryRuns ?? []).map(toRun), (run) => run.no);
    // A run that is loaded twice (fresh, and for its retry) must be one: its cursor moves.
    for (const run of runs) if (retryRuns.has(run.no)) retryRuns.set(run.no, run);
    const pending = new Map<number, Pending>();
    for (const [place, to, key, state] of loaded.pending ?? []) {
      pending.set(place, { no: Math.abs(place), to, key, state: state as State });
    }
    const plan = new Plan(tx, { retryRuns, pending, loadedTo }, lastWasRetry);
    const byAccount = new Map<number, Serving[]>();
    for (const line of serving.values()) byAccount.set(line.account, [...(byAccount.get(line.account) ?? []), line]);
    const ring = [...byAccount.values()];
    let left = limit;
    // Who was not reached keeps its place in the ring.
    const visited = new Map<number, Serving>();
    for (let own = ring.shift(); own && left > 0; own = ring.shift()) {
      let quota = Math.min(ACCOUNT_QUANTUM, left);
      for (let line = own.shift(); line; line = own.shift()) {
        visited.set(line.no, line);
        const taken = plan.serve(line, Math.min(LINE_QUANTUM, quota));
        quota -= taken;
        left -= taken;
        if (taken > 0 && (line.runs.length > 0 || line.retries.length > 0)) own.push(line);
        if (quota <= 0) break;
      }
      if (own.length > 0) ring.push(own);
    }
    await plan.write(lane, tx.now + leaseMs);
    // What promised a turn and has no line to serve is put right, too (or another node is at work there now).
    const found = new Set((loaded.lines ?? []).map((line) => line.account));
    const empty = (loaded.accounts ?? []).filter((account) => !found.has(account));
    const served = lines.served(tx, lane, {
      lines: [...visited.values()],
      accounts: [...[...visited.values()].map((line) => line.account), ...empty],
      crowded: loaded.turns >= RING,
    });
    // Awaited where it is needed; a transaction that fails tells by itself.
    served.catch(() => undefined);
    return { claims: plan.claims, served };
  }

  return async function claim(tx: Tx, lane: number, limit: number, leaseMs: number): Promise<Claimed> {
    const { now } = tx;
    const claims: Claim[] = [];
    let served: Round['served'] = Promise.resolve({ woken: true, due: now });
    for (let rounds = 0; claims.length < limit && rounds < ROUNDS; rounds++) {
      const more = await round(tx, lane, limit - claims.length, leaseMs, rounds === 0);
      // Never waits, so it can be in no circle of those who wait: whoever works on this lane now is short.
      if (more === null) break;
      claims.push(...more.claims);
      served = more.served;
      if (claims.length >= limit) break;
      const { due } = await served;
      if (more.claims.length === 0 || due === null || due > now) break;
    }
    const specs = readSpecs(
      tx,
      claims.map((one) => one.spec),
    );
    specs.catch(() => undefined);
    return { now, claims, specs, served };
  };
}
