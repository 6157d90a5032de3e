/** Buckets of time, and the places at a door under load, by simulated services whose time is arithmetic. */
import { describe, expect, it } from 'vitest';
import { bucketOf, DAY_MS, floodTakes, leaseOf, MINUTE_MS, Places, spendBucket } from './limits.ts';

describe('buckets', () => {
  it('begin and end with the minute, the day and the month in UTC', () => {
    const at = Date.UTC(2026, 1, 28, 23, 59, 59, 999);
    expect(bucketOf(at, MINUTE_MS).endsAt).toBe(at + 1);
    expect(bucketOf(at, DAY_MS).endsAt).toBe(Date.UTC(2026, 2, 1));
    expect(spendBucket({ amount: 1, per: 'MONTH' }, at).endsAt).toBe(Date.UTC(2026, 2, 1));
    expect(spendBucket({ amount: 1, per: 'MONTH' }, at + 1).endsAt).toBe(Date.UTC(2026, 3, 1));
    expect(spendBucket({ amount: 1, per: 'MONTH' }, Date.UTC(2026, 11, 31)).bucket + 1).toBe(
      spendBucket({ amount: 1, per: 'MONTH' }, Date.UTC(2027, 0, 1)).bucket,
    );
    expect(spendBucket({ amount: 1, per: 'TOTAL' }, at).bucket).toBe(
      spendBucket({ amount: 1, per: 'TOTAL' }, at + 400 * DAY_MS).bucket,
    );
  });

  it('of the flooding rule cover every hour, wherever it begins', () => {
    for (let from = 0; from < 600_000; from += 7_919) {
      const [first] = floodTakes(1, '4179', 'x', from);
      const [last] = floodTakes(1, '4179', 'x', from + 3_599_999);
      expect(last.bucket - last.buckets).toBeLessThan(first.bucket);
    }
  });

  it('are leased by the fiftieth, and never by less than one', () => {
    expect([leaseOf(1), leaseOf(49), leaseOf(50), leaseOf(5_000)]).toEqual([1, 1, 1, 100]);
  });
});

let clock = 0;

/**
 * A door before a service that answers `rate` requests a second, one after the other, each `base` ms after its turn; `demand`
 * requests a second ask, of `accounts`. Gives the p99 of those let in, and how many were, of the last half.
 */
function load(
  places: Places,
  {
    rate,
    base,
    demand,
    seconds,
    accounts = 1,
  }: Record<'rate' | 'base' | 'demand' | 'seconds', number> & { accounts?: number },
) {
  const took: number[] = [];
  const ends: { at: number; began: number; account: number }[] = [];
  const start = clock;
  let free = start;
  let refused = 0;
  const leave = ({ at, began, account }: (typeof ends)[number]): void => {
    places.leave(account, at - began, at);
    if (began > start + (seconds * 1000) / 2) took.push(at - began);
  };
  for (let n = 0; n < demand * seconds; n++) {
    const now = start + (n * 1000) / demand;
    while (ends[0] && ends[0].at <= now) leave(ends.shift() as (typeof ends)[number]);
    const account = n % accounts;
    if (!places.free(account, now)) {
      refused++;
      continue;
    }
    places.enter(account);
    free = Math.max(free, now) + 1000 / rate;
    ends.push({ at: free + base, began: now, account });
  }
  ends.forEach(leave);
  clock = start + (seconds + 10) * 1000;
  const sorted = took.sort((a, b) => a - b);
  return { p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0, done: took.length, refused };
}

describe('places', () => {
  it.each([
    ['a quick disk, one account', { rate: 4_000, base: 8, accounts: 1 }],
    ['a quick disk, three accounts', { rate: 4_000, base: 8, accounts: 3 }],
    ['a slow disk, one account', { rate: 500, base: 30, accounts: 1 }],
    ['a slow disk, five accounts', { rate: 500, base: 30, accounts: 5 }],
  ])('refuse nobody in calm, and keep the pace of those let in at ten times the load: %s', (_name, service) => {
    const places = new Places();
    const calm = load(places, { ...service, demand: service.rate * 0.5, seconds: 20 });
    expect(calm.refused).toBe(0);
    const over = load(places, { ...service, demand: service.rate * 10, seconds: 20 });
    expect(over.refused).toBeGreaterThan(0);
    // Three times the calm p99, or half as much again as the 40 ms that are never too slow.
    expect(over.p99).toBeLessThan(Math.max(3 * calm.p99, 60));
    // And the service is not left idle: nine tenths of what it can do is done.
    expect(over.done).toBeGreaterThan(service.rate * 10 * 0.9);
  });

  it('come back when the load has gone', () => {
    const places = new Places();
    load(places, { rate: 500, base: 30, demand: 5_000, seconds: 10 });
    expect(places.places).toBeLessThan(64);
    expect(load(places, { rate: 4_000, base: 5, demand: 3_500, seconds: 60 }).refused).toBe(0);
  });

  it('do not stay few on a disk that is slow by nature', () => {
    // 200 ms for anything, however many at once: nothing waits for anything else.
    const places = new Places();
    load(places, { rate: 1_000_000, base: 200, demand: 1_000, seconds: 120 });
    expect(load(places, { rate: 1_000_000, base: 200, demand: 1_000, seconds: 60 }).done).toBeGreaterThan(25_000);
  });

  it('let an account have all of them while it is alone, and half of them while others ask', () => {
    const places = new Places();
    for (let n = 0; n < places.places; n++) {
      expect(places.free(1, 0)).toBe(true);
      places.enter(1);
    }
    expect([places.free(1, 0), places.free(2, 0)]).toEqual([false, false]);
    places.leave(1, 1, 10);
    expect([places.free(1, 10), places.free(2, 10)]).toEqual([false, true]);
    // Nobody else has asked for a while.
    expect([places.free(1, 1_500), places.free(1, 5_000)]).toEqual([false, true]);
  });
});
