import type { ServerResponse } from 'node:http';
import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { createIds } from '../domain/ids.ts';
import { testEnv } from '../env.ts';
import type { EventRow, SpecRow, Store } from '../store/contract.ts';
import { createFeed } from './feed.ts';

const spec: SpecRow = {
  no: 2,
  account: 1,
  sender: 'Postcard',
  body: JSON.stringify({ sender: 'Postcard', content: { messageSegments: [] } }),
  acceptedAt: 0,
  media: [],
};

function event(no: number): EventRow {
  return {
    no: 3,
    key: null,
    bulk: 1,
    bulkId: null,
    spec: 2,
    to: '41793026727',
    state: 3,
    status: 5,
    error: 0,
    acceptedAt: 0,
    sentAt: 0,
    doneAt: 0,
    claimed: false,
    leg: 0,
    event: no,
    at: 0,
  };
}

/** What a stream's other end got. `open = false`: it does not read. */
class Listener extends Writable {
  text = '';
  open = true;
  constructor() {
    super({ highWaterMark: 1, decodeStrings: false });
  }
  writeHead(): this {
    return this;
  }
  override _write(chunk: string, _encoding: BufferEncoding, done: () => void): void {
    this.text += chunk;
    if (this.open) done();
  }
}

function setUp(events: number[] = []) {
  const env = testEnv();
  let fault: Error | null = null;
  let asked = 0;
  const store = {
    async feed(_account: number, after: number, limit: number) {
      asked++;
      if (fault !== null) throw fault;
      const last = events.at(-1) ?? 0;
      if (after === 0) return { rows: [], specs: [], last };
      const rows = events.filter((no) => no > after).slice(0, limit);
      return {
        rows: rows.map(event),
        specs: [spec],
        last: rows.length === limit ? (rows.at(-1) ?? 0) : Math.max(last, after),
      };
    },
  } as unknown as Store;
  const feed = createFeed({ store, env, ids: createIds('00'.repeat(16)) });
  const listen = (last?: string, query: object = {}): Listener => {
    const taken = feed.listen(1, last, query);
    if ('status' in taken) throw new Error(taken.body);
    const listener = new Listener();
    taken.start(listener as unknown as ServerResponse);
    return listener;
  };
  const fail = (error: Error | null): void => {
    fault = error;
  };
  return { env, feed, listen, events, store, asked: () => asked, fail };
}

const seen = (listener: Listener): number[] => [...listener.text.matchAll(/^id: (\d+)$/gm)].map(([, no]) => Number(no));

describe('the event stream', () => {
  it('starts at the newest event, also in a store that has none yet', async () => {
    for (const before of [[], [1, 2, 3]]) {
      const { env, listen, events } = setUp([...before]);
      const listener = listen();
      await env.clock.settle();
      expect(listener.text).toBe('retry: 2000\n\n');
      events.push(4, 5);
      await env.clock.advance(1000);
      expect(seen(listener)).toEqual([4, 5]);
    }
  });

  it('goes on after the event that the client saw last, in order, however many there are', async () => {
    const { env, listen } = setUp(Array.from({ length: 333 }, (_, i) => i + 1));
    const listener = listen('10');
    const all = listen('0');
    await env.clock.advance(1000);
    expect(seen(listener)).toEqual(Array.from({ length: 323 }, (_, i) => i + 11));
    expect(seen(all)).toHaveLength(333);
  });

  it('says that it is alive every 15 s, and only then', async () => {
    const { env, listen } = setUp([1]);
    const listener = listen();
    await env.clock.advance(14_000);
    expect(listener.text).not.toContain('still here');
    await env.clock.advance(32_000);
    expect(listener.text.match(/^: still here$/gm)).toHaveLength(3);
  });

  it('asks the store only while somebody listens', async () => {
    const { env, feed, listen, asked } = setUp([1]);
    const listener = listen();
    await env.clock.advance(1000);
    expect(feed.listeners()).toBe(1);
    listener.destroy();
    await env.clock.advance(1000);
    expect(feed.listeners()).toBe(0);
    expect(env.clock.pending()).toBe(0);
    const before = asked();
    await env.clock.advance(10_000);
    expect(asked()).toBe(before);
  });

  it('stops asking for a client that does not read, and drops it after 30 s', async () => {
    const { env, listen, events, asked } = setUp([1]);
    const listener = listen();
    await env.clock.settle();
    listener.open = false;
    events.push(...Array.from({ length: 500 }, (_, i) => i + 2));
    await env.clock.advance(1000);
    const before = asked();
    await env.clock.advance(28_000);
    expect(asked()).toBe(before);
    expect(seen(listener).length).toBeLessThanOrEqual(50);
    await env.clock.advance(2_000);
    expect(listener.destroyed).toBe(true);
    expect(env.clock.pending()).toBe(0);
  });

  it('outlasts a store that cannot be read', async () => {
    const { env, listen, events, fail } = setUp([1]);
    const listener = listen();
    await env.clock.settle();
    fail(new Error('away'));
    events.push(2);
    await env.clock.advance(5000);
    fail(null);
    await env.clock.advance(1000);
    expect(seen(listener)).toEqual([2]);
  });

  it('with a search tells only what it finds, and where to resume behind what it left out', async () => {
    const { env, listen, store, events } = setUp([1]);
    const { feed } = store;
    store.feed = async (...args) => {
      const page = await feed(...args);
      return { ...page, rows: page.rows.map((row) => ({ ...row, to: row.event % 3 === 0 ? '41790000003' : row.to })) };
    };
    const listener = listen('1', { search: 'to:+41790000003 status:delivered' });
    await env.clock.settle();
    events.push(2, 3, 4, 5);
    await env.clock.advance(250);
    expect(listener.text.match(/^data: /gm)).toHaveLength(1);
    expect(listener.text.endsWith('\n\nid: 5\n\n')).toBe(true);
    events.push(6);
    await env.clock.advance(250);
    expect(listener.text).toMatch(/\n\nid: 6\nevent: status\ndata: .*\n\n$/);
    expect(listener.text.match(/^data: /gm)).toHaveLength(2);
  });

  it('refuses a search that it does not understand, before any stream begins', () => {
    const { feed } = setUp();
    const taken = feed.listen(1, undefined, { search: 'too:41790000003' }) as { status: number; body: string };
    expect(taken.status).toBe(400);
    expect(JSON.parse(taken.body).violations).toEqual([
      {
        property: 'search',
        violation: 'has no word too:; words are to: from: status: bulk: campaign: before: after:',
      },
    ]);
    expect(feed.listeners()).toBe(0);
  });

  it('ends all streams when it closes', async () => {
    const { env, feed, listen } = setUp([1]);
    const listener = listen();
    await env.clock.settle();
    feed.close();
    await env.clock.settle();
    expect(listener.writableEnded).toBe(true);
    expect(env.clock.pending()).toBe(0);
  });
});
