import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import type { DeliveryTimeWindow, SpeedLimit } from './message.ts';
import {
  type Admission,
  admit,
  formatInstant,
  type Instant,
  intervalUs,
  nextOpening,
  PACE_SLACK_MS,
  parseInstant,
  type RateBucket,
  type RunView,
  SCHEDULE_MAX_MS,
  validityMs,
  type Window,
  windowCloses,
  windowOf,
} from './schedule.ts';

const MIN = 60_000;
const HOUR = 60 * MIN;
const DAY = 24 * HOUR;

/** An instant from its text; the tables below prove the reader itself against known epoch values. */
function at(text: string): Instant {
  const instant = parseInstant(text.includes('T') ? `${text}Z` : `${text}T00:00:00Z`);
  if (instant === null) throw new Error(`not an instant: ${text}`);
  return instant;
}

describe('an instant as text', () => {
  it.each<[string, number]>([
    ['1970-01-01T00:00:00Z', 0],
    ['1970-01-01T00:00:00.001Z', 1],
    ['1969-12-31T23:59:59.999Z', -1],
    ['2001-09-09T01:46:40Z', 1_000_000_000_000],
    ['2038-01-19T03:14:08Z', 2_147_483_648_000],
    ['2000-02-29T12:00:00.000+0000', 951_825_600_000],
    ['2024-02-29T23:59:59.999Z', 1_709_251_199_999],
    ['2024-03-01T00:00:00Z', 1_709_251_200_000],
    ['2023-12-31T23:59:59Z', 1_704_067_199_000],
    ['2024-12-31T23:30:00-0100', 1_735_691_400_000],
    ['2015-02-18T17:42:05.390+0100', 1_424_277_725_390],
    ['2015-02-18T17:42:05.390+01:00', 1_424_277_725_390],
    ['2015-02-18T16:42:05.390Z', 1_424_277_725_390],
    ['2015-02-18T16:42:05.39+0000', 1_424_277_725_390],
    ['2015-02-18T16:42:05.390999Z', 1_424_277_725_390],
    ['2015-02-18T16:42:05.390999999+00:00', 1_424_277_725_390],
    ['2015-02-18T16:42:05.3Z', 1_424_277_725_300],
    ['2015-02-18T22:27:05.390+05:45', 1_424_277_725_390],
    ['2015-02-18T07:12:05.390-09:30', 1_424_277_725_390],
    ['1970-01-01T18:00:00+18:00', 0],
    ['9999-12-31T23:59:59.999Z', 253_402_300_799_999],
    ['0001-01-01T00:00:00Z', -62_135_596_800_000],
  ])('%s is %d', (text, expected) => {
    expect(parseInstant(text)).toBe(expected);
  });

  it.each([
    '',
    'now',
    '0',
    '1424277725390',
    '2015-02-18',
    '2015-02-18T17:42Z',
    '2015-02-18T17:42:05',
    '2015-02-18T17:42:05.390',
    '2015-02-18 17:42:05Z',
    '2015-02-18t17:42:05z',
    '2015-02-18T17:42:05z',
    '2015-02-18T17:42:05.Z',
    '2015-02-18T17:42:05,390Z',
    '2015-02-18T17:42:05.1234567890Z',
    '2015-02-18T17:42:05.39aZ',
    '2015-02-18T17:42:05 Z',
    '2015-02-18T17:42:05Z ',
    ' 2015-02-18T17:42:05Z',
    '2015-02-18T17:42:05Z\n',
    '2015-02-18T17:42:05GMT',
    '2015-02-18T17:42:05+01',
    '2015-02-18T17:42:05+1:00',
    '2015-02-18T17:42:05+01:0',
    '2015-02-18T17:42:05+01:000',
    '2015-02-18T17:42:05+18:01',
    '2015-02-18T17:42:05+01:60',
    '2015-02-18T17:42:05\u221201:00',
    '2015-02-18T17:42:05+0100[Europe/Zagreb]',
    '2015-2-18T17:42:05Z',
    '2015-02-8T17:42:05.0Z',
    '15-02-18T17:42:05.000Z',
    '+2015-02-18T17:42:05Z',
    '-2015-02-18T17:42:05Z',
    '12015-02-18T17:42:05Z',
    '2015-00-18T17:42:05Z',
    '2015-13-18T17:42:05Z',
    '2015-02-00T17:42:05Z',
    '2015-02-29T17:42:05Z',
    '2024-02-30T17:42:05Z',
    '1900-02-29T17:42:05Z',
    '2015-04-31T17:42:05Z',
    '2015-06-31T17:42:05Z',
    '2015-09-31T17:42:05Z',
    '2015-11-31T17:42:05Z',
    '2015-12-32T17:42:05Z',
    '2015-02-18T24:00:00Z',
    '2015-02-18T17:60:00Z',
    '2015-06-30T23:59:60Z',
    '2015-02-18T-1:42:05Z',
    '2015-02-18T17:42:0xZ',
    '\uff12\uff10\uff11\uff15-02-18T17:42:05Z',
    '2'.repeat(1_000_000),
  ])('%j is none', (text) => {
    expect(parseInstant(text)).toBeNull();
  });

  it.each<[number, string]>([
    [0, '1970-01-01T00:00:00.000+0000'],
    [-1, '1969-12-31T23:59:59.999+0000'],
    [1_424_277_725_390, '2015-02-18T16:42:05.390+0000'],
    [951_825_600_007, '2000-02-29T12:00:00.007+0000'],
    [1_709_251_200_000, '2024-03-01T00:00:00.000+0000'],
    [1_704_067_199_042, '2023-12-31T23:59:59.042+0000'],
    [253_402_300_799_999, '9999-12-31T23:59:59.999+0000'],
  ])('%d is written %s', (instant, expected) => {
    expect(formatInstant(instant)).toBe(expected);
  });

  it('read back gives the same instant, in any order of days', () => {
    void fc.assert(
      fc.property(fc.integer({ min: -62_135_596_800_000, max: 253_402_300_799_999 }), (instant) => {
        expect(parseInstant(formatInstant(instant))).toBe(instant);
      }),
    );
  });

  it('counts every day of four centuries once, month by month', () => {
    let day = 0;
    for (let year = 1970; year < 2370; year++) {
      const leap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
      for (const [index, length] of [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].entries()) {
        for (let date = 1; date <= length; date++) {
          const text = `${year}-${String(index + 1).padStart(2, '0')}-${String(date).padStart(2, '0')}`;
          if (formatInstant(day * DAY) !== `${text}T00:00:00.000+0000` || at(text) !== day * DAY) {
            expect.fail(`${text} is not day ${day}`);
          }
          day++;
        }
      }
    }
    expect(day).toBe(146_097);
  });
});

