/**
 * Whole contents against profiles. The measure of what is sent is what the MM7 encoder prints, down to the last byte of the
 * request; pictures are decoded in this process here (the children have tests of their own).
 */
import { createHash } from 'node:crypto';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { amr, documents, hostile, photo, pictures, type Sample } from '../../test/corpus/corpus.ts';
import { createSubmitEncoder } from '../carriers/mm7/submit.ts';
import { PROFILES, type Profile } from '../domain/profile.ts';
import type { Part } from '../domain/submission.ts';
import { testEnv } from '../env.ts';
import type { Store, Variant } from '../store/contract.ts';
import { fitAv } from './av.ts';
import { type Content, createFitter, createLaneFit, type Fitted, type Fitter } from './fit.ts';
import { Busy, type Fitting } from './fitting.ts';
import { fitImage, type ImageWant } from './image.ts';

/** What main leaves for the envelope. */
const ENVELOPE = 2_048;
const KIB = 1024;

let files: Record<string, Sample>;

beforeAll(async () => {
  files = { ...(await pictures()), ...(await hostile()), ...documents(), 'speech.amr': amr(4) };
  files['photo2.jpg'] = { contentType: 'image/jpeg', bytes: await photo(640, 480, 2).jpeg({ quality: 80 }).toBuffer() };
  files['photo3.jpg'] = { contentType: 'image/jpeg', bytes: await photo(640, 480, 3).jpeg({ quality: 80 }).toBuffer() };
  files['icon.png'] = { contentType: 'image/png', bytes: await photo(24, 24, 4).png().toBuffer() };
});

function part(name: string): Part {
  const { contentType, bytes } = files[name] ?? expect.fail(name);
  return { contentId: name.replaceAll(' ', '_'), contentType, bytes };
}

const content = (...names: string[]): Content => ({ parts: names.map(part) });

interface Memory extends Pick<Store, 'content' | 'putContent' | 'variant' | 'putVariant'> {
  bytes: Map<string, Uint8Array>;
  variants: Map<string, Variant>;
}

function memory(): Memory {
  const bytes = new Map<string, Uint8Array>();
  const variants = new Map<string, Variant>();
  return {
    bytes,
    variants,
    content: async (hash) => bytes.get(hash) ?? null,
    putContent: async (hash, value) => void bytes.set(hash, value),
    variant: async (source, profile) => variants.get(`${source} ${profile}`) ?? null,
    putVariant: async (source, profile, variant) => void variants.set(`${source} ${profile}`, variant),
  };
}

/** Counts what is asked of it; without ffmpeg. */
function inProcess(): Fitting & { asked: number } {
  const here = {
    asked: 0,
    image: (bytes: Uint8Array, want: ImageWant) => {
      here.asked++;
      return fitImage(bytes, want);
    },
    av: (bytes: Uint8Array, want: Parameters<Fitting['av']>[1]) => fitAv(bytes, want, null),
    close: async () => undefined,
  };
  return here;
}

function make(options: { store?: Memory | null; fitting?: Fitting } = {}): Fitter {
  return createFitter({ env: testEnv(), store: options.store ?? null, fitting: options.fitting ?? inProcess() });
}

async function fitted(of: Content, profile: Profile, fitter = make()): Promise<Extract<Fitted, { ok: true }>> {
  const result = await fitter.fit(of, profile, ENVELOPE);
  if (!result.ok) expect.fail(result.words);
  return result;
}

async function refusal(of: Content, profile: Profile): Promise<{ error: number; words: string }> {
  const result = await make().fit(of, profile, ENVELOPE);
  if (result.ok) expect.fail('it was fitted');
  return { error: result.error, words: result.words };
}

/** Bytes of the whole request that carries it to one recipient. */
function onTheWire(of: Content, profile: Profile): number {
  const encode = createSubmitEncoder(
    {
      namespace: 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4',
      version: '6.8.0',
      vaspId: 'postcard',
      vasId: 'postcard',
      transferEncoding: profile.transferEncoding,
      profile,
    },
    () => 'b'.repeat(32),
  );
  const { opening, closing } = encode({
    ...of,
    transactionId: 'install-123456789-1',
    sender: '441134960000',
    recipients: ['491700000001'],
    validUntil: 1_767_225_600_000,
  });
  return opening.length + closing.byteLength;
}

