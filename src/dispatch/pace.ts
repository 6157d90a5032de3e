/**
 * The rate of one lane. Pure but for the instants that it is told, and for those who wait for a `turn`.
 *
 * Promises: see `Pace`. Fails: nothing here fails; every `reserve` must be followed by one `left` or `abandon`.
 */
import type { Turn } from '../carriers/carrier.ts';
import type { Clock } from '../env.ts';

/**
 * The rate of a lane: even turns, and beyond that no more than `burst` departures in any `spanMs`, counted when they leave.
 * The turns alone would not do: one that leaves late and its successors that leave in time are closer than a second.
 *
 * A submission may weigh several turns: a text in one PDU is as many segments. They are counted at the instant when it leaves, all
 * of them; only one that is heavier than the burst itself goes beyond it, once everything before it is a span away.
 */
export class Pace {
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

  /** The next turn: ends with `left`, or with `abandon` where nothing left, of the same weight. */
  reserve(now: number, weight = 1): number {
    const places = this.places(weight);
    const turn = Math.max(now, this.nextTurn, this.departure(this.reserved + places - 1) + this.spanMs);
    this.reserved += places;
    this.nextTurn = turn + weight * this.stepMs;
    return turn;
  }

  /** The earliest instant at which the holder of `turn` may leave, as things stand. */
  mayLeave(turn: number, weight = 1): number {
    return Math.max(turn, this.departure(this.places(weight) - 1) + this.spanMs);
  }

  left(now: number, weight = 1): void {
    const places = this.places(weight);
    this.reserved -= places;
    for (let n = 0; n < places; n++) {
      this.departures[this.at] = now;
      this.at = (this.at + 1) % this.departures.length;
    }
  }

  abandon(weight = 1): void {
    this.reserved -= this.places(weight);
  }

  /** The next turn, for what follows the first byte of a submission. */
  turn(clock: Clock): Turn {
    const turn = this.reserve(clock.monotonic());
    return {
      come: async (signal) => {
        for (;;) {
          const now = clock.monotonic();
          const leaves = this.mayLeave(turn);
          if (now >= leaves) {
            this.left(now);
            return true;
          }
          if (signal.aborted) {
            this.abandon();
            return false;
          }
          await clock.sleep(leaves - now, signal);
        }
      },
      drop: () => this.abandon(),
    };
  }

  private places(weight: number): number {
    return Math.min(weight, this.departures.length);
  }

  /** The nth departure from the oldest that counts. */
  private departure(n: number): number {
    return this.departures[(this.at + n) % this.departures.length] as number;
  }
}

/** Where there is no rate. */
export const FREE_TURN: Turn = { come: async (signal) => !signal.aborted, drop: () => undefined };

/** One submission on its way through the rate of its lane; ends with `end`. */
export class Departure {
  /** Its first byte has left, or is about to. */
  gone = false;
  /** Its carrier asked too late: it is put back. */
  passed = false;
  /** Turns that it takes; set before `earliest` is asked. */
  weight = 1;
  private readonly pace: Pace | null;
  private turn: number | null = null;

  constructor(pace: Pace | null) {
    this.pace = pace;
  }

  /** Whether it has a turn already. */
  get reserved(): boolean {
    return this.turn !== null;
  }

  /** When it may leave, as things stand; takes a turn where it has none. */
  earliest(now: number): number {
    if (this.pace === null) return now;
    this.turn ??= this.pace.reserve(now, this.weight);
    return this.pace.mayLeave(this.turn, this.weight);
  }

  leave(now: number): void {
    if (this.turn !== null && !this.gone) this.pace?.left(now, this.weight);
    this.gone = true;
  }

  /** Asked by a carrier that had to connect first: where its time is over by then it is put back. */
  unless(over: boolean): boolean {
    this.passed ||= over;
    return !over;
  }

  /** What has not left gives its turn up. */
  end(): void {
    if (this.turn !== null && !this.gone) this.pace?.abandon(this.weight);
    this.turn = null;
  }
}
