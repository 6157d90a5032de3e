/**
 * What carriers have of cancelled bulks, and may be asked to call back: once each, best effort. It decides no status: what was
 * submitted runs on, and only a report or the end of validity tells what became of it.
 */
import { legOf, spanOf } from '../../domain/failover.ts';
import { STATE } from '../../domain/status.ts';
import type { CallBack } from '../contract.ts';
import type { Events, Live } from './events.ts';
import { prepare, type Tx } from './tx.ts';

/** A lane that cannot call back leaves its rows, for this long. */
const KEPT_MS = 86_400_000;
const STEP = 200;

export type CallBacks = ReturnType<typeof createCallBacks>;

/** Adds, takes and notes on the transaction that it is given. */
export function createCallBacks(tx: Tx, events: Events) {
  const db = tx.db;
  const q = {
    add: prepare(
      db,
      `INSERT OR IGNORE INTO callback (leader, lane, at, generation, ref) SELECT leader, lane, ?, generation, ref FROM attempt
       WHERE leader = ? AND outcome = 'accepted' AND ref <> '' ORDER BY n DESC LIMIT 1`,
    ),
    take: prepare<{ leader: number; generation: number; ref: string }>(
      db,
      'SELECT leader, generation, ref FROM callback WHERE lane = ? ORDER BY leader LIMIT ? + 0',
    ),
    gone: prepare(db, 'DELETE FROM callback WHERE leader = ?'),
    sender: prepare<{ sender: string }>(
      db,
      'SELECT s.sender FROM message m JOIN spec s ON s.no = m.spec WHERE m.no = ?',
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
      return q.take.all(lane, limit).flatMap(({ leader, generation, ref }) => {
        q.gone.run(leader);
        const sender = q.sender.get(spanOf(leader, 1).first)?.sender;
        // A group's leader is the number of its run.
        const members = Math.max(1, q.group.get(leader)?.members ?? 1);
        return sender === undefined ? [] : [{ leader, members, generation, carrierMessageId: ref, sender }];
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
