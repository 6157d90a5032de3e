/**
 * What carriers have of cancelled bulks and may be asked to call back, and what they have early of bulks that were moved and may be
 * asked to keep for longer: once each, best effort. It decides no status: what was submitted runs on, and only a report or the end
 * of validity tells what became of it.
 */
import { legOf, spanOf } from '../../domain/failover.ts';
import { STATE } from '../../domain/status.ts';
import type { CallBack } from '../contract.ts';
import type { Events, Live } from './events.ts';
import { SMS_SENDER } from './rows.ts';
import { prepare, type Tx } from './tx.ts';

/** A lane that cannot call back leaves its rows, for this long. */
const KEPT_MS = 86_400_000;
const STEP = 200;

interface Asked {
  leader: number;
  generation: number;
  ref: string;
  earliest_at: number | null;
}

export type CallBacks = ReturnType<typeof createCallBacks>;

/** Adds, takes and notes on the transaction that it is given. */
export function createCallBacks(tx: Tx, events: Events) {
  const db = tx.db;
  const q = {
    add: prepare(
      db,
      `INSERT OR REPLACE INTO callback (leader, lane, at, generation, ref) SELECT leader, lane, ?, generation, ref FROM attempt
       WHERE leader = ? AND outcome = 'accepted' AND ref <> '' ORDER BY n DESC LIMIT 1`,
    ),
    // What is in flight yet stays for later.
    take: prepare<Asked>(
      db,
      `SELECT leader, generation, ref, earliest_at FROM callback c WHERE lane = ?
         AND (ref <> '' OR NOT EXISTS (SELECT 1 FROM flight f WHERE f.leader = c.leader)) ORDER BY leader LIMIT ? + 0`,
    ),
    // Of what was in flight.
    taken: prepare<{ generation: number; ref: string }>(
      db,
      `SELECT generation, ref FROM attempt WHERE leader = ? AND outcome = 'accepted' AND ref <> '' ORDER BY n DESC LIMIT 1`,
    ),
    gone: prepare(db, 'DELETE FROM callback WHERE leader = ?'),
    // The first of a group may be a repeated id, which has no row.
    sender: prepare<{ sender: string }>(
      db,
      `SELECT coalesce(CASE WHEN ? < 0 THEN nullif(${SMS_SENDER}, '') END, s.sender) AS sender
       FROM message m JOIN spec s ON s.no = m.spec WHERE m.no >= ? AND m.no < ? ORDER BY m.no LIMIT 1`,
    ),
    group: prepare<{ members: number }>(db, 'SELECT members FROM run WHERE no = ?'),
    old: prepare(
      db,
      `DELETE FROM callback WHERE leader IN (SELECT leader FROM callback WHERE at <= ? ORDER BY at LIMIT ${STEP})`,
    ),
    members: prepare<Live>(
      db,
      `SELECT no, account, spec, state, status, error, sent_at, leg FROM message
       WHERE no >= ? AND no < ? AND leg = ? AND state = ${STATE.submitted} ORDER BY no`,
    ),
  };
  return {
    add: (leader: number): number => q.add.run(tx.now, leader),
    take(lane: number, limit: number): CallBack[] {
      return q.take.all(lane, limit).flatMap((asked) => {
        const { leader, earliest_at: earliestAt } = asked;
        q.gone.run(leader);
        const found = asked.ref === '' ? q.taken.get(leader) : asked;
        if (!found) return [];
        const { generation, ref } = found;
        // A group's leader is the number of its run.
        const members = Math.max(1, q.group.get(leader)?.members ?? 1);
        const span = spanOf(leader, members);
        const sender = q.sender.get(leader, span.first, span.end)?.sender;
        if (sender === undefined) return [];
        const held = earliestAt === null ? {} : { earliestAt };
        return [{ leader, members, generation, carrierMessageId: ref, sender, ...held }];
      });
    },
    note(leader: number, members: number, words: string): void {
      const { first, end } = spanOf(leader, members);
      for (const message of q.members.all(first, end, legOf(leader))) events.note(message, words);
    },
    /** True = more is left. */
    sweep: (): boolean => q.old.run(tx.now - KEPT_MS) === STEP,
  };
}
