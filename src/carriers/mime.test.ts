/** Multiparts against themselves (round trips), against Dicer as second opinion, against sloppy peers and hostile values. */
import { Dicer } from '@fastify/busboy';
import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import {
  decodedWords,
  frameMultipart,
  headerValue,
  type MimePartIn,
  type MimePartOut,
  type Multipart,
  mediaType,
  readMultipart,
  safeId,
  writeMultipart,
} from './mime.ts';

function parts(contentType: string, body: Uint8Array | string): MimePartIn[] {
  const result = readMultipart(contentType, typeof body === 'string' ? Buffer.from(body) : body);
  if (!result.ok) throw new Error(result.fault);
  return result.parts;
}

function fault(contentType: string, body: string, limits?: Parameters<typeof readMultipart>[2]): string {
  const result = readMultipart(contentType, Buffer.from(body), limits);
  return result.ok ? 'no fault' : result.fault;
}

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/** The raw bodies of the parts as Dicer sees them. */
function dicerParts({ contentType, body }: Multipart): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const found: Buffer[][] = [];
    const dicer = new Dicer({ boundary: headerValue(contentType).params.boundary as string });
    dicer.on('part', (part) => {
      const chunks: Buffer[] = [];
      found.push(chunks);
      part.on('data', (chunk: Buffer | string) => chunks.push(Buffer.from(chunk as Buffer)));
    });
    dicer.on('error', reject);
    dicer.on('finish', () => resolve(found.map((chunks) => Buffer.concat(chunks))));
    dicer.end(body);
  });
}

const nasty = Buffer.from('\r\n--x\r\n--x--\r\n\r\n\n--\0\xff=\r\n.', 'latin1');
const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.constant(new Uint8Array(nasty)),
  fc.array(fc.constantFrom(13, 10, 45, 120, 61, 95, 32, 0), { maxLength: 60 }).map((codes) => Uint8Array.from(codes)),
);
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.string({ maxLength: 80 }),
  fc.constantFrom(
    'a\r\nX-Injected: yes',
    'a\n\nbody',
    '"; boundary="x',
    '<>',
    '\0',
    '\u2028',
    'x'.repeat(500),
    '',
    '; name=a',
  ),
);
const anyPart: fc.Arbitrary<MimePartOut> = fc.record(
  {
    contentType: fc.oneof(fc.constantFrom('image/jpeg', 'text/plain; charset=utf-8', 'application/smil'), anyText),
    contentId: anyText,
    name: anyText,
    encoding: fc.constantFrom('binary', 'base64', '8bit'),
    bytes: anyBytes,
  },
  { requiredKeys: ['contentType', 'encoding', 'bytes'] },
);

