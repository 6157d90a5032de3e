/**
 * What one transaction decides about submissions that come back: attempts, flights that end, retries, ids taught by the
 * carrier, reports that wait for one. All of it is loaded first, decided in memory, and written by `flush` with one
 * statement per kind. settle.ts says what happens; this says what follows from it.
 *
 * Promises: rows are locked in settle.ts's order (retry before message) by `load`; nothing is written before `flush`.
 */
import { legOf, nextLane, readWays, spanOf } from '../../domain/failover.ts';
import type { CarrierReport, Outcome } from '../../domain/submission.ts';
import type { Reported } from '../contract.ts';
import {
  ATTEMPTS,
  applyReport,
  conclude,
  type FlightRow,
  type Hands,
  leaderOf,
  mayGoOn,
  validityEnded,
} from '../outcomes.ts';
import { type RetryRow, UNTRIED } from '../waiting.ts';
import type { Words } from './ends.ts';
import type { Changes, Live } from './events.ts';
import { type Lines, lineKey, type Wake } from './lines.ts';
import { RETRY, type RunRow } from './runs.ts';
import { byKey, list, sql, type Tx, texts, together } from './tx.ts';

/** A lane and what its carrier is like. */
export interface LaneRow {
  no: number;
  carrier: string;
  /** The carrier's lane of shard 0. Ids (`lane` of carrier_ref and parked) are kept under it. */
  home: number;
  on_unknown: 'hold' | 'retry' | 'fail';
  reports: boolean;
}

const SQL = {
  retries: sql(`SELECT ${RETRY} FROM retry t WHERE t.leader = ANY($1::bigint[]) ORDER BY t.leader FOR UPDATE OF t`),
  leftAfterAll: sql(`INSERT INTO deadline AS d (at, first, "end", run)
    SELECT $1::bigint + r.validity, x.leader, x.leader + x.members, r.no
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS x(leader, members, run)
    CROSS JOIN LATERAL (SELECT no, validity FROM run q WHERE q.no = x.run OFFSET 0) r
    ON CONFLICT (at, first) DO UPDATE SET "end" = greatest(d."end", excluded."end")`),
  retriesDelete: sql('DELETE FROM retry WHERE leader = ANY($1::bigint[])'),
  retriesPut: sql(`INSERT INTO retry (leader, line, run, members, sent, generation, attempts, held, valid_until, due_at)
    SELECT leader, line, run, members, sent, generation, attempts, held, valid_until, due_at
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::integer[], $6::integer[], $7::integer[],
      $8::integer[], $9::bigint[], $10::bigint[])
      AS x(leader, line, run, members, sent, generation, attempts, held, valid_until, due_at)
    ON CONFLICT (leader) DO UPDATE SET line = excluded.line, run = excluded.run, members = excluded.members,
      sent = excluded.sent, generation = excluded.generation, attempts = excluded.attempts, held = excluded.held,
      valid_until = excluded.valid_until, due_at = excluded.due_at, free_at = NULL`),
  attemptCounts: sql(`SELECT leader, count(*) AS n FROM attempt WHERE leader = ANY($1::bigint[]) GROUP BY leader`),
  // With the flights that end, $11.
  attempts: sql(`WITH landed AS (DELETE FROM flight WHERE leader = ANY($11::bigint[]))
    INSERT INTO attempt (leader, n, generation, lane, at, took, outcome, error, words, ref)
    SELECT leader, n, generation, lane, at, took, outcome, error, words, ref
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::bigint[], $5::bigint[], $6::integer[], $7::text[],
      $8::integer[], $9::text[], $10::text[]) AS x(leader, n, generation, lane, at, took, outcome, error, words, ref)
    ON CONFLICT (leader, n) DO UPDATE SET generation = excluded.generation, lane = excluded.lane, at = excluded.at,
      took = excluded.took, outcome = excluded.outcome, error = excluded.error, words = excluded.words, ref = excluded.ref`),
  // Of which line a flight comes, and where else its run's messages may go. OFFSET 0: see settle.ts, refs.
  choices:
    sql(`SELECT x.leader, r.ways, l.account, l.bulk, b.paused_at IS NOT NULL OR b.canceled_at IS NOT NULL AS paused
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(leader, run, line)
    CROSS JOIN LATERAL (SELECT ways FROM run q WHERE q.no = x.run OFFSET 0) r
    CROSS JOIN LATERAL (SELECT account, bulk FROM line q WHERE q.no = x.line OFFSET 0) l
    LEFT JOIN LATERAL (SELECT paused_at, canceled_at FROM bulk q WHERE q.no = l.bulk OFFSET 0) b ON true
    WHERE r.ways IS NOT NULL`),
  parkedDelete: sql('DELETE FROM parked WHERE no = ANY($1::bigint[])'),
};

/** A carrier id as a key: `home` is the lane that it is kept under. */
export const refKey = (home: number, ref: string): string => `${home} ${ref}`;

