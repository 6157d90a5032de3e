/** What the operator decides, as the model has it: plain maps. */
import {
  type Administered,
  type AuditRow,
  DEFAULT_SETTINGS,
  type Directory,
  type NewSession,
  type Take,
} from '../../src/domain/accounts.ts';
import type { Key, Store } from '../../src/store/contract.ts';
import type { World } from './model-world.ts';

type Verbs = Pick<
  Store,
  'directory' | 'administer' | 'auditLog' | 'sessionPut' | 'sessionUse' | 'sessionDelete' | 'quota'
>;
type Plain = { [Verb in keyof Verbs]: (...args: Parameters<Verbs[Verb]>) => Awaited<ReturnType<Verbs[Verb]>> };

/** The verbs, for the account numbers of `world` and the keys of the store. */
export function createModelAccounts(world: World, keys: Map<string, Key>): Plain & { bump(): void } {
  let revision = 0;
  const accounts = new Map<number, Directory['accounts'][number]>();
  const rules = new Map<string, Directory['keys'][number]>();
  const held = new Map<string, { what: string; account: number; body: object }>();
  const sessions = new Map<string, NewSession & { until: number }>();
  const endSessions = (user: string): void => {
    for (const [hash, session] of sessions) if (session.user === user) sessions.delete(hash);
  };
  const counters = new Map<string, Map<number, { count: number; until: number }>>();
  const audit: AuditRow[] = [];
  const account = (no: number) => accounts.get(no) ?? { ...DEFAULT_SETTINGS, no, name: `account ${no}` };

  return {
    bump: () => {
      revision++;
    },
    directory(known) {
      if (known === revision) return null;
      const of = <Row>(what: string): Row[] =>
        [...held]
          .filter(([, row]) => row.what === what)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([, row]) => ({ ...row.body, account: row.account }) as Row);
      return {
        revision,
        accounts: [...world.accounts].sort((a, b) => a - b).map(account),
        keys: [...keys.values()]
          .sort((a, b) => a.account - b.account || (`${a.label} ${a.hash}` < `${b.label} ${b.hash}` ? -1 : 1))
          .map((key) => ({
            id: key.hash.slice(0, 16),
            createdAt: 0,
            scopes: null,
            validFrom: null,
            validUntil: null,
            allow: [],
            revokedAt: null,
            requestsPerMinute: null,
            ...rules.get(key.hash),
            ...key,
          })),
        logins: of('login'),
        senders: of('sender'),
        domains: of('domain'),
        prices: of('prices'),
        blocks: of('block'),
      };
    },
    administer(changes, deed): Administered {
      for (const [change, one] of changes.entries()) {
        if (one.kind === 'drop' || one.kind === 'numberDrop') continue;
        if (one.kind === 'number') {
          const { number, account: owner } = one.number;
          if (!world.accounts.has(owner)) return { kind: 'notFound', change };
          if ((world.numbers.get(number)?.account ?? owner) !== owner) return { kind: 'conflict', change };
          continue;
        }
        const no = one.kind === 'account' ? one.no : one.kind === 'key' ? one.key.account : one.account || null;
        if (no !== null && !world.accounts.has(no)) return { kind: 'notFound', change };
        const taken =
          one.kind === 'account'
            ? [...world.accounts].some((other) => other !== one.no && account(other).name === one.name)
            : one.kind === 'key'
              ? (keys.get(one.key.hash)?.account ?? one.key.account) !== one.key.account
              : (held.get(`${one.what} ${one.name}`)?.account ?? one.account) !== one.account;
        if (taken) return { kind: 'conflict', change };
      }
      const made: number[] = [];
      let dropped = 0;
      for (const one of changes) {
        if (one.kind === 'account') {
          const no = one.no ?? Math.max(0, ...world.accounts) + 1;
          world.accounts.add(no);
          accounts.set(no, { ...one.settings, no, name: one.name });
          made.push(no);
        } else if (one.kind === 'key') {
          rules.set(one.key.hash, one.key);
          keys.set(one.key.hash, { hash: one.key.hash, account: one.key.account, label: one.key.label });
        } else if (one.kind === 'put') {
          held.set(`${one.what} ${one.name}`, { what: one.what, account: one.account, body: one.body });
          if (one.what === 'login') endSessions(one.name);
        } else if (one.kind === 'number') {
          world.numbers.set(one.number.number, one.number);
        } else if (one.kind === 'numberDrop') {
          if (world.numbers.get(one.number)?.account !== one.account) continue;
          world.numbers.delete(one.number);
          dropped++;
        } else if (held.get(`${one.what} ${one.name}`)?.account === one.account) {
          held.delete(`${one.what} ${one.name}`);
          if (one.what === 'login') endSessions(one.name);
          dropped++;
        }
      }
      if (
        dropped === 0 &&
        changes.length > 0 &&
        changes.every(({ kind }) => kind === 'drop' || kind === 'numberDrop')
      ) {
        return { kind: 'done', accounts: made, dropped };
      }
      revision++;
      audit.unshift({ ...deed, account: deed.account ?? made[0] ?? null, no: audit.length + 1, at: world.now });
      world.hint('keys');
      return { kind: 'done', accounts: made, dropped };
    },
    auditLog: (limit, before = Number.POSITIVE_INFINITY) => audit.filter(({ no }) => no < before).slice(0, limit),
    sessionPut(session) {
      sessions.set(session.hash, { ...session, until: world.now + session.ttlMs });
    },
    sessionUse(hash) {
      const session = sessions.get(hash);
      if (!session || session.until <= world.now) return null;
      if (session.idle) session.until = world.now + session.ttlMs;
      return { hash, user: session.user, kind: session.kind };
    },
    sessionDelete: (hash) => (sessions.get(hash)?.until ?? 0) > world.now && sessions.delete(hash),
    quota(takes) {
      for (const counter of counters.values()) {
        for (const [bucket, { until }] of counter) if (until <= world.now) counter.delete(bucket);
      }
      return takes.map(take);
    },
  };

  function take({ account: no, scope, bucket, buckets, want, least, most, keepMs }: Take): number {
    const name = `${no} ${scope}`;
    const counter = counters.get(name) ?? new Map<number, { count: number; until: number }>();
    counters.set(name, counter);
    let used = 0;
    for (const [at, { count }] of counter) if (at > bucket - buckets && at <= bucket) used += count;
    const room = Math.min(want, most - used);
    const given = want < 0 ? want : room >= least ? Math.max(room, 0) : 0;
    if (given !== 0)
      counter.set(bucket, { count: Math.max(0, (counter.get(bucket)?.count ?? 0) + given), until: world.now + keepMs });
    return given;
  }
}
