/**
 * Status changes and the outbox. `change` is the only place that writes a message's status: it asks the state machine,
 * writes the row, its event, and where due the outbox or pull entry, all in the caller's transaction (G4, G9, G10).
 *
 * The outbox: an event waits under its endpoint (`outbox`), is formed with others into a hook (one POST, same bytes and id
 * for all its retries), and leaves when the hook is settled. Messages with intermediate reports keep their open events
 * in `open_event`, and only the oldest is handed on.
 */
import { webhookDelay } from '../../domain/retry.ts';
import type { EventRow } from '../../domain/rows.ts';
import { isFinal, type MessageStatus, type State, type StatusEvent, transition } from '../../domain/status.ts';
import type { Webhook, WebhookSettle, Webhooks } from '../contract.ts';
import { MESSAGE_COLUMNS, MESSAGE_JOINS, type MessageColumns, type Reads, toMessage } from './rows.ts';
import { prepare, type Tx } from './tx.ts';

/** A message as the state machine needs it. */
export interface Live {
  no: number;
  account: number;
  spec: number;
  state: State;
  status: number;
  error: number;
  sent_at: number | null;
}

/** Most events in one POST (contract: up to 100 reports). */
const POST_EVENTS = 100;
/** POSTs in flight to one endpoint: two, so that while one is answered the next fills. */
const ENDPOINT_SLOTS = 2;
/** Reports that change nothing are kept as notes, at most this many a message. */
const NOTES = 20;

/** What proves that a submission left: the first of these is sentAt. */
const SENT = new Set<StatusEvent['kind']>(['accepted', 'deferred', 'refused', 'unknown', 'report']);

export type Events = ReturnType<typeof createEvents>;

