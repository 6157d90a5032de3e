/**
 * The SMPP 3.4 carrier: one SMS in one or more submit_sm over one or more binds, receipts and handsets' messages back.
 *
 * Promises: the contract of `carrier.ts`. Connects when it is made and stays bound. At most `window` submissions are unanswered on a
 * bind, and at most `ratePerSecond` segments leave a second over all binds, evenly spaced. A long text's first segment is answered
 * before the others leave, so that a refusal costs one; the message is accepted when all of them are, under the last one's id. What was
 * sent on a bind that ended is unknown, each by itself. A submission leaves within `PATIENCE_MS` or is handed back. A receipt or a message from a handset is answered after its hook resolved; a
 * hook that rejects makes the SMSC tell it again.
 *
 * Fails: as outcomes only. A bind that does not come up defers, with the time of the next try as the wish.
 */

import type { SmsSubmission } from '../../domain/submission.ts';
import { type CarrierInbound, type CarrierReport, type Failure, type Outcome, refOf } from '../../domain/submission.ts';
import type { Env, Timer } from '../../env.ts';
import { cachedNames, systemNames } from '../../net/names.ts';
import type { SmsCarrier } from '../carrier.ts';
import { Inbound, plain } from './inbound.ts';
import type { Settled } from './link.ts';
import { type Pdu, type ShortMessage, STATUS, TAG, tlvText } from './pdu.ts';
import { plainId, type ReceiptIdForm, ReceiptIds, readReceipt } from './receipt.ts';
import { Session, type TlsOptions } from './session.ts';
import { encodeSms, type TextOptions } from './text.ts';
import { outcomeOf, readStatusTable, statusWords, type Verdict } from './verdict.ts';

export type { TlsOptions } from './session.ts';

/** One SMSC, as the settings give it; docs/SMPP.md says what to ask the carrier for. Times in ms. */
export interface SmppConfig extends Partial<TextOptions> {
  name: string;
  host: string;
  port: number;
  /** True = the system's trust; or what to trust and to show, in PEM form. */
  tls?: boolean | TlsOptions | undefined;
  systemId: string;
  password: string;
  systemType?: string;
  /** `pair`: a transmitter and a receiver each; default transceiver. */
  bind?: 'transceiver' | 'pair';
  /** Sessions (pairs) at a time; default 1. */
  binds?: number;
  /** Unanswered submissions of one session; default 10. */
  window?: number;
  /** Segments a second, all sessions together; absent = no limit. */
  ratePerSecond?: number | undefined;
  /** Silence after which the peer is asked whether it is there; default 30 000. */
  enquireLinkMs?: number;
  /** For one answer; default 20 000, below dispatch's own limit, so that the words can say which. */
  timeoutMs?: number;
  connectTimeoutMs?: number;
  /** Default auto: learnt from the first receipts. */
  receiptIdForm?: 'auto' | ReceiptIdForm;
  /** Over the built-in table, by status (decimal or 0x). */
  statusTable?: Readonly<Record<string, Verdict>> | undefined;
  /** For tests of the wrap at 0x7fffffff. */
  firstSequence?: number;
}

/** What the SMSC tells. Both resolve after what they were given is durable; a rejection makes the SMSC repeat it. */
export interface SmppHooks {
  onReport(report: CarrierReport): Promise<void>;
  onInbound(mo: CarrierInbound): Promise<void>;
}

/** How its binds do, for metrics and the doctor. */
export interface SmppHealth {
  binds: number;
  bound: number;
  /** Submissions without an answer. */
  outstanding: number;
  /** What went wrong last where a bind does not stand; '' = nothing. */
  trouble: string;
}

export interface SmppCarrier extends SmsCarrier {
  /** How the binds do now. */
  health(): SmppHealth;
  close(): Promise<void>;
}

const BINDS_MAX = 32;
const TIMEOUT_MS = 20_000;
const CONNECT_MS = 10_000;
const ENQUIRE_MS = 30_000;
const WINDOW = 10;
/**
 * What a submission waits in here for a bind, a place in the window and its turn before its first byte leaves. Dispatch spaces what
 * it hands over; a longer wait would undo that, so beyond it the submission is handed back.
 */
