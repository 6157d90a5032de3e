/**
 * Fits a message's content to what its carrier takes (`domain/profile.ts`): each part to the types, pixels and bytes that there
 * are, all together to the size of the whole as it is encoded, heads and presentation counted.
 *
 * Promises: what fits is not touched, and then the content is the very one that was given. What had to be reduced aims at AIM of the
 * limit; nothing is ever over it. Several pictures share what is left: the small ones stay, the largest give. The same content
 * under the same profile is fitted once: results are kept by the hash of the bytes, in the store and for a while here; who asks
 * at the same time waits for the same. Pictures lose what their metadata tell (place, camera).
 *
 * Fails: what cannot fit is a value: 15013 for a type that is not taken or bytes that cannot be read, 15026 for what is too
 * large (or too many). Rejects with Busy when too much waits; a store that is away only costs the work.
 */
import { isAscii } from 'node:buffer';
import { createHash } from 'node:crypto';
import { fileTypeFromBuffer } from 'file-type';
import { LRUCache } from 'lru-cache';
import { wordsFor } from '../domain/content.ts';
import { type Profile, takes } from '../domain/profile.ts';
import type { Part } from '../domain/submission.ts';
import type { Env } from '../env.ts';
import type { Store } from '../store/contract.ts';
import type { Fitting } from './fitting.ts';
import type { Facts, ImageWant, Made, Why } from './image.ts';
import { isBinary, isText, properType } from './kind.ts';

/** A message's content as it stands before a carrier. */
export interface Content {
  parts: Part[];
  /** Absent: where the profile requires one, the carrier makes it; room is left for it. */
  smil?: string;
  subject?: string;
}

/** What was done with a part. */
export interface PartNote {
  contentId: string;
  from: Facts;
  /** Absent: it was not touched. */
  to?: Facts;
}

/** `size`: bytes of the whole as it is encoded, at most. `error`: of the error table, with words for the message's story. */
export type Fitted<C extends Content = Content> =
  | { ok: true; content: C; size: number; notes: PartNote[] }
  | { ok: false; error: number; words: string; notes: PartNote[] };

export interface FitterOptions {
  env: Pick<Env, 'clock' | 'log'>;
  /** Where results are kept; null = nowhere. */
  store: Pick<Store, 'content' | 'putContent' | 'variant' | 'putVariant'> | null;
  fitting: Fitting;
}

/** Fits content; any number of calls at a time. */
export interface Fitter {
  /** `overhead`: bytes that the carrier puts around the content and that count; default ENVELOPE_BYTES. */
  fit<C extends Content>(content: C, profile: Profile, overhead?: number): Promise<Fitted<C>>;
}

/** 15013 EC_MMS_CONTENT_BLOCKED_BY_OPERATOR: "content blocked or unsupported by operator" */
const NOT_TAKEN = 15013;
/** 15026 EC_TOO_BIG_CONTENT: "content larger than the operator allows" */
const TOO_BIG = 15026;

/** What an MM7 request puts around a content, for one recipient: some carriers count it. */
const ENVELOPE_BYTES = 2_048;
/** Part of the limit at which reduced content aims: others on the way count a little differently. */
const AIM = 0.95;
/** Changes whenever the same content would become something else: older results are then not used any more. */
const RULES = 2;
/** Budgets are rounded down to these parts of the limit, so that messages that differ in a few letters share their pictures. */
const STEPS = 128;
/** A sound or film needs more than a picture does. */
const WEIGHTS = { image: 1, audio: 2, video: 4 } as const;
/** Shares tried until each medium has what it needs. */
const ROUNDS = 4;

/** No picture, sound or film is smaller; below it there is no need to try. */
const LEAST_PART = 100;

/** Results kept here. */
const KEPT = 500;
const KEPT_BYTES = 32 * 1024 * 1024;
/** What could not be fitted is looked at again after this: there may be an ffmpeg by then. */
const REFUSED_MS = 10 * 60_000;

/** Bytes around a part at most: delimiter, four header lines, line ends; its names stand there three times. */
const HEAD_BYTES = 220;
/** The opening and the end of the whole, and of a presentation that is made. */
const FRAME_BYTES = 300;
const SMIL_BYTES = 900;
const SMIL_PART_BYTES = 120;

type Kind = keyof typeof WEIGHTS;

/** A part on its way: what it is by its bytes, and what it became. */
interface Item {
  part: Part;
  type: string;
  kind: Kind | null;
  /** Its share of what there is, against the others'. */
  weight: number;
  made: Kept | null;
}

