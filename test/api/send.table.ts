/**
 * Golden pairs for POST /mms/2/messages as data: what is sent and what must be answered. A row changes one place of a small
 * valid request; `documented` holds Infobip's own samples; `raw` holds bodies that are not even JSON, and larger shapes.
 * `send.suite.ts` runs them through any door that takes a body.
 */

/** Place, new value, and the answer: null = 200, a text = 400 with that violation at that place, a list = those pairs. */
export type Row = [path: string, value: unknown, answer: null | string | [property: string, violation: string][]];

/** Takes the member away. */
export const GONE = Symbol('gone');

/** "Now" of the doors under test: 2026-01-01T00:00:00Z. */
export const NOW = 1_767_225_600_000;

export const NULL = 'must not be null';
export const BLANK = 'must not be blank';
export const EMPTY = 'must not be empty';
export const ENUM = 'Provide one of the valid values.';
const SEGMENT_TYPE = `${ENUM} Valid: TEXT, LINK, SMIL, UPLOADED_REFERENCE.`;
export const URL = 'is not a valid url';
const STRING = 'must be a string';
const INTEGER = 'must be a integer';
const BOOLEAN = 'must be a boolean';
const ARRAY = 'must be a array';
const OBJECT = 'must be a object';
const NUL = 'must not contain the character U+0000';
const LONE = 'must not contain unpaired surrogates';
const DATE = "must be a date-time with zone: yyyy-MM-dd'T'HH:mm:ss.SSSZ";
const INT32 = 'must be less than or equal to 2147483647';
const size = (min: number, max: number) => `size must be between ${min} and ${max}`;
const x = (length: number) => 'x'.repeat(length);
const list = <T>(length: number, item: T): T[] => Array.from({ length }, () => item);

/** The request that rows change: every member that exists, all valid. */
export const full = {
  messages: [
    {
      sender: '441134960000',
      destinations: [
        { to: '41793026727', messageId: 'first' },
        { group: [{ to: '41793026728', messageId: 'second' }, { to: '41793026729' }] },
      ],
      content: {
        title: 'Some title',
        messageSegments: [
          { type: 'TEXT', contentId: 'text_1', text: 'Some text' },
          {
            type: 'LINK',
            contentId: 'image_1',
            contentUrl: 'https://www.example.com/image.jpg',
            contentType: 'image/jpeg',
          },
          { type: 'SMIL', contentId: 'smil_1', smil: '<smil><body/></smil>', contentType: 'application/smil' },
        ],
      },
      options: {
        platform: { entityId: 'promotional-traffic-entity', applicationId: 'marketing-automation-application' },
        validityPeriod: { amount: 10, timeUnit: 'HOURS' },
        deliveryTimeWindow: {
          days: ['MONDAY', 'SUNDAY'],
          from: { hour: 9, minute: 30 },
          to: { hour: 17, minute: 0 },
        },
        smsFailover: {
          sender: '441134960000',
          text: 'Some failover text',
          validityPeriod: { amount: 5, timeUnit: 'MINUTES' },
          regional: { southKorea: { resellerCode: 123 } },
        },
        regional: { southKorea: { resellerCode: 123 } },
        campaignReferenceId: 'summersale',
      },
      webhooks: {
        delivery: { url: 'https://www.example.com/reports', intermediateReport: true, notify: true },
        contentType: 'application/json',
        callbackData: 'Callback data',
      },
    },
  ],
  options: {
    schedule: {
      bulkId: '',
      sendAt: '2026-02-22T17:42:05.390+0100',
      sendingSpeedLimit: { amount: 10, timeUnit: 'HOUR' },
    },
    tracking: {
      shortenUrl: true,
      trackClicks: true,
      trackingUrl: 'https://www.example.com/clicks',
      removeProtocol: false,
      customDomain: 'example.com',
    },
  },
};

const M = 'messages[0]';
const D = `${M}.destinations`;
const C = `${M}.content`;
const S = `${C}.messageSegments`;
const O = `${M}.options`;
const F = `${O}.smsFailover`;
const W = `${O}.deliveryTimeWindow`;
const H = `${M}.webhooks`;
const P = 'options.schedule';
const T = 'options.tracking';

