/**
 * The PostgreSQL engine against the store's conformance suite, with a clock of its own and with the database's, and what only
 * this engine has: several nodes on one database, lost connections and COMMIT answers, refusals at open, lane leases.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it. With
 * POSTCARD_TEST_POSTGRES_RESTART=<command> the server is crashed under load, too.
 */
import { execSync } from 'node:child_process';
import { hash, randomBytes } from 'node:crypto';
import { connect, createServer, type Server, type Socket } from 'node:net';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createAuth } from '../../src/api/auth.ts';
import type { Log } from '../../src/env.ts';
import { realEnv, testEnv } from '../../src/env.ts';
import {
  type Accepted,
  type Claim,
  ENDPOINTS_MAX,
  type MessageFilter,
  type Store,
  StoreUnavailable,
} from '../../src/store/contract.ts';
import { createLink } from '../../src/store/postgres/link.ts';
import { openPostgres, type PostgresStore } from '../../src/store/postgres/postgres.ts';
import { clusterPrograms, startCluster } from '../torture/cluster.ts';
import { accountsSuite } from './accounts.suite.ts';
import { bulkSuite } from './bulk.suite.ts';
import { accepted, createDesk, type Desk, type Harness, numbers, SECOND } from './desk.ts';
import { earlySuite } from './early.suite.ts';
import { enrouteSuite } from './enroute.suite.ts';
import { failoverSuite } from './failover.suite.ts';
import { hooksSuite } from './hooks.suite.ts';
import { inboundSuite } from './inbound.suite.ts';
import { linksSuite } from './links.suite.ts';
import { raceSuite } from './races.suite.ts';
import { spendSuite } from './spend.suite.ts';
import { storeSuite } from './store.suite.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
/** A shell command that restarts that server at once (immediate mode); its test is left out without it. */
const RESTART = process.env.POSTCARD_TEST_POSTGRES_RESTART;
const env = realEnv({ level: 'silent' });
const database = `postcard_test_${randomBytes(5).toString('hex')}`;

function urlOf(name: string): string {
  const url = new URL(SERVER as string);
  url.pathname = `/${name}`;
  return url.href;
}

