/**
 * The words and names of an MM's content: what a part is called on the wire, which segment a name in SMIL means, and how text
 * and title are written for a carrier that takes less than all of Unicode.
 *
 * Promises: pure; a wire name is `[A-Za-z0-9._-]{1,64}`, unique whatever the case, and no path; nothing that comes out of a
 * subject can break a header. Each function is total: any text goes in.
 */
import type { Segment } from './message.ts';
import type { Profile } from './profile.ts';
import { readSmil, srcFaults, srcsOf, type Target } from './smil.ts';
import type { Part } from './submission.ts';

// ----------------------------------------------------------------------------------------------------------------- names

const NAME_MAX = 64;

/** The last part of a URL's path where it is a plain file name, else ''. */
export function nameOf(url: string): string {
  const last = URL.parse(url)?.pathname.split('/').at(-1) ?? '';
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(last) ? last : '';
}

/** A name as carriers take it: letters lose their marks, anything else becomes `_`; '' where nothing of it remains. */
function safeName(name: string): string {
  // Far more than remains; folding text without end would cost more than it is worth.
  const plain = name
    .slice(0, 4 * NAME_MAX)
    .normalize('NFKD')
    .replace(/\p{M}+/gu, '')
    .replace(/[^A-Za-z0-9._-]+/g, '_')
    .replace(/^\.+/, '');
  if (/^[._-]*$/.test(plain)) return '';
  return shortened(plain, '');
}

/** `name` with `suffix` before its extension, within NAME_MAX. */
function shortened(name: string, suffix: string): string {
  const [, stem = '', extension = ''] = /^(.+?)(\.[A-Za-z0-9]{1,8})?$/.exec(name) ?? [];
  return stem.slice(0, NAME_MAX - extension.length - suffix.length) + suffix + extension;
}

/** What a part is called by its customer, and what it is called where that is nothing. */
export interface Wanted {
  contentId?: string;
  fallback: string;
}

/**
 * The names of a message's parts on the wire, in their order. Those that a customer gave come first, the plain ones before those
 * that must be changed, so that a name that could go out as it is does.
 */
export function wireNames(wanted: readonly Wanted[]): string[] {
  const names: string[] = wanted.map(() => '');
  const used = new Set<string>();
  const give = (index: number, safe: string): void => {
    let name = safe;
    for (let n = 2; used.has(name.toLowerCase()); n++) name = shortened(safe, `_${n}`);
    used.add(name.toLowerCase());
    names[index] = name;
  };
  const given = wanted.map(({ contentId }) => safeName(contentId ?? ''));
  wanted.forEach(({ contentId }, i) => {
    if (contentId && given[i] === contentId && !used.has(contentId.toLowerCase())) give(i, contentId);
  });
  given.forEach((safe, i) => {
    if (safe !== '' && names[i] === '') give(i, safe);
  });
  wanted.forEach(({ fallback }, i) => {
    if (names[i] === '') give(i, safeName(fallback) || 'part');
  });
  return names;
}