describe('a validity period', () => {
  it('is 48 hours when nothing is asked for, and never more', () => {
    expect(validityMs()).toBe(48 * HOUR);
    expect(validityMs({ amount: 49, timeUnit: 'HOURS' })).toBe(48 * HOUR);
    expect(validityMs({ amount: 2_147_483_647, timeUnit: 'HOURS' })).toBe(48 * HOUR);
    expect(validityMs({ amount: 2880 })).toBe(48 * HOUR);
    expect(validityMs({ amount: 172_801, timeUnit: 'SECONDS' })).toBe(48 * HOUR);
  });

  it('counts minutes unless it says otherwise', () => {
    expect(validityMs({ amount: 1 })).toBe(MIN);
    expect(validityMs({ amount: 1, timeUnit: 'MINUTES' })).toBe(MIN);
    expect(validityMs({ amount: 1, timeUnit: 'SECONDS' })).toBe(1000);
    expect(validityMs({ amount: 47, timeUnit: 'HOURS' })).toBe(47 * HOUR);
  });
});

const monday9to17: DeliveryTimeWindow = { days: ['MONDAY'], from: { hour: 9 }, to: { hour: 17 } };
const nights: DeliveryTimeWindow = { days: ['FRIDAY'], from: { hour: 22, minute: 30 }, to: { hour: 6 } };
const weekend: DeliveryTimeWindow = { days: ['SATURDAY', 'SUNDAY'] };
const sundayToMonday: DeliveryTimeWindow = { days: ['SUNDAY', 'MONDAY'] };
const allWeek: DeliveryTimeWindow['days'] = [
  'MONDAY',
  'TUESDAY',
  'WEDNESDAY',
  'THURSDAY',
  'FRIDAY',
  'SATURDAY',
  'SUNDAY',
];
const toMidnight: DeliveryTimeWindow = { days: allWeek, from: { hour: 20 }, to: { hour: 0 } };

