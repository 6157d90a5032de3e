import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { errorView, statusView } from './codes.ts';
import {
  ACCEPTED,
  isFinal,
  type MessageStatus,
  STATE,
  STATUS_CLAIMED,
  type State,
  type StatusEvent,
  transition,
} from './status.ts';
import type { ReportKind } from './submission.ts';

/** Every event, each variant that may matter; `error` 15000 stands for "an error". */
const EVENTS = {
  'accepted, reports': { kind: 'accepted', reports: true },
  'accepted, no reports': { kind: 'accepted', reports: false },
  deferred: { kind: 'deferred', error: 15000 },
  throttled: { kind: 'throttled' },
  refused: { kind: 'refused', error: 15009 },
  'unknown, hold': { kind: 'unknown', error: 15000, policy: 'hold' },
  'unknown, hold, no error': { kind: 'unknown', error: 0, policy: 'hold' },
  'unknown, retry': { kind: 'unknown', error: 15000, policy: 'retry' },
  'unknown, fail': { kind: 'unknown', error: 15000, policy: 'fail' },
  held: { kind: 'held' },
  'report retrieved': { kind: 'report', report: 'retrieved' },
  'report deferred': { kind: 'report', report: 'deferred' },
  'report forwarded': { kind: 'report', report: 'forwarded' },
  'report rejected': { kind: 'report', report: 'rejected' },
  'report rejected, with an error': { kind: 'report', report: 'rejected', error: 15017 },
  'report rejected, with error 0': { kind: 'report', report: 'rejected', error: 0 },
  'report expired': { kind: 'report', report: 'expired' },
  'report indeterminate': { kind: 'report', report: 'indeterminate' },
  'report unrecognised': { kind: 'report', report: 'unrecognised' },
  'report unreachable': { kind: 'report', report: 'unreachable' },
  'report unsupported': { kind: 'report', report: 'unsupported' },
  'validity ended, never tried': { kind: 'validityEnded', tried: false, lastError: 0 },
  'validity ended, tried': { kind: 'validityEnded', tried: true, lastError: 15000 },
  'validity ended, tried, no error': { kind: 'validityEnded', tried: true, lastError: 0 },
  cancelled: { kind: 'cancelled' },
  noRoute: { kind: 'noRoute' },
  unwanted: { kind: 'unwanted', status: 10 },
  contentFailed: { kind: 'contentFailed', error: 15024 },
} as const satisfies Record<string, StatusEvent>;
type EventName = keyof typeof EVENTS;

/** Written out by hand, not derived: [state, status, error], or '-' = nothing changes. */
type Expected = readonly [keyof typeof STATE, number, number] | '-';
const same = '-' as const;
const reports = {
  'report retrieved': ['delivered', 5, 0],
  'report rejected': ['undeliverable', 9, 15011],
  'report rejected, with an error': ['undeliverable', 9, 15017],
  'report rejected, with error 0': ['undeliverable', 9, 15011],
  'report expired': ['expired', 15, 15006],
  'report indeterminate': ['undeliverable', 9, 15008],
  'report unrecognised': ['undeliverable', 9, 15007],
  'report unreachable': ['undeliverable', 9, 27],
  'report unsupported': ['undeliverable', 9, 15019],
} as const;
const unknownAtEnd = {
  'validity ended, never tried': ['expired', 29, 815],
  'validity ended, tried': ['expired', 29, 815],
  'validity ended, tried, no error': ['expired', 29, 815],
} as const;

