/**
 * The store's contract: everything the floors of the house may ask of the cistern, in domain verbs. Two kinds of engine
 * stand behind it (SQLite in a file, PostgreSQL); `test/conformance/store.suite.ts` holds them to the same answers.
 *
 * Promises: a resolved write is committed and synced (G1); a request is accepted wholly or not at all (G2); a claim's
 * token fences every later settle (G7); the first final status wins (G4); every status change and its event are one
 * transaction. All values are plain data (they cross threads). Instants are epoch ms of the store's clock, numbers are
 * integers from `reserve`.
 *
 * Fails: expected conflicts are results. A rejected promise is a `StoreUnavailable` (disk full, closing: answer 503 and
 * try again) or a bug.
 */
import type {
  Administered,
  AdminTerms,
  AuditRow,
  Counter,
  Deed,
  Directory,
  NewSession,
  Session,
  Take,
} from '../domain/accounts.ts';
import type { ClickFlag } from '../domain/links.ts';
import type { SpeedLimit } from '../domain/message.ts';
import type { Channel } from '../domain/routing.ts';
import type { Accept, EventRow, HookKind, InboundIn, InboundRow, MessageRow, SpecRow } from '../domain/rows.ts';
import type { Window } from '../domain/schedule.ts';
import type { CarrierReport, Outcome } from '../domain/submission.ts';
import type {
  Clicked,
  ClickFigures,
  ClickIn,
  ClickScope,
  Delivery,
  DeliveryFilter,
  EndpointPut,
  EndpointSetting,
  Inbound,
  LinkRow,
  OperatorChange,
  OptOut,
  OptOutFilter,
  OwnNumber,
  Rearm,
  ReplayRange,
  Rerouted,
  Stepped,
  WebhookSettle,
  Webhooks,
} from './contract-customers.ts';

export type {
  Accept,
  EventRow,
  HookKind,
  InboundIn,
  InboundRow,
  MessageRow,
  RunIn,
  SpecIn,
  SpecRow,
} from '../domain/rows.ts';
export type {
  ClickCounts,
  Clicked,
  ClickFigures,
  ClickIn,
  ClickScope,
  Delivery,
  DeliveryFilter,
  DeliveryState,
  EndpointPut,
  EndpointSetting,
  Inbound,
  LinkRow,
  OperatorChange,
  OptOut,
  OptOutFilter,
  OwnNumber,
  Rearm,
  ReplayRange,
  Rerouted,
  Stepped,
  Webhook,
  WebhookSettle,
  Webhooks,
} from './contract-customers.ts';
export {
  CLICK_SPECS,
  CLICKS_KEPT,
  CLICKS_STEP,
  ENDPOINTS_MAX,
  PENDING_MAX,
  REARM_STEP,
  REPLAY_STEP,
  TRIES_MAX,
} from './contract-customers.ts';

/**
 * Raised when the store cannot take writes now (disk full, read-only, closing). Nothing of the verb has happened, unless `unknown`:
 * then the store was lost at the commit for longer than it waits, and the verb may have happened.
 */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable';
  readonly unknown: boolean;

  constructor(message: string, unknown = false) {
    super(message);
    this.unknown = unknown;
  }
}

/** What was stored. `optedOut`: [number, status] of those that want nothing from this sender or were turned away; absent = none. */
interface AcceptedRows {
  first: number;
  bulkId: string | null;
  bulk: number;
  duplicates: number[];
  optedOut?: [number, number][];
}

export type Accepted =
  | ({ kind: 'accepted' } & AcceptedRows)
  /** Same Idempotency-Key and body within 24 h: the first answer again, nothing stored. */
  | ({ kind: 'replayed' } & AcceptedRows)
  | { kind: 'idempotencyConflict' }
  /** `replayOnly`, and there was no such request: nothing stored. */
  | { kind: 'notReplayed' }
  | { kind: 'bulkCanceled' }
  | { kind: 'unknownUploads'; ids: string[] };

