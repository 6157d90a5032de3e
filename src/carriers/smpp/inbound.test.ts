import { describe, expect, it } from 'vitest';
import type { CarrierInbound } from '../../domain/submission.ts';
import { type TestEnv, testEnv } from '../../env.ts';
import { Inbound } from './inbound.ts';
import { COMMAND, type Pdu, type ShortMessage, shortMessage, TAG } from './pdu.ts';

function inboundOn(env: TestEnv): { inbound: Inbound; seen: CarrierInbound[]; texts: () => string[] } {
  const seen: CarrierInbound[] = [];
  const inbound = new Inbound({
    name: 'c',
    encoding: { default: 'gsm', packed: false },
    env,
    onInbound: async (mo) => void seen.push(mo),
  });
  return { inbound, seen, texts: () => seen.map((mo) => Buffer.from(mo.parts[0]!.bytes).toString()) };
}

function from(sender: string, octets: Uint8Array, more: Partial<ShortMessage> = {}): Pdu & ShortMessage {
  const source = { ton: 1, npi: 1, text: sender };
  const message = shortMessage({ source, shortMessage: octets, ...more });
  return { command: COMMAND.deliver, status: 0, sequence: 1, ...message };
}

function piece(sender: string, n: number, total: number, text: string): Pdu & ShortMessage {
  return from(sender, Buffer.concat([Uint8Array.of(5, 0, 3, 1, total, n), Buffer.from(text)]), { esmClass: 0x40 });
}

describe('what handsets send', () => {
  it('waits for its pieces up to a bound; then the oldest is handed on as it is', async () => {
    const { inbound, texts } = inboundOn(testEnv());
    for (let n = 0; n < 10_000; n++) await inbound.take(piece(`${n}`, 1, 2, `text ${n}`));
    expect(texts()).toEqual([]);
    await inbound.take(piece('one more', 1, 2, 'new'));
    expect(texts()).toEqual(['text 0']);
    await inbound.flush();
    expect(texts().length).toBe(10_001);
  });

  it('comes from and goes to numbers without + or 00', async () => {
    const { inbound, seen } = inboundOn(testEnv());
    const destination = { ton: 1, npi: 1, text: '00441134960000' };
    await inbound.take(from('00447700900123', Buffer.from('hi'), { destination }));
    await inbound.take(from('+447700900123', Buffer.from('ho'), { destination: { ...destination, text: '00123' } }));
    expect(seen).toMatchObject([
      { from: '447700900123', to: ['441134960000'] },
      { from: '447700900123', to: ['00123'] },
    ]);
  });

  it('waits in no more than 16 MiB', async () => {
    const { inbound, seen } = inboundOn(testEnv());
    const tlvs = [
      { tag: TAG.payload, value: new Uint8Array(60_000) },
      { tag: TAG.sarReference, value: Uint8Array.of(0, 1) },
      { tag: TAG.sarTotal, value: Uint8Array.of(2) },
      { tag: TAG.sarSegment, value: Uint8Array.of(1) },
    ];
    const count = Math.floor((16 * 1024 * 1024) / 60_000);
    for (let n = 0; n < count; n++) await inbound.take(from(`${n}`, new Uint8Array(0), { tlvs, dataCoding: 4 }));
    expect(seen.length).toBe(0);
    await inbound.take(from('one more', new Uint8Array(0), { tlvs, dataCoding: 4 }));
    expect(seen.map((mo) => mo.from)).toEqual(['0']);
    await inbound.flush();
  });

  it('is joined also where its peer cut a character in two', async () => {
    const { inbound, texts } = inboundOn(testEnv());
    const octets = Buffer.from('one 😀 two', 'utf16le').swap16();
    // Between the two halves of the emoji.
    for (const [n, part] of [octets.subarray(0, 10), octets.subarray(10)].entries()) {
      const header = Uint8Array.of(5, 0, 3, 1, 2, n + 1);
      await inbound.take(from('1', Buffer.concat([header, part]), { esmClass: 0x40, dataCoding: 8 }));
    }
    // Half a character alone cannot be shown.
    await inbound.take(from('2', octets.subarray(0, 10), { dataCoding: 8 }));
    await inbound.take(from('3', octets.subarray(0, 7), { dataCoding: 8 }));
    expect(texts()).toEqual(['one 😀 two', 'one \ufffd', 'one\ufffd']);
  });

  it('has the id it would have had before a restart, so that a repetition over it is known', async () => {
    const env = testEnv();
    const before = inboundOn(env);
    const after = inboundOn(env);
    await before.inbound.take(from('1', Buffer.from('yes')));
    await env.clock.advance(30_000);
    await after.inbound.take(from('1', Buffer.from('yes')));
    expect(after.seen[0]!.id).toBe(before.seen[0]!.id);
  });

  it('has another id after the time in which an SMSC repeats', async () => {
    const env = testEnv();
    const { inbound, seen } = inboundOn(env);
    await inbound.take(from('1', Buffer.from('yes')));
    await env.clock.advance(11 * 60_000);
    await inbound.take(from('1', Buffer.from('yes')));
    expect(new Set(seen.map((mo) => mo.id)).size).toBe(2);
  });

  it('from a name keeps it, from a number loses the plus', async () => {
    const { inbound, seen } = inboundOn(testEnv());
    await inbound.take(from('+447700900123', Buffer.from('a')));
    await inbound.take(from('Postcard', Buffer.from('a')));
    expect(seen.map((mo) => mo.from)).toEqual(['447700900123', 'Postcard']);
  });
});
