/**
 * Status changes and the outbox. `change` is the only place that writes a message's status: it asks the state machine,
 * writes the row, its event, and where due the outbox or pull entry, all in the caller's transaction (G4, G9, G10).
 *
 * The outbox: an event waits under its endpoint (`outbox`), is formed with others into a hook (one POST, same bytes and id
 * for all its retries), and leaves when the hook is settled. Messages with intermediate reports keep their open events
 * in `open_event`, and only the oldest is handed on.
 */
import { statusView } from '../../domain/codes.ts';
import { webhookDelay } from '../../domain/retry.ts';
import type { EventRow } from '../../domain/rows.ts';
import { isFinal, type MessageStatus, type State, type StatusEvent, transition } from '../../domain/status.ts';
import type { Webhook, WebhookSettle, Webhooks } from '../contract.ts';
import type { Tallies } from './bulk.ts';
import { earliest } from './lines.ts';
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

/** What of a spec decides the way of its events. */
interface SpecHead {
  endpoint: number | null;
  intermediate: number;
  bulk: number;
  /** 1 = its messages are in the bulk's tally. */
  counted: number;
}

/** Most events in one POST (contract: up to 100 reports). */
const POST_EVENTS = 100;
/** POSTs in flight to one endpoint: one that hangs takes no more of its neighbours' slots. */
const ENDPOINT_SLOTS = 8;
/** Of these, fresh ones that are not full: two, so that while one is answered the next fills. */
const FRESH_SLOTS = 2;
/** Failed tries in a row after which an endpoint has one slot, until a try succeeds. A delay, never a skip. */
const BREAKER = 5;
/** Lost leases taken back in one call. */
const LOST = 64;
/** How long a final report can be pulled; where a webhook was exhausted, counted from there. */
const PULL_MS = 48 * 3_600_000;
const EXHAUSTED_PULL_MS = 7 * 86_400_000;
/** First characters kept of an endpoint's answer. */
const EXCERPT = 500;
/** Reports that change nothing are kept as notes, at most this many a message. */
const NOTES = 20;

/** What proves that a submission left: the first of these is sentAt. */
const SENT = new Set<StatusEvent['kind']>(['accepted', 'deferred', 'refused', 'unknown', 'report']);

interface EndpointRow {
  no: number;
  account: number;
  url: string;
  content_type: string;
  secret: string | null;
  open: number;
  fails: number;
  fresh: number;
}
const ENDPOINT = 'no, account, url, content_type, secret, open, fails, fresh';

export type Events = ReturnType<typeof createEvents>;

