/**
 * The heart: one loop per lane. Claim no more than there are free slots, submit each under a time-out shorter than its
 * lease, settle, claim again. Rates, the pause a carrier asks for and the breaker belong to the lane, not to a message.
 *
 * Promises: at most one submission of a message in flight: what has become old or late since its claim is put back, not
 * sent (G7, G8). A rate holds in every sliding second. A known outcome is not lost while the store is away: its settle is
 * tried again. A stop takes no new claims, puts back what has not left, waits for what has (G14). Under load a claim takes
 * many slots: at least half of them, or what has become free in CLAIM_GAP_MS.
 *
 * Fails: a store that is away is asked again every second; an exception from a carrier is a bug, logged and settled as
 * unknown; a carrier that does not come back after its time-out likewise, so that it cannot keep a slot.
 */
import type { Carrier } from '../carriers/carrier.ts';
import type { Ids } from '../domain/ids.ts';
import { carrierRetryDelay } from '../domain/retry.ts';
import type { SpecRow } from '../domain/rows.ts';
import { PACE_SLACK_MS } from '../domain/schedule.ts';
import type { Outcome } from '../domain/submission.ts';
import type { Clock, Env, Timer } from '../env.ts';
import { type Claim, type Store, StoreUnavailable } from '../store/contract.ts';
import { createPreparer, type Prepared, type PrepareResult, submissionOf } from './prepare.ts';
import { StoreClock } from './store-clock.ts';

/** What a lane is made of. */
export interface LaneOptions {
  /** The store's number of the lane. */
  no: number;
  carrier: Carrier;
  /** Submissions in flight at most. */
  concurrency: number;
  /** Submissions a second at most, also below 1; 0 = as fast as the carrier answers. */
  ratePerSecond: number;
  timeoutMs: number;
}

/** What main gives to dispatch. */
export interface DispatchOptions {
  store: Store;
  /** This node's name among those that share the lanes. */
  node: string;
  lanes: LaneOptions[];
  env: Env;
  /** From `Store.identity`. */
  install: string;
  /** Names messages in the log. */
  ids: Ids;
}

/** Dispatch as main sees it. */
export interface Dispatch {
  start(): void;
  /** Something may be waiting. */
  wake(): void;
  /**
   * No new claims; what has not left is put back. Resolves when nothing is open; what is still out after `limitMs` is
   * broken off and settled as unknown, which takes at most STOP_GRACE_MS more.
   */
  stop(limitMs: number): Promise<void>;
  /** Figures for the metrics page, by carrier. `inFlight`: slots taken; `blocked`: pause or open breaker. */
  counters(): { lane: string; inFlight: number; outcomes: Record<string, number>; blocked: boolean }[];
}

/** A lease outlives the carrier's time-out by this much (G7). */
const LEASE_MARGIN_MS = 15_000;
/** A claim older than this is put back: its window may have closed and its lease must outlast the submission. */
const CLAIM_AGE_MS = 5_000;
/** After its time-out a carrier has this long to say what it knows. */
const CARRIER_GRACE_MS = 2_000;
/** Failures in a row after which a lane pauses and then sends one probe at a time. */
const BREAKER_FAILURES = 20;
const PROBE_MS = 5_000;
/** Turns of a lane's own rate are claimed this long before they come: less than the slack of a bulk's speed limit. */
const PACE_AHEAD_MS = 200;
/** While a lane is busy, claims are at least this far apart, unless half of its slots are free. */
const CLAIM_GAP_MS = 5;
/** An idle lane asks this often: hints are no promise, and work that falls due later gives none. */
const POLL_MS = 1_000;
/** How soon to ask again when the store says "due" and gives nothing, doubled up to POLL_MS. */
const EMPTY_MS = 5;
/** Pause between two tries of a settle or release that the store did not take. */
const STORE_RETRY_MS = 1_000;
/** A settle is tried until this long after its lease: late, it still teaches the carrier's id, and no sweep may have run. */
const SETTLE_GRACE_MS = 10 * 60_000;
const STOP_GRACE_MS = 2_000;
/** A lane is held this long without a beat: a dead node's lanes are taken over after it, and its claims end by their leases. */
const HOLD_MS = 30_000;
const BEAT_MS = 5_000;
const SWEEP_MS = 1_000;
/** Messages of a submission that a log line names. */
const NAMED = 10;
/** Steps of one round of the sweep. */
const SWEEP_STEPS = 1_000;

