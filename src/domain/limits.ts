/**
 * The arithmetic of limits: which bucket of time an instant falls into, how much of a shared counter is leased at a time, and the
 * concurrency that a door allows itself, and the pace of its refusals. Pure: time comes as an argument.
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

/** What an account may spend, and since when it counts where that is a TOTAL. */
export interface Purse extends SpendLimit {
  since: number;
}

/** By an account, whole or as its row has it; null = as much as it likes. */
export function purseOf({
  limits,
  totalSince = 0,
}: {
  limits?: { spend?: SpendLimit | null };
  totalSince?: number;
}): Purse | null {
  const spend = limits?.spend ?? null;
  return spend && { ...spend, since: spend.per === 'TOTAL' ? totalSince : 0 };
}

/** The bucket that a spend limit counts in at `now`; TOTAL has one for ever, known by when it began. */
export function spendBucket(limit: Purse, now: number): Bucket {
  if (limit.per === 'DAY') return bucketOf(now, DAY_MS);
  if (limit.per === 'TOTAL') return { bucket: limit.since, endsAt: now + EVER_MS };
  const date = new Date(now);
  const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
  return { bucket: 12 * year + month, endsAt: Date.UTC(year, month + 1) };
}

/** What the counter of money is called. */
export const SPEND = 'spend';

