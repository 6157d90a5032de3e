/**
 * A door under ten times its load, whole: `Places` and `Pace` in a thread whose turns are arithmetic, before a store that commits what
 * came during the last commit. What is held here is that those who are let in keep their pace and the store is kept busy, on machines
 * of several speeds, with any number of connections.
 */
import { describe, expect, it } from 'vitest';
import { PACE_MS, Pace, Places } from './limits.ts';

/** What things cost a machine, in ms. */
interface Machine {
  /** Of the thread: a request read and refused, told so, read and taken, answered. */
  read: number;
  tell: number;
  take: number;
  answer: number;
  /** Of the store: a commit, and each message in it. */
  commit: number;
  each: number;
}
const QUICK: Machine = { read: 0.02, tell: 0.015, take: 0.15, answer: 0.02, commit: 3, each: 0.1 };
const slower = (times: number): Machine => ({
  read: QUICK.read * times,
  tell: QUICK.tell * times,
  take: QUICK.take * times,
  answer: QUICK.answer * times,
  commit: QUICK.commit * times,
  each: QUICK.each * times,
});
const AWAY_MS = 0.1;

interface Request {
  sent: number;
  account: number;
  began: number;
  entered: number;
}

/** In the order of their times: they are added nearly in order, so the place is found from the end. */
class Line {
  readonly #all: { at: number; request: Request }[] = [];
  #first = 0;
  add(at: number, request: Request): void {
    let n = this.#all.length;
    while (n > this.#first && (this.#all[n - 1]?.at as number) > at) n--;
    this.#all.splice(n, 0, { at, request });
  }
  get next(): number {
    return this.#all[this.#first]?.at ?? Number.POSITIVE_INFINITY;
  }
  /** All that have come by `at`. */
  *by(at: number): Generator<Request> {
    while (this.next <= at) yield (this.#all[this.#first++] as { request: Request }).request;
  }
}

/** One door and what it has learnt. */
function door(machine: Machine, held = true) {
  const [places, pace] = [new Places(), new Pace()];
  let start = 0;

  /**
   * `connections` clients for `ms`: each asks `rate / connections` times a second, or, without a rate, again as soon as it has its
   * answer. Of those sent in the second half: the p99 of those let in, how many were let in and refused a second.
   * (The first moment is another matter: a rush of `places` is let in before anybody is refused, and waits for itself.)
   */
  function run({ connections, ms, rate = 0 }: { connections: number; ms: number; rate?: number }) {
    const [arrivals, commits] = [new Line(), new Line()];
    const waiting: Request[] = [];
    const queue: Request[] = [];
    let [now, storeFree, period] = [start, start, Number.POSITIVE_INFINITY];
    const end = start + ms;
    const took: number[] = [];
    let refused = 0;
    const gap = rate === 0 ? 0 : 1000 / rate;
    const ask = (account: number, at: number): void => {
      if (at < end) arrivals.add(at, { sent: at, account, began: 0, entered: 0 });
    };
    const told = ({ account, sent }: Request): void => {
      now += machine.tell;
      if (sent > start + ms / 2) refused++;
      if (rate === 0) ask(account, now + AWAY_MS);
    };
    for (let n = 0; n < (rate === 0 ? connections : (ms / 1000) * rate); n++) {
      ask(n % 2, start + (rate === 0 ? n * 0.001 : n * gap));
    }
    for (;;) {
      if (queue.length > 0 && storeFree <= now) {
        storeFree = now + machine.commit + queue.length * machine.each;
        for (const request of queue.splice(0)) commits.add(storeFree, request);
      }
      const turn = Math.max(now, Math.min(arrivals.next, commits.next, period));
      if (turn === Number.POSITIVE_INFINITY) break;
      now = turn;
      if (period <= turn) {
        let left = pace.next(waiting.length, turn - period);
        period = left > 0 ? turn + PACE_MS : Number.POSITIVE_INFINITY;
        while (left-- > 0) told(waiting.shift() as Request);
      }
      for (const request of commits.by(turn)) {
        now += machine.answer;
        places.leave(request.account, { ms: now - request.began, waited: request.entered - request.began }, now);
        if (request.sent > start + ms / 2) took.push(now - request.sent);
        if (rate === 0) ask(request.account, now + AWAY_MS);
      }
      for (const request of arrivals.by(turn)) {
        now += machine.read;
        if (places.free(request.account, now)) {
          now += machine.take;
          places.enter(request.account, now);
          queue.push({ ...request, began: turn, entered: now });
        } else if (!held || pace.free(waiting.length)) {
          if (period === Number.POSITIVE_INFINITY && held) period = turn + PACE_MS;
          told(request);
        } else {
          if (period === Number.POSITIVE_INFINITY) period = turn + PACE_MS;
          waiting.push(request);
        }
      }
    }
    start = Math.max(now, end) + 5_000;
    const perSecond = (count: number): number => count / (ms / 2000);
    return {
      p99: took.sort((a, b) => a - b)[Math.floor(took.length * 0.99)] ?? 0,
      done: perSecond(took.length),
      refused: perSecond(refused),
    };
  }
  return run;
}

describe('a door', () => {
  it.each([
    ['a quick machine, 640 connections', QUICK, 640],
    ['a quick machine, 5 000 connections', QUICK, 5_000],
    ['one three times slower, 640 connections', slower(3), 640],
    ['one three times slower, 5 000 connections', slower(3), 5_000],
    ['one ten times slower, 640 connections', slower(10), 640],
    ['a slow disk, 640 connections', { ...QUICK, commit: 30 }, 640],
  ])('keeps the pace of those let in when ten times as many ask without a pause: %s', (_name, machine, connections) => {
    const run = door(machine);
    const most = run({ connections: 64, ms: 4_000 });
    expect(most.refused).toBe(0);
    const calm = run({ connections: 64, ms: 8_000, rate: most.done / 4 });
    expect(calm.refused).toBe(0);
    const over = run({ connections, ms: 8_000 });
    expect(over.refused).toBeGreaterThan(0);
    // The aim is 3. Here nothing else takes the machine's time, so more than 2 would be the mechanism's own fault.
    expect(over.p99 / calm.p99).toBeLessThan(2);
    expect(over.done).toBeGreaterThan(most.done * 0.45);
  });

  it('loses most of what it could do where refusals are told as fast as they can be', () => {
    const at = (held: boolean) => {
      const run = door(QUICK, held);
      run({ connections: 64, ms: 8_000, rate: 1_000 });
      return run({ connections: 640, ms: 8_000 });
    };
    const [paced, atOnce] = [at(true), at(false)];
    expect(atOnce.refused).toBeGreaterThan(4 * paced.refused);
    expect(atOnce.done).toBeLessThan(paced.done / 2);
  });
});
