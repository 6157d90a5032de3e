/**
 * The two threads of the embedded store. Writer: sole writer of the message log; whatever arrives while a commit runs is
 * the next commit (natural group commit, no fixed delay). Reader: reads, content bytes and background checkpoints, so
 * that neither a log query nor a checkpoint stands in the way of an accept.
 *
 * Batches cross as one JSON string each way (a structured clone per message cost about 40 us when measured).
 * Fails: an unopenable file or a second process on the data directory is told to the parent before any port is served.
 */
import { statSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { type MessagePort, parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { Counter } from '../../domain/accounts.ts';
import { realClock, type Timer } from '../../env.ts';
import type { BulkName, ClickScope, DeliveryFilter, MessageFilter, OptOutFilter, Stats } from '../contract.ts';
import { openContent, type PlaceCall } from './content.ts';
import { type Op, type OpResult, openEngine } from './engine.ts';
import { createContentReads } from './media.ts';
import { createReader } from './read.ts';
import { createReads } from './rows.ts';
import { nextGroup, restartsLog } from './steps.ts';

export interface ThreadData {
  role: 'writer' | 'reader';
  /** Paths of the message log, the content file and the lock file. */
  file: string;
  contentFile: string;
  lockFile: string;
  retentionMs: number;
  retentionMessages?: number;
  synchronous?: 'FULL' | 'NORMAL' | 'OFF';
  walBoundBytes?: number;
}

/** Reads and content verbs, as they cross to the reader thread. */
export type ReadCall =
  | { id: number; verb: 'logs'; arg: MessageFilter }
  | { id: number; verb: 'story'; arg: { account: number; id: { no: number } | { key: string } } }
  | { id: number; verb: 'feed'; arg: { account: number; after: number; limit: number } }
  | { id: number; verb: 'bulkGet'; arg: { account: number; bulk: BulkName } }
  | { id: number; verb: 'bulkList'; arg: { account: number; limit: number; before: number | undefined } }
  | { id: number; verb: 'keys' | 'stats'; arg: null }
  | { id: number; verb: 'directory'; arg: number }
  | { id: number; verb: 'auditLog'; arg: { limit: number; before: number | undefined } }
  | { id: number; verb: 'quotaUsed'; arg: Counter[] }
  | { id: number; verb: 'webhookDeliveries'; arg: DeliveryFilter }
  | { id: number; verb: 'endpointList'; arg: number }
  | { id: number; verb: 'link'; arg: number }
  | { id: number; verb: 'clicked'; arg: number[] }
  | { id: number; verb: 'clicks'; arg: { account: number; scope: ClickScope } }
  | { id: number; verb: 'inboundPart'; arg: { no: number; part: number } }
  | { id: number; verb: 'numberList'; arg: number | null }
  | { id: number; verb: 'optOutList'; arg: OptOutFilter }
  | { id: number; verb: 'content'; arg: string }
  | { id: number; verb: 'variant'; arg: { source: string; profile: string } }
  | { id: number; verb: 'uploadNames'; arg: { account: number; ids: string[] } }
  | { id: number; verb: 'place'; arg: PlaceCall }
  | { id: number; verb: 'putContent'; arg: { hash: string; bytes: Uint8Array } };

/** Ops that wait for a commit; beyond it, what customers bring is refused, what is on its way goes on. */
const QUEUE = 20_000;
/** A WAL over this is restarted by the writer itself (`steps.ts`): the background checkpoint alone never resets it under load. */
const WAL_BOUND = 64 * 1024 * 1024;
/** Commits between two looks at its size. */
const WAL_LOOK = 64;
/** Order inside a group: what came back first, then what comes in, then what goes out. */
const RANK: Partial<Record<Op[0], number>> = { report: 0, settle: 0, release: 0, accept: 1, claim: 2, sweep: 4 };

const data = workerData as ThreadData;
// The first message says: open. The other thread of the store may have to be first.
parentPort?.once('message', () => (data.role === 'writer' ? startWriter(data) : startReader(data)));

function fail(error: unknown): never {
  parentPort?.postMessage({ failed: error instanceof Error ? error.message : String(error) });
  process.exit(1);
}

/** A background task that fails (a full disk) is tried again at its next turn; it must not take the thread with it. */
function tolerated(work: () => void): void {
  try {
    work();
  } catch {
    // The verbs themselves tell of a disk that refuses.
  }
}

function walSize(file: string): number {
  try {
    return statSync(`${file}-wal`).size;
  } catch {
    return 0;
  }
}

function startWriter(options: ThreadData): void {
  // The lock is kept in a variable of the thread: collected as garbage it would be freed.
  const held = open();
  const { engine, checkpoint } = held;
  /** Pages in the log, and of these what is back in the file; moves nothing. */
  const looked = checkpoint.prepare('PRAGMA wal_checkpoint(NOOP)');
  const ports: MessagePort[] = [];
  let queue: { port: MessagePort; id: number; op: Op }[] = [];
  let scheduled = false;
  let commits = 0;

  function open() {
    try {
      if ((statSync(options.file, { throwIfNoEntry: false })?.nlink ?? 1) > 1) {
        throw new Error(
          'the file has more than one name (hard links), and each would have a lock and a write-ahead log of its own; remove the others',
        );
      }
      // Held by the operating system for the life of the process, so a kill -9 frees it.
      const lock = new DatabaseSync(options.lockFile);
      takeLock(lock);
      const engine = openEngine({
        file: options.file,
        retentionMs: options.retentionMs,
        ...(options.retentionMessages ? { retentionMessages: options.retentionMessages } : {}),
        now: realClock.now(),
        ...(options.synchronous ? { synchronous: options.synchronous } : {}),
      });
      const checkpoint = new DatabaseSync(options.file);
      return { engine, checkpoint, lock };
    } catch (error) {
      return fail(error);
    }
  }

  function takeLock(lock: DatabaseSync): void {
    try {
      lock.exec('PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE');
    } catch (error) {
      if ((error as { errcode?: number }).errcode !== 5) throw error;
      lock.close();
      throw new Error('another Postcard process uses this data directory');
    }
  }

  function enqueue(port: MessagePort, text: string): void {
    const batch = JSON.parse(text) as [number, Op][];
    const refused: [number, OpResult][] = [];
    for (const [id, op] of batch) {
      const customers = op[0] === 'accept' || op[0] === 'putUpload' || op[0] === 'takeReports' || op[0] === 'takeInbox';
      if (customers && queue.length >= QUEUE)
        refused.push([id, { unavailable: 'too many requests wait for the disk' }]);
      else queue.push({ port, id, op });
    }
    if (refused.length > 0) port.postMessage(JSON.stringify({ answers: refused }));
  }

  function drain(): void {
    scheduled = false;
    for (const port of ports) {
      for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) {
        enqueue(port, next.message as string);
      }
    }
    if (queue.length === 0) return;
    const group = nextGroup(queue);
    if (group.length > 1) group.sort((a, b) => (RANK[a.op[0]] ?? 3) - (RANK[b.op[0]] ?? 3));
    const results = engine.apply(
      group.map((item) => item.op),
      realClock.now(),
    );
    const answers = new Map<MessagePort, [number, OpResult][]>();
    group.forEach((item, index) => {
      const list = answers.get(item.port);
      const answer: [number, OpResult] = [item.id, results[index] as OpResult];
      if (list) list.push(answer);
      else answers.set(item.port, [answer]);
    });
    for (const [port, list] of answers) port.postMessage(JSON.stringify({ answers: list }));
    const hints = engine.hints();
    if (hints.length > 0) {
      const text = JSON.stringify({ hints });
      for (const port of ports) port.postMessage(text);
    }
    if (++commits % WAL_LOOK === 0) tolerated(restartLog);
    if (queue.length > 0) schedule();
  }

  function restartLog(): void {
    const waiting = (): number => {
      const { log, checkpointed } = looked.get() as { log: number; checkpointed: number };
      return log - checkpointed;
    };
    if (!restartsLog(walSize(options.file), options.walBoundBytes ?? WAL_BOUND, waiting)) return;
    checkpoint.exec('PRAGMA wal_checkpoint(RESTART)');
  }

  function schedule(): void {
    if (scheduled) return;
    scheduled = true;
    setImmediate(drain);
  }

  parentPort?.on('message', (message: { port?: MessagePort; close?: true }) => {
    if (message.port) {
      const port = message.port;
      ports.push(port);
      port.on('message', (text: string) => {
        enqueue(port, text);
        schedule();
      });
      port.on('close', () => ports.splice(ports.indexOf(port), 1));
    }
    if (message.close) {
      do drain();
      while (queue.length > 0);
      engine.close();
      tolerated(() => checkpoint.exec('PRAGMA wal_checkpoint(TRUNCATE)'));
      checkpoint.close();
      held.lock.close();
      // What came later than the last drain has not happened, and may be told so.
      for (const port of ports) port.postMessage(JSON.stringify({ closed: true }));
      parentPort?.postMessage({ closed: true });
      queue = [];
      process.exit(0);
    }
  });
  parentPort?.postMessage({ ready: true });
}

function startReader(options: ThreadData): void {
  const { db, content, checkpoint } = open();
  const reader = createReader(db, createReads(db));
  let puts: { port: MessagePort; id: number; hash: string; bytes: Uint8Array }[] = [];
  let orphanPlace = '';
  let stats: { until: number; value: Stats } | null = null;

  function open() {
    try {
      const db = new DatabaseSync(options.file, { readOnly: true });
      db.exec('PRAGMA busy_timeout = 2000; PRAGMA cache_size = -32768');
      return { db, content: openContent(options.contentFile), checkpoint: new DatabaseSync(options.file) };
    } catch (error) {
      return fail(error);
    }
  }
  const contents = createContentReads(db);

  function answer(call: ReadCall): unknown {
    switch (call.verb) {
      case 'logs':
        return reader.logs(call.arg);
      case 'story':
        return reader.story(call.arg.account, call.arg.id);
      case 'feed':
        return reader.feed(call.arg.account, call.arg.after, call.arg.limit);
      case 'bulkGet':
        return reader.bulkGet(call.arg.account, call.arg.bulk, realClock.now());
      case 'bulkList':
        return reader.bulkList(call.arg.account, call.arg.limit, call.arg.before, realClock.now());
      case 'keys':
        return reader.keys();
      case 'directory':
        return reader.directory(call.arg);
      case 'auditLog':
        return reader.auditLog(call.arg.limit, call.arg.before);
      case 'quotaUsed':
        return reader.quotaUsed(call.arg);
      case 'webhookDeliveries':
        return reader.deliveries(call.arg);
      case 'endpointList':
        return reader.endpoints(call.arg);
      case 'link':
        return reader.link(call.arg);
      case 'clicked':
        return reader.clicked(call.arg);
      case 'clicks':
        return reader.clicks(call.arg.account, call.arg.scope);
      case 'inboundPart':
        return reader.part(call.arg.no, call.arg.part);
      case 'numberList':
        return reader.numbers(call.arg);
      case 'optOutList':
        return reader.optOuts(call.arg);
      case 'stats': {
        // Counting is linear in what waits: at most once a second and 2 % of the time, whoever asks.
        const now = realClock.now();
        if (!stats || now >= stats.until) {
          const value = reader.stats(walSize(options.file));
          const cost = realClock.now() - now;
          stats = { until: now + Math.max(1000, 50 * cost), value };
        }
        return stats.value;
      }
      case 'content':
        return content.get(call.arg);
      case 'uploadNames':
        return contents.uploadNames(call.arg.account, call.arg.ids);
      case 'variant':
        return contents.variant(call.arg.source, call.arg.profile);
      case 'place':
        return content.place(call.arg, realClock.now());
      case 'putContent':
        return null;
    }
  }

  function storePuts(): void {
    const batch = puts;
    puts = [];
    let failure: string | null = null;
    try {
      content.put(batch, realClock.now());
    } catch (error) {
      failure = error instanceof Error ? error.message : String(error);
    }
    for (const { port, id } of batch) {
      port.postMessage(failure === null ? { id, ok: null } : { id, unavailable: failure });
    }
  }

  function serve(port: MessagePort, call: ReadCall): void {
    if (call.verb === 'putContent') {
      if (puts.push({ port, id: call.id, ...call.arg }) === 1) setImmediate(storePuts);
      return;
    }
    try {
      port.postMessage({ id: call.id, ok: answer(call) });
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      // Notes of where content lies are writes: a disk that refuses them is no bug.
      port.postMessage({ id: call.id, ...(call.verb === 'place' ? { unavailable: words } : { bug: words }) });
    }
  }

  function collect(): void {
    orphanPlace = content.collect(realClock.now(), orphanPlace, contents.isReferred);
  }

  function every(ms: number, work: () => void): Timer {
    let timer: Timer;
    const tick = (): void => {
      tolerated(work);
      timer = realClock.setTimeout(tick, ms);
    };
    timer = realClock.setTimeout(tick, ms);
    return { cancel: () => timer.cancel() };
  }
  const background = every(200, () => {
    // Passive: never waits for the writer, moves what it can (p99 of a commit 4-7 ms instead of 46 when measured).
    if (walSize(options.file) > 1024 * 1024) checkpoint.exec('PRAGMA wal_checkpoint(PASSIVE)');
  });
  const collector = every(60_000, collect);

  parentPort?.on('message', (message: { port?: MessagePort; close?: true }) => {
    if (message.port) {
      const port = message.port;
      port.on('message', (call: ReadCall) => serve(port, call));
    }
    if (message.close) {
      background.cancel();
      collector.cancel();
      if (puts.length > 0) storePuts();
      db.close();
      content.close();
      checkpoint.close();
      parentPort?.postMessage({ closed: true });
      process.exit(0);
    }
  });
  parentPort?.postMessage({ ready: true });
}
