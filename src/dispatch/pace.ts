/**
 * The rate of one lane. Pure but for the instants that it is told.
 *
 * Promises: see `Pace`. Fails: nothing here fails; every `reserve` must be followed by one `left` or `abandon`.
 */

/**
 * The rate of a lane: even turns, and beyond that no more than `burst` departures in any `spanMs`, counted when they leave.
 * The turns alone would not do: one that leaves late and its successors that leave in time are closer than a second.
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
