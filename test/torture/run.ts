/**
 * `node test/torture/run.ts --engine sqlite|postgres --cycles N [--seed S] [--faults A,B] [--record FILE]`: any number of torture
 * cycles with all faults, or those; a line for each, then the totals, which `--record` adds to a file as a row of a table
 * (bench/TORTURE.md). An interrupt ends the load and judges what there is. Exit code 1 when a guarantee was broken; the
 * directories of such a run stay for a look.
 */
import { appendFileSync } from 'node:fs';
import { asked, refuse } from '../command.ts';
import { type Engine, FAULTS, Rig } from './cycle.ts';

const USAGE =
  'usage: node test/torture/run.ts [--engine sqlite|postgres] [--cycles 10] [--seed S] [--faults A,B] [--record FILE]';

const values = asked(USAGE, {
  engine: { type: 'string', default: 'sqlite' },
  cycles: { type: 'string', default: '10' },
  seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  faults: { type: 'string' },
  record: { type: 'string' },
});
const engine = values.engine as Engine;
const cycles = Number(values.cycles);
const seed = Number(values.seed);
if (!['sqlite', 'postgres'].includes(engine)) refuse('--engine is sqlite or postgres', USAGE);
if (!Number.isInteger(cycles) || cycles < 1 || !Number.isInteger(seed))
  refuse('--cycles and --seed are whole numbers', USAGE);
const faults = values.faults?.split(',');
const wrong = faults?.find((name) => !FAULTS[engine].includes(name));
if (wrong !== undefined) {
  refuse(`no such fault on ${engine}: ${wrong}; there are ${[...new Set(FAULTS[engine])].join(', ')}`, USAGE);
}

/** Webhooks that failed three times in a row come again after 1, 2 and 5 minutes. */
const DRAIN_MS = 15 * 60_000;

const began = Date.now();
const rig = await Rig.start({ engine, seed });
let interrupted = false;
process.on('SIGINT', () => {
  interrupted = true;
});
let done = 0;
let told = 0;
function tellViolations(): void {
  for (const words of rig.violations.slice(told)) console.log(`  VIOLATION ${words}`);
  told = rig.violations.length;
}

try {
  for (; done < cycles && !interrupted; done++) {
    // The last cycles keep away from the receiver, so that the end need not wait for its retries.
    const result = await rig.cycle({
      longPauses: true,
      hooks: cycles - done > 20 || done % 4 === 0,
      ...(faults ? { faults } : {}),
    });
    console.log(
      `${String(done + 1).padStart(4)}  ${String(result.acknowledged).padStart(5)} acknowledged  ` +
        `${String(result.judged).padStart(5)} judged  ${String(result.carried).padStart(4)} carried  ` +
        `${String(result.unanswered).padStart(3)} unanswered  ${String(result.refused).padStart(3)} refused  ` +
        `${(result.healMs / 1000).toFixed(1).padStart(5)} s to heal  ${(result.tookMs / 1000).toFixed(1).padStart(5)} s  ${result.faults.join(' + ')}`,
    );
    tellViolations();
  }
  let next = 0;
  await rig.drain(DRAIN_MS, (open) => {
    if (Date.now() < next) return;
    console.log(`      waiting for ${open}`);
    next = Date.now() + 15_000;
  });
  await rig.verdict();
} catch (error) {
  rig.violate(`the torture itself failed: ${error instanceof Error ? error.stack : String(error)}`);
} finally {
  await rig.close();
}
tellViolations();
const { totals } = rig;
const minutes = ((Date.now() - began) / 60_000).toFixed(1);
const counts = Object.entries(totals.faults)
  .sort()
  .map(([name, count]) => `${name} ${count}`)
  .join(', ');
console.log(`
engine ${engine}, seed ${seed}, ${done} cycles, ${minutes} min
requests ${totals.requests}, acknowledged messages ${totals.acknowledged}, judged ${totals.judged}, unanswered ${totals.unanswered}, refused ${totals.refused}
further copies at the carrier ${totals.copies} (all after unknown outcomes unless listed), further reports ${totals.repeatedReports}
SMS that followed ${totals.texts}, further copies of those ${totals.textCopies}
longest healing ${(totals.longestHealMs / 1000).toFixed(1)} s
faults: ${counts}
violations ${rig.violations.length}`);
if (values.record !== undefined) {
  const row = [
    new Date().toISOString().slice(0, 10),
    engine,
    seed,
    done,
    minutes,
    totals.requests,
    totals.acknowledged,
    totals.judged,
    totals.unanswered,
    totals.refused,
    totals.copies,
    totals.repeatedReports,
    `${totals.texts} (${totals.textCopies})`,
    `${(totals.longestHealMs / 1000).toFixed(1)} s`,
    rig.violations.length,
    counts,
  ];
  appendFileSync(values.record, `| ${row.join(' | ')} |\n`);
}
process.exit(rig.violations.length > 0 ? 1 : 0);
