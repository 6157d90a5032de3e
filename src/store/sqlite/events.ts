/**
 * Status changes and the outbox. `change` is the only place that writes a message's status: it asks the state machine,
 * writes the row, its event, and where due the outbox or pull entry, all in the caller's transaction (G4, G9, G10).
 *
 * The outbox: an event waits under its endpoint (`outbox`), is formed with others into a hook (one POST, same bytes and id
 * for all its retries), and leaves when the hook is settled. Messages with intermediate reports keep their open events
 * in `open_event`, and only the oldest is handed on.
 */
import { statusView } from '../../domain/codes.ts';
import { FAILED_OVER, type Leg, SMS_MARK, WITHDRAWN_WORDS } from '../../domain/failover.ts';
import { senderKey } from '../../domain/optout.ts';
import { isFree, PAID_MARK, type Paid, paidOf } from '../../domain/prices.ts';
import { reportForm } from '../../domain/report.ts';
import { webhookDelay } from '../../domain/retry.ts';
import type { EventRow, HookKind, InboundRow } from '../../domain/rows.ts';
import {
  ACCEPTED,
  isFinal,
  type MessageStatus,
  STATUS_CLAIMED,
  type State,
  type StatusEvent,
  transition,
} from '../../domain/status.ts';
import type { ReportKind } from '../../domain/submission.ts';
import {
  type EndpointSetting,
  PENDING_MAX,
  TRIES_MAX,
  type Webhook,
  type WebhookSettle,
  type Webhooks,
} from '../contract.ts';
import { EXHAUSTED_MS, kindCode, kindOf, POST_MOST, postMostSql, validSecrets } from '../hooks.ts';
import { type EventColumns, MESSAGE_JOINS, toEvent } from '../message-rows.ts';
import { CLAIMED_WORDS, CLAIMS_TOLD, landed } from '../outcomes.ts';
import type { Tallies } from './bulk.ts';
import { earliest } from './lines.ts';
import { EVENT_COLUMNS, type Reads, SMS_SENDER } from './rows.ts';
import { createSpend } from './spend.ts';
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
  leg: Leg;
}

/** What a message's second leg is asked when its first one ends (`failover.ts`). */
export interface FailoverSide {
  /**
   * Opens the SMS leg of a message that would end as `next`; null = none is due. `opened` false = due, and not possible. `pays` is
   * asked last of all.
   */
  open(
    message: Live,
    event: StatusEvent,
    next: MessageStatus,
    pays: () => boolean,
  ): { opened: boolean; words: string } | null;
  /** Takes an SMS leg of which nothing has left back. False = something has, or is about to. */
  withdraw(message: Live): boolean;
}

/** What of a spec decides the way of its events. */
interface SpecHead {
  endpoint: number | null;
  intermediate: number;
  bulk: number;
  /** 1 = its messages are in the bulk's tally. */
  counted: number;
  /** By leg, where its sender is a number of the account's, so that handsets can answer: that, as conversations have it. */
  answered: [string | null, string | null];
  /** Null = its messages are held against no spend limit. */
  paid: Paid | null;
}

/** What it is read from; `body` null = nothing in it matters here. */
type SpecColumns = Omit<SpecHead, 'answered' | 'paid'> & {
  account: number;
  sender: string;
  /** The SMS leg's own sender. */
  sms: string | null;
  body: string | null;
};

/** POSTs in flight to one endpoint: one that hangs takes no more of its neighbours' slots. */
const ENDPOINT_SLOTS = 8;
/** Of these, fresh ones that are not full: two, so that while one is answered the next fills. */
const FRESH_SLOTS = 2;
/** Failed tries in a row after which an endpoint has one slot, until a try succeeds. A delay, never a skip. */
const BREAKER = 5;
/** Lost leases taken back in one call. */
const LOST = 64;
/** How long a final report can be pulled; where a webhook was exhausted, EXHAUSTED_MS from there. */
const PULL_MS = 48 * 3_600_000;
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
  kind: number;
  open: number;
  fails: number;
  fresh: number;
}
const ENDPOINT = 'no, account, url, content_type, kind, open, fails, fresh';

