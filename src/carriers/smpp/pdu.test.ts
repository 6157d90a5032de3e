import smpp from 'smpp';
import { describe, expect, it } from 'vitest';
import fc from '../../../test/properties.ts';
import {
  ANSWER,
  type Body,
  COMMAND,
  decode,
  encode,
  Framer,
  GENERIC_NACK,
  PDU_MAX,
  type Pdu,
  STATUS,
  shortMessage,
  tlvNumber,
  tlvOf,
  tlvText,
} from './pdu.ts';

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replace(/\s/g, ''), 'hex');
}

const GOLDEN: [string, Pdu, string][] = [
  [
    'bind_transceiver',
    {
      command: COMMAND.bindTransceiver,
      status: 0,
      sequence: 1,
      kind: 'bind',
      systemId: 'esme',
      password: 'secret',
      systemType: '',
      interfaceVersion: 0x34,
      ton: 0,
      npi: 0,
      addressRange: '',
    },
    `00000021 00000009 00000000 00000001
     65736d6500 73656372657400 00 34 00 00 00`,
  ],
  [
    'submit_sm with a header and a TLV',
    {
      command: COMMAND.submit,
      status: 0,
      sequence: 2,
      ...shortMessage({
        source: { ton: 5, npi: 0, text: 'Postcard' },
        destination: { ton: 1, npi: 1, text: '447700900123' },
        esmClass: 0x40,
        validityPeriod: '260103120000000+',
        registeredDelivery: 1,
        shortMessage: bytes('050003aa0201 6869'),
        tlvs: [{ tag: 0x1500, value: Buffer.from('t-1') }],
      }),
    },
    `00000054 00000004 00000000 00000002
     00 05 00 506f73746361726400 01 01 34343737303039303031323300 40 00 00 00
     3236303130333132303030303030302b00 01 00 00 00 08 050003aa02016869 1500 0003 742d31`,
  ],
  [
    'submit_sm_resp',
    { command: ANSWER + COMMAND.submit, status: 0, sequence: 2, kind: 'named', id: '1A2B', tlvs: [] },
    '00000015 80000004 00000000 00000002 3141324200',
  ],
  [
    'enquire_link',
    { command: COMMAND.enquireLink, status: 0, sequence: 0x7fffffff, kind: 'bare' },
    '00000010 00000015 00000000 7fffffff',
  ],
  [
    'generic_nack',
    { command: GENERIC_NACK, status: 3, sequence: 9, kind: 'bare' },
    '00000010 80000000 00000003 00000009',
  ],
];

describe('PDUs as bytes', () => {
  it.each(GOLDEN)('%s is written and read as it stands in the specification', (_, pdu, hex) => {
    expect(encode(pdu).toString('hex')).toBe(bytes(hex).toString('hex'));
    const read = decode(bytes(hex));
    expect(plainly(read)).toEqual(plainly({ ok: true, pdu }));
  });

  it('are read as the npm package writes them, and the other way round', () => {
    const theirs = new smpp.PDU('deliver_sm', {
      sequence_number: 7,
      source_addr_ton: 1,
      source_addr_npi: 1,
      source_addr: '447700900123',
      destination_addr: '12345',
      esm_class: 4,
      data_coding: 0,
      short_message: { message: Buffer.from('id:1 stat:DELIVRD') },
      receipted_message_id: 'AB12',
      message_state: 2,
    });
    const read = decode(theirs.toBuffer());
    if (!read.ok || read.pdu.kind !== 'message') throw new Error('not read');
    expect(read.pdu.source).toEqual({ ton: 1, npi: 1, text: '447700900123' });
    expect(Buffer.from(read.pdu.shortMessage).toString()).toBe('id:1 stat:DELIVRD');
    expect(tlvText(read.pdu, 0x1e)).toBe('AB12');
    expect(tlvNumber(read.pdu, 0x427)).toBe(2);

    const submit = GOLDEN[1]![1];
    const parsed = new smpp.PDU(encode(submit));
    expect(parsed).toMatchObject({
      command: 'submit_sm',
      sequence_number: 2,
      source_addr: 'Postcard',
      destination_addr: '447700900123',
      registered_delivery: 1,
    });
  });

  it('come out as they went in', () => {
    fc.assert(
      fc.property(anyPdu, (pdu) => {
        const read = decode(encode(pdu));
        if (!read.ok) throw new Error(read.why);
        expect(plainly(read.pdu)).toEqual(plainly(pdu));
        expect(encode(read.pdu)).toEqual(encode(pdu));
      }),
      { numRuns: 300 },
    );
  });
});

/** Octets as hex, so that a view equals a copy. */
function plainly(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(plainly);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plainly(member)]));
}

const text = (max: number) =>
  fc.string({ unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)), maxLength: max });