/** A result as it is kept. `bytes` null = the content itself. */
type Kept =
  | { ok: true; bytes: Uint8Array | null; contentType: string; made: Made | null }
  | { ok: false; why: Why; words: string; from?: Facts };

/** Makes the fitter. */
export function createFitter({ env, store, fitting }: FitterOptions): Fitter {
  const kept = new LRUCache<string, Kept>({
    max: KEPT,
    maxSize: KEPT_BYTES,
    sizeCalculation: (value) => (value.ok ? (value.bytes?.byteLength ?? 0) : 0) + 200,
  });
  const refusedUntil = new LRUCache<string, number>({ max: KEPT });
  const making = new Map<string, Promise<Kept>>();
  // The preparer gives the same bytes to all messages with one content.
  const hashes = new WeakMap<Uint8Array, string>();

  function hashOf(bytes: Uint8Array): string {
    let hash = hashes.get(bytes);
    if (hash === undefined) {
      hash = createHash('sha256').update(bytes).digest('hex');
      hashes.set(bytes, hash);
    }
    return hash;
  }

  /** One part under one budget, from memory, from the store, or made now. */
  async function fitOne(item: Item, want: ImageWant): Promise<Kept> {
    const source = hashOf(item.part.bytes);
    const name = `fit${RULES}-${digest([item.kind === 'image' ? 'image' : item.type, want])}`;
    const key = `${source} ${name}`;
    const known = kept.get(key);
    if (known && (known.ok || (refusedUntil.get(key) ?? 0) > env.clock.monotonic())) return known;
    const running = making.get(key);
    if (running !== undefined) return running;
    const made = (async () => (await recall(source, name)) ?? (await make(item, want, source, name)))()
      .then((value) => {
        kept.set(key, value);
        if (!value.ok) refusedUntil.set(key, env.clock.monotonic() + REFUSED_MS);
        return value;
      })
      .finally(() => making.delete(key));
    making.set(key, made);
    return made;
  }

  async function recall(source: string, name: string): Promise<Kept | null> {
    try {
      const variant = (await store?.variant(source, name)) ?? null;
      if (variant === null) return null;
      const { hash, contentType } = variant;
      if (hash === source) return { ok: true, bytes: null, contentType, made: null };
      const bytes = (await store?.content(hash)) ?? null;
      return bytes === null ? null : { ok: true, bytes, contentType, made: null };
    } catch (error) {
      env.log.debug({ err: error }, 'a fitted content could not be looked up; it is made anew');
      return null;
    }
  }

  async function make(item: Item, want: ImageWant, source: string, name: string): Promise<Kept> {
    const { bytes } = item.part;
    const made =
      item.kind === 'image' ? await fitting.image(bytes, want) : await fitting.av(bytes, { ...want, type: item.type });
    if (made.kind === 'refused') {
      return { ok: false, why: made.why, words: made.words, ...(made.from ? { from: made.from } : {}) };
    }
    const value: Kept =
      made.kind === 'same'
        ? { ok: true, bytes: null, contentType: item.kind === 'image' ? made.from.type : item.type, made }
        : { ok: true, bytes: made.bytes, contentType: made.contentType, made };
    if (store === null) return value;
    try {
      const hash = value.bytes === null ? source : hashOf(value.bytes);
      if (value.bytes !== null) await store.putContent(hash, value.bytes);
      await store.putVariant(source, name, { hash, contentType: value.contentType });
    } catch (error) {
      env.log.warn({ err: error }, 'a fitted content could not be kept');
    }
    return value;
  }

  return {
    async fit<C extends Content>(given: C, profile: Profile, overhead = ENVELOPE_BYTES): Promise<Fitted<C>> {
      const notes: PartNote[] = [];
      const fail = (error: number, words: string): Fitted<C> => ({ ok: false, error, words, notes });
      const said = wordsFor(await truly(given), profile);
      if (!said.ok) return fail(said.error, said.words);
      const { content } = said;
      if (content.parts.length > profile.maxParts) {
        return fail(
          NOT_TAKEN,
          `${content.parts.length} parts are more than the ${profile.maxParts} that the carrier takes`,
        );
      }
      const items: Item[] = [];
      for (const part of content.parts) {
        const item = await look(part);
        const words = unfit(item, profile);
        if (words) return fail(words.error, `${part.contentId}: ${words.words}`);
        items.push(item);
      }
      const base64 = profile.transferEncoding === 'base64';
      const fixed = items.filter(({ kind }) => kind === null);
      const media = items.filter(({ kind }) => kind !== null);
      const around =
        overhead +
        surroundings(content, profile) +
        fixed.reduce((sum, { part }) => sum + encodedSize(part.bytes.byteLength, base64), 0);
      if (around > profile.maxBytes) {
        return fail(TOO_BIG, `${around} bytes are more than the ${profile.maxBytes} that the carrier takes`);
      }
      const most = decodedSize(profile.maxBytes - around, base64, media.length);
      const aim = decodedSize(Math.floor(profile.maxBytes * AIM) - around, base64, media.length);
      if (most < LEAST_PART * media.length) {
        return fail(TOO_BIG, `${around} of ${profile.maxBytes} bytes are taken before any media`);
      }
      const words = await share(media, profile, most, aim, notes, fitOne);
      if (words) return fail(words.error, words.words);
      const size = around + media.reduce((sum, item) => sum + encodedSize(sizeOf(item), base64), 0);
      // By construction it is not; a mistake here must not reach a carrier.
      if (size > profile.maxBytes) return fail(TOO_BIG, `${size} bytes are more than ${profile.maxBytes}`);
      return { ok: true, content: assemble(content, items), size, notes };
    },
  };
}

