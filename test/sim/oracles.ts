/**
 * What is promised, judged from outside: by what customers were answered, what carriers and handsets got, what was committed
 * and when. The oracles know the truth that the product cannot know (whether the MMSC took a submission whose answer was
 * lost), and they compute windows and validities by their own, simpler rules.
 *
 * Promises: the first violation is kept, with the numbers of the messages it is about. An oracle judges only what it can be
 * sure of; where a promise has a written tolerance, that is the one used.
 */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { Answer } from '../../src/api/errors.ts';
import type { Ids } from '../../src/domain/ids.ts';
import type { Accept, EventRow } from '../../src/domain/rows.ts';
import { nextOpening, type Window } from '../../src/domain/schedule.ts';
import type { CarrierReport, ReportKind } from '../../src/domain/submission.ts';
import type { Accepted, Bulk, Claims, Page, Steered, Webhooks } from '../../src/store/contract.ts';
import type { Op, OpResult } from '../../src/store/sqlite/engine.ts';
import { type BulkFact, Bulks, type PacedClaim } from './bulks.ts';
import type { Asker, StoreWatch } from './cistern.ts';
import { Clicks } from './clicks.ts';
import { HOUR, MINUTE, type Scheduler, SECOND, type StoreTime } from './clockwork.ts';
import { type Order, orderIndexOf } from './customers.ts';
import type { Caller, Handover, PeerWatch } from './peers.ts';
import type { CarrierPlan, Plan } from './plan.ts';

/** A promise that was not kept. */
export class Violation extends Error {
  override readonly name = 'Violation';
  /** The promise. */
  readonly oracle: string;
  readonly nos: readonly number[];
  /** Virtual ms. */
  readonly at: number;
  constructor(oracle: string, what: string, nos: readonly number[], at: number) {
    super(what);
    this.oracle = oracle;
    this.nos = nos;
    this.at = at;
  }
}

/** What is known of a message. Instants are epoch ms of the store's clock. */
export interface Fact {
  no: number;
  account: number;
  to: string;
  leader: number;
  /** An SMS follows its MMS where that fails. */
  legs: boolean;
  /** When the MMS had ended and the SMS began; null = it has not. */
  sms: number | null;
  /** Size of its group, 0 = alone. */
  group: number;
  /** The door's status, 0 = taken. */
  refused: number;
  endpoint: { host: string } | null;
  intermediate: boolean;
  acceptedAt: number;
  sendAt: number | null;
  window: Window | null;
  validityMs: number;
  bulk: BulkFact;
  lane: number;
  /** Commits, by number: its acceptance and its first claim. */
  seq: number;
  left: number | null;
  /** Its turn when it was claimed first, epoch ms; its validity began no later. */
  turn: number | null;
  /** When it may be tried again, as its last attempt left it; null = not known. */
  again: number | null;
  /** Since when it is known to be kept back, virtual ms, and the sweeps by then. */
  dueSince: { at: number; sweeps: number } | null;
  /** Waits for linked content. */
  links: boolean;
  key: string | null;
  events: { no: number; at: number; status: number; error: number; final: boolean; leg: number }[];
  /** First copies of its reports, as its endpoint processed them. */
  told: { status: number; error: number }[];
  handovers: Handover[];
  /** Copies on the handset. */
  copies: number;
  reports: { kind: ReportKind; id: string; at: number; sms: boolean }[];
}

/** A message that nothing stood in the way of is tried within this. */
const FREE_MS = 45 * MINUTE;
/** Longer than the longest pause between two tries and the longest wish of a carrier. */
const AGAIN_MS = 100 * MINUTE;
/** How long an unknown outcome waits for a report where the policy is to hold. */
const HOLD_MS = 15 * MINUTE;
/** G4: after its validity, while all is up; and what a flight's lease and its grace may add. */
const LATE_MS = 10 * MINUTE + 90 * SECOND;
/** What a cancel ends is final within this, while all is up: a sweep, and a lease that has to run out. */
const CANCELED_MS = 2 * MINUTE;
/** What is heeded within this can be told from what waits for a turn twice as far. */
const SLOW_MS = 5 * SECOND;
const NOT_FINAL = new Set([3, 7, 26]);
/** PENDING_ENROUTE */
const CLAIMED = 7;
/** Changes of a message up to which its claims are told. */
const CLAIMS_TOLD = 40;
/** Ops of all processes in one virtual second: far above what the small loads here need. */
const BUSY = 4000;

const FINAL_OF: Partial<Record<ReportKind, number>> = {
  retrieved: 5,
  expired: 15,
  rejected: 9,
  indeterminate: 9,
  unrecognised: 9,
  unreachable: 9,
  unsupported: 9,
};

export class Oracles implements StoreWatch, PeerWatch {
  violation: Violation | null = null;
  install = '';
  submissions = 0;
  db!: DatabaseSync;
  /** What customers send, by index. */
  readonly orders = new Map<number, Order>();
  readonly #scheduler: Scheduler;
  readonly #time: StoreTime;
  readonly #plan: Plan;
  readonly #facts = new Map<number, Fact>();
  /** Members by leader. */
  readonly #leaders = new Map<number, Fact[]>();
  readonly #byTo = new Map<string, Fact>();
  readonly #byKey = new Map<string, Fact>();
  readonly bulks: Bulks;
  readonly clicks: Clicks;
  /** Commits of ops so far. */
  #seq = 0;
  readonly #idems = new Map<string, number>();
  readonly #answers = new Map<number, string>();
  readonly #acknowledged = new Set<number>();
  /** The newest claim of each leader. */
  readonly #claims = new Map<
    number,
    { token: number; asker: Asker; at: number; claimedAt: number; paced: PacedClaim }
  >();
  /** Leases by token, until they are settled, given back or gone with the embedded store's process. */
  readonly #leases = new Map<number, { leader: number; until: number }>();
  /** The last ones of each process and carrier, virtual ms. */
  readonly #departures = new Map<string, number[]>();
  readonly #inFlight = new Map<number, Handover>();
  /** Submissions by carrier's id, and when a settle taught the store that id. */
  readonly #taken = new Map<string, { handover: Handover; leader: number; learntAt: number | null }>();
  /** Finals handed out to those who pull, by event. */
  readonly #pulled = new Set<number>();
  readonly #pulledByCustomer = new Set<string>();
  /** Formed webhooks: their bytes. */
  readonly #bodies = new Map<number, string>();
  /** When not everything was well, [from, until) in virtual ms. */
  readonly #bad: [number, number][] = [];
  #processesDownSince: number | null = 0;
  #lastEvent = 0;
  #lastAt = 0;
  #second = 0;
  #busy = 0;

