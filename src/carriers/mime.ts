/**
 * MIME multiparts in and out: the one place that prints MIME headers and takes bodies apart.
 *
 * Promises: no value of any field can add, end or change a header or a part: control characters never reach the wire, and a
 * boundary that occurs in a part is never used. Reading is linear, bounded, and copies no part that is not encoded.
 * `readMultipart(writeMultipart(x))` gives back x's bytes for each encoding.
 *
 * The splitter is our own and not Dicer's: peers put blanks behind delimiters (Dicer then loses that part's headers), end lines
 * with LF alone, and nest boundaries of which one begins with the other (`=_Part_1`, `=_Part_10`; Dicer ends the part there).
 * Dicer is the second opinion in the tests. Header values are nodemailer's work.
 *
 * Fails: reading never throws, it answers `{ ok: false }`; writing cannot fail.
 */
import { createHash } from 'node:crypto';
import { wrap } from 'nodemailer/lib/base64';
import { buildHeaderValue, parseHeaderValue } from 'nodemailer/lib/mime-funcs';

/** One part to write. */
export interface MimePartOut {
  /** e.g. `image/jpeg` or `text/plain; charset=utf-8`; what is no media type becomes `application/octet-stream`. */
  contentType: string;
  /** Without angle brackets. Characters that cannot stand in one become `_`. */
  contentId?: string;
  /** File name: the `name` parameter, and Content-Location where it is a plain one. */
  name?: string;
  /** How the bytes travel. `8bit` is for text without long lines; the bytes go out as they are. */
  encoding: 'binary' | 'base64' | '8bit';
  bytes: Uint8Array;
}

export interface MultipartOut {
  subtype: 'related' | 'mixed';
  /** multipart/related: media type of the root part. */
  type?: string;
  /** multipart/related: Content-ID of the root part, without angle brackets. */
  start?: string;
  parts: MimePartOut[];
  /** 1..70 of A-Z a-z 0-9 _ . = -; absent, or found in a part: derived from the content. */
  boundary?: string;
}

/** A body and the Content-Type that goes with it. */
export interface Multipart {
  contentType: string;
  body: Uint8Array;
}

/** Prints a multipart. A nested one is a part whose bytes are another's body, with its contentType. */
export function writeMultipart(out: MultipartOut): Multipart {
  const boundary = pickBoundary(out.boundary, out.parts);
  const chunks: Uint8Array[] = [];
  for (const part of out.parts) {
    chunks.push(Buffer.from(`--${boundary}\r\n${partHead(part)}`), encoded(part), CRLF);
  }
  chunks.push(Buffer.from(`--${boundary}--\r\n`));
  return { contentType: multipartType(out, boundary), body: Buffer.concat(chunks) };
}

/**
 * A multipart whose first part changes from one message to the next while the rest stays: its body is `opening`, the first
 * part's bytes, `closing`.
 */
export interface Frame {
  contentType: string;
  /** Up to and including the head of the first part. */
  opening: string;
  closing: Uint8Array;
}

/**
 * Prints all but the first part's bytes. The caller gives a boundary that nobody can know beforehand (16 random bytes as hex
 * will do), because the first part is not looked at.
 */
export function frameMultipart(
  out: MultipartOut & { first: Omit<MimePartOut, 'bytes' | 'encoding'>; boundary: string },
): Frame {
  const boundary = pickBoundary(out.boundary, out.parts);
  const chunks: Uint8Array[] = [];
  for (const part of out.parts) {
    chunks.push(Buffer.from(`\r\n--${boundary}\r\n${partHead(part)}`), encoded(part));
  }
  chunks.push(Buffer.from(`\r\n--${boundary}--\r\n`));
  return {
    contentType: multipartType(out, boundary),
    opening: `--${boundary}\r\n${partHead({ ...out.first, encoding: '8bit' })}`,
    closing: Buffer.concat(chunks),
  };
}

const CRLF = Buffer.from('\r\n');
const BOUNDARY = /^[A-Za-z0-9_.=-]{1,70}$/;

