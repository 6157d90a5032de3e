/**
 * `node test/sim/run.ts --seeds 200 [--from N] [--bug NAME] [--minutes M] [--keep-going]`: many seeds in a row, with totals. On a
 * violation it makes the run smaller (each fault away, requests away) as long as the same promise is still broken, and prints
 * what is left with the last 50 events of the message concerned. Exit code 1 if any seed failed.
 */
import { asked, refuse } from '../command.ts';
import { BUGS } from './bugs.ts';
import { HOUR, MINUTE, SECOND } from './clockwork.ts';
import { type Cuts, FAULTS } from './plan.ts';
import { type Bug, type SimResult, simulate } from './sim.ts';

const LAST = 50;

const USAGE =
  'usage: node test/sim/run.ts [--seeds 200] [--from 1] [--bug NAME] [--minutes 600] [--keep-going] [--no-shrink] [--trace]';

const values = asked(USAGE, {
  seeds: { type: 'string', default: '200' },
  from: { type: 'string', default: '1' },
  bug: { type: 'string' },
  minutes: { type: 'string', default: '600' },
  'keep-going': { type: 'boolean', default: false },
  trace: { type: 'boolean', default: false },
  'no-shrink': { type: 'boolean', default: false },
});
const [seeds, from] = [Number(values.seeds), Number(values.from)];
// None at all would be no violation.
if (!Number.isInteger(seeds) || seeds < 1 || !Number.isInteger(from))
  refuse('--seeds and --from are whole numbers', USAGE);
if (!(Number(values.minutes) > 0)) refuse('--minutes is a number above 0', USAGE);

function clock(ms: number): string {
  const two = (n: number): string => String(Math.floor(n)).padStart(2, '0');
  return `${two(ms / HOUR)}:${two((ms % HOUR) / MINUTE)}:${two((ms % MINUTE) / SECOND)}.${String(Math.floor(ms % SECOND)).padStart(3, '0')}`;
}

/** Takes away whatever is not needed for the same promise to be broken. */
async function shrink(found: SimResult, bug: Bug | undefined): Promise<{ result: SimResult; cuts: Cuts }> {
  let cuts: { off: Set<(typeof FAULTS)[number]>; only: Set<number> } = {
    off: new Set(FAULTS.filter((fault) => found.plan.faults[fault] === 0)),
    only: new Set(Array.from({ length: found.plan.requests }, (_, index) => index)),
  };
  let result = found;
  const still = async (smaller: typeof cuts): Promise<boolean> => {
    const again = await simulate(found.seed, { cuts: smaller, ...(bug ? { bug } : {}) });
    if (again.violation?.oracle !== found.violation?.oracle) return false;
    result = again;
    cuts = smaller;
    return true;
  };
  for (let size = Math.ceil(cuts.only.size / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    const all = [...cuts.only];
    for (let at = 0; at < all.length; at += size) {
      const gone = new Set(all.slice(at, at + size));
      const only = new Set([...cuts.only].filter((index) => !gone.has(index)));
      if (only.size > 0 && only.size < cuts.only.size) await still({ ...cuts, only });
    }
  }
  for (const fault of FAULTS) if (!cuts.off.has(fault)) await still({ ...cuts, off: new Set([...cuts.off, fault]) });
  return { result, cuts };
}

function print(result: SimResult, cuts: Cuts): void {
  const { violation, plan } = result;
  if (!violation) return;
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  say(`\nseed ${result.seed}: ${violation.oracle}\n  ${violation.message}`);
  say(`  at ${clock(violation.at)}, messages ${violation.nos.join(' ') || 'none'}, hash ${result.hash}`);
  const faults = FAULTS.filter((fault) => plan.faults[fault] > 0).map(
    (fault) => `${fault} ${plan.faults[fault].toFixed(2)}`,
  );
  say(`  nodes ${plan.nodes}, faults: ${faults.join(', ') || 'none'}`);
  say(`  requests: ${cuts.only ? [...cuts.only].join(' ') : plan.requests}`);
  for (const carrier of plan.carriers) say(`  ${JSON.stringify(carrier)}`);
  const about = result.lines.filter(
    (line) => line.nos.length === 0 || line.nos.some((no) => violation.nos.includes(no)),
  );
  for (const line of about.slice(-LAST))
    say(`  ${clock(line.at)} ${line.text}${line.nos.length > 0 ? ` [${line.nos.join(' ')}]` : ''}`);
}

const bug = values.bug === undefined ? undefined : BUGS.find((one) => one.name === values.bug);
if (values.bug !== undefined && !bug) refuse(`no such bug; there are ${BUGS.map((one) => one.name).join(', ')}`, USAGE);
const began = performance.now();
const total = { seeds: 0, hours: 0, messages: 0, submissions: 0, steps: 0, skipped: 0, failed: 0 };
for (let seed = from; seed < from + seeds; seed++) {
  const result = await simulate(seed, bug ? { bug } : {});
  total.seeds++;
  total.hours += result.hours;
  total.messages += result.messages;
  total.submissions += result.submissions;
  total.steps += result.steps;
  total.skipped += result.skipped;
  if (values.trace) {
    for (const line of result.lines) process.stdout.write(`${clock(line.at)} ${line.text} [${line.nos.join(' ')}]\n`);
  }
  if (result.violation) {
    total.failed++;
    const small = values['no-shrink'] ? { result, cuts: {} } : await shrink(result, bug);
    print(small.result, small.cuts);
    if (!values['keep-going']) break;
  }
  if (performance.now() - began > Number(values.minutes) * MINUTE) break;
}
const seconds = (performance.now() - began) / 1000;
process.stdout.write(
  `\n${total.seeds} seeds from ${from}${bug ? ` with ${bug.name}` : ''}: ${Math.round(total.hours)} simulated hours, ` +
    `${total.messages} messages, ${total.submissions} submissions, ${total.steps} steps (${total.skipped} idle polls passed over), ` +
    `${total.failed} violations, ${seconds.toFixed(1)} s (${((1000 * seconds) / total.seeds).toFixed(0)} ms a seed)\n`,
);
process.exitCode = total.failed > 0 ? 1 : 0;
