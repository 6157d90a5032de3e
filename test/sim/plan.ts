/**
 * The swarm: which faults exist in a run and how strong they are, how many nodes, carriers and requests there are. All of it
 * is a function of the seed. `off` and `only` take faults and requests away again, which is how a failure is made smaller.
 */
import { Dice, HOUR, SECOND } from './clockwork.ts';

/** How wrong a node's clock may be. */
export const SKEW_MAX_MS = 600 * SECOND;

/** Everything that may go wrong. Strength 0 = not in this run, 1 = as bad as it gets. */
export const FAULTS = [
  /** A process dies without a word and comes back. */
  'kill',
  /** A process is asked to stop, and comes back. */
  'stop',
  /** A process stands still for seconds to minutes. */
  'pause',
  /** A node's wall clock is wrong by up to 10 minutes. */
  'skew',
  /** Commits take up to seconds. */
  'storeSlow',
  /** The store refuses everything for minutes to an hour. */
  'storeDown',
  /** A commit succeeds and its answer is lost. */
  'lostAnswer',
  /** Hints do not come. */
  'lostHint',
  /** A carrier is unreachable for minutes to hours. */
  'carrierDown',
  'carrierDefers',
  'carrierThrottles',
  'carrierRefuses',
  /** Of a group, it refuses some. */
  'carrierRefusesSome',
  /** Taken, and the answer is lost. */
  'unknownTaken',
  /** Not taken, and nobody can tell. */
  'unknownNotTaken',
  /** Answers take up to the time-out and beyond. */
  'carrierSlow',
  /** It never answers. */
  'carrierHangs',
  /** It never answers and our side does not heed its own time-out. */
  'carrierDeaf',
  /** Reports come before the answer to the submission. */
  'reportEarly',
  'reportLate',
  'reportNever',
  /** Twice, in any order, with what contradicts it. */
  'reportTwice',
  /** Ids with brackets, a host, another case. */
  'reportMangled',
  'endpointDown',
  'endpointFails',
  'endpointHangs',
  /** The customer took it and we did not get the answer. */
  'endpointDeaf',
  'mediaFails',
  /** The wall clock of the store's machine is set, hours forward or minutes back. */
  'clockJump',
] as const;
export type Fault = (typeof FAULTS)[number];

export interface CarrierPlan {
  name: string;
  concurrency: number;
  ratePerSecond: number;
  timeoutMs: number;
  onUnknown: 'hold' | 'retry' | 'fail';
  /** Whether it tells what became of what it took. */
  reports: boolean;
  /** Whether it drops repeated transaction ids. */
  dedups: boolean;
  /** Typical, one way. */
  latencyMs: number;
}

export interface Plan {
  seed: number;
  /** Processes that share the store. One = the embedded store, whose engine dies with its process. */
  nodes: number;
  /** Of phase 1, virtual ms. */
  faultyMs: number;
  accounts: number;
  requests: number;
  carriers: CarrierPlan[];
  /** The SMSC. */
  smsc: CarrierPlan;
  faults: Record<Fault, number>;
  /** When requests are made, virtual ms: most faults strike near one, because an idle system has little to lose. */
  moments: number[];
}

/** An instant of phase 1 at which something goes wrong. */
export function momentOf(plan: Plan, dice: Dice): number {
  if (plan.moments.length === 0 || dice.chance(0.3)) return dice.float() * plan.faultyMs;
  return Math.min(plan.faultyMs, dice.pick(plan.moments) + dice.delay(15 * SECOND, HOUR));
}

/** What is taken away from a run. */
export interface Cuts {
  /** Faults that do not happen. */
  off?: ReadonlySet<Fault>;
  /** The only requests that are made, by index. */
  only?: ReadonlySet<number>;
}

/** Faults that some run must have often, because bugs hide behind them, and those that drown others. */
const LIKELY: Partial<Record<Fault, number>> = { carrierDeaf: 0.15, skew: 0.2, storeDown: 0.3, carrierDown: 0.3 };

/** The plan of a seed. */
export function planOf(seed: number, cuts: Cuts = {}): Plan {
  const dice = new Dice(seed, 'plan');
  const nodes = dice.chance(0.65) ? 1 : dice.int(2, 3);
  const faults = {} as Record<Fault, number>;
  // Some runs are calm: what goes wrong there is not drowned by noise.
  const calm = dice.chance(0.25) ? 0.3 : 1;
  for (const fault of FAULTS) {
    // Drawn from a stream of its own, so that seeds without it stay as they were.
    if (fault === 'clockJump') continue;
    const exists = dice.chance((LIKELY[fault] ?? 0.4) * calm);
    const strength = 0.1 + 0.9 * dice.float();
    faults[fault] = exists && !cuts.off?.has(fault) ? strength : 0;
  }
  const jumps = new Dice(seed, 'clockJump');
  faults.clockJump = jumps.chance(0.2) && !cuts.off?.has('clockJump') ? 0.1 + 0.9 * jumps.float() : 0;
  if (nodes === 1 && faults.skew > 0) faults.skew = 0;
  const carriers = Array.from({ length: dice.int(1, 2) }, (_, n): CarrierPlan => {
    const timeoutMs = dice.pick([2000, 5500, 10_000, 30_000]);
    return {
      name: `mmsc${n}`,
      concurrency: dice.pick([1, 2, 4, 16]),
      ratePerSecond: dice.pick([0, 0, 0, 0.5, 3]),
      timeoutMs,
      onUnknown: dice.pick(['hold', 'retry', 'fail'] as const),
      reports: dice.chance(0.9),
      dedups: dice.chance(0.5),
      latencyMs: Math.min(dice.pick([10, 20, 200, 2000]), timeoutMs / 5),
    };
  });
  const sms = new Dice(seed, 'smsc');
  const smsc: CarrierPlan = {
    name: 'smsc',
    concurrency: sms.pick([1, 4, 16]),
    ratePerSecond: sms.pick([0, 0, 3]),
    timeoutMs: sms.pick([2000, 10_000]),
    onUnknown: sms.pick(['hold', 'retry', 'fail'] as const),
    reports: true,
    dedups: false,
    latencyMs: sms.pick([10, 200]),
  };
  return {
    seed,
    nodes,
    faultyMs: dice.between(1, 8) * HOUR,
    accounts: dice.int(1, 3),
    requests: dice.int(4, 30),
    carriers,
    smsc,
    faults,
    moments: [],
  };
}
