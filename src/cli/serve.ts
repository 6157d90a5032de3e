/**
 * `postcard serve`: starts the server, says where it is, and stops it when told to.
 *
 * Promises: the first account's key is shown exactly once, at the start that made it, on stdout and never in the log: in the
 * banner on a terminal, else as one plain line (the log is JSON on stderr). SIGTERM and SIGINT stop cleanly, exit
 * code 0; a second one ends at once, exit code 1. What a wrapper (npm, a terminal) doubles within a second counts as one. SIGHUP
 * takes a changed configuration over; on a terminal that is closed it stops, like the others.
 */
import { existsSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import type { Config, Sources } from '../config.ts';
import type { Clock, Env } from '../env.ts';
import type { Running } from '../main.ts';
import { keepCompiled } from './compiled.ts';
import { Failure, hasColor, type Io, paint } from './terminal.ts';

/** A repeat within this time is the same signal, told twice. */
const SAME_MS = 1000;
/** When a stop has not ended by then it never will; supervisors kill a little later. */
const STOP_MS = 35_000;

export const SIGNALS = ['SIGTERM', 'SIGINT'] as const;

/** Feeds signals in; `stop` aborts at the first, `force` is called at the second that is not an echo of it. */
export function createStopper(clock: Clock, force: () => void): { signal(): void; stop: AbortSignal } {
  const controller = new AbortController();
  let first: number | null = null;
  return {
    stop: controller.signal,
    signal() {
      if (first === null) {
        first = clock.monotonic();
        controller.abort();
      } else if (clock.monotonic() - first > SAME_MS) force();
    },
  };
}

/** Starts a server; fails with StartError. Tests give their own. */
export type Start = (config: Config, options: { env: Env; sources?: Sources }) => Promise<Running>;

/** The whole server. Loaded only when it is asked for: the commands that do without it answer faster. */
export const startWhole: Start = async (config, options) => {
  // Messages of customers: what is written from here on is no other user's to read. Nor is what we run theirs to write.
  if (isMainThread) process.umask(0o027);
  keepCompiled(config.dataDir);
  return (await import('../main.ts')).startServer(config, options);
};

/** Runs the server until `io.stop`; the exit code. Fails with StartError, or a Failure when the stop takes too long. */
export async function serve(io: Io, env: Env, config: Config, start = startWhole): Promise<number> {
  const running = await start(config, { env, sources: sourcesOf(io) });
  // A terminal that is closed ends its programs; without one, SIGHUP is how supervisors ask for a reload.
  if (!io.tty) io.onHangup?.(() => void running.reload());
  io.out(io.tty ? banner(running, config, hasColor(io)) : keyLine(running));
  await aborted(io.stop);
  return stopServer(running, env);
}

/** Where the settings come from. */
export function sourcesOf(io: Pick<Io, 'env' | 'cwd' | 'readFile'>): Sources {
  return { env: io.env, cwd: io.cwd, readFile: (path) => io.readFile(path).toString('utf8'), realPath };
}

/**
 * Also of a link to what is not there yet: SQLite makes the file where the link leads. A store that was begun by a link's name, when
 * its content was looked for beside the link, goes on by that name: elsewhere there is none.
 */
function realPath(path: string): string {
  try {
    const link = resolve(dirname(path), readlinkSync(path));
    const target = existsSync(link) ? realpathSync(link) : link;
    const content = contentBeside(path);
    return existsSync(content) && realpathSync(content) !== contentBeside(target) ? path : target;
  } catch {
    return path;
  }
}

/** Where the store's thread keeps the content of this file (`sqliteFiles`). */
function contentBeside(file: string): string {
  const stem = file.replace(/\.db$/, '');
  return basename(stem) === 'postcard' ? join(dirname(file), 'content.db') : `${stem}.content.db`;
}

/** Stops within `STOP_MS`; the exit code. */
export async function stopServer(running: Running, env: Env): Promise<number> {
  env.log.info({}, 'stopping');
  const late = new AbortController();
  const ended = running.stop().then(() => true);
  const inTime = await Promise.race([ended, env.clock.sleep(STOP_MS, late.signal).then(() => false)]);
  late.abort();
  if (!inTime)
    throw new Failure(`did not stop in ${STOP_MS / 1000} s; ending all the same (nothing that was accepted is lost)`);
  env.log.info({}, 'stopped');
  return 0;
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}

/** What is not a terminal gets one line, and only where there is a key that nobody has seen yet. */
export function keyLine(running: Pick<Running, 'firstKey'>): string {
  if (running.firstKey === null) return '';
  return `postcard: the API key of the first account, shown only this once: ${running.firstKey}\n`;
}

/** What a terminal shows at the start. */
export function banner(
  running: Pick<Running, 'url' | 'sandboxUrl' | 'carrierUrl' | 'firstKey'>,
  config: Pick<Config, 'carriers' | 'dataDir'>,
  color: boolean,
): string {
  const { brand, dim } = paint(color);
  const { firstKey } = running;
  const url = pasteable(running.url);
  const sandboxUrl = running.sandboxUrl && pasteable(running.sandboxUrl);
  const everywhere = url === running.url ? '' : `  ${dim('and every other address of this machine')}`;
  const lines: [string, string][] = [['API', url + everywhere]];
  if (firstKey !== null) lines.push(['API key', `${firstKey}  ${dim('shown only this once: keep it')}`]);
  if (running.carrierUrl) lines.push(['carriers call', `${pasteable(running.carrierUrl)}/mm7/{carrier}`]);
  if (sandboxUrl) lines.push(['sandbox', `${sandboxUrl}/sandbox/handsets/{number}/messages`]);
  lines.push(['messages go to', destination(config, sandboxUrl)]);
  lines.push(['data', config.dataDir]);
  const width = Math.max(...lines.map(([name]) => name.length));
  const key = firstKey ?? '$POSTCARD_API_KEY';
  return [
    '',
    `  ${brand('Postcard')} is ready`,
    '',
    ...lines.map(([name, value]) => `  ${dim(name.padEnd(width))}  ${value}`),
    '',
    `  ${dim('Send an MMS:')}`,
    ...sendCurl(url, key)
      .split('\n')
      .map((line) => `  ${line}`),
    '',
    '',
  ].join('\n');
}

/** The same server by an address that a client can call: "every address" is none. */
function pasteable(url: string): string {
  return url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:');
}

function destination(config: Pick<Config, 'carriers'>, sandboxUrl: string | null): string {
  if (config.carriers.length > 0) return config.carriers.map((carrier) => carrier.name).join(', ');
  return sandboxUrl ? 'the sandbox: no carrier is configured' : 'nowhere: no carrier is configured';
}

/** A command to paste into a shell that sends one MMS. */
export function sendCurl(url: string, key: string): string {
  // In double quotes only where the shell shall put the variable in.
  const header = key.startsWith('$') ? `"Authorization: App ${key}"` : shellQuoted(`Authorization: App ${key}`);
  const body = {
    messages: [
      {
        sender: 'Postcard',
        destinations: [{ to: '447700900001' }],
        content: { title: 'Hello', messageSegments: [{ type: 'TEXT', text: 'Wish you were here' }] },
      },
    ],
  };
  return [
    `curl ${url}/mms/2/messages -H ${header} \\`,
    `  -H 'Content-Type: application/json' -d '${JSON.stringify(body)}'`,
  ].join('\n');
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
