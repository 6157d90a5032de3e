/** What is kept of a start for the next one: node's own cache, in every thread, and nothing where it is switched off. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'postcard-compiled-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Where a process keeps what it compiled, by its main thread and by a thread of it. */
function places(env: Record<string, string>): { main: string | null; thread: string | null } {
  const script = `
    import { once } from 'node:events';
    import { Worker } from 'node:worker_threads';
    import { keepCompiled } from ${JSON.stringify(new URL('./compiled.ts', import.meta.url).href)};
    const main = keepCompiled(${JSON.stringify(dir)});
    const code = "require('node:worker_threads').parentPort.postMessage(require('node:module').getCompileCacheDir() ?? null)";
    const [thread] = await once(new Worker(code, { eval: true, execArgv: [] }), 'message');
    console.log(JSON.stringify({ main, thread }));`;
  const options = { env: { PATH: process.env.PATH, ...env }, encoding: 'utf8' } as const;
  return JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', script], options));
}

describe('what was compiled', () => {
  it('is kept by all threads of a server in one place that is there', () => {
    const { main, thread } = places({});
    expect(main).not.toBeNull();
    expect(existsSync(main as string)).toBe(true);
    expect(thread).toBe(main);
  });

  it('is kept where NODE_COMPILE_CACHE says, and nowhere when it is switched off', () => {
    const own = join(dir, 'own');
    expect(places({ NODE_COMPILE_CACHE: own }).main?.startsWith(own)).toBe(true);
    expect(places({ NODE_DISABLE_COMPILE_CACHE: '1' })).toEqual({ main: null, thread: null });
  });

  it('is kept in the data directory where it cannot be beside the program, which others then cannot enter', () => {
    const program = join(dir, 'program');
    mkdirSync(join(program, 'src', 'cli'), { recursive: true });
    writeFileSync(join(program, 'package.json'), '{"type":"module"}');
    writeFileSync(join(program, 'node_modules'), 'no directory');
    copyFileSync(new URL('./compiled.ts', import.meta.url), join(program, 'src', 'cli', 'compiled.ts'));
    const data = join(dir, 'data');
    const script = `
      import { keepCompiled } from ${JSON.stringify(pathToFileURL(join(program, 'src', 'cli', 'compiled.ts')).href)};
      process.umask(0);
      console.log(keepCompiled(${JSON.stringify(data)}));`;
    const options = { env: { PATH: process.env.PATH }, encoding: 'utf8' } as const;
    const kept = execFileSync(process.execPath, ['--input-type=module', '-e', script], options);
    expect(kept.startsWith(join(data, 'compiled'))).toBe(true);
    expect([data, join(data, 'compiled')].map((one) => (statSync(one).mode & 0o777).toString(8))).toEqual([
      '700',
      '700',
    ]);
  });
});
