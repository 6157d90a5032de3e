/** Who may come in and what an account may, over real HTTP on a real store: credentials, scopes, the operator's door, limits. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adminAnswers } from '../../src/api/admin-schema.ts';
import { olderErrorAnswer, sendAnswer } from '../../src/api/answers.ts';
import { sessionAnswer, tokenAnswer, tokenErrorAnswer } from '../../src/api/sessions.ts';
import { DEFAULT_SETTINGS } from '../../src/domain/accounts.ts';
import { type Given, KEY, type OpenDoor, openDoor } from './door.ts';
import { NOW } from './send.table.ts';

const ADMIN_KEY = 'operator-key-0123456789';
let door: OpenDoor;
let now = NOW;
beforeAll(async () => {
  door = await openDoor({ now: () => now, settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY } });
});
afterAll(async () => {
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

const as = (authorization: string, path: string, init: RequestInit = {}): Promise<Given> =>
  door.ask(path, { ...init, headers: { ...init.headers, authorization } });
function read<T>(given: Given, status: number, schema: { parse(value: unknown): T }): T {
  expect(given.status, given.body).toBe(status);
  return schema.parse(JSON.parse(given.body));
}
const admin = (method: string, path: string, body?: object, headers: Record<string, string> = {}): Promise<Given> =>
  as(`App ${ADMIN_KEY}`, `/admin/1/${path}`, {
    method,
    headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
let count = 0;
/** An account of its own for each test. */
async function account(settings: object = {}): Promise<{ no: number; name: string; key: string }> {
  const name = `shop ${++count}`;
  const made = read(await admin('POST', 'accounts', { name, ...settings }), 200, adminAnswers.account);
  const { key } = await newKey(made.account);
  return { no: made.account, name, key };
}
async function newKey(no: number, rules: object = {}): Promise<{ id: string; key: string }> {
  const given = read(await admin('POST', `accounts/${no}/keys`, { label: 'tests', ...rules }), 200, adminAnswers.key);
  return { id: given.id, key: given.key as string };
}
const LOGS = '/mms/2/logs';
const status = async (authorization: string, path = LOGS, init: RequestInit = {}) =>
  (await as(authorization, path, init)).status;
const PASSWORD = 'correct horse battery';
async function login(no: number, more: object = {}): Promise<string> {
  const user = `anna ${++count}`;
  await admin('POST', `accounts/${no}/logins`, { user, password: PASSWORD, ...more });
  return user;
}
const basic = (user: string, password = PASSWORD) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const json = (body: object, method = 'POST'): RequestInit => ({
  method,
  body: JSON.stringify(body),
  headers: { 'content-type': 'application/json' },
});
const form = (fields: Record<string, string>): RequestInit => ({
  method: 'POST',
  body: new URLSearchParams(fields).toString(),
  headers: { 'content-type': 'application/x-www-form-urlencoded' },
});
const open = (user: string, password = PASSWORD) =>
  as('', '/auth/1/session', json({ username: user, password, unsafe: true }));
const grant = (user: string, secret = PASSWORD, type = 'client_credentials') =>
  as('', '/auth/1/oauth2/token', form({ client_id: user, client_secret: secret, grant_type: type }));

function message(to: string | string[], more: object = {}): object {
  return {
    sender: '441134960000',
    destinations: (Array.isArray(to) ? to : [to]).map((one) => ({ to: one })),
    content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
    ...more,
  };
}
const send = (key: string, body: object, headers: Record<string, string> = {}): Promise<Given> => {
  const init = json('messages' in body ? body : { messages: [body] });
  return as(`App ${key}`, '/mms/2/messages', { ...init, headers: { ...init.headers, ...headers } });
};
const statuses = (given: Given): number[] => read(given, 200, sendAnswer).messages.map((one) => one.status.id);

