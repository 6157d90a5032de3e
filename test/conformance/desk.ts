/**
 * What the store's conformance cases share: a store with its clock, and short words for requests, claims, settles and
 * webhooks. Uses contract verbs only, so it fits every engine.
 */
import type { Ways } from '../../src/domain/failover.ts';
import type { Window } from '../../src/domain/schedule.ts';
import type { CarrierReport, Outcome } from '../../src/domain/submission.ts';
import type {
  Accept,
  Accepted,
  BulkName,
  Claim,
  Claims,
  EventRow,
  MessageFilter,
  OwnNumber,
  Reported,
  SpecIn,
  Store,
  Story,
  Webhook,
  Webhooks,
} from '../../src/store/contract.ts';

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;
export const LEASE = 45 * SECOND;
export const VALIDITY = 48 * HOUR;

/** A store under test, with its time. */
export interface Harness {
  store: Store;
  /** Move the store's time. */
  advance(ms: number): void;
  now(): number;
  /** Die without a word and open the same data again. */
  crash(): Promise<void>;
  close(): Promise<void>;
}

export interface Request {
  account?: number;
  to?: string[];
  /** Sizes of groups, in order, over `to`; default singles. */
  groups?: number[];
  bulkId?: string;
  sendAt?: number;
  /** Ms between two turns; 0 = no limit any more. */
  every?: number;
  window?: Window;
  validityMs?: number;
  lane?: number;
  endpoint?: { url: string; contentType: string } | string;
  intermediate?: boolean;
  keys?: [number, string][];
  refused?: [number, number][];
  uploads?: string[];
  links?: string[];
  idem?: { key: string; hash: string };
  ways?: Ways;
  /** Its carrier keeps the time. */
  earlyMs?: number;
  spec?: Partial<SpecIn>;
}

export type Desk = ReturnType<typeof createDesk>;

/** The policy of a carrier, unless a case is about another one. */
const POLICY = { onUnknown: 'hold', reports: true } as const;

/** A desk with its lane. */
export async function openDesk(h: Harness): Promise<Desk> {
  const desk = createDesk(h);
  await desk.open();
  return desk;
}

