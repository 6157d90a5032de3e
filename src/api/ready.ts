/** Whether this process can take messages: asked of the store by writing, and seen from what became of requests, for probes and metrics. */
import type { Env } from '../env.ts';
import { type Store, StoreUnavailable } from '../store/contract.ts';

/** The store's answer to "can you write?" counts for this long, so that probes cost no more than one write a second. */
const READY_MS = 1_000;
const READY_TIMEOUT_MS = 2_000;
/**
 * So many requests that the store refused, and none taken since, count for so long: a disk that is full for messages may
 * have room for the little that a probe writes.
 */
const REFUSED = 3;
const REFUSED_MS = 5_000;

/**
 * `ready`: whether the store takes writes, asked by writing, at most once in `READY_MS`, shared by all who ask. `accepting`: the store, its
 * accepts watched; for those who take requests.
 */
export function createReady(store: Store, env: Env): { ready: () => Promise<boolean>; accepting: Store } {
  let refused = 0;
  let refusedAt = 0;
  const accept: Store['accept'] = async (request) => {
    try {
      const accepted = await store.accept(request);
      refused = 0;
      return accepted;
    } catch (error) {
      if (error instanceof StoreUnavailable) {
        refused++;
        refusedAt = env.clock.monotonic();
      }
      throw error;
    }
  };
  // Whatever else it has stays the store's own.
  const accepting: Store = Object.create(store, { accept: { value: accept } });
  let asked = Number.NEGATIVE_INFINITY;
  let latest: Promise<boolean> = Promise.resolve(false);
  async function ask(): Promise<boolean> {
    const answered = new AbortController();
    try {
      return await Promise.race([
        store.reserve(1).then(() => true),
        env.clock.sleep(READY_TIMEOUT_MS, answered.signal).then(() => false),
      ]);
    } catch (error) {
      env.log.warn({ err: error }, 'not ready');
      return false;
    } finally {
      answered.abort();
    }
  }
  const ready = (): Promise<boolean> => {
    const now = env.clock.monotonic();
    if (refused >= REFUSED && now - refusedAt < REFUSED_MS) return Promise.resolve(false);
    if (now - asked >= READY_MS) {
      asked = now;
      latest = ask();
    }
    return latest;
  };
  return { ready, accepting };
}
