/**
 * The life of one message as a state machine: what it is now (state, status id, error id), what happened, what it is then.
 * Pure; one table (`TABLE`), every state x event listed and tested. Ids are those of `codes.ts`.
 *
 *              accept                       noRoute, contentFailed, unwanted
 *                |                 +------------------------------------> rejected      19, 77, 100
 *                v                 |     refused (4), cancelled (31)
 *      +---> pending 26 -----------+------------------------------------> undeliverable 4, 9, 31
 *      |      |  |   ^ deferred, throttled (stays)         ^   ^
 *      |      |  |   |                                     |   | report: rejected, unreachable, ...
 *      | held |  |   | unknown: retry     refused          |   |
 *      |      |  +---+---> uncertain 3 --------------------+   |
 *      +------+------------ |  unknown: hold                   |
 *             |             |                                  |
 *   accepted, |             | accepted, report                 |
 *   report    +------> submitted 3 ----------------------------+
 *                           |   |
 *                           |   +-- report: retrieved, or accepted by a carrier without reports ---> delivered 5, 2
 *                           +------ report: expired, or the validity ended ---------------------> expired   15, 29
 *
 * Any report decides in any state that is not final: reports overtake the answer to the submission they belong to.
 * Delivered and expired are reached from pending and uncertain in the same ways.
 *
 * Promises: the first final status wins, no event changes a final state (G4). What is not known is not claimed: a
 * message that may have reached the carrier ends as 29 (delivery unknown), never as 15 or 4, unless the carrier or its
 * report says so (G5). A claim (a leased right to submit) is no state: it may be put back at any moment as if it had never
 * been. Views show it as `STATUS_CLAIMED` while it is open, and who asks for every change is told of it.
 *
 * Fails: nothing here fails; an event that makes no sense in a state changes nothing.
 */
import { OPT_OUT_ERROR } from './optout.ts';
import type { ReportKind } from './submission.ts';

/** Codes of the row; never reused. Up to 2 = the message is open, from 3 on = final. */
export const STATE = {
  /** Waits for its turn, or for its next attempt. */
  pending: 0,
  /** The carrier has it; only a report or the end of validity moves it. */
  submitted: 1,
  /** Sent, but whether the carrier has it is not known; held for a report. */
  uncertain: 2,
  delivered: 3,
  undeliverable: 4,
  expired: 5,
  rejected: 6,
} as const;
export type State = (typeof STATE)[keyof typeof STATE];

/** Nothing changes this message any more. */
export function isFinal(state: State): boolean {
  return state >= STATE.delivered;
}

/** What a row says of its message. `error` 0 = none. */
export interface MessageStatus {
  state: State;
  status: number;
  error: number;
}

export type StatusEvent =
  /** The carrier took it. `reports`: whether it will tell more. */
  | { kind: 'accepted'; reports: boolean }
  /** The attempt failed and will be repeated. */
  | { kind: 'deferred'; error: number }
  /** The carrier asked to slow down: no attempt. */
  | { kind: 'throttled' }
  /** The carrier refused it for good. */
  | { kind: 'refused'; error: number }
  /** Sent, outcome not known; `policy` is the carrier's `onUnknown`. */
  | { kind: 'unknown'; error: number; policy: 'hold' | 'retry' | 'fail' }
  /** The hold ended without a report: it will be submitted once more. */
  | { kind: 'held' }
  /** `error`: where the carrier says more than the kind. */
  | { kind: 'report'; report: ReportKind; error?: number }
  /** `tried`: an attempt was made; `lastError`: the last one's error. */
  | { kind: 'validityEnded'; tried: boolean; lastError: number }
  | { kind: 'cancelled' }
  | { kind: 'noRoute' }
  /** Its recipient has said since that nothing more is wanted: 10 from this sender, 14 from none of the account's. */
  | { kind: 'unwanted'; status: 10 | 14 }
  /** Its content cannot be had, or does not fit. */
  | { kind: 'contentFailed'; error: number };

/**
 * `changed`: state, status or error differ, so the row must be written (a report to the customer is due where status or
 * error differ). `final`: `next` is final, whether by this event or before.
 */
export interface Transition {
  next: MessageStatus;
  changed: boolean;
  final: boolean;
}

/** What every message accepted at the door starts as. */
export const ACCEPTED: MessageStatus = Object.freeze({ state: STATE.pending, status: 26, error: 0 });

/** PENDING_ENROUTE: what views show while a claim of a message that waits is open, with the error of its last try. Not a state. */
export const STATUS_CLAIMED = 7;

/** 815 EC_MESSAGE_SUBMITTED_NOT_ACKED */
const NOT_ACKED = 815;
/** 4100 EC_MESSAGE_CANCELED: "not sent inside its validity period" */
export const NOT_SENT = 4100;
/** 15023 EC_FAILED_TO_ROUTE_MESSAGE */
const NO_ROUTE = 15023;
/** Errors of what was never handed over that have a status of their own: 355 EC_MSG_TEXT_TOO_LONG, and no route. */
const NEVER_SENT: Readonly<Record<number, number>> = { 355: 77, [NO_ROUTE]: 19 };
/** 15004 EC_DEFERRED */
const DEFERRED = 15004;

