import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { SERVER_CERT, SERVER_KEY } from '../../test/certificates.ts';
import { type Env, testEnv } from '../env.ts';
import { createClient, type StatusView, type StoryView } from './client.ts';
import { type SendOptions, send, show } from './send.ts';
import { Failure, type Io } from './terminal.ts';

const ACCEPTED = status(1, 'PENDING', 26, 'PENDING_ACCEPTED');
const ENROUTE = status(1, 'PENDING', 3, 'PENDING_ENROUTE');
const DELIVERED = status(3, 'DELIVERED', 5, 'DELIVERED_TO_HANDSET');
const REFUSED = status(5, 'REJECTED', 52, 'REJECTED_DESTINATION');
const FAILED = status(2, 'UNDELIVERABLE', 9, 'UNDELIVERABLE_NOT_DELIVERED');

function status(groupId: number, groupName: string, id: number, name: string): StatusView {
  return { groupId, groupName, id, name, description: `About ${name}` };
}

/** A story that has come to the given statuses, a second apart. */
function story(messageId: string, to: string, ...statuses: StatusView[]): StoryView {
  const at = (n: number): string => `2026-07-07T06:32:${String(10 + n)}.000+0000`;
  return {
    messageId,
    bulkId: 'bulk',
    to,
    sender: 'Postcard',
    acceptedAt: at(0),
    sentAt: at(1),
    doneAt: null,
    status: statuses.at(-1) ?? ACCEPTED,
    error: null,
    waiting: null,
    validUntil: at(40),
    content: { title: 'Hi', messageSegments: [{ type: 'TEXT', text: 'Hello' }] },
    attempts:
      statuses.length === 0
        ? []
        : [
            {
              attempt: 1,
              channel: 'MMS',
              at: at(1),
              tookMs: 12,
              carrier: 'sandbox',
              outcome: 'accepted',
              error: null,
              words: '',
              carrierMessageId: 'mmsc-1',
              transactionId: 't-1',
            },
          ],
    events: statuses.map((of, n) => ({ at: at(n + 2), status: of, error: null, words: '' })),
    webhooks: [],
  };
}