const PATIENCE_MS = 1_000;
/** Submissions that wait for room; dispatch keeps far below. */
const WAITING_MAX = 10_000;
/** Tries of a later segment that the SMSC cannot take now; then the whole message is put off. */
const SEGMENT_TRIES = 5;
const SEGMENT_AGAIN_MS = 1_000;
/** Ids of earlier segments whose receipts were asked for too. */
const SIBLINGS = 50_000;
/** What was answered this shortly before a connection ended may not have arrived. */
const UNSURE_MS = 5_000;
/** 4102 EC_NOTSUBMITTEDTOSMPPCHANNEL */
const NOT_SUBMITTED = 4102;
/** 502 EC_NO_RESPONSE */
const NO_RESPONSE = 502;
/** 504 EC_UNEXPECTED_RESPONSE_FROM_PEER */
const UNEXPECTED = 504;

/** What became of one submit_sm. */
type Sent = { kind: 'taken'; id: string; words?: string } | Exclude<Outcome, { kind: 'accepted' | 'contentFailed' }>;

/** Makes a carrier for one SMSC and begins to bind. */
export function createSmppCarrier(config: SmppConfig, hooks: SmppHooks, env: Env): SmppCarrier {
  return new Carrier(config, hooks, env);
}

class Carrier implements SmppCarrier {
  readonly name: string;
  private readonly env: Env;
  private readonly hooks: SmppHooks;
  private readonly text: TextOptions;
  private readonly statusTable: ReadonlyMap<number, Verdict>;
  private readonly senders: Session[] = [];
  private readonly receivers: Session[] = [];
  private readonly pacer: Pacer | null;
  private readonly inbound: Inbound;
  private readonly ids: ReceiptIds;
  private readonly siblings = new Map<string, string>();
  /** First come, first served. */
  private readonly waiting = new Set<() => void>();

  constructor(config: SmppConfig, hooks: SmppHooks, env: Env) {
    this.name = config.name;
    this.env = { ...env, log: env.log.child({ carrier: config.name }) };
    this.hooks = hooks;
    this.text = {
      serviceType: config.serviceType ?? '',
      plus: config.plus ?? false,
      addressing: config.addressing ?? {},
      encoding: config.encoding ?? { default: 'gsm', packed: false },
      concatenation: config.concatenation ?? 'udh',
      registeredDelivery: config.registeredDelivery ?? 'last',
      validity: config.validity ?? 'absolute',
      ...(config.resellerCodeTlv === undefined ? {} : { resellerCodeTlv: config.resellerCodeTlv }),
      ...(config.transactionTlv === undefined ? {} : { transactionTlv: config.transactionTlv }),
    };
    this.statusTable = readStatusTable(config.statusTable);
    this.pacer = config.ratePerSecond === undefined ? null : new Pacer(config.ratePerSecond, env);
    this.inbound = new Inbound({
      name: config.name,
      encoding: this.text.encoding,
      env: this.env,
      onInbound: (mo) => hooks.onInbound(mo),
    });
    this.ids = new ReceiptIds(config.receiptIdForm ?? 'auto', (form) =>
      this.env.log.info(
        { form },
        'smpp: how receipts write ids was learnt; set receiptIdForm to know it from the start',
      ),
    );
    const resolve = cachedNames(systemNames(env), env);
    const shared = {
      host: config.host,
      port: config.port,
      tls: config.tls ?? false,
      connectTimeoutMs: config.connectTimeoutMs ?? CONNECT_MS,
      systemId: config.systemId,
      password: config.password,
      systemType: config.systemType ?? '',
      window: config.window ?? WINDOW,
      timeoutMs: config.timeoutMs ?? TIMEOUT_MS,
      enquireLinkMs: config.enquireLinkMs ?? ENQUIRE_MS,
      ...(config.firstSequence === undefined ? {} : { firstSequence: config.firstSequence }),
      env: this.env,
      resolve,
      onDeliver: (pdu: Pdu & ShortMessage) => this.deliver(pdu),
      onChange: () => this.wake(),
      onLost: () => this.inbound.unsure(env.clock.now() - UNSURE_MS),
    };
    for (let i = 0; i < Math.min(config.binds ?? 1, BINDS_MAX); i++) {
      if (config.bind === 'pair') {
        this.senders.push(new Session({ ...shared, bind: 'transmitter' }));
        this.receivers.push(new Session({ ...shared, bind: 'receiver' }));
      } else this.senders.push(new Session({ ...shared, bind: 'transceiver' }));
    }
  }