describe('writeMultipart', () => {
  it('prints headers in a fixed order and leaves binary bytes alone', () => {
    const { contentType, body } = writeMultipart({
      subtype: 'related',
      type: 'application/smil',
      start: 'a.smil',
      boundary: 'B1',
      parts: [
        {
          contentType: 'application/smil',
          contentId: 'a.smil',
          name: 'a.smil',
          encoding: '8bit',
          bytes: Buffer.from('<smil/>'),
        },
        {
          contentType: 'Image/JPEG; q="a b"',
          contentId: 'p',
          encoding: 'binary',
          bytes: Buffer.from([0, 13, 10, 255]),
        },
        { contentType: 'text/plain', encoding: 'base64', bytes: Buffer.alloc(60, 'x') },
      ],
    });
    expect(contentType).toBe('multipart/related; boundary="B1"; type="application/smil"; start="<a.smil>"');
    expect(Buffer.from(body).toString('latin1')).toBe(
      [
        '--B1',
        'Content-Type: application/smil; name=a.smil',
        'Content-ID: <a.smil>',
        'Content-Location: a.smil',
        'Content-Transfer-Encoding: 8bit',
        '',
        '<smil/>',
        '--B1',
        'Content-Type: image/jpeg; q="a b"',
        'Content-ID: <p>',
        'Content-Transfer-Encoding: binary',
        '',
        '\0\r\n\xff',
        '--B1',
        'Content-Type: text/plain',
        'Content-Transfer-Encoding: base64',
        '',
        `${'eHh4'.repeat(19)}`,
        'eHh4',
        '--B1--',
        '',
      ].join('\r\n'),
    );
  });

  it('never uses a boundary that stands in a part', () => {
    const out = {
      subtype: 'mixed' as const,
      parts: [{ contentType: 'text/plain', encoding: 'binary' as const, bytes: Buffer.from('a\r\n--B1--\r\nb') }],
    };
    const { contentType, body } = writeMultipart({ ...out, boundary: 'B1' });
    expect(contentType).not.toContain('"B1"');
    expect(parts(contentType, body).map((part) => Buffer.from(part.bytes).toString())).toEqual(['a\r\n--B1--\r\nb']);
    expect(writeMultipart({ ...out, boundary: 'bad boundary"' }).contentType).not.toContain('bad');
  });

  it('gives back every byte of every part, whatever stands in bytes and fields; Dicer sees the same parts', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyPart, { minLength: 1, maxLength: 5 }), async (out) => {
        const multipart = writeMultipart({ subtype: 'related', start: out[0]!.contentId ?? 'x', parts: out });
        const read = parts(multipart.contentType, multipart.body);
        expect(read).toHaveLength(out.length);
        read.forEach((part, i) => {
          expect(same(part.bytes, out[i]!.bytes)).toBe(true);
          // Our four headers and no other.
          const known = ['content-type', 'content-id', 'content-location', 'content-transfer-encoding'];
          expect(Object.keys(part.headers).filter((name) => !known.includes(name))).toEqual([]);
          expect(Object.values(part.headers).join('')).not.toMatch(/[\u0000-\u001f\u007f]/);
          const { contentId } = out[i]!;
          expect(part.contentId).toBe(contentId === undefined ? null : safeId(contentId));
        });
        const seen = await dicerParts(multipart);
        expect(seen).toHaveLength(out.length);
        seen.forEach((bytes, i) => {
          if (out[i]!.encoding !== 'base64') expect(same(bytes, out[i]!.bytes)).toBe(true);
        });
      }),
      { numRuns: 500 },
    );
  });

  it('nests', () => {
    const inner = writeMultipart({
      subtype: 'mixed',
      parts: [{ contentType: 'image/gif', encoding: 'binary', bytes: nasty }],
    });
    const outer = writeMultipart({
      subtype: 'related',
      parts: [
        { contentType: 'text/xml', encoding: '8bit', bytes: Buffer.from('<x/>') },
        { contentType: inner.contentType, contentId: 'c', encoding: 'binary', bytes: inner.body },
      ],
    });
    const [, content] = parts(outer.contentType, outer.body);
    const [picture] = parts(content!.contentType, content!.bytes);
    expect(same(picture!.bytes, nasty)).toBe(true);
  });

  it('makes one line of 76 characters after another of base64', () => {
    const { body } = writeMultipart({
      subtype: 'mixed',
      parts: [{ contentType: 'image/png', encoding: 'base64', bytes: Buffer.alloc(1000, 7) }],
    });
    const lines = Buffer.from(body).toString('latin1').split('\r\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(76);
  });
});

describe('frameMultipart', () => {
  it('is the same multipart with a hole for the first part', () => {
    const rest: MimePartOut = { contentType: 'image/gif', contentId: 'c', encoding: 'binary', bytes: nasty };
    const frame = frameMultipart({
      subtype: 'related',
      boundary: 'F',
      first: { contentType: 'text/xml' },
      parts: [rest],
    });
    const whole = writeMultipart({
      subtype: 'related',
      boundary: 'F',
      parts: [{ contentType: 'text/xml', encoding: '8bit', bytes: Buffer.from('<x/>') }, rest],
    });
    expect(same(Buffer.concat([Buffer.from(`${frame.opening}<x/>`), frame.closing]), whole.body)).toBe(true);
    expect(frame.contentType).toBe(whole.contentType);
  });
});

