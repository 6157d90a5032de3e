/**
 * Between a claim and its submission: the content is made to fit what the carrier takes, as long as the claim is young. Fitting
 * a film takes longer than a claim may live: then the claim is put back, and a later one finds what was made.
 *
 * Promises: who waits for content keeps the lane's slot for FIT_SLOT_MS at most, so that films in the making do not stand in the
 * way of messages that are ready. At most ASIDE claims of a lane wait without a slot.
 *
 * Fails: as what it is given does.
 */
import type { Clock } from '../env.ts';
import type { Prepared, PrepareResult } from './prepare.ts';

/** A lane's way to make content fit: a failure is final, a rejection means that it cannot be tried now. */
export type Fit = (prepared: Prepared) => PrepareResult | Promise<PrepareResult>;

/** The claims of one lane that wait for their content without a slot, and what is known of contents that take long. */
export interface Aside {
  count: number;
  readonly slow: WeakSet<Prepared>;
  /** When the last one that found no room comes again (of the monotonic clock). */
  last: number;
  /** One goes aside (-1), or counts among the slots again (1); whether there was room for that. */
  slot(taken: 1 | -1): boolean;
}

/** A lane's, with its `slot`. */
export function createAside(slot: Aside['slot']): Aside {
  return { count: 0, slow: new WeakSet(), last: 0, slot };
}

/** How long a claim waits whose content was not ready in time. */
const FIT_AGAIN_MS = 1_000;
/**
 * And one that found no room aside, at least and at most: what others wait for takes a while. They come again so far apart, since
 * what was put back goes before what is fresh on its line, and would leave it no slot.
 */
const CROWDED_MS = 5_000;
const CROWDED_MAX_MS = 30_000;
const CROWDED_APART_MS = 500;
/** Most pictures are made in less. */
const FIT_SLOT_MS = 250;
const ASIDE = 16;

/** What was prepared, fitted; a number = not ready within `ms`, or no slot is free: put the claim back for so many ms. */
export async function fitInTime(
  result: PrepareResult,
  how: Fit | undefined,
  ms: number,
  clock: Clock,
  halt: AbortSignal,
  aside: Aside,
): Promise<PrepareResult | number> {
  if (!result.ok || how === undefined) return result;
  const fitting = how(result.prepared);
  if (!(fitting instanceof Promise)) return fitting;
  const asideAtOnce = aside.slow.has(result.prepared) && aside.count < ASIDE;
  // Also where there is no room: claims that were given back at once would be claimed again at once.
  const quick = asideAtOnce ? null : await within(FIT_SLOT_MS, fitting, clock, halt);
  if (quick !== null) return quick;
  aside.slow.add(result.prepared);
  if (aside.count >= ASIDE) {
    const now = clock.monotonic();
    aside.last = Math.min(Math.max(now + CROWDED_MS, aside.last + CROWDED_APART_MS), now + CROWDED_MAX_MS);
    return aside.last - now;
  }
  aside.count++;
  aside.slot(-1);
  let free = false;
  const fitted = await within(asideAtOnce ? ms : ms - FIT_SLOT_MS, fitting, clock, halt).finally(() => {
    aside.count--;
    free = aside.slot(1);
  });
  if (fitted === null) return FIT_AGAIN_MS;
  // It is kept: the next claim has it at once. A failure needs no slot.
  return fitted.ok && !free ? 0 : fitted;
}

/**
 * Null = not within `ms`, or `halt` came. Each message waits here, most for content that fits as it is: so no controller and no
 * signal of its own, which cost 12 us of a message's 280 on this thread.
 */
function within<Value>(ms: number, value: Promise<Value>, clock: Clock, halt: AbortSignal): Promise<Value | null> {
  if (halt.aborted) return Promise.race([value, null]);
  return new Promise((resolve, reject) => {
    const late = (): void => {
      over();
      resolve(null);
    };
    const timer = clock.setTimeout(late, Math.max(0, ms));
    halt.addEventListener('abort', late, { once: true });
    const over = (): void => {
      timer.cancel();
      halt.removeEventListener('abort', late);
    };
    value.then(
      (made) => {
        over();
        resolve(made);
      },
      (error: unknown) => {
        over();
        reject(error);
      },
    );
  });
}