describe('a delivery window', () => {
  it('becomes days as bits and minutes of the day', () => {
    expect(windowOf(monday9to17)).toEqual({ days: 1, from: 540, to: 1020 });
    expect(windowOf(nights)).toEqual({ days: 16, from: 1350, to: 360 });
    expect(windowOf(weekend)).toEqual({ days: 96, from: 0, to: 1440 });
    expect(windowOf({ days: ['SUNDAY', 'SUNDAY'] })).toEqual({ days: 64, from: 0, to: 1440 });
  });

  it('that is never closed is none', () => {
    expect(windowOf()).toBeNull();
    expect(windowOf({ days: allWeek })).toBeNull();
    expect(nextOpening(null, 5)).toBe(5);
    expect(windowCloses(null, 5)).toBe(Number.POSITIVE_INFINITY);
  });

  // 2024-01-01, 2024-12-30 and 2028-02-28 are Mondays.
  it.each<[string, DeliveryTimeWindow, string, string]>([
    ['opens on the minute', monday9to17, '2024-01-01T08:59:59.999', '2024-01-01T09:00:00'],
    ['is open at its first instant', monday9to17, '2024-01-01T09:00:00', '2024-01-01T09:00:00'],
    ['is open until its last millisecond', monday9to17, '2024-01-01T16:59:59.999', '2024-01-01T16:59:59.999'],
    ['is closed at its end, for a week', monday9to17, '2024-01-01T17:00:00', '2024-01-08T09:00:00'],
    ['of one day a week waits six days', monday9to17, '2024-01-02', '2024-01-08T09:00:00'],
    ['waits over the end of a month', monday9to17, '2024-01-30', '2024-02-05T09:00:00'],
    ['waits over a leap day', monday9to17, '2024-02-27', '2024-03-04T09:00:00'],
    ['waits over the end of February in a common year', monday9to17, '2023-02-28', '2023-03-06T09:00:00'],
    ['waits over the end of a year', monday9to17, '2024-12-31', '2025-01-06T09:00:00'],
    ['over midnight opens in the evening', nights, '2024-01-05T20:00:00', '2024-01-05T22:30:00'],
    ['over midnight is open in the night after', nights, '2024-01-06T05:59:59.999', '2024-01-06T05:59:59.999'],
    ['over midnight closes in the morning', nights, '2024-01-06T06:00:00', '2024-01-12T22:30:00'],
    ['over midnight belongs to the day it opened on', nights, '2024-01-05T03:00:00', '2024-01-05T22:30:00'],
    ['over midnight and New Year', { ...nights, days: ['SUNDAY'] }, '2024-01-01T03:00:00', '2024-01-01T03:00:00'],
    ['over midnight into a leap day', { ...nights, days: ['MONDAY'] }, '2028-02-29T01:00:00', '2028-02-29T01:00:00'],
    ['of a whole day is open all of it', weekend, '2024-01-06T00:00:00', '2024-01-06T00:00:00'],
    ['of a whole day opens at midnight', weekend, '2024-01-05T23:59:59.999', '2024-01-06T00:00:00'],
    ['up to midnight is open before it', toMidnight, '2024-01-01T23:59:59.999', '2024-01-01T23:59:59.999'],
    ['up to midnight is closed from it on', toMidnight, '2024-01-02T00:00:00', '2024-01-02T20:00:00'],
    ['works before 1970', monday9to17, '1969-12-30', '1970-01-05T09:00:00'],
  ])('%s', (_, window, from, opens) => {
    expect(nextOpening(windowOf(window), at(from))).toBe(at(opens));
  });

  it.each<[string, DeliveryTimeWindow, string, string]>([
    ['closes on the minute', monday9to17, '2024-01-01T12:00:00', '2024-01-01T17:00:00'],
    ['over midnight closes the next day', nights, '2024-01-05T23:00:00', '2024-01-06T06:00:00'],
    ['over midnight closes the same morning', nights, '2024-01-06T01:00:00', '2024-01-06T06:00:00'],
    ['of two whole days closes after the second', weekend, '2024-01-06T10:00:00', '2024-01-08T00:00:00'],
    ['of two days around a week end stays open between', sundayToMonday, '2024-01-07T10:00:00', '2024-01-09T00:00:00'],
    ['of six whole days closes before the seventh', { days: allWeek.slice(1) }, '2024-01-02', '2024-01-08T00:00:00'],
    ['up to midnight closes there', toMidnight, '2024-12-31T21:00:00', '2025-01-01T00:00:00'],
    ['that is closed has closed already', monday9to17, '2024-01-01T17:00:00', '2024-01-01T17:00:00'],
  ])('%s', (_, window, from, closes) => {
    expect(windowCloses(windowOf(window), at(from))).toBe(at(closes));
  });

  it('without a day never opens', () => {
    expect(nextOpening({ days: 0, from: 0, to: 1440 }, 0)).toBe(Number.POSITIVE_INFINITY);
  });

  it('agrees with a minute-by-minute reading of the rule, for any window', () => {
    void fc.assert(
      fc.property(windows, fc.integer({ min: -20_000, max: 50_000_000 }), (w, minute) => {
        const opens = nextOpening(w, minute * MIN) / MIN;
        let expected = minute;
        while (!openAt(w, expected)) expected++;
        expect(opens).toBe(expected);
        const closes = windowCloses(w, opens * MIN) / MIN;
        let end = opens;
        while (openAt(w, end) && end - opens < 8 * 1440) end++;
        expect(closes).toBe(end - opens < 8 * 1440 ? end : Number.POSITIVE_INFINITY);
      }),
      { numRuns: 60 },
    );
  });
});

