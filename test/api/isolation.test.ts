/**
 * G18: no account sees or touches what is another's. Every endpoint that takes an id is asked for another account's; the answer is
 * that for an id that does not exist, and the store is asked the same verbs for both, and PostgreSQL the same statements: one code
 * path, so one class of timing.
 *
 * A customer's endpoint of the OpenAPI document that stands neither in the table nor among those without ids fails the suite.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Store } from '../../src/store/contract.ts';
import { SERVER } from '../postgres.ts';
import { type Given, type OpenDoor, OTHER_KEY, openDoor } from './door.ts';

let door: OpenDoor;
/** Verbs that the door asked of the store, in order; and what was asked of PostgreSQL in an account's name. */
let asked: string[] = [];
let statements: string[] = [];
const query = pg.Client.prototype.query;
const OTHER = { authorization: `App ${OTHER_KEY}` };
const JSON_BODY = { 'content-type': 'application/json' };
const HOOK = 'https://a.example/hook';
/** What the first account has, and things of the same form that nobody has. */
const theirs = {
  message: '',
  own: 'theirs-1',
  bulk: '',
  ownBulk: 'their-bulk',
  upload: '',
  webhook: '',
  number: '41790000001',
};
const nobodys: typeof theirs = { ...theirs };

const message = (more: object = {}, to: object = { to: theirs.number }): object => ({
  sender: '441134960000',
  destinations: [to],
  content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
  webhooks: { delivery: { url: HOOK } },
  ...more,
});

type Engine = 'sqlite' | 'postgres';

async function begin(engine: Engine): Promise<void> {
  pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
    const [first] = args as [{ text?: string; name?: string } | string];
    const text = typeof first === 'string' ? first : (first.text ?? '');
    // The system's own have names that end otherwise, or are other words.
    const named = typeof first === 'object' && first.name !== undefined;
    if (named ? (first.name as string).endsWith('a') : /^BEGIN; SET LOCAL|FROM (message|spec) |pull p/.test(text)) {
      statements.push(text);
    }
    return (query as (...args: unknown[]) => unknown).apply(this, args);
  } as typeof query;
  door = await openDoor({
    engine,
    now: Date.now,
    wrap: (store) =>
      new Proxy(store, {
        get(target, name: keyof Store) {
          const verb = target[name] as (...args: unknown[]) => unknown;
          return (...args: unknown[]) => {
            // These run by themselves, or are the caller's own limits.
            if (!['directory', 'stats', 'onHint', 'identity', 'reserve', 'feed', 'quota'].includes(name))
              asked.push(name);
            return verb.apply(target, args);
          };
        },
      }),
  });
  const upload = await door.ask('/mms/1/content', {
    method: 'POST',
    headers: { 'x-content-id': 'a', 'x-media-type': 'text/plain' },
    body: 'theirs',
  });
  theirs.upload = (JSON.parse(upload.body) as { uploadedContentId: string }).uploadedContentId;
  const sent = await door.send({ messages: [message({}, { to: theirs.number })] });
  const first = JSON.parse(sent.body) as { bulkId: string; messages: { messageId: string }[] };
  theirs.message = first.messages[0]?.messageId as string;
  theirs.bulk = first.bulkId;
  const named = { messages: [message({}, { to: theirs.number, messageId: theirs.own })] };
  await door.send({ ...named, options: { schedule: { bulkId: theirs.ownBulk } } }, { 'idempotency-key': 'theirs' });
  await door.ask('/mms/1/optouts', {
    method: 'POST',
    headers: JSON_BODY,
    body: JSON.stringify({ optOuts: [{ destination: '41790000002' }] }),
  });
  await door.ask('/webhooks/1/endpoints', {
    method: 'PUT',
    headers: JSON_BODY,
    body: JSON.stringify({ kind: 'DELIVERY', url: HOOK }),
  });
  await door.submit(() => ({ kind: 'refused', error: { id: 15009 } }));
  const { webhooks } = await door.store.webhookNext(10, 30_000);
  for (const { no, token } of webhooks) {
    const failed = { no, token, ok: false, status: 500, tookMs: 1, excerpt: 'no', body: 'b' };
    await door.store.webhookSettle(failed);
  }
  theirs.webhook = door.ids.print('webhook', webhooks[0]?.no as number);
  Object.assign(nobodys, {
    message: door.ids.print('message', 9_000_001),
    own: 'nobodys',
    bulk: door.ids.print('bulk', 9_000_002),
    ownBulk: 'nobodys-b',
    upload: theirs.upload.replace(/^./, (digit) => (digit === '0' ? '1' : '0')),
    webhook: door.ids.print('webhook', 9_000_003),
    number: '41790000777',
  });
}
async function finish(): Promise<void> {
  pg.Client.prototype.query = query;
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
}

type Of = typeof theirs;
interface Case {
  method: string;
  /** Of the OpenAPI document. */
  path: string;
  url(of: Of): string;
  body?(of: Of): object;
  status: number;
  /** The first account itself gets another answer, so the case asks for something; false where its answer must be the same. */
  shows?: false;
}

