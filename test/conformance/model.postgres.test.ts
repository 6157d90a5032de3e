/**
 * Random histories on the PostgreSQL engine and the model side by side. Needs a server where databases may be created:
 * POSTCARD_TEST_POSTGRES=postgres://...; left out without it.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe } from 'vitest';
import { realEnv } from '../../src/env.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import type { Harness } from './desk.ts';
import { modelSuite } from './model.suite.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
const env = realEnv({ level: 'silent' });
const database = `postcard_model_${randomBytes(5).toString('hex')}`;
let schemas = 0;

function urlOf(name: string): string {
  const url = new URL(SERVER as string);
  url.pathname = `/${name}`;
  return url.href;
}

async function query(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

async function open(): Promise<Harness> {
  const schema = `s${++schemas}`;
  let now = Date.UTC(2026, 10, 24, 12);
  const node = () =>
    openPostgres({
      url: urlOf(database),
      schema,
      node: 'test',
      retentionMs: 7 * 86_400_000,
      log: env.log,
      clock: env.clock,
      testNow: () => now,
      soughtBlock: 5,
    });
  let store = await node();
  return {
    get store() {
      return store;
    },
    advance(ms) {
      now += ms;
    },
    now: () => now,
    async crash() {
      await store.close();
      store = await node();
      // The leases of a dead node end by time here; a crash of the history means that they have.
      await query(
        urlOf(database),
        `UPDATE ${schema}.flight SET lease_until = 0`,
        `UPDATE ${schema}.hook SET due_at = 0 WHERE leased`,
        // In the order of the others, all of it long due.
        `UPDATE ${schema}.media SET due_at = spec * 100 + segment WHERE due_at IS NOT NULL AND tries = 0`,
      );
    },
    async close() {
      await store.close();
      await query(urlOf(database), `DROP SCHEMA ${schema} CASCADE`);
    },
  };
}

describe.skipIf(!SERVER)('histories', () => {
  beforeAll(() => query(SERVER as string, `CREATE DATABASE ${database}`));
  afterAll(() => query(SERVER as string, `DROP DATABASE ${database} WITH (FORCE)`));

  modelSuite('PostgreSQL engine', open, { runs: 8, every: 10 });
});
