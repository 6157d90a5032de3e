/**
 * What carriers have of cancelled bulks and may be asked to call back, and what they have early of bulks that were moved and may be
 * asked to keep for longer: once each, best effort. It decides no status: what was submitted runs on, and only a report or the end
 * of validity tells what became of it.
 */
import { legOf, spanOf } from '../../domain/failover.ts';
import { STATE } from '../../domain/status.ts';
import type { CallBack } from '../contract.ts';
import type { createEvents } from './events.ts';
import { smsSender } from './rows.ts';
import { type Ask, list, sql, type Tx } from './tx.ts';

/** A lane that cannot call back leaves its rows, for this long. */
const KEPT_MS = 86_400_000;
const STEP = 200;

const SQL = {
  add: sql(`INSERT INTO callback (leader, lane, at, generation, ref)
    SELECT x.leader, a.lane, $2, a.generation, a.ref FROM unnest($1::bigint[]) AS x(leader)
    CROSS JOIN LATERAL (SELECT lane, generation, ref FROM attempt q WHERE q.leader = x.leader AND q.outcome = 'accepted'
      AND q.ref <> '' ORDER BY q.n DESC LIMIT 1) a
    ON CONFLICT (leader) DO UPDATE SET lane = excluded.lane, at = excluded.at, generation = excluded.generation,
      ref = excluded.ref, earliest_at = NULL`),
  // What is to be kept stands under the lane's number below 0.
  any: sql(`SELECT x.lane FROM unnest($1::bigint[]) AS x(lane)
    CROSS JOIN LATERAL (SELECT leader FROM callback q WHERE q.lane = ANY(ARRAY[x.lane, -x.lane]) LIMIT 1) c`),
  // What is in flight yet stays for later.
  take: sql(`WITH gone AS (DELETE FROM callback WHERE ctid = ANY(ARRAY(SELECT ctid FROM callback c WHERE lane = $1
      AND (ref <> '' OR (SELECT f.leader FROM flight f WHERE f.leader = c.leader) IS NULL) ORDER BY leader LIMIT $2
      FOR UPDATE SKIP LOCKED)) RETURNING leader, generation, ref, earliest_at)
    SELECT g.leader, coalesce(a.generation, g.generation) AS generation, coalesce(a.ref, g.ref) AS ref, g.earliest_at
    FROM gone g LEFT JOIN LATERAL (SELECT q.generation, q.ref FROM attempt q WHERE g.ref = '' AND q.leader = g.leader
      AND q.outcome = 'accepted' AND q.ref <> '' ORDER BY q.n DESC LIMIT 1) a ON true`),
  // A group's leader is the number of its run, and may be that of a repeated id, which has no row.
  about:
    sql(`SELECT x.leader, coalesce(CASE WHEN x.leader < 0 THEN ${smsSender('s')} END, s.sender) AS sender, x.members FROM (SELECT leader,
      greatest(1, coalesce((SELECT r.members FROM run r WHERE r.no = leader), 1)) AS members FROM unnest($1::bigint[]) AS u(leader)) x
    CROSS JOIN LATERAL (SELECT spec FROM message q WHERE q.no >= abs(x.leader) AND q.no < abs(x.leader) + x.members
      ORDER BY q.no LIMIT 1) m
    CROSS JOIN LATERAL (SELECT sender, body FROM spec q WHERE q.no = m.spec OFFSET 0) s`),
  old: sql(`DELETE FROM callback WHERE ctid = ANY(ARRAY(SELECT ctid FROM callback WHERE at <= $1 ORDER BY at LIMIT ${STEP}
      FOR UPDATE SKIP LOCKED)) RETURNING leader`),
};

/** Whether there are any, for each of some lanes. */
export async function anyCallBacks(ask: Ask, lanes: readonly number[]): Promise<Map<number, boolean>> {
  const found = new Set((await ask.query<{ lane: number }>(SQL.any, [list(lanes)])).map(({ lane }) => lane));
  return new Map(lanes.map((lane) => [lane, found.has(lane)]));
}

/** Submissions to be called back. */
export function addCallBacks(tx: Tx, leaders: number[]): void {
  if (leaders.length > 0) tx.later(SQL.add, [list(leaders), tx.now]);
}

/** The verb `callBacks` in a transaction. */
export async function takeCallBacks(tx: Tx, lane: number, limit: number): Promise<CallBack[]> {
  type Row = { leader: number; generation: number; ref: string; earliest_at: number | null };
  const found = await tx.query<Row>(SQL.take, [lane, limit]);
  if (found.length < limit) found.push(...(await tx.query<Row>(SQL.take, [-lane, limit - found.length])));
  const rows = found.filter(({ ref }) => ref !== '');
  if (rows.length === 0) return [];
  rows.sort((a, b) => a.leader - b.leader);
  type About = { leader: number; sender: string; members: number };
  const about = await tx.query<About>(SQL.about, [list(rows.map(({ leader }) => leader))]);
  const of = new Map(about.map((one) => [one.leader, one]));
  return rows.flatMap(({ leader, generation, ref, earliest_at: earliestAt }) => {
    const one = of.get(leader);
    if (!one) return [];
    const held = earliestAt === null ? {} : { earliestAt };
    return [{ leader, members: one.members, generation, carrierMessageId: ref, sender: one.sender, ...held }];
  });
}

/** The verb `calledBack` in a transaction. */
export async function noteCallBack(
  tx: Tx,
  events: ReturnType<typeof createEvents>,
  { leader, members, words }: { leader: number; members: number; words: string },
): Promise<void> {
  const { first, end } = spanOf(leader, members);
  const changes = events.begin(tx);
  await changes.load(Array.from({ length: end - first }, (_, at) => first + at));
  for (const message of changes.span(leader, members)) {
    if (message.leg === legOf(leader) && message.state === STATE.submitted) changes.note(message, words);
  }
  await changes.flush();
}

/** One step; true = more is left. */
export async function sweepCallBacks(tx: Tx): Promise<boolean> {
  return (await tx.query(SQL.old, [tx.now - KEPT_MS])).length === STEP;
}
