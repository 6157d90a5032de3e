/** Random sequences on the SQLite engine. POSTCARD_SEEDS sets how many (default 25); a failing seed is in the test's name. */
import { describe, it } from 'vitest';
import { runSequence } from './model.property.ts';
import { openSynchronous } from './sqlite.harness.ts';

const seeds = Number(process.env.POSTCARD_SEEDS ?? '25');

describe('random sequences with crashes keep every promise', () => {
  for (let seed = 1; seed <= seeds; seed++) {
    it(`seed ${seed}`, async () => {
      const h = await openSynchronous();
      try {
        await runSequence(h, seed, 400);
      } finally {
        await h.close();
      }
    });
  }
});
