/** Names, words and subjects of an MM's content. */

import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import {
  checkSmil,
  fallbackName,
  fileNames,
  nameOf,
  namesOf,
  subjectFor,
  textPart,
  toAscii,
  wireNames,
  wordsFor,
} from './content.ts';
import type { Profile } from './profile.ts';
import type { Part } from './submission.ts';

const wanted = (...ids: (string | undefined)[]) =>
  ids.map((contentId, i) => ({ ...(contentId === undefined ? {} : { contentId }), fallback: `part_${i + 1}.bin` }));

describe('names on the wire', () => {
  it.each<[string[], string[]]>([
    [['image_1'], ['image_1']],
    [['my picture (1).jpg'], ['my_picture_1_.jpg']],
    [
      ['Größe.png', 'çà.txt'],
      ['Große.png'.replace('ß', '_'), 'ca.txt'],
    ],
    [
      ['../../etc/passwd', '..\\..\\boot.ini', '.htaccess', '...'],
      ['_.._etc_passwd', '_.._boot.ini', 'htaccess', 'part_4.bin'],
    ],
    [
      ['\u0000a\r\nX-Evil: 1', 'a"; name="b', '<a@b>', '=?UTF-8?B?YQ==?='],
      ['_a_X-Evil_1', 'a_name_b', '_a_b_', '_UTF-8_B_YQ_'],
    ],
    [
      ['\u202egpj.exe', 'عربى', '😀', '\ud800'],
      ['_gpj.exe', 'part_2.bin', 'part_3.bin', 'part_4.bin'],
    ],
    [
      ['a', 'A', 'a'],
      ['a', 'A_2', 'a_3'],
    ],
    [
      ['cat.jpg', 'cat.jpg', 'cat_2.jpg'],
      ['cat.jpg', 'cat_3.jpg', 'cat_2.jpg'],
    ],
    [
      [`${'x'.repeat(100)}.jpeg`, `${'x'.repeat(200)}.jpeg`],
      [`${'x'.repeat(59)}.jpeg`, `${'x'.repeat(57)}_2.jpeg`],
    ],
  ])('of %j are %j', (ids, names) => {
    expect(wireNames(wanted(...ids))).toEqual(names);
  });

  it('are given to those who asked for them before those who did not', () => {
    expect(wireNames([{ fallback: 'text_1.txt' }, { contentId: 'text_1.txt', fallback: 'x' }])).toEqual([
      'text_1_2.txt',
      'text_1.txt',
    ]);
    expect(wireNames([{ contentId: '', fallback: 'Zoë & Co.png' }, { fallback: '' }])).toEqual(['Zoe_Co.png', 'part']);
  });

  it('are safe and unique, whatever is asked for', () => {
    const name = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 80 }),
      fc.constantFrom('a', 'A', 'a b', 'a_b', 'a_2', 'a.b', '.'),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.option(name, { nil: undefined }), name), { maxLength: 20 }), (parts) => {
        const names = wireNames(
          parts.map(([contentId, fallback]) => ({ ...(contentId === undefined ? {} : { contentId }), fallback })),
        );
        for (const one of names) expect(one).toMatch(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/);
        expect(new Set(names.map((one) => one.toLowerCase())).size).toBe(parts.length);
      }),
    );
  });
});

describe('file names', () => {
  it.each([
    ['image_1', 'image/jpeg', 'image_1.jpg'],
    ['cat.JPEG', 'image/jpeg', 'cat.JPEG'],
    ['cat.png', 'image/jpeg; q=1', 'cat.jpg'],
    ['photo.1', 'image/gif', 'photo.1.gif'],
    ['body.txt', 'text/plain; charset=utf-8', 'body.txt'],
    ['card', 'TEXT/VCARD', 'card.vcf'],
    ['thing.xyz', 'application/x-thing', 'thing.xyz'],
    ['voice.bin', 'audio/amr', 'voice.amr'],
  ])('of %s as %s is %s', (contentId, contentType, name) => {
    expect(fileNames([{ contentId, contentType }])).toEqual([name]);
  });

  it('are unique', () => {
    const parts = ['a', 'a.jpg', 'A.png', 'a_2.jpg'].map((contentId) => ({ contentId, contentType: 'image/jpeg' }));
    expect(new Set(fileNames(parts).map((name) => name.toLowerCase())).size).toBe(4);
  });

  it('are made where nothing gives one', () => {
    expect([
      fallbackName('text/plain; charset=utf-8', 1),
      fallbackName('image/PNG', 2),
      fallbackName('x/y', 3),
    ]).toEqual(['text_1.txt', 'part_2.png', 'part_3.bin']);
    expect(nameOf('https://x.example/a/cat.png?x=1#y')).toBe('cat.png');
    for (const url of ['https://x.example/', 'https://x.example/a/', 'https://x.example/%0d%0a', 'nothing', '']) {
      expect(nameOf(url)).toBe('');
    }
  });
});

