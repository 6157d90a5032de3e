/** What a probe is told while the store refuses, wholly or only what is large. */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { type Accept, type Store, StoreUnavailable } from '../store/contract.ts';
import { createReady } from './ready.ts';

describe('readiness', () => {
  function stand() {
    const env = testEnv();
    let full = false;
    const store = {
      reserve: async () => 1,
      async accept() {
        if (full) throw new StoreUnavailable('could not extend file: No space left on device');
        return { kind: 'accepted' };
      },
    } as unknown as Store;
    const fill = (is: boolean): void => {
      full = is;
    };
    const { ready, accepting } = createReady(store, env);
    const accept = () =>
      accepting.accept({} as Accept).then(
        () => true,
        () => false,
      );
    return { env, ready, accept, fill };
  }

  it('ends when requests are refused one after the other, though what a probe writes finds room', async () => {
    const { ready, accept, fill } = stand();
    expect(await ready()).toBe(true);
    fill(true);
    expect(await accept()).toBe(false);
    expect(await accept()).toBe(false);
    // It may have been these two's own fault.
    expect(await ready()).toBe(true);
    expect(await accept()).toBe(false);
    expect(await ready()).toBe(false);
  });

  it('is back at once when a request is taken, or soon when none comes', async () => {
    const { env, ready, accept, fill } = stand();
    fill(true);
    for (let n = 0; n < 3; n++) await accept();
    expect(await ready()).toBe(false);
    fill(false);
    expect(await accept()).toBe(true);
    expect(await ready()).toBe(true);
    fill(true);
    for (let n = 0; n < 3; n++) await accept();
    await env.clock.advance(4_900);
    expect(await ready()).toBe(false);
    await env.clock.advance(200);
    expect(await ready()).toBe(true);
  });
});
