/**
 * Who may see and touch what: S17 (how long a wrong key takes), S19 (every endpoint asked with another account's ids), S30 and S18's
 * revocation. Roles, scopes, passwords and limits are in `test/api/accounts.test.ts`.
 */
import { performance } from 'node:perf_hooks';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createAuth } from '../../src/api/auth.ts';
import { realClock, testEnv } from '../../src/env.ts';
import { KEY, type OpenDoor, OTHER_KEY, openDoor } from '../api/door.ts';

/** Stands in everything that the first account has, and nowhere else. */
const MARK = 'canary';
const TO = '491700004711';

let door: OpenDoor;
let bulkId = '';
let messageId = '';
let uploadId = '';

const own = (path: string, init: RequestInit = {}) =>
  door.ask(path, { ...init, headers: { 'content-type': 'application/json', ...init.headers } });
const other = (path: string, init: RequestInit = {}) =>
  own(path, { ...init, headers: { ...init.headers, authorization: `App ${OTHER_KEY}` } });

beforeAll(async () => {
  door = await openDoor({ now: () => Date.now() });
  const upload = await own('/mms/1/content', {
    method: 'POST',
    headers: { 'x-content-id': `${MARK}.txt`, 'x-media-type': 'text/plain' },
    body: `${MARK} bytes`,
  });
  uploadId = (JSON.parse(upload.body) as { uploadedContentId: string }).uploadedContentId;
  const sent = await door.send({
    options: {
      schedule: {
        bulkId: `${MARK}-bulk`,
        sendAt: new Date(Date.now() + 3_600_000).toISOString().replace('Z', '+0000'),
      },
    },
    messages: [
      {
        sender: 'Postcard',
        destinations: [{ to: TO, messageId: `${MARK}-message` }],
        content: {
          title: `${MARK} title`,
          messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId: uploadId }],
        },
        options: {
          campaignReferenceId: `${MARK}-campaign`,
          platform: { entityId: `${MARK}-entity`, applicationId: `${MARK}-app` },
        },
        webhooks: { callbackData: `${MARK} callback` },
      },
    ],
  });
  expect([sent.status, sent.body]).toEqual([200, expect.any(String)]);
  const answer = JSON.parse(sent.body) as { bulkId: string; messages: { messageId: string }[] };
  bulkId = answer.bulkId;
  messageId = answer.messages[0]?.messageId ?? '';
  // One that is done, whose report waits to be pulled.
  const done = await door.send({
    messages: [
      {
        sender: 'Postcard',
        destinations: [{ to: TO, messageId: `${MARK}-done` }],
        content: { messageSegments: [{ type: 'TEXT', text: `${MARK} text` }] },
        webhooks: { callbackData: `${MARK} callback` },
      },
    ],
  });
  expect(done.status).toBe(200);
  await door.submit(() => ({ kind: 'refused', error: { id: 15009, words: `${MARK} words` } }));
  for (const body of [{ kind: 'DELIVERY', url: `https://customer.example/${MARK}` }]) {
    expect((await own('/webhooks/1/endpoints', { method: 'PUT', body: JSON.stringify(body) })).status).toBe(200);
  }
});

afterAll(async () => {
  const bugs = door.lines.filter((line) => line.level === 'error');
  await door.close();
  expect(bugs).toEqual([]);
});

interface Operation {
  path: string;
  method: string;
}

/** What the server says that it has, so that a new endpoint is asked too. */
async function operations(): Promise<Operation[]> {
  const { paths } = JSON.parse((await own('/openapi.json')).body) as { paths: Record<string, Record<string, unknown>> };
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods)
      .filter((method) => ['get', 'post', 'put', 'patch', 'delete'].includes(method))
      .map((method) => ({ path, method: method.toUpperCase() })),
  );
}

/** The first account's names, in every place that takes one. */
function filled({ path }: Operation, id: string): string {
  const place = path.replaceAll(/\{[^}]+\}|:[a-zA-Z]+/g, encodeURIComponent(id));
  if (place.startsWith('/mms/2/logs') || place.startsWith('/mms/2/reports')) {
    return `${place}?bulkId=${encodeURIComponent(bulkId)}&limit=100`;
  }
  if (path.includes('bulks')) return `${place}?bulkId=${encodeURIComponent(bulkId)}`;
  if (path.includes('endpoints'))
    return `${place}?kind=DELIVERY&url=${encodeURIComponent(`https://customer.example/${MARK}`)}`;
  return place;
}

const BODIES = [
  {},
  { sendAt: '2030-01-01T00:00:00.000+0000' },
  { status: 'CANCELED' },
  { messages: [{ sender: 'Postcard', destinations: [{ to: '491700000002' }], content: { messageSegments: [] } }] },
];
/** Streams that do not end, and what makes sessions. */
const LEFT_OUT = /\/events$|^\/auth|^\/admin|^\/(livez|readyz|metrics|openapi\.json)$/;

