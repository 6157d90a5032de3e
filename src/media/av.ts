/**
 * Sound and film made to fit by the system's ffmpeg, where there is one: MP4 (H.264 baseline, AAC) or 3GP (H.263), AMR, AAC or MP3,
 * at the bit rate that its duration leaves. What fits is not touched. Runs in a child process (`fit-worker.ts`).
 *
 * ffmpeg is started without a shell's words in between, on one file in a directory of its own, with the protocol `file` and the
 * demuxers of media containers only (no playlists, which could name other files), with limits on memory, CPU and time.
 *
 * Promises: what is made is never larger than `most`. Nothing is cut off: what cannot be told in the bytes there are is refused.
 *
 * Fails: as a value with words; without ffmpeg everything that does not fit as it is.
 */
import { type ExecFileOptions, execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ALL_FORMATS, BufferSource, Input } from 'mediabunny';
import type { Facts, ImageWant, Made, Why } from './image.ts';

/** As for pictures; `type` is what the bytes are. */
export interface AvWant extends ImageWant {
  type: string;
}

const RUN_MS = 90_000;
const PROBE_MS = 10_000;
/** For ffmpeg: address space in KiB, seconds of CPU. */
const MEMORY_KIB = 2 * 1024 * 1024;
const CPU_SECONDS = 120;
/** Longer ones would be noise at any size that an MMS may have. */
const MAX_SECONDS = 900;
/** Encodings of one film or sound. */
const TRIES = 3;
/** Bits a second: below the first a film is no film, below the second speech is no speech. */
const LEAST_VIDEO = 20_000;
const LEAST_AUDIO = 6_000;
/** Older codecs need so many bytes for what newer ones say in one; and bits a second that what is made may always have. */
const PLENTY = 2;
const PLAIN_VIDEO = 150_000;
const PLAIN_AUDIO = 24_000;
/** Bits for one pixel of one frame at which H.264 still shows something. */
const BITS_A_PIXEL = 0.06;
/** What the container takes, next to the streams. */
const CONTAINER_BYTES = 1_500;

const DEMUXERS =
  'mov,mp4,m4a,3gp,3g2,mj2,amr,amrnb,amrwb,aac,mp3,wav,w64,aiff,caf,flac,ogg,matroska,webm,avi,flv,asf,mpeg,mpegts,mpegvideo,m4v';

/** What ffmpeg on this machine can make; null = there is none. */
export type Encoders = ReadonlySet<string> | null;

/** Asks ffmpeg what it can encode. Never rejects. */
export async function findEncoders(): Promise<Encoders> {
  const listed = await run('ffmpeg', ['-hide_banner', '-encoders'], { timeout: PROBE_MS });
  if (!listed.ok) return null;
  const names = [...listed.out.matchAll(/^ [VA][A-Z.]{5} (\S+)/gm)].map((found) => found[1] as string);
  return names.length > 0 ? new Set(names) : null;
}

/** Makes a sound or a film fit. Never rejects for what is wrong with it. */
export async function fitAv(bytes: Uint8Array, want: AvWant, encoders: Encoders): Promise<Made> {
  const from = await factsOf(bytes, want.type);
  const refused = (why: Why, words: string): Made => ({
    kind: 'refused',
    why,
    words: `${want.type}${from.seconds === undefined ? '' : `, ${Math.ceil(from.seconds)} s`}: ${words}`,
    from,
  });
  const moving = want.type.startsWith('video/');
  const taken = want.types.includes(want.type);
  const box = { long: Math.max(want.width, want.height), short: Math.min(want.width, want.height) };
  const [width = 0, height = 0] = [from.width, from.height];
  const small = !moving || (Math.max(width, height) <= box.long && Math.min(width, height) <= box.short);
  if (taken && small && bytes.byteLength <= want.most) {
    const unknown = from.seconds === undefined && encoders !== null && READABLE.has(want.type);
    return unknown && (await isUnreadable(bytes)) ? refused('broken', 'cannot be read') : { kind: 'same', from };
  }
  const need = !taken
    ? 'is not taken'
    : !small
      ? `${width}x${height} is more than ${want.width}x${want.height}`
      : `${bytes.byteLength} bytes are too many`;
  if (encoders === null)
    return refused(taken && small ? 'size' : 'type', `${need}, and there is no ffmpeg to change it`);
  const target = targetFor(want, moving, encoders);
  if (target === null) return refused('type', `${need}, and nothing that is can be made of it here`);
  return asFile(bytes, async (dir, input) => {
    const probed = await probe(input, from);
    if (probed === null) return refused('broken', 'cannot be read');
    const { seconds = 0 } = probed;
    if (seconds <= 0) return refused('broken', 'has no duration');
    if (seconds > MAX_SECONDS) return refused('size', `longer than ${MAX_SECONDS} s`);
    return await encode(target, { dir, input, probed, seconds, want, box, from }, refused);
  });
}

