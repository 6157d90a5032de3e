/**
 * What fetched bytes are. The bytes themselves are believed first (their magic numbers), then the server, then the
 * customer, because servers mislabel media and customers guess. A web page in the place of media (a login, an error told with
 * status 200, a share page) is the commonest mistake of all and is refused, so that no handset gets HTML; so is a text where
 * the customer announced a picture, a sound or a video, and a "picture" whose bytes are none.
 *
 * Promises: pure but for file-type's promise; looks at no more than the head of large bodies. A content type that comes out
 * has no characters that could break a header.
 *
 * Fails: what cannot go into an MMS is a value with words for the customer.
 */
import { fileTypeFromBuffer } from 'file-type';

/** A content type for the wire, or why there is none. */
export type Kind = { ok: true; contentType: string } | { ok: false; words: string };

const TYPE = /^[a-z0-9][a-z0-9.+_-]{0,62}\/[a-z0-9][a-z0-9.+_-]{0,62}$/;
const CHARSET = /^[a-z0-9][a-z0-9._-]{0,39}$/;
/** Says nothing of what it is. */
const VAGUE = new Set([
  'application/octet-stream',
  'binary/octet-stream',
  'application/unknown',
  'application/x-download',
]);
const PAGES = new Set(['text/html', 'application/xhtml+xml']);
/** What else than images, audio, video and text may go into an MMS. */
const OTHERS = new Set(['application/pdf', 'application/smil', 'application/vnd.apple.pkpass', 'application/ogg']);
/** What is called otherwise by some (file-type, servers, people) than by those that show it. */
const MISNOMERS: Readonly<Record<string, string>> = {
  'image/jpg': 'image/jpeg',
  'image/pjpeg': 'image/jpeg',
  'image/apng': 'image/png',
  'image/x-ms-bmp': 'image/bmp',
  'audio/mp3': 'audio/mpeg',
  'audio/m4a': 'audio/mp4',
  'audio/x-m4a': 'audio/mp4',
  'audio/wave': 'audio/wav',
  'audio/vnd.wave': 'audio/wav',
  'video/mpg': 'video/mpeg',
  'video/mp1s': 'video/mpeg',
  'video/mp2p': 'video/mpeg',
};
/** Sniffed as the container that they are. */
const INSIDE: Record<string, string> = { 'application/vnd.apple.pkpass': 'application/zip' };
/** Their bytes are always known when they are what they say. */
const ALWAYS_KNOWN = new Set([
  'image/jpeg',
  'image/jpg',
  'image/png',
  'image/gif',
  'image/webp',
  'video/mp4',
  'application/pdf',
]);
const HEAD = 1024;

/** `text/plain; charset=utf-8` in lower case, or null where it is no content type or a vague one. */
function readType(header: string | null | undefined): { type: string; charset: string | null } | null {
  if (!header) return null;
  const [first, ...parameters] = header.slice(0, 300).toLowerCase().split(';');
  const type = (first as string).trim();
  if (!TYPE.test(type) || VAGUE.has(type)) return null;
  const charset = parameters
    .map((parameter) => parameter.trim())
    .find((parameter) => parameter.startsWith('charset='))
    ?.slice('charset='.length)
    .replaceAll('"', '');
  return { type, charset: charset && CHARSET.test(charset) ? charset : null };
}

/** The name in use for a media type without parameters, in lower case. */
export function properType(type: string): string {
  const lower = type.toLowerCase();
  return MISNOMERS[lower] ?? lower;
}

function mayGo(type: string): boolean {
  return /^(?:image|audio|video|text)\//.test(type) || OTHERS.has(type);
}

function looksLikePage(bytes: Uint8Array): boolean {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, HEAD)).toString('latin1');
  return /^(?:\xef\xbb\xbf)?\s{0,100}(?:<\?xml[^>]{0,200}>\s{0,100})?(?:<!--[^>]{0,300}-->\s{0,100})?<(?:!doctype\s+html|html|head|body)\b/i.test(
    head,
  );
}

/** Whether bytes are UTF-8 (US-ASCII too) without U+0000. */
export function isText(bytes: Uint8Array): boolean {
  if (bytes.includes(0)) return false;
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Whether bytes begin with some that no text has in a charset of single bytes (controls but for blanks and escapes): media do. */
export function isBinary(bytes: Uint8Array): boolean {
  return bytes.subarray(0, HEAD).some((byte) => byte < 0x20 && (byte < 0x09 || byte > 0x0d) && byte !== 0x1b);
}

/**
 * Some marks are words: a text may begin with `BM`, `ID3` or `solid`. What is said to be text, and is, is not what it looks like by
 * its first letters. A card is a text; and the marks of PDF and AMR are no words.
 */
function isTextLike(sniffed: string, bytes: Uint8Array, said: ReturnType<typeof readType>): boolean {
  if (sniffed.startsWith('text/') || MARKED.has(sniffed)) return false;
  if (said?.type.startsWith('text/') !== true) return false;
  const inOther = said.charset !== null && !/^utf-?8$/.test(said.charset);
  return isText(bytes) || (inOther && !isBinary(bytes));
}

const MARKED = new Set(['application/pdf', 'audio/amr']);

/**
 * The kind of fetched bytes.
 * @param served the answer's Content-Type
 * @param declared the segment's `contentType`
 */
export async function kindOf(bytes: Uint8Array, served: string | undefined, declared: string | null): Promise<Kind> {
  if (bytes.length === 0) return { ok: false, words: 'the link answered no bytes' };
  const byServer = readType(served);
  const byCustomer = readType(declared);
  // An XML declaration is the beginning of pages, drawings and SMIL alike: not what they are.
  const sniffed = (await fileTypeFromBuffer(bytes))?.mime as string | undefined;
  if (sniffed !== undefined && sniffed !== 'application/xml' && !isTextLike(sniffed, bytes, byServer ?? byCustomer)) {
    for (const said of [byServer, byCustomer])
      if (said && INSIDE[said.type] === sniffed) return { ok: true, contentType: said.type };
    return mayGo(sniffed)
      ? { ok: true, contentType: properType(sniffed) }
      : { ok: false, words: `the link answered ${sniffed}` };
  }
  if (looksLikePage(bytes) || (byServer !== null && PAGES.has(byServer.type))) {
    return { ok: false, words: 'the link answered a web page instead of media' };
  }
  const said = byServer ?? byCustomer;
  // text/plain is what servers say when they do not know.
  const better = said?.type === 'text/plain' && byCustomer !== null ? { ...byCustomer, charset: said.charset } : said;
  const isSeen = byCustomer !== null && /^(?:image|audio|video)\//.test(byCustomer.type);
  if (better === null) {
    if (isText(bytes)) return { ok: true, contentType: 'text/plain; charset=utf-8' };
    return { ok: false, words: 'nobody says what the link answered, and it cannot be told from the bytes' };
  }
  if (ALWAYS_KNOWN.has(better.type)) return { ok: false, words: `the link answered bytes that are not ${better.type}` };
  if (isSeen && better.type.startsWith('text/')) {
    return { ok: false, words: `the link answered ${better.type} instead of ${byCustomer.type}` };
  }
  if (!mayGo(better.type)) return { ok: false, words: `the link answered ${better.type}` };
  if (better.type.startsWith('text/') && !isText(bytes) && better.charset === null) {
    return { ok: false, words: `the link answered bytes that are not ${better.type}` };
  }
  const type = properType(better.type);
  return { ok: true, contentType: better.charset === null ? type : `${type}; charset=${better.charset}` };
}
