/**
 * Refusals in the form of their endpoint: every operation of the OpenAPI document is asked without a key, with one that may not,
 * over its limit, with another method, and while the store is away or has a bug; each answer is one that the document tells of, in
 * the form of its path's family (`ApiError`, the older `requestError`), as JSON and, where Accept prefers it, as XML.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adminAnswers } from '../../src/api/admin-schema.ts';
import { apiErrorAnswer, olderErrorAnswer } from '../../src/api/answers.ts';
import { type Store, StoreUnavailable } from '../../src/store/contract.ts';
import { readXml, textOf } from '../../src/xml.ts';
import { type Given, type OpenDoor, openDoor } from './door.ts';

const ADMIN_KEY = 'operator-key-0123456789';

interface Operation {
  method: string;
  /** With names in place of its parameters. */
  path: string;
  /** As the document writes it. */
  template: string;
  responses: Record<string, { content?: Record<string, unknown> }>;
  security: Record<string, unknown>[];
}

/** Bodies and queries that get as far as the store. */
const BODIES: Record<string, unknown> = {
  'POST /mms/2/messages': {
    messages: [
      {
        sender: 'Shop',
        destinations: [{ to: '41790000001' }],
        content: { messageSegments: [{ type: 'TEXT', text: 'a' }] },
      },
    ],
  },
  'POST /mms/1/advanced': {
    messages: [{ from: 'Shop', destinations: [{ to: '41790000001' }], messageSegments: [{ text: 'a' }] }],
  },
  'PUT /mms/2/bulks': { sendAt: '2020-01-01T00:00:00.000Z' },
  'PUT /mms/2/bulks/status': { status: 'PAUSED' },
  'POST /mms/1/optouts': { optOuts: [{ sender: 'Shop', destination: '41790000001' }] },
  'POST /webhooks/1/replay': { endpoint: 'https://example.com/x' },
  'POST /webhooks/1/rearm': { takenSince: '2026-01-01T00:00:00.000Z' },
  'PUT /webhooks/1/endpoints': { kind: 'DELIVERY', url: 'https://example.com/x' },
};
const QUERIES: Record<string, string> = {
  'PUT /mms/2/bulks': '?bulkId=x',
  'GET /mms/2/bulks/status': '?bulkId=x',
  'PUT /mms/2/bulks/status': '?bulkId=x',
  'GET /mms/2/clicks': '?messageId=x',
  'DELETE /mms/1/optouts': '?sender=Shop&destination=41790000001',
  'DELETE /webhooks/1/endpoints': '?kind=DELIVERY&url=https%3A%2F%2Fexample.com%2Fx',
};

let door: OpenDoor;
let failing: 'no' | 'away' | 'bug' = 'no';
let operations: Operation[] = [];
/** Credentials by what they are good for. */
const keys = { none: '', logs: '', inbound: '', once: '', all: '' };

function wrap(store: Store): Store {
  // What every request needs to be let in, and what the test itself does.
  const sound = new Set(['directory', 'quota', 'onHint', 'close', 'identity', 'keys', 'stats', 'feed']);
  return new Proxy(store, {
    get(target, name, receiver) {
      const verb = Reflect.get(target, name, receiver) as unknown;
      if (typeof verb !== 'function' || sound.has(String(name))) return verb;
      return (...given: unknown[]) => {
        if (failing === 'away') return Promise.reject(new StoreUnavailable('the disk is full'));
        if (failing === 'bug') return Promise.reject(new Error('planted'));
        return (verb as (...given: unknown[]) => unknown).apply(target, given);
      };
    },
  });
}

const ask = (
  operation: Operation,
  authorization: string,
  accept?: string,
  method = operation.method,
): Promise<Given> => {
  const name = `${operation.method} ${operation.template}`;
  const bodied = method === 'POST' || method === 'PUT';
  const content = operation.template === '/mms/1/content';
  return door.ask(operation.path + (QUERIES[name] ?? ''), {
    method,
    headers: {
      authorization,
      ...(accept === undefined ? {} : { accept }),
      ...(bodied && !content ? { 'content-type': 'application/json' } : {}),
      ...(content ? { 'x-content-id': 'a.txt', 'x-media-type': 'text/plain' } : {}),
    },
    ...(bodied ? { body: content ? 'bytes' : JSON.stringify(BODIES[name] ?? {}) } : {}),
  });
};

