/** The carrier against an SMSC that does what the test says, over real sockets and virtual time. */
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import smpp, { type PeerPdu, type PeerSession } from 'smpp';
import { afterEach, describe, expect, it } from 'vitest';
import { CA, OTHER_CA, SERVER_CERT, SERVER_KEY } from '../../../test/certificates.ts';
import { FREE_TURN, Pace } from '../../dispatch/pace.ts';
import type { CarrierInbound, CarrierReport, Outcome, SmsSubmission } from '../../domain/submission.ts';
import { type TestEnv, testEnv } from '../../env.ts';
import type { Hand } from '../carrier.ts';
import {
  ANSWER,
  type Body,
  COMMAND,
  decode,
  ESM,
  encode,
  Framer,
  GENERIC_NACK,
  isAnswer,
  type Pdu,
  type ShortMessage,
  STATUS,
  shortMessage,
  TAG,
} from './pdu.ts';
import { createSmppCarrier, type SmppCarrier, type SmppConfig } from './smpp.ts';

type Message = Pdu & ShortMessage;

/** Waits for something that the sockets bring, without moving the clock. */
async function until<T>(what: () => T | undefined | null | false): Promise<T> {
  for (;;) {
    const found = what();
    if (found) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** One connection at the SMSC. */
class Peer {
  readonly socket: Socket;
  readonly received: Pdu[] = [];
  readonly answers: Pdu[] = [];
  bound: number | null = null;
  closed = false;
  private readonly framer = new Framer();
  private sequence = 1;

  constructor(socket: Socket, smsc: Smsc) {
    this.socket = socket;
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
    });
    socket.on('data', (chunk: Buffer) => {
      this.framer.push(chunk, (bytes) => {
        const read = decode(bytes);
        if (!read.ok) throw new Error(`the carrier sent what cannot be read: ${read.why}`);
        if (isAnswer(read.pdu.command)) this.answers.push(read.pdu);
        else {
          this.received.push(read.pdu);
          smsc.on(read.pdu, this);
        }
      });
    });
  }

  answer(to: Pdu, status: number, body: Body = { kind: 'named', id: '', tlvs: [] }): void {
    this.socket.write(encode({ command: ANSWER + to.command, status, sequence: to.sequence, ...body }));
  }

  take(to: Pdu, id: string): void {
    this.answer(to, STATUS.ok, { kind: 'named', id, tlvs: [] });
  }

  get submits(): Message[] {
    return this.received.filter((pdu) => pdu.command === COMMAND.submit) as Message[];
  }

  /** Sends a request and resolves with its answer. */
  async ask(command: number, body: Body): Promise<Pdu> {
    const sequence = this.sequence++;
    this.socket.write(encode({ command, status: 0, sequence, ...body }));
    return until(() => this.answers.find((one) => one.sequence === sequence));
  }

  deliver(fields: Partial<ShortMessage>): Promise<Pdu> {
    return this.ask(COMMAND.deliver, shortMessage(fields));
  }
}

class Smsc {
  readonly peers: Peer[] = [];
  readonly server: Server;
  port = 0;
  bindStatus: number = STATUS.ok;
  /** What is done with what the carrier sends, other than bind and enquire_link. */
  behaviour: (pdu: Message, peer: Peer) => void = (pdu, peer) => peer.take(pdu, `id-${pdu.sequence}`);
  /** Answers enquire_link. */
  alive = true;
  mute = false;

  constructor(tls = false) {
    const connected = (socket: Socket): void => void this.peers.push(new Peer(socket, this));
    this.server = tls ? createTlsServer({ cert: SERVER_CERT, key: SERVER_KEY }, connected) : createServer(connected);
  }

  async listen(port = 0): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    this.port = (this.server.address() as { port: number }).port;
  }

  async stop(): Promise<void> {
    for (const peer of this.peers) peer.socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  on(pdu: Pdu, peer: Peer): void {
    if (this.mute) return;
    if (pdu.kind === 'bind') {
      if (this.bindStatus === STATUS.ok) peer.bound = pdu.command;
      peer.answer(pdu, this.bindStatus, { kind: 'named', id: 'smsc', tlvs: [] });
    } else if (pdu.command === COMMAND.enquireLink) {
      if (this.alive) peer.answer(pdu, STATUS.ok, { kind: 'bare' });
    } else if (pdu.command === COMMAND.unbind) peer.answer(pdu, STATUS.ok, { kind: 'bare' });
    else this.behaviour(pdu as Message, peer);
  }

  bound(n = 0): Promise<Peer> {
    return until(() => this.peers.filter((peer) => peer.bound !== null && !peer.closed)[n]);
  }
}

let open: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of open.reverse()) await close();
  open = [];
});

interface World {
  env: TestEnv;
  smsc: Smsc;
  carrier: SmppCarrier;
  reports: CarrierReport[];
  inbound: CarrierInbound[];
  hooks: { fail: boolean };
}

async function world(config: Partial<SmppConfig> = {}, prepare: (smsc: Smsc) => void = () => {}): Promise<World> {
  const env = testEnv();
  const smsc = new Smsc(Boolean(config.tls));
  prepare(smsc);
  await smsc.listen();
  const reports: CarrierReport[] = [];
  const inbound: CarrierInbound[] = [];
  const hooks = { fail: false };
  const note =
    <T>(list: T[]) =>
    async (one: T) => {
      if (hooks.fail) throw new Error('the store is away');
      list.push(one);
    };
  const carrier = createSmppCarrier(
    { name: 'smsc', host: '127.0.0.1', port: smsc.port, systemId: 'esme', password: 'secret', ...config },
    { onReport: note(reports), onInbound: note(inbound) },
    env,
  );
  open.push(async () => {
    const closed = carrier.close();
    let done = false;
    void closed.then(() => {
      done = true;
    });
    while (!done) await env.clock.advance(1_000);
    await smsc.stop();
  });
  return { env, smsc, carrier, reports, inbound, hooks };
}

let transactions = 0;
function sms(text = 'hello', more: Partial<SmsSubmission> = {}): SmsSubmission {
  return {
    transactionId: `t-${++transactions}`,
    sender: 'Postcard',
    recipient: '447700900123',
    text,
    validUntil: Date.UTC(2026, 0, 3),
    ...more,
  };
}