describe('content that fits', () => {
  it('is the very one that was given', async () => {
    const given = { ...content('photo.jpg', 'icon.png', 'card.vcf', 'speech.amr'), subject: 'Grüße' };
    expect((await fitted(given, PROFILES.any)).content).toBe(given);
    expect((await fitted(given, PROFILES['1m'])).content).toBe(given);
  });

  it('is taken as it is up to the limit itself, although what is reduced stays below 95 % of it', async () => {
    const given = content('photo.jpg');
    const bytes = part('photo.jpg').bytes.byteLength;
    const { size } = await fitted(given, PROFILES.any);
    const tight = { ...PROFILES['1m'], maxBytes: size + KIB };
    expect((await fitted(given, tight)).content).toBe(given);
    const tighter = await fitted(given, { ...tight, maxBytes: size - KIB });
    expect(tighter.content.parts[0]!.bytes.byteLength).toBeLessThan(bytes * 0.96);
  });
});

describe('content that does not fit', () => {
  const mixes = [
    ['photo.jpg'],
    ['large.jpg', 'text.txt'],
    ['photo.jpg', 'photo2.jpg', 'photo3.jpg', 'text.txt'],
    ['icon.png', 'large.jpg', 'speech.amr'],
    ['alpha.png', 'photo.webp', 'card.vcf'],
    ['moving.gif', 'photo.jpg', 'text.txt', 'date.ics'],
  ];
  const sizes = [24, 80, 300].map((kib) => kib * KIB);
  const encodings = ['binary', 'base64'] as const;

  it.each(encodings)(
    'is never over the limit as the carrier prints it, %s',
    async (transferEncoding) => {
      const fitter = make();
      let turn = 0;
      for (const names of mixes) {
        for (const maxBytes of sizes) {
          const profile: Profile = {
            ...PROFILES['300k'],
            maxBytes,
            transferEncoding,
            image: { width: 800, height: 600 },
          };
          // Subject and presentation weigh too: every other time.
          const extra =
            ++turn % 2 === 0 ? {} : { subject: 'Ü'.repeat(60), smil: '<smil><head/><body/></smil>'.repeat(20) };
          const result = await fitted({ ...content(...names), ...extra }, profile, fitter);
          const wire = onTheWire(result.content, profile);
          const about = `${names.join()} in ${maxBytes} ${transferEncoding}`;
          expect(wire, about).toBeLessThanOrEqual(maxBytes);
          // The reckoning is on the safe side, and not by much.
          expect(result.size, about).toBeGreaterThanOrEqual(wire - ENVELOPE);
          expect(result.size - wire, about).toBeLessThan(ENVELOPE + 1_500 + 400 * names.length);
        }
      }
    },
    120_000,
  );

  it('uses most of what there is', async () => {
    const profile = { ...PROFILES['300k'], image: { width: 4000, height: 4000 } };
    const result = await fitted(content('large.jpg'), profile);
    const wire = onTheWire(result.content, profile);
    expect(wire).toBeGreaterThan(profile.maxBytes * 0.7);
    expect(wire).toBeLessThanOrEqual(profile.maxBytes * 0.96);
  });

  it('takes from the largest and leaves the small ones', async () => {
    const given = content('icon.png', 'large.jpg', 'photo.jpg');
    const { content: sent } = await fitted(given, { ...PROFILES['300k'], maxBytes: 80 * KIB });
    expect(sent.parts[0]).toBe(given.parts[0]);
    const [, large, small] = sent.parts.map(({ bytes }) => bytes.byteLength) as [number, number, number];
    // Both give until they are about alike.
    expect(large / small).toBeGreaterThan(0.6);
    expect(large / small).toBeLessThan(1.7);
  });

  it('gives a sound what it cannot do without, and the pictures the rest', async () => {
    const need = 60_000;
    const from = { type: 'audio/mpeg', bytes: 400_000 };
    const to = { type: 'audio/mpeg', bytes: need };
    const fitting: Fitting = {
      ...inProcess(),
      av: async (_, { most }) =>
        most < need
          ? { kind: 'refused', why: 'size', words: 'too long', from }
          : { kind: 'made', bytes: new Uint8Array(need), contentType: 'audio/mpeg', from, to },
    };
    const sound = { contentId: 'song.mp3', contentType: 'audio/mpeg', bytes: Buffer.alloc(400_000, 'ID3') };
    const given = content('large.jpg', 'photo.jpg');
    given.parts.push(sound);
    const { content: sent } = await fitted(given, { ...PROFILES['300k'], maxBytes: 100 * KIB }, make({ fitting }));
    const [large, small, song] = sent.parts.map(({ bytes }) => bytes.byteLength) as [number, number, number];
    expect(song).toBe(need);
    expect(Math.min(large, small)).toBeGreaterThan(5_000);
    const short = await make({ fitting }).fit(
      { parts: given.parts },
      { ...PROFILES['300k'], maxBytes: 60 * KIB },
      ENVELOPE,
    );
    expect(short).toMatchObject({ ok: false, error: 15026, words: 'song.mp3: too long' });
  });

  it('changes its type where that is not taken, and says so in its head', async () => {
    const { content: sent } = await fitted(content('photo.webp', 'scan.tiff', 'plain.bmp'), PROFILES['300k']);
    expect(sent.parts.map(({ contentType }) => contentType)).toEqual(['image/jpeg', 'image/jpeg', 'image/png']);
    expect(sent.parts[0]!.contentId).toBe('photo.webp');
  });

  it('goes by the bytes and not by what they are called', async () => {
    const given = { parts: [{ ...part('drawing.png'), contentType: 'image/jpeg' }] };
    const { content: sent } = await fitted(given, PROFILES['300k']);
    expect(sent.parts[0]).toMatchObject({ contentType: 'image/png', bytes: given.parts[0]!.bytes });
  });
});

