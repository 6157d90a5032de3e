/** The PostgreSQL engine as conformance cases need it: a store in a schema of its own, with a clock of the test's. */
import { randomBytes } from 'node:crypto';
import { realEnv } from '../../src/env.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import type { OwnDatabase } from '../postgres.ts';
import type { Harness } from './desk.ts';

/** `options.now`: the instant it begins at. It does not crash: leases of a dead node end by time. */
export async function openMoving(
  database: OwnDatabase,
  options: { now: number; retentionMs: number; retentionMessages?: number },
): Promise<Harness & { schema: string }> {
  const { log, clock } = realEnv({ level: 'silent' });
  const { now: start, ...kept } = options;
  const schema = `s${randomBytes(4).toString('hex')}`;
  let now = start;
  const store = await openPostgres({
    ...{ url: database.url, schema, node: 'test', log, clock },
    ...{ testNow: () => now, ...kept },
  });
  return {
    schema,
    store,
    advance: (ms) => {
      now += ms;
    },
    now: () => now,
    crash: () => Promise.reject(new Error('not in these cases')),
    close: () => store.close(),
  };
}
