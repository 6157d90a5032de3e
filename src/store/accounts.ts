/**
 * What both engines apply to the operator's rows, pure: JSON bodies to the shapes of the domain, with defaults for what an older
 * version did not write.
 */
import {
  type Account,
  type ApiKey,
  type Block,
  DEFAULT_SETTINGS,
  type Directory,
  type Held,
  type KeyRules,
  type LinkDomain,
  type Login,
  type PriceList,
  type RegisteredSender,
  type SpendLimit,
} from '../domain/accounts.ts';

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
  const said = (body === null ? {} : JSON.parse(body)) as Partial<Account>;
  const limits = { ...DEFAULT_SETTINGS.limits, ...said.limits };
  return { ...DEFAULT_SETTINGS, ...said, limits, no, name };
}

/** What an account may spend, by its row; null = as much as it likes. */
export function spendOf(body: string | null): SpendLimit | null {
  return body === null ? null : ((JSON.parse(body) as Partial<Account>).limits?.spend ?? null);
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
