/**
 * How PostgreSQL finds the rows of each statement of the engine. Plans are kept for a session and made without regard to the
 * values, so a plan that was made while a table was empty, or by figures that were taken then, must be as good as any: rows of a table that
 * grows are found by the condition of an index, never by walking the table or an index from end to end.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { realEnv } from '../../src/env.ts';
import { load, rest } from '../../src/store/postgres/inside.ts';
import { PLANS } from '../../src/store/postgres/link.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import { STATEMENTS } from '../../src/store/postgres/tx.ts';
import { ownDatabase, SERVER } from '../postgres.ts';
import { createDesk } from './desk.ts';

/** Tables with few rows: a row an account, lane, node or process, or one in all. */
const SMALL = new Set(
  [
    'account',
    'counter',
    'pg_database',
    'high_water',
    'key',
    'lane',
    'lane_lease',
    'meta',
    'node',
    'schema_version',
  ].concat(['endpoint_setting', 'held', 'own_number']),
);

/**
 * Tables that are empty on a fresh database only. There, a statement that names rows by number may be planned with an index on
 * (account, number): no worse while the table is small. Sessions make their plans anew after 32 transactions, 128 and so on, and each minute.
 */
const GROWING = new Set(['message', 'bulk', 'event', 'hook', 'spec']);

