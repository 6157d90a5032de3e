/**
 * LINK segments on their way to bytes: takes what is due from the store, fetches, looks at what came, keeps it by its hash.
 *
 * Promises: one fetch for all segments of an account that want the same link at a time, and none for a link fetched in the last
 * minute, so a request of a thousand messages asks the customer's server once; for a day after that the server is only asked
 * whether it has changed (ETag, Last-Modified). Bounded in time, bytes, redirects, fetches at a time and fetches per host: a slow
 * host keeps few slots. What may heal is tried as long as the message is worth sending, ever more rarely; then, or at once where
 * nothing can heal, it failed for good: 15022 too large · 15013 not media (a web page, an archive, nothing) · 15024 cannot be
 * fetched (gone, refused, no answer, an address we may not call) · 15025 broken on the way (not HTTP, cut off, wrongly packed).
 *
 * Fails: a store that is away is asked again; what could not be settled comes back when its lease ends.
 */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { nameOf } from '../domain/content.ts';
import { carrierRetryDelay } from '../domain/retry.ts';
import type { Env, Timer } from '../env.ts';
import type { CallFault, CallFaultKind, Fetched, Outbound } from '../net/outbound.ts';
import { type MediaJob, type MediaOutcome, type Store, StoreUnavailable } from '../store/contract.ts';
import { kindOf } from './kind.ts';

/** What main gives to it. */
export interface MediaOptions {
  store: Pick<Store, 'mediaNext' | 'mediaSettle' | 'putContent' | 'content' | 'onHint'>;
  outbound: Pick<Outbound, 'fetch'>;
  env: Env;
  /** Largest content behind a link; default 5 MiB. */
  maxBytes?: number;
}

/** The fetching of links as main sees it. */
export interface MediaLoop {
  start(): void;
  /** Takes nothing more; resolves when what is in flight is settled, at the latest after STOP_MS. */
  stop(): Promise<void>;
}

const MAX_BYTES = 5 * 1024 * 1024;
const TIMEOUT_MS = 20_000;
const REDIRECTS = 3;
const RETRY_AFTER_MAX_MS = 3_600_000;
/** Before the end of validity: a last try that still leaves the time to send. */
const LAST_TRY_MS = 10_000;
/** A fetch ends so long before the validity of all that wait for it, so that they end with what stood in its way... */
const BEFORE_END_MS = 1_500;
/** ...but nobody's answer is waited for less than this. */
const LEAST_MS = 1_000;

/** Fetches at a time, in all and from one host. */
const SLOTS = 16;
const PER_HOST = 4;
/** Jobs that wait here or share a running fetch. */
const HELD = 1_000;
const ASKED = 200;
/** Nobody waits longer for what a process that died had taken (G12: 90 s). */
const LEASE_MS = 85_000;
/** How long a job may wait for a slot: fetch and settle must end before its lease. */
const WAIT_MS = LEASE_MS - 1.5 * TIMEOUT_MS - 15_000;
const STOP_MS = 5_000;
const POLL_MS = 5_000;
const GATHER_MS = 20;
const STORE_AWAY_MS = 1_000;
const SETTLE_TRIES = 5;
/** Links fetched lately. */
const RECENT = 5_000;
/** For so long it is not asked for again. */
const RECENT_MS = 60_000;
/** For so long the server is only asked whether it has changed. Content that nobody needs is kept for a day. */
const KNOWN_MS = 86_400_000;
/** What has just failed is not asked for again at once by the next request of a bulk; shorter than the first retry. */
const FAILED_MS = 1_500;

const FETCH_HEADERS = {
  'user-agent': 'Postcard-Media/1',
  accept: 'image/*, video/*, audio/*, text/*;q=0.8, */*;q=0.5',
};

/** All jobs of an account that want one link with one declared type. */
interface Fetch {
  key: string;
  url: string;
  declared: string | null;
  host: string;
  jobs: MediaJob[];
  running: boolean;
  /** Leave its jobs to their lease after this, by `monotonic`. */
  until: number;
}

/** What a fetch came to, before it is known how often it was tried. */
type Got =
  | { kind: 'ready'; hash: string; contentType: string; name: string }
  | { kind: 'failed'; error: number; words: string; mayHeal: boolean; afterMs?: number }
  | { kind: 'stopped' };

