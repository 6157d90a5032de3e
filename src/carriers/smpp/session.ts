/**
 * One bind to an SMSC, kept up: connect, bind, send within the window, and again after whatever ends it.
 *
 * Promises: at most `window` submissions are unanswered. The SMSC's receipts and messages are taken as long as the bind stands. After
 * an end it connects again, later each time up to `RECONNECT_MAX_MS`, never at the same instant as others (jitter); a refused bind
 * (password, system id) waits longer, since some SMSCs bar who asks too often. A throttled bind sends nothing until its pause is over.
 *
 * Fails: nothing throws. What went wrong last is in `trouble`.
 */
import type { Socket } from 'node:net';
import type { Env, Timer } from '../../env.ts';
import { dial, reasonOf, type Target } from './dial.ts';
import { Link, type Reply, type Settled } from './link.ts';
import { COMMAND, type Pdu, type ShortMessage, STATUS } from './pdu.ts';
import { statusWords } from './verdict.ts';

const RECONNECT_MIN_MS = 1_000;
const RECONNECT_MAX_MS = 60_000;
/** After a bind that was refused. */
const REFUSED_MS = 30_000;
/** A bind that stood this long was a good one: the next trouble begins with the shortest wait. */
const STEADY_MS = 10_000;
/** For what is being taken to be answered, and then for unbind_resp. */
const DRAIN_MS = 3_000;
const UNBIND_MS = 2_000;
/** What a throttled bind waits, doubled each time up to the limit. */
const PAUSE_MIN_MS = 1_000;
const PAUSE_MAX_MS = 30_000;
const VERSION_34 = 0x34;

export interface SessionOptions extends Target {
  bind: 'transceiver' | 'transmitter' | 'receiver';
  systemId: string;
  password: string;
  systemType: string;
  window: number;
  timeoutMs: number;
  enquireLinkMs: number;
  firstSequence?: number;
  env: Env;
  /** A deliver_sm or data_sm of the SMSC's: the status to answer. A rejection is answered as temporary. */
  onDeliver(pdu: Pdu & ShortMessage): Promise<number>;
  /** There may be room for a submission, or none any more. */
  onChange(): void;
  /** A bind that stood has ended: what was answered last may not have arrived. */
  onLost(): void;
}

type State = 'connecting' | 'binding' | 'bound' | 'waiting' | 'closed';

/** One bind; begins to connect when it is made. */
export class Session {
  /** What went wrong last; '' = nothing yet. */
  trouble = '';
  private readonly options: SessionOptions;
  private state: State = 'waiting';
  private link: Link | null = null;
  private readonly ended = new AbortController();
  private timer: Timer | null = null;
  private failures = 0;
  private boundAt = 0;
  private nextTryAt = 0;
  private pausedUntil = 0;
  private pauses = 0;
  private pauseTimer: Timer | null = null;
  private outstanding = 0;

  constructor(options: SessionOptions) {
    this.options = options;
    void this.open();
  }

  get bound(): boolean {
    return this.state === 'bound';
  }

  /** Whether it will send once there is room or the pause is over: a caller may wait for it. */
  get coming(): boolean {
    return this.state === 'bound' || this.state === 'connecting' || this.state === 'binding';
  }

  /** Submissions without an answer. */
  get load(): number {
    return this.outstanding;
  }

  /** Places left in the window. */
  get room(): number {
    return Math.max(0, this.options.window - this.outstanding);
  }

  /** Whether a submission may leave now. */
  get free(): boolean {
    return this.state === 'bound' && this.outstanding < this.options.window && this.pauseLeft === 0;
  }

  /** Ms until a throttled bind sends again; 0 = it may. */
  get pauseLeft(): number {
    return Math.max(0, Math.ceil(this.pausedUntil - this.now()));
  }

  /** Ms until the next try to connect; 0 = it is being tried, or not needed. */
  get retryLeft(): number {
    return this.state === 'waiting' ? Math.max(0, Math.ceil(this.nextTryAt - this.now())) : 0;
  }

  /** Takes a place in the window, for one `submit` or `leave`. */
  enter(): void {
    this.outstanding++;
  }

  /** Gives a place back that nothing was sent on. */
  leave(): void {
    this.outstanding--;
    this.options.onChange();
  }

  /** Sends submit_sm on a place taken by `enter`; `late` as in `Link.request`. False = not bound (any more): nothing was sent, the place is given back. */
  submit(message: ShortMessage, done: (settled: Settled) => void, late?: (answer: Pdu) => void): boolean {
    const settle = (settled: Settled): void => {
      this.outstanding--;
      done(settled);
      this.options.onChange();
    };
    const sent =
      this.state === 'bound' && this.link !== null && this.link.request(COMMAND.submit, message, settle, late);
    if (!sent) this.leave();
    return sent;
  }

  /** The SMSC asked to slow down: how long this bind waits (ms). */
  throttled(): number {
    // Those that were in flight with the first one are answered alike: they say nothing new.
    if (this.pauseLeft > 0) return this.pauseLeft;
    const pause = Math.min(PAUSE_MIN_MS * 2 ** this.pauses, PAUSE_MAX_MS);
    this.pauses++;
    this.pausedUntil = this.now() + pause;
    this.pauseTimer?.cancel();
    this.pauseTimer = this.options.env.clock.setTimeout(() => this.options.onChange(), pause);
    return pause;
  }

  /** The SMSC took a message. */
  wentWell(): void {
    if (this.pauseLeft === 0) this.pauses = 0;
  }