/** Makes the loops; nothing happens before `start`. */
export function createDispatch(options: DispatchOptions): Dispatch {
  const { env, store } = options;
  const prepare = createPreparer((hash) => store.content(hash));
  const lanes = options.lanes.map((lane) => new Lane(lane, options, prepare));
  let stopping = false;
  let sweeping: Promise<void> | null = null;
  let timer: Timer | null = null;
  let beating: Promise<void> | null = null;
  let beatTimer: Timer | null = null;

  async function beat(): Promise<void> {
    const asked = env.clock.monotonic();
    try {
      const held = await store.laneLease(
        options.node,
        lanes.map((lane) => lane.no),
        HOLD_MS,
      );
      for (const lane of lanes) lane.hold(held.includes(lane.no) ? asked + HOLD_MS : asked);
    } catch (error) {
      env.log.warn({ err: error }, 'beat failed, will try again');
    }
    if (stopping) return;
    beatTimer = env.clock.setTimeout(() => {
      beating = beat();
    }, BEAT_MS);
  }

  /** Others need not wait for the end of our leases. */
  async function leave(): Promise<void> {
    beatTimer?.cancel();
    await beating;
    try {
      await store.laneLease(options.node, [], 0);
    } catch (error) {
      env.log.warn({ err: error }, 'could not give up the lanes; others take them when they run out');
    }
  }

  async function sweep(): Promise<void> {
    try {
      // Outcomes that wait for the store to come back go first, or the sweep would take their messages for lost.
      const steps = lanes.some((lane) => lane.owes()) ? 0 : SWEEP_STEPS;
      for (let step = 0; step < steps && !stopping; step++) if (!(await store.sweep())) break;
    } catch (error) {
      env.log.warn({ err: error }, 'sweep failed, will try again');
    }
    if (stopping) return;
    timer = env.clock.setTimeout(() => {
      sweeping = sweep();
    }, SWEEP_MS);
  }

  return {
    start() {
      store.onHint((hint) => {
        if (hint.kind === 'lane') for (const lane of lanes) lane.wake();
      });
      sweeping = sweep();
      beating = beat();
    },
    wake() {
      for (const lane of lanes) lane.wake();
    },
    async stop(limitMs) {
      stopping = true;
      timer?.cancel();
      await Promise.all([sweeping, ...lanes.map((lane) => lane.stop(limitMs))]);
      await leave();
    },
    counters: () => byCarrier(lanes.map((lane) => lane.counters())),
  };
}

/** A carrier's lanes are one to those who look from outside; it is blocked when one of them is. */
function byCarrier(lanes: ReturnType<Dispatch['counters']>): ReturnType<Dispatch['counters']> {
  const sums = new Map<string, (typeof lanes)[number]>();
  for (const lane of lanes) {
    const sum = sums.get(lane.lane);
    if (!sum) {
      sums.set(lane.lane, lane);
      continue;
    }
    sum.inFlight += lane.inFlight;
    sum.blocked ||= lane.blocked;
    for (const [kind, count] of Object.entries(lane.outcomes)) sum.outcomes[kind] = (sum.outcomes[kind] ?? 0) + count;
  }
  return [...sums.values()];
}

/** A claim on its way through the lane. */
interface Flight {
  claim: Claim;
  spec: SpecRow | undefined;
  /** Ours, when it was asked for. */
  askedAt: number;
}

