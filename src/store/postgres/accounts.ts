/**
 * What the operator decides, on PostgreSQL: accounts and keys with their settings, what is held by name, the audit log, sessions,
 * and the counters of limits that nodes share.
 *
 * Against other nodes: changes take turns by the row of the revision; takes from one account's counters by the account's row.
 */
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
import { AUDIT_MAX, CLEAR, type DirectoryRows, directoryOf, keyBody } from '../accounts.ts';
import { type Ask, list, plain, sql, type Tx, texts } from './tx.ts';

const SQL = {
  bump: sql("UPDATE counter SET next = next + 1 WHERE k = 'directory'"),
  revision: sql("SELECT next AS revision FROM counter WHERE k = 'directory'"),
  accounts: sql('SELECT no, name, body FROM account ORDER BY no'),
  keys: sql('SELECT hash, account, label, body FROM key ORDER BY account, label, hash'),
  held: sql('SELECT what, account, body FROM held ORDER BY what, name'),
  named: sql('SELECT no FROM account WHERE name = $1'),
  account: sql('SELECT no FROM account WHERE no = $1'),
  last: sql('SELECT coalesce(max(no), 0) AS no FROM account'),
  accountPut: sql(`INSERT INTO account (no, name, body) VALUES ($1, $2, $3)
    ON CONFLICT (no) DO UPDATE SET name = excluded.name, body = excluded.body`),
  keyHolder: sql('SELECT account FROM key WHERE hash = $1'),
  keyPut: sql(`INSERT INTO key (hash, account, label, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (hash) DO UPDATE SET account = excluded.account, label = excluded.label, body = excluded.body`),
  holder: sql('SELECT account FROM held WHERE what = $1 AND name = $2'),
  put: sql(`INSERT INTO held (what, name, account, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (what, name) DO UPDATE SET account = excluded.account, body = excluded.body`),
  drop: sql('DELETE FROM held WHERE what = $1 AND name = $2 AND account = $3 RETURNING name'),
  number: sql('SELECT account FROM own_number WHERE number = $1'),
  numberPut:
    sql(`INSERT INTO own_number (number, account, url, entity, application, callback) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (number) DO UPDATE SET account = excluded.account, url = excluded.url, entity = excluded.entity,
      application = excluded.application, callback = excluded.callback`),
  numberDrop: sql('DELETE FROM own_number WHERE number = $1 AND account = $2 RETURNING number'),
  deed: sql('INSERT INTO audit (at, by, action, account, detail) VALUES ($1, $2, $3, $4, $5) RETURNING no'),
  forget: sql('DELETE FROM audit WHERE no <= $1'),
  audit: sql('SELECT no, at, by, action, account, detail FROM audit WHERE no < $1 ORDER BY no DESC LIMIT $2'),
  sessionsEnded: sql(`DELETE FROM session WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM session WHERE until <= $1 ORDER BY until LIMIT ${CLEAR} FOR UPDATE SKIP LOCKED))`),
  sessionPut: sql(`INSERT INTO session (hash, "user", kind, until, idle) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (hash) DO UPDATE SET "user" = excluded."user", kind = excluded.kind, until = excluded.until, idle = excluded.idle`),
  sessionUse: sql(`UPDATE session SET until = CASE WHEN idle IS NULL THEN until ELSE $2::bigint + idle END
    WHERE hash = $1 AND until > $2 RETURNING "user", kind`),
  sessionDelete: sql('DELETE FROM session WHERE hash = $1 AND until > $2 RETURNING hash'),
  sessionsOf: sql('DELETE FROM session WHERE "user" = $1'),
  countersEnded: sql(`DELETE FROM quota WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM quota WHERE until <= $1 ORDER BY until LIMIT ${CLEAR} FOR UPDATE SKIP LOCKED))`),
  turns: sql('SELECT no FROM account WHERE no = ANY($1::bigint[]) ORDER BY no FOR NO KEY UPDATE'),
  used: sql(`SELECT x.at, coalesce(u.used, 0)::bigint AS used
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::integer[]) AS x(account, scope, above, upto, at)
    CROSS JOIN LATERAL (SELECT sum(used) AS used FROM quota q WHERE q.account = x.account AND q.scope = x.scope
      AND q.bucket > x.above AND q.bucket <= x.upto) u`),
  use: sql(`INSERT INTO quota (account, scope, bucket, used, until)
    SELECT account, scope, bucket, sum(given), max(until)
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS x(account, scope, bucket, given, until)
    GROUP BY account, scope, bucket ORDER BY account, scope COLLATE "C", bucket
    ON CONFLICT (account, scope, bucket) DO UPDATE SET used = greatest(0, quota.used + excluded.used), until = excluded.until`),
};

