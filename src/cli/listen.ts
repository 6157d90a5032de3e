/**
 * `postcard listen`: a receiver on this machine that shows what a webhook gets, for integrators. It can check signatures, refuse
 * the first few, and be the account's default endpoint for as long as it runs.
 *
 * Promises: answers 200 only to what it has shown; what it changed at the server it takes back when it ends. Exit code 0 when it
 * is told to stop.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import type { Env } from '../env.ts';
import type { Client } from './client.ts';
import { Failure, type Form, hasColor, type Io, paint, plain } from './terminal.ts';

/** What one webhook may be: far more than 100 reports are. */
const BODY_MAX = 16 * 1024 * 1024;

export interface ListenOptions {
  port: number;
  /** Signatures are checked with it. */
  secret?: string;
  /** How many to answer 500 before the first 200. */
  fail: number;
  /** Ask for XML, where it is made the default endpoint. */
  xml: boolean;
  output: Form;
  /** Make it the default endpoint of this client's account; null = only listen. */
  client: Client | null;
}

/** Listens until it is told to stop; the exit code. */
export async function listen(io: Io, env: Env, options: ListenOptions): Promise<number> {
  const { client, output, xml } = options;
  const colors = paint(hasColor(io));
  const secrets = new Map<string, string>();
  let left = options.fail;
  let count = 0;

  function show(request: IncomingMessage, body: string): void {
    const path = request.url ?? '/';
    const secret = secrets.get(path) ?? options.secret;
    const verdict = secret === undefined ? signed(request) : verify(secret, body, request);
    const status = left > 0 ? 500 : 200;
    if (left > 0) left -= 1;
    count += 1;
    const { headers } = request;
    if (output !== 'table') {
      io.out(
        `${JSON.stringify({ at: env.clock.now(), path, status, signature: verdict, headers, body: parsed(body) })}\n`,
      );
    } else {
      const type = plain(String(headers['content-type'] ?? 'no content type'));
      const mark = verdict === 'wrong' ? colors.bad : colors.dim;
      io.out(`${colors.brand(`#${count}`)} ${plain(path)}  ${type}  ${mark(`signature ${verdict}`)}  -> ${status}\n`);
      const id = headers['webhook-id'];
      if (id !== undefined) io.out(colors.dim(`   ${plain(String(id))}\n`));
      const lines = (type.includes('xml') ? indented(body) : pretty(body)).split('\n');
      io.out(`${lines.map((line) => `   ${plain(line)}`).join('\n')}\n`);
    }
    answers.get(request)?.writeHead(status).end();
  }

  const answers = new WeakMap<IncomingMessage, ServerResponse>();
  const server = createServer((request, response) => {
    answers.set(request, response);
    const chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > BODY_MAX) response.writeHead(413, { connection: 'close' }).end();
      else chunks.push(chunk);
    });
    request.on('end', () => {
      if (size > BODY_MAX) return;
      if (request.method === 'POST') show(request, Buffer.concat(chunks).toString('utf8'));
      else response.writeHead(405, { allow: 'POST' }).end();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'is taken by another process' : `cannot be opened (${error.code})`;
      reject(new Failure(`port ${options.port} ${why}; choose another with --port`));
    });
    server.listen(options.port, '127.0.0.1', resolve);
  });
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const kinds = ['DELIVERY', 'INBOUND', 'CLICK'];
  const pathOf = (kind: string): string => `/${kind.toLowerCase()}`;
  const made: string[] = [];
  const before = client === null ? [] : await defaults(client);
  try {
    for (const kind of client === null ? [] : kinds) {
      const contentType = xml && kind === 'DELIVERY' ? 'application/xml' : 'application/json';
      const setting = { kind, url: base + pathOf(kind), default: true, contentType, rotateSecret: true };
      const answer = await client?.change<{ secret?: string }>('PUT', '/webhooks/1/endpoints', setting);
      made.push(kind);
      if (answer?.secret !== undefined) secrets.set(pathOf(kind), answer.secret);
    }
    io.err(
      client === null
        ? `listening on ${base}/ (use it as webhooks.delivery.url)\n`
        : `listening on ${base}/: the default endpoint of this account until this ends\n`,
    );
    await new Promise<void>((resolve) => {
      if (io.stop.aborted) resolve();
      else io.stop.addEventListener('abort', () => resolve(), { once: true });
    });
  } finally {
    for (const kind of made) {
      const query = `kind=${kind}&url=${encodeURIComponent(base + pathOf(kind))}`;
      await client?.change('DELETE', `/webhooks/1/endpoints?${query}`).catch((error: unknown) => {
        io.err(`postcard: ${base + pathOf(kind)} is still an endpoint of the account: ${plain(String(error))}\n`);
      });
    }
    for (const { kind, url } of before) {
      await client?.change('PUT', '/webhooks/1/endpoints', { kind, url, default: true }).catch((error: unknown) => {
        io.err(`postcard: ${plain(url)} is not the default endpoint again: ${plain(String(error))}\n`);
      });
    }
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  return 0;
}

/** Which endpoints are the account's default now. */
async function defaults(client: Client): Promise<{ kind: string; url: string }[]> {
  type Row = { kind: string; url: string; default: boolean };
  const found = await client.get<{ results: Row[] }>('/webhooks/1/endpoints');
  return (found?.results ?? []).filter((one) => one.default);
}

type Verdict = 'none' | 'right' | 'wrong' | 'not checked';

function signed(request: IncomingMessage): Verdict {
  return request.headers['webhook-signature'] === undefined ? 'none' : 'not checked';
}

function verify(secret: string, body: string, request: IncomingMessage): Verdict {
  if (signed(request) === 'none') return 'none';
  try {
    const verifier = secret.startsWith('whsec_')
      ? new Webhook(secret)
      : new Webhook(new TextEncoder().encode(secret), { format: 'raw' });
    const headers = Object.fromEntries(
      ['webhook-id', 'webhook-timestamp', 'webhook-signature'].map((name) => [name, String(request.headers[name])]),
    );
    verifier.verify(body, headers, { jsonParse: false });
    return 'right';
  } catch {
    return 'wrong';
  }
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body) as unknown;
  } catch {
    return body;
  }
}

function pretty(body: string): string {
  const value = parsed(body);
  return typeof value === 'string' ? value : JSON.stringify(value, null, 2);
}

/** XML with a line an element; only for the eye. */
function indented(body: string): string {
  let depth = 0;
  return body
    .replace(/></g, '>\n<')
    .split('\n')
    .map((line) => {
      if (line.startsWith('</')) depth -= 1;
      const text = `${'  '.repeat(Math.max(0, depth))}${line}`;
      if (/^<[^?/!][^>]*[^/]>$/.test(line)) depth += 1;
      return text;
    })
    .join('\n');
}
