/** What routes mean at the door: no route, short codes, and destinations that ask for a reseller code. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createRouter } from '../../src/domain/routing.ts';
import { type OpenDoor, openDoor } from './door.ts';

let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({
    routing: (lane) =>
      createRouter({
        carriers: [{ name: 'a', channel: 'MMS', lanes: [lane] }],
        rules: [
          { to: ['49', '82'], shortCodes: ['12345'], carriers: [{ carrier: 'a' }] },
          { to: ['44'], account: [1], sender: ['News'], carriers: [{ carrier: 'a' }] },
        ],
        resellerCodeRequired: ['82'],
      }),
  });
});
afterAll(() => door?.close());

const message = (to: string[], more: object = {}) => ({
  sender: '441134960000',
  destinations: to.map((one) => ({ to: one })),
  content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
  ...more,
});
const statuses = (body: string): number[] =>
  (JSON.parse(body) as { messages: { status: { id: number } }[] }).messages.map(({ status }) => status.id);

describe('a destination', () => {
  it('without a route is refused with 19 in its own entry, a short code with one is taken', async () => {
    const { status, body } = await door.send({
      messages: [message(['491710000001', '447700900001', '12345', '54321'])],
    });
    expect(status).toBe(200);
    expect(statuses(body)).toEqual([26, 19, 26, 52]);
  });

  it('may have a route for one sender only', async () => {
    const { body } = await door.send({ messages: [message(['447700900001'], { sender: 'News' })] });
    expect(statuses(body)).toEqual([26]);
  });
});

describe('a destination that asks for a reseller code', () => {
  const regional = { options: { regional: { southKorea: { resellerCode: 123456789 } } } };

  it('gets a clear refusal at the path where it is missing, and nothing is taken', async () => {
    const { status, body } = await door.send({
      messages: [
        message(['491710000001']),
        message(['491710000002', '+821012345678']),
        message(['821012345678'], regional),
      ],
    });
    expect(status).toBe(400);
    expect(JSON.parse(body)).toMatchObject({
      errorCode: 'E400',
      violations: [
        {
          property: 'messages[1].options.regional.southKorea.resellerCode',
          violation: 'must not be null for these destinations',
        },
      ],
    });
  });

  it('is asked in groups too', async () => {
    const group = { ...message([]), destinations: [{ group: [{ to: '491710000001' }, { to: '821012345678' }] }] };
    expect((await door.send({ messages: [group] })).status).toBe(400);
    expect((await door.send({ messages: [{ ...group, ...regional }] })).status).toBe(200);
  });

  it('is taken where it comes with one', async () => {
    const { body } = await door.send({ messages: [message(['821012345678'], regional)] });
    expect(statuses(body)).toEqual([26]);
  });
});
