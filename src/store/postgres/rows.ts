/** Columns that are selected in PostgreSQL's own words, and the reads that several verbs share (specs with their media). */
import { SMS_MARK } from '../../domain/failover.ts';
import type { SpecRow } from '../../domain/rows.ts';
import { messageColumns } from '../message-rows.ts';
import { type Ask, byKey, list, sql } from './tx.ts';

export { EVENT_COLUMNS } from '../message-rows.ts';

/** The SMS leg's own sender, of the row `alias` of spec; null = the message's. */
export function smsSender(alias: string): string {
  return `CASE WHEN strpos(${alias}.body, '${SMS_MARK}') > 0
    THEN nullif(${alias}.body::json #>> '{options,smsFailover,sender}', '') END`;
}

/** Most members of a group. */
const MEMBERS_MAX = 200;

/**
 * Whether a claim is open. Flights never overlap: the nearest leader decides; an SMS's is -no. It is at most the members of a group away,
 * and who sees only an account's would go on looking.
 */
const CLAIMED = `coalesce((SELECT f.leader + f.members > m.no * (1 - 2 * m.leg) FROM flight f
  WHERE f.leader <= m.no * (1 - 2 * m.leg) AND f.leader > m.no * (1 - 2 * m.leg) - ${MEMBERS_MAX}
  ORDER BY f.leader DESC LIMIT 1), false)`;

export const MESSAGE_COLUMNS = messageColumns(CLAIMED);

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
