/**
 * SMPP 3.4 PDUs as bytes and back: bind, submit, deliver, data, enquire, unbind and their answers; what else a peer may send is
 * kept as bytes. Pure but for the framer, which holds what has come of the next PDU.
 *
 * Promises: any bytes get an answer; nothing is read beyond the end of a PDU; TLVs are kept in their order, unknown ones too; a
 * malformed TLV behind a sound body is left out with all behind it (SMPP 3.4, 3.3). Strings may be longer than the specification
 * allows (peers' message ids are), up to `TEXT_MAX`. What is encoded keeps to the specification's lengths.
 *
 * Fails: decoding, as a value with the SMPP status that says so. Encoding throws RangeError for a value that does not fit its
 * field: callers check what comes from outside.
 */

/** Command ids of requests; an answer's is the same with `ANSWER` added. */
export const COMMAND = {
  bindReceiver: 0x01,
  bindTransmitter: 0x02,
  submit: 0x04,
  deliver: 0x05,
  unbind: 0x06,
  bindTransceiver: 0x09,
  outbind: 0x0b,
  enquireLink: 0x15,
  alert: 0x102,
  data: 0x103,
} as const;
/** Added to a request's command id gives its answer's. */
export const ANSWER = 0x80000000;
export const GENERIC_NACK = 0x80000000;

/** Command statuses that this code gives or looks for by name (SMPP 3.4, 5.1.3). */
export const STATUS = {
  ok: 0x00,
  badMessageLength: 0x01,
  badCommandLength: 0x02,
  badCommand: 0x03,
  badBindState: 0x04,
  alreadyBound: 0x05,
  systemError: 0x08,
  badSource: 0x0a,
  badDestination: 0x0b,
  bindFailed: 0x0d,
  badPassword: 0x0e,
  badSystemId: 0x0f,
  queueFull: 0x14,
  badEsmClass: 0x43,
  throttled: 0x58,
  badExpiry: 0x62,
  /** "ESME receiver temporary app error": the peer tells again later. */
  tryAgain: 0x64,
  badTlv: 0xc4,
} as const;

/** Tags of the optional parameters used here (SMPP 3.4, 5.3.2). */
export const TAG = {
  receiptedMessageId: 0x001e,
  additionalStatus: 0x001d,
  userMessageReference: 0x0204,
  sarReference: 0x020c,
  sarTotal: 0x020e,
  sarSegment: 0x020f,
  scInterfaceVersion: 0x0210,
  networkErrorCode: 0x0423,
  payload: 0x0424,
  messageState: 0x0427,
} as const;

/** Bits of esm_class (SMPP 3.4, 5.2.12). */
export const ESM = { typeMask: 0x3c, receipt: 0x04, intermediate: 0x20, udh: 0x40 } as const;

/** One optional parameter. */
export interface Tlv {
  tag: number;
  value: Uint8Array;
}

/** A number or a name with its type and numbering plan. */
export interface Address {
  ton: number;
  npi: number;
  /** Octets as Latin-1. */
  text: string;
}

/** Header fields of every PDU. */
export interface Head {
  command: number;
  status: number;
  /** 1..0x7fffffff; 0 only in a generic_nack that could not tell. */
  sequence: number;
}

/** bind_receiver, bind_transmitter, bind_transceiver. */
export interface Bind {
  kind: 'bind';
  systemId: string;
  password: string;
  systemType: string;
  interfaceVersion: number;
  ton: number;
  npi: number;
  addressRange: string;
}

/** submit_sm, deliver_sm; data_sm too, whose missing fields are empty. Times as text of SMPP 3.4, 7.1. */
export interface ShortMessage {
  kind: 'message';
  serviceType: string;
  source: Address;
  destination: Address;
  esmClass: number;
  protocolId: number;
  priority: number;
  scheduleTime: string;
  validityPeriod: string;
  registeredDelivery: number;
  replaceIfPresent: number;
  dataCoding: number;
  defaultMessageId: number;
  /** 0..254 octets; longer texts travel in TLV `payload`. */
  shortMessage: Uint8Array;
  tlvs: readonly Tlv[];
}

/** The answers to a bind (`id` = the peer's system id) and to a message (`id` = its message id); '' where it is left out. */
export interface Named {
  kind: 'named';
  id: string;
  tlvs: readonly Tlv[];
}

/** unbind, enquire_link, their answers, generic_nack. */
export interface Bare {
  kind: 'bare';
}

/** Anything else, not looked into. */
export interface Other {
  kind: 'other';
  body: Uint8Array;
}

export type Body = Bind | ShortMessage | Named | Bare | Other;
export type Pdu = Head & Body;

/** `status`: what to answer. */
export type Decoded = { ok: true; pdu: Pdu } | { ok: false; head: Head; status: number; why: string };

