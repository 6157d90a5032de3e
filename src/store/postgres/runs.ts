/**
 * Runs and the clocks over them: the one place that turns rows of run and bulk into what `admit` and the sweep decide by, and
 * that moves a run's cursor and a bulk's bucket. A RunBook holds what one transaction decides and writes it with one
 * statement per kind. Claims and the sweep share it, so they cannot disagree on who is too late.
 */
import { legOf, spanOf } from '../../domain/failover.ts';
import { type Admission, nextOpening } from '../../domain/schedule.ts';
import { STATE } from '../../domain/status.ts';
import { type BulkClock, byTurns, heldEarly, startOf } from '../clock.ts';
import { type BulkRow, type RunRow, UNTRIED, type Untried } from '../waiting.ts';
import { list, sql, type Tx, texts } from './tx.ts';

export {
  type BulkColumns,
  type BulkRow,
  type RunColumns,
  type RunRow,
  toBulk,
  toRun,
} from '../waiting.ts';

/** Columns of `run r` and `bulk b`. */
export const RUN =
  'r.no, r.line, r.spec, r.next, r."end" AS "end", r.members, r.days, r.from_min, r.to_min, r.validity, r.opens_at, r.limited, r.moves, r.media, r.early_ms, r.intermediate';
export const BULK = `b.account, b.no, b.id, b.interval_us, b.next_us, b.limited_at, b.paused_at, b.pauses, b.canceled_at,
  b.accepted_at, b.send_at, b.moves, b.speed`;
/** Columns of `retry t`. */
export const RETRY =
  't.leader, t.line, t.run, t.members, t.sent, t.generation, t.attempts, t.held, t.valid_until, t.due_at';

