/**
 * G20, S26, S27: a real server process with marked secrets and marked words of customers in every place that takes some, taken
 * through the main job and through everything that goes wrong on the way, at log level debug. Not one mark may stand in what the
 * process wrote, and no whole number; no secret may stand in its files.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const CLI = fileURLToPath(new URL('../../src/cli/postcard.ts', import.meta.url));
/** Stands in every planted value, and nowhere else. */
const MARK = 'canary';
const API_KEY = `${MARK}-api-key-0123456789abcdef0123456789abcdef`;
const WRONG_KEY = `${MARK}-wrong-key-0123456789abcdef`;
const HOOK_SECRET = `whsec_${Buffer.from(`${MARK}-webhook-secret-123456`).toString('base64')}`;
const HOOK_SECRET_TEXT = `${MARK}-webhook-secret-as-text`;
const HOOK_HEADER = `Bearer ${MARK}-header-token`;
const SEAL = `${MARK}-seal-key-0123456789abcdef0123456789abcdef`;
const CARRIER_PASSWORD = `${MARK}-carrier-password`;
const INBOUND_SECRET = `${MARK}-inbound-secret-0123456789`;
/** What a dump must not have. The words of customers are kept there, of course. */
const SECRETS = [API_KEY, HOOK_SECRET, HOOK_SECRET_TEXT, HOOK_HEADER, SEAL, CARRIER_PASSWORD, INBOUND_SECRET];
const NUMBERS = ['491700000001', '491710009901', '499900000001', '441134960000'];
const SETTLE_MS = 60_000;

const dir = mkdtempSync(join(tmpdir(), 'postcard-secrets-'));
let child: ChildProcess;
let output = '';
let url = '';
let carrierUrl = '';
let receiver: Server;
let receiverUrl = '';
const received: { path: string; signed: boolean; authorization: string | undefined }[] = [];

/** Customers' receivers and a carrier in one: /fails and /mmsc repeat everything they were sent, in an error. */
async function startReceiver(): Promise<void> {
  receiver = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const path = (request.url as string).split('?')[0] as string;
      const signed = request.headers['webhook-signature'] !== undefined;
      received.push({ path, signed, authorization: request.headers.authorization });
      const bad = path !== '/works';
      response.statusCode = bad ? (path === '/mmsc' ? 401 : 500) : 200;
      const echo = JSON.stringify(request.headers) + Buffer.concat(chunks).toString('latin1');
      response.end(bad ? `${MARK} ${echo}` : 'ok');
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  receiverUrl = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
}

