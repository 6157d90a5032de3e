/**
 * Words that try to become structure: S9 and S10 (every control character in every field of every protocol that we speak), S11's
 * line and dot tricks, S15 (500 spellings of numbers), S16 (senders that look like others). What other MIME parsers make of hostile
 * content is in `test/wire.test.ts`.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readMultipart } from '../../src/carriers/mime.ts';
import { createSubmitEncoder, printCancel, type SubmitOptions } from '../../src/carriers/mm7/submit.ts';
import { printDeliver, printReport } from '../../src/carriers/sandbox/peer.ts';
import { COMMAND, decode, encode, type Pdu, shortMessage } from '../../src/carriers/smpp/pdu.ts';
import { parseDestination, parseSender } from '../../src/domain/address.ts';
import { makeSmil } from '../../src/domain/smil.ts';
import type { Submission } from '../../src/domain/submission.ts';
import { element, readXml, text, type XmlElement } from '../../src/xml.ts';
import { KEY, type OpenDoor, openDoor } from '../api/door.ts';

/** C0, DEL, C1, and what some take for a line end or turns the text around. */
const CONTROLS = [
  ...Array.from({ length: 33 }, (_, i) => i),
  ...Array.from({ length: 33 }, (_, i) => 0x7f + i),
  0x85,
  0xa0,
  0xad,
  0x2028,
  0x2029,
  0x200b,
  0x200e,
  0x200f,
  0x202a,
  0x202e,
  0x2066,
  0x2069,
  0xfeff,
  0xfffe,
  0xffff,
  0xd800,
].map((code) => String.fromCharCode(code));
/** What follows the control in each value: lines of the protocols at hand. */
const TAILS = [
  'X-Evil: 1',
  '\r\nX-Evil: 1\r\n\r\nevil',
  '\nX-Evil: 1\n\nevil',
  '\r\n--=_postcard\r\nContent-Type: text/evil\r\n\r\nevil',
  '\r\n--pc-0--\r\n',
  '\r\n.\r\nMAIL FROM:<evil>',
  '"; name="evil',
  '"/><X-Evil/>]]>--><![CDATA[',
  '</Subject></SubmitReq><X-Evil>',
  '&#13;&#10;X-Evil: 1',
  '=?utf-8?Q?=0D=0AX-Evil:_1?=',
  '%0d%0aX-Evil: 1',
  '\u560d\u560aX-Evil: 1',
];

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
const OPTIONS: SubmitOptions = { namespace: NS, version: '6.8.0', vaspId: 'v', vasId: 'w', transferEncoding: 'base64' };
const JPEG = Buffer.from([0xff, 0xd8, 13, 10, 45, 45]);

function sound(): Submission {
  return {
    transactionId: 'tx-1',
    sender: '441134960000',
    recipients: ['441134960001', '441134960002'],
    subject: 'subject',
    parts: [
      { contentId: 't.txt', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('hello') },
      { contentId: 'p.jpg', contentType: 'image/jpeg', bytes: JPEG },
    ],
    validUntil: Date.UTC(2026, 0, 3),
    campaignReferenceId: 'c',
  };
}