/** A PDU is at most a message_payload of 64 KiB and its fields. */
export const PDU_MAX = 80 * 1024;
const HEAD = 16;
/** Of a string that is read, its end mark not counted. */
const TEXT_MAX = 255;
const NO_TLVS: readonly Tlv[] = Object.freeze([]);

/** Whether a command id is an answer's. */
export function isAnswer(command: number): boolean {
  return command >= ANSWER;
}

/** The value of the first parameter with this tag. */
export function tlvOf(pdu: { tlvs: readonly Tlv[] }, tag: number): Uint8Array | undefined {
  for (const one of pdu.tlvs) if (one.tag === tag) return one.value;
  return undefined;
}

/** A parameter's value as a number (big-endian, 1 to 4 octets). */
export function tlvNumber(pdu: { tlvs: readonly Tlv[] }, tag: number): number | undefined {
  const value = tlvOf(pdu, tag);
  if (!value || value.length === 0 || value.length > 4) return undefined;
  return value.reduce((sum, octet) => sum * 256 + octet, 0);
}

/** A parameter's value as text, its end mark left off. */
export function tlvText(pdu: { tlvs: readonly Tlv[] }, tag: number): string | undefined {
  const value = tlvOf(pdu, tag);
  if (!value) return undefined;
  return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1').replace(/\0.*$/s, '');
}

// ------------------------------------------------------------------------------------------------------------ decoding

/** Thrown inside this file only. */
class Unreadable extends Error {
  readonly status: number;
  constructor(status: number, why: string) {
    super(why);
    this.status = status;
  }
}

class Reader {
  readonly bytes: Buffer;
  at = HEAD;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  octet(): number {
    if (this.at >= this.bytes.length) throw new Unreadable(STATUS.badCommandLength, 'ends inside its fields');
    return this.bytes[this.at++]!;
  }

  text(): string {
    const end = this.bytes.indexOf(0, this.at);
    if (end < 0) throw new Unreadable(STATUS.badCommandLength, 'a text without an end');
    if (end - this.at > TEXT_MAX) throw new Unreadable(STATUS.badCommandLength, 'a text too long');
    const text = end === this.at ? '' : this.bytes.toString('latin1', this.at, end);
    this.at = end + 1;
    return text;
  }

  octets(length: number): Uint8Array {
    if (this.at + length > this.bytes.length) throw new Unreadable(STATUS.badMessageLength, 'sm_length beyond the end');
    const octets = this.bytes.subarray(this.at, this.at + length);
    this.at += length;
    return octets;
  }

  address(): Address {
    const ton = this.octet();
    return { ton, npi: this.octet(), text: this.text() };
  }

  /** Of an answer: peers leave the end mark off, or all of it. */
  name(): string {
    if (this.at >= this.bytes.length) return '';
    if (this.bytes.indexOf(0, this.at) >= 0) return this.text();
    const rest = this.bytes.toString('latin1', this.at, Math.min(this.bytes.length, this.at + TEXT_MAX));
    this.at = this.bytes.length;
    return rest;
  }

  tlvs(): readonly Tlv[] {
    const { bytes } = this;
    if (this.at + 4 > bytes.length) return NO_TLVS;
    const tlvs: Tlv[] = [];
    while (this.at + 4 <= bytes.length) {
      const length = bytes.readUInt16BE(this.at + 2);
      if (this.at + 4 + length > bytes.length) break;
      tlvs.push({ tag: bytes.readUInt16BE(this.at), value: bytes.subarray(this.at + 4, this.at + 4 + length) });
      this.at += 4 + length;
    }
    return tlvs;
  }
}

/** Reads one PDU as the framer gives it: whole, its length being the bytes'. */
export function decode(bytes: Buffer): Decoded {
  const command = bytes.readUInt32BE(4);
  const head: Head = { command, status: bytes.readUInt32BE(8), sequence: bytes.readUInt32BE(12) };
  try {
    return { ok: true, pdu: readBody(head, new Reader(bytes)) };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { ok: false, head, status: error.status, why: error.message };
  }
}

