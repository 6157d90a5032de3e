/**
 * A cancelled bulk's submissions that a carrier has: it is asked to call them back, once each, where it can; and those that it has
 * early of a bulk that was moved: it is asked to keep them. What it says is noted in the stories; the status stays with its
 * reports.
 *
 * Promises: one at a time a lane, so that no slot of a submission is taken. Fails: what was taken and not asked for when the
 * process died is not asked for again; a store that is away is asked again later.
 */
import { parseSender } from '../domain/address.ts';
import { formatInstant } from '../domain/schedule.ts';
import { transactionId } from '../domain/submission.ts';
import type { Env } from '../env.ts';
import type { Store } from '../store/contract.ts';
import type { Way } from './way.ts';

/** Taken from the store at a time. */
const BATCH = 8;
const TIMEOUT_MS = 10_000;

/** One lane's rounds; each call begins one unless one runs. */
export function createCallBacks(lane: number, way: Way, install: string, { store, env }: { store: Store; env: Env }) {
  let running = false;

  async function round(halt: AbortSignal): Promise<void> {
    for (let found = BATCH; found === BATCH && !halt.aborted; ) {
      const taken = await store.callBacks(lane, BATCH);
      found = taken.length;
      for (const { leader, members, generation, carrierMessageId, sender, earliestAt } of taken) {
        // Of two things that it may be asked, a carrier may know one.
        if (!(earliestAt === undefined ? way.cancel : way.replace)) continue;
        const parsed = parseSender(sender);
        const submission = {
          transactionId: transactionId(install, leader, generation),
          sender: parsed.ok ? parsed.sender : sender,
        };
        const limit = new AbortController();
        const timer = env.clock.setTimeout(() => limit.abort(), TIMEOUT_MS);
        const signal = AbortSignal.any([halt, limit.signal]);
        const done =
          earliestAt === undefined
            ? await way.cancel?.(carrierMessageId, submission, signal)
            : await way.replace?.(carrierMessageId, { ...submission, earliestAt }, signal);
        timer.cancel();
        const asked = earliestAt === undefined ? 'call it back' : `deliver it from ${formatInstant(earliestAt)} on`;
        const yes = earliestAt === undefined ? 'it will not be delivered' : 'it will';
        await store.calledBack(
          leader,
          members,
          `${way.name} was asked to ${asked}: ${done ? yes : 'no, or no answer'}`,
        );
      }
    }
  }

  return function callBacks(halt: AbortSignal): void {
    if (running || !(way.cancel || way.replace) || halt.aborted) return;
    running = true;
    round(halt)
      .catch((error: unknown) => env.log.warn({ err: error, carrier: way.name }, 'could not call back, will try again'))
      .finally(() => {
        running = false;
      });
  };
}
