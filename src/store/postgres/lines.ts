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
 * looked at again from time to time, so that one committed late is found. Turns are never made due before the clock of who does it,
 * so their scan begins a little behind the earliest there was.
 *
 * Rows of rings are not written at each claim, since each of their versions lies in the way of every later look at them while
 * such a snapshot is held: their order in a turn is moved on here, not there, and a line or turn that has nothing left, but was
 * written a moment ago, rests: it stays due in its row and is passed over here until it is woken, or written when its time
 * has come. Another process that finds it due looks, finds nothing, and writes it.
 *
 * A claim that gets all it asked for is answered before what it visited is put to rest: that is owed, and done by the next
 * claim that gets less, or by a transaction of its own a moment later. What is owed and lost is put right by whoever looks next.
 */
import type { Clock } from '../../env.ts';
import { AHEAD_MS, type RetryRow } from '../waiting.ts';
import { type Loaded, load, REST_MS, type Rested, rest, TURN_LOCK } from './inside.ts';
import type { BulkColumns, RunColumns } from './runs.ts';
import { type Ask, byKey, list, sql, type Tx, texts } from './tx.ts';

/** How long ago the wakes up to a number must have been taken before scans begin behind it. */
const LATE_MS = 1_000;
/** All wakes of a lane are looked at this often at least while it is fast, and never more rarely than the second. */
const FULL_MS = 1_000;
const FULL_MAX_MS = 10_000;
/** A look that does not begin at the bound of what is LATE_MS old begins behind all that was taken, for so long. */
const HOT_MS = 200;
/** A turn is never made due before the clock of who does it, and nobody waits longer than this between that clock and the lock. */
const TURN_LATE_MS = 5_000;
/** Writes of one row of a ring that may follow each other at once; more wait for their time, REST_MS each. */
const BURST = 16;
/** Rows of rings remembered. */
const REMEMBERED = 20_000;
/** The store's clock is guessed to be so much later than it was heard of, ms. */
const EARLY_MS = 5;
/** Lines that may be owed their rest; a claim that visits more puts them to rest itself. */
const OWED_MAX = 160;
/**
 * What is owed its rest is passed over for so long at most: what it waits for is not known yet, and turns of a speed limit are handed
 * out AHEAD_MS ahead, so that none passes unused meanwhile.
 */
