/**
 * A burst of delivery reports: how many a second the listener takes to disk, and how much memory that needs. Everything is real:
 * MM7 over HTTP on 64 kept connections, the listener, the embedded store with its syncs. `node bench/reports.ts [COUNT]`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createMm7Listener } from '../src/carriers/mm7/listener.ts';
import { numberRequest, numbersNeeded } from '../src/domain/numbering.ts';
import { createRouting } from '../src/domain/routing.ts';
import { realEnv } from '../src/env.ts';
import { connectSqlite, openSqlite } from '../src/store/sqlite/sqlite.ts';

const COUNT = Number(process.argv[2] ?? 100_000);
const CONNECTIONS = 64;
const dir = mkdtempSync(join(process.env.BENCH_DIR ?? tmpdir(), 'postcard-reports-'));
const env = realEnv({ level: 'error' });
const host = await openSqlite({
  dataDir: dir,
  retentionMs: 7 * 86_400_000,
  onCrash: (why) => {
    throw new Error(why);
  },
});
const store = connectSqlite(host.connect());

// Messages that a carrier has taken.
const lane = await store.lane('bench', { onUnknown: 'hold', reports: true });
const routing = createRouting([[lane]]);
const ids: string[] = [];
for (let done = 0; done < COUNT; done += 10_000) {
  const destinations = Array.from({ length: Math.min(10_000, COUNT - done) }, (_, i) => ({
    to: String(491_710_000_000 + done + i),
  }));
  const content = { messageSegments: [{ type: 'TEXT' as const, text: 'hello' }] };
  const request = { messages: [{ sender: '441134960000', destinations, content }] };
  const first = await store.reserve(numbersNeeded(request));
  await store.accept(numberRequest(request, { account: 1, first, now: env.clock.now(), routing, idem: null }).accept);
}
while (ids.length < COUNT) {
  const { claims } = await store.claim(lane, 1_000, 60_000);
  if (claims.length === 0) throw new Error(`${ids.length} of ${COUNT} were handed out`);
  await Promise.all(
    claims.map(({ token, leader }) => {
      const carrierMessageId = `m-${leader}`;
      ids.push(carrierMessageId);
      const outcome = { kind: 'accepted' as const, carrierMessageId };
      return store.settle({ lane, token, leader, outcome, startedAt: env.clock.now(), tookMs: 1 });
    }),
  );
}
env.log.info({}, 'ready');

const listener = await createMm7Listener({
  host: '127.0.0.1',
  port: 0,
  carriers: [{ name: 'bench' }],
  onReport: async (report) => void (await store.report(report)),
  onInbound: async () => ({ id: '' }),
  env,
});
const { port } = new URL(listener.url);
const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
const body = (id: string): string =>
  `<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Header><TransactionID>${id}</TransactionID></E:Header><E:Body><DeliveryReportReq><MM7Version>6.8.0</MM7Version><MessageID>${id}</MessageID><Recipient><Number>+491710000000</Number></Recipient><Sender><Number>+441134960000</Number></Sender><Date>2026-01-01T00:00:00Z</Date><MMStatus>Retrieved</MMStatus></DeliveryReportReq></E:Body></E:Envelope>`;

function tell(id: string): Promise<number> {
  const bytes = body(id);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        port,
        host: '127.0.0.1',
        path: '/mm7/bench',
        method: 'POST',
        agent,
        headers: { 'content-type': 'text/xml', 'content-length': Buffer.byteLength(bytes) },
      },
      (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode ?? 0));
      },
    );
    request.on('error', reject);
    request.end(bytes);
  });
}

const before = process.memoryUsage().rss;
let most = before;
const took: number[] = [];
const statuses = new Map<number, number>();
const began = env.clock.monotonic();
let next = 0;
await Promise.all(
  Array.from({ length: CONNECTIONS }, async () => {
    for (let n = next++; n < ids.length; n = next++) {
      const start = env.clock.monotonic();
      const status = await tell(ids[n] as string);
      took.push(env.clock.monotonic() - start);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      if (n % 1_000 === 0) most = Math.max(most, process.memoryUsage().rss);
    }
  }),
);
const seconds = (env.clock.monotonic() - began) / 1000;
took.sort((a, b) => a - b);
const at = (share: number): string => `${(took[Math.floor(took.length * share)] as number).toFixed(1)} ms`;
process.stdout.write(
  [
    `${ids.length} reports over ${CONNECTIONS} connections in ${seconds.toFixed(1)} s: ${Math.round(ids.length / seconds)}/s`,
    `answers: ${[...statuses].map(([status, count]) => `${status} x ${count}`).join(', ')}`,
    `latency p50 ${at(0.5)}, p99 ${at(0.99)}, worst ${at(0.99999)}`,
    `memory ${Math.round(before / 1e6)} MB before, ${Math.round(most / 1e6)} MB at most (this process: sender, listener and store)`,
    '',
  ].join('\n'),
);
agent.destroy();
await listener.close();
await store.close();
await host.close();
rmSync(dir, { recursive: true, force: true });
