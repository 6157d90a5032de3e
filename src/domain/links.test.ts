/** Short links: URLs in texts, tokens, the texts of single messages, and what a click is. */
import { isbot } from 'isbot';
import { describe, expect, it } from 'vitest';
import {
  type ClickSigns,
  clickBody,
  clickFlag,
  createLinkTokens,
  createShortener,
  cutText,
  findLinks,
  LINKS_MAX,
  linksOf,
  shortens,
} from './links.ts';

const KEY = '00112233445566778899aabbccddeeff';

describe('URLs in a text', () => {
  it.each<[string, string, string[]]>([
    ['with its scheme', 'See https://shop.example/a?b=c&d=e now', ['https://shop.example/a?b=c&d=e']],
    [
      'without what ends the sentence',
      'https://a.example/x. http://b.example/y, http://c.example!',
      ['https://a.example/x', 'http://b.example/y', 'http://c.example'],
    ],
    [
      'in brackets and quotes',
      '(http://a.example/(b)) <http://c.example> "http://d.example"',
      ['http://a.example/(b)', 'http://c.example', 'http://d.example'],
    ],
    ['in capitals', 'HTTPS://SHOP.EXAMPLE/Sale', ['HTTPS://SHOP.EXAMPLE/Sale']],
    [
      'in other scripts',
      'http://пример.рф/путь. https://例え.jp/パス、次',
      ['http://пример.рф/путь', 'https://例え.jp/パス'],
    ],
    ['of a host without a domain, where the scheme says so', 'http://localhost:8080/x', ['http://localhost:8080/x']],
    ['with a user, as a whole', 'http://user:pw@host.com/x', ['http://user:pw@host.com/x']],
    ['behind an emoji', '👉️https://a.example/x👉http://b.example', ['https://a.example/x', 'http://b.example']],
    ['behind a word of a script without blanks', '下载https://a.example', ['https://a.example']],
    [
      'between marks',
      'https://a.example/x,https://b.example;https://c.example',
      ['https://a.example/x', 'https://b.example', 'https://c.example'],
    ],
    ['behind a sign', 'Link=https://a.example +https://b.example', ['https://a.example', 'https://b.example']],
    ['in the query of another', 'https://a.example/?u=https://b.example', ['https://a.example/?u=https://b.example']],
    ['by www', 'www.shop.com and WWW.Shop.Com', ['www.shop.com', 'WWW.Shop.Com']],
    ['by a name in a zone in common use', 'shop.com or shop.de', ['shop.com', 'shop.de']],
    ['by a path', 'visit shop.travel/summer today', ['shop.travel/summer']],
  ])('are found %s', (_, text, found) => {
    expect(findLinks(text).map(({ start, end }) => text.slice(start, end))).toEqual(found);
  });

  it.each([
    ['a mail address', 'write to anna@shop.com'],
    ['a slip of the pen', 'Thanks.Best regards. ok.So what'],
    ['a file', 'see letter.zip'],
    ['a version or an address', 'v1.2.3 and 10.0.0.1'],
    ['another scheme', 'ftp://a.com/x javascript:alert(1) data:text/html,x mailto:a@b.com tel:+4412'],
    ['a scheme alone', 'http:// and https://'],
    ['no URL at all', 'Hello. How are you?'],
  ])('are not seen in %s', (_, text) => {
    expect(findLinks(text)).toEqual([]);
  });

  it('lead to http where the text names no scheme', () => {
    expect(findLinks('shop.com')[0]?.url).toBe('http://shop.com');
  });

  it('are looked for in texts that want to take long, and it does not', () => {
    const texts = [
      'a.',
      'http://',
      'http://a.b/(',
      'a@',
      'www.',
      'a.com/',
      'http://a.com/"',
      '=http://',
      '=',
      ',http://a.b',
      '(',
      'a-',
      '@.com',
    ];
    for (const text of texts) expect(findLinks(text.repeat(4096).slice(0, 4096)).length).toBeLessThan(1000);
  });
});

