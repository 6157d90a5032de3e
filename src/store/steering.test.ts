import { describe, expect, it } from 'vitest';
import { STATE } from '../domain/status.ts';
import { type BulkClock, endedWords, opensOf, type RunClock, startOf } from './clock.ts';
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
  const run: RunClock = { opensAt: NOW, moves: 0, limited: false, window: null, validityMs: HOUR };
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

describe('why a message was not delivered in time', () => {
  const busy = { outcome: 'deferred', words: 'busy' };
  it.each([
    [STATE.pending, [], false, 'validity ended, never tried: its carrier took nothing in time'],
    [STATE.pending, [], true, 'validity ended, never tried: its bulk was paused'],
    [
      STATE.pending,
      [{ outcome: 'throttled', words: '' }],
      false,
      'validity ended, never tried: the carrier asked to wait',
    ],
    [STATE.pending, [busy], false, 'validity ended after 1 attempt, the last: busy'],
    [
      STATE.pending,
      [busy, busy, { outcome: 'throttled', words: 'x' }],
      true,
      'validity ended after 2 attempts, the last: busy',
    ],
    [STATE.pending, [{ outcome: 'deferred', words: '' }], false, 'validity ended after 1 attempt, the last: deferred'],
    [STATE.submitted, [busy], false, 'no final report by the end of its validity'],
    [STATE.uncertain, [busy], false, 'not known whether the carrier took it, no report by the end of its validity'],
  ] as const)('state %s: %j, paused %s', (state, attempts, paused, words) => {
    expect(endedWords({ state, attempts, paused })).toBe(words);
  });
});
