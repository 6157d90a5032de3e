/** Messages from handsets over real HTTP on a real store: the pull, the parts behind their URLs, and opt-outs. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addedAnswer, inboxAnswer, olderErrorAnswer, optOutsAnswer, removedAnswer } from '../../src/api/answers.ts';
import { OPT_OUT_WORDS } from '../../src/domain/optout.ts';
import type { CarrierInbound } from '../../src/domain/submission.ts';
import { testEnv } from '../../src/env.ts';
import { createInboundIntake, type TakeInbound } from '../../src/webhooks/inbound.ts';
import { setNumber } from '../conformance/desk.ts';
import { type Given, type OpenDoor, OTHER_KEY, openDoor } from './door.ts';

let door: OpenDoor;
let take: TakeInbound;
let now = Date.now();
beforeAll(async () => {
  door = await openDoor({ now: () => now });
  take = createInboundIntake({ store: door.store, ids: door.ids, words: OPT_OUT_WORDS, log: testEnv().log });
});
afterAll(async () => {
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

const OTHER = { authorization: `App ${OTHER_KEY}` };
const INBOX = '/mms/1/inbox/reports';
const OPT_OUTS = '/mms/1/optouts';
const OURS = '441134960000';
const HANDSET = '441134960001';

function read<T>(given: Given, status: number, schema: { parse(value: unknown): T }): T {
  expect(given.status, given.body).toBe(status);
  return schema.parse(JSON.parse(given.body));
}
const wrong = (given: Given, status: number) =>
  read(given, status, olderErrorAnswer).requestError.serviceException.text;
let count = 0;
const bring = (more: Partial<CarrierInbound> = {}) =>
  take({
    carrier: 'mmsc',
    channel: 'MMS',
    id: `mo-${++count}`,
    from: HANDSET,
    to: [OURS],
    cc: [],
    parts: [
      { contentId: 'content0', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('Sample text') },
      { contentId: 'pic', contentType: 'image/png', bytes: Uint8Array.of(137, 80, 78, 71) },
    ],
    ...more,
  });
const json = (body: unknown) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body),
});
async function send(sender: string, ...to: string[]): Promise<string[]> {
  const given = await door.send({
    messages: [
      {
        sender,
        destinations: to.map((one) => ({ to: one })),
        content: { messageSegments: [{ type: 'TEXT', text: 'hi' }] },
      },
    ],
  });
  const { messages } = JSON.parse(given.body) as { messages: { status: { name: string } }[] };
  return messages.map(({ status }) => status.name);
}

describe('GET /mms/1/inbox/reports', () => {
  it('gives each message once, in the published form, only to its account', async () => {
    await setNumber(door.store, {
      number: '25256',
      account: 2,
      url: null,
      entity: 'e',
      application: 'a',
      callbackData: 'Some custom data',
    });
    const { id } = await bring({ to: ['25256'], cc: ['41793026888'], subject: 'Hello' });
    expect(read(await door.ask(INBOX), 200, inboxAnswer).results).toEqual([]);
    const given = await door.ask(`${INBOX}?limit=5&applicationId=a&entityId=e`, { headers: OTHER });
    const [item] = read(given, 200, inboxAnswer).results;
    expect(item).toMatchObject({
      messageId: id,
      to: '25256',
      from: HANDSET,
      group: [{ to: '25256' }, { cc: '41793026888' }],
      mmsCount: 1,
      callbackData: 'Some custom data',
      price: { pricePerMessage: 0 },
      applicationId: 'a',
      entityId: 'e',
    });
    const { mms_parts: parts, subject } = JSON.parse(item?.message as string);
    expect(subject).toBe('Hello');
    expect(parts).toMatchObject([
      { origin: 'text', contentType: 'text/plain; charset=utf-8', contentId: 'content0', value: 'Sample text' },
      { origin: 'url', contentType: 'image/png', contentId: 'pic' },
    ]);
    expect(read(await door.ask(INBOX, { headers: OTHER }), 200, inboxAnswer).results).toEqual([]);
  });

  it('refuses in the older form', async () => {
    expect((await fetch(door.url + INBOX)).status).toBe(401);
    expect(wrong(await door.ask(`${INBOX}?limit=x`), 400)).toBe('Bad request: limit must be a integer');
    expect((await door.ask(INBOX, { method: 'POST' })).headers.get('allow')).toBe('GET');
  });
});

describe('a part by its URL', () => {
  it('needs no key, is a download that no browser runs, and ends with its time', async () => {
    await bring();
    const [item] = read(await door.ask(INBOX), 200, inboxAnswer).results;
    const { url } = JSON.parse(item?.message as string).mms_parts[1];
    const path = new URL(url).pathname;
    const given = await fetch(door.url + path);
    expect(given.status).toBe(200);
    expect(Object.fromEntries(given.headers)).toMatchObject({
      'content-type': 'image/png',
      'content-disposition': 'attachment',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "default-src 'none'; sandbox",
    });
    expect(new Uint8Array(await given.arrayBuffer())).toEqual(Uint8Array.of(137, 80, 78, 71));
    const asked = await fetch(door.url + path, { method: 'HEAD' });
    expect([asked.status, asked.headers.get('content-length'), await asked.text()]).toEqual([200, '4', '']);
    expect((await fetch(door.url + path, { method: 'POST' })).headers.get('allow')).toBe('GET, HEAD');
    expect((await fetch(`${door.url}${path}x`)).status).toBe(404);
    expect((await fetch(`${door.url}/mms/1/inbox/content/${'A'.repeat(42)}`)).status).toBe(404);
    now += 8 * 86_400_000;
    expect(wrong(await door.ask(path), 404)).toBe('Not found');
    now = Date.now();
  });
});

describe('opt-outs', () => {
  it('made by a handset or by the list, show in the answer to a send, and are lifted', async () => {
    await bring({ parts: [{ contentId: 't', contentType: 'text/plain', bytes: Buffer.from('STOP') }] });
    expect(await send(`+${OURS}`, HANDSET, '41793026727')).toEqual(['REJECTED_DND', 'PENDING_ACCEPTED']);
    const added = await door.ask(
      OPT_OUTS,
      json({ optOuts: [{ destination: '+41793026727' }, { sender: 'Shop', destination: '41793026728' }] }),
    );
    expect(read(added, 200, addedAnswer)).toEqual({ added: 2 });
    expect(await send('Shop', HANDSET, '41793026727', '0041793026728')).toEqual([
      'PENDING_ACCEPTED',
      'REJECTED_DESTINATION_BLOCKLISTED',
      'REJECTED_DND',
    ]);
    const { results } = read(await door.ask(OPT_OUTS), 200, optOutsAnswer);
    expect(results.map(({ sender, destination, source }) => [sender, destination, source])).toEqual([
      ['*', '41793026727', 'LIST'],
      ['shop', '41793026728', 'LIST'],
      [OURS, HANDSET, 'HANDSET'],
    ]);
    const page = read(await door.ask(`${OPT_OUTS}?limit=2`), 200, optOutsAnswer);
    const rest = read(await door.ask(`${OPT_OUTS}?limit=2&cursor=${page.cursor.nextCursor}`), 200, optOutsAnswer);
    expect([page.results.length, rest.results.length, rest.cursor.nextCursor]).toEqual([2, 1, undefined]);
    expect(read(await door.ask(`${OPT_OUTS}?sender=*`), 200, optOutsAnswer).results).toHaveLength(1);
    expect(read(await door.ask(OPT_OUTS, { headers: OTHER }), 200, optOutsAnswer).results).toEqual([]);
    const lift = (query: string) => door.ask(`${OPT_OUTS}?${query}`, { method: 'DELETE' });
    expect(read(await lift('destination=41793026727'), 200, removedAnswer)).toEqual({ removed: 1 });
    expect(read(await lift('destination=%2B41793026728&sender=SHOP'), 200, removedAnswer)).toEqual({ removed: 1 });
    expect((await lift('destination=41793026728&sender=SHOP')).status).toBe(404);
    await bring({ parts: [{ contentId: 't', contentType: 'text/plain', bytes: Buffer.from('Start') }] });
    expect(await send(OURS, HANDSET, '41793026727')).toEqual(['PENDING_ACCEPTED', 'PENDING_ACCEPTED']);
  });

  it('says what is wrong, in the older form', async () => {
    expect(wrong(await door.ask(OPT_OUTS, json({ optOuts: [{ destination: 'nobody' }] })), 400)).toBe(
      'Bad request: optOuts[0].destination must be a phone number',
    );
    expect(wrong(await door.ask(OPT_OUTS, json({ optOuts: [] })), 400)).toContain('must not be empty');
    expect(wrong(await door.ask(OPT_OUTS, json({})), 400)).toContain('optOuts');
    expect(wrong(await door.ask(`${OPT_OUTS}?cursor=x`), 400)).toContain('cursor');
    expect((await door.ask(OPT_OUTS, { method: 'DELETE' })).status).toBe(400);
  });
});
