/**
 * One SMPP connection, whichever end: requests out with their answers, requests in with theirs, and the watch over a peer that
 * fell silent. Knows nothing of binding or of messages.
 *
 * Promises: each request is settled exactly once: by its answer, by silence (`answerMs`), or by the end of the connection. An answer
 * after the silence is told to who asked for it, once, as long as the connection stands. A request in is answered once, after its handler resolved; one that rejects or takes longer than `HANDLER_MS` is answered as temporarily
 * impossible, so that the peer tells it again. A request that cannot be read is answered with the status that says so, and reading
 * goes on; where a length cannot be, the connection ends. Handlers running at a time are bounded: beyond, nothing is read until
 * some are done. A peer that says nothing is asked (enquire_link) and left when it does not answer, and so is one that does not end
 * a PDU that it began (what it says behind it would be taken for its rest).
 *
 * Fails: nothing throws; `onClose` tells once why it ended.
 */
import type { Duplex } from 'node:stream';
import type { Env, Timer } from '../../env.ts';
import { reasonOf } from './dial.ts';
import { ANSWER, type Body, COMMAND, decode, encode, Framer, GENERIC_NACK, isAnswer, type Pdu, STATUS } from './pdu.ts';

/** Handlers at a time; reading goes on at half of it. */
const HANDLERS = 500;
/** For a handler; peers repeat after 10 to 60 s. */
export const HANDLER_MS = 15_000;
/** A watch that comes this much too late shows that the process stood still. */
const STALL_MS = 1_000;
/** For what lies in the socket to be read. */
const READ_MS = 100;
/** For a peer to close its side. */
const LINGER_MS = 1_000;
/** Requests given up whose answers are still listened for. */
const OVERDUE = 10_000;
/** Sequence numbers begin anew after this one (SMPP 3.4, 3.2). */
const LAST_SEQUENCE = 0x7fffffff;

/** What became of a request. `garbled`: its answer could not be read. */
export type Settled =
  | { kind: 'answer'; pdu: Pdu }
  | { kind: 'garbled'; why: string }
  | { kind: 'silence' }
  | { kind: 'lost'; why: string };

export interface LinkOptions {
  /** Connected. */
  socket: Duplex;
  env: Env;
  /** For one answer. */
  answerMs: number;
  /** Silence of the peer after which it is asked whether it is there. */
  enquireMs: number;
  /** The first sequence number; a test may begin before the end of the range. */
  firstSequence?: number;
  /** A request of the peer's (not enquire_link): the status and body of its answer; null = none is due. */
  onRequest(pdu: Pdu): Promise<Reply | null> | Reply | null;
  /** The connection has ended. */
  onClose(why: string): void;
}

/** The answer to a request in. */
export interface Reply {
  status: number;
  body: Body;
}

interface Pending {
  command: number;
  /** Monotonic. */
  sentAt: number;
  done(settled: Settled): void;
  late?: ((answer: Pdu) => void) | undefined;
}

const BARE: Body = Object.freeze({ kind: 'bare' });
const UNNAMED: Body = Object.freeze({ kind: 'named', id: '', tlvs: Object.freeze([]) });

/** The body of a plain answer to `command`. */
function bodyOf(command: number): Body {
  switch (command) {
    case COMMAND.submit:
    case COMMAND.deliver:
    case COMMAND.data:
    case COMMAND.bindReceiver:
    case COMMAND.bindTransmitter:
    case COMMAND.bindTransceiver:
      return UNNAMED;
    default:
      return BARE;
  }
}

/** One connection; see the head of the file. */
export class Link {
  private readonly options: LinkOptions;
  private readonly framer = new Framer();
  /** In the order of sending, so the first one is the first to fall due. */
  private readonly pending = new Map<number, Pending>();
  /** Given up for silence, oldest first; who wants to hear of an answer that comes all the same. */
  private readonly overdue = new Map<number, Pending>();
  private sequence: number;
  private heardAt: number;
  /** Since when the beginning of a PDU waits for its rest; null = none does. */
  private partialAt: number | null = null;
  /** When the peer was asked whether it is there; null = no question is open. */
  private askedAt: number | null = null;
  private watch: Timer | null = null;
  private watchAt = Number.POSITIVE_INFINITY;
  private handlers = 0;
  /** Nothing is read; what the peer says may lie in the socket. */
  private paused = false;
  private idle: (() => void)[] = [];
  private corked = false;
  private ended = false;

