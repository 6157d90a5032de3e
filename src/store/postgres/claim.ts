/**
 * claim: the leased right to submit. Turning over accounts, then lines, then runs; fresh messages and retries alternate.
 * Rows are locked SKIP LOCKED, so a claim never waits for another node's (and cannot deadlock); the pure `admit` decides
 * here, inside the transaction, for what was loaded; cursors, leases, tokens and the bulk's rate bucket are written in one
 * statement. A fresh message costs one flight row; a run of ten thousand costs one cursor. Only messages of which every change is told
 * are locked themselves, last of all, for the event that they are claimed.
 *
 * Several nodes may claim one lane: who comes while another is at work there is given nothing, due at once. Lines are locked
 * all the same, for those who steer and sweep.
 */

import { type Leg, legOf } from '../../domain/failover.ts';
import type { SpecRow } from '../../domain/rows.ts';
import { type Admission, admit } from '../../domain/schedule.ts';
import { STATE, type State } from '../../domain/status.ts';
import { bucketOf, byTurns, closing, earlyOf, startOf, type Turns, viewOf } from '../clock.ts';
import type { Claim } from '../contract.ts';
import { ACCOUNT_QUANTUM, AHEAD_MS, DRAIN_MS, LINE_QUANTUM, type RetryRow, UNTRIED } from '../waiting.ts';
import type { createEvents } from './events.ts';
import type { Screen } from './inbound.ts';
import { RING } from './inside.ts';
import type { Lines } from './lines.ts';
import { readSpecs } from './rows.ts';
import { type BulkRow, RunBook, type RunRow, toBulk, toRun } from './runs.ts';
import { byKey, list, sql, type Tx } from './tx.ts';

/** Looks for more in one claim. */
const ROUNDS = 6;
/** Submissions that a look after one that gave nothing is made for, at least: it looks at as many lines as they may need. */
const WIDE = 16;

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
  seq: number;
  /** All that is due of it was loaded. */
  whole: boolean;
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

/** With what leaves before `start` goes the time that its carrier keeps. */
function earliest(earlyMs: number, start: number | null, now: number): { earliestAt?: number } {
  return earlyMs > 0 && start !== null && start > now ? { earliestAt: start } : {};
}

/** One round's decisions, written together. */
class Plan {
  readonly claims: Claim[] = [];
  /** Messages whose claim is to be told, if their spec asks for it. */
  readonly told: number[] = [];
  private readonly tx: Tx;
  private readonly book: RunBook;
  /** Runs of retries, by number. */
  private readonly retryRuns: Map<number, RunRow>;
  /** Messages that wait, of all that was loaded, by number (below 0 = its SMS leg). */
  private readonly pending: Map<number, Pending>;
  /** Up to which number of a run messages were looked for. */
  private readonly loadedTo: Map<number, number>;
  /** Of these who wants none, by number; and those that this plan ends for it. */
  private readonly unwanted: ReadonlyMap<number, 10 | 14>;
  readonly ended = new Map<number, 10 | 14>();
  /** Lines whose last served submission was a retry; lost at a restart, which costs one turn. */
  private readonly lastWasRetry: Set<number>;
  private readonly flights: Flight[] = [];
  private readonly retriesGone: number[] = [];
  private readonly retriesWait = new Map<number, number>();

