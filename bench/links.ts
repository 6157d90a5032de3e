/**
 * How long a redirect takes: the customer's door with its real store (embedded, synchronous=FULL), clicks written behind the
 * answers, short links asked for at a steady rate over kept connections by a thread of its own.
 *
 *   node bench/links.ts [--specs 2000] [--each 50] [--rate 500] [--seconds 10] [--background]
 *
 * Prints p50, p99 and max in ms: first = links of specs that nobody has opened yet (each asks the store), known = others of the
 * same specs, control = /livez at the same rate. --background: accepts go on at the same time. Then how long the clicks took to be written.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createApi } from '../src/api/server.ts';
import { loadConfig } from '../src/config.ts';
import { createIds } from '../src/domain/ids.ts';
import { createLinkTokens } from '../src/domain/links.ts';
import { createRouting } from '../src/domain/routing.ts';
import { realEnv } from '../src/env.ts';
import { connectSqlite, openSqlite } from '../src/store/sqlite/sqlite.ts';

const AGENT =
  'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1';

interface Task {
  port: number;
  /** Asked for one after the other, from the first again at the end. */
  paths: string[];
  rate: number;
  ms: number;
}

interface Figures {
  count: number;
  statuses: Record<string, number>;
  p50: number;
  p99: number;
  max: number;
}

/** Open loop: a request leaves at its instant, whatever became of those before, and is timed from that instant. */
async function run({ port, paths, rate, ms }: Task): Promise<Figures> {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const times: number[] = [];
  const statuses: Record<string, number> = {};
  const open: Promise<void>[] = [];
  const begin = performance.now();
  const total = Math.floor((rate * ms) / 1000);
  for (let n = 0; n < total; n++) {
    const at = begin + (n * 1000) / rate;
    const wait = at - performance.now();
    if (wait > 0.5) await new Promise((resolve) => setTimeout(resolve, wait));
    const path = paths[n % paths.length] as string;
    open.push(
      new Promise((resolve, reject) => {
        const from = performance.now();
        get({ port, host: '127.0.0.1', path, agent, headers: { 'user-agent': AGENT } }, (answer) => {
          times.push(performance.now() - from);
          statuses[answer.statusCode ?? 0] = (statuses[answer.statusCode ?? 0] ?? 0) + 1;
          answer.resume();
          answer.on('end', resolve);
        }).on('error', reject);
      }),
    );
  }
  await Promise.all(open);
  agent.destroy();
  times.sort((a, b) => a - b);
  const quantile = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
  return { count: times.length, statuses, p50: quantile(0.5), p99: quantile(0.99), max: quantile(1) };
}

/** In a thread of its own, so that the source does not wait for the server. */
function apart(task: Task): Promise<Figures> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: task });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      specs: { type: 'string', default: '2000' },
      each: { type: 'string', default: '50' },
      rate: { type: 'string', default: '500' },
      seconds: { type: 'string', default: '10' },
      background: { type: 'boolean', default: false },
    },
  });
  const [specs, each, rate] = [Number(values.specs), Number(values.each), Number(values.rate)];
  const ms = Number(values.seconds) * 1000;
  const dataDir = mkdtempSync(join(tmpdir(), 'postcard-links-'));
  const loaded = loadConfig({
    env: { POSTCARD_DATA_DIR: dataDir },
    cwd: dataDir,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  const onCrash = (message: string): never => {
    throw new Error(message);
  };
  const host = await openSqlite({ dataDir, retentionMs: 7 * 86_400_000, onCrash });
  const store = connectSqlite(host.connect());
  const { idKey } = await store.identity();
  const lane = await store.lane('bench', { onUnknown: 'hold', reports: true });
  const api = await createApi({
    store,
    env: realEnv({ level: 'silent' }),
    config: loaded.config,
    ids: createIds(idKey),
    routing: createRouting([[lane]]),
    carrierCounters: async () => ({}),
    checkCallout: () => null,
  });
  const url = await api.listen({ host: '127.0.0.1', port: 0 });
  const port = Number(new URL(url).port);

  const accept = async (): Promise<number> => {
    const first = await store.reserve(each + 2);
    const tracked = {
      urls: ['https://shop.example/sale'],
      clicks: true,
      url: null,
      callbackData: null,
      keepMs: 90 * 86_400_000,
    };
    const spec = {
      first: first + 2,
      end: first + 2 + each,
      sender: 'Shop',
      campaign: 'c',
      entity: null,
      application: null,
    };
    const more = { endpoint: null, intermediate: false, notify: true, uploads: [], links: [], tracked };
    await store.accept({
      account: 1,
      first,
      bulkId: null,
      sendAt: null,
      intervalUs: null,
      specs: [{ ...spec, ...more, body: '{"sender":"Shop","content":{"messageSegments":[]}}' }],
      runs: [
        { first: spec.first, end: spec.end, spec: first + 1, lane, group: false, window: null, validityMs: 86_400_000 },
      ],
      to: Array.from({ length: each }, (_, n) => String(441_134_960_000 + n)),
      refused: [],
      keys: [],
      idem: null,
    });
    return spec.first;
  };
  const firsts: number[] = [];
  while (firsts.length < specs) firsts.push(...(await Promise.all(Array.from({ length: 100 }, accept))));
  const tokens = createLinkTokens(idKey);

  let going = values.background;
  const background = (async () => {
    while (going) await Promise.all(Array.from({ length: 4 }, accept));
  })();
  const show = (name: string, { count, statuses, p50, p99, max }: Figures): void =>
    console.log(
      `${name.padEnd(8)} ${String(count).padStart(6)} ${JSON.stringify(statuses).padEnd(24)} p50 ${p50.toFixed(2)}  p99 ${p99.toFixed(2)}  max ${max.toFixed(1)} ms`,
    );
  const one = (at: number) => firsts.map((first) => `/l/${tokens.print(first + at, 0)}`);
  // Warms the process up on specs of its own.
  await apart({ port, paths: one(each - 1).slice(0, 100), rate: 200, ms: 1000 });
  // What this machine, its sockets and the load on it cost without a link.
  show('control', await apart({ port, paths: ['/livez'], rate, ms: 3000 }));
  show('first', await apart({ port, paths: one(0).slice(100), rate, ms: Math.min(ms, ((specs - 100) / rate) * 1000) }));
  show('known', await apart({ port, paths: [1, 2, 3].flatMap(one), rate, ms }));
  const from = performance.now();
  await api.close();
  const written = performance.now() - from;
  going = false;
  await background;
  const figures = await store.clicks(1, { campaign: 'c' });
  console.log(`clicks written: ${figures?.total}; the last ones ${written.toFixed(0)} ms after the last redirect`);
  await store.close();
  await host.close();
  rmSync(dataDir, { recursive: true });
}

if (isMainThread) await main();
else parentPort?.postMessage(await run(workerData as Task));