const never = new AbortController().signal;
/** A rate without limit, that nobody listens behind. */
const hand: Hand = { leaves: () => true, open: () => true, turn: () => FREE_TURN, late: () => undefined };

/** Moves the clock until a promise settles. */
async function settled<T>({ env }: World, promise: Promise<T>, stepMs = 1_000): Promise<T> {
  let done = false;
  void promise.finally(() => {
    done = true;
  });
  for (let i = 0; !done && i < 1_000; i++) {
    for (let turn = 0; turn < 20 && !done; turn++) await new Promise((resolve) => setImmediate(resolve));
    if (!done) await env.clock.advance(stepMs);
  }
  return promise;
}

describe('binding', () => {
  it('shows who we are and takes messages from then on', async () => {
    const { smsc, carrier } = await world({ systemType: 'mms' });
    const peer = await smsc.bound();
    expect(peer.received[0]).toMatchObject({
      command: COMMAND.bindTransceiver,
      systemId: 'esme',
      password: 'secret',
      systemType: 'mms',
      interfaceVersion: 0x34,
    });
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
    expect(carrier.health()).toEqual({ binds: 1, bound: 1, outstanding: 0, trouble: '' });
  });

  it('goes over TLS, by name or address, with the authority that is configured', async () => {
    const { carrier, smsc } = await world({ tls: { ca: CA }, host: 'localhost' });
    await smsc.bound();
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
    const other = await world({ tls: { ca: CA } });
    await other.smsc.bound();
    expect(await other.carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
  });

  it.each([
    ['an authority that did not sign', { ca: OTHER_CA }],
    ['no authority at all', true],
    ['a name that is not its own', { ca: CA, servername: 'mmsc.example' }],
  ])('with %s sends nothing, not even the password', async (_, tls) => {
    const { carrier, smsc } = await world({ tls });
    await until(() => carrier.health().trouble !== '');
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'deferred' });
    expect(smsc.peers.flatMap((peer) => peer.received)).toEqual([]);
  });

  it('a pair sends on one and is delivered to on the other', async () => {
    const { smsc, carrier, reports } = await world({ bind: 'pair', receiptIdForm: 'as-is' });
    const both = await until(() => smsc.peers.filter((peer) => peer.bound !== null).length === 2 && smsc.peers);
    const sender = both.find((peer) => peer.bound === COMMAND.bindTransmitter)!;
    const receiver = both.find((peer) => peer.bound === COMMAND.bindReceiver)!;
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
    expect(sender.submits.length).toBe(1);
    await receiver.deliver({ esmClass: ESM.receipt, shortMessage: Buffer.from('id:1 stat:DELIVRD') });
    expect(reports).toMatchObject([{ carrierMessageId: '1', kind: 'retrieved' }]);
  });

  it('a submission waits for a bind that is being made', async () => {
    const { smsc, carrier } = await world({}, (one) => {
      one.mute = true;
    });
    const outcome = carrier.submit(sms(), never);
    const bind = await until(() => smsc.peers[0]?.received[0]);
    smsc.mute = false;
    smsc.on(bind, smsc.peers[0]!);
    expect(await outcome).toMatchObject({ kind: 'accepted' });
  });

  it('a refused bind defers and says why, and is tried again later', async () => {
    const w = await world({}, (smsc) => {
      smsc.bindStatus = STATUS.badPassword;
    });
    await until(() => w.carrier.health().trouble !== '');
    const outcome = await w.carrier.submit(sms(), never);
    expect(outcome).toMatchObject({
      kind: 'deferred',
      error: { id: 4102, words: expect.stringContaining('RINVPASWD') },
    });
    expect((outcome as Extract<Outcome, { kind: 'deferred' }>).retryAfterMs).toBeGreaterThanOrEqual(15_000);
    w.smsc.bindStatus = STATUS.ok;
    await w.env.clock.advance((outcome as { retryAfterMs: number }).retryAfterMs);
    await until(() => w.carrier.health().bound === 1);
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
  });

  it('a port where nobody listens defers, with the next try as the wish', async () => {
    const env = testEnv();
    const carrier = createSmppCarrier(
      { name: 'smsc', host: '127.0.0.1', port: 1, systemId: 'a', password: 'b' },
      { onReport: async () => {}, onInbound: async () => {} },
      env,
    );
    open.push(() => carrier.close());
    await until(() => carrier.health().trouble !== '');
    expect(await carrier.submit(sms(), never)).toMatchObject({
      kind: 'deferred',
      error: { words: expect.stringContaining('ECONNREFUSED') },
      retryAfterMs: expect.any(Number),
      elsewhere: true,
    });
  });

  it('a peer that takes the connection and says nothing is left, and each wait is longer and never the same', async () => {
    const w = await world({ timeoutMs: 1_000 }, (smsc) => {
      smsc.mute = true;
    });
    const waits: number[] = [];
    for (let i = 1; i <= 6; i++) {
      await until(() => w.smsc.peers.length === i && w.smsc.peers[i - 1]!.received.length === 1);
      await w.env.clock.advance(1_000);
      const line = await until(() => w.env.lines.filter((one) => one.message === 'smpp: not bound')[i - 1]);
      waits.push(line.fields.retryMs as number);
      await w.env.clock.advance((line.fields.retryMs as number) + 1);
    }
    for (const [i, wait] of waits.entries()) {
      expect(wait).toBeGreaterThanOrEqual(500 * 2 ** i);
      expect(wait).toBeLessThanOrEqual(1_000 * 2 ** i);
    }
    expect(new Set(waits.map((wait, i) => wait / 2 ** i)).size).toBeGreaterThan(3);
  });

  it('a submission that waits for a mute peer is deferred before dispatch loses patience', async () => {
    const w = await world({ timeoutMs: 60_000 }, (smsc) => {
      smsc.mute = true;
    });
    expect(await settled(w, w.carrier.submit(sms(), never))).toMatchObject({ kind: 'deferred' });
  });
});

