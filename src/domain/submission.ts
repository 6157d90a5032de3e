/**
 * What is handed to a carrier for one attempt, what comes of it, and what the carrier tells later. These three shapes are
 * all that dispatch, the store and the carriers share. Outcomes and reports are closed unions: an expected failure is a
 * value here; a thrown error is a bug or lost infrastructure.
 */

/** One media part. `contentId` is already safe on the wire ([A-Za-z0-9._-]) and unique within the submission. */
export interface Part {
  contentId: string;
  /** e.g. `image/jpeg`, `text/plain; charset=utf-8`. */
  contentType: string;
  bytes: Uint8Array;
}

/** One attempt to hand one MMS to a carrier: one recipient, or all members of a group. */
export interface Submission {
  /** Ours; the same for every attempt whose predecessor may have reached the carrier. */
  transactionId: string;
  sender: string;
  /** Digits without `+`, or a short code; 1..200. */
  recipients: string[];
  subject?: string;
  /** The customer's presentation, printed again for these parts (`src` are `cid:`); absent = carriers that need one make it. */
  smil?: string;
  parts: Part[];
  /** Epoch ms; the carrier must not deliver earlier. Absent = at once. */
  earliestAt?: number;
  /** Epoch ms; the carrier must not deliver later. */
  validUntil: number;
  campaignReferenceId?: string;
  /** `regional.southKorea.resellerCode`, for carriers that want it. */
  resellerCode?: number;
}

/** One attempt to hand one SMS to a carrier: the failover leg of a message. */
export interface SmsSubmission {
  /** Ours; the same for every attempt whose predecessor may have reached the carrier. */
  transactionId: string;
  sender: string;
  /** Digits without `+`, or a short code. */
  recipient: string;
  /** Whole; the carrier splits it into segments. */
  text: string;
  /** Epoch ms; the carrier must not deliver later. */
  validUntil: number;
  campaignReferenceId?: string;
  /** `regional.southKorea.resellerCode`, for carriers that want it. */
  resellerCode?: number;
}

/** Of MM7. */
export type Priority = 'Normal' | 'High' | 'Low';

/**
 * What a handset sent, as a carrier tells it (MM7 DeliverReq, SMPP deliver_sm that is no receipt). The store drops repetitions by
 * (carrier, id).
 */
export interface CarrierInbound {
  /** Name of the configured carrier that told it. */
  carrier: string;
  channel: 'MMS' | 'SMS';
  /** The carrier's own id of the message, or one made from its bytes where it gives none. */
  id: string;
  /** Digits without `+`, or as the carrier wrote it where it is no number; '' = not told. */
  from: string;
  /** Our number first, where it is told which one that is. */
  to: string[];
  cc: string[];
  subject?: string;
  /** As the handset marked it. */
  priority?: Priority;
  /** The handset's model, where the carrier names it. */
  userAgent?: string;
  /** Without the presentation. */
  parts: Part[];
  /** The carrier message id of the message it answers, where the carrier says so (LinkedID). */
  answers?: string;
  /** Epoch ms by the carrier's clock. */
  at?: number;
}

/** Why an attempt failed: `id` from the error table (`domain/codes.ts`), `words` = the carrier's own code and text. */
export interface Failure {
  id: number;
  words?: string;
}

