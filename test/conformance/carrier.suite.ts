/**
 * What every carrier owes (src/carriers/carrier.ts), whatever its protocol: run against a fake peer that can be told to fail in
 * each of the ways that peers and networks do. A harness says which of the faults its protocol can have.
 */
import { afterEach, describe, expect, it } from 'vitest';
import type { Carrier } from '../../src/carriers/carrier.ts';
import { ERRORS } from '../../src/domain/codes.ts';
import type { Outcome } from '../../src/domain/submission.ts';
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
  };
  close(): Promise<void>;
}

export interface CarrierHarness<S> {
  name: string;
  /** Faults that the protocol can have. */
  faults: readonly Fault[];
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
    if (ENDLESS.has(fault)) {
      const before = w.peer.read();
      for (let tries = 0; tries < 200 && w.peer.read() === before && fault !== 'mute'; tries++) await breathe();
      for (let tries = 0; tries < 20; tries++) await breathe();
      control.abort();
    }
    return sane(await running);
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
        // A connection that the peer has spoilt may cost one more try, and no more than one.
        let again = sane(await w.carrier.submit(harness.submission(2), never));
        for (let tries = 0; again.kind !== 'accepted' && tries < 3; tries++) {
          await w.env.clock.advance(10_000);
          again = sane(await w.carrier.submit(harness.submission(3 + tries), never));
        }
        expect(again.kind).toBe('accepted');
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

    it('survives faults in any order', async () => {
      const w = await open();
      const quick = harness.faults.filter((fault) => !ENDLESS.has(fault) && fault !== 'huge' && fault !== 'partial');
      for (let n = 0; n < 60; n++) {
        const fault = quick[(n * 7 + (n >> 2)) % quick.length] as Fault;
        await w.peer.fault(fault);
        sane(await w.carrier.submit(harness.submission(n), never));
      }
      await w.peer.fault('none');
      let last: Outcome | null = null;
      for (let tries = 0; tries < 5 && last?.kind !== 'accepted'; tries++) {
        await w.env.clock.advance(10_000);
        last = sane(await w.carrier.submit(harness.submission(100 + tries), never));
      }
      expect(last?.kind).toBe('accepted');
    });
  });
}

/** A turn of the event loop with its sockets. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
