/** Buckets of time, and the places at a door under load, by simulated services whose time is arithmetic. */
import { describe, expect, it } from 'vitest';
import { bucketOf, DAY_MS, floodTakes, leaseOf, MINUTE_MS, Places, spendBucket } from './limits.ts';

describe('buckets', () => {
  it('begin and end with the minute, the day and the month in UTC', () => {
    const at = Date.UTC(2026, 1, 28, 23, 59, 59, 999);
    expect(bucketOf(at, MINUTE_MS).endsAt).toBe(at + 1);
    expect(bucketOf(at, DAY_MS).endsAt).toBe(Date.UTC(2026, 2, 1));
    expect(spendBucket({ amount: 1, per: 'MONTH', since: 7 }, at).endsAt).toBe(Date.UTC(2026, 2, 1));
    expect(spendBucket({ amount: 1, per: 'MONTH', since: 7 }, at + 1).endsAt).toBe(Date.UTC(2026, 3, 1));
    expect(spendBucket({ amount: 1, per: 'MONTH', since: 7 }, Date.UTC(2026, 11, 31)).bucket + 1).toBe(
      spendBucket({ amount: 1, per: 'MONTH', since: 7 }, Date.UTC(2027, 0, 1)).bucket,
    );
    expect(spendBucket({ amount: 1, per: 'TOTAL', since: 7 }, at).bucket).toBe(
      spendBucket({ amount: 1, per: 'TOTAL', since: 7 }, at + 400 * DAY_MS).bucket,
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
    places.leave(account, { ms: at - began, waited: 0 }, at);
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
    places.enter(account, now);
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

  it('refuse nobody who waits for the own answers, however many these are, while all find a place', () => {
    const places = new Places();
    // 200 connections that never pause, before a service that does 500 a second: each waits 400 ms.
    const began: number[] = Array.from({ length: 200 }, () => clock);
    for (const _ of began) {
      expect(places.free(1, clock)).toBe(true);
      places.enter(1, clock);
    }
    for (let n = 0; n < 5_000; n++) {
      clock += 2;
      places.leave(1, { ms: clock - (began.shift() as number), waited: 0 }, clock);
      expect(places.free(1, clock)).toBe(true);
      places.enter(1, clock);
      began.push(clock);
    }
  });

  it('follow a jump within 100 ms of what they let in before it', () => {
    const places = new Places();
    const service = { rate: 1_000, base: 5 };
    load(places, { ...service, demand: 250, seconds: 20 });
    const first = places.places;
    load(places, { ...service, demand: 10_000, seconds: 0.1 });
    // Those that filled the door are answered in `first` ms; the places are fewer long before.
    expect(places.places).toBeLessThan(first / 2);
    load(places, { ...service, demand: 10_000, seconds: 0.4 });
    expect(places.places).toBeLessThanOrEqual(16);
  });

  it('are no fewer for what was refused for its words, which takes no time', () => {
    const places = new Places();
    const took: [number, number][] = [];
    for (let n = 0; n < 20_000; n++) {
      clock += 1;
      while (took[0] && (took[0][1] as number) <= clock) {
        const [began, at] = took.shift() as [number, number];
        places.leave(1, { ms: at - began, waited: 0 }, at);
      }
      places.enter(1, clock);
      places.leave(1, null, clock);
      if (!places.free(1, clock)) continue;
      places.enter(1, clock);
      took.push([clock, clock + 30]);
    }
    clock += 30;
    for (const _ of took) places.leave(1, { ms: 30, waited: 0 }, clock);
    const over = load(places, { rate: 500, base: 30, demand: 5_000, seconds: 20 });
    expect(over.done).toBeGreaterThan(500 * 10 * 0.9);
  });

  it('let an account have all of them while it is alone, and keep some for others while they ask', () => {
    const places = new Places();
    const most = places.places;
    for (let n = 0; n < most; n++) {
      expect(places.free(1, 0)).toBe(true);
      places.enter(1, 0);
    }
    expect([places.free(1, 0), places.free(2, 0)]).toEqual([false, true]);
    places.leave(1, null, 10);
    expect([places.free(1, 10), places.free(2, 10)]).toEqual([false, true]);
    for (let n = 0; n < most / 4; n++) places.leave(1, null, 20);
    expect(places.free(1, 20)).toBe(true);
    // Nobody else has asked for a while.
    for (let n = 1; n < most / 4; n++) places.enter(1, 30);
    expect([places.free(1, 30), places.free(1, 2_500)]).toEqual([false, true]);
  });

  it('let a quiet account in while the places become fewer than the noisy one holds, and few such guests in all', () => {
    const places = new Places();
    places.free(2, 0);
    let inside = 0;
    for (; places.free(1, 1); inside++) places.enter(1, 1);
    // 16 answers of a second each: nearly no places are left, and the noisy one holds hundreds.
    let now = 1;
    while (places.places > 16) {
      now += 100;
      expect(places.free(1, now)).toBe(false);
      for (let n = 0; n < 16 && inside > 40; n++, inside--) places.leave(1, { ms: 1_000, waited: 0 }, now);
      if (inside <= 40) break;
    }
    expect(places.under).toBeGreaterThanOrEqual(places.places);
    let guests = 0;
    for (let account = 100; account < 200; account++) {
      if (!places.free(account, now)) continue;
      places.enter(account, now);
      guests++;
    }
    expect(guests).toBe(Math.ceil(places.places / 2));
    for (let account = 100; account < 100 + guests; account++) places.leave(account, null, now);
    expect(places.free(300, now)).toBe(true);
  });

  it('have room for a quiet account, however many noisy ones ask without a pause', () => {
    const places = new Places();
    const inside: { account: number; until: number; began: number }[] = [];
    let [asked, refused, free] = [0, 0, 0];
    for (let n = 0; n < 200_000; n++) {
      // Ten ask each half a millisecond in turn, 1 000 a second are answered; one asks 20 times a second.
      const now = 1_000_000 + n / 2;
      while (inside[0] && inside[0].until <= now) {
        const { account, until, began } = inside.shift() as (typeof inside)[number];
        places.leave(account, { ms: until - began, waited: 0 }, until);
      }
      const quiet = n % 100 === 0;
      const account = quiet ? 99 : n % 10;
      const allowed = places.free(account, now);
      if (quiet && n > 20_000) asked++;
      if (quiet && n > 20_000 && !allowed) refused++;
      if (!allowed) continue;
      places.enter(account, now);
      free = Math.max(free, now) + 1;
      inside.push({ account, until: free + 5, began: now });
    }
    expect(asked).toBeGreaterThan(1_000);
    expect(refused / asked).toBeLessThan(0.02);
  });
});