// The objects are written out member by member: spreads would double the cost of a decoded PDU.
function readBody({ command, status, sequence }: Head, reader: Reader): Pdu {
  switch (command) {
    case COMMAND.submit:
    case COMMAND.deliver: {
      const serviceType = reader.text();
      const source = reader.address();
      const destination = reader.address();
      const esmClass = reader.octet();
      const protocolId = reader.octet();
      const priority = reader.octet();
      const scheduleTime = reader.text();
      const validityPeriod = reader.text();
      const registeredDelivery = reader.octet();
      const replaceIfPresent = reader.octet();
      const dataCoding = reader.octet();
      const defaultMessageId = reader.octet();
      const shortMessage = reader.octets(reader.octet());
      const tlvs = reader.tlvs();
      return {
        command,
        status,
        sequence,
        kind: 'message',
        serviceType,
        source,
        destination,
        esmClass,
        protocolId,
        priority,
        scheduleTime,
        validityPeriod,
        registeredDelivery,
        replaceIfPresent,
        dataCoding,
        defaultMessageId,
        shortMessage,
        tlvs,
      };
    }
    case COMMAND.data: {
      const message = shortMessage({
        serviceType: reader.text(),
        source: reader.address(),
        destination: reader.address(),
      });
      message.esmClass = reader.octet();
      message.registeredDelivery = reader.octet();
      message.dataCoding = reader.octet();
      message.tlvs = reader.tlvs();
      return { command, status, sequence, ...message };
    }
    case COMMAND.bindReceiver:
    case COMMAND.bindTransmitter:
    case COMMAND.bindTransceiver: {
      const systemId = reader.text();
      const password = reader.text();
      const systemType = reader.text();
      const interfaceVersion = reader.octet();
      const ton = reader.octet();
      const npi = reader.octet();
      const addressRange = reader.text();
      return {
        command,
        status,
        sequence,
        kind: 'bind',
        systemId,
        password,
        systemType,
        interfaceVersion,
        ton,
        npi,
        addressRange,
      };
    }
    case ANSWER + COMMAND.submit:
    case ANSWER + COMMAND.deliver:
    case ANSWER + COMMAND.data:
    case ANSWER + COMMAND.bindReceiver:
    case ANSWER + COMMAND.bindTransmitter:
    case ANSWER + COMMAND.bindTransceiver: {
      const id = reader.name();
      return { command, status, sequence, kind: 'named', id, tlvs: reader.tlvs() };
    }
    case COMMAND.unbind:
    case COMMAND.enquireLink:
    case ANSWER + COMMAND.unbind:
    case ANSWER + COMMAND.enquireLink:
    case GENERIC_NACK:
      return { command, status, sequence, kind: 'bare' };
    default:
      return { command, status, sequence, kind: 'other', body: reader.bytes.subarray(HEAD) };
  }
}

// ------------------------------------------------------------------------------------------------------------ encoding

/** A message with everything left out that can be. */
export function shortMessage(fields: Partial<ShortMessage>): ShortMessage {
  return {
    kind: 'message',
    serviceType: '',
    source: { ton: 0, npi: 0, text: '' },
    destination: { ton: 0, npi: 0, text: '' },
    esmClass: 0,
    protocolId: 0,
    priority: 0,
    scheduleTime: '',
    validityPeriod: '',
    registeredDelivery: 0,
    replaceIfPresent: 0,
    dataCoding: 0,
    defaultMessageId: 0,
    shortMessage: new Uint8Array(0),
    tlvs: NO_TLVS,
    ...fields,
  };
}

class Writer {
  readonly bytes: Buffer;
  at = HEAD;

  constructor(length: number) {
    this.bytes = Buffer.allocUnsafe(length);
  }

  octet(value: number): void {
    if (!(value >= 0 && value <= 255)) throw new RangeError(`${value} is no octet`);
    this.bytes[this.at++] = value;
  }

  /** `max`: with the end mark, as the specification counts. */
  text(text: string, max: number): void {
    if (text.length >= max) throw new RangeError(`a text of ${text.length} octets where ${max - 1} fit`);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code === 0 || code > 255) throw new RangeError('a character that cannot stand in a field');
      this.bytes[this.at++] = code;
    }
    this.bytes[this.at++] = 0;
  }

  octets(value: Uint8Array): void {
    this.bytes.set(value, this.at);
    this.at += value.length;
  }

  address({ ton, npi, text }: Address, max: number): void {
    this.octet(ton);
    this.octet(npi);
    this.text(text, max);
  }

  tlvs(tlvs: readonly Tlv[]): void {
    for (const { tag, value } of tlvs) {
      this.at = this.bytes.writeUInt16BE(tag, this.at);
      this.at = this.bytes.writeUInt16BE(value.length, this.at);
      this.octets(value);
    }
  }
}

function tlvsLength(tlvs: readonly Tlv[]): number {
  let length = 0;
  for (const { value } of tlvs) {
    if (value.length > 0xffff) throw new RangeError('a parameter longer than 65535 octets');
    length += 4 + value.length;
  }
  return length;
}

/** Prints a PDU. Throws RangeError where a value does not fit its field. */
export function encode(pdu: Pdu): Buffer {
  const writer = writeBody(pdu);
  const { bytes } = writer;
  bytes.writeUInt32BE(bytes.length, 0);
  bytes.writeUInt32BE(pdu.command, 4);
  bytes.writeUInt32BE(pdu.status, 8);
  bytes.writeUInt32BE(pdu.sequence, 12);
  return bytes;
}

