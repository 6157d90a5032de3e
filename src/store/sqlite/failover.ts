/**
 * The SMS leg: opened in the transaction that ends the MMS leg, withdrawn where the MMS arrives after all before anything of the
 * SMS left. The leg is a run of its own, of one message, on its bulk's line (or the account's express line) of the SMS lane;
 * so window, turns, pauses, steering and validity hold for it as for any other (`domain/failover.ts` tells of its number).
 */
import {
  FAILOVER_WORDS,
  NO_FAILOVER_WORDS,
  opensFailover,
  readWays,
  smsLeader,
  smsWayOf,
} from '../../domain/failover.ts';
import { NO_CREDIT_WORDS } from '../../domain/prices.ts';
import { nextOpening } from '../../domain/schedule.ts';
import { type MessageStatus, STATE, type StatusEvent } from '../../domain/status.ts';
import { opensOf } from '../clock.ts';
import type { FailoverSide, Live } from './events.ts';
import type { Lines } from './lines.ts';
import type { RunRow, Runs } from './runs.ts';
import { prepare, type Tx } from './tx.ts';

/** What `events.change` asks when a message ends, on the transaction that it is given. */
export function createFailover(tx: Tx, lines: Lines, runs: Runs): FailoverSide {
  const db = tx.db;
  const q = {
    ways: prepare<{ no: number; end: number; ways: string | null }>(
      db,
      'SELECT no, "end" AS "end", ways FROM run WHERE no <= ? AND no > 0 ORDER BY no DESC LIMIT 1',
    ),
    add: prepare(
      db,
      `INSERT INTO run (no, line, spec, next, "end", members, send_at, days, from_min, to_min, validity, opens_at, look_at,
         limited, moves, media, due_at, seq, ways, intermediate)
       VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, (SELECT intermediate FROM spec WHERE no = ?))`,
    ),
    flight: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM flight WHERE leader = ?'),
    over: prepare<{ end: number; until: number }>(
      db,
      'SELECT leader + members AS "end", lease_until AS until FROM flight WHERE leader <= ? ORDER BY leader DESC LIMIT 1',
    ),
    // What a carrier put off or refused it has not taken.
    left: prepare<{ one: number }>(
      db,
      "SELECT 1 AS one FROM attempt WHERE leader = ? AND outcome IN ('accepted', 'unknown') LIMIT 1",
    ),
    runDelete: prepare(db, 'DELETE FROM run WHERE no = ?'),
    retryDelete: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
  };

  function open(message: Live, event: StatusEvent, next: MessageStatus, pays: () => boolean): string | null | false {
    // What arrived is followed by nothing, as nearly always.
    if (next.state === STATE.delivered) return false;
    const found = q.ways.get(message.no);
    // Refused at the door: in no run.
    if (!found || found.end <= message.no || found.ways === null) return false;
    const ways = readWays(found.ways);
    const sms = smsWayOf(ways, message.no - found.no);
    if (!sms || !opensFailover(sms, event, next)) return false;
    const run = runs.get(found.no) as RunRow;
    const from = lines.get(run.line);
    const bulk = runs.bulkOf(from);
    if (bulk?.canceledAt != null) return false;
    if (sms.lane === null) return NO_FAILOVER_WORDS;
    if (!pays()) return NO_CREDIT_WORDS;
    const line = lines.line(sms.lane, message.account, from.bulk, bulk !== null && bulk.pausedAt !== null);
    // Its MMS may have left, and ended, before its time.
    const opensAt = nextOpening(run.window, Math.max(tx.now, bulk?.sendAt ?? 0, opensOf(run, bulk)));
    // An attempt of the MMS may be open yet, where an earlier one's report came first: one submission of a message at a time (G7).
    const flight = q.over.get(message.no);
    const due = Math.max(opensAt, flight && flight.end > message.no ? flight.until : 0);
    const no = smsLeader(message.no);
    q.add.run(
      no,
      line,
      message.spec,
      no,
      no + 1,
      bulk?.sendAt ?? null,
      run.window?.days ?? null,
      run.window?.from ?? null,
      run.window?.to ?? null,
      sms.validityMs,
      opensAt,
      opensAt + sms.validityMs,
      bulk !== null && bulk.intervalUs > 0 ? 1 : 0,
      bulk?.moves ?? 0,
      due,
      tx.seq(),
      JSON.stringify({ sms }),
      message.spec,
    );
    lines.wake(line, sms.lane, message.account, due);
    return null;
  }

  return {
    open(message, event, next, pays) {
      const words = open(message, event, next, pays);
      if (words === false) return null;
      return words === null ? { opened: true, words: FAILOVER_WORDS } : { opened: false, words };
    },
    withdraw(message) {
      const no = smsLeader(message.no);
      if (message.state !== STATE.pending || q.flight.get(no) || q.left.get(no)) return false;
      q.runDelete.run(no);
      q.retryDelete.run(no);
      return true;
    },
  };
}