/** What every text member answers, at its limit too. `gone`: what its absence and null answer. */
function texts(path: string, max: number | null, gone: string | null, blank: string | null): Row[] {
  const rows: Row[] = [
    [path, GONE, gone],
    [path, null, gone],
    [path, 5, STRING],
    [path, true, STRING],
    [path, {}, STRING],
    [path, ['x'], STRING],
    [path, '', blank],
    [path, ' \t', blank],
    [path, 'ž 😀 عربى \u200f', null],
    [path, 'line\r\nbreak\u0001\u001f\u007f', null],
    [path, 'a\0b', NUL],
    [path, 'a\ud83d', LONE],
    [path, '\ude00b', LONE],
  ];
  if (max !== null) {
    rows.push(
      [path, x(max), null],
      [path, x(max + 1), size(0, max)],
      // Code points, not UTF-16 units.
      [path, '😀'.repeat(max), null],
      [path, `${'😀'.repeat(max)}x`, size(0, max)],
    );
  }
  return rows;
}

const SMIL_SIZE = 65_536;
const RIGHT = 'src must be the contentId, file name or URL of another segment of this message';
const notXml = (words: string, line: number, column: number) =>
  `must be well-formed XML: ${words} (line ${line}, column ${column})`;

/** What SMIL answers beside a text `text_1` and a link `image_1` to `https://www.example.com/image.jpg`. */
function presentations(path: string): Row[] {
  const body = (media: string) => `<smil><body><par dur="5s">${media}</par></body></smil>`;
  const empty = `<smil>${x(SMIL_SIZE - 13)}</smil>`;
  const good = [
    ...['text_1', 'cid:text_1', 'CID:text_1', 'image_1', 'TEXT_1', ' text_1 ', './text_1', 'text%5f1', 'text&#95;1'],
    ...['image.jpg', 'cid:image.jpg', 'https://www.example.com/image.jpg'],
  ];
  const bad = [
    'text_2',
    'smil_1',
    'presentation.smil',
    'data:,x',
    'http://127.0.0.1/',
    'file:///etc/passwd',
    '#a',
    '..',
  ];
  return [
    ...good.map((src): Row => [path, body(`<ref src="${src}"/>`), null]),
    ...bad.map((src): Row => [path, body(`<img src="${src}"/>`), `<img> at line 1, column 27: ${RIGHT}`]),
    [path, body("<img src='image_1'/>\n <audio\n src='a'/>"), `<audio> at line 2, column 2: ${RIGHT}`],
    [path, body('<img/>'), `<img> at line 1, column 27 has no src; ${RIGHT}`],
    [
      path,
      body('<img src="a"/><text src="b"/>'),
      [
        [path, `<img> at line 1, column 27: ${RIGHT}`],
        [path, `<text> at line 1, column 41: ${RIGHT}`],
      ],
    ],
    [
      path,
      body('<img src="a"/>'.repeat(20)),
      list(10, 0).map((_, i) => [path, `<img> at line 1, column ${27 + 14 * i}: ${RIGHT}`]),
    ],
    // Unknown elements and attributes are no fault; they do not travel.
    [path, body('<blink src="a"><img src="b"/></blink><a href="x"/><text src="text_1" onload="x"/>'), null],
    [
      path,
      '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE smil PUBLIC "-//W3C//DTD SMIL 2.0//EN" "x.dtd">\n<smil/>',
      null,
    ],
    [
      path,
      '\ufeff<?xml version="1.0"?>\n<!-- by an <editor> -->\n<!-- b -->\n<!DOCTYPE smil SYSTEM \'x.dtd\'>\n<smil/>',
      null,
    ],
    [
      path,
      '<!-- a --><!DOCTYPE smil [<!ELEMENT a ANY>]><smil/>',
      'must not have a DOCTYPE that declares anything (line 1, column 11)',
    ],
    [path, '<smil xmlns="http://www.w3.org/2000/SMIL20/CR/Language"><!-- <img src="a"/> --></smil>', null],
    [path, '<s:smil xmlns:s="urn:x"><s:body><s:img src="text_1"/></s:body></s:smil>', null],
    [path, empty, null],
    [path, empty.replace('x', 'xx'), size(0, SMIL_SIZE)],
    // Too long is all that it is told, whatever else is wrong with it.
    [path, `<${x(SMIL_SIZE)}`, size(0, SMIL_SIZE)],
    [path, 'hello', notXml('text data outside of root node', 1, 6)],
    [path, '<html/>', 'must have <smil> as its root element (line 1, column 1)'],
    [path, ' <!-- x -->\n<SMIL/>', 'must have <smil> as its root element (line 2, column 1)'],
    [path, '<smil><body>', notXml('unclosed tag', 1, 12)],
    [path, '<smil>\n<body>\n</par></body></smil>', notXml('unexpected close tag', 3, 6)],
    [path, '<smil><body a></body></smil>', notXml('attribute without value', 1, 14)],
    [path, '<smil>&nbsp;</smil>', notXml('undefined entity', 1, 12)],
    [
      path,
      '<!DOCTYPE smil [<!ENTITY a "b">]><smil>&a;</smil>',
      'must not have a DOCTYPE that declares anything (line 1, column 1)',
    ],
    [path, `<smil>${'<par/>'.repeat(500)}</smil>`, 'is not accepted: more than 500 elements'],
    [path, `<smil>${'<a>'.repeat(32)}${'</a>'.repeat(32)}</smil>`, 'is not accepted: nested deeper than 32'],
  ];
}

