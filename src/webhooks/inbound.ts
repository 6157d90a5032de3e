/**
 * What handsets send, on its way in: a carrier tells a message, its bytes become content, its words are looked at for STOP and
 * its like, and one verb of the store does the rest.
 *
 * Promises: resolves after the commit, with the id under which the customer sees the message (the same for a repetition); bytes
 * are durable before the row that names them. Short texts stand in the message itself, in Unicode, whatever charset they had.
 *
 * Fails: rejects with StoreUnavailable or a bug; the carrier must then be told to repeat.
 */
import { hash } from 'node:crypto';
import type { Ids } from '../domain/ids.ts';
import { INBOUND_PARTS } from '../domain/inbound.ts';
import { askOf, type OptOutWords } from '../domain/optout.ts';
import type { InboundPart } from '../domain/rows.ts';
import type { CarrierInbound, Part } from '../domain/submission.ts';
import type { Log } from '../env.ts';
import type { Store } from '../store/contract.ts';

/** Longer texts are content, like pictures. */
const TEXT_BYTES = 16 * 1024;
/** Numbers had from the store at a time. */
const BLOCK = 1_000;
/** Recipients kept, of `to` and of `cc`. */
const RECIPIENTS = 200;
const SUBJECT = 400;
const NAME = 200;

/** What main gives to the intake. */
export interface IntakeOptions {
  store: Pick<Store, 'inbound' | 'putContent' | 'reserve'>;
  ids: Ids;
  words: OptOutWords;
  log: Log;
}

/** Takes what a carrier tells; `id` = the message as the customer knows it. */
export type TakeInbound = (message: CarrierInbound) => Promise<{ id: string }>;

/** The hook that carriers call for messages from handsets. */
export function createInboundIntake(options: IntakeOptions): TakeInbound {
  const { store, ids, words, log } = options;
  let numbers: Promise<{ next: number; end: number }> | null = null;

  async function number(): Promise<number> {
    for (;;) {
      numbers ??= store.reserve(BLOCK).then((first) => ({ next: first, end: first + BLOCK }));
      const mine = numbers;
      let block: { next: number; end: number };
      try {
        block = await mine;
      } catch (error) {
        if (numbers === mine) numbers = null;
        throw error;
      }
      if (block.next < block.end) return block.next++;
      if (numbers === mine) numbers = null;
    }
  }

  return async function take(message) {
    const parts: InboundPart[] = [];
    const texts: string[] = [];
    for (const part of message.parts.slice(0, INBOUND_PARTS)) {
      const text = textOf(part);
      if (text !== null) texts.push(text);
      const contentHash = text === null ? hash('sha256', part.bytes) : null;
      if (contentHash !== null) await store.putContent(contentHash, part.bytes);
      parts.push({
        contentId: clean(part.contentId).slice(0, NAME),
        contentType: clean(part.contentType).slice(0, NAME) || 'application/octet-stream',
        size: part.bytes.byteLength,
        hash: contentHash,
        text,
      });
    }
    const asks = askOf(texts.length > 0 ? texts.join(' ') : (message.subject ?? ''), words);
    const no = await number();
    const { carrier, channel, priority, userAgent } = message;
    const taken = await store.inbound({
      no,
      carrier,
      id: clean(message.id),
      channel,
      from: clean(message.from).slice(0, NAME),
      to: message.to.slice(0, RECIPIENTS).map((to) => clean(to).slice(0, NAME)),
      cc: message.cc.slice(0, RECIPIENTS).map((cc) => clean(cc).slice(0, NAME)),
      subject: message.subject === undefined ? null : clean(message.subject).slice(0, SUBJECT),
      ...(priority === undefined ? {} : { priority }),
      ...(userAgent === undefined ? {} : { userAgent: clean(userAgent).slice(0, NAME) }),
      parts,
      answers: message.answers === undefined ? null : clean(message.answers),
      asks,
    });
    const id = ids.print('message', taken.no);
    const line = { carrier, carrierMessageId: message.id, channel, messageId: id, parts: parts.length };
    if (taken.kind === 'duplicate') log.info(line, 'inbound message repeated by its carrier');
    else {
      const { account, owned, recorded } = taken;
      const asked = asks === null ? {} : { asks, recorded };
      if (owned) log.info({ ...line, account, ...asked }, 'inbound message');
      // Somebody should say whose number that is.
      else {
        const told = { ...line, to: message.to[0] ?? '', account, ...asked };
        log.warn(told, "inbound message to a number that nobody owns: the first account's");
      }
    }
    return { id };
  };
}

/** No U+0000, which text columns cannot hold, and no lone surrogates, which JSON in UTF-8 cannot. */
function clean(text: string): string {
  return text.replaceAll('\0', '').toWellFormed();
}

/** The text of a short text part; null = it is no text, too long, or not in a charset that we know. */
function textOf({ contentType, bytes }: Part): string | null {
  const [type, ...parameters] = contentType.toLowerCase().split(';');
  if (type?.trim() !== 'text/plain' || bytes.byteLength > TEXT_BYTES) return null;
  const charset = parameters
    .map((parameter) => parameter.split('=', 2))
    .find(([name]) => name?.trim() === 'charset')?.[1]
    ?.trim()
    .replaceAll('"', '');
  // What says us-ascii is often more; UTF-8 reads it as it is.
  const label = charset === undefined || charset === '' || charset === 'us-ascii' ? 'utf-8' : charset;
  const text = decoded(label, bytes);
  // Who names no charset and means none of these means the oldest.
  return text === null && label !== charset ? decoded('windows-1252', bytes) : text;
}

/** Null = we do not know that charset, or the bytes are not in it. */
function decoded(label: string, bytes: Uint8Array): string | null {
  try {
    const decoder = new TextDecoder(label, { fatal: true });
    // Names of UTF-16 and UCS-2 that leave the order of bytes open.
    const open = decoder.encoding === 'utf-16le' && !label.endsWith('le');
    return clean((open ? new TextDecoder(orderOf(bytes), { fatal: true }) : decoder).decode(bytes));
  } catch {
    return null;
  }
}

/** By the mark at its beginning; without one the higher byte comes first (RFC 2781), unless the zero bytes tell otherwise. */
function orderOf(bytes: Uint8Array): 'utf-16le' | 'utf-16be' {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return 'utf-16le';
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return 'utf-16be';
  const zeros = [0, 0];
  for (const [at, byte] of bytes.entries()) if (byte === 0) zeros[at % 2]!++;
  return zeros[1]! > zeros[0]! ? 'utf-16le' : 'utf-16be';
}
