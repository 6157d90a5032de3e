import { SegmentedMessage } from 'sms-segments-calculator';
import splitter from 'split-sms';
import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { decodeGsm, encodeGsm, packSeptets, segmentsOf, splitText, unpackSeptets } from './sms.ts';

/** All of GSM 03.38, extension included, but for CR: the calculator takes CR LF for one character of UCS-2. */
const GSM =
  '@£$¥èéùìòÇ\nØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà' +
  '\f^{}\\[~]|€';
const gsmText = fc.string({ unit: fc.constantFrom(...GSM), maxLength: 700 });
/** Dense in extended characters, so that escape pairs meet the edges. */
const edgyText = fc.string({ unit: fc.constantFrom('a', '€', '€', '['), maxLength: 700 });
const unicodeText = fc.string({ unit: fc.constantFrom('a', 'ж', 'ç', '日', '😀', '😀'), maxLength: 400 });

describe('counting segments', () => {
  it.each([
    ['nothing', '', 1],
    ['160 letters', 'a'.repeat(160), 1],
    ['161 letters', 'a'.repeat(161), 2],
    ['306 letters', 'a'.repeat(306), 2],
    ['307 letters', 'a'.repeat(307), 3],
    ['80 euro signs', '€'.repeat(80), 1],
    ['81 euro signs', '€'.repeat(81), 2],
    ['152 letters, a euro sign, 153 more septets', `${'a'.repeat(152)}€${'a'.repeat(153)}`, 3],
    ['70 units of UTF-16', 'ж'.repeat(70), 1],
    ['71 units of UTF-16', 'ж'.repeat(71), 2],
    ['35 emoji', '😀'.repeat(35), 1],
    ['36 emoji', '😀'.repeat(36), 2],
    ['67 emoji, 33 to a segment', '😀'.repeat(67), 3],
    ['a small c with cedilla makes it UTF-16', `${'a'.repeat(70)}ç`, 2],
    ['a capital one does not', `${'a'.repeat(70)}Ç`, 1],
    ['a tab makes it UTF-16', `${'a'.repeat(70)}\t`, 2],
    ['a carriage return does not', `${'a'.repeat(158)}\r\n`, 1],
  ])('%s', (_, text, count) => {
    expect(segmentsOf(text)).toBe(count);
  });

  it('agrees with two other counters', () => {
    fc.assert(
      fc.property(fc.oneof(gsmText, edgyText, unicodeText), (text) => {
        const { coding, pieces } = splitText(text);
        const split = splitter.split(text);
        expect(coding).toBe(split.characterSet === 'GSM' ? 'default' : 'ucs2');
        expect(pieces).toEqual(split.parts.map((part) => part.content));
        if (text !== '') expect(pieces.length).toBe(new SegmentedMessage(text).segments.length);
      }),
      { numRuns: 300 },
    );
  });

  it('counts for a carrier that takes Latin-1 or ASCII only what is in both alphabets', () => {
    expect(splitText('é'.repeat(160), 'latin1').coding).toBe('default');
    expect(splitText('é'.repeat(160), 'ascii').coding).toBe('ucs2');
    expect(splitText('€', 'latin1').coding).toBe('ucs2');
    expect(splitText('Δ', 'latin1').coding).toBe('ucs2');
    expect(splitText('`', 'ascii').coding).toBe('ucs2');
    // A bracket is one octet there and two septets on the air.
    expect(segmentsOf('['.repeat(81), 'ascii')).toBe(2);
  });
});

describe('splitting', () => {
  it('puts the pieces together to the text, cuts no pair and fills no piece beyond its room', () => {
    fc.assert(
      fc.property(fc.oneof(gsmText, edgyText, unicodeText, fc.string({ unit: 'binary', maxLength: 400 })), (text) => {
        const { coding, pieces } = splitText(text);
        expect(pieces.join('')).toBe(text.toWellFormed());
        for (const piece of pieces) {
          expect(piece.isWellFormed()).toBe(true);
          const size = coding === 'ucs2' ? piece.length : encodeGsm(piece).length;
          const room = coding === 'ucs2' ? [70, 67] : [160, 153];
          expect(size).toBeLessThanOrEqual(room[pieces.length === 1 ? 0 : 1]!);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('shows a lone surrogate as the replacement character', () => {
    expect(splitText('a\ud800b').pieces).toEqual(['a\ufffdb']);
  });
});

describe('GSM 03.38', () => {
  it('writes the tables of the specification', () => {
    expect([...encodeGsm('@Δ a€[')]).toEqual([0x00, 0x10, 0x20, 0x61, 0x1b, 0x65, 0x1b, 0x3c]);
    expect([...encodeGsm('日')]).toEqual([0x3f]);
  });

  it('reads what it writes', () => {
    fc.assert(
      fc.property(gsmText, (text) => {
        expect(decodeGsm(encodeGsm(text))).toBe(text);
      }),
    );
  });

  it('reads any octets', () => {
    expect(decodeGsm(Uint8Array.of(0x1b, 0x41, 0x1b, 0x1b, 0x1b))).toBe('A  ');
    expect(decodeGsm(Uint8Array.of(0xc1))).toBe('A');
    for (let code = 0; code < 256; code++) expect(decodeGsm(Uint8Array.of(code, code))).not.toContain('undefined');
  });

  it('packs as the specification shows and unpacks again', () => {
    // "hellohello" as 3GPP and every book on it has it.
    expect(Buffer.from(packSeptets(encodeGsm('hellohello'))).toString('hex')).toBe('e8329bfd4697d9ec37');
    fc.assert(
      fc.property(gsmText, fc.integer({ min: 0, max: 6 }), (text, skip) => {
        const septets = encodeGsm(text);
        const back = unpackSeptets(packSeptets(septets, skip), skip);
        // Octets cannot tell a last `@` from padding where exactly 7 bits are left.
        const cut = septets.at(-1) === 0 && (septets.length * 7 + skip) % 8 === 0 ? 1 : 0;
        expect([...back]).toEqual([...septets.subarray(0, septets.length - cut)]);
      }),
    );
  });
});
