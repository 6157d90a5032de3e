import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Webhook as OfficialVerifier } from 'standardwebhooks';
import { afterEach, describe, expect, it } from 'vitest';
import { type ControlledStore, openEngineStore } from '../../test/conformance/engine-store.ts';
import { createIds } from '../domain/ids.ts';
import { createPartUrls } from '../domain/inbound.ts';
import { deliveryReport } from '../domain/report.ts';
import { webhookDelay } from '../domain/retry.ts';
import type { EventRow, SpecRow } from '../domain/rows.ts';
import { STATE } from '../domain/status.ts';
import { realEnv, type TestEnv, testEnv } from '../env.ts';
import { type CallFault, createOutbound, type Posted, type PostOptions } from '../net/outbound.ts';
import type { Store, Webhook, WebhookSettle } from '../store/contract.ts';
import { readXml, textOf } from '../xml.ts';
import { formBody, signature } from './payload.ts';
import { createWebhooks } from './webhooks.ts';

const KEY = '000102030405060708090a0b0c0d0e0f';
const ids = createIds(KEY);
const partUrls = createPartUrls('https://mms.example', KEY);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const OK: Posted = { ok: true, status: 200, headers: {}, excerpt: '' };
const answer = (status: number): Posted => ({ ...OK, status });
const TIMEOUT: CallFault = { ok: false, kind: 'timeout', words: 'no answer within 10 s' };

const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

interface Call extends PostOptions {
  url: string;
  at: number;
}

/** A receiver that answers as told, in virtual time. */
function receiver(env: TestEnv, behave: (call: Call) => (Posted | CallFault) | Promise<Posted | CallFault>) {
  const calls: Call[] = [];
  return {
    calls,
    post: async (url: string, options: PostOptions) => {
      const call = { url, ...options, at: env.clock.now() };
      calls.push(call);
      return behave(call);
    },
  };
}

// ------------------------------------------------------------------------------------------------ with the real engine

interface World {
  env: TestEnv;
  store: ControlledStore;
  /** Accepts messages to `urls`, one each; returns their numbers. */
  accept(urls: string[], options?: { intermediate?: boolean; contentType?: string }): Promise<number[]>;
  /** Claims all, and settles them as taken by the carrier. */
  submit(): Promise<void>;
  retrieve(no: number): Promise<void>;
}

async function world(reports = false): Promise<World> {
  const env = testEnv();
  const dir = mkdtempSync(join(tmpdir(), 'webhooks-'));
  closers.push(() => rmSync(dir, { recursive: true, force: true }));
  const engine = openEngineStore(join(dir, 'x.db'), { now: env.clock.now() });
  closers.push(() => engine.close());
  // One clock: the engine's follows the loop's.
  const store = new Proxy(engine, {
    get(target, name: keyof ControlledStore) {
      engine.advance(env.clock.now() - engine.now());
      return target[name];
    },
  });
  const lane = await store.lane('c', { onUnknown: 'fail', reports });
  return {
    env,
    store,
    async accept(urls, { intermediate = false, contentType = 'application/json' } = {}) {
      const first = await store.reserve(1 + 2 * urls.length);
      const from = first + 1 + urls.length;
      const specs = urls.map((url, i) => ({
        first: from + i,
        end: from + i + 1,
        sender: 'Postcard',
        campaign: null,
        entity: null,
        application: null,
        endpoint: { url, contentType },
        intermediate,
        notify: true,
        body: JSON.stringify({
          sender: 'Postcard',
          content: { messageSegments: [{ type: 'TEXT', text: 'secret words' }] },
          webhooks: { callbackData: `for ${i} & <you>` },
        }),
        uploads: [],
        links: [],
      }));
      const accepted = await store.accept({
        account: 1,
        first,
        bulkId: null,
        sendAt: null,
        intervalUs: null,
        specs,
        runs: urls.map((_, i) => ({
          first: from + i,
          end: from + i + 1,
          spec: first + 1 + i,
          lane,
          group: false,
          window: null,
          validityMs: 48 * HOUR,
        })),
        to: urls.map((_, i) => `4179302${6727 + i}`),
        refused: [],
        keys: [],
        idem: null,
      });
      expect(accepted.kind).toBe('accepted');
      return urls.map((_, i) => from + i);
    },
    async submit() {
      const { claims } = await store.claim(lane, 10_000, 60_000);
      for (const { token, leader } of claims) {
        await store.settle({
          lane,
          token,
          leader,
          outcome: { kind: 'accepted', carrierMessageId: `m${leader}` },
          startedAt: env.clock.now(),
          tookMs: 1,
        });
      }
    },
    async retrieve(no) {
      const { known } = await store.report({
        carrier: 'c',
        carrierMessageId: `m${no}`,
        addresses: [],
        kind: 'retrieved',
        words: 'Retrieved',
      });
      expect(known).toBe(true);
    },
  };
}

