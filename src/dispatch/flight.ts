/** A claim on its way through a lane, and what comes of it. */
import type { Ids } from '../domain/ids.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Outcome } from '../domain/submission.ts';
import type { Claim } from '../store/contract.ts';

/** Messages of a submission that a log line names. */
const NAMED = 10;

/** A claim on its way through the lane. */
export interface Flight {
  claim: Claim;
  spec: SpecRow | undefined;
  /** Ours, when it was asked for. */
  askedAt: number;
  /** Put back for at least so long. */
  againMs?: number;
}

/** When it is too late for a claim (epoch ms): the end of its validity, or of the opening of its window that it was claimed in. */
export function lastMoment({ validUntil, closesAt }: Claim): number {
  return Math.min(validUntil, closesAt ?? Number.POSITIVE_INFINITY);
}

/** One try to hand it over. */
export interface Attempt {
  outcome: Outcome;
  /** By the store's clock. */
  startedAt: number;
  tookMs: number;
}

/** A claim's messages as customers know them. */
export function namesOf({ members }: Claim, ids: Ids): { messageIds: string[]; members?: number } {
  const messageIds = members.slice(0, NAMED).map(({ no, key }) => key ?? ids.print('message', no));
  return members.length > 1 ? { messageIds, members: members.length } : { messageIds };
}
