import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { masked, parseDestination, parseSender } from './address.ts';

const codes = new Set(['12345', '80888', '0700']);

/** Spelling, and the number that comes out of it or the status that refuses it. */
const destinations: [string, string | number][] = [
  // Good: nothing, + or 00 in front of 7 to 15 digits.
  ['447700900123', '447700900123'],
  ['+447700900123', '447700900123'],
  ['00447700900123', '447700900123'],
  ['385911234567', '385911234567'],
  ['+385911234567', '385911234567'],
  ['15551234567', '15551234567'],
  ['+15551234567', '15551234567'],
  ['1234567', '1234567'],
  ['+1234567', '1234567'],
  ['001234567', '1234567'],
  ['123456789012345', '123456789012345'],
  ['+123456789012345', '123456789012345'],
  ['00123456789012345', '123456789012345'],
  ['9999999', '9999999'],
  ['821012345678', '821012345678'],
  ['+4915112345678', '4915112345678'],
  ['004915112345678', '4915112345678'],
  ['41793026727', '41793026727'],
  ['1000000', '1000000'],
  // Known short codes, exactly as routing knows them.
  ['12345', '12345'],
  ['80888', '80888'],
  ['0700', '0700'],
  ['+12345', 52],
  ['0012345', 52],
  [' 12345', 52],
  ['12346', 52],
  ['8088', 52],
  ['808888', 52],
  // Missing.
  ['', 51],
  [' ', 51],
  ['   ', 51],
  ['\t', 51],
  ['\n', 51],
  ['\r\n', 51],
  ['\u00a0', 51],
  ['\u3000\u3000', 51],
  ['\ufeff', 51],
  [' \t \n \r \v ', 51],
  [' '.repeat(10), 51],
  [' '.repeat(100_000), 51],
  // National form: one leading 0.
  ['07700900123', 8],
  ['0911234567', 8],
  ['0123456', 8],
  ['0100000', 8],
  ['012345678901234', 8],
  ['01012345678', 8],
  // A leading 0 that is no national form.
  ['0', 52],
  ['00', 52],
  ['000', 52],
  ['0000000', 52],
  ['00000000000', 52],
  ['012345', 52],
  ['0123456789012345', 52],
  ['+0911234567', 52],
  ['+00385911234567', 52],
  ['000385911234567', 52],
  ['0+385911234567', 52],
  ['00+385911234567', 52],
  // Too short, too long.
  ['1', 52],
  ['112', 52],
  ['123456', 52],
  ['+123456', 52],
  ['00123456', 52],
  ['1234567890123456', 52],
  ['+1234567890123456', 52],
  ['001234567890123456', 52],
  ['9'.repeat(100), 52],
  ['9'.repeat(1_000_000), 52],
  // Plus in the wrong place.
  ['+', 52],
  ['++', 52],
  ['++447700900123', 52],
  ['447700900123+', 52],
  ['44+7700900123', 52],
  ['- 447700900123', 52],
  ['-447700900123', 52],
  ['\uff0b447700900123', 52],
  ['\u2795447700900123', 52],
  // Spaces and punctuation, around and inside: refused, not repaired.
  [' 447700900123', 52],
  ['447700900123 ', 52],
  [' 447700900123 ', 52],
  ['\t447700900123', 52],
  ['447700900123\n', 52],
  ['447700900123\r\n', 52],
  ['44 7700 900123', 52],
  ['+44 7700 900123', 52],
  ['+ 447700900123', 52],
  ['44-7700-900123', 52],
  ['44.7700.900123', 52],
  ['44/7700/900123', 52],
  ['(44)7700900123', 52],
  ['+44(0)7700900123', 52],
  ['447700900123,', 52],
  ['447700900123;', 52],
  ['447700900123,447700900124', 52],
  ['"447700900123"', 52],
  ["'447700900123", 52],
  ['tel:+447700900123', 52],
  ['447700900123x12', 52],
  ['447700900123#1', 52],
  ['447700900123p1', 52],
  ['*100#447700', 52],
  ['+447700900123/TYPE=PLMN', 52],
  ['447700900123@mms.example', 52],
  ['user@example.com', 52],
  // Invisible characters.
  ['\u200e447700900123', 52],
  ['447700900123\u200f', 52],
  ['\u202a+447700900123\u202c', 52],
  ['\u2066447700900123\u2069', 52],
  ['\u200b447700900123', 52],
  ['44\u200d7700900123', 52],
  ['\ufeff447700900123', 52],
  ['447700900123\u00a0', 52],
  ['447700\u00ad900123', 52],
  ['\u200f', 52],
  ['447700900123\u0000', 52],
  ['\u0007447700900123', 52],
  // Digits that are not ASCII.
  ['\uff14\uff14\uff17\uff17\uff10\uff10\uff19\uff10\uff10\uff11\uff12\uff13', 52],
  ['44770090012\uff13', 52],
  ['\u0664\u0664\u0667\u0667\u0660\u0660\u0669\u0660\u0660', 52],
  ['\u06f4\u06f4\u06f7\u06f7\u06f0\u06f0\u06f9\u06f0\u06f0', 52],
  ['\u096a\u096a\u096d\u096d\u0966\u0966\u096f\u0966', 52],
  ['\u2074\u2074\u2077\u2077\u2070\u2070\u2079\u2070', 52],
  ['44770090012\u00b2', 52],
  ['\ud835\udfd2\ud835\udfd2\ud835\udfd5\ud835\udfd5\ud835\udfce', 52],
  ['\u2463\u2463\u2466\u2466\u2466\u2466\u2466\u2466', 52],
  // Numbers as programs spoil them, and words.
  ['4.477009E+11', 52],
  ['4477009e11', 52],
  ['447700900123.0', 52],
  ['0x1A2B3C4D', 52],
  ['44770090012O', 52],
  ['44770090012l', 52],
  ['NaN1234', 52],
  ['undefined', 52],
  ['null', 52],
  ['[object Object]', 52],
  ['abc', 52],
  ['abcdefghij', 52],
  ['+abcdefghij', 52],
  ['__proto__', 52],
  ["1234567' OR 1=1", 52],
  ['<to>447700900</to>', 52],
  ['447700900123%00', 52],
  ['\ud83d\udcf1447700900123', 52],
  ['\ud83d447700900123', 52],
];

