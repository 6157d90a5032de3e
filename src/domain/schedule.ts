/**
 * Time and pace: when a message may leave, how fast its bulk may go, and when it is too late.
 *
 * Promises: pure; reads no clock and keeps no state that an answer depends on. Instants are epoch ms UTC; turns of a speed
 * limit are microseconds since the epoch, because 1 000 000 a minute is a turn every 60 us (exact in a double until 2255).
 * Everything is UTC: no daylight saving. What cannot be read is null. Input is validated by the API's schema; where a
 * function relies on that it says so.
 */
import type { Day, DeliveryTimeWindow, SpeedLimit, ValidityPeriod } from './message.ts';

/** Epoch ms UTC. */
export type Instant = number;

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const DAY_MINUTES = 1440;

/** How far ahead `sendAt` may lie. */
export const SCHEDULE_MAX_MS = 180 * DAY_MS;

/** Default and maximum of a validity period. */
const VALIDITY_MAX_MS = 48 * HOUR_MS;

// --- Instants as text ------------------------------------------------------------------------------------------------

/**
 * Reads `yyyy-MM-dd'T'HH:mm:ss[.S...](Z|+hhmm|+hh:mm)`. Null for anything else: no zone, a day that the month does not
 * have, hour 24, second 60, an offset beyond 18 h. A fraction may have 1 to 9 digits, because official SDKs write from one
 * (Go drops trailing zeros) to six (Python); what is finer than a millisecond is cut off.
 */
export function parseInstant(text: string): Instant | null {
  if (text.length < 20 || text.length > 35) return null;
  if (text[4] !== '-' || text[7] !== '-' || text[10] !== 'T' || text[13] !== ':' || text[16] !== ':') return null;
  const year = digits(text, 0, 4);
  const month = digits(text, 5, 2);
  const day = digits(text, 8, 2);
  const hour = digits(text, 11, 2);
  const minute = digits(text, 14, 2);
  const second = digits(text, 17, 2);
  if (year < 0 || month < 1 || month > 12 || day < 1 || day > daysInMonth(year, month)) return null;
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return null;

  let at = 19;
  let ms = 0;
  if (text[at] === '.') {
    const start = ++at;
    for (let weight = 100; at - start < 9; at++) {
      const digit = digits(text, at, 1);
      if (digit < 0) break;
      ms += digit * weight;
      weight = weight === 100 ? 10 : weight === 10 ? 1 : 0;
    }
    if (at === start) return null;
  }
  const offset = offsetMinutes(text, at);
  if (offset === null) return null;
  const minutes = hour * 60 + minute - offset;
  return daysFromCivil(year, month, day) * DAY_MS + minutes * MINUTE_MS + second * 1000 + ms;
}

/** Minutes east of UTC of the zone that fills `text` from `at` to its end, or null. */
function offsetMinutes(text: string, at: number): number | null {
  const sign = text[at];
  if (sign === 'Z') return text.length === at + 1 ? 0 : null;
  if (sign !== '+' && sign !== '-') return null;
  const colon = text[at + 3] === ':' ? 1 : 0;
  if (text.length !== at + 5 + colon) return null;
  const hours = digits(text, at + 1, 2);
  const minutes = digits(text, at + 3 + colon, 2);
  if (hours < 0 || minutes < 0 || minutes > 59 || hours * 60 + minutes > 18 * 60) return null;
  return (hours * 60 + minutes) * (sign === '-' ? -1 : 1);
}

/** `count` ASCII digits at `from` as a number, or -1. */
function digits(text: string, from: number, count: number): number {
  let value = 0;
  for (let i = from; i < from + count; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (!(digit >= 0 && digit <= 9)) return -1; // also NaN, past the end
    value = value * 10 + digit;
  }
  return value;
}

// Reports of one day share the day's text; a fresh computation costs about as much as all the rest of the format.
let cachedDay = Number.NaN;
let cachedText = '';

/** `yyyy-MM-dd'T'HH:mm:ss.SSS+0000`, the only form that leaves the product. For years 0 to 9999. */
export function formatInstant(at: Instant): string {
  const day = Math.floor(at / DAY_MS);
  if (day !== cachedDay) {
    cachedText = dayText(day);
    cachedDay = day;
  }
  const ms = Math.floor(at - day * DAY_MS);
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  const fraction = ms % 1000;
  const zeros = fraction < 10 ? '00' : fraction < 100 ? '0' : '';
  return `${cachedText}${TWO[hours]}:${TWO[minutes % 60]}:${TWO[seconds % 60]}.${zeros}${fraction}+0000`;
}

const TWO = Array.from({ length: 60 }, (_, n) => String(n).padStart(2, '0'));