/** The leased right to submit one message (or one group). */
export interface Claim {
  token: number;
  /** Number of its first message; below 0 = the SMS leg of that message (`domain/failover.ts`). */
  leader: number;
  spec: number;
  /** Members by number, destination and the customer's own id (null = generated from `no`); one for a single message. */
  members: { no: number; to: string; key: string | null }[];
  generation: number;
  /** 1 for the first attempt. */
  attempt: number;
  /** Epoch microseconds before which its first byte must not leave. */
  notBeforeUs: number;
  /** Under a speed limit: it must leave within PACE_SLACK_MS of `notBeforeUs`, or be put back for a new turn. */
  paced: boolean;
  /** It leaves before its time, which its carrier keeps (epoch ms); absent = its time has come. */
  earliestAt?: number;
  validUntil: number;
  /** Its delivery window closes then (epoch ms): it leaves before, or is put back. Absent = never. */
  closesAt?: number;
}

export interface Claims {
  now: number;
  claims: Claim[];
  specs: SpecRow[];
  /** When this lane may have work again; null = only a hint will tell. Without claims it is after `now`: nobody can spin on it. */
  nextDue: number | null;
}

/** A submission that a carrier may be asked to call back, or to keep for longer. `leader` as in a claim. */
export interface CallBack {
  leader: number;
  members: number;
  generation: number;
  carrierMessageId: string;
  /** As its request wrote it. */
  sender: string;
  /** Its bulk was moved: it is to be delivered from this instant on (epoch ms). Absent = not at all. */
  earliestAt?: number;
}

/** The outcome of one claim's attempt. `startedAt` by the store's clock. */
export interface Settle {
  lane: number;
  token: number;
  leader: number;
  outcome: Outcome;
  startedAt: number;
  tookMs: number;
}

/** What a carrier's report was about. */
export interface Reported {
  /** False = no submission has taught that id yet: parked for 48 h, applied by the settle that teaches it. */
  known: boolean;
  /** Messages it moved or noted, at most REPORTED_MAX; `key` = the customer's own id, null = generated from `no`. */
  messages: { no: number; key: string | null }[];
}

/** Messages that the answer to a report names. */
export const REPORTED_MAX = 10;

export interface MessageFilter {
  account: number;
  /** Generated ids arrive as numbers, own ids as strings. */
  bulks?: { nos: number[]; ids: string[] };
  messages?: { nos: number[]; keys: string[] };
  sender?: string;
  destination?: string;
  generalStatus?: string;
  since?: number;
  until?: number;
  entity?: string;
  application?: string;
  campaigns?: string[];
  limit: number;
  /** Opaque place after which to go on (newest first). */
  before?: number;
}

export interface Page<Row> {
  rows: Row[];
  specs: SpecRow[];
  /** `before` of the next page; null = the end. */
  next: number | null;
}

/** Inbound messages that one story shows. */
export const ANSWERS_SHOWN = 100;

/** What holds a message that waits, besides its turn. */
export interface Gate {
  /** The first opening of its window after acceptance and sendAt. */
  opensAt: number;
  /** Of its bulk; null = none. */
  sendAt: number | null;
  window: Window | null;
  /** Its bulk has a speed limit. */
  paced: boolean;
  canceled: boolean;
}

