/**
 * The arithmetic of limits: which bucket of time an instant falls into, how much of a shared counter is leased at a time, and the
 * concurrency that a door allows itself. Pure: time comes as an argument.
 */
import type { SpendLimit, Take } from './accounts.ts';
import { micros } from './prices.ts';

export const MINUTE_MS = 60_000;
export const DAY_MS = 86_400_000;

/** As good as for ever: a hundred years. */
const EVER_MS = 36_525 * DAY_MS;

/** A bucket of a counter, and the instant at which it ends. */
export interface Bucket {
  bucket: number;
  endsAt: number;
}

/** The bucket of `now` among those of `ms` each. */
export function bucketOf(now: number, ms: number): Bucket {
  const bucket = Math.floor(now / ms);
  return { bucket, endsAt: (bucket + 1) * ms };
}

/** The bucket that a spend limit counts in; TOTAL has one for ever. */
export function spendBucket(limit: SpendLimit, now: number): Bucket {
  if (limit.per === 'DAY') return bucketOf(now, DAY_MS);
  if (limit.per === 'TOTAL') return { bucket: 0, endsAt: now + EVER_MS };
  const date = new Date(now);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  return { bucket: 12 * year + month, endsAt: Date.UTC(year, month + 1) };
}

/** What the counter of money is called. */
export const SPEND = 'spend';

/** All of `cost` (millionths) or nothing, of what the account may spend. */
export function spendTake(account: number, limit: SpendLimit, now: number, cost: number): Take {
  const { bucket, endsAt } = spendBucket(limit, now);
  const most = micros(limit.amount);
  return { account, scope: SPEND, bucket, buckets: 1, want: cost, least: cost, most, keepMs: endsAt - now + MINUTE_MS };
}

/** How much of a counter a node leases at a time: a fiftieth, so that what idle nodes hold back is small. */
export function leaseOf(most: number): number {
  return Math.max(1, Math.floor(most / 50));
}

/** The flooding rule: in any hour, so many messages to one number, and so many equal ones. Source: error codes 4103, 4104. */
const FLOOD_ANY = 20;
const FLOOD_EQUAL = 6;
export const FLOOD_STATUS = 20;
export const FLOOD_ANY_ERROR = 4103;
export const FLOOD_EQUAL_ERROR = 4104;
/** Counted by ten minutes; seven of them cover every hour that ends now. */
const FLOOD_BUCKET_MS = 600_000;
const FLOOD_BUCKETS = 7;

/** The two takes that one message to `to` needs; `content` names equal contents. */
export function floodTakes(account: number, to: string, content: string, now: number): [Take, Take] {
  const { bucket, endsAt } = bucketOf(now, FLOOD_BUCKET_MS);
  const keepMs = endsAt - now + FLOOD_BUCKETS * FLOOD_BUCKET_MS;
  const take = { account, bucket, buckets: FLOOD_BUCKETS, want: 1, least: 1, keepMs };
  return [
    { ...take, scope: `to ${to}`, most: FLOOD_ANY },
    { ...take, scope: `to ${to} ${content}`, most: FLOOD_EQUAL },
  ];
}

/** Places at a door: never fewer, never more, and at the beginning. */
const PLACES_MIN = 32;
const PLACES_MAX = 4096;
const PLACES_FIRST = 512;
/** Looked at once in a window that has at least so many answers. */
const WINDOW_MS = 500;
const WINDOW_ANSWERS = 20;
/** A p90 up to here is never too slow: disks have their moments. */
const FAST_MS = 40;
/** Beyond so many times the calm p90 requests have waited for each other. */
const SLOWER = 2;

/** How fast the calm time is learnt, from calm windows and (so that a slow disk is no emergency) at the fewest places. */
const LEARN = 0.2;
const LEARN_SLOWLY = 0.01;
/** Whoever asked within this is there. */
const PRESENT_MS = 1_000;

/**
 * How many requests may be under way, found by their own times: while the slow ones of a window (p90) take more than twice what
 * they take in calm, places are taken away, at most half at once; while they do not and somebody found none, some are added. With
 * what is refused early, those that are let in keep their pace (AIMD, as in TCP Vegas and Netflix' concurrency limits).
 */
export class Places {
  #places = PLACES_FIRST;
  #under = 0;
  #peak = 0;
  #short = false;
  #calm = FAST_MS / SLOWER;
  #times: number[] = [];
  #windowEnds = 0;
  readonly #mine = new Map<number, number>();
  #present = new Set<number>();
  #before = new Set<number>();
  #presentUntil = 0;

  get places(): number {
    return this.#places;
  }

  get under(): number {
    return this.#under;
  }

  /**
   * Whether `account` would be let in at `now`: not when all is taken, nor, while others ask too, when it holds half of all places
   * itself. `now` here and below by a clock that never goes back.
   */
  free(account: number, now: number): boolean {
    if (now >= this.#presentUntil) {
      // A gap longer than that leaves nobody.
      this.#before = now >= this.#presentUntil + PRESENT_MS ? new Set() : this.#present;
      this.#present = new Set();
      this.#presentUntil = now + PRESENT_MS;
    }
    this.#present.add(account);
    const alone = isOnly(this.#present, account) && isOnly(this.#before, account);
    const most = alone ? this.#places : this.#places / 2;
    if (this.#under < this.#places && (this.#mine.get(account) ?? 0) < most) return true;
    this.#short = true;
    return false;
  }

  enter(account: number): void {
    this.#under++;
    this.#peak = Math.max(this.#peak, this.#under);
    this.#mine.set(account, (this.#mine.get(account) ?? 0) + 1);
  }

  leave(account: number, tookMs: number, now: number): void {
    this.#under--;
    const mine = (this.#mine.get(account) ?? 1) - 1;
    if (mine === 0) this.#mine.delete(account);
    else this.#mine.set(account, mine);
    this.#times.push(tookMs);
    if (now < this.#windowEnds || this.#times.length < WINDOW_ANSWERS) return;
    this.#look();
    this.#windowEnds = now + WINDOW_MS;
    this.#times = [];
    this.#peak = this.#under;
    this.#short = false;
  }

  #look(): void {
    const sorted = this.#times.sort((a, b) => a - b);
    const p90 = sorted[Math.floor(sorted.length * 0.9)] as number;
    // What it takes with a few under way is what it takes in calm.
    if (this.#peak <= PLACES_MIN / 2) this.#calm += (p90 - this.#calm) * LEARN;
    else if (this.#places === PLACES_MIN) this.#calm += (p90 - this.#calm) * LEARN_SLOWLY;
    const most = Math.max(FAST_MS, SLOWER * this.#calm);
    if (p90 > most) {
      this.#places = Math.max(PLACES_MIN, Math.floor(this.#places * Math.max(0.5, most / p90)));
    } else if (this.#short) {
      this.#places = Math.min(PLACES_MAX, this.#places + Math.max(1, this.#places >> 4));
    }
  }
}

function isOnly(set: ReadonlySet<number>, account: number): boolean {
  return set.size === 0 || (set.size === 1 && set.has(account));
}
