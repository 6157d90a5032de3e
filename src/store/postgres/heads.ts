/**
 * Where the looks of the sweep begin. What is due first is the head of an index, and there the dead entries of all that was due
 * before pile up while somebody holds an old snapshot (a backup): a look from the very beginning walks all of them. So most looks
 * begin at a lower bound that is remembered from the last one, and from time to time one looks at all.
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

/** What one process remembers of the heads of its sweep. */
export class Heads {
  private readonly clock: Pick<Clock, 'monotonic'>;
  private bounds: Bounds = NONE;
  private fullAt = Number.NEGATIVE_INFINITY;
  private pauseMs = 0;
  private shortestLeaseMs = Number.POSITIVE_INFINITY;
  /** Up to here all were there at `at`. */
  private tallied: { at: number; no: number } | null = null;

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.clock = clock;
  }

  /** A lease of this length is given: none shorter than the shortest so far is expected. */
  leased(ms: number): void {
    if (ms >= this.shortestLeaseMs) return;
    this.shortestLeaseMs = ms;
    this.fullAt = Number.NEGATIVE_INFINITY;
  }

  /** Looks from where it should begin. `all` = from the very beginning. */
  async look<Row extends Found>(ask: (bounds: Bounds, all: boolean) => Promise<Row>): Promise<Row> {
    const at = this.clock.monotonic();
    const all = at - this.fullAt >= this.pauseMs;
    const before = all ? NONE : this.bounds;
    const found = await ask(before, all);
    if (all) {
      this.fullAt = at;
      this.pauseMs = Math.min(FULL_MAX_MS, FULL_SHARE * (this.clock.monotonic() - at));
    }
    const { now } = found;
    const soonestLease = Number.isFinite(this.shortestLeaseMs) ? now + this.shortestLeaseMs : now;
    this.bounds = {
      lease: Math.min(found.lease ?? Number.POSITIVE_INFINITY, soonestLease) - SLACK_MS,
      deadline: Math.min(found.deadline ?? now, now) - SLACK_MS,
      look: Math.min(found.look ?? now, now) - SLACK_MS,
      tally: this.tallyBound(found, at, before.tally),
    };
    return found;
  }

  /** Numbers are given before the commit: the bound is what was there a while ago. */
  private tallyBound(found: Found, at: number, before: number): number {
    const no = found.tally === null ? found.tallied : found.tally - 1;
    const late = this.tallied;
    if (late && no < late.no) {
      // Committed late.
      this.tallied = null;
      return Math.min(before, no);
    }
    if (late && at - late.at < SLACK_MS) return before;
    this.tallied = { at, no };
    return late ? Math.max(before, late.no) : before;
  }

  /** Where the step that ends lost leases, or deadlines, begins: at what the last look found. */
  get now(): Bounds {
    return this.bounds;
  }
}
