/**
 * POST /mms/2/messages as a plain function of bytes and headers: the hot path. JSON, schema, numbers, one store call, 200.
 *
 * Promises: nothing but a committed accept is answered 200; all faults of a request are told at once; a number is never given
 * twice (blocks come from the store, what is left of a block at the end of the process is lost); the answer has exactly the
 * documented members, entries in the order of the request.
 *
 * Fails: `body` rejects with StoreUnavailable (503) or a bug (500); `server.ts` turns both into answers.
 */
import { hash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { parseDestination } from '../domain/address.ts';
import { STATUSES } from '../domain/codes.ts';
import { checkSmil } from '../domain/content.ts';
import type { Ids } from '../domain/ids.ts';
import type { Shortener } from '../domain/links.ts';
import type { SendRequest } from '../domain/message.ts';
import { type Entry, numberRequest, numbersNeeded } from '../domain/numbering.ts';
import type { Routing } from '../domain/routing.ts';
import type { Env } from '../env.ts';
import type { Accept, Accepted, MessageFilter, MessageRow, Page, Store } from '../store/contract.ts';
import type { Auth } from './auth.ts';
import { type Answer, apiError, JSON_HEADERS, malformed, tooMany } from './errors.ts';
import { MAX_VALUES, parseJson } from './json.ts';
import type { Charge, Limits } from './limits.ts';
import { createSendValidator, type SendSettings } from './schema.ts';
import { MAX_VIOLATIONS, property, type Violation, words } from './violations.ts';

/** What is known of a request before its body is read. */
export interface SendHead {
  account: number;
  /** Idempotency-Key, null = none. */
  key: string | null;
  /** It came by the first version of the API. */
  older?: true;
}

/** A POST that takes a body: first what its headers tell, then the bytes. */
export interface Intake<Head> {
  /** Bytes of the largest body. */
  limit: number;
  /** The answer to a larger one. */
  tooLarge: Answer;
  /** Refuses what needs no body to be refused. `account`: who asks, as the gate found. */
  head(headers: IncomingHttpHeaders, account: number): Answer | Head;
  body(head: Head, bytes: Buffer): Promise<Answer>;
}

export interface SendOptions extends SendSettings {
  maxBodyBytes: number;
  store: Store;
  env: Env;
  ids: Ids;
  routing: Routing;
  policy: Auth['policy'];
  judge: Limits['judge'];
  /** Who has a domain for short links; absent = nobody. */
  domain?: Auth['domain'];
  /** How long short links work; absent = 90 days. */
  linkKeepMs?: number;
  /** Makes short links; absent = links stay as they are. */
  shortener?: Shortener;
  /** Told of each acceptance: destinations taken, refused at the door, repeated ids, and how long it took in ms. */
  onAccept(taken: number, refused: number, duplicates: number, tookMs: number): void;
}

const PATH = '/mms/2/messages';
const NOT_JSON = apiError('E415');
const ENCODED = apiError('E415', { action: 'Send the body as it is, without Content-Encoding.' });
/** 400: not an Idempotency-Key. */
export const BAD_KEY = apiError('E400', {
  violations: [{ property: 'Idempotency-Key', violation: 'must be 1 to 255 visible ASCII characters' }],
});
/** 409: an Idempotency-Key that stands for something else. */
export const KEY_CONFLICT = apiError('E409', {
  violations: [{ property: 'Idempotency-Key', violation: 'was used with another body in the last 24 hours' }],
});
const BULK_CANCELED = apiError('E409', {
  violations: [{ property: 'options.schedule.bulkId', violation: 'this bulk is cancelled' }],
});
/** What an Idempotency-Key may be. */
export const VISIBLE = /^[\x21-\x7e]{1,255}$/;

/** Status 26: taken. 23: the account has used this message id before. */
const TAKEN = 26;
const DUPLICATE = 23;
/** Each status as it stands in an answer: the same text for every message. */
const STATUS_JSON: Record<number, string> = Object.fromEntries(
  Object.values(STATUSES).map((view) => [view.id, JSON.stringify(view)]),
);
/** Message ids in the line of an acceptance. */
const LOGGED_IDS = 10;
/** Messages looked up at a time. */
const LOOK_UP = 100;

/** The door for messages: POST /mms/2/messages. */
export function createSend(options: SendOptions): Intake<SendHead> {
  const { store, env, ids, routing, limits } = options;
  const { clock, log } = env;
  const validate = createSendValidator(options);
  // As many more as the operator allows more than the defaults.
  const maxValues = Math.ceil(
    MAX_VALUES * Math.max(1, limits.messages / 1_000, limits.destinations / 10_000, limits.segments / 20),
  );
  const numbers = new Numbers(store, Math.max(BLOCK, 4 * (1 + limits.messages + limits.destinations)));

  /**
   * Which of these generated ids are messages of the account. No race: who knows such an id has had its 200, so the message
   * is there.
   */
  async function messagesOf(account: number, own: ReadonlyMap<number, string>): Promise<Set<string>> {
    const repeated = new Set<string>();
    const filter: MessageFilter = { account, messages: { nos: [...own.keys()], keys: [] }, limit: LOOK_UP };
    for (let next: number | null = 0; next !== null; ) {
      const page: Page<MessageRow> = await store.logs(filter);
      for (const { no } of page.rows) repeated.add(own.get(no) as string);
      next = page.next;
      if (next !== null) filter.before = next;
    }
    return repeated;
  }

  /**
   * Violations of presentations that call an upload by its name: only the store knows those. Uploads that it does not know are
   * told by the accept.
   */
  async function misnamedUploads(account: number, request: SendRequest): Promise<Violation[]> {
    const violations: Violation[] = [];
    for (let m = 0; m < request.messages.length && violations.length < MAX_VIOLATIONS; m++) {
      const { messageSegments: segments } = (request.messages[m] as SendRequest['messages'][number]).content;
      if (!segments.some(({ type }) => type === 'SMIL') || !checkSmil(segments).maybe) continue;
      const uploads = segments.flatMap((one) => (one.type === 'UPLOADED_REFERENCE' ? [one.uploadedContentId] : []));
      const known = new Map((await store.uploadNames(account, uploads)).map(({ id, name }) => [id, name]));
      if (uploads.some((id) => !known.has(id))) continue;
      const named = segments.map((one) =>
        one.type === 'UPLOADED_REFERENCE' ? { ...one, name: known.get(one.uploadedContentId) as string } : one,
      );
      for (const { segment, member, words } of checkSmil(named).faults) {
        const path = ['messages', m, 'content', 'messageSegments', segment, member];
        violations.push({ property: property(path), violation: words });
      }
    }
    return violations.slice(0, MAX_VIOLATIONS);
  }

  async function acceptNow(accept: Accept, charge: Charge): Promise<Accepted> {
    // A bulkId that we generated and that is used again joins its bulk, like any other.
    const bulk = accept.bulkId === null ? null : ids.parse('bulk', accept.bulkId);
    const accepted = await store.accept(bulk === null ? accept : { ...accept, bulk }).catch((error: unknown) => {
      charge.back();
      throw error;
    });
    charge.back(accepted.kind === 'accepted' ? unpaidOf(accepted, accept) : undefined);
    return accepted;
  }

  /** What a limit refuses now may be what was taken before, asked again because its answer was lost. */
  async function acceptedBefore(accept: Accept): Promise<Accepted> {
    return accept.idem === null ? { kind: 'notReplayed' } : store.accept({ ...accept, replayOnly: true });
  }

  return {
    limit: options.maxBodyBytes,
    tooLarge: apiError('E413', { action: `Send at most ${options.maxBodyBytes} bytes in one request.` }),
    head(headers, account) {
      if (!isJson(headers['content-type'])) return NOT_JSON;
      if (isEncoded(headers)) return ENCODED;
      const key = headers['idempotency-key'];
      if (key === undefined) return { account, key: null };
      return typeof key === 'string' && VISIBLE.test(key) ? { account, key } : BAD_KEY;
    },
    async body(head, bytes) {
      const began = clock.monotonic();
      const parsed = parseJson(bytes, maxValues);
      if (!parsed.ok) return malformed(parsed.fault);
      const now = clock.now();
      const valid = validate(parsed.value, now);
      if (!valid.ok) return apiError('E400', { violations: valid.violations });
      const { request } = valid;
      const misnamed = await misnamedUploads(head.account, request);
      if (misnamed.length > 0) return apiError('E400', { violations: misnamed });
      const unregistered = missingResellerCodes(request, routing);
      if (unregistered.length > 0) return apiError('E400', { violations: unregistered });
      const taken = numbers.take(numbersNeeded(request));
      const first = typeof taken === 'number' ? taken : await taken;
      const idem = head.key === null ? null : { key: head.key, hash: hash('sha256', bytes) };
      const own = generatedIds(request, ids);
      const repeated = own === null ? undefined : await messagesOf(head.account, own);
      const policy = options.policy(head.account);
      const { failoverAfterUnknown } = policy;
      const hasDomain = (name: string): boolean => options.domain?.(name) === head.account;
      const context = {
        account: head.account,
        first,
        now,
        routing,
        idem,
        failoverAfterUnknown,
        hasDomain,
        ...(head.older ? { older: head.older } : {}),
        ...(options.linkKeepMs === undefined ? {} : { linkKeepMs: options.linkKeepMs }),
        ...(options.shortener === undefined ? {} : { shortener: options.shortener }),
      };
      const { accept, entries, split } = numberRequest(request, { ...context, ...(repeated ? { repeated } : {}) });
      const charge = await options.judge(policy, request, { accept, entries }, now);
      const accepted = await (typeof charge === 'number' ? acceptedBefore(accept) : acceptNow(accept, charge));
      switch (accepted.kind) {
        case 'accepted':
        case 'replayed':
          break;
        case 'notReplayed':
          return tooMany(PATH, Number(charge));
        case 'idempotencyConflict':
          return KEY_CONFLICT;
        case 'bulkCanceled':
          return BULK_CANCELED;
        case 'unknownUploads':
          return apiError('E400', { violations: unknownUploads(request, accepted.ids) });
      }
      const replayed = accepted.kind === 'replayed';
      const answer = answerOf(accepted, entries, first, ids);
      if (!replayed) {
        const { refused, duplicates } = answer;
        options.onAccept(entries.length - refused - duplicates, refused, duplicates, clock.monotonic() - began);
      }
      log.info(
        {
          account: head.account,
          bulkId: answer.bulkId,
          messageIds: answer.firstIds,
          count: entries.length,
          refused: answer.refused,
          duplicates: answer.duplicates,
          replayed,
          // Groups that no one carrier takes as a whole: their members go alone.
          ...(split > 0 ? { split } : {}),
        },
        'accepted',
      );
      return { status: 200, headers: JSON_HEADERS, body: answer.body };
    },
  };
}

/** Messages that the store refused on its own, repeated or unwanted: nobody pays for them. */
function unpaidOf({ duplicates, optedOut = [] }: Extract<Accepted, { kind: 'accepted' }>, accept: Accept): number[] {
  const away = new Set(accept.turnedAway?.map(([no]) => no));
  return [...duplicates, ...optedOut.map(([no]) => no)].filter((no) => !away.has(no));
}

/** Message ids of the request that we once gave out, by their number; null = none, as nearly always. */
function generatedIds(request: SendRequest, ids: Ids): Map<number, string> | null {
  let found: Map<number, string> | null = null;
  const look = ({ messageId }: { messageId?: string }): void => {
    if (messageId === undefined || messageId.length !== 36) return;
    const no = ids.parse('message', messageId);
    if (no === null) return;
    found ??= new Map();
    found.set(no, messageId);
  };
  for (const { destinations } of request.messages) {
    for (const destination of destinations) {
      if ('group' in destination) destination.group.forEach(look);
      else look(destination);
    }
  }
  return found;
}

interface Built {
  body: string;
  bulkId: string;
  firstIds: string[];
  refused: number;
  duplicates: number;
}

/**
 * The body of the 200. Written by hand: the statuses are the same few texts, so only ids and destinations need escaping.
 * A replayed request has other numbers now than when it was taken: its ids are those of then.
 */
function answerOf(
  accepted: Extract<Accepted, { kind: 'accepted' | 'replayed' }>,
  entries: readonly Entry[],
  first: number,
  ids: Ids,
): Built {
  const shift = accepted.first - first;
  const repeated = accepted.duplicates.length === 0 ? null : new Set(accepted.duplicates);
  const optedOut = accepted.optedOut === undefined ? null : new Map(accepted.optedOut);
  const bulkId = accepted.bulkId ?? ids.print('bulk', accepted.bulk);
  const firstIds: string[] = [];
  let refused = 0;
  let duplicates = 0;
  let list = '';
  for (const entry of entries) {
    const no = entry.no + shift;
    const messageId = entry.key ?? ids.print('message', no);
    let status = entry.refused === 0 ? (optedOut?.get(no) ?? TAKEN) : entry.refused;
    if (status === DUPLICATE || repeated?.has(no)) {
      status = DUPLICATE;
      duplicates++;
    } else if (status !== TAKEN) refused++;
    if (firstIds.length < LOGGED_IDS) firstIds.push(messageId);
    list += `${list === '' ? '' : ','}{"messageId":${JSON.stringify(messageId)},"status":${STATUS_JSON[status]},"destination":${JSON.stringify(entry.destination)}}`;
  }
  const body = `{"bulkId":${JSON.stringify(bulkId)},"messages":[${list}]}`;
  return { body, bulkId, firstIds, refused, duplicates };
}

/** A violation at each segment that refers to one of `missing`. */
function unknownUploads(request: SendRequest, missing: readonly string[]): Violation[] {
  const violations: Violation[] = [];
  request.messages.forEach((message, m) => {
    message.content.messageSegments.forEach((segment, s) => {
      if (segment.type !== 'UPLOADED_REFERENCE' || !missing.includes(segment.uploadedContentId)) return;
      violations.push({
        property: property(['messages', m, 'content', 'messageSegments', s, 'uploadedContentId']),
        violation: words.upload,
      });
    });
  });
  return violations.slice(0, MAX_VIOLATIONS);
}

/** A violation for each message without a reseller code that has a destination whose country asks for one. */
function missingResellerCodes(request: SendRequest, routing: Routing): Violation[] {
  if (routing.needsResellerCode === undefined) return [];
  const violations: Violation[] = [];
  request.messages.forEach(({ destinations, options }, m) => {
    if (options?.regional?.southKorea?.resellerCode !== undefined) return;
    const asks = ({ to }: { to: string }): boolean => {
      const parsed = parseDestination(to, routing.shortCodes);
      return parsed.ok && routing.needsResellerCode?.(parsed.number) === true;
    };
    if (!destinations.some((one) => ('group' in one ? one.group.some(asks) : asks(one)))) return;
    violations.push({
      property: property(['messages', m, 'options', 'regional', 'southKorea', 'resellerCode']),
      violation: 'must not be null for these destinations',
    });
  });
  return violations.slice(0, MAX_VIOLATIONS);
}

/** Whether a Content-Type is application/json in UTF-8 (US-ASCII is a part of that), in any spelling (RFC 9110, 8.3.1). */
export function isJson(contentType: string | undefined): boolean {
  if (contentType === undefined) return false;
  if (contentType === 'application/json') return true;
  const [type, ...parameters] = contentType.toLowerCase().split(';');
  if (type?.trim() !== 'application/json') return false;
  for (const parameter of parameters) {
    const [name, value] = parameter.split('=', 2);
    if (name?.trim() !== 'charset') continue;
    const charset = value?.trim().replaceAll('"', '');
    if (charset !== 'utf-8' && charset !== 'utf8' && charset !== 'us-ascii') return false;
  }
  return true;
}

/** Whether the body is compressed or otherwise encoded. */
export function isEncoded(headers: IncomingHttpHeaders): boolean {
  const encoding = headers['content-encoding'];
  return encoding !== undefined && encoding !== '' && encoding.toLowerCase() !== 'identity';
}

// --- Numbers ---------------------------------------------------------------------------------------------------------

/** Numbers had from the store at a time: one reserve for some 300 000 requests. 2^53 is enough for 9e9 starts. */
const BLOCK = 1_000_000;

interface Block {
  next: number;
  end: number;
}

/** Consecutive numbers out of blocks; the next block is had before the present one ends, so that nobody waits for it. */
class Numbers {
  readonly #store: Store;
  readonly #size: number;
  #block: Block = { next: 0, end: 0 };
  #spare: Block | null = null;
  #filling: Promise<void> | null = null;

  /** `size`: more than the largest request takes. */
  constructor(store: Store, size: number) {
    this.#store = store;
    this.#size = size;
  }

  /** The first of `count` numbers: at once, or when a block has come. Rejects with StoreUnavailable. */
  take(count: number): number | Promise<number> {
    const block = this.#block;
    const first = block.next;
    if (block.end - first < count) return this.#wait(count);
    block.next += count;
    if (block.end - block.next < this.#size / 4 && this.#spare === null) {
      // Its failure is told to whoever needs the block and asks again.
      this.#fill().catch(() => undefined);
    }
    return first;
  }

  async #wait(count: number): Promise<number> {
    // Others may take from a block that came while this one waited, so more than one round may be needed.
    while (this.#block.end - this.#block.next < count) {
      if (this.#spare === null) await this.#fill();
      if (this.#block.end - this.#block.next < count && this.#spare !== null) {
        this.#block = this.#spare;
        this.#spare = null;
      }
    }
    const first = this.#block.next;
    this.#block.next += count;
    return first;
  }

  #fill(): Promise<void> {
    this.#filling ??= this.#store
      .reserve(this.#size)
      .then((first) => {
        this.#spare = { next: first, end: first + this.#size };
      })
      .finally(() => {
        this.#filling = null;
      });
    return this.#filling;
  }
}
