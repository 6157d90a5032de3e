/**
 * Everybody that we talk to and do not control: the carriers' MMSCs with their handsets, the customers' endpoints and the
 * servers that hold their media. They survive our processes; what they do wrong is drawn from the seed.
 *
 * Promises: an MMSC that says `deferred`, `throttled` or `refused` has not taken the submission (the carrier contract); one that
 * de-duplicates never delivers a transaction id twice. A report is repeated until we answer it, for hours.
 */
import type { Carrier, SmsCarrier } from '../../src/carriers/carrier.ts';
import type { CarrierReport, Outcome, ReportKind, Submission } from '../../src/domain/submission.ts';
import type { Fetched, FetchOptions, Outbound, Posted, PostOptions } from '../../src/net/outbound.ts';
import { Dice, HOUR, MINUTE, type Scheduler, SECOND } from './clockwork.ts';
import { type CarrierPlan, type Fault, momentOf, type Plan } from './plan.ts';

/** Who calls: a process. */
export interface Caller {
  owner: { dead: boolean; pausedUntil: number; quietUntil(): number };
  name: string;
  /** Calls to peers without an answer. */
  calls: number;
}

/** What the oracles are told of a submission. */
export interface Handover {
  caller: Caller;
  carrier: CarrierPlan;
  transactionId: string;
  recipients: string[];
  /** Of the SMS leg. */
  sms: boolean;
  /** What they will read. */
  texts: string[];
  validUntil: number;
  startedAt: number;
  /** When it was no longer in flight; null = it still is. */
  endedAt: number | null;
  /** What the caller was told, null = nothing yet or never. */
  outcome: Outcome['kind'] | null;
  /** The MMSC has taken it (for the first time or again). */
  taken: boolean;
  /** The MMSC has refused it or some recipients of it. */
  refused: boolean;
}

export interface PeerWatch {
  /** It will be long in coming back, untaken. */
  lingers(handover: Handover): void;
  submitted(handover: Handover): void;
  ended(handover: Handover): void;
  /** A handset got a copy. */
  copied(handover: Handover, recipient: string): void;
  /** Taken under this id; what will be reported under it concerns these recipients. */
  took(handover: Handover, id: string): void;
  /** A POST leaves. */
  posted(caller: Caller): void;
  /** A customer's endpoint took a POST. */
  told(host: string, contentType: string, body: string): void;
  /** Likewise of a click. */
  clickTold(host: string, body: string): void;
  down(from: number, until: number): void;
}

interface Taken {
  id: string;
  refused: { recipient: string; error: { id: number; words: string } }[];
}

export class Mmsc {
  readonly plan: CarrierPlan;
  readonly #scheduler: Scheduler;
  readonly #run: Plan;
  readonly #dice: Dice;
  readonly #watch: PeerWatch;
  readonly #deliver: (report: CarrierReport) => Promise<boolean>;
  readonly #taken = new Map<string, Taken>();
  /** Reports that we have not answered yet. */
  pending = 0;
  #next = 0;
  #downUntil = 0;
  #downWay: 'refused' | 'silent' = 'refused';
  #healed = false;

