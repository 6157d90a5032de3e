import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ControlledStore, openEngineStore } from '../../test/conformance/engine-store.ts';
import { createIds } from '../domain/ids.ts';
import { createPartTokens, createPartUrls } from '../domain/inbound.ts';
import { OPT_OUT_WORDS } from '../domain/optout.ts';
import type { CarrierInbound, Part } from '../domain/submission.ts';
import { type TestEnv, testEnv } from '../env.ts';
import type { PostOptions } from '../net/outbound.ts';
import { StoreUnavailable } from '../store/contract.ts';
import { createInboundIntake, type TakeInbound } from './inbound.ts';
import { createWebhooks } from './webhooks.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';
const ids = createIds(KEY);
const text = (value: string, contentType = 'text/plain; charset=utf-8'): Part => ({
  contentId: 't',
  contentType,
  bytes: Buffer.from(value),
});
const PNG: Part = { contentId: '<p>', contentType: 'image/png', bytes: Uint8Array.of(1, 2, 3, 0) };

let env: TestEnv;
let store: ControlledStore;
let take: TakeInbound;
let dir: string;
let count = 0;
beforeEach(() => {
  env = testEnv();
  dir = mkdtempSync(join(tmpdir(), 'inbound-'));
  store = openEngineStore(join(dir, 'x.db'), { now: env.clock.now() });
  take = createInboundIntake({ store, ids, words: OPT_OUT_WORDS, log: env.log });
});
afterEach(async () => {
  await store.close();
  rmSync(dir, { recursive: true });
});

const message = (more: Partial<CarrierInbound> = {}): CarrierInbound => ({
  carrier: 'mmsc',
  channel: 'MMS',
  id: `mo-${++count}`,
  from: '441134960001',
  to: ['441134960000'],
  cc: [],
  parts: [text('Hello'), PNG],
  ...more,
});
const pulled = () => store.takeInbox({ account: 1, limit: 100 });

describe('a message from a handset', () => {
  it('keeps short texts in Unicode and other bytes by their hash', async () => {
    const latin: Part = { contentId: 'l', contentType: 'text/plain;charset="ISO-8859-1"', bytes: Buffer.from([0xe9]) };
    const told = { subject: 'a\0b', priority: 'High', userAgent: 'model\0 5' } as const;
    const { id } = await take(message({ ...told, parts: [text('h\u00e9\0'), latin, PNG] }));
    const [row] = await pulled();
    expect(id).toBe(ids.print('message', row?.no as number));
    expect(row).toMatchObject({ subject: 'ab', priority: 'High', userAgent: 'model 5' });
    expect(row?.parts.map((part) => [part.contentId, part.text, part.size])).toEqual([
      ['t', 'hé', 4],
      ['l', 'é', 1],
      ['<p>', null, 4],
    ]);
    expect(await store.content(row?.parts[2]?.hash as string)).toEqual(PNG.bytes);
  });

  it('reads texts in UTF-16 in the order that their bytes show, and in ISO-8859-1 where nothing is said and nothing else fits', async () => {
    const big = (value: string) => Buffer.from(value, 'utf16le').swap16();
    const little = (value: string) => Buffer.from(value, 'utf16le');
    const cases: [string, Uint8Array, string][] = [
      ['utf-16', Buffer.concat([Uint8Array.of(0xfe, 0xff), big('hé')]), 'hé'],
      ['utf-16', Buffer.concat([Uint8Array.of(0xff, 0xfe), little('hé')]), 'hé'],
      ['utf-16', big('Stop now'), 'Stop now'],
      ['utf-16', little('Stop now'), 'Stop now'],
      ['iso-10646-ucs-2', big('hé😀'), 'hé😀'],
      ['ucs-2', big('日本'), '日本'],
      ['utf-16le', little('日本'), '日本'],
      ['utf-16be', big('日本'), '日本'],
      ['us-ascii', Uint8Array.of(0xe9), 'é'],
    ];
    for (const [charset, bytes, read] of cases) {
      await take(message({ parts: [{ contentId: 't', contentType: `text/plain; charset=${charset}`, bytes }] }));
      expect((await pulled()).map(({ parts }) => parts[0]?.text)).toEqual([read]);
    }
    await take(message({ parts: [{ contentId: 't', contentType: 'text/plain', bytes: Uint8Array.of(0xe9, 0x21) }] }));
    expect((await pulled()).map(({ parts }) => parts[0]?.text)).toEqual(['é!']);
  });

  it('keeps as content what is no text: too long, not in its charset, in one that nobody knows', async () => {
    const parts = [
      text('x'.repeat(20_000)),
      { contentId: 'b', contentType: 'text/plain; charset=utf-8', bytes: Uint8Array.of(0xff, 0xfe, 0xfd) },
      text('hi', 'text/plain; charset=klingon'),
      text('<p>', 'text/html'),
    ];
    await take(message({ parts }));
    const [row] = await pulled();
    expect(row?.parts.map(({ text: value }) => value)).toEqual([null, null, null, null]);
    expect(new Set(row?.parts.map(({ hash }) => hash)).size).toBe(4);
  });

  it('that a carrier repeats has the id of the first, and is there once', async () => {
    const mo = message();
    const first = await take(mo);
    expect(await take(mo)).toEqual(first);
    expect(await pulled()).toHaveLength(1);
    expect(env.lines.map((line) => line.message)).toEqual([
      "inbound message to a number that nobody owns: the first account's",
      'inbound message repeated by its carrier',
    ]);
  });

  it('that says STOP is recorded, and START lifts it; a picture beside the word does no harm', async () => {
    const list = () => store.optOutList({ account: 1, limit: 10 });
    await take(message({ parts: [PNG, text('Stop.')] }));
    expect(await list()).toMatchObject([{ sender: '441134960000', destination: '441134960001' }]);
    await take(message({ parts: [text('start')], channel: 'SMS' }));
    expect(await list()).toEqual([]);
    await take(message({ parts: [], subject: 'STOP' }));
    expect(await list()).toHaveLength(1);
    await take(message({ parts: [text('yes'), text('but not now')] }));
    expect(await list()).toHaveLength(1);
    // Both are messages like any other.
    expect(await pulled()).toHaveLength(4);
  });

  it('is not told taken while the store is away; the next one is', async () => {
    let away = true;
    const flaky = {
      reserve: (n: number) => (away ? Promise.reject(new StoreUnavailable('away')) : store.reserve(n)),
      putContent: store.putContent.bind(store),
      inbound: store.inbound.bind(store),
    };
    const intake = createInboundIntake({ store: flaky, ids, words: OPT_OUT_WORDS, log: env.log });
    await expect(intake(message())).rejects.toThrow(StoreUnavailable);
    away = false;
    const all = await Promise.all(Array.from({ length: 20 }, () => intake(message())));
    expect(new Set(all.map(({ id }) => id)).size).toBe(20);
  });

  it('shows no text, subject or number in the log', async () => {
    await take(message({ subject: 'private', parts: [text('very private')] }));
    const shown = JSON.stringify(env.lines);
    for (const word of ['private', '441134960001']) expect(shown).not.toContain(word);
  });
});

