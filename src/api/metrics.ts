/**
 * The figures of GET /metrics, in Prometheus' text format. What happens often is counted in plain numbers and handed to the
 * library when somebody looks, so that a request costs a few additions.
 *
 * Promises: labels are bounded (HTTP statuses, lanes, outcomes); a part that cannot be asked leaves its figures out and says
 * so in `postcard_scrape_failures`, the page always comes.
 */
import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';
import { networksOf } from '../domain/accounts.ts';
import type { Env } from '../env.ts';
import type { Stats, Store } from '../store/contract.ts';
import { type Answer, apiError } from './errors.ts';

/** Seconds. A commit on a good disk is a few ms, a deep queue before the writer some 100. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** How long one part is waited for. */
const PART_MS = 2_000;

type Sums = Omit<Stats, 'waitingAt'>;
const STATS: Record<keyof Sums, [name: string, help: string]> = {
  waiting: ['postcard_messages_waiting', 'Messages that were never submitted and may be once their turn comes.'],
  inFlight: ['postcard_submissions_in_flight', 'Submissions that are claimed now.'],
  retries: ['postcard_submissions_to_retry', 'Submissions that wait for their next attempt.'],
  webhooksWaiting: ['postcard_webhooks_waiting', 'Webhooks and reports that are still to be delivered to customers.'],
  webhooksExhausted: ['postcard_webhooks_exhausted', 'Webhooks that were given up after their last retry.'],
  pull: ['postcard_reports_to_pull', 'Final reports that wait in the pull list.'],
  walBytes: ['postcard_store_wal_bytes', 'Size of the write-ahead log.'],
};

/** What the API counts, and the page that shows it with what others count. */
export interface Metrics {
  readonly contentType: string;
  answered(status: number): void;
  accepted(taken: number, refused: number, duplicates: number, tookMs: number): void;
  page(): Promise<string>;
  close(): void;
}

export interface MetricsOptions {
  store: Store;
  env: Env;
  carrierCounters(): Promise<Record<string, unknown>>;
  /** Names of the carriers that are configured now; undefined = not known here. */
  served?(): ReadonlySet<string> | undefined;
  /** Connections to this server, and of these the event streams. */
  connections(): Promise<number>;
  listeners(): number;
  /** Places for sends, and what was refused for want of one. */
  door?(): Record<string, number>;
  /** Of short links: totals since the start, and clicks that wait to be written. */
  links?(): Record<string, number>;
  /** Whether the store takes writes, as /readyz says it. */
  ready(): Promise<boolean>;
}

/**
 * Who may read the page, which names carriers and says how much is sent: the networks of `allow`, and from anywhere who shows
 * `token`. What a proxy brings that is not trusted came from nobody knows where: it needs the token. Null = come in.
 */
export function createMetricsLock(options: {
  allow: readonly string[];
  token: string | null;
  /** Null = not known for certain. */
  sureAddressOf(request: IncomingMessage): string | null;
}): (request: IncomingMessage) => Answer | null {
  const { token, sureAddressOf } = options;
  const allowed = networksOf(options.allow);
  const digest = (text: string): Buffer => Buffer.from(hash('sha256', text), 'hex');
  const right = token === null ? null : digest(token);
  return (request) => {
    const { headers } = request;
    const address = sureAddressOf(request);
    if (address !== null && allowed(address)) return null;
    if (right === null) return apiError('E403');
    const found = /^bearer +(\S{1,1000}) *$/i.exec(headers.authorization ?? '');
    if (found && timingSafeEqual(digest(found[1] as string), right)) return null;
    return apiError('E401', { headers: { 'www-authenticate': 'Bearer' } });
  };
}