function integers(path: string, min: number, max: number, gone: string | null): Row[] {
  return [
    [path, GONE, gone],
    [path, null, gone],
    [path, min, null],
    [path, min - 1, `must be greater than or equal to ${min}`],
    [path, max, null],
    [path, max + 1, `must be less than or equal to ${max}`],
    [path, min + 0.5, INTEGER],
    [path, String(min), INTEGER],
    [path, '', INTEGER],
    [path, true, INTEGER],
    [path, [min], INTEGER],
  ];
}

function booleans(path: string): Row[] {
  return [
    [path, GONE, null],
    [path, null, null],
    [path, false, null],
    [path, 'true', BOOLEAN],
    [path, 1, BOOLEAN],
  ];
}

function enums(path: string, values: string[], gone: string | null): Row[] {
  return [
    [path, GONE, gone],
    [path, null, gone],
    ...values.map((value): Row => [path, value, null]),
    [path, values[0]?.toLowerCase() === values[0] ? values[0]?.toUpperCase() : values[0]?.toLowerCase(), ENUM],
    [path, 'NONE', ENUM],
    [path, '', ENUM],
    [path, 1, STRING],
  ];
}

function objects(path: string, gone: string | null): Row[] {
  return [
    [path, GONE, gone],
    [path, null, gone],
    [path, 'x', OBJECT],
    [path, 1, OBJECT],
    [path, [], OBJECT],
  ];
}

function arrays(path: string): Row[] {
  return [
    [path, GONE, NULL],
    [path, null, NULL],
    [path, [], EMPTY],
    [path, {}, ARRAY],
    [path, 'x', ARRAY],
  ];
}

function urls(path: string, gone: string | null): Row[] {
  return [
    [path, GONE, gone],
    [path, null, gone],
    [path, 7, STRING],
    [path, '', URL],
    [path, 'www.example.com', URL],
    [path, '/reports', URL],
    [path, 'https://', URL],
    [path, 'ftp://www.example.com/x', URL],
    [path, 'javascript:alert(1)', URL],
    [path, 'file:///etc/passwd', URL],
    [path, 'http://www.example.com', null],
    [path, 'https://www.example.com:8443/p%C3%A4th?a=b&c=%20#d', null],
  ];
}

