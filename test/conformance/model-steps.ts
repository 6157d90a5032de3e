/**
 * The steps that random histories are made of (model-histories.ts), as plain data, and those histories that failed once. A step
 * holds numbers that choose among what there is (the n-th claim, the n-th webhook), so that a failing history shrinks and
 * can be pasted as it was printed.
 */

import type { Window } from '../../src/domain/schedule.ts';
import type { Outcome } from '../../src/domain/submission.ts';
import type { BulkChange, Claim, MediaOutcome, MessageFilter } from '../../src/store/contract.ts';
import fc from '../properties.ts';
import { DAY, HOUR, MINUTE, numbers, SECOND } from './desk.ts';

export const ACCOUNTS = [1, 2] as const;
/** What is remembered to be settled (again), so that a history stays small. */
export const REMEMBERED = 40;

export type Step =
  | {
      do: 'accept';
      account: number;
      count: number;
      group?: boolean;
      /** Two of the messages, at least: the last is refused at the door. */
      refuse?: boolean;
      /** 0.. = a bulk by name, -1.. = the n-th bulk before, by its generated number. */
      bulk?: number;
      sendAt?: number;
      /** Its carrier keeps the time, and may have it so long before. */
      early?: number;
      every?: number;
      endpoint?: number;
      intermediate?: boolean;
      key?: number;
      idem?: number;
      link?: boolean;
      upload?: boolean;
      lane?: number;
      /** Short links: 0 = clicks are reported to a URL, 1 = to the account's click endpoint, 2 = they are not counted. */
      tracked?: number;
      /** 0 = an SMS follows, 1 = likewise with a second choice of each, 2 = a second choice alone, 3 = no carrier takes the MMS. */
      ways?: number;
    }
  | { do: 'claim'; lane: number; limit: number }
  | { do: 'settle'; at: number; outcome: OutcomeName }
  | { do: 'release'; at: number; in: number; elsewhere?: boolean }
  | { do: 'report'; id: number; kind: (typeof REPORTS)[number]; to: number }
  | { do: 'steer'; bulk: number; changes: ChangeName[] }
  | { do: 'callBacks'; lane: number; ok: boolean }
  | { do: 'reroute'; pair: number }
  | { do: 'media'; limit: number }
  | { do: 'fetched'; at: number; outcome: MediaOutcome['kind'] }
  | { do: 'post'; limit: number }
  | { do: 'answer'; at: number; ok: boolean }
  | { do: 'pull'; account: number; limit: number; filter: number }
  | {
      do: 'endpoint';
      account: number;
      kind: 'delivery' | 'inbound' | 'click';
      url: number;
      as: 'default' | 'plain' | 'gone';
    }
  | { do: 'again'; at: number }
  | { do: 'againAll'; account: number; state?: 'DELIVERED' | 'EXHAUSTED' }
  | { do: 'rearm'; account: number; kind: 'reports' | 'inbox' }
  | { do: 'number'; n: number; account: number; url?: number; gone?: boolean }
  | { do: 'handset'; from: number; to: number; id: number; answers?: number; asks?: 'stop' | 'start' }
  | { do: 'inbox'; account: number; limit: number }
  | { do: 'optOut'; account: number; to: number; any: boolean; gone: boolean }
  /** A link of the n-th message of those with links, so many times at once. */
  | { do: 'click'; at: number; link: number; times: number; flag?: boolean }
  | { do: 'sweep' }
  | { do: 'crash' }
  | { do: 'policy'; onUnknown: 'hold' | 'retry' | 'fail'; reports: boolean }
  | { do: 'wait'; ms: number };

