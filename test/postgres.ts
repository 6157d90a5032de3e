/**
 * PostgreSQL for tests: databases that a test file makes for itself on a server where that may be done, named by
 * POSTCARD_TEST_POSTGRES=postgres://... Without it, what needs PostgreSQL is left out.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';

export const SERVER = process.env.POSTCARD_TEST_POSTGRES;

export interface OwnDatabase {
  name: string;
  /** Throws where there is no server. */
  readonly url: string;
  make(): Promise<void>;
  /** Whoever is still connected is cut off. */
  drop(): Promise<void>;
  /** A statement of the test's own, on a connection of its own. */
  query<Row>(sql: string, values?: unknown[]): Promise<Row[]>;
}

/** Of a name that nobody else has; `make` and `drop` are for before and after the cases that need it. */
export function ownDatabase(purpose: string): OwnDatabase {
  const name = `postcard_${purpose}_${randomBytes(5).toString('hex')}`;
  return {
    name,
    get url() {
      return urlOf(name);
    },
    make: async () => void (await queryOn(SERVER as string, `CREATE DATABASE ${name}`)),
    drop: async () => void (await queryOn(SERVER as string, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)),
    query: (sql, values) => queryOn(urlOf(name), sql, values),
  };
}

function urlOf(database: string): string {
  const url = new URL(SERVER as string);
  url.pathname = `/${database}`;
  return url.href;
}

/** A statement on the server itself, for what is of no database: roles. */
export const onServer = (sql: string): Promise<unknown[]> => queryOn(SERVER as string, sql);

async function queryOn<Row>(url: string, sql: string, values: unknown[] = []): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql, values)).rows as Row[];
  } finally {
    await client.end();
  }
}