describe('the outbox, on the real engine', () => {
  it('posts the documented body, once, and settles it', async () => {
    const { env, store, accept, submit } = await world();
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    const [no] = await accept(['http://a.example/x']);
    await submit();
    await env.clock.advance(HOUR);
    expect(to.calls).toHaveLength(1);
    const { url, headers, body, timeoutMs } = to.calls[0] as Call;
    expect({ url, headers, timeoutMs }).toEqual({
      url: 'http://a.example/x',
      headers: { 'content-type': 'application/json', 'user-agent': 'Postcard-Webhooks/1' },
      timeoutMs: 10_000,
    });
    const { results } = JSON.parse(body);
    expect(results).toHaveLength(1);
    expect(results[0]).toMatchObject({
      messageId: ids.print('message', no as number),
      to: '41793026727',
      status: { id: 2, groupName: 'DELIVERED' },
      callbackData: 'for 0 & <you>',
    });
    const story = await store.story(1, { no: no as number });
    expect(story?.webhooks).toMatchObject([{ retry: 0, status: 200, url: 'http://a.example/x' }]);
    const lines = env.lines.filter((line) => line.message.startsWith('webhook'));
    expect(lines).toMatchObject([{ fields: { origin: 'http://a.example', retry: 0, status: 200, events: 1 } }]);
    expect(JSON.stringify(env.lines)).not.toContain('secret words');
    await loop.stop();
  });

  it('repeats the same bytes by the published cycle, 20 times in 41 h 30 min, then leaves the report to be pulled', async () => {
    const { env, store, accept, submit } = await world();
    const to = receiver(env, () => answer(500));
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    await accept(['http://a.example/x']);
    await submit();
    await env.clock.advance(60 * HOUR);
    expect(to.calls).toHaveLength(21);
    const first = to.calls[0]?.at as number;
    let due = 0;
    to.calls.forEach((call, n) => {
      expect(call.body).toBe(to.calls[0]?.body);
      // As due, never earlier, and not later than the loop asks.
      expect(call.at - first - due).toBeGreaterThanOrEqual(0);
      expect(call.at - first - due).toBeLessThan(2_000);
      due += webhookDelay(n) ?? 0;
    });
    expect(Math.round(((to.calls[20]?.at as number) - first) / MINUTE)).toBe(41 * 60 + 30);
    const pulled = await store.takeReports({ account: 1, limit: 10 });
    expect(pulled.rows).toHaveLength(1);
    expect(loop.counters()).toMatchObject({ tries: 21, delivered: 0, failed: 21, inFlight: 0, held: 0 });
    await loop.stop();
  });

  it('counts as taken any 2xx and nothing else', async () => {
    for (const [result, taken] of [
      [answer(204), true],
      [answer(299), true],
      [answer(302), false],
      [answer(410), false],
      [TIMEOUT, false],
    ] as const) {
      const { env, store, accept, submit } = await world();
      const to = receiver(env, () => result);
      const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
      loop.start();
      await accept(['http://a.example/x']);
      await submit();
      await env.clock.advance(90_000);
      expect([result, to.calls.length]).toEqual([result, taken ? 1 : 2]);
      await loop.stop();
    }
  });

  it("keeps a message's reports in order: a later one waits until the earlier one is taken", async () => {
    const { env, store, accept, submit, retrieve } = await world(true);
    let up = false;
    const to = receiver(env, () => (up ? OK : answer(503)));
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    const [no] = await accept(['http://a.example/x'], { intermediate: true });
    await submit();
    await env.clock.advance(1_000);
    await retrieve(no as number);
    await env.clock.advance(2 * MINUTE);
    const statuses = () =>
      to.calls.map((call) => JSON.parse(call.body).results.map((r: { status: { id: number } }) => r.status.id));
    expect(
      statuses()
        .flat()
        .every((id) => id === 7),
    ).toBe(true);
    up = true;
    await env.clock.advance(10 * MINUTE);
    expect(statuses().slice(-3)).toEqual([[7], [3], [5]]);
    await loop.stop();
  });

  it('gathers what is ready into one POST, at most 100 reports', async () => {
    const { env, store, accept, submit } = await world();
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    await accept(Array.from({ length: 250 }, () => 'http://a.example/x'));
    await submit();
    loop.start();
    await env.clock.advance(1_000);
    expect(to.calls.map((call) => JSON.parse(call.body).results.length)).toEqual([100, 100, 50]);
    expect(loop.counters()).toMatchObject({ tries: 3, events: 250 });
    await loop.stop();
  });

  it('speaks XML where asked to', async () => {
    const { env, store, accept, submit } = await world();
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    await accept(['http://a.example/x', 'http://a.example/x'], { contentType: 'application/xml' });
    await submit();
    await env.clock.advance(1_000);
    const { headers, body } = to.calls[0] as Call;
    expect(headers['content-type']).toBe('application/xml');
    const xml = readXml(body);
    if (!xml.ok) throw new Error(xml.fault);
    expect(xml.root.name).toBe('DeliveryReports');
    expect(xml.root.children[0]?.children).toHaveLength(2);
    expect(textOf(xml.root, 'results', 'result', 'callbackData')).toBe('for 0 & <you>');
    await loop.stop();
  });

  it('comes back after a crash with what was leased, under the same id', async () => {
    const { env, store, accept, submit } = await world();
    const dead = receiver(env, () => new Promise<Posted>(() => undefined));
    let alive = true;
    const dying: Pick<Store, 'webhookNext' | 'webhookSettle' | 'onHint'> = {
      onHint: (listener) => store.onHint(listener),
      webhookNext: (...args) => (alive ? store.webhookNext(...args) : new Promise(() => undefined)),
      webhookSettle: (settle) => store.webhookSettle(settle),
    };
    createWebhooks({ store: dying, outbound: dead, env, ids, partUrls }).start();
    await accept(['http://a.example/x']);
    await submit();
    await env.clock.advance(1_000);
    expect(dead.calls).toHaveLength(1);
    alive = false;
    store.crash();
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    await env.clock.advance(45_000);
    expect(to.calls.map((call) => call.body)).toEqual([dead.calls[0]?.body]);
    await loop.stop();
  });
});

