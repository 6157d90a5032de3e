/**
 * Which lanes a destination may take, in which order. Pure: carriers with their lanes, rules and the number table are arguments,
 * made by main from the configuration; how to write rules stands in docs/ROUTING.md.
 *
 * The first rule that matches and has a carrier for the channel decides. Its carriers stand in order: what comes later is the
 * second choice. Carriers with weights that follow each other share one place; a destination's share among them depends on
 * nothing but the destination and their names, so adding one moves only what it gets. A channel that no rule speaks of goes
 * to all its carriers in their order; while none is configured the sandbox takes all, and later only what a rule gives it. A short
 * code goes only where a rule names it.
 *
 * A carrier may have several lanes, so that several nodes can share its work; destinations spread over them evenly.
 *
 * Promises: the same destination, account and sender take the same lanes as long as the configuration stands; a look-up does not
 * grow with the number of rules for other beginnings. Fails: no lane at all is a value.
 */
import { parseDestination, parseSender } from './address.ts';
import { createNetworks, type Networks } from './networks.ts';

/** What a message travels as. */
export type Channel = 'MMS' | 'SMS';

/** A carrier in a rule. Those with a weight that follow each other share one place. */
export interface Choice {
  carrier: string;
  weight?: number;
}

/** One rule of the operator's. What is absent does not matter; of a list any one will do. */
export interface Rule {
  name?: string;
  /** How destinations begin, in digits. */
  to?: string[];
  /** Short codes, whole; beside `to` either will do. */
  shortCodes?: string[];
  /** MCC and MNC by the number table. */
  network?: string[];
  account?: number[];
  /** Whole, or with a `*` at its end the beginning. */
  sender?: string[];
  channel?: Channel;
  /** Best first; empty = no route. */
  carriers: Choice[];
}

/** A carrier and where its messages wait. */
export interface RoutedCarrier {
  name: string;
  channel: Channel;
  lanes: readonly number[];
  /** The name under which its messages wait, where that is another: a name that rules use may stand for one of each channel. */
  waitsAs?: string;
  /** Of one submission; 200 unless given. */
  maxRecipients?: number;
  /** It keeps the time of what is scheduled, and may have it so long before; absent = 0. */
  earlyMs?: number;
}

/** Who sends: rules may ask. */
export interface About {
  account?: number;
  sender?: string;
}

/** What numbering needs. */
export interface Routing {
  /** Lane of the first choice for an MMS; null = no route (status 19 with 15023). */
  laneFor(to: string, about?: About): number | null;
  /** One lane of the best carrier that takes all of `members` in one submission; null = there is none. */
  laneForAll(members: readonly string[], about?: About): number | null;
  /** Lane of the first choice for an SMS; null = no route. Absent = there is none for anybody. */
  smsLaneFor?(to: string, about?: About): number | null;
  /**
   * Lanes of the choices behind the one that `lane` belongs to, best first, one of each carrier; all choices where that carrier
   * is none of them any more. So nothing goes round in circles. Absent = there are none.
   */
  alternatives?(to: string, lane: number, about?: About): number[];
  /** One lane of each other carrier that takes all of `members` in one submission, as the first of them would have it. */
  alternativesForAll?(members: readonly string[], lane: number, about?: About): number[];
  /** An SMS also follows where it is not known whether the MMS arrived (status 29); absent = it does not. */
  readonly failoverAfterUnknown?: boolean | undefined;
  /** How long before its sendAt a message may be handed over on this lane, because its carrier keeps the time; absent = 0. */
  earlyOf?(lane: number): number;
  /** Short codes that have a route. */
  readonly shortCodes?: ReadonlySet<string>;
  /** Carriers that are served, the sandbox too where it is; absent = not known. */
  readonly names?: ReadonlySet<string>;
  /** The same by the names under which their messages wait, with the channel of each; absent = not known. */
  readonly channels?: ReadonlyMap<string, Channel>;
  /** Whether a destination (digits) must come with a reseller code; absent = none must. */
  needsResellerCode?(to: string): boolean;
}

/** All that the configuration says about ways. */
export interface Router extends Routing {
  readonly shortCodes: ReadonlySet<string>;
  smsLaneFor(to: string, about?: About): number | null;
  alternatives(to: string, lane: number, about?: About): number[];
  alternativesForAll(members: readonly string[], lane: number, about?: About): number[];
  /** Why `to` goes where it goes. `to` and `from` as customers write them. */
  explain(to: string, from?: string, account?: number): Explanation;
}

export interface Explanation {
  /** As carriers get it; null = not an address, with the status that says so. */
  destination: string | null;
  status: number | null;
  shortCode: boolean;
  network: string | null;
  needsResellerCode: boolean;
  ways: Record<Channel, Way>;
}

