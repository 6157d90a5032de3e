/**
 * Files of every kind that content may be, made here: whole, odd, broken and hostile. Pictures by sharp, sounds and films by the
 * system's ffmpeg where there is one, the rest by hand. The same on every run; free of anybody's rights.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32, deflateRawSync, deflateSync } from 'node:zlib';
import sharp, { type Sharp } from 'sharp';

/** A file, by what it is and what somebody may call it. */
export interface Sample {
  contentType: string;
  bytes: Buffer;
}

/** Noise over a slope: what is hard to compress, and never the same twice with another seed. */
function photoPixels(width: number, height: number, seed = 1): Buffer {
  const data = Buffer.alloc(width * height * 3);
  let state = seed;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    data[i] = (((Math.floor(i / 3) % width) * 180) / width + ((state >> 16) & 63)) & 255;
  }
  return data;
}

/** A picture with much detail. */
export function photo(width: number, height: number, seed = 1): Sharp {
  return sharp(photoPixels(width, height, seed), { raw: { width, height, channels: 3 } });
}

const drawing = (width: number, height: number): Sharp =>
  sharp({ create: { width, height, channels: 3, background: '#0a7' } }).composite([
    { input: { create: { width: width / 2, height: height / 2, channels: 3, background: '#fc0' } } },
  ]);

/** Frames that differ, `frames` x 80 ms. */
export function moving(width: number, height: number, frames: number): Sharp {
  const data = Buffer.concat(Array.from({ length: frames }, (_, n) => photoPixels(width, height, n + 1)));
  return sharp(data, { raw: { width, height: height * frames, channels: 3, pageHeight: height } });
}

const delays = (frames: number): { delay: number[]; loop: number } => ({ delay: Array(frames).fill(80), loop: 0 });

/** A place, as cameras write it. */
const HERE = { IFD3: { GPSLatitudeRef: 'N', GPSLatitude: '52/1 31/1 0/1' }, IFD0: { Make: 'Camera of somebody' } };

/** Pictures that a reader can read. */
export async function pictures(): Promise<Record<string, Sample>> {
  const of = async (contentType: string, image: Sharp): Promise<Sample> => ({
    contentType,
    bytes: await image.toBuffer(),
  });
  return {
    'photo.jpg': await of('image/jpeg', photo(640, 480).jpeg({ quality: 80 })),
    'large.jpg': await of('image/jpeg', photo(1300, 975).jpeg({ quality: 90 })),
    'turned.jpg': await of('image/jpeg', photo(400, 300).withExif(HERE).withMetadata({ orientation: 6 }).jpeg()),
    'placed.jpg': await of('image/jpeg', photo(400, 300).withExif(HERE).jpeg()),
    'cmyk.jpg': await of('image/jpeg', photo(300, 200).toColourspace('cmyk').jpeg()),
    'progressive.jpg': await of('image/jpeg', photo(300, 200).jpeg({ progressive: true })),
    'grey.jpg': await of('image/jpeg', photo(300, 200).toColourspace('b-w').jpeg()),
    'drawing.png': await of('image/png', drawing(800, 600).png()),
    'alpha.png': await of('image/png', photo(500, 400).ensureAlpha(0.4).png()),
    'opaque.png': await of('image/png', photo(500, 400).ensureAlpha(1).png()),
    'deep.png': await of('image/png', photo(300, 200).toColourspace('rgb16').png()),
    'interlaced.png': await of('image/png', photo(300, 200).png({ progressive: true })),
    'palette.png': await of('image/png', photo(300, 200).png({ palette: true, effort: 1 })),
    'still.gif': await of('image/gif', photo(200, 150).gif({ effort: 1 })),
    'moving.gif': await of('image/gif', moving(240, 180, 12).gif({ ...delays(12), effort: 1 })),
    'photo.webp': await of('image/webp', photo(500, 400).webp()),
    'moving.webp': await of('image/webp', moving(120, 90, 6).webp(delays(6))),
    'photo.avif': await of('image/avif', photo(300, 200).avif({ effort: 0 })),
    'scan.tiff': await of('image/tiff', photo(300, 200).tiff({ compression: 'lzw' })),
    'plain.bmp': { contentType: 'image/bmp', bytes: bmp(120, 80) },
  };
}