// ------------------------------------------------------------------------------------------------ with a store of rows

const specRow: SpecRow = {
  no: 1,
  account: 1,
  sender: 'Postcard',
  body: '{"sender":"Postcard","content":{"messageSegments":[]}}',
  acceptedAt: 0,
  media: [],
};

function event(no: number): EventRow {
  return {
    ...{ no, event: no, key: null, bulk: 1, bulkId: null, spec: 1, to: '41793026727', state: STATE.delivered },
    ...{ status: 5, error: 0, acceptedAt: 0, sentAt: 0, doneAt: 0, at: 0, claimed: false, leg: 0 as const },
  };
}

interface Row {
  hook: Omit<Webhook, 'token'>;
  dueAt: number;
  token: number;
}

/** A store of hooks that are due at once: what it hands out it hands out again when the lease ends. Failed ones come after 60 s. */
function rowStore(env: TestEnv, endpoints: { no: number; url: string; secrets?: string[] }[]) {
  const rows = new Map<number, Row>();
  const settled: (WebhookSettle & { endpoint: number; at: number })[] = [];
  const hints: (() => void)[] = [];
  let token = 0;
  let asked = 0;
  const store: Pick<Store, 'webhookNext' | 'webhookSettle' | 'onHint'> = {
    async webhookNext(limit, leaseMs) {
      asked += 1;
      const now = env.clock.now();
      const webhooks: Webhook[] = [];
      for (const row of [...rows.values()].sort((a, b) => a.dueAt - b.dueAt)) {
        if (row.dueAt > now || webhooks.length >= limit) break;
        row.token = ++token;
        row.dueAt = now + leaseMs;
        webhooks.push({ ...row.hook, token: row.token });
      }
      const due = [...rows.values()].map((row) => row.dueAt);
      return { now, webhooks, specs: [specRow], nextDue: due.length > 0 ? Math.min(...due) : null };
    },
    async webhookSettle(settle) {
      const row = rows.get(settle.no);
      if (!row || row.token !== settle.token) return false;
      settled.push({ ...settle, endpoint: row.hook.endpoint.no, at: env.clock.now() });
      if (settle.ok) rows.delete(settle.no);
      else Object.assign(row, { dueAt: env.clock.now() + MINUTE, hook: { ...row.hook, retry: 1, body: settle.body } });
      return true;
    },
    onHint: (listener) => void hints.push(() => listener({ kind: 'webhooks' })),
  };
  let no = 0;
  return {
    store,
    settled,
    rows,
    asked: () => asked,
    add(endpoint: number) {
      no += 1;
      const { url, secrets = [] } = endpoints.find((entry) => entry.no === endpoint) ?? { url: '' };
      rows.set(no, {
        hook: {
          no,
          account: 1,
          kind: 'delivery',
          endpoint: { no: endpoint, url, contentType: 'application/json', secrets, headers: {} },
          retry: 0,
          body: null,
          events: [event(no)],
          inbound: [],
          pending: 0,
        },
        dueAt: env.clock.now(),
        token: 0,
      });
      for (const hint of hints) hint();
    },
  };
}

