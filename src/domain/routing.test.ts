import { describe, expect, it } from 'vitest';
import {
  createRouter,
  createRouteSwitch,
  createRouting,
  type RoutedCarrier,
  type RouterOptions,
  type Rule,
} from './routing.ts';

describe('routing', () => {
  it('gives every destination to the first carrier', () => {
    const routing = createRouting([[7], [3]]);
    expect(['491710000000', '12345', ''].map((to) => routing.laneFor(to))).toEqual([7, 7, 7]);
  });

  it('takes a lane for a lane, whatever its number', () => {
    expect(createRouting([[0]]).laneFor('491710000000')).toBe(0);
  });

  it('has no route where there is no carrier', () => {
    expect(createRouting([]).laneFor('491710000000')).toBeNull();
    expect(createRouting([]).laneForAll(['491710000000'])).toBeNull();
  });

  it('spreads destinations evenly over the lanes of a carrier, each always to the same', () => {
    const routing = createRouting([[4, 5, 6, 7], [9]]);
    const counts = new Map<number | null, number>();
    for (let i = 0; i < 10_000; i++) {
      const lane = routing.laneFor(String(491_710_000_000 + i));
      expect(routing.laneFor(String(491_710_000_000 + i))).toBe(lane);
      counts.set(lane, (counts.get(lane) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual([4, 5, 6, 7]);
    for (const count of counts.values()) expect(count).toBeGreaterThan(2_000);
  });

  it('keeps a group on one lane of the carrier that takes them all', () => {
    const routing = createRouting([[4, 5, 6, 7]]);
    const members = Array.from({ length: 50 }, (_, i) => String(491_710_000_000 + i));
    expect(new Set(members.map((to) => routing.laneFor(to))).size).toBeGreaterThan(1);
    expect(routing.laneForAll(members)).toBe(routing.laneFor(members[0] as string));
  });
});

const mms = (name: string, lane: number, more: Partial<RoutedCarrier> = {}): RoutedCarrier => ({
  name,
  channel: 'MMS',
  lanes: [lane],
  ...more,
});
const sms = (name: string, lane: number): RoutedCarrier => ({ name, channel: 'SMS', lanes: [lane] });
const A = mms('a', 1);
const B = mms('b', 2);
const C = mms('c', 3);
const S = sms('s', 10);
const T = sms('t', 11);
const BOX = [mms('sandbox', 90), sms('sandbox', 91)];
const via = (...names: string[]): Rule['carriers'] => names.map((carrier) => ({ carrier }));
const DE = '491710000001';
const UK = '447700900001';

const router = (rules: Rule[], more: Partial<RouterOptions> = {}) =>
  createRouter({ carriers: [A, B, C, S, T], sandbox: BOX, rules, ...more });

describe('without rules', () => {
  it('the carriers of a channel take all, in their order', () => {
    const routing = router([]);
    expect([routing.laneFor(DE), routing.smsLaneFor(DE)]).toEqual([1, 10]);
    expect(routing.alternatives(DE, 1)).toEqual([2, 3]);
    expect(routing.alternatives(DE, 2)).toEqual([3]);
    expect(routing.alternatives(DE, 3)).toEqual([]);
    expect(routing.alternatives(DE, 10)).toEqual([11]);
  });

  it('a group’s second choices are the other carriers that take all of it', () => {
    const small = mms('b', 2, { maxRecipients: 2 });
    const routing = router(
      [
        { to: ['49'], carriers: via('a', 'b', 'c') },
        { to: ['44'], carriers: via('c', 'b') },
      ],
      {
        carriers: [A, small, C, S, T],
      },
    );
    expect(routing.alternativesForAll([DE, DE], 1)).toEqual([2, 3]);
    expect(routing.alternativesForAll([DE, UK], 3)).toEqual([2]);
    expect(routing.alternativesForAll([DE, UK, DE], 3)).toEqual([]);
  });

  it('the sandbox takes all while no carrier is configured, and nothing once one is', () => {
    const alone = createRouter({ carriers: [], sandbox: BOX });
    expect([alone.laneFor(DE), alone.smsLaneFor(DE)]).toEqual([90, 91]);
    const one = createRouter({ carriers: [A], sandbox: BOX });
    expect([one.laneFor(DE), one.smsLaneFor(DE)]).toEqual([1, null]);
    expect(one.alternatives(DE, 1)).toEqual([]);
  });
});

describe('a rule', () => {
  it('takes what begins as it says; the first that matches decides', () => {
    const routing = router([
      { to: ['4917'], carriers: via('c') },
      { to: ['49', '43'], carriers: via('b', 'a') },
      { carriers: via('a') },
    ]);
    expect(['491710000001', '491510000001', '436601234567', UK].map((to) => routing.laneFor(to))).toEqual([3, 2, 2, 1]);
    expect(routing.alternatives('491510000001', 2)).toEqual([1]);
    expect(routing.alternatives('491710000001', 3)).toEqual([]);
  });

  it('decides in the order written, not by the longest beginning', () => {
    const routing = router([
      { to: ['49'], carriers: via('a') },
      { to: ['4917'], carriers: via('b') },
    ]);
    expect(routing.laneFor(DE)).toBe(1);
  });

  it('where rules are written, what none matches has no route', () => {
    const routing = router([{ to: ['49'], carriers: via('a') }]);
    expect(routing.laneFor(UK)).toBeNull();
    expect(routing.laneForAll([UK])).toBeNull();
    expect(routing.alternatives(UK, 1)).toEqual([]);
  });

  it('of MMSCs alone says nothing about SMS', () => {
    const routing = router([{ to: ['49'], carriers: via('b') }]);
    expect([routing.smsLaneFor(DE), routing.smsLaneFor(UK)]).toEqual([10, 10]);
  });

  it('without carriers forbids its destinations, of the channel that it names or of both', () => {
    const both = router([{ to: ['49'], carriers: [] }, { carriers: via('a', 's') }]);
    expect([both.laneFor(DE), both.smsLaneFor(DE), both.laneFor(UK), both.smsLaneFor(UK)]).toEqual([null, null, 1, 10]);
    const one = router([{ to: ['49'], channel: 'SMS', carriers: [] }, { carriers: via('a', 's') }]);
    expect([one.laneFor(DE), one.smsLaneFor(DE)]).toEqual([1, null]);
  });

  it('asks for the network by the number table, the longest beginning first', () => {
    const routing = router(
      [
        { network: ['26201'], carriers: via('b') },
        { to: ['49'], network: ['26202'], carriers: via('c') },
        { carriers: via('a') },
      ],
      { networks: { 49: '26202', 4917: '26201', '+44': '23410' } },
    );
    expect(['491710000001', '491510000001', UK].map((to) => routing.laneFor(to))).toEqual([2, 3, 1]);
  });

  it('asks who sends: account and sender, without + and case, or its beginning', () => {
    const routing = router([
      { account: [2], carriers: via('b') },
      { sender: ['+4711', 'News*'], carriers: via('c') },
      { carriers: via('a') },
    ]);
    expect(routing.laneFor(DE, { account: 2, sender: '4711' })).toBe(2);
    expect(routing.laneFor(DE, { account: 1, sender: '4711' })).toBe(3);
    expect(routing.laneFor(DE, { account: 1, sender: 'NEWS flash' })).toBe(3);
    expect(routing.laneFor(DE, { account: 1, sender: 'new' })).toBe(1);
    expect(routing.laneFor(DE)).toBe(1);
  });

  it('takes short codes only where it names them', () => {
    const routing = router([{ carriers: via('a') }, { to: ['12'], shortCodes: ['12345'], carriers: via('b') }]);
    expect(routing.shortCodes).toEqual(new Set(['12345']));
    expect(routing.laneFor('12345')).toBe(2);
    expect(routing.laneFor('12025550123')).toBe(1);
    expect(router([{ carriers: via('a') }]).laneFor('12345')).toBe(1);
  });

  it('may name the sandbox', () => {
    const routing = router([{ to: ['49'], carriers: via('sandbox') }, { carriers: via('a', 's') }]);
    expect([routing.laneFor(DE), routing.smsLaneFor(DE), routing.laneFor(UK)]).toEqual([90, 91, 1]);
  });

  it('gives shares by weight, the same to the same, the rest as second choice', () => {
    const routing = router([
      { carriers: [{ carrier: 'a', weight: 3 }, { carrier: 'b', weight: 1 }, { carrier: 'c' }] },
    ]);
    const counts = new Map<number | null, number>();
    for (let i = 0; i < 20_000; i++) {
      const to = String(491_710_000_000 + i);
      const lane = routing.laneFor(to);
      counts.set(lane, (counts.get(lane) ?? 0) + 1);
      expect(routing.alternatives(to, lane as number)).toEqual([lane === 1 ? 2 : 1, 3]);
    }
    expect(counts.get(1)! / 20_000).toBeCloseTo(0.75, 1);
    expect(counts.get(2)! / 20_000).toBeCloseTo(0.25, 1);
  });

  it('moves no destination between two carriers when a third joins them', () => {
    const two = router([
      {
        carriers: [
          { carrier: 'a', weight: 1 },
          { carrier: 'b', weight: 1 },
        ],
      },
    ]);
    const three = router([
      {
        carriers: [
          { carrier: 'a', weight: 1 },
          { carrier: 'b', weight: 1 },
          { carrier: 'c', weight: 1 },
        ],
      },
    ]);
    for (let i = 0; i < 2_000; i++) {
      const to = String(491_710_000_000 + i);
      const lane = three.laneFor(to);
      if (lane !== 3) expect(lane).toBe(two.laneFor(to));
    }
  });

  it('that is gone leaves the choices of today to what waits on its carrier', () => {
    const routing = createRouter({ carriers: [B, C], rules: [] });
    expect(routing.alternatives(DE, 1)).toEqual([2, 3]);
  });
});

describe('a group', () => {
  it('goes to the best carrier that all its members may take', () => {
    const routing = router([
      { to: ['49'], carriers: via('a', 'b', 'c') },
      { to: ['44'], carriers: via('c', 'b') },
      { to: ['1'], carriers: via('a') },
    ]);
    expect(routing.laneForAll([DE, UK])).toBe(2);
    expect(routing.laneForAll([DE, '491710000002'])).toBe(1);
    expect(routing.laneForAll([UK, '12025550123'])).toBeNull();
  });

  it('goes to one that takes as many in one submission', () => {
    const small = mms('small', 5, { maxRecipients: 2 });
    const routing = createRouter({ carriers: [small, A] });
    expect(routing.laneForAll([DE, UK])).toBe(5);
    expect(routing.laneForAll([DE, UK, '12025550123'])).toBe(1);
    expect(createRouter({ carriers: [small] }).laneForAll([DE, UK, '12025550123'])).toBeNull();
  });
});

describe('the explanation', () => {
  const routing = router(
    [
      { name: 'germany', to: ['49'], carriers: via('b', 's') },
      { to: ['82'], carriers: [] },
    ],
    {
      networks: { 4917: '26201' },
      resellerCodeRequired: ['82'],
    },
  );

  it('names number, network, rule and carriers', () => {
    expect(routing.explain(`+${DE}`)).toEqual({
      destination: DE,
      status: null,
      shortCode: false,
      network: '26201',
      needsResellerCode: false,
      ways: {
        MMS: { rule: 0, why: 'the rule says so', carriers: ['b'] },
        SMS: { rule: 0, why: 'the rule says so', carriers: ['s'] },
      },
    });
  });

  it('says why there is no way', () => {
    expect(routing.explain('0171')).toMatchObject({ destination: null, ways: { MMS: { why: 'not an address' } } });
    expect(routing.explain(UK).ways.MMS).toEqual({ rule: null, why: 'no rule matches', carriers: [] });
    expect(routing.explain('821012345678')).toMatchObject({
      needsResellerCode: true,
      ways: { MMS: { rule: 1, why: 'the rule gives it no carrier', carriers: [] } },
    });
    expect(createRouter({ carriers: [A] }).explain(UK).ways.SMS.why).toBe('no carrier takes SMS');
  });

  it('says what happens without rules', () => {
    expect(router([]).explain(UK).ways.MMS).toEqual({
      rule: null,
      why: 'no rule speaks of MMS: all carriers in their order',
      carriers: ['a', 'b', 'c'],
    });
    expect(createRouter({ carriers: [], sandbox: BOX }).explain(UK).ways.MMS).toMatchObject({
      why: 'no carrier is configured: the sandbox takes all',
      carriers: ['sandbox'],
    });
  });
});

it('a look-up among 10 000 rules finds what a walk through all of them finds', () => {
  const rules: Rule[] = Array.from({ length: 10_000 }, (_, n) => ({
    ...(n % 7 === 0 ? { sender: [String(1000 + (n % 50))] } : {}),
    to: [String(490_000 + ((n * 7919) % 10_000))],
    carriers: via('abc'[n % 3] as string),
  }));
  const routing = router(rules);
  for (let i = 0; i < 500; i++) {
    const to = `${490_000 + ((i * 31) % 10_000)}1234567`;
    const sender = String(1000 + (i % 50));
    const first = rules.find(
      (rule) => rule.to?.some((one) => to.startsWith(one)) && (!rule.sender || rule.sender.includes(sender)),
    );
    const expected = first ? { a: 1, b: 2, c: 3 }[first.carriers[0]?.carrier as 'a' | 'b' | 'c'] : null;
    expect(routing.laneFor(to, { sender })).toBe(expected);
  }
});

it('says which channel each carrier waits for, and how early it may have what is scheduled, also after a switch', () => {
  const router = (earlyMs: number) =>
    createRouter({
      carriers: [{ name: 'north', channel: 'MMS', lanes: [1, 2], earlyMs }],
      sandbox: [
        { name: 'sandbox', channel: 'MMS', lanes: [3] },
        { name: 'sandbox', waitsAs: 'sandbox-sms', channel: 'SMS', lanes: [4] },
      ],
    });
  const { routing, turn } = createRouteSwitch(router(0));
  expect([...(routing.channels ?? [])]).toEqual([
    ['north', 'MMS'],
    ['sandbox', 'MMS'],
    ['sandbox-sms', 'SMS'],
  ]);
  expect(routing.earlyOf?.(2)).toBe(0);
  turn(router(60_000));
  expect([1, 2, 3, 99].map((lane) => routing.earlyOf?.(lane))).toEqual([60_000, 60_000, 0, 0]);
});
