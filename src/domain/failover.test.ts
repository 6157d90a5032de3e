import { describe, expect, it } from 'vitest';
import {
  lanesOfWays,
  legOf,
  nextLane,
  opensFailover,
  printWays,
  readWays,
  type SmsWay,
  smsLeader,
  smsWayOf,
  spanOf,
  type Ways,
} from './failover.ts';
import { ACCEPTED, type MessageStatus, STATE, type StatusEvent, transition } from './status.ts';

const SMS: SmsWay = { lane: 7, validityMs: 1000 };
const submitted: MessageStatus = { state: STATE.submitted, status: 3, error: 0 };

describe('the number of an SMS leg', () => {
  it('is its message’s below 0, and covers it alone', () => {
    expect(smsLeader(12)).toBe(-12);
    expect([legOf(12), legOf(-12)]).toEqual([0, 1]);
    expect(spanOf(12, 3)).toEqual({ first: 12, end: 15 });
    expect(spanOf(-12, 1)).toEqual({ first: 12, end: 13 });
  });
});

describe('an SMS follows', () => {
  const follows = (from: MessageStatus, event: StatusEvent, sms = SMS): boolean =>
    opensFailover(sms, event, transition(from, event).next);

  it.each<[string, MessageStatus, StatusEvent]>([
    ['a refusal', ACCEPTED, { kind: 'refused', error: 15019 }],
    ['content that is gone', ACCEPTED, { kind: 'contentFailed', error: 15025 }],
    ['a route that is gone', ACCEPTED, { kind: 'noRoute' }],
    ['a validity that ended before it was sent', ACCEPTED, { kind: 'validityEnded', tried: false, lastError: 0 }],
    ['a report that it expired', submitted, { kind: 'report', report: 'expired' }],
    ['a report that it was not delivered', submitted, { kind: 'report', report: 'unreachable' }],
  ])('%s', (_, from, event) => {
    expect(follows(from, event)).toBe(true);
  });

  it.each<[string, MessageStatus, StatusEvent]>([
    ['a cancel', ACCEPTED, { kind: 'cancelled' }],
    ['an opt-out', ACCEPTED, { kind: 'unwanted', status: 10 }],
    ['a delivery', submitted, { kind: 'report', report: 'retrieved' }],
    ['an attempt that is repeated', ACCEPTED, { kind: 'deferred', error: 1 }],
    ['an outcome that is not known', submitted, { kind: 'validityEnded', tried: true, lastError: 0 }],
  ])('not %s', (_, from, event) => {
    expect(follows(from, event)).toBe(false);
  });

  it('an outcome that is not known, where that is asked for', () => {
    const event: StatusEvent = { kind: 'validityEnded', tried: true, lastError: 0 };
    expect(follows(submitted, event, { ...SMS, afterUnknown: true })).toBe(true);
  });
});

describe('ways', () => {
  it('are kept as they are, and nothing is kept of none', () => {
    const ways: Ways = { alts: [2, 3], sms: { ...SMS, alts: [8], afterUnknown: true } };
    expect(readWays(printWays(ways))).toEqual(ways);
    expect([printWays(undefined), printWays({}), printWays({ alts: [] })]).toEqual([null, null, null]);
    expect(readWays(null)).toEqual({});
  });

  it('are tried in their order, each once, on its own leg', () => {
    const ways: Ways = { alts: [2, 3], sms: { ...SMS, alts: [8] } };
    expect([1, 2, 3].map((lane) => nextLane(ways, 0, lane))).toEqual([2, 3, null]);
    expect([7, 8].map((lane) => nextLane(ways, 1, lane))).toEqual([8, null]);
    expect(nextLane({}, 0, 1)).toBeNull();
  });

  it('name each lane once, those without a route none', () => {
    const other: SmsWay = { lane: null, validityMs: 1 };
    expect(lanesOfWays({ alts: [2], sms: { ...SMS, alts: [8, 2] } })).toEqual([2, 7, 8]);
    expect(lanesOfWays({ smsEach: [SMS, other, SMS] })).toEqual([7]);
    expect(lanesOfWays(undefined)).toEqual([]);
  });

  it('of a group’s members may differ', () => {
    const other: SmsWay = { lane: null, validityMs: 1 };
    expect([0, 1].map((at) => smsWayOf({ smsEach: [SMS, other] }, at))).toEqual([SMS, other]);
    expect(smsWayOf({ sms: SMS }, 5)).toEqual(SMS);
    expect(smsWayOf({}, 0)).toBeNull();
  });
});
