/** The search words of the logs and of the event stream, over real HTTP on a real store. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { logsAnswer } from '../../src/api/answers.ts';
import { type OpenDoor, openDoor } from './door.ts';

let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ now: () => Date.now() });
  const send = async (to: string, sender: string, campaignReferenceId: string, bulkId: string): Promise<void> => {
    const content = { messageSegments: [{ type: 'TEXT', text: 'x' }] };
    const messages = [{ sender, destinations: [{ to }], content, options: { campaignReferenceId } }];
    expect((await door.send({ messages, options: { schedule: { bulkId } } })).status).toBe(200);
  };
  await send('41790000001', 'Postcard', 'spring sale', 'b1');
  await send('41790000002', 'Postcard', 'autumn', 'b1');
  await door.submit((to) => ({ kind: 'refused', error: { id: 15009, words: `no ${to}` } }));
  await send('41790000003', '+441134960000', 'spring sale', 'b2');
  await send('nobody', 'Postcard', 'spring sale', 'b2');
});
afterAll(async () => {
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

async function found(search: string, more = ''): Promise<string[]> {
  const given = await door.ask(`/mms/2/logs?search=${encodeURIComponent(search)}${more}`);
  expect(given.status, given.body).toBe(200);
  return logsAnswer.parse(JSON.parse(given.body)).results.map(({ destination }) => destination);
}
async function wrong(search: string, more = ''): Promise<unknown> {
  const given = await door.ask(`/mms/2/logs?search=${encodeURIComponent(search)}${more}`);
  expect(given.status).toBe(400);
  return JSON.parse(given.body).violations;
}

it.each([
  ['', ['nobody', '41790000003', '41790000002', '41790000001']],
  ['to:+41790000001', ['41790000001']],
  ['to:nobody', ['nobody']],
  ['from:Postcard', ['nobody', '41790000002', '41790000001']],
  ['from:+441134960000', ['41790000003']],
  ['campaign:"spring sale"', ['nobody', '41790000003', '41790000001']],
  ['campaign:"spring sale" from:Postcard', ['nobody', '41790000001']],
  ['bulk:b1', ['41790000002', '41790000001']],
  ['status:rejected', ['nobody']],
  ['status:undeliverable bulk:b1', ['41790000002', '41790000001']],
  ['status:4', ['41790000002', '41790000001']],
  ['status:PENDING_ACCEPTED', ['41790000003']],
  ['status:delivered_to_handset', []],
  ['after:1h', ['nobody', '41790000003', '41790000002', '41790000001']],
  ['before:1h', []],
])('GET logs finds by %j', async (search, to) => {
  expect(await found(search)).toEqual(to);
});

it('pages by cursor through what a search leaves', async () => {
  const query = `/mms/2/logs?search=${encodeURIComponent('status:undeliverable')}&limit=1&useCursor=true`;
  const first = logsAnswer.parse(JSON.parse((await door.ask(query)).body));
  expect(first.results.map(({ destination }) => destination)).toEqual(['41790000002']);
  const next = logsAnswer.parse(JSON.parse((await door.ask(`${query}&cursor=${first.cursor?.nextCursor}`)).body));
  expect(next.results.map(({ destination }) => destination)).toEqual(['41790000001']);
});

it('goes together with other parameters, but never says the same twice', async () => {
  expect(await found('from:Postcard', '&generalStatus=REJECTED')).toEqual(['nobody']);
  expect(await wrong('to:41790000001', '&destination=41790000002')).toEqual([
    { property: 'search', violation: 'says to: beside destination' },
  ]);
  expect(await wrong('status:5', '&generalStatus=PENDING')).toEqual([
    { property: 'search', violation: 'says status: beside generalStatus' },
  ]);
  expect(await wrong('colour:red')).toEqual([
    {
      property: 'search',
      violation: 'has no word colour:; words are to: from: status: bulk: campaign: before: after:',
    },
  ]);
});

it('the event stream tells only what a search finds, resumed too, and says what it does not understand', async () => {
  const path = `/mms/2/events?search=${encodeURIComponent('status:undeliverable to:41790000002')}`;
  const lines = await door.raw(
    `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: App door-key-0123456789abcdef\r\nLast-Event-ID: 0\r\n\r\n`,
    /\nid: \d+\r?\n\r?\n(?!event)/,
  );
  const data = [...lines.matchAll(/^data: (.*)$/gm)].map(([, text]) => JSON.parse(text as string) as { to: string });
  expect(data.map(({ to }) => to)).toEqual(['41790000002']);
  const refused = await door.ask('/mms/2/events?search=colour:red');
  expect([refused.status, JSON.parse(refused.body).violations[0].property]).toEqual([400, 'search']);
});
