/**
 * Time, randomness, timers and the log: all that a run of the program takes from the machine without asking anyone. This is
 * the only file that touches Date, Math.random, crypto randomness, timers or stderr; every other part gets an `Env`.
 *
 * Promises: with `testEnv` the same seed and the same calls give the same run, without waiting for real time. A log line
 * carries plain fields only: no content, no secrets, numbers masked (`shown` below decides, for both environments).
 *
 * Fails: logging never throws. When stderr does not keep up, lines beyond `LOG_BUFFER_BYTES` are dropped, never the work.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { write as writeFd, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isMainThread } from 'node:worker_threads';
import type { pino } from 'pino';

/** A pending call; `cancel` after it has run does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Epoch ms by this machine's wall clock. What decides about messages is the store's clock, not this one. */
  now(): number;
  /** Ms since an arbitrary start, fractional, never going back: for durations. */
  monotonic(): number;
  /** Calls `fn` once after `ms` (below 0 or NaN = 0; any length). Keeps the process alive until then. */
  setTimeout(fn: () => void, ms: number): Timer;
  /** Resolves after `ms`, or at once when `signal` aborts (a stop is no error: look at the signal). Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  /** `n` unpredictable bytes (in `testEnv`: predictable ones). */
  bytes(n: number): Uint8Array;
  /** [0, 1), for jitter and sampling; not for secrets. */
  float(): number;
  /** A version 4 UUID. */
  uuid(): string;
}

/** One line per event: what happened in `message` (a constant), to what in `fields` (ids, counts, codes). */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  /** A log whose lines all carry `fields` too. */
  child(fields: object): Log;
}

/** All that a part of the program is given of the machine. */
export interface Env {
  clock: Clock;
  random: Random;
  log: Log;
}

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface RealEnvOptions {
  /** The lowest level that is written. */
  level: LogLevel;
  /** One readable line per event instead of JSON (a terminal). */
  pretty?: boolean;
  /** Where lines go; default stderr. */
  destination?: { write(line: string): void };
}

const STDERR = 2;
/** What waits for a slow stderr (in characters); beyond it lines are dropped. */
const LOG_BUFFER_BYTES = 8 * 1024 * 1024;
/** What a pipe takes whole or not at all (PIPE_BUF on Linux; lines are nearly all ASCII). */
const ATOMIC_BYTES = 4096;
/** How long a full pipe is left alone. */
const STDERR_AGAIN_MS = 100;
/** The longest delay that a Node timer takes (2^31 - 1 ms); longer ones are chained. */
const TIMER_MAX_MS = 2_147_483_647;

// ---------------------------------------------------------------------------------------------------- what a line shows

/** Names whose values are a customer's words or a secret: never shown (counts are). Compared in lower case. */
const HIDDEN = new Set(
  (
    'body text content contents title subject smil parts bytes html callbackdata spec payload raw ' +
    'authorization proxy-authorization cookie set-cookie apikey key password secret credentials auth headers'
  ).split(' '),
);
/** Names whose values are phone numbers: masked. */
const NUMBERS = new Set(
  'to from sender recipient recipients destination destinations msisdn address addresses number numbers member members'.split(
    ' ',
  ),
);
/** What peers say in words of their own, where numbers may stand in the middle. */
const PEERS_WORDS = new Set(['words', 'reason']);
const NUMBER_WITHIN = /(?<!\d)\+?\d{7,15}(?!\d)/g;
const LOOKS_LIKE_NUMBER = /^\+?\d{6,15}$/;
const MAX_STRING = 500;
const MAX_ITEMS = 20;

/**
 * A phone number as logs show it: first 3 and last 2 digits, the rest `*` (`+385*******67`). Up to 5 digits (short codes)
 * and letters (sender names) stay.
 */
export function maskNumber(msisdn: string): string {
  const digits = msisdn.replace(/\D/g, '').length;
  let seen = 0;
  return msisdn.replace(/\d/g, (digit) => {
    seen += 1;
    return seen <= 3 || seen > digits - 2 ? digit : '*';
  });
}

