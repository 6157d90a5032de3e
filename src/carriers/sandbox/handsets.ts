/**
 * The handsets as HTTP shows them: what lies on one, its parts as bytes. Pure over the ledger's rows.
 *
 * Promises: whatever a part claims to be, a browser that opens it runs no script of it. Text is decoded by its charset; where
 * that is not known, or the text is long, only the link to the bytes is given.
 */
import { createHash } from 'node:crypto';
import { formatInstant } from '../../domain/schedule.ts';
import type { HandsetMessage, HandsetPart } from './ledger.ts';
import type { HandsetSms } from './smsc-ledger.ts';

/** Longer text parts are not shown inline. */
const TEXT_BYTES = 64 * 1024;
/** Text shown inline in one answer. */
const ANSWER_TEXT_BYTES = 4 * 1024 * 1024;

/** A part as the list of messages shows it. */
interface PartView extends HandsetPart {
  text?: string;
  /** Absolute. */
  url: string;
}

export interface MessageView {
  channel: 'MMS' | 'SMS';
  from: string;
  to: string[];
  subject: string;
  /** As every date of the product. */
  receivedAt: string;
  /** The MMSC's MessageID; of an SMS, the SMSC's id of the segment that completed it. */
  id: string;
  /** Of an SMS: all its segments put together. */
  text?: string;
  parts: PartView[];
}

/** @param base scheme and authority of the links. @param bytes content by SHA-256. */
export function viewMessages(
  messages: HandsetMessage[],
  msisdn: string,
  base: string,
  bytes: (sha256: string) => Uint8Array | null,
): MessageView[] {
  let room = ANSWER_TEXT_BYTES;
  return messages.map((message) => ({
    channel: 'MMS',
    from: message.from,
    to: message.to,
    subject: message.subject,
    receivedAt: formatInstant(message.receivedAt),
    id: message.id,
    parts: message.parts.map((part, n) => {
      const url = `${base}/sandbox/handsets/${msisdn}/messages/${message.id}/parts/${n}`;
      if (!isText(part.contentType) || part.size > Math.min(TEXT_BYTES, room)) return { ...part, url };
      const content = bytes(part.sha256);
      const text = content && decodeText(part.contentType, content);
      if (text === null) return { ...part, url };
      room -= part.size;
      return { ...part, text, url };
    }),
  }));
}

/** Texts as messages of one part. */
export function viewSms(texts: HandsetSms[], msisdn: string, base: string): MessageView[] {
  return texts.map(({ id, from, text, receivedAt }) => ({
    channel: 'SMS',
    from,
    to: [msisdn],
    subject: '',
    receivedAt: formatInstant(receivedAt),
    id,
    text,
    parts: [{ ...smsPart(text).part, text, url: `${base}/sandbox/handsets/${msisdn}/messages/${id}/parts/0` }],
  }));
}

/** A text as the part that its link gives. */
export function smsPart(text: string): { part: HandsetPart; bytes: Uint8Array } {
  const bytes = Buffer.from(text);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return {
    part: { contentType: 'text/plain; charset=utf-8', contentId: 'text', size: bytes.length, sha256 },
    bytes,
  };
}

/** Two lists, each oldest first, as one. */
export function inOrder(messages: MessageView[]): MessageView[] {
  return messages.sort((a, b) => (a.receivedAt < b.receivedAt ? -1 : a.receivedAt > b.receivedAt ? 1 : 0));
}

function essence(contentType: string): string {
  return contentType.replace(/;.*$/s, '').trim().toLowerCase();
}

function isText(contentType: string): boolean {
  const type = essence(contentType);
  return type.startsWith('text/') || type === 'application/smil' || type === 'application/smil+xml';
}

/** Null = not decodable. Without a charset: UTF-8, else Windows-1252. */
function decodeText(contentType: string, bytes: Uint8Array): string | null {
  const charset = /;\s*charset="?([^";\s]+)/i.exec(contentType)?.[1];
  try {
    return new TextDecoder(charset ?? 'utf-8', { fatal: charset === undefined }).decode(bytes);
  } catch {
    return charset === undefined ? new TextDecoder('windows-1252').decode(bytes) : null;
  }
}

/** Types that a browser may show in place; all else is offered as a download. */
const SHOWN = /^(?:image\/(?!svg)|audio\/|video\/|text\/plain$)/;

/** Headers of a part's bytes. */
export function partHeaders(part: HandsetPart): Record<string, string> {
  const shown = SHOWN.test(essence(part.contentType));
  return {
    'content-type': part.contentType,
    'x-content-type-options': 'nosniff',
    'content-security-policy': "sandbox; default-src 'none'",
    'content-disposition': shown ? 'inline' : 'attachment',
    'cache-control': 'no-store',
  };
}
