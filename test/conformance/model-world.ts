/**
 * What the model store knows: plain rows in maps and arrays, one object a message, and nothing that could be worked out from
 * the rest. The model says what the store's contract means in the simplest way there is; engines are compared with it.
 *
 * Promises nothing about speed: every question looks at everything. Fails: a lookup of what must be there throws.
 */
import { optOutStatus, senderKey } from '../../src/domain/optout.ts';
import type { State } from '../../src/domain/status.ts';
import type { CarrierReport, Outcome } from '../../src/domain/submission.ts';
import type {
  EndpointSetting,
  Hint,
  HookKind,
  InboundRow,
  OptOut,
  OwnNumber,
  RunIn,
  SpecIn,
  Story,
  Upload,
  Variant,
} from '../../src/store/contract.ts';
import type { BulkState } from '../../src/store/steering.ts';

/** A bulk that has a row: named, scheduled, limited, joined or steered. */
export interface Bulk extends BulkState {
  no: number;
  account: number;
  id: string | null;
  acceptedAt: number;
}

export interface Media {
  segment: number;
  url: string | null;
  contentType: string | null;
  name: string | null;
  /** Null = still to be fetched. */
  hash: string | null;
  tries: number;
  /** Why the last try failed, while it is still tried. */
  words: string | null;
  /** Next try or end of the lease; null = nobody fetches it. */
  due: number | null;
}

export interface Spec extends Omit<SpecIn, 'uploads' | 'links'> {
  no: number;
  account: number;
  bulk: number;
  acceptedAt: number;
  /** Where its reports go; null = the pull list. */
  endpointOf: Endpoint | null;
  media: Media[];
}

/** Messages of one request that share sendAt, window, validity and media, as they were accepted. */
export interface Run extends RunIn {
  account: number;
  bulk: number;
  acceptedAt: number;
  sendAt: number | null;
  /** Moves of its bulk's sendAt before it was accepted. */
  moves: number;
  /** Its bulk had a speed limit when it was accepted. */
  limited: boolean;
  submissions: Submission[];
  /** Its content cannot be had. */
  failed: { error: number; words: string } | null;
  /** Of an SMS: an attempt of its MMS may be open until then. */
  notBefore: number;
}

export type Attempt = Omit<Story['attempts'][number], 'carrier' | 'channel' | 'transactionId'> & {
  generation: number;
  lane: number;
};

/** What is handed over at once: a message, or a group. */
export interface Submission {
  /** Its first number (also where that message is a duplicate that has no row). */
  leader: number;
  /** Numbers that it spans. */
  span: number;
  run: Run;
  /** Where it waits: its run's, or another carrier's. */
  lane: number;
  /** 0 = MMS, 1 = SMS. */
  leg: 0 | 1;
  messages: Message[];
  /** Never claimed; claimed; to be claimed again at `due`; nothing more to send. */
  stage: 'fresh' | 'flying' | 'waiting' | 'over';
  token: number;
  leaseUntil: number;
  due: number;
  /** Attempts made; a claim that was put back and an answer "wait" are none. */
  attempts: number;
  generation: number;
  /** It was held for a report once. */
  held: boolean;
  /** Members of the last attempt. */
  sent: number;
  /** Fixed by its first claim, unless it was put back before anything of it left. */
  validUntil: number | null;
  /** Its turn under the speed limit passed unused, and its validity ended. */
  passed: boolean;
  /** The bulk's next turn before and after its claim took some, in microseconds. */
  turn: { before: number; after: number } | null;
  tries: Attempt[];
}

export interface Message {
  no: number;
  account: number;
  spec: Spec;
  /** Of the leg that it is on; null = refused at the door. */
  submission: Submission | null;
  /** Of its MMS. */
  first: Submission | null;
  leg: 0 | 1;
  to: string;
  key: string | null;
  state: State;
  status: number;
  error: number;
  sentAt: number | null;
  doneAt: number | null;
  /** In flight when its validity ended: looked at again then. */
  lookAt: number;
  /** In flight when its bulk was cancelled: looked at again then. */
  recallAt: number;
  /** Its bulk was cancelled, and what was to be done about it is done. */
  recalled: boolean;
}

export interface Event {
  no: number;
  account: number;
  /** What it tells of: one of these two. */
  message: Message | null;
  inbound: InboundRow | null;
  at: number;
  status: number;
  error: number;
  kind: 'status' | 'noted' | 'inbound' | 'click';
  /** 2 = the end of an MMS that an SMS followed. */
  leg: 0 | 1 | 2;
  /** Of a click: the number of its message, which may have left. */
  about?: number;
  words: string;
  final: boolean;
  /** Who is to be told; null = nobody, it is pulled. */
  endpoint: Endpoint | null;
  /** On its way to that endpoint until its POST has ended. */
  open: boolean;
  post: Post | null;
}

export interface Endpoint {
  no: number;
  kind: HookKind;
  account: number;
  url: string;
  contentType: string;
  /** Failed tries in a row. */
  fails: number;
  /** The last POST formed was a fresh one. */
  fresh: boolean;
  servedAt: number;
}