/** Extensions by media type; the first is what we give. */
const EXTENSIONS: Readonly<Record<string, readonly string[]>> = {
  'image/jpeg': ['jpg', 'jpeg', 'jpe', 'jfif'],
  'image/jpg': ['jpg', 'jpeg'],
  'image/png': ['png'],
  'image/gif': ['gif'],
  'image/webp': ['webp'],
  'image/bmp': ['bmp', 'dib'],
  'image/tiff': ['tif', 'tiff'],
  'image/heic': ['heic'],
  'image/avif': ['avif'],
  'image/vnd.wap.wbmp': ['wbmp'],
  'audio/amr': ['amr'],
  'audio/amr-wb': ['awb'],
  'audio/3gpp': ['3gp', '3gpp'],
  'audio/mpeg': ['mp3', 'mpga'],
  'audio/mp3': ['mp3'],
  'audio/mp4': ['m4a', 'mp4'],
  'audio/x-m4a': ['m4a'],
  'audio/aac': ['aac'],
  'audio/wav': ['wav'],
  'audio/x-wav': ['wav'],
  'audio/vnd.wave': ['wav'],
  'audio/midi': ['mid', 'midi'],
  'audio/sp-midi': ['mid', 'midi'],
  'audio/ogg': ['ogg', 'oga', 'opus'],
  'video/mp4': ['mp4', 'm4v'],
  'video/3gpp': ['3gp', '3gpp'],
  'video/3gpp2': ['3g2'],
  'video/mpeg': ['mpg', 'mpeg'],
  'video/quicktime': ['mov', 'qt'],
  'video/webm': ['webm'],
  'text/plain': ['txt', 'text'],
  'text/vcard': ['vcf', 'vcard'],
  'text/x-vcard': ['vcf', 'vcard'],
  'text/calendar': ['ics'],
  'text/x-vcalendar': ['vcs'],
  'application/pdf': ['pdf'],
  'application/smil': ['smil', 'smi'],
  'application/vnd.apple.pkpass': ['pkpass'],
};

function extensionsOf(contentType: string): readonly string[] {
  return EXTENSIONS[contentType.split(';', 1)[0]!.trim().toLowerCase()] ?? [];
}

/** What a part without a name is called: `text_1.txt`, `part_3.jpg`. `n` counts from 1. */
export function fallbackName(contentType: string, n: number): string {
  const isText = /^text\/plain\b/i.test(contentType.trim());
  return `${isText ? 'text' : 'part'}_${n}.${extensionsOf(contentType)[0] ?? 'bin'}`;
}

/**
 * File names for parts: their contentIds, with the extension that goes with the media type (handsets choose the viewer by it,
 * and content may have been re-encoded on the way). Unique whatever the case.
 */
export function fileNames(parts: readonly { contentId: string; contentType: string }[]): string[] {
  const used = new Set<string>();
  return parts.map(({ contentId, contentType }) => {
    const extensions = extensionsOf(contentType);
    const [, stem, own] = /^(.+?)(?:\.([A-Za-z0-9]{1,5}))?$/s.exec(contentId) ?? [];
    let name = contentId;
    if (extensions.length > 0 && !extensions.includes(own?.toLowerCase() ?? '')) {
      // What is no extension of anything we know belongs to the name (`photo.1`).
      const isExtension = own !== undefined && ALL_EXTENSIONS.has(own.toLowerCase());
      name = `${isExtension ? stem : contentId}.${extensions[0]}`;
    }
    const wanted = name;
    for (let n = 2; used.has(name.toLowerCase()); n++) name = shortened(wanted, `_${n}`);
    used.add(name.toLowerCase());
    return name;
  });
}

const ALL_EXTENSIONS = new Set([...Object.values(EXTENSIONS).flat(), 'bin']);

// ------------------------------------------------------------------------------------------------------------ references

/** What can be called by its name: a segment, with the name of its upload where there is one and it is known. */
export type Named = Pick<Segment, 'type'> & {
  contentId?: string;
  contentUrl?: string;
  uploadedContentId?: string;
  name?: string;
};

/** What the `src` of a presentation may mean. */
export interface Names {
  /** Segments that could be meant; SMIL itself is none. */
  readonly size: number;
  targetOf(src: string): Target;
  /** Indexes of segments that share a contentId with an earlier one which `src` asks for by that id. */
  twins(src: string): number[];
}

/**
 * The names of a message's segments, the surer before the vaguer: contentId as written, contentId as it travels, the id or
 * name of an upload, the file name of a link, the link. `cid:`, `./` and percent encoding in a `src` are seen through.
 */
