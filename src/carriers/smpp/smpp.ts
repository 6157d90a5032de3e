/**
 * The SMPP 3.4 carrier: one SMS in one or more submit_sm over one or more binds, receipts and handsets' messages back.
 *
 * Promises: the contract of `carrier.ts`. Connects when it is made and stays bound. At most `window` submissions are unanswered on a
 * bind; each segment leaves in a place of dispatch's rate (`Hand`), whichever bind it takes. A long text's first segment is answered
 * before the others leave, so that a refusal costs one; the message is accepted when all of them are, under the last one's id. What
 * was sent on a bind that ended is unknown, each by itself; an answer that comes after its time is told all the same (`Hand.late`).
 * A submission leaves within `PATIENCE_MS` or is handed back. A receipt or a message from a handset is answered after its hook
 * resolved; a hook that rejects makes the SMSC tell it again.
 *
 * Fails: as outcomes only. A bind that does not come up defers, with the time of the next try as the wish.
 */

import type { SmsSubmission } from '../../domain/submission.ts';
import { type CarrierInbound, type CarrierReport, type Failure, type Outcome, refOf } from '../../domain/submission.ts';
import type { Env, Timer } from '../../env.ts';
import { cachedNames, systemNames } from '../../net/names.ts';
import type { Hand, SmsCarrier, Turn } from '../carrier.ts';
import { probe, type TlsOptions } from './dial.ts';
import { Inbound, plain } from './inbound.ts';
import type { Settled } from './link.ts';
import { type Pdu, type ShortMessage, STATUS, TAG, tlvText } from './pdu.ts';
import { plainId, type ReceiptIdForm, ReceiptIds, readReceipt } from './receipt.ts';
import { Session } from './session.ts';
import { encodeSms, type TextOptions } from './text.ts';
import { outcomeOf, readStatusTable, statusWords, type Verdict } from './verdict.ts';

export type { TlsOptions } from './dial.ts';

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
/** What a submission waits in here for a bind and a place in its window before its first byte leaves. */
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

/** A submit_sm that the SMSC has. */
interface Taken {
  kind: 'taken';
  id: string;
  words?: string;
}
/** One that it has not, or of which that is not known. */
type Failed = Exclude<Outcome, { kind: 'accepted' | 'contentFailed' }>;
/** What became of one submit_sm. */
type Sent = Taken | Failed;

/** What a submit_sm needs on its way beside a place in a window. */
interface Way {
  signal: AbortSignal;
  /** Monotonic: its first byte leaves before, or it is handed back. */
  until: number;
  /** Right before it leaves; false = it must not. */
  leaves(): boolean | Promise<boolean>;
  /** The SMSC took it, and said so after it was given up. */
  late(taken: Taken): void;
}

/** For callers that keep no rate and want no late answers. */
const ALONE: Hand = {
  leaves: () => true,
  open: () => true,
  turn: () => ({ come: async (signal) => !signal.aborted, drop: () => undefined }),
  late: () => undefined,
};

/** Makes a carrier for one SMSC and begins to bind. */
export function createSmppCarrier(config: SmppConfig, hooks: SmppHooks, env: Env): SmppCarrier {
  return new Carrier(config, hooks, env);
}

/** Whether an SMSC can be reached as configured, without a bind: '' = yes, else why not. Never rejects; takes a second or two. */
export function probeSmsc(
  config: Pick<SmppConfig, 'host' | 'port' | 'tls' | 'connectTimeoutMs'>,
  env: Env,
): Promise<string> {
  const { host, port, tls = false, connectTimeoutMs = CONNECT_MS } = config;
  return probe({ host, port, tls, connectTimeoutMs, resolve: cachedNames(systemNames(env), env) }, env);
}

class Carrier implements SmppCarrier {
  readonly name: string;
  private readonly env: Env;
  private readonly hooks: SmppHooks;
  private readonly text: TextOptions;
  private readonly statusTable: ReadonlyMap<number, Verdict>;
  private readonly senders: Session[] = [];
  private readonly receivers: Session[] = [];
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

  /** A text in one PDU counts as all its segments; otherwise each of them takes a place of its own. */
  turns(submission: SmsSubmission): number {
    if (this.text.concatenation !== 'payload') return 1;
    const encoded = encodeSms(submission, this.text, this.env.clock.now());
    return encoded.ok ? encoded.segments[0]! : 1;
  }