describe('credentials', () => {
  it('lets the same user in by all four forms, and says whose messages they are', async () => {
    const { no, key } = await account();
    const user = await login(no);
    const { token } = read(await open(user), 200, sessionAnswer);
    const granted = read(await grant(user), 200, tokenAnswer);
    expect([granted.token_type, granted.expires_in]).toEqual(['Bearer', 3600]);
    const fresh = (await grant(user)).headers;
    expect([fresh.get('cache-control'), fresh.get('pragma')]).toEqual(['no-store', 'no-cache']);
    for (const authorization of [
      `App ${key}`,
      `app ${key}`,
      basic(user),
      `IBSSO ${token}`,
      `ibsso ${token}`,
      `Bearer ${granted.access_token}`,
    ]) {
      const given = await as(authorization, '/mms/2/messages', json({ messages: [message('41790000001')] }));
      const [one] = read(given, 200, sendAnswer).messages;
      expect(await status(`App ${key}`, `/mms/2/messages/${one?.messageId}`)).toBe(200);
      expect(await status(`App ${KEY}`, `/mms/2/messages/${one?.messageId}`)).toBe(404);
    }
  });

  it('gives a token for client id and secret in the form or as Basic, encoded or not, and never for both', async () => {
    const { no } = await account();
    const user = await login(no);
    const ask = (authorization: string, fields: Record<string, string> = {}) => {
      const { headers, ...rest } = form({ grant_type: 'client_credentials', ...fields });
      return door.ask('/auth/1/oauth2/token', { ...rest, headers: { ...headers, authorization } });
    };
    const encoded = [user, PASSWORD].map((part) =>
      new URLSearchParams({ x: part }).toString().slice(2).replaceAll('+', '%20'),
    );
    for (const authorization of [basic(user), `Basic ${Buffer.from(encoded.join(':')).toString('base64')}`]) {
      const { access_token: bearer } = read(await ask(authorization), 200, tokenAnswer);
      expect(await status(`Bearer ${bearer}`)).toBe(200);
    }
    expect(read(await ask(basic(user, 'wrong')), 401, tokenErrorAnswer).error).toBe('invalid_client');
    const both = await ask(basic(user), { client_id: user, client_secret: PASSWORD });
    expect(read(both, 400, tokenErrorAnswer).error).toBe('invalid_request');
    expect(read(await ask('Basic'), 400, tokenErrorAnswer).error).toBe('invalid_request');
  });

  it('takes no credential for another, and none that is wrong', async () => {
    const { no, key } = await account();
    const user = await login(no);
    const { token } = read(await open(user), 200, sessionAnswer);
    const { access_token: bearer } = read(await grant(user), 200, tokenAnswer);
    for (const authorization of [
      `Bearer ${key}`,
      `Bearer ${token}`,
      `IBSSO ${bearer}`,
      `IBSSO ${key}`,
      `App ${token}`,
      `App ${PASSWORD}`,
      basic(user, 'wrong'),
      basic(user, ''),
      basic('nobody'),
      basic('__proto__'),
      'Basic !!!',
      'Basic',
      `Basic ${Buffer.from('no colon').toString('base64')}`,
      `Digest ${key}`,
    ]) {
      const given = await as(authorization, LOGS);
      expect([authorization, given.status]).toEqual([authorization, 401]);
      expect(given.headers.get('www-authenticate')).toBe('App');
    }
    expect((await open(user, 'wrong')).status).toBe(401);
    expect(read(await grant(user, 'wrong'), 401, tokenErrorAnswer).error).toBe('invalid_client');
    expect(read(await grant('nobody'), 401, tokenErrorAnswer).error).toBe('invalid_client');
    expect(read(await grant(user, PASSWORD, 'password'), 400, tokenErrorAnswer).error).toBe('unsupported_grant_type');
    // What is missing is no type that is not known (RFC 6749, 5.2).
    expect(read(await grant(user, PASSWORD, ''), 400, tokenErrorAnswer).error).toBe('invalid_request');
    const short = await as('', '/auth/1/oauth2/token', form({ grant_type: 'client_credentials', client_id: user }));
    expect(read(short, 400, tokenErrorAnswer).error).toBe('invalid_request');
  });

  it('keeps a session where nothing but the scopes of its user changes, which count at once', async () => {
    const { no, name } = await account();
    const user = await login(no);
    const { token } = read(await open(user), 200, sessionAnswer);
    const own = () => status(`IBSSO ${token}`);
    expect(await own()).toBe(200);
    const apply = async (password: string, scopes: string[]) =>
      read(
        await admin('POST', 'apply', { accounts: [{ name, logins: [{ user, password, scopes }] }] }),
        ...([200, adminAnswers.applied] as const),
      ).differences[0]?.fields.map((field) => field.name);
    expect(await apply(PASSWORD, ['inbound-message:read'])).toEqual(['scopes']);
    expect(await own()).toBe(403);
    expect(await apply(PASSWORD, ['mms:logs:read'])).toEqual(['scopes']);
    expect(await own()).toBe(200);
    const set = (password: string) => admin('POST', `accounts/${no}/logins`, { user, password });
    expect((await set(PASSWORD)).status).toBe(200);
    expect(await own()).toBe(200);
    expect(await apply(`${PASSWORD} new`, ['mms:logs:read'])).toEqual(['scopes', 'password']);
    expect(await own()).toBe(401);
    const second = read(await open(user, `${PASSWORD} new`), 200, sessionAnswer).token;
    expect((await set(PASSWORD)).status).toBe(200);
    expect(await status(`IBSSO ${second}`)).toBe(401);
  });

  it('ends a session once, at once, and with the user or its password', async () => {
    const { no } = await account();
    const user = await login(no);
    const end = (token: string) => status(`IBSSO ${token}`, '/auth/1/session', { method: 'DELETE' });
    const { token } = read(await open(user), 200, sessionAnswer);
    expect(await status(`IBSSO ${token}`)).toBe(200);
    expect(await end(token)).toBe(204);
    expect(await status(`IBSSO ${token}`)).toBe(401);
    expect(await end(token)).toBe(401);
    const second = read(await open(user), 200, sessionAnswer).token;
    const known = basic(user);
    expect([await status(`IBSSO ${second}`), await status(known)]).toEqual([200, 200]);
    await admin('POST', `accounts/${no}/logins`, { user, password: 'another password' });
    expect([await status(known), await status(`IBSSO ${second}`)]).toEqual([401, 401]);
    const third = read(
      await as('', '/auth/1/session', json({ username: user, password: 'another password' })),
      200,
      sessionAnswer,
    );
    expect(await status(`IBSSO ${third.token}`)).toBe(200);
    expect((await admin('DELETE', `accounts/${no}/logins/${encodeURIComponent(user)}`)).status).toBe(200);
    expect(await status(`IBSSO ${third.token}`)).toBe(401);
    const other = (await account()).no;
    expect((await admin('POST', `accounts/${other}/logins`, { user, password: 'of somebody else' })).status).toBe(200);
    expect(await status(`IBSSO ${third.token}`)).toBe(401);
    expect(await status(basic(user, 'another password'))).toBe(401);
  });

  it('makes who guesses wait, whatever is guessed then, and nobody else', async () => {
    const { no } = await account();
    const [user, other] = [await login(no), await login(no)];
    for (let guess = 0; guess < 10; guess++) expect(await status(basic(user, `wrong ${guess}`))).toBe(401);
    const given = await as(basic(user), LOGS);
    expect(given.status).toBe(429);
    const wait = Number(given.headers.get('retry-after'));
    expect([wait > 30, wait <= 60]).toEqual([true, true]);
    expect((await open(user)).status).toBe(429);
    const asked = json({ username: user, password: PASSWORD });
    const xml = await as('', '/auth/1/session', { ...asked, headers: { ...asked.headers, accept: 'application/xml' } });
    expect([xml.status, xml.headers.get('content-type')]).toEqual([429, 'application/xml; charset=UTF-8']);
    const token = form({ client_id: user, client_secret: PASSWORD, grant_type: 'client_credentials' });
    // As OAuth has it, whatever Accept says; the wait is that of the others.
    const oauth = await as('', '/auth/1/oauth2/token', {
      ...token,
      headers: { ...token.headers, accept: 'application/xml' },
    });
    expect(read(oauth, 429, tokenErrorAnswer).error).toBe('temporarily_unavailable');
    expect(oauth.headers.get('content-type')).toBe('application/json; charset=UTF-8');
    expect(Number(oauth.headers.get('retry-after'))).toBeGreaterThan(wait - 30);
    expect(await status(basic(other))).toBe(200);
  });

  it('holds a key to its times, networks and revocation', async () => {
    const { no } = await account();
    const at = (ms: number) => new Date(now + ms).toISOString();
    const works = async (rules: object) => status(`App ${(await newKey(no, rules)).key}`);
    expect(await works({ validFrom: at(1_000) })).toBe(401);
    expect(await works({ validFrom: at(0) })).toBe(200);
    expect(await works({ validUntil: at(0) })).toBe(401);
    expect(await works({ validUntil: at(1_000) })).toBe(200);
    expect(await works({ allow: ['10.0.0.0/8', '2001:db8::/32'] })).toBe(401);
    expect(await works({ allow: ['10.0.0.0/8', '127.0.0.1'] })).toBe(200);
    const { id, key } = await newKey(no, { validUntil: at(60_000) });
    expect(await status(`App ${key}`)).toBe(200);
    now += 60_000;
    expect(await status(`App ${key}`)).toBe(401);
    now -= 60_000;
    expect((await admin('DELETE', `accounts/${no}/keys/${id}`)).status).toBe(200);
    expect(await status(`App ${key}`)).toBe(401);
    expect((await admin('DELETE', `accounts/${no}/keys/${id}`)).status).toBe(404);
  });

  it('lets nobody of a suspended account in', async () => {
    const { no, key } = await account();
    const user = await login(no);
    const { token } = read(await open(user), 200, sessionAnswer);
    await admin('PUT', `accounts/${no}`, { state: 'SUSPENDED' });
    for (const one of [`App ${key}`, basic(user), `IBSSO ${token}`]) expect(await status(one)).toBe(401);
    expect((await open(user)).status).toBe(401);
    await admin('PUT', `accounts/${no}`, { state: 'ACTIVE' });
    expect(await status(`App ${key}`)).toBe(200);
  });
});

