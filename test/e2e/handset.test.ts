/** A handset that sends, end to end: the sandbox, MM7 to the listener, the store, the customer's inbox. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { realEnv } from '../../src/env.ts';
import { type Running, startServer } from '../../src/main.ts';

const KEY = 'e2e-key-0123456789abcdef0123456789abcdef';
const dir = mkdtempSync(join(tmpdir(), 'postcard-handset-'));
let running: Running;

function start(data: string, settings: Record<string, string>): Promise<Running> {
  const loaded = loadConfig({
    env: {
      POSTCARD_DATA_DIR: data,
      POSTCARD_PORT: '0',
      POSTCARD_CARRIER_PORT: '0',
      POSTCARD_SANDBOX_PORT: '0',
      POSTCARD_API_KEY: KEY,
      ...settings,
    },
    cwd: dir,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  return startServer(loaded.config, { env: realEnv({ level: 'silent' }) });
}

beforeAll(async () => {
  running = await start(dir, { POSTCARD_SANDBOX_SMPP_PORT: '0' });
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

it('what a handset sends lies in the inbox of the customer, once', { timeout: 60_000 }, async () => {
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
    const inbox = await fetch(`${running.url}/mms/1/inbox/reports`, { headers: { authorization: `App ${KEY}` } });
    expect(inbox.status).toBe(200);
    return ((await inbox.json()) as { results: Item[] }).results;
  };
  let items: Item[] = [];
  for (let tries = 0; tries < 200 && items.length === 0; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    items = await pull();
  }
  expect(items).toMatchObject([{ from: '491700000001', to: '441134960000' }]);
  expect(items[0]?.message).toContain('Wish you were here');
  expect(await pull()).toEqual([]);
});

it('a server starts beside another one that has the usual port of the sandbox for SMPP', {
  timeout: 60_000,
}, async () => {
  const other = createServer();
  // Taken by somebody else already: just as well.
  await new Promise((resolve) => other.once('error', resolve).listen(2775, '127.0.0.1', () => resolve(null)));
  try {
    const second = await start(join(dir, 'second'), {});
    expect((await fetch(`${second.sandboxUrl}/sandbox`)).status).toBe(200);
    await second.stop();
  } finally {
    other.close();
  }
});
