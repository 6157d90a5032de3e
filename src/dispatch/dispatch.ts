/**
 * The heart: one loop per lane. Claim no more than there are free slots, submit each under a time-out shorter than its
 * lease, settle, claim again. Rates, the pause a carrier asks for and the breaker belong to the lane, not to a message.
 *
 * Promises: at most one submission of a message in flight (a claim that has become old is put back, not sent); a stop takes
 * no new claims and waits for what is in flight (G7, G14). Fails: a store that is away is asked again every second; an
 * exception from a carrier is a bug, logged and settled as unknown.
 */
import { LRUCache } from 'lru-cache';
import type { Carrier } from '../carriers/carrier.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Outcome } from '../domain/submission.ts';
import type { Env, Timer } from '../env.ts';
import type { Claim, Store } from '../store/contract.ts';
import { type Prepared, type PrepareResult, prepareSpec, submissionOf } from './prepare.ts';

export interface LaneOptions {
  /** The store's number of the lane. */
  no: number;
  carrier: Carrier;
  /** Submissions in flight at most. */
  concurrency: number;
  /** Submissions a second at most; 0 = as fast as the carrier answers. */
  ratePerSecond: number;
  timeoutMs: number;
}

export interface DispatchOptions {
  store: Store;
  lanes: LaneOptions[];
  env: Env;
  /** From `Store.identity`. */
  install: string;
}

export interface Dispatch {
  start(): void;
  /** Something may be waiting. */
  wake(): void;
  /** No new claims; resolves when nothing is in flight, or after `limitMs`. */
  stop(limitMs: number): Promise<void>;
  /** Figures for the metrics page. */
  counters(): { lane: string; inFlight: number; outcomes: Record<string, number>; blocked: boolean }[];
}

/** A lease outlives the carrier's time-out by this much (G7). */
const LEASE_MARGIN_MS = 15_000;
/** Bytes of content kept for the specs being sent. */
const CONTENT_CACHE = 64 * 1024 * 1024;
/** Failures in a row after which a lane sends one probe at a time. */
const BREAKER_FAILURES = 20;
const PROBE_MS = 5_000;
/** A lane with a rate claims for this long ahead. */
const PACE_AHEAD_MS = 1_000;
const SWEEP_MS = 1_000;

export function createDispatch(options: DispatchOptions): Dispatch {
  const { env } = options;
  const lanes = options.lanes.map((lane) => new Lane(lane, options));
  let stopping = false;
  let sweeping: Promise<void> | null = null;
  let timer: Timer | null = null;

  async function sweep(): Promise<void> {
    try {
      while (!stopping && (await options.store.sweep()));
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
      options.store.onHint((hint) => {
        if (hint.kind === 'lane') for (const lane of lanes) lane.wake();
      });
      sweeping = sweep();
      for (const lane of lanes) lane.wake();
    },
    wake() {
      for (const lane of lanes) lane.wake();
    },
    async stop(limitMs) {
      stopping = true;
      timer?.cancel();
      await Promise.all([sweeping, ...lanes.map((lane) => lane.stop(limitMs))]);
    },
    counters: () => lanes.map((lane) => lane.counters()),
  };
}

class Lane {
  private readonly options: LaneOptions;
  private readonly store: Store;
  private readonly env: Env;
  private readonly install: string;
  private readonly leaseMs: number;
  private readonly prepared = new LRUCache<number, Promise<PrepareResult>>({ max: 2000 });
  private readonly bytes = new LRUCache<string, Uint8Array>({
    maxSize: CONTENT_CACHE,
    sizeCalculation: (value) => value.byteLength + 1,
  });
  private readonly outcomes: Record<string, number> = {};
  private readonly abort = new AbortController();
  private inFlight = 0;
  private claiming = false;
  /** A wake that came while a claim was on its way. */
  private woken = false;
  private stopping = false;
  private blockedUntil = 0;
  private nextTurn = 0;
  private failures = 0;
  private timer: Timer | null = null;
  private idle: (() => void) | null = null;