/** The whole life of one message, oldest first. */
export interface Story {
  message: MessageRow;
  spec: SpecRow;
  attempts: {
    /** By leg. */
    n: number;
    channel: 'MMS' | 'SMS';
    at: number;
    tookMs: number;
    outcome: Outcome['kind'];
    error: number;
    words: string;
    carrier: string;
    carrierMessageId: string | null;
    transactionId: string;
  }[];
  events: { event: number; at: number; status: number; error: number; kind: 'status' | 'noted'; words: string }[];
  webhooks: {
    event: number;
    retry: number;
    at: number;
    tookMs: number;
    status: number;
    excerpt: string;
    url: string;
  }[];
  /** What handsets sent in answer to it, oldest first, at most ANSWERS_SHOWN; `text` = its first words. */
  answers: { no: number; at: number; channel: 'MMS' | 'SMS'; from: string; text: string }[];
  /** Of its shortened links, oldest first, at most CLICKS_KEPT. */
  clicks: { at: number; url: string; flag: ClickFlag | null; device: string }[];
  /** `carrier`: the one whose lane it waits on. `until`: the earliest instant at which anything of its run may leave. */
  waiting: { until: number | null; why: string; carrier?: string; gate?: Gate } | null;
  validUntil: number | null;
}

/** A bulk by its number (generated ids) or by the customer's own id. */
export type BulkName = { no: number } | { id: string };

export type BulkStatus = 'PENDING' | 'PROCESSING' | 'PAUSED' | 'CANCELED' | 'FINISHED';

/** Messages of a bulk by what became of them; `accepted` is the sum of the others. Exact, with no commit left out. */
export interface Progress {
  accepted: number;
  /** Not taken by a carrier yet (and on its way to one). */
  waiting: number;
  /** A carrier has it, or may have it; not final yet. */
  sent: number;
  delivered: number;
  /** Final without delivery: rejected, undeliverable, expired, cancelled. */
  failed: number;
}

export interface Bulk {
  no: number;
  /** The customer's own id, null = generated from `no`. */
  id: string | null;
  /** Its first request. */
  acceptedAt: number;
  /** When it may leave; the acceptance where no schedule was asked for. */
  sendAt: number;
  /** As the customer wrote it; null = none. */
  speed: SpeedLimit | null;
  status: BulkStatus;
  progress: Progress;
}

export type BulkChange =
  /** PENDING or PROCESSING -> PAUSED. */
  | { kind: 'pause' }
  /** PAUSED -> PROCESSING, or PENDING while its sendAt is ahead; again is done, but not for what was never paused. */
  | { kind: 'resume' }
  /** PENDING, PROCESSING or PAUSED -> CANCELED, for good. What was submitted runs on; the rest ends as 31. */
  | { kind: 'cancel' }
  /** PENDING or PAUSED only. The past means now. What never left starts its validity anew; what was tried keeps its own. */
  | { kind: 'reschedule'; sendAt: number }
  /** PENDING, PROCESSING or PAUSED. */
  | { kind: 'limit'; speed: SpeedLimit };

/** A change to the state that a bulk is in already is done. `conflict`: the status that forbids the change. */
export type Steered = { kind: 'done'; bulk: Bulk } | { kind: 'notFound' } | { kind: 'conflict'; status: BulkStatus };

/** An API key, known by its SHA-256 (hex) only. */
export interface Key {
  hash: string;
  account: number;
  label: string;
}

/** Content that a customer uploaded, to be referred to by `id` until `validityMs` have passed. */
export interface Upload {
  account: number;
  id: string;
  name: string;
  hash: string;
  contentType: string;
  size: number;
  validityMs: number;
}

/** One LINK segment to fetch. */
export interface MediaJob {
  spec: number;
  segment: number;
  account: number;
  url: string;
  contentType: string | null;
  tries: number;
  validUntil: number;
}

export type MediaOutcome =
  | { kind: 'ready'; hash: string; contentType: string; name: string }
  | { kind: 'failed'; error: number; words: string }
  | { kind: 'again'; afterMs: number; error: number; words: string };

/** What content became when it was fitted: bytes of their own by `hash`, or the content itself where nothing had to change. */
export interface Variant {
  hash: string;
  contentType: string;
}

/** Sizes for the metrics page; may be a second old. */
export interface Stats {
  waiting: number;
  inFlight: number;
  retries: number;
  webhooksWaiting: number;
  webhooksExhausted: number;
  pull: number;
  walBytes: number;
  /**
   * What waits (messages that were never submitted, submissions to retry) by the carrier on whose lanes, in order of its name;
   * carriers for which nothing waits are left out.
   */
  waitingAt: { carrier: string; count: number }[];
}

