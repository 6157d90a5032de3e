/**
 * How table rows become the contract's rows, and the reads that several verbs share (specs with their media).
 */
import type { DatabaseSync } from 'node:sqlite';
import { type Leg, SMS_MARK } from '../../domain/failover.ts';
import type { EventRow, MessageRow, SpecRow } from '../../domain/rows.ts';
import { prepare } from './tx.ts';

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
  m_claimed: number;
  m_leg: number;
}

/** A row of `MESSAGE_COLUMNS`. */
export interface MessageColumns extends MessageOwnColumns {
  s_bulk: number;
  s_accepted: number;
  b_id: string | null;
}

/**
 * Whether a claim is open: spans of flights do not overlap, so only the nearest leader can cover a number. An SMS stands alone,
 * under -no.
 */
const CLAIMED = `coalesce((SELECT f.leader + f.members > m.no * (1 - 2 * m.leg) FROM flight f
  WHERE f.leader <= m.no * (1 - 2 * m.leg) ORDER BY f.leader DESC LIMIT 1), 0)`;

/** The SMS leg's own sender, of a row of spec; null or '' = the message's. */
export const SMS_SENDER = `CASE WHEN instr(body, '${SMS_MARK}') > 0 THEN body ->> '$.options.smsFailover.sender' END`;

/** Columns of `message m`. */
export const MESSAGE_OWN_COLUMNS = `m.no AS m_no, m.key AS m_key, m.spec AS m_spec, m."to" AS m_to, m.state AS m_state,
  m.status AS m_status, m.error AS m_error, m.sent_at AS m_sent, m.done_at AS m_done, m.leg AS m_leg, ${CLAIMED} AS m_claimed`;
/** Columns for `toMessage`, with MESSAGE_JOINS behind `message m`. */
export const MESSAGE_COLUMNS = `${MESSAGE_OWN_COLUMNS}, s.bulk AS s_bulk, s.accepted_at AS s_accepted, b.id AS b_id`;
export const MESSAGE_JOINS = 'JOIN spec s ON s.no = m.spec LEFT JOIN bulk b ON b.no = s.bulk';

/** The contract's message from such a row. */
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
    claimed: row.m_claimed === 1,
    leg: row.m_leg as Leg,
  };
}

export type EventColumns = MessageColumns & {
  event: number;
  at: number;
  e_status: number;
  e_error: number;
  e_leg: number;
};
export const EVENT_COLUMNS = `${MESSAGE_COLUMNS}, e.no AS event, e.at AS at, e.status AS e_status, e.error AS e_error,
  e.leg AS e_leg`;

/** A row of EVENT_COLUMNS in the contract's words; its doneAt is the event's instant. */
export function toEvent(row: EventColumns): EventRow {
  const { event, at, e_status: status, e_error: error, e_leg } = row;
  return { ...toMessage(row), event, at, status, error, doneAt: at, leg: e_leg === 1 ? 1 : 0 };
}

export type Reads = ReturnType<typeof createReads>;

/** Reads that writer and reader share, on either connection. */
export function createReads(db: DatabaseSync) {
  const q = {
    spec: prepare<{ no: number; account: number; sender: string; body: string; accepted_at: number; media: 0 | 1 }>(
      db,
      `SELECT no, account, sender, body, accepted_at, EXISTS (SELECT 1 FROM media WHERE spec = s.no) AS media
       FROM spec s WHERE no = ?`,
    ),
    media: prepare<{ segment: number; hash: string; content_type: string | null; name: string | null }>(
      db,
      'SELECT segment, hash, content_type, name FROM media WHERE spec = ? AND hash IS NOT NULL ORDER BY segment',
    ),
  };
  return {
    specs(nos: number[]): SpecRow[] {
      const rows: SpecRow[] = [];
      for (const no of nos) {
        const row = q.spec.get(no);
        if (!row) continue;
        rows.push({
          no: row.no,
          account: row.account,
          sender: row.sender,
          body: row.body,
          acceptedAt: row.accepted_at,
          // Most have none: one query less.
          media: (row.media === 1 ? q.media.all(no) : []).map((item) => ({
            segment: item.segment,
            hash: item.hash,
            contentType: item.content_type ?? 'application/octet-stream',
            name: item.name ?? '',
          })),
        });
      }
      return rows;
    },
  };
}
