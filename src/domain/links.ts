/**
 * Short links: which URLs stand in a message's texts, the token that stands for one of them in one destination's text, and
 * what a click is worth. Pure: keys and time are arguments.
 *
 * Promises: a token is a 64-bit block cipher of (message, link), so it needs no row and no index, two destinations never share
 * one, and who has some can neither guess nor count the others. A URL keeps its place in the message's list from the accept
 * on (`Spec.links`), whatever a later version would find. Fails: what is no token is null; a number that no token can hold
 * throws RangeError (2^48 messages).
 */
import { createCipheriv, createHmac } from 'node:crypto';
import { LinkifyIt } from 'linkify-it';
import tlds from 'tlds' with { type: 'json' };
import type { Content, SmsFailover, Tracking } from './message.ts';

/** Where tokens are opened, below a server's base URL or a custom domain. */
export const LINK_PATH = '/l/';

/** Different URLs of one message that are shortened; further ones stay as they are. A token has 8 bits for them. */
export const LINKS_MAX = 100;

/** How long short links work unless the operator says otherwise. */
export const LINK_KEEP_MS = 90 * 86_400_000;

/** A URL longer than this stays as it is: no browser is sure to follow it. */
const URL_MAX = 2_048;

// ------------------------------------------------------------------------------------------------------------- in texts

/** Zones in which a name without `http://` or `www.` and without a path is taken for a link: in others it may be a slip of the pen. */
const PLAIN_ZONES = /\.(com|org|net|info|biz|edu|gov|int|mil|app|dev|shop|store|online|site|[a-z]{2}|xn--[a-z0-9-]+)$/;

let finder: LinkifyIt | null = null;

/** Made at first use: its patterns know all top-level domains and take some ms. */
function find(text: string): ReturnType<LinkifyIt['match']> {
  finder ??= new LinkifyIt({ fuzzyLink: true, fuzzyEmail: true, urlAuth: true, tlds, maxLength: URL_MAX })
    .add('ftp:', null)
    .add('//', null);
  return finder.match(text.replace(GLUED, (glued) => ' '.repeat(glued.length)));
}

/**
 * What stands right before a link and is no part of another: an emoji or a word in a script without blanks, the mark between two
 * links, a sign such as in `Link=https://...` (in a query it belongs to the link around it).
 */
const GLUED = /(?:[^\p{ASCII}]|[,;|=+])(?=https?:\/\/)(?<=[^=+]|(?:^|\s)[^\s:/.]*[=+])/giu;

/** A URL in a text: from `start` to `end` (UTF-16), leading to `url`. */
interface FoundLink {
  start: number;
  end: number;
  url: string;
}

/**
 * The web addresses in a text. With `http://` or `https://`, whatever follows is taken up to what cannot belong to it
 * (trailing punctuation, an unmatched bracket). Without: names under a known top-level domain in lower case, where they begin
 * with `www.`, have a path or a query, or end in a zone in common use; they lead to `http://`. Mail addresses are none.
 */
export function findLinks(text: string): FoundLink[] {
  // Nothing below is a link without one of these, and most texts have neither.
  if (!text.includes('.') && !text.includes('://')) return [];
  const found: FoundLink[] = [];
  for (const { schema, index, lastIndex, raw, url } of find(text) ?? []) {
    if (schema !== '' && !/^https?:$/i.test(schema)) continue;
    if (schema === '' && !isPlainLink(raw)) continue;
    const parsed = URL.parse(url);
    if (parsed === null || !/^https?:$/.test(parsed.protocol) || parsed.hostname === '') continue;
    found.push({ start: index, end: lastIndex, url });
  }
  return found;
}

