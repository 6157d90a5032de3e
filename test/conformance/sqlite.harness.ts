/** The SQLite engine as the conformance cases need it: alone with a clock of its own, and behind its threads. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connectSqlite, openSqlite } from '../../src/store/sqlite/sqlite.ts';
import type { Harness } from './desk.ts';
import { openEngineStore } from './engine-store.ts';

/** `file`: its message log. */
export async function openSynchronous(
  options: Parameters<typeof openEngineStore>[1] = {},
): Promise<Harness & { file: string }> {
  const dir = mkdtempSync(join(tmpdir(), 'postcard-store-'));
  const file = join(dir, 'postcard.db');
  const store = openEngineStore(file, options);
  return {
    file,
    store,
    advance: (ms) => store.advance(ms),
    now: () => store.now(),
    crash: async () => store.crash(),
    async close() {
      await store.close();
      rmSync(dir, { recursive: true });
    },
  };
}

export async function openThreaded(): Promise<Harness> {
  const dataDir = mkdtempSync(join(tmpdir(), 'postcard-store-'));
  const options = {
    dataDir,
    retentionMs: 7 * 86_400_000,
    onCrash: (message: string) => {
      throw new Error(message);
    },
  };
  let host = await openSqlite(options);
  let store = connectSqlite(host.connect());
  const shut = async (): Promise<void> => {
    await store.close();
    await host.close();
  };
  return {
    get store() {
      return store;
    },
    advance: () => {
      throw new Error('this clock cannot be moved');
    },
    now: () => Date.now(),
    // As near as threads of one process come to it; real kills are the torture tests' business.
    async crash() {
      await shut();
      host = await openSqlite(options);
      store = connectSqlite(host.connect());
    },
    async close() {
      await shut();
      rmSync(dataDir, { recursive: true });
    },
  };
}
