import { describe, expect, it } from 'vitest';
import type { CarrierReport } from '../../domain/submission.ts';
import { ESM, type ShortMessage, shortMessage, TAG } from './pdu.ts';
import { plainId, type ReceiptIdForm, ReceiptIds, readReceipt, receiptRef } from './receipt.ts';

const ENCODING = { default: 'gsm', packed: false } as const;

function receipt(text: string, more: Partial<ShortMessage> = {}): ShortMessage {
  return shortMessage({ esmClass: ESM.receipt, shortMessage: Buffer.from(text), dataCoding: 3, ...more });
}

function read(text: string, more: Partial<ShortMessage> = {}) {
  return readReceipt(receipt(text, more), ENCODING);
}

describe('a receipt as text', () => {
  it.each([
    [
      'as appendix B has it',
      'id:0123456789 sub:001 dlvrd:001 submit date:2601011200 done date:2601011201 stat:DELIVRD err:000 text:hello',
      { id: '0123456789', kind: 'retrieved', at: Date.UTC(2026, 0, 1, 12, 1), words: 'DELIVRD, err 000' },
    ],
    ['in capitals, without some fields', 'ID:AB-1 STAT:EXPIRED', { id: 'AB-1', kind: 'expired' }],
    [
      'with underscores and seconds',
      'id:7 sub:1 dlvrd:0 submit_date:260101120000 done_date:260101120130 stat:UNDELIV err:27 Text:stat:DELIVRD',
      { id: '7', kind: 'unreachable', error: 810, at: Date.UTC(2026, 0, 1, 12, 1, 30) },
    ],
    [
      'with spaces behind the colons and long words',
      'id: 99 submit date: 20260101120000 done date: 20260101120130 status: Delivered error: 0',
      { id: '99', kind: 'retrieved', at: Date.UTC(2026, 0, 1, 12, 1, 30) },
    ],
    ['separated by commas', 'id:5,stat:REJECTD,err:012', { id: '5', kind: 'rejected', error: 632 }],
    ['with a year of nonsense', 'id:5 done date:9999999999 stat:DELETED', { id: '5', kind: 'rejected', error: 810 }],
    ['accepted', 'id:5 stat:ACCEPTD', { id: '5', kind: 'forwarded' }],
    ['on its way', 'id:5 stat:ENROUTE', { id: '5', kind: 'forwarded' }],
    ['buffered', 'id:5 stat:BUFFERED', { id: '5', kind: 'forwarded' }],
    ['failed', 'id:5 stat:FAILED', { id: '5', kind: 'unreachable', error: 810 }],
    ['undeliverable, written out', 'id:5 stat:UNDELIVERABLE', { id: '5', kind: 'unreachable' }],
    ['unknown', 'id:5 stat:UNKNOWN', { id: '5', kind: 'indeterminate', error: 633 }],
    ['a word nobody knows claims nothing', 'id:5 stat:WIBBLE', { id: '5', kind: 'forwarded', words: 'WIBBLE' }],
    ['without an id', 'stat:DELIVRD', { id: '', kind: 'retrieved' }],
    ['empty', '', { id: '', kind: 'forwarded', words: 'no state' }],
  ])('%s', (_, text, expected) => {
    expect(read(text)).toMatchObject(expected);
  });

  it('may be in UTF-16', () => {
    const octets = Buffer.from('id:5 stat:DELIVRD', 'utf16le').swap16();
    expect(
      readReceipt(shortMessage({ esmClass: ESM.receipt, dataCoding: 8, shortMessage: octets }), ENCODING),
    ).toMatchObject({
      id: '5',
      kind: 'retrieved',
    });
  });

  it('what the customer wrote behind text: is not read as fields', () => {
    expect(read('id:5 stat:UNDELIV text:id:6 stat:DELIVRD')).toMatchObject({ id: '5', kind: 'unreachable' });
    expect(read('id:5 stat:UNDELIV err:001 text: done date:2601011200')!.at).toBeUndefined();
  });
});

describe('a receipt in TLVs', () => {
  const named = (id: string) => ({ tag: TAG.receiptedMessageId, value: Buffer.from(`${id}\0`) });
  const state = (value: number) => ({ tag: TAG.messageState, value: Uint8Array.of(value) });
  const network = (type: number, code: number) => ({
    tag: TAG.networkErrorCode,
    value: Uint8Array.of(type, code >> 8, code & 255),
  });

  it('counts before the text, and needs none', () => {
    expect(read('id:1 stat:UNDELIV', { tlvs: [named('AB'), state(2)] })).toMatchObject({ id: 'AB', kind: 'retrieved' });
    expect(read('', { tlvs: [named('AB'), state(8)] })).toMatchObject({ id: 'AB', kind: 'rejected', words: 'state 8' });
  });

  it('a state left at enroute does not hide the word that says more', () => {
    expect(read('id:1 stat:DELIVRD', { tlvs: [named('AB'), state(1)] })).toMatchObject({ kind: 'retrieved' });
  });

  it.each([
    [0, 'forwarded'],
    [1, 'forwarded'],
    [2, 'retrieved'],
    [3, 'expired'],
    [4, 'rejected'],
    [5, 'unreachable'],
    [6, 'forwarded'],
    [7, 'indeterminate'],
    [8, 'rejected'],
    [77, 'forwarded'],
  ])('state %i is told as %s', (value, kind) => {
    expect(read('', { tlvs: [named('1'), state(value)] })!.kind).toBe(kind);
  });

  it('a GSM network error says why it failed; others are only told', () => {
    const why = (type: number, code: number, value = 5) =>
      read('', { tlvs: [named('1'), state(value), network(type, code)] });
    expect(why(3, 27)).toMatchObject({ error: 27, words: 'state 5, network error 3/27' });
    expect(why(3, 999)).toMatchObject({ error: 810 });
    expect(why(1, 27)).toMatchObject({ error: 810 });
    expect(why(3, 27, 2)!.error).toBeUndefined();
  });

  it('an intermediate notification ends nothing but by delivery', () => {
    expect(read('id:1 stat:UNDELIV', { esmClass: ESM.intermediate })).toMatchObject({ kind: 'forwarded' });
    expect(read('id:1 stat:DELIVRD', { esmClass: ESM.intermediate })).toMatchObject({ kind: 'retrieved' });
  });

  it('is one by its TLV alone, a text that only looks like one is a text', () => {
    expect(read('id:1 stat:DELIVRD', { esmClass: 0 })).toBe(null);
    expect(read('id:1 stat:DELIVRD', { esmClass: 0, tlvs: [named('1')] })).toMatchObject({ id: '1' });
  });
});

