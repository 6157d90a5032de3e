/**
 * A server process under ten times what it can do: node bench/overload.ts [seconds a phase, default 5] [connections, default 2048].
 * A closed loop over 64 connections finds its rate; then, three times in turn so that a shared machine slows both, an open loop asks
 * at a quarter of that (calm) and another at ten times that (over), the same number of connections standing open in both. An open
 * loop asks when it is due, and no more than once at a time on a connection: where refusals are told at a pace, all connections soon
 * wait for one, and what is asked a second is what the server lets itself be asked. Both are printed.
 * A second account sends 20 a second all the while.
 *
 * Prints the p99 of those that were let in, calm and over, their ratio (the aim: at most 3), and how the quiet account fared.
 * Ends with code 1 when something is wrong: an answer that is neither 200 nor a refusal in its documented form (429 or 503 with
 * Retry-After and the five members), or a message that had its 200 and is not in the logs afterwards. Never because of a time.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts, KEY } from '../test/torture/server.ts';
import { startScript } from './stand.ts';

/** What the source is told; a process of its own. */
interface Load {
  port: number;
  key: string;
  campaign: string;
  ms: number;
  /** Requests a second; 0 = a closed loop over `connections`. */
  rate: number;
  /** So many are open, and as many requests under way at most. */
  connections: number;
}

interface LoadResult {
  ok: number;
  refused: number;
  /** What is wrong, the first of each kind. */
  wrong: string[];
  /** Requests a second that were really sent. */
  asked: number;
  /** Ms from the write to the answer of those let in and of those refused; without the first tenth. */
  times: number[];
  waits: number[];
}

const root = fileURLToPath(new URL('..', import.meta.url));
const PATIENCE_MS = 60_000;
const TICK_MS = 2;
const ROUNDS = 3;
/** Connections that are opened at a time. */
const DIALS = 20;
const QUIET_RATE = 20;
const ADMIN_KEY = 'overload-admin-key-0123456789abcdef';
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