  /** The SMSC says that the bind is not what we think: binds anew. */
  rebind(why: string): void {
    this.link?.close(why);
  }

  /** Unbinds and lets go, in bounded time. No submission may follow. */
  async close(): Promise<void> {
    const { link } = this;
    const wasBound = this.state === 'bound';
    this.state = 'closed';
    this.timer?.cancel();
    this.pauseTimer?.cancel();
    if (link && wasBound && !link.closed) {
      await this.within(DRAIN_MS, (done) => void link.drained().then(done));
      await this.within(UNBIND_MS, (done) => {
        if (!link.request(COMMAND.unbind, { kind: 'bare' }, done)) done();
      });
    }
    link?.close('closed by us');
    this.ended.abort();
  }

  /** Resolves when `begin` says so, or after `ms`. */
  private within(ms: number, begin: (done: () => void) => void): Promise<void> {
    return new Promise((resolve) => {
      const limit = this.options.env.clock.setTimeout(resolve, ms);
      begin(() => {
        limit.cancel();
        resolve();
      });
    });
  }

  private now(): number {
    return this.options.env.clock.monotonic();
  }

  /** A function, so that the compiler does not take an earlier look at `state` for a later one. */
  private is(state: State): boolean {
    return this.state === state;
  }

  // ------------------------------------------------------------------------------------------------------- opening

  private async open(): Promise<void> {
    this.state = 'connecting';
    this.options.onChange();
    let socket: Socket;
    try {
      socket = await dial(this.options, this.options.env, this.ended.signal);
    } catch (error) {
      if (!this.is('closed')) this.again(`cannot connect: ${reasonOf(error as Error)}`);
      return;
    }
    if (this.is('closed')) {
      socket.destroy();
      return;
    }
    this.state = 'binding';
    const { env, timeoutMs, enquireLinkMs, firstSequence } = this.options;
    const link = new Link({
      socket,
      env,
      answerMs: timeoutMs,
      enquireMs: enquireLinkMs,
      ...(firstSequence === undefined ? {} : { firstSequence }),
      onRequest: (pdu) => this.request(link, pdu),
      onClose: (why) => this.lost(link, why),
    });
    this.link = link;
    this.bind(link);
  }

  private bind(link: Link): void {
    const { bind, systemId, password, systemType } = this.options;
    const command = {
      transceiver: COMMAND.bindTransceiver,
      transmitter: COMMAND.bindTransmitter,
      receiver: COMMAND.bindReceiver,
    }[bind];
    const body = { systemId, password, systemType, interfaceVersion: VERSION_34, ton: 0, npi: 0, addressRange: '' };
    link.request(command, { kind: 'bind', ...body }, (settled) => {
      if (link !== this.link || !this.is('binding')) return;
      if (settled.kind === 'answer' && settled.pdu.status === STATUS.ok) {
        this.state = 'bound';
        this.boundAt = this.now();
        this.trouble = '';
        this.options.env.log.info({ host: this.options.host, port: this.options.port, bind }, 'smpp: bound');
        this.options.onChange();
        return;
      }
      const why =
        settled.kind === 'answer'
          ? `bind refused: ${statusWords(settled.pdu.status)}`
          : settled.kind === 'silence'
            ? 'no answer to the bind'
            : settled.why;
      this.refused(settled.kind === 'answer', why, link);
    });
  }

  private refused(clearly: boolean, why: string, link: Link): void {
    this.link = null;
    link.close(why);
    this.again(why, clearly ? REFUSED_MS : 0);
  }

  // --------------------------------------------------------------------------------------------------------- while bound

  private request(link: Link, pdu: Pdu): Promise<Reply | null> | Reply | null {
    switch (pdu.command) {
      case COMMAND.deliver:
      case COMMAND.data: {
        const message = pdu as Pdu & ShortMessage;
        return this.options
          .onDeliver(message)
          .then((status) => ({ status, body: { kind: 'named', id: '', tlvs: [] } }));
      }
      case COMMAND.unbind:
        // The answer is written before the end.
        process.nextTick(() => link.close('unbound by the peer', true));
        return { status: STATUS.ok, body: { kind: 'bare' } };
      case COMMAND.outbind:
      case COMMAND.alert:
        return null;
      default:
        return { status: STATUS.badCommand, body: { kind: 'bare' } };
    }
  }

  private lost(link: Link, why: string): void {
    if (link !== this.link) return;
    this.link = null;
    if (this.is('closed')) return;
    if (this.is('bound')) this.options.onLost();
    const steady = this.is('bound') && this.now() - this.boundAt >= STEADY_MS;
    if (steady) this.failures = 0;
    this.again(why);
  }

  private again(why: string, atLeastMs = 0): void {
    const { clock, random, log } = this.options.env;
    this.state = 'waiting';
    this.trouble = why;
    const longest = Math.min(RECONNECT_MIN_MS * 2 ** Math.min(this.failures, 10), RECONNECT_MAX_MS);
    this.failures++;
    // Half of it for sure, half by chance.
    const wait = Math.max(atLeastMs, longest) * (0.5 + random.float() / 2) + atLeastMs / 2;
    this.nextTryAt = this.now() + wait;
    log.warn({ host: this.options.host, port: this.options.port, why, retryMs: Math.round(wait) }, 'smpp: not bound');
    this.timer = clock.setTimeout(() => void this.open(), wait);
    this.options.onChange();
  }
}
