import { describe, expect, it } from 'vitest';
import { markOf, newestFirst, numbersIn, packBlock } from './sought.ts';

const BUCKETS = 64;
const messages = Array.from({ length: 4096 }, (_, n) => ({
  no: 2 ** 47 + n * 3,
  account: 1 + (n % 3),
  to: n % 5 === 0 ? 'nobody' : String(41_790_000_000 + (n % 1_000)),
}));

function search(account: number, to: string, before = Number.MAX_SAFE_INTEGER): number[] {
  const { spread, mark } = markOf(account, to);
  const found: number[] = [];
  for (const { bucket, body } of packBlock(messages, BUCKETS)) {
    if (bucket === spread % BUCKETS) numbersIn(body, mark, before, found);
  }
  return newestFirst(found);
}

describe('marks of destinations', () => {
  it('find all messages of an account to a number, and no others', () => {
    for (const [account, to] of [
      [1, 'nobody'],
      [2, '41790000007'],
      [3, '41790000998'],
    ] as const) {
      const wanted = messages.filter((one) => one.account === account && one.to === to).map((one) => one.no);
      expect(wanted.length).toBeGreaterThan(0);
      expect(search(account, to)).toEqual(wanted.reverse());
    }
    expect(search(4, 'nobody')).toEqual([]);
    expect(search(1, '41790000007x')).toEqual([]);
  });

  it('end below a place', () => {
    const all = search(1, 'nobody');
    expect(search(1, 'nobody', all[3])).toEqual(all.slice(4));
  });

  it('stay what they are: rows of other versions must be read', () => {
    expect(markOf(1, '41793026727')).toEqual({ spread: 3441236849, mark: 263313278 });
  });

  it('spread numbers that follow one another evenly', () => {
    const sizes = packBlock(
      Array.from({ length: 6400 }, (_, n) => ({ no: n, account: 1, to: String(491_710_000_000 + n) })),
      BUCKETS,
    ).map(({ body }) => body.byteLength / 10);
    expect(sizes).toHaveLength(BUCKETS);
    expect(Math.max(...sizes)).toBeLessThan(150);
    const marks = new Set(Array.from({ length: 100_000 }, (_, n) => markOf(1, String(41_790_000_000 + n)).mark));
    expect(marks.size).toBeGreaterThan(99_990);
  });
});
