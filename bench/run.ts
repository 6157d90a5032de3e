/**
 * npm run bench: ratios and CPU microseconds a message from one interleaved run, against references measured in the same
 * rounds: rates on shared machines mean nothing by themselves. Ends with code 1 when something is wrong (an answer that is
 * not 200, an accepted message that was not reported delivered), never because the machine is slow.
 *
 *   node bench/run.ts [rounds, default 5] [seconds a burst, default 2]
 *
 * CPU is what the kernel booked for all threads of the process (Linux only: /proc). The first round is preceded by one of the
 * same kind that is not counted: compilers have done most of their work by then, but not all of it.
 */
import type { ChildProcess } from 'node:child_process';
import { closeSync, fdatasyncSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Store } from '../src/store/contract.ts';
import { connectSqlite, openSqlite } from '../src/store/sqlite/sqlite.ts';
import { freePorts, KEY } from '../test/torture/server.ts';
import type { Load, LoadResult } from './load.ts';
import { bodyOf, rowsOf } from './rows.ts';
import { bench, median, ownDirectory, PATIENCE_MS, startPostcard, startScript, wait } from './stand.ts';

const ROUNDS = Number(process.argv[2] ?? '5');
const MS = Number(process.argv[3] ?? '2') * 1000;
const CONNECTIONS = 64;
/** Bursts that the way from end to end is run for before it counts. */
const WARM = 5;
const dir = ownDirectory('run');

// ------------------------------------------------------------------------------------------------------------- processes

async function burst(load: Load): Promise<LoadResult> {
  const { line } = await startScript('load.ts', JSON.stringify(load));
  const result = JSON.parse(line) as LoadResult;
  if (result.bad > 0 || result.ok === 0) throw new Error(`wrong: ${result.ok} good and ${result.bad} bad answers`);
  return result;
}

/** CPU microseconds that a process (all its threads) has used so far. */
function cpu(child: ChildProcess): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

async function counts(port: number): Promise<{ submits: number; delivered: number; repeated: number }> {
  return (await (await fetch(`http://127.0.0.1:${port}/count`)).json()) as never;
}

// ----------------------------------------------------------------------------------------------------------- references

/** One fdatasync of a small append after another: the disk's own pace. */
function fdatasync(ms: number): { perSecond: number; p50: number } {
  const fd = openSync(join(dir, 'fdatasync.log'), 'a');
  const block = Buffer.alloc(1024, 0x61);
  const times: number[] = [];
  const end = performance.now() + ms;
  while (performance.now() < end) {
    const begin = performance.now();
    writeSync(fd, block);
    fdatasyncSync(fd);
    times.push(performance.now() - begin);
  }
  closeSync(fd);
  times.sort((a, b) => a - b);
  return { perSecond: times.length / (ms / 1000), p50: times[Math.floor(times.length / 2)] ?? 0 };
}

/** 64 closed-loop writers over one append log, natural group commit: what the store is compared with. */
async function appendLog(ms: number): Promise<number> {
  const { line } = await startScript('append.ts', join(dir, 'append.log'), String(ms));
  return Number(line);
}

interface Bare {
  store: Store;
  lane: number;
  next: number;
  close(): Promise<void>;
}

async function openBare(): Promise<Bare> {
  const dataDir = join(dir, 'store');
  mkdirSync(dataDir);
  const host = await openSqlite({ dataDir, retentionMs: 1e12, onCrash: (message) => console.error(message) });
  const store = connectSqlite(host.connect());
  const lane = await store.lane('bench', { onUnknown: 'hold', reports: true });
  const next = await store.reserve(1e12);
  const close = async (): Promise<void> => {
    await store.close();
    await host.close();
  };
  return { store, lane, next, close };
}

/** Accepts a second by as many closed-loop writers, through the store's threads, without HTTP. */
async function storeAlone(bare: Bare, ms: number): Promise<number> {
  let done = 0;
  const end = performance.now() + ms;
  const writer = async (): Promise<void> => {
    while (performance.now() < end) {
      const first = bare.next;
      bare.next += 3;
      const answer = await bare.store.accept(rowsOf({ first, count: 1, lane: bare.lane }, { spec: STORED }));
      if (answer.kind !== 'accepted') throw new Error(`wrong: the store answered ${answer.kind}`);
      done++;
    }
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, writer));
  return done / (ms / 1000);
}

const STORED = { body: bodyOf('x'.repeat(700)) };

// --------------------------------------------------------------------------------------------------------------- bodies

function body(destinations: number, options: object | null, hook: string | null): string {
  return JSON.stringify({
    messages: [
      {
        sender: '441134960000',
        destinations: Array.from({ length: destinations }, (_, i) => ({ to: String(441134960001 + i) })),
        content: {
          title: 'Some title',
          messageSegments: [
            { type: 'TEXT', text: 'Some text, long enough to look like a real alert of a real customer.' },
          ],
        },
        options: { campaignReferenceId: 'bench' },
        webhooks: { ...(hook ? { delivery: { url: hook } } : {}), callbackData: 'order 4711' },
      },
    ],
    ...(options ? { options } : {}),
  });
}

