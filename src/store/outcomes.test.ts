import { describe, expect, it } from 'vitest';
import { HOLD_MS, unknownRetryDelay } from '../domain/retry.ts';
import { type MessageStatus, STATE, transition } from '../domain/status.ts';
import type { CarrierReport, Outcome } from '../domain/submission.ts';
import { applyReport, conclude, type FlightRow, type Hands, leaderOf, mayGoOn, validityEnded } from './outcomes.ts';

const NOW = Date.UTC(2026, 10, 24, 12);
const HOME = 7;

interface Message extends MessageStatus {
  no: number;
  to: string;
  key: string | null;
  leg: 0 | 1;
}

const flight: FlightRow = {
  ...{ leader: 10, token: 1, lane: 8, line: 3, run: 10, members: 2, sent: 2, generation: 0, attempts: 1, held: 0 },
  ...{ valid_until: NOW + 1, lease_until: NOW + 1, turn_from: null, turn_end: null },
};
const message = (no: number, more: Partial<Message> = {}): Message => ({
  ...{ no, to: `4411349600${no}`, key: null, leg: 0 },
  ...{ state: STATE.pending, status: 26, error: 0 },
  ...more,
});

/** Rows in memory, and what was done to them in order. `next` = there is another carrier. */
function rows(messages: Message[] = [message(10), message(11)], next = false) {
  const done: unknown[] = [];
  const hands: Hands<Message> = {
    change(one, event, words) {
      const { next: status, changed } = transition(one, event);
      Object.assign(one, status);
      done.push([event.kind, one.no, words]);
      return changed;
    },
    reportLate: (one, kind) => {
      done.push(['late', one.no, kind]);
      return false;
    },
    note: (one, words) => void done.push(['note', one.no, words]),
    learn: (home, ref, { leader }) => void done.push(['learn', home, ref, leader]),
    applyParked: (home, ref) => void done.push(['parked', home, ref]),
    goOn(of) {
      done.push(['goOn', of.leader]);
      return next;
    },
    again: (of, due, attempts, held) => void done.push(['again', of.leader, due - NOW, attempts, held]),
    drop: (leader) => void done.push(['drop', leader]),
  };
  const settle = (
    outcome: Outcome,
    onUnknown: 'hold' | 'retry' | 'fail' = 'hold',
    of: Partial<FlightRow> = {},
  ): unknown[] => {
    const terms = { now: NOW, home: HOME, policy: { onUnknown, reports: true } };
    conclude(hands, { ...flight, ...of }, messages, outcome, 'words', terms);
    return done;
  };
  const report = (more: Partial<CarrierReport> = {}, members = messages.length): number[] =>
    applyReport(hands, { leader: 10, members }, messages, {
      ...{ carrier: 'c', carrierMessageId: 'm', addresses: [], kind: 'retrieved', words: 'seen', ...more },
    }).map(({ no }) => no);
  return { messages, done, settle, report };
}

const error = { id: 15009, words: 'no such number' };