describe('an answer', () => {
  it.each([
    [STATUS.badDestination, 'refused', 351],
    [STATUS.badSource, 'refused', 368],
    [0x45, 'refused', 632],
    [STATUS.systemError, 'deferred', 34],
    [STATUS.tryAgain, 'deferred', 34],
    [0x0401, 'deferred', 500],
    [STATUS.queueFull, 'throttled', 33],
    [STATUS.throttled, 'throttled', 541],
  ])('0x%s is %s with %i', async (status, kind, id) => {
    const { smsc, carrier } = await world();
    smsc.behaviour = (pdu, peer) => peer.answer(pdu, status);
    await smsc.bound();
    expect(await carrier.submit(sms(), never)).toMatchObject({
      kind,
      error: { id, words: expect.stringContaining(`0x${status.toString(16).padStart(2, '0')}`) },
    });
  });

  it('means what the configuration says, in decimal or hexadecimal', async () => {
    const { smsc, carrier } = await world({ statusTable: { '0x401': 'refuse', '8': 'throttle' } });
    await smsc.bound();
    smsc.behaviour = (pdu, peer) => peer.answer(pdu, 0x401);
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'refused' });
    smsc.behaviour = (pdu, peer) => peer.answer(pdu, 8);
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'throttled', retryAfterMs: 1_000 });
  });

  it('is shown with the words of the SMSC', async () => {
    const { smsc, carrier } = await world();
    const tlv = { tag: TAG.additionalStatus, value: Buffer.from('no credit\0') };
    smsc.behaviour = (pdu, peer) => peer.answer(pdu, 0x45, { kind: 'named', id: '', tlvs: [tlv] });
    await smsc.bound();
    expect(await carrier.submit(sms(), never)).toMatchObject({
      error: { words: '0x45 ESME_RSUBMITFAIL: no credit' },
    });
  });

  it('without an id is an acceptance under our own', async () => {
    const { smsc, carrier } = await world();
    smsc.behaviour = (pdu, peer) => peer.answer(pdu, STATUS.ok);
    await smsc.bound();
    const submission = sms();
    expect(await carrier.submit(submission, never)).toMatchObject({
      kind: 'accepted',
      carrierMessageId: submission.transactionId,
    });
  });

  it.each([
    [
      'a generic_nack',
      (pdu: Pdu) => encode({ command: GENERIC_NACK, status: 3, sequence: pdu.sequence, kind: 'bare' }),
      'deferred',
    ],
    [
      'a generic_nack of success',
      (pdu: Pdu) => encode({ command: GENERIC_NACK, status: 0, sequence: pdu.sequence, kind: 'bare' }),
      'unknown',
    ],
    [
      'the answer to something else',
      (pdu: Pdu) =>
        encode({ command: ANSWER + COMMAND.data, status: 0, sequence: pdu.sequence, kind: 'named', id: '1', tlvs: [] }),
      'unknown',
    ],
    ['bytes that are no SMPP', () => Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'unknown'],
  ])('that is %s decides truthfully', async (_, bytes, kind) => {
    const { smsc, carrier } = await world();
    smsc.behaviour = (pdu, peer) => void peer.socket.write(bytes(pdu));
    await smsc.bound();
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind });
  });

  it('to a number that nobody waits for is passed over', async () => {
    const { smsc, carrier } = await world();
    smsc.behaviour = (pdu, peer) => {
      peer.take({ ...pdu, sequence: pdu.sequence + 1_000 }, 'wrong');
      peer.take(pdu, 'right');
      peer.take(pdu, 'twice');
    };
    await smsc.bound();
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted', carrierMessageId: 'right' });
  });

  it('that comes byte by byte is read', async () => {
    const { smsc, carrier } = await world();
    smsc.behaviour = (pdu, peer) => {
      const bytes = encode({
        command: ANSWER + 4,
        status: 0,
        sequence: pdu.sequence,
        kind: 'named',
        id: 'slow',
        tlvs: [],
      });
      peer.socket.setNoDelay(true);
      const next = (i: number): void => {
        if (i < bytes.length) peer.socket.write(bytes.subarray(i, i + 1), () => next(i + 1));
      };
      next(0);
    };
    await smsc.bound();
    expect(await carrier.submit(sms(), never)).toMatchObject({ carrierMessageId: 'slow' });
  });

  it('that says the bind is gone makes it bind anew', async () => {
    const w = await world();
    w.smsc.behaviour = (pdu, peer) => peer.answer(pdu, STATUS.badBindState);
    await w.smsc.bound();
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'deferred', error: { id: 4102 } });
    await until(() => w.smsc.peers[0]!.closed);
    await w.env.clock.advance(2_000);
    await until(() => w.smsc.peers.length === 2);
  });
});