describe('scopes', () => {
  const ENDPOINTS: [string, string, string[]][] = [
    ['POST', '/mms/2/messages', ['message:send', 'mms:message:send', 'mms:manage']],
    ['GET', '/mms/2/reports', ['message:send', 'mms:message:send', 'mms:manage']],
    ['GET', LOGS, ['mms:manage', 'mms:logs:read']],
    ['GET', '/mms/2/messages/x', ['mms:manage', 'mms:logs:read']],
    ['GET', '/mms/2/bulks', ['message:send', 'mms:message:send', 'mms:manage']],
    ['PUT', '/mms/2/bulks/status?bulkId=x', ['message:send', 'mms:message:send', 'mms:manage']],
    ['POST', '/mms/1/content', ['mms:manage']],
    ['GET', '/mms/1/inbox/reports', ['inbound-message:read', 'mms:inbound-message:read', 'mms:manage']],
    ['GET', '/mms/1/optouts', ['mms:manage']],
    ['GET', '/webhooks/1/deliveries', ['mms:manage']],
    ['PUT', '/webhooks/1/endpoints', ['mms:manage']],
    ['POST', '/webhooks/1/replay', ['mms:manage']],
  ];
  const ALL = [
    'message:send',
    'mms:message:send',
    'mms:manage',
    'mms:logs:read',
    'inbound-message:read',
    'mms:inbound-message:read',
  ];

  it('lets each scope do what is documented and nothing else: 403', async () => {
    const { no } = await account({ limits: { logsPerMinute: null } });
    for (const scope of ALL) {
      const { key } = await newKey(no, { scopes: [scope] });
      const user = await login(no, { scopes: [scope] });
      for (const authorization of [`App ${key}`, basic(user)]) {
        for (const [method, path, scopes] of ENDPOINTS) {
          const body = method === 'GET' ? {} : { body: '{}' };
          const given = await as(authorization, path, { method, ...body });
          expect([scope, path, given.status === 403]).toEqual([scope, path, !scopes.includes(scope)]);
        }
      }
    }
  });

  it('says 401 and 403 in the form of the endpoint, as JSON or XML', async () => {
    const { no } = await account();
    const { key } = await newKey(no, { scopes: ['mms:logs:read'] });
    const ask = (path: string, accept: string, authorization = `App ${key}`) =>
      as(authorization, path, { headers: { accept } });
    const newer = await ask('/mms/2/reports', 'application/xml');
    expect([newer.status, newer.headers.get('content-type')]).toEqual([403, 'application/xml; charset=UTF-8']);
    expect(newer.body).toBe(
      '<?xml version="1.0" encoding="UTF-8"?><ApiError><errorCode>E403</errorCode>' +
        '<description>Insufficient permissions to access the requested resource.</description>' +
        '<action>Repeat the request with new or different credentials.</action><violations/>' +
        '<resources><resource><name>API Scopes</name><url>https://www.infobip.com/docs/essentials/' +
        'api-essentials/api-authorization#api-scopes</url></resource></resources></ApiError>',
    );
    const older = await ask('/mms/1/inbox/reports', 'text/xml, */*;q=0.1', 'App nobody');
    expect(older.status).toBe(401);
    expect(older.body).toBe(
      '<?xml version="1.0" encoding="UTF-8"?><ApiException><requestError><serviceException>' +
        '<messageId>UNAUTHORIZED</messageId><text>Unauthorized</text></serviceException></requestError></ApiException>',
    );
    for (const accept of [
      '*/*',
      'application/json',
      'application/json, application/xml',
      'application/xml;q=0.1, */*',
    ]) {
      const given = await ask('/mms/1/inbox/reports', accept);
      const { serviceException } = read(given, 403, olderErrorAnswer).requestError;
      expect(serviceException).toEqual({ messageId: 'FORBIDDEN', text: 'Forbidden' });
    }
  });
});

