/**
 * The store engine of the version before this one, as it was: the code that a node still runs while another is upgraded (G19).
 *
 * upgrade/older.tgz holds its sources, so that these tests need no history of the repository. A release makes it of itself for the
 * version that comes after it:
 *
 *   git archive --format=tar TAG -- src/domain src/store src/env.ts src/xml.ts package.json ':!*.test.ts' ':!src/store/sqlite' |
 *     gzip -9n > test/conformance/upgrade/older.tgz
 *
 * and `gzip -dc test/conformance/upgrade/older.tgz | git get-tar-commit-id` tells which commit it is. It runs with the packages of
 * today, as it would after an update of them.
 *
 * Fails: rejects where the file is not there, or its code does not load.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gunzipSync } from 'node:zlib';
import type { openPostgres } from '../../src/store/postgres/postgres.ts';
import type { STATEMENTS } from '../../src/store/postgres/tx.ts';

export interface Older {
  openPostgres: typeof openPostgres;
  /** Every statement that it sends. */
  statements: string[];
}

/** Unpacks it into an empty directory, which must stay for as long as it is used, and loads it. */
export async function olderEngine(dir: string): Promise<Older> {
  const packed = readFileSync(join(import.meta.dirname, 'upgrade', 'older.tgz'));
  execFileSync('tar', ['-x', '-C', dir], { input: gunzipSync(packed) });
  symlinkSync(join(import.meta.dirname, '..', '..', 'node_modules'), join(dir, 'node_modules'));
  const load = (name: string): Promise<unknown> =>
    import(/* @vite-ignore */ pathToFileURL(join(dir, 'src', 'store', 'postgres', name)).href);
  const engine = (await load('postgres.ts')) as Pick<Older, 'openPostgres'>;
  const tx = (await load('tx.ts')) as { STATEMENTS: typeof STATEMENTS };
  return { openPostgres: engine.openPostgres, statements: tx.STATEMENTS.map(({ text }) => text) };
}
