/** The operator's door where several are at it at once, and where a file says what shall be. Over real HTTP on a real store. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adminAnswers } from '../../src/api/admin-schema.ts';
import { apiErrorAnswer, endpointAnswer, endpointsAnswer } from '../../src/api/answers.ts';
import { type Given, type OpenDoor, openDoor } from './door.ts';

const ADMIN_KEY = 'operator-key-0123456789';
let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ now: Date.now, settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY } });
});
afterAll(async () => {
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

const admin = (method: string, path: string, body?: object, headers: Record<string, string> = {}): Promise<Given> =>
  door.ask(`/admin/1/${path}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    headers: {
      authorization: `App ${ADMIN_KEY}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
  });
function read<T>(given: Given, status: number, schema: { parse(value: unknown): T }): T {
  expect(given.status, given.body).toBe(status);
  return schema.parse(JSON.parse(given.body));
}
let count = 0;
async function account(settings: object = {}): Promise<number> {
  const made = await admin('POST', 'accounts', { name: `one ${++count}`, ...settings });
  return read(made, 200, adminAnswers.account).account;
}
const shown = async (no: number) => read(await admin('GET', `accounts/${no}`), 200, adminAnswers.account);
const violations = (given: Given): string[] =>
  read(given, given.status, apiErrorAnswer).violations.map(({ property, violation }) => `${property} ${violation}`);
const lines = async (): Promise<{ action: string; detail: object }[]> =>
  JSON.parse((await admin('GET', 'audit?limit=1000')).body).results;

describe('operators who change one account at the same time', () => {
  it('lose nothing of each other: each setting is as the last one who named it left it', async () => {
    const no = await account();
    const many = [
      { limits: { messagesPerDay: 5 } },
      { limits: { requestsPerMinute: 6 } },
      { limits: { logsPerMinute: 7 } },
      { limits: { spend: { amount: 8, per: 'DAY' } } },
      { limits: { flooding: true } },
      { registeredOnly: true },
      { application: 'app' },
      { entity: 'entity' },
      { currency: 'CHF' },
      { failoverAfterUnknown: true },
    ];
    const given = await Promise.all(many.map((one) => admin('PUT', `accounts/${no}`, one)));
    expect(given.map(({ status }) => status)).toEqual(many.map(() => 200));
    expect(await shown(no)).toMatchObject({
      ...{ registeredOnly: true, application: 'app', entity: 'entity', currency: 'CHF', failoverAfterUnknown: true },
      limits: {
        ...{ messagesPerDay: 5, requestsPerMinute: 6, logsPerMinute: 7, flooding: true },
        spend: { amount: 8, per: 'DAY' },
      },
    });
  });

  it('can have theirs refused where somebody was faster: ETag, If-Match, 412', async () => {
    const no = await account();
    const tag = (given: Given): string => given.headers.get('etag') ?? '';
    const put = (body: object, match?: string) =>
      admin('PUT', `accounts/${no}`, body, match === undefined ? {} : { 'if-match': match });
    const first = tag(await admin('GET', `accounts/${no}`));
    expect(first).toMatch(/^"[\w-]{22}"$/);
    const changed = await put({ currency: 'CHF' }, first);
    expect([changed.status, tag(changed)]).toEqual([200, tag(await admin('GET', `accounts/${no}`))]);
    expect(tag(changed)).not.toBe(first);
    const late = await put({ currency: 'USD' }, first);
    expect([late.status, JSON.parse(late.body).errorCode]).toEqual([412, 'E412']);
    expect((await put({ currency: 'USD' }, `W/${tag(changed)}`)).status).toBe(412);
    expect((await shown(no)).currency).toBe('CHF');
    expect((await put({ currency: 'USD' }, `"other", ${tag(changed)}`)).status).toBe(200);
    expect((await put({ currency: 'GBP' }, '*')).status).toBe(200);
    // Ten who saw the same: one of them is let.
    const seen = tag(await admin('GET', `accounts/${no}`));
    const ten = await Promise.all(
      Array.from({ length: 10 }, (_, n) => put({ limits: { messagesPerDay: n + 1 } }, seen)),
    );
    expect(ten.map(({ status }) => status).sort()).toEqual([200, ...Array<number>(9).fill(412)]);

    const prices = (price: number, match: string) =>
      admin('PUT', `accounts/${no}/prices`, { prices: [{ prefix: '', channel: 'MMS', price }] }, { 'if-match': match });
    const listed = tag(await admin('GET', `accounts/${no}/prices`));
    expect((await prices(1, listed)).status).toBe(200);
    expect((await prices(2, listed)).status).toBe(412);
    const xml = await admin('PUT', `accounts/${no}`, {}, { 'if-match': first, accept: 'application/xml' });
    expect([xml.status, xml.body]).toEqual([412, expect.stringContaining('<errorCode>E412</errorCode>')]);
  });

  it('add to a credit what all of them add, and once what is said again under its key', async () => {
    const no = await account();
    const credit = (amount: unknown, key?: string) =>
      admin('POST', `accounts/${no}/credit`, { amount }, key === undefined ? {} : { 'idempotency-key': key });
    const ten = await Promise.all(Array.from({ length: 10 }, () => credit(0.1)));
    expect(ten.map(({ status }) => status)).toEqual(Array(10).fill(200));
    expect((await shown(no)).limits.spend).toEqual({ amount: 1, per: 'TOTAL' });
    const one = read(await credit(50, 'invoice-7'), 200, adminAnswers.credit);
    expect(one).toMatchObject({ account: no, currency: 'EUR', amount: 50, total: 51, repeated: false });
    await credit(9);
    expect(read(await credit(50, 'invoice-7'), 200, adminAnswers.credit)).toEqual({ ...one, repeated: true });
    expect(violations(await credit(51, 'invoice-7'))).toEqual([
      'Idempotency-Key was used with another body in the last 24 hours',
    ]);
    expect((await credit(1, 'a key')).status).toBe(400);
    for (const wrong of [0, 1e-7, 2e9, '5', null]) expect((await credit(wrong)).status).toBe(400);
    expect((await credit(-61)).status).toBe(409);
    expect(read(await credit(-60), 200, adminAnswers.credit).total).toBe(0);
    await admin('PUT', `accounts/${no}`, { limits: { spend: { amount: 5, per: 'MONTH' } } });
    expect(violations(await credit(1))).toEqual([
      'amount cannot be added: the account has a limit per day or month; set limits.spend',
    ]);
    expect((await admin('POST', 'accounts/no%20such/credit', { amount: 1 })).status).toBe(404);
    expect((await lines()).filter(({ action }) => action === 'credit added')).toHaveLength(13);
  });
});

describe('what an account has used', () => {
  it('is told of the limits that it has, and goes back with what was not sent', async () => {
    const no = await account();
    const usage = async () => read(await admin('GET', `accounts/${no}/usage`), 200, adminAnswers.usage);
    expect(await usage()).toEqual({ account: no, messagesPerDay: null, spend: null });
    await admin('PUT', `accounts/${no}/prices`, { prices: [{ prefix: '', channel: 'MMS', price: 0.3 }] });
    await admin('PUT', `accounts/${no}`, { limits: { messagesPerDay: 40 } });
    await admin('POST', `accounts/${no}/credit`, { amount: 2 });
    const { key } = read(await admin('POST', `accounts/${no}/keys`, { label: 'own' }), 200, adminAnswers.key);
    const body = {
      messages: [
        {
          sender: 'Shop',
          destinations: ['41790000001', '41790000002', '1'].map((to) => ({ to })),
          content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        },
      ],
    };
    const headers = { authorization: `App ${key}`, 'content-type': 'application/json' };
    const sent = await door.ask('/mms/2/messages', { method: 'POST', body: JSON.stringify(body), headers });
    expect(sent.status, sent.body).toBe(200);
    // A share of the money is leased: a fiftieth of 2, so what was asked for is all there is to it.
    expect(await usage()).toEqual({
      account: no,
      messagesPerDay: { used: 2, most: 40, left: 38 },
      spend: { per: 'TOTAL', currency: 'EUR', used: 0.6, most: 2, left: 1.4 },
    });
    expect((await admin('GET', 'accounts/none/usage')).status).toBe(404);

    // A credit that was used up, taken away, and given anew: all of the new one can be spent.
    const send = async () => {
      const answer = await door.ask('/mms/2/messages', { method: 'POST', body: JSON.stringify(body), headers });
      return JSON.parse(answer.body).messages.map(({ status }: { status: { id: number } }) => status.id);
    };
    await admin('POST', `accounts/${no}/credit`, { amount: -1.4 });
    expect(await send()).toEqual([12, 12, 52]);
    await admin('PUT', `accounts/${no}`, { limits: { spend: null } });
    await admin('POST', `accounts/${no}/credit`, { amount: 0.6 });
    expect((await usage()).spend).toMatchObject({ used: 0, most: 0.6, left: 0.6 });
    expect((await shown(no)).limits.spend).toEqual({ amount: 0.6, per: 'TOTAL' });
    expect(await send()).toEqual([26, 26, 52]);
    expect((await usage()).spend).toMatchObject({ used: 0.6, left: 0 });
  });
});

describe("an account's endpoints", () => {
  it('are set, shown and removed by the operator, and are those that the account itself sees', async () => {
    const no = await account();
    const { key } = read(await admin('POST', `accounts/${no}/keys`, { label: 'own' }), 200, adminAnswers.key);
    const own = async () =>
      read(await door.ask('/webhooks/1/endpoints', { headers: { authorization: `App ${key}` } }), 200, endpointsAnswer)
        .results;
    const url = 'https://hooks.example.com/mms?token=planted-in-url';
    const headers = { Authorization: 'Bearer planted-in-header' };
    const put = (more: object) => admin('PUT', `accounts/${no}/endpoints`, { kind: 'DELIVERY', url, ...more });
    const made = read(await put({ default: true, headers }), 200, endpointAnswer);
    expect(made.secret).toMatch(/^whsec_/);
    expect(await own()).toMatchObject([{ kind: 'DELIVERY', url, default: true, headers }]);
    expect((await own())[0]?.secrets[0]?.ending).toBe(made.secret?.slice(-4));
    expect(read(await put({ contentType: 'application/xml' }), 200, endpointAnswer).secret).toBeUndefined();
    expect((await put({ url: 'ftp://x' })).status).toBe(400);
    const listed = read(await admin('GET', `accounts/${no}/endpoints`), 200, endpointsAnswer).results;
    expect(listed).toEqual(await own());
    expect(read(await admin('GET', 'accounts/1/endpoints'), 200, endpointsAnswer).results).toEqual([]);
    const query = new URLSearchParams({ kind: 'DELIVERY', url });
    expect((await admin('DELETE', `accounts/1/endpoints?${query}`)).status).toBe(404);
    expect((await admin('DELETE', `accounts/${no}/endpoints?kind=DELIVERY`)).status).toBe(400);
    expect((await admin('DELETE', `accounts/${no}/endpoints?${query}`)).status).toBe(200);
    expect(await own()).toEqual([]);
    const said = JSON.stringify((await lines()).slice(0, 4));
    expect(said).toContain('"url":"https://hooks.example.com/mms"');
    expect(said).not.toMatch(/planted|whsec/);
  });
});

describe('a file of accounts', () => {
  const apply = (accounts: object[], query = ''): Promise<Given> => admin('POST', `apply${query}`, { accounts });
  const applied = async (accounts: object[], query = '') =>
    read(await apply(accounts, query), 200, adminAnswers.applied);
  const bank = (name: string) => ({
    name,
    limits: { messagesPerDay: 100, spend: { amount: 5, per: 'MONTH' } },
    keys: [{ label: 'till', scopes: ['mms:message:send'] }],
    logins: [{ user: `user of ${name}`, password: 'correct horse battery' }],
    senders: ['Bank', '441134960000', 'bank'],
    domains: [`${name.replace(' ', '')}.example`],
    endpoints: [
      { kind: 'DELIVERY', url: 'https://hooks.example.com/a', default: true, headers: { 'X-Shop': '7' } },
      { kind: 'CLICK', url: 'https://hooks.example.com/b', secret: 'given-secret-0123456789' },
      { kind: 'INBOUND', url: 'https://hooks.example.com/c', secret: null },
    ],
    prices: [
      { prefix: '41', channel: 'MMS', price: 0.07 },
      { prefix: '', channel: 'MMS', price: 0.2 },
    ],
    blocks: [{ kind: 'DESTINATION', value: '+4490*' }],
  });

  it('is made so, tells what a dry run tells, and changes nothing the second time', async () => {
    const file = [bank('bank a'), bank('bank b')];
    const before = (await lines()).length;
    const dry = await applied(file, '?dryRun=true');
    expect((await lines()).length).toBe(before);
    expect((await admin('GET', 'accounts/bank%20a')).status).toBe(404);
    const first = await applied(file);
    expect(first.differences).toEqual(dry.differences);
    expect(dry).toMatchObject({ dryRun: true, changes: first.changes, accounts: [{ added: true }, { added: true }] });
    expect(first.changes).toBe(24);
    const [a, b] = first.accounts;
    expect(a?.keys).toEqual([{ label: 'till', key: expect.stringMatching(/^[0-9a-f]{64}$/) }]);
    expect(dry.accounts[0]?.keys).toEqual([{ label: 'till', key: '' }]);
    expect(a?.endpoints).toEqual([
      { kind: 'DELIVERY', url: 'https://hooks.example.com/a', secret: expect.stringMatching(/^whsec_/) },
    ]);
    expect(a?.endpoints[0]?.secret).not.toBe(b?.endpoints[0]?.secret);
    const { results } = read(await admin('GET', `accounts/${b?.account}/endpoints`), 200, endpointsAnswer);
    expect(results.map(({ kind, default: standard, secrets }) => [kind, standard, secrets.length])).toEqual([
      ['DELIVERY', true, 1],
      ['INBOUND', false, 0],
      ['CLICK', false, 1],
    ]);
    expect((await lines()).length).toBe(before + 1);
    for (const query of ['', '?dryRun=true']) {
      expect(await applied(file, query)).toMatchObject({
        changes: 0,
        differences: [],
        accounts: [{ added: false }, {}],
      });
    }
    expect((await lines()).length).toBe(before + 1);
    expect(JSON.stringify([first.differences, await lines()])).not.toMatch(/correct horse|given-secret|whsec/);
  });

  it('tells of each thing that differs what it was and what it will be, of secrets only that', async () => {
    const name = 'differing';
    await applied([bank(name)]);
    const changed = {
      name,
      registeredOnly: true,
      limits: { messagesPerDay: 200, spend: null },
      keys: [{ label: 'till', validUntil: '2027-12-31T00:00:00Z' }],
      logins: [{ user: `user of ${name}`, password: 'another password' }],
      senders: ['Bank', 'Other'],
      domains: [],
      endpoints: [
        { kind: 'DELIVERY', url: 'https://hooks.example.com/a', default: false, headers: { 'X-Shop': '8' } },
        { kind: 'CLICK', url: 'https://hooks.example.com/b', secret: 'other-secret-0123456789' },
      ],
      prices: [{ prefix: '41', channel: 'MMS', price: 0.08 }],
    };
    const { differences } = await applied([changed], '?dryRun=true');
    expect((await applied([changed])).differences).toEqual(differences);
    const told = differences.map(({ what, change, name: of, fields }) => [
      `${change} ${what} ${of}`,
      ...fields.map((field) => `${field.name}: ${JSON.stringify(field.from)} ${JSON.stringify(field.to)}`),
    ]);
    expect(told).toEqual([
      [
        'CHANGED account differing',
        'registeredOnly: false true',
        'limits.messagesPerDay: 100 200',
        'limits.spend: {"amount":5,"per":"MONTH"} null',
      ],
      ['REMOVED sender 441134960000'],
      ['ADDED sender other'],
      ['REMOVED domain differing.example'],
      ['REMOVED price MMS all', 'price: 0.2 null'],
      ['CHANGED price MMS 41', 'price: 0.07 0.08'],
      [`CHANGED login user of ${name}`, 'password: "(secret)" "(secret)"'],
      ['CHANGED key till', 'scopes: ["mms:message:send"] null', 'validUntil: null "2027-12-31T00:00:00.000+0000"'],
      ['CHANGED endpoint DELIVERY https://hooks.example.com/a', 'default: true false', 'headers: "X-Shop" "X-Shop"'],
      ['CHANGED endpoint CLICK https://hooks.example.com/b', 'secret: "(secret)" "(secret)"'],
    ]);
    expect((await applied([changed])).changes).toBe(0);
  });

  it('is taken whole or not at all, and what is wrong is named by its place', async () => {
    await applied([
      { name: 'holder', domains: ['held.example'], logins: [{ user: 'held', password: 'x'.repeat(12) }] },
    ]);
    const before = [(await lines()).length, (await admin('GET', 'accounts')).body];
    const good = { name: 'good', senders: ['Good'] };
    for (const [accounts, status, said] of [
      [
        [good, { name: 'x', domains: ['a.example', 'held.example'] }],
        409,
        ['accounts[1].domains[1] is taken by another account'],
      ],
      [
        [good, { name: 'x', logins: [{ user: 'held', password: 'y'.repeat(12) }] }],
        409,
        ['accounts[1].logins[0].user is taken by another account'],
      ],
      [
        [
          { name: 'x', domains: ['two.example'] },
          { name: 'y', domains: ['two.example'] },
        ],
        409,
        ['accounts[1].domains[0] is taken by another account'],
      ],
      [[good, { ...good }], 400, ['accounts[1].name is the name of another account in this list']],
      [
        [good, { name: 'x', limits: { messagesPerDy: 1 } }],
        400,
        ['accounts[1].limits.messagesPerDy is not known here'],
      ],
      [
        [{ name: 'x', keys: [{ label: 'a' }, { label: 'a' }], endpoints: [{ kind: 'DELIVERY', url: 'nowhere' }] }],
        400,
        [
          'accounts[0].keys[1].label is the label of another key in this list',
          'accounts[0].endpoints[0].url is not a valid url',
        ],
      ],
      [
        [{ name: 'x', keys: ['a', 'b'].map((label) => ({ label, key: 'one-and-the-same-0123' })) }],
        400,
        ['accounts[0].keys[1].key is another one in this list already'],
      ],
      [
        [
          {
            name: 'x',
            endpoints: ['a', 'b'].map((at) => ({ kind: 'CLICK', url: `https://${at}.example`, default: true })),
          },
        ],
        400,
        ['accounts[0].endpoints[1].default is another one of this kind already'],
      ],
      [
        [{ name: 'x', prices: [1, 2].map((price) => ({ prefix: '41', channel: 'MMS', price })) }],
        400,
        ['accounts[0].prices[1].prefix has its price in this list already'],
      ],
    ] as const) {
      for (const query of ['', '?dryRun=true']) {
        const given = await apply([...accounts], query);
        expect([given.status, violations(given)]).toEqual([status, said]);
      }
    }
    expect([(await lines()).length, (await admin('GET', 'accounts')).body]).toEqual(before);
    expect((await apply([], '?dryRun=yes')).status).toBe(400);
    // What one account of the file gives up another one may have.
    await applied([
      { name: 'taker', domains: ['held.example'] },
      { name: 'holder', domains: [] },
    ]);
    const { results } = JSON.parse((await admin('GET', 'accounts/taker/domains')).body);
    expect(results).toEqual([{ domain: 'held.example' }]);
  });

  it('never lets a key in again that was revoked', async () => {
    const key = 'a-key-in-the-file-0123456789';
    const file = [{ name: 'revoking', keys: [{ label: 'leaked', key }] }];
    const [made] = (await applied(file)).accounts;
    const letIn = async () => (await door.ask('/mms/2/logs', { headers: { authorization: `App ${key}` } })).status;
    expect(await letIn()).toBe(200);
    const { results } = JSON.parse((await admin('GET', `accounts/${made?.account}/keys`)).body);
    expect((await admin('DELETE', `accounts/${made?.account}/keys/${results[0].id}`)).status).toBe(200);
    const again = await apply(file);
    expect([again.status, violations(again)]).toEqual([
      409,
      ['accounts[0].keys[0].key was revoked; give another one, or take it out'],
    ]);
    expect(await letIn()).toBe(401);
  });

  it('is one with what others change meanwhile: each of ten files at once is made', async () => {
    const given = await Promise.all(
      Array.from({ length: 10 }, (_, n) => apply([{ name: `racing ${n}`, senders: [`Racing ${n}`] }])),
    );
    expect(given.map(({ status }) => status)).toEqual(Array(10).fill(200));
    const accounts = JSON.parse((await admin('GET', 'accounts')).body).results as { account: number; name: string }[];
    const racing = accounts.filter(({ name }) => name.startsWith('racing'));
    expect(racing).toHaveLength(10);
    for (const { account: no, name } of racing) {
      const { results } = JSON.parse((await admin('GET', `accounts/${no}/senders`)).body);
      expect(results).toEqual([{ sender: name }]);
    }
  });
});
