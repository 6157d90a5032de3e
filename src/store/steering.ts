/**
 * What steering makes of a bulk, as every engine applies it to its rows: the status a bulk is in, and what pause, resume,
 * cancel, a new sendAt or a new speed limit change. Pure.
 *
 * A status is never stored: CANCELED and PAUSED are instants on the bulk, FINISHED means that no message is open, PENDING
 * that sendAt is ahead; all else is PROCESSING.
 */
import type { SpeedLimit } from '../domain/message.ts';
import { intervalUs } from '../domain/schedule.ts';
import { STATE, type State } from '../domain/status.ts';
import { type BulkClock, repaced, resumed } from './clock.ts';
import type { Bulk, BulkChange, BulkStatus, Progress } from './contract.ts';

/** A bulk that was paused longer counts as given up: what waits in it is cancelled. */
export const PAUSED_MAX_MS = 30 * 86_400_000;
/** The words of a message that ended with its bulk. */
export const CANCELED_WORDS = 'its bulk was cancelled';
/** A message in flight when its bulk was cancelled is looked at again after so long. */
export const RECALL_MS = 1000;

/** All of a bulk that steering looks at. */
export interface BulkState extends BulkClock {
  canceledAt: number | null;
  /** The limit as the customer wrote it; null = none, or not known in those words. */
  speed: SpeedLimit | null;
}

/** A bulk that nobody has steered and that has nothing of its own. */
export const PLAIN_BULK: Readonly<BulkState> = Object.freeze({
  intervalUs: 0,
  nextUs: 0,
  limitedAt: null,
  pausedAt: null,
  pauses: [],
  moves: 0,
  sendAt: null,
  canceledAt: null,
  speed: null,
});

export const NO_PROGRESS: Readonly<Progress> = Object.freeze({
  accepted: 0,
  waiting: 0,
  sent: 0,
  delivered: 0,
  failed: 0,
});

/** Where a message in this state is counted. */
export function placeOf(state: State): Exclude<keyof Progress, 'accepted'> {
  if (state === STATE.pending) return 'waiting';
  if (state === STATE.submitted || state === STATE.uncertain) return 'sent';
  return state === STATE.delivered ? 'delivered' : 'failed';
}

type Standing = Pick<BulkState, 'sendAt' | 'pausedAt' | 'canceledAt'>;

/** A pause holds also where nothing is left to send: whoever joins waits, until it is resumed. */
export function statusOf(bulk: Standing, progress: Progress, now: number): BulkStatus {
  if (bulk.canceledAt !== null) return 'CANCELED';
  if (bulk.pausedAt !== null) return 'PAUSED';
  if (progress.waiting + progress.sent === 0) return 'FINISHED';
  return bulk.sendAt !== null && bulk.sendAt > now ? 'PENDING' : 'PROCESSING';
}

/** A bulk as the contract shows it. */
export function shownBulk(
  bulk: Pick<Bulk, 'no' | 'id' | 'acceptedAt' | 'speed'> & Standing,
  progress: Progress,
  now: number,
): Bulk {
  const { no, id, acceptedAt, sendAt, speed } = bulk;
  return { no, id, acceptedAt, sendAt: sendAt ?? acceptedAt, speed, status: statusOf(bulk, progress, now), progress };
}

/** `to`: the very `bulk` given where nothing changed. `drain`: its runs have to be told. */
export type Steering = { kind: 'done'; to: BulkState; drain: boolean } | { kind: 'conflict'; status: BulkStatus };

/** What `changes` make of a bulk, all of them or none. */
export function steered(bulk: BulkState, progress: Progress, changes: readonly BulkChange[], now: number): Steering {
  let to = bulk;
  let drain = false;
  for (const change of changes) {
    const status = statusOf(to, progress, now);
    const next = changed(to, status, change, now);
    if (next === null) return { kind: 'conflict', status };
    drain ||= next !== to && (change.kind === 'cancel' || change.kind === 'reschedule' || change.kind === 'limit');
    to = next;
  }
  return { kind: 'done', to, drain };
}

/** Null = its status forbids it. */
function changed(bulk: BulkState, status: BulkStatus, change: BulkChange, now: number): BulkState | null {
  const open = status === 'PENDING' || status === 'PROCESSING' || status === 'PAUSED';
  switch (change.kind) {
    case 'pause':
      if (status === 'PAUSED') return bulk;
      return open ? { ...bulk, pausedAt: now } : null;
    case 'resume':
      if (status === 'PROCESSING') return bulk;
      // Asked again: the first answer was PENDING too. One that was never paused cannot be begun by hand.
      if (status === 'PENDING' && bulk.pauses.length > 0) return bulk;
      return status === 'PAUSED' ? { ...bulk, ...resumed(bulk, now) } : null;
    case 'cancel':
      if (status === 'CANCELED') return bulk;
      return open ? { ...bulk, canceledAt: now } : null;
    case 'reschedule': {
      if (status !== 'PENDING' && status !== 'PAUSED') return null;
      const sendAt = Math.max(change.sendAt, now);
      return sendAt === bulk.sendAt ? bulk : { ...bulk, sendAt, moves: bulk.moves + 1 };
    }
    case 'limit':
      return open ? limited(bulk, change.speed, now) : null;
  }
}

/** A bulk with this limit from now on; the same bulk where it has it already. */
function limited(bulk: BulkState, speed: SpeedLimit, now: number): BulkState {
  if (bulk.speed?.amount === speed.amount && unitOf(bulk.speed) === unitOf(speed)) return bulk;
  const written = { amount: speed.amount, timeUnit: unitOf(speed) };
  return { ...bulk, ...repaced(bulk, intervalUs(speed), now), speed: written };
}

function unitOf(speed: SpeedLimit): NonNullable<SpeedLimit['timeUnit']> {
  return speed.timeUnit ?? 'MINUTE';
}

/** A speed limit as rows keep it. */
export function printSpeed(speed: SpeedLimit | null | undefined): string | null {
  return speed ? JSON.stringify({ amount: speed.amount, timeUnit: unitOf(speed) }) : null;
}

/** Reads `printSpeed`. */
export function readSpeed(text: string | null): SpeedLimit | null {
  return text === null ? null : (JSON.parse(text) as SpeedLimit);
}
