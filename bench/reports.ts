/**
 * A storm of delivery reports: does the server take them all, does the customers' door stay what it was, and how many can it take?
 * Everything is real: a server of its own, MM7 over HTTP on 64 kept connections, the store with its syncs.
 * `node bench/reports.ts [REPORTS, default 100 000] [--postgres URL]`.
 *
 * The carrier (this process) takes all messages first, the last ones without an answer. Then, in turn: accepts at a steady rate
 * alone; the same beside REPORTS in a minute; alone again; and what is left of the reports as fast as they are answered. Among ten
 * messages two are reported twice, one is reported rejected after it was retrieved, one deferred before; those without an answer are
 * reported first and answered later. A 503 is repeated, as a carrier does.
 *
 * Ends with code 1 when a report was lost or a status is another than its first final report said, never for a slow machine.
 */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Agent, createServer, request as httpRequest, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { freePorts, KEY } from '../test/torture/server.ts';
import { bench, ownDirectory, PATIENCE_MS, startPostcard, wait } from './stand.ts';

const args = process.argv.slice(2);
const at = args.indexOf('--postgres');
const POSTGRES = at < 0 ? null : (args.splice(at, 2)[1] ?? null);
const REPORTS = Number(args[0] ?? 100_000);
/** Of ten messages come fourteen reports. */
const MESSAGES = Math.ceil((REPORTS * 10) / 14);
/** Of them as fast as it goes, after the storm. */
const FLOOD = Math.floor(MESSAGES / 4);
const CONNECTIONS = 64;
const SLOTS = 64;
const CHUNK = 1_000;
const ACCEPTS_PER_SECOND = 50;
const QUIET_MS = 15_000;
const STORM_MS = 60_000;
const dir = ownDirectory('reports');
const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
const soap = (id: string, body: string): string =>
  `<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Header><TransactionID xmlns="${NS}">${id}</TransactionID></E:Header><E:Body>${body}</E:Body></E:Envelope>`;
const p = (times: number[], share: number): number =>
  [...times].sort((a, b) => a - b)[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;

// ------------------------------------------------------------------------------------------------------------ the carrier

const taken: string[] = [];
const held: (() => void)[] = [];
const carrier = createServer((request, response: ServerResponse) => {
  const chunks: Buffer[] = [];
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const transaction = /TransactionID[^>]*>([^<]*)</.exec(Buffer.concat(chunks).toString('latin1'))?.[1] ?? '';
    const id = `m${taken.push(transaction)}`;
    const answer = (): void => {
      response.setHeader('content-type', 'text/xml');
      response.end(
        soap(
          transaction,
          `<SubmitRsp xmlns="${NS}"><MM7Version>6.8.0</MM7Version><Status><StatusCode>1000</StatusCode></Status><MessageID>${id}</MessageID></SubmitRsp>`,
        ),
      );
    };
    if (taken.length > MESSAGES - SLOTS) held.push(answer);
    else answer();
  });
});

const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
const answers = new Map<number, number>();
const took: number[] = [];

async function tell(port: number, id: string, status: string): Promise<void> {
  const bytes = soap(
    `r-${id}`,
    `<DeliveryReportReq xmlns="${NS}"><MM7Version>6.8.0</MM7Version><MessageID>${id}</MessageID><Recipient><Number>+491710000000</Number></Recipient><Sender><Number>+441134960000</Number></Sender><Date>2026-01-01T00:00:00Z</Date><MMStatus>${status}</MMStatus></DeliveryReportReq>`,
  );
  for (;;) {
    const began = performance.now();
    const code = await new Promise<number>((resolve, reject) => {
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
    took.push(performance.now() - began);
    answers.set(code, (answers.get(code) ?? 0) + 1);
    if (code === 200) return;
    if (code !== 503) throw new Error(`wrong: a report was answered ${code}`);
    await wait(500);
  }
}

/** All reports of the message `n` (1 = the first), in their order. */
function reportsOf(n: number): string[] {
  if (n % 10 < 2) return ['Retrieved', 'Retrieved'];
  if (n % 10 === 2) return ['Retrieved', 'Rejected'];
  return n % 10 === 3 ? ['Deferred', 'Retrieved'] : ['Retrieved'];
}

/** Reports of the messages [from, to), spread over `ms`; 0 = as fast as they are answered. Resolves with reports a second. */
async function storm(port: number, from: number, to: number, ms: number): Promise<number> {
  const began = performance.now();
  let next = from;
  let count = 0;
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      for (let n = next++; n < to; n = next++) {
        const due = began + (ms * (n - from)) / (to - from);
        if (ms > 0 && due > performance.now()) await wait(due - performance.now());
        for (const status of reportsOf(n)) {
          await tell(port, `m${n}`, status);
          count++;
        }
      }
    }),
  );
  return count / ((performance.now() - began) / 1000);
}

// ------------------------------------------------------------------------------------------------------------- the server

const headers = { authorization: `App ${KEY}`, 'content-type': 'application/json' };