const SQL = {
  move: sql(`UPDATE run r SET next = x.next, due_at = x.due_at, seq = x.seq
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS x(no, next, due_at, seq) WHERE r.no = x.no AND r.no = ANY($1::bigint[])`),
  look: sql(`UPDATE run r SET look_at = x.at FROM unnest($1::bigint[], $2::bigint[]) AS x(no, at)
    WHERE r.no = x.no AND r.no = ANY($1::bigint[])`),
  adopt: sql(`UPDATE run r SET opens_at = x.opens_at, send_at = x.send_at, moves = x.moves
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[]) AS x(no, opens_at, send_at, moves)
    WHERE r.no = x.no AND r.no = ANY($1::bigint[])`),
  deadline:
    sql(`INSERT INTO deadline AS d (at, first, "end", run, error, words) SELECT at, first, "end", run, error, words
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::text[])
      AS x(at, first, "end", run, error, words)
    ON CONFLICT (at, first) DO UPDATE SET "end" = greatest(d."end", excluded."end")`),
  heldDeadlines: sql(`DELETE FROM deadline d USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(no, "end", at)
    WHERE d.at = x.at AND d.first >= x.no AND d.first < x."end" AND d.error IS NULL AND d.at = ANY($3::bigint[])`),
  heldRetries: sql(`UPDATE retry t SET valid_until = x.ends
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS x(no, "end", at, ends)
    WHERE t.leader >= x.no AND t.leader < x."end" AND t.valid_until = x.at`),
  heldFlights: sql(`UPDATE flight t SET valid_until = x.ends
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS x(no, "end", at, ends)
    WHERE t.leader >= x.no AND t.leader < x."end" AND t.valid_until = x.at`),
  // Under the lane's number below 0: a node of an older version would ask to call them back.
  heldTaken: sql(`INSERT INTO callback (leader, lane, at, generation, ref, earliest_at)
    SELECT a.leader, -a.lane, $4, a.generation, a.ref, x.send_at
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $5::bigint[]) AS x(no, next, send_at, span)
    CROSS JOIN LATERAL (SELECT DISTINCT ON (q.leader) q.leader, q.lane, q.generation, q.ref FROM attempt q
      WHERE q.leader >= x.no AND q.leader < x.next AND q.outcome = 'accepted' AND q.ref <> '' ORDER BY q.leader, q.n DESC) a
    CROSS JOIN LATERAL (SELECT q.no FROM message q WHERE q.no >= a.leader AND q.no < a.leader + x.span
      AND q.state = ${STATE.submitted} LIMIT 1) m
    ON CONFLICT (leader) DO UPDATE SET lane = excluded.lane, at = excluded.at, generation = excluded.generation,
      ref = excluded.ref, earliest_at = excluded.earliest_at`),
  heldFlying: sql(`INSERT INTO callback (leader, lane, at, generation, ref, earliest_at)
    SELECT f.leader, -f.lane, $4, f.generation, '', x.send_at
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(no, next, send_at)
    CROSS JOIN LATERAL (SELECT leader, lane, generation FROM flight q WHERE q.leader >= x.no AND q.leader < x.next OFFSET 0) f
    ON CONFLICT (leader) DO UPDATE SET lane = excluded.lane, at = excluded.at, generation = excluded.generation,
      ref = excluded.ref, earliest_at = excluded.earliest_at`),
  untried: sql(`SELECT t.run, t.leader, t.members FROM retry t WHERE t.run = ANY($1::bigint[])
    AND t.valid_until = ${UNTRIED} ORDER BY t.leader`),
  waiting: sql(`SELECT count(*)::integer AS count, max(x.no) AS last FROM (SELECT m.no FROM message m
    WHERE m.no >= $1 AND m.no < $2 AND m.leg = $3 AND m.state IN (${STATE.pending}, ${STATE.uncertain})
    ORDER BY m.no LIMIT $4::integer) x`),
  ends: sql(`UPDATE retry t SET valid_until = $2 WHERE t.leader = ANY($1::bigint[])`),
  charge: sql(`UPDATE bulk b SET next_us = x.next_us FROM unnest($1::bigint[], $2::float8[]) AS x(no, next_us)
    WHERE b.no = x.no AND b.no = ANY($1::bigint[])`),
  clock: sql(`UPDATE bulk b SET interval_us = x.interval_us, next_us = x.next_us, limited_at = x.limited_at,
      paused_at = x.paused_at, pauses = x.pauses
    FROM unnest($1::bigint[], $2::float8[], $3::float8[], $4::bigint[], $5::bigint[], $6::text[])
      AS x(no, interval_us, next_us, limited_at, paused_at, pauses)
    WHERE b.no = x.no AND b.no = ANY($1::bigint[])`),
};

interface Deadline {
  at: number;
  first: number;
  end: number;
  run: number;
  error: number | null;
  words: string | null;
}

/** What was put back before anything of it left, and has no clock of its own, by run. Runs are locked. */
export async function untriedOf(tx: Tx, runs: number[]): Promise<Map<number, Untried[]>> {
  const found = new Map<number, Untried[]>();
  for (const { run, ...one } of await tx.query<Untried & { run: number }>(SQL.untried, [list(runs)])) {
    const others = found.get(run);
    if (others) others.push(one);
    else found.set(run, [one]);
  }
  return found;
}

/** `turns` messages have lost their turns; what `admission` counted beyond them nobody had. */
interface Lost {
  admission: Extract<Admission, { kind: 'expired' }>;
  turns: number;
}

/**
 * Of the numbers [first, end) of a run the first `most` with a message that waits: how many, and the number behind them. A repeated
 * id has no row, who wants none is final: neither had a turn to lose.
 */
export async function waitingAt(
  tx: Tx,
  first: number,
  end: number,
  most: number,
): Promise<{ count: number; next: number }> {
  const span = spanOf(first, end - first);
  const [row] = await tx.query<{ count: number; last: number | null }>(SQL.waiting, [
    span.first,
    span.end,
    legOf(first),
    most,
  ]);
  const { count = 0, last = null } = row ?? {};
  return { count, next: count < most || first < 0 || last === null ? end : last + 1 };
}