interface Attempt {
  outcome: Outcome;
  /** By the store's clock. */
  startedAt: number;
  tookMs: number;
}

class Lane {
  readonly no: number;
  private readonly options: LaneOptions;
  private readonly store: Store;
  private readonly env: Env;
  private readonly clock: Clock;
  private readonly install: string;
  private readonly ids: Ids;
  private readonly prepare: (spec: SpecRow) => Promise<PrepareResult>;
  private readonly leaseMs: number;
  private readonly pace: Pace | null;
  private readonly storeClock = new StoreClock();
  private readonly outcomes: Record<string, number> = {};
  /** Aborted by a stop: those who wait for their turn go home. */
  private readonly halt = new AbortController();
  /** Submissions that are out, to be broken off when a stop has waited long enough. */
  private readonly out = new Set<AbortController>();
  /** Slots taken: claimed and not yet answered by the carrier. */
  private inFlight = 0;
  /** Claimed and not yet settled. */
  private open = 0;
  /** Claimed and without a turn of the lane's rate yet. */
  private turnless = 0;
  /** Outcomes and returns that a store which is away has not taken yet. */
  private owed = 0;
  /** The store may have work for this lane. */
  private backlog = true;
  /** The store said so itself, with the last claim. */
  private more = false;
  private claiming = false;
  /** This node serves the lane until then (of the monotonic clock). */
  private heldUntil = Number.NEGATIVE_INFINITY;
  /** A hint that came while a claim was on its way: that claim may not have seen what it told of. */
  private woken = false;
  private stopping = false;
  private lastClaim = Number.NEGATIVE_INFINITY;
  private emptyMs = EMPTY_MS;
  private blockedUntil = 0;
  private failures = 0;
  /** When the breaker opened last: what was sent before says nothing of how the carrier is now. */
  private openedAt = Number.NEGATIVE_INFINITY;
  private timer: Timer | null = null;
  private timerAt = Number.POSITIVE_INFINITY;
  private idle: (() => void) | null = null;
  /** Aborted when a stop has ended: nobody may wait for the store any more. */
  private readonly over = new AbortController();

  constructor(options: LaneOptions, shared: DispatchOptions, prepare: (spec: SpecRow) => Promise<PrepareResult>) {
    this.no = options.no;
    this.options = options;
    this.store = shared.store;
    this.env = shared.env;
    this.clock = shared.env.clock;
    this.install = shared.install;
    this.ids = shared.ids;
    this.prepare = prepare;
    this.leaseMs = options.timeoutMs + LEASE_MARGIN_MS;
    this.pace = options.ratePerSecond > 0 ? new Pace(options.ratePerSecond) : null;
  }

  /** There may be work that the last claim has not seen. */
  wake(): void {
    this.backlog = true;
    if (this.claiming) this.woken = true;
    this.next();
  }

  /** This node may claim until `until`; what it has claimed before it carries to its end. */
  hold(until: number): void {
    const gained = this.heldUntil <= this.clock.monotonic();
    this.heldUntil = until;
    if (gained) this.wake();
  }

  /** Something that the store must hear before it judges lost leases. Ends with `insist`. */
  owes(): boolean {
    return this.owed > 0;
  }

  counters() {
    return {
      lane: this.options.carrier.name,
      inFlight: this.inFlight,
      outcomes: { ...this.outcomes },
      blocked: this.blockedUntil > this.clock.monotonic(),
    };
  }

  async stop(limitMs: number): Promise<void> {
    this.stopping = true;
    this.disarm();
    this.halt.abort();
    if (this.open > 0 || this.claiming) {
      const done = new Promise<void>((resolve) => {
        this.idle = resolve;
      });
      let timer = this.clock.setTimeout(() => {
        for (const control of this.out) control.abort();
        timer = this.clock.setTimeout(() => this.idle?.(), STOP_GRACE_MS);
      }, limitMs);
      await done;
      timer.cancel();
    }
    this.over.abort();
  }