export const OUTCOMES = {
  accepted: (id: string): Outcome => ({ kind: 'accepted', carrierMessageId: id, words: 'taken' }),
  nameless: (): Outcome => ({ kind: 'accepted', carrierMessageId: '' }),
  partly: (id: string, claim: Claim): Outcome => ({
    kind: 'accepted',
    carrierMessageId: id,
    refused: [{ recipient: claim.members[0]?.to ?? '', error: { id: 15009, words: 'not this one' } }],
  }),
  deferred: (): Outcome => ({ kind: 'deferred', error: { id: 15000, words: 'busy' } }),
  later: (): Outcome => ({ kind: 'deferred', error: { id: 15001 }, retryAfterMs: 20 * MINUTE }),
  elsewhere: (): Outcome => ({ kind: 'deferred', error: { id: 15000, words: 'down' }, elsewhere: true }),
  notHere: (): Outcome => ({ kind: 'refused', error: { id: 15023, words: 'not ours' }, elsewhere: true }),
  throttled: (): Outcome => ({ kind: 'throttled', retryAfterMs: 10 * SECOND }),
  refused: (): Outcome => ({ kind: 'refused', error: { id: 15009, words: 'no such number' } }),
  contentFailed: (): Outcome => ({ kind: 'contentFailed', error: { id: 15025, words: 'content is gone' } }),
  unknown: (): Outcome => ({ kind: 'unknown', error: { id: 15000, words: 'connection lost' } }),
} as const;
export type OutcomeName = keyof typeof OUTCOMES;

const REPORTS = ['retrieved', 'rejected', 'deferred', 'forwarded', 'expired', 'indeterminate'] as const;

export const CHANGES = {
  pause: (): BulkChange => ({ kind: 'pause' }),
  resume: (): BulkChange => ({ kind: 'resume' }),
  cancel: (): BulkChange => ({ kind: 'cancel' }),
  now: (now: number): BulkChange => ({ kind: 'reschedule', sendAt: now - DAY }),
  soon: (now: number): BulkChange => ({ kind: 'reschedule', sendAt: now + 30 * MINUTE }),
  late: (now: number): BulkChange => ({ kind: 'reschedule', sendAt: now + DAY }),
  fast: (): BulkChange => ({ kind: 'limit', speed: { amount: 60 } }),
  slow: (): BulkChange => ({ kind: 'limit', speed: { amount: 2, timeUnit: 'HOUR' } }),
} as const;
type ChangeName = keyof typeof CHANGES;

/** Window and validity go by the bulk's name, else by the account: turns that pass unused are then anyone's of their bulk. */
export const WINDOWS: (Window | null)[] = [null, null, { days: 127, from: 13 * 60, to: 15 * 60 }];
export const VALIDITIES = [2 * HOUR, 6 * HOUR, 30 * HOUR];

export const FILTERS: ((account: number) => Partial<MessageFilter>)[] = [
  () => ({}),
  () => ({}),
  (account) => ({ bulks: { nos: [], ids: [`bulk-${account}-0`] } }),
  (account) => ({ messages: { nos: [], keys: [`key-${account}-0`, `key-${account}-1`] } }),
  () => ({ generalStatus: 'DELIVERED' }),
  () => ({ destination: numbers(1)[0] as string }),
];

/** From, to and the channel of that; the last two never move anything. */
export const REROUTES = [
  ['mmsc', 'other', 'MMS'],
  ['smsc', 'smsc2', 'SMS'],
  ['smsc2', 'smsc', 'SMS'],
  ['mmsc', 'smsc', 'SMS'],
  ['smsc', 'other', 'MMS'],
] as const;

const nat = (max: number) => fc.nat({ max });
/** Mostly absent: once in `of` there. */
const some = <Value>(value: fc.Arbitrary<Value>, of = 5) =>
  fc.oneof(
    { withCrossShrink: true },
    { weight: of - 1, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: value },
  );
const maybe = fc.boolean();

