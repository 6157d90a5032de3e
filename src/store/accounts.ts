/**
 * What both engines apply to the operator's rows, pure: JSON bodies to the shapes of the domain, with defaults for what an older
 * version did not write; and whether changes can be made, all of them, as one judgement before the first write.
 */
import {
  type Account,
  type Administered,
  type AdminTerms,
  type ApiKey,
  type Block,
  type Credited,
  DEFAULT_SETTINGS,
  type Directory,
  type Held,
  type KeyRules,
  type LinkDomain,
  type Login,
  type PriceList,
  type RegisteredSender,
  SPEND_MAX,
} from '../domain/accounts.ts';
import { type Purse, purseOf } from '../domain/limits.ts';
import { ENDPOINTS_MAX, type OperatorChange } from './contract-customers.ts';

/** Rows as both engines read them. */
export interface DirectoryRows {
  revision: number;
  accounts: { no: number; name: string; body: string | null }[];
  keys: { hash: string; account: number; label: string; body: string | null }[];
  held: { what: string; account: number; body: string }[];
}

/** Audit rows kept. */
export const AUDIT_MAX = 100_000;
/** Expired sessions and counters that one write clears away. */
export const CLEAR = 200;

function accountOf({ no, name, body }: DirectoryRows['accounts'][number]): Account {
  const said = saidOf(body);
  const limits = { ...DEFAULT_SETTINGS.limits, ...said.limits };
  return { ...DEFAULT_SETTINGS, ...said, limits, no, name };
}

/** What an account may spend, by its row; null = as much as it likes. */
export function spendOf(body: string | null): Purse | null {
  return purseOf(saidOf(body));
}

function saidOf(body: string | null): Partial<Account> {
  return body === null ? {} : (JSON.parse(body) as Partial<Account>);
}

/** Since when its TOTAL counts: it begins when it is set, and goes on when it is raised or lowered. */
function totalSince(before: string | null, now: number): { totalSince?: number } {
  const said = saidOf(before);
  if (said.limits?.spend?.per !== 'TOTAL') return { totalSince: now };
  return said.totalSince === undefined ? {} : { totalSince: said.totalSince };
}

function keyOf({ hash, account, label, body }: DirectoryRows['keys'][number]): ApiKey {
  const plain: KeyRules = {
    // The beginning of a hash tells nothing of the key.
    id: hash.slice(0, 16),
    createdAt: 0,
    scopes: null,
    validFrom: null,
    validUntil: null,
    allow: [],
    revokedAt: null,
    requestsPerMinute: null,
  };
  return { ...plain, ...((body === null ? {} : JSON.parse(body)) as Partial<KeyRules>), hash, account, label };
}

/** What of a key is kept as JSON. */
export function keyBody(key: ApiKey): string {
  const { hash: _hash, account: _account, label: _label, ...rules } = key;
  return JSON.stringify(rules);
}

/** The directory of its rows. */
export function directoryOf(rows: DirectoryRows): Directory {
  const held = <Row>(what: Held): Row[] =>
    rows.held
      .filter((row) => row.what === what)
      .map((row) => ({ ...(JSON.parse(row.body) as object), account: row.account }) as Row);
  return {
    revision: rows.revision,
    accounts: rows.accounts.map(accountOf),
    keys: rows.keys.map(keyOf),
    logins: held<Login>('login'),
    senders: held<RegisteredSender>('sender'),
    domains: held<LinkDomain>('domain'),
    prices: held<PriceList>('prices'),
    blocks: held<Block>('block'),
  };
}

/** What is there, as the judgement asks it. Undefined = nothing. */
export interface Present {
  /** The store's instant. */
  now: number;
  revision: number;
  /** The highest number of an account; 0 = there is none. */
  last: number;
  /** The row of an account. */
  account(no: number): { body: string | null } | undefined;
  named(name: string): number | undefined;
  keyHolder(hash: string): number | undefined;
  holder(what: Held, name: string): number | undefined;
  numberHolder(number: string): number | undefined;
  /** Its endpoints' settings, as `endpointName` writes them. */
  endpoints(account: number): ReadonlySet<string>;
  /** What was answered under a key of a credit, as `onceKey` writes it. */
  once(key: string): { hash: string; answer: string } | undefined;
}

/** One write that the judgement allows. */
export type Written =
  | Exclude<OperatorChange, { kind: 'account' | 'credit' }>
  | { kind: 'account'; no: number; name: string; body: string }
  | { kind: 'credit'; account: number; body: string; once: { key: string; hash: string; answer: string } | null };

/** `writes` in the order of the changes, with `accounts` and `credits` of the answer. */
export interface Go {
  kind: 'go';
  writes: Written[];
  accounts: number[];
  credits: Credited[];
}

/** Under what an endpoint's settings are told apart within an account. */
export function endpointName(kind: string, url: string): string {
  return `${kind} ${url}`;
}

/** Under what the key of a credit is kept, in the name of account 0, which is nobody's: beside no customer's keys. */
export function onceKey(account: number, key: string): string {
  return `credit ${account} ${key}`;
}

/**
 * All of the changes, or why not: what an earlier one makes, frees or takes counts for the later ones, so that a domain can go from
 * one account to another, and is not given to two.
 */
