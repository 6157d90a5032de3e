import { describe, expect, it } from 'vitest';
import { STATE } from '../domain/status.ts';
import {
  type BulkClock,
  type Ended,
  endedWords,
  opensOf,
  type RunClock,
  repaced,
  resumed,
  returned,
  startOf,
} from './clock.ts';
import { NO_PROGRESS, PLAIN_BULK, placeOf, printSpeed, readSpeed, statusOf, steered } from './steering.ts';

const NOW = Date.UTC(2026, 10, 24, 12);
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const WAITING = { ...NO_PROGRESS, accepted: 3, waiting: 2, delivered: 1 };

describe('a status', () => {
  it('is derived: what is open decides, never a flag that somebody forgot', () => {
    const open = { ...PLAIN_BULK };
    expect(statusOf(open, WAITING, NOW)).toBe('PROCESSING');
    expect(statusOf({ ...open, sendAt: NOW + 1 }, WAITING, NOW)).toBe('PENDING');
    expect(statusOf({ ...open, sendAt: NOW }, WAITING, NOW)).toBe('PROCESSING');
    expect(statusOf(open, { ...NO_PROGRESS, accepted: 1, sent: 1 }, NOW)).toBe('PROCESSING');
    expect(statusOf(open, { ...NO_PROGRESS, accepted: 1, failed: 1 }, NOW)).toBe('FINISHED');
    expect(statusOf({ ...open, sendAt: NOW + 1 }, NO_PROGRESS, NOW)).toBe('FINISHED');
    expect(statusOf({ ...open, pausedAt: NOW }, NO_PROGRESS, NOW)).toBe('PAUSED');
    expect(statusOf({ ...open, pausedAt: NOW, canceledAt: NOW }, WAITING, NOW)).toBe('CANCELED');
  });

  it('counts each state of a message in one place', () => {
    expect(Object.values(STATE).map((state) => placeOf(state))).toEqual([
      'waiting',
      'sent',
      'sent',
      'delivered',
      'failed',
      'failed',
      'failed',
    ]);
  });
});

describe('steering', () => {
  it('to what is so already changes nothing, and says so by the very same bulk', () => {
    const paused = { ...PLAIN_BULK, pausedAt: NOW - 1, speed: { amount: 5 }, sendAt: NOW + DAY };
    for (const change of [
      { kind: 'pause' },
      { kind: 'reschedule', sendAt: NOW + DAY },
      { kind: 'limit', speed: { amount: 5, timeUnit: 'MINUTE' } },
    ] as const) {
      expect(steered(paused, WAITING, [change], NOW)).toEqual({ kind: 'done', to: paused, drain: false });
    }
    expect(steered(PLAIN_BULK, WAITING, [{ kind: 'resume' }], NOW)).toMatchObject({ to: PLAIN_BULK });
    expect(steered(PLAIN_BULK, WAITING, [], NOW)).toMatchObject({ kind: 'done', to: PLAIN_BULK });
  });

  it('asked for twice is done once, also a resume whose answer is PENDING', () => {
    const ahead = { ...PLAIN_BULK, sendAt: NOW + DAY };
    expect(steered(ahead, WAITING, [{ kind: 'resume' }], NOW)).toEqual({ kind: 'conflict', status: 'PENDING' });
    const once = steered(ahead, WAITING, [{ kind: 'pause' }, { kind: 'resume' }], NOW);
    if (once.kind !== 'done') throw new Error(once.status);
    expect(statusOf(once.to, WAITING, NOW)).toBe('PENDING');
    expect(steered(once.to, WAITING, [{ kind: 'resume' }], NOW)).toEqual({ kind: 'done', to: once.to, drain: false });
  });

  it('sees what the changes before it have made', () => {
    const moved = steered(PLAIN_BULK, WAITING, [{ kind: 'pause' }, { kind: 'reschedule', sendAt: NOW - DAY }], NOW);
    expect(moved).toMatchObject({ kind: 'done', drain: true, to: { pausedAt: NOW, sendAt: NOW, moves: 1 } });
    const twice = [{ kind: 'cancel' }, { kind: 'pause' }] as const;
    expect(steered(PLAIN_BULK, WAITING, twice, NOW)).toEqual({ kind: 'conflict', status: 'CANCELED' });
  });

  it('keeps a limit in the words it was given', () => {
    expect(readSpeed(printSpeed({ amount: 1_000_000 }))).toEqual({ amount: 1_000_000, timeUnit: 'MINUTE' });
    expect(readSpeed(printSpeed(undefined))).toBeNull();
    // The same pace in other words is another limit to the customer, though it paces nearly alike.
    const hourly = steered(PLAIN_BULK, WAITING, [{ kind: 'limit', speed: { amount: 60, timeUnit: 'HOUR' } }], NOW);
    expect(hourly).toMatchObject({ to: { speed: { amount: 60, timeUnit: 'HOUR' }, limitedAt: NOW } });
  });
});

