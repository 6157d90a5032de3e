/**
 * The plain rows that domain and store share: a numbered request on its way in, a message, its spec and its events on
 * their way out. Instants are epoch ms, numbers integers.
 */
import type { SpeedLimit } from './message.ts';
import type { Window } from './schedule.ts';

/** What one element of `messages` said, once for all its destinations. Its messages are numbers [first, end). */
export interface SpecIn {
  first: number;
  end: number;
  sender: string;
  campaign: string | null;
  entity: string | null;
  application: string | null;
  /** Where reports go; null = the pull list only. */
  endpoint: { url: string; contentType: string } | null;
  /** Reports also on every change between accepted and final (design: intermediateReport). */
  intermediate: boolean;
  /** False = the customer wants no push; its finals go to the pull list. */
  notify: boolean;
  /** JSON of domain `Spec`. */
  body: string;
  /** Uploaded content that segments refer to: index of the segment and the uploadedContentId. */
  uploads: { segment: number; id: string }[];
  /** LINK segments to fetch before its runs open. */
  links: { segment: number; url: string; contentType: string | null }[];
}

/** Consecutive messages of one spec that share lane, window and validity. `group` = one submission with all of them. */
export interface RunIn {
  first: number;
  end: number;
  spec: number;
  lane: number;
  group: boolean;
  window: Window | null;
  validityMs: number;
}

/** A numbered request on its way into the store: all rows of it or none (G2). */
export interface Accept {
  account: number;
  /** From `reserve`: the request's own number; specs are first+1.., messages follow. */
  first: number;
  /** The customer's bulkId; null = generated from `first`. A used one is joined. */
  bulkId: string | null;
  /** The number behind `bulkId`, where that is one that we generated: the bulk of that request is joined. */
  bulk?: number;
  sendAt: number | null;
  /** Microseconds between two turns of the bulk; 0 = no limit, null = not given (a join keeps the bulk's). */
  intervalUs: number | null;
  /** The speed limit as the customer wrote it, where one is given. */
  speed?: SpeedLimit;
  specs: SpecIn[];
  runs: RunIn[];
  /** Destinations by number: `to[i]` belongs to number `specs[0].first + i`; the specs' ranges follow one another. */
  to: string[];
  /** Refused at the door: [number, status id]. They are stored final at once. */
  refused: [number, number][];
  /** The customer's own message ids: [number, id]. */
  keys: [number, string][];
  idem: { key: string; hash: string } | null;
}

/** One message as reads, reports and webhooks show it. */
export interface MessageRow {
  no: number;
  /** The customer's own id, null = generated from `no`. */
  key: string | null;
  bulk: number;
  bulkId: string | null;
  spec: number;
  to: string;
  state: number;
  status: number;
  error: number;
  acceptedAt: number;
  sentAt: number | null;
  doneAt: number | null;
  /** True while a claim is open (shown as status 7). */
  claimed: boolean;
}

/** A spec as reads give it. `media`: bytes behind UPLOADED_REFERENCE and LINK segments. */
export interface SpecRow {
  no: number;
  account: number;
  sender: string;
  body: string;
  acceptedAt: number;
  media: { segment: number; hash: string; contentType: string; name: string }[];
}

/** One event on its way to a customer. */
export interface EventRow extends MessageRow {
  event: number;
  at: number;
}
