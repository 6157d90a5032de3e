/** Where the looks of the sweep begin: behind what is done, and never behind what is not. */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../../env.ts';
import { type Bounds, type Found, Heads, type HookBounds, type HookFound, HookHeads } from './heads.ts';

const NOTHING = { lease: null, deadline: null, look: null, tally: null, tallied: 0 };

/** A sweep over a server where a look from the very beginning takes 50 ms; it has what `rows` says. */
function setup() {
  const env = testEnv();
  const heads = new Heads(env.clock);
  const asked: Bounds[] = [];
  const rows: Omit<Found, 'now'> = { ...NOTHING };
  const look = async (): Promise<Found> => {
    const looking = heads.look(async (bounds, all) => {
      asked.push(bounds);
      if (all) await env.clock.sleep(50);
      const from = (value: number | null, bound: number) => (value !== null && value >= bound ? value : null);
      return {
        now: 1_000_000 + env.clock.monotonic(),
        lease: from(rows.lease, bounds.lease),
        deadline: from(rows.deadline, bounds.deadline),
        look: from(rows.look, bounds.look),
        tally: rows.tally !== null && rows.tally > bounds.tally ? rows.tally : null,
        tallied: rows.tallied,
      };
    });
    await env.clock.advance(50);
    return looking;
  };
  return { env, heads, asked, rows, look };
}

describe('the heads of the sweep', () => {
  it('are looked at from the very beginning for a hundredth of the time only', async () => {
    const { env, asked, look } = setup();
    for (let n = 0; n < 200; n++) {
      await look();
      await env.clock.advance(50);
    }
    // 20 s, a full look every 5 s.
    const full = asked.filter((bounds) => bounds.lease === 0).length;
    expect(full).toBeGreaterThanOrEqual(4);
    expect(full).toBeLessThanOrEqual(6);
  });

  it('begin at the earliest lease there is, or a lease from now', async () => {
    const { heads, asked, rows, look } = setup();
    heads.leased(45_000);
    rows.lease = 1_020_000;
    await look();
    await look();
    expect(asked[1]?.lease).toBe(1_015_000);
    rows.lease = null;
    await look();
    const { now } = await look();
    expect(asked[3]?.lease).toBeGreaterThan(now + 39_000);
    // One that is claimed now is found.
    rows.lease = now + 45_000;
    expect((await look()).lease).toBe(rows.lease);
  });

  it('find a deadline that is set for now, however far away the others are', async () => {
    const { rows, look } = setup();
    rows.deadline = 9_000_000;
    await look();
    const { now } = await look();
    rows.deadline = now;
    expect((await look()).deadline).toBe(now);
  });

  it('find what was written for long ago within ten seconds', async () => {
    const { env, rows, look } = setup();
    await look();
    rows.deadline = 5;
    expect((await look()).deadline).toBe(null);
    await env.clock.advance(10_000);
    expect((await look()).deadline).toBe(5);
    // From then on at once.
    expect((await look()).deadline).toBe(5);
  });

  it('follow the figures that were folded, five seconds behind', async () => {
    const { env, asked, rows, look } = setup();
    for (let n = 1; n <= 120; n++) {
      rows.tallied = n * 10;
      await look();
      await env.clock.advance(50);
    }
    const last = asked.at(-1)?.tally ?? 0;
    expect(last).toBeGreaterThan(100);
    expect(last).toBeLessThanOrEqual(700);
    // One that was committed a little late.
    rows.tally = 1000;
    expect((await look()).tally).toBe(1000);
  });
});

describe('figures that are committed late', () => {
  it('are folded, also where one that is older still comes after them', async () => {
    const { env, heads, rows, look } = setup();
    rows.tallied = 100;
    for (let n = 0; n < 8; n++) {
      await look();
      await env.clock.advance(1_000);
    }
    expect(heads.now.tally).toBe(100);
    // Each look is one at all.
    for (const no of [50, 30]) {
      await env.clock.advance(10_000);
      rows.tally = no;
      expect((await look()).tally).toBe(no);
      expect(heads.now.tally).toBeLessThan(no);
    }
  });
});

describe('the heads of the outbox', () => {
  /** An outbox where a look from the very beginning takes 50 ms. */
  function outbox() {
    const env = testEnv();
    const heads = new HookHeads(env.clock);
    const asked: HookBounds[] = [];
    const rows: Omit<HookFound, 'now'> = { wake: null, given: 0, lease: null, due: null };
    const look = async (): Promise<HookFound> => {
      const looking = heads.look(async (bounds) => {
        asked.push(bounds);
        if (bounds.due === 0) await env.clock.sleep(50);
        const from = (value: number | null, bound: number) => (value !== null && value >= bound ? value : null);
        return {
          now: 1_000_000 + env.clock.monotonic(),
          wake: from(rows.wake, bounds.wake + 1),
          given: rows.given,
          lease: from(rows.lease, bounds.lease),
          due: from(rows.due, bounds.due),
        };
      });
      await env.clock.advance(50);
      return looking;
    };
    return { env, heads, asked, rows, look };
  }

  it('begin behind the wakes that were gone a while ago', async () => {
    const { env, heads, rows, look } = outbox();
    rows.given = 100;
    await look();
    // Given before, committed a moment later.
    rows.wake = 90;
    expect((await look()).wake).toBe(90);
    rows.wake = null;
    await look();
    expect(heads.now.wake).toBe(0);
    await env.clock.advance(5_000);
    rows.given = 200;
    await look();
    expect(heads.now.wake).toBe(100);
  });

  it('see a wake that is committed long after younger ones were taken, with a look at all', async () => {
    const { env, asked, rows, look } = outbox();
    rows.given = 100;
    for (let n = 0; n < 8; n++) {
      await look();
      await env.clock.advance(1_000);
    }
    expect(asked.at(-1)?.wake).toBe(100);
    rows.wake = 50;
    const found: (number | null)[] = [];
    for (let n = 0; n < 12; n++) {
      found.push((await look()).wake);
      await env.clock.advance(1_000);
    }
    expect(found.filter((wake) => wake === 50).length).toBeGreaterThan(0);
    // Once it was seen it is not lost from sight.
    expect(found.slice(found.indexOf(50)).every((wake) => wake === 50)).toBe(true);
  });

  it('begin a little before the earliest that is due, or now', async () => {
    const { asked, rows, look, heads } = outbox();
    heads.leased(30_000);
    rows.due = 1_000_010;
    const { now } = await look();
    await look();
    expect(asked[1]?.due).toBe(1_000_010 - 5_000);
    expect(asked[1]?.lease).toBe(now + 25_000);
  });

  it('ask for what older nodes left every ten minutes', async () => {
    const { env, heads } = outbox();
    expect(heads.straying).toBe(true);
    // Step by step.
    heads.stray(500);
    expect([heads.straying, heads.strayed]).toEqual([true, 500]);
    heads.stray(null);
    expect([heads.straying, heads.strayed]).toEqual([false, 0]);
    await env.clock.advance(600_000);
    expect(heads.straying).toBe(true);
  });
});