/** What happened to one attempt. */
export type Outcome =
  /** Taken. `refused` lists recipients (as given) that the carrier refused within an otherwise accepted submission. */
  | { kind: 'accepted'; carrierMessageId: string; words?: string; refused?: { recipient: string; error: Failure }[] }
  /**
   * Not taken, may heal. Counts as an attempt. `retryAfterMs`: the carrier's own wish. `elsewhere`: for a reason that another
   * carrier may not share (this one is down, or does not know us), so a second choice is asked at once, where there is one. `unsent`:
   * nothing of it left, so it says nothing of the message: at the end of its validity one of which nothing ever left was never sent.
   */
  | { kind: 'deferred'; error: Failure; retryAfterMs?: number; elsewhere?: true; unsent?: true }
  /**
   * The carrier asks to slow down. Does not count as an attempt; the lane pauses, but for `others`: a part of the way to it (one bind
   * of several) is asked, and the others go on.
   */
  | { kind: 'throttled'; retryAfterMs: number; error?: Failure; others?: true }
  /** Not taken and never will be by this carrier. Final, but for `elsewhere` (as above) and a second choice. */
  | { kind: 'refused'; error: Failure; elsewhere?: true }
  /** Nothing was sent: its content is gone or damaged for good. Final, but for `elsewhere` (as above) and a second choice. */
  | { kind: 'contentFailed'; error: Failure; elsewhere?: true }
  /** Sent, but whether it arrived is not known; the carrier's `onUnknown` decides. */
  | { kind: 'unknown'; error: Failure };

/** What a carrier's report says, in our words; the state machine (`domain/status.ts`) turns it into a status. */
export type ReportKind =
  | 'retrieved'
  | 'deferred'
  | 'forwarded'
  | 'rejected'
  | 'expired'
  | 'indeterminate'
  | 'unrecognised'
  | 'unreachable'
  | 'unsupported'
  /** Somebody read it or threw it away: noted, it moves no status. */
  | 'read';

/** A delivery report as a carrier tells it (MM7 DeliveryReportReq, SMPP deliver_sm). */
export interface CarrierReport {
  /** Name of the configured carrier that told it; a report can only move messages submitted there. */
  carrier: string;
  carrierMessageId: string;
  /** Both addresses the carrier named, digits only; peers swap them, so neither is trusted to be the recipient. */
  addresses: string[];
  kind: ReportKind;
  /** The error it implies, where the carrier says more than the kind (`domain/codes.ts`). */
  error?: number;
  /** Epoch ms by the carrier's clock; informational, never decides. */
  at?: number;
  /** Raw status words of the carrier, for the message's story. */
  words: string;
}

/**
 * A carrier's message id as it is compared: peers add brackets, a host, white space or change the case between the
 * answer and the report (TS 23.140 implementations in the field). '' = no id.
 */
export function refOf(id: string): string {
  const bare = id.replaceAll('\0', '').trim().replace(/^<|>$/g, '').trim();
  const at = bare.indexOf('@');
  return (at > 0 ? bare.slice(0, at) : bare).toLowerCase().slice(0, 500);
}

/**
 * Ours for a submission: unique over installations, and the same for every attempt of a generation, so that a carrier which
 * got an earlier one drops the repetition (G6). A leader below 0 is the SMS leg of that message (`failover.ts`).
 */
export function transactionId(install: string, leader: number, generation: number): string {
  const name = leader < 0 ? `${install}-${-leader}-sms` : `${install}-${leader}`;
  return generation === 0 ? name : `${name}-${generation}`;
}

/**
 * Children of MM7's SubmitReq in the order of the schema (REL-6-MM7-1-4, TS 23.140; of older releases each is a part of it): what is
 * printed, and beside what a carrier's own elements may be asked to stand.
 */
export const SUBMIT_REQ_CHILDREN = [
  'MM7Version',
  'SenderIdentification',
  'Extension',
  'Recipients',
  'PreferredChannels',
  'ServiceCode',
  'LinkedID',
  'MessageClass',
  'TimeStamp',
  'ReplyCharging',
  'EarliestDeliveryTime',
  'ExpiryDate',
  'DeliveryReport',
  'ReadReply',
  'Priority',
  'Subject',
  'ChargedParty',
  'ChargedPartyID',
  'ThirdPartyPayer',
  'DistributionIndicator',
  'DeliveryCondition',
  'ApplicID',
  'ReplyApplicID',
  'AuxApplicInfo',
  'ContentClass',
  'DRMContent',
  'Content',
  'AdditionalInformation',
  'MessageExtraData',
] as const;
