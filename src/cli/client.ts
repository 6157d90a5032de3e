/**
 * The HTTP API as the commands use it. Speaks only documented paths, so that a command can do nothing that a customer's code
 * could not do too.
 *
 * Fails: with a `Failure` of lines that a person can act on. `Unreachable` (a Failure too) is the one kind that a waiting
 * command may outlast. An answer that is not what the API documents is a Failure, not a crash.
 */
import { createParser } from 'eventsource-parser';
import type { Env } from '../env.ts';
import { Failure } from './terminal.ts';

/** The server could not be asked, or had no answer now: no connection, time-out, 429, 502, 503, 504. */
export class Unreachable extends Failure {}

/** The server does not take what it was sent: each line of it, and where in the request it is. */
export class Violated extends Failure {
  readonly violations: readonly { property: string; violation: string }[];

  constructor(violations: readonly { property: string; violation: string }[]) {
    super(...violations.map(({ property, violation }) => `${property || 'request'}: ${violation}`));
    this.violations = violations;
  }
}

/** What was read is not what is there any more (412): somebody else changed it. */
export class Outdated extends Failure {}

/** Time for one answer. Uploads of the largest size pass in far less, also on slow lines. */
const ANSWER_MS = 60_000;
/** How often something is read and written again while others change it. */
const AMENDS = 10;
/** How long the event stream may say nothing, not even that it is still there. */
const SILENT_MS = 45_000;
/** What one answer may be: a story with all its attempts is far smaller. */
const ANSWER_BYTES = 32 * 1024 * 1024;

/** A status as the API shows it. */
export interface StatusView {
  groupId: number;
  groupName: string;
  id: number;
  name: string;
  description: string;
}

/** An error as the API shows it; id 0 = none. */
interface ErrorView {
  id: number;
  name: string;
  description: string;
}

/** The answer to a send: an entry a destination, in the order of the request. */
export interface Sent {
  bulkId: string;
  messages: { messageId: string; status: StatusView; destination: string }[];
}

/** The whole life of a message, `GET /mms/2/messages/{messageId}`; instants as the API writes them. */
export interface StoryView {
  messageId: string;
  bulkId: string;
  to: string;
  sender: string;
  acceptedAt: string;
  sentAt: string | null;
  doneAt: string | null;
  status: StatusView;
  error: ErrorView | null;
  waiting: { until: string | null; why: string } | null;
  /** Absent from an older server; so are the other optional ones. */
  ended?: { at: string; why: string } | null;
  channel?: 'MMS' | 'SMS';
  validUntil: string | null;
  content: unknown;
  attempts: {
    attempt: number;
    channel: 'MMS' | 'SMS';
    at: string;
    tookMs: number;
    carrier: string;
    outcome: string;
    error: ErrorView | null;
    words: string;
    carrierMessageId: string | null;
    transactionId: string;
  }[];
  events: { at: string; kind?: 'STATUS' | 'NOTED'; status: StatusView; error: ErrorView | null; words: string }[];
  webhooks: {
    at: string;
    retry: number;
    url: string;
    reported?: string;
    httpStatus: number;
    tookMs: number;
    excerpt: string;
  }[];
  answers?: { at: string; messageId: string; channel: 'MMS' | 'SMS'; from: string; text: string }[];
  clicks?: { at: string; url: string; flag: string | null; device: string }[];
}

/** What the event stream tells: a delivery report. */
export interface ReportView {
  bulkId: string;
  messageId: string;
  to: string;
  sender: string;
  doneAt: string;
  status: StatusView;
  error: ErrorView;
}

/** A bulk as the API shows it. */
export interface BulkView {
  bulkId: string;
  sendAt: string;
  sendingSpeedLimit?: { amount: number; timeUnit: string };
  status: string;
  progress: { accepted: number; waiting: number; sent: number; delivered: number; failed: number };
}

/** The calls that commands make; each may fail with a `Failure`. */
export interface Client {
  /** The server's base URL, without a slash at its end. */
  readonly url: string;
  /** Stores bytes for UPLOADED_REFERENCE segments; answers their id. */
  upload(name: string, mediaType: string, bytes: Uint8Array): Promise<string>;
  send(request: object): Promise<Sent>;
  /** Null = no such message of this account. */
  story(messageId: string): Promise<StoryView | null>;
  /** A page of bulks, newest first. */
  bulks(limit: number, cursor?: string): Promise<{ results: BulkView[]; cursor: { nextCursor?: string } }>;
  /** Null = no such bulk of this account; so in the two below. */
  bulk(bulkId: string): Promise<BulkView | null>;
  changeBulk(bulkId: string, change: object): Promise<BulkView | null>;
  steerBulk(bulkId: string, status: string): Promise<object | null>;
  /** Any other path, relative to `url`; null = the API says that there is no such thing. */
  get<Answer extends object>(path: string): Promise<Answer | null>;
  change<Answer extends object>(
    method: 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: object,
    headers?: Record<string, string>,
  ): Promise<Answer | null>;
  /**
   * Reads, changes and writes again, as often as somebody else comes in between (at most `AMENDS` times, then an `Outdated`).
   * `make` gives the new body, or fails.
   */
  amend<Answer extends object>(path: string, make: (present: Answer) => object): Promise<Answer | null>;
  /**
   * Follows the event stream from after `lastEventId` (null = from now) until it breaks, which is an `Unreachable`, or
   * `stop` aborts. `opened` is called when the server has answered, `place` with each id (where to resume after it), and
   * `event` with each report. A connection on which nothing comes for `SILENT_MS` counts as broken: the server says something
   * every 15 s. `search`: only what these search words find.
   */
  follow(
    lastEventId: string | null,
    stop: AbortSignal,
    on: { opened(): void; place(id: string): void; event(report: ReportView): void },
    search?: string,
  ): Promise<void>;
}

