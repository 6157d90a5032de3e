/**
 * Connections that node has found too slow and whose word about it waits behind many refusals (ADR 16): what becomes of those that go
 * on meanwhile. The door's clock is passed, so its turns come when the test says so; what node finds is said in its place.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { testEnv } from '../../src/env.ts';
import { KEY, type OpenDoor, openDoor } from './door.ts';

const STARTED = 'http.server.request.start';
const GET = 'GET /livez HTTP/1.1\r\nhost: x\r\n\r\n';
/** More than are told at once. */
const RUSH = 30;

const { clock } = testEnv();
let door: OpenDoor;
const sockets: Socket[] = [];
/** Requests that the door has seen, and where. */
let seen: { server: Server; socket: Socket }[] = [];
const see = (message: unknown): void => {
  const one = message as (typeof seen)[number];
  if (one.socket.localPort === door.port) seen.push(one);
};

beforeEach(async () => {
  door = await openDoor({ clock });
  subscribe(STARTED, see);
});
afterEach(async () => {
  unsubscribe(STARTED, see);
  for (const socket of sockets.splice(0)) socket.destroy();
  seen = [];
  await door.close();
});

function open(text: string): { socket: Socket; got: () => string } {
  const socket = connect(door.port, '127.0.0.1', () => socket.write(text));
  sockets.push(socket);
  let got = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk) => {
    got += chunk;
  });
  socket.on('error', () => undefined);
  return { socket, got: () => got };
}

/** A connection that was served once and is slow now; the word about it waits. */
async function slow() {
  const one = open(GET);
  await expect.poll(one.got).toContain('200 OK');
  const { server, socket } = seen[0] as (typeof seen)[number];
  for (let n = 0; n < RUSH; n++) open('GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n');
  await expect.poll(() => seen.length).toBe(1 + RUSH);
  server.emit('clientError', Object.assign(new Error('slow'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' }), socket);
  await new Promise(setImmediate);
  expect(one.got().match(/HTTP\//g)).toHaveLength(1);
  return one;
}

it('are told that they were too slow, and closed', async () => {
  const { socket, got } = await slow();
  await clock.advance(2_000);
  await expect.poll(got).toMatch(/200 OK[\s\S]* 400 Bad Request[\s\S]*did not arrive within/);
  await expect.poll(() => socket.closed).toBe(true);
});

it('are served where their request comes meanwhile', async () => {
  const { socket, got } = await slow();
  socket.write(GET);
  await expect.poll(() => got().match(/ 200 OK/g)?.length).toBe(2);
  await clock.advance(2_000);
  socket.write(GET);
  await expect.poll(() => got().match(/ 200 OK/g)?.length).toBe(3);
});

it('are closed where only the head of their request comes meanwhile: nothing else would ever end them', async () => {
  const { socket, got } = await slow();
  socket.write(
    `POST /mms/2/messages HTTP/1.1\r\nhost: x\r\nauthorization: App ${KEY}\r\n` +
      'content-type: application/json\r\ncontent-length: 100\r\n\r\n{',
  );
  await expect.poll(() => seen.length).toBe(2 + RUSH);
  await clock.advance(2_000);
  await expect.poll(got).toMatch(/200 OK[\s\S]* 400 Bad Request[\s\S]*did not arrive within/);
  await expect.poll(() => socket.closed).toBe(true);
});
