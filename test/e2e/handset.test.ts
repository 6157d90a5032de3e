/** A handset that sends, end to end: the sandbox, MM7 to the listener, the store, the customer's inbox. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Running } from '../../src/main.ts';
import { headersOf, sourcesIn, startFrom, until } from './stand.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-handset-'));
let running: Running;

beforeAll(async () => {
  running = await startFrom(sourcesIn(dir));
});
afterAll(async () => {
  await running?.stop();
  rmSync(dir, { recursive: true, force: true });
});

interface Item {
  from: string;
  to: string;
  message: string;
}

it('what a handset sends lies in the inbox of the customer, once', async () => {
  const answer = await fetch(`${running.sandboxUrl}/sandbox/handsets/491700000001/messages`, {
    method: 'POST',
    body: JSON.stringify({
      to: ['441134960000'],
      subject: 'Hello',
      parts: [
        { contentType: 'text/plain; charset=utf-8', text: 'Wish you were here' },
        {
          contentType: 'image/jpeg',
          contentId: 'p.jpg',
          base64: Buffer.from([0xff, 0xd8, 0xff, 0xe0]).toString('base64'),
        },
      ],
    }),
  });
  expect(answer.status).toBe(202);
  const pull = async (): Promise<Item[]> => {
    const inbox = await fetch(`${running.url}/mms/1/inbox/reports`, { headers: headersOf() });
    expect(inbox.status).toBe(200);
    return ((await inbox.json()) as { results: Item[] }).results;
  };
  const items = await until(async () => {
    const found = await pull();
    return found.length > 0 && found;
  }, 'the message in the inbox');
  expect(items).toMatchObject([{ from: '491700000001', to: '441134960000' }]);
  expect(items[0]?.message).toContain('Wish you were here');
  expect(await pull()).toEqual([]);
});

it('a server starts beside another one that has the usual port of the sandbox for SMPP', async () => {
  const other = createServer();
  // Taken by somebody else already: just as well.
  await new Promise((resolve) => other.once('error', resolve).listen(2775, '127.0.0.1', () => resolve(null)));
  try {
    const second = await startFrom(sourcesIn(join(dir, 'second'), { POSTCARD_SANDBOX_SMPP_PORT: undefined }));
    expect((await fetch(`${second.sandboxUrl}/sandbox`)).status).toBe(200);
    await second.stop();
  } finally {
    other.close();
  }
});
