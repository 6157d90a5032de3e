/**
 * reroute: what waits on the lanes of one carrier goes to another's, in bounded steps; for a carrier that left the configuration.
 * What may have reached it stays: it ends by a report, or as not known. So does what is in flight, until it comes back.
 *
 * Locks: bulks (KEY SHARE, so that no steering is at work on their lines), runs, retries; what somebody has is left for the next
 * step, so this waits for nobody but a steering.
 */
import type { Channel } from '../../domain/routing.ts';
import { STATE } from '../../domain/status.ts';
import type { Rerouted } from '../contract.ts';
import { channelOf } from '../waiting.ts';
import { type Lines, lineKey } from './lines.ts';
import { list, sql, type Tx } from './tx.ts';

/** Lines looked at, and runs or retries moved, in one step. */
const LINES = 20;
const STEP = 500;

/** None of its members may have reached a carrier. */
const UNSENT = `NOT EXISTS (SELECT 1 FROM message m WHERE m.no >= abs(t.leader) AND m.no < abs(t.leader) + t.members
  AND m.state = ${STATE.uncertain})`;

const SQL = {
  lanes: sql('SELECT no FROM lane WHERE carrier = $1 ORDER BY shard'),
  lines: sql(`SELECT l.no, l.account, l.bulk, x.lane FROM unnest($1::bigint[]) AS x(lane)
    CROSS JOIN LATERAL (SELECT q.no, q.account, q.bulk FROM line q WHERE q.lane = x.lane AND (
        (SELECT r.no FROM run r WHERE r.line = q.no AND r.due_at >= 0 LIMIT 1) IS NOT NULL
        OR (SELECT t.leader FROM retry t WHERE t.line = q.no AND t.due_at >= 0 AND ${UNSENT} LIMIT 1) IS NOT NULL)
      LIMIT ${LINES}) l LIMIT ${LINES}`),
  one: sql(`(SELECT no AS leader, ways FROM run WHERE line = $1 AND due_at >= 0 LIMIT 1)
    UNION ALL (SELECT t.leader, (SELECT r.ways FROM run r WHERE r.no = t.run) FROM retry t WHERE t.line = $1 AND t.due_at >= 0 LIMIT 1)
    LIMIT 1`),
  bulks:
    sql(`SELECT no, paused_at IS NOT NULL OR canceled_at IS NOT NULL AS paused FROM bulk WHERE no = ANY($1::bigint[])
    ORDER BY no FOR KEY SHARE`),
  runs: sql(`SELECT r.no, r."end" AS "end", r."end" - r.next AS n, x.line AS "from", x.target, r.due_at AS due FROM unnest($1::bigint[], $2::bigint[]) AS x(line, target)
    CROSS JOIN LATERAL (SELECT no, "end", next, due_at FROM run q WHERE q.line = x.line AND q.due_at >= 0
      ORDER BY q.due_at LIMIT ${STEP} FOR NO KEY UPDATE SKIP LOCKED) r LIMIT ${STEP}`),
  // What is in flight comes back to where it was.
  flights:
    sql(`UPDATE flight f SET line = x.line FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS x(no, "end", line)
    WHERE f.leader >= x.no AND f.leader < x."end" AND f.line IS NULL`),
  // That one may not keep the time; the one before may have some of it.
  runLine:
    sql(`UPDATE run r SET line = x.line, early_ms = -abs(r.early_ms) FROM unnest($1::bigint[], $2::bigint[]) AS x(no, line)
    WHERE r.no = x.no AND r.no = ANY($1::bigint[])`),
  // Where an MMS without a carrier of its own goes, its SMS goes too: the one before has left.
  smsLane:
    sql(`UPDATE run r SET ways = jsonb_set(r.ways::jsonb, '{sms,lane}', to_jsonb(x.lane))::text FROM unnest($1::bigint[], $2::bigint[]) AS x(no, lane)
    WHERE r.no = x.no AND r.no = ANY(ARRAY(SELECT q.no FROM run q WHERE q.no = ANY($1::bigint[]) AND q.ways LIKE '%"smsOnly"%'
      FOR NO KEY UPDATE SKIP LOCKED))`),
  retries:
    sql(`SELECT r.leader, r.run, r.members AS n, x.target, r.due_at AS due FROM unnest($1::bigint[], $2::bigint[]) AS x(line, target)
    CROSS JOIN LATERAL (SELECT leader, run, members, due_at FROM retry t WHERE t.line = x.line AND t.due_at >= 0 AND ${UNSENT}
      ORDER BY t.due_at LIMIT ${STEP} FOR UPDATE SKIP LOCKED) r LIMIT ${STEP}`),
  // Another carrier gets another submission.
  retryLine:
    sql(`UPDATE retry t SET line = x.line, generation = t.generation + 1 FROM unnest($1::bigint[], $2::bigint[]) AS x(leader, line)
    WHERE t.leader = x.leader AND t.leader = ANY($1::bigint[])`),
};

