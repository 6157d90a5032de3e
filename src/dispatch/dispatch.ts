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
import type { Hand } from '../carriers/carrier.ts';
import type { Ids } from '../domain/ids.ts';
import type { Shortener } from '../domain/links.ts';
import { carrierRetryDelay } from '../domain/retry.ts';
import type { SpecRow } from '../domain/rows.ts';
import { PACE_SLACK_MS } from '../domain/schedule.ts';
import type { Outcome } from '../domain/submission.ts';
import type { Clock, Env, Timer } from '../env.ts';
import { type Store, StoreUnavailable } from '../store/contract.ts';
import { createCallBacks } from './callback.ts';
import { byCarrier, copied, type Figures } from './figures.ts';
import { createAside } from './fit.ts';
import { type Attempt, type Flight, lastMoment, namesOf } from './flight.ts';
import { Departure, FREE_TURN, Pace } from './pace.ts';
import { createPreparer, type PrepareResult } from './prepare.ts';
import { StoreClock } from './store-clock.ts';
import { createWay, inTime, type Ready, sameWay, unknown, type Way, type WayOptions } from './way.ts';

/** What a lane is made of. */
export type LaneOptions = WayOptions & {
  /** The store's number of the lane. */
  no: number;
  /** Submissions in flight at most. */
  concurrency: number;
  /** Submissions a second at most, also below 1; 0 = as fast as the carrier answers. */
  ratePerSecond: number;
  timeoutMs: number;
};

/** What main gives to dispatch. */
export interface DispatchOptions {
  store: Store;
  /** This node's name among those that share the lanes. */
  node: string;
  lanes: LaneOptions[];
  env: Env;
  /** From `Store.identity`. */
  install: string;
  /** Absent = links stay as they are. */
  shortener?: Shortener;
  /** Names messages in the log. */
  ids: Ids;
}

/** Dispatch as main sees it. */
export interface Dispatch {
  start(): void;
  /** Something may be waiting. */
  wake(): void;
  /**
   * Serves these lanes from now on. Those that are gone or differ (another carrier object, slots, rate, time-out) end as at a
   * stop, in `limitMs`; the others are not disturbed. Resolves when nobody uses what was left behind.
   */
  relane(lanes: LaneOptions[], limitMs: number): Promise<void>;
  /**
   * No new claims; what has not left is put back. Resolves when nothing is open; what is still out after `limitMs` is
   * broken off and settled as unknown, which takes at most STOP_GRACE_MS more.
   */
  stop(limitMs: number): Promise<void>;
  /** Figures for the metrics page, by carrier. */
  counters(): Figures[];
}

/** A lease outlives the carrier's time-out by this much (G7). */
const LEASE_MARGIN_MS = 15_000;
/** A claim older than this (this process was suspended, content was slow) is put back: its lease must outlast the submission. */
const CLAIM_AGE_MS = 5_000;
/** Failures in a row after which a lane pauses and then sends one probe at a time. */
const BREAKER_FAILURES = 20;
const PROBE_MS = 5_000;
/** While the breaker is open, so many submissions at a time, so far apart, are handed on to second choices. */
const DIVERT_BATCH = 32;
const DIVERT_MS = 500;
/** Turns of a lane's own rate are claimed this long before they come: less than the slack of a bulk's speed limit. */
const PACE_AHEAD_MS = 200;
/** While a lane is busy, claims are at least this far apart, unless half of its slots are free. */
const CLAIM_GAP_MS = 5;
/** A busy store's claims are as far apart as each of them takes, at most so far: what waits meanwhile shares the next. */
const CLAIM_REST_MS = 50;
/** An idle lane asks this often: hints are no promise, and work that falls due later gives none. */
const POLL_MS = 1_000;
/** Pause between two tries of a settle or release that the store did not take. */
const STORE_RETRY_MS = 1_000;
/** A settle is tried until this long after its lease: late, it still teaches the carrier's id, and no sweep may have run. */
const SETTLE_GRACE_MS = 10 * 60_000;
const STOP_GRACE_MS = 2_000;
/** A lane is held this long without a beat: a dead node's lanes are taken over after it, and its claims end by their leases. */
const HOLD_MS = 30_000;
const BEAT_MS = 5_000;
const SWEEP_MS = 1_000;
/** A rate is held in any second. */
const RATE_SPAN_MS = 1_000;
/** Steps of one round of the sweep. */
const SWEEP_STEPS = 1_000;

