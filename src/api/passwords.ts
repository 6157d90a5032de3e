/**
 * Passwords as logins keep them: Argon2id (RFC 9106) in the text form that others use too, `$argon2id$v=19$m=..,t=..,p=..$salt$hash`;
 * scrypt where this Node has no Argon2 (before 24.7, or built without it), and for what was kept so before.
 *
 * Promises: off the main thread, in the threads that files use too; a salt of its own each; compared in constant time; `LOOKS` at a
 * time, since each takes the memory that its parameters say.
 *
 * Fails: what is kept in no form known here is nobody's password.
 */
import crypto, { createHmac, scrypt, timingSafeEqual } from 'node:crypto';
import type { Login } from '../domain/accounts.ts';
import type { Random } from '../env.ts';

/** How much work a password is: KiB of memory and passes of Argon2id, or the parameters of scrypt. */
export type PasswordWork = { memory: number; passes: number } | { N: number; r: number; p: number };

/** OWASP's least for either (2025: Argon2id with 19 MiB; scrypt with 16 MiB). Some 0.14 s and 0.4 s of a thread. */
const ARGON2ID: PasswordWork = { memory: 19_456, passes: 2 };
const SCRYPT: PasswordWork = { N: 16_384, r: 8, p: 5 };
/** Passwords that are looked at, or made, at a time: each takes some 20 MiB and 0.2 s of one of the four threads that files use too. */
export const LOOKS = 2;
/** Those that wait for it and may be sent away. */
const LOOKS_WAITING = 32;
/** Logins that one file may have. */
export const LOGINS_MAX = 5_000;
/** Passwords remembered; the oldest make room. Each is a hash and what is kept, some 300 bytes. */
const REMEMBERED = 8 * LOGINS_MAX;
const SALT = 16;
const LENGTH = 32;

/** Not in every Node that can run us, so asked for by name and never imported. */
const { argon2 } = crypto as { argon2?: typeof crypto.argon2 };

/** What new passwords cost here. */
export const PASSWORD_WORK: PasswordWork = argon2 === undefined ? SCRYPT : ARGON2ID;

interface Kept {
  work: PasswordWork;
  salt: Buffer;
  derived: Buffer;
}

/** Null = no form known here. */
function read(kept: string): Kept | null {
  const argon = /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=1\$([\w+/=-]+)\$([\w+/=-]+)$/.exec(kept);
  if (argon) {
    const [, memory, passes, salt = '', derived = ''] = argon;
    const work = { memory: Number(memory), passes: Number(passes) };
    return { work, salt: Buffer.from(salt, 'base64'), derived: Buffer.from(derived, 'base64') };
  }
  const old = /^scrypt\$(\d{1,8})\$(\d{1,3})\$(\d{1,3})\$([\w+/=-]+)\$([\w+/=-]+)$/.exec(kept);
  if (!old) return null;
  const [, N, r, p, salt = '', derived = ''] = old;
  const work = { N: Number(N), r: Number(r), p: Number(p) };
  return { work, salt: Buffer.from(salt, 'base64'), derived: Buffer.from(derived, 'base64') };
}

/** Base64 without its padding, as the Argon2 form has it. */
const bare = (bytes: Buffer): string => bytes.toString('base64').replace(/={1,2}$/, '');

function printed(work: PasswordWork, salt: Buffer, derived: Buffer): string {
  if ('memory' in work) return `$argon2id$v=19$m=${work.memory},t=${work.passes},p=1$${bare(salt)}$${bare(derived)}`;
  return `scrypt$${work.N}$${work.r}$${work.p}$${salt.toString('base64')}$${derived.toString('base64')}`;
}

function derive(password: string, salt: Buffer, work: PasswordWork, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, key: Buffer): void => (error ? reject(error) : resolve(key));
    if ('memory' in work) {
      const { memory, passes } = work;
      if (argon2 === undefined) reject(new Error('this Node has no Argon2: 24.7 and later do'));
      else
        argon2('argon2id', { message: password, nonce: salt, parallelism: 1, tagLength: length, memory, passes }, done);
    } else scrypt(password, salt, length, { ...work, maxmem: 256 * work.N * work.r }, done);
  });
}

/** Whether a password is the one that was kept. Rejects where this Node cannot look at it. */
export async function passwordIs(password: string, kept: string): Promise<boolean> {
  const found = read(kept);
  if (found === null) return false;
  const asked = await derive(password, found.salt, found.work, LENGTH);
  return found.derived.length === asked.length && timingSafeEqual(found.derived, asked);
}

