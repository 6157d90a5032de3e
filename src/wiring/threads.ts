/**
 * The threads beside the main one, as main sees them and as they see main: started early so that their code loads while the
 * store opens, given their work when it is there, asked, and stopped.
 *
 * Promises: a thread that ends unasked is told once: to `begin` or `go` while one of them waits for it, in one line, else to
 * `onCrash`, with where it happened (or, before `begin`, to that). One message channel, one closed union each way; what crosses is plain data. Fails: as said at each.
 */
import { type MessagePort, parentPort, Worker } from 'node:worker_threads';
import type { Config } from '../config.ts';
import type { SandboxPlace } from './serving.ts';
import { StartError, startLines } from './start-error.ts';
import { portsOf, type StoreLink } from './store.ts';

/** What a thread is given to begin with. */
export interface Work {
  config: Config;
  /** Null for the sandbox, which has nothing to do with it. */
  store: StoreLink | null;
  /** Where the sandbox reports to; null for others. */
  reportUrl: string | null;
}

/** Where a thread listens; `smppPort` is the sandbox's, else 0. */
export interface Place {
  url: string;
  smppPort: number;
}

type ToThread =
  | { begin: Work }
  | { go: { sandbox: SandboxPlace | null } }
  | { stop: true }
  | { counters: number }
  | { reconfigure: Config };
type FromThread =
  | { ready: Place }
  | { failed: string[] }
  | { going: true }
  | { counters: number; value: Record<string, unknown> }
  /** Null = done, else why not. */
  | { reconfigured: string | null }
  | { stopped: true };

// -------------------------------------------------------------------------------------------------------- as main sees it

const CODE = {
  carriers: new URL('./carriers-thread.ts', import.meta.url),
  sandbox: new URL('./sandbox-thread.ts', import.meta.url),
};

/** A thread that is loading its code, or works. */
export interface Thread {
  /** Once. Rejects with a StartError when it cannot do its work. */
  begin(work: Work): Promise<Place>;
  /** Starts the work; `sandbox` null = there is none. Rejects as `begin` does. */
  go(sandbox: SandboxPlace | null): Promise<void>;
  counters(): Promise<Record<string, unknown>>;
  /** Works by this configuration from now on. Rejects = it does not. One at a time. */
  reconfigure(config: Config): Promise<void>;
  /** Ends its work in order, or the thread at once where it has none. Once it has, again does nothing. */
  stop(): Promise<void>;
}

/** Starts a thread, which loads its code and waits for `begin`. Throws where there is no room for one. */
export function launch(role: keyof typeof CODE, onCrash: (message: string) => void, code = CODE[role]): Thread {
  const worker = new Worker(code);
  const tell = (message: ToThread, transfer: MessagePort[] = []): void => worker.postMessage(message, transfer);
  const asked = new Map<number, (value: Record<string, unknown>) => void>();
  let question = 0;
  let going: { resolve(): void; reject(error: Error): void } | null = null;
  let reconfigured: ((why: string | null) => void) | null = null;
  let stopped: (() => void) | null = null;
  let ended: string | null = null;
  let phase: 'loading' | { resolve(place: Place): void; reject(error: Error): void } | 'ready' = 'loading';

  worker.on('message', (message: FromThread) => {
    if ('failed' in message) {
      if (typeof phase === 'object') phase.reject(new StartError(message.failed));
      going?.reject(new StartError(message.failed));
    } else if ('ready' in message) {
      if (typeof phase === 'object') phase.resolve(message.ready);
      phase = 'ready';
    } else if ('going' in message) {
      going?.resolve();
      going = null;
    } else if ('counters' in message) {
      asked.get(message.counters)?.(message.value);
      asked.delete(message.counters);
    } else if ('reconfigured' in message) reconfigured?.(message.reconfigured);
    else stopped?.();
  });
  /** `line` is for who starts a server; what became of one that ran is told with where it happened. */
  const died = (line: string, why = line): void => {
    const first = ended === null;
    ended ??= `${role}: ${line.split('\n', 1)[0]}`;
    if (stopped) stopped();
    else if (!first) return;
    else if (going) going.reject(new Error(ended));
    else if (phase === 'ready') onCrash(`${role}: ${why}`);
    else if (typeof phase === 'object') phase.reject(new Error(ended));
  };
  worker.on('error', (error) =>
    error instanceof Error ? died(error.message, error.stack ?? error.message) : died(String(error)),
  );
  worker.on('exit', (code) => died(`ended with code ${code}`));

  return {
    begin: (work) =>
      new Promise((resolve, reject) => {
        if (ended !== null) return reject(new Error(ended));
        phase = { resolve, reject };
        tell({ begin: work }, portsOf(work.store));
      }),
    go: (sandbox) =>
      new Promise((resolve, reject) => {
        if (ended !== null) return reject(new Error(ended));
        going = { resolve, reject };
        tell({ go: { sandbox } });
      }),
    counters: () =>
      new Promise((done) => {
        asked.set(++question, done);
        tell({ counters: question });
      }),
    reconfigure: (next) =>
      new Promise((done, fail) => {
        reconfigured = (why) => (why === null ? done() : fail(new Error(why)));
        tell({ reconfigure: next });
      }),
    stop: () =>
      new Promise((done) => {
        const again = stopped !== null || ended !== null;
        stopped ??= done;
        if (again) done();
        else if (phase === 'ready') tell({ stop: true });
        else void worker.terminate();
      }),
  };
}

// --------------------------------------------------------------------------------------------------------- as they see it

/** What a thread does when it is asked; what it leaves out is answered as done. */
export interface Duties {
  place: Place;
  go?(sandbox: SandboxPlace | null): Promise<void>;
  counters?(): Record<string, unknown>;
  reconfigure?(next: Config): Promise<void>;
  /** The thread ends when it resolves. */
  stop(): Promise<void>;
}

/** Called by the thread's own file: waits for its work, begins it, and does what it is asked from then on. */
export function serveMain(begin: (work: Work) => Promise<Duties>): void {
  const port = parentPort as MessagePort;
  const say = (message: FromThread): void => port.postMessage(message);
  let duties: Duties | null = null;
  port.on('message', async (message: ToThread) => {
    if ('begin' in message) {
      try {
        duties = await begin(message.begin);
        say({ ready: duties.place });
      } catch (error) {
        say({ failed: startLines(error) });
      }
    } else if ('go' in message) {
      try {
        await duties?.go?.(message.go.sandbox);
        say({ going: true });
      } catch (error) {
        say({ failed: startLines(error) });
      }
    } else if ('counters' in message) {
      say({ counters: message.counters, value: duties?.counters?.() ?? {} });
    } else if ('reconfigure' in message) {
      const why = await (duties?.reconfigure?.(message.reconfigure) ?? Promise.resolve()).then(
        () => null,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      );
      say({ reconfigured: why });
    } else {
      await duties?.stop();
      say({ stopped: true });
      process.exit(0);
    }
  });
}
