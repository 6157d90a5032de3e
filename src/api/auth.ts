/**
 * Who asks: `Authorization: App <key>` to an account.
 *
 * Promises: keys are compared by their SHA-256, so neither the time nor the path of a look-up tells how much of a guess was
 * right; a key of any length costs at most `KEY_MAX` bytes of hashing; a new or withdrawn key counts at once when the store
 * says so, and within `REFRESH_MS` in any case (hints are no promise).
 *
 * Fails: a wrong credential is null. While the store cannot be read, the keys known last go on to count.
 */
import { hash } from 'node:crypto';
import type { Env, Timer } from '../env.ts';
import type { Store } from '../store/contract.ts';

/** Longer ones are nobody's. */
const KEY_MAX = 1024;
const REFRESH_MS = 5_000;

export interface Auth {
  /** The account behind an Authorization header, or null. */
  account(authorization: string | undefined): number | null;
  close(): void;
}

/** Rejects when the keys cannot be read at all. */
export async function createAuth(store: Store, env: Env): Promise<Auth> {
  let accounts = await read();
  let reading = false;
  let again = false;
  let closed = false;
  let timer: Timer | null = null;

  async function read(): Promise<Map<string, number>> {
    return new Map((await store.keys()).map((key) => [key.hash, key.account]));
  }

  async function refresh(): Promise<void> {
    if (closed) return;
    if (reading) {
      again = true;
      return;
    }
    reading = true;
    timer?.cancel();
    try {
      do {
        again = false;
        accounts = await read();
      } while (again);
    } catch (error) {
      env.log.warn({ err: error }, 'keys could not be read; the known ones go on to count');
    } finally {
      reading = false;
      if (!closed) timer = env.clock.setTimeout(() => void refresh(), REFRESH_MS);
    }
  }

  store.onHint((hint) => {
    if (hint.kind === 'keys') void refresh();
  });
  timer = env.clock.setTimeout(() => void refresh(), REFRESH_MS);

  return {
    account(authorization) {
      if (authorization === undefined || authorization.length < 5 || authorization.length > KEY_MAX) return null;
      if (authorization.charCodeAt(3) !== 32 || !isApp(authorization)) return null;
      return accounts.get(hash('sha256', authorization.slice(4).trim())) ?? null;
    },
    close() {
      closed = true;
      timer?.cancel();
    },
  };
}

/** Schemes are case-insensitive (RFC 9110, 11.1). */
function isApp(authorization: string): boolean {
  return authorization.startsWith('App') || authorization.slice(0, 3).toLowerCase() === 'app';
}
