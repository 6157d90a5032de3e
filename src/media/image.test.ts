/** Pictures of every kind against every kind of want: what comes out is read again and looked at. */
import { crc32 } from 'node:zlib';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { hostile, moving, photo, pictures, type Sample } from '../../test/corpus/corpus.ts';
import { fitImage, type ImageWant, type Made } from './image.ts';

const USUAL: ImageWant = {
  types: ['image/jpeg', 'image/png', 'image/gif'],
  width: 640,
  height: 480,
  most: 60_000,
  aim: 57_000,
};
const ROOMY: ImageWant = { ...USUAL, width: 4000, height: 4000, most: 10_000_000, aim: 10_000_000 };

let good: Record<string, Sample>;
let bad: Record<string, Sample>;

beforeAll(async () => {
  good = await pictures();
  bad = await hostile();
});

const bytesOf = (name: string): Buffer => (good[name] ?? bad[name] ?? expect.fail(name)).bytes;

async function made(bytes: Uint8Array, want: ImageWant): Promise<Extract<Made, { kind: 'made' }>> {
  const result = await fitImage(bytes, want);
  if (result.kind !== 'made') expect.fail(JSON.stringify(result));
  return result;
}

describe('a picture that fits', () => {
  it.each(['photo.jpg', 'progressive.jpg', 'grey.jpg', 'drawing.png', 'alpha.png', 'still.gif', 'moving.gif'])(
    'is left as it is: %s',
    async (name) => {
      const result = await fitImage(bytesOf(name), ROOMY);
      expect(result.kind).toBe('same');
    },
  );

  it('is left as it is to the last byte of the limit, and reduced one below', async () => {
    const bytes = bytesOf('photo.jpg');
    const want = { ...USUAL, most: bytes.length, aim: Math.floor(bytes.length * 0.95) };
    expect((await fitImage(bytes, want)).kind).toBe('same');
    const less = await made(bytes, { ...want, most: bytes.length - 1 });
    expect(less.bytes.length).toBeLessThanOrEqual(want.aim);
  });

  it('loses the texts of a PNG and what follows its end, and no pixel', async () => {
    const plain = bytesOf('drawing.png');
    const chunk = (type: string, data: string): Buffer => {
      const body = Buffer.from(type + data, 'latin1');
      const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
      length.writeUInt32BE(data.length);
      sum.writeUInt32BE(crc32(body));
      return Buffer.concat([length, body, sum]);
    };
    const texts = [chunk('tEXt', 'Location\x0051.5,-0.1'), chunk('tIME', '\x07\xea\x01\x01\x01\x01\x01')];
    const telling = Buffer.concat([plain.subarray(0, 33), ...texts, plain.subarray(33), Buffer.from('more')]);
    const { bytes, contentType, from, to } = await made(telling, { ...ROOMY, most: plain.length });
    expect(Buffer.compare(bytes, plain)).toBe(0);
    expect(contentType).toBe('image/png');
    expect([from.bytes, to.bytes]).toEqual([telling.length, plain.length]);
  });

  it('may stand upright in a box that lies', async () => {
    const upright = await photo(480, 640).jpeg({ quality: 50 }).toBuffer();
    expect((await fitImage(upright, { ...ROOMY, width: 640, height: 480 })).kind).toBe('same');
  });
});