describe('links of a message', () => {
  const text = (...texts: string[]) => ({
    messageSegments: texts.map((one) => ({ type: 'TEXT' as const, text: one })),
  });

  it('are those of its texts and of its failover, each URL once', () => {
    const content = text('https://a.example https://b.example', 'again https://a.example');
    expect(linksOf(content, { text: 'https://c.example https://b.example' })).toEqual([
      'https://a.example',
      'https://b.example',
      'https://c.example',
    ]);
    const media = { messageSegments: [{ type: 'LINK' as const, contentUrl: 'https://a.example/cat.jpg' }] };
    expect(linksOf(media, undefined)).toEqual([]);
  });

  it(`are at most ${LINKS_MAX}; further ones stay as they are`, () => {
    const many = Array.from({ length: LINKS_MAX + 5 }, (_, n) => `https://a.example/${n}`);
    const urls = linksOf(text(many.join(' ')), undefined);
    expect(urls).toEqual(many.slice(0, LINKS_MAX));
    const pieces = cutText(`${many[0]} ${many[LINKS_MAX]}`, urls);
    expect(pieces).toEqual(['', 0, ` ${many[LINKS_MAX]}`]);
  });

  it('are shortened only where tracking is given and does not say no', () => {
    expect(shortens(undefined)).toBe(false);
    expect(shortens({ shortenUrl: false, trackClicks: true })).toBe(false);
    expect(shortens({})).toBe(true);
    expect(shortens({ shortenUrl: true })).toBe(true);
  });

  it('keep their place whatever else the text holds, and a text without them is not cut', () => {
    const urls = ['https://a.example', 'https://b.example'];
    expect(cutText('x https://b.example, y https://a.example.', urls)).toEqual(['x ', 1, ', y ', 0, '.']);
    expect(cutText('https://other.example', urls)).toBeNull();
  });
});

describe('tokens', () => {
  const tokens = createLinkTokens(KEY);

  it('are eleven letters and digits that lead back to their message and link', () => {
    for (const no of [0, 1, 2 ** 16 - 1, 2 ** 16, 2 ** 32, 2 ** 48 - 1]) {
      for (const link of [0, 1, 99, 255]) {
        const token = tokens.print(no, link);
        expect(token).toMatch(/^[0-9A-Za-z]{11}$/);
        expect(tokens.parse(token)).toEqual({ no, link });
      }
    }
  });

  it('say nothing of each other: neighbours share no more letters than chance gives', () => {
    let same = 0;
    const first = tokens.print(1000, 0);
    for (let no = 1001; no < 2001; no++) {
      const token = tokens.print(no, 0);
      for (let at = 1; at < 11; at++) if (token[at] === first[at]) same++;
    }
    // 10 000 letters, one in 62 by chance: 161, and six standard deviations.
    expect(same).toBeGreaterThan(161 - 80);
    expect(same).toBeLessThan(161 + 80);
  });

  it('of another key are none, but for one in 256', () => {
    const other = createLinkTokens('ffeeddccbbaa99887766554433221100');
    let read = 0;
    for (let no = 0; no < 2560; no++) if (tokens.parse(other.print(no, 0)) !== null) read++;
    expect(read).toBeLessThan(40);
  });

  it.each(['', '0', '0000000000', '000000000000', 'zzzzzzzzzzz', '0000000000-', '..%2f..%2f.', 'ÄÄÄÄÄÄÄÄÄÄÄ'])(
    '%j is none',
    (token) => {
      expect(tokens.parse(token)).toBeNull();
    },
  );

  it('are not made of what they cannot hold', () => {
    expect(() => tokens.print(2 ** 48, 0)).toThrow(RangeError);
    expect(() => tokens.print(-1, 0)).toThrow(RangeError);
    expect(() => tokens.print(1, 256)).toThrow(RangeError);
    expect(() => createLinkTokens('short')).toThrow(RangeError);
  });
});