/** Makes the loops; nothing happens before `start`. */
export function createDispatch(options: DispatchOptions): Dispatch {
  const { env, store } = options;
  const prepare = createPreparer((hash) => store.content(hash), options.shortener);
  let lanes = options.lanes.map((lane) => new Lane(lane, options, prepare));
  /** Figures of lanes that are gone, one of each carrier. */
  let retired: Figures[] = [];
  let relaning: Promise<void> = Promise.resolve();
  let stopping = false;
  let started = false;
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
      for (const lane of lanes) lane.callBack();
    } catch (error) {
      env.log.warn({ err: error }, 'sweep failed, will try again');
    }
    if (stopping) return;
    timer = env.clock.setTimeout(() => {
      sweeping = sweep();
    }, SWEEP_MS);
  }

  async function relane(next: LaneOptions[], limitMs: number): Promise<void> {
    if (stopping) return;
    const gone = lanes.filter((lane) => !next.some((one) => lane.is(one)));
    const fresh = next.filter((one) => !lanes.some((lane) => lane.is(one)));
    lanes = lanes.filter((lane) => !gone.includes(lane));
    await Promise.all(gone.map((lane) => lane.stop(limitMs)));
    retired = byCarrier([...retired, ...gone.map((lane) => ({ ...lane.counters(), inFlight: 0, blocked: false }))]);
    if (stopping) return;
    for (const one of fresh) {
      const lane = new Lane(one, options, prepare);
      // What left a moment ago counts against the rate, and the new lane does not know of it.
      if (gone.some(({ no }) => no === one.no)) lane.rest(RATE_SPAN_MS);
      lanes.push(lane);
    }
    if (!started) return;
    beatTimer?.cancel();
    await beating;
    beatTimer?.cancel();
    if (!stopping) beating = beat();
    await beating;
  }

  return {
    relane(next, limitMs) {
      relaning = relaning.then(() => relane(next, limitMs));
      return relaning;
    },
    start() {
      started = true;
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
      await relaning;
      await Promise.all([sweeping, ...lanes.map((lane) => lane.stop(limitMs))]);
      await leave();
    },
    counters: () => byCarrier([...retired.map(copied), ...lanes.map((lane) => lane.counters())]),
  };
}