/** `yyyy-MM-ddT` of a day since the epoch. Civil-from-days after Howard Hinnant, "chrono-compatible date algorithms". */
function dayText(day: number): string {
  const shifted = day + 719_468; // days since 0000-03-01: the leap day is the last of its year
  const era = Math.floor(shifted / 146_097);
  const dayOfEra = shifted - era * 146_097;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36_524) - Math.floor(dayOfEra / 146_096)) / 365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const fromMarch = Math.floor((5 * dayOfYear + 2) / 153);
  const date = dayOfYear - Math.floor((153 * fromMarch + 2) / 5) + 1;
  const month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9;
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0);
  return `${String(year).padStart(4, '0')}-${TWO[month]}-${TWO[date]}T`;
}

/** Days since 1970-01-01, the inverse of `dayText`. */
function daysFromCivil(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

function daysInMonth(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

// --- Validity and windows --------------------------------------------------------------------------------------------

/** Milliseconds that a message is worth sending: 48 h when nothing is asked for, and never more. */
export function validityMs(v?: ValidityPeriod): number {
  if (!v) return VALIDITY_MAX_MS;
  const unit = v.timeUnit === 'HOURS' ? HOUR_MS : v.timeUnit === 'SECONDS' ? 1000 : MINUTE_MS;
  return Math.min(v.amount * unit, VALIDITY_MAX_MS);
}

/**
 * When messages may leave, in UTC. An opening begins at minute `from` of each day in `days` (bit 0 = Monday) and ends before
 * minute `to`; 0 and 1440 = the whole day. `to` at or before `from` reaches into the next day and belongs to the day that
 * it began on.
 */
export interface Window {
  days: number;
  from: number;
  to: number;
}

const WEEK: readonly Day[] = ['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'];
const EVERY_DAY = 0b1111111;

/** The window of a validated request; null when it never closes. */
export function windowOf(w?: DeliveryTimeWindow): Window | null {
  if (!w) return null;
  let days = 0;
  for (const day of w.days) days |= 1 << WEEK.indexOf(day);
  if (w.from && w.to) {
    return { days, from: w.from.hour * 60 + (w.from.minute ?? 0), to: w.to.hour * 60 + (w.to.minute ?? 0) };
  }
  return days === EVERY_DAY ? null : { days, from: 0, to: DAY_MINUTES };
}

/** The first instant not before `at` that lies in an opening: `at` itself when open. Infinity for a window without days. */
export function nextOpening(w: Window | null, at: Instant): Instant {
  if (w === null) return at;
  const today = Math.floor(at / DAY_MS);
  // Yesterday's opening may reach into today; in a one-day-a-week window the next one is up to 7 days away.
  for (let day = today - 1; day <= today + 7; day++) {
    if (!opensOn(w, day)) continue;
    const start = day * DAY_MS + w.from * MINUTE_MS;
    if (at < start + lengthMs(w)) return Math.max(at, start);
  }
  return Number.POSITIVE_INFINITY;
}

/**
 * The end of the opening that contains `at`, or `at` itself when it is closed then. Openings that touch count as one, so a
 * whole Monday and a whole Tuesday close on Wednesday; Infinity when it never closes.
 */
export function windowCloses(w: Window | null, at: Instant): Instant {
  if (w === null) return Number.POSITIVE_INFINITY;
  const today = Math.floor(at / DAY_MS);
  let end = at;
  for (let day = today - 1; day <= today + 7; day++) {
    const start = day * DAY_MS + w.from * MINUTE_MS;
    if (start > end) return end;
    if (opensOn(w, day)) end = Math.max(end, start + lengthMs(w));
  }
  return Number.POSITIVE_INFINITY;
}

function opensOn(w: Window, day: number): boolean {
  // 1970-01-01 was a Thursday.
  const weekday = (((day + 3) % 7) + 7) % 7;
  return (w.days & (1 << weekday)) !== 0;
}

function lengthMs(w: Window): number {
  return (w.to > w.from ? w.to - w.from : w.to - w.from + DAY_MINUTES) * MINUTE_MS;
}

// --- Pace ------------------------------------------------------------------------------------------------------------

/**
 * A bulk's speed limit as it runs. Every submission takes the turn `max(next, now)` and moves `next` to one interval after
 * it; an idle bucket saves nothing up. When the limit changes, the last turn stays where it was: new `next` = `next` - old
 * interval + new interval. When a pause ends, `next` moves up to that instant.
 */
export interface RateBucket {
  /** Microseconds between two turns; 0 = no limit. */
  intervalUs: number;
  /** Earliest next turn, microseconds since the epoch. */
  next: number;
}

/**
 * How late a submission may leave after its turn without breaking the limit. The promise is about what leaves our socket:
 * if one is late and its `amount`-th successor punctual, they are less than a unit apart. So `amount` turns are spread over
 * the unit plus this (0.4 % of a minute). A submission that would leave later than this must take a new turn.
 */
export const PACE_SLACK_MS = 250;

/** Microseconds between two turns, rounded up so that `amount` turns never fit into less than a unit; 0 = no limit. */
export function intervalUs(limit?: SpeedLimit): number {
  if (!limit) return 0;
  const unit = limit.timeUnit === 'DAY' ? DAY_MS : limit.timeUnit === 'HOUR' ? HOUR_MS : MINUTE_MS;
  return Math.ceil(((unit + PACE_SLACK_MS) * 1000) / limit.amount);
}

// --- Admission -------------------------------------------------------------------------------------------------------

/** What `admit` must know of a run (or of a single retry: `remaining` 1 and its own `validUntil`). */
export interface RunView {
  acceptedAt: Instant;
  /** Null = at once. After a pause the caller gives the later of this and the end of the pause, if the clock stood. */
  sendAt: Instant | null;
  window: Window | null;
  validityMs: number;
  /** Set once the clock has started; null for messages that have not had a turn under a speed limit. */
  validUntil: Instant | null;
  /** Submissions that wait in this run. */
  remaining: number;
}

export type Admission =
  /**
   * Take `count`: number k leaves at `firstAt + k * stepUs` (microseconds since the epoch), not before and no more than
   * PACE_SLACK_MS after. Store `bucketNext`, and `validUntil` for all of them.
   */
  | { kind: 'go'; count: number; firstAt: number; stepUs: number; bucketNext: number; validUntil: Instant }
  /** Nothing to do before `until`; then ask again. */
  | { kind: 'wait'; until: Instant }
  /**
   * The first `count` were never sent in time; their validity ended at `at` (with a limit: the first one's). Store
   * `bucketNext` and ask again for the rest: with a limit, each message's clock starts at its own turn.
   */
  | { kind: 'expired'; at: Instant; count: number; bucketNext: number };

/**
 * Decides for the head of a run: take up to `want` submissions now, wait, or give up.
 *
 * The validity clock starts once, at the first instant the message may leave: the latest of acceptance, sendAt and its turn
 * under the speed limit, moved into the window. A busy or dead carrier does not move it, so what waits for one expires.
 * Turns up to `aheadMs` in the future may be taken, so that a fast limit needs few claims and a slow one is punctual.
 *
 * Relies on: `want` and `remaining` at least 1, `validityMs` above 0, one `bucket` locked during the call.
 */
export function admit(run: RunView, bucket: RateBucket | null, now: Instant, want: number, aheadMs: number): Admission {
  const stepUs = bucket?.intervalUs ?? 0;
  const next = bucket?.next ?? 0;
  const opensAt = Math.max(run.acceptedAt, run.sendAt ?? run.acceptedAt);

  // The instant from which nothing but a carrier was in the way, and from which validity counts.
  const readyUs = turnNotBefore(run.window, Math.max(opensAt * 1000, stepUs > 0 ? next : 0));
  const validUntil = run.validUntil ?? Math.ceil(readyUs / 1000) + run.validityMs;
  if (now >= validUntil) return expired(run, stepUs, next, readyUs, validUntil, now);

  const firstAt = turnNotBefore(run.window, Math.max(readyUs, now * 1000));
  if (firstAt >= validUntil * 1000) return { kind: 'wait', until: validUntil };
  if (firstAt > (now + aheadMs) * 1000) {
    // A turn is fetched `aheadMs` early to leave on its instant; a date or an opening is simply waited for.
    const early = stepUs > 0 && firstAt === next ? aheadMs : 0;
    return { kind: 'wait', until: Math.ceil(firstAt / 1000) - early };
  }
  const most = Math.min(want, run.remaining);
  if (stepUs === 0) return { kind: 'go', count: most, firstAt, stepUs, bucketNext: next, validUntil };

  const closesUs = Math.min(windowCloses(run.window, Math.floor(firstAt / 1000)), validUntil) * 1000;
  const lastUs = Math.min((now + aheadMs) * 1000, closesUs - 1);
  const count = Math.min(most, Math.floor((lastUs - firstAt) / stepUs) + 1);
  return { kind: 'go', count, firstAt, stepUs, bucketNext: firstAt + count * stepUs, validUntil };
}

/** `us` itself when its millisecond lies in an opening, else the beginning of the next one, in microseconds. */
function turnNotBefore(w: Window | null, us: number): number {
  const ms = Math.floor(us / 1000);
  const open = nextOpening(w, ms);
  return open === ms ? us : open * 1000;
}

/**
 * How many of a run are past their validity. Without a limit all share one clock. With a limit the turns that passed unused
 * count as theirs, one each, as far as this opening of the window reaches (the next call goes on after it).
 */
function expired(
  run: RunView,
  stepUs: number,
  next: number,
  readyUs: number,
  validUntil: Instant,
  now: Instant,
): Admission {
  if (stepUs === 0 || run.validUntil !== null) {
    return { kind: 'expired', at: validUntil, count: run.remaining, bucketNext: next };
  }
  const closesUs = windowCloses(run.window, Math.floor(readyUs / 1000)) * 1000;
  const turns = Math.floor(((now - validUntil) * 1000) / stepUs) + 1;
  const inOpening = Math.ceil((closesUs - readyUs) / stepUs);
  const count = Math.min(run.remaining, turns, inOpening);
  return { kind: 'expired', at: validUntil, count, bucketNext: readyUs + count * stepUs };
}