/** Everything one transaction decides about submissions, until it is written. */
export class Desk {
  readonly tx: Tx;
  readonly lines: Lines;
  readonly changes: Changes;
  readonly lanes: Map<number, LaneRow>;
  readonly retries = new Map<number, RetryRow>();
  readonly refs = new Map<string, { leader: number; members: number }>();
  /** Reports under ids that no settle has taught yet; `no` null = of this group, not written yet. */
  readonly parked = new Map<string, { no: number | null; lane: number; ref: string; report: CarrierReport }[]>();
  readonly attemptCounts = new Map<number, number>();
  private readonly retriesTouched = new Set<number>();
  /** The next choice of flights, by leader. */
  private readonly choices = new Map<number, { lane: number; line: number }>();
  /** Put back as if nothing of them had left, and yet their carrier has them: their clock runs, at the latest from now. */
  private readonly leftAfterAll: RetryRow[] = [];
  private readonly flightsGone: number[] = [];
  private readonly parkedGone: number[] = [];
  private readonly wakes: Wake[] = [];
  private readonly attempts: {
    leader: number;
    n: number;
    generation: number;
    lane: number;
    at: number;
    took: number;
    outcome: string;
    error: number;
    words: string;
    ref: string | null;
  }[] = [];

  constructor(tx: Tx, lines: Lines, changes: Changes, lanes: Map<number, LaneRow>) {
    this.tx = tx;
    this.lines = lines;
    this.changes = changes;
    this.lanes = lanes;
  }

  /** Locks retries, then messages, of submissions, asked in one piece, so once; counts the attempts of `tried`. */
  async load(spans: { leader: number; members: number }[], tried: number[]): Promise<void> {
    const { tx } = this;
    const leaders = [...new Set(spans.map((span) => span.leader))];
    if (leaders.length === 0) return;
    const nos: number[] = [];
    const first: number[] = [];
    for (const span of spans) {
      const { first: from, end } = spanOf(span.leader, span.members);
      for (let no = from; no < end; no++) {
        nos.push(no);
        if (legOf(span.leader) === 0) first.push(no);
      }
    }
    const [retries, counts] = await together([
      tx.query<RetryRow>(SQL.retries, [list(leaders)]),
      tried.length === 0 ? [] : tx.query<{ leader: number; n: number }>(SQL.attemptCounts, [list(tried)]),
      this.changes.load(nos, true),
    ]);
    for (const row of retries) this.retries.set(row.leader, row);
    for (const row of counts) this.attemptCounts.set(row.leader, row.n);
    await this.changes.loadWaiting(first);
  }

  endFlight(flight: FlightRow): void {
    this.flightsGone.push(flight.leader);
  }

  addAttempt(
    flight: FlightRow,
    row: Omit<(typeof this.attempts)[number], 'leader' | 'n' | 'generation' | 'lane'>,
  ): void {
    const n = Math.min((this.attemptCounts.get(flight.leader) ?? 0) + 1, ATTEMPTS);
    this.attemptCounts.set(flight.leader, n);
    const { leader, generation, lane } = flight;
    this.attempts.push({ leader, n, generation, lane, ...row });
  }

  dropRetry(leader: number): void {
    if (this.retries.delete(leader)) this.retriesTouched.add(leader);
  }

  /** Looks where else these flights may go. */
  async loadChoices(flights: readonly FlightRow[]): Promise<void> {
    if (flights.length === 0) return;
    type Row = { leader: number; ways: string; account: number; bulk: number; paused: boolean };
    const rows = await this.tx.query<Row>(SQL.choices, [
      list(flights.map((flight) => flight.leader)),
      list(flights.map((flight) => flight.run)),
      list(flights.map((flight) => flight.line)),
    ]);
    const laneOf = new Map(flights.map(({ leader, lane }) => [leader, lane]));
    const keys = rows.flatMap(({ leader, ways, ...key }) => {
      const lane = nextLane(readWays(ways), legOf(leader), laneOf.get(leader) as number);
      return lane === null ? [] : [{ leader, key: { ...key, lane } }];
    });
    if (keys.length === 0) return;
    const found = await this.lines.find(
      this.tx,
      keys.map(({ key }) => key),
    );
    for (const { leader, key } of keys) {
      const line = found.get(lineKey(key));
      if (line !== undefined) this.choices.set(leader, { lane: key.lane, line });
    }
  }

  /** Lets a submission wait for the next carrier, where there is one and none before may have it. */
  goesOn(flight: FlightRow, members: readonly Live[], attempts: number): boolean {
    return mayGoOn(flight.leader, members) && this.goOn(flight, attempts);
  }

  private goOn(flight: FlightRow, attempts: number): boolean {
    const choice = this.choices.get(flight.leader);
    if (!choice) return false;
    // Another carrier gets another submission.
    this.again({ ...flight, ...choice, generation: flight.generation + 1 }, this.tx.now, attempts, 0);
    return true;
  }

  /** A submission that goes back to waiting. */
  again(flight: FlightRow, due: number, attempts: number, held: number): void {
    const { leader, line, run, members, sent, generation, valid_until } = flight;
    this.retries.set(leader, {
      leader,
      line,
      run,
      members,
      sent,
      generation,
      attempts,
      held,
      valid_until,
      due_at: due,
    });
    this.retriesTouched.add(leader);
    this.wakes.push({ lane: flight.lane, line, due });
  }

