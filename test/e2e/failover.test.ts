/**
 * The SMS failover, end to end, over real sockets and files: HTTP in, MM7 to the sandbox's MMSC that refuses, SMPP to its SMSC,
 * the receipt back, one final report out.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { realEnv } from '../../src/env.ts';
import { type Running, startServer } from '../../src/main.ts';

const KEY = 'e2e-key-0123456789abcdef0123456789abcdef';
const ADMIN = 'e2e-admin-0123456789abcdef0123456789abcdef';
const dir = mkdtempSync(join(tmpdir(), 'postcard-failover-'));
let running: Running;
let receiver: Server;
let hook: string;
interface Report {
  messageId: string;
  to: string;
  sender: string;
  status: { id: number };
  error: { id: number };
  messageCount: number;
  channel?: string;
}
const told: Report[] = [];

beforeAll(async () => {
  receiver = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      told.push(...(JSON.parse(Buffer.concat(chunks).toString()) as { results: Report[] }).results);
      response.end();
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  hook = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`;
  const loaded = loadConfig({
    env: {
      POSTCARD_DATA_DIR: dir,
      POSTCARD_PORT: '0',
      POSTCARD_CARRIER_PORT: '0',
      POSTCARD_SANDBOX_PORT: '0',
      POSTCARD_SANDBOX_SMPP_PORT: '0',
      POSTCARD_API_KEY: KEY,
      POSTCARD_ADMIN_KEY: ADMIN,
      POSTCARD_LOG_LEVEL: 'warn',
    },
    cwd: dir,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  running = await startServer(loaded.config, { env: realEnv({ level: 'warn' }) });
});

afterAll(async () => {
  await running?.stop();
  receiver?.close();
  rmSync(dir, { recursive: true, force: true });
});

function api(path: string, body?: unknown): Promise<Response> {
  return fetch(`${running.url}${path}`, {
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    headers: { authorization: `App ${KEY}`, 'content-type': 'application/json' },
  });
}

async function send(to: string[], options: object, intermediateReport = false): Promise<string[]> {
  const response = await api('/mms/2/messages', {
    messages: [
      {
        sender: 'Shop',
        destinations: to.map((one) => ({ to: one })),
        content: { title: 'Sale', messageSegments: [{ type: 'TEXT', text: 'the whole story' }] },
        options,
        webhooks: { delivery: { url: hook, intermediateReport } },
      },
    ],
  });
  expect(response.status).toBe(200);
  return ((await response.json()) as { messages: { messageId: string }[] }).messages.map(({ messageId }) => messageId);
}

async function until<T>(what: () => Promise<T | undefined> | T | undefined): Promise<T> {
  for (const end = Date.now() + 20_000; ; ) {
    const found = await what();
    if (found !== undefined) return found;
    if (Date.now() > end) throw new Error('it did not happen in time');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const final = (id: string): Promise<Report> =>
  until(() => told.find((one) => one.messageId === id && one.status.id !== 3 && !isMms(one)));
/** The refusal of a handset without MMS. */
const isMms = ({ status, error }: Report): boolean => status.id === 4 && error.id === 15019;

interface Held {
  channel?: string;
  sender?: string;
  from?: string;
  text?: string;
}
const inbox = async (msisdn: string): Promise<Held[]> => {
  const response = await fetch(`${running.sandboxUrl}/sandbox/handsets/${msisdn}/messages`);
  const body = (await response.json()) as { messages?: Held[]; results?: Held[] } | Held[];
  return Array.isArray(body) ? body : (body.messages ?? body.results ?? []);
};

describe('a handset without MMS', () => {
  it('gets the SMS, and its report tells the channel and the segments', async () => {
    const to = '441134969911';
    const text = `${'Long '.repeat(40)}end`;
    const [id] = (await send([to], { smsFailover: { sender: '447700900123', text } })) as [string];
    const report = await final(id);
    expect(report).toMatchObject({
      to,
      sender: 'Shop',
      status: { id: 5 },
      error: { id: 0 },
      channel: 'SMS',
      messageCount: 2,
    });
    const held = await inbox(to);
    expect(held.at(-1)).toMatchObject({ channel: 'SMS', text });
    const story = (await (await api(`/mms/2/messages/${id}`)).json()) as { attempts: { channel: string }[] };
    expect(story.attempts.map(({ channel }) => channel)).toEqual(['MMS', 'SMS']);
    const reported = told.filter(({ messageId }) => messageId === id);
    expect(reported).toHaveLength(1);
  });

  it('tells the refusal of the MMS between, where that is asked for', async () => {
    const [id] = (await send(['441134979911'], { smsFailover: { text: 'short' } }, true)) as [string];
    await final(id);
    expect(told.filter(({ messageId }) => messageId === id).map((one) => [one.status.id, one.channel])).toEqual([
      [4, undefined],
      [3, 'SMS'],
      [5, 'SMS'],
    ]);
  });

  it('gets nothing where no SMS is asked for', async () => {
    const to = '441134989911';
    const [id] = (await send([to], {})) as [string];
    const report = await until(() => told.find((one) => one.messageId === id));
    expect([report.status.id, report.error.id, report.channel]).toEqual([4, 15019, undefined]);
    expect(await inbox(to)).toEqual([]);
  });
});

it('the operator sends what waits for one carrier to another', async () => {
  const ask = (body: object): Promise<Response> =>
    fetch(`${running.url}/admin/1/reroute`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: { authorization: `App ${ADMIN}`, 'content-type': 'application/json' },
    });
  const answer = await ask({ from: 'sandbox', to: 'sandbox-sms' });
  expect(answer.status).toBe(409);
  expect(await answer.json()).toMatchObject({
    violations: [{ property: 'to', violation: 'must take what waits for sandbox: sandbox-sms carries SMS only' }],
  });
  expect((await ask({ from: 'nobody', to: 'sandbox' })).status).toBe(404);
  expect((await ask({ from: 'sandbox', to: 'nobody' })).status).toBe(409);
  expect((await ask({ from: 'sandbox', to: 'sandbox' })).status).toBe(404);
  expect((await ask({ from: 'sandbox' })).status).toBe(400);
});

describe('other handsets', () => {
  it('get one of the two: the MMS where it arrives, the SMS where it does not', async () => {
    const to = ['441134960001', '441134969902', '441134969903'];
    const ids = await send(to, { smsFailover: { text: 'instead' } });
    const reports = await Promise.all(ids.map(final));
    expect(reports.map(({ status, channel }) => [status.id, channel])).toEqual([
      [5, undefined],
      // The sandbox's SMSC treats these numbers as its MMSC does.
      [9, 'SMS'],
      [15, 'SMS'],
    ]);
    expect((await inbox('441134960001')).map(({ channel }) => channel ?? 'MMS')).toEqual(['MMS']);
  });

  it('refuses a blank text at the door', async () => {
    const response = await api('/mms/2/messages', {
      messages: [
        {
          sender: 'Shop',
          destinations: [{ to: '441134960001' }],
          content: { messageSegments: [{ type: 'TEXT', text: 'x' }] },
          options: { smsFailover: { text: '  ' } },
        },
      ],
    });
    expect(response.status).toBe(400);
    expect(JSON.stringify(await response.json())).toContain('messages[0].options.smsFailover.text');
  });
});
