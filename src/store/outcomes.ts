/**
 * What follows from what comes back about a submission: the outcome of an attempt, a report, the end of its time. Decided once for both
 * engines, in the order in which it is to be done; what it means for rows is the engine's (`Hands`). What an event makes of a message's
 * status is `domain/status.ts`.
 */
import { ELSEWHERE_WORDS, type Leg, legOf, smsLeader } from '../domain/failover.ts';
import { carrierRetryDelay, HOLD_MS, unknownRetryDelay } from '../domain/retry.ts';
import { STATE, type State, type StatusEvent } from '../domain/status.ts';
import { type CarrierReport, type Outcome, type ReportKind, refOf } from '../domain/submission.ts';
import { REPORTED_MAX, type Reported } from './contract.ts';

/** Attempts kept of one submission; the last place is then used again (a carrier may throttle for two days). */
export const ATTEMPTS = 200;

/**
 * Changes of one message up to which its claims are told (7) to who asks for every change: a carrier may put it off each second, for
 * as long as it is valid. Then only what differs from the last change is told.
 */
export const CLAIMS_TOLD = 40;

/** What the story says of a claim that was told. */
export const CLAIMED_WORDS = 'being submitted';

/** The end of an attempt that may leave a message as it was: who was told that it is on its way (7) is told again what it is. */
export const landed = ({ kind }: StatusEvent): boolean =>
  kind === 'deferred' || kind === 'unknown' || kind === 'contentFailed';

/** A row of `flight`, as both engines read it: a claim that is being submitted. */
export interface FlightRow {
  leader: number;
  token: number;
  lane: number;
  /** Of its run, now: a bulk that was steered meanwhile may have got a line of its own. */
  line: number;
  run: number;
  members: number;
  /** Members it was sent with. */
  sent: number;
  generation: number;
  attempts: number;
  held: number;
  valid_until: number;
  lease_until: number;
  turn_from: number | null;
  turn_end: number | null;
}

/** What is to be known of a message here. */
interface Member {
  no: number;
  to: string;
  key: string | null;
  state: State;
  error: number;
  leg: Leg;
}

/** What is done about messages and submissions; each is seen by what is asked after it. */
export interface Hands<Message extends Member> {
  /** False = the event changes nothing. */
  change(message: Message, event: StatusEvent, words: string): boolean;
  /** A report of the leg before the one that the message is on. False = it changes nothing. */
  reportLate(message: Message, report: ReportKind, words: string): boolean;
  /** Kept in the story and nothing else. */
  note(message: Message, words: string): void;
  /** The carrier's id of a submission, kept under the carrier's home lane. */
  learn(home: number, ref: string, submission: { leader: number; members: number }): void;
  /** Reports that came before their id was known. */
  applyParked(home: number, ref: string): void;
  /** Puts a submission with its next carrier, as another one; false = there is none. */
  goOn(flight: FlightRow): boolean;
  /** Puts it back to wait for its next attempt. */
  again(flight: FlightRow, due: number, attempts: number, held: number): void;
  /** Nobody waits for the next attempt of this submission any more. */
  drop(leader: number): void;
}

/** May be submitted (again) on the leg of this submission. */
export const waitsOn =
  (leader: number) =>
  ({ leg, state }: Pick<Member, 'leg' | 'state'>): boolean =>
    leg === legOf(leader) && (state === STATE.pending || state === STATE.uncertain);

/** Whether another carrier may have it: what may have reached one stays there, which knows its transaction. */
export function mayGoOn(leader: number, members: readonly Pick<Member, 'leg' | 'state'>[]): boolean {
  const waiting = members.filter(waitsOn(leader));
  return waiting.length > 0 && waiting.every(({ state }) => state === STATE.pending);
}

