/**
 * From a validated request to rows: every destination gets a number, numbers of one spec are consecutive, and those that
 * share lane, ways, window and validity form a run (one row, however many destinations). Pure: numbers, routing and time come
 * as arguments. Order of numbers: request, specs, then per spec the runs and last the destinations refused at the door.
 *
 * Promises: numbers are consecutive and each destination has exactly one; the answer's entries stand in request order. A
 * group stays one submission where one lane takes all its members, else its members go alone and `split` says so.
 * Fails: a destination or sender that cannot be one is a refusal in its own entry; an invalid request is the schema's affair.
 */
import { parseDestination, parseSender } from './address.ts';
import type { SmsWay, Ways } from './failover.ts';
import { cutText, LINK_KEEP_MS, linksOf, type Shortener, shortens } from './links.ts';
import type { MessageRequest, SendRequest, SingleDestination, Spec } from './message.ts';
import type { Routing } from './routing.ts';
import type { Accept, RunIn, SpecIn } from './rows.ts';
import { intervalUs, parseInstant, validityMs, windowOf } from './schedule.ts';
import { segmentsOf } from './sms.ts';

/** One line of the answer, in request order. */
export interface Entry {
  no: number;
  /** As the customer wrote it. */
  destination: string;
  /** The customer's own id, null = generated from `no`. */
  key: string | null;
  /** Status id of a refusal at the door, 0 = accepted. */
  refused: number;
}

/** What numbering must be told, being pure. */
export interface NumberingContext {
  account: number;
  /** First of `numbersNeeded` consecutive numbers. */
  first: number;
  now: number;
  routing: Routing;
  idem: { key: string; hash: string } | null;
  /** Whether an SMS also follows where it is not known if the MMS arrived (status 29); absent = as routing says. */
  failoverAfterUnknown?: boolean;
  /** Whether the account has this domain for its short links; absent = it has none. */
  hasDomain?: (name: string) => boolean;
  /** How long short links work; default LINK_KEEP_MS. */
  linkKeepMs?: number;
  /** Makes short links, so that an SMS is counted as it leaves; absent = it leaves as it is. */
  shortener?: Shortener;
  /** The request came by the first version of the API. */
  older?: true;
  /** Customer's ids that messages had before this request: refused with 23, in the answer and nowhere else. */
  repeated?: ReadonlySet<string>;
}

/** How many numbers a request takes: itself, its specs, its destinations. */
export function numbersNeeded(request: SendRequest): number {
  let count = 1 + request.messages.length;
  for (const message of request.messages) {
    for (const destination of message.destinations) count += 'group' in destination ? destination.group.length : 1;
  }
  return count;
}

/** A numbered request. `split`: how many groups no single lane takes (worth a line in the log). */
export interface Numbered {
  accept: Accept;
  entries: Entry[];
  split: number;
}

/** Rows for the store and lines for the answer. */
export function numberRequest(request: SendRequest, context: NumberingContext): Numbered {
  const schedule = request.options?.schedule;
  const sendAt = schedule?.sendAt === undefined ? null : parseInstant(schedule.sendAt);
  const limit = schedule?.sendingSpeedLimit;
  const accept: Accept = {
    account: context.account,
    first: context.first,
    bulkId: schedule?.bulkId ? schedule.bulkId : null,
    sendAt: sendAt !== null && sendAt > context.now - SKEW_MS ? sendAt : null,
    intervalUs: limit === undefined ? null : intervalUs(limit),
    ...(limit === undefined ? {} : { speed: limit }),
    specs: [],
    runs: [],
    to: [],
    refused: [],
    keys: [],
    idem: context.idem,
  };
  const entries: Entry[] = [];
  const numbers = new Numbers(context.first + 1 + request.messages.length);
  let split = 0;
  request.messages.forEach((message, index) => {
    split += numberMessage(message, request, context.first + 1 + index, context, numbers, accept, entries);
  });
  return { accept, entries, split };
}

/**
 * A sendAt further in the past than this needs no schedule. Nearer ones are left to the store: `now` is this node's clock, and
 * one that is fast must not send early.
 */
const SKEW_MS = 15 * 60_000;

/** Hands out consecutive numbers. */
class Numbers {
  next: number;
  constructor(first: number) {
    this.next = first;
  }
}

