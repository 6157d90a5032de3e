/**
 * The n-th statement fails, for every n of every verb that writes on the PostgreSQL engine, once as a bug, once as a full disk:
 * statements are pipelined there, so most are sent before the one that fails is answered. The verb says what happened,
 * nothing of it is stored, and the same connection then does the same verb as if nothing had happened.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { realEnv } from '../../src/env.ts';
import {
  type Claims,
  type InboundIn,
  StoreUnavailable,
  type Webhook,
  type Webhooks,
} from '../../src/store/contract.ts';
import { openPostgres } from '../../src/store/postgres/postgres.ts';
import {
  accepted,
  createDesk,
  DAY,
  DEFERRED,
  type Desk,
  HOUR,
  LEASE,
  numbers,
  REFUSED,
  UNKNOWN,
} from '../conformance/desk.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
const database = `postcard_pipeline_${randomBytes(5).toString('hex')}`;
/** What differs from run to run although nothing was done: the marks of commits, and the clock. */
const RESTLESS = ['mark', 'high_water'];

/** Statements that fail: the n-th behind each BEGIN on every connection of a store, by that SQLSTATE. */
const fault = { n: 0, state: '', hit: false };

/** Wraps the client of the engine; gives back what puts it right again. */
function plantFaults(): () => void {
  const prototype = pg.Client.prototype as unknown as { query(...args: unknown[]): unknown };
  const { query } = prototype;
  const sent = new WeakMap<object, number>();
  prototype.query = function (this: object, ...args: unknown[]): unknown {
    const { text = '' } = (typeof args[0] === 'string' ? { text: args[0] } : args[0]) as { text?: string };
    if (text.startsWith('BEGIN')) sent.set(this, 0);
    else if (text === 'COMMIT' || text === 'ROLLBACK') sent.delete(this);
    else if (sent.has(this)) {
      const count = (sent.get(this) as number) + 1;
      sent.set(this, count);
      if (count === fault.n) {
        fault.hit = true;
        const planted = `DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '${fault.state}'; END $$`;
        return query.call(this, { text: planted });
      }
    }
    return query.apply(this, args);
  };
  return () => {
    prototype.query = query;
  };
}

function urlOf(name: string): string {
  const url = new URL(SERVER as string);
  url.pathname = `/${name}`;
  return url.href;
}

async function admin(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: SERVER as string });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