function pickBoundary(wanted: string | undefined, parts: MimePartOut[]): string {
  if (wanted !== undefined && BOUNDARY.test(wanted) && isFree(wanted, parts)) return wanted;
  // A part cannot contain the hash of itself, so the first one is free; looking costs little.
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${part.bytes.byteLength}:`).update(part.bytes);
  const base = hash.digest('hex').slice(0, 40);
  for (let n = 0; ; n++) {
    const boundary = `=_${base}${n === 0 ? '' : `_${n}`}`;
    if (isFree(boundary, parts)) return boundary;
  }
}

function isFree(boundary: string, parts: MimePartOut[]): boolean {
  // Base64 lines hold no hyphen.
  return parts.every((part) => part.encoding === 'base64' || asBuffer(part.bytes).indexOf(`--${boundary}`) < 0);
}

function multipartType(out: Omit<MultipartOut, 'parts'>, boundary: string): string {
  let value = `multipart/${out.subtype}; boundary="${boundary}"`;
  if (out.type !== undefined) value += `; type="${mediaType(out.type)}"`;
  if (out.start !== undefined) value += `; start="<${safeId(out.start)}>"`;
  return value;
}

/** Heads printed lately: the messages of a customer have the same few, and nodemailer takes 5 us for one. */
const heads = new Map<string, string>();
const HEADS = 1_000;
/** Longer ones are not kept. */
const HEAD_LENGTH = 500;

function partHead(part: Omit<MimePartOut, 'bytes'>): string {
  const key = JSON.stringify([part.contentType, part.contentId, part.name, part.encoding]);
  const known = heads.get(key);
  if (known !== undefined) return known;
  const head = printHead(part);
  if (key.length <= HEAD_LENGTH) {
    if (heads.size >= HEADS) heads.clear();
    heads.set(key, head);
  }
  return head;
}

function printHead(part: Omit<MimePartOut, 'bytes'>): string {
  const name = part.name === undefined || part.name === '' ? undefined : part.name.toWellFormed();
  let head = `Content-Type: ${contentTypeValue(part.contentType, name)}\r\n`;
  if (part.contentId !== undefined) head += `Content-ID: <${safeId(part.contentId)}>\r\n`;
  if (name !== undefined && /^[A-Za-z0-9._-]{1,200}$/.test(name)) head += `Content-Location: ${name}\r\n`;
  return `${head}Content-Transfer-Encoding: ${part.encoding}\r\n\r\n`;
}

/**
 * Media in base64, for as long as their bytes are kept: messages whose texts differ (short links) share their pictures. 300 KB take
 * some ms to wrap, each time.
 */
const wrapped = new WeakMap<Uint8Array, Buffer>();
/** Smaller ones are not worth it, and a message's own text is used once. */
const WRAPPED_LEAST = 8 * 1024;

function encoded(part: MimePartOut): Uint8Array {
  if (part.encoding !== 'base64') return part.bytes;
  const known = wrapped.get(part.bytes);
  if (known) return known;
  const made = Buffer.from(wrap(asBuffer(part.bytes).toString('base64')), 'latin1');
  if (part.bytes.byteLength >= WRAPPED_LEAST) wrapped.set(part.bytes, made);
  return made;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const TOKEN = /^[A-Za-z0-9!#$&^_.+-]{1,127}$/;
const UNKNOWN_TYPE = 'application/octet-stream';

/** The bare media type in lower case; application/octet-stream for what is none. */
export function mediaType(contentType: string): string {
  const value = contentType.split(';', 1)[0]!.trim().toLowerCase();
  const [type, subtype, ...more] = value.split('/');
  return more.length === 0 && TOKEN.test(type!) && TOKEN.test(subtype ?? '') ? value : UNKNOWN_TYPE;
}

/** A Content-Type that is safe in a header: built anew from its parsed pieces. */
function contentTypeValue(contentType: string, name: string | undefined): string {
  const { params } = parseHeaderValue(contentType.toWellFormed(), { stripComments: true });
  const kept: Record<string, string> = {};
  for (const key of Object.keys(params)) {
    if (TOKEN.test(key) && key !== 'name') kept[key] = params[key]!;
  }
  if (name !== undefined) kept.name = name;
  return buildHeaderValue({ value: mediaType(contentType), params: kept });
}

/** Content-IDs as this file prints them: visible ASCII without brackets, quotes and blanks, at most 200 characters. */
export function safeId(contentId: string): string {
  return contentId.replace(/[^A-Za-z0-9!#$&'*+/=?^_{|}~@.-]/g, '_').slice(0, 200) || '_';
}

// --------------------------------------------------------------------------------------------------------------- reading

/** One part as read. */
export interface MimePartIn {
  /** By name in lower case, unfolded; of repeated ones the first. */
  headers: Readonly<Record<string, string>>;
  /** As the peer wrote it; `text/plain` when there was none. */
  contentType: string;
  /** Without angle brackets and blanks around it. */
  contentId: string | null;
  /** Decoded by Content-Transfer-Encoding. Shares memory with the body where that was none. */
  bytes: Uint8Array;
}

export interface MultipartLimits {
  parts: number;
  /** Bytes of one part's headers. */
  headerBytes: number;
  /** Bytes of the body. */
  size: number;
}

const LIMITS: MultipartLimits = { parts: 100, headerBytes: 16 * 1024, size: 32 * 1024 * 1024 };

/** `fault` = what is wrong, in words. */
export type MultipartResult = { ok: true; parts: MimePartIn[] } | { ok: false; fault: string };

/** A header value in pieces: what stands before the first `;` in lower case, and its parameters by lower-case name. */
export function headerValue(value: string): { value: string; params: Readonly<Record<string, string>> } {
  const parsed = parseHeaderValue(value.slice(0, LIMITS.headerBytes), { stripComments: true });
  return { value: parsed.value.trim().toLowerCase(), params: parsed.params };
}

/**
 * Takes a multipart of any subtype apart, one level. Tolerant where peers are sloppy: LF line ends, blanks behind delimiters,
 * no final delimiter (the last part then goes to the end), Content-IDs without brackets, encodings in upper case.
 */
export function readMultipart(
  contentType: string,
  body: Uint8Array,
  limits: Partial<MultipartLimits> = {},
): MultipartResult {
  const { parts: maxParts, headerBytes, size } = { ...LIMITS, ...limits };
  const { value, params } = headerValue(contentType);
  if (!value.startsWith('multipart/')) return fault('not a multipart');
  const boundary = params.boundary;
  if (!boundary || boundary.length > 200) return fault('multipart without a usable boundary');
  if (body.byteLength > size) return fault(`multipart longer than ${size} bytes`);
  const buffer = asBuffer(body);
  const needle = Buffer.from(`--${boundary}`, 'utf8');
  const parts: MimePartIn[] = [];
  /** Where the current part begins; -1 = still in the preamble. */
  let start = -1;
  for (let from = 0; ; ) {
    const line = nextDelimiter(buffer, needle, from);
    if (start >= 0) {
      if (parts.length >= maxParts) return fault(`more than ${maxParts} parts`);
      const part = readPart(buffer.subarray(start, line ? Math.max(start, line.contentEnd) : undefined), headerBytes);
      if (typeof part === 'string') return fault(part);
      parts.push(part);
    }
    if (!line || line.last) break;
    start = line.next;
    from = line.next;
  }
  return parts.length > 0 ? { ok: true, parts } : fault('multipart without parts');
}

function fault(words: string): MultipartResult {
  return { ok: false, fault: words };
}

const CR = 13;
const LF = 10;
const DASH = 45;

interface Delimiter {
  /** Where the part before it ends: the line break belongs to the delimiter. */
  contentEnd: number;
  /** First byte after its line. */
  next: number;
  last: boolean;
}

/** The next line that is the delimiter and nothing but it (RFC 2046 5.1.1: `--boundary`, `--` on the last, blanks). */
function nextDelimiter(buffer: Buffer, needle: Buffer, from: number): Delimiter | null {
  for (let at = buffer.indexOf(needle, from); at >= 0; at = buffer.indexOf(needle, at + needle.length)) {
    if (at > 0 && buffer[at - 1] !== LF) continue;
    let end = at + needle.length;
    const last = buffer[end] === DASH && buffer[end + 1] === DASH;
    if (last) end += 2;
    while (buffer[end] === 32 || buffer[end] === 9) end++;
    if (end < buffer.length && buffer[end] !== LF && !(buffer[end] === CR && buffer[end + 1] === LF)) continue;
    const contentEnd = at > 1 && buffer[at - 2] === CR ? at - 2 : at - 1;
    return { contentEnd, next: end + (buffer[end] === CR ? 2 : 1), last };
  }
  return null;
}

function readPart(part: Buffer, headerBytes: number): MimePartIn | string {
  const headers: Record<string, string> = Object.create(null);
  let name = '';
  let at = 0;
  while (at < part.length) {
    if (at > headerBytes) return `headers of a part longer than ${headerBytes} bytes`;
    let end = part.indexOf(LF, at);
    if (end < 0) end = part.length;
    const stop = end > at && part[end - 1] === CR ? end - 1 : end;
    if (stop - at > headerBytes) return `headers of a part longer than ${headerBytes} bytes`;
    const line = words(part.subarray(at, stop));
    at = end + 1;
    if (line === '') break;
    if (line[0] === ' ' || line[0] === '\t') {
      if (name !== '') headers[name] += ` ${line.trim()}`;
      continue;
    }
    const colon = line.indexOf(':');
    name = colon > 0 ? line.slice(0, colon).trim().toLowerCase() : '';
    if (name in headers) name = '';
    if (name !== '') headers[name] = line.slice(colon + 1).trim();
  }
  const bytes = decode(part.subarray(Math.min(at, part.length)), headers['content-transfer-encoding']);
  if (typeof bytes === 'string') return bytes;
  const contentId = headers['content-id']?.trim().replace(/^<(.*)>$/, '$1') || null;
  return { headers, contentType: headers['content-type'] || 'text/plain', contentId, bytes };
}

/** Header bytes are UTF-8 (peers write raw file names), else ISO-8859-1. */
function words(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  return text.includes('\ufffd') ? bytes.toString('latin1') : text;
}

/** RFC 2047: words are at most 75 characters; sloppy peers write longer ones. */
const ENCODED_WORD = /=\?([\w.:-]{1,40})(?:\*[\w-]{0,40})?\?([BbQq])\?([!->@-~]{0,2000})\?=/g;

/**
 * A header's text with its encoded words decoded (RFC 2047). Neighbours in one character set are joined before they are decoded,
 * since peers cut characters in two. What is in a set that we do not know stays as it is.
 */
export function decodedWords(text: string): string {
  if (!text.includes('=?')) return text;
  let out = '';
  let at = 0;
  let pending: { charset: string; bytes: Buffer[]; written: string } | null = null;
  const flush = (): void => {
    if (pending) out += readable(Buffer.concat(pending.bytes), pending.charset) ?? pending.written;
    pending = null;
  };
  for (const { 0: written, 1: charset = '', 2: how = '', 3: word = '', index } of text.matchAll(ENCODED_WORD)) {
    const between = text.slice(at, index);
    // Blanks between two encoded words are none of the text.
    if (pending === null || between.trim() !== '') {
      flush();
      out += between;
    }
    at = index + written.length;
    const bytes =
      how.toUpperCase() === 'B'
        ? Buffer.from(word, 'base64')
        : Buffer.from(quotedPrintable(Buffer.from(word.replaceAll('_', '=20'), 'latin1')));
    if (pending === null || (pending as { charset: string }).charset !== charset.toLowerCase()) {
      flush();
      pending = { charset: charset.toLowerCase(), bytes: [], written: '' };
    }
    pending.bytes.push(bytes);
    pending.written += written;
  }
  flush();
  return out + text.slice(at);
}

function readable(bytes: Buffer, charset: string): string | null {
  try {
    return new TextDecoder(charset).decode(bytes);
  } catch {
    return null;
  }
}

/** A string is what is wrong. */
function decode(bytes: Buffer, encoding = 'binary'): Uint8Array | string {
  switch (
    encoding
      .replace(/\(.*|;.*/s, '')
      .trim()
      .toLowerCase()
  ) {
    case '':
    case '7bit':
    case '8bit':
    case 'binary':
      return bytes;
    case 'base64': {
      const text = bytes.toString('latin1');
      if (/[^A-Za-z0-9+/=\s]/.test(text)) return 'base64 with other characters in it';
      return Buffer.from(text, 'base64');
    }
    case 'quoted-printable':
      return quotedPrintable(bytes);
    default:
      return 'unknown Content-Transfer-Encoding';
  }
}

/** RFC 2045 6.7. A `=` that is no escape stays, as its robustness note suggests. */
function quotedPrintable(bytes: Buffer): Uint8Array {
  // Blanks before a line break were added on the way.
  const text = bytes.toString('latin1').replace(/(?<![ \t])[ \t]+(?=\r?\n|$)/g, '');
  const plain = text.replace(/=(?:\r?\n|$|([0-9A-Fa-f]{2}))/g, (_, hex?: string) =>
    hex === undefined ? '' : String.fromCharCode(Number.parseInt(hex, 16)),
  );
  return Buffer.from(plain, 'latin1');
}
