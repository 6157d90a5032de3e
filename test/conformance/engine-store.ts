/**
 * The store contract over the synchronous SQLite engine with a clock the test owns: the production SQL without threads.
 * Content bytes live in a map here; the content file has tests of its own.
 */
import { DatabaseSync } from 'node:sqlite';
import { type Hint, type Store, StoreUnavailable } from '../../src/store/contract.ts';
import { type Engine, type Op, openEngine } from '../../src/store/sqlite/engine.ts';
import { createReader } from '../../src/store/sqlite/read.ts';
import { createReads } from '../../src/store/sqlite/rows.ts';

export interface ControlledStore extends Store {
  /** Move the store's clock. */
  advance(ms: number): void;
  now(): number;
  /** Close and open the same file again, as after a crash (nothing is flushed by hand). */
  crash(): void;
}

export function openEngineStore(
  file: string,
  options: { now?: number; retentionMs?: number; retentionMessages?: number } = {},
): ControlledStore {
  let now = options.now ?? Date.UTC(2026, 10, 24, 12);
  const retentionMs = options.retentionMs ?? 7 * 86_400_000;
  const most = options.retentionMessages ? { retentionMessages: options.retentionMessages } : {};
  let engine: Engine = openEngine({ file, retentionMs, ...most, now, synchronous: 'OFF' });
  let db = new DatabaseSync(file, { readOnly: true });
  let reader = createReader(db, createReads(db));
  const bytes = new Map<string, Uint8Array>();
  const listeners: ((hint: Hint) => void)[] = [];
  const write = async <Result>(...op: Op): Promise<Result> => {
    const [result] = engine.apply([op], now);
    for (const kind of engine.hints()) for (const listener of listeners) listener({ kind: kind as Hint['kind'] });
    if (!result) throw new Error('no result');
    if ('ok' in result) return result.ok as Result;
    if ('unavailable' in result) throw new StoreUnavailable(result.unavailable);
    throw new Error(result.bug);
  };
  return {
    advance: (ms) => {
      now += ms;
    },
    now: () => now,
    crash() {
      db.close();
      engine.close();
      engine = openEngine({ file, retentionMs, ...most, now, synchronous: 'OFF' });
      db = new DatabaseSync(file, { readOnly: true });
      reader = createReader(db, createReads(db));
    },
    identity: () => write('identity', null),
    reserve: (count) => write('reserve', count),
    lane: (carrier, policy, shard = 0) => write('lane', { carrier, shard, ...policy }),
    laneLease: async (_node, lanes) => lanes,
    accept: (request) => write('accept', request),
    putContent: async (hash, value) => void bytes.set(hash, value),
    putUpload: (upload) => write('putUpload', upload),
    content: async (hash) => bytes.get(hash) ?? null,
    claim: (lane, limit, leaseMs) => write('claim', { lane, limit, leaseMs }),
    settle: (settle) => write('settle', settle),
    release: (claims, until) => write('release', { claims, until }),
    report: (report) => write('report', report),
    sweep: () => write('sweep', null),
    mediaNext: (limit, leaseMs) => write('mediaNext', { limit, leaseMs }),
    mediaSettle: (job, outcome) => write('mediaSettle', { job, outcome }),
    webhookNext: (limit, leaseMs) => write('webhookNext', { limit, leaseMs }),
    webhookSettle: (settle) => write('webhookSettle', settle),
    takeReports: (filter) => write('takeReports', filter),
    logs: async (filter) => reader.logs(filter),
    story: async (account, id) => reader.story(account, id),
    feed: async (account, after, limit) => reader.feed(account, after, limit),
    bulkGet: async (account, bulk) => reader.bulkGet(account, bulk, now),
    bulkList: async (account, limit, before) => reader.bulkList(account, limit, before, now),
    bulkSteer: (account, bulk, changes) => write('bulkSteer', { account, bulk, changes }),
    keys: async () => reader.keys(),
    putKey: (key, replace) => write('putKey', { key, replace }),
    stats: async () => reader.stats(0),
    onHint: (listener) => void listeners.push(listener),
    async close() {
      db.close();
      engine.close();
    },
  };
}
