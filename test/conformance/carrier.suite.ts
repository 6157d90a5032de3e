/**
 * What every carrier owes (src/carriers/carrier.ts), whatever its protocol: run against a fake peer that can be told to fail in
 * each of the ways that peers and networks do. A harness says which of the faults its protocol can have, and how it differs; what a
 * peer tells by itself (reports, messages from handsets) is a suite of its own, over the same harness.
 */
import { afterEach, describe, expect, it } from 'vitest';
import type { Carrier, Hand } from '../../src/carriers/carrier.ts';
import { ERRORS } from '../../src/domain/codes.ts';
import { type CarrierInbound, type CarrierReport, type Outcome, refOf } from '../../src/domain/submission.ts';
import type { TestEnv } from '../../src/env.ts';

/** What the peer does with the next submissions, until it is told otherwise. */
export type Fault =
  | 'none'
  /** Nobody listens. */
  | 'refused'
  /** The handshake of TLS fails. */
  | 'badTls'
  /** Takes the connection and says nothing, ever. */
  | 'mute'
  /** Reads the request and never answers. */
  | 'noAnswer'
  /** Begins an answer and stops. */
  | 'halfAnswer'
  /** An answer of a byte now and then, without end. */
  | 'drip'
  /** Breaks the connection before it has read anything. */
  | 'cutEarly'
  /** Reads the request, then breaks the connection. */
  | 'cutLate'
  /** Asks to slow down, without and with its own idea for how long (7 s), by a date, and absurdly long. */
  | 'throttle'
  | 'throttle7s'
  | 'throttleDate'
  | 'throttleAbsurd'
  /** Its queue is full. */
  | 'queueFull'
  /** Has trouble of its own and has not taken it. */
  | 'serverError'
  /** Refuses it for good. */
  | 'refuses'
  /** Refuses it with a code that is in no table. */
  | 'unknownCode'
  /** Answers with what is no answer. */
  | 'garbage'
  /** The answer to another request. */
  | 'otherRequest'
  /** 10 MB of answer. */
  | 'huge'
  /** Takes all recipients but the last. */
  | 'partial';

/** Those that every protocol over a connection can have. */
export const FAULTS: readonly Fault[] = [
  'refused',
  'badTls',
  'mute',
  'noAnswer',
  'halfAnswer',
  'drip',
  'cutEarly',
  'cutLate',
  'throttle',
  'serverError',
  'refuses',
  'unknownCode',
  'garbage',
  'otherRequest',
  'huge',
];

/** What a carrier's hooks were called with. */
export interface Told {
  reports: CarrierReport[];
  inbound: CarrierInbound[];
  offered: string[];
}

/** Hooks that write down what they are told, and a switch that makes them fail. */
export function hooksOf(): {
  told: Told;
  away(away: boolean): void;
  hooks: { onReport(report: CarrierReport): Promise<void>; onInbound(mo: CarrierInbound): Promise<{ id: string }> };
} {
  const told: Told = { reports: [], inbound: [], offered: [] };
  let gone = false;
  const stored = <T>(list: T[], one: T): void => {
    if (gone) throw new Error('the store is away');
    list.push(one);
  };
  return {
    told,
    away: (away) => {
      gone = away;
    },
    hooks: {
      onReport: async (report) => stored(told.reports, report),
      async onInbound(mo) {
        told.offered.push(mo.id);
        stored(told.inbound, mo);
        return { id: mo.id };
      },
    },
  };
}

/** A fake peer and a carrier that is to meet it. */
export interface CarrierWorld<S> {
  env: TestEnv;
  carrier: Carrier<S>;
  peer: {
    fault(fault: Fault): Promise<void>;
    /** Whole requests that it has read. */
    read(): number;
    /** The id that it gave to the last submission that it took. */
    lastId(): string;
    /** Breaks all connections. */
    cut(): void;
    /** Takes what it has read and not answered. */
    answerLate?(): void;
    /** Tells a delivery of `id`, which it may write in another way than in its answer. True = it need not say it again. */
    report(id: string, otherwise?: boolean): Promise<boolean>;
    /** Tells a message of a handset's; the same `n` is the same message. True = it need not say it again. */
    send(n: number): Promise<boolean>;
  };
  /** What the carrier's peer told and was stored, in order. `offered`: ids of messages, also of those that could not be stored. */
  told: Told;
  /** Whether what the peer tells cannot be stored now. */
  away(away: boolean): void;
  close(): Promise<void>;
}

