/**
 * The SMS failover, end to end, over real sockets and files: HTTP in, MM7 to the sandbox's MMSC that refuses, SMPP to its SMSC,
 * the receipt back, one final report out.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { ADMIN, headersOf, onHandset, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-failover-'));
let running: Running;
let customer: Peer;
interface Report {
  messageId: string;
  to: string;
  sender: string;
  status: { id: number };
  error: { id: number };
  messageCount: number;
  channel?: string;
}

beforeAll(async () => {
  customer = await openPeer();
  running = await startFrom(sourcesIn(dir, { POSTCARD_ADMIN_KEY: ADMIN }));
});

afterAll(async () => {
  await running?.stop();
  customer?.close();
  rmSync(dir, { recursive: true, force: true });
});

function api(path: string, body?: unknown): Promise<Response> {
  return fetch(`${running.url}${path}`, {
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    headers: headersOf(),
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
        webhooks: { delivery: { url: customer.url, intermediateReport } },
      },
    ],
  });
  expect(response.status).toBe(200);
  return ((await response.json()) as { messages: { messageId: string }[] }).messages.map(({ messageId }) => messageId);
}

const reports = (id: string): Report[] => customer.results<Report>().filter((report) => report.messageId === id);
const final = (id: string): Promise<Report> =>
  until(() => reports(id).find((one) => ![3, 7].includes(one.status.id) && !isMms(one)), `the final report of ${id}`);
/** The refusal of a handset without MMS. */
const isMms = ({ status, error }: Report): boolean => status.id === 4 && error.id === 15019;
const inbox = (number: string) => onHandset(running, number);

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
    expect(reports(id)).toHaveLength(1);
  });

  it('tells the refusal of the MMS between, where that is asked for', async () => {
    const [id] = (await send(['441134979911'], { smsFailover: { text: 'short' } }, true)) as [string];
    await final(id);
    expect(reports(id).map((one) => [one.status.id, one.channel])).toEqual([
      [7, undefined],
      [4, undefined],
      [7, 'SMS'],
      [3, 'SMS'],
      [5, 'SMS'],
    ]);
  });

  it('gets nothing where no SMS is asked for', async () => {
    const to = '441134989911';
    const [id] = (await send([to], {})) as [string];
    const report = await until(() => reports(id)[0], 'its report');
    expect([report.status.id, report.error.id, report.channel]).toEqual([4, 15019, undefined]);
    expect(await inbox(to)).toEqual([]);
  });
});

it('the operator sends what waits for one carrier to another', async () => {
  const ask = (body: object): Promise<Response> =>
    fetch(`${running.url}/admin/1/reroute`, {
      method: 'POST',
      body: JSON.stringify(body),
      headers: headersOf(ADMIN),
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
    const finals = await Promise.all(ids.map(final));
    expect(finals.map(({ status, channel }) => [status.id, channel])).toEqual([
      [5, undefined],
      // The sandbox's SMSC treats these numbers as its MMSC does.
      [9, 'SMS'],
      [15, 'SMS'],
    ]);
    expect((await inbox('441134960001')).map(({ channel }) => channel)).toEqual(['MMS']);
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
