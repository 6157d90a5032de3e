/**
 * The SMSC in the box: an SMPP 3.4 server before the same handsets as the MMSC's, with the same behaviour by the last digits of a
 * number. Takes any system id and password; a system id's receipts go to any of its receiving binds.
 *
 * Promises: a submit_sm is answered with 0 after its commit; one whose transaction (TLV `TRANSACTION_TAG`, with its place in a longer
 * text) was taken is dropped, counted and answered like the first. A text lies on its handset before its receipt goes out; receipts
 * go out one at a time for a segment, each until it is answered with 0 or 48 h have passed; what is pending is in the file only.
 * It is strict where the carrier is tolerant: what SMPP 3.4 does not allow is refused.
 *
 * Fails: `startSmsc` rejects when the port cannot be had. Nobody takes a receipt: again after `BACKOFF`, and when its system id binds.
 */
import { createServer, type Socket } from 'node:net';
import type { Env, Timer } from '../../env.ts';
import { Link, type Reply, type Settled } from '../smpp/link.ts';
import {
  ANSWER,
  type Body,
  COMMAND,
  ESM,
  encode,
  type Pdu,
  type ShortMessage,
  STATUS,
  shortMessage,
  TAG,
  tlvText,
} from '../smpp/pdu.ts';
import { readText, readTime } from '../smpp/text.ts';
import { BUSY_TIMES, behaviourOf, type ReportStatus, SLOW_MS, smsStepsOf } from './behaviours.ts';
import type { Ledger } from './ledger.ts';
import type { SmsPending, SmsTake } from './smsc-ledger.ts';

/** The vendor TLV with the submission's transaction id. */
export const TRANSACTION_TAG = 0x1500;

const CONNECTIONS = 1_024;
/** For a bind to follow a connection. */
const BIND_MS = 10_000;
const ANSWER_MS = 30_000;
const ENQUIRE_MS = 60_000;
/** Receipts in flight, all binds together. */
const IN_FLIGHT = 64;
const READ_AHEAD = 256;
/** Due times this close share a wake-up, and so a commit. */
const TICK_MS = 10;
const BACKOFF = [1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000];
const BACKOFF_LAST = 300_000;
const GIVE_UP_MS = 48 * 3_600_000;
/** What `close` waits for what is being taken or told. */
const CLOSE_MS = 3_000;
const ENCODING = { default: 'gsm', packed: false } as const;
const TRANSACTION_MAX = 256;

/** A started SMSC. */
export interface SmscServer {
  port: number;
  close(): Promise<void>;
}

/** Starts the SMPP server; rejects with the system's error (EADDRINUSE ...). */
export async function startSmsc(options: {
  host: string;
  port: number;
  ledger: Ledger;
  env: Env;
}): Promise<SmscServer> {
  const smsc = new Smsc(options.ledger, options.env);
  const server = createServer((socket) => smsc.connected(socket));
  server.maxConnections = CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  server.on('error', (error) => options.env.log.error({ err: error }, 'sandbox: SMPP server error'));
  smsc.start();
  return {
    port: (server.address() as { port: number }).port,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      await smsc.stop();
      await closed;
    },
  };
}

/** One connection and who is bound on it. */
interface Bound {
  link: Link;
  /** Null = not yet. */
  systemId: string | null;
  receives: boolean;
  sends: boolean;
}

const OUTCOME: Record<ReportStatus, { stat: string; state: number }> = {
  Retrieved: { stat: 'DELIVRD', state: 2 },
  Deferred: { stat: 'ENROUTE', state: 1 },
  Rejected: { stat: 'REJECTD', state: 8 },
  Expired: { stat: 'EXPIRED', state: 3 },
};

class Smsc {
  private readonly ledger: Ledger;
  private readonly env: Env;
  private readonly peers = new Set<Bound>();
  private readonly closing = new AbortController();
  private ready: SmsPending[] = [];
  /** In `ready`, or begun. */
  private readonly known = new Set<number>();
  private inFlight = 0;
  private timer: Timer | null = null;
  private armedFor = Number.POSITIVE_INFINITY;
  private idle: (() => void) | null = null;
  private turn = 0;

  constructor(ledger: Ledger, env: Env) {
    this.ledger = ledger;
    this.env = env;
  }

