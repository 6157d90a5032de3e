/**
 * What one transaction decides about submissions that come back: attempts, flights that end, retries, ids taught by the
 * carrier, reports that wait for one. All of it is loaded first, decided in memory, and written by `flush` with one
 * statement per kind. settle.ts says what happens; this says what follows from it.
 *
 * Promises: rows are locked in settle.ts's order (retry before message) by `load`; nothing is written before `flush`.
 */
import { ELSEWHERE_WORDS, legOf, nextLane, readWays, smsLeader, spanOf } from '../../domain/failover.ts';
import { carrierRetryDelay, HOLD_MS, unknownRetryDelay } from '../../domain/retry.ts';
import { STATE } from '../../domain/status.ts';
import { type CarrierReport, type Outcome, refOf } from '../../domain/submission.ts';
import { REPORTED_MAX, type Reported } from '../contract.ts';
import { type RetryRow, UNTRIED } from '../waiting.ts';
import type { Words } from './ends.ts';
import type { Changes, Live } from './events.ts';
import { type Lines, lineKey, type Wake } from './lines.ts';
import { RETRY, type RunRow } from './runs.ts';
import { byKey, list, sql, type Tx, texts } from './tx.ts';

/** Attempts kept of one submission; the last place is then used again (a carrier may throttle for two days). */
const ATTEMPTS = 200;

