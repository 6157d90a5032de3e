/**
 * Who asks: the four forms of Authorization (App key, Basic, IBSSO session, Bearer token) to a caller with an account and scopes;
 * and what the operator decided of that account, held in memory.
 *
 * Promises: keys and tokens are compared by their SHA-256, so neither the time nor the path of a look-up tells how much of a
 * guess was right; passwords by Argon2id (`passwords.ts`), with the same work for users that do not exist; one that was kept by an
 * older rule is kept by the present one after its next good login; a credential of any length costs at most `CREDENTIAL_MAX` bytes
 * of hashing. A change counts at once where the store says so, and within `REFRESH_MS` in any case (hints
 * are no promise), for keys, logins, sessions and accounts alike. Passwords are looked at two at a time; who guesses is
 * made to wait.
 *
 * Fails: a wrong credential is null. While the store cannot be read, what is known goes on to count; a session that is not known
 * then rejects with StoreUnavailable.
 */
import { hash } from 'node:crypto';
import {
  type Account,
  type ApiKey,
  Blocklist,
  DEFAULT_SETTINGS,
  type Directory,
  holds,
  keyCounts,
  type Login,
  networksOf,
  type Scope,
  type Session,
} from '../domain/accounts.ts';
import { type PriceBook, priceBook } from '../domain/prices.ts';
import type { Env, Timer } from '../env.ts';
import type { Store } from '../store/contract.ts';
import {
  createPasswords,
  isDated,
  isReadByAll,
  newestOf,
  nobodys,
  PASSWORD_WORK,
  type Passwords,
  type PasswordWork,
  passwordIs,
  passwordKept,
} from './passwords.ts';

/** Longer ones are nobody's. */
const CREDENTIAL_MAX = 1024;
const REFRESH_MS = 5_000;
/** Sessions and passwords remembered; the oldest make room. */
const REMEMBERED = 10_000;
/** Seconds after which those for whom there is no room may come back. */
const LOOKS_BUSY_S = 1;
/** Wrong passwords of one user from one address in `GUESS_MS`. */
const GUESSES = 10;
/** The same over all users: one common password is tried with many names. */
const GUESSES_ALL = 100;
const GUESS_MS = 60_000;
const IDLE_MS = 3_600_000;
const TOKEN_MS = 3_600_000;
/** How long a password is kept in both forms: no upgrade, node by node, takes so long. */
const BOTH_MS = 7 * 86_400_000;

/** Who asks. */
export interface Caller {
  account: number;
  /** Of the credential: what its own limit is counted under, and what the log shows. */
  name: string;
  scopes: readonly Scope[] | null;
  requestsPerMinute: number | null;
}

/** Too many passwords to look at, or too many wrong ones: ask again after `busyS` seconds, at least 1. */
export interface Busy {
  busyS: number;
}

/** Null = nobody's credential. */
export type Asked = Caller | Busy | null;

/** What the door asks of an account. */
export interface Policy extends Account {
  senders: ReadonlySet<string>;
  prices: PriceBook;
  /** Of the account and of all. */
  blockedSenders: readonly Blocklist[];
  blockedDestinations: readonly Blocklist[];
}

export interface Auth {
  /** The caller behind an Authorization header that comes from `address`; a promise where the store or a password must be asked. */
  caller(authorization: string | undefined, address: string): Asked | Promise<Asked>;
  policy(account: number): Policy;
  /** The account that has this domain for links, null = none. */
  domain(name: string): number | null;
  directory(): Directory;
  /** Reads again, now: what was changed through this process counts before it is answered. */
  refresh(): Promise<void>;
  /** A session for a user with that password. */
  open(
    user: string,
    password: string,
    kind: Session['kind'],
    address: string,
  ): Promise<{ token: string } | Busy | null>;
  /** Ends the session of an IBSSO header; false = there is none. */
  end(authorization: string | undefined): Promise<boolean>;
  /** Passwords of logins, for who sets them. */
  readonly passwords: Passwords;
  close(): void;
}

const sha256 = (text: string): string => hash('sha256', text);

/** Remembers at most `REMEMBERED`; the oldest make room. */
function remember<Value>(map: Map<string, Value>, name: string, value: Value): void {
  map.delete(name);
  map.set(name, value);
  if (map.size > REMEMBERED) map.delete(map.keys().next().value as string);
}

type Guesses = Map<string, { count: number; until: number }>;

/** One more wrong password, at `at`; the first of them begins the time in which they count. */
function wrong(guesses: Guesses, from: string, at: number): void {
  const before = guesses.get(from);
  const fresh = !before || before.until <= at;
  remember(guesses, from, { count: fresh ? 1 : before.count + 1, until: fresh ? at + GUESS_MS : before.until });
}

interface Known {
  directory: Directory;
  keys: Map<string, { key: ApiKey; from: ((address: string) => boolean) | null }>;
  logins: Map<string, Login>;
  policies: Map<number, Policy>;
  domains: Map<string, number>;
}

