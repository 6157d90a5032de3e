/**
 * Texts in SMPP messages: an SMS as the submit_sm that carry it, and the text of what an SMSC delivers. Pure.
 *
 * Promises: what is sent and what `splitText` counts are the same segments. Repetitions of one submission (same transaction id)
 * have the same concatenation reference, so that a handset puts pieces of both together. Any delivered octets get a text.
 *
 * Fails: `encodeSms` tells, as a value, what cannot be sent at all.
 */

import {
  type Alphabet,
  decodeGsm,
  encodeGsm,
  packSeptets,
  type SplitText,
  splitText,
  unpackSeptets,
} from '../../domain/sms.ts';
import type { SmsSubmission } from '../../domain/submission.ts';
import { type Address, ESM, type ShortMessage, shortMessage, TAG, type Tlv, tlvNumber, tlvOf } from './pdu.ts';

/** What of a carrier's settings shapes its messages. */
export interface TextOptions {
  serviceType: string;
  /** Whether international numbers carry a leading `+`. */
  plus: boolean;
  /** Type of number and numbering plan; by what the address is where absent. */
  addressing: { sourceTon?: number; sourceNpi?: number; destTon?: number; destNpi?: number };
  /** What data_coding 0 means to the carrier; `packed`: 8 septets in 7 octets (rare; both ways). */
  encoding: { default: Alphabet; packed: boolean };
  /** How pieces of a long text say that they belong together: a header in the text, sar TLVs, or one PDU with all of it. */
  concatenation: 'udh' | 'sar' | 'payload';
  /** Which segments ask for a receipt. */
  registeredDelivery: 'last' | 'all' | 'none';
  validity: 'absolute' | 'relative' | 'none';
  /** Tag of the TLV that carries `resellerCode`, as ASCII digits. */
  resellerCodeTlv?: number;
  /** Tag of the TLV that carries our transaction id, for peers that drop repetitions by it. */
  transactionTlv?: number;
}

const UCS2 = 0x08;
/** Pieces of one message that an 8-bit count can tell apart. */
const PIECES_MAX = 255;
/** Octets in one message_payload. */
const PAYLOAD_MAX = 65_535;
const TON = { unknown: 0, international: 1, shortCode: 3, alphanumeric: 5 } as const;
const NPI = { unknown: 0, isdn: 1 } as const;
/** Up to here a number is a short code: E.164 numbers are longer. */
const SHORT_CODE_DIGITS = 6;

/** One submission as PDUs. `segments[i]`: how many the i-th counts as, for rates. */
export type Encoded =
  | { ok: true; messages: ShortMessage[]; segments: number[] }
  /** `error`: id of the error table. */
  | { ok: false; error: number; words: string };

