/**
 * A durable log of one party of a torture (client, carrier, receiver): one JSON line for each thing that it saw.
 *
 * Promises: `write` resolves after its lines are synced to the disk; lines written while a sync runs share the next one.
 * Fails: rejects when the disk refuses.
 */
import { closeSync, fdatasync, openSync, readFileSync, writeSync } from 'node:fs';

export interface Journal {
  write(...lines: object[]): Promise<void>;
  /** Everything written so far, read back from the file. */
  read<Line>(): Line[];
  close(): Promise<void>;
}

/** Opens (and appends to) the log at `path`. */
export function openJournal(path: string): Journal {
  const fd = openSync(path, 'a');
  let waiting: { resolve(): void; reject(error: Error): void }[] = [];
  let syncing: Promise<void> | null = null;

  async function sync(): Promise<void> {
    while (waiting.length > 0) {
      const group = waiting;
      waiting = [];
      await new Promise<void>((done) => {
        fdatasync(fd, (error) => {
          for (const one of group) error ? one.reject(error) : one.resolve();
          done();
        });
      });
    }
    syncing = null;
  }

  return {
    write(...lines) {
      if (lines.length === 0) return Promise.resolve();
      writeSync(fd, `${lines.map((line) => JSON.stringify(line)).join('\n')}\n`);
      const synced = new Promise<void>((resolve, reject) => waiting.push({ resolve, reject }));
      syncing ??= sync();
      return synced;
    },
    read: <Line>() =>
      readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Line),
    async close() {
      await syncing;
      closeSync(fd);
    },
  };
}