  constructor(
    plan: CarrierPlan,
    scheduler: Scheduler,
    run: Plan,
    watch: PeerWatch,
    deliver: (report: CarrierReport) => Promise<boolean>,
  ) {
    this.plan = plan;
    this.#scheduler = scheduler;
    this.#run = run;
    this.#dice = new Dice(run.seed, 'mmsc', plan.name);
    this.#watch = watch;
    this.#deliver = deliver;
    const strength = run.faults.carrierDown;
    if (strength === 0) return;
    for (let n = this.#dice.int(1, 2); n > 0; n--) {
      const from = momentOf(run, this.#dice);
      const ms = this.#dice.between(1, 120) * MINUTE * strength;
      const way = this.#dice.pick(['refused', 'silent'] as const);
      scheduler.at(from, () => {
        if (this.#healed) return;
        scheduler.trace(`${plan.name} down (${way}) for ${Math.round(ms)} ms`);
        this.#downWay = way;
        this.#downUntil = Math.max(this.#downUntil, scheduler.now + ms);
        watch.down(scheduler.now, this.#downUntil);
      });
    }
  }

  heal(): void {
    this.#healed = true;
    this.#downUntil = 0;
  }

  #has(fault: Fault, most: number): boolean {
    const strength = this.#healed ? 0 : this.#run.faults[fault];
    return strength > 0 && this.#dice.chance(most * strength);
  }

  /** The carrier contract as one process has it. */
  client(caller: Caller): Carrier {
    return { name: this.plan.name, submit: (submission, signal) => this.#submit(caller, submission, signal) };
  }

  /** Likewise of the SMSC. */
  smsClient(caller: Caller): SmsCarrier {
    return {
      name: this.plan.name,
      submit: ({ recipient, text, ...sms }, signal) => {
        const parts = [{ contentId: 'text', contentType: 'text/plain', bytes: Buffer.from(text) }];
        return this.#submit(caller, { ...sms, recipients: [recipient], parts }, signal, true);
      },
    };
  }

  #submit(caller: Caller, submission: Submission, signal: AbortSignal, sms = false): Promise<Outcome> {
    const { timeoutMs } = this.plan;
    const scheduler = this.#scheduler;
    const handover: Handover = {
      caller,
      carrier: this.plan,
      transactionId: submission.transactionId,
      recipients: [...submission.recipients],
      sms,
      texts: submission.parts.flatMap(({ contentType, bytes }) =>
        contentType.startsWith('text/plain') ? [Buffer.from(bytes).toString()] : [],
      ),
      validUntil: submission.validUntil,
      startedAt: scheduler.now,
      endedAt: null,
      outcome: null,
      taken: false,
      refused: false,
    };
    caller.calls++;
    this.#watch.submitted(handover);
    return new Promise((resolve) => {
      let arrived = false;
      let open = true;
      const over = (): void => {
        if (handover.endedAt !== null) return;
        handover.endedAt = scheduler.now;
        this.#watch.ended(handover);
      };
      const end = (): void => {
        open = false;
        over();
      };
      // A process that stands still cannot heed its time-out: the promise of one submission in flight relies on it.
      scheduler.after(timeoutMs + 2 * SECOND, over);
      /** In flight until the answer is there, whether or not the process is awake (or alive) to see it. */
      const answer = (ms: number, outcome: () => Outcome, heeds = true): void => {
        scheduler.after(ms, () => {
          if (!open && heeds) return;
          end();
          const value = outcome();
          scheduler.after(0, () => give(value), caller.owner);
        });
      };
      let counted = true;
      const uncount = (): void => {
        if (counted) caller.calls--;
        counted = false;
      };
      const give = (outcome: Outcome): void => {
        if (handover.outcome !== null) return;
        handover.outcome = outcome.kind;
        uncount();
        resolve(outcome);
      };
      const onAbort = (heed: boolean): void => {
        signal.addEventListener(
          'abort',
          () => {
            end();
            if (!heed) {
              // Given up by its caller: it waits for nobody any more.
              scheduler.after(2 * SECOND, uncount, caller.owner);
              return;
            }
            give(
              arrived
                ? { kind: 'unknown', error: { id: 15000, words: 'no answer' } }
                : { kind: 'deferred', error: { id: 15000, words: 'no connection' }, unsent: true },
            );
          },
          { once: true },
        );
      };
      const lat = (): number => this.#dice.delay(this.plan.latencyMs, 0.45 * timeoutMs);

      if (scheduler.now < this.#downUntil) {
        onAbort(true);
        const refused = this.#downWay === 'refused';
        // Another carrier may be up.
        const error = { id: 15000, words: 'no connection' };
        const down = { kind: 'deferred', error, elsewhere: true, unsent: true } as const;
        answer(refused ? lat() : 4000, () => down);
        return;
      }
      if (this.#has('carrierDefers', 0.3)) {
        onAbort(true);
        const wish = this.#dice.chance(0.3) ? { retryAfterMs: this.#dice.int(0, 300) * SECOND } : {};
        // Some think it over, so that what happens to a message meanwhile finds it in flight.
        const thought = this.#dice.chance(0.3) ? this.#dice.between(0, 0.9 * timeoutMs) : lat();
        if (thought > 1.5 * SECOND) this.#watch.lingers(handover);
        answer(thought, () => ({ kind: 'deferred', error: { id: 15000, words: 'busy' }, ...wish }));
        return;
      }
      if (this.#has('carrierThrottles', 0.1)) {
        onAbort(true);
        const retryAfterMs = this.#dice.chance(0.9) ? this.#dice.int(0, 60) * SECOND : 2 * HOUR;
        // A wish is honoured up to an hour: that long the lane rightly does nothing.
        this.#watch.down(scheduler.now, scheduler.now + Math.min(retryAfterMs, HOUR) + timeoutMs);
        answer(lat(), () => ({ kind: 'throttled', retryAfterMs }));
        return;
      }
      if (this.#has('carrierRefuses', 0.1)) {
        onAbort(true);
        handover.refused = true;
        answer(lat(), () => ({ kind: 'refused', error: { id: 15009, words: 'no such number' } }));
        return;
      }
      if (this.#has('unknownNotTaken', 0.3)) {
        onAbort(true);
        arrived = true;
        answer(lat(), () => ({ kind: 'unknown', error: { id: 15000, words: 'connection lost' } }));
        return;
      }
      if (this.#has('unknownTaken', 0.4)) {
        onAbort(true);
        arrived = true;
        scheduler.after(lat(), () => this.#take(handover));
        answer(lat(), () => ({ kind: 'unknown', error: { id: 15000, words: 'connection lost' } }));
        return;
      }
      if (this.#has('carrierHangs', 0.08)) {
        onAbort(true);
        arrived = true;
        if (this.#dice.chance(0.5)) scheduler.after(lat(), () => this.#take(handover));
        return;
      }
      if (this.#has('carrierDeaf', 0.08)) {
        onAbort(false);
        arrived = true;
        let taken: Taken | null = null;
        if (this.#dice.chance(0.6)) {
          scheduler.after(lat(), () => {
            taken = this.#take(handover);
          });
          const late = timeoutMs + this.#dice.between(0, this.#dice.pick([8 * SECOND, 5 * MINUTE]));
          if (this.#dice.chance(0.7)) answer(late, () => accepted(taken as Taken), false);
        }
        return;
      }
      onAbort(true);
      const there = lat();
      const back = this.#has('carrierSlow', 0.4) ? this.#dice.between(0, 1.2 * timeoutMs) : lat();
      let taken: Taken | null = null;
      scheduler.after(there, () => {
        if (!open) return;
        arrived = true;
        taken = this.#take(handover);
      });
      answer(there + back, () => accepted(taken as Taken));
    });
  }

  #take(handover: Handover): Taken {
    handover.taken = true;
    const { transactionId, recipients } = handover;
    const known = this.plan.dedups ? this.#taken.get(transactionId) : undefined;
    if (known) {
      this.#scheduler.trace(`${this.plan.name} drops ${transactionId} again`);
      this.#watch.took(handover, known.id);
      return known;
    }
    const some = recipients.length > 1 && this.#has('carrierRefusesSome', 0.5);
    const refused = some ? recipients.filter(() => this.#dice.chance(0.4)) : [];
    const taken: Taken = {
      id: `${this.plan.name}-${++this.#next}`,
      refused: refused.map((recipient) => ({ recipient, error: { id: 15009, words: 'no such number' } })),
    };
    if (refused.length > 0) handover.refused = true;
    this.#taken.set(transactionId, taken);
    this.#watch.took(handover, taken.id);
    for (const recipient of recipients) {
      if (refused.includes(recipient)) continue;
      this.#watch.copied(handover, recipient);
      if (this.plan.reports || this.#dice.chance(0.2)) this.#plotReports(taken.id, recipient, recipients.length > 1);
    }
    return taken;
  }

  /** What the handset does becomes reports, now or later or never. */
  #plotReports(id: string, recipient: string, group: boolean): void {
    if (this.#has('reportNever', 0.3)) return;
    const kinds: ReportKind[] = [];
    if (this.#dice.chance(0.2)) kinds.push('forwarded');
    if (this.#dice.chance(0.25)) kinds.push('deferred');
    kinds.push(
      this.#dice.chance(0.75)
        ? 'retrieved'
        : this.#dice.pick([
            'rejected',
            'expired',
            'indeterminate',
            'unrecognised',
            'unreachable',
            'unsupported',
          ] as const),
    );
    let at = this.#has('reportEarly', 0.5) ? 0 : this.#dice.delay(20 * SECOND, 10 * MINUTE);
    if (this.#has('reportLate', 0.3)) at += this.#dice.between(0, 60) * HOUR;
    for (const kind of kinds) {
      const copies = this.#has('reportTwice', 0.4) ? this.#dice.int(2, 3) : 1;
      for (let n = 0; n < copies; n++) {
        const late = n === 0 ? 0 : this.#dice.delay(MINUTE, 6 * HOUR);
        const says = n === 0 || this.#dice.chance(0.7) ? kind : this.#dice.pick(['retrieved', 'rejected'] as const);
        this.#tell(id, recipient, group, says, at + late);
      }
      at += this.#dice.delay(MINUTE, HOUR);
    }
  }

  #tell(id: string, recipient: string, group: boolean, kind: ReportKind, ms: number): void {
    const carrierMessageId = this.#has('reportMangled', 0.5)
      ? this.#dice.pick([`<${id}>`, id.toUpperCase(), `${id}@mms.example`, ` ${id} `])
      : id;
    const addresses = group || this.#dice.chance(0.8) ? this.#dice.pick([[recipient], ['shop', recipient]]) : [];
    const report: CarrierReport = { carrier: this.plan.name, carrierMessageId, addresses, kind, words: kind };
    let tries = 0;
    this.pending++;
    const attempt = (): void => {
      // A peer that is given no 200 repeats.
      void this.#deliver(report).then((done) => {
        if (done || ++tries >= 200) this.pending--;
        else this.#scheduler.after(this.#dice.between(20, 300) * SECOND, attempt);
      });
    };
    this.#scheduler.after(ms, attempt);
  }
}

function accepted(taken: Taken): Outcome {
  return {
    kind: 'accepted',
    carrierMessageId: taken.id,
    ...(taken.refused.length > 0 ? { refused: taken.refused } : {}),
  };
}

// ------------------------------------------------------------------------------------------------- customers' servers

/** Customers' endpoints and media, by the host of their URL. */
export class Web {
  readonly #scheduler: Scheduler;
  readonly #run: Plan;
  readonly #dice: Dice;
  readonly #watch: PeerWatch;
  readonly #down = new Map<string, { from: number; until: number }>();
  #healed = false;

  constructor(scheduler: Scheduler, run: Plan, watch: PeerWatch) {
    this.#scheduler = scheduler;
    this.#run = run;
    this.#dice = new Dice(run.seed, 'web');
    this.#watch = watch;
  }

  heal(): void {
    this.#healed = true;
  }

  #has(fault: Fault, most: number): boolean {
    const strength = this.#healed ? 0 : this.#run.faults[fault];
    return strength > 0 && this.#dice.chance(most * strength);
  }

  #isDown(host: string): boolean {
    const strength = this.#run.faults.endpointDown;
    if (strength === 0 || this.#healed) return false;
    let window = this.#down.get(host);
    if (!window) {
      const dice = new Dice(this.#run.seed, 'down', host);
      const from = dice.between(-0.5, 1) * this.#run.faultyMs;
      window = dice.chance(0.7)
        ? { from, until: from + dice.between(0.05, 8) * HOUR * strength }
        : { from: 0, until: 0 };
      this.#down.set(host, window);
    }
    return window.from <= this.#scheduler.now && this.#scheduler.now < window.until;
  }

  client(caller: Caller): Pick<Outbound, 'post' | 'fetch'> {
    return {
      post: (url, options) => this.#post(caller, url, options),
      fetch: (url, options) => this.#fetch(caller, url, options),
    };
  }

  #post(caller: Caller, url: string, options: PostOptions): ReturnType<Outbound['post']> {
    this.#watch.posted(caller);
    const { host, pathname } = new URL(url);
    const contentType = options.headers['content-type'] ?? '';
    const told = (): void => {
      if (pathname === '/clicks') this.#watch.clickTold(host, options.body);
      else this.#watch.told(host, contentType, options.body);
    };
    return this.#call(caller, options.timeoutMs, (answer) => {
      if (this.#isDown(host)) {
        answer(5, { ok: false, kind: 'connect', words: 'refused' });
      } else if (this.#has('endpointFails', 0.4)) {
        const status = this.#dice.pick([500, 503, 404, 302, 410, 429]);
        answer(this.#dice.delay(30, 2000), () => ({ ok: true, status, headers: {}, excerpt: '' }) satisfies Posted);
      } else if (this.#has('endpointHangs', 0.15)) {
        if (this.#dice.chance(0.5)) this.#scheduler.after(this.#dice.delay(30, 2000), told);
      } else if (this.#has('endpointDeaf', 0.2)) {
        this.#scheduler.after(this.#dice.delay(10, 500), told);
        answer(this.#dice.between(500, 2000), { ok: false, kind: 'closed', words: 'closed' });
      } else {
        answer(this.#dice.delay(40, 5000), () => {
          told();
          return { ok: true, status: 200, headers: {}, excerpt: 'thanks' };
        });
      }
    });
  }

  #fetch(caller: Caller, url: string, options: FetchOptions): ReturnType<Outbound['fetch']> {
    const page = (status: number, type: string, text: string): Fetched => ({
      ok: true,
      status,
      headers: { 'content-type': type },
      body: Buffer.from(text),
      url,
    });
    return this.#call(caller, options.timeoutMs, (answer) => {
      const ms = this.#dice.delay(100, 5000);
      // What is wrong for good stays wrong: media that fail do so by their name.
      if (url.includes('/gone/')) answer(ms, page(404, 'text/html', ''));
      else if (this.#has('mediaFails', 0.5)) {
        if (this.#dice.chance(0.3)) return;
        if (this.#dice.chance(0.5)) answer(ms, page(503, 'text/html', ''));
        else answer(ms, { ok: false, kind: 'connect', words: 'refused' });
      } else answer(ms, page(200, 'text/plain', `words behind ${url}`));
    });
  }

  /** `how` says what the peer does; without an answer in time it is a time-out. */
  #call<Result>(
    caller: Caller,
    timeoutMs: number,
    how: (answer: (ms: number, result: Result | Failed | (() => Result)) => void) => void,
  ): Promise<Result | Failed> {
    caller.calls++;
    return new Promise((resolve) => {
      let open = true;
      const give = (result: Result | Failed): void => {
        if (!open) return;
        open = false;
        caller.calls--;
        timer.cancel();
        resolve(result);
      };
      const late: Failed = { ok: false, kind: 'timeout', words: 'timeout' };
      const timer = this.#scheduler.after(timeoutMs, () => give(late), caller.owner);
      how((ms, result) => {
        this.#scheduler.after(ms, () => {
          const value = typeof result === 'function' ? (result as () => Result)() : result;
          this.#scheduler.after(0, () => give(value), caller.owner);
        });
      });
    });
  }
}

type Failed = { ok: false; kind: 'connect' | 'timeout' | 'closed'; words: string };