/** The rule of the window, said as plainly as can be for one minute since the epoch. */
function openAt(w: Window, minute: number): boolean {
  const day = Math.floor(minute / 1440);
  const ofDay = minute - day * 1440;
  const on = (d: number) => ((w.days >> ((((d + 3) % 7) + 7) % 7)) & 1) === 1;
  if (w.to > w.from) return on(day) && ofDay >= w.from && ofDay < w.to;
  return (on(day) && ofDay >= w.from) || (on(day - 1) && ofDay < w.to);
}

const windows: fc.Arbitrary<Window> = fc.oneof(
  fc.record({ days: fc.integer({ min: 1, max: 127 }), from: fc.constant(0), to: fc.constant(1440) }),
  fc
    .record({
      days: fc.integer({ min: 1, max: 127 }),
      from: fc.integer({ min: 0, max: 1439 }),
      length: fc.integer({ min: 60, max: 1380 }),
    })
    .map(({ days, from, length }) => ({ days, from, to: (from + length) % 1440 })),
);

describe('a speed limit', () => {
  it('spreads its amount evenly over the unit and the slack for late departures', () => {
    expect(intervalUs()).toBe(0);
    expect(intervalUs({ amount: 1 })).toBe((MIN + PACE_SLACK_MS) * 1000);
    expect(intervalUs({ amount: 1, timeUnit: 'DAY' })).toBe((DAY + PACE_SLACK_MS) * 1000);
    expect(intervalUs({ amount: 60, timeUnit: 'MINUTE' })).toBe(1_004_167);
    expect(intervalUs({ amount: 7, timeUnit: 'HOUR' })).toBe(514_321_429);
    expect(intervalUs({ amount: 1_000_000 })).toBe(61);
    expect(intervalUs({ amount: 2_147_483_647 })).toBe(1);
  });

  it('never fits more than its amount into a unit, for any limit', () => {
    void fc.assert(
      fc.property(limits, (limit) => {
        const unitUs = { MINUTE: MIN, HOUR, DAY }[limit.timeUnit ?? 'MINUTE'] * 1000;
        expect(intervalUs(limit) * limit.amount).toBeGreaterThanOrEqual(unitUs + PACE_SLACK_MS * 1000);
      }),
    );
  });

  it('loses less than one per cent of a minute to its slack at ordinary speeds', () => {
    for (const amount of [1, 60, 1000, 6000, 60_000]) {
      expect(intervalUs({ amount }) * amount).toBeLessThan(MIN * 1000 * 1.01);
    }
  });
});

const limits: fc.Arbitrary<SpeedLimit> = fc.record({
  amount: fc.integer({ min: 1, max: 2_000_000 }),
  timeUnit: fc.constantFrom('MINUTE', 'HOUR', 'DAY'),
});

const T = at('2024-01-01T12:00:00');

function run(over: Partial<RunView> = {}): RunView {
  return { acceptedAt: T, sendAt: null, window: null, validityMs: HOUR, validUntil: null, remaining: 1000, ...over };
}

