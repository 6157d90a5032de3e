/**
 * What a carrier takes: a profile, pure data, by name (`PROFILES`) or written out. Content is fitted to it (`media/fit.ts`), text
 * and subject are printed by it.
 *
 * Promises: `readProfile` gives a complete profile or every mistake at once, in words that name the key and what would be
 * right. Nothing here throws.
 *
 * Sources: the content classes of the OMA MMS conformance document (text to megapixel: sizes, pixels and media), the sizes that
 * carriers publish (300 KB at all of them, 600 KB and 1 MB at many).
 */

/** What one carrier takes. Sizes in bytes, lengths in code points, pixels as displayed. */
export interface Profile {
  /** The whole content as it is sent: presentation, parts in their transfer encoding, their heads. 1 KiB = 1024. */
  readonly maxBytes: number;
  /** Media parts, the presentation not counted. */
  readonly maxParts: number;
  /** Media types taken: `image/jpeg`, `image/` with a star, or star slash star (any). */
  readonly types: readonly string[];
  /** Largest picture; a picture may stand upright or lie, so the longer side counts against the larger number. */
  readonly image: { readonly width: number; readonly height: number };
  /** Largest moving picture, likewise. */
  readonly video: { readonly width: number; readonly height: number };
  readonly text: { readonly length: number; readonly charset: 'utf-8' | 'us-ascii' };
  /** base64 makes a third more of each part. */
  readonly transferEncoding: 'binary' | 'base64';
  /** `required`: a message without a presentation gets one. `none`: sent as multipart/mixed without one. */
  readonly smil: 'required' | 'optional' | 'none';
  /** How the subject travels: as UTF-8 text, as ASCII (others become their nearest), or as an RFC 2047 encoded word. */
  readonly subject: { readonly length: number; readonly encoding: 'utf-8' | 'us-ascii' | 'rfc2047' };
}

const KIB = 1024;
const MIB = 1024 * KIB;

const TEXT = ['text/plain'];
const CARDS = ['text/x-vcard', 'text/vcard', 'text/x-vcalendar', 'text/calendar'];
const BASIC = [...TEXT, ...CARDS, 'image/jpeg', 'image/gif', 'image/vnd.wap.wbmp', 'audio/amr'];
const RICH = [...BASIC, 'audio/sp-midi', 'audio/midi'];
const VIDEO = [...RICH, 'video/3gpp'];
/** What handsets of today and the carriers between take. */
const USUAL = [
  ...VIDEO,
  ...['image/png', 'video/mp4', 'video/mpeg', 'audio/mpeg', 'audio/mp4', 'audio/aac', 'audio/wav', 'audio/3gpp'],
  'application/pdf',
];

const BASE: Profile = {
  maxBytes: 300 * KIB,
  maxParts: 20,
  types: USUAL,
  image: { width: 1600, height: 1200 },
  video: { width: 640, height: 480 },
  text: { length: 1600, charset: 'utf-8' },
  transferEncoding: 'binary',
  smil: 'required',
  subject: { length: 66, encoding: 'utf-8' },
};

const QCIF = { width: 176, height: 144 };
const VGA = { width: 640, height: 480 };

/** The ready-made profiles by name. `any` is the sandbox's and that of a carrier without one: nothing is reduced that can be sent. */
export const PROFILES = {
  any: {
    ...BASE,
    maxBytes: 30 * MIB,
    maxParts: 100,
    types: ['*/*'],
    image: { width: 16_384, height: 16_384 },
    video: { width: 8192, height: 8192 },
    // TEXT segments end at 4 096 at the door; an uploaded text may be longer.
    text: { length: 30 * MIB, charset: 'utf-8' },
    smil: 'optional',
  },
  text: { ...BASE, maxBytes: 30 * KIB, types: TEXT },
  'image-basic': { ...BASE, maxBytes: 30 * KIB, types: BASIC, image: { width: 160, height: 120 }, video: QCIF },
  'image-rich': { ...BASE, maxBytes: 100 * KIB, types: RICH, image: VGA, video: QCIF },
  'video-basic': { ...BASE, maxBytes: 100 * KIB, types: VIDEO, image: VGA, video: QCIF },
  'video-rich': { ...BASE, types: [...VIDEO, 'video/mp4'], image: VGA, video: QCIF },
  megapixel: { ...BASE, types: [...VIDEO, 'video/mp4'], video: QCIF },
  '300k': BASE,
  '600k': { ...BASE, maxBytes: 600 * KIB, image: { width: 2048, height: 1536 } },
  '1m': { ...BASE, maxBytes: MIB, image: { width: 2560, height: 1920 }, video: { width: 1280, height: 720 } },
} as const satisfies Record<string, Profile>;

export type ProfileName = keyof typeof PROFILES;

/** A profile, or everything that is wrong with it: `transferEncoding must be binary or base64`. */
export type ProfileResult = { ok: true; profile: Profile } | { ok: false; mistakes: string[] };

/** Whether a media type (without parameters, in lower case) is taken. */
export function takes(profile: Pick<Profile, 'types'>, type: string): boolean {
  return profile.types.some(
    (taken) => taken === '*/*' || taken === type || (taken.endsWith('/*') && type.startsWith(taken.slice(0, -1))),
  );
}

