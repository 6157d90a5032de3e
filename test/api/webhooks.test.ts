/** /webhooks/1 over real HTTP on a real store: deliveries, replays, endpoints, and what is pulled again. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  apiErrorAnswer,
  deletedAnswer,
  deliveriesAnswer,
  endpointAnswer,
  endpointsAnswer,
  rearmAnswer,
  replayAnswer,
} from '../../src/api/answers.ts';
import { formatInstant } from '../../src/domain/schedule.ts';
import type { Webhook } from '../../src/store/contract.ts';
import { type Given, type OpenDoor, OTHER_KEY, openDoor } from './door.ts';

let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ now: Date.now });
});
afterAll(async () => {
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

const OTHER = { authorization: `App ${OTHER_KEY}` };
const DELIVERIES = '/webhooks/1/deliveries';
const ENDPOINTS = '/webhooks/1/endpoints';

function read<T>(given: Given, status: number, schema: { parse(value: unknown): T }): T {
  expect(given.status, given.body).toBe(status);
  return schema.parse(JSON.parse(given.body));
}
const refused = (given: Given, status: number) => read(given, status, apiErrorAnswer).violations;
const call = (method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Given> =>
  door.ask(path, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
const deliveries = async (query = '') => read(await door.ask(DELIVERIES + query), 200, deliveriesAnswer);

let count = 0;
/** Sends one that its carrier refuses; answers its id. */
async function final(url: string | null, more: object = {}): Promise<string> {
  const messageId = `wh-${++count}`;
  const given = await door.send({
    messages: [
      {
        sender: 'Shop',
        destinations: [{ to: '41793026727', messageId }],
        content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        webhooks: { delivery: { ...(url === null ? {} : { url }) }, ...more },
      },
    ],
  });
  expect(given.status, given.body).toBe(200);
  await door.submit(() => ({ kind: 'refused', error: { id: 15009 } }));
  return messageId;
}
async function post(ok: boolean): Promise<Webhook> {
  const { webhooks } = await door.store.webhookNext(1, 30_000);
  const [webhook] = webhooks as [Webhook];
  const excerpt = ok ? 'thanks' : 'busy';
  const body = ok ? null : '{"results":[]}';
  await door.store.webhookSettle({
    no: webhook.no,
    token: webhook.token,
    ok,
    status: ok ? 200 : 503,
    tookMs: 9,
    excerpt,
    body,
  });
  return webhook;
}

describe('deliveries', () => {
  it('tells of each webhook what was tried and what the receiver said', async () => {
    const url = 'https://a.example/1';
    const id = await final(url);
    const { no } = await post(false);
    const { results, cursor } = await deliveries(`?messageId=${id}`);
    expect(results).toMatchObject([
      {
        id: door.ids.print('webhook', no),
        kind: 'DELIVERY',
        endpoint: url,
        contentType: 'application/json',
        state: 'OPEN',
        endedAt: null,
        messageIds: [id],
        attempts: [{ attempt: 1, httpStatus: 503, tookMs: 9, excerpt: 'busy' }],
      },
    ]);
    expect(cursor).toEqual({ limit: 50 });
    expect((await deliveries(`?endpoint=${encodeURIComponent(url)}&state=OPEN`)).results).toHaveLength(1);
    expect((await deliveries(`?endpoint=${encodeURIComponent(url)}&state=DELIVERED`)).results).toEqual([]);
    expect(read(await call('GET', DELIVERIES, undefined, OTHER), 200, deliveriesAnswer).results).toEqual([]);
  });

  it('pages by cursor', async () => {
    for (let n = 0; n < 3; n++) {
      await final('https://a.example/page');
      await post(true);
    }
    const query = `?endpoint=${encodeURIComponent('https://a.example/page')}&limit=2`;
    const first = await deliveries(query);
    const second = await deliveries(`${query}&cursor=${first.cursor.nextCursor}`);
    expect([first.results.length, second.results.length, second.cursor.nextCursor]).toEqual([2, 1, undefined]);
  });

  it('says what is wrong with a question', async () => {
    expect(refused(await door.ask(`${DELIVERIES}?state=BROKEN&limit=0&cursor=x`), 400)).toMatchObject([
      { property: 'state' },
      { property: 'limit' },
    ]);
    expect(refused(await door.ask(`${DELIVERIES}?cursor=x`), 400)).toMatchObject([{ property: 'cursor' }]);
    expect((await call('GET', DELIVERIES, undefined, { authorization: 'App wrong' })).status).toBe(401);
    expect((await call('POST', DELIVERIES, {})).headers.get('allow')).toBe('GET');
  });
});

