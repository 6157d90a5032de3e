/**
 * S20 and S21: short links that are guessed a million times, and redirects that are asked to lead elsewhere in whatever way a request
 * can say so. What a guesser may at the door, and which domains a link may have, is in `test/api/links.test.ts`.
 */
import { get } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLinkTokens } from '../../src/domain/links.ts';
import { testEnv } from '../../src/env.ts';
import { type OpenDoor, openDoor } from '../api/door.ts';

const GUESSES = 1_000_000;
/** Links there are: of the newest messages, as many as a guesser could hope for. */
const LINKED = 1_000_000;
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const SHOP = 'https://shop.example/sale?from=mms&x=1';

describe('S20: a token', () => {
  it(`is not found by ${GUESSES} guesses among ${LINKED} links`, { timeout: 300_000 }, () => {
    const tokens = createLinkTokens('5e1f00ba5e1f00ba5e1f00ba5e1f00ba');
    const { random } = testEnv({ seed: 20 });
    let wellFormed = 0;
    let found = 0;
    for (let n = 0; n < GUESSES; n++) {
      let guess = '';
      for (const byte of random.bytes(11)) guess += DIGITS[byte % 62];
      const read = tokens.parse(guess);
      if (read === null) continue;
      wellFormed++;
      if (read.no < LINKED) found++;
    }
    // Some pass as tokens: the search does look. They name messages that nobody sent.
    expect(wellFormed).toBeGreaterThan(GUESSES / 1000);
    expect(found).toBe(0);
    expect(tokens.parse(tokens.print(LINKED - 1, 3))).toEqual({ no: LINKED - 1, link: 3 });
  });

  it('of one message does not lead to its neighbours: no change of one letter is a token of a near one', () => {
    const tokens = createLinkTokens('5e1f00ba5e1f00ba5e1f00ba5e1f00ba');
    const token = tokens.print(500_000, 0);
    const near: number[] = [];
    for (let at = 0; at < token.length; at++) {
      for (const digit of DIGITS) {
        const other = token.slice(0, at) + digit + token.slice(at + 1);
        const read = other === token ? null : tokens.parse(other);
        if (read !== null && Math.abs(read.no - 500_000) < LINKED) near.push(read.no);
      }
    }
    expect(near).toEqual([]);
  });
});

describe('S21: a redirect', () => {
  let door: OpenDoor;
  let token = '';
  beforeAll(async () => {
    door = await openDoor({ now: Date.now });
    const { body } = await door.send({
      messages: [
        {
          sender: '441134960000',
          destinations: [{ to: '441134960001' }],
          content: { messageSegments: [{ type: 'TEXT', text: `Sale: ${SHOP}` }] },
        },
      ],
      options: { tracking: {} },
    });
    const { messages } = JSON.parse(body) as { messages: { messageId: string }[] };
    const no = door.ids.parse('message', messages[0]?.messageId ?? '') as number;
    token = createLinkTokens((await door.store.identity()).idKey).print(no, 0);
  });
  afterAll(() => door?.close());

  const EVIL = [
    'https://evil.example/',
    '//evil.example',
    '/\\evil.example',
    'javascript:alert(1)',
    'data:text/html,x',
    '%0d%0aLocation: https://evil.example',
  ];
  const NAMES = [
    'url',
    'u',
    'next',
    'to',
    'target',
    'redirect',
    'redirect_uri',
    'return',
    'returnUrl',
    'location',
    'continue',
    'link',
    'dest',
    'q',
    '__proto__',
  ];
  const HEADERS = [
    'host',
    'x-forwarded-host',
    'x-forwarded-proto',
    'x-forwarded-prefix',
    'x-original-url',
    'x-rewrite-url',
    'x-http-method-override',
    'forwarded',
    'origin',
    'referer',
    'location',
    'via',
    'x-host',
    'x-forwarded-server',
    'cookie',
  ];
  const FORMS: [string, Record<string, string>][] = [
    ...NAMES.flatMap((name) =>
      EVIL.map((evil): [string, Record<string, string>] => [`?${name}=${encodeURI(evil)}`, {}]),
    ),
    ...EVIL.map((evil): [string, Record<string, string>] => [`?${encodeURI(evil)}`, {}]),
    ...HEADERS.flatMap((name) =>
      EVIL.slice(0, 5).map((evil): [string, Record<string, string>] => ['', { [name]: evil }]),
    ),
  ];

  function ask(
    path: string,
    headers: Record<string, string>,
  ): Promise<{ status: number; location: string | undefined }> {
    return new Promise((resolve, reject) => {
      get({ host: '127.0.0.1', port: door.port, path, headers, agent: false }, (answer) => {
        answer.resume();
        resolve({ status: answer.statusCode ?? 0, location: answer.headers.location });
      }).on('error', reject);
    });
  }

  it('leads to the URL of its message, whatever query and headers want', async () => {
    expect(FORMS.length).toBeGreaterThanOrEqual(150);
    for (const [query, headers] of FORMS) {
      const given = await ask(`/l/${token}${query}`, headers);
      expect([query, headers, given]).toEqual([query, headers, { status: 302, location: SHOP }]);
    }
  });

  it('has no other path that leads anywhere', async () => {
    const paths = [
      ...EVIL,
      ...EVIL.map((evil) => `${token}/${evil}`),
      `${token}//evil.example`,
      `../l/${token}`,
      `${token}%2f..`,
    ];
    for (const path of paths) {
      const given = await ask(`/l/${encodeURI(path)}`, {});
      expect([path, given.status === 404 || given.status === 429, given.location]).toEqual([path, true, undefined]);
    }
  });
});
