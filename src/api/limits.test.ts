/** Limits that several nodes share: exact together, cheap alone, and given back. The store is the model that engines are held to. */
import { beforeEach, describe, expect, it } from 'vitest';
import { createModelStore } from '../../test/conformance/model-store.ts';
import { DEFAULT_SETTINGS } from '../domain/accounts.ts';
import { type TestEnv, testEnv } from '../env.ts';
import { type Store, StoreUnavailable } from '../store/contract.ts';
import { type Caller, plainPolicy } from './auth.ts';
import { createLimits, type Limits } from './limits.ts';

let env: TestEnv;
let store: Store;
let trips: number;
beforeEach(async () => {
  env = testEnv();
  const model = createModelStore();
  await model.putKey({ hash: 'h', account: 1, label: 'k' }, false);
  trips = 0;
  store = {
    ...model,
    quota(takes) {
      trips++;
      return model.quota(takes);
    },
  };
});

const caller: Caller = { account: 1, name: 'key k', scopes: null, requestsPerMinute: null };
const policy = (requestsPerMinute: number) => ({
  ...plainPolicy(1),
  limits: { ...DEFAULT_SETTINGS.limits, requestsPerMinute },
});
const node = (): Limits => createLimits({ store, clock: env.clock });

describe('requests for logs', () => {
  it('are counted by each node alone while the store cannot be written, and by all together again after that', async () => {
    const whole = store;
    store = { ...whole, quota: () => Promise.reject(new StoreUnavailable('disk full')) };
    const one = node();
    const reading = { ...policy(1), limits: { ...DEFAULT_SETTINGS.limits, logsPerMinute: 100 } };
    const wait = async (): Promise<number> => one.request(caller, reading, true);
    for (let n = 0; n < 100; n++) expect(await wait()).toBe(0);
    expect(await wait()).toBe(60);
    // Nothing else is let through uncounted.
    await expect((async () => one.request(caller, policy(100), false))()).rejects.toThrow(StoreUnavailable);
    await env.clock.advance(60_000);
    store.quota = whole.quota;
    for (let n = 0; n < 100; n++) expect(await wait()).toBe(0);
    expect(await wait()).toBe(60);
    expect(trips).toBeGreaterThan(0);
  });
});

describe('requests a minute', () => {
  it('are so many over all nodes together, whoever asks first and however many at once', async () => {
    const nodes = [node(), node(), node()];
    const waits = await Promise.all(
      Array.from({ length: 300 }, (_, n) => nodes[n % 3]?.request(caller, policy(100), false)),
    );
    const passed = waits.filter((wait) => wait === 0).length;
    expect(passed).toBeLessThanOrEqual(100);
    // What a node has leased and not used is at most a fiftieth each.
    expect(passed).toBeGreaterThanOrEqual(100 - 3 * 2);
    expect(waits.filter((wait) => wait !== 0)).toEqual(waits.filter((wait) => wait === 60));
    await env.clock.advance(60_000);
    expect(await nodes[0]?.request(caller, policy(100), false)).toBe(0);
  });

  it('are exact on one node', async () => {
    const one = node();
    const waits: number[] = [];
    for (let n = 0; n < 30; n++) waits.push(await one.request(caller, policy(7), false));
    expect(waits.filter((wait) => wait === 0)).toHaveLength(7);
  });

  it('cost the store one question in a fiftieth of them, and none the request that finds its share at hand', async () => {
    const one = node();
    for (let n = 0; n < 5_000; n++) {
      const wait = one.request(caller, policy(10_000), false);
      if (typeof wait !== 'number') await wait;
      else expect(wait).toBe(0);
    }
    expect(trips).toBe(25);
  });

  it('without a limit ask nobody', () => {
    expect(node().request(caller, plainPolicy(1), false)).toBe(0);
    expect(trips).toBe(0);
  });

  it('that find none left ask the store again only after a second', async () => {
    const one = node();
    for (let n = 0; n < 100; n++) await one.request(caller, policy(1), false);
    expect(trips).toBe(2);
    await env.clock.advance(1_000);
    for (let n = 0; n < 100; n++) await one.request(caller, policy(1), false);
    expect(trips).toBe(3);
  });
});
