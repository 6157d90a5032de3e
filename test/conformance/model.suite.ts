/**
 * Histories of verbs on an engine and the model side by side: those that failed once, and random ones, each as long as the life of
 * a few messages. POSTCARD_SEEDS sets how many, POSTCARD_SEED the one seed of all; a failing history is printed as small as it gets.
 */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import type { Harness } from './desk.ts';
import { runHistory } from './model-histories.ts';
import { COUNTEREXAMPLES, history, type Step } from './model-steps.ts';

/** Histories and the shrinking of a failure end here, on a slow machine with fewer. */
const LIMIT_MS = 120_000;

/** `open` gives an empty store whose clock can be moved; `every`: in random histories reads are compared after so many steps. */
export function modelSuite(name: string, open: () => Promise<Harness>, wanted: { runs: number; every: number }): void {
  const runs = Number(process.env.POSTCARD_SEEDS ?? wanted.runs);
  const seed = process.env.POSTCARD_SEED ? { seed: Number(process.env.POSTCARD_SEED) } : {};

  async function run(steps: readonly Step[], every: number): Promise<void> {
    const h = await open();
    try {
      await runHistory(h, steps, every);
    } finally {
      await h.close();
    }
  }

  describe(`the ${name} answers like the model`, () => {
    it.each(COUNTEREXAMPLES)('%s', (_, steps) => run(steps, 1), 60_000);

    it(
      `in ${runs} random histories, with crashes`,
      () =>
        fc.assert(
          fc.asyncProperty(history, (steps) => run(steps, wanted.every)),
          { numRuns: runs, interruptAfterTimeLimit: LIMIT_MS, ...seed },
        ),
      2 * LIMIT_MS,
    );
  });
}
