/**
 * Random histories on the PostgreSQL engine and the model side by side, as in sqlite.property.test.ts. Needs a server where
 * databases may be created: POSTCARD_TEST_POSTGRES=postgres://...; left out without it. POSTCARD_SEEDS sets how many.
 */
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import pg from 'pg';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { realEnv } from '../../src/env.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import type { Harness } from './desk.ts';
import { runHistory } from './model-histories.ts';
import { COUNTEREXAMPLES, history } from './model-steps.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
const env = realEnv({ level: 'silent' });
const database = `postcard_model_${randomBytes(5).toString('hex')}`;
/** Histories and the shrinking of a failure end here, on a slow machine with fewer. */
const LIMIT_MS = 120_000;
const runs = Number(process.env.POSTCARD_SEEDS ?? '8');
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
      );
    },
    async close() {
      await store.close();
      await query(urlOf(database), `DROP SCHEMA ${schema} CASCADE`);
    },
  };
}

describe.skipIf(!SERVER)('the PostgreSQL engine answers like the model', () => {
  beforeAll(() => query(SERVER as string, `CREATE DATABASE ${database}`));
  afterAll(() => query(SERVER as string, `DROP DATABASE ${database} WITH (FORCE)`));

  for (const [words, steps] of COUNTEREXAMPLES) {
    it(words, async () => {
      const h = await open();
      try {
        await runHistory(h, steps);
      } finally {
        await h.close();
      }
    }, 60_000);
  }

  it(
    `in ${runs} random histories, with crashes`,
    async () => {
      await fc.assert(
        fc.asyncProperty(history, async (steps) => {
          const h = await open();
          try {
            await runHistory(h, steps, 10);
          } finally {
            await h.close();
          }
        }),
        {
          numRuns: runs,
          interruptAfterTimeLimit: LIMIT_MS,
          ...(process.env.POSTCARD_SEED ? { seed: Number(process.env.POSTCARD_SEED) } : {}),
        },
      );
    },
    2 * LIMIT_MS,
  );
});