/** @param now epoch ms, for a relative validity. */
export function encodeSms(submission: SmsSubmission, options: TextOptions, now: number): Encoded {
  const source = addressOf(submission.sender, options, options.addressing.sourceTon, options.addressing.sourceNpi);
  if (!fits(source)) return { ok: false, error: 368, words: 'the sender cannot be written in an SMPP address' };
  const destination = addressOf(submission.recipient, options, options.addressing.destTon, options.addressing.destNpi);
  if (!fits(destination)) return { ok: false, error: 351, words: 'the recipient cannot be written in an SMPP address' };
  const alphabet = options.encoding.default;
  const split = splitText(submission.text, alphabet);
  const total = split.pieces.length;
  if (total > PIECES_MAX) return { ok: false, error: 355, words: `${total} segments; at most ${PIECES_MAX}` };
  const common = {
    serviceType: options.serviceType,
    source,
    destination,
    validityPeriod: validityOf(submission.validUntil, options.validity, now),
    dataCoding: split.coding === 'ucs2' ? UCS2 : 0,
  };
  const tlvs: Tlv[] = [];
  if (options.resellerCodeTlv !== undefined && submission.resellerCode !== undefined) {
    tlvs.push({ tag: options.resellerCodeTlv, value: Buffer.from(String(submission.resellerCode), 'latin1') });
  }
  if (options.transactionTlv !== undefined) {
    tlvs.push({ tag: options.transactionTlv, value: Buffer.from(submission.transactionId, 'latin1') });
  }
  const asked = options.registeredDelivery;
  if (total === 1) {
    const octets = octetsOf(split.pieces[0]!, split, options, 0);
    const message = { ...common, registeredDelivery: asked === 'none' ? 0 : 1, shortMessage: octets, tlvs };
    return { ok: true, messages: [shortMessage(message)], segments: [1] };
  }
  if (options.concatenation === 'payload') {
    const octets = octetsOf(split.pieces.join(''), split, options, 0);
    if (octets.length > PAYLOAD_MAX) return { ok: false, error: 355, words: `a text of ${octets.length} octets` };
    const payload = { tag: TAG.payload, value: octets };
    const message = { ...common, registeredDelivery: asked === 'none' ? 0 : 1, tlvs: [...tlvs, payload] };
    return { ok: true, messages: [shortMessage(message)], segments: [total] };
  }
  const reference = referenceOf(submission.transactionId);
  const messages = split.pieces.map((piece, i) => {
    const last = i === total - 1;
    const registeredDelivery = asked === 'all' || (asked === 'last' && last) ? 1 : 0;
    if (options.concatenation === 'sar') {
      const sar = [
        { tag: TAG.sarReference, value: Uint8Array.of(reference >> 8, reference & 0xff) },
        { tag: TAG.sarTotal, value: Uint8Array.of(total) },
        { tag: TAG.sarSegment, value: Uint8Array.of(i + 1) },
      ];
      const octets = octetsOf(piece, split, options, 0);
      return shortMessage({ ...common, registeredDelivery, shortMessage: octets, tlvs: [...tlvs, ...sar] });
    }
    // Information element 0: concatenation with an 8-bit reference (TS 23.040, 9.2.3.24.1).
    const header = Uint8Array.of(5, 0, 3, reference & 0xff, total, i + 1);
    const octets = Buffer.concat([header, octetsOf(piece, split, options, FILL_BITS)]);
    return shortMessage({ ...common, esmClass: ESM.udh, registeredDelivery, shortMessage: octets, tlvs });
  });
  return { ok: true, messages, segments: messages.map(() => 1) };
}

/** Behind a header of 6 octets packed septets begin at a septet's edge: one bit is left over. */
const FILL_BITS = 1;

function octetsOf(piece: string, split: SplitText, options: TextOptions, fillBits: number): Uint8Array {
  if (split.coding === 'ucs2') return Buffer.from(piece, 'utf16le').swap16();
  if (options.encoding.default !== 'gsm') return Buffer.from(piece, 'latin1');
  const septets = encodeGsm(piece);
  return options.encoding.packed ? packSeptets(septets, fillBits) : septets;
}

function addressOf(value: string, options: TextOptions, ton: number | undefined, npi: number | undefined): Address {
  const digits = value.startsWith('+') ? value.slice(1) : value;
  if (!/^\d+$/.test(digits)) return { ton: ton ?? TON.alphanumeric, npi: npi ?? NPI.unknown, text: value };
  if (digits.length <= SHORT_CODE_DIGITS) return { ton: ton ?? TON.shortCode, npi: npi ?? NPI.unknown, text: digits };
  const text = options.plus ? `+${digits}` : digits;
  return { ton: ton ?? TON.international, npi: npi ?? NPI.isdn, text };
}

function fits({ text }: Address): boolean {
  return text.length <= 20 && /^[\x01-\xff]*$/.test(text);
}

/** FNV-1a: consecutive transaction ids have different references. */
function referenceOf(transactionId: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < transactionId.length; i++) value = Math.imul(value ^ transactionId.charCodeAt(i), 0x01000193);
  return value & 0xffff;
}

/** SMPP 3.4, 7.1.1. */
function validityOf(validUntil: number, form: TextOptions['validity'], now: number): string {
  if (form === 'none') return '';
  const two = (n: number): string => String(n).padStart(2, '0');
  const seconds = Math.max(1, Math.floor((validUntil - now) / 1000));
  const days = Math.floor(seconds / 86_400);
  if (form === 'relative' && days <= 31) {
    const rest = seconds % 86_400;
    return `0000${two(days)}${two(Math.floor(rest / 3600))}${two(Math.floor((rest % 3600) / 60))}${two(rest % 60)}000R`;
  }
  const [, year, month, day, hour, minute, second] =
    /^\d\d(\d\d)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)/.exec(new Date(validUntil).toISOString()) ?? [];
  return `${year}${month}${day}${hour}${minute}${second}000+`;
}

