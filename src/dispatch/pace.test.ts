/** The rate of a lane, alone: what any order of late, heavy and abandoned turns does to it. */

import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { testEnv } from '../env.ts';
import { Pace } from './pace.ts';

/** The most weight within any `ms`. */
function mostWithin(left: { at: number; weight: number }[], ms: number): number {
  return Math.max(
    0,
    ...left.map(({ at }) =>
      left.filter((one) => one.at >= at && one.at < at + ms).reduce((sum, { weight }) => sum + weight, 0),
    ),
  );
}

describe('a rate', () => {
  it('holds in every sliding second, whatever weighs how much, comes late or does not come', () => {
    const turn = fc.record({
      weight: fc.integer({ min: 1, max: 6 }),
      late: fc.nat(2_000),
      idle: fc.nat(400),
      drops: fc.nat(9),
    });
    fc.assert(
      fc.property(fc.integer({ min: 6, max: 40 }), fc.array(turn, { maxLength: 120, size: 'max' }), (rate, turns) => {
        const pace = new Pace(rate);
        const left: { at: number; weight: number }[] = [];
        // Holders that wait, each until its own instant.
        const holding: { turn: number; from: number; weight: number; drops: boolean }[] = [];
        let now = 0;
        const settle = (until: number): void => {
          for (;;) {
            const next = holding
              .map((one) => ({ one, at: Math.max(one.from, pace.mayLeave(one.turn, one.weight)) }))
              .sort((a, b) => a.at - b.at)[0];
            if (!next || next.at > until) return;
            holding.splice(holding.indexOf(next.one), 1);
            if (next.one.drops) pace.abandon(next.one.weight);
            else {
              now = Math.max(now, next.at);
              pace.left(now, next.one.weight);
              left.push({ at: now, weight: next.one.weight });
            }
          }
        };
        for (const { weight, late, idle, drops } of turns) {
          settle(now + idle);
          now += idle;
          const at = pace.reserve(now, weight);
          holding.push({ turn: at, from: at + (late % 7 === 0 ? late : 0), weight, drops: drops === 0 });
        }
        settle(Number.POSITIVE_INFINITY);
        expect(left.length).toBe(turns.filter(({ drops }) => drops !== 0).length);
        // Short of the span by less than what adding up fractions may lose.
        expect(mostWithin(left, 1_000 - 1e-6)).toBeLessThanOrEqual(rate);
      }),
      { numRuns: 200 },
    );
  });

  it('lets something heavier than a second of it go, and makes up for it afterwards', () => {
    const pace = new Pace(10);
    const heavy = pace.reserve(0, 25);
    expect(pace.mayLeave(heavy, 25)).toBe(0);
    pace.left(0, 25);
    expect(pace.reserve(0)).toBe(2_500);
  });

  it('counts a turn that was waited for when it is used, and one that was dropped not at all', async () => {
    const { clock } = testEnv();
    const pace = new Pace(2);
    const never = new AbortController().signal;
    const turns = [pace.turn(clock), pace.turn(clock), pace.turn(clock)];
    expect(await turns[0]!.come(never)).toBe(true);
    turns[1]!.drop();
    const stopped = new AbortController();
    const third = turns[2]!.come(stopped.signal);
    await clock.advance(900);
    stopped.abort();
    expect(await third).toBe(false);
    // One of two is left for this second.
    expect(pace.mayLeave(clock.monotonic())).toBe(clock.monotonic());
    pace.reserve(clock.monotonic());
    pace.left(clock.monotonic());
    expect(pace.mayLeave(clock.monotonic())).toBe(1_000);
  });
});