describe('a run without a limit', () => {
  it('goes at once, as much as is wanted', () => {
    expect(admit(run(), null, T + 5, 64, 250)).toEqual({
      kind: 'go',
      count: 64,
      firstAt: (T + 5) * 1000,
      stepUs: 0,
      bucketNext: 0,
      validUntil: T + HOUR,
    });
    expect(admit(run({ remaining: 3 }), null, T, 64, 250)).toMatchObject({ kind: 'go', count: 3 });
  });

  it('leaves the bucket of a bulk without limit alone', () => {
    expect(admit(run(), { intervalUs: 0, next: 77 }, T, 1, 250)).toMatchObject({ firstAt: T * 1000, bucketNext: 77 });
  });

  it('waits for sendAt, and takes one in the past as now', () => {
    expect(admit(run({ sendAt: T + DAY }), null, T, 1, 250)).toEqual({ kind: 'wait', until: T + DAY });
    expect(admit(run({ sendAt: T - DAY }), null, T, 1, 250)).toMatchObject({ kind: 'go', validUntil: T + HOUR });
    expect(admit(run({ sendAt: T + SCHEDULE_MAX_MS }), null, T, 1, 250)).toEqual({
      kind: 'wait',
      until: T + SCHEDULE_MAX_MS,
    });
  });

  it('may be reserved a little early, with its instant', () => {
    expect(admit(run({ sendAt: T + 251 }), null, T, 1, 250)).toEqual({ kind: 'wait', until: T + 251 });
    expect(admit(run({ sendAt: T + 250 }), null, T, 1, 250)).toMatchObject({
      kind: 'go',
      firstAt: (T + 250) * 1000,
      validUntil: T + 250 + HOUR,
    });
  });

  it('counts validity from the instant it may leave, not from when a carrier has room', () => {
    const late = run({ sendAt: T + DAY });
    expect(admit(late, null, T + DAY + 20 * MIN, 1, 250)).toMatchObject({ validUntil: T + DAY + HOUR });
    expect(admit(late, null, T + DAY + HOUR - 1, 1, 250)).toMatchObject({ kind: 'go' });
    expect(admit(late, null, T + DAY + HOUR, 1, 250)).toEqual({
      kind: 'expired',
      at: T + DAY + HOUR,
      count: 1000,
      bucketNext: 0,
    });
  });

  it('keeps a clock that has started', () => {
    expect(admit(run({ validUntil: T + 7 }), null, T, 1, 250)).toMatchObject({ kind: 'go', validUntil: T + 7 });
    expect(admit(run({ validUntil: T + 7 }), null, T + 7, 1, 250)).toMatchObject({ kind: 'expired', at: T + 7 });
  });

  it('waits for the window, where its clock starts', () => {
    const window = windowOf({ days: ['WEDNESDAY'], from: { hour: 9 }, to: { hour: 17 } });
    const opens = at('2024-01-03T09:00:00');
    expect(admit(run({ window }), null, T, 1, 250)).toEqual({ kind: 'wait', until: opens });
    expect(admit(run({ window }), null, opens, 1, 250)).toMatchObject({ kind: 'go', validUntil: opens + HOUR });
  });

  it('waits for the first opening after sendAt', () => {
    const window = windowOf(monday9to17);
    const sendAt = at('2024-01-01T17:30:00');
    expect(admit(run({ window, sendAt }), null, T, 1, 250)).toEqual({ kind: 'wait', until: at('2024-01-08T09:00:00') });
  });

  it('that would meet its window only after its validity waits for the end of it, then expires', () => {
    const window = windowOf(monday9to17);
    const view = run({ window, validityMs: 48 * HOUR });
    const closed = at('2024-01-01T17:00:00');
    expect(admit(view, null, closed, 1, 250)).toEqual({ kind: 'wait', until: T + 48 * HOUR });
    expect(admit(view, null, T + 48 * HOUR, 1, 250)).toMatchObject({ kind: 'expired', at: T + 48 * HOUR });
  });
});

const perMinute = (amount: number, next = 0): RateBucket => ({ intervalUs: intervalUs({ amount }), next });

