/**
 * The limit on silence of one connection: who waits for an answer gives up when nothing at all was heard of the server for so long (not
 * when its own answer takes long: others may be before it in the pipeline). One timer for all who wait: a statement is too short a
 * thing for a timer of its own.
 *
 * Fails: `within` rejects with Silence.
 */
import type { Clock, Timer } from '../../env.ts';
import { Silence } from './answers.ts';

/**
 * A limit that runs out so late was not watched: the process was paused or starved, and the answer may lie in the socket. It is
 * given as long again, once.
 */
const LATE_MS = 300;

interface Waiter {
  ms: number;
  /** Silence counts from here, or from what was heard since. */
  since: number;
  excused: boolean;
  reject(error: Error): void;
}

/** Who waits on one connection. */
export class Watch {
  private readonly clock: Pick<Clock, 'monotonic' | 'setTimeout'>;
  private readonly waiting = new Set<Waiter>();
  private heardAt: number;
  private timer: Timer | null = null;
  private timerAt = Number.POSITIVE_INFINITY;
  private stopped = false;

  constructor(clock: Pick<Clock, 'monotonic' | 'setTimeout'>) {
    this.clock = clock;
    this.heardAt = clock.monotonic();
  }

  /** The server has said something. */
  heard(): void {
    this.heardAt = this.clock.monotonic();
  }

  /** What `begin` is answered with, or Silence when nothing was heard for `ms`. */
  within<Result>(
    ms: number,
    begin: (resolve: (value: Result) => void, reject: (error: unknown) => void) => void,
  ): Promise<Result> {
    return new Promise<Result>((resolve, reject) => {
      const waiter: Waiter = { ms, since: this.clock.monotonic(), excused: false, reject };
      this.waiting.add(waiter);
      this.arm(waiter.since + ms);
      begin(
        (value) => {
          this.leave(waiter);
          resolve(value);
        },
        (error) => {
          this.leave(waiter);
          reject(error);
        },
      );
    });
  }

  /** No timer is left behind once nobody waits. */
  stop(): void {
    this.stopped = true;
    if (this.waiting.size === 0) this.disarm();
  }

  private leave(waiter: Waiter): void {
    this.waiting.delete(waiter);
    if (this.stopped && this.waiting.size === 0) this.disarm();
  }

  /** A timer that is there already is early enough, or is looked at again when it has run out. */
  private arm(at: number): void {
    if (this.timerAt <= at) return;
    this.disarm();
    this.timerAt = at;
    this.timer = this.clock.setTimeout(() => this.look(at), Math.max(0, at - this.clock.monotonic()));
  }

  private disarm(): void {
    this.timer?.cancel();
    this.timer = null;
    this.timerAt = Number.POSITIVE_INFINITY;
  }

  private look(due: number): void {
    this.disarm();
    const now = this.clock.monotonic();
    let next = Number.POSITIVE_INFINITY;
    for (const waiter of this.waiting) {
      const left = Math.max(this.heardAt, waiter.since) + waiter.ms - now;
      if (left > 0) next = Math.min(next, now + left);
      else if (now - due >= LATE_MS && !waiter.excused) {
        waiter.excused = true;
        waiter.since = now + LATE_MS - waiter.ms;
        next = Math.min(next, now + LATE_MS);
      } else {
        this.waiting.delete(waiter);
        waiter.reject(new Silence(`no answer within ${waiter.ms} ms`));
      }
    }
    if (next < Number.POSITIVE_INFINITY) this.arm(next);
  }
}
