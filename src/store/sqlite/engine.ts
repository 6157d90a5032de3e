/**
 * The embedded engine: `apply(ops, now) -> results`, synchronous, one transaction and one sync for the whole group. It
 * knows nothing of threads, so tests and the simulation run the very same code.
 *
 * Promises: results are returned after the commit (WAL, synchronous=FULL, both verified at open); an expected conflict is
 * a result of its op; an unexpected error rolls the group back and its ops are run again one by one, so one bad op
 * harms nobody else. Fails: a full disk makes results `unavailable`, nothing of the group has happened.
 */
import { randomBytes } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import type { AdminTerms, Deed, NewSession, Take } from '../../domain/accounts.ts';
import type { Channel } from '../../domain/routing.ts';
import type { CarrierReport } from '../../domain/submission.ts';
import type {
  Accept,
  BulkChange,
  BulkName,
  ClickIn,
  EndpointPut,
  HookKind,
  InboundIn,
  Key,
  MediaOutcome,
  MessageFilter,
  OperatorChange,
  Rearm,
  ReplayRange,
  Settle,
  Upload,
  Variant,
  WebhookSettle,
} from '../contract.ts';
import { createAccept } from './accept.ts';
import { createAccounts } from './accounts.ts';
import { createBulks, createTallies } from './bulk.ts';
import { createCallBacks } from './callback.ts';
import { createClaim } from './claim.ts';
import { createDeliveries } from './deliveries.ts';
import { createEvents } from './events.ts';
import { createFailover } from './failover.ts';
import { createInbound } from './inbound.ts';
import { createLines } from './lines.ts';
import { createLinks } from './links.ts';
import { createMedia } from './media.ts';
import { createTakeReports } from './read.ts';
import { createReroute } from './reroute.ts';
import { createRetain } from './retain.ts';
import { createReads } from './rows.ts';
import { createRuns } from './runs.ts';
import { migrate } from './schema.ts';
import { createSettle } from './settle.ts';
import { createSought } from './sought.ts';
import { execute, prepare, type Tx, type Watch, watchStatements } from './tx.ts';

/** A write verb and its argument, as it crosses threads. */
export type Op =
  | ['reserve', number]
  | ['lane', { carrier: string; shard?: number; onUnknown: 'hold' | 'retry' | 'fail'; reports: boolean }]
  | ['accept', Accept]
  | ['putUpload', Upload]
  | ['putVariant', { source: string; profile: string; variant: Variant }]
  | ['claim', { lane: number; limit: number; leaseMs: number }]
  | ['settle', Settle]
  | ['release', { claims: { token: number; leader: number }[]; until: number; elsewhere?: boolean }]
  | ['report', CarrierReport]
  | ['sweep', null]
  | ['mediaNext', { limit: number; leaseMs: number }]
  | ['mediaSettle', { job: { spec: number; segment: number }; outcome: MediaOutcome }]
  | ['webhookNext', { limit: number; leaseMs: number }]
  | ['webhookSettle', WebhookSettle]
  | ['takeReports', MessageFilter]
  | ['rearm', Rearm]
  | ['webhookReplay', { account: number; no: number }]
  | ['webhookReplayRange', ReplayRange]
  | ['endpointPut', EndpointPut]
  | ['endpointDelete', { account: number; kind: HookKind; url: string }]
  | ['inbound', InboundIn]
  | ['takeInbox', { account: number; limit: number; entity?: string; application?: string }]
  | ['optOutPut', { account: number; list: { sender: string; destination: string }[] }]
  | ['optOutDelete', { account: number; list: { sender: string; destination: string }[] }]
  | ['callBacks', { lane: number; limit: number }]
  | ['calledBack', { leader: number; members: number; words: string }]
  | ['reroute', { from: string; to: string; channel?: Channel | undefined }]
  | ['bulkSteer', { account: number; bulk: BulkName; changes: BulkChange[] }]
  | ['putKey', { key: Key; replace: boolean }]
  | ['administer', { changes: OperatorChange[]; deed: Deed; terms?: AdminTerms }]
  | ['sessionPut', NewSession]
  | ['sessionUse', string]
  | ['sessionDelete', string]
  | ['quota', Take[]]
  | ['click', ClickIn[]]
  | ['identity', null];

