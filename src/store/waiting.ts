/**
 * What both engines make of the rows of what waits: a run and its bulk as the clock and `admit` see them, the end of a run's
 * validity, and why a message waits. Pure; the engines differ in how they write a truth value (1 or true), not in what it
 * means.
 */

import { legOf, readWays } from '../domain/failover.ts';
import type { Channel } from '../domain/routing.ts';
import type { MessageRow } from '../domain/rows.ts';
import type { Window } from '../domain/schedule.ts';
import { STATE } from '../domain/status.ts';
import { byTurns, opensOf, type RunClock, startOf } from './clock.ts';
import type { Gate } from './contract.ts';
import { type BulkState, readSpeed } from './steering.ts';

/** Columns of table `run`. */
export interface RunColumns {
  no: number;
  line: number;
  spec: number;
  next: number;
  end: number;
  members: number;
  days: number | null;
  from_min: number | null;
  to_min: number | null;
  validity: number;
  opens_at: number;
  limited: boolean | number;
  moves: number;
  media: boolean | number;
  early_ms: number;
  intermediate: boolean | number | null;
}

export interface RunRow extends RunClock {
  no: number;
  line: number;
  spec: number;
  /** First number not yet claimed. */
  next: number;
  end: number;
  /** 0 = singles, else one group submission of that many numbers. */
  members: number;
  /** Waits for its linked content. */
  closed: boolean;
  /** Every change of its messages is told, so claims too; null = its spec says. */
  intermediate: boolean | null;
}

/** Columns of table `bulk`. */
export interface BulkColumns {
  no: number;
  id: string | null;
  interval_us: number;
  next_us: number;
  limited_at: number | null;
  paused_at: number | null;
  pauses: string;
  canceled_at: number | null;
  accepted_at: number;
  send_at: number | null;
  moves: number;
  speed: string | null;
}

/** A bulk with all that decides when its messages may leave. */
export interface BulkRow extends BulkState {
  no: number;
  id: string | null;
  acceptedAt: number;
}

function windowOf(run: RunColumns): Window | null {
  return run.days === null ? null : { days: run.days, from: run.from_min as number, to: run.to_min as number };
}

/** A row of `run` with its window and its closed door (content still to be fetched) read out. */
export function toRun(row: RunColumns): RunRow {
  return {
    no: row.no,
    line: row.line,
    spec: row.spec,
    next: row.next,
    end: row.end,
    members: row.members,
    closed: Boolean(row.media),
    opensAt: row.opens_at,
    limited: Boolean(row.limited),
    moves: row.moves,
    window: windowOf(row),
    validityMs: row.validity,
    earlyMs: row.early_ms,
    intermediate: row.intermediate === null ? null : Boolean(row.intermediate),
  };
}

/** A row of `bulk` with its pauses and its speed parsed. */
export function toBulk(row: BulkColumns): BulkRow {
  return {
    no: row.no,
    id: row.id,
    intervalUs: row.interval_us,
    nextUs: row.next_us,
    limitedAt: row.limited_at,
    pausedAt: row.paused_at,
    pauses: row.pauses === '[]' ? [] : (JSON.parse(row.pauses) as [number, number][]),
    canceledAt: row.canceled_at,
    acceptedAt: row.accepted_at,
    sendAt: row.send_at,
    moves: row.moves,
    speed: readSpeed(row.speed),
  };
}

/** The end of the validity that all messages of a run share; null = it stands still, or each has its own. */
export function sharedEnd(run: RunRow, bulk: BulkRow | null): number | null {
  const start = startOf(run, bulk);
  return start === null || byTurns(run, start, bulk) ? null : start + run.validityMs;
}

/** What holds a run back, for the story of one of its messages. */
export function gateOf(run: RunRow, bulk: BulkRow | null): Gate {
  return {
    opensAt: opensOf(run, bulk),
    sendAt: bulk?.sendAt ?? null,
    window: run.window,
    paced: bulk !== null && bulk.intervalUs > 0,
    canceled: bulk !== null && bulk.canceledAt !== null,
  };
}

/** Characters kept of why a fetch failed. */
export const WORDS_MAX = 500;

