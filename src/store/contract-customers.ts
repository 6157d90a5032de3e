/**
 * The second half of the store's contract: the shapes of what customers hear and say. Webhooks and their endpoints, messages from
 * handsets, opt-outs, what is handed out again, short links and clicks. `contract.ts` has the queue, the reads and the verbs.
 */
import type { AdminChange } from '../domain/accounts.ts';
import type { ClickFlag } from '../domain/links.ts';
import type { EventRow, HookKind, InboundRow, SpecRow } from '../domain/rows.ts';

/** One POST to make: formed once from its events; `body` holds the very bytes once a try has failed. */
export interface Webhook {
  no: number;
  token: number;
  account: number;
  kind: HookKind;
  endpoint: {
    no: number;
    url: string;
    contentType: string;
    /** Those valid now, newest first: a signature with each. */
    secrets: string[];
    /** The account's own headers for this URL. */
    headers: Record<string, string>;
  };
  /** 0 = the first try, n = retry n. */
  retry: number;
  /** Of a click: its event's words, which whoever recorded it has formed. */
  body: string | null;
  /** Of the kind `delivery`; else empty. */
  events: EventRow[];
  /** Of the kind `inbound`; else empty. */
  inbound: InboundRow[];
  /** Inbound messages that wait for this endpoint and go with no POST of this call, at most PENDING_MAX. */
  pending: number;
}

/** What is counted of what waits behind a POST. */
export const PENDING_MAX = 1000;

/** What `webhookNext` hands out, with the specs of its events. */
export interface Webhooks {
  now: number;
  webhooks: Webhook[];
  specs: SpecRow[];
  nextDue: number | null;
}

export interface WebhookSettle {
  no: number;
  token: number;
  ok: boolean;
  /** HTTP status, 0 = no answer. */
  status: number;
  tookMs: number;
  /** First bytes of the answer or the failure in words. */
  excerpt: string;
  body: string | null;
}

/** How an account's own endpoint is spoken to; also for messages that name the same URL themselves. */
export interface EndpointSetting {
  kind: HookKind;
  url: string;
  contentType: string;
  /** Takes what names no URL of its own; at most one a kind. */
  isDefault: boolean;
  /** Newest first; `until` = when an old one ends, null = the present one. At most two. */
  secrets: { secret: string; until: number | null }[];
  headers: Record<string, string>;
}

/** A change of an endpoint's settings; made where there were none. What is absent stays as it is. */
export interface EndpointPut {
  account: number;
  kind: HookKind;
  url: string;
  contentType?: string;
  isDefault?: boolean;
  headers?: Record<string, string>;
  /** Null = no signature any more. A new one makes the present one old: it signs too for `oldForMs` more. */
  secret?: { value: string; oldForMs: number } | null;
  /**
   * The same secrets and headers in other words (sealed anew), where those there are still `from`; with nothing else, and it makes no
   * settings where there are none (null).
   */
  reworded?: { from: Pick<EndpointSetting, 'secrets' | 'headers'>; to: Pick<EndpointSetting, 'secrets' | 'headers'> };
}

/** Endpoints that one account may have settings for. */
export const ENDPOINTS_MAX = 200;

/** One change by the operator: of what the domain knows, or of an account's endpoints. */
export type OperatorChange =
  | AdminChange
  | { kind: 'endpoint'; put: EndpointPut }
  | { kind: 'endpointDrop'; account: number; hook: HookKind; url: string };

export type DeliveryState = 'OPEN' | 'DELIVERED' | 'EXHAUSTED';

/** One webhook with its tries, as it is kept after its end: delivered ones as long as messages, exhausted ones 7 days. */
export interface Delivery {
  no: number;
  kind: HookKind;
  url: string;
  contentType: string;
  state: DeliveryState;
  formedAt: number;
  /** When it is tried next (by the latest); null = not any more. */
  nextTry: number | null;
  endedAt: number | null;
  /** What it tells of: messages of ours or, of the kind `inbound`, messages from handsets. */
  messages: { no: number; key: string | null }[];
  /** Oldest first, at most TRIES_MAX. */
  tries: { at: number; tookMs: number; status: number; excerpt: string }[];
}

/** Tries kept of one webhook; further ones take the place of the last. */
export const TRIES_MAX = 100;