/** A time of SMPP 3.4, 7.1.1 as epoch ms; null for one that is none. */
export function readTime(text: string, now: number): number | null {
  const match = /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d)(\d\d)([+\-R])$/.exec(text);
  if (!match) return null;
  const [year, month, day, hour, minute, second, tenth, quarters] = match.slice(1, 9).map(Number) as number[];
  const time = ((hour! * 60 + minute!) * 60 + second!) * 1000 + tenth! * 100;
  if (match[9] === 'R') return now + ((year! * 365 + month! * 30 + day!) * 86_400_000 + time);
  const offset = quarters! * 900_000 * (match[9] === '+' ? 1 : -1);
  return Date.UTC(2000 + year!, month! - 1, day!) + time - offset;
}

// ---------------------------------------------------------------------------------------------------------- delivered

/** Which piece of a longer message: `number` 1..`total`. */
export interface Piece {
  reference: number;
  total: number;
  number: number;
}

/** One message as an SMSC delivers it. */
export interface DeliveredText {
  /** Null = octets that are no text. */
  text: string | null;
  octets: Uint8Array;
  /** It is a piece of a longer one. */
  piece: Piece | null;
}

/** The text of a deliver_sm: header taken off, put into characters by its data_coding. */
export function readText(message: ShortMessage, encoding: TextOptions['encoding']): DeliveredText {
  const payload = tlvOf(message, TAG.payload);
  let octets = message.shortMessage.length > 0 ? message.shortMessage : (payload ?? message.shortMessage);
  let piece: Piece | null = null;
  let headerOctets = 0;
  if ((message.esmClass & ESM.udh) !== 0 && octets.length > 0 && octets[0]! < octets.length) {
    headerOctets = octets[0]! + 1;
    piece = readHeader(octets.subarray(1, headerOctets));
    octets = octets.subarray(headerOctets);
  }
  piece ??= readSar(message);
  const bits = (headerOctets * 8) % 7;
  return { text: decodeOctets(octets, message.dataCoding, encoding, (7 - bits) % 7), octets, piece };
}

/** A half of a character stays one: some peers cut in the middle, and its other half begins the next piece. */
function readUtf16(bytes: Buffer): string {
  const whole = bytes.subarray(0, bytes.length & ~1);
  return Buffer.from(whole).swap16().toString('utf16le') + (whole.length < bytes.length ? '\ufffd' : '');
}

/** The concatenation of a user data header; null = it tells of none. */
function readHeader(header: Uint8Array): Piece | null {
  for (let at = 0; at + 2 <= header.length; at += 2 + header[at + 1]!) {
    const element = header[at]!;
    const value = header.subarray(at + 2, at + 2 + header[at + 1]!);
    if (element === 0 && value.length === 3) return pieceOf(value[0]!, value[1]!, value[2]!);
    if (element === 8 && value.length === 4) return pieceOf(value[0]! * 256 + value[1]!, value[2]!, value[3]!);
  }
  return null;
}

function readSar(message: ShortMessage): Piece | null {
  const reference = tlvNumber(message, TAG.sarReference);
  const total = tlvNumber(message, TAG.sarTotal);
  const number = tlvNumber(message, TAG.sarSegment);
  if (reference === undefined || total === undefined || number === undefined) return null;
  return pieceOf(reference, total, number);
}

/** TS 23.040: a count of 0, or a place beyond it, means that the element is to be ignored. */
function pieceOf(reference: number, total: number, number: number): Piece | null {
  return total > 1 && total <= PIECES_MAX && number >= 1 && number <= total ? { reference, total, number } : null;
}

function decodeOctets(
  octets: Uint8Array,
  dataCoding: number,
  encoding: TextOptions['encoding'],
  fillBits: number,
): string | null {
  const bytes = Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength);
  const ownDefault = (): string => {
    if (encoding.default !== 'gsm') return bytes.toString('latin1');
    return decodeGsm(encoding.packed ? unpackSeptets(octets, fillBits) : octets);
  };
  // 1111xxxx: TS 23.038 message class; bit 2 = 8-bit data.
  if (dataCoding >= 0xf0) return (dataCoding & 0x04) === 0 ? ownDefault() : null;
  switch (dataCoding) {
    case 0x01:
    case 0x03:
      return bytes.toString('latin1');
    case 0x02:
    case 0x04:
      return null;
    case 0x06:
      return new TextDecoder('iso-8859-5').decode(octets);
    case 0x07:
      return new TextDecoder('iso-8859-8').decode(octets);
    case UCS2:
      return readUtf16(bytes);
    case 0x0e:
      return new TextDecoder('euc-kr').decode(octets);
    default:
      return ownDefault();
  }
}
