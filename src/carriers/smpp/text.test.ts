import { describe, expect, it } from 'vitest';
import fc from '../../../test/properties.ts';
import type { SmsSubmission } from '../../domain/submission.ts';
import { decode, encode, type ShortMessage, shortMessage, tlvNumber, tlvOf } from './pdu.ts';
import { encodeSms, readText, readTime, type TextOptions } from './text.ts';

const NOW = Date.UTC(2026, 0, 1, 12);
const OPTIONS: TextOptions = {
  serviceType: '',
  plus: false,
  addressing: {},
  encoding: { default: 'gsm', packed: false },
  concatenation: 'udh',
  registeredDelivery: 'last',
  validity: 'absolute',
};

function sms(text: string, more: Partial<SmsSubmission> = {}): SmsSubmission {
  return {
    transactionId: 'here-1',
    sender: 'Postcard',
    recipient: '447700900123',
    text,
    validUntil: NOW + 48 * 3_600_000,
    ...more,
  };
}

function messagesOf(submission: SmsSubmission, options: Partial<TextOptions> = {}): ShortMessage[] {
  const encoded = encodeSms(submission, { ...OPTIONS, ...options }, NOW);
  if (!encoded.ok) throw new Error(encoded.words);
  // Over the wire and back, so that what is looked at is what the peer sees.
  return encoded.messages.map((message) => {
    const read = decode(encode({ command: 4, status: 0, sequence: 1, ...message }));
    if (!read.ok || read.pdu.kind !== 'message') throw new Error('not read');
    return read.pdu;
  });
}

describe('an SMS as submit_sm', () => {
  it('a short one is one PDU in the default alphabet and asks for a receipt', () => {
    const [one, ...more] = messagesOf(sms('Hi €'));
    expect(more).toEqual([]);
    expect([...one!.shortMessage]).toEqual([0x48, 0x69, 0x20, 0x1b, 0x65]);
    expect(one).toMatchObject({
      dataCoding: 0,
      esmClass: 0,
      registeredDelivery: 1,
      validityPeriod: '260103120000000+',
    });
  });

  it('what GSM cannot say goes as UTF-16, big-endian', () => {
    const [one] = messagesOf(sms('ж😀'));
    expect(one!.dataCoding).toBe(8);
    expect(Buffer.from(one!.shortMessage).toString('hex')).toBe('0436d83dde00');
  });

  it.each([
    ['a name', 'Postcard', { ton: 5, npi: 0, text: 'Postcard' }],
    ['a number', '447700900999', { ton: 1, npi: 1, text: '447700900999' }],
    ['a number with a plus', '+447700900999', { ton: 1, npi: 1, text: '447700900999' }],
    ['a short code', '12345', { ton: 3, npi: 0, text: '12345' }],
  ])('%s as sender has its type', (_, sender, source) => {
    expect(messagesOf(sms('x', { sender }))[0]!.source).toEqual(source);
  });

  it('types and plus are as the carrier wants them', () => {
    const [one] = messagesOf(sms('x', { sender: '12345' }), {
      plus: true,
      addressing: { sourceTon: 0, sourceNpi: 1, destTon: 2, destNpi: 8 },
    });
    expect(one!.source).toEqual({ ton: 0, npi: 1, text: '12345' });
    expect(one!.destination).toEqual({ ton: 2, npi: 8, text: '+447700900123' });
  });

  it('validity may be relative or left out', () => {
    const valid = sms('x', { validUntil: NOW + ((2 * 24 + 3) * 3600 + 4 * 60 + 5) * 1000 });
    expect(messagesOf(valid, { validity: 'relative' })[0]!.validityPeriod).toBe('000002030405000R');
    expect(messagesOf(valid, { validity: 'none' })[0]!.validityPeriod).toBe('');
    const over = sms('x', { validUntil: NOW - 5 });
    expect(messagesOf(over, { validity: 'relative' })[0]!.validityPeriod).toBe('000000000001000R');
  });

  it.each(['absolute', 'relative'] as const)('an %s validity reads back as the instant it stands for', (validity) => {
    const [one] = messagesOf(sms('x'), { validity });
    expect(readTime(one!.validityPeriod, NOW)).toBe(NOW + 48 * 3_600_000);
  });

  it('a time with a zone is understood', () => {
    expect(readTime('260101140000504+', NOW)).toBe(Date.UTC(2026, 0, 1, 13, 0, 0, 500));
    expect(readTime('nonsense', NOW)).toBe(null);
  });

  it('carries reseller code and transaction id where the carrier has a TLV for them', () => {
    const [one] = messagesOf(sms('x', { resellerCode: 300000123 }), {
      resellerCodeTlv: 0x1401,
      transactionTlv: 0x1500,
    });
    expect(Buffer.from(tlvOf(one!, 0x1401)!).toString()).toBe('300000123');
    expect(Buffer.from(tlvOf(one!, 0x1500)!).toString()).toBe('here-1');
    expect(messagesOf(sms('x', { resellerCode: 1 }))[0]!.tlvs).toEqual([]);
  });

  it.each([
    ['a sender with letters beyond Latin-1', { sender: 'ΔΦΓ' }, 368],
    ['a recipient too long', { recipient: '1'.repeat(25) }, 351],
  ])('%s is refused without being sent', (_, more, error) => {
    expect(encodeSms(sms('x', more), OPTIONS, NOW)).toMatchObject({ ok: false, error });
  });

  it('a text of more than 255 segments is refused without being sent', () => {
    expect(encodeSms(sms('a'.repeat(153 * 255)), OPTIONS, NOW)).toMatchObject({ ok: true });
    expect(encodeSms(sms('a'.repeat(153 * 255 + 1)), OPTIONS, NOW)).toMatchObject({ ok: false, error: 355 });
  });
});

