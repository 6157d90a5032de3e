/**
 * Who waits where: lanes, turns (an account's place on a lane) and lines (a bulk's place, or an account's express line).
 *
 * The rule that keeps `due_at` true with many writers: whoever makes work inserts a `wake` row in the same transaction;
 * whoever sets `due_at` of a line holds that line's lock and looks at what is under it in a statement begun after the
 * lock was had (so it sees all that was committed before); whoever deletes a wake row holds its line's lock too.
 *
 * Where scans begin: what comes and goes leaves dead index entries at the head of each queue, and while somebody holds an old
 * snapshot (a backup) nobody can clear them. So a scan begins at a lower bound. Lines and turns keep theirs (`low_at`), and it
 * is exact: moved up under the lock that guards `due_at`, moved down by the wakes that are taken. Wakes themselves have
 * none that is exact (a number is taken before its commit): theirs is remembered here, a second late, and all of them are
 * looked at again from time to time, so that one committed late is found.
 */
import type { Clock } from '../../env.ts';
import { TURN_LOCK } from './schema.ts';
import { type Ask, byKey, list, sql, type Tx } from './tx.ts';

/** Wakes taken by one claim. */
const WAKES = 1000;
/** How long ago the wakes up to a number must have been taken before scans begin behind it. */
const LATE_MS = 1_000;
/** All wakes of a lane are looked at this often at least while it is fast, and never more rarely than the second. */
const FULL_MS = 1_000;
const FULL_MAX_MS = 10_000;
/** Otherwise that look takes about one part in so many of the time. */
const FULL_SHARE = 100;