  // ------------------------------------------------------------------------------------------------------------- claim

  private slots(): number {
    return this.failures >= BREAKER_FAILURES ? 1 : this.options.concurrency;
  }

  /** Claims now, later, or when a slot frees. */
  private next(): void {
    if (this.stopping || this.claiming || !this.backlog) return;
    const now = this.clock.monotonic();
    if (now >= this.heldUntil) return;
    const { free, at } = this.room(now);
    if (free <= 0 || at > now) this.arm(at);
    else void this.claim(free, now);
  }

  /** How many to claim, and from when on: as few claims as keep the slots busy. Infinity = when a slot frees. */
  private room(now: number): { free: number; at: number } {
    if (this.blockedUntil > now) return { free: 0, at: this.blockedUntil };
    const slots = this.slots();
    // A slot is free when the carrier has answered, so that the settle and the next claim share a commit; what waits for
    // its settle is bounded too.
    let free = Math.min(slots - this.inFlight, 2 * slots - this.open);
    if (free <= 0) return { free, at: Number.POSITIVE_INFINITY };
    let most = slots;
    let gap = CLAIM_GAP_MS;
    if (this.pace) {
      free = Math.min(free, this.pace.turnsWithin(now, PACE_AHEAD_MS) - this.turnless);
      if (free <= 0) return { free, at: Math.max(this.pace.nextTurn - PACE_AHEAD_MS, now + CLAIM_GAP_MS) };
      most = Math.min(most, this.pace.turnsOf(PACE_AHEAD_MS));
      if (free * 2 < most) gap = PACE_AHEAD_MS / 2;
    }
    // What the store is known to have is fetched when half of the slots are free; what it may have, once in a while.
    const worthIt = this.more && free * 2 >= most;
    return { free, at: worthIt ? now : this.lastClaim + gap };
  }

  /** One claim at a time. Never rejects. */
  private async claim(free: number, askedAt: number): Promise<void> {
    this.claiming = true;
    this.woken = false;
    this.lastClaim = askedAt;
    this.disarm();
    try {
      const { claims, specs, nextDue, now: storeNow } = await this.store.claim(this.options.no, free, this.leaseMs);
      const answeredAt = this.clock.monotonic();
      this.storeClock.learn(storeNow, askedAt, answeredAt);
      const bySpec = new Map(specs.map((spec) => [spec.no, spec]));
      this.inFlight += claims.length;
      this.open += claims.length;
      if (this.pace) this.turnless += claims.length;
      for (const claim of claims) {
        void this.carry({ claim, spec: bySpec.get(claim.spec), askedAt });
      }
      const due = nextDue !== null && nextDue <= storeNow;
      // Due and yet nothing to have: do not spin on it.
      const empty = due && claims.length === 0;
      this.more = due && !empty;
      this.backlog = this.more || this.woken;
      this.emptyMs = empty ? Math.min(this.emptyMs * 2, POLL_MS) : EMPTY_MS;
      const wait = empty ? this.emptyMs : due || nextDue === null ? POLL_MS : Math.min(nextDue - storeNow, POLL_MS);
      this.claiming = false;
      if (!this.stopping) this.arm(answeredAt + wait);
      this.next();
    } catch (error) {
      this.env.log.warn({ err: error, lane: this.options.carrier.name }, 'claim failed, will try again');
      this.claiming = false;
      this.backlog = false;
      if (!this.stopping) this.arm(this.clock.monotonic() + STORE_RETRY_MS);
    }
    this.ended();
  }

  /** Wakes the lane at `at` (of the monotonic clock), or earlier where that was asked for. */
  private arm(at: number): void {
    if (this.timerAt <= at || at === Number.POSITIVE_INFINITY) return;
    this.disarm();
    this.timerAt = at;
    this.timer = this.clock.setTimeout(
      () => {
        this.timerAt = Number.POSITIVE_INFINITY;
        this.wake();
      },
      Math.max(0, at - this.clock.monotonic()),
    );
  }