const sites = (count: number) => Array.from({ length: count }, (_, i) => ({ no: i, url: `http://e${i}.example/` }));
const p99 = (times: number[]) => times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)] as number;

describe('a retry', () => {
  it('posts the bytes of the first try, even if its messages look different by now', async () => {
    const env = testEnv();
    const { store, add, rows } = rowStore(env, sites(1));
    const to = receiver(env, () => (to.calls.length > 1 ? OK : answer(500)));
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    add(0);
    await env.clock.advance(1_000);
    const [row] = [...rows.values()];
    Object.assign(row?.hook.events[0] as EventRow, { sentAt: 5, status: 9, error: 27 });
    await env.clock.advance(2 * MINUTE);
    expect(to.calls).toHaveLength(2);
    expect(to.calls[1]?.body).toBe(to.calls[0]?.body);
    await loop.stop();
  });

  it('whose messages are past retention is settled without a call', async () => {
    const env = testEnv();
    const { store, add, rows, settled } = rowStore(env, sites(1));
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    add(0);
    for (const row of rows.values()) row.hook.events = [];
    loop.start();
    await env.clock.advance(1_000);
    expect([to.calls.length, settled]).toMatchObject([0, [{ ok: true, status: 0 }]]);
    await loop.stop();
  });
});

describe('room', () => {
  it('is not taken from 999 endpoints by one that hangs, nor by 200 that do', async () => {
    for (const hanging of [1, 200]) {
      const env = testEnv();
      const { store, settled, add } = rowStore(env, sites(1_000));
      const to = receiver(env, async (call) => {
        const site = Number(/e(\d+)/.exec(call.url)?.[1]);
        await env.clock.sleep(site < hanging ? 10_000 : 20);
        return site < hanging ? TIMEOUT : OK;
      });
      const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
      loop.start();
      const added = new Map<number, number>();
      let no = 0;
      // Two minutes; each second a webhook for each of 60 endpoints, all of the hanging ones among them every few seconds.
      for (let second = 0; second < 120; second += 1) {
        for (let k = 0; k < 60; k += 1) {
          const site =
            k % 4 === 0 ? (second * 15 + k / 4) % hanging : hanging + ((second * 60 + k) % (1_000 - hanging));
          added.set(++no, env.clock.now());
          add(site);
        }
        await env.clock.advance(1_000);
      }
      const late = settled
        .filter((settle) => settle.endpoint >= hanging)
        .map((settle) => settle.at - (added.get(settle.no) as number));
      expect(late.length).toBeGreaterThan(5_000);
      // The first 200 that turn out to hang hold each quick slot for 2 s; after that the others do not notice them.
      expect(p99(late.slice(late.length / 2))).toBeLessThan(200);
      expect(p99(late)).toBeLessThan(hanging === 1 ? 200 : 5_000);
      expect(loop.counters().inFlight).toBeLessThanOrEqual(48 * 5 + 16);
      const stopping = loop.stop();
      await env.clock.advance(20_000);
      await stopping;
    }
  });

  it('is a few POSTs per endpoint, however many wait for it', async () => {
    const env = testEnv();
    const { store, add, settled, rows } = rowStore(env, sites(2));
    let now = 0;
    let most = 0;
    const to = receiver(env, async () => {
      most = Math.max(most, ++now);
      await env.clock.sleep(100);
      now -= 1;
      return OK;
    });
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    for (let i = 0; i < 400; i += 1) add(0);
    await env.clock.advance(20_000);
    expect(most).toBe(4);
    expect([settled.length, rows.size]).toEqual([400, 0]);
    await loop.stop();
  });

  it('asks the store rarely while traffic is dense', async () => {
    const env = testEnv();
    const { store, add, asked } = rowStore(env, sites(1));
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    for (let i = 0; i < 1_000; i += 1) {
      add(0);
      await env.clock.advance(1);
    }
    expect(to.calls.length).toBeGreaterThan(950);
    expect(asked()).toBeLessThan(1_000 / 20 + 50);
    await loop.stop();
  });
});