class Lane {
  readonly no: number;
  private readonly options: LaneOptions;
  private readonly store: Store;
  private readonly env: Env;
  private readonly clock: Clock;
  private readonly ids: Ids;
  private readonly way: Way;
  private readonly callBacks: (halt: AbortSignal) => void;
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
  private readonly aside = createAside((taken) => {
    this.inFlight += taken;
    if (this.pace) this.turnless += taken;
    this.next();
    return this.inFlight <= this.slots();
  });
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
  /** Until then after a claim, unless half of the slots are free: claims take no more than half of the time. */
  private restUntil = Number.NEGATIVE_INFINITY;
  private blockedUntil = 0;
  private failures = 0;
  /** When the breaker opened last: what was sent before says nothing of how the carrier is now. */
  private openedAt = Number.NEGATIVE_INFINITY;
  /** What waits may have another carrier to go to. */
  private elsewhere = true;
  private divertAt = Number.NEGATIVE_INFINITY;
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
    this.ids = shared.ids;
    this.way = createWay(options, prepare, this.clock, shared.install, shared.shortener);
    this.callBacks = createCallBacks(this.no, this.way, shared.install, shared);
    this.leaseMs = options.timeoutMs + LEASE_MARGIN_MS;
    this.pace = options.ratePerSecond > 0 ? new Pace(options.ratePerSecond) : null;
  }

  /** Whether it serves these options already. */
  is(other: LaneOptions): boolean {
    const { no, concurrency, ratePerSecond, timeoutMs } = this.options;
    if (other.no !== no || !sameWay(this.options, other)) return false;
    return other.concurrency === concurrency && other.ratePerSecond === ratePerSecond && other.timeoutMs === timeoutMs;
  }

  /** Claims nothing for a while. */
  rest(ms: number): void {
    this.blockedUntil = this.clock.monotonic() + ms;
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

  /** Cancelled bulks' submissions are called back, by who holds the lane. */
  callBack(): void {
    if (this.heldUntil > this.clock.monotonic()) this.callBacks(this.halt.signal);
  }

  /** Something that the store must hear before it judges lost leases. Ends with `insist`. */
  owes(): boolean {
    return this.owed > 0;
  }

  counters() {
    return {
      lane: this.way.name,
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
    if (this.failures >= BREAKER_FAILURES && this.blockedUntil > now && this.elsewhere) {
      if (now >= this.divertAt) void this.divert(now);
      else this.arm(Math.min(this.divertAt, this.blockedUntil));
      return;
    }
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
    let free = Math.min(slots - this.inFlight, 2 * slots - this.open + this.aside.count);
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
    return { free, at: worthIt ? now : Math.max(this.lastClaim + gap, this.restUntil) };
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
      this.restUntil = answeredAt + Math.min(answeredAt - askedAt, CLAIM_REST_MS);
      // A store names no instant that has come when it gives nothing; nobody spins on one that does.
      this.more = due && claims.length > 0;
      this.backlog = this.more || this.woken;
      const wait = due || nextDue === null ? POLL_MS : Math.min(nextDue - storeNow, POLL_MS);
      this.claiming = false;
      if (!this.stopping) this.arm(answeredAt + wait);
      this.next();
    } catch (error) {
      this.env.log.warn({ err: error, lane: this.way.name }, 'claim failed, will try again');
      this.claiming = false;
      this.backlog = false;
      if (!this.stopping) this.arm(this.clock.monotonic() + STORE_RETRY_MS);
    }
    this.ended();
  }

  /**
   * The breaker is open: a batch of what waits goes to its second choices, as far as it has any. Where it has none, it is not
   * asked again until the breaker opens the next time. Never rejects.
   */
  private async divert(askedAt: number): Promise<void> {
    this.claiming = true;
    this.divertAt = askedAt + DIVERT_MS;
    this.disarm();
    try {
      const { claims } = await this.store.claim(this.options.no, DIVERT_BATCH, this.leaseMs);
      const [claim] = claims;
      this.backlog = claims.length === DIVERT_BATCH;
      if (claim) {
        const pause = Math.max(0, this.blockedUntil - this.clock.monotonic());
        const until = this.storeTime() + Math.ceil(pause);
        const flight = { claim, spec: undefined, askedAt };
        const moved = await this.insist(flight, 0, () => this.store.release(claims, until, true));
        this.elsewhere = moved !== 0;
        if (moved) this.env.log.info({ carrier: this.way.name, submissions: moved }, 'handed on to other carriers');
      }
    } catch (error) {
      this.env.log.warn({ err: error, lane: this.way.name }, 'claim failed, will try again');
    }
    this.claiming = false;
    if (!this.stopping) this.arm(Math.min(this.blockedUntil, this.clock.monotonic() + POLL_MS));
    this.next();
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
      this.env.log.warn({ err: error, ...namesOf(flight.claim, this.ids) }, 'not submitted, will try again');
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
    const departure = new Departure(this.pace);
    try {
      if (!flight.spec) throw new Error(`claim ${claim.leader} came without its spec`);
      const left = (): number => flight.askedAt + CLAIM_AGE_MS - this.clock.monotonic();
      const ready = await this.way.ready(claim, flight.spec, left, this.halt.signal, this.aside);
      if (typeof ready === 'number') {
        flight.againMs = ready;
        return null;
      }
      if (!ready.ok) {
        const { error: id = 15025, words, elsewhere } = ready;
        const outcome: Outcome = { kind: 'contentFailed', error: { id, words }, ...(elsewhere && { elsewhere }) };
        this.count(outcome);
        return { outcome, startedAt: this.storeTime(), tookMs: 0 };
      }
      // Then the store's time is at least that: never early.
      const notBefore = claim.notBeforeUs / 1000 - this.storeClock.least;
      departure.weight = ready.turns ?? 1;
      for (;;) {
        const now = this.clock.monotonic();
        if (this.unfit(flight, now)) return null;
        let leaves = notBefore;
        if (now >= notBefore) {
          if (this.pace && !departure.reserved) this.turnless--;
          leaves = departure.earliest(now);
        }
        if (now >= leaves) break;
        await this.clock.sleep(leaves - now, this.halt.signal);
      }
      // No await from here to the carrier: what was checked holds.
      if (ready.turns === null) departure.leave(this.clock.monotonic());
      return await this.submit(flight, ready, departure);
    } finally {
      if (this.pace && !departure.reserved) this.turnless--;
      departure.end();
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
    if (now - flight.askedAt > CLAIM_AGE_MS) return true;
    const storeNow = now + this.storeClock.most;
    if (storeNow >= lastMoment(claim)) return true;
    // Late under a speed limit, it would come too close to its successor: it takes a new turn. So does what may be late: a
    // process that stood still between the store's commit and its answer cannot tell how long.
    return claim.paced && storeNow > claim.notBeforeUs / 1000 + PACE_SLACK_MS;
  }

  /** Null = its moment had passed when the carrier could have sent it. */
  private async submit(
    flight: Flight,
    ready: Extract<Ready, { ok: true }>,
    departure: Departure,
  ): Promise<Attempt | null> {
    const { claim } = flight;
    const { timeoutMs } = this.options;
    const carrier = this.way.name;
    const startedAt = this.storeTime();
    const began = this.clock.monotonic();
    const control = new AbortController();
    this.out.add(control);
    const learn = (answer: Outcome): void => this.learnLater(flight, answer, startedAt, began);
    const hand: Hand = {
      leaves: () => this.leaves(flight, departure),
      open: () => departure.unless(this.storeTime() >= lastMoment(claim)),
      turn: () => this.pace?.turn(this.clock) ?? FREE_TURN,
      late: learn,
    };
    let outcome: Outcome;
    try {
      const { outcome: told, late } = await inTime(ready, timeoutMs, control, this.clock, hand);
      outcome = told ?? unknown('no answer, and the carrier did not heed its time-out');
      if (late !== undefined) {
        this.env.log.error({ carrier, ...namesOf(claim, this.ids) }, 'carrier did not heed its time-out');
        late.then(learn, () => undefined);
      }
    } catch (error) {
      if (control.signal.aborted) outcome = unknown(`no answer within ${timeoutMs} ms`);
      else {
        this.env.log.error({ err: error, carrier, ...namesOf(claim, this.ids) }, 'carrier threw');
        outcome = unknown('internal error while submitting');
      }
    } finally {
      this.out.delete(control);
    }
    if (departure.passed) return null;
    // A wish of 0 would be a loop, one of a year a mistake.
    if (outcome.kind === 'throttled')
      outcome = { ...outcome, retryAfterMs: carrierRetryDelay(1, outcome.retryAfterMs) };
    this.count(outcome);
    this.judge(outcome, began);
    return { outcome, startedAt, tookMs: Math.round(this.clock.monotonic() - began) };
  }

  /** Asked by a carrier that had to wait for its connection: whether what held at the claim's turn holds yet. */
  private leaves(flight: Flight, departure: Departure): boolean {
    const now = this.clock.monotonic();
    if (departure.gone) return true;
    departure.passed = this.unfit(flight, now) || departure.earliest(now) > now;
    if (!departure.passed) departure.leave(now);
    return departure.gone;
  }

  /** An answer after the last moment changes nothing, but its id is worth knowing: the report will come under it. */
  private learnLater(flight: Flight, outcome: Outcome, startedAt: number, began: number): void {
    if (outcome.kind !== 'accepted') return;
    void this.settle(flight, { outcome, startedAt, tookMs: Math.round(this.clock.monotonic() - began) });
  }

  private count(outcome: Outcome): void {
    this.outcomes[outcome.kind] = (this.outcomes[outcome.kind] ?? 0) + 1;
  }

  /** What an answer says of the carrier: pause, breaker. */
  private judge(outcome: Outcome, began: number): void {
    const now = this.clock.monotonic();
    if (outcome.kind === 'throttled' && !outcome.others)
      this.blockedUntil = Math.max(this.blockedUntil, now + outcome.retryAfterMs);
    if (outcome.kind !== 'deferred' && outcome.kind !== 'unknown') {
      this.failures = 0;
      return;
    }
    this.failures++;
    if (this.failures < BREAKER_FAILURES || began < this.openedAt) return;
    this.openedAt = now;
    this.elsewhere = true;
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
        carrier: this.way.name,
        ...namesOf(claim, this.ids),
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

  /** First in line again, at once or when the lane's pause ends. */
  private async putBack(flight: Flight): Promise<void> {
    const { token, leader } = flight.claim;
    const pause = Math.max(0, this.blockedUntil - this.clock.monotonic());
    const until = this.storeTime() + Math.ceil(Math.max(pause, flight.againMs ?? 0));
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
        const fields = { err: error, ...namesOf(flight.claim, this.ids) };
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