  private disarm(): void {
    this.timer?.cancel();
    this.timer = null;
    this.timerAt = Number.POSITIVE_INFINITY;
  }

  private ended(): void {
    if (this.stopping && this.open === 0 && !this.claiming) this.idle?.();
  }

  // ------------------------------------------------------------------------------------------------------------ submit

  /** Carries one claim to its settle or release. Never rejects. */
  private async carry(flight: Flight): Promise<void> {
    let attempt: Attempt | null = null;
    try {
      attempt = await this.attempt(flight);
    } catch (error) {
      // Nothing has left: the content could not be read now. Put back, with a pause so that it does not spin.
      this.env.log.warn({ err: error, ...this.names(flight.claim) }, 'not submitted, will try again');
      await this.clock.sleep(STORE_RETRY_MS, this.halt.signal);
    }
    this.inFlight--;
    this.next();
    if (attempt) await this.settle(flight, attempt);
    else await this.putBack(flight);
    this.open--;
    this.next();
    this.ended();
  }

  /** Null = put back untouched. Rejects when the store is away, before anything has left. */
  private async attempt(flight: Flight): Promise<Attempt | null> {
    const { claim } = flight;
    let turn: number | null = null;
    let left = false;
    try {
      if (!flight.spec) throw new Error(`claim ${claim.leader} came without its spec`);
      const result = await this.prepare(flight.spec);
      if (!result.ok) {
        const outcome: Outcome = { kind: 'contentFailed', error: { id: 15025, words: result.words } };
        this.count(outcome);
        return { outcome, startedAt: this.storeTime(), tookMs: 0 };
      }
      // Then the store's time is at least that: never early.
      const notBefore = claim.notBeforeUs / 1000 - this.storeClock.least;
      for (;;) {
        const now = this.clock.monotonic();
        if (this.unfit(flight, now)) return null;
        let leaves = notBefore;
        if (this.pace && now >= notBefore) {
          if (turn === null) {
            this.turnless--;
            turn = this.pace.reserve(now);
          }
          leaves = this.pace.mayLeave(turn);
        }
        if (now >= leaves) break;
        await this.clock.sleep(leaves - now, this.halt.signal);
      }
      // No await from here to the carrier: what was checked holds.
      if (turn !== null) this.pace?.left(this.clock.monotonic());
      left = true;
      return await this.submit(flight, result.prepared);
    } finally {
      if (this.pace && !left) {
        if (turn === null) this.turnless--;
        else this.pace.abandon();
      }
    }
  }

  /** The store's time now, or a little later. */
  private storeTime(): number {
    return Math.round(this.clock.monotonic() + this.storeClock.most);
  }

  /** Whether a claim must not be sent any more. */
  private unfit(flight: Flight, now: number): boolean {
    const { claim } = flight;
    if (this.stopping || this.blockedUntil > now) return true;
    // A pause of this process (suspend, long GC, slow content) may have eaten lease and window.
    if (now - flight.askedAt > CLAIM_AGE_MS) return true;
    const storeNow = now + this.storeClock.most;
    if (storeNow >= claim.validUntil) return true;
    // Late under a speed limit, it would come too close to its successor: it takes a new turn. So does what may be late: a
    // process that stood still between the store's commit and its answer cannot tell how long.
    return claim.paced && storeNow > claim.notBeforeUs / 1000 + PACE_SLACK_MS;
  }