function writeBody(pdu: Pdu): Writer {
  switch (pdu.kind) {
    case 'message':
      return pdu.command === COMMAND.data ? writeData(pdu) : writeMessage(pdu);
    case 'named': {
      const writer = new Writer(HEAD + pdu.id.length + 1 + tlvsLength(pdu.tlvs));
      writer.text(pdu.id, TEXT_MAX + 1);
      writer.tlvs(pdu.tlvs);
      return writer;
    }
    case 'bind': {
      const texts = pdu.systemId.length + pdu.password.length + pdu.systemType.length + pdu.addressRange.length;
      const writer = new Writer(HEAD + texts + 7);
      writer.text(pdu.systemId, 16);
      // 9 by the specification; operators give longer ones.
      writer.text(pdu.password, 65);
      writer.text(pdu.systemType, 13);
      writer.octet(pdu.interfaceVersion);
      writer.octet(pdu.ton);
      writer.octet(pdu.npi);
      writer.text(pdu.addressRange, 41);
      return writer;
    }
    case 'bare':
      return new Writer(HEAD);
    case 'other': {
      const writer = new Writer(HEAD + pdu.body.length);
      writer.octets(pdu.body);
      return writer;
    }
  }
}

function writeMessage(pdu: ShortMessage): Writer {
  const { source, destination, tlvs } = pdu;
  const message = pdu.shortMessage;
  if (message.length > 254) throw new RangeError(`a short message of ${message.length} octets`);
  const texts = pdu.serviceType.length + source.text.length + destination.text.length;
  const times = pdu.scheduleTime.length + pdu.validityPeriod.length;
  const writer = new Writer(HEAD + texts + times + message.length + 17 + tlvsLength(tlvs));
  writer.text(pdu.serviceType, 6);
  writer.address(source, 21);
  writer.address(destination, 21);
  writer.octet(pdu.esmClass);
  writer.octet(pdu.protocolId);
  writer.octet(pdu.priority);
  writer.text(pdu.scheduleTime, 17);
  writer.text(pdu.validityPeriod, 17);
  writer.octet(pdu.registeredDelivery);
  writer.octet(pdu.replaceIfPresent);
  writer.octet(pdu.dataCoding);
  writer.octet(pdu.defaultMessageId);
  writer.octet(message.length);
  writer.octets(message);
  writer.tlvs(tlvs);
  return writer;
}

function writeData(pdu: ShortMessage): Writer {
  const { source, destination, tlvs } = pdu;
  const texts = pdu.serviceType.length + source.text.length + destination.text.length;
  const writer = new Writer(HEAD + texts + 10 + tlvsLength(tlvs));
  writer.text(pdu.serviceType, 6);
  writer.address(source, 65);
  writer.address(destination, 65);
  writer.octet(pdu.esmClass);
  writer.octet(pdu.registeredDelivery);
  writer.octet(pdu.dataCoding);
  writer.tlvs(tlvs);
  return writer;
}

// ------------------------------------------------------------------------------------------------------------- framing

/** Cuts a stream of bytes into PDUs. Holds at most `PDU_MAX` and what was pushed last. */
export class Framer {
  private chunks: Buffer[] = [];
  private size = 0;
  /** Bytes without which nothing can be said. */
  private need = 4;

  /** Whether the beginning of a PDU waits for its rest. */
  get partial(): boolean {
    return this.size > 0;
  }

  /**
   * Gives each whole PDU to `each`, as a view into what was pushed. False = a length that cannot be: where the next PDU begins is
   * lost for good, nothing more is to be pushed.
   */
  push(chunk: Buffer, each: (bytes: Buffer) => void): boolean {
    this.chunks.push(chunk);
    this.size += chunk.length;
    if (this.size < this.need) return true;
    // Joined only when a PDU may be whole, so bytes that come singly are copied once.
    const bytes = this.chunks.length === 1 ? chunk : Buffer.concat(this.chunks, this.size);
    let at = 0;
    this.need = 4;
    while (bytes.length - at >= 4) {
      const length = bytes.readUInt32BE(at);
      if (length < HEAD || length > PDU_MAX) return false;
      if (bytes.length - at < length) {
        this.need = length;
        break;
      }
      each(bytes.subarray(at, at + length));
      at += length;
    }
    const rest = bytes.length - at;
    // A copy: a few bytes must not hold a whole chunk.
    this.chunks = rest > 0 ? [at === 0 ? bytes : Buffer.from(bytes.subarray(at))] : [];
    this.size = rest;
    return true;
  }
}
