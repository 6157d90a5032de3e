/**
 * The n-th statement fails, for every n of every verb that writes on the PostgreSQL engine, once as a bug, once as a full disk:
 * statements are pipelined there, so most are sent before the one that fails is answered. The verb says what happened,
 * nothing of it is stored, and the same connection then does the same verb as if nothing had happened.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import { createHash, randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Administered, DEFAULT_SETTINGS } from '../../src/domain/accounts.ts';
import type { Outcome } from '../../src/domain/submission.ts';
import { realEnv } from '../../src/env.ts';
import {
  type Claim,
  type Claims,
  type InboundIn,
  type Store,
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
  setNumber,
  UNKNOWN,
} from '../conformance/desk.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
const { clock, log } = realEnv({ level: 'silent' });
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
        return query.call(this, { text: planted }, ...args.slice(1));
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

/** Likewise, once what a claim writes behind its answer is there: the same twice in a row. */
async function settled(client: pg.Client, schema: string): Promise<string[]> {
  let last = await dump(client, schema);
  for (let n = 0; n < 100; n++) {
    await clock.sleep(50);
    const next = await dump(client, schema);
    if (next.join() === last.join()) return next;
    last = next;
  }
  throw new Error('what was prepared is never written');
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

/** Verbs that only ask (`identity` writes once, when the store is opened); all others have their cases below. */
type Asks =
  | 'identity'
  | 'uploadNames'
  | 'content'
  | 'variant'
  | 'webhookDeliveries'
  | 'endpointList'
  | 'inboundPart'
  | 'numberList'
  | 'optOutList'
  | 'logs'
  | 'story'
  | 'feed'
  | 'bulkGet'
  | 'bulkList'
  | 'link'
  | 'clicked'
  | 'clicks'
  | 'directory'
  | 'auditLog'
  | 'quotaUsed'
  | 'keys'
  | 'stats'
  | 'onHint'
  | 'close';

const DEED = { by: 'ops', action: 'change', account: null, detail: {} };
const [HANDSET] = numbers(1) as [string];
const OWN = { number: '44', account: 1, url: SHOP, entity: null, application: null, callbackData: null };
const OUT = { sender: 'Shop', destination: HANDSET };
const JOB = { spec: 0, segment: 0 };
const UPLOAD = { account: 1, id: 'pic', name: 'p.jpg', hash: 'aa'.repeat(32), contentType: 'image/jpeg', size: 3 };
const ENDPOINT = { account: 1, kind: 'delivery', url: SHOP } as const;
const SESSION = { hash: 'h', user: 'anna', kind: 'IBSSO', ttlMs: HOUR, idle: true } as const;
const TRACKED = { urls: [SHOP], clicks: true, url: SHOP, callbackData: null, keepMs: DAY };
const KEY = {
  id: 'k1',
  hash: 'ab'.repeat(32),
  label: 'shop',
  createdAt: 5,
  scopes: null,
  validFrom: null,
  validUntil: null,
  allow: [],
  revokedAt: null,
  requestsPerMinute: null,
};
const TAKE = { account: 1, scope: 'requests', bucket: 1, buckets: 2, want: 3, least: 1, most: 5, keepMs: HOUR };

/** Of an inbound message that asks to be left alone. */
async function inboundOf({ store }: Desk): Promise<InboundIn> {
  const no = await store.reserve(1);
  const part = { contentId: 'a', contentType: 'image/png', size: 1, hash: 'cc'.repeat(32), text: null };
  const said = {
    from: HANDSET,
    to: ['44'],
    cc: [],
    subject: null,
    parts: [part],
    answers: null,
    asks: 'stop' as const,
  };
  return { no, carrier: 'm', id: 'i', channel: 'MMS', ...said };
}

/** A message that is with its carrier and whose bulk was cancelled. */
async function toCallBack(desk: Desk): Promise<number> {
  const no = await desk.one({ bulkId: 'b' });
  await desk.settle(await desk.claimOne(), accepted('id'));
  await desk.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
  await desk.sweep();
  return no;
}

/** A webhook that was delivered. */
async function told(desk: Desk): Promise<Webhook> {
  await desk.delivered({ endpoint: SHOP });
  const [hook] = (await desk.webhooks()).webhooks as [Webhook];
  await desk.answer(hook, true, '{}');
  return hook;
}

const CASES: Record<Exclude<keyof Store, Asks>, Record<string, Case>> = {
  reserve: {
    async 'a block'({ store }) {
      const before = await store.reserve(1);
      return { act: () => store.reserve(5), done: async (result) => expect(result).toBe(before + 1) };
    },
  },
  lane: {
    async 'a new one'({ store }) {
      const act = () => store.lane('new', { onUnknown: 'fail', reports: false }, 2);
      return { act, done: async (result) => expect(result).toBe(await act()) };
    },
  },
  laneLease: {
    async 'beat of a new node'({ store, lane }) {
      return { act: () => store.laneLease('b', [lane], LEASE), done: async (result) => expect(result).toEqual([lane]) };
    },
  },
  accept: {
    async 'with all that a request can hold'(desk, { sms, second }) {
      await desk.store.putUpload({ ...UPLOAD, validityMs: HOUR });
      const some = { uploads: ['pic'], idem: { key: 'k', hash: 'h' }, keys: [[0, 'order']] as [number, string][] };
      const request = await desk.request({ ...everything(sms, second), ...some, spec: { tracked: TRACKED } });
      const act = () => desk.store.accept(request);
      return { act, done: async (result) => expect(result).toMatchObject({ kind: 'accepted' }) };
    },
  },
  putContent: {
    async 'new bytes'({ store }) {
      const hash = createHash('sha256').update('abc').digest('hex');
      const act = () => store.putContent(hash, Buffer.from('abc'));
      return { act, done: async () => expect(await store.content(hash)).toHaveLength(3) };
    },
  },
  putUpload: {
    async 'a new one'({ store }) {
      const act = () => store.putUpload({ ...UPLOAD, validityMs: HOUR });
      return { act, done: async () => expect(await store.uploadNames(1, ['pic'])).toHaveLength(1) };
    },
  },
  putVariant: {
    async 'of content'({ store }) {
      const variant = { hash: 'bb'.repeat(32), contentType: 'image/jpeg' };
      const act = () => store.putVariant(UPLOAD.hash, 'small', variant);
      return { act, done: async () => expect(await store.variant(UPLOAD.hash, 'small')).toEqual(variant) };
    },
  },
  claim: {
    async 'of fresh ones and a retry'(desk, { sms, second }) {
      await desk.accept(everything(sms, second));
      await desk.settle(await desk.claimOne(), DEFERRED);
      return { act: () => desk.claim(), done: async (result) => expect((result as Claims).claims).toHaveLength(3) };
    },
    async 'with turns, and one who wants none any more'(desk) {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', every: 100, endpoint: SHOP });
      await desk.store.optOutPut(1, [OUT]);
      const done = async (result: unknown) => {
        expect((result as Claims).claims.map(({ leader }) => leader)).toEqual(nos.slice(1));
        expect(await desk.status(nos[0] as number)).toEqual([10, 603]);
      };
      return { act: () => desk.claim(), done };
    },
  },
  settle: {
    async 'as accepted, with a report that came before'(desk, { sms, second }) {
      const { nos } = await desk.accept(everything(sms, second));
      const claim = await desk.claimOne();
      await desk.report('early', 'retrieved', { addresses: numbers(1) });
      const act = () => desk.settle(claim, accepted('early'));
      return { act, done: async () => expect(await desk.status(nos[0] as number)).toEqual([5, 0]) };
    },
    async 'as deferred'(desk) {
      const { nos } = await desk.accept({ to: numbers(2), endpoint: SHOP, intermediate: true });
      const claim = await desk.claimOne();
      const done = async () => expect((await desk.story(nos[0] as number)).attempts).toHaveLength(1);
      return { act: () => desk.settle(claim, DEFERRED), done };
    },
    async 'as deferred, for another carrier'(desk, { second }) {
      const { nos } = await desk.accept({ ways: { alts: [second] } });
      const claim = await desk.claimOne();
      const done = async () => expect((await desk.claim(10, second)).claims[0]?.leader).toBe(nos[0]);
      return { act: () => desk.settle(claim, { ...DEFERRED, elsewhere: true } as Outcome), done };
    },
    async 'as refused, for an SMS'(desk, { sms, second }) {
      await desk.accept(everything(sms, second));
      const claim = await desk.claimOne();
      const done = async () => expect((await desk.claim(10, sms)).claims).toHaveLength(3);
      return { act: () => desk.settle(claim, REFUSED), done };
    },
    async 'as refused'(desk) {
      const no = await desk.one({ endpoint: SHOP });
      const claim = await desk.claimOne();
      const done = async () => expect(await desk.status(no)).toEqual([4, 15009]);
      return { act: () => desk.settle(claim, REFUSED), done };
    },
    async 'as unknown'(desk) {
      const no = await desk.one();
      const claim = await desk.claimOne();
      const done = async () => expect((await desk.story(no)).attempts).toMatchObject([{ outcome: 'unknown' }]);
      return { act: () => desk.settle(claim, UNKNOWN), done };
    },
    async 'of an SMS as accepted'(desk, { sms }) {
      const no = await desk.one({ ways: { sms: { lane: sms, validityMs: HOUR } }, endpoint: SHOP });
      await desk.settle(await desk.claimOne(), REFUSED);
      const [claim] = (await desk.claim(1, sms)).claims as [Claim];
      const done = async () => expect((await desk.status(no))[0]).toBe(3);
      return { act: () => desk.settle(claim, accepted('sms'), sms), done };
    },
  },
  release: {
    async 'one claim'(desk) {
      await desk.one();
      const { token, leader } = await desk.claimOne();
      const done = async () => expect((await desk.claim()).claims).toHaveLength(1);
      return { act: () => desk.store.release([{ token, leader }], desk.h.now()), done };
    },
    async 'to the next carrier, with its turn'(desk, { second }) {
      await desk.accept({ bulkId: 'b', every: HOUR, ways: { alts: [second] } });
      const { token, leader } = await desk.claimOne();
      const done = async () => expect((await desk.claim(10, second)).claims).toHaveLength(1);
      return { act: () => desk.store.release([{ token, leader }], desk.h.now(), true), done };
    },
  },
  report: {
    async 'that ends a message'(desk) {
      const no = await desk.one({ endpoint: SHOP });
      await desk.settle(await desk.claimOne(), accepted('id'));
      const done = async () => expect(await desk.status(no)).toEqual([5, 0]);
      return { act: () => desk.report('id', 'retrieved'), done };
    },
    async 'that an SMS follows'(desk, { sms }) {
      await desk.one({ ways: { sms: { lane: sms, validityMs: HOUR } } });
      await desk.settle(await desk.claimOne(), accepted('id'));
      const done = async () => expect((await desk.claim(10, sms)).claims).toHaveLength(1);
      return { act: () => desk.report('id', 'unreachable'), done };
    },
    async 'of the MMS, when its SMS waits'(desk, { sms }) {
      const no = await desk.one({ ways: { sms: { lane: sms, validityMs: HOUR } } });
      await desk.settle(await desk.claimOne(), accepted('id'));
      await desk.report('id', 'unreachable');
      const done = async () => {
        expect(await desk.status(no)).toEqual([5, 0]);
        expect((await desk.claim(10, sms)).claims).toEqual([]);
      };
      return { act: () => desk.report('id', 'retrieved'), done };
    },
    async 'of nobody'(desk) {
      return { act: () => desk.report('stranger', 'retrieved'), done: async (result) => expect(result).toBe(false) };
    },
  },
  sweep: {
    async 'of what was in flight'(desk, { pass }) {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b' });
      await desk.claim();
      pass(2 * LEASE);
      const done = async () => {
        await desk.sweep();
        expect((await desk.story(nos[0] as number)).attempts).toHaveLength(1);
      };
      return { act: () => desk.store.sweep(), steps: true, done };
    },
    async 'of what is too late'(desk, { pass }) {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', endpoint: SHOP, validityMs: HOUR });
      pass(2 * HOUR);
      const done = async () => {
        await desk.sweep();
        expect((await desk.status(nos[0] as number))[0]).toBe(15);
      };
      return { act: () => desk.store.sweep(), steps: true, done };
    },
    async 'of turns that passed unused'(desk, { pass }) {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', every: HOUR, validityMs: HOUR });
      pass(1.5 * HOUR);
      const done = async () => {
        await desk.sweep();
        expect((await desk.status(nos[0] as number))[0]).toBe(15);
        expect((await desk.status(nos[1] as number))[0]).toBe(26);
      };
      return { act: () => desk.store.sweep(), steps: true, done };
    },
    async 'of what has been final for long'(desk, { pass }) {
      const no = await desk.delivered({ spec: { tracked: TRACKED } });
      await desk.pull();
      pass(8 * DAY);
      const done = async () => {
        for (let round = 0; round < 4; round++) {
          await desk.sweep();
          pass(2 * HOUR);
        }
        expect(await desk.store.story(1, { no })).toBeNull();
      };
      return { act: () => desk.store.sweep(), steps: true, done };
    },
  },
  mediaNext: {
    async 'links to fetch'(desk) {
      await desk.accept({ links: [SHOP] });
      const done = async (result: unknown) => expect(result).toMatchObject({ jobs: [{ url: SHOP }] });
      return { act: () => desk.store.mediaNext(3, LEASE), done };
    },
  },
  mediaSettle: {
    async 'bytes that are there'(desk) {
      const { spec } = await desk.accept({ links: [SHOP] });
      await desk.store.mediaNext(3, LEASE);
      const outcome = { kind: 'ready', hash: UPLOAD.hash, contentType: 'image/png', name: 'c.png' } as const;
      const done = async () => expect((await desk.claim()).claims).toHaveLength(1);
      return { act: () => desk.store.mediaSettle({ ...JOB, spec }, outcome), done };
    },
    async 'bytes that cannot be had'(desk) {
      const { spec, nos } = await desk.accept({ links: [SHOP], endpoint: SHOP });
      await desk.store.mediaNext(3, LEASE);
      const outcome = { kind: 'failed', error: 15024, words: '404' } as const;
      const done = async () => {
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([100, 15024]);
      };
      return { act: () => desk.store.mediaSettle({ ...JOB, spec }, outcome), done };
    },
  },
  webhookNext: {
    async 'a fresh one'(desk) {
      await desk.delivered({ endpoint: SHOP });
      return {
        act: () => desk.webhooks(),
        done: async (result) => expect((result as Webhooks).webhooks).toHaveLength(1),
      };
    },
  },
  webhookSettle: {
    async 'as failed'(desk) {
      await desk.delivered({ endpoint: SHOP });
      const [hook] = (await desk.webhooks()).webhooks as [Webhook];
      return { act: () => desk.answer(hook, false, '{}'), done: async (result) => expect(result).toBe(true) };
    },
    async 'as delivered'(desk) {
      await desk.delivered({ endpoint: SHOP });
      const [hook] = (await desk.webhooks()).webhooks as [Webhook];
      const done = async () => expect((await desk.webhooks()).webhooks).toEqual([]);
      return { act: () => desk.answer(hook, true, '{}'), done };
    },
  },
  takeReports: {
    async 'of one account'(desk) {
      await desk.delivered();
      return { act: () => desk.pull(), done: async (result) => expect(result).toHaveLength(1) };
    },
  },
  rearm: {
    async 'reports that were pulled'(desk) {
      await desk.delivered();
      await desk.pull();
      const done = async () => expect(await desk.pull()).toHaveLength(1);
      return { act: () => desk.store.rearm({ account: 1, kind: 'reports' }), done };
    },
  },
  webhookReplay: {
    async 'one that was delivered'(desk) {
      const { no } = await told(desk);
      const done = async () => expect((await desk.webhooks()).webhooks).toMatchObject([{ no, retry: 0 }]);
      return { act: () => desk.store.webhookReplay(1, no), done };
    },
  },
  webhookReplayRange: {
    async 'all of an account'(desk) {
      await told(desk);
      const done = async (result: unknown) => expect(result).toMatchObject({ count: 1 });
      return { act: () => desk.store.webhookReplayRange({ account: 1 }), done };
    },
  },
  endpointPut: {
    async 'a default one'({ store }) {
      const act = () => store.endpointPut({ ...ENDPOINT, isDefault: true, secret: { value: 's', oldForMs: HOUR } });
      return { act, done: async () => expect(await store.endpointList(1)).toHaveLength(1) };
    },
  },
  endpointDelete: {
    async 'one that has webhooks'(desk) {
      await desk.store.endpointPut({ ...ENDPOINT, isDefault: true });
      await desk.delivered({ endpoint: SHOP });
      const done = async () => expect(await desk.store.endpointList(1)).toEqual([]);
      return { act: () => desk.store.endpointDelete(1, 'delivery', SHOP), done };
    },
  },
  inbound: {
    async 'that stops a sender, to a URL'(desk) {
      await desk.store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
      await setNumber(desk.store, OWN);
      const message = await inboundOf(desk);
      const done = async (result: unknown) => {
        expect(result).toMatchObject({ kind: 'stored', owned: true, recorded: true });
        expect(await desk.store.optOutList({ account: 1, limit: 9 })).toHaveLength(1);
      };
      return { act: () => desk.store.inbound(message), done };
    },
    async 'to the inbox'(desk) {
      await desk.store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
      const message = await inboundOf(desk);
      const done = async () => expect(await desk.store.takeInbox({ account: 1, limit: 9 })).toHaveLength(1);
      return { act: () => desk.store.inbound(message), done };
    },
  },
  takeInbox: {
    async 'of one account'(desk) {
      await desk.store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
      await desk.store.inbound(await inboundOf(desk));
      const act = () => desk.store.takeInbox({ account: 1, limit: 9 });
      return { act, done: async (result) => expect(result).toHaveLength(1) };
    },
  },
  optOutPut: {
    async two({ store }) {
      const act = () => store.optOutPut(1, [OUT, { ...OUT, sender: '' }]);
      return { act, done: async (result) => expect(result).toBe(2) };
    },
  },
  optOutDelete: {
    async 'one of two'({ store }) {
      await store.optOutPut(1, [OUT, { ...OUT, sender: '' }]);
      const done = async () => expect(await store.optOutList({ account: 1, limit: 9 })).toHaveLength(1);
      return { act: () => store.optOutDelete(1, [OUT]), done };
    },
  },
  bulkSteer: {
    async cancel(desk) {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b' });
      const done = async () => {
        await desk.sweep();
        expect((await desk.status(nos[2] as number))[0]).toBe(31);
      };
      return { act: () => desk.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]), done };
    },
    async 'another pace and sendAt, with a retry'(desk) {
      await desk.accept({ to: numbers(3), bulkId: 'b', every: HOUR });
      await desk.settle(await desk.claimOne(), DEFERRED);
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      const sendAt = desk.h.now() + DAY;
      const act = () =>
        desk.store.bulkSteer(1, { id: 'b' }, [
          { kind: 'reschedule', sendAt },
          { kind: 'limit', speed: { amount: 1, timeUnit: 'MINUTE' } },
          { kind: 'resume' },
        ]);
      return { act, done: async (result) => expect(result).toMatchObject({ kind: 'done', bulk: { sendAt } }) };
    },
  },
  reroute: {
    async 'what waits'(desk, { second }) {
      await desk.accept({ to: numbers(3), bulkId: 'b' });
      const done = async () => expect((await desk.claim(10, second)).claims).toHaveLength(3);
      return { act: () => desk.store.reroute('mmsc', 'other'), done };
    },
  },
  callBacks: {
    async 'what a cancelled bulk has out'(desk) {
      const no = await toCallBack(desk);
      const act = () => desk.store.callBacks(desk.lane, 9);
      return { act, done: async (result) => expect(result).toMatchObject([{ leader: no }]) };
    },
  },
  calledBack: {
    async noted(desk) {
      const no = await toCallBack(desk);
      const done = async () => expect((await desk.story(no)).events.at(-1)).toMatchObject({ words: 'called back' });
      return { act: () => desk.store.calledBack(no, 1, 'called back'), done };
    },
  },
  click: {
    async 'reported ones, of two messages, and a scanner'(desk) {
      const { nos } = await desk.accept({ to: numbers(2), spec: { tracked: TRACKED, campaign: 'c' } });
      const one = { no: nos[0] as number, link: 0, at: desk.h.now(), flag: null, device: 'Phone', body: '{}' };
      const done = async () => {
        const counts = { total: 2, unique: 2, flagged: 1 };
        expect(await desk.store.clicks(1, { message: { no: one.no } })).toMatchObject({ total: 1, flagged: 1 });
        expect(await desk.store.clicks(1, { campaign: 'c' })).toMatchObject(counts);
        // One click a POST.
        expect((await desk.webhooks()).webhooks).toHaveLength(2);
      };
      const act = () =>
        desk.store.click([one, { ...one, no: nos[1] as number }, { ...one, flag: 'PREVIEW', body: null }]);
      return { act, done };
    },
  },
  administer: {
    async 'a number for another'({ store }) {
      await store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
      await setNumber(store, { ...OWN, number: '45' });
      const changes = [
        { kind: 'number', number: OWN },
        { kind: 'numberDrop', number: '45', account: 1 },
      ] as const;
      const done = async () => expect(await store.numberList()).toEqual([OWN]);
      return { act: () => store.administer([...changes], DEED), done };
    },
    async 'an account, a key, what is held by name, and what is dropped'({ store }) {
      const made = await store.administer(
        [{ kind: 'account', no: null, name: 'shop', settings: DEFAULT_SETTINGS }],
        DEED,
      );
      const [account] = (made as Extract<Administered, { kind: 'done' }>).accounts as [number];
      const sender = { kind: 'put', what: 'sender', name: 'shop', account, body: {} } as const;
      await store.administer([{ ...sender, name: 'old' }], DEED);
      const act = () =>
        store.administer(
          [
            { kind: 'account', no: account, name: 'shop 2', settings: DEFAULT_SETTINGS },
            { kind: 'account', no: null, name: 'bank', settings: DEFAULT_SETTINGS },
            { kind: 'key', key: { ...KEY, account } },
            sender,
            { kind: 'drop', what: 'sender', name: 'old', account },
          ],
          DEED,
        );
      const done = async (result: unknown) => {
        expect(result).toMatchObject({ kind: 'done', dropped: 1 });
        expect(await store.auditLog(9)).toHaveLength(3);
        expect((await store.directory(-1))?.accounts.map(({ name }) => name)).toEqual(['shop 2', 'bank']);
      };
      return { act, done };
    },
  },
  sessionPut: {
    async 'a new one'({ store }) {
      return {
        act: () => store.sessionPut(SESSION),
        done: async () => expect(await store.sessionUse('h')).not.toBeNull(),
      };
    },
  },
  sessionUse: {
    async 'one that goes on'({ store }, { pass }) {
      await store.sessionPut(SESSION);
      pass(HOUR / 2);
      const done = async () => {
        pass(0.75 * HOUR);
        expect(await store.sessionUse('h')).not.toBeNull();
      };
      return { act: () => store.sessionUse('h'), done };
    },
  },
  sessionDelete: {
    async 'one that is there'({ store }) {
      await store.sessionPut(SESSION);
      return { act: () => store.sessionDelete('h'), done: async () => expect(await store.sessionUse('h')).toBeNull() };
    },
  },
  quota: {
    async 'of two counters'({ store }) {
      await store.quota([TAKE]);
      const act = () => store.quota([TAKE, { ...TAKE, scope: 'logs' }]);
      return { act, done: async (result) => expect(result).toEqual([2, 3]) };
    },
  },
  putKey: {
    async 'in the place of another'({ store }) {
      await store.putKey({ hash: 'old', account: 1, label: 'k' }, false);
      const act = () => store.putKey({ hash: 'new', account: 1, label: 'k' }, true);
      return { act, done: async () => expect(await store.keys()).toMatchObject([{ hash: 'new' }]) };
    },
  },
};

const ALL = Object.entries(CASES).flatMap(([verb, cases]) =>
  Object.entries(cases).map(([what, prepare]) => [`${verb}: ${what}`, prepare] as const),
);

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

  it.each(ALL.map(([name, prepare], at) => ({ name, prepare, schema: `s${at}` })))(
    '$name: nothing of it is stored, and then it is done as if nothing had happened',
    async ({ schema, prepare }) => {
      fault.n = 0;
      let now = Date.UTC(2026, 10, 24, 12);
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
        const before = await settled(client, schema);
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
            // A walk that goes on elsewhere when it is tried once more does not come to that statement again.
            if (steps && !(result instanceof Error)) continue;
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
