/**
 * When the validity clock of waiting messages starts and ends, as every engine applies it to its rows. Pure.
 *
 * The clock starts once, at the first instant a message may leave: the latest of acceptance, sendAt, the window's opening
 * and its turn under the speed limit. A pause that covers that instant moves it, a later one does not. So a run has either
 * one clock for all its messages (no limit when it started), or each message has its own, which starts at its turn
 * ("by turns"); then the bulk's bucket says whose turn has passed.
 */
import { nextOpening, type RateBucket, type RunView, type Window, windowCloses } from '../domain/schedule.ts';
import { STATE, type State } from '../domain/status.ts';

/** Pauses kept of one bulk; beyond, the two oldest become one. */
const PAUSES = 50;
/** A pause that ended longer ago moves nothing that still waits: at most 7 days to an opening and 48 h of validity. */
const PAUSE_MATTERS_MS = 10 * 86_400_000;

/** What a bulk says about time. */
export interface BulkClock {
  /** Microseconds between two turns; 0 = no limit. */
  intervalUs: number;
  /** Epoch microseconds of the earliest next turn. */
  nextUs: number;
  /** When it first had a limit; null = never. */
  limitedAt: number | null;
  /** Begin of the pause that holds now. */
  pausedAt: number | null;
  /** Ended pauses, oldest first: [begin, end). Not empty once there was one. */
  pauses: [number, number][];
  /** Its own sendAt, of its first request or as it was moved last; null = none. */
  sendAt: number | null;
  /** How often that was moved. */
  moves: number;
}

/** What a run says about time. */
export interface RunClock {
  /** First opening after acceptance and sendAt. */
  opensAt: number;
  /** Moves of its bulk's sendAt that `opensAt` knows of. */
  moves: number;
  /** Its bulk had a limit when it was accepted. */
  limited: boolean;
  window: Window | null;
  validityMs: number;
  /**
   * Its carrier keeps the time: it may have it so long before its start. Below 0 = one before had it so early, the one that it waits
   * for now does not.
   */
  earlyMs: number;
}

/**
 * How long before its start a run may leave. What goes by turns or through a window is paced here, to the carrier's socket,
 * and leaves on its instant.
 */
export function earlyOf(run: RunClock, start: number | null, bulk: BulkClock | null): number {
  if (run.earlyMs <= 0 || run.window !== null || byTurns(run, start, bulk)) return 0;
  return bucketOf(bulk) === null ? run.earlyMs : 0;
}

/** Until when what may leave at `firstAtUs` (epoch microseconds) must have left; nothing where its window never closes. */
export function closing(window: Window | null, firstAtUs: number): { closesAt?: number } {
  const closesAt = windowCloses(window, Math.floor(firstAtUs / 1000));
  return Number.isFinite(closesAt) ? { closesAt } : {};
}

/** When a run that is accepted `now` may leave first. `paced`: its bulk has a limit. */
export function firstDue(
  run: { window: Window | null; earlyMs?: number },
  { opensAt, paced, now }: { opensAt: number; paced: boolean; now: number },
): number {
  return run.window !== null || paced ? opensAt : Math.max(now, opensAt - (run.earlyMs ?? 0));
}

/** Whether some of a run may be with its carrier though its time has not come: with its bulk moved, that carrier is told. */
export function heldEarly(run: RunClock & { no: number; next: number }, now: number): boolean {
  return run.earlyMs !== 0 && run.window === null && run.next !== run.no && run.opensAt > now;
}

/**
 * First opening of a run. Where its bulk was moved since, the bulk's sendAt counts, also for what is to be tried again: a
 * bulk that is moved to tomorrow sends nothing today.
 */
export function opensOf(
  run: Pick<RunClock, 'opensAt' | 'moves' | 'window'>,
  bulk: Pick<BulkClock, 'moves' | 'sendAt'> | null,
): number {
  if (bulk === null || run.moves >= bulk.moves || bulk.sendAt === null) return run.opensAt;
  return nextOpening(run.window, bulk.sendAt);
}

/**
 * The first instant a run may leave, its turns aside; null = it stands still, because a pause covers that instant. A pause
 * that begins at that very millisecond is later: something may have left before it.
 */
export function startOf(run: RunClock, bulk: BulkClock | null): number | null {
  let start = opensOf(run, bulk);
  if (bulk === null) return start;
  for (const [begin, end] of bulk.pauses) {
    if (begin < start && start < end) start = nextOpening(run.window, end);
  }
  return bulk.pausedAt !== null && bulk.pausedAt < start ? null : start;
}

/**
 * Whether each message of the run has a clock of its own: the bulk had a limit before the run's clock could start. (At the
 * very millisecond some may have left without a turn, so those of one request keep one clock.)
 */
export function byTurns(run: RunClock, start: number | null, bulk: BulkClock | null): boolean {
  if (bulk === null || bulk.limitedAt === null) return false;
  return run.limited || start === null || start > bulk.limitedAt;
}

/** The bucket of a bulk that has a limit. */
export function bucketOf(bulk: BulkClock | null): RateBucket | null {
  return bulk !== null && bulk.intervalUs > 0 ? { intervalUs: bulk.intervalUs, next: bulk.nextUs } : null;
}