describe('a part under a wrong name', () => {
  const jpeg = (contentType: string): Content => ({ parts: [{ ...part('photo2.jpg'), contentType }] });
  const words = (contentType: string, text: string): Content => ({
    parts: [{ contentId: 'words', contentType, bytes: Buffer.from(text) }],
  });
  const sentAs = async (given: Content, profile: Profile): Promise<string | undefined> => {
    const fitted = await createFitter({ env: testEnv(), store: null, fitting: inProcess() }).fit(given, profile);
    return fitted.ok ? fitted.content.parts[0]?.contentType : fitted.words;
  };

  it.each(['any', '300k'] as const)('is sent under its own: %s', async (name) => {
    const profile = PROFILES[name];
    expect(await sentAs(jpeg('image/jpg'), profile)).toBe('image/jpeg');
    expect(await sentAs(jpeg('text/plain'), profile)).toBe('image/jpeg');
    expect(await sentAs(jpeg('TEXT/PLAIN; charset=utf-8'), profile)).toBe('image/jpeg');
    expect(await sentAs(words('text/plain', 'Gr\u00fc\u00dfe'), profile)).toBe('text/plain; charset=utf-8');
    expect(await sentAs(words('text/plain; format=flowed;', 'Gr\u00fc\u00dfe'), profile)).toBe(
      'text/plain; format=flowed; charset=utf-8',
    );
  });

  it('is not what a text begins like, and a text in another charset is one', async () => {
    expect(await sentAs(words('text/plain', 'BMW'), PROFILES.any)).toBe('text/plain');
    const utf16 = Buffer.from('\ufeffGr\u00fc\u00dfe', 'utf16le');
    const given: Content = { parts: [{ contentId: 'a', contentType: 'text/plain; charset=utf-16', bytes: utf16 }] };
    expect(await sentAs(given, PROFILES['300k'])).toBe('text/plain; charset=utf-8');
  });

  it('is not what a text in a charset that nobody named begins like, nor is a card another one', async () => {
    const latin = (contentType: string, text: string): Content => ({
      parts: [{ contentId: 'words', contentType, bytes: Buffer.from(text, 'latin1') }],
    });
    expect(await sentAs(latin('text/plain', 'BMW f\u00fcr alle'), PROFILES['300k'])).toBe('text/plain');
    expect(await sentAs(latin('text/plain', 'MZ f\u00e4hrt nach K\u00f6ln'), PROFILES['300k'])).toBe('text/plain');
    const card = latin('text/x-vcard', 'BEGIN:VCARD\r\nFN:J\u00fcrgen\r\nEND:VCARD\r\n');
    expect(await sentAs(card, PROFILES['300k'])).toBe('text/x-vcard');
  });

  it('is UTF-8 that says to be US-ASCII: its letters stay what they are', async () => {
    const fitter = createFitter({ env: testEnv(), store: null, fitting: inProcess() });
    const fitted = await fitter.fit(
      words('text/plain; charset="us-ascii"; format=flowed', 'Gr\u00fc\u00dfe'),
      PROFILES['300k'],
    );
    expect(
      fitted.ok && fitted.content.parts.map(({ contentType, bytes }) => [contentType, Buffer.from(bytes).toString()]),
    ).toEqual([['text/plain; format=flowed; charset=utf-8', 'Gr\u00fc\u00dfe']]);
    expect(await sentAs(words('text/plain; charset=us-ascii', 'plain'), PROFILES.any)).toMatch(
      /^text\/plain; charset=/,
    );
  });

  it('is taken by who takes it under that name only', async () => {
    const profile = { ...PROFILES['300k'], types: ['image/jpg'] };
    expect(await sentAs(jpeg('image/jpeg'), profile)).toBe('image/jpeg');
  });
});