/** Counts a change, so that nodes read the rows again; first of all in a transaction that makes one. */
export async function bumpDirectory(tx: Tx): Promise<void> {
  await tx.query(SQL.bump);
}

async function judge(tx: Tx, changes: AdminChange[]): Promise<Administered | null> {
  const there = async (no: number): Promise<boolean> => (await tx.query(SQL.account, [no])).length > 0;
  for (const [index, change] of changes.entries()) {
    const notFound: Administered = { kind: 'notFound', change: index };
    const conflict: Administered = { kind: 'conflict', change: index };
    if (change.kind === 'account') {
      if (change.no !== null && !(await there(change.no))) return notFound;
      const [namesake] = await tx.query<{ no: number }>(SQL.named, [plain(change.name)]);
      if (namesake && namesake.no !== change.no) return conflict;
    } else if (change.kind === 'key') {
      if (!(await there(change.key.account))) return notFound;
      const [holder] = await tx.query<{ account: number }>(SQL.keyHolder, [change.key.hash]);
      if (holder && holder.account !== change.key.account) return conflict;
    } else if (change.kind === 'put') {
      if (change.account !== 0 && !(await there(change.account))) return notFound;
      const [holder] = await tx.query<{ account: number }>(SQL.holder, [change.what, plain(change.name)]);
      if (holder && holder.account !== change.account) return conflict;
    } else if (change.kind === 'number') {
      const { number, account } = change.number;
      if (!(await there(account))) return notFound;
      const [holder] = await tx.query<{ account: number }>(SQL.number, [plain(number)]);
      if (holder && holder.account !== account) return conflict;
    }
  }
  return null;
}

/** All changes with their line in the audit log, or none. */
export async function administer(tx: Tx, changes: AdminChange[], deed: Deed): Promise<Administered> {
  await bumpDirectory(tx);
  const refusal = await judge(tx, changes);
  if (refusal) return refusal;
  const accounts: number[] = [];
  let dropped = 0;
  for (const change of changes) {
    if (change.kind === 'account') {
      const [last] = change.no === null ? await tx.query<{ no: number }>(SQL.last) : [];
      const no = change.no ?? (last?.no ?? 0) + 1;
      await tx.query(SQL.accountPut, [no, plain(change.name), JSON.stringify(change.settings)]);
      accounts.push(no);
    } else if (change.kind === 'key') {
      const { key } = change;
      await tx.query(SQL.keyPut, [key.hash, key.account, plain(key.label), keyBody(key)]);
    } else if (change.kind === 'put') {
      await tx.query(SQL.put, [change.what, plain(change.name), change.account, JSON.stringify(change.body)]);
      if (change.what === 'login') await tx.query(SQL.sessionsOf, [plain(change.name)]);
    } else if (change.kind === 'number') {
      const { number, account, url, entity, application, callbackData } = change.number;
      await tx.query(SQL.numberPut, [number, account, url, entity, application, callbackData]);
    } else if (change.kind === 'numberDrop') {
      dropped += (await tx.query(SQL.numberDrop, [plain(change.number), change.account])).length;
    } else {
      const gone = (await tx.query(SQL.drop, [change.what, plain(change.name), change.account])).length;
      // Another account may get a user of that name before the sessions would have ended.
      if (change.what === 'login' && gone > 0) await tx.query(SQL.sessionsOf, [plain(change.name)]);
      dropped += gone;
    }
  }
  // Nothing was there to take away: nothing was done.
  if (dropped === 0 && changes.length > 0 && changes.every(({ kind }) => kind === 'drop' || kind === 'numberDrop')) {
    return { kind: 'done', accounts, dropped };
  }
  const account = deed.account ?? accounts[0] ?? null;
  const values = [tx.now, deed.by, deed.action, account, JSON.stringify(deed.detail)];
  const [made] = await tx.query<{ no: number }>(SQL.deed, values);
  tx.later(SQL.forget, [(made?.no ?? 0) - AUDIT_MAX]);
  tx.hint('keys');
  return { kind: 'done', accounts, dropped };
}

