/**
 * The outbox as its account sees it: webhooks with their tries, making them again, settings of endpoints, and the re-arming of
 * what was pulled. Lock order as in hooks.ts: hook, then endpoint.
 *
 * Promises: a webhook that is made again keeps its number (so its id) and its bytes; steps are bounded and say where to go on.
 */
import {
  type Delivery,
  type DeliveryFilter,
  ENDPOINTS_MAX,
  type EndpointPut,
  type EndpointSetting,
  type HookKind,
  REARM_STEP,
  REPLAY_STEP,
  type Rearm,
  type ReplayRange,
  type Stepped,
} from '../contract.ts';
import { changed, DELIVERY_STATES, kindCode, kindOf, LOOKED_AT } from '../hooks.ts';
import { addToPull } from './events.ts';
import { hooksAgain } from './hooks.ts';
import { type Ask, byKey, list, plain, sql, type Tx } from './tx.ts';

const STEP = 500;
const END = Number.MAX_SAFE_INTEGER;

const HOOK = `h.no, h.endpoint, h.state, h.due_at, h.at, h.ended_at, h.events, p.kind, p.url, p.content_type`;
const SETTING = 's.kind, s.url, s.content_type, s.standard, s.secrets, s.headers';

const SQL = {
  place: sql('SELECT h.at FROM hook h WHERE h.no = $1 AND h.account = $2'),
  // Locked without the endpoint's row, which is locked last.
  one: sql(`SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint WHERE h.no = $1 AND h.account = $2
    FOR NO KEY UPDATE OF h`),
  range: sql(`SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint
    WHERE h.account = $1 AND (h.at, h.no) > ($2, $3) AND h.at <= $4 ORDER BY h.at, h.no LIMIT ${REPLAY_STEP}
    FOR NO KEY UPDATE OF h`),
  again: sql(`UPDATE hook SET state = 0, retry = CASE state WHEN 0 THEN retry ELSE 0 END, due_at = $2, ended_at = NULL
    WHERE no = ANY($1::bigint[]) AND NOT leased RETURNING no`),
  unpull: sql('DELETE FROM pull WHERE account = $1 AND event = ANY($2::bigint[])'),
  unbox: sql('DELETE FROM inbox WHERE account = $1 AND event = ANY($2::bigint[])'),
  newest: sql(`SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint
    WHERE h.account = $1 AND (h.at, h.no) < ($2, $3) ORDER BY h.at DESC, h.no DESC LIMIT $4`),
  ofMessage: sql(`SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint
    WHERE h.account = $1 AND h.no IN (SELECT e.hook FROM event e WHERE e.message = $5 AND e.account = $1)
      AND (h.at, h.no) < ($2, $3) ORDER BY h.at DESC, h.no DESC LIMIT $4`),
  key: sql('SELECT no FROM message_key WHERE account = $1 AND key = $2'),
  of: sql(`SELECT e.no AS event, e.message AS no, m.key FROM event e LEFT JOIN message m ON m.no = e.message
    WHERE e.no = ANY($1::bigint[])`),
  tries: sql(
    `SELECT hook, at, took, status, excerpt FROM hook_try WHERE hook = ANY($1::bigint[]) ORDER BY hook, retry`,
  ),
  settings: sql(
    `SELECT ${SETTING} FROM endpoint_setting s WHERE s.account = $1 ORDER BY s.kind, s.url LIMIT ${ENDPOINTS_MAX}`,
  ),
  // One account's settings are changed one at a time.
  settingsLock: sql('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))'),
  setting: sql(`SELECT ${SETTING} FROM endpoint_setting s WHERE s.account = $1 AND s.kind = $2 AND md5(s.url) = md5($3)
    AND s.url = $3`),
  count: sql('SELECT count(*)::integer AS n FROM endpoint_setting WHERE account = $1'),
  unstandard: sql(
    'UPDATE endpoint_setting SET standard = false WHERE account = $1 AND kind = $2 AND url <> $3 AND standard',
  ),
  settingPut: sql(`INSERT INTO endpoint_setting (account, kind, url, content_type, standard, secrets, headers)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (account, kind, md5(url)) DO UPDATE SET content_type = excluded.content_type,
      standard = excluded.standard, secrets = excluded.secrets, headers = excluded.headers`),
  settingDrop: sql(`DELETE FROM endpoint_setting WHERE account = $1 AND kind = $2 AND md5(url) = md5($3) AND url = $3
    RETURNING kind`),
  taken:
    sql(`DELETE FROM taken t USING (SELECT account, at, event FROM taken WHERE account = $1 AND kind = $2 AND at >= $3
      AND at <= $4 AND until > $5 ORDER BY at, event LIMIT ${REARM_STEP}) x
    WHERE t.account = x.account AND t.at = x.at AND t.event = x.event
    RETURNING t.account, t.event, t.message, t.spec, t.bulk, t.until`),
  takenOf: sql(`DELETE FROM taken WHERE message = $1 AND account = $2 AND kind = $3 AND until > $4
    RETURNING account, event, message, spec, bulk, until`),
  box: sql(`INSERT INTO inbox (account, event, inbound, until) SELECT account, event, inbound, until
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS x(account, event, inbound, until)
    ON CONFLICT DO NOTHING`),
};