describe('content that cannot fit', () => {
  it('is refused with the error that says why', async () => {
    const small = { ...PROFILES['300k'], maxBytes: 8 * KIB };
    expect(await refusal(content('paper.pdf'), PROFILES['image-basic'])).toEqual({
      error: 15013,
      words: 'paper.pdf: application/pdf is not taken',
    });
    expect(await refusal(content('truncated.jpg'), PROFILES['300k'])).toMatchObject({
      error: 15013,
      words: expect.stringMatching(/cannot be read/),
    });
    expect(await refusal(content('speech.amr'), small)).toMatchObject({ error: 15026 });
    expect(await refusal({ parts: Array(21).fill(part('text.txt')) }, PROFILES['300k'])).toMatchObject({
      error: 15013,
      words: '21 parts are more than the 20 that the carrier takes',
    });
    const letters = { parts: [{ contentId: 'a', contentType: 'text/plain', bytes: Buffer.alloc(1_601, 0x61) }] };
    expect(await refusal(letters, PROFILES['300k'])).toMatchObject({ words: expect.stringMatching(/1601/) });
    const thick = {
      parts: [{ contentId: 'a.pdf', contentType: 'application/pdf', bytes: Buffer.alloc(400_000, 0x25) }],
    };
    expect(await refusal(thick, PROFILES['300k'])).toMatchObject({
      error: 15026,
      words: expect.stringMatching(/bytes are more than the 307200/),
    });
    const many = { ...PROFILES['300k'], maxBytes: 9 * KIB };
    expect(await refusal(content(...Array(14).fill('photo.jpg')), many)).toMatchObject({ error: 15026 });
  });

  it('is refused where it is hostile, whatever it is called', async () => {
    for (const name of [
      'bomb.png',
      'wide.png',
      'script.svg',
      'disguised.jpg',
      'page.jpg',
      'zip called.jpg',
      'bomb.zip',
      'page.html',
      'only a head.png',
    ]) {
      expect(await refusal(content(name), PROFILES['300k']), name).toMatchObject({ error: 15013 });
    }
  });

  it('is refused even by a carrier that takes everything where it is a bomb or a drawing that runs', async () => {
    for (const name of ['bomb.png', 'script.svg', 'disguised.jpg'])
      expect(await refusal(content(name), PROFILES.any), name).toMatchObject({ error: 15013 });
    const { content: sent } = await fitted(content('script.svg'), { ...PROFILES.any, types: ['*/*', 'image/svg+xml'] });
    expect(sent.parts[0]!.contentType).toBe('image/svg+xml');
  });

  it('goes as it is to a carrier that takes everything where only we cannot read it', async () => {
    const given = content('truncated.jpg', 'page.jpg', 'bomb.zip');
    expect((await fitted(given, PROFILES.any)).content.parts.map(({ bytes }) => bytes)).toEqual(
      given.parts.map(({ bytes }) => bytes),
    );
  });
});