const OPEN: Record<string, { from: MessageStatus; to: Record<EventName, Expected> }> = {
  'pending, fresh': {
    from: ACCEPTED,
    to: {
      ...reports,
      'accepted, reports': ['submitted', 3, 0],
      'accepted, no reports': ['delivered', 2, 0],
      deferred: ['pending', 26, 15000],
      throttled: same,
      refused: ['undeliverable', 4, 15009],
      'unknown, hold': ['uncertain', 3, 15000],
      'unknown, hold, no error': ['uncertain', 3, 815],
      'unknown, retry': ['pending', 26, 15000],
      'unknown, fail': ['expired', 29, 815],
      held: same,
      'report deferred': ['submitted', 3, 15004],
      'report forwarded': ['submitted', 3, 0],
      'validity ended, never tried': ['expired', 15, 4100],
      'validity ended, tried': ['expired', 15, 15000],
      'validity ended, tried, no error': ['expired', 15, 4100],
      cancelled: ['undeliverable', 31, 4100],
      noRoute: ['rejected', 19, 15023],
      unwanted: ['rejected', 10, 603],
      contentFailed: ['rejected', 100, 15024],
    },
  },
  'pending, after a failed attempt': {
    from: { state: STATE.pending, status: 26, error: 15000 },
    to: {
      ...reports,
      'accepted, reports': ['submitted', 3, 0],
      'accepted, no reports': ['delivered', 2, 0],
      deferred: same,
      throttled: same,
      refused: ['undeliverable', 4, 15009],
      'unknown, hold': ['uncertain', 3, 15000],
      'unknown, hold, no error': ['uncertain', 3, 815],
      'unknown, retry': same,
      'unknown, fail': ['expired', 29, 815],
      held: same,
      'report deferred': ['submitted', 3, 15004],
      'report forwarded': ['submitted', 3, 0],
      'validity ended, never tried': ['expired', 15, 4100],
      'validity ended, tried': ['expired', 15, 15000],
      'validity ended, tried, no error': ['expired', 15, 4100],
      cancelled: ['undeliverable', 31, 4100],
      noRoute: ['rejected', 19, 15023],
      unwanted: ['rejected', 10, 603],
      contentFailed: ['rejected', 100, 15024],
    },
  },
  submitted: {
    from: { state: STATE.submitted, status: 3, error: 0 },
    to: {
      ...reports,
      ...unknownAtEnd,
      'accepted, reports': same,
      'accepted, no reports': ['delivered', 2, 0],
      deferred: same,
      throttled: same,
      refused: same,
      'unknown, hold': same,
      'unknown, hold, no error': same,
      'unknown, retry': same,
      'unknown, fail': same,
      held: same,
      'report deferred': ['submitted', 3, 15004],
      'report forwarded': same,
      cancelled: same,
      noRoute: same,
      unwanted: same,
      contentFailed: same,
    },
  },
  'submitted, deferred by the handset': {
    from: { state: STATE.submitted, status: 3, error: 15004 },
    to: {
      ...reports,
      ...unknownAtEnd,
      'accepted, reports': same,
      'accepted, no reports': ['delivered', 2, 0],
      deferred: same,
      throttled: same,
      refused: same,
      'unknown, hold': same,
      'unknown, hold, no error': same,
      'unknown, retry': same,
      'unknown, fail': same,
      held: same,
      'report deferred': same,
      'report forwarded': same,
      cancelled: same,
      noRoute: same,
      unwanted: same,
      contentFailed: same,
    },
  },
  uncertain: {
    from: { state: STATE.uncertain, status: 3, error: 15000 },
    to: {
      ...reports,
      ...unknownAtEnd,
      'accepted, reports': ['submitted', 3, 0],
      'accepted, no reports': ['delivered', 2, 0],
      deferred: same,
      throttled: same,
      refused: ['undeliverable', 4, 15009],
      'unknown, hold': same,
      'unknown, hold, no error': same,
      'unknown, retry': ['pending', 26, 15000],
      'unknown, fail': ['expired', 29, 815],
      held: ['pending', 26, 15000],
      'report deferred': ['submitted', 3, 15004],
      'report forwarded': ['submitted', 3, 0],
      cancelled: same,
      noRoute: same,
      unwanted: same,
      contentFailed: same,
    },
  },
};

const FINALS: MessageStatus[] = [
  { state: STATE.delivered, status: 5, error: 0 },
  { state: STATE.delivered, status: 2, error: 0 },
  { state: STATE.undeliverable, status: 4, error: 15009 },
  { state: STATE.undeliverable, status: 9, error: 15011 },
  { state: STATE.undeliverable, status: 31, error: 4100 },
  { state: STATE.expired, status: 15, error: 4100 },
  { state: STATE.expired, status: 29, error: 815 },
  { state: STATE.rejected, status: 19, error: 15023 },
  { state: STATE.rejected, status: 52, error: 0 },
];

const events = Object.entries(EVENTS) as [EventName, StatusEvent][];

describe.each(Object.entries(OPEN))('a message that is %s', (_, { from, to }) => {
  it.each(events)('on "%s" becomes what the table of this test says', (name, event) => {
    const expected = to[name];
    const before = { ...from };
    const got = transition(from, event);
    const next = expected === '-' ? before : { state: STATE[expected[0]], status: expected[1], error: expected[2] };
    expect(got).toEqual({ next, changed: expected !== '-', final: isFinal(next.state) });
    expect(from).toEqual(before);
  });
});