function known(directory: Directory): Known {
  const of = <Row extends { account: number }>(rows: readonly Row[]): Map<number, Row[]> =>
    Map.groupBy(rows, (row) => row.account);
  const senders = of(directory.senders);
  const prices = of(directory.prices);
  const blocks = of(directory.blocks);
  const lists = (account: number, kind: 'SENDER' | 'DESTINATION'): Blocklist[] => {
    const rows = (blocks.get(account) ?? []).filter((row) => row.kind === kind);
    if (rows.length === 0) return [];
    const list = new Blocklist();
    for (const { value } of rows) list.add(value);
    return [list];
  };
  const common = { senders: lists(0, 'SENDER'), destinations: lists(0, 'DESTINATION') };
  const policyOf = (account: Account): Policy => ({
    ...account,
    senders: new Set((senders.get(account.no) ?? []).map(({ sender }) => sender)),
    prices: priceBook((prices.get(account.no) ?? []).flatMap((list) => list.prices)),
    blockedSenders: [...common.senders, ...lists(account.no, 'SENDER')],
    blockedDestinations: [...common.destinations, ...lists(account.no, 'DESTINATION')],
  });
  return {
    directory,
    keys: new Map(
      directory.keys.map((key) => [key.hash, { key, from: key.allow.length === 0 ? null : networksOf(key.allow) }]),
    ),
    logins: new Map(directory.logins.map((login) => [login.user, login])),
    policies: new Map(directory.accounts.map((account) => [account.no, policyOf(account)])),
    domains: new Map(directory.domains.map(({ domain, account }) => [domain, account])),
  };
}

