/**
 * Hostile bytes against everything that reads SMPP: the codec, the framer, receipts and texts, and a whole link. Cases are made from
 * sound PDUs; runs and seeds: `generator.ts` (a whole link gets a quarter of the runs, of four or five PDUs each).
 */
import { Duplex } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { Inbound } from '../../src/carriers/smpp/inbound.ts';
import { Link } from '../../src/carriers/smpp/link.ts';
import {
  ANSWER,
  type Body,
  COMMAND,
  decode,
  encode,
  Framer,
  PDU_MAX,
  type Pdu,
  type ShortMessage,
  STATUS,
  shortMessage,
  TAG,
} from '../../src/carriers/smpp/pdu.ts';
import { plainId, type ReceiptIdForm, readReceipt, receiptRef } from '../../src/carriers/smpp/receipt.ts';
import { readText, readTime } from '../../src/carriers/smpp/text.ts';
import { outcomeOf } from '../../src/carriers/smpp/verdict.ts';
import { testEnv } from '../../src/env.ts';
import { Dice, many, RUNS } from './generator.ts';

const TIMEOUT_MS = 60_000 + RUNS;

const KINDS: Pdu[] = [
  {
    command: COMMAND.deliver,
    status: 0,
    sequence: 1,
    ...shortMessage({
      source: { ton: 1, npi: 1, text: '447700900123' },
      destination: { ton: 5, npi: 0, text: 'Postcard' },
      esmClass: 4,
      shortMessage: Buffer.from(
        'id:0123456789 sub:001 dlvrd:001 submit date:2601011200 done date:2601011201 stat:DELIVRD err:000 text:hello',
      ),
      tlvs: [
        { tag: TAG.receiptedMessageId, value: Buffer.from('1A2B\0') },
        { tag: TAG.messageState, value: Uint8Array.of(2) },
        { tag: TAG.networkErrorCode, value: Uint8Array.of(3, 0, 27) },
      ],
    }),
  },
  {
    command: COMMAND.deliver,
    status: 0,
    sequence: 2,
    ...shortMessage({
      source: { ton: 1, npi: 1, text: '447700900123' },
      destination: { ton: 3, npi: 0, text: '12345' },
      esmClass: 0x40,
      dataCoding: 8,
      validityPeriod: '000002000000000R',
      shortMessage: Buffer.from('0500030102010436d83dde00', 'hex'),
    }),
  },
  {
    command: COMMAND.data,
    status: 0,
    sequence: 3,
    ...shortMessage({ tlvs: [{ tag: TAG.payload, value: Buffer.from('a longer text') }] }),
  },
  { command: ANSWER + COMMAND.submit, status: 0, sequence: 4, kind: 'named', id: '1A2B', tlvs: [] },
  {
    command: COMMAND.bindTransceiver,
    status: 0,
    sequence: 5,
    kind: 'bind',
    systemId: 'esme',
    password: 'x',
    systemType: '',
    interfaceVersion: 0x34,
    ton: 0,
    npi: 0,
    addressRange: '',
  },
  { command: COMMAND.enquireLink, status: 0, sequence: 6, kind: 'bare' },
];

const EDGES = [0, 1, 0x7f, 0x80, 0xfe, 0xff];

/** A sound PDU with a few bytes changed, put in, taken out or doubled; its length right or not. */
function mutate(dice: Dice, repairLength: boolean): Buffer {
  let bytes = Buffer.from(encode(dice.of(KINDS)));
  for (let n = dice.below(5); n >= 0; n--) {
    const at = dice.below(bytes.length + 1);
    switch (dice.below(5)) {
      case 0:
        if (at < bytes.length) bytes[at] = dice.below(256);
        break;
      case 1:
        if (at < bytes.length) bytes[at] = dice.of(EDGES);
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), dice.noise(dice.below(20)), bytes.subarray(at)]);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + dice.below(20))]);
        break;
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(dice.below(at + 1))]);
        break;
    }
  }
  if (bytes.length < 16) bytes = Buffer.concat([bytes, Buffer.alloc(16 - bytes.length)]);
  if (repairLength) bytes.writeUInt32BE(bytes.length, 0);
  return bytes;
}

const ENCODINGS = [
  { default: 'gsm', packed: false },
  { default: 'gsm', packed: true },
  { default: 'latin1', packed: false },
] as const;
const REPORTS = new Set(['retrieved', 'forwarded', 'rejected', 'expired', 'indeterminate', 'unreachable']);