  constructor(scheduler: Scheduler, time: StoreTime, plan: Plan) {
    this.#scheduler = scheduler;
    this.#time = time;
    this.#plan = plan;
    this.bulks = new Bulks(scheduler, time, (oracle, what, nos) => this.fail(oracle, what, nos));
    this.clicks = new Clicks((oracle, what, nos) => this.fail(oracle, what, nos));
  }

  get messages(): number {
    return this.#facts.size;
  }

  fail(oracle: string, what: string, nos: readonly number[] = []): void {
    if (this.violation) return;
    this.violation = new Violation(oracle, what, nos, this.#scheduler.now);
    this.#scheduler.trace(`VIOLATED ${oracle}: ${what}`, nos);
  }

  #now(): number {
    return this.#time.now;
  }

  #trace(text: string, nos: readonly number[] = []): void {
    this.#scheduler.trace(text, nos);
  }

  // ---------------------------------------------------------------------------------------------------- what was well

  down(from: number, until: number): void {
    this.#bad.push([from, until]);
    this.onTrouble(until - this.#scheduler.now);
  }

  /** Whether any process is up. */
  processes(up: boolean): void {
    if (up && this.#processesDownSince !== null) this.down(this.#processesDownSince, this.#scheduler.now);
    this.#processesDownSince = up ? null : (this.#processesDownSince ?? this.#scheduler.now);
  }

  heal(): void {
    for (const window of this.#bad) window[1] = Math.min(window[1], this.#scheduler.now + MINUTE);
  }

  /** How much of [from, until) (epoch ms) was well; with `fact`, and neither its window nor its bulk was in its way. */
  #wellMs(from: number, until: number, fact: Fact | null = null): number {
    let well = 0;
    // In steps of a minute: the tolerance is coarser.
    for (let at = from; at < until; at += MINUTE) {
      const end = Math.min(at + MINUTE, until);
      if (fact !== null && (nextOpening(fact.window, at) > at || this.bulks.holds(fact, at, end))) continue;
      const bad =
        this.#bad.some(([begin, stop]) => this.#time.at(begin) < end && this.#time.at(stop) > at) ||
        this.#time.skipped.some(([begin, stop]) => begin < end && stop > at);
      if (!bad) well += end - at;
    }
    return well;
  }

  logged(message: string, fields: object): void {
    this.#trace(`error logged: ${message}`);
    if (EXPECTED_ERRORS.some((known) => message.startsWith(known))) return;
    const { err } = fields as { err?: Error };
    this.fail('no error that is a bug is logged', `${message}: ${err?.stack ?? JSON.stringify(fields)}`);
  }

  // ------------------------------------------------------------------------------------------------------------- store

  committed(op: Op, result: OpResult, asker: Asker): void {
    this.#countBusy();
    this.#seq++;
    if ('bug' in result) this.fail('the store does not throw', `${op[0]}: ${result.bug}`);
    if (!('ok' in result)) return;
    switch (op[0]) {
      case 'accept':
        this.#accepted(op[1], result.ok as Accepted);
        break;
      case 'claim':
        if ((result.ok as Claims).claims.length > 0) this.onMoment(asker);
        for (const claim of (result.ok as Claims).claims) {
          const facts = (this.#leaders.get(claim.leader) ?? []).filter((fact) =>
            claim.members.some((member) => member.no === fact.no),
          );
          const paced = this.bulks.claimed(this.#seq, facts, claim);
          if (paced.limit && paced.limit.unitMs / paced.limit.amount > 2 * SLOW_MS) this.onTurn(asker);
          this.#claims.set(claim.leader, {
            token: claim.token,
            asker,
            at: this.#now(),
            claimedAt: this.#scheduler.now,
            paced,
          });
          this.#leases.set(claim.token, { leader: claim.leader, until: Math.floor(this.#now()) + op[1].leaseMs });
          this.#trace(
            `claimed by ${asker.name}`,
            claim.members.map((member) => member.no),
          );
        }
        if ((result.ok as Claims).claims.length < op[1].limit) this.bulks.keptBack(op[1].lane);
        break;
      case 'sweep':
        if (result.ok === false) this.bulks.swept();
        break;
      case 'settle': {
        const { leader, token, outcome } = op[1];
        const fresh = result.ok === true;
        this.#judgeSettle(leader, token, fresh);
        if (outcome.kind === 'accepted') {
          const known = this.#taken.get(outcome.carrierMessageId);
          if (known) known.learntAt ??= this.#now();
        }
        if (fresh) for (const fact of this.#leaders.get(leader) ?? []) this.bulks.back(fact);
        this.#trace(`settled ${outcome.kind}${fresh ? '' : ' (stale)'} by ${asker.name}`, this.#nosOf(leader));
        break;
      }
      case 'release':
        for (const { token, leader } of op[1].claims) {
          this.#leases.delete(token);
          const claim = this.#claims.get(leader);
          if (claim?.token !== token) continue;
          this.bulks.putBack(this.#leaders.get(leader) ?? [], claim.paced);
          for (const fact of this.#leaders.get(leader) ?? []) this.bulks.back(fact);
        }
        break;
      case 'report':
        this.#reported(op[1]);
        break;
      case 'click':
        this.clicks.stored(op[1]);
        this.#trace(
          'clicks stored',
          op[1].map(({ no }) => no),
        );
        break;
      case 'takeReports':
        for (const row of (result.ok as Page<EventRow>).rows) this.#handedOut(op[1].account, row);
        break;
      case 'bulkSteer':
        if ((result.ok as Steered).kind === 'done') {
          const { account, bulk: name, changes } = op[1];
          const bulk = this.bulks.find(account, name);
          if (!bulk) this.fail('only a bulk that is there is steered', JSON.stringify(name));
          else {
            this.#trace(
              `bulk ${bulk.no} of ${account}: ${changes.map((change) => JSON.stringify(change)).join(' ')}`,
              bulk.facts.map((fact) => fact.no),
            );
            this.bulks.steered(this.#seq, bulk, changes);
          }
        }
        break;
      case 'webhookNext':
        for (const webhook of (result.ok as Webhooks).webhooks) {
          const stranger = webhook.events.find((event) => this.#facts.get(event.no)?.account !== webhook.account);
          if (stranger) {
            this.fail('accounts are isolated (G18)', `webhook ${webhook.no} carries a stranger's event`, [stranger.no]);
          }
        }
        break;
      case 'webhookSettle': {
        const { no, body } = op[1];
        if (body === null || result.ok !== true) break;
        const known = this.#bodies.get(no);
        if (known !== undefined && known !== body) this.fail('retries carry the same bytes (G10)', `webhook ${no}`);
        this.#bodies.set(no, body);
        break;
      }
    }
  }

  #judgeSettle(leader: number, token: number, fresh: boolean): void {
    const lease = this.#leases.get(token);
    this.#leases.delete(token);
    if (fresh && this.#claims.get(leader)?.token !== token) {
      this.fail('a stale settle changes nothing (G7)', `token ${token} is not the newest`, this.#nosOf(leader));
    } else if (!fresh && lease && lease.until > this.#now()) {
      this.fail('a settle within its lease counts (G7)', `token ${token} was taken for stale`, this.#nosOf(leader));
    }
  }

  /** Told of the moments at which a process has most to lose. */
  onMoment: (caller: Caller | Asker) => void = () => undefined;

  /** Told of each submission of a bulk, and how often it has been made; Infinity = it will be out for long. */
  onLeft: (bulk: BulkFact, times: number) => void = () => undefined;

  /** Told of claims that must leave at a turn long before the next one. */
  onTurn: (asker: Asker) => void = () => undefined;

  /** Told when something goes away, and for how long, virtual ms. */
  onTrouble: (ms: number) => void = () => undefined;

  /** Told of each link that a handset has got, with its copies of that message so far. */
  onLink: (token: string, to: string, copies: number) => void = () => undefined;

  clickTold(host: string, body: string): void {
    this.#trace(`${host} told of a click: ${body}`);
    this.clicks.told(host, body);
  }

  lingers(handover: Handover): void {
    const bulk = this.#leaders.get(leaderOf(handover))?.[0]?.bulk;
    if (bulk) this.onLeft(bulk, Number.POSITIVE_INFINITY);
  }

  posted(caller: Caller): void {
    this.onMoment(caller);
  }

  #countBusy(): void {
    const second = Math.floor(this.#scheduler.now / SECOND);
    if (second !== this.#second) {
      this.#second = second;
      this.#busy = 0;
    }
    if (++this.#busy > BUSY) this.fail('no loop spins', `more than ${BUSY} ops in one second`);
  }

  #accepted(request: Accept, result: Accepted): void {
    if (result.kind !== 'accepted') return;
    const duplicates = new Set(result.duplicates);
    const refused = new Map(request.refused);
    const keys = new Map(request.keys);
    const { account, idem } = request;
    if (idem) {
      const name = `${account} ${idem.key}`;
      if (this.#idems.has(name)) {
        this.fail('repeats do not send twice (G3)', `Idempotency-Key ${idem.key} was accepted twice`);
      }
      this.#idems.set(name, request.first);
    }
    const base = request.specs[0]?.first ?? 0;
    const order = this.orders.get(orderIndexOf(request.to));
    const made = { account, no: result.bulk, id: request.bulkId, order: order?.index ?? -1 };
    const bulk = this.bulks.accepted(this.#seq, made, order?.limit ?? null);
    for (const spec of request.specs) {
      for (let no = spec.first; no < spec.end; no++) {
        if (duplicates.has(no)) continue;
        const run = request.runs.find((one) => one.first <= no && no < one.end);
        const fact: Fact = {
          no,
          account,
          to: request.to[no - base] as string,
          leader: run?.group ? run.first : no,
          legs: run?.ways?.sms !== undefined,
          sms: null,
          group: run?.group ? run.end - run.first : 0,
          refused: refused.get(no) ?? 0,
          endpoint: spec.endpoint ? { host: new URL(spec.endpoint.url).host } : null,
          intermediate: spec.intermediate,
          acceptedAt: Math.floor(this.#now()),
          // What the customer wrote, not what became of it.
          sendAt: order?.sendAt ?? null,
          window: run?.window ?? null,
          validityMs: run?.validityMs ?? 0,
          bulk,
          lane: run?.lane ?? -1,
          seq: this.#seq,
          left: null,
          turn: null,
          again: null,
          dueSince: null,
          links: spec.links.length > 0,
          key: keys.get(no) ?? null,
          events: [],
          told: [],
          handovers: [],
          copies: 0,
          reports: [],
        };
        this.#facts.set(no, fact);
        bulk.facts.push(fact);
        if (order?.tracking) this.clicks.accepted(no, fact, order);
        if (fact.key !== null) {
          const name = `${account} ${fact.key}`;
          const first = this.#byKey.get(name);
          if (first) this.fail('repeats do not send twice (G3)', `message id ${fact.key} twice`, [first.no, no]);
          this.#byKey.set(name, fact);
        }
        if (fact.refused === 0) {
          const first = this.#byTo.get(fact.to);
          if (first) this.fail('repeats do not send twice (G3)', `${fact.to} has two messages`, [first.no, no]);
          this.#byTo.set(fact.to, fact);
          const members = this.#leaders.get(fact.leader);
          if (members) members.push(fact);
          else this.#leaders.set(fact.leader, [fact]);
          if (fact.legs) this.#leaders.set(-no, [fact]);
        }
      }
    }
    this.#trace(
      `accepted ${request.first}`,
      [...this.#facts.keys()].filter((no) => no >= base && no < base + request.to.length),
    );
  }

  #reported(report: CarrierReport): void {
    const id = plainId(report.carrierMessageId);
    const taken = this.#taken.get(id);
    if (!taken) return;
    const members = this.#leaders.get(taken.leader) ?? [];
    const named = members.length === 1 ? members : members.filter((fact) => report.addresses.includes(fact.to));
    for (const fact of named) fact.reports.push({ kind: report.kind, id, at: this.#now(), sms: taken.leader < 0 });
    this.#trace(
      `report ${report.kind} under ${id}`,
      named.map((fact) => fact.no),
    );
  }

  #tail: StatementSync | null = null;
  /** What the last commit wrote of statuses. */
  looked(): void {
    this.#tail ??= this.db.prepare(
      `SELECT no, message, account, at, status, error, kind, leg FROM event WHERE no > ? ORDER BY no`,
    );
    const rows = this.#tail.all(this.#lastEvent) as unknown as {
      no: number;
      message: number;
      account: number;
      at: number;
      status: number;
      error: number;
      kind: number;
      leg: number;
    }[];
    for (const row of rows) {
      this.#lastEvent = row.no;
      if (row.at < this.#lastAt)
        this.fail('the clock of the store never goes back', `by ${this.#lastAt - row.at} ms`, [row.message]);
      this.#lastAt = row.at;
      if (row.kind !== 0) continue;
      const fact = this.#facts.get(row.message);
      if (!fact) {
        this.fail('all or nothing per request (G2)', `an event of a message that nobody sent: ${row.message}`);
        return;
      }
      this.#trace(`status ${row.status} error ${row.error}`, [fact.no]);
      const last = fact.events.at(-1);
      if (last?.final) {
        this.fail('the first final status wins (G4)', `${last.status} became ${row.status}`, [fact.no]);
      }
      if (row.account !== fact.account) this.fail('accounts are isolated (G18)', 'event of another account', [fact.no]);
      if (row.status === CLAIMED) {
        if (!fact.intermediate) this.fail('a claim is told to who asks for it', 'nobody asked', [fact.no]);
        if (last?.status === CLAIMED) this.fail('a claim is told to who asks for it', 'twice in a row', [fact.no]);
      }
      const final = !NOT_FINAL.has(row.status) && row.leg !== 2;
      if (row.leg === 2) {
        if (fact.sms !== null) this.fail('an SMS follows once', 'its MMS ended twice', [fact.no]);
        if (!fact.legs) this.fail('an SMS follows where it is asked for', 'nobody asked', [fact.no]);
        fact.sms = this.#scheduler.now;
      }
      fact.events.push({ no: row.no, at: row.at, status: row.status, error: row.error, final, leg: row.leg });
    }
  }

  #handedOut(account: number, row: EventRow): void {
    const fact = this.#facts.get(row.no);
    if (!fact || fact.account !== account) {
      this.fail('accounts are isolated (G18)', `account ${account} was given a stranger's report`, [row.no]);
      return;
    }
    if (fact.events.find(({ no }) => no === row.event)?.final === false) {
      this.fail('only an end is pulled', `event ${row.event} is none`, [row.no]);
    }
    if (this.#pulled.has(row.event)) this.fail('pulled at most once (G16)', `event ${row.event}`, [row.no]);
    this.#pulled.add(row.event);
  }

  // --------------------------------------------------------------------------------------------------------- customers

  /** An answer to a customer's POST. */
  answered(order: Order, answer: Answer, ids: Ids): void {
    this.#trace(`order ${order.index} answered ${answer.status}`);
    if (answer.status !== 200) {
      if (answer.status >= 500) this.fail('a request is answered', `order ${order.index}: ${answer.body}`);
      return;
    }
    const { messages } = JSON.parse(answer.body) as { messages: { messageId: string; status: { id: number } }[] };
    for (const { messageId, status } of messages) {
      const no = ids.parse('message', messageId) ?? this.#byKey.get(`${order.account} ${messageId}`)?.no ?? -1;
      if (!this.#exists(no)) {
        this.fail('acknowledged exists (G1)', `order ${order.index}: ${messageId} (${status.id}) is not there`, [no]);
        return;
      }
      this.#acknowledged.add(no);
    }
    if (order.idem === null) return;
    const known = this.#answers.get(order.index);
    if (known !== undefined && known !== answer.body) {
      this.fail('repeats do not send twice (G3)', `order ${order.index} was answered differently`);
    }
    this.#answers.set(order.index, answer.body);
  }

  #existsQuery: StatementSync | null = null;
  #exists(no: number): boolean {
    this.#existsQuery ??= this.db.prepare('SELECT 1 FROM message WHERE no = ?');
    return this.#existsQuery.get(no) !== undefined;
  }

  /** Reports that a customer pulled. */
  pulled(account: number, answer: Answer, ids: Ids): void {
    if (answer.status !== 200) {
      this.fail('a request is answered', `reports: ${answer.body}`);
      return;
    }
    const { results } = JSON.parse(answer.body) as { results: { messageId: string; status: { id: number } }[] };
    for (const { messageId } of results) {
      const no = ids.parse('message', messageId) ?? this.#byKey.get(`${account} ${messageId}`)?.no ?? -1;
      const fact = this.#facts.get(no);
      if (!fact || fact.account !== account) {
        this.fail('accounts are isolated (G18)', `account ${account} pulled ${messageId}`, [no]);
        return;
      }
      if (this.#pulledByCustomer.has(messageId)) this.fail('pulled at most once (G16)', messageId, [no]);
      this.#pulledByCustomer.add(messageId);
      this.#trace(`pulled by account ${account}`, [no]);
    }
  }

  /** The answer to a PUT that steers a bulk. */
  steered(bulkId: string, asked: Record<string, unknown>, answer: Answer): void {
    if (answer.status === 404 || answer.status === 409) return;
    const told = JSON.parse(answer.body) as { bulkId?: string; status?: string };
    const wanted =
      asked.status === 'PROCESSING' ? ['PROCESSING', 'PENDING', 'FINISHED'] : asked.status ? [asked.status] : null;
    if (answer.status !== 200 || told.bulkId !== bulkId || (wanted && !wanted.includes(told.status ?? ''))) {
      this.fail('a request is answered', `${JSON.stringify(asked)} of ${bulkId}: ${answer.status} ${answer.body}`);
    }
  }

  /** A page of logs. */
  logsRead(account: number, answer: Answer, ids: Ids): void {
    if (answer.status !== 200) {
      this.fail('a request is answered', `logs: ${answer.body}`);
      return;
    }
    const { results } = JSON.parse(answer.body) as { results: { messageId: string; destination: string }[] };
    for (const { messageId, destination } of results) {
      const no = ids.parse('message', messageId) ?? this.#byKey.get(`${account} ${messageId}`)?.no ?? -1;
      const fact = this.#facts.get(no);
      if (fact?.account !== account || fact.to !== destination) {
        this.fail('accounts are isolated (G18)', `account ${account} was shown ${messageId} in its logs`, [no]);
        return;
      }
    }
  }

  /** A customer's endpoint processed a POST. */
  told(host: string, contentType: string, body: string): void {
    for (const report of reportsIn(contentType, body)) {
      const fact = this.#byNumber(report.to);
      if (!fact) {
        this.fail('what is told is true', `a report to ${host} about nobody: ${report.to}`);
        return;
      }
      if (fact.endpoint?.host !== host) {
        this.fail('accounts are isolated (G18)', `${host} was told of a message that is not its own`, [fact.no]);
        return;
      }
      this.#trace(`${host} told ${report.status}/${report.error}`, [fact.no]);
      const { status, error } = report;
      if (fact.told.some((one) => one.status === status && one.error === error)) continue;
      const wanted = this.#wanted(fact);
      const place = fact.told.length;
      if (wanted[place]?.status !== status || wanted[place]?.error !== error) {
        const known = wanted.some((event) => event.status === status && event.error === error);
        this.fail(
          known ? 'a message is told of in order (G9)' : 'what is told is true',
          `told ${status}/${error} as report ${place + 1} of ${wanted.map((event) => `${event.status}/${event.error}`).join(' ')}`,
          [fact.no],
        );
        return;
      }
      fact.told.push({ status, error });
    }
  }

  /** Refused destinations are as the customer wrote them, and may stand twice. */
  #byNumber(to: string): Fact | undefined {
    const taken = this.#byTo.get(to);
    if (taken) return taken;
    for (const fact of this.#facts.values()) if (fact.refused !== 0 && fact.to === to) return fact;
    return undefined;
  }

  /** The events that its endpoint is to be told of, each once: what repeats a pair cannot be told apart from a copy. */
  #wanted(fact: Fact): { status: number; error: number }[] {
    if (!fact.endpoint) return [];
    const seen = new Set<string>();
    return fact.events.filter((event) => {
      if (!event.final && !fact.intermediate) return false;
      const name = `${event.status}/${event.error}`;
      if (seen.has(name)) return false;
      seen.add(name);
      return true;
    });
  }

  // ---------------------------------------------------------------------------------------------------------- carriers

  #flight: StatementSync | null = null;
  submitted(handover: Handover): void {
    this.submissions++;
    this.onMoment(handover.caller);
    const { transactionId, caller, recipients, carrier } = handover;
    const leader = leaderOf(handover);
    const all = this.#leaders.get(leader) ?? [];
    const members = all.filter((fact) => recipients.includes(fact.to));
    const nos = members.map((fact) => fact.no);
    this.#trace(`submitted by ${caller.name} to ${carrier.name} as ${transactionId}`, nos);
    if (members.length !== recipients.length || !transactionId.startsWith(this.install)) {
      this.fail('only what was accepted is submitted', `${transactionId} to ${recipients.join(' ')}`, nos);
      return;
    }
    const claim = this.#claims.get(leader);
    // What a process can know: the clock since its claim. Nobody tells it that somebody set the store's.
    const now = claim ? claim.at + this.#scheduler.now - claim.claimedAt : this.#now();
    for (const fact of members) {
      if (!handover.sms) this.#judgeTime(fact, now);
      if (fact.legs && handover.sms !== (fact.sms !== null)) {
        this.fail(
          'one leg after the other',
          handover.sms ? 'an SMS before its MMS ended' : 'an MMS beside its SMS',
          nos,
        );
      }
      fact.handovers.push(handover);
      if (claim && fact.intermediate && fact.events.length < CLAIMS_TOLD) this.#judgeTold(fact, handover.sms, claim.at);
      const last = fact.events.findLast(({ status }) => status !== CLAIMED);
      if (claim && last?.final && last.at < claim.at) {
        this.fail('no submission after a recorded end (G7)', `it was final with ${last.status}`, nos);
      } else if (claim && last?.status === 3 && last.error === 0 && last.at < claim.at) {
        this.fail('no submission after a recorded success (G7)', 'the carrier had taken it', nos);
      }
    }
    const other = this.#inFlight.get(Math.abs(leader));
    // A clock that is set forward ends leases of what is out.
    if (other && this.#time.lastJump < other.startedAt)
      this.fail('one submission in flight (G7)', `${other.caller.name} still has one out`, nos);
    this.#inFlight.set(Math.abs(leader), handover);
    this.#flight ??= this.db.prepare('SELECT token, lease_until FROM flight WHERE leader = ?');
    const flight = this.#flight.get(leader) as { token: number; lease_until: number } | undefined;
    if (claim && this.#time.lastJump >= claim.claimedAt) {
      // Likewise.
    } else if (!claim || claim.asker !== (caller as unknown) || flight?.token !== claim.token) {
      this.fail('only a holder of the claim submits (G7)', `${caller.name} has lost it`, nos);
    } else if (flight.lease_until < now + carrier.timeoutMs) {
      this.fail('only a holder of the claim submits (G7)', 'its lease ends before the time-out', nos);
    }
    if (claim) this.bulks.left(members, claim.paced, nos, now);
    if (members[0]) this.onLeft(members[0].bulk, members[0].handovers.length);
    this.#judgeRate(handover, nos);
    const before = members[0]?.handovers.filter(({ sms }) => sms === handover.sms).at(-2);
    const early = before ? this.#now() - this.#time.at(before.startedAt) : Number.POSITIVE_INFINITY;
    if (carrier.onUnknown === 'hold' && before?.outcome === 'unknown' && early < HOLD_MS - SECOND) {
      this.fail('an unknown outcome is held for its report (G6)', `only ${Math.round(early)} ms`, nos);
    }
  }

  /** Who asks for every change knows of the claim, unless a report has said more since. */
  #judgeTold({ no, events }: Fact, sms: boolean, at: number): void {
    const own = events.filter(({ leg }) => (leg === 1) === sms);
    const last = own.findLast((event) => event.at < at && event.status !== CLAIMED);
    const told = own.findLast(({ status }) => status === CLAIMED);
    if (!told || (last && told.no < last.no)) {
      this.fail('a claim is told to who asks for it', `the last before it was ${last?.status ?? 26}`, [no]);
    }
  }

  /** A lane's own rate, which a process keeps for itself. */
  #judgeRate({ caller, carrier }: Handover, nos: readonly number[]): void {
    const { ratePerSecond, name } = carrier;
    if (ratePerSecond === 0) return;
    const key = `${caller.name} ${name}`;
    const burst = Math.max(1, Math.floor(ratePerSecond));
    const spanMs = (burst * SECOND) / ratePerSecond;
    const departures = this.#departures.get(key) ?? [];
    this.#departures.set(key, departures);
    departures.push(this.#scheduler.now);
    if (departures.length <= burst) return;
    const first = departures.shift() as number;
    if (this.#scheduler.now - first < spanMs - 0.01) {
      this.fail('never faster than the rate of the carrier (G8)', `${burst + 1} in less than ${spanMs} ms`, nos);
    }
  }

  #judgeTime(fact: Fact, now: number): void {
    const nos = [fact.no];
    if (fact.refused !== 0) this.fail('only what was accepted is submitted', 'it was refused at the door', nos);
    const moved = fact.bulk.moves.some((move) => move.seq > fact.seq);
    if (!moved && fact.sendAt !== null && now < fact.sendAt) {
      this.fail('never before sendAt (G8)', `${fact.sendAt - now} ms early`, nos);
    }
    if (nextOpening(fact.window, now) > now) {
      this.fail('never outside the window (G8)', JSON.stringify(fact.window), nos);
    }
    const end = this.#latestEnd(fact);
    if (end !== null && now >= end) this.fail('never after the validity (G8)', `${now - end} ms late`, nos);
  }

  /** When its validity begins, where no turns decide. */
  #startOf(fact: Fact): number | null {
    return this.bulks.startOf(fact);
  }

  #endOf(fact: Fact): number | null {
    const start = this.#startOf(fact);
    return start === null ? null : start + fact.validityMs;
  }

  /** When its validity ends at the latest, also under a limit; null = it has not begun, for all that is known. */
  #latestEnd(fact: Fact): number | null {
    const start = this.#startOf(fact) ?? fact.turn;
    return start === null ? null : start + fact.validityMs;
  }

  /** Likewise at the earliest. */
  #earliestEnd(fact: Fact): number {
    const start = this.bulks.earliest(fact);
    return start === null ? 0 : start + fact.validityMs;
  }

  ended(handover: Handover): void {
    const place = Math.abs(leaderOf(handover));
    if (this.#inFlight.get(place) === handover) this.#inFlight.delete(place);
  }

  /** What a dead process had out is in flight no more. */
  died(caller: Caller): void {
    if (this.#plan.nodes === 1) this.#leases.clear();
    for (const [leader, handover] of this.#inFlight) {
      if (handover.caller === caller) this.#inFlight.delete(leader);
    }
  }

  took(handover: Handover, id: string): void {
    const leader = leaderOf(handover);
    this.#trace(`${handover.carrier.name} takes ${handover.transactionId} as ${id}`, this.#nosOf(leader));
    if (!this.#taken.has(id)) this.#taken.set(id, { handover, leader, learntAt: null });
  }

  copied(handover: Handover, recipient: string): void {
    const fact = this.#leaders.get(leaderOf(handover))?.find((one) => one.to === recipient);
    if (!fact) return;
    if (handover.sms) return;
    fact.copies++;
    for (const token of this.clicks.arrived(fact.no, handover.recipients, handover.texts)) {
      this.onLink(token, fact.to, fact.copies);
    }
    const { onUnknown, dedups } = handover.carrier;
    const allowed = this.#copiesAllowed(fact, handover.carrier);
    if (fact.copies <= allowed) return;
    this.fail(
      'extra copies only as the policy allows (G6)',
      `copy ${fact.copies} on ${onUnknown}${dedups ? ', though the carrier drops repeated ids' : ''}`,
      [fact.no],
    );
  }

  #copiesAllowed(fact: Fact, carrier: CarrierPlan): number {
    if (carrier.dedups) return 1;
    // All but the last may have ended without our knowing.
    const unclear = fact.handovers
      .filter(({ sms }) => !sms)
      .slice(0, -1)
      .filter((handover) => !isClear(handover)).length;
    const most = carrier.onUnknown === 'fail' ? 1 : carrier.onUnknown === 'hold' ? 2 : Number.POSITIVE_INFINITY;
    return Math.min(1 + unclear, most);
  }

  #nosOf(leader: number): number[] {
    return (this.#leaders.get(leader) ?? []).map((fact) => fact.no);
  }

  // ----------------------------------------------------------------------------------------------------------- the end

  /** Whether all that was accepted is final and told. */
  idle(): boolean {
    for (const fact of this.#facts.values()) {
      const last = fact.events.at(-1);
      if (!last?.final) return false;
      if (fact.told.length < this.#wanted(fact).length) return false;
      if (!fact.endpoint && !this.#pulled.has(last.no)) return false;
    }
    return this.clicks.idle() && this.#leftOpen() === null;
  }

  #leftOpen(): string | null {
    for (const [table, where] of [
      ['flight', ''],
      ['retry', ''],
      ['outbox', ''],
      ['open_event', ''],
      ['hook', 'WHERE state = 0'],
      ['media', 'WHERE due_at IS NOT NULL'],
      ['bulk', 'WHERE drain IS NOT NULL'],
      ['recall', ''],
    ]) {
      const { n } = this.db.prepare(`SELECT count(*) AS n FROM ${table} ${where}`).get() as { n: number };
      if (n > 0) return `${n} rows of ${table}`;
    }
    const due = this.db.prepare('SELECT count(*) AS n FROM turn WHERE due_at IS NOT NULL').get() as { n: number };
    return due.n > 0 ? `${due.n} accounts with a turn` : null;
  }

  /** After phase 2. */
  finish(): void {
    this.bulks.watch();
    for (const fact of this.#facts.values()) this.#judgeEnd(fact);
    this.clicks.finish();
    this.#judgePassed();
    const open = this.#leftOpen();
    if (open !== null) this.fail('nothing is left open', open);
    const rows = this.db.prepare('SELECT no, state, status, error FROM message').all() as {
      no: number;
      state: number;
      status: number;
      error: number;
    }[];
    if (rows.length !== this.#facts.size) {
      this.fail('all or nothing per request (G2)', `${rows.length} rows of ${this.#facts.size} messages`);
    }
    for (const row of rows) {
      const last = this.#facts.get(row.no)?.events.at(-1);
      if (last?.status !== row.status || last.error !== row.error) {
        this.fail('the first final status wins (G4)', `its row says ${row.status}, its last event ${last?.status}`, [
          row.no,
        ]);
      }
    }
    for (const no of this.#acknowledged) {
      if (!this.#exists(no)) this.fail('acknowledged exists (G1)', `${no} is gone`, [no]);
    }
  }

  #judgeEnd(fact: Fact): void {
    const nos = [fact.no];
    const last = fact.events.at(-1);
    if (!last?.final) {
      this.fail('every message ends (G4)', `it is still ${last?.status ?? 26}`, nos);
      return;
    }
    const wanted = this.#wanted(fact);
    if (fact.told.length < wanted.length) {
      this.fail('every wanted report is told (G10)', `${fact.told.length} of ${wanted.length}`, nos);
    }
    if (!fact.endpoint && !this.#pulled.has(last.no)) this.fail('every final report can be pulled (G16)', '', nos);
    if (fact.legs) {
      this.#judgeLegs(fact, last);
      return;
    }
    this.#judgeLateness(fact, last);
    this.#judgeTruth(fact, last);
    this.#judgeReports(fact, last);
    this.#judgeCanceled(fact, last);
  }

  /** Of a message with two legs: the end is of the leg that it says, true of that one, and what had to follow has. */
  #judgeLegs(fact: Fact, last: Fact['events'][number]): void {
    const nos = [fact.no];
    const { status, error, leg } = last;
    const lie = (what: string): void =>
      this.fail('the status is true (G5)', `${status}/${error} of leg ${leg}: ${what}`, nos);
    const sms = leg === 1;
    const told = (kind: (one: ReportKind) => boolean): boolean =>
      fact.reports.some((report) => report.sms === sms && kind(report.kind));
    const own = fact.handovers.filter((handover) => handover.sms === sms);
    if (sms && fact.sms === null) lie('no SMS had begun');
    if (sms) this.#judgeReports({ ...fact, reports: fact.reports.filter((report) => report.sms) }, last);
    if (status === 5 && !told((kind) => kind === 'retrieved')) lie('no handset retrieved it');
    if (status === 9 && !told((kind) => FINAL_OF[kind] === 9)) lie('no report said so');
    if (status === 4 && !own.some(({ refused }) => refused)) lie('no carrier refused it');
    if (status === 15 && own.some(({ taken }) => taken) && !told((kind) => kind === 'expired'))
      lie('a carrier had taken it');
    if (leg === 0 && fact.refused === 0 && [4, 9, 15, 100].includes(status)) {
      this.fail('an SMS follows an MMS that failed', `${status}/${error} is its end`, nos);
    }
    if (leg === 0 && fact.handovers.some((handover) => handover.sms)) lie('its SMS has left');
  }

  #judgeLateness(fact: Fact, last: { at: number }): void {
    const end = this.#latestEnd(fact);
    if (end === null || fact.refused !== 0 || last.at <= end + LATE_MS) return;
    const well = this.#wellMs(end, last.at);
    if (well > LATE_MS) {
      this.fail('every message ends (G4)', `${Math.round(well / SECOND)} s after its validity`, [fact.no]);
    }
  }

  #judgeTruth(fact: Fact, last: { at: number; status: number; error: number }): void {
    const nos = [fact.no];
    const { status, error } = last;
    const lie = (what: string): void => this.fail('the status is true (G5)', `${status}/${error}: ${what}`, nos);
    const told = (kind: (one: ReportKind) => boolean): boolean => fact.reports.some((report) => kind(report.kind));
    const taken = fact.handovers.some((handover) => handover.taken && this.#time.at(handover.startedAt) < last.at);
    switch (status) {
      case 5:
        if (!told((kind) => kind === 'retrieved')) lie('no handset retrieved it');
        break;
      case 2:
        if (!taken) lie('no carrier took it');
        break;
      case 4:
        if (!fact.handovers.some((handover) => handover.refused)) lie('no carrier refused it');
        break;
      case 9:
        if (!told((kind) => FINAL_OF[kind] === 9)) lie('no report said so');
        break;
      case 15: {
        if (told((kind) => kind === 'expired')) break;
        if (taken) lie('a carrier had taken it');
        if (last.at < this.#earliestEnd(fact)) lie('its validity had not ended');
        if (fact.handovers.length === 0) this.#judgeUntried(fact);
        else this.#judgeGivenUp(fact);
        break;
      }
      case 29:
        if (last.at < this.#earliestEnd(fact) && !this.#failsUnknown(fact)) lie('its validity had not ended');
        this.#judgeGivenUp(fact);
        if (fact.handovers.length === 0 && this.#plan.faults.lostAnswer === 0 && !this.#mayBeLost(fact)) {
          lie('it never left');
        }
        break;
      case 31:
        if (fact.bulk.canceledAt === null) lie('nobody cancelled it');
        if (taken && fact.handovers.some((handover) => handover.outcome === 'accepted')) lie('a carrier had taken it');
        break;
      case 100:
        if (!fact.links) lie('it has no content to fetch');
        break;
      default:
        if (fact.refused !== status) lie('nothing explains it');
    }
  }

  /** What no carrier may have ends with its bulk, soon and as that. */
  #judgeCanceled(fact: Fact, last: { at: number; status: number; error: number }): void {
    const { canceledAt } = fact.bulk;
    if (canceledAt === null || fact.refused !== 0) return;
    const open = (handover: Handover): boolean => handover.outcome !== 'deferred' && handover.outcome !== 'throttled';
    if (last.at <= this.#time.at(canceledAt) || fact.reports.length > 0 || fact.handovers.some(open)) return;
    const { n } = this.db
      .prepare(`SELECT count(*) AS n FROM attempt WHERE leader = ? AND outcome NOT IN ('deferred', 'throttled')`)
      .get(fact.leader) as { n: number };
    if (n > 0) return;
    const from = Math.max(canceledAt, ...fact.handovers.map((handover) => handover.endedAt ?? 0));
    const well = this.#wellMs(this.#time.at(from), last.at);
    if (well > CANCELED_MS) {
      const what = `${last.status} came ${Math.round(well / SECOND)} s after its bulk was cancelled`;
      this.fail('a cancelled bulk comes to its end', what, [fact.no]);
    }
    if (last.status === 31 && last.error === 4100) return;
    const ended = last.status === 15 && last.at >= this.#earliestEnd(fact);
    if (ended || (last.status === 100 && fact.links)) return;
    this.fail('a cancelled bulk comes to its end', `as ${last.status}/${last.error}`, [fact.no]);
  }

  /** A bulk as a customer was shown it, by what the store holds at that moment. */
  bulkSeen(bulk: Bulk): void {
    const known = this.bulks.find(0, { no: bulk.no });
    if (known) this.bulks.seen(known, bulk);
    else this.fail('the figures of a bulk are true', `nobody knows bulk ${bulk.no}`);
  }

  /** Its carrier's policy ends what is unknown at once. */
  #failsUnknown(fact: Fact): boolean {
    const { n } = this.db
      .prepare(
        `SELECT count(*) AS n FROM attempt a JOIN lane l ON l.no = a.lane WHERE a.leader = ? AND l.on_unknown = 'fail'`,
      )
      .get(fact.leader) as { n: number };
    return n > 0;
  }

  /** Messages that were never tried ended by turns that passed: each by one of its own, an interval after the last. */
  #judgePassed(): void {
    for (const bulk of this.bulks.all) {
      const [limit, changed] = bulk.limits;
      if (!limit || changed || bulk.pauses.length + bulk.moves.length > 0) continue;
      const intervalMs = limit.unitMs / limit.amount;
      let first = Number.POSITIVE_INFINITY;
      const turns: { at: number; no: number }[] = [];
      for (const fact of bulk.facts) {
        const last = fact.events.at(-1);
        if (fact.seq < limit.seq || fact.refused !== 0 || fact.group > 0) continue;
        first = Math.min(first, this.bulks.opens(fact) ?? first);
        const untried = fact.left === null && fact.handovers.length === 0 && last?.status === 15;
        if (untried) turns.push({ at: last.at - fact.validityMs, no: fact.no });
      }
      turns.sort((a, b) => a.at - b.at);
      turns.forEach(({ at, no }, n) => {
        const early = first + n * intervalMs - at;
        if (early > SECOND) {
          const what = `${n + 1} messages of bulk ${bulk.no} ended untried, the last ${Math.round(early)} ms before it had a turn`;
          this.fail('a validity begins at the turn', what, [no]);
        }
      });
    }
  }

  /** A process died or stood still: a claim may have been lost that was never used. */
  #mayBeLost(_fact: Fact): boolean {
    const { kill, pause, stop, storeDown, storeSlow } = this.#plan.faults;
    return kill + pause + stop + storeDown + storeSlow > 0;
  }

  #judgeUntried(fact: Fact): void {
    if (fact.legs) return;
    const start = this.#startOf(fact);
    if (start === null || fact.links) return;
    // A claim whose answer was lost may have been used, for all that the store can know: its policy decides.
    if (this.db.prepare('SELECT 1 FROM attempt WHERE leader = ?').get(fact.leader)) return;
    const well = this.#wellMs(start, Math.min(start + fact.validityMs, this.#now()), fact);
    if (well > FREE_MS) {
      this.fail('what may leave is tried (G5)', `nothing was in its way for ${well / MINUTE} min`, [fact.no]);
    }
  }

  /** Asked now and then: whether a lane has work and does nothing. */
  watch(): void {
    this.bulks.watch();
    for (const fact of this.#facts.values()) {
      if (fact.handovers.length === 0 && fact.events.at(-1)?.final !== true) this.#judgeUntried(fact);
    }
  }

  /** What could be tried again was, until the end. */
  #judgeGivenUp(fact: Fact): void {
    const end = this.#endOf(fact);
    const last = fact.handovers.at(-1);
    if (end === null || !last || fact.reports.length > 0 || last.outcome === 'accepted' || last.outcome === null)
      return;
    const { onUnknown } = last.carrier;
    // As the store has it: also what it took for lost.
    const { n: unknowns } = this.db
      .prepare(`SELECT count(*) AS n FROM attempt WHERE leader = ? AND outcome = 'unknown'`)
      .get(fact.leader) as { n: number };
    if (unknowns > 0 && (onUnknown === 'fail' || (onUnknown === 'hold' && unknowns > 1))) return;
    const well = this.#wellMs(this.#time.at(last.startedAt), end, fact);
    if (well > AGAIN_MS) {
      this.fail('what may be tried again is (G5)', `nothing was in its way for ${Math.round(well / MINUTE)} min`, [
        fact.no,
      ]);
    }
  }

  /** A report that came in time decides. */
  #judgeReports(fact: Fact, last: { at: number; status: number }): void {
    let first: { at: number; statuses: number[] } | null = null;
    for (const report of fact.reports) {
      const status = FINAL_OF[report.kind];
      const learntAt = this.#taken.get(report.id)?.learntAt ?? null;
      if (status === undefined || learntAt === null) continue;
      const at = Math.max(report.at, learntAt);
      // Reports are parked 48 h for the answer that teaches their id.
      if (at - report.at > 47 * HOUR) continue;
      if (!first || at < first.at) first = { at, statuses: [status] };
      else if (at === first.at) first.statuses.push(status);
    }
    if (!first || last.at < first.at) return;
    if (!first.statuses.includes(last.status) || last.at > first.at + SECOND) {
      this.fail('a timely report decides (G5)', `${first.statuses.join(' or ')} was reported before ${last.status}`, [
        fact.no,
      ]);
    }
  }
}