describe('the breaker', () => {
  it('slows down an endpoint that keeps failing, and skips nothing', async () => {
    const env = testEnv();
    const { store, add, settled, rows } = rowStore(env, sites(1));
    let up = false;
    let now = 0;
    let together = 0;
    const to = receiver(env, async () => {
      now += 1;
      if (to.calls.length > 10) together = Math.max(together, now);
      await env.clock.sleep(5);
      now -= 1;
      return up ? OK : answer(500);
    });
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    for (let i = 0; i < 700; i += 1) add(0);
    await env.clock.advance(30_000);
    expect(to.calls.length).toBeLessThan(45);
    expect(together).toBe(1);
    up = true;
    await env.clock.advance(3 * MINUTE);
    expect(rows.size).toBe(0);
    expect(new Set(settled.filter((settle) => settle.ok).map((settle) => settle.no)).size).toBe(700);
    expect(loop.counters()).toMatchObject({ held: 0, inFlight: 0, delivered: 700 });
    await loop.stop();
  });
});

describe('a store that is away', () => {
  it('is asked again every second, and is not given up', async () => {
    const env = testEnv();
    const { store, add, settled } = rowStore(env, sites(1));
    let away = true;
    let questions = 0;
    const flaky: typeof store = {
      ...store,
      webhookNext: async (limit, leaseMs) => {
        questions += 1;
        if (away) throw new Error('away');
        return store.webhookNext(limit, leaseMs);
      },
    };
    const loop = createWebhooks({ store: flaky, outbound: receiver(env, () => OK), env, ids, partUrls });
    loop.start();
    add(0);
    await env.clock.advance(10_000);
    expect(questions).toBeGreaterThanOrEqual(10);
    expect(questions).toBeLessThan(15);
    expect(env.lines.filter((line) => line.level === 'warn')).toHaveLength(1);
    away = false;
    await env.clock.advance(1_500);
    expect(settled).toHaveLength(1);
    await loop.stop();
  });

  it('gets a settle once more when it could not take it', async () => {
    const env = testEnv();
    const { store, add, rows } = rowStore(env, sites(1));
    let refusals = 3;
    const flaky: typeof store = {
      ...store,
      webhookSettle: async (settle) => {
        if (refusals-- > 0) throw new Error('disk full');
        return store.webhookSettle(settle);
      },
    };
    const to = receiver(env, () => OK);
    const loop = createWebhooks({ store: flaky, outbound: to, env, ids, partUrls });
    loop.start();
    add(0);
    await env.clock.advance(5_000);
    expect([rows.size, to.calls.length]).toEqual([0, 1]);
    await loop.stop();
  });
});