describe('a replay', () => {
  it('makes one due again under the same id, without a body, and only for its account', async () => {
    await final('https://a.example/one');
    const { no } = await post(true);
    const path = `${DELIVERIES}/${door.ids.print('webhook', no)}/replay`;
    expect((await call('POST', path, undefined, OTHER)).status).toBe(404);
    expect((await call('POST', `${DELIVERIES}/nonsense/replay`)).status).toBe(404);
    expect((await call('GET', path)).headers.get('allow')).toBe('POST');
    expect(read(await call('POST', path), 200, replayAnswer)).toEqual({ replayed: 1 });
    expect((await post(true)).no).toBe(no);
    // A client that sends an empty object is no worse.
    expect(read(await call('POST', path, {}), 200, replayAnswer)).toEqual({ replayed: 1 });
    expect((await post(true)).no).toBe(no);
  });

  it('makes a range of time, or all of an endpoint, due again', async () => {
    const endpoint = 'https://a.example/range';
    const from = formatInstant(Date.now());
    const nos: number[] = [];
    for (let n = 0; n < 3; n++) {
      await final(endpoint);
      nos.push((await post(true)).no);
    }
    const again = async (body: object) => {
      const { replayed } = read(await call('POST', '/webhooks/1/replay', body), 200, replayAnswer);
      const made: number[] = [];
      for (let n = 0; n < replayed; n++) made.push((await post(true)).no);
      return made.sort((a, b) => a - b);
    };
    expect(await again({ endpoint })).toEqual(nos);
    expect(await again({ endpoint, state: 'EXHAUSTED' })).toEqual([]);
    expect(await again({ from })).toEqual(nos);
    expect(await again({ from: formatInstant(0), to: formatInstant(1), endpoint })).toEqual([]);
  });

  it('says what is wrong with a request', async () => {
    const wrong = async (body: unknown) => refused(await call('POST', '/webhooks/1/replay', body), 400);
    expect(await wrong({})).toEqual([{ property: '', violation: 'Provide from, to or endpoint.' }]);
    expect(await wrong({ from: 'yesterday' })).toMatchObject([{ property: 'from' }]);
    expect(await wrong({ endpoint: 5 })).toEqual([{ property: 'endpoint', violation: 'must be a string' }]);
    expect(await wrong({ endpoint: 'x', cursor: 'x' })).toMatchObject([{ property: 'cursor' }]);
    expect(await wrong('{')).toMatchObject([{ property: '' }]);
    expect((await call('POST', '/webhooks/1/replay', '{}', { 'content-type': 'text/plain' })).status).toBe(415);
  });
});

