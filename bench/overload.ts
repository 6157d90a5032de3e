/**
 * A server process under ten times what it can do: node bench/overload.ts [seconds a phase, default 5]. A closed loop finds its rate,
 * an open one asks at a quarter of that (calm), another at ten times that; all in one run, so that a shared machine slows all
 * three. Prints the p99 of those that were let in, calm and over, and their ratio (the aim: at most 3).
 *
 * Ends with code 1 when something is wrong: an answer that is neither 200 nor a refusal in its documented form (429 or 503 with
 * Retry-After and the five members), or a message that had its 200 and is not in the logs afterwards. Never because of a time.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePorts, KEY } from '../test/torture/server.ts';

/** What the source is told; a process of its own. */
interface Load {
  port: number;
  key: string;
  campaign: string;
  ms: number;
  /** Requests a second; 0 = a closed loop over `connections`. */
  rate: number;
  /** At most so many at a time. */
  connections: number;
}

interface LoadResult {
  ok: number;
  refused: number;
  /** What is wrong, the first of each kind. */
  wrong: string[];
  /** Requests a second that were really sent. */
  asked: number;
  /** Of those answered with 200, by the write; without the first tenth. */
  p50: number;
  p99: number;
}

const root = fileURLToPath(new URL('..', import.meta.url));
const PATIENCE_MS = 60_000;
const TICK_MS = 2;
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

// ---------------------------------------------------------------------------------------------------------------- source

/** Null = as documented. */
function wrongOf(status: number, head: string, body: string): string | null {
  if (status === 200) return body.includes('PENDING_ACCEPTED') ? null : `200 without an accepted message: ${body}`;
  if (status !== 429 && status !== 503) return `an answer ${status}`;
  if (!/^retry-after: [1-9]\d*\r?$/im.test(head)) return `${status} without Retry-After`;
  const members = Object.keys(JSON.parse(body) as object).join();
  return members === 'errorCode,description,action,violations,resources' ? null : `${status} with ${members}`;
}

async function source(load: Load): Promise<LoadResult> {
  const body = JSON.stringify({
    messages: [
      {
        sender: 'Shop',
        destinations: [{ to: '41790000001' }],
        content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        options: { campaignReferenceId: load.campaign },
      },
    ],
  });
  const request = `POST /mms/2/messages HTTP/1.1\r\nhost: x\r\nauthorization: App ${load.key}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
  const idle: Socket[] = [];
  const wrong = new Map<string, string>();
  const times: number[] = [];
  const begin = performance.now();
  let [open, under, sent, ok, refused] = [0, 0, 0, 0, 0];
  const running = (): boolean => performance.now() < begin + load.ms;

  function send(socket: Socket): void {
    under++;
    sent++;
    const wrote = performance.now();
    let pending = '';
    socket.write(request);
    socket.on('data', (chunk: Buffer) => {
      pending += chunk.toString('latin1');
      const split = pending.indexOf('\r\n\r\n');
      const length = Number(/content-length: (\d+)/i.exec(pending.slice(0, split))?.[1] ?? 0);
      if (split < 0 || pending.length < split + 4 + length) return;
      const status = Number(pending.slice(9, 12));
      const fault = wrongOf(status, pending.slice(0, split), pending.slice(split + 4));
      if (fault !== null) wrong.set(fault.slice(0, 40), fault.slice(0, 300));
      if (status === 200) {
        ok++;
        if (wrote > begin + load.ms / 10) times.push(performance.now() - wrote);
      } else refused++;
      under--;
      socket.removeAllListeners('data');
      if (load.rate === 0 && running()) send(socket);
      else idle.push(socket);
    });
  }
  function dial(): void {
    open++;
    const socket = connect(load.port, '127.0.0.1', () => send(socket));
    socket.setNoDelay(true);
    socket.on('error', (error) => void wrong.set('socket', `a connection: ${error.message}`));
  }
  if (load.rate === 0) {
    for (let n = 0; n < load.connections; n++) dial();
    await wait(load.ms);
  } else {
    while (running()) {
      // What is behind is sent at once, but no more than there are connections for.
      const due = Math.floor(((performance.now() - begin) / 1000) * load.rate);
      for (let n = sent; n < due; n++) {
        const socket = idle.pop();
        if (socket) send(socket);
        else if (open < load.connections) dial();
        else break;
      }
      await wait(TICK_MS);
    }
  }
  for (const end = performance.now() + PATIENCE_MS; under > 0 && performance.now() < end; ) await wait(10);
  if (under > 0) wrong.set('open', `${under} requests without an answer`);
  times.sort((a, b) => a - b);
  const at = (q: number): number => times[Math.min(times.length - 1, Math.floor(q * times.length))] ?? 0;
  return { ok, refused, wrong: [...wrong.values()], asked: sent / (load.ms / 1000), p50: at(0.5), p99: at(0.99) };
}

// ----------------------------------------------------------------------------------------------------------------- parent

const children: ChildProcess[] = [];

async function lineOf(script: string, ...args: string[]): Promise<string> {
  const child = spawn(process.execPath, [join(root, 'bench', script), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const [line] = (await Promise.race([once(lines, 'line'), once(child, 'exit')])) as [unknown];
  if (typeof line !== 'string') throw new Error(`${script} ended without a word`);
  return line;
}

const loaded = async (load: Load): Promise<LoadResult> =>
  JSON.parse(await lineOf('overload.ts', JSON.stringify(load))) as LoadResult;

async function startServer(dir: string, sinkPort: number, carrierPort: number, port: number): Promise<void> {
  const config = join(dir, 'server.yaml');
  writeFileSync(
    config,
    `carriers:\n  - name: bench\n    type: mm7\n    url: http://127.0.0.1:${sinkPort}/mm7\n    concurrency: 64\n    onUnknown: retry\n`,
  );
  mkdirSync(join(dir, 'data'));
  const child = spawn(process.execPath, [join(root, 'src/cli/postcard.ts'), 'serve'], {
    env: {
      PATH: process.env.PATH,
      POSTCARD_DATA_DIR: join(dir, 'data'),
      POSTCARD_CONFIG: config,
      POSTCARD_PORT: String(port),
      POSTCARD_CARRIER_PORT: String(carrierPort),
      POSTCARD_SANDBOX: 'false',
      POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  children.push(child);
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end && child.exitCode === null; ) {
    const answer = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => null);
    if (answer?.ok) return;
    await wait(50);
  }
  throw new Error('the server did not become ready');
}