interface HookRow {
  no: number;
  endpoint: number;
  state: number;
  due_at: number | null;
  at: number;
  ended_at: number | null;
  events: number[];
  kind: number;
  url: string;
  content_type: string;
}

interface SettingRow {
  kind: number;
  url: string;
  content_type: string;
  standard: boolean;
  secrets: string;
  headers: string;
}

function toSetting(row: SettingRow): EndpointSetting {
  return {
    kind: kindOf(row.kind),
    url: row.url,
    contentType: row.content_type,
    isDefault: row.standard,
    secrets: JSON.parse(row.secrets) as EndpointSetting['secrets'],
    headers: JSON.parse(row.headers) as EndpointSetting['headers'],
  };
}

/** Due now; what of it could be pulled since it was given up cannot any more. Returns how many. */
async function again(tx: Tx, account: number, hooks: HookRow[]): Promise<number> {
  if (hooks.length === 0) return 0;
  const done = await tx.query<{ no: number }>(SQL.again, [list(hooks.map((hook) => hook.no)), tx.now]);
  const nos = new Set(done.map((row) => row.no));
  const made = hooks.filter((hook) => nos.has(hook.no));
  const given = list(made.filter((hook) => hook.state === 2).flatMap((hook) => hook.events));
  if (given !== '{}') {
    await tx.query(SQL.unpull, [account, given]);
    await tx.query(SQL.unbox, [account, given]);
  }
  if (made.length > 0) {
    await hooksAgain(
      tx,
      made.map((hook) => hook.endpoint),
    );
  }
  return made.length;
}

/** Makes one webhook due now. False = the account has no such webhook. */
export async function webhookReplay(tx: Tx, account: number, no: number): Promise<boolean> {
  const hooks = await tx.query<HookRow>(SQL.one, [no, account]);
  await again(tx, account, hooks);
  return hooks.length > 0;
}

/** One step over those that ended, oldest first. */
export async function webhookReplayRange(tx: Tx, range: ReplayRange): Promise<Stepped> {
  const { account, from = 0, to = END, after, url, state } = range;
  const [last] = after === undefined ? [] : await tx.query<{ at: number }>(SQL.place, [after, account]);
  // A place that is gone: so is all before it.
  const [at, no] = last && after !== undefined ? [last.at, after] : [from - 1, END];
  const hooks = await tx.query<HookRow>(SQL.range, [account, at, no, to]);
  const wanted = hooks.filter(
    (hook) =>
      hook.state !== 0 &&
      (url === undefined || hook.url === url) &&
      (state === undefined || DELIVERY_STATES[hook.state] === state),
  );
  const count = await again(tx, account, wanted);
  return { count, next: hooks.length === REPLAY_STEP ? (hooks.at(-1)?.no ?? null) : null };
}

/** Webhooks with their tries, newest first. */
export async function webhookDeliveries(
  ask: Ask,
  filter: DeliveryFilter,
): Promise<{ deliveries: Delivery[]; next: number | null }> {
  const { account, limit, message, before, url, state } = filter;
  let place = { at: END, no: END };
  if (before !== undefined) {
    const [row] = await ask.query<{ at: number }>(SQL.place, [before, account]);
    // It has left, and so has all that is older.
    if (!row) return { deliveries: [], next: null };
    place = { at: row.at, no: before };
  }
  const of = message === undefined ? null : await numberOf(ask, account, message);
  const found: HookRow[] = [];
  let next: number | null = null;
  for (let left = LOOKED_AT; ; left -= STEP) {
    const values = [account, place.at, place.no, STEP];
    const hooks =
      of === null
        ? await ask.query<HookRow>(SQL.newest, values)
        : await ask.query<HookRow>(SQL.ofMessage, [...values, of]);
    for (const hook of hooks) {
      const wanted =
        (url === undefined || hook.url === url) && (state === undefined || DELIVERY_STATES[hook.state] === state);
      if (wanted && found.length === limit) {
        next = place.no;
        return { deliveries: await delivered(ask, found), next };
      }
      if (wanted) found.push(hook);
      place = hook;
    }
    if (hooks.length < STEP) break;
    if (left <= STEP) {
      next = place.no;
      break;
    }
  }
  return { deliveries: await delivered(ask, found), next };
}

