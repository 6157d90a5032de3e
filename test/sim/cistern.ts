/**
 * The store as its processes see it: the real synchronous engine on a file, behind connections that take time, lose answers,
 * are refused and die with their process. What arrives while a commit waits is one group, in the writer's order.
 *
 * Promises: an op is applied once, in a group with its neighbours, whatever becomes of its sender after it arrived; with one
 * node the engine dies with it (what had not been committed is gone) and `open` frees its leases; with several it lives on.
 * Oracles see every op with its result right after its commit. A planted bug may change ops, results and rows.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type Hint, type Store, StoreUnavailable } from '../../src/store/contract.ts';
import { type Engine, type Op, type OpResult, openEngine } from '../../src/store/sqlite/engine.ts';
import { createContentReads } from '../../src/store/sqlite/media.ts';
import { createReader } from '../../src/store/sqlite/read.ts';
import { createReads } from '../../src/store/sqlite/rows.ts';
import { writeVerbs } from '../../src/store/sqlite/verbs.ts';
import { Dice, HOUR, MINUTE, type Owner, type Scheduler, SECOND, type StoreTime } from './clockwork.ts';
import { momentOf, type Plan } from './plan.ts';

/** What a planted bug may do to the store. */
export interface StoreBug {
  /** Before an op is applied: may change rows with `db`, or the op; null = it is dropped and answered with `ok: answer`. */
  op?(op: Op, db: DatabaseSync, cistern: Cistern): Op | { answer: unknown };
  /** After the commit of an op. */
  done?(op: Op, result: OpResult, db: DatabaseSync): OpResult;
  /** When the engine of a single process dies or a node does. */
  died?(db: DatabaseSync): void;
  /** Wraps what a process gets as its store. */
  store?(store: Store, node: { now(): number }): Store;
}

/** Who asks. */
export interface Asker {
  owner: Owner;
  name: string;
  /** Calls without an answer. */
  open: number;
  onHint(kind: Hint['kind']): void;
}

export interface StoreWatch {
  committed(op: Op, result: OpResult, asker: Asker): void;
  /** After each commit that may have written events. */
  looked(): void;
  down(from: number, until: number): void;
}

interface Item {
  op: Op;
  asker: Asker;
  answer(result: OpResult): void;
}

const RETENTION_MS = 30 * 24 * HOUR;
/** Commits between two checkpoints. */
const CHECKPOINT = 1000;
const GROUP = 1024;
const RANK: Partial<Record<Op[0], number>> = { report: 0, settle: 0, release: 0, accept: 1, claim: 2, sweep: 4 };
/** Long after any sane queue: something asks without end. */
const QUEUE_MAX = 5000;

export class Cistern {
  readonly db: DatabaseSync;
  readonly askers = new Set<Asker>();
  /** Ops applied. */
  applied = 0;
  readonly #scheduler: Scheduler;
  readonly #time: StoreTime;
  readonly #plan: Plan;
  readonly #dice: Dice;
  readonly #bug: StoreBug;
  readonly #watch: StoreWatch;
  readonly #dir: string;
  readonly #file: string;
  readonly #bytes = new Map<string, Uint8Array>();
  readonly #reader: ReturnType<typeof createReader>;
  readonly #contents: ReturnType<typeof createContentReads>;
  readonly #lanes = new Map<number, { node: string; until: number }>();
  readonly #loose: boolean;
  #engine: Engine | null = null;
  #queue: Item[] = [];
  #scheduled = false;
  #downUntil = Number.NEGATIVE_INFINITY;
  #healed = false;
  #commits = 0;
  #quiet = { at: -1, until: 0 };