/** All of `cost` (millionths) or nothing, of what the account may spend. */
export function spendTake(account: number, limit: Purse, now: number, cost: number): Take {
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

/** Places at a door: never fewer, never more, and while nobody was refused for a while: what a rush may fill at once. */
const PLACES_MIN = 8;
const PLACES_MAX = 4096;
const PLACES_FIRST = 256;
/** Without a refusal for so long the rush is over. */
const QUIET_MS = 1_000;
/** Looked at as soon as there are so many answers, at most once in this time. */
const WINDOW_MS = 50;
const WINDOW_ANSWERS = 16;
/** A mean up to here is never too slow: disks have their moments. */
const FAST_MS = 10;
/** What a mean may be of the calm one: their p99 is then 1.1 to 1.5 times the calm p99, where nothing else disturbs (in overload.test.ts, where it was chosen). */
const SLOWER = 2.5;
/** With at most so many under way, on average, it takes what it takes in calm. */
const FEW = 32;
/** How fast the calm time is learnt, of a window; and (so that a slow disk is no emergency) of a second at the fewest places. */
const LEARN = 0.2;
const LEARN_SLOWLY = 0.02;
/** How far the places follow a window: those that wait for one commit come in bunches. */
const FOLLOW = 0.5;
/** This part of the places is kept for accounts that have few, while more than one asks. */
const KEPT = 0.25;
/** Whoever asked within this is there. */
const PRESENT_MS = 1_000;

/**
 * How many requests may be under way. As long as all find a place nothing is done: those who wait for their own answers do not
 * overrun anybody. From the first that finds none, so many are let in as are answered within 2.5 times the calm time, by Little's law
 * from the answers of each window: places = answers a second x (that time - what they wait for the thread). With what is refused early, those that are let in keep
 * their pace; since it is the rate that counts and not how long the ones before took, a rush that filled the door is not taken
 * for a slow store. (Of the same family: TCP Vegas, Netflix' concurrency limits.)
 */
export class Places {
  #places = PLACES_FIRST;
  #under = 0;
  #peak = 0;
  #shortAt = Number.NEGATIVE_INFINITY;
  #short = false;
  #calm = FAST_MS / SLOWER;
  #count = 0;
  #sum = 0;
  #waited = 0;
  /** Time in which somebody was under way: until `#busySince`, which is null while nobody is. */
  #busy = 0;
  #busySince: number | null = null;
  #windowBegan = Number.NEGATIVE_INFINITY;
  readonly #mine = new Map<number, number>();
  /** Of each account, those that were let in where no place was free. */
  readonly #guests = new Map<number, number>();
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
   * Whether `account` would be let in at `now`: to a free place, but while others ask too, to the last quarter of them only when it
   * holds less than half of an equal share itself; then also where none is free. `now` here and below by a clock that never goes back.
   */
  free(account: number, now: number): boolean {
    this.#note(account, now);
    if (this.#places < PLACES_FIRST && now - this.#shortAt > QUIET_MS) this.#places = PLACES_FIRST;
    const alone = isOnly(this.#present, account) && isOnly(this.#before, account);
    if (this.#under < this.#places * (alone ? 1 : 1 - KEPT)) return true;
    // Also where the others hold more than there are, since the places have just become fewer.
    if (!alone && this.#mayCome(account)) return true;
    this.#short = true;
    this.#shortAt = now;
    return false;
  }

  enter(account: number, now: number): void {
    if (this.#under >= this.#places) this.#guests.set(account, (this.#guests.get(account) ?? 0) + 1);
    this.#under++;
    this.#busySince ??= now;
    this.#peak = Math.max(this.#peak, this.#under);
    this.#mine.set(account, (this.#mine.get(account) ?? 0) + 1);
  }

  /**
   * `took`: how long the answer took, and how much of that it waited before it had its place, in ms; null where that tells nothing
   * (what was refused for its words never saw the disk).
   */
  leave(account: number, took: { ms: number; waited: number } | null, now: number): void {
    this.#under--;
    less(this.#mine, account);
    less(this.#guests, account);
    this.#busy += now - (this.#busySince ?? now);
    this.#busySince = this.#under === 0 ? null : now;
    if (took !== null) {
      this.#count++;
      this.#sum += took.ms;
      this.#waited += took.waited;
    }
    if (now - this.#windowBegan < WINDOW_MS || this.#count < WINDOW_ANSWERS) return;
    if (this.#busy > 0) this.#look();
    this.#windowBegan = now;
    [this.#count, this.#sum, this.#waited, this.#busy] = [0, 0, 0, 0];
    [this.#peak, this.#short] = [this.#under, false];
  }

  #look(): void {
    const mean = this.#sum / this.#count;
    if (mean < this.#calm || this.#sum / this.#busy <= FEW) this.#calm += (mean - this.#calm) * this.#rate(mean);
    if (!this.#short) {
      // What a long rush found is not kept for the next.
      if (this.#places > PLACES_FIRST) this.#places = Math.max(PLACES_FIRST, this.#peak, (this.#places * 7) >> 3);
      return;
    }
    const most = Math.max(FAST_MS, SLOWER * this.#calm);
    const goal = (this.#count / this.#busy) * Math.max(most / 2, most - this.#waited / this.#count);
    const next = Math.round(this.#places + (goal - this.#places) * FOLLOW);
    this.#places = Math.min(PLACES_MAX, Math.max(PLACES_MIN, next));
  }

  /** In a rush even few may wait for others: for the thread, for the disk. */
  #rate(mean: number): number {
    if (mean < this.#calm || !this.#short) return LEARN;
    return this.#places === PLACES_MIN ? Math.min(LEARN, (LEARN_SLOWLY * this.#busy) / 1_000) : 0;
  }

  #note(account: number, now: number): void {
    if (now >= this.#presentUntil) {
      // A gap longer than that leaves nobody.
      this.#before = now >= this.#presentUntil + PRESENT_MS ? new Set() : this.#present;
      this.#present = new Set();
      this.#presentUntil = now + PRESENT_MS;
    }
    this.#present.add(account);
  }

  /** Of guests, for whom no place was free, there are at most as many accounts as half of the places. */
  #mayCome(account: number): boolean {
    const asking = Math.max(2, this.#present.size, this.#before.size);
    if ((this.#mine.get(account) ?? 0) >= this.#places / (2 * asking)) return false;
    return this.#under < this.#places || this.#guests.has(account) || this.#guests.size < this.#places / 2;
  }
}

/** One less of an account's; none is not kept. */
function less(counts: Map<number, number>, account: number): void {
  const count = counts.get(account);
  if (count === undefined) return;
  if (count === 1) counts.delete(account);
  else counts.set(account, count - 1);
}

function isOnly(set: ReadonlySet<number>, account: number): boolean {
  return set.size === 0 || (set.size === 1 && set.has(account));
}

/** A period of a pace, and how many refusals are told in one: 4 000 a second are a tenth of a processor, or a fifth with their reading. */
export const PACE_MS = 5;
const PACE_MOST = 20;
const PACE_LEAST = 5;
/** From one period to the next, while the thread is in time. */
const PACE_MORE = 1.1;
/** A period that ends so much later than it should says that the thread is behind: timers have a grain of 1 ms. */
const LATE_MS = 2;

/**
 * How many refusals are told in a period; those beyond wait for the next ones. A client asks again when it has been told, so this
 * bounds how many of those that come for nothing a thread reads in a turn, and with it how long all others wait for it. Half as
 * many after a period that came late, and by and by as many as before.
 */
export class Pace {
  #most = PACE_MOST;
  #told = 0;

  /** Whether one that comes while `waiting` wait is told at once. */
  free(waiting: number): boolean {
    if (waiting > 0 || this.#told >= this.#most) return false;
    this.#told++;
    return true;
  }

  /** A period has ended, `lateMs` too late: how many of the `waiting` are told now. 0 = there are none, and the rush is over. */
  next(waiting: number, lateMs: number): number {
    if (waiting === 0) this.#most = PACE_MOST;
    else if (lateMs > LATE_MS) this.#most = Math.max(PACE_LEAST, this.#most >> 1);
    else this.#most = Math.min(PACE_MOST, Math.ceil(this.#most * PACE_MORE));
    this.#told = Math.min(waiting, this.#most);
    return this.#told;
  }
}