describe('endpoints', () => {
  const put = async (body: object, headers = {}) =>
    read(await call('PUT', ENDPOINTS, body, headers), 200, endpointAnswer);

  it('are made with a secret that is shown once, changed, rotated, listed and deleted', async () => {
    const url = 'https://b.example/hook?a=1';
    const made = await put({ kind: 'DELIVERY', url, default: true, headers: { 'X-Shop': '7' } });
    expect(made).toMatchObject({ kind: 'DELIVERY', url, contentType: 'application/json', default: true });
    expect(made.secret).toMatch(/^whsec_[A-Za-z0-9+/]{32}$/);
    expect(made.secrets).toEqual([{ ending: made.secret?.slice(-4), validUntil: null }]);
    const changed = await put({ kind: 'DELIVERY', url, contentType: 'application/xml' });
    expect(changed).toEqual({ ...made, contentType: 'application/xml', secret: undefined });
    const rotated = await put({ kind: 'DELIVERY', url, rotateSecret: true, secretOverlapHours: 1 });
    expect(rotated.secret).not.toBe(made.secret);
    expect(rotated.secrets.map(({ ending }) => ending)).toEqual([rotated.secret?.slice(-4), made.secret?.slice(-4)]);
    const own = await put({ kind: 'DELIVERY', url, secret: 'sixteen characters', secretOverlapHours: 0 });
    expect([own.secret, own.secrets.length]).toEqual([undefined, 1]);
    expect((await put({ kind: 'DELIVERY', url, removeSecret: true })).secrets).toEqual([]);
    const { results } = read(await door.ask(ENDPOINTS), 200, endpointsAnswer);
    expect(results.map((one) => one.url)).toEqual([url]);
    expect(read(await call('GET', ENDPOINTS, undefined, OTHER), 200, endpointsAnswer).results).toEqual([]);
    // It takes what names no URL.
    const id = await final(null);
    expect((await post(true)).endpoint).toMatchObject({
      url,
      contentType: 'application/xml',
      headers: { 'X-Shop': '7' },
    });
    await final(null, { contentType: 'application/json' });
    expect((await post(true)).endpoint.contentType).toBe('application/json');
    const path = `${ENDPOINTS}?kind=DELIVERY&url=${encodeURIComponent(url)}`;
    expect((await call('DELETE', path, undefined, OTHER)).status).toBe(404);
    expect(read(await call('DELETE', path), 200, deletedAnswer)).toEqual({ deleted: 1 });
    expect((await call('DELETE', path)).status).toBe(404);
    expect((await deliveries(`?messageId=${id}`)).results).toHaveLength(1);
    const shown = JSON.stringify(door.lines);
    for (const secret of [made.secret, rotated.secret, 'sixteen characters']) expect(shown).not.toContain(secret);
  });

  it('says what is wrong with one', async () => {
    const wrong = async (body: unknown) =>
      refused(await call('PUT', ENDPOINTS, body), 400).map(({ property }) => property);
    const url = 'https://b.example/';
    expect(await wrong({})).toEqual(['kind', 'url']);
    expect(await wrong({ kind: 'REPORT', url: 'ftp://b.example' })).toEqual(['kind', 'url']);
    expect(await wrong({ kind: 'INBOUND', url, contentType: 'application/xml' })).toEqual(['contentType']);
    expect(await wrong({ kind: 'CLICK', url, secret: 'short' })).toEqual(['secret']);
    expect(await wrong({ kind: 'CLICK', url, secret: 'x'.repeat(16), rotateSecret: true })).toEqual(['secret']);
    expect(await wrong({ kind: 'CLICK', url, secretOverlapHours: 1000 })).toEqual(['secretOverlapHours']);
    for (const headers of [
      { 'Content-Type': 'x' },
      { Host: 'x' },
      { 'webhook-id': 'x' },
      { 'a b': 'x' },
      { a: 'x\r\ny: z' },
      { a: 'é' },
      { a: 5 },
      Object.fromEntries(Array.from({ length: 21 }, (_, n) => [`x-${n}`, ''])),
    ]) {
      const found = await wrong({ kind: 'CLICK', url, headers });
      expect([headers, found[0]?.startsWith('headers')]).toEqual([headers, true]);
    }
  });
});

describe('a pulled answer that was lost', () => {
  it('is given again once it is re-armed', async () => {
    const id = await final(null);
    const pull = async () =>
      (JSON.parse((await door.ask('/mms/2/reports')).body).results as { messageId: string }[]).map(
        (one) => one.messageId,
      );
    const since = formatInstant(Date.now() - 1000);
    expect(await pull()).toEqual([id]);
    expect(await pull()).toEqual([]);
    const rearm = async (body: object) => read(await call('POST', '/webhooks/1/rearm', body), 200, rearmAnswer);
    expect(await rearm({ messageId: id })).toEqual({ rearmed: 1, more: false });
    expect(await pull()).toEqual([id]);
    expect(await rearm({ takenSince: since })).toEqual({ rearmed: 1, more: false });
    expect(await pull()).toEqual([id]);
    expect(await rearm({ kind: 'INBOX', takenSince: since })).toEqual({ rearmed: 0, more: false });
    expect(await rearm({ messageId: '😀'.repeat(200) })).toEqual({ rearmed: 0, more: false });
    expect(refused(await call('POST', '/webhooks/1/rearm', {}), 400)).toEqual([
      { property: '', violation: 'Provide takenSince or messageId.' },
    ]);
  });
});
