/**
 * The outbox to customers: takes what is due from the store, posts it, settles it. The store decides what is due (order
 * within a message, batches, the retry cycle); here it is decided when there is room.
 *
 * Promises: a webhook's retries carry the same bytes and id (G10); a signature is the try's own. Slots are time, so they are
 * shared by time: a try that takes longer than SLOW_MS gives its quick slot back, and its endpoint competes only for the
 * slow ones until it is quick again; no endpoint holds more than a few (G11). One that failed often in a row gets one try at a time, a pause between.
 * All of this delays and never skips: what finds no room waits here, or comes back when its lease ends. Receivers that
 * answer at once do not get a POST per message: under load the store is asked at most every GATHER_MS.
 *
 * Fails: a store that is away is asked again every second; a settle that cannot be written lets the lease end, and the POST is
 * repeated (at least once, not exactly once).
 */
import { LRUCache } from 'lru-cache';
import type { Ids } from '../domain/ids.ts';
import { inboundBody, type PartUrls } from '../domain/inbound.ts';
import type { Spec } from '../domain/message.ts';
import type { Networks } from '../domain/networks.ts';
import { deliveryReport, messageIdOf, readForm } from '../domain/report.ts';
import type { SpecRow } from '../domain/rows.ts';
import type { Env, Timer } from '../env.ts';
import type { Outbound } from '../net/outbound.ts';
import type { Store, Webhook, WebhookSettle } from '../store/contract.ts';
import { formBody, signature } from './payload.ts';

/** What main gives to the outbox. */
export interface WebhooksOptions {
  store: Pick<Store, 'webhookNext' | 'webhookSettle' | 'onHint'>;
  outbound: Pick<Outbound, 'post'>;
  env: Env;
  ids: Ids;
  /** Where the parts of inbound messages can be fetched. */
  partUrls: PartUrls;
  /** The operator's number table, where there is one. */
  networks?: Networks;
}

/** The outbox as main sees it. */
export interface WebhookLoop {
  start(): void;
  /** Takes nothing more; resolves when what is in flight is settled, at the latest after STOP_MS. */
  stop(): Promise<void>;
  /** Totals since the start, and what is open now (`inFlight`, `held`, `slowEndpoints`). */
  counters(): Record<string, number>;
}

/** Until the answer's status. */
const TIMEOUT_MS = 10_000;
const LEASE_MS = 30_000;
/** How long a leased one may wait here: the try and its settle must end before the lease does. */
const WAIT_MS = 14_000;
const STOP_MS = 15_000;

/** POSTs in flight to endpoints that answer quickly, in all and to one of them. */
const QUICK_SLOTS = 48;
const QUICK_EACH = 4;
/**
 * The same for those that do not. What turns out slow on the way may exceed it: in flight are at most QUICK_SLOTS for each
 * SLOW_MS of a try, and these.
 */
const SLOW_SLOTS = 16;
const SLOW_EACH = 2;
const SLOW_MS = 2_000;
/** Leased ones that wait for room; more are left to the end of their lease. */
const HELD = 512;
/** Failures in a row after which an endpoint gets one try at a time, and the pause between two. */
const BREAKER_FAILURES = 5;
const BREAKER_REST_MS = 1_000;
/** Endpoints remembered for what they did. */
const ENDPOINTS = 10_000;

/** Distance between two questions to the store while there is traffic. */
const GATHER_MS = 20;
/** A hint may be lost. */
const POLL_MS = 15_000;
const STORE_AWAY_MS = 1_000;
const SETTLE_TRIES = 10;
const HELD_POLL_MS = 500;
const SPECS = 128;
/** Message ids in a log line. */
const LOGGED_IDS = 20;

const USER_AGENT = 'Postcard-Webhooks/1';

interface Endpoint {
  no: number;
  inFlight: number;
  held: Held[];
  slow: boolean;
  failures: number;
  /** By `monotonic`. */
  restUntil: number;
}

interface Held {
  webhook: Webhook;
  specs: Map<number, SpecRow>;
  /** Leave it to its lease after this, by `monotonic`. */
  until: number;
}

