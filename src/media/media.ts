/**
 * LINK segments on their way to bytes: takes what is due from the store, fetches, looks at what came, keeps it by its hash.
 *
 * Promises: one fetch for all segments that want the same link at a time, and none for a link fetched in the last minute, so a
 * request of a thousand messages asks the customer's server once. Bounded in time, bytes, redirects, fetches at a time and
 * fetches per host: a slow host keeps few slots. What may heal is tried TRIES times in about a minute, then it failed for good:
 * 15022 too large · 15013 not media (a web page, an archive, nothing) · 15024 cannot be fetched (gone, refused, no answer, an
 * address we may not call) · 15025 broken on the way (not HTTP, cut off, wrongly packed).
 *
 * Fails: a store that is away is asked again; what could not be settled comes back when its lease ends.
 */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { carrierRetryDelay } from '../domain/retry.ts';
import type { Env, Timer } from '../env.ts';
import type { CallFaultKind, Outbound } from '../net/outbound.ts';
import type { MediaJob, MediaOutcome, Store } from '../store/contract.ts';
import { kindOf, nameOf } from './kind.ts';

/** What main gives to it. */
export interface MediaOptions {
  store: Pick<Store, 'mediaNext' | 'mediaSettle' | 'putContent' | 'onHint'>;
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
/** The first among them. After 2, 5, 15 and 30 s. */
const TRIES = 5;
const RETRY_AFTER_MAX_MS = 60_000;

/** Fetches at a time, in all and from one host. */
const SLOTS = 16;
const PER_HOST = 4;
/** Jobs that wait here or share a running fetch. */
const HELD = 1_000;
const ASKED = 200;
const LEASE_MS = 120_000;
/** How long a job may wait for a slot: fetch and settle must end before its lease. */
const WAIT_MS = LEASE_MS - TIMEOUT_MS - 15_000;
const STOP_MS = 5_000;
const POLL_MS = 5_000;
const GATHER_MS = 20;
const STORE_AWAY_MS = 1_000;
const SETTLE_TRIES = 5;
/** A link fetched lately. */
const RECENT = 1_000;
const RECENT_MS = 60_000;

const FETCH_HEADERS = {
  'user-agent': 'Postcard-Media/1',
  accept: 'image/*, video/*, audio/*, text/*;q=0.8, */*;q=0.5',
};

/** All jobs that want one link with one declared type. */
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

/** Makes the loop; nothing happens before `start`. */
export function createMedia(options: MediaOptions): MediaLoop {
  const { store, outbound, env, maxBytes = MAX_BYTES } = options;
  const { clock, log } = env;
  const fetches = new Map<string, Fetch>();
  const perHost = new Map<string, number>();
  const held = new Set<string>();
  const recent = new LRUCache<string, { at: number; outcome: Extract<MediaOutcome, { kind: 'ready' }> }>({
    max: RECENT,
  });
  const open = new Set<Promise<void>>();
  let running = 0;
  let stopping = false;
  let asking: Promise<void> | null = null;
  let askAgain = false;
  let storeAway = false;
  let timer: { at: number; timer: Timer } | null = null;

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
    const key = `${job.contentType ?? ''} ${job.url}`;
    const known = recent.get(key);
    if (known && clock.monotonic() - known.at < RECENT_MS) {
      track(settle(job, known.outcome));
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
      .catch((error: unknown) => log.error({ err: error }, 'media: a fetch failed in us'))
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
    if (got.kind === 'ready') recent.set(fetch.key, { at: clock.monotonic(), outcome: got });
    const result = got;
    await Promise.all(fetch.jobs.map((job) => settle(job, outcomeOf(job, result))));
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
    const result = await outbound.fetch(fetch.url, {
      headers: FETCH_HEADERS,
      timeoutMs: TIMEOUT_MS,
      maxBytes,
      redirects: REDIRECTS,
    });
    if (!result.ok) {
      if (result.kind === 'stopped') return { kind: 'stopped' };
      return { kind: 'failed', words: result.words, ...FAULTS[result.kind] };
    }
    if (result.status !== 200) {
      const mayHeal = MAY_HEAL.has(result.status) || result.status >= 500;
      const afterMs = retryAfter(result.headers['retry-after']);
      const words = `the link answered ${result.status}`;
      return { kind: 'failed', error: 15024, words, mayHeal, ...(afterMs === null ? {} : { afterMs }) };
    }
    const kind = await kindOf(result.body, result.headers['content-type'], fetch.declared);
    if (!kind.ok) return { kind: 'failed', error: 15013, words: kind.words, mayHeal: false };
    const hash = createHash('sha256').update(result.body).digest('hex');
    await store.putContent(hash, result.body);
    return { kind: 'ready', hash, contentType: kind.contentType, name: nameOf(fetch.url) };
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

function outcomeOf(job: MediaJob, got: Exclude<Got, { kind: 'stopped' }>): MediaOutcome {
  if (got.kind === 'ready') return got;
  const { error, words } = got;
  if (!got.mayHeal || job.tries >= TRIES) return { kind: 'failed', error, words };
  return { kind: 'again', error, words, afterMs: carrierRetryDelay(job.tries, got.afterMs) };
}

/** Seconds of a Retry-After, as ms, at most a minute; null = none that we follow (a date is not). */
function retryAfter(header: string | undefined): number | null {
  return header !== undefined && /^\d{1,6}$/.test(header) ? Math.min(Number(header) * 1000, RETRY_AFTER_MAX_MS) : null;
}
