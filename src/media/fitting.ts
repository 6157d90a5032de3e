/**
 * The children that fit media (`fit-worker.ts`): at most AT_ONCE of them, each with one job at a time and a time limit, started
 * when there is work and ended when there was none for a while.
 *
 * Promises: a child that dies or does not answer harms nobody but its job: that is tried once more in a new child where the child
 * died, and then `refused`. At most WAITING jobs wait.
 *
 * Fails: `Busy` when too many wait, or after `close`: nothing is known of the content then, and the caller comes again.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Env, Timer } from '../env.ts';
import type { AvWant } from './av.ts';
import type { Job, JobDone } from './fit-worker.ts';
import type { ImageWant, Made } from './image.ts';

/** Too much waits, or it is closing: try again later. */
export class Busy extends Error {
  override readonly name = 'Busy';
}

/** Where media are made to fit. */
export interface Fitting {
  image(bytes: Uint8Array, want: ImageWant): Promise<Made>;
  av(bytes: Uint8Array, want: AvWant): Promise<Made>;
  /** Ends the children; what is in work rejects with Busy. */
  close(): Promise<void>;
}

/** Children, and so jobs, at a time. */
const AT_ONCE = 2;
const WAITING = 500;
/** From the start of a job; a film is given longer. */
const IMAGE_MS = 60_000;
const AV_MS = 300_000;
/** A child without work ends: it holds 100 MB. */
const IDLE_MS = 30_000;
/** A job whose child died is tried so often. */
const TRIES = 2;

const WORKER = fileURLToPath(new URL('./fit-worker.ts', import.meta.url));

type Unnumbered =
  | { kind: 'image'; bytes: Uint8Array; want: ImageWant }
  | { kind: 'av'; bytes: Uint8Array; want: AvWant };

interface Task {
  job: Unnumbered;
  tries: number;
  resolve(made: Made): void;
  reject(error: Error): void;
}

interface Child {
  process: ChildProcess;
  task: Task | null;
  /** Of the job in work. */
  id: number;
  late: boolean;
  ending: boolean;
  timer: Timer | null;
}

/** Makes the pool; nothing is started before there is work. `worker`: another program (tests). */
export function createFitting(env: Pick<Env, 'clock' | 'log'>, options: { worker?: string } = {}): Fitting {
  const { clock, log } = env;
  const worker = options.worker ?? WORKER;
  const children = new Set<Child>();
  const waiting: Task[] = [];
  let closed = false;
  let jobs = 0;

  function ask(job: Unnumbered): Promise<Made> {
    if (closed) return Promise.reject(new Busy('media are no longer fitted: closing'));
    if (waiting.length >= WAITING) return Promise.reject(new Busy(`${WAITING} pieces of media wait to be fitted`));
    return new Promise((resolve, reject) => {
      waiting.push({ job, tries: 0, resolve, reject });
      next();
    });
  }

  function next(): void {
    for (;;) {
      const at = waiting.findIndex(({ job }) => job.kind === 'image' || !filming());
      if (at < 0) return;
      const free =
        [...children].find((child) => child.task === null && !child.ending) ??
        (children.size < AT_ONCE ? start() : null);
      if (free === null) return;
      give(free, waiting.splice(at, 1)[0] as Task);
    }
  }

  /** Whether a sound or film is in work: one at a time, they take minutes and pictures need not wait for them. */
  function filming(): boolean {
    return [...children].some(({ task }) => task?.job.kind === 'av');
  }

  function start(): Child {
    // Nothing of our environment: it may hold passwords.
    const { PATH = '/usr/local/bin:/usr/bin:/bin', TMPDIR } = process.env;
    const started = fork(worker, [], {
      execArgv: ['--max-old-space-size=256'],
      env: { PATH, ...(TMPDIR ? { TMPDIR } : {}) },
      serialization: 'advanced',
      // libraries talk on stderr about every odd picture.
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      detached: true,
    });
    const child: Child = { process: started, task: null, id: 0, late: false, ending: false, timer: null };
    children.add(child);
    started.on('message', (done: JobDone) => {
      if (child.task === null || done.id !== child.id) return;
      const { task } = child;
      rest(child);
      task.resolve(done.made);
      next();
    });
    const gone = (): void => {
      if (!children.delete(child)) return;
      child.timer?.cancel();
      const { task } = child;
      if (task) failed(task, child.late);
      next();
    };
    started.on('exit', gone);
    started.on('error', (error) => {
      log.error({ err: error }, 'a process that fits media could not be started');
      gone();
    });
    return child;
  }

  function give(child: Child, task: Task): void {
    child.timer?.cancel();
    child.task = task;
    child.id = ++jobs;
    task.tries++;
    child.timer = clock.setTimeout(
      () => {
        child.late = true;
        end(child);
      },
      task.job.kind === 'image' ? IMAGE_MS : AV_MS,
    );
    child.process.send({ ...task.job, id: child.id } satisfies Job, (error) => {
      // Its exit tells the rest.
      if (error) end(child);
    });
  }

  function rest(child: Child): void {
    child.timer?.cancel();
    child.task = null;
    child.timer = clock.setTimeout(() => end(child), IDLE_MS);
  }

  /** The child and what it has started. */
  function end(child: Child): void {
    child.ending = true;
    try {
      if (child.process.pid !== undefined) process.kill(-child.process.pid, 'SIGKILL');
    } catch {
      child.process.kill('SIGKILL');
    }
  }

  function failed(task: Task, late: boolean): void {
    if (closed) {
      task.reject(new Busy('media are no longer fitted: closing'));
      return;
    }
    if (!late && task.tries < TRIES) {
      waiting.unshift(task);
      return;
    }
    const words = late ? 'took too long' : 'needs more memory than is given to it, or breaks its decoder';
    log.warn({ kind: task.job.kind, size: task.job.bytes.byteLength, late }, 'media could not be fitted');
    task.resolve({ kind: 'refused', why: 'type', words });
  }

  return {
    image: (bytes, want) => ask({ kind: 'image', bytes, want }),
    av: (bytes, want) => ask({ kind: 'av', bytes, want }),
    async close() {
      closed = true;
      for (const task of waiting.splice(0)) task.reject(new Busy('media are no longer fitted: closing'));
      const open = [...children];
      await Promise.all(
        open.map(
          (child) =>
            new Promise<void>((resolve) => {
              child.process.once('exit', () => resolve());
              if (child.process.exitCode !== null || child.process.signalCode !== null) resolve();
              end(child);
            }),
        ),
      );
    },
  };
}