export function namesOf(segments: readonly Named[]): Names {
  const levels = Array.from({ length: 4 }, () => new Map<string, number[]>());
  const add = (level: number, name: string | undefined, index: number): void => {
    if (!name) return;
    const map = levels[level] as Map<string, number[]>;
    const list = map.get(name);
    if (!list) map.set(name, [index]);
    else if (!list.includes(index)) list.push(index);
  };
  let size = 0;
  segments.forEach((segment, index) => {
    if (segment.type === 'SMIL') return;
    size++;
    const { contentId, contentUrl, uploadedContentId, name } = segment;
    add(0, contentId, index);
    if (contentId) add(1, safeName(contentId).toLowerCase(), index);
    for (const file of [name, uploadedContentId, contentUrl === undefined ? '' : nameOf(contentUrl)]) {
      if (!file) continue;
      add(2, file, index);
      add(3, safeName(file).toLowerCase(), index);
    }
    add(2, contentUrl, index);
  });

  type Found = { level: number; found: number[] } | null;
  const known = new Map<string, Found>();
  const look = (src: string): Found => {
    const whole = src.trim();
    const bare = whole.replace(/^cid:/i, '').replace(/^\.\//, '');
    const spellings = new Set([whole, bare, percentDecoded(bare)]);
    let safe: string[] | null = null;
    for (let level = 0; level < levels.length; level++) {
      const map = levels[level] as Map<string, number[]>;
      if (map.size === 0) continue;
      if (level % 2 === 1) safe ??= [...spellings].map((spelling) => safeName(spelling).toLowerCase());
      for (const key of level % 2 === 0 ? spellings : (safe as string[])) {
        const found = map.get(key);
        if (found) return { level, found };
      }
    }
    return null;
  };
  const find = (src: string): Found => {
    let found = known.get(src);
    if (found === undefined) {
      found = look(src);
      known.set(src, found);
    }
    return found;
  };
  return {
    size,
    targetOf(src) {
      const found = find(src)?.found;
      return found === undefined ? 'nothing' : found.length > 1 ? 'several' : (found[0] as number);
    },
    twins(src) {
      const found = find(src);
      return found?.level === 0 ? found.found.slice(1) : [];
    },
  };
}

function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** What is wrong with a message's segments: the index of a segment, its member, and words for the customer. */
export interface SegmentFault {
  segment: number;
  member: 'smil' | 'contentId';
  words: string;
}

/** Words for a contentId that stands twice and that SMIL refers to. */
export const TWIN = 'must be unique because SMIL refers to it';

/**
 * Checks the presentation of a message: well-formed, the only one, and every `src` leading to one segment. A presentation that
 * is the whole message (as in a published sample) has nothing to refer to, so its `src` are not judged; nor are those that may be
 * the name of an upload while these are not known (`uploads` absent; `maybe` then says so).
 */
export function checkSmil(segments: readonly (Named & { smil?: string })[]): {
  faults: SegmentFault[];
  maybe: boolean;
} {
  const faults: SegmentFault[] = [];
  let maybe = false;
  let first = true;
  const names = namesOf(segments);
  segments.forEach(({ type, smil }, segment) => {
    if (type !== 'SMIL' || smil === undefined) return;
    if (!first) {
      faults.push({ segment, member: 'smil', words: 'must be the only SMIL segment of the message' });
      return;
    }
    first = false;
    const read = readSmil(smil);
    if (!read.ok) {
      for (const words of read.faults) faults.push({ segment, member: 'smil', words });
      return;
    }
    if (names.size === 0) return;
    const twins = new Set(srcsOf(read.smil).flatMap((src) => names.twins(src)));
    for (const twin of twins) faults.push({ segment: twin, member: 'contentId', words: TWIN });
    const unnamed = segments.some((one) => one.type === 'UPLOADED_REFERENCE' && one.name === undefined);
    for (const words of srcFaults(read.smil, (src) => {
      const target = names.targetOf(src);
      if (target === 'several' && names.twins(src).length > 0) return 0;
      if (target !== 'nothing' || !unnamed) return target;
      maybe = true;
      return 0;
    })) {
      faults.push({ segment, member: 'smil', words });
    }
  });
  return { faults, maybe };
}

// ------------------------------------------------------------------------------------------------------ text and subject

/** What NFKD does not take apart, by its nearest ASCII. */
const NEAREST: Readonly<Record<string, string>> = {
  ...Object.fromEntries([...'\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4'].map((quote) => [quote, "'"])),
  ...Object.fromEntries([...'\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb'].map((quote) => [quote, '"'])),
  ...Object.fromEntries([...'\u2010\u2011\u2012\u2013\u2014\u2015\u2212'].map((dash) => [dash, '-'])),
  ...{ '\u2039': '<', '\u203a': '>', '\u2022': '*', '\u00b7': '*', '\u2044': '/', '\u00d7': 'x', '\u00f7': '/' },
  ...{ '\u20ac': 'EUR', '\u00a3': 'GBP', '\u00a5': 'JPY', '\u20b9': 'INR', '\u20ba': 'TRY', '\u20bd': 'RUB' },
  ...{
    '\u00a9': '(c)',
    '\u00ae': '(R)',
    '\u00b0': 'deg',
    '\u00b1': '+/-',
    '\u00b5': 'u',
    '\u00a7': 'Sec.',
    '\u00b6': 'Par.',
  },
  ...{ '\u00a1': '!', '\u00bf': '?', '\u00a2': 'c', '\u00a6': '|' },
  ...{ '\u00df': 'ss', '\u1e9e': 'SS', '\u00e6': 'ae', '\u00c6': 'AE', '\u0153': 'oe', '\u0152': 'OE' },
  ...{
    '\u00f8': 'o',
    '\u00d8': 'O',
    '\u0111': 'd',
    '\u0110': 'D',
    '\u00f0': 'd',
    '\u00d0': 'D',
    '\u00fe': 'th',
    '\u00de': 'Th',
  },
  ...{
    '\u0142': 'l',
    '\u0141': 'L',
    '\u0131': 'i',
    '\u0127': 'h',
    '\u0126': 'H',
    '\u0167': 't',
    '\u0166': 'T',
    '\u014b': 'ng',
  },
};

/** Text in US-ASCII: each letter by its nearest (`ß` = ss, `é` = e, `€` = EUR), what has none (emoji, other scripts) as `?`. */
export function toAscii(text: string): string {
  if (/^[\0-\x7f]*$/.test(text)) return text;
  let out = '';
  // Composed first, so that a letter and its mark count as one.
  for (const { segment } of GRAPHEMES.segment(text.normalize('NFC'))) {
    if (/^[\0-\x7f]+$/.test(segment)) {
      out += segment;
      continue;
    }
    const ascii = [...segment].map(nearest).join('');
    // Several signs that make one emoji, or a letter and its marks, are one sign that is missing.
    out += /^\?+$/.test(ascii) ? '?' : ascii;
  }
  return out;
}

const GRAPHEMES = new Intl.Segmenter('en', { granularity: 'grapheme' });

function nearest(letter: string): string {
  const known = NEAREST[letter];
  if (known !== undefined) return known;
  const plain = letter.normalize('NFKD').replace(/\p{M}+/gu, '');
  let out = '';
  for (const one of plain) out += one <= '\x7f' ? one : (NEAREST[one] ?? (/\p{Cf}|\p{M}/u.test(one) ? '' : '?'));
  return out;
}

/** The first `max` code points at most, ended where a reader sees a whole character. */
function cut(text: string, max: number): string {
  if ([...text].length <= max) return text;
  let out = '';
  let left = max;
  for (const { segment } of GRAPHEMES.segment(text)) {
    left -= [...segment].length;
    if (left < 0) break;
    out += segment;
  }
  return out;
}

/**
 * A title as a carrier's Subject: one line, at most the carrier's length (cut where a reader sees a whole character), in its
 * encoding. '' = none.
 */
export function subjectFor(title: string, { length, encoding }: Profile['subject']): string {
  const line = title
    .toWellFormed()
    .replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
    .trim();
  if (encoding === 'us-ascii') return cut(toAscii(line), length).trimEnd();
  const short = cut(line, length).trimEnd();
  return encoding === 'rfc2047' ? encodedWords(short) : short;
}

/** Octets of text in one encoded word: 75 characters less `=?UTF-8?B?` and `?=` hold 15 groups of base64 (RFC 2047, 2). */
const WORD_BYTES = 45;

/** RFC 2047: as it is where it is plain ASCII that cannot be taken for an encoded word, else words of whole characters. */
function encodedWords(text: string): string {
  if (/^[\x20-\x7e]*$/.test(text) && !text.includes('=?')) return text;
  const words: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length > 0) words.push(`=?UTF-8?B?${Buffer.from(bytes).toString('base64')}?=`);
    bytes = [];
  };
  for (const letter of text) {
    const more = Buffer.from(letter, 'utf8');
    if (bytes.length + more.length > WORD_BYTES) flush();
    bytes.push(...more);
  }
  flush();
  return words.join(' ');
}