describe('a stop', () => {
  it('waits for what is in flight, takes nothing more, and is bounded', async () => {
    const env = testEnv();
    const { store, add, settled } = rowStore(env, sites(2));
    const to = receiver(env, async (call) => {
      await env.clock.sleep(call.url.includes('e0') ? 5_000 : HOUR);
      return OK;
    });
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    add(0);
    await env.clock.advance(100);
    let stopped = false;
    const stopping = loop.stop().then(() => {
      stopped = true;
    });
    add(0);
    await env.clock.advance(4_000);
    expect(stopped).toBe(false);
    await env.clock.advance(2_000);
    await stopping;
    expect([to.calls.length, settled.length]).toEqual([1, 1]);

    const second = createWebhooks({ store, outbound: to, env, ids, partUrls });
    second.start();
    add(1);
    await env.clock.advance(100);
    const bounded = second.stop();
    await env.clock.advance(15_000);
    await bounded;
  });
});

describe('a signature', () => {
  it('is verified by the official library with the new secret and the old, on the first try and on retries, under one id', async () => {
    const env = testEnv({ now: Date.now() });
    const secret = `whsec_${Buffer.from('0123456789abcdef01234567').toString('base64')}`;
    const { store, add } = rowStore(env, [{ no: 0, url: 'http://s.example/', secrets: [secret, 'an old one'] }]);
    const to = receiver(env, () => (to.calls.length > 1 ? OK : answer(500)));
    const loop = createWebhooks({ store, outbound: to, env, ids, partUrls });
    loop.start();
    add(0);
    await env.clock.advance(2 * MINUTE);
    expect(to.calls).toHaveLength(2);
    const verifier = new OfficialVerifier(secret);
    const old = new OfficialVerifier(new TextEncoder().encode('an old one'), { format: 'raw' });
    for (const call of to.calls) {
      expect(verifier.verify(call.body, call.headers)).toEqual(JSON.parse(call.body));
      expect(old.verify(call.body, call.headers)).toEqual(JSON.parse(call.body));
    }
    const [first, second] = to.calls as [Call, Call];
    expect(second.headers['webhook-id']).toBe(first.headers['webhook-id']);
    expect(ids.parse('webhook', first.headers['webhook-id'] as string)).toBe(1);
    expect(second.headers['webhook-timestamp']).not.toBe(first.headers['webhook-timestamp']);
    expect(() => verifier.verify(`${first.body} `, first.headers)).toThrow();
    await loop.stop();
  });

  it('takes a secret that is not base64 as bytes', () => {
    for (const secret of ['my secret', 'whsec_my secret!']) {
      const headers = signature([secret], 'id', Date.now(), '{}');
      const key = new TextEncoder().encode(secret);
      expect(new OfficialVerifier(key, { format: 'raw' }).verify('{}', headers)).toEqual({});
    }
  });
});

