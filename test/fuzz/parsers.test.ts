/**
 * Hostile bytes against everything that reads what customers, clickers and operators send: bodies of every JSON endpoint, the first
 * version's bodies, queries, cursors, search words, credentials, presentations, numbers, senders, URLs, instants, XML, multiparts, texts
 * with links, settings. What carriers send has `mm7.test.ts` and `smpp.test.ts`.
 *
 * Cases are made from sound ones that go wrong; runs and seeds: `generator.ts`.
 */
import { isIP } from 'node:net';
import { parse as parseForm } from 'node:querystring';
import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import { accountBody, applyBody, blockBody, keyBody, loginBody, pricesBody } from '../../src/api/admin-schema.ts';
import { apiErrorAnswer } from '../../src/api/answers.ts';
import { createAuth } from '../../src/api/auth.ts';
import { bulkBody, bulkStatusBody } from '../../src/api/bulks.ts';
import { apiError, formOf, prefersXml } from '../../src/api/errors.ts';
import { unclearHead } from '../../src/api/http.ts';
import { optOutsBody } from '../../src/api/inbox.ts';
import { valid } from '../../src/api/intake.ts';
import { parseJson } from '../../src/api/json.ts';
import { numberBody } from '../../src/api/numbers.ts';
import { logsQuery, printCursor, type readParameters, readQuery } from '../../src/api/queries.ts';
import { createSendValidator, DEFAULT_LIMITS } from '../../src/api/schema.ts';
import { sessionBody } from '../../src/api/sessions.ts';
import { createV1 } from '../../src/api/v1.ts';
import { MAX_VIOLATIONS } from '../../src/api/violations.ts';
import { endpointBody, rearmBody, replayBody } from '../../src/api/webhooks.ts';
import { decodedWords, headerValue, readMultipart } from '../../src/carriers/mime.ts';
import { loadConfig } from '../../src/config.ts';
import { isNetwork, networksOf } from '../../src/domain/accounts.ts';
import { parseDestination, parseSender } from '../../src/domain/address.ts';
import { createIds } from '../../src/domain/ids.ts';
import { createPartTokens } from '../../src/domain/inbound.ts';
import { createLinkTokens, findLinks } from '../../src/domain/links.ts';
import { formatInstant, parseInstant } from '../../src/domain/schedule.ts';
import { parseSearch } from '../../src/domain/search.ts';
import { printSmil, readSmil, srcsOf } from '../../src/domain/smil.ts';
import { testEnv } from '../../src/env.ts';
import { checkCallout } from '../../src/net/callout.ts';
import { readXml, type XmlElement } from '../../src/xml.ts';
import { full, NOW } from '../api/send.table.ts';
import { createModelStore } from '../conformance/model-store.ts';
import { Dice, many, RUNS } from './generator.ts';

const TIMEOUT_MS = 120_000 + RUNS * 6;
const ID_KEY = '00112233445566778899aabbccddeeff';

const TOKENS = [
  ...[
    '"',
    '\\',
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '{}',
    '[]',
    'null',
    'true',
    '""',
    '"__proto__":{"a":1},',
    '"constructor":1,',
  ],
  ...[
    '\\u0000',
    '\\ud800',
    '\\udfff\\ud800',
    '\\u202e',
    '-0',
    '1e999',
    '0x1',
    '9'.repeat(400),
    '1.5',
    '-1',
    '2147483648',
  ],
  ...[
    '<',
    '>',
    '&',
    '&#0;',
    '&x;',
    '<!DOCTYPE x>',
    '<![CDATA[',
    ']]>',
    '<!--',
    '<?x?>',
    '<a>'.repeat(70),
    ' src="http://a/"',
  ],
  ...[
    '\r\n',
    '\n',
    '\r',
    '\t',
    '\0',
    '\u0085',
    '\u2028',
    '\ufeff',
    '\u202e',
    '\u200b',
    '\uff11',
    '\u0661',
    '\ud800',
    'ß',
    '😀',
  ],
  ...[
    '--',
    '--b',
    '--b--',
    'Content-Type: multipart/mixed; boundary=b',
    'boundary="',
    '=?utf-8?B?',
    '?=',
    '%',
    '%00',
    '%ff',
    '+',
    '00',
  ],
  ...[
    'http://',
    'https://127.0.0.1',
    '//',
    '@',
    '#',
    '?',
    '/../',
    '[::1]',
    '0x7f.1',
    '2130706433',
    'xn--',
    'javascript:',
    ' ',
  ],
  ...[
    'T',
    'Z',
    '+0100',
    '2026-02-30',
    '24:00:00',
    '.999',
    'to:',
    'status:',
    'after:',
    'Basic ',
    'App ',
    ', *;q=',
    '&a',
    '*a',
    '!!js/x ',
  ],
  'é'.repeat(200),
];