const octet = fc.integer({ min: 0, max: 255 });
const address = fc.record({ ton: octet, npi: octet, text: text(20) });
const tlvs = fc.array(
  fc.record({ tag: fc.integer({ min: 0, max: 0xffff }), value: fc.uint8Array({ maxLength: 300 }) }),
  {
    maxLength: 4,
  },
);
const messageBody = fc.record({
  kind: fc.constant('message' as const),
  serviceType: text(5),
  source: address,
  destination: address,
  esmClass: octet,
  protocolId: octet,
  priority: octet,
  scheduleTime: text(16),
  validityPeriod: text(16),
  registeredDelivery: octet,
  replaceIfPresent: octet,
  dataCoding: octet,
  defaultMessageId: octet,
  shortMessage: fc.uint8Array({ maxLength: 254 }),
  tlvs,
});
const anyPdu: fc.Arbitrary<Pdu> = fc
  .tuple(
    fc.integer({ min: 1, max: 0x7fffffff }),
    fc.oneof(
      fc.tuple(fc.constantFrom(COMMAND.submit, COMMAND.deliver), messageBody),
      fc.tuple(
        fc.constantFrom(...[COMMAND.submit, COMMAND.bindTransceiver].map((command) => ANSWER + command)),
        fc.record({ kind: fc.constant('named' as const), id: text(64), tlvs }),
      ),
      fc.tuple(
        fc.constantFrom(COMMAND.unbind, COMMAND.enquireLink, ANSWER + COMMAND.enquireLink),
        fc.record({ kind: fc.constant('bare' as const) }),
      ),
      fc.tuple(
        fc.constantFrom(COMMAND.bindReceiver, COMMAND.bindTransmitter),
        fc.record({
          kind: fc.constant('bind' as const),
          systemId: text(15),
          password: text(8),
          systemType: text(12),
          interfaceVersion: octet,
          ton: octet,
          npi: octet,
          addressRange: text(40),
        }),
      ),
      fc.tuple(
        fc.integer({ min: 0x10000, max: 0x20000 }),
        fc.record({ kind: fc.constant('other' as const), body: fc.uint8Array({ maxLength: 50 }) }),
      ),
    ),
  )
  .map(([sequence, [command, body]]) => ({ command, status: 0, sequence, ...(body as Body) }));

describe('what cannot be read', () => {
  const submit = encode(GOLDEN[1]![1]);

  it.each([
    ['ends inside its fields', 30, STATUS.badCommandLength],
    ['has a text without an end', 22, STATUS.badCommandLength],
    ['is shorter than its sm_length', 75, STATUS.badMessageLength],
  ])('a submit_sm that %s is told apart with the status to answer', (_, length, status) => {
    const cut = Buffer.from(submit.subarray(0, length));
    cut.writeUInt32BE(length, 0);
    expect(decode(cut)).toMatchObject({ ok: false, status, head: { command: 4, sequence: 2 } });
  });

  it('a malformed TLV behind a sound body is left out', () => {
    const broken = Buffer.concat([submit, bytes('0424 ffff 00')]);
    broken.writeUInt32BE(broken.length, 0);
    const read = decode(broken);
    if (!read.ok || read.pdu.kind !== 'message') throw new Error('not read');
    expect(read.pdu.tlvs.length).toBe(1);
    expect(tlvOf(read.pdu, 0x424)).toBeUndefined();
  });

  it.each([
    ['no body at all', '', ''],
    ['an id without its end mark', '313233', '123'],
    ['an id longer than the specification has it', `${'31'.repeat(80)}00`, '1'.repeat(80)],
  ])('an answer with %s is read', (_, body, id) => {
    const whole = Buffer.concat([bytes('00000000 80000004 00000000 00000005'), bytes(body)]);
    whole.writeUInt32BE(whole.length, 0);
    expect(decode(whole)).toMatchObject({ ok: true, pdu: { kind: 'named', id } });
  });

  it('what does not fit its field is not written', () => {
    const long = { ...shortMessage({ source: { ton: 0, npi: 0, text: 'x'.repeat(21) } }) };
    expect(() => encode({ command: 4, status: 0, sequence: 1, ...long })).toThrow(RangeError);
    const big = shortMessage({ shortMessage: new Uint8Array(255) });
    expect(() => encode({ command: 4, status: 0, sequence: 1, ...big })).toThrow(RangeError);
    const nul = shortMessage({ serviceType: 'a\0b' });
    expect(() => encode({ command: 4, status: 0, sequence: 1, ...nul })).toThrow(RangeError);
  });
});

describe('the framer', () => {
  it('gives the same PDUs however the bytes are cut', () => {
    const stream = Buffer.concat(GOLDEN.map(([, pdu]) => encode(pdu)));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: stream.length }), { maxLength: 30 }), (cuts) => {
        const framer = new Framer();
        const seen: string[] = [];
        const edges = [...new Set([0, ...cuts.sort((a, b) => a - b), stream.length])];
        for (let i = 1; i < edges.length; i++) {
          const sound = framer.push(stream.subarray(edges[i - 1]!, edges[i]!), (one) => seen.push(one.toString('hex')));
          expect(sound).toBe(true);
        }
        expect(seen).toEqual(GOLDEN.map(([, pdu]) => encode(pdu).toString('hex')));
      }),
    );
  });

  it.each([0, 15, PDU_MAX + 1, 0xffffffff])('a length of %i ends it', (length) => {
    const head = Buffer.alloc(16);
    head.writeUInt32BE(length >>> 0, 0);
    const seen: Buffer[] = [];
    expect(new Framer().push(Buffer.concat([encode(GOLDEN[3]![1]), head]), (one) => seen.push(one))).toBe(false);
    expect(seen.length).toBe(1);
  });
});