  private async submit(flight: Flight, prepared: Prepared): Promise<Attempt> {
    const { claim } = flight;
    const { timeoutMs, carrier } = this.options;
    const startedAt = this.storeTime();
    const began = this.clock.monotonic();
    const control = new AbortController();
    this.out.add(control);
    let tooLate = (): void => {};
    const gaveUp = new Promise<'gaveUp'>((resolve) => {
      tooLate = () => resolve('gaveUp');
    });
    let limit = this.clock.setTimeout(() => control.abort(), timeoutMs);
    control.signal.addEventListener('abort', () => {
      limit.cancel();
      limit = this.clock.setTimeout(tooLate, CARRIER_GRACE_MS);
    });
    let outcome: Outcome;
    try {
      const answer = carrier.submit(submissionOf(claim, prepared, this.install), control.signal);
      const first = await Promise.race([answer, gaveUp]);
      if (first === 'gaveUp') {
        this.env.log.error({ carrier: carrier.name, ...this.names(claim) }, 'carrier did not heed its time-out');
        outcome = unknown('no answer, and the carrier did not heed its time-out');
        this.learnLater(flight, answer, startedAt, began);
      } else outcome = first;
    } catch (error) {
      if (control.signal.aborted) outcome = unknown(`no answer within ${timeoutMs} ms`);
      else {
        this.env.log.error({ err: error, carrier: carrier.name, ...this.names(claim) }, 'carrier threw');
        outcome = unknown('internal error while submitting');
      }
    } finally {
      limit.cancel();
      this.out.delete(control);
    }
    // A wish of 0 would be a loop, one of a year a mistake.
    if (outcome.kind === 'throttled')
      outcome = { ...outcome, retryAfterMs: carrierRetryDelay(1, outcome.retryAfterMs) };
    this.count(outcome);
    this.judge(outcome, began);
    return { outcome, startedAt, tookMs: Math.round(this.clock.monotonic() - began) };
  }

  /** An answer after the last moment changes nothing, but its id is worth knowing: the report will come under it. */
  private learnLater(flight: Flight, answer: Promise<Outcome>, startedAt: number, began: number): void {
    answer.then(
      (outcome) => {
        if (outcome.kind !== 'accepted') return;
        const tookMs = Math.round(this.clock.monotonic() - began);
        return this.settle(flight, { outcome, startedAt, tookMs });
      },
      () => undefined,
    );
  }

  private count(outcome: Outcome): void {
    this.outcomes[outcome.kind] = (this.outcomes[outcome.kind] ?? 0) + 1;
  }

  /** What an answer says of the carrier: pause, breaker. */
  private judge(outcome: Outcome, began: number): void {
    const now = this.clock.monotonic();
    if (outcome.kind === 'throttled') this.blockedUntil = Math.max(this.blockedUntil, now + outcome.retryAfterMs);
    if (outcome.kind !== 'deferred' && outcome.kind !== 'unknown') {
      this.failures = 0;
      return;
    }
    this.failures++;
    if (this.failures < BREAKER_FAILURES || began < this.openedAt) return;
    this.openedAt = now;
    this.blockedUntil = Math.max(this.blockedUntil, now + PROBE_MS);
  }

  // ------------------------------------------------------------------------------------------------------------ settle

  private async settle(flight: Flight, attempt: Attempt): Promise<void> {
    const { claim } = flight;
    const { outcome, startedAt, tookMs } = attempt;
    const { token, leader } = claim;
    const what = { lane: this.options.no, token, leader, outcome, startedAt, tookMs };
    const fresh = await this.insist(flight, SETTLE_GRACE_MS, () => this.store.settle(what));
    this.env.log.info(
      {
        carrier: this.options.carrier.name,
        ...this.names(claim),
        attempt: claim.attempt,
        outcome: outcome.kind,
        tookMs,
        ...(outcome.kind === 'accepted'
          ? { carrierMessageId: outcome.carrierMessageId }
          : { error: outcome.error?.id, words: outcome.error?.words }),
        ...(fresh ? {} : { stale: true }),
      },
      'attempt',
    );
  }