  constructor(scheduler: Scheduler, time: StoreTime, plan: Plan, bug: StoreBug, watch: StoreWatch) {
    this.#scheduler = scheduler;
    this.#time = time;
    this.#plan = plan;
    this.#dice = new Dice(plan.seed, 'cistern');
    this.#loose = this.#dice.chance(0.5);
    this.#bug = bug;
    this.#watch = watch;
    this.#dir = mkdtempSync(join(memoryDir(), 'postcard-sim-'));
    this.#file = join(this.#dir, 'sim.db');
    this.open();
    this.db = new DatabaseSync(this.#file);
    // The installation's name and key are random; here they come from the seed.
    const dice = new Dice(plan.seed, 'identity');
    const hex = (digits: number): string => Array.from({ length: digits }, () => dice.int(0, 15).toString(16)).join('');
    const put = this.db.prepare('INSERT INTO meta (k, v) VALUES (?, ?)');
    put.run('install', hex(8));
    put.run('idKey', hex(32));
    this.#reader = createReader(this.db, createReads(this.db));
    this.#contents = createContentReads(this.db);
    if (plan.faults.storeDown > 0) this.#planOutages();
  }

  /** The store's clock, epoch ms. */
  get time(): number {
    return Math.floor(this.#time.now);
  }

  /** Somebody sets the clock of its machine. False = not now, it is down. */
  jump(ms: number): boolean {
    if (!this.#engine) return false;
    // As a poll would: what it has shown once is behind it.
    this.#engine.apply([], this.#time.wall);
    this.#time.jump(ms);
    this.#quiet.at = -1;
    return true;
  }

  get up(): boolean {
    return this.#engine !== null && this.#scheduler.now >= this.#downUntil;
  }

  get queued(): number {
    return this.#queue.length;
  }

  /** Phase 2: nothing goes wrong here any more. */
  heal(): void {
    this.#healed = true;
    this.#downUntil = Number.NEGATIVE_INFINITY;
  }

  open(): void {
    if (this.#engine) return;
    this.#engine = openEngine({
      file: this.#file,
      retentionMs: RETENTION_MS,
      now: this.#time.wall,
      synchronous: 'OFF',
    });
    this.#quiet.at = -1;
  }

  /** The process that holds the engine dies: what waits for a commit is gone. */
  crash(): void {
    this.#queue = [];
    this.#engine?.close();
    this.#engine = null;
    this.#bug.died?.(this.db);
    this.#quiet.at = -1;
  }

  nodeDied(): void {
    this.#bug.died?.(this.db);
  }

  close(): void {
    this.#engine?.close();
    this.#engine = null;
    this.db.close();
    rmSync(this.#dir, { recursive: true });
  }

  /** Until when nothing in the store falls due; now or earlier = something is, or is in somebody's hands. */
  quietUntil(): number {
    if (this.#queue.length > 0) return 0;
    if (this.#quiet.at !== this.#commits) {
      const row = this.#quietQuery.get() as { due: number | null; open: number };
      const until = row.due === null ? Number.POSITIVE_INFINITY : this.#time.until(row.due);
      this.#quiet = { at: this.#commits, until: row.open > 0 ? 0 : until };
    }
    return this.#quiet.until;
  }

  #quietStatement: ReturnType<DatabaseSync['prepare']> | null = null;
  get #quietQuery(): ReturnType<DatabaseSync['prepare']> {
    this.#quietStatement ??= this.db.prepare(`SELECT
      (SELECT count(*) FROM flight) + (SELECT count(*) FROM hook WHERE leased = 1) +
        (SELECT count(*) FROM bulk WHERE drain IS NOT NULL) AS open,
      (SELECT min(due) FROM (
        SELECT min(due_at) AS due FROM turn WHERE due_at IS NOT NULL
        UNION ALL SELECT min(due_at) FROM endpoint WHERE due_at IS NOT NULL
        UNION ALL SELECT min(due_at) FROM media WHERE due_at IS NOT NULL
        UNION ALL SELECT min(look_at) FROM run WHERE look_at IS NOT NULL
        UNION ALL SELECT min(at) FROM deadline
        UNION ALL SELECT min(at) FROM recall)) AS due`);
    return this.#quietStatement;
  }

  // --------------------------------------------------------------------------------------------------------- the way

  /** A process's store. */
  connect(asker: Asker, listeners: ((hint: Hint) => void)[]): Store {
    this.askers.add(asker);
    const write = <Result>(...op: Op): Promise<Result> => this.#ask<Result>(asker, op);
    const read = <Result>(how: () => Result): Promise<Result> => this.#read(asker, how);
    return {
      ...writeVerbs(write),
      putContent: (hash, bytes) => read(() => void this.#bytes.set(hash, bytes)),
      content: (hash) => read(() => this.#bytes.get(hash) ?? null),
      uploadNames: (account, ids) => read(() => this.#contents.uploadNames(account, ids)),
      variant: (source, profile) => read(() => this.#contents.variant(source, profile)),
      webhookDeliveries: (filter) => read(() => this.#reader.deliveries(filter)),
      endpointList: (account) => read(() => this.#reader.endpoints(account)),
      inboundPart: (no, part) => read(() => this.#reader.part(no, part)),
      link: (no) => read(() => this.#reader.link(no)),
      clicked: (nos) => read(() => this.#reader.clicked(nos)),
      clicks: (account, scope) => read(() => this.#reader.clicks(account, scope)),
      numberList: (account) => read(() => this.#reader.numbers(account ?? null)),
      optOutList: (filter) => read(() => this.#reader.optOuts(filter)),
      logs: (filter) => read(() => this.#reader.logs(filter)),
      story: (account, id) => read(() => this.#reader.story(account, id)),
      feed: (account, after, limit) => read(() => this.#reader.feed(account, after, limit)),
      laneLease: (node, lanes, ttlMs) => read(() => this.#lease(node, lanes, ttlMs)),
      bulkGet: (account, bulk) => read(() => this.#reader.bulkGet(account, bulk, this.time)),
      bulkList: (account, limit, before) => read(() => this.#reader.bulkList(account, limit, before, this.time)),
      directory: (known) => read(() => this.#reader.directory(known)),
      quotaUsed: (counters) => read(() => this.#reader.quotaUsed(counters)),
      auditLog: (limit, before) => read(() => this.#reader.auditLog(limit, before)),
      keys: () => read(() => this.#reader.keys()),
      stats: () => read(() => this.#reader.stats(0)),
      onHint: (listener) => void listeners.push(listener),
      close: () => Promise.resolve(),
    };
  }

  /** Who serves which lane. In half of the runs nobody heeds it: a lease is efficiency, not safety. */
  #lease(node: string, lanes: number[], ttlMs: number): number[] {
    const { now } = this.#scheduler;
    if (ttlMs === 0 || lanes.length === 0) {
      for (const [lane, held] of this.#lanes) if (held.node === node) this.#lanes.delete(lane);
      return [];
    }
    if (this.#plan.nodes === 1 || this.#loose) return lanes;
    return lanes.filter((lane) => {
      const held = this.#lanes.get(lane);
      if (held && held.node !== node && held.until > now) return false;
      this.#lanes.set(lane, { node, until: now + ttlMs });
      return true;
    });
  }

  #read<Result>(asker: Asker, how: () => Result): Promise<Result> {
    asker.open++;
    return new Promise((resolve, reject) => {
      this.#scheduler.after(
        this.#dice.delay(0.5, 20),
        () => {
          asker.open--;
          if (this.up) resolve(how());
          else reject(new StoreUnavailable('the store is away'));
        },
        asker.owner,
      );
    });
  }

  #ask<Result>(asker: Asker, op: Op): Promise<Result> {
    asker.open++;
    return new Promise<Result>((resolve, reject) => {
      const give = (result: OpResult, ms: number): void => {
        this.#scheduler.after(
          ms,
          () => {
            asker.open--;
            if ('ok' in result) resolve(result.ok as Result);
            else if ('unavailable' in result) reject(new StoreUnavailable(result.unavailable));
            else reject(new Error(result.bug));
          },
          asker.owner,
        );
      };
      const answer = (result: OpResult): void => {
        const { lostAnswer } = this.#plan.faults;
        const lost = op[0] === 'accept' ? 0.3 : 0.08;
        if ('ok' in result && lostAnswer > 0 && !this.#healed && this.#dice.chance(lost * lostAnswer)) {
          this.#scheduler.trace(`answer of ${op[0]} to ${asker.name} is lost`);
          give({ unavailable: 'the truth could not be learnt' }, this.#dice.between(10, 5000));
        } else give(result, this.#dice.delay(0.3, 20));
      };
      this.#scheduler.after(this.#dice.delay(0.3, 20), () => {
        // With one node the engine is in the process: what is on its way dies with it.
        if (asker.owner.dead && this.#plan.nodes === 1) return;
        if (this.#engine === null) return answer({ unavailable: 'the store is away' });
        this.#queue.push({ op, asker, answer });
        if (this.#queue.length > QUEUE_MAX) throw new Error('the queue of the store grows without end');
        this.#schedule();
      });
    });
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const slow = this.#healed ? 0 : this.#plan.faults.storeSlow;
    const ms = slow > 0 && this.#dice.chance(0.1 * slow) ? this.#dice.between(50, 3000) : this.#dice.delay(0.5, 10);
    this.#scheduler.after(ms, () => this.#commit());
  }

  #commit(): void {
    this.#scheduled = false;
    const engine = this.#engine;
    if (engine === null || this.#queue.length === 0) return;
    const group = this.#queue.splice(0, GROUP);
    if (this.#queue.length > 0) this.#schedule();
    if (!this.up) {
      for (const item of group) item.answer({ unavailable: 'the store is away' });
      return;
    }
    group.sort((a, b) => (RANK[a.op[0]] ?? 3) - (RANK[b.op[0]] ?? 3));
    const results = this.#bug.op || this.#bug.done ? this.#applyBuggy(engine, group) : this.#apply(engine, group);
    this.#commits++;
    this.applied += group.length;
    group.forEach((item, index) => {
      this.#watch.committed(item.op, results[index] as OpResult, item.asker);
    });
    this.#watch.looked();
    group.forEach((item, index) => {
      item.answer(results[index] as OpResult);
    });
    this.#hint(engine.hints());
    if (this.#commits % CHECKPOINT === 0) this.db.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  }

  #apply(engine: Engine, group: Item[]): OpResult[] {
    return engine.apply(
      group.map((item) => item.op),
      this.#time.wall,
    );
  }

  /** One op a commit, so that the bug finds the rows as the op will. */
  #applyBuggy(engine: Engine, group: Item[]): OpResult[] {
    return group.map((item) => {
      const changed = this.#bug.op?.(item.op, this.db, this) ?? item.op;
      const result: OpResult = Array.isArray(changed)
        ? (engine.apply([changed], this.#time.wall)[0] as OpResult)
        : { ok: changed.answer };
      return this.#bug.done?.(item.op, result, this.db) ?? result;
    });
  }

  #hint(kinds: string[]): void {
    for (const kind of kinds as Hint['kind'][]) {
      for (const asker of this.askers) {
        if (asker.owner.dead) {
          this.askers.delete(asker);
          continue;
        }
        const { lostHint } = this.#plan.faults;
        if (lostHint > 0 && !this.#healed && this.#dice.chance(lostHint)) continue;
        this.#scheduler.after(this.#dice.delay(0.3, 20), () => asker.onHint(kind), asker.owner);
      }
    }
  }

  #planOutages(): void {
    const strength = this.#plan.faults.storeDown;
    for (let n = this.#dice.int(1, 1 + Math.round(3 * strength)); n > 0; n--) {
      const from = momentOf(this.#plan, this.#dice);
      const ms = this.#dice.chance(0.3)
        ? this.#dice.between(1, 60) * MINUTE * strength
        : this.#dice.between(1, 90) * SECOND;
      this.#scheduler.at(from, () => {
        if (this.#healed) return;
        this.#scheduler.trace(`store down for ${Math.round(ms)} ms`);
        this.#downUntil = Math.max(this.#downUntil, this.#scheduler.now + ms);
        this.#watch.down(this.#scheduler.now, this.#downUntil);
      });
    }
  }
}

/** A directory in memory where there is one: the simulation is about order, not about disks. */
function memoryDir(): string {
  try {
    const probe = mkdtempSync('/dev/shm/postcard-sim-');
    rmSync(probe, { recursive: true });
    return '/dev/shm';
  } catch {
    return tmpdir();
  }
}
