/** Who may read /metrics: the networks of the settings, and whoever shows the token. */
import { afterEach, describe, expect, it } from 'vitest';
import { type OpenDoor, openDoor } from './door.ts';

let door: OpenDoor;
afterEach(() => door.close());

const TOKEN = 'metrics-token-0123456789abcdef';
async function status(headers: Record<string, string> = {}, method = 'GET'): Promise<number> {
  return (await fetch(`${door.url}/metrics`, { method, headers })).status;
}

describe('the figures', () => {
  it('are for this machine, without any key', async () => {
    door = await openDoor();
    expect([await status(), await status({}, 'HEAD')]).toEqual([200, 200]);
  });

  it('are not for who comes by a proxy that is not trusted', async () => {
    door = await openDoor();
    expect(await status({ 'x-forwarded-for': '127.0.0.1' })).toBe(403);
    expect(await status({ forwarded: 'for=127.0.0.1' })).toBe(403);
  });

  it('are for who comes by one that is, from a network that may', async () => {
    door = await openDoor({
      settings: { POSTCARD_TRUSTED_PROXIES: '127.0.0.1/32', POSTCARD_METRICS_ALLOW: '10.1.0.0/16' },
    });
    expect(await status({ 'x-forwarded-for': '10.1.2.3' })).toBe(200);
    expect(await status({ 'x-forwarded-for': '10.2.2.3' })).toBe(403);
    expect(await status({ 'x-forwarded-for': '10.1.2.3, 10.2.2.3' })).toBe(403);
    expect(await status()).toBe(403);
  });

  it('are from anywhere for the token alone', async () => {
    door = await openDoor({ settings: { POSTCARD_METRICS_ALLOW: 'none', POSTCARD_METRICS_TOKEN: TOKEN } });
    expect(await status({ authorization: `Bearer ${TOKEN}` })).toBe(200);
    expect(await status({ authorization: `Bearer ${TOKEN}`, 'x-forwarded-for': '192.0.2.1' })).toBe(200);
    for (const wrong of [undefined, 'Bearer', `Bearer ${TOKEN}x`, `Bearer x${TOKEN}`, `App ${TOKEN}`, TOKEN]) {
      const answer = await fetch(
        `${door.url}/metrics`,
        wrong === undefined ? {} : { headers: { authorization: wrong } },
      );
      const { errorCode } = (await answer.json()) as { errorCode: string };
      expect([wrong, answer.status, answer.headers.get('www-authenticate'), errorCode]).toEqual([
        wrong,
        401,
        'Bearer',
        'E401',
      ]);
    }
    expect(await status({}, 'HEAD')).toBe(401);
    // Probes stay open.
    expect((await fetch(`${door.url}/livez`)).status).toBe(200);
  });
});