const SQL = {
  // Its home before it; in one order everywhere.
  laneAdd: sql(`INSERT INTO lane (carrier, shard, on_unknown, reports) SELECT $1, shard, $3, $4
    FROM unnest(ARRAY[0, $2::integer]) AS x(shard) ORDER BY shard ON CONFLICT (carrier, shard) DO NOTHING`),
  lanePolicy: sql(`UPDATE lane SET on_unknown = $2, reports = $3
    WHERE carrier = $1 AND (on_unknown, reports) IS DISTINCT FROM ($2, $3)`),
  lane: sql('SELECT no FROM lane WHERE carrier = $1 AND shard = $2'),
  // OFFSET 0: see settle.ts, refs.
  find: sql(`SELECT l.no, l.lane, l.account, l.bulk FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(lane, account, bulk)
    CROSS JOIN LATERAL (SELECT no, lane, account, bulk FROM line r
      WHERE r.lane = x.lane AND r.account = x.account AND r.bulk = x.bulk OFFSET 0) l`),
  // In one order everywhere, so that two nodes cannot wait for each other.
  add: sql(`INSERT INTO line (lane, account, bulk, paused, due_at, seq)
    SELECT lane, account, bulk, paused, NULL, 0 FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[])
      AS x(lane, account, bulk, paused) ORDER BY lane, account, bulk ON CONFLICT DO NOTHING`),
  turnAdd: sql(`INSERT INTO turn (lane, account, due_at, seq) SELECT DISTINCT lane, account, NULL::bigint, 0
    FROM unnest($1::bigint[], $2::bigint[]) AS x(lane, account) ORDER BY lane, account ON CONFLICT DO NOTHING`),
  wake: sql(`INSERT INTO wake (lane, line, due_at) SELECT lane, line, due_at
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(lane, line, due_at)`),
  lock: sql('SELECT no, lane, account FROM line WHERE no = ANY($1::bigint[]) ORDER BY no FOR NO KEY UPDATE'),
  // What is still due goes to the end of the ring: due_at = now, and the seq settles ties.
  // OFFSET 0: looked up once, not once for each column.
  rest: sql(`UPDATE line l SET seq = x.seq, (due_at, low_at) = (
      SELECT CASE WHEN l.paused OR d.due IS NULL THEN NULL ELSE greatest(d.due, $3::bigint) END, least(d.due, $3::bigint)
      FROM (SELECT least(
        (SELECT min(r.due_at) FROM run r WHERE r.line = l.no AND r.due_at >= least(l.low_at, $4::bigint)),
        (SELECT min(t.due_at) FROM retry t WHERE t.line = l.no AND t.due_at >= least(l.low_at, $4::bigint))) AS due OFFSET 0) d)
    FROM unnest($1::bigint[], $2::bigint[]) AS x(no, seq) WHERE l.no = x.no AND l.no = ANY($1::bigint[])`),
  // One at a time moves the turns of a lane: locks of single rows, taken as a claim finds them, would cross another's.
  turnsLock: sql(`SELECT pg_advisory_xact_lock(${TURN_LOCK}, $1::integer)`),
  turnRest: sql(`UPDATE turn t SET seq = x.seq, (due_at, low_at) = (
      SELECT CASE WHEN d.due IS NULL THEN NULL ELSE greatest(d.due, $4::bigint) END, least(d.due, $4::bigint)
      FROM (SELECT min(l.due_at) AS due FROM line l
        WHERE l.lane = $1 AND l.account = t.account AND l.due_at >= least(t.low_at, $5::bigint) OFFSET 0) d)
    FROM unnest($2::bigint[], $3::bigint[]) AS x(account, seq)
    WHERE t.lane = $1 AND t.account = x.account AND t.account = ANY($2::bigint[])`),
  // The turns if nobody has them; then wakes of the lane and their lines, locked first, so the update sees the due_at that the
  // last claim left. Line by line: as a join, it reads all lines there are.
  waking: sql(`SELECT o.ours, w.no, w.line, w.due_at, w.locked
    FROM (SELECT pg_try_advisory_xact_lock(${TURN_LOCK}, $3::integer) AS ours OFFSET 0) o
    LEFT JOIN LATERAL (SELECT a.no, a.line, a.due_at, l.no AS locked
      FROM (SELECT no, line, due_at FROM wake WHERE o.ours AND lane = $1 AND no > $2 ORDER BY no LIMIT ${WAKES}) a
      LEFT JOIN LATERAL (SELECT r.no FROM line r WHERE r.no = a.line FOR NO KEY UPDATE SKIP LOCKED) l ON true
    ) w ON true ORDER BY w.no`),
  fold: sql(`WITH taken AS (DELETE FROM wake WHERE no = ANY($1::bigint[]) RETURNING line, due_at),
      first AS (SELECT line, min(due_at) AS due_at FROM taken GROUP BY line)
    UPDATE line l SET low_at = least(l.low_at, f.due_at),
      due_at = CASE WHEN l.paused OR l.due_at <= f.due_at THEN l.due_at ELSE f.due_at END,
      seq = CASE WHEN l.paused OR l.due_at <= f.due_at THEN l.seq ELSE $3::bigint END
    FROM first f WHERE l.no = f.line AND l.no = ANY($2::bigint[])
      AND (l.low_at > f.due_at OR NOT (l.paused OR (l.due_at IS NOT NULL AND l.due_at <= f.due_at))) RETURNING l.account`),
  peek: sql(`SELECT greatest(h.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
      (SELECT w.no FROM wake w WHERE w.lane = $1 AND w.no > $2 ORDER BY w.no LIMIT 1) AS woken,
      (SELECT min(t.due_at) FROM turn t WHERE t.lane = $1 AND t.due_at IS NOT NULL) AS due FROM high_water h`),
};

export interface LineKey {
  lane: number;
  account: number;
  /** 0 = the account's express line. */
  bulk: number;
  paused: boolean;
}

export const lineKey = (one: { lane: number; account: number; bulk: number }): string =>
  `${one.lane}/${one.account}/${one.bulk}`;

/** Something on a line may leave at `due`. */
export interface Wake {
  lane: number;
  line: number;
  due: number;
}

export type Lines = ReturnType<typeof createLines>;

