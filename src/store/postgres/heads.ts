/**
 * Where the looks of the sweep and of the outbox begin. What is due first is the head of an index, and there the dead entries of all
 * that was due before pile up while somebody holds an old snapshot (a backup): a look from the very beginning walks all of them. So
 * most looks begin at a lower bound that is remembered from the last one, and from time to time one looks at all.
 *
 * Promises: nothing is missed for longer than FULL_MAX_MS; what is written as everything here is written (a deadline not before its
 * clock, a lease of the usual length, within SLACK_MS) is not missed at all.
 */
import type { Clock } from '../../env.ts';

/** Between the clock of who writes and its commit. */
const SLACK_MS = 5_000;
/** A look at all takes about one part in so many of the time, and comes no more rarely than the second. */
const FULL_SHARE = 100;
const FULL_MAX_MS = 10_000;
/** Between two looks for what a node of an older version, which knows no bound of an endpoint, has left below it. */
const STRAY_MS = 600_000;

/** Lower bounds of one look. */
export interface Bounds {
  /** Instants: leases of flights, deadlines, looks at runs. */
  lease: number;
  deadline: number;
  look: number;
  /** Number of a row of `tally`. */
  tally: number;
}

/** What one look found: the earliest of each, null = none. */
export interface Found {
  now: number;
  lease: number | null;
  deadline: number | null;
  look: number | null;
  tally: number | null;
  /** The last number given to a row of `tally` before the look. */
  tallied: number;
}

const NONE: Bounds = { lease: 0, deadline: 0, look: 0, tally: 0 };

/** Below which number nothing is left of rows whose numbers are given before their commit: what was so a while ago. */
class Trail {
  bound = 0;
  /** Up to here nothing was left at `at`. */
  private seen: { at: number; no: number } | null = null;

  /** At `at` (monotonic ms) nothing up to `no` was left. */
  clear(no: number, at: number): void {
    const { seen } = this;
    // What was committed late is not passed over, whatever was seen in between.
    this.bound = Math.min(this.bound, no);
    if (seen && no < seen.no) {
      this.seen = null;
      return;
    }
    if (seen && at - seen.at < SLACK_MS) return;
    this.seen = { at, no };
    if (seen) this.bound = Math.max(this.bound, seen.no);
  }
}

/** When to look at all, and how soon a lease may end. */
class Looks {
  private readonly clock: Pick<Clock, 'monotonic'>;
  private fullAt = Number.NEGATIVE_INFINITY;
  private pauseMs = 0;
  private shortestLeaseMs = Number.POSITIVE_INFINITY;

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.clock = clock;
  }

  /** A lease of this length is given: none shorter than the shortest so far is expected. */
  leased(ms: number): void {
    if (ms >= this.shortestLeaseMs) return;
    this.shortestLeaseMs = ms;
    this.fullAt = Number.NEGATIVE_INFINITY;
  }

  /** The bound of leases after a look at `now` that found `lease` first. */
  leaseBound(lease: number | null, now: number): number {
    const soonest = Number.isFinite(this.shortestLeaseMs) ? now + this.shortestLeaseMs : now;
    return Math.min(lease ?? Number.POSITIVE_INFINITY, soonest) - SLACK_MS;
  }

  /** One look: at all, or not. */
  async make<Row>(ask: (all: boolean) => Promise<Row>): Promise<{ found: Row; at: number }> {
    const at = this.clock.monotonic();
    const all = at - this.fullAt >= this.pauseMs;
    const found = await ask(all);
    if (all) {
      this.fullAt = at;
      this.pauseMs = Math.min(FULL_MAX_MS, FULL_SHARE * (this.clock.monotonic() - at));
    }
    return { found, at };
  }
}

/** What one process remembers of the heads of its sweep. */
export class Heads {
  private readonly looks: Looks;
  private readonly trail = new Trail();
  private bounds: Bounds = NONE;

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.looks = new Looks(clock);
  }

  /** A lease of this length is given: none shorter than the shortest so far is expected. */
  leased(ms: number): void {
    this.looks.leased(ms);
  }

  /** Looks from where it should begin. `all` = from the very beginning. */
  async look<Row extends Found>(ask: (bounds: Bounds, all: boolean) => Promise<Row>): Promise<Row> {
    const { found, at } = await this.looks.make((all) => ask(all ? NONE : this.bounds, all));
    const { now } = found;
    this.trail.clear(found.tally === null ? found.tallied : found.tally - 1, at);
    this.bounds = {
      lease: this.looks.leaseBound(found.lease, now),
      deadline: Math.min(found.deadline ?? now, now) - SLACK_MS,
      look: Math.min(found.look ?? now, now) - SLACK_MS,
      tally: this.trail.bound,
    };
    return found;
  }

  /** Where the step that ends lost leases, or deadlines, begins: at what the last look found. */
  get now(): Bounds {
    return this.bounds;
  }
}

/** Lower bounds of a look at the outbox: number of a row of `endpoint_wake`, instants of leases of POSTs and of endpoints. */
export interface HookBounds {
  wake: number;
  lease: number;
  due: number;
}

/** What a look at the outbox found: the first of each, null = none. */
export interface HookFound {
  now: number;
  /** Number of a wake. */
  wake: number | null;
  /** The last number given to one before the look. */
  given: number;
  lease: number | null;
  due: number | null;
}

const NO_HOOKS: HookBounds = { wake: 0, lease: 0, due: 0 };

/** What one process remembers of the heads of the outbox. */
export class HookHeads {
  private readonly looks: Looks;
  private readonly trail = new Trail();
  private bounds: HookBounds = NO_HOOKS;
  private strayAt = Number.NEGATIVE_INFINITY;
  /** The look for strays goes on behind this endpoint. */
  strayed = 0;
  private readonly clock: Pick<Clock, 'monotonic'>;

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.clock = clock;
    this.looks = new Looks(clock);
  }

  /** A POST is leased for so long. */
  leased(ms: number): void {
    this.looks.leased(ms);
  }

  /** Looks from where it should begin. */
  async look(ask: (bounds: HookBounds) => Promise<HookFound>): Promise<HookFound> {
    const { found, at } = await this.looks.make((all) => ask(all ? NO_HOOKS : this.bounds));
    const { now } = found;
    this.trail.clear(found.wake === null ? found.given : found.wake - 1, at);
    this.bounds = {
      wake: this.trail.bound,
      lease: this.looks.leaseBound(found.lease, now),
      due: Math.min(found.due ?? now, now) - SLACK_MS,
    };
    return found;
  }

  /** Where what follows a look begins: at what that found. */
  get now(): HookBounds {
    return this.bounds;
  }

  /** Events below the bound of their endpoint are to be looked for. */
  get straying(): boolean {
    return this.clock.monotonic() - this.strayAt >= STRAY_MS;
  }

  /** They were, up to the endpoint `last`; null = of all. */
  stray(last: number | null): void {
    this.strayed = last ?? 0;
    if (last === null) this.strayAt = this.clock.monotonic();
  }
}