describe('the clock of a run whose bulk was moved', () => {
  const run: RunClock = { opensAt: NOW, moves: 0, limited: false, window: null, validityMs: HOUR, earlyMs: 0 };
  const bulk: BulkClock = { ...PLAIN_BULK, sendAt: NOW + DAY, moves: 1 };

  it('is the bulk’s, until the run has taken it over; what joined later has its own', () => {
    expect(opensOf(run, bulk)).toBe(NOW + DAY);
    expect(opensOf({ ...run, moves: 1 }, bulk)).toBe(NOW);
    expect(opensOf(run, null)).toBe(NOW);
    const window = { days: 127, from: 14 * 60, to: 15 * 60 };
    expect(opensOf({ ...run, window }, bulk)).toBe(NOW + DAY + 2 * HOUR);
  });

  it('stands still while a pause covers the new instant, and only then', () => {
    expect(startOf(run, { ...bulk, pausedAt: NOW })).toBeNull();
    expect(startOf(run, { ...bulk, pausedAt: NOW + DAY })).toBe(NOW + DAY);
    expect(startOf(run, { ...bulk, pauses: [[NOW - HOUR, NOW + HOUR]] })).toBe(NOW + DAY);
    expect(startOf(run, { ...bulk, pauses: [[NOW, NOW + 2 * DAY]] })).toBe(NOW + 2 * DAY);
  });
});

describe('turns that were not used', () => {
  const turns = { from: 1_000_000, end: 61_000_000 };
  const bulk: BulkClock = { ...PLAIN_BULK, intervalUs: 60_000_000, nextUs: turns.end, limitedAt: 0 };

  it('go back where they are the last that were taken, under the limit they were taken by', () => {
    expect(returned(bulk, turns, 0)).toBe(turns.from);
    expect(returned({ ...bulk, nextUs: turns.end + 60_000_000 }, turns, 0)).toBeNull();
    expect(returned(repaced(bulk, 5_000_000, 2), turns, 0)).toBeNull();
    expect(returned(repaced(bulk, 0, 2), turns, 0)).toBeNull();
    expect(returned(repaced(repaced(bulk, 5_000_000, 2), 60_000_000, 3), turns, 0)).toBe(turns.from);
  });

  it('go back to no earlier than the end of a pause, nor than somebody else may have them', () => {
    expect(returned(resumed({ ...bulk, pausedAt: 2_000 }, 30_000), turns, 0)).toBe(30_000_000);
    expect(returned(resumed({ ...bulk, pausedAt: 2_000 }, 100_000), turns, 0)).toBeNull();
    expect(returned(bulk, turns, 20_000_000)).toBe(20_000_000);
    expect(returned(bulk, turns, 99_000_000)).toBe(turns.end);
  });
});

describe('why a message was not delivered in time', () => {
  const busy = { outcome: 'deferred', words: 'busy' };
  const never = 'validity ended, never tried: its carrier was down, or had no room for it';
  it.each([
    [STATE.pending, [], '', never],
    [STATE.pending, [], 'closed', `${never}, until its window closed`],
    [STATE.pending, [], 'paused', 'validity ended, never tried: its bulk was paused'],
    [STATE.pending, [], 'unfetched', 'validity ended, never tried: its linked content could not be fetched in time'],
    [STATE.pending, [busy], 'unfetched', 'validity ended after 1 attempt, the last: busy'],
    [STATE.pending, [busy], 'paused', 'validity ended after 1 attempt, the last: busy; then its bulk was paused'],
    [STATE.pending, [busy], 'closed', 'validity ended after 1 attempt, the last: busy; then its window was closed'],
    [
      STATE.pending,
      [{ outcome: 'throttled', words: '' }],
      '',
      'validity ended: tried, and the carrier asked to wait once',
    ],
    [
      STATE.pending,
      [
        { outcome: 'throttled', words: '' },
        { outcome: 'throttled', words: 'slow' },
      ],
      'closed',
      'validity ended: tried, and the carrier asked to wait 2 times',
    ],
    [STATE.pending, [busy], '', 'validity ended after 1 attempt, the last: busy'],
    [
      STATE.pending,
      [busy, busy, { outcome: 'throttled', words: 'x' }],
      '',
      'validity ended after 2 attempts, the last: busy',
    ],
    [STATE.pending, [{ outcome: 'deferred', words: '' }], '', 'validity ended after 1 attempt, the last: deferred'],
    [STATE.submitted, [busy], 'paused', 'no final report by the end of its validity'],
    [STATE.uncertain, [busy], 'closed', 'not known whether the carrier took it, no report by the end of its validity'],
  ] as const)('state %s: %j, %s', (state, attempts, stood, words) => {
    const [paused, closed, unfetched] = [stood === 'paused', stood === 'closed', stood === 'unfetched'];
    const tried = attempts.some(({ outcome }) => outcome !== 'throttled');
    expect(endedWords({ state, error: tried ? 15000 : 0, attempts, paused, closed, unfetched })).toBe(words);
  });

  it('tells what was tried from what no carrier could be reached for', () => {
    const refused = { outcome: 'deferred', words: 'ECONNREFUSED' };
    const ended = (error: number, attempts: Ended['attempts'], paused = false): string =>
      endedWords({ state: STATE.pending, error, attempts, paused, closed: false, unfetched: false });
    const never = 'validity ended, never sent: its carrier could not be reached in';
    expect(ended(0, [refused])).toBe(`${never} 1 attempt, the last: ECONNREFUSED`);
    expect(ended(0, [refused, refused], true)).toBe(
      `${never} 2 attempts, the last: ECONNREFUSED; then its bulk was paused`,
    );
    expect(ended(15000, [busy, refused])).toBe('validity ended after 2 attempts, the last: ECONNREFUSED');
  });
});
