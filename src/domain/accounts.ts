/**
 * What the operator decides about an account: its settings and limits, keys, logins, senders, domains, prices, blocklists; and
 * the pure questions that the door asks of them.
 *
 * Promises: pure; plain data that crosses threads. What a row of an older version does not say has its default. Instants are
 * epoch ms.
 */
import ipaddr from 'ipaddr.js';
import { senderKey } from './optout.ts';

/** What a key or a login may be good for. Source: Infobip, API authorization, scopes of MMS. */
export const SCOPES = [
  'message:send',
  'mms:message:send',
  'mms:manage',
  'mms:logs:read',
  'inbound-message:read',
  'mms:inbound-message:read',
] as const;
export type Scope = (typeof SCOPES)[number];

/** What an account may spend: `amount` in its currency; TOTAL = a prepaid credit that is raised to top it up. */
export interface SpendLimit {
  amount: number;
  per: 'DAY' | 'MONTH' | 'TOTAL';
}

/** Null = no limit. Days and months are UTC. */
export interface AccountLimits {
  requestsPerMinute: number | null;
  /** Of GET logs. */
  logsPerMinute: number | null;
  /** Messages accepted, whatever becomes of them. */
  messagesPerDay: number | null;
  spend: SpendLimit | null;
  /** At most 6 equal or 20 messages to one number in an hour. */
  flooding: boolean;
}

export interface AccountSettings {
  /** SUSPENDED: nobody is let in, as if it had no keys; what was accepted runs on. */
  state: 'ACTIVE' | 'SUSPENDED';
  /** Given to messages that name none. */
  application: string | null;
  entity: string | null;
  currency: string;
  /** Only senders that are registered, else status 11. */
  registeredOnly: boolean;
  /** The SMS failover also follows where it is not known whether the MMS arrived. */
  failoverAfterUnknown: boolean;
  limits: AccountLimits;
}

/** Owner of keys, senders, domains, endpoints. */
export interface Account extends AccountSettings {
  no: number;
  /** Unique. */
  name: string;
  /** Since when a spend limit of TOTAL counts, by the store's clock: from when it was set where there was none. Absent = from the first message. */
  totalSince?: number;
}

/** What an account has that nobody said anything about. 120 a minute is the documented throttle of GET logs. */
export const DEFAULT_SETTINGS: Readonly<AccountSettings> = Object.freeze({
  state: 'ACTIVE',
  application: null,
  entity: null,
  currency: 'EUR',
  registeredOnly: false,
  failoverAfterUnknown: false,
  limits: Object.freeze({
    requestsPerMinute: null,
    logsPerMinute: 120,
    messagesPerDay: null,
    spend: null,
    flooding: false,
  }),
});

/** What a key may do and when; all but `id` and `createdAt` = no restriction. */
export interface KeyRules {
  id: string;
  createdAt: number;
  /** Null = all. */
  scopes: Scope[] | null;
  validFrom: number | null;
  /** The first instant at which it is not good any more. */
  validUntil: number | null;
  /** Networks that it may come from; empty = any. */
  allow: string[];
  revokedAt: number | null;
  requestsPerMinute: number | null;
}

/** An API key, known by its SHA-256 (hex). */
export interface ApiKey extends KeyRules {
  hash: string;
  account: number;
  label: string;
}

/** A user with a password: Basic, sessions, OAuth client credentials. */
export interface Login {
  /** Unique over all accounts. */
  user: string;
  account: number;
  /** Its hash with what it was made with (`api/passwords.ts`). */
  password: string;
  /** The same password, kept in a form that the version before cannot read, since `at` by the wall: until all nodes can, both are kept. */
  anew?: { password: string; at: number };
  scopes: Scope[] | null;
}

/** A sender that the account has registered, as `senderKey` writes it. */
export interface RegisteredSender {
  account: number;
  sender: string;
}

/** A domain of an account for shortened links; unique over all accounts. */
export interface LinkDomain {
  account: number;
  domain: string;
}

/** What a message to destinations that begin with `prefix` costs; '' = all others. */
export interface PriceRow {
  prefix: string;
  channel: 'MMS' | 'SMS';
  price: number;
}

/** An account's price list, in its currency. */
export interface PriceList {
  account: number;
  prices: PriceRow[];
}

