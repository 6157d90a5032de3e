/**
 * A real Postcard process for torture: started, killed, paused and started again on the same data directory and ports, and
 * what a customer asks of it.
 *
 * Fails: a start that ends or is not ready within READY_MS rejects with what the process printed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer as createTcp, type Server } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli/postcard.ts', import.meta.url));
const FAILPOINT = fileURLToPath(new URL('./failpoint.ts', import.meta.url));
export const KEY = 'torture-key-0123456789abcdef0123456789abcdef';
/** The machine may be busy with everything else. */
const READY_MS = 120_000;

export interface Ports {
  api: number;
  carrier: number;
  sandbox: number;
}

/** Below what systems give to outgoing connections: a port that a process has left for a moment must not be taken by one of those. */
const [PORT_FIRST, PORT_LAST] = [10_000, 30_000];
/** Where a test process holds what it was given, until it ends: the same port of another loopback address, in nobody's way. */
const HELD_AT = '127.85.0.1';

/** Listens there; null = somebody does already, undefined = this machine has no such address. */
function listenAt(port: number, host: string): Promise<Server | null | undefined> {
  const server = createTcp();
  return new Promise((resolve) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code === 'EADDRNOTAVAIL' ? undefined : null));
    server.listen(port, host, () => resolve(server));
  });
}

/**
 * A free port of 127.0.0.1 that no other test process of this machine is given while this one runs, also while nobody listens there.
 * Not for what listens on all addresses.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 1_000; tries++) {
    const port = PORT_FIRST + Math.floor(Math.random() * (PORT_LAST - PORT_FIRST));
    const held = await listenAt(port, HELD_AT);
    if (held === null) continue;
    held?.unref();
    const free = await listenAt(port, '127.0.0.1');
    await new Promise<void>((resolve) => (free ? free.close(() => resolve()) : resolve()));
    if (free) return port;
    held?.close();
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

/** What a log entry of `logsOf` has, of what tests look at. */
export interface LogEntry {
  messageId: string;
  destination: string;
  status: { id: number; groupName: string };
  doneAt: string;
}

/** An account may ask for logs 120 times a minute: who is told to wait, waits, at most so often in a row. */
const LOG_WAITS = 60;

/** The log entries of these messages, those that are known, fifty a request; waits where it is told that it asks too much. */
export async function logsOf(url: string, ids: readonly string[]): Promise<Map<string, LogEntry>> {
  const found = new Map<string, LogEntry>();
  for (let i = 0; i < ids.length; i += 50) {
    const chunk = ids.slice(i, i + 50);
    const query = chunk.map((id) => `messageId=${encodeURIComponent(id)}`).join('&');
    const ask = (): Promise<Response> => call(url, `/mms/2/logs?limit=1000&${query}`);
    let answer = await ask();
    for (let waits = 0; answer.status === 429 && waits < LOG_WAITS; waits++) {
      await answer.arrayBuffer();
      await wait(1000 * Number(answer.headers.get('retry-after') ?? 1));
      answer = await ask();
    }
    if (answer.status !== 200) throw new Error(`logs: ${answer.status} ${await answer.text()}`);
    for (const log of ((await answer.json()) as { results: LogEntry[] }).results) found.set(log.messageId, log);
  }
  return found;
}
