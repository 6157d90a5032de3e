/**
 * The store contract over the synchronous SQLite engine with a clock the test owns: the production SQL without threads.
 * Content bytes live in memory, and are collected as in the thread that reads.
 */
import { DatabaseSync } from 'node:sqlite';
import { type Hint, type Store, StoreUnavailable } from '../../src/store/contract.ts';
import { openContent } from '../../src/store/sqlite/content.ts';
import { type Engine, type Op, openEngine } from '../../src/store/sqlite/engine.ts';
import { createContentReads } from '../../src/store/sqlite/media.ts';
import { createReader } from '../../src/store/sqlite/read.ts';
import { createReads } from '../../src/store/sqlite/rows.ts';
import { writeVerbs } from '../../src/store/sqlite/verbs.ts';

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
  let engine: Engine = openEngine({ file, retentionMs, ...most, now, synchronous: 'OFF', soughtBlock: 5 });
  let db = new DatabaseSync(file, { readOnly: true });
  let reader = createReader(db, createReads(db));
  let contents = createContentReads(db);
  const bytes = openContent(':memory:');
  let place = '';
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
      engine = openEngine({ file, retentionMs, ...most, now, synchronous: 'OFF', soughtBlock: 5 });
      db = new DatabaseSync(file, { readOnly: true });
      reader = createReader(db, createReads(db));
      contents = createContentReads(db);
    },
    ...writeVerbs(write),
    laneLease: async (_node, lanes) => lanes,
    putContent: async (hash, value) => bytes.put([{ hash, bytes: value }], now),
    content: async (hash) => bytes.get(hash),
    uploadNames: async (account, ids) => contents.uploadNames(account, ids),
    variant: async (source, profile) => contents.variant(source, profile),
    async sweep() {
      place = bytes.collect(now, place, contents.isReferred);
      return write('sweep', null);
    },
    webhookDeliveries: async (filter) => reader.deliveries(filter),
    endpointList: async (account) => reader.endpoints(account),
    inboundPart: async (no, part) => reader.part(no, part),
    link: async (no) => reader.link(no),
    clicked: async (nos) => reader.clicked(nos),
    clicks: async (account, scope) => reader.clicks(account, scope),
    numberList: async (account) => reader.numbers(account ?? null),
    optOutList: async (filter) => reader.optOuts(filter),
    logs: async (filter) => reader.logs(filter),
    story: async (account, id) => reader.story(account, id),
    feed: async (account, after, limit) => reader.feed(account, after, limit),
    bulkGet: async (account, bulk) => reader.bulkGet(account, bulk, now),
    bulkList: async (account, limit, before) => reader.bulkList(account, limit, before, now),
    directory: async (known) => reader.directory(known),
    quotaUsed: async (counters) => reader.quotaUsed(counters),
    auditLog: async (limit, before) => reader.auditLog(limit, before),
    keys: async () => reader.keys(),
    stats: async () => reader.stats(0),
    onHint: (listener) => void listeners.push(listener),
    async close() {
      db.close();
      engine.close();
    },
  };
}
