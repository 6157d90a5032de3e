/**
 * kill -9 at random moments under load. The process that dies carries everything: door, store, dispatch, webhooks and
 * the sandbox carrier; what must hold is only what was answered with 200 (G1), one final status (G4), no second copy at a
 * carrier that knows our transaction id (G6), work resuming by itself (G12), a report for each (G10).
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { startReceiver } from './peers.ts';
import { call, freePorts, type LogEntry, logsOf, type Postcard, startPostcard, wait } from './server.ts';

const CYCLES = Number(process.env.TORTURE_CYCLES ?? '10');
const SENDERS = 16;
const dir = mkdtempSync(join(tmpdir(), 'postcard-kill9-'));
let running: Postcard | null = null;

afterAll(async () => {
  await running?.end('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

describe('kill -9', () => {
  it(`loses no acknowledged message in ${CYCLES} kills under load, and ends each in one true final status`, async () => {
    const ports = await freePorts();
    const receiver = await startReceiver();
    const acknowledged = new Map<string, string>();
    let number = 0;

    for (let cycle = 0; cycle < CYCLES; cycle++) {
      running = await startPostcard(dir, ports);
      let on = true;
      const send = async (): Promise<void> => {
        while (on) {
          const to = String(491700000000 + number++);
          const body = JSON.stringify({
            messages: [
              {
                sender: 'Torture',
                destinations: [{ to }],
                content: { messageSegments: [{ type: 'TEXT', text: `message to ${to}` }] },
                webhooks: { delivery: { url: receiver.url } },
              },
            ],
          });
          try {
            const answer = await call(running?.url ?? '', '/mms/2/messages', { method: 'POST', body });
            if (answer.status !== 200) continue;
            const { messages } = (await answer.json()) as { messages: { messageId: string }[] };
            acknowledged.set(messages[0]?.messageId ?? '', to);
          } catch {
            await wait(5);
          }
        }
      };
      const senders = Array.from({ length: SENDERS }, send);
      await wait(300 + Math.random() * 1200);
      await running.end('SIGKILL');
      on = false;
      await Promise.all(senders);
    }

    running = await startPostcard(dir, ports);
    const ids = [...acknowledged.keys()];
    expect(ids.length).toBeGreaterThan(CYCLES * 10);
    const known = new Map<string, LogEntry>();
    for (let second = 0; second < 240; second++) {
      const open = ids.filter((id) => known.get(id)?.status.groupName !== 'DELIVERED');
      if (open.length === 0) break;
      for (const [id, log] of await logsOf(running.url, open)) known.set(id, log);
      await wait(1000);
    }
    // Whatever was final in between is final still.
    const logs = await logsOf(running.url, ids);
    expect(
      ids.filter((id) => !logs.has(id)),
      'every acknowledged message is in the store',
    ).toEqual([]);
    expect([...logs.values()].filter((log) => log.status.groupName !== 'DELIVERED')).toEqual([]);

    const copies = new Map<string, number>();
    for (const to of acknowledged.values()) {
      const answer = await fetch(`${running.sandboxUrl}/sandbox/handsets/${to}/messages`);
      copies.set(to, ((await answer.json()) as { messages: unknown[] }).messages.length);
    }
    expect(
      [...copies.values()].filter((count) => count !== 1),
      'one copy on each handset',
    ).toEqual([]);

    for (let second = 0; second < 120 && ids.some((id) => !receiver.reports.has(id)); second++) await wait(1000);
    expect(
      ids.filter((id) => !receiver.reports.has(id)),
      'each is reported',
    ).toEqual([]);
    for (const id of ids) expect(new Set(receiver.reports.get(id)), 'never two different finals').toEqual(new Set([5]));
    expect(await running.end('SIGTERM')).toBe(0);
    await receiver.close();
    console.log(`kill -9: ${CYCLES} cycles, ${ids.length} acknowledged, 0 lost`);
  });
});
