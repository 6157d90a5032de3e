/**
 * One picture made to fit: turned as its EXIF says, free of EXIF, XMP, IPTC and PNG's texts (they tell where and with what it was taken),
 * in a type that is taken, within pixels and bytes. Runs in a child process (`fit-worker.ts`): decoders of foreign bytes are
 * where such programs are attacked.
 *
 * Promises: what needs no change is not changed (`same`). What is made is never larger than `most`, and comes near to `aim` where
 * it had to be reduced: first quality, then pixels; a moving GIF gives up colours, then frames, then pixels, and stands still
 * only where nothing else fits. Transparency is kept where PNG is taken (or GIF, where nothing is half transparent), else laid on white. Decoded are JPEG, PNG, GIF,
 * WebP, AVIF, TIFF and BMP, nothing else; a head that announces more than MAX_PIXELS is refused before decoding.
 *
 * Fails: what cannot be read or made small enough is a value with words.
 */
import sharp, { type Sharp, type SharpOptions } from 'sharp';

/** What a picture must become. Types in lower case; bytes before any transfer encoding. */
export interface ImageWant {
  /** Image types that are taken, of OUTPUTS and others. */
  types: string[];
  /** The longer side counts against the larger of both. */
  width: number;
  height: number;
  /** Never more than this. */
  most: number;
  /** Reduced pictures come near to this; at most `most`. */
  aim: number;
}

/** What a picture, sound or film is, for people. */
export interface Facts {
  type: string;
  bytes: number;
  width?: number;
  height?: number;
  /** Of a moving picture. */
  frames?: number;
  seconds?: number;
}

/** What became of it. `broken`: cannot be read; `type`: not taken, or must not be read; `size`: cannot be made small enough. */
export type Made =
  | { kind: 'same'; from: Facts }
  | { kind: 'made'; bytes: Uint8Array; contentType: string; from: Facts; to: Facts }
  | { kind: 'refused'; why: Why; words: string; from?: Facts };

export type Why = 'broken' | 'type' | 'size';

/** In one picture, or in all frames of one together: a decoded pixel takes 4 bytes. */
const MAX_PIXELS = 100_000_000;
const TOO_MANY = `pixels are more than ${MAX_PIXELS}`;
const MAX_FRAMES = 1_000;
/** For one encoding. */
const STEP_SECONDS = 15;
/** Encodings tried for one picture. */
const PROBES = 9;
/** A result between this part of the aim and the aim is good enough, and after some tries one from the second on. */
const NEAR = 0.9;
const ENOUGH = 0.75;
/** A moving picture that would have less of its width than this stands still rather. */
const LEAST_MOVING = 0.35;
/** Pictures are not made smaller than this on their longer side. */
const LEAST_SIDE = 16;

const FORMATS: Record<string, string> = {
  jpeg: 'image/jpeg',
  png: 'image/png',
  gif: 'image/gif',
  webp: 'image/webp',
  heif: 'image/avif',
  tiff: 'image/tiff',
};

type Refused = Extract<Made, { kind: 'refused' }>;

let guarded = false;

/** Only these decoders may run: others (SVG, PDF, raw files of cameras) can reach files or were not looked at. */
function guard(): void {
  if (guarded) return;
  guarded = true;
  sharp.block({ operation: ['VipsForeignLoad'] });
  sharp.unblock({
    operation: ['Jpeg', 'Png', 'Nsgif', 'Webp', 'Heif', 'Tiff'].map((name) => `VipsForeignLoad${name}`),
  });
  sharp.concurrency(1);
  sharp.cache(false);
}

/** Chunks of a PNG that hold words, or when it was made. */
const TEXTS = new Set(['tEXt', 'zTXt', 'iTXt', 'tIME']);

/** Whether it was a picture that this file can read, its head said. */
interface Head {
  facts: Facts;
  input: { bytes: Uint8Array; options: SharpOptions };
  /** Without texts that stand beside the pixels; the picture's own bytes where it has none. */
  bare: Uint8Array;
  hasAlpha: boolean;
  /** In this form it may go out: not turned, no metadata, 8 bit, three colours. */
  plain: boolean;
  delay: number[];
  loop: number;
}

