/**
 * Retention on both engines with a clock of the test's own: by age, by number, what must stay whatever its age, and a size
 * that stays flat over weeks. PostgreSQL needs POSTCARD_TEST_POSTGRES (see postgres.test.ts) and is left out without it.
 */
import { DatabaseSync } from 'node:sqlite';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ownDatabase, SERVER } from '../postgres.ts';
import { accepted, DAY, type Desk, type Harness, HOUR, MINUTE, numbers, openDesk, REFUSED, SECOND } from './desk.ts';
import { openMoving } from './postgres.harness.ts';
import { openSynchronous } from './sqlite.harness.ts';

const URL_ = 'https://shop.example/reports';
const START = Date.UTC(2026, 10, 24, 12);

interface Kept {
  retentionMs: number;
  retentionMessages?: number;
}

interface Measured extends Harness {
  /** Bytes on disk once what is free can be used again. */
  size(): Promise<number>;
}

interface Engine {
  name: string;
  leftOut: boolean;
  /** Messages of a day where weeks pass. */
  daily: number;
  open(kept: Kept): Promise<Measured>;
}

const sqlite: Engine = {
  name: 'SQLite',
  leftOut: false,
  daily: 400,
  async open(kept) {
    const h = await openSynchronous({ now: START, ...kept });
    return {
      ...h,
      async size() {
        const db = new DatabaseSync(h.file, { readOnly: true });
        try {
          return (db.prepare('PRAGMA page_count').get() as { page_count: number }).page_count * 4096;
        } finally {
          db.close();
        }
      },
    };
  },
};

const database = ownDatabase('retention');
const LOOKING = `SELECT count(*)::int AS others FROM pg_stat_activity
  WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()`;
const postgres: Engine = {
  name: 'PostgreSQL',
  leftOut: !SERVER,
  daily: 80,
  async open(kept) {
    const h = await openMoving(database, { now: START, ...kept });
    return {
      ...h,
      async size() {
        // What autovacuum does by itself, at a moment of its own. Whoever looks at these tables meanwhile (autovacuum's own ANALYZE) keeps
        // what is dead from being room again.
        await expect
          .poll(async () => (await database.query(LOOKING))[0], { interval: 50, timeout: 60_000 })
          .toEqual({ others: 0 });
        await database.query('VACUUM');
        const [row] = await database.query<{ bytes: string }>(
          `SELECT sum(pg_total_relation_size(c.oid)) AS bytes FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = '${h.schema}' AND c.relkind = 'r'`,
        );
        return Number(row?.bytes);
      },
    };
  },
};
beforeAll(async () => {
  if (SERVER) await database.make();
});
afterAll(async () => {
  if (SERVER) await database.drop();
});

