import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { KEY, openDoor } from '../../test/api/door.ts';
import { type Env, testEnv } from '../env.ts';
import { createClient } from './client.ts';
import { run as runCommand } from './postcard.ts';
import { tail } from './tail.ts';
import { Failure, type Form, type Io } from './terminal.ts';

let server: Server | null = null;

afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = null;
});

async function listening(on: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  server = createServer(on);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function hurriedEnv(): Env {
  const env = testEnv();
  return { ...env, clock: { ...env.clock, sleep: (ms) => env.clock.advance(ms) } };
}

const report = (messageId: string, id: number, name: string, groupId: number, error = 0): object => ({
  bulkId: 'b',
  messageId,
  to: '447700900001',
  sender: 'Postcard',
  doneAt: '2026-07-07T06:32:15.101+0000',
  status: { groupId, groupName: groupId === 3 ? 'DELIVERED' : 'PENDING', id, name, description: '' },
  error: { id: error, name: error === 0 ? 'NO_ERROR' : 'EC_DEFERRED', description: '' },
});

const event = (id: number, data: object): string => `id: ${id}\nevent: status\ndata: ${JSON.stringify(data)}\n\n`;

interface Run {
  stdout: string;
  stderr: string;
  code: number | Error;
}

/** Runs tail until `enough` says so of what it has printed. */
async function runTail(url: string, form: Form, enough: (stdout: string) => boolean, search?: string): Promise<Run> {
  const stop = new AbortController();
  const env = hurriedEnv();
  const run: Run = { stdout: '', stderr: '', code: -1 };
  const io: Io = {
    out(text) {
      run.stdout += text;
      if (enough(run.stdout)) stop.abort();
    },
    err(text) {
      run.stderr += text;
    },
    env: {},
    cwd: '/',
    tty: false,
    readFile: () => Buffer.alloc(0),
    stop: stop.signal,
  };
  run.code = await tail(io, env, createClient({ url, key: 'k', env }), form, search).catch((error: Error) => error);
  return run;
}

describe('postcard tail', () => {
  it('goes on after the last event when the connection breaks, and ends with 0 when told to', async () => {
    const resumed: (string | undefined)[] = [];
    const url = await listening((request, response) => {
      resumed.push(request.headers['last-event-id'] as string | undefined);
      const head = { 'content-type': 'text/event-stream; charset=utf-8' };
      if (resumed.length === 2) return void response.writeHead(503).end();
      response.writeHead(200, head);
      if (resumed.length === 1) {
        // Broken in the middle of an event: that one does not count.
        response.write(
          `retry: 2000\n\n${event(7, report('m1', 3, 'PENDING_ENROUTE', 1, 15004))}: still here\n\nid: 8\nevent: st`,
        );
        setImmediate(() => response.destroy());
      } else response.write(event(8, report('m1', 5, 'DELIVERED_TO_HANDSET', 3)));
    });
    const run = await runTail(url, 'table', (stdout) => stdout.includes('DELIVERED'));
    expect(run.code).toBe(0);
    expect(resumed).toEqual([undefined, '7', '7']);
    expect(run.stdout.split('\n').map((line) => line.trimEnd())).toEqual([
      '2026-07-07 06:32:15.101  PENDING_ENROUTE                  447700900001  m1  15004 EC_DEFERRED',
      '2026-07-07 06:32:15.101  DELIVERED_TO_HANDSET             447700900001  m1',
      '',
    ]);
    expect(run.stderr).toMatch(
      /^postcard: the connection to \S+ broke \(.*\); connecting again\npostcard: connected again\n$/,
    );
  });

  it('prints each report as it came, a line each, for programs', async () => {
    const reports = [report('m1', 3, 'PENDING_ENROUTE', 1), report('m1', 5, 'DELIVERED_TO_HANDSET', 3)];
    const url = await listening((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(reports.map((one, n) => event(n + 1, one)).join(''));
    });
    const run = await runTail(url, 'ndjson', (stdout) => stdout.split('\n').length > 2);
    expect(
      run.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as object),
    ).toEqual(reports);
  });

  it('asks for what its filter says, also after a break, and resumes behind what was left out', async () => {
    const asked: [string | undefined, string | undefined][] = [];
    const url = await listening((request, response) => {
      asked.push([request.url, request.headers['last-event-id'] as string | undefined]);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      if (asked.length === 1) {
        response.write('retry: 2000\n\nid: 41\n\n');
        setImmediate(() => response.destroy());
      } else response.write(event(42, report('m1', 5, 'DELIVERED_TO_HANDSET', 3)));
    });
    const run = await runTail(url, 'table', (stdout) => stdout.includes('m1'), 'to:1 campaign:"a & b"');
    expect(run.code).toBe(0);
    const path = `/mms/2/events?search=${encodeURIComponent('to:1 campaign:"a & b"')}`;
    expect(asked).toEqual([
      [path, undefined],
      [path, '41'],
    ]);
  });

  it('says what is wrong with a filter in the words of the server', async () => {
    const violation = 'has no word too:; words are to: from: status: bulk: campaign: before: after:';
    const body = JSON.stringify({ errorCode: 'E400', violations: [{ property: 'search', violation }] });
    const url = await listening((_request, response) => void response.writeHead(400).end(body));
    const run = await runTail(url, 'table', () => false, 'too:1');
    expect((run.code as Failure).lines).toEqual([`search: ${violation}`]);
  });

  it('as it is typed, asks a real server and says what that does not understand', async () => {
    const door = await openDoor();
    let stderr = '';
    const io: Io = {
      out() {},
      err(text) {
        stderr += text;
      },
      ...{ env: {}, cwd: '/', tty: false, readFile: () => Buffer.alloc(0), stop: new AbortController().signal },
    };
    const code = await runCommand(['tail', '--filter', 'status:gone', '--url', door.url, '--key', KEY], io);
    await door.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(/^postcard: search: has no status "gone"; it is one of accepted, .*\n$/);
  });

  it('gives up at once when there is no server, or the key is wrong', async () => {
    const url = await listening((_request, response) => void response.writeHead(401).end('{}'));
    const refused = await runTail(url, 'table', () => false);
    expect((refused.code as Failure).lines).toEqual([
      `${url} does not know this API key (401); give the right one with --key or POSTCARD_API_KEY`,
    ]);
    server?.close();
    server?.closeAllConnections();
    await once(server as Server, 'close');
    const gone = await runTail(url, 'table', () => false);
    expect(gone.code).toBeInstanceOf(Failure);
    expect((gone.code as Failure).message).toContain('ECONNREFUSED');
  });

  it('takes a silent connection for a broken one', async () => {
    let connections = 0;
    const env = testEnv();
    const url = await listening((_request, response) => {
      connections += 1;
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': hello\n\n');
    });
    const opened = Promise.withResolvers<void>();
    const client = createClient({ url, key: 'k', env });
    const ended = client
      .follow(null, new AbortController().signal, { opened: opened.resolve, place: () => {}, event: () => {} })
      .catch((error: Error) => error.message);
    await opened.promise;
    await env.clock.advance(120_000);
    expect(await ended).toBe(`the connection to ${url} broke (nothing heard for 45 s)`);
    expect(connections).toBe(1);
  });
});