/** What is known of a link from its last fetch. */
interface Known {
  at: number;
  got: Exclude<Got, { kind: 'stopped' }>;
  /** Headers that make the next fetch a question whether it has changed; null = the server gave nothing to ask by. */
  validators: Record<string, string> | null;
  /** After redirects: validators of one address say nothing of another. */
  url: string;
}

/** Makes the loop; nothing happens before `start`. */
export function createMedia(options: MediaOptions): MediaLoop {
  const { store, outbound, env, maxBytes = MAX_BYTES } = options;
  const { clock, log } = env;
  const fetches = new Map<string, Fetch>();
  const perHost = new Map<string, number>();
  const held = new Set<string>();
  const links = new LRUCache<string, Known>({ max: RECENT });
  const open = new Set<Promise<void>>();
  let running = 0;
  let stopping = false;
  let asking: Promise<void> | null = null;
  let askAgain = false;
  let storeAway = false;
  let timer: { at: number; timer: Timer } | null = null;
  /** The store's clock less ours. */
  let skew = 0;

  // ------------------------------------------------------------------------------------------------ asking the store

  function askIn(ms: number): void {
    const at = clock.monotonic() + ms;
    if (stopping || (timer !== null && timer.at <= at)) return;
    timer?.timer.cancel();
    const armed = clock.setTimeout(() => {
      timer = null;
      ask();
    }, ms);
    timer = { at, timer: armed };
  }

  function ask(): void {
    if (stopping) return;
    if (asking !== null) {
      askAgain = true;
      return;
    }
    asking = askStore().finally(() => {
      asking = null;
      if (askAgain) askIn(GATHER_MS);
      askAgain = false;
    });
  }

  async function askStore(): Promise<void> {
    for (;;) {
      const room = Math.min(ASKED, HELD - held.size);
      if (stopping || room <= 0) return askIn(POLL_MS);
      let answer: Awaited<ReturnType<Store['mediaNext']>>;
      try {
        answer = await store.mediaNext(room, LEASE_MS);
      } catch (error) {
        if (!storeAway) log.warn({ err: error }, 'media: the store does not answer, will ask again');
        storeAway = true;
        return askIn(STORE_AWAY_MS);
      }
      storeAway = false;
      skew = answer.now - clock.now();
      for (const job of answer.jobs) take(job);
      startWhatFits();
      if (answer.jobs.length < room) {
        const { nextDue } = answer;
        return askIn(nextDue === null ? POLL_MS : Math.min(POLL_MS, Math.max(GATHER_MS, nextDue - answer.now)));
      }
    }
  }

  // ------------------------------------------------------------------------------------------------ sharing and room

  const nameOfJob = (job: MediaJob): string => `${job.spec}/${job.segment}`;

  function take(job: MediaJob): void {
    const name = nameOfJob(job);
    if (stopping || held.has(name)) return;
    const key = `${job.account} ${job.contentType ?? ''} ${job.url}`;
    const known = links.get(key);
    if (known && clock.monotonic() - known.at < (known.got.kind === 'ready' ? RECENT_MS : FAILED_MS)) {
      track(settle(job, outcomeOf(job, known.got, clock.now() + skew)));
      return;
    }
    held.add(name);
    const same = fetches.get(key);
    if (same) {
      same.jobs.push(job);
      return;
    }
    fetches.set(key, {
      key,
      url: job.url,
      declared: job.contentType,
      host: URL.parse(job.url)?.host ?? '',
      jobs: [job],
      running: false,
      until: clock.monotonic() + WAIT_MS,
    });
  }

  function startWhatFits(): void {
    for (const fetch of fetches.values()) {
      if (running >= SLOTS || stopping) return;
      if (fetch.running) continue;
      if (fetch.until < clock.monotonic()) {
        drop(fetch);
        continue;
      }
      const busy = perHost.get(fetch.host) ?? 0;
      if (busy >= PER_HOST) continue;
      fetch.running = true;
      running += 1;
      perHost.set(fetch.host, busy + 1);
      track(run(fetch));
    }
  }

  function drop(fetch: Fetch): void {
    fetches.delete(fetch.key);
    for (const job of fetch.jobs) held.delete(nameOfJob(job));
  }

  function track(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        if (error instanceof StoreUnavailable)
          log.warn({ err: error }, 'media: no place to keep it, will be fetched again');
        else log.error({ err: error }, 'media: a fetch failed in us');
      })
      .finally(() => open.delete(done));
    open.add(done);
  }

  async function run(fetch: Fetch): Promise<void> {
    const startedAt = clock.monotonic();
    let got: Got = { kind: 'stopped' };
    try {
      got = await fetchOne(fetch);
    } finally {
      running -= 1;
      const left = (perHost.get(fetch.host) ?? 1) - 1;
      if (left === 0) perHost.delete(fetch.host);
      else perHost.set(fetch.host, left);
      // From here on, jobs for the same link begin anew (or find it among the recent ones).
      drop(fetch);
      startWhatFits();
    }
    if (got.kind === 'stopped') return;
    const result = got;
    await Promise.all(fetch.jobs.map((job) => settle(job, outcomeOf(job, result, clock.now() + skew))));
    log.info(
      {
        host: fetch.host,
        segments: fetch.jobs.length,
        specs: fetch.jobs.map((job) => job.spec),
        tookMs: Math.round(clock.monotonic() - startedAt),
        outcome: got.kind,
        ...(got.kind === 'ready' ? { contentType: got.contentType } : { error: got.error, reason: got.words }),
      },
      'media fetched',
    );
  }

  async function settle(job: MediaJob, outcome: MediaOutcome): Promise<void> {
    for (let n = 1; ; n += 1) {
      try {
        await store.mediaSettle({ spec: job.spec, segment: job.segment }, outcome);
        if (outcome.kind === 'again') askIn(outcome.afterMs);
        return;
      } catch (error) {
        if (n >= SETTLE_TRIES || stopping) {
          log.warn(
            { err: error, spec: job.spec, segment: job.segment },
            'media: cannot be settled, will be fetched again',
          );
          return;
        }
        await clock.sleep(STORE_AWAY_MS);
      }
    }
  }

  // ------------------------------------------------------------------------------------------------ one fetch

  async function fetchOne(fetch: Fetch): Promise<Got> {
    const { key } = fetch;
    const before = links.get(key);
    const asks = before?.got.kind === 'ready' && before.validators && clock.monotonic() - before.at < KNOWN_MS;
    const made = (asks && (await fetchAgain(fetch, before))) || (await fetchWhole(fetch));
    if (made.got.kind === 'stopped') return made.got;
    links.set(key, { at: clock.monotonic(), got: made.got, validators: made.validators ?? null, url: made.url ?? '' });
    return made.got;
  }

  type Made = { got: Got; validators?: Record<string, string> | null; url?: string };

  function call(url: string, headers: Record<string, string>, timeoutMs: number) {
    return outbound.fetch(url, {
      headers: { ...FETCH_HEADERS, ...headers },
      timeoutMs,
      maxBytes,
      redirects: REDIRECTS,
    });
  }

  function timeFor(jobs: readonly MediaJob[]): number {
    const left = Math.max(...jobs.map(({ validUntil }) => validUntil)) - BEFORE_END_MS - (clock.now() + skew);
    // Whole seconds, since a person reads them.
    return Math.max(LEAST_MS, Math.min(TIMEOUT_MS, Math.floor(left / 1000) * 1000));
  }

  /** Asks whether a known link has changed; null = nothing that can be relied on came of it, so it must be fetched whole. */
  async function fetchAgain(fetch: Fetch, before: Known): Promise<Made | null> {
    const { got, validators, url } = before;
    if (got.kind !== 'ready' || !validators) return null;
    const result = await call(fetch.url, validators, timeFor(fetch.jobs) / 2);
    if (result.ok && result.status === 200) return await look(fetch, result);
    if (!result.ok || result.status !== 304 || result.url !== url) return null;
    const bytes = await store.content(got.hash);
    if (bytes === null) return null;
    // Marks it as used now.
    await keep(got.hash, bytes);
    return { got, validators: validatorsOf(result.headers) ?? validators, url };
  }

  async function fetchWhole(fetch: Fetch): Promise<Made> {
    const result = await call(fetch.url, {}, timeFor(fetch.jobs));
    return result.ok && result.status === 200 ? await look(fetch, result) : { got: failed(result) };
  }

  /** Why there is nothing to look at. */
  function failed(result: Fetched | CallFault): Got {
    if (!result.ok) {
      if (result.kind === 'stopped') return { kind: 'stopped' };
      return { kind: 'failed', words: result.words, ...FAULTS[result.kind] };
    }
    const mayHeal = MAY_HEAL.has(result.status) || result.status >= 500;
    const afterMs = retryAfter(result.headers['retry-after']);
    const words = `the link answered ${result.status}`;
    return { kind: 'failed', error: 15024, words, mayHeal, ...(afterMs === null ? {} : { afterMs }) };
  }

  /** The bytes may have a store of their own, which may be away while the other is there. */
  async function keep(hash: string, body: Uint8Array): Promise<void> {
    for (let n = 1; ; n += 1) {
      try {
        return await store.putContent(hash, body);
      } catch (error) {
        if (!(error instanceof StoreUnavailable) || n >= SETTLE_TRIES || stopping) throw error;
        await clock.sleep(STORE_AWAY_MS);
      }
    }
  }

  async function look(fetch: Fetch, { body, headers, url }: Fetched): Promise<Made> {
    const kind = await kindOf(body, headers['content-type'], fetch.declared);
    if (!kind.ok) return { got: { kind: 'failed', error: 15013, words: kind.words, mayHeal: false } };
    const hash = createHash('sha256').update(body).digest('hex');
    await keep(hash, body);
    const got: Got = { kind: 'ready', hash, contentType: kind.contentType, name: nameOf(fetch.url) };
    return { got, validators: validatorsOf(headers), url };
  }

  return {
    start() {
      store.onHint((hint) => {
        if (hint.kind === 'media') askIn(GATHER_MS);
      });
      ask();
    },
    async stop() {
      stopping = true;
      timer?.timer.cancel();
      const limit = new AbortController();
      const drained = (async () => {
        await asking;
        while (open.size > 0) await Promise.all(open);
        limit.abort();
      })();
      await Promise.race([drained, clock.sleep(STOP_MS, limit.signal)]);
    },
  };
}