describe('a run with a limit', () => {
  it('takes the turns that fall into the time ahead, evenly', () => {
    const bucket = perMinute(6000);
    expect(admit(run(), bucket, T, 64, 250)).toEqual({
      kind: 'go',
      count: 25,
      firstAt: T * 1000,
      stepUs: bucket.intervalUs,
      bucketNext: T * 1000 + 25 * bucket.intervalUs,
      validUntil: T + HOUR,
    });
  });

  it('asks again early enough to be punctual, and is', () => {
    const bucket = perMinute(60, T * 1000 + 900_400);
    expect(admit(run(), bucket, T, 64, 250)).toEqual({ kind: 'wait', until: T + 901 - 250 });
    expect(admit(run(), bucket, T + 651, 64, 250)).toMatchObject({ kind: 'go', count: 1, firstAt: bucket.next });
  });

  it('saves nothing up while idle', () => {
    const now = T + 30 * MIN;
    const admitted = admit(run(), perMinute(60, T * 1000), now, 64, 250);
    expect(admitted).toMatchObject({ kind: 'go', count: 1, firstAt: now * 1000 });
  });

  it('starts the clock of each message at its own turn', () => {
    const next = (T + 3 * DAY) * 1000;
    expect(admit(run(), perMinute(60, next), T + 3 * DAY - 100, 1, 250)).toMatchObject({
      kind: 'go',
      firstAt: next,
      validUntil: T + 3 * DAY + HOUR,
    });
  });

  it('expires only the messages whose turn passed too long ago', () => {
    const bucket: RateBucket = { intervalUs: 1_000_000, next: T * 1000 };
    const gone = admit(run(), bucket, T + HOUR + 10_000, 64, 250);
    expect(gone).toEqual({ kind: 'expired', at: T + HOUR, count: 11, bucketNext: (T + 11_000) * 1000 });
    const rest = { ...bucket, next: (T + 11_000) * 1000 };
    expect(admit(run({ remaining: 989 }), rest, T + HOUR + 10_000, 64, 250)).toMatchObject({
      kind: 'go',
      firstAt: (T + HOUR + 10_000) * 1000,
      validUntil: T + 11_000 + HOUR,
    });
  });

  it('expires no message whose turn lies in an opening still to come', () => {
    const window = windowOf(monday9to17);
    const next = at('2024-01-01T16:59:30') * 1000;
    const view = run({ window, acceptedAt: at('2024-01-01T10:00:00') });
    const tuesday = at('2024-01-02T12:00:00');
    const gone = admit(view, { intervalUs: 10_000_000, next }, tuesday, 64, 250);
    expect(gone).toMatchObject({ kind: 'expired', count: 3, bucketNext: at('2024-01-01T17:00:00') * 1000 });
    const rest: RateBucket = { intervalUs: 10_000_000, next: at('2024-01-01T17:00:00') * 1000 };
    expect(admit(view, rest, tuesday, 64, 250)).toEqual({ kind: 'wait', until: at('2024-01-08T09:00:00') });
  });

  it('gives turns only inside the window and inside validity', () => {
    const bucket: RateBucket = { intervalUs: 10_000, next: 0 };
    const window = windowOf(monday9to17);
    const closing = at('2024-01-01T16:59:59.900');
    const acceptedAt = closing;
    expect(admit(run({ window, acceptedAt }), bucket, closing, 64, 250)).toMatchObject({ kind: 'go', count: 10 });
    expect(admit(run({ validUntil: T + 55 }), bucket, T, 64, 250)).toMatchObject({ kind: 'go', count: 6 });
    const after = { ...bucket, next: at('2024-01-01T17:00:00') * 1000 };
    expect(admit(run({ window, acceptedAt }), after, closing, 64, 250)).toEqual({
      kind: 'wait',
      until: at('2024-01-08T09:00:00'),
    });
  });

  it('gives a retry a turn, and lets it expire when the turn comes too late', () => {
    const retry = run({ remaining: 1, validUntil: T + 500 });
    expect(admit(retry, perMinute(60, (T + 100) * 1000), T, 1, 250)).toMatchObject({
      kind: 'go',
      firstAt: (T + 100) * 1000,
      validUntil: T + 500,
    });
    expect(admit(retry, perMinute(60, (T + 600) * 1000), T, 1, 250)).toEqual({ kind: 'wait', until: T + 500 });
  });
});