  start(): void {
    this.pump();
  }

  /** Ends every connection; receipts in flight are answered or told again after the next start. */
  async stop(): Promise<void> {
    this.closing.abort();
    this.timer?.cancel();
    const limit = new Promise<void>((resolve) => {
      const timer = this.env.clock.setTimeout(resolve, CLOSE_MS);
      void this.quiet().then(() => {
        timer.cancel();
        resolve();
      });
    });
    await limit;
    for (const peer of [...this.peers]) peer.link.close('the sandbox stops', true);
    while (this.inFlight > 0) await new Promise<void>((resolve) => (this.idle = resolve));
  }

  private async quiet(): Promise<void> {
    await Promise.all([...this.peers].map((peer) => peer.link.drained()));
    if (this.inFlight > 0) await new Promise<void>((resolve) => (this.idle = resolve));
  }

  connected(socket: Socket): void {
    if (this.closing.signal.aborted) {
      socket.destroy();
      return;
    }
    socket.setNoDelay(true);
    const { clock } = this.env;
    const link = new Link({
      socket,
      env: this.env,
      answerMs: ANSWER_MS,
      enquireMs: ENQUIRE_MS,
      onRequest: (pdu) => this.request(peer, pdu),
      onClose: () => {
        limit.cancel();
        this.peers.delete(peer);
      },
    });
    const peer: Bound = { link, systemId: null, receives: false, sends: false };
    const limit = clock.setTimeout(() => {
      if (peer.systemId === null) link.close('no bind in time');
    }, BIND_MS);
    this.peers.add(peer);
  }

  // ------------------------------------------------------------------------------------------------------------ in

  private request(peer: Bound, pdu: Pdu): Promise<Reply | null> | Reply | null {
    if (pdu.kind === 'bind') return this.bind(peer, pdu.command, pdu.systemId);
    if (pdu.command === COMMAND.unbind) {
      process.nextTick(() => peer.link.close('unbound by the peer', true));
      return bare(STATUS.ok);
    }
    if (pdu.command !== COMMAND.submit || pdu.kind !== 'message') return this.refuse(STATUS.badCommand, 'bare');
    if (peer.systemId === null || !peer.sends) return this.refuse(STATUS.badBindState);
    return this.submit(peer, peer.systemId, pdu);
  }

  private bind(peer: Bound, command: number, systemId: string): Reply {
    if (peer.systemId !== null) return named(STATUS.alreadyBound);
    if (systemId === '' || systemId.length > 15) return named(STATUS.badSystemId);
    peer.systemId = systemId;
    peer.receives = command !== COMMAND.bindTransmitter;
    peer.sends = command !== COMMAND.bindReceiver;
    if (peer.receives) void this.hasten(systemId);
    return { status: STATUS.ok, body: { kind: 'named', id: 'sandbox', tlvs: [VERSION] } };
  }

  private async hasten(systemId: string): Promise<void> {
    try {
      await this.ledger.sms.hasten(systemId);
      this.pump();
    } catch (error) {
      this.env.log.warn({ err: error }, 'sandbox: receipts that wait could not be hastened');
    }
  }

  private refuse(status: number, kind: 'named' | 'bare' = 'named'): Reply {
    this.ledger.count('smsRefused');
    return kind === 'bare' ? bare(status) : named(status);
  }

  private async submit(peer: Bound, systemId: string, pdu: Pdu & ShortMessage): Promise<Reply | null> {
    const read = readSubmit(pdu, systemId, this.env.clock.now());
    if (typeof read === 'number') return this.refuse(read);
    // Only the first segment of a text finds trouble, or a long one would find it again and again.
    const fate = read.part === 1 ? behaviourOf(read.msisdn).atSubmit : undefined;
    if (behaviourOf(read.msisdn).atSubmit === 'unknown') return this.refuse(STATUS.badDestination);
    const taken = await this.ledger.sms.take({ ...read, busyTimes: fate === 'busy' ? BUSY_TIMES : 0 });
    switch (taken.kind) {
      case 'busy':
        // Both ways in which an SMSC says it.
        return named(taken.tries % 2 === 1 ? STATUS.throttled : STATUS.queueFull);
      case 'repeated':
        return named(STATUS.ok, taken.messageId);
      case 'taken':
        break;
    }
    if (taken.dueAt !== null) this.arm(taken.dueAt);
    if (fate === 'slow') await this.env.clock.sleep(SLOW_MS, this.closing.signal);
    if (fate === 'cut') {
      this.ledger.count('cut');
      peer.link.close('cut on purpose');
      return null;
    }
    if (fate === 'garbage') {
      this.ledger.count('garbage');
      const nonsense: Body = { kind: 'other', body: Buffer.from('this is no submit_sm_resp') };
      peer.link.writeRaw(encode({ command: ANSWER + 0x7777, status: 0, sequence: pdu.sequence, ...nonsense }));
      return null;
    }
    return named(STATUS.ok, taken.messageId);
  }