export const rows: Row[] = [
  ...arrays('messages'),
  ['messages', [null], [['messages[0]', NULL]]],
  ['messages', ['x'], [['messages[0]', OBJECT]]],
  ...objects('messages[0]', NULL).slice(2),

  ...texts(`${M}.sender`, null, NULL, BLANK).filter(([, value]) => typeof value !== 'string' || !value.includes('ž')),

  ...arrays(D),
  [D, [null], [[`${D}[0]`, NULL]]],
  [D, ['41793026727'], [[`${D}[0]`, OBJECT]]],
  [D, [{}], [[`${D}[0].to`, NULL]]],
  [D, [{ to: '41793026727', group: [{ to: '41793026728' }] }], [[`${D}[0]`, 'Provide either to or group, not both.']]],
  [D, [{ to: null, group: [{ to: '41793026728' }] }], null],
  [D, [{ to: '41793026727', group: null }], null],
  [D, [{ group: [{ to: '41793026728' }] }, { to: '41793026727' }], null],
  [`${D}[0].to`, GONE, NULL],
  [`${D}[0].to`, null, NULL],
  [`${D}[0].to`, 41793026727, STRING],
  // A bad address is no violation: its own entry is REJECTED.
  [`${D}[0].to`, '', null],
  [`${D}[0].to`, 'nobody 😀', null],
  [`${D}[0].to`, 'a\0b', NUL],
  [`${D}[0].to`, '\ud800', LONE],
  ...texts(`${D}[0].messageId`, 200, null, null),
  ...arrays(`${D}[1].group`).slice(2),
  [`${D}[1].group`, list(200, { to: '41793026727' }), null],
  [`${D}[1].group`, list(201, { to: '41793026727' }), size(1, 200)],
  [`${D}[1].group`, [{}], [[`${D}[1].group[0].to`, NULL]]],
  [`${D}[1].group`, [null], [[`${D}[1].group[0]`, NULL]]],
  [`${D}[1].group`, [{ group: [{ to: '41793026727' }] }], [[`${D}[1].group[0].to`, NULL]]],
  [`${D}[1].group[1].to`, 5, STRING],
  [`${D}[1].group[0].messageId`, x(201), size(0, 200)],

  ...objects(C, NULL),
  ...texts(`${C}.title`, 66, null, null),
  ...arrays(S),
  [S, list(20, { type: 'TEXT', text: 'x' }), null],
  [S, list(21, { type: 'TEXT', text: 'x' }), size(1, 20)],
  [S, [null], [[`${S}[0]`, NULL]]],
  [S, ['text'], [[`${S}[0]`, OBJECT]]],
  [`${S}[0].type`, GONE, SEGMENT_TYPE],
  [`${S}[0].type`, null, SEGMENT_TYPE],
  [`${S}[0].type`, 'IMAGE', ENUM],
  [`${S}[0].type`, 'text', ENUM],
  [`${S}[0].type`, 'BASE64', ENUM],
  [`${S}[0].type`, 'constructor', ENUM],
  [`${S}[0].type`, '__proto__', ENUM],
  [`${S}[0].type`, 1, STRING],
  ...texts(`${S}[0].text`, 4096, NULL, null),
  [`${S}[0].text`, x(1601), null],
  ...texts(`${S}[0].contentId`, null, null, null),
  [`${S}[0].contentId`, 'photo_jpg_1730000000000 (1)', null],
  ...urls(`${S}[1].contentUrl`, NULL),
  ...texts(`${S}[1].contentType`, null, null, null),
  ...texts(`${S}[2].smil`, null, NULL, BLANK).filter((row) => row[2] !== null),
  ...presentations(`${S}[2].smil`),
  [`${S}[2].contentType`, GONE, NULL],
  [`${S}[2].contentType`, '', BLANK],
  [`${S}[2].contentType`, 1, STRING],
  [`${S}[0]`, { type: 'UPLOADED_REFERENCE' }, [[`${S}[0].uploadedContentId`, NULL]]],
  [`${S}[0]`, { type: 'UPLOADED_REFERENCE', uploadedContentId: null }, [[`${S}[0].uploadedContentId`, NULL]]],
  [`${S}[0]`, { type: 'UPLOADED_REFERENCE', uploadedContentId: 12 }, [[`${S}[0].uploadedContentId`, STRING]]],
  [`${S}[0]`, { type: 'UPLOADED_REFERENCE', uploadedContentId: ' ' }, [[`${S}[0].uploadedContentId`, BLANK]]],
  [`${S}[1].contentId`, 'text_1', null],
  [
    S,
    [
      { type: 'TEXT', contentId: 'a', text: 'x' },
      { type: 'TEXT', contentId: 'a', text: 'y' },
      {
        type: 'SMIL',
        contentType: 'application/smil',
        smil: '<smil><body><par><text src="cid:a"/></par></body></smil>',
      },
    ],
    [[`${S}[1].contentId`, 'must be unique because SMIL refers to it']],
  ],
  [
    S,
    [
      { type: 'LINK', contentUrl: 'https://a.example/x.png' },
      { type: 'LINK', contentUrl: 'https://b.example/x.png' },
      { type: 'SMIL', contentType: 'application/smil', smil: '<smil><body><img src="x.png"/></body></smil>' },
    ],
    [
      [
        `${S}[2].smil`,
        '<img> at line 1, column 13: src fits several segments; give each of them a contentId of its own',
      ],
    ],
  ],
  [
    S,
    [
      { type: 'TEXT', text: 'x' },
      { type: 'SMIL', contentType: 'application/smil', smil: '<smil/>' },
      { type: 'SMIL', contentType: 'application/smil', smil: '<smil/>' },
    ],
    [[`${S}[2].smil`, 'must be the only SMIL segment of the message']],
  ],

  ...objects(O, null),
  ...objects(`${O}.platform`, null),
  ...texts(`${O}.platform.entityId`, 255, null, null),
  ...texts(`${O}.platform.applicationId`, 255, null, null),
  ...objects(`${O}.validityPeriod`, null),
  ...integers(`${O}.validityPeriod.amount`, 1, 2_147_483_647, NULL),
  [`${O}.validityPeriod.amount`, 1e20, INT32],
  [`${O}.validityPeriod.amount`, -1, 'must be greater than or equal to 1'],
  ...enums(`${O}.validityPeriod.timeUnit`, ['SECONDS', 'MINUTES', 'HOURS'], null),
  ...objects(W, null),
  ...arrays(`${W}.days`),
  [`${W}.days`, ['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'], null],
  [`${W}.days`, list(8, 'MONDAY'), size(1, 7)],
  [`${W}.days`, ['monday'], [[`${W}.days[0]`, ENUM]]],
  [`${W}.days`, ['MONDAY', 'HOLIDAY'], [[`${W}.days[1]`, ENUM]]],
  [`${W}.days`, [1], [[`${W}.days[0]`, STRING]]],
  [`${W}.days`, [null], [[`${W}.days[0]`, NULL]]],
  ...objects(`${W}.from`, NULL),
  ...objects(`${W}.to`, NULL),
  ...integers(`${W}.from.hour`, 0, 23, NULL),
  ...integers(`${W}.from.minute`, 0, 59, null),
  ...integers(`${W}.to.hour`, 0, 23, NULL),
  ...integers(`${W}.to.minute`, 0, 59, null).filter(([, value]) => value !== 59),
  [W, { days: ['MONDAY'] }, null],
  [W, { days: ['MONDAY'], from: { hour: 9 }, to: { hour: 10 } }, null],
  [
    W,
    { days: ['MONDAY'], from: { hour: 9, minute: 1 }, to: { hour: 10 } },
    [[`${W}.to`, 'must be at least 1 hour after from']],
  ],
  [W, { days: ['MONDAY'], from: { hour: 9 }, to: { hour: 9 } }, [[`${W}.to`, 'must be at least 1 hour after from']]],
  [W, { days: ['MONDAY'], from: { hour: 22 }, to: { hour: 6 } }, null],
  [W, { days: ['MONDAY'], from: { hour: 23, minute: 30 }, to: { hour: 0, minute: 30 } }, null],
  [
    W,
    { days: ['MONDAY'], from: { hour: 23, minute: 30 }, to: { hour: 0 } },
    [[`${W}.to`, 'must be at least 1 hour after from']],
  ],
  [W, { from: { hour: 9 } }, [[`${W}.days`, NULL]]],
  [W, { days: ['MONDAY'], from: { hour: 9 } }, [[`${W}.to`, NULL]]],
  [W, { days: ['MONDAY'], to: { hour: 9 } }, [[`${W}.from`, NULL]]],
  ...objects(F, null),
  ...texts(`${F}.sender`, null, null, null),
  ...texts(`${F}.text`, null, NULL, BLANK),
  ...objects(`${F}.validityPeriod`, null),
  [`${F}.validityPeriod.amount`, GONE, NULL],
  [`${F}.validityPeriod.amount`, 0, 'must be greater than or equal to 1'],
  [`${F}.validityPeriod.timeUnit`, 'DAYS', ENUM],
  ...objects(`${F}.regional`, null),
  ...integers(`${F}.regional.southKorea.resellerCode`, 0, 2_147_483_647, null),
  ...objects(`${O}.regional`, null),
  ...objects(`${O}.regional.southKorea`, null),
  ...integers(`${O}.regional.southKorea.resellerCode`, 0, 2_147_483_647, null),
  ...texts(`${O}.campaignReferenceId`, 255, null, null),

  ...objects(H, null),
  ...objects(`${H}.delivery`, null),
  ...urls(`${H}.delivery.url`, null),
  ...booleans(`${H}.delivery.intermediateReport`),
  ...booleans(`${H}.delivery.notify`),
  // Not a documented member, but sent here in production: never a reason to refuse.
  [`${H}.delivery.contentType`, 'application/xml', null],
  [`${H}.delivery.contentType`, 'text/plain', null],
  [`${H}.delivery.contentType`, 5, null],
  ...enums(`${H}.contentType`, ['application/json', 'application/xml'], null),
  ...texts(`${H}.callbackData`, 4000, null, null),

  ...objects('options', null),
  ...objects(P, null),
  ...texts(`${P}.bulkId`, 100, null, null),
  [`${P}.sendAt`, GONE, null],
  [`${P}.sendAt`, null, null],
  [`${P}.sendAt`, 1_767_225_600_000, STRING],
  [`${P}.sendAt`, '', DATE],
  [`${P}.sendAt`, '2026-02-22T17:42:05.390+0100', null],
  [`${P}.sendAt`, '2026-02-22T17:42:05.390+01:00', null],
  [`${P}.sendAt`, '2026-02-22T17:42:05.390Z', null],
  [`${P}.sendAt`, '2026-02-22T17:42:05Z', null],
  [`${P}.sendAt`, '2001-02-22T17:42:05.000Z', null],
  [`${P}.sendAt`, '2026-02-22T17:42:05.390', DATE],
  [`${P}.sendAt`, '2026-02-22', DATE],
  [`${P}.sendAt`, '2026-02-22 17:42:05.390Z', DATE],
  [`${P}.sendAt`, '2026-02-30T17:42:05.390Z', DATE],
  [`${P}.sendAt`, '2026-02-22T24:00:00.000Z', DATE],
  [`${P}.sendAt`, 'tomorrow', DATE],
  [`${P}.sendAt`, '2026-06-30T00:00:00.000Z', null],
  [`${P}.sendAt`, '2126-06-30T00:00:00.001Z', 'must not be more than 180 days ahead'],
  ...objects(`${P}.sendingSpeedLimit`, null),
  ...integers(`${P}.sendingSpeedLimit.amount`, 1, 2_147_483_647, NULL),
  ...enums(`${P}.sendingSpeedLimit.timeUnit`, ['MINUTE', 'HOUR', 'DAY'], null),
  ...objects(T, null),
  ...booleans(`${T}.shortenUrl`),
  ...booleans(`${T}.trackClicks`),
  ...booleans(`${T}.removeProtocol`),
  ...urls(`${T}.trackingUrl`, null),
  ...texts(`${T}.customDomain`, null, null, null),

  // Unknown members anywhere are ignored, whatever they hold.
  ['more', { deep: [1, 'a\0b', null, '\ud800'] }, null],
  [`${M}.more`, null, null],
  [`${D}[0].more`, [], null],
  [`${S}[0].more`, 1, null],
  [`${W}.from.second`, 'x', null],
];