beforeAll(async () => {
  await startReceiver();
  writeFileSync(join(dir, 'key'), `${API_KEY}\n`);
  writeFileSync(
    join(dir, 'postcard.yaml'),
    `carriers:
  - name: strict
    type: mm7
    url: ${receiverUrl}/mmsc?token=${MARK}-carrier-token
    username: ${MARK}-carrier-user
    password: ${CARRIER_PASSWORD}
    vaspId: "1"
    inboundSecret: ${INBOUND_SECRET}
routes:
  - to: 4999
    carriers: [strict]
  - carriers: [sandbox]
`,
  );
  child = spawn(process.execPath, [CLI, 'serve'], {
    cwd: dir,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env.PATH,
      POSTCARD_DATA_DIR: join(dir, 'data'),
      POSTCARD_PORT: '0',
      POSTCARD_CARRIER_PORT: '0',
      POSTCARD_SANDBOX_PORT: '0',
      POSTCARD_SANDBOX_SMPP_PORT: '0',
      POSTCARD_API_KEY_FILE: join(dir, 'key'),
      POSTCARD_SECRET_KEY: SEAL,
      POSTCARD_LOG_LEVEL: 'debug',
    },
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  const ready = await seen(() => /\{[^\n]*"msg":"ready"[^\n]*\}/.exec(output)?.[0], 'a ready server');
  ({ url, carrierUrl } = JSON.parse(ready) as { url: string; carrierUrl: string });
});

afterAll(async () => {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
  receiver.close();
  rmSync(dir, { recursive: true, force: true });
});

async function seen<T>(look: () => Promise<T | undefined> | T | undefined, what: string): Promise<T> {
  const end = performance.now() + SETTLE_MS;
  while (performance.now() < end) {
    const found = await look();
    if (found !== undefined) return found;
    if (child.exitCode !== null) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not seen: ${what}\n${output.slice(-4000)}`);
}

async function api(path: string, init: RequestInit = {}): Promise<{ status: number; text: string }> {
  const answer = await fetch(url + path, {
    ...init,
    headers: { authorization: `App ${API_KEY}`, 'content-type': 'application/json', ...init.headers },
  });
  return { status: answer.status, text: await answer.text() };
}

const message = (to: string, hook: string, more: object = {}): object => ({
  sender: '441134960000',
  destinations: [{ to, messageId: `id-${to}-${hook}` }],
  content: {
    title: `${MARK} title`,
    messageSegments: [
      { type: 'TEXT', text: `${MARK} text`, contentId: `${MARK}-text` },
      {
        type: 'SMIL',
        contentType: 'application/smil',
        smil: `<smil><body><par><text src="${MARK}-text"/></par></body></smil>`,
      },
    ],
  },
  webhooks: { delivery: { url: `${receiverUrl}/${hook}?token=${MARK}-url-token` }, callbackData: `${MARK} callback` },
  ...more,
});

const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  api(path, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers });

describe('a server that knows secrets', () => {
  it('does the main job with them', { timeout: 120_000 }, async () => {
    for (const [hook, secret] of [
      ['works', HOOK_SECRET],
      ['fails', HOOK_SECRET_TEXT],
    ]) {
      const answer = await api('/webhooks/1/endpoints', {
        method: 'PUT',
        body: JSON.stringify({
          kind: 'DELIVERY',
          url: `${receiverUrl}/${hook}?token=${MARK}-url-token`,
          secret,
          headers: { Authorization: HOOK_HEADER },
        }),
      });
      expect([answer.status, answer.text]).toEqual([200, expect.not.stringContaining(MARK.repeat(2))]);
    }
    const upload = await api('/mms/1/content', {
      method: 'POST',
      body: `${MARK} uploaded`,
      headers: { 'x-content-id': `${MARK}-upload.txt`, 'x-media-type': 'text/plain', 'content-type': 'text/plain' },
    });
    expect(upload.status).toBe(200);
    const sent = await post(
      '/mms/2/messages',
      {
        messages: [
          message('491700000001', 'works'),
          message('491710009901', 'fails'),
          message('499900000001', 'works'),
        ],
      },
      { 'idempotency-key': `${MARK}-idempotency` },
    );
    expect(sent.status).toBe(200);
    // Delivered, refused by the sandbox, sent away by a carrier that repeats all it was told.
    await seen(() => (received.filter(({ path }) => path === '/works').length >= 1 ? true : undefined), 'a report');
    await seen(() => (received.some(({ path }) => path === '/fails') ? true : undefined), 'a report that fails');
    expect(received.filter(({ path }) => path === '/works').every(({ signed }) => signed)).toBe(true);
    expect(received.find(({ path }) => path === '/works')?.authorization).toBe(HOOK_HEADER);
    await seen(() => (received.some(({ path }) => path === '/mmsc') ? true : undefined), 'a call to the carrier');
  });

  it('meets everything that goes wrong', async () => {
    const expected: [Promise<{ status: number }>, number][] = [
      [post('/mms/2/messages', `{"messages":[{"sender":"${MARK}"`), 400],
      [
        post('/mms/2/messages', {
          messages: [{ sender: MARK.repeat(50), destinations: [{ to: MARK }], content: MARK }],
        }),
        400,
      ],
      [post('/mms/2/messages', { messages: [message(`${MARK}`, 'works')] }), 200],
      [post('/mms/2/messages', {}, { authorization: `App ${WRONG_KEY}` }), 401],
      [
        post(
          '/mms/2/messages',
          {},
          { authorization: `Basic ${Buffer.from(`user:${MARK}-password`).toString('base64')}` },
        ),
        401,
      ],
      [post('/mms/2/messages', {}, { authorization: `Bearer ${MARK}-token` }), 401],
      [post('/mms/2/messages', {}, { 'content-type': `text/${MARK}` }), 415],
      [post('/mms/2/messages', {}, { 'content-encoding': MARK }), 415],
      [api(`/mms/2/logs?sentSince=${MARK}&bulkId=${MARK}`), 400],
      [api(`/mms/2/messages/${MARK}`), 404],
      [api(`/${MARK}?${MARK}=${MARK}`), 404],
      [api('/webhooks/1/deliveries'), 200],
      [post('/mms/2/messages', { messages: [message('491700000001', 'works')] }), 200],
    ];
    for (const [given, status] of expected) expect((await given).status).toBe(status);
    const calls: [string, RequestInit][] = [
      [`/mm7/strict?secret=${MARK}-wrong`, { method: 'POST', body: `<${MARK}>${MARK}` }],
      [
        '/mm7/strict',
        {
          method: 'POST',
          body: `<x>${MARK}</x>`,
          headers: {
            authorization: `Basic ${Buffer.from(`a:${INBOUND_SECRET}`).toString('base64')}`,
            'content-type': 'text/xml',
          },
        },
      ],
      [`/mm7/${MARK}`, { method: 'POST', body: MARK }],
      ['/mm7/sandbox', { method: 'POST', body: `<!DOCTYPE ${MARK}>`, headers: { 'content-type': 'text/xml' } }],
    ];
    for (const [path, init] of calls) expect((await fetch(carrierUrl + path, init)).status).toBeGreaterThan(199);
  });

  it('wrote none of them down, and no whole number', async () => {
    child.kill('SIGTERM');
    // Not 'exit': what it said last may still be on its way to us then.
    await once(child, 'close');
    expect(child.exitCode).toBe(0);
    const lines = output.split('\n').filter((line) => line !== '');
    // It did speak: of each accept, of reports, of what failed.
    expect(lines.length).toBeGreaterThan(10);
    // Ids are the customers' to choose, and shown: one had the mark for a number.
    const shown = lines.map((line) => line.replaceAll(`id-${MARK}-works`, ''));
    expect(shown.filter((line) => line.includes(MARK))).toEqual([]);
    const encoded = [
      Buffer.from(MARK).toString('base64').slice(0, 7),
      Buffer.from(MARK).toString('hex'),
      HOOK_SECRET.slice(6, 26),
    ];
    expect(lines.filter((line) => encoded.some((text) => line.includes(text)))).toEqual([]);
    // Ids that customers made of numbers are theirs to show.
    const without = lines.map((line) => line.replace(/id-\w+-\w+/g, ''));
    expect(without.filter((line) => NUMBERS.some((number) => line.includes(number)))).toEqual([]);
    // Nothing that could end a line early or colour a terminal, and every line is one record.
    for (const line of lines) {
      expect(line).not.toMatch(/[\u0000-\u001f\u007f]/);
      if (line.startsWith('{')) expect(Object.keys(JSON.parse(line) as object)).toContain('msg');
    }
  });

  it('keeps none of the secrets in its files', () => {
    const files = readdirSync(join(dir, 'data'), { recursive: true, withFileTypes: true }).filter((file) =>
      file.isFile(),
    );
    expect(files.length).toBeGreaterThan(1);
    const bytes = files.map((file) => readFileSync(join(file.parentPath, file.name)));
    const holds = (text: string): boolean => bytes.some((one) => one.includes(text));
    // The look finds what is there.
    expect(holds(`${MARK} text`)).toBe(true);
    expect(holds('sealed:1:')).toBe(true);
    for (const secret of SECRETS) expect(holds(secret), secret).toBe(false);
    for (const secret of SECRETS) expect(holds(Buffer.from(secret).toString('base64')), secret).toBe(false);
  });
});