export interface CarrierHarness<S> {
  name: string;
  /** Faults that the protocol can have. */
  faults: readonly Fault[];
  /** Those after which only time tells that no answer will come, beside the ones that are so everywhere. */
  endless?: readonly Fault[];
  /** Whether it asks dispatch right before the first byte (`turns`). */
  asks?: true;
  /** Whether an answer can come after the submission was given up (over HTTP it ends with its request). */
  late?: true;
  /** `timeoutMs`: what the carrier is configured with. */
  open(options: { timeoutMs: number; concurrency: number }): Promise<CarrierWorld<S>>;
  /** The nth submission; `recipients`: how many, where the protocol has several. */
  submission(n: number, recipients?: number): S;
}

type Kind = Outcome['kind'];

/** What may come of each fault. Unknown wherever the peer may have taken it. */
const MAY: Record<Exclude<Fault, 'none' | 'partial'>, readonly Kind[]> = {
  refused: ['deferred'],
  badTls: ['deferred'],
  mute: ['deferred', 'unknown'],
  noAnswer: ['unknown'],
  halfAnswer: ['unknown'],
  drip: ['unknown'],
  cutEarly: ['deferred', 'unknown'],
  cutLate: ['unknown'],
  throttle: ['throttled'],
  throttle7s: ['throttled'],
  throttleDate: ['throttled'],
  throttleAbsurd: ['throttled'],
  queueFull: ['throttled'],
  serverError: ['deferred'],
  refuses: ['refused'],
  unknownCode: ['deferred', 'refused'],
  garbage: ['unknown'],
  otherRequest: ['unknown'],
  huge: ['unknown'],
};
/** Those that only end when the caller has waited long enough. */
const ENDLESS: ReadonlySet<Fault> = new Set(['mute', 'noAnswer', 'halfAnswer', 'drip']);
const HOUR_MS = 3_600_000;
/** For nobody in particular. */
const ALONE: Hand = {
  leaves: () => true,
  open: () => true,
  turn: () => ({ come: async () => true, drop: () => undefined }),
  late: () => undefined,
};

