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

/** Requests that come at once: one is served after the other, `ms` each, and answered `more` of them later. */
function rush(gate: Gate, count: number, ms: number, more = 0): void {
  const inside: { leave(): void }[] = [];
  for (let n = 0; n < count; n++) {
    const place = gate.enter(SEND, 1) as { leave(): void } | Answer;
    if (!('leave' in place)) continue;
    inside.push(place);
    at += ms;
    if (inside.length > more) inside.shift()?.leave();
  }
  for (const place of inside) place.leave();
  endTurn();
}

describe('places at the door', () => {
  it('are for sends only', async () => {
    expect((await open()).enter('/mms/2/logs', 1)).toBeNull();
  });

  it('become fewer where a thread is behind, though each request alone is quick', async () => {
    const gate = await open();
    const { places } = gate.figures();
    // 400 at once, 1 ms each and answered 20 ms later: none takes long by itself, but the last has waited for all the others.
    for (let second = 0; second < 10; second++) {
      rush(gate, 400, 1, 20);
      at += 1_000;
    }
    expect(gate.figures().places).toBeLessThan(places / 4);
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