/** A connection of the test's own. */
async function admin<Result>(name: string | null, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const client = new pg.Client({ connectionString: name === null ? (SERVER as string) : urlOf(name) });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

let schemas = 0;
const newSchema = (): string => `s${process.pid}_${++schemas}`;
const dropSchema = (schema: string) =>
  admin(database, (client) => client.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`));

interface NodeOptions {
  url?: string;
  testNow?: () => number;
  log?: Log;
}

function openNode(node: string, schema: string, options: NodeOptions = {}): Promise<PostgresStore> {
  const base = { url: urlOf(database), retentionMs: 7 * 86_400_000, log: env.log, clock: env.clock, soughtBlock: 200 };
  return openPostgres({ ...base, node, schema, ...options });
}

/** Somebody waits for a lock that this client has. */
async function waitedFor(client: pg.Client): Promise<void> {
  const waits = 'SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))';
  while ((await client.query(waits)).rows.length === 0) await env.clock.sleep(10);
}

/** For words of the desk around one node. */
function harnessOf(store: PostgresStore): Harness {
  const never = (): never => {
    throw new Error('not in these tests');
  };
  return { store, advance: never, now: () => env.clock.now(), crash: never, close: () => store.close() };
}

/** An empty store in a schema of its own. */
async function openHarness(moving: boolean): Promise<Harness> {
  const schema = newSchema();
  let now = Date.UTC(2026, 10, 24, 12);
  const open = () => openNode('test', schema, moving ? { testNow: () => now } : {});
  let store = await open();
  return {
    get store() {
      return store;
    },
    advance(ms) {
      if (!moving) throw new Error('this clock cannot be moved');
      now += ms;
    },
    now: () => (moving ? now : Date.now()),
    async crash() {
      await store.close();
      store = await open();
      // The leases of a dead node end by time here; the suite's crash means that they have.
      await admin(database, async (client) => {
        await client.query(`UPDATE ${schema}.flight SET lease_until = 0`);
        await client.query(`UPDATE ${schema}.hook SET due_at = 0 WHERE leased`);
      });
    },
    async close() {
      await store.close();
      await dropSchema(schema);
    },
  };
}

/** A TCP proxy before the server: cuts connections, at once or at a COMMIT. */
async function openProxy() {
  const target = new URL(SERVER as string);
  const open = new Set<Socket>();
  let cutAtCommit: 'before' | 'after' | null = null;
  let silent = false;
  let cuts = 0;
  const server: Server = createServer((client) => {
    const peer = connect(Number(target.port || 5432), target.hostname);
    open.add(client);
    open.add(peer);
    let answersDropped = false;
    const cut = (): void => {
      cuts += 1;
      client.destroy();
      peer.destroy();
    };
    client.on('data', (data) => {
      if (silent) return;
      // A simple query: 'Q', its length, the text. What was sent before it may come in one piece with it.
      const last = data.subarray(-12);
      const commit = last.length === 12 && last[0] === 0x51 && last.subarray(5, 11).toString() === 'COMMIT';
      if (commit && cutAtCommit === 'before') {
        cutAtCommit = null;
        cut();
        return;
      }
      if (commit && cutAtCommit === 'after') {
        cutAtCommit = null;
        answersDropped = true;
      }
      peer.write(data);
    });
    peer.on('data', (data) => {
      if (answersDropped) cut();
      else if (!silent) client.write(data);
    });
    for (const [one, other] of [
      [client, peer],
      [peer, client],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        if (!silent) other.destroy();
      });
    }
  });
  const listen = (on: number): Promise<void> => new Promise((resolve) => server.listen(on, '127.0.0.1', resolve));
  await listen(0);
  const { port } = server.address() as { port: number };
  return {
    url: (name: string): string => {
      const url = new URL(urlOf(name));
      url.hostname = '127.0.0.1';
      url.port = String(port);
      return url.href;
    },
    cutAtCommit: (when: 'before' | 'after'): void => {
      cutAtCommit = when;
    },
    cuts: (): number => cuts,
    cutAll: (): void => {
      for (const socket of open) socket.destroy();
    },
    /** Half-open from now on: what is connected hears nothing more; new connections work. */
    goSilent(): void {
      silent = true;
      for (const socket of open) socket.pause();
      setImmediate(() => {
        silent = false;
      });
    },
    start: (): Promise<void> => listen(port),
    async close(): Promise<void> {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

describe.skipIf(!SERVER)('postgres', () => {
  beforeAll(async () => {
    await admin(null, (client) => client.query(`CREATE DATABASE ${database}`));
  });
  afterAll(async () => {
    await admin(null, (client) => client.query(`DROP DATABASE ${database} WITH (FORCE)`));
  });

  storeSuite('postgres engine', { open: () => openHarness(true), clock: true });
  bulkSuite('postgres engine', () => openHarness(true));
  earlySuite('postgres engine', () => openHarness(true));
  enrouteSuite('postgres engine', () => openHarness(true));
  accountsSuite('postgres engine', () => openHarness(true));
  failoverSuite('postgres engine', () => openHarness(true));
  spendSuite('postgres engine', () => openHarness(true));
  hooksSuite('postgres engine', () => openHarness(true));
  linksSuite('postgres engine', () => openHarness(true));
  inboundSuite('postgres engine', () => openHarness(true));
  raceSuite('postgres engine', { open: () => openHarness(true), clock: true });
  storeSuite('postgres by its own clock', { open: () => openHarness(false), clock: false });

  describe('what is taken away on one node', () => {
    /** Of a second node; `deaf` = no hint reaches it. Its clock stands still until told to move. */
    async function elsewhere(schema: string, deaf: boolean) {
      const store = await openNode('two', schema);
      const quiet = testEnv();
      const heard: Store = deaf ? { ...store, onHint: () => undefined } : store;
      const auth = await createAuth(heard, quiet, { N: 1024, r: 8, p: 1 });
      const close = async (): Promise<void> => {
        auth.close();
        await store.close();
      };
      return { auth, clock: quiet.clock, close };
    }

    it.each([
      ['at once by the hint', false],
      ['within five seconds where no hint comes', true],
    ])('counts on all others %s: keys, users, their sessions', async (_, deaf) => {
      const schema = newSchema();
      const one = await openNode('one', schema);
      const two = await elsewhere(schema, deaf);
      try {
        const deed = { by: 'test', action: 'x', account: 1, detail: {} };
        const key = {
          ...{
            id: 'k',
            hash: hash('sha256', 'a-key'),
            account: 1,
            label: 'k',
            createdAt: 0,
            scopes: null,
            validFrom: null,
          },
          ...{ validUntil: null, allow: [], revokedAt: null, requestsPerMinute: null },
        };
        await one.putKey({ hash: 'h', account: 1, label: 'first' }, false);
        const password = await two.auth.passwords.made('anna', 'a password');
        const login = { kind: 'put', what: 'login', name: 'anna', account: 1 } as const;
        await one.administer(
          [
            { kind: 'key', key },
            { ...login, body: { user: 'anna', scopes: null, password } },
          ],
          deed,
        );
        await two.auth.refresh();
        const opened = await two.auth.open('anna', 'a password', 'IBSSO', '192.0.2.1');
        const ways = [
          'App a-key',
          `Basic ${Buffer.from('anna:a password').toString('base64')}`,
          `IBSSO ${(opened as { token: string }).token}`,
        ];
        const letIn = () =>
          Promise.all(ways.map(async (way) => ((await two.auth.caller(way, '192.0.2.1')) as object | null) !== null));
        expect(await letIn()).toEqual([true, true, true]);
        await one.administer(
          [
            { kind: 'key', key: { ...key, revokedAt: 1 } },
            { kind: 'drop', what: 'login', name: 'anna', account: 1 },
          ],
          deed,
        );
        if (deaf) {
          expect(await letIn()).toEqual([true, true, true]);
          await two.clock.advance(5_000);
        }
        await expect.poll(letIn, { timeout: 20_000 }).toEqual([false, false, false]);
      } finally {
        await two.close();
        await one.close();
        await dropSchema(schema);
      }
    });
  });

  describe('what operators do on two nodes at the same time', () => {
    it('is all done, and once where it is said twice: credits, and changes of what both have read', async () => {
      const schema = newSchema();
      const nodes = await Promise.all([openNode('one', schema), openNode('two', schema)]);
      try {
        const [one, two] = nodes as [PostgresStore, PostgresStore];
        const deed = { by: 'test', action: 'x', account: 1, detail: {} };
        await one.putKey({ hash: 'h', account: 1, label: 'first' }, false);
        const credit = (store: PostgresStore, amount: number, key?: string) =>
          store.administer(
            [{ kind: 'credit', account: 1, amount, once: key === undefined ? null : { key, hash: `${amount}` } }],
            deed,
          );
        const spend = async () => (await two.directory(-1))?.accounts[0]?.limits.spend?.amount;
        await Promise.all(Array.from({ length: 40 }, (_, n) => credit(n % 2 === 0 ? one : two, 1)));
        expect(await spend()).toBe(40);
        const same = await Promise.all(Array.from({ length: 6 }, (_, n) => credit(n % 2 === 0 ? one : two, 5, 'once')));
        expect(same.filter((done) => done.kind === 'done' && done.credits[0]?.repeated === false)).toHaveLength(1);
        expect(await spend()).toBe(45);

        // Each reads, adds its sender to what it has read, and writes; where the other was faster it reads again.
        const names: string[] = [];
        const add = async (store: PostgresStore, name: string): Promise<void> => {
          for (;;) {
            const found = await store.directory(-1);
            const before = found?.accounts[0];
            if (!found || !before) throw new Error('no directory');
            const entity = before.entity === null ? name : `${before.entity} ${name}`;
            const change = { kind: 'account', no: 1, name: before.name, settings: { ...before, entity } } as const;
            const done = await store.administer([change], deed, { at: found.revision });
            if (done.kind === 'stale') continue;
            expect(done.kind).toBe('done');
            names.push(name);
            return;
          }
        };
        await Promise.all(Array.from({ length: 8 }, (_, n) => add(n % 2 === 0 ? one : two, `n${n}`)));
        const after = (await one.directory(-1))?.accounts[0]?.entity?.split(' ') ?? [];
        expect(after.sort()).toEqual(names.sort());
        expect(after).toHaveLength(8);
      } finally {
        await Promise.all(nodes.map((store) => store.close()));
        await dropSchema(schema);
      }
    });

    it('is refused whole where the account itself takes the last place for an endpoint meanwhile', async () => {
      const schema = newSchema();
      const store = await openNode('one', schema);
      try {
        await store.putKey({ hash: 'h', account: 1, label: 'first' }, false);
        const endpoint = (url: string) => ({ kind: 'endpoint', put: { account: 1, kind: 'click', url } }) as const;
        const deed = { by: 'test', action: 'x', account: 1, detail: {} };
        const most = Array.from({ length: ENDPOINTS_MAX - 1 }, (_, n) => endpoint(`https://c.example/${n}`));
        expect((await store.administer(most, deed)).kind).toBe('done');
        const sender = { kind: 'put', what: 'sender', name: '1 s', account: 1, body: { sender: 's' } } as const;
        const done = await admin(database, async (client) => {
          // As the account's own request: it holds the lock while the operator's change is judged, and writes.
          await client.query("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('endpoint settings 1', 0))");
          const asked = store.administer([sender, endpoint('https://last.example/')], deed);
          const waits = `SELECT count(*)::integer AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
          await expect.poll(async () => (await client.query<{ n: number }>(waits)).rows[0]?.n).toBe(1);
          await client.query(`INSERT INTO ${schema}.endpoint_setting (account, kind, url, content_type, standard, secrets, headers)
            VALUES (1, 2, 'https://own.example/', 'application/json', false, '[]', '{}')`);
          await client.query('COMMIT');
          return asked;
        });
        expect(done).toEqual({ kind: 'refused', change: 1, why: 'endpoints' });
        const urls = (await store.endpointList(1)).map(({ url }) => url);
        expect([urls.length, urls.includes('https://own.example/')]).toEqual([ENDPOINTS_MAX, true]);
        expect((await store.directory(-1))?.senders).toEqual([]);
      } finally {
        await store.close();
        await dropSchema(schema);
      }
    });
  });

  describe('lost connections', () => {
    let proxy: Awaited<ReturnType<typeof openProxy>>;
    let store: PostgresStore;
    let desk: Desk;
    let schema: string;

    beforeEach(async () => {
      proxy = await openProxy();
      schema = newSchema();
      store = await openNode('a', schema, { url: proxy.url(database) });
      desk = createDesk(harnessOf(store));
      await desk.open();
    });
    afterEach(async () => {
      await store.close();
      await proxy.close();
      await dropSchema(schema);
    });

    it('an accept whose COMMIT answer is lost is told the truth, and is stored once', async () => {
      await desk.one();
      const rows = await desk.request({ to: numbers(3), keys: [[0, 'mine']] });
      proxy.cutAtCommit('after');
      const answer = await store.accept(rows);
      expect(proxy.cuts()).toBe(1);
      expect(answer).toMatchObject({ kind: 'accepted', first: rows.first, duplicates: [] });
      expect(await desk.logs()).toHaveLength(4);
      expect((await store.story(1, { key: 'mine' }))?.message.no).toBe(rows.first + 2);
    });

    it('an accept whose COMMIT never arrived is done again, once', async () => {
      await desk.one();
      const rows = await desk.request({ to: numbers(3) });
      proxy.cutAtCommit('before');
      expect(await store.accept(rows)).toMatchObject({ kind: 'accepted', first: rows.first });
      expect(proxy.cuts()).toBe(1);
      expect(await desk.logs()).toHaveLength(4);
    });

    it('claims and settles whose COMMIT answer is lost happen once', async () => {
      const { nos } = await desk.accept({ to: numbers(4) });
      proxy.cutAtCommit('after');
      const { claims } = await desk.claim(4);
      expect(claims.map((claim) => claim.leader)).toEqual(nos);
      expect((await desk.claim(4)).claims).toEqual([]);
      proxy.cutAtCommit('after');
      const settled = await Promise.all(claims.map((claim) => desk.settle(claim, accepted(`m${claim.leader}`))));
      expect(settled).toEqual([true, true, true, true]);
      expect(proxy.cuts()).toBe(2);
      for (const no of nos) expect((await desk.story(no)).attempts).toHaveLength(1);
    });

    it('goes on after all connections are cut, and after the server ended all sessions in the middle of work', async () => {
      const lost: unknown[] = [];
      const answers: Accepted[] = [];
      let sending = true;
      const load = Array.from({ length: 8 }, async () => {
        while (sending) {
          try {
            const { answer } = await desk.accept({ to: numbers(2) });
            answers.push(answer);
          } catch (error) {
            lost.push(error);
            await env.clock.sleep(20);
          }
        }
      });
      for (let cut = 0; cut < 4; cut++) {
        await env.clock.sleep(150);
        if (cut % 2 === 0) proxy.cutAll();
        else {
          await admin(null, (client) =>
            client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [database]),
          );
        }
      }
      await env.clock.sleep(300);
      sending = false;
      await Promise.all(load);
      expect(answers.length).toBeGreaterThan(20);
      for (const error of lost) expect(error).toBeInstanceOf(StoreUnavailable);
      // What was acknowledged is there, and nothing else.
      expect((await desk.logs({ limit: 100_000 })).length).toBe(answers.length * 2);
    });

    it('notices connections that went silent and works again within 30 s', async () => {
      await desk.one();
      proxy.goSilent();
      const began = performance.now();
      for (;;) {
        try {
          await desk.one();
          break;
        } catch (error) {
          expect(error).toBeInstanceOf(StoreUnavailable);
        }
      }
      expect(performance.now() - began).toBeLessThan(30 * SECOND);
    });

    it.skipIf(!RESTART)('outlives a crash of the server under load', { timeout: 120_000 }, async () => {
      const direct = await openNode('b', schema);
      const own = createDesk(harnessOf(direct));
      await own.open();
      const answers: Accepted[] = [];
      let sending = true;
      let since = Number.POSITIVE_INFINITY;
      let healed = Number.POSITIVE_INFINITY;
      const load = Array.from({ length: 16 }, async () => {
        while (sending) {
          try {
            answers.push((await own.accept({ to: numbers(2) })).answer);
            healed = Math.min(healed, performance.now() - since);
          } catch (error) {
            expect(error).toBeInstanceOf(StoreUnavailable);
            await env.clock.sleep(20);
          }
        }
      });
      await env.clock.sleep(300);
      execSync(RESTART as string, { stdio: 'ignore' });
      since = performance.now();
      while (healed > 30 * SECOND && performance.now() - since < 40 * SECOND) await env.clock.sleep(50);
      await env.clock.sleep(300);
      sending = false;
      await Promise.all(load);
      expect(healed).toBeLessThan(30 * SECOND);
      expect((await own.logs({ limit: 1_000_000 })).length).toBe(answers.length * 2);
      await direct.close();
    });

    it('answers fast that it is away while nothing listens there, and comes back by itself', async () => {
      await proxy.close();
      await expect(desk.one()).rejects.toBeInstanceOf(StoreUnavailable);
      await env.clock.sleep(2_000);
      // The quickest of some: the machine may keep any single one waiting.
      let quickest = Number.POSITIVE_INFINITY;
      for (let n = 0; n < 5; n++) {
        const began = performance.now();
        await expect(desk.one()).rejects.toBeInstanceOf(StoreUnavailable);
        quickest = Math.min(quickest, performance.now() - began);
      }
      expect(quickest).toBeLessThan(500);
      await proxy.start();
      for (let tries = 0; ; tries++) {
        const no = await desk.one().catch(() => null);
        if (no !== null) break;
        expect(tries).toBeLessThan(300);
        await env.clock.sleep(100);
      }
    });
  });

  describe('several nodes', () => {
    let a: PostgresStore;
    let b: PostgresStore;
    let deskA: Desk;
    let deskB: Desk;
    let schema: string;

    beforeEach(async () => {
      schema = newSchema();
      // Together: one of them makes the schema, the other waits.
      [a, b] = await Promise.all([openNode('a', schema), openNode('b', schema)]);
      deskA = createDesk(harnessOf(a));
      deskB = createDesk(harnessOf(b));
      await deskA.open();
      await deskB.open();
    });
    afterEach(async () => {
      await Promise.all([a.close(), b.close()]);
      await dropSchema(schema);
    });

    it('share name, numbers and lanes', async () => {
      expect(await b.identity()).toEqual(await a.identity());
      expect(deskB.lane).toBe(deskA.lane);
      const [one, two] = await Promise.all([a.reserve(100), b.reserve(100)]);
      expect(Math.abs(one - two)).toBeGreaterThanOrEqual(100);
    });

    it('claim one lane at the same time and never the same message, with or without a bulk', async () => {
      const all = new Set<number>();
      for (let request = 0; request < 20; request++) {
        const bulk = request % 4 === 0 ? {} : { bulkId: `b${request % 4}` };
        const { nos } = await (request % 2 ? deskA : deskB).accept({
          account: 1 + (request % 3),
          to: numbers(40),
          ...bulk,
        });
        for (const no of nos) all.add(no);
      }
      const seen: number[] = [];
      const worker = async (desk: Desk): Promise<void> => {
        for (let empty = 0; empty < 20; ) {
          const { claims } = await desk.claim(16);
          empty = claims.length === 0 ? empty + 1 : 0;
          seen.push(...claims.map((claim) => claim.leader));
          await Promise.all(claims.map((claim) => desk.settle(claim, accepted(`x${claim.leader}`))));
        }
      };
      await Promise.all([worker(deskA), worker(deskB), worker(deskA), worker(deskB)]);
      expect(seen).toHaveLength(all.size);
      expect(new Set(seen)).toEqual(all);
    });

    it('what a full claim visited is put to rest behind its answer, by itself, and what came meanwhile stays due', async () => {
      for (let n = 0; n < 8; n++) await deskA.one({ bulkId: `bulk-${n}` });
      const { claims, nextDue, now } = await deskA.claim(8);
      expect(claims).toHaveLength(8);
      expect(nextDue).toBeLessThanOrEqual(now);
      const again = await deskA.one({ bulkId: 'bulk-3' });
      const due = (): Promise<number> =>
        admin(database, async (client) => {
          const { rows } = await client.query(`SELECT count(*) AS n FROM ${schema}.line WHERE due_at IS NOT NULL`);
          return Number(rows[0].n);
        });
      // Nobody claims: only what it owes is done.
      for (let n = 0; n < 1_000 && (await due()) > 1; n++) await env.clock.sleep(10);
      expect(await due()).toBeLessThanOrEqual(1);
      expect((await deskB.claim(8)).claims.map(({ leader }) => leader)).toEqual([again]);
    });

    it('a claim of one passes over lines that another node has emptied', async () => {
      for (let n = 0; n < 6; n++) await deskA.one({ bulkId: `bulk-${n}` });
      await deskA.claim(6);
      const no = await deskA.one({ bulkId: 'late' });
      const { claims } = await deskB.claim(1);
      expect(claims.map(({ leader }) => leader)).toEqual([no]);
    });

    it('lose no wake-up while both accept and both claim', async () => {
      const sent = new Set<number>();
      const seen = new Set<number>();
      let accepting = true;
      const accept = async (desk: Desk): Promise<void> => {
        for (let n = 0; n < 60; n++) sent.add(await desk.one());
      };
      const claim = async (desk: Desk): Promise<void> => {
        while (accepting || seen.size < sent.size) {
          for (const one of (await desk.claim(8)).claims) {
            seen.add(one.leader);
            await desk.settle(one, accepted(`y${one.leader}`));
          }
        }
      };
      const claimers = Promise.all([claim(deskA), claim(deskB)]);
      await Promise.all([accept(deskA), accept(deskB), accept(deskA)]);
      accepting = false;
      await claimers;
      expect(seen).toEqual(sent);
    });

    it('claim, steer and sweep the lines of many accounts beside each other and never wait in a circle', async () => {
      const accounts = Array.from({ length: 30 }, (_, n) => n + 1);
      const deadlocks = () =>
        admin(database, async (client) => {
          const rows = await client.query('SELECT deadlocks::int AS n FROM pg_stat_database WHERE datname = $1', [
            database,
          ]);
          return rows.rows[0].n as number;
        });
      const before = await deadlocks();
      for (const account of accounts) await deskA.accept({ account, to: numbers(6), bulkId: 'b' });
      let working = true;
      let seen = 0;
      const claim = async (desk: Desk): Promise<void> => {
        while (working) {
          const { claims } = await desk.claim(40);
          seen += claims.length;
          await Promise.all(claims.map((one) => desk.settle(one, accepted(`z${one.leader}`))));
        }
      };
      const steer = async (desk: Desk): Promise<void> => {
        for (const kind of ['pause', 'resume'] as const) {
          for (const account of accounts) await desk.store.bulkSteer(account, { id: 'b' }, [{ kind }]);
        }
      };
      const accept = async (desk: Desk, order: number[]): Promise<void> => {
        for (const account of order) await desk.accept({ account, to: numbers(2) });
      };
      const claimers = Promise.all([claim(deskA), claim(deskB)]);
      await Promise.all([steer(deskA), accept(deskA, accounts), accept(deskB, [...accounts].reverse())]);
      await Promise.all([steer(deskB), accept(deskA, [...accounts].reverse()), accept(deskB, accounts)]);
      working = false;
      await claimers;
      expect(seen).toBeGreaterThan(accounts.length);
      // A session tells its figures within a second of its last transaction.
      await env.clock.sleep(1_500);
      expect(await deadlocks()).toBe(before);
    });

    it('look at a bounded number of messages for one page of logs, and get to the end', async () => {
      const oldest = await deskA.accept({ to: ['491700000001'], bulkId: 'old' });
      const { nos, spec } = await deskA.accept({ to: numbers(2), bulkId: 'big' });
      const [first] = nos as [number];
      const count = 450_000;
      await admin(database, async (client) => {
        await client.query(`SET search_path = ${schema}`);
        await client.query('UPDATE spec SET "end" = $1::bigint + $2 WHERE no = $3', [first, count, spec]);
        await client.query(
          `INSERT INTO message (no, account, spec, "to", state, status, error)
           SELECT no, 1, $1, '441134960000', 0, 26, 0 FROM generate_series($2::bigint + 2, $2::bigint + $3 - 1) AS g(no)`,
          [spec, first, count],
        );
        await client.query('ANALYZE message');
      });
      const find = async (filter: Omit<MessageFilter, 'account' | 'limit'>) => {
        const found: number[] = [];
        let pages = 0;
        for (let before: number | undefined; ; pages++) {
          const page = await a.logs({ account: 1, limit: 50, ...filter, ...(before === undefined ? {} : { before }) });
          found.push(...page.rows.map((row) => row.no));
          if (page.next === null) return { found, pages: pages + 1 };
          expect(page.next).toBeLessThan(before ?? Number.MAX_SAFE_INTEGER);
          before = page.next;
        }
      };
      // By the marks of destinations; where too many messages have none yet, through all of them.
      expect(await find({ destination: '491700000001' })).toEqual({ found: oldest.nos, pages: 1 });
      await admin(database, (client) =>
        client.query(`UPDATE ${schema}.unsought SET "end" = $1::bigint + $2 WHERE spec = $3`, [first, count, spec]),
      );
      expect(await find({ destination: '491700000001' })).toEqual({ found: oldest.nos, pages: 3 });
      // By the requests of the bulk: one is looked at as a whole, however large.
      expect(await find({ destination: '491700000001', bulks: { nos: [], ids: ['big'] } })).toEqual({
        found: [],
        pages: 1,
      });
      expect(await find({ bulks: { nos: [], ids: ['old'] } })).toEqual({ found: oldest.nos, pages: 1 });
      const page = await a.logs({ account: 1, limit: 50, bulks: { nos: [], ids: ['big'] } });
      expect(page.rows.map((row) => row.no)).toEqual(Array.from({ length: 50 }, (_, n) => first + count - 1 - n));
    });

    it('keep the speed limit of a bulk together', async () => {
      await deskA.accept({ to: numbers(30), bulkId: 'slow', every: 20 });
      const turns: number[] = [];
      const until = performance.now() + 30 * SECOND;
      const worker = async (desk: Desk): Promise<void> => {
        while (turns.length < 20 && performance.now() < until) {
          for (const one of (await desk.claim(4)).claims) turns.push(one.notBeforeUs);
        }
      };
      await Promise.all([worker(deskA), worker(deskB)]);
      turns.sort((x, y) => x - y);
      expect(turns.length).toBeGreaterThanOrEqual(20);
      for (let n = 1; n < turns.length; n++) {
        expect((turns[n] as number) - (turns[n - 1] as number)).toBeGreaterThanOrEqual(20_000);
      }
    });

    it('steer, send from, sweep and cancel one bulk together: nothing leaves against it, and its figures are exact', async () => {
      const name = { id: 'b' };
      for (let n = 0; n < 6; n++) await deskA.accept({ to: numbers(60, 100 * n), bulkId: 'b', groups: [3, 2] });
      let working = true;
      let canceled = false;
      let late = 0;
      const taken: string[] = [];
      const claim = async (desk: Desk): Promise<void> => {
        for (let n = 0; working; n++) {
          const gone = canceled;
          const { claims } = await desk.claim(5);
          if (gone) late += claims.length;
          await Promise.all(
            claims.map(async (one) => {
              const id = `y${one.leader}`;
              const kind = (one.leader + n) % 4;
              if (kind === 0)
                return desk.settle(one, { kind: 'deferred', error: { id: 15000, words: 'busy' }, retryAfterMs: 1000 });
              if (kind === 1) return desk.settle(one, { kind: 'refused', error: { id: 15009, words: 'no' } });
              taken.push(id);
              return desk.settle(one, accepted(id));
            }),
          );
        }
      };
      const sweep = async (desk: Desk): Promise<void> => {
        while (working) if (!(await desk.store.sweep())) await env.clock.sleep(5);
      };
      const workers = Promise.all([claim(deskA), claim(deskB), sweep(deskA), sweep(deskB)]);
      for (let round = 0; round < 6; round++) {
        const [one, other] = round % 2 === 0 ? [a, b] : [b, a];
        expect(await one.bulkSteer(1, name, [{ kind: 'pause' }])).toMatchObject({ kind: 'done' });
        expect(await other.bulkSteer(1, name, [{ kind: 'reschedule', sendAt: 0 }])).toMatchObject({ kind: 'done' });
        const both = [one, other].map((node, n) =>
          node.bulkSteer(
            1,
            name,
            n === 0 ? [{ kind: 'resume' }] : [{ kind: 'limit', speed: { amount: 60_000 + round } }],
          ),
        );
        for (const { kind } of await Promise.all(both)) expect(kind).toBe('done');
        await env.clock.sleep(60);
      }
      expect(await b.bulkSteer(1, name, [{ kind: 'cancel' }])).toMatchObject({ kind: 'done' });
      canceled = true;
      // What was in flight has landed and is called back.
      await env.clock.sleep(2_500);
      working = false;
      await workers;
      expect(late).toBe(0);
      await deskA.sweep();
      const { rows } = await a.logs({ account: 1, limit: 1000 });
      const count = (from: number, to: number): number =>
        rows.filter(({ state }) => state >= from && state <= to).length;
      const bulk = await b.bulkGet(1, name);
      expect(bulk).toMatchObject({ status: 'CANCELED', progress: { accepted: 360, waiting: 0 } });
      expect(bulk?.progress).toEqual({
        accepted: 360,
        waiting: count(0, 0),
        sent: count(1, 2),
        delivered: count(3, 3),
        failed: count(4, 6),
      });
      expect(taken.length).toBeGreaterThan(0);
      // Each has one end, told once.
      const told = await deskA.pull();
      expect(new Set(told.map((row) => row.no)).size).toBe(told.length);
      expect(told.length).toBe(bulk?.progress.failed);
    });

    it('a report on one node and the settle that teaches its id on another find each other, whoever is first', async () => {
      const { nos } = await deskA.accept({ to: numbers(40) });
      const { claims } = await deskA.claim(40);
      expect(claims).toHaveLength(40);
      await Promise.all(
        claims.flatMap((claim) => [
          deskA.settle(claim, accepted(`r${claim.leader}`)),
          deskB.report(`r${claim.leader}`, 'retrieved'),
        ]),
      );
      for (const no of nos) expect(await deskA.status(no)).toEqual([5, 0]);
    });

    it('a report that comes while the settle that teaches its id is not committed yet is not parked for ever', async () => {
      const no = await deskA.one();
      const claim = await deskA.claimOne();
      await admin(database, async (client) => {
        // The settle stands still at its message, after it has met the id.
        await client.query('BEGIN');
        await client.query(`SELECT 1 FROM ${schema}.message WHERE no = $1 FOR UPDATE`, [no]);
        const settled = deskA.settle(claim, accepted('w'));
        await env.clock.sleep(300);
        const reported = deskB.report('w', 'retrieved');
        await env.clock.sleep(300);
        await client.query('ROLLBACK');
        expect(await settled).toBe(true);
        expect(await reported).toBe(true);
      });
      expect(await deskA.status(no)).toEqual([5, 0]);
    });

    it('a report whose id is taught at that moment locks what it is about in one order with all others that came with it', async () => {
      const { nos } = await deskA.accept({ to: numbers(2) });
      const [low, high] = nos as [number, number];
      const claim = (await deskA.claim()).claims.find(({ leader }) => leader === high);
      await deskA.settle(claim as Claim, accepted('known'));
      const clients = [0, 1].map(() => new pg.Client({ connectionString: urlOf(database) }));
      const [teacher, holder] = clients as [pg.Client, pg.Client];
      await Promise.all(clients.map((client) => client.connect()));
      try {
        await admin(database, async (watch) => {
          /** Resolves when somebody waits for a lock of this one's. */
          const waitedFor = async (client: pg.Client): Promise<void> => {
            const [{ pid }] = (await client.query('SELECT pg_backend_pid() AS pid')).rows as [{ pid: number }];
            const waiting = 'SELECT 1 FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))';
            await expect.poll(async () => (await watch.query(waiting, [pid])).rowCount, { timeout: 20_000 }).toBe(1);
          };
          await teacher.query('BEGIN');
          const teach = `INSERT INTO ${schema}.carrier_ref (lane, ref, leader, members) VALUES ($1, 'new', $2, 1)`;
          await teacher.query(teach, [deskA.lane, low]);
          await holder.query('BEGIN');
          await holder.query(`SELECT 1 FROM ${schema}.message WHERE no = $1 FOR UPDATE`, [low]);
          const reported = Promise.all([deskB.report('known', 'retrieved'), deskB.report('new', 'retrieved')]);
          await waitedFor(teacher);
          await teacher.query('COMMIT');
          await waitedFor(holder);
          const free = `SELECT no FROM ${schema}.message WHERE no = $1 FOR UPDATE SKIP LOCKED`;
          expect((await watch.query(free, [high])).rowCount).toBe(1);
          await holder.query('ROLLBACK');
          expect(await reported).toEqual([true, true]);
        });
      } finally {
        await Promise.all(clients.map((client) => client.end()));
      }
      for (const no of nos) expect(await deskA.status(no)).toEqual([5, 0]);
    });

    it('the same bulkId, key and messageId at the same moment are one bulk, one request, one message', async () => {
      for (let n = 0; n < 10; n++) {
        const idem = { key: `k${n}`, hash: 'h' };
        const [one, two] = await Promise.all([
          deskA.accept({ bulkId: `bulk${n}`, keys: [[0, `m${n}`]], idem }),
          deskB.accept({ bulkId: `bulk${n}`, keys: [[0, `m${n}`]], idem }),
        ]);
        expect([one.answer.kind, two.answer.kind].sort()).toEqual(['accepted', 'replayed']);
        const [three, four] = await Promise.all([
          deskA.accept({ bulkId: `other${n}`, keys: [[0, `x${n}`]] }),
          deskB.accept({ bulkId: `other${n}`, keys: [[0, `x${n}`]] }),
        ]);
        expect(three.bulk).toBe(four.bulk);
        const duplicates = [three, four].map(({ answer }) => ('duplicates' in answer ? answer.duplicates.length : -1));
        expect(duplicates.sort()).toEqual([0, 1]);
      }
    });

    it('the feed passes no event that an open transaction may still bring', async () => {
      await deskA.delivered();
      const { last: start } = await a.feed(1, 0, 10);
      // Numbers taken by a transaction that stays open, as a slow node's would.
      await admin(database, async (client) => {
        await client.query(`SET search_path = ${schema}`);
        await client.query('BEGIN');
        await client.query('SELECT event_numbers(3)');
        await deskB.delivered();
        const during = await a.feed(1, start, 10);
        expect(during.rows).toEqual([]);
        expect(during.last).toBe(start);
        await client.query('COMMIT');
      });
      const after = await a.feed(1, start, 10);
      expect(after.rows.map((row) => row.status)).toEqual([3, 5]);
      expect(after.last).toBeGreaterThan(start);
    });

    it('hear of each other', async () => {
      const heard = new Promise<void>((resolve) => {
        b.onHint((hint) => {
          if (hint.kind === 'lane') resolve();
        });
      });
      await deskA.one();
      await heard;
    });

    it('leave the leases of others alone when one starts', async () => {
      const no = await deskA.one();
      const claim = await deskA.claimOne();
      const c = await openNode('c', schema);
      await c.sweep();
      await c.close();
      expect(await deskA.settle(claim, accepted('z'))).toBe(true);
      expect(await deskA.status(no)).toEqual([3, 0]);
    });
  });

  describe('lane leases', () => {
    it('share the lanes, give up for a new node, and take over from a dead one', async () => {
      const schema = newSchema();
      let now = Date.UTC(2026, 10, 24, 12);
      const store = await openNode('a', schema, { testNow: () => now });
      const lanes: number[] = [];
      for (const name of ['p', 'q', 'r', 's', 't']) {
        lanes.push(await store.lane(name, { onUnknown: 'hold', reports: true }));
      }
      const beat = (node: string): Promise<number[]> => store.laneLease(node, lanes, 30 * SECOND);
      expect(await beat('a')).toEqual(lanes);
      // A new node finds nothing free; the next beat of the other makes room.
      expect(await beat('b')).toEqual([]);
      const first = await beat('a');
      expect(first).toHaveLength(3);
      const second = await beat('b');
      expect([...first, ...second].sort((x, y) => x - y)).toEqual(lanes);
      now += 10 * SECOND;
      expect(await beat('a')).toEqual(first);
      expect(await beat('b')).toEqual(second);
      // a dies: its lanes are free when its lease is over.
      now += 29 * SECOND;
      expect(await beat('b')).toEqual(second);
      now += 2 * SECOND;
      expect(await beat('b')).toEqual(lanes);
      // b leaves: at once.
      expect(await store.laneLease('b', [], 0)).toEqual([]);
      expect(await beat('c')).toEqual(lanes);
      await store.close();
      await dropSchema(schema);
    });

    it('a busy carrier is shared too: each node gets its part of each carrier', async () => {
      const schema = newSchema();
      const store = await openNode('a', schema);
      const lanes = new Map<string, number[]>([
        ['busy', []],
        ['idle', []],
      ]);
      for (const [name, own] of lanes) {
        for (let shard = 0; shard < 4; shard++) {
          own.push(await store.lane(name, { onUnknown: 'hold', reports: true }, shard));
        }
      }
      const beat = (node: string): Promise<number[]> => store.laneLease(node, [...lanes.values()].flat(), 30 * SECOND);
      await beat('a');
      await beat('b');
      await beat('a');
      const second = await beat('b');
      for (const own of lanes.values()) expect(second.filter((lane) => own.includes(lane))).toHaveLength(2);
      await store.close();
      await dropSchema(schema);
    });
  });

  describe('what the server refuses', () => {
    let store: PostgresStore;
    let desk: Desk;
    let schema: string;

    beforeEach(async () => {
      schema = newSchema();
      store = await openNode('a', schema);
      desk = createDesk(harnessOf(store));
      await desk.open();
    });
    afterEach(async () => {
      await store.close();
      await dropSchema(schema);
    });

    /** Before each insert of a message to `to`, this happens. */
    const trap = (to: string, body: string) =>
      admin(database, async (client) => {
        await client.query(
          `CREATE FUNCTION ${schema}.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body}; RETURN NEW; END $$`,
        );
        await client.query(`CREATE TRIGGER trap BEFORE INSERT ON ${schema}.message FOR EACH ROW WHEN (NEW."to" = '${to}')
          EXECUTE FUNCTION ${schema}.trap()`);
      });

    it('a full disk is "try again later" for all who came together, stores nothing, and is over by itself', async () => {
      await trap('491', `RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'`);
      const both = await Promise.allSettled([desk.accept({ to: ['491'] }), desk.accept({ to: ['492'] })]);
      expect(both.map((one) => one.status === 'rejected' && one.reason instanceof StoreUnavailable)).toEqual([
        true,
        true,
      ]);
      expect(await desk.logs()).toEqual([]);
      await admin(database, (client) => client.query(`DROP TRIGGER trap ON ${schema}.message`));
      const no = await desk.one({ to: ['491'] });
      expect(await desk.logs()).toEqual([no]);
    });

    it('tells of claims of what an older version accepted as its spec says, and knows by the run of what this one did', async () => {
      const asked = await desk.one({ intermediate: true });
      const quiet = await desk.one({ to: numbers(1, 2) });
      const runs = (): Promise<unknown[]> =>
        admin(database, async (client) => {
          const { rows } = await client.query(`SELECT intermediate FROM ${schema}.run ORDER BY no`);
          await client.query(`UPDATE ${schema}.run SET intermediate = NULL`);
          return rows;
        });
      expect(await runs()).toEqual([{ intermediate: true }, { intermediate: false }]);
      expect((await desk.claim()).claims).toHaveLength(2);
      expect((await desk.story(asked)).events.map(({ status }) => status)).toEqual([7]);
      expect((await desk.story(quiet)).events).toEqual([]);
    });

    it('tells of no claim whose message has ended while its lock was waited for', async () => {
      const no = await desk.one({ intermediate: true });
      await admin(database, async (client) => {
        // As a report does that knows nothing of the retry, which a settle has made meanwhile.
        await client.query(`BEGIN; UPDATE ${schema}.message SET state = 3, status = 5, done_at = 1 WHERE no = ${no}`);
        const claiming = desk.claim();
        await waitedFor(client);
        await client.query('COMMIT');
        await claiming;
      });
      expect((await desk.story(no)).events).toEqual([]);
    });

    it('locks what it tells of in order, whatever lanes are claimed together', async () => {
      const second = await desk.laneOf('second');
      const of = async (lane: number): Promise<number> => desk.one({ intermediate: true, lane });
      const [low, high] = [await of(second), await of(desk.lane)];
      await admin(database, async (client) => {
        const lock = `SELECT 1 FROM ${schema}.message WHERE no = $1 FOR NO KEY UPDATE NOWAIT`;
        await client.query('BEGIN');
        await client.query(lock, [low]);
        // Lanes are served in the order of their numbers.
        const claiming = Promise.all([desk.claim(8, desk.lane), desk.claim(8, second)]);
        await waitedFor(client);
        // As a POST about both does: whoever waits for the first of them has not got the second.
        await client.query(lock, [high]);
        await client.query('COMMIT');
        expect((await claiming).map(({ claims }) => claims.length)).toEqual([1, 1]);
      });
      for (const no of [low, high]) expect((await desk.story(no)).events.map(({ status }) => status)).toEqual([7]);
    });

    it('a claim whose writes are refused behind its back takes nothing, says so, and is made anew', async () => {
      const nos = [await desk.one(), await desk.one({ bulkId: 'b' })];
      await admin(database, (client) =>
        client.query(`CREATE FUNCTION ${schema}.trap() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$;
          CREATE TRIGGER trap BEFORE INSERT ON ${schema}.flight FOR EACH ROW EXECUTE FUNCTION ${schema}.trap()`),
      );
      // The flights are written in one go with all that follows and the COMMIT.
      const refused = await store.claim(desk.lane, 10, 45_000).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(StoreUnavailable);
      expect(String(refused)).toMatch(/No space left/);
      await admin(database, (client) => client.query(`DROP TRIGGER trap ON ${schema}.flight`));
      const { claims } = await store.claim(desk.lane, 10, 45_000);
      expect(claims.map((one) => one.leader).sort()).toEqual(nos);
    });

    it('a statement that runs out of time harms none of those who came with it', async () => {
      await trap('491', 'PERFORM pg_sleep(30)');
      const both = await Promise.allSettled([desk.accept({ to: ['491'] }), desk.accept({ to: ['492'] })]);
      expect(both.map((one) => (one.status === 'rejected' ? one.reason instanceof StoreUnavailable : 'taken'))).toEqual(
        [true, 'taken'],
      );
      expect(await desk.logs()).toHaveLength(1);
    });

    it('a lock that somebody holds for long is "try again later", and over when it is given back', async () => {
      await admin(database, async (client) => {
        await client.query(`BEGIN; LOCK TABLE ${schema}.message IN EXCLUSIVE MODE`);
        await expect(desk.accept()).rejects.toBeInstanceOf(StoreUnavailable);
        await client.query('ROLLBACK');
      });
      const no = await desk.one();
      expect(await desk.logs()).toEqual([no]);
    });
  });

  describe.skipIf(clusterPrograms() === null)('a server of its own', () => {
    it('is refused where a crash could lose or damage what was acknowledged, and taken once that is set right', async () => {
      const cluster = await startCluster([]);
      const set = async (name: string, value: string): Promise<void> => {
        const client = new pg.Client({ connectionString: cluster.url('postgres') });
        await client.connect();
        await client.query(`ALTER SYSTEM SET ${name} = ${value}`);
        await client.query('SELECT pg_reload_conf()');
        // Read by each server process at its next turn.
        while ((await client.query(`SHOW ${name}`)).rows[0][name] !== value) await env.clock.sleep(20);
        await client.end();
      };
      const open = () => openNode('a', 's', { url: cluster.url('postgres') });
      try {
        for (const name of ['fsync', 'full_page_writes']) {
          await set(name, 'off');
          await expect(open()).rejects.toThrow(new RegExp(`${name} is off.*set ${name} = on`));
          await set(name, 'on');
        }
        const store = await open();
        expect(await store.reserve(1)).toBeGreaterThan(0);
        // Under a node at work as well: it takes nothing until that is set right.
        const taken = () =>
          store.reserve(1).then(
            () => true,
            (error: unknown) => {
              expect(error).toBeInstanceOf(StoreUnavailable);
              return false;
            },
          );
        await set('fsync', 'off');
        await expect.poll(taken, { timeout: 20_000 }).toBe(false);
        await set('fsync', 'on');
        await expect.poll(taken, { timeout: 20_000 }).toBe(true);
        await store.close();

        const places = { next: 0, end: 0 };
        const around = {
          node: 'a',
          purpose: 'test',
          writes: true,
          log: env.log,
          clock: env.clock,
          testNow: null,
          places,
        };
        const ends = { onLost: () => undefined, wall: { role: null } };
        const link = createLink({ url: cluster.url('postgres'), schema: 's', ...around, ...ends });
        const commits = async () => (await link.query<{ synchronous_commit: string }>('SHOW synchronous_commit'))[0];
        expect(await commits()).toEqual({ synchronous_commit: 'on' });
        await set('synchronous_commit', 'off');
        expect(await commits()).toEqual({ synchronous_commit: 'on' });
        await link.close();
      } finally {
        await cluster.close();
      }
    });
  });

  describe('refuses to open', () => {
    it('a server that cannot be reached, naming it without its password', async () => {
      const open = openNode('a', 'none', { url: 'postgres://someone:secret@127.0.0.1:1/nowhere' });
      await expect(open).rejects.toThrow(/127\.0\.0\.1:1\/nowhere/);
      await expect(open).rejects.not.toThrow(/secret/);
    });

    it('a schema that another login made and keeps to itself, saying so', async () => {
      const schema = newSchema();
      await (await openNode('a', schema)).close();
      const role = `stranger_${process.pid}`;
      const url = new URL(urlOf(database));
      [url.username, url.password] = [role, 'x'];
      await admin(database, (client) => client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'x'`));
      try {
        await expect(openNode('b', schema, { url: url.href })).rejects.toThrow(/may not use the schema/);
      } finally {
        await admin(database, (client) => client.query(`DROP ROLE ${role}`));
        await dropSchema(schema);
      }
    });

    it('a schema written by a newer version', async () => {
      const schema = newSchema();
      await (await openNode('a', schema)).close();
      await admin(database, (client) => client.query(`UPDATE ${schema}.schema_version SET version = version + 1`));
      await expect(openNode('a', schema)).rejects.toThrow(/newer Postcard/);
      await dropSchema(schema);
    });

    it('a database that takes no writes', async () => {
      const url = `${urlOf(database)}?options=${encodeURIComponent('-c default_transaction_read_only=on')}`;
      await expect(openNode('a', 's', { url })).rejects.toThrow(/default_transaction_read_only/);
    });

    it('not where synchronous_commit was lowered for it: it is raised again', async () => {
      const schema = newSchema();
      const url = `${urlOf(database)}?options=${encodeURIComponent('-c synchronous_commit=off')}`;
      const store = await openNode('a', schema, { url });
      const desk = createDesk(harnessOf(store));
      await desk.open();
      await admin(database, async (client) => {
        await client.query(`CREATE TABLE ${schema}.seen (value text)`);
        await client.query(`CREATE FUNCTION ${schema}.look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
          INSERT INTO ${schema}.seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$`);
        await client.query(
          `CREATE TRIGGER look BEFORE INSERT ON ${schema}.spec FOR EACH ROW EXECUTE FUNCTION ${schema}.look()`,
        );
      });
      await desk.one();
      const seen = await admin(database, (client) => client.query(`SELECT DISTINCT value FROM ${schema}.seen`));
      expect(seen.rows).toEqual([{ value: 'on' }]);
      await store.close();
      await dropSchema(schema);
    });

    it('uses the host that takes writes, of several in the URL', async () => {
      const { hostname, port } = new URL(SERVER as string);
      const schema = newSchema();
      const url = urlOf(database).replace(`${hostname}:${port}`, `127.0.0.1:1,${hostname}:${port}`);
      const store = await openNode('a', schema, { url });
      expect(await store.reserve(1)).toBeGreaterThan(0);
      await store.close();
      await dropSchema(schema);
    });
  });
});
