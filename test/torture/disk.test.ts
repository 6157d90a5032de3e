/**
 * A disk that is really full, under the real engines (G15): a small file system of our own, filled to the last byte. Mounting
 * one needs root. PostgreSQL may go down when its log has no room; whoever runs it starts it again, not us.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Rig } from './cycle.ts';
import { ENGINES } from './engines.ts';
import { eventually, wait } from './server.ts';

const SIZE = { sqlite: '48m', postgres: '256m' };
/** Refusals in a row, without an acceptance between them, that count as "nothing can be written". */
const IN_A_ROW = 20;
const mounts: string[] = [];

afterAll(() => {
  for (const dir of mounts) {
    execFileSync('umount', ['-l', dir]);
    rmSync(dir, { recursive: true, force: true });
  }
});

/** A file system of that size; null = this user may not mount one. */
function mount(size: string): string | null {
  const dir = mkdtempSync(join(tmpdir(), 'postcard-disk-'));
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'tmpfs', dir], { stdio: 'ignore' });
    mounts.push(dir);
    return dir;
  } catch {
    rmSync(dir, { recursive: true, force: true });
    return null;
  }
}

/** Takes every byte that is left. */
function fill(file: string): void {
  const fd = openSync(file, 'a');
  try {
    for (let piece = Buffer.alloc(256 * 1024); piece.byteLength > 0; ) {
      try {
        if (writeSync(fd, piece) === 0) piece = piece.subarray(0, piece.byteLength >> 1);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        piece = piece.subarray(0, piece.byteLength >> 1);
      }
    }
  } finally {
    closeSync(fd);
  }
}

const root = process.getuid?.() === 0;

describe.each(ENGINES)('a full disk under $title', ({ engine, skip }) => {
  const title = root ? '' : ' (skipped: mounting a small file system needs root)';
  it.skipIf(skip || !root)(
    `is answered 503 with Retry-After, and work resumes by itself when there is room${title}`,
    async (context) => {
      const dir = mount(SIZE[engine]);
      if (dir === null) return context.skip('a small file system cannot be mounted here');
      const rig = await Rig.start({ engine, seed: 6, ...(engine === 'sqlite' ? { dir } : { clusterParent: dir }) });
      try {
        const servers = rig.nodes.map((node) => node.server);
        const count = { acknowledged: 0, unanswered: 0, refused: 0 };
        let sending = true;
        const load = rig.load(() => sending, count);
        expect(await eventually(180_000, () => count.acknowledged >= 50)).toBe(true);

        // What the log had reserved is used up first: those answers are true, and counted.
        const ballast = join(dir, 'ballast');
        let since = { ...count };
        const full = await eventually(180_000, () => {
          fill(ballast);
          if (count.acknowledged > since.acknowledged) since = { ...count };
          return count.refused >= since.refused + IN_A_ROW;
        });
        expect(full, 'nothing is acknowledged while nothing can be written').toBe(true);
        expect(rig.violations, 'each refusal is a 503 with Retry-After').toEqual([]);

        rmSync(ballast);
        await wait(100);
        await rig.cluster?.start();
        const before = count.acknowledged;
        expect(await eventually(180_000, () => count.acknowledged >= before + 50), 'it resumes').toBe(true);
        sending = false;
        await load;
        expect(
          rig.nodes.map((node) => node.server),
          'the same processes',
        ).toEqual(servers);
        for (const server of servers) expect(server?.running()).toBe(true);
        await rig.drain(300_000);
        expect(await rig.verdict()).toEqual([]);
        expect(rig.totals.judged).toBe(rig.totals.acknowledged);
        console.log(`${engine}, full disk: ${count.acknowledged} acknowledged, ${count.refused} refused, 0 lost`);
      } finally {
        await rig.close();
      }
    },
  );
});
