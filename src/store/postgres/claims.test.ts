/** What the verb claim answers when the server goes away between the answers of a claim. */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../../env.ts';
import { StoreUnavailable } from '../contract.ts';
import type { Claimed } from './claim.ts';
import { createClaims } from './claims.ts';
import type { Lines } from './lines.ts';
import type { Link } from './link.ts';
import type { Ask, Tx } from './tx.ts';

describe('a claim', () => {
  it('that was committed and lost its specs is answered without them, so that it is put back and never counts as sent', async () => {
    const { clock } = testEnv();
    const gone = new StoreUnavailable('gone');
    const away: Ask = { query: () => Promise.reject(gone) };
    const lost = (): Promise<never> => {
      const answer = Promise.reject(gone);
      answer.catch(() => undefined);
      return answer;
    };
    const claim = { token: 1, leader: 7, spec: 5, members: [], generation: 0, attempt: 1 };
    const made = { ...claim, notBeforeUs: 0, paced: false, validUntil: 1 };
    const link: Pick<Link, 'transaction'> = { transaction: (work) => work({} as Tx) };
    const lines: Pick<Lines, 'peek' | 'owes'> = {
      peek: async (_, lanes) => new Map(lanes.map((lane) => [lane, { now: 1_000, woken: true, due: null }])),
      owes: () => false,
    };
    const claims = createClaims({
      queue: { link: link as Link, clock, maxWeight: 1, weight: () => 1, patienceMs: 1, committed: () => undefined },
      clock,
      lines: lines as Lines,
      claim: async (): Promise<Claimed> => ({ now: 1_000, claims: [made], specs: lost(), served: lost() }),
      own: away,
      reader: () => away,
      nowOf: (now) => now,
    });
    expect(await claims.claim(1, 8, 60_000)).toEqual({ now: 1_000, claims: [made], specs: [], nextDue: 1_000 });
  });
});
