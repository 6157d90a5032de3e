/**
 * What is promised of bulks, kept as a customer would keep it: what was asked for and when the store said yes. From that follow,
 * by rules of its own, when a message may leave and when its validity ends over pauses and moves, how close two messages of a
 * bulk may leave while its limit changes, what must be handed out and is not, and what the figures must say.
 *
 * Promises: pauses, cancels and moves are put in the order of their commits, so that "after" has no tolerance where a claim is
 * judged, and only that of a claim's age (5 s) where a submission is. Where turns of a limit decide a validity, none is computed.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { nextOpening } from '../../src/domain/schedule.ts';
import { STATE } from '../../src/domain/status.ts';
import type { Bulk, BulkChange, Claim } from '../../src/store/contract.ts';
import { createBulkReads } from '../../src/store/sqlite/bulk.ts';
import { HOUR, MINUTE, type Scheduler, SECOND, type StoreTime } from './clockwork.ts';
import type { Fact } from './oracles.ts';

/** A limit from the commit `seq` on. */
export interface Limit {
  seq: number;
  amount: number;
  unitMs: number;
}

export interface BulkFact {
  account: number;
  no: number;
  /** The customer's own name, null = generated. */
  id: string | null;
  facts: Fact[];
  /** The order that made it. */
  order: number;
  /** Oldest first; `at` and `sendAt` epoch ms. */
  moves: { seq: number; at: number; sendAt: number }[];
  limits: Limit[];
  /** Epoch ms of the store's clock; `end` null = it holds. */
  pauses: { begin: number; end: number | null }[];
  /** Virtual ms. */
  pausedAt: number | null;
  canceledAt: number | null;
  steered: boolean;
  /** Departures under the present limit: [ms of the store's clock, turns]. */
  departures: [number, number][];
  /** Before which the next one must not leave, but for the slack, its own interval not counted. By the store's clock. */
  busyUntil: number;
  /** When the last turn that was handed out ends, without the interval that follows it. Epoch ms. */
  lastTurn: number;
}

/** A claim as the bulk's limit sees it. */
export interface PacedClaim {
  seq: number;
  limit: Limit | null;
  /** `lastTurn` of the bulk before and after it. */
  before: number;
  after: number;
}

/** How late after its turn a message may leave (product's PACE_SLACK_MS), and the rounding of instants. */
const SLACK_MS = 250 + 2;
/** A change is heeded within this. */
const HEEDED_MS = 5 * SECOND;
/** Between two looks at what a lane did not hand out. */
const LOOK_MS = 2 * SECOND;

type Fail = (oracle: string, what: string, nos?: readonly number[]) => void;

export class Bulks {
  readonly all: BulkFact[] = [];
  readonly #byId = new Map<string, BulkFact>();
  readonly #byNo = new Map<number, BulkFact>();
  readonly #byOrder = new Map<number, BulkFact>();
  readonly #scheduler: Scheduler;
  readonly #time: StoreTime;
  readonly #fail: Fail;
  /** Sweeps that found nothing more to do. */
  #sweeps = 0;
  readonly #looked = new Map<number, number>();
  #db!: DatabaseSync;
  #count!: StatementSync;
  #waits!: StatementSync;
  #again!: StatementSync;
  #tried!: StatementSync;
  #reads!: ReturnType<typeof createBulkReads>;

  constructor(scheduler: Scheduler, time: StoreTime, fail: Fail) {
    this.#scheduler = scheduler;
    this.#time = time;
    this.#fail = fail;
  }

