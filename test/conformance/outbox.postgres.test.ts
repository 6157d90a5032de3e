/**
 * The outbox on PostgreSQL where its looks do not begin at its head: what is committed late, what nodes of older versions leave, and what a
 * POST costs while somebody holds an old snapshot. Needs POSTCARD_TEST_POSTGRES (see postgres.test.ts) and is left out without it.
 */
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { STATEMENTS } from '../../src/store/postgres/tx.ts';
import { ownDatabase, SERVER } from '../postgres.ts';
import { type Desk, type Harness, MINUTE, openDesk } from './desk.ts';
import { openMoving } from './postgres.harness.ts';

const URL_ = 'https://shop.example/reports';

describe.skipIf(!SERVER)('the outbox on PostgreSQL', () => {
  const database = ownDatabase('outbox');
  let h: Harness & { schema: string };
  let desk: Desk;

  beforeAll(() => database.make());
  afterAll(() => database.drop());
  beforeEach(async () => {
    h = await openMoving(database, { now: Date.UTC(2026, 10, 24, 12), retentionMs: 1e12 });
    desk = await openDesk(h);
  });
  afterEach(() => h.close());

  const ask = <Row>(sql: string, values: unknown[] = []): Promise<Row[]> =>
    database.query<Row>(sql.replaceAll('@', `${h.schema}.`), values);

  /** Messages told by the POSTs that are due, which succeed. */
  async function told(): Promise<number[]> {
    const { webhooks } = await desk.webhooks();
    for (const webhook of webhooks) await desk.answer(webhook, true, 'b');
    return webhooks.flatMap(({ events }) => events.map(({ no }) => no));
  }

  /** The event of a message that nobody was told of, out of the outbox as if its transaction were still open. */
  async function heldBack(): Promise<{ no: number; endpoint: number; event: number }> {
    const no = await desk.delivered({ endpoint: URL_ });
    const [row] = await ask<{ endpoint: string; event: string }>('DELETE FROM @outbox RETURNING endpoint, event');
    await ask('DELETE FROM @endpoint_wake');
    return { no, endpoint: Number(row?.endpoint), event: Number(row?.event) };
  }

  async function tell(): Promise<void> {
    const later = await desk.delivered({ endpoint: URL_ });
    expect(await told()).toEqual([later]);
  }

  it('finds an event that is committed after younger ones were told', async () => {
    const { no, endpoint, event } = await heldBack();
    await tell();
    await ask('INSERT INTO @outbox (endpoint, event) VALUES ($1, $2)', [endpoint, event]);
    await ask('INSERT INTO @endpoint_wake (endpoint, event) VALUES ($1, $2)', [endpoint, event]);
    expect(await told()).toEqual([no]);
    await tell();
  });

  it('finds what a node of an older version tells of without saying which', async () => {
    const { no, endpoint, event } = await heldBack();
    await tell();
    await ask('INSERT INTO @outbox (endpoint, event) VALUES ($1, $2)', [endpoint, event]);
    await ask('INSERT INTO @endpoint_wake (endpoint) VALUES ($1)', [endpoint]);
    expect(await told()).toEqual([no]);
  });

  it('finds within minutes what a node of an older version has left, having taken its wake', async () => {
    const { no, endpoint, event } = await heldBack();
    await tell();
    await ask('INSERT INTO @outbox (endpoint, event) VALUES ($1, $2)', [endpoint, event]);
    expect(await told()).toEqual([]);
    h.advance(11 * MINUTE);
    expect(await told()).toEqual([no]);
    // And once only.
    h.advance(11 * MINUTE);
    expect(await told()).toEqual([]);
  });

  it('does not walk what was told before, while somebody holds an old snapshot', async () => {
    await tell();
    const other = new pg.Client({ connectionString: database.url });
    await other.connect();
    try {
      await other.query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class');
      // As if so many had been told of since.
      await ask('INSERT INTO @outbox SELECT no, generate_series(-20000, -1) FROM @endpoint');
      await ask('DELETE FROM @outbox');
      await desk.delivered({ endpoint: URL_ });
      const [endpoint] = await ask<{ no: string; low_event: string }>('SELECT no, low_event FROM @endpoint');
      const take = STATEMENTS.find(({ text }) => text.startsWith('DELETE FROM outbox'));
      /** Pages touched by the statement that forms a POST, from an event on. */
      const pages = async (low: string): Promise<number> => {
        const client = new pg.Client({ connectionString: database.url, options: `-c search_path=${h.schema}` });
        await client.connect();
        try {
          await client.query('SET enable_seqscan = off; BEGIN');
          const values = [`{${endpoint?.no}}`, '{100}', `{${low}}`];
          const { rows } = await client.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${take?.text}`, values);
          const { Plan: plan } = rows[0]['QUERY PLAN'][0];
          return plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
        } finally {
          await client.end();
        }
      };
      const all = await pages('-20000');
      const few = await pages(endpoint?.low_event as string);
      expect(all).toBeGreaterThan(100);
      expect(few).toBeLessThan(20);
    } finally {
      await other.end();
    }
  });
});