/** A link whose last fetch failed and which is fetched again at `due`. */
export interface Unfetched {
  /** Place of its segment. */
  segment: number;
  /** Fetches that failed. */
  tries: number;
  words: string;
  due: number;
}

/** What holds a message back: when its line may serve it, whether content is still to be fetched. */
interface Holding {
  due: number | null;
  paused: boolean;
  media: boolean;
  /** The first of its links that failed so far. */
  unfetched?: Unfetched | undefined;
}

/** Why an unfinished message is where it is, in words for its story. */
export function whyWaiting(
  message: MessageRow,
  waiting: Holding & { carrier?: string; gate?: Gate },
): { until: number | null; why: string; carrier?: string; gate?: Gate } {
  const { carrier, gate } = waiting;
  return { ...reasonOf(message, waiting), ...(carrier === undefined ? {} : { carrier }), ...(gate ? { gate } : {}) };
}

function reasonOf(message: MessageRow, waiting: Holding): { until: number | null; why: string } {
  if (message.claimed) return { until: null, why: 'being submitted' };
  if (message.state === STATE.uncertain) return { until: waiting.due, why: 'not known whether the carrier took it' };
  if (message.status === 3) return { until: null, why: 'taken by the carrier, no final report yet' };
  if (waiting.paused) return { until: null, why: 'its bulk is paused' };
  if (waiting.media) {
    const why = 'its linked content is being fetched';
    const { unfetched } = waiting;
    if (unfetched === undefined) return { until: null, why };
    const { segment, tries, words, due } = unfetched;
    const times = tries === 1 ? 'once' : `${tries} times, last`;
    return { until: due, why: `${why}: messageSegments[${segment}] failed ${times}: ${words}` };
  }
  return { until: waiting.due, why: message.error === 0 ? 'its turn' : 'the next attempt' };
}

/** Submissions one account may take before the next account's turn, and one line before the next line's. */
export const ACCOUNT_QUANTUM = 32;
export const LINE_QUANTUM = 16;
/** How far ahead slots of a speed limit are handed out, with their instants. */
export const AHEAD_MS = 250;

/** A row of `retry`, as both engines read it: what waits for its next attempt. */
export interface RetryRow {
  leader: number;
  line: number;
  run: number;
  members: number;
  /** Members of the last submission. */
  sent: number;
  generation: number;
  attempts: number;
  held: number;
  /** UNTRIED = its clock is that of what its run has not handed out yet. */
  valid_until: number;
  due_at: number;
}

/**
 * `valid_until` of what was claimed and put back before anything of it left, the first time or again: as if it had never been
 * claimed, its validity begins with its run's, or with its own turn.
 */
export const UNTRIED = 0;

/** What waits for a bulk's next turn is due at that instant (`admit`). */
export function turnDue(nextUs: number): number {
  return Math.ceil(nextUs / 1000) - AHEAD_MS;
}
/** A submission that was put back before anything of it left. */
export type Untried = Pick<RetryRow, 'leader' | 'members'>;
/** What waits for the drain of its bulk is looked at again so much later. */
export const DRAIN_MS = 1000;
/** Runs, and retries, of one line that are told of a turn that was given back: the first that can leave takes it. */
export const TOLD = 16;

/** A claim that gives nothing, though something is due, is worth repeating after so many ms: others hold it, or it was not reached. */
const AGAIN_MS = 20;

/** When a lane may have work again, after a claim that gave so many at `now`: nobody can spin on one that gave none. */
export function again(due: number | null, now: number, given: number): number | null {
  return given === 0 && due !== null && due <= now ? now + AGAIN_MS : due;
}

/**
 * The channel of a lane, told by something that waits there: its leader and its run's `ways`. An MMS that no carrier takes waits where
 * its SMS goes, wherever that was moved to (rows of an older version do not say that it is one: the lane of its SMS does).
 */
export function channelOf(waiting: { leader: number; ways: string | null }, lane: number): Channel {
  if (legOf(waiting.leader) === 1) return 'SMS';
  const { sms, smsOnly } = readWays(waiting.ways);
  return smsOnly || sms?.lane === lane || sms?.alts?.includes(lane) ? 'SMS' : 'MMS';
}
