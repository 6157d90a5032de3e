/**
 * The second wall between accounts on PostgreSQL (G18): what row-level security hides where a statement has forgotten to. Rows asked
 * for by hand, then the engine's own verbs with the account cut out of every statement; that no table is left out; logins with fewer
 * rights; nodes at work while the wall is raised.
 *
 * Needs a server where databases and roles may be made: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { realEnv } from '../../src/env.ts';
import type { Store } from '../../src/store/contract.ts';
import { PLANS } from '../../src/store/postgres/link.ts';
import { openPostgres, type PostgresStore } from '../../src/store/postgres/postgres.ts';
import { STATEMENTS } from '../../src/store/postgres/tx.ts';
import { inspectWall, RULES, roleOf } from '../../src/store/postgres/wall.ts';
import { onServer, ownDatabase, SERVER } from '../postgres.ts';
import { createDesk, type Desk } from './desk.ts';

const env = realEnv({ level: 'silent' });
const tag = randomBytes(4).toString('hex');
const database = ownDatabase('wall');
const DENIED = '42501';

function urlOf(login?: string): string {
  const url = new URL(database.url);
  if (login !== undefined) {
    url.username = login;
    url.password = 'wall';
  }
  return url.href;
}

const open = (schema: string, login?: string): Promise<PostgresStore> =>
  openPostgres({ url: urlOf(login), node: 'wall', schema, retentionMs: 1e9, log: env.log, clock: env.clock });

function deskOf(store: Store): Desk {
  const never = (): never => {
    throw new Error('not in these tests');
  };
  return createDesk({ store, advance: never, now: () => env.clock.now(), crash: never, close: () => store.close() });
}

describe.skipIf(!SERVER)('row-level security', () => {
  /** In the database, as its owner. */
  let client: pg.Client;

  beforeAll(async () => {
    await database.make();
    client = new pg.Client({ connectionString: urlOf() });
    await client.connect();
  });
  afterAll(async () => {
    await client.end();
    await database.drop();
  });

  describe('of rows', () => {
    let role: string;
    interface Column {
      table: string;
      name: string;
      type: string;
      needed: boolean;
    }
    let tables: string[];
    let columns: Column[];

    beforeAll(async () => {
      const store = await open('rows');
      role = store.wall.role as string;
      await store.close();
      await client.query('SET search_path = rows');
      columns = (
        await client.query(
          `SELECT c.relname AS table, a.attname AS name, format_type(a.atttypid, NULL) AS type, a.attnotnull AND NOT a.atthasdef AS needed
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = 'rows' AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum`,
        )
      ).rows;
      tables = [...new Set(columns.map(({ table }) => table))];
      // A row in each table, all of it the first account's: what refers to another row has its number, 1.
      for (const table of tables) {
        if (['schema_version', 'high_water'].includes(table)) continue;
        const own = columns.filter((one) => one.table === table && (one.needed || HANGS.has(one.name)));
        const values = own.map(({ name, type }) => `${filler(name, type)}::${type}`);
        await client.query(
          `INSERT INTO ${table} (${own.map(({ name }) => `"${name}"`).join()}) VALUES (${values.join()}) ON CONFLICT DO NOTHING`,
        );
      }
    });

    const HANGS = new Set([
      'account',
      'no',
      'line',
      'run',
      'spec',
      'bulk',
      'endpoint',
      'hook',
      'event',
      'message',
      'leader',
    ]);
    const filler = (name: string, type: string): string => {
      if (name === 'k') return `'install'`;
      if (name === 'end') return '2';
      if (/int|double|numeric/.test(type) && !type.endsWith('[]')) return '1';
      if (type === 'boolean') return 'false';
      return type.endsWith('[]') ? `'{1}'` : `'1'`;
    };

    /** Runs as an account; `accounts` null = the role alone. The rows, or the code of the refusal. */
    async function as(accounts: string | null, text: string, values: unknown[] = []): Promise<number | string> {
      await client.query('BEGIN');
      try {
        if (accounts !== null) await client.query(`SET LOCAL postcard.accounts = '${accounts}'`);
        await client.query(`SET LOCAL ROLE "${role}"`);
        return (await client.query(text, values)).rowCount ?? 0;
      } catch (error) {
        return (error as { code: string }).code;
      } finally {
        await client.query('ROLLBACK');
      }
    }
    const may = (table: string, right: string): boolean => RULES[table]?.may.some((one) => one === right) ?? false;
    const hides = (table: string): boolean => RULES[table]?.rows != null && table !== 'meta';

    it('has a policy on every table with an account, and hides every other but those that are nobody’s', async () => {
      const { rows } = await client.query(
        `SELECT c.relname AS name, c.relrowsecurity AS walled,
           (SELECT count(*)::integer FROM pg_policy p WHERE p.polrelid = c.oid) AS policies
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'rows' AND c.relkind IN ('r', 'p')`,
      );
      const found = new Map(rows.map((row) => [row.name as string, row as { walled: boolean; policies: number }]));
      const owned = columns.filter(({ name }) => name === 'account').map(({ table }) => table);
      expect(owned.length).toBeGreaterThan(20);
      // A new table with an account is to be added to RULES in wall.ts.
      expect(owned.filter((table) => !found.get(table)?.walled || found.get(table)?.policies !== 1)).toEqual([]);
      const bare = [...found].filter(([, { walled }]) => !walled).map(([name]) => name);
      expect(bare.sort()).toEqual([
        'counter',
        'high_water',
        'lane',
        'lane_lease',
        'mark',
        'node',
        'schema_version',
        'sought',
      ]);
      expect(Object.keys(RULES).filter((table) => !found.has(table))).toEqual([]);
    });

    it('lets the role do what the rules say and nothing else', async () => {
      for (const table of tables) {
        const { rows } = await client.query(
          `SELECT array_agg(p ORDER BY p) AS may FROM unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE','REFERENCES','TRIGGER']) p
           WHERE has_table_privilege($1, format('rows.%I', $2::text), p)`,
          [role, table],
        );
        expect([table, rows[0].may ?? []]).toEqual([table, [...(RULES[table]?.may ?? [])].sort()]);
      }
    });

    it('shows an account its rows in every table, and another or none not one', async () => {
      for (const table of tables) {
        const text = `SELECT * FROM ${table}`;
        if (!may(table, 'SELECT')) expect([table, await as('{1}', text)]).toEqual([table, DENIED]);
        else if (hides(table)) {
          const given = [await as('{1}', text), await as('{1,2}', text), await as('{2}', text), await as('', text)];
          expect([table, ...given, await as(null, text)]).toEqual([table, 1, 1, 0, 0, 0]);
        }
      }
    });

    it('shows nobody the key of the ids', async () => {
      expect(await as('{1}', `SELECT * FROM meta WHERE k = 'idKey'`)).toBe(0);
      expect(await as('{1}', `SELECT * FROM meta`)).toBe(1);
    });

    it('lets an account change and take away its rows, and another none', async () => {
      let tried = 0;
      for (const table of tables.filter(hides)) {
        const column = columns.find((one) => one.table === table)?.name as string;
        for (const [right, text] of [
          ['UPDATE', `UPDATE ${table} SET "${column}" = "${column}"`],
          ['DELETE', `DELETE FROM ${table}`],
        ] as const) {
          const wanted = may(table, right) ? [1, 0, 0] : [DENIED, DENIED, DENIED];
          expect([text, await as('{1}', text), await as('{2}', text), await as(null, text)]).toEqual([text, ...wanted]);
          tried++;
        }
      }
      expect(tried).toBeGreaterThan(60);
    });

    it('takes no row that is another account’s, by whatever it hangs on it', async () => {
      let tried = 0;
      for (const table of tables.filter((one) => hides(one) && may(one, 'INSERT'))) {
        const { rows } = await client.query(`SELECT to_json(t) AS row FROM ${table} t LIMIT 1`);
        const text = `INSERT INTO ${table} SELECT * FROM json_populate_record(NULL::rows.${table}, $1)`;
        const values = [JSON.stringify(rows[0].row)];
        expect([table, await as('{2}', text, values), await as(null, text, values)]).toEqual([table, DENIED, DENIED]);
        // The same row is the first account's: only its key is in the way.
        expect([table, await as('{1}', text, values)]).toEqual([table, expect.not.stringMatching(DENIED)]);
        tried++;
      }
      expect(tried).toBeGreaterThan(15);
    });
  });

  describe('of verbs whose statements have forgotten the account', () => {
    let store: PostgresStore;
    let desk: Desk;
    const plain = pg.Client.prototype.query;
    /** Of what the engine asks. */
    let cut = 0;
    let broken = false;

    /** The statement without its account: parameters keep their places. */
    const forgetful = (text: string): string =>
      text
        .replace(/\b(?:\w+\.)?account(?: \+ 0)? = (\$\d+)/g, (_, value: string) => {
          cut++;
          return `${value}::bigint IS NOT NULL`;
        })
        .replace(/\b\w+\.account(?: \+ 0)? = x\.account\b/g, () => {
          cut++;
          return 'x.account IS NOT NULL';
        });

    beforeEach(async () => {
      pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
        const [first] = args as [{ text?: string; name?: string }];
        if (typeof first?.text === 'string') {
          const text = broken
            ? first.text.replace(' FROM message m ', ' FROM message m JOIN (SELECT 1 / 0 AS one) x ON x.one = m.no ')
            : forgetful(first.text);
          args[0] = { ...first, text, ...(broken ? { name: undefined } : {}) };
        }
        return (plain as (...args: unknown[]) => unknown).apply(this, args);
      } as typeof plain;
      store = await open(`verbs_${randomBytes(3).toString('hex')}`);
      desk = deskOf(store);
      await desk.open();
    });
    afterEach(async () => {
      broken = false;
      pg.Client.prototype.query = plain;
      await store.close();
    });

    /** What the first account has, and what each verb of another tells of it by its names. */
    async function told(): Promise<Record<string, unknown>> {
      const { nos, bulk } = await desk.accept({
        account: 1,
        bulkId: 'mine',
        keys: [[0, 'my-key']],
        to: ['4917012345678', '4917012345679'],
        endpoint: 'https://a.example/hook',
        idem: { key: 'once', hash: 'h' },
      });
      await desk.accept({ account: 1, to: ['4917012345670'] });
      const upload = {
        account: 1,
        id: 'up',
        name: 'n',
        hash: 'a'.repeat(64),
        contentType: 'text/plain',
        size: 1,
        validityMs: 1e6,
      };
      await store.putUpload(upload);
      await store.optOutPut(1, [{ sender: '', destination: '4917099999999' }]);
      await store.endpointPut({ account: 1, kind: 'delivery', url: 'https://a.example/hook', isDefault: true });
      await desk.settleAll(() => ({ kind: 'refused', error: { id: 15009 } }));
      const [hook] = (await store.webhookNext(10, 30_000)).webhooks;
      await desk.answer(hook as NonNullable<typeof hook>, false);
      const no = nos[0] as number;
      const of = 2;
      const everything = { from: 0, to: Number.MAX_SAFE_INTEGER };
      return {
        logs: (await store.logs({ account: of, limit: 100 })).rows.length,
        'logs by bulk': (await store.logs({ account: of, limit: 100, bulks: { nos: [bulk], ids: ['mine'] } })).rows
          .length,
        'logs by id': (await store.logs({ account: of, limit: 9, messages: { nos, keys: ['my-key'] } })).rows.length,
        story: await store.story(of, { no: nos[1] as number }),
        'story by key': await store.story(of, { key: 'my-key' }),
        feed: (await store.feed(of, -1, 100)).rows.length,
        bulk: await store.bulkGet(of, { no: bulk }),
        'bulk by id': await store.bulkGet(of, { id: 'mine' }),
        bulks: (await store.bulkList(of, 100)).bulks.length,
        steer: (await store.bulkSteer(of, { no: bulk }, [{ kind: 'cancel' }])).kind,
        reports: (await store.takeReports({ account: of, limit: 100 })).rows.length,
        rearm: (await store.rearm({ account: of, kind: 'reports', ...everything })).count,
        deliveries: (await store.webhookDeliveries({ account: of, limit: 10 })).deliveries.length,
        'deliveries of': (await store.webhookDeliveries({ account: of, limit: 10, message: { no } })).deliveries.length,
        replay: await store.webhookReplay(of, hook?.no as number),
        endpoints: (await store.endpointList(of)).length,
        'endpoint delete': await store.endpointDelete(of, 'delivery', 'https://a.example/hook'),
        uploads: (await store.uploadNames(of, ['up'])).length,
        'opt-outs': (await store.optOutList({ account: of, limit: 10 })).length,
        'opt-outs gone': await store.optOutDelete(of, [{ sender: '', destination: '4917099999999' }]),
        'used upload': (await desk.accept({ account: of, uploads: ['up'] })).answer.kind,
        'used key': (await desk.accept({ account: of, idem: { key: 'once', hash: 'other' } })).answer.kind,
      };
    }

    const NOTHING = {
      logs: 0,
      'logs by bulk': 0,
      'logs by id': 0,
      story: null,
      'story by key': null,
      feed: 0,
      bulk: null,
      'bulk by id': null,
      bulks: 0,
      steer: 'notFound',
      reports: 0,
      rearm: 0,
      deliveries: 0,
      'deliveries of': 0,
      replay: false,
      endpoints: 0,
      'endpoint delete': false,
      uploads: 0,
      'opt-outs': 0,
      'opt-outs gone': 0,
      'used upload': 'unknownUploads',
      'used key': 'accepted',
    };

    it('sees and changes nothing of another account', async () => {
      cut = 0;
      expect(await told()).toEqual(NOTHING);
      expect(cut).toBeGreaterThan(20);
      // And its owner has all of it still.
      expect((await store.logs({ account: 1, limit: 100 })).rows).toHaveLength(3);
      expect((await store.bulkGet(1, { id: 'mine' }))?.status).not.toBe('CANCELED');
      expect(await store.endpointList(1)).toHaveLength(1);
      expect(await store.optOutList({ account: 1, limit: 10 })).toHaveLength(1);
    });

    it('does where there is no wall, so it is the wall that hides', async () => {
      (store.wall as { role: string | null }).role = null;
      const without = await told();
      const leaked = Object.entries(without).filter(([verb, what]) => what !== NOTHING[verb as keyof typeof NOTHING]);
      expect(leaked.map(([verb]) => verb)).toEqual(
        expect.arrayContaining([
          'logs',
          'story',
          'feed',
          'bulk',
          'bulks',
          'deliveries',
          'endpoints',
          'uploads',
          'opt-outs',
        ]),
      );
    });

    it('leaves nothing behind on its connection, also after an error', async () => {
      await desk.accept({ account: 1, to: ['4917012345678'] });
      broken = true;
      for (let run = 0; run < 4; run++)
        await expect(store.logs({ account: 2, limit: 5 })).rejects.toThrow('division by zero');
      broken = false;
      // Each connection in turn, as the system: it sees all.
      for (let run = 0; run < 4; run++) expect((await store.directory(-1))?.revision).toBeGreaterThan(0);
      for (let run = 0; run < 4; run++) expect(await store.link(1)).toBeNull();
      for (let run = 0; run < 4; run++) expect((await store.logs({ account: 1, limit: 5 })).rows).toHaveLength(1);
      expect((await desk.claim()).claims).toHaveLength(1);
    });
  });

  describe('of each verb', () => {
    let store: PostgresStore;
    let desk: Desk;
    const plain = pg.Client.prototype.query;
    let texts: string[] = [];
    beforeAll(async () => {
      store = await open('each');
      desk = deskOf(store);
      await desk.open();
      await desk.one();
      pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
        const [first] = args as [{ text?: string } | string];
        texts.push(typeof first === 'string' ? first : (first.text ?? ''));
        return (plain as (...args: unknown[]) => unknown).apply(this, args);
      } as typeof plain;
    });
    afterAll(async () => {
      pg.Client.prototype.query = plain;
      await store.close();
    });

    const url = 'https://a.example/';
    const none = { account: 1, limit: 1 };
    /** What an account asks for. */
    const ACCOUNTS: Partial<Record<keyof PostgresStore, () => Promise<unknown>>> = {
      accept: async () => store.accept(await desk.request()),
      putUpload: () =>
        store.putUpload({ account: 1, id: 'u', name: '', hash: '', contentType: '', size: 1, validityMs: 1 }),
      uploadNames: () => store.uploadNames(1, ['u']),
      takeReports: () => store.takeReports(none),
      rearm: () => store.rearm({ account: 1, kind: 'inbox' }),
      webhookDeliveries: () => store.webhookDeliveries(none),
      webhookReplay: () => store.webhookReplay(1, 1),
      webhookReplayRange: () => store.webhookReplayRange({ account: 1 }),
      endpointList: () => store.endpointList(1),
      endpointPut: () => store.endpointPut({ account: 1, kind: 'click', url }),
      endpointDelete: () => store.endpointDelete(1, 'click', url),
      takeInbox: () => store.takeInbox(none),
      clicks: () => store.clicks(1, { bulk: { no: 1 } }),
      numberList: () => store.numberList(1),
      optOutPut: () => store.optOutPut(1, []),
      optOutDelete: () => store.optOutDelete(1, []),
      optOutList: () => store.optOutList(none),
      logs: () => store.logs(none),
      story: () => store.story(1, { no: 1 }),
      feed: () => store.feed(1, -1, 1),
      bulkGet: () => store.bulkGet(1, { no: 1 }),
      bulkList: () => store.bulkList(1, 1),
      bulkSteer: () => store.bulkSteer(1, { no: 1 }, []),
    };
    /** What the system and the operator do for all of them, by numbers of things and not in anybody's name. */
    const SYSTEMS = new Set([
      ...['identity', 'reserve', 'lane', 'laneLease', 'claim', 'settle', 'release', 'report', 'sweep', 'stats'],
      ...['mediaNext', 'mediaSettle', 'webhookNext', 'webhookSettle', 'callBacks', 'calledBack', 'reroute', 'inbound'],
      ...[
        'putContent',
        'contentAt',
        'contentUsed',
        'contentPlaced',
        'placesLost',
        'placesGone',
        'content',
        'variant',
        'putVariant',
      ],
      // By tokens that are signed.
      ...['link', 'clicked', 'click', 'inboundPart'],
      ...['directory', 'auditLog', 'administer', 'keys', 'putKey'],
      // Who asks is not known yet; limits are counted for several accounts at once.
      ...['sessionPut', 'sessionUse', 'sessionDelete', 'quota', 'quotaUsed'],
      ...['onHint', 'close', 'wall'],
    ]);

    it('is an account’s, or the system’s', () => {
      const known = new Set([...Object.keys(ACCOUNTS), ...SYSTEMS]);
      // A new verb that takes an account runs within(...) or with `as` in postgres.ts, and stands in ACCOUNTS here.
      expect(Object.keys(store).filter((verb) => !known.has(verb))).toEqual([]);
      expect([...known].filter((verb) => !Object.hasOwn(store, verb))).toEqual([]);
    });

    it.each(Object.entries(ACCOUNTS))('%s of an account runs behind the wall', async (_verb, run) => {
      texts = [];
      await run();
      expect(texts.filter((text) => /SET LOCAL ROLE|set_config\('role'/.test(text)).length).toBeGreaterThan(0);
    });

    it('takes a page of many reports without reading the others', async () => {
      texts = [];
      await store.takeReports(none);
      const enter = texts.find((text) => text.includes("set_config('role'")) as string;
      const take = texts.find((text) => text.startsWith('WITH picked')) as string;
      await client.query(`SET search_path = each; ${PLANS}; SET plan_cache_mode = force_generic_plan;
        INSERT INTO pull (account, event, message, spec, bulk, until)
          SELECT 1, n, n, n, n, 9000000000000 FROM generate_series(1000000, 1020000) n;
        INSERT INTO event (no, message, account, at, status, error, kind, words)
          SELECT n, n, 1, 1, 5, 0, 0, '' FROM generate_series(1000000, 1020000) n;
        INSERT INTO message (no, account, spec, "to", state, status, error)
          SELECT n, 1, n, '49', 3, 5, 0 FROM generate_series(1000000, 1020000) n;
        ALTER TABLE spec DISABLE TRIGGER spec_unsought;
        INSERT INTO spec (no, account, bulk, first, "end", accepted_at, intermediate, sender, body)
          SELECT n, 1, n, n, n + 1, 1, false, 's', 'b' FROM generate_series(1000000, 1020000) n;
        ANALYZE; PREPARE take AS ${take}; BEGIN`);
      await client.query(enter, ['{1}', store.wall.role, 'off']);
      const { rows } = await client.query('EXPLAIN EXECUTE take(1, 1000, 1, 50)');
      // All of it: BEGIN took in what stood before it.
      await client.query('ROLLBACK; DEALLOCATE take');
      const plan = rows.map((row: Record<string, string>) => row['QUERY PLAN']).join('\n');
      expect(plan).toContain('Scan Backward using pull_pkey');
      expect(plan).not.toMatch(/Hash|Merge|Bitmap|pull_until/);
    });

    it('begins a page of logs of a large account where the one before has ended, and sorts nothing', async () => {
      texts = [];
      await store.logs(none);
      const begin = texts.find((text) => text.includes('SET LOCAL ROLE')) as string;
      await client.query(`SET search_path = each; ${PLANS}; ALTER TABLE spec DISABLE TRIGGER spec_unsought;
        INSERT INTO spec (no, account, bulk, first, "end", accepted_at, intermediate, sender, body)
          SELECT n * 3, 1, n * 3, n * 3 + 1, n * 3 + 2, 1, false, 's', 'b' FROM generate_series(1000, 100000) n; ANALYZE spec`);
      const floor = STATEMENTS.find(({ text }) => text.startsWith('SELECT first FROM spec'))?.text as string;
      await client.query(begin);
      const { rows } = await client.query(
        `EXPLAIN ${floor}`.replace('$1', '1').replace('$2', '290000').replace('$3', '9999'),
      );
      await client.query('ROLLBACK; SET search_path = public');
      const plan = rows.map((row: Record<string, string>) => row['QUERY PLAN']).join('\n');
      expect(plan).toContain('Scan Backward using spec_account_first');
      expect(plan).not.toMatch(/Sort|Bitmap/);
    });
  });

  describe('of logins', () => {
    const logins: string[] = [];

    async function login(rights: string): Promise<string> {
      const name = `wall_${tag}_${logins.length}`;
      await onServer(`CREATE ROLE ${name} LOGIN PASSWORD 'wall' NOSUPERUSER ${rights}`);
      await onServer(`GRANT CREATE ON DATABASE ${database.name} TO ${name}`);
      logins.push(name);
      return name;
    }
    const sees = async (schema: string, role: string): Promise<boolean> => {
      const { rows } = await client.query(`SELECT rolcanlogin OR rolsuper AS free FROM pg_roles WHERE rolname = $1`, [
        role,
      ]);
      expect(rows).toEqual([{ free: false }]);
      return (await client.query(`SELECT relrowsecurity AS on FROM pg_class WHERE oid = '${schema}.message'::regclass`))
        .rows[0].on;
    };

    afterAll(async () => {
      for (const name of logins) {
        const other = roleOf(name);
        for (const one of [other, name]) {
          const { rows } = await client.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [one]);
          if (rows.length === 0) continue;
          await client.query(`DROP OWNED BY ${one} CASCADE`);
          await client.query(`DROP ROLE ${one}`);
        }
      }
    });

    it('that may make roles has the wall by itself', async () => {
      const name = await login('CREATEROLE');
      const store = await open('maker', name);
      expect(store.wall).toEqual({ role: `${name}_account`, why: '' });
      expect(await sees('maker', `${name}_account`)).toBe(true);
      const desk = deskOf(store);
      await desk.open();
      await desk.one({ account: 1 });
      expect((await store.logs({ account: 1, limit: 5 })).rows).toHaveLength(1);
      expect((await desk.claim()).claims).toHaveLength(1);
      await store.close();
    });

    it('that may not works without it, says so and what to do, and has it at the next start', async () => {
      const name = await login('NOCREATEROLE');
      const store = await open('plain', name);
      const how = `CREATE ROLE "${name}_account" NOLOGIN; GRANT "${name}_account" TO "${name}"`;
      expect(store.wall).toEqual({ role: null, why: expect.stringContaining(how) });
      const desk = deskOf(store);
      await desk.open();
      await desk.one({ account: 1 });
      expect((await store.logs({ account: 1, limit: 5 })).rows).toHaveLength(1);
      await store.close();
      const own = new pg.Client({ connectionString: urlOf(name) });
      await own.connect();
      const asked = {
        query: async (text: unknown, values: unknown) => (await own.query(text as string, values as [])).rows,
      };
      expect((await inspectWall(asked as never, 'plain'))?.why).toContain(how);
      await onServer(how);
      const again = await open('plain', name);
      expect(again.wall).toEqual({ role: `${name}_account`, why: '' });
      expect(await inspectWall(asked as never, 'plain')).toEqual({ role: `${name}_account`, why: '' });
      expect((await again.logs({ account: 1, limit: 5 })).rows).toHaveLength(1);
      expect((await again.logs({ account: 2, limit: 5 })).rows).toHaveLength(0);
      await again.close();
      await own.end();
    });

    it('that would see nothing is refused, rather than find the store empty', async () => {
      const owner = await login('CREATEROLE');
      await (await open('owned', owner)).close();
      const guest = await login('NOCREATEROLE');
      await client.query(`GRANT ALL ON SCHEMA owned TO ${guest}; GRANT ALL ON ALL TABLES IN SCHEMA owned TO ${guest};
        GRANT ALL ON ALL SEQUENCES IN SCHEMA owned TO ${guest}`);
      await expect(open('owned', guest)).rejects.toThrow(
        /does not own the tables, so row-level security hides their rows/,
      );
      await client.query(`ALTER ROLE ${guest} BYPASSRLS`);
      await (await open('owned', guest)).close();
    });

    it('that neither owns the tables nor may make roles works without it, and says so', async () => {
      const owner = await login('CREATEROLE');
      await (await open('lent', owner)).close();
      const guest = await login('NOCREATEROLE');
      await client.query(`GRANT ALL ON SCHEMA lent TO ${guest}; GRANT ALL ON ALL TABLES IN SCHEMA lent TO ${guest};
        GRANT ALL ON ALL SEQUENCES IN SCHEMA lent TO ${guest}`);
      // As an older version's owner left them.
      const { rows } = await client.query(`SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
        WHERE schemaname = 'lent'`);
      for (const { name } of rows) await client.query(`ALTER TABLE ${name} DISABLE ROW LEVEL SECURITY`);
      const store = await open('lent', guest);
      expect(store.wall).toEqual({ role: null, why: expect.stringContaining(`CREATE ROLE "${guest}_account"`) });
      await store.close();
    });

    it('of whose role too much is allowed has no wall, and says so', async () => {
      const name = await login('CREATEROLE');
      await (await open('wide', name)).close();
      await client.query(`ALTER ROLE ${name}_account BYPASSRLS`);
      const store = await open('wide', name);
      expect(store.wall).toEqual({ role: null, why: expect.stringContaining('BYPASSRLS') });
      await store.close();
      // One that owns a table by way of another role is not shut in either.
      const group = `${name}_owners`;
      await client.query(`CREATE ROLE ${group} NOLOGIN; GRANT ${group} TO ${name}, ${name}_account;
        ALTER ROLE ${name}_account NOBYPASSRLS INHERIT; ALTER TABLE wide.message OWNER TO ${group}`);
      const again = await open('wide', name);
      expect(again.wall).toEqual({ role: null, why: expect.stringContaining('may do as the owner') });
      await again.close();
      await client.query(`REASSIGN OWNED BY ${group} TO ${name}; DROP ROLE ${group}`);
    });
  });

  it('keeps nobody waiting for long who reads a table that somebody holds', async () => {
    await (await open('held')).close();
    await client.query('ALTER TABLE held.event DISABLE ROW LEVEL SECURITY');
    const [holder, reader] = [
      new pg.Client({ connectionString: urlOf() }),
      new pg.Client({ connectionString: urlOf() }),
    ];
    await Promise.all([holder.connect(), reader.connect()]);
    await holder.query('BEGIN; LOCK TABLE held.event IN ACCESS SHARE MODE');
    const raised = open('held');
    const waits = `SELECT 1 FROM pg_locks WHERE relation = 'held.event'::regclass AND NOT granted`;
    while ((await client.query(waits)).rows.length === 0) await env.clock.sleep(20);
    await reader.query(`SET lock_timeout = '8s'; SELECT count(*) FROM held.event`);
    await holder.query('ROLLBACK');
    const store = await raised;
    expect(store.wall.role).not.toBeNull();
    await Promise.all([store.close(), holder.end(), reader.end()]);
  });

  it('is raised under a node of an older version that is at work, which notices nothing', {
    timeout: 60_000,
  }, async () => {
    const old = await open('upgrade');
    (old.wall as { role: string | null }).role = null;
    const { rows } = await client.query(`SELECT tablename AS name FROM pg_tables WHERE schemaname = 'upgrade'`);
    for (const { name } of rows) {
      const policies = await client.query(
        `SELECT policyname AS p FROM pg_policies WHERE schemaname = 'upgrade' AND tablename = $1`,
        [name],
      );
      for (const { p } of policies.rows) await client.query(`DROP POLICY ${p} ON upgrade.${name}`);
      await client.query(`ALTER TABLE upgrade."${name}" DISABLE ROW LEVEL SECURITY`);
    }
    const desk = deskOf(old);
    await desk.open();
    let going = true;
    let accepted = 0;
    const load = Array.from({ length: 4 }, async (_, account) => {
      while (going) {
        await desk.accept({ account: account + 1, bulkId: `b${account}`, to: ['4917012345678'] });
        accepted++;
        await desk.settleAll(() => ({ kind: 'refused', error: { id: 15009 } }));
      }
    });
    while (accepted < 8) await env.clock.sleep(10);
    const before = accepted;
    // Two at once: one raises it, the other finds it there.
    const made = await Promise.all([open('upgrade'), open('upgrade')]);
    expect(made.map(({ wall }) => wall.role)).toEqual(
      [roleOf('postcard'), roleOf('postcard')].map(() => expect.any(String)),
    );
    while (accepted < before + 8) await env.clock.sleep(10);
    going = false;
    await Promise.all(load);
    const [one] = made as [PostgresStore, PostgresStore];
    for (let account = 1; account <= 4; account++) {
      const ours = await one.logs({ account, limit: 10_000 });
      expect(ours.rows.length).toBe((await old.logs({ account, limit: 10_000 })).rows.length);
    }
    for (const store of [...made, old]) await store.close();
  });
});
