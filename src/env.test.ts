import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import fc from '../test/properties.ts';
import { maskNumber, realEnv, testEnv } from './env.ts';

function captured(level: 'debug' | 'info' | 'silent' = 'debug', pretty = false) {
  const written: string[] = [];
  const env = realEnv({ level, pretty, destination: { write: (line) => void written.push(line) } });
  return { env, written, parsed: () => written.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

describe('the virtual clock', () => {
  it('stands still until it is moved, and moves by exactly what it is told', async () => {
    const { clock } = testEnv({ now: 5_000 });
    expect([clock.now(), clock.monotonic()]).toEqual([5_000, 0]);
    await clock.advance(1_234.5);
    expect([clock.now(), clock.monotonic()]).toEqual([6_234, 1_234.5]);
  });

  it('runs due timers at their own instants, by time and then by creation, and leaves later ones', async () => {
    const { clock } = testEnv({ now: 0 });
    const seen: string[] = [];
    for (const [name, ms] of [
      ['c', 30],
      ['a', 10],
      ['b1', 20],
      ['b2', 20],
      ['late', 41],
    ] as const) {
      clock.setTimeout(() => seen.push(`${name}@${clock.now()}`), ms);
    }
    await clock.advance(40);
    expect(seen).toEqual(['a@10', 'b1@20', 'b2@20', 'c@30']);
    expect([clock.pending(), clock.now()]).toEqual([1, 40]);
  });

  it('lets long chains of promises settle between timers and runs timers made on the way', async () => {
    const { clock } = testEnv({ now: 0 });
    const seen: number[] = [];
    const loop = async (): Promise<void> => {
      for (let i = 0; i < 5; i += 1) {
        await clock.sleep(10);
        for (let hop = 0; hop < 50; hop += 1) await null;
        seen.push(clock.now());
      }
    };
    const done = loop();
    await clock.advance(45);
    expect(seen).toEqual([10, 20, 30, 40]);
    await clock.advance(5);
    await done;
    expect(seen).toEqual([10, 20, 30, 40, 50]);
  });

  it('never runs a cancelled timer, also when cancelled by another one at the same instant', async () => {
    const { clock } = testEnv();
    const seen: string[] = [];
    clock.setTimeout(() => second.cancel(), 10);
    const second = clock.setTimeout(() => seen.push('second'), 10);
    const third = clock.setTimeout(() => seen.push('third'), 20);
    third.cancel();
    third.cancel();
    expect(clock.pending()).toBe(2);
    await clock.advance(100);
    expect([seen, clock.pending()]).toEqual([[], 0]);
  });

  it('treats negative and NaN delays as now', async () => {
    const { clock } = testEnv();
    let ran = 0;
    clock.setTimeout(() => (ran += 1), -5);
    clock.setTimeout(() => (ran += 1), Number.NaN);
    await clock.advance(0);
    expect(ran).toBe(2);
  });

  it('ends a sleep at once when its signal aborts, and leaves no timer', async () => {
    const { clock } = testEnv();
    const stop = new AbortController();
    const woken = clock.sleep(1_000_000, stop.signal);
    stop.abort();
    await woken;
    await clock.sleep(1_000, stop.signal);
    expect([clock.pending(), clock.monotonic()]).toEqual([0, 0]);
  });

  it('fires any set of timers sorted by (instant, creation)', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(50), { maxLength: 40 }), async (delays) => {
        const { clock } = testEnv({ now: 0 });
        const fired: number[] = [];
        delays.forEach((ms, i) => void clock.setTimeout(() => fired.push(i), ms));
        await clock.advance(50);
        const expected = delays.map((_, i) => i).sort((a, b) => delays[a]! - delays[b]! || a - b);
        expect(fired).toEqual(expected);
      }),
      { numRuns: 50 },
    );
  });
});

