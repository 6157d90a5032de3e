/** The pool of children with children that misbehave, and with the real one. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { hostile, photo } from '../../test/corpus/corpus.ts';
import { testEnv } from '../env.ts';
import { Busy, createFitting, type Fitting } from './fitting.ts';
import type { ImageWant } from './image.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-fitting-'));
const WANT: ImageWant = { types: ['image/jpeg'], width: 64, height: 64, most: 10_000, aim: 9_000 };
const BYTES = Buffer.from('a picture');
let open: Fitting | null = null;

afterEach(async () => {
  await open?.close();
  open = null;
});
afterAll(() => rmSync(dir, { recursive: true }));

let programs = 0;

/** Not gone, and no mere entry that waits to be read by whoever has inherited it. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** A pool whose child is this program; `answer(job, made)` is there for it. */
function pool(program: string): { fitting: Fitting; env: ReturnType<typeof testEnv> } {
  const file = join(dir, `child${++programs}.mjs`);
  writeFileSync(file, `const answer = (job, made) => process.send({ id: job.id, made });\n${program}`);
  const env = testEnv();
  const fitting = createFitting(env, { worker: file });
  open = fitting;
  return { fitting, env };
}

const same = `{ kind: 'same', from: { type: String(process.pid), bytes: job.bytes.length } }`;

describe('the children that fit media', () => {
  it('answers what the child answers', async () => {
    const { fitting } = pool(`process.on('message', (job) => answer(job, ${same}))`);
    expect(await fitting.image(BYTES, WANT)).toMatchObject({ kind: 'same', from: { bytes: BYTES.length } });
  });

  it('are two at most, and each does one thing at a time', async () => {
    const { fitting } = pool(`
      let busy = 0;
      process.on('message', (job) => {
        busy++;
        const most = busy;
        setTimeout(() => { busy--; answer(job, { kind: 'same', from: { type: String(process.pid), bytes: most } }); }, 20);
      });`);
    const all = await Promise.all(Array.from({ length: 12 }, () => fitting.image(BYTES, WANT)));
    const facts = all.map((made) => (made.kind === 'same' ? made.from : expect.fail()));
    expect(new Set(facts.map(({ type }) => type)).size).toBe(2);
    expect(facts.every(({ bytes }) => bytes === 1)).toBe(true);
  });

  it('leave one for pictures while films are made', async () => {
    const { fitting } = pool(`process.on('message', (job) => { if (job.kind === 'image') answer(job, ${same}); })`);
    const want = { ...WANT, type: 'video/mp4' };
    const films = [1, 2, 3].map(() => fitting.av(BYTES, want).catch((error: Error) => error));
    for (let n = 0; n < 3; n++) expect(await fitting.image(BYTES, WANT)).toMatchObject({ kind: 'same' });
    await fitting.close();
    expect((await Promise.all(films)).every((one) => one instanceof Busy)).toBe(true);
  });

  it('cost only their job when they die, and that is tried once more', async () => {
    const { fitting } = pool(`
      process.on('message', (job) => {
        if (Buffer.from(job.bytes).toString() === 'a picture') process.abort();
        answer(job, ${same});
      });`);
    const [dead, alive] = await Promise.all([fitting.image(BYTES, WANT), fitting.image(Buffer.from('another'), WANT)]);
    expect(dead).toMatchObject({ kind: 'refused', why: 'type', words: expect.stringContaining('memory') });
    expect(alive).toMatchObject({ kind: 'same' });
  });

  it('do the job in a new child where the first died of something else', async () => {
    const flag = join(dir, 'died');
    const { fitting } = pool(`
      import { existsSync, writeFileSync } from 'node:fs';
      process.on('message', (job) => {
        if (!existsSync('${flag}')) { writeFileSync('${flag}', ''); process.exit(1); }
        answer(job, ${same});
      });`);
    expect(await fitting.image(BYTES, WANT)).toMatchObject({ kind: 'same' });
  });

  it('are ended when they take too long, and with them what they started', async () => {
    const file = join(dir, 'started');
    const { fitting, env } = pool(`
      import { spawn } from 'node:child_process';
      import { writeFileSync } from 'node:fs';
      process.on('message', () => writeFileSync('${file}', String(spawn('sleep', ['600']).pid)));`);
    const late = fitting.image(BYTES, WANT);
    let settled = false;
    void late.then(() => {
      settled = true;
    });
    await expect.poll(() => existsSync(file) && readFileSync(file, 'utf8')).toMatch(/^\d+$/);
    const started = Number(readFileSync(file, 'utf8'));
    await env.clock.advance(59_000);
    expect(settled).toBe(false);
    process.kill(started, 0);
    await env.clock.advance(1_500);
    expect(await late).toMatchObject({ kind: 'refused', words: 'took too long' });
    await expect.poll(() => isRunning(started)).toBe(false);
  });

  it('end when there is nothing to do', async () => {
    const { fitting, env } = pool(`process.on('message', (job) => answer(job, ${same}))`);
    const pid = async (): Promise<string> => {
      const made = await fitting.image(BYTES, WANT);
      return made.kind === 'same' ? made.from.type : expect.fail();
    };
    const first = await pid();
    expect(await pid()).toBe(first);
    await env.clock.advance(31_000);
    expect(await pid()).not.toBe(first);
  });

  it('are given nothing of our environment', async () => {
    process.env.POSTCARD_API_KEY = 'a secret';
    const { fitting } = pool(
      `process.on('message', (job) => answer(job, { kind: 'same', from: { type: Object.keys(process.env).join(), bytes: 0 } }))`,
    );
    const made = await fitting.image(BYTES, WANT);
    delete process.env.POSTCARD_API_KEY;
    expect(made.kind === 'same' && made.from.type).not.toContain('POSTCARD');
  });

  it('take no more when too many wait, and none after the close', async () => {
    const { fitting } = pool(`process.on('message', () => undefined)`);
    const waiting = Array.from({ length: 502 }, () => fitting.image(BYTES, WANT).catch((error: Error) => error));
    await expect(fitting.image(BYTES, WANT)).rejects.toThrow(Busy);
    await fitting.close();
    expect((await Promise.all(waiting)).every((one) => one instanceof Busy)).toBe(true);
    await expect(fitting.image(BYTES, WANT)).rejects.toThrow(Busy);
  });
});

describe('the real child', () => {
  it('makes a picture fit, and lives on after what is hostile', async () => {
    const fitting = createFitting(testEnv());
    open = fitting;
    const bytes = await photo(300, 200).jpeg().toBuffer();
    expect(await fitting.image(bytes, WANT)).toMatchObject({ kind: 'made', to: { width: 64, height: 43 } });
    for (const [name, sample] of Object.entries(await hostile())) {
      const made = await fitting.image(sample.bytes, WANT);
      if (made.kind === 'made') expect(made.bytes.length, name).toBeLessThanOrEqual(WANT.most);
      else expect(made, name).toMatchObject({ kind: 'refused' });
    }
    expect(await fitting.image(bytes, WANT)).toMatchObject({ kind: 'made' });
  });
});