/** See the contract; the revision is read before the rows, so that what changes meanwhile is seen the next time. */
export async function directory(ask: Ask, known: number): Promise<Directory | null> {
  const [row] = await ask.query<{ revision: number }>(SQL.revision);
  const revision = row?.revision ?? 0;
  if (revision === known) return null;
  return directoryOf({
    revision,
    accounts: await ask.query<DirectoryRows['accounts'][number]>(SQL.accounts),
    keys: await ask.query<DirectoryRows['keys'][number]>(SQL.keys),
    held: await ask.query<DirectoryRows['held'][number]>(SQL.held),
  });
}

/** The audit log, newest first. */
export async function auditLog(ask: Ask, limit: number, before: number | undefined): Promise<AuditRow[]> {
  type Row = Omit<AuditRow, 'detail'> & { detail: string };
  const rows = await ask.query<Row>(SQL.audit, [before ?? Number.MAX_SAFE_INTEGER, limit]);
  return rows.map((row) => ({ ...row, detail: JSON.parse(row.detail) as object }));
}

/** Keeps a session; clears some that have ended. */
export async function sessionPut(tx: Tx, { hash, user, kind, ttlMs, idle }: NewSession): Promise<void> {
  tx.later(SQL.sessionsEnded, [tx.now]);
  await tx.query(SQL.sessionPut, [hash, user, kind, tx.now + ttlMs, idle ? ttlMs : null]);
}

/** A session that has not ended; it is used by this. */
export async function sessionUse(tx: Tx, hash: string): Promise<Session | null> {
  type Row = { user: string; kind: Session['kind'] };
  const [row] = await tx.query<Row>(SQL.sessionUse, [hash, tx.now]);
  return row ? { hash, user: row.user, kind: row.kind } : null;
}

/** Ends a session. */
export async function sessionDelete(tx: Tx, hash: string): Promise<boolean> {
  return (await tx.query(SQL.sessionDelete, [hash, tx.now])).length > 0;
}

/** Shares of counters; see the contract. */
export async function quota(tx: Tx, takes: Take[]): Promise<number[]> {
  tx.later(SQL.countersEnded, [tx.now]);
  if (takes.length === 0) return [];
  await tx.query(SQL.turns, [list([...new Set(takes.map(({ account }) => account))])]);
  const found = await tx.query<{ at: number; used: number }>(SQL.used, [
    list(takes.map(({ account }) => account)),
    texts(takes.map(({ scope }) => scope)),
    list(takes.map(({ bucket, buckets }) => bucket - buckets)),
    list(takes.map(({ bucket }) => bucket)),
    list(takes.map((_, at) => at)),
  ]);
  const usedOf = new Map(found.map(({ at, used }) => [at, used]));
  /** Given by this call, on top of what was found. */
  const givenOf = new Map<string, { bucket: number; given: number }[]>();
  const results = takes.map(({ account, scope, bucket, buckets, want, least, most }, at) => {
    const name = `${account} ${scope}`;
    const before = givenOf.get(name) ?? [];
    const seen = before.filter((one) => one.bucket > bucket - buckets && one.bucket <= bucket);
    const used = seen.reduce((sum, one) => sum + one.given, usedOf.get(at) ?? 0);
    const room = Math.min(want, most - used);
    const given = want < 0 ? want : room >= least ? Math.max(room, 0) : 0;
    givenOf.set(name, [...before, { bucket, given }]);
    return given;
  });
  const moved = takes.map((take, at) => ({ ...take, given: results[at] as number })).filter(({ given }) => given !== 0);
  if (moved.length > 0) {
    await tx.query(SQL.use, [
      list(moved.map(({ account }) => account)),
      texts(moved.map(({ scope }) => scope)),
      list(moved.map(({ bucket }) => bucket)),
      list(moved.map(({ given }) => given)),
      list(moved.map(({ keepMs }) => tx.now + keepMs)),
    ]);
  }
  return results;
}
