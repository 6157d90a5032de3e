/**
 * Keeps what the server's source compiles to, so that the next start does not compile it again: half of the processor time of a start,
 * in each of its threads.
 *
 * Promises: what is kept is bounded by the number of source files, and a file that changed is compiled anew (node checks its hash).
 * It lies where only those can write who can change the program or its data. Never fails: where nothing can be kept the start
 * takes longer.
 */
import { mkdirSync } from 'node:fs';
import { constants, enableCompileCache, getCompileCacheDir } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BESIDE = fileURLToPath(new URL('../../node_modules/.cache/postcard', import.meta.url));

/**
 * To be called before the server is loaded; its threads follow. Beside the program, or in the data directory where that cannot be
 * written. NODE_COMPILE_CACHE names another place, NODE_DISABLE_COMPILE_CACHE=1 none.
 */
export function keepCompiled(dataDir: string, env: NodeJS.ProcessEnv = process.env): string | null {
  for (const directory of [BESIDE, join(dataDir, 'compiled')]) {
    if (directory !== BESIDE) makeOwn(directory);
    const { status } = enableCompileCache(directory);
    const { ENABLED, ALREADY_ENABLED, DISABLED } = constants.compileCacheStatus;
    // Threads read it when they begin.
    if (status === ENABLED) env.NODE_COMPILE_CACHE = directory;
    if (status === ENABLED || status === ALREADY_ENABLED) return getCompileCacheDir() ?? null;
    if (status === DISABLED) return null;
  }
  return null;
}

/** Node would make the data directory too, open to every user; the server finds it made and leaves it so. */
function makeOwn(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch {
    // Nothing is kept; whether the data directory can be used is for the server to say.
  }
}
