/** Carriers and routes that change under a running server: real threads, files and sockets. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { headersOf, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-reload-'));
const file = join(dir, 'postcard.yaml');

interface Mmsc extends Peer {
  /** Numbers that were submitted, and with which password. */
  took: { to: string; auth: string }[];
}

/** An MMSC that takes everything. */
async function mmsc(): Promise<Mmsc> {
  const took: Mmsc['took'] = [];
  const peer = await openPeer(({ headers, body }, response) => {
    const to = /Number>\+(\d+)</.exec(body.slice(body.indexOf('Recipients')))?.[1] ?? '';
    const tx = /TransactionID[^>]*>([^<]*)</.exec(body)?.[1] ?? '';
    took.push({ to, auth: Buffer.from((headers.authorization ?? '').slice(6), 'base64').toString() });
    response.setHeader('content-type', 'text/xml');
    response.end(
      `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID>${tx}</TransactionID></e:Header><e:Body><SubmitRsp><Status><StatusCode>1000</StatusCode></Status><MessageID>${took.length}-${to}</MessageID></SubmitRsp></e:Body></e:Envelope>`,
    );
  });
  return { ...peer, took };
}

let north: Mmsc;
let south: Mmsc;
let running: Running;

const entry = (name: string, { url }: Mmsc, more = ''): string =>
  `  - {name: ${name}, type: mm7, url: "${url}/mm7", reports: false${more}}\n`;

beforeAll(async () => {
  [north, south] = await Promise.all([mmsc(), mmsc()]);
  writeFileSync(file, `carriers:\n${entry('north', north)}`);
  running = await startFrom(sourcesIn(dir, { POSTCARD_SANDBOX: 'false' }));
});
afterAll(async () => {
  await running?.stop();
  for (const one of [north, south]) one?.close();
  rmSync(dir, { recursive: true, force: true });
});

async function send(to: string, options: object = {}): Promise<number> {
  return (await sent(to, options)).status.id;
}

async function sent(to: string, options: object = {}): Promise<{ messageId: string; status: { id: number } }> {
  const answer = await fetch(`${running.url}/mms/2/messages`, {
    method: 'POST',
    headers: headersOf(),
    body: JSON.stringify({
      messages: [
        {
          sender: '441134960000',
          destinations: [{ to }],
          content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        },
      ],
      options,
    }),
  });
  expect(answer.status).toBe(200);
  const { messages } = (await answer.json()) as { messages: { messageId: string; status: { id: number } }[] };
  return messages[0] as (typeof messages)[number];
}

it('a carrier and routes that join, change and leave are followed without a restart', async () => {
  expect(await send('491710000001')).toBe(26);
  await until(() => north.took.length === 1, 'the first message at north');

  // Joins, with a route of its own.
  writeFileSync(
    file,
    `carriers:\n${entry('north', north)}${entry('south', south)}routes:\n  - {to: 44, carriers: [south]}\n  - {carriers: [north]}\n`,
  );
  await running.reload();
  expect(await send('447700900001')).toBe(26);
  expect(await send('491710000002')).toBe(26);
  await until(() => south.took.length === 1 && north.took.length === 2, 'one message at each');
  expect(south.took[0]?.to).toBe('447700900001');

  // With a mistake nothing changes.
  writeFileSync(file, `carriers:\n${entry('north', north, ', concurrency: none')}`);
  await running.reload();
  expect(await send('447700900002')).toBe(26);
  await until(() => south.took.length === 2, 'still routed to south');

  // New credentials; and a country without a route any more.
  writeFileSync(
    file,
    `carriers:\n${entry('north', north, ', username: me, password: new')}routes:\n  - {to: 49, carriers: [north]}\n`,
  );
  await running.reload();
  expect(await send('491710000003')).toBe(26);
  expect(await send('447700900003')).toBe(19);
  await until(() => north.took.length === 3, 'a message with the new password');
  expect(north.took.map(({ auth }) => auth)).toEqual(['', '', 'me:new']);
  expect(south.took).toHaveLength(2);
});

it('a message whose carrier is gone waits visibly, and leaves when it is back', async () => {
  const all = `carriers:\n${entry('north', north)}${entry('south', south)}routes:\n  - {to: 44, carriers: [south]}\n`;
  writeFileSync(file, all);
  await running.reload();
  const before = south.took.length;
  // Its time comes only when its carrier has gone, however long that takes here.
  const sendAt = new Date(Date.now() + 3_600_000).toISOString();
  const { messageId } = await sent('447700900009', { schedule: { bulkId: 'left', sendAt } });
  writeFileSync(file, `carriers:\n${entry('north', north)}`);
  await running.reload();
  const story = (await (
    await fetch(`${running.url}/mms/2/messages/${messageId}`, { headers: headersOf() })
  ).json()) as {
    waiting: { why: string };
  };
  expect(story.waiting.why).toContain('its carrier south is not configured any more');
  const moved = await fetch(`${running.url}/mms/2/bulks?bulkId=left`, {
    method: 'PUT',
    headers: headersOf(),
    body: JSON.stringify({ sendAt: new Date().toISOString() }),
  });
  expect(moved.status).toBe(200);
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  expect(south.took).toHaveLength(before);
  writeFileSync(file, all);
  await running.reload();
  await until(() => south.took.length === before + 1, 'the message that waited');
});