describe('what was fitted once', () => {
  const profile = { ...PROFILES['300k'], maxBytes: 60 * KIB };

  it('is not fitted again, not even by who asks at the same time', async () => {
    const fitting = inProcess();
    const fitter = make({ fitting });
    const given = content('large.jpg');
    const all = await Promise.all(Array.from({ length: 20 }, () => fitted(given, profile, fitter)));
    await fitted(content('large.jpg'), profile, fitter);
    expect(fitting.asked).toBe(1);
    expect(new Set(all.map((one) => one.content.parts[0]!.bytes)).size).toBe(1);
  });

  it('is shared by messages that differ in a few letters', async () => {
    const fitting = inProcess();
    const fitter = make({ fitting });
    const words = (text: string): Part => ({ contentId: 't', contentType: 'text/plain', bytes: Buffer.from(text) });
    for (let n = 0; n < 10; n++)
      await fitted({ parts: [part('large.jpg'), words('x'.repeat(100 + n))] }, profile, fitter);
    expect(fitting.asked).toBeLessThanOrEqual(2);
  });

  it('comes from the store after a restart', async () => {
    const store = memory();
    const [first, second] = [inProcess(), inProcess()];
    const before = await fitted(content('large.jpg', 'icon.png'), profile, make({ store, fitting: first }));
    const after = await fitted(content('large.jpg', 'icon.png'), profile, make({ store, fitting: second }));
    expect([first.asked, second.asked]).toEqual([2, 0]);
    expect(after.content.parts.map(({ bytes }) => Buffer.from(bytes))).toEqual(
      before.content.parts.map(({ bytes }) => Buffer.from(bytes)),
    );
    const [hash] = [...store.bytes.keys()];
    expect(hash).toBe(createHash('sha256').update(before.content.parts[0]!.bytes).digest('hex'));
  });

  it('is made anew when its bytes are gone from the store, or the store is away', async () => {
    const store = memory();
    await fitted(content('large.jpg'), profile, make({ store }));
    store.bytes.clear();
    const fitting = inProcess();
    await fitted(content('large.jpg'), profile, make({ store, fitting }));
    expect(fitting.asked).toBe(1);
    const away = (): Promise<never> => Promise.reject(new Error('away'));
    const gone = { ...memory(), variant: away, putContent: away };
    expect((await fitted(content('large.jpg'), profile, make({ store: gone }))).content.parts).toHaveLength(1);
  });

  it('is asked for again after ten minutes where it was refused', async () => {
    const env = testEnv();
    const fitting = inProcess();
    const fitter = createFitter({ env, store: null, fitting });
    for (let n = 0; n < 3; n++) expect((await fitter.fit(content('truncated.jpg'), profile)).ok).toBe(false);
    expect(fitting.asked).toBe(1);
    await env.clock.advance(10 * 60_000);
    await fitter.fit(content('truncated.jpg'), profile);
    expect(fitting.asked).toBe(2);
  });
});

describe('a lane', () => {
  it('is given the same content again at once', async () => {
    const fitFor = createLaneFit<Content>(make(), PROFILES['300k'], ENVELOPE);
    const given = content('large.jpg');
    const first = fitFor(given);
    expect(first).toBeInstanceOf(Promise);
    const result = await first;
    expect(fitFor(given)).toBe(result);
  });

  it('asks again where nothing could be said', async () => {
    let calls = 0;
    const busy: Fitting = {
      ...inProcess(),
      image: () => Promise.reject(++calls > 1 ? new Error('twice') : new Busy('full')),
    };
    const fitFor = createLaneFit<Content>(make({ fitting: busy }), PROFILES['300k'], ENVELOPE);
    const given = content('large.jpg');
    await expect(fitFor(given)).rejects.toThrow('full');
    await expect(fitFor(given)).rejects.toThrow('twice');
  });

  it('gets words of a carrier that knows ASCII only', async () => {
    const fitFor = createLaneFit<Content>(
      make(),
      { ...PROFILES['300k'], text: { length: 100, charset: 'us-ascii' } },
      0,
    );
    const result = await fitFor(content('text.txt'));
    expect(result.ok && Buffer.from(result.prepared.parts[0]!.bytes).toString()).toMatch(/^Gr\S+e/);
  });
});

it('reads what it has made', async () => {
  const { content: sent, notes } = await fitted(content('turned.jpg', 'alpha.png'), PROFILES['image-basic']);
  for (const [n, { bytes, contentType }] of sent.parts.entries()) {
    const meta = await sharp(bytes).metadata();
    expect(`image/${meta.format}`).toBe(contentType);
    expect(notes[n]!.to).toMatchObject({ width: meta.width, height: meta.height, bytes: bytes.byteLength });
  }
});
