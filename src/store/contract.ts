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
  /** Members by number and destination; one for a single message. */
  members: { no: number; to: string }[];
  generation: number;
  /** 1 for the first attempt. */
  attempt: number;
  /** Epoch microseconds before which its first byte must not leave. */
  notBeforeUs: number;
  validUntil: number;
}

export interface Claims {
  now: number;
  claims: Claim[];
  specs: SpecRow[];
  /** When this lane may have work again; null = only a hint will tell. */
  nextDue: number | null;
}

export interface Settle {
  lane: number;
  token: number;
  leader: number;
  outcome: Outcome;
  startedAt: number;
  tookMs: number;
}

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

export interface Key {
  hash: string;
  account: number;
  label: string;
}

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
  /** The lane of a carrier, made on first use; policies are kept beside it so that a dead node's flights follow them. */
  lane(carrier: string, policy: { onUnknown: 'hold' | 'retry' | 'fail'; reports: boolean }): Promise<number>;

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
  /** True = it moved or noted a message, false = parked (unknown id). */
  report(report: CarrierReport): Promise<boolean>;

  /** One bounded step each of expiry, lost leases, drains and retention; true = more is left. */
  sweep(): Promise<boolean>;

  mediaNext(limit: number, leaseMs: number): Promise<{ now: number; jobs: MediaJob[]; nextDue: number | null }>;
  mediaSettle(job: { spec: number; segment: number }, outcome: MediaOutcome): Promise<void>;

  webhookNext(limit: number, leaseMs: number): Promise<Webhooks>;
  webhookSettle(settle: WebhookSettle): Promise<boolean>;

  /** Finals that no webhook is due for, each handed out once (G16). Newest first. */
  takeReports(filter: MessageFilter): Promise<Page<EventRow>>;
  logs(filter: MessageFilter): Promise<Page<MessageRow>>;
  /** By number, or by the customer's own id. */
  story(account: number, id: { no: number } | { key: string }): Promise<Story | null>;
  /** Events after `after` (0 = from now), oldest first, at most `limit`: the live feed. */
  feed(account: number, after: number, limit: number): Promise<{ rows: EventRow[]; specs: SpecRow[]; last: number }>;

  /** Pause or resume a bulk; null = no such bulk. O(1) whatever its size. */
  bulkSteer(account: number, bulkId: { no: number } | { id: string }, to: 'PAUSED' | 'PROCESSING'): Promise<boolean>;

  keys(): Promise<Key[]>;
  /** Adds a key; `replace` drops other keys of that account with the same label. */
  putKey(key: Key, replace: boolean): Promise<void>;

  stats(): Promise<Stats>;
  onHint(listener: (hint: Hint) => void): void;
  close(): Promise<void>;
}
