/**
 * The simulator's time and chance: one order of all events (virtual time, random tie-break, number), named streams of dice
 * drawn from one seed, and the environment that a simulated process gets instead of the machine's.
 *
 * Promises: the same seed gives the same order and the same trace hash. A dead owner's events are dropped, so the promises of a
 * killed process never settle; a paused owner's events wait. Each step lets all promises settle before the next, so their
 * order is a function of the seed. Idle polling is passed over: a poll that can find nothing is moved along its own instants
 * to where something may have happened, which is what all of them would have come to.
 *
 * Fails: more than `maxSteps` steps is a loop that feeds itself, and throws.
 */
import type { Clock, Env, Log, Random, Timer } from '../../src/env.ts';

/** 2026-11-23T00:00:00Z, a Monday: where virtual time begins, epoch ms. */
export const START = Date.UTC(2026, 10, 23);

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;

/** A stream of chances (mulberry32). Streams with different names are independent, so one more draw here moves nothing there. */
export class Dice {
  #state: number;

  constructor(seed: number, ...names: (string | number)[]) {
    this.#state = mix(seed, names.join('/'));
  }

  /** [0, 1) */
  float(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  }

  chance(p: number): boolean {
    return this.float() < p;
  }

  /** An integer of [from, to]. */
  int(from: number, to: number): number {
    return from + Math.floor(this.float() * (to - from + 1));
  }

  between(from: number, to: number): number {
    return from + this.float() * (to - from);
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(this.float() * items.length)] as Item;
  }

  /** Mostly short, sometimes long: a delay of about `typical` ms, at most `most`. */
  delay(typical: number, most: number): number {
    return Math.min(most, -Math.log(1 - this.float()) * typical);
  }
}

function mix(seed: number, text: string): number {
  return fnv(fnv(0x811c9dc5, String(seed)), text);
}

function fnv(hash: number, text: string): number {
  let h = hash;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** Whoever events are addressed to. */
export interface Owner {
  dead: boolean;
  /** Virtual ms; its events wait until then. */
  pausedUntil: number;
  /** Until when (virtual ms) polling can find nothing; at or before now = it may find something. */
  quietUntil(): number;
}

interface Event {
  at: number;
  tie: number;
  no: number;
  run: (() => void) | null;
  owner: Owner | null;
  /** 0 = an event; else a poll that repeats itself after so many ms. */
  pollMs: number;
  /** When it was due at first. */
  due: number;
}

function before(a: Event, b: Event): boolean {
  if (a.at !== b.at) return a.at < b.at;
  return a.tie !== b.tie ? a.tie < b.tie : a.no < b.no;
}

class Heap {
  readonly #items: Event[] = [];

  get size(): number {
    return this.#items.length;
  }

  push(event: Event): void {
    const items = this.#items;
    let i = items.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, items[parent] as Event)) break;
      items[i] = items[parent] as Event;
      i = parent;
    }
    items[i] = event;
  }

  /** The earliest that still counts. */
  peek(): Event | undefined {
    for (let top = this.#items[0]; top; top = this.#items[0]) {
      if (top.run !== null && top.owner?.dead !== true) return top;
      this.pop();
    }
    return undefined;
  }

  pop(): void {
    const items = this.#items;
    const last = items.pop() as Event;
    if (items.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1] as Event, items[child] as Event)) child++;
      if (!before(items[child] as Event, last)) break;
      items[i] = items[child] as Event;
      i = child;
    }
    items[i] = last;
  }

  count(owner: Owner): number {
    return this.#items.filter((event) => event.run !== null && event.owner === owner).length;
  }
}

/** One line of the trace. */
export interface TraceLine {
  at: number;
  text: string;
  /** Messages it is about. */
  nos: readonly number[];
}

/** A poll is passed over for no longer than this, so that retention and the like have their turn. */
const SKIP_MAX = 2 * HOUR;
/** Distances of the polls of dispatch, sweep, media and webhooks. */
const POLLS = new Set([1000, 5000, 15_000]);
/** Of these the last one before something happens is made: it may be the beat by which a lane is held. */
const BEAT = 5000;
const LINES = 200_000;

export class Scheduler {
  now = 0;
  steps = 0;
  /** Polls passed over. */
  skipped = 0;
  readonly lines: TraceLine[] = [];
  readonly #events = new Heap();
  readonly #polls = new Heap();
  readonly #ties: Dice;
  readonly #maxSteps: number;
  #no = 0;
  #hash = 0x811c9dc5;

  constructor(seed: number, maxSteps: number) {
    this.#ties = new Dice(seed, 'ties');
    this.#maxSteps = maxSteps;
  }

  get hash(): string {
    return this.#hash.toString(16).padStart(8, '0');
  }

  /** Writes down what happened; all of it is in the hash. */
  trace(text: string, nos: readonly number[] = []): void {
    this.#hash = fnv(this.#hash, `${this.now} ${text}\n`);
    if (this.lines.length < LINES) this.lines.push({ at: this.now, text, nos });
  }

  after(ms: number, run: () => void, owner: Owner | null = null): Timer {
    return this.at(this.now + Math.max(0, ms), run, owner);
  }

