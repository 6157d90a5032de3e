import { describe, expect, it } from 'vitest';
import { DIRECTORY_MAX, type Directory } from '../domain/accounts.ts';
import { testEnv } from '../env.ts';
import type { Store } from '../store/contract.ts';
import { createApply } from './apply.ts';
import type { Auth } from './auth.ts';

/** An installation that has so many senders, all of them another account's. */
function holding(senders: number) {
  const directory = {
    ...{ revision: 1, accounts: [], keys: [], logins: [], domains: [], prices: [], blocks: [] },
    senders: Array.from({ length: senders }, (_, n) => ({ account: 9, sender: `s${n}` })),
  } satisfies Directory;
  let made = 0;
  const store = {
    async administer(changes: object[]) {
      made += changes.length;
      return { kind: 'done', accounts: [], dropped: 0, credits: [] };
    },
  } as unknown as Store;
  const auth = { refresh: async () => undefined, directory: () => directory } as unknown as Auth;
  return { apply: createApply({ store, env: testEnv(), auth }), made: () => made };
}

describe('a file of accounts', () => {
  it('makes no more of anything than an installation may have', async () => {
    const file = { accounts: [{ name: 'shop', senders: ['Shop', 'Other'] }] };
    const over = holding(DIRECTORY_MAX - 1);
    expect(await over.apply(file, 'test', false)).toEqual({
      kind: 'refused',
      violation: { property: 'accounts', violation: 'would make more than 100000 senders of this installation' },
    });
    expect(over.made()).toBe(0);
    const full = holding(DIRECTORY_MAX - 2);
    expect((await full.apply(file, 'test', false)).kind).toBe('done');
    expect(full.made()).toBe(3);
  });
});