export function judged(
  changes: readonly OperatorChange[],
  { at }: AdminTerms,
  present: Present,
): Go | Exclude<Administered, { kind: 'done' }> {
  if (at !== undefined && at !== present.revision) return { kind: 'stale' };
  const go: Go = { kind: 'go', writes: [], accounts: [], credits: [] };
  let { last } = present;
  const bodies = new Map<number, string>();
  const names = new Map<string, number | undefined>();
  const keys = new Map<string, number>();
  const held = new Map<string, number | undefined>();
  const numbers = new Map<string, number | undefined>();
  const endpoints = new Map<number, Set<string>>();
  const there = (no: number): boolean => bodies.has(no) || present.account(no) !== undefined;
  const endpointsOf = (account: number): Set<string> => {
    const known = endpoints.get(account) ?? new Set(present.endpoints(account));
    endpoints.set(account, known);
    return known;
  };
  const now = <Name>(changed: ReadonlyMap<Name, number | undefined>, name: Name, before: () => number | undefined) =>
    changed.has(name) ? changed.get(name) : before();

  for (const [change, one] of changes.entries()) {
    const notFound: Administered = { kind: 'notFound', change };
    const conflict: Administered = { kind: 'conflict', change };
    switch (one.kind) {
      case 'account': {
        if (one.no !== null && !there(one.no)) return notFound;
        const namesake = now(names, one.name, () => present.named(one.name));
        if (namesake !== undefined && namesake !== one.no) return conflict;
        const no = one.no ?? ++last;
        names.set(one.name, no);
        const before = bodies.get(no) ?? (one.no === null ? null : (present.account(no)?.body ?? null));
        const since = one.settings.limits.spend?.per === 'TOTAL' ? totalSince(before, present.now) : {};
        const body = JSON.stringify({ ...one.settings, ...since });
        bodies.set(no, body);
        go.accounts.push(no);
        go.writes.push({ kind: 'account', no, name: one.name, body });
        break;
      }
      case 'credit': {
        const row = bodies.has(one.account) ? { body: bodies.get(one.account) ?? null } : present.account(one.account);
        if (row === undefined) return notFound;
        const key = one.once && onceKey(one.account, one.once.key);
        const before = key === null ? undefined : present.once(key);
        if (before !== undefined) {
          if (before.hash !== one.once?.hash) return { kind: 'refused', change, why: 'once' };
          go.credits.push({ total: (JSON.parse(before.answer) as { total: number }).total, repeated: true });
          break;
        }
        const spend = spendOf(row.body);
        if (spend !== null && spend.per !== 'TOTAL') return { kind: 'refused', change, why: 'period' };
        // To a millionth, as prices are told: sums of money stay what was written.
        const total = Math.round(((spend?.amount ?? 0) + one.amount) * 1e6) / 1e6;
        if (total < 0 || total > SPEND_MAX) return { kind: 'refused', change, why: 'amount' };
        const said = saidOf(row.body);
        const limits = { ...said.limits, spend: { amount: total, per: 'TOTAL' } };
        const body = JSON.stringify({ ...said, limits, ...totalSince(row.body, present.now) });
        bodies.set(one.account, body);
        const once = key === null ? null : { key, hash: one.once?.hash ?? '', answer: JSON.stringify({ total }) };
        go.credits.push({ total, repeated: false });
        go.writes.push({ kind: 'credit', account: one.account, body, once });
        break;
      }
      case 'key': {
        if (!there(one.key.account)) return notFound;
        const holder = now(keys, one.key.hash, () => present.keyHolder(one.key.hash));
        if (holder !== undefined && holder !== one.key.account) return conflict;
        keys.set(one.key.hash, one.key.account);
        go.writes.push(one);
        break;
      }
      case 'put': {
        if (one.account !== 0 && !there(one.account)) return notFound;
        const name = `${one.what} ${one.name}`;
        const holder = now(held, name, () => present.holder(one.what, one.name));
        if (holder !== undefined && holder !== one.account) return conflict;
        held.set(name, one.account);
        go.writes.push(one);
        break;
      }
      case 'drop': {
        const name = `${one.what} ${one.name}`;
        if (now(held, name, () => present.holder(one.what, one.name)) === one.account) held.set(name, undefined);
        go.writes.push(one);
        break;
      }
      case 'number': {
        const { number, account } = one.number;
        if (!there(account)) return notFound;
        if ((now(numbers, number, () => present.numberHolder(number)) ?? account) !== account) return conflict;
        numbers.set(number, account);
        go.writes.push(one);
        break;
      }
      case 'numberDrop':
        if (now(numbers, one.number, () => present.numberHolder(one.number)) === one.account) {
          numbers.set(one.number, undefined);
        }
        go.writes.push(one);
        break;
      case 'endpoint': {
        const { account, kind, url } = one.put;
        if (!there(account)) return notFound;
        const known = endpointsOf(account);
        if (!known.has(endpointName(kind, url)) && known.size >= ENDPOINTS_MAX) {
          return { kind: 'refused', change, why: 'endpoints' };
        }
        known.add(endpointName(kind, url));
        go.writes.push(one);
        break;
      }
      default:
        endpointsOf(one.account).delete(endpointName(one.hook, one.url));
        go.writes.push(one);
    }
  }
  return go;
}

/** Whether nothing came of it: what was to go was not there, what was to be added had been before. No line is written of that. */
export function cameToNothing({ writes, credits }: Go, dropped: number): boolean {
  if (writes.length === 0) return credits.length > 0;
  return (
    dropped === 0 && writes.every(({ kind }) => kind === 'drop' || kind === 'numberDrop' || kind === 'endpointDrop')
  );
}
