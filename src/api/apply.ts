/**
 * `apply`: accounts as a file says they shall be, against what they are. What differs becomes changes of one transaction with one
 * line in the audit log; where nothing differs, nothing happens.
 *
 * Promises: idempotent. Lists that are given replace what is there; keys and logins are added and changed, never taken away.
 */
import { hash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import {
  type Account,
  type AdminChange,
  type ApiKey,
  type Block,
  blockName,
  blockValue,
  changedSettings,
  DEFAULT_SETTINGS,
  DIRECTORY_MAX,
  type Held,
} from '../domain/accounts.ts';
import { senderKey } from '../domain/optout.ts';
import type { Env } from '../env.ts';
import type { Store } from '../store/contract.ts';
import type { Wanted } from './admin-schema.ts';
import { type Auth, passwordIs } from './auth.ts';

type One = Wanted['accounts'][number];

/** `answer` as the door gives it. */
export type Applied =
  | { kind: 'done'; answer: { changes: number; accounts: object[] } }
  | { kind: 'conflict'; change: AdminChange }
  | { kind: 'full' };

/** The verb, for who asks `by`. */
export function createApply({ store, env, auth }: { store: Store; env: Env; auth: Auth }) {
  /** Rows of a kind as they shall be, against those that are there. */
  function rowsOf(
    what: Held,
    account: number,
    wanted: Map<string, object>,
    present: Map<string, object>,
  ): AdminChange[] {
    const changes: AdminChange[] = [];
    for (const name of present.keys()) if (!wanted.has(name)) changes.push({ kind: 'drop', what, name, account });
    for (const [name, body] of wanted) {
      if (!isDeepStrictEqual(present.get(name), body)) changes.push({ kind: 'put', what, name, account, body });
    }
    return changes;
  }

  async function ofAccount(
    one: One,
    { no }: Account,
  ): Promise<{ changes: AdminChange[]; keys: { label: string; key: string }[] }> {
    const directory = auth.directory();
    const mine = <Row extends { account: number }>(rows: readonly Row[]): Row[] =>
      rows.filter((row) => row.account === no);
    const changes: AdminChange[] = [];
    const keys: { label: string; key: string }[] = [];
    if (one.senders) {
      const name = (sender: string): [string, object] => [`${no} ${sender}`, { sender }];
      const wanted = new Map(one.senders.map((sender) => name(senderKey(sender))));
      changes.push(...rowsOf('sender', no, wanted, new Map(mine(directory.senders).map(({ sender }) => name(sender)))));
    }
    if (one.domains) {
      const name = (domain: string): [string, object] => [domain, { domain }];
      const present = new Map(mine(directory.domains).map(({ domain }) => name(domain)));
      changes.push(...rowsOf('domain', no, new Map(one.domains.map(name)), present));
    }
    if (one.prices) {
      const present = new Map(mine(directory.prices).map(({ prices }) => [String(no), { prices }]));
      changes.push(...rowsOf('prices', no, new Map([[String(no), { prices: one.prices }]]), present));
    }
    if (one.blocks) {
      const name = ({ kind, value }: Omit<Block, 'account'>): [string, object] => [
        blockName({ account: no, kind, value }),
        { kind, value },
      ];
      const wanted = new Map(one.blocks.map(({ kind, value }) => name({ kind, value: blockValue(kind, value) })));
      changes.push(...rowsOf('block', no, wanted, new Map(mine(directory.blocks).map(name))));
    }
    for (const { user, password, scopes = null } of one.logins ?? []) {
      const present = mine(directory.logins).find((login) => login.user === user);
      const same =
        present && isDeepStrictEqual(present.scopes, scopes) && (await passwordIs(password, present.password));
      if (same) continue;
      const body = { user, scopes, password: await auth.passwordHash(password) };
      changes.push({ kind: 'put', what: 'login', name: user, account: no, body });
    }
    for (const { label, key: given, ...said } of one.keys ?? []) {
      const present = mine(directory.keys).find(
        (key) =>
          key.revokedAt === null && (given === undefined ? key.label === label : key.hash === hash('sha256', given)),
      );
      const secret = given ?? (present ? null : Buffer.from(env.random.bytes(32)).toString('hex'));
      const { scopes = null, validFrom = null, validUntil = null, allow = [], requestsPerMinute = null } = said;
      const key: ApiKey = {
        id: present?.id ?? Buffer.from(env.random.bytes(8)).toString('hex'),
        hash: present?.hash ?? hash('sha256', secret as string),
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
      changes.push({ kind: 'key', key });
      if (!present && given === undefined) keys.push({ label, key: secret as string });
    }
    return { changes, keys };
  }

  return async function apply(wanted: Wanted, by: string): Promise<Applied> {
    const before = auth.directory();
    const made: AdminChange[] = [];
    const added = new Set<string>();
    for (const one of wanted.accounts) {
      const { keys: _k, logins: _l, senders: _s, domains: _d, prices: _p, blocks: _b, name, ...settings } = one;
      const present = before.accounts.find((account) => account.name === name);
      const after = changedSettings(present ?? DEFAULT_SETTINGS, settings);
      if (present === undefined) added.add(name);
      if (present === undefined || !isDeepStrictEqual(changedSettings(present, {}), after)) {
        made.push({ kind: 'account', no: present?.no ?? null, name, settings: after });
      }
    }
    const names = wanted.accounts.map(({ name }) => name);
    const run = async (changes: AdminChange[], detail: object): Promise<Applied | null> => {
      if (changes.length === 0) return null;
      if (changes.length > DIRECTORY_MAX) return { kind: 'full' };
      const done = await store.administer(changes, { by, action: 'file applied', account: null, detail });
      if (done.kind !== 'done') return { kind: 'conflict', change: changes[done.change] as AdminChange };
      await auth.refresh();
      return null;
    };
    // First the accounts: what is theirs goes under their numbers.
    const refused = await run(made, { accounts: names });
    if (refused) return refused;
    const accounts: object[] = [];
    const rest: AdminChange[] = [];
    for (const one of wanted.accounts) {
      const account = auth.directory().accounts.find(({ name }) => name === one.name) as Account;
      const { changes, keys } = await ofAccount(one, account);
      rest.push(...changes);
      accounts.push({ account: account.no, name: one.name, added: added.has(one.name), keys });
    }
    const failed = await run(rest, { accounts: names, changes: rest.length });
    if (failed) return failed;
    return { kind: 'done', answer: { changes: made.length + rest.length, accounts } };
  };
}
