/**
 * Messages with two legs and second carriers, simulated: seeded histories over the store alone, with carriers that refuse, defer,
 * lose answers, report early, late, twice or never, a process that dies, bulks that are cancelled. Beside `sim.ts`, which plays
 * the whole product on one leg: here few messages meet all that two legs can do to each other.
 *
 * Promises: the same seed and bug give the same history; `null` = every promise was kept. The oracles know what the carriers
 * took, and when; they do not read the store's tables.
 */
import { DatabaseSync } from 'node:sqlite';
import type { Ways } from '../../src/domain/failover.ts';
import type { CarrierReport, Outcome, ReportKind } from '../../src/domain/submission.ts';
import type { Claim } from '../../src/store/contract.ts';
import { createDesk, HOUR, LEASE, MINUTE, numbers, SECOND } from '../conformance/desk.ts';
import { type ControlledStore, openEngineStore } from '../conformance/engine-store.ts';
import { Dice } from './clockwork.ts';

/** A defect: what is done to the rows behind the engine's back, in its own transactions. */
export interface LegBug {
  name: string;
  what: string;
  /** Where it was found last; the search begins there. */
  seed: number;
  /** Triggers, made once. */
  sql: string;
}

export const LEG_BUGS: readonly LegBug[] = [
  {
    name: 'failover-again',
    seed: 3,
    what: 'an SMS that was refused is followed by another one',
    sql: `CREATE TRIGGER again AFTER UPDATE OF state ON message WHEN new.leg = 1 AND new.state = 4 AND new.status = 4 BEGIN
      UPDATE message SET state = 0, status = 26, done_at = NULL WHERE no = new.no;
      INSERT OR REPLACE INTO retry (leader, line, run, members, sent, generation, attempts, held, valid_until, due_at)
        SELECT -new.no, line, no, 1, 1, 9, 1, 0, 9e15, opens_at FROM run WHERE no = -new.no; END`,
  },
  {
    name: 'failover-after-cancel',
    seed: 64,
    what: 'an SMS follows although its bulk was cancelled',
    sql: `CREATE TRIGGER cancelled AFTER UPDATE OF state ON message WHEN new.leg = 1 AND new.status = 31 BEGIN
      UPDATE message SET state = 0, status = 26, done_at = NULL WHERE no = new.no;
      UPDATE run SET next = no, due_at = opens_at, line = (SELECT l.no FROM line l WHERE l.lane =
        (SELECT o.lane FROM line o WHERE o.no = run.line) ORDER BY l.bulk IS NOT NULL LIMIT 1) WHERE no = -new.no;
      UPDATE line SET due_at = 0, paused = 0 WHERE no = (SELECT line FROM run WHERE no = -new.no);
      UPDATE turn SET due_at = 0; END`,
  },
  {
    name: 'outcome-told-as-final',
    seed: 1,
    what: 'the outcome of the MMS that an SMS follows is told as final',
    sql: `CREATE TRIGGER told AFTER INSERT ON event WHEN new.leg = 2 BEGIN
      INSERT INTO pull (account, event, message, spec, bulk, until) SELECT new.account, new.no, m.no, m.spec, 0, 9e15
        FROM message m WHERE m.no = new.message; END`,
  },
  {
    name: 'one-validity',
    seed: 3,
    what: 'the end of the validity of the MMS ends the SMS',
    sql: `CREATE TRIGGER short AFTER INSERT ON run WHEN new.no < 0 BEGIN
      UPDATE run SET look_at = new.opens_at + 1, validity = 1 WHERE no = new.no; END`,
  },
  {
    name: 'withdrawn-too-late',
    seed: 5,
    what: 'an SMS that has left is withdrawn when the MMS is reported delivered',
    sql: `CREATE TRIGGER forget AFTER INSERT ON attempt WHEN new.leader < 0 BEGIN DELETE FROM attempt WHERE leader = new.leader; END;
      CREATE TRIGGER forgotten AFTER INSERT ON carrier_ref WHEN new.leader < 0 BEGIN
        UPDATE message SET state = 0 WHERE no = -new.leader; END`,
  },
  {
    name: 'no-failover',
    seed: 1,
    what: 'no SMS follows an MMS that ends by a report',
    sql: `CREATE TRIGGER never AFTER UPDATE OF leg ON message WHEN new.leg = 1 AND old.state = 1 BEGIN
      UPDATE message SET leg = 0, state = 4, status = 9, error = 27, done_at = 1 WHERE no = new.no;
      DELETE FROM run WHERE no = -new.no; END`,
  },
];

/** What is known of a message. */
interface Fact {
  no: number;
  sms: boolean;
  bulk: string | null;
  /** By leg: when the carriers were handed it, and what they said or took. */
  handed: { at: number; leg: 0 | 1; taken: boolean }[];
  /** What was reported, by leg, also before the answer to the submission. */
  told: [Set<ReportKind>, Set<ReportKind>];
  smsMs: number;
}

const START = Date.UTC(2026, 10, 24, 12);
const TICK_MS = 2 * SECOND;

