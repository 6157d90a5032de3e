import { describe, expect, it } from 'vitest';
import { createRouting } from './routing.ts';

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
