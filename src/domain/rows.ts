/**
 * The plain rows that domain and store share: a numbered request on its way in, a message, its spec and its events on
 * their way out. Instants are epoch ms, numbers integers.
 */
import type { Leg, Ways } from './failover.ts';
import type { SpeedLimit } from './message.ts';
import type { Window } from './schedule.ts';
import type { Priority } from './submission.ts';

/** What one element of `messages` said, once for all its destinations. Its messages are numbers [first, end). */
export interface SpecIn {
  first: number;
  end: number;
  sender: string;
  campaign: string | null;
  entity: string | null;
  application: string | null;
  /** Where reports go; null = the account's default endpoint where `notify` asks for one and there is one, else the pull list. */
  endpoint: { url: string; contentType: string } | null;
  /** The form of reports that the customer asked for without naming a URL; absent = the default endpoint's own. */
  contentType?: string;
  /** Sent by the first version of the API: so its reports have that one's shape (`reportForm`). */
  older?: true;
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
  /** Its shortened links; absent = there are none. */
  tracked?: Tracked;
}

/** What is kept of a spec's shortened links, for as long as they work. */
export interface Tracked {
  /** By their place in tokens. */
  urls: string[];
  /** False = they only lead on. */
  clicks: boolean;
  /** Where clicks are reported; null = the account's click endpoint, where there is one. */
  url: string | null;
  callbackData: string | null;
  /** How long they work after the acceptance, sendAt or (what leaves late) the submission. */
  keepMs: number;
}

/** Consecutive messages of one spec that share lane, ways, window and validity. `group` = one submission with all of them. */
export interface RunIn {
  first: number;
  end: number;
  spec: number;
  lane: number;
  group: boolean;
  window: Window | null;
  validityMs: number;
  /** Its carrier keeps the time: it may have it so long before sendAt. Absent = 0. */
  earlyMs?: number;
  /** Second choices and the SMS failover, where there are any. */
  ways?: Ways;
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
  /**
   * Refused for what the account may: [number, status id, error id]. Unlike `refused` they keep their places in the runs, so that a
   * repeated request is numbered alike whatever the account may then.
   */
  turnedAway?: [number, number, number][];
  /** The customer's own message ids: [number, id]. */
  keys: [number, string][];
  idem: { key: string; hash: string } | null;
  /** Only the first answer under `idem` is asked for: a request that had none is not stored. */
  replayOnly?: true;
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
  /** The leg that it is on, or (of an event) was on. */
  leg: Leg;
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

/** Which of a customer's ears an endpoint is: delivery reports, messages from handsets, clicks. A POST holds one kind. */
export type HookKind = 'delivery' | 'inbound' | 'click';

/** One part of an inbound message: a short text stands here, other bytes are content by hash. */
export interface InboundPart {
  contentId: string;
  contentType: string;
  size: number;
  hash: string | null;
  text: string | null;
}

/** What a handset sent, as the store takes it. */
export interface InboundIn {
  /** From `reserve`. */
  no: number;
  /** With `id` its name: a repetition is dropped for as long as the first is kept, 48 h at least. */
  carrier: string;
  id: string;
  channel: 'MMS' | 'SMS';
  /** Digits, or as the carrier wrote it; '' = not told. */
  from: string;
  to: string[];
  cc: string[];
  subject: string | null;
  priority?: Priority;
  /** The handset's model; at most 200 characters. */
  userAgent?: string;
  parts: InboundPart[];
  /** The carrier's id of the message that it answers. */
  answers: string | null;
  /** What its words ask for (`domain/optout.ts`). */
  asks: 'stop' | 'start' | null;
}

/** One inbound message as its account sees it. */
export interface InboundRow {
  no: number;
  account: number;
  carrier: string;
  channel: 'MMS' | 'SMS';
  from: string;
  /** The number of ours that it came to; '' = not told. */
  to: string;
  /** All recipients, where there were more than one. */
  group: ({ to: string } | { cc: string })[];
  subject: string | null;
  priority?: Priority;
  userAgent?: string;
  parts: InboundPart[];
  receivedAt: number;
  /** The message that it answers: named by the carrier, or the last one that this handset got from this number. */
  paired: { no: number; key: string | null } | null;
  callbackData: string | null;
  entity: string | null;
  application: string | null;
}
