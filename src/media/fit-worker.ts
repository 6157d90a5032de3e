/**
 * The process in which foreign pictures, sounds and films are decoded: a crash, a bomb or a break-in here is one failed fit. It
 * is given no secrets (an empty environment), watches its own memory, asks the system to be the first to go where memory is
 * short, and runs at a low priority. One job at a time; `fitting.ts` starts it and ends it.
 *
 * Fails: it exits with OUT_OF_MEMORY when it has grown too large, and whenever its parent is gone.
 */
import { writeFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { realClock } from '../env.ts';
import type { AvWant, Encoders } from './av.ts';
import { fitImage, type ImageWant, type Made } from './image.ts';

/** One piece of work for a child. */
export type Job =
  | { id: number; kind: 'image'; bytes: Uint8Array; want: ImageWant }
  | { id: number; kind: 'av'; bytes: Uint8Array; want: AvWant };
/** What came of it. */
export interface JobDone {
  id: number;
  made: Made;
}

/** Resident memory at which the child gives up. */
const MEMORY_BYTES = 1024 * 1024 * 1024;
const LOOK_MS = 50;
const OUT_OF_MEMORY = 86;

let encoders: Promise<Encoders> | null = null;

async function work(job: Job): Promise<Made> {
  if (job.kind === 'image') return fitImage(job.bytes, job.want);
  // Half of the time that a child takes to start, and few need it.
  const { findEncoders, fitAv } = await import('./av.ts');
  encoders ??= findEncoders();
  return fitAv(job.bytes, job.want, await encoders);
}

function watchMemory(): void {
  if (process.memoryUsage.rss() > MEMORY_BYTES) end(OUT_OF_MEMORY);
  realClock.setTimeout(watchMemory, LOOK_MS);
}

/** With what it has started (it leads a process group of its own). */
function end(code: number): void {
  process.exitCode = code;
  try {
    process.kill(-process.pid, 'SIGKILL');
  } catch {
    process.exit(code);
  }
}

function humble(): void {
  try {
    setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
    writeFileSync('/proc/self/oom_score_adj', '800');
  } catch {
    // Not every system has them.
  }
}

if (process.send) {
  humble();
  watchMemory();
  process.on('disconnect', () => end(0));
  process.on('message', (job: Job) => {
    work(job).then(
      (made) => process.send?.({ id: job.id, made } satisfies JobDone),
      () => end(1),
    );
  });
}
