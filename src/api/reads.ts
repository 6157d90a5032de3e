/**
 * What customers read: delivery reports (handed out once), logs, and the story of one message. Rows of the store into the
 * published objects.
 *
 * Promises: newest first; an answer holds at most `limit` rows and, since one request's content may be megabytes, about
 * `ANSWER_MAX` characters of them: then it holds fewer, and logs carry a cursor that goes on after the last one shown. Reports
 * are taken in steps, so that a failure half-way answers with what has been taken, never loses it.
 *
 * Fails: rejects with StoreUnavailable or a bug; a query that makes no sense is an Answer.
 */
import { parseDestination } from '../domain/address.ts';
import { errorView } from '../domain/codes.ts';
import type { Ids } from '../domain/ids.ts';
import type { Spec } from '../domain/message.ts';
import type { Networks } from '../domain/networks.ts';
import {
  bulkIdOf,
  type DeliveryReport,
  deliveryReport,
  messageCountOf,
  messageIdOf,
  platformOf,
  priceView,
  shownStatus,
} from '../domain/report.ts';
import type { Routing } from '../domain/routing.ts';
import { formatInstant } from '../domain/schedule.ts';
import type { Env } from '../env.ts';
import {
  type EventRow,
  type MessageFilter,
  type MessageRow,
  type SpecRow,
  type Store,
  StoreUnavailable,
} from '../store/contract.ts';
import { type Answer, apiError, JSON_HEADERS } from './errors.ts';
import { logsQuery, printCursor, type Query, readQuery, reportsQuery } from './queries.ts';
import { contentOf, type StoryContext, storyOf } from './story.ts';

/** Rows asked of the store at a time: bounds what it holds in memory where contents are large. */
const STEP = 100;
/** Calls of the store for one answer: it looks at some 100 000 messages in each and stops to let others read. */
const LOG_STEPS = 60;
/** Before everything. */
const FIRST = Number.MAX_SAFE_INTEGER;
/** Characters of results after which an answer ends. */
const ANSWER_MAX = 16 * 1024 * 1024;

/** The answers to GET reports, GET logs and the story of a message, each for one account. */
export interface Reads {
  reports(account: number, query: unknown): Promise<Answer>;
  logs(account: number, query: unknown): Promise<Answer>;
  story(account: number, messageId: string): Promise<Answer>;
}

/** `logsHours`: how far back logs reach without a filter. */
export function createReads(options: {
  store: Store;
  env: Env;
  ids: Ids;
  logsHours: number;
  routing?: Routing;
  /** The operator's number table, where there is one. */
  networks?: Networks;
}): Reads {
  const { store, env, ids, networks } = options;

  function filterOf(account: number, query: Query): MessageFilter {
    const filter: MessageFilter = { account, limit: STEP };
    if (query.bulkId) filter.bulks = { nos: numbersOf('bulk', query.bulkId, ids), ids: query.bulkId };
    if (query.messageId) filter.messages = { nos: numbersOf('message', query.messageId, ids), keys: query.messageId };
    if (query.sender !== undefined) filter.sender = plusOf(query.sender);
    if (query.destination !== undefined) filter.destination = destinationOf(query.destination);
    if (query.generalStatus !== undefined) filter.generalStatus = query.generalStatus;
    if (query.entityId !== undefined) filter.entity = query.entityId;
    if (query.applicationId !== undefined) filter.application = query.applicationId;
    if (query.campaignReferenceId) filter.campaigns = query.campaignReferenceId;
    if (query.sentUntil !== undefined) filter.until = query.sentUntil;
    if (query.before !== undefined) filter.before = query.before;
    return filter;
  }

  async function reports(account: number, raw: unknown): Promise<Answer> {
    const read = readQuery(reportsQuery, raw, ids, env.clock.now());
    if (!read.ok) return apiError('E400', { violations: read.violations });
    const filter = filterOf(account, read.query);
    const results = new Results();
    let left = read.query.limit;
    try {
      while (left > 0 && !results.full) {
        filter.limit = Math.min(left, STEP);
        const { rows, specs } = await store.takeReports(filter);
        const bodies = new Bodies(specs);
        for (const row of rows) results.add(reportOf(row, bodies, ids, networks));
        left -= rows.length;
        if (rows.length < filter.limit) break;
      }
    } catch (error) {
      // What was taken will not be given again: it must not be lost over the rest.
      if (!(error instanceof StoreUnavailable) || results.count === 0) throw error;
    }
    if (results.count > 0) env.log.info({ account, count: results.count }, 'reports pulled');
    return { status: 200, headers: JSON_HEADERS, body: `{"results":[${results.text}]}` };
  }

  async function logs(account: number, raw: unknown): Promise<Answer> {
    const read = readQuery(logsQuery, raw, ids, env.clock.now());
    if (!read.ok) return apiError('E400', { violations: read.violations });
    const { query } = read;
    const results = new Results();
    const filter = filterOf(account, query);
    const oldest = env.clock.now() - options.logsHours * 3_600_000;
    filter.since = Math.max(query.sentSince ?? oldest, oldest);
    let next: number | null = filter.before ?? FIRST;
    // The store knows no networks, nor single statuses: of what it gives, few may be wanted.
    const narrowed = query.mcc !== undefined || query.mnc !== undefined || query.status !== undefined;
    let left = query.limit;
    for (let step = 0; next !== null && left > 0 && !results.full && step < LOG_STEPS; step++) {
      filter.limit = narrowed ? STEP : Math.min(left, STEP);
      const page = await store.logs(filter);
      const bodies = new Bodies(page.specs);
      next = page.next;
      for (const row of page.rows) {
        if (results.full || left === 0) break;
        const network = networks?.of(row.to) ?? null;
        if (!isIn(network, query)) continue;
        if (query.status !== undefined && shownStatus(row).id !== query.status) continue;
        results.add(logOf(row, bodies, ids, network));
        left--;
        if (results.full || (narrowed && left === 0)) next = row.no;
      }
      if (next !== null) filter.before = next;
    }
    // Also unasked where this server's limits, not the customer's, ended the answer: nothing is cut off silently.
    const cut = next !== null && left > 0;
    const cursor =
      query.useCursor || cut
        ? `,"cursor":${JSON.stringify({ limit: query.limit, ...(next === null ? {} : { nextCursor: printCursor(next, ids) }) })}`
        : '';
    return { status: 200, headers: JSON_HEADERS, body: `{"results":[${results.text}]${cursor}}` };
  }

  function context(): StoryContext {
    const served = options.routing?.names;
    return { ids, now: env.clock.now(), ...(served ? { served } : {}), ...(networks ? { networks } : {}) };
  }

  async function story(account: number, messageId: string): Promise<Answer> {
    const no = ids.parse('message', messageId);
    const found =
      (no === null ? null : await store.story(account, { no })) ?? (await store.story(account, { key: messageId }));
    if (!found) return apiError('E404');
    return { status: 200, headers: JSON_HEADERS, body: JSON.stringify(storyOf(found, context())) };
  }

  return { reports, logs, story };
}