export type OpResult = { ok: unknown } | { unavailable: string } | { bug: string };

export interface EngineOptions {
  /** Path of the database file, or ':memory:' for tests. */
  file: string;
  /** Finished messages leave after this many ms. */
  retentionMs: number;
  /** At most this many finished messages are kept; default all. */
  retentionMessages?: number;
  /** Wall clock at open (epoch ms). */
  now: number;
  /** FULL unless a bench shows what the sync costs; the server never lowers it. */
  synchronous?: 'FULL' | 'NORMAL' | 'OFF';
  /** Largest size of the file in pages of 4096 bytes (tests of a full disk); default SQLite's own bound. */
  maxPages?: number;
  /** For tests: messages of a block of marks (sought.ts), fewer than usual. */
  soughtBlock?: number;
  /** For tests: sees the statements. */
  watch?: Watch;
}

export interface Engine {
  apply(ops: Op[], now: number): OpResult[];
  /** Wake-ups of the last apply; cleared by reading. */
  hints(): string[];
  /** What SQLite says it does, read back. */
  durability(): Durability;
  close(): void;
}

/** A WAL that was written back is cut to this when it is used again; without it, it would keep its largest size. */
const WAL_KEPT_BYTES = 16 * 1024 * 1024;
/** Places of `seq` written ahead: a crash skips at most these. */
const SEQ_BLOCK = 1_000_000;
/** Messages and runs that one step of the sweep brings a steering to. */
const STEP = 500;

/** Open (and bring up to date) a database. Throws SchemaTooNew, or what SQLite says about the file. */
export function openEngine(options: EngineOptions): Engine {
  const db = new DatabaseSync(options.file);
  try {
    const level = options.synchronous ?? 'FULL';
    db.exec(`PRAGMA synchronous = ${level}; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = OFF;
      PRAGMA wal_autocheckpoint = 0; PRAGMA journal_size_limit = ${WAL_KEPT_BYTES}; PRAGMA temp_store = MEMORY;
      PRAGMA cache_size = -65536; PRAGMA busy_timeout = 2000; PRAGMA mmap_size = 0`);
    if (options.file !== ':memory:') verifyDurability(db, level);
    migrate(db);
    if (options.maxPages) db.exec(`PRAGMA max_page_count = ${Math.floor(options.maxPages)}`);
    if (options.watch) watchStatements(db, options.watch);
    return createEngine(db, options);
  } catch (error) {
    db.close();
    throw error;
  }
}

export interface Durability {
  /** `wal`, or `memory` for tests. */
  journalMode: string;
  /** 2 = FULL: a sync with every commit. */
  synchronous: number;
}

function durability(db: DatabaseSync): Durability {
  return {
    journalMode: (db.prepare('PRAGMA journal_mode').get() as { journal_mode: string }).journal_mode,
    synchronous: (db.prepare('PRAGMA synchronous').get() as { synchronous: number }).synchronous,
  };
}

/** G1: a build of SQLite that would not sync is refused, not trusted. */
export function verifyDurability(db: DatabaseSync, level: 'FULL' | 'NORMAL' | 'OFF'): void {
  const wanted = { FULL: 2, NORMAL: 1, OFF: 0 }[level];
  const { journalMode, synchronous } = durability(db);
  if (journalMode !== 'wal' || synchronous !== wanted) {
    throw new Error(`unsafe store: journal_mode=${journalMode} synchronous=${synchronous}, wanted wal and ${wanted}`);
  }
}