export interface Post {
  no: number;
  endpoint: Endpoint;
  state: 'open' | 'delivered' | 'exhausted';
  retry: number;
  token: number;
  leased: boolean;
  /** End of the lease, else the next try. */
  due: number;
  at: number;
  endedAt: number | null;
  events: Event[];
  body: string | null;
  tries: { retry: number; at: number; tookMs: number; status: number; excerpt: string }[];
}

/** A place in a pull list: of reports, or of the inbox. */
export interface Pull {
  event: Event;
  until: number;
}

/** What a carrier may be asked about a submission that it has. */
export interface Asked {
  leader: number;
  lane: number;
  at: number;
  generation: number;
  /** The carrier's id; empty = it was in flight, and is looked up when it has been taken. */
  ref: string;
  /** Kept until then; null = called back. */
  earliestAt: number | null;
}

export interface Parked {
  carrier: string;
  ref: string;
  at: number;
  report: CarrierReport;
}

export interface Policy {
  onUnknown: 'hold' | 'retry' | 'fail';
  reports: boolean;
}

export type World = ReturnType<typeof createWorld>;

/** An empty store at an instant. */
export function createWorld(start: number) {
  let ticks = 0;
  const listeners: ((hint: Hint) => void)[] = [];
  const world = {
    now: start,
    retentionMs: 7 * 86_400_000,
    nextNumber: 1,
    lanes: [] as { no: number; carrier: string; shard: number }[],
    policies: new Map<string, Policy>(),
    bulks: new Map<number, Bulk>(),
    specs: new Map<number, Spec>(),
    runs: new Map<number, Run>(),
    messages: new Map<number, Message>(),
    /** `account key` of the customer's own ids. */
    keys: new Map<string, Message>(),
    idem: new Map<string, { hash: string; at: number; answer: string }>(),
    uploads: new Map<string, Upload & { expiresAt: number }>(),
    /** `carrier ref`, to the submission it names. */
    refs: new Map<string, { leader: number; span: number }>(),
    parked: [] as Parked[],
    /** By leader: one question about a submission at a time, the newest. */
    asked: new Map<number, Asked>(),
    events: [] as Event[],
    lastEvent: 1,
    endpoints: [] as Endpoint[],
    posts: [] as Post[],
    pulls: [] as Pull[],
    /** What was pulled, and when. */
    taken: [] as (Pull & { at: number })[],
    settings: [] as (EndpointSetting & { account: number })[],
    /** `carrier id` of messages from handsets. */
    inbounds: new Map<string, InboundRow>(),
    numbers: new Map<string, OwnNumber>(),
    optOuts: [] as (OptOut & { account: number })[],
    /** `account sender destination`: the last message that this handset got from this number. */
    conversations: new Map<string, Message>(),
    accounts: new Set<number>(),
    content: new Map<string, { at: number; bytes: Uint8Array }>(),
    variants: new Map<string, { at: number; source: string; variant: Variant }>(),
    /** Who was served when: `account lane`, `line`, `run`, for fair turns. */
    served: new Map<string, number>(),
    lastWasRetry: new Set<string>(),
    retainAt: 0,
    /**
     * Where the contract leaves a choice (whose turn it is among those that are due), these come first, in this order. The
     * comparison sets it to what an engine chose, so that model and engine go on from the same state.
     */
    prefer: [] as (string | number)[],
    /** Low = first. */
    rank(name: string | number): number {
      const at = world.prefer.indexOf(name);
      return at < 0 ? Number.POSITIVE_INFINITY : at;
    },

    /** Never given twice: tokens, and places in a turn. */
    tick: (): number => ++ticks,
    hint(kind: Hint['kind']): void {
      for (const listener of listeners) listener({ kind });
    },
    onHint: (listener: (hint: Hint) => void): void => void listeners.push(listener),

    /** The status of a message to one who wants nothing from this sender, or from none; null = it is wanted. */
    unwanted(account: number, sender: string, destination: string): 10 | 14 | null {
      const mine = world.optOuts.filter((one) => one.account === account && one.destination === destination);
      const found = ['', senderKey(sender)].find((key) => mine.some((one) => one.sender === key));
      return found === undefined ? null : optOutStatus(found);
    },
    bulkOf: (run: Run): Bulk | null => world.bulks.get(run.bulk) ?? null,
    submission(leader: number): Submission | null {
      for (const run of world.runs.values()) {
        if (leader < run.first || leader >= run.end) continue;
        return run.submissions.find((one) => one.leader === leader) ?? null;
      }
      return null;
    },
    submissions(): Submission[] {
      return [...world.runs.values()].flatMap((run) => run.submissions);
    },
    carrierOf(lane: number): string {
      const found = world.lanes.find((one) => one.no === lane);
      if (!found) throw new Error(`no lane ${lane}`);
      return found.carrier;
    },
    /** The bulk of an account that a name means, if it has a row. */
    bulkNamed(account: number, by: { no: number } | { id: string }): Bulk | null {
      for (const bulk of world.bulks.values()) {
        if (bulk.account === account && ('no' in by ? bulk.no === by.no : bulk.id === by.id)) return bulk;
      }
      return null;
    },
  };
  return world;
}

/** A message's last outcome words, as an attempt keeps them. */
export function wordsOf(outcome: Outcome): string {
  return outcome.kind === 'accepted' ? (outcome.words ?? '') : (outcome.error?.words ?? '');
}