/** Each puts a value into one field, whether or not the rooms in front would let it so far. */
const FIELDS: [string, (value: string) => { submission: Submission; options?: Partial<SubmitOptions> }][] = [
  ['transactionId', (value) => ({ submission: { ...sound(), transactionId: value } })],
  ['sender', (value) => ({ submission: { ...sound(), sender: value } })],
  ['recipient', (value) => ({ submission: { ...sound(), recipients: ['441134960001', value] } })],
  ['subject', (value) => ({ submission: { ...sound(), subject: value } })],
  [
    'contentId',
    (value) => ({
      submission: {
        ...sound(),
        parts: [sound().parts[0]!, { contentId: value, contentType: 'image/jpeg', bytes: JPEG }],
      },
    }),
  ],
  [
    'contentType',
    (value) => ({
      submission: { ...sound(), parts: [sound().parts[0]!, { contentId: 'p.jpg', contentType: value, bytes: JPEG }] },
    }),
  ],
  [
    'parameter',
    (value) => ({
      submission: {
        ...sound(),
        parts: [sound().parts[0]!, { contentId: 'p.jpg', contentType: `image/jpeg; name="${value}"`, bytes: JPEG }],
      },
    }),
  ],
  [
    'bytes',
    (value) => ({
      submission: {
        ...sound(),
        parts: [sound().parts[0]!, { contentId: 'p.jpg', contentType: 'image/jpeg', bytes: Buffer.from(value) }],
      },
    }),
  ],
  [
    'bytes, unencoded',
    (value) => ({
      options: { transferEncoding: 'binary' },
      submission: {
        ...sound(),
        parts: [sound().parts[0]!, { contentId: 'p.jpg', contentType: 'image/jpeg', bytes: Buffer.from(value) }],
      },
    }),
  ],
  [
    'text',
    (value) => ({
      submission: {
        ...sound(),
        parts: [
          { contentId: 't.txt', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from(value) },
          sound().parts[1]!,
        ],
      },
    }),
  ],
  [
    'campaignReferenceId',
    (value) => ({
      options: { extraElements: [{ name: 'Campaign', value: '{campaignReferenceId}' }] },
      submission: { ...sound(), campaignReferenceId: value },
    }),
  ],
  ['vaspId', (value) => ({ options: { vaspId: value }, submission: sound() })],
  ['vasId', (value) => ({ options: { vasId: value }, submission: sound() })],
  ['serviceCode', (value) => ({ options: { serviceCode: value }, submission: sound() })],
  [
    'an attribute',
    (value) => ({
      options: { extraElements: [{ name: 'Own', value: 'x', attributes: { a: value } }] },
      submission: sound(),
    }),
  ],
];

/** Content-Location is there where the id is a plain name. */
const named = (head: Record<string, string>): string[] =>
  Object.keys(head).filter((name) => name !== 'content-location');

function names(root: XmlElement): string[] {
  return [root.name, ...root.children.flatMap(names)];
}

/** What an MMSC makes of it: the SOAP elements, and each part's headers and bytes. */
function read(
  submission: Submission,
  options: Partial<SubmitOptions>,
): { elements: string[]; inner: Record<string, string>[] } {
  const body = createSubmitEncoder({ ...OPTIONS, ...options }, () => 'pc-0')(submission);
  expect(body.contentType).toMatch(/^[\x20-\x7e]+$/);
  const outer = readMultipart(body.contentType, Buffer.concat([body.opening, body.closing]));
  if (!outer.ok) throw new Error(outer.fault);
  expect(outer.parts).toHaveLength(2);
  const soap = readXml(outer.parts[0]!.bytes);
  if (!soap.ok) throw new Error(soap.fault);
  const content = readMultipart(outer.parts[1]!.contentType, outer.parts[1]!.bytes);
  if (!content.ok) throw new Error(content.fault);
  // Whatever comes between the control's line and ours would be a header of its own.
  const heads = [...outer.parts, ...content.parts].map((part) => part.headers as Record<string, string>);
  for (const head of heads) {
    for (const [name, value] of Object.entries(head)) {
      expect(name).toMatch(/^(content-(type|id|location|transfer-encoding))$/);
      expect(value).toMatch(/^[\x20-\x7e]*$/);
    }
  }
  return { elements: names(soap.root), inner: heads.slice(2) };
}