describe("the operator's door", () => {
  it('is not there without its key in the settings, and for other keys locked', async () => {
    const without = await openDoor();
    try {
      const given = await without.ask('/admin/1/accounts', { headers: { authorization: `App ${ADMIN_KEY}` } });
      expect(given.status).toBe(404);
    } finally {
      await without.close();
    }
    for (const wrong of [`App ${KEY}`, `App ${ADMIN_KEY}x`, 'App', `Basic ${ADMIN_KEY}`, `App ${ADMIN_KEY.slice(1)}`]) {
      expect(await status(wrong, '/admin/1/accounts')).toBe(401);
    }
    // The operator's key is nobody's account.
    expect(await status(`App ${ADMIN_KEY}`)).toBe(401);
  });

  it('answers only to its networks', async () => {
    const settings = { POSTCARD_ADMIN_KEY: ADMIN_KEY, POSTCARD_ADMIN_ALLOW: '10.0.0.0/8' };
    const far = await openDoor({ settings: { ...settings, POSTCARD_TRUSTED_PROXIES: '127.0.0.1' } });
    try {
      const from = async (forwarded?: string) =>
        (
          await far.ask('/admin/1/accounts', {
            headers: { authorization: `App ${ADMIN_KEY}`, ...(forwarded ? { 'x-forwarded-for': forwarded } : {}) },
          })
        ).status;
      expect(await from()).toBe(404);
      expect(await from('10.1.2.3')).toBe(200);
      // The first one is what the client says of itself.
      expect(await from('10.1.2.3, 192.0.2.1')).toBe(404);
      expect(await from('192.0.2.1, 10.1.2.3')).toBe(200);
      expect([await from('10.1.2.3:5512'), await from('[2001:db8::1]:443'), await from('10.1.2.3:x')]).toEqual([
        200, 404, 404,
      ]);
    } finally {
      await far.close();
    }
  });

  it('sets a password whatever other operators change meanwhile', async () => {
    let others = 0;
    const busy = await openDoor({
      settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY },
      wrap: (store) => ({
        ...store,
        async administer(changes, deed, terms) {
          const quicker = { kind: 'account', no: null, name: `other ${++others}`, settings: DEFAULT_SETTINGS } as const;
          await store.administer([quicker], { by: 'test', action: 'account added', account: null, detail: {} });
          return store.administer(changes, deed, terms);
        },
      }),
    });
    const headers = { authorization: `App ${ADMIN_KEY}`, 'content-type': 'application/json' };
    const set = async (password: string) =>
      (
        await busy.ask('/admin/1/accounts/1/logins', {
          ...{ method: 'POST', headers },
          body: JSON.stringify({ user: 'busy', password }),
        })
      ).status;
    expect([await set(PASSWORD), await set(`${PASSWORD} new`), others]).toEqual([200, 200, 2]);
    expect((await busy.ask(LOGS, { headers: { authorization: basic('busy', `${PASSWORD} new`) } })).status).toBe(200);
    await busy.close();
  });

  it('does not take for this machine what a proxy on it brings from elsewhere', async () => {
    const { status } = await admin('GET', 'accounts');
    const brought = await Promise.all(
      [
        ['x-forwarded-for', '127.0.0.1'],
        ['x-forwarded-for', '192.0.2.1'],
        ['forwarded', 'for=192.0.2.1'],
      ].map(async (header) => (await admin('GET', 'accounts', undefined, Object.fromEntries([header]))).status),
    );
    expect([status, ...brought]).toEqual([200, 404, 404, 404]);
  });

  it('adds, shows and changes accounts, by number and by name', async () => {
    const { no, name } = await account({ currency: 'CHF', limits: { messagesPerDay: 5 } });
    const shown = read(await admin('GET', `accounts/${encodeURIComponent(name)}`), 200, adminAnswers.account);
    expect(shown).toMatchObject({ account: no, name, currency: 'CHF', state: 'ACTIVE' });
    expect(shown.limits).toMatchObject({ messagesPerDay: 5, logsPerMinute: 120, requestsPerMinute: null });
    const change = { name: `${name}!`, limits: { messagesPerDay: null, flooding: true } };
    const changed = read(await admin('PUT', `accounts/${no}`, change), 200, adminAnswers.account);
    expect(changed).toMatchObject({ name: `${name}!`, currency: 'CHF' });
    expect(changed.limits).toMatchObject({ messagesPerDay: null, flooding: true, logsPerMinute: 120 });
    const all = read(await admin('GET', 'accounts'), 200, adminAnswers.rows(adminAnswers.account));
    expect(all.results).toContainEqual(changed);
    expect((await admin('GET', 'accounts/no such')).status).toBe(404);
    expect((await admin('GET', 'accounts/all')).status).toBe(404);
    expect((await admin('POST', 'accounts', { name: `${name}!` })).status).toBe(409);
  });

  it.each([
    ['a misspelt limit', { name: 'x', limits: { messagesPerDy: 5 } }],
    ['a name that is a number', { name: '17' }],
    ['no name', {}],
    ['an amount in words', { name: 'x', limits: { spend: { amount: '5', per: 'DAY' } } }],
    ['a limit of nothing', { name: 'x', limits: { messagesPerDay: 0 } }],
    ['a half limit', { name: 'x', limits: { messagesPerDay: 1.5 } }],
    ['an unknown state', { name: 'x', state: 'DORMANT' }],
    ['a control in the name', { name: 'a\u0007' }],
  ])('refuses %s', async (_name, body) => {
    expect((await admin('POST', 'accounts', body)).status).toBe(400);
  });

  it('tells what need not be whole from what must', async () => {
    const wrong = async (limits: object) =>
      JSON.parse((await admin('POST', 'accounts', { name: 'x', limits })).body).violations[0].violation;
    expect(await wrong({ spend: { amount: '5', per: 'DAY' } })).toBe('must be a number');
    expect(await wrong({ messagesPerDay: '5' })).toBe('must be a integer');
  });

  it('takes a * at the end of a block only', async () => {
    const { no } = await account();
    const block = async (value: string) =>
      (await admin('POST', `accounts/${no}/blocks`, { kind: 'DESTINATION', value })).status;
    expect([await block('4490*'), await block('44*90'), await block('*44'), await block('44**')]).toEqual([
      ...[200, 400, 400, 400],
    ]);
  });

  it('shows a key once, and never what opens the door afterwards', async () => {
    const { no } = await account();
    const user = await login(no);
    const { key } = await newKey(no, { label: 'till', scopes: ['mms:manage'] });
    expect(key).toMatch(/^[0-9a-f]{64}$/);
    const texts = [
      (await admin('GET', `accounts/${no}/keys`)).body,
      (await admin('GET', `accounts/${no}/logins`)).body,
      (await admin('GET', 'audit?limit=1000')).body,
      JSON.stringify(door.lines),
    ];
    for (const text of texts) {
      expect(text).not.toContain(key);
      expect(text).not.toContain(PASSWORD);
      expect(text).not.toMatch(/scrypt|argon2/);
    }
    expect(texts[0]).toContain('till');
    expect(texts[1]).toContain(user);
  });

  it('keeps senders, domains, prices and blocks, each for its account', async () => {
    const [a, b] = [await account(), await account()];
    const domain = `go${a.no}.example`;
    const put = (no: number | 'all', what: string, body: object) => admin('POST', `accounts/${no}/${what}`, body);
    expect((await put(a.no, 'senders', { sender: '+441134960000' })).body).toBe('{"sender":"441134960000"}');
    expect((await put(b.no, 'senders', { sender: '441134960000' })).status).toBe(200);
    expect((await put(a.no, 'senders', { sender: 'x' })).status).toBe(400);
    expect((await put(a.no, 'domains', { domain: domain.toUpperCase() })).status).toBe(200);
    expect((await put(b.no, 'domains', { domain })).status).toBe(409);
    expect((await admin('DELETE', `accounts/${b.no}/domains/${domain}`)).status).toBe(404);
    expect((await admin('DELETE', `accounts/${a.no}/domains/${domain}`)).status).toBe(200);
    expect((await put(b.no, 'domains', { domain })).status).toBe(200);
    const prices = [{ prefix: '41', channel: 'MMS', price: 0.07 }];
    expect((await admin('PUT', `accounts/${a.no}/prices`, { prices })).status).toBe(200);
    expect(JSON.parse((await admin('GET', `accounts/${a.no}/prices`)).body)).toEqual({ prices });
    expect(JSON.parse((await admin('GET', `accounts/${b.no}/prices`)).body)).toEqual({ prices: [] });
    expect((await put('all', 'blocks', { kind: 'SENDER', value: 'Phisher' })).status).toBe(200);
    expect(JSON.parse((await admin('GET', 'accounts/all/blocks')).body)).toEqual({
      results: [{ kind: 'SENDER', value: 'phisher' }],
    });
    expect((await admin('DELETE', 'accounts/all/blocks?kind=SENDER&value=Phisher')).status).toBe(200);
    expect((await admin('DELETE', 'accounts/all/blocks?kind=SENDER&value=Phisher')).status).toBe(404);
    const last = read(await admin('GET', 'audit?limit=2'), 200, adminAnswers.audit);
    expect(last.results.map(({ action, by }) => [action, by])).toEqual([
      ['block removed', 'admin from 127.0.0.1'],
      ['block added', 'admin from 127.0.0.1'],
    ]);
    const before = read(await admin('GET', `audit?limit=1&cursor=${last.cursor.nextCursor}`), 200, adminAnswers.audit);
    expect(before.results[0]).toMatchObject({ action: 'prices set', account: a.no, detail: { rows: 1 } });
    for (const query of ['limit=0', 'limit=1001', 'limit=x', 'limit=1.5', 'cursor=x', 'cursor=-1']) {
      const { status, body } = await admin('GET', `audit?${query}`);
      expect([query, status, JSON.parse(body).violations[0].property]).toEqual([query, 400, query.split('=')[0]]);
    }
    expect((await admin('GET', 'audit?limit=&cursor=')).status).toBe(200);
  });

  it('knows its paths and methods', async () => {
    for (const path of [
      '',
      'nothing',
      'accounts/1/nothing',
      'accounts/1/keys/x/y',
      'accounts/%E0%A4%A',
      'constructor',
    ]) {
      expect([path, (await admin('GET', path)).status]).toEqual([path, 404]);
    }
    const wrong = await admin('DELETE', 'accounts');
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'GET, POST']);
    const text = await as(`App ${ADMIN_KEY}`, '/admin/1/accounts', { method: 'POST', body: 'name: x' });
    expect(text.status).toBe(415);
  });

  it('applies a file of accounts, and changes nothing the second time', async () => {
    const name = `applied ${++count}`;
    const one = {
      name,
      currency: 'CHF',
      limits: { messagesPerDay: 100 },
      keys: [{ label: 'made' }, { label: 'given', key: `given-key-${count}-0123456789`, scopes: ['mms:manage'] }],
      logins: [{ user: `user ${count}`, password: PASSWORD }],
      senders: ['441134960000', 'Shop'],
      domains: [`applied${count}.example`],
      prices: [{ prefix: '', channel: 'MMS', price: 0.1 }],
      blocks: [{ kind: 'DESTINATION', value: '+4179*' }],
    };
    const apply = async (body: object) =>
      read(await admin('POST', 'apply', { accounts: [body] }), 200, adminAnswers.applied);
    const first = await apply(one);
    expect(first.changes).toBe(9);
    expect(first.accounts[0]).toMatchObject({ name, added: true, keys: [{ label: 'made' }] });
    const made = first.accounts[0]?.keys[0]?.key as string;
    for (const who of [`App ${made}`, `App given-key-${count}-0123456789`, basic(`user ${count}`)]) {
      expect(await status(who)).toBe(200);
    }
    const lines = async () => JSON.parse((await admin('GET', 'audit?limit=1000')).body).results.length as number;
    const before = await lines();
    expect(await apply(one)).toEqual({
      ...{ dryRun: false, changes: 0, differences: [] },
      accounts: [{ account: first.accounts[0]?.account, name, added: false, keys: [], endpoints: [] }],
    });
    expect(await lines()).toBe(before);
    // What is not named stays; lists that are named are as they are named; keys and logins are not taken away.
    expect((await apply({ name, senders: ['Shop'], keys: [], limits: { messagesPerDay: 200 } })).changes).toBe(2);
    const shown = read(await admin('GET', `accounts/${encodeURIComponent(name)}`), 200, adminAnswers.account);
    expect(shown).toMatchObject({ currency: 'CHF', limits: { messagesPerDay: 200, logsPerMinute: 120 } });
    expect(await status(`App ${made}`)).toBe(200);
    const taken = await admin('POST', 'apply', { accounts: [{ name: `${name} 2`, domains: one.domains }] });
    expect([taken.status, taken.body]).toEqual([409, expect.stringContaining('domain')]);
  });
});