/** Requests as Infobip's OpenAPI document and page give them. All answer 200. */
const sample = (content: object, more: object = {}, destinations: object[] = [{ to: '441134960001' }]) => ({
  messages: [{ sender: '441134960000', destinations, content, ...more }],
});
const text = { title: 'Some title', messageSegments: [{ text: 'Some text', type: 'TEXT' }] };
const korea = { southKorea: { resellerCode: 123 } };
export const documented: [name: string, body: unknown, entries: number][] = [
  ['Text', sample(text), 1],
  [
    'SMS failover',
    sample(text, { options: { smsFailover: { sender: '441134960000', text: 'Some failover text' }, regional: korea } }),
    1,
  ],
  ['Text with regional options', sample(text, { options: { regional: korea } }), 1],
  ['Text with group destinations', sample(text, {}, [{ group: [{ to: '441134960001' }, { to: '441134960002' }] }]), 2],
  [
    'Image as link',
    sample({
      title: 'Some title',
      messageSegments: [{ contentType: 'image/jpeg', contentUrl: 'https://www.example.com/image.jpg', type: 'LINK' }],
    }),
    1,
  ],
  [
    'Text and image with smil',
    sample({
      title: 'Some title',
      messageSegments: [
        {
          contentType: 'application/smil',
          smil: '<smil><head><layout><root-layout/><region id="Text" top="70%" left="10%" height="30%" width="100%" fit="scroll"/><region id="Image" top="0%" left="0%" height="70%" width="100%" fit="meet"/></layout></head><body><par dur="10s"><img src="image_1" region="Image"/></par><par dur="10s"><text src="body.txt" region="Text"/></par></body></smil>',
          type: 'SMIL',
        },
      ],
    }),
    1,
  ],
  [
    'Multiple images',
    sample({
      title: 'Some title',
      messageSegments: [
        { contentType: 'image/jpeg', contentUrl: 'https://www.example.com/image1.jpeg', type: 'LINK' },
        { contentType: 'image/jpeg', contentUrl: 'https://www.example.com/image2.jpeg', type: 'LINK' },
      ],
    }),
    1,
  ],
  // The content of a sample of the older endpoint, in this one's form.
  [
    'Text and image with the SMIL that shows them',
    sample({
      title: 'This is sample subject',
      messageSegments: [
        {
          contentId: 'smil',
          contentType: 'application/smil',
          smil: '<smil><head><layout><root-layout/><region id="Text" top="70%" left="0%" height="30%" width="100%" fit="scroll"/><region id="Image" top="0%" left="0%" height="70%" width="100%" fit="meet"/></layout></head><body><par dur="10s"><img src="image_1" region="Image"/></par><par dur="10s"><text src="body.txt" region="Text"/></par></body></smil>',
          type: 'SMIL',
        },
        { contentId: 'body.txt', text: 'This is a sample message', type: 'TEXT' },
        {
          contentId: 'image_1',
          contentType: 'image/jpeg',
          contentUrl: 'https://www.example.com/thumb/320px-Depth_of_field_Cat.jpg',
          type: 'LINK',
        },
      ],
    }),
    1,
  ],
  // As a channel server sends it in production.
  [
    'contentType inside delivery, empty title',
    sample(
      { title: '', messageSegments: [{ type: 'LINK', contentUrl: 'https://www.example.com/a.jpg' }] },
      {
        webhooks: {
          delivery: { url: 'https://www.example.com/r', intermediateReport: true, contentType: 'application/json' },
        },
      },
    ),
    1,
  ],
];