  async submit(submission: SmsSubmission, signal: AbortSignal, hand: Hand = ALONE): Promise<Outcome> {
    if (signal.aborted) return unsent('aborted before it was sent');
    const encoded = encodeSms(submission, this.text, this.env.clock.now());
    if (!encoded.ok) return { kind: 'refused', error: { id: encoded.error, words: encoded.words } };
    const { messages } = encoded;
    const taken: (Taken | undefined)[] = messages.map(() => undefined);
    /** The outcome was told, and it was unknown: now each that is missing may come. */
    let told = messages.length === 1;
    const take = (i: number, one: Taken): void => {
      taken[i] = one;
      if (told && allOf(taken)) hand.late(this.accepted(submission, taken));
    };
    const first = await this.send(messages[0]!, {
      signal,
      until: this.env.clock.monotonic() + PATIENCE_MS,
      leaves: hand.leaves,
      late: (one) => take(0, one),
    });
    if (first.kind !== 'taken') {
      // Nothing of it is there, and the trouble is the link's: another carrier may take it.
      const down = first.kind === 'deferred' && first.error.id === NOT_SUBMITTED && !signal.aborted;
      return down ? { ...first, elsewhere: true } : first;
    }
    if (messages.length === 1) return this.accepted(submission, [first]);
    take(0, first);
    const failed = await this.sendRest(messages, take, signal, hand);
    // What is missing may have come while others were waited for.
    if (allOf(taken)) return this.accepted(submission, taken);
    told = failed?.kind === 'unknown';
    return failed ?? { kind: 'deferred', error: { id: NOT_SUBMITTED, words: 'not all of it was sent' } };
  }

  /**
   * What is behind an accepted first segment. Its places in the rate are taken at once, so that texts that begin later do not come
   * between; of the windows it uses no more than half of what is free, so that others find room.
   */
  private async sendRest(
    messages: ShortMessage[],
    take: (i: number, taken: Taken) => void,
    signal: AbortSignal,
    hand: Hand,
  ): Promise<Failed | null> {
    const turns: (Turn | undefined)[] = messages.map((_, i) => (i === 0 ? undefined : hand.turn()));
    let next = 1;
    let failed: Failed | null = null;
    const work = async (): Promise<void> => {
      // One refused, and the text will never be whole; one unknown, and it may be.
      while (next < messages.length && (failed === null || failed.kind === 'unknown')) {
        const i = next++;
        const leaves = (): Promise<boolean> => {
          const turn = turns[i] ?? hand.turn();
          turns[i] = undefined;
          return turn.come(signal);
        };
        const sent = await this.sendLater(messages, i, {
          signal,
          until: Infinity,
          leaves,
          late: (one) => take(i, one),
        });
        if (sent.kind === 'taken') take(i, sent);
        else failed = graver(failed, sent);
      }
    };
    const free = this.senders.reduce((sum, one) => sum + (one.free ? one.room : 0), 0);
    const workers = Math.min(messages.length - 1, Math.max(1, Math.floor(free / 2)));
    await Promise.all(Array.from({ length: workers }, work));
    for (const turn of turns) turn?.drop();
    return failed;
  }