const OWED_REST_MS = AHEAD_MS / 2;
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
    SELECT lane, account, bulk, paused, due_at, seq
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bigint[], $6::bigint[])
      AS x(lane, account, bulk, paused, due_at, seq) ORDER BY lane, account, bulk ON CONFLICT DO NOTHING`),
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
  load: sql(`SELECT ${load.name}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) AS found`),
  served: sql(
    `SELECT ${rest.name}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17) AS found`,
  ),
  // Of several lanes at once; what rests of each as a text. OFFSET 0: read once a lane, not once a turn that rests.
  peek: sql(`SELECT x.lane, greatest(h.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
      (SELECT w.no FROM wake w WHERE w.lane = x.lane AND w.no > x.floor ORDER BY w.no LIMIT 1) AS woken,
      (SELECT min(t.due_at) FROM turn t WHERE t.lane = x.lane AND t.due_at >= x.turn_floor
        AND t.seq IS DISTINCT FROM x.seqs[array_position(x.accounts, t.account)]) AS due
      FROM high_water h CROSS JOIN (SELECT y.lane, y.floor, y.turn_floor, y.accounts::bigint[] AS accounts, y.seqs::bigint[] AS seqs
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
          AS y(lane, floor, turn_floor, accounts, seqs) OFFSET 0) x`),
};

export interface LineKey {
  lane: number;
  account: number;
  /** 0 = the account's express line. */
  bulk: number;
  paused: boolean;
  /** When a new one is due first; its wake tells the account's turn. Absent = its wake tells the line, too. */
  due?: number;
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

/** A line or turn that is due in its row and has nothing before `until`. */
interface Resting {
  seq: number;
  until: number;
  /** Of a line. */
  account: number;
}

/** What is remembered of a lane: where scans begin, and what rests. */
interface Head {
  /** Up to here all wakes were taken, LATE_MS ago or more. */
  floor: number;
  /** Up to `no` all were taken at `at` (monotonic ms). */
  taken: { at: number; no: number } | null;
  /** Up to here all that were seen were taken; the last look that began at the floor was then. */
  hot: number;
  flooredAt: number;
  /** No turn is due before, but for what a full look finds. */
  turnFloor: number;
  /** The last look at all of them began then, and the next is due so many ms later. */
  lookedAt: number;
  pauseMs: number;
  /** Claims so far: moves the rings on. */
  tick: number;
  lines: Map<number, Resting>;
  accounts: Map<number, Resting>;
  /** The store's clock at a monotonic instant. */
  clock: { now: number; at: number } | null;
  /** Lines that were served and not put to rest yet. */
  owed: Map<number, { account: number; full: boolean }>;
}

/** One look of a claim or a poll: from where, and how much of it is left to chance. */
interface Look {
  head: Head;
  at: number;
  full: boolean;
  floor: number;
  turnFloor: number;
}

/** How often rows may be written: BURST at once, then one each REST_MS. */
class Pace {
  private readonly next = new Map<number, number>();

  /** Ms until `row` may be written. */
  wait(row: number, now: number): number {
    return Math.max(0, (this.next.get(row) ?? 0) - BURST * REST_MS - now);
  }

  wrote(row: number, now: number): void {
    if (this.next.size >= REMEMBERED) {
      for (const [one, next] of this.next) if (next <= now) this.next.delete(one);
      if (this.next.size >= REMEMBERED) this.next.clear();
    }
    this.next.set(row, Math.max(this.next.get(row) ?? 0, now) + REST_MS);
  }
}

/** What an idle lane's poll tells: `now` of the database's clock. */
export interface Peeked {
  now: number;
  woken: boolean;
  due: number | null;
}

/** What a claim has visited, to be put to rest. */
export interface Visited {
  /** `spent`: nothing more of it is due, as far as was seen. */
  lines: { no: number; account: number; full: boolean; seq: number; spent: boolean }[];
  accounts: number[];
  /** The lane has more accounts than take turns by themselves. */
  crowded: boolean;
}

/**
 * The verbs on lines, turns and wakes. Remembers the numbers of express lines, which never change, where the scans of each lane
 * begin, and what rests.
 */
export function createLines(clock: Clock) {
  const heads = new Map<number, Head>();
  const linePace = new Pace();
  const turnPace = new Pace();
  function headOf(lane: number): Head {
    let head = heads.get(lane);
    if (!head) {
      const never = Number.NEGATIVE_INFINITY;
      const bounds = {
        floor: 0,
        taken: null,
        hot: 0,
        flooredAt: never,
        turnFloor: 0,
        lookedAt: never,
        pauseMs: FULL_MS,
      };
      head = { ...bounds, tick: 0, lines: new Map(), accounts: new Map(), clock: null, owed: new Map() };
      heads.set(lane, head);
    }
    return head;
  }

  /** Where to begin. `idle` = nothing else is looked at, so it must not miss what comes a little late. */
  function lookOf(lane: number, idle: boolean): Look {
    const head = headOf(lane);
    const at = clock.monotonic();
    const full = at - head.lookedAt >= head.pauseMs;
    const floored = idle || at - head.flooredAt >= HOT_MS;
    if (full || floored) head.flooredAt = at;
    const floor = full ? 0 : floored ? head.floor : head.hot;
    return { head, at, full, floor, turnFloor: full ? 0 : head.turnFloor };
  }

  /** After a look: `lowest` = the first wake it found; `left` = it was not taken by it, so the next claim must see it. */
  function looked({ head, at, full }: Look, lowest: number | null, left: boolean): void {
    if (left && lowest !== null) head.hot = Math.min(head.hot, lowest - 1);
    if (!full) return;
    head.lookedAt = at;
    head.pauseMs = Math.min(FULL_MAX_MS, Math.max(FULL_MS, FULL_SHARE * (clock.monotonic() - at)));
    // Committed late: the next scans must see it until it is taken.
    if (lowest !== null && lowest <= head.floor) {
      head.floor = lowest - 1;
      head.taken = null;
    }
  }

  /** What rests at `now`, as arrays. */
  function resting(rows: Map<number, Resting>, now: number): [nos: string, seqs: string] {
    for (const [no, one] of rows) if (one.until <= now) rows.delete(no);
    return [list([...rows.keys()]), list([...rows.values()].map((one) => one.seq))];
  }

  /** `due`, or when the first that rests is to be looked at. */
  function sooner(head: Head, due: number | null): number | null {
    let first = due ?? Number.POSITIVE_INFINITY;
    for (const { until } of head.accounts.values()) first = Math.min(first, until);
    return first === Number.POSITIVE_INFINITY ? null : first;
  }

  // Express lines never change and are never deleted; bounded, filled only after a commit.
  const known = new Map<string, number>();

  const lines = {
    async lane(tx: Tx, carrier: string, shard: number, onUnknown: string, reports: boolean): Promise<number> {
      tx.later(SQL.laneAdd, [carrier, shard, onUnknown, reports]);
      tx.later(SQL.lanePolicy, [carrier, onUnknown, reports]);
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
        else {
          const due = Math.min(one.due ?? Number.POSITIVE_INFINITY, missing.get(key)?.due ?? Number.POSITIVE_INFINITY);
          missing.set(key, due === Number.POSITIVE_INFINITY ? one : { ...one, due });
        }
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
        tx.later(SQL.add, [
          lanes,
          accounts,
          list(absent.map((k) => k.bulk)),
          list(absent.map((k) => k.paused)),
          list(absent.map((k) => (k.paused ? null : (k.due ?? null)))),
          list(absent.map(() => tx.seq())),
        ]);
        tx.later(SQL.turnAdd, [lanes, accounts]);
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
      tx.later(SQL.wake, [
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
      tx.later(SQL.rest, [list(nos), list(nos.map(() => tx.seq())), tx.now, since]);
    },

    /** Likewise for accounts' turns on a lane. Lanes in ascending order. */
    async restTurns(tx: Tx, lane: number, accounts: number[]): Promise<void> {
      if (accounts.length === 0) return;
      tx.later(SQL.turnsLock, [lane]);
      const unique = [...new Set(accounts)];
      tx.later(SQL.turnRest, [lane, list(unique), list(unique.map(() => tx.seq())), tx.now, 0]);
    },

    /**
     * Takes the turns of a lane (`take`) with its wakes whose lines nobody else holds now, and loads what is due, up to
     * `limit` submissions. Null = another transaction has the turns; it is not waited for.
     */
    async load(
      tx: Tx,
      lane: number,
      take: boolean,
      limit: number,
    ): Promise<Loaded<RunColumns, BulkColumns, RetryRow> | null> {
      const look = lookOf(lane, false);
      const { head, at } = look;
      // Asked behind the BEGIN: the server knows its clock, and what rests is looked at a little early rather than late.
      const now = tx.early ? null : tx.now;
      const about = now ?? (head.clock ? head.clock.now + at - head.clock.at + EARLY_MS : Number.NEGATIVE_INFINITY);
      const places = [...resting(head.lines, about), ...resting(head.accounts, about)];
      type Row = { found: Loaded<RunColumns, BulkColumns, RetryRow> };
      const values = [lane, take, look.floor, look.turnFloor, now, tx.seq(), limit, head.tick % 5040, ...places];
      const [row] = await tx.query<Row>(SQL.load, values);
      const { found } = row as Row;
      head.clock = { now: tx.now, at };
      if (!found.ours) return null;
      head.tick += 1;
      head.turnFloor = Math.min(found.low ?? tx.now, tx.now) - TURN_LATE_MS;
      // Woken, perhaps by a line that did not rest: what it has left after this is not passed over.
      for (const account of found.accounts ?? []) head.accounts.delete(account);
      if (!take) return found;
      looked(look, found.first, false);
      for (const no of found.woken ?? []) head.accounts.delete(head.lines.get(no)?.account ?? 0);
      for (const no of found.woken ?? []) head.lines.delete(no);
      if (found.last === null) return found;
      const no = found.held === null ? found.last : found.held - 1;
      const hot = look.floor === head.hot || found.held !== null ? no : Math.max(head.hot, no);
      tx.afterCommit(() => {
        head.hot = hot;
        if (found.woken === null || (head.taken && at - head.taken.at < LATE_MS)) return;
        // Not below what was taken before: a late one that was found at the head says nothing of those behind it.
        if (head.taken) head.floor = Math.max(head.floor, head.taken.no);
        head.taken = { at, no };
      });
      return found;
    },

    /**
     * Puts what a claim served to rest, by who has the turns from `load`: what is really under the lines and turns. Says when the
     * lane may have work again; `woken` = wakes are there. With it what is owed. Null `visited` = only that, by who has no turns yet.
     */
    async served(tx: Tx, lane: number, visited: Visited | null): Promise<{ woken: boolean; due: number | null }> {
      const { now } = tx;
      const look = lookOf(lane, true);
      const { head } = look;
      const own = visited?.lines ?? [];
      for (const { no } of own) head.owed.delete(no);
      const owed = [...head.owed].map(([no, line]) => ({ no, ...line }));
      head.owed.clear();
      const rested = [...own, ...owed];
      const accounts = [...new Set([...(visited?.accounts ?? []), ...owed.map(({ account }) => account)])];
      // They rest until it is known whether they have something.
      for (const { no } of owed) head.lines.delete(no);
      const [restLines] = resting(head.lines, now);
      const [row] = await tx.query<{ found: Rested }>(SQL.served, [
        lane,
        now,
        look.floor,
        look.turnFloor,
        list(rested.map(({ no }) => no)),
        list(rested.map(({ no }) => linePace.wait(no, now) === 0)),
        list(rested.map(({ full }) => full)),
        list(rested.map(() => tx.seq())),
        list(accounts),
        list(accounts.map((account) => turnPace.wait(account, now) === 0)),
        visited?.crowded ?? false,
        list(accounts.map(() => tx.seq())),
        restLines,
        ...resting(head.accounts, now),
        visited === null,
        list(owed.map(({ no }) => no)),
      ]);
      const { found } = row as { found: Rested };
      if (!found.ours) return { woken: true, due: now };
      looked(look, found.woken, true);
      const late = found.woken;
      // Again behind what the load of this transaction sets: a wake that was committed late lies below what it took.
      if (late !== null) tx.afterCommit(() => looked({ ...look, full: false }, late, true));
      for (const no of found.wroteLines ?? []) linePace.wrote(no, now);
      for (const account of found.wroteAccounts ?? []) turnPace.wrote(account, now);
      const accountOf = new Map(rested.map((line) => [line.no, line.account]));
      // One that might be written and was not has what only a newer node may claim.
      const until = (due: number | null, wait: number): number =>
        Math.min(due ?? Number.POSITIVE_INFINITY, now + (wait > 0 ? wait : REST_MS));
      for (const [no, seq, due] of found.lines ?? []) {
        head.lines.set(no, { seq, account: accountOf.get(no) ?? 0, until: until(due, linePace.wait(no, now)) });
      }
      for (const [account, seq, due] of found.accounts ?? []) {
        const own = [...head.lines.values()].filter((line) => line.account === account).map((line) => line.until);
        head.accounts.set(account, { seq, account, until: Math.min(until(due, REST_MS), ...own) });
      }
      return { woken: found.woken !== null, due: sooner(head, found.due) };
    },

    /**
     * What a claim visited is put to rest later (`served`). False = it must be now: too much is owed, or what has more to give
     * must go to the end of a full ring.
     */
    owe(tx: Tx, lane: number, visited: Visited): boolean {
      const { owed, lines: resting } = headOf(lane);
      if (visited.crowded || visited.lines.some(({ full, spent }) => full && !spent)) return false;
      if (owed.size + visited.lines.length > OWED_MAX) return false;
      const until = tx.now + OWED_REST_MS;
      tx.afterCommit(() => {
        for (const { no, account, full, seq, spent } of visited.lines) {
          owed.set(no, { account, full });
          if (spent) resting.set(no, { seq, account, until });
        }
      });
      return true;
    },

    /** Lines of a lane are owed their rest. */
    owes: (lane: number): boolean => headOf(lane).owed.size > 0,

    /** The clock, whether wakes wait, and when the earliest turn is due, for each of some lanes: one read, cheap enough for idle lanes' polls. */
    async peek(ask: Ask, lanes: readonly number[]): Promise<Map<number, Peeked>> {
      const looks = lanes.map((lane) => lookOf(lane, true));
      type Row = { lane: number; now: number; woken: number | null; due: number | null };
      const rows = await ask.query<Row>(SQL.peek, [
        list(lanes),
        list(looks.map(({ floor }) => floor)),
        list(looks.map(({ turnFloor }) => turnFloor)),
        texts(looks.map(({ head }) => list([...head.accounts.keys()]))),
        texts(looks.map(({ head }) => list([...head.accounts.values()].map((one) => one.seq)))),
      ]);
      const found = byKey(rows, (row) => row.lane);
      return new Map(
        lanes.map((lane, at) => {
          const row = found.get(lane);
          const look = looks[at] as Look;
          if (!row) throw new Error('the store has no clock row');
          looked(look, row.woken, true);
          look.head.clock = { now: row.now, at: look.at };
          return [lane, { now: row.now, woken: row.woken !== null, due: sooner(look.head, row.due) }];
        }),
      );
    },
  };
  return lines;
}
