/**
 * Nodes of two versions on one PostgreSQL (G19): the older one's statements on the newer one's tables, and what only the newer one can
 * submit passed over by the older. What the older one is: `older.ts`.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { realEnv } from '../../src/env.ts';
import { LEVEL } from '../../src/store/postgres/inside.ts';
import { openPostgres, type PostgresStore } from '../../src/store/postgres/postgres.ts';
import { ownDatabase, SERVER } from '../postgres.ts';
import { createDesk, type Desk } from './desk.ts';
import { type Older, olderEngine } from './older.ts';

describe.skipIf(!SERVER)('two versions on one database', () => {
  const database = ownDatabase('upgrade');
  const env = realEnv({ level: 'silent' });
  let client: pg.Client;
  let store: PostgresStore;
  let desk: Desk;
  let dir: string;
  let older: Older;

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'postcard-older-'));
    older = await olderEngine(dir);
    await database.make();
    const { url } = database;
    const base = { url, retentionMs: 1e9, log: env.log, clock: env.clock };
    // The older one was here first, and left its functions.
    await (await older.openPostgres({ ...base, node: 'old' })).close();
    store = await openPostgres({ ...base, node: 'new' });
    client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query('SET search_path = postcard');
    const never = (): never => {
      throw new Error('not in these tests');
    };
    desk = createDesk({ store, advance: never, now: () => env.clock.now(), crash: never, close: () => store.close() });
    await desk.open();
  });
  afterAll(async () => {
    await client.end();
    await store.close();
    await database.drop();
    rmSync(dir, { recursive: true });
  });

  it('every statement of the older version finds its tables, columns and keys in these', async () => {
    const texts = older.statements;
    expect(texts.length).toBeGreaterThan(100);
    const refused: string[] = [];
    await client.query('SET plan_cache_mode = force_generic_plan');
    for (const text of texts) {
      try {
        await client.query(`PREPARE one AS ${text}`);
        const { rows } = await client.query(
          "SELECT cardinality(parameter_types) AS n FROM pg_prepared_statements WHERE name = 'one'",
        );
        const nulls = Array.from({ length: rows[0].n }, () => 'NULL').join(', ');
        // Planned, so that a key that ON CONFLICT names must be there.
        await client.query(`EXPLAIN EXECUTE one${rows[0].n > 0 ? `(${nulls})` : ''}`);
      } catch (error) {
        refused.push(`${(error as Error).message}: ${text.slice(0, 100)}`);
      }
      await client.query('DEALLOCATE ALL');
    }
    expect(refused).toEqual([]);
  });

  it('no column that came later must be given by the older version', async () => {
    const { rows } = await client.query(`SELECT table_name || '.' || column_name AS name FROM information_schema.columns
      WHERE table_schema = 'postcard' AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'`);
    const needed = new Set(rows.map((row: { name: string }) => row.name));
    for (const text of older.statements) {
      for (const [, table = '', columns = ''] of text.matchAll(/INSERT INTO (\w+)(?: AS \w+)? \(([^)]*)\)/g)) {
        const given = new Set(columns.split(',').map((column) => column.trim().replaceAll('"', '')));
        const missing = [...needed].filter(
          (name) => name.startsWith(`${table}.`) && !given.has(name.slice(table.length + 1)),
        );
        expect(missing).toEqual([]);
      }
    }
  });

  it('an upgrade that falls over a transaction at work is tried again', async () => {
    // What migrate() in schema.ts locks first.
    const lock = `SELECT pg_advisory_xact_lock(${0x7063_6d69_6772n})`;
    await client.query('BEGIN; LOCK TABLE postcard.schema_version IN ACCESS EXCLUSIVE MODE');
    const { url } = database;
    const base = { url, node: 'another', retentionMs: 1e9, log: env.log, clock: env.clock };
    const opened = openPostgres(base).catch((error: unknown) => error as Error);
    const waits = `SELECT 1 FROM pg_locks WHERE relation = 'postcard.schema_version'::regclass AND NOT granted`;
    while ((await client.query(waits)).rows.length === 0) await env.clock.sleep(20);
    // The upgrade has waited for longer, so it is the one that the server ends.
    await client.query(lock);
    await client.query('COMMIT');
    const another = await opened;
    expect(another).not.toBeInstanceOf(Error);
    await (another as PostgresStore).close();
  });

  it('a run that needs a newer version is passed over, costs its line nothing, and is there for the newer one', async () => {
    const [newer, ours] = [await desk.one(), await desk.one()];
    await client.query('UPDATE run SET needs = $2 WHERE no = $1', [newer, LEVEL + 1]);
    const claim = () => store.claim(desk.lane, 10, 45_000);
    expect((await claim()).claims.map((one) => one.leader)).toEqual([ours]);
    for (let n = 0; n < 20; n++) expect((await claim()).claims).toEqual([]);
    const { now, nextDue } = await claim();
    // Not due at once, which would be claims without end.
    expect(nextDue).toBeGreaterThan(now);
    const after = await desk.one();
    expect((await claim()).claims.map((one) => one.leader)).toEqual([after]);
    // By a node that can: the line is due as it was, without a wake.
    await client.query('UPDATE run SET needs = 0 WHERE no = $1', [newer]);
    await env.clock.sleep(600);
    expect((await claim()).claims.map((one) => one.leader)).toEqual([newer]);
  });
});
