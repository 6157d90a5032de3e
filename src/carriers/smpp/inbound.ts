/**
 * What handsets send: a deliver_sm that is no receipt becomes a `CarrierInbound`, its pieces put together first.
 *
 * Promises: a message is handed on before its (last) deliver_sm is answered. Pieces may come in any order and twice. What waits for
 * its other pieces is bounded (`OPEN`, `OPEN_OCTETS`) and handed on as it is after `INCOMPLETE_MS`, or when it must make room, or at
 * the end: half a text is worth more than none. The id made for a message is the same when the SMSC repeats it because our answer
 * did not reach it, and another one when somebody sends the same words again.
 *
 * Fails: what the hook rejects is rejected to the caller, who asks the SMSC to repeat. Pieces that were answered and wait are lost with
 * the process: SMSCs that send one at a time would never send the next without an answer.
 */
import { createHash } from 'node:crypto';
import { international } from '../../domain/address.ts';
import type { CarrierInbound } from '../../domain/submission.ts';
import type { Env, Timer } from '../../env.ts';
import { HANDLER_MS } from './link.ts';
import type { Address, Pdu, ShortMessage } from './pdu.ts';
import { type Piece, readText, type TextOptions } from './text.ts';

const INCOMPLETE_MS = 10 * 60_000;
/** Messages that wait for pieces. */
const OPEN = 10_000;
const OPEN_OCTETS = 16 * 1024 * 1024;
/** A repetition comes within this time, from SMSCs seen in the field; ids are made of the bytes and this slice of time. */
const REPEAT_MS = 10 * 60_000;
/** Messages remembered to tell a repetition from a second one. */
const REMEMBERED = 10_000;

interface Part {
  text: string | null;
  octets: Uint8Array;
  id: string;
}

interface Open {
  key: string;
  first: ShortMessage;
  total: number;
  parts: Map<number, Part>;
  octets: number;
  timer: Timer;
}

export interface InboundOptions {
  /** The carrier's. */
  name: string;
  encoding: TextOptions['encoding'];
  env: Env;
  onInbound(mo: CarrierInbound): Promise<void>;
}

/** Takes what handsets send over all binds of one carrier. */
export class Inbound {
  private readonly options: InboundOptions;
  private readonly open = new Map<string, Open>();
  private openOctets = 0;
  /** By hash of the bytes: which id it has, and whether our answer was given. */
  private readonly seen = new Map<string, { at: number; count: number; answered: boolean }>();

  constructor(options: InboundOptions) {
    this.options = options;
  }

  /** Resolves when the message is handed on, or kept until its other pieces are there. Rejects as the hook does. */
  async take(pdu: Pdu & ShortMessage): Promise<void> {
    const { clock } = this.options.env;
    const began = clock.monotonic();
    const read = readText(pdu, this.options.encoding);
    const print = printOf(pdu);
    const part: Part = { text: read.text, octets: read.octets, id: this.idOf(print) };
    if (read.piece === null) await this.hand(pdu, [part], part.id);
    else await this.join(pdu, read.piece, part);
    const entry = this.seen.get(print);
    // Later than that, the link has asked for a repetition already.
    if (entry && clock.monotonic() - began < HANDLER_MS) entry.answered = true;
  }

  /** Hands on what is incomplete. Never rejects. */
  async flush(): Promise<void> {
    for (const one of [...this.open.values()]) await this.giveUp(one);
  }

  // ----------------------------------------------------------------------------------------------------------------- ids

  private idOf(print: string): string {
    const now = this.options.env.clock.now();
    let entry = this.seen.get(print);
    if (!entry || now - entry.at > REPEAT_MS) entry = { at: now, count: 0, answered: false };
    // The same bytes after an answer that reached its peer: said twice, not sent twice.
    else if (entry.answered) entry = { at: now, count: entry.count + 1, answered: false };
    this.seen.delete(print);
    this.seen.set(print, entry);
    if (this.seen.size > REMEMBERED) this.seen.delete(this.seen.keys().next().value as string);
    return `${print}-${Math.floor(entry.at / REPEAT_MS)}-${entry.count}`;
  }