/** Statements that see all there is of something, and why that may be. */
const WHOLE: [start: RegExp, why: string][] = [
  [
    /^SELECT \(SELECT coalesce\(sum/,
    'figures for the metrics page, counted at most once a second, by a connection of its own',
  ],
  [/^SELECT l\.carrier, sum\(w\.count\)/, 'likewise'],
  [/^SELECT count\(\*\) AS n FROM parked/, 'at most 100 000, counted once a minute by the sweep'],
  [/^DELETE FROM mark /, 'a row or two a connection; once in a while'],
  [/last_value/, 'a sequence'],
  [/EXISTS \(SELECT 1 FROM \w+\)/, 'the first row'],
];

/**
 * Statements whose plans may be worse for a minute after a table has grown from nothing: the sweep's, which nobody waits for, and
 * those that a person asks for. Sessions make their plans anew each minute.
 */
const PATIENT: RegExp[] = [
  // Retention: endpoints, content, inbound and carriers' ids that nobody refers to.
  /^(WITH gone AS \()?DELETE FROM (endpoint e|content c|carrier_ref c) /,
  /^SELECT i.no FROM inbound i/,
  /^SELECT source, profile/,
  /^SELECT DISTINCT r.spec/,
  // Deliveries that somebody asks for, and reports given out again.
  /^SELECT h.no, h.endpoint, h.state, h.due_at/,
  /^DELETE FROM taken t USING/,
  /^WITH picked AS/,
];

/** Statements of the system that an account's transactions might run, but never do. */
const OWNERS: RegExp[] = [
  // Marks of destinations to be made.
  /^SELECT account, spec, first, "end" AS "end" FROM unsought/,
  // Content to be fetched.
  /FROM media WHERE due_at IS NOT NULL/,
  // The sweep's deadlines, a carrier's messages to another.
  /^SELECT CASE WHEN x.first < 0 THEN -m.no ELSE m.no END/,
  /^SELECT l.no, l.account, l.bulk, x.lane FROM unnest/,
  /^SELECT r.leader, r.run, r.members AS n, x.target/,
  /^UPDATE run r SET ways = jsonb_set/,
];

interface Node {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Name'?: string;
  'Index Cond'?: string;
  Filter?: string;
  Plans?: Node[];
}

/** The leading column of each index. */
const leading = new Map<string, string>();

/**
 * Scans of growing tables without a condition on the leading column of an index (one on another column walks all of it); the head
 * of an index (LIMIT, nothing left out) is none.
 */
function walks(node: Node, strict: boolean, parent?: Node): string[] {
  const table = node['Relation Name'];
  const index = node['Index Name'];
  const scans = /Seq Scan|Index Scan|Index Only Scan|Sample Scan/.test(node['Node Type']);
  const head = parent?.['Node Type'] === 'Limit' && index !== undefined && node.Filter === undefined;
  const column = leading.get(index ?? '');
  const any = !strict && GROWING.has(table ?? '') && node['Index Cond'] !== undefined;
  const found =
    any || (column !== undefined && new RegExp(`[(. ]"?${column}"?\\)* (=|<|>|IS)`).test(node['Index Cond'] ?? ''));
  const own =
    table !== undefined && scans && !head && !found && !SMALL.has(table)
      ? [`${node['Node Type']} of ${table}${index ? ` (${index}: ${node['Index Cond']})` : ''}`]
      : [];
  const small = [...SMALL].some((name) => index?.startsWith(`${name}_`));
  const bitmap =
    node['Node Type'] === 'Bitmap Index Scan' && !found && !small
      ? [`${node['Node Type']} of ${index}: ${node['Index Cond']}`]
      : [];
  return [...own, ...bitmap, ...(node.Plans ?? []).flatMap((child) => walks(child, strict, node))];
}

describe.skipIf(!SERVER)('plans', () => {
  const database = ownDatabase('plans');
  const env = realEnv({ level: 'silent' });
  let client: pg.Client;
  /** What an account's statements run as. */
  let role: string;

  beforeAll(async () => {
    await database.make();
    const { url } = database;
    const store = await openPostgres({
      url,
      node: 'plans',
      retentionMs: 1e9,
      log: env.log,
      clock: env.clock,
    });
    role = store.wall.role as string;
    await store.close();
    client = new pg.Client({ connectionString: url });
    await client.connect();
    const { rows } = await client.query(`SELECT c.relname AS index, a.attname AS column FROM pg_index i
      JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'postcard'`);
    for (const { index, column } of rows) leading.set(index, column);
    await client.query(`SET search_path = postcard; ${PLANS}; SET plan_cache_mode = force_generic_plan`);
  });
  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  /**
   * What each statement walks, as it would be planned now; `reads`: also those that lock and change nothing. `within`: as an account's,
   * behind the wall, those that it may run.
   */
  async function offenders(reads: boolean, within = false): Promise<string[]> {
    const found: string[] = [];
    let planned = 0;
    for (const { name, text } of STATEMENTS) {
      if (PATIENT.some((what) => what.test(text))) continue;
      if (!reads && !/^(INSERT|UPDATE|DELETE|WITH)|FOR (NO KEY |KEY )?(UPDATE|SHARE)/.test(text)) continue;
      if (WHOLE.some(([what]) => what.test(text))) continue;
      await client.query(`PREPARE ${name} AS ${text}`);
      const { rows } = await client.query(
        'SELECT cardinality(parameter_types) AS n FROM pg_prepared_statements WHERE name = $1',
        [name],
      );
      const nulls = Array.from({ length: rows[0].n }, () => 'NULL').join(', ');
      if (within) await client.query(`BEGIN; SET LOCAL postcard.accounts = '{1}'; SET LOCAL ROLE ${role}`);
      const plan = await client
        .query(`EXPLAIN (FORMAT JSON) EXECUTE ${name}${rows[0].n > 0 ? `(${nulls})` : ''}`)
        .catch((error: { code?: string }) => {
          if (within && error.code === '42501') return null;
          throw error;
        });
      if (within) await client.query('ROLLBACK');
      await client.query(`DEALLOCATE ${name}`);
      if (plan === null || (within && OWNERS.some((what) => what.test(text)))) continue;
      planned++;
      const walked = walks(plan.rows[0]['QUERY PLAN'][0].Plan, reads);
      if (walked.length > 0) found.push(`${walked.join(', ')}: ${text.replace(/\s+/g, ' ').slice(0, 150)}`);
    }
    expect(planned).toBeGreaterThan(within && !reads ? 40 : 60);
    return found;
  }

  it('find by an index on tables that are empty and were never looked at', async () => {
    expect(await offenders(true)).toEqual([]);
    expect(await offenders(true, true)).toEqual([]);
  });

  it('begin a page of logs behind the wall where the one before has ended, and do not walk there', async () => {
    const floors = STATEMENTS.filter(({ text }) => / DESC OFFSET \$3 LIMIT 1$/.test(text));
    expect(floors.map(({ text }) => / FROM (\w+) /.exec(text)?.[1]).sort()).toEqual(['message', 'spec']);
    for (const { text } of floors) {
      await client.query(
        `PREPARE floor AS ${text}; BEGIN; SET LOCAL postcard.accounts = '{1}'; SET LOCAL ROLE ${role}`,
      );
      const { rows } = await client.query('EXPLAIN EXECUTE floor(1, 1000, 1)');
      await client.query('ROLLBACK; DEALLOCATE floor');
      const plan = rows.map((row: Record<string, string>) => row['QUERY PLAN']).join('\n');
      expect(plan).toMatch(/Index Cond: \(\(account = \$1\) AND \(\w+ < \$2\)\)/);
      expect(plan).not.toContain('Sort');
    }
  });

  it('take the next requests of a bulk from where they were, and sort none of those before and behind', async () => {
    const bulks = STATEMENTS.filter(({ text }) =>
      /FROM spec \w[\s\S]*\w\.bulk = (\$1|b\.no)[\s\S]*ORDER BY \w\.first/.test(text),
    );
    expect(bulks.map(({ text }) => text.slice(0, 20)).length).toBe(4);
    for (const { text } of bulks) {
      await client.query(`PREPARE step AS ${text}`);
      const { rows: types } = await client.query(
        "SELECT cardinality(parameter_types) AS n FROM pg_prepared_statements WHERE name = 'step'",
      );
      const nulls = Array.from({ length: types[0].n }, () => 'NULL').join(', ');
      const { rows } = await client.query(`EXPLAIN (FORMAT JSON) EXECUTE step(${nulls})`);
      await client.query('DEALLOCATE step');
      const ordered = (node: Node): Node[] => [node, ...(node.Plans ?? []).flatMap(ordered)];
      const nodes = ordered(rows[0]['QUERY PLAN'][0].Plan);
      const scan = nodes.find((node) => node['Index Name'] === 'spec_bulk_first');
      expect([text, scan?.['Index Cond']]).toEqual([text, expect.stringMatching(/bulk = .* AND \(first [<>]=? /)]);
      // Pieces of one step are put in order, or those of several bulks; never all requests of one.
      const sorts = nodes.filter((node) => node['Node Type'] === 'Sort');
      const below = sorts.flatMap((sort) => ordered(sort).filter((node) => node === scan));
      const inLimit = nodes.some((node) => node['Node Type'] === 'Limit' && (node.Plans ?? []).includes(scan as Node));
      expect([text, below.length === 0 || inLimit]).toEqual([text, true]);
    }
  });

  it('find the last that was told of a message by the message, however many events the planner thinks that one has', async () => {
    const open = STATEMENTS.find(({ text }) =>
      text.startsWith('SELECT m.no AS message, (SELECT o.event FROM open_event'),
    );
    // Of two messages, for now.
    await client.query(`BEGIN; INSERT INTO event (no, message, account, at, status, error, kind, words)
      SELECT n, n % 2, 1, 0, 3, 0, 0, '' FROM generate_series(1, 5000) n;
      ANALYZE event; PREPARE told AS ${open?.text}`);
    const { rows } = await client.query(`EXPLAIN (FORMAT JSON) EXECUTE told('{1}')`);
    await client.query('ROLLBACK; DEALLOCATE told');
    expect(walks(rows[0]['QUERY PLAN'][0].Plan, true)).toEqual([]);
  });

  it('find by an index on tables that were empty when they were looked at', async () => {
    await client.query('VACUUM (ANALYZE)');
    expect(await offenders(false)).toEqual([]);
    expect(await offenders(false, true)).toEqual([]);
  });

  it('read what rests of a lane once, not once for each turn that rests', async () => {
    const peek = STATEMENTS.find(({ text }) => text.startsWith('SELECT x.lane, greatest(h.at'));
    await client.query(`PREPARE peek AS ${peek?.text}`);
    const { rows } = await client.query('EXPLAIN (VERBOSE) EXECUTE peek(NULL, NULL, NULL, NULL, NULL)');
    await client.query('DEALLOCATE peek');
    const plan = rows.map((row: Record<string, string>) => row['QUERY PLAN']).join('\n');
    // What a filter shows as read again there is what the scan of the lanes put out.
    expect(plan).toMatch(/Function Scan on .*\n *Output: .*accounts\)::bigint\[\], .*seqs\)::bigint\[\]/);
  });

  it('of the functions of a claim, too, with a row in each table when they were looked at', async () => {
    const { url } = database;
    const base = { url, node: 'one', retentionMs: 1e9, log: env.log, clock: env.clock };
    const store = await openPostgres(base);
    const never = (): never => {
      throw new Error('not in this test');
    };
    const harness = { store, advance: never, now: () => env.clock.now(), crash: never, close: () => store.close() };
    const desk = createDesk(harness);
    await desk.open();
    await desk.one({ to: ['491'], bulkId: 'plans' });
    const [taken] = (await store.claim(desk.lane, 1, 45_000)).claims;
    await store.release([{ token: taken?.token as number, leader: taken?.leader as number }], 0);
    await desk.one({ to: ['492'], bulkId: 'plans' });
    await store.close();
    await client.query('VACUUM (ANALYZE)');
    expect(await offenders(false)).toEqual([]);
    expect(await offenders(false, true)).toEqual([]);

    const plans: Node[] = [];
    client.on('notice', ({ message }) => {
      const at = message?.indexOf('{') ?? -1;
      if (message?.includes('plan:') && at > 0) plans.push(JSON.parse(message.slice(at)).Plan);
    });
    await client.query(`LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
      SET auto_explain.log_format = json; SET auto_explain.log_level = notice; SET client_min_messages = notice`);
    await client.query('BEGIN');
    const loaded = await client.query(
      `SELECT ${load.name}(${desk.lane}, true, 0, 0, 1e15::bigint, 1, 64, 0, '{}', '{}', '{}', '{}') AS found`,
    );
    const { found } = loaded.rows[0];
    expect(found).toMatchObject({ ours: true, runs: [{}], retries: [{}], pending: [{}, {}] });
    const { no, account } = found.lines[0];
    const rested =
      await client.query(`SELECT ${rest.name}(${desk.lane}, 1e15::bigint, 0, 0, '{${no}}', '{true}', '{true}', '{1}', '{${account}}',
      '{true}', true, '{1}', '{}', '{}', '{}', true, '{${no}}') AS found`);
    expect(rested.rows[0].found).toMatchObject({ wroteLines: [no], wroteAccounts: [account] });
    await client.query('ROLLBACK; SET client_min_messages = warning');
    expect(plans.length).toBeGreaterThan(12);
    expect(plans.flatMap((plan) => walks(plan, true))).toEqual([]);
  });
});