/** Counters of this process; nothing is shared with another one. */
export function createMetrics(options: MetricsOptions): Metrics {
  const { env } = options;
  const registry = new Registry();
  const registers = [registry];
  // Not the default of 10 ms: a hundred wake-ups a second were most of an idle server's.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });

  const answers = new Map<number, number>();
  const sums = { requests: 0, messages: 0, refused: 0, duplicates: 0 };
  const latency = new Histogram({
    name: 'postcard_accept_seconds',
    help: 'From the last byte of a request that was accepted to its commit.',
    buckets: BUCKETS,
    registers,
  });
  const total = (name: string, help: string, value: () => number): void => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(value());
      },
    });
  };
  total('postcard_accepted_requests_total', 'Requests answered 200 after their commit.', () => sums.requests);
  total('postcard_accepted_messages_total', 'Messages taken.', () => sums.messages);
  total(
    'postcard_refused_messages_total',
    'Destinations refused at the door, in a request that was taken.',
    () => sums.refused,
  );
  total(
    'postcard_duplicate_messages_total',
    'Destinations with a message id that was used before.',
    () => sums.duplicates,
  );
  new Counter({
    name: 'postcard_http_answers_total',
    help: 'Answers to customers by HTTP status.',
    labelNames: ['status'],
    registers,
    collect() {
      this.reset();
      for (const [status, count] of answers) this.inc({ status }, count);
    },
  });

  new Gauge({
    name: 'postcard_links',
    help: 'Short links: redirects, misses and clicks dropped since the start, clicks waiting to be written now.',
    labelNames: ['figure'],
    registers,
    collect() {
      this.reset();
      for (const [figure, value] of Object.entries(options.links?.() ?? {})) this.set({ figure }, value);
    },
  });

  const gauge = (name: string, help: string) => new Gauge({ name, help, registers });
  const stats = Object.fromEntries(
    Object.entries(STATS).map(([key, [name, help]]) => [key, gauge(name, help)]),
  ) as Record<keyof Sums, Gauge>;
  const waitingAt = new Gauge({
    name: 'postcard_carrier_waiting',
    help: 'What waits (messages never submitted, submissions to retry) by carrier.',
    labelNames: ['carrier'],
    registers,
  });
  const stranded = gauge(
    'postcard_messages_without_carrier',
    'Of these, what waits for carriers that are not configured any more.',
  );
  const connections = gauge('postcard_http_connections', 'Open connections of customers.');
  const listeners = gauge('postcard_event_streams', 'Open event streams.');
  const ready = gauge('postcard_ready', '1 while the store takes writes.');
  const failures = gauge('postcard_scrape_failures', 'Parts that did not tell their figures for this page.');
  const laneInFlight = new Gauge({
    name: 'postcard_lane_in_flight',
    help: 'Submissions to this carrier that are on their way.',
    labelNames: ['lane'],
    registers,
  });
  const laneBlocked = new Gauge({
    name: 'postcard_lane_blocked',
    help: '1 while this lane waits because the carrier asked for it or failed repeatedly.',
    labelNames: ['lane'],
    registers,
  });
  const laneOutcomes = new Counter({
    name: 'postcard_lane_outcomes_total',
    help: 'What became of submissions, by carrier.',
    labelNames: ['lane', 'outcome'],
    registers,
  });
  const binds = new Gauge({
    name: 'postcard_smpp_binds',
    help: 'Binds to this SMSC that are wanted, those that stand, and submissions on them without an answer.',
    labelNames: ['carrier', 'figure'],
    registers,
  });
  const webhooks = new Gauge({
    name: 'postcard_webhooks',
    help: "The webhook room's own figures.",
    labelNames: ['figure'],
    registers,
  });

  function showWaiting(counts: Stats['waitingAt']): void {
    waitingAt.reset();
    const served = options.served?.();
    let without = 0;
    for (const { carrier, count } of counts) {
      waitingAt.set({ carrier }, count);
      if (served !== undefined && !served.has(carrier)) without += count;
    }
    stranded.set(without);
  }

  function showCarriers(counters: Record<string, unknown>): void {
    laneInFlight.reset();
    laneBlocked.reset();
    laneOutcomes.reset();
    for (const lane of Array.isArray(counters.lanes) ? (counters.lanes as Record<string, unknown>[]) : []) {
      const label = { lane: String(lane.lane) };
      laneInFlight.set(label, Number(lane.inFlight) || 0);
      laneBlocked.set(label, lane.blocked === true ? 1 : 0);
      for (const [outcome, count] of figures(lane.outcomes)) laneOutcomes.inc({ ...label, outcome }, count);
    }
    binds.reset();
    for (const one of Array.isArray(counters.binds) ? (counters.binds as Record<string, unknown>[]) : []) {
      const carrier = String(one.carrier);
      binds.set({ carrier, figure: 'wanted' }, Number(one.binds) || 0);
      binds.set({ carrier, figure: 'bound' }, Number(one.bound) || 0);
      binds.set({ carrier, figure: 'outstanding' }, Number(one.outstanding) || 0);
    }
    webhooks.reset();
    for (const [figure, value] of figures(counters.webhooks)) webhooks.set({ figure }, value);
  }

  new Gauge({
    name: 'postcard_door',
    help: 'Sends: places at the door, how many are taken, and requests refused with 429 since the start.',
    labelNames: ['figure'],
    registers,
    collect() {
      this.reset();
      for (const [figure, value] of Object.entries(options.door?.() ?? {})) this.set({ figure }, value);
    },
  });
  /** What one part has to say, or nothing when it fails or takes too long. */
  async function part<T>(ask: () => Promise<T>, show: (value: T) => void): Promise<number> {
    const late = new AbortController();
    const timeout = env.clock.sleep(PART_MS, late.signal).then(() => null);
    try {
      const value = await Promise.race([ask().then((given) => ({ given })), timeout]);
      if (value === null) return 1;
      show(value.given);
      return 0;
    } catch (error) {
      env.log.warn({ err: error }, 'metrics: a part did not answer');
      return 1;
    } finally {
      late.abort();
    }
  }

  return {
    contentType: registry.contentType,
    answered(status) {
      answers.set(status, (answers.get(status) ?? 0) + 1);
    },
    accepted(taken, refused, duplicates, tookMs) {
      sums.requests++;
      sums.messages += taken;
      sums.refused += refused;
      sums.duplicates += duplicates;
      latency.observe(tookMs / 1000);
    },
    async page() {
      const failed = await Promise.all([
        part(
          () => options.store.stats(),
          (value) => {
            for (const key of Object.keys(STATS) as (keyof Sums)[]) stats[key].set(value[key]);
            showWaiting(value.waitingAt);
          },
        ),
        part(options.carrierCounters, showCarriers),
        part(options.connections, (value) => connections.set(value)),
        part(options.ready, (value) => ready.set(value ? 1 : 0)),
      ]);
      failures.set(failed.reduce((sum, one) => sum + one, 0));
      listeners.set(options.listeners());
      return registry.metrics();
    },
    close: () => registry.clear(),
  };
}

function figures(value: unknown): [string, number][] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).filter((entry): entry is [string, number] => typeof entry[1] === 'number');
}