const show = (values: number[], digits = 2): string =>
  `${median(values).toFixed(digits)} [${Math.min(...values).toFixed(digits)}..${Math.max(...values).toFixed(digits)}]`;

// ------------------------------------------------------------------------------------------------------------------ run

async function main(): Promise<void> {
  const ports = await freePorts();
  const echo = await startScript('echo.ts');
  const echoPort = Number(echo.line);
  const sink = await startScript('sink.ts', String(ports.carrier));
  const sinkPort = Number(sink.line);
  const { child: server } = await startPostcard(
    dir,
    ports,
    `carriers:\n  - name: bench\n    type: mm7\n    url: http://127.0.0.1:${sinkPort}/mm7\n    concurrency: 64\n    onUnknown: retry\n`,
    { POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8' },
  );
  const bare = await openBare();
  const headers = { authorization: `App ${KEY}` };
  const later = { schedule: { bulkId: 'later', sendAt: new Date(Date.now() + 30 * 86_400_000).toISOString() } };
  const hook = `http://127.0.0.1:${sinkPort}/hook`;
  const base = { path: '/mms/2/messages', headers, connections: CONNECTIONS, ms: MS };

  /** `endMs`: how long messages are accepted for the last part, the way from end to end. */
  async function round(endMs: number, put: (name: string, value: number) => void): Promise<string> {
    const sync = fdatasync(500);
    put('fdatasync p50, ms', sync.p50);

    let before = cpu(echo.child);
    const reference = await burst({ ...base, port: echoPort, body: body(1, null, hook) });
    const echoCpu = (cpu(echo.child) - before) / reference.ok;
    put('echo: requests/s', reference.perSecond);
    put('echo: CPU us a request', echoCpu);

    before = cpu(server);
    const accept = await burst({ ...base, port: ports.api, body: body(1, later, null) });
    const acceptCpu = (cpu(server) - before) / accept.ok;
    put('durable accept: requests/s', accept.perSecond);
    put('durable accept: CPU us a request', acceptCpu);
    put('durable accept: p99, ms', accept.p99);
    put('RATIO durable accept / echo, requests/s (aim >= 0.45)', accept.perSecond / reference.perSecond);
    put('RATIO durable accept / echo, CPU (aim <= 2.8)', acceptCpu / echoCpu);

    before = cpu(server);
    const bulk = await burst({ ...base, port: ports.api, body: body(100, later, null) });
    const bulkCpu = (cpu(server) - before) / (bulk.ok * 100);
    put('100 destinations: messages/s', bulk.perSecond * 100);
    put('100 destinations: CPU us a message', bulkCpu);
    put('RATIO 100 destinations / single, CPU a message (aim <= 0.5)', bulkCpu / acceptCpu);

    const log = await appendLog(MS);
    const alone = await storeAlone(bare, MS);
    put('append + fdatasync, 64 writers: /s', log);
    put('store alone, 64 writers: /s', alone);
    put('RATIO store alone / append + fdatasync (aim >= 0.70)', alone / log);

    const start = await counts(sinkPort);
    before = cpu(server);
    const begin = performance.now();
    const full = await burst({ ...base, port: ports.api, body: body(1, null, hook), ms: endMs });
    let end = await counts(sinkPort);
    let progress = performance.now();
    while (end.delivered - start.delivered < full.ok) {
      await wait(50);
      const now = await counts(sinkPort);
      if (now.delivered > end.delivered) progress = performance.now();
      end = now;
      if (performance.now() - progress > PATIENCE_MS) break;
    }
    const seconds = (performance.now() - begin) / 1000;
    const done = end.delivered - start.delivered;
    if (done !== full.ok) throw new Error(`wrong: ${full.ok} accepted, ${done} reported delivered`);
    const endCpu = (cpu(server) - before) / done;
    put('end to end: messages/s', done / seconds);
    put('end to end: CPU us a message', endCpu);
    put('end to end: accept p99 under full dispatch, ms', full.p99);
    put('RATIO end to end / echo, CPU (aim <= 8)', endCpu / echoCpu);
    put('RATIO accept p99 under dispatch / fdatasync p50 (aim <= 25)', full.p99 / sync.p50);
    const load = loadavg()[0]?.toFixed(1);
    return `${full.ok} accepted, all reported; ${end.repeated - start.repeated} told twice; load ${load}`;
  }

  const figures = new Map<string, number[]>();
  console.error(`warm-up: ${await round(MS * WARM, () => {})}`);
  for (let n = 1; n <= ROUNDS; n++) {
    const words = await round(MS * 2, (name, value) => figures.set(name, [...(figures.get(name) ?? []), value]));
    console.error(`round ${n}/${ROUNDS}: ${words}`);
  }
  await bare.close();

  const model = cpus()[0]?.model ?? 'unknown processor';
  console.log(
    `${ROUNDS} interleaved rounds after one of warm-up, bursts of ${MS / 1000} s, ${CONNECTIONS} connections, log level warn; median [min..max]\n` +
      `node ${process.version}, ${cpus().length} x ${model}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${release()}; load source, sink and server share the processors\n`,
  );
  for (const [name, values] of figures) console.log(`${name.padEnd(66)} ${show(values)}`);
}

await bench(dir, main);
// The store's threads, where a failure left them open.
process.exit();
