/** `account`, `key`, `login`, `sender` and `domain` against a real server's operator's door. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type OpenDoor, openDoor } from '../../test/api/door.ts';
import { run } from './postcard.ts';
import type { Io } from './terminal.ts';

const ADMIN_KEY = 'operator-key-0123456789';
let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ now: Date.now, settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY } });
});
afterAll(() => door?.close());

const FILES: Record<string, string> = {};
async function type(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: '', err: '' };
  const io: Io = {
    out: (text) => {
      said.out += text;
    },
    err: (text) => {
      said.err += text;
    },
    env: {},
    cwd: '/',
    tty: false,
    readFile: (path) => {
      const text = FILES[path];
      if (text === undefined) throw Object.assign(new Error('no file'), { code: 'ENOENT' });
      return Buffer.from(text);
    },
    stop: new AbortController().signal,
  };
  const own = args.includes('--admin-key') ? [] : ['--admin-key', ADMIN_KEY];
  const code = await run([...args, '--url', door.url, ...own], io);
  return { code, ...said };
}
const opens = async (authorization: string) =>
  (await door.ask('/mms/2/reports', { headers: { authorization } })).status === 200;
const shown = (out: string): string => / shown only now: (\S+)/.exec(out)?.[1] ?? '';

describe('postcard account', () => {
  it('adds one with a key that opens the door, lists, shows, revokes and restores it', async () => {
    const made = await type('account', 'add', 'shop');
    expect([made.code, made.err]).toEqual([0, '']);
    const key = shown(made.out);
    expect(await opens(`App ${key}`)).toBe(true);
    expect((await type('account', 'list')).out).toMatch(/shop +ACTIVE +EUR/);
    expect((await type('account', 'list', '-o', 'json')).out).not.toContain(key);
    expect((await type('account', 'show', 'shop')).out).toContain('"logsPerMinute": 120');
    expect((await type('account', 'revoke', 'shop')).out).toContain('SUSPENDED');
    expect(await opens(`App ${key}`)).toBe(false);
    await type('account', 'restore', 'shop');
    expect(await opens(`App ${key}`)).toBe(true);
  });

  it('says in one line what is wrong', async () => {
    for (const [args, words] of [
      [['account', 'show', 'nobody'], 'no such account'],
      [['account', 'add', '17'], 'must not be a number'],
      [['account', 'apply', 'missing.yaml'], 'cannot read missing.yaml (ENOENT)'],
      [['key', 'revoke', 'shop', 'nothing'], 'no such account with that key'],
      [['sender', 'rm', 'shop', 'Nobody'], 'no such account with that sender'],
    ] as const) {
      const said = await type(...args);
      expect([args.join(' '), said.code, said.out]).toEqual([args.join(' '), 1, '']);
      expect(said.err).toContain(words);
    }
  });

  it("names the operator's key, not the customer's, when that is the wrong one", async () => {
    const said = await type('account', 'list', '--admin-key', 'wrong');
    expect([said.code, said.out]).toEqual([1, '']);
    expect(said.err).toContain("does not know this operator's key (401); give the right one with --admin-key or");
  });

  it('applies a file, twice to the same effect', async () => {
    FILES['accounts.yaml'] = [
      'accounts:',
      '  - name: bank',
      '    currency: CHF',
      '    limits: { messagesPerDay: 1000, spend: { amount: 50, per: MONTH } }',
      '    senders: [Bank, "441134960000"]',
      '    domains: [go.bank.example]',
      '    keys: [{ label: batch, scopes: [mms:message:send] }]',
    ].join('\n');
    const first = await type('account', 'apply', 'accounts.yaml');
    expect([first.code, first.err]).toEqual([0, '']);
    expect(first.out).toMatch(/^key batch of bank, shown only now: [0-9a-f]{64}\n5 changed\n$/);
    expect(await opens(`App ${shown(first.out)}`)).toBe(true);
    expect((await type('account', 'apply', 'accounts.yaml')).out).toBe('nothing to change\n');
    FILES['wrong.yaml'] = 'accounts: [{ name: bank, limits: { messagesPerDy: 1 } }]';
    expect((await type('account', 'apply', 'wrong.yaml')).code).toBe(1);
    FILES['no.yaml'] = 'a: [';
    expect((await type('account', 'apply', 'no.yaml')).err).toContain('is not YAML');
  });
});

describe('keys, logins, senders and domains', () => {
  it('are added, listed and taken away', async () => {
    const made = await type('key', 'add', 'shop', '--label', 'till', '--scope', 'mms:manage', '--per-minute', '5');
    const key = shown(made.out);
    const id = /key (\S+),/.exec(made.out)?.[1] as string;
    expect(await opens(`App ${key}`)).toBe(true);
    expect((await type('key', 'list', 'shop')).out).toContain('till');
    expect((await type('key', 'revoke', 'shop', id)).code).toBe(0);
    expect(await opens(`App ${key}`)).toBe(false);

    const password = shown((await type('login', 'add', 'shop', 'anna')).out);
    const basic = `Basic ${Buffer.from(`anna:${password}`).toString('base64')}`;
    expect(await opens(basic)).toBe(true);
    FILES.secret = 'from a file 123\n';
    expect((await type('login', 'add', 'shop', 'anna', '--password-file', 'secret')).out).toBe('set\n');
    expect(await opens(basic)).toBe(false);
    expect(await opens(`Basic ${Buffer.from('anna:from a file 123').toString('base64')}`)).toBe(true);
    expect((await type('login', 'rm', 'shop', 'anna')).out).toBe('removed\n');

    await type('sender', 'add', 'shop', '+441134960000');
    expect((await type('sender', 'list', 'shop')).out).toContain('441134960000');
    expect((await type('sender', 'rm', 'shop', '441134960000')).out).toBe('removed\n');
    expect((await type('sender', 'list', 'shop')).out).toBe('none\n');
    await type('domain', 'add', 'shop', 'Go.Shop.example');
    expect((await type('domain', 'list', 'shop')).out).toContain('go.shop.example');
    expect((await type('domain', 'rm', 'shop', 'go.shop.example')).out).toBe('removed\n');
  });
});
