/**
 * The embedded store as others see it: `openSqlite` starts its threads, `connectSqlite` speaks to them from any thread. A
 * connection batches: all verbs called in one turn of the event loop cross as one string.
 *
 * Fails: opening rejects with one line (locked, unwritable, too new, unsafe settings); a verb rejects with
 * StoreUnavailable when the disk refuses or the store is closed; any other rejection is a bug.
 */
import { basename, dirname, join } from 'node:path';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { type ContentIndex, type Hint, type Store, StoreUnavailable } from '../contract.ts';
import type { Op, OpResult } from './engine.ts';
import type { ReadCall, ThreadData } from './thread.ts';
import { writeVerbs } from './verbs.ts';

/** Both ends of one connection to the store; transferable to another thread. */
export interface SqlitePorts {
  writer: MessagePort;
  reader: MessagePort;
}

export interface SqliteHost {
  /** A connection for another thread; transfer both ports to it. */
  connect(): SqlitePorts;
  /** Resolves when both threads have committed, checkpointed and ended. */
  close(): Promise<void>;
}

export interface SqliteOptions {
  dataDir: string;
  /** The message log; default postcard.db in `dataDir`. Its lock and content stand beside it. */
  file?: string;
  retentionMs: number;
  /** At most this many finished messages are kept; default all. */
  retentionMessages?: number;
  /** A thread of the store died: nothing can be promised any more, the process should end. */
  onCrash(message: string): void;
  synchronous?: 'FULL' | 'NORMAL' | 'OFF';
  /** Size of the write-ahead log at which the writer restarts it; default 64 MiB. */
  walBoundBytes?: number;
}

/** The files of a store: names of their own for each, so that two may stand in one directory. */
export function sqliteFiles(
  dataDir: string,
  file = join(dataDir, 'postcard.db'),
): { file: string; contentFile: string; lockFile: string } {
  const stem = file.replace(/\.db$/, '');
  const contentFile = basename(stem) === 'postcard' ? join(dirname(file), 'content.db') : `${stem}.content.db`;
  return { file, contentFile, lockFile: `${stem}.lock` };
}

/** Start the store's threads on a data directory that exists. Rejects with one line that says what is wrong. */
export async function openSqlite(options: SqliteOptions): Promise<SqliteHost> {
  const common = { ...sqliteFiles(options.dataDir, options.file), retentionMs: options.retentionMs };
  const writes = {
    ...(options.synchronous ? { synchronous: options.synchronous } : {}),
    ...(options.walBoundBytes ? { walBoundBytes: options.walBoundBytes } : {}),
    ...(options.retentionMessages ? { retentionMessages: options.retentionMessages } : {}),
  };
  // Both load their code at once. The writer opens first: it makes and upgrades the file that the reader opens.
  const writer = startThread({ role: 'writer', ...common, ...writes }, options.onCrash);
  const reader = startThread({ role: 'reader', ...common }, options.onCrash);
  try {
    await writer.open();
    await reader.open();
  } catch (error) {
    await reader.close();
    await writer.close();
    throw error;
  }
  return {
    connect() {
      const toWriter = new MessageChannel();
      const toReader = new MessageChannel();
      writer.worker.postMessage({ port: toWriter.port1 }, [toWriter.port1]);
      reader.worker.postMessage({ port: toReader.port1 }, [toReader.port1]);
      return { writer: toWriter.port2, reader: toReader.port2 };
    },
    async close() {
      await reader.close();
      await writer.close();
    },
  };
}

interface Thread {
  worker: Worker;
  /** Resolves when its files are open; rejects with one line when they cannot be. Once. */
  open(): Promise<void>;
  /** One that has opened nothing ends at once. */
  close(): Promise<void>;
}

function startThread(data: ThreadData, onCrash: (message: string) => void): Thread {
  const worker = new Worker(new URL('./thread.ts', import.meta.url), { workerData: data });
  let ended: Error | null = null;
  let opening: { resolve(): void; reject(error: Error): void } | null = null;
  let ready = false;
  let closing: (() => void) | null = null;
  const died = (error: Error): void => {
    const first = ended === null;
    ended ??= error;
    if (closing) closing();
    else if (!first) return;
    else if (ready) onCrash(`store ${data.role}: ${ended.message}`);
    else opening?.reject(ended);
  };
  worker.on('message', (message: { ready?: true; failed?: string; closed?: true }) => {
    if (message.failed !== undefined) died(new Error(message.failed));
    if (message.ready) {
      ready = true;
      opening?.resolve();
    }
  });
  worker.on('error', (error) => died(error instanceof Error ? error : new Error(String(error))));
  worker.on('exit', (code) => died(new Error(`its thread ended with code ${code}`)));
  return {
    worker,
    open: () =>
      new Promise((resolve, reject) => {
        if (ended) return reject(ended);
        opening = { resolve, reject };
        worker.postMessage({ open: true });
      }),
    close: () =>
      new Promise((done) => {
        if (ended) return done();
        closing = done;
        if (ready) worker.postMessage({ close: true });
        else void worker.terminate();
      }),
  };
}