describe('a final message', () => {
  it('is changed by no event: the first final status wins', () => {
    for (const from of FINALS) {
      for (const [, event] of events)
        expect(transition(from, event)).toEqual({ next: from, changed: false, final: true });
    }
  });
});

describe('states', () => {
  it('are final from delivered on', () => {
    const finals = Object.entries(STATE).filter(([, state]) => isFinal(state));
    expect(finals.map(([name]) => name)).toEqual(['delivered', 'undeliverable', 'expired', 'rejected']);
  });

  it('have codes that never change, because rows hold them', () => {
    expect(Object.values(STATE)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect([ACCEPTED.status, STATUS_CLAIMED]).toEqual([26, 7]);
  });
});

/** Which status group a state's status must be in. */
const GROUP: Record<State, string> = {
  0: 'PENDING',
  1: 'PENDING',
  2: 'PENDING',
  3: 'DELIVERED',
  4: 'UNDELIVERABLE',
  5: 'EXPIRED',
  6: 'REJECTED',
};

const REPORTS: ReportKind[] = [
  'retrieved',
  'deferred',
  'forwarded',
  'rejected',
  'expired',
  'indeterminate',
  'unrecognised',
  'unreachable',
  'unsupported',
];
const anError = fc.constantFrom(0, 27, 815, 502, 15000, 15004, 15009, 15024);
const anyEvent: fc.Arbitrary<StatusEvent> = fc.oneof(
  fc.record({ kind: fc.constant('accepted' as const), reports: fc.boolean() }),
  fc.record({
    kind: fc.constantFrom('deferred' as const, 'refused' as const, 'contentFailed' as const),
    error: anError,
  }),
  fc.record({ kind: fc.constantFrom('throttled' as const, 'held' as const, 'cancelled' as const, 'noRoute' as const) }),
  fc.record({
    kind: fc.constant('unknown' as const),
    error: anError,
    policy: fc.constantFrom('hold' as const, 'retry' as const, 'fail' as const),
  }),
  fc.record({
    kind: fc.constant('report' as const),
    report: fc.constantFrom(...REPORTS),
    error: fc.option(anError, { nil: undefined }),
  }),
  fc.record({ kind: fc.constant('validityEnded' as const), tried: fc.boolean(), lastError: anError }),
);

describe('content that failed', () => {
  it('has a status of its own where a text is longer than the carrier takes', () => {
    const outcome = (error: number) =>
      transition({ state: STATE.pending, status: 26, error: 0 }, { kind: 'contentFailed', error });
    expect(outcome(355).next).toEqual({ state: STATE.rejected, status: 77, error: 355 });
    expect(outcome(15023).next).toEqual({ state: STATE.rejected, status: 19, error: 15023 });
    expect(outcome(15026).next).toEqual({ state: STATE.rejected, status: 100, error: 15026 });
  });
});

describe('any life of a message', () => {
  it('has at most one final status, only known codes, and a status of the group that its state names', () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 30 }), (life) => {
        let now = ACCEPTED;
        let end: MessageStatus | null = null;
        for (const event of life) {
          const { next, changed, final } = transition(now, event);
          expect(changed).toBe(JSON.stringify(next) !== JSON.stringify(now));
          expect(final).toBe(isFinal(next.state));
          expect(statusView(next.status).groupName).toBe(GROUP[next.state]);
          errorView(next.error);
          if (end !== null) expect(next).toEqual(end);
          if (final) end = next;
          now = next;
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('ends, whatever came before, when its validity ends', () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 30 }), fc.boolean(), anError, (life, tried, lastError) => {
        const now = life.reduce((status, event) => transition(status, event).next, ACCEPTED);
        expect(transition(now, { kind: 'validityEnded', tried, lastError }).final).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });

  it('never says "expired, not sent" or "refused" of what the carrier is known to have', () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 30 }), (life) => {
        let now: MessageStatus = { state: STATE.submitted, status: 3, error: 0 };
        for (const event of life.filter((one) => one.kind !== 'report')) now = transition(now, event).next;
        expect([3, 29, 2]).toContain(now.status);
      }),
    );
  });
});