/** A sender (status 13) or destination (status 14) that is refused. */
export interface Block {
  /** 0 = for all accounts. */
  account: number;
  kind: 'SENDER' | 'DESTINATION';
  /** As `senderKey` writes it, or digits; with a `*` at its end, all that begin so. */
  value: string;
}

/** Everything that the operator decided, as of `revision`. */
export interface Directory {
  revision: number;
  accounts: Account[];
  keys: ApiKey[];
  logins: Login[];
  senders: RegisteredSender[];
  domains: LinkDomain[];
  prices: PriceList[];
  blocks: Block[];
}

/** Rows that one installation may have of each kind; the door keeps all of them in memory. */
export const DIRECTORY_MAX = 100_000;
/** Rows of one price list. */
export const PRICES_MAX = 10_000;

/** A proof of a login for a while. Known by its SHA-256. */
export interface Session {
  hash: string;
  user: string;
  kind: 'IBSSO' | 'OAUTH';
}

/** A new one. It ends after `ttlMs`: of its last use where `idle`, else of this. */
export interface NewSession extends Session {
  ttlMs: number;
  idle: boolean;
}

/** Kinds of rows that are kept by name. */
export type Held = 'login' | 'sender' | 'domain' | 'prices' | 'block';

/** What one account may spend at most, in its currency. */
export const SPEND_MAX = 1_000_000_000;

/** One change by the operator. What an account is that an earlier change of the same call makes, a later one may name. */
export type AdminChange =
  /** `no` null = a new one, under the next number. */
  | { kind: 'account'; no: number | null; name: string; settings: AccountSettings }
  /**
   * Adds (below 0: takes) `amount` to what the account may spend in TOTAL, from 0 where it has no such limit. `once`: the same key
   * again within a day adds nothing, and with another hash it is refused.
   */
  | { kind: 'credit'; account: number; amount: number; once: { key: string; hash: string } | null }
  | { kind: 'key'; key: ApiKey }
  /** A name that another account holds is a conflict. Sessions of a login end by it, but where `same`: the password is what it was. */
  | { kind: 'put'; what: Held; name: string; account: number; body: object; same?: boolean }
  | { kind: 'drop'; what: Held; name: string; account: number }
  /** A number of ours, all of it; another account's is a conflict. */
  | { kind: 'number'; number: NumberSetting }
  /** Another account's is not there. */
  | { kind: 'numberDrop'; number: string; account: number };

/** A number that handsets write to, and where its messages go. */
export interface NumberSetting {
  number: string;
  account: number;
  /** Null = the account's default endpoint, '' = only pulled. */
  url: string | null;
  entity: string | null;
  application: string | null;
  callbackData: string | null;
}

/** Who did what, as the audit log keeps it; no secrets in `detail`. */
export interface Deed {
  by: string;
  action: string;
  account: number | null;
  detail: object;
}

/** A line of the audit log. */
export interface AuditRow extends Deed {
  no: number;
  at: number;
}

/** What a credit came to: what may be spent in TOTAL after it, and whether it had been added before, under the same key. */
export interface Credited {
  total: number;
  repeated: boolean;
}

/** When changes are not made, or only judged. */
export interface AdminTerms {
  /** The revision of the directory that they were made for; where another holds by now, nothing happens: `stale`. */
  at?: number;
  /** All is judged and nothing is done; the answer is what it would be. */
  dry?: boolean;
}

/**
 * Why a change cannot be: the account's limit is per day or month (`period`), the sum would be below 0 or above SPEND_MAX (`amount`),
 * the key stands for another one (`once`), the account has as many endpoints as it may (`endpoints`).
 */
export type Refused = 'period' | 'amount' | 'once' | 'endpoints';

/** `accounts`: numbers by the changes of kind `account`, in order; `dropped`: rows that were there; `credits`: by those of kind `credit`. */
export type Administered =
  | { kind: 'done'; accounts: number[]; dropped: number; credits: Credited[] }
  | { kind: 'notFound'; change: number }
  | { kind: 'conflict'; change: number }
  | { kind: 'refused'; change: number; why: Refused }
  | { kind: 'stale' };

/**
 * A share of a counter that all nodes have in common. The counter's value is the sum over its `buckets` newest buckets up to
 * `bucket`; what is given is added to `bucket`.
 */
export interface Take {
  account: number;
  scope: string;
  bucket: number;
  buckets: number;
  /** Asked for: all of it or, where less is left, no less than `least`; below 0 = given back. */
  want: number;
  least: number;
  most: number;
  /** How long the bucket is kept from now on. */
  keepMs: number;
}