/** Makes the loop; nothing happens before `start`. */
export function createWebhooks(options: WebhooksOptions): WebhookLoop {
  const { store, outbound, env, ids, partUrls } = options;
  const { clock, log } = env;
  const endpoints = new Map<number, Endpoint>();
  const waiting = new Set<Endpoint>();
  const specs = new LRUCache<number, Spec>({ max: SPECS });
  const open = new Set<Promise<void>>();
  const total = { tries: 0, delivered: 0, failed: 0, events: 0, putOff: 0 };
  let quick = 0;
  let slow = 0;
  let held = 0;
  let started = false;
  let stopping = false;
  let asking: Promise<void> | null = null;
  let askAgain = false;
  let lastAsk = Number.NEGATIVE_INFINITY;
  let timer: { at: number; timer: Timer } | null = null;
  let heldTimer: Timer | null = null;
  let storeAway = false;
  /** The store may have had more when the slots ran out. */
  let starved = false;

  // ------------------------------------------------------------------------------------------------ asking the store

  /** Ask by `at` at the latest (`monotonic`). */
  function askBy(at: number): void {
    if (stopping || (timer !== null && timer.at <= at)) return;
    timer?.timer.cancel();
    const armed = clock.setTimeout(() => {
      timer = null;
      ask();
    }, at - clock.monotonic());
    timer = { at, timer: armed };
  }

  /** Something may be due. */
  function wake(): void {
    askBy(Math.max(clock.monotonic(), lastAsk + GATHER_MS));
  }

  function ask(): void {
    if (stopping) return;
    if (asking !== null) {
      askAgain = true;
      return;
    }
    asking = askStore().finally(() => {
      asking = null;
      if (askAgain) {
        askAgain = false;
        wake();
      }
    });
  }

  async function askStore(): Promise<void> {
    // Slow ones that come too take slow slots or wait: the quick ones behind them are reached by asking on.
    starved = false;
    for (let free = QUICK_SLOTS - quick; free > 0 && !stopping; free = QUICK_SLOTS - quick) {
      lastAsk = clock.monotonic();
      let answer: Awaited<ReturnType<Store['webhookNext']>>;
      try {
        answer = await store.webhookNext(free, LEASE_MS);
      } catch (error) {
        if (!storeAway) log.warn({ err: error }, 'webhooks: the store does not answer, will ask again');
        storeAway = true;
        askBy(clock.monotonic() + STORE_AWAY_MS);
        return;
      }
      storeAway = false;
      const rows = new Map(answer.specs.map((row) => [row.no, row]));
      for (const webhook of answer.webhooks) take(webhook, rows);
      const { nextDue } = answer;
      const idle = nextDue === null ? POLL_MS : Math.min(POLL_MS, Math.max(GATHER_MS, nextDue - answer.now));
      if (answer.webhooks.length < free) {
        askBy(clock.monotonic() + idle);
        return;
      }
    }
    starved = true;
    askBy(clock.monotonic() + POLL_MS);
  }

  // ------------------------------------------------------------------------------------------------ room

  function endpointOf(no: number): Endpoint {
    const known = endpoints.get(no);
    if (known) return known;
    if (endpoints.size >= ENDPOINTS) {
      for (const old of endpoints.values()) {
        if (old.inFlight > 0 || old.held.length > 0) continue;
        endpoints.delete(old.no);
        break;
      }
    }
    const made: Endpoint = { no, inFlight: 0, held: [], slow: false, failures: 0, restUntil: 0 };
    endpoints.set(no, made);
    return made;
  }

  function hasRoom(endpoint: Endpoint): boolean {
    if (endpoint.restUntil > clock.monotonic()) return false;
    const each = endpoint.failures >= BREAKER_FAILURES ? 1 : endpoint.slow ? SLOW_EACH : QUICK_EACH;
    if (endpoint.inFlight >= each) return false;
    return endpoint.slow ? slow < SLOW_SLOTS : quick < QUICK_SLOTS;
  }

  function take(webhook: Webhook, rows: Map<number, SpecRow>): void {
    const endpoint = endpointOf(webhook.endpoint.no);
    if (!stopping && endpoint.held.length === 0 && hasRoom(endpoint)) {
      run(endpoint, webhook, rows);
    } else if (stopping || held >= HELD) {
      total.putOff += 1;
    } else {
      held += 1;
      endpoint.held.push({ webhook, specs: rows, until: clock.monotonic() + WAIT_MS });
      waiting.add(endpoint);
      armHeld();
    }
  }

  /** Starts what waited and finds room now. */
  function pass(): void {
    for (const endpoint of waiting) {
      while (endpoint.held.length > 0) {
        const next = endpoint.held[0] as Held;
        const late = next.until < clock.monotonic();
        if (!late && !hasRoom(endpoint)) break;
        endpoint.held.shift();
        held -= 1;
        if (late) total.putOff += 1;
        else run(endpoint, next.webhook, next.specs);
      }
      if (endpoint.held.length === 0) waiting.delete(endpoint);
    }
  }

  function armHeld(): void {
    if (heldTimer !== null || stopping) return;
    heldTimer = clock.setTimeout(() => {
      heldTimer = null;
      pass();
      if (waiting.size > 0) armHeld();
    }, HELD_POLL_MS);
  }

  // ------------------------------------------------------------------------------------------------ one try

  function run(endpoint: Endpoint, webhook: Webhook, rows: Map<number, SpecRow>): void {
    endpoint.inFlight += 1;
    let isQuick = !endpoint.slow;
    if (isQuick) quick += 1;
    else slow += 1;
    const tooSlow = isQuick
      ? clock.setTimeout(() => {
          isQuick = false;
          endpoint.slow = true;
          quick -= 1;
          slow += 1;
          roomMade();
        }, SLOW_MS)
      : null;
    const done = attempt(endpoint, webhook, rows)
      .catch((error: unknown) => log.error({ err: error, webhook: webhook.no }, 'webhook: a try failed in us'))
      .finally(() => {
        tooSlow?.cancel();
        endpoint.inFlight -= 1;
        if (isQuick) quick -= 1;
        else slow -= 1;
        open.delete(done);
        roomMade();
      });
    open.add(done);
  }

  function roomMade(): void {
    if (stopping) return;
    pass();
    if (starved) wake();
  }

  async function attempt(endpoint: Endpoint, webhook: Webhook, rows: Map<number, SpecRow>): Promise<void> {
    const { no, token } = webhook;
    const id = ids.print('webhook', no);
    const body = webhook.body ?? form(webhook, rows);
    if (body === null) {
      // Its messages are past retention: there is nothing left to tell.
      await settle({ no, token, ok: true, status: 0, tookMs: 0, excerpt: 'its messages are gone', body: null });
      return;
    }
    const { url, contentType, secrets, headers } = webhook.endpoint;
    const startedAt = clock.monotonic();
    const result = await outbound.post(url, {
      headers: {
        // The account's own first: none of them can take the place of ours.
        ...lowered(headers),
        'content-type': readForm(contentType).mediaType,
        'user-agent': USER_AGENT,
        ...signature(secrets, id, clock.now(), body),
      },
      body,
      timeoutMs: TIMEOUT_MS,
    });
    const tookMs = Math.round(clock.monotonic() - startedAt);
    // Broken off by our own stop: that says nothing of the receiver. The lease brings it back.
    if (!result.ok && result.kind === 'stopped') return;
    const status = result.ok ? result.status : 0;
    const ok = status >= 200 && status < 300;
    const excerpt = result.ok ? withoutValues(result.excerpt, headers) : `${result.kind}: ${result.words}`;

    endpoint.slow = tookMs >= SLOW_MS;
    endpoint.failures = ok ? 0 : endpoint.failures + 1;
    endpoint.restUntil = endpoint.failures >= BREAKER_FAILURES ? clock.monotonic() + BREAKER_REST_MS : 0;
    total.tries += 1;
    if (ok) total.delivered += 1;
    else total.failed += 1;
    const { kind, events, inbound } = webhook;
    const count = kind === 'delivery' ? events.length : Math.max(1, inbound.length);
    if (ok) total.events += count;

    // A report that was taken is formed again from its rows, should it be made again; other kinds tell what changes.
    await settle({ no, token, ok, status, tookMs, excerpt, body: ok && kind === 'delivery' ? null : body });
    const told = inbound.length > 0 ? inbound.map((row) => ids.print('message', row.no)) : events.map(idOf);
    log.info(
      {
        webhook: id,
        account: webhook.account,
        endpoint: endpoint.no,
        origin: URL.parse(url)?.origin,
        kind,
        events: count,
        messageIds: told.slice(0, LOGGED_IDS),
        retry: webhook.retry,
        status,
        tookMs,
        ...(result.ok ? {} : { failure: excerpt }),
      },
      ok ? 'webhook delivered' : 'webhook failed',
    );
  }

  const idOf = (event: Webhook['events'][number]): string => messageIdOf(event, ids);

  /** The body of a first try; null = none of its messages is left. */
  function form(webhook: Webhook, rows: Map<number, SpecRow>): string | null {
    if (webhook.kind === 'inbound') {
      const { inbound, pending } = webhook;
      return inbound.length === 0 ? null : inboundBody(inbound, pending, ids, partUrls);
    }
    const reports = webhook.events.flatMap((event) => {
      const row = rows.get(event.spec);
      return row === undefined ? [] : [deliveryReport(event, specOf(row), row, ids, options.networks)];
    });
    return reports.length === 0 ? null : formBody(reports, webhook.endpoint.contentType);
  }

  function specOf(row: SpecRow): Spec {
    const known = specs.get(row.no);
    if (known) return known;
    // Reports say nothing of the content: it need not be kept.
    const spec: Spec = { ...(JSON.parse(row.body) as Spec), content: { messageSegments: [] } };
    specs.set(row.no, spec);
    return spec;
  }

  async function settle(settled: WebhookSettle): Promise<void> {
    for (let n = 1; ; n += 1) {
      try {
        const fresh = await store.webhookSettle(settled);
        if (!fresh) log.warn({ webhook: settled.no }, 'webhook: settled too late, it will be repeated');
        return;
      } catch (error) {
        if (n >= SETTLE_TRIES) {
          log.error({ err: error, webhook: settled.no }, 'webhook: cannot be settled, it will be repeated');
          return;
        }
        await clock.sleep(STORE_AWAY_MS);
      }
    }
  }

  return {
    start() {
      if (started) throw new Error('started twice');
      started = true;
      store.onHint((hint) => {
        if (hint.kind === 'webhooks') wake();
      });
      wake();
    },
    async stop() {
      stopping = true;
      timer?.timer.cancel();
      heldTimer?.cancel();
      total.putOff += held;
      held = 0;
      for (const endpoint of waiting) endpoint.held = [];
      waiting.clear();
      const limit = new AbortController();
      const drained = (async () => {
        await asking;
        while (open.size > 0) await Promise.all(open);
        limit.abort();
      })();
      await Promise.race([drained, clock.sleep(STOP_MS, limit.signal)]);
      if (open.size > 0) log.warn({ open: open.size }, 'webhooks: stopped with tries in flight');
    },
    counters() {
      let slowEndpoints = 0;
      for (const endpoint of endpoints.values()) if (endpoint.slow) slowEndpoints += 1;
      return { ...total, inFlight: quick + slow, held, slowEndpoints };
    },
  };
}

/** One spelling of each name. */
function lowered(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

/** Shorter ones say too little, and would spoil what the receiver says. */
const VALUE_MIN = 8;

/** An excerpt without the account's own header values, which some receivers repeat in their errors: it is kept and shown. */
function withoutValues(excerpt: string, headers: Readonly<Record<string, string>>): string {
  let text = excerpt;
  for (const value of Object.values(headers)) {
    if (value.length < VALUE_MIN) continue;
    text = text.replaceAll(value, '***');
    // Cut off in the middle of one.
    for (let length = Math.min(value.length, text.length); length >= VALUE_MIN; length--) {
      if (!text.endsWith(value.slice(0, length))) continue;
      text = `${text.slice(0, -length)}***`;
      break;
    }
  }
  return text;
}
