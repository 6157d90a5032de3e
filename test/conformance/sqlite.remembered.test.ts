/**
 * What the engine remembers between statements so that it need not ask for it with each message: what a message then costs in
 * statements, and that a transaction which was rolled back leaves nothing remembered that is not so.
 */
import { afterEach, expect, test } from 'vitest';
import { bodyOf, rowsOf } from '../../bench/rows.ts';
import type { Accepted, Claims, Webhooks } from '../../src/store/contract.ts';
import { type Engine, type Op, type OpResult, openEngine } from '../../src/store/sqlite/engine.ts';

const NOW = Date.UTC(2026, 0, 5, 12);
let engine: Engine | null = null;
/** Statements since it was emptied, and whether the next commit finds the disk full. */
let statements: string[] = [];
let full = false;

afterEach(() => {
  engine?.close();
  engine = null;
});

function open(): { lane: number; accept(to?: string): Op } {
  full = false;
  engine = openEngine({
    file: ':memory:',
    retentionMs: 1e12,
    now: NOW,
    watch: {
      before(sql) {
        statements.push(sql);
        if (full && sql === 'COMMIT') throw Object.assign(new Error('database or disk is full'), { errcode: 13 });
      },
    },
  });
  const lane = ok(['lane', { carrier: 'one', onUnknown: 'hold', reports: true }]) as number;
  let next = ok(['reserve', 100_000]) as number;
  const spec = { body: bodyOf('hello'), endpoint: { url: 'http://hook.test/', contentType: 'application/json' } };
  return {
    lane,
    accept(to) {
      const request = rowsOf({ first: next, count: 1, lane }, { spec });
      next += 3;
      return ['accept', to === undefined ? request : { ...request, to: [to] }];
    },
  };
}

const apply = (...ops: Op[]): OpResult[] => (engine as Engine).apply(ops, NOW);

function all(...ops: Op[]): unknown[] {
  return apply(...ops).map((result) => {
    if (!('ok' in result)) throw new Error(JSON.stringify(result));
    return result.ok;
  });
}
const ok = (op: Op): unknown => all(op)[0];

/** All of it happens, and then the disk is full. */
function lost(...ops: Op[]): void {
  full = true;
  expect(apply(...ops)).toEqual(ops.map(() => ({ unavailable: 'database or disk is full' })));
  full = false;
}

/** Statements a message of `work` about `count` of them. */
function cost(count: number, work: () => void): number {
  statements = [];
  work();
  return statements.length / count;
}

test('a simple message costs some twenty statements on its way, of which most are the rows that are its own', () => {
  const { lane, accept } = open();
  all(accept());
  const count = 64;
  let claims: Claims['claims'] = [];
  const costs = {
    accept: cost(count, () => all(...Array.from({ length: count }, () => accept()))),
    claim: cost(count, () => {
      ({ claims } = ok(['claim', { lane, limit: count, leaseMs: 90_000 }]) as Claims);
    }),
    settle: cost(count, () => {
      const outcomeOf = (leader: number) => ({ kind: 'accepted' as const, carrierMessageId: `m${leader}` });
      all(
        ...claims.map(({ token, leader }): Op => {
          return ['settle', { lane, token, leader, outcome: outcomeOf(leader), startedAt: NOW, tookMs: 1 }];
        }),
      );
    }),
    report: cost(count, () => {
      const report = { carrier: 'one', addresses: [], kind: 'retrieved' as const, words: 'retrieved' };
      all(...claims.map(({ leader }): Op => ['report', { ...report, carrierMessageId: `m${leader}` }]));
    }),
    webhook: cost(count, () => {
      const { webhooks } = ok(['webhookNext', { limit: 10, leaseMs: 30_000 }]) as Webhooks;
      expect(webhooks.map(({ events }) => events.length)).toEqual([count]);
      expect(webhooks[0]?.events.map(({ no }) => no)).toEqual(claims.map(({ leader }) => leader));
    }),
  };
  expect(claims).toHaveLength(count);
  expect(costs.accept).toBeLessThan(3.5);
  expect(costs.claim).toBeLessThan(4);
  expect(costs.settle).toBeLessThan(7.5);
  expect(costs.report).toBeLessThan(6.5);
  expect(costs.webhook).toBeLessThan(0.5);
});

test('who opted out is heeded although the transaction that took the opt-out back, and looked, was lost', () => {
  const { accept } = open();
  const list = [{ sender: '', destination: '447700900001' }];
  ok(['optOutPut', { account: 1, list }]);
  lost(['optOutDelete', { account: 1, list }], accept('447700900001'));
  expect((ok(accept('447700900001')) as Extract<Accepted, { kind: 'accepted' }>).optedOut).toHaveLength(1);
});

test('an opt-out counts from the next accept on, and until it is taken back', () => {
  const { accept } = open();
  const list = [{ sender: '', destination: '447700900001' }];
  const optedOut = (): unknown => (ok(accept('447700900001')) as { optedOut?: unknown }).optedOut;
  expect(optedOut()).toBeUndefined();
  ok(['optOutPut', { account: 1, list }]);
  expect(optedOut()).toHaveLength(1);
  ok(['optOutDelete', { account: 1, list }]);
  expect(optedOut()).toBeUndefined();
});

test('a line that was woken, or put to rest, in a transaction that was lost is woken by what comes next', () => {
  const { lane, accept } = open();
  const claim: Op = ['claim', { lane, limit: 10, leaseMs: 90_000 }];
  const claimed = (): number => (ok(claim) as Claims).claims.length;
  lost(accept());
  expect(claimed()).toBe(0);
  ok(accept());
  lost(claim);
  expect(claimed()).toBe(1);
  ok(accept());
  expect(claimed()).toBe(1);
});

test('a lane whose carrier was configured anew is judged by what holds now', () => {
  const { lane, accept } = open();
  const sent = (): unknown => {
    ok(accept());
    const [claim] = (ok(['claim', { lane, limit: 1, leaseMs: 90_000 }]) as Claims).claims;
    if (!claim) throw new Error('nothing was claimed');
    const { token, leader } = claim;
    ok([
      'settle',
      {
        lane,
        token,
        leader,
        outcome: { kind: 'accepted', carrierMessageId: `m${leader}` },
        startedAt: NOW,
        tookMs: 1,
      },
    ]);
    const { webhooks } = ok(['webhookNext', { limit: 10, leaseMs: 30_000 }]) as Webhooks;
    return webhooks.flatMap(({ events }) => events).map(({ status }) => status);
  };
  expect(sent()).toEqual([]);
  // Without reports, what the carrier took is as final as it gets.
  ok(['lane', { carrier: 'one', onUnknown: 'hold', reports: false }]);
  expect(sent()).toEqual([2]);
});

test('what was handed on to an endpoint in a lost transaction is not told, and what follows is', () => {
  const { lane, accept } = open();
  ok(accept());
  const [claim] = (ok(['claim', { lane, limit: 1, leaseMs: 90_000 }]) as Claims).claims;
  const { token, leader } = claim as Claims['claims'][number];
  const settle: Op = [
    'settle',
    { lane, token, leader, outcome: { kind: 'refused', error: { id: 15009, words: 'no' } }, startedAt: NOW, tookMs: 1 },
  ];
  (engine as Engine).hints();
  lost(settle);
  const told = (): number => (ok(['webhookNext', { limit: 10, leaseMs: 30_000 }]) as Webhooks).webhooks.length;
  expect(told()).toBe(0);
  ok(settle);
  expect((engine as Engine).hints()).toContain('webhooks');
  expect(told()).toBe(1);
});