function bmp(width: number, height: number): Buffer {
  const stride = Math.ceil((width * 3) / 4) * 4;
  const bytes = Buffer.alloc(54 + stride * height);
  bytes.write('BM');
  bytes.writeUInt32LE(bytes.length, 2);
  bytes.writeUInt32LE(54, 10);
  bytes.writeUInt32LE(40, 14);
  bytes.writeInt32LE(width, 18);
  bytes.writeInt32LE(height, 22);
  bytes.writeUInt16LE(1, 26);
  bytes.writeUInt16LE(24, 28);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) bytes[54 + y * stride + x * 3 + 2] = 2 * x;
  return bytes;
}

/** Chunks of a PNG whose head may say what its data do not hold. */
function png(width: number, height: number, data: Buffer): Buffer {
  const chunk = (name: string, body: Buffer): Buffer => {
    const whole = Buffer.concat([Buffer.from(name, 'latin1'), body]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(body.length);
    sum.writeUInt32BE(crc32(whole));
    return Buffer.concat([length, whole, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  const mark = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([mark, chunk('IHDR', head), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))]);
}

/** What must not harm anybody: broken, lying, swollen, of two kinds at once. */
export async function hostile(): Promise<Record<string, Sample>> {
  const jpeg = await photo(300, 200).jpeg().toBuffer();
  const gif = await photo(40, 30).gif({ effort: 1 }).toBuffer();
  const zip = zipBomb();
  const broken = Buffer.from(jpeg);
  for (let at = jpeg.length / 3; at < jpeg.length; at += 97) broken[Math.floor(at)] = 0xff;
  return {
    'truncated.jpg': { contentType: 'image/jpeg', bytes: jpeg.subarray(0, jpeg.length / 2) },
    'broken.jpg': { contentType: 'image/jpeg', bytes: broken },
    'only a head.png': { contentType: 'image/png', bytes: png(100, 100, Buffer.alloc(0)) },
    'bomb.png': {
      contentType: 'image/png',
      bytes: png(65_535, 65_535, deflateSync(Buffer.alloc(1024 * 1024), { level: 9 })),
    },
    'wide.png': { contentType: 'image/png', bytes: png(2_000_000, 60, deflateSync(Buffer.alloc(1024 * 1024))) },
    'tall.bmp': { contentType: 'image/bmp', bytes: tallBmp() },
    'script.svg': {
      contentType: 'image/svg+xml',
      bytes: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
    },
    'disguised.jpg': {
      contentType: 'image/jpeg',
      bytes: Buffer.from('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'),
    },
    'page.jpg': { contentType: 'image/jpeg', bytes: Buffer.from('<!doctype html><title>Log in</title>') },
    'bomb.zip': { contentType: 'application/zip', bytes: zip },
    'zip called.jpg': { contentType: 'image/jpeg', bytes: zip },
    'gif and script.gif': { contentType: 'image/gif', bytes: Buffer.concat([gif, Buffer.from('*/=1;alert(1)')]) },
    'jpg and zip.jpg': { contentType: 'image/jpeg', bytes: Buffer.concat([jpeg, zip]) },
    'pdf called.png': { contentType: 'image/png', bytes: documents()['paper.pdf']!.bytes },
    'nothing.jpg': { contentType: 'image/jpeg', bytes: Buffer.alloc(0) },
  };
}

function tallBmp(): Buffer {
  const bytes = bmp(4, 4);
  bytes.writeInt32LE(0x7fffffff, 22);
  return bytes;
}

/** One entry of 64 MiB zeros in 64 KiB. */
function zipBomb(): Buffer {
  const size = 64 * 1024 * 1024;
  const data = deflateRawSync(Buffer.alloc(size), { level: 9 });
  const head = Buffer.alloc(30);
  head.writeUInt32LE(0x04034b50, 0);
  head.writeUInt16LE(20, 4);
  head.writeUInt16LE(8, 8);
  head.writeUInt32LE(data.length, 18);
  head.writeUInt32LE(size, 22);
  head.writeUInt16LE(1, 26);
  return Buffer.concat([head, Buffer.from('a'), data]);
}

/** What is no picture, sound or film. */
export function documents(): Record<string, Sample> {
  const of = (contentType: string, text: string): Sample => ({ contentType, bytes: Buffer.from(text) });
  return {
    'text.txt': of('text/plain; charset=utf-8', 'Grüße 😀'),
    'card.vcf': of('text/vcard', 'BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ada Example\r\nTEL:+441134960000\r\nEND:VCARD\r\n'),
    'date.ics': of(
      'text/calendar',
      'BEGIN:VCALENDAR\r\nVERSION:2.0\r\nBEGIN:VEVENT\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n',
    ),
    'paper.pdf': of('application/pdf', '%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n'),
    'page.html': of('text/html', '<!doctype html><title>A page</title>'),
  };
}

/** Speech by hand: `seconds` of AMR frames at 12.2 kbit/s. */
export function amr(seconds: number): Sample {
  const frame = Buffer.alloc(32, 0x55);
  frame[0] = 0x3c;
  const frames = Array<Buffer>(seconds * 50).fill(frame);
  return { contentType: 'audio/amr', bytes: Buffer.concat([Buffer.from('#!AMR\n', 'latin1'), ...frames]) };
}

/** Why sounds and films cannot be tested here, null = they can. */
export function noFfmpeg(): string | null {
  try {
    execFileSync('ffmpeg', ['-version'], { stdio: 'ignore' });
    return null;
  } catch {
    return 'no ffmpeg on this machine: sounds and films are not tested';
  }
}

/** Sounds and films by ffmpeg, `seconds` each. */
export function films(seconds: number): Record<string, Sample> {
  const picture = ['-f', 'lavfi', '-i', `testsrc2=size=640x480:rate=25:duration=${seconds}`];
  const sound = ['-f', 'lavfi', '-i', `sine=frequency=440:duration=${seconds}`];
  const h264 = ['-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-b:v', '1500k'];
  const kinds: Record<string, [string, string[]]> = {
    'clip.mp4': ['video/mp4', [...picture, ...sound, ...h264, '-c:a', 'aac', '-b:a', '64k']],
    'silent.mp4': ['video/mp4', [...picture, ...h264]],
    'old.3gp': [
      'video/3gpp',
      [
        ...picture,
        ...sound,
        '-vf',
        'scale=176:144',
        '-c:v',
        'h263',
        '-b:v',
        '64k',
        '-c:a',
        'aac',
        '-ac',
        '1',
        '-b:a',
        '24k',
      ],
    ],
    'tone.wav': ['audio/wav', [...sound, '-ar', '44100']],
    'tone.mp3': ['audio/mpeg', [...sound, '-c:a', 'libmp3lame', '-b:a', '128k']],
    'tone.aac': ['audio/aac', [...sound, '-c:a', 'aac', '-b:a', '96k', '-f', 'adts']],
  };
  const dir = mkdtempSync(join(tmpdir(), 'postcard-corpus-'));
  try {
    const made: Record<string, Sample> = {};
    for (const [name, [contentType, args]] of Object.entries(kinds)) {
      execFileSync('ffmpeg', ['-v', 'error', '-y', ...args, join(dir, name)], { stdio: 'ignore' });
      made[name] = { contentType, bytes: readFileSync(join(dir, name)) };
    }
    return made;
  } finally {
    rmSync(dir, { recursive: true });
  }
}
