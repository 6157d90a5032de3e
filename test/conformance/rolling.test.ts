/**
 * A rolling upgrade with the code of both versions (G19): two nodes on one PostgreSQL, one with the whole store engine of the version
 * before (`older.ts`), one with this one; every verb goes to either by chance, one of them dies now and
 * then. Whatever differs in what the two think best, the promises hold: no message twice in flight, one end each, told once,
 * never faster than the limit, figures that add up, nothing left behind.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { realEnv } from '../../src/env.ts';
import type { Claim, Store } from '../../src/store/contract.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import { Dice } from '../sim/clockwork.ts';
import { accepted, createDesk, DAY, DEFERRED, HOUR, LEASE, MINUTE, numbers, REFUSED, SECOND, UNKNOWN } from './desk.ts';
import { olderEngine } from './older.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
describe.skipIf(!SERVER)('the engine of the version before, beside this one', () => {
  const database = `postcard_rolling_${randomBytes(5).toString('hex')}`;
  const env = realEnv({ level: 'silent' });
  const url = new URL(SERVER ?? 'postgres://localhost/none');
  url.pathname = `/${database}`;
  let admin: pg.Client;
  let dir: string;
  let openOlder: typeof openPostgres;
  beforeAll(async () => {
    admin = new pg.Client({ connectionString: SERVER as string });
    await admin.connect();
    await admin.query(`CREATE DATABASE ${database}`);
    dir = mkdtempSync(join(tmpdir(), 'postcard-older-'));
    ({ openPostgres: openOlder } = await olderEngine(dir));
  });
  afterAll(async () => {
    await admin.query(`DROP DATABASE ${database} WITH (FORCE)`);
    await admin.end();
    rmSync(dir, { recursive: true });
  });

  it('calls nothing back that is only to be kept for longer', async () => {
    let now = Date.UTC(2026, 10, 24, 12);
    const base = {
      url: url.href,
      schema: 'kept',
      retentionMs: 7 * DAY,
      log: env.log,
      clock: env.clock,
      testNow: () => now,
    };
    const old = await openOlder({ ...base, node: 'older' });
    const store: Store = await openPostgres({ ...base, node: 'newer' });
    const none = async (): Promise<void> => undefined;
    const desk = createDesk({ store, advance: () => undefined, now: () => now, crash: none, close: none });
    await desk.open();
    await desk.accept({ to: numbers(2), bulkId: 'b', sendAt: now + HOUR, earlyMs: HOUR });
    const [taken, flying] = (await desk.claim()).claims as [Claim, Claim];
    await desk.settle(taken, accepted('t'));
    const later = now + 2 * HOUR;
    await store.bulkSteer(1, { id: 'b' }, [{ kind: 'reschedule', sendAt: later }]);
    await desk.sweep();
    await desk.settle(flying, accepted('f'));
    now += SECOND;
    expect(await old.callBacks(desk.lane, 10)).toEqual([]);
    expect((await store.callBacks(desk.lane, 10)).map((one) => [one.carrierMessageId, one.earliestAt])).toEqual([
      ['t', later],
      ['f', later],
    ]);
    await old.close();
    await store.close();
  });

  it.each([1, 2, 3, 4])(
    'keeps every promise while either serves by chance, and one of them dies (seed %i)',
    async (seed) => {
      const dice = new Dice(seed, 'rolling');
      let now = Date.UTC(2026, 10, 24, 12);
      const schema = `s${seed}`;
      const base = { url: url.href, schema, retentionMs: 7 * DAY, log: env.log, clock: env.clock, testNow: () => now };
      // The older one made the tables, with something in them; the newer one brings them up to date while it serves.
      const nodes: Store[] = [await openOlder({ ...base, node: 'older' })];
      const either = (): Store => dice.pick(nodes);
      const store = new Proxy({} as Store, {
        get: (_, verb: keyof Store) => (either() as unknown as Record<string, unknown>)[verb],
      });
      const none = async (): Promise<void> => undefined;
      const pass = (ms: number): void => {
        now += ms;
      };
      const desk = createDesk({ store, advance: pass, now: () => now, crash: none, close: none });
      await desk.open('retry');
      await store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
      const second = await store.lane('other', { onUnknown: 'hold', reports: true });
      const sms = await store.lane('smsc', { onUnknown: 'hold', reports: true });
      const lanes: [number, string][] = [
        [desk.lane, 'mmsc'],
        [second, 'other'],
        [sms, 'smsc'],
      ];

      /** What is in flight: until when its lease lasts. */
      const flying = new Map<number, { claim: Claim; lane: number; until: number }>();
      /** Turns of the limited bulk, microseconds. */
      const turns: number[] = [];
      const limited = new Set<number>();
      const all: number[] = [];
      const told = new Map<number, number>();
      const ids: [string, string][] = [];
      let next = 1;

      async function accept(): Promise<void> {
        const size = dice.int(1, 6);
        const to = numbers(size, next);
        next += size;
        const paced = dice.chance(0.3);
        const ways = dice.chance(0.5)
          ? { ways: { alts: [second], sms: { lane: sms, validityMs: HOUR } } }
          : dice.chance(0.3)
            ? { ways: { alts: [second] } }
            : {};
        const { answer, nos } = await desk.accept({
          to,
          ...(paced ? { bulkId: 'paced', every: 10 * SECOND } : dice.chance(0.4) ? { bulkId: 'free' } : {}),
          ...(size > 2 && dice.chance(0.3) ? { groups: [size] } : {}),
          ...(dice.chance(0.5) ? { endpoint: 'https://shop.example/', intermediate: dice.chance(0.5) } : {}),
          ...ways,
          validityMs: dice.pick([HOUR, 5 * HOUR]),
        });
        expect(answer.kind).toBe('accepted');
        all.push(...nos);
        if (paced) for (const no of nos) limited.add(no);
      }

      async function claim(): Promise<void> {
        const [lane] = dice.pick(lanes);
        const { claims } = await store.claim(lane, dice.pick([1, 5, 64]), LEASE);
        for (const one of claims) {
          const other = flying.get(Math.abs(one.leader));
          expect(other === undefined || other.until <= now, `${one.leader} is in flight twice`).toBe(true);
          flying.set(Math.abs(one.leader), { claim: one, lane, until: now + LEASE });
          if (one.paced && one.members.every(({ no }) => limited.has(no))) {
            for (const _ of one.members) turns.push(one.notBeforeUs);
          }
        }
      }

      async function settle(): Promise<void> {
        if (flying.size === 0) return;
        const [leader, { claim: one, lane, until }] = dice.pick([...flying]);
        flying.delete(leader);
        if (dice.chance(0.2)) {
          await store.release([one], now, dice.chance(0.5));
          if (one.paced) turns.length = 0;
          return;
        }
        const id = `id-${ids.length}`;
        const outcome = dice.pick([
          accepted(id),
          accepted(id),
          DEFERRED,
          REFUSED,
          UNKNOWN,
          { ...DEFERRED, elsewhere: true } as const,
        ]);
        const done = await desk.settle(one, outcome, lane);
        if (outcome.kind === 'accepted') ids.push([id, lanes.find(([no]) => no === lane)?.[1] as string]);
        if (until > now) expect(done, 'a settle within its lease counts').toBe(true);
      }

      async function report(): Promise<void> {
        if (ids.length === 0) return;
        const [id, carrier] = dice.pick(ids);
        const addresses = numbers(next, 1);
        await desk.report(id, dice.pick(['retrieved', 'retrieved', 'unreachable', 'deferred'] as const), {
          carrier,
          addresses,
        });
      }

      async function tell(): Promise<void> {
        for (const hook of (await desk.webhooks(dice.int(1, 5))).webhooks) {
          if (!(await desk.answer(hook, dice.chance(0.9), '{}'))) continue;
        }
        for (const row of await desk.pull()) {
          expect(told.has(row.event), `event ${row.event} is pulled twice`).toBe(false);
          told.set(row.event, row.no);
        }
      }

      const steps = [accept, claim, claim, claim, settle, settle, settle, report, report, tell];
      for (let n = 0; n < 160; n++) {
        // The upgrade begins.
        if (n === 20) nodes.push(await openPostgres({ ...base, node: 'newer' }));
        if (n === 60 || n === 100) {
          // One dies and is there again, as the version that it was (a process that runs goes on).
          if (n === 60) await nodes[1]?.close();
          if (n === 60) nodes[1] = await openPostgres({ ...base, node: 'newer' });
          await store.bulkSteer(1, { id: 'free' }, [{ kind: 'pause' }]);
        }
        if (n === 80 || n === 120) await store.bulkSteer(1, { id: 'free' }, [{ kind: 'resume' }]);
        await dice.pick(steps)();
        if (dice.chance(0.3)) await store.sweep();
        pass(dice.pick([0, 200, SECOND, 5 * SECOND, 30 * SECOND]));
        for (const [leader, { until }] of flying) if (until <= now) flying.delete(leader);
      }
      // The older one goes.
      await nodes.shift()?.close();
      for (let round = 0; round < 12; round++) {
        pass(HOUR);
        await desk.sweep();
        for (const [lane] of lanes) {
          for (const one of (await store.claim(lane, 1000, LEASE)).claims) await desk.settle(one, REFUSED, lane);
        }
        await tell();
      }
      for (let round = 0; round < 3; round++) {
        pass(2 * DAY);
        await desk.sweep();
      }
      for (let round = 0; round < 100; round++) {
        pass(MINUTE);
        const { webhooks } = await desk.webhooks(10);
        for (const hook of webhooks) await desk.answer(hook, true, '{}');
        if (webhooks.length === 0) break;
      }
      await tell();
      const interval = 10 * SECOND * 1000;
      const sorted = [...turns].sort((a, b) => a - b);
      for (let n = 1; n < sorted.length; n++) {
        const gap = (sorted[n] as number) - (sorted[n - 1] as number);
        // Members of a group leave together, in the first of their turns.
        if (gap > 0) expect(gap, 'faster than the limit').toBeGreaterThanOrEqual(interval);
      }
      for (const no of all) {
        const { message, events } = await desk.story(no);
        expect(message.doneAt, `message ${no} never ended`).not.toBeNull();
        const last = events.filter(({ kind }) => kind === 'status').at(-1);
        expect([last?.status, last?.error], `message ${no}`).toEqual([message.status, message.error]);
        expect(
          [...told.values()].filter((one) => one === no).length,
          `message ${no} is told twice`,
        ).toBeLessThanOrEqual(1);
      }
      for (const { no, progress } of (await store.bulkList(1, 100)).bulks) {
        const { accepted: count, waiting, sent, delivered, failed } = progress;
        expect([waiting, sent, delivered + failed], `bulk ${no}`).toEqual([0, 0, count]);
      }
      expect(await store.stats()).toMatchObject({ waiting: 0, inFlight: 0, retries: 0, webhooksWaiting: 0 });
      for (const node of nodes) await node.close();
    },
    240_000,
  );
});
