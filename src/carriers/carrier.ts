/**
 * The contract between dispatch and whatever carries messages away. A carrier knows one peer and one protocol; it knows no
 * store, no lane, no status and no retry. What the peer tells later (reports) does not come this way: see the listeners.
 */
import type { Outcome, SmsSubmission, Submission } from '../domain/submission.ts';

/** A place in the rate of a lane. Ends with one `come` or one `drop`. */
export interface Turn {
  /** Resolves when it has come: what it was taken for leaves at once. False = the signal aborted first, and the place is given up. */
  come(signal: AbortSignal): Promise<boolean>;
  /** Nothing leaves in it. */
  drop(): void;
}

/** What dispatch hands over with a submission, for carriers that must ask or tell it something on the way. Its functions need no `this`. */
export interface Hand {
  /**
   * Whether the submission may leave now. A carrier with `turns` asks once, right before the first byte, however long it had to
   * wait for a connection; true = the departure is counted. False = its moment has passed: nothing may be sent, and what is then
   * told as the outcome is not looked at, since the submission goes back as if it had never been claimed.
   */
  leaves: () => boolean;
  /**
   * For carriers without `turns`, right before the first byte: whether its window and its validity are open yet, however long it took
   * to connect. False = nothing may be sent, and it goes back. Asked again before it is sent once more, where the peer wants to know
   * first who sends it and has taken nothing.
   */
  open: () => boolean;
  /** A place in the rate for something that follows the first byte of this submission (another segment of a text). */
  turn(): Turn;
  /** The peer has answered after all, once, after the outcome `unknown` was told. Its id is learnt, so that reports find the message. */
  late(outcome: Extract<Outcome, { kind: 'accepted' }>): void;
}

/**
 * One configured way to a mobile network.
 *
 * `submit` makes one attempt, at once, and tells what came of it:
 * - It never rejects for anything the peer or the network does; each of that is an `Outcome`. A rejection is a bug, which
 *   dispatch settles as unknown.
 * - Nothing is retried inside, and no redirect is followed: attempts, pauses and rates belong to dispatch.
 * - `deferred`, `throttled` and `refused` claim that the peer did not take the message. So a failure is `deferred` only if
 *   the request cannot have been read (no connection, no TLS, not a byte written) or the peer itself says so. Once the
 *   request may have been read and no clear answer came, the outcome is `unknown`.
 * - `accepted` carries the peer's id as the peer wrote it (numbers without leading zeros, where reports pad them differently);
 *   reports are matched by it.
 * - `Failure.words` holds the peer's code and text, at most 200 characters, never content or credentials.
 * - When `signal` aborts, it ends soon with what is known by then: `deferred` before the first byte, else `unknown`.
 * - Any number may run at a time (dispatch keeps to the configured concurrency). The submission is not changed, and
 *   `submission.parts` is the same array for all messages of one content, so encodings may be cached by its identity.
 */
export interface Carrier<S = Submission> {
  /** The configured name; reports arrive under it. */
  readonly name: string;
  submit(submission: S, signal: AbortSignal, hand?: Hand): Promise<Outcome>;
  /** How many places in the rate the first thing sent of a submission takes. Absent = one, and `hand.leaves` is not asked. */
  turns?(submission: S): number;
  /**
   * Calls a submission back (its bulk was cancelled): whether the carrier says that it will not be delivered. Never rejects; false
   * where the carrier cannot or does not answer, since only a report tells then.
   */
  cancel?(
    carrierMessageId: string,
    submission: { transactionId: string; sender: string },
    signal: AbortSignal,
  ): Promise<boolean>;
  /**
   * Asks to keep a submission that it has early until `earliestAt` (epoch ms; its bulk was moved): whether the carrier says that it
   * will. Never rejects; false where it cannot or does not answer: then it may be delivered when it was to be before.
   */
  replace?(
    carrierMessageId: string,
    submission: { transactionId: string; sender: string; earliestAt: number },
    signal: AbortSignal,
  ): Promise<boolean>;
  /** Lets go of connections. No submit may be running or follow. */
  close?(): Promise<void>;
}

/** A way for the SMS failover. */
export type SmsCarrier = Carrier<SmsSubmission>;
