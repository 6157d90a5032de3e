/**
 * What the operator decides, in the embedded engine: accounts and keys with their settings, what is held by name, the audit log,
 * sessions, and the counters of limits.
 */
import type { DatabaseSync } from 'node:sqlite';
import type {
  AdminChange,
  Administered,
  AuditRow,
  Deed,
  Directory,
  NewSession,
  Session,
  Take,
} from '../../domain/accounts.ts';
import { AUDIT_MAX, CLEAR, directoryOf, keyBody } from '../accounts.ts';
import { prepare, type Tx } from './tx.ts';

/** Verbs that write. */
export function createAccounts(tx: Tx) {
  const db = tx.db;
  const q = {
    bump: prepare(db, "INSERT INTO meta (k, v) VALUES ('directory', 1) ON CONFLICT (k) DO UPDATE SET v = v + 1"),
    named: prepare<{ no: number }>(db, 'SELECT no FROM account WHERE name = ?'),
    account: prepare<{ no: number }>(db, 'SELECT no FROM account WHERE no = ?'),
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

  /** Undoes nothing: all is judged before the first write. */
  function judge(changes: AdminChange[]): Administered | null {
    for (const [index, change] of changes.entries()) {
      if (change.kind === 'account') {
        if (change.no !== null && !q.account.get(change.no)) return { kind: 'notFound', change: index };
        const namesake = q.named.get(change.name);
        if (namesake && namesake.no !== change.no) return { kind: 'conflict', change: index };
      } else if (change.kind === 'key') {
        if (!q.account.get(change.key.account)) return { kind: 'notFound', change: index };
        const holder = q.keyHolder.get(change.key.hash);
        if (holder && holder.account !== change.key.account) return { kind: 'conflict', change: index };
      } else if (change.kind === 'put') {
        if (change.account !== 0 && !q.account.get(change.account)) return { kind: 'notFound', change: index };
        const holder = q.holder.get(change.what, change.name);
        if (holder && holder.account !== change.account) return { kind: 'conflict', change: index };
      } else if (change.kind === 'number') {
        const { number, account } = change.number;
        if (!q.account.get(account)) return { kind: 'notFound', change: index };
        if ((q.number.get(number)?.account ?? account) !== account) return { kind: 'conflict', change: index };
      }
    }
    return null;
  }

  return {
    bump: (): void => {
      q.bump.run();
    },
    administer(changes: AdminChange[], deed: Deed): Administered {
      const refusal = judge(changes);
      if (refusal) return refusal;
      const accounts: number[] = [];
      let dropped = 0;
      for (const change of changes) {
        if (change.kind === 'account') {
          const no = change.no ?? (q.last.get()?.no ?? 0) + 1;
          q.accountPut.run(no, change.name, JSON.stringify(change.settings));
          accounts.push(no);
        } else if (change.kind === 'key') {
          const { key } = change;
          q.keyPut.run(key.hash, key.account, key.label, keyBody(key));
        } else if (change.kind === 'put') {
          q.put.run(change.what, change.name, change.account, JSON.stringify(change.body));
          if (change.what === 'login') q.sessionsOf.run(change.name);
        } else if (change.kind === 'number') {
          const { number, account, url, entity, application, callbackData } = change.number;
          q.numberPut.run(number, account, url, entity, application, callbackData);
        } else if (change.kind === 'numberDrop') {
          dropped += q.numberDrop.run(change.number, change.account);
        } else {
          const gone = q.drop.run(change.what, change.name, change.account);
          // Another account may get a user of that name before the sessions would have ended.
          if (change.what === 'login' && gone > 0) q.sessionsOf.run(change.name);
          dropped += gone;
        }
      }
      // Nothing was there to take away: nothing was done.
      if (
        dropped === 0 &&
        changes.length > 0 &&
        changes.every(({ kind }) => kind === 'drop' || kind === 'numberDrop')
      ) {
        return { kind: 'done', accounts, dropped };
      }
      const account = deed.account ?? accounts[0] ?? null;
      const no = q.deed.insert(tx.now, deed.by, deed.action, account, JSON.stringify(deed.detail));
      q.forget.run(no - AUDIT_MAX);
      q.bump.run();
      tx.hint('keys');
      return { kind: 'done', accounts, dropped };
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
    auditLog: (limit: number, before: number | undefined): AuditRow[] =>
      q.audit
        .all(before ?? Number.MAX_SAFE_INTEGER, limit)
        .map((row) => ({ ...row, detail: JSON.parse(row.detail) as object })),
  };
}
