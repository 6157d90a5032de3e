/**
 * What an account may: requests a minute, messages a day, money, how often one number, which senders and destinations. Counters
 * are shared by all nodes through the store, which leases shares of them, so that a request costs no round trip while the share
 * lasts.
 *
 * Promises: no counter gives more than its limit, over all nodes; a node that stops takes with it at most a fiftieth of each.
 * What was taken for messages that were then not stored is given back. Who reads the logs is not turned away because the store
 * cannot be written (a full disk): then each node counts those requests by itself.
 *
 * Fails: rejects with StoreUnavailable while a share of anything else is needed and the store cannot be asked.
 */
import { createHash } from 'node:crypto';
import { type SpendLimit, TAKES_MAX, type Take } from '../domain/accounts.ts';
import {
  type Bucket,
  bucketOf,
  DAY_MS,
  FLOOD_ANY_ERROR,
  FLOOD_EQUAL_ERROR,
  FLOOD_STATUS,
  floodTakes,
  leaseOf,
  MINUTE_MS,
  purseOf,
  SPEND,
  spendBucket,
} from '../domain/limits.ts';
import type { SendRequest, Spec } from '../domain/message.ts';
import type { Numbered } from '../domain/numbering.ts';
import { senderKey } from '../domain/optout.ts';
import { micros, specPrices } from '../domain/prices.ts';
import type { Accept } from '../domain/rows.ts';
import type { Clock } from '../env.ts';
import { type Store, StoreUnavailable } from '../store/contract.ts';
import type { Caller, Policy } from './auth.ts';

/** Counters of this node; the oldest make room (what they had left is lost until their bucket ends). */
const COUNTERS_MAX = 20_000;
/** A counter that has nothing left is asked again after this long: others may have given back. */
const DRY_MS = 1_000;
/** Longest Retry-After. */
const RETRY_MAX_S = 3_600;

/** What the counter of messages a day is called. */
export const MESSAGES = 'messages';
/** That of requests for logs. */
const LOGS = 'logs';

/** Statuses of what an account may not. */
const SENDER_INVALID = 11;
const NO_CREDIT = 12;
const SENDER_BLOCKED = 13;
const DESTINATION_BLOCKED = 14;
/** 581 EC_USER_OUT_OF_CREDIT, 4099 EC_MONTHLY_LIMIT_REACHED. */
const OUT_OF_CREDIT = 581;
const MONTH_REACHED = 4099;

/** Seconds to wait; 0 = go on. */
type Wait = number;

/** What was taken for the messages of a request. */
export interface Charge {
  /** Gives back what was taken for these messages, which were not stored; all of it where none are named. */
  back(nos?: readonly number[]): void;
}

/** A numbered request, with its destinations in the order in which they were given. */
export type Judged = Pick<Numbered, 'accept' | 'entries'>;

export interface Limits {
  /** Takes one request, and one of the logs where it asks for those. */
  request(caller: Caller, policy: Policy, logs: boolean): Wait | Promise<Wait>;
  /**
   * Judges a numbered request: writes prices and defaults into its specs and lists in `turnedAway` what the account may not send.
   * A number = seconds to wait: nothing of it may be sent now. What a limit still allows is taken in the request's order (`entries`),
   * whatever lanes and groups made of the numbers.
   */
  judge(policy: Policy, request: SendRequest, numbered: Judged, now: number): Promise<Charge | Wait>;
}

interface Counter {
  bucket: number;
  left: number;
  dryUntil: number;
  /** Given by this node alone, while the store could not be asked. */
  alone: number;
  asking: Promise<void> | null;
}