/** The way of one channel. */
export interface Way {
  /** Place of the rule that decided (0 = the first); null = none did, `why` says what happens then. */
  rule: number | null;
  why: string;
  /** Best first. */
  carriers: string[];
}

export interface RouterOptions {
  /** In the configuration's order. */
  carriers: readonly RoutedCarrier[];
  /** The carrier in a box: takes all while no other is configured. */
  sandbox?: readonly RoutedCarrier[];
  /** How many carriers are configured, where some of them have no lanes here; else the length of `carriers`. */
  configured?: number;
  rules?: readonly Rule[];
  /** How numbers begin -> MCC and MNC. */
  networks?: Readonly<Record<string, string>>;
  /** How destinations begin that must come with a reseller code. */
  resellerCodeRequired?: readonly string[];
  /** See `Routing`. */
  failoverAfterUnknown?: boolean;
}

/** Carriers that stand in one place of an order, with their weights. */
type Place = { carrier: RoutedCarrier; weight: number }[];

interface Prepared {
  rule: Rule;
  senders: { whole: ReadonlySet<string>; beginnings: string[] } | null;
  /** Null = this channel is not the rule's affair. */
  plans: Record<Channel, Place[] | null>;
}

const CHANNELS = ['MMS', 'SMS'] as const;
const MEMBERS = 200;

/** Puts carriers and rules together. A rule's carrier that is not among them counts as not written. */
export function createRouter(options: RouterOptions): Router {
  const { carriers, sandbox = [], rules = [], resellerCodeRequired = [] } = options;
  const networks: Networks = createNetworks(options.networks ?? {});
  const all = [...carriers, ...sandbox];
  const owner = new Map(all.flatMap((carrier) => carrier.lanes.map((lane) => [lane, carrier] as const)));
  const prepared = rules.map((rule) => prepare(rule, all));
  const index = new RuleIndex(rules);
  const shortCodes: ReadonlySet<string> = new Set(rules.flatMap((rule) => rule.shortCodes ?? []));
  const configured = (options.configured ?? carriers.length) > 0;
  const usual = configured ? carriers : sandbox;
  const defaults = {} as Record<Channel, { plan: Place[]; open: boolean }>;
  for (const channel of CHANNELS) {
    defaults[channel] = {
      plan: usual.filter((one) => one.channel === channel).map((carrier) => [{ carrier, weight: 1 }]),
      // No rule speaks of this channel.
      open: prepared.every(({ plans }) => plans[channel] === null),
    };
  }

  /** The rule that decides, by its place, and its order of carriers. */
  function decide(channel: Channel, to: string, about: About): { rule: number | null; plan: Place[] } {
    const short = shortCodes.has(to);
    const { plan, open } = defaults[channel];
    if (open && !short) return { rule: null, plan };
    const network = index.byNetwork ? networks.of(to) : null;
    const rule = index.find(to, network, (n) => {
      const one = prepared[n] as Prepared;
      return one.plans[channel] !== null && matches(one, to, short, network, about);
    });
    return rule === null ? { rule, plan: [] } : { rule, plan: (prepared[rule] as Prepared).plans[channel] as Place[] };
  }

  function order(channel: Channel, to: string, about: About): RoutedCarrier[] {
    return decide(channel, to, about).plan.flatMap((place) => ranked(place, to));
  }

  function first(channel: Channel, to: string, about: About): number | null {
    const place = decide(channel, to, about).plan[0];
    if (place === undefined) return null;
    const carrier = place.length === 1 ? place[0]!.carrier : ranked(place, to)[0]!;
    return laneOf(carrier, to);
  }

  const needsResellerCode = (to: string): boolean => resellerCodeRequired.some((beginning) => to.startsWith(beginning));

  return {
    shortCodes,
    names: new Set(all.map(({ name }) => name)),
    channels: new Map(all.map(({ name, waitsAs = name, channel }) => [waitsAs, channel])),
    failoverAfterUnknown: options.failoverAfterUnknown === true,
    laneFor: (to, about = {}) => first('MMS', to, about),
    smsLaneFor: (to, about = {}) => first('SMS', to, about),
    laneForAll(members, about = {}) {
      const leader = members[0] ?? '';
      /** Sum of places, and members that have it. */
      const sums = new Map<RoutedCarrier, [number, number]>();
      for (const member of members) {
        order('MMS', member, about).forEach((carrier, place) => {
          const [sum, count] = sums.get(carrier) ?? [0, 0];
          sums.set(carrier, [sum + place, count + 1]);
        });
      }
      let best: RoutedCarrier | null = null;
      let least = Number.POSITIVE_INFINITY;
      for (const [carrier, [sum, count]] of sums) {
        if (count < members.length || members.length > (carrier.maxRecipients ?? MEMBERS) || sum >= least) continue;
        best = carrier;
        least = sum;
      }
      return best === null ? null : laneOf(best, leader);
    },
    earlyOf: (lane) => owner.get(lane)?.earlyMs ?? 0,
    alternatives(to, lane, about = {}) {
      const from = owner.get(lane);
      const choices = order(from?.channel ?? 'MMS', to, about);
      const at = from === undefined ? -1 : choices.indexOf(from);
      return choices
        .slice(at + 1)
        .map((carrier) => laneOf(carrier, to))
        .filter((one) => one !== null);
    },
    alternativesForAll(members, lane, about = {}) {
      const from = owner.get(lane);
      const [first = [], ...others] = members.map((member) => order('MMS', member, about));
      return first
        .filter((one) => one !== from && members.length <= (one.maxRecipients ?? MEMBERS))
        .filter((one) => others.every((list) => list.includes(one)))
        .map((carrier) => laneOf(carrier, members[0] ?? ''))
        .filter((one) => one !== null);
    },
    ...(resellerCodeRequired.length === 0 ? {} : { needsResellerCode }),
    explain(to, from, account) {
      const parsed = parseDestination(to, shortCodes);
      const sender = from === undefined ? undefined : senderOf(from);
      const about: About = {
        ...(account === undefined ? {} : { account }),
        ...(sender === undefined ? {} : { sender }),
      };
      const none: Way = { rule: null, why: 'not an address', carriers: [] };
      if (!parsed.ok) {
        const ways = { MMS: none, SMS: none };
        return {
          destination: null,
          status: parsed.status,
          shortCode: false,
          network: null,
          needsResellerCode: false,
          ways,
        };
      }
      const { number } = parsed;
      const way = (channel: Channel): Way => {
        const { rule, plan } = decide(channel, number, about);
        const names = plan.flatMap((place) => ranked(place, number)).map((carrier) => carrier.name);
        return { rule, why: whyOf(channel, rule, names), carriers: names };
      };
      const whyOf = (channel: Channel, rule: number | null, names: string[]): string => {
        if (rule !== null) return names.length > 0 ? 'the rule says so' : 'the rule gives it no carrier';
        if (shortCodes.has(number)) return 'no rule gives this short code a carrier for it';
        if (!defaults[channel].open) return 'no rule matches';
        if (names.length === 0) return `no carrier takes ${channel}`;
        return configured
          ? `no rule speaks of ${channel}: all carriers in their order`
          : 'no carrier is configured: the sandbox takes all';
      };
      return {
        destination: number,
        status: null,
        shortCode: shortCodes.has(number),
        network: networks.of(number),
        needsResellerCode: needsResellerCode(number),
        ways: { MMS: way('MMS'), SMS: way('SMS') },
      };
    },
  };
}