/** A client of the server at `url` with the account of `key`. */
export function createClient(options: { url: string; key: string; env: Env }): Client {
  const { key, env } = options;
  const url = options.url.replace(/\/+$/, '');
  const headers = { authorization: `App ${key}`, 'user-agent': 'postcard-cli' };

  async function open(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(url + path, { ...init, headers: { ...headers, ...init.headers }, redirect: 'manual' });
    } catch (error) {
      const why = reason(error);
      const hint = /CERT|SIGNATURE/.test(why)
        ? 'its certificate is not trusted here; name its authority in NODE_EXTRA_CA_CERTS (a PEM file), and the server by a name that it has'
        : 'is it running there? npm start starts it';
      throw new Unreachable(`cannot reach Postcard at ${url} (${why}); ${hint}`);
    }
  }

  /** The parsed body of a 200 (or of a 202: not done yet); null for a 404 where that is an answer too. */
  async function ask<T>(
    path: string,
    init: RequestInit,
    orMissing = false,
    tell?: (tag: string) => void,
  ): Promise<T | null> {
    const timeout = new AbortController();
    const timer = env.clock.setTimeout(() => timeout.abort(new Error(`no answer in ${ANSWER_MS / 1000} s`)), ANSWER_MS);
    try {
      const answer = await open(path, { ...init, signal: timeout.signal });
      const text = await bodyOf(answer, url);
      if (answer.status === 404 && orMissing && isApiError(text)) return null;
      if (answer.status !== 200 && answer.status !== 202) throw refusal(answer, text, url);
      tell?.(answer.headers.get('etag') ?? '*');
      return parse(text, url) as T;
    } finally {
      timer.cancel();
    }
  }

  return {
    url,
    async upload(name, mediaType, bytes) {
      const answer = await ask<{ uploadedContentId?: unknown }>('/mms/1/content', {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream', 'x-content-id': name, 'x-media-type': mediaType },
        body: Buffer.from(bytes),
      });
      if (typeof answer?.uploadedContentId !== 'string') throw notOurs(url);
      return answer.uploadedContentId;
    },
    async send(request) {
      const body = JSON.stringify(request);
      const sent = await ask<Sent>('/mms/2/messages', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      if (!sent || !Array.isArray(sent.messages)) throw notOurs(url);
      return sent;
    },
    async story(messageId) {
      const story = await ask<StoryView>(`/mms/2/messages/${encodeURIComponent(messageId)}`, {}, true);
      if (story && !Array.isArray(story.events)) throw notOurs(url);
      return story;
    },
    async bulks(limit, cursor) {
      const place = cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const page = await ask<{ results: BulkView[]; cursor: { nextCursor?: string } }>(
        `/mms/2/bulks?limit=${limit}${place}`,
        {},
      );
      if (!page || !Array.isArray(page.results) || typeof page.cursor !== 'object') throw notOurs(url);
      return page;
    },
    async bulk(bulkId) {
      const bulk = await ask<BulkView>(bulkPath('', bulkId), {}, true);
      if (bulk && typeof bulk.progress !== 'object') throw notOurs(url);
      return bulk;
    },
    changeBulk: (bulkId, change) => ask<BulkView>(bulkPath('', bulkId), putting(change), true),
    steerBulk: (bulkId, status) => ask<object>(bulkPath('/status', bulkId), putting({ status }), true),
    get: (path) => ask(path, {}, true),
    change: (method, path, body, more = {}) =>
      ask(
        path,
        body === undefined
          ? { method, headers: more }
          : { method, headers: { 'content-type': 'application/json', ...more }, body: JSON.stringify(body) },
        true,
      ),
    async amend<Answer extends object>(path: string, make: (present: Answer) => object) {
      for (let run = 1; ; run++) {
        let tag = '*';
        const present = await ask<Answer>(path, {}, true, (found) => {
          tag = found;
        });
        if (present === null) return null;
        const { method, headers, body } = putting(make(present));
        const init = { method, body, headers: { ...headers, 'if-match': tag } } as RequestInit;
        try {
          return await ask<Answer>(path, init, true);
        } catch (error) {
          if (!(error instanceof Outdated) || run === AMENDS) throw error;
        }
      }
    },
    async follow(lastEventId, stop, on, search) {
      const end = new AbortController();
      const stopped = (): void => end.abort();
      stop.addEventListener('abort', stopped);
      const silent = (): void => end.abort(new Error(`nothing heard for ${SILENT_MS / 1000} s`));
      let timer = env.clock.setTimeout(silent, SILENT_MS);
      try {
        const resume = lastEventId === null ? {} : { 'last-event-id': lastEventId };
        const headers = { accept: 'text/event-stream', ...resume };
        const narrowed = search === undefined ? '' : `?search=${encodeURIComponent(search)}`;
        const answer = await open(`/mms/2/events${narrowed}`, { signal: end.signal, headers });
        if (answer.status !== 200) throw refusal(answer, await bodyOf(answer, url), url);
        if (!answer.body || !answer.headers.get('content-type')?.startsWith('text/event-stream')) throw notOurs(url);
        on.opened();
        const parser = createParser({
          maxBufferSize: ANSWER_BYTES,
          onEvent(event) {
            if (event.event === 'status') on.event(parse(event.data, url) as ReportView);
          },
          onId: on.place,
        });
        const decoder = new TextDecoder();
        for await (const chunk of answer.body) {
          timer.cancel();
          timer = env.clock.setTimeout(silent, SILENT_MS);
          parser.feed(decoder.decode(chunk, { stream: true }));
        }
      } catch (error) {
        if (error instanceof Failure) throw error;
        throw new Unreachable(`the connection to ${url} broke (${reason(error)})`);
      } finally {
        timer.cancel();
        stop.removeEventListener('abort', stopped);
      }
      throw new Unreachable(`the connection to ${url} ended`);
    },
  };
}