class Generator extends Dice {
  /** Bytes of a sound case that went wrong; one in sixteen stays sound. */
  bytes(cases: readonly Buffer[]): Buffer {
    let bytes = Buffer.from(this.of(cases));
    if (this.below(16) === 0) return bytes;
    for (let n = this.below(5); n >= 0; n--) {
      const at = this.below(bytes.length + 1);
      const end = Math.min(bytes.length, at + this.below(40));
      const [before, behind] = [bytes.subarray(0, at), bytes.subarray(at)];
      const other = this.of(cases);
      const from = this.below(other.length);
      bytes = Buffer.concat(
        [
          () => [before, Buffer.from([this.below(256)]), bytes.subarray(at + 1)],
          () => [before],
          () => [before, bytes.subarray(end)],
          () => [bytes.subarray(0, end), behind],
          () => [before, Buffer.from(this.of(TOKENS)), behind],
          () => [before, Buffer.from(this.of(TOKENS)), bytes.subarray(end)],
          () => [before, other.subarray(from, from + this.below(200)), behind],
        ][this.below(7)]?.() ?? [],
      );
    }
    return bytes;
  }
  /** The same as text, with lone surrogates now and then. */
  text(cases: readonly string[]): string {
    const text = this.bytes(cases.map((one) => Buffer.from(one))).toString('utf8');
    if (this.below(20) > 0) return text;
    const at = this.below(text.length + 1);
    return text.slice(0, at) + String.fromCharCode(0xd800 + this.below(0x800)) + text.slice(at);
  }
}

