/**
 * The simulation in the test suite: seeds in a row, the corpus of seeds that failed once, exact replay, and the planted bugs
 * that show what the oracles can see. SIM_SEEDS sets how many seeds (default 25, within a budget of time), SIM_FROM the first;
 * `node test/sim/run.ts` runs any number of them and makes failures small.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { BUGS } from './bugs.ts';
import { planOf } from './plan.ts';
import { type SimResult, simulate } from './sim.ts';

const WANTED = process.env.SIM_SEEDS;
const SEEDS = Number(WANTED ?? 25);
const FROM = Number(process.env.SIM_FROM ?? 1);
/** What the default run may take; asked for a number of seeds, all of them are run. */
const BUDGET_MS = WANTED === undefined ? 8_000 : Number.POSITIVE_INFINITY;
/** A planted bug that is not found by then shows an oracle that sees nothing. */
const BUG_SEEDS = 200;
const PATIENCE = { timeout: 3_600_000 };

/** Empty, or what to look at and how. */
function complaint(result: SimResult): string {
  const { violation, seed } = result;
  if (!violation) return '';
  return `seed ${seed}: ${violation.oracle}: ${violation.message} (node test/sim/run.ts --seeds 1 --from ${seed})`;
}

/** What is known of seeds without a bug: those that show a bug are few, and most were run before. */
const clean = new Map<number, string>();

async function complaintOf(seed: number): Promise<string> {
  const known = clean.get(seed);
  if (known !== undefined) return known;
  const found = complaint(await simulate(seed));
  clean.set(seed, found);
  return found;
}

describe('the simulation', () => {
  it(`keeps every promise over ${SEEDS} seeds from ${FROM}`, PATIENCE, async () => {
    const began = performance.now();
    for (let seed = FROM; seed < FROM + SEEDS; seed++) {
      expect(await complaintOf(seed)).toBe('');
      if (performance.now() - began > BUDGET_MS) break;
    }
  });

  const corpus = readFileSync(new URL('seeds.txt', import.meta.url), 'utf8')
    .split('\n')
    .flatMap((line) => (/^\d+/.test(line) ? [Number.parseInt(line, 10)] : []));
  it.each(corpus)('keeps every promise with seed %i, which failed once', PATIENCE, async (seed) => {
    expect(await complaintOf(seed)).toBe('');
  });

  it('replays a seed exactly, and another one not', PATIENCE, async () => {
    const [first, second, other] = [await simulate(7), await simulate(7), await simulate(8)];
    expect(second.hash).toBe(first.hash);
    expect(second.steps).toBe(first.steps);
    expect(other.hash).not.toBe(first.hash);
  });

  it('makes the same requests when some are taken away', PATIENCE, async () => {
    const only = new Set([1]);
    const whole = await simulate(3);
    const part = await simulate(3, { cuts: { only } });
    expect(part.messages).toBeGreaterThan(0);
    expect(part.messages).toBeLessThan(whole.messages);
    expect(complaint(part)).toBe('');
  });

  it('takes a fault away without moving the others', () => {
    const plan = planOf(5);
    const cut = planOf(5, { off: new Set(['kill']) });
    expect(cut).toEqual({ ...plan, faults: { ...plan.faults, kill: 0 } });
  });
});

describe('the oracles', () => {
  it.each(BUGS.map((bug) => [bug.what, bug] as const))('find that %s', PATIENCE, async (_, bug) => {
    const seeds = [bug.seed, ...Array.from({ length: BUG_SEEDS }, (__, n) => n + 1)];
    for (const seed of seeds) {
      const { violation } = await simulate(seed, { bug });
      if (!violation) continue;
      // Found by what it breaks, not because the simulator itself fell over, and not in a run that fails without it.
      expect(violation.oracle).not.toBe('nothing throws');
      expect(await complaintOf(seed)).toBe('');
      return;
    }
    expect.fail(`not found in ${BUG_SEEDS} seeds`);
  });
});