describe('seeded randomness', () => {
  it('repeats itself for the same seed and differs for another', () => {
    const draw = (seed: number) => {
      const { random } = testEnv({ seed });
      return [random.float(), random.uuid(), Buffer.from(random.bytes(8)).toString('hex')];
    };
    expect(draw(7)).toEqual(draw(7));
    expect(draw(7)).not.toEqual(draw(8));
  });

  it('is mulberry32: the first draws of seed 1 are pinned', () => {
    const { random } = testEnv({ seed: 1 });
    expect([random.float(), random.float()].map((f) => f.toFixed(6))).toEqual(['0.627074', '0.002736']);
  });

  it('gives floats in [0, 1) and version 4 uuids, like the real one', () => {
    for (const { random } of [testEnv({ seed: 3 }), realEnv({ level: 'silent' })]) {
      for (let i = 0; i < 1_000; i += 1) {
        const f = random.float();
        expect(f >= 0 && f < 1).toBe(true);
      }
      expect(random.uuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect(random.bytes(33).length).toBe(33);
    }
  });
});

describe('the real environment', () => {
  it('runs timers, honours cancel and ends a sleep on abort', async () => {
    const { clock } = realEnv({ level: 'silent' });
    clock.setTimeout(() => expect.unreachable(), 0).cancel();
    const stop = new AbortController();
    clock.setTimeout(() => stop.abort(), 1);
    const from = clock.monotonic();
    await clock.sleep(600_000, stop.signal);
    await clock.sleep(1);
    expect(clock.monotonic()).toBeGreaterThan(from);
  });

  it('does not fire a timer of 180 days at once (a plain Node timer would)', async () => {
    const { clock } = realEnv({ level: 'silent' });
    let fired = false;
    const timer = clock.setTimeout(() => (fired = true), 180 * 86_400_000);
    await clock.sleep(5);
    timer.cancel();
    expect(fired).toBe(false);
  });

  it('writes one JSON line per event with level, time, message and the fields of its child', () => {
    const { env, written, parsed } = captured('info');
    env.log.debug({ a: 1 }, 'not shown');
    env.log.child({ role: 'api' }).info({ count: 2 }, 'accepted');
    expect(written[0]!.endsWith('\n')).toBe(true);
    expect(parsed()).toMatchObject([{ level: 'info', role: 'api', count: 2, msg: 'accepted' }]);
    expect(parsed()[0]!.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  });

  it.runIf(existsSync('/dev/full'))('outlives a stderr that cannot be written, and ends when told to', () => {
    const script = (work: string): string =>
      `import { realEnv } from ${JSON.stringify(new URL('./env.ts', import.meta.url).href)};` +
      `const { log, clock } = realEnv({ level: 'info' }); ${work}; process.stdout.write('worked', () => process.exit(0));`;
    const full = openSync('/dev/full', 'w');
    const ran = ["log.info({}, 'one'); await clock.sleep(50); log.info({}, 'two')", "log.info({}, 'at the end')"].map(
      (work) =>
        spawnSync(process.execPath, ['--input-type=module-typescript', '-e', script(work)], {
          stdio: ['ignore', 'pipe', full],
          timeout: 20_000,
          encoding: 'utf8',
        }),
    );
    closeSync(full);
    expect(ran.map(({ status, signal, stdout }) => [status, signal, stdout])).toEqual([
      [0, null, 'worked'],
      [0, null, 'worked'],
    ]);
  });

  it('writes nothing when silent', () => {
    const { env, written } = captured('silent');
    env.log.error({}, 'x');
    expect(written).toEqual([]);
  });

  it('writes a readable line when pretty', () => {
    const { env, written } = captured('info', true);
    env.log.warn({ lane: 3, why: 'carrier asked', list: [1] }, 'lane paused');
    expect(written).toHaveLength(1);
    expect(written[0]).toMatch(/^\d\d:\d\d:\d\d warn {2}lane paused lane=3 why="carrier asked" list=\[1\]\n$/);
    env.log.error(new TypeError('refused'), 'submit failed');
    expect(written[1]).toMatch(/^\d\d:\d\d:\d\d error submit failed\n {2}TypeError: refused\n {6}at /);
  });
});

describe('what a log line shows', () => {
  it('hides content and secrets by name at any depth, in the real and in the test log', () => {
    const fields = {
      body: { x: 'SECRET' },
      Text: 'SECRET',
      content: ['SECRET'],
      authorization: 'App SECRET',
      deep: { title: 'SECRET', list: [{ smil: 'SECRET' }], headers: { authorization: 'SECRET' } },
      id: 'kept',
    };
    const { env, written } = captured();
    env.log.info(fields, 'm');
    env.log.child(fields).error({}, 'm');
    const test = testEnv();
    test.log.child(fields).warn(fields, 'm');
    const all = written.join('') + JSON.stringify(test.lines);
    expect(all).not.toContain('SECRET');
    expect(all.split('kept').length - 1).toBe(3);
  });

  it('masks numbers in what peers say, and leaves their codes', () => {
    const test = testEnv();
    test.log.info({ words: '2003 Address not found (+491710009901, 2003)' }, 'attempt');
    expect(test.lines[0]?.fields).toEqual({ words: '2003 Address not found (+491*******01, 2003)' });
  });

  it('masks numbers under the names that carry them, and leaves ids and sender names', () => {
    const test = testEnv();
    test.log.info(
      { to: '385911234567', recipients: ['+15551230001', '111'], sender: 'My Shop', messageId: '385911234567' },
      'm',
    );
    expect(test.lines[0]!.fields).toEqual({
      to: '385*******67',
      recipients: ['+155******01', '111'],
      sender: 'My Shop',
      messageId: '385911234567',
    });
  });

  it('shows of an error its name, message, code and stack, never what clients hang on it', () => {
    const { env, parsed } = captured();
    const error = Object.assign(new TypeError('refused'), {
      code: 'ECONNREFUSED',
      body: 'SECRET',
      request: { x: 'SECRET' },
    });
    env.log.error({ err: error }, 'm');
    const shown = { name: 'TypeError', message: 'refused', code: 'ECONNREFUSED', stack: expect.any(String) };
    expect(parsed()[0]!.err).toEqual(shown);
    env.log.error(error, 'm');
    expect(parsed()[1]!.err).toEqual(shown);
    expect(JSON.stringify(parsed())).not.toContain('SECRET');
  });

  it('shows counts under hidden names', () => {
    const test = testEnv();
    test.log.info({ bytes: 12, text: null }, 'm');
    expect(test.lines[0]!.fields).toEqual({ bytes: 12, text: null });
  });

  it('bounds strings, lists, depth and bytes, and survives cycles, functions and bigints', () => {
    const { env, parsed } = captured();
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    env.log.info(
      {
        long: 'x'.repeat(10_000),
        list: new Array(100).fill(1),
        buffer: Buffer.from('SECRET'),
        cycle,
        fn: () => 1,
        big: 12n,
        none: null,
      },
      'm',
    );
    const line = parsed()[0]!;
    expect((line.long as string).length).toBe(503);
    expect(line.list).toHaveLength(21);
    expect(line).toMatchObject({ buffer: '[6 bytes]', fn: '[function]', big: '12', none: null });
  });

  it('never shows more than five digits of a number, and keeps its length', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^\+?\d{1,15}$/), (number) => {
        const masked = maskNumber(number);
        expect(masked.length).toBe(number.length);
        expect(masked.replace(/\D/g, '').length).toBeLessThanOrEqual(5);
        expect(maskNumber(masked).replace(/\D/g, '').length).toBeLessThanOrEqual(5);
      }),
    );
    expect(maskNumber('+385911234567')).toBe('+385*******67');
    expect(maskNumber('12345')).toBe('12345');
  });
});
