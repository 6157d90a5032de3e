import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../config.ts';
import { realEnv } from '../env.ts';
import { inspectPostgres } from '../store/postgres/inspect.ts';
import { openPostgres } from '../store/postgres/postgres.ts';
import type { ServerFacts } from '../wiring/store.ts';
import { type Check, doctor, mediaCheck, postgresChecks } from './doctor.ts';
import type { Io } from './terminal.ts';

type Answered = Extract<ServerFacts, { kind: 'answered' }>;

const healthy: Answered = {
  url: 'postgres://db.example/postcard',
  kind: 'answered',
  version: '15.18',
  unsafe: null,
  standby: false,
  settings: { fsync: 'on', fullPageWrites: 'on', synchronousCommit: 'on', synchronousStandbys: '' },
  schema: { version: 2, known: 2 },
  clock: { aheadMs: 3, withinMs: 1 },
  connections: { open: 12, max: 100, reserved: 3 },
  transactions: { oldestMs: 40, application: 'postcard a claim', all: true, prepared: 0 },
  idleSlots: [],
  sharedNames: [],
  wall: { role: 'postcard_account', why: '' },
};

/** The checks that are not ok, as `name result: found; advice`. */
function troubles(...servers: ServerFacts[]): string[] {
  return postgresChecks(servers)
    .filter((check) => check.result !== 'ok')
    .map(({ check, result, found, advice }) => `${check} ${result}: ${found}; ${advice}`);
}

const named = (checks: Check[], name: string): Check | undefined => checks.find(({ check }) => check === name);

describe('what the doctor makes of a PostgreSQL server', () => {
  it('is content with a healthy one, and says what it is', () => {
    const checks = postgresChecks([healthy]);
    expect(checks.map(({ check, result }) => [check, result])).toEqual([
      ['store', 'ok'],
      ['durability', 'ok'],
      ['clock', 'ok'],
      ['connections', 'ok'],
      ['transactions', 'ok'],
      ['row-level security', 'ok'],
    ]);
    expect(named(checks, 'store')?.found).toBe('postgres://db.example/postcard: PostgreSQL 15.18, primary, schema 2');
    expect(named(checks, 'connections')?.found).toBe('12 of 100 open; room for 3 more processes');
  });

  it.each<[string, Partial<Answered>, RegExp]>([
    ['fsync off', { settings: { ...healthy.settings, fsync: 'off' } }, /^durability fail: .*fsync=off.*not be durable/],
    [
      'full_page_writes off',
      { settings: { ...healthy.settings, fullPageWrites: 'off' } },
      /^durability fail: .*full_page_writes=off/,
    ],
    ['what the store itself refuses', { unsafe: 'this is PostgreSQL 14; needs 15' }, /^store fail: .*PostgreSQL 14/],
    ['a newer schema', { schema: { version: 3, known: 2 } }, /^store fail: .*schema 3; this Postcard knows schema 2/],
    ['a clock 2.1 s ahead', { clock: { aheadMs: 2100, withinMs: 5 } }, /^clock warn: .*2100 ms ahead of/],
    ['a clock 2.1 s behind', { clock: { aheadMs: -2100, withinMs: 5 } }, /^clock warn: .*2100 ms behind/],
    [
      'few connections left',
      { connections: { open: 80, max: 100, reserved: 3 } },
      /^connections warn: 80 of 100 open; .*raise max_connections/,
    ],
    [
      'an old open transaction',
      { transactions: { oldestMs: 90_000, application: 'psql', all: true, prepared: 0 } },
      /^transactions warn: open for 90 s \(psql\)/,
    ],
    [
      'a forgotten prepared transaction',
      { transactions: { ...healthy.transactions, prepared: 2 } },
      /^transactions warn: 2 prepared/,
    ],
    [
      'no row-level security',
      { wall: { role: null, why: 'the role is not there; let a superuser run: CREATE ROLE' } },
      /^row-level security warn: not there.*; the role is not there; let a superuser run/,
    ],
    [
      'a name that two processes have',
      { sharedNames: ['n1'] },
      /^nodes warn: two processes run as n1; .*POSTCARD_NODE/,
    ],
    ['a replication slot that nobody reads', { idleSlots: ['old'] }, /^replication warn: idle slots: old/],
  ])('%s is told once, with what to do', (_what, change, words) => {
    const found = troubles({ ...healthy, ...change });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(words);
  });

  it('a clock that is off by no more than the network may explain is no trouble', () => {
    expect(troubles({ ...healthy, clock: { aheadMs: 2100, withinMs: 150 } })).toEqual([]);
  });

  it('a setting that Postcard corrects for itself is no trouble, and is said', () => {
    const checks = postgresChecks([{ ...healthy, settings: { ...healthy.settings, synchronousCommit: 'off' } }]);
    expect(named(checks, 'durability')).toMatchObject({ result: 'ok' });
    expect(named(checks, 'durability')?.found).toContain('Postcard sets it to on');
  });

  it('tables that are not there yet, or are older, are made by the next start', () => {
    const first = postgresChecks([{ ...healthy, schema: { version: 0, known: 2 } }]);
    expect(named(first, 'store')).toMatchObject({ result: 'ok' });
    expect(named(first, 'store')?.found).toContain('the next start will make it');
    const older = postgresChecks([{ ...healthy, schema: { version: 1, known: 2 } }]);
    expect(named(older, 'store')?.found).toContain('the next start will upgrade it');
  });

  it('of two servers one takes writes and the other stands by', () => {
    const standby: Answered = {
      ...healthy,
      url: 'postgres://b.example/postcard',
      standby: true,
      unsafe: 'this server is a standby and takes no writes',
    };
    const away: ServerFacts = { url: 'postgres://b.example/postcard', kind: 'unreachable', words: 'refused' };
    expect(troubles(healthy, standby)).toEqual([]);
    expect(troubles(healthy, away)).toEqual([expect.stringMatching(/^store warn: .*b\.example.*cannot be reached/)]);
    expect(troubles(standby, away)).toContainEqual(expect.stringContaining('none of the servers takes writes'));
    expect(troubles(healthy, { ...healthy, url: 'x' })).toEqual([expect.stringContaining('2 servers take writes')]);
    expect(troubles(standby)).toEqual([expect.stringMatching(/^store fail: .*standby and takes no writes/)]);
    expect(troubles(away)).toEqual([expect.stringMatching(/^store fail: .*cannot be reached: refused; start it/)]);
  });
});

