/** The torture's own tool does what it says: a fault that breaks nothing would prove nothing. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type FaultProxy, startProxy } from './proxy.ts';
import { eventually, wait } from './server.ts';

let server: Server;
let proxy: FaultProxy;
/** What the server saw in this test. */
let seen = { received: '', ended: 0 };

beforeEach(async () => {
  const mine = { received: '', ended: 0 };
  seen = mine;
  // Answers each byte with the same byte.
  server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      mine.received += chunk.toString();
      socket.write(chunk);
    });
    socket.on('close', () => mine.ended++);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy = await startProxy((server.address() as AddressInfo).port);
});

afterEach(async () => {
  await proxy.close();
  await new Promise((resolve) => server.close(resolve));
});

interface Client {
  socket: Socket;
  got: string;
  closed: string | null;
}

async function client(): Promise<Client> {
  const socket = connect(proxy.port, '127.0.0.1');
  const one: Client = { socket, got: '', closed: null };
  socket.on('data', (chunk) => {
    one.got += chunk.toString();
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    one.closed = error.code ?? 'error';
  });
  socket.on('close', () => {
    one.closed ??= 'end';
  });
  await new Promise((resolve) => {
    socket.once('connect', resolve);
    socket.once('close', resolve);
  });
  return one;
}

const soon = (holds: () => boolean): Promise<boolean> => eventually(10_000, holds);

describe('the fault proxy', () => {
  it('passes bytes both ways, and ends', async () => {
    const one = await client();
    const text = 'x'.repeat(3_000_000);
    one.socket.write(text);
    expect(await soon(() => one.got.length === text.length)).toBe(true);
    one.socket.end();
    expect(await soon(() => seen.ended === 1 && one.closed === 'end')).toBe(true);
    expect(await soon(() => proxy.connections() === 0)).toBe(true);
  });

  it('delays each piece, in order', async () => {
    const one = await client();
    proxy.set({ kind: 'latency', ms: 150 });
    const began = performance.now();
    for (const piece of ['a', 'b', 'c']) one.socket.write(piece);
    expect(await soon(() => one.got.length > 0)).toBe(true);
    expect(performance.now() - began).toBeGreaterThan(295);
    proxy.set({ kind: 'pass' });
    one.socket.write('d');
    expect(await soon(() => one.got === 'abcd')).toBe(true);
    one.socket.destroy();
  });

  it('resets open and new connections while it cuts', async () => {
    const one = await client();
    one.socket.write('a');
    expect(await soon(() => one.got === 'a')).toBe(true);
    proxy.set({ kind: 'cut' });
    expect(await soon(() => one.closed !== null && seen.ended === 1)).toBe(true);
    expect(one.closed).toBe('ECONNRESET');
    const two = await client();
    expect(await soon(() => two.closed !== null)).toBe(true);
    proxy.set({ kind: 'pass' });
    const three = await client();
    three.socket.write('c');
    expect(await soon(() => three.got === 'c')).toBe(true);
    three.socket.destroy();
  });

  it('swallows one way, and what was swallowed stays lost', async () => {
    const one = await client();
    one.socket.write('a');
    expect(await soon(() => one.got === 'a')).toBe(true);
    proxy.set({ kind: 'swallow', ways: ['back'] });
    one.socket.write('b');
    expect(await soon(() => seen.received === 'ab')).toBe(true);
    proxy.set({ kind: 'pass' });
    one.socket.write('c');
    expect(await soon(() => seen.received === 'abc')).toBe(true);
    const two = await client();
    two.socket.write('d');
    expect(await soon(() => two.got === 'd')).toBe(true);
    expect(one.got).toBe('a');
    one.socket.destroy();
    two.socket.destroy();
  });

  it('half-open: neither bytes nor an end arrive, and nobody is told', async () => {
    const one = await client();
    const two = await client();
    proxy.set({ kind: 'swallow', ways: ['there', 'back'] });
    one.socket.write('a');
    two.socket.end();
    // Time enough for what must not happen.
    await wait(300);
    expect({ ...seen, closed: one.closed, got: one.got }).toEqual({
      received: '',
      ended: 0,
      closed: null,
      got: '',
    });
    one.socket.destroy();
    two.socket.destroy();
  });
});