  health(): SmppHealth {
    const sessions = [...this.senders, ...this.receivers];
    return {
      binds: sessions.length,
      bound: sessions.filter((one) => one.bound).length,
      outstanding: this.senders.reduce((sum, one) => sum + one.load, 0),
      trouble: sessions.find((one) => !one.bound && one.trouble !== '')?.trouble ?? '',
    };
  }

  async close(): Promise<void> {
    await Promise.all([...this.senders, ...this.receivers].map((one) => one.close()));
    await this.inbound.flush();
  }

  // ----------------------------------------------------------------------------------------------------------------- out

  async submit(submission: SmsSubmission, signal: AbortSignal): Promise<Outcome> {
    if (signal.aborted) return deferred('aborted before it was sent');
    const encoded = encodeSms(submission, this.text, this.env.clock.now());
    if (!encoded.ok) return { kind: 'refused', error: { id: encoded.error, words: encoded.words } };
    const { messages, segments } = encoded;
    const until = this.env.clock.monotonic() + PATIENCE_MS;
    const first = await this.send(messages[0]!, segments[0]!, until, signal);
    // Nothing of it is there, and the trouble is the link's: another carrier may take it.
    if (first.kind === 'deferred' && first.error.id === NOT_SUBMITTED && !signal.aborted)
      return { ...first, elsewhere: true };
    if (first.kind !== 'taken') return first;
    const rest = await Promise.all(messages.slice(1).map((_, i) => this.sendLater(messages, i + 1, signal)));
    // What is certain decides: one segment refused, and the text will never be whole.
    const failed =
      rest.find((one) => one.kind === 'refused') ??
      rest.find((one) => one.kind === 'unknown') ??
      rest.find((one) => one.kind !== 'taken');
    if (failed) return failed;
    const taken = [first, ...rest.filter((one) => one.kind === 'taken')];
    return this.accepted(submission, taken);
  }

  private accepted(submission: SmsSubmission, taken: Extract<Sent, { kind: 'taken' }>[]): Outcome {
    const last = taken.at(-1)!;
    const plainly = plainId(last.id);
    // As they wrote it, unless receipts may have other zeros before it.
    const id = plainly === last.id.toLowerCase() ? last.id : plainly;
    // Without an id no receipt can be matched, but it was taken; ours is unique.
    if (id === '') return { kind: 'accepted', carrierMessageId: submission.transactionId, words: 'no message_id' };
    this.ids.sent(plainly, submission.recipient);
    if (this.text.registeredDelivery === 'all') {
      for (const one of taken.slice(0, -1)) this.remember(refOf(plainId(one.id)), id);
    }
    const words = [
      id === last.id ? '' : `message_id ${last.id}`,
      taken.length > 1 ? `${taken.length} segments` : '',
      last.words ?? '',
    ].filter((one) => one !== '');
    const shown = words.length > 0 ? { words: words.join(', ').slice(0, 200) } : {};
    return { kind: 'accepted', carrierMessageId: id, ...shown };
  }

  /** A segment behind an accepted one: tried again while the SMSC only asks to wait, since the message has begun. */
  private async sendLater(messages: ShortMessage[], i: number, signal: AbortSignal): Promise<Sent> {
    const of = `segment ${i + 1} of ${messages.length}`;
    for (let tries = 1; ; tries++) {
      // What has begun is not handed back: it waits as long as it may.
      const sent = await this.send(messages[i]!, 1, Number.POSITIVE_INFINITY, signal);
      if (sent.kind === 'taken') return sent;
      const words = `${of}: ${sent.error?.words ?? ''}`.slice(0, 200);
      const error: Failure = { id: sent.error?.id ?? NOT_SUBMITTED, words };
      if (sent.kind === 'refused' || sent.kind === 'unknown') return { ...sent, error };
      if (signal.aborted || tries === SEGMENT_TRIES || !this.senders.some((one) => one.coming)) {
        // Part of it is there, and whether the rest ever comes is not known.
        return error.id === NOT_SUBMITTED ? { kind: 'unknown', error } : { ...sent, error };
      }
      await this.env.clock.sleep(sent.retryAfterMs ?? SEGMENT_AGAIN_MS, signal);
    }
  }