/** `carriers`: the MMS lanes of each, in order of preference, without rules; empty = nothing is routable. */
export function createRouting(carriers: readonly (readonly number[])[]): Router {
  // These have no names that anybody gave them.
  const { names: _, ...router } = createRouter({
    carriers: carriers.map((lanes, n) => ({ name: `carrier-${n}`, channel: 'MMS', lanes })),
  });
  return router;
}

/** A routing whose answers are those of the newest router. */
export function createRouteSwitch(first: Router): { routing: Routing; turn(next: Router): void } {
  let router = first;
  return {
    turn(next) {
      router = next;
    },
    routing: {
      laneFor: (to, about) => router.laneFor(to, about),
      laneForAll: (members, about) => router.laneForAll(members, about),
      smsLaneFor: (to, about) => router.smsLaneFor(to, about),
      earlyOf: (lane) => router.earlyOf?.(lane) ?? 0,
      alternatives: (to, lane, about) => router.alternatives(to, lane, about),
      alternativesForAll: (members, lane, about) => router.alternativesForAll(members, lane, about),
      get failoverAfterUnknown() {
        return router.failoverAfterUnknown;
      },
      get names() {
        return router.names;
      },
      get channels() {
        return router.channels;
      },
      get shortCodes() {
        return router.shortCodes;
      },
      get needsResellerCode() {
        return router.needsResellerCode;
      },
    },
  };
}

// --- Rules -----------------------------------------------------------------------------------------------------------

function prepare(rule: Rule, all: readonly RoutedCarrier[]): Prepared {
  const plans = {} as Prepared['plans'];
  for (const channel of CHANNELS) {
    const plan = planOf(
      rule.carriers,
      all.filter((one) => one.channel === channel),
    );
    // A rule of MMSCs alone does not forbid SMS; one without carriers forbids what it speaks of.
    const meant = (rule.channel ?? channel) === channel && (plan.length > 0 || rule.carriers.length === 0);
    plans[channel] = meant ? plan : null;
  }
  const senders = rule.sender?.map(senderOf);
  return {
    rule,
    plans,
    senders: senders
      ? {
          whole: new Set(senders.filter((one) => !one.endsWith('*'))),
          beginnings: senders.filter((one) => one.endsWith('*')).map((one) => one.slice(0, -1)),
        }
      : null,
  };
}

