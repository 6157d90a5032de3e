/** Two carriers on the embedded store, under virtual time: what the first cannot take goes to the second, and an SMS follows. */
import { afterEach, describe, expect, it } from 'vitest';
import { acceptRequest, IDS, openVirtualStore, START } from '../../test/virtual-store.ts';
import type { Carrier, SmsCarrier } from '../carriers/carrier.ts';
import type { MessageOptions } from '../domain/message.ts';
import { createRouter, type RoutedCarrier } from '../domain/routing.ts';
import type { Outcome, SmsSubmission, Submission } from '../domain/submission.ts';
import { testEnv } from '../env.ts';
import { createDispatch } from './dispatch.ts';

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

const taken: Outcome = { kind: 'accepted', carrierMessageId: '' };
const failing = (more: object): Outcome => ({ kind: 'deferred', error: { id: 15000, words: 'down' }, ...more });

/** `first` and `second` answer for the two MMSCs, in this order of preference. */
async function world(
  first: () => Outcome,
  second: () => Outcome = () => taken,
  sms: () => Outcome = () => taken,
  routed = 'abc',
  cancel?: NonNullable<Carrier['cancel']>,
  /** Keeps the time, and may have messages an hour early. */
  replace?: NonNullable<Carrier['replace']>,
) {
  const env = testEnv({ now: START });
  const store = openVirtualStore(env);
  closing.push(() => store.close());
  const calls: { carrier: string; what: Submission | SmsSubmission }[] = [];
  const carrier = (name: string, answer: () => Outcome) =>
    ({
      name,
      ...(cancel ? { cancel } : {}),
      ...(replace ? { replace } : {}),
      async submit(what: Submission | SmsSubmission): Promise<Outcome> {
        calls.push({ carrier: name, what });
        const outcome = answer();
        return outcome.kind === 'accepted' ? { ...outcome, carrierMessageId: what.transactionId } : outcome;
      },
    }) as unknown;
  const policy = { onUnknown: 'retry', reports: true } as const;
  const [a, b, c] = [await store.lane('a', policy), await store.lane('b', policy), await store.lane('c', policy)];
  const pace = { concurrency: 4, ratePerSecond: 0, timeoutMs: 30_000 };
  const dispatch = createDispatch({
    store,
    env,
    install: 'test',
    ids: IDS,
    node: 'one',
    lanes: [
      { no: a, carrier: carrier('a', first) as Carrier, ...pace },
      { no: b, carrier: carrier('b', second) as Carrier, ...pace },
      { no: c, sms: carrier('c', sms) as SmsCarrier, ...pace },
    ],
  });
  dispatch.start();
  const routing = createRouter({
    carriers: [
      { name: 'a', channel: 'MMS', lanes: [a], ...(replace ? { earlyMs: 3_600_000 } : {}) },
      { name: 'b', channel: 'MMS', lanes: [b] },
      { name: 'c', channel: 'SMS', lanes: [c] },
    ].filter(({ name }) => routed.includes(name)) as RoutedCarrier[],
  });
  return {
    calls,
    dispatch,
    env,
    store,
    of: (name: string) => calls.filter((call) => call.carrier === name),
    async accept(count: number, options?: MessageOptions, bulkId?: string, sendAt?: string): Promise<number[]> {
      const destinations = Array.from({ length: count }, (_, n) => ({ to: String(441134960000 + n) }));
      const content = { title: 'Sale', messageSegments: [{ type: 'TEXT' as const, text: 'hi' }] };
      const message = { sender: 'Shop', destinations, content, ...(options ? { options } : {}) };
      const request = {
        messages: [message],
        ...(bulkId === undefined ? {} : { options: { schedule: { bulkId, ...(sendAt ? { sendAt } : {}) } } }),
      };
      return acceptRequest(store, request, { now: env.clock.now(), routing });
    },
  };
}

describe('a carrier that is down', () => {
  it('hands each message that it cannot take to the second one, once', async () => {
    const { env, accept, of, store } = await world(() => failing({ elsewhere: true }));
    const nos = await accept(3);
    await env.clock.advance(5_000);
    expect(of('a')).toHaveLength(3);
    expect(of('b')).toHaveLength(3);
    const ids = [...of('a'), ...of('b')].map(({ what }) => what.transactionId);
    expect(new Set(ids).size).toBe(6);
    for (const no of nos) expect((await store.story(1, { no }))?.message.status).toBe(3);
  });

  it('is passed by all that wait once its breaker is open, also for a reason that others might share', async () => {
    const { env, accept, of } = await world(() => failing({}));
    await accept(400);
    await env.clock.advance(20_000);
    // Some were tried there, and keep to it until it says otherwise.
    expect(of('a').length).toBeLessThan(60);
    expect(of('b').length).toBeGreaterThan(340);
    const twice = of('b').map(({ what }) => what.transactionId);
    expect(new Set(twice).size).toBe(twice.length);
  });

  it('keeps what has no other way, and sends it when it is back', async () => {
    let down = true;
    const { env, accept, of, store } = await world(
      () => (down ? failing({ elsewhere: true }) : taken),
      () => taken,
      () => taken,
      'a',
    );
    const nos = await accept(50);
    await env.clock.advance(30_000);
    down = false;
    await env.clock.advance(10 * 60_000);
    for (const no of nos) expect((await store.story(1, { no }))?.message.status).toBe(3);
    expect(of('b')).toEqual([]);
  });
});

