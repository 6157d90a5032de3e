/**
 * Histories of verbs on an engine and the model side by side: those that failed once, and random ones, each as long as the life of
 * a few messages. POSTCARD_SEEDS sets how many, POSTCARD_SEED (properties.ts) which; a failing history is printed as small as it gets.
 */

import { describe, expect, it } from 'vitest';
import type { Store } from '../../src/store/contract.ts';
import fc from '../properties.ts';
import type { Harness } from './desk.ts';
import { runHistory } from './model-histories.ts';
import { COUNTEREXAMPLES, EARLY, history, type Step } from './model-steps.ts';

/** Histories and the shrinking of a failure end here, on a slow machine with fewer. */
const LIMIT_MS = 120_000;

/** Defects put between the engine and the comparison: what each is, and what it does. Each must be seen. */
const PLANTED: [string, (store: Store) => Partial<Store>][] = [
  [
    'nothing leaves early',
    (store) => ({
      accept: (accept) => store.accept({ ...accept, runs: accept.runs.map(({ earlyMs: _, ...run }) => run) }),
    }),
  ],
  [
    'a carrier is not told which time to keep',
    (store) => ({
      claim: async (...given) => {
        const found = await store.claim(...given);
        return { ...found, claims: found.claims.map(({ earliestAt: _, ...claim }) => claim) };
      },
    }),
  ],
  ['a carrier is not asked to keep or call back what it has', () => ({ callBacks: async () => [] })],
  [
    'a carrier is asked to call back what it should keep',
    (store) => ({
      callBacks: async (...given) => (await store.callBacks(...given)).map(({ earliestAt: _, ...asked }) => asked),
    }),
  ],
  [
    'a carrier is asked twice',
    (store) => {
      return { callBacks: async (...given) => (await store.callBacks(...given)).flatMap((asked) => [asked, asked]) };
    },
  ],
  [
    'what a carrier has early ends with the validity that it had before',
    (store) => ({
      // The move comes to the rows, but too late for what has left.
      bulkSteer: async (account, name, changes) => {
        const moves = changes.some(({ kind }) => kind === 'reschedule');
        if (moves) await store.bulkSteer(account, name, [{ kind: 'reschedule', sendAt: 0 }]);
        return store.bulkSteer(account, name, changes);
      },
    }),
  ],
];

function planted(h: Harness, bug: (store: Store) => Partial<Store>): Harness {
  return new Proxy(h, {
    get: (_, name) => (name === 'store' ? { ...h.store, ...bug(h.store) } : Reflect.get(h, name)),
  });
}

/** `open` gives an empty store whose clock can be moved; `every`: in random histories reads are compared after so many steps. */
export function modelSuite(name: string, open: () => Promise<Harness>, wanted: { runs: number; every: number }): void {
  const runs = Number(process.env.POSTCARD_SEEDS ?? wanted.runs);

  async function run(steps: readonly Step[], every: number, bug?: (store: Store) => Partial<Store>): Promise<void> {
    const h = await open();
    try {
      await runHistory(bug ? planted(h, bug) : h, steps, every);
    } finally {
      await h.close();
    }
  }

  describe(`the ${name} answers like the model`, () => {
    it.each(COUNTEREXAMPLES)('%s', (_, steps) => run(steps, 1), 60_000);

    it.each(PLANTED)('and is seen where %s', async (_, bug) => {
      await run(EARLY, 1, () => ({}));
      await expect(run(EARLY, 1, bug)).rejects.toThrow();
    });

    it(
      `in ${runs} random histories, with crashes`,
      () =>
        fc.assert(
          fc.asyncProperty(history, (steps) => run(steps, wanted.every)),
          { numRuns: runs, interruptAfterTimeLimit: LIMIT_MS },
        ),
      2 * LIMIT_MS,
    );
  });
}
