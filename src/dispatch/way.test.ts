/** What a lane makes of a claim that is for another channel than its carrier's. */
import { expect, it } from 'vitest';
import type { SmsCarrier } from '../carriers/carrier.ts';
import type { SpecRow } from '../domain/rows.ts';
import { testEnv } from '../env.ts';
import type { Claim } from '../store/contract.ts';
import { createWay } from './way.ts';

const claim: Claim = {
  token: 1,
  leader: 7,
  spec: 3,
  members: [{ no: 7, to: '441134960001', key: null }],
  generation: 0,
  attempt: 1,
  notBeforeUs: 0,
  paced: false,
  validUntil: 1,
};

it('an MMS on an SMSC’s lane has no route, so that its SMS follows; without one it waits for another carrier', async () => {
  const { clock } = testEnv();
  const sent: unknown[] = [];
  const sms: SmsCarrier = {
    name: 'smsc',
    submit: async (submission) => {
      sent.push(submission);
      return { kind: 'accepted', carrierMessageId: 'x' };
    },
    close: async () => {},
  };
  const prepare = () => Promise.reject(new Error('there is nothing to prepare'));
  const way = createWay({ sms }, prepare, clock, 'i');
  const ready = (options?: object) => {
    const body = JSON.stringify({ sender: 'Shop', content: { messageSegments: [] }, ...(options ? { options } : {}) });
    const spec: SpecRow = { no: 3, account: 1, sender: 'Shop', body, acceptedAt: 0, media: [] };
    return way.ready(claim, spec, () => 1_000, new AbortController().signal, {} as never);
  };
  expect(await ready({ smsFailover: { text: 'instead' } })).toEqual({
    ok: false,
    words: 'no carrier takes an MMS to this destination',
    error: 15023,
    elsewhere: true,
  });
  const waits = await ready();
  if (typeof waits === 'number' || !waits.ok) throw new Error('is to be tried');
  const hand = { leaves: () => true, late: () => {} } as never;
  expect(await waits.send(new AbortController().signal, hand)).toMatchObject({
    kind: 'deferred',
    error: { id: 15023 },
  });
  expect(sent).toEqual([]);
});