function sizeOf({ part, made }: Item): number {
  return (made?.ok ? made.bytes : null)?.byteLength ?? part.bytes.byteLength;
}

// ----------------------------------------------------------------------------------------------------------- what it is

/** Names in use for one type, besides those that `properType` sets right. */
const ALIASES: Record<string, string> = {
  'audio/x-wav': 'audio/wav',
  'text/x-vcard': 'text/vcard',
  'text/directory': 'text/vcard',
  'text/x-vcalendar': 'text/calendar',
};
const PICTURES = ['jpeg', 'png', 'gif', 'webp', 'avif', 'tiff', 'bmp'].map((name) => `image/${name}`);
const DRAWING = 'image/svg+xml';
const HEAD = 1024;

function bare(contentType: string): string {
  const type = named(contentType);
  return ALIASES[type] ?? type;
}

/** A content type as it is called, without parameters and misnomers. */
function named(contentType: string): string {
  return properType((contentType.split(';', 1)[0] as string).trim());
}

/**
 * The content with its texts called what they are: UTF-8 is said to be so (without a charset handsets read US-ASCII), and media that
 * somebody called text are media. The very one that was given where nothing changes.
 */
async function truly<C extends Content>(content: C): Promise<C> {
  const parts = await Promise.all(
    content.parts.map(async (part): Promise<Part> => {
      const { contentType, bytes } = part;
      if (!/^\s*text\//i.test(contentType) || OTHER_CHARSET.test(contentType)) return part;
      if (isText(bytes)) {
        if (!/^\s*text\/plain\s*(?:;|$)/i.test(contentType) || SAYS_UTF8.test(contentType) || isAscii(bytes))
          return part;
        const said = contentType.split(';').map((one) => one.trim());
        const others = said.filter((one) => one !== '' && !/^charset\s*=/i.test(one));
        return { ...part, contentType: [...others, 'charset=utf-8'].join('; ') };
      }
      // A text in a charset that nobody named may begin as media do (`BM`), and has nothing in it that only media have.
      const sniffed = isBinary(bytes) ? (await fileTypeFromBuffer(bytes))?.mime : undefined;
      if (sniffed === undefined || sniffed.startsWith('text/') || sniffed === 'application/xml') return part;
      return { ...part, contentType: properType(sniffed) };
    }),
  );
  return parts.every((part, index) => part === content.parts[index]) ? content : { ...content, parts };
}

const SAYS_UTF8 = /;\s*charset\s*=\s*"?utf-?8\b/i;
/** Bytes in these are no UTF-8, and text all the same. */
const OTHER_CHARSET = /;\s*charset\s*=(?!\s*"?(?:utf-?8|us-ascii|ascii)\b)/i;

/** The bytes are believed before the name that they came under. */
async function look(part: Part): Promise<Item> {
  const declared = bare(part.contentType);
  if (declared.startsWith('text/')) return { part, type: declared, kind: null, weight: 0, made: null };
  const sniffed = (await fileTypeFromBuffer(part.bytes))?.mime;
  let type = sniffed === undefined || sniffed === 'application/xml' ? declared : bare(sniffed);
  // Containers say what they are, not whether what they hold moves.
  if (type === 'video/3gpp' && declared === 'audio/3gpp') type = declared;
  if (type === 'video/mp4' && declared === 'audio/mp4') type = declared;
  if (type === 'application/zip' && declared === 'application/vnd.apple.pkpass') type = declared;
  if (isDrawing(part.bytes, declared)) type = DRAWING;
  // Every picture that is read begins with a mark of its own: without one it is none, whatever it is called.
  const picture = PICTURES.includes(type) && sniffed !== undefined;
  const kind = ((picture ? 'image' : /^(audio|video)\//.exec(type)?.[1]) as Kind | undefined) ?? null;
  return { part, type, kind, weight: kind === null ? 0 : WEIGHTS[kind], made: null };
}

function isDrawing(bytes: Uint8Array, declared: string): boolean {
  if (declared === DRAWING) return true;
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.byteLength, HEAD)).toString('latin1');
  return /^\s{0,100}(?:\xef\xbb\xbf)?(?:<\?xml[^>]{0,200}>\s{0,100})?(?:<![^>]{0,300}>\s{0,100}){0,3}<svg[\s>]/i.test(
    head,
  );
}

/** Whether a profile takes a type under any of its names. */
function taken(profile: Profile, type: string): boolean {
  if (takes(profile, type)) return true;
  if (Object.entries(ALIASES).some(([alias, name]) => name === type && takes(profile, alias))) return true;
  return profile.types.some((one) => properType(one) === type);
}

/** What can be said of a part before anything is made of it. */
function unfit({ type, kind }: Item, profile: Profile): { error: number; words: string } | null {
  // A drawing is a program: only where somebody asked for it by name.
  if (type === DRAWING && !profile.types.includes(DRAWING)) return { error: NOT_TAKEN, words: `${type} is not taken` };
  if (kind === null && PICTURES.includes(type) && !takes(profile, '*')) {
    return { error: NOT_TAKEN, words: `the bytes are not ${type}` };
  }
  if (kind === null && !taken(profile, type)) return { error: NOT_TAKEN, words: `${type} is not taken` };
  return null;
}

// ------------------------------------------------------------------------------------------------------------ the budget

/** Gives the media what there is, and makes them fit it. Null = all fit. */
async function share(
  media: Item[],
  profile: Profile,
  most: number,
  aim: number,
  notes: PartNote[],
  fitOne: (item: Item, want: ImageWant) => Promise<Kept>,
): Promise<{ error: number; words: string } | null> {
  const step = Math.max(64, Math.floor(profile.maxBytes / STEPS));
  const rounded = (bytes: number): number => (bytes >= step ? Math.floor(bytes / step) * step : Math.max(0, bytes));
  const types = (item: Item): string[] => {
    const family = item.kind === 'image' ? PICTURES : AV_TYPES;
    return [...new Set([...family, item.type])].filter((type) => taken(profile, type)).sort();
  };
  const fitAll = async (items: Item[], budget: (item: Item) => { most: number; aim: number }): Promise<void> => {
    await Promise.all(
      items.map(async (item) => {
        const pixels = item.kind === 'image' ? profile.image : profile.video;
        const { most, aim } = budget(item);
        const made = await fitOne(item, { types: types(item), ...pixels, most, aim });
        // Who takes everything takes also what we cannot read.
        const passes = !made.ok && made.why === 'broken' && takes(profile, '*') && sizeOf(item) <= most;
        item.made = passes ? { ok: true, bytes: null, contentType: item.part.contentType, made: null } : made;
      }),
    );
  };
  // Each alone first: often that is the end of it.
  await fitAll(media, () => ({ most: rounded(most), aim: rounded(aim) }));
  const sum = media.reduce((total, item) => total + sizeOf(item), 0);
  if (media.length > 1 && sum > most && media.every((item) => item.made?.ok)) {
    const alone = media.map(({ made }) => made);
    for (let round = 1; round <= ROUNDS; round++) {
      const cap = capFor(media, aim);
      const large = media.filter((item) => sizeOf(item) > cap * item.weight);
      await fitAll(large, (item) => {
        const part = rounded(Math.floor(cap * item.weight));
        return { most: part, aim: part };
      });
      const short = large.filter(({ made }) => made?.ok === false && made.why === 'size');
      if (short.length === 0 || round === ROUNDS) break;
      // A long sound cannot do with what a picture can: it gets more, the others less.
      for (const item of short) item.weight *= 2;
      for (const [index, item] of media.entries()) item.made = alone[index] ?? null;
    }
  }
  for (const { part, made } of media) {
    if (made?.ok && made.made && made.made.kind !== 'refused') {
      const { from } = made.made;
      notes.push({ contentId: part.contentId, from, ...(made.made.kind === 'made' ? { to: made.made.to } : {}) });
    }
    if (made?.ok === false) {
      if (made.from) notes.push({ contentId: part.contentId, from: made.from });
      return { error: made.why === 'size' ? TOO_BIG : NOT_TAKEN, words: `${part.contentId}: ${made.words}` };
    }
  }
  return null;
}

/** What sound and film may become. */
const AV_TYPES = ['audio/amr', 'audio/mp4', 'audio/aac', 'audio/mpeg', 'audio/3gpp', 'video/mp4', 'video/3gpp'];

/** The largest share of one weight at which all together keep to `aim`: who needs less leaves the rest to the others. */
function capFor(media: Item[], aim: number): number {
  const byNeed = [...media].sort((a, b) => sizeOf(a) / a.weight - sizeOf(b) / b.weight);
  let left = aim;
  let weights = byNeed.reduce((sum, item) => sum + item.weight, 0);
  for (const item of byNeed) {
    const cap = left / weights;
    if (sizeOf(item) > cap * item.weight) return cap;
    left -= sizeOf(item);
    weights -= item.weight;
  }
  return Number.POSITIVE_INFINITY;
}

// --------------------------------------------------------------------------------------------------------- what it weighs

/** Bytes of `size` in the transfer encoding: base64 has 76 characters and a line end for 57 bytes. */
function encodedSize(size: number, base64: boolean): number {
  if (!base64) return size;
  const characters = Math.ceil(size / 3) * 4;
  return characters + 2 * Math.ceil(characters / 76);
}

/** How many bytes `parts` parts may have together, so that they are encoded in `size`. */
function decodedSize(size: number, base64: boolean, parts: number): number {
  if (!base64) return Math.max(0, size);
  return Math.max(0, Math.floor(((size - 8 * parts) * 57) / 78));
}

/** All but the parts' own bytes: heads, frame, presentation, subject. Never less than what is sent. */
function surroundings(content: Content, profile: Profile): number {
  const base64 = profile.transferEncoding === 'base64';
  let sum = FRAME_BYTES + Buffer.byteLength(content.subject ?? '') * (profile.subject.encoding === 'rfc2047' ? 3 : 1);
  // A part may change its type and with it its name's end.
  for (const { contentId, contentType } of content.parts)
    sum += HEAD_BYTES + 3 * (contentId.length + 5) + Math.max(40, contentType.length);
  if (content.smil !== undefined) sum += HEAD_BYTES + encodedSize(Buffer.byteLength(content.smil) + 200, base64);
  else if (profile.smil !== 'none') {
    const names = content.parts.reduce((length, { contentId }) => length + contentId.length, 0);
    sum += HEAD_BYTES + encodedSize(SMIL_BYTES + SMIL_PART_BYTES * content.parts.length + names, base64);
  }
  return sum;
}

// ------------------------------------------------------------------------------------------------------------ the result

/** The content as it is sent; the very one that was given where nothing was changed. */
function assemble<C extends Content>(content: C, items: Item[]): C {
  const parts = items.map(({ part, type, made }): Part => {
    if (!made?.ok) return part;
    if (made.bytes === null) {
      const isCalled = named(part.contentType) === part.contentType.split(';', 1)[0]?.trim().toLowerCase();
      return isCalled && bare(part.contentType) === type ? part : { ...part, contentType: type };
    }
    return { ...part, contentType: made.contentType, bytes: made.bytes };
  });
  return parts.every((part, index) => part === content.parts[index]) ? content : { ...content, parts };
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('base64url').slice(0, 32);
}

/** A content as a lane submits it, or why it cannot be. */
export type LaneFit<C extends Content> = { ok: true; prepared: C } | { ok: false; error: number; words: string };

/**
 * `fit` for one carrier, remembered for as long as its content is: all claims of one content get the same parts, so that the
 * carrier prints them once. What is known is given at once and not as a promise.
 */
export function createLaneFit<C extends Content>(
  fitter: Fitter,
  profile: Profile,
  overhead = ENVELOPE_BYTES,
): (prepared: C) => LaneFit<C> | Promise<LaneFit<C>> {
  const known = new WeakMap<C, LaneFit<C> | Promise<LaneFit<C>>>();
  return (prepared) => {
    const before = known.get(prepared);
    if (before !== undefined) return before;
    const fitting = fitter.fit(prepared, profile, overhead).then(
      (fitted): LaneFit<C> => {
        const { ok } = fitted;
        const result: LaneFit<C> = ok
          ? { ok, prepared: fitted.content }
          : { ok, error: fitted.error, words: fitted.words };
        known.set(prepared, result);
        return result;
      },
      (error: unknown) => {
        known.delete(prepared);
        throw error;
      },
    );
    // Who waited for it may have left.
    fitting.catch(() => undefined);
    known.set(prepared, fitting);
    return fitting;
  };
}