/**
 * The error behind each report that ends a message without delivery, where the carrier gives no closer one:
 * - rejected: 15011 recipient blocked (MM7 Rejected = the handset or its owner refused it).
 * - expired: 15006 validity ended before the handset was reached.
 * - indeterminate: 15008 provider error during delivery. The MMSC itself cannot say what became of it; the code is
 *   permanent, so that nobody is invited to repeat what may have arrived.
 * - unrecognised: 15007 content cannot be downloaded on the handset (the handset did not understand its notification).
 * - unreachable: 27 absent subscriber. No 15xxx code says it; 15009 "recipient not found" would claim that the number is
 *   wrong and for good.
 * - unsupported: 15019 handset does not support MMS.
 */
const REPORT_ERROR = {
  rejected: 15011,
  expired: 15006,
  indeterminate: 15008,
  unrecognised: 15007,
  unreachable: 27,
  unsupported: 15019,
} as const;

type Of<Kind extends StatusEvent['kind']> = Extract<StatusEvent, { kind: Kind }>;
type Row = { [Kind in StatusEvent['kind']]: (event: Of<Kind>, from: MessageStatus) => MessageStatus };

function is(state: State, status: number, error: number): MessageStatus {
  return { state, status, error };
}

const stay = (_: StatusEvent, from: MessageStatus): MessageStatus => from;

function accepted(event: Of<'accepted'>): MessageStatus {
  return event.reports ? is(STATE.submitted, 3, 0) : is(STATE.delivered, 2, 0);
}

const deliveryUnknown = (): MessageStatus => is(STATE.expired, 29, NOT_ACKED);

function unknown(event: Of<'unknown'>): MessageStatus {
  // An error of 0 would look like a message that was taken.
  const error = event.error || NOT_ACKED;
  switch (event.policy) {
    case 'hold':
      return is(STATE.uncertain, 3, error);
    case 'retry':
      return is(STATE.pending, 26, error);
    case 'fail':
      // It may have arrived: 4 (undeliverable) would claim that it did not.
      return deliveryUnknown();
  }
}

function report(event: Of<'report'>, from: MessageStatus): MessageStatus {
  switch (event.report) {
    case 'retrieved':
      return is(STATE.delivered, 5, 0);
    case 'read':
      return from;
    case 'forwarded':
      // On its way to the next network. That comes before the handset's "deferred", so a late one does not undo it.
      return from.state === STATE.submitted ? from : is(STATE.submitted, 3, 0);
    case 'deferred':
      return is(STATE.submitted, 3, event.error || DEFERRED);
    case 'expired':
      return is(STATE.expired, 15, event.error || REPORT_ERROR.expired);
    default:
      return is(STATE.undeliverable, 9, event.error || REPORT_ERROR[event.report]);
  }
}

const TABLE: Record<0 | 1 | 2, Row> = {
  [STATE.pending]: {
    accepted,
    deferred: (event) => is(STATE.pending, 26, event.error),
    throttled: stay,
    refused: (event) => is(STATE.undeliverable, 4, event.error),
    unknown,
    held: stay,
    report,
    validityEnded: (event) => is(STATE.expired, 15, (event.tried && event.lastError) || NOT_SENT),
    cancelled: () => is(STATE.undeliverable, 31, NOT_SENT),
    noRoute: () => is(STATE.rejected, 19, NO_ROUTE),
    unwanted: (event) => is(STATE.rejected, event.status, OPT_OUT_ERROR),
    contentFailed: (event) => is(STATE.rejected, NEVER_SENT[event.error] ?? 100, event.error),
  },
  // The carrier has it (its answer or a report said so). An attempt may still be open, where an earlier one's report came
  // first: what that one comes to does not take away what is known.
  [STATE.submitted]: {
    // A carrier that gives no reports: that one came (forwarded, deferred) promises no second.
    accepted: (event, from) => (event.reports ? from : accepted(event)),
    deferred: stay,
    throttled: stay,
    refused: stay,
    unknown: stay,
    held: stay,
    report,
    validityEnded: deliveryUnknown,
    cancelled: stay,
    noRoute: stay,
    unwanted: stay,
    contentFailed: stay,
  },
  // An earlier attempt may have reached the carrier. The attempt after the hold decides only by a clear yes or no: that it
  // failed on the way says nothing of the earlier one.
  [STATE.uncertain]: {
    accepted,
    deferred: stay,
    throttled: stay,
    refused: (event) => is(STATE.undeliverable, 4, event.error),
    unknown: (event, from) => (event.policy === 'hold' ? from : unknown(event)),
    held: (_, from) => is(STATE.pending, 26, from.error),
    report,
    validityEnded: deliveryUnknown,
    // Cancelling cannot call back what may be out: report or the end of validity tell.
    cancelled: stay,
    noRoute: stay,
    unwanted: stay,
    contentFailed: stay,
  },
};

/** What `event` makes of a message. Total and pure: the same in, the same out; `from` is never changed. */
export function transition(from: MessageStatus, event: StatusEvent): Transition {
  const { state } = from;
  if (state !== STATE.pending && state !== STATE.submitted && state !== STATE.uncertain) {
    return { next: from, changed: false, final: true };
  }
  // The row's entry for a kind takes that kind's event; TypeScript cannot correlate the two lookups.
  const entry = TABLE[state][event.kind] as (event: StatusEvent, from: MessageStatus) => MessageStatus;
  const next = entry(event, from);
  const changed = next.state !== state || next.status !== from.status || next.error !== from.error;
  return { next: changed ? next : from, changed, final: isFinal(next.state) };
}
