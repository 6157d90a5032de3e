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
import type { SpeedLimit } from '../domain/message.ts';
import type { Accept, EventRow, MessageRow, SpecRow } from '../domain/rows.ts';
import type { CarrierReport, Outcome } from '../domain/submission.ts';

export type { Accept, EventRow, MessageRow, RunIn, SpecIn, SpecRow } from '../domain/rows.ts';

/** Raised when the store cannot take writes now (disk full, read-only, closing). Nothing of the verb has happened. */
export class StoreUnavailable extends Error {
  override readonly name = 'StoreUnavailable';
}

export type Accepted =
  | { kind: 'accepted'; first: number; bulkId: string | null; bulk: number; duplicates: number[] }
  /** Same Idempotency-Key and body within 24 h: the first answer again, nothing stored. */
  | { kind: 'replayed'; first: number; bulkId: string | null; bulk: number; duplicates: number[] }
  | { kind: 'idempotencyConflict' }
  | { kind: 'bulkCanceled' }
  | { kind: 'unknownUploads'; ids: string[] };

/** The leased right to submit one message (or one group). */
export interface Claim {
  token: number;
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
  validUntil: number;
}

export interface Claims {
  now: number;
  claims: Claim[];
  specs: SpecRow[];
  /** When this lane may have work again; null = only a hint will tell. */
  nextDue: number | null;
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

/** One POST to make: formed once from its events; `body` holds the very bytes once a try has failed. */
export interface Webhook {
  no: number;
  token: number;
  account: number;
  endpoint: { no: number; url: string; contentType: string; secret: string | null };
  /** 0 = the first try, n = retry n. */
  retry: number;
  body: string | null;
  events: EventRow[];
}

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

/** The whole life of one message, oldest first. */
export interface Story {
  message: MessageRow;
  spec: SpecRow;
  attempts: {
    n: number;
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
  waiting: { until: number | null; why: string } | null;
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
  /** PAUSED -> PROCESSING, or PENDING while its sendAt is ahead. */
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
  url: string;
  contentType: string | null;
  tries: number;
  validUntil: number;
}

export type MediaOutcome =
  | { kind: 'ready'; hash: string; contentType: string; name: string }
  | { kind: 'failed'; error: number; words: string }
  | { kind: 'again'; afterMs: number; error: number; words: string };

/** Sizes for the metrics page; may be a second old. */
export interface Stats {
  waiting: number;
  inFlight: number;
  retries: number;
  webhooksWaiting: number;
  webhooksExhausted: number;
  pull: number;
  walBytes: number;
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
  /** Bytes of a hash, null when gone or damaged (checked against the hash). */
  content(hash: string): Promise<Uint8Array | null>;

  claim(lane: number, limit: number, leaseMs: number): Promise<Claims>;
  /** False = the token was stale; only the carrier's id was learnt. */
  settle(settle: Settle): Promise<boolean>;
  /** Put claims back untouched (shutdown, throttled lane): they are first in line again at `until`. */
  release(claims: { token: number; leader: number }[], until: number): Promise<void>;
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

  keys(): Promise<Key[]>;
  /** Adds a key; `replace` drops other keys of that account with the same label. */
  putKey(key: Key, replace: boolean): Promise<void>;

  stats(): Promise<Stats>;
  onHint(listener: (hint: Hint) => void): void;
  close(): Promise<void>;
}