/** `clock`: buckets by its wall time. */
export function createLimits({ store, clock }: { store: Store; clock: Clock }): Limits {
  const counters = new Map<string, Counter>();

  function counterOf(name: string, bucket: number): Counter {
    const found = counters.get(name);
    if (found?.bucket === bucket) return found;
    const fresh: Counter = { bucket, left: 0, dryUntil: 0, alone: 0, asking: null };
    counters.delete(name);
    counters.set(name, fresh);
    if (counters.size > COUNTERS_MAX) counters.delete(counters.keys().next().value as string);
    return fresh;
  }

  /** Takes between `least` and `count`: as much as there is, 0 where that is less than `least`. */
  function take(
    account: number,
    scope: string,
    { bucket, endsAt }: Bucket,
    most: number,
    count: number,
    least = count,
  ): number | Promise<number> {
    const counter = counterOf(`${account} ${scope}`, bucket);
    if (counter.left >= count) {
      counter.left -= count;
      return count;
    }
    return ask();

    async function ask(): Promise<number> {
      // Once for each who asked before this one, and once for itself.
      while (counter.left < count) {
        if (counter.asking !== null) {
          await counter.asking;
          continue;
        }
        if (clock.monotonic() < counter.dryUntil) break;
        const want = Math.max(count - counter.left, leaseOf(most));
        // A minute more, for nodes whose clock is behind.
        const keepMs = Math.max(0, endsAt - clock.now()) + MINUTE_MS;
        const asked: Take = { account, scope, bucket, buckets: 1, want, least: 0, most, keepMs };
        counter.asking = store
          .quota([asked])
          .catch((error) => {
            if (scope !== LOGS || !(error instanceof StoreUnavailable)) throw error;
            const given = Math.min(want, most - counter.alone);
            counter.alone += given;
            return [given];
          })
          .then(([given = 0]) => {
            counter.left += given;
            if (given < want) counter.dryUntil = clock.monotonic() + DRY_MS;
          })
          .finally(() => {
            counter.asking = null;
          });
        await counter.asking;
      }
      const given = Math.min(count, counter.left);
      if (given < least) return 0;
      counter.left -= given;
      return given;
    }
  }

  /** What is over goes to this node's share. */
  function giveBack(account: number, scope: string, bucket: number, count: number): void {
    const counter = counters.get(`${account} ${scope}`);
    if (counter?.bucket === bucket) counter.left += count;
  }

  const waitFor = (endsAt: number): Wait =>
    Math.min(RETRY_MAX_S, Math.max(1, Math.ceil((endsAt - clock.now()) / 1000)));

  function request(caller: Caller, policy: Policy, logs: boolean): Wait | Promise<Wait> {
    const { account } = caller;
    const { requestsPerMinute, logsPerMinute } = policy.limits;
    const asked: [string, number][] = [];
    if (caller.requestsPerMinute !== null) asked.push([caller.name, caller.requestsPerMinute]);
    if (requestsPerMinute !== null) asked.push(['requests', requestsPerMinute]);
    if (logs && logsPerMinute !== null) asked.push([LOGS, logsPerMinute]);
    if (asked.length === 0) return 0;
    const minute = bucketOf(clock.now(), MINUTE_MS);
    const rest = (from: number): Wait | Promise<Wait> => {
      for (let index = from; index < asked.length; index++) {
        const [scope, most] = asked[index] as [string, number];
        const taken = take(account, scope, minute, most, 1);
        if (typeof taken !== 'number') {
          return taken.then((given) => (given === 1 ? rest(index + 1) : waitFor(minute.endsAt)));
        }
      }
      return 0;
    };
    return rest(0);
  }

  function senderStatus(policy: Policy, sender: string): number {
    const key = senderKey(sender);
    if (policy.blockedSenders.some((list) => list.has(key))) return SENDER_BLOCKED;
    return policy.registeredOnly && !policy.senders.has(key) ? SENDER_INVALID : 0;
  }

  async function flooded(account: number, wanted: { no: number; to: string; content: string }[], now: number) {
    const refused = new Map<number, number>();
    for (let at = 0; at < wanted.length; at += TAKES_MAX / 2) {
      const some = wanted.slice(at, at + TAKES_MAX / 2);
      const takes = some.flatMap(({ to, content }) => floodTakes(account, to, content, now));
      const given = await store.quota(takes);
      const back: Take[] = [];
      some.forEach(({ no }, index) => {
        const [any, equal] = [given[2 * index], given[2 * index + 1]];
        if (any === 1 && equal === 1) return;
        refused.set(no, any === 1 ? FLOOD_EQUAL_ERROR : FLOOD_ANY_ERROR);
        // What is refused does not count.
        if (any === 1) back.push({ ...(takes[2 * index] as Take), want: -1 });
        if (equal === 1) back.push({ ...(takes[2 * index + 1] as Take), want: -1 });
      });
      if (back.length > 0) await store.quota(back);
    }
    return refused;
  }

  return {
    request,
    async judge(policy, asked, { accept, entries }, now) {
      if (isPlain(policy)) return FREE;
      const account = policy.no;
      const atDoor = new Set(accept.refused.map(([no]) => no));
      const away = new Map<number, [number, number]>();
      const base = accept.specs[0]?.first ?? 0;
      const to = (no: number): string => accept.to[no - base] as string;
      const open: number[] = [];
      const purse = purseOf(policy);
      const spendAt = purse && spendBucket(purse, clock.now());
      accept.specs.forEach((spec, index) => {
        const message = asked.messages[index] as SendRequest['messages'][number];
        const sms = message.options?.smsFailover;
        const status = senderStatus(policy, message.sender) || (sms?.sender ? senderStatus(policy, sms.sender) : 0);
        for (let no = spec.first; no < spec.end; no++) {
          if (atDoor.has(no)) continue;
          if (status !== 0) away.set(no, [status, 0]);
          else if (policy.blockedDestinations.some((list) => list.has(to(no)))) away.set(no, [DESTINATION_BLOCKED, 0]);
          else open.push(no);
        }
        dress(spec, policy, to, sms !== undefined, spendAt?.bucket);
      });
      const place = new Map(entries.map(({ no }, at) => [no, at]));
      open.sort((a, b) => (place.get(a) ?? 0) - (place.get(b) ?? 0));

      const day = bucketOf(clock.now(), DAY_MS);
      const { messagesPerDay, spend, flooding } = policy.limits;
      let counted = 0;
      if (messagesPerDay !== null && open.length > 0) {
        counted = await take(account, MESSAGES, day, messagesPerDay, open.length);
        if (counted === 0) return waitFor(day.endsAt);
      }
      const giveMessages = (count: number): void => giveBack(account, MESSAGES, day.bucket, Math.min(count, counted));

      if (flooding && open.length > 0) {
        const contents = contentNames(asked, accept);
        const wanted = open.map((no) => ({ no, to: to(no), content: contents(no) }));
        const refused = await flooded(account, wanted, now);
        for (const [no, error] of refused) away.set(no, [FLOOD_STATUS, error]);
        giveMessages(refused.size);
        counted -= Math.min(counted, refused.size);
      }
      const left = open.filter((no) => !away.has(no));
      const paid = spend === null || spendAt === null ? null : await pay(policy, spend, spendAt, left, to);
      if (paid)
        for (const no of paid.unpaid) away.set(no, [NO_CREDIT, spend?.per === 'MONTH' ? MONTH_REACHED : OUT_OF_CREDIT]);
      if (paid) {
        giveMessages(paid.unpaid.length);
        counted -= Math.min(counted, paid.unpaid.length);
      }
      if (away.size > 0) accept.turnedAway = [...away].map(([no, [status, error]]) => [no, status, error]);
      const stored = left.length - (paid?.unpaid.length ?? 0);
      return {
        back(nos) {
          giveMessages(nos?.length ?? stored);
          paid?.back(nos);
        },
      };
    },
  };

  /** Pays for as many as the credit lasts, in order. */
  async function pay(
    policy: Policy,
    spend: SpendLimit,
    when: Bucket,
    nos: readonly number[],
    to: (no: number) => string,
  ) {
    const costs = nos.map((no) => micros(policy.prices.row('MMS', to(no))?.price ?? 0));
    const sum = costs.reduce((total, cost) => total + cost, 0);
    const granted = sum === 0 ? 0 : await take(policy.no, SPEND, when, micros(spend.amount), sum, 0);
    const unpaid: number[] = [];
    const paid = new Map<number, number>();
    let rest = granted;
    nos.forEach((no, index) => {
      const cost = costs[index] as number;
      if (cost > rest) {
        unpaid.push(no);
        return;
      }
      rest -= cost;
      paid.set(no, cost);
    });
    giveBack(policy.no, SPEND, when.bucket, rest);
    return {
      unpaid,
      back(some: Iterable<number> = paid.keys()): void {
        let sum = 0;
        for (const no of some) sum += paid.get(no) ?? 0;
        giveBack(policy.no, SPEND, when.bucket, sum);
      },
    };
  }
}

