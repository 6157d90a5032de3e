/**
 * Text as a short message: which alphabet carries it, how many segments it takes, where it is cut, and GSM 03.38 as bytes.
 * Prices, the carrier and the sandbox count with the same functions.
 *
 * Promises: pure and total. The pieces of a split, put together again, are the text. No piece is cut inside an escape pair or a
 * surrogate pair. Lone surrogates become U+FFFD, since no handset can show them.
 *
 * Source: 3GPP TS 23.038, 6.2.1 (default alphabet and its extension; national shift tables are not used), TS 23.040, 9.2.3.24.1
 * (concatenation with an 8-bit reference).
 */

/**
 * What a carrier takes as its default alphabet: `gsm` is 3GPP TS 23.038; `latin1` and `ascii` stand for carriers that read the
 * octets so and put them into GSM 03.38 themselves, so only characters of both are sent that way.
 */
export type Alphabet = 'gsm' | 'latin1' | 'ascii';

/** A text cut for sending. */
export interface SplitText {
  /** `default`: the carrier's default alphabet; `ucs2`: UTF-16. */
  coding: 'default' | 'ucs2';
  /** At least one; a single one has no concatenation header. */
  pieces: string[];
}

/** Capacity of a message without and with a concatenation header of 6 octets, in septets and in UTF-16 units. */
const SEPTETS = { alone: 160, joined: 153 };
const UNITS = { alone: 70, joined: 67 };

const ESCAPE = 0x1b;
const REPLACEMENT = 0x3f;

/** The 128 characters of the default alphabet by code; the escape stands as U+001B. */
const BASIC =
  '@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u001bÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?' +
  '¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà';
/** Behind the escape. */
const EXTENSION: readonly [number, string][] = [
  [0x0a, '\f'],
  [0x14, '^'],
  [0x28, '{'],
  [0x29, '}'],
  [0x2f, '\\'],
  [0x3c, '['],
  [0x3d, '~'],
  [0x3e, ']'],
  [0x40, '|'],
  [0x65, '€'],
];

/** Septets by UTF-16 code: 0..127, with `EXTENDED` added where the escape comes first; -1 = not in the alphabet. */
const EXTENDED = 0x100;
const CODES = new Int16Array(0x10000).fill(-1);
const EXTENSION_TEXT = new Map(EXTENSION);
for (let code = 0; code < BASIC.length; code++) if (code !== ESCAPE) CODES[BASIC.charCodeAt(code)] = code;
for (const [code, char] of EXTENSION) CODES[char.charCodeAt(0)] = EXTENDED + code;

/** Septets of one UTF-16 unit in `alphabet`: 1, 2, or 0 = cannot be said in it. */
function septetsOf(unit: number, alphabet: Alphabet): number {
  const code = CODES[unit]!;
  if (code < 0) return 0;
  if (alphabet === 'ascii' ? unit > 0x7f : alphabet === 'latin1' && unit > 0xff) return 0;
  return code >= EXTENDED ? 2 : 1;
}

/** Septets of the whole text, or null where it needs UTF-16. */
function countSeptets(text: string, alphabet: Alphabet): number | null {
  let septets = 0;
  for (let i = 0; i < text.length; i++) {
    const own = septetsOf(text.charCodeAt(i), alphabet);
    if (own === 0) return null;
    septets += own;
  }
  return septets;
}

/**
 * Cuts `text` for sending.
 */
export function splitText(text: string, alphabet: Alphabet = 'gsm'): SplitText {
  const whole = text.toWellFormed();
  const septets = countSeptets(whole, alphabet);
  const coding = septets === null ? 'ucs2' : 'default';
  const { alone, joined } = septets === null ? UNITS : SEPTETS;
  if ((septets ?? whole.length) <= alone) return { coding, pieces: [whole] };
  const pieces: string[] = [];
  let start = 0;
  let used = 0;
  for (let i = 0; i < whole.length; ) {
    // A pair of surrogates is one character, as an escape pair is.
    const units = septets === null && isHigh(whole.charCodeAt(i)) ? 2 : 1;
    const size = septets === null ? units : septetsOf(whole.charCodeAt(i), alphabet);
    if (used + size > joined) {
      pieces.push(whole.slice(start, i));
      start = i;
      used = 0;
    }
    used += size;
    i += units;
  }
  pieces.push(whole.slice(start));
  return { coding, pieces };
}

/** How many segments `text` takes; what prices and rates count. 1 for an empty text. */
export function segmentsOf(text: string, alphabet: Alphabet = 'gsm'): number {
  return splitText(text, alphabet).pieces.length;
}

function isHigh(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff;
}

/** GSM 03.38, one septet per octet. A character outside the alphabet becomes `?`; `splitText` tells beforehand. */
export function encodeGsm(text: string): Uint8Array {
  const out = new Uint8Array(2 * text.length);
  let n = 0;
  for (let i = 0; i < text.length; i++) {
    const code = CODES[text.charCodeAt(i)]!;
    if (code >= EXTENDED) out[n++] = ESCAPE;
    out[n++] = code < 0 ? REPLACEMENT : code & 0x7f;
  }
  return out.subarray(0, n);
}

/**
 * Text of GSM 03.38 octets. By TS 23.038 an unknown extension shows as the basic character, a second escape or one at the end as
 * a space. The eighth bit is not looked at.
 */
export function decodeGsm(octets: Uint8Array): string {
  let text = '';
  for (let i = 0; i < octets.length; i++) {
    let code = octets[i]! & 0x7f;
    if (code === ESCAPE) {
      i++;
      code = i < octets.length ? octets[i]! & 0x7f : ESCAPE;
      text += code === ESCAPE ? ' ' : (EXTENSION_TEXT.get(code) ?? BASIC[code]!);
    } else text += BASIC[code]!;
  }
  return text;
}

/** Septets packed 8 into 7 octets (TS 23.038, 6.1.2.1), beginning at the bit `skip` (0..6: fill bits behind a header). */
export function packSeptets(septets: Uint8Array, skip = 0): Uint8Array {
  const out = new Uint8Array(Math.ceil((septets.length * 7 + skip) / 8));
  septets.forEach((septet, i) => {
    const bit = i * 7 + skip;
    const at = bit >> 3;
    const shifted = (septet & 0x7f) << (bit & 7);
    out[at]! |= shifted & 0xff;
    if (shifted > 0xff) out[at + 1]! |= shifted >> 8;
  });
  return out;
}

/**
 * Undoes `packSeptets`. Octets do not tell 7 septets from 8 whose last is `@` (0): such an end is left off, as padding.
 */
export function unpackSeptets(octets: Uint8Array, skip = 0): Uint8Array {
  const bits = octets.length * 8 - skip;
  const count = Math.max(0, Math.floor(bits / 7));
  const out = new Uint8Array(count);
  for (let i = 0; i < count; i++) {
    const bit = i * 7 + skip;
    const at = bit >> 3;
    out[i] = ((octets[at]! | ((octets[at + 1] ?? 0) << 8)) >> (bit & 7)) & 0x7f;
  }
  return bits % 7 === 0 && count > 0 && out[count - 1] === 0 ? out.subarray(0, count - 1) : out;
}