/** Plays one history; null = every promise was kept. */
export async function playLegs(seed: number, file: string, bug?: LegBug): Promise<string | null> {
  const store = openEngineStore(file, { now: START });
  if (bug) {
    const db = new DatabaseSync(file);
    db.exec(bug.sql);
    db.close();
    store.crash();
  }
  try {
    return await new Legs(seed, store).play();
  } finally {
    await store.close();
  }
}

interface Lane {
  no: number;
  name: string;
  /** Drops repeated transactions. */
  dedups: boolean;
}

class Legs {
  readonly #dice: Dice;
  readonly #store: ControlledStore;
  readonly #facts = new Map<number, Fact>();
  readonly #cancelled = new Map<string, number>();
  readonly #later: { at: number; run: () => Promise<void> }[] = [];
  readonly #lanes: Lane[] = [];
  readonly #known = new Set<string>();
  #ids = 0;
  #life = 0;

  constructor(seed: number, store: ControlledStore) {
    this.#dice = new Dice(seed, 'legs');
    this.#store = store;
  }

  async play(): Promise<string | null> {
    const dice = this.#dice;
    const store = this.#store;
    for (const name of ['a', 'b', 'c', 'd']) {
      const onUnknown = dice.pick(['hold', 'retry', 'fail'] as const);
      const no = await store.lane(name, { onUnknown, reports: true });
      this.#lanes.push({ no, name, dedups: dice.chance(0.5) });
    }
    await this.#send();
    for (let at = 0; at < 6 * HOUR; at += TICK_MS) {
      store.advance(TICK_MS);
      const due = this.#later.filter((one) => one.at <= store.now());
      for (const one of due) {
        this.#later.splice(this.#later.indexOf(one), 1);
        await one.run();
      }
      if (dice.chance(0.001) && at < 2 * HOUR) {
        this.#life++;
        store.crash();
      }
      // Now and then, as processes do; always when something came.
      if (at % (10 * SECOND) !== 0 && due.length === 0 && at > MINUTE) continue;
      await this.#serve();
      for (let step = 0; step < 50 && (await store.sweep()); step++);
      if (this.#later.length === 0 && at > HOUR && (await this.#idle())) break;
    }
    return this.#judge();
  }

  /** Requests with their ways. */
  async #send(): Promise<void> {
    const dice = this.#dice;
    const desk = createDesk({ store: this.#store } as unknown as Parameters<typeof createDesk>[0]);
    const [a, b, c, d] = this.#lanes.map(({ no }) => no) as [number, number, number, number];
    let from = 1;
    for (let n = dice.int(2, 6); n > 0; n--) {
      const size = dice.int(1, 5);
      const smsMs = dice.int(1, 30) * MINUTE;
      const sms = dice.chance(0.85);
      const ways: Ways = {
        ...(dice.chance(0.5) ? { alts: [b] } : {}),
        ...(sms ? { sms: { lane: c, validityMs: smsMs, ...(dice.chance(0.5) ? { alts: [d] } : {}) } } : {}),
      };
      const bulk = dice.chance(0.5) ? `bulk-${n}` : null;
      const groups = size > 1 && dice.chance(0.3) ? { groups: [size] } : {};
      const { nos } = await desk.accept({
        lane: a,
        to: numbers(size, from),
        validityMs: dice.int(1, 40) * MINUTE,
        ...(bulk === null ? {} : { bulkId: bulk }),
        ...(bulk !== null && dice.chance(0.3) ? { every: dice.int(1, 90) * SECOND } : {}),
        ...groups,
        ways,
      });
      from += size;
      for (const no of nos) this.#facts.set(no, { no, sms, bulk, handed: [], told: [new Set(), new Set()], smsMs });
      if (bulk !== null && dice.chance(0.3)) {
        this.#after(dice.between(1, 30) * MINUTE, async () => {
          const done = await this.#store.bulkSteer(1, { id: bulk }, [{ kind: 'cancel' }]);
          if (done.kind === 'done') this.#cancelled.set(bulk, this.#store.now());
        });
      }
    }
  }