describe('an outcome', () => {
  it('accepted teaches the id first, and what waited under it is applied last', () => {
    const { settle } = rows();
    expect(
      settle({ kind: 'accepted', carrierMessageId: 'M1', refused: [{ recipient: '441134960011', error }] }),
    ).toEqual([
      ['learn', HOME, 'm1', 10],
      ['accepted', 10, 'words'],
      ['refused', 11, 'no such number'],
      ['parked', HOME, 'm1'],
    ]);
  });

  it('throttled costs no attempt and no status', () => {
    const { settle, messages } = rows();
    expect(settle({ kind: 'throttled', retryAfterMs: 5_000 })).toEqual([['again', 10, 5_000, 0, 0]]);
    expect(messages.map(({ status }) => status)).toEqual([26, 26]);
  });

  it.each(['deferred', 'refused'] as const)(
    '%s elsewhere goes to the next carrier, with the status of a try that failed',
    (kind) => {
      const { settle, messages } = rows(undefined, true);
      const done = settle({ kind, error, elsewhere: true });
      expect(done[0]).toEqual(['goOn', 10]);
      expect(done.slice(1)).toEqual([10, 11].map((no) => ['deferred', no, expect.stringMatching(/^words; /)]));
      expect(messages.every(({ state }) => state === STATE.pending)).toBe(true);
    },
  );

  it('deferred with nothing sent says nothing of a message: the error of its last real try stays, and the next carrier is noted', () => {
    const unsent = { kind: 'deferred', error, elsewhere: true, unsent: true } as const;
    const { settle, messages } = rows([message(10), message(11, { error: 15003 })]);
    expect(settle(unsent).slice(-1)).toEqual([['again', 10, expect.any(Number), 1, 0]]);
    expect(messages.map((one) => [one.state, one.status, one.error])).toEqual([
      [STATE.pending, 26, 0],
      [STATE.pending, 26, 15003],
    ]);
    const ends = messages.map((one) => transition(one, validityEnded(one)).next);
    expect(ends.map(({ status, error }) => [status, error])).toEqual([
      [15, 4100],
      [15, 15003],
    ]);
    const other = rows([message(10)], true);
    expect(other.settle(unsent).slice(1)).toEqual([
      ['deferred', 10, expect.stringMatching(/^words; /)],
      ['note', 10, expect.stringMatching(/^words; /)],
    ]);
  });

  it('refused elsewhere is final where there is no other carrier', () => {
    const { settle, messages } = rows();
    settle({ kind: 'refused', error, elsewhere: true });
    expect(messages.map(({ status }) => status)).toEqual([4, 4]);
  });

  it('is not the affair of members whose MMS has ended meanwhile, and nobody is tried again where none waits', () => {
    const { settle } = rows([message(10, { leg: 1 }), message(11, { state: STATE.delivered, status: 5 })]);
    expect(settle({ kind: 'deferred', error })).toEqual([['deferred', 11, 'words']]);
  });

  it.each([
    ['hold', 0, 1, [HOLD_MS, 1, 1]],
    ['hold', 1, 2, null],
    ['retry', 0, 1, [unknownRetryDelay, 1, 0]],
    ['fail', 0, 1, null],
  ] as const)('unknown by policy %s, held %i times: tried again %j', (policy, held, attempts, again) => {
    const { settle, messages } = rows();
    const done = settle({ kind: 'unknown', error }, policy, { held, attempts });
    expect(done.slice(2)).toEqual(again === null ? [] : [['again', 10, ...again]]);
    // With `fail` it is over; else it may have arrived, and only time or a report says.
    const states = policy === 'fail' ? STATE.expired : STATE.uncertain;
    expect(messages.map(({ state }) => state)).toEqual([states, states]);
  });
});

describe('a report', () => {
  it('about one of a group ends that one, and the next attempt only when none of them waits any more', () => {
    const { report, done, messages } = rows();
    expect(report({ addresses: ['441134960010'] })).toEqual([10]);
    expect(done).toEqual([['report', 10, 'seen']]);
    expect(report({ addresses: ['441134960011'] })).toEqual([11]);
    expect(done.slice(1)).toEqual([
      ['report', 11, 'seen'],
      ['drop', 10],
    ]);
    expect(messages.map(({ status }) => status)).toEqual([5, 5]);
  });

  it('that names nobody of the group is noted and decides nothing', () => {
    const { report, done } = rows();
    expect(report({ addresses: ['441134969999'] })).toEqual([]);
    expect(done).toEqual([['note', 10, 'names no recipient of this submission: seen']]);
  });

  it('about a group of which one is left needs its name; about a single one it does not', () => {
    const left = rows([message(10)]);
    expect(left.report({}, 2)).toEqual([]);
    const single = rows([message(10)]);
    expect(single.report()).toEqual([10]);
  });

  it('of the MMS while its SMS is under way is told late, and noted where that changes nothing', () => {
    const { report, done } = rows([message(10, { leg: 1 })]);
    report();
    expect(done.slice(0, 2)).toEqual([
      ['late', 10, 'retrieved'],
      ['note', 10, 'seen'],
    ]);
  });
});

it('only what has reached no carrier may go to another one', () => {
  expect(mayGoOn(10, [message(10), message(11, { state: STATE.delivered })])).toBe(true);
  expect(mayGoOn(10, [message(10), message(11, { state: STATE.uncertain })])).toBe(false);
  expect(mayGoOn(10, [message(10, { leg: 1 })])).toBe(false);
  expect(mayGoOn(-10, [message(10, { leg: 1 })])).toBe(true);
});

it('the end of validity knows the submission, and whether it was tried', () => {
  expect(leaderOf({ no: 12, leg: 0 }, { no: 10, members: 5 })).toBe(10);
  expect(leaderOf({ no: 12, leg: 0 }, { no: 10, members: 0 })).toBe(12);
  expect(leaderOf({ no: 12, leg: 1 }, { no: 10, members: 5 })).toBe(-12);
  expect(leaderOf({ no: 12, leg: 0 }, null)).toBe(12);
  expect(validityEnded(message(10))).toMatchObject({ tried: false });
  expect(validityEnded(message(10, { error: 15000 }))).toMatchObject({ tried: true, lastError: 15000 });
  expect(validityEnded(message(10, { state: STATE.uncertain }))).toMatchObject({ tried: true });
});
