import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type TestEnv, testEnv } from '../../env.ts';
import { HANDSET_MESSAGES, KEEP_MS, type Ledger, openLedger, type Take } from './ledger.ts';

let dir: string;
let env: TestEnv;
let ledger: Ledger;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'ledger-'));
  env = testEnv();
  ledger = openLedger(join(dir, 'l.db'), env);
});
afterEach(() => {
  ledger.close();
  rmSync(dir, { recursive: true, force: true });
});

function message(tx: string, text: string, to = ['491700000001']): Take {
  const bytes = Buffer.from(text);
  return {
    request: {
      transactionId: tx,
      namespace: 'n',
      version: '6.8.0',
      vasp: 'v',
      sender: { kind: 'Number', text: '+44', shown: '44' },
      recipients: to.map((msisdn) => ({ kind: 'Number', text: msisdn, msisdn, list: 'To' })),
      subject: null,
      reports: true,
      earliestAt: null,
      expiresAt: null,
      parts: [{ contentType: 'text/plain', contentId: 'c', bytes, hash: createHash('sha256').update(bytes).digest() }],
    },
    fingerprint: createHash('sha256').update(text).digest(),
    busyTimes: 0,
  };
}

async function deliverAll(): Promise<void> {
  const due = ledger.due(Number.MAX_SAFE_INTEGER, 10_000);
  await Promise.all(due.map((one) => ledger.deliver(one)));
  await Promise.all(due.map((one) => ledger.advance(one, null, 'reported')));
}

describe('the ledger', () => {
  it('keeps the newest 1000 messages of a handset, and no bytes of the others', async () => {
    const many = Array.from({ length: HANDSET_MESSAGES + 5 }, (_, n) => message(`t${n}`, `text ${n}`));
    await Promise.all(many.map((one) => ledger.take(one)));
    await deliverAll();
    expect(ledger.inbox('491700000001')).toHaveLength(HANDSET_MESSAGES);
    const { contentBytes, messagesOnHandsets, pending } = ledger.counters();
    expect([messagesOnHandsets, pending]).toEqual([HANDSET_MESSAGES, 0]);
    const kept = many.slice(5).reduce((sum, one) => sum + one.request.parts[0]!.bytes.byteLength, 0);
    expect(contentBytes).toBe(kept);
  });

  it('keeps the bytes of a content once, until the last handset that shows it is emptied', async () => {
    await ledger.take(message('a', 'same', ['1', '2']));
    await ledger.take(message('b', 'same', ['3']));
    expect(ledger.counters().contentBytes).toBe(4);
    await deliverAll();
    await ledger.empty('1');
    await ledger.empty('3');
    const [left] = ledger.inbox('2');
    expect(Buffer.from(ledger.part('2', left!.id, 0)!.bytes).toString()).toBe('same');
    await ledger.empty('2');
    expect(ledger.counters().contentBytes).toBe(0);
    expect(ledger.bytes(left!.parts[0]!.sha256)).toBeNull();
  });

  it('makes room by dropping the oldest messages of handsets, and takes nothing that would not fit', async () => {
    ledger.close();
    ledger = openLedger(join(dir, 'l.db'), env, 10);
    await ledger.take(message('a', 'aaaa', ['1']));
    await deliverAll();
    await ledger.take(message('b', 'bbbb', ['2']));
    expect((await ledger.take(message('c', 'cccc', ['3']))).kind).toBe('taken');
    expect(ledger.inbox('1')).toEqual([]);
    // What is not on its handset yet is never dropped.
    expect((await ledger.take(message('d', 'dddd', ['4']))).kind).toBe('full');
    expect((await ledger.take(message('d', 'dddd', ['4']))).kind).toBe('full');
    await deliverAll();
    expect(ledger.inbox('2')).toHaveLength(1);
    expect((await ledger.take(message('d', 'dddd', ['4']))).kind).toBe('taken');
    expect([ledger.inbox('2').length, ledger.inbox('3').length]).toEqual([0, 1]);
    expect(ledger.counters().contentBytes).toBe(8);
    expect((await ledger.take(message('e', 'e'.repeat(11), ['5']))).kind).toBe('full');
  });

  it('forgets everything seven days after it was taken, TransactionIDs too', async () => {
    await ledger.take(message('old', 'x'));
    await deliverAll();
    await env.clock.advance(KEEP_MS - 1);
    await ledger.sweep();
    expect((await ledger.take(message('old', 'x'))).kind).toBe('repeated');
    await env.clock.advance(2);
    expect(await ledger.sweep()).toBe(false);
    expect(ledger.inbox('491700000001')).toEqual([]);
    expect(ledger.counters().contentBytes).toBe(0);
    expect((await ledger.take(message('old', 'x'))).kind).toBe('taken');
  });

  it('takes equal TransactionIDs of different VASPs for different ones', async () => {
    const other = message('t', 'x');
    other.request.vasp = 'w';
    expect((await ledger.take(message('t', 'x'))).kind).toBe('taken');
    expect((await ledger.take(other)).kind).toBe('taken');
  });

  it('runs one bad verb alone: those that shared its commit are not harmed', async () => {
    const bad = message('bad', 'x');
    bad.request.subject = {} as unknown as string;
    const results = await Promise.allSettled([
      ledger.take(message('one', 'x')),
      ledger.take(bad),
      ledger.take(message('two', 'x')),
    ]);
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(ledger.counters()).toMatchObject({ taken: 2, pending: 2, contentBytes: 1 });
    expect((await ledger.take(message('bad', 'x'))).kind).toBe('taken');
  });

  it('knows its counters after it was closed and opened again', async () => {
    await ledger.take(message('a', 'x'));
    await ledger.take(message('a', 'x'));
    ledger.close();
    ledger = openLedger(join(dir, 'l.db'), env);
    expect(ledger.counters()).toMatchObject({ taken: 1, repeated: 1, pending: 1, contentBytes: 1 });
  });

  it('refuses a file of a newer version, and one that another process has open', () => {
    const newer = new DatabaseSync(join(dir, 'newer.db'));
    newer.exec('PRAGMA user_version = 99');
    newer.close();
    expect(() => openLedger(join(dir, 'newer.db'), env)).toThrow('newer version');
    expect(() => openLedger(join(dir, 'l.db'), env)).toThrow('locked');
  });
});