/** Nothing to ask of this account's messages. */
function isPlain({ limits, prices, ...policy }: Policy): boolean {
  if (limits.messagesPerDay !== null || limits.spend !== null || limits.flooding || policy.registeredOnly) return false;
  if (policy.blockedSenders.length > 0 || policy.blockedDestinations.length > 0) return false;
  return policy.application === null && policy.entity === null && policy.currency === 'EUR' && prices.empty;
}

const FREE: Charge = { back: () => undefined };

/** The account's defaults and prices, into a spec that says nothing of them. */
function dress(
  spec: Accept['specs'][number],
  policy: Policy,
  to: (no: number) => string,
  sms: boolean,
  spend: number | undefined,
): void {
  const { application, entity, currency, prices } = policy;
  const names = (application !== null && spec.application === null) || (entity !== null && spec.entity === null);
  const priced = !prices.empty || currency !== 'EUR';
  if (!names && !priced) return;
  const body = JSON.parse(spec.body) as Spec;
  if (names) {
    spec.application ??= application;
    spec.entity ??= entity;
    const platform = {
      ...(spec.entity === null ? {} : { entityId: spec.entity }),
      ...(spec.application === null ? {} : { applicationId: spec.application }),
    };
    body.options = { ...body.options, platform };
  }
  if (priced) {
    const destinations = Array.from({ length: spec.end - spec.first }, (_, at) => to(spec.first + at));
    body.prices = specPrices(prices, currency, destinations, sms, prices.empty ? undefined : spend);
  }
  spec.body = JSON.stringify(body);
}

/** A name for the content of each message: equal ones have the same. */
function contentNames(request: SendRequest, accept: Accept): (no: number) => string {
  const names = request.messages.map(({ content }) =>
    createHash('sha256').update(JSON.stringify(content)).digest('base64url').slice(0, 22),
  );
  return (no) => names[accept.specs.findIndex(({ first, end }) => no >= first && no < end)] as string;
}