/** Rows of endpoint_setting, and what they say. */
export interface SettingRow {
  kind: number;
  url: string;
  content_type: string;
  standard: number;
  secrets: string;
  headers: string;
}
export const SETTING = 'kind, url, content_type, standard, secrets, headers';

/** A row of SETTING in the contract's words. */
export function toSetting(row: SettingRow): EndpointSetting {
  return {
    kind: kindOf(row.kind),
    url: row.url,
    contentType: row.content_type,
    isDefault: row.standard === 1,
    secrets: JSON.parse(row.secrets) as EndpointSetting['secrets'],
    headers: JSON.parse(row.headers) as EndpointSetting['headers'],
  };
}

export type Events = ReturnType<typeof createEvents>;

/** Events and the outbox on the transaction that they are given. */
export function createEvents(tx: Tx, reads: Reads, tallies: Tallies) {
  const db = tx.db;
  const q = {
    spec: prepare<SpecColumns>(
      db,
      `SELECT endpoint, intermediate, bulk, counted, sender, account, ${SMS_SENDER} AS sms, CASE WHEN instr(body, '${PAID_MARK}') > 0 THEN body END AS body
       FROM spec WHERE no = ?`,
    ),
    ownNumber: prepare<{ account: number }>(db, 'SELECT account FROM own_number WHERE number = ?'),
    recipient: prepare<{ to: string }>(db, 'SELECT "to" FROM message WHERE no = ?'),
    conversation: prepare(
      db,
      'INSERT OR REPLACE INTO conversation (account, sender, destination, no) VALUES (?, ?, ?, ?)',
    ),
    update: prepare(
      db,
      'UPDATE message SET state = ?, status = ?, error = ?, sent_at = ?, done_at = ?, leg = ? WHERE no = ?',
    ),
    event: prepare(
      db,
      'INSERT INTO event (message, account, at, status, error, kind, words, leg) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
    ),
    notes: prepare<{ n: number }>(db, 'SELECT count(*) AS n FROM event WHERE message = ? AND kind = 1'),
    lastTold: prepare<{ status: number }>(
      db,
      'SELECT status FROM event WHERE message = ? AND kind = 0 ORDER BY no DESC LIMIT 1',
    ),
    claimed: prepare<MessageStatus & Pick<Live, 'no' | 'account' | 'spec' | 'leg'> & { told: number }>(
      db,
      `SELECT no, account, spec, state, status, error, leg,
         (SELECT count(*) FROM event e WHERE e.message = m.no AND e.kind = 0) AS told FROM message m WHERE no = ?`,
    ),
    endpoint: prepare<{ no: number }>(
      db,
      'SELECT no FROM endpoint WHERE account = ? AND url = ? AND content_type = ? AND kind = ?',
    ),
    endpointAdd: prepare<{ no: number }>(
      db,
      `INSERT INTO endpoint (account, url, content_type, kind, secret, open, fails, fresh, due_at, seq)
       VALUES (?, ?, ?, ?, NULL, 0, 0, 0, NULL, 0) RETURNING no`,
    ),
    setting: prepare<SettingRow>(
      db,
      `SELECT ${SETTING} FROM endpoint_setting WHERE account = ? AND kind = ? AND url = ?`,
    ),
    standard: prepare<{ url: string; content_type: string }>(
      db,
      'SELECT url, content_type FROM endpoint_setting WHERE account = ? AND kind = ? AND standard = 1',
    ),
    out: prepare(db, 'INSERT INTO outbox (endpoint, event) VALUES (?, ?)'),
    // Not what would find nothing to form: see freshReady.
    endpointWake: prepare(
      db,
      `UPDATE endpoint SET due_at = ?1, seq = ?2 WHERE no = ?3 AND (due_at IS NULL OR due_at > ?1)
         AND (open = 0 OR (fails < ${BREAKER} AND (open < ${FRESH_SLOTS} OR (open < ${ENDPOINT_SLOTS}
           AND (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE endpoint = ?3 LIMIT ${Math.max(...POST_MOST)}))
             >= ${postMostSql('kind')}))))`,
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
    outOf: prepare<{ event: number }>(db, 'SELECT event FROM outbox WHERE endpoint = ? ORDER BY event LIMIT ? + 0'),
    outCount: prepare<{ n: number }>(
      db,
      `SELECT count(*) AS n FROM (SELECT 1 FROM outbox WHERE endpoint = ? LIMIT ${PENDING_MAX})`,
    ),
    outAny: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM outbox WHERE endpoint = ? LIMIT 1'),
    outFull: prepare<{ one: number }>(
      db,
      'SELECT 1 AS one FROM outbox WHERE endpoint = ? ORDER BY event LIMIT 1 OFFSET ? + 0',
    ),
    outDelete: prepare(db, 'DELETE FROM outbox WHERE endpoint = ? AND event <= ?'),
    hookAdd: prepare(
      db,
      `INSERT INTO hook (endpoint, account, state, retry, token, leased, due_at, at, events, body)
       VALUES (?, ?, 0, 0, ?, 1, ?, ?, ?, NULL)`,
    ),
    eventsHook: prepare(db, 'UPDATE event SET hook = ? WHERE no IN (SELECT x.value FROM json_each(?) x)'),
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
      'UPDATE hook SET state = ?, retry = ?, leased = 0, due_at = ?, body = coalesce(?, body), ended_at = ? WHERE no = ?',
    ),
    // Numbered on over a replay, whose cycle begins again.
    hookTry: prepare(
      db,
      `INSERT OR REPLACE INTO hook_try (hook, retry, at, took, status, excerpt)
       SELECT ?1, min(coalesce(max(retry) + 1, 0), ${TRIES_MAX - 1}), ?, ?, ?, ? FROM hook_try WHERE hook = ?1`,
    ),
    inbound: prepare<{ no: number; body: string }>(
      db,
      'SELECT i.no, i.body FROM event e JOIN inbound i ON i.no = e.message WHERE e.no = ?',
    ),
    eventWords: prepare<{ words: string }>(db, 'SELECT words FROM event WHERE no = ?'),
    inboxAdd: prepare(
      db,
      `INSERT OR IGNORE INTO inbox (account, event, inbound, until) SELECT account, no, message, ? FROM event WHERE no = ?`,
    ),
    eventOf: prepare<{ message: number; account: number; status: number; leg: number; spec: number; bulk: number }>(
      db,
      `SELECT e.message, e.account, e.status, e.leg, m.spec, s.bulk FROM event e JOIN message m ON m.no = e.message
       JOIN spec s ON s.no = m.spec WHERE e.no = ?`,
    ),
    eventRow: prepare<EventColumns>(
      db,
      `SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS} WHERE e.no = ?`,
    ),
    // In their order: CROSS JOIN keeps that of the loops.
    eventRows: prepare<EventColumns>(
      db,
      `SELECT ${EVENT_COLUMNS} FROM json_each(?) x CROSS JOIN event e ON e.no = x.value CROSS JOIN message m ON m.no = e.message
       ${MESSAGE_JOINS}`,
    ),
  };
  let failover: FailoverSide = { open: () => null, withdraw: () => false };
  const spend = createSpend(tx);
  // Immutable columns of specs in use; bounded, and emptied on rollback.
  const specs = new Map<number, SpecHead>();
  const endpoints = new Map<string, number>();
  /** Numbers that senders are, by whose they are; undefined = nobody's here. */
  const owners = new Map<string, number | undefined>();
  /** Endpoints that events were handed on to in this transaction, and that are not told yet: once for all of them. */
  const handed = new Set<number>();

  function ownerOf(key: string): number | undefined {
    if (owners.has(key)) return owners.get(key);
    const owner = q.ownNumber.get(key)?.account;
    if (owners.size >= 4096) owners.clear();
    owners.set(key, owner);
    return owner;
  }

  function spec(no: number): SpecHead {
    let row = specs.get(no);
    if (!row) {
      const read = q.spec.get(no);
      if (!read) throw new Error(`spec ${no} is gone`);
      row = remember(no, read);
    }
    return row;
  }

  function remember(no: number, { account, body, sender, sms, ...head }: SpecColumns): SpecHead {
    const own = (from: string): string | null => {
      const key = senderKey(from);
      return ownerOf(key) === account ? key : null;
    };
    const mms = own(sender);
    const row: SpecHead = { ...head, answered: [mms, sms ? own(sms) : mms], paid: paidOf(body) };
    if (specs.size >= 4096) specs.clear();
    specs.set(no, row);
    return row;
  }

  const payer = ({ no, account }: Live) => ({ no, account, to: q.recipient.get(no)?.to ?? '' });

  function handOn(endpoint: number, event: number): void {
    q.out.run(endpoint, event);
    handed.add(endpoint);
  }

  /** Before anybody asks what is due, and before the commit. */
  function flush(): void {
    for (const endpoint of handed) {
      if (q.endpointWake.run(tx.now, tx.seq(), endpoint) > 0) tx.hint('webhooks');
    }
    handed.clear();
  }

  /** The endpoint's number, made on first use. */
  function endpoint(account: number, url: string, contentType: string, kind: HookKind = 'delivery'): number {
    const code = kindCode(kind);
    const name = endpointName(account, url, contentType, code);
    const cached = endpoints.get(name);
    if (cached !== undefined) return cached;
    const row = q.endpoint.get(account, url, contentType, code) ?? q.endpointAdd.get(account, url, contentType, code);
    const no = (row as { no: number }).no;
    if (endpoints.size >= 4096) endpoints.clear();
    endpoints.set(name, no);
    return no;
  }

  const postMost = (endpoint: EndpointRow): number => POST_MOST[endpoint.kind] ?? 1;

  /** Fresh events of an endpoint that may be formed into a POST now. */
  function freshReady(endpoint: EndpointRow): boolean {
    if (endpoint.open < FRESH_SLOTS) return q.outAny.get(endpoint.no) !== undefined;
    return q.outFull.get(endpoint.no, postMost(endpoint) - 1) !== undefined;
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
    const events = q.outOf.all(endpoint.no, postMost(endpoint)).map((row) => row.event);
    q.outDelete.run(endpoint.no, events.at(-1) as number);
    const token = tx.seq();
    const list = JSON.stringify(events);
    const no = q.hookAdd.insert(endpoint.no, endpoint.account, token, lease, tx.now, list);
    q.eventsHook.run(no, list);
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

  /** The event row of a status the message now has, and its way to the customer. `leg` FAILED_OVER = it is not the last. */
  function emit(
    message: { no: number; account: number; spec: number },
    next: MessageStatus,
    words: string,
    leg: Leg | typeof FAILED_OVER = 0,
  ): void {
    const event = q.event.insert(message.no, message.account, tx.now, next.status, next.error, 0, words, leg);
    const { endpoint, intermediate, bulk } = spec(message.spec);
    const final = isFinal(next.state) && leg !== FAILED_OVER;
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

  /** The last that its account was told of it, who asks for every change, is that it is on its way. */
  const enroute = (message: { no: number; spec: number }): boolean =>
    spec(message.spec).intermediate === 1 && q.lastTold.get(message.no)?.status === STATUS_CLAIMED;

  function eventRow(no: number): EventRow | null {
    const row = q.eventRow.get(no);
    return row ? toEvent(row) : null;
  }

  function webhook(
    no: number,
    token: number,
    endpoint: EndpointRow,
    retry: number,
    body: string | null,
    events: number[],
  ): Webhook {
    const kind = kindOf(endpoint.kind);
    const row = q.setting.get(endpoint.account, endpoint.kind, endpoint.url);
    const setting = row ? toSetting(row) : null;
    return {
      no,
      token,
      account: endpoint.account,
      kind,
      endpoint: {
        no: endpoint.no,
        url: endpoint.url,
        contentType: endpoint.content_type,
        secrets: validSecrets(setting?.secrets ?? [], tx.now),
        headers: setting?.headers ?? {},
      },
      retry,
      body: kind === 'click' ? (body ?? q.eventWords.get(events[0] as number)?.words ?? null) : body,
      events: kind === 'delivery' ? q.eventRows.all(JSON.stringify(events)).map(toEvent) : [],
      inbound: kind === 'inbound' ? events.map(inboundRow).filter((one) => one !== null) : [],
      pending: 0,
    };
  }

  function inboundRow(event: number): InboundRow | null {
    const row = q.inbound.get(event);
    return row ? (JSON.parse(row.body) as InboundRow) : null;
  }

  /** After a hook ended (delivered or exhausted): its messages' next open events come forward. */
  function closeEvents(endpoint: number, kind: HookKind, events: number[], exhausted: boolean): void {
    if (kind === 'inbound' && exhausted) for (const no of events) q.inboxAdd.run(tx.now + EXHAUSTED_MS, no);
    if (kind !== 'delivery') return;
    // Nobody asked for intermediate reports: no later event waits for these.
    if (!exhausted && q.openFirst.get()?.message == null) return;
    for (const no of events) {
      const event = q.eventOf.get(no);
      if (!event) continue;
      // Only finals are pulled: what came between is of no use once nobody listens.
      if (exhausted && event.leg !== FAILED_OVER && statusView(event.status).groupName !== 'PENDING') {
        q.pull.run(event.account, no, event.message, event.spec, event.bulk, tx.now + EXHAUSTED_MS);
      }
      if (q.openDelete.run(event.message, no) === 0) continue;
      const next = q.openOldest.get(event.message)?.event ?? null;
      if (next !== null) handOn(endpoint, next);
    }
  }

  return {
    endpoint,
    /** The account's endpoint for what names no URL; null = it has none. `contentType`: asked for, else the endpoint's own. */
    standard(account: number, kind: HookKind, contentType?: string, older?: boolean): number | null {
      const row = q.standard.get(account, kindCode(kind));
      return row ? endpoint(account, row.url, reportForm(contentType ?? row.content_type, older), kind) : null;
    },
    handOn,
    /** Endpoints are told what was handed on to them; before each commit. */
    flush,
    /** An endpoint after something outside changed what waits under it. */
    again(no: number): void {
      const row = q.endpointRow.get(no);
      if (row && rest(row) !== null) tx.hint('webhooks');
    },
    /** The event of something that is no change of status, about the number `of`; its own number. */
    add: (of: number, account: number, kind: number, words: string): number =>
      q.event.insert(of, account, tx.now, 0, 0, kind, words, 0),
    /** Who opens second legs; once, before anything is changed. */
    setFailover(side: FailoverSide): void {
      failover = side;
    },
    forget(): void {
      specs.clear();
      endpoints.clear();
      owners.clear();
    },
    /** After a rollback. */
    rolledBack(): void {
      handed.clear();
      this.forget();
    },
    emit,
    eventRow,
    /** A spec that was just written need not be read when its first message moves. */
    added(no: number, { body, ...head }: Omit<SpecColumns, 'sms' | 'body'> & { body: string }): void {
      if (!body.includes(SMS_MARK) && !body.includes(PAID_MARK)) remember(no, { ...head, sms: null, body: null });
    },
    /**
     * Messages of a run that are claimed: on their way (7), where every change is told. Nothing where that is what was told last: the
     * claim before was put back as if it had never been.
     */
    claimed(run: { spec: number; intermediate: boolean | null }, members: readonly { no: number }[]): void {
      if (!(run.intermediate ?? spec(run.spec).intermediate === 1)) return;
      for (const { no } of members) {
        const message = q.claimed.get(no);
        if (!message || message.told >= CLAIMS_TOLD || enroute(message)) continue;
        emit(message, { ...message, status: STATUS_CLAIMED }, CLAIMED_WORDS, message.leg);
      }
    },
    /** Move a message by the state machine. True = it changed. */
    change(message: Live, event: StatusEvent, words: string): boolean {
      const from: MessageStatus = { state: message.state, status: message.status, error: message.error };
      const { next, changed, final } = transition(from, event);
      if (!changed) {
        if (landed(event) && enroute(message)) emit(message, from, words, message.leg);
        return false;
      }
      const sentAt = message.sent_at ?? (SENT.has(event.kind) ? tx.now : null);
      const { bulk, counted, answered, paid } = spec(message.spec);
      const speaks = answered[message.leg];
      if (paid && final && isFree({ leg: message.leg, status: next.status, error: next.error, sentAt })) {
        spend.back(paid, message.leg, payer(message));
      }
      const pays = (): boolean => paid === null || spend.take(paid, payer(message));
      const second = final && message.leg === 0 ? failover.open(message, event, next, pays) : null;
      const then = second?.opened ? ACCEPTED : next;
      const leg = second?.opened ? 1 : message.leg;
      q.update.run(then.state, then.status, then.error, sentAt, isFinal(then.state) ? tx.now : null, leg, message.no);
      // A handset that answers means the last message that it got.
      if (speaks && event.kind === 'accepted') {
        const to = q.recipient.get(message.no)?.to ?? '';
        q.conversation.run(message.account, speaks, to, message.no);
      }
      if (counted === 1) tallies.moved(bulk, from.state, then.state);
      if (next.status !== from.status || next.error !== from.error || enroute(message)) {
        const all = second ? [words, second.words].filter((part) => part !== '').join('; ') : words;
        emit(message, next, all, second?.opened ? FAILED_OVER : message.leg);
      }
      message.state = then.state;
      message.status = then.status;
      message.error = then.error;
      message.sent_at = sentAt;
      message.leg = leg;
      return true;
    },
    /** A report of the MMS leg after the SMS leg has begun: delivered wins while nothing of the SMS has left. True = it did. */
    reportLate(message: Live, report: ReportKind, words: string): boolean {
      if (report !== 'retrieved' || !failover.withdraw(message)) return false;
      message.leg = 0;
      const { paid } = spec(message.spec);
      if (paid) spend.back(paid, 1, payer(message));
      return this.change(message, { kind: 'report', report }, `${words}; ${WITHDRAWN_WORDS}`);
    },
    /** A report that changed nothing (late, doubled) is still part of the story. */
    note(message: Live, words: string): void {
      if ((q.notes.get(message.no)?.n ?? 0) >= NOTES) return;
      q.event.run(message.no, message.account, tx.now, message.status, message.error, 1, words, message.leg);
    },

    /**
     * At most `limit` POSTs, one an endpoint and round, so that no endpoint's backlog (or death) stands before the others'.
     */
    webhookNext(limit: number, leaseMs: number): Webhooks {
      flush();
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
      for (const one of webhooks) if (one.kind === 'inbound') one.pending = q.outCount.get(one.endpoint.no)?.n ?? 0;
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
      q.hookTry.run(hook.no, startedAt, settle.tookMs, settle.status, settle.excerpt.slice(0, EXCERPT));
      const delay = settle.ok ? null : webhookDelay(hook.retry);
      const state = settle.ok ? 1 : delay === null ? 2 : 0;
      const retry = delay === null ? hook.retry : hook.retry + 1;
      const endpoint = q.endpointRow.get(hook.endpoint);
      if (!endpoint) throw new Error(`endpoint ${hook.endpoint} is gone`);
      const due = delay === null ? null : tx.now + delay;
      q.hookSet.run(state, retry, due, settle.body, state === 0 ? null : tx.now, hook.no);
      const events = JSON.parse(hook.events) as number[];
      if (state !== 0) closeEvents(hook.endpoint, kindOf(endpoint.kind), events, state === 2);
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
      endpoints.delete(endpointName(row.account, row.url, row.content_type, row.kind));
      q.endpointDelete.run(no);
    },
  };
}

function endpointName(account: number, url: string, contentType: string, kind: number): string {
  return `${account} ${kind} ${contentType} ${url}`;
}