/** Error lines that tell of trouble outside. */
const EXPECTED_ERRORS = [
  'given up: the store did not take what became of an attempt',
  'carrier did not heed its time-out',
  'webhook: cannot be settled, it will be repeated',
  'clicks are lost: the store took none',
];

function isClear(handover: Handover): boolean {
  // A known outcome that no living process could settle is as good as unknown.
  if (handover.outcome === null || handover.outcome === 'unknown') return false;
  return handover.outcome !== 'accepted' && !handover.taken;
}

/** Below 0 = of the SMS leg. */
function leaderOf({ transactionId, sms }: Handover): number {
  const no = Number(/^[0-9a-f]{8}-(\d+)/.exec(transactionId)?.[1] ?? Number.NaN);
  return sms ? -no : no;
}

/** As the MMSC gave it. */
function plainId(id: string): string {
  return id.trim().replace(/^<|>$/g, '').replace(/@.*$/, '').toLowerCase();
}

function reportsIn(contentType: string, body: string): { to: string; status: number; error: number }[] {
  if (contentType !== 'application/xml') {
    const { results } = JSON.parse(body) as {
      results: { to: string; status: { id: number }; error: { id: number } }[];
    };
    return results.map(({ to, status, error }) => ({ to, status: status.id, error: error.id }));
  }
  return body
    .split('<result>')
    .slice(1)
    .map((text) => {
      const id = (name: string): number =>
        Number(new RegExp(`<${name}>.*?<id>(\\d+)</id>.*?</${name}>`, 's').exec(text)?.[1] ?? Number.NaN);
      return { to: /<to>([^<]*)<\/to>/.exec(text)?.[1] ?? '', status: id('status'), error: id('error') };
    });
}
