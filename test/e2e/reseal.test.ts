/**
 * Customers' secrets over starts with no key, a key, and another one (S26): real servers on one data directory, looked at through its
 * file and through the API.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, expect, it } from 'vitest';
import { realEnv, testEnv } from '../../src/env.ts';
import { headersOf, sourcesIn, startFrom } from './stand.ts';

const [OLD, NEW] = ['old-sealing-key-0123456789abcdef012', 'new-sealing-key-0123456789abcdef012'];
const HEADER = 'Bearer planted-in-clear';
const dir = mkdtempSync(join(tmpdir(), 'postcard-reseal-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Runs a server, until it says that it sealed where it `seals`; what the API shows of the endpoint, and how often it said so. */
async function serve(key: string | null, seals: boolean, work?: (url: string) => Promise<unknown>) {
  const { log, lines } = testEnv();
  const settings = { POSTCARD_SANDBOX: 'false', ...(key === null ? {} : { POSTCARD_SECRET_KEY: key }) };
  const running = await startFrom(sourcesIn(dir, settings), { ...realEnv({ level: 'silent' }), log });
  try {
    await work?.(running.url);
    const said = (): number => lines.filter(({ message }) => message.includes('sealed with the newest key')).length;
    if (seals) await expect.poll(said, { timeout: 60_000 }).toBe(1);
    const ask = await fetch(`${running.url}/webhooks/1/endpoints`, { headers: headersOf() });
    const { results } = (await ask.json()) as { results: { headers: object; secrets: { ending: string }[] }[] };
    return {
      headers: results[0]?.headers,
      ending: results[0]?.secrets[0]?.ending,
      sealed: said(),
    };
  } finally {
    await running.stop();
  }
}

/** The settings as they lie in the file. */
function kept(): string {
  const db = new DatabaseSync(join(dir, 'postcard.db'), { readOnly: true });
  try {
    const { secrets, headers } = db.prepare('SELECT secrets, headers FROM endpoint_setting').get() as Record<
      string,
      string
    >;
    return `${secrets} ${headers}`;
  } finally {
    db.close();
  }
}

it('what was kept in clear is sealed by the next start with a key, and anew by one with another key', async () => {
  const shown = { headers: { Authorization: HEADER }, ending: 'LjjQ' };
  const put = (url: string) =>
    fetch(`${url}/webhooks/1/endpoints`, {
      method: 'PUT',
      headers: headersOf(),
      body: JSON.stringify({
        kind: 'DELIVERY',
        url: 'https://shop.example/h',
        headers: { Authorization: HEADER },
        secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjjQ',
      }),
    });
  expect(await serve(null, false, put)).toEqual({ ...shown, sealed: 0 });
  expect(kept()).toContain(HEADER);

  expect(await serve(OLD, true)).toEqual({ ...shown, sealed: 1 });
  const once = kept();
  expect(once).not.toMatch(/whsec_|Bearer/);
  expect(once).toContain('sealed:1:');

  expect(await serve(`${NEW},${OLD}`, true)).toEqual({ ...shown, sealed: 1 });
  expect(kept()).not.toBe(once);
  // The old key is of no use any more.
  const twice = kept();
  expect(await serve(NEW, false)).toEqual({ ...shown, sealed: 0 });
  expect(kept()).toBe(twice);
}, 120_000);