/** Gives `use` the bytes as a file in a directory of its own, which is gone afterwards. */
async function asFile<Result>(bytes: Uint8Array, use: (dir: string, file: string) => Promise<Result>): Promise<Result> {
  const dir = await mkdtemp(join(tmpdir(), 'postcard-av-'));
  try {
    const file = join(dir, 'in');
    await writeFile(file, bytes);
    return await use(dir, file);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

// ------------------------------------------------------------------------------------------------------------- looking

interface Probed extends Facts {
  hasAudio: boolean;
}

async function factsOf(bytes: Uint8Array, type: string): Promise<Facts> {
  const facts: Facts = { type, bytes: bytes.byteLength };
  const amr = amrSeconds(bytes);
  if (amr !== null) return { ...facts, seconds: amr };
  const input = new Input({ formats: ALL_FORMATS, source: new BufferSource(bytes) });
  try {
    const seconds = await input.computeDuration();
    const video = await input.getPrimaryVideoTrack();
    return {
      ...facts,
      ...(Number.isFinite(seconds) && seconds > 0 ? { seconds: Math.round(seconds * 1000) / 1000 } : {}),
      ...(video ? { width: video.displayWidth, height: video.displayHeight } : {}),
    };
  } catch {
    // A container that it does not know; ffprobe may.
    return facts;
  } finally {
    input.dispose();
  }
}

/** Bytes of an AMR frame after its first, by mode (RFC 4867, 5.3). */
const AMR_NB = [12, 13, 15, 17, 19, 20, 26, 31, 5, 0, 0, 0, 0, 0, 0, 0];
const AMR_WB = [17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0, 0, 0, 0, 0];

/** Length of an AMR file, whose frames are 20 ms each; null = it is none. */
function amrSeconds(bytes: Uint8Array): number | null {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(9, bytes.byteLength)).toString('latin1');
  const [start, sizes] = head === '#!AMR-WB\n' ? [9, AMR_WB] : head.startsWith('#!AMR\n') ? [6, AMR_NB] : [0, AMR_NB];
  if (start === 0) return null;
  let frames = 0;
  for (let at = start; at < bytes.byteLength; frames++) at += 1 + (sizes[((bytes[at] as number) >> 3) & 15] as number);
  return frames / 50;
}

/** What handsets play, in containers that ffprobe reads. */
const READABLE = new Set([
  ...['mpeg', 'mp4', 'aac', 'wav', '3gpp', 'ogg'].map((name) => `audio/${name}`),
  ...['mp4', '3gpp', 'mpeg', 'webm'].map((name) => `video/${name}`),
]);

/** Whether ffprobe finds nothing in it; one that is not there or does not come to an end says nothing. */
function isUnreadable(bytes: Uint8Array): Promise<boolean> {
  return asFile(bytes, async (_, file) => {
    const answer = await run('ffprobe', [...PROBE, file], { timeout: PROBE_MS });
    return answer.ok ? !answer.out.includes('codec_type') : answer.said;
  });
}

/** What ffprobe says, and where it says nothing what is known. Null = no media. */
async function probe(file: string, known: Facts): Promise<Probed | null> {
  const answer = await run('ffprobe', [...PROBE, file], { timeout: PROBE_MS });
  if (!answer.ok) return null;
  let json: { streams?: { codec_type?: string; width?: number; height?: number }[]; format?: { duration?: string } };
  try {
    json = JSON.parse(answer.out);
  } catch {
    return null;
  }
  const streams = json.streams ?? [];
  const video = streams.find((stream) => stream.codec_type === 'video');
  const hasAudio = streams.some((stream) => stream.codec_type === 'audio');
  if (!video && !hasAudio) return null;
  const seconds = known.seconds ?? Number(json.format?.duration ?? Number.NaN);
  return {
    ...known,
    ...(Number.isFinite(seconds) ? { seconds } : {}),
    ...(known.width === undefined && video?.width ? { width: video.width, height: video.height } : {}),
    hasAudio,
  };
}

// -------------------------------------------------------------------------------------------------------------- making

interface Target {
  type: string;
  format: string;
  video: 'libx264' | 'h263' | null;
  audio: { codec: string; most: number; least: number; rate: number } | null;
}

const AAC = { codec: 'aac', most: 64_000, least: 12_000, rate: 22_050 };
const AMR = { codec: 'libopencore_amrnb', most: 12_200, least: 4_750, rate: 8_000 };
const MP3 = { codec: 'libmp3lame', most: 96_000, least: 16_000, rate: 22_050 };

/** The first that is taken and can be made; its own type first. */
function targetFor(want: AvWant, moving: boolean, encoders: ReadonlySet<string>): Target | null {
  const all: Target[] = moving
    ? [
        { type: 'video/mp4', format: 'mp4', video: 'libx264', audio: AAC },
        { type: 'video/3gpp', format: '3gp', video: 'h263', audio: AMR },
        { type: 'video/3gpp', format: '3gp', video: 'h263', audio: AAC },
      ]
    : [
        { type: 'audio/mp4', format: 'ipod', video: null, audio: AAC },
        { type: 'audio/aac', format: 'adts', video: null, audio: AAC },
        { type: 'audio/mpeg', format: 'mp3', video: null, audio: MP3 },
        { type: 'audio/amr', format: 'amr', video: null, audio: AMR },
        { type: 'audio/3gpp', format: '3gp', video: null, audio: AAC },
      ];
  const can = all.filter(
    ({ type, video, audio }) =>
      want.types.includes(type) && (!video || encoders.has(video)) && (!audio || encoders.has(audio.codec)),
  );
  return can.find(({ type }) => type === want.type) ?? can[0] ?? null;
}

interface Work {
  dir: string;
  input: string;
  probed: Probed;
  seconds: number;
  want: AvWant;
  box: { long: number; short: number };
  from: Facts;
}

async function encode(target: Target, work: Work, refused: (why: Why, words: string) => Made): Promise<Made> {
  const { want, seconds, from } = work;
  // More would only be a larger copy of what there is.
  const plenty = Math.max(from.bytes * PLENTY, (seconds * (target.video ? PLAIN_VIDEO : PLAIN_AUDIO)) / 8);
  let aim = Math.floor(Math.min(want.aim, want.most, CONTAINER_BYTES + plenty));
  let smallest = Number.POSITIVE_INFINITY;
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const bits = Math.floor(((aim - CONTAINER_BYTES) * 8 * 0.97) / seconds);
    const plan = planFor(target, work, bits);
    if (plan === null) return refused('size', `does not fit into ${want.most} bytes`);
    const output = join(work.dir, `out${attempt}`);
    const made = await run(
      'ffmpeg',
      [...BEFORE, ...CLOSED, '-i', work.input, ...plan.args, '-f', target.format, output],
      {
        timeout: RUN_MS,
        cwd: work.dir,
      },
    );
    if (!made.ok) {
      return made.late
        ? refused('type', `was not ready within ${RUN_MS / 1000} s`)
        : refused('broken', 'cannot be read');
    }
    const { size } = await stat(output);
    if (size <= want.most && size > 0) {
      const to: Facts = { type: target.type, bytes: size, seconds, ...plan.size };
      return { kind: 'made', bytes: await readFile(output), contentType: target.type, from, to };
    }
    smallest = Math.min(smallest, size);
    aim = Math.floor((aim * aim * 0.95) / size);
  }
  return refused('size', `cannot be made smaller than ${smallest} bytes`);
}

