/**
 * The outbox as its account sees it: webhooks with their tries, making them again, settings of endpoints, and the re-arming of
 * what was pulled. Writes run in the writer's transaction; `createDeliveryReads` beside it.
 *
 * Promises: a webhook that is made again keeps its number (so its id) and its bytes; steps are bounded and say where to go on.
 */
import type { DatabaseSync } from 'node:sqlite';
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
import { type Events, SETTING, type SettingRow, toSetting } from './events.ts';
import { prepare, type Tx } from './tx.ts';

interface HookRow {
  no: number;
  endpoint: number;
  state: number;
  leased: number;
  due_at: number | null;
  at: number;
  ended_at: number | null;
  events: string;
  kind: number;
  url: string;
  content_type: string;
}
const HOOK = `h.no, h.endpoint, h.state, h.leased, h.due_at, h.at, h.ended_at, h.events, p.kind, p.url, p.content_type`;

/** The verbs that write. */
export function createDeliveries(tx: Tx, events: Events) {
  const db = tx.db;
  const q = {
    hook: prepare<HookRow & { account: number }>(
      db,
      `SELECT ${HOOK}, h.account FROM hook h JOIN endpoint p ON p.no = h.endpoint WHERE h.no = ?`,
    ),
    // From a place on, oldest first.
    hooks: prepare<HookRow>(
      db,
      `SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint
       WHERE h.account = ? AND (h.at, h.no) > (?, ?) AND h.at <= ? ORDER BY h.at, h.no LIMIT ${REPLAY_STEP}`,
    ),
    again: prepare(
      db,
      `UPDATE hook SET state = 0, retry = CASE state WHEN 0 THEN retry ELSE 0 END, due_at = ?, ended_at = NULL
       WHERE no = ? AND leased = 0`,
    ),
    unpull: prepare(db, 'DELETE FROM pull WHERE account = ? AND event = ?'),
    unbox: prepare(db, 'DELETE FROM inbox WHERE account = ? AND event = ?'),
    setting: prepare<SettingRow>(
      db,
      `SELECT ${SETTING} FROM endpoint_setting WHERE account = ? AND kind = ? AND url = ?`,
    ),
    settings: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM endpoint_setting WHERE account = ?'),
    unstandard: prepare(db, 'UPDATE endpoint_setting SET standard = 0 WHERE account = ? AND kind = ? AND url <> ?'),
    settingPut: prepare(
      db,
      `INSERT OR REPLACE INTO endpoint_setting (account, kind, url, content_type, standard, secrets, headers)
       VALUES (?, ?, ?, ?, ?, ?, ?)`,
    ),
    settingDrop: prepare(db, 'DELETE FROM endpoint_setting WHERE account = ? AND kind = ? AND url = ?'),
    taken: prepare<{ at: number; event: number; message: number; spec: number; bulk: number; until: number }>(
      db,
      `SELECT at, event, message, spec, bulk, until FROM taken
       WHERE account = ? AND kind = ? AND at >= ? AND at <= ? AND until > ? ORDER BY at, event LIMIT ${REARM_STEP}`,
    ),
    takenOf: prepare<{ at: number; event: number; message: number; spec: number; bulk: number; until: number }>(
      db,
      `SELECT at, event, message, spec, bulk, until FROM taken WHERE message = ? AND account = ? AND kind = ? AND until > ?
       LIMIT ${REARM_STEP}`,
    ),
    takenDrop: prepare(db, 'DELETE FROM taken WHERE account = ? AND at = ? AND event = ?'),
    key: prepare<{ no: number }>(db, 'SELECT no FROM message_key WHERE account = ? AND key = ?'),
    pull: prepare(
      db,
      'INSERT OR IGNORE INTO pull (account, event, message, spec, bulk, until) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    box: prepare(db, 'INSERT OR IGNORE INTO inbox (account, event, inbound, until) VALUES (?, ?, ?, ?)'),
  };

  /** Due now; what of it could be pulled since it was given up cannot any more. */
  function again(account: number, hook: HookRow): boolean {
    if (q.again.run(tx.now, hook.no) === 0) return false;
    if (hook.state === 2) {
      for (const event of JSON.parse(hook.events) as number[]) {
        q.unpull.run(account, event);
        q.unbox.run(account, event);
      }
    }
    return true;
  }

  return {
    replay(account: number, no: number): boolean {
      const hook = q.hook.get(no);
      if (!hook || hook.account !== account) return false;
      if (again(account, hook)) events.again(hook.endpoint);
      return true;
    },

    replayRange(range: ReplayRange): Stepped {
      const { account, from = 0, to = Number.MAX_SAFE_INTEGER } = range;
      const last = range.after === undefined ? undefined : q.hook.get(range.after);
      // The place is gone: so is all before it.
      const [at, no] = last ? [last.at, last.no] : [from - 1, Number.MAX_SAFE_INTEGER];
      const hooks = q.hooks.all(account, at, no, to);
      const endpoints = new Set<number>();
      let count = 0;
      for (const hook of hooks) {
        if (hook.state === 0 || (range.url !== undefined && hook.url !== range.url)) continue;
        if (range.state !== undefined && DELIVERY_STATES[hook.state] !== range.state) continue;
        if (!again(account, hook)) continue;
        count++;
        endpoints.add(hook.endpoint);
      }
      for (const endpoint of endpoints) events.again(endpoint);
      return { count, next: hooks.length === REPLAY_STEP ? (hooks.at(-1)?.no ?? null) : null };
    },

    endpointPut(put: EndpointPut): EndpointSetting | null {
      const { account, url } = put;
      const kind = kindCode(put.kind);
      const row = q.setting.get(account, kind, url);
      if (!row && (put.reworded || (q.settings.get(account)?.n ?? 0) >= ENDPOINTS_MAX)) return null;
      const setting = changed(row ? toSetting(row) : null, put, tx.now);
      if (setting.isDefault) q.unstandard.run(account, kind, url);
      const { contentType, isDefault, secrets, headers } = setting;
      q.settingPut.run(
        account,
        kind,
        url,
        contentType,
        isDefault ? 1 : 0,
        JSON.stringify(secrets),
        JSON.stringify(headers),
      );
      return setting;
    },
    endpointDelete: (account: number, kind: HookKind, url: string): boolean =>
      q.settingDrop.run(account, kindCode(kind), url) > 0,

    rearm(what: Rearm): { count: number; more: boolean } {
      const { account, message } = what;
      const kind = what.kind === 'reports' ? 0 : 1;
      let rows: ReturnType<typeof q.taken.all>;
      if (message) {
        const no = 'no' in message ? message.no : (q.key.get(account, message.key)?.no ?? -1);
        rows = q.takenOf.all(no, account, kind, tx.now);
      } else rows = q.taken.all(account, kind, what.from ?? 0, what.to ?? Number.MAX_SAFE_INTEGER, tx.now);
      for (const row of rows) {
        q.takenDrop.run(account, row.at, row.event);
        if (kind === 0) q.pull.run(account, row.event, row.message, row.spec, row.bulk, row.until);
        else q.box.run(account, row.event, row.message, row.until);
      }
      return { count: rows.length, more: rows.length === REARM_STEP };
    },
  };
}

/** The verbs that only read. */
export function createDeliveryReads(db: DatabaseSync) {
  const q = {
    place: prepare<{ at: number }>(db, 'SELECT at FROM hook WHERE no = ? AND account = ?'),
    newest: prepare<HookRow>(
      db,
      `SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint
       WHERE h.account = ? AND (h.at, h.no) < (?, ?) ORDER BY h.at DESC, h.no DESC LIMIT ? + 0`,
    ),
    ofMessage: prepare<HookRow>(
      db,
      `SELECT ${HOOK} FROM hook h JOIN endpoint p ON p.no = h.endpoint
       WHERE h.account = ?1 AND h.no IN (SELECT e.hook FROM event e WHERE e.message = ?2 AND e.account = ?1) AND (h.at, h.no) < (?3, ?4)
       ORDER BY h.at DESC, h.no DESC LIMIT ? + 0`,
    ),
    key: prepare<{ no: number }>(db, 'SELECT no FROM message_key WHERE account = ? AND key = ?'),
    of: prepare<{ no: number; key: string | null }>(
      db,
      'SELECT e.message AS no, m.key FROM event e LEFT JOIN message m ON m.no = e.message WHERE e.no = ?',
    ),
    tries: prepare<{ at: number; tookMs: number; status: number; excerpt: string }>(
      db,
      'SELECT at, took AS tookMs, status, excerpt FROM hook_try WHERE hook = ? ORDER BY retry',
    ),
    settings: prepare<SettingRow>(
      db,
      `SELECT ${SETTING} FROM endpoint_setting WHERE account = ? ORDER BY kind, url LIMIT ${ENDPOINTS_MAX}`,
    ),
  };

  function toDelivery(hook: HookRow): Delivery {
    const messages = new Map<number, { no: number; key: string | null }>();
    for (const event of JSON.parse(hook.events) as number[]) {
      const of = q.of.get(event);
      if (of) messages.set(of.no, of);
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
      tries: q.tries.all(hook.no),
    };
  }

  return {
    deliveries(filter: DeliveryFilter): { deliveries: Delivery[]; next: number | null } {
      const { account, limit, message, before } = filter;
      const deliveries: Delivery[] = [];
      let place = { at: Number.MAX_SAFE_INTEGER, no: Number.MAX_SAFE_INTEGER };
      if (before !== undefined) {
        const at = q.place.get(before, account)?.at;
        // It has left, and so has all that is older.
        if (at === undefined) return { deliveries, next: null };
        place = { at, no: before };
      }
      const of = message && ('no' in message ? message.no : (q.key.get(account, message.key)?.no ?? -1));
      for (let left = LOOKED_AT; left > 0; ) {
        const step = Math.min(200, left);
        const hooks =
          of === undefined
            ? q.newest.all(account, place.at, place.no, step)
            : q.ofMessage.all(account, of, place.at, place.no, step);
        for (const hook of hooks) {
          const wanted =
            (filter.url === undefined || hook.url === filter.url) &&
            (filter.state === undefined || DELIVERY_STATES[hook.state] === filter.state);
          if (wanted && deliveries.length === limit) return { deliveries, next: place.no };
          if (wanted) deliveries.push(toDelivery(hook));
          place = hook;
        }
        if (hooks.length < step) return { deliveries, next: null };
        left -= step;
      }
      return { deliveries, next: place.no };
    },
    endpoints: (account: number): EndpointSetting[] => q.settings.all(account).map(toSetting),
  };
}