/** Makes a picture fit. Never rejects for what is wrong with it. */
export async function fitImage(bytes: Uint8Array, want: ImageWant): Promise<Made> {
  guard();
  const head = await readHead(bytes).catch((error: unknown) => refusal('broken', `cannot be read: ${said(error)}`));
  if ('kind' in head) return head;
  const from = head.facts;
  const refused = (why: Why, words: string): Made => ({ kind: 'refused', why, words, from });
  const box = boxFor(from, want);
  const taken = want.types.includes(from.type);
  const small = (from.width ?? 0) <= box.width && (from.height ?? 0) <= box.height;
  try {
    if (taken && head.plain && small && head.bare.byteLength <= want.most) {
      // To the last byte: half a picture is not what was meant.
      await open(head, true).resize(8, 8, { fit: 'inside' }).raw().toBuffer();
      if (head.bare === bytes) return { kind: 'same', from };
      const to = { ...from, bytes: head.bare.byteLength };
      return { kind: 'made', bytes: head.bare, contentType: from.type, from, to };
    }
    const made = await make(head, want, box);
    if (made === null) return refused('type', `${from.type} is not taken, and no other type that it could become`);
    if (made.bytes.byteLength > want.most) {
      return refused('size', `${from.type} cannot be made smaller than ${made.bytes.byteLength} bytes`);
    }
    return { kind: 'made', ...made, from };
  } catch (error) {
    return refused('broken', `${from.type} cannot be read: ${said(error)}`);
  }
}

/** One line of what a library says, without paths. */
function said(error: unknown): string {
  const [line = ''] = (error instanceof Error ? error.message : String(error)).split('\n');
  return line.replace(/\/[^\s:]+/g, '...').slice(0, 150);
}

function refusal(why: Why, words: string): Refused {
  return { kind: 'refused', why, words };
}

async function readHead(bytes: Uint8Array): Promise<Head | Refused> {
  if (bytes[0] === 0x42 && bytes[1] === 0x4d) return readBmp(bytes);
  const options: SharpOptions = { limitInputPixels: false, failOn: 'error', animated: true, sequentialRead: true };
  const meta = await sharp(bytes, options).metadata();
  const type = FORMATS[meta.format];
  if (type === undefined) return refusal('broken', `${meta.format} is not read`);
  // Pages of a TIFF are sheets of paper; of the others that can move, frames.
  const frames = type === 'image/tiff' ? 1 : (meta.pages ?? 1);
  const height = meta.pageHeight ?? meta.height;
  const { width } = meta;
  if (frames > MAX_FRAMES) return refusal('type', `${frames} frames are more than ${MAX_FRAMES}`);
  if (width * height * frames > MAX_PIXELS) return refusal('type', `${width}x${height}x${frames} ${TOO_MANY}`);
  const turned = (meta.orientation ?? 1) >= 5;
  const facts: Facts = {
    type,
    bytes: bytes.byteLength,
    width: turned ? height : width,
    height: turned ? width : height,
    ...(frames > 1 ? { frames } : {}),
  };
  const plain =
    (meta.orientation ?? 1) === 1 &&
    meta.exif === undefined &&
    meta.xmp === undefined &&
    meta.iptc === undefined &&
    meta.tifftagPhotoshop === undefined &&
    (meta.depth === 'uchar' || type === 'image/avif') &&
    meta.space !== 'cmyk';
  return {
    facts,
    input: { bytes, options: { ...options, limitInputPixels: MAX_PIXELS + 1, animated: frames > 1 } },
    bare: type === 'image/png' ? withoutTexts(bytes) : bytes,
    hasAlpha: meta.hasAlpha === true,
    plain,
    delay: meta.delay ?? [],
    loop: meta.loop ?? 0,
  };
}

/** A PNG without its text chunks and what follows its end; the bytes themselves where there is nothing to leave out. */
function withoutTexts(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kept = [bytes.subarray(0, 8)];
  let size = 8;
  for (let at = 8; at + 12 <= bytes.byteLength; ) {
    const end = at + 12 + view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    // What is not well-formed is the decoder's affair.
    if (end > bytes.byteLength) return bytes;
    if (!TEXTS.has(type)) {
      kept.push(bytes.subarray(at, end));
      size += end - at;
    }
    if (type === 'IEND') return size === bytes.byteLength ? bytes : Buffer.concat(kept);
    at = end;
  }
  return bytes;
}

function open(head: Head, moving: boolean): Sharp {
  const { bytes, options } = head.input;
  return sharp(bytes, { ...options, animated: moving && head.facts.frames !== undefined })
    .timeout({ seconds: STEP_SECONDS })
    .autoOrient();
}

interface Box {
  width: number;
  height: number;
}

/** Upright pictures stand in an upright box. */
function boxFor(facts: Facts, want: { width: number; height: number }): Box {
  const [long, short] = [Math.max(want.width, want.height), Math.min(want.width, want.height)];
  return (facts.width ?? 0) >= (facts.height ?? 0) ? { width: long, height: short } : { width: short, height: long };
}