describe('the XML form', () => {
  it('has the documented shape, and survives what customers write', () => {
    const row = { ...specRow, sender: '441134960000' };
    const spec = {
      ...JSON.parse(row.body),
      webhooks: { callbackData: 'a\u0000<b>&"c"' },
      options: { platform: { entityId: 'e' } },
    };
    const xml = formBody([deliveryReport(event(1), spec, row, ids)], 'application/xml');
    expect(xml).toBe(
      '<?xml version="1.0" encoding="UTF-8"?><DeliveryReports><results><result>' +
        `<bulkId>${ids.print('bulk', 1)}</bulkId>` +
        '<price><pricePerMessage>0</pricePerMessage><currency>EUR</currency></price>' +
        '<status><groupId>3</groupId><groupName>DELIVERED</groupName><id>5</id><name>DELIVERED_TO_HANDSET</name>' +
        '<description>Message delivered to handset</description></status>' +
        '<error><groupId>0</groupId><groupName>OK</groupName><id>0</id><name>NO_ERROR</name>' +
        '<description>No Error</description><permanent>false</permanent></error>' +
        `<messageId>${ids.print('message', 1)}</messageId><to>41793026727</to><sender>441134960000</sender>` +
        '<sentAt>1970-01-01T00:00:00.000+0000</sentAt><doneAt>1970-01-01T00:00:00.000+0000</doneAt>' +
        '<messageCount>1</messageCount><callbackData>a\ufffd&lt;b&gt;&amp;"c"</callbackData>' +
        '<platform><entityId>e</entityId></platform></result></results></DeliveryReports>',
    );
    expect(readXml(xml).ok).toBe(true);
  });
});

describe('over real sockets', () => {
  it('delivers to the good while others are slow, answer 500, redirect, send garbage or endless answers', async () => {
    const real = realEnv({ level: 'silent' });
    const hits = new Map<string, number>();
    const server = createServer((request, response) => {
      const path = request.url as string;
      hits.set(path, (hits.get(path) ?? 0) + 1);
      request.resume();
      request.on('end', () => {
        if (path === '/good') response.end();
        else if (path === '/500') response.writeHead(500).end('oh no');
        else if (path === '/redirect') response.writeHead(302, { location: '/good' }).end();
        else if (path === '/garbage') request.socket.end('what?\r\n\r\n');
        else if (path === '/huge') {
          const more = (): void => void response.write('x'.repeat(65_536), () => setImmediate(more));
          more();
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    });
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const paths = ['/good', '/500', '/redirect', '/garbage', '/huge', '/hang'];
    const rowEnv = testEnv({ now: Date.now() });
    const { store, add, settled } = rowStore(
      rowEnv,
      paths.map((path, no) => ({ no, url: base + path })),
    );
    const outbound = createOutbound({ allow: ['127.0.0.0/8'], env: real });
    const loop = createWebhooks({ store, outbound, env: real, ids, partUrls });
    loop.start();
    for (let round = 0; round < 5; round += 1) paths.forEach((_, no) => void add(no));
    const enough = () => settled.filter((settle) => settle.endpoint === 0).length === 5 && settled.length >= 21;
    while (!enough()) await real.clock.sleep(20);
    await outbound.close();
    await loop.stop();
    const of = (no: number) => settled.filter((settle) => settle.endpoint === no);
    expect(of(0).every((settle) => settle.ok && settle.status === 200)).toBe(true);
    expect(of(1)[0]).toMatchObject({ ok: false, status: 500, excerpt: 'oh no' });
    expect(of(2)[0]).toMatchObject({ ok: false, status: 302 });
    expect(of(3)[0]).toMatchObject({ ok: false, status: 0 });
    expect(of(3)[0]?.excerpt).toMatch(/^(protocol|closed): /);
    expect(of(4)[0]).toMatchObject({ ok: true, status: 200 });
    // Broken off by the stop: no word about it, the lease will bring it back.
    expect(of(5)).toEqual([]);
    expect(hits.get('/good')).toBe(5);
  });
});