  /** One submit_sm, once; handed back where its first byte cannot leave before `until` (monotonic). */
  private async send(message: ShortMessage, segments: number, until: number, signal: AbortSignal): Promise<Sent> {
    const { clock } = this.env;
    for (;;) {
      // Who waits already comes first.
      const session = (this.waiting.size === 0 ? this.place() : null) ?? (await this.room(until, signal));
      if (!(session instanceof Session)) return session;
      if (this.pacer) {
        const wait = this.pacer.waitMs();
        if (clock.monotonic() + wait > until) {
          session.leave();
          return throttled(wait, 'the rate is used up');
        }
        if (!(await this.pacer.turn(segments, signal))) {
          session.leave();
          return deferred('no turn under the rate in time');
        }
      }
      // The wait for a turn may have cost the bind, or brought a pause.
      if (!session.bound || session.pauseLeft > 0) {
        session.leave();
        continue;
      }
      const settled = await exchange(session, message, signal);
      if (settled.kind !== 'notSent') return this.judge(settled, session);
    }
  }

  /** A place in the window of the freest bind that may send now; taken at once, since others look in the same turn. */
  private place(): Session | null {
    let best: Session | null = null;
    for (const one of this.senders) if (one.free && (best === null || one.load < best.load)) best = one;
    best?.enter();
    return best;
  }

  /** Waits for a place, or tells why there is none. */
  private async room(until: number, signal: AbortSignal): Promise<Session | Exclude<Sent, { kind: 'taken' }>> {
    if (this.waiting.size >= WAITING_MAX) return deferred('too many submissions wait for the window');
    for (let waited = this.waiting.size === 0; ; waited = true) {
      const session = waited ? this.place() : null;
      if (session) return session;
      const left = until - this.env.clock.monotonic();
      const why = this.noRoom(left, signal);
      if (why) {
        // This one was woken for nothing: the next may have use for it.
        this.wake();
        return why;
      }
      await this.change(Number.isFinite(left) ? left : null, signal);
    }
  }

  /** Why it is no use to wait for a bind; null = it is. */
  private noRoom(left: number, signal: AbortSignal): Exclude<Sent, { kind: 'taken' }> | null {
    const bound = this.senders.filter((one) => one.bound);
    if (bound.length === 0) {
      if (signal.aborted) return deferred('not bound in time');
      if (left > 0 && this.senders.some((one) => one.coming)) return null;
      const retryAfterMs = Math.max(1_000, Math.min(...this.senders.map((one) => one.retryLeft)));
      return { ...deferred(this.health().trouble || 'not bound yet'), retryAfterMs };
    }
    if (bound.every((one) => one.pauseLeft > 0)) {
      return throttled(Math.min(...bound.map((one) => one.pauseLeft)), 'the bind pauses');
    }
    if (signal.aborted) return deferred('no room in the window in time');
    return left > 0 ? null : throttled(PATIENCE_MS, 'the window is full');
  }