/**
 * As cheap as node allows, since it takes its time from the server's own two processors: the request is one constant buffer, all
 * sockets read into one, and an answer that is byte for byte the last refusal needs no second look.
 */
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
  const request = Buffer.from(
    `POST /mms/2/messages HTTP/1.1\r\nhost: x\r\nauthorization: App ${load.key}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
  /** One connection, one request at a time. */
  interface Line {
    socket: Socket;
    wrote: number;
    part: Buffer | null;
  }
  const shared = Buffer.allocUnsafe(64 * 1024);
  const idle: Line[] = [];
  const wrong = new Map<string, string>();
  const times: number[] = [];
  const waits: number[] = [];
  let begin = 0;
  let known = Buffer.alloc(0);
  let [under, sent, ok, refused] = [0, 0, 0, 0];
  const running = (): boolean => performance.now() < begin + load.ms;

  function send(line: Line): void {
    under++;
    sent++;
    line.wrote = performance.now();
    line.socket.write(request);
  }
  function took(line: Line, status: number): void {
    const ms = performance.now() - line.wrote;
    if (status === 200) ok++;
    else refused++;
    if (line.wrote > begin + load.ms / 10) (status === 200 ? times : waits).push(ms);
    under--;
    if (load.rate === 0 && running()) send(line);
    else idle.push(line);
  }
  function read(line: Line, chunk: Buffer): void {
    if (line.part === null && chunk.equals(known)) {
      took(line, 429);
      return;
    }
    const whole = line.part === null ? chunk : Buffer.concat([line.part, chunk]);
    const split = whole.indexOf('\r\n\r\n');
    const head = split < 0 ? '' : whole.toString('latin1', 0, split);
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    if (split < 0 || whole.length < split + 4 + length) {
      line.part = Buffer.from(whole);
      return;
    }
    line.part = null;
    const status = Number(head.slice(9, 12));
    const fault = wrongOf(status, head, whole.toString('utf8', split + 4));
    if (fault !== null) wrong.set(fault.slice(0, 40), fault.slice(0, 300));
    else if (status === 429) known = Buffer.from(whole);
    took(line, status);
  }
  async function dial(): Promise<void> {
    const onread = {
      buffer: shared,
      callback(bytes: number) {
        read(line, shared.subarray(0, bytes));
        return true;
      },
    };
    const socket = connect({ port: load.port, host: '127.0.0.1', noDelay: true, onread });
    const line: Line = { socket, wrote: 0, part: null };
    socket.on('error', (error) => void wrong.set('socket', `a connection: ${error.message}`));
    await once(socket, 'connect');
    idle.push(line);
  }
  for (let n = 0; n < load.connections; n += DIALS) {
    await Promise.all(Array.from({ length: Math.min(DIALS, load.connections - n) }, dial));
  }
  begin = performance.now();
  if (load.rate === 0) {
    for (const line of idle.splice(0)) send(line);
    await wait(load.ms);
  } else {
    let given = 0;
    while (running()) {
      // What is behind is sent at once, but no more than there are connections for; the rest is not made up for.
      const due = Math.floor(((performance.now() - begin) / 1000) * load.rate);
      for (; given < due; given++) {
        const line = idle.pop();
        if (!line) break;
        send(line);
      }
      given = due;
      await wait(TICK_MS);
    }
  }
  for (const end = performance.now() + PATIENCE_MS; under > 0 && performance.now() < end; ) await wait(10);
  if (under > 0) wrong.set('open', `${under} requests without an answer`);
  const asked = sent / (load.ms / 1000);
  return { ok, refused, wrong: [...wrong.values()], asked, times, waits };
}

// ----------------------------------------------------------------------------------------------------------------- parent

const children: ChildProcess[] = [];

async function lineOf(script: string, ...args: string[]): Promise<string> {
  const { child, line } = await startScript(script, ...args);
  children.push(child);
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
      POSTCARD_ADMIN_KEY: ADMIN_KEY,
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
async function stored(port: number, key: string, campaign: string): Promise<number> {
  let [count, cursor] = [0, ''];
  do {
    const query = `campaignReferenceId=${campaign}&limit=1000&useCursor=true${cursor === '' ? '' : `&cursor=${cursor}`}`;
    const answer = await fetch(`http://127.0.0.1:${port}/mms/2/logs?${query}`, {
      headers: { authorization: `App ${key}` },
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

/** The key of a new account. */
async function account(port: number, name: string): Promise<string> {
  const admin = async (path: string, body: object): Promise<{ account: number; key: string }> => {
    const headers = { authorization: `App ${ADMIN_KEY}`, 'content-type': 'application/json' };
    const init = { method: 'POST', headers, body: JSON.stringify(body) };
    const answer = await fetch(`http://127.0.0.1:${port}/admin/1/${path}`, init);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as { account: number; key: string };
  };
  const { account } = await admin('accounts', { name });
  return (await admin(`accounts/${account}/keys`, { label: 'bench' })).key;
}

function quantile(times: number[], q: number): number {
  times.sort((a, b) => a - b);
  return times[Math.min(times.length - 1, Math.floor(q * times.length))] ?? 0;
}

/** Several phases as one. */
function sum(phases: LoadResult[]): LoadResult {
  const total = (of: (one: LoadResult) => number): number => phases.reduce((all, one) => all + of(one), 0);
  return {
    ok: total((one) => one.ok),
    refused: total((one) => one.refused),
    wrong: phases.flatMap((one) => one.wrong),
    asked: total((one) => one.asked) / phases.length,
    times: phases.flatMap((one) => one.times),
    waits: phases.flatMap((one) => one.waits),
  };
}

function shown(name: string, { ok, refused, asked, times, waits }: LoadResult): string {
  const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
  const told = `refusals p50 ${quantile(waits, 0.5).toFixed(1)} p99 ${quantile(waits, 0.99).toFixed(1)} ms`;
  return `${name.padEnd(10)} asked ${asked.toFixed(0)}/s  let in ${ok}  refused ${refused}  p50 ${p50.toFixed(1)} p99 ${p99.toFixed(1)} ms  ${told}`;
}

async function main(ms: number, connections: number): Promise<number> {
  const dir = mkdtempSync(join(root, 'data-bench-'));
  try {
    const { api: port, carrier: carrierPort } = await freePorts();
    const sinkPort = Number(await lineOf('sink.ts', String(carrierPort)));
    await startServer(dir, sinkPort, carrierPort, port);
    const key = await account(port, 'quiet');
    const load = { port, key: KEY, ms, connections: 64 };
    await loaded({ ...load, campaign: 'warm', rate: 0 });
    const most = await loaded({ ...load, campaign: 'most', rate: 0 });
    const rate = most.ok / (ms / 1000);
    const both = async (campaign: string, times: number): Promise<[LoadResult, LoadResult]> => {
      const quiet = { port, key, ms, campaign, rate: QUIET_RATE, connections: 64 };
      return Promise.all([loaded({ ...load, campaign, rate: Math.ceil(rate * times), connections }), loaded(quiet)]);
    };
    const calms: [LoadResult, LoadResult][] = [];
    const overs: [LoadResult, LoadResult][] = [];
    for (let round = 0; round < ROUNDS; round++) {
      calms.push(await both('calm', 0.25));
      overs.push(await both('over', 10));
    }
    const [calm, quietCalm] = [sum(calms.map(([one]) => one)), sum(calms.map(([, one]) => one))];
    const [over, quietOver] = [sum(overs.map(([one]) => one)), sum(overs.map(([, one]) => one))];
    const all: [string, LoadResult][] = [
      ['most', most],
      ['calm', calm],
      ['over', over],
      ['quiet calm', quietCalm],
      ['quiet over', quietOver],
    ];
    const wrong = all.flatMap(([, one]) => one.wrong);
    const accepted = over.ok + quietOver.ok;
    const kept = (await stored(port, KEY, 'over')) + (await stored(port, key, 'over'));
    if (kept !== accepted) wrong.push(`${accepted} had their 200, ${kept} are in the logs`);
    for (const [name, one] of all) console.log(shown(name, one));
    console.log(
      `${connections} connections wanted 10 times its rate and asked ${(over.asked / rate).toFixed(1)} times it; lost ${accepted - kept}`,
    );
    const ratio = (one: LoadResult, other: LoadResult): string =>
      (quantile(one.times, 0.99) / quantile(other.times, 0.99)).toFixed(2);
    console.log(`p99 over/calm ${ratio(over, calm)}; of the quiet account ${ratio(quietOver, quietCalm)}`);
    for (const one of wrong) console.log(`wrong: ${one}`);
    return wrong.length === 0 ? 0 : 1;
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

const told = process.argv[2] ?? '';
if (told.startsWith('{')) {
  const result = JSON.stringify(await source(JSON.parse(told) as Load), (_, value: unknown) =>
    typeof value === 'number' ? Math.round(value * 100) / 100 : value,
  );
  await new Promise<void>((written) => process.stdout.write(`${result}\n`, () => written()));
  process.exit(0);
}
process.exit(await main(Number(told || '5') * 1000, Number(process.argv[3] ?? '2048')));
