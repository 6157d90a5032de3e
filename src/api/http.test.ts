import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type Clock, testEnv } from '../env.ts';
import { createExchange } from './http.ts';

const LIMIT = 600;
const BODIES = 1000;

let server: Server | null = null;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** `lateMs`: how much later than asked each timer comes. */
async function start(lateMs = 0) {
  const { clock } = testEnv();
  const began = clock.now();
  const statuses: number[] = [];
  const late: Clock = {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    setTimeout: (fn, ms) => clock.setTimeout(fn, ms + lateMs),
    sleep: (ms) => clock.sleep(ms),
  };
  const exchange = createExchange(late, (status) => statuses.push(status), BODIES);
  const answer = (status: number, body: string) => ({ status, headers: { 'content-type': 'text/plain' }, body });
  const full = answer(429, 'full');
  let [asked, gone] = [0, 0];
  let current: ServerResponse | null = null;
  server = createServer((request, response) => {
    current = response;
    response.on('close', () => {
      gone++;
    });
    if (request.method === 'DELETE') {
      asked++;
      exchange.refuse(request, response, full);
      return;
    }
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
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (current !== null && error.code === 'HPE_INVALID_CHUNK_SIZE') exchange.give(current, answer(400, 'broken'));
    else socket.destroy();
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
  return { clock, began, statuses, open, asked: () => asked, gone: () => gone };
}

const head = (length: number): string => `POST / HTTP/1.1\r\nhost: x\r\ncontent-length: ${length}\r\n\r\n`;
/** A request that is refused, the body of which has not come yet. */
const BEGUN = 'DELETE / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n';
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
    await clock.advance(5);
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
    await clock.advance(5);
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

  /** So many connections with a request each that is refused as a whole, all read. */
  async function refused(count: number, started: Awaited<ReturnType<typeof start>>) {
    const clients: Awaited<ReturnType<typeof started.open>>[] = [];
    for (let n = 0; n < count; n++) clients.push(await started.open('DELETE / HTTP/1.1\r\nhost: x\r\n\r\n'));
    await expect.poll(started.asked).toBe(count);
    return clients;
  }

  it('tells refusals at a bounded pace: some at once, the others in their turn', async () => {
    const started = await start();
    const clients = await refused(70, started);
    const told = (): number => started.statuses.length;
    expect(told()).toBe(20);
    await started.clock.advance(5);
    expect(told()).toBe(40);
    await started.clock.advance(5);
    expect(told()).toBe(60);
    await started.clock.advance(5);
    expect(told()).toBe(70);
    for (const { got } of clients) await expect.poll(got).toMatch(/^HTTP\/1\.1 429 [\s\S]*\r\n\r\nfull$/);
    // They are served on.
    clients[69]?.socket.write(`${head(5)}hello`);
    await expect.poll(clients[69]?.got as () => string).toContain('200 OK');
    await started.clock.advance(5);
    expect(started.clock.pending()).toBe(0);
  });

  it('lets 9 000 wait at most, and tells the oldest then', async () => {
    const { clock } = testEnv();
    const exchange = createExchange(clock, () => undefined);
    const told: number[] = [];
    for (let n = 0; n < 9_030; n++) exchange.inTurn(() => told.push(n));
    await new Promise(setImmediate);
    // Twenty at once, as ever, and ten for whom there is no room.
    expect(told.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, n) => n));
    await clock.advance(2_000);
    expect(told.length).toBe(9_030);
    await clock.advance(10);
    expect(clock.pending()).toBe(0);
  });

  it('tells fewer refusals at a time while the thread is late, and each within two seconds', async () => {
    const started = await start(10);
    await refused(800, started);
    const told: number[] = [];
    while (started.statuses.length < 800 && told.length < 500) {
      told.push(started.statuses.length);
      await started.clock.advance(15);
    }
    // 20, 10, then 5 each time; two seconds are up when some 150 periods of 15 ms are over.
    expect(told.slice(0, 5)).toEqual([20, 30, 35, 40, 45]);
    expect(told.at(-1)).toBe(20 + 10 + 5 * 132);
    expect(started.clock.now() - started.began).toBeLessThan(2_000 + 20);
  });

  it('keeps nobody waiting who has asked for more on the same connection', async () => {
    const started = await start();
    await refused(40, started);
    const ask = 'DELETE / HTTP/1.1\r\nhost: x\r\n\r\n';
    const { got } = await started.open(`${ask}${ask}${head(5)}hello`);
    await expect.poll(got).toMatch(/ 429 [\s\S]* 429 [\s\S]* 200 OK/);
    expect(started.statuses.length).toBe(20 + 3);
  });

  it('forgets those that leave before they are told', async () => {
    const started = await start();
    const clients = await refused(60, started);
    // And one whose body was still to come.
    clients.push(await started.open(BEGUN));
    await expect.poll(started.asked).toBe(61);
    for (const { socket } of clients) socket.destroy();
    await expect.poll(started.gone).toBe(61);
    await started.clock.advance(250);
    expect(started.statuses.length).toBe(20);
    expect(started.clock.pending()).toBe(0);
  });

  it('answers a request once whose refusal waits while its body turns out to be broken', async () => {
    const started = await start();
    await refused(40, started);
    const { socket, got } = await started.open(BEGUN);
    await expect.poll(started.asked).toBe(41);
    expect(got()).toBe('');
    socket.write('no chunk\r\n');
    await expect.poll(got).toMatch(/^HTTP\/1\.1 400 [\s\S]*broken$/);
    await started.clock.advance(250);
    expect(started.statuses.filter((status) => status === 400)).toEqual([400]);
    expect(started.statuses.length).toBe(41);
    expect(got().match(/HTTP\//g)).toHaveLength(1);
  });
});
