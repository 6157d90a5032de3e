/**
 * The shapes of a request: what a customer may send to POST /mms/2/messages, as it stands on the wire after validation
 * (unknown fields gone, nothing else changed). Pure types; `api/schema.ts` proves its schema equal to them.
 *
 * Source: Infobip MMS API v2, request body of "Send MMS messages".
 */
import type { SpecPrices } from './prices.ts';

/** One element of `content.messageSegments`. `contentId` names it within the message (SMIL `src`). */
export type Segment =
  | { type: 'TEXT'; contentId?: string; text: string }
  | { type: 'LINK'; contentId?: string; contentUrl: string; contentType?: string }
  | { type: 'SMIL'; contentId?: string; smil: string; contentType: string }
  | { type: 'UPLOADED_REFERENCE'; contentId?: string; uploadedContentId: string };

/** What a handset shows: a subject and the segments in their order. */
export interface Content {
  /** 0..66 code points; becomes the MM's Subject. */
  title?: string;
  messageSegments: Segment[];
}

/** `messageId`: the customer's own id, 0..200 code points, unique per account for at least 48 h. Empty = absent. */
export interface SingleDestination {
  to: string;
  messageId?: string;
}

/** One group MMS: 1..200 members, one submission, an entry, a status and a report each. */
export interface GroupDestination {
  group: SingleDestination[];
}

export type Destination = SingleDestination | GroupDestination;

/** Longer than 48 h is clamped to 48 h, never an error; unit defaults to MINUTES. */
export interface ValidityPeriod {
  amount: number;
  timeUnit?: 'SECONDS' | 'MINUTES' | 'HOURS';
}

export type Day = 'MONDAY' | 'TUESDAY' | 'WEDNESDAY' | 'THURSDAY' | 'FRIDAY' | 'SATURDAY' | 'SUNDAY';

/** A time of day in UTC; a missing minute is 0. */
export interface TimeOfDay {
  hour: number;
  minute?: number;
}

/** `from` and `to` come together or not at all (= the whole UTC day); `to` before `from` wraps past midnight. */
export interface DeliveryTimeWindow {
  days: Day[];
  from?: TimeOfDay;
  to?: TimeOfDay;
}

/** What single countries' rules ask for. `resellerCode`: int32, 0 or more. */
export interface Regional {
  southKorea?: { resellerCode?: number };
}

/** The SMS that follows when the MMS failed for good; `sender` defaults to the message's. */
export interface SmsFailover {
  sender?: string;
  text: string;
  validityPeriod?: ValidityPeriod;
  regional?: Regional;
}

/** How one message is to be treated; all of it is stored, whatever is already honoured. */
export interface MessageOptions {
  platform?: { entityId?: string; applicationId?: string };
  validityPeriod?: ValidityPeriod;
  deliveryTimeWindow?: DeliveryTimeWindow;
  smsFailover?: SmsFailover;
  regional?: Regional;
  campaignReferenceId?: string;
}

export type ReportContentType = 'application/json' | 'application/xml';

/** Where and in which form the customer is told of the message. */
export interface Webhooks {
  /** `contentType` belongs to `webhooks`; clients in production put it here, so it is taken from both places. */
  delivery?: { url?: string; intermediateReport?: boolean; notify?: boolean; contentType?: ReportContentType };
  contentType?: ReportContentType;
  /** 0..4000 code points, copied into every report and click. */
  callbackData?: string;
}

/** One element of `messages`. */
export interface MessageRequest {
  sender: string;
  destinations: Destination[];
  content: Content;
  options?: MessageOptions;
  webhooks?: Webhooks;
}

/** At most `amount` (1 or more) submissions in any `timeUnit` (default MINUTE) of a bulk. */
export interface SpeedLimit {
  amount: number;
  timeUnit?: 'MINUTE' | 'HOUR' | 'DAY';
}

/** When and how fast the messages of a request leave, and the bulk that they form or join. */
export interface Schedule {
  bulkId?: string;
  /** As received: yyyy-MM-dd'T'HH:mm:ss[.SSS](Z|+hhmm|+hh:mm), at most 180 days ahead; in the past = now. */
  sendAt?: string;
  sendingSpeedLimit?: SpeedLimit;
}

/** What is done with the links in a message's texts. */
export interface Tracking {
  shortenUrl?: boolean;
  trackClicks?: boolean;
  trackingUrl?: string;
  removeProtocol?: boolean;
  customDomain?: string;
}

/** The body of POST /mms/2/messages. */
export interface SendRequest {
  messages: MessageRequest[];
  options?: { schedule?: Schedule; tracking?: Tracking };
}

/**
 * What is stored once for all destinations of one element of `messages`: that element without its destinations, and the
 * request's tracking options. Kept as JSON; no accepted field is dropped.
 */
export interface Spec extends Omit<MessageRequest, 'destinations'> {
  tracking?: Tracking;
  /** What its messages cost when they were accepted; absent = nothing. Not the customer's. */
  prices?: SpecPrices;
  /** The URLs in its texts that are shortened, by their place in tokens (`links.ts`); absent = none. */
  links?: string[];
  /** Segments of its SMS as it leaves, where short links make them more or fewer; absent = those of its text. Not the customer's. */
  smsSegments?: number;
}