/** Words around a harness. `lane` is the default lane, given by `open`. */
export function createDesk(h: Harness) {
  let lane = 0;
  const desk = {
    h,
    get store(): Store {
      return h.store;
    },
    get lane(): number {
      return lane;
    },
    async open(onUnknown: 'hold' | 'retry' | 'fail' = POLICY.onUnknown, reports = true): Promise<void> {
      lane = await h.store.lane('mmsc', { onUnknown, reports });
    },
    /** The lane of another carrier. */
    laneOf: (carrier: string, shard?: number): Promise<number> => h.store.lane(carrier, POLICY, shard),
    /** The rows of a request. Numbers of `keys` and `refused` count from its first message. */
    async request(request: Request = {}): Promise<Accept> {
      const to = request.to ?? ['441134960001'];
      const first = await h.store.reserve(to.length + 2);
      const start = first + 2;
      const end = start + to.length;
      const refused = new Set((request.refused ?? []).map(([at]) => start + at));
      const endpoint =
        typeof request.endpoint === 'string'
          ? { url: request.endpoint, contentType: 'application/json' }
          : (request.endpoint ?? null);
      const run = {
        spec: first + 1,
        lane: request.lane ?? lane,
        window: request.window ?? null,
        validityMs: request.validityMs ?? VALIDITY,
        ...(request.ways ? { ways: request.ways } : {}),
        ...(request.earlyMs ? { earlyMs: request.earlyMs } : {}),
      };
      const runs: Accept['runs'] = [];
      let at = start;
      for (const size of request.groups ?? []) {
        runs.push({ ...run, first: at, end: at + size, group: true });
        at += size;
      }
      const singles = end - refused.size;
      if (at < singles) runs.push({ ...run, first: at, end: singles, group: false });
      return {
        account: request.account ?? 1,
        first,
        bulkId: request.bulkId ?? null,
        sendAt: request.sendAt ?? null,
        intervalUs: request.every === undefined ? null : request.every * 1000,
        specs: [
          {
            first: start,
            end,
            sender: 'Shop',
            campaign: null,
            entity: null,
            application: null,
            endpoint,
            intermediate: request.intermediate ?? false,
            notify: true,
            body: '{"sender":"Shop","content":{"messageSegments":[{"type":"TEXT","text":"hello"}]}}',
            uploads: (request.uploads ?? []).map((id, segment) => ({ segment, id })),
            links: (request.links ?? []).map((url, segment) => ({ segment, url, contentType: null })),
            ...request.spec,
          },
        ],
        runs,
        to,
        refused: (request.refused ?? []).map(([n, status]) => [start + n, status]),
        keys: (request.keys ?? []).map(([n, key]) => [start + n, key]),
        idem: request.idem ?? null,
      };
    },
    async accept(request: Request = {}): Promise<{ answer: Accepted; nos: number[]; spec: number; bulk: number }> {
      const rows = await desk.request(request);
      const answer = await h.store.accept(rows);
      const nos = rows.to.map((_, index) => rows.first + 2 + index);
      return { answer, nos, spec: rows.first + 1, bulk: 'bulk' in answer ? answer.bulk : 0 };
    },
    /** Accepts one message and gives its number. */
    one: async (request: Request = {}): Promise<number> => (await desk.accept(request)).nos[0] as number,
    claim: (limit = 64, onLane = lane): Promise<Claims> => h.store.claim(onLane, limit, LEASE),
    /** Claims exactly one. */
    async claimOne(): Promise<Claim> {
      const { claims } = await desk.claim(1);
      if (claims.length !== 1) throw new Error(`expected one claim, got ${claims.length}`);
      return claims[0] as Claim;
    },
    settle: (claim: Claim, outcome: Outcome, onLane = lane): Promise<boolean> =>
      h.store.settle({
        lane: onLane,
        token: claim.token,
        leader: claim.leader,
        outcome,
        startedAt: h.now(),
        tookMs: 5,
      }),
    /** Claims all that is due and settles each as told. Returns how many. */
    async settleAll(outcome: (claim: Claim) => Outcome): Promise<number> {
      let count = 0;
      for (;;) {
        const { claims } = await desk.claim(1000);
        if (claims.length === 0) return count;
        await Promise.all(claims.map((claim) => desk.settle(claim, outcome(claim))));
        count += claims.length;
      }
    },
    reported: (id: string, kind: CarrierReport['kind'], more: Partial<CarrierReport> = {}): Promise<Reported> =>
      h.store.report({ carrier: 'mmsc', carrierMessageId: id, addresses: [], kind, words: kind, ...more }),
    /** True = its message was known. */
    async report(id: string, kind: CarrierReport['kind'], more: Partial<CarrierReport> = {}): Promise<boolean> {
      return (await desk.reported(id, kind, more)).known;
    },
    /** All that is due now. */
    async sweep(): Promise<void> {
      for (let step = 0; await h.store.sweep(); step++) if (step > 10_000) throw new Error('the sweep never ends');
    },
    async story(no: number, account = 1): Promise<Story> {
      const story = await h.store.story(account, { no });
      if (!story) throw new Error(`no story of ${no}`);
      return story;
    },
    /** Status and error. */
    async status(no: number, account = 1): Promise<[number, number]> {
      const { message } = await desk.story(no, account);
      return [message.status, message.error];
    },
    /** Accepts, submits and reports one message. */
    async delivered(request: Request = {}): Promise<number> {
      const no = await desk.one(request);
      await desk.settle(await desk.claimOne(), accepted(`d${no}`));
      await desk.report(`d${no}`, 'retrieved');
      return no;
    },
    webhooks: (limit = 100): Promise<Webhooks> => h.store.webhookNext(limit, 30 * SECOND),
    answer: (webhook: Webhook, ok: boolean, body: string | null = null): Promise<boolean> =>
      h.store.webhookSettle({
        no: webhook.no,
        token: webhook.token,
        ok,
        status: ok ? 200 : 503,
        tookMs: 7,
        excerpt: ok ? 'thanks' : 'busy',
        body,
      }),
    async pull(filter: Partial<MessageFilter> = {}): Promise<EventRow[]> {
      return (await h.store.takeReports({ account: 1, limit: 1000, ...filter })).rows;
    },
    /** Pauses or resumes; false = no such bulk, or its status forbids it. */
    async steer(account: number, bulk: BulkName, to: 'PAUSED' | 'PROCESSING'): Promise<boolean> {
      const { kind } = await h.store.bulkSteer(account, bulk, [{ kind: to === 'PAUSED' ? 'pause' : 'resume' }]);
      return kind === 'done';
    },
    async logs(filter: Partial<MessageFilter> = {}): Promise<number[]> {
      return (await h.store.logs({ account: 1, limit: 1000, ...filter })).rows.map((row) => row.no);
    },
  };
  return desk;
}

export function accepted(carrierMessageId: string): Outcome {
  return { kind: 'accepted', carrierMessageId };
}
export const DEFERRED: Outcome = { kind: 'deferred', error: { id: 15000, words: 'busy' } };
export const REFUSED: Outcome = { kind: 'refused', error: { id: 15009, words: 'no such number' } };
export const CONTENT_GONE: Outcome = { kind: 'contentFailed', error: { id: 15025, words: 'content is gone' } };
export const UNKNOWN: Outcome = { kind: 'unknown', error: { id: 15000, words: 'connection lost' } };

/** `count` destinations. */
export function numbers(count: number, from = 1): string[] {
  return Array.from({ length: count }, (_, n) => String(441134960000 + from + n));
}

/** Sets a number of ours, as the operator does. Throws where it cannot be. */
export async function setNumber(store: Pick<Store, 'administer'>, number: OwnNumber): Promise<void> {
  const deed = { by: 'test', action: 'number set', account: number.account, detail: {} };
  const { kind } = await store.administer([{ kind: 'number', number }], deed);
  if (kind !== 'done') throw new Error(`${number.number}: ${kind}`);
}

/** Takes one of an account away. False = it has none of that name. */
export async function dropNumber(store: Pick<Store, 'administer'>, number: string, account: number): Promise<boolean> {
  const deed = { by: 'test', action: 'number removed', account, detail: {} };
  const done = await store.administer([{ kind: 'numberDrop', number, account }], deed);
  return done.kind === 'done' && done.dropped > 0;
}