describe('whatever a run, a bucket and a clock do together', () => {
  const runs: fc.Arbitrary<RunView> = fc.record({
    acceptedAt: fc.integer({ min: 0, max: 3 * DAY }).map((ms) => T + ms),
    sendAt: fc.option(fc.integer({ min: -DAY, max: 20 * DAY }).map((ms) => T + ms)),
    window: fc.option(windows),
    validityMs: fc.integer({ min: 1000, max: 48 * HOUR }),
    validUntil: fc.constant(null),
    remaining: fc.integer({ min: 1, max: 300 }),
  });

  /** Plays a bulk of several runs through time as an engine would, and calls `see` for each decision. */
  function play(
    views: RunView[],
    limit: SpeedLimit | undefined,
    steps: { which: number; pass: number; want: number }[],
    see: (run: RunView, admission: Admission, now: Instant) => void,
  ): void {
    const bucket: RateBucket = { intervalUs: intervalUs(limit), next: 0 };
    const open = views.map((view) => ({ ...view }));
    let now = T;
    for (const step of steps) {
      const view = open[step.which % open.length]!;
      now = Math.max(now + (step.pass % 97 === 0 ? step.pass * 1000 : step.pass % 5000), view.acceptedAt);
      if (view.remaining === 0) continue;
      let admission = admit(view, limit ? bucket : null, now, step.want, 250);
      see(view, admission, now);
      if (admission.kind === 'wait' && step.pass % 3 === 0) {
        now = admission.until;
        admission = admit(view, limit ? bucket : null, now, step.want, 250);
        see(view, admission, now);
      }
      if (admission.kind === 'wait') continue;
      view.remaining -= admission.count;
      bucket.next = admission.bucketNext;
      if (!limit && admission.kind === 'go') view.validUntil = admission.validUntil;
    }
  }

  const steps = fc.array(
    fc.record({ which: fc.nat(3), pass: fc.nat(1_000_000), want: fc.integer({ min: 1, max: 64 }) }),
    { minLength: 1, maxLength: 60 },
  );
  const plays = [fc.array(runs, { minLength: 1, maxLength: 3 }), fc.option(limits, { nil: undefined }), steps] as const;

  it('nothing leaves before sendAt, outside its window or after its validity, and no one waits in vain', () => {
    void fc.assert(
      fc.property(...plays, (views, limit, moves) => {
        play(views, limit, moves, (view, admission, now) => {
          if (admission.kind === 'wait') {
            expect(admission.until).toBeGreaterThan(now);
            expect(Number.isFinite(admission.until)).toBe(true);
            return;
          }
          expect(admission.count).toBeGreaterThanOrEqual(1);
          expect(admission.count).toBeLessThanOrEqual(view.remaining);
          if (admission.kind === 'expired') {
            expect(admission.at).toBeLessThanOrEqual(now);
            expect(admission.at).toBeGreaterThanOrEqual(Math.max(view.acceptedAt, view.sendAt ?? 0) + view.validityMs);
            return;
          }
          const leaves = [admission.firstAt, admission.firstAt + (admission.count - 1) * admission.stepUs];
          for (const us of leaves) {
            expect(us).toBeGreaterThanOrEqual(Math.max(now, view.acceptedAt, view.sendAt ?? 0) * 1000);
            expect(us).toBeLessThanOrEqual((now + 250) * 1000);
            expect(us).toBeLessThan(admission.validUntil * 1000);
            const ms = Math.floor(us / 1000);
            expect(nextOpening(view.window, ms)).toBe(ms);
          }
        });
      }),
      { numRuns: 300 },
    );
  });

  it('any stretch of one unit holds at most the amount, even when departures are late by the slack', () => {
    const hasty = fc.array(fc.record({ which: fc.nat(3), pass: fc.nat(2000), want: fc.integer({ min: 1, max: 64 }) }), {
      minLength: 20,
      maxLength: 150,
    });
    const slow = fc.record({ amount: fc.integer({ min: 1, max: 3000 }), timeUnit: fc.constant('MINUTE' as const) });
    const many = fc.array(
      runs.map((view) => ({ ...view, acceptedAt: T, sendAt: null, window: null, validityMs: 48 * HOUR })),
      { minLength: 1, maxLength: 3 },
    );
    void fc.assert(
      fc.property(many, slow, hasty, fc.array(fc.nat(PACE_SLACK_MS * 1000)), (views, limit, moves, late) => {
        const left: number[] = [];
        play(views, limit, moves, (_, admission) => {
          if (admission.kind !== 'go') return;
          for (let k = 0; k < admission.count; k++) {
            left.push(admission.firstAt + k * admission.stepUs + (late[left.length % (late.length || 1)] ?? 0));
          }
        });
        left.sort((a, b) => a - b);
        for (let i = limit.amount; i < left.length; i++) {
          expect(left[i]! - left[i - limit.amount]!).toBeGreaterThanOrEqual(MIN * 1000);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('a patient bulk uses all of its limit', () => {
    const bucket = perMinute(600);
    let now = T;
    let sent = 0;
    while (now < T + 10 * MIN && sent < 10_000) {
      const admission = admit(run(), bucket, now, 64, 250);
      if (admission.kind === 'go') {
        sent += admission.count;
        bucket.next = admission.bucketNext;
      } else if (admission.kind === 'wait') now = admission.until;
    }
    expect(sent).toBeGreaterThanOrEqual(5970);
    expect(sent).toBeLessThanOrEqual(6003);
  });
});

describe('sendAt, window, validity and limit together', () => {
  const perDay = intervalUs({ amount: 1, timeUnit: 'DAY' });
  // 2024-01-01, 2025-02-24 and 2028-02-28 are Mondays.
  it.each<[string, DeliveryTimeWindow | undefined, string, string, number, string | null, string]>([
    ['the end of a month', monday9to17, '2024-01-30', '2024-01-31T18:00:00', 48, null, '2024-02-05T09:00:00'],
    ['a leap day', monday9to17, '2028-02-01', '2028-02-28T17:00:00', 1, null, '2028-03-06T09:00:00'],
    ['the last of February', monday9to17, '2025-02-01', '2025-02-25T00:00:00', 48, null, '2025-03-03T09:00:00'],
    [
      'a night into a leap day',
      { ...nights, days: ['MONDAY'] },
      '2028-02-20',
      '2028-02-29T01:00:00',
      1,
      null,
      '2028-02-29T01:00:00',
    ],
    ['a change of year', monday9to17, '2024-12-01', '2024-12-31T23:59:59.999', 48, null, '2025-01-06T09:00:00'],
    ['a night into a year', nights, '2026-12-01', '2027-01-01T05:59:59', 1, null, '2027-01-01T22:30:00'],
    [
      'an instant inside the window',
      monday9to17,
      '2024-01-01',
      '2024-01-08T12:34:56.789',
      2,
      null,
      '2024-01-08T12:34:56.789',
    ],
    ['an instant past', monday9to17, '2024-01-01T10:00:00', '2023-01-01', 2, null, '2024-01-01T10:00:00'],
    [
      'a turn after sendAt',
      monday9to17,
      '2024-01-01',
      '2024-01-08T12:00:00',
      2,
      '2024-01-08T15:00:00',
      '2024-01-08T15:00:00',
    ],
    [
      'a turn after the window',
      monday9to17,
      '2024-01-01',
      '2024-01-08T12:00:00',
      2,
      '2024-01-08T17:00:00',
      '2024-01-15T09:00:00',
    ],
    [
      'a turn without a window',
      undefined,
      '2024-01-01',
      '2024-02-28T12:00:00',
      2,
      '2024-02-29T12:00:00',
      '2024-02-29T12:00:00',
    ],
    ['180 days', undefined, '2024-01-01', '2024-06-29T00:00:00', 48, null, '2024-06-29T00:00:00'],
  ])('%s: it leaves at the first instant that all allow, and validity counts from there', (...row) => {
    const [, window, acceptedAt, sendAt, hours, turn, leaves] = row;
    const validity = hours * HOUR;
    const view = run({
      acceptedAt: at(acceptedAt),
      sendAt: at(sendAt),
      window: windowOf(window),
      validityMs: validity,
      remaining: 3,
    });
    const bucket = turn === null ? null : { intervalUs: perDay, next: at(turn) * 1000 };
    const first = at(leaves);
    for (let now = view.acceptedAt; now < first; ) {
      const waits = admit(view, bucket, now, 64, 0);
      expect(waits.kind).toBe('wait');
      if (waits.kind === 'wait') {
        expect(waits.until).toBeLessThanOrEqual(first);
        now = waits.until;
      }
    }
    const count = bucket === null ? 3 : 1;
    expect(admit(view, bucket, first, 64, 0)).toMatchObject({
      kind: 'go',
      count,
      firstAt: first * 1000,
      validUntil: first + validity,
    });
    // Late, because the carrier had no room: the same clock, to its last millisecond.
    const lateOpen = nextOpening(view.window, first + validity - 1) === first + validity - 1;
    if (lateOpen)
      expect(admit(view, bucket, first + validity - 1, 1, 0)).toMatchObject({
        kind: 'go',
        validUntil: first + validity,
      });
    expect(admit(view, bucket, first + validity, 64, 0)).toMatchObject({ kind: 'expired', at: first + validity });
  });

  it('agrees with a reading of the rules minute by minute, for any request and turn', () => {
    const requests = fc.record({
      acceptedAt: fc.integer({ min: 0, max: 20_000 }),
      sendAt: fc.option(fc.integer({ min: -2000, max: 40_000 })),
      window: fc.option(windows),
      validity: fc.integer({ min: 1, max: 2880 }),
      turn: fc.option(fc.integer({ min: -2000, max: 40_000 })),
      // Whole days over month ends, leap days and changes of year.
      from: fc.constantFrom('2023-12-20', '2024-02-20', '2024-12-25', '2025-02-20', '2028-02-21', '2100-02-22').map(at),
      late: fc.integer({ min: 0, max: 6000 }),
    });
    void fc.assert(
      fc.property(requests, ({ acceptedAt, sendAt, window, validity, turn, from, late }) => {
        const base = from / MIN;
        let first = base + Math.max(acceptedAt, sendAt ?? acceptedAt, turn ?? acceptedAt);
        while (window && !openAt(window, first)) first++;
        const view = run({
          acceptedAt: (base + acceptedAt) * MIN,
          sendAt: sendAt === null ? null : (base + sendAt) * MIN,
          window,
          validityMs: validity * MIN,
          remaining: 1,
        });
        const bucket = turn === null ? null : { intervalUs: perDay, next: (base + turn) * MIN * 1000 };
        const now = first + late;
        const told = admit(view, bucket, now * MIN, 1, 0);
        if (late >= validity) expect(told).toMatchObject({ kind: 'expired', at: (first + validity) * MIN, count: 1 });
        else if (!window || openAt(window, now)) {
          expect(told).toMatchObject({ kind: 'go', firstAt: now * MIN * 1000, validUntil: (first + validity) * MIN });
        } else expect(told.kind).toBe('wait');
        if (first > base + acceptedAt) {
          const before = admit(view, bucket, (first - 1) * MIN, 1, 0);
          expect(before).toMatchObject({ kind: 'wait' });
        }
      }),
      { numRuns: 400 },
    );
  });
});
