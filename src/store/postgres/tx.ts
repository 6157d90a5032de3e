/**
 * What the parts of the PostgreSQL engine share inside one transaction: statements, the store's clock, the order counter and
 * the wake-ups to send after the commit. Also the text forms of arrays, because every statement here is one per kind of
 * row and takes its rows by unnest: an array literal built in one join costs less than the client's own conversion.
 *
 * Promises: `work` functions may be run again from the start (a transaction that surely did not commit is repeated), so
 * they keep no state of their own; what must outlive the commit goes to `afterCommit`.
 * Fails: a statement rejects with the server's error or with the loss of the connection; `link.ts` sorts those.
 */
import type { Hint } from '../contract.ts';

/** A statement, prepared once per connection under `name`. */
export interface Sql {
  readonly name: string;
  readonly text: string;
}

/** Every statement of the engine, so that all their plans can be looked at. */
export const STATEMENTS: Sql[] = [];

/** Names a statement. `Row` is what its columns are; the SQL beside it is the proof. */
export function sql(text: string): Sql {
  const statement = { name: `s${STATEMENTS.length + 1}`, text };
  STATEMENTS.push(statement);
  return statement;
}

export type Value = string | number | boolean | null | Uint8Array;

/** Something that answers statements: a transaction, or a connection outside one. */
export interface Ask {
  query<Row = Record<string, never>>(statement: Sql | string, values?: Value[]): Promise<Row[]>;
}

/** Setting that holds `Tx.now` inside the transaction, for what is asked before it is known here. */
export const NOW = 'postcard.now';

/**
 * Ways to find rows that are out of place behind the wall (wall.ts). A policy looks to the planner as if it left next to nothing, so that to
 * read, join and sort all there is would seem cheaper than to walk an index until a LIMIT is reached.
 */
export const NOT_WITHIN = ['enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin'];

export interface Tx extends Ask {
  /** Epoch ms of the store's clock; the same for the whole transaction. Throws while `early`. */
  readonly now: number;
  /** The BEGIN is not answered yet, so `now` is not known; it is once any statement is answered. */
  readonly early: boolean;
  /** When it is answered. */
  readonly begun: Promise<void>;
  /**
   * A statement whose answer nobody waits for: the next one is sent right behind it. If it fails, nothing of the transaction
   * happens and its error is the transaction's.
   */
  later(statement: Sql, values: Value[]): void;
  /**
   * From here on in the name of these accounts, behind the wall (wall.ts): nothing of any other can be seen or changed. Null = in
   * nobody's, as a transaction begins. Costs no round trip.
   */
  as(accounts: readonly number[] | null): void;
  /** Next place in a ring, or a token: unique over all nodes, growing within one. */
  seq(): number;
  hint(kind: Hint['kind']): void;
  afterCommit(run: () => void): void;
}

/**
 * What was asked in one piece, when all of it has ended: who goes on after the first error must not ask anything more behind the
 * ROLLBACK. Throws the first error.
 */
export async function together<Works extends readonly unknown[] | []>(
  works: Works,
): Promise<{ -readonly [Place in keyof Works]: Awaited<Works[Place]> }> {
  await Promise.allSettled(works);
  return Promise.all(works);
}

/** Raised inside a group when another node's transaction got in between (a key taken meanwhile): run it again alone. */
export class Conflict extends Error {
  override readonly name = 'Conflict';
}

/** `{1,2,NULL}`: bigint[], integer[], smallint[], float8[] or boolean[]. */
export function list(values: readonly (number | boolean | null)[]): string {
  return `{${values.map((value) => (value === null ? 'NULL' : String(value))).join(',')}}`;
}

/** text[]. A NUL cannot be stored in PostgreSQL text; only carriers' words could hold one. */
export function texts(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? 'NULL' : `"${plain(value).replace(/[\\"]/g, '\\$&')}"`)).join(',')}}`;
}

/** Text as PostgreSQL can hold it. */
export function plain(text: string): string {
  return text.includes('\0') ? text.replaceAll('\0', '') : text;
}

/** Rows by a key; later rows win. */
export function byKey<Key, Row>(rows: readonly Row[], key: (row: Row) => Key): Map<Key, Row> {
  const map = new Map<Key, Row>();
  for (const row of rows) map.set(key(row), row);
  return map;
}