/** Messages of a campaign that the store has. */
async function stored(port: number, campaign: string): Promise<number> {
  let [count, cursor] = [0, ''];
  do {
    const query = `campaignReferenceId=${campaign}&limit=1000&useCursor=true${cursor === '' ? '' : `&cursor=${cursor}`}`;
    const answer = await fetch(`http://127.0.0.1:${port}/mms/2/logs?${query}`, {
      headers: { authorization: `App ${KEY}` },
    });
    // 120 a minute: this asks more often than a customer may.
    if (answer.status === 429) {
      await answer.arrayBuffer();
      await wait(1000);
      continue;
    }
    const page = (await answer.json()) as { results: unknown[]; cursor?: { nextCursor?: string } };
    count += page.results.length;
    cursor = page.cursor?.nextCursor ?? '-';
  } while (cursor !== '-');
  return count;
}

async function main(ms: number): Promise<number> {
  const dir = mkdtempSync(join(root, 'data-bench-'));
  try {
    const { api: port, carrier: carrierPort } = await freePorts();
    const sinkPort = Number(await lineOf('sink.ts', String(carrierPort)));
    await startServer(dir, sinkPort, carrierPort, port);
    const load = { port, key: KEY, ms, connections: 64 };
    await loaded({ ...load, campaign: 'warm', rate: 0 });
    const most = await loaded({ ...load, campaign: 'most', rate: 0 });
    const rate = most.ok / (ms / 1000);
    const calm = await loaded({ ...load, campaign: 'calm', rate: Math.ceil(rate / 4), connections: 512 });
    const over = await loaded({ ...load, campaign: 'over', rate: Math.ceil(rate * 10), connections: 512 });
    const kept = await stored(port, 'over');
    const wrong = [most, calm, over].flatMap((one) => one.wrong);
    if (kept !== over.ok) wrong.push(`${over.ok} had their 200, ${kept} are in the logs`);
    const shown = (name: string, one: LoadResult): string =>
      `${name.padEnd(6)} asked ${one.asked.toFixed(0)}/s  let in ${one.ok}  refused ${one.refused}  p50 ${one.p50.toFixed(1)} ms  p99 ${one.p99.toFixed(1)} ms`;
    console.log([shown('most', most), shown('calm', calm), shown('over', over)].join('\n'));
    console.log(
      `asked ${(over.asked / rate).toFixed(1)} times its rate; p99 over/calm ${(over.p99 / calm.p99).toFixed(2)}; lost ${over.ok - kept}`,
    );
    for (const one of wrong) console.log(`wrong: ${one}`);
    return wrong.length === 0 ? 0 : 1;
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

const told = process.argv[2] ?? '';
if (told.startsWith('{')) {
  console.log(JSON.stringify(await source(JSON.parse(told) as Load)));
  process.exit(0);
}
process.exit(await main(Number(told || '5') * 1000));
