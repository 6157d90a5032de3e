/**
 * A real Postcard process for torture: started, killed, paused and started again on the same data directory and ports, and
 * what a customer asks of it.
 *
 * Fails: a start that ends or is not ready within READY_MS rejects with what the process printed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createTcp } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli/postcard.ts', import.meta.url));
const FAILPOINT = fileURLToPath(new URL('./failpoint.ts', import.meta.url));
export const KEY = 'torture-key-0123456789abcdef0123456789abcdef';
/** The machine may be busy with everything else. */
const READY_MS = 60_000;

export interface Ports {
  api: number;
  carrier: number;
  sandbox: number;
}

/** Below what systems give to outgoing connections: a port that a process has left for a moment must not be taken by one of those. */
const [PORT_FIRST, PORT_LAST] = [10_000, 30_000];
const given = new Set<number>();

/** A free local port that nobody else here is given, found by opening it. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 1_000; tries++) {
    const port = PORT_FIRST + Math.floor(Math.random() * (PORT_LAST - PORT_FIRST));
    if (given.has(port)) continue;
    given.add(port);
    const server = createTcp();
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
  throw new Error('no free port found');
}

export async function freePorts(): Promise<Ports> {
  return { api: await freePort(), carrier: await freePort(), sandbox: await freePort() };
}

export interface Postcard {
  child: ChildProcess;
  url: string;
  sandboxUrl: string;
  output(): string;
  /** It has not ended. */
  running(): boolean;
  /** Ends it and waits for the end; the exit code, null where a signal ended it. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

export interface StartOptions {
  /** The command that runs node, e.g. strace. */
  wrapper?: string[];
  /** More settings, by their names in the environment. */
  settings?: Record<string, string>;
  /** Arguments of `serve`. */
  args?: string[];
  /** Makes SIGUSR2 end the writer thread (`failpoint.ts`); when, is read from `failpointFile`. */
  failpoint?: boolean;
}

/** Where the failpoint of a data directory is told what to do. */
export function failpointFile(dataDir: string): string {
  return join(dataDir, 'failpoint');
}

/** Starts the process and does not wait: for starts that are meant to fail. */
export function spawnPostcard(dataDir: string, ports: Ports, options: StartOptions = {}): Postcard {
  const { wrapper = [], settings = {}, args = [], failpoint = false } = options;
  const preload = failpoint ? ['--import', FAILPOINT] : [];
  const command = [...wrapper, process.execPath, ...preload, CLI, 'serve', ...args];
  const child = spawn(command[0] as string, command.slice(1), {
    env: {
      PATH: process.env.PATH,
      POSTCARD_DATA_DIR: dataDir,
      POSTCARD_PORT: String(ports.api),
      POSTCARD_CARRIER_PORT: String(ports.carrier),
      POSTCARD_SANDBOX_PORT: String(ports.sandbox),
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
      TORTURE_FAILPOINT: failpointFile(dataDir),
      ...settings,
    },
    cwd: dataDir,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-20_000);
  };
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);
  const running = (): boolean => child.exitCode === null && child.signalCode === null;
  return {
    child,
    url: `http://127.0.0.1:${ports.api}`,
    sandboxUrl: `http://127.0.0.1:${ports.sandbox}`,
    output: () => output,
    running,
    async end(signal) {
      if (!running()) return child.exitCode;
      const gone = once(child, 'exit');
      // A tracer ignores signals that are meant for what it traces, and ends with it.
      const traced = wrapper.length > 0 ? childOf(child.pid as number) : null;
      if (traced === null) child.kill(signal);
      else process.kill(traced, signal);
      await gone;
      return child.exitCode;
    },
  };
}

/** The first child of a process (Linux); null = it has none. */
function childOf(pid: number): number | null {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return children === '' ? null : Number(children.split(' ')[0]);
}

/** Starts the server and resolves when it is ready. */
export async function startPostcard(dataDir: string, ports: Ports, options: StartOptions = {}): Promise<Postcard> {
  const server = spawnPostcard(dataDir, ports, options);
  try {
    await ready(server);
  } catch (error) {
    await server.end('SIGKILL');
    throw error;
  }
  return server;
}

/** Resolves when the process says that it is ready; rejects when it ends, or does not within READY_MS. */
export async function ready(server: Postcard, limitMs = READY_MS): Promise<void> {
  for (const until = Date.now() + limitMs; ; ) {
    if (!server.running()) throw new Error(`postcard ended with ${server.child.exitCode}:\n${server.output()}`);
    const answered = await fetch(`${server.url}/readyz`, { signal: AbortSignal.timeout(2_000) }).then(
      async (answer) => {
        await answer.arrayBuffer();
        return answer.ok;
      },
      () => false,
    );
    if (answered) return;
    if (Date.now() > until) throw new Error(`postcard is not ready after ${limitMs} ms:\n${server.output()}`);
    await wait(50);
  }
}

export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks again until `holds` answers true; what it answered last. */
export async function eventually(limitMs: number, holds: () => Promise<boolean> | boolean): Promise<boolean> {
  for (const until = Date.now() + limitMs; ; ) {
    if (await holds()) return true;
    if (Date.now() > until) return false;
    await wait(50);
  }
}

/** Asks the API with the torture key. */
export function call(url: string, path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${url}${path}`, {
    ...init,
    headers: { authorization: `App ${KEY}`, 'content-type': 'application/json', ...init.headers },
  });
}
