/** Whether this process can take messages: asked of the store by writing, for probes and metrics. */
import type { Env } from '../env.ts';
import type { Store } from '../store/contract.ts';

/** The store's answer to "can you write?" counts for this long, so that probes cost no more than one write a second. */
const READY_MS = 1_000;
const READY_TIMEOUT_MS = 2_000;

/** Whether the store takes writes: asked by writing, at most once in `READY_MS`, shared by all who ask. */
export function createReady(store: Store, env: Env): () => Promise<boolean> {
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
  return () => {
    const now = env.clock.monotonic();
    if (now - asked >= READY_MS) {
      asked = now;
      latest = ask();
    }
    return latest;
  };
}