describe('a src', () => {
  const names = namesOf([
    { type: 'TEXT', contentId: 'my text' },
    { type: 'LINK', contentUrl: 'https://x.example/a/Cat.png?v=1' },
    { type: 'SMIL', contentId: 'smil' },
    { type: 'UPLOADED_REFERENCE', uploadedContentId: 'AB12', name: 'Größe 1.amr' },
    { type: 'TEXT', contentId: 'twin' },
    { type: 'TEXT', contentId: 'twin' },
    { type: 'TEXT', contentId: 'Cat.png' },
  ]);

  it.each([
    ['my text', 0],
    ['my_text', 0],
    ['cid:my%20text', 0],
    ['https://x.example/a/Cat.png?v=1', 1],
    ['Größe 1.amr', 3],
    ['Gr%C3%B6%C3%9Fe%201.amr', 3],
    ['AB12', 3],
    ['cid:ab12', 3],
    // A contentId is surer than the file name of a link.
    ['Cat.png', 6],
    ['cat.png', 6],
    ['twin', 'several'],
    ['smil', 'nothing'],
    ['cid:', 'nothing'],
    ['', 'nothing'],
    ['%', 'nothing'],
    ['__proto__', 'nothing'],
    ['😀', 'nothing'],
  ])('%j leads to %j', (src, target) => {
    expect(names.targetOf(src)).toBe(target);
  });

  it('knows its twins', () => {
    expect([names.twins('cid:twin'), names.twins('my text'), names.size]).toEqual([[5], [], 6]);
  });

  it('is not judged where it may be the name of an upload that is not known', () => {
    const smil = '<smil><body><img src="cat.png"/></body></smil>';
    const upload = { type: 'UPLOADED_REFERENCE' as const, uploadedContentId: 'U' };
    expect(checkSmil([{ type: 'SMIL', smil }, upload])).toEqual({ faults: [], maybe: true });
    expect(
      checkSmil([
        { type: 'SMIL', smil },
        { ...upload, name: 'cat.png' },
      ]),
    ).toEqual({ faults: [], maybe: false });
    expect(
      checkSmil([
        { type: 'SMIL', smil },
        { ...upload, name: 'dog.png' },
      ]).faults,
    ).toHaveLength(1);
  });
});

describe('text in ASCII', () => {
  it.each([
    ['plain', 'plain'],
    ['Grüße, José, Łódź, Ærø', 'Grusse, Jose, Lodz, AEro'],
    ['“curly” ‘quotes’ – and — dashes…', '"curly" \'quotes\' - and - dashes...'],
    ['5 € / £3 ½ ™ ©', '5 EUR / GBP3 1/2 TM (c)'],
    ['e\u0301', 'e'],
    ['ﬁne\u00a0print\u200b', 'fine print'],
    ['👩‍👩‍👧 🇩🇪 ❤️', '? ? ?'],
    ['Привет', '??????'],
    ['\ud800x', '?x'],
  ])('%j is %j', (text, ascii) => {
    expect(toAscii(text)).toBe(ascii);
  });

  it('is ASCII for any text', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => /^[\0-\x7f]*$/.test(toAscii(text))));
    expect(Buffer.from(textPart('é😀', 'us-ascii').bytes).toString()).toBe('e?');
    expect(textPart('é', 'us-ascii').contentType).toBe('text/plain; charset=us-ascii');
    expect(textPart('é', 'utf-8')).toEqual({ contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('é') });
  });
});