describe('no answer', () => {
  it('in time is unknown; a peer that still lives keeps its bind', async () => {
    const w = await world({ timeoutMs: 5_000 });
    w.smsc.behaviour = () => {};
    await w.smsc.bound();
    expect(await settled(w, w.carrier.submit(sms(), never))).toMatchObject({ kind: 'unknown', error: { id: 502 } });
    await until(() => w.smsc.peers[0]!.received.some((pdu) => pdu.command === COMMAND.enquireLink));
    await w.env.clock.advance(6_000);
    w.smsc.behaviour = (pdu, peer) => peer.take(pdu, 'x');
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
    expect(w.smsc.peers.length).toBe(1);
  });

  it('and none to enquire_link either ends the bind: each submission in flight is unknown', async () => {
    const w = await world({ timeoutMs: 5_000, enquireLinkMs: 4_000, window: 3 });
    const peer = await w.smsc.bound();
    w.smsc.behaviour = () => {};
    w.smsc.alive = false;
    const outcomes = Promise.all([sms(), sms(), sms()].map((one) => w.carrier.submit(one, never)));
    await until(() => peer.submits.length === 3);
    expect((await settled(w, outcomes)).map((one) => one.kind)).toEqual(['unknown', 'unknown', 'unknown']);
    for (let i = 0; i < 20 && !peer.closed; i++) {
      await w.env.clock.advance(1_000);
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(peer.closed).toBe(true);
  });

  it('because the bind dropped mid-window is unknown for each that was out, and the others go on after the next bind', async () => {
    const w = await world({ window: 2 });
    const peer = await w.smsc.bound();
    w.smsc.behaviour = () => {};
    const outcomes = [sms(), sms(), sms()].map((one) => w.carrier.submit(one, never));
    await until(() => peer.submits.length === 2);
    w.smsc.behaviour = (pdu, one) => one.take(pdu, 'x');
    peer.socket.destroy();
    expect(await outcomes[0]).toMatchObject({ kind: 'unknown', error: { id: 502 } });
    expect(await outcomes[1]).toMatchObject({ kind: 'unknown' });
    // Never sent: it may say so.
    expect(await outcomes[2]).toMatchObject({ kind: 'deferred' });
    await w.env.clock.advance(2_000);
    await w.smsc.bound();
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
  });

  it('before the signal aborts is unknown at once, and the place in the window stays taken', async () => {
    const w = await world({ window: 1, timeoutMs: 20_000 });
    const peer = await w.smsc.bound();
    w.smsc.behaviour = () => {};
    const control = new AbortController();
    const first = w.carrier.submit(sms(), control.signal);
    await until(() => peer.submits.length === 1);
    control.abort();
    expect(await first).toMatchObject({ kind: 'unknown' });
    const late = new AbortController();
    const second = w.carrier.submit(sms(), late.signal);
    await w.env.clock.advance(500);
    expect(peer.submits.length).toBe(1);
    late.abort();
    expect(await second).toMatchObject({ kind: 'deferred', error: { words: 'no room in the window in time' } });
    peer.take(peer.submits[0]!, 'late');
    w.smsc.behaviour = (pdu, one) => one.take(pdu, 'x');
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted', carrierMessageId: 'x' });
  });

  it('an aborted signal sends nothing', async () => {
    const { smsc, carrier } = await world();
    const peer = await smsc.bound();
    expect(await carrier.submit(sms(), AbortSignal.abort())).toMatchObject({ kind: 'deferred' });
    expect(peer.submits).toEqual([]);
  });
});

describe('a late answer', () => {
  const late = () => {
    const told: Outcome[] = [];
    return { told, hand: { ...hand, late: (outcome: Outcome) => void told.push(outcome) } };
  };

  it('after the time for it is told, under its id, once', async () => {
    const w = await world({ timeoutMs: 5_000 });
    const peer = await w.smsc.bound();
    w.smsc.behaviour = () => {};
    const { told, hand: mine } = late();
    expect(await settled(w, w.carrier.submit(sms(), never, mine))).toMatchObject({ kind: 'unknown' });
    for (let n = 0; n < 2; n++) peer.take(peer.submits[0]!, '00AB');
    await until(() => told.length > 0);
    await peer.ask(COMMAND.enquireLink, { kind: 'bare' });
    expect(told).toEqual([{ kind: 'accepted', carrierMessageId: 'ab', words: 'message_id 00AB' }]);
  });

  it('after the signal aborted is told too; a refusal is not', async () => {
    const w = await world({ timeoutMs: 60_000 });
    const peer = await w.smsc.bound();
    w.smsc.behaviour = () => {};
    const { told, hand: mine } = late();
    const control = new AbortController();
    const outcomes = [1, 2].map(() => w.carrier.submit(sms(), control.signal, mine));
    await until(() => peer.submits.length === 2);
    control.abort();
    for (const outcome of outcomes) expect((await outcome).kind).toBe('unknown');
    peer.answer(peer.submits[0]!, STATUS.badDestination);
    peer.take(peer.submits[1]!, 'x');
    await until(() => told.length > 0);
    expect(told).toMatchObject([{ carrierMessageId: 'x' }]);
  });

  it('for a segment is told once all segments were taken, under the id of the last', async () => {
    const w = await world({ timeoutMs: 5_000 });
    const peer = await w.smsc.bound();
    w.smsc.behaviour = (pdu, one) => {
      if (pdu.shortMessage[5] !== 2) one.take(pdu, `id-${pdu.shortMessage[5]}`);
    };
    const { told, hand: mine } = late();
    const outcome = await settled(w, w.carrier.submit(sms('a'.repeat(400)), never, mine));
    expect(outcome).toMatchObject({ kind: 'unknown', error: { words: 'segment 2 of 3: no answer in time' } });
    peer.take(peer.submits.find((pdu) => pdu.shortMessage[5] === 2)!, 'id-2');
    await until(() => told.length > 0);
    expect(told).toMatchObject([{ carrierMessageId: 'id-3', words: '3 segments' }]);
  });
});

describe('the window and the rate', () => {
  it('at most so many are unanswered on a bind, and the freest bind is next', async () => {
    const { smsc, carrier } = await world({ binds: 2, window: 2 });
    await until(() => carrier.health().bound === 2);
    smsc.behaviour = () => {};
    const outcomes = Promise.all([1, 2, 3, 4, 5].map(() => carrier.submit(sms(), never)));
    await until(() => smsc.peers.every((peer) => peer.submits.length === 2));
    for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(smsc.peers.map((peer) => peer.submits.length)).toEqual([2, 2]);
    const first = smsc.peers[0]!;
    first.take(first.submits[0]!, 'a');
    await until(() => first.submits.length === 3);
    for (const peer of smsc.peers) for (const pdu of peer.submits) peer.take(pdu, 'b');
    expect((await outcomes).every((one) => one.kind === 'accepted')).toBe(true);
  });

  it('who finds no room within a second is handed back', async () => {
    const w = await world({ window: 1, timeoutMs: 60_000 });
    const peer = await w.smsc.bound();
    await until(() => w.carrier.health().bound === 1);
    w.smsc.behaviour = () => {};
    const first = w.carrier.submit(sms(), never);
    await until(() => peer.submits.length === 1);
    const second = w.carrier.submit(sms(), never);
    await w.env.clock.advance(1_000);
    expect(await second).toMatchObject({ kind: 'throttled', error: { words: 'the window is full' } });
    peer.take(peer.submits[0]!, 'x');
    expect(await first).toMatchObject({ kind: 'accepted' });
  });

  it('who had to wait for room asks whether it may leave yet, and sends nothing where it may not', async () => {
    const w = await world({ window: 1 });
    const peer = await w.smsc.bound();
    await until(() => w.carrier.health().bound === 1);
    w.smsc.behaviour = () => {};
    const first = w.carrier.submit(sms(), never);
    await until(() => peer.submits.length === 1);
    let asked = 0;
    const passed = w.carrier.submit(sms(), never, {
      ...hand,
      leaves: () => {
        asked++;
        return false;
      },
    });
    await w.env.clock.advance(500);
    expect(asked).toBe(0);
    peer.take(peer.submits[0]!, 'x');
    await Promise.all([first, passed]);
    expect(asked).toBe(1);
    expect(peer.submits.length).toBe(1);
    // Its place is free again.
    w.smsc.behaviour = (pdu, one) => one.take(pdu, 'y');
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted', carrierMessageId: 'y' });
  });

  it('places go to those who wait, in their order', async () => {
    const { smsc, carrier } = await world({ window: 1 });
    const peer = await smsc.bound();
    await until(() => carrier.health().bound === 1);
    smsc.behaviour = () => {};
    const outcomes = ['1', '2', '3', '4'].map((text) => carrier.submit(sms(text), never));
    for (let n = 1; n <= 4; n++) {
      await until(() => peer.submits.length === n);
      peer.take(peer.submits[n - 1]!, 'x');
    }
    await Promise.all(outcomes);
    expect(peer.submits.map((pdu) => Buffer.from(pdu.shortMessage).toString())).toEqual(['1', '2', '3', '4']);
  });

  it('each segment behind the first leaves in a place of the rate, taken before others can begin', async () => {
    const w = await world({ binds: 2, window: 100 });
    await until(() => w.carrier.health().bound === 2);
    const pace = new Pace(10);
    const at: number[] = [];
    w.smsc.behaviour = (pdu, peer) => {
      at.push(w.env.clock.monotonic());
      peer.take(pdu, 'x');
    };
    const long = 'a'.repeat(400);
    const paced = { ...hand, turn: () => pace.turn(w.env.clock) };
    const outcomes = [sms(long), sms(long)].map(async (one) => {
      const turn = pace.turn(w.env.clock);
      await turn.come(never);
      return w.carrier.submit(one, never, paced);
    });
    expect((await settled(w, Promise.all(outcomes), 10)).every((one) => one.kind === 'accepted')).toBe(true);
    expect(at.length).toBe(6);
    for (let i = 1; i < at.length; i++) expect(at[i]! - at[i - 1]!).toBeGreaterThanOrEqual(90);
  });

  it('a text in one PDU takes as many places as it has segments', async () => {
    const { carrier } = await world({ concatenation: 'payload' });
    expect(carrier.turns?.(sms('a'.repeat(400)))).toBe(3);
    expect(carrier.turns?.(sms('a'))).toBe(1);
    const { carrier: other } = await world();
    expect(other.turns?.(sms('a'.repeat(400)))).toBe(1);
  });

  it('places in the rate that a text does not need are given up', async () => {
    const { smsc, carrier } = await world();
    await smsc.bound();
    let open = 0;
    const turn = () => {
      open++;
      const end = (): void => void open--;
      return {
        come: async () => {
          end();
          return true;
        },
        drop: end,
      };
    };
    smsc.behaviour = (pdu, one) => (pdu.shortMessage[5] === 2 ? one.answer(pdu, 0x45) : one.take(pdu, 'x'));
    expect((await carrier.submit(sms('a'.repeat(3_000)), never, { ...hand, turn })).kind).toBe('refused');
    expect(open).toBe(0);
  });

  it('throttled: this bind pauses, longer each time, the others go on, and a success ends it', async () => {
    const w = await world({ binds: 2 });
    await until(() => w.carrier.health().bound === 2);
    const [a] = w.smsc.peers as [Peer, Peer];
    w.smsc.behaviour = (pdu, peer) => (peer === a ? peer.answer(pdu, STATUS.throttled) : peer.take(pdu, 'x'));
    const both = await Promise.all([w.carrier.submit(sms(), never), w.carrier.submit(sms(), never)]);
    expect(both.map((one) => one.kind).sort()).toEqual(['accepted', 'throttled']);
    // Dispatch need not stop for it.
    expect(both.find((one) => one.kind === 'throttled')).toMatchObject({ retryAfterMs: 1_000, others: true });
    for (let i = 0; i < 5; i++) expect((await w.carrier.submit(sms(), never)).kind).toBe('accepted');
    expect(a.submits.length).toBe(1);

    w.smsc.behaviour = (pdu, peer) => peer.answer(pdu, STATUS.throttled);
    await w.env.clock.advance(1_000);
    const again = await Promise.all([w.carrier.submit(sms(), never), w.carrier.submit(sms(), never)]);
    expect(again.map((one) => (one as { retryAfterMs?: number }).retryAfterMs).sort()).toEqual([1_000, 2_000]);
    // The last one that could go on is the one that stops all.
    expect(again.filter((one) => 'others' in one)).toHaveLength(1);
    // Nobody is asked while all binds pause.
    const sent = w.smsc.peers.reduce((sum, peer) => sum + peer.submits.length, 0);
    expect(await w.carrier.submit(sms(), never)).toMatchObject({ kind: 'throttled', retryAfterMs: 1_000 });
    expect(w.smsc.peers.reduce((sum, peer) => sum + peer.submits.length, 0)).toBe(sent);
  });

  it('sequence numbers begin anew behind the last one', async () => {
    const { smsc, carrier } = await world({ firstSequence: 0x7ffffffe });
    const peer = await smsc.bound();
    for (let i = 0; i < 3; i++) expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
    expect(peer.received.map((pdu) => pdu.sequence)).toEqual([0x7ffffffe, 0x7fffffff, 1, 2]);
  });
});

describe('a long text', () => {
  const long = 'a'.repeat(400);

  it('is accepted when all its segments are, under the id of the last, and only that asks for a receipt', async () => {
    const { smsc, carrier } = await world();
    const peer = await smsc.bound();
    expect(await carrier.submit(sms(long), never)).toMatchObject({
      kind: 'accepted',
      carrierMessageId: `id-${peer.submits[2]!.sequence}`,
      words: '3 segments',
    });
    expect(peer.submits.map((pdu) => pdu.registeredDelivery)).toEqual([0, 0, 1]);
  });

  it('whose first segment is refused sends no other', async () => {
    const { smsc, carrier } = await world();
    const peer = await smsc.bound();
    smsc.behaviour = (pdu, one) => one.answer(pdu, STATUS.badDestination);
    expect(await carrier.submit(sms(long), never)).toMatchObject({ kind: 'refused', error: { id: 351 } });
    expect(peer.submits.length).toBe(1);
  });

  it('whose later segment is refused is refused, and the words say which', async () => {
    const { smsc, carrier } = await world();
    await smsc.bound();
    smsc.behaviour = (pdu, one) => (pdu.shortMessage[5] === 2 ? one.answer(pdu, 0x45) : one.take(pdu, 'x'));
    expect(await carrier.submit(sms(long), never)).toMatchObject({
      kind: 'refused',
      error: { id: 632, words: 'segment 2 of 3: 0x45 ESME_RSUBMITFAIL' },
    });
  });

  it('goes on after a throttled later segment instead of beginning anew', async () => {
    const w = await world();
    const peer = await w.smsc.bound();
    let throttled = 0;
    w.smsc.behaviour = (pdu, one) =>
      pdu.shortMessage[5] === 3 && throttled++ < 2 ? one.answer(pdu, STATUS.throttled) : one.take(pdu, 'x');
    const outcome = w.carrier.submit(sms(long), never);
    for (const [count, pause] of [
      [3, 1_000],
      [4, 2_000],
    ] as const) {
      await until(() => peer.submits.length === count && w.carrier.health().outstanding === 0);
      await w.env.clock.advance(pause);
    }
    expect(await outcome).toMatchObject({ kind: 'accepted' });
    expect(peer.submits.map((pdu) => pdu.shortMessage[5])).toEqual([1, 2, 3, 3, 3]);
  });

  it('sends no more of it once its time is over, though places in the rate came long ago', async () => {
    const w = await world({ window: 2, timeoutMs: 60_000 });
    const peer = await w.smsc.bound();
    const pace = new Pace(1_000);
    const control = new AbortController();
    w.smsc.behaviour = (pdu, one) => {
      if (pdu.shortMessage[5] === 1) one.take(pdu, 'x');
    };
    const paced = { ...hand, turn: () => pace.turn(w.env.clock) };
    const outcome = w.carrier.submit(sms('a'.repeat(600)), control.signal, paced);
    await until(() => peer.submits.length === 2);
    await w.env.clock.advance(1_000);
    control.abort();
    expect(await outcome).toMatchObject({ kind: 'unknown' });
    await peer.ask(COMMAND.enquireLink, { kind: 'bare' });
    expect(peer.submits.length).toBe(2);
  });

  it('that was sent in part when the bind dropped is unknown', async () => {
    const { smsc, carrier } = await world();
    await smsc.bound();
    smsc.behaviour = (pdu, one) => {
      if (pdu.shortMessage[5] === 1) one.take(pdu, 'x');
      else one.socket.destroy();
    };
    expect(await carrier.submit(sms(long), never)).toMatchObject({ kind: 'unknown' });
  });

  it('with receipts for all: a failed segment fails the whole, a delivered earlier one says nothing', async () => {
    const { smsc, carrier, reports } = await world({ registeredDelivery: 'all', receiptIdForm: 'as-is' });
    const peer = await smsc.bound();
    smsc.behaviour = (pdu, one) => one.take(pdu, `00${pdu.shortMessage[5]}`);
    await carrier.submit(sms(long), never);
    const tell = (text: string) => peer.deliver({ esmClass: ESM.receipt, shortMessage: Buffer.from(text) });
    await tell('id:001 stat:DELIVRD');
    expect(reports).toEqual([]);
    await tell('id:2 stat:UNDELIV');
    expect(reports).toMatchObject([{ carrierMessageId: '3', kind: 'unreachable' }]);
    await tell('id:003 stat:DELIVRD');
    expect(reports[1]).toMatchObject({ carrierMessageId: '3', kind: 'retrieved' });
  });
});

describe('receipts', () => {
  const delivrd = (id: string): Partial<ShortMessage> => ({
    source: { ton: 1, npi: 1, text: '+447700900123' },
    destination: { ton: 5, npi: 0, text: 'Postcard' },
    esmClass: ESM.receipt,
    shortMessage: Buffer.from(`id:${id} stat:DELIVRD err:000`),
  });

  it('are answered after they were told, and tell both addresses', async () => {
    const { smsc, reports } = await world();
    const peer = await smsc.bound();
    expect(await peer.deliver(delivrd('42'))).toMatchObject({ command: ANSWER + COMMAND.deliver, status: 0 });
    expect(reports).toEqual([
      {
        carrier: 'smsc',
        carrierMessageId: '42',
        addresses: ['447700900123', 'Postcard'],
        kind: 'retrieved',
        words: 'DELIVRD, err 000',
      },
    ]);
  });

  it('may come by data_sm', async () => {
    const { smsc, reports } = await world();
    const peer = await smsc.bound();
    const tlvs = [
      { tag: TAG.receiptedMessageId, value: Buffer.from('AB\0') },
      { tag: TAG.messageState, value: Uint8Array.of(2) },
    ];
    await peer.ask(COMMAND.data, shortMessage({ esmClass: ESM.receipt, tlvs }));
    expect(reports).toMatchObject([{ carrierMessageId: 'ab', kind: 'retrieved' }]);
  });

  it('that could not be stored are asked for again', async () => {
    const { smsc, reports, hooks } = await world();
    const peer = await smsc.bound();
    hooks.fail = true;
    expect(await peer.deliver(delivrd('42'))).toMatchObject({ status: STATUS.tryAgain });
    hooks.fail = false;
    expect(await peer.deliver(delivrd('42'))).toMatchObject({ status: 0 });
    expect(reports.length).toBe(1);
  });

  it('that come before the answer they belong to are told all the same', async () => {
    const { smsc, carrier, reports } = await world();
    const peer = await smsc.bound();
    smsc.behaviour = async (pdu, one) => {
      await one.deliver(delivrd('00AB'));
      one.take(pdu, 'ab');
    };
    expect(await carrier.submit(sms(), never)).toMatchObject({ carrierMessageId: 'ab' });
    expect(reports).toMatchObject([{ carrierMessageId: 'ab' }]);
    expect(peer.closed).toBe(false);
  });

  it('match the ids of answers in hexadecimal once two have shown it', async () => {
    const { smsc, carrier, reports } = await world();
    const peer = await smsc.bound();
    let id = 0xabc0;
    smsc.behaviour = (pdu, one) => one.take(pdu, (id++).toString(16).toUpperCase().padStart(8, '0'));
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) {
      const outcome = await carrier.submit(sms(), never);
      if (outcome.kind === 'accepted') ids.push(outcome.carrierMessageId);
    }
    for (let i = 0; i < 3; i++) await peer.deliver(delivrd(String(0xabc0 + i).padStart(10, '0')));
    expect(reports.map((one) => one.carrierMessageId)).toEqual(ids);
  });

  it('in a storm are all told, with bounded work at a time', async () => {
    const { smsc, reports } = await world();
    const peer = await smsc.bound();
    const count = 5_000;
    const storm = Array.from({ length: count }, (_, i) =>
      encode({ command: COMMAND.deliver, status: 0, sequence: 10_000 + i, ...shortMessage(delivrd(String(i))) }),
    );
    peer.socket.write(Buffer.concat(storm));
    await until(() => peer.answers.length === count);
    expect(reports.length).toBe(count);
    expect(new Set(reports.map((one) => one.carrierMessageId)).size).toBe(count);
  });
});