  constructor(options: LinkOptions) {
    this.options = options;
    this.sequence = options.firstSequence ?? 1;
    this.heardAt = options.env.clock.monotonic();
    const { socket } = options;
    socket.on('data', (chunk: Buffer) => this.heard(chunk));
    socket.on('error', (error: NodeJS.ErrnoException) => this.end(reasonOf(error)));
    socket.on('end', () => this.end('closed by the peer'));
    socket.on('close', () => this.end('connection closed'));
    this.arm();
  }

  get closed(): boolean {
    return this.ended;
  }

  /** Requests without an answer. */
  get outstanding(): number {
    return this.pending.size;
  }

  /**
   * Sends a request. False = the connection has ended; then nothing was sent and `done` is never called. `late`: an answer that
   * comes after `done` was told of silence.
   */
  request(command: number, body: Body, done: (settled: Settled) => void, late?: (answer: Pdu) => void): boolean {
    if (this.ended) return false;
    const sequence = this.nextSequence();
    const bytes = encode({ command, status: 0, sequence, ...body });
    this.pending.set(sequence, { command, sentAt: this.now(), done, late });
    this.write(bytes);
    this.arm();
    return true;
  }

  /** Ends the connection: at once, or `gently` once what was written has left. */
  close(why: string, gently = false): void {
    this.end(why, gently);
  }