/** What one transaction decides about runs, deadlines and bulks, until `flush`. Their rows are locked by the caller. */
export class RunBook {
  private readonly tx: Tx;
  private readonly moves = new Map<number, { next: number; due: number | null; seq: number }>();
  private readonly looks = new Map<number, number | null>();
  /** `ends`: when what has left ends, those before `next`; null = each has its own end. */
  private readonly adopted = new Map<
    number,
    { run: RunRow; sendAt: number; ends: number | null; next: number; look: number }
  >();
  private readonly ended: number[] = [];
  /** What has left of runs before their time: it ends later, and its carrier is asked to keep it. At most a request's messages each. */
  private readonly held: {
    first: number;
    next: number;
    end: number;
    /** Numbers of one submission of it. */
    span: number;
    ended: number;
    ends: number;
    sendAt: number;
  }[] = [];
  private readonly charges = new Map<number, number>();
  private readonly clocks = new Map<number, BulkRow>();
  private readonly deadlines = new Map<string, Deadline>();

  constructor(tx: Tx) {
    this.tx = tx;
  }

  /** Move the cursor; `due` null = nothing of it may be claimed. */
  move(run: RunRow, next: number, due: number | null): void {
    run.next = next;
    this.moves.set(run.no, { next, due: next < run.end && !run.closed ? due : null, seq: this.tx.seq() });
  }

  /**
   * A run whose bulk's sendAt was moved takes the new one, before anything of it is claimed or ends. What has left keeps its
   * clock, unless it left early and its carrier keeps the time; what waits, or was put back before it left, gets a new one. The run
   * is locked.
   */
  adopt(run: RunRow, bulk: BulkRow | null): void {
    if (bulk === null || bulk.sendAt === null || run.moves >= bulk.moves) return;
    const before = { ...bulk, moves: run.moves };
    const start = startOf(run, before);
    const held = heldEarly(run, this.tx.now);
    const own = start !== null && !byTurns(run, start, before) ? start + run.validityMs : null;
    const ends = held ? bulk.sendAt + run.validityMs : own;
    if (held) {
      const { no: first, next, end } = run;
      const span = run.members > 0 ? end - first : 1;
      const ended = run.opensAt + run.validityMs;
      this.held.push({ first, next, end, span, ended, ends: ends as number, sendAt: bulk.sendAt });
    }
    run.opensAt = nextOpening(run.window, bulk.sendAt);
    run.moves = bulk.moves;
    const look = run.opensAt + run.validityMs;
    this.adopted.set(run.no, { run, sendAt: bulk.sendAt, ends, next: run.next, look });
    this.look(run.no, run.next < run.end ? look : null);
  }

  private hold(): void {
    const { held } = this;
    if (held.length === 0) return;
    const of = (pick: (one: (typeof held)[number]) => number): string => list(held.map(pick));
    const spans = [of((one) => one.first), of((one) => one.end), of((one) => one.ended)];
    this.tx.later(SQL.heldDeadlines, spans);
    for (const step of [SQL.heldRetries, SQL.heldFlights]) this.tx.later(step, [...spans, of((one) => one.ends)]);
    const left = [of((one) => one.first), of((one) => one.next), of((one) => one.sendAt), this.tx.now];
    this.tx.later(SQL.heldTaken, [...left, of((one) => one.span)]);
    this.tx.later(SQL.heldFlying, left);
  }

  private async adoptDeadlines(): Promise<void> {
    const untried = await untriedOf(this.tx, [...this.adopted.keys()]);
    for (const [no, { ends, next, look }] of this.adopted) {
      const again = untried.get(no) ?? [];
      if (again.length > 0 && this.looks.get(no) === null) this.look(no, look);
      if (ends === null) continue;
      let first = no;
      for (const { leader, members } of again) {
        this.deadline(ends, first, leader, no);
        first = leader + members;
      }
      this.deadline(ends, first, next, no);
    }
  }

  look(no: number, at: number | null): void {
    this.looks.set(no, at);
  }