describe('what handsets send', () => {
  const words = (text: string, more: Partial<ShortMessage> = {}): Partial<ShortMessage> => ({
    source: { ton: 1, npi: 1, text: '447700900123' },
    destination: { ton: 3, npi: 0, text: '12345' },
    shortMessage: Buffer.from(text),
    ...more,
  });

  it('is handed on before it is answered', async () => {
    const { smsc, inbound } = await world();
    const peer = await smsc.bound();
    expect(await peer.deliver(words('STOP'))).toMatchObject({ status: 0 });
    expect(inbound).toMatchObject([
      {
        carrier: 'smsc',
        channel: 'SMS',
        from: '447700900123',
        to: ['12345'],
        cc: [],
        parts: [{ contentType: 'text/plain; charset=utf-8' }],
      },
    ]);
    expect(Buffer.from(inbound[0]!.parts[0]!.bytes).toString()).toBe('STOP');
  });

  it('and looks like a receipt is a text', async () => {
    const { smsc, inbound, reports } = await world();
    const peer = await smsc.bound();
    await peer.deliver(words('id:42 stat:DELIVRD'));
    expect(reports).toEqual([]);
    expect(inbound.length).toBe(1);
  });

  it('twice has two ids, repeated by the SMSC has one', async () => {
    const { smsc, inbound, hooks } = await world();
    const peer = await smsc.bound();
    await peer.deliver(words('yes'));
    await peer.deliver(words('yes'));
    hooks.fail = true;
    expect(await peer.deliver(words('no'))).toMatchObject({ status: STATUS.tryAgain });
    hooks.fail = false;
    await peer.deliver(words('no'));
    expect(new Set(inbound.map((one) => one.id)).size).toBe(3);
  });

  it('and is told again after the connection ended has the id it had', async () => {
    const w = await world();
    const peer = await w.smsc.bound();
    await peer.deliver(words('yes'));
    peer.socket.destroy();
    await until(() => w.carrier.health().bound === 0);
    await w.env.clock.advance(2_000);
    await (await w.smsc.bound()).deliver(words('yes'));
    expect(w.inbound.map((one) => one.id)).toEqual([w.inbound[0]!.id, w.inbound[0]!.id]);
  });

  it('in pieces is put together, whatever their order and however often they come', async () => {
    const { smsc, inbound } = await world();
    const peer = await smsc.bound();
    const piece = (n: number, text: string) =>
      words('', { esmClass: 0x40, shortMessage: Buffer.concat([Uint8Array.of(5, 0, 3, 9, 3, n), Buffer.from(text)]) });
    await peer.deliver(piece(3, 'three'));
    await peer.deliver(piece(1, 'one '));
    await peer.deliver(piece(1, 'one '));
    expect(inbound).toEqual([]);
    await peer.deliver(piece(2, 'two '));
    expect(inbound.map((one) => Buffer.from(one.parts[0]!.bytes).toString())).toEqual(['one two three']);
  });

  it('in pieces of which one never comes is handed on as it is', async () => {
    const { env, smsc, inbound } = await world();
    const peer = await smsc.bound();
    const tlvs = (n: number) => [
      { tag: TAG.sarReference, value: Uint8Array.of(0, 7) },
      { tag: TAG.sarTotal, value: Uint8Array.of(2) },
      { tag: TAG.sarSegment, value: Uint8Array.of(n) },
    ];
    await peer.deliver(words('half', { tlvs: tlvs(2) }));
    await env.clock.advance(9 * 60_000);
    expect(inbound).toEqual([]);
    await env.clock.advance(2 * 60_000);
    expect(inbound.map((one) => Buffer.from(one.parts[0]!.bytes).toString())).toEqual(['half']);
  });

  it('whose last piece could not be stored is whole when that is told again', async () => {
    const { smsc, inbound, hooks } = await world();
    const peer = await smsc.bound();
    const piece = (n: number) =>
      words('', {
        esmClass: 0x40,
        shortMessage: Buffer.concat([Uint8Array.of(5, 0, 3, 9, 2, n), Buffer.from(`${n}`)]),
      });
    await peer.deliver(piece(1));
    hooks.fail = true;
    expect(await peer.deliver(piece(2))).toMatchObject({ status: STATUS.tryAgain });
    hooks.fail = false;
    await peer.deliver(piece(2));
    expect(inbound.map((one) => Buffer.from(one.parts[0]!.bytes).toString())).toEqual(['12']);
  });

  it('with a reference that comes round again is another message', async () => {
    const { smsc, inbound } = await world();
    const peer = await smsc.bound();
    const piece = (n: number, text: string) =>
      words('', { esmClass: 0x40, shortMessage: Buffer.concat([Uint8Array.of(5, 0, 3, 9, 2, n), Buffer.from(text)]) });
    await peer.deliver(piece(1, 'old'));
    await peer.deliver(piece(1, 'new '));
    await peer.deliver(piece(2, 'text'));
    expect(inbound.map((one) => Buffer.from(one.parts[0]!.bytes).toString())).toEqual(['old', 'new text']);
  });

  it('that is data is handed on as data', async () => {
    const { smsc, inbound } = await world();
    const peer = await smsc.bound();
    await peer.deliver(words('', { dataCoding: 4, shortMessage: Uint8Array.of(1, 2, 3) }));
    expect(inbound[0]!.parts[0]).toMatchObject({ contentType: 'application/octet-stream' });
  });
});

