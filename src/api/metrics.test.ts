import { expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import type { Stats, Store } from '../store/contract.ts';
import { createMetrics } from './metrics.ts';

const sums = { waiting: 9, inFlight: 0, retries: 0, webhooksWaiting: 0, webhooksExhausted: 0, pull: 0, walBytes: 0 };

function setUp(served: ReadonlySet<string> | undefined) {
  let waitingAt: Stats['waitingAt'] = [];
  const metrics = createMetrics({
    store: { stats: async (): Promise<Stats> => ({ ...sums, waitingAt }) } as unknown as Store,
    env: testEnv(),
    carrierCounters: async () => ({}),
    served: () => served,
    connections: async () => 0,
    listeners: () => 0,
    ready: async () => true,
  });
  const figures = async (): Promise<string[]> =>
    (await metrics.page())
      .split('\n')
      .filter((line) => /^postcard_(carrier_waiting|messages_without_carrier)/.test(line));
  return {
    figures,
    close: () => metrics.close(),
    set(now: Stats['waitingAt']) {
      waitingAt = now;
    },
  };
}

it('what waits is shown by carrier, and what waits for carriers that are not configured any more as one figure', async () => {
  const { figures, set, close } = setUp(new Set(['north']));
  set([
    { carrier: 'north', count: 3 },
    { carrier: 'old "one"', count: 4 },
    { carrier: 'south', count: 2 },
  ]);
  expect((await figures()).sort()).toEqual([
    'postcard_carrier_waiting{carrier="north"} 3',
    'postcard_carrier_waiting{carrier="old \\"one\\""} 4',
    'postcard_carrier_waiting{carrier="south"} 2',
    'postcard_messages_without_carrier 6',
  ]);
  set([]);
  expect(await figures()).toEqual(['postcard_messages_without_carrier 0']);
  close();
});

it('a process that does not know the carriers counts none as missing', async () => {
  const { figures, set, close } = setUp(undefined);
  set([{ carrier: 'north', count: 3 }]);
  expect(await figures()).toContain('postcard_messages_without_carrier 0');
  close();
});