/** A wake-up, never a promise: `lane` work or webhooks may be waiting, or keys changed. */
export type Hint = { kind: 'lane' } | { kind: 'webhooks' } | { kind: 'media' } | { kind: 'keys' };

export interface Store {
  /** The installation's name (in transaction ids) and the key of generated ids. */
  identity(): Promise<{ install: string; idKey: string }>;
  /** A block of `count` consecutive numbers that nobody else gets; returns its first. */
  reserve(count: number): Promise<number>;
  /**
   * A lane of a carrier, made on first use. `shard` (default 0) tells its lanes apart, so that several nodes can share its
   * work. Policies are the carrier's, kept here so that a dead node's flights follow them: the newest hold on all its lanes.
   * So are its message ids: a report finds its message whatever lane submitted it.
   */
  lane(
    carrier: string,
    policy: { onUnknown: 'hold' | 'retry' | 'fail'; reports: boolean },
    shard?: number,
  ): Promise<number>;

  /**
   * A beat of `node` with the lanes it could serve; returns those it holds for `ttlMs` more. Nodes whose beat is fresh share
   * the lanes evenly, a lease that was not renewed in time is free for another's next beat. No lanes or a `ttlMs` of 0 = the
   * node leaves. A lease is efficiency, not safety: claims of two nodes on one lane pass each other. An engine of one process
   * gives all.
   */
  laneLease(node: string, lanes: number[], ttlMs: number): Promise<number[]>;

  accept(request: Accept): Promise<Accepted>;
  /** Bytes by their SHA-256 (hex). Idempotent; resolves after the commit. */
  putContent(hash: string, bytes: Uint8Array): Promise<void>;
  putUpload(upload: Upload): Promise<void>;
  /** The names of those of these uploads that are known, for a presentation that refers to them; what the accept says counts. */
  uploadNames(account: number, ids: string[]): Promise<{ id: string; name: string }[]>;
  /** Bytes of a hash, null when gone or damaged (checked against the hash). */
  content(hash: string): Promise<Uint8Array | null>;
  /**
   * What the content `source` became under `profile` (a name of the fitter's own, at most 100 characters), null where it was
   * never fitted so. Kept as long as `source` is referred to, and a day.
   */
  variant(source: string, profile: string): Promise<Variant | null>;
  /** Keeps that; its bytes were put before. The newest holds. */
  putVariant(source: string, profile: string, variant: Variant): Promise<void>;

  claim(lane: number, limit: number, leaseMs: number): Promise<Claims>;
  /** False = the token was stale; only the carrier's id was learnt. */
  settle(settle: Settle): Promise<boolean>;
  /**
   * Put claims back untouched (shutdown, throttled lane): they are first in line again at `until`. `elsewhere`: those that have a
   * choice behind this lane go there, now (a carrier that is down). Returns how many did.
   */
  release(claims: { token: number; leader: number }[], until: number, elsewhere?: boolean): Promise<number>;
  /** A report moves or notes a message, or is parked. */
  report(report: CarrierReport): Promise<Reported>;

  /** One bounded step each of expiry, lost leases, drains and retention; true = more is left. */
  sweep(): Promise<boolean>;

  mediaNext(limit: number, leaseMs: number): Promise<{ now: number; jobs: MediaJob[]; nextDue: number | null }>;
  mediaSettle(job: { spec: number; segment: number }, outcome: MediaOutcome): Promise<void>;

  /**
   * At most `limit` POSTs to make, endpoints taking turns. An endpoint has at most 8 leases open at a time (1 after five
   * failures in a row, until a try succeeds), so one that hangs cannot take all slots of its caller.
   */
  webhookNext(limit: number, leaseMs: number): Promise<Webhooks>;
  /** False = the lease was lost or the POST is settled already. */
  webhookSettle(settle: WebhookSettle): Promise<boolean>;

