/**
 * Refusals at a pace (ADR 16), whatever was asked for: who reads beyond a limit and asks again at once must not take the thread from
 * those who are served. The door's clock is passed, so its periods end when the test says so.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { testEnv } from '../../src/env.ts';
import { KEY, type OpenDoor, openDoor } from './door.ts';

/** Told in one period, and its length; see `Pace`. */
const TOLD = 20;
const PERIOD = 5;
const MANY = 60;

const { clock } = testEnv();
const ADMIN_KEY = 'operator-key-0123456789';
let door: OpenDoor;
let limited: string;
const sockets: Socket[] = [];
beforeAll(async () => {
  door = await openDoor({ clock, settings: { POSTCARD_ADMIN_KEY: ADMIN_KEY } });
  const admin = async (path: string, body: object) => {
    const headers = { authorization: `App ${ADMIN_KEY}`, 'content-type': 'application/json' };
    return JSON.parse(
      (await door.ask(`/admin/1/${path}`, { method: 'POST', body: JSON.stringify(body), headers })).body,
    );
  };
  const { account } = await admin('accounts', { name: 'noisy', limits: { requestsPerMinute: 1 } });
  limited = (await admin(`accounts/${account}/keys`, { label: 'k' })).key;
  const ask = await door.ask('/mms/2/reports', { headers: { authorization: `App ${limited}` } });
  expect(ask.status).toBe(200);
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  await door.close();
});

/** So many connections with the same request each; how many answers of which status have come by now. */
async function rush(head: string): Promise<() => Record<string, number>> {
  const given: Record<string, number> = {};
  await Promise.all(
    Array.from({ length: MANY }, async () => {
      const socket = connect(door.port, '127.0.0.1');
      sockets.push(socket);
      socket.setEncoding('utf8');
      socket.on('data', (text: string) => {
        for (const [, status] of text.matchAll(/HTTP\/1\.1 (\d{3})/g)) {
          given[status as string] = (given[status as string] ?? 0) + 1;
        }
      });
      await once(socket, 'connect');
      socket.write(head);
    }),
  );
  return () => given;
}

describe.each([
  ['a limit', '429', 'GET /mms/2/reports', () => limited],
  ['a limit, of the stream', '429', 'GET /mms/2/events', () => limited],
  ['a limit, of what is taken away', '429', 'DELETE /mms/1/optouts?sender=a&destination=1', () => limited],
  ['a key that is none', '401', 'GET /mms/2/logs', () => 'nobody'],
  ['a limit, of sends', '429', 'POST /mms/2/messages', () => limited],
])('refusals for %s', (_name, status, request, key) => {
  it(`are ${TOLD} in a period, and the others in the next ones`, async () => {
    await clock.advance(PERIOD);
    const head = `${request} HTTP/1.1\r\nhost: x\r\nauthorization: App ${key()}\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n`;
    const given = await rush(head);
    await expect.poll(given).toEqual({ [status]: TOLD });
    // Whoever may ask is served meanwhile.
    const served = await door.ask('/mms/2/reports', { headers: { authorization: `App ${KEY}` } });
    expect([served.status, given()]).toEqual([200, { [status]: TOLD }]);
    await clock.advance(PERIOD);
    await expect.poll(given).toEqual({ [status]: 2 * TOLD });
    await clock.advance(PERIOD);
    await expect.poll(given).toEqual({ [status]: MANY });
    await clock.advance(PERIOD);
  });
});
