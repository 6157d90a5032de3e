/**
 * Messages from handsets, end to end over real sockets and files: a sandbox handset sends, MM7 brings it in, and it comes out as
 * a signed webhook, or is pulled; its parts by their URLs; STOP, and a webhook that is made again.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { headersOf, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const OURS = '441134960000';
const HANDSET = '441134960001';
const dir = mkdtempSync(join(tmpdir(), 'postcard-inbound-'));
let running: Running;
let customer: Peer;

beforeAll(async () => {
  customer = await openPeer();
  running = await startFrom(sourcesIn(dir));
});

afterAll(async () => {
  await running?.stop();
  customer?.close();
  rmSync(dir, { recursive: true, force: true });
});

async function api(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
  const answer = await fetch(running.url + path, {
    method,
    headers: headersOf(),
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await answer.text();
  expect(answer.status, text).toBe(200);
  return JSON.parse(text);
}

/** The handset writes to our number. */
async function write(parts: object[]): Promise<void> {
  const answer = await fetch(`${running.sandboxUrl}/sandbox/handsets/${HANDSET}/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ to: [OURS], subject: 'Hello', parts }),
  });
  expect(answer.ok, await answer.text()).toBe(true);
}

type Pulled = { messageId: string; from: string; to: string; message: string };
const pulled = (): Promise<Pulled> =>
  until(async () => ((await api('GET', '/mms/1/inbox/reports')).results as Pulled[])[0], 'a message in the inbox');
const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
);

it('without an endpoint a message is pulled, once, and its picture by its URL', async () => {
  await write([
    { contentType: 'text/plain', text: 'Grüße' },
    { contentType: 'image/png', contentId: 'pic', base64: PNG.toString('base64') },
  ]);
  const item = await pulled();
  expect(item).toMatchObject({ from: HANDSET, to: OURS });
  const { mms_parts: parts, subject } = JSON.parse(item.message) as {
    mms_parts: { contentType: string; value?: string; url?: string }[];
    subject: string;
  };
  expect(subject).toBe('Hello');
  expect(parts.find((part) => part.value !== undefined)?.value).toBe('Grüße');
  const picture = parts.find((part) => part.contentType === 'image/png');
  // The public URL has the port of the settings, which asked for any.
  const bytes = await fetch(running.url + new URL(picture?.url as string).pathname);
  expect(Buffer.from(await bytes.arrayBuffer())).toEqual(PNG);
  expect((await api('GET', '/mms/1/inbox/reports')).results).toEqual([]);
});

it('with one it is posted, signed, and posted again with the same id and bytes when it is replayed', async () => {
  const { secret } = await api('PUT', '/webhooks/1/endpoints', {
    kind: 'INBOUND',
    url: `${customer.url}/in`,
    default: true,
  });
  await write([{ contentType: 'text/plain', text: 'to the webhook' }]);
  const first = await until(() => customer.asked[0], 'a webhook');
  new Webhook(secret as string).verify(first.body, first.headers as Record<string, string>);
  const body = JSON.parse(first.body);
  expect(body).toMatchObject({ messageCount: 1, pendingMessageCount: 0 });
  expect(body.results[0]).toMatchObject({
    from: HANDSET,
    to: OURS,
    message: [{ contentType: 'text/plain', value: 'to the webhook' }],
  });
  type Row = { id: string; state: string };
  const delivery = await until(async () => {
    const { results } = await api(
      'GET',
      `/webhooks/1/deliveries?messageId=${body.results[0].messageId}&state=DELIVERED`,
    );
    return (results as Row[])[0];
  }, 'its delivery');
  expect(delivery.id).toBe(first.headers['webhook-id']);
  await api('POST', `/webhooks/1/deliveries/${delivery.id}/replay`);
  const second = await until(() => customer.asked[1], 'the replay');
  expect([second.body, second.headers['webhook-id']]).toEqual([first.body, delivery.id]);
});

it('STOP refuses what comes after it, and START lets it through', async () => {
  const send = async (): Promise<string> => {
    const { messages } = await api('POST', '/mms/2/messages', {
      messages: [
        {
          sender: OURS,
          destinations: [{ to: HANDSET }],
          content: { messageSegments: [{ type: 'TEXT', text: 'news' }] },
        },
      ],
    });
    return (messages as { status: { name: string } }[])[0]?.status.name as string;
  };
  const listed = async (count: number) => {
    const { results } = await api('GET', '/mms/1/optouts');
    return (results as object[]).length === count;
  };
  expect(await send()).toBe('PENDING_ACCEPTED');
  await write([{ contentType: 'text/plain', text: 'Stop.' }]);
  await until(() => listed(1), 'the opt-out');
  expect(await send()).toBe('REJECTED_DND');
  await write([{ contentType: 'text/plain', text: 'START' }]);
  await until(() => listed(0), 'its end');
  expect(await send()).toBe('PENDING_ACCEPTED');
});