/** Where the scans of a lane's wakes begin. */
interface Head {
  /** Up to here all were taken, LATE_MS ago or more. */
  floor: number;
  /** Up to `no` all were taken at `at` (monotonic ms). */
  taken: { at: number; no: number } | null;
  /** The last look at all of them began then, and the next is due so many ms later. */
  lookedAt: number;
  pauseMs: number;
}

/**
 * The verbs on lines, turns and wakes. Remembers the numbers of express lines, which never change, and where the scans of
 * each lane's wakes begin.
 */
export function createLines(clock: Clock) {
  const heads = new Map<number, Head>();
  function headOf(lane: number): Head {
    let head = heads.get(lane);
    if (!head) {
      head = { floor: 0, taken: null, lookedAt: Number.NEGATIVE_INFINITY, pauseMs: FULL_MS };
      heads.set(lane, head);
    }
    return head;
  }

  /** A scan of a lane's wakes from where it should begin. `first` says the lowest number that was found. */
  async function scan<Row>(lane: number, look: (floor: number) => Promise<Row[]>, first: (row: Row) => number | null) {
    const head = headOf(lane);
    const at = clock.monotonic();
    const full = at - head.lookedAt >= head.pauseMs;
    const rows = await look(full ? 0 : head.floor);
    if (full) {
      head.lookedAt = at;
      head.pauseMs = Math.min(FULL_MAX_MS, Math.max(FULL_MS, FULL_SHARE * (clock.monotonic() - at)));
      const lowest = rows[0] ? first(rows[0]) : null;
      // Committed late: the next scans must see it until it is taken.
      if (lowest !== null && lowest <= head.floor) {
        head.floor = lowest - 1;
        head.taken = null;
      }
    }
    return { head, at, rows };
  }

  // Express lines never change and are never deleted; bounded, filled only after a commit.
  const known = new Map<string, number>();

  const lines = {
    async lane(tx: Tx, carrier: string, shard: number, onUnknown: string, reports: boolean): Promise<number> {
      await tx.query(SQL.laneAdd, [carrier, shard, onUnknown, reports]);
      await tx.query(SQL.lanePolicy, [carrier, onUnknown, reports]);
      const [row] = await tx.query<{ no: number }>(SQL.lane, [carrier, shard]);
      return (row as { no: number }).no;
    },

    /** The numbers of lines, made on first use. The bulks' rows are locked (KEY SHARE) by the caller. */
    async find(tx: Tx, wanted: LineKey[]): Promise<Map<string, number>> {
      const found = new Map<string, number>();
      const missing = new Map<string, LineKey>();
      for (const one of wanted) {
        const key = lineKey(one);
        const cached = one.bulk === 0 ? known.get(key) : undefined;
        if (cached !== undefined) found.set(key, cached);
        else missing.set(key, one);
      }
      if (missing.size === 0) return found;
      const keys = [...missing.values()];
      const columns = [keys.map((k) => k.lane), keys.map((k) => k.account), keys.map((k) => k.bulk)].map(list);
      const look = async (): Promise<void> => {
        for (const row of await tx.query<{ no: number; lane: number; account: number; bulk: number }>(
          SQL.find,
          columns,
        )) {
          const key = lineKey(row);
          found.set(key, row.no);
          if (row.bulk !== 0) continue;
          tx.afterCommit(() => {
            if (known.size > 10_000) known.clear();
            known.set(key, row.no);
          });
        }
      };
      await look();
      const absent = keys.filter((key) => !found.has(lineKey(key)));
      if (absent.length > 0) {
        const lanes = list(absent.map((k) => k.lane));
        const accounts = list(absent.map((k) => k.account));
        await tx.query(SQL.add, [lanes, accounts, list(absent.map((k) => k.bulk)), list(absent.map((k) => k.paused))]);
        await tx.query(SQL.turnAdd, [lanes, accounts]);
        await look();
      }
      return found;
    },

    /** One wake row per line, for the earliest instant. */
    async wake(tx: Tx, wakes: Wake[]): Promise<void> {
      if (wakes.length === 0) return;
      const first = byKey(
        [...wakes].sort((a, b) => b.due - a.due),
        (wake) => wake.line,
      );
      const rows = [...first.values()];
      await tx.query(SQL.wake, [
        list(rows.map((row) => row.lane)),
        list(rows.map((row) => row.line)),
        list(rows.map((row) => row.due)),
      ]);
      // A later instant is told too: the lane sleeps until the earliest it knew.
      tx.hint('lane');
    },

    /** Locks lines; the rows that exist. */
    lock: (tx: Tx, nos: number[]) => tx.query<{ no: number; lane: number; account: number }>(SQL.lock, [list(nos)]),

    /**
     * The next due instant of locked lines, from what is really under them. `since` = nothing under them was made due before
     * it by this transaction without a wake (0 = not known: all is looked at).
     */
    async rest(tx: Tx, nos: number[], since = 0): Promise<void> {
      if (nos.length === 0) return;
      await tx.query(SQL.rest, [list(nos), list(nos.map(() => tx.seq())), tx.now, since]);
    },

    /** Likewise for accounts' turns on a lane. Lanes in ascending order. */
    async restTurns(tx: Tx, lane: number, accounts: number[]): Promise<void> {
      if (accounts.length === 0) return;
      await tx.query(SQL.turnsLock, [lane]);
      await lines.restOwnTurns(tx, lane, accounts, 0);
    },

    /** Likewise by who had the turns from `fold` before it touched a line; it made none due before `since`. */
    async restOwnTurns(tx: Tx, lane: number, accounts: number[], since: number): Promise<void> {
      if (accounts.length === 0) return;
      const unique = [...new Set(accounts)];
      await tx.query(SQL.turnRest, [lane, list(unique), list(unique.map(() => tx.seq())), tx.now, since]);
    },

    /**
     * Takes the turns of a lane, then its wake rows whose lines nobody else holds now. False = another transaction has the
     * turns; it is not waited for.
     */
    async fold(tx: Tx, lane: number): Promise<boolean> {
      type Row = { no: number; line: number; due_at: number; locked: number | null };
      type Found = { ours: boolean } & (Row | { no: null });
      const scanned = await scan(
        lane,
        (floor) => tx.query<Found>(SQL.waking, [lane, floor, lane]),
        (row) => row.no,
      );
      if (!scanned.rows[0]?.ours) return false;
      const { head, at } = scanned;
      const rows = scanned.rows.filter((row): row is Row & { ours: boolean } => row.no !== null);
      const taken = rows.filter((row) => row.locked !== null);
      if (taken.length === 0) return true;
      const woken = await tx.query<{ account: number }>(SQL.fold, [
        list(taken.map((row) => row.no)),
        list([...new Set(taken.map((row) => row.line))]),
        tx.seq(),
      ]);
      await lines.restOwnTurns(
        tx,
        lane,
        woken.map((row) => row.account),
        taken.reduce((least, row) => Math.min(least, row.due_at), tx.now),
      );
      const left = rows.find((row) => row.locked === null);
      const no = left ? left.no - 1 : (rows.at(-1) as Row).no;
      tx.afterCommit(() => {
        if (head.taken && at - head.taken.at < LATE_MS) return;
        // Not below what was taken before: a late one that was found at the head says nothing of those behind it.
        if (head.taken) head.floor = Math.max(head.floor, head.taken.no);
        head.taken = { at, no };
      });
      return true;
    },

    /** The clock, whether wakes wait, and when the earliest turn is due: one read, cheap enough for an idle lane's polls. */
    async peek(ask: Ask, lane: number): Promise<{ now: number; woken: boolean; due: number | null }> {
      const { rows } = await scan(
        lane,
        (floor) => ask.query<{ now: number; woken: number | null; due: number | null }>(SQL.peek, [lane, floor]),
        (found) => found.woken,
      );
      const [row] = rows;
      if (!row) throw new Error('the store has no clock row');
      return { ...row, woken: row.woken !== null };
    },
  };
  return lines;
}