/** Every row of every table. */
async function dump(client: pg.Client, schema: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = '${schema}' ORDER BY 1`,
  );
  const parts = rows
    .filter(({ name }) => !RESTLESS.includes(name))
    .map(({ name }) => `SELECT '${name} ' || to_jsonb(t)::text AS row FROM ${schema}."${name}" t`);
  const all = await client.query<{ row: string }>(`${parts.join(' UNION ALL ')} ORDER BY 1`);
  return all.rows.map(({ row }) => row);
}

/** One verb on a store that has been prepared for it, and what is true when it is done. */
interface Prepared {
  act(): Promise<unknown>;
  done?(result: unknown): Promise<void>;
  /** It is several transactions: some of it may be stored when one of them fails. */
  steps?: true;
}

type Case = (desk: Desk, more: { sms: number; second: number; pass(ms: number): void }) => Promise<Prepared>;

const SHOP = 'https://shop.example/';
const way = (sms: number, second: number) => ({ alts: [second], sms: { lane: sms, validityMs: HOUR } });
const everything = (sms: number, second: number) => ({
  to: numbers(6),
  groups: [3],
  bulkId: 'b',
  endpoint: SHOP,
  intermediate: true,
  ways: way(sms, second),
});

const CASES: Record<string, Case> = {
  async accept(desk, { sms, second }) {
    const request = await desk.request({ ...everything(sms, second), idem: { key: 'k', hash: 'h' } });
    const act = () => desk.store.accept(request);
    return { act, done: async (result) => expect(result).toMatchObject({ kind: 'accepted' }) };
  },
  async claim(desk, { sms, second }) {
    await desk.accept(everything(sms, second));
    await desk.settle(await desk.claimOne(), DEFERRED);
    return { act: () => desk.claim(), done: async (result) => expect((result as Claims).claims).toHaveLength(3) };
  },
  async 'settle as accepted, with a report that came before'(desk, { sms, second }) {
    const { nos } = await desk.accept(everything(sms, second));
    const claim = await desk.claimOne();
    await desk.report('early', 'retrieved', { addresses: numbers(1) });
    const act = () => desk.settle(claim, accepted('early'));
    return { act, done: async () => expect(await desk.status(nos[0] as number)).toEqual([5, 0]) };
  },
  async 'settle as deferred'(desk) {
    const { nos } = await desk.accept({ to: numbers(2), endpoint: SHOP, intermediate: true });
    const claim = await desk.claimOne();
    const done = async () => expect((await desk.story(nos[0] as number)).attempts).toHaveLength(1);
    return { act: () => desk.settle(claim, DEFERRED), done };
  },
  async 'settle as refused, for an SMS'(desk, { sms, second }) {
    await desk.accept(everything(sms, second));
    const claim = await desk.claimOne();
    const done = async () => expect((await desk.claim(10, sms)).claims).toHaveLength(3);
    return { act: () => desk.settle(claim, REFUSED), done };
  },
  async 'settle as refused'(desk) {
    const no = await desk.one({ endpoint: SHOP });
    const claim = await desk.claimOne();
    const done = async () => expect(await desk.status(no)).toEqual([4, 15009]);
    return { act: () => desk.settle(claim, REFUSED), done };
  },
  async 'settle as unknown'(desk) {
    const no = await desk.one();
    const claim = await desk.claimOne();
    const done = async () => expect((await desk.story(no)).attempts).toMatchObject([{ outcome: 'unknown' }]);
    return { act: () => desk.settle(claim, UNKNOWN), done };
  },
  async release(desk) {
    await desk.one();
    const { token, leader } = await desk.claimOne();
    const done = async () => expect((await desk.claim()).claims).toHaveLength(1);
    return { act: () => desk.store.release([{ token, leader }], desk.h.now()), done };
  },
  async report(desk) {
    const no = await desk.one({ endpoint: SHOP });
    await desk.settle(await desk.claimOne(), accepted('id'));
    const done = async () => expect(await desk.status(no)).toEqual([5, 0]);
    return { act: () => desk.report('id', 'retrieved'), done };
  },
  async 'report that an SMS follows'(desk, { sms }) {
    await desk.one({ ways: { sms: { lane: sms, validityMs: HOUR } } });
    await desk.settle(await desk.claimOne(), accepted('id'));
    const done = async () => expect((await desk.claim(10, sms)).claims).toHaveLength(1);
    return { act: () => desk.report('id', 'unreachable'), done };
  },
  async 'sweep of what was in flight'(desk, { pass }) {
    const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b' });
    await desk.claim();
    pass(2 * LEASE);
    const done = async () => {
      await desk.sweep();
      expect((await desk.story(nos[0] as number)).attempts).toHaveLength(1);
    };
    return { act: () => desk.store.sweep(), steps: true, done };
  },
  async 'sweep of what is too late'(desk, { pass }) {
    const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', endpoint: SHOP, validityMs: HOUR });
    pass(2 * HOUR);
    const done = async () => {
      await desk.sweep();
      expect((await desk.status(nos[0] as number))[0]).toBe(15);
    };
    return { act: () => desk.store.sweep(), steps: true, done };
  },
  async 'taking webhooks'(desk) {
    await desk.delivered({ endpoint: SHOP });
    return {
      act: () => desk.webhooks(),
      done: async (result) => expect((result as Webhooks).webhooks).toHaveLength(1),
    };
  },
  async 'settling a webhook'(desk) {
    await desk.delivered({ endpoint: SHOP });
    const [hook] = (await desk.webhooks()).webhooks as [Webhook];
    return { act: () => desk.answer(hook, false, '{}'), done: async (result) => expect(result).toBe(true) };
  },
  async 'taking reports'(desk) {
    await desk.delivered();
    return { act: () => desk.pull(), done: async (result) => expect(result).toHaveLength(1) };
  },
  async 'cancelling a bulk'(desk) {
    const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b' });
    const done = async () => {
      await desk.sweep();
      expect((await desk.status(nos[2] as number))[0]).toBe(31);
    };
    return { act: () => desk.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]), done };
  },
  async 'moving lanes'(desk, { second }) {
    await desk.accept({ to: numbers(3), bulkId: 'b' });
    const done = async () => expect((await desk.claim(10, second)).claims).toHaveLength(3);
    return { act: () => desk.store.reroute('mmsc', 'other'), done };
  },
  async inbound(desk) {
    const own = { number: '44', account: 1, url: SHOP, entity: null, application: null, callbackData: null };
    await desk.store.numberPut(own);
    const [from] = numbers(1) as [string];
    const no = await desk.store.reserve(1);
    const lists = { to: ['44'], cc: [], parts: [] };
    const message: InboundIn = {
      no,
      carrier: 'm',
      id: 'i',
      channel: 'MMS',
      from,
      subject: null,
      answers: null,
      asks: 'stop',
      ...lists,
    };
    const done = async (result: unknown) => expect(result).toMatchObject({ kind: 'stored', owned: true });
    return { act: () => desk.store.inbound(message), done };
  },
};

const ERRORS = [
  { kind: 'a bug', state: 'P0001', says: pg.DatabaseError },
  { kind: 'a full disk', state: '53100', says: StoreUnavailable },
];
describe.skipIf(SERVER === undefined)('the n-th statement fails on PostgreSQL, for every n', () => {
  let restore = (): void => undefined;
  let client: pg.Client;
  beforeAll(async () => {
    await admin(`CREATE DATABASE ${database}`);
    client = new pg.Client({ connectionString: urlOf(database) });
    await client.connect();
    restore = plantFaults();
  });
  afterAll(async () => {
    restore();
    await client.end();
    await admin(`DROP DATABASE ${database} WITH (FORCE)`);
  });

  it.each(Object.entries(CASES).map(([name, prepare], at) => ({ name, prepare, schema: `s${at}` })))(
    '$name: nothing of it is stored, and then it is done as if nothing had happened',
    async ({ schema, prepare }) => {
      fault.n = 0;
      let now = Date.UTC(2026, 10, 24, 12);
      const { clock, log } = realEnv({ level: 'silent' });
      const base = { url: urlOf(database), retentionMs: 7 * DAY, log, clock, node: 'test', schema };
      const store = await openPostgres({ ...base, testNow: () => now });
      try {
        const none = async (): Promise<void> => undefined;
        const pass = (ms: number): void => {
          now += ms;
        };
        const desk = createDesk({ store, advance: pass, now: () => now, crash: none, close: none });
        await desk.open('retry');
        const sms = await store.lane('smsc', { onUnknown: 'hold', reports: true });
        const second = await store.lane('other', { onUnknown: 'hold', reports: true });
        const { act, done, steps } = await prepare(desk, { sms, second, pass });
        const before = await dump(client, schema);
        let ended = false;
        let n = 0;
        while (!ended) {
          n++;
          for (const { kind, state, says } of ERRORS) {
            Object.assign(fault, { n, state, hit: false });
            const result = await act().catch((thrown: unknown) => thrown);
            fault.n = 0;
            ended = !fault.hit;
            if (ended) {
              expect(result, 'without a fault').not.toBeInstanceOf(Error);
              await done?.(result);
              break;
            }
            expect(result, `statement ${n}, ${kind}`).toBeInstanceOf(says);
            if (!steps) expect(await dump(client, schema), `statement ${n}, ${kind}`).toEqual(before);
          }
        }
        expect(n, 'statements').toBeGreaterThan(1);
      } finally {
        fault.n = 0;
        await store.close();
      }
    },
  );
});