/** Weighted so that most histories get through the life of a message several times. */
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .record({
        do: fc.constant('accept' as const),
        account: fc.constantFrom(...ACCOUNTS),
        count: fc.constantFrom(1, 1, 2, 3, 5),
        group: some(maybe),
        refuse: some(fc.constant(true)),
        bulk: some(fc.integer({ min: -3, max: 2 }), 2),
        sendAt: some(fc.constantFrom(-HOUR, 10 * MINUTE, HOUR, 20 * HOUR)),
        early: some(fc.constantFrom(5 * MINUTE, DAY), 3),
        every: some(fc.constantFrom(0, SECOND, MINUTE, 20 * MINUTE), 3),
        endpoint: some(nat(1), 2),
        intermediate: some(maybe, 2),
        key: some(nat(3)),
        idem: some(nat(2), 20),
        link: some(fc.constant(true), 8),
        upload: some(maybe, 8),
        lane: some(nat(2)),
        tracked: some(nat(2), 4),
        ways: some(nat(3), 2),
      })
      .map(rare),
  },
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('claim' as const), lane: nat(4), limit: fc.constantFrom(1, 3, 64, 64) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('settle' as const),
      at: nat(REMEMBERED),
      outcome: fc.constantFrom(...(Object.keys(OUTCOMES) as OutcomeName[]), 'accepted' as const, 'accepted' as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        do: fc.constant('release' as const),
        at: nat(REMEMBERED),
        in: fc.constantFrom(0, MINUTE),
        elsewhere: some(fc.constant(true), 3),
      })
      .map(rare),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('report' as const),
      id: nat(12),
      kind: fc.constantFrom(...REPORTS),
      to: nat(5),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('steer' as const),
      bulk: fc.integer({ min: -3, max: 5 }),
      changes: fc.array(fc.constantFrom(...(Object.keys(CHANGES) as ChangeName[])), { minLength: 1, maxLength: 2 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('callBacks' as const), lane: nat(4), ok: maybe }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('reroute' as const), pair: nat(REROUTES.length - 1) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('media' as const), limit: fc.constantFrom(1, 10) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('fetched' as const),
      at: nat(5),
      outcome: fc.constantFrom('ready', 'ready', 'failed', 'again'),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('post' as const), limit: fc.constantFrom(1, 2, 10) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('answer' as const), at: nat(REMEMBERED), ok: maybe }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('pull' as const),
      account: fc.constantFrom(...ACCOUNTS),
      limit: fc.constantFrom(1, 3, 1000),
      filter: nat(FILTERS.length - 1),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('endpoint' as const),
      account: fc.constantFrom(...ACCOUNTS),
      kind: fc.constantFrom('delivery', 'inbound', 'click'),
      url: nat(2),
      as: fc.constantFrom('default', 'plain', 'gone'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('again' as const), at: nat(REMEMBERED) }) },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({ do: fc.constant('againAll' as const), account: fc.constantFrom(...ACCOUNTS) }),
      fc.record({
        do: fc.constant('rearm' as const),
        account: fc.constantFrom(...ACCOUNTS),
        kind: fc.constantFrom('reports', 'inbox'),
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .record({
        do: fc.constant('number' as const),
        n: nat(1),
        account: fc.constantFrom(...ACCOUNTS),
        url: some(nat(1)),
        gone: some(maybe),
      })
      .map(rare),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        do: fc.constant('handset' as const),
        from: nat(4),
        to: nat(2),
        id: nat(20),
        answers: some(nat(6)),
        asks: some(fc.constantFrom('stop', 'start')),
      })
      .map(rare),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({
        do: fc.constant('inbox' as const),
        account: fc.constantFrom(...ACCOUNTS),
        limit: fc.constantFrom(1, 100),
      }),
      fc.record({
        do: fc.constant('optOut' as const),
        account: fc.constantFrom(...ACCOUNTS),
        to: nat(4),
        any: maybe,
        gone: maybe,
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        do: fc.constant('click' as const),
        at: nat(10),
        link: nat(2),
        times: fc.constantFrom(1, 1, 3),
        flag: some(fc.constant(true)),
      })
      .map(rare),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('sweep' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('policy' as const),
      onUnknown: fc.constantFrom('hold', 'hold', 'retry', 'fail'),
      reports: fc.constantFrom(true, true, false),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('wait' as const),
      ms: fc.constantFrom(SECOND, 2 * SECOND, 15 * SECOND, MINUTE, 10 * MINUTE, 15 * MINUTE, HOUR, 5 * HOUR, 13 * HOUR),
    }),
  },
);

export const history = fc.array(step, { minLength: 1, maxLength: 150, size: 'max' });

/** Of what an accept may carry most is absent; otherwise nothing would ever be plain. `undefined` members leave. */
function rare<One extends Step>(one: One): One {
  return JSON.parse(JSON.stringify(one)) as One;
}

// --- Histories that failed once ---

