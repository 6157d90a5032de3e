/** `postcard media` as it is typed, with real files and a real child that fits them. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documents, hostile, photo } from '../../test/corpus/corpus.ts';
import { run } from './postcard.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-media-'));

beforeAll(async () => {
  const put = (name: string, bytes: Uint8Array): void => writeFileSync(join(dir, name), bytes);
  put('photo.jpg', await photo(900, 600).jpeg({ quality: 90 }).toBuffer());
  put('icon.png', await photo(20, 20).png().toBuffer());
  put('card.vcf', documents()['card.vcf']!.bytes);
  put('page.html', documents()['page.html']!.bytes);
  put('bomb.png', (await hostile())['bomb.png']!.bytes);
  put('nothing.jpg', Buffer.alloc(0));
  put(
    'postcard.yaml',
    Buffer.from(
      'carriers:\n  - { name: north, type: mm7, url: "http://mmsc.example/mm7", transferEncoding: base64, profile: image-rich }\n',
    ),
  );
});
afterAll(() => rmSync(dir, { recursive: true }));

async function typed(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: '', err: '' };
  const code = await run(['media', ...args], {
    out: (text) => {
      said.out += text;
    },
    err: (text) => {
      said.err += text;
    },
    env: {},
    cwd: dir,
    tty: false,
    readFile: (path) => readFileSync(path),
    stop: new AbortController().signal,
  });
  return { code, ...said };
}

describe('postcard media', () => {
  it('shows each file before and after, and writes what would be sent', async () => {
    const ran = await typed('photo.jpg', 'icon.png', 'card.vcf', '--profile', 'image-rich', '--out', 'sent');
    expect([ran.code, ran.err]).toEqual([0, '']);
    const [head, photoLine, iconLine, cardLine, total] = ran.out.split('\n');
    expect(head).toMatch(/^FILE +IS +IS SENT$/);
    expect(photoLine).toMatch(/^photo\.jpg +image\/jpeg 900x600, \d+ bytes +image\/jpeg 640x427, \d+ bytes$/);
    expect(iconLine).toMatch(/^icon\.png +image\/png 20x20, \d+ bytes +image\/jpeg 20x20, \d+ bytes$/);
    expect(cardLine).toMatch(/^card\.vcf +text\/vcard, \d+ bytes +as it is$/);
    expect(total).toMatch(/^at most \d+ bytes .* \d+ % of 102400 \(image-rich, binary\)$/);
    const sent = (name: string): Buffer => readFileSync(join(dir, 'sent', name));
    expect(await sharp(sent('photo.jpg')).metadata()).toMatchObject({ format: 'jpeg', width: 640 });
    expect(await sharp(sent('icon.jpg')).metadata()).toMatchObject({ format: 'jpeg', width: 20 });
    expect(sent('card.vcf')).toEqual(documents()['card.vcf']!.bytes);
  });

  it('knows the profile of a configured carrier', async () => {
    const { code, out } = await typed('photo.jpg', '--profile', 'north', '-o', 'ndjson');
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ profile: 'north', ok: true, limit: 100 * 1024, parts: [{ same: false }] });
  });

  it.each([
    ['bomb.png', 'bomb.png: 65535x65535x1 pixels are more than 100000000', 15013],
    ['page.html', 'page.html: text/html is not taken', 15013],
  ])('says why it cannot be sent, writes nothing and ends with 1: %s', async (file, words, error) => {
    const { code, err } = await typed(file, 'icon.png', '--out', 'never');
    expect(code).toBe(1);
    expect(err).toBe(`postcard: it cannot be sent: ${words} (${error} EC_MMS_CONTENT_BLOCKED_BY_OPERATOR)\n`);
    expect(existsSync(join(dir, 'never'))).toBe(false);
  });

  it('names a file that is not there, is empty or a presentation, and a profile that is none', async () => {
    expect((await typed('nothing.jpg')).err).toBe('postcard: nothing.jpg: is empty\n');
    expect((await typed('show.smil', 'icon.png')).err).toMatch(/^postcard: show\.smil: is a presentation; /);
    expect((await typed('gone.jpg')).err).toBe('postcard: gone.jpg: cannot be read (ENOENT)\n');
    expect((await typed('icon.png', '--profile', 'best')).err).toMatch(
      /best is unknown; known are any, .*1m, north\n$/,
    );
  });
});