/** Nothing but this file, and nothing but media in it. */
const CLOSED = ['-protocol_whitelist', 'file', '-format_whitelist', DEMUXERS];
const PROBE = [
  '-v',
  'error',
  ...CLOSED,
  '-show_entries',
  'format=duration:stream=codec_type,width,height',
  '-of',
  'json',
];
const BEFORE = ['-nostdin', '-hide_banner', '-v', 'error', '-y', '-threads', '1'];

/** Null = there are too few bits. */
function planFor(target: Target, work: Work, bits: number): { args: string[]; size: Partial<Facts> } | null {
  const { probed } = work;
  const args = ['-map_metadata', '-1', '-map_chapters', '-1', '-sn', '-dn', '-threads', '1'];
  let left = bits;
  if (probed.hasAudio && target.audio) {
    const { codec, most, least, rate } = target.audio;
    const wished = target.video ? Math.min(most, Math.max(least, Math.floor(bits * 0.2))) : Math.min(most, bits);
    if (wished < Math.max(least, LEAST_AUDIO)) return null;
    // AMR has modes; 12.2 and 4.75 kbit/s are its ends.
    const rateBits = codec === AMR.codec ? (wished >= 12_200 ? 12_200 : wished >= 7_400 ? 7_400 : 4_750) : wished;
    args.push('-map', '0:a:0', '-c:a', codec, '-b:a', String(rateBits), '-ac', '1');
    args.push('-ar', String(codec === AMR.codec ? 8_000 : rateBits < 24_000 ? 16_000 : rate));
    left -= rateBits;
  }
  if (!target.video) return probed.hasAudio ? { args: [...args, '-vn'], size: {} } : null;
  if (left < LEAST_VIDEO) return null;
  const size = sizeFor(target.video, work, left);
  const { width, height, fps } = size;
  const pad = `pad=${width}:${height}:(ow-iw)/2:(oh-ih)/2`;
  const scale =
    target.video === 'h263'
      ? `scale=${width}:${height}:force_original_aspect_ratio=decrease,${pad}`
      : `scale=${width}:${height}`;
  args.push('-map', '0:v:0', '-c:v', target.video, '-vf', `fps=${fps},${scale},format=yuv420p`);
  const rate = Math.min(left, 4_000_000);
  args.push('-b:v', String(rate), '-maxrate', String(rate), '-bufsize', String(2 * rate));
  if (target.video === 'libx264') args.push('-profile:v', 'baseline', '-preset', 'veryfast');
  args.push('-movflags', '+faststart');
  return { args, size: { width, height } };
}