  constructor(options: LaneOptions, shared: DispatchOptions) {
    this.options = options;
    this.store = shared.store;
    this.env = shared.env;
    this.install = shared.install;
    this.leaseMs = options.timeoutMs + LEASE_MARGIN_MS;
  }

  wake(): void {
    if (this.claiming) this.woken = true;
    else void this.claim();
  }

  counters() {
    return {
      lane: this.options.carrier.name,
      inFlight: this.inFlight,
      outcomes: { ...this.outcomes },
      blocked: this.blockedUntil > this.env.clock.monotonic(),
    };
  }

  async stop(limitMs: number): Promise<void> {
    this.stopping = true;
    this.timer?.cancel();
    if (this.inFlight === 0 && !this.claiming) return;
    const limit = this.env.clock.setTimeout(() => {
      this.abort.abort();
      this.idle?.();
    }, limitMs);
    await new Promise<void>((resolve) => {
      this.idle = resolve;
    });
    limit.cancel();
  }

  private free(): number {
    const slots = this.failures >= BREAKER_FAILURES ? 1 : this.options.concurrency;
    return Math.min(slots - this.inFlight, this.turnsAhead());
  }

  /** Turns of the lane's own rate that come soon enough to be claimed now: a claim must not grow old in its sleep. */
  private turnsAhead(): number {
    if (this.options.ratePerSecond <= 0) return Number.POSITIVE_INFINITY;
    const ahead = PACE_AHEAD_MS - Math.max(0, this.nextTurn - this.env.clock.monotonic());
    return Math.max(0, Math.ceil((ahead * this.options.ratePerSecond) / 1000));
  }

  private later(ms: number): void {
    this.timer?.cancel();
    this.timer = this.env.clock.setTimeout(() => this.wake(), ms);
  }

  /** One claim at a time: slots that free meanwhile are asked for together by the next. */
  private async claim(): Promise<void> {
    if (this.stopping || this.claiming) return;
    const wait = this.blockedUntil - this.env.clock.monotonic();
    if (wait > 0) return this.later(wait);
    const free = this.free();
    if (free <= 0) {
      if (this.options.ratePerSecond > 0 && this.inFlight === 0) this.later(1000 / this.options.ratePerSecond);
      return;
    }
    this.claiming = true;
    this.woken = false;
    const asked = this.env.clock.monotonic();
    try {
      const { claims, specs, nextDue, now } = await this.store.claim(this.options.no, free, this.leaseMs);
      const bySpec = new Map(specs.map((spec) => [spec.no, spec]));
      this.inFlight += claims.length;
      for (const claim of claims) void this.carry(claim, bySpec.get(claim.spec), asked, now);
      if (nextDue !== null && (claims.length < free || nextDue > now)) this.later(Math.max(0, nextDue - now));
      else if (nextDue !== null) this.woken = true;
    } catch (error) {
      this.env.log.warn({ err: error, lane: this.options.carrier.name }, 'claim failed, will try again');
      this.later(1_000);
    }
    this.claiming = false;
    if (this.stopping) this.settled();
    else if (this.woken && this.free() > 0) void this.claim();
  }

  /** Carries one claim to its settle. Never rejects. */
  private async carry(claim: Claim, spec: SpecRow | undefined, asked: number, storeNow: number): Promise<void> {
    try {
      const outcome = await this.attempt(claim, spec, asked, storeNow);
      if (outcome) await this.settle(claim, outcome.outcome, outcome.startedAt, outcome.tookMs);
      else await this.store.release([{ token: claim.token, leader: claim.leader }], storeNow);
    } catch (error) {
      // The store is away: the lease ends by itself and the carrier's policy for unknown outcomes applies.
      this.env.log.error({ err: error, leader: claim.leader }, 'attempt could not be settled');
    }
    this.inFlight--;
    this.settled();
    this.wake();
  }