  /** Resolves when no handler runs: every request in has its answer. */
  async drained(): Promise<void> {
    if (this.handlers > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
  }

  /** Bytes that are no PDU; for a sandbox that misbehaves. */
  writeRaw(bytes: Uint8Array): void {
    if (!this.ended) this.write(bytes);
  }

  private now(): number {
    return this.options.env.clock.monotonic();
  }

  private nextSequence(): number {
    // A number that still waits for its answer is passed over: far fewer wait than there are.
    while (this.pending.has(this.sequence)) this.sequence = this.sequence >= LAST_SEQUENCE ? 1 : this.sequence + 1;
    const own = this.sequence;
    this.overdue.delete(own);
    this.sequence = own >= LAST_SEQUENCE ? 1 : own + 1;
    return own;
  }

  /** What is written in one turn leaves in one packet. */
  private write(bytes: Uint8Array): void {
    const { socket } = this.options;
    if (!this.corked) {
      this.corked = true;
      socket.cork();
      process.nextTick(() => {
        this.corked = false;
        socket.uncork();
      });
    }
    socket.write(bytes);
  }

  // ----------------------------------------------------------------------------------------------------------- in

  private heard(chunk: Buffer): void {
    if (this.ended) return;
    this.heardAt = this.now();
    this.askedAt = null;
    const sound = this.framer.push(chunk, (bytes) => {
      this.partialAt = null;
      if (!this.ended) this.take(bytes);
    });
    if (sound && this.framer.partial && this.partialAt === null) {
      this.partialAt = this.heardAt;
      this.arm();
    }
    if (sound || this.ended) return;
    this.write(encode({ command: GENERIC_NACK, status: STATUS.badCommandLength, sequence: 0, kind: 'bare' }));
    this.end('a PDU of impossible length: the stream is lost', true);
  }

  private take(bytes: Buffer): void {
    const decoded = decode(bytes);
    const head = decoded.ok ? decoded.pdu : decoded.head;
    if (isAnswer(head.command)) {
      const pending = this.pending.get(head.sequence);
      if (!pending) {
        // Late, or never asked for.
        const given = this.overdue.get(head.sequence);
        this.overdue.delete(head.sequence);
        if (given && decoded.ok && head.command === ANSWER + given.command) given.late?.(decoded.pdu);
        return;
      }
      this.pending.delete(head.sequence);
      if (!decoded.ok) pending.done({ kind: 'garbled', why: decoded.why });
      else if (head.command !== GENERIC_NACK && head.command !== ANSWER + pending.command) {
        pending.done({ kind: 'garbled', why: `answered as 0x${head.command.toString(16)}` });
      } else pending.done({ kind: 'answer', pdu: decoded.pdu });
      return;
    }
    if (!decoded.ok) {
      this.options.env.log.warn({ command: head.command, why: decoded.why }, 'smpp: a PDU that cannot be read');
      this.answer(head, { status: decoded.status, body: bodyOf(head.command) });
      return;
    }
    if (head.command === COMMAND.enquireLink) this.answer(head, { status: STATUS.ok, body: BARE });
    else this.handle(decoded.pdu);
  }

  private handle(pdu: Pdu): void {
    let reply: Promise<Reply | null> | Reply | null;
    try {
      reply = this.options.onRequest(pdu);
    } catch (error) {
      reply = Promise.reject(error);
    }
    if (!(reply instanceof Promise)) {
      this.answer(pdu, reply);
      return;
    }
    const { clock, log } = this.options.env;
    this.handlers++;
    if (this.handlers === HANDLERS) {
      this.paused = true;
      this.options.socket.pause();
    }
    let open = true;
    const finish = (own: Reply | null): void => {
      if (!open) return;
      open = false;
      limit.cancel();
      this.answer(pdu, own);
      this.handlers--;
      if (this.paused && this.handlers <= HANDLERS / 2) {
        this.paused = false;
        this.options.socket.resume();
      }
      if (this.handlers === 0) for (const resolve of this.idle.splice(0)) resolve();
    };
    const later = (): Reply => ({ status: STATUS.tryAgain, body: bodyOf(pdu.command) });
    const limit = clock.setTimeout(() => finish(later()), HANDLER_MS);
    void reply.then(finish, (error: unknown) => {
      log.warn({ err: error }, 'smpp: a request could not be worked off, the peer will tell it again');
      finish(later());
    });
  }

  private answer(to: { command: number; sequence: number }, reply: Reply | null): void {
    if (this.ended || reply === null) return;
    const { status, body } = reply;
    const command = status === STATUS.badCommand ? GENERIC_NACK : ANSWER + to.command;
    this.write(encode({ command, status, sequence: to.sequence, ...body }));
  }

  // ---------------------------------------------------------------------------------------------------------- time

  /** Sets the watch to the next instant at which something may be due. */
  private arm(): void {
    const { answerMs, enquireMs } = this.options;
    let at = this.askedAt === null ? this.heardAt + enquireMs : this.askedAt + answerMs;
    if (this.partialAt !== null) at = Math.min(at, this.partialAt + answerMs);
    for (const { sentAt } of this.pending.values()) {
      at = Math.min(at, sentAt + answerMs);
      break;
    }
    // A watch that comes too early looks and is set again: cheaper than a new timer for every request.
    if (this.ended || at >= this.watchAt) return;
    this.setWatch(at);
  }

  private setWatch(at: number): void {
    this.watch?.cancel();
    this.watchAt = at;
    this.watch = this.options.env.clock.setTimeout(() => this.look(), at - this.now());
  }

  private look(): void {
    const { answerMs, enquireMs } = this.options;
    const now = this.now();
    const late = now - this.watchAt;
    this.watch = null;
    this.watchAt = Number.POSITIVE_INFINITY;
    if (this.paused || late > STALL_MS) {
      // After a stall of this process the answers may lie in the socket: they are read before anybody is judged.
      this.setWatch(now + (this.paused ? STALL_MS : READ_MS));
      return;
    }
    for (const [sequence, one] of this.pending) {
      if (now < one.sentAt + answerMs) break;
      this.pending.delete(sequence);
      if (one.late) {
        this.overdue.set(sequence, one);
        if (this.overdue.size > OVERDUE) this.overdue.delete(this.overdue.keys().next().value as number);
      }
      one.done({ kind: 'silence' });
      // Whether only this one was forgotten, or the peer is gone.
      this.enquire(now);
    }
    if (this.askedAt !== null && now >= this.askedAt + answerMs) {
      this.end('the peer does not answer enquire_link');
      return;
    }
    if (this.partialAt !== null && now >= this.partialAt + answerMs) {
      this.end('the peer does not end a PDU that it began');
      return;
    }
    if (now >= this.heardAt + enquireMs) this.enquire(now);
    this.arm();
  }

  private enquire(now: number): void {
    if (this.askedAt !== null || this.ended) return;
    this.askedAt = now;
    // Any sign of life will do; the answer itself is passed over as one that nobody waits for.
    const sequence = this.nextSequence();
    this.write(encode({ command: COMMAND.enquireLink, status: 0, sequence, kind: 'bare' }));
  }

  private end(why: string, gently = false): void {
    if (this.ended) return;
    this.ended = true;
    this.watch?.cancel();
    const { socket } = this.options;
    if (gently) {
      socket.end();
      const limit = this.options.env.clock.setTimeout(() => socket.destroy(), LINGER_MS);
      socket.once('close', () => limit.cancel());
      // What still comes is read away, so that the end is seen.
      socket.resume();
    } else socket.destroy();
    for (const resolve of this.idle.splice(0)) resolve();
    const pending = [...this.pending.values()];
    this.pending.clear();
    this.overdue.clear();
    for (const one of pending) one.done({ kind: 'lost', why });
    this.options.onClose(why);
  }
}