describe('a cancelled bulk', () => {
  it('is called back from a carrier that can, once a submission', async () => {
    const asked: unknown[] = [];
    const { env, accept, store, dispatch } = await world(
      () => taken,
      () => taken,
      () => taken,
      'a',
      async (id, submission) => {
        asked.push([id, submission]);
        return id.endsWith(`${nos[0]}`);
      },
    );
    const nos = await accept(2, undefined, 'b');
    await env.clock.advance(2_000);
    await store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
    await env.clock.advance(5_000);
    expect(asked).toEqual(nos.map((no) => [`test-${no}`, { transactionId: `test-${no}`, sender: 'Shop' }]));
    const last = async (no: number) => (await store.story(1, { no }))?.events.at(-1)?.words;
    expect(await last(nos[0] as number)).toBe('a was asked to call it back: it will not be delivered');
    expect(await last(nos[1] as number)).toBe('a was asked to call it back: no, or no answer');
    await dispatch.stop(1_000);
  });
});

describe('a bulk that is moved', () => {
  it('is kept by a carrier that has it early, until its new time', async () => {
    const asked: unknown[] = [];
    const [sendAt, later] = [START + 1_800_000, START + 86_400_000];
    const { env, accept, store, dispatch, of } = await world(
      () => taken,
      () => taken,
      () => taken,
      'a',
      undefined,
      async (id, submission) => {
        asked.push([id, submission]);
        return id.endsWith(`${nos[0]}`);
      },
    );
    const nos = await accept(2, undefined, 'b', new Date(sendAt).toISOString());
    await env.clock.advance(2_000);
    expect(of('a').map(({ what }) => (what as Submission).earliestAt)).toEqual([sendAt, sendAt]);
    await store.bulkSteer(1, { id: 'b' }, [{ kind: 'reschedule', sendAt: later }]);
    await env.clock.advance(5_000);
    expect(asked).toEqual(
      nos.map((no) => [`test-${no}`, { transactionId: `test-${no}`, sender: 'Shop', earliestAt: later }]),
    );
    const last = async (no: number) => (await store.story(1, { no }))?.events.at(-1)?.words;
    const words = 'a was asked to deliver it from 2026-11-25T12:00:00.000+0000 on:';
    expect(await last(nos[0] as number)).toBe(`${words} it will`);
    expect(await last(nos[1] as number)).toBe(`${words} no, or no answer`);
    await dispatch.stop(1_000);
  });

  it('and then cancelled tells of no question where its carrier cannot be asked to call it back', async () => {
    const { env, accept, store, dispatch } = await world(
      () => taken,
      () => taken,
      () => taken,
      'a',
      undefined,
      async () => true,
    );
    const [no] = (await accept(1, undefined, 'b')) as [number];
    await env.clock.advance(2_000);
    await store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
    await env.clock.advance(5_000);
    const words = (await store.story(1, { no }))?.events.map((one) => one.words);
    expect(words?.join()).not.toContain('was asked');
    await dispatch.stop(1_000);
  });
});

describe('an SMS lane', () => {
  const refused = (): Outcome => ({ kind: 'refused', error: { id: 15019, words: 'no MMS' } });

  it('gets what the spec says: its own sender, text, reseller code and validity', async () => {
    const { env, accept, of } = await world(refused);
    const [no] = (await accept(1, {
      campaignReferenceId: 'spring',
      regional: { southKorea: { resellerCode: 1 } },
      smsFailover: {
        sender: '+447700900123',
        text: 'instead',
        validityPeriod: { amount: 10 },
        regional: { southKorea: { resellerCode: 7 } },
      },
    })) as [number];
    await env.clock.advance(1_000);
    expect(of('b')).toEqual([]);
    expect(of('c').map(({ what }) => what)).toEqual([
      {
        transactionId: `test-${no}-sms`,
        sender: '447700900123',
        recipient: '441134960000',
        text: 'instead',
        validUntil: expect.any(Number),
        campaignReferenceId: 'spring',
        resellerCode: 7,
      },
    ]);
    expect((of('c')[0]?.what.validUntil ?? 0) - START).toBeLessThanOrEqual(10 * 60_000 + 1_000);
  });

  it('sends from the message’s sender where none is given, and is asked again with the same transaction', async () => {
    let tries = 0;
    const { env, accept, of } = await world(
      refused,
      () => taken,
      () => (tries++ === 0 ? failing({}) : taken),
    );
    await accept(1, { smsFailover: { text: 'instead' } });
    await env.clock.advance(10_000);
    expect(of('c').map(({ what }) => what.sender)).toEqual(['Shop', 'Shop']);
    expect(new Set(of('c').map(({ what }) => what.transactionId)).size).toBe(1);
  });
});