describe('a subject', () => {
  it('is one line of the length that the carrier takes, cut between characters', () => {
    const utf8 = (length: number) => ({ length, encoding: 'utf-8' }) as const;
    expect(subjectFor(' a\r\nX-Evil: b\u2028c\u0007 ', utf8(66))).toBe('a X-Evil: b c');
    expect(subjectFor('abc def', utf8(4))).toBe('abc');
    expect(subjectFor('ab👩‍👩‍👧c', utf8(4))).toBe('ab');
    expect(subjectFor('e\u0301e\u0301', utf8(3))).toBe('e\u0301');
    expect(subjectFor('😀'.repeat(66), utf8(66))).toBe('😀'.repeat(66));
    expect(subjectFor('Grüße', { length: 4, encoding: 'us-ascii' })).toBe('Grus');
  });

  it('is an encoded word where the carrier wants one, and plain ASCII stays', () => {
    const rfc2047 = (title: string) => subjectFor(title, { length: 66, encoding: 'rfc2047' });
    expect(rfc2047('Fish & chips')).toBe('Fish & chips');
    expect(rfc2047('Grüße')).toBe('=?UTF-8?B?R3LDvMOfZQ==?=');
    expect(rfc2047('=?x')).toBe('=?UTF-8?B?PT94?=');
    const long = 'ü😀'.repeat(33);
    const words = rfc2047(long).split(' ');
    for (const word of words) expect(word.length).toBeLessThanOrEqual(75);
    // Each word is whole characters.
    const read = words.map((word) =>
      Buffer.from(/^=\?UTF-8\?B\?(.*)\?=$/.exec(word)?.[1] as string, 'base64').toString('utf8'),
    );
    expect(read.join('')).toBe(long);
  });
});

describe('texts and subject for a carrier', () => {
  const profile = (charset: 'utf-8' | 'us-ascii', length = 100): Pick<Profile, 'text' | 'subject'> => ({
    text: { length, charset },
    subject: { length: 10, encoding: charset },
  });
  const part = (contentType: string, bytes: Uint8Array | string): Part => ({
    contentId: 'x',
    contentType,
    bytes: Buffer.from(bytes as string),
  });
  const said = (parts: Part[], charset: 'utf-8' | 'us-ascii', length?: number) =>
    wordsFor({ parts }, profile(charset, length));
  const texts = (result: ReturnType<typeof said>) =>
    result.ok &&
    result.content.parts.map(({ contentType, bytes }) => [contentType, Buffer.from(bytes).toString('latin1')]);

  it('are the same object where the carrier takes them as they are', () => {
    const content = { subject: 'Hello', parts: [part('text/plain; charset=utf-8', 'é'), part('image/png', 'é')] };
    const result = wordsFor(content, profile('utf-8'));
    expect(result.ok && result.content).toBe(content);
    const ascii = { parts: [part('text/plain; charset=us-ascii', 'e')] };
    expect(wordsFor(ascii, profile('us-ascii'))).toEqual({ ok: true, content: ascii });
  });

  it('come in the charset of the carrier, whatever theirs was', () => {
    const latin1 = part('text/plain; charset="ISO-8859-1"', new Uint8Array([0xe9]));
    expect(texts(said([latin1], 'utf-8'))).toEqual([['text/plain; charset=utf-8', '\xc3\xa9']]);
    expect(texts(said([latin1], 'us-ascii'))).toEqual([['text/plain; charset=us-ascii', 'e']]);
    expect(texts(said([part('Text/Plain', 'é')], 'us-ascii'))).toEqual([['text/plain; charset=us-ascii', 'e']]);
    expect(texts(said([part('text/vcard', 'é'), part('text/plain; charset=x-mine', 'é')], 'us-ascii'))).toEqual([
      ['text/vcard', '\xc3\xa9'],
      ['text/plain; charset=x-mine', '\xc3\xa9'],
    ]);
  });

  it('are refused where one is longer than the carrier takes, in code points as they travel', () => {
    expect(said([part('text/plain', '😀'.repeat(10))], 'utf-8', 10).ok).toBe(true);
    expect(said([part('text/plain', '😀'.repeat(11))], 'utf-8', 10)).toEqual({
      ok: false,
      error: 355,
      words: 'a text of 11 characters; the carrier takes 10',
    });
    expect(said([part('text/plain', '€€€€')], 'us-ascii', 10).ok).toBe(false);
  });

  it('lose a subject of which nothing remains', () => {
    expect(wordsFor({ subject: '\u0007', parts: [] }, profile('utf-8'))).toEqual({ ok: true, content: { parts: [] } });
    expect(wordsFor({ subject: 'Ein langes Wort', parts: [] }, profile('utf-8'))).toEqual({
      ok: true,
      content: { subject: 'Ein langes', parts: [] },
    });
  });
});