describe('message ids', () => {
  it.each([
    ['0000AB12', 'ab12'],
    ['000', '0'],
    ['10', '10'],
    [' 7 ', '7'],
    ['0007-aX', '0007-aX'],
    ['', ''],
  ])('%j is compared as %j', (given, plain) => {
    expect(plainId(given)).toBe(plain);
    expect(plainId(plain)).toBe(plain);
  });

  it.each([
    ['as-is', '00AB', 'ab'],
    ['hex-to-dec', '00AB', '171'],
    ['dec-to-hex', '00171', 'ab'],
    ['dec-to-hex', 'x1', 'x1'],
    ['hex-to-dec', 'FFFFFFFFFFFFFFFF', '18446744073709551615'],
    ['hex-to-dec', 'f'.repeat(200), 'f'.repeat(200)],
  ] as [ReceiptIdForm, string, string][])('%s: a receipt for %s is for %s', (form, id, ref) => {
    expect(receiptRef(id, form)).toBe(ref);
  });
});

describe('learning how receipts write ids', () => {
  function report(carrierMessageId: string, recipient = '447700900123'): CarrierReport {
    return { carrier: 'c', carrierMessageId, addresses: [recipient, '12345'], kind: 'retrieved', words: '' };
  }
  function learner(): { ids: ReceiptIds; forms: ReceiptIdForm[] } {
    const forms: ReceiptIdForm[] = [];
    return { ids: new ReceiptIds('auto', (form) => forms.push(form)), forms };
  }

  it('finds hexadecimal answers with decimal receipts, and tells again what came too early to know', () => {
    const { ids, forms } = learner();
    ids.sent('1a2b', '447700900123');
    ids.sent('1a2c', '447700900124');
    expect(ids.match(report('5555'))).toEqual({ id: '5555', again: [] });
    expect(ids.match(report('6699'))).toMatchObject({ id: '1a2b', again: [] });
    const found = ids.match(report('6700', '447700900124'));
    expect(found.id).toBe('1a2c');
    expect(found.again.map((one) => one.carrierMessageId)).toEqual(['15b3']);
    expect(forms).toEqual(['dec-to-hex']);
    // From now on without knowing the submission, as after the memory's end.
    expect(ids.match(report('16')).id).toBe('10');
  });

  it('finds decimal answers with padded hexadecimal receipts', () => {
    const { ids, forms } = learner();
    ids.sent('6699', '447700900123');
    ids.sent('6700', '447700900123');
    ids.match(report('00001A2B'));
    expect(ids.match(report('00001A2C')).id).toBe('6700');
    expect(forms).toEqual(['hex-to-dec']);
  });

  it('a receipt that came before its answer is told again when that comes, under the id of the answer', () => {
    const { ids, forms } = learner();
    expect(ids.match(report('6699'))).toEqual({ id: '6699', again: [] });
    expect(ids.sent('1a2c', '447700900123')).toEqual([]);
    expect(ids.sent('1a2b', '447700900999')).toEqual([]);
    expect(ids.sent('1a2b', '447700900123')).toEqual([{ ...report('6699'), carrierMessageId: '1a2b' }]);
    expect(forms).toEqual([]);
    // The second one settles it, and all that wait are told.
    ids.match(report('4096', '447700900555'));
    ids.match(report('6703'));
    const [own, other] = ids.sent('1a2f', '447700900123');
    expect([own?.carrierMessageId, other?.carrierMessageId]).toEqual(['1a2f', '1000']);
    expect(forms).toEqual(['dec-to-hex']);
  });

  it('a receipt that came before its answer and fits as it is was told already', () => {
    const { ids, forms } = learner();
    expect(ids.match(report('16')).id).toBe('16');
    expect(ids.sent('16', '447700900123')).toEqual([]);
    expect(forms).toEqual(['as-is']);
    expect(ids.sent('10', '447700900123')).toEqual([]);
  });

  it('an id as it is settles it at once, whatever else it might be', () => {
    const { ids, forms } = learner();
    ids.sent('10', '447700900123');
    ids.sent('16', '447700900123');
    expect(ids.match(report('10')).id).toBe('10');
    expect(ids.match(report('16')).id).toBe('16');
    expect(forms).toEqual(['as-is']);
  });

  it('an id that fits by chance, of another recipient, teaches nothing', () => {
    const { ids, forms } = learner();
    ids.sent('10', '447700900123');
    expect(ids.match(report('16', '447700900999')).id).toBe('16');
    expect(ids.match(report('16', '447700900999')).id).toBe('16');
    expect(forms).toEqual([]);
  });

  it('what is configured is not unlearnt', () => {
    const ids = new ReceiptIds('hex-to-dec', () => expect.unreachable());
    ids.sent('10', '447700900123');
    expect(ids.match(report('10')).id).toBe('16');
  });
});