  at(time: number, run: () => void, owner: Owner | null = null, pollMs = 0): Timer {
    const due = Math.max(time, this.now);
    const event: Event = { at: due, tie: this.#ties.float(), no: ++this.#no, run, owner, pollMs, due };
    (pollMs > 0 ? this.#polls : this.#events).push(event);
    return {
      cancel: () => {
        event.run = null;
      },
    };
  }

  /** Events and polls of an owner that still wait. */
  waiting(owner: Owner): number {
    return this.#events.count(owner) + this.#polls.count(owner);
  }

  /** Runs until virtual time `until`, or until `stop` says so. */
  async run(until: number, stop: () => boolean): Promise<void> {
    while (!stop()) {
      const event = this.#next(until);
      if (event === null) break;
      if (++this.steps > this.#maxSteps) throw new Error(`more than ${this.#maxSteps} steps: something feeds itself`);
      this.now = event.at;
      const run = event.run as () => void;
      event.run = null;
      run();
      await settled();
    }
    if (!stop()) this.now = Math.max(this.now, until);
  }

  /** Lets promises settle. */
  settle(): Promise<void> {
    return settled();
  }

  #next(until: number): Event | null {
    for (;;) {
      const event = this.#events.peek();
      const poll = this.#polls.peek();
      const next = event && poll ? (before(event, poll) ? event : poll) : (event ?? poll);
      if (!next || next.at > until) return null;
      const heap = next === event ? this.#events : this.#polls;
      heap.pop();
      const { owner } = next;
      if (owner && owner.pausedUntil > next.at) {
        next.at = owner.pausedUntil;
        heap.push(next);
        continue;
      }
      if (next.pollMs > 0 && owner) {
        const limit = Math.min(event?.at ?? Number.POSITIVE_INFINITY, owner.quietUntil(), next.due + SKIP_MAX);
        const polls = Math.ceil((limit - next.at) / next.pollMs) - (next.pollMs === BEAT ? 1 : 0);
        if (polls > 0) {
          this.skipped += polls;
          next.at += polls * next.pollMs;
          heap.push(next);
          continue;
        }
      }
      return next;
    }
  }
}

/**
 * The store's clock: its machine's wall clock, which somebody may set, but never back. Epoch ms, virtual ms in brackets where
 * it is asked for the past.
 */
export class StoreTime {
  /** When its clock was set forward last, virtual ms. */
  lastJump = Number.NEGATIVE_INFINITY;
  /** What it never showed, because it was set forward: [from, until). */
  readonly skipped: [number, number][] = [];
  readonly #scheduler: Scheduler;
  readonly #segments = [{ from: 0, ahead: 0, least: START }];

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  /** The machine's clock, in whole ms. */
  get wall(): number {
    return START + Math.floor(this.#scheduler.now) + (this.#segments.at(-1)?.ahead ?? 0);
  }

  get now(): number {
    return this.at(this.#scheduler.now);
  }

  at(virtual: number): number {
    const { ahead, least } = this.#segments.findLast(({ from }) => from <= virtual) ?? { ahead: 0, least: START };
    return Math.max(least, START + virtual + ahead);
  }

  /** Virtual ms until the clock shows `at`, if nobody sets it. */
  until(at: number): number {
    return at - START - (this.#segments.at(-1)?.ahead ?? 0);
  }

  /** Somebody sets the machine's clock. */
  jump(ms: number): void {
    const least = this.now;
    const ahead = (this.#segments.at(-1)?.ahead ?? 0) + ms;
    this.#segments.push({ from: this.#scheduler.now, ahead, least });
    if (this.now === least) return;
    this.lastJump = this.#scheduler.now;
    this.skipped.push([least, this.now]);
  }
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** What a simulated process is run with. `onError` is told of each line of level error. */
export function simEnv(
  scheduler: Scheduler,
  owner: Owner,
  dice: Dice,
  options: { skewMs: number; monotonic: () => number; onError(message: string, fields: object): void },
): Env {
  const clock: Clock = {
    now: () => START + Math.floor(scheduler.now) + options.skewMs,
    monotonic: options.monotonic,
    setTimeout: (fn, ms) => scheduler.at(scheduler.now + Math.max(0, ms), fn, owner, POLLS.has(ms) ? ms : 0),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (signal?.aborted) return resolve();
        const end = (): void => {
          timer.cancel();
          signal?.removeEventListener('abort', end);
          resolve();
        };
        const timer = scheduler.after(ms, end, owner);
        signal?.addEventListener('abort', end, { once: true });
      }),
  };
  const random: Random = {
    bytes: (n) => Uint8Array.from({ length: n }, () => dice.int(0, 255)),
    float: () => dice.float(),
    uuid: () => {
      throw new Error('nobody in the simulation needs a UUID');
    },
  };
  const quiet = (): void => undefined;
  const log: Log = {
    debug: quiet,
    info: quiet,
    warn: quiet,
    error: (fields, message) => options.onError(message, fields),
    child: () => log,
  };
  return { clock, random, log };
}
