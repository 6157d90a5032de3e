/**
 * The model's webhooks as their account sees them, messages from handsets, the numbers that they come to, and opt-outs.
 */
import { senderKey } from '../../src/domain/optout.ts';
import { refOf } from '../../src/domain/submission.ts';
import {
  type Accept,
  type Delivery,
  type DeliveryFilter,
  type DeliveryState,
  ENDPOINTS_MAX,
  type EndpointPut,
  type EndpointSetting,
  type HookKind,
  type Inbound,
  type InboundIn,
  type InboundRow,
  type OptOut,
  type OptOutFilter,
  type OwnNumber,
  REARM_STEP,
  REPLAY_STEP,
  type Rearm,
  type ReplayRange,
  type Stepped,
} from '../../src/store/contract.ts';
import { changed } from '../../src/store/hooks.ts';
import { inboundRow } from '../../src/store/inbound.ts';
import type { Events } from './model-events.ts';
import type { Message, Post, World } from './model-world.ts';

const KINDS: HookKind[] = ['delivery', 'inbound', 'click'];
const STATES: Record<Post['state'], DeliveryState> = {
  open: 'OPEN',
  delivered: 'DELIVERED',
  exhausted: 'EXHAUSTED',
};

type Entry = { sender: string; destination: string };

export function createHooks(world: World, events: Events) {
  // --- Deliveries ---

  function delivery(post: Post): Delivery {
    const { kind, url, contentType } = post.endpoint;
    const messages = post.events.flatMap(({ message, inbound, about }) => {
      if (about !== undefined) return [{ no: about, key: world.messages.get(about)?.key ?? null }];
      const kept = message === null || world.messages.has(message.no);
      return kept ? [{ no: (message ?? inbound)?.no as number, key: message?.key ?? null }] : [];
    });
    return {
      no: post.no,
      kind,
      url,
      contentType,
      state: STATES[post.state],
      formedAt: post.at,
      nextTry: post.state === 'open' ? post.due : null,
      endedAt: post.endedAt,
      messages,
      tries: post.tries.map(({ retry, ...one }) => one),
    };
  }

  /** Of an account, oldest first. */
  const postsOf = (account: number): Post[] =>
    world.posts.filter(({ endpoint }) => endpoint.account === account).sort((a, b) => a.at - b.at || a.no - b.no);

  function named(account: number, name: { no: number } | { key: string }): number | null {
    return 'no' in name ? name.no : (world.keys.get(`${account} ${name.key}`)?.no ?? null);
  }

  /** Due now, with its cycle begun again where it had ended. False = it is in flight. */
  function again(post: Post): boolean {
    if (post.leased) return false;
    if (post.state !== 'open') post.retry = 0;
    // What was given up could be pulled since.
    if (post.state === 'exhausted') world.pulls = world.pulls.filter(({ event }) => !post.events.includes(event));
    Object.assign(post, { state: 'open', due: world.now, endedAt: null });
    world.hint('webhooks');
    return true;
  }

  /** Those behind a place in order; the place may be gone. */
  function behind(posts: Post[], place: number | undefined): Post[] {
    if (place === undefined) return posts;
    const at = posts.findIndex(({ no }) => no === place);
    return at < 0 ? [] : posts.slice(at + 1);
  }

  // --- Handsets ---

  /** The message that it answers: as the carrier says, else the last one that this handset got from this number. */
  function pairedOf({ answers, carrier, from }: InboundIn, account: number, to: string): Message | null {
    const ref = answers === null ? undefined : world.refs.get(`${carrier} ${refOf(answers)}`);
    if (ref && refOf(answers ?? '') !== '') {
      const span = [...world.messages.values()]
        .filter(({ no, account: of }) => of === account && no >= ref.leader && no < ref.leader + ref.span)
        .sort((a, b) => a.no - b.no);
      const found = span.find((message) => message.to === from) ?? span[0];
      if (found) return found;
    }
    return world.conversations.get(`${account} ${to} ${from}`) ?? null;
  }

  /** How many of these were not there (`put`), or were (not). */
  function list(account: number, entries: Entry[], put: OptOut['source'] | null): number {
    let count = 0;
    for (const entry of entries) {
      const [sender, { destination }] = [senderKey(entry.sender), entry];
      const at = world.optOuts.findIndex(
        (one) => one.account === account && one.sender === sender && one.destination === destination,
      );
      if (at < 0 === (put === null)) continue;
      if (put) world.optOuts.push({ account, sender, destination, at: world.now, source: put });
      else world.optOuts.splice(at, 1);
      count++;
    }
    return count;
  }

  return {
    deliveries(filter: DeliveryFilter): { deliveries: Delivery[]; next: number | null } {
      const { account, message, url, state, limit } = filter;
      const no = message && named(account, message);
      const all = behind(postsOf(account).reverse(), filter.before).filter(
        (post) =>
          (message === undefined || post.events.some((event) => (event.message ?? event.inbound)?.no === no)) &&
          (url === undefined || post.endpoint.url === url) &&
          (state === undefined || STATES[post.state] === state),
      );
      const some = all.slice(0, limit);
      return { deliveries: some.map(delivery), next: all.length > limit ? (some.at(-1)?.no ?? null) : null };
    },

    replay(account: number, no: number): boolean {
      const post = postsOf(account).find((one) => one.no === no);
      if (post) again(post);
      return post !== undefined;
    },

    replayRange({ account, from, to, url, state, after }: ReplayRange): Stepped {
      const step = behind(postsOf(account), after)
        .filter(({ at }) => (after !== undefined || from === undefined || at >= from) && (to === undefined || at <= to))
        .slice(0, REPLAY_STEP);
      const wanted = step.filter(
        (post) =>
          post.state !== 'open' &&
          (url === undefined || post.endpoint.url === url) &&
          (state === undefined || STATES[post.state] === state),
      );
      const count = wanted.filter(again).length;
      return { count, next: step.length === REPLAY_STEP ? (step.at(-1)?.no ?? null) : null };
    },

    // --- Endpoints ---

    endpointList: (account: number): EndpointSetting[] =>
      world.settings
        .filter((one) => one.account === account)
        .sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || (a.url < b.url ? -1 : 1))
        .map(({ account: _, ...setting }) => setting),

    endpointPut(put: EndpointPut): EndpointSetting | null {
      const { account, kind } = put;
      const found = events.settingOf(put);
      const full = world.settings.filter((one) => one.account === account).length >= ENDPOINTS_MAX;
      if (!found && (put.reworded || full)) return null;
      const setting = { ...changed(found ?? null, put, world.now) };
      for (const one of world.settings) {
        if (setting.isDefault && one.account === account && one.kind === kind) one.isDefault = false;
      }
      world.settings = [...world.settings.filter((one) => one !== found), { ...setting, account }];
      return setting;
    },

    endpointDelete(account: number, kind: HookKind, url: string): boolean {
      const found = events.settingOf({ account, kind, url });
      world.settings = world.settings.filter((one) => one !== found);
      return found !== undefined;
    },

    // --- What was pulled ---

    rearm({ account, kind, from, to, message }: Rearm): { count: number; more: boolean } {
      const no = message && named(account, message);
      const back = world.taken
        .filter(({ event, at, until }) => {
          const of = kind === 'reports' ? event.message : event.inbound;
          if (of === null || event.account !== account || until <= world.now) return false;
          if (message) return of.no === no;
          return (from === undefined || at >= from) && (to === undefined || at <= to);
        })
        .slice(0, REARM_STEP);
      world.taken = world.taken.filter((one) => !back.includes(one));
      world.pulls.push(...back.map(({ event, until }) => ({ event, until })));
      return { count: back.length, more: back.length === REARM_STEP };
    },

    // --- Handsets ---

    inbound(message: InboundIn): Inbound {
      const name = `${message.carrier} ${message.id.slice(0, 500)}`;
      const known = world.inbounds.get(name);
      if (known) return { kind: 'duplicate', no: known.no };
      const owned = [...message.to, ...message.cc].flatMap((to) => world.numbers.get(to) ?? [])[0] ?? null;
      const account = owned?.account ?? Math.min(...world.accounts, ...(world.accounts.size > 0 ? [] : [1]));
      const to = owned?.number ?? message.to[0] ?? '';
      const paired = pairedOf(message, account, to);
      const row = inboundRow(message, {
        account,
        to,
        number: owned && { ...owned, callback: owned.callbackData },
        paired: paired && { ...paired.spec, no: paired.no, key: paired.key },
        receivedAt: world.now,
      });
      world.inbounds.set(name, row);
      const endpoint = owned?.url
        ? events.endpoint(account, owned.url, 'application/json', 'inbound')
        : owned?.url === ''
          ? null
          : events.standard(account, 'inbound');
      events.tellInbound(row, endpoint);
      const { asks, from } = message;
      const entry = [{ sender: to, destination: from }];
      const asked = asks !== null && from !== '' && to !== '';
      const recorded = asked && list(account, entry, asks === 'stop' ? 'handset' : null) > 0;
      return { kind: 'stored', no: message.no, account, owned: owned !== null, recorded };
    },

    takeInbox(filter: { account: number; limit: number; entity?: string; application?: string }): InboundRow[] {
      const taken = world.pulls
        .filter(({ event: { inbound }, until }) => {
          return (
            inbound !== null &&
            until > world.now &&
            inbound.account === filter.account &&
            (filter.entity === undefined || inbound.entity === filter.entity) &&
            (filter.application === undefined || inbound.application === filter.application)
          );
        })
        .sort((a, b) => a.event.no - b.event.no)
        .slice(0, filter.limit);
      world.pulls = world.pulls.filter((pull) => !taken.includes(pull));
      world.taken.push(...taken.map((pull) => ({ ...pull, at: world.now })));
      return taken.flatMap(({ event }) => event.inbound ?? []);
    },

    inboundPart(no: number, part: number): { hash: string; contentType: string } | null {
      const found = [...world.inbounds.values()].find((one) => one.no === no)?.parts[part];
      return found && found.hash !== null ? { hash: found.hash, contentType: found.contentType } : null;
    },

    numberList: (account?: number): OwnNumber[] =>
      [...world.numbers.values()]
        .filter((one) => account === undefined || one.account === account)
        .sort((a, b) => (a.number < b.number ? -1 : 1)),

    // --- Opt-outs ---

    optOutPut: (account: number, entries: Entry[]): number => list(account, entries, 'list'),
    optOutDelete: (account: number, entries: Entry[]): number => list(account, entries, null),
    optOutList({ account, sender, destination, limit, after }: OptOutFilter): OptOut[] {
      const place = (one: Entry): [string, string] => [one.destination, one.sender];
      const before = (a: Entry, b: Entry): boolean => {
        const [[x, y], [v, w]] = [place(a), place(b)];
        return x < v || (x === v && y < w);
      };
      return world.optOuts
        .filter((one) => one.account === account && (after === undefined || before(after, one)))
        .filter((one) => sender === undefined || one.sender === sender)
        .filter((one) => destination === undefined || one.destination === destination)
        .sort((a, b) => (before(a, b) ? -1 : 1))
        .slice(0, limit)
        .map(({ account: _, ...one }) => one);
    },

    /** Numbers of a request's messages to those who want none, with the status that says so. */
    optedOut({ account, specs, to, first }: Accept): [number, number][] {
      const base = specs[0]?.first ?? first;
      return specs.flatMap((spec) =>
        to.slice(spec.first - base, spec.end - base).flatMap((destination, n): [number, number][] => {
          const status = world.unwanted(account, spec.sender, destination);
          return status === null ? [] : [[spec.first + n, status]];
        }),
      );
    },
  };
}
