/**
 * The main job, end to end, over real sockets and files: HTTP in, SQLite, MM7 to the sandbox, its reports back, webhooks out.
 * The final status of each of the sandbox's behaviours is the contract between the two.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { headersOf, onHandset, openPeer, type Peer, sourcesIn, startFrom, until } from './stand.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-e2e-'));
let running: Running;
let customer: Peer;
interface Report {
  messageId: string;
  to: string;
  bulkId: string;
  status: { id: number; name: string; groupName: string };
  error: { id: number; name: string; permanent: boolean };
  callbackData?: string;
}

beforeAll(async () => {
  customer = await openPeer();
  running = await startFrom(sourcesIn(dir));
});

afterAll(async () => {
  await running?.stop();
  customer?.close();
  rmSync(dir, { recursive: true, force: true });
});

function api(path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${running.url}${path}`, { ...init, headers: { ...headersOf(), ...init.headers } });
}

interface Sent {
  bulkId: string;
  messages: { messageId: string; destination: string; status: { id: number } }[];
}

async function send(message: object, options?: object): Promise<Sent> {
  const answer = await api('/mms/2/messages', {
    method: 'POST',
    body: JSON.stringify({ messages: [message], ...(options ? { options } : {}) }),
  });
  expect(answer.status).toBe(200);
  return (await answer.json()) as Sent;
}

const text = (words: string): object => ({ messageSegments: [{ type: 'TEXT', text: words }] });

const delivery = () => ({ delivery: { url: customer.url } });
const reports = (id: string): Report[] => customer.results<Report>().filter((report) => report.messageId === id);
const reported = (id: string): Promise<Report> => until(() => reports(id)[0], `a report for ${id}`);
const inbox = (number: string) => onHandset(running, number);

describe('the main job', () => {
  it('delivers text and a picture to the handset byte for byte, and reports it to the webhook', async () => {
    const picture = Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe0]), Buffer.alloc(20_000, 7)]);
    const upload = await api('/mms/1/content', {
      method: 'POST',
      body: picture,
      headers: { 'x-content-id': 'image_1_jpg', 'x-media-type': 'image/jpeg', 'content-type': 'image/jpeg' },
    });
    expect(upload.status).toBe(200);
    const { uploadedContentId } = (await upload.json()) as { uploadedContentId: string };
    const sent = await send({
      sender: '441134960000',
      destinations: [{ to: '491700000001', messageId: 'my own id' }],
      content: {
        title: 'Grüße & <Küsse> 😀',
        messageSegments: [
          { type: 'TEXT', text: 'Hello ünïcode 😀' },
          { type: 'UPLOADED_REFERENCE', uploadedContentId, contentId: 'picture' },
        ],
      },
      webhooks: { ...delivery(), callbackData: 'order 4711' },
    });
    expect(sent.messages[0]).toMatchObject({ messageId: 'my own id', destination: '491700000001', status: { id: 26 } });
    const report = await reported('my own id');
    expect(report).toMatchObject({ to: '491700000001', bulkId: sent.bulkId, callbackData: 'order 4711' });
    expect(report.status).toMatchObject({ id: 5, name: 'DELIVERED_TO_HANDSET', groupName: 'DELIVERED' });
    expect(report.error).toMatchObject({ id: 0, name: 'NO_ERROR', permanent: false });

    const [message] = await inbox('491700000001');
    expect(message).toMatchObject({ channel: 'MMS', from: '441134960000', to: ['491700000001'] });
    expect(message?.subject).toBe('Grüße & <Küsse> 😀');
    const image = message?.parts.find((part) => part.contentType.startsWith('image/'));
    expect(image).toMatchObject({ contentType: 'image/jpeg', contentId: 'picture', size: picture.length });
    expect(image?.sha256).toBe(createHash('sha256').update(picture).digest('hex'));
    const bytes = Buffer.from(await (await fetch(image?.url ?? '')).arrayBuffer());
    expect(bytes.equals(picture)).toBe(true);
    expect(message?.parts.find((part) => part.contentType.startsWith('text/plain'))?.text).toBe('Hello ünïcode 😀');
  });

  const behaviours: [string, string, number, number, number][] = [
    ['9901', 'address not found at submit', 4, 15009, 0],
    ['9902', 'rejected by the handset', 9, 15011, 0],
    ['9903', 'expired by the carrier', 15, 15006, 0],
    ['9904', 'deferred, then retrieved', 5, 0, 1],
    ['9906', 'busy twice, then fine', 5, 0, 1],
    ['9907', 'connection dropped after the request was read', 5, 0, 1],
    ['9908', 'reports doubled and out of order', 5, 0, 1],
    ['9909', 'slow', 5, 0, 1],
    ['9910', 'garbage answer once', 5, 0, 1],
    ['0000', 'any other', 5, 0, 1],
  ];
  it.concurrent.each(behaviours)(
    'ends …%s (%s) in status %i with error %i',
    async (digits, _what, status, error, copies) => {
      const to = `49171000${digits}`;
      const sent = await send({
        sender: 'Sender',
        destinations: [{ to }],
        content: text(`to ${digits}`),
        webhooks: delivery(),
      });
      const report = await reported(sent.messages[0]?.messageId ?? '');
      expect([report.status.id, report.error.id]).toEqual([status, error]);
      expect(await inbox(to)).toHaveLength(copies);
    },
  );

  it('shows a message without any report as 3, and as 29 at the end of its validity', async () => {
    const sent = await send({
      sender: 'Sender',
      destinations: [{ to: '491710009905' }],
      content: text('silence'),
      options: { validityPeriod: { amount: 4, timeUnit: 'SECONDS' } },
      webhooks: { delivery: { url: customer.url, intermediateReport: true } },
    });
    const id = sent.messages[0]?.messageId ?? '';
    expect((await reported(id)).status).toMatchObject({ id: 7, name: 'PENDING_ENROUTE', groupName: 'PENDING' });
    await until(() => reports(id).some((report) => report.status.id === 29), 'status 29');
    expect(reports(id).map((report) => report.status.id)).toEqual([7, 3, 29]);
  });

  it('sends a group as one MMS and gives each member a status and a report', async () => {
    const group = ['491720000001', '491720000002', '491720009902'];
    const sent = await send({
      sender: 'Sender',
      destinations: [{ group: group.map((to) => ({ to })) }],
      content: text('to all'),
      webhooks: delivery(),
    });
    expect(sent.messages.map((message) => message.destination)).toEqual(group);
    const statuses = [];
    for (const message of sent.messages) statuses.push((await reported(message.messageId)).status.id);
    expect(statuses).toEqual([5, 5, 9]);
    expect((await inbox(group[0] as string))[0]?.to).toEqual(group);
  });

  it('refuses a bad destination in its own entry and sends the rest', async () => {
    const sent = await send({
      sender: 'Sender',
      destinations: [{ to: '' }, { to: '0171234567' }, { to: 'abc' }, { to: '+491730000001' }],
      content: text('mixed'),
    });
    expect(sent.messages.map((message) => message.status.id)).toEqual([51, 8, 52, 26]);
    const last = sent.messages[3]?.messageId;
    await until(async () => {
      const { results } = (await (await api(`/mms/2/logs?messageId=${last}`)).json()) as { results: Report[] };
      return results.find((log) => log.status.id === 5);
    }, 'the good one delivered');
  });

  it('hands out each report once to those who pull', async () => {
    const sent = await send({ sender: 'Sender', destinations: [{ to: '491740000001' }], content: text('pull me') });
    const path = `/mms/2/reports?bulkId=${sent.bulkId}`;
    const first = await until(async () => {
      const { results } = (await (await api(path)).json()) as { results: Report[] };
      return results.length > 0 && results;
    }, 'a report to pull');
    expect(first.map((report) => [report.messageId, report.status.id])).toEqual([[sent.messages[0]?.messageId, 5]]);
    expect(((await (await api(path)).json()) as { results: Report[] }).results).toEqual([]);
  });

  it('refuses a repeated messageId with status 23 and sends nothing', async () => {
    const message = {
      sender: 'Sender',
      destinations: [{ to: '491750000001', messageId: 'twice' }],
      content: text('once'),
    };
    expect((await send(message)).messages[0]?.status.id).toBe(26);
    expect((await send(message)).messages[0]?.status.id).toBe(23);
    await until(async () => (await inbox('491750000001')).length > 0, 'the first copy');
    expect(await inbox('491750000001')).toHaveLength(1);
  });

  it('still knows everything after a stop and a start', async () => {
    const before = (await (await api('/mms/2/logs?limit=1000')).json()) as { results: { messageId: string }[] };
    await running.stop();
    running = await startFrom(sourcesIn(dir));
    const after = (await (await api('/mms/2/logs?limit=1000')).json()) as { results: { messageId: string }[] };
    expect(after.results.map((log) => log.messageId)).toEqual(before.results.map((log) => log.messageId));
    expect(await inbox('491700000001')).toHaveLength(1);
  });
});
