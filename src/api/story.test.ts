import { describe, expect, it } from 'vitest';
import { createIds } from '../domain/ids.ts';
import type { Gate, Story } from '../store/contract.ts';
import { storyAnswer } from './answers.ts';
import { type StoryContext, storyOf } from './story.ts';

const ids = createIds('000102030405060708090a0b0c0d0e0f');
/** A Tuesday. */
const NOW = Date.UTC(2026, 6, 7, 12);
const HOUR = 3_600_000;
const MONDAYS = { days: 1, from: 8 * 60, to: 18 * 60 };

const open: Story = {
  message: {
    ...{ no: 7, key: 'order-1', bulk: 5, bulkId: null, spec: 6, to: '447700900001', state: 0, status: 26, error: 0 },
    ...{ acceptedAt: NOW - HOUR, sentAt: null, doneAt: null, claimed: false, leg: 0 as const },
  },
  spec: {
    ...{ no: 6, account: 1, sender: 'Postcard', acceptedAt: NOW - HOUR, media: [] },
    body: JSON.stringify({ sender: 'Postcard', content: { messageSegments: [{ type: 'TEXT', text: 'x' }] } }),
  },
  ...{ attempts: [], events: [], webhooks: [], clicks: [], answers: [], validUntil: null },
  waiting: { until: null, why: 'its turn', carrier: 'north' },
};
const gate: Gate = { opensAt: NOW - HOUR, sendAt: null, window: null, paced: false, canceled: false };

type Shown = ReturnType<typeof storyAnswer.parse>;
const show = (story: Story, context: Partial<StoryContext> = {}): Shown =>
  // As it is on the wire, where what is undefined is gone.
  storyAnswer.parse(JSON.parse(JSON.stringify(storyOf(story, { ids, now: NOW, ...context }))));
const waits = (
  waiting: Partial<NonNullable<Story['waiting']>>,
  more: Partial<Story['message']> = {},
  served?: string[],
) => {
  const message = { ...open.message, ...more };
  const story = { ...open, message, waiting: { ...(open.waiting as NonNullable<Story['waiting']>), ...waiting } };
  return show(story, served ? { served: new Set(served) } : {}).waiting;
};
const at = (instant: number): string => new Date(instant).toISOString().replace('Z', '+0000');

describe('an open message waits for', () => {
  it('its sendAt', () => {
    const opensAt = NOW + HOUR;
    expect(waits({ gate: { ...gate, opensAt, sendAt: opensAt }, until: opensAt })).toEqual({
      ...{ until: at(opensAt), why: 'its sendAt', carrier: 'north' },
    });
  });

  it('the opening of its delivery window, the first time and again', () => {
    const monday = Date.UTC(2026, 6, 13, 8);
    const why = 'its delivery window';
    expect(waits({ gate: { ...gate, opensAt: monday, window: MONDAYS } })).toMatchObject({ until: at(monday), why });
    // Accepted on Monday, and not taken before it closed.
    const opensAt = Date.UTC(2026, 6, 6, 9);
    expect(waits({ gate: { ...gate, opensAt, window: MONDAYS } })).toMatchObject({ until: at(monday), why });
    // A sendAt inside the window is what it waits for.
    const sendAt = monday + HOUR;
    expect(waits({ gate: { ...gate, opensAt: sendAt, sendAt, window: MONDAYS } })?.why).toBe('its sendAt');
  });

  it('its turn: under a speed limit, or at its carrier', () => {
    const until = NOW + 1000;
    expect(waits({ gate: { ...gate, paced: true }, until })).toMatchObject({
      ...{ until: at(until), why: 'its turn under the speed limit of its bulk' },
    });
    expect(waits({ gate })?.why).toBe('its turn at carrier north');
  });

  it('a carrier that is not configured any more, whatever else it would wait for', () => {
    const gone =
      'its carrier north is not configured any more: it leaves when the carrier is back, or ends with its validity';
    expect(waits({ gate }, {}, ['south'])?.why).toBe(gone);
    expect(waits({ gate, why: 'the next attempt' }, { error: 502 }, ['south'])?.why).toBe(gone);
    expect(waits({ gate: { ...gate, opensAt: NOW + HOUR } }, {}, ['south'])?.why).toBe(gone);
    expect(waits({ gate }, {}, ['north'])?.why).toBe('its turn at carrier north');
    // What a carrier has is not waiting for it.
    const taken = 'taken by the carrier, no final report yet';
    expect(waits({ gate, why: taken }, { status: 3, state: 1 }, ['south'])?.why).toBe(taken);
    expect(waits({ gate, why: 'being submitted' }, { claimed: true }, ['south'])?.why).toBe('being submitted');
  });

  it('the report of the carrier that took it, where that was the second choice', () => {
    const attempt = { n: 1, channel: 'MMS', at: NOW, tookMs: 1, error: 0, words: '', transactionId: 't-1' } as const;
    const attempts: Story['attempts'] = [
      { ...attempt, carrier: 'north', outcome: 'deferred', carrierMessageId: null },
      { ...attempt, n: 2, carrier: 'south', outcome: 'accepted', carrierMessageId: 'S1' },
    ];
    const message = { ...open.message, status: 3, state: 1 };
    expect(show({ ...open, message, attempts }).waiting?.carrier).toBe('south');
    expect(show({ ...open, attempts }).waiting?.carrier).toBe('north');
  });

  it('what the store knows alone: a pause, content, the next attempt', () => {
    for (const why of ['its bulk is paused', 'its linked content is being fetched', 'the next attempt']) {
      expect(waits({ why, gate: { ...gate, opensAt: NOW + HOUR } }, {}, ['north'])?.why).toBe(why);
    }
  });

  it('its next attempt, also where its carrier could not be reached, which leaves no error on it', () => {
    const attempt = {
      n: 1,
      at: NOW,
      tookMs: 1,
      words: '',
      carrier: 'north',
      carrierMessageId: null,
      transactionId: 't',
    };
    const until = NOW + 1000;
    const why = (
      outcome: 'deferred' | 'throttled',
      channel: 'MMS' | 'SMS',
      more: Partial<Gate> = {},
    ): string | undefined => {
      const attempts = [{ ...attempt, channel, outcome, error: 15000 }];
      const waiting = { until, why: 'its turn', carrier: 'north', gate: { ...gate, ...more } };
      return show({ ...open, attempts, waiting }).waiting?.why;
    };
    expect(why('deferred', 'MMS')).toBe('the next attempt');
    expect(why('deferred', 'MMS', { paced: true })).toBe('the next attempt');
    expect(why('deferred', 'MMS', { window: MONDAYS })).toBe('its delivery window');
    // Asked to wait, or tried on the leg before.
    expect(why('throttled', 'MMS')).toBe('its turn at carrier north');
    expect(why('deferred', 'SMS')).toBe('its turn at carrier north');
  });

  it('nothing more, when its bulk was cancelled', () => {
    const gone = waits({ why: 'its bulk is paused', gate: { ...gate, canceled: true } }, {}, ['south']);
    expect(gone?.why).toBe('its bulk was cancelled: it ends as soon as that is written');
  });
});

