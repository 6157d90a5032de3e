/**
 * What the benches of whole servers stand on: a directory beside the sources, whose disk is the one that is measured; processes of their
 * own for the server and for all that it meets; and an end that leaves none of them behind. What is offered and counted is the bench's.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { KEY } from '../test/torture/server.ts';

/** How long a server may take to start, and a bench may wait without anything happening, before it says that something is wrong. */
export const PATIENCE_MS = 120_000;
const root = fileURLToPath(new URL('..', import.meta.url));
const children: ChildProcess[] = [];

export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
export const median = (values: number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

/** An empty directory, under BENCH_DIR where that is set. `bench` removes it. */
export function ownDirectory(name: string): string {
  return mkdtempSync(join(process.env.BENCH_DIR ?? root, `data-bench-${name}-`));
}

/** Runs the bench. What it throws is printed and makes the exit code 1; its processes and `dir` go in any case. */
export async function bench(dir: string, main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A script of this folder, in a process of its own; and the first line that it says, once it has. */
export async function startScript(script: string, ...args: string[]): Promise<{ child: ChildProcess; line: string }> {
  const child = spawn(process.execPath, [join(root, 'bench', script), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const lines = createInterface({ input: child.stdout as NodeJS.ReadableStream });
  const [line] = (await Promise.race([once(lines, 'line'), once(child, 'exit')])) as [unknown];
  if (typeof line !== 'string') throw new Error(`${script} ended without a word`);
  return { child, line };
}

/**
 * A server, once it is ready: `carriers` is its configuration file, `settings` come before what is set here. Without the sandbox; its
 * account's key is KEY of `test/torture/server.ts`.
 */
export async function startPostcard(
  dir: string,
  ports: { api: number; carrier: number },
  carriers: string,
  settings: Record<string, string> = {},
): Promise<{ child: ChildProcess; url: string }> {
  const config = join(dir, 'postcard.yaml');
  writeFileSync(config, carriers);
  mkdirSync(join(dir, 'data'), { recursive: true });
  const child = spawn(process.execPath, [join(root, 'src/cli/postcard.ts'), 'serve'], {
    env: {
      PATH: process.env.PATH,
      POSTCARD_DATA_DIR: join(dir, 'data'),
      POSTCARD_CONFIG: config,
      POSTCARD_PORT: String(ports.api),
      POSTCARD_CARRIER_PORT: String(ports.carrier),
      POSTCARD_SANDBOX: 'false',
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
      ...settings,
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  children.push(child);
  const url = `http://127.0.0.1:${ports.api}`;
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end && child.exitCode === null; ) {
    const ready = await fetch(`${url}/readyz`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (ready) return { child, url };
    await wait(50);
  }
  throw new Error('the server did not become ready');
}
