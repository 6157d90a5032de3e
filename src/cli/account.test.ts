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

describe('what an account may', () => {
  it('is set on the command line, each thing alone, and taken away with none', async () => {
    await type('account', 'add', 'terms');
    const shown = async () => JSON.parse((await type('account', 'show', 'terms', '-o', 'json')).out)[0];
    const set = async (...args: string[]) => {
      const said = await type('account', 'set', 'terms', ...args);
      expect([args, said.code, said.err]).toEqual([args, 0, '']);
      return said.out;
    };
    expect(await set('--messages-per-day', '500', '--spend', '20.5/month', '--flooding', 'on')).toMatch(
      /messagesPerDay=500 spend=\{"amount":20.5,"per":"MONTH"\} flooding=true/,
    );
    await set('--requests-per-minute', '60', '--logs-per-minute', 'none', '--registered-only', 'on', '--entity', 'e');
    expect(await shown()).toMatchObject({
      registeredOnly: true,
      entity: 'e',
      limits: {
        ...{ requestsPerMinute: 60, logsPerMinute: null, messagesPerDay: 500, flooding: true },
        spend: { amount: 20.5, per: 'MONTH' },
      },
    });
    await set('--spend', 'none', '--entity', 'none', '--flooding', 'off', '--name', 'terms 2');
    expect((await type('account', 'set', 'terms 2', '--name', 'terms')).code).toBe(0);
    expect(await shown()).toMatchObject({
      entity: null,
      limits: { spend: null, flooding: false, messagesPerDay: 500 },
    });
    for (const [args, words] of [
      [['--spend', '20/YEAR'], 'per DAY, MONTH or TOTAL'],
      [['--messages-per-day', '0'], 'at least 1, or none'],
      [[], 'name a setting'],
      [['--currency', 'euro'], 'three capital letters'],
    ] as const) {
      const said = await type('account', 'set', 'terms', ...args);
      expect([args, said.code === 0, said.err.includes(words)]).toEqual([args, false, true]);
    }
  });

  it('has a prepaid credit that is topped up, and no other limit by mistake', async () => {
    await type('account', 'add', 'prepaid');
    expect((await type('account', 'credit', 'prepaid', '100')).out).toContain('{"amount":100,"per":"TOTAL"}');
    expect((await type('account', 'credit', 'prepaid', '0.25')).out).toContain('{"amount":100.25,"per":"TOTAL"}');
    await type('account', 'set', 'prepaid', '--spend', '5/DAY');
    const said = await type('account', 'credit', 'prepaid', '10');
    expect([said.code, said.err.includes('it may spend 5 per DAY')]).toEqual([1, true]);
  });

  it('has prices and blocks, each set and taken away alone, blocks also for all accounts', async () => {
    await type('account', 'add', 'priced');
    const prices = async () => JSON.parse((await type('account', 'prices', 'priced', '-o', 'json')).out);
    await type('account', 'price', 'priced', 'all', '0.2');
    await type('account', 'price', 'priced', '+41', '0.1');
    await type('account', 'price', 'priced', '41', '0.04', '--channel', 'SMS');
    await type('account', 'price', 'priced', '41', '0.07');
    expect(await prices()).toEqual([
      { prefix: '', channel: 'MMS', price: 0.2 },
      { prefix: '41', channel: 'SMS', price: 0.04 },
      { prefix: '41', channel: 'MMS', price: 0.07 },
    ]);
    expect((await type('account', 'price', 'priced', '41', 'none', '--channel', 'SMS')).code).toBe(0);
    expect(await prices()).toHaveLength(2);
    for (const nothing of ['', '+', '00']) {
      expect((await type('account', 'price', 'priced', nothing, '9')).err).toContain('the prefix is empty');
    }
    expect(await prices()).toHaveLength(2);
    expect((await type('account', 'price', 'priced', '41', 'none', '--channel', 'SMS')).err).toContain(
      'no price for 41',
    );
    for (const account of ['priced', 'all']) {
      expect((await type('account', 'block', account, 'destination', '+4490*')).out).toMatch(/DESTINATION +4490\*/);
      expect((await type('account', 'blocks', account)).out).toContain('4490*');
      expect((await type('account', 'unblock', account, 'destination', '4490*')).out).toBe('removed\n');
      expect((await type('account', 'unblock', account, 'destination', '4490*')).code).toBe(1);
      expect((await type('account', 'blocks', account)).out).toBe('none\n');
    }
  });

  it('tells what there is to whoever asks for a scope that there is not', async () => {
    await type('account', 'add', 'scoped');
    for (const args of [
      ['key', 'add', 'scoped', '--label', 'x', '--scope', 'foo'],
      ['login', 'add', 'scoped', 'somebody', '--scope', 'foo'],
    ]) {
      const said = await type(...args);
      expect([said.code, said.out]).toEqual([1, '']);
      expect(said.err).toContain('must be one of message:send, mms:message:send, mms:manage');
    }
    expect((await type('key', 'add', '--help')).out.replaceAll(/\s+/g, ' ')).toContain('mms:inbound-message:read');
  });
});
