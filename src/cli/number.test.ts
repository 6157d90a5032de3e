/** `number` against a real server's operator's door. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type OpenDoor, openDoor } from '../../test/api/door.ts';
import { run } from './postcard.ts';

const ADMIN_KEY = 'operator-key-0123456789';
let door: OpenDoor;
let closed: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY } });
  closed = await openDoor();
});
afterAll(async () => {
  await door?.close();
  await closed?.close();
});

async function type(at: OpenDoor, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: '', err: '' };
  const code = await run(['number', ...args, '--url', at.url, '--admin-key', ADMIN_KEY], {
    out(text) {
      said.out += text;
    },
    err(text) {
      said.err += text;
    },
    env: {},
    cwd: '/',
    tty: false,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
    stop: new AbortController().signal,
  });
  return { code, ...said };
}

it('sets, lists and forgets numbers', async () => {
  expect((await type(door, 'list')).out).toContain('no numbers');
  expect(await type(door, 'set', '+441134960000', '--account', '2', '--pull', '--entity', 'e1')).toMatchObject({
    code: 0,
    err: '',
  });
  const set = await type(door, 'set', '25256', '--account', '1', '--to', 'https://a.example/in', '-o', 'json');
  expect(JSON.parse(set.out)).toEqual([
    {
      ...{ number: '25256', account: 1, url: 'https://a.example/in', pull: false },
      ...{ entityId: null, applicationId: null, callbackData: null },
    },
  ]);
  const { out } = await type(door, 'list');
  expect(out.split('\n').map((line) => line.split(/ {2,}/).map((cell) => cell.trim()))).toEqual([
    ['NUMBER', 'ACCOUNT', 'GOES TO', 'ENTITY', 'APPLICATION', 'CALLBACK DATA'],
    ['25256', '1', 'https://a.example/in', '-', '-', '-'],
    ['441134960000', '2', 'inbox only', 'e1', '-', '-'],
    [''],
  ]);
  expect((await type(door, 'list', '--account', '2')).out).not.toContain('25256');
  expect(await type(door, 'rm', '+441134960000')).toEqual({ code: 0, out: 'forgotten\n', err: '' });
  expect((await type(door, 'list')).out).not.toContain('441134960000');
});

it('says what is wrong, a line each', async () => {
  expect(await type(door, 'rm', '12345')).toMatchObject({
    code: 1,
    err: expect.stringContaining('no number 12345 on '),
  });
  expect(await type(door, 'set', 'shop', '--account', '1')).toMatchObject({
    ...{ code: 1, err: 'postcard: number: must be 3 to 15 digits, with or without +\n' },
  });
  expect((await type(door, 'set', '12345', '--account', 'nobody')).err).toContain('or no account nobody');
  expect((await type(closed, 'list')).err).toContain("has no operator's door (POSTCARD_ADMIN_KEY)");
});