/** Two messages that their carrier has early: one taken, one in flight, when their bulk is moved, and then cancelled. */
export const EARLY: Step[] = [
  { do: 'accept', account: 1, count: 3, bulk: 0, sendAt: HOUR, early: 5 * MINUTE },
  { do: 'claim', lane: 0, limit: 64 },
  { do: 'wait', ms: 55 * MINUTE },
  { do: 'claim', lane: 0, limit: 2 },
  { do: 'settle', at: 0, outcome: 'accepted' },
  { do: 'steer', bulk: 0, changes: ['late'] },
  { do: 'callBacks', lane: 0, ok: true },
  { do: 'settle', at: 0, outcome: 'accepted' },
  { do: 'callBacks', lane: 0, ok: false },
  { do: 'wait', ms: 5 * HOUR },
  { do: 'sweep' },
  { do: 'steer', bulk: 0, changes: ['cancel'] },
  { do: 'sweep' },
  { do: 'callBacks', lane: 0, ok: true },
];

/** By what they show. Each engine runs them; a new one is pasted here as it was printed. */
export const COUNTEREXAMPLES: [string, Step[]][] = [
  [
    'what was put back as never sent, and had left by a late answer, ends by its validity',
    [
      { do: 'report', id: 2, kind: 'forwarded', to: 0 },
      { do: 'accept', account: 1, count: 1, every: SECOND },
      { do: 'claim', lane: 0, limit: 1 },
      { do: 'release', at: 0, in: 0 },
      { do: 'settle', at: 7, outcome: 'accepted' },
      { do: 'wait', ms: SECOND },
    ],
  ],
  ['what a carrier has early is kept for longer, also what was in flight, and called back with its bulk', EARLY],
  [
    'the first of a bulk with a speed limit who wants none moves no clock of the others',
    [
      { do: 'optOut', account: 2, to: 100, any: false, gone: false },
      { do: 'accept', account: 2, count: 5, every: MINUTE },
      { do: 'wait', ms: 6 * HOUR },
      { do: 'claim', lane: 0, limit: 1 },
    ],
  ],
  [
    'a full POST that is complete while two are under way goes at once',
    [
      { do: 'accept', account: 1, count: 1, tracked: 0 },
      { do: 'click', at: 0, link: 0, times: 1 },
      { do: 'click', at: 0, link: 0, times: 1 },
      { do: 'post', limit: 10 },
      { do: 'click', at: 0, link: 0, times: 1 },
      { do: 'post', limit: 1 },
    ],
  ],
  [
    'who has opted out of a single message and of a group, as its first member, ends in both',
    [
      { do: 'accept', account: 2, count: 1 },
      { do: 'accept', account: 2, count: 5, group: true },
      { do: 'optOut', account: 2, to: 0, any: false, gone: false },
      { do: 'claim', lane: 0, limit: 1 },
    ],
  ],
  [
    'a quicker pace ends sooner what waits for its content',
    [
      { do: 'accept', account: 1, count: 3, bulk: -3, every: 20 * MINUTE, link: true },
      { do: 'wait', ms: 6 * HOUR },
      { do: 'accept', account: 2, count: 2 },
      { do: 'wait', ms: 2 * SECOND },
      { do: 'sweep' },
      { do: 'accept', account: 1, count: 5, bulk: -2, every: SECOND, endpoint: 0 },
      { do: 'sweep' },
    ],
  ],
  [
    'two POSTs under way after older ones have left are two',
    [
      { do: 'wait', ms: 13 * HOUR },
      { do: 'accept', account: 1, count: 2, refuse: true, endpoint: 0 },
      { do: 'post', limit: 10 },
      { do: 'wait', ms: 18 * HOUR },
      { do: 'answer', at: 31, ok: false },
      { do: 'wait', ms: 6 * HOUR },
      { do: 'sweep' },
      { do: 'post', limit: 2 },
      {
        ...{ do: 'accept', account: 1, count: 5, group: true, bulk: 2, sendAt: 20 * HOUR },
        ...{ early: DAY, every: 20 * MINUTE, ways: 0 },
      },
      { do: 'answer', at: 28, ok: true },
      { do: 'accept', account: 1, count: 3, every: SECOND, endpoint: 1, intermediate: true, ways: 1 },
    ],
  ],
];