/** Rejects when the directory cannot be read at all. */
export async function createAuth(store: Store, env: Env, work: PasswordWork = PASSWORD_WORK): Promise<Auth> {
  // Nobody's: its work is what an unknown user costs.
  const nobody = nobodys(work);
  const first = await store.directory(-1);
  if (first === null) throw new Error('no directory');
  let now = known(first);
  let reading: Promise<void> | null = null;
  let again = false;
  let closed = false;
  let timer: Timer | null = null;
  /** By the token's hash: what the store said, and when. */
  const sessions = new Map<string, { session: Session; at: number }>();
  /** By the header's hash: users whose password was right while it was `password`. */
  const passwords = new Map<string, { user: string; password: string }>();
  /** Wrong passwords by user and address, and by address alone. */
  const guesses: Guesses = new Map();
  const guessers: Guesses = new Map();
  const looks = createPasswords(work, env.random);

  async function read(): Promise<void> {
    timer?.cancel();
    try {
      do {
        again = false;
        const changed = await store.directory(now.directory.revision);
        if (changed === null) continue;
        const { logins } = now;
        now = known(changed);
        for (const [name, { session }] of sessions) {
          if (logins.get(session.user)?.password !== now.logins.get(session.user)?.password) sessions.delete(name);
        }
      } while (again);
    } catch (error) {
      env.log.warn({ err: error }, 'accounts could not be read; the known ones go on to count');
    } finally {
      reading = null;
      if (!closed) timer = env.clock.setTimeout(() => void refresh(), REFRESH_MS);
    }
  }

  function refresh(): Promise<void> {
    if (closed) return Promise.resolve();
    again = true;
    reading ??= read();
    return reading;
  }

  store.onHint((hint) => {
    if (hint.kind === 'keys') void refresh();
  });
  timer = env.clock.setTimeout(() => void refresh(), REFRESH_MS);

  const active = (account: number): boolean => now.policies.get(account)?.state !== 'SUSPENDED';

  function byKey(secret: string, address: string): Caller | null {
    const found = now.keys.get(sha256(secret));
    if (found === undefined || !keyCounts(found.key, env.clock.now()) || !active(found.key.account)) return null;
    if (found.from !== null && !found.from(address)) return null;
    const { account, id, scopes, requestsPerMinute } = found.key;
    return { account, name: `key ${id}`, scopes, requestsPerMinute };
  }

  function byUser(user: string): Caller | null {
    const login = now.logins.get(user);
    if (login === undefined || !active(login.account)) return null;
    return { account: login.account, name: `user ${user}`, scopes: login.scopes, requestsPerMinute: null };
  }

  /** Null = wrong, or no such user: the same work for both. */
  async function check(user: string, password: string, address: string): Promise<Login | Busy | null> {
    const from = `${user} ${address}`;
    const at = env.clock.monotonic();
    for (const [tried, most] of [
      [guesses.get(from), GUESSES],
      [guessers.get(address), GUESSES_ALL],
    ] as const) {
      if (tried && tried.until > at && tried.count >= most) {
        return { busyS: Math.max(1, Math.ceil((tried.until - at) / 1000)) };
      }
    }
    const turn = looks.turn();
    if (turn === null) return { busyS: LOOKS_BUSY_S };
    await turn;
    try {
      const login = now.logins.get(user);
      if ((await passwordIs(password, login === undefined ? nobody : newestOf(login))) && login !== undefined) {
        if (isDated(login.password, work)) await keepAnew(login, password);
        return login;
      }
    } finally {
      looks.done();
    }
    wrong(guesses, from, at);
    wrong(guessers, address, at);
    return null;
  }

  /**
   * Keeps a password by the present rule; where the version before cannot read that, beside what is kept, and alone after a week: by then
   * no node of that version is left (G19). Only where the login is what it was when we looked: a new password of the operator's wins.
   * What fails is left to the next login.
   */
  async function keepAnew({ user, account, scopes, password: dated, anew }: Login, password: string): Promise<void> {
    const { revision } = now.directory;
    if (now.logins.get(user)?.password !== dated) return;
    const at = env.clock.now();
    const made = anew !== undefined && !isDated(anew.password, work) ? anew : null;
    if (made !== null && at - made.at < BOTH_MS) return;
    try {
      const kept = made?.password ?? (await passwordKept(password, work, env.random));
      const both = made === null && isReadByAll(dated) && !isReadByAll(kept);
      const body = { user, scopes, ...(both ? { password: dated, anew: { password: kept, at } } : { password: kept }) };
      const deed = { by: 'postcard', action: 'password kept anew', account, detail: { user } };
      const change = { kind: 'put', what: 'login', name: user, account, body, same: true } as const;
      const done = await store.administer([change], deed, { at: revision });
      if (done.kind === 'done') await refresh();
    } catch (error) {
      env.log.warn({ err: error, account }, 'a password could not be kept anew; its next login tries again');
    }
  }

  function basic(encoded: string, address: string): Asked | Promise<Asked> {
    const name = sha256(encoded);
    const right = passwords.get(name);
    if (right && now.logins.get(right.user)?.password === right.password) return byUser(right.user);
    const text = Buffer.from(encoded, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    if (colon <= 0) return null;
    return check(text.slice(0, colon), text.slice(colon + 1), address).then((login) => {
      if (login === null || 'busyS' in login) return login;
      remember(passwords, name, { user: login.user, password: login.password });
      return byUser(login.user);
    });
  }

  function byToken(token: string, kind: Session['kind']): Asked | Promise<Asked> {
    const name = sha256(token);
    const found = sessions.get(name);
    const at = env.clock.monotonic();
    if (found && at - found.at < REFRESH_MS) return found.session.kind === kind ? byUser(found.session.user) : null;
    return store.sessionUse(name).then((session) => {
      if (session === null) {
        sessions.delete(name);
        return null;
      }
      remember(sessions, name, { session, at });
      return session.kind === kind ? byUser(session.user) : null;
    });
  }

  return {
    caller(authorization, address) {
      if (authorization === undefined || authorization.length > CREDENTIAL_MAX) return null;
      const blank = authorization.indexOf(' ');
      if (blank < 0) return null;
      const secret = authorization.slice(blank + 1).trim();
      if (secret === '') return null;
      // Schemes are case-insensitive (RFC 9110, 11.1).
      switch (authorization.slice(0, blank).toLowerCase()) {
        case 'app':
          return byKey(secret, address);
        case 'basic':
          return basic(secret, address);
        case 'ibsso':
          return byToken(secret, 'IBSSO');
        case 'bearer':
          return byToken(secret, 'OAUTH');
        default:
          return null;
      }
    },
    policy: (account) => now.policies.get(account) ?? plainPolicy(account),
    domain: (name) => now.domains.get(name.toLowerCase()) ?? null,
    directory: () => now.directory,
    refresh,
    passwords: looks,
    async open(user, password, kind, address) {
      const login = await check(user, password, address);
      if (login === null || 'busyS' in login) return login;
      if (!active(login.account)) return null;
      const token = Buffer.from(env.random.bytes(32)).toString('base64url');
      const life = kind === 'IBSSO' ? { ttlMs: IDLE_MS, idle: true } : { ttlMs: TOKEN_MS, idle: false };
      await store.sessionPut({ hash: sha256(token), user: login.user, kind, ...life });
      return { token };
    },
    async end(authorization) {
      const found = /^ibsso +(\S{1,1000}) *$/i.exec(authorization ?? '');
      if (!found) return false;
      const name = sha256(found[1] as string);
      sessions.delete(name);
      return store.sessionDelete(name);
    },
    close() {
      closed = true;
      timer?.cancel();
    },
  };
}

/** What the door asks of an account that nobody said anything about. */
export function plainPolicy(account: number): Policy {
  return {
    ...DEFAULT_SETTINGS,
    no: account,
    name: `account ${account}`,
    senders: new Set(),
    prices: priceBook([]),
    blockedSenders: [],
    blockedDestinations: [],
  };
}

/** Seconds that a Bearer token counts. */
export const TOKEN_SECONDS = TOKEN_MS / 1000;

/** Whether any of an endpoint's scopes is the caller's. */
export function mayUse(caller: Caller, scopes: readonly Scope[]): boolean {
  return holds(caller.scopes, scopes);
}