describe('limits', () => {
  it('lets an account, a key and the logs have so many requests a minute, then 429 until the next one', async () => {
    const { no } = await account({ limits: { requestsPerMinute: 12, logsPerMinute: 5 } });
    const slow = await newKey(no, { requestsPerMinute: 3 });
    const fast = await newKey(no);
    const ask = async (key: string, path: string, times: number): Promise<number[]> => {
      const all = Array.from({ length: times }, () => status(`App ${key}`, path));
      return (await Promise.all(all)).sort();
    };
    const many = (of: number, n: number) => Array.from({ length: n }, () => of);
    expect(await ask(slow.key, '/mms/2/reports', 5)).toEqual([...many(200, 3), ...many(429, 2)]);
    expect(await ask(fast.key, LOGS, 7)).toEqual([...many(200, 5), ...many(429, 2)]);
    // 3 and 7 are taken, whatever the logs said of two.
    expect(await ask(fast.key, '/mms/2/reports', 5)).toEqual([...many(200, 2), ...many(429, 3)]);
    const given = await as(`App ${fast.key}`, '/mms/2/reports');
    const left = 60 - Math.floor((now / 1000) % 60);
    expect([given.status, given.headers.get('retry-after')]).toEqual([429, String(left)]);
    expect(JSON.parse(given.body)).toMatchObject({ errorCode: 'E429', description: 'Too many requests sent.' });
    now += 60_000;
    expect(await ask(slow.key, '/mms/2/reports', 1)).toEqual([200]);
  });

  it('lets an account have so many messages a day: all of a request or none', async () => {
    const { key } = await account({ limits: { messagesPerDay: 5 } });
    expect(statuses(await send(key, message(['41790000001', '41790000002', '41790000003'])))).toEqual([26, 26, 26]);
    const over = await send(key, message(['41790000001', '41790000002', '41790000003']));
    expect([over.status, Number(over.headers.get('retry-after')) > 0]).toEqual([429, true]);
    // Refused at the door and repeated ones do not count.
    const keyed = { ...message([]), destinations: [{ to: '41790000001', messageId: 'once' }, { to: 'x' }] };
    expect(statuses(await send(key, keyed))).toEqual([26, 52]);
    expect(statuses(await send(key, keyed))).toEqual([23, 52]);
    expect(statuses(await send(key, message('41790000004')))).toEqual([26]);
    expect((await send(key, message('41790000005'))).status).toBe(429);
    now += 86_400_000;
    expect(statuses(await send(key, message('41790000005')))).toEqual([26]);
    now -= 86_400_000;
  });

  it('stops at the credit, in order, with status 12, and tells prices in reports and logs', async () => {
    const spend = { amount: 0.25, per: 'TOTAL' };
    const { no, key } = await account({ currency: 'CHF', limits: { spend } });
    const prices = [
      { prefix: '41', channel: 'MMS', price: 0.1 },
      { prefix: '4179', channel: 'MMS', price: 0.05 },
    ];
    await admin('PUT', `accounts/${no}/prices`, { prices });
    const to = ['41760000001', '41790000001', '41760000002', '41790000002', '49170000001'];
    expect(statuses(await send(key, message(to)))).toEqual([26, 26, 26, 12, 26]);
    const logs = JSON.parse((await as(`App ${key}`, LOGS)).body) as {
      results: { destination: string; price: object }[];
    };
    const priced = Object.fromEntries(logs.results.map(({ destination, price }) => [destination, price]));
    expect(priced['41760000001']).toEqual({ pricePerMessage: 0.1, currency: 'CHF' });
    expect(priced['41790000001']).toEqual({ pricePerMessage: 0.05, currency: 'CHF' });
    expect(priced['49170000001']).toEqual({ pricePerMessage: 0, currency: 'CHF' });
    // What is REJECTED costs nothing.
    expect(priced['41790000002']).toEqual({ pricePerMessage: 0, currency: 'CHF' });
    // What engines need to take an SMS failover's price, and to give back.
    const { rows, specs } = await door.store.logs({ account: no, destination: '41760000001', limit: 1 });
    const kept = specs.find(({ no: spec }) => spec === rows[0]?.spec)?.body;
    expect(JSON.parse(kept ?? '{}').prices).toMatchObject({
      currency: 'CHF',
      spend: expect.any(Number),
      MMS: { 41: 0.1 },
    });
    // The list may change: what was accepted keeps its price.
    await admin('PUT', `accounts/${no}/prices`, { prices: [] });
    const again = JSON.parse((await as(`App ${key}`, LOGS)).body) as typeof logs;
    expect(again.results.find(({ destination }) => destination === '41760000001')?.price).toMatchObject({
      pricePerMessage: 0.1,
    });
    await admin('PUT', `accounts/${no}/prices`, { prices });
    expect(statuses(await send(key, message('41790000003')))).toEqual([12]);
    await admin('PUT', `accounts/${no}`, { limits: { spend: { ...spend, amount: 0.3 } } });
    await expect.poll(async () => statuses(await send(key, message('41790000003'))), { timeout: 30_000 }).toEqual([26]);
    const report = JSON.parse((await as(`App ${key}`, '/mms/2/reports')).body) as {
      results: { status: { id: number }; error: { id: number } }[];
    };
    expect(report.results[0]).toMatchObject({ status: { id: 12 }, error: { id: 581 } });
  });

  it('that are used up give the first answer to who asks again under the same Idempotency-Key', async () => {
    const { key } = await account({ limits: { messagesPerDay: 2 } });
    const body = message(['41790000001', '41790000002']);
    const named = (name: string, what = body) => send(key, what, { 'idempotency-key': name });
    const first = await named('lost');
    expect(statuses(first)).toEqual([26, 26]);
    const again = await named('lost');
    expect([again.status, again.body]).toEqual([200, first.body]);
    expect((await named('lost', message('41790000003'))).status).toBe(409);
    expect((await named('new')).status).toBe(429);
    expect((await send(key, body)).status).toBe(429);
    expect(JSON.parse((await as(`App ${key}`, LOGS)).body).results).toHaveLength(2);
  });

  it('takes what the credit allows in the order of the request, whatever that becomes on its way', async () => {
    const { no, key } = await account({ limits: { spend: { amount: 0.3, per: 'TOTAL' } } });
    await admin('PUT', `accounts/${no}/prices`, { prices: [{ prefix: '', channel: 'MMS', price: 0.1 }] });
    // Groups are numbered behind those who are alone.
    const group = { group: [{ to: '41790000001' }, { to: '41790000002' }] };
    const destinations = [group, { to: '41790000003' }, { to: '41790000004' }];
    const one = { ...message('41790000000'), destinations };
    expect(statuses(await send(key, one))).toEqual([26, 26, 26, 12]);
  });

  it('gives the price of a repeated message back, not a share of what its request cost', async () => {
    const { no, key } = await account({ limits: { spend: { amount: 0.25, per: 'TOTAL' } } });
    const prices = [
      { prefix: '41', channel: 'MMS', price: 0.1 },
      { prefix: '4179', channel: 'MMS', price: 0.05 },
    ];
    await admin('PUT', `accounts/${no}/prices`, { prices });
    const keyed = { to: '41760000001', messageId: 'paid once' };
    expect(statuses(await send(key, { ...message([]), destinations: [keyed] }))).toEqual([26]);
    const again = { ...message([]), destinations: [keyed, { to: '41790000001' }] };
    expect(statuses(await send(key, again))).toEqual([23, 26]);
    expect(statuses(await send(key, message(['41760000002', '41790000002'])))).toEqual([26, 12]);
  });

  it('refuses the 7th equal and the 21st message to one number in an hour', async () => {
    const { key } = await account({ limits: { flooding: true } });
    const text = (words: string) => ({ content: { messageSegments: [{ type: 'TEXT', text: words }] } });
    for (let n = 0; n < 6; n++) expect(statuses(await send(key, message('41790000001')))).toEqual([26]);
    expect(statuses(await send(key, message(['41790000001', '41790000002'])))).toEqual([20, 26]);
    for (let n = 0; n < 14; n++) {
      expect(statuses(await send(key, message('41790000001', text(`other ${n}`))))).toEqual([26]);
    }
    expect(statuses(await send(key, message('41790000001', text('one more'))))).toEqual([20]);
    const { results } = JSON.parse((await as(`App ${key}`, `${LOGS}?generalStatus=REJECTED`)).body) as {
      results: { error: { id: number } }[];
    };
    expect(results.map(({ error }) => error.id)).toEqual([4103, 4104]);
    now += 50 * 60_000;
    expect(statuses(await send(key, message('41790000001', text('still'))))).toEqual([20]);
    now += 20 * 60_000;
    expect(statuses(await send(key, message('41790000001')))).toEqual([26]);
  });

  it('answers a repeated request as the first time, whatever the account may now', async () => {
    const { no, key } = await account({ limits: { messagesPerDay: 2 } });
    const body = message(['41790000001', '41790000002']);
    const once = { 'idempotency-key': 'once' };
    const first = await send(key, body, once);
    await admin('PUT', `accounts/${no}`, { registeredOnly: true, limits: { messagesPerDay: 10 } });
    const again = await send(key, body, once);
    expect([again.status, again.body]).toEqual([200, first.body]);
    expect(statuses(await send(key, body))).toEqual([11, 11]);
  });

  it('tells senders to come back where too much waits already', async () => {
    let waiting = 999;
    const full = await openDoor({
      settings: { POSTCARD_MAX_WAITING: '1000' },
      wrap: (store) => ({ ...store, stats: async () => ({ ...(await store.stats()), waiting }) }),
    });
    try {
      const body = { messages: [message('41790000001')] };
      expect((await full.send(body)).status).toBe(200);
      waiting = 1000;
      await expect.poll(async () => (await full.send(body)).status, { timeout: 30_000, interval: 100 }).toBe(429);
      const given = await full.send(body);
      expect([given.status, given.headers.get('retry-after')]).toEqual([429, '30']);
      expect((await full.ask(LOGS)).status).toBe(200);
    } finally {
      await full.close();
    }
  });
});