const q = encodeURIComponent;
const CASES: Case[] = [
  { method: 'GET', path: '/mms/2/messages/{messageId}', url: (of) => `/mms/2/messages/${of.message}`, status: 404 },
  { method: 'GET', path: '/mms/2/messages/{messageId}', url: (of) => `/mms/2/messages/${of.own}`, status: 404 },
  { method: 'GET', path: '/mms/2/logs', url: (of) => `/mms/2/logs?messageId=${of.message}`, status: 200 },
  { method: 'GET', path: '/mms/2/logs', url: (of) => `/mms/2/logs?messageId=${of.own}`, status: 200 },
  { method: 'GET', path: '/mms/2/logs', url: (of) => `/mms/2/logs?bulkId=${of.bulk}`, status: 200 },
  { method: 'GET', path: '/mms/2/logs', url: (of) => `/mms/2/logs?bulkId=${of.ownBulk}`, status: 200 },
  { method: 'GET', path: '/mms/2/logs', url: (of) => `/mms/2/logs?destination=${of.number}`, status: 200 },
  { method: 'GET', path: '/mms/2/bulks', url: (of) => `/mms/2/bulks?bulkId=${of.bulk}`, status: 404 },
  { method: 'GET', path: '/mms/2/bulks', url: (of) => `/mms/2/bulks?bulkId=${of.ownBulk}`, status: 404 },
  { method: 'GET', path: '/mms/2/bulks/status', url: (of) => `/mms/2/bulks/status?bulkId=${of.ownBulk}`, status: 404 },
  {
    method: 'PUT',
    path: '/mms/2/bulks/status',
    url: (of) => `/mms/2/bulks/status?bulkId=${of.bulk}`,
    body: () => ({ status: 'CANCELED' }),
    status: 404,
  },
  {
    method: 'PUT',
    path: '/mms/2/bulks/status',
    url: (of) => `/mms/2/bulks/status?bulkId=${of.ownBulk}`,
    body: () => ({ status: 'PAUSED' }),
    status: 404,
  },
  {
    method: 'PUT',
    path: '/mms/2/bulks',
    url: (of) => `/mms/2/bulks?bulkId=${of.ownBulk}`,
    body: () => ({ sendingSpeedLimit: { amount: 1 } }),
    status: 404,
  },
  {
    method: 'POST',
    path: '/mms/2/messages',
    url: () => '/mms/2/messages',
    body: (of) => ({
      messages: [
        message({ content: { messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId: of.upload }] } }),
      ],
    }),
    status: 400,
  },
  {
    method: 'GET',
    path: '/webhooks/1/deliveries',
    url: (of) => `/webhooks/1/deliveries?messageId=${of.message}`,
    status: 200,
  },
  {
    method: 'GET',
    path: '/webhooks/1/deliveries',
    url: (of) => `/webhooks/1/deliveries?messageId=${of.own}`,
    status: 200,
  },
  {
    method: 'POST',
    path: '/webhooks/1/deliveries/{id}/replay',
    url: (of) => `/webhooks/1/deliveries/${of.webhook}/replay`,
    status: 404,
  },
  {
    method: 'POST',
    path: '/webhooks/1/rearm',
    url: () => '/webhooks/1/rearm',
    body: (of) => ({ kind: 'REPORTS', messageId: of.message }),
    status: 200,
    shows: false,
  },
  {
    method: 'DELETE',
    path: '/webhooks/1/endpoints',
    url: (of) => `/webhooks/1/endpoints?kind=DELIVERY&url=${q(of === theirs ? HOOK : 'https://b.example/')}`,
    status: 404,
  },
  {
    method: 'GET',
    path: '/mms/1/optouts',
    url: (of) => `/mms/1/optouts?destination=${of === theirs ? '41790000002' : of.number}`,
    status: 200,
  },
  {
    method: 'DELETE',
    path: '/mms/1/optouts',
    url: (of) => `/mms/1/optouts?destination=${of === theirs ? '41790000002' : of.number}`,
    status: 404,
  },
  {
    method: 'GET',
    path: '/mms/2/reports',
    url: (of) => `/mms/2/reports?messageId=${of.message}`,
    status: 200,
    shows: false,
  },
  {
    method: 'GET',
    path: '/mms/2/reports',
    url: (of) => `/mms/2/reports?bulkId=${of.ownBulk}`,
    status: 200,
    shows: false,
  },
  {
    method: 'GET',
    path: '/mms/2/clicks',
    url: (of) => `/mms/2/clicks?messageId=${of.message}`,
    status: 404,
    shows: false,
  },
  {
    method: 'GET',
    path: '/mms/1/reports',
    url: (of) => `/mms/1/reports?messageId=${of.message}`,
    status: 200,
    shows: false,
  },
  { method: 'GET', path: '/mms/1/logs', url: (of) => `/mms/1/logs?messageId=${of.message}`, status: 200 },
];