describe('S9 and S10: a value in MM7', () => {
  it('is tried with each control in each field', () => {
    expect(new Set(CONTROLS).size).toBeGreaterThanOrEqual(75);
    expect(FIELDS.length).toBeGreaterThanOrEqual(15);
  });

  it.each(FIELDS)('never adds, ends or changes a header, a part or an element: %s', (_, put) => {
    const plain = put('plain');
    const expected = read(plain.submission, plain.options ?? {});
    for (const [i, control] of CONTROLS.entries()) {
      // Every control with one tail in turn, and every tail with line ends.
      const values = [`a${control}${TAILS[i % TAILS.length]}`, `${control}b`, `a${control}`];
      for (const value of values) {
        const tried = put(value);
        const got = read(tried.submission, tried.options ?? {});
        expect(got.elements).toEqual(expected.elements);
        expect(got.inner.map(named)).toEqual(expected.inner.map(named));
      }
    }
    for (const tail of TAILS) {
      const tried = put(`a${tail}`);
      expect(read(tried.submission, tried.options ?? {}).elements).toEqual(expected.elements);
    }
  });

  it('nor in what is printed for a cancel, and by the sandbox in reports and messages', () => {
    for (const value of [...CONTROLS.map((control) => `a${control}X-Evil`), ...TAILS]) {
      const printed = [
        printCancel(OPTIONS, { transactionId: value, carrierMessageId: value, sender: value }),
        printReport({
          transactionId: value,
          namespace: NS,
          version: '6.8.0',
          messageId: value,
          recipient: { kind: 'Number', text: value },
          sender: { kind: 'ShortCode', text: value },
          at: 0,
          status: 'Retrieved',
        }),
      ];
      for (const document of printed) {
        const soap = readXml(Buffer.from(document));
        expect(soap.ok, JSON.stringify(value)).toBe(true);
        if (soap.ok) expect(names(soap.root).join()).not.toContain('Evil');
      }
      const deliver = printDeliver({
        transactionId: value,
        sender: value,
        to: [value],
        cc: [],
        subject: value,
        at: 0,
        smil: makeSmil([{ contentId: value, contentType: 'image/png' }]),
        parts: [{ contentId: value, contentType: value, bytes: JPEG }],
      });
      expect(deliver.contentType).toMatch(/^[\x20-\x7e]+$/);
      const outer = readMultipart(deliver.contentType, Buffer.from(deliver.body));
      expect(outer.ok && outer.parts.length).toBe(2);
    }
  });

  it('nor in XML and presentations of our own', () => {
    for (const value of [...CONTROLS.map((control) => `a${control}"'<>&`), ...TAILS]) {
      const document = readXml(element('x', { a: value }, element('y', null, text(value))));
      expect(document.ok && names(document.root)).toEqual(['x', 'y']);
      const smil = readXml(makeSmil([{ contentId: value, contentType: 'image/png' }]));
      expect(smil.ok && names(smil.root).join()).not.toContain('Evil');
    }
  });
});

describe('S9: a value in SMPP', () => {
  it.each(['serviceType', 'source', 'destination'] as const)('never ends a field early: %s', (field) => {
    for (const control of CONTROLS) {
      const value = `a${control}b`;
      const given = shortMessage({
        [field]: field === 'serviceType' ? value : { ton: 1, npi: 1, text: value },
        shortMessage: Buffer.alloc(0),
      });
      const pdu: Pdu = { command: COMMAND.submit, status: 0, sequence: 1, ...given };
      // No field can hold these, so none is made of them.
      if (control === '\0' || control.charCodeAt(0) > 0xff) {
        expect(() => encode(pdu), JSON.stringify(value)).toThrow(RangeError);
        continue;
      }
      const back = decode(encode(pdu));
      expect(back).toMatchObject({ ok: true, pdu: given });
    }
  });
});

// ---------------------------------------------------------------------------------------------------------- the door

/** Blocks of ten decimal digits beyond ASCII's (Unicode's category Nd), by their zero. */
const ZEROS = [
  0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
  0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
  0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450,
  0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x16a60, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140,
  0x1e2f0, 0x1e950,
];
const INVISIBLE = [
  ...CONTROLS.filter((control) => control !== '\ud800'),
  ...[
    '\u00b7',
    '\u034f',
    '\u061c',
    '\u115f',
    '\u180e',
    '\u2000',
    '\u2002',
    '\u2007',
    '\u2009',
    '\u200c',
    '\u200d',
    '\u202c',
  ],
  ...[
    '\u202f',
    '\u205f',
    '\u2060',
    '\u2061',
    '\u206f',
    '\u3000',
    '\u3164',
    '\ufe0f',
    '\uffa0',
    '\u{e0030}',
    '\u20e3',
    '\u0338',
  ],
];
const GOOD = '447700900123';

