/** `account`, `key`, `login`, `sender` and `domain` against a real server's operator's door. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
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
      '    endpoints: [{ kind: DELIVERY, url: https://hooks.example.com/in, default: true }]',
    ].join('\n');
    const differs = [
      '+ account bank: currency EUR -> CHF, limits.messagesPerDay none -> 1000, limits.spend none -> {"amount":50,"per":"MONTH"}',
      '+ sender bank of bank',
      '+ sender 441134960000 of bank',
      '+ domain go.bank.example of bank',
      '+ key batch of bank',
      '+ endpoint DELIVERY https://hooks.example.com/in of bank',
      '',
    ].join('\n');
    const dry = await type('account', 'apply', 'accounts.yaml', '--dry-run');
    expect([dry.code, dry.out]).toEqual([0, `${differs}6 would change; nothing was changed\n`]);
    expect((await type('account', 'show', 'bank')).code).toBe(1);
    const first = await type('account', 'apply', 'accounts.yaml');
    expect([first.code, first.err]).toEqual([0, '']);
    expect(first.out.slice(0, differs.length)).toBe(differs);
    expect(first.out.slice(differs.length)).toMatch(
      /^key batch of bank, shown only now: [0-9a-f]{64}\nsecret of DELIVERY \S+ of bank, shown only now: whsec_\S+\n6 changed\n$/,
    );
    expect(await opens(`App ${shown(first.out)}`)).toBe(true);
    expect((await type('account', 'endpoints', 'bank')).out).toMatch(
      /DELIVERY +https:\/\/hooks.example.com\/in .* yes /,
    );
    expect((await type('account', 'apply', 'accounts.yaml')).out).toBe('nothing to change\n');
    expect((await type('account', 'apply', 'accounts.yaml', '--dry-run')).out).toBe('nothing to change\n');
  });

  it('applies the file of docs/ACCOUNTS.md as it stands there', async () => {
    const page = readFileSync(fileURLToPath(new URL('../../docs/ACCOUNTS.md', import.meta.url)), 'utf8');
    const [, text = ''] = /```yaml\n(accounts:[^`]+)```/.exec(page) ?? [];
    FILES['docs.yaml'] = text;
    const given = await type('account', 'apply', 'docs.yaml', '--dry-run');
    expect([given.code, given.err]).toEqual([0, '']);
    for (const line of [
      '~ account shop: ',
      '+ endpoint DELIVERY ',
      '+ login anna ',
      '+ price MMS 41 ',
      '+ block DESTINATION ',
    ]) {
      expect(given.out).toContain(line);
    }
  });

  it('names line, column and field of what is wrong in a file, whoever found it, and changes nothing', async () => {
    await type('domain', 'add', 'shop', 'held.example');
    for (const [text, said] of [
      [
        'accounts:\n  - name: bank\n    limits:\n      messagesPerDy: 1\n',
        ['wrong.yaml:4:7 accounts[0].limits.messagesPerDy: is not known here'],
      ],
      [
        'accounts:\n  - name: new\n    senders:\n      - New\n      - 441134960000\n    domains: [held.example]\n',
        ['wrong.yaml:5:9 accounts[0].senders[1]: must be a string'],
      ],
      [
        'accounts:\n  - name: new\n    domains: [a.example, held.example]\n',
        ['wrong.yaml:3:26 accounts[0].domains[1]: is taken by another account'],
      ],
      // What is missing is missing in something.
      [
        'accounts:\n  - name: new\n    keys:\n      - scopes: [mms:manage]\n',
        ['wrong.yaml:4:9 accounts[0].keys[0].label: must not be null'],
      ],
      ['accounts:\n  - name: a\n    name: b\n', ['wrong.yaml:3:5 is not YAML: Map keys must be unique']],
      ['a: [', ['wrong.yaml:1:5 is not YAML']],
      ['- a\n', ['wrong.yaml must have a list under "accounts:"']],
      ['account: []\n', ['wrong.yaml:1:1 account: is not known here', 'wrong.yaml accounts: must not be null']],
    ] as const) {
      FILES['wrong.yaml'] = text;
      for (const more of [[], ['--dry-run']]) {
        const given = await type('account', 'apply', 'wrong.yaml', ...more);
        expect([given.code, given.out]).toEqual([1, '']);
        for (const line of said) expect(given.err).toContain(line);
      }
    }
    expect((await type('account', 'show', 'new')).code).toBe(1);
  });
});

describe('the audit log', () => {
  it('tells who did what, the last first, as far as is asked for', async () => {
    await type('account', 'add', 'audited');
    await type('account', 'credit', 'audited', '5', '--once', 'inv-1');
    const given = await type('account', 'audit', '--limit', '2');
    expect([given.code, given.err]).toEqual([0, '']);
    const [head, first, second, ...rest] = given.out.trim().split('\n');
    expect(head).toMatch(/^AT +BY +ACTION +ACCOUNT +DETAIL/);
    expect(first).toMatch(/admin from 127\.0\.0\.1 +credit added +\d+ +\{"amount":5,"key":"inv-1"\}/);
    expect(second).toMatch(/key added .*"label":"first"/);
    expect(rest).toEqual([]);
    expect((await type('account', 'audit', '-o', 'json')).out).not.toMatch(/[0-9a-f]{64}/);
  });
});

describe('endpoints of an account', () => {
  it('are made, changed and forgotten by the operator', async () => {
    const url = 'https://hooks.example.com/shop';
    const set = (...args: string[]) => type('account', 'endpoint', 'shop', url, ...args);
    const made = await set('--default', 'on');
    expect([made.code, made.err]).toEqual([0, '']);
    expect(shown(made.out)).toMatch(/^whsec_/);
    expect((await set('--form', 'xml')).out).toMatch(/application\/xml +yes/);
    expect((await set('--unsigned', '--default', 'off')).out).toMatch(/no +- +no/);
    expect((await set('--kind', 'click', '--form', 'xml')).err).toContain('must be application/json');
    expect((await set('--remove')).out).toBe('removed\n');
    expect((await set('--remove')).code).toBe(1);
    expect((await type('account', 'endpoints', 'shop')).out).toBe('none\n');
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
    const credit = (...args: string[]) => type('account', 'credit', 'prepaid', ...args);
    expect((await credit('100')).out).toBe('100 added: prepaid may spend 100 EUR in TOTAL\n');
    expect((await credit('0.25')).out).toBe('0.25 added: prepaid may spend 100.25 EUR in TOTAL\n');
    expect((await credit('50.25', '--take')).out).toBe('50.25 taken away: prepaid may spend 50 EUR in TOTAL\n');
    expect((await credit('7', '--once', 'invoice-9')).out).toContain('may spend 57');
    expect((await credit('7', '--once', 'invoice-9')).out).toBe(
      '7 was added before: prepaid may spend 57 EUR in TOTAL\n',
    );
    expect((await credit('8', '--once', 'invoice-9')).err).toContain('was used with another body');
    // Two shells at the same time: both are added.
    await Promise.all([credit('1'), credit('2'), credit('3')]);
    expect((await credit('1', '-o', 'json')).out).toContain('"total": 64');
    expect((await type('account', 'usage', 'prepaid')).out).toMatch(/EUR in TOTAL +0 +64 +64/);
    expect((await type('account', 'usage', 'shop')).out).toBe('it has no such limit\n');
    await type('account', 'set', 'prepaid', '--spend', '5/DAY');
    const said = await type('account', 'credit', 'prepaid', '10');
    expect([said.code, said.err.includes('the account has a limit per day or month')]).toEqual([1, true]);
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
