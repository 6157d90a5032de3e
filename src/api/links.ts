/**
 * Where short links lead: GET (or HEAD) /l/{token}, for anybody, and the clicks that come of it.
 *
 * Promises: only to the http or https URL that the customer wrote into that message. A spec's links are remembered once one of
 * them was opened, so its other links lead on without the store; clicks are written behind the answer, in batches, so a store that
 * is away for a while costs nobody a redirect that is known and no click (at most BUFFER, what is more is counted as dropped).
 * Tokens cannot be tried out: an address may miss MISSES times a minute, and a miss costs the same whatever was wrong with it.
 *
 * Fails: unknown 404, expired 410, too many misses 429; a link that is not remembered while the store is away 503.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import Bowser from 'bowser';
import { isbot } from 'isbot';
import { LRUCache } from 'lru-cache';
import type { Ids } from '../domain/ids.ts';
import { type ClickFacts, clickBody, clickFlag, createLinkTokens, LINK_PATH } from '../domain/links.ts';
import type { Env, Timer } from '../env.ts';
import { CLICKS_STEP, type Clicked, type ClickIn, type LinkRow, type Store } from '../store/contract.ts';
import type { Answer } from './errors.ts';
import type { Exchange } from './http.ts';

/** Where an address is; null = not known. */
export type Geo = (address: string) => ClickFacts['geo'];

export interface LinksOptions {
  store: Pick<Store, 'link' | 'clicked' | 'click'>;
  env: Env;
  ids: Ids;
  /** The installation's key of ids. */
  idKey: string;
  exchange: Pick<Exchange, 'give' | 'refuse'>;
  addressOf(request: IncomingMessage): string;
  /** The operator's database, where there is one. */
  geo?: Geo;
}

export interface Links {
  /** Answers a request to a path under LINK_PATH. Never rejects. */
  serve(path: string, request: IncomingMessage, response: ServerResponse): void;
  /** Totals since the start, and how many clicks wait to be written. */
  counters(): { redirects: number; misses: number; dropped: number; waiting: number };
  /** Writes what waits, as far as the store takes it in CLOSE_MS. */
  close(): Promise<void>;
}

/** Specs whose links are remembered, and the characters of their URLs. */
const SPECS = 20_000;
const CHARACTERS = 32 * 1024 * 1024;
/** How long it is believed that a message has not been sent yet. */
const UNSENT_MS = 5 * 60_000;
/** Clicks that wait for the store: some minutes of a busy campaign. */
const BUFFER = 50_000;
/** Clicks are gathered for so long, so that they share a commit. */
const GATHER_MS = 250;
const AGAIN_MS = 1_000;
const CLOSE_MS = 3_000;
/** Misses of one address in `MISS_MS`. */
const MISSES = 30;
const MISS_MS = 60_000;
const ADDRESSES = 50_000;
/** Characters of a User-Agent that are looked at, and of those that the story shows. */
const AGENT_MAX = 512;
const DEVICE_MAX = 120;
const RETRY_AFTER_S = 5;

/** On every answer: whoever opens the link tells nobody where it stood, nobody keeps the answer, no search engine lists it. */
const HEADERS: Readonly<Record<string, string>> = {
  'referrer-policy': 'no-referrer',
  'x-robots-tag': 'noindex, nofollow',
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'content-type': 'text/plain; charset=utf-8',
};
const said = (status: number, body: string, more: Record<string, string> = {}): Answer => ({
  status,
  headers: { ...HEADERS, ...more },
  body,
});
const UNKNOWN = said(404, 'This link does not exist.\n');
const EXPIRED = said(410, 'This link has expired.\n');
const MISSED = said(429, 'Too many wrong links. Try again in a minute.\n', { 'retry-after': String(MISS_MS / 1000) });
const AWAY = said(503, 'This link cannot be looked up now. Try again in a moment.\n', {
  'retry-after': String(RETRY_AFTER_S),
});
const NOT_ALLOWED = said(405, 'Only GET and HEAD.\n', { allow: 'GET, HEAD' });

/** A click that waits to be written. */
interface Waiting {
  no: number;
  link: number;
  row: LinkRow;
  at: number;
  method: string;
  userAgent: string;
  purpose: string;
  address: string;
}