const SERVER = process.env.POSTCARD_TEST_POSTGRES;

describe('what the doctor makes of ffmpeg', () => {
  it('warns where there is none, and tells what it can make', () => {
    expect(mediaCheck(null)).toMatchObject({ result: 'warn', found: 'no ffmpeg' });
    const found = mediaCheck(new Set(['libx264', 'aac', 'png']));
    expect(found).toMatchObject({ result: 'ok', found: 'ffmpeg makes H.264, AAC, not H.263, AMR, MP3' });
  });
});

describe('what the doctor makes of a content store', () => {
  async function contentLine(url: string): Promise<Check | undefined> {
    let out = '';
    const env = {
      ...{ POSTCARD_CONTENT_STORE: url, POSTCARD_S3_ACCESS_KEY: 'a', POSTCARD_S3_SECRET: 'b' },
      ...{
        POSTCARD_PORT: '0',
        POSTCARD_CARRIER_PORT: '0',
        POSTCARD_SANDBOX_PORT: '0',
        POSTCARD_SANDBOX_SMPP_PORT: '0',
      },
    };
    const readFile = (): never => {
      throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    };
    const loaded = loadConfig({ env, cwd: tmpdir(), readFile });
    if (!loaded.ok) expect.fail(loaded.mistakes.join());
    const io: Io = {
      out: (text) => {
        out += text;
      },
      err: () => undefined,
      ...{ env, cwd: tmpdir(), tty: false, readFile, stop: new AbortController().signal },
    };
    await doctor(io, realEnv({ level: 'silent' }), loaded.config, 'json');
    return (JSON.parse(out) as Check[]).find(({ check }) => check === 'content');
  }

  it('fails where it cannot be reached, or its URL is wrong, and shows no more of that than the bucket', async () => {
    expect(await contentLine('s3://media/a?endpoint=http://127.0.0.1:2')).toMatchObject({
      result: 'fail',
      found: expect.stringMatching(/^s3:\/\/media\/a: the content store does not PUT \(.*ECONNREFUSED.*\)$/),
    });
    expect(await contentLine('s3://media?port=9')).toMatchObject({
      result: 'fail',
      found: 's3://media: knows endpoint and region only',
    });
  });
});

describe.skipIf(!SERVER)('what a PostgreSQL server says of itself', () => {
  const env = realEnv({ level: 'silent' });
  const database = `postcard_doctor_${randomBytes(5).toString('hex')}`;
  const url = new URL(SERVER ?? 'postgres://none/none');
  url.pathname = `/${database}`;

  async function query<Row>(name: string, sql: string): Promise<Row[]> {
    const client = new pg.Client({ connectionString: name });
    await client.connect();
    try {
      return (await client.query(sql)).rows as Row[];
    } finally {
      await client.end();
    }
  }

  // Both wait for a checkpoint of the server, whoever else uses it.
  beforeAll(() => query(SERVER as string, `CREATE DATABASE ${database}`), 120_000);
  afterAll(() => query(SERVER as string, `DROP DATABASE IF EXISTS ${database} WITH (FORCE)`), 120_000);

  it('is asked without a trace: no schema, no table is made', async () => {
    const [facts] = await inspectPostgres(url.href, env.clock);
    expect(facts).toMatchObject({ kind: 'answered', standby: false, schema: { version: 0 } });
    const made = await query(url.href, "SELECT 1 FROM pg_namespace WHERE nspname = 'postcard'");
    expect(made).toEqual([]);
    expect((facts as Answered).schema.known).toBeGreaterThan(0);
    expect(postgresChecks([facts as Answered]).filter(({ result }) => result === 'fail')).toEqual([]);
  });

  it('knows the schema that a start has made, and an open transaction', async () => {
    const store = await openPostgres({
      url: url.href,
      node: 'doctor',
      retentionMs: 1e12,
      log: env.log,
      clock: env.clock,
    });
    const client = new pg.Client({ connectionString: url.href, application_name: 'forgotten' });
    await client.connect();
    try {
      await client.query('BEGIN; SELECT 1');
      const [facts] = (await inspectPostgres(url.href, env.clock)) as [Answered];
      expect(facts.schema.version).toBe(facts.schema.known);
      expect(facts.transactions.oldestMs).not.toBeNull();
      expect(facts.connections.open).toBeGreaterThan(2);
      expect(Math.abs(facts.clock.aheadMs)).toBeLessThan(1e9);
      expect(facts.url).not.toContain('@');
    } finally {
      await client.end();
      await store.close();
    }
  });

  it('tells in words of a server that is not there', async () => {
    const [facts] = await inspectPostgres('postgres://me:secret@127.0.0.1:1/x', env.clock);
    expect(facts).toMatchObject({ url: 'postgres://127.0.0.1:1/x', kind: 'unreachable' });
    expect(JSON.stringify(facts)).not.toContain('secret');
  });
});