/** A claim that is being submitted, with the line of its run. */
export interface FlightRow {
  leader: number;
  token: number;
  lane: number;
  /** Of its run, now: a bulk that was steered meanwhile may have got a line of its own. */
  line: number;
  run: number;
  members: number;
  /** Members it was sent with. */
  sent: number;
  generation: number;
  attempts: number;
  held: number;
  valid_until: number;
  lease_until: number;
  turn_from: number | null;
  turn_end: number | null;
}

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
  flightsDelete: sql('DELETE FROM flight WHERE leader = ANY($1::bigint[])'),
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
  attempts: sql(`INSERT INTO attempt (leader, n, generation, lane, at, took, outcome, error, words, ref)
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

/** May be submitted (again) on the leg of this submission. */
const waitsOn = (leader: number) => (message: Live) =>
  message.leg === legOf(leader) && (message.state === STATE.pending || message.state === STATE.uncertain);

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

  /** Locks retries, then messages, of submissions; counts their attempts. */
  async load(spans: { leader: number; members: number }[]): Promise<void> {
    const { tx } = this;
    const leaders = [...new Set(spans.map((span) => span.leader))];
    if (leaders.length === 0) return;
    for (const row of await tx.query<RetryRow>(SQL.retries, [list(leaders)])) this.retries.set(row.leader, row);
    for (const row of await tx.query<{ leader: number; n: number }>(SQL.attemptCounts, [list(leaders)])) {
      this.attemptCounts.set(row.leader, row.n);
    }
    const nos: number[] = [];
    const first: number[] = [];
    for (const span of spans) {
      const { first: from, end } = spanOf(span.leader, span.members);
      for (let no = from; no < end; no++) {
        nos.push(no);
        if (legOf(span.leader) === 0) first.push(no);
      }
    }
    await this.changes.load(nos);
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
    const choice = this.choices.get(flight.leader);
    const waiting = members.filter(waitsOn(flight.leader));
    // What may have reached a carrier stays there, which knows its transaction.
    if (!choice || waiting.length === 0 || waiting.some(({ state }) => state !== STATE.pending)) return false;
    // Another carrier gets another submission.
    this.again({ ...flight, ...choice, generation: flight.generation + 1 }, this.tx.now, attempts, 0);
    return true;
  }

  /** To the next carrier, where there is one; its status is that of a try that failed. */
  private moveOn(flight: FlightRow, members: readonly Live[], error: number, words: string): boolean {
    if (!this.goesOn(flight, members, flight.attempts)) return false;
    for (const member of members) {
      this.changes.change(member, { kind: 'deferred', error }, `${words}; ${ELSEWHERE_WORDS}`);
    }
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

  conclude(flight: FlightRow, outcome: Outcome, words: string): void {
    const { tx, changes } = this;
    const policy = this.lanes.get(flight.lane);
    if (!policy) throw new Error(`lane ${flight.lane} is gone`);
    // Those whose MMS ended by a report while this attempt of it was open are not its affair any more.
    const members = changes.span(flight.leader, flight.members).filter(({ leg }) => leg === legOf(flight.leader));
    switch (outcome.kind) {
      case 'accepted': {
        const ref = refOf(outcome.carrierMessageId);
        this.learn(policy.home, ref, flight.leader, flight.members);
        for (const member of members) {
          const refused = outcome.refused?.find((one) => one.recipient === member.to);
          if (refused) {
            changes.change(member, { kind: 'refused', error: refused.error.id }, refused.error.words ?? words);
          } else changes.change(member, { kind: 'accepted', reports: policy.reports }, words);
        }
        this.applyParked(policy.home, ref);
        return;
      }
      case 'deferred':
        if (outcome.elsewhere && this.moveOn(flight, members, outcome.error.id, words)) return;
        for (const member of members) changes.change(member, { kind: 'deferred', error: outcome.error.id }, words);
        if (!members.some(waitsOn(flight.leader))) return;
        this.again(
          flight,
          tx.now + carrierRetryDelay(flight.attempts, outcome.retryAfterMs),
          flight.attempts,
          flight.held,
        );
        return;
      case 'throttled':
        this.again(flight, tx.now + carrierRetryDelay(1, outcome.retryAfterMs), flight.attempts - 1, flight.held);
        return;
      case 'refused':
      case 'contentFailed':
        if (outcome.kind === 'refused' && outcome.elsewhere && this.moveOn(flight, members, outcome.error.id, words))
          return;
        for (const member of members) changes.change(member, { kind: outcome.kind, error: outcome.error.id }, words);
        return;
      case 'unknown': {
        // After a hold the submission is repeated once; unknown again, and only a report or the end of validity decides.
        const last = policy.on_unknown === 'hold' && flight.held === 1;
        // With policy retry, too, the message is uncertain until an attempt or a report decides: it may have arrived, so at
        // the end of its validity 29 is true and "never delivered" is not.
        const fate = policy.on_unknown === 'fail' ? 'fail' : 'hold';
        for (const member of members) {
          changes.change(member, { kind: 'unknown', error: outcome.error.id, policy: fate }, words);
        }
        if (policy.on_unknown === 'fail' || last || !members.some(waitsOn(flight.leader))) return;
        if (policy.on_unknown === 'retry') {
          const delay = flight.attempts < 3 ? unknownRetryDelay : carrierRetryDelay(flight.attempts);
          this.again(flight, tx.now + delay, flight.attempts, 0);
        } else this.again(flight, tx.now + HOLD_MS, flight.attempts, 1);
        return;
      }
    }
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
    const { changes } = this;
    const found = ref === '' ? undefined : this.refs.get(refKey(home, ref));
    if (!found) return null;
    const members = changes.span(found.leader, found.members);
    const leg = legOf(found.leader);
    const named = found.members === 1 ? members : members.filter((member) => report.addresses.includes(member.to));
    for (const member of named) {
      const event = { kind: 'report', report: report.kind, ...(report.error ? { error: report.error } : {}) } as const;
      const moved =
        member.leg === leg
          ? changes.change(member, event, report.words)
          : leg === 0 && changes.reportLate(member, report.kind, report.words);
      if (!moved) changes.note(member, report.words);
    }
    // Which member of a group it is about is not said: it decides nothing, but the story shows it.
    const unnamed = named.length === 0 ? members[0] : undefined;
    if (unnamed) changes.note(unnamed, `names no recipient of this submission: ${report.words}`);
    // Nobody is left to send to: the retry goes at once, not at its turn.
    if (named.length > 0 && !members.some(waitsOn(found.leader))) {
      const retry = this.retries.get(found.leader);
      if (retry?.valid_until === UNTRIED) this.leftAfterAll.push(retry);
      this.dropRetry(found.leader);
    }
    return named.slice(0, REPORTED_MAX).map(({ no, key }) => ({ no, key }));
  }

  expire(message: Live, run: RunRow | null, words: Words): void {
    const leader = message.leg === 1 ? smsLeader(message.no) : run && run.members > 0 ? run.no : message.no;
    // All members end with their submission, so its retry has nobody left.
    this.dropRetry(leader);
    const tried = message.state !== STATE.pending || message.error !== 0;
    this.changes.change(
      message,
      { kind: 'validityEnded', tried, lastError: message.error },
      words(message, leader, run),
    );
  }

  async flush(): Promise<void> {
    const { tx } = this;
    const attempts = [...byKey(this.attempts, (row) => `${row.leader} ${row.n}`).values()];
    if (this.flightsGone.length > 0) tx.later(SQL.flightsDelete, [list(this.flightsGone)]);
    if (attempts.length > 0) {
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
