/**
 * The ways of a message beside its first one: carriers that may take it when the first does not, and the SMS that follows when
 * the MMS failed for good (its second leg). Pure.
 *
 * Numbers: whatever tells submissions apart (claim, attempt, carrier id, run, end of validity) knows the SMS leg of message `no`
 * under `-no`. It stands alone, also where the MMS went to a group; so no row of one leg ever meets one of the other, and an
 * old report or a late answer finds the leg that it belongs to.
 *
 * Promises: `opensFailover` says yes at most once in a message's life, since it asks for the MMS leg and the answer ends it.
 */
import type { Spec } from './message.ts';
import { segmentsOf } from './sms.ts';
import type { MessageStatus, StatusEvent } from './status.ts';
import { STATE } from './status.ts';

/** 0 = MMS, 1 = SMS. */
export type Leg = 0 | 1;

/** Leg of an event: the end of an MMS leg that an SMS followed, so it is not the message's last. */
export const FAILED_OVER = 2;

/** What the SMS leg of message `no` is known under. */
export const smsLeader = (no: number): number => -no;

/** Which leg a submission's leader (or a run's number) belongs to. */
export const legOf = (leader: number): Leg => (leader < 0 ? 1 : 0);

/** The messages [first, end) behind a leader and its count of numbers. */
export function spanOf(leader: number, members: number): { first: number; end: number } {
  return leader < 0 ? { first: -leader, end: 1 - leader } : { first: leader, end: leader + members };
}

/** Stands in the body of every spec whose messages have an SMS leg, so that engines need not read the others. */
export const SMS_MARK = '"smsFailover":{';

/** Segments of the SMS of a spec's messages: what reports count and prices multiply. */
export function smsSegmentsOf({ smsSegments, options }: Pick<Spec, 'smsSegments' | 'options'>): number {
  return smsSegments ?? segmentsOf(options?.smsFailover?.text ?? '');
}

/** Where the SMS of a message goes. */
export interface SmsWay {
  /** Lane of the first choice; null = the customer asked for an SMS, and there is no route for it. */
  lane: number | null;
  /** Lanes behind it, best first. */
  alts?: number[];
  validityMs: number;
  /** Also where it is not known whether the MMS arrived (status 29). */
  afterUnknown?: true;
}

/** What the messages of one run have beside their lane. */
export interface Ways {
  /** Lanes that may take the MMS when its own lane's carrier cannot, best first. */
  alts?: number[];
  sms?: SmsWay;
  /** No carrier takes the MMS: it waits on an SMS carrier, where its outcome is that there is no route, and the SMS follows. */
  smsOnly?: true;
  /** Of a group whose members' SMS go different ways: one for each number of the run. */
  smsEach?: SmsWay[];
}

/** The SMS way of the message at place `at` of its run (0 = its first); null = the customer asked for none. */
export function smsWayOf({ sms, smsEach }: Ways, at: number): SmsWay | null {
  return smsEach?.[at] ?? sms ?? null;
}

/** How ways are kept in a row; null = there are none. */
export function printWays(ways: Ways | undefined): string | null {
  return ways && (ways.sms || ways.smsEach || ways.alts?.length) ? JSON.stringify(ways) : null;
}

/** What `printWays` made. */
export function readWays(text: string | null): Ways {
  return text === null ? {} : (JSON.parse(text) as Ways);
}

/** All lanes that ways name, each once. */
export function lanesOfWays(ways: Ways | undefined): number[] {
  const { alts = [], sms, smsEach = [] } = ways ?? {};
  const lanes = [...alts];
  for (const way of [...(sms ? [sms] : []), ...smsEach]) {
    if (way.lane !== null) lanes.push(way.lane, ...(way.alts ?? []));
  }
  return [...new Set(lanes)];
}

/**
 * The lane to try after `lane` on one leg; null = there is none left. Lanes are tried in their order, each once, so nothing goes
 * round in circles; a lane that is none of them comes before all.
 */
export function nextLane(ways: Ways, leg: Leg, lane: number): number | null {
  const { alts = [] } = (leg === 0 ? ways : ways.sms) ?? {};
  return alts[alts.indexOf(lane) + 1] ?? null;
}

/** Status 29 EXPIRED_DLR_UNKNOWN: whether it arrived is not known. */
const UNKNOWN = 29;

/** Whether an MMS leg that ends as `next` by `event` is followed by an SMS, where one is asked for. */
export function opensFailover(sms: SmsWay, event: StatusEvent, next: MessageStatus): boolean {
  // Cancelled is what the customer wanted, and who wants nothing from a sender wants no SMS.
  if (event.kind === 'cancelled' || event.kind === 'unwanted') return false;
  if (next.state !== STATE.undeliverable && next.state !== STATE.expired && next.state !== STATE.rejected) return false;
  return next.status !== UNKNOWN || sms.afterUnknown === true;
}

/** What the MMS's outcome adds to its words in the story. */
export const FAILOVER_WORDS = 'the SMS failover begins';
export const NO_FAILOVER_WORDS = 'no route for the SMS failover';
/** What an attempt that failed adds to its words where another carrier is asked next. */
export const ELSEWHERE_WORDS = 'another carrier is asked';
/** For the story, when the MMS was delivered after all before anything of the SMS left. */
export const WITHDRAWN_WORDS = 'delivered after all; the SMS is withdrawn';