describe('a picture that does not fit', () => {
  it('becomes what is near to the aim and never over it, whatever it is', async () => {
    for (const name of Object.keys(good)) {
      for (const most of [60_000, 12_000, 3_000]) {
        const result = await fitImage(bytesOf(name), { ...USUAL, most, aim: Math.floor(most * 0.95) });
        if (result.kind === 'same') expect(bytesOf(name).length).toBeLessThanOrEqual(most);
        else {
          if (result.kind !== 'made') expect.fail(`${name} at ${most}: ${JSON.stringify(result)}`);
          expect(result.bytes.length, `${name} at ${most}`).toBeLessThanOrEqual(most * 0.95);
          const meta = await sharp(result.bytes).metadata();
          expect(USUAL.types).toContain(result.contentType);
          expect(`image/${meta.format}`).toBe(result.contentType);
          expect(Math.max(meta.width, meta.height)).toBeLessThanOrEqual(640);
          expect(Math.min(meta.width, meta.height)).toBeLessThanOrEqual(480);
        }
      }
    }
  }, 120_000);

  it('uses most of what it may', async () => {
    for (const most of [200_000, 60_000, 20_000]) {
      const { bytes } = await made(bytesOf('large.jpg'), { ...ROOMY, most, aim: most * 0.95 });
      expect(bytes.length).toBeGreaterThan(most * 0.7);
    }
  });

  it('is turned as its camera said, and forgets the camera and the place', async () => {
    for (const name of ['turned.jpg', 'placed.jpg']) {
      const before = await sharp(bytesOf(name)).metadata();
      expect(before.exif?.includes('Camera of somebody')).toBe(true);
      const { bytes, to } = await made(bytesOf(name), ROOMY);
      expect([to.width, to.height]).toEqual(name === 'turned.jpg' ? [300, 400] : [400, 300]);
      const after = await sharp(bytes).metadata();
      expect(after.exif).toBeUndefined();
      expect(after.orientation).toBeUndefined();
      expect(Buffer.from(bytes).includes('Camera of somebody')).toBe(false);
    }
  });

  it('has three colours of 8 bits', async () => {
    for (const name of ['cmyk.jpg', 'deep.png']) {
      const meta = await sharp((await made(bytesOf(name), ROOMY)).bytes).metadata();
      expect([meta.space, meta.depth]).toEqual(['srgb', 'uchar']);
    }
  });

  it('keeps its transparency as PNG, and stands on white where only JPEG is taken', async () => {
    const png = await made(bytesOf('alpha.png'), USUAL);
    expect(png.contentType).toBe('image/png');
    expect((await sharp(png.bytes).metadata()).hasAlpha).toBe(true);
    const clear = await sharp({
      create: { width: 40, height: 40, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } },
    })
      .png()
      .toBuffer();
    const jpeg = await made(clear, { ...USUAL, types: ['image/jpeg'] });
    expect([...(await sharp(jpeg.bytes).raw().toBuffer()).subarray(0, 3)]).toEqual([255, 255, 255]);
  });

  it('becomes a GIF where PNG is not taken and nothing is half transparent', async () => {
    const hole = { create: { width: 20, height: 20, channels: 4, background: '#fff' } } as const;
    const hard = await photo(60, 40)
      .ensureAlpha(1)
      .composite([{ input: hole, blend: 'dest-out' }])
      .png()
      .toBuffer();
    const types = ['image/jpeg', 'image/gif'];
    expect((await made(hard, { ...USUAL, types })).contentType).toBe('image/gif');
    expect((await made(bytesOf('alpha.png'), { ...USUAL, types })).contentType).toBe('image/jpeg');
  });

  it('becomes a JPEG where its transparency is none', async () => {
    expect((await made(bytesOf('opaque.png'), USUAL)).contentType).toBe('image/jpeg');
  });

  it.each(['photo.webp', 'photo.avif', 'scan.tiff'])(
    'becomes a baseline JPEG where its type is not taken: %s',
    async (name) => {
      const { bytes, contentType } = await made(bytesOf(name), { ...ROOMY, types: ['image/jpeg'] });
      expect(contentType).toBe('image/jpeg');
      expect((await sharp(bytes).metadata()).isProgressive).toBe(false);
    },
  );

  it('is read from BMP with its colours in place', async () => {
    const { bytes } = await made(bytesOf('plain.bmp'), { ...ROOMY, types: ['image/png'] });
    const { data, info } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true });
    expect([info.width, info.height]).toEqual([120, 80]);
    expect([...data.subarray(100 * 3, 101 * 3)]).toEqual([200, 0, 0]);
  });

  it('is refused where no type that it could become is taken', async () => {
    const result = await fitImage(bytesOf('photo.jpg'), { ...ROOMY, types: ['image/vnd.wap.wbmp'] });
    expect(result).toMatchObject({ kind: 'refused', why: 'type' });
  });

  it('is refused where it would have to be smaller than a picture can be', async () => {
    const result = await fitImage(bytesOf('large.jpg'), { ...USUAL, most: 150, aim: 150 });
    expect(result).toMatchObject({ kind: 'refused', why: 'size' });
  });
});

