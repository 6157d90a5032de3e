/**
 * The SMPP carrier against a fake SMSC with every fault that peers and networks have. What differs from MM7, where each submission
 * is a request of its own: all share one connection, so what the peer does to it happens to all that are out; an answer to
 * another request is one that nobody waits for, and only time tells that one's own does not come; answers tell no time to wait;
 * there is one recipient each. An answer may come after its time.
 */
import type { Socket } from 'node:net';
import {
  ANSWER,
  type Body,
  COMMAND,
  decode,
  encode,
  Framer,
  isAnswer,
  type Pdu,
  STATUS,
  shortMessage,
} from '../../src/carriers/smpp/pdu.ts';
import { createSmppCarrier, type SmppCarrier } from '../../src/carriers/smpp/smpp.ts';
import type { SmsSubmission } from '../../src/domain/submission.ts';
import { testEnv } from '../../src/env.ts';
import { type CarrierWorld, carrierSuite, FAULTS, hooksOf } from './carrier.suite.ts';
import { openTcpPeer } from './tcp-peer.ts';

const bare: Body = { kind: 'bare' };
const named = (id: string): Body => ({ kind: 'named', id, tlvs: [] });

async function open({
  timeoutMs,
  concurrency,
}: {
  timeoutMs: number;
  concurrency: number;
}): Promise<CarrierWorld<SmsSubmission>> {
  const env = testEnv();
  const { told, away, hooks } = hooksOf();
  /** Bound connections; what was asked on them and is not answered. */
  const bound = new Set<Socket>();
  const asked = new Map<number, (answer: Pdu) => void>();
  const unanswered: { pdu: Pdu; socket: Socket }[] = [];
  let read = 0;
  let lastId = '';
  let sequence = 0;

  const answer = (socket: Socket, pdu: Pdu, status: number, body: Body): void =>
    void socket.write(encode({ command: ANSWER + pdu.command, status, sequence: pdu.sequence, ...body }));

  function submitted(socket: Socket, pdu: Pdu): void {
    read++;
    const id = `0A${String(read).padStart(4, '0')}`;
    switch (peer.fault) {
      case 'none':
        // As it is compared: receipts may leave zeros before it out.
        lastId = id.replace(/^0+/, '').toLowerCase();
        return void answer(socket, pdu, STATUS.ok, named(id));
      case 'noAnswer':
        return void unanswered.push({ pdu, socket });
      case 'halfAnswer':
        return void socket.write(
          encode({ command: ANSWER + pdu.command, status: 0, sequence: pdu.sequence, ...named(id) }).subarray(0, 18),
        );
      case 'drip':
        // The head of a long PDU, and then a byte of it whenever something comes.
        return void socket.write(Buffer.from('00001000800000040000', 'hex'));
      case 'cutLate':
        return void socket.destroy();
      case 'throttle':
        return void answer(socket, pdu, STATUS.throttled, named(''));
      case 'queueFull':
        return void answer(socket, pdu, STATUS.queueFull, named(''));
      case 'serverError':
        return void answer(socket, pdu, STATUS.systemError, named(''));
      case 'refuses':
        return void answer(socket, pdu, STATUS.badDestination, named(''));
      case 'unknownCode':
        return void answer(socket, pdu, 0x0577, named(''));
      case 'garbage':
        return void socket.write(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'));
      case 'otherRequest':
        return void socket.write(
          encode({ command: ANSWER + pdu.command, status: 0, sequence: pdu.sequence + 1_000, ...named('not-yours') }),
        );
      case 'huge':
        return void socket.write(Buffer.concat([Buffer.from('00989680', 'hex'), Buffer.alloc(10_000_000 - 4, 0x41)]));
      default:
        return void socket.destroy();
    }
  }

  function take(socket: Socket, bytes: Buffer): void {
    const decoded = decode(bytes);
    if (!decoded.ok) throw new Error(`the carrier sent what cannot be read: ${decoded.why}`);
    const { pdu } = decoded;
    if (isAnswer(pdu.command)) {
      asked.get(pdu.sequence)?.(pdu);
      asked.delete(pdu.sequence);
    } else if (pdu.kind === 'bind') {
      bound.add(socket);
      answer(socket, pdu, STATUS.ok, named('smsc'));
    } else if (pdu.command === COMMAND.submit) submitted(socket, pdu);
    else if (peer.fault === 'drip') socket.write(Buffer.of(0x41));
    else answer(socket, pdu, STATUS.ok, bare);
  }

  const peer = await openTcpPeer((socket) => {
    socket.on('close', () => bound.delete(socket));
    const framer = new Framer();
    return (chunk) => framer.push(chunk, (bytes) => take(socket, bytes));
  });

  /** A request of the SMSC's on any bind. True = answered as taken. */
  async function ask(pdu: Body): Promise<boolean> {
    while (bound.size === 0) await turn();
    const [socket] = bound;
    const own = ++sequence;
    return new Promise((resolve) => {
      asked.set(own, ({ status }) => resolve(status === STATUS.ok));
      socket?.write(encode({ command: COMMAND.deliver, status: 0, sequence: own, ...pdu }));
    });
  }

  const config = {
    name: 'c',
    host: '127.0.0.1',
    port: peer.port,
    systemId: 'esme',
    password: 'x',
    receiptIdForm: 'as-is' as const,
    window: concurrency,
    timeoutMs,
  };
  const smsHooks = {
    ...hooks,
    onInbound: async (mo: Parameters<typeof hooks.onInbound>[0]) => void (await hooks.onInbound(mo)),
  };
  const plain = createSmppCarrier(config, smsHooks, env);
  /** The peer speaks no TLS: a handshake with it fails. */
  let overTls: SmppCarrier | null = null;

  return {
    env,
    carrier: {
      name: 'c',
      turns: (submission) => plain.turns?.(submission) ?? 0,
      submit: (submission, signal, hand) =>
        (peer.fault === 'badTls' ? (overTls as SmppCarrier) : plain).submit(submission, signal, hand),
    },
    peer: {
      async fault(next) {
        if (next === 'badTls') overTls ??= createSmppCarrier({ ...config, name: 'tls', tls: true }, smsHooks, env);
        await peer.set(next);
        // Nor be met by a connection that is made anew.
        if (next === 'mute' || next === 'cutEarly') {
          for (let n = 0; n < 4; n++) {
            for (let turns = 0; turns < 10; turns++) await turn();
            await env.clock.advance(500);
          }
        }
      },
      read: () => read,
      lastId: () => lastId,
      cut: peer.cut,
      answerLate() {
        for (const { pdu, socket } of unanswered.splice(0)) {
          lastId = 'late-1';
          answer(socket, pdu, STATUS.ok, named(lastId));
        }
      },
      report: (id, otherwise) =>
        ask(
          shortMessage({
            source: { ton: 1, npi: 1, text: '447700900123' },
            destination: { ton: 1, npi: 1, text: '441134960000' },
            esmClass: 0x04,
            shortMessage: Buffer.from(
              `id:${otherwise ? `00${id.toUpperCase()}` : id} sub:001 dlvrd:001 submit date:2601011000 done date:2601011001 stat:DELIVRD err:000 text:`,
            ),
          }),
        ),
      send: (n) =>
        ask(
          shortMessage({
            source: { ton: 1, npi: 1, text: '447700900123' },
            destination: { ton: 1, npi: 1, text: '441134960000' },
            shortMessage: Buffer.from(`message ${n}`),
          }),
        ),
    },
    told,
    away,
    async close() {
      let done = false;
      const closed = Promise.all([plain.close(), overTls?.close()]).then(() => {
        done = true;
      });
      while (!done) await env.clock.advance(1_000);
      await closed;
      await peer.close();
    },
  };
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

carrierSuite<SmsSubmission>({
  name: 'SMPP',
  faults: [...FAULTS, 'queueFull'],
  endless: ['otherRequest'],
  late: true,
  asks: true,
  open,
  submission: (n) => ({
    transactionId: `tx-${n}`,
    sender: '441134960000',
    recipient: '447700900123',
    text: 'hello',
    validUntil: Date.UTC(2026, 0, 3),
  }),
});