/** Returns how many groups were split. */
function numberMessage(
  message: MessageRequest,
  request: SendRequest,
  spec: number,
  context: NumberingContext,
  numbers: Numbers,
  accept: Accept,
  entries: Entry[],
): number {
  const first = numbers.next;
  const sender = parseSender(message.sender);
  const about = { account: context.account, sender: sender.ok ? sender.sender : '' };
  const { sender: ownSmsSender } = message.options?.smsFailover ?? {};
  const smsSender = ownSmsSender ? parseSender(ownSmsSender) : null;
  const window = windowOf(message.options?.deliveryTimeWindow);
  const validity = validityMs(message.options?.validityPeriod);
  const refused: [Entry, number][] = [];
  const tracking = request.options?.tracking;
  const domain = shortens(tracking) ? tracking.customDomain?.toLowerCase() : undefined;
  const foreign = domain ? context.hasDomain?.(domain) !== true : false;
  const singles = new Map<string, Batch>();
  const groups: Batch[] = [];
  let split = 0;

  const smsWay = smsWays(message, about, context);
  const judge = (destination: SingleDestination): Judged | null => {
    const entry: Entry = {
      no: 0,
      destination: destination.to,
      key: destination.messageId ? destination.messageId : null,
      refused: 0,
    };
    entries.push(entry);
    if (entry.key !== null && context.repeated?.has(entry.key)) {
      entry.refused = DUPLICATE;
      return null;
    }
    const parsed = parseDestination(destination.to, context.routing.shortCodes);
    const mms = parsed.ok ? context.routing.laneFor(parsed.number, about) : null;
    // Without a carrier for the MMS it waits where its SMS will: its outcome there is 19, and the SMS follows.
    const lane = mms ?? (parsed.ok ? (smsWay?.(parsed.number).lane ?? null) : null);
    entry.refused = !sender.ok
      ? sender.status
      : smsSender?.ok === false
        ? smsSender.status
        : !parsed.ok
          ? parsed.status
          : foreign
            ? FOREIGN_DOMAIN
            : lane === null
              ? NO_ROUTE
              : 0;
    if (entry.refused !== 0 || !parsed.ok || lane === null) {
      refused.push([entry, entry.refused]);
      return null;
    }
    return { entry, to: parsed.number, lane, smsOnly: mms === null };
  };

  const alone = ({ entry, to, lane, smsOnly }: Judged): void => {
    const ways: Ways = {};
    const alts = smsOnly ? [] : (context.routing.alternatives?.(to, lane, about) ?? []);
    if (alts.length > 0) ways.alts = alts;
    const sms = smsWay?.(to);
    if (sms) ways.sms = sms;
    if (smsOnly) ways.smsOnly = true;
    const name = JSON.stringify([lane, ways.alts, sms?.lane, sms?.alts, smsOnly]);
    const batch = singles.get(name);
    if (batch) batch.members.push([entry, to]);
    else singles.set(name, { lane, ways, members: [[entry, to]] });
  };

  for (const destination of message.destinations) {
    if ('group' in destination) {
      const judged = destination.group.map(judge).filter((member) => member !== null);
      judged.filter((member) => member.smsOnly).forEach(alone);
      const members = judged.filter((member) => !member.smsOnly);
      if (members.length === 0) continue;
      const all = members.map((member) => member.to);
      const lane = context.routing.laneForAll(all, about);
      if (lane === null) {
        split++;
        members.forEach(alone);
        continue;
      }
      const ways: Ways = {};
      const alts = context.routing.alternativesForAll?.(all, lane, about) ?? [];
      if (alts.length > 0) ways.alts = alts;
      const sms = smsWay === null ? [] : all.map(smsWay);
      const [first] = sms;
      if (first && sms.every((one) => JSON.stringify(one) === JSON.stringify(first))) ways.sms = first;
      else if (first) ways.smsEach = sms;
      groups.push({ lane, ways, members: members.map((member) => [member.entry, member.to]) });
    } else {
      const single = judge(destination);
      if (single) alone(single);
    }
  }

  const run = ({ lane, ways, members }: Batch, group: boolean): RunIn => {
    const start = numbers.next;
    for (const [entry, to] of members) place(entry, to, numbers, accept);
    const earlyMs = accept.sendAt === null ? 0 : (context.routing.earlyOf?.(lane) ?? 0);
    const early = earlyMs > 0 ? { earlyMs } : {};
    const made = { first: start, end: numbers.next, spec, lane, group, window, validityMs: validity, ...early };
    return ways.alts || ways.sms || ways.smsEach ? { ...made, ways } : made;
  };
  for (const batch of singles.values()) accept.runs.push(run(batch, false));
  for (const batch of groups) accept.runs.push(run(batch, true));
  for (const [entry, status] of refused) {
    place(entry, entry.destination, numbers, accept);
    accept.refused.push([entry.no, status]);
  }
  const spanned = specOf(message, request, first, numbers.next, context);
  accept.specs.push(context.older ? { ...spanned, older: true } : spanned);
  return split;
}

/** Status 19 REJECTED_ROUTE_NOT_AVAILABLE. */
const NO_ROUTE = 19;
/** Status 100 UNDELIVERABLE_REJECTED_PLATFORM: its short links are asked for under a domain that is not the account's. */
const FOREIGN_DOMAIN = 100;
/** Status 23 REJECTED_DUPLICATE_MESSAGE_ID. */
const DUPLICATE = 23;

const REFUSALS: ReadonlyMap<number, string> = new Map([
  [11, 'the sender, of the message or of its SMS, is not valid or not registered for this account'],
  [12, "the account's spend limit is reached"],
  [13, 'the sender, of the message or of its SMS, is blocked'],
  [14, 'the destination is blocked'],
  [NO_ROUTE, 'no carrier takes this destination'],
  [20, 'too many messages to this number within an hour'],
  [52, 'the destination is not a telephone number'],
  [FOREIGN_DOMAIN, "tracking.customDomain is not one of the account's domains"],
]);

