/** Threads as main sees them, with threads of a few lines in their place: each does what its name in the query says. */
import { describe, expect, it } from 'vitest';
import type { Config } from '../config.ts';
import { StartError } from './start-error.ts';
import { launch } from './threads.ts';

const WORK = { config: {} as Config, store: null, reportUrl: null };
const THREADS = new URL('./threads.ts', import.meta.url).href;

/** A thread with these duties, and what it was said to have crashed of. */
function thread(code: string) {
  const crashes: string[] = [];
  let crashed = (): void => undefined;
  const crash = new Promise<void>((resolve) => {
    crashed = resolve;
  });
  const source = `import { serveMain } from ${JSON.stringify(THREADS)};\n${code}`;
  const one = launch(
    'carriers',
    (why) => {
      crashes.push(why);
      crashed();
    },
    new URL(`data:text/javascript,${encodeURIComponent(source)}`),
  );
  return { one, crashes, crash };
}
const duties = (more = '') => `serveMain(async ({ reportUrl }) => ({
  place: { url: String(reportUrl), smppPort: 7 }, async stop() {}, ${more}
}));`;
const lines = async (promise: Promise<unknown>): Promise<string[]> => {
  const error: unknown = await promise.then(
    () => null,
    (failed: unknown) => failed,
  );
  return error instanceof StartError ? error.lines : [`no StartError: ${String(error)}`];
};

describe('a thread', () => {
  it('begins, goes, counts, takes a new configuration over, or says why not, and stops once', async () => {
    const { one, crashes } = thread(
      duties(`
        async go(sandbox) { this.sandbox = sandbox; },
        counters() { return { sandbox: this.sandbox }; },
        async reconfigure(next) { if (next.bad) throw new Error('bad carrier'); }`),
    );
    expect(await one.begin({ ...WORK, reportUrl: 'http://there' })).toEqual({ url: 'http://there', smppPort: 7 });
    const sandbox = { url: 'http://box', smppHost: 'box', smppPort: 1 };
    await one.go(sandbox);
    expect(await Promise.all([one.counters(), one.counters()])).toEqual([{ sandbox }, { sandbox }]);
    await one.reconfigure({} as Config);
    await expect(one.reconfigure({ bad: true } as unknown as Config)).rejects.toThrow('bad carrier');
    await one.stop();
    await one.stop();
    expect(crashes).toEqual([]);
  });

  it('that cannot begin, or go, tells main its lines, and can still be stopped', async () => {
    const cannot = thread(`serveMain(async () => {
      throw Object.assign(new Error('x'), { name: 'StartError', lines: ['a port is taken'] });
    });`);
    expect(await lines(cannot.one.begin(WORK))).toEqual(['x']);
    await cannot.one.stop();
    const stuck = thread(duties(`async go() { throw new Error('no lane'); }`));
    await stuck.one.begin(WORK);
    expect(await lines(stuck.one.go(null))).toEqual(['no lane']);
    await stuck.one.stop();
    expect([...cannot.crashes, ...stuck.crashes]).toEqual([]);
  });

  it('that dies while main waits for it is told to who waits, in one line, and to nobody else', async () => {
    const broken = thread('throw new Error("no such module\\n    at line 1");');
    await expect(broken.one.begin(WORK)).rejects.toThrow(/^carriers: no such module$/);
    // Once it is known to be gone, at once.
    await expect(broken.one.begin(WORK)).rejects.toThrow('carriers: no such module');
    await broken.one.stop();
    const leaving = thread(duties('async go() { process.exit(3); }'));
    await leaving.one.begin(WORK);
    await expect(leaving.one.go(null)).rejects.toThrow(/^carriers: ended with code 3$/);
    await expect(leaving.one.go(null)).rejects.toThrow('ended with code 3');
    await leaving.one.stop();
    expect([...broken.crashes, ...leaving.crashes]).toEqual([]);
  });

  it('that dies later is told once, with where it happened', async () => {
    const { one, crashes, crash } = thread(duties('counters() { throw new Error("a bug"); }'));
    await one.begin(WORK);
    await one.go(null);
    void one.counters();
    await crash;
    await one.stop();
    expect(crashes).toEqual([expect.stringMatching(/^carriers: Error: a bug\n +at /)]);
  });

  it('is ended at once where it has no work yet', async () => {
    const { one, crashes } = thread(duties());
    await one.stop();
    await expect(one.begin(WORK)).rejects.toThrow(/^carriers: ended with code/);
    expect(crashes).toEqual([]);
  });
});