export function createEvents(tx: Tx, reads: Reads) {
  const db = tx.db;
  const q = {
    spec: prepare<{ endpoint: number | null; intermediate: number }>(
      db,
      'SELECT endpoint, intermediate FROM spec WHERE no = ?',
    ),
    update: prepare(db, 'UPDATE message SET state = ?, status = ?, error = ?, sent_at = ?, done_at = ? WHERE no = ?'),
    event: prepare<{ no: number }>(
      db,
      'INSERT INTO event (message, account, at, status, error, kind, words) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING no',
    ),
    notes: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM event WHERE message = ?'),
    endpoint: prepare<{ no: number }>(db, 'SELECT no FROM endpoint WHERE account = ? AND url = ? AND content_type = ?'),
    endpointAdd: prepare<{ no: number }>(
      db,
      `INSERT INTO endpoint (account, url, content_type, secret, open, due_at, seq)
       VALUES (?, ?, ?, NULL, 0, NULL, 0) RETURNING no`,
    ),
    out: prepare(db, 'INSERT INTO outbox (endpoint, event) VALUES (?, ?)'),
    endpointWake: prepare(
      db,
      `UPDATE endpoint SET due_at = ?, seq = ? WHERE no = ? AND due_at IS NULL AND open < ${ENDPOINT_SLOTS}`,
    ),
    openAdd: prepare(db, 'INSERT INTO open_event (message, event) VALUES (?, ?)'),
    openOldest: prepare<{ event: number | null }>(db, 'SELECT min(event) AS event FROM open_event WHERE message = ?'),
    openDelete: prepare(db, 'DELETE FROM open_event WHERE message = ? AND event = ?'),
    pull: prepare(db, 'INSERT OR IGNORE INTO pull (account, event) VALUES (?, ?)'),

    endpointNext: prepare<{ no: number }>(db, 'SELECT no FROM endpoint WHERE due_at <= ? ORDER BY due_at, seq LIMIT 1'),
    endpointRow: prepare<{
      no: number;
      account: number;
      url: string;
      content_type: string;
      secret: string | null;
      open: number;
    }>(db, 'SELECT no, account, url, content_type, secret, open FROM endpoint WHERE no = ?'),
    endpointSet: prepare(db, 'UPDATE endpoint SET open = open + ?, due_at = ?, seq = ? WHERE no = ?'),
    endpointMin: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM endpoint WHERE due_at IS NOT NULL',
    ),
    outOf: prepare<{ event: number }>(
      db,
      `SELECT event FROM outbox WHERE endpoint = ? ORDER BY event LIMIT ${POST_EVENTS}`,
    ),
    outAny: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM outbox WHERE endpoint = ? LIMIT 1'),
    outDelete: prepare(db, 'DELETE FROM outbox WHERE endpoint = ? AND event <= ?'),
    hookAdd: prepare<{ no: number }>(
      db,
      `INSERT INTO hook (endpoint, account, state, retry, token, leased, due_at, at, events, body)
       VALUES (?, ?, 0, 0, ?, 1, ?, ?, ?, NULL) RETURNING no`,
    ),
    eventHook: prepare(db, 'UPDATE event SET hook = ? WHERE no = ?'),
    hookDue: prepare<{
      no: number;
      endpoint: number;
      retry: number;
      leased: number;
      events: string;
      body: string | null;
    }>(db, 'SELECT no, endpoint, retry, leased, events, body FROM hook WHERE due_at <= ? ORDER BY due_at LIMIT ?'),
    hookLease: prepare(db, 'UPDATE hook SET token = ?, leased = 1, due_at = ? WHERE no = ?'),
    hookMin: prepare<{ due: number | null }>(db, 'SELECT min(due_at) AS due FROM hook WHERE due_at IS NOT NULL'),
    hook: prepare<{
      no: number;
      endpoint: number;
      account: number;
      retry: number;
      token: number;
      state: number;
      events: string;
    }>(db, 'SELECT no, endpoint, account, retry, token, state, events FROM hook WHERE no = ?'),
    hookSet: prepare(
      db,
      'UPDATE hook SET state = ?, retry = ?, leased = 0, due_at = ?, body = coalesce(?, body) WHERE no = ?',
    ),
    hookTry: prepare(
      db,
      'INSERT OR REPLACE INTO hook_try (hook, retry, at, took, status, excerpt) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    eventOf: prepare<{ message: number; account: number; status: number }>(
      db,
      'SELECT message, account, status FROM event WHERE no = ?',
    ),
    eventRow: prepare<MessageColumns & { event: number; at: number; e_status: number; e_error: number }>(
      db,
      `SELECT ${MESSAGE_COLUMNS}, e.no AS event, e.at AS at, e.status AS e_status, e.error AS e_error
       FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS} WHERE e.no = ?`,
    ),
  };
  // Immutable columns of specs in use; bounded, and emptied on rollback.
  const specs = new Map<number, { endpoint: number | null; intermediate: number }>();
  const endpoints = new Map<string, number>();

  function spec(no: number): { endpoint: number | null; intermediate: number } {
    let row = specs.get(no);
    if (!row) {
      row = q.spec.get(no);
      if (!row) throw new Error(`spec ${no} is gone`);
      if (specs.size >= 4096) specs.clear();
      specs.set(no, row);
    }
    return row;
  }

  function handOn(endpoint: number, event: number): void {
    q.out.run(endpoint, event);
    if (q.endpointWake.run(tx.now, tx.seq(), endpoint) > 0) tx.hint('webhooks');
  }

  /** The event row of a status the message now has, and its way to the customer. */
  function emit(message: { no: number; account: number; spec: number }, next: MessageStatus, words: string): void {
    const event = (
      q.event.get(message.no, message.account, tx.now, next.status, next.error, 0, words) as { no: number }
    ).no;
    const { endpoint, intermediate } = spec(message.spec);
    const final = isFinal(next.state);
    if (endpoint === null) {
      if (final) q.pull.run(message.account, event);
      return;
    }
    if (intermediate === 0) {
      if (final) handOn(endpoint, event);
      return;
    }
    const first = q.openOldest.get(message.no)?.event ?? null;
    q.openAdd.run(message.no, event);
    if (first === null) handOn(endpoint, event);
  }

  function eventRow(no: number): EventRow | null {
    const row = q.eventRow.get(no);
    if (!row) return null;
    return {
      ...toMessage(row),
      event: row.event,
      at: row.at,
      status: row.e_status,
      error: row.e_error,
      doneAt: row.at,
    };
  }

  function webhook(
    no: number,
    token: number,
    endpointNo: number,
    retry: number,
    body: string | null,
    events: number[],
  ): Webhook {
    const endpoint = q.endpointRow.get(endpointNo);
    if (!endpoint) throw new Error(`endpoint ${endpointNo} is gone`);
    return {
      no,
      token,
      account: endpoint.account,
      endpoint: { no: endpoint.no, url: endpoint.url, contentType: endpoint.content_type, secret: endpoint.secret },
      retry,
      body,
      events: events.map(eventRow).filter((event) => event !== null),
    };
  }

  /** After a hook ended (delivered or exhausted): its messages' next open events come forward. */
  function closeEvents(endpoint: number, events: number[], exhausted: boolean): void {
    for (const no of events) {
      const event = q.eventOf.get(no);
      if (!event) continue;
      if (exhausted) q.pull.run(event.account, no);
      if (q.openDelete.run(event.message, no) === 0) continue;
      const next = q.openOldest.get(event.message)?.event ?? null;
      if (next !== null) handOn(endpoint, next);
    }
  }

  return {
    /** The endpoint's number, made on first use. */
    endpoint(account: number, url: string, contentType: string): number {
      const name = `${account} ${contentType} ${url}`;
      const cached = endpoints.get(name);
      if (cached !== undefined) return cached;
      const row = q.endpoint.get(account, url, contentType) ?? q.endpointAdd.get(account, url, contentType);
      const no = (row as { no: number }).no;
      if (endpoints.size >= 4096) endpoints.clear();
      endpoints.set(name, no);
      return no;
    },
    forget(): void {
      specs.clear();
      endpoints.clear();
    },
    emit,
    eventRow,
    /** Move a message by the state machine. True = it changed. */
    change(message: Live, event: StatusEvent, words: string): boolean {
      const from: MessageStatus = { state: message.state, status: message.status, error: message.error };
      const { next, changed, final } = transition(from, event);
      if (!changed) return false;
      const sentAt = message.sent_at ?? (SENT.has(event.kind) ? tx.now : null);
      q.update.run(next.state, next.status, next.error, sentAt, final ? tx.now : null, message.no);
      if (next.status !== from.status || next.error !== from.error) emit(message, next, words);
      message.state = next.state;
      message.status = next.status;
      message.error = next.error;
      message.sent_at = sentAt;
      return true;
    },
    /** A report that changed nothing (late, doubled) is still part of the story. */
    note(message: Live, words: string): void {
      if ((q.notes.get(message.no)?.n ?? 0) >= NOTES) return;
      q.event.get(message.no, message.account, tx.now, message.status, message.error, 1, words);
    },

    webhookNext(limit: number, leaseMs: number): Webhooks {
      const webhooks: Webhook[] = [];
      const lease = tx.now + leaseMs;
      for (const due of q.hookDue.all(tx.now, limit)) {
        const token = tx.seq();
        q.hookLease.run(token, lease, due.no);
        if (due.leased === 0) q.endpointSet.run(1, null, tx.seq(), due.endpoint);
        webhooks.push(webhook(due.no, token, due.endpoint, due.retry, due.body, JSON.parse(due.events) as number[]));
      }
      while (webhooks.length < limit) {
        const next = q.endpointNext.get(tx.now);
        if (!next) break;
        const endpoint = q.endpointRow.get(next.no) as { account: number; open: number };
        const events = q.outOf.all(next.no).map((row) => row.event);
        const last = events.at(-1);
        if (last === undefined || endpoint.open >= ENDPOINT_SLOTS) {
          q.endpointSet.run(0, null, tx.seq(), next.no);
          continue;
        }
        q.outDelete.run(next.no, last);
        const token = tx.seq();
        const hook = (
          q.hookAdd.get(next.no, endpoint.account, token, lease, tx.now, JSON.stringify(events)) as { no: number }
        ).no;
        for (const event of events) q.eventHook.run(hook, event);
        const more = endpoint.open + 1 < ENDPOINT_SLOTS && q.outAny.get(next.no) !== undefined;
        q.endpointSet.run(1, more ? tx.now : null, tx.seq(), next.no);
        webhooks.push(webhook(hook, token, next.no, 0, null, events));
      }
      const specNos = new Set(webhooks.flatMap((hook) => hook.events.map((event) => event.spec)));
      const nextHook = q.hookMin.get()?.due ?? null;
      const nextEndpoint = q.endpointMin.get()?.due ?? null;
      return {
        now: tx.now,
        webhooks,
        specs: reads.specs([...specNos]),
        nextDue: nextHook === null ? nextEndpoint : nextEndpoint === null ? nextHook : Math.min(nextHook, nextEndpoint),
      };
    },

    webhookSettle(settle: WebhookSettle): boolean {
      const hook = q.hook.get(settle.no);
      if (hook?.state !== 0 || hook.token !== settle.token) return false;
      q.hookTry.run(hook.no, hook.retry, tx.now - settle.tookMs, settle.tookMs, settle.status, settle.excerpt);
      const delay = settle.ok ? null : webhookDelay(hook.retry);
      const state = settle.ok ? 1 : delay === null ? 2 : 0;
      q.hookSet.run(
        state,
        delay === null ? hook.retry : hook.retry + 1,
        delay === null ? null : tx.now + delay,
        settle.ok ? null : settle.body,
        hook.no,
      );
      const events = JSON.parse(hook.events) as number[];
      const more = q.outAny.get(hook.endpoint) !== undefined;
      q.endpointSet.run(-1, more ? tx.now : null, tx.seq(), hook.endpoint);
      if (state !== 0) closeEvents(hook.endpoint, events, state === 2);
      if (more) tx.hint('webhooks');
      return true;
    },
  };
}
