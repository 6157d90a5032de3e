/**
 * `apply`: accounts as a file says they shall be, against what they are. What differs becomes changes of one transaction with one
 * line in the audit log; where nothing differs, nothing happens.
 *
 * Promises: idempotent, and all or nothing: a row that cannot be (it is another account's) keeps the whole file out and is named by its
 * place in it. Lists that are given replace what is there; what holds a secret (keys, logins, endpoints) is added and changed, never
 * taken away. A dry run judges and tells all the same and changes nothing. Somebody else's change meanwhile is seen: all is compared anew.
 *
 * Passwords cost 0.14 s each to look at, once in the life of this process: after `LOOKING_MS` of that it says how far it is, `looking`, and
 * the same file again goes on from there, so that no request takes longer than what lies between client and server lets it.
 *
 * Fails: `busy` where others came in between each time; rejects with StoreUnavailable or a bug.
 */
import { hash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import {
  type Account,
  type Administered,
  type ApiKey,
  blockName,
  blockValue,
  changedSettings,
  DEFAULT_SETTINGS,
  DIRECTORY_MAX,
  type Directory,
  type Held,
} from '../domain/accounts.ts';
import { senderKey } from '../domain/optout.ts';
import { formatInstant } from '../domain/schedule.ts';
import type { Env } from '../env.ts';
import { ENDPOINTS_MAX, type EndpointPut, type OperatorChange, type Store } from '../store/contract.ts';
import { placeOf } from './admin-endpoints.ts';
import type { Wanted } from './admin-schema.ts';
import type { Auth } from './auth.ts';
import { LOGINS_MAX, LOOKS, loginKept } from './passwords.ts';
import type { Violation } from './violations.ts';
import { kindOf, newSecret, OVERLAP_MS } from './webhooks.ts';

/** How often all is compared anew while others come in between. */
const RUNS = 10;
/** How long one request looks at passwords. */
const LOOKING_MS = 15_000;
/** Differences that an answer tells. */
const TOLD = 1000;
/** Differences that the audit log tells, by their places. */
const NOTED = 50;

type One = Wanted['accounts'][number];

/** One thing that differs: what it is, of which account, and what of it changes; of secrets only that they do. */
interface Difference {
  account: string;
  what: 'account' | 'key' | 'login' | 'sender' | 'domain' | 'endpoint' | 'price' | 'block';
  name: string;
  change: 'ADDED' | 'CHANGED' | 'REMOVED';
  fields: { name: string; from: unknown; to: unknown }[];
}

/** `answer` as the door gives it. */
export type Applied =
  | { kind: 'done'; answer: object }
  | { kind: 'refused'; violation: Violation }
  | { kind: 'busy' }
  /** Nothing is changed; so many of the file's passwords are known by now. */
  | { kind: 'looking'; passwords: { known: number; of: number } };

/** What the logins of a file are to keep, by their entries in it. */
type Kept = Map<NonNullable<One['logins']>[number], Awaited<ReturnType<typeof loginKept>>>;

/** Changes with their places in the file, and what the answer tells of them. */
interface Plan {
  changes: OperatorChange[];
  /** Of each change. */
  places: string[];
  differences: Difference[];
  accounts: {
    account: number;
    name: string;
    added: boolean;
    keys: { label: string; key: string }[];
    endpoints: { kind: string; url: string; secret: string }[];
  }[];
}

/** What is there, by account. */
type Rows = ReturnType<typeof rowsOf>;

function rowsOf({ keys, logins, senders, domains, prices, blocks }: Directory) {
  const of = <Row extends { account: number }>(rows: readonly Row[]): Map<number, Row[]> =>
    Map.groupBy(rows, ({ account }) => account);
  return {
    ...{ keys: of(keys), logins: of(logins), senders: of(senders) },
    ...{ domains: of(domains), prices: of(prices), blocks: of(blocks) },
  };
}

/** Something secret, as a difference shows it. */
const SECRET = '(secret)';

/** The verb, for who asks `by`; `dry` = nothing is changed. */
export function createApply({ store, env, auth }: { store: Store; env: Env; auth: Auth }) {
  /** All of one account, that has number `no` or gets it. Throws nothing; a Violation is what cannot be. */
  async function ofAccount(
    one: One,
    place: string,
    no: number,
    there: boolean,
    rows: Rows,
    kept: Kept,
    plan: Plan,
    dry: boolean,
  ): Promise<Violation | null> {
    const told: Plan['accounts'][number] = { account: no, name: one.name, added: !there, keys: [], endpoints: [] };
    plan.accounts.push(told);
    const mine = <Row>(of: Map<number, Row[]>): Row[] => of.get(no) ?? [];
    const add = (change: OperatorChange, at: string): void => {
      plan.changes.push(change);
      plan.places.push(at);
    };
    const tell = (
      what: Difference['what'],
      name: string,
      change: Difference['change'],
      fields: Difference['fields'] = [],
    ): void => void plan.differences.push({ account: one.name, what, name, change, fields });
    /** A list that replaces what is there. */
    const replaced = <Row>(
      what: Exclude<Held, 'login' | 'prices'>,
      list: string,
      wanted: readonly Row[],
      present: readonly Row[],
      rowOf: (row: Row) => { name: string; body: object; shown: string },
    ): void => {
      const before = new Map(present.map((row) => [rowOf(row).name, rowOf(row)]));
      const names = new Set(wanted.map((row) => rowOf(row).name));
      for (const { name, shown } of before.values()) {
        if (names.has(name)) continue;
        add({ kind: 'drop', what, name, account: no }, list);
        tell(what, shown, 'REMOVED');
      }
      for (const [at, row] of wanted.entries()) {
        const { name, body, shown } = rowOf(row);
        // The same twice in the list is once.
        if (before.has(name) || !names.delete(name)) continue;
        add({ kind: 'put', what, name, account: no, body }, `${list}[${at}]`);
        tell(what, shown, 'ADDED');
      }
    };

    if (one.senders) {
      const present = mine(rows.senders).map(({ sender }) => sender);
      replaced('sender', `${place}.senders`, one.senders.map(senderKey), present, (sender) => ({
        ...{ name: `${no} ${sender}`, body: { sender }, shown: sender },
      }));
    }
    if (one.domains) {
      const present = mine(rows.domains).map(({ domain }) => domain);
      replaced('domain', `${place}.domains`, one.domains, present, (domain) => ({
        ...{ name: domain, body: { domain }, shown: domain },
      }));
    }
    if (one.blocks) {
      const wanted = one.blocks.map(({ kind, value }) => ({ account: no, kind, value: blockValue(kind, value) }));
      replaced('block', `${place}.blocks`, wanted, mine(rows.blocks), ({ kind, value }) => ({
        ...{ name: blockName({ account: no, kind, value }), body: { kind, value }, shown: `${kind} ${value}` },
      }));
    }
    if (one.prices) {
      const present = mine(rows.prices).flatMap(({ prices }) => prices);
      const named = (row: { channel: string; prefix: string }): string => `${row.channel} ${row.prefix || 'all'}`;
      const before = new Map(present.map((row) => [named(row), row.price]));
      const after = new Map(one.prices.map((row) => [named(row), row.price]));
      const already = plan.differences.length;
      for (const [name, price] of before) {
        if (!after.has(name)) tell('price', name, 'REMOVED', [{ name: 'price', from: price, to: null }]);
      }
      for (const [name, price] of after) {
        const from = before.get(name);
        if (from === price) continue;
        tell('price', name, from === undefined ? 'ADDED' : 'CHANGED', [
          { name: 'price', from: from ?? null, to: price },
        ]);
      }
      if (plan.differences.length > already) {
        const body = { prices: one.prices };
        add({ kind: 'put', what: 'prices', name: String(no), account: no, body }, `${place}.prices`);
      }
    }
    for (const [at, login] of (one.logins ?? []).entries()) {
      const { user, scopes = null } = login;
      const present = mine(rows.logins).find((login) => login.user === user);
      const fields: Difference['fields'] = [];
      if (!isDeepStrictEqual(present?.scopes ?? null, scopes)) {
        fields.push({ name: 'scopes', from: present?.scopes ?? null, to: scopes });
      }
      const { same, body: own } = kept.get(login) ?? { same: false, body: {} };
      if (present && !same) fields.push({ name: 'password', from: SECRET, to: SECRET });
      if (present && fields.length === 0) continue;
      const body = { user, scopes, ...own };
      add({ kind: 'put', what: 'login', name: user, account: no, body, same }, `${place}.logins[${at}].user`);
      tell('login', user, present ? 'CHANGED' : 'ADDED', present ? fields : []);
    }
    for (const [at, { label, key: given, ...said }] of (one.keys ?? []).entries()) {
      const own = mine(rows.keys);
      const present =
        given === undefined
          ? own.find((key) => key.revokedAt === null && key.label === label)
          : own.find((key) => key.hash === hash('sha256', given));
      if (present && present.revokedAt !== null) {
        // Whoever revoked it meant it: a file that is applied by a timer must not let a stolen key in again.
        return { property: `${place}.keys[${at}].key`, violation: 'was revoked; give another one, or take it out' };
      }
      const secret = given ?? (present ? null : Buffer.from(env.random.bytes(32)).toString('hex'));
      const { scopes = null, validFrom = null, validUntil = null, allow = [], requestsPerMinute = null } = said;
      const key: ApiKey = {
        id: present?.id ?? Buffer.from(env.random.bytes(8)).toString('hex'),
        hash: present?.hash ?? hash('sha256', secret ?? ''),
        account: no,
        label,
        scopes,
        validFrom,
        validUntil,
        allow,
        requestsPerMinute,
        createdAt: present?.createdAt ?? env.clock.now(),
        revokedAt: null,
      };
      if (present && isDeepStrictEqual(present, key)) continue;
      add({ kind: 'key', key }, `${place}.keys[${at}].key`);
      const rules = ['label', 'scopes', 'validFrom', 'validUntil', 'allow', 'requestsPerMinute'] as const;
      tell('key', label, present ? 'CHANGED' : 'ADDED', present ? fieldsOf(rules, present, key) : []);
      if (!present && given === undefined) told.keys.push({ label, key: dry ? '' : (secret ?? '') });
    }
    if (one.endpoints) await ofEndpoints(one.endpoints, place, no, there, add, tell, told, dry);
    return null;
  }

  async function ofEndpoints(
    wanted: NonNullable<One['endpoints']>,
    place: string,
    no: number,
    there: boolean,
    add: (change: OperatorChange, at: string) => void,
    tell: (what: 'endpoint', name: string, change: Difference['change'], fields: Difference['fields']) => void,
    told: Plan['accounts'][number],
    dry: boolean,
  ): Promise<void> {
    const settings = there ? await store.endpointList(no) : [];
    for (const [at, one] of wanted.entries()) {
      const kind = kindOf(one.kind);
      const present = settings.find((setting) => setting.kind === kind && setting.url === one.url);
      const put: EndpointPut = { account: no, kind, url: one.url };
      const fields: Difference['fields'] = [];
      const { contentType, default: standard, headers, secret } = one;
      if (contentType !== undefined && contentType !== present?.contentType) {
        put.contentType = contentType;
        fields.push({ name: 'contentType', from: present?.contentType ?? null, to: contentType });
      }
      if (standard !== undefined && standard !== present?.isDefault) {
        put.isDefault = standard;
        fields.push({ name: 'default', from: present?.isDefault ?? null, to: standard });
      }
      if (headers !== undefined && !isDeepStrictEqual({ ...headers }, { ...present?.headers })) {
        put.headers = headers;
        const names = (of: object): string => Object.keys(of).join(', ');
        fields.push({ name: 'headers', from: names(present?.headers ?? {}), to: names(headers) });
      }
      const signs = present?.secrets.find(({ until }) => until === null)?.secret ?? null;
      const made = secret === undefined && present === undefined;
      if (made || (secret !== undefined && secret !== signs)) {
        const value = made ? (dry ? SECRET : newSecret(env)) : secret;
        put.secret = value === null || value === undefined ? null : { value, oldForMs: OVERLAP_MS };
        fields.push({ name: 'secret', from: signs && SECRET, to: put.secret && SECRET });
        if (made && put.secret)
          told.endpoints.push({ kind: one.kind, url: one.url, secret: dry ? '' : put.secret.value });
      }
      if (present && fields.length === 0) continue;
      add({ kind: 'endpoint', put }, `${place}.endpoints[${at}].url`);
      tell('endpoint', `${one.kind} ${placeOf(one.url)}`, present ? 'CHANGED' : 'ADDED', present ? fields : []);
    }
  }

  /** What logins keep, as far as it is known by `until`. */
  async function looked(wanted: Wanted, directory: Directory, until: number): Promise<Kept> {
    const numbers = new Map(directory.accounts.map(({ name, no }) => [name, no]));
    const present = new Map(directory.logins.map((login) => [login.user, login]));
    const kept: Kept = new Map();
    const all = wanted.accounts.flatMap(({ name, logins = [] }) => logins.map((login) => ({ name, login }))).values();
    const look = async (): Promise<void> => {
      for (const { name, login } of all) {
        const there = present.get(login.user);
        const own = there?.account === numbers.get(name) ? there : undefined;
        kept.set(login, await loginKept(auth.passwords, own, login.user, login.password));
        if (env.clock.monotonic() >= until) return;
      }
    };
    // They share one list, and each takes a place like everybody who logs in.
    await Promise.all(Array.from({ length: LOOKS }, look));
    return kept;
  }

  async function planned(wanted: Wanted, directory: Directory, kept: Kept, dry: boolean): Promise<Plan | Violation> {
    const plan: Plan = { changes: [], places: [], differences: [], accounts: [] };
    const heads: { change: OperatorChange; place: string }[] = [];
    const rows = rowsOf(directory);
    const named = new Map(directory.accounts.map((account) => [account.name, account]));
    let last = directory.accounts.reduce((most, { no }) => Math.max(most, no), 0);
    for (const [at, one] of wanted.accounts.entries()) {
      const { keys: _k, logins: _l, senders: _s, domains: _d, prices: _p, blocks: _b, ...more } = one;
      const { endpoints: _e, name, ...settings } = more;
      const present = named.get(name);
      const before = changedSettings(present ?? DEFAULT_SETTINGS, {});
      const after = changedSettings(before, settings);
      const no = present?.no ?? ++last;
      const place = `accounts[${at}]`;
      if (present === undefined || !isDeepStrictEqual(before, after)) {
        heads.push({
          change: { kind: 'account', no: present?.no ?? null, name, settings: after },
          place: `${place}.name`,
        });
        const fields = settingsOf(before, after);
        plan.differences.push({
          ...{ account: name, what: 'account', name, change: present ? 'CHANGED' : 'ADDED', fields },
        });
      }
      const wrong = await ofAccount(one, place, no, present !== undefined, rows, kept, plan, dry);
      if (wrong) return wrong;
    }
    // Accounts first: the rest names them. Then what goes, so that a domain can move from one account of the file to another.
    const drops = new Set(plan.changes.keys().filter((at) => plan.changes[at]?.kind === 'drop'));
    const order = [...drops, ...plan.changes.keys().filter((at) => !drops.has(at))];
    return {
      ...plan,
      changes: [...heads.map(({ change }) => change), ...order.map((at) => plan.changes[at] as OperatorChange)],
      places: [...heads.map(({ place }) => place), ...order.map((at) => plan.places[at] as string)],
    };
  }

  return async function apply(wanted: Wanted, by: string, dry: boolean): Promise<Applied> {
    // What another node changed a moment ago counts.
    await auth.refresh();
    const of = wanted.accounts.reduce((sum, { logins = [] }) => sum + logins.length, 0);
    if (of > LOGINS_MAX) return { kind: 'refused', violation: { property: 'accounts', violation: TOO_MANY_LOGINS } };
    for (let run = 0; run < RUNS; run++) {
      const directory = auth.directory();
      const kept = await looked(wanted, directory, env.clock.monotonic() + LOOKING_MS);
      if (kept.size < of) return { kind: 'looking', passwords: { known: kept.size, of } };
      const plan = await planned(wanted, directory, kept, dry);
      if ('violation' in plan) return { kind: 'refused', violation: plan };
      const { changes, places, differences, accounts } = plan;
      const answer = { dryRun: dry, changes: differences.length, accounts, differences: differences.slice(0, TOLD) };
      if (changes.length === 0) return { kind: 'done', answer };
      if (changes.length > DIRECTORY_MAX) return { kind: 'refused', violation: tooMany('accounts') };
      const full = overfull(directory, differences);
      if (full) return { kind: 'refused', violation: full };
      const detail = {
        accounts: accounts.map(({ name }) => name).slice(0, NOTED),
        changes: differences.length,
        differences: differences
          .slice(0, NOTED)
          .map(({ account, what, name, change }) =>
            what === 'account' ? `${change} account ${name}` : `${change} ${what} ${name} of ${account}`,
          ),
      };
      const deed = { by, action: 'file applied', account: null, detail };
      const done = await store.administer(changes, deed, { at: directory.revision, dry });
      if (done.kind === 'done') {
        if (!dry) {
          await auth.refresh();
          env.log.info(
            { action: deed.action, accounts: accounts.length, changes: differences.length, by },
            'administered',
          );
        }
        return { kind: 'done', answer };
      }
      if (done.kind !== 'stale') return { kind: 'refused', violation: refusal(done, places) };
      await auth.refresh();
    }
    return { kind: 'busy' };
  };
}

const TOO_MANY_LOGINS = `must have at most ${LOGINS_MAX} logins in all: make it two files`;

function tooMany(property: string): Violation {
  return { property, violation: `would be more than ${DIRECTORY_MAX} changes: make it two files` };
}

/** What there is `DIRECTORY_MAX` of at most, by what differences call it. */
const COUNTED = {
  account: 'accounts',
  key: 'keys',
  login: 'logins',
  sender: 'senders',
  domain: 'domains',
  block: 'blocks',
} as const;

/** Of what there would be more than an installation may have; null = of nothing. */
function overfull(directory: Directory, differences: readonly Difference[]): Violation | null {
  for (const [what, rows] of Object.entries(COUNTED) as [
    keyof typeof COUNTED,
    (typeof COUNTED)[keyof typeof COUNTED],
  ][]) {
    const of = differences.filter((one) => one.what === what);
    const more =
      of.filter(({ change }) => change === 'ADDED').length - of.filter(({ change }) => change === 'REMOVED').length;
    if (more > 0 && directory[rows].length + more > DIRECTORY_MAX) {
      return { property: 'accounts', violation: `would make more than ${DIRECTORY_MAX} ${rows} of this installation` };
    }
  }
  return null;
}

function refusal(done: Exclude<Administered, { kind: 'done' | 'stale' }>, places: readonly string[]): Violation {
  const property = places[done.change] ?? '';
  if (done.kind !== 'refused') return { property, violation: 'is taken by another account' };
  return { property, violation: `the account has ${ENDPOINTS_MAX} endpoints, which is the most` };
}

/** What differs between two, field by field; instants as they are written. */
function fieldsOf<Row extends object>(
  names: readonly (keyof Row & string)[],
  from: Row,
  to: Row,
): Difference['fields'] {
  const shown = (name: string, value: unknown): unknown =>
    name.startsWith('valid') && typeof value === 'number' ? formatInstant(value) : value;
  return names
    .filter((name) => !isDeepStrictEqual(from[name], to[name]))
    .map((name) => ({ name, from: shown(name, from[name]), to: shown(name, to[name]) }));
}

function settingsOf(from: Omit<Account, 'no' | 'name'>, to: Omit<Account, 'no' | 'name'>): Difference['fields'] {
  const { limits: before, ...rest } = from;
  const { limits: after, ...others } = to;
  return [
    ...fieldsOf(Object.keys(others) as (keyof typeof others)[], rest, others),
    ...fieldsOf(Object.keys(after) as (keyof typeof after)[], before, after).map((field) => ({
      ...field,
      name: `limits.${field.name}`,
    })),
  ];
}