  /** Resolves when there may be room, after `ms`, or when the signal aborts. */
  private change(ms: number | null, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      let timer: Timer | null = null;
      const end = (): void => {
        timer?.cancel();
        signal.removeEventListener('abort', end);
        this.waiting.delete(end);
        resolve();
      };
      if (ms !== null) timer = this.env.clock.setTimeout(end, ms);
      signal.addEventListener('abort', end, { once: true });
      this.waiting.add(end);
    });
  }

  /** Wakes as many as there is room for; everybody where there will be none. */
  private wake(): void {
    if (this.waiting.size === 0) return;
    const usable = this.senders.filter((one) => one.bound && one.pauseLeft === 0);
    let room = usable.length === 0 ? this.waiting.size : usable.reduce((sum, one) => sum + one.room, 0);
    for (const resolve of this.waiting) {
      if (room-- <= 0) break;
      resolve();
    }
  }

  private judge(settled: Settled | { kind: 'aborted' }, session: Session): Sent {
    switch (settled.kind) {
      case 'aborted':
      case 'silence':
        return { kind: 'unknown', error: { id: NO_RESPONSE, words: 'no answer in time' } };
      case 'lost':
        return { kind: 'unknown', error: { id: NO_RESPONSE, words: `no answer: ${settled.why}`.slice(0, 200) } };
      case 'garbled':
        return { kind: 'unknown', error: { id: UNEXPECTED, words: `the answer cannot be read: ${settled.why}` } };
      case 'answer':
        return this.judgeAnswer(settled.pdu, session);
    }
  }

  private judgeAnswer(pdu: Pdu, session: Session): Sent {
    const more = pdu.kind === 'named' ? tlvText(pdu, TAG.additionalStatus) : undefined;
    if (pdu.status === STATUS.ok) {
      if (pdu.kind !== 'named')
        return { kind: 'unknown', error: { id: UNEXPECTED, words: 'generic_nack with status 0' } };
      session.wentWell();
      return { kind: 'taken', id: pdu.id, ...(more ? { words: more } : {}) };
    }
    if (pdu.status === STATUS.badBindState) session.rebind(statusWords(pdu.status));
    const outcome = outcomeOf(pdu.status, this.statusTable, 0, more);
    return outcome.kind === 'throttled' ? { ...outcome, retryAfterMs: session.throttled() } : outcome;
  }

  // ------------------------------------------------------------------------------------------------------------------ in

  private async deliver(pdu: Pdu & ShortMessage): Promise<number> {
    const receipt = readReceipt(pdu, this.text.encoding);
    if (receipt === null) {
      await this.inbound.take(pdu);
      return STATUS.ok;
    }
    if (receipt.id === '') {
      // Telling it again would not help.
      this.env.log.warn({ words: receipt.words }, 'smpp: a receipt without a message id');
      return STATUS.ok;
    }
    const { id: carrierMessageId, ...rest } = receipt;
    const addresses = [plain(pdu.source), plain(pdu.destination)].filter((one) => one !== '');
    const { id, again } = this.ids.match({ carrier: this.name, carrierMessageId, addresses, ...rest });
    const report = this.ofWhole({ carrier: this.name, carrierMessageId: id, addresses, ...rest });
    if (report) await this.hooks.onReport(report);
    for (const one of again) {
      try {
        await this.hooks.onReport(one);
      } catch (error) {
        this.env.log.warn({ err: error }, 'smpp: an earlier receipt could not be told again');
      }
    }
    return STATUS.ok;
  }

  /**
   * A receipt of an earlier segment: that it arrived says nothing of the whole, that it did not says all. Null = nothing to tell.
   */
  private ofWhole(report: CarrierReport): CarrierReport | null {
    const last = this.siblings.get(refOf(report.carrierMessageId));
    if (last === undefined) return report;
    if (report.kind === 'retrieved' || report.kind === 'forwarded') return null;
    return { ...report, carrierMessageId: last, words: `${report.words} (an earlier segment)` };
  }

  private remember(segment: string, last: string): void {
    this.siblings.set(segment, last);
    if (this.siblings.size > SIBLINGS) this.siblings.delete(this.siblings.keys().next().value as string);
  }
}

/** 541 EC_LIMIT_REACHED */
function throttled(retryAfterMs: number, words: string): Exclude<Sent, { kind: 'taken' }> {
  return { kind: 'throttled', retryAfterMs: Math.ceil(retryAfterMs), error: { id: 541, words } };
}

function deferred(words: string): { kind: 'deferred'; error: Failure } {
  return { kind: 'deferred', error: { id: NOT_SUBMITTED, words: words.slice(0, 200) } };
}

/** Sends on a place that was taken; settles at the answer or when the signal aborts. */
function exchange(
  session: Session,
  message: ShortMessage,
  signal: AbortSignal,
): Promise<Settled | { kind: 'aborted' } | { kind: 'notSent' }> {
  return new Promise((resolve) => {
    const onAbort = (): void => resolve({ kind: 'aborted' });
    const sent = session.submit(message, (settled) => {
      signal.removeEventListener('abort', onAbort);
      resolve(settled);
    });
    if (sent) signal.addEventListener('abort', onAbort, { once: true });
    else resolve({ kind: 'notSent' });
  });
}

/** Even spacing: any interval of a second holds at most the rate, whatever came before. */
class Pacer {
  private readonly intervalMs: number;
  private readonly env: Env;
  private nextAt = 0;

  constructor(perSecond: number, env: Env) {
    this.intervalMs = 1000 / perSecond;
    this.env = env;
  }

  /** How long the next turn is away. */
  waitMs(): number {
    return Math.max(0, this.nextAt - this.env.clock.monotonic());
  }

  /** Waits for the turn of `n` segments; false = the signal aborted first (the turn is spent all the same). */
  async turn(n: number, signal: AbortSignal): Promise<boolean> {
    const { clock } = this.env;
    const at = Math.max(clock.monotonic(), this.nextAt);
    this.nextAt = at + n * this.intervalMs;
    for (;;) {
      if (signal.aborted) return false;
      const left = at - clock.monotonic();
      if (left <= 0) return true;
      await clock.sleep(left, signal);
    }
  }
}