// ---------------------------------------------------------------------------------------------------------- what it becomes

interface Result {
  bytes: Uint8Array;
  contentType: string;
  to: Facts;
}

/** A way to encode: `level` 1 = as good as can be, towards 0 = ever smaller. */
interface Way {
  type: string;
  /** Where pixels begin to go, and what part of the bytes is left there, by experience. */
  scaled: number;
  gain: number;
  encode(level: number): Promise<Result>;
}

/** Null = no type that it could become is taken. What is returned may be too large: the smallest that could be made. */
async function make(head: Head, want: ImageWant, box: Box): Promise<Result | null> {
  const takes = (type: string): boolean => want.types.includes(type);
  const { type, frames } = head.facts;
  const moving = frames !== undefined;
  let smallest: Result | null = null;
  let moved: Result | null = null;
  const attempt = async (way: Way): Promise<Result | null> => {
    const result = await search(way, want);
    if (result.bytes.byteLength <= want.most) return result;
    if (!smallest || result.bytes.byteLength < smallest.bytes.byteLength) smallest = result;
    return null;
  };
  if (moving && (takes('image/gif') || (takes(type) && type === 'image/webp'))) {
    const kind = takes('image/gif') ? 'image/gif' : type;
    const whole = await decodeMoving(head, { ...box, fit: 'inside' });
    moved = await attempt(movingWay(whole, head, kind));
    if (moved && (moved.to.width ?? 0) >= whole.width * LEAST_MOVING) return moved;
  }
  const still = await decodeStill(head, box);
  // Drawings and screens stay what they are while that fits; above it a photograph does with less.
  const lossless = type === 'image/png' || type === 'image/gif' || type === 'image/bmp';
  const kinds: string[] = [];
  const add = (kind: string): void => {
    if (takes(kind) && !kinds.includes(kind)) kinds.push(kind);
  };
  if (still.alpha) for (const kind of ['image/png', 'image/webp', ...(still.hard ? ['image/gif'] : [])]) add(kind);
  else if (lossless && takes('image/png')) {
    const whole = await pngWay(still, false).encode(1);
    if (whole.bytes.byteLength <= Math.min(want.aim, want.most)) return whole;
  }
  for (const kind of ['image/jpeg', 'image/png', 'image/gif', 'image/webp']) add(kind);
  for (const kind of kinds) {
    const fits = await attempt(WAYS[kind]!(still));
    if (fits) return fits;
  }
  return moved ?? smallest;
}

const WAYS: Record<string, (still: Still) => Way> = {
  'image/jpeg': jpegWay,
  'image/png': (still) => pngWay(still, true),
  'image/gif': gifWay,
  'image/webp': webpWay,
};

/**
 * The best of a way that is at most `aim` bytes; where none is, its smallest. Guesses by the way's own rule, corrects the guess by
 * what came out, and halves where that leads out of what is known.
 */
async function search(way: Way, want: ImageWant): Promise<Result> {
  const aim = Math.min(want.aim, want.most);
  const goal = aim * (0.5 + NEAR / 2);
  let smallest = await way.encode(1);
  if (smallest.bytes.byteLength <= aim) return smallest;
  let found: Result | null = null;
  let low = { level: 0, log: Number.NaN };
  let high = { level: 1, log: Math.log(smallest.bytes.byteLength) };
  let part = goal / smallest.bytes.byteLength;
  for (let probe = 1; probe < PROBES && high.level - low.level > 0.003; probe++) {
    const between = (Math.log(goal) - low.log) / (high.log - low.log);
    const guess = Number.isNaN(between) ? levelFor(part, way) : low.level + between * (high.level - low.level);
    const inside = guess > low.level && guess < high.level && probe % 4 !== 0;
    const level = inside ? guess : (low.level + high.level) / 2;
    const result = await way.encode(level);
    const size = result.bytes.byteLength;
    if (size < smallest.bytes.byteLength) smallest = result;
    if (size > aim) high = { level, log: Math.log(size) };
    else {
      low = { level, log: Math.log(size) };
      if (!found || size > found.bytes.byteLength) found = result;
      // Frames and colours go in steps: what lies between cannot be had.
      if (size >= aim * (probe < PROBES / 2 ? NEAR : ENOUGH)) break;
    }
    part *= goal / size;
  }
  if (found) return found;
  const last = await way.encode(0);
  return last.bytes.byteLength <= smallest.bytes.byteLength ? last : smallest;
}

/** The level at which about this part of the bytes at level 1 is left: by quality down to `gain`, below it by pixels. */
function levelFor(part: number, { scaled, gain }: Way): number {
  if (part >= gain) return scaled + (1 - scaled) * (1 - Math.log(part) / Math.log(gain));
  return scaled * Math.max(0, 1 + Math.log2(Math.sqrt(part / gain)) / 5);
}