function isPlainLink(raw: string): boolean {
  const host = /^[^/?#:]+/.exec(raw)?.[0] ?? '';
  if (host.length < raw.length) return host === host.toLowerCase();
  if (/^www\./i.test(host)) return true;
  return host === host.toLowerCase() && PLAIN_ZONES.test(host);
}

/** Whether links in a message's texts are to be shortened. */
export function shortens(tracking: Tracking | undefined): tracking is Tracking {
  return tracking !== undefined && tracking.shortenUrl !== false;
}

/** The different URLs in a message's texts and in its SMS failover, in their order; at most LINKS_MAX. */
export function linksOf(content: Content, smsFailover: Pick<SmsFailover, 'text'> | undefined): string[] {
  const urls = new Set<string>();
  const texts = content.messageSegments.flatMap((segment) => (segment.type === 'TEXT' ? [segment.text] : []));
  for (const text of [...texts, ...(smsFailover ? [smsFailover.text] : [])]) {
    for (const { url } of findLinks(text)) if (urls.size < LINKS_MAX) urls.add(url);
  }
  return [...urls];
}

/** A text as what stands between its links, and the links by their place in the message's list. */
export type Pieces = readonly (string | number)[];

/** Cuts a text at those of its links that are in `urls`; null = none is. */
export function cutText(text: string, urls: readonly string[]): Pieces | null {
  const pieces: (string | number)[] = [];
  let at = 0;
  for (const { start, end, url } of findLinks(text)) {
    const link = urls.indexOf(url);
    if (link < 0) continue;
    pieces.push(text.slice(at, start), link);
    at = end;
  }
  if (pieces.length === 0) return null;
  pieces.push(text.slice(at));
  return pieces;
}

/** Makes the texts of single messages. */
export interface Shortener {
  /** The text that the message `no` gets: each link in its short form. */
  textFor(pieces: Pieces, no: number, tracking: Tracking): string;
}

/** Short links under `publicUrl` (no slash at its end), or under the custom domain that a message asks for (https). */
export function createShortener(publicUrl: string, key: string): Shortener {
  const tokens = createLinkTokens(key);
  return {
    textFor(pieces, no, { customDomain, removeProtocol }) {
      const base = customDomain ? `https://${customDomain.toLowerCase()}` : publicUrl;
      const start = (removeProtocol === true ? base.replace(/^https?:\/\//i, '') : base) + LINK_PATH;
      return pieces.map((piece) => (typeof piece === 'string' ? piece : start + tokens.print(no, piece))).join('');
    },
  };
}

// --------------------------------------------------------------------------------------------------------------- tokens

/** Tokens of (message, link) pairs under one key. */
export interface LinkTokens {
  /** TOKEN_LENGTH of 0-9, A-Z, a-z. */
  print(no: number, link: number): string;
  /** Null = no token of ours: of all texts of this form, one in 256 passes and names a message that is hardly there. */
  parse(token: string): { no: number; link: number } | null;
}

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const VALUES = new Map([...DIGITS].map((digit, value) => [digit, BigInt(value)]));
const TOKEN_LENGTH = 11;
const ROUNDS = 8;

/** `key`: 32 hex digits, the installation's key of ids; what tokens use is derived from it. Throws RangeError for another form. */
export function createLinkTokens(key: string): LinkTokens {
  if (!/^[0-9a-f]{32}$/i.test(key)) throw new RangeError('the key of tokens must be 32 hex digits');
  const derived = createHmac('sha256', Buffer.from(key, 'hex')).update('link token').digest().subarray(0, 16);
  // Kept open: a context per token would cost more than the rounds.
  const cipher = createCipheriv('aes-128-ecb', derived, null).setAutoPadding(false);
  const block = Buffer.alloc(16);
  const mix = (round: number, half: number): number => {
    block.fill(0);
    block[0] = round;
    block.writeUInt32BE(half, 1);
    return cipher.update(block).readUInt32BE(0);
  };
  return {
    print(no, link) {
      if (!Number.isSafeInteger(no) || no < 0 || no >= 2 ** 48) throw new RangeError(`no token for the number ${no}`);
      if (!Number.isInteger(link) || link < 0 || link > 255) throw new RangeError(`no token for the link ${link}`);
      let left = Math.floor(no / 2 ** 16);
      // The last eight bits stay zero: what lacks them was guessed.
      let right = ((no % 2 ** 16) * 2 ** 16 + link * 2 ** 8) >>> 0;
      for (let round = 0; round < ROUNDS; round++) [left, right] = [right, (left ^ mix(round, right)) >>> 0];
      let value = (BigInt(left) << 32n) | BigInt(right);
      let token = '';
      for (let n = 0; n < TOKEN_LENGTH; n++, value /= 62n) token = DIGITS[Number(value % 62n)] + token;
      return token;
    },
    parse(token) {
      if (token.length !== TOKEN_LENGTH) return null;
      let value = 0n;
      for (const digit of token) {
        const digitValue = VALUES.get(digit);
        if (digitValue === undefined) return null;
        value = value * 62n + digitValue;
      }
      if (value >= 1n << 64n) return null;
      let left = Number(value >> 32n);
      let right = Number(value & 0xffffffffn);
      for (let round = ROUNDS - 1; round >= 0; round--) [left, right] = [(right ^ mix(round, left)) >>> 0, left];
      if ((right & 0xff) !== 0) return null;
      return { no: left * 2 ** 16 + Math.floor(right / 2 ** 16), link: (right >>> 8) & 0xff };
    },
  };
}

// --------------------------------------------------------------------------------------------------------------- clicks

/**
 * Why a look at a link is not counted as a human's: HEAD = only the headers were asked for; PREFETCH = the request says that it
 * is a browser's own, ahead of the user; BOT = a program that says what it is, or nothing at all; PREVIEW = one that draws
 * previews for a messaging app; EARLY = so soon after the delivery that nobody has read it, and no handset's browser.
 */
export type ClickFlag = 'HEAD' | 'PREFETCH' | 'BOT' | 'PREVIEW' | 'EARLY';

/** What tells a human from a program. */
export interface ClickSigns {
  method: string;
  /** '' = none was sent. */
  userAgent: string;
  /** The headers Sec-Purpose, Purpose, X-Purpose and X-Moz, whichever were sent. */
  purpose: string;
  /** Epoch ms of the click, and of the delivery where it is known. */
  at: number;
  deliveredAt: number | null;
}

/** A message is not read sooner. */
const EARLY_MS = 2_000;

/** Programs of messaging apps and security gateways that open links by themselves and that lists of crawlers leave out. */
const PREVIEWERS =
  /whatsapp|telegrambot|viber|skypeuripreview|facebookexternalhit|facebookcatalog|facebot|twitterbot|linkedinbot|slackbot|slack-imgproxy|discordbot|snapchat.*preview|googlemessages|google-pagerenderer|applebot|link-?preview|linkpreview|imessage|line-poker|kakaotalk-scrap|barracuda|mimecast|proofpoint|safelinks|urlpreview/i;

/** `isBot`: a well-kept list of crawlers. */
export function clickFlag(signs: ClickSigns, isBot: (userAgent: string) => boolean): ClickFlag | null {
  const { method, userAgent, purpose, at, deliveredAt } = signs;
  if (method === 'HEAD') return 'HEAD';
  if (/prefetch|prerender|preview/i.test(purpose)) return 'PREFETCH';
  if (PREVIEWERS.test(userAgent)) return 'PREVIEW';
  if (userAgent === '' || isBot(userAgent)) return 'BOT';
  if (deliveredAt !== null && at - deliveredAt < EARLY_MS && !HANDSET.test(userAgent)) return 'EARLY';
  return null;
}

const HANDSET = /\b(?:android|iphone|ipad|ipod|mobile|kaios|windows phone|harmonyos|opera mini)\b/i;

/** What a click's webhook tells beside its message. '' = not known. */
export interface ClickFacts {
  url: string;
  at: number;
  deviceType: string;
  os: string;
  deviceName: string;
  geo: { countryName: string; city: string } | null;
}

/** What a click's webhook tells of its message. */
export interface ClickedMessage {
  messageId: string;
  bulkId: string;
  to: string;
  callbackData: string | null;
  entity: string | null;
  application: string | null;
}

/**
 * The body of a click's webhook (Infobip MMS API, "Receive MMS tracking notifications"): one object, members in the documented
 * order; what is not known is absent.
 */
export function clickBody(message: ClickedMessage, click: ClickFacts): string {
  const { deviceType, os, deviceName, geo } = click;
  const known = deviceType !== '' || os !== '' || deviceName !== '';
  return JSON.stringify({
    notificationType: 'CLICKED',
    recipient: message.to,
    url: click.url,
    sendDateTime: click.at,
    messageId: message.messageId,
    bulkId: message.bulkId,
    callbackData: message.callbackData ?? undefined,
    recipientInfo: known
      ? { deviceType: deviceType || undefined, os: os || undefined, deviceName: deviceName || undefined }
      : undefined,
    geoLocationInfo:
      geo === null ? undefined : { countryName: geo.countryName || undefined, city: geo.city || undefined },
    applicationId: message.application ?? undefined,
    entityId: message.entity ?? undefined,
  });
}