describe('a destination', () => {
  it('is tried in at least 120 different spellings', () => {
    expect(new Set(destinations.map(([to]) => to)).size).toBe(destinations.length);
    expect(destinations.length).toBeGreaterThanOrEqual(120);
  });

  it.each(destinations)('%j gives %j', (to, expected) => {
    expect(parseDestination(to, codes)).toEqual(
      typeof expected === 'string' ? { ok: true, number: expected } : { ok: false, status: expected },
    );
  });

  it('that is a short code is refused where routing knows none', () => {
    expect(parseDestination('12345')).toEqual({ ok: false, status: 52 });
  });

  it('comes out of the three spellings of a number the same, for any number', () => {
    void fc.assert(
      fc.property(fc.integer({ min: 1_000_000, max: 999_999_999_999_999 }), (n) => {
        for (const prefix of ['', '+', '00']) {
          expect(parseDestination(`${prefix}${n}`)).toEqual({ ok: true, number: String(n) });
        }
      }),
    );
  });

  it('that is taken has 7 to 15 ASCII digits and begins with none of its prefixes, whatever the text', () => {
    const char = fc.constantFrom('+', '0', '1', '9', ' ', '-', '\u0660', '\uff10', '\u200f', 'a');
    const alphabet = fc.oneof(fc.array(char, { maxLength: 20 }), fc.array(fc.constantFrom('+', '0', '1', '9')));
    void fc.assert(
      fc.property(alphabet, (chars) => {
        const read = parseDestination(chars.join(''));
        if (read.ok) expect(read.number).toMatch(/^[1-9][0-9]{6,14}$/);
        else expect([51, 8, 52]).toContain(read.status);
      }),
    );
  });
});

const senders: [string, string | 11, ('number' | 'alphanumeric')?][] = [
  ['447700900123', '447700900123', 'number'],
  ['+447700900123', '447700900123', 'number'],
  ['123', '123', 'number'],
  ['+123', '123', 'number'],
  ['0700', '0700', 'number'],
  ['80888', '80888', 'number'],
  ['123456789012345', '123456789012345', 'number'],
  ['+123456789012345', '123456789012345', 'number'],
  ['1234567890123456', 11],
  ['+1234567890123456', 11],
  ['12', 11],
  ['+12', 11],
  ['+', 11],
  ['Postcard', 'Postcard', 'alphanumeric'],
  ['ABC', 'ABC', 'alphanumeric'],
  ['abc', 'abc', 'alphanumeric'],
  ['A1B', 'A1B', 'alphanumeric'],
  ['12A', '12A', 'alphanumeric'],
  ['My Shop', 'My Shop', 'alphanumeric'],
  ['H&M', 'H&M', 'alphanumeric'],
  ['A.B-C_D&E F', 'A.B-C_D&E F', 'alphanumeric'],
  ['12345678901a', 11],
  ['1234567890a', '1234567890a', 'alphanumeric'],
  ['ElevenChars', 'ElevenChars', 'alphanumeric'],
  ['TwelveChars!', 11],
  ['TwelveLetter', 11],
  ['ab', 11],
  ['a', 11],
  ['', 11],
  ['   ', 11],
  ['...', 11],
  ['1 2', 11],
  ['12 34', 11],
  ['1-800-555', 11],
  ['Café', 'Café', 'alphanumeric'],
  ['Cafe\u0301', 11],
  ['Müller', 'Müller', 'alphanumeric'],
  ['ØÆÅ', 'ØÆÅ', 'alphanumeric'],
  ['ΔΦΓ', 'ΔΦΓ', 'alphanumeric'],
  ['ΑΒΓ', 11],
  ['Почта', 11],
  ['Ślask', 11],
  ['çedilla', 11],
  ['Shop!', 11],
  ['Shop?', 11],
  ['a@b.co', 11],
  ['Shop\n', 11],
  ['Sh\u0000p', 11],
  ['Sh\u200fop', 11],
  ['Sh\u00a0op', 11],
  ['Shop\ud83d\ude00', 11],
  ['\ud83dabc', 11],
  ['\uff21\uff22\uff23', 11],
  ['\u0661\u0662\u0663', 11],
  ['a'.repeat(1_000_000), 11],
  ['1'.repeat(1_000_000), 11],
];

describe('a sender', () => {
  it.each(senders)('%j gives %j', (sender, expected, kind) => {
    expect(parseSender(sender)).toEqual(
      expected === 11 ? { ok: false, status: 11 } : { ok: true, sender: expected, kind },
    );
  });
});

describe('a number in a log', () => {
  it.each([
    ['447700900123', '4477******23'],
    ['+447700900123', '4477******23'],
    ['123456789012345', '1234*********45'],
    ['1234567', '12****7'],
    ['12345', '1****'],
    ['12', '**'],
    ['', '***'],
    ['+', '***'],
    ['call me, it is Ann', '***'],
    ['9'.repeat(100), '***'],
  ])('%j shows as %j', (number, shown) => {
    expect(masked(number)).toBe(shown);
  });
});