/** Part of the box's sides at a level: 1 above `scaled`, then halved five times. */
function scaleAt(level: number, scaled: number): number {
  return level >= scaled ? 1 : 2 ** (-5 * (1 - level / scaled));
}

/** Where a level stands between `from` and 1. */
function above(level: number, from: number): number {
  return Math.max(0, (level - from) / (1 - from));
}

interface Still {
  data: Buffer;
  width: number;
  height: number;
  channels: 1 | 2 | 3 | 4;
  alpha: boolean;
  /** Nothing is half transparent: a GIF can show it. */
  hard: boolean;
}

async function decodeStill(head: Head, box: Box): Promise<Still> {
  const pipeline = open(head, false)
    .resize({ ...box, fit: 'inside', withoutEnlargement: true })
    .toColourspace('srgb');
  const { data, info } = await pipeline.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  const { width, height } = info;
  const still: Still = { data, width, height, channels: info.channels as Still['channels'], alpha: false, hard: true };
  if (!head.hasAlpha || (info.channels !== 4 && info.channels !== 2)) return still;
  for (let at = info.channels - 1; at < data.length; at += info.channels) {
    if (data[at] === 255) continue;
    still.alpha = true;
    if (data[at] === 0) continue;
    still.hard = false;
    break;
  }
  return still;
}

function scaledStill(still: Still, level: number, scaled: number): Sharp {
  const { data, width, height, channels } = still;
  const image = sharp(data, { raw: { width, height, channels }, limitInputPixels: MAX_PIXELS + 1 }).timeout({
    seconds: STEP_SECONDS,
  });
  const scale = scaleAt(level, scaled);
  return scale === 1 ? image : image.resize(sizes(width, height, scale));
}

function sizes(width: number, height: number, scale: number): { width: number; height: number; fit: 'fill' } {
  const least = Math.min(1, LEAST_SIDE / Math.max(width, height));
  const by = Math.max(scale, least);
  return { width: Math.max(1, Math.round(width * by)), height: Math.max(1, Math.round(height * by)), fit: 'fill' };
}

async function encoded(image: Sharp, contentType: string): Promise<Result> {
  const { data, info } = await image.toBuffer({ resolveWithObject: true });
  const to = { type: contentType, bytes: data.byteLength, width: info.width, height: info.height };
  return { bytes: data, contentType, to };
}

/** Baseline, since old handsets and some gateways show nothing else. */
function jpegWay(still: Still): Way {
  const scaled = 0.5;
  return {
    type: 'image/jpeg',
    scaled,
    gain: 0.35,
    encode(level) {
      const quality = Math.round(62 + 26 * above(level, scaled));
      const image = scaledStill(still, level, scaled);
      if (still.channels === 4 || still.channels === 2) image.flatten({ background: '#ffffff' });
      return encoded(
        image.jpeg({
          quality,
          chromaSubsampling: level >= 1 ? '4:4:4' : '4:2:0',
          trellisQuantisation: true,
          overshootDeringing: true,
          quantisationTable: 3,
          progressive: false,
        }),
        'image/jpeg',
      );
    },
  };
}

/** Without loss at level 1, then with fewer colours, then with fewer pixels. */
function pngWay(still: Still, lossy: boolean): Way {
  const scaled = 0.7;
  return {
    type: 'image/png',
    scaled,
    gain: 0.15,
    encode(level) {
      const image = scaledStill(still, level, scaled);
      if (!still.alpha && (still.channels === 4 || still.channels === 2)) image.removeAlpha();
      if (level >= 1 || !lossy) return encoded(image.png({ compressionLevel: 9 }), 'image/png');
      const colours = Math.round(16 + 240 * above(level, scaled));
      return encoded(image.png({ palette: true, colours, effort: 2, compressionLevel: 9 }), 'image/png');
    },
  };
}

function gifWay(still: Still): Way {
  const scaled = 0.7;
  return {
    type: 'image/gif',
    scaled,
    gain: 0.5,
    encode(level) {
      const colours = Math.round(16 + 240 * above(level, scaled));
      return encoded(scaledStill(still, level, scaled).gif({ colours, effort: 2 }), 'image/gif');
    },
  };
}

function webpWay(still: Still): Way {
  const scaled = 0.5;
  return {
    type: 'image/webp',
    scaled,
    gain: 0.35,
    encode(level) {
      const quality = Math.round(50 + 38 * above(level, scaled));
      return encoded(scaledStill(still, level, scaled).webp({ quality }), 'image/webp');
    },
  };
}