function bulkPath(part: string, bulkId: string): string {
  return `/mms/2/bulks${part}?bulkId=${encodeURIComponent(bulkId)}`;
}

function putting(body: object): RequestInit {
  return { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
}

/** What went wrong in a word or two: Node hides it in the cause. */
function reason(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const code = (at as NodeJS.ErrnoException).code;
    if (typeof code === 'string') return code;
    if (!(at.cause instanceof Error)) return at.message;
  }
  return String(error);
}

async function bodyOf(answer: Response, url: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const chunk of answer.body ?? []) {
      size += chunk.length;
      if (size > ANSWER_BYTES) throw notOurs(url);
      chunks.push(chunk);
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Unreachable(`the connection to ${url} broke (${reason(error)})`);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(text: string, url: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Told below.
  }
  throw notOurs(url);
}

function notOurs(url: string): Failure {
  return new Failure(`what answers at ${url} is not Postcard's API; check --url`);
}

interface Refusal {
  errorCode?: unknown;
  description?: unknown;
  violations?: { property?: unknown; violation?: unknown }[];
  errorMessage?: unknown;
  requestError?: { serviceException?: { text?: unknown } };
}

function isApiError(text: string): boolean {
  try {
    const body = JSON.parse(text) as Refusal | null;
    return typeof body?.errorCode === 'string' || typeof body?.requestError?.serviceException?.text === 'string';
  } catch {
    return false;
  }
}

/** An answer that is not a 200, in lines: a violation each where the API lists them. */
function refusal(answer: Response, text: string, url: string): Failure {
  const { status } = answer;
  if (status === 401) {
    const [key, from] = new URL(answer.url).pathname.includes('/admin/')
      ? ["operator's key", '--admin-key or POSTCARD_ADMIN_KEY']
      : ['API key', '--key or POSTCARD_API_KEY'];
    return new Failure(`${url} does not know this ${key} (401); give the right one with ${from}`);
  }
  if (status === 429 || status === 502 || status === 503 || status === 504) {
    const after = answer.headers.get('retry-after');
    return new Unreachable(
      `${url} cannot take this now (${status})${after ? `; try again in ${after} s` : '; try again later'}`,
    );
  }
  let body: Refusal = {};
  try {
    body = (JSON.parse(text) as Refusal | null) ?? {};
  } catch {
    return notOurs(url);
  }
  const violations = Array.isArray(body.violations) ? body.violations : [];
  if (violations.length > 0) {
    return new Violated(
      violations.map(({ property, violation }) => ({ property: String(property), violation: String(violation) })),
    );
  }
  if (status === 412) return new Outdated(`${url}: somebody else changes it all the time; try again`);
  const words = body.description ?? body.errorMessage ?? body.requestError?.serviceException?.text;
  return typeof words === 'string' ? new Failure(`${url} answered ${status}: ${words}`) : notOurs(url);
}