  #after(ms: number, run: () => Promise<void>): void {
    this.#later.push({ at: this.#store.now() + ms, run });
  }

  async #serve(): Promise<void> {
    for (const lane of this.#lanes) {
      const { claims } = await this.#store.claim(lane.no, 8, LEASE);
      for (const claim of claims) this.#submit(lane, claim);
    }
  }

  /** One attempt: what the carrier does, when its answer comes, and what it reports. */
  #submit(lane: Lane, claim: Claim): void {
    const dice = this.#dice;
    const leg = claim.leader < 0 ? 1 : 0;
    const life = this.#life;
    const at = this.#store.now();
    const roll = dice.float();
    const elsewhere = dice.chance(0.5) ? ({ elsewhere: true } as const) : {};
    const error = { id: 15000, words: 'simulated' };
    let outcome: Outcome;
    let taken = false;
    const id = `${lane.name}-${this.#ids++}`;
    if (roll < 0.2) outcome = { kind: 'refused', error, ...elsewhere };
    else if (roll < 0.35) outcome = { kind: 'deferred', error, ...elsewhere };
    else if (roll < 0.4) outcome = { kind: 'throttled', retryAfterMs: 5_000 };
    else if (roll < 0.45) outcome = { kind: 'contentFailed', error };
    else if (roll < 0.55) {
      outcome = { kind: 'unknown', error };
      taken = dice.chance(0.5);
    } else {
      outcome = { kind: 'accepted', carrierMessageId: id };
      taken = true;
    }
    if (leg === 1 && outcome.kind === 'contentFailed') outcome = { kind: 'refused', error };
    const transaction = `${lane.name} ${claim.leader} ${claim.generation}`;
    const fresh = taken && !(lane.dedups && this.#known.has(transaction));
    if (taken) this.#known.add(transaction);
    for (const { no } of claim.members) this.#facts.get(no)?.handed.push({ at, leg, taken });
    const settle = { lane: lane.no, token: claim.token, leader: claim.leader, outcome, startedAt: at, tookMs: 5 };
    this.#after(dice.chance(0.9) ? dice.int(0, 20) * SECOND : 2 * LEASE, async () => {
      // What a dead process knew is lost.
      if (life === this.#life || dice.chance(0.3)) await this.#store.settle(settle);
    });
    if (!fresh) return;
    for (const { no, to } of claim.members) {
      const kinds: ReportKind[] = [dice.pick(['retrieved', 'unreachable', 'expired', 'deferred'] as const)];
      if (dice.chance(0.3)) kinds.push(dice.pick(['retrieved', 'unreachable'] as const));
      if (dice.chance(0.15)) kinds.length = 0;
      for (const kind of kinds) {
        const report: CarrierReport = { carrier: lane.name, carrierMessageId: id, addresses: [to], kind, words: kind };
        this.#after(dice.delay(20 * SECOND, 20 * MINUTE), async () => {
          this.#facts.get(no)?.told[leg].add(kind);
          await this.#store.report(report);
        });
      }
    }
  }

  async #idle(): Promise<boolean> {
    for (const { no } of this.#facts.values()) {
      if ((await this.#store.story(1, { no }))?.message.doneAt === null) return false;
    }
    return true;
  }

  /** What was promised, of each message. */
  async #judge(): Promise<string | null> {
    const pulled = new Map<number, { status: number; leg: number }[]>();
    for (const { no, status, leg } of (await this.#store.takeReports({ account: 1, limit: 10_000 })).rows) {
      pulled.set(no, [...(pulled.get(no) ?? []), { status, leg }]);
    }
    for (const fact of this.#facts.values()) {
      const wrong = await this.#wrong(fact, pulled.get(fact.no) ?? []);
      if (wrong !== null) return `message ${fact.no}: ${wrong}`;
    }
    return null;
  }

  async #wrong(fact: Fact, finals: { status: number; leg: number }[]): Promise<string | null> {
    const story = await this.#store.story(1, { no: fact.no });
    if (!story) return 'it has no story';
    const { message, events } = story;
    if (message.doneAt === null) return 'it has no final status';
    if (finals.length !== 1) return `${finals.length} final reports`;
    const { leg } = message;
    const on = (one: 0 | 1) => fact.handed.filter((handover) => handover.leg === one);
    const [mms, sms] = [on(0), on(1)];
    if (finals[0]?.status !== message.status || finals[0]?.leg !== leg) return 'its report is not its status';
    const opened = events.filter(({ words }) => words.includes('the SMS failover begins'));
    if (opened.length > 1) return 'the failover began twice';
    const begun = opened[0]?.at ?? null;
    if (sms.some(({ at }) => begun === null || at < begun)) return 'an SMS left before the MMS had ended';
    if (begun !== null && mms.some(({ at }) => at > begun)) return 'an MMS left after the SMS leg had begun';
    if (!fact.sms && sms.length > 0) return 'an SMS that nobody asked for';
    const cancelled = fact.bulk === null ? undefined : this.#cancelled.get(fact.bulk);
    if (cancelled !== undefined && [...mms, ...sms].some(({ at }) => at > cancelled)) return 'sent after its cancel';
    if (cancelled !== undefined && begun !== null && begun > cancelled) return 'the failover began after the cancel';
    if ([...mms, ...sms].some(({ at }) => at > (message.doneAt as number))) return 'sent after its end';
    // The truth of the end.
    if (sms.some(({ taken }) => taken) && leg === 0) return 'its SMS has left, and its report speaks of the MMS';
    if (leg === 1 && message.status === 5 && !fact.told[1].has('retrieved')) return 'nobody reported the SMS delivered';
    if (leg === 0 && message.status === 5 && ![...mms].some(({ taken }) => taken)) return 'nobody took the MMS';
    const failed = [4, 9, 15, 100].includes(message.status);
    if (leg === 0 && fact.sms && failed && cancelled === undefined) return 'the SMS failover did not follow';
    if (leg === 1 && message.status === 15 && message.error === 4100 && cancelled === undefined) {
      // Never tried: its own validity was over, not that of the MMS.
      if ((message.doneAt as number) < (begun ?? 0) + fact.smsMs) return 'the SMS ended before its own validity';
    }
    return null;
  }
}