/** The verb `reroute` in a transaction. */
export async function reroute(
  tx: Tx,
  lines: Lines,
  from: string,
  to: string,
  channel?: Channel,
): Promise<Rerouted | null> {
  const lanesOf = async (carrier: string): Promise<number[]> =>
    (await tx.query<{ no: number }>(SQL.lanes, [carrier])).map(({ no }) => no);
  const [sources, targets] = [await lanesOf(from), await lanesOf(to)];
  if (sources.length === 0 || targets.length === 0 || from === to) return null;
  const found = await tx.query<{ no: number; account: number; bulk: number; lane: number }>(SQL.lines, [list(sources)]);
  const [first] = found;
  if (!first) return { count: 0, next: null };
  if (channel !== undefined) {
    // A carrier's lanes are of one channel: what waits on one line tells it.
    const [one] = await tx.query<{ leader: number; ways: string | null }>(SQL.one, [first.no]);
    if (one && channelOf(one, first.lane) !== channel) return { count: 0, next: null, otherChannel: true };
  }
  const nos = [...new Set(found.map(({ bulk }) => bulk).filter((bulk) => bulk !== 0))];
  const bulks = nos.length === 0 ? [] : await tx.query<{ no: number; paused: boolean }>(SQL.bulks, [list(nos)]);
  const still = new Set(bulks.filter(({ paused }) => paused).map(({ no }) => no));
  const keys = found.map(({ no, account, bulk }) => {
    return { lane: targets[no % targets.length] as number, account, bulk, paused: still.has(bulk) };
  });
  const made = await lines.find(tx, keys);
  const targetOf = keys.map((key) => made.get(lineKey(key)) as number);
  const laneOf = new Map(keys.map((key, at) => [targetOf[at] as number, key.lane]));
  const values = [list(found.map(({ no }) => no)), list(targetOf)];
  type Moved = { n: number; target: number; due: number };
  const runs = await tx.query<Moved & { no: number; end: number; from: number }>(SQL.runs, values);
  if (runs.length > 0) {
    const moving = list(runs.map(({ no }) => no));
    const lefts = [moving, list(runs.map(({ end }) => end)), list(runs.map((run) => run.from))];
    tx.later(SQL.flights, lefts);
    tx.later(SQL.runLine, [moving, list(runs.map(({ target }) => target))]);
  }
  const retries = await tx.query<Moved & { leader: number; run: number }>(SQL.retries, values);
  if (retries.length > 0) {
    const values = [list(retries.map(({ leader }) => leader)), list(retries.map(({ target }) => target))];
    tx.later(SQL.retryLine, values);
  }
  const lane = ({ target }: Moved): number => laneOf.get(target) as number;
  const whose = new Map([
    ...runs.map((one) => [one.no, lane(one)] as const),
    ...retries.map((one) => [one.run, lane(one)] as const),
  ]);
  if (whose.size > 0) tx.later(SQL.smsLane, [list([...whose.keys()]), list([...whose.values()])]);
  const all: Moved[] = [...runs, ...retries];
  await lines.wake(
    tx,
    all.map((one) => ({ lane: lane(one), line: one.target, due: one.due })),
  );
  // Others may hold what is left: it is looked at again while anything moved.
  return { count: all.reduce((sum, { n }) => sum + n, 0), next: all.length > 0 ? 0 : null };
}