/** A parser's test: hostile cases end well, and some are still sound, so that the ways behind a yes are walked too. */
function fuzz(name: string, act: (generator: Generator) => boolean | Promise<boolean>): void {
  it(name, { timeout: TIMEOUT_MS }, async () => {
    const before = Object.getOwnPropertyNames(Object.prototype);
    const good = await many(Generator, RUNS, act);
    expect(good).toBeGreaterThan(0);
    expect(good).toBeLessThan(RUNS);
    expect(Object.getOwnPropertyNames(Object.prototype)).toEqual(before);
  });
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** What is wrong is told in bounded words that are whole, in either form. */
function told(violations: { property: string; violation: string }[]): void {
  expect(violations.length).toBeGreaterThan(0);
  expect(violations.length).toBeLessThanOrEqual(MAX_VIOLATIONS);
  const answer = apiError('E400', { violations });
  apiErrorAnswer.parse(JSON.parse(answer.body));
  expect(readXml(formOf(answer, 'application/xml').body).ok).toBe(true);
}

describe('bodies', () => {
  const message = full.messages[0] as (typeof full.messages)[0];
  const group = { ...message, destinations: [{ group: [{ to: '41793026727' }, { cc: '41793026728' }] }] };
  const SENDS = [
    json(full),
    json({ messages: [message, group] }),
    Buffer.from(JSON.stringify({ messages: [group] }, null, 2)),
  ];
  const validate = createSendValidator({ limits: DEFAULT_LIMITS, checkCallout: checkCallout([]) });

  fuzz('of POST /mms/2/messages are taken as they are, or refused in words', (generator) => {
    const parsed = parseJson(generator.bytes(SENDS));
    if (!parsed.ok) {
      told([{ property: '', violation: parsed.fault }]);
      return false;
    }
    const result = validate(parsed.value, NOW);
    if (!result.ok) {
      told(result.violations);
      return false;
    }
    // What was taken is taken again, and is the same.
    expect(validate(JSON.parse(JSON.stringify(result.request)), NOW)).toEqual(result);
    return true;
  });

  const OURS: [z.ZodType<unknown>, object][] = [
    [
      endpointBody(checkCallout([])),
      {
        kind: 'DELIVERY',
        url: 'https://example.com/x',
        secret: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',
        headers: { A: 'b' },
        default: true,
      },
    ],
    [replayBody, { from: '2026-01-01T00:00:00.000Z', to: '2026-01-02T00:00:00.000Z', state: 'EXHAUSTED' }],
    [replayBody, { endpoint: 'https://example.com/x' }],
    [rearmBody, { kind: 'INBOX', takenSince: '2026-01-01T00:00:00.000Z', messageId: 'm' }],
    [optOutsBody, { optOuts: [{ sender: 'Shop', destination: '41793026727' }] }],
    [
      bulkBody({ now: NOW }),
      { sendAt: '2026-01-01T00:00:00.000Z', sendingSpeedLimit: { amount: 5, timeUnit: 'HOUR' } },
    ],
    [bulkStatusBody, { status: 'PAUSED' }],
    [sessionBody, { username: 'anna', password: 'secret', unsafe: true }],
    [
      accountBody,
      {
        name: 'shop',
        currency: 'EUR',
        registeredOnly: true,
        limits: { messagesPerDay: 5, spend: { amount: 1.5, per: 'DAY' } },
      },
    ],
    [
      keyBody,
      { label: 'till', scopes: ['mms:manage'], validUntil: '2027-01-01T00:00:00.000Z', allow: ['10.0.0.0/8', '::1'] },
    ],
    [loginBody, { user: 'anna', password: 'at least twelve' }],
    [pricesBody, { prices: [{ prefix: '41', channel: 'MMS', price: 0.07 }] }],
    [blockBody, { kind: 'DESTINATION', value: '4490*' }],
    [numberBody, { number: '+441134960000', url: 'https://example.com/mo', entityId: 'e' }],
    [
      applyBody(() => null),
      {
        accounts: [
          { name: 'shop', keys: [{ label: 'x' }], senders: ['Shop'], domains: ['go.example.com'], blocks: [] },
        ],
      },
    ],
  ];
  const BODIES = OURS.map(([, body]) => json(body));

  fuzz('of our own endpoints and of the operator are taken, or refused in words', (generator) => {
    const at = generator.below(OURS.length);
    // Mostly with its own schema.
    const schema = (OURS[at] as (typeof OURS)[0])[0];
    const parsed = parseJson(
      generator.bytes(generator.below(4) === 0 ? BODIES : [BODIES[at] as Buffer]),
      300_000,
      'kept',
    );
    if (!parsed.ok) return false;
    const result = valid(schema, parsed.value);
    if (!result.ok) told(result.violations);
    return result.ok;
  });

  const V1 = [
    {
      bulkId: 'b',
      messages: [
        {
          ...{ from: 'Shop', destinations: [{ to: '41793026727', messageId: 'm' }], title: 't', validityPeriod: 60 },
          messageSegments: [
            { text: 'a', contentId: 'c' },
            { contentUrl: 'https://example.com/a.jpg' },
            { contentBase64: 'aGVsbG8=', contentType: 'text/plain' },
          ],
          ...{
            notifyUrl: 'https://example.com/x',
            callbackData: 'd',
            sendAt: '2026-01-01T00:00:00.000Z',
            entityId: 'e',
          },
          deliveryTimeWindow: { days: ['MONDAY'], from: { hour: 8, minute: 0 }, to: { hour: 20, minute: 0 } },
        },
      ],
    },
  ].map(json);
  const v1 = createV1({
    send: {
      limit: 1,
      tooLarge: apiError('E413'),
      head: (_headers, account) => ({ account }) as never,
      async body(_head, bytes) {
        const result = validate(JSON.parse(bytes.toString('utf8')), NOW);
        if (!result.ok) return apiError('E400', { violations: result.violations });
        return { status: 200, headers: {}, body: '{"bulkId":"b","messages":[]}' };
      },
    },
    reads: { reports: async () => apiError('E500'), logs: async () => apiError('E500') },
    store: { putContent: async () => undefined, putUpload: async () => undefined },
    maxUploadBytes: 1000,
  });

  fuzz('of the first version become bodies of the second, or are refused in the older form', async (generator) => {
    const head = { account: 1, accept: generator.of([undefined, 'application/xml']) } as never;
    const { status, body } = await v1.send.body(head, generator.bytes(V1));
    expect([200, 400]).toContain(status);
    if (body.startsWith('<')) expect(readXml(body).ok).toBe(true);
    else if (status === 400)
      expect(JSON.parse(body)).toMatchObject({ requestError: { serviceException: { messageId: 'BAD_REQUEST' } } });
    return status === 200;
  });
});

describe('words', () => {
  const ids = createIds(ID_KEY);
  const QUERIES = [
    `limit=10&useCursor=true&cursor=${printCursor(77, ids)}&sentSince=2020-02-22T17:42:05.390%2b01:00`,
    'bulkId=a&bulkId=b,c&messageId=x&generalStatus=DELIVERED&sender=Shop&destination=41793026727&mcc=228&mnc=1',
    'search=status%3Aundeliverable%20campaign%3A%22spring%20sale%22&limit=1000',
  ];
  fuzz('in queries are read, or refused in words', (generator) => {
    const read = readQuery(logsQuery, parseForm(generator.text(QUERIES)), ids, NOW) as ReturnType<
      typeof readParameters
    > & {
      violations: { property: string; violation: string }[];
      query: { limit: number };
    };
    if (!read.ok) {
      told(read.violations);
      return false;
    }
    expect(read.query.limit).toBeGreaterThanOrEqual(1);
    expect(read.query.limit).toBeLessThanOrEqual(1000);
    return true;
  });

  const links = createLinkTokens(ID_KEY);
  const parts = createPartTokens(ID_KEY);
  const CURSORS = [
    printCursor(1, ids),
    ids.print('bulk', 2 ** 40),
    links.print(12_345, 3),
    parts.print(5, 2, NOW + 1000),
  ];
  fuzz('that are cursors, ids and tokens of ours name what they named, or nothing', (generator) => {
    const text = generator.text(CURSORS);
    let good = false;
    for (const kind of ['message', 'bulk', 'webhook'] as const) {
      const no = ids.parse(kind, text);
      if (no === null) continue;
      // One text for one number: nobody makes a second one that counts.
      expect(ids.print(kind, no)).toBe(text);
      good = true;
    }
    const link = links.parse(text);
    if (link !== null) expect(links.print(link.no, link.link)).toBe(text);
    const part = parts.parse(text, NOW);
    if (part !== null) expect(part).toEqual({ no: 5, part: 2 });
    return good;
  });

  fuzz('of a search are understood, or named', (generator) => {
    const read = parseSearch(
      generator.text([
        'status:undeliverable campaign:"spring sale" after:2h',
        'to:+41793026727 from:Shop before:2026-07-07T06:32',
        'bulk:"a\\"b" status:15',
      ]),
      NOW,
    );
    if (!read.ok) {
      expect(read.wrong.length).toBeLessThan(500);
      return false;
    }
    for (const at of [read.search.before, read.search.after])
      if (at !== undefined) expect(Number.isFinite(at)).toBe(true);
    return true;
  });

  fuzz('that are destinations and senders are digits and plain letters, or none', (generator) => {
    const text = generator.text([
      '41793026727',
      '+41793026727',
      '0041793026727',
      'My Shop',
      '12345',
      '441134960000',
      'A.b-c_&1',
    ]);
    const to = parseDestination(text);
    if (to.ok) expect(to.number).toMatch(/^[1-9]\d{6,14}$/);
    const sender = parseSender(text);
    if (sender.ok) expect(sender.sender).toMatch(/^(\d{3,15}|[\p{L}\d .\-_&]{3,11})$/u);
    return to.ok || sender.ok;
  });

  fuzz('that are instants are read, and printed so that they are the same', (generator) => {
    const at = parseInstant(
      generator.text(['2026-07-07T06:32:15.101+0000', '2020-02-29T23:59:59Z', '2026-12-31T00:00:00.000-11:30']),
    );
    if (at === null) return false;
    expect(Number.isSafeInteger(at)).toBe(true);
    expect(parseInstant(formatInstant(at))).toBe(at);
    return true;
  });

  const check = checkCallout([]);
  const URLS = [
    'https://example.com/a?b=c#d',
    'http://203.0.113.7:8080/x',
    'https://[2001:4860:4860::8888]/x',
    'http://user@10.0.0.1/',
    'http://0x7f.0.0.1/',
    'http://2130706433/',
    'http://[::ffff:127.0.0.1]/',
    'http://bücher.example/',
    'http://127.1/',
  ];
  const LOCAL = /^(127\.|10\.|0\.|169\.254\.|192\.168\.|\[::1\]|\[::\]|\[::ffff:7f|localhost\.?$)/;
  fuzz('that are URLs are http, and of no address inside', (generator) => {
    const text = generator.text(URLS);
    const wrong = check(text);
    if (wrong !== null) {
      expect(wrong.length).toBeLessThan(300);
      return false;
    }
    const url = new URL(text);
    expect(url.protocol).toMatch(/^https?:$/);
    // A name that looks like an address is judged by what it leads to.
    const address = isIP(url.hostname.replace(/^\[|\]$/g, '')) !== 0;
    expect([text, address && LOCAL.test(url.hostname)]).toEqual([text, false]);
    return true;
  });

  fuzz('with links are found whole: each lies where it is said', (generator) => {
    const text = generator.text([
      'see https://example.com/a?b=c, or (www.example.org). Bye',
      'http://bücher.example/ä b.ly/x!',
      'a@b.example x.y',
    ]);
    const found = findLinks(text);
    for (const link of found) expect(text.slice(link.start, link.end).length).toBeGreaterThan(0);
    return found.length > 0;
  });

  const NETWORKS = ['10.0.0.0/8', '2001:db8::/32', '192.0.2.1', '::ffff:10.0.0.1', '0.0.0.0/0'];
  fuzz('that are networks contain addresses, or are none', (generator) => {
    const text = generator.text(NETWORKS);
    const address = generator.text(['10.1.2.3', '::1', '::ffff:10.1.2.3', '192.0.2.1']);
    if (!isNetwork(text)) return false;
    expect(typeof networksOf([text])(address)).toBe('boolean');
    return true;
  });
});

describe('heads', () => {
  const made = (async () => {
    const store = createModelStore();
    await store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
    return createAuth(store, testEnv(), { N: 64, r: 1, p: 1 });
  })();
  const BASIC = `Basic ${Buffer.from('anna:secret').toString('base64')}`;
  const CREDENTIALS = ['App 0123456789abcdef', BASIC, 'IBSSO abc', 'Bearer abc.def'];
  fuzz('name credentials of somebody, or of nobody', async (generator) => {
    const auth = await made;
    const header = generator.text(CREDENTIALS);
    const asked = await auth.caller(header, `192.0.2.${generator.below(250)}`);
    // Nobody has a key that can be made up.
    expect(asked === null || 'busyS' in asked).toBe(true);
    return header.startsWith('App ');
  });

  fuzz('say what is preferred and where a body ends, in whatever words', (generator) => {
    const accept = generator.text([
      'application/json, application/xml;q=0.5',
      'text/xml',
      '*/*;q=0.1, application/xml; q=1',
    ]);
    const xml = prefersXml(accept);
    const raw = [
      generator.text(['Host', 'Transfer-Encoding', 'host']),
      generator.text(['x', 'chunked', 'gzip, chunked']),
    ];
    const unclear = unclearHead([...raw, 'host', 'x']);
    expect(unclear === null || unclear.status === 400).toBe(true);
    headerValue(accept);
    expect(
      decodedWords(generator.text(['=?utf-8?B?R3LDvMOfZQ==?=', '=?iso-8859-1?Q?Gr=FC=DFe?= x'])).length,
    ).toBeLessThan(5000);
    return xml;
  });
});

describe('documents', () => {
  const depth = (element: XmlElement): number => 1 + Math.max(0, ...element.children.map(depth));
  const XML = [
    '<?xml version="1.0"?><a b="c" xmlns:d="urn:x"><d:e>text &amp; &#65;</d:e><!-- c --><f/><![CDATA[x]]></a>',
    `<a>${'<b>'.repeat(60)}${'</b>'.repeat(60)}</a>`,
  ].map((text) => Buffer.from(text));
  fuzz('in XML are read within their limits, or refused in words', (generator) => {
    const read = readXml(generator.bytes(XML));
    if (!read.ok) {
      expect(read.fault.length).toBeLessThan(300);
      return false;
    }
    expect(depth(read.root)).toBeLessThanOrEqual(64);
    return true;
  });

  const SMIL = [
    '<smil><head><meta name="a" content="b"/><layout><root-layout width="320" height="240"/><region id="Image" left="0" top="0" width="100%" height="50%" fit="meet"/></layout></head><body><par dur="5s"><img src="a.jpg" region="Image"/><text src="cid:t.txt" region="Image"><param name="x" value="y"/></text></par><par dur="indefinite"><audio src="s.amr"/></par></body></smil>',
    '<!DOCTYPE smil><smil xmlns="http://www.w3.org/2001/SMIL20/Language"><body><seq><ref src="v"/></seq></body></smil>',
  ];
  fuzz('in SMIL are printed again with nothing that leads outside or runs, or refused in words', (generator) => {
    const read = readSmil(generator.text(SMIL));
    if (!read.ok) {
      expect(read.faults.length).toBeGreaterThan(0);
      return false;
    }
    expect(srcsOf(read.smil).length).toBeLessThanOrEqual(1000);
    const printed = printSmil(read.smil, (src) =>
      src.length % 2 === 0 ? { contentId: 'p1', contentType: 'image/jpeg' } : null,
    );
    if (printed === null) return true;
    const again = readXml(printed);
    expect(again.ok).toBe(true);
    const names = new Set<string>();
    const walk = (element: XmlElement): void => {
      names.add(element.name);
      if (element.attributes.src !== undefined) expect(element.attributes.src).toMatch(/^(cid:)?p1$/);
      for (const name of Object.keys(element.attributes)) expect(name).not.toMatch(/^on|href/i);
      for (const child of element.children) walk(child);
    };
    if (again.ok) walk(again.root);
    for (const name of names)
      expect(name).toMatch(/^(smil|head|meta|layout|root-layout|region|body|par|img|video|audio|text|ref|param)$/);
    return true;
  });

  const MULTIPARTS = [
    '--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-ID: <a>\r\n\r\nhello\r\n--b\r\nContent-Type: image/jpeg; name="x.jpg"\r\nContent-Transfer-Encoding: base64\r\n\r\n/9j/4AAQ\r\n--b--\r\n',
    '--b\nContent-Transfer-Encoding: quoted-printable\nContent-Type: text/plain\n\na=3Db=\n\n--b \n\nx\n--b--',
  ].map((text) => Buffer.from(text));
  fuzz('in several parts come apart within their limits, or are refused', (generator) => {
    const type =
      generator.below(4) === 0
        ? generator.text(['multipart/related; boundary="b"; start="<a>"', 'multipart/mixed; boundary=b'])
        : 'multipart/mixed; boundary=b';
    const body = generator.bytes(MULTIPARTS);
    const read = readMultipart(type, body);
    if (!read.ok) {
      expect(read.fault.length).toBeLessThan(300);
      return false;
    }
    expect(read.parts.length).toBeLessThanOrEqual(100);
    // No part has more than came.
    for (const part of read.parts) expect(part.bytes.length).toBeLessThanOrEqual(body.length);
    return true;
  });
});

describe('settings', () => {
  const YAML = [
    'port: 8080\nhost: 127.0.0.1\nlogLevel: info\nmaxBodyBytes: 8MiB\noutboundAllow: [10.0.0.0/8]\n',
    'carriers:\n  - name: example\n    type: mm7\n    url: https://mmsc.example.com/mm7\n    vaspId: "1234"\n    concurrency: 10\n    inbound:\n      secret: change-me-too-0123456789\nroutes:\n  - name: germany\n    to: 49\n    carriers: [example]\n',
    'carriers:\n  - {name: smsc, type: smpp, host: smsc.example.com, port: 2775, systemId: a, password: b}\nnetworks: {"4917": "26201"}\nretentionDays: 7\n',
  ];
  fuzz('are taken, or every mistake is named in one line', (generator) => {
    const yaml = generator.text(YAML);
    const env: Record<string, string> = { POSTCARD_CONFIG: 'p.yaml' };
    if (generator.below(3) === 0)
      env[generator.of(['POSTCARD_PORT', 'POSTCARD_STORE', 'POSTCARD_MAX_BODY_BYTES', 'POSTCARD_ROLES'])] =
        generator.text(['8080', 'sqlite:', '8MiB', 'api,dispatch']);
    const loaded = loadConfig({
      env,
      cwd: '/',
      readFile: (path) => {
        if (path === '/p.yaml') return yaml;
        throw Object.assign(new Error('no file'), { code: 'ENOENT' });
      },
    });
    if (loaded.ok) return true;
    expect(loaded.mistakes.length).toBeGreaterThan(0);
    for (const line of loaded.mistakes) expect(line).not.toMatch(/[\u0000-\u0008\u000a-\u001f]/);
    return false;
  });
});