/** Short links and their clicks. */
export function createLinks(options: LinksOptions): Links {
  const { store, env, ids, exchange, addressOf, geo = () => null } = options;
  const { clock, log } = env;
  const tokens = createLinkTokens(options.idKey);
  const total = { redirects: 0, misses: 0, dropped: 0 };

  // --- What is remembered --------------------------------------------------------------------------------------------

  /** Where the ranges of `known` begin, in order. */
  const firsts: number[] = [];
  const known = new LRUCache<number, { row: LinkRow; readAt: number }>({
    max: SPECS,
    maxSize: CHARACTERS,
    sizeCalculation: ({ row }) => row.urls.reduce((sum, url) => sum + url.length, 200),
    dispose: (_, first, reason) => {
      if (reason !== 'set') firsts.splice(placeOf(first), 1);
    },
  });

  /** Place of the last range that begins at or before `no`; below 0 = there is none. */
  function placeOf(no: number): number {
    let [low, high] = [0, firsts.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((firsts[middle] as number) <= no) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  function remembered(no: number): LinkRow | null {
    const first = firsts[placeOf(no)];
    const entry = first === undefined ? undefined : known.get(first);
    if (!entry || no >= entry.row.end) return null;
    const { row, readAt } = entry;
    const good = row.expiresAt === null ? clock.monotonic() - readAt < UNSENT_MS : row.expiresAt > clock.now();
    return good ? row : null;
  }

  function remember(row: LinkRow): void {
    const place = placeOf(row.first);
    if (firsts[place] !== row.first) firsts.splice(place + 1, 0, row.first);
    known.set(row.first, { row, readAt: clock.monotonic() });
  }

  // --- Who guesses ---------------------------------------------------------------------------------------------------

  const misses = new LRUCache<string, { count: number; until: number }>({ max: ADDRESSES });

  const isOver = (name: string): boolean => {
    const seen = misses.get(name);
    return seen !== undefined && seen.count >= MISSES && seen.until > clock.monotonic();
  };

  function missed(name: string): void {
    total.misses++;
    const now = clock.monotonic();
    const seen = misses.get(name);
    if (seen && seen.until > now) seen.count++;
    else misses.set(name, { count: 1, until: now + MISS_MS });
  }

  // --- Clicks --------------------------------------------------------------------------------------------------------

  let waiting: Waiting[] = [];
  let writing: Promise<void> | null = null;
  let timer: Timer | null = null;
  let closed = false;

  function record(click: Waiting): void {
    if (waiting.length >= BUFFER) {
      if (total.dropped++ === 0) log.error({ waiting: waiting.length }, 'clicks are dropped: the store takes none');
      return;
    }
    waiting.push(click);
    arm(GATHER_MS);
  }

  function arm(ms: number): void {
    if (timer !== null || writing !== null || closed) return;
    timer = clock.setTimeout(() => {
      timer = null;
      void write();
    }, ms);
  }

  /** Writes what waits. Never rejects. */
  function write(): Promise<void> {
    writing ??= writeSome().then((ok) => {
      writing = null;
      if (waiting.length > 0) arm(ok ? 0 : AGAIN_MS);
    });
    return writing;
  }

  /** One batch; false = the store does not take it now. */
  async function writeSome(): Promise<boolean> {
    const some = waiting.slice(0, CLICKS_STEP);
    if (some.length === 0) return true;
    try {
      const about = await store.clicked([...new Set(some.map(({ no }) => no))]);
      const messages = new Map(about.map((one) => [one.no, one]));
      const clicks = some.flatMap((click) => {
        const message = messages.get(click.no);
        return message ? [clickOf(click, message)] : [];
      });
      await store.click(clicks);
      const flagged = clicks.filter(({ flag }) => flag !== null).length;
      log.info({ clicks: clicks.length, flagged }, 'clicks');
    } catch (error) {
      log.warn({ err: error, waiting: waiting.length }, 'clicks cannot be written now, will try again');
      return false;
    }
    waiting = waiting.slice(some.length);
    return true;
  }

  function clickOf(click: Waiting, message: Clicked): ClickIn {
    const { no, link, row, at, method, userAgent, purpose, address } = click;
    const signs = { method, userAgent, purpose, at, deliveredAt: message.doneAt };
    const flag = clickFlag(signs, isbot);
    const device = deviceOf(userAgent);
    const words = flag === null ? [device.deviceType, device.os, device.deviceName] : [userAgent];
    const kept = words.filter((word) => word !== '').join(', ');
    const about = {
      messageId: message.key ?? ids.print('message', no),
      bulkId: row.bulkId ?? ids.print('bulk', row.bulk),
      to: message.to,
      callbackData: row.callbackData,
      entity: row.entity,
      application: row.application,
    };
    const url = row.urls[link] as string;
    const body = flag === null ? clickBody(about, { ...device, url, at, geo: geo(address) }) : null;
    return { no, link, at, flag, device: printable(kept).slice(0, DEVICE_MAX), body };
  }

  // --- Redirects -----------------------------------------------------------------------------------------------------

  function lead(row: LinkRow, no: number, link: number, request: IncomingMessage): Answer {
    const url = row.urls[link];
    const location = url === undefined ? null : URL.parse(url);
    if (location === null || !/^https?:$/.test(location.protocol)) return UNKNOWN;
    total.redirects++;
    if (row.clicks) {
      const { headers, method = 'GET' } = request;
      record({
        no,
        link,
        row,
        at: clock.now(),
        method,
        userAgent: (headers['user-agent'] ?? '').slice(0, AGENT_MAX),
        purpose: PURPOSES.map((name) => headers[name] ?? '').join(' '),
        address: addressOf(request),
      });
    }
    // Escaped as a URL, so it cannot break the header.
    return said(302, '', { location: location.href });
  }

  async function look(token: string, request: IncomingMessage): Promise<Answer> {
    const name = networkOf(addressOf(request));
    const place = tokens.parse(token);
    const before = place === null ? null : remembered(place.no);
    if (before !== null && place !== null) {
      const answer = lead(before, place.no, place.link, request);
      if (answer !== UNKNOWN) return answer;
    }
    if (place === null && isOver(name)) return missedOnce(name);
    let row: LinkRow | null;
    try {
      // Also for what cannot be a token: how long a miss takes tells nothing.
      row = await store.link(place?.no ?? NOBODY);
    } catch (error) {
      log.warn({ err: error }, 'link: cannot be looked up now');
      return AWAY;
    }
    if (row === null || place === null || place.link >= row.urls.length) return missedOnce(name);
    if (row.expiresAt !== null && row.expiresAt <= clock.now()) return EXPIRED;
    remember(row);
    return lead(row, place.no, place.link, request);
  }

  function missedOnce(name: string): Answer {
    const over = isOver(name);
    missed(name);
    return over ? MISSED : UNKNOWN;
  }

  return {
    serve(path, request, response) {
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        exchange.refuse(request, response, NOT_ALLOWED);
        return;
      }
      void look(path.slice(LINK_PATH.length), request)
        .catch((error: unknown) => {
          log.error({ err: error }, 'link: a bug');
          return AWAY;
        })
        .then((answer) => exchange.give(response, answer));
    },
    counters: () => ({ ...total, waiting: waiting.length }),
    async close() {
      closed = true;
      timer?.cancel();
      const limit = new AbortController();
      const drained = (async () => {
        await writing;
        while (waiting.length > 0 && !limit.signal.aborted) {
          if (!(await writeSome())) await clock.sleep(GATHER_MS, limit.signal);
        }
      })();
      await Promise.race([drained, clock.sleep(CLOSE_MS, limit.signal)]);
      limit.abort();
      if (waiting.length > 0) log.error({ clicks: waiting.length }, 'clicks are lost: the store took none');
    },
  };
}

/** A number that no message has. */
const NOBODY = 0;

/** Headers in which browsers say that nobody has clicked yet. */
const PURPOSES = ['sec-purpose', 'purpose', 'x-purpose', 'x-moz'] as const;

const DEVICES: Record<string, string> = { mobile: 'Phone', tablet: 'Tablet', desktop: 'Desktop', tv: 'TV' };

/** What a User-Agent tells of the device, as in the documented example: Phone, iOS 12, Apple. */
export function deviceOf(userAgent: string): { deviceType: string; os: string; deviceName: string } {
  if (userAgent === '') return { deviceType: '', os: '', deviceName: '' };
  const { os, platform } = Bowser.parse(userAgent);
  // Of Windows the version is NT's, and its name the one that people know.
  const major = /^\d+/.exec(os.version ?? '')?.[0] ?? os.versionName;
  return {
    deviceType: DEVICES[platform.type ?? ''] ?? '',
    os: [os.name, major].filter(Boolean).join(' '),
    deviceName: platform.vendor ?? platform.model ?? '',
  };
}

/** Without what a log or a terminal would take for a command. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]+/g, ' ');
}

/** What counts as one address: an IPv4 address, or the network that one subscriber has of IPv6 (/64). */
export function networkOf(address: string): string {
  if (!address.includes(':') || address.includes('.')) return address;
  const [head = '', tail] = address.split('::');
  const before = head.split(':').filter((group) => group !== '');
  const after = (tail ?? '').split(':').filter((group) => group !== '');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array.from({ length: zeros }, () => '0'), ...after];
  return groups.slice(0, 4).join(':');
}