/** A password as it is kept, under a salt of its own. */
export async function passwordKept(password: string, work: PasswordWork, random: Random): Promise<string> {
  const salt = Buffer.from(random.bytes(SALT));
  return printed(work, salt, await derive(password, salt, work, LENGTH));
}

/** Nobody's: looking at it costs what looking at one of `work` costs. */
export function nobodys(work: PasswordWork): string {
  return printed(work, Buffer.alloc(SALT), Buffer.alloc(LENGTH));
}

/** Whether it is kept otherwise than new ones are. */
export function isDated(kept: string, work: PasswordWork): boolean {
  const found = read(kept)?.work;
  if (found === undefined) return false;
  if ('memory' in work) return !('memory' in found) || found.memory !== work.memory || found.passes !== work.passes;
  // Never back to scrypt: a process whose Node has no Argon2 is the exception, not the rule.
  return !('memory' in found) && (found.N !== work.N || found.r !== work.r || found.p !== work.p);
}

/** How a login's password is looked at here: in the newest form that this Node can read. */
export function newestOf({ password, anew }: Pick<Login, 'password' | 'anew'>): string {
  return anew !== undefined && (argon2 !== undefined || !anew.password.startsWith('$argon2'))
    ? anew.password
    : password;
}

/** Whether every version that is out can read it: only scrypt is older than Argon2id. */
export function isReadByAll(kept: string): boolean {
  const work = read(kept)?.work;
  return work !== undefined && 'N' in work;
}

/** Passwords of logins, looked at a few at a time. */
export interface Passwords {
  /** A place for one look, to be given back by `done`; null = too many wait for one. */
  turn(): Promise<void> | null;
  done(): void;
  /**
   * Whether it is the login's. What was right or wrong, or was made here, is known again without a look for as long as this process lives:
   * by a keyed hash whose key is in its memory only, so that nothing quicker to guess than Argon2id lies anywhere.
   */
  is(login: Login, password: string): Promise<boolean>;
  /** What a login of that name keeps of it. The same again is what was made before. */
  made(user: string, password: string): Promise<string>;
}

/** The places of one process. */
export function createPasswords(work: PasswordWork, random: Random): Passwords {
  const key = Buffer.from(random.bytes(32));
  const known = new Map<string, string>();
  let busy = 0;
  const waiting: (() => void)[] = [];
  const nameOf = (user: string, password: string): string =>
    createHmac('sha256', key)
      .update(JSON.stringify([user, password]))
      .digest('base64url');
  function remember(name: string, kept: string): void {
    known.delete(name);
    known.set(name, kept);
    if (known.size > REMEMBERED) known.delete(known.keys().next().value as string);
  }
  /** Who asks so is bounded by its callers. */
  async function take(): Promise<void> {
    if (busy < LOOKS) busy++;
    else await new Promise<void>((resolve) => waiting.push(resolve));
  }
  function done(): void {
    const next = waiting.shift();
    if (next) next();
    else busy--;
  }
  async function looked<Value>(look: () => Promise<Value>): Promise<Value> {
    await take();
    try {
      return await look();
    } finally {
      done();
    }
  }
  return {
    turn: () => (busy >= LOOKS && waiting.length >= LOOKS_WAITING ? null : take()),
    done,
    async is(login, password) {
      const name = nameOf(login.user, password);
      const before = known.get(name);
      if (before !== undefined && (before === login.password || before === login.anew?.password)) return true;
      const kept = newestOf(login);
      if (known.has(`${name} ${kept}`)) return false;
      const right = await looked(() => passwordIs(password, kept));
      if (right) remember(name, kept);
      else remember(`${name} ${kept}`, '');
      return right;
    },
    async made(user, password) {
      const name = nameOf(user, password);
      const before = known.get(name);
      if (before !== undefined && !isDated(before, work)) return before;
      const kept = await looked(() => passwordKept(password, work, random));
      remember(name, kept);
      return kept;
    },
  };
}

/** What a login keeps of the password that it is to have; `same` = it has it already. */
export async function loginKept(
  passwords: Passwords,
  present: Login | undefined,
  user: string,
  password: string,
): Promise<{ same: boolean; body: Pick<Login, 'password' | 'anew'> }> {
  if (present !== undefined && (await passwords.is(present, password))) {
    const { password: kept, anew } = present;
    return { same: true, body: { password: kept, ...(anew === undefined ? {} : { anew }) } };
  }
  return { same: false, body: { password: await passwords.made(user, password) } };
}
