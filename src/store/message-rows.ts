/**
 * A message with its spec and bulk, and an event with its message, as both engines select them; and the contract's words for such rows.
 * Whether a claim is open each engine asks in SQL of its own (`claimed`).
 */
import type { Leg } from '../domain/failover.ts';
import type { EventRow, MessageRow } from '../domain/rows.ts';

/** What the message's own row says. */
export interface MessageOwnColumns {
  m_no: number;
  m_key: string | null;
  m_spec: number;
  m_to: string;
  m_state: number;
  m_status: number;
  m_error: number;
  m_sent: number | null;
  m_done: number | null;
  /** SQLite has no booleans. */
  m_claimed: number | boolean;
  m_leg: number;
}

/** With those of its spec and bulk. */
export interface MessageColumns extends MessageOwnColumns {
  s_bulk: number;
  s_accepted: number;
  b_id: string | null;
}

/** With those of one of its events. */
export type EventColumns = MessageColumns & {
  event: number;
  at: number;
  e_status: number;
  e_error: number;
  e_leg: number;
};

/** Of `message m`. */
export const ownColumns = (claimed: string): string =>
  `m.no AS m_no, m.key AS m_key, m.spec AS m_spec, m."to" AS m_to, m.state AS m_state, m.status AS m_status, m.error AS m_error,
  m.sent_at AS m_sent, m.done_at AS m_done, m.leg AS m_leg, ${claimed} AS m_claimed`;
/** With MESSAGE_JOINS behind `message m`. */
export const messageColumns = (claimed: string): string =>
  `${ownColumns(claimed)}, s.bulk AS s_bulk, s.accepted_at AS s_accepted, b.id AS b_id`;
export const MESSAGE_JOINS = 'JOIN spec s ON s.no = m.spec LEFT JOIN bulk b ON b.no = s.bulk';
/** Of `event e` beside them. Whether a claim is open says nothing of what was, and is not looked up. */
export const EVENT_COLUMNS = `${messageColumns('false')}, e.no AS event, e.at AS at, e.status AS e_status, e.error AS e_error, e.leg AS e_leg`;

/** Such a row in the contract's words. */
export function toMessage(row: MessageColumns): MessageRow {
  return {
    no: row.m_no,
    key: row.m_key,
    bulk: row.s_bulk,
    bulkId: row.b_id,
    spec: row.m_spec,
    to: row.m_to,
    state: row.m_state,
    status: row.m_status,
    error: row.m_error,
    acceptedAt: row.s_accepted,
    sentAt: row.m_sent,
    doneAt: row.m_done,
    claimed: Boolean(row.m_claimed),
    leg: row.m_leg as Leg,
  };
}

/** An event in the contract's words; its doneAt is the event's instant. */
export function toEvent(row: EventColumns): EventRow {
  const { event, at, e_status: status, e_error: error, e_leg } = row;
  return { ...toMessage(row), event, at, status, error, doneAt: at, leg: e_leg === 1 ? 1 : 0 };
}
