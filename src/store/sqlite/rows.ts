/** Columns that are selected in SQLite's own words, and the reads that several verbs share (specs with their media). */
import type { DatabaseSync } from 'node:sqlite';
import { SMS_MARK } from '../../domain/failover.ts';
import type { SpecRow } from '../../domain/rows.ts';
import { messageColumns, ownColumns } from '../message-rows.ts';
import { prepare } from './tx.ts';

export { EVENT_COLUMNS } from '../message-rows.ts';

/**
 * Whether a claim is open: spans of flights do not overlap, so only the nearest leader can cover a number. An SMS stands alone,
 * under -no.
 */
const CLAIMED = `coalesce((SELECT f.leader + f.members > m.no * (1 - 2 * m.leg) FROM flight f
  WHERE f.leader <= m.no * (1 - 2 * m.leg) ORDER BY f.leader DESC LIMIT 1), 0)`;

/** The SMS leg's own sender, of a row of spec; null or '' = the message's. */
export const SMS_SENDER = `CASE WHEN instr(body, '${SMS_MARK}') > 0 THEN body ->> '$.options.smsFailover.sender' END`;

export const MESSAGE_OWN_COLUMNS = ownColumns(CLAIMED);
export const MESSAGE_COLUMNS = messageColumns(CLAIMED);

export type Reads = ReturnType<typeof createReads>;

/** Reads that writer and reader share, on either connection. */
export function createReads(db: DatabaseSync) {
  const q = {
    // One statement for all of them: each costs more than the row that it finds.
    specs: prepare<{ no: number; account: number; sender: string; body: string; accepted_at: number; media: 0 | 1 }>(
      db,
      `SELECT no, account, sender, body, accepted_at, EXISTS (SELECT 1 FROM media WHERE spec = s.no) AS media
       FROM json_each(?) x CROSS JOIN spec s ON s.no = x.value`,
    ),
    media: prepare<{ segment: number; hash: string; content_type: string | null; name: string | null }>(
      db,
      'SELECT segment, hash, content_type, name FROM media WHERE spec = ? AND hash IS NOT NULL ORDER BY segment',
    ),
  };
  return {
    specs(nos: number[]): SpecRow[] {
      if (nos.length === 0) return [];
      return q.specs.all(JSON.stringify(nos)).map((row) => ({
        no: row.no,
        account: row.account,
        sender: row.sender,
        body: row.body,
        acceptedAt: row.accepted_at,
        // Most have none: one query less.
        media: (row.media === 1 ? q.media.all(row.no) : []).map((item) => ({
          segment: item.segment,
          hash: item.hash,
          contentType: item.content_type ?? 'application/octet-stream',
          name: item.name ?? '',
        })),
      }));
    },
  };
}
