/** The operator's numbers over real HTTP on a real store: set, listed, taken away, and what that does to a handset's message. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { z } from 'zod';
import { numberAnswer } from '../../src/api/numbers.ts';
import type { InboundIn } from '../../src/domain/rows.ts';
import { type Given, type OpenDoor, openDoor } from './door.ts';
import { URL as NOT_A_URL } from './send.table.ts';

const ADMIN_KEY = 'operator-key-0123456789';
let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY } });
});
afterAll(async () => {
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

const operator = (method: string, path: string, body?: object): Promise<Given> =>
  door.ask(`/admin/1/${path}`, {
    method,
    headers: { authorization: `App ${ADMIN_KEY}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
function read<T>(given: Given, schema: { parse(value: unknown): T }): T {
  expect(given.status, given.body).toBe(200);
  return schema.parse(JSON.parse(given.body));
}
const list = async (path = 'numbers') =>
  read(await operator('GET', path), z.strictObject({ results: z.array(numberAnswer) })).results;
const wrong = async (path: string, body: object): Promise<unknown> => {
  const given = await operator('POST', path, body);
  expect(given.status, given.body).toBe(400);
  return JSON.parse(given.body).violations;
};
let count = 0;
async function handsetSends(to: string) {
  const no = await door.store.reserve(1);
  const message: InboundIn = {
    ...{ no, carrier: 'mmsc', id: `in-${++count}`, channel: 'MMS', from: '447700900001', to: [to], cc: [] },
    ...{ subject: 'Hello', parts: [], answers: null, asks: null },
  };
  return door.store.inbound(message);
}

it('are given to an account with where their messages go, changed, listed and taken away', async () => {
  const plain = { url: null, pull: false, entityId: null, applicationId: null, callbackData: null };
  const first = { number: '441134960000', account: 2, ...plain };
  expect(read(await operator('POST', 'accounts/2/numbers', { number: '+441134960000' }), numberAnswer)).toEqual(first);
  const second = {
    ...{ number: '25256', account: 1, url: 'https://a.example/in', pull: false, entityId: 'e' },
    ...{ applicationId: 'a', callbackData: 'shop 7' },
  };
  const { account: _, ...body } = second;
  expect(read(await operator('POST', 'accounts/1/numbers', body), numberAnswer)).toEqual(second);
  expect(await list()).toEqual([second, first].sort((a, b) => (a.number < b.number ? -1 : 1)));
  expect(await list('accounts/2/numbers')).toEqual([first]);

  expect(await handsetSends('441134960000')).toMatchObject({ kind: 'stored', account: 2, owned: true });
  const inbox = { ...first, pull: true };
  expect(
    read(await operator('POST', 'accounts/2/numbers', { number: '441134960000', pull: true }), numberAnswer),
  ).toEqual(inbox);

  expect((await operator('DELETE', 'accounts/1/numbers/441134960000')).status).toBe(404);
  const removed = z.strictObject({ removed: z.literal(1) });
  read(await operator('DELETE', 'accounts/2/numbers/%2B441134960000'), removed);
  expect((await operator('DELETE', 'accounts/2/numbers/441134960000')).status).toBe(404);
  expect(await handsetSends('441134960000')).toMatchObject({ kind: 'stored', account: 1, owned: false });
  expect(await list()).toEqual([second]);
});

it('are not taken from another account, and nothing of it is changed', async () => {
  read(await operator('POST', 'accounts/1/numbers', { number: '441134960009' }), numberAnswer);
  const given = await operator('POST', 'accounts/2/numbers', { number: '441134960009', pull: true });
  expect(given.status).toBe(409);
  expect(JSON.parse(given.body).violations).toEqual([{ property: 'number', violation: 'is taken by another account' }]);
  expect((await list()).find(({ number }) => number === '441134960009')).toMatchObject({ account: 1, pull: false });
});

it('are refused where they are none, or have an address that is none', async () => {
  const path = 'accounts/1/numbers';
  expect(await wrong(path, { number: 'Postcard' })).toEqual([
    { property: 'number', violation: 'must be 3 to 15 digits, with or without +' },
  ]);
  expect(await wrong(path, { number: '12345', url: 'ftp://a.example' })).toEqual([
    { property: 'url', violation: NOT_A_URL },
  ]);
  expect(await wrong(path, { number: '12345', url: 'https://a.example', pull: true })).toEqual([
    { property: '', violation: 'has a url, or pull, not both' },
  ]);
  expect(await wrong(path, { number: '12345', ulr: 'https://a.example' })).toHaveLength(1);
  expect((await operator('POST', 'accounts/77/numbers', { number: '12345' })).status).toBe(404);
});

it('leave a line in the audit log for each change', async () => {
  read(await operator('POST', 'accounts/1/numbers', { number: '77777' }), numberAnswer);
  read(await operator('DELETE', 'accounts/1/numbers/77777'), z.object({ removed: z.literal(1) }));
  const { results } = JSON.parse((await operator('GET', 'audit?limit=2')).body) as { results: object[] };
  expect(results).toMatchObject([
    { action: 'number removed', account: 1, detail: { number: '77777' } },
    { action: 'number set', account: 1, detail: { number: '77777', url: null, pull: false } },
  ]);
});

it('are nothing for customers', async () => {
  expect((await door.ask('/admin/1/numbers')).status).toBe(401);
});
