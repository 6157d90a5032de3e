import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { bulkShow } from './bulk.ts';
import { createClient } from './client.ts';
import { run } from './postcard.ts';
import type { Form, Io } from './terminal.ts';

let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = null;
});

interface Asked {
  method: string;
  url: string;
  body: unknown;
}

/** A server that answers as told and keeps what it was asked. */
async function answering(
  answer: (asked: Asked, n: number) => [number, object],
): Promise<{ url: string; asked: Asked[] }> {
  const asked: Asked[] = [];
  server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      asked.push({
        method: request.method as string,
        url: request.url as string,
        body: body === '' ? null : JSON.parse(body),
      });
      const [status, value] = answer(asked.at(-1) as Asked, asked.length);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

const ERROR = { errorCode: 'E404', description: 'Not found', action: '', violations: [], resources: [] };

function bulk(status: string, progress: object, more: object = {}): object {
  const figures = { accepted: 10, waiting: 0, sent: 0, delivered: 0, failed: 0, ...progress };
  return { bulkId: 'b/1', sendAt: '2026-07-07T06:32:15.101+0000', status, progress: figures, ...more };
}

function ioOf(tty = false): { io: Io; text: { out: string; err: string }; stop: AbortController } {
  const stop = new AbortController();
  const text = { out: '', err: '' };
  const io: Io = {
    out: (more) => {
      text.out += more;
    },
    err: (more) => {
      text.err += more;
    },
    env: {},
    cwd: '/',
    tty,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
    stop: stop.signal,
  };
  return { io, text, stop };
}

async function type(url: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const { io, text } = ioOf();
  const code = await run([...args, '--url', url, '--key', 'k'], io);
  return { code, ...text };
}

describe('postcard bulk', () => {
  it('lists bulks over pages, in each form', async () => {
    const { url, asked } = await answering(({ url: path }) =>
      path.includes('cursor')
        ? [200, { results: [bulk('FINISHED', { delivered: 10 })], cursor: { limit: 2 } }]
        : [
            200,
            {
              results: [bulk('PENDING', { waiting: 10 }, { sendingSpeedLimit: { amount: 5, timeUnit: 'HOUR' } })],
              cursor: { limit: 2, nextCursor: 'x y' },
            },
          ],
    );
    const { code, out } = await type(url, 'bulk', 'list', '--limit', '2');
    expect(code).toBe(0);
    expect(asked.map((one) => one.url)).toEqual(['/mms/2/bulks?limit=2', '/mms/2/bulks?limit=1&cursor=x%20y']);
    const lines = out.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^BULK +STATUS +SENDS AT +LIMIT +ACCEPTED +WAITING +SENT +DELIVERED +FAILED$/);
    expect(lines[1]).toMatch(/^b\/1 +PENDING +2026-07-07 06:32:15.101 +5 per HOUR +10 +10 +0 +0 +0$/);
    expect(lines[2]).toMatch(/^b\/1 +FINISHED .* - +10 +0 +0 +10 +0$/);
    const json = JSON.parse((await type(url, 'bulk', 'list', '-o', 'json')).out) as object[];
    expect(json).toHaveLength(2);
    expect((await type(url, 'bulk', 'list', '-o', 'ndjson')).out.trimEnd().split('\n')).toHaveLength(2);
  });

  it('says so when there is none', async () => {
    const { url } = await answering(() => [200, { results: [], cursor: { limit: 20 } }]);
    expect((await type(url, 'bulk', 'list')).out).toContain('no bulks');
  });

  it('shows one with its figures and a bar', async () => {
    const { url, asked } = await answering(() => [
      200,
      bulk('PROCESSING', { delivered: 5, failed: 1, sent: 2, waiting: 2 }),
    ]);
    const { code, out } = await type(url, 'bulk', 'show', 'b/1');
    expect(code).toBe(0);
    expect(asked[0]?.url).toBe('/mms/2/bulks?bulkId=b%2F1');
    expect(out).toMatch(/^status +PROCESSING$/m);
    expect(out).toContain('[###############xxx>>>>>>------]  60 %  delivered 5, failed 1, sent 2, waiting 2\n');
    expect(JSON.parse((await type(url, 'bulk', 'show', 'b/1', '-o', 'json')).out)).toMatchObject({ bulkId: 'b/1' });
  });

  it('steers with what the API has for it, and shows what came of it', async () => {
    const { url, asked } = await answering(() => [200, bulk('PAUSED', { waiting: 10 })]);
    for (const [args, path, body] of [
      [['pause', 'b/1'], '/mms/2/bulks/status', { status: 'PAUSED' }],
      [['resume', 'b/1'], '/mms/2/bulks/status', { status: 'PROCESSING' }],
      [['cancel', 'b/1'], '/mms/2/bulks/status', { status: 'CANCELED' }],
      [
        ['reschedule', 'b/1', '--at', '2026-12-24T18:00:00+01:00'],
        '/mms/2/bulks',
        { sendAt: '2026-12-24T18:00:00+01:00' },
      ],
      [['reschedule', 'b/1', '--at', 'now'], '/mms/2/bulks', { sendAt: '1970-01-01T00:00:00Z' }],
      [['speed', 'b/1', '60/minute'], '/mms/2/bulks', { sendingSpeedLimit: { amount: 60, timeUnit: 'MINUTE' } }],
      [['speed', 'b/1', '1/DAY'], '/mms/2/bulks', { sendingSpeedLimit: { amount: 1, timeUnit: 'DAY' } }],
    ] as [string[], string, object][]) {
      asked.length = 0;
      const { code, out } = await type(url, 'bulk', ...args);
      expect([code, asked[0]]).toEqual([0, { method: 'PUT', url: `${path}?bulkId=b%2F1`, body }]);
      expect(out).toMatch(/^status +PAUSED$/m);
    }
  });

  it('tells a refusal, an unknown bulk and a wrong word in a line, with exit code 1', async () => {
    const refusal = {
      ...ERROR,
      errorCode: 'E409',
      violations: [{ property: 'status', violation: 'cannot become PAUSED while the bulk is FINISHED' }],
    };
    const { url, asked } = await answering(({ url: path }) => (path.includes('gone') ? [404, ERROR] : [409, refusal]));
    expect(await type(url, 'bulk', 'pause', 'b')).toEqual({
      code: 1,
      out: '',
      err: 'postcard: status: cannot become PAUSED while the bulk is FINISHED\n',
    });
    for (const args of [
      ['show', 'gone'],
      ['cancel', 'gone'],
      ['speed', 'gone', '1/day'],
    ]) {
      expect(await type(url, 'bulk', ...args)).toMatchObject({
        code: 1,
        err: `postcard: ${url} knows no bulk gone of this account\n`,
      });
    }
    asked.length = 0;
    for (const args of [
      ['speed', 'b', '60'],
      ['speed', 'b', '60/week'],
      ['speed', 'b'],
      ['reschedule', 'b'],
      ['list', '--limit', '0'],
      ['pause'],
    ]) {
      const { code, err } = await type(url, 'bulk', ...args);
      expect(code, args.join(' ')).toBe(1);
      expect(err).toMatch(/^postcard: .+\n$/);
    }
    expect(asked).toEqual([]);
  });

  describe('show --follow', () => {
    const course = [
      bulk('PROCESSING', { waiting: 10 }),
      bulk('PROCESSING', { waiting: 6, sent: 4 }),
      bulk('PROCESSING', { waiting: 6, sent: 4 }),
      bulk('PROCESSING', { waiting: 2, sent: 4, delivered: 4 }),
      bulk('FINISHED', { delivered: 9, failed: 1 }),
    ];

    /** Follows with a clock that hurries. */
    async function following(url: string, form: Form, tty: boolean) {
      const env = testEnv();
      const hurried = { ...env, clock: { ...env.clock, sleep: (ms: number) => env.clock.advance(ms) } };
      const { io, text } = ioOf(tty);
      const code = await bulkShow(io, createClient({ url, key: 'k', env: hurried }), 'b/1', form, hurried);
      return { code, ...text };
    }

    it('prints a line for each change where there is no terminal, and ends with the bulk', async () => {
      const { url, asked } = await answering((_asked, n) => [200, course[Math.min(n, course.length) - 1] as object]);
      const { code, out } = await following(url, 'table', false);
      expect(code).toBe(0);
      expect(asked).toHaveLength(5);
      expect(out.split('\n')).toEqual([
        '[------------------------------]   0 %  delivered 0, failed 0, sent 0, waiting 10  PROCESSING',
        '[>>>>>>>>>>>>------------------]   0 %  delivered 0, failed 0, sent 4, waiting 6  PROCESSING',
        '[############>>>>>>>>>>>>------]  40 %  delivered 4, failed 0, sent 4, waiting 2  PROCESSING',
        '[###########################xxx] 100 %  delivered 9, failed 1, sent 0, waiting 0  FINISHED',
        '',
      ]);
    });

    it('redraws one line on a terminal, with its rate and the time left', async () => {
      const { url } = await answering((_asked, n) => [200, course[Math.min(n, course.length) - 1] as object]);
      const { out } = await following(url, 'table', true);
      expect(out.split('\r')).toHaveLength(6);
      expect(out.split('\n')).toHaveLength(2);
      expect(out).toContain('/s, ');
    });

    it('gives programs an object a change, or the last one', async () => {
      const { url } = await answering((_asked, n) => [200, course[Math.min(n, course.length) - 1] as object]);
      expect((await following(url, 'ndjson', false)).out.trimEnd().split('\n')).toHaveLength(4);
      const again = await answering((_asked, n) => [200, course[Math.min(n, course.length) - 1] as object]);
      expect(JSON.parse((await following(again.url, 'json', false)).out)).toMatchObject({ status: 'FINISHED' });
    });

    it('waits for the last messages of a cancelled bulk, and outlasts a restart', async () => {
      const { url } = await answering((_asked, n) => {
        if (n === 2) return [503, ERROR];
        return [200, n < 4 ? bulk('CANCELED', { sent: 3, failed: 7 }) : bulk('CANCELED', { delivered: 3, failed: 7 })];
      });
      const { code, out, err } = await following(url, 'table', false);
      expect(code).toBe(0);
      expect(out.trimEnd().split('\n')).toHaveLength(2);
      expect(err).toContain('still following');
    });
  });
});