describe('senders and destinations', () => {
  it('takes only registered senders where the account is so, in any spelling, also of the failover', async () => {
    const { no, key } = await account({ registeredOnly: true });
    for (const sender of ['441134960000', 'My Shop', '12345'])
      await admin('POST', `accounts/${no}/senders`, { sender });
    const from = async (sender: string, more: object = {}) =>
      statuses(await send(key, message('41790000001', { sender, ...more })))[0];
    expect([
      await from('441134960000'),
      await from('+441134960000'),
      await from('my shop'),
      await from('12345'),
    ]).toEqual([26, 26, 26, 26]);
    expect([await from('441134960001'), await from('Other')]).toEqual([11, 11]);
    const failover = (sender?: string) => ({ options: { smsFailover: { text: 'hi', ...(sender ? { sender } : {}) } } });
    expect(await from('My Shop', failover('Other'))).toBe(11);
    expect([await from('My Shop', failover('12345')), await from('My Shop', failover())]).toEqual([26, 26]);
    await admin('DELETE', `accounts/${no}/senders/${encodeURIComponent('MY SHOP')}`);
    expect(await from('My Shop')).toBe(11);
  });

  it('refuses blocked senders with 13 and blocked destinations with 14, for one account or all', async () => {
    const [a, b] = [await account(), await account()];
    const block = (no: number | 'all', kind: string, value: string) =>
      admin('POST', `accounts/${no}/blocks`, { kind, value });
    await block(a.no, 'SENDER', '+44113*');
    await block(a.no, 'DESTINATION', '+4179000001*');
    await block('all', 'DESTINATION', '41790000099');
    const to = (key: string, more: object = {}) =>
      send(key, message(['41790000011', '41790000021', '41790000099'], { sender: 'Shop', ...more })).then(statuses);
    expect(await to(a.key)).toEqual([14, 26, 14]);
    expect(await to(b.key)).toEqual([26, 26, 14]);
    expect(await to(a.key, { sender: '441134960000' })).toEqual([13, 13, 13]);
    await admin('DELETE', `accounts/all/blocks?kind=DESTINATION&value=${encodeURIComponent('+41790000099')}`);
    expect(await to(b.key)).toEqual([26, 26, 26]);
  });

  it("gives messages that name none the account's application and entity", async () => {
    const { key } = await account({ application: 'app', entity: 'ent' });
    await send(key, message('41790000001'));
    await send(key, message('41790000002', { options: { platform: { entityId: 'own' } } }));
    const { results } = JSON.parse((await as(`App ${key}`, LOGS)).body) as { results: { platform: object }[] };
    expect(results.map(({ platform }) => platform)).toEqual([
      { entityId: 'own', applicationId: 'app' },
      { entityId: 'ent', applicationId: 'app' },
    ]);
    const asked = JSON.parse((await as(`App ${key}`, `${LOGS}?applicationId=app&entityId=ent`)).body) as typeof JSON;
    expect(asked).toMatchObject({ results: [{ destination: '41790000001' }] });
  });
});
