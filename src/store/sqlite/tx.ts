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
  /** Next place in a ring and next token; never given twice, not even over a crash. */
  seq(): number;
  hint(kind: Hint['kind']): void;
}

/** A prepared statement with the ways it is used here. */
export interface Statement<Row> {
  get(...values: SQLInputValue[]): Row | undefined;
  all(...values: SQLInputValue[]): Row[];
  /** Rows changed. */
  run(...values: SQLInputValue[]): number;
  /** The number of the row it made. RETURNING costs more than the insert itself (2.7 us instead of 1.4): a table for its rows. */
  insert(...values: SQLInputValue[]): number;
}

/** For tests: sees each statement when it is prepared and before it runs; what `before` throws, the statement throws. */
export interface Watch {
  prepared?(sql: string): void;
  before?(sql: string): void;
}

const watched = new WeakMap<DatabaseSync, Watch>();

/** Let `watch` see the statements that are prepared on `db` from now on. */
export function watchStatements(db: DatabaseSync, watch: Watch): void {
  watched.set(db, watch);
}

/** Run a statement without values or rows (BEGIN, COMMIT). */
export function execute(db: DatabaseSync, sql: string): void {
  watched.get(db)?.before?.(sql);
  db.exec(sql);
}

/**
 * Prepare `sql` once. `Row` is what its columns are; the SQL beside it is the proof.
 *
 * Rows cross as arrays and become objects here: node:sqlite's own objects cost twice as much (9 us instead of 4 for a row of
 * 13 columns). A limit is written `LIMIT ? + 0`: SQLite looks at the value of a bare `LIMIT ?` when it plans, so it would
 * plan anew at each execution (28 us instead of 6).
 */
export function prepare<Row = Record<string, never>>(db: DatabaseSync, sql: string): Statement<Row> {
  const statement: StatementSync = db.prepare(sql);
  statement.setReturnArrays(true);
  const names = statement.columns().map((column) => column.name);
  const toRow = (values: unknown): Row => {
    const row: Record<string, unknown> = {};
    for (let n = 0; n < names.length; n++) row[names[n] as string] = (values as unknown[])[n];
    return row as Row;
  };
  const plain: Statement<Row> = {
    get(...values) {
      const row: unknown = statement.get(...values);
      return row === undefined ? undefined : toRow(row);
    },
    all: (...values) => (statement.all(...values) as unknown[]).map(toRow),
    run: (...values) => Number(statement.run(...values).changes),
    insert: (...values) => Number(statement.run(...values).lastInsertRowid),
  };
  const watch = watched.get(db);
  if (!watch) return plain;
  watch.prepared?.(sql);
  const seen =
    <Values extends unknown[], Result>(how: (...values: Values) => Result) =>
    (...values: Values): Result => {
      watch.before?.(sql);
      return how(...values);
    };
  return { get: seen(plain.get), all: seen(plain.all), run: seen(plain.run), insert: seen(plain.insert) };
}