  /** The connection ended before these answers can have arrived for sure: what is told again is a repetition. */
  unsure(sinceMs: number): void {
    for (const entry of this.seen.values()) if (entry.at >= sinceMs) entry.answered = false;
  }

  // ------------------------------------------------------------------------------------------------------------- joining

  private async join(pdu: ShortMessage, piece: Piece, part: Part): Promise<void> {
    const { reference, total, number } = piece;
    const key = [pdu.source.text, pdu.destination.text, reference, total].join('\0');
    let open = this.open.get(key);
    const same = open?.parts.get(number);
    if (open && same && !Buffer.from(same.octets).equals(part.octets)) {
      // References come round again: this one begins another message.
      await this.giveUp(open);
      open = this.open.get(key);
    }
    if (!open) {
      await this.makeRoom(part.octets.length);
      open = { key, first: pdu, total, parts: new Map(), octets: 0, timer: this.expiry(key) };
      this.open.set(key, open);
    }
    if (!open.parts.has(number)) {
      open.octets += part.octets.length;
      this.openOctets += part.octets.length;
      open.parts.set(number, part);
    }
    if (open.parts.size < total) return;
    // Closed only when it is handed on: a piece told again after a rejection completes it again.
    await this.handOpen(open);
    this.forget(open);
  }

  private expiry(key: string): Timer {
    return this.options.env.clock.setTimeout(() => {
      const open = this.open.get(key);
      if (open) void this.giveUp(open);
    }, INCOMPLETE_MS);
  }

  private async makeRoom(octets: number): Promise<void> {
    while (this.open.size >= OPEN || (this.openOctets + octets > OPEN_OCTETS && this.open.size > 0)) {
      const oldest = this.open.values().next().value as Open;
      await this.giveUp(oldest);
    }
  }

  private async giveUp(open: Open): Promise<void> {
    this.forget(open);
    const { log } = this.options.env;
    log.warn({ carrier: this.options.name, pieces: open.parts.size, total: open.total }, 'smpp: an incomplete message');
    try {
      await this.handOpen(open);
    } catch (error) {
      log.error({ err: error, carrier: this.options.name }, 'smpp: an incomplete message was lost');
    }
  }

  private forget(open: Open): void {
    if (this.open.get(open.key) !== open) return;
    this.open.delete(open.key);
    this.openOctets -= open.octets;
    open.timer.cancel();
  }

  private handOpen(open: Open): Promise<void> {
    const parts = [...open.parts].sort(([a], [b]) => a - b).map(([, part]) => part);
    const id = createHash('sha256')
      .update(parts.map((part) => part.id).join('\0'))
      .digest('hex')
      .slice(0, 40);
    return this.hand(open.first, parts, id);
  }

  private hand(pdu: ShortMessage, parts: Part[], id: string): Promise<void> {
    const text = parts.every((part) => part.text !== null) ? parts.map((part) => part.text).join('') : null;
    const bytes = text === null ? Buffer.concat(parts.map((part) => part.octets)) : Buffer.from(text.toWellFormed());
    const contentType = text === null ? 'application/octet-stream' : 'text/plain; charset=utf-8';
    return this.options.onInbound({
      carrier: this.options.name,
      channel: 'SMS',
      id,
      from: plain(pdu.source),
      to: [plain(pdu.destination)],
      cc: [],
      parts: [{ contentId: text === null ? 'data' : 'text', contentType, bytes }],
    });
  }
}

/** What tells one deliver_sm from another: all of it but the header. */
function printOf(pdu: ShortMessage): string {
  const hash = createHash('sha256');
  const { source, destination, esmClass, dataCoding, protocolId } = pdu;
  hash.update(JSON.stringify([source, destination, esmClass, dataCoding, protocolId, pdu.shortMessage.length]));
  hash.update(pdu.shortMessage);
  for (const { tag, value } of pdu.tlvs) hash.update(JSON.stringify([tag, value.length])).update(value);
  return hash.digest('hex').slice(0, 32);
}

/** Digits without `+` or `00`, or as it was written. */
export function plain({ text }: Address): string {
  return /^\+?\d+$/.test(text) ? international(text.replace(/^\+/, '')) : text;
}