/** Limits of what may be asked for; beyond it a number is a mistake. */
const MOST = { bytes: 30 * MIB, parts: 100, types: 200, pixels: 65_535, text: 30 * MIB, subject: 1000 };
const LEAST_BYTES = 4 * KIB;
const TYPE = /^(?:\*\/\*|[a-z0-9][a-z0-9.+_-]{0,62}\/(?:\*|[a-z0-9][a-z0-9.+_-]{0,62}))$/;

/**
 * Reads a profile as an operator writes it: a name, or an object of `Profile`'s keys where those that are absent come from the
 * profile that its key `like` names (default `300k`). Sizes may be written as 300KiB or 1MiB.
 */
export function readProfile(input: unknown): ProfileResult {
  const names = Object.keys(PROFILES).join(', ');
  if (typeof input === 'string') {
    if (!Object.hasOwn(PROFILES, input)) return { ok: false, mistakes: [`must be one of ${names}, or an object`] };
    return { ok: true, profile: PROFILES[input as ProfileName] };
  }
  if (!isObject(input)) return { ok: false, mistakes: [`must be one of ${names}, or an object`] };
  const mistakes: string[] = [];
  const like = input.like ?? '300k';
  if (typeof like !== 'string' || !Object.hasOwn(PROFILES, like)) {
    return { ok: false, mistakes: [`like must be one of ${names}`] };
  }
  const base: Profile = PROFILES[like as ProfileName];
  const known = ['like', ...Object.keys(BASE)];
  for (const key of Object.keys(input)) {
    if (!known.includes(key)) mistakes.push(`${shown(key)} is unknown; known are ${known.join(', ')}`);
  }

  const whole = (key: string, value: unknown, min: number, max: number, fallback: number): number => {
    if (value === undefined || value === null) return fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    mistakes.push(`${key} must be a whole number from ${min} to ${max}`);
    return fallback;
  };
  const choice = <const T extends string>(key: string, value: unknown, values: readonly T[], fallback: T): T => {
    if (value === undefined || value === null) return fallback;
    if (values.includes(value as T)) return value as T;
    mistakes.push(`${key} must be ${values.slice(0, -1).join(', ')} or ${values.at(-1)}`);
    return fallback;
  };
  /** An object of these keys; an empty one where it is absent or none. */
  const group = (key: string, keys: string[]): Record<string, unknown> => {
    const value = input[key];
    if (value === undefined || value === null) return {};
    if (!isObject(value)) {
      mistakes.push(`${key} must be an object with ${keys.join(' and ')}`);
      return {};
    }
    for (const inner of Object.keys(value)) {
      if (!keys.includes(inner)) mistakes.push(`${key}.${shown(inner)} is unknown; known are ${keys.join(', ')}`);
    }
    return value;
  };
  const pixels = (key: 'image' | 'video'): { width: number; height: number } => {
    const value = group(key, ['width', 'height']);
    return {
      width: whole(`${key}.width`, value.width, 16, MOST.pixels, base[key].width),
      height: whole(`${key}.height`, value.height, 16, MOST.pixels, base[key].height),
    };
  };
  const types = (): readonly string[] => {
    const value = input.types;
    if (value === undefined || value === null) return base.types;
    if (Array.isArray(value) && value.length > 0 && value.length <= MOST.types) {
      const lower = value.map((one) => (typeof one === 'string' ? one.trim().toLowerCase() : ''));
      if (lower.every((one) => TYPE.test(one))) return [...new Set(lower)];
    }
    mistakes.push(`types must be a list of 1 to ${MOST.types} media types like image/jpeg, image/* or */*`);
    return base.types;
  };

  const text = group('text', ['length', 'charset']);
  const subject = group('subject', ['length', 'encoding']);
  const profile: Profile = {
    maxBytes: bytes(input.maxBytes, base.maxBytes, mistakes),
    maxParts: whole('maxParts', input.maxParts, 1, MOST.parts, base.maxParts),
    types: types(),
    image: pixels('image'),
    video: pixels('video'),
    text: {
      length: whole('text.length', text.length, 1, MOST.text, base.text.length),
      charset: choice('text.charset', text.charset, ['utf-8', 'us-ascii'], base.text.charset),
    },
    transferEncoding: choice('transferEncoding', input.transferEncoding, ['binary', 'base64'], base.transferEncoding),
    smil: choice('smil', input.smil, ['required', 'optional', 'none'], base.smil),
    subject: {
      length: whole('subject.length', subject.length, 0, MOST.subject, base.subject.length),
      encoding: choice('subject.encoding', subject.encoding, ['utf-8', 'us-ascii', 'rfc2047'], base.subject.encoding),
    },
  };
  return mistakes.length > 0 ? { ok: false, mistakes } : { ok: true, profile: Object.freeze(profile) };
}

function bytes(value: unknown, fallback: number, mistakes: string[]): number {
  if (value === undefined || value === null) return fallback;
  const found = typeof value === 'string' ? /^(\d{1,9}) ?(KiB|MiB)?$/.exec(value) : null;
  const unit = found?.[2] === 'MiB' ? MIB : found?.[2] === 'KiB' ? KIB : 1;
  const size = found ? Number(found[1]) * unit : value;
  if (typeof size === 'number' && Number.isInteger(size) && size >= LEAST_BYTES && size <= MOST.bytes) return size;
  mistakes.push('maxBytes must be a size from 4KiB to 30MiB, in bytes or like 300KiB');
  return fallback;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A key as it may stand in a line. */
function shown(key: string): string {
  return /^[\w.-]{1,40}$/.test(key) ? key : JSON.stringify(key.slice(0, 40));
}