describe('S19: another account', () => {
  it('gets nothing of the first one by any endpoint and any of its ids, and changes nothing', async () => {
    const all = (await operations()).filter(({ path }) => !LEFT_OUT.test(path));
    expect(all.length).toBeGreaterThan(12);
    const before = (await own(`/mms/2/messages/${messageId}`)).body;
    expect(before).toContain(`${MARK} title`);
    const asked: string[] = [];
    for (const operation of all) {
      for (const id of [messageId, `${MARK}-done`, bulkId, uploadId]) {
        const bodies = operation.method === 'GET' || operation.method === 'DELETE' ? [null] : BODIES;
        for (const body of bodies) {
          const path = filled(operation, id);
          const given = await other(path, {
            method: operation.method,
            ...(body ? { body: JSON.stringify(body) } : {}),
          });
          asked.push(`${operation.method} ${path} ${given.status}`);
          expect(given.status, asked.at(-1)).toBeLessThan(500);
          // The names that it gave itself may come back in what is said of them; nothing else.
          const shown = given.body
            .replaceAll(`${MARK}-bulk`, '')
            .replaceAll(`${MARK}-message`, '')
            .replaceAll(`${MARK}-done`, '')
            .replaceAll(`https://customer.example/${MARK}`, '');
          expect(shown, asked.at(-1)).not.toContain(MARK);
          expect(given.body, asked.at(-1)).not.toContain(TO);
        }
      }
    }
    // By name it is as if they were not there.
    expect((await other(`/mms/2/messages/${messageId}`)).status).toBe(404);
    expect((await other(`/mms/2/bulks?bulkId=${bulkId}`)).status).toBe(404);
    for (const path of ['/mms/2/logs', '/mms/2/reports']) {
      expect(JSON.parse((await other(`${path}?bulkId=${bulkId}`)).body)).toMatchObject({ results: [] });
    }
    const taken = await other('/mms/2/messages', {
      method: 'POST',
      body: JSON.stringify({
        messages: [
          {
            sender: 'Postcard',
            destinations: [{ to: '491700000002' }],
            content: { messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId: uploadId }] },
          },
        ],
      }),
    });
    expect([taken.status, taken.body]).toEqual([400, expect.not.stringContaining(`${MARK} bytes`)]);
    // What it tried to change and to take is as it was.
    expect((await own(`/mms/2/messages/${messageId}`)).body).toBe(before);
    expect((await own('/webhooks/1/endpoints')).body).toContain(`https://customer.example/${MARK}`);
    expect((await own(`/mms/2/bulks/status?bulkId=${bulkId}`)).body).toContain('PENDING');
    expect((await own('/mms/2/reports')).body).toContain(`${MARK}-done`);
  });

  it('has ids of its own under the same names', async () => {
    const body = {
      messages: [
        {
          sender: 'Postcard',
          destinations: [{ to: '491700000003', messageId: `${MARK}-message` }],
          content: { messageSegments: [{ type: 'TEXT', text: 'mine' }] },
        },
      ],
    };
    const given = await other('/mms/2/messages', { method: 'POST', body: JSON.stringify(body) });
    expect(JSON.parse(given.body)).toMatchObject({ messages: [{ messageId: `${MARK}-message`, status: { id: 26 } }] });
    const story = await other(`/mms/2/messages/${MARK}-message`);
    expect(story.body).toContain('491700000003');
    expect(story.body).not.toContain(TO);
  });
});

// ------------------------------------------------------------------------------------------------------------- timing

const PAIRS = 100_000;
const ROUNDS = 10;
/** Between runs of the same code on a busy machine medians differ by less than this. */
const APART = 0.05;

function median(values: number[]): number {
  values.sort((a, b) => a - b);
  return values[values.length >> 1] as number;
}

/** Whether two inputs can be told apart by how long `ask` takes: in every round the same one is slower, and by enough. */
function separated(ask: (which: 'near' | 'far', i: number) => void): boolean {
  let sign = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const took = { near: [] as number[], far: [] as number[] };
    for (let i = 0; i < PAIRS / ROUNDS; i++) {
      for (const which of (i % 2 === 0 ? ['near', 'far'] : ['far', 'near']) as ('near' | 'far')[]) {
        const began = performance.now();
        ask(which, i);
        took[which].push(performance.now() - began);
      }
    }
    const [near, far] = [median(took.near), median(took.far)];
    if (Math.abs(near - far) < APART * Math.max(near, far)) return false;
    if (sign !== 0 && Math.sign(near - far) !== sign) return false;
    sign = Math.sign(near - far);
  }
  return true;
}

describe('S17: a wrong key', () => {
  /** All but its last character right; nothing of it right. */
  const NEAR = `${KEY.slice(0, -1)}~`;
  const FAR = '~'.repeat(KEY.length);

  it(`cannot be told from a worse one by how long it takes, over ${PAIRS} pairs`, { timeout: 120_000 }, async () => {
    const auth = await createAuth(door.store, { ...testEnv(), clock: realClock });
    try {
      expect(auth.caller(`App ${KEY}`, '127.0.0.1')).toMatchObject({ account: 1 });
      for (const wrong of [NEAR, FAR]) expect(auth.caller(`App ${wrong}`, '127.0.0.1')).toBe(null);
      const headers = { near: `App ${NEAR}`, far: `App ${FAR}` };
      expect(separated((which) => void auth.caller(headers[which], '127.0.0.1'))).toBe(false);
    } finally {
      auth.close();
    }
  });

  it('could be, were it compared character by character: the case that shows that the other can fail', () => {
    const same = (a: string, b: string): boolean => {
      for (let i = 0; i < a.length; i++) {
        // As much as a slow machine takes for one, so that the clock can see it.
        for (let n = 0; n < 200; n++) if (a.charCodeAt(i) !== b.charCodeAt(i)) return false;
      }
      return true;
    };
    expect(separated((which) => void same(which === 'near' ? NEAR : FAR, KEY))).toBe(true);
  });
});