  /** A claim's messages as customers know them. */
  private names({ members }: Claim): { messageIds: string[]; members?: number } {
    const messageIds = members.slice(0, NAMED).map(({ no, key }) => key ?? this.ids.print('message', no));
    return members.length > 1 ? { messageIds, members: members.length } : { messageIds };
  }

  /** First in line again, at once or when the lane's pause ends. */
  private async putBack(flight: Flight): Promise<void> {
    const { token, leader } = flight.claim;
    const pause = Math.max(0, this.blockedUntil - this.clock.monotonic());
    const until = this.storeTime() + Math.ceil(pause);
    await this.insist(flight, 0, () => this.store.release([{ token, leader }], until));
  }

  /**
   * Does it until the store takes it, at most until `graceMs` after the lease. Undefined = given up: then the sweep finds
   * the lost lease, and the carrier's policy for unknown outcomes applies.
   */
  private async insist<Result>(
    flight: Flight,
    graceMs: number,
    act: () => Promise<Result>,
  ): Promise<Result | undefined> {
    const end = flight.askedAt + this.leaseMs + graceMs;
    for (let tries = 1; ; tries++) {
      let owed = 0;
      try {
        return await act();
      } catch (error) {
        if (error instanceof StoreUnavailable) owed = 1;
        const over = this.over.signal.aborted || this.clock.monotonic() + STORE_RETRY_MS > end;
        const fields = { err: error, ...this.names(flight.claim) };
        if (over) this.env.log.error(fields, 'given up: the store did not take what became of an attempt');
        else if (tries === 1)
          this.env.log.warn(fields, 'the store is away, will tell it later what became of an attempt');
        if (over) return undefined;
        this.owed += owed;
        await this.clock.sleep(STORE_RETRY_MS, this.over.signal);
        this.owed -= owed;
      }
    }
  }
}

/** 15000 EC_MMS_GENERAL_ERROR: what an attempt without an answer is booked under. */
function unknown(words: string): Outcome {
  return { kind: 'unknown', error: { id: 15000, words } };
}

/**
 * The rate of a lane: even turns, and beyond that no more than `burst` departures in any `spanMs`, counted when they leave.
 * The turns alone would not do: one that leaves late and its successors that leave in time are closer than a second.
 */
class Pace {
  private readonly stepMs: number;
  private readonly spanMs: number;
  /** The last departures, oldest at `at`. */
  private readonly departures: Float64Array;
  private at = 0;
  private reserved = 0;
  /** When the next turn may be, if there were no departures to heed. */
  nextTurn = Number.NEGATIVE_INFINITY;

  constructor(ratePerSecond: number) {
    const burst = Math.max(1, Math.floor(ratePerSecond));
    this.stepMs = 1000 / ratePerSecond;
    this.spanMs = burst * this.stepMs;
    this.departures = new Float64Array(burst).fill(Number.NEGATIVE_INFINITY);
  }

  /** Turns that fit into `ms`. */
  turnsOf(ms: number): number {
    return Math.floor(ms / this.stepMs) + 1;
  }

  /** Turns that are free between now and `ms` later. */
  turnsWithin(now: number, ms: number): number {
    const left = ms - Math.max(0, this.nextTurn - now);
    return left < 0 ? 0 : this.turnsOf(left);
  }

  /** The next turn: ends with `left`, or with `abandon` where nothing left. */
  reserve(now: number): number {
    const before = this.departures[(this.at + this.reserved) % this.departures.length] as number;
    const turn = Math.max(now, this.nextTurn, before + this.spanMs);
    this.reserved++;
    this.nextTurn = turn + this.stepMs;
    return turn;
  }

  /** The earliest instant at which the holder of `turn` may leave, as things stand. */
  mayLeave(turn: number): number {
    return Math.max(turn, (this.departures[this.at] as number) + this.spanMs);
  }

  left(now: number): void {
    this.reserved--;
    this.departures[this.at] = now;
    this.at = (this.at + 1) % this.departures.length;
  }

  abandon(): void {
    this.reserved--;
  }
}