for (const engine of [sqlite, postgres]) {
  describe.skipIf(engine.leftOut)(`retention on ${engine.name}`, () => {
    let h: Measured;
    let desk: Desk;
    const open = async (kept: Kept): Promise<void> => {
      h = await engine.open(kept);
      desk = await openDesk(h);
    };
    afterEach(() => h.close());

    /** Accepts, submits, reports and tells `count` messages, `each` a request. */
    async function life(count: number, each: number): Promise<number[]> {
      const nos: number[] = [];
      for (let left = count; left > 0; left -= each) {
        nos.push(...(await desk.accept({ to: numbers(Math.min(each, left)), endpoint: URL_ })).nos);
      }
      await desk.settleAll((claim) => accepted(`m${claim.leader}`));
      await Promise.all(nos.map((no) => desk.report(`m${no}`, 'retrieved')));
      await tell();
      return nos;
    }

    async function tell(): Promise<void> {
      for (;;) {
        const { webhooks } = await desk.webhooks();
        if (webhooks.length === 0) return;
        await Promise.all(webhooks.map((webhook) => desk.answer(webhook, true)));
      }
    }

    /** Everything that retention has to do by now. */
    async function retain(): Promise<void> {
      h.advance(2 * MINUTE);
      await desk.sweep();
      h.advance(2 * MINUTE);
      await desk.sweep();
    }

    it('keeps no more finished messages than it may, and gives up the oldest', async () => {
      await open({ retentionMs: 30 * DAY, retentionMessages: 1000 });
      const many = await life(1500, 50);
      const single = await life(30, 1);
      await retain();
      const left = await desk.logs({ limit: 5000 });
      expect(left.length).toBeLessThanOrEqual(1000);
      // Whole requests of 50 leave, for a count of 990.
      expect(left.length).toBeGreaterThanOrEqual(940);
      expect(left).toEqual([...many, ...single].reverse().slice(0, left.length));
      // What comes in later makes as much room.
      await life(600, 10);
      h.advance(HOUR);
      await retain();
      expect((await desk.logs({ limit: 5000 })).length).toBeLessThanOrEqual(1000);
    });

    it('keeps to that within minutes though the numbers were given out long before, as the door reserves them', async () => {
      await open({ retentionMs: 30 * DAY, retentionMessages: 1000 });
      let next = await h.store.reserve(10_000);
      h.store.reserve = async (count) => {
        next += count;
        return next - count;
      };
      await life(900, 50);
      await retain();
      await life(600, 50);
      await retain();
      expect((await desk.logs({ limit: 5000 })).length).toBeLessThanOrEqual(1000);
    });

    it('gives up none while there are not too many', async () => {
      await open({ retentionMs: 30 * DAY, retentionMessages: 1000 });
      await life(985, 197);
      await retain();
      h.advance(2 * HOUR);
      await retain();
      expect(await desk.logs({ limit: 5000 })).toHaveLength(985);
    });

    it('keeps what is not final, not told or not pulled, and a customer’s id for 48 h, however many there are', async () => {
      await open({ retentionMs: 30 * DAY, retentionMessages: 100 });
      const waits = await desk.one({ sendAt: h.now() + 3 * DAY });
      const { nos: unpulled } = await desk.accept({ to: ['1'], refused: [[0, 52]] });
      const keyed = await desk.delivered({ keys: [[0, 'mine']], endpoint: URL_ });
      await tell();
      const untold = await desk.delivered({ endpoint: 'https://silent.example/' });
      const held = (await desk.webhooks()).webhooks;
      expect(held.map((webhook) => webhook.events.map((event) => event.no))).toEqual([[untold]]);
      await life(500, 5);
      await retain();
      const must = [waits, unpulled[0] as number, keyed, untold];
      let left = await desk.logs({ limit: 5000 });
      expect(left.filter((no) => must.includes(no)).sort((a, b) => a - b)).toEqual(must);
      expect(left.length).toBeLessThanOrEqual(100 + must.length);
      expect((await desk.accept({ keys: [[0, 'mine']] })).answer).toMatchObject({ duplicates: [expect.any(Number)] });

      for (const webhook of held) await desk.answer(webhook, true);
      expect((await desk.pull()).map((event) => event.no)).toContain(unpulled[0]);
      h.advance(48 * HOUR + SECOND);
      await life(500, 5);
      await retain();
      left = await desk.logs({ limit: 5000 });
      expect(left.filter((no) => must.includes(no))).toEqual([waits]);
    });

    it('an exhausted webhook keeps its message for its time', async () => {
      await open({ retentionMs: 7 * DAY, retentionMessages: 50 });
      const silent = await desk.delivered({ endpoint: 'https://dead.example/' });
      for (let n = 0; n < 21; n++) {
        for (const webhook of (await desk.webhooks()).webhooks) await desk.answer(webhook, false, '{}');
        h.advance(7 * HOUR);
      }
      expect(await h.store.stats()).toMatchObject({ webhooksExhausted: 1, webhooksWaiting: 0 });
      await life(300, 3);
      await retain();
      expect(await desk.logs({ limit: 5000 })).toContain(silent);
      expect(await h.store.stats()).toMatchObject({ webhooksExhausted: 1 });
    });

    it('the size stays flat once messages begin to leave', async () => {
      await open({ retentionMs: 3 * DAY });
      const sizes: number[] = [];
      const bulk: number[] = [];
      for (let day = 0; day < 16; day++) {
        await life(engine.daily / 2, 1);
        await life(engine.daily / 2, engine.daily / 10);
        // All that else comes and goes: refusals that nobody pulls, bulks, keys, idempotency, retries.
        await desk.accept({
          to: ['1', '2'],
          refused: [
            [0, 52],
            [1, 52],
          ],
          keys: [[0, `k${day}`]],
        });
        bulk.push(
          ...(await desk.accept({ to: numbers(20), bulkId: `b${day}`, idem: { key: `i${day}`, hash: 'h' } })).nos,
        );
        await desk.settleAll(() => REFUSED);
        for (let part = 0; part < 4; part++) {
          h.advance(6 * HOUR);
          await retain();
        }
        sizes.push(await h.size());
      }
      const left = await desk.logs({ limit: 10_000 });
      expect(left.length).toBeLessThan(5 * (engine.daily + 22));
      expect(left.length).toBeGreaterThanOrEqual(2 * (engine.daily + 22));
      // By day 6 everything that was kept has its room; after it nothing may be added but what a page more or less is.
      const settled = sizes[6] as number;
      expect(Math.max(...sizes.slice(7)), sizes.join(' ')).toBeLessThanOrEqual(settled * 1.05);
      expect(settled).toBeGreaterThan(sizes[0] as number);
    }, 240_000);
  });
}
