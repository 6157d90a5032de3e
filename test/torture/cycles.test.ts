/**
 * Ten cycles of torture on each engine (see `cycle.ts` for what must hold), and the proof that the comparison would see what it
 * looks for, side by side. More cycles: `node test/torture/run.ts`.
 */
import { describe, expect, it } from 'vitest';
import { Rig, type RigOptions } from './cycle.ts';
import { ENGINES } from './engines.ts';
import { fateOf, type Taken } from './peers.ts';

const CYCLES = Number(process.env.TORTURE_CYCLES ?? '10');
/** A webhook that failed twice comes again after three minutes. */
const DRAIN_MS = 300_000;

async function withRig(options: RigOptions, act: (rig: Rig) => Promise<void>): Promise<void> {
  const rig = await Rig.start(options);
  try {
    await act(rig);
  } finally {
    await rig.close();
  }
}

describe.concurrent.each(ENGINES)('torture on $title', ({ engine, skip }) => {
  it.skipIf(skip)(`keeps every guarantee over ${CYCLES} cycles of load, faults and healing`, async () => {
    const seed = Number(process.env.TORTURE_SEED ?? Date.now() % 1_000_000);
    await withRig({ engine, seed }, async (rig) => {
      for (let cycle = 0; cycle < CYCLES; cycle++) {
        const result = await rig.cycle({ hooks: cycle < 3 });
        console.log(`${engine} seed ${seed} cycle ${cycle + 1}: ${JSON.stringify(result)}`);
      }
      await rig.drain(DRAIN_MS);
      expect(await rig.verdict()).toEqual([]);
      console.log(`${engine} seed ${seed}: ${JSON.stringify(rig.totals)}`);
      expect(rig.totals.acknowledged).toBeGreaterThan(CYCLES * 10);
      expect(rig.totals.judged).toBe(rig.totals.acknowledged);
    });
  });
});

describe.concurrent('the comparison', () => {
  it('sees a lost message, a second copy, an SMS too many, a second final status and a false 503', async () => {
    await withRig({ engine: 'sqlite', seed: 1 }, async (rig) => {
      await rig.cycle({ faults: ['network'], hooks: false });
      await rig.drain(DRAIN_MS);
      expect(await rig.verdict()).toEqual([]);

      const [copied, texted] = [...rig.mmsc.taken.values()].filter(({ to }) => !fateOf(to).failover) as [Taken, Taken];
      const known = [...rig.receiver.reports.keys()][0] as string;
      await rig.mmsc.journal.write({ kind: 'taken', tx: `${copied.tx}-other`, to: copied.to, id: 'm-x', intact: true });
      await rig.receiver.journal?.write({ id: known, status: 29 });
      rig.smsc.byNumber.set(texted.to, ['t-x']);
      await rig.plant({ told: [{ id: 'own-490000000000', to: '490000000000' }], refused: copied.to });
      await rig.drain(1_000);
      const found = (await rig.verdict()).join('\n');
      expect(found).toContain('lost: own-490000000000');
      expect(found).toContain(`${copied.to} was taken by the carrier under ${copied.tx}, ${copied.tx}-other`);
      expect(found).toContain(`${known}: `);
      expect(found).toContain(` to ${texted.to}: 1 SMS followed, and none was asked for`);
      expect(found).toContain(`${copied.to} was refused (503 or 429), and sent all the same`);
      rig.violations.length = 0;
    });
  });
});