  /** Numbers [first, end) end at `at` unless they are final by then. */
  deadline(at: number, first: number, end: number, run: number, failed?: { error: number; words: string }): void {
    if (first >= end) return;
    const key = `${at} ${first}`;
    const same = this.deadlines.get(key);
    if (same) same.end = Math.max(same.end, end);
    else this.deadlines.set(key, { at, first, end, run, error: failed?.error ?? null, words: failed?.words ?? null });
  }

  /** Take turns of a bulk with a limit. */
  charge(bulk: BulkRow | null, nextUs: number): void {
    if (!bulk || bulk.intervalUs === 0 || nextUs === bulk.nextUs) return;
    bulk.nextUs = nextUs;
    this.charges.set(bulk.no, nextUs);
  }

  setClock(bulk: BulkRow, to: BulkClock): void {
    Object.assign(bulk, to);
    this.clocks.set(bulk.no, bulk);
  }

  /** The turns of one that was put back before it left have passed unused: it ends with the next steps of the sweep. */
  passedAgain(run: RunRow, bulk: BulkRow | null, { leader, members }: Untried, lost: Lost): void {
    this.pass(bulk, lost);
    this.deadline(this.tx.now, leader, leader + members, run.no);
    this.ended.push(leader);
  }

  /** Turns of the run that passed unused: their messages, those before `next`, end with the next steps of the sweep. */
  passed(run: RunRow, bulk: BulkRow | null, next: number, lost: Lost): void {
    this.pass(bulk, lost);
    this.deadline(this.tx.now, run.next, next, run.no);
    this.move(run, next, this.tx.now);
  }

  private pass(bulk: BulkRow | null, { admission, turns }: Lost): void {
    if (bulk && turns > 0) this.charge(bulk, admission.bucketNext + (turns - admission.count) * bulk.intervalUs);
  }

  async flush(): Promise<void> {
    const { tx } = this;
    if (this.moves.size > 0) {
      const rows = [...this.moves];
      tx.later(SQL.move, [
        list(rows.map(([no]) => no)),
        list(rows.map(([, row]) => row.next)),
        list(rows.map(([, row]) => row.due)),
        list(rows.map(([, row]) => row.seq)),
      ]);
    }
    if (this.adopted.size > 0) {
      const rows = [...this.adopted.values()];
      tx.later(SQL.adopt, [
        list(rows.map(({ run }) => run.no)),
        list(rows.map(({ run }) => run.opensAt)),
        list(rows.map(({ sendAt }) => sendAt)),
        list(rows.map(({ run }) => run.moves)),
      ]);
      this.hold();
      await this.adoptDeadlines();
    }
    if (this.ended.length > 0) tx.later(SQL.ends, [list(this.ended), tx.now]);
    if (this.looks.size > 0) tx.later(SQL.look, [list([...this.looks.keys()]), list([...this.looks.values()])]);
    if (this.deadlines.size > 0) {
      const rows = [...this.deadlines.values()];
      tx.later(SQL.deadline, [
        list(rows.map((row) => row.at)),
        list(rows.map((row) => row.first)),
        list(rows.map((row) => row.end)),
        list(rows.map((row) => row.run)),
        list(rows.map((row) => row.error)),
        texts(rows.map((row) => row.words)),
      ]);
    }
    if (this.charges.size > 0) {
      tx.later(SQL.charge, [list([...this.charges.keys()]), list([...this.charges.values()])]);
    }
    if (this.clocks.size > 0) {
      const rows = [...this.clocks.values()];
      tx.later(SQL.clock, [
        list(rows.map((row) => row.no)),
        list(rows.map((row) => row.intervalUs)),
        list(rows.map((row) => row.nextUs)),
        list(rows.map((row) => row.limitedAt)),
        list(rows.map((row) => row.pausedAt)),
        texts(rows.map((row) => JSON.stringify(row.pauses))),
      ]);
    }
  }
}