/** An attempt's outcome, for all members of its submission. `home`: the lane that its carrier's ids are kept under. */
export function conclude<Message extends Member>(
  hands: Hands<Message>,
  flight: FlightRow,
  all: readonly Message[],
  outcome: Outcome,
  words: string,
  {
    now,
    home,
    policy,
  }: { now: number; home: number; policy: { onUnknown: 'hold' | 'retry' | 'fail'; reports: boolean } },
): void {
  const { leader, attempts, held } = flight;
  // Those whose MMS ended by a report while this attempt of it was open are not its affair any more.
  const members = all.filter(({ leg }) => leg === legOf(leader));
  const goesOn = (): boolean => mayGoOn(leader, members) && hands.goOn(flight);
  const each = (event: StatusEvent, said = words): void => {
    for (const member of members) hands.change(member, event, said);
  };
  switch (outcome.kind) {
    case 'accepted': {
      const ref = refOf(outcome.carrierMessageId);
      hands.learn(home, ref, flight);
      for (const member of members) {
        const refused = outcome.refused?.find((one) => one.recipient === member.to);
        if (refused) hands.change(member, { kind: 'refused', error: refused.error.id }, refused.error.words ?? words);
        else hands.change(member, { kind: 'accepted', reports: policy.reports }, words);
      }
      hands.applyParked(home, ref);
      return;
    }
    case 'throttled':
      hands.again(flight, now + carrierRetryDelay(1, outcome.retryAfterMs), attempts - 1, held);
      return;
    case 'deferred':
    case 'refused':
    case 'contentFailed': {
      // Where nothing of it left, what is known of a message stays: no error, or that of the last try that reached a carrier.
      const unsent = outcome.kind === 'deferred' && outcome.unsent === true;
      const failed = (kind: typeof outcome.kind, said: string): boolean[] =>
        members.map((member) => hands.change(member, { kind, error: unsent ? member.error : outcome.error.id }, said));
      // The status is then that of a try that failed.
      if (outcome.elsewhere && goesOn()) {
        const said = `${words}; ${ELSEWHERE_WORDS}`;
        for (const [i, changed] of failed('deferred', said).entries())
          if (unsent && !changed) hands.note(members[i]!, said);
        return;
      }
      failed(outcome.kind, words);
      if (outcome.kind !== 'deferred' || !members.some(waitsOn(leader))) return;
      hands.again(flight, now + carrierRetryDelay(attempts, outcome.retryAfterMs), attempts, held);
      return;
    }
    case 'unknown': {
      const { onUnknown } = policy;
      // With policy retry, too, the message is uncertain until an attempt or a report decides: it may have arrived, so at the end
      // of its validity 29 is true and "never delivered" is not.
      each({ kind: 'unknown', error: outcome.error.id, policy: onUnknown === 'fail' ? 'fail' : 'hold' });
      // After a hold the submission is repeated once; unknown again, and only a report or the end of validity decides.
      const last = onUnknown === 'hold' && held === 1;
      if (onUnknown === 'fail' || last || !members.some(waitsOn(leader))) return;
      if (onUnknown === 'hold') hands.again(flight, now + HOLD_MS, attempts, 1);
      else hands.again(flight, now + (attempts < 3 ? unknownRetryDelay : carrierRetryDelay(attempts)), attempts, 0);
    }
  }
}

/** A report about a submission; `members`: those of its messages that are still there. Gives the ones that the report names. */
export function applyReport<Message extends Member>(
  hands: Hands<Message>,
  submission: { leader: number; members: number },
  members: readonly Message[],
  report: CarrierReport,
): Reported['messages'] {
  const { leader } = submission;
  const leg = legOf(leader);
  const named = submission.members === 1 ? members : members.filter((member) => report.addresses.includes(member.to));
  for (const member of named) {
    const event = { kind: 'report', report: report.kind, ...(report.error ? { error: report.error } : {}) } as const;
    const moved =
      member.leg === leg
        ? hands.change(member, event, report.words)
        : leg === 0 && hands.reportLate(member, report.kind, report.words);
    if (!moved) hands.note(member, report.words);
  }
  // Which member of a group it is about is not said: it decides nothing, but the story shows it.
  const unnamed = named.length === 0 ? members[0] : undefined;
  if (unnamed) hands.note(unnamed, `names no recipient of this submission: ${report.words}`);
  // Nobody is left to send to: the retry goes at once, not at its turn.
  if (named.length > 0 && !members.some(waitsOn(leader))) hands.drop(leader);
  return named.slice(0, REPORTED_MAX).map(({ no, key }) => ({ no, key }));
}

/** The submission that a message ends with, when its time is over; `run` null = it is gone. */
export function leaderOf({ no, leg }: { no: number; leg: Leg }, run: { no: number; members: number } | null): number {
  if (leg === 1) return smsLeader(no);
  return run && run.members > 0 ? run.no : no;
}

/** The end of a message's validity. */
export function validityEnded({ state, error }: { state: State; error: number }): StatusEvent {
  return { kind: 'validityEnded', tried: state !== STATE.pending || error !== 0, lastError: error };
}
