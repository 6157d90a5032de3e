/**
 * One carrier of five is dead, by each way of being dead: what the other four carry does not change by it. All lanes share one
 * store whose verbs take time one after another, as a real one's do, so that a lane that hammers it would be felt.
 */
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { acceptRequest, IDS, openVirtualStore, START } from '../../test/virtual-store.ts';
import type { Carrier } from '../carriers/carrier.ts';
import { createRouting } from '../domain/routing.ts';
import type { Outcome } from '../domain/submission.ts';
import { type Env, testEnv } from '../env.ts';
import type { Store } from '../store/contract.ts';
import { createDispatch, type LaneOptions } from './dispatch.ts';

/** What one verb keeps the store busy for. */
const STORE_MS = 5;
const ANSWER_MS = 200;
const SLOTS = 4;
const HEALTHY = ['a', 'b', 'c', 'd'];
const RUN_MS = 30_000;
/** More than a healthy carrier can take in RUN_MS. */
const WAITING = 1_000;

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

type Death = (env: Env, signal: AbortSignal) => Promise<Outcome>;
const error = { id: 15000, words: 'scripted' };
const DEATHS: Record<string, Death> = {
  'hangs until its time is over': (_, signal) =>
    new Promise((resolve) => signal.addEventListener('abort', () => resolve({ kind: 'unknown', error }))),
  'refuses connections': async () => ({ kind: 'deferred', error, elsewhere: true }),
  'answers 5xx': async (env) => {
    await env.clock.sleep(20);
    return { kind: 'deferred', error };
  },
  'asks to slow down for ever': async (env) => {
    await env.clock.sleep(20);
    return { kind: 'throttled', retryAfterMs: 1_000 };
  },
  'never comes back, not even when it is told to': () => new Promise(() => undefined),
};

/** Runs five lanes for RUN_MS; `death` null = nothing waits for the fifth. */
async function run(death: Death | null) {
  const env = testEnv({ now: START });
  const engine = openVirtualStore(env);
  closing.push(() => engine.close());
  let slow = false;
  let queue: Promise<unknown> = Promise.resolve();
  const store: Store = new Proxy(engine, {
    get(target, name: keyof typeof engine) {
      const verb = target[name] as (...args: unknown[]) => unknown;
      if (!slow || name === 'onHint') return verb;
      return (...args: unknown[]) => {
        const turn = queue.then(() => env.clock.sleep(STORE_MS)).then(() => verb(...args));
        queue = turn.catch(() => undefined);
        return turn;
      };
    },
  });
  const calls = new Map<string, number>();
  let most = 0;
  let open = 0;
  const lanes: LaneOptions[] = [];
  for (const name of [...HEALTHY, 'dead']) {
    const no = await store.lane(name, { onUnknown: 'hold', reports: true });
    const count = name === 'dead' && death === null ? 0 : WAITING;
    const carrier: Carrier = {
      name,
      async submit(_, signal) {
        calls.set(name, (calls.get(name) ?? 0) + 1);
        if (name !== 'dead' || death === null) {
          await env.clock.sleep(ANSWER_MS);
          return { kind: 'accepted', carrierMessageId: `${name}-${calls.get(name)}` };
        }
        most = Math.max(most, ++open);
        try {
          return await death(env, signal);
        } finally {
          open--;
        }
      },
    };
    lanes.push({ no, carrier, concurrency: SLOTS, ratePerSecond: 0, timeoutMs: 2_000 });
    if (count === 0) continue;
    const request = {
      messages: [
        {
          sender: 'Sender',
          destinations: Array.from({ length: count }, (_, i) => ({ to: String(491_710_000_000 + i) })),
          content: { messageSegments: [{ type: 'TEXT' as const, text: 'hello' }] },
        },
      ],
    };
    await acceptRequest(store, request, { now: env.clock.now(), routing: createRouting([[no]]) });
  }
  const dispatch = createDispatch({ store, env, install: 'test', ids: IDS, node: 'one', lanes });
  slow = true;
  dispatch.start();
  await env.clock.advance(RUN_MS);
  const stopped = dispatch.stop(1_000);
  await env.clock.advance(20_000);
  await stopped;
  return { each: HEALTHY.map((name) => calls.get(name) ?? 0), dead: calls.get('dead') ?? 0, most };
}

describe('a carrier that is dead', () => {
  let without: Awaited<ReturnType<typeof run>>;
  beforeAll(async () => {
    without = await run(null);
    // They are busy all the time: what they lose would show.
    for (const count of without.each) expect(count).toBeGreaterThan((0.8 * SLOTS * RUN_MS) / ANSWER_MS);
  }, 120_000);

  it.each(Object.entries(DEATHS))(
    'as it %s takes at most 5 % from any of four others, and is left alone but for a probe',
    async (name, death) => {
      const beside = await run(death);
      beside.each.forEach((count, n) => {
        expect(count / (without.each[n] as number), HEALTHY[n]).toBeGreaterThanOrEqual(0.95);
      });
      // One that does not come back gives its slots back all the same.
      if (!name.startsWith('never')) expect(beside.most).toBeLessThanOrEqual(SLOTS);
      // What opens the breaker, and what was out then; after that one at a time: each PROBE_MS, or as often as it says itself.
      const probes = name.startsWith('asks') ? SLOTS * (RUN_MS / 1_000) : RUN_MS / 5_000;
      expect(beside.dead).toBeLessThanOrEqual(20 + 2 * SLOTS + probes);
    },
    120_000,
  );
});
