/**
 * Where fuzzed cases come from: a seed gives the same case each time, so what fails names the seed that shows it again. `FUZZ_RUNS` sets
 * how many executions a parser gets (default 20 000); `FUZZ_SEED` where they begin. How sound cases are spoilt is each format's own.
 */
import { type Random, testEnv } from '../../src/env.ts';

export const RUNS = Number(process.env.FUZZ_RUNS ?? 20_000);
const SEED = Number(process.env.FUZZ_SEED ?? 1);

/** Draws, all of one seed. */
export class Dice {
  readonly #random: Random;
  constructor(seed: number) {
    this.#random = testEnv({ seed }).random;
  }
  /** An integer from 0 to n - 1. */
  below(n: number): number {
    return Math.floor(this.#random.float() * n);
  }
  /** So many bytes. */
  noise(n: number): Buffer {
    return Buffer.from(this.#random.bytes(n));
  }
  of<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}

/** Runs `act` once a seed, with a generator of that seed; the first failure names it. Gives how many `act` called good, by saying true. */
export async function many<D extends Dice>(
  Generator: new (seed: number) => D,
  runs: number,
  act: (dice: D, n: number) => unknown,
): Promise<number> {
  let good = 0;
  for (let n = 0; n < runs; n++) {
    try {
      const said = act(new Generator(SEED + n), n);
      // Most are not async, and waiting costs more than many a parser.
      if ((said instanceof Promise ? await said : said) === true) good++;
    } catch (error) {
      throw new Error(`FUZZ_SEED=${SEED + n}`, { cause: error });
    }
  }
  return good;
}