interface Waiting {
  writes: boolean;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Speak to the store's threads. The ports belong to this connection from now on. */
export function connectSqlite(ports: SqlitePorts): Store & ContentIndex {
  const waiting = new Map<number, Waiting>();
  const listeners: ((hint: Hint) => void)[] = [];
  let batch: [number, Op][] = [];
  let next = 1;
  let closed = false;
  /** Closed by this side: its callers have left. */
  let leaving = false;

  function settleOne(id: number, result: OpResult): void {
    const call = waiting.get(id);
    if (!call) return;
    waiting.delete(id);
    if ('ok' in result) call.resolve(result.ok);
    else if ('unavailable' in result) call.reject(new StoreUnavailable(result.unavailable));
    else call.reject(new Error(result.bug));
  }

  ports.writer.on('message', (text: string) => {
    const message = JSON.parse(text) as { answers?: [number, OpResult][]; hints?: Hint['kind'][]; closed?: true };
    for (const [id, result] of message.answers ?? []) settleOne(id, result);
    // Its farewell: all that it has received is answered.
    if (message.closed) refuse(() => true);
    for (const kind of message.hints ?? []) for (const listener of listeners) listener({ kind });
  });
  ports.reader.on('message', (message: { id: number } & OpResult) => settleOne(message.id, message));
  /** Closed, and nothing of these calls has happened. */
  function refuse(which: (call: Waiting) => boolean): void {
    closed = true;
    for (const [id, call] of waiting) {
      if (!which(call)) continue;
      waiting.delete(id);
      call.reject(new StoreUnavailable('the store is closed'));
    }
  }
  ports.reader.on('close', () => refuse((call) => !call.writes));
  // A writer that crashed may have committed what it has not answered. To say "nothing has happened" would make callers
  // send twice, so they are left without an answer: the process is about to end (onCrash).
  ports.writer.on('close', () => refuse(leaving ? () => true : (call) => !call.writes));

  function flush(): void {
    const text = JSON.stringify(batch);
    batch = [];
    ports.writer.postMessage(text);
  }

  function call<Result>(writes: boolean, send: (id: number) => void): Promise<Result> {
    if (closed) return Promise.reject(new StoreUnavailable('the store is closed'));
    return new Promise<Result>((resolve, reject) => {
      const id = next++;
      waiting.set(id, { writes, resolve: resolve as (value: unknown) => void, reject });
      send(id);
    });
  }
  const write = <Result>(...op: Op): Promise<Result> =>
    call<Result>(true, (id) => {
      if (batch.push([id, op]) === 1) setImmediate(flush);
    });
  type Unnumbered = ReadCall extends infer Call ? (Call extends ReadCall ? Omit<Call, 'id'> : never) : never;
  const read = <Result>(query: Unnumbered): Promise<Result> =>
    call<Result>(false, (id) => ports.reader.postMessage({ ...query, id }));

  return {
    ...writeVerbs(write),
    laneLease: async (_node, lanes) => lanes,
    putContent: (hash, bytes) => read({ verb: 'putContent', arg: { hash, bytes } }),
    content: (hash) => read({ verb: 'content', arg: hash }),
    uploadNames: (account, ids) => read({ verb: 'uploadNames', arg: { account, ids } }),
    contentAt: (hash) => read({ verb: 'place', arg: { ask: 'at', hash } }),
    contentUsed: (hash) => read({ verb: 'place', arg: { ask: 'used', hash } }),
    contentPlaced: (hash, place) => read({ verb: 'place', arg: { ask: 'placed', hash, place } }),
    placesLost: (limit) => read({ verb: 'place', arg: { ask: 'lost', limit } }),
    placesGone: (places) => read({ verb: 'place', arg: { ask: 'gone', places } }),
    variant: (source, profile) => read({ verb: 'variant', arg: { source, profile } }),
    webhookDeliveries: (filter) => read({ verb: 'webhookDeliveries', arg: filter }),
    endpointList: (account) => read({ verb: 'endpointList', arg: account }),
    inboundPart: (no, part) => read({ verb: 'inboundPart', arg: { no, part } }),
    link: (no) => read({ verb: 'link', arg: no }),
    clicked: (nos) => read({ verb: 'clicked', arg: nos }),
    clicks: (account, scope) => read({ verb: 'clicks', arg: { account, scope } }),
    numberList: (account) => read({ verb: 'numberList', arg: account ?? null }),
    optOutList: (filter) => read({ verb: 'optOutList', arg: filter }),
    logs: (filter) => read({ verb: 'logs', arg: filter }),
    story: (account, id) => read({ verb: 'story', arg: { account, id } }),
    feed: (account, after, limit) => read({ verb: 'feed', arg: { account, after, limit } }),
    bulkGet: (account, bulk) => read({ verb: 'bulkGet', arg: { account, bulk } }),
    bulkList: (account, limit, before) => read({ verb: 'bulkList', arg: { account, limit, before } }),
    directory: (known) => read({ verb: 'directory', arg: known }),
    quotaUsed: (counters) => read({ verb: 'quotaUsed', arg: counters }),
    auditLog: (limit, before) => read({ verb: 'auditLog', arg: { limit, before } }),
    keys: () => read({ verb: 'keys', arg: null }),
    stats: () => read({ verb: 'stats', arg: null }),
    onHint: (listener) => {
      listeners.push(listener);
    },
    async close() {
      closed = true;
      leaving = true;
      ports.writer.close();
      ports.reader.close();
    },
  };
}