/** Events and the outbox on the transaction that they are given. */
export function createEvents(tx: Tx, reads: Reads, tallies: Tallies) {
  const db = tx.db;
  const q = {
    spec: prepare<SpecHead>(db, 'SELECT endpoint, intermediate, bulk, counted FROM spec WHERE no = ?'),
    update: prepare(db, 'UPDATE message SET state = ?, status = ?, error = ?, sent_at = ?, done_at = ? WHERE no = ?'),
    event: prepare(
      db,
      'INSERT INTO event (message, account, at, status, error, kind, words) VALUES (?, ?, ?, ?, ?, ?, ?)',
    ),
    notes: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM event WHERE message = ?'),
    endpoint: prepare<{ no: number }>(db, 'SELECT no FROM endpoint WHERE account = ? AND url = ? AND content_type = ?'),
    endpointAdd: prepare<{ no: number }>(
      db,
      `INSERT INTO endpoint (account, url, content_type, secret, open, fails, fresh, due_at, seq)
       VALUES (?, ?, ?, NULL, 0, 0, 0, NULL, 0) RETURNING no`,
    ),
    out: prepare(db, 'INSERT INTO outbox (endpoint, event) VALUES (?, ?)'),
    endpointWake: prepare(
      db,
      `UPDATE endpoint SET due_at = ?, seq = ? WHERE no = ? AND (due_at IS NULL OR due_at > ?)
         AND (open = 0 OR (open < ${FRESH_SLOTS} AND fails < ${BREAKER}))`,
    ),
    openAdd: prepare(db, 'INSERT INTO open_event (message, event) VALUES (?, ?)'),
    openOldest: prepare<{ event: number | null }>(db, 'SELECT min(event) AS event FROM open_event WHERE message = ?'),
    openFirst: prepare<{ message: number | null }>(db, 'SELECT min(message) AS message FROM open_event'),
    openDelete: prepare(db, 'DELETE FROM open_event WHERE message = ? AND event = ?'),
    pull: prepare(
      db,
      'INSERT OR IGNORE INTO pull (account, event, message, spec, bulk, until) VALUES (?, ?, ?, ?, ?, ?)',
    ),

    endpointNext: prepare<EndpointRow>(
      db,
      `SELECT ${ENDPOINT} FROM endpoint WHERE due_at <= ? ORDER BY due_at, seq LIMIT 1`,
    ),
    endpointRow: prepare<EndpointRow>(db, `SELECT ${ENDPOINT} FROM endpoint WHERE no = ?`),
    endpointSet: prepare(db, 'UPDATE endpoint SET open = ?, fails = ?, fresh = ?, due_at = ?, seq = ? WHERE no = ?'),
    endpointMin: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM endpoint WHERE due_at IS NOT NULL',
    ),
    endpointUsed: prepare<{ one: number }>(
      db,
      `SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM spec WHERE endpoint = ?1)
         OR EXISTS (SELECT 1 FROM hook WHERE endpoint = ?1) OR EXISTS (SELECT 1 FROM outbox WHERE endpoint = ?1)`,
    ),
    endpointDelete: prepare(db, 'DELETE FROM endpoint WHERE no = ?'),
    outOf: prepare<{ event: number }>(
      db,
      `SELECT event FROM outbox WHERE endpoint = ? ORDER BY event LIMIT ${POST_EVENTS}`,
    ),
    outAny: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM outbox WHERE endpoint = ? LIMIT 1'),
    outFull: prepare<{ one: number }>(
      db,
      `SELECT 1 AS one FROM outbox WHERE endpoint = ? ORDER BY event LIMIT 1 OFFSET ${POST_EVENTS - 1}`,
    ),
    outDelete: prepare(db, 'DELETE FROM outbox WHERE endpoint = ? AND event <= ?'),
    hookAdd: prepare(
      db,
      `INSERT INTO hook (endpoint, account, state, retry, token, leased, due_at, at, events, body)
       VALUES (?, ?, 0, 0, ?, 1, ?, ?, ?, NULL)`,
    ),
    eventHook: prepare(db, 'UPDATE event SET hook = ? WHERE no = ?'),
    hookNext: prepare<{ no: number; retry: number; events: string; body: string | null }>(
      db,
      `SELECT no, retry, events, body FROM hook WHERE endpoint = ? AND state = 0 AND leased = 0 AND due_at <= ?
       ORDER BY due_at LIMIT 1`,
    ),
    hookWaits: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM hook WHERE endpoint = ? AND state = 0 AND leased = 0',
    ),
    hookLost: prepare<{ no: number; endpoint: number }>(
      db,
      `SELECT no, endpoint FROM hook WHERE leased = 1 AND due_at <= ? ORDER BY due_at LIMIT ${LOST}`,
    ),
    leasesFreed: prepare(db, 'UPDATE hook SET due_at = 0 WHERE leased = 1'),
    leaseMin: prepare<{ due: number | null }>(db, 'SELECT min(due_at) AS due FROM hook WHERE leased = 1'),
    hookLease: prepare(db, 'UPDATE hook SET token = ?, leased = 1, due_at = ? WHERE no = ?'),
    hookFree: prepare(db, 'UPDATE hook SET leased = 0, due_at = ? WHERE no = ?'),
    hook: prepare<{
      no: number;
      endpoint: number;
      account: number;
      retry: number;
      token: number;
      state: number;
      leased: number;
      events: string;
    }>(db, 'SELECT no, endpoint, account, retry, token, state, leased, events FROM hook WHERE no = ?'),
    hookSet: prepare(
      db,
      'UPDATE hook SET state = ?, retry = ?, leased = 0, due_at = ?, body = coalesce(?, body) WHERE no = ?',
    ),
    hookTry: prepare(
      db,
      'INSERT OR REPLACE INTO hook_try (hook, retry, at, took, status, excerpt) VALUES (?, ?, ?, ?, ?, ?)',
    ),
    eventOf: prepare<{ message: number; account: number; status: number; spec: number; bulk: number }>(
      db,
      `SELECT e.message, e.account, e.status, m.spec, s.bulk FROM event e JOIN message m ON m.no = e.message
       JOIN spec s ON s.no = m.spec WHERE e.no = ?`,
    ),
    eventRow: prepare<MessageColumns & { event: number; at: number; e_status: number; e_error: number }>(
      db,
      `SELECT ${MESSAGE_COLUMNS}, e.no AS event, e.at AS at, e.status AS e_status, e.error AS e_error
       FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS} WHERE e.no = ?`,
    ),
  };
  // Immutable columns of specs in use; bounded, and emptied on rollback.
  const specs = new Map<number, SpecHead>();
  const endpoints = new Map<string, number>();

  function spec(no: number): SpecHead {
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
    if (q.endpointWake.run(tx.now, tx.seq(), endpoint, tx.now) > 0) tx.hint('webhooks');
  }

  /** Fresh events of an endpoint that may be formed into a POST now. */
  function freshReady(endpoint: EndpointRow): boolean {
    return (endpoint.open < FRESH_SLOTS ? q.outAny : q.outFull).get(endpoint.no) !== undefined;
  }

  const full = (endpoint: EndpointRow): boolean => endpoint.open >= (endpoint.fails >= BREAKER ? 1 : ENDPOINT_SLOTS);

  /** Write the endpoint and its next due instant; what is due already goes to the end of the ring. */
  function rest(endpoint: EndpointRow): number | null {
    let due: number | null = null;
    if (!full(endpoint)) {
      due = freshReady(endpoint) ? tx.now : (q.hookWaits.get(endpoint.no)?.due ?? null);
      if (due !== null) due = Math.max(due, tx.now);
    }
    q.endpointSet.run(endpoint.open, endpoint.fails, endpoint.fresh, due, tx.seq(), endpoint.no);
    return due;
  }

  /** Next POST of an endpoint: retries that are due and fresh events alternate. */
  function form(endpoint: EndpointRow, lease: number): Webhook | null {
    if (full(endpoint)) return null;
    const retry = q.hookNext.get(endpoint.no, tx.now);
    if (retry && (endpoint.fresh === 1 || !freshReady(endpoint))) {
      const token = tx.seq();
      q.hookLease.run(token, lease, retry.no);
      endpoint.open++;
      endpoint.fresh = 0;
      return webhook(retry.no, token, endpoint, retry.retry, retry.body, JSON.parse(retry.events) as number[]);
    }
    if (!freshReady(endpoint)) return null;
    const events = q.outOf.all(endpoint.no).map((row) => row.event);
    q.outDelete.run(endpoint.no, events.at(-1) as number);
    const token = tx.seq();
    const no = q.hookAdd.insert(endpoint.no, endpoint.account, token, lease, tx.now, JSON.stringify(events));
    for (const event of events) q.eventHook.run(no, event);
    endpoint.open++;
    endpoint.fresh = 1;
    return webhook(no, token, endpoint, 0, null, events);
  }

  /** POSTs whose process died wait again, with the same bytes and retry number. */
  function takeBackLost(): void {
    for (const hook of q.hookLost.all(tx.now)) {
      q.hookFree.run(tx.now, hook.no);
      const endpoint = q.endpointRow.get(hook.endpoint);
      if (!endpoint) throw new Error(`endpoint ${hook.endpoint} is gone`);
      endpoint.open = Math.max(0, endpoint.open - 1);
      rest(endpoint);
    }
  }

  /** The event row of a status the message now has, and its way to the customer. */
  function emit(message: { no: number; account: number; spec: number }, next: MessageStatus, words: string): void {
    const event = q.event.insert(message.no, message.account, tx.now, next.status, next.error, 0, words);
    const { endpoint, intermediate, bulk } = spec(message.spec);
    const final = isFinal(next.state);
    if (endpoint === null) {
      if (final) q.pull.run(message.account, event, message.no, message.spec, bulk, tx.now + PULL_MS);
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
    endpoint: EndpointRow,
    retry: number,
    body: string | null,
    events: number[],
  ): Webhook {
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
    // Nobody asked for intermediate reports: no later event waits for these.
    if (!exhausted && q.openFirst.get()?.message == null) return;
    for (const no of events) {
      const event = q.eventOf.get(no);
      if (!event) continue;
      // Only finals are pulled: what came between is of no use once nobody listens.
      if (exhausted && statusView(event.status).groupName !== 'PENDING') {
        q.pull.run(event.account, no, event.message, event.spec, event.bulk, tx.now + EXHAUSTED_PULL_MS);
      }
      if (q.openDelete.run(event.message, no) === 0) continue;
      const next = q.openOldest.get(event.message)?.event ?? null;
      if (next !== null) handOn(endpoint, next);
    }
  }

  return {
    /** The endpoint's number, made on first use. */
    endpoint(account: number, url: string, contentType: string): number {
      const name = endpointName(account, url, contentType);
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
      const { bulk, counted } = spec(message.spec);
      if (counted === 1) tallies.moved(bulk, from.state, next.state);
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
      q.event.run(message.no, message.account, tx.now, message.status, message.error, 1, words);
    },

    /**
     * At most `limit` POSTs, one an endpoint and round, so that no endpoint's backlog (or death) stands before the others'.
     */
    webhookNext(limit: number, leaseMs: number): Webhooks {
      takeBackLost();
      const webhooks: Webhook[] = [];
      const lease = tx.now + leaseMs;
      while (webhooks.length < limit) {
        const endpoint = q.endpointNext.get(tx.now);
        if (!endpoint) break;
        const formed = form(endpoint, lease);
        if (formed) webhooks.push(formed);
        rest(endpoint);
      }
      const specNos = new Set(webhooks.flatMap((hook) => hook.events.map((event) => event.spec)));
      return {
        now: tx.now,
        webhooks,
        specs: reads.specs([...specNos]),
        nextDue: earliest(q.endpointMin.get()?.due ?? null, q.leaseMin.get()?.due ?? null),
      };
    },

    webhookSettle(settle: WebhookSettle): boolean {
      const hook = q.hook.get(settle.no);
      if (hook?.state !== 0 || hook.leased !== 1 || hook.token !== settle.token) return false;
      const startedAt = tx.now - settle.tookMs;
      q.hookTry.run(hook.no, hook.retry, startedAt, settle.tookMs, settle.status, settle.excerpt.slice(0, EXCERPT));
      const delay = settle.ok ? null : webhookDelay(hook.retry);
      const state = settle.ok ? 1 : delay === null ? 2 : 0;
      const retry = delay === null ? hook.retry : hook.retry + 1;
      q.hookSet.run(state, retry, delay === null ? null : tx.now + delay, settle.ok ? null : settle.body, hook.no);
      if (state !== 0) closeEvents(hook.endpoint, JSON.parse(hook.events) as number[], state === 2);
      const endpoint = q.endpointRow.get(hook.endpoint);
      if (!endpoint) throw new Error(`endpoint ${hook.endpoint} is gone`);
      endpoint.open = Math.max(0, endpoint.open - 1);
      endpoint.fails = settle.ok ? 0 : endpoint.fails + 1;
      if (rest(endpoint) !== null) tx.hint('webhooks');
      return true;
    },

    /** At start on a store of one process: nobody else can hold a lease. */
    freeLeases: (): number => q.leasesFreed.run(),

    /** Forget an endpoint that nothing refers to any more. */
    dropEndpoint(no: number): void {
      if (q.endpointUsed.get(no)) return;
      const row = q.endpointRow.get(no);
      if (!row) return;
      endpoints.delete(endpointName(row.account, row.url, row.content_type));
      q.endpointDelete.run(no);
    },
  };
}

function endpointName(account: number, url: string, contentType: string): string {
  return `${account} ${contentType} ${url}`;
}
