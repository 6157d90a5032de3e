/** Passwords as they are kept: the form that others write too, and what is none. */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { createPasswords, isDated, loginKept, nobodys, PASSWORD_WORK, passwordIs, passwordKept } from './passwords.ts';

const { random } = testEnv();

describe('a password', () => {
  it('is kept by Argon2id with what OWASP asks for at least', async () => {
    expect(PASSWORD_WORK).toEqual({ memory: 19_456, passes: 2 });
    const kept = await passwordKept('correct horse', PASSWORD_WORK, random);
    expect(kept).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$[\w+/]{22}\$[\w+/]{43}$/);
    expect(await passwordIs('correct horse', kept)).toBe(true);
    expect(await passwordIs('correct horsf', kept)).toBe(false);
  });

  it('is read as the reference implementation of Argon2 writes it', async () => {
    // From its own tests (phc-winner-argon2, test.c: version 0x13, Argon2id, t=2, m=2^16, p=1, "password", "somesalt").
    const kept = '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc';
    expect(await passwordIs('password', kept)).toBe(true);
    expect(await passwordIs('differentpassword', kept)).toBe(false);
  });

  it('is nobody’s where what is kept is of no form known here, or nobody’s own', async () => {
    for (const kept of [
      ...['', 'x', 'argon2id', '$argon2id$v=19$m=64,t=1,p=1$AAAA', '$argon2i$v=19$m=64,t=1,p=1$AAAAAAAAAAA$AAAA'],
      ...['scrypt$1024$8$1$AAAA', 'scrypt$x$8$1$AAAA$AAAA', nobodys({ memory: 64, passes: 1 })],
      nobodys({ N: 1024, r: 8, p: 1 }),
    ]) {
      expect([kept, await passwordIs('', kept)]).toEqual([kept, false]);
    }
  });

  it('is dated where it is kept otherwise than new ones, and Argon2id never goes back to scrypt', () => {
    const [less, more] = [{ memory: 64, passes: 1 } as const, { memory: 128, passes: 1 } as const];
    const old = { N: 1024, r: 8, p: 1 } as const;
    expect([less, more, old].map((work) => isDated(nobodys(less), work))).toEqual([false, true, false]);
    expect([less, more, old].map((work) => isDated(nobodys(old), work))).toEqual([true, true, false]);
    expect(isDated(nobodys(old), { ...old, N: 2048 })).toBe(true);
    expect(isDated('no form', more)).toBe(false);
  });
});

describe('passwords of logins', () => {
  const WORK = { memory: 64, passes: 1 } as const;
  const login = (password: string) => ({ user: 'anna', account: 1, scopes: null, password });

  it('that were right, wrong or made once are known again without a look, until another is kept', async () => {
    const passwords = createPasswords(WORK, random);
    const kept = await passwordKept('right', WORK, random);
    expect(await passwords.is(login(kept), 'right')).toBe(true);
    expect(await passwords.is(login(kept), 'wrong')).toBe(false);
    const made = await passwords.made('anna', 'new one');
    // From here on there is no place for a look.
    await passwords.turn();
    await passwords.turn();
    expect(await passwords.is(login(kept), 'right')).toBe(true);
    expect(await passwords.is(login(kept), 'wrong')).toBe(false);
    expect(await passwords.is(login(made), 'new one')).toBe(true);
    expect(await passwords.made('anna', 'new one')).toBe(made);
    let looked = false;
    const other = passwords.is(login(await passwordKept('right', WORK, random)), 'right').then((is) => {
      looked = true;
      return is;
    });
    await passwordKept('a look later', WORK, random);
    expect(looked).toBe(false);
    passwords.done();
    expect(await other).toBe(true);
    // Of another user the same password is another one.
    const others = passwords.made('bert', 'new one');
    expect(await others).not.toBe(made);
    passwords.done();
  });

  it('keep what they have where it is right, in both forms, and something new else', async () => {
    const passwords = createPasswords(WORK, random);
    const [password, anew] = [
      await passwordKept('right', { N: 1024, r: 8, p: 1 }, random),
      await passwordKept('right', WORK, random),
    ];
    const both = { ...login(password), anew: { password: anew, at: 7 } };
    expect(await loginKept(passwords, both, 'anna', 'right')).toEqual({
      ...{ same: true, body: { password, anew: { password: anew, at: 7 } } },
    });
    const other = await loginKept(passwords, both, 'anna', 'other');
    expect([other.same, await passwordIs('other', other.body.password), other.body.anew]).toEqual([
      ...[false, true, undefined],
    ]);
    expect((await loginKept(passwords, undefined, 'anna', 'right')).same).toBe(false);
  });
});
