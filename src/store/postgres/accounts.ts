/**
 * What the operator decides, on PostgreSQL: accounts and keys with their settings, what is held by name, the audit log, sessions,
 * and the counters of limits that nodes share.
 *
 * Against other nodes: changes take turns by the row of the revision; takes from one account's counters by the account's row.
 */
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
  type DirectoryRows,
  directoryOf,
  endpointName,
  judged,
  keyBody,
  onceKey,
  type Present,
} from '../accounts.ts';
import type { OperatorChange } from '../contract.ts';
import { kindOf } from '../hooks.ts';
import { IDEM_MS } from './accept.ts';
import { endpointDelete, endpointPut } from './deliveries.ts';
import { type Ask, byKey, Conflict, list, plain, type Sql, sql, type Tx, texts, type Value } from './tx.ts';

const SQL = {
  bump: sql("UPDATE counter SET next = next + 1 WHERE k = 'directory'"),
  revision: sql("SELECT next AS revision FROM counter WHERE k = 'directory'"),
  accounts: sql('SELECT no, name, body FROM account ORDER BY no'),
  keys: sql('SELECT hash, account, label, body FROM key ORDER BY account, label, hash'),
  held: sql('SELECT what, account, body FROM held ORDER BY what, name'),
  locked: sql("SELECT next AS revision FROM counter WHERE k = 'directory' FOR UPDATE"),
  named: sql('SELECT no, name FROM account WHERE name = ANY($1::text[])'),
  bodies: sql('SELECT no, body FROM account WHERE no = ANY($1::bigint[])'),
  bodyPut: sql('UPDATE account SET body = $1 WHERE no = $2'),
  last: sql('SELECT coalesce(max(no), 0) AS no FROM account'),
  accountPut: sql(`INSERT INTO account (no, name, body) VALUES ($1, $2, $3)
    ON CONFLICT (no) DO UPDATE SET name = excluded.name, body = excluded.body`),
  keyHolders: sql('SELECT hash, account FROM key WHERE hash = ANY($1::text[])'),
  keyPut: sql(`INSERT INTO key (hash, account, label, body) VALUES ($1, $2, $3, $4)
    ON CONFLICT (hash) DO UPDATE SET account = excluded.account, label = excluded.label, body = excluded.body`),
  holders: sql(`SELECT h.what, h.name, h.account FROM unnest($1::text[], $2::text[]) AS x(what, name)
    JOIN held h ON h.what = x.what AND h.name = x.name`),
  put: sql(`INSERT INTO held (what, name, account, body)
    SELECT what, name, account, body FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS x(what, name, account, body)
    ORDER BY what COLLATE "C", name COLLATE "C"
    ON CONFLICT (what, name) DO UPDATE SET account = excluded.account, body = excluded.body`),
  drop: sql(`DELETE FROM held h USING unnest($1::text[], $2::text[], $3::bigint[]) AS x(what, name, account)
    WHERE h.what = x.what AND h.name = x.name AND h.account = x.account RETURNING h.what, h.name`),
  numbers: sql('SELECT number, account FROM own_number WHERE number = ANY($1::text[])'),
  endpoints: sql('SELECT account, kind, url FROM endpoint_setting WHERE account = ANY($1::bigint[])'),
  once: sql('SELECT key, hash, answer FROM idem WHERE account = 0 AND key = ANY($1::text[]) AND at > $2'),
  oncePut: sql(`INSERT INTO idem (account, key, hash, at, answer) VALUES (0, $1, $2, $3, $4)
    ON CONFLICT (account, key) DO UPDATE SET hash = excluded.hash, at = excluded.at, answer = excluded.answer`),
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
  sessionsOf: sql('DELETE FROM session WHERE "user" = ANY($1::text[])'),
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

/** Rows held by name that one statement writes. */
const HELD_STEP = 1000;

/** Counts a change, so that nodes read the rows again; first of all in a transaction that makes one. */
export async function bumpDirectory(tx: Tx): Promise<void> {
  await tx.query(SQL.bump);
}

/** What is there of all that `changes` name, in one look each; the row of the revision is locked, so that it stays so. */
async function presentOf(tx: Tx, changes: readonly OperatorChange[]): Promise<Present> {
  const [locked] = await tx.query<{ revision: number }>(SQL.locked);
  const numbers = new Set<number>();
  const names = new Set<string>();
  const hashes = new Set<string>();
  const held = new Map<string, { what: string; name: string }>();
  const own = new Set<string>();
  const desks = new Set<number>();
  const onces = new Set<string>();
  for (const one of changes) {
    if (one.kind === 'account') {
      names.add(plain(one.name));
      if (one.no !== null) numbers.add(one.no);
    } else if (one.kind === 'key') {
      numbers.add(one.key.account);
      hashes.add(one.key.hash);
    } else if (one.kind === 'number') {
      numbers.add(one.number.account);
      own.add(plain(one.number.number));
    } else if (one.kind === 'endpoint') {
      numbers.add(one.put.account);
      desks.add(one.put.account);
    } else {
      numbers.add(one.account);
      if (one.kind === 'put' || one.kind === 'drop') {
        held.set(`${one.what} ${plain(one.name)}`, { what: one.what, name: plain(one.name) });
      } else if (one.kind === 'numberDrop') own.add(plain(one.number));
      else if (one.kind === 'endpointDrop') desks.add(one.account);
      else if (one.once !== null) onces.add(plain(onceKey(one.account, one.once.key)));
    }
  }
  const asked = async <Row>(any: boolean, statement: Sql, values: Value[]): Promise<Row[]> =>
    any ? tx.query<Row>(statement, values) : [];
  const [last] = await tx.query<{ no: number }>(SQL.last);
  const accounts = byKey(
    await asked<{ no: number; body: string | null }>(numbers.size > 0, SQL.bodies, [list([...numbers])]),
    ({ no }) => no,
  );
  const named = byKey(
    await asked<{ no: number; name: string }>(names.size > 0, SQL.named, [texts([...names])]),
    ({ name }) => name,
  );
  const keys = byKey(
    await asked<{ hash: string; account: number }>(hashes.size > 0, SQL.keyHolders, [texts([...hashes])]),
    ({ hash }) => hash,
  );
  const rows = [...held.values()];
  const holders = byKey(
    await asked<{ what: string; name: string; account: number }>(rows.length > 0, SQL.holders, [
      texts(rows.map(({ what }) => what)),
      texts(rows.map(({ name }) => name)),
    ]),
    ({ what, name }) => `${what} ${name}`,
  );
  const owned = byKey(
    await asked<{ number: string; account: number }>(own.size > 0, SQL.numbers, [texts([...own])]),
    ({ number }) => number,
  );
  const endpoints = Map.groupBy(
    await asked<{ account: number; kind: number; url: string }>(desks.size > 0, SQL.endpoints, [list([...desks])]),
    ({ account }) => account,
  );
  const once = byKey(
    await asked<{ key: string; hash: string; answer: string }>(onces.size > 0, SQL.once, [
      texts([...onces]),
      tx.now - IDEM_MS,
    ]),
    ({ key }) => key,
  );
  return {
    now: tx.now,
    revision: locked?.revision ?? 0,
    last: last?.no ?? 0,
    account: (no) => accounts.get(no),
    named: (name) => named.get(plain(name))?.no,
    keyHolder: (hash) => keys.get(hash)?.account,
    holder: (what, name) => holders.get(`${what} ${plain(name)}`)?.account,
    numberHolder: (number) => owned.get(plain(number))?.account,
    endpoints: (account) =>
      new Set((endpoints.get(account) ?? []).map(({ kind, url }) => endpointName(kindOf(kind), url))),
    once: (key) => once.get(plain(key)),
  };
}

type HeldWrite = Extract<OperatorChange, { kind: 'put' | 'drop' }>;

/** Puts, or drops, all of one kind; returns how many rows were dropped. */
async function writeHeld(tx: Tx, writes: HeldWrite[]): Promise<number> {
  // What is said of one name last holds.
  const rows = [...byKey(writes, ({ what, name }) => `${what} ${plain(name)}`).values()];
  const whats = texts(rows.map(({ what }) => what));
  const names = texts(rows.map(({ name }) => name));
  const accounts = list(rows.map(({ account }) => account));
  let dropped: { what: string; name: string }[] = [];
  if (rows[0]?.kind === 'put') {
    const bodies = texts(rows.map((row) => (row.kind === 'put' ? JSON.stringify(row.body) : null)));
    await tx.query(SQL.put, [whats, names, accounts, bodies]);
  } else if (rows.length > 0) dropped = await tx.query(SQL.drop, [whats, names, accounts]);
  // Sessions end with the password; and another account may get a user of that name before they would have ended.
  const ended = rows.filter(
    (row) =>
      row.what === 'login' &&
      (row.kind === 'put'
        ? row.same !== true
        : dropped.some(({ what, name }) => what === 'login' && name === plain(row.name))),
  );
  if (ended.length > 0) await tx.query(SQL.sessionsOf, [texts(ended.map(({ name }) => name))]);
  return dropped.length;
}

/** All changes with their line in the audit log, or none. */
export async function administer(
  tx: Tx,
  changes: OperatorChange[],
  deed: Deed,
  terms: AdminTerms,
): Promise<Administered> {
  const go = judged(changes, terms, await presentOf(tx, changes));
  if (go.kind !== 'go') return go;
  const { accounts, credits } = go;
  let dropped = 0;
  if (terms.dry) return { kind: 'done', accounts, dropped, credits };
  let held: HeldWrite[] = [];
  for (const one of go.writes) {
    // A file may bring thousands of these, and all that uses this connection waits for them: many in one statement.
    if (one.kind === 'put' || one.kind === 'drop') {
      if (held.length > 0 && (held[0]?.kind !== one.kind || held.length === HELD_STEP)) {
        dropped += await writeHeld(tx, held);
        held = [];
      }
      held.push(one);
    } else if (one.kind === 'account') {
      await tx.query(SQL.accountPut, [one.no, plain(one.name), one.body]);
    } else if (one.kind === 'credit') {
      await tx.query(SQL.bodyPut, [one.body, one.account]);
      if (one.once) await tx.query(SQL.oncePut, [plain(one.once.key), one.once.hash, tx.now, one.once.answer]);
    } else if (one.kind === 'key') {
      const { key } = one;
      await tx.query(SQL.keyPut, [key.hash, key.account, plain(key.label), keyBody(key)]);
    } else if (one.kind === 'number') {
      const { number, account, url, entity, application, callbackData } = one.number;
      await tx.query(SQL.numberPut, [number, account, url, entity, application, callbackData]);
    } else if (one.kind === 'numberDrop') {
      dropped += (await tx.query(SQL.numberDrop, [plain(one.number), one.account])).length;
    } else if (one.kind === 'endpoint') {
      // The account itself was faster with its last one: judged again, this is refused, and all else with it.
      if ((await endpointPut(tx, one.put)) === null) throw new Conflict('endpoints were added at the same moment');
    } else if (one.kind === 'endpointDrop') {
      if (await endpointDelete(tx, one.account, one.hook, one.url)) dropped++;
    }
  }
  dropped += await writeHeld(tx, held);
  if (cameToNothing(go, dropped)) return { kind: 'done', accounts, dropped, credits };
  const account = deed.account ?? (accounts.length === 1 ? (accounts[0] ?? null) : null);
  const values = [tx.now, deed.by, deed.action, account, JSON.stringify(deed.detail)];
  const [made] = await tx.query<{ no: number }>(SQL.deed, values);
  tx.later(SQL.forget, [(made?.no ?? 0) - AUDIT_MAX]);
  await bumpDirectory(tx);
  tx.hint('keys');
  return { kind: 'done', accounts, dropped, credits };
}

/** Verbs of the contract that only read, each on a connection that `reader` gives. */
export function operatorReads(reader: () => Ask) {
  return {
    directory: (known: number) => directory(reader(), known),
    auditLog: (limit: number, before?: number) => auditLog(reader(), limit, before),
    quotaUsed: (counters: Counter[]) => quotaUsed(reader(), counters),
  };
}

/** The revision is read before the rows, so that what changes meanwhile is seen the next time. */
async function directory(ask: Ask, known: number): Promise<Directory | null> {
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
async function auditLog(ask: Ask, limit: number, before: number | undefined): Promise<AuditRow[]> {
  type Row = Omit<AuditRow, 'detail'> & { detail: string };
  const rows = await ask.query<Row>(SQL.audit, [before ?? Number.MAX_SAFE_INTEGER, limit]);
  return rows.map((row) => ({ ...row, detail: JSON.parse(row.detail) as object }));
}

/** What counters stand at; see the contract. */
async function quotaUsed(ask: Ask, counters: Counter[]): Promise<number[]> {
  if (counters.length === 0) return [];
  const found = await ask.query<{ at: number; used: number }>(SQL.used, [
    list(counters.map(({ account }) => account)),
    texts(counters.map(({ scope }) => scope)),
    list(counters.map(({ bucket, buckets }) => bucket - buckets)),
    list(counters.map(({ bucket }) => bucket)),
    list(counters.map((_, at) => at)),
  ]);
  const usedOf = new Map(found.map(({ at, used }) => [at, used]));
  return counters.map((_, at) => usedOf.get(at) ?? 0);
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
  const before = await quotaUsed(tx, takes);
  /** Given by this call, on top of what was found. */
  const givenOf = new Map<string, { bucket: number; given: number }[]>();
  const results = takes.map(({ account, scope, bucket, buckets, want, least, most }, at) => {
    const name = `${account} ${scope}`;
    const earlier = givenOf.get(name) ?? [];
    const seen = earlier.filter((one) => one.bucket > bucket - buckets && one.bucket <= bucket);
    const used = seen.reduce((sum, one) => sum + one.given, before[at] ?? 0);
    const room = Math.min(want, most - used);
    const given = want < 0 ? want : room >= least ? Math.max(room, 0) : 0;
    givenOf.set(name, [...earlier, { bucket, given }]);
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