describe('readMultipart', () => {
  const b = 'multipart/mixed; boundary=b';
  const texts = (contentType: string, body: string): string[] =>
    parts(contentType, body).map((part) => Buffer.from(part.bytes).toString('latin1'));

  const sloppy: [string, string, string, string[]][] = [
    ['a preamble and an epilogue', b, 'hello\r\n--b\r\n\r\none\r\n--b--\r\nbye', ['one']],
    ['LF line ends', b, '--b\nContent-Type: text/plain\n\none\n--b\n\ntwo\n--b--\n', ['one', 'two']],
    [
      'blanks behind delimiters',
      b,
      '--b  \t\r\nContent-ID: <x>\r\n\r\none\r\n--b \r\n\r\ntwo\r\n--b-- \r\n',
      ['one', 'two'],
    ],
    ['no final delimiter', b, '--b\r\n\r\none\r\n--b\r\n\r\ntwo', ['one', 'two']],
    ['a final delimiter without line end', b, '--b\r\n\r\none\r\n--b--', ['one']],
    [
      'a delimiter that only begins like ours',
      b,
      '--b\r\n\r\none\r\n--b1\r\n--b-\r\n--bb--\r\n--b--',
      ['one\r\n--b1\r\n--b-\r\n--bb--'],
    ],
    ['a delimiter in the middle of a line', b, '--b\r\n\r\none --b\r\n x--b--\r\n--b--', ['one --b\r\n x--b--']],
    ['an empty part', b, '--b\r\n\r\n\r\n--b\r\n--b--\r\n', ['', '']],
    ['a part with headers only', b, '--b\r\nContent-Type: a/b\r\n--b--', ['']],
    ['a part that begins with line breaks', b, '--b\r\n\r\n\r\n\r\nx\r\n--b--', ['\r\n\r\nx']],
    [
      'a quoted boundary with blanks',
      'multipart/related; Boundary="StoryParts 74526 8432"; Type=x',
      '--StoryParts 74526 8432\r\n\r\none\r\n--StoryParts 74526 8432--',
      ['one'],
    ],
    [
      'a boundary of special characters',
      'multipart/related; boundary="----=_Part_0_6.1\'()+,/:?"',
      "------=_Part_0_6.1'()+,/:?\r\n\r\none\r\n------=_Part_0_6.1'()+,/:?--",
      ['one'],
    ],
    [
      'upper-case base64 with line breaks',
      b,
      '--b\r\nContent-Transfer-Encoding: BASE64\r\n\r\nb2\r\n5l\r\n\r\n--b--',
      ['one'],
    ],
    [
      'quoted-printable',
      b,
      '--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=3D=e9 =\r\nb  \r\nc=\r\n--b--',
      ['a=\xe9 b\r\nc'],
    ],
    [
      'a stray = in quoted-printable',
      b,
      '--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=zz=\r\n--b--',
      ['a=zz'],
    ],
    [
      '7bit and 8bit',
      b,
      '--b\r\nContent-Transfer-Encoding: 7bit\r\n\r\none\r\n--b\r\nContent-Transfer-Encoding: 8Bit\r\n\r\ntwo\r\n--b--',
      ['one', 'two'],
    ],
  ];
  it.each(sloppy)('takes %s', (_, contentType, body, expected) => {
    expect(texts(contentType, body)).toEqual(expected);
  });

  it('reads folded, repeated, odd and raw UTF-8 headers', () => {
    const body =
      '--b\r\nContent-Type: text/plain;\r\n\tcharset=utf-8\r\nX-A: 1\r\nx-a: 2\r\nno colon\r\n: none\r\n__proto__: p\r\nContent-Id: caf\u00e9.txt \r\n\r\nx\r\n--b--';
    const [part] = parts(b, body);
    expect(part).toMatchObject({ contentType: 'text/plain; charset=utf-8', contentId: 'caf\u00e9.txt' });
    expect(part!.headers['x-a']).toBe('1');
    expect(Object.entries(part!.headers)).toContainEqual(['__proto__', 'p']);
  });

  it('keeps a nested multipart whose boundary begins with the outer one whole', () => {
    const inner = '--b1\r\n\r\nin\r\n--b1--\r\n';
    const [part] = parts(b, `--b\r\nContent-Type: multipart/mixed; boundary=b1\r\n\r\n${inner}\r\n--b--`);
    expect(Buffer.from(part!.bytes).toString()).toBe(inner);
    expect(texts(part!.contentType, inner)).toEqual(['in']);
  });

  it('gives text/plain and no id where a part says nothing', () => {
    expect(parts(b, '--b\r\n\r\nx\r\n--b--')[0]).toMatchObject({ contentType: 'text/plain', contentId: null });
  });

  const many = (n: number): string => `${'--b\r\n\r\nx\r\n'.repeat(n)}--b--`;
  const wrong: [string, string, string, RegExp][] = [
    ['no multipart', 'text/xml', '--b\r\n\r\nx\r\n--b--', /not a multipart/],
    ['an empty Content-Type', '', '--b\r\n', /not a multipart/],
    ['no boundary', 'multipart/mixed', '--b\r\n\r\nx\r\n--b--', /boundary/],
    ['an empty boundary', 'multipart/mixed; boundary=""', '--\r\n\r\nx\r\n----', /boundary/],
    ['a boundary of 201 characters', `multipart/mixed; boundary=${'b'.repeat(201)}`, '', /boundary/],
    ['another boundary', 'multipart/mixed; boundary=c', '--b\r\n\r\nx\r\n--b--', /without parts/],
    ['nothing but the final delimiter', b, '--b--\r\n', /without parts/],
    ['an empty body', b, '', /without parts/],
    ['101 parts', b, many(101), /more than 100 parts/],
    ['a header of 20 000 bytes', b, `--b\r\nX: ${'x'.repeat(20_000)}\r\n\r\nx\r\n--b--`, /headers/],
    ['20 000 bytes of headers', b, `--b\r\n${'X: y\r\n'.repeat(4000)}\r\nx\r\n--b--`, /headers/],
    ['an unknown encoding', b, '--b\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\nx\r\n--b--', /Encoding/],
    ['base64 that is none', b, '--b\r\nContent-Transfer-Encoding: base64\r\n\r\n<x>!\r\n--b--', /base64/],
  ];
  it.each(wrong)('refuses %s', (_, contentType, body, expected) => {
    expect(fault(contentType, body)).toMatch(expected);
  });

  it('takes exactly its limits', () => {
    expect(fault(b, many(100))).toBe('no fault');
    expect(fault(b, many(1), { size: 15 })).toBe('no fault');
    expect(fault(b, many(1), { size: 14 })).toBe('multipart longer than 14 bytes');
  });

  it('answers any Content-Type and any bytes without throwing', () => {
    const pieces = fc
      .array(fc.constantFrom('--b', '\r\n', '\n', '--', ' ', 'Content-Type: ', 'x', '=', ':', '\0', '\xff'), {
        maxLength: 60,
      })
      .map((list) => Buffer.from(list.join(''), 'latin1'));
    const types = fc.oneof(
      anyText,
      anyText.map((value) => `multipart/mixed; boundary=${value}`),
      fc.constant(b),
    );
    fc.assert(
      fc.property(types, pieces, (type, body) => typeof readMultipart(type, body).ok === 'boolean'),
      { numRuns: 3000 },
    );
  });
});