  /**
   * Finals that no webhook is due for, each handed out once (G16), for 48 h (7 days where a webhook was exhausted). Newest
   * first; `next` is always null: ask again for more.
   */
  takeReports(filter: MessageFilter): Promise<Page<EventRow>>;
  /**
   * Brings back what was taken from a pull list, for as long as it could have been pulled: a bounded step, true = more is left.
   * `count` = rows that can be pulled again.
   */
  rearm(what: Rearm): Promise<{ count: number; more: boolean }>;

  /** Webhooks with their tries, newest first. A page may hold fewer than asked for although `next` goes on. */
  webhookDeliveries(filter: DeliveryFilter): Promise<{ deliveries: Delivery[]; next: number | null }>;
  /**
   * Makes one webhook due now, with the same bytes and id: one that ended begins its cycle of retries again, an open one is tried
   * at once. False = the account has no such webhook.
   */
  webhookReplay(account: number, no: number): Promise<boolean>;
  /** The same for a range of those that ended: a bounded step, oldest first. */
  webhookReplayRange(range: ReplayRange): Promise<Stepped>;

  /** Settings of an account's endpoints, by kind and URL. */
  endpointList(account: number): Promise<EndpointSetting[]>;
  /** The settings as they are then; null = the account has ENDPOINTS_MAX of them. */
  endpointPut(put: EndpointPut): Promise<EndpointSetting | null>;
  /** Its webhooks stay, unsigned and with no headers of their own. False = there were no settings. */
  endpointDelete(account: number, kind: HookKind, url: string): Promise<boolean>;

  /**
   * Takes what a handset sent: finds the account by the number, the message that it answers, records what it asks for (STOP), and
   * hands it to the number's endpoint, the account's default one, or the inbox. Idempotent by (carrier, id).
   */
  inbound(message: InboundIn): Promise<Inbound>;
  /** Inbound messages that no webhook is due for, each handed out once (G16), oldest first, for 7 days. */
  takeInbox(filter: { account: number; limit: number; entity?: string; application?: string }): Promise<InboundRow[]>;
  /** One part of an inbound message; null = gone. */
  inboundPart(no: number, part: number): Promise<{ hash: string; contentType: string } | null>;

  /** Numbers of ours (the operator's to set: `administer`), by number; `account` leaves out others'. */
  numberList(account?: number): Promise<OwnNumber[]>;

  /** Adds (or takes away) opt-outs; returns how many are new (or gone). At most 1000 a call. */
  optOutPut(account: number, list: { sender: string; destination: string }[]): Promise<number>;
  optOutDelete(account: number, list: { sender: string; destination: string }[]): Promise<number>;
  optOutList(filter: OptOutFilter): Promise<OptOut[]>;
  /** A page may hold fewer rows than asked for although `next` goes on: a search stops to let others read. */
  logs(filter: MessageFilter): Promise<Page<MessageRow>>;
  /** By number, or by the customer's own id. */
  story(account: number, id: { no: number } | { key: string }): Promise<Story | null>;
  /**
   * Events after `after` (0 = from now, below = from the first), oldest first, at most `limit`: the live feed. `last` is above
   * 0 and what to give next, whether there were rows or not.
   */
  feed(account: number, after: number, limit: number): Promise<{ rows: EventRow[]; specs: SpecRow[]; last: number }>;

  /** A bulk as it stands, also one that was never steered; null = no such bulk of the account. */
  bulkGet(account: number, bulk: BulkName): Promise<Bulk | null>;
  /**
   * Bulks that have a name, a schedule or a speed limit, or were steered; newest first, `before` = number after which to go on.
   * A page may hold fewer than asked for although `next` goes on.
   */
  bulkList(account: number, limit: number, before?: number): Promise<{ bulks: Bulk[]; next: number | null }>;
  /**
   * Changes a bulk, all of `changes` or (notFound, conflict) none. O(1) for the bulk: what follows for its messages is brought
   * to them by `sweep` in bounded steps; none that waits is claimed against the change from its commit on.
   */
  bulkSteer(account: number, bulk: BulkName, changes: BulkChange[]): Promise<Steered>;