/** Declares the suite for one carrier. */
export function carrierSuite<S>(harness: CarrierHarness<S>): void {
  let world: CarrierWorld<S> | null = null;
  afterEach(async () => {
    await world?.close();
    world = null;
  });
  const open = async (options: Partial<{ timeoutMs: number; concurrency: number }> = {}): Promise<CarrierWorld<S>> => {
    world = await harness.open({ timeoutMs: 30_000, concurrency: 4, ...options });
    return world;
  };
  const never = new AbortController().signal;
  const endless = new Set([...ENDLESS, ...(harness.endless ?? [])]);

  /** Lets time pass, with the sockets' work in it. */
  async function pass(w: CarrierWorld<S>, ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 500) {
      await breathe(10);
      await w.env.clock.advance(Math.min(left, 500));
    }
    await breathe(10);
  }

  /** Waits for something that time and sockets bring. */
  async function came<T>(w: CarrierWorld<S>, promise: Promise<T>): Promise<T> {
    let done = false;
    void promise.finally(() => {
      done = true;
    });
    for (let n = 0; n < 50 && !done; n++) await breathe(10);
    for (let n = 0; n < 600 && !done; n++) await pass(w, 500);
    return promise;
  }

  /** A submission that is taken, within a minute or two after whatever went wrong before. */
  async function taken(w: CarrierWorld<S>, n: number): Promise<string> {
    for (let tries = 0; ; tries++) {
      const outcome = sane(await came(w, w.carrier.submit(harness.submission(n + tries), never)));
      if (outcome.kind === 'accepted') return outcome.carrierMessageId;
      if (tries === 10) throw new Error(`still ${JSON.stringify(outcome)}`);
      await pass(w, 10_000);
    }
  }

  /** Whatever came of it, this holds. */
  function sane(outcome: Outcome): Outcome {
    if ('error' in outcome && outcome.error) {
      expect(Object.hasOwn(ERRORS, outcome.error.id), `error ${outcome.error.id}`).toBe(true);
      expect((outcome.error.words ?? '').length).toBeLessThanOrEqual(200);
    }
    if (outcome.kind === 'throttled' || (outcome.kind === 'deferred' && outcome.retryAfterMs !== undefined)) {
      expect(outcome.retryAfterMs).toBeGreaterThan(0);
      expect(outcome.retryAfterMs).toBeLessThanOrEqual(HOUR_MS);
    }
    return outcome;
  }

  /** Aborts as dispatch would, once the peer has had its chance. */
  async function submitUntil(w: CarrierWorld<S>, fault: Fault, n = 1): Promise<Outcome> {
    const control = new AbortController();
    const running = w.carrier.submit(harness.submission(n), control.signal);
    if (endless.has(fault)) {
      const before = w.peer.read();
      for (let tries = 0; tries < 200 && w.peer.read() === before && fault !== 'mute'; tries++) await breathe();
      await breathe(20);
      control.abort();
    }
    return sane(await came(w, running));
  }

  describe(`${harness.name} as a carrier`, () => {
    it('hands on a submission once and gives back the peer’s own id', async () => {
      const w = await open();
      const outcome = sane(await w.carrier.submit(harness.submission(1), never));
      expect(outcome).toMatchObject({ kind: 'accepted', carrierMessageId: w.peer.lastId() });
      expect(w.peer.read()).toBe(1);
    });

    it.each(harness.faults.filter((fault): fault is keyof typeof MAY => fault !== 'none' && fault !== 'partial'))(
      'under %s tells the truth, and works again when the peer does',
      async (fault) => {
        const w = await open();
        await w.peer.fault(fault);
        const outcome = await submitUntil(w, fault);
        expect(MAY[fault]).toContain(outcome.kind);
        // Never told as not taken when the peer has read it and said nothing.
        if (fault === 'mute' || fault === 'cutEarly') {
          if (outcome.kind === 'deferred') expect(w.peer.read()).toBe(0);
        }
        await w.peer.fault('none');
        await taken(w, 2);
      },
    );

    it.runIf(harness.faults.includes('throttle7s'))(
      'hears how long the peer wants to be left alone, up to an hour',
      async () => {
        const w = await open();
        const wish = async (fault: Fault): Promise<number> => {
          await w.peer.fault(fault);
          const outcome = sane(await w.carrier.submit(harness.submission(1), never));
          return outcome.kind === 'throttled' ? outcome.retryAfterMs : -1;
        };
        expect(await wish('throttle7s')).toBe(7_000);
        if (harness.faults.includes('throttleDate')) expect(await wish('throttleDate')).toBe(60_000);
        if (harness.faults.includes('throttleAbsurd')) expect(await wish('throttleAbsurd')).toBe(HOUR_MS);
      },
    );

    it.runIf(harness.faults.includes('partial'))('settles each recipient of a partial success by itself', async () => {
      const w = await open();
      await w.peer.fault('partial');
      const outcome = sane(await w.carrier.submit(harness.submission(1, 3), never));
      expect(outcome).toMatchObject({ kind: 'accepted', refused: [{ recipient: expect.any(String) }] });
    });

    it('whose time is over before it began sends nothing', async () => {
      const w = await open();
      const outcome = sane(await w.carrier.submit(harness.submission(1), AbortSignal.abort()));
      expect(outcome.kind).toBe('deferred');
      expect(w.peer.read()).toBe(0);
    });

    it.runIf(harness.asks)('asks once, before the peer has read anything; told no it sends nothing', async () => {
      const w = await open();
      expect(w.carrier.turns?.(harness.submission(1))).toBe(1);
      for (const answer of [true, false]) {
        const before = w.peer.read();
        const asked: number[] = [];
        const leaves = (): boolean => {
          asked.push(w.peer.read());
          return answer;
        };
        await came(w, w.carrier.submit(harness.submission(1), never, { ...ALONE, leaves }));
        await breathe(20);
        expect(asked).toEqual([before]);
        expect(w.peer.read()).toBe(before + (answer ? 1 : 0));
      }
      // Where nobody can be reached it is never asked, and nothing was counted.
      await w.peer.fault('refused');
      await pass(w, 1_000);
      let asked = 0;
      const leaves = (): boolean => {
        asked++;
        return true;
      };
      const outcome = sane(await came(w, w.carrier.submit(harness.submission(2), never, { ...ALONE, leaves })));
      expect([outcome.kind, asked]).toEqual(['deferred', 0]);
    });

    it('carries many at a time, each with its own answer', async () => {
      const w = await open({ concurrency: 8 });
      const outcomes = await Promise.all(
        Array.from({ length: 100 }, (_, n) => w.carrier.submit(harness.submission(n), never)),
      );
      const ids = outcomes.map((outcome) =>
        sane(outcome).kind === 'accepted' ? (outcome as { carrierMessageId: string }).carrierMessageId : '',
      );
      expect(ids).not.toContain('');
      expect(new Set(ids).size).toBe(100);
      expect(w.peer.read()).toBe(100);
    });

    it('settles each of those that were out when the connections broke by itself, and goes on', async () => {
      const w = await open();
      await w.peer.fault('noAnswer');
      const out = [1, 2, 3, 4].map((n) => w.carrier.submit(harness.submission(n), never));
      for (let tries = 0; tries < 500 && w.peer.read() < 4; tries++) await breathe();
      expect(w.peer.read()).toBe(4);
      await w.peer.fault('none');
      w.peer.cut();
      for (const outcome of await came(w, Promise.all(out))) expect(sane(outcome).kind).toBe('unknown');
      await taken(w, 5);
    });

    it('survives faults in any order', async () => {
      const w = await open();
      const quick = harness.faults.filter((fault) => !endless.has(fault) && fault !== 'huge' && fault !== 'partial');
      for (let n = 0; n < 60; n++) {
        const fault = quick[(n * 7 + (n >> 2)) % quick.length] as Fault;
        await w.peer.fault(fault);
        sane(await came(w, w.carrier.submit(harness.submission(n), never)));
      }
      await w.peer.fault('none');
      await taken(w, 100);
    });
  });

  describe(`${harness.name}: what the peer tells`, () => {
    it('is answered once it is stored, and asked for again where it could not be', async () => {
      const w = await open();
      const id = await taken(w, 1);
      w.away(true);
      expect(await came(w, w.peer.report(id))).toBe(false);
      expect(await came(w, w.peer.send(1))).toBe(false);
      w.away(false);
      expect(await came(w, w.peer.report(id))).toBe(true);
      expect(await came(w, w.peer.send(1))).toBe(true);
      expect(w.told.reports.map(({ carrierMessageId }) => refOf(carrierMessageId))).toEqual([refOf(id)]);
      expect(w.told.inbound).toHaveLength(1);
    });

    it('is a report of the same submission each time, in whatever form its id is written', async () => {
      const w = await open();
      const id = await taken(w, 1);
      for (const otherwise of [false, true, false]) expect(await came(w, w.peer.report(id, otherwise))).toBe(true);
      expect(w.told.reports).toHaveLength(3);
      for (const report of w.told.reports) {
        expect(refOf(report.carrierMessageId)).toBe(refOf(id));
        expect(report.kind).toBe('retrieved');
        expect(report.carrier).toBe(w.carrier.name);
      }
    });

    it('of a submission that is not answered yet, or that nobody knows, is told all the same', async () => {
      const w = await open();
      await w.peer.fault('noAnswer');
      const control = new AbortController();
      const out = w.carrier.submit(harness.submission(1), control.signal);
      for (let tries = 0; tries < 500 && w.peer.read() < 1; tries++) await breathe();
      expect(await came(w, w.peer.report('77'))).toBe(true);
      expect(w.told.reports).toMatchObject([{ carrierMessageId: '77' }]);
      control.abort();
      await came(w, out);
    });

    it('as a message that is repeated has the id it had, and another message another one', async () => {
      const w = await open();
      await taken(w, 1);
      w.away(true);
      await came(w, w.peer.send(1));
      w.away(false);
      for (const n of [1, 2]) expect(await came(w, w.peer.send(n))).toBe(true);
      const [refused, repeated, other] = w.told.offered;
      expect(repeated).toBe(refused);
      expect(other).not.toBe(refused);
      expect(w.told.inbound).toHaveLength(2);
      expect(w.told.inbound[0]).toMatchObject({ carrier: w.carrier.name, from: '447700900123', to: ['441134960000'] });
    });

    it('in a storm is told to the last one', async () => {
      const w = await open();
      await taken(w, 1);
      const told = await came(w, Promise.all(Array.from({ length: 500 }, (_, n) => w.peer.report(`${1_000 + n}`))));
      expect(told).not.toContain(false);
      const ids = new Set(w.told.reports.map(({ carrierMessageId }) => carrierMessageId));
      expect(ids.size).toBe(500);
    });

    it.runIf(harness.late)('as an answer after its time makes the submission known under its id', async () => {
      const w = await open();
      await w.peer.fault('noAnswer');
      const control = new AbortController();
      const late: Outcome[] = [];
      const hand: Hand = { ...ALONE, late: (outcome) => void late.push(outcome) };
      const out = w.carrier.submit(harness.submission(1), control.signal, hand);
      for (let tries = 0; tries < 500 && w.peer.read() < 1; tries++) await breathe();
      control.abort();
      expect((await came(w, out)).kind).toBe('unknown');
      w.peer.answerLate?.();
      for (let tries = 0; tries < 500 && late.length === 0; tries++) await breathe();
      expect(late).toMatchObject([{ kind: 'accepted', carrierMessageId: w.peer.lastId() }]);
    });
  });
}

/** Turns of the event loop with its sockets. */
async function breathe(turns = 1): Promise<void> {
  for (let n = 0; n < turns; n++) await new Promise((resolve) => setImmediate(resolve));
}