describe('a final message', () => {
  const doneAt = NOW - 1;
  const message = { ...open.message, state: 4, status: 9, error: 27, doneAt, sentAt: NOW - 10 };
  const event = { event: 1, at: doneAt, status: 9, error: 27, kind: 'status' as const, words: 'Rejected: 27 off' };

  it('says why it ended in the words of who ended it, else in what its codes mean', () => {
    const ended = (story: Partial<Story>) => show({ ...open, message, waiting: null, ...story }).ended;
    expect(ended({ events: [event] })).toEqual({ at: at(doneAt), why: 'Rejected: 27 off' });
    expect(ended({ events: [{ ...event, words: '' }] })?.why).toBe('Phone unreachable or off');
    expect(ended({ events: [] })?.why).toBe('Phone unreachable or off');
    expect(ended({ message: { ...message, error: 0 } })?.why).toBe('Message sent not delivered');
    // What was told too late is not why.
    const late = { ...event, event: 2, kind: 'noted' as const, words: 'late' };
    expect(ended({ events: [event, late] })?.why).toBe('Rejected: 27 off');
    expect(show(open).ended).toBeNull();
  });

  it('shows every report, every webhook with what it told, and every click', () => {
    const told = show({
      ...open,
      ...{ message, waiting: null },
      events: [event, { ...event, event: 2, kind: 'noted', status: 5, error: 0, words: 'Retrieved' }],
      webhooks: [{ event: 1, retry: 3, at: NOW, tookMs: 4, status: 500, excerpt: 'oops', url: 'https://a.example/' }],
      clicks: [{ at: NOW, url: 'https://b.example/', flag: 'BOT', device: 'bot' }],
      answers: [{ no: 9, at: NOW, channel: 'MMS', from: '447700900001', text: 'thanks' }],
    });
    expect(told.events.map(({ kind, status, words }) => [kind, status.id, words])).toEqual([
      ['STATUS', 9, 'Rejected: 27 off'],
      ['NOTED', 5, 'Retrieved'],
    ]);
    expect(told.webhooks).toEqual([
      {
        ...{ at: at(NOW), retry: 3, url: 'https://a.example/', reported: 'UNDELIVERABLE_NOT_DELIVERED' },
        ...{ httpStatus: 500, tookMs: 4, excerpt: 'oops' },
      },
    ]);
    expect(told.answers).toEqual([
      { at: at(NOW), messageId: ids.print('message', 9), channel: 'MMS', from: '447700900001', text: 'thanks' },
    ]);
    expect(told.clicks).toEqual([{ at: at(NOW), url: 'https://b.example/', flag: 'BOT', device: 'bot' }]);
  });
});