describe('the link', () => {
  it('answers enquire_link, and nacks what it does not know', async () => {
    const { smsc } = await world();
    const peer = await smsc.bound();
    expect(await peer.ask(COMMAND.enquireLink, { kind: 'bare' })).toMatchObject({
      command: ANSWER + COMMAND.enquireLink,
    });
    expect(await peer.ask(0x1234, { kind: 'other', body: new Uint8Array(3) })).toMatchObject({
      command: GENERIC_NACK,
      status: STATUS.badCommand,
    });
  });

  it('goes on behind a PDU that cannot be read', async () => {
    const { smsc, carrier } = await world();
    const peer = await smsc.bound();
    expect(await peer.ask(COMMAND.deliver, { kind: 'other', body: Uint8Array.of(1, 2, 3) })).toMatchObject({
      command: ANSWER + COMMAND.deliver,
      status: STATUS.badCommandLength,
    });
    expect(await carrier.submit(sms(), never)).toMatchObject({ kind: 'accepted' });
  });

  it('asks a silent peer whether it is there', async () => {
    const w = await world({ enquireLinkMs: 30_000 });
    const peer = await w.smsc.bound();
    await until(() => w.carrier.health().bound === 1);
    await w.env.clock.advance(31_000);
    await until(() => peer.received.some((pdu) => pdu.command === COMMAND.enquireLink));
    expect(peer.closed).toBe(false);
  });

  it('lost to garbage is made anew', async () => {
    const w = await world();
    const peer = await w.smsc.bound();
    peer.socket.write(Buffer.alloc(64, 0xff));
    await until(() => peer.closed);
    expect(peer.answers.at(-1)).toMatchObject({ command: GENERIC_NACK, status: STATUS.badCommandLength });
    await w.env.clock.advance(2_000);
    await until(() => w.smsc.peers.length === 2);
  });

  it('is unbound by the peer with an answer, and bound again', async () => {
    const w = await world();
    const peer = await w.smsc.bound();
    expect(await peer.ask(COMMAND.unbind, { kind: 'bare' })).toMatchObject({
      command: ANSWER + COMMAND.unbind,
      status: 0,
    });
    await until(() => w.carrier.health().bound === 0);
    await w.env.clock.advance(2_000);
    await until(() => w.smsc.peers.length === 2 && w.smsc.peers[1]!.bound !== null);
  });

  it('is unbound by us at the end, after what was being taken has its answer', async () => {
    const { smsc, carrier } = await world();
    const peer = await smsc.bound();
    await until(() => carrier.health().bound === 1);
    await carrier.close();
    expect(peer.received.at(-1)!.command).toBe(COMMAND.unbind);
    await until(() => peer.closed);
  });
});