/**
 * What `admit` must know of a run whose clock does not stand still. `remaining` in submissions, `earlyMs` as `earlyOf` has it: its
 * validity ends when it would anyway.
 */
export function viewOf(run: RunClock, bulk: BulkClock | null, start: number, remaining: number, earlyMs = 0): RunView {
  const turns = byTurns(run, start, bulk);
  // A limit that was lifted: what had no turn yet may leave since then, and its clock starts there.
  const lifted = turns && bulk !== null && bulk.intervalUs === 0 ? Math.ceil(bulk.nextUs / 1000) : 0;
  return {
    acceptedAt: start - earlyMs,
    sendAt: Math.max(start - earlyMs, lifted),
    window: run.window,
    validityMs: run.validityMs,
    validUntil: turns ? null : start + run.validityMs,
    remaining,
  };
}

/** A bulk whose pause ends now. Turns that were still to come move behind it. */
export function resumed(bulk: BulkClock, now: number): BulkClock {
  if (bulk.pausedAt === null) return bulk;
  const pauses = bulk.pauses.filter(([, end]) => end > now - PAUSE_MATTERS_MS);
  pauses.push([bulk.pausedAt, now]);
  while (pauses.length > PAUSES) {
    const [first, second] = pauses.splice(0, 2) as [[number, number], [number, number]];
    pauses.unshift([first[0], second[1]]);
  }
  const nextUs = bulk.limitedAt === null ? bulk.nextUs : Math.max(bulk.nextUs, now * 1000);
  return { ...bulk, pausedAt: null, pauses, nextUs };
}

/** The turns of a submission: the bulk's `nextUs` before and after its claim. */
export interface Turns {
  from: number;
  end: number;
}

/**
 * Where the next turn of a bulk is when a submission that took turns has not left: where it was, so that somebody else may have
 * them. Null = they are lost, because later ones were taken or the limit was changed since. `notBefore`: epoch microseconds
 * before which nobody else's validity may begin.
 *
 * The limit holds: what comes next takes the turn max(next, now), which is an interval or more after all that have left.
 */
export function returned(bulk: BulkClock, turns: Turns, notBefore: number): number | null {
  if (bulk.intervalUs === 0 || bulk.nextUs !== turns.end) return null;
  const resumedUs = (bulk.pauses.at(-1)?.[1] ?? 0) * 1000;
  return Math.min(turns.end, Math.max(turns.from, notBefore, resumedUs));
}

/** A bulk whose limit changes now: the last turn stays where it was (0 = no limit any more). */
export function repaced(bulk: BulkClock, intervalUs: number, now: number): BulkClock {
  if (bulk.intervalUs === intervalUs) return bulk;
  const nextUs =
    bulk.intervalUs === 0 || intervalUs === 0
      ? // What left without a limit is not counted; what waits may leave from now on.
        Math.max(intervalUs === 0 ? 0 : bulk.nextUs, now * 1000)
      : bulk.nextUs === 0
        ? 0
        : bulk.nextUs - bulk.intervalUs + intervalUs;
  return { ...bulk, intervalUs, nextUs, limitedAt: bulk.limitedAt ?? now };
}

/** What is known of a message whose validity has ended. */
export interface Ended {
  state: State;
  /** Of its last try of which something left; 0 = there was none. */
  error: number;
  /** Its attempts, oldest first. */
  attempts: readonly { outcome: string; words: string }[];
  /** Its bulk is paused. */
  paused: boolean;
  /** Its window is closed. */
  closed: boolean;
  /** Its linked content has not come. */
  unfetched: boolean;
}

/**
 * Why a message was not delivered in time, in words that tell what never left from what was tried, how often, and what kept it
 * from another try.
 */
export function endedWords({ state, error, attempts, paused, closed, unfetched }: Ended): string {
  if (state === STATE.submitted) return 'no final report by the end of its validity';
  if (state === STATE.uncertain) return 'not known whether the carrier took it, no report by the end of its validity';
  // What the carrier only put off says nothing of the message.
  const tried = attempts.filter(({ outcome }) => outcome !== 'throttled');
  const last = tried.at(-1);
  if (last) {
    const times = tried.length === 1 ? '1 attempt' : `${tried.length} attempts`;
    const since = paused ? '; then its bulk was paused' : closed ? '; then its window was closed' : '';
    const after = error === 0 ? `, never sent: its carrier could not be reached in ${times}` : ` after ${times}`;
    return `validity ended${after}, the last: ${last.words.slice(0, 200) || last.outcome}${since}`;
  }
  if (paused) return 'validity ended, never tried: its bulk was paused';
  if (attempts.length > 0) {
    return `validity ended: tried, and the carrier asked to wait ${attempts.length === 1 ? 'once' : `${attempts.length} times`}`;
  }
  if (unfetched) return 'validity ended, never tried: its linked content could not be fetched in time';
  // The store sees only that nobody came for it: a lane that is down and one that is behind look alike from here.
  const carrier = 'its carrier was down, or had no room for it';
  return `validity ended, never tried: ${carrier}${closed ? ', until its window closed' : ''}`;
}

/** Whether a run's window is closed. */
export function closedAt(run: Pick<RunClock, 'window'> | null, now: number): boolean {
  return run !== null && nextOpening(run.window, now) > now;
}