/** Spellings of a number that somebody may take for one; all are refused, none repaired. */
function spellings(): string[] {
  const digits = (zero: number, number = GOOD): string =>
    [...number].map((digit) => String.fromCodePoint(zero + Number(digit))).join('');
  return [
    ...new Set([
      ...ZEROS.map((zero) => digits(zero)),
      ...ZEROS.map((zero) => `44770090012${String.fromCodePoint(zero + 3)}`),
      ...ZEROS.map((zero) => `+${digits(zero)}`),
      ...INVISIBLE.map((sign) => `${sign}${GOOD}`),
      ...INVISIBLE.map((sign) => `${GOOD}${sign}`),
      ...INVISIBLE.map((sign) => `4477${sign}00900123`),
      ...[...'-. ()/,;:#*&@!?_~|\\\'"<>[]{}%$^=`'].flatMap((sign) => [
        `${sign}${GOOD}`,
        `${GOOD}${sign}`,
        `44${sign}7700900123`,
      ]),
      ...[0xff0b, 0x2795, 0xfe62, 0x207a, 0x208a, 0x2295, 0x253c].map((plus) => `${String.fromCodePoint(plus)}${GOOD}`),
      ...[
        '++',
        '+ ',
        ' +',
        '+0',
        '+00',
        '000',
        '0+',
        '00+',
        '-',
        '+-',
        'tel:',
        'sms:',
        'sip:',
        'phone ',
        '0x',
        'mailto:',
      ].map((lead) => lead + GOOD),
      ...[
        'e0',
        'e+0',
        '.0',
        '/1',
        'x1',
        ';ext=1',
        'p1',
        'w1',
        ',1',
        '@x',
        '/TYPE=PLMN',
        '\r\nX: y',
        '%00',
        '\\0',
        '0'.repeat(30),
      ].map((tail) => GOOD + tail),
      ...Array.from({ length: 6 }, (_, i) => '4'.repeat(i + 1)),
      ...Array.from({ length: 26 }, (_, i) => '4'.repeat(i + 16)),
      ...[
        '①②③④⑤⑥⑦⑧',
        '⁴⁴⁷⁷⁰⁰⁹⁰',
        '₄₄₇₇₀₀₉₀',
        '四四七七零零九零',
        'ⅣⅣⅦⅦⅨⅨⅨⅨ',
        '௪௪௭௭௦௦௯௦',
        'O447700900',
        'l447700900',
        '44770O9OO123',
      ],
      ...[
        'NaN',
        'Infinity',
        'null',
        'undefined',
        'true',
        '[]',
        '{}',
        '__proto__',
        'constructor',
        '1e9',
        '4477009e5',
        '-0',
        '0b111',
        '0o777',
      ],
      ...[
        "1' OR '1'='1",
        '1;DROP TABLE message',
        '$\u007b7*7}',
        '{{7*7}}',
        `${'../'.repeat(3)}etc/passwd`,
        '$(id)',
        '`id`',
        '|id',
        '<script>',
        '\u0000',
      ],
    ]),
  ];
}