/** Besides 5xx. */
const MAY_HEAL = new Set([408, 425, 429]);

const FAULTS: Record<Exclude<CallFaultKind, 'stopped'>, { error: number; mayHeal: boolean }> = {
  'too-big': { error: 15022, mayHeal: false },
  url: { error: 15024, mayHeal: false },
  'refused-address': { error: 15024, mayHeal: false },
  'too-many-redirects': { error: 15024, mayHeal: false },
  'no-such-name': { error: 15024, mayHeal: false },
  dns: { error: 15024, mayHeal: true },
  connect: { error: 15024, mayHeal: true },
  tls: { error: 15024, mayHeal: false },
  timeout: { error: 15024, mayHeal: true },
  closed: { error: 15025, mayHeal: true },
  protocol: { error: 15025, mayHeal: false },
};

/** `now`: by the store's clock, as the end of validity is. */
function outcomeOf(job: MediaJob, got: Known['got'], now: number): MediaOutcome {
  if (got.kind === 'ready') return got;
  const { error, words } = got;
  const left = job.validUntil - LAST_TRY_MS - now;
  if (!got.mayHeal || left < 1_000) return { kind: 'failed', error, words };
  return { kind: 'again', error, words, afterMs: Math.min(carrierRetryDelay(job.tries, got.afterMs), left) };
}

/** The headers by which to ask whether what came has changed; null = it gave none that can be sent back, or asks not to be kept. */
function validatorsOf(headers: Readonly<Record<string, string>>): Record<string, string> | null {
  if (/\bno-store\b/i.test(headers['cache-control'] ?? '')) return null;
  const { etag = '', 'last-modified': modified = '' } = headers;
  const found: Record<string, string> = {};
  if (/^(?:W\/)?"[\x21\x23-\x7e]{0,200}"$/.test(etag)) found['if-none-match'] = etag;
  if (/^[\w,: +-]{1,40}$/.test(modified)) found['if-modified-since'] = modified;
  return Object.keys(found).length > 0 ? found : null;
}

/** Seconds of a Retry-After, as ms, at most an hour; null = none that we follow (a date is not). */
function retryAfter(header: string | undefined): number | null {
  return header !== undefined && /^\d{1,6}$/.test(header) ? Math.min(Number(header) * 1000, RETRY_AFTER_MAX_MS) : null;
}
