/** What the writer does in one piece is bounded by what it costs, not by how many asked. */
import { describe, expect, it } from 'vitest';
import type { Op } from './engine.ts';
import { GROUP, LOG_MOST, nextGroup, RESTART_PAGES, restartsLog, weightOf } from './steps.ts';

const MIB = 1024 * 1024;

/** A request for so many destinations; what else stands in it costs nothing here. */
const accept = (count: number): { op: Op } => ({
  op: ['accept', { to: Array.from({ length: count }, () => '441134960000') }] as unknown as Op,
});
const small: { op: Op } = { op: ['keys', null] as unknown as Op };
const weight = (group: { op: Op }[]): number => group.reduce((sum, { op }) => sum + weightOf(op), 0);

describe('a commit', () => {
  it('takes a thousand small ops at once, in their order', () => {
    const queue = Array.from({ length: 3000 }, (_, n) => ({ ...small, n }));
    expect(nextGroup(queue).map(({ n }) => n)).toEqual(Array.from({ length: GROUP }, (_, n) => n));
    expect(queue[0]?.n).toBe(GROUP);
  });

  it('takes two of the largest requests, and leaves the rest to the next ones', () => {
    const queue = Array.from({ length: 64 }, () => accept(10_000));
    const groups: number[] = [];
    while (queue.length > 0) groups.push(nextGroup(queue).length);
    expect(groups).toEqual(Array.from({ length: 32 }, () => 2));
  });

  it('is never dearer than the bound, whatever is mixed, unless it is a single op', () => {
    const sizes = [1, 30, 10_000, 1, 4_000, 1, 1, 9_999, 2, 700];
    const queue = Array.from({ length: 500 }, (_, n) => accept(sizes[n % sizes.length] as number));
    let taken = 0;
    while (queue.length > 0) {
      const group = nextGroup(queue);
      expect(group.length).toBeGreaterThan(0);
      if (group.length > 1) expect(weight(group)).toBeLessThanOrEqual(GROUP);
      taken += group.length;
    }
    expect(taken).toBe(500);
  });

  it('takes what is dearer than the bound alone, and nothing of an empty queue', () => {
    const queue = [accept(100_000), small];
    expect(nextGroup(queue)).toHaveLength(1);
    expect(nextGroup(queue)).toEqual([small]);
    expect(nextGroup(queue)).toEqual([]);
  });

  it('counts what is claimed, and a step of the sweep, for what they cost', () => {
    const claim = { op: ['claim', { lane: 1, limit: 200, leaseMs: 1 }] as Op };
    const queue = [claim, claim, { op: ['sweep', null] as Op }, ...Array.from({ length: 2000 }, () => small)];
    expect(nextGroup(queue)).toHaveLength(3 + GROUP - 402 - weightOf(['sweep', null]));
  });
});

describe('the write-ahead log', () => {
  const never = (): never => {
    throw new Error('looked without need');
  };

  it('is left alone while it is small, without a look', () => {
    expect(restartsLog(64 * MIB, 64 * MIB, never)).toBe(false);
  });

  it('is started anew by the writer when the background has left it little', () => {
    expect(restartsLog(65 * MIB, 64 * MIB, () => RESTART_PAGES)).toBe(true);
    expect(restartsLog(65 * MIB, 64 * MIB, () => RESTART_PAGES + 1)).toBe(false);
  });

  it('is started anew at any cost when it is far too large', () => {
    expect(restartsLog(LOG_MOST * 64 * MIB + 1, 64 * MIB, never)).toBe(true);
  });
});
