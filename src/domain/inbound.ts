/**
 * Messages from handsets as customers see them: the item of the inbound webhook (format MO_MMS_2), the item of
 * GET /mms/1/inbox/reports, and the tokens behind the URLs of their parts. Pure: keys and time are arguments.
 *
 * Promises: members as published (Infobip MMS API, "Receive inbound MMS messages" and "Get inbound MMS messages"); a part has
 * either `value` or `url`, which strict clients insist on. A token opens one part until its time; it cannot be guessed or made
 * without the installation's key (HMAC-SHA-256, 128 bits kept).
 */
import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Ids } from './ids.ts';
import { NO_PRICE } from './report.ts';
import type { InboundRow } from './rows.ts';
import { formatInstant } from './schedule.ts';

/** How long after its arrival the parts of an inbound message can be fetched by their URLs. */
export const INBOUND_URL_MS = 7 * 86_400_000;

/** Parts of an inbound message that are kept; further ones are left out. */
export const INBOUND_PARTS = 100;

/** URLs of parts: what they begin with, and the tokens at their end. */
export interface PartUrls {
  of(no: number, part: number, receivedAt: number): string;
}

/** One item of the webhook: `{results: [item...], messageCount, pendingMessageCount}`. */
export function inboundItem(row: InboundRow, ids: Ids, urls: PartUrls): object {
  return {
    from: row.from,
    to: row.to,
    receivedAt: formatInstant(row.receivedAt),
    messageId: ids.print('message', row.no),
    // Members that are undefined do not appear.
    pairedMessageId: pairedId(row, ids),
    callbackData: row.callbackData ?? undefined,
    userAgent: row.userAgent ?? undefined,
    message: row.parts.map(({ contentType, text }, part) =>
      text === null
        ? { contentType, url: urls.of(row.no, part, row.receivedAt) }
        : { contentType: contentType.split(';')[0]?.trim(), value: text },
    ),
    group: row.group.length === 0 ? undefined : row.group,
    price: NO_PRICE,
    channel: row.channel === 'SMS' ? row.channel : undefined,
    entityId: row.entity ?? undefined,
    applicationId: row.application ?? undefined,
  };
}

/** The body of the webhook for some messages. `pending`: how many more wait for the same endpoint. */
export function inboundBody(rows: readonly InboundRow[], pending: number, ids: Ids, urls: PartUrls): string {
  const results = rows.map((row) => inboundItem(row, ids, urls));
  return JSON.stringify({ results, messageCount: results.length, pendingMessageCount: pending });
}

/** One item of the pull: its `message` is a text that holds JSON, as published. */
export function inboxItem(row: InboundRow, ids: Ids, urls: PartUrls): object {
  return {
    messageId: ids.print('message', row.no),
    to: row.to,
    from: row.from,
    message: JSON.stringify({
      mms_parts: row.parts.map(({ contentType, contentId, text }, part) =>
        text === null
          ? { origin: 'url', contentType, contentId, url: urls.of(row.no, part, row.receivedAt) }
          : { origin: 'text', contentType, contentId, value: text },
      ),
      userAgent: row.userAgent ?? null,
      priority: row.priority ?? null,
      subject: row.subject,
    }),
    group: row.group.length === 0 ? undefined : row.group,
    receivedAt: formatInstant(row.receivedAt),
    mmsCount: 1,
    pairedMessageId: pairedId(row, ids),
    callbackData: row.callbackData ?? undefined,
    price: NO_PRICE,
    channel: row.channel === 'SMS' ? row.channel : undefined,
    applicationId: row.application ?? undefined,
    entityId: row.entity ?? undefined,
  };
}

function pairedId(row: InboundRow, ids: Ids): string | undefined {
  return row.paired === null ? undefined : (row.paired.key ?? ids.print('message', row.paired.no));
}

/** Makes and reads the tokens of parts. */
export interface PartTokens {
  print(no: number, part: number, expiresAt: number): string;
  /** The part that a token opens at `now`; null = it is not ours, or its time is over. */
  parse(token: string, now: number): { no: number; part: number } | null;
}

const HEAD = 7 + 2 + 6;
const MAC = 16;

/** `key`: 32 hex digits, the installation's key of ids. */
export function createPartTokens(key: string): PartTokens {
  const secret = Buffer.from(key, 'hex');
  const mac = (head: Buffer): Buffer =>
    createHmac('sha256', secret).update('inbound part\0').update(head).digest().subarray(0, MAC);
  return {
    print(no, part, expiresAt) {
      const head = Buffer.alloc(HEAD);
      head.writeUIntBE(Math.floor(no / 2 ** 32), 0, 3);
      head.writeUInt32BE(no % 2 ** 32, 3);
      head.writeUInt16BE(part, 7);
      head.writeUIntBE(expiresAt, 9, 6);
      return Buffer.concat([head, mac(head)]).toString('base64url');
    },
    parse(token, now) {
      if (!/^[\w-]{42}$/.test(token)) return null;
      const bytes = Buffer.from(token, 'base64url');
      const head = bytes.subarray(0, HEAD);
      if (bytes.length !== HEAD + MAC || !timingSafeEqual(bytes.subarray(HEAD), mac(head))) return null;
      if (head.readUIntBE(9, 6) <= now) return null;
      return { no: head.readUIntBE(0, 3) * 2 ** 32 + head.readUInt32BE(3), part: head.readUInt16BE(7) };
    },
  };
}

/** Where the parts of inbound messages are fetched, below a server's base URL. */
export const PART_PATH = '/mms/1/inbox/content/';

/** URLs of parts under `publicUrl` (no slash at its end), good for INBOUND_URL_MS from the arrival. */
export function createPartUrls(publicUrl: string, key: string): PartUrls {
  const tokens = createPartTokens(key);
  return {
    of: (no, part, receivedAt) => publicUrl + PART_PATH + tokens.print(no, part, receivedAt + INBOUND_URL_MS),
  };
}
