import { describe, expect, it } from 'vitest';
import { DIRECTORY_MAX, type Directory } from '../domain/accounts.ts';
import { testEnv } from '../env.ts';
import type { Store } from '../store/contract.ts';
import { createApply } from './apply.ts';
import type { Auth } from './auth.ts';
import { createPasswords, type Passwords } from './passwords.ts';

/** An installation that has so many senders, all of them another account's. */
function holding(senders: number, passwords?: Passwords, env = testEnv()) {
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
  const auth = { refresh: async () => undefined, directory: () => directory, passwords } as unknown as Auth;
  return { apply: createApply({ store, env, auth }), made: () => made };
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

  it('looks at its passwords for a bounded time in a request, goes on where it was, and changes nothing before it knows all', async () => {
    const env = testEnv();
    const passwords = createPasswords({ memory: 64, passes: 1 }, env.random);
    let looks = 0;
    const slow: Passwords = {
      ...passwords,
      async made(user, password) {
        const known = JSON.stringify([user, password]);
        if (!seen.has(known)) {
          seen.add(known);
          looks++;
          await env.clock.advance(8_000);
        }
        return passwords.made(user, password);
      },
    };
    const seen = new Set<string>();
    const shop = holding(0, slow, env);
    const logins = Array.from({ length: 12 }, (_, n) => ({ user: `user ${n}`, password: 'long enough 12' }));
    const file = {
      accounts: [
        { name: 'shop', logins: logins.slice(0, 6) },
        { name: 'bank', logins: logins.slice(6) },
      ],
    };
    const known: number[] = [];
    for (;;) {
      const done = await shop.apply(file, 'test', false);
      if (done.kind !== 'looking') {
        expect(done).toMatchObject({ kind: 'done', answer: { changes: 14 } });
        break;
      }
      expect([done.passwords.of, shop.made()]).toEqual([12, 0]);
      known.push(done.passwords.known);
    }
    expect(known.length).toBeGreaterThan(1);
    expect(known).toEqual([...new Set(known)].sort((a, b) => a - b));
    expect([looks, shop.made()]).toEqual([12, 14]);
    const many = Array.from({ length: 6 }, (_, n) => ({ name: `a${n}`, logins: Array(900).fill(logins[0]) }));
    expect(await shop.apply({ accounts: many }, 'test', false)).toMatchObject({
      violation: { violation: 'must have at most 5000 logins in all: make it two files' },
    });
  });
});
