/**
 * Two nodes on one PostgreSQL share the lanes of one carrier; the death of one moves its lanes to the other within 90 s, and
 * every message is delivered once. The carrier is a peer of its own that remembers what it took.
 *
 * Needs a server where databases may be created: POSTCARD_TEST_POSTGRES=postgres://... Left out without it.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { fateOf, type Mmsc, type Receiver, startMmsc, startReceiver } from './peers.ts';
import { call, eventually, freePorts, type Ports, type Postcard, startPostcard } from './server.ts';

const SERVER = process.env.POSTCARD_TEST_POSTGRES;
const CARRIER = 'mmsc';
/** G12: after the death of a node its lanes work again. */
const TAKEOVER_MS = 90_000;

function urlOf(database: string): string {
  const url = new URL(SERVER as string);
  url.pathname = `/${database}`;
  return url.href;
}

async function ask<Row extends pg.QueryResultRow>(url: string, text: string): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(text)).rows;
  } finally {
    await client.end();
  }
}

describe.skipIf(SERVER === undefined)('several nodes on one PostgreSQL', () => {
  let dir = '';
  let database = '';
  let mmsc: Mmsc;
  let receiver: Receiver;
  let nodes: Postcard[] = [];

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'postcard-nodes-'));
    database = `postcard_nodes_${randomBytes(5).toString('hex')}`;
    await ask(SERVER as string, `CREATE DATABASE ${database}`);
    mmsc = await startMmsc(join(dir, 'mmsc.log'), CARRIER);
    receiver = await startReceiver();
    nodes = [];
  });
  afterEach(async () => {
    await Promise.all(nodes.map((node) => node.end('SIGKILL')));
    await mmsc.close();
    await receiver.close();
    await ask(SERVER as string, `DROP DATABASE ${database} WITH (FORCE)`);
    rmSync(dir, { recursive: true, force: true });
  });

  async function startNode(
    name: string,
    carriers: object[],
    settings: Record<string, string>,
    roles: string,
    ports?: Ports,
  ) {
    const home = join(dir, name);
    mkdirSync(home);
    // JSON is YAML.
    writeFileSync(join(home, 'postcard.yaml'), JSON.stringify({ carriers }));
    const own = ports ?? (await freePorts());
    const node = await startPostcard(home, own, {
      settings: {
        POSTCARD_STORE: urlOf(database),
        POSTCARD_NODE: name,
        POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
        ...settings,
      },
      args: ['--roles', roles],
    });
    nodes.push(node);
    return { node, ports: own };
  }

  /** Who holds how many lanes now. */
  async function holders(): Promise<Record<string, number>> {
    const rows = await ask<{ node: string; n: number }>(
      urlOf(database),
      `SELECT node, count(*)::int AS n FROM postcard.lane_lease WHERE until > extract(epoch FROM clock_timestamp()) * 1000
       GROUP BY node`,
    );
    return Object.fromEntries(rows.map((row) => [row.node, row.n]));
  }

  async function submitted(node: Postcard): Promise<number> {
    const page = await (await call(node.url, '/metrics')).text();
    const counts = [...page.matchAll(/^postcard_lane_outcomes_total\{.*outcome="accepted".*\} (\d+)$/gm)];
    return counts.reduce((sum, match) => sum + Number(match[1]), 0);
  }

  async function send(node: Postcard, to: string[]): Promise<string[]> {
    const message = {
      sender: 'Torture',
      destinations: to.map((one) => ({ to: one })),
      content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
      webhooks: { delivery: { url: receiver.url } },
    };
    const answer = await call(node.url, '/mms/2/messages', {
      method: 'POST',
      body: JSON.stringify({ messages: [message] }),
    });
    expect(answer.status).toBe(200);
    return ((await answer.json()) as { messages: { messageId: string }[] }).messages.map((one) => one.messageId);
  }

  it('share the lanes of a carrier; when one is killed the other takes its lanes, and each message goes out once', async () => {
    const carrier = { name: CARRIER, type: 'mm7', url: `http://127.0.0.1:${mmsc.port}/mm7`, vaspId: 'postcard' };
    const carriers = [{ ...carrier, onUnknown: 'retry', concurrency: 8, timeoutMs: 3_000 }];
    const settings = { POSTCARD_SANDBOX: 'false' };
    const roles = 'api,dispatch,webhooks';
    const a = await startNode('a', carriers, settings, roles);
    const b = await startNode('b', carriers, settings, roles);
    mmsc.reportTo.push(a.ports.carrier, b.ports.carrier);
    expect(await eventually(120_000, async () => JSON.stringify(await holders()) === '{"a":2,"b":2}')).toBe(true);

    let next = 0;
    const sent = new Map<string, string>();
    const burst = async (node: Postcard): Promise<void> => {
      const to = Array.from({ length: 50 }, () => String(441134960000 + next++));
      const ids = await send(node, to);
      for (const [index, id] of ids.entries()) sent.set(id, to[index] as string);
    };
    for (let n = 0; n < 4; n++) await Promise.all([burst(a.node), burst(b.node)]);
    expect(await eventually(180_000, () => receiver.reports.size >= sent.size)).toBe(true);
    expect(await submitted(a.node)).toBeGreaterThan(0);
    expect(await submitted(b.node)).toBeGreaterThan(0);

    // Killed with messages of both in all lanes, and some out.
    await Promise.all([burst(a.node), burst(b.node), burst(a.node), burst(b.node)]);
    await a.node.end('SIGKILL');
    const killed = Date.now();
    await burst(b.node);
    expect(await eventually(TAKEOVER_MS, async () => JSON.stringify(await holders()) === '{"b":4}')).toBe(true);
    const left = TAKEOVER_MS - (Date.now() - killed);
    expect(await eventually(left, () => mmsc.byNumber.size === next)).toBe(true);
    // A POST that the dead node had begun comes again after its lease.
    expect(await eventually(TAKEOVER_MS, () => receiver.reports.size === sent.size)).toBe(true);
    for (const [id, to] of sent) {
      expect([to, mmsc.byNumber.get(to)?.length, new Set(receiver.reports.get(id))]).toEqual([
        to,
        1,
        new Set([fateOf(to).final]),
      ]);
    }
  });

  it('with one role each, door, dispatch, webhooks and sandbox find each other over rows and sockets', async () => {
    const [door, work, post, sandbox] = [await freePorts(), await freePorts(), await freePorts(), await freePorts()];
    const settings = {
      POSTCARD_SANDBOX_URL: `http://127.0.0.1:${sandbox.sandbox}`,
      POSTCARD_CARRIER_URL: `http://127.0.0.1:${work.carrier}`,
    };
    await startNode('sandbox', [], settings, 'sandbox', sandbox);
    await startNode('work', [], settings, 'dispatch', work);
    await startNode('post', [], settings, 'webhooks', post);
    const { node } = await startNode('door', [], settings, 'api', door);
    const to = Array.from({ length: 20 }, (_, n) => String(441134961000 + n));
    const ids = await send(node, to);
    expect(await eventually(180_000, () => receiver.reports.size === to.length)).toBe(true);
    for (const [n, id] of ids.entries()) {
      expect(receiver.reports.get(id)).toEqual([5]);
      const inbox = await fetch(`http://127.0.0.1:${sandbox.sandbox}/sandbox/handsets/${to[n]}/messages`);
      expect(((await inbox.json()) as { messages: unknown[] }).messages).toHaveLength(1);
    }
    // Its door is the business of another.
    const closed = await call(`http://127.0.0.1:${work.api}`, '/mms/2/messages', { method: 'POST', body: '{}' });
    expect(closed.status).toBe(404);
  });
});