  // ------------------------------------------------------------------------------------------------------------ out

  private pump(): void {
    if (this.closing.signal.aborted) return;
    while (this.inFlight < IN_FLIGHT) {
      const next = this.ready.shift() ?? this.read();
      if (!next) break;
      this.inFlight++;
      void this.carry(next);
    }
    if (this.inFlight < IN_FLIGHT) this.arm(this.ledger.sms.nextDue(this.env.clock.now()));
  }

  private read(): SmsPending | undefined {
    const { sms } = this.ledger;
    this.ready = sms.due(this.env.clock.now(), READ_AHEAD + this.known.size).filter((one) => !this.known.has(one.no));
    for (const one of this.ready) this.known.add(one.no);
    return this.ready.shift();
  }

  private arm(at: number | null): void {
    if (at === null || at >= this.armedFor || this.closing.signal.aborted) return;
    this.timer?.cancel();
    this.armedFor = at;
    const { clock } = this.env;
    const due = (): void => {
      this.armedFor = Number.POSITIVE_INFINITY;
      this.timer = null;
      this.pump();
    };
    this.timer = clock.setTimeout(due, Math.max(TICK_MS, at - clock.now()));
  }

  private async carry(pending: SmsPending): Promise<void> {
    try {
      await this.step(pending);
    } catch (error) {
      this.env.log.error({ err: error }, 'sandbox: a receipt could not be noted');
      await this.env.clock.sleep(1_000, this.closing.signal);
    }
    this.known.delete(pending.no);
    this.inFlight--;
    if (this.inFlight === 0) this.idle?.();
    this.pump();
  }

  /** One step of one segment, or one more try to tell of it. */
  private async step(pending: SmsPending): Promise<void> {
    const { sms } = this.ledger;
    const now = this.env.clock.now();
    const steps = smsStepsOf(pending.msisdn);
    const planned = steps[pending.step];
    if (!planned) return sms.advance(pending, null, false);
    let { status } = planned;
    let following = steps[pending.step + 1];
    if (status === 'Retrieved' && !pending.delivered) {
      if (pending.expiresAt !== null && now > pending.expiresAt) {
        status = 'Expired';
        following = undefined;
      } else {
        await sms.deliver(pending);
        pending.since = now;
      }
    }
    const next = (): number | null => (following ? this.env.clock.now() + following.afterMs : null);
    if (!pending.registered) return sms.advance(pending, next(), false);
    if (await this.tell(pending, status, planned.copies ?? 1)) return sms.advance(pending, next(), true);
    if (this.closing.signal.aborted) return;
    if (now - (pending.since ?? now) >= GIVE_UP_MS) {
      this.env.log.warn({ carrierMessageId: pending.messageId, status }, 'sandbox: nobody took a receipt, given up');
      return sms.advance(pending, next(), false);
    }
    return sms.postpone(pending, this.env.clock.now() + (BACKOFF[pending.tries] ?? BACKOFF_LAST));
  }

  /** True = every copy was answered with 0. */
  private async tell(pending: SmsPending, status: ReportStatus, copies: number): Promise<boolean> {
    const told = Array.from({ length: copies }, () => this.deliver(pending, status));
    return (await Promise.all(told)).every(Boolean);
  }

  private deliver(pending: SmsPending, status: ReportStatus): Promise<boolean> {
    const receivers = [...this.peers].filter((peer) => peer.receives && peer.systemId === pending.systemId);
    const peer = receivers[this.turn++ % receivers.length];
    if (!peer) return Promise.resolve(false);
    const body = receiptOf(pending, status, this.env.clock.now());
    return new Promise((resolve) => {
      const done = (settled: Settled): void =>
        resolve(settled.kind === 'answer' && settled.pdu.status === STATUS.ok && settled.pdu.kind === 'named');
      if (!peer.link.request(COMMAND.deliver, body, done)) resolve(false);
    });
  }
}