/** H.263 knows these sizes only. */
const H263 = [
  [352, 288],
  [176, 144],
  [128, 96],
] as const;

function sizeFor(codec: 'libx264' | 'h263', { probed, box }: Work, bits: number) {
  const fps = bits < 150_000 ? 12 : 24;
  const pixels = bits / (fps * BITS_A_PIXEL);
  const { width = box.long, height = box.short } = probed;
  if (codec === 'h263') {
    const fits = H263.find(([w, h]) => w <= box.long && h <= box.short && w * h <= pixels) ?? H263.at(-1);
    const [w, h] = fits as readonly [number, number];
    return { width: w, height: h, fps };
  }
  const by = Math.min(
    1,
    box.long / Math.max(width, height),
    box.short / Math.min(width, height),
    Math.sqrt(pixels / (width * height)),
  );
  const even = (side: number): number => Math.max(32, Math.floor((side * by) / 2) * 2);
  return { width: even(width), height: even(height), fps };
}

// -------------------------------------------------------------------------------------------------------------- running

/** `said`: the program itself said that it could not, rather than being missing or stopped. */
type Ran = { ok: true; out: string } | { ok: false; late: boolean; said: boolean };

/** Limits by the shell that becomes the program; its arguments are never the shell's words. */
function run(program: string, args: string[], options: ExecFileOptions): Promise<Ran> {
  const limits = `ulimit -v ${MEMORY_KIB} 2>/dev/null; ulimit -t ${CPU_SECONDS} 2>/dev/null; exec nice -n 10 "$0" "$@"`;
  const whole: ExecFileOptions = { maxBuffer: 1024 * 1024, killSignal: 'SIGKILL', ...options };
  return new Promise((resolve) => {
    execFile('/bin/sh', ['-c', limits, program, ...args], { ...whole, encoding: 'utf8' }, (error, stdout) => {
      if (!error) resolve({ ok: true, out: String(stdout) });
      else resolve({ ok: false, late: error.killed === true, said: error.code === 1 });
    });
  });
}
