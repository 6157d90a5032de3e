/** GET and PUT /mms/2/bulks and /mms/2/bulks/status over real HTTP on a real store: the golden pairs, and what they come to. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { apiErrorAnswer, bulkAnswer, bulkStatusAnswer, bulksAnswer } from '../../src/api/answers.ts';
import { formatInstant } from '../../src/domain/schedule.ts';
import { type Given, type OpenDoor, OTHER_KEY, openDoor } from './door.ts';
import { differences, published } from './published.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const JSON_TYPE = 'application/json; charset=UTF-8';

let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ now: Date.now });
});
afterAll(async () => {
  // Nothing on the way was a bug.
  expect(door.lines.filter((line) => line.level === 'error')).toEqual([]);
  await door?.close();
});

const OTHER = { authorization: `App ${OTHER_KEY}` };

function read<T>(given: Given, status: number, schema: { parse(value: unknown): T }): T {
  expect(given.status, given.body).toBe(status);
  expect(given.headers.get('content-type')).toBe(JSON_TYPE);
  return schema.parse(JSON.parse(given.body));
}
function refused(given: Given, status: number): { property: string; violation: string }[] {
  const error = read(given, status, apiErrorAnswer);
  expect(differences(JSON.parse(given.body), published.error)).toEqual([]);
  expect(error.errorCode).toBe(`E${status}`);
  return error.violations;
}

const path = (bulkId: string, status = false): string =>
  `/mms/2/bulks${status ? '/status' : ''}?bulkId=${encodeURIComponent(bulkId)}`;
const put = (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Given> =>
  door.ask(url, {
    method: 'PUT',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
const steer = (bulkId: string, status: string): Promise<Given> => put(path(bulkId, true), { status });
const get = async (bulkId: string) => read(await door.ask(path(bulkId)), 200, bulkAnswer);

let count = 0;
/** Sends to three, answers the bulkId. */
async function send(
  schedule: object = {},
  to: string[] = ['41793026727', '41793026728', '41793026729'],
): Promise<string> {
  const bulkId = `bulk ${++count}/ä`;
  const given = await door.send({
    messages: [
      {
        sender: '441134960000',
        destinations: to.map((one) => ({ to: one })),
        content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
      },
    ],
    options: { schedule: { bulkId, ...schedule } },
  });
  expect(given.status, given.body).toBe(200);
  return bulkId;
}
const ahead = (ms: number): string => formatInstant(Date.now() + ms);
const progress = (some: object): object => ({ accepted: 0, waiting: 0, sent: 0, delivered: 0, failed: 0, ...some });