interface Asked {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** A small server; `answer` gives status and JSON, or destroys the socket with null. */
async function serverThat(
  answer: (asked: Asked) => [number, unknown] | null,
): Promise<{ url: string; asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const one = {
        method: request.method ?? '',
        path: request.url ?? '',
        headers: request.headers,
        body: Buffer.concat(chunks),
      };
      asked.push(one);
      const result = answer(one);
      if (result === null) request.socket.destroy();
      else response.writeHead(result[0], { 'content-type': 'application/json' }).end(JSON.stringify(result[1]));
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** Sleeping moves the clock at once. */
function hurriedEnv(): Env {
  const env = testEnv();
  return { ...env, clock: { ...env.clock, sleep: (ms) => env.clock.advance(ms) } };
}

interface Seen extends Io {
  stdout: string;
  stderr: string;
}

function testIo(files: Record<string, Buffer> = {}): Seen {
  return {
    stdout: '',
    stderr: '',
    out(text) {
      this.stdout += text;
    },
    err(text) {
      this.stderr += text;
    },
    env: {},
    cwd: '/pictures',
    tty: false,
    readFile(path) {
      const found = files[path];
      if (!found) throw Object.assign(new Error('no file'), { code: 'ENOENT' });
      return found;
    },
    stop: new AbortController().signal,
  };
}

const options = (changes: Partial<SendOptions> = {}): SendOptions => ({
  to: ['447700900001'],
  sender: 'Postcard',
  text: ['Hello'],
  media: [],
  wait: false,
  output: 'table',
  ...changes,
});

const accepted = (...to: string[]): [number, unknown] => [
  200,
  {
    bulkId: 'bulk',
    messages: to.map((destination, n) => ({ messageId: `m${n + 1}`, destination, status: ACCEPTED })),
  },
];

async function failure(of: Promise<unknown>): Promise<string[]> {
  const error = await of.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(Failure);
  return (error as Failure).lines;
}

const PNG = Buffer.from('89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489', 'hex');

describe('postcard send', () => {
  it('sends what was typed and prints the id that came back', async () => {
    const { url, asked } = await serverThat(() => accepted('447700900001'));
    const io = testIo();
    const client = createClient({ url: `${url}/`, key: 'secret', env: testEnv() });
    expect(await send(io, testEnv(), client, options({ title: 'Hi', messageId: 'mine' }))).toBe(0);
    expect(io.stdout).toBe('m1  447700900001  PENDING_ACCEPTED\n');
    expect(asked.map(({ method, path }) => `${method} ${path}`)).toEqual(['POST /mms/2/messages']);
    expect(asked[0]?.headers.authorization).toBe('App secret');
    expect(JSON.parse(asked[0]?.body.toString() ?? '')).toEqual({
      messages: [
        {
          sender: 'Postcard',
          destinations: [{ to: '447700900001', messageId: 'mine' }],
          content: { title: 'Hi', messageSegments: [{ type: 'TEXT', text: 'Hello' }] },
        },
      ],
    });
  });

  it('uploads each file with the type that its bytes have and refers to it', async () => {
    let uploads = 0;
    const { url, asked } = await serverThat(({ path }) =>
      path === '/mms/1/content' ? [200, { uploadedContentId: `up-${++uploads}` }] : accepted('447700900001'),
    );
    const io = testIo({
      '/pictures/süß.png': PNG,
      '/tmp/note.txt': Buffer.from('words'),
      '/tmp/a/note.txt': Buffer.from('w'),
    });
    const client = createClient({ url, key: 'k', env: testEnv() });
    const media = ['süß.png', '/tmp/note.txt', '/tmp/a/note.txt'];
    expect(await send(io, testEnv(), client, options({ text: [], media }))).toBe(0);
    const sent = asked
      .slice(0, 3)
      .map(({ headers, body }) => [headers['x-content-id'], headers['x-media-type'], body.length]);
    expect(sent).toEqual([
      ['su_.png', 'image/png', PNG.length],
      ['note.txt', 'text/plain', 5],
      ['2_note.txt', 'text/plain', 1],
    ]);
    const { messages } = JSON.parse(asked[3]?.body.toString() ?? '') as { messages: { content: unknown }[] };
    expect(messages[0]?.content).toEqual({
      messageSegments: [
        { type: 'UPLOADED_REFERENCE', uploadedContentId: 'up-1', contentId: 'su_.png' },
        { type: 'UPLOADED_REFERENCE', uploadedContentId: 'up-2', contentId: 'note.txt' },
        { type: 'UPLOADED_REFERENCE', uploadedContentId: 'up-3', contentId: '2_note.txt' },
      ],
    });
  });

  it('names every file that cannot be sent, and asks the server nothing', async () => {
    const { url, asked } = await serverThat(() => [500, {}]);
    const io = testIo({ '/pictures/empty.png': Buffer.alloc(0), '/pictures/odd.bin': Buffer.from([1, 2, 3]) });
    const client = createClient({ url, key: 'k', env: testEnv() });
    const lines = await failure(send(io, testEnv(), client, options({ media: ['gone.png', 'empty.png', 'odd.bin'] })));
    expect(lines.map((line) => line.split(':')[0])).toEqual([
      '--media gone.png',
      '--media empty.png',
      '--media odd.bin',
    ]);
    expect(lines[0]).toContain('ENOENT');
    expect(asked).toEqual([]);
  });

  it('waits until the message is delivered, telling each thing once, and exits with 0', async () => {
    const stories = [
      story('m1', '447700900001'),
      story('m1', '447700900001', ENROUTE),
      story('m1', '447700900001', ENROUTE),
    ];
    const { url } = await serverThat(({ method }) =>
      method === 'POST'
        ? accepted('447700900001')
        : [200, stories.shift() ?? story('m1', '447700900001', ENROUTE, DELIVERED)],
    );
    const io = testIo();
    const env = hurriedEnv();
    expect(await send(io, env, createClient({ url, key: 'k', env }), options({ wait: true }))).toBe(0);
    expect(io.stdout.split('\n')).toEqual([
      '2026-07-07 06:32:10.000  accepted as m1 for 447700900001',
      '2026-07-07 06:32:11.000  attempt 1 taken by sandbox as mmsc-1 in 12 ms',
      '2026-07-07 06:32:12.000  PENDING_ENROUTE',
      '2026-07-07 06:32:13.000  DELIVERED_TO_HANDSET',
      '',
    ]);
  });

  it('exits with 1 when one of several was not delivered, and shows all as one JSON document', async () => {
    const { url } = await serverThat(({ method, path }) => {
      if (method === 'POST') {
        const [code, body] = accepted('447700900001', '447700900002');
        const sent = body as { messages: unknown[] };
        sent.messages.push({ messageId: 'm3', destination: 'abc', status: REFUSED });
        return [code, sent];
      }
      return [200, path.endsWith('/m1') ? story('m1', '447700900001', DELIVERED) : story('m2', '447700900002', FAILED)];
    });
    const io = testIo();
    const env = hurriedEnv();
    const client = createClient({ url, key: 'k', env });
    expect(await send(io, env, client, options({ to: ['1', '2', 'abc'], wait: true, output: 'json' }))).toBe(1);
    const { bulkId, messages } = JSON.parse(io.stdout) as { bulkId: string; messages: StoryView[] };
    expect(bulkId).toBe('bulk');
    expect(messages.map((message) => [message.messageId, message.status.id])).toEqual([
      ['m3', 52],
      ['m1', 5],
      ['m2', 9],
    ]);
  });

  it('outlasts a server that is away for a while, and gives up after two minutes', async () => {
    let away = 3;
    const { url } = await serverThat(({ method }) => {
      if (method === 'POST') return accepted('447700900001');
      if (away-- > 0) return null;
      return [200, story('m1', '447700900001', DELIVERED)];
    });
    const env = hurriedEnv();
    const io = testIo();
    const client = createClient({ url, key: 'k', env });
    expect(await send(io, env, client, options({ wait: true }))).toBe(0);
    expect(io.stderr.match(/still waiting/g)).toHaveLength(1);
    away = Number.POSITIVE_INFINITY;
    const before = env.clock.monotonic();
    const lines = await failure(send(io, env, client, options({ wait: true })));
    expect(lines[0]).toContain('cannot reach Postcard');
    expect(env.clock.monotonic() - before).toBeGreaterThan(120_000);
  });

  it.each<[number, unknown, string[]]>([
    [
      400,
      {
        errorCode: 'E400',
        violations: [
          { property: 'messages[0].sender', violation: 'must not be blank' },
          { property: 'messages[0].content', violation: 'must not be null' },
        ],
      },
      ['messages[0].sender: must not be blank', 'messages[0].content: must not be null'],
    ],
    [401, {}, ['HOST does not know this API key (401); give the right one with --key or POSTCARD_API_KEY']],
    [403, { errorCode: 'E403', description: 'Forbidden', violations: [] }, ['HOST answered 403: Forbidden']],
    [503, {}, ['HOST cannot take this now (503); try again later']],
    [404, 'a page', ["what answers at HOST is not Postcard's API; check --url"]],
    [200, 'a page', ["what answers at HOST is not Postcard's API; check --url"]],
  ])('says what is wrong when the server answers %i', async (code, body, wanted) => {
    const { url } = await serverThat(() => [code, body]);
    const client = createClient({ url, key: 'k', env: testEnv() });
    const lines = await failure(send(testIo(), testEnv(), client, options()));
    expect(lines.map((line) => line.replace(url, 'HOST'))).toEqual(wanted);
  });
});

describe('postcard show', () => {
  it("tells a message's story without what could steer the terminal", async () => {
    const told = story('m1', '447700900001', DELIVERED);
    told.events[0]!.words = 'fine\u001b[2Jgone';
    const { url } = await serverThat(() => [200, told]);
    const io = testIo();
    const client = createClient({ url, key: 'k', env: testEnv() });
    expect(await show(io, client, 'm1', 'table')).toBe(0);
    expect(io.stdout).toContain('DELIVERED_TO_HANDSET (fine?[2Jgone)');
    expect(io.stdout).toContain('"Hi", TEXT "Hello"');
    expect(io.stdout).not.toContain('\u001b');
    expect(await show(Object.assign(io, { stdout: '' }), client, 'm1', 'json')).toBe(0);
    expect(JSON.parse(io.stdout)).toEqual(told);
  });

  it('says so when there is no such message', async () => {
    const { url } = await serverThat(() => [404, { errorCode: 'E404', description: 'Not found', violations: [] }]);
    const client = createClient({ url, key: 'k', env: testEnv() });
    expect(await failure(show(testIo(), client, 'no such/id', 'table'))).toEqual([
      `${url} knows no message no such/id of this account`,
    ]);
  });

  it('says what to do about a certificate that nobody here trusts', async () => {
    const server = createTlsServer({ cert: SERVER_CERT, key: SERVER_KEY }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = createClient({ url, key: 'k', env: testEnv() });
    const lines = await failure(send(testIo(), testEnv(), client, options()));
    server.close();
    expect(lines[0]).toContain('its certificate is not trusted here; name its authority in NODE_EXTRA_CA_CERTS');
  });
});