describe('a moving GIF', () => {
  it('goes on moving at the same pace with fewer frames and pixels', async () => {
    const gif = bytesOf('moving.gif');
    for (const most of [gif.length * 0.7, gif.length * 0.3, gif.length * 0.1]) {
      const { bytes, to } = await made(gif, { ...ROOMY, most, aim: most * 0.95 });
      const meta = await sharp(bytes, { animated: true }).metadata();
      expect(bytes.length).toBeLessThanOrEqual(most * 0.95);
      expect(meta.pages).toBe(to.frames);
      expect(meta.pages).toBeGreaterThan(1);
      expect(meta.delay?.reduce((sum, one) => sum + one, 0)).toBe(12 * 80);
      expect(meta.loop).toBe(0);
    }
  });

  it('stands still rather than be a stamp', async () => {
    const { bytes, to } = await made(bytesOf('moving.gif'), { ...ROOMY, most: 4_000, aim: 3_800 });
    expect((await sharp(bytes, { animated: true }).metadata()).pages ?? 1).toBe(1);
    expect(to.width).toBeGreaterThan(80);
  });

  it('is one picture where only JPEG is taken', async () => {
    expect((await made(bytesOf('moving.gif'), { ...ROOMY, types: ['image/jpeg'] })).contentType).toBe('image/jpeg');
  });

  it('is refused with too many frames', async () => {
    const gif = await moving(2, 2, 1_100).gif({ effort: 1, keepDuplicateFrames: true }).toBuffer();
    expect(await fitImage(gif, ROOMY)).toMatchObject({ kind: 'refused', words: expect.stringContaining('frames') });
  });
});

describe('what is broken or hostile', () => {
  it('is refused in words, and quickly', async () => {
    for (const name of [
      'truncated.jpg',
      'only a head.png',
      'bomb.png',
      'wide.png',
      'tall.bmp',
      'script.svg',
      'nothing.jpg',
    ]) {
      const result = await fitImage(bytesOf(name), ROOMY);
      expect(result, name).toMatchObject({ kind: 'refused' });
      if (result.kind === 'refused') expect(result.words).not.toMatch(/[\r\n/]{2}|node_modules/);
    }
  });

  it('is not decoded when its head announces too much', async () => {
    const before = process.memoryUsage.rss();
    expect(await fitImage(bytesOf('bomb.png'), ROOMY)).toMatchObject({
      why: 'type',
      words: expect.stringContaining('65535x65535'),
    });
    expect(process.memoryUsage.rss() - before).toBeLessThan(100_000_000);
  });

  it('is one thing only once it was made anew', async () => {
    for (const name of ['jpg and zip.jpg', 'gif and script.gif']) {
      const { bytes } = await made(bytesOf(name), { ...ROOMY, width: 30, height: 30 });
      expect(Buffer.from(bytes).includes('PK\x03\x04')).toBe(false);
      expect(Buffer.from(bytes).includes('alert')).toBe(false);
    }
  });

  it('never rejects, whichever byte of a picture is wrong', async () => {
    let seed = 99;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
      return (seed >> 8) % below;
    };
    for (const name of ['photo.jpg', 'palette.png', 'still.gif', 'photo.webp', 'scan.tiff', 'plain.bmp']) {
      for (let n = 0; n < 12; n++) {
        const bytes = Buffer.from(bytesOf(name));
        for (let k = 0; k < 4; k++) bytes[random(n < 6 ? 200 : bytes.length)] = random(256);
        const result = await fitImage(bytes, USUAL);
        if (result.kind === 'made') expect(result.bytes.length).toBeLessThanOrEqual(USUAL.most);
      }
    }
  });
});