export interface DeliveryFilter {
  account: number;
  message?: { no: number } | { key: string };
  /** The endpoint's URL. */
  url?: string;
  state?: DeliveryState;
  limit: number;
  /** Number of a webhook after which to go on (newest first). */
  before?: number;
}

/** Which webhooks to make again. */
export interface ReplayRange {
  account: number;
  /** Formed in [from, to]; absent = all that are kept. */
  from?: number;
  to?: number;
  url?: string;
  state?: 'DELIVERED' | 'EXHAUSTED';
  /** Number of a webhook after which to go on (oldest first). */
  after?: number;
}

/** Webhooks that one step of a replay looks at. */
export const REPLAY_STEP = 500;

/** One bounded step: how many are due again, and where to go on; null = the end. */
export interface Stepped {
  count: number;
  next: number | null;
}

/** A step of `reroute`. `otherChannel`: what waits cannot go there, and nothing went. */
export interface Rerouted extends Stepped {
  otherChannel?: true;
}

/** A number of the operator's: whose messages from handsets are, and where they go. */
export interface OwnNumber {
  number: string;
  account: number;
  /** Null = the account's default endpoint, '' = only pulled. */
  url: string | null;
  entity: string | null;
  application: string | null;
  callbackData: string | null;
}

export type Inbound =
  /** `owned` = its number is known; else it went to the first account. `recorded`: what the handset asks for changed the list. */
  | { kind: 'stored'; no: number; account: number; owned: boolean; recorded: boolean }
  /** `no` = the number of the first. */
  | { kind: 'duplicate'; no: number };

/** A handset (or whoever wrote the list) wants nothing from a sender; sender '' = from none of the account's. */
export interface OptOut {
  sender: string;
  destination: string;
  at: number;
  source: 'handset' | 'list';
}

/** Which opt-outs to show, in order of destination and sender. */
export interface OptOutFilter {
  account: number;
  sender?: string;
  destination?: string;
  limit: number;
  after?: { destination: string; sender: string };
}

/** What was pulled and is to be pulled again, since its answer was lost: taken in [from, to], or of one message. */
export interface Rearm {
  account: number;
  kind: 'reports' | 'inbox';
  from?: number;
  to?: number;
  message?: { no: number } | { key: string };
}

/** Rows that one step of a re-arm brings back. */
export const REARM_STEP = 1000;

/** The shortened links of one spec; they outlive its messages. */
export interface LinkRow {
  /** Numbers of its messages: [first, end). */
  first: number;
  end: number;
  account: number;
  bulk: number;
  /** Null = generated from `bulk`. */
  bulkId: string | null;
  entity: string | null;
  application: string | null;
  callbackData: string | null;
  /** By their place in tokens. */
  urls: string[];
  clicks: boolean;
  /** Of the message that was asked for, and the least that others of it have; null = it has not been sent yet. */
  expiresAt: number | null;
}

/** Who a click is about. `doneAt`: when it was delivered, null = it is not known to be. */
export interface Clicked {
  no: number;
  to: string;
  key: string | null;
  doneAt: number | null;
}

/** One look at a short link. */
export interface ClickIn {
  no: number;
  link: number;
  at: number;
  /** Null = a human's. */
  flag: ClickFlag | null;
  /** What opened it, in words for the story. */
  device: string;
  /** The body of its webhook; null = it is not reported. */
  body: string | null;
}

/** Clicks of one message that the story shows and that are reported, and those that are counted beyond. */
export const CLICKS_KEPT = 1000;

/** Whose clicks are counted. */
export type ClickScope =
  | { message: { no: number } | { key: string } }
  | { bulk: { no: number } | { id: string } }
  | { campaign: string };

/** `unique`: messages (of one link: messages by that link) with a human click. `flagged` counts beside `total`. */
export interface ClickCounts {
  total: number;
  unique: number;
  flagged: number;
}

/** `links`: by URL, those with most clicks first; of the newest CLICK_SPECS specs where there are more (`cut`). */
export interface ClickFigures extends ClickCounts {
  links: ({ url: string } & ClickCounts)[];
  cut: boolean;
}

/** Clicks of one call. */
export const CLICKS_STEP = 500;

/** Specs whose single links one answer looks at. */
export const CLICK_SPECS = 1000;
