/** What the operator decides, as the model has it: plain maps. */
import {
  type Administered,
  type AuditRow,
  DEFAULT_SETTINGS,
  type Directory,
  type NewSession,
  type SpendLimit,
  type Take,
} from '../../src/domain/accounts.ts';
import { cameToNothing, endpointName, judged } from '../../src/store/accounts.ts';
import type { Key, Store } from '../../src/store/contract.ts';
import type { createHooks } from './model-hooks.ts';
import type { World } from './model-world.ts';

const DAY = 86_400_000;

type Verbs = Pick<
  Store,
  'directory' | 'administer' | 'auditLog' | 'sessionPut' | 'sessionUse' | 'sessionDelete' | 'quota' | 'quotaUsed'
>;
type Plain = { [Verb in keyof Verbs]: (...args: Parameters<Verbs[Verb]>) => Awaited<ReturnType<Verbs[Verb]>> };

/** The verbs, for the account numbers of `world` and the keys of the store; what may be changed is judged as in the engines. */
export function createModelAccounts(
  world: World,
  keys: Map<string, Key>,
  hooks: Pick<ReturnType<typeof createHooks>, 'endpointList' | 'endpointPut' | 'endpointDelete'>,
): Plain & { bump(): void } {
  const once = new Map<string, { hash: string; answer: string; until: number }>();
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
    administer(changes, deed, terms = {}): Administered {
      const body = (no: number) => (accounts.has(no) ? JSON.stringify(accounts.get(no)) : null);
      const found = (name: string) => [...world.accounts].find((no) => account(no).name === name);
      const go = judged(changes, terms, {
        now: world.now,
        revision,
        last: Math.max(0, ...world.accounts),
        account: (no) => (world.accounts.has(no) ? { body: body(no) } : undefined),
        named: found,
        keyHolder: (hash) => keys.get(hash)?.account,
        holder: (what, name) => held.get(`${what} ${name}`)?.account,
        numberHolder: (number) => world.numbers.get(number)?.account,
        endpoints: (no) => new Set(hooks.endpointList(no).map(({ kind, url }) => endpointName(kind, url))),
        once: (key) => {
          const kept = once.get(key);
          return kept && kept.until > world.now ? kept : undefined;
        },
      });
      if (go.kind !== 'go') return go;
      const { accounts: made, credits } = go;
      let dropped = 0;
      if (terms.dry) return { kind: 'done', accounts: made, dropped, credits };
      for (const one of go.writes) {
        if (one.kind === 'account') {
          world.accounts.add(one.no);
          accounts.set(one.no, { ...JSON.parse(one.body), no: one.no, name: one.name });
        } else if (one.kind === 'credit') {
          const { limits, ...said } = JSON.parse(one.body) as { limits: { spend: SpendLimit }; totalSince?: number };
          const before = { ...account(one.account), ...said };
          accounts.set(one.account, { ...before, limits: { ...before.limits, spend: limits.spend } });
          if (one.once) once.set(one.once.key, { ...one.once, until: world.now + DAY });
        } else if (one.kind === 'key') {
          rules.set(one.key.hash, one.key);
          keys.set(one.key.hash, { hash: one.key.hash, account: one.key.account, label: one.key.label });
        } else if (one.kind === 'put') {
          held.set(`${one.what} ${one.name}`, { what: one.what, account: one.account, body: one.body });
          if (one.what === 'login' && !one.same) endSessions(one.name);
        } else if (one.kind === 'number') {
          world.numbers.set(one.number.number, one.number);
        } else if (one.kind === 'numberDrop') {
          if (world.numbers.get(one.number)?.account !== one.account) continue;
          world.numbers.delete(one.number);
          dropped++;
        } else if (one.kind === 'endpoint') {
          hooks.endpointPut(one.put);
        } else if (one.kind === 'endpointDrop') {
          if (hooks.endpointDelete(one.account, one.hook, one.url)) dropped++;
        } else if (held.get(`${one.what} ${one.name}`)?.account === one.account) {
          held.delete(`${one.what} ${one.name}`);
          if (one.what === 'login') endSessions(one.name);
          dropped++;
        }
      }
      if (cameToNothing(go, dropped)) return { kind: 'done', accounts: made, dropped, credits };
      revision++;
      audit.unshift({
        ...deed,
        account: deed.account ?? (made.length === 1 ? (made[0] ?? null) : null),
        no: audit.length + 1,
        at: world.now,
      });
      world.hint('keys');
      return { kind: 'done', accounts: made, dropped, credits };
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
    quotaUsed: (asked) =>
      asked.map(({ account: no, scope, bucket, buckets }) =>
        [...(counters.get(`${no} ${scope}`) ?? [])]
          .filter(([at]) => at > bucket - buckets && at <= bucket)
          .reduce((sum, [, { count }]) => sum + count, 0),
      ),
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