/** Documented, but refers to an upload that is not there: accepted by the schema, refused by a store. */
export const uploaded = sample({
  title: 'Some title',
  messageSegments: [{ uploadedContentId: 'B44419205B27012D82F3BAD7B7EB37BA', type: 'UPLOADED_REFERENCE' }],
});

const JSON_FAULT = 'Request body is not valid JSON: ';
const unexpected = (line: number, column: number) =>
  `${JSON_FAULT}unexpected character at line ${line} column ${column}.`;
const early = (line: number, column: number) => `${JSON_FAULT}it ends too early, at line ${line} column ${column}.`;
const valid = JSON.stringify(sample(text));

/** Bodies as bytes: null = 200, a text = 400 with that violation of the whole body, a list = those. */
export const raw: [name: string, body: string | Uint8Array, answer: null | string | [string, string][]][] = [
  ['nothing', '', 'Request body is missing.'],
  ['a blank', ' ', early(1, 2)],
  ['a word', 'hello', unexpected(1, 1)],
  ['null', 'null', NULL],
  ['a number', '1', OBJECT],
  ['a string', '"x"', OBJECT],
  ['an array', '[]', OBJECT],
  ['an empty object', '{}', [['messages', NULL]]],
  ['a truncated object', valid.slice(0, -1), early(1, valid.length)],
  ['a truncated string', '{"messages', early(1, 11)],
  ['a truncated number', '{"a":-', unexpected(1, 6)],
  ['a trailing comma', '{"messages":[],}', unexpected(1, 16)],
  ['two values', '{}{}', unexpected(1, 3)],
  ['an unquoted name', '{messages:[]}', unexpected(1, 2)],
  ['single quotes', "{'messages':[]}", unexpected(1, 2)],
  ['a comment', '{"messages":[] /* none */}', unexpected(1, 16)],
  ['a raw line break in a string', '{\n "a": "b\nc"}', unexpected(2, 9)],
  ['a bad escape', '{"a":"\\x"}', unexpected(1, 7)],
  ['NaN', '{"a":NaN}', unexpected(1, 6)],
  ['a leading zero', '{"a":01}', unexpected(1, 7)],
  ['an XML document', '<?xml version="1.0"?><a/>', unexpected(1, 1)],
  ['a form', 'to=41793026727&text=hello', unexpected(1, 1)],
  ['bytes that are not UTF-8', new Uint8Array([0x22, 0xff, 0xfe, 0x22]), 'Request body is not valid UTF-8.'],
  [
    'Latin-1',
    new Uint8Array([...Buffer.from('{"a":"'), 0xe9, ...Buffer.from('"}')]),
    'Request body is not valid UTF-8.',
  ],
  ['UTF-16', Buffer.from(valid, 'utf16le'), unexpected(1, 2)],
  ['a byte order mark', `\ufeff${valid}`, null],
  ['spaces and line ends around', ` \r\n${valid}\t\n`, null],
  ['escaped slashes', valid.replaceAll('/', '\\/'), null],
  ['33 levels', `${'['.repeat(33)}${']'.repeat(33)}`, 'Request body is nested deeper than 32 levels.'],
  ['100 000 levels', `${'['.repeat(1e5)}${']'.repeat(1e5)}`, 'Request body is nested deeper than 32 levels.'],
  ['50 000 levels, not closed', '{"a":'.repeat(5e4), early(1, 2.5e5 + 1)],
  ['100 000 levels, not closed', '{"a":'.repeat(1e5), 'Request body is nested deeper than 32 levels.'],
  ['an unknown member 31 levels deep', valid.replace('{', `{"more":${'['.repeat(31)}${']'.repeat(31)},`), null],
  ['__proto__ that looks like a request', `{"__proto__":${valid}}`, [['messages', NULL]]],
  ['__proto__ beside a request', valid.replace('{', '{"__proto__":{"messages":5,"options":7},'), null],
  ['constructor beside a request', valid.replace('{', '{"constructor":{"prototype":{"x":1}},"toString":1,'), null],
  ['hasOwnProperty as a member', valid.replace('{', '{"hasOwnProperty":1,"__defineGetter__":null,'), null],
  ['a name given twice (the last counts)', valid.replace('"sender":', '"sender":5,"sender":'), null],
  ['an infinite number', valid.replace('123', '1e999').replace('{', '{"x":1e999,'), null],
];