  private settled(): void {
    if (this.stopping && this.inFlight === 0 && !this.claiming) this.idle?.();
  }

  /** Null = put back untouched. */
  private async attempt(
    claim: Claim,
    spec: SpecRow | undefined,
    asked: number,
    storeNow: number,
  ): Promise<{ outcome: Outcome; startedAt: number; tookMs: number } | null> {
    const { clock } = this.env;
    if (!spec) throw new Error(`claim ${claim.leader} came without its spec`);
    const result = await this.prepare(spec);
    const turn = Math.max(claim.notBeforeUs / 1000 - storeNow - (clock.monotonic() - asked), this.paceWait());
    if (turn > 0) await clock.sleep(turn, this.abort.signal);
    // A pause of this process (suspend, long GC) may have eaten the lease: then somebody else may be sending it.
    const age = clock.monotonic() - asked;
    if (this.stopping || age > this.leaseMs - this.options.timeoutMs) return null;
    const startedAt = storeNow + Math.round(age);
    if (!result.ok) {
      const outcome: Outcome = { kind: 'refused', error: { id: 15025, words: result.words } };
      return { outcome, startedAt, tookMs: 0 };
    }
    const began = clock.monotonic();
    const outcome = await this.submit(claim, result.prepared);
    return { outcome, startedAt, tookMs: Math.round(clock.monotonic() - began) };
  }

  private async submit(claim: Claim, prepared: Prepared): Promise<Outcome> {
    const control = new AbortController();
    const limit = this.env.clock.setTimeout(() => control.abort(), this.options.timeoutMs);
    try {
      return await this.options.carrier.submit(submissionOf(claim, prepared, this.install), control.signal);
    } catch (error) {
      this.env.log.error({ err: error, lane: this.options.carrier.name, leader: claim.leader }, 'carrier threw');
      return { kind: 'unknown', error: { id: 15000, words: 'internal error while submitting' } };
    } finally {
      limit.cancel();
    }
  }

  private async settle(claim: Claim, outcome: Outcome, startedAt: number, tookMs: number): Promise<void> {
    this.outcomes[outcome.kind] = (this.outcomes[outcome.kind] ?? 0) + 1;
    if (outcome.kind === 'throttled') this.block(outcome.retryAfterMs);
    const failed = outcome.kind === 'deferred' || outcome.kind === 'unknown';
    this.failures = failed ? this.failures + 1 : 0;
    if (this.failures >= BREAKER_FAILURES) this.block(PROBE_MS);
    const fresh = await this.store.settle({
      lane: this.options.no,
      token: claim.token,
      leader: claim.leader,
      outcome,
      startedAt,
      tookMs,
    });
    this.env.log.info(
      {
        carrier: this.options.carrier.name,
        message: claim.leader,
        members: claim.members.length,
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

  private block(ms: number): void {
    this.blockedUntil = Math.max(this.blockedUntil, this.env.clock.monotonic() + ms);
  }

  /** Ms until this lane's next turn under its own rate. */
  private paceWait(): number {
    if (this.options.ratePerSecond <= 0) return 0;
    const now = this.env.clock.monotonic();
    const turn = Math.max(this.nextTurn, now);
    this.nextTurn = turn + 1000 / this.options.ratePerSecond;
    return turn - now;
  }

  private prepare(spec: SpecRow): Promise<PrepareResult> {
    const known = this.prepared.get(spec.no);
    if (known) return known;
    const made = prepareSpec(spec, async (hash) => {
      const cached = this.bytes.get(hash);
      if (cached) return cached;
      const bytes = await this.store.content(hash);
      if (bytes) this.bytes.set(hash, bytes);
      return bytes;
    });
    this.prepared.set(spec.no, made);
    // A failure is not kept: the next claim looks again.
    made.then(
      (result) => !result.ok && this.prepared.delete(spec.no),
      () => this.prepared.delete(spec.no),
    );
    return made;
  }
}