  private readonly hands: Hands<Live> = {
    change: (member, event, words) => this.changes.change(member, event, words),
    reportLate: (member, report, words) => this.changes.reportLate(member, report, words),
    note: (member, words) => this.changes.note(member, words),
    learn: (home, ref, { leader, members }) => this.learn(home, ref, leader, members),
    applyParked: (home, ref) => this.applyParked(home, ref),
    goOn: (flight) => this.goOn(flight, flight.attempts),
    again: (flight, due, attempts, held) => this.again(flight, due, attempts, held),
    drop: (leader) => {
      const retry = this.retries.get(leader);
      if (retry?.valid_until === UNTRIED) this.leftAfterAll.push(retry);
      this.dropRetry(leader);
    },
  };

  conclude(flight: FlightRow, outcome: Outcome, words: string): void {
    const lane = this.lanes.get(flight.lane);
    if (!lane) throw new Error(`lane ${flight.lane} is gone`);
    const { home, on_unknown: onUnknown, reports } = lane;
    const members = this.changes.span(flight.leader, flight.members);
    const terms = { now: this.tx.now, home, policy: { onUnknown, reports } };
    conclude(this.hands, flight, members, outcome, words, terms);
  }

  /** An answer without an id teaches nothing: all such answers would share it. */
  learn(home: number, ref: string, leader: number, members: number): void {
    if (ref !== '') this.refs.set(refKey(home, ref), { leader, members });
  }

  park(lane: number, ref: string, report: CarrierReport, no: number | null): void {
    const key = refKey(lane, ref);
    const waiting = this.parked.get(key) ?? [];
    waiting.push({ no, lane, ref, report });
    this.parked.set(key, waiting);
  }

  applyParked(lane: number, ref: string): void {
    const key = refKey(lane, ref);
    const rows = this.parked.get(key);
    if (!rows || ref === '') return;
    this.parked.delete(key);
    for (const { no, report } of rows) {
      if (no !== null) this.parkedGone.push(no);
      this.applyReport(lane, ref, report);
    }
  }

  /** The messages it is about; null = the id is not known (yet). */
  applyReport(home: number, ref: string, report: CarrierReport): Reported['messages'] | null {
    const found = ref === '' ? undefined : this.refs.get(refKey(home, ref));
    return found ? applyReport(this.hands, found, this.changes.span(found.leader, found.members), report) : null;
  }

  expire(message: Live, run: RunRow | null, words: Words): void {
    const leader = leaderOf(message, run);
    // All members end with their submission, so its retry has nobody left.
    this.dropRetry(leader);
    this.changes.change(message, validityEnded(message), words(message, leader, run));
  }

  async flush(): Promise<void> {
    const { tx } = this;
    const attempts = [...byKey(this.attempts, (row) => `${row.leader} ${row.n}`).values()];
    if (attempts.length > 0 || this.flightsGone.length > 0) {
      tx.later(SQL.attempts, [
        list(attempts.map((row) => row.leader)),
        list(attempts.map((row) => row.n)),
        list(attempts.map((row) => row.generation)),
        list(attempts.map((row) => row.lane)),
        list(attempts.map((row) => Math.round(row.at))),
        list(attempts.map((row) => Math.round(row.took))),
        texts(attempts.map((row) => row.outcome)),
        list(attempts.map((row) => row.error)),
        texts(attempts.map((row) => row.words.slice(0, 500))),
        texts(attempts.map((row) => row.ref)),
        list(this.flightsGone),
      ]);
    }
    if (this.leftAfterAll.length > 0) {
      tx.later(SQL.leftAfterAll, [
        tx.now,
        list(this.leftAfterAll.map((row) => row.leader)),
        list(this.leftAfterAll.map((row) => row.members)),
        list(this.leftAfterAll.map((row) => row.run)),
      ]);
    }
    const touched = [...this.retriesTouched];
    const gone = touched.filter((leader) => !this.retries.has(leader));
    if (gone.length > 0) tx.later(SQL.retriesDelete, [list(gone)]);
    const put = touched.flatMap((leader) => this.retries.get(leader) ?? []);
    if (put.length > 0) {
      tx.later(SQL.retriesPut, [
        list(put.map((row) => row.leader)),
        list(put.map((row) => row.line)),
        list(put.map((row) => row.run)),
        list(put.map((row) => row.members)),
        list(put.map((row) => row.sent)),
        list(put.map((row) => row.generation)),
        list(put.map((row) => row.attempts)),
        list(put.map((row) => row.held)),
        list(put.map((row) => row.valid_until)),
        list(put.map((row) => Math.ceil(row.due_at))),
      ]);
    }
    if (this.parkedGone.length > 0) tx.later(SQL.parkedDelete, [list(this.parkedGone)]);
    await this.lines.wake(
      tx,
      this.wakes.map((wake) => ({ ...wake, due: Math.ceil(wake.due) })),
    );
    await this.changes.flush(new Set(this.flightsGone));
  }
}