  constructor(
    tx: Tx,
    loaded: {
      retryRuns: Map<number, RunRow>;
      pending: Map<number, Pending>;
      loadedTo: Map<number, number>;
      unwanted: ReadonlyMap<number, 10 | 14>;
    },
    lastWasRetry: Set<number>,
  ) {
    this.tx = tx;
    this.book = new RunBook(tx);
    this.retryRuns = loaded.retryRuns;
    this.pending = loaded.pending;
    this.loadedTo = loaded.loadedTo;
    this.unwanted = loaded.unwanted;
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

  /** Of those that may leave now the ones that are wanted; the others end as rejected and take no turn. */
  private wanted(members: Pending[]): Pending[] {
    if (this.unwanted.size === 0) return members;
    return members.filter(({ no, state }) => {
      const status = state === STATE.pending ? this.unwanted.get(no) : undefined;
      if (status !== undefined) this.ended.set(no, status);
      return status === undefined;
    });
  }

  private fly(
    line: number,
    run: RunRow,
    members: Pending[],
    span: { leader: number; members: number },
    state: { generation: number; attempts: number; held: number },
    /** `turns` null = it needs none. */
    { turns, ...time }: { notBeforeUs: number; turns: Turns | null; validUntil: number; earliestAt?: number },
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
      ...closing(run.window, time.notBeforeUs),
    };
    this.claims.push(claim);
    if (run.intermediate !== false) this.told.push(...members.map(({ no }) => no));
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
    const waiting = this.waiting(retry.leader, retry.leader + retry.members);
    if (!run || waiting.length === 0) {
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
    // Handed on to another carrier: that one does not keep the time.
    const earlyMs = line.no === run.line ? earlyOf(run, start, bulk) : 0;
    const view = viewOf(run, bulk, start ?? tx.now, 1, earlyMs);
    const bucket = bucketOf(bulk);
    const admission = admit(untried ? view : { ...view, validUntil: retry.valid_until }, bucket, tx.now, 1, AHEAD_MS);
    if (admission.kind !== 'go') {
      // Past its validity: the sweep ends it truthfully; until then it is not claimable.
      this.retriesWait.set(retry.leader, admission.kind === 'wait' ? admission.until : tx.now + 60_000);
      return 0;
    }
    this.retriesGone.push(retry.leader);
    const members = this.wanted(waiting);
    if (members.length === 0) return 0;
    const end = admission.bucketNext + (members.length - 1) * admission.stepUs;
    book.charge(bulk, end);
    // Fewer members than last time are another submission; but what may have reached the carrier keeps its id.
    const other = members.length < retry.sent && members.every((member) => member.state === STATE.pending);
    const state = { ...retry, generation: retry.generation + (other ? 1 : 0) };
    const { firstAt, validUntil } = admission;
    const turns = bucket && { from: bucket.next, end };
    const time = { notBeforeUs: firstAt, turns, validUntil, ...earliest(earlyMs, start, tx.now) };
    this.fly(line.no, run, members, { leader: retry.leader, members: retry.members }, state, time);
    if (untried && (time.earliestAt !== undefined || byTurns(run, start, bulk))) {
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
    if (known <= 0) {
      line.whole = false;
      return 0;
    }
    const earlyMs = earlyOf(run, start, bulk);
    const view = viewOf(run, bulk, start, group ? 1 : left, earlyMs);
    const admission = admit(view, bucket, tx.now, group ? 1 : Math.min(quota, left, known), AHEAD_MS);
    if (admission.kind === 'expired') {
      if (byTurns(run, start, bulk)) this.pass(run, bulk, admission, run.next + known);
      // All of them: the sweep's look at the run is due.
      else book.move(run, run.next, null);
      return 0;
    }
    if (admission.kind === 'wait') {
      book.move(run, run.next, admission.until);
      return 0;
    }
    const end = run.next + (group ? left : admission.count);
    const messages = this.wanted(this.waiting(run.next, end));
    const fresh = { generation: 0, attempts: 0, held: 0 };
    const { firstAt, stepUs, validUntil } = admission;
    const ends = { validUntil, ...earliest(earlyMs, start, tx.now) };
    let taken = 0;
    if (group) {
      if (messages.length > 0) {
        const span = { leader: run.next, members: left };
        const turnEnd = firstAt + messages.length * stepUs;
        const turns = bucket && { from: bucket.next, end: turnEnd };
        this.fly(line.no, run, messages, span, fresh, { notBeforeUs: firstAt, turns, ...ends });
        taken = 1;
        book.charge(bulk, turnEnd);
      }
    } else {
      for (const message of messages) {
        const span = { leader: legOf(run.no) === 1 ? run.no : message.no, members: 1 };
        const turn = firstAt + taken * stepUs;
        const turns = bucket && { from: taken === 0 ? bucket.next : turn, end: turn + stepUs };
        this.fly(line.no, run, [message], span, fresh, { notBeforeUs: turn, turns, ...ends });
        taken++;
      }
      // Numbers without a message to send (a duplicate id, an opt-out) take no turn, and move no clock.
      if (taken > 0) book.charge(bulk, admission.bucketNext - (admission.count - taken) * stepUs);
    }
    // What leaves early has an end of its own, too: whatever its bulk's limit or a pause makes of the rest.
    if (ends.earliestAt !== undefined || byTurns(run, start, bulk)) book.deadline(validUntil, run.next, end, run.no);
    book.move(run, end, tx.now);
    if (end < run.end) line.runs.push(run);
    return taken;
  }

  /** Turns of the run that passed unused, of those messages that were loaded; what is left of them is for the next round. */
  private pass(
    run: RunRow,
    bulk: BulkRow | null,
    admission: Extract<Admission, { kind: 'expired' }>,
    loadedTo: number,
  ): void {
    const most = run.members > 0 ? run.end - run.next : admission.count;
    const lost = this.waiting(run.next, loadedTo).slice(0, most);
    const last = lost.length < most || run.no < 0 ? loadedTo : (lost.at(-1) as Pending).no + 1;
    this.book.passed(run, bulk, last, { admission, turns: lost.length });
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
  told: number[];
  /** Something was there to be served or put right, so another round finds something else. */
  moved: boolean;
  /** Null = not looked: it got all it asked for. */
  served: Promise<{ woken: boolean; due: number | null }> | null;
}

/** A claim before its last answers: they may be on their way behind the COMMIT. */
export interface Claimed {
  now: number;
  claims: Claim[];
  specs: Promise<SpecRow[]>;
  /** Null = not known: something may be due now. */
  served: Round['served'];
}

/** Messages that may be claimed, with their specs. */
function specsOf(
  pending: ReadonlyMap<number, Pending>,
  runs: readonly RunRow[],
  retries: readonly RetryRow[],
  retryRuns: ReadonlyMap<number, RunRow>,
): { no: number; to: string; spec: number; leg: Leg }[] {
  const spans = [
    ...runs.map(({ next, end, spec }) => ({ first: next, end, spec })),
    ...retries.flatMap(({ leader, members, run }) => {
      const spec = retryRuns.get(run)?.spec;
      return spec === undefined ? [] : [{ first: leader, end: leader + members, spec }];
    }),
  ].sort((a, b) => a.first - b.first);
  const found: { no: number; to: string; spec: number; leg: Leg }[] = [];
  for (const [place, { no, to }] of pending) {
    const of = spans.findLast(({ first, end }) => first <= place && place < end);
    if (of) found.push({ no, to, spec: of.spec, leg: legOf(place) });
  }
  return found;
}

/** The work of one claim: up to `limit` submissions of a lane, leased for `leaseMs`, and when the lane is due next. Never waits for another claim. */
export function createClaim(lines: Lines, screen: Screen, foresee: ReturnType<typeof createEvents>['foresee']) {
  const lastWasRetry = new Set<number>();

  /** Loads due lines of the next accounts (`first`: after the wakes), serves them in turns, writes. */
  async function round(
    tx: Tx,
    lane: number,
    limit: number,
    leaseMs: number,
    look: { first: boolean; wide: boolean },
    bulksOf: Map<number, number>,
  ): Promise<Round | null> {
    const loaded = await lines.load(tx, lane, look.first, look.wide ? Math.max(limit, WIDE) : limit);
    if (loaded === null) return null;
    const ours = (loaded.bulks ?? []).filter(({ no }) => (bulksOf.get(no) ?? lane) === lane);
    for (const { no } of ours) bulksOf.set(no, lane);
    const bulks = byKey(ours.map(toBulk), (bulk) => bulk.no);
    const serving = new Map<number, Serving>();
    for (const { no, account, bulk, full, seq } of loaded.lines ?? []) {
      const row = bulk === 0 ? null : bulks.get(bulk);
      // Its bulk is being steered, or served on another lane: left as it is for the next claim.
      if (row !== undefined) {
        serving.set(no, { no, account, full, seq, whole: true, bulk: row, runs: [], retries: [] });
      }
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
    const depth = loaded.depth ?? 0;
    for (const line of serving.values()) line.whole = line.runs.length < depth && line.retries.length < depth;
    const retryRuns = byKey((loaded.retryRuns ?? []).map(toRun), (run) => run.no);
    // A run that is loaded twice (fresh, and for its retry) must be one: its cursor moves.
    for (const run of runs) if (retryRuns.has(run.no)) retryRuns.set(run.no, run);
    const pending = new Map<number, Pending>();
    for (const [place, to, key, state] of loaded.pending ?? []) {
      pending.set(place, { no: Math.abs(place), to, key, state: state as State });
    }
    const unwanted = await screen.find(tx, pending.size, () => specsOf(pending, runs, loaded.retries ?? [], retryRuns));
    const plan = new Plan(tx, { retryRuns, pending, loadedTo, unwanted }, lastWasRetry);
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
    await screen.end(tx, plan.ended);
    // What promised a turn and has no line to serve is put right, too (or another node is at work there now).
    const found = new Set((loaded.lines ?? []).map((line) => line.account));
    const empty = (loaded.accounts ?? []).filter((account) => !found.has(account));
    const rest = {
      lines: [...visited.values()].map(({ whole, ...line }) => ({
        ...line,
        spent: whole && line.runs.length === 0 && line.retries.length === 0,
      })),
      accounts: [...[...visited.values()].map((line) => line.account), ...empty],
      crowded: loaded.turns >= RING,
    };
    const moved = visited.size > 0 || empty.length > 0;
    // All that was asked for: there may be more, and what there is now is told after the answer.
    if (left === 0 && lines.owe(tx, lane, rest)) return { claims: plan.claims, told: plan.told, moved, served: null };
    const served = lines.served(tx, lane, rest);
    // Awaited where it is needed; a transaction that fails tells by itself.
    served.catch(() => undefined);
    return { claims: plan.claims, told: plan.told, moved, served };
  }

  /**
   * `bulksOf`: bulks that this transaction has for claims, with their lanes; those of several lanes may go on side by side. `told`: where
   * the messages are put whose claims are to be told (`tellClaimed`) when all lanes have been served.
   */
  async function claim(
    tx: Tx,
    lane: number,
    limit: number,
    leaseMs: number,
    bulksOf: Map<number, number>,
    told: number[],
  ): Promise<Claimed> {
    const claims: Claim[] = [];
    let served: Round['served'] = null;
    for (let rounds = 0; claims.length < limit && rounds < ROUNDS; rounds++) {
      const look = { first: rounds === 0, wide: rounds > 0 && claims.length === 0 };
      const more = await round(tx, lane, limit - claims.length, leaseMs, look, bulksOf);
      // Never waits, so it can be in no circle of those who wait: whoever works on this lane now is short.
      if (more === null) break;
      claims.push(...more.claims);
      told.push(...more.told);
      served = more.served;
      if (claims.length >= limit) break;
      const { due } = (await served) ?? { due: null };
      if (!more.moved || due === null || due > tx.now) break;
    }
    const specs = readSpecs(
      tx,
      claims.map((one) => one.spec),
    );
    specs.catch(() => undefined);
    foresee(
      tx,
      claims.map((one) => one.spec),
    );
    return { now: tx.now, claims, specs, served };
  }

  return claim;
}
