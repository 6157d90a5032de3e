/**
 * What a lane leads to: a carrier for MMS or one for SMS. From a claim to something that can be sent at once, so that the loop
 * over a lane (`dispatch.ts`) need not know which of the two it is.
 *
 * Fails: content that cannot be had or sent is a value; a store that is away rejects, before anything has left.
 */
import type { Carrier, Hand, SmsCarrier } from '../carriers/carrier.ts';
import { legOf, SMS_MARK } from '../domain/failover.ts';
import type { Shortener } from '../domain/links.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Outcome } from '../domain/submission.ts';
import type { Clock } from '../env.ts';
import type { Claim } from '../store/contract.ts';
import { type Aside, type Fit, fitInTime } from './fit.ts';
import { type PrepareResult, smsOf, submissionOf } from './prepare.ts';

/** A carrier of one channel. `fit` makes content fit to it. */
export type WayOptions = { carrier: Carrier; fit?: Fit } | { sms: SmsCarrier };

/**
 * A submission that is ready to leave. `error` of what is not: of the error table, where it is another than 15025; `elsewhere`: a
 * second choice may have it.
 */
export type Ready =
  | {
      ok: true;
      send(signal: AbortSignal, hand: Hand): Promise<Outcome>;
      /** Places in the rate; null = one, and the carrier does not ask `hand.leaves`. */
      turns: number | null;
    }
  | { ok: false; words: string; error?: number; elsewhere?: true };

export interface Way {
  readonly name: string;
  /** Calls a submission back; absent = the carrier cannot. */
  readonly cancel?: NonNullable<Carrier['cancel']>;
  /** Asks to keep a submission for longer; absent = the carrier cannot. */
  readonly replace?: NonNullable<Carrier['replace']>;
  /** A number = not ready within `leftMs`, or `halt` was aborted: put it back for so many ms. */
  ready(claim: Claim, spec: SpecRow, leftMs: () => number, halt: AbortSignal, aside: Aside): Promise<Ready | number>;
}

/** Whether two lanes lead to the same. */
export function sameWay(a: WayOptions, b: WayOptions): boolean {
  if ('sms' in a || 'sms' in b) return 'sms' in a && 'sms' in b && a.sms === b.sms;
  return a.carrier === b.carrier && a.fit === b.fit;
}

/** `install` makes transaction ids unique over installations. */
export function createWay(
  options: WayOptions,
  prepare: (spec: SpecRow) => Promise<PrepareResult>,
  clock: Clock,
  install: string,
  shortener?: Shortener,
): Way {
  const carrier = 'sms' in options ? options.sms : options.carrier;
  return {
    name: carrier.name,
    ...(carrier.cancel ? { cancel: carrier.cancel.bind(carrier) } : {}),
    ...(carrier.replace ? { replace: carrier.replace.bind(carrier) } : {}),
    async ready(claim, spec, leftMs, halt, aside) {
      const isSms = legOf(claim.leader) === 1;
      if (!isSms && 'sms' in options && spec.body.includes(SMS_MARK)) return NO_MMS_ROUTE;
      // A carrier that was configured anew under its old name, with messages waiting.
      if (isSms !== 'sms' in options) return { ok: true, send: async () => wrongChannel(isSms), turns: null };
      if ('sms' in options) {
        const submission = smsOf(claim, spec, install, shortener);
        return ready(options.sms, submission);
      }
      const result = await fitInTime(await prepare(spec), options.fit, leftMs(), clock, halt, aside);
      if (typeof result === 'number' || !result.ok) return result;
      const submission = submissionOf(claim, result.prepared, install);
      return ready(options.carrier, submission);
    },
  };
}

function ready<S>(carrier: Carrier<S>, submission: S): Ready {
  const turns = carrier.turns?.(submission) ?? null;
  return { ok: true, send: (signal, hand) => carrier.submit(submission, signal, hand), turns };
}

/** After its time-out a carrier has this long to say what it knows. */
const CARRIER_GRACE_MS = 2_000;

/**
 * Sends, and breaks off through `control` after `timeoutMs`. `late` = the carrier did not come back even then; its answer may
 * come yet.
 */
export async function inTime(
  ready: Extract<Ready, { ok: true }>,
  timeoutMs: number,
  control: AbortController,
  clock: Clock,
  hand: Hand,
): Promise<{ outcome: Outcome; late?: undefined } | { outcome?: undefined; late: Promise<Outcome> }> {
  let tooLate = (): void => {};
  const gaveUp = new Promise<null>((resolve) => {
    tooLate = () => resolve(null);
  });
  let limit = clock.setTimeout(() => control.abort(), timeoutMs);
  control.signal.addEventListener('abort', () => {
    limit.cancel();
    limit = clock.setTimeout(tooLate, CARRIER_GRACE_MS);
  });
  try {
    const answer = ready.send(control.signal, hand);
    const outcome = await Promise.race([answer, gaveUp]);
    return outcome === null ? { late: answer } : { outcome };
  } finally {
    limit.cancel();
  }
}

/**
 * What numbering put on an SMS lane because no carrier takes the MMS: its SMS follows. It has no second choice; what waited for a
 * carrier that has become an SMSC may have one.
 */
const NO_MMS_ROUTE: Ready = {
  ok: false,
  words: 'no carrier takes an MMS to this destination',
  error: 15023,
  elsewhere: true,
};

/** 15023 EC_FAILED_TO_ROUTE_MESSAGE */
function wrongChannel(isSms: boolean): Outcome {
  const words = `this carrier takes no ${isSms ? 'SMS' : 'MMS'} any more`;
  return { kind: 'deferred', error: { id: 15023, words }, elsewhere: true };
}

/** 15000 EC_MMS_GENERAL_ERROR: what an attempt without an answer is booked under. */
export function unknown(words: string): Outcome {
  return { kind: 'unknown', error: { id: 15000, words } };
}
