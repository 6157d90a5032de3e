/** Lanes that change while dispatch runs: what is out ends where it began, what waits goes on the new way. */
import { afterEach, expect, it } from 'vitest';
import { acceptRequest, IDS, openVirtualStore, START } from '../../test/virtual-store.ts';
import type { Carrier } from '../carriers/carrier.ts';
import { createRouting } from '../domain/routing.ts';
import { testEnv } from '../env.ts';
import { createDispatch, type LaneOptions } from './dispatch.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function world() {
  const env = testEnv({ now: START });
  const store = openVirtualStore(env);
  closing.push(() => store.close());
  const lanes = [
    await store.lane('a', { onUnknown: 'retry', reports: true }),
    await store.lane('b', { onUnknown: 'retry', reports: true }),
  ] as [number, number];
  const calls: { carrier: string; at: number }[] = [];
  /** Takes `ms` for each. */
  const carrier = (name: string, tag: string, ms: number): Carrier => ({
    name,
    async submit() {
      calls.push({ carrier: tag, at: env.clock.monotonic() });
      await env.clock.sleep(ms);
      return { kind: 'accepted', carrierMessageId: `${tag}-${calls.length}` };
    },
  });
  const lane = (no: number, its: Carrier, more: Partial<LaneOptions> = {}): LaneOptions => ({
    no,
    carrier: its,
    concurrency: 2,
    ratePerSecond: 0,
    timeoutMs: 30_000,
    ...more,
  });
  const accept = async (no: number, count: number): Promise<void> => {
    const request = {
      messages: [
        {
          sender: 'Sender',
          destinations: Array.from({ length: count }, (_, i) => ({ to: `4917100000${String(i).padStart(2, '0')}` })),
          content: { messageSegments: [{ type: 'TEXT' as const, text: 'hello' }] },
        },
      ],
    };
    await acceptRequest(store, request, { now: env.clock.now(), routing: createRouting([[no]]) });
  };
  const dispatchOf = (options: LaneOptions[]) =>
    createDispatch({ store, env, install: 'test', ids: IDS, node: 'one', lanes: options });
  return { env, store, lanes, calls, carrier, lane, accept, dispatchOf };
}

const tags = (calls: { carrier: string }[]): string => calls.map(({ carrier }) => carrier).join('');

it('a carrier that is replaced finishes what it has out, the new one takes what waits', async () => {
  const w = await world();
  const [no] = w.lanes;
  await w.accept(no, 6);
  const dispatch = w.dispatchOf([w.lane(no, w.carrier('a', 'o', 3_000))]);
  dispatch.start();
  await w.env.clock.advance(1_000);
  expect(tags(w.calls)).toBe('oo');
  let done = false;
  const relaned = dispatch.relane([w.lane(no, w.carrier('a', 'n', 100))], 30_000).then(() => {
    done = true;
  });
  await w.env.clock.advance(1_000);
  // Not before the last submission over the old one has ended: its pool may be closed then.
  expect(done).toBe(false);
  await w.env.clock.advance(10_000);
  await relaned;
  expect(tags(w.calls)).toBe('oonnnn');
  expect(dispatch.counters()).toMatchObject([{ lane: 'a', inFlight: 0, outcomes: { accepted: 6 } }]);
  const stopped = dispatch.stop(1_000);
  await w.env.clock.advance(5_000);
  await stopped;
});

it('a carrier that is added takes what waits for it, one that is removed leaves it waiting, others go on', async () => {
  const w = await world();
  const [a, b] = w.lanes;
  await w.accept(a, 2);
  await w.accept(b, 2);
  const slow = w.carrier('a', 'a', 500);
  const dispatch = w.dispatchOf([w.lane(a, slow)]);
  dispatch.start();
  await w.env.clock.advance(2_000);
  expect(tags(w.calls)).toBe('aa');
  const added = dispatch.relane([w.lane(a, slow), w.lane(b, w.carrier('b', 'b', 500))], 30_000);
  await w.env.clock.advance(2_000);
  await added;
  expect(tags(w.calls)).toBe('aabb');
  const removed = dispatch.relane([w.lane(a, slow)], 30_000);
  await w.env.clock.advance(100);
  await removed;
  await w.accept(b, 1);
  await w.accept(a, 1);
  await w.env.clock.advance(10_000);
  expect(tags(w.calls)).toBe('aabba');
  expect((await w.store.stats()).waiting).toBe(1);
  const stopped = dispatch.stop(1_000);
  await w.env.clock.advance(5_000);
  await stopped;
});

it('a rate holds over the change', async () => {
  const w = await world();
  const [no] = w.lanes;
  await w.accept(no, 40);
  const dispatch = w.dispatchOf([w.lane(no, w.carrier('a', 'o', 10), { ratePerSecond: 5 })]);
  dispatch.start();
  await w.env.clock.advance(2_500);
  const relaned = dispatch.relane([w.lane(no, w.carrier('a', 'n', 10), { ratePerSecond: 5 })], 30_000);
  await w.env.clock.advance(5_000);
  await relaned;
  const times = w.calls.map(({ at }) => at);
  expect(tags(w.calls)).toMatch(/^o+n+$/);
  for (const start of times)
    expect(times.filter((at) => at >= start && at < start + 1_000).length).toBeLessThanOrEqual(5);
  const stopped = dispatch.stop(1_000);
  await w.env.clock.advance(5_000);
  await stopped;
});
