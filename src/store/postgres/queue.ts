/**
 * Natural group commit: what arrives for a kind of verb while its transaction runs is the next transaction. No fixed delay, so
 * a lone verb waits for nobody, and under load the one sync of a commit serves many.
 *
 * Promises: results come back in the order of the ops; an expected conflict is a result of its op; when the group fails
 * for another reason it is rolled back and its ops run again one by one, so one bad op harms nobody else.
 * Fails: StoreUnavailable for ops beyond QUEUE_MAX and for what the server refuses; any other rejection is a bug.
 */
import type { Clock } from '../../env.ts';
import { type Hint, StoreUnavailable } from '../contract.ts';
import { isRefusal, sqlState } from './answers.ts';
import type { Link } from './link.ts';
import { Conflict, type Tx } from './tx.ts';

/** Ops that may wait for one connection; beyond it the door answers "try again later". */
const QUEUE_MAX = 20_000;
/** Runs of one op alone before a conflict with other nodes counts as trouble. */
const ALONE_MAX = 6;

export interface QueueOptions<Op> {
  link: Link;
  clock: Clock;
  /** Weight of one group: bounds the time that a lone op waits behind others. */
  maxWeight: number;
  weight(op: Op): number;
  /** How long an op may wait for a connection. */
  patienceMs: number;
  /** `work` begins before its BEGIN is answered (link.ts). */
  early?: boolean;
  /** One transaction's work, results in order. May be run again. */
  work(tx: Tx, ops: Op[]): Promise<unknown[]>;
  committed(hints: Hint['kind'][]): void;
}

export interface Queue<Op> {
  push<Result>(op: Op): Promise<Result>;
  /** Resolves when what was pushed so far has ended. */
  drain(): Promise<void>;
}

interface Waiting<Op> {
  op: Op;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** Lost a race with another transaction: a deadlock, a serialization failure, a unique key taken meanwhile. */
function isRace(error: unknown): boolean {
  return error instanceof Conflict || /^(40P01|40001|23505)$/.test(sqlState(error));
}

function unavailable(error: unknown): StoreUnavailable | null {
  if (error instanceof StoreUnavailable) return error;
  // A race lost ALONE_MAX times is the load's fault, not the request's.
  if (!isRefusal(error) && !/^(40P01|40001)$/.test(sqlState(error))) return null;
  return new StoreUnavailable(`PostgreSQL refuses writes: ${(error as Error).message}`);
}

/** A queue of ops before one connection. At most QUEUE_MAX wait; more are refused with StoreUnavailable. */
export function createQueue<Op>(options: QueueOptions<Op>): Queue<Op> {
  const { link, patienceMs, work, committed } = options;
  const waiting: Waiting<Op>[] = [];
  let running = false;
  let idle: (() => void)[] = [];

  function take(): Waiting<Op>[] {
    let weight = 0;
    let count = 0;
    for (const { op } of waiting) {
      weight += options.weight(op);
      if (count > 0 && weight > options.maxWeight) break;
      count++;
    }
    return waiting.splice(0, count);
  }

  async function group(batch: Waiting<Op>[]): Promise<void> {
    const ops = batch.map((item) => item.op);
    try {
      const results = await link.transaction((tx) => work(tx, ops), patienceMs, committed, options.early);
      batch.forEach((item, index) => {
        item.resolve(results[index]);
      });
    } catch (error) {
      // A statement or lock out of time, and a race, may be one op's fault; a full disk or a lost server is everybody's.
      const single = isRace(error) || (batch.length > 1 && /^(57014|55P03)$/.test(sqlState(error)));
      const refused = single ? null : unavailable(error);
      if (refused) for (const item of batch) item.reject(refused);
      else for (const item of batch) await alone(item);
    }
  }

  async function alone(item: Waiting<Op>): Promise<void> {
    for (let run = 1; ; run++) {
      try {
        const [result] = await link.transaction((tx) => work(tx, [item.op]), patienceMs, committed, options.early);
        item.resolve(result);
        return;
      } catch (error) {
        if (isRace(error) && run < ALONE_MAX) {
          await options.clock.sleep(run * 5);
          continue;
        }
        item.reject(unavailable(error) ?? error);
        return;
      }
    }
  }

  async function loop(): Promise<void> {
    // One turn of the event loop, so that verbs called together go together.
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (waiting.length > 0) await group(take());
    // In the same turn as the last look: what is pushed from here on starts a loop of its own.
    running = false;
    const told = idle;
    idle = [];
    for (const tell of told) tell();
  }

  return {
    push<Result>(op: Op): Promise<Result> {
      if (waiting.length >= QUEUE_MAX) {
        return Promise.reject<Result>(new StoreUnavailable('too much waits for PostgreSQL'));
      }
      return new Promise<Result>((resolve, reject) => {
        waiting.push({ op, resolve: resolve as (value: unknown) => void, reject });
        if (running) return;
        running = true;
        void loop();
      });
    },
    drain: () =>
      new Promise<void>((resolve) => {
        if (running) idle.push(resolve);
        else resolve();
      }),
  };
}

/**
 * Reads of a kind, by number: those that are asked for in one turn of the event loop, or while one is on its way, are one. `read` answers
 * for each number. Rejects as `read` does.
 */
export function createGathered<Row>(read: (nos: number[]) => Promise<Map<number, Row>>): (no: number) => Promise<Row> {
  type Waiter = { resolve(row: Row): void; reject(error: unknown): void };
  let wanted = new Map<number, Waiter[]>();
  let reading = false;

  async function loop(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (wanted.size > 0) {
      const asked = wanted;
      wanted = new Map();
      try {
        const found = await read([...asked.keys()]);
        for (const [no, waiters] of asked) for (const { resolve } of waiters) resolve(found.get(no) as Row);
      } catch (error) {
        for (const waiters of asked.values()) for (const { reject } of waiters) reject(error);
      }
    }
    reading = false;
  }

  return (no) =>
    new Promise<Row>((resolve, reject) => {
      const waiters = wanted.get(no);
      if (waiters) waiters.push({ resolve, reject });
      else wanted.set(no, [{ resolve, reject }]);
      if (reading) return;
      reading = true;
      void loop();
    });
}
