/**
 * The verb claim over its connection: an idle lane costs a read and no commit, a claim two round trips, and what a full claim owes to
 * the lines it visited is done a moment later, when nobody waits for it.
 *
 * Promises: a claim is answered after its commit, which is synced: what leaves by it must be known to have left after any crash, or
 * its carrier's `onUnknown` could not be kept. An answer without claims never names an instant that has come: nobody can spin on it.
 * Fails: as its queue does.
 */
import type { Clock, Timer } from '../../env.ts';
import type { Claims } from '../contract.ts';
import { again } from '../waiting.ts';
import type { Claimed, createClaim } from './claim.ts';
import { tellClaimed } from './events.ts';
import type { Lines, Peeked } from './lines.ts';
import { createGathered, createQueue, type QueueOptions } from './queue.ts';
import { readSpecs } from './rows.ts';
import { type Ask, together } from './tx.ts';

/** What full claims visited is put to rest when their lane was quiet for so long. */
const REST_AFTER_MS = 10;

/** `limit` 0 = what is owed its rest. */
interface ClaimOp {
  lane: number;
  limit: number;
  leaseMs: number;
}

interface ClaimsOptions {
  queue: Omit<QueueOptions<ClaimOp>, 'work' | 'early'>;
  clock: Clock;
  lines: Lines;
  claim: ReturnType<typeof createClaim>;
  /** Reads by the connection of the claims, and by another. */
  own: Ask;
  reader(): Ask;
  /** The store's clock, of the database's. */
  nowOf(now: number): number;
}

/** The verb, its queue, and its end: after `stop` nothing is begun that nobody asked for. */
export function createClaims(options: ClaimsOptions) {
  const { clock, lines, claim, own, reader, nowOf } = options;
  /** Lanes whose last claim left something that is due. */
  const busy = new Set<number>();
  const rests = new Map<number, Timer>();
  let stopped = false;

  const queue = createQueue<ClaimOp>({
    ...options.queue,
    early: true,
    async work(tx, ops) {
      const results: unknown[] = new Array(ops.length);
      const bulksOf = new Map<number, number>();
      const told: number[] = [];
      const lanes = [...new Set(ops.map(({ lane }) => lane))].sort((a, b) => a - b);
      const serve = async (lane: number): Promise<void> => {
        for (const [index, op] of ops.entries()) {
          if (op.lane !== lane) continue;
          if (op.limit > 0) {
            results[index] = await claim(tx, lane, op.limit, op.leaseMs, bulksOf, told);
            continue;
          }
          await tx.begun;
          if (lines.owes(lane)) await lines.served(tx, lane, null);
        }
      };
      // Side by side: what several lanes ask goes out as one piece. In one order, as two nodes must lock the turns of several lanes.
      await together(lanes.map(serve));
      // Those of all lanes at once, in order, as others lock messages: a POST that is settled has several, of any lanes.
      tellClaimed(tx, told);
      return results;
    },
  });

  // A hint wakes all lanes in one turn of the event loop: one read for all of them.
  const peek = createGathered<Peeked>((lanes) => lines.peek(own, lanes));

  function restSoon(lane: number): void {
    rests.get(lane)?.cancel();
    if (stopped) return;
    const timer = clock.setTimeout(() => {
      rests.delete(lane);
      // What is not put to rest now is by whoever looks at it next.
      if (lines.owes(lane)) queue.push({ lane, limit: 0, leaseMs: 0 }).catch(() => undefined);
    }, REST_AFTER_MS);
    rests.set(lane, timer);
  }

  return {
    async claim(lane: number, limit: number, leaseMs: number): Promise<Claims> {
      // An idle lane costs a read, not a commit; one that had more a moment ago is not asked.
      if (limit < 1 || !busy.has(lane)) {
        const { now, woken, due } = await peek(lane);
        const at = nowOf(now);
        const idle = !woken && (due === null || due > at);
        if (idle || limit < 1) return { now: at, claims: [], specs: [], nextDue: again(woken ? at : due, at, 0) };
      }
      busy.delete(lane);
      const { now, claims: found, ...answers } = await queue.push<Claimed>({ lane, limit, leaseMs });
      // They were on their way behind the COMMIT: the connection may have been lost between the two. The claims are made all the same:
      // where the server is still away, who gets them without their specs puts them back, or they would count as sent.
      const specs = await answers.specs
        .catch(() => readSpecs(reader(), new Set(found.map((one) => one.spec))))
        .catch(() => []);
      const { woken, due } = (await answers.served?.catch(() => null)) ?? { woken: true, due: null };
      const nextDue = woken ? Math.min(now, due ?? now) : due;
      if (lines.owes(lane)) restSoon(lane);
      if (found.length > 0 && nextDue !== null && nextDue <= now) busy.add(lane);
      return { now, claims: found, specs, nextDue: again(nextDue, now, found.length) };
    },
    stop(): void {
      stopped = true;
      for (const timer of rests.values()) timer.cancel();
    },
    drain: () => queue.drain(),
  };
}
