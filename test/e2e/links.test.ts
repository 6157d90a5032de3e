/**
 * Short links, end to end over real sockets and files: the text on a handset of the sandbox holds a link of its own, which leads
 * on and tells the customer of its click; so does the text of the SMS that follows a failed MMS.
 */
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { realEnv } from '../../src/env.ts';
import { type Running, startServer } from '../../src/main.ts';

const KEY = 'e2e-key-0123456789abcdef0123456789abcdef';
const SHOP = 'https://shop.example/sale?x=1';
const PUBLIC = 'https://mms.example';
const PHONE =
  'Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36';
const dir = mkdtempSync(join(tmpdir(), 'postcard-links-'));
const got: { body: string }[] = [];
let running: Running;
let receiver: Server;
let hook: string;

beforeAll(async () => {
  receiver = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      got.push({ body: Buffer.concat(chunks).toString() });
      response.end();
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  hook = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/clicks`;
  const loaded = loadConfig({
    env: {
      POSTCARD_DATA_DIR: dir,
      POSTCARD_PORT: '0',
      POSTCARD_CARRIER_PORT: '0',
      POSTCARD_SANDBOX_PORT: '0',
      POSTCARD_SANDBOX_SMPP_PORT: '0',
      POSTCARD_PUBLIC_URL: PUBLIC,
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'silent',
    },
    cwd: dir,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  running = await startServer(loaded.config, { env: realEnv({ level: 'silent' }) });
}, 30_000);

afterAll(async () => {
  await running?.stop();
  receiver?.close();
  rmSync(dir, { recursive: true, force: true });
});

async function send(to: string[], more: object = {}, tracking: object = {}): Promise<{ messageId: string }[]> {
  const answer = await fetch(`${running.url}/mms/2/messages`, {
    method: 'POST',
    headers: { authorization: `App ${KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      messages: [
        {
          sender: '441134960000',
          destinations: to.map((one) => ({ to: one })),
          content: { messageSegments: [{ type: 'TEXT', text: `Sale: ${SHOP}. Soon!` }] },
          ...more,
        },
      ],
      options: { tracking: { trackingUrl: hook, ...tracking } },
    }),
  });
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { messages: { messageId: string }[] }).messages;
}

async function until<T>(look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

interface Shown {
  channel: string;
  text?: string;
  parts?: { contentType: string; text?: string }[];
}
/** The text that a handset got. */
const textOn = (number: string, channel: string): Promise<string> =>
  until(async () => {
    const answer = await fetch(`${running.sandboxUrl}/sandbox/handsets/${number}/messages`);
    const { messages } = (await answer.json()) as { messages: Shown[] };
    const found = messages.find((one) => one.channel === channel);
    return found && (found.text ?? found.parts?.find(({ contentType }) => contentType.startsWith('text/plain'))?.text);
  });

const tokenIn = (text: string): string => /\/l\/([0-9A-Za-z]{11})\b/.exec(text)?.[1] ?? '';
const open = (token: string): Promise<Response> =>
  fetch(`${running.url}/l/${token}`, { redirect: 'manual', headers: { 'user-agent': PHONE } });

it('stand in the text of each handset, lead on, and tell of their clicks', async () => {
  const numbers = ['441134960001', '441134960002'];
  const sent = await send(numbers);
  const texts = await Promise.all(numbers.map((number) => textOn(number, 'MMS')));
  const tokens = texts.map(tokenIn);
  expect(texts).toEqual(tokens.map((token) => `Sale: ${PUBLIC}/l/${token}. Soon!`));
  expect(new Set(tokens).size).toBe(2);

  const answer = await open(tokens[1] as string);
  expect([answer.status, answer.headers.get('location')]).toEqual([302, SHOP]);
  const click = JSON.parse((await until(() => got[0])).body);
  expect(click).toMatchObject({
    notificationType: 'CLICKED',
    recipient: numbers[1],
    url: SHOP,
    messageId: sent[1]?.messageId,
    recipientInfo: { deviceType: 'Phone', os: 'Android 15' },
  });
}, 30_000);

it('stand in the SMS that follows a failed MMS, without their scheme where that is asked for', async () => {
  const number = '441134969911';
  const smsFailover = { text: `Sale ${SHOP} only today`, sender: '441134960000' };
  const [sent] = await send([number], { options: { smsFailover } }, { removeProtocol: true });
  const text = await textOn(number, 'SMS');
  const token = tokenIn(text);
  expect(text).toBe(`Sale mms.example/l/${token} only today`);
  got.length = 0;
  expect((await open(token)).headers.get('location')).toBe(SHOP);
  expect(JSON.parse((await until(() => got[0])).body)).toMatchObject({ recipient: number, messageId: sent?.messageId });
}, 60_000);