describe('with the npm package as SMSC', () => {
  it('binds, sends short and long texts, takes receipts and messages, and unbinds', async () => {
    const submits: PeerPdu[] = [];
    const answers: number[] = [];
    const sessions: PeerSession[] = [];
    let unbound = false;
    const server = smpp.createServer((session) => {
      sessions.push(session);
      session.on('error', () => {});
      session.on('bind_transceiver', (pdu) => void session.send(pdu.response({ system_id: 'npm' })));
      session.on('submit_sm', (pdu) => {
        submits.push(pdu);
        session.send(pdu.response({ message_id: `M${submits.length}` }));
      });
      session.on('unbind', (pdu) => {
        unbound = true;
        session.send(pdu.response());
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    open.push(() => new Promise((resolve) => void server.close(() => resolve())));
    const { port } = server.address() as { port: number };
    const reports: CarrierReport[] = [];
    const inbound: CarrierInbound[] = [];
    const carrier = createSmppCarrier(
      { name: 'npm', host: '127.0.0.1', port, systemId: 'esme', password: 'secret' },
      {
        onReport: async (report) => void reports.push(report),
        onInbound: async (mo) => void inbound.push(mo),
      },
      testEnv(),
    );
    expect(await carrier.submit(sms('Grüße €'), never)).toMatchObject({ kind: 'accepted', carrierMessageId: 'M1' });
    expect(await carrier.submit(sms('ж'.repeat(100)), never)).toMatchObject({
      kind: 'accepted',
      carrierMessageId: 'M3',
    });
    const texts = submits.map((pdu) => (pdu.short_message as { message: string }).message);
    expect(texts).toEqual(['Grüße €', 'ж'.repeat(67), 'ж'.repeat(33)]);
    expect(submits[0]).toMatchObject({ source_addr: 'Postcard', source_addr_ton: 5, registered_delivery: 1 });

    const [session] = sessions as [PeerSession];
    const tell = (fields: Record<string, unknown>): Promise<void> =>
      new Promise((resolve) => {
        session.deliver_sm(fields, (pdu) => {
          answers.push(pdu.command_status);
          resolve();
        });
      });
    await tell({ esm_class: 4, source_addr: '447700900123', short_message: 'id:M3 stat:DELIVRD err:000' });
    await tell({ source_addr: '447700900123', destination_addr: '12345', short_message: 'Ответ' });
    expect(answers).toEqual([0, 0]);
    expect(reports).toMatchObject([{ carrierMessageId: 'M3', kind: 'retrieved' }]);
    expect(inbound.map((mo) => Buffer.from(mo.parts[0]!.bytes).toString())).toEqual(['Ответ']);
    await carrier.close();
    expect(unbound).toBe(true);
    session.destroy();
  });
});
