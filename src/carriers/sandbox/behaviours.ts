/**
 * What the sandbox does with a recipient, by the last four digits of its number: one table, pure. Who tests against it
 * chooses an outcome by choosing a number.
 *
 * Promises: every number has a behaviour. Fails: nothing here fails.
 */

/** What the MMSC does when the SubmitReq arrives, where it does more than take it. */
type AtSubmit =
  /** The recipient does not exist: status 2003. */
  | 'unknown'
  /** The handset has no MMS: status `NO_MMS_STATUS`; an SMS reaches it. */
  | 'noMms'
  /** Status 4006 for the first `BUSY_TIMES` tries, nothing taken. */
  | 'busy'
  /** Taken, then the connection is cut before the answer. */
  | 'cut'
  /** Taken, then answered with bytes that are no SOAP. */
  | 'garbage'
  /** Taken, answered after `SLOW_MS`. */
  | 'slow';

/** MMStatus of a DeliveryReportReq, as far as this sandbox tells any. `Retrieved` is also when the handset has it. */
export type ReportStatus = 'Retrieved' | 'Deferred' | 'Rejected' | 'Expired';

interface Step {
  /** After the step before, or after the message was taken (or became due by EarliestDeliveryTime). */
  readonly afterMs: number;
  readonly status: ReportStatus;
  /** How often the report is told, at the same time; 1 unless given. */
  readonly copies?: number;
}

/** What the sandbox does with a message: how it answers the submission, and what it reports afterwards. */
export interface Behaviour {
  readonly what: string;
  readonly atSubmit?: AtSubmit;
  readonly steps: readonly Step[];
  /** Of an SMS, where they differ. */
  readonly smsSteps?: readonly Step[];
}

/** An MM7 status of the range that is left to implementations: the handset does not support MMS. */
export const NO_MMS_STATUS = 2519;

export const BUSY_TIMES = 2;
export const SLOW_MS = 5_000;
/** A handset with good reception. */
const SOON = 1_000;

const delivered: readonly Step[] = [{ afterMs: SOON, status: 'Retrieved' }];

export const BEHAVIOURS: Readonly<Record<string, Behaviour>> = {
  '9901': { what: 'address not found at submit (2003)', atSubmit: 'unknown', steps: [] },
  '9902': { what: 'rejected by the handset', steps: [{ afterMs: SOON, status: 'Rejected' }] },
  '9903': { what: 'expired by the carrier', steps: [{ afterMs: SOON, status: 'Expired' }] },
  '9904': {
    what: 'reported deferred, retrieved two seconds later',
    steps: [
      { afterMs: SOON, status: 'Deferred' },
      { afterMs: 2_000, status: 'Retrieved' },
    ],
  },
  '9905': { what: 'taken, never retrieved, never reported', steps: [] },
  '9906': { what: 'busy (4006) twice, then delivered', atSubmit: 'busy', steps: delivered },
  '9907': {
    what: 'taken, but the connection is cut before the answer; the repeated TransactionID is answered; one copy',
    atSubmit: 'cut',
    steps: delivered,
  },
  '9908': {
    what: 'delivered, every report doubled, the earlier one after the later one',
    steps: [
      { afterMs: SOON, status: 'Retrieved', copies: 2 },
      { afterMs: 200, status: 'Deferred', copies: 2 },
    ],
  },
  '9909': {
    what: 'answered after 5 s, then delivered',
    atSubmit: 'slow',
    steps: [{ afterMs: SLOW_MS + SOON, status: 'Retrieved' }],
  },
  '9910': {
    what: 'taken, but answered with garbage; the repeated TransactionID is answered; one copy',
    atSubmit: 'garbage',
    steps: delivered,
  },
  '9911': {
    what: `a handset without MMS: an MMS is refused (${NO_MMS_STATUS}), an SMS delivered`,
    atSubmit: 'noMms',
    steps: [],
    smsSteps: delivered,
  },
};

/** What every other number does. */
export const ORDINARY: Behaviour = { what: 'delivered after about a second', steps: delivered };

/** @param msisdn digits */
export function behaviourOf(msisdn: string): Behaviour {
  const digits = msisdn.slice(-4);
  return Object.hasOwn(BEHAVIOURS, digits) ? BEHAVIOURS[digits]! : ORDINARY;
}

/** What happens to an SMS. @param msisdn digits */
export function smsStepsOf(msisdn: string): readonly Step[] {
  const behaviour = behaviourOf(msisdn);
  return behaviour.smsSteps ?? behaviour.steps;
}
