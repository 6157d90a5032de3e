/** The door's places as the gate counts them: by a clock that is passed, and by who waited for whom. */
import { describe, expect, it } from 'vitest';
import { createModelStore } from '../../test/conformance/model-store.ts';
import type { Clock } from '../env.ts';
import { testEnv } from '../env.ts';
import { createAuth } from './auth.ts';
import type { Answer } from './errors.ts';
import { createGate, type Gate } from './gate.ts';
import { createLimits } from './limits.ts';

const SEND = '/mms/2/messages';
let at = 0;
let turns: (() => void)[] = [];
/** Stands still until told to move; a turn of the thread ends when told to. */
const clock = {
  now: () => at,
  monotonic: () => at,
  setTimeout: (fn: () => void) => {
    turns.push(fn);
    return { cancel: () => undefined };
  },
} as unknown as Clock;

async function open(): Promise<Gate> {
  [at, turns] = [0, []];
  const store = createModelStore();
  await store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
  const auth = await createAuth(store, testEnv());
  auth.close();
  return createGate({
    auth,
    limits: createLimits({ store, clock }),
    store,
    clock,
    trustedProxies: [],
    maxWaiting: 1e6,
  });
}
const endTurn = (): void => {
  for (const end of turns.splice(0)) end();
};

/** Requests that come at once: one is read after the other, `ms` each, and all are answered when the last was read. How many. */
function rush(gate: Gate, count: number, ms: number): number {
  const inside: { leave(answer?: Answer): void }[] = [];
  for (let n = 0; n < count; n++) {
    const place = gate.enter(SEND, 1) as { leave(): void } | Answer;
    if (!('leave' in place)) continue;
    inside.push(place);
    at += ms;
  }
  for (const place of inside) place.leave({ status: 200, headers: {}, body: '' });
  endTurn();
  return inside.length;
}

describe('places at the door', () => {
  it('are for sends only', async () => {
    expect((await open()).enter('/mms/2/logs', 1)).toBeNull();
  });

  it('become fewer where a thread is behind, though each request alone is quick', async () => {
    const gate = await open();
    // 400 at once, 1 ms each: none takes long by itself, but the last has waited for all the others.
    const served = Array.from({ length: 10 }, () => {
      at += 100;
      return rush(gate, 400, 1);
    });
    expect(served[0]).toBeGreaterThan(200);
    expect(served.slice(-3).every((count) => count <= 12)).toBe(true);
    // And are as many as ever when the rush is over.
    at += 10_000;
    expect(rush(gate, 200, 1)).toBe(200);
  });

  it('stay where those who come at once do not wait for each other', async () => {
    const gate = await open();
    const { places } = gate.figures();
    for (let n = 0; n < 4_000; n++) {
      rush(gate, 1, 1);
      at += 1;
    }
    expect(gate.figures().places).toBe(places);
  });

  it('that are all taken are refused with 429, Retry-After and the documented body, and counted', async () => {
    const gate = await open();
    const { places } = gate.figures();
    const inside = Array.from({ length: places }, () => gate.enter(SEND, 1) as { leave(): void });
    const refused = gate.enter(SEND, 1) as Answer;
    expect(refused).toMatchObject({ status: 429, headers: { 'retry-after': '1' } });
    expect(JSON.parse(refused.body)).toMatchObject({ errorCode: 'E429', violations: [] });
    expect(gate.figures()).toMatchObject({ under: places, refused: 1 });
    inside[0]?.leave();
    expect('leave' in (gate.enter(SEND, 1) as object)).toBe(true);
  });
});