describe('the webhook for it', () => {
  it('is posted as MO_MMS_2 with URLs that open its parts, signed, and repeated with the same bytes', async () => {
    const url = 'https://shop.example/in';
    await store.endpointPut({
      account: 1,
      kind: 'inbound',
      url,
      isDefault: true,
      headers: { 'x-shop': '7', 'User-Agent': 'me' },
      secret: { value: 'a secret of some length', oldForMs: 0 },
    });
    const { id } = await take(message());
    const calls: (PostOptions & { url: string })[] = [];
    const outbound = {
      post: async (to: string, options: PostOptions) => {
        calls.push({ url: to, ...options });
        return { ok: true as const, status: calls.length > 1 ? 200 : 500, headers: {}, excerpt: '' };
      },
    };
    const clocked = new Proxy(store, {
      get(target, name: keyof ControlledStore) {
        target.advance(env.clock.now() - target.now());
        return target[name];
      },
    });
    const partUrls = createPartUrls('https://mms.example', KEY);
    const loop = createWebhooks({ store: clocked, outbound, env, ids, partUrls });
    loop.start();
    await env.clock.advance(1_000);
    // More waits by now: the bytes of the first try say nothing of it.
    await take(message());
    await env.clock.advance(120_000);
    await loop.stop();
    const ours = calls.filter(({ body }) => body.includes(id));
    expect(ours).toHaveLength(2);
    expect(ours[1]?.body).toBe(ours[0]?.body);
    expect(ours[0]).toMatchObject({
      url,
      headers: { 'content-type': 'application/json', 'user-agent': 'Postcard-Webhooks/1', 'x-shop': '7' },
    });
    expect(ours[0]?.headers).not.toHaveProperty('User-Agent');
    expect(ours[0]?.headers['webhook-signature']).toMatch(/^v1,/);
    const body = JSON.parse(ours[0]?.body as string);
    expect(body).toMatchObject({ messageCount: 1, pendingMessageCount: 0 });
    const [hello, picture] = body.results[0].message;
    expect(hello).toEqual({ contentType: 'text/plain', value: 'Hello' });
    const token = picture.url.slice('https://mms.example/mms/1/inbox/content/'.length);
    const named = createPartTokens(KEY).parse(token, env.clock.now());
    const part = await store.inboundPart(named?.no as number, named?.part as number);
    expect(await store.content(part?.hash as string)).toEqual(PNG.bytes);
  });
});

describe('a click', () => {
  it('is a POST of its own, whose body is what was recorded, signed like the others', async () => {
    const url = 'https://shop.example/clicks';
    await store.endpointPut({
      account: 1,
      kind: 'click',
      url,
      secret: { value: 'a secret of some length', oldForMs: 0 },
    });
    // Who records clicks writes such rows.
    const db = new DatabaseSync(join(dir, 'x.db'));
    db.exec(`INSERT INTO endpoint (no, account, url, content_type, kind, open, fails, fresh, due_at, seq)
      VALUES (9, 1, '${url}', 'application/json', 2, 0, 0, 0, 0, 0)`);
    for (const no of [101, 102, 103]) {
      db.exec(`INSERT INTO event (no, message, account, at, status, error, kind, words)
        VALUES (${no}, 7, 1, 0, 0, 0, 3, '{"notificationType":"CLICKED","n":${no}}');
        INSERT INTO outbox (endpoint, event) VALUES (9, ${no})`);
    }
    db.close();
    const bodies: string[] = [];
    const outbound = {
      post: async (_url: string, options: PostOptions) => {
        bodies.push(options.body);
        expect(options.headers['webhook-signature']).toMatch(/^v1,/);
        return { ok: true as const, status: 200, headers: {}, excerpt: '' };
      },
    };
    const loop = createWebhooks({ store, outbound, env, ids, partUrls: createPartUrls('https://mms.example', KEY) });
    loop.start();
    await env.clock.advance(1_000);
    await loop.stop();
    expect(bodies.sort()).toEqual([101, 102, 103].map((n) => `{"notificationType":"CLICKED","n":${n}}`));
    const { deliveries } = await store.webhookDeliveries({ account: 1, limit: 10 });
    expect(deliveries.map(({ kind, state, messages }) => [kind, state, messages])).toEqual(
      Array.from({ length: 3 }, () => ['click', 'DELIVERED', [{ no: 7, key: null }]]),
    );
  });
});