describe('a bulk', () => {
  it('is shown as it was asked for, with its progress', async () => {
    const sendAt = ahead(DAY);
    const bulkId = await send({ sendAt, sendingSpeedLimit: { amount: 10 } }, ['41793026727', 'bad']);
    const figures = progress({ accepted: 2, waiting: 1, failed: 1 });
    expect(await get(bulkId)).toEqual({
      bulkId,
      sendAt,
      sendingSpeedLimit: { amount: 10, timeUnit: 'MINUTE' },
      status: 'PENDING',
      progress: figures,
    });
    const standing = read(await door.ask(path(bulkId, true)), 200, bulkStatusAnswer);
    expect(standing).toEqual({ bulkId, status: 'PENDING', progress: figures });
  });

  it('without a name is known by the bulkId that the answer gave', async () => {
    const given = await door.send({
      messages: [
        {
          sender: '441134960000',
          destinations: [{ to: '41793026727' }],
          content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        },
      ],
    });
    const { bulkId } = JSON.parse(given.body) as { bulkId: string };
    expect(await get(bulkId)).toMatchObject({
      bulkId,
      status: 'PROCESSING',
      progress: progress({ accepted: 1, waiting: 1 }),
    });
    expect(read(await steer(bulkId, 'PAUSED'), 200, bulkStatusAnswer).status).toBe('PAUSED');
    const again = await door.send({
      messages: [
        {
          sender: 'Shop',
          destinations: [{ to: '41793026728' }],
          content: { messageSegments: [{ type: 'TEXT', text: 'x' }] },
        },
      ],
      options: { schedule: { bulkId } },
    });
    expect(JSON.parse(again.body)).toMatchObject({ bulkId });
    expect((await get(bulkId)).progress).toEqual(progress({ accepted: 2, waiting: 2 }));
    expect(read(await steer(bulkId, 'CANCELED'), 200, bulkStatusAnswer).status).toBe('CANCELED');
  });

  it('is paused, resumed and cancelled, and tells what was refused', async () => {
    const bulkId = await send();
    expect(read(await steer(bulkId, 'PROCESSING'), 200, bulkStatusAnswer).status).toBe('PROCESSING');
    for (const again of [1, 2]) {
      expect(read(await steer(bulkId, 'PAUSED'), 200, bulkStatusAnswer).status, String(again)).toBe('PAUSED');
    }
    expect(refused(await steer(bulkId, 'PENDING'), 409)).toEqual([
      { property: 'status', violation: 'cannot become PENDING while the bulk is PAUSED' },
    ]);
    expect(read(await steer(bulkId, 'PROCESSING'), 200, bulkStatusAnswer).status).toBe('PROCESSING');
    expect(refused(await steer(bulkId, 'FINISHED'), 409)).toEqual([
      { property: 'status', violation: 'cannot become FINISHED while the bulk is PROCESSING' },
    ]);
    expect(read(await steer(bulkId, 'CANCELED'), 200, bulkStatusAnswer).status).toBe('CANCELED');
    expect(read(await steer(bulkId, 'CANCELED'), 200, bulkStatusAnswer).status).toBe('CANCELED');
    for (const status of ['PAUSED', 'PROCESSING', 'PENDING', 'FINISHED']) {
      expect(refused(await steer(bulkId, status), 409)).toEqual([
        { property: 'status', violation: `cannot become ${status} while the bulk is CANCELED` },
      ]);
    }
    // Nothing of it leaves, and nobody joins it.
    const taken: string[] = [];
    await door.submit((to) => {
      taken.push(to);
      return { kind: 'accepted', carrierMessageId: `x${taken.length}` };
    });
    while (await door.store.sweep());
    expect(await get(bulkId)).toMatchObject({ status: 'CANCELED', progress: progress({ accepted: 3, failed: 3 }) });
    const join = await door.send({
      messages: [
        {
          sender: 'Shop',
          destinations: [{ to: '41793026727' }],
          content: { messageSegments: [{ type: 'TEXT', text: 'x' }] },
        },
      ],
      options: { schedule: { bulkId } },
    });
    expect(refused(join, 409)).toEqual([{ property: 'options.schedule.bulkId', violation: 'this bulk is cancelled' }]);
  });

  it('paused ahead of its time is PENDING again when it goes on, asked for by either name', async () => {
    const bulkId = await send({ sendAt: ahead(DAY) });
    expect(refused(await steer(bulkId, 'PROCESSING'), 409)[0]?.violation).toContain('PENDING');
    for (const name of ['PROCESSING', 'PENDING']) {
      await steer(bulkId, 'PAUSED');
      expect(read(await steer(bulkId, name), 200, bulkStatusAnswer).status).toBe('PENDING');
    }
    expect(read(await steer(bulkId, 'PENDING'), 200, bulkStatusAnswer).status).toBe('PENDING');
  });

  it('is moved and gets another pace, together or alone', async () => {
    const bulkId = await send({ sendAt: ahead(DAY) });
    const sendAt = ahead(3 * DAY);
    const changed = read(
      await put(path(bulkId), { sendAt, sendingSpeedLimit: { amount: 7, timeUnit: 'HOUR' } }),
      200,
      bulkAnswer,
    );
    expect(changed).toMatchObject({ sendAt, sendingSpeedLimit: { amount: 7, timeUnit: 'HOUR' }, status: 'PENDING' });
    expect(await get(bulkId)).toEqual(changed);
    read(await put(path(bulkId), { sendingSpeedLimit: { amount: 8 } }), 200, bulkAnswer);
    // In another zone, and in the past: now.
    const now = read(await put(path(bulkId), { sendAt: '2026-01-01T00:00:00.000+01:00' }), 200, bulkAnswer);
    expect(now).toMatchObject({ status: 'PROCESSING', sendingSpeedLimit: { amount: 8, timeUnit: 'MINUTE' } });
    expect(refused(await put(path(bulkId), { sendAt: ahead(DAY) }), 409)).toEqual([
      { property: 'sendAt', violation: 'can be changed only while the bulk is PENDING or PAUSED, it is PROCESSING' },
    ]);
    expect(
      refused(await put(path(bulkId), { sendAt: ahead(DAY), sendingSpeedLimit: { amount: 9 } }), 409),
    ).toHaveLength(1);
    expect((await get(bulkId)).sendingSpeedLimit).toEqual({ amount: 8, timeUnit: 'MINUTE' });
    await steer(bulkId, 'CANCELED');
    expect(refused(await put(path(bulkId), { sendAt: ahead(DAY), sendingSpeedLimit: { amount: 9 } }), 409)).toEqual([
      { property: 'sendAt', violation: 'can be changed only while the bulk is PENDING or PAUSED, it is CANCELED' },
      { property: 'sendingSpeedLimit', violation: 'can be changed only until the bulk has ended, it is CANCELED' },
    ]);
  });

  it('is FINISHED when each of its messages is final, and reopened by a join', async () => {
    const bulkId = await send();
    await door.submit((to) => ({ kind: 'accepted', carrierMessageId: `${bulkId} ${to}` }));
    expect(await get(bulkId)).toMatchObject({ status: 'PROCESSING', progress: progress({ accepted: 3, sent: 3 }) });
    for (const to of ['41793026727', '41793026728', '41793026729']) {
      expect((await get(bulkId)).status).toBe('PROCESSING');
      await door.store.report({
        carrier: 'test',
        carrierMessageId: `${bulkId} ${to}`,
        addresses: [to],
        kind: 'retrieved',
        words: '',
      });
    }
    expect(await get(bulkId)).toMatchObject({ status: 'FINISHED', progress: progress({ accepted: 3, delivered: 3 }) });
    expect(read(await steer(bulkId, 'FINISHED'), 200, bulkStatusAnswer).status).toBe('FINISHED');
    for (const status of ['PAUSED', 'PROCESSING', 'CANCELED']) refused(await steer(bulkId, status), 409);
  });
});