/** Text as a part of a carrier that takes this charset. */
export function textPart(
  text: string,
  charset: Profile['text']['charset'],
): { contentType: string; bytes: Uint8Array } {
  const plain = charset === 'us-ascii' ? toAscii(text) : text.toWellFormed();
  return { contentType: `text/plain; charset=${charset}`, bytes: Buffer.from(plain, 'utf8') };
}

/** What is said in a message: its subject and, among its parts, its texts. */
interface Said {
  subject?: string;
  parts: Part[];
}

/** 355 EC_MSG_TEXT_TOO_LONG. */
const TOO_LONG = 355;

/**
 * Texts and subject as a carrier of this profile takes them: texts in its charset whatever theirs was, the subject in its length
 * and encoding. The same object where nothing changes. `ok: false`: a text is longer than the carrier takes; none is ever cut.
 */
export function wordsFor<Content extends Said>(
  content: Content,
  profile: Pick<Profile, 'text' | 'subject'>,
): { ok: true; content: Content } | { ok: false; error: number; words: string } {
  const { charset, length } = profile.text;
  let parts = content.parts;
  for (const [i, part] of content.parts.entries()) {
    const own = charsetOf(part.contentType);
    if (own === null) continue;
    const text = decoded(part.bytes, own);
    if (text === null) continue;
    const written = own === charset && charset === 'utf-8' ? null : textPart(text, charset);
    // A letter may have become three.
    const said = charset === 'us-ascii' ? toAscii(text) : text;
    if (said.length > length && [...said].length > length) {
      return {
        ok: false,
        error: TOO_LONG,
        words: `a text of ${[...said].length} characters; the carrier takes ${length}`,
      };
    }
    if (written === null || (own === charset && Buffer.from(part.bytes).equals(written.bytes))) continue;
    if (parts === content.parts) parts = [...parts];
    parts[i] = { ...part, ...written };
  }
  const subject = content.subject === undefined ? undefined : subjectFor(content.subject, profile.subject);
  if (parts === content.parts && subject === content.subject) return { ok: true, content };
  const { subject: _, ...rest } = content;
  return { ok: true, content: { ...rest, ...(subject ? { subject } : {}), parts } as Content };
}

/** The charset of plain text in lower case, `utf-8` where none is said; null = no plain text. */
function charsetOf(contentType: string): string | null {
  if (!/^\s*text\/plain\s*(?:;|$)/i.test(contentType)) return null;
  const charset = /;\s*charset\s*=\s*"?([\w.:-]{1,40})/i.exec(contentType)?.[1]?.toLowerCase() ?? 'utf-8';
  return charset === 'utf8' ? 'utf-8' : charset === 'ascii' ? 'us-ascii' : charset;
}

/** Null for a charset that nobody here reads: such a text goes out as it is. */
function decoded(bytes: Uint8Array, charset: string): string | null {
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    return null;
  }
}
