/**
 * PostgreSQL dies and its standby takes over, under two Postcard nodes that are not restarted: work goes on within 30 s of the
 * promotion (G13), nothing that was acknowledged is lost, and no message has more than one final status. The URL names both servers;
 * a commit is on both disks before it is answered (synchronous_standby_names), so the standby knows all that was promised.
 *
 * Left out where no PostgreSQL server programs are.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { expect, it } from 'vitest';
import { type Cluster, clusterPrograms, startCluster } from './cluster.ts';
import { startMmsc, startReceiver } from './peers.ts';
import { call, eventually, freePorts, type Postcard, startPostcard, wait } from './server.ts';

const CARRIER = 'mmsc';
/** G13: back to work. */
const BACK_MS = 30_000;

it.skipIf(clusterPrograms() === null)(
  'a standby that takes over is worked with within 30 s, without a restart, and has all that was acknowledged',
  async () => {
    const dir = mkdtempSync(join(tmpdir(), 'postcard-failover-'));
    const mmsc = await startMmsc(join(dir, 'mmsc.log'), CARRIER);
    const receiver = await startReceiver();
    const primary = await startCluster(['postcard']);
    const nodes: Postcard[] = [];
    let standby: Cluster | null = null;
    try {
      standby = await primary.standby();
      const url = `postgres://postcard@127.0.0.1:${primary.port},127.0.0.1:${standby.port}/postcard`;
      for (const name of ['one', 'two']) {
        const home = join(dir, name);
        mkdirSync(home);
        const carrier = {
          name: CARRIER,
          type: 'mm7',
          url: `http://127.0.0.1:${mmsc.port}/mm7`,
          concurrency: 8,
          onUnknown: 'retry',
        };
        writeFileSync(join(home, 'postcard.yaml'), JSON.stringify({ carriers: [carrier] }));
        const ports = await freePorts();
        mmsc.reportTo.push(ports.carrier);
        const settings = {
          POSTCARD_STORE: url,
          POSTCARD_NODE: name,
          POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
          POSTCARD_SANDBOX: 'false',
        };
        nodes.push(await startPostcard(home, ports, { settings }));
      }

      const acknowledged: { id: string; at: number }[] = [];
      let refused = 0;
      let ended = false;
      let next = 0;
      /** Sends one by one through one node; what is not answered with 200 is not counted on. */
      async function customer(node: Postcard): Promise<void> {
        while (!ended) {
          const to = `4479${String(1_000_000 + 100 * next++)}`;
          const message = {
            sender: 'Failover',
            destinations: [{ to }],
            content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
            webhooks: { delivery: { url: receiver.url } },
          };
          const answer = await call(node.url, '/mms/2/messages', {
            method: 'POST',
            body: JSON.stringify({ messages: [message] }),
            signal: AbortSignal.timeout(40_000),
          }).catch(() => null);
          if (answer?.status === 200) {
            const { messages } = (await answer.json()) as { messages: { messageId: string }[] };
            acknowledged.push({ id: messages[0]?.messageId as string, at: performance.now() });
          } else {
            await answer?.arrayBuffer();
            if (answer) expect(answer.status).toBe(503);
            refused++;
            await wait(50);
          }
        }
      }
      const customers = nodes.map(customer);
      expect(await eventually(180_000, () => acknowledged.length >= 40)).toBe(true);

      await primary.kill();
      await wait(1_000);
      const killed = acknowledged.length;
      await standby.promote();
      const promotedAt = performance.now();
      const takenBefore = mmsc.taken.size;
      const accepted = () => acknowledged.length >= killed + 20;
      expect(await eventually(BACK_MS, accepted), `accepts after the failover:\n${nodes[0]?.output()}`).toBe(true);
      const backMs = performance.now() - promotedAt;
      expect(await eventually(BACK_MS, () => mmsc.taken.size > takenBefore + 5), 'submissions after the failover').toBe(
        true,
      );
      expect(backMs).toBeLessThan(BACK_MS);
      ended = true;
      await Promise.all(customers);
      expect(nodes.every((node) => node.running())).toBe(true);

      // All that was acknowledged ends delivered, once; leases of what was in flight have to run out first.
      const client = new pg.Client({ connectionString: standby.url('postcard') });
      await client.connect();
      const open = async () =>
        (await client.query('SELECT count(*)::integer AS n FROM postcard.message WHERE state <> 3')).rows[0]
          .n as number;
      expect(await eventually(240_000, async () => (await open()) === 0)).toBe(true);
      const { rows } =
        await client.query(`SELECT m.no, (SELECT count(*) FROM postcard.event e WHERE e.message = m.no AND e.kind = 0
        AND e.status IN (4, 5, 9, 15, 29, 31))::integer AS finals FROM postcard.message m`);
      expect(rows.every((row: { finals: number }) => row.finals === 1)).toBe(true);
      await client.end();
      const known = await Promise.all(
        acknowledged.map(async ({ id }) => {
          const answer = await call((nodes[0] as Postcard).url, `/mms/2/messages/${id}`);
          await answer.arrayBuffer();
          return answer.status;
        }),
      );
      expect(known.filter((status) => status !== 200)).toEqual([]);
      console.log(
        `failover: ${acknowledged.length} acknowledged, back ${Math.round(backMs)} ms after the promotion, ${refused} refused`,
      );
    } finally {
      await Promise.all(nodes.map((node) => node.end('SIGKILL')));
      await mmsc.close();
      await receiver.close();
      await standby?.close();
      await primary.close();
      rmSync(dir, { recursive: true, force: true });
    }
  },
);