function readAll(pdu: Pdu & ShortMessage, dice: Dice): void {
  const encoding = dice.of(ENCODINGS);
  const { text, piece } = readText(pdu, encoding);
  if (text !== null) expect(typeof text).toBe('string');
  if (piece) expect(piece.number >= 1 && piece.number <= piece.total && piece.total <= 255).toBe(true);
  readTime(pdu.validityPeriod, 0);
  const receipt = readReceipt(pdu, encoding);
  if (!receipt) return;
  expect(REPORTS.has(receipt.kind)).toBe(true);
  expect(receipt.words.length).toBeLessThanOrEqual(200);
  expect(/^[\x20-\x7e]*$/.test(receipt.words)).toBe(true);
  if (receipt.at !== undefined) expect(Number.isFinite(receipt.at)).toBe(true);
  for (const form of ['as-is', 'hex-to-dec', 'dec-to-hex'] satisfies ReceiptIdForm[]) receiptRef(receipt.id, form);
  expect(plainId(plainId(receipt.id))).toBe(plainId(receipt.id));
}

describe('hostile bytes', () => {
  it('are decoded or refused with a status, and what is read can be told from nothing else', {
    timeout: TIMEOUT_MS,
  }, async () => {
    let read = 0;
    await many(Dice, RUNS, (dice) => {
      const bytes = mutate(dice, true);
      const decoded = decode(bytes);
      if (!decoded.ok) {
        expect([STATUS.badMessageLength, STATUS.badCommandLength]).toContain(decoded.status);
        return;
      }
      read++;
      if (decoded.pdu.kind === 'message') readAll(decoded.pdu, dice);
      outcomeOf(decoded.pdu.status || 1, new Map(), 1_000);
      let printed: Buffer;
      try {
        printed = encode(decoded.pdu);
      } catch (error) {
        // Longer than the specification allows: read on purpose, never written.
        if (error instanceof RangeError) return;
        throw error;
      }
      const again = decode(printed);
      if (!again.ok) throw new Error(`printed what cannot be read: ${again.why}`);
      expect(encode(again.pdu).equals(printed)).toBe(true);
    });
    // A generator that only made refusals would prove little.
    expect(read).toBeGreaterThan(RUNS / 10);
    expect(read).toBeLessThan(RUNS);
  });

  it('in any chunks give the same PDUs or the same end, and little is held', { timeout: TIMEOUT_MS }, async () => {
    await many(Dice, RUNS, (dice) => {
      const stream = Buffer.concat(Array.from({ length: 1 + dice.below(6) }, () => mutate(dice, dice.below(10) < 9)));
      const whole: string[] = [];
      const wholeSound = new Framer().push(stream, (one) => whole.push(one.toString('latin1')));
      const cut: string[] = [];
      const framer = new Framer();
      let sound = true;
      for (let at = 0; at < stream.length && sound; ) {
        const next = at + 1 + dice.below(60);
        sound = framer.push(stream.subarray(at, next), (one) => cut.push(one.toString('latin1')));
        at = next;
      }
      expect(sound).toBe(wholeSound);
      expect(cut).toEqual(whole);
      for (const one of whole) expect(one.length).toBeLessThanOrEqual(PDU_MAX);
    });
  });

  it('never make a link deaf: what is framed is answered or passed over, and the next enquire_link has its answer', {
    timeout: TIMEOUT_MS,
  }, async () => {
    await many(Dice, Math.ceil(RUNS / 4), async (dice) => {
      const env = testEnv();
      const written: Buffer[] = [];
      const socket = new Duplex({
        read() {},
        write(chunk: Buffer, _, done) {
          written.push(chunk);
          done();
        },
      });
      const inbound = new Inbound({ name: 'c', encoding: ENCODINGS[0], env, onInbound: async () => {} });
      const closed: string[] = [];
      const link = new Link({
        socket,
        env,
        answerMs: 1_000,
        enquireMs: 10_000,
        onRequest: async (pdu) => {
          if (pdu.kind === 'message') await inbound.take(pdu);
          return pdu.command === COMMAND.alert ? null : { status: STATUS.ok, body: bodyFor(pdu) };
        },
        onClose: (why) => closed.push(why),
      });
      const settled: string[] = [];
      link.request(COMMAND.submit, shortMessage({}), (one) => settled.push(one.kind));
      for (let n = dice.below(8); n >= 0; n--) socket.push(mutate(dice, true));
      const SEQUENCE = 0x5eed;
      socket.push(encode({ command: COMMAND.enquireLink, status: 0, sequence: SEQUENCE, kind: 'bare' }));
      for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
      const answers: number[] = [];
      new Framer().push(Buffer.concat(written), (bytes) => {
        const read = decode(bytes);
        if (!read.ok) throw new Error(`the link wrote what cannot be read: ${read.why}`);
        if (read.pdu.command === ANSWER + COMMAND.enquireLink) answers.push(read.pdu.sequence);
      });
      expect(closed).toEqual([]);
      expect(answers).toContain(SEQUENCE);
      link.close('done');
      expect(settled.length).toBe(1);
      await inbound.flush();
    });
  });
});

function bodyFor(pdu: Pdu): Body {
  return pdu.kind === 'message' || pdu.kind === 'bind' ? { kind: 'named', id: '', tlvs: [] } : { kind: 'bare' };
}
