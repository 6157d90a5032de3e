/**
 * The store's clock as this process can know it: bounds, not a guess. Nothing leaves before its instant by the lower bound, and
 * nothing that may be too late by the upper one leaves at all (G8).
 *
 * Promises: the store's true time lies between the bounds while the two clocks part by no more than CLOCK_DRIFT. Fails: never;
 * before the first answer the bounds are infinite.
 */

/** How fast two clocks may part (twice what time services correct at). */
const CLOCK_DRIFT = 0.001;

/**
 * What the store's clock shows while ours shows t: between t + `least` and t + `most`. Each answer of the store bounds it by
 * the instants of its question and its arrival; the quick ones bound it closely, so a slow one (a long commit, a process that
 * stood still) need not be guessed at.
 */
export class StoreClock {
  least = Number.NEGATIVE_INFINITY;
  most = Number.POSITIVE_INFINITY;
  private at = 0;

  /** `storeNow` was read (in whole ms) between `askedAt` and `answeredAt` of our clock. */
  learn(storeNow: number, askedAt: number, answeredAt: number): void {
    const drift = (answeredAt - this.at) * CLOCK_DRIFT;
    this.at = answeredAt;
    const least = storeNow - answeredAt;
    const most = storeNow + 1 - askedAt;
    this.least = Math.max(this.least - drift, least);
    this.most = Math.min(this.most + drift, most);
    // The store's clock was set: only the newest answer counts.
    if (this.least > this.most) {
      this.least = least;
      this.most = most;
    }
  }
}
