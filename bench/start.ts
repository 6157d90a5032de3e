/**
 * What a start costs: from the process's begin to the first 200 of /readyz, in time and in processor time, for the whole server with
 * and without its sandbox. Two references run in turns with it, since a machine's pace is not to be compared: a node that ends at
 * once, and a Fastify with one route, to its first answer. Each round has a data directory that was used before; code that was
 * compiled is kept as by the command. Ends with code 1 when a server does not become ready, never because a machine is slow.
 *
 *   node bench/start.ts [--rounds 7] [--against DIRECTORY]
 *
 * --against: the server of another checkout beside it, installed, for before and after in one run.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { freePorts, KEY } from '../test/torture/server.ts';
import { bench, median, ownDirectory, PATIENCE_MS, wait } from './stand.ts';

const { values: given } = parseArgs({
  options: { rounds: { type: 'string', default: '7' }, against: { type: 'string' } },
});
const ROUNDS = Number(given.rounds);
const HERE = fileURLToPath(new URL('..', import.meta.url));

/** Ms until it answered (or ended), ms of processor time in all threads until then, and its resident MiB. */
interface Start {
  wall: number;
  cpu: number;
  rss: number;
}

function used(child: ChildProcess): Omit<Start, 'wall'> {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1];
  return { cpu: (Number(fields[11]) + Number(fields[12])) * 10, rss: Number(rss ?? 0) / 1024 };
}

async function answering(args: string[], cwd: string, env: Record<string, string>, url: string): Promise<Start> {
  const begin = performance.now();
  const child = spawn(process.execPath, args, {
    cwd,
    env: { PATH: process.env.PATH, ...env },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const gone = once(child, 'exit');
  try {
    for (const end = begin + PATIENCE_MS; performance.now() < end && child.exitCode === null; await wait(5)) {
      const ok = await fetch(url).then(
        (answer) => answer.ok,
        () => false,
      );
      if (ok) return { wall: performance.now() - begin, ...used(child) };
    }
    throw new Error(`wrong: ${args.join(' ')} does not answer at ${url}`);
  } finally {
    child.kill('SIGTERM');
    await gone;
  }
}

async function bare(): Promise<Start> {
  const begin = performance.now();
  // Its own word on its processor time: it is gone before anybody could look.
  const script = 'const u = process.cpuUsage(); console.log((u.user + u.system) / 1000)';
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (text) => {
    said += text;
  });
  await once(child, 'close');
  return { wall: performance.now() - begin, cpu: Number(said), rss: 0 };
}

async function fastify(): Promise<Start> {
  const { api } = await freePorts();
  const script = `import Fastify from 'fastify';
    const app = Fastify(); app.get('/readyz', () => 'ok'); await app.listen({ port: ${api} });
    process.on('SIGTERM', () => process.exit(0));`;
  const url = `http://127.0.0.1:${api}/readyz`;
  return answering(['--input-type=module', '-e', script], HERE, {}, url);
}

async function server(root: string, dir: string, sandbox: boolean): Promise<Start> {
  const { api, carrier } = await freePorts();
  const { api: sandboxPort, carrier: smpp } = await freePorts();
  return answering(
    [join(root, 'src/cli/postcard.ts'), 'serve'],
    dir,
    {
      POSTCARD_DATA_DIR: dir,
      POSTCARD_PORT: String(api),
      POSTCARD_CARRIER_PORT: String(carrier),
      POSTCARD_SANDBOX: String(sandbox),
      POSTCARD_SANDBOX_PORT: String(sandboxPort),
      POSTCARD_SANDBOX_SMPP_PORT: String(smpp),
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
      // As the command sets it (bin/postcard.cjs).
      NODE_COMPILE_CACHE: join(root, 'node_modules/.cache/postcard'),
    },
    `http://127.0.0.1:${api}/readyz`,
  );
}

const dir = ownDirectory('start');
await bench(dir, async () => {
  const at = (name: string): string => {
    mkdirSync(join(dir, name), { recursive: true });
    return join(dir, name);
  };
  const kinds: [name: string, start: () => Promise<Start>][] = [
    ['a bare node', bare],
    ['Fastify, one route', fastify],
    ['the server', () => server(HERE, at('plain'), false)],
    ['the server and its sandbox', () => server(HERE, at('box'), true)],
  ];
  const { against } = given;
  if (against !== undefined) {
    kinds.push(
      ['the other server', () => server(against, at('other'), false)],
      ['the other server and its sandbox', () => server(against, at('other-box'), true)],
    );
  }
  const starts = kinds.map((): Start[] => []);
  // The first of each makes its files and compiles its code.
  for (let round = -1; round < ROUNDS; round++) {
    for (const [n, [, start]] of kinds.entries()) {
      const one = await start();
      if (round >= 0) starts[n]?.push(one);
    }
  }
  console.log(`${ROUNDS} rounds in turns after one of warm-up; medians, node ${process.version}`);
  console.log(`  ${''.padEnd(34)} wall ms   CPU ms  CPU / Fastify's  RSS MiB`);
  const reference = median((starts[1] ?? []).map(({ cpu }) => cpu));
  for (const [n, [name]] of kinds.entries()) {
    const [wall, cpu, rss] = (['wall', 'cpu', 'rss'] as const).map((key) =>
      median((starts[n] ?? []).map((one) => one[key])),
    ) as [number, number, number];
    const figures = [
      wall.toFixed(0).padStart(7),
      cpu.toFixed(0).padStart(8),
      (cpu / reference).toFixed(1).padStart(16),
    ];
    console.log(`  ${name.padEnd(34)} ${figures.join(' ')} ${(rss === 0 ? '' : rss.toFixed(0)).padStart(8)}`);
  }
});
