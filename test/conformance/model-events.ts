/**
 * The model's status changes, its outbox to customers and its pull list. An event is open while its endpoint is still to be
 * told of it; of a message only the oldest open event may be in a POST.
 */
import { statusView } from '../../src/domain/codes.ts';
import { WITHDRAWN_WORDS } from '../../src/domain/failover.ts';
import { senderKey } from '../../src/domain/optout.ts';
import { reportForm } from '../../src/domain/report.ts';
import { webhookDelay } from '../../src/domain/retry.ts';
import type { EventRow } from '../../src/domain/rows.ts';
import { isFinal, STATE, type StatusEvent, transition } from '../../src/domain/status.ts';
import type { ReportKind } from '../../src/domain/submission.ts';
import {
  type HookKind,
  type InboundRow,
  PENDING_MAX,
  TRIES_MAX,
  type Webhook,
  type WebhookSettle,
  type Webhooks,
} from '../../src/store/contract.ts';
import { openSms, sendersOf, withdrawSms } from './model-failover.ts';
import { messageRow, specRows } from './model-reads.ts';
import type { Endpoint, Event, Message, Post, World } from './model-world.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Kinds that prove that a submission left. */
const SENT = ['accepted', 'deferred', 'refused', 'unknown', 'report'];
/** Kinds that end an attempt, and may leave its message as it was. */
const ENDED = ['deferred', 'unknown', 'contentFailed'];
/** PENDING_ENROUTE */
const ENROUTE = 7;
/** Changes of a message up to which its claims are told. */
const CLAIMS_TOLD = 40;

/** Events in one POST. */
const MOST: Record<HookKind, number> = { delivery: 100, inbound: 20, click: 1 };

export type Events = ReturnType<typeof createEvents>;

