/**
 * Short links, end to end over real sockets and files: the text on a handset of the sandbox holds a link of its own, which leads
 * on and tells the customer of its click; so does the text of the SMS that follows a failed MMS.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { headersOf, onHandset, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const SHOP = 'https://shop.example/sale?x=1';
const PUBLIC = 'https://mms.example';
const PHONE =
  'Mozilla/5.0 (Linux; Android 15; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36';
const dir = mkdtempSync(join(tmpdir(), 'postcard-links-'));
let running: Running;
let customer: Peer;

beforeAll(async () => {
  customer = await openPeer();
  running = await startFrom(sourcesIn(dir, { POSTCARD_PUBLIC_URL: PUBLIC }));
});

afterAll(async () => {
  await running?.stop();
  customer?.close();
  rmSync(dir, { recursive: true, force: true });
});

async function send(to: string[], more: object = {}, tracking: object = {}): Promise<{ messageId: string }[]> {
  const answer = await fetch(`${running.url}/mms/2/messages`, {
    method: 'POST',
    headers: headersOf(),
    body: JSON.stringify({
      messages: [
        {
          sender: '441134960000',
          destinations: to.map((one) => ({ to: one })),
          content: { messageSegments: [{ type: 'TEXT', text: `Sale: ${SHOP}. Soon!` }] },
          ...more,
        },
      ],
      options: { tracking: { trackingUrl: `${customer.url}/clicks`, ...tracking } },
    }),
  });
  expect(answer.status).toBe(200);
  return ((await answer.json()) as { messages: { messageId: string }[] }).messages;
}

/** The text that a handset got. */
const textOn = (number: string, channel: string): Promise<string> =>
  until(async () => {
    const found = (await onHandset(running, number)).find((one) => one.channel === channel);
    return found && (found.text ?? found.parts.find(({ contentType }) => contentType.startsWith('text/plain'))?.text);
  }, `the text of an ${channel} on ${number}`);
/** What was told of the next click. */
const click = async (): Promise<object> =>
  JSON.parse((await until(() => customer.asked.shift(), 'a click')).body) as object;

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
  expect(await click()).toMatchObject({
    notificationType: 'CLICKED',
    recipient: numbers[1],
    url: SHOP,
    messageId: sent[1]?.messageId,
    recipientInfo: { deviceType: 'Phone', os: 'Android 15' },
  });
});

it('stand in the SMS that follows a failed MMS, without their scheme where that is asked for', async () => {
  const number = '441134969911';
  const smsFailover = { text: `Sale ${SHOP} only today`, sender: '441134960000' };
  const [sent] = await send([number], { options: { smsFailover } }, { removeProtocol: true });
  const text = await textOn(number, 'SMS');
  const token = tokenIn(text);
  expect(text).toBe(`Sale mms.example/l/${token} only today`);
  expect((await open(token)).headers.get('location')).toBe(SHOP);
  expect(await click()).toMatchObject({ recipient: number, messageId: sent?.messageId });
});