const admin = async (method: string, path: string, body: object): Promise<unknown> =>
  JSON.parse(
    (
      await door.ask(`/admin/1/${path}`, {
        method,
        headers: { authorization: `App ${ADMIN_KEY}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
    ).body,
  );

beforeAll(async () => {
  door = await openDoor({ settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY }, wrap });
  const { account } = adminAnswers.account.parse(
    await admin('POST', 'accounts', { name: 'forms', limits: { logsPerMinute: null } }),
  );
  const key = async (rules: object): Promise<string> =>
    adminAnswers.key.parse(await admin('POST', `accounts/${account}/keys`, { label: 'x', ...rules })).key as string;
  keys.all = `App ${await key({})}`;
  keys.logs = `App ${await key({ scopes: ['mms:logs:read'] })}`;
  keys.inbound = `App ${await key({ scopes: ['inbound-message:read'] })}`;
  const document = JSON.parse((await door.ask('/openapi.json')).body) as {
    paths: Record<string, Record<string, Omit<Operation, 'method' | 'path' | 'template'>>>;
  };
  operations = Object.entries(document.paths).flatMap(([template, methods]) =>
    Object.entries(methods).map(([method, { responses, security = [] }]) => ({
      method: method.toUpperCase(),
      template,
      path: template
        .replace('{account}', String(account))
        .replace('{id}', door.ids.print('webhook', 7))
        .replaceAll(/\{\w+\}/g, 'x'),
      responses,
      security,
    })),
  );
  async function fresh(): Promise<void> {
    keys.once = `App ${await key({ requestsPerMinute: 1 })}`;
  }
  await fresh();
});
afterAll(() => door?.close());

/** What a customer's key opens. */
const customers = (): Operation[] => operations.filter(({ security }) => security.some((one) => 'APIKeyHeader' in one));
const operators = (): Operation[] => operations.filter(({ security }) => security.some((one) => 'AdminKey' in one));
const isOlder = (path: string): boolean => /^\/(mms|auth)\/1\//.test(path);

/** Status, form and document of one refusal, in both forms. */
async function refused(operation: Operation, status: number, authorization: string, method?: string): Promise<void> {
  const words = `${method ?? operation.method} ${operation.path}`;
  const json = await ask(operation, authorization, undefined, method);
  expect([words, json.status], json.body).toEqual([words, status]);
  expect([words, json.headers.get('content-type')]).toEqual([words, 'application/json; charset=UTF-8']);
  const older = isOlder(operation.path);
  const parsed = (older ? olderErrorAnswer : apiErrorAnswer).parse(JSON.parse(json.body)) as {
    errorCode?: string;
    description?: string;
    requestError?: { serviceException: { messageId: string; text: string } };
  };
  const wait = json.headers.get('retry-after');
  expect([words, wait !== null && /^[1-9]\d*$/.test(wait)]).toEqual([words, status === 429 || status === 503]);
  expect([words, Object.keys(operation.responses).includes(String(status))]).toEqual([words, true]);
  const told = Object.keys(operation.responses[String(status)]?.content ?? {});
  expect([words, told.sort()]).toEqual([words, ['application/json', 'application/xml']]);

  const xml = await ask(operation, authorization, 'application/xml, application/json;q=0.5', method);
  expect([words, xml.status]).toEqual([words, status]);
  expect([words, xml.headers.get('content-type')]).toEqual([words, 'application/xml; charset=UTF-8']);
  const read = readXml(xml.body);
  if (!read.ok) throw new Error(`${words}: ${xml.body}`);
  const { root } = read;
  if (older) {
    const { messageId, text } = parsed.requestError?.serviceException ?? { messageId: '', text: '' };
    const place = ['requestError', 'serviceException'];
    expect([root.name, textOf(root, ...place, 'messageId')]).toEqual(['ApiException', messageId]);
    expect(textOf(root, ...place, 'text')).toContain(text);
  } else {
    expect([root.name, textOf(root, 'errorCode'), textOf(root, 'description')]).toEqual([
      'ApiError',
      parsed.errorCode,
      parsed.description,
    ]);
  }
}

describe('whatever a key opens', () => {
  it('is everything that customers have', () => {
    expect(customers().length).toBeGreaterThan(20);
    expect(operators().length).toBeGreaterThan(25);
  });

  it('says 401 in its own form to whoever shows no key or a wrong one', async () => {
    for (const operation of customers()) {
      await refused(operation, 401, 'App nobody');
      expect((await ask(operation, 'App nobody')).headers.get('www-authenticate')).toBe('App');
    }
  });

  it('says 403 in its own form to a key without the scope', async () => {
    for (const operation of customers()) {
      await refused(operation, 403, operation.path === '/mms/1/inbox/reports' ? keys.logs : keys.inbound);
    }
  });

  it('says 429 in its own form, with Retry-After, to a key that asked too often', async () => {
    await ask(customers()[0] as Operation, keys.once);
    for (const operation of customers()) await refused(operation, 429, keys.once);
  });

  it('says 405 in its own form, and which methods there are', async () => {
    for (const operation of customers()) {
      await refused(operation, 405, keys.all, 'PATCH');
      expect((await ask(operation, keys.all, undefined, 'PATCH')).headers.get('allow')).toContain(operation.method);
    }
  });

  it('says 503 with Retry-After while the store is away, and 500 for a bug, in its own form', async () => {
    const asking = customers().filter(({ path }) => path !== '/mms/2/events');
    for (const [mode, status] of [
      ['away', 503],
      ['bug', 500],
    ] as const) {
      failing = mode;
      try {
        for (const operation of asking) await refused(operation, status, keys.all);
      } finally {
        failing = 'no';
      }
    }
    expect(door.lines.filter(({ message }) => message === 'request failed: a bug')).toHaveLength(2 * asking.length);
  });
});

describe("the operator's door", () => {
  it('says 401 and 405 in the newer form', async () => {
    for (const operation of operators()) {
      await refused(operation, 401, keys.all);
      await refused(operation, 405, `App ${ADMIN_KEY}`, 'PATCH');
    }
  });
});

describe('where tokens are had', () => {
  const at = (path: string, init: RequestInit, accept?: string): Promise<Given> =>
    door.ask(path, { ...init, headers: { ...init.headers, ...(accept ? { accept } : {}) } });

  it('says 400, 401, 405 and 415 of a session in the older form', async () => {
    const body = (value: unknown): RequestInit => ({
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(value),
    });
    const cases: [number, RequestInit][] = [
      [400, body({})],
      [401, body({ username: 'x', password: 'y' })],
      [401, { method: 'DELETE', headers: { authorization: 'IBSSO x' } }],
      [405, { method: 'PUT' }],
      [415, { method: 'POST', body: 'username=x', headers: { 'content-type': 'text/plain' } }],
    ];
    for (const [status, init] of cases) {
      const json = await at('/auth/1/session', init);
      expect(json.status).toBe(status);
      olderErrorAnswer.parse(JSON.parse(json.body));
      const xml = await at('/auth/1/session', init, 'application/xml');
      expect([xml.status, xml.body.slice(0, 60)]).toEqual([
        status,
        '<?xml version="1.0" encoding="UTF-8"?><ApiException><request',
      ]);
    }
  });

  it('says what is wrong with a request for a token as OAuth has it, in JSON, whatever Accept says', async () => {
    const init = { method: 'POST', body: new URLSearchParams({ grant_type: 'password' }) };
    const given = await at('/auth/1/oauth2/token', init, 'application/xml');
    expect([given.status, given.headers.get('content-type')]).toEqual([400, 'application/json; charset=UTF-8']);
    expect(JSON.parse(given.body)).toMatchObject({ error: 'unsupported_grant_type' });
  });
});

describe('nothing', () => {
  it('is 404 in the form of its family', async () => {
    const nowhere = (path: string): Promise<string> =>
      door
        .ask(path, { headers: { accept: 'application/xml' } })
        .then(({ status, body }) => `${status} ${body.slice(38, 52)}`);
    expect(await nowhere('/mms/2/nothing')).toBe('404 <ApiError><err');
    expect(await nowhere('/mms/1/nothing')).toBe('404 <ApiException>');
    expect(await nowhere('/admin/1/nothing')).toBe('401 <ApiError><err');
  });
});