describe('the list', () => {
  it('pages newest first, of one account, with a cursor that only we can read', async () => {
    const ids: string[] = [];
    for (let n = 0; n < 5; n++) ids.unshift(await send());
    const seen: string[] = [];
    for (let cursor = ''; seen.length < 5; ) {
      const page = read(await door.ask(`/mms/2/bulks?limit=2&cursor=${cursor}`), 200, bulksAnswer);
      expect(page.results.length).toBe(2);
      expect(page.cursor.limit).toBe(2);
      seen.push(...page.results.map((bulk) => bulk.bulkId));
      cursor = page.cursor.nextCursor as string;
      expect(cursor).toMatch(/^[0-9a-f-]{36}$/);
    }
    expect(seen.slice(0, 5)).toEqual(ids);
    const other = read(await door.ask('/mms/2/bulks', { headers: OTHER }), 200, bulksAnswer);
    expect(other).toEqual({ results: [], cursor: { limit: 50 } });
  });

  it.each([
    ['limit=0', 'limit', 'must be greater than or equal to 1'],
    ['limit=1001', 'limit', 'must be less than or equal to 1000'],
    ['limit=x', 'limit', 'must be a integer'],
    ['cursor=x', 'cursor', 'is not a valid cursor'],
    ['bulkId=a&bulkId=b', 'bulkId', 'must be a string'],
  ])('refuses ?%s', async (query, property, violation) => {
    expect(refused(await door.ask(`/mms/2/bulks?${query}`), 400)).toEqual([{ property, violation }]);
  });
});

