/** Sounds and films against wants; what comes out is probed by ffprobe. Needs ffmpeg, and says so where there is none. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { amr, films, noFfmpeg, type Sample } from '../../test/corpus/corpus.ts';
import { type AvWant, type Encoders, findEncoders, fitAv } from './av.ts';
import type { Made } from './image.ts';

const SECONDS = 4;
const TYPES = ['audio/amr', 'audio/mpeg', 'audio/mp4', 'video/3gpp', 'video/mp4'];
const WANT: AvWant = { type: '', types: TYPES, width: 640, height: 480, most: 280_000, aim: 270_000 };

const missing = noFfmpeg();
if (missing) process.stderr.write(`${missing}\n`);

describe('speech as AMR', () => {
  it('goes as it is where it fits, and is never cut', async () => {
    const { bytes } = amr(10);
    const want = { ...WANT, type: 'audio/amr' };
    expect(await fitAv(bytes, want, null)).toMatchObject({ kind: 'same', from: { seconds: 10 } });
    expect(await fitAv(bytes, { ...want, most: 5_000, aim: 5_000 }, null)).toEqual({
      kind: 'refused',
      why: 'size',
      words: 'audio/amr, 10 s: 16006 bytes are too many, and there is no ffmpeg to change it',
      from: { type: 'audio/amr', bytes: 16_006, seconds: 10 },
    });
  });

  it('is refused where it is not taken and there is no ffmpeg', async () => {
    const made = await fitAv(amr(1).bytes, { ...WANT, type: 'audio/amr', types: ['audio/mpeg'] }, null);
    expect(made).toMatchObject({ kind: 'refused', why: 'type' });
  });
});

describe.skipIf(missing !== null)('with ffmpeg', () => {
  let files: Record<string, Sample>;
  let encoders: Encoders;

  beforeAll(async () => {
    files = films(SECONDS);
    encoders = await findEncoders();
  }, 120_000);

  const become = (name: string, want: Partial<AvWant>): Promise<Made> => {
    const { bytes, contentType } = files[name] ?? expect.fail(name);
    return fitAv(bytes, { ...WANT, type: contentType, ...want }, encoders);
  };

  interface Probe {
    streams: { codec_name: string; codec_type: string; width?: number; height?: number; profile?: string }[];
    format: { duration: string; tags?: Record<string, string> };
  }

  async function made(
    name: string,
    want: Partial<AvWant>,
  ): Promise<{ size: number; contentType: string; probe: Probe }> {
    const result = await become(name, want);
    if (result.kind !== 'made') expect.fail(JSON.stringify(result));
    const dir = mkdtempSync(join(tmpdir(), 'postcard-probe-'));
    try {
      writeFileSync(join(dir, 'file'), result.bytes);
      const asked = ['-v', 'error', '-show_streams', '-show_format', '-of', 'json', join(dir, 'file')];
      const probe = JSON.parse(execFileSync('ffprobe', asked, { encoding: 'utf8' })) as Probe;
      return { size: result.bytes.length, contentType: result.contentType, probe };
    } finally {
      rmSync(dir, { recursive: true });
    }
  }

  it('finds what it can make', () => {
    expect(encoders?.has('libx264')).toBe(true);
    expect(encoders?.has('aac')).toBe(true);
  });

  it.each(['clip.mp4', 'old.3gp', 'tone.mp3'])('leaves alone what fits: %s', async (name) => {
    expect(await become(name, { most: 5_000_000, aim: 5_000_000 })).toMatchObject({
      kind: 'same',
      from: { seconds: expect.closeTo(SECONDS, 0) },
    });
  });

  it('makes a film fit, with its sound and to its end', async () => {
    for (const most of [280_000, 95_000, 40_000]) {
      const { size, contentType, probe } = await made('clip.mp4', { most, aim: Math.floor(most * 0.95) });
      expect(size).toBeLessThanOrEqual(most);
      expect(size).toBeGreaterThan(most / 4);
      expect(contentType).toBe('video/mp4');
      expect(probe.streams.map(({ codec_name }) => codec_name).sort()).toEqual(['aac', 'h264']);
      expect(probe.streams.find(({ codec_type }) => codec_type === 'video')?.profile).toMatch(/Baseline/);
      expect(Number(probe.format.duration)).toBeCloseTo(SECONDS, 0);
    }
  }, 120_000);

  it('makes it smaller where only its pixels are too many', async () => {
    const { probe } = await made('silent.mp4', { width: 320, height: 240, most: 5_000_000, aim: 5_000_000 });
    expect(probe.streams).toMatchObject([{ width: 320, height: 240 }]);
  });

  it('does not blow up what only has to become another type', async () => {
    const from = (files['old.3gp'] as Sample).bytes.length;
    const { size, contentType } = await made('old.3gp', { types: ['video/mp4'] });
    expect(contentType).toBe('video/mp4');
    // Its rate is what is wished, not what comes out to the byte.
    expect(size).toBeLessThan(2.5 * from);
  });

  it('makes H.263 in a size that it knows where only 3GP is taken', async () => {
    const { contentType, probe } = await made('clip.mp4', {
      types: ['video/3gpp'],
      width: 176,
      height: 144,
      most: 95_000,
      aim: 90_000,
    });
    expect(contentType).toBe('video/3gpp');
    expect(probe.streams.find(({ codec_type }) => codec_type === 'video')).toMatchObject({
      codec_name: 'h263',
      width: 176,
      height: 144,
    });
  });

  it.each(['tone.wav', 'tone.mp3', 'tone.aac'])('makes a sound fit: %s', async (name) => {
    const { size, probe } = await made(name, { most: 20_000, aim: 19_000 });
    expect(size).toBeLessThanOrEqual(20_000);
    expect(Number(probe.format.duration)).toBeCloseTo(SECONDS, 0);
  });

  it('does not send what nobody can play, though it would fit', async () => {
    const half = (files['silent.mp4'] as Sample).bytes.subarray(0, 20_000);
    const want = { ...WANT, type: 'video/mp4' };
    expect(await fitAv(half, want, encoders)).toMatchObject({ kind: 'refused', why: 'broken' });
    expect(
      await fitAv(Buffer.from('#EXTM3U\nfile:///etc/passwd\n'), { ...want, type: 'audio/mpeg' }, encoders),
    ).toMatchObject({
      kind: 'refused',
      why: 'broken',
    });
    // Nobody can tell.
    expect(await fitAv(half, want, null)).toMatchObject({ kind: 'same' });
    expect(
      await fitAv(Buffer.from('MThd....'), { ...want, type: 'audio/midi', types: ['audio/midi'] }, encoders),
    ).toMatchObject({
      kind: 'same',
    });
  });

  it('refuses what would be noise, and what is no film', async () => {
    expect(await become('clip.mp4', { most: 9_000, aim: 8_500 })).toMatchObject({ kind: 'refused', why: 'size' });
    const garbage = Buffer.concat([files['clip.mp4']!.bytes.subarray(0, 200), Buffer.alloc(300_000, 7)]);
    expect(await fitAv(garbage, { ...WANT, type: 'video/mp4' }, encoders)).toMatchObject({
      kind: 'refused',
      why: 'broken',
    });
  });

  it('reads no other file, whatever a playlist says', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'postcard-secret-'));
    try {
      writeFileSync(join(dir, 'secret.mp4'), files['clip.mp4']!.bytes);
      const list = join(dir, 'secret.mp4');
      for (const text of [
        `#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://${list}\n#EXT-X-ENDLIST\n`,
        `ffconcat version 1.0\nfile '${list}'\n`,
        `<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>${list}</BaseURL></MPD>`,
      ]) {
        const made = await fitAv(Buffer.from(text), { ...WANT, type: 'video/mp4', most: 50, aim: 50 }, encoders);
        expect(made).toMatchObject({ kind: 'refused', why: 'broken' });
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