function createEngine(db: DatabaseSync, options: EngineOptions): Engine {
  const hints = new Set<string>();
  const meta = {
    get: prepare<{ v: string | number }>(db, 'SELECT v FROM meta WHERE k = ?'),
    put: prepare(db, 'INSERT OR REPLACE INTO meta (k, v) VALUES (?, ?)'),
  };
  // The store's clock never goes back: max(persisted high water, wall).
  let highWater = Math.max(Number(meta.get.get('clock')?.v ?? 0), 0);
  let persisted = highWater;
  let behind = false;
  // Starts above every place given before: a committed place is never above the bound that was committed with it.
  let seq = Number(meta.get.get('seq')?.v ?? 0);
  let seqBound = seq;
  const tx: Tx = {
    db,
    now: Math.max(options.now, highWater),
    seq: () => ++seq,
    hint: (kind) => hints.add(kind),
  };
  const reads = createReads(db);
  const lines = createLines(tx);
  const tallies = createTallies(db);
  const events = createEvents(tx, reads, tallies);
  const runs = createRuns(tx);
  events.setFailover(createFailover(tx, lines, runs));
  const callBacks = createCallBacks(tx, events);
  const bulks = createBulks(tx, lines, runs, events, tallies, callBacks);
  const inbound = createInbound(tx, lines, events);
  const deliveries = createDeliveries(tx, events);
  const links = createLinks(tx, events);
  const accept = createAccept(tx, lines, runs, events, tallies, inbound, links, bulks.generated);
  const claim = createClaim(tx, lines, runs, reads, inbound, events);
  const reroute = createReroute(tx, lines, runs);
  const settle = createSettle(tx, lines, runs, events);
  const media = createMedia(tx, lines, runs);
  const retain = createRetain(tx, events, links, {
    ms: options.retentionMs,
    most: options.retentionMessages ?? Number.POSITIVE_INFINITY,
  });
  const sought = createSought(tx, options.soughtBlock);
  const takeReports = createTakeReports(tx, reads);
  const accounts = createAccounts(tx, deliveries);
  const q = {
    keyDrop: prepare(db, 'DELETE FROM key WHERE account = ? AND label = ? AND hash <> ?'),
    keyPut: prepare(
      db,
      `INSERT INTO key (hash, account, label) VALUES (?, ?, ?)
       ON CONFLICT (hash) DO UPDATE SET account = excluded.account, label = excluded.label`,
    ),
    account: prepare(db, 'INSERT OR IGNORE INTO account (no, name) VALUES (?, ?)'),
  };

  function identity(): { install: string; idKey: string } {
    if (!meta.get.get('install')) {
      meta.put.run('install', randomBytes(4).toString('hex'));
      meta.put.run('idKey', randomBytes(16).toString('hex'));
    }
    return { install: String(meta.get.get('install')?.v), idKey: String(meta.get.get('idKey')?.v) };
  }

  function run(op: Op): unknown {
    switch (op[0]) {
      case 'accept':
        return accept(op[1]);
      case 'report':
        return settle.report(op[1]);
      case 'settle':
        return settle.settle(op[1]);
      case 'claim':
        return claim(op[1].lane, op[1].limit, op[1].leaseMs);
      case 'webhookNext':
        return events.webhookNext(op[1].limit, op[1].leaseMs);
      case 'webhookSettle':
        return events.webhookSettle(op[1]);
      case 'release':
        return settle.release(op[1].claims, op[1].until, op[1].elsewhere);
      case 'sweep': {
        const steered = bulks.sweep(STEP) >= STEP;
        const more = settle.sweep();
        const left = [callBacks.sweep() || retain(), sought()].includes(true);
        return left || more || steered;
      }
      case 'reserve': {
        const first = Number(meta.get.get('next')?.v ?? 1);
        meta.put.run('next', first + op[1]);
        return first;
      }
      case 'lane':
        return lines.lane(op[1].carrier, op[1].shard ?? 0, op[1].onUnknown, op[1].reports);
      case 'putUpload':
        media.putUpload(op[1]);
        return null;
      case 'putVariant':
        media.putVariant(op[1].source, op[1].profile, op[1].variant);
        return null;
      case 'mediaNext':
        return media.next(op[1].limit, op[1].leaseMs);
      case 'mediaSettle':
        media.settle(op[1].job, op[1].outcome);
        return null;
      case 'takeReports':
        return takeReports(op[1]);
      case 'rearm':
        return deliveries.rearm(op[1]);
      case 'webhookReplay':
        return deliveries.replay(op[1].account, op[1].no);
      case 'webhookReplayRange':
        return deliveries.replayRange(op[1]);
      case 'endpointPut':
        return deliveries.endpointPut(op[1]);
      case 'endpointDelete':
        return deliveries.endpointDelete(op[1].account, op[1].kind, op[1].url);
      case 'inbound':
        return inbound.inbound(op[1]);
      case 'takeInbox':
        return inbound.takeInbox(op[1]);
      case 'optOutPut':
        return inbound.optOutPut(op[1].account, op[1].list);
      case 'optOutDelete':
        return inbound.optOutDelete(op[1].account, op[1].list);
      case 'callBacks':
        return callBacks.take(op[1].lane, op[1].limit);
      case 'calledBack':
        callBacks.note(op[1].leader, op[1].members, op[1].words);
        return null;
      case 'reroute':
        return reroute(op[1].from, op[1].to, op[1].channel);
      case 'bulkSteer':
        return bulks.steer(op[1].account, op[1].bulk, op[1].changes);
      case 'putKey':
        q.account.run(op[1].key.account, `account ${op[1].key.account}`);
        if (op[1].replace) q.keyDrop.run(op[1].key.account, op[1].key.label, op[1].key.hash);
        q.keyPut.run(op[1].key.hash, op[1].key.account, op[1].key.label);
        accounts.bump();
        hints.add('keys');
        return null;
      case 'administer':
        if (op[1].changes.some(({ kind }) => kind === 'number' || kind === 'numberDrop')) events.forget();
        return accounts.administer(op[1].changes, op[1].deed, op[1].terms ?? {});
      case 'sessionPut':
        accounts.sessionPut(op[1]);
        return null;
      case 'sessionUse':
        return accounts.sessionUse(op[1]);
      case 'sessionDelete':
        return accounts.sessionDelete(op[1]);
      case 'quota':
        return accounts.quota(op[1]);
      case 'click':
        links.click(op[1]);
        return null;
      case 'identity':
        return identity();
    }
  }

  /** One transaction. Throws after rolling back. */
  function group(ops: Op[]): OpResult[] {
    execute(db, 'BEGIN IMMEDIATE');
    try {
      const results = ops.map((op) => ({ ok: run(op) }));
      tallies.flush();
      events.flush();
      // Every second, so that a clock set back across a restart cannot move the store's time back by more.
      // Where the wall clock went back, at once: behind a crash the clock would follow it.
      const tick = tx.now - persisted >= 1000 || (behind && persisted < tx.now);
      if (tick) meta.put.run('clock', tx.now);
      const bound = seq > seqBound ? seq + SEQ_BLOCK : seqBound;
      if (bound > seqBound) meta.put.run('seq', bound);
      execute(db, 'COMMIT');
      if (tick) persisted = tx.now;
      seqBound = bound;
      return results;
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK');
      lines.forget();
      events.rolledBack();
      inbound.forget();
      tallies.forget();
      settle.forget();
      throw error;
    }
  }

  // What was in flight when the process died is known to nobody now (G12, "at once on SQLite").
  db.exec('BEGIN IMMEDIATE');
  settle.freeLeases();
  events.freeLeases();
  media.freeLeases();
  db.exec('COMMIT');

  return {
    apply(ops, now) {
      behind = now < highWater;
      highWater = Math.max(highWater, now);
      tx.now = highWater;
      try {
        return group(ops);
      } catch (error) {
        if (isUnavailable(error)) return ops.map(() => ({ unavailable: words(error) }));
        if (ops.length === 1) return [{ bug: words(error) }];
        return ops.map((op) => {
          try {
            return group([op])[0] as OpResult;
          } catch (single) {
            return isUnavailable(single) ? { unavailable: words(single) } : { bug: words(single) };
          }
        });
      }
    },
    hints() {
      const list = [...hints];
      hints.clear();
      return list;
    },
    durability: () => durability(db),
    close: () => db.close(),
  };
}

/** SQLITE_FULL 13, IOERR 10, READONLY 8, BUSY 5, CANTOPEN 14: the disk or the file, not the request. */
function isUnavailable(error: unknown): boolean {
  const code = (error as { errcode?: number }).errcode;
  return code !== undefined && [5, 8, 10, 13, 14].includes(code & 0xff);
}

function words(error: unknown): string {
  return error instanceof Error ? `${error.message}` : String(error);
}
