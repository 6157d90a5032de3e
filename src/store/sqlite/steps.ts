/**
 * What the writer may do in one piece, so that nobody waits long behind it: which ops make the next commit, and whether it may
 * bring the write-ahead log back to the file itself.
 *
 * Promises: pure; a piece costs some 25 ms of processor time at most, or is one op that cannot be divided. Fails: nothing here does.
 */
import type { Op } from './engine.ts';

/** Cost of a commit, in small ops (an accept of one message, a settle, a report: 25 us). */
export const GROUP = 1024;
/** Messages of one request that cost as much as a small op. */
const MESSAGES = 25;

/** A step of the sweep: up to 500 messages looked at or ended, 250 removed, a block of marks made. */
const SWEEP = 400;

/** What an op costs, in small ops. */
export function weightOf(op: Op): number {
  switch (op[0]) {
    case 'accept':
      return 1 + Math.floor(op[1].to.length / MESSAGES);
    case 'claim':
      return 1 + op[1].limit;
    case 'sweep':
      return SWEEP;
    default:
      return 1;
  }
}

/** Takes the next commit's ops from the head of the queue: what may be done in one piece, at least one where there is any. */
export function nextGroup<Item extends { op: Op }>(queue: Item[]): Item[] {
  let weight = 0;
  let count = 0;
  for (const { op } of queue) {
    weight += weightOf(op);
    if (count > 0 && weight > GROUP) break;
    count++;
  }
  return queue.splice(0, count);
}

/** Pages that the writer brings back in one piece: 4 MiB. */
export const RESTART_PAGES = 1024;
/** A log so many times too large is brought back all the same: the disk is not endless, and the background does not come to it. */
export const LOG_MOST = 4;

/**
 * Whether the writer starts the log anew: it is larger than `bound` (both in bytes) and the background has left it little of it
 * to bring back. `waiting`: pages not yet brought back.
 */
export function restartsLog(bytes: number, bound: number, waiting: () => number): boolean {
  return bytes > bound && (bytes > bound * LOG_MOST || waiting() <= RESTART_PAGES);
}