async function numberOf(ask: Ask, account: number, message: { no: number } | { key: string }): Promise<number> {
  if ('no' in message) return message.no;
  return (await ask.query<{ no: number }>(SQL.key, [account, plain(message.key)]))[0]?.no ?? -1;
}

async function delivered(ask: Ask, hooks: HookRow[]): Promise<Delivery[]> {
  if (hooks.length === 0) return [];
  type Of = { event: number; no: number; key: string | null };
  const of = byKey(await ask.query<Of>(SQL.of, [list(hooks.flatMap((hook) => hook.events))]), (row) => row.event);
  type Try = { hook: number; at: number; took: number; status: number; excerpt: string };
  const tries = await ask.query<Try>(SQL.tries, [list(hooks.map((hook) => hook.no))]);
  return hooks.map((hook) => {
    const messages = new Map<number, { no: number; key: string | null }>();
    for (const event of hook.events) {
      const row = of.get(event);
      if (row) messages.set(row.no, { no: row.no, key: row.key });
    }
    return {
      no: hook.no,
      kind: kindOf(hook.kind),
      url: hook.url,
      contentType: hook.content_type,
      state: DELIVERY_STATES[hook.state] ?? 'OPEN',
      formedAt: hook.at,
      nextTry: hook.state === 0 ? hook.due_at : null,
      endedAt: hook.ended_at,
      messages: [...messages.values()],
      tries: tries
        .filter((one) => one.hook === hook.no)
        .map(({ at, took, status, excerpt }) => ({ at, tookMs: took, status, excerpt })),
    };
  });
}

/** Settings of an account's endpoints, by kind and URL. */
export async function endpointList(ask: Ask, account: number): Promise<EndpointSetting[]> {
  return (await ask.query<SettingRow>(SQL.settings, [account])).map(toSetting);
}

/** Changes or makes settings; null = the account has ENDPOINTS_MAX of them. */
export async function endpointPut(tx: Tx, put: EndpointPut): Promise<EndpointSetting | null> {
  const { account } = put;
  const url = plain(put.url);
  const kind = kindCode(put.kind);
  await tx.query(SQL.settingsLock, [`endpoint settings ${account}`]);
  const [row] = await tx.query<SettingRow>(SQL.setting, [account, kind, url]);
  const [count] = row ? [] : await tx.query<{ n: number }>(SQL.count, [account]);
  if ((!row && put.reworded) || (count?.n ?? 0) >= ENDPOINTS_MAX) return null;
  const setting = changed(row ? toSetting(row) : null, put, tx.now);
  if (setting.isDefault) await tx.query(SQL.unstandard, [account, kind, url]);
  const { contentType, isDefault, secrets, headers } = setting;
  const values = [account, kind, url, contentType, isDefault, JSON.stringify(secrets), JSON.stringify(headers)];
  await tx.query(SQL.settingPut, values);
  return setting;
}

/** False = there were no settings. */
export async function endpointDelete(tx: Tx, account: number, kind: HookKind, url: string): Promise<boolean> {
  return (await tx.query(SQL.settingDrop, [account, kindCode(kind), plain(url)])).length > 0;
}

/** Brings back what was pulled, for as long as it could have been. */
export async function rearm(tx: Tx, what: Rearm): Promise<{ count: number; more: boolean }> {
  const { account, message, from = 0, to = END } = what;
  const kind = what.kind === 'reports' ? 0 : 1;
  type Row = { account: number; event: number; message: number; spec: number; bulk: number; until: number };
  const rows = message
    ? await tx.query<Row>(SQL.takenOf, [await numberOf(tx, account, message), account, kind, tx.now])
    : await tx.query<Row>(SQL.taken, [account, kind, from, to, tx.now]);
  if (kind === 0) await addToPull(tx, rows);
  else if (rows.length > 0) {
    await tx.query(SQL.box, [
      list(rows.map((row) => row.account)),
      list(rows.map((row) => row.event)),
      list(rows.map((row) => row.message)),
      list(rows.map((row) => row.until)),
    ]);
  }
  return { count: rows.length, more: rows.length === REARM_STEP };
}