async function start(carrierPort: number): Promise<{ child: ChildProcess; url: string; reportPort: number }> {
  const ports = await freePorts();
  const server = await startPostcard(
    dir,
    ports,
    `carriers:\n  - { name: bench, type: mm7, url: "http://127.0.0.1:${carrierPort}/mm7", concurrency: ${SLOTS}, timeoutMs: 60000 }\n`,
    { POSTCARD_LOG_LEVEL: 'error', ...(POSTGRES === null ? {} : { POSTCARD_STORE: POSTGRES }) },
  );
  return { ...server, reportPort: ports.carrier };
}

async function send(url: string, from: number, count: number, schedule: object): Promise<void> {
  const answer = await fetch(`${url}/mms/2/messages`, {
    method: 'POST',
    headers,
    body: JSON.stringify({
      messages: [
        {
          sender: '441134960000',
          destinations: Array.from({ length: count }, (_, i) => ({ to: String(491_710_000_000 + from + i) })),
          content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        },
      ],
      options: { schedule },
    }),
  });
  if (!answer.ok) throw new Error(`wrong: an accept was answered ${answer.status}`);
  await answer.arrayBuffer();
}

/** Latencies of accepts at a steady rate until `until` resolves. */
async function accepts(url: string, until: Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  const open = new Set<Promise<void>>();
  let done = false;
  void until.finally(() => {
    done = true;
  });
  const later = { bulkId: 'later', sendAt: new Date(Date.now() + 30 * 86_400_000).toISOString() };
  const began = performance.now();
  for (let n = 0; !done; n++) {
    await wait(Math.max(0, began + (n * 1000) / ACCEPTS_PER_SECOND - performance.now()));
    const start = performance.now();
    const one: Promise<void> = send(url, n, 1, later).then(() => {
      times.push(performance.now() - start);
      open.delete(one);
    });
    open.add(one);
  }
  await Promise.all(open);
  await until;
  return times;
}

interface Bulk {
  progress: { accepted: number; waiting: number; sent: number; delivered: number; failed: number };
}
const progress = async (url: string): Promise<Bulk['progress']> =>
  ((await (await fetch(`${url}/mms/2/bulks?bulkId=storm`, { headers })).json()) as Bulk).progress;

const memory = (pid: number): number =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;

await bench(dir, async () => {
  await new Promise<void>((resolve) => carrier.listen(0, '127.0.0.1', resolve));
  const { child, url, reportPort } = await start((carrier.address() as AddressInfo).port);
  for (let from = 0; from < MESSAGES; from += CHUNK) {
    await send(url, from, Math.min(CHUNK, MESSAGES - from), { bulkId: 'storm' });
  }
  for (let seen = -1, since = performance.now(); taken.length < MESSAGES; await wait(100)) {
    if (taken.length > seen) [seen, since] = [taken.length, performance.now()];
    if (performance.now() - since > PATIENCE_MS)
      throw new Error(`wrong: ${taken.length} of ${MESSAGES} were handed over`);
  }
  // Before their answers.
  await storm(reportPort, MESSAGES - SLOTS + 1, MESSAGES + 1, 0);
  for (const answer of held) answer();

  const before = await accepts(url, wait(QUIET_MS));
  took.length = 0;
  const [flood, last] = [MESSAGES - SLOTS + 1 - FLOOD, MESSAGES - SLOTS + 1];
  const storming = storm(reportPort, 1, flood, (STORM_MS * (MESSAGES - FLOOD)) / MESSAGES);
  const beside = await accepts(url, storming);
  const pace = await storming;
  const inStorm = took.splice(0);
  const after = await accepts(url, wait(QUIET_MS));
  const fastest = await storm(reportPort, flood, last, 0);
  const inFlood = took.splice(0);

  let seen = await progress(url);
  for (const end = performance.now() + PATIENCE_MS; seen.delivered < MESSAGES && performance.now() < end; ) {
    await wait(200);
    seen = await progress(url);
  }
  const alone = [...before, ...after];
  const ms = (times: number[]): string =>
    `p50 ${p(times, 0.5).toFixed(1)}, p99 ${p(times, 0.99).toFixed(1)}, worst ${p(times, 1).toFixed(1)} ms`;
  const total = [...answers.values()].reduce((sum, count) => sum + count, 0);
  console.log(
    [
      `${MESSAGES} messages, ${total} reports told; answers: ${[...answers].map(([code, count]) => `${code} x ${count}`).join(', ')}`,
      `storm: ${Math.round(pace)} reports/s asked for and taken; an answer ${ms(inStorm)}`,
      `as fast as they are answered: ${Math.round(fastest)} reports/s; an answer ${ms(inFlood)}`,
      `accepts alone: ${ms(alone)}`,
      `accepts in the storm: ${ms(beside)}`,
      `RATIO accept p99 in the storm / alone (aim <= 2): ${(p(beside, 0.99) / p(alone, 0.99)).toFixed(2)}`,
      `memory of the server at most: ${Math.round(memory(child.pid as number))} MiB`,
      `delivered ${seen.delivered}, failed ${seen.failed}, sent ${seen.sent}`,
    ].join('\n'),
  );
  if (seen.delivered !== MESSAGES || seen.failed > 0) throw new Error('wrong: a report was lost, or a later one won');
});
agent.destroy();
carrier.closeAllConnections();
carrier.close();