/** Results as text, with their size. */
class Results {
  text = '';
  count = 0;

  add(result: object): void {
    this.text += `${this.count === 0 ? '' : ','}${JSON.stringify(result)}`;
    this.count++;
  }

  get full(): boolean {
    return this.text.length > ANSWER_MAX;
  }
}

/** The specs of a page, each parsed once. */
class Bodies {
  readonly #rows: Map<number, SpecRow>;
  readonly #specs = new Map<number, Spec>();

  constructor(rows: readonly SpecRow[]) {
    this.#rows = new Map(rows.map((row) => [row.no, row]));
  }

  /** Throws when the store gave a row without its spec: a bug. */
  of(no: number): { row: SpecRow; spec: Spec } {
    const row = this.#rows.get(no);
    if (row === undefined) throw new Error(`spec ${no} did not come with its message`);
    let spec = this.#specs.get(no);
    if (spec === undefined) {
      spec = JSON.parse(row.body) as Spec;
      this.#specs.set(no, spec);
    }
    return { row, spec };
  }
}

/** The events of one page of the feed as delivery reports. */
export function reportsOf(
  rows: readonly EventRow[],
  specs: readonly SpecRow[],
  ids: Ids,
  networks?: Networks,
): DeliveryReport[] {
  const bodies = new Bodies(specs);
  return rows.map((row) => reportOf(row, bodies, ids, networks));
}

/** Whether a destination's network is the one that is asked for; one that is not known is in none. */
function isIn(network: string | null, { mcc, mnc }: Query): boolean {
  if (mcc === undefined && mnc === undefined) return true;
  if (network === null) return false;
  // The MCC has three digits, the MNC two or three.
  return (mcc === undefined || network.slice(0, 3) === mcc) && (mnc === undefined || network.slice(3) === mnc);
}

function reportOf(row: EventRow, bodies: Bodies, ids: Ids, networks: Networks | undefined): DeliveryReport {
  const { row: specRow, spec } = bodies.of(row.spec);
  return deliveryReport(row, spec, specRow, ids, networks);
}

function logOf(row: MessageRow, bodies: Bodies, ids: Ids, network: string | null): object {
  const { row: specRow, spec } = bodies.of(row.spec);
  const sentAt = row.sentAt ?? row.acceptedAt;
  return {
    // Members that are undefined do not appear.
    title: spec.content.title,
    mccMnc: network ?? undefined,
    sender: specRow.sender,
    destination: row.to,
    bulkId: bulkIdOf(row, ids),
    messageId: messageIdOf(row, ids),
    sentAt: formatInstant(sentAt),
    // Always there, as in a report: of an open message, the last instant that is known.
    doneAt: formatInstant(row.doneAt ?? sentAt),
    messageCount: messageCountOf(row, spec),
    price: priceView(row, spec),
    status: shownStatus(row),
    error: errorView(row.error),
    platform: platformOf(spec),
    content: contentOf(spec),
    campaignReferenceId: spec.options?.campaignReferenceId,
    channel: row.leg === 1 ? 'SMS' : undefined,
  };
}

function numbersOf(kind: 'bulk' | 'message', list: readonly string[], ids: Ids): number[] {
  return list.map((id) => ids.parse(kind, id)).filter((no) => no !== null);
}

/** A `+` that was not escaped arrives as a space. */
function plusOf(text: string): string {
  return /^ \d/.test(text) ? `+${text.slice(1)}` : text;
}

/** A destination as messages keep it. */
function destinationOf(text: string): string {
  const parsed = parseDestination(plusOf(text));
  return parsed.ok ? parsed.number : text;
}