describe('the text of one message', () => {
  const shortener = createShortener('https://mms.example/x', KEY);
  const token = createLinkTokens(KEY).print(77, 0);

  it('has its own token below the public URL', () => {
    expect(shortener.textFor(['go: ', 0, '!'], 77, {})).toBe(`go: https://mms.example/x/l/${token}!`);
    expect(shortener.textFor([0], 78, {})).not.toContain(token);
  });
  it('has it without the scheme where that is asked for', () => {
    expect(shortener.textFor(['', 0, ''], 77, { removeProtocol: true })).toBe(`mms.example/x/l/${token}`);
  });
  it('has it under the custom domain, by https', () => {
    expect(shortener.textFor(['', 0, ''], 77, { customDomain: 'Go.Shop.Example' })).toBe(
      `https://go.shop.example/l/${token}`,
    );
    const both = { customDomain: 'go.shop.example', removeProtocol: true };
    expect(shortener.textFor(['', 0, ''], 77, both)).toBe(`go.shop.example/l/${token}`);
  });
});

describe('a look at a link', () => {
  const IPHONE =
    'Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1';
  const DESKTOP =
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36';
  const look = (more: Partial<ClickSigns>): ReturnType<typeof clickFlag> =>
    clickFlag({ method: 'GET', userAgent: IPHONE, purpose: '', at: 100_000, deliveredAt: 10_000, ...more }, isbot);

  it.each<[string, Partial<ClickSigns>, ReturnType<typeof clickFlag>]>([
    ['a phone', {}, null],
    ['a desktop', { userAgent: DESKTOP }, null],
    ['a phone at once: it was in the hand', { at: 10_500 }, null],
    ['a desktop in the first two seconds', { userAgent: DESKTOP, at: 11_999 }, 'EARLY'],
    ['a desktop after them', { userAgent: DESKTOP, at: 12_000 }, null],
    ['a desktop before the report came', { userAgent: DESKTOP, deliveredAt: null }, null],
    ['HEAD', { method: 'HEAD' }, 'HEAD'],
    ['a prefetch', { purpose: 'prefetch;prerender' }, 'PREFETCH'],
    ['a preview pane of a browser', { purpose: 'preview' }, 'PREFETCH'],
    ['nobody who says who', { userAgent: '' }, 'BOT'],
    ['a crawler', { userAgent: 'Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)' }, 'BOT'],
    ['a tool', { userAgent: 'curl/8.9.1' }, 'BOT'],
    ['WhatsApp', { userAgent: 'WhatsApp/2.23.20.0 A' }, 'PREVIEW'],
    [
      'iMessage',
      {
        userAgent:
          'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0',
      },
      'PREVIEW',
    ],
    ['Slack', { userAgent: 'Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)' }, 'PREVIEW'],
  ])('by %s', (_, more, flag) => {
    expect(look(more)).toBe(flag);
  });
});

describe("a click's webhook", () => {
  it('has the documented members, as in the published example', () => {
    const published = {
      notificationType: 'CLICKED',
      recipient: '41793026727',
      url: 'https://www.google.com',
      sendDateTime: 1704106800000,
      messageId: 'a28dd97c-1ffb-4fcf-99f1-0b557ed381da',
      bulkId: '17575032561857950495083',
      callbackData: 'Callback data',
      recipientInfo: { deviceType: 'Phone', os: 'iOS 12', deviceName: 'Apple' },
      geoLocationInfo: { countryName: 'United States', city: 'Los Angeles' },
      applicationId: 'traffic-application',
      entityId: 'traffic-entity',
    };
    const body = clickBody(
      {
        messageId: published.messageId,
        bulkId: published.bulkId,
        to: published.recipient,
        callbackData: published.callbackData,
        application: published.applicationId,
        entity: published.entityId,
      },
      {
        url: published.url,
        at: published.sendDateTime,
        ...published.recipientInfo,
        geo: published.geoLocationInfo,
      },
    );
    expect(body).toBe(JSON.stringify(published));
  });

  it('leaves out what is not known', () => {
    const message = { messageId: 'm', bulkId: 'b', to: '1', callbackData: null, application: null, entity: null };
    const click = { url: 'u', at: 1, deviceType: '', os: '', deviceName: '', geo: null };
    expect(Object.keys(JSON.parse(clickBody(message, click)))).toEqual([
      'notificationType',
      'recipient',
      'url',
      'sendDateTime',
      'messageId',
      'bulkId',
    ]);
  });
});
