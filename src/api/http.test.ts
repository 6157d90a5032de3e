import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { createExchange } from './http.ts';

const LIMIT = 600;
const BODIES = 1000;

let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

async function start() {
  const { clock } = testEnv();
  const statuses: number[] = [];
  const exchange = createExchange(clock, (status) => statuses.push(status), BODIES);
  const answer = (status: number, body: string) => ({ status, headers: { 'content-type': 'text/plain' }, body });
  server = createServer((request, response) => {
    exchange.read(request, LIMIT, (body) => {
      if (body.kind === 'gone') return;
      if (body.kind !== 'whole') {
        exchange.refuse(request, response, answer(body.kind === 'busy' ? 503 : 413, body.kind));
        return;
      }
      exchange.give(response, answer(200, String(body.bytes.length)));
      exchange.give(response, answer(500, 'a second answer'));
      exchange.release(body.bytes.length);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const open = async (text: string) => {
    const socket = connect(port, '127.0.0.1');
    let got = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk) => {
      got += chunk;
    });
    socket.on('error', () => undefined);
    socket.write(text);
    return { socket, got: () => got };
  };
  return { clock, statuses, open };
}

const head = (length: number): string => `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${length}\r\n\r\n`;
const closed = (socket: Socket): Promise<unknown> => (socket.destroyed ? Promise.resolve() : once(socket, 'close'));

describe('an exchange', () => {
  it('gives one answer to a request, and none after it', async () => {
    const { open, statuses } = await start();
    const { got } = await open(`${head(5)}hello`);
    await expect.poll(got).toMatch(/^HTTP\/1\.1 200 OK\r\ncontent-length: 1\r\n[\s\S]*\r\n\r\n5$/);
    expect(statuses).toEqual([200]);
  });

  it('takes a body of the limit and refuses one byte more while it is still being sent', async () => {
    const { open } = await start();
    const fits = await open(head(LIMIT) + 'x'.repeat(LIMIT));
    await expect.poll(fits.got).toContain(`\r\n\r\n${LIMIT}`);
    const over = await open(head(10 * LIMIT) + 'x'.repeat(LIMIT + 1));
    await expect.poll(over.got).toContain('413');
  });

  it('serves a connection on when a refused body has come to its end', async () => {
    const { open, clock } = await start();
    const { socket, got } = await open(head(2 * LIMIT) + 'x'.repeat(LIMIT + 1));
    await expect.poll(got).toContain('413');
    socket.write(`${'x'.repeat(LIMIT - 1)}${head(2)}ok`);
    await expect.poll(got).toMatch(/413 [\s\S]*200 OK/);
    expect(clock.pending()).toBe(0);
  });

  it('answers a client that wants its connection closed at once, and closes it only when the refused body has come', async () => {
    const { open, clock } = await start();
    const { socket, got } = await open(
      head(2 * LIMIT).replace('host: x', 'host: x\r\nconnection: close') + 'x'.repeat(LIMIT + 1),
    );
    await expect.poll(got).toMatch(/413 [\s\S]*tooLarge$/);
    // The server's end would have come with the answer.
    await new Promise(setImmediate);
    expect(socket.readableEnded).toBe(false);
    socket.write('x'.repeat(LIMIT - 1));
    await closed(socket);
    expect(clock.pending()).toBe(0);
  });

  it('ends a connection that goes on sending a refused body for 10 s', async () => {
    const { open, clock } = await start();
    const { socket, got } = await open(head(1e9) + 'x'.repeat(LIMIT + 1));
    await expect.poll(got).toContain('413');
    socket.write('more');
    await clock.advance(9_999);
    expect(socket.destroyed).toBe(false);
    await clock.advance(1);
    await closed(socket);
  });

  it('holds no more of all bodies together than it may, and forgets those that went away', async () => {
    const { open } = await start();
    const first = await open(head(LIMIT) + 'x'.repeat(LIMIT - 1));
    // One that is answered after the first was read tells that the first is being held.
    await expect.poll((await open(`${head(1)}x`)).got).toContain('200 OK');
    const second = await open(head(LIMIT) + 'x'.repeat(LIMIT));
    await expect.poll(second.got).toContain('503');
    first.socket.destroy();
    await closed(first.socket);
    await expect
      .poll(async () => {
        const third = await open(head(LIMIT) + 'x'.repeat(LIMIT));
        await expect.poll(third.got).toMatch(/HTTP/);
        return third.got();
      })
      .toContain('200 OK');
  });
});
