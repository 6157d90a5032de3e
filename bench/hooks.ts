/**
 * One receiver among 1 000 that hangs: how much later do the others get their reports? Everything is real: the embedded store
 * with its syncs, the outbox, sockets (each receiver is an address of its own on the loopback). A tenth of all reports go to the
 * one that hangs. Two installations run side by side, in one of them that receiver answers: what else the machine does meets
 * both, and what counts is the ratio. `node bench/hooks.ts [SECONDS [PER_SECOND [ROUNDS]]]`
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createIds } from '../src/domain/ids.ts';
import { createPartUrls } from '../src/domain/inbound.ts';
import { numberRequest, numbersNeeded } from '../src/domain/numbering.ts';
import { createRouting } from '../src/domain/routing.ts';
import { realEnv } from '../src/env.ts';
import { createOutbound } from '../src/net/outbound.ts';
import { connectSqlite, openSqlite } from '../src/store/sqlite/sqlite.ts';
import { createWebhooks } from '../src/webhooks/webhooks.ts';

const SECONDS = Number(process.argv[2] ?? 20);
const PER_SECOND = Number(process.argv[3] ?? 100);
const ROUNDS = Number(process.argv[4] ?? 3);
const RECEIVERS = 1_000;
/** Every so many reports go to the first receiver. */
const SHARE = 10;
const TICK_MS = 20;
const env = realEnv({ level: 'error' });

/** Ms from the settle that makes a report (its commit counts) to its last byte at a receiver other than the first, sorted. */
async function round(hangs: boolean): Promise<number[]> {
  const dir = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), 'postcard-hooks-'));
  const host = await openSqlite({
    dataDir: dir,
    retentionMs: 7 * 86_400_000,
    onCrash: (why) => {
      throw new Error(why);
    },
  });
  const store = connectSqlite(host.connect());
  const { idKey } = await store.identity();
  const ids = createIds(idKey);
  const settledAt = new Map<number, number>();
  const took: number[] = [];
  const held: ServerResponse[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      if (request.url === '/0' && hangs) {
        held.push(response);
        return;
      }
      const now = env.clock.monotonic();
      if (request.url !== '/0') {
        for (const { messageId } of (JSON.parse(body) as { results: { messageId: string }[] }).results) {
          took.push(now - (settledAt.get(ids.parse('message', messageId) as number) as number));
        }
      }
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
  const { port } = server.address() as AddressInfo;

  // All messages first, so that only the outbox works while it is measured.
  const lane = await store.lane('bench', { onUnknown: 'hold', reports: false });
  const routing = createRouting([[lane]]);
  const count = SECONDS * PER_SECOND;
  const urlOf = (n: number): string => {
    const receiver = n % SHARE === 0 ? 0 : 1 + (n % (RECEIVERS - 1));
    return `http://127.${1 + (receiver >> 8)}.${receiver & 255}.1:${port}/${receiver}`;
  };
  for (let done = 0; done < count; done += 500) {
    const messages = Array.from({ length: Math.min(500, count - done) }, (_, i) => ({
      sender: '441134960000',
      destinations: [{ to: String(491_710_000_000 + done + i) }],
      content: { messageSegments: [{ type: 'TEXT' as const, text: 'hello' }] },
      webhooks: { delivery: { url: urlOf(done + i) } },
    }));
    const first = await store.reserve(numbersNeeded({ messages }));
    const now = env.clock.now();
    await store.accept(numberRequest({ messages }, { account: 1, first, now, routing, idem: null }).accept);
  }
  const claimed: { token: number; leader: number }[] = [];
  while (claimed.length < count) {
    const { claims } = await store.claim(lane, 1_000, 600_000);
    if (claims.length === 0) throw new Error(`${claimed.length} of ${count} were handed out`);
    claimed.push(...claims);
  }

  const outbound = createOutbound({ allow: ['127.0.0.0/8'], env });
  const loop = createWebhooks({ store, outbound, env, ids, partUrls: createPartUrls('', idKey) });
  loop.start();
  const outcome = { kind: 'refused' as const, error: { id: 15009, words: '' } };
  const began = env.clock.monotonic();
  const all: Promise<unknown>[] = [];
  for (let next = 0; next < count; ) {
    const due = Math.min(count, Math.ceil(((env.clock.monotonic() - began) / 1000) * PER_SECOND));
    for (; next < due; next++) {
      const { token, leader } = claimed[next] as { token: number; leader: number };
      const settle = { lane, token, leader, outcome, startedAt: env.clock.now(), tookMs: 1 };
      settledAt.set(leader, env.clock.monotonic());
      all.push(store.settle(settle));
    }
    await env.clock.sleep(TICK_MS);
  }
  await Promise.all(all);
  const others = claimed.filter((_, n) => n % SHARE !== 0).length;
  const giveUp = env.clock.monotonic() + 60_000;
  while (took.length < others && env.clock.monotonic() < giveUp) await env.clock.sleep(50);
  if (took.length !== others) throw new Error(`${took.length} of ${others} reports came`);
  if (hangs && held.length === 0) throw new Error('nothing went to the one that hangs');
  // Before the loop: what hangs would hold its stop.
  server.closeAllConnections();
  await loop.stop();
  await outbound.close();
  await new Promise((resolve) => server.close(resolve));
  await store.close();
  await host.close();
  rmSync(dir, { recursive: true, force: true });
  return took.sort((a, b) => a - b);
}

const at = (sorted: number[], share: number): number => sorted[Math.floor(sorted.length * share)] as number;
const ratios: number[] = [];
for (let n = 1; n <= ROUNDS; n++) {
  const [without, beside] = await Promise.all([round(false), round(true)]);
  const ratio = at(beside, 0.99) / at(without, 0.99);
  ratios.push(ratio);
  const words = (sorted: number[]): string =>
    `p50 ${at(sorted, 0.5).toFixed(1)} ms, p99 ${at(sorted, 0.99).toFixed(1)} ms`;
  process.stdout.write(
    `round ${n}: without ${words(without)}; beside one that hangs ${words(beside)}; p99 x ${ratio.toFixed(2)}\n`,
  );
}
ratios.sort((a, b) => a - b);
const median = ratios[Math.floor(ratios.length / 2)] as number;
process.stdout.write(
  `${RECEIVERS} receivers, ${PER_SECOND} reports/s for ${SECONDS} s: p99 of the others x ${median.toFixed(2)} (median of ${ROUNDS}; promised: at most 2)\n`,
);