describe('what makes no sense', () => {
  it('an unknown bulk, and one of another account, is not found by any of them', async () => {
    const bulkId = await send();
    for (const [id, headers] of [
      ['nobody', {}],
      [door.ids.print('bulk', 999_999_999), {}],
      ["' OR '1'='1", {}],
      [bulkId, OTHER],
    ] as [string, Record<string, string>][]) {
      for (const status of [false, true]) {
        refused(await door.ask(path(id, status), { headers }), 404);
        refused(await put(path(id, status), status ? { status: 'PAUSED' } : { sendAt: ahead(DAY) }, headers), 404);
      }
      refused(await put(path(id, true), { status: 'FINISHED' }, headers), 404);
    }
    expect((await get(bulkId)).status).toBe('PROCESSING');
  });

  const bodies: [string, boolean, unknown, [string, string][]][] = [
    ['nothing in it', false, {}, [['', 'Provide sendAt, sendingSpeedLimit or both.']]],
    [
      'null, which is absent',
      false,
      { sendAt: null, sendingSpeedLimit: null },
      [['', 'Provide sendAt, sendingSpeedLimit or both.']],
    ],
    [
      'no zone',
      false,
      { sendAt: '2026-12-01T00:00:00' },
      [['sendAt', "must be a date-time with zone: yyyy-MM-dd'T'HH:mm:ss.SSSZ"]],
    ],
    ['a number as an instant', false, { sendAt: 1 }, [['sendAt', 'must be a string']]],
    ['no amount', false, { sendingSpeedLimit: {} }, [['sendingSpeedLimit.amount', 'must not be null']]],
    [
      'an amount of 0',
      false,
      { sendingSpeedLimit: { amount: 0 } },
      [['sendingSpeedLimit.amount', 'must be greater than or equal to 1']],
    ],
    [
      'half an amount',
      false,
      { sendingSpeedLimit: { amount: 1.5 } },
      [['sendingSpeedLimit.amount', 'must be a integer']],
    ],
    [
      'an amount as text',
      false,
      { sendingSpeedLimit: { amount: '5' } },
      [['sendingSpeedLimit.amount', 'must be a integer']],
    ],
    [
      'a week',
      false,
      { sendingSpeedLimit: { amount: 5, timeUnit: 'WEEK' } },
      [['sendingSpeedLimit.timeUnit', 'Provide one of the valid values.']],
    ],
    [
      'two faults',
      false,
      { sendingSpeedLimit: { amount: 0 }, sendAt: 'soon' },
      [
        ['sendingSpeedLimit.amount', 'must be greater than or equal to 1'],
        ['sendAt', "must be a date-time with zone: yyyy-MM-dd'T'HH:mm:ss.SSSZ"],
      ],
    ],
    ['an array', false, [], [['', 'must be a object']]],
    ['no status', true, {}, [['status', 'must not be null']]],
    ['null as a status', true, { status: null }, [['status', 'must not be null']]],
    ['a status of nobody', true, { status: 'STOPPED' }, [['status', 'Provide one of the valid values.']]],
    ['lower case', true, { status: 'paused' }, [['status', 'Provide one of the valid values.']]],
    ['a number as a status', true, { status: 1 }, [['status', 'must be a string']]],
    ['an array', true, [], [['', 'must be a object']]],
    ['a text', true, '"PAUSED"', [['', 'must be a object']]],
  ];
  it.each(bodies)('a body with %s (status: %s) is a 400 that says so', async (_words, status, body, violations) => {
    const bulkId = await send({ sendAt: ahead(HOUR) });
    const expected = violations.map(([property, violation]) => ({ property, violation }));
    expect(refused(await put(path(bulkId, status), body), 400)).toEqual(expected);
    expect((await get(bulkId)).status).toBe('PENDING');
  });

  it('more than 180 days ahead', async () => {
    const bulkId = await send({ sendAt: ahead(HOUR) });
    expect(refused(await put(path(bulkId), { sendAt: ahead(180 * DAY + 5000) }), 400)).toEqual([
      { property: 'sendAt', violation: 'must not be more than 180 days ahead' },
    ]);
    expect((await put(path(bulkId), { sendAt: ahead(180 * DAY - 5000) })).status).toBe(200);
  });

  it('takes unknown members, and no other body, type, encoding, size or key', async () => {
    const bulkId = await send();
    expect((await put(path(bulkId, true), { status: 'PAUSED', because: 'x' })).status).toBe(200);
    expect(refused(await put(path(bulkId, true), '{"status":'), 400)[0]?.property).toBe('');
    expect(refused(await put(path(bulkId, true), ''), 400)[0]?.property).toBe('');
    refused(await put(path(bulkId, true), { status: 'PROCESSING' }, { 'content-type': 'text/plain' }), 415);
    refused(await put(path(bulkId, true), { status: 'PROCESSING' }, { 'content-encoding': 'gzip' }), 415);
    refused(await put(path(bulkId, true), `{"status":"PROCESSING","x":"${'x'.repeat(20_000)}"}`), 413);
    refused(await put(path(bulkId, true), { status: 'PROCESSING' }, { authorization: 'App wrong' }), 401);
    refused(await door.ask(path(bulkId), { headers: { authorization: 'App wrong' } }), 401);
    expect((await get(bulkId)).status).toBe('PAUSED');
  });

  it('needs to know which bulk', async () => {
    const missing = [{ property: 'bulkId', violation: 'must not be null' }];
    for (const query of ['', '?bulkId=']) {
      expect(refused(await door.ask(`/mms/2/bulks/status${query}`), 400)).toEqual(missing);
      expect(refused(await put(`/mms/2/bulks/status${query}`, { status: 'PAUSED' }), 400)).toEqual(missing);
      expect(refused(await put(`/mms/2/bulks${query}`, { sendAt: ahead(DAY) }), 400)).toEqual(missing);
    }
  });
});
