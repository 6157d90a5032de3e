/** What fetched bytes are taken for, where the first letters, the server and the customer do not agree. */
import { describe, expect, it } from 'vitest';
import { kindOf } from './kind.ts';

const text = (words: string): Uint8Array => Buffer.from(words, 'utf8');
/** A pack header, system header and padding: the beginning of an MPEG program stream (`0x21` = MPEG-1, `0x44` = MPEG-2). */
const program = (first: number): Uint8Array => Buffer.from([0, 0, 1, 0xba, first, ...Array(60).fill(0)]);
const typeOf = async (...asked: Parameters<typeof kindOf>): Promise<string> => {
  const kind = await kindOf(...asked);
  return kind.ok ? kind.contentType : kind.words;
};

describe('a text', () => {
  it.each(['BMW and others', 'solid ground\nbelow', 'ID3 tags explained', 'MZ is where we meet'])(
    'that begins like a file of another kind is the text it is said to be: %s',
    async (words) => {
      expect(await typeOf(text(words), 'text/plain', null)).toBe('text/plain');
      expect(await typeOf(text(words), undefined, 'text/plain')).toBe('text/plain');
    },
  );

  it('in another charset that is named is one too', async () => {
    const latin = Buffer.from('BMW f\u00fcr alle', 'latin1');
    expect(await typeOf(latin, 'text/plain; charset=iso-8859-1', null)).toBe('text/plain; charset=iso-8859-1');
    const picture = Buffer.from([0x42, 0x4d, 0, 0, 0, 0, 0xff]);
    expect(await typeOf(picture, 'text/plain; charset=iso-8859-1', null)).toBe('image/bmp');
  });

  it('that nobody calls one is what it begins like', async () => {
    expect(await typeOf(text('solid ground\nbelow'), 'application/octet-stream', null)).toContain('model/stl');
  });

  it('in the name of media is still media', async () => {
    expect(await typeOf(text('%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n'), 'text/plain', null)).toBe(
      'application/pdf',
    );
    expect(await typeOf(Buffer.from([0x42, 0x4d, 0, 0, 0, 0, 0xff]), 'text/plain', null)).toBe('image/bmp');
  });
});

describe('a media type', () => {
  it('is called what it is called by those that show it, whatever it is called by others', async () => {
    expect(await typeOf(program(0x21), undefined, null)).toBe('video/mpeg');
    expect(await typeOf(program(0x44), 'video/mpg', null)).toBe('video/mpeg');
    expect(await typeOf(Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]), 'audio/mp3', null)).toBe('audio/mpeg');
    expect(await typeOf(Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]), 'Image/X-MS-BMP', null)).toBe('image/bmp');
  });
});
