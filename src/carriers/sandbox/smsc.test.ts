/** The sandbox's SMSC, with our carrier, the npm package and bare bytes as ESMEs, over real sockets and virtual time. */
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import smpp, { type PeerPdu, type PeerSession } from 'smpp';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { CarrierReport, Outcome, SmsSubmission } from '../../domain/submission.ts';
import { type TestEnv, testEnv } from '../../env.ts';
import { createMm7Carrier } from '../mm7/mm7.ts';
import { createSmppCarrier, type SmppCarrier, type SmppConfig } from '../smpp/smpp.ts';
import type { MessageView } from './handsets.ts';
import { NO_MMS_STATUS, type Sandbox, startSandbox, TRANSACTION_TAG } from './sandbox.ts';

let dir: string;
let env: TestEnv;
let sandbox: Sandbox;
let closers: (() => Promise<void>)[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'smsc-'));
  env = testEnv();
  closers = [];
  sandbox = await open(join(dir, 'sandbox.db'));
});

afterEach(async () => {
  for (const close of closers.reverse()) {
    let done = false;
    const closing = close().finally(() => {
      done = true;
    });
    while (!done) {
      await env.clock.advance(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await closing;
  }
  rmSync(dir, { recursive: true, force: true });
});

async function open(file: string, own = env): Promise<Sandbox> {
  const started = await startSandbox({
    host: '127.0.0.1',
    port: 0,
    smppPort: 0,
    file,
    reportUrl: 'http://127.0.0.1:1/mm7/sandbox',
    env: own,
  });
  closers.push(() => started.close());
  return started;
}

interface Link {
  carrier: SmppCarrier;
  reports: CarrierReport[];
  hooks: { fail: boolean };
}

async function link(config: Partial<SmppConfig> = {}, at = sandbox, own = env): Promise<Link> {
  const reports: CarrierReport[] = [];
  const hooks = { fail: false };
  const carrier = createSmppCarrier(
    {
      name: 'sandbox',
      host: '127.0.0.1',
      port: at.smppPort!,
      systemId: 'postcard',
      password: 'x',
      transactionTlv: TRANSACTION_TAG,
      receiptIdForm: 'as-is',
      ...config,
    },
    {
      onReport: async (report) => {
        if (hooks.fail) throw new Error('the store is away');
        reports.push(report);
      },
      onInbound: async () => {},
    },
    own,
  );
  closers.push(() => carrier.close());
  await until(() => carrier.health().bound === carrier.health().binds);
  return { carrier, reports, hooks };
}

async function until<T>(what: () => T | false | undefined | null | Promise<T | false | undefined | null>): Promise<T> {
  for (;;) {
    const found = await what();
    if (found) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

let transactions = 0;
function sms(recipient: string, text = 'hello', transactionId = `t-${++transactions}`): SmsSubmission {
  return { transactionId, sender: 'Postcard', recipient, text, validUntil: env.clock.now() + 48 * 3_600_000 };
}

const never = new AbortController().signal;
const submit = ({ carrier }: Link, one: SmsSubmission): Promise<Outcome> => carrier.submit(one, never);

async function inbox(msisdn: string, at = sandbox): Promise<MessageView[]> {
  const answer = await fetch(`${at.url}/sandbox/handsets/${msisdn}/messages`);
  return ((await answer.json()) as { messages: MessageView[] }).messages;
}

async function counters(at = sandbox): Promise<Record<string, number>> {
  return ((await (await fetch(`${at.url}/sandbox`)).json()) as { counters: Record<string, number> }).counters;
}

const kinds = ({ reports }: Link): string[] => reports.map((report) => report.kind);

describe('an SMS', () => {
  it('is taken, lies on the handset beside the MMS, and its receipt comes under the same id', async () => {
    const one = await link();
    const outcome = await submit(one, sms('447700900001', 'Hi €'));
    expect(outcome).toMatchObject({ kind: 'accepted' });
    expect(await inbox('447700900001')).toEqual([]);
    await env.clock.advance(1_000);
    await until(() => one.reports.length === 1);
    const id = (outcome as { carrierMessageId: string }).carrierMessageId;
    expect(one.reports).toMatchObject([
      { carrierMessageId: id, kind: 'retrieved', addresses: ['447700900001', 'Postcard'] },
    ]);
    const [message, ...more] = await inbox('447700900001');
    expect(more).toEqual([]);
    expect(message).toMatchObject({
      channel: 'SMS',
      from: 'Postcard',
      to: ['447700900001'],
      text: 'Hi €',
      id,
      parts: [{ contentType: 'text/plain; charset=utf-8', text: 'Hi €' }],
    });
    expect(await (await fetch(message!.parts[0]!.url)).text()).toBe('Hi €');
    const { handsets } = (await (await fetch(`${sandbox.url}/sandbox/handsets`)).json()) as { handsets: unknown[] };
    expect(handsets).toMatchObject([{ msisdn: '447700900001', messages: 1 }]);
    const emptied = await fetch(`${sandbox.url}/sandbox/handsets/447700900001/messages`, { method: 'DELETE' });
    expect(await emptied.json()).toEqual({ deleted: 1 });
    expect(await inbox('447700900001')).toEqual([]);
  });

  it.each(['udh', 'sar', 'payload'] as const)(
    'of several segments by %s lies there as one text',
    async (concatenation) => {
      const one = await link({ concatenation });
      const text = `${'Grüße 😀 '.repeat(30)}`;
      expect(await submit(one, sms('447700900001', text))).toMatchObject({ kind: 'accepted' });
      await env.clock.advance(1_000);
      await until(() => one.reports.length === 1);
      expect((await inbox('447700900001')).map((message) => message.text)).toEqual([text]);
      expect(kinds(one)).toEqual(['retrieved']);
    },
  );

  it('expires where the handset is not reached in time', async () => {
    const one = await link();
    const late = { ...sms('447700900001'), validUntil: env.clock.now() + 500 };
    expect(await submit(one, late)).toMatchObject({ kind: 'accepted' });
    await env.clock.advance(1_000);
    await until(() => one.reports.length === 1);
    expect(kinds(one)).toEqual(['expired']);
    expect(await inbox('447700900001')).toEqual([]);
  });
});

describe('by the last digits', () => {
  it.each([
    ['9901', { kind: 'refused', error: { id: 351 } }],
    ['9902', { kind: 'accepted' }],
    ['9911', { kind: 'accepted' }],
  ])('%s at submit', async (digits, outcome) => {
    expect(await submit(await link(), sms(`44770090${digits}`))).toMatchObject(outcome);
  });

  it.each([
    ['9902', ['rejected'], 0],
    ['9903', ['expired'], 0],
    ['9904', ['forwarded', 'retrieved'], 1],
    ['9905', [], 0],
    ['9908', ['retrieved', 'retrieved', 'forwarded', 'forwarded'], 1],
    ['9911', ['retrieved'], 1],
  ])('%s afterwards', async (digits, told, copies) => {
    const one = await link();
    await submit(one, sms(`44770090${digits}`));
    await until(async () => {
      await env.clock.advance(250);
      return (await counters()).smsPending === 0;
    });
    expect(kinds(one)).toEqual(told);
    expect((await inbox(`44770090${digits}`)).length).toBe(copies);
  });

  it('9906 is throttled, then its queue is full, then it is taken', async () => {
    const one = await link();
    const again = sms('447700909906');
    const words: (string | undefined)[] = [];
    for (let i = 0; i < 2; i++) {
      const outcome = await submit(one, again);
      expect(outcome.kind).toBe('throttled');
      words.push((outcome as { error?: { words?: string } }).error?.words);
      await env.clock.advance(30_000);
      await until(() => one.carrier.health().bound === 1);
    }
    expect(words).toEqual(['0x58 ESME_RTHROTTLED', '0x14 ESME_RMSGQFUL']);
    expect(await submit(one, again)).toMatchObject({ kind: 'accepted' });
  });

  it('9907 is cut, its repetition answered, one copy and one count', async () => {
    const one = await link();
    const again = sms('447700909907', 'x'.repeat(300));
    expect(await submit(one, again)).toMatchObject({ kind: 'unknown' });
    await env.clock.advance(2_000);
    await until(() => one.carrier.health().bound === 1);
    expect(await submit(one, again)).toMatchObject({ kind: 'accepted' });
    await env.clock.advance(2_000);
    await until(() => one.reports.length === 1);
    expect((await inbox('447700909907')).length).toBe(1);
    expect(await counters()).toMatchObject({ smsTaken: 2, smsRepeated: 1, cut: 1, smsDelivered: 1 });
  });

  it('9909 is answered after 5 s', async () => {
    const one = await link();
    let done = false;
    const outcome = submit(one, sms('447700909909')).finally(() => {
      done = true;
    });
    await until(async () => (await counters()).smsTaken === 1);
    await env.clock.advance(4_900);
    expect(done).toBe(false);
    await env.clock.advance(200);
    expect(await outcome).toMatchObject({ kind: 'accepted' });
  });

  it('9910 is answered with garbage, which harms nobody else on the bind', async () => {
    const one = await link();
    const again = sms('447700909910');
    const both = await Promise.all([submit(one, again), submit(one, sms('447700900001'))]);
    expect(both).toMatchObject([{ kind: 'unknown' }, { kind: 'accepted' }]);
    expect(await submit(one, again)).toMatchObject({ kind: 'accepted' });
    expect(await counters()).toMatchObject({ garbage: 1, smsRepeated: 1 });
  });
});

describe('a handset without MMS (9911)', () => {
  const mms = (recipients: string[]) => ({
    transactionId: `m-${++transactions}`,
    sender: 'Postcard',
    recipients,
    parts: [{ contentId: 'text', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('look') }],
    validUntil: env.clock.now() + 3_600_000,
  });

  it('refuses the MMS with 15019, alone and in a group, and shows the SMS', async () => {
    const mm7 = createMm7Carrier(
      {
        name: 'sandbox',
        url: `${sandbox.url}/mm7`,
        namespace: 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4',
        version: '6.8.0',
        transferEncoding: 'binary',
        errors: { [NO_MMS_STATUS]: 15019 },
        concurrency: 2,
        timeoutMs: 30_000,
      },
      env,
    );
    closers.push(async () => void (await mm7.close?.()));
    expect(await mm7.submit(mms(['447700909911']), never)).toMatchObject({ kind: 'refused', error: { id: 15019 } });
    expect(await mm7.submit(mms(['447700900001', '447700909911', '447700909901']), never)).toMatchObject({
      kind: 'accepted',
      refused: [
        { recipient: '447700909911', error: { id: 15019 } },
        { recipient: '447700909901', error: { id: 15009 } },
      ],
    });
    const one = await link();
    expect(await submit(one, sms('447700909911', 'instead'))).toMatchObject({ kind: 'accepted' });
    await env.clock.advance(1_000);
    await until(() => one.reports.length === 1);
    expect((await inbox('447700909911')).map(({ channel, text }) => [channel, text])).toEqual([['SMS', 'instead']]);
  });
});

describe('receipts', () => {
  it('that are not taken are told again', async () => {
    const one = await link();
    one.hooks.fail = true;
    await submit(one, sms('447700900001'));
    await env.clock.advance(1_000);
    await until(async () => (await counters()).smsReportsInVain === 1);
    one.hooks.fail = false;
    await env.clock.advance(1_000);
    await until(() => one.reports.length === 1);
    expect((await inbox('447700900001')).length).toBe(1);
    await until(async () => (await counters()).smsPending === 0);
  });

  it('wait for a bind, and come soon after it', async () => {
    const one = await link();
    await submit(one, sms('447700900001'));
    await one.carrier.close();
    for (let i = 0; i < 8; i++) {
      await env.clock.advance(60_000);
      await until(async () => ((await counters()).smsReportsInVain ?? 0) > i);
    }
    const two = await link();
    await env.clock.advance(100);
    await until(() => two.reports.length === 1);
  });

  it('of another system id are not told to this one', async () => {
    const one = await link();
    const two = await link({ systemId: 'other' });
    await submit(one, sms('447700900001'));
    await env.clock.advance(1_000);
    await until(() => one.reports.length === 1);
    expect(two.reports).toEqual([]);
  });

  it('and texts survive kill -9, and a repetition after it is known', async () => {
    const one = await link();
    const done = await submit(one, sms('447700900001', 'first', 'tx-1'));
    await env.clock.advance(1_000);
    await until(async () => (await counters()).smsPending === 0);
    await submit(one, sms('447700900002', 'second', 'tx-2'));
    // What a killed process leaves: its files as they are.
    const file = join(dir, 'sandbox.db');
    const copy = join(dir, 'copy.db');
    for (const end of ['', '-wal']) if (existsSync(file + end)) copyFileSync(file + end, copy + end);
    const later = testEnv({ now: env.clock.now() + 3_600_000, seed: 2 });
    const again = await open(copy, later);
    const two = await link({}, again, later);
    expect((await inbox('447700900001', again)).map((message) => message.text)).toEqual(['first']);
    await later.clock.advance(100);
    await until(() => two.reports.length === 1);
    expect(two.reports).toMatchObject([{ kind: 'retrieved', addresses: ['447700900002', 'Postcard'] }]);
    expect(await submit(two, sms('447700900001', 'first', 'tx-1'))).toEqual(done);
    expect(await counters(again)).toMatchObject({ smsTaken: 2, smsRepeated: 1 });
  });
});

describe('with the npm package as ESME', () => {
  async function bound(): Promise<PeerSession> {
    const session = await new Promise<PeerSession>((resolve) => {
      const made = smpp.connect({ host: '127.0.0.1', port: sandbox.smppPort! }, () => resolve(made));
    });
    session.on('error', () => {});
    closers.push(async () => session.destroy());
    const answer = await ask((done) => session.bind_transceiver({ system_id: 'npm', password: 'x' }, done));
    expect(answer.command_status).toBe(0);
    return session;
  }
  const ask = (call: (done: (pdu: PeerPdu) => void) => void): Promise<PeerPdu> => new Promise(call);

  it('takes its texts and tells it of them', async () => {
    const session = await bound();
    const told: PeerPdu[] = [];
    session.on('deliver_sm', (pdu) => {
      told.push(pdu);
      session.send(pdu.response());
    });
    const answer = await ask((done) =>
      session.submit_sm(
        { source_addr: '12345', destination_addr: '447700900001', short_message: 'Привет', registered_delivery: 1 },
        done,
      ),
    );
    expect(answer).toMatchObject({ command_status: 0, message_id: expect.stringMatching(/^[0-9a-f]{16}$/) });
    await env.clock.advance(1_000);
    await until(() => told.length === 1);
    expect(told[0]).toMatchObject({ esm_class: 4, receipted_message_id: answer.message_id, message_state: 2 });
    expect(String((told[0]!.short_message as { message: string }).message)).toContain(
      `id:${answer.message_id as string} `,
    );
    expect((await inbox('447700900001')).map((message) => message.text)).toEqual(['Привет']);
  });

  it.each([
    ['a destination that is none', { destination_addr: 'abc' }, 0x0b],
    ['a validity that is none', { validity_period: 'tomorrow' }, 0x62],
    ['a validity in the past', { validity_period: '200101000000000+' }, 0x62],
    ['an unknown type of number', { source_addr_ton: 7 }, 0x0a],
    ['a datagram', { esm_class: 0x3c }, 0x43],
  ])('refuses %s', async (_, fields, status) => {
    const session = await bound();
    const answer = await ask((done) =>
      session.submit_sm(
        { source_addr: '12345', destination_addr: '447700900001', short_message: 'x', ...fields },
        done,
      ),
    );
    expect(answer.command_status).toBe(status);
    expect(await counters()).toMatchObject({ smsRefused: 1, smsTaken: 0 });
  });

  it('joins a text that was cut in the middle of a character, as Kannel does', async () => {
    const session = await bound();
    const octets = Buffer.from('Hi 😀!', 'utf16le').swap16();
    for (const [n, part] of [octets.subarray(0, 8), octets.subarray(8)].entries()) {
      const short_message = Buffer.concat([Uint8Array.of(5, 0, 3, 9, 2, n + 1), part]);
      const fields = { source_addr: '12345', destination_addr: '447700900001', esm_class: 0x40, data_coding: 8 };
      const answer = await ask((done) => session.submit_sm({ ...fields, short_message }, done));
      expect(answer.command_status).toBe(0);
    }
    await env.clock.advance(1_000);
    await until(async () => (await counters()).smsPending === 0);
    expect((await inbox('447700900001')).map((message) => message.text)).toEqual(['Hi 😀!']);
  });

  it('answers enquire_link and unbind', async () => {
    const session = await bound();
    expect((await ask((done) => session.enquire_link({}, done))).command_status).toBe(0);
    expect((await ask((done) => session.unbind({}, done))).command_status).toBe(0);
  });
});

describe('the door', () => {
  it('lets nobody submit unbound, and leaves who never binds', async () => {
    const session = await new Promise<PeerSession>((resolve) => {
      const made = smpp.connect({ host: '127.0.0.1', port: sandbox.smppPort! }, () => resolve(made));
    });
    session.on('error', () => {});
    const answer = await new Promise<PeerPdu>((resolve) => {
      session.submit_sm({ destination_addr: '447700900001', short_message: 'x' }, resolve);
    });
    expect(answer.command_status).toBe(0x04);
    let closed = false;
    session.on('close', () => {
      closed = true;
    });
    await env.clock.advance(10_000);
    await until(() => closed);
  });

  it('says which port is taken', async () => {
    const blocker = createServer();
    await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
    const { port } = blocker.address() as AddressInfo;
    const options = { host: '127.0.0.1', port: 0, reportUrl: 'http://127.0.0.1:1/', env };
    await expect(startSandbox({ ...options, smppPort: port, file: join(dir, 'b.db') })).rejects.toMatchObject({
      code: 'EADDRINUSE',
      port,
    });
    await new Promise((resolve) => blocker.close(resolve));
    // Nothing is left behind: the same file opens.
    await open(join(dir, 'b.db'));
  });

  it('closes what sends garbage and serves the others', async () => {
    const one = await link();
    const socket = connect(sandbox.smppPort!, '127.0.0.1');
    let closed = false;
    socket.on('close', () => {
      closed = true;
    });
    socket.on('error', () => {});
    socket.write('GET / HTTP/1.1\r\n\r\n');
    socket.resume();
    await until(() => closed);
    expect(await submit(one, sms('447700900001'))).toMatchObject({ kind: 'accepted' });
  });
});
