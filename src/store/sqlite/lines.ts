/**
 * Who waits where: lanes, turns (an account's place on a lane) and lines (a bulk's place, or an account's express line).
 * `wake` and `rest` keep due_at true on all three levels: a level is due when the earliest thing under it is.
 */
import { prepare, type Tx } from './tx.ts';

/** A bulk's place on a lane, or an account's express line (`bulk` null). */
export interface LineRow {
  no: number;
  lane: number;
  account: number;
  bulk: number | null;
  paused: number;
}

/** What an outcome means on a lane: its carrier's settings. */
interface LanePolicy {
  onUnknown: 'hold' | 'retry' | 'fail';
  reports: boolean;
}

/** Lines remembered by number or by name. */
const REMEMBERED = 10_000;

export type Lines = ReturnType<typeof createLines>;

/** Lanes, turns and lines on the transaction that they are given. */
export function createLines(tx: Tx) {
  const db = tx.db;
  const q = {
    laneFind: prepare<{ no: number }>(db, 'SELECT no FROM lane WHERE carrier = ? AND shard = ?'),
    laneAdd: prepare<{ no: number }>(
      db,
      'INSERT INTO lane (carrier, shard, on_unknown, reports) VALUES (?, ?, ?, ?) RETURNING no',
    ),
    lanePolicy: prepare(db, 'UPDATE lane SET on_unknown = ?, reports = ? WHERE carrier = ?'),
    policy: prepare<{ on_unknown: LanePolicy['onUnknown']; reports: number }>(
      db,
      'SELECT on_unknown, reports FROM lane WHERE no = ?',
    ),
    home: prepare<{ no: number }>(
      db,
      'SELECT h.no FROM lane l JOIN lane h ON h.carrier = l.carrier AND h.shard = 0 WHERE l.no = ?',
    ),
    express: prepare<{ no: number }>(db, 'SELECT no FROM line WHERE lane = ? AND account = ? AND bulk IS NULL'),
    ofBulkHere: prepare<{ no: number }>(db, 'SELECT no FROM line WHERE lane = ? AND account = ? AND bulk = ?'),
    add: prepare<{ no: number }>(
      db,
      'INSERT INTO line (lane, account, bulk, paused, due_at, seq) VALUES (?, ?, ?, ?, NULL, 0) RETURNING no',
    ),
    turnAdd: prepare(db, 'INSERT OR IGNORE INTO turn (lane, account, due_at, seq) VALUES (?, ?, NULL, 0)'),
    get: prepare<LineRow>(db, 'SELECT no, lane, account, bulk, paused FROM line WHERE no = ?'),
    ofBulk: prepare<LineRow>(db, 'SELECT no, lane, account, bulk, paused FROM line WHERE bulk = ?'),
    setPaused: prepare(db, 'UPDATE line SET paused = ? WHERE no = ?'),
    // Earlier only: under load the line is due already and nothing is written.
    wakeLine: prepare(
      db,
      'UPDATE line SET due_at = ?, seq = ? WHERE no = ? AND paused = 0 AND (due_at IS NULL OR due_at > ?)',
    ),
    wakeTurn: prepare(
      db,
      'UPDATE turn SET due_at = ?, seq = ? WHERE lane = ? AND account = ? AND (due_at IS NULL OR due_at > ?)',
    ),
    restLine: prepare(db, 'UPDATE line SET due_at = ?, seq = ? WHERE no = ?'),
    restTurn: prepare(db, 'UPDATE turn SET due_at = ?, seq = ? WHERE lane = ? AND account = ?'),
    runDue: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM run WHERE line = ? AND due_at IS NOT NULL',
    ),
    retryDue: prepare<{ due: number | null }>(db, 'SELECT min(due_at) AS due FROM retry WHERE line = ?'),
    lineDue: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM line WHERE lane = ? AND account = ? AND due_at IS NOT NULL',
    ),
    turnDue: prepare<{ due: number | null }>(
      db,
      'SELECT min(due_at) AS due FROM turn WHERE lane = ? AND due_at IS NOT NULL',
    ),
  };
  // Line numbers never change and are never deleted while used; a rollback empties this with `forget`.
  const known = new Map<string, number>();
  // Likewise lanes: a few for each carrier.
  const homes = new Map<number, number>();
  const homesOf = new Map<string, number>();
  const policies = new Map<number, LanePolicy>();
  // What due_at of a line was set to last: under load most wake-ups change nothing, and need not ask.
  const dues = new Map<number, number>();

  function setDue(line: number, due: number | null): void {
    if (dues.size >= REMEMBERED) dues.clear();
    if (due === null) dues.delete(line);
    else dues.set(line, due);
  }
  function put(line: number, due: number | null): void {
    q.restLine.run(due, tx.seq(), line);
    setDue(line, due);
  }

  const lines = {
    lane(carrier: string, shard: number, onUnknown: string, reports: boolean): number {
      // The home of the others.
      if (shard > 0) lines.lane(carrier, 0, onUnknown, reports);
      const told = reports ? 1 : 0;
      policies.clear();
      const found = q.laneFind.get(carrier, shard);
      if (found) q.lanePolicy.run(onUnknown, told, carrier);
      return (found ?? (q.laneAdd.get(carrier, shard, onUnknown, told) as { no: number })).no;
    },
    /** The lane under which a carrier's message ids are kept; null = no such carrier. */
    homeOf(carrier: string): number | null {
      const cached = homesOf.get(carrier);
      if (cached !== undefined) return cached;
      const no = q.laneFind.get(carrier, 0)?.no;
      if (no === undefined) return null;
      homesOf.set(carrier, no);
      return no;
    },
    /** What is to be known of a lane's carrier. Throws where there is no such lane. */
    policy(lane: number): LanePolicy {
      const cached = policies.get(lane);
      if (cached) return cached;
      const row = q.policy.get(lane);
      if (!row) throw new Error(`lane ${lane} is gone`);
      const policy: LanePolicy = { onUnknown: row.on_unknown, reports: row.reports === 1 };
      policies.set(lane, policy);
      return policy;
    },
    /** Likewise, of the carrier that a lane leads to. */
    home(lane: number): number {
      const cached = homes.get(lane);
      if (cached !== undefined) return cached;
      const no = q.home.get(lane)?.no;
      if (no === undefined) throw new Error(`lane ${lane} is gone`);
      homes.set(lane, no);
      return no;
    },
    /** The line of a bulk, or the account's express line (`bulk` null), made on first use. */
    line(lane: number, account: number, bulk: number | null, paused: boolean): number {
      const name = `${lane}/${account}/${bulk ?? ''}`;
      const cached = known.get(name);
      if (cached !== undefined) return cached;
      const found = bulk === null ? q.express.get(lane, account) : q.ofBulkHere.get(lane, account, bulk);
      const no = (found ?? (q.add.get(lane, account, bulk, paused ? 1 : 0) as { no: number })).no;
      if (!found) {
        q.turnAdd.run(lane, account);
        // The number of one that is gone may be given again.
        dues.delete(no);
      }
      if (bulk === null) {
        if (known.size >= REMEMBERED) known.clear();
        known.set(name, no);
      }
      return no;
    },
    get(no: number): LineRow {
      const row = q.get.get(no);
      if (!row) throw new Error(`line ${no} is gone`);
      return row;
    },
    ofBulk: (bulk: number): LineRow[] => q.ofBulk.all(bulk),
    forget(): void {
      known.clear();
      homes.clear();
      homesOf.clear();
      policies.clear();
      dues.clear();
    },

    /** Something on this line may leave at `due`. */
    wake(line: number, lane: number, account: number, due: number): void {
      const set = dues.get(line);
      if (set !== undefined && set <= due) return;
      const seq = tx.seq();
      if (q.wakeLine.run(due, seq, line, due) === 0) return;
      setDue(line, due);
      // A later instant is told too: the lane sleeps until the earliest it knew.
      if (q.wakeTurn.run(due, seq, lane, account, due) > 0) tx.hint('lane');
    },
    /** The line was served, steered or emptied: its next due instant from what is really under it. */
    rest(line: LineRow): number | null {
      const due = line.paused === 1 ? null : lines.nextOf(line.no);
      // What is still due goes to the end of the ring: due_at = now, and the seq settles ties.
      put(line.no, due === null ? null : Math.max(due, tx.now));
      return due;
    },
    /** Nothing on this line may leave before `due`, whatever its runs say until the sweep has told them. */
    dueAt(line: LineRow, due: number): void {
      put(line.no, Math.max(due, tx.now));
      lines.restTurn(line.lane, line.account);
      tx.hint('lane');
    },
    nextOf(line: number): number | null {
      return earliest(q.runDue.get(line)?.due ?? null, q.retryDue.get(line)?.due ?? null);
    },
    /** Likewise for the account's turn. */
    restTurn(lane: number, account: number): void {
      const due = q.lineDue.get(lane, account)?.due ?? null;
      q.restTurn.run(due === null ? null : Math.max(due, tx.now), tx.seq(), lane, account);
    },
    nextDue: (lane: number): number | null => q.turnDue.get(lane)?.due ?? null,
    pause(line: LineRow, paused: boolean): void {
      q.setPaused.run(paused ? 1 : 0, line.no);
      const due = lines.rest({ ...line, paused: paused ? 1 : 0 });
      lines.restTurn(line.lane, line.account);
      if (due !== null) tx.hint('lane');
    },
  };
  return lines;
}

/** The earlier of two instants; null = never. */
export function earliest(a: number | null, b: number | null): number | null {
  return a === null ? b : b === null ? a : Math.min(a, b);
}
