/** What the operator's number table adds to reports and logs, on a real store. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { logsAnswer, reportsAnswer } from '../../src/api/answers.ts';
import { createReads } from '../../src/api/reads.ts';
import { createNetworks } from '../../src/domain/networks.ts';
import { realClock, testEnv } from '../../src/env.ts';
import { type OpenDoor, openDoor } from './door.ts';

const GERMAN = 40;
const SWISS = 250;

let door: OpenDoor;
let reads: ReturnType<typeof createReads>;
beforeAll(async () => {
  door = await openDoor({ now: Date.now });
  const networks = createNetworks({ 4917: '26201', 4917999: '262023', 4179: '22801' });
  const { random, log } = testEnv();
  reads = createReads({
    store: door.store,
    env: { clock: realClock, random, log },
    ids: door.ids,
    logsHours: 48,
    networks,
  });
  // Few of one network among many of another.
  for (let n = 0; n < GERMAN; n++) await send(n === 0 ? '4917999000000' : `49171000${String(n).padStart(4, '0')}`);
  await send(...Array.from({ length: SWISS }, (_, n) => `4179302${String(n).padStart(4, '0')}`));
  await send('33600000000');
});
afterAll(() => door?.close());

const send = (...to: string[]) =>
  door.send({
    messages: [
      {
        sender: 'Shop',
        destinations: to.map((one) => ({ to: one })),
        content: { messageSegments: [{ type: 'TEXT', text: 'hi' }] },
      },
    ],
  });
const logs = async (query: object) => {
  const { status, body } = await reads.logs(1, query);
  expect(status).toBe(200);
  return logsAnswer.parse(JSON.parse(body));
};

describe('mccMnc', () => {
  it('stands in logs and reports where the table knows the number', async () => {
    const [french, swiss] = (await logs({ limit: '2' })).results;
    expect([french?.mccMnc, swiss?.mccMnc]).toEqual([undefined, '22801']);
    const { submit } = door;
    await submit(() => ({ kind: 'refused', error: { id: 15009 } }));
    const { body } = await reads.reports(1, { limit: '1000' });
    const { results } = reportsAnswer.parse(JSON.parse(body as string));
    expect(results.length).toBeGreaterThan(0);
    const networkOf = (to: string) =>
      to.startsWith('4917999') ? '262023' : to.startsWith('49') ? '26201' : to.startsWith('41') ? '22801' : undefined;
    for (const { to, mccMnc } of results) {
      expect([to, mccMnc]).toEqual([to, networkOf(to)]);
    }
  });

  it('filters logs by mcc and mnc, alone and together, page by page, without loss', async () => {
    const all = async (query: object) => {
      const found: string[] = [];
      for (let cursor: string | undefined; ; ) {
        const page = await logs({
          ...query,
          limit: '7',
          useCursor: 'true',
          ...(cursor === undefined ? {} : { cursor }),
        });
        expect(page.results.length).toBeLessThanOrEqual(7);
        found.push(...page.results.map(({ destination }) => destination));
        cursor = page.cursor?.nextCursor;
        if (cursor === undefined) break;
      }
      expect(new Set(found).size).toBe(found.length);
      return found.length;
    };
    expect(await all({ mcc: '262' })).toBe(GERMAN);
    expect(await all({ mcc: '262', mnc: '01' })).toBe(GERMAN - 1);
    expect(await all({ mnc: '023' })).toBe(1);
    expect(await all({ mcc: '228', mnc: '01' })).toBe(SWISS);
    expect(await all({ mcc: '208' })).toBe(0);
    expect(await all({ mcc: '26' })).toBe(0);
  });
});
