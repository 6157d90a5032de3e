/** Following something on a server that may be away for a while: a restart, an upgrade. */
import type { Env } from '../env.ts';
import { Unreachable } from './client.ts';
import type { Io } from './terminal.ts';

/** How long a server that cannot be reached is waited for. */
const OUTLAST_MS = 120_000;

/**
 * Gives a function that asks by `ask`: its answer, or 'away' while the server cannot be reached, which is said once, in `words`, for each
 * time that it goes away. Fails as `ask` does, also with Unreachable once the server has been away for two minutes.
 */
export function outlasting(io: Io, env: Env, words: (why: string) => string) {
  let awaySince: number | null = null;
  return async <Answer>(ask: () => Promise<Answer>): Promise<Answer | 'away'> => {
    try {
      const answer = await ask();
      awaySince = null;
      return answer;
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      if (awaySince === null) io.err(words(error.lines[0] ?? ''));
      awaySince ??= env.clock.monotonic();
      if (env.clock.monotonic() - awaySince > OUTLAST_MS) throw error;
      return 'away';
    }
  };
}