function planOf(choices: readonly Choice[], carriers: readonly RoutedCarrier[]): Place[] {
  const plan: Place[] = [];
  let open = false;
  for (const { carrier: name, weight } of choices) {
    const carrier = carriers.find((one) => one.name === name);
    const last = plan.at(-1);
    if (carrier && weight !== undefined && open && last) last.push({ carrier, weight });
    else if (carrier) plan.push([{ carrier, weight: weight ?? 1 }]);
    if (carrier) open = weight !== undefined;
    else if (weight === undefined) open = false;
  }
  return plan;
}

/** Senders compare without `+` and case. */
function senderOf(sender: string): string {
  const parsed = parseSender(sender);
  return (parsed.ok ? parsed.sender : sender.replace(/^\+/, '')).toLowerCase();
}

function matches(one: Prepared, to: string, short: boolean, network: string | null, about: About): boolean {
  const { rule, senders } = one;
  if (short) {
    if (!rule.shortCodes?.includes(to)) return false;
  } else if (rule.to ? !rule.to.some((beginning) => to.startsWith(beginning)) : rule.shortCodes) return false;
  if (!short && rule.network && !(network !== null && rule.network.includes(network))) return false;
  if (rule.account && !(about.account !== undefined && rule.account.includes(about.account))) return false;
  if (!senders) return true;
  if (about.sender === undefined) return false;
  const sender = senderOf(about.sender);
  return senders.whole.has(sender) || senders.beginnings.some((beginning) => sender.startsWith(beginning));
}

/** Rules by what destinations begin with, so that a look-up meets only those that may match. */
class RuleIndex {
  /** Whether any rule asks for the network. */
  readonly byNetwork: boolean;
  readonly #beginnings = new Map<string, number[]>();
  readonly #lengths: number[];
  readonly #networks = new Map<string, number[]>();
  readonly #rest: number[] = [];

  constructor(rules: readonly Rule[]) {
    this.byNetwork = rules.some((rule) => rule.network !== undefined);
    rules.forEach((rule, n) => {
      const beginnings = [...(rule.to ?? []), ...(rule.shortCodes ?? [])];
      if (beginnings.length > 0) for (const one of new Set(beginnings)) append(this.#beginnings, one, n);
      else if (rule.network) for (const one of new Set(rule.network)) append(this.#networks, one, n);
      else this.#rest.push(n);
    });
    this.#lengths = [...new Set([...this.#beginnings.keys()].map((one) => one.length))];
  }

  /** The first rule, of those that may, that `fits`. */
  find(to: string, network: string | null, fits: (rule: number) => boolean): number | null {
    const lists: number[][] = [this.#rest];
    for (const length of this.#lengths) {
      const list = to.length >= length ? this.#beginnings.get(to.slice(0, length)) : undefined;
      if (list) lists.push(list);
    }
    const own = network === null ? undefined : this.#networks.get(network);
    if (own) lists.push(own);
    const at = lists.map(() => 0);
    for (;;) {
      let next = Number.POSITIVE_INFINITY;
      for (let i = 0; i < lists.length; i++) next = Math.min(next, lists[i]![at[i]!] ?? next);
      if (next === Number.POSITIVE_INFINITY) return null;
      if (fits(next)) return next;
      for (let i = 0; i < lists.length; i++) if (lists[i]![at[i]!] === next) at[i]!++;
    }
  }
}

function append(map: Map<string, number[]>, key: string, value: number): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

// --- Shares ----------------------------------------------------------------------------------------------------------

/** Weighted rendezvous hashing: the best of -weight / ln(u), u from the number and the carrier's name. */
function ranked(place: Place, to: string): RoutedCarrier[] {
  if (place.length === 1) return [place[0]!.carrier];
  return place
    .map(({ carrier, weight }) => {
      const u = (mixed(hash(`${to}/${carrier.name}`)) + 0.5) / 2 ** 32;
      return { carrier, score: -weight / Math.log(u) };
    })
    .sort((a, b) => b.score - a.score)
    .map(({ carrier }) => carrier);
}

function laneOf({ lanes }: RoutedCarrier, to: string): number | null {
  return lanes[lanes.length < 2 ? 0 : hash(to) % lanes.length] ?? null;
}

/** FNV-1a: spreads consecutive numbers, which is what campaigns have. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}

/** MurmurHash3's finish: every bit depends on every other. */
function mixed(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
