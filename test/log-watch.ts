/**
 * Set-up of every test file (`vitest.config.ts`): whatever is logged while it runs, by parts under test and by servers that it starts,
 * must show none of the secrets that tests plant (G20, S27). Fails the file whose lines do.
 *
 * Seen: every line of a testEnv, and stderr of every process that is started (all of its threads). What threads of the test's own process
 * write themselves is in the output of the run, which `.ci/run` holds against the same list.
 */
import childProcess, { type ChildProcess } from 'node:child_process';
import { syncBuiltinESMExports } from 'node:module';
import { afterAll, expect } from 'vitest';
import { watchTestLog } from '../src/env.ts';
import { shows } from './planted.ts';

const found: string[] = [];
/** Of a line that is still being written. */
const LINE_MAX = 64 * 1024;

function look(line: string): void {
  const what = shows(line);
  if (what !== null && found.length < 20) found.push(`${what}: ${line.slice(0, 400)}`);
}

watchTestLog(({ message, fields }) => look(`${message} ${JSON.stringify(fields)}`));

function follow(child: ChildProcess): ChildProcess {
  const { stderr } = child;
  if (stderr === null) return child;
  let rest = '';
  const push = stderr.push.bind(stderr);
  // Looked at on its way in, so that whoever reads it meets it as ever.
  stderr.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
    if (typeof chunk === 'string' || Buffer.isBuffer(chunk)) {
      const lines = (rest + chunk.toString()).split('\n');
      rest = (lines.pop() ?? '').slice(0, LINE_MAX);
      lines.forEach(look);
    }
    return push(chunk, encoding);
  };
  return child;
}

const { spawn } = childProcess;
childProcess.spawn = ((...given: Parameters<typeof spawn>) => follow(spawn(...given))) as typeof spawn;
syncBuiltinESMExports();

afterAll(() => {
  expect(found, 'log lines that show planted secrets').toEqual([]);
});
