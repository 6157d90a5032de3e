/**
 * What the PostgreSQL servers of a store say of themselves, for `postcard doctor`: one session each, read-only
 * (`default_transaction_read_only`), ended before this returns. It makes no table, takes no lock and upgrades nothing.
 *
 * Fails: a server that cannot be asked is a result in words.
 */
import pg from 'pg';
import type { Clock } from '../../env.ts';
import { hostsOf, shownUrl, waysTo, wrongIn } from './address.ts';
import { openingError, unsafeSettings } from './answers.ts';
import { SCHEMA_VERSION } from './schema.ts';
import type { Sql, Value } from './tx.ts';
import { inspectWall, type Wall } from './wall.ts';

/** A server that does not answer within this is not there. */
const CONNECT_MS = 5_000;
const STATEMENT_MS = 5_000;
/** The clock is asked this often; the quickest answer counts. */
const CLOCK_ASKS = 5;

/** One server. `url` is without login. */
export type ServerFacts = { url: string } & ({ kind: 'unreachable'; words: string } | ServerAnswer);

/** What one server answered. */
export interface ServerAnswer {
  kind: 'answered';
  /** As PostgreSQL writes it, e.g. 15.18. */
  version: string;
  /** What makes it unfit for us, in one line; null = fit. */
  unsafe: string | null;
  standby: boolean;
  settings: { fsync: string; fullPageWrites: string; synchronousCommit: string; synchronousStandbys: string };
  /** Steps applied here, 0 = no tables yet; `known` = those of this Postcard. */
  schema: { version: number; known: number };
  /** Server minus us, ms, and how far off that may be. */
  clock: { aheadMs: number; withinMs: number };
  connections: { open: number; max: number; reserved: number };
  /** Oldest open transaction of any session that we may see, ms; `all` = we may see those of every role. */
  transactions: { oldestMs: number | null; application: string; all: boolean; prepared: number };
  /** Slots that nobody reads and that keep old rows or log. */
  idleSlots: string[];
  /** Names under which more than one process claims at this moment. */
  sharedNames: string[];
  /** How row-level security stands; null = there are no tables yet. */
  wall: Wall | null;
}

/** Asks every host of the URL. `schema`: the schema that holds the tables. */
export async function inspectPostgres(url: string, clock: Clock, schema = 'postcard'): Promise<ServerFacts[]> {
  const facts: ServerFacts[] = [];
  for (const host of hostsOf(url)) {
    const shown = shownUrl(host);
    const wrong = wrongIn(host);
    let found: ServerAnswer | { kind: 'unreachable'; words: string } = { kind: 'unreachable', words: wrong ?? '' };
    for (const way of wrong === null ? waysTo(host) : []) {
      try {
        found = await ask(way, clock, schema);
        break;
      } catch (error) {
        const said = openingError(error);
        found = { kind: 'unreachable', words: said instanceof Error ? said.message : String(said) };
      }
    }
    facts.push({ url: shown, ...found });
  }
  return facts;
}

async function ask(url: string, clock: Clock, schema: string): Promise<ServerAnswer> {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'postcard doctor',
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: STATEMENT_MS,
    statement_timeout: STATEMENT_MS,
  });
  client.on('error', () => undefined);
  const one = async <Row>(sql: string, values: unknown[] = []): Promise<Row> =>
    (await client.query(sql, values)).rows[0] as Row;
  try {
    await client.connect();
    const server = await one<{
      version: number;
      words: string;
      fsync: string;
      pages: string;
      commit: string;
      standbys: string;
      standby: boolean;
      readonly: string;
      max: number;
      reserved: number;
      all: boolean;
    }>(`SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS words,
      current_setting('fsync') AS fsync, current_setting('full_page_writes') AS pages,
      current_setting('synchronous_commit') AS commit, current_setting('synchronous_standby_names') AS standbys,
      pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS readonly,
      current_setting('max_connections')::integer AS max,
      current_setting('superuser_reserved_connections')::integer AS reserved,
      pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS all`);
    // Only now: what the role has by default was to be seen.
    await client.query('SET default_transaction_read_only = on');
    const { there } = await one<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [
      `${schema}.schema_version`,
    ]);
    const steps = there
      ? await one<{ v: number | null }>(`SELECT max(version) AS v FROM ${schema}.schema_version`)
      : null;
    // Another role's sessions are counted, but when they began stays hidden without pg_read_all_stats.
    const { open } = await one<{ open: number }>(
      "SELECT count(*)::integer AS open FROM pg_stat_activity WHERE backend_type = 'client backend'",
    );
    const oldest = await one<{ ms: number; application: string } | undefined>(
      `SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8 * 1000 AS ms, application_name AS application
       FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
       ORDER BY xact_start LIMIT 1`,
    );
    const { prepared } = await one<{ prepared: number }>('SELECT count(*)::integer AS prepared FROM pg_prepared_xacts');
    const slots = await client.query('SELECT slot_name FROM pg_replication_slots WHERE NOT active ORDER BY 1 LIMIT 10');
    // A process has one session of that name (postgres.ts).
    const shared = await client.query(
      `SELECT substring(application_name FROM '^postcard (.*) claim$') AS name FROM pg_stat_activity
       WHERE datname = current_database() AND application_name LIKE 'postcard % claim' GROUP BY application_name HAVING count(*) > 1 ORDER BY 1 LIMIT 10`,
    );
    const rows = {
      query: async <Row>(statement: Sql | string, values: Value[] = []): Promise<Row[]> =>
        (await client.query(typeof statement === 'string' ? statement : statement.text, values)).rows as Row[],
    };
    return {
      kind: 'answered',
      version: server.words.split(' ')[0] as string,
      unsafe: unsafeSettings(server),
      standby: server.standby,
      settings: {
        fsync: server.fsync,
        fullPageWrites: server.pages,
        synchronousCommit: server.commit,
        synchronousStandbys: server.standbys,
      },
      schema: { version: steps?.v ?? 0, known: SCHEMA_VERSION },
      clock: await clockOf(client, clock),
      connections: { open, max: server.max, reserved: server.reserved },
      transactions: {
        oldestMs: oldest ? Math.max(0, Math.round(oldest.ms)) : null,
        application: oldest?.application ?? '',
        all: server.all,
        prepared,
      },
      idleSlots: slots.rows.map((row: { slot_name: string }) => row.slot_name),
      sharedNames: shared.rows.map((row: { name: string }) => row.name),
      wall: await inspectWall(rows, schema),
    };
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** Its clock was read somewhere between the question and the answer. */
async function clockOf(client: pg.Client, clock: Clock): Promise<{ aheadMs: number; withinMs: number }> {
  let best = { aheadMs: 0, withinMs: Number.POSITIVE_INFINITY };
  for (let n = 0; n < CLOCK_ASKS; n++) {
    const asked = clock.now();
    const started = clock.monotonic();
    const { rows } = await client.query('SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS ms');
    const half = (clock.monotonic() - started) / 2;
    if (half < best.withinMs) best = { aheadMs: (rows[0] as { ms: number }).ms - (asked + half), withinMs: half };
  }
  return { aheadMs: Math.round(best.aheadMs), withinMs: Math.ceil(best.withinMs) };
}
