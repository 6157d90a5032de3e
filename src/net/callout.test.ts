/** What the door says of URLs before anybody is asked, and the client of the same ones. Addresses: `outbound.test.ts`. */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { checkCallout } from './callout.ts';
import { createOutbound } from './outbound.ts';

const check = checkCallout(['127.0.0.0/8']);

describe('a port', () => {
  it.each(['http', 'https'])(
    'where another protocol listens is refused, at the door and at the call: %s',
    async (scheme) => {
      const outbound = createOutbound({
        allow: ['127.0.0.0/8'],
        env: testEnv(),
        dial: () => expect.fail('nobody may be called'),
      });
      for (const port of [22, 25, 110, 143, 465, 587, 6667, 10080]) {
        for (const host of ['mail.example', '127.0.0.1', '127.0.0.1.']) {
          const url = `${scheme}://${host}:${port}/x?y`;
          const words = `must not name port ${port}, which is another protocol's`;
          expect([url, check(url)]).toEqual([url, words]);
          const limits = { headers: {}, timeoutMs: 1000 };
          expect(await outbound.post(url, { ...limits, body: 'x' })).toEqual({ ok: false, kind: 'url', words });
          expect(await outbound.fetch(url, { ...limits, maxBytes: 9, redirects: 3 })).toEqual({
            ok: false,
            kind: 'url',
            words,
          });
        }
      }
      await outbound.close();
    },
  );

  it('of any other number is fine', () => {
    for (const url of [
      'http://a.example',
      'http://a.example:80',
      'https://a.example:443/',
      'http://a.example:8025',
      'http://127.0.0.1:65535',
      'http://127.0.0.1:1/',
    ]) {
      expect([url, check(url)]).toEqual([url, null]);
    }
  });
});
