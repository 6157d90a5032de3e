/** How patient the sandbox is with an operator that does not answer: reports and messages from handsets alike. */

const SECOND = 1_000;
/** Between one try and the next. */
export const BACKOFF = [1, 2, 5, 10, 30, 60, 120].map((seconds) => seconds * SECOND);
export const BACKOFF_LAST = 300 * SECOND;
export const GIVE_UP_MS = 48 * 3600 * SECOND;
/** What a stop waits for answers to what is in flight. */
export const STOP_MS = 3 * SECOND;