/** A counter as it is asked for; see `Take`. */
export type Counter = Pick<Take, 'account' | 'scope' | 'bucket' | 'buckets'>;

/** Takes of one call. */
export const TAKES_MAX = 20_000;

/** Settings to change; what is absent stays. */
export interface SettingsChange
  extends Partial<{ [Name in Exclude<keyof AccountSettings, 'limits'>]: AccountSettings[Name] | undefined }> {
  limits?: Partial<{ [Name in keyof AccountLimits]: AccountLimits[Name] | undefined }> | undefined;
}

/** Settings after a change, limits one by one. */
export function changedSettings(before: AccountSettings, change: SettingsChange): AccountSettings {
  const { limits, ...rest } = change;
  const { state, application, entity, currency, registeredOnly, failoverAfterUnknown } = before;
  const kept = { state, application, entity, currency, registeredOnly, failoverAfterUnknown };
  return { ...kept, ...given(rest), limits: { ...before.limits, ...given(limits ?? {}) } };
}

function given<Values extends object>(values: Values): Partial<{ [Name in keyof Values]: NonNullable<Values[Name]> }> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

/** Under what a block is kept. */
export function blockName({ account, kind, value }: Block): string {
  return `${account} ${kind} ${value}`;
}

/** A sender or destination as blocks compare it. */
export function blockValue(kind: Block['kind'], value: string): string {
  const star = value.endsWith('*') ? '*' : '';
  const bare = star === '' ? value : value.slice(0, -1);
  return (kind === 'SENDER' ? senderKey(bare) : bare.replace(/^\+|^00/, '')) + star;
}

/** The networks of a list, read once. Throws for what is none (the door has checked them before). */
export function networksOf(list: readonly string[]): (address: string) => boolean {
  const networks = list.map((text): [ipaddr.IPv4 | ipaddr.IPv6, number] => {
    const [base, bits] = ipaddr.parseCIDR(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
    const isMapped = base instanceof ipaddr.IPv6 && base.isIPv4MappedAddress() && bits >= 96;
    return isMapped ? [base.toIPv4Address(), bits - 96] : [base, bits];
  });
  return (address) => {
    if (!ipaddr.isValid(address)) return false;
    // `::ffff:10.0.0.1` is 10.0.0.1.
    const one = ipaddr.process(address);
    return networks.some(([base, bits]) => base.kind() === one.kind() && one.match(base as ipaddr.IPv4, bits));
  };
}

/**
 * Whether a network is one, in a spelling that everybody reads alike: `010.0.0.1` is 8.0.0.1 to some, `10.1` is 10.0.0.1, and a zone is
 * of one machine only.
 */
export function isNetwork(text: string): boolean {
  const base = text.split('/', 1)[0] as string;
  if (!ipaddr.IPv4.isValidFourPartDecimal(base) && (!base.includes(':') || base.includes('%'))) return false;
  try {
    networksOf([text]);
    return true;
  } catch {
    return false;
  }
}

/** Whether a key counts at `now`, from `address`. */
export function keyCounts(key: KeyRules, now: number): boolean {
  if (key.revokedAt !== null) return false;
  return (key.validFrom === null || now >= key.validFrom) && (key.validUntil === null || now < key.validUntil);
}

/** Whether any of the scopes that an endpoint takes is held. */
export function holds(scopes: readonly Scope[] | null, anyOf: readonly Scope[]): boolean {
  return scopes === null || anyOf.some((scope) => scopes.includes(scope));
}

/** Values with and without a `*` at their end, as one question. */
export class Blocklist {
  readonly #exact = new Set<string>();
  /** By length, so that a question costs one look-up for each length there is. */
  readonly #prefixes = new Map<number, Set<string>>();

  add(value: string): void {
    if (!value.endsWith('*')) {
      this.#exact.add(value);
      return;
    }
    const prefix = value.slice(0, -1);
    const same = this.#prefixes.get(prefix.length);
    if (same) same.add(prefix);
    else this.#prefixes.set(prefix.length, new Set([prefix]));
  }

  has(value: string): boolean {
    if (this.#exact.has(value)) return true;
    for (const [length, prefixes] of this.#prefixes) if (prefixes.has(value.slice(0, length))) return true;
    return false;
  }
}