  open(db: DatabaseSync): void {
    this.#db = db;
    this.#reads = createBulkReads(db);
    this.#count = db.prepare(
      `SELECT m.state AS state, count(*) AS n FROM spec s JOIN message m ON m.no >= s.first AND m.no < s."end"
       WHERE s.bulk = ? GROUP BY m.state`,
    );
    this.#waits = db.prepare(
      `SELECT m.state AS state, f.token AS token, r.due_at AS due, r.valid_until AS ends, u.media AS media
       FROM message m LEFT JOIN flight f ON f.leader = m.no LEFT JOIN retry r ON r.leader = m.no
       JOIN run u ON u.no = (SELECT max(no) FROM run WHERE no <= m.no) WHERE m.no = ?`,
    );
    this.#tried = db.prepare('SELECT 1 FROM attempt WHERE leader = ?');
    this.#again = db.prepare('SELECT due_at AS due FROM retry WHERE leader = ?');
  }

  /** The bulk of an accepted request; `limit` as the request asks for it. */
  accepted(
    seq: number,
    request: { account: number; no: number; id: string | null; order: number },
    limit: { amount: number; unitMs: number } | null,
  ): BulkFact {
    const { account, no, id, order } = request;
    let bulk = this.#byNo.get(no);
    if (!bulk) {
      bulk = {
        account,
        no,
        id,
        facts: [],
        order,
        moves: [],
        limits: [],
        pauses: [],
        pausedAt: null,
        canceledAt: null,
        steered: false,
        departures: [],
        busyUntil: Number.NEGATIVE_INFINITY,
        lastTurn: 0,
      };
      this.all.push(bulk);
      this.#byNo.set(no, bulk);
      if (id !== null) this.#byId.set(`${account} ${id}`, bulk);
    }
    if (!this.#byOrder.has(order)) this.#byOrder.set(order, bulk);
    if (bulk.canceledAt !== null) this.#fail('a cancelled bulk takes nothing more', `bulk ${no} was joined`);
    if (limit) this.#limit(seq, bulk, limit.amount, limit.unitMs);
    return bulk;
  }

  /** The number of an order's bulk; null = not accepted (yet). */
  ofOrder(order: number): number | null {
    return this.#byOrder.get(order)?.no ?? null;
  }

  find(account: number, name: { no: number } | { id: string }): BulkFact | undefined {
    return 'no' in name ? this.#byNo.get(name.no) : this.#byId.get(`${account} ${name.id}`);
  }

  /** Changes that the store has taken. */
  steered(seq: number, bulk: BulkFact, changes: readonly BulkChange[]): void {
    const { now } = this.#scheduler;
    const storeNow = Math.floor(this.#time.now);
    bulk.steered = true;
    for (const fact of bulk.facts) fact.dueSince = null;
    for (const change of changes) {
      switch (change.kind) {
        case 'pause':
          if (bulk.pausedAt !== null) break;
          bulk.pausedAt = now;
          bulk.pauses.push({ begin: storeNow, end: null });
          break;
        case 'resume': {
          const pause = bulk.pauses.at(-1);
          if (bulk.pausedAt === null || !pause) break;
          bulk.pausedAt = null;
          pause.end = storeNow;
          bulk.lastTurn = Math.max(bulk.lastTurn, storeNow);
          break;
        }
        case 'cancel':
          bulk.canceledAt ??= now;
          break;
        case 'reschedule':
          bulk.moves.push({ seq, at: storeNow, sendAt: Math.max(change.sendAt, storeNow) });
          break;
        case 'limit':
          this.#limit(seq, bulk, change.speed.amount, change.speed.timeUnit === 'HOUR' ? HOUR : MINUTE);
      }
    }
  }

  #limit(seq: number, bulk: BulkFact, amount: number, unitMs: number): void {
    const last = bulk.limits.at(-1);
    if (last?.amount === amount && last.unitMs === unitMs) return;
    // What left without a limit is not counted.
    if (!last) bulk.lastTurn = Math.max(bulk.lastTurn, this.#time.now);
    bulk.limits.push({ seq, amount, unitMs });
    bulk.departures = [];
    bulk.steered = true;
    for (const fact of bulk.facts) fact.dueSince = null;
  }

  // ------------------------------------------------------------------------------------------------------------- clocks

  /**
   * The instant from which nothing but turns and carriers is in the way of a message: its own sendAt, or the bulk's as it was
   * moved last since it was accepted, in its window, behind the pause that covers it. Null = a pause holds it.
   */
  opens(fact: Fact): number | null {
    return this.#start(fact, fact.bulk.moves.at(-1) ?? null);
  }

  /** Where its validity began: what has left keeps its clock. Null = it has not begun, or turns of a limit decide. */
  startOf(fact: Fact): number | null {
    return fact.bulk.limits.length > 0 ? null : this.earliest(fact);
  }

  /** Likewise, where nothing is known of turns: it began no earlier. */
  earliest(fact: Fact): number | null {
    const { left } = fact;
    const last = fact.events.at(-1);
    const ended = last?.final ? last.at : Number.POSITIVE_INFINITY;
    return this.#start(
      fact,
      fact.bulk.moves.findLast((move) => move.at < ended && (left === null || move.seq < left)) ?? null,
    );
  }

  #start(fact: Fact, move: { seq: number; sendAt: number } | null): number | null {
    const moved = move !== null && move.seq > fact.seq ? move : null;
    let start = nextOpening(fact.window, moved?.sendAt ?? Math.max(fact.acceptedAt, fact.sendAt ?? 0));
    for (const { begin, end } of fact.bulk.pauses) {
      if (begin >= start) continue;
      if (end === null) return null;
      if (start < end) start = nextOpening(fact.window, end);
    }
    return start;
  }

  /** Whether a pause, a cancel or a moved sendAt stood in the way of a message at some instant of [from, until), epoch ms. */
  holds(fact: Fact, from: number, until: number): boolean {
    const { pauses, moves, canceledAt } = fact.bulk;
    if (canceledAt !== null && this.#time.at(canceledAt) < until) return true;
    if (pauses.some(({ begin, end }) => begin < until && (end === null || from < end))) return true;
    return moves.some(({ seq, at, sendAt }) => seq > fact.seq && at < until && from < sendAt);
  }

  // ------------------------------------------------------------------------------------------------------ what may leave

  /** A claim has been committed. */
  claimed(seq: number, facts: readonly Fact[], claim: Claim): PacedClaim {
    const bulk = facts[0]?.bulk;
    const nos = facts.map((fact) => fact.no);
    if (bulk?.pausedAt != null) this.#fail('a paused bulk stands still', 'it was claimed', nos);
    if (bulk?.canceledAt != null) this.#fail('a cancelled bulk sends no more', 'it was claimed', nos);
    const limit = bulk?.limits.at(-1) ?? null;
    const before = bulk?.lastTurn ?? 0;
    for (const fact of facts) {
      fact.left ??= seq;
      fact.turn ??= claim.notBeforeUs / 1000;
      fact.again = null;
      fact.dueSince = null;
    }
    if (bulk && limit) {
      const intervalMs = limit.unitMs / limit.amount;
      bulk.lastTurn = Math.max(bulk.lastTurn, claim.notBeforeUs / 1000 + (claim.members.length - 1) * intervalMs);
    }
    return { seq, limit, before, after: bulk?.lastTurn ?? 0 };
  }

  /** A claim was put back unused: its turns are the bulk's again, if no later one was taken; what never left has no clock. */
  putBack(facts: readonly Fact[], claim: PacedClaim): void {
    const bulk = facts[0]?.bulk;
    if (!bulk) return;
    if (claim.limit && claim.limit === bulk.limits.at(-1) && bulk.lastTurn === claim.after) {
      bulk.lastTurn = Math.max(claim.before, bulk.pauses.at(-1)?.end ?? 0);
    }
    for (const fact of facts) {
      // A claim that was lost with its process may have been used, for all that the store can know.
      if (fact.handovers.length > 0 || this.#tried.get(fact.leader)) continue;
      fact.left = null;
      fact.turn = null;
    }
  }

  /** A claim has come back: when its message may be tried again, if at all. */
  back(fact: Fact): void {
    fact.again = (this.#again.get(fact.leader) as { due: number } | undefined)?.due ?? null;
  }

  /** A submission of a bulk leaves. */
  left(members: readonly Fact[], claim: PacedClaim, nos: readonly number[], storeNow: number): void {
    const bulk = members[0]?.bulk;
    if (!bulk) return;
    const { now } = this.#scheduler;
    for (const [what, at] of [
      ['a paused bulk stands still', bulk.pausedAt],
      ['a cancelled bulk sends no more', bulk.canceledAt],
    ] as const) {
      if (at !== null && now > at + HEEDED_MS) this.#fail(what, `${Math.round(now - at)} ms after`, nos);
    }
    // What was claimed before the last move may still go, for as long as a claim lives.
    const moved = bulk.moves.findLast((move) => move.seq < claim.seq || storeNow > move.at + HEEDED_MS);
    if (moved && members.some((fact) => fact.seq < moved.seq) && storeNow < moved.sendAt) {
      this.#fail('never before a moved sendAt (G8)', `${Math.round(moved.sendAt - storeNow)} ms early`, nos);
    }
    if (claim.limit) this.#pace(bulk, claim.limit, members.length, nos, storeNow);
  }

  #pace(bulk: BulkFact, limit: Limit, members: number, nos: readonly number[], now: number): void {
    const intervalMs = limit.unitMs / limit.amount;
    // Whatever the limits were meanwhile: each gap is at least the interval of the turn that ends it.
    const early = bulk.busyUntil + intervalMs - now;
    if (early > SLACK_MS) {
      const what = `bulk ${bulk.no}: ${Math.round(early)} ms early at ${limit.amount} in ${limit.unitMs} ms`;
      this.#fail('never faster than the limit (G8)', what, nos);
    }
    bulk.busyUntil = Math.max(bulk.busyUntil + intervalMs, now) + (members - 1) * intervalMs;
    // Under one limit the promise is exact: no sliding unit has more than its amount.
    if (limit !== bulk.limits.at(-1)) return;
    bulk.departures.push([now, members]);
    let turns = 0;
    for (let n = bulk.departures.length - 1; n >= 0; n--) {
      const [at, count] = bulk.departures[n] as [number, number];
      if (at <= now - limit.unitMs) break;
      // Members of a group leave together; their turns count for what comes after them.
      turns += n === bulk.departures.length - 1 ? 1 : count;
    }
    if (turns > limit.amount && bulk.departures.length > 1) {
      const list = bulk.departures.slice(-limit.amount - 1).map(([at, n]) => `${n} at ${(at / SECOND).toFixed(3)}`);
      const what = `bulk ${bulk.no}: ${turns} in ${limit.unitMs} ms, ${limit.amount} are allowed: ${list.join(', ')}`;
      this.#fail('never faster than the limit (G8)', what, nos);
    }
  }

  // ----------------------------------------------------------------------------------------------------- what must leave

  /** A sweep has been committed that left nothing to do. */
  swept(): void {
    this.#sweeps++;
  }

  /** A lane has been given less than it asked for: nothing that a steering made free may have been kept back for long. */
  keptBack(lane: number): void {
    const { now } = this.#scheduler;
    const storeNow = this.#time.now;
    if (now - (this.#looked.get(lane) ?? Number.NEGATIVE_INFINITY) < LOOK_MS) return;
    this.#looked.set(lane, now);
    for (const bulk of this.all) {
      if (!bulk.steered || bulk.canceledAt !== null || bulk.pausedAt !== null) continue;
      const limit = bulk.limits.at(-1);
      const turn = limit ? bulk.lastTurn + (limit.unitMs + 250) / limit.amount : 0;
      for (const fact of bulk.facts) {
        if (fact.lane !== lane || fact.leader !== fact.no || fact.refused !== 0 || fact.events.at(-1)?.final) continue;
        if (storeNow <= turn || !this.#free(fact, storeNow)) {
          fact.dueSince = null;
          continue;
        }
        fact.dueSince ??= { at: now, sweeps: this.#sweeps };
        const { at, sweeps } = fact.dueSince;
        if (now - at >= HEEDED_MS && this.#sweeps - sweeps >= 2) {
          const what = `kept back for ${Math.round((now - at) / SECOND)} s, though its bulk lets it go`;
          this.#fail('a change is heeded within 5 s', what, [fact.no]);
          return;
        }
      }
    }
  }

  #free(fact: Fact, now: number): boolean {
    const opens = this.opens(fact);
    if (opens === null || now < opens || nextOpening(fact.window, now) > now) return false;
    const start = this.startOf(fact);
    if (start !== null && now >= start + fact.validityMs) return false;
    const row = this.#waits.get(fact.no) as
      | { state: number; token: number | null; due: number | null; ends: number | null; media: number }
      | undefined;
    if (!row || row.token !== null || row.state >= STATE.delivered) return false;
    // No end of its own: never tried, its clock is as the others'.
    if (row.due !== null) {
      const over = row.ends !== null && row.ends !== 0 && row.ends <= now;
      return (fact.again ?? row.due) <= now && (fact.left === null || !over);
    }
    return fact.left === null && row.state === STATE.pending && row.media === 0;
  }

  // ------------------------------------------------------------------------------------------------------------- figures

  /** Asked of the store as it is now: the figures of all bulks against a count of their messages. */
  watch(): void {
    for (const bulk of this.all) {
      const seen = this.#reads.get(bulk.account, { no: bulk.no }, Math.floor(this.#time.now));
      if (seen) this.seen(bulk, seen);
      else this.#fail('the figures of a bulk are true', `bulk ${bulk.no} is not there`);
    }
  }

  /** A bulk as somebody was shown it just now. */
  seen(bulk: BulkFact, { progress, status }: Bulk): void {
    const nos = bulk.facts.map((fact) => fact.no);
    const states = new Map<number, number>();
    for (const { state, n } of this.#count.all(bulk.no) as { state: number; n: number }[]) states.set(state, n);
    const of = (...wanted: number[]): number => wanted.reduce((sum, state) => sum + (states.get(state) ?? 0), 0);
    const counted = {
      accepted: bulk.facts.length,
      waiting: of(STATE.pending),
      sent: of(STATE.submitted, STATE.uncertain),
      delivered: of(STATE.delivered),
      failed: of(STATE.undeliverable, STATE.expired, STATE.rejected),
    };
    const said = { ...counted, ...progress };
    if (JSON.stringify(said) !== JSON.stringify(counted)) {
      const what = `bulk ${bulk.no}: ${JSON.stringify(said)}, counted ${JSON.stringify(counted)}`;
      this.#fail('the figures of a bulk are true', what, nos);
    }
    if (said.waiting + said.sent + said.delivered + said.failed !== said.accepted) {
      this.#fail('the figures of a bulk are true', `bulk ${bulk.no}: ${JSON.stringify(said)} do not add up`, nos);
    }
    const open = bulk.facts.some((fact) => fact.events.at(-1)?.final !== true);
    const wanted =
      bulk.canceledAt !== null
        ? ['CANCELED']
        : bulk.pausedAt !== null
          ? ['PAUSED']
          : open
            ? ['PENDING', 'PROCESSING']
            : ['FINISHED'];
    if (!wanted.includes(status)) {
      this.#fail('the status of a bulk is true', `bulk ${bulk.no} is ${status}, not ${wanted.join(' or ')}`, nos);
    }
  }

  /** Whether a steering has still to be brought home. */
  drains(): boolean {
    const { n } = this.#db
      .prepare('SELECT (SELECT count(*) FROM bulk WHERE drain IS NOT NULL) + (SELECT count(*) FROM recall) AS n')
      .get() as { n: number };
    return n > 0;
  }
}
