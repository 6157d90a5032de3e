/**
 * Carriers that ask before they send, take more of the rate than one place, or hear from their peer when it was given up: on the
 * embedded store, in virtual time.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { acceptRequest, IDS, openVirtualStore, START } from '../../test/virtual-store.ts';
import type { Carrier, Hand } from '../carriers/carrier.ts';
import type { Schedule } from '../domain/message.ts';
import { createRouting } from '../domain/routing.ts';
import type { Outcome, Submission } from '../domain/submission.ts';
import { type TestEnv, testEnv } from '../env.ts';
import { createDispatch } from './dispatch.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

type Submit = (submission: Submission, signal: AbortSignal, hand: Hand, env: TestEnv) => Promise<Outcome>;

async function world(submit: Submit, options: { ratePerSecond?: number; turns?: number } = {}) {
  const env = testEnv({ now: START });
  const store = openVirtualStore(env);
  const lane = await store.lane('carrier', { onUnknown: 'hold', reports: true });
  const { turns } = options;
  const carrier: Carrier = {
    name: 'carrier',
    submit: (submission, signal, hand) => submit(submission, signal, hand as Hand, env),
    ...(turns === undefined ? {} : { turns: () => turns }),
  };
  const dispatch = createDispatch({
    store,
    env,
    install: 'test',
    ids: IDS,
    node: 'one',
    lanes: [{ no: lane, carrier, concurrency: 8, ratePerSecond: options.ratePerSecond ?? 0, timeoutMs: 10_000 }],
  });
  dispatch.start();
  closing.push(async () => {
    const stopped = dispatch.stop(100);
    await env.clock.advance(5_000);
    await stopped;
    await store.close();
  });
  return {
    env,
    store,
    async accept(count: number, schedule?: Schedule): Promise<number[]> {
      const destinations = Array.from({ length: count }, (_, n) => ({ to: String(441134960000 + n) }));
      const content = { messageSegments: [{ type: 'TEXT' as const, text: 'hi' }] };
      const request = {
        messages: [{ sender: 'Shop', destinations, content }],
        ...(schedule ? { options: { schedule } } : {}),
      };
      return acceptRequest(store, request, { now: env.clock.now(), routing: createRouting([[lane]]) });
    },
    async status(no: number) {
      const story = await store.story(1, { no });
      return { status: story?.message.status, attempts: story?.attempts.length };
    },
  };
}

const taken = (carrierMessageId: string): Extract<Outcome, { kind: 'accepted' }> => ({
  kind: 'accepted',
  carrierMessageId,
});
const lost: Outcome = { kind: 'unknown', error: { id: 502, words: 'no answer in time' } };

describe('a late answer', () => {
  const report = (carrierMessageId: string) => ({
    carrier: 'carrier',
    carrierMessageId,
    addresses: ['441134960000'],
    kind: 'retrieved' as const,
    words: 'DELIVRD',
  });

  it('teaches the id, so that the receipt finds the message and nothing is sent twice', async () => {
    let sent = 0;
    const w = await world(async (_, __, hand, env) => {
      sent++;
      env.clock.setTimeout(() => hand.late(taken('late-1')), 2_000);
      return lost;
    });
    const [no] = (await w.accept(1)) as [number];
    await w.env.clock.advance(1_000);
    expect(await w.status(no)).toEqual({ status: 3, attempts: 1 });
    await w.env.clock.advance(3_000);
    expect(await w.store.report(report('late-1'))).toMatchObject({ known: true });
    expect(await w.status(no)).toEqual({ status: 5, attempts: 1 });
    await w.env.clock.advance(30 * 60_000);
    expect(sent).toBe(1);
  });

  it('finds a receipt that came before it', async () => {
    const w = await world(async (_, __, hand, env) => {
      env.clock.setTimeout(() => hand.late(taken('late-2')), 5_000);
      return lost;
    });
    const [no] = (await w.accept(1)) as [number];
    await w.env.clock.advance(1_000);
    expect(await w.store.report(report('late-2'))).toMatchObject({ known: false });
    await w.env.clock.advance(5_000);
    expect(await w.status(no)).toEqual({ status: 5, attempts: 1 });
  });
});

describe('a carrier that has to connect first', () => {
  it('is told no once the validity is over: nothing is an attempt, and it was never sent', async () => {
    const told: boolean[] = [];
    const w = await world(async (_, __, hand, env) => {
      await env.clock.sleep(told.length === 0 ? 2_000 : 9_000);
      told.push(hand.open());
      return told.at(-1) ? lost : { kind: 'deferred', error: { id: 15000, words: 'over' }, unsent: true };
    });
    const content = { messageSegments: [{ type: 'TEXT' as const, text: 'hi' }] };
    const options = { validityPeriod: { amount: 5, timeUnit: 'SECONDS' as const } };
    const send = (to: string): Promise<number[]> =>
      acceptRequest(
        w.store,
        { messages: [{ sender: 'Shop', destinations: [{ to }], content, options }] },
        { now: w.env.clock.now(), routing: createRouting([[1]]) },
      );
    const [sent] = (await send('441134960000')) as [number];
    await w.env.clock.advance(3_000);
    expect([told, await w.status(sent)]).toEqual([[true], { status: 3, attempts: 1 }]);
    const [late] = (await send('441134960001')) as [number];
    await w.env.clock.advance(60_000);
    expect([told, await w.status(late)]).toEqual([[true, false], { status: 15, attempts: 0 }]);
  });
});

describe('a carrier that asks before it sends', () => {
  it('is told no once a bulk’s turn has passed: nothing is an attempt, and another turn comes', async () => {
    const at: number[] = [];
    let slow = true;
    const w = await world(
      async (_, __, hand, env) => {
        // Waits for its connection, longer than a turn under a speed limit may.
        if (slow) await env.clock.sleep(900);
        slow = false;
        if (!hand.leaves()) return { kind: 'deferred', error: { id: 4102, words: 'not looked at' }, elsewhere: true };
        at.push(env.clock.monotonic());
        return taken(`id-${at.length}`);
      },
      { turns: 1 },
    );
    const nos = await w.accept(4, { sendingSpeedLimit: { amount: 60, timeUnit: 'MINUTE' } });
    await w.env.clock.advance(10_000);
    expect(at).toHaveLength(4);
    for (let i = 1; i < at.length; i++) expect(at[i]! - at[i - 1]!).toBeGreaterThanOrEqual(1_000);
    for (const no of nos) expect(await w.status(no)).toEqual({ status: 3, attempts: 1 });
  });

  it('has its departures counted when they leave, also those that wait for a connection', async () => {
    const at: number[] = [];
    const w = await world(
      async (_, __, hand, env) => {
        await env.clock.sleep((at.length * 37) % 200);
        if (!hand.leaves()) return { kind: 'deferred', error: { id: 4102 } };
        at.push(env.clock.monotonic());
        return taken(`id-${at.length}`);
      },
      { ratePerSecond: 10, turns: 1 },
    );
    await w.accept(60);
    await w.env.clock.advance(10_000);
    expect(at).toHaveLength(60);
    for (let i = 10; i < at.length; i++) expect(at[i]! - at[i - 10]!).toBeGreaterThanOrEqual(1_000 - 1e-6);
  });
});

describe('a carrier of several connections of which one is asked to slow down', () => {
  it.each([
    ['goes on with the others', true, 1],
    ['stops where there is no other', undefined, 0],
  ] as const)('%s', async (_, others, least) => {
    let calls = 0;
    const at: number[] = [];
    const w = await world(
      async (__, ___, hand, env) => {
        if (!hand.leaves()) return { kind: 'deferred', error: { id: 4102 } };
        calls++;
        if (calls === 1) return { kind: 'throttled', retryAfterMs: 3_000, ...(others ? { others } : {}) };
        await env.clock.sleep(100);
        at.push(env.clock.monotonic());
        return taken(`id-${calls}`);
      },
      { turns: 1 },
    );
    const nos = await w.accept(40);
    await w.env.clock.advance(2_500);
    // What was out already with the first one has its answer in any case.
    expect(at.filter((one) => one > 500).length).toBeGreaterThanOrEqual(least);
    if (least === 0) expect(at.length).toBeLessThan(8);
    else expect(at.length).toBe(39);
    await w.env.clock.advance(5_000);
    expect(at.length).toBe(40);
    for (const no of nos) expect(await w.status(no)).toMatchObject({ status: 3 });
  });
});

describe('a rate counted in segments', () => {
  it('spaces submissions by what they weigh', async () => {
    const at: number[] = [];
    const w = await world(
      async (_, __, hand, env) => {
        expect(hand.leaves()).toBe(true);
        at.push(env.clock.monotonic());
        return taken(`id-${at.length}`);
      },
      { ratePerSecond: 10, turns: 3 },
    );
    await w.accept(10);
    await w.env.clock.advance(5_000);
    expect(at).toHaveLength(10);
    for (let i = 1; i < at.length; i++) expect(at[i]! - at[i - 1]!).toBeGreaterThanOrEqual(300 - 1e-6);
    for (const from of at)
      expect(at.filter((one) => one >= from && one < from + 1_000 - 1e-6).length).toBeLessThanOrEqual(3);
  });

  it('holds over what follows a first segment, however long the answers take, and is used up', async () => {
    const at: number[] = [];
    const w = await world(
      async (_, signal, hand, env) => {
        if (!hand.leaves()) return { kind: 'deferred', error: { id: 4102 } };
        const n = at.push(env.clock.monotonic());
        await env.clock.sleep((n * 71) % 600);
        const turns = [1, 2].map(() => hand.turn());
        for (const turn of turns) if (await turn.come(signal)) at.push(env.clock.monotonic());
        return taken(`id-${n}`);
      },
      { ratePerSecond: 10, turns: 1 },
    );
    await w.accept(30);
    await w.env.clock.advance(11_000);
    expect(at).toHaveLength(90);
    for (let i = 10; i < at.length; i++) expect(at[i]! - at[i - 10]!).toBeGreaterThanOrEqual(1_000 - 1e-6);
  });
});