const REFUSAL_ERRORS: ReadonlyMap<number, number> = new Map([
  // 15201 EC_MMS_INVALID_DESTINATION_ADDRESS, 15202 EC_MMS_INVALID_SOURCE_ADDRESS, 2053 and 2052 blocklisted sender and destination.
  [8, 15201],
  [51, 15201],
  [52, 15201],
  [11, 15202],
  [13, 2053],
  [14, 2052],
  [NO_ROUTE, 15023],
]);

/** The error that stands beside the status of a refusal at the door; 0 = the status says all. */
export function refusalError(status: number | undefined): number {
  return status === undefined ? 0 : (REFUSAL_ERRORS.get(status) ?? 0);
}

/** What a message's story says of a refusal with this status before anything was tried. */
export function refusalWords(status: number): string {
  const why = REFUSALS.get(status);
  return why === undefined ? 'refused at the door' : `refused at the door: ${why}`;
}

function place(entry: Entry, to: string, numbers: Numbers, accept: Accept): void {
  entry.no = numbers.next++;
  accept.to.push(to);
  if (entry.key !== null) accept.keys.push([entry.no, entry.key]);
}

/** A destination that was not refused. */
interface Judged {
  entry: Entry;
  /** In digits. */
  to: string;
  lane: number;
  /** No carrier takes its MMS; `lane` is its SMS's. */
  smsOnly: boolean;
}

/** Messages that share their ways: a run. */
interface Batch {
  lane: number;
  ways: Ways;
  members: [Entry, string][];
}

/** Where the SMS of each destination would go; null = the message asks for none. */
function smsWays(
  message: MessageRequest,
  about: { account: number },
  { routing, failoverAfterUnknown = routing.failoverAfterUnknown }: NumberingContext,
): ((to: string) => SmsWay) | null {
  const asked = message.options?.smsFailover;
  if (!asked) return null;
  const sender = parseSender(asked.sender || message.sender);
  const from = { account: about.account, sender: sender.ok ? sender.sender : '' };
  const validity = validityMs(asked.validityPeriod);
  return (to) => {
    const lane = sender.ok ? (routing.smsLaneFor?.(to, from) ?? null) : null;
    const alts = lane === null ? [] : (routing.alternatives?.(to, lane, from) ?? []);
    return {
      lane,
      ...(alts.length > 0 ? { alts } : {}),
      validityMs: validity,
      ...(failoverAfterUnknown ? { afterUnknown: true } : {}),
    };
  };
}

function specOf(
  message: MessageRequest,
  request: SendRequest,
  first: number,
  end: number,
  { linkKeepMs: keepMs = LINK_KEEP_MS, shortener }: NumberingContext,
): SpecIn {
  const { destinations: _, ...rest } = message;
  const tracking = request.options?.tracking;
  const spec: Spec = tracking ? { ...rest, tracking } : rest;
  const urls = shortens(tracking) ? linksOf(message.content, message.options?.smsFailover) : [];
  let tracked: SpecIn['tracked'];
  if (urls.length > 0) {
    spec.links = urls;
    const text = message.options?.smsFailover?.text ?? '';
    const pieces = shortener ? cutText(text, urls) : null;
    if (shortener && pieces) {
      // Whichever message it is: short links are of one length.
      const segments = segmentsOf(shortener.textFor(pieces, 0, tracking ?? {}));
      if (segments !== segmentsOf(text)) spec.smsSegments = segments;
    }
    const callbackData = message.webhooks?.callbackData ?? null;
    tracked = {
      urls,
      clicks: tracking?.trackClicks !== false,
      url: tracking?.trackingUrl || null,
      callbackData,
      keepMs,
    };
  }
  const delivery = message.webhooks?.delivery;
  const notify = delivery?.notify !== false;
  const asked = message.webhooks?.contentType ?? delivery?.contentType;
  const contentType = asked ?? 'application/json';
  const uploads: SpecIn['uploads'] = [];
  const links: SpecIn['links'] = [];
  message.content.messageSegments.forEach((segment, index) => {
    if (segment.type === 'UPLOADED_REFERENCE') uploads.push({ segment: index, id: segment.uploadedContentId });
    if (segment.type === 'LINK') {
      links.push({ segment: index, url: segment.contentUrl, contentType: segment.contentType ?? null });
    }
  });
  return {
    first,
    end,
    sender: message.sender,
    campaign: message.options?.campaignReferenceId ?? null,
    entity: message.options?.platform?.entityId ?? null,
    application: message.options?.platform?.applicationId ?? null,
    endpoint: notify && delivery?.url ? { url: delivery.url, contentType } : null,
    ...(asked === undefined ? {} : { contentType: asked }),
    intermediate: delivery?.intermediateReport === true,
    notify,
    body: JSON.stringify(spec),
    uploads,
    links,
    ...(tracked ? { tracked } : {}),
  };
}