const VERSION = { tag: TAG.scInterfaceVersion, value: Uint8Array.of(0x34) };

function named(status: number, id = ''): Reply {
  return { status, body: { kind: 'named', id, tlvs: [] } };
}

function bare(status: number): Reply {
  return { status, body: { kind: 'bare' } };
}

/** What is asked, or the status that says what is wrong with it. */
function readSubmit(pdu: ShortMessage, systemId: string, now: number): Omit<SmsTake, 'busyTimes'> | number {
  const { source, destination } = pdu;
  if (source.text.length > 20 || !knownType(source.ton, source.npi)) return STATUS.badSource;
  if (!/^\+?\d{1,20}$/.test(destination.text) || !knownType(destination.ton, destination.npi)) {
    return STATUS.badDestination;
  }
  // Other messaging modes and types are not for an SMS to a handset.
  if ((pdu.esmClass & ~(ESM.udh | 0x03)) !== 0) return STATUS.badEsmClass;
  const expiresAt = pdu.validityPeriod === '' ? null : readTime(pdu.validityPeriod, now);
  if (pdu.validityPeriod !== '' && (expiresAt === null || expiresAt < now)) return STATUS.badExpiry;
  const hasPayload = pdu.tlvs.some((one) => one.tag === TAG.payload);
  if (hasPayload && pdu.shortMessage.length > 0) return STATUS.badTlv;
  const { text, octets, piece } = readText(pdu, ENCODING);
  if ((pdu.esmClass & ESM.udh) !== 0 && piece === null) return STATUS.badEsmClass;
  if (!hasPayload && octets.length > (piece ? 153 : 160)) return STATUS.badMessageLength;
  const tx = tlvText(pdu, TRANSACTION_TAG);
  if (tx !== undefined && (tx === '' || tx.length > TRANSACTION_MAX)) return STATUS.badTlv;
  const digits = /^\+?\d+$/.test(source.text);
  return {
    systemId,
    tx: tx ?? null,
    part: piece?.number ?? 1,
    total: piece?.total ?? 1,
    ref: piece?.reference ?? 0,
    sender: digits ? source.text.replace(/^\+/, '') : source.text,
    msisdn: destination.text.replace(/^\+/, ''),
    text: text ?? `[${octets.length} octets of data]`,
    expiresAt,
    registered: (pdu.registeredDelivery & 0x03) === 1,
  };
}

/** SMPP 3.4, 5.2.5 and 5.2.6. */
function knownType(ton: number, npi: number): boolean {
  return ton <= 6 && [0, 1, 3, 4, 6, 8, 9, 10, 14, 18].includes(npi);
}

/** Both ways to tell: TLVs, and the text of appendix B. */
function receiptOf(pending: SmsPending, status: ReportStatus, now: number): ShortMessage {
  const { stat, state } = OUTCOME[status];
  const minute = (at: number): string => new Date(at).toISOString().replace(/\D/g, '').slice(2, 12);
  const ascii = pending.text.replace(/[^\x20-\x7e]/g, '.').slice(0, 20);
  const done = status === 'Retrieved' ? '001' : '000';
  const text =
    `id:${pending.messageId} sub:001 dlvrd:${done} submit date:${minute(pending.takenAt)} ` +
    `done date:${minute(pending.since ?? now)} stat:${stat} err:000 text:${ascii}`;
  const sender = pending.sender;
  const isNumber = /^\d+$/.test(sender);
  return shortMessage({
    source: { ton: 1, npi: 1, text: pending.msisdn },
    destination: isNumber ? { ton: 1, npi: 1, text: sender } : { ton: 5, npi: 0, text: sender },
    esmClass: ESM.receipt,
    shortMessage: Buffer.from(text, 'latin1'),
    tlvs: [
      { tag: TAG.receiptedMessageId, value: Buffer.from(`${pending.messageId}\0`) },
      { tag: TAG.messageState, value: Uint8Array.of(state) },
    ],
  });
}
