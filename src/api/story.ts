/**
 * The story of one message as GET /mms/2/messages/{messageId} tells it: what it waits for, and all that happened to it, in the
 * words of those who said it. Pure.
 *
 * Promises: an open message says what it waits for as of `now`; a final one says why it ended so. What the carrier said stands
 * there as it was said, with its code.
 */
import { type ErrorView, errorView, statusView } from '../domain/codes.ts';
import type { Ids } from '../domain/ids.ts';
import type { Content, Spec } from '../domain/message.ts';
import type { Networks } from '../domain/networks.ts';
import { bulkIdOf, messageCountOf, messageIdOf, platformOf, priceView, shownStatus } from '../domain/report.ts';
import { formatInstant, nextOpening } from '../domain/schedule.ts';
import type { Story } from '../store/contract.ts';

/** 3 PENDING_WAITING_DELIVERY */
const TAKEN = 3;

export interface StoryContext {
  ids: Ids;
  /** Epoch ms. */
  now: number;
  /** Names of the carriers that are configured; absent = not known here. */
  served?: ReadonlySet<string>;
  networks?: Networks;
}

/** The published object of a story. */
export function storyOf(story: Story, context: StoryContext): object {
  const { message } = story;
  const { ids } = context;
  const spec = JSON.parse(story.spec.body) as Spec;
  const statusOf = new Map(story.events.map((event) => [event.event, event.status]));
  return {
    messageId: messageIdOf(message, ids),
    bulkId: bulkIdOf(message, ids),
    to: message.to,
    sender: story.spec.sender,
    channel: message.leg === 1 ? 'SMS' : 'MMS',
    // Members that are undefined do not appear.
    mccMnc: context.networks?.of(message.to) ?? undefined,
    acceptedAt: formatInstant(message.acceptedAt),
    sentAt: instantOf(message.sentAt),
    doneAt: instantOf(message.doneAt),
    status: shownStatus(message),
    error: errorView(message.error),
    waiting: waitingOf(story, context),
    ended: endedOf(story),
    validUntil: instantOf(story.validUntil),
    messageCount: messageCountOf(message, spec),
    price: priceView(message, spec),
    platform: platformOf(spec),
    campaignReferenceId: spec.options?.campaignReferenceId,
    callbackData: spec.webhooks?.callbackData,
    content: contentOf(spec),
    attempts: story.attempts.map((attempt) => ({
      attempt: attempt.n,
      channel: attempt.channel,
      at: formatInstant(attempt.at),
      tookMs: attempt.tookMs,
      carrier: attempt.carrier,
      outcome: attempt.outcome,
      error: errorOf(attempt.error),
      words: attempt.words,
      carrierMessageId: attempt.carrierMessageId,
      transactionId: attempt.transactionId,
    })),
    events: story.events.map((event) => ({
      at: formatInstant(event.at),
      kind: event.kind === 'status' ? 'STATUS' : 'NOTED',
      status: statusView(event.status),
      error: errorOf(event.error),
      words: event.words,
    })),
    webhooks: story.webhooks.map((webhook) => {
      const status = statusOf.get(webhook.event);
      return {
        at: formatInstant(webhook.at),
        retry: webhook.retry,
        url: webhook.url,
        reported: status === undefined ? undefined : statusView(status).name,
        httpStatus: webhook.status,
        tookMs: webhook.tookMs,
        excerpt: webhook.excerpt,
      };
    }),
    answers: story.answers.map(({ no, at, channel, from, text }) => ({
      at: formatInstant(at),
      messageId: ids.print('message', no),
      channel,
      from,
      text,
    })),
    clicks: story.clicks.map(({ at, url, flag, device }) => ({ at: formatInstant(at), url, flag, device })),
  };
}

/** The content as the request had it. */
export function contentOf(spec: Spec): Content {
  const { title, messageSegments } = spec.content;
  return title === undefined ? { messageSegments } : { title, messageSegments };
}

/** Why a final message is what it is: what was said of it last, else what its codes mean. */
function endedOf({ message, events }: Story): object | null {
  if (message.doneAt === null) return null;
  const last = events.findLast((event) => event.kind === 'status' && event.status === message.status);
  const status = statusView(message.status);
  const meaning = message.error === 0 ? status.description : errorView(message.error).description;
  return { at: formatInstant(message.doneAt), why: last === undefined || last.words === '' ? meaning : last.words };
}

function waitingOf(story: Story, context: StoryContext): object | null {
  const { waiting } = story;
  if (waiting === null) return null;
  const { until, why } = reasonOf(story, context);
  // It waits on the lane of its first choice, though a second one may have taken it.
  const taker = story.message.status === TAKEN ? story.attempts.at(-1)?.carrier : undefined;
  return { until: instantOf(until), why, carrier: taker ?? waiting.carrier };
}

/**
 * What the store says, made exact for now: which of the gates is the closed one. A message that waits for a carrier which is not
 * there any more waits for nothing else; so for a cancelled bulk.
 */
function reasonOf(story: Story, { now, served }: StoryContext): { until: number | null; why: string } {
  const { message, waiting } = story;
  const { until = null, why = '', carrier, gate } = waiting ?? {};
  if (message.claimed || message.status === TAKEN) return { until, why };
  if (gate?.canceled) return { until: null, why: 'its bulk was cancelled: it ends as soon as that is written' };
  if (served !== undefined && carrier !== undefined && !served.has(carrier)) {
    const gone = `its carrier ${carrier} is not configured any more`;
    return { until, why: `${gone}: it leaves when the carrier is back, or ends with its validity` };
  }
  // Paused, content to be fetched, or to be tried again.
  if (why !== FRESH || gate === undefined) return { until, why };
  if (now < gate.opensAt) {
    const scheduled = gate.window === null || gate.sendAt === gate.opensAt;
    return { until: gate.opensAt, why: scheduled ? 'its sendAt' : 'its delivery window' };
  }
  const opening = nextOpening(gate.window, now);
  if (opening > now) return { until: Math.max(opening, until ?? 0), why: 'its delivery window' };
  if (isTried(story)) return { until, why: 'the next attempt' };
  if (gate.paced) return { until, why: 'its turn under the speed limit of its bulk' };
  return { until, why: carrier === undefined ? FRESH : `its turn at carrier ${carrier}` };
}

/** Whether its leg was tried in vain. A carrier that could not be reached leaves no error on the message: its attempts tell. */
function isTried({ message, attempts }: Story): boolean {
  const leg = message.leg === 1 ? 'SMS' : 'MMS';
  return attempts.some(({ channel, outcome }) => channel === leg && outcome !== 'throttled');
}

/** The store's word for what has no error of a try and is held by nothing else. */
const FRESH = 'its turn';

function instantOf(at: number | null): string | null {
  return at === null || !Number.isFinite(at) ? null : formatInstant(at);
}

function errorOf(id: number): ErrorView | null {
  return id === 0 ? null : errorView(id);
}