/** Customers' endpoints that are asked for no id of a thing, and where their isolation is held. */
const WITHOUT_IDS: Record<string, string> = {
  '/mms/1/content': 'takes bytes only',
  '/mms/1/advanced': 'the door of /mms/2/messages in other words',
  '/mms/1/inbox/reports': 'by account alone: test/api/inbox.test.ts',
  '/mms/1/inbox/content/{token}': 'by a token that is signed: test/api/inbox.test.ts',
  '/webhooks/1/replay': 'by account, time and URL: below',
  '/mms/2/events': 'by account alone: feed in the conformance suite',
  '/auth/1/session': 'is how one becomes an account',
  '/auth/1/oauth2/token': 'is how one becomes an account',
  '/livez': 'open',
  '/readyz': 'open',
  '/metrics': 'the operator’s: figures of all accounts together',
  '/openapi.json': 'open',
};

async function ask(
  one: Case,
  of: Of,
  headers: Record<string, string> = OTHER,
): Promise<{ given: Given; verbs: string[]; statements: string[] }> {
  asked = [];
  statements = [];
  const body = one.body?.(of);
  const given = await door.ask(one.url(of), {
    method: one.method,
    headers: { ...headers, ...(body === undefined ? {} : JSON_BODY) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return { given, verbs: asked, statements };
}
/** What an answer says without the names that were asked for. */
const said = ({ body }: Given, of: Of): string =>
  Object.values(of).reduce((text, name) => text.replaceAll(name, '*'), body);

const ENGINES: Engine[] = SERVER === undefined ? ['sqlite'] : ['sqlite', 'postgres'];

describe.each(ENGINES)('isolation of accounts on %s', (engine) => {
  beforeAll(() => begin(engine));
  afterAll(finish);

  it('has a case for every endpoint of customers', async () => {
    const { paths } = JSON.parse((await door.ask('/openapi.json')).body) as { paths: Record<string, object> };
    const known = new Set([...CASES.map(({ path }) => path), ...Object.keys(WITHOUT_IDS)]);
    const customers = Object.keys(paths).filter((path) => !path.startsWith('/admin/'));
    expect(customers.filter((path) => !known.has(path))).toEqual([]);
  });

  it.each(
    CASES.map(
      (one) => [`${one.method} ${one.url(nobodys).split('?')[0]} ${one.url.toString().split('=>')[1]}`, one] as const,
    ),
  )('another account has what nobody has: %s', async (_name, one) => {
    const foreign = await ask(one, theirs);
    const absent = await ask(one, nobodys);
    expect(foreign.given.status, foreign.given.body).toBe(one.status);
    expect([foreign.given.status, said(foreign.given, theirs)]).toEqual([
      absent.given.status,
      said(absent.given, nobodys),
    ]);
    expect(Object.fromEntries(foreign.given.headers)).toMatchObject({
      'content-type': absent.given.headers.get('content-type'),
    });
    expect(foreign.verbs).toEqual(absent.verbs);
    expect(foreign.statements).toEqual(absent.statements);
    if (engine === 'postgres' && foreign.verbs.length > 0) expect(foreign.statements).not.toEqual([]);
  });

  it('replays webhooks of one account only', async () => {
    const replay = { method: 'POST', headers: { ...JSON_BODY, ...OTHER }, body: JSON.stringify({ endpoint: HOOK }) };
    expect(JSON.parse((await door.ask('/webhooks/1/replay', replay)).body)).toEqual({ replayed: 0 });
  });

  it('lets two accounts use the same names for their own things', async () => {
    const body = {
      messages: [message({}, { to: theirs.number, messageId: theirs.own })],
      options: { schedule: { bulkId: theirs.ownBulk } },
    };
    const sent = await door.send(body, { ...OTHER, 'idempotency-key': 'theirs' });
    const answer = JSON.parse(sent.body) as {
      bulkId: string;
      messages: { messageId: string; status: { id: number } }[];
    };
    expect([sent.status, answer.bulkId, answer.messages[0]?.status.id]).toEqual([200, theirs.ownBulk, 26]);
    // A generated bulkId of another account is only a name, too.
    const joined = await door.send(
      { ...body, messages: [message()], options: { schedule: { bulkId: theirs.bulk } } },
      OTHER,
    );
    expect(joined.status).toBe(200);
    const mine = JSON.parse((await door.ask(`/mms/2/bulks?bulkId=${theirs.bulk}`, { headers: OTHER })).body) as {
      progress: { accepted: number };
    };
    expect(mine.progress.accepted).toBe(1);
    const first = JSON.parse((await door.ask(`/mms/2/bulks?bulkId=${theirs.bulk}`)).body) as typeof mine;
    expect(first.progress.accepted).toBe(1);
  });

  it.each(CASES.filter(({ shows }) => shows !== false).map((one) => [one.url.toString().split('=>')[1], one] as const))(
    'and its owner has more than nobody: %s',
    async (_name, one) => {
      const own = await ask(one, theirs, {});
      const absent = await ask(one, nobodys, {});
      expect([own.given.status, said(own.given, theirs)]).not.toEqual([
        absent.given.status,
        said(absent.given, nobodys),
      ]);
    },
  );
});