  /**
   * What waits for the carrier `from` (one that left the configuration) waits for `to`: one bounded step, `count` = numbers that
   * went over (those of repeated ids too), `next` null = nothing is left that may. What may have reached `from` stays. `channel` is that of `to`: where
   * something else waits nothing goes over. Null = there is no such carrier, or both are one.
   */
  reroute(from: string, to: string, channel?: Channel): Promise<Rerouted | null>;
  /**
   * What a lane's carrier has of cancelled bulks and may be asked to call back, and what it has early of bulks that were moved: each
   * is given once, best effort, within a day. It moves no status: only a report or the end of validity tells what became of it.
   */
  callBacks(lane: number, limit: number): Promise<CallBack[]>;
  /** What came of it, noted in the stories of those of its messages that are still out. */
  calledBack(leader: number, members: number, words: string): Promise<void>;

  /** The links of the spec that has the message `no`; null = it has none, or they have expired for a year. */
  link(no: number): Promise<LinkRow | null>;
  /** Of these messages those that have links, also after they themselves have left; at most CLICKS_STEP. */
  clicked(nos: number[]): Promise<Clicked[]>;
  /** Counts clicks and hands those with a body to the endpoint of their message. At most CLICKS_STEP. */
  click(clicks: ClickIn[]): Promise<void>;
  /** Null = nothing of the account is known by that name and has links. */
  clicks(account: number, scope: ClickScope): Promise<ClickFigures | null>;

  /** Everything that the operator decided; null = it is as of revision `known` (below 0 = nothing is known). */
  directory(known: number): Promise<Directory | null>;
  /** All of `changes` or none, with a line in the audit log where anything was done. Hints `keys`. */
  administer(changes: OperatorChange[], deed: Deed, terms?: AdminTerms): Promise<Administered>;
  /** The audit log, newest first; `before` = number of a line after which to go on. */
  auditLog(limit: number, before?: number): Promise<AuditRow[]>;
  sessionPut(session: NewSession): Promise<void>;
  /** A session that has not ended, and used it is; null = there is none. */
  sessionUse(hash: string): Promise<Session | null>;
  sessionDelete(hash: string): Promise<boolean>;
  /** Shares of counters, each as much as was there to give (at most TAKES_MAX). Exact over all nodes. */
  quota(takes: Take[]): Promise<number[]>;
  /** What counters stand at (at most TAKES_MAX); shares that nodes hold and have not used yet count as used. */
  quotaUsed(counters: Counter[]): Promise<number[]>;

  keys(): Promise<Key[]>;
  /** Adds a key; `replace` drops other keys of that account with the same label. */
  putKey(key: Key, replace: boolean): Promise<void>;

  stats(): Promise<Stats>;
  onHint(listener: (hint: Hint) => void): void;
  close(): Promise<void>;
}

/**
 * What an engine keeps of content whose bytes lie elsewhere (`blobs.ts`); a place is the name that they have there. `place` null =
 * the bytes are in the engine. Content, in whatever place, is dropped when nothing has referred to it for a day.
 */
export interface ContentIndex {
  /** Where it lies; null = not known. */
  contentAt(hash: string): Promise<{ place: string | null } | null>;
  /** Likewise, and it counts as put now. */
  contentUsed(hash: string): Promise<{ place: string | null } | null>;
  /** It lies at `place`, unless it is known already: what is answered holds. */
  contentPlaced(hash: string, place: string): Promise<{ place: string | null }>;
  /** Places whose content was dropped and that are not gone yet. */
  placesLost(limit: number): Promise<string[]>;
  placesGone(places: string[]): Promise<void>;
}
