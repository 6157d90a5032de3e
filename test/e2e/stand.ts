/**
 * What the end-to-end tests stand on: a whole server in this process, on free ports and a directory of the test's own; peers over HTTP
 * that keep what they were asked (a customer's URL, an MMSC); what lies on a handset of the sandbox; and patience. Carriers, messages
 * and what is expected of them stand in the tests.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Config, loadConfig, type Sources } from '../../src/config.ts';
import { type Env, realEnv } from '../../src/env.ts';
import { type Running, startServer } from '../../src/main.ts';

/** Key of the first account. */
export const KEY = 'e2e-key-0123456789abcdef0123456789abcdef';
/** Key of the operator, where the settings name one. */
export const ADMIN = 'e2e-admin-0123456789abcdef0123456789abcdef';

/** How long `until` waits: less than a test may take, so that it says what it waited for. Nothing needs a tenth of it on a calm machine. */
const PATIENCE_MS = 60_000;

/** `dir` holds the data, and `postcard.yaml` where the test wrote one. `settings` come before what is set here. */
export function sourcesIn(dir: string, settings: Sources['env'] = {}): Sources {
  return {
    env: {
      POSTCARD_DATA_DIR: dir,
      POSTCARD_PORT: '0',
      POSTCARD_CARRIER_PORT: '0',
      POSTCARD_SANDBOX_PORT: '0',
      POSTCARD_SANDBOX_SMPP_PORT: '0',
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
      ...settings,
    },
    cwd: dir,
    readFile: (path) => readFileSync(path, 'utf8'),
  };
}

/** Throws with every mistake in it. */
export function configOf(sources: Sources): Config {
  const loaded = loadConfig(sources);
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  return loaded.config;
}

/** A server of these sources, which it follows when they change, as `serve` does. The caller stops it. */
export function startFrom(sources: Sources, env?: Env): Promise<Running> {
  const config = configOf(sources);
  return startServer(config, { env: env ?? realEnv({ level: config.logLevel }), sources });
}

/** Headers of a customer's JSON. */
export const headersOf = (key = KEY): Record<string, string> => ({
  authorization: `App ${key}`,
  'content-type': 'application/json',
});

/** A request as a peer got it. */
export interface Asked {
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
}

export interface Peer {
  /** Without a path. */
  url: string;
  /** Oldest first. */
  asked: Asked[];
  /** All of `results` in what was posted to it, oldest first: what a customer's URL was told. */
  results<Result>(path?: string): Result[];
  close(): void;
}

/** Answers every request once it is there; 200 without a word unless told otherwise. Bodies are UTF-8. */
export async function openPeer(
  answer: (asked: Asked, response: ServerResponse) => void = (_, response) => response.end(),
): Promise<Peer> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const one = { path: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString() };
      asked.push(one);
      answer(one, response);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    results: <Result>(path?: string) =>
      asked
        .filter((one) => path === undefined || one.path === path)
        .flatMap(({ body }) => (JSON.parse(body) as { results: Result[] }).results),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A message on a handset of the sandbox. */
export interface Held {
  channel: 'MMS' | 'SMS';
  from: string;
  to: string[];
  subject: string;
  /** Of an SMS. */
  text?: string;
  /** Of an MMS. */
  parts: { contentType: string; contentId: string; size: number; sha256: string; text?: string; url: string }[];
}

/** What lies on the handset of this number. */
export async function onHandset({ sandboxUrl }: Running, number: string): Promise<Held[]> {
  const answer = await fetch(`${sandboxUrl}/sandbox/handsets/${number}/messages`);
  return ((await answer.json()) as { messages: Held[] }).messages;
}

/** Looks again and again until it sees something; throws with `what` when that does not happen. */
export async function until<T>(
  look: () => Promise<T | undefined | false> | T | undefined | false,
  what: string,
): Promise<T> {
  for (const end = Date.now() + PATIENCE_MS; ; ) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > end) throw new Error(`not seen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
