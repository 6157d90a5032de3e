/**
 * Random histories on the SQLite engine and the model side by side. POSTCARD_SEEDS sets how many (default 60); a failing one
 * is printed as small as it gets, with its seed.
 */
import fc from 'fast-check';
import { describe, it } from 'vitest';
import { runHistory } from './model-histories.ts';
import { COUNTEREXAMPLES, history } from './model-steps.ts';
import { openSynchronous } from './sqlite.harness.ts';

/** Histories and the shrinking of a failure end here, on a slow machine with fewer. */
const LIMIT_MS = 120_000;
const runs = Number(process.env.POSTCARD_SEEDS ?? '60');

describe('the SQLite engine answers like the model', () => {
  for (const [words, steps] of COUNTEREXAMPLES) {
    it(words, async () => {
      const h = await openSynchronous();
      try {
        await runHistory(h, steps);
      } finally {
        await h.close();
      }
    });
  }

  it(
    `in ${runs} random histories, with crashes`,
    async () => {
      await fc.assert(
        fc.asyncProperty(history, async (steps) => {
          const h = await openSynchronous();
          try {
            await runHistory(h, steps, 4);
          } finally {
            await h.close();
          }
        }),
        {
          numRuns: runs,
          interruptAfterTimeLimit: LIMIT_MS,
          ...(process.env.POSTCARD_SEED ? { seed: Number(process.env.POSTCARD_SEED) } : {}),
        },
      );
    },
    2 * LIMIT_MS,
  );
});