export function createEvents(world: World) {
  /** POSTs made so far. */
  let posted = 0;

  function write(
    message: Message,
    kind: Event['kind'],
    words: string,
    leg: Event['leg'] = message.leg,
    status = message.status,
  ): Event {
    const { error, state, account } = message;
    const final = isFinal(state) && leg !== 2;
    return put({ account, message, inbound: null, status, error, kind, words, final, leg, endpoint: null });
  }

  function put(said: Omit<Event, 'no' | 'at' | 'open' | 'post'>): Event {
    const event: Event = { ...said, no: ++world.lastEvent, at: world.now, open: said.endpoint !== null, post: null };
    world.events.push(event);
    if (event.open) world.hint('webhooks');
    return event;
  }

  /** Tells of the status that the message now has. */
  function emit(message: Message, words: string, leg: Event['leg'] = message.leg, status = message.status): void {
    const event = write(message, 'status', words, leg, status);
    const { endpointOf, intermediate } = message.spec;
    if (endpointOf === null) {
      if (event.final) world.pulls.push({ event, until: world.now + 48 * HOUR });
    } else if (intermediate || event.final) {
      Object.assign(event, { endpoint: endpointOf, open: true });
      world.hint('webhooks');
    }
  }

  const changesOf = (message: Message): Event[] =>
    world.events.filter((event) => event.message === message && event.kind === 'status');
  /** All changes of it are told, and the last was that it is on its way. */
  const enroute = (message: Message): boolean =>
    message.spec.intermediate && changesOf(message).at(-1)?.status === ENROUTE;

  function endpoint(account: number, url: string, contentType: string, kind: HookKind = 'delivery'): Endpoint {
    const found = world.endpoints.find(
      (one) => one.account === account && one.url === url && one.contentType === contentType && one.kind === kind,
    );
    if (found) return found;
    const no = world.endpoints.length + 1;
    const made: Endpoint = { no, kind, account, url, contentType, fails: 0, fresh: false, servedAt: 0 };
    world.endpoints.push(made);
    return made;
  }

  const settingOf = ({ account, kind, url }: Pick<Endpoint, 'account' | 'kind' | 'url'>) =>
    world.settings.find((one) => one.account === account && one.kind === kind && one.url === url);

  /** Open events that no other event of their message stands before, and that are in no POST. */
  function ready(endpoint: Endpoint): Event[] {
    const oldest = new Map<unknown, Event>();
    for (const event of world.events) {
      const of = event.message ?? event.inbound ?? event;
      if (event.open && !oldest.has(of)) oldest.set(of, event);
    }
    return [...oldest.values()].filter((event) => event.post === null && event.endpoint === endpoint);
  }

  /** A handset that answers one of our numbers means the last message that it got from there. */
  function talked(message: Message): void {
    const sender = senderKey(sendersOf(message, message.leg)[0] as string);
    if (world.numbers.get(sender)?.account !== message.account) return;
    world.conversations.set(`${message.account} ${sender} ${message.to}`, message);
  }

  const postsOf = (endpoint: Endpoint): Post[] =>
    world.posts.filter((post) => post.endpoint === endpoint && post.state === 'open');
  const flying = (endpoint: Endpoint): number => postsOf(endpoint).filter((post) => post.leased).length;
  const full = (endpoint: Endpoint): boolean => flying(endpoint) >= (endpoint.fails >= 5 ? 1 : 8);

  /** Events for a fresh POST: all that is ready while at most one flies, else only as many as one may hold. */
  function fresh(endpoint: Endpoint): Event[] {
    const most = MOST[endpoint.kind];
    const events = ready(endpoint)
      .sort((a, b) => a.no - b.no)
      .slice(0, most);
    return flying(endpoint) < 2 || events.length === most ? events : [];
  }

  interface Offer {
    endpoint: Endpoint;
    post: Post | null;
    name: string;
  }
  /** What may be posted now. */
  function offers(): Offer[] {
    const list: Offer[] = [];
    for (const endpoint of world.endpoints) {
      if (full(endpoint)) continue;
      const due = postsOf(endpoint)
        .filter((post) => !post.leased && post.due <= world.now)
        .sort((a, b) => a.due - b.due);
      const some = fresh(endpoint).length > 0;
      // Retries and fresh ones alternate.
      const turn = due.length > 0 && (endpoint.fresh || !some) ? due : some ? [null] : [];
      const { account, kind, contentType, url } = endpoint;
      const name = `fresh ${account} ${kind} ${contentType} ${url}`;
      for (const post of turn) list.push({ endpoint, post, name: post ? `retry ${post.no}` : name });
    }
    return list;
  }

  function take({ endpoint, post }: Offer, leaseMs: number): Post {
    const token = world.tick();
    endpoint.fresh = post === null;
    endpoint.servedAt = token;
    if (post) return Object.assign(post, { token, leased: true, due: world.now + leaseMs });
    const events = fresh(endpoint);
    const made: Post = {
      // Those before may have left: numbers are for once.
      no: ++posted,
      endpoint,
      state: 'open',
      retry: 0,
      token,
      leased: true,
      due: world.now + leaseMs,
      at: world.now,
      endedAt: null,
      events,
      body: null,
      tries: [],
    };
    world.posts.push(made);
    for (const event of events) event.post = made;
    return made;
  }

  function view(post: Post): Webhook {
    const { no, kind, account, url, contentType } = post.endpoint;
    const setting = settingOf(post.endpoint);
    const secrets = (setting?.secrets ?? []).filter(({ until }) => until === null || until > world.now);
    return {
      no: post.no,
      token: post.token,
      account,
      kind,
      endpoint: {
        no,
        url,
        contentType,
        secrets: secrets.map(({ secret }) => secret),
        headers: setting?.headers ?? {},
      },
      retry: post.retry,
      body: post.body ?? (kind === 'click' ? (post.events[0]?.words ?? null) : null),
      events: post.events.flatMap((event) => (event.message ? [eventRow(world, event)] : [])),
      inbound: post.events.flatMap((event) => event.inbound ?? []),
      // When all that goes now has been taken.
      pending: kind === 'inbound' ? Math.min(ready(post.endpoint).length, PENDING_MAX) : 0,
    };
  }

  /** Moves a message by the state machine. True = it changed. */
  function change(message: Message, by: StatusEvent, words: string): boolean {
    const { status, error, leg } = message;
    const { next, changed, final } = transition({ state: message.state, status, error }, by);
    if (!changed) {
      // An attempt that has ended and changed nothing: it is not on its way any more.
      if (ENDED.includes(by.kind) && enroute(message)) emit(message, words);
      return false;
    }
    const told = enroute(message);
    Object.assign(message, next);
    if (SENT.includes(by.kind)) message.sentAt ??= world.now;
    if (by.kind === 'accepted') talked(message);
    const second = final && leg === 0 ? openSms(world, message, by, next) : null;
    if (next.status !== status || next.error !== error || told) {
      const all = second ? [words, second.words].filter((part) => part !== '').join('; ') : words;
      emit(message, all, second?.opened ? 2 : leg);
    }
    if (second?.opened) Object.assign(message, { state: STATE.pending, status: 26, error: 0 });
    else if (final) message.doneAt = world.now;
    return true;
  }

  return {
    emit,
    endpoint,
    settingOf,
    /** The account's endpoint for what names no URL. */
    standard(account: number, kind: HookKind, contentType?: string, older?: boolean): Endpoint | null {
      const one = world.settings.find((two) => two.account === account && two.kind === kind && two.isDefault);
      return one ? endpoint(account, one.url, reportForm(contentType ?? one.contentType, older), kind) : null;
    },
    /** Tells of a message from a handset, or leaves it to be pulled. */
    tellInbound(inbound: InboundRow, to: Endpoint | null): void {
      const { account } = inbound;
      const none = { status: 0, error: 0, words: '', final: true, leg: 0, message: null } as const;
      const event = put({ ...none, account, inbound, kind: 'inbound', endpoint: to });
      if (to === null) world.pulls.push({ event, until: world.now + 7 * DAY });
    },
    /** Tells of a click on a link of the message `about`. */
    tellClick(account: number, about: number, words: string, to: Endpoint): void {
      const none = { status: 0, error: 0, final: true, leg: 0, message: null, inbound: null } as const;
      put({ ...none, about, account, words, kind: 'click', endpoint: to });
    },
    change,
    /** They are on their way. */
    claimed(messages: Message[]): void {
      for (const message of messages) {
        if (!message.spec.intermediate || enroute(message) || changesOf(message).length >= CLAIMS_TOLD) continue;
        emit(message, 'being submitted', message.leg, ENROUTE);
      }
    },
    /** A report of the MMS after the SMS leg has begun: delivered wins while nothing of the SMS has left. True = it did. */
    reportLate(message: Message, report: ReportKind, words: string): boolean {
      if (report !== 'retrieved' || !withdrawSms(world, message)) return false;
      return change(message, { kind: 'report', report }, `${words}; ${WITHDRAWN_WORDS}`);
    },
    /** Tells of a report that changed nothing; the story of a message stays bounded. */
    note(message: Message, words: string): void {
      const notes = world.events.filter((event) => event.message === message && event.kind === 'noted');
      if (notes.length < 20) write(message, 'noted', words);
    },

    webhookNext(limit: number, leaseMs: number): Webhooks {
      for (const post of world.posts) {
        if (post.state !== 'open' || !post.leased || post.due > world.now) continue;
        Object.assign(post, { leased: false, due: world.now });
      }
      const posts: Post[] = [];
      while (posts.length < limit) {
        const [offer] = offers().sort(
          (a, b) => world.rank(a.name) - world.rank(b.name) || a.endpoint.servedAt - b.endpoint.servedAt,
        );
        if (!offer) break;
        // The next of its endpoint is another choice.
        if (world.prefer.includes(offer.name)) world.prefer.splice(world.prefer.indexOf(offer.name), 1);
        posts.push(take(offer, leaseMs));
      }
      const webhooks = posts.map(view);
      const times = world.posts
        .filter((post) => post.state === 'open' && (post.leased || !full(post.endpoint)))
        .map((post) => post.due);
      if (offers().length > 0) times.push(world.now);
      return {
        now: world.now,
        webhooks,
        specs: specRows(
          world,
          webhooks.flatMap((webhook) => webhook.events.map((event) => event.spec)),
        ),
        nextDue: times.length === 0 ? null : Math.max(world.now, Math.min(...times)),
      };
    },

    webhookSettle(settle: WebhookSettle): boolean {
      const post = world.posts.find((one) => one.no === settle.no);
      if (post?.state !== 'open' || !post.leased || post.token !== settle.token) return false;
      const { status, tookMs, ok } = settle;
      const excerpt = settle.excerpt.slice(0, 500);
      const retry = Math.min(post.tries.length, TRIES_MAX - 1);
      post.tries[retry] = { retry, at: world.now - tookMs, tookMs, status, excerpt };
      post.leased = false;
      post.endpoint.fails = ok ? 0 : post.endpoint.fails + 1;
      const delay = ok ? null : webhookDelay(post.retry);
      post.body = settle.body ?? post.body;
      if (delay !== null) {
        post.retry += 1;
        post.due = world.now + delay;
        world.hint('webhooks');
        return true;
      }
      post.state = ok ? 'delivered' : 'exhausted';
      post.endedAt = world.now;
      for (const event of post.events) {
        event.open = false;
        // What came between is of no use once nobody listens.
        if (
          ok ||
          event.kind === 'click' ||
          event.leg === 2 ||
          (event.message !== null && statusView(event.status).groupName === 'PENDING')
        )
          continue;
        if (world.pulls.some((pull) => pull.event === event)) continue;
        world.pulls.push({ event, until: world.now + 7 * DAY });
      }
      world.hint('webhooks');
      return true;
    },
  };
}

/** An event of a message as customers see it: the message with the status that it then had, whatever is about to happen to it now. */
export function eventRow(world: World, event: Event): EventRow {
  const { no, at, status, error } = event;
  const leg = event.leg === 1 ? 1 : 0;
  const row = messageRow(world, event.message as Message);
  return { ...row, claimed: false, event: no, at, status, error, doneAt: at, leg };
}
