/**
 * What the parts of the engine share inside one transaction: the database, the store's clock, the order counter and the
 * wake-ups to send after the commit. Nothing here outlives a commit except counters that may safely skip.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from 'node:sqlite';
import type { Hint } from '../contract.ts';

export interface Tx {
  readonly db: DatabaseSync;
  /** Epoch ms of the store's clock; the same for a whole group. */
  now: number;
  /** Next place in a ring; monotone over restarts (starts from the clock). */
  seq(): number;
  hint(kind: Hint['kind']): void;
}

/** A prepared statement with the three ways it is used here. Rows have a null prototype: never compare them whole. */
export interface Statement<Row> {
  get(...values: SQLInputValue[]): Row | undefined;
  all(...values: SQLInputValue[]): Row[];
  /** Rows changed. */
  run(...values: SQLInputValue[]): number;
}

/** Prepare `sql` once. `Row` is what its columns are; the SQL beside it is the proof. */
export function prepare<Row = Record<string, never>>(db: DatabaseSync, sql: string): Statement<Row> {
  const statement: StatementSync = db.prepare(sql);
  return {
    get: (...values) => statement.get(...values) as Row | undefined,
    all: (...values) => statement.all(...values) as Row[],
    run: (...values) => Number(statement.run(...values).changes),
  };
}