describe('small pieces', () => {
  it('mediaType gives the bare type, or application/octet-stream', () => {
    expect(mediaType('Text/Plain; charset=x')).toBe('text/plain');
    for (const odd of ['', 'text', 'a/b/c', 'a b/c', '/', 'a/', 'text/\r\nplain', 'tëxt/plain']) {
      expect(mediaType(odd)).toBe('application/octet-stream');
    }
  });

  it('safeId leaves addresses and file names as they are', () => {
    expect(safeId('a_b-1.jpg@x.example')).toBe('a_b-1.jpg@x.example');
    expect(safeId('a b<c>"\r\n')).toBe('a_b_c____');
    expect(safeId('')).toBe('_');
  });
});

describe('the encoded words of a header (RFC 2047)', () => {
  it.each([
    ['plain', 'plain'],
    ['2 =? 3 ?= 4', '2 =? 3 ?= 4'],
    ['=?UTF-8?B?R3LDvMOfZQ==?=', 'Grüße'],
    ['=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln?=', 'Grüße aus Köln'],
    ['=?ISO-8859-1?Q?caf=E9?= at =?iso-8859-1*fr?q?No=EBl?=', 'café at Noël'],
    ['=?windows-1251?B?z/Do4uXy?=', 'Привет'],
    // Blanks between words go; a character may be cut in two between them.
    ['=?UTF-8?B?8J+Y?=\r\n =?UTF-8?B?gA==?= =?us-ascii?Q?!?= x', '😀! x'],
    ['Re: =?UTF-8?Q?a?=,=?UTF-8?Q?b?=', 'Re: a,b'],
    ['=?nobody-knows?Q?a?= b', '=?nobody-knows?Q?a?= b'],
    ['=?UTF-8?X?a?= =?UTF-8?Q?open', '=?UTF-8?X?a?= =?UTF-8?Q?open'],
  ])('of %j are %j', (header, text) => {
    expect(decodedWords(header)).toBe(text);
  });

  it('takes any text, in linear time', () => {
    fc.assert(fc.property(fc.string({ unit: 'grapheme' }), (text) => typeof decodedWords(`=?${text}?=`) === 'string'));
    const long = '=?utf-8?q?'.repeat(400);
    expect(decodedWords(long)).toBe(long);
  });
});