describe('a long text', () => {
  const long = `${'a'.repeat(152)}€${'b'.repeat(100)}`;

  it('has a header in each piece by default, the same reference for each try, and one receipt', () => {
    const pieces = messagesOf(sms(long));
    expect(pieces.map((one) => one.esmClass)).toEqual([0x40, 0x40]);
    expect(pieces.map((one) => one.registeredDelivery)).toEqual([0, 1]);
    const headers = pieces.map((one) => [...one.shortMessage.subarray(0, 6)]);
    const reference = headers[0]![3]!;
    expect(headers).toEqual([
      [5, 0, 3, reference, 2, 1],
      [5, 0, 3, reference, 2, 2],
    ]);
    expect(messagesOf(sms(long))[0]!.shortMessage[3]).toBe(reference);
    expect(messagesOf(sms(long, { transactionId: 'here-2' }))[0]!.shortMessage[3]).not.toBe(reference);
    expect(pieces[0]!.shortMessage.length).toBe(6 + 152);
  });

  it('may say it in TLVs, or go as one payload that counts as its segments', () => {
    const sar = messagesOf(sms(long), { concatenation: 'sar' });
    expect(sar.map((one) => [tlvNumber(one, 0x20e), tlvNumber(one, 0x20f), one.esmClass])).toEqual([
      [2, 1, 0],
      [2, 2, 0],
    ]);
    const encoded = encodeSms(sms(long), { ...OPTIONS, concatenation: 'payload' }, NOW);
    expect(encoded).toMatchObject({ ok: true, segments: [2] });
    const [payload] = messagesOf(sms(long), { concatenation: 'payload' });
    expect(payload!.shortMessage.length).toBe(0);
    expect(tlvOf(payload!, 0x424)!.length).toBe(254);
  });

  it('asks for receipts as configured', () => {
    const asked = (registeredDelivery: TextOptions['registeredDelivery']) =>
      messagesOf(sms(long), { registeredDelivery }).map((one) => one.registeredDelivery);
    expect(asked('all')).toEqual([1, 1]);
    expect(asked('none')).toEqual([0, 0]);
  });

  it('comes together again from its pieces, in every alphabet, packing and way of concatenation', () => {
    const unit = fc.constantFrom('a', 'é', '€', '[', 'ж', '😀', '@', 'Δ');
    fc.assert(
      fc.property(
        fc.string({ unit, maxLength: 500 }),
        fc.constantFrom('udh' as const, 'sar' as const, 'payload' as const),
        fc.constantFrom('gsm' as const, 'latin1' as const, 'ascii' as const),
        fc.boolean(),
        (text, concatenation, alphabet, packed) => {
          const encoding = { default: alphabet, packed };
          const read = messagesOf(sms(text), { concatenation, encoding }).map((one) => readText(one, encoding));
          const whole = read.map((one) => one.text).join('');
          // Packed octets cannot tell a last `@` from padding.
          if (packed && alphabet === 'gsm') expect(text.startsWith(whole.slice(0, -1))).toBe(true);
          else expect(whole).toBe(text);
          if (read.length > 1) {
            expect(read.map((one) => one.piece?.number)).toEqual(read.map((_, i) => i + 1));
            expect(new Set(read.map((one) => one.piece?.total))).toEqual(new Set([read.length]));
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('a delivered text', () => {
  const encoding = OPTIONS.encoding;

  it.each([
    ['GSM', 0x00, '1b65', '€'],
    ['ASCII', 0x01, '6869', 'hi'],
    ['Latin-1', 0x03, 'e9', 'é'],
    ['Cyrillic', 0x06, 'd6', 'ж'],
    ['UTF-16', 0x08, '0436d83dde00', 'ж😀'],
    ['a class 0 message', 0x10, '6869', 'hi'],
    ['a class 1 message', 0xf1, '6869', 'hi'],
    ['data', 0x04, '0102', null],
    ['class 1 data', 0xf5, '0102', null],
  ])('%s is read by its data_coding', (_, dataCoding, hex, text) => {
    expect(readText(shortMessage({ dataCoding, shortMessage: Buffer.from(hex, 'hex') }), encoding).text).toBe(text);
  });

  it('a header with a 16-bit reference behind other elements is understood', () => {
    const octets = Buffer.from('0c0504158100000804aabb02016869', 'hex');
    expect(readText(shortMessage({ esmClass: 0x40, shortMessage: octets }), encoding)).toMatchObject({
      piece: { reference: 0xaabb, total: 2, number: 1 },
    });
  });

  it.each([
    ['a place beyond the count', '050003aa0203'],
    ['a count of nothing', '050003aa0000'],
    ['an element cut short', '030003aa'],
  ])('%s makes it no piece', (_, header) => {
    const octets = Buffer.from(`${header}6869`, 'hex');
    expect(readText(shortMessage({ esmClass: 0x40, shortMessage: octets }), encoding).piece).toBe(null);
  });

  it('a header longer than the message is text', () => {
    const octets = Buffer.from('ff6869', 'hex');
    expect(readText(shortMessage({ esmClass: 0x40, shortMessage: octets, dataCoding: 3 }), encoding).text).toBe('ÿhi');
  });
});
