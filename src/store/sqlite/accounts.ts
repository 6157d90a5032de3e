/**
 * What the operator decides, in the embedded engine: accounts and keys with their settings, what is held by name, the audit log,
 * sessions, and the counters of limits.
 */
import type { DatabaseSync } from 'node:sqlite';
import type {
  Administered,
  AdminTerms,
  AuditRow,
  Counter,
  Deed,
  Directory,
  NewSession,
  Session,
  Take,
} from '../../domain/accounts.ts';
import {
  AUDIT_MAX,
  CLEAR,
  cameToNothing,
  directoryOf,
  endpointName,
  judged,
  keyBody,
  type Present,
} from '../accounts.ts';
import type { OperatorChange } from '../contract.ts';
import { kindOf } from '../hooks.ts';
import { IDEM_MS } from './accept.ts';
import type { createDeliveries } from './deliveries.ts';
import { prepare, type Tx } from './tx.ts';

/** Verbs that write; `endpoints` are those of an account's endpoints, in the same transaction. */
export function createAccounts(
  tx: Tx,
  endpoints: Pick<ReturnType<typeof createDeliveries>, 'endpointPut' | 'endpointDelete'>,
) {
  const db = tx.db;
  const q = {
    bump: prepare(db, "INSERT INTO meta (k, v) VALUES ('directory', 1) ON CONFLICT (k) DO UPDATE SET v = v + 1"),
    named: prepare<{ no: number }>(db, 'SELECT no FROM account WHERE name = ?'),
    account: prepare<{ body: string | null }>(db, 'SELECT body FROM account WHERE no = ?'),
    bodyPut: prepare(db, 'UPDATE account SET body = ? WHERE no = ?'),
    revision: prepare<{ v: number }>(db, "SELECT v FROM meta WHERE k = 'directory'"),
    once: prepare<{ hash: string; answer: string }>(
      db,
      'SELECT hash, answer FROM idem WHERE account = 0 AND key = ? AND at > ?',
    ),
    oncePut: prepare(db, 'INSERT OR REPLACE INTO idem (account, key, hash, at, answer) VALUES (0, ?, ?, ?, ?)'),
    endpoints: prepare<{ kind: number; url: string }>(db, 'SELECT kind, url FROM endpoint_setting WHERE account = ?'),
    last: prepare<{ no: number | null }>(db, 'SELECT max(no) AS no FROM account'),
    accountPut: prepare(
      db,
      `INSERT INTO account (no, name, body) VALUES (?, ?, ?)
       ON CONFLICT (no) DO UPDATE SET name = excluded.name, body = excluded.body`,
    ),
    keyHolder: prepare<{ account: number }>(db, 'SELECT account FROM key WHERE hash = ?'),
    keyPut: prepare(db, 'INSERT OR REPLACE INTO key (hash, account, label, body) VALUES (?, ?, ?, ?)'),
    holder: prepare<{ account: number }>(db, 'SELECT account FROM held WHERE what = ? AND name = ?'),
    put: prepare(db, 'INSERT OR REPLACE INTO held (what, name, account, body) VALUES (?, ?, ?, ?)'),
    drop: prepare(db, 'DELETE FROM held WHERE what = ? AND name = ? AND account = ?'),
    deed: prepare(db, 'INSERT INTO audit (at, by, action, account, detail) VALUES (?, ?, ?, ?, ?)'),
    forget: prepare(db, 'DELETE FROM audit WHERE no <= ?'),
    sessionsEnded: prepare(
      db,
      `DELETE FROM session WHERE hash IN (SELECT hash FROM session WHERE until <= ? ORDER BY until LIMIT ${CLEAR})`,
    ),
    sessionPut: prepare(db, 'INSERT OR REPLACE INTO session (hash, user, kind, until, idle) VALUES (?, ?, ?, ?, ?)'),
    session: prepare<{ user: string; kind: Session['kind']; idle: number | null }>(
      db,
      'SELECT user, kind, idle FROM session WHERE hash = ? AND until > ?',
    ),
    sessionUse: prepare(db, 'UPDATE session SET until = ? WHERE hash = ?'),
    sessionDelete: prepare(db, 'DELETE FROM session WHERE hash = ? AND until > ?'),
    number: prepare<{ account: number }>(db, 'SELECT account FROM own_number WHERE number = ?'),
    numberPut: prepare(
      db,
      'INSERT OR REPLACE INTO own_number (number, account, url, entity, application, callback) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    numberDrop: prepare(db, 'DELETE FROM own_number WHERE number = ? AND account = ?'),
    sessionsOf: prepare(db, 'DELETE FROM session WHERE user = ?'),
    used: prepare<{ used: number | null }>(
      db,
      'SELECT sum(used) AS used FROM quota WHERE account = ? AND scope = ? AND bucket > ? AND bucket <= ?',
    ),
    use: prepare(
      db,
      `INSERT INTO quota (account, scope, bucket, used, until) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (account, scope, bucket) DO UPDATE SET used = max(0, used + excluded.used), until = excluded.until`,
    ),
    countersEnded: prepare(
      db,
      `DELETE FROM quota WHERE (account, scope, bucket) IN
         (SELECT account, scope, bucket FROM quota WHERE until <= ? ORDER BY until LIMIT ${CLEAR})`,
    ),
  };

  const present: Present = {
    get now() {
      return tx.now;
    },
    get revision() {
      return Number(q.revision.get()?.v ?? 0);
    },
    get last() {
      return q.last.get()?.no ?? 0;
    },
    account: (no) => q.account.get(no),
    named: (name) => q.named.get(name)?.no,
    keyHolder: (hash) => q.keyHolder.get(hash)?.account,
    holder: (what, name) => q.holder.get(what, name)?.account,
    numberHolder: (number) => q.number.get(number)?.account,
    endpoints: (account) => new Set(q.endpoints.all(account).map(({ kind, url }) => endpointName(kindOf(kind), url))),
    once: (key) => q.once.get(key, tx.now - IDEM_MS),
  };

  return {
    bump: (): void => {
      q.bump.run();
    },
    /** All is judged before the first write, so nothing has to be undone. */
    administer(changes: OperatorChange[], deed: Deed, terms: AdminTerms): Administered {
      const go = judged(changes, terms, present);
      if (go.kind !== 'go') return go;
      const { accounts, credits } = go;
      let dropped = 0;
      if (terms.dry) return { kind: 'done', accounts, dropped, credits };
      for (const one of go.writes) {
        if (one.kind === 'account') {
          q.accountPut.run(one.no, one.name, one.body);
        } else if (one.kind === 'credit') {
          q.bodyPut.run(one.body, one.account);
          if (one.once) q.oncePut.run(one.once.key, one.once.hash, tx.now, one.once.answer);
        } else if (one.kind === 'key') {
          const { key } = one;
          q.keyPut.run(key.hash, key.account, key.label, keyBody(key));
        } else if (one.kind === 'put') {
          q.put.run(one.what, one.name, one.account, JSON.stringify(one.body));
          if (one.what === 'login' && !one.same) q.sessionsOf.run(one.name);
        } else if (one.kind === 'number') {
          const { number, account, url, entity, application, callbackData } = one.number;
          q.numberPut.run(number, account, url, entity, application, callbackData);
        } else if (one.kind === 'numberDrop') {
          dropped += q.numberDrop.run(one.number, one.account);
        } else if (one.kind === 'endpoint') {
          endpoints.endpointPut(one.put);
        } else if (one.kind === 'endpointDrop') {
          if (endpoints.endpointDelete(one.account, one.hook, one.url)) dropped++;
        } else {
          const gone = q.drop.run(one.what, one.name, one.account);
          // Another account may get a user of that name before the sessions would have ended.
          if (one.what === 'login' && gone > 0) q.sessionsOf.run(one.name);
          dropped += gone;
        }
      }
      if (cameToNothing(go, dropped)) return { kind: 'done', accounts, dropped, credits };
      const account = deed.account ?? (accounts.length === 1 ? (accounts[0] ?? null) : null);
      const no = q.deed.insert(tx.now, deed.by, deed.action, account, JSON.stringify(deed.detail));
      q.forget.run(no - AUDIT_MAX);
      q.bump.run();
      tx.hint('keys');
      return { kind: 'done', accounts, dropped, credits };
    },
    sessionPut({ hash, user, kind, ttlMs, idle }: NewSession): void {
      q.sessionsEnded.run(tx.now);
      q.sessionPut.run(hash, user, kind, tx.now + ttlMs, idle ? ttlMs : null);
    },
    sessionUse(hash: string): Session | null {
      const row = q.session.get(hash, tx.now);
      if (!row) return null;
      if (row.idle !== null) q.sessionUse.run(tx.now + row.idle, hash);
      return { hash, user: row.user, kind: row.kind };
    },
    sessionDelete: (hash: string): boolean => q.sessionDelete.run(hash, tx.now) > 0,
    quota(takes: Take[]): number[] {
      q.countersEnded.run(tx.now);
      return takes.map(({ account, scope, bucket, buckets, want, least, most, keepMs }) => {
        const used = q.used.get(account, scope, bucket - buckets, bucket)?.used ?? 0;
        const room = Math.min(want, most - used);
        const given = want < 0 ? want : room >= least ? Math.max(room, 0) : 0;
        if (given !== 0) q.use.run(account, scope, bucket, given, tx.now + keepMs);
        return given;
      });
    },
  };
}

/** Verbs that read. */
export function createAccountReads(db: DatabaseSync) {
  const q = {
    revision: prepare<{ v: number }>(db, "SELECT v FROM meta WHERE k = 'directory'"),
    accounts: prepare<{ no: number; name: string; body: string | null }>(
      db,
      'SELECT no, name, body FROM account ORDER BY no',
    ),
    keys: prepare<{ hash: string; account: number; label: string; body: string | null }>(
      db,
      'SELECT hash, account, label, body FROM key ORDER BY account, label, hash',
    ),
    used: prepare<{ used: number | null }>(
      db,
      'SELECT sum(used) AS used FROM quota WHERE account = ? AND scope = ? AND bucket > ? AND bucket <= ?',
    ),
    held: prepare<{ what: string; account: number; body: string }>(
      db,
      'SELECT what, account, body FROM held ORDER BY what, name',
    ),
    audit: prepare<Omit<AuditRow, 'detail'> & { detail: string }>(
      db,
      'SELECT no, at, by, action, account, detail FROM audit WHERE no < ? ORDER BY no DESC LIMIT ? + 0',
    ),
  };
  return {
    directory(known: number): Directory | null {
      // Before the rows: what changes meanwhile is seen the next time.
      const revision = Number(q.revision.get()?.v ?? 0);
      if (revision === known) return null;
      return directoryOf({ revision, accounts: q.accounts.all(), keys: q.keys.all(), held: q.held.all() });
    },
    quotaUsed: (counters: Counter[]): number[] =>
      counters.map(
        ({ account, scope, bucket, buckets }) => q.used.get(account, scope, bucket - buckets, bucket)?.used ?? 0,
      ),
    auditLog: (limit: number, before: number | undefined): AuditRow[] =>
      q.audit
        .all(before ?? Number.MAX_SAFE_INTEGER, limit)
        .map((row) => ({ ...row, detail: JSON.parse(row.detail) as object })),
  };
}
