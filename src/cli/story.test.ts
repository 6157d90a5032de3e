import { expect, it } from 'vitest';
import type { StoryView } from './client.ts';
import { storyText } from './story.ts';
import { paint } from './terminal.ts';

const at = (second: number): string => `2026-07-07T06:32:${String(second).padStart(2, '0')}.000+0000`;
const status = (groupId: number, groupName: string, id: number, name: string) => ({
  ...{ groupId, groupName, id, name, description: '' },
});
const DELIVERED = status(3, 'DELIVERED', 5, 'DELIVERED_TO_HANDSET');
const EXPIRED = status(4, 'EXPIRED', 15, 'EXPIRED_EXPIRED');
const ENROUTE = status(1, 'PENDING', 3, 'PENDING_WAITING_DELIVERY');

const story: StoryView = {
  ...{ messageId: 'm1', bulkId: 'b1', to: '447700900001', sender: 'Postcard', channel: 'SMS' },
  ...{
    acceptedAt: at(0),
    sentAt: at(1),
    doneAt: at(8),
    status: DELIVERED,
    error: null,
    waiting: null,
    validUntil: null,
  },
  ended: { at: at(8), why: '000 DELIVRD' },
  content: { title: 'Hi', messageSegments: [{ type: 'TEXT', text: 'https://s.example/abc' }] },
  attempts: [
    {
      ...{
        attempt: 1,
        channel: 'MMS',
        at: at(1),
        tookMs: 12,
        carrier: 'north',
        outcome: 'refused',
        words: '4006 no MMS',
      },
      ...{ error: { id: 15019, name: 'EC_X', description: '' }, carrierMessageId: null, transactionId: 't1' },
    },
    {
      ...{ attempt: 1, channel: 'SMS', at: at(2), tookMs: 3, carrier: 'smsc', outcome: 'accepted', words: '' },
      ...{ error: null, carrierMessageId: '0a1b', transactionId: 't2' },
    },
  ],
  events: [
    { at: at(2), kind: 'STATUS', status: ENROUTE, error: null, words: '' },
    { at: at(8), kind: 'STATUS', status: DELIVERED, error: null, words: '000 DELIVRD' },
    { at: at(30), kind: 'NOTED', status: EXPIRED, error: null, words: 'Expired' },
  ],
  webhooks: [
    {
      ...{ at: at(9), retry: 0, url: 'https://a.example/r', reported: 'DELIVERED_TO_HANDSET', httpStatus: 503 },
      ...{ tookMs: 5, excerpt: 'busy' },
    },
    { at: at(12), retry: 1, url: 'https://a.example/r', httpStatus: 0, tookMs: 10_000, excerpt: 'no answer in time' },
  ],
  answers: [{ at: at(25), messageId: 'i1', channel: 'SMS', from: '447700900001', text: 'STOP' }],
  clicks: [
    { at: at(10), url: 'https://shop.example/', flag: 'PREVIEW', device: '' },
    { at: at(20), url: 'https://shop.example/', flag: null, device: 'Apple iPhone' },
  ],
};

it('a whole story is a line for each thing that happened, in order, the carrier in its own words', () => {
  const lines = storyText(story, paint(false))
    .split('\n')
    .map((line) => line.trimEnd());
  expect(lines).toEqual([
    'message   m1',
    'bulk      b1',
    'from, to  Postcard, 447700900001',
    'content   "Hi", TEXT "https://s.example/abc"',
    'status    DELIVERED_TO_HANDSET (5)',
    'channel   SMS, its failover',
    'why       000 DELIVRD',
    '',
    '2026-07-07 06:32:00.000  accepted as m1 for 447700900001',
    '2026-07-07 06:32:01.000  attempt 1 refused by north in 12 ms (15019 EC_X: 4006 no MMS)',
    '2026-07-07 06:32:02.000  SMS attempt 1 taken by smsc as 0a1b in 3 ms',
    '2026-07-07 06:32:02.000  PENDING_WAITING_DELIVERY',
    '2026-07-07 06:32:08.000  DELIVERED_TO_HANDSET (000 DELIVRD)',
    '2026-07-07 06:32:09.000  DELIVERED_TO_HANDSET reported to https://a.example/r: answered 503 in 5 ms',
    '2026-07-07 06:32:10.000  opened, not counted (PREVIEW): https://shop.example/',
    '2026-07-07 06:32:12.000  reported to https://a.example/r: no answer (no answer in time) in 10000 ms, retry 1',
    '2026-07-07 06:32:20.000  clicked: https://shop.example/ on Apple iPhone',
    '2026-07-07 06:32:25.000  answered by 447700900001 (SMS i1): STOP',
    '2026-07-07 06:32:30.000  noted, changes nothing: EXPIRED_EXPIRED (Expired)',
    '',
  ]);
});

it('an open one says what it waits for and until when', () => {
  const waiting = { until: at(40), why: 'its delivery window' };
  const open = { ...story, status: ENROUTE, doneAt: null, ended: null, waiting, validUntil: at(50) };
  const text = storyText(open, paint(false));
  expect(text).toContain('valid until  2026-07-07 06:32:50.000');
  expect(text).toContain('waiting      its delivery window, until 2026-07-07 06:32:40.000');
});