// ------------------------------------------------------------------------------------------------------------ what moves

interface Moving {
  data: Buffer;
  width: number;
  height: number;
  channels: 3 | 4;
}

async function decodeMoving(
  head: Head,
  box: { width: number; height: number; fit: 'inside' | 'fill' },
): Promise<Moving> {
  const pipeline = open(head, true)
    .resize({ ...box, withoutEnlargement: true })
    .toColourspace('srgb');
  const { data, info } = await pipeline.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  const height = info.pageHeight ?? Math.round(info.height / (head.facts.frames ?? 1));
  return { data, width: info.width, height, channels: info.channels === 4 ? 4 : 3 };
}

/** Colours, then every second, third, fourth frame (each shown as long as those it stands for), then pixels. */
function movingWay(whole: Moving, head: Head, type: string): Way {
  const scaled = 0.5;
  const frames = head.facts.frames ?? 1;
  return {
    type,
    scaled,
    gain: 0.15,
    async encode(level) {
      const scale = scaleAt(level, scaled);
      const { data, width, height, channels } =
        scale < 1 ? await decodeMoving(head, sizes(whole.width, whole.height, scale)) : whole;
      const frameBytes = width * height * channels;
      const keep = level > 0.8 ? 1 : level > 0.7 ? 2 : level > 0.6 ? 3 : 4;
      const kept: Buffer[] = [];
      const delay: number[] = [];
      for (let first = 0; first < frames; first += keep) {
        kept.push(data.subarray(first * frameBytes, (first + 1) * frameBytes));
        const shown = head.delay.slice(first, first + keep);
        delay.push(shown.length > 0 ? shown.reduce((sum, one) => sum + one, 0) : 100 * keep);
      }
      const raw = { width, height: height * kept.length, channels, pageHeight: height };
      const input = kept.length === 1 ? (kept[0] as Buffer) : Buffer.concat(kept);
      const image = sharp(input, { raw, limitInputPixels: MAX_PIXELS + 1 }).timeout({ seconds: STEP_SECONDS });
      const how = { delay, loop: head.loop };
      const colours = Math.round(32 + 224 * above(level, 0.8));
      const made = await encoded(
        type === 'image/gif'
          ? image.gif({ ...how, colours, effort: 2, interFrameMaxError: level >= 1 ? 0 : 4 })
          : image.webp({ ...how, quality: Math.round(40 + 45 * above(level, 0.8)) }),
        type,
      );
      return { ...made, to: { ...made.to, height, frames: kept.length } };
    },
  };
}

// ------------------------------------------------------------------------------------------------------------------- BMP

/** Uncompressed BMP of 24 or 32 bits, or 8 with a palette: what is met of it. libvips reads none. */
function readBmp(bytes: Uint8Array): Head | Refused {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < 54) return refusal('broken', 'image/bmp ends too early');
  const [start, size] = [view.getUint32(10, true), view.getUint32(14, true)];
  const [width, rows] = [view.getInt32(18, true), view.getInt32(22, true)];
  const [depth, compression] = [view.getUint16(28, true), view.getUint32(30, true)];
  const height = Math.abs(rows);
  if (size < 40 || compression !== 0 || ![8, 24, 32].includes(depth))
    return refusal('broken', 'image/bmp of a kind that is not read');
  if (width < 1 || height < 1 || width * height > MAX_PIXELS) return refusal('type', `${width}x${height} ${TOO_MANY}`);
  const stride = Math.ceil((width * depth) / 32) * 4;
  if (start + stride * height > bytes.byteLength) return refusal('broken', 'image/bmp ends too early');
  const palette = 14 + size;
  if (depth === 8 && palette + 1024 > start) return refusal('broken', 'image/bmp of a kind that is not read');
  const data = Buffer.alloc(width * height * 3);
  for (let y = 0; y < height; y++) {
    const row = start + stride * (rows > 0 ? height - 1 - y : y);
    for (let x = 0; x < width; x++) {
      const at = depth === 8 ? palette + 4 * (bytes[row + x] as number) : row + (x * depth) / 8;
      const to = (y * width + x) * 3;
      data[to] = bytes[at + 2] as number;
      data[to + 1] = bytes[at + 1] as number;
      data[to + 2] = bytes[at] as number;
    }
  }
  const raw = { width, height, channels: 3 as const };
  return {
    facts: { type: 'image/bmp', bytes: bytes.byteLength, width, height },
    input: { bytes: data, options: { raw } },
    bare: bytes,
    hasAlpha: false,
    plain: true,
    delay: [],
    loop: 0,
  };
}