/** An allow-list by type: what it does not know becomes the name of its type. */
function shownValue(value: unknown, masked: boolean, depth: number): unknown {
  switch (typeof value) {
    case 'string': {
      const text = masked && LOOKS_LIKE_NUMBER.test(value) ? maskNumber(value) : value;
      return text.length > MAX_STRING ? `${text.slice(0, MAX_STRING)}...` : text;
    }
    case 'number':
    case 'boolean':
      return value;
    case 'bigint':
      return value.toString();
    case 'undefined':
      return undefined;
    case 'object':
      break;
    default:
      return `[${typeof value}]`;
  }
  if (value === null) return null;
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Error) {
    // Only these: HTTP clients hang whole requests and bodies on their errors. (A message that quotes its input, as
    // JSON.parse's does, is for the caller to keep away.)
    const { name, message, stack } = value;
    const code = (value as { code?: unknown }).code;
    return {
      name,
      message: shownValue(message, false, depth),
      ...(typeof code === 'string' ? { code } : {}),
      stack: stack?.slice(0, 4 * MAX_STRING),
    };
  }
  if (depth >= 2) return Array.isArray(value) ? `[${value.length} items]` : '[object]';
  if (Array.isArray(value)) {
    const items = value.slice(0, MAX_ITEMS).map((item) => shownValue(item, masked, depth + 1));
    if (value.length > MAX_ITEMS) items.push(`... ${value.length - MAX_ITEMS} more`);
    return items;
  }
  return shown(value, depth + 1);
}

function shown(fields: object, depth = 0): Record<string, unknown> {
  if (fields instanceof Error) return { err: shownValue(fields, false, depth) };
  const out: Record<string, unknown> = {};
  for (const name of Object.keys(fields)) {
    const lower = name.toLowerCase();
    const value = (fields as Record<string, unknown>)[name];
    const words = typeof value === 'string' || (typeof value === 'object' && value !== null);
    const said = typeof value === 'string' && PEERS_WORDS.has(lower) ? value.replace(NUMBER_WITHIN, maskNumber) : value;
    out[name] = words && HIDDEN.has(lower) ? '[hidden]' : shownValue(said, NUMBERS.has(lower), depth);
  }
  return out;
}

// ------------------------------------------------------------------------------------------------------------- real one

/** The machine's clock; for realEnv and for the entry points of the store's threads, which have no Env to be given. */
export const realClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout(fn, ms) {
    let left = ms > 0 ? ms : 0;
    let handle: NodeJS.Timeout;
    const arm = (): void => {
      const step = Math.min(left, TIMER_MAX_MS);
      left -= step;
      handle = setTimeout(left > 0 ? arm : fn, step);
    };
    arm();
    return { cancel: () => clearTimeout(handle) };
  },
  sleep: (ms, signal) => sleepOn(realClock, ms, signal),
};

function sleepOn(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = (): void => {
      timer.cancel();
      signal?.removeEventListener('abort', end);
      resolve();
    };
    const timer = clock.setTimeout(end, ms);
    signal?.addEventListener('abort', end, { once: true });
  });
}

const realRandom: Random = {
  bytes: (n) => new Uint8Array(randomBytes(n)),
  float: () => Math.random(),
  uuid: () => randomUUID(),
};

class PinoLog implements Log {
  readonly #pino: pino.Logger;

  constructor(logger: pino.Logger) {
    this.#pino = logger;
  }

