/**
 * How table rows become the contract's rows, and the reads that several verbs share (specs with their media, events with
 * their messages).
 */
import { type Leg, SMS_MARK } from '../../domain/failover.ts';
import type { EventRow, MessageRow, SpecRow } from '../../domain/rows.ts';
import { type Ask, byKey, list, sql } from './tx.ts';

/** The SMS leg's own sender, of the row `alias` of spec; null = the message's. */
export function smsSender(alias: string): string {
  return `CASE WHEN strpos(${alias}.body, '${SMS_MARK}') > 0
    THEN nullif(${alias}.body::json #>> '{options,smsFailover,sender}', '') END`;
}

/** Most members of a group. */
const MEMBERS_MAX = 200;

/** What MESSAGE_COLUMNS select. */
export interface MessageColumns {
  m_no: number;
  m_key: string | null;
  m_spec: number;
  m_to: string;
  m_state: number;
  m_status: number;
  m_error: number;
  m_sent: number | null;
  m_done: number | null;
  m_claimed: boolean;
  m_leg: number;
  s_bulk: number;
  s_accepted: number;
  b_id: string | null;
}

/**
 * Columns for `toMessage`, with MESSAGE_JOINS behind `message m`. Flights never overlap: the nearest leader decides; an SMS's is -no. It is
 * at most the members of a group away, and who sees only an account's would go on looking.
 */
export const MESSAGE_COLUMNS = `m.no AS m_no, m.key AS m_key, m.spec AS m_spec, m."to" AS m_to, m.state AS m_state,
  m.status AS m_status, m.error AS m_error, m.sent_at AS m_sent, m.done_at AS m_done, s.bulk AS s_bulk,
  s.accepted_at AS s_accepted, b.id AS b_id, m.leg AS m_leg, coalesce((SELECT f.leader + f.members > m.no * (1 - 2 * m.leg)
    FROM flight f WHERE f.leader <= m.no * (1 - 2 * m.leg) AND f.leader > m.no * (1 - 2 * m.leg) - ${MEMBERS_MAX} ORDER BY f.leader DESC LIMIT 1), false) AS m_claimed`;
export const MESSAGE_JOINS = 'JOIN spec s ON s.no = m.spec LEFT JOIN bulk b ON b.no = s.bulk';

/** A row of MESSAGE_COLUMNS in the contract's words. */
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
    claimed: row.m_claimed,
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

const SQL = {
  // FILTER: as a condition it would let a plan made for an empty table walk the index of hashes for each spec.
  specs:
    sql(`SELECT s.no, s.account, s.sender, s.body, s.accepted_at, (SELECT json_agg(json_build_object('segment', m.segment,
      'hash', m.hash, 'contentType', coalesce(m.content_type, 'application/octet-stream'), 'name', coalesce(m.name, ''))
      ORDER BY m.segment) FILTER (WHERE m.hash IS NOT NULL) FROM media m WHERE m.spec = s.no) AS media
    FROM spec s WHERE s.no = ANY($1::bigint[])`),
};

/** Specs by number, in the order asked for; those that are gone are left out. */
export async function readSpecs(ask: Ask, nos: Iterable<number>): Promise<SpecRow[]> {
  const wanted = [...new Set(nos)];
  if (wanted.length === 0) return [];
  const rows = await ask.query<{
    no: number;
    account: number;
    sender: string;
    body: string;
    accepted_at: number;
    media: SpecRow['media'] | null;
  }>(SQL.specs, [list(wanted)]);
  const found = byKey(rows, (row) => row.no);
  return wanted.flatMap((no) => {
    const row = found.get(no);
    if (!row) return [];
    const { account, sender, body, accepted_at: acceptedAt, media } = row;
    return [{ no, account, sender, body, acceptedAt, media: media ?? [] }];
  });
}