describe('S15: a number', () => {
  const all = spellings();
  let door: OpenDoor;
  beforeAll(async () => {
    door = await openDoor();
  });
  afterAll(async () => {
    const bugs = door.lines.filter((line) => line.level === 'error');
    await door.close();
    expect(bugs).toEqual([]);
  });

  it(`in any of ${all.length} wrong spellings is refused, and in the right ones is what it is`, () => {
    expect(all.length).toBeGreaterThanOrEqual(500);
    expect(all.filter((to) => parseDestination(to).ok)).toEqual([]);
    for (const to of [GOOD, `+${GOOD}`, `00${GOOD}`]) expect(parseDestination(to)).toEqual({ ok: true, number: GOOD });
  });

  it('is refused in its own entry at the door, each beside a good one that is sent', async () => {
    // U+0000 and half characters are no JSON text for us: they refuse a request as a whole.
    const tried = all.filter((to) => !to.includes('\u0000') && to.isWellFormed());
    const body = {
      messages: [
        {
          sender: 'Postcard',
          destinations: [...tried.map((to) => ({ to })), { to: GOOD }],
          content: { messageSegments: [{ type: 'TEXT', text: 'x' }] },
        },
      ],
    };
    const given = await door.send(body);
    expect(given.status).toBe(200);
    const entries = (JSON.parse(given.body) as { messages: { status: { id: number } }[] }).messages;
    const statuses = entries.map(({ status }) => status.id);
    expect(statuses.slice(0, -1).filter((id) => ![8, 51, 52].includes(id))).toEqual([]);
    expect(statuses.at(-1)).toBe(26);
  });

  it('as a sender is refused in every spelling that is neither a number nor plain letters', () => {
    const taken = all.flatMap((sender) => {
      const read = parseSender(sender);
      return read.ok ? [read.sender] : [];
    });
    // What passes is made of ASCII digits, or of letters that a handset shows as they are.
    for (const sender of taken) expect(sender).toMatch(/^\d{3,15}$|^[A-Za-z0-9 .\-_&]{3,11}$/);
  });

  it('cannot be planted by headers of webhooks: a control in a name or a value is a 400', async () => {
    const put = (headers: Record<string, string>) =>
      door.ask('/webhooks/1/endpoints', {
        method: 'PUT',
        headers: { 'content-type': 'application/json', authorization: `App ${KEY}` },
        body: JSON.stringify({ kind: 'DELIVERY', url: 'https://customer.example/', headers }),
      });
    expect((await put({ 'X-Good': 'plain words' })).status).toBe(200);
    for (const control of CONTROLS.filter((one) => one !== '\t' && one !== ' ')) {
      for (const headers of [{ 'X-Good': `a${control}X-Evil: 1` }, { [`X${control}Evil`]: '1' }]) {
        expect((await put(headers)).status, JSON.stringify(headers)).toBe(400);
      }
    }
    for (const name of [
      'Host',
      'content-length',
      'Transfer-Encoding',
      'Connection',
      'webhook-signature',
      '',
      'a b',
      'a:b',
      'a\tb',
    ]) {
      expect((await put({ [name]: '1' })).status, name).toBe(400);
    }
  });
});

describe('S16: a sender', () => {
  /** Looks like a name that people trust, and is another. */
  const LOOKALIKES: [string, string][] = [
    ['Cyrillic a', 'P\u0430yPal'],
    ['Cyrillic o', 'G\u043e\u043egle'],
    ['Greek omicron', 'G\u03bf\u03bfgle'],
    ['Greek capital alpha', '\u0391mazon'],
    ['Latin alpha', 'P\u0251ypal'],
    ['dotless i', 'B\u0131g Bank'],
    ['full width', '\uff30\uff41\uff59\uff30\uff41\uff4c'],
    ['small capitals', '\u1d18\u1d00\u028f\u1d18\u1d00\u029f'],
    ['mathematical letters', '\u{1d40f}\u{1d41a}\u{1d432}'],
    ['Cherokee', '\u13a2\u13aa\u13aa'],
    ['combining marks', 'Pay\u0301Pal'],
    ['a decomposed umlaut', 'Mu\u0308ller'],
    ['right to left', '\u202elaPyaP'],
    ['an isolate', '\u2066PayPal\u2069'],
    ['a zero width space', 'Pay\u200bPal'],
    ['a soft hyphen', 'Pay\u00adPal'],
    ['a no-break space', 'Pay\u00a0Pal'],
    ['a hangul filler', 'Pay\u3164Pal'],
    ['a tag', 'PayPal\u{e0041}'],
    ['a variation selector', 'PayPal\ufe0f'],
    ['an emoji', 'PayPal\u{1f512}'],
    ['a long s', 'Po\u017ftcard'],
    ['a Kelvin sign', '\u212aelvin'],
    ['fi', '\ufb01nance'],
    ['a hyphen of another kind', 'Pay\u2011Pal'],
    ['a middle dot', 'Pay\u00b7Pal'],
    ['a slash', 'Pay/Pal'],
    ['blanks only', '     '],
    ['dots only', '.....'],
    ['digits and blanks', '123 456'],
  ];

  it.each(LOOKALIKES)('with %s is refused', (_, sender) => {
    expect(parseSender(sender)).toEqual({ ok: false, status: 11 });
  });

  it('with any control or mark of direction is refused, wherever it stands', () => {
    for (const control of CONTROLS.filter((one) => one !== ' ')) {
      for (const sender of [`${control}PayPal`, `Pay${control}Pal`, `PayPal${control}`]) {
        expect(parseSender(sender), JSON.stringify(sender)).toEqual({ ok: false, status: 11 });
      }
    }
  });
});
