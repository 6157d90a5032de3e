/**
 * When to try again: after a carrier's failure, after an unknown outcome, after a webhook that was not taken. Pure numbers;
 * the caller adds them to its clock. How long at all is decided elsewhere: a message by its validity, a webhook here.
 */

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Quick at first (a connection reset heals in seconds), then rarely (a carrier that is down needs no knocking). */
const CARRIER_DELAYS = [
  2 * SECOND,
  5 * SECOND,
  15 * SECOND,
  30 * SECOND,
  1 * MINUTE,
  2 * MINUTE,
  5 * MINUTE,
  10 * MINUTE,
  15 * MINUTE,
];
const CARRIER_LAST = 30 * MINUTE;
/** The longest wish of a carrier that is honoured (a Retry-After of a year is a mistake). */
const WISH_MAX = 1 * HOUR;
/** The shortest: 0 would be a loop. */
const WISH_MIN = 1 * SECOND;

/**
 * Ms to wait after a failed attempt.
 * @param attempts how many were made, this one included (1 or more; less counts as 1)
 * @param retryAfterMs the carrier's own wish; it replaces the table, held to 1 s..1 h. Negative or not a number = no wish.
 */
export function carrierRetryDelay(attempts: number, retryAfterMs?: number): number {
  if (retryAfterMs !== undefined && retryAfterMs >= 0) return Math.min(Math.max(retryAfterMs, WISH_MIN), WISH_MAX);
  return CARRIER_DELAYS[Math.max(0, attempts - 1)] ?? CARRIER_LAST;
}

/**
 * Ms to wait before an attempt with unknown outcome is repeated at once (policy `retry`). Short, because a carrier that
 * drops repeated transaction ids remembers them for a limited time; the repetition must come within 10 s.
 */
export const unknownRetryDelay = 2 * SECOND;

/** Ms that a message with unknown outcome is held for a report before it is submitted once more (policy `hold`). */
export const HOLD_MS = 15 * MINUTE;

const WEBHOOK_RETRIES = 20;

/**
 * Ms to wait after the n-th failure of a webhook (0 = the first try failed): 1 min + 1 min x n x n for n = 0..19, the
 * published cycle; null = exhausted. The last of the 20 retries leaves 41 h 30 min after the first try, if tries took
 * no time.
 */
export function webhookDelay(n: number): number | null {
  if (n >= WEBHOOK_RETRIES) return null;
  return MINUTE + MINUTE * n * n;
}