  private accepted(submission: SmsSubmission, taken: Taken[]): Extract<Outcome, { kind: 'accepted' }> {
    const last = taken.at(-1)!;
    const plainly = plainId(last.id);
    // As they wrote it, unless receipts may have other zeros before it.
    const id = plainly === last.id.toLowerCase() ? last.id : plainly;
    // Without an id no receipt can be matched, but it was taken; ours is unique.
    if (id === '') return { kind: 'accepted', carrierMessageId: submission.transactionId, words: 'no message_id' };
    void this.tellAgain(this.ids.sent(plainly, submission.recipient));
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
  private async sendLater(messages: ShortMessage[], i: number, way: Way): Promise<Sent> {
    const of = `segment ${i + 1} of ${messages.length}`;
    for (let tries = 1; ; tries++) {
      const sent = await this.send(messages[i]!, way);
      if (sent.kind === 'taken') return sent;
      const words = `${of}: ${sent.error?.words ?? ''}`.slice(0, 200);
      const error: Failure = { id: sent.error?.id ?? NOT_SUBMITTED, words };
      if (sent.kind === 'refused' || sent.kind === 'unknown') return { ...sent, error };
      if (way.signal.aborted || tries === SEGMENT_TRIES || !this.senders.some((one) => one.coming)) {
        // Part of it is there, and whether the rest ever comes is not known.
        return error.id === NOT_SUBMITTED ? { kind: 'unknown', error } : { ...sent, error };
      }
      await this.env.clock.sleep(sent.retryAfterMs ?? SEGMENT_AGAIN_MS, way.signal);
    }
  }

  /** One submit_sm, once; handed back where its first byte cannot leave in time. */
  private async send(message: ShortMessage, way: Way): Promise<Sent> {
    for (;;) {
      // Who waits already comes first.
      const session = (this.waiting.size === 0 ? this.place() : null) ?? (await this.room(way.until, way.signal));
      if (!(session instanceof Session)) return session;
      if (way.signal.aborted) {
        // There was room at that very moment, or a turn that had come long ago: its outcome is told by now.
        session.leave();
        return unsent('no time left');
      }
      const leaves = way.leaves();
      if (!(typeof leaves === 'boolean' ? leaves : await leaves)) {
        session.leave();
        return unsent('no turn under the rate in time');
      }
      // The wait for a turn may have cost the bind, or brought a pause.
      if (!session.bound || session.pauseLeft > 0) {
        session.leave();
        continue;
      }
      const settled = await exchange(session, message, way);
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
  private async room(until: number, signal: AbortSignal): Promise<Session | Failed> {
    if (this.waiting.size >= WAITING_MAX) return unsent('too many submissions wait for the window');
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
  private noRoom(left: number, signal: AbortSignal): Failed | null {
    const bound = this.senders.filter((one) => one.bound);
    if (bound.length === 0) {
      if (signal.aborted) return unsent('not bound in time');
      if (left > 0 && this.senders.some((one) => one.coming)) return null;
      const retryAfterMs = Math.max(1_000, Math.min(...this.senders.map((one) => one.retryLeft)));
      return { ...unsent(this.health().trouble || 'not bound yet'), retryAfterMs };
    }
    if (bound.every((one) => one.pauseLeft > 0)) {
      return throttled(Math.min(...bound.map((one) => one.pauseLeft)), 'the bind pauses');
    }
    if (signal.aborted) return unsent('no room in the window in time');
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
    if (pdu.status === STATUS.ok) {
      const taken = takenBy(pdu);
      if (!taken) return { kind: 'unknown', error: { id: UNEXPECTED, words: 'generic_nack with status 0' } };
      session.wentWell();
      return taken;
    }
    const more = pdu.kind === 'named' ? tlvText(pdu, TAG.additionalStatus) : undefined;
    if (pdu.status === STATUS.badBindState) session.rebind(statusWords(pdu.status));
    const outcome = outcomeOf(pdu.status, this.statusTable, 0, more);
    if (outcome.kind !== 'throttled') return outcome;
    const retryAfterMs = session.throttled();
    const others = this.senders.some((one) => one.bound && one.pauseLeft === 0);
    return { ...outcome, retryAfterMs, ...(others ? { others } : {}) };
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
    await this.tellAgain(again);
    return STATUS.ok;
  }

  /** Receipts that were answered, under ids that are known to be right by now. Never rejects. */
  private async tellAgain(reports: CarrierReport[]): Promise<void> {
    for (const one of reports) {
      try {
        await this.hooks.onReport(one);
      } catch (error) {
        this.env.log.warn({ err: error }, 'smpp: an earlier receipt could not be told again');
      }
    }
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
function throttled(retryAfterMs: number, words: string): Failed {
  return { kind: 'throttled', retryAfterMs: Math.ceil(retryAfterMs), error: { id: 541, words } };
}

/** Nothing of it left. */
function unsent(words: string): Extract<Failed, { kind: 'deferred' }> {
  return { kind: 'deferred', error: { id: NOT_SUBMITTED, words: words.slice(0, 200) }, unsent: true };
}

/** What is certain decides: refused, then what may have arrived, then what has not. */
function graver(one: Failed | null, other: Failed): Failed {
  if (one === null || other.kind === 'refused') return other;
  return one.kind === 'refused' || one.kind === 'unknown' ? one : other.kind === 'unknown' ? other : one;
}

/** Whether every segment was taken. */
function allOf(taken: (Taken | undefined)[]): taken is Taken[] {
  return taken.every((one) => one !== undefined);
}

/** What an answer says where it says that the message was taken. */
function takenBy(pdu: Pdu): Taken | null {
  if (pdu.status !== STATUS.ok || pdu.kind !== 'named') return null;
  const more = tlvText(pdu, TAG.additionalStatus);
  return { kind: 'taken', id: pdu.id, ...(more ? { words: more } : {}) };
}

/** Sends on a place that was taken; settles at the answer or when the signal aborts. */
function exchange(
  session: Session,
  message: ShortMessage,
  { signal, late }: Way,
): Promise<Settled | { kind: 'aborted' } | { kind: 'notSent' }> {
  return new Promise((resolve) => {
    let given = false;
    const onAbort = (): void => {
      given = true;
      resolve({ kind: 'aborted' });
    };
    const onLate = (pdu: Pdu): void => {
      const taken = takenBy(pdu);
      if (taken) late(taken);
    };
    const onSettled = (settled: Settled): void => {
      signal.removeEventListener('abort', onAbort);
      if (!given) resolve(settled);
      else if (settled.kind === 'answer') onLate(settled.pdu);
    };
    if (session.submit(message, onSettled, onLate)) signal.addEventListener('abort', onAbort, { once: true });
    else resolve({ kind: 'notSent' });
  });
}