  // The level is asked first: on the hot path a line that nobody writes must not cost its fields.
  debug(fields: object, message: string): void {
    if (this.#pino.isLevelEnabled('debug')) this.#pino.debug(shown(fields), message);
  }
  info(fields: object, message: string): void {
    if (this.#pino.isLevelEnabled('info')) this.#pino.info(shown(fields), message);
  }
  warn(fields: object, message: string): void {
    if (this.#pino.isLevelEnabled('warn')) this.#pino.warn(shown(fields), message);
  }
  error(fields: object, message: string): void {
    if (this.#pino.isLevelEnabled('error')) this.#pino.error(shown(fields), message);
  }
  child(fields: object): Log {
    return new PinoLog(this.#pino.child(shown(fields)));
  }
}

/** `14:03:22 warn  lane paused lane=3 until=...`, an error's stack on lines of its own; input is pino's JSON line. */
function prettyLine(line: string): string {
  const { time, level, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  let stack = '';
  const rest = Object.entries(fields).map(([name, value]) => {
    if (name === 'err' && typeof (value as { stack?: unknown } | null)?.stack === 'string') {
      stack = `${(value as { stack: string }).stack.replaceAll(/^/gm, '  ')}\n`;
      return '';
    }
    const plain = typeof value === 'string' && /^[^\s"=]+$/.test(value);
    return ` ${name}=${plain ? value : JSON.stringify(value)}`;
  });
  return `${String(time).slice(11, 19)} ${String(level).padEnd(5)} ${String(msg)}${rest.join('')}\n${stack}`;
}

/** One for the process: it has one stderr, and one exit. */
let stderr: { write(line: string): void } | null = null;

/**
 * Lines to stderr, whatever becomes of it. The main thread never waits for it: lines queue up to the bound, what is over is
 * dropped. A worker has no turn left after its exit, so it writes what each turn said at its end. What cannot be written (a full disk, a terminal
 * that is gone, a reader that ended) is dropped and each later line tries again: the log must never end the work. (pino's own
 * destination throws there, and tries for ever at the exit.)
 */
function standardError(): { write(line: string): void } {
  if (!isMainThread) return byTurns();
  let waiting = '';
  let chunk = Buffer.alloc(0);
  let busy = false;
  function pump(): void {
    if (busy) return;
    if (chunk.length === 0) {
      chunk = Buffer.from(waiting);
      waiting = '';
    }
    if (chunk.length === 0) return;
    busy = true;
    writeFd(STDERR, chunk, 0, chunk.length, null, (error, written) => {
      busy = false;
      if (error?.code === 'EAGAIN') {
        setTimeout(pump, STDERR_AGAIN_MS).unref();
        return;
      }
      chunk = error ? Buffer.alloc(0) : chunk.subarray(written);
      pump();
    });
  }
  process.on('exit', () => {
    // What is being written is the system's already.
    if (!busy) writeNow(chunk);
    writeNow(waiting);
  });
  return {
    write(line) {
      if (waiting.length + line.length > LOG_BUFFER_BYTES) return;
      waiting += line;
      pump();
    },
  };
}

/** One write for the lines of a turn of the event loop: a call of the system for each costs as much as the line. */
function byTurns(): { write(line: string): void } {
  let lines = '';
  let due = false;
  function flush(): void {
    due = false;
    const all = lines;
    lines = '';
    writeNow(all);
  }
  process.on('exit', flush);
  return {
    write(line) {
      if (lines.length + line.length > ATOMIC_BYTES) flush();
      lines += line;
      if (due) return;
      due = true;
      setImmediate(flush);
    },
  };
}

function writeNow(what: string | Buffer): void {
  try {
    if (what.length > 0) writeSync(STDERR, typeof what === 'string' ? Buffer.from(what) : what);
  } catch {
    // Dropped, as said above.
  }
}

/** The environment of a real process; for main and cli only. Times in the log are UTC. */
export function realEnv(options: RealEnvOptions): Env {
  // Loaded by who writes a log: the store's threads need the clock only, and start a third sooner without it.
  const { pino } = createRequire(import.meta.url)('pino') as typeof import('pino');
  stderr ??= standardError();
  const plain = options.destination ?? stderr;
  const destination = options.pretty ? { write: (line: string) => void plain.write(prettyLine(line)) } : plain;
  const logger = pino(
    {
      level: options.level,
      base: null,
      // pino's own would shape errors a second time.
      serializers: { err: (err: unknown) => err },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
  return { clock: realClock, random: realRandom, log: new PinoLog(logger) };
}

// ------------------------------------------------------------------------------------------------------------- for tests

/** A clock that stands still until told to move. */
export interface TestClock extends Clock {
  /**
   * Moves the clock by `ms`, running each timer that falls due on the way at its own instant: in order of time, then of
   * creation, with all promises (and `setImmediate`) settled before the first and after each. Timers made on the way
   * count. Real I/O is not waited for. Throws after 1 000 000 timers in one call (a loop that arms itself with 0 ms).
   */
  advance(ms: number): Promise<void>;
  /** Lets promises settle without moving the clock. */
  settle(): Promise<void>;
  /** How many timers wait. */
  pending(): number;
}

/** A line of the test log, fields as shown. */
export interface LogLine {
  level: 'debug' | 'info' | 'warn' | 'error';
  message: string;
  fields: Record<string, unknown>;
}

export interface TestEnv extends Env {
  clock: TestClock;
  /** What was logged, oldest first, as shown (masked); at most the last 100 000. */
  lines: LogLine[];
}

const TEST_START = 1_767_225_600_000; // 2026-01-01T00:00:00Z
const MAX_LINES = 100_000;
const MAX_TIMERS_PER_ADVANCE = 1_000_000;

interface Pending {
  at: number;
  order: number;
  fn: (() => void) | null;
}

function before(a: Pending, b: Pending): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** A binary heap by (at, order); cancelled entries stay until they surface. */
class TimerHeap {
  readonly #heap: Pending[] = [];

  push(entry: Pending): void {
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = entry;
  }

  peek(): Pending | undefined {
    while (this.#heap.length > 0 && this.#heap[0]!.fn === null) this.pop();
    return this.#heap[0];
  }

  pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
  }
}

function testClock(start: number): TestClock {
  const heap = new TimerHeap();
  let elapsed = 0;
  let order = 0;
  let waiting = 0;
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const clock: TestClock = {
    // Whole ms as Date.now gives; the fraction shows in monotonic only.
    now: () => start + Math.floor(elapsed),
    monotonic: () => elapsed,
    setTimeout(fn, ms) {
      const entry: Pending = { at: elapsed + (ms > 0 ? ms : 0), order: order++, fn };
      heap.push(entry);
      waiting += 1;
      return {
        cancel: () => {
          if (entry.fn !== null) waiting -= 1;
          entry.fn = null;
        },
      };
    },
    sleep: (ms, signal) => sleepOn(clock, ms, signal),
    async advance(ms) {
      const target = elapsed + ms;
      await settle();
      for (let fired = 0; ; fired += 1) {
        const next = heap.peek();
        if (next === undefined || next.at > target) break;
        if (fired >= MAX_TIMERS_PER_ADVANCE) throw new Error(`more than ${MAX_TIMERS_PER_ADVANCE} timers in ${ms} ms`);
        heap.pop();
        // A timer armed before an overlapping advance() may lie behind: the clock never goes back.
        elapsed = Math.max(elapsed, next.at);
        waiting -= 1;
        const fn = next.fn!;
        next.fn = null;
        fn();
        await settle();
      }
      elapsed = Math.max(elapsed, target);
    },
    settle,
    pending: () => waiting,
  };
  return clock;
}

/** mulberry32 (T. Ettinger, public domain): 32 bits of state, enough for tests, the same on every machine. */
function testRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  const random: Random = {
    bytes(n) {
      const out = new Uint8Array(n);
      for (let i = 0; i < n; i += 1) out[i] = next() >>> 24;
      return out;
    },
    float: () => next() / 4_294_967_296,
    uuid() {
      const b = random.bytes(16);
      b[6] = (b[6]! & 0x0f) | 0x40;
      b[8] = (b[8]! & 0x3f) | 0x80;
      const hex = Buffer.from(b).toString('hex');
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
    },
  };
  return random;
}

const watchers = new Set<(line: LogLine) => void>();

/** Whatever any testEnv logs from now on goes to `watch` too, as shown. */
export function watchTestLog(watch: (line: LogLine) => void): void {
  watchers.add(watch);
}

function testLog(lines: LogLine[], bound: Record<string, unknown>): Log {
  const at =
    (level: LogLine['level']) =>
    (fields: object, message: string): void => {
      if (lines.length >= MAX_LINES) lines.splice(0, MAX_LINES / 2);
      const line = { level, message, fields: { ...bound, ...shown(fields) } };
      lines.push(line);
      for (const watch of watchers) watch(line);
    };
  return {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: (fields) => testLog(lines, { ...bound, ...shown(fields) }),
  };
}

/** Virtual time (from `now`, default 2026-01-01 UTC), seeded random, a log kept in memory. Every part is its own. */
export function testEnv(options: { now?: number; seed?: number } = {}): TestEnv {
  const lines: LogLine[] = [];
  return {
    clock: testClock(options.now ?? TEST_START),
    random: testRandom(options.seed ?? 1),
    log: testLog(lines, {}),
    lines,
  };
}
