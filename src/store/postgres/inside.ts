/**
 * The functions that run inside the server: what a claim asks between two of its decisions, so that it costs one round trip to
 * load and one to write. `admit` stays here; these only find, lock and move rows.
 *
 * Promises: each is a sequence of statements with a snapshot of its own (VOLATILE, READ COMMITTED), so what is read after a
 * lock was had is what was committed before. A name carries the hash of its text: nodes of two versions each call their own,
 * and the older one goes with a later schema step. Columns are listed, never `*`.
 * Fails: as any statement does.
 *
 * What leaves out is a condition on arrays, not a join: the rows then come in the order of their index, and a LIMIT ends the scan.
 * Plans are kept for the session and made without regard to the values, so none may depend on statistics that were taken
 * while a table was empty: what is looked up by key is looked up row by row (LATERAL ... OFFSET 0), what is updated is named
 * by `= ANY`, too.
 */
import { createHash } from 'node:crypto';
import { STATE } from '../../domain/status.ts';
import { LINE_QUANTUM } from '../waiting.ts';
import { BULK, RETRY, RUN } from './runs.ts';
import { NOW } from './tx.ts';

/** Class of the advisory keys (two integers) of lanes whose turns are being moved. */
export const TURN_LOCK = 0x7063;
/** Wakes taken by one claim. */
const WAKES = 1000;
/** Runs of one line loaded in one round. */
const DEPTH_MAX = 256;
/** Accounts of a lane, and lines of an account, that take turns without being written; more than these are moved by writing. */
export const RING = 64;
/**
 * A row of a ring is written at most about this often while its work goes on, ms: every version of a row is walked by each look
 * at its key while somebody holds an old snapshot.
 */
export const REST_MS = 500;
/** Lower bounds are set so far behind now, ms: an accept that is a little late does not have to move them back. */
const LOW_SLACK_MS = 250;

/**
 * What this version can submit rightly: runs that need more (`run.needs`) are for newer nodes and passed over, with their
 * retries. To be raised together with the first kind of run that an older version would get wrong. 1 = runs that an SMS may
 * follow, runs with short links, and these.
 */
export const LEVEL = 1;

/** What `load` answers. Rows as runs.ts reads them. */
export interface Loaded<Run, Bulk, Retry> {
  /** False = another transaction has the turns of the lane. */
  ours: boolean;
  /** Numbers of the wakes that were found: lowest and highest, and the lowest whose line somebody holds. */
  first: number | null;
  last: number | null;
  held: number | null;
  /** Lines whose wakes were taken. */
  woken: number[] | null;
  /** The earliest turn of the lane, whether it has anything or not. */
  low: number | null;
  /** Accounts due; as many as the ring holds = perhaps more. */
  turns: number;
  accounts: number[] | null;
  lines: { no: number; account: number; bulk: number; full: boolean; seq: number }[] | null;
  /** Runs, and retries, looked for on each line. */
  depth: number | null;
  bulks: Bulk[] | null;
  /** With `loaded_to`: up to which number its messages were looked for. */
  runs: (Run & { loaded_to: number })[] | null;
  retries: Retry[] | null;
  retryRuns: Run[] | null;
  /** Number (below 0 = its SMS leg), destination, the customer's own id, state: those that wait. */
  pending: [place: number, to: string, key: string | null, state: number][] | null;
}

/** Of `retry t`: its run is for us. A scalar, which is looked up for each; EXISTS may become a join. */
const ABLE = `(SELECT q.needs FROM run q WHERE q.no = t.run) <= ${LEVEL}`;

/**
 * p_now NULL = what the BEGIN before it says. p_take: takes the turns and the wakes above p_floor first. p_tick moves the rings on. p_rest_*: lines (accounts) and the
 * `seq` they were seen with, which are known to have nothing: passed over unless woken or written since.
 */
const LOAD = `(p_lane bigint, p_take boolean, p_floor bigint, p_turn_floor bigint, p_now bigint, p_seq bigint, p_limit integer, p_tick integer,
  p_rest_lines bigint[], p_rest_line_seqs bigint[], p_rest_accounts bigint[], p_rest_account_seqs bigint[])
RETURNS json LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_taken tid[]; v_woken bigint[]; v_first bigint; v_last bigint; v_held bigint;
  v_told bigint[]; v_dues bigint[]; v_low bigint;
  v_accounts bigint[]; v_lows bigint[]; v_turns integer := 0; v_each integer;
  v_nos bigint[]; v_line_lows bigint[]; v_bulk_nos bigint[]; v_bulk_accounts bigint[]; v_tried boolean; v_depth integer;
  v_firsts bigint[]; v_ends bigint[]; v_retry_runs bigint[];
  j_lines json; j_bulks json; j_runs json; j_retries json; j_retry_runs json; j_pending json;
BEGIN
  p_now := coalesce(p_now, current_setting('${NOW}')::bigint);
  IF p_take THEN
    IF NOT pg_try_advisory_xact_lock(${TURN_LOCK}, p_lane::integer) THEN RETURN json_build_object('ours', false); END IF;
    -- Wakes and their lines, locked first, so that the update sees the due_at that the last claim left.
    SELECT array_agg(w.ctid) FILTER (WHERE w.locked), array_agg(DISTINCT w.line) FILTER (WHERE w.locked),
        min(w.no), max(w.no), min(w.no) FILTER (WHERE NOT w.locked)
      INTO v_taken, v_woken, v_first, v_last, v_held
      FROM (SELECT a.ctid, a.no, a.line, l.no IS NOT NULL AS locked
        FROM (SELECT ctid, no, line FROM wake WHERE lane = p_lane AND no > p_floor ORDER BY no LIMIT ${WAKES}) a
        LEFT JOIN LATERAL (SELECT r.no FROM line r WHERE r.no = a.line FOR NO KEY UPDATE SKIP LOCKED) l ON true) w;
    IF v_taken IS NOT NULL THEN
      -- By place: each index has one more column that a plan for an empty table may prefer, and then walks all of it.
      -- A line that is due already (a new one, or one that has not rested) is not written.
      WITH taken AS (DELETE FROM wake WHERE ctid = ANY(v_taken) RETURNING line, due_at),
        told AS (SELECT l.no, l.account, l.paused, f.due_at,
            l.low_at > f.due_at OR NOT (l.paused OR coalesce(l.due_at <= f.due_at, false)) AS needs
          FROM (SELECT line, min(due_at) AS due_at FROM taken GROUP BY line) f
          CROSS JOIN LATERAL (SELECT r.no, r.account, r.paused, r.low_at, r.due_at FROM line r WHERE r.no = f.line OFFSET 0) l),
        moved AS (UPDATE line l SET low_at = least(l.low_at, t.due_at),
            due_at = CASE WHEN l.paused OR l.due_at <= t.due_at THEN l.due_at ELSE t.due_at END,
            seq = CASE WHEN l.paused OR l.due_at <= t.due_at THEN l.seq ELSE p_seq END
          FROM told t WHERE t.needs AND l.no = t.no AND l.no = ANY(v_woken)),
        dues AS (SELECT account, min(due_at) AS due_at FROM told WHERE NOT paused GROUP BY account)
      SELECT array_agg(account), array_agg(due_at) INTO v_told, v_dues FROM dues;
      UPDATE turn t SET low_at = least(t.low_at, x.due_at),
          due_at = CASE WHEN t.due_at <= greatest(x.due_at, p_now) THEN t.due_at ELSE greatest(x.due_at, p_now) END,
          seq = CASE WHEN t.due_at <= greatest(x.due_at, p_now) THEN t.seq ELSE p_seq END
        FROM unnest(v_told, v_dues) AS x(account, due_at)
        WHERE t.lane = p_lane AND t.account = x.account AND t.account = ANY(v_told)
          AND (t.low_at > x.due_at OR t.due_at IS NULL OR t.due_at > greatest(x.due_at, p_now));
    END IF;
  END IF;

  SELECT min(due_at) INTO v_low FROM turn n WHERE n.lane = p_lane AND n.due_at >= p_turn_floor;
  SELECT array_agg(c.account ORDER BY c.place), array_agg(c.low_at ORDER BY c.place), coalesce(max(c.n), 0)
    INTO v_accounts, v_lows, v_turns
    FROM (SELECT t.account, t.low_at, t.n, (t.place - 1 - p_tick % t.n + t.n) % t.n AS place
      FROM (SELECT d.account, d.low_at, (row_number() OVER (ORDER BY d.due_at, d.seq))::integer AS place,
          (count(*) OVER ())::integer AS n
        FROM (SELECT account, low_at, due_at, seq FROM turn n WHERE n.lane = p_lane AND n.due_at >= p_turn_floor AND n.due_at <= p_now
            AND (n.account = ANY(v_told) OR n.seq IS DISTINCT FROM p_rest_account_seqs[array_position(p_rest_accounts, n.account)])
          ORDER BY n.due_at, n.seq LIMIT ${RING}) d) t) c;
  IF v_turns > 0 THEN
    v_each := least(${RING}, greatest(1, ceil(p_limit::numeric / v_turns)::integer));
    -- tried = a retry is due. One that comes after this look has a wake, which the next claim takes.
    SELECT array_agg(x.no ORDER BY x.turn, x.place), array_agg(x.low_at ORDER BY x.turn, x.place),
        array_agg(x.bulk) FILTER (WHERE x.bulk <> 0), array_agg(x.account) FILTER (WHERE x.bulk <> 0), bool_or(x.tried),
        json_agg(json_build_object('no', x.no, 'account', x.account, 'bulk', x.bulk, 'full', x.n = ${RING}, 'seq', x.seq)
          ORDER BY x.turn, x.place)
      INTO v_nos, v_line_lows, v_bulk_nos, v_bulk_accounts, v_tried, j_lines
      FROM (SELECT a.turn, c.place, c.n, l.no, l.account, l.bulk, l.low_at, l.seq, l.tried
        FROM unnest(v_accounts, v_lows) WITH ORDINALITY AS a(account, low_at, turn)
        CROSS JOIN LATERAL (SELECT o.no, o.n, (o.place - 1 - p_tick % o.n + o.n) % o.n AS place
          FROM (SELECT d.no, (row_number() OVER (ORDER BY d.due_at, d.seq))::integer AS place, (count(*) OVER ())::integer AS n
            FROM (SELECT n.no, n.due_at, n.seq FROM line n
              WHERE n.lane = p_lane AND n.account = a.account AND n.due_at >= a.low_at AND n.due_at <= p_now
                AND (n.no = ANY(v_woken) OR n.seq IS DISTINCT FROM p_rest_line_seqs[array_position(p_rest_lines, n.no)])
              ORDER BY n.due_at, n.seq LIMIT ${RING}) d) o ORDER BY 3 LIMIT v_each) c
        CROSS JOIN LATERAL (SELECT r.no, r.account, r.bulk, r.low_at, r.due_at, r.seq,
            EXISTS (SELECT 1 FROM retry t WHERE t.line = r.no AND t.due_at >= r.low_at AND t.due_at <= p_now) AS tried
          FROM line r WHERE r.no = c.no OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) l
        WHERE l.due_at <= p_now) x;
  END IF;
  IF v_nos IS NOT NULL THEN
    IF v_bulk_nos IS NOT NULL THEN
      SELECT json_agg(b) INTO j_bulks
        FROM unnest(v_bulk_accounts, v_bulk_nos) AS x(account, no)
        CROSS JOIN LATERAL (SELECT ${BULK} FROM bulk b WHERE b.account = x.account AND b.no = x.no
          OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) b;
    END IF;
    v_depth := least(${DEPTH_MAX}, greatest(2, ceil(2.0 * p_limit / cardinality(v_nos))::integer));
    -- Runs of all its lines, also of those whose bulk is steered now and which are therefore left out by the caller.
    -- Looked for: of one run alone all that is asked for, of many their share.
    SELECT json_agg(r ORDER BY r.due_at, r.seq), array_agg(r.next), array_agg(r.loaded_to) INTO j_runs, v_firsts, v_ends
      FROM (SELECT q.*, CASE WHEN q.members > 0 THEN q."end" ELSE least(q."end", q.next + least(p_limit,
            greatest(${LINE_QUANTUM}, ceil(2.0 * p_limit / count(*) OVER ())::integer))) END AS loaded_to
        FROM unnest(v_nos, v_line_lows) AS l(line, low_at)
        CROSS JOIN LATERAL (SELECT ${RUN}, r.due_at, r.seq FROM run r
          WHERE r.line = l.line AND r.due_at >= l.low_at AND r.due_at <= p_now AND r.needs <= ${LEVEL}
          ORDER BY r.due_at, r.seq LIMIT v_depth FOR NO KEY UPDATE SKIP LOCKED) q) r;
    IF v_tried THEN
      SELECT json_agg(t ORDER BY t.due_at, t.leader), array_agg(t.run) INTO j_retries, v_retry_runs
        FROM unnest(v_nos, v_line_lows) AS l(line, low_at)
        CROSS JOIN LATERAL (SELECT ${RETRY} FROM retry t WHERE t.line = l.line AND t.due_at >= l.low_at AND t.due_at <= p_now
            AND ${ABLE}
          ORDER BY t.due_at, t.leader LIMIT v_depth FOR UPDATE SKIP LOCKED) t;
      IF j_retries IS NOT NULL THEN
        SELECT json_agg(r) INTO j_retry_runs FROM (SELECT ${RUN} FROM run r WHERE r.no = ANY(v_retry_runs)) r;
        SELECT coalesce(v_firsts, '{}') || array_agg(t.leader), coalesce(v_ends, '{}') || array_agg(t.leader + t.members)
          INTO v_firsts, v_ends FROM json_to_recordset(j_retries) AS t(leader bigint, members integer);
      END IF;
    END IF;
    IF v_firsts IS NOT NULL THEN
      -- Only messages that still wait: a duplicate id has no row, a timely report or an expiry has made others final.
      -- By place: the SMS leg of a message stands under its number below 0.
      SELECT json_agg(json_build_array(CASE WHEN x.first < 0 THEN -m.no ELSE m.no END, m."to", m.key, m.state)) INTO j_pending
        FROM unnest(v_firsts, v_ends) AS x(first, "end")
        CROSS JOIN LATERAL (SELECT no, "to", key, state FROM message r
          WHERE r.no >= CASE WHEN x.first < 0 THEN 1 - x."end" ELSE x.first END
          AND r.no < CASE WHEN x.first < 0 THEN 1 - x.first ELSE x."end" END AND r.leg = (x.first < 0)::integer
          AND r.state IN (${STATE.pending}, ${STATE.uncertain}) OFFSET 0) m;
    END IF;
  END IF;
  RETURN json_build_object('ours', true, 'first', v_first, 'last', v_last, 'held', v_held, 'woken', v_woken, 'low', v_low, 'turns', v_turns,
    'accounts', v_accounts, 'depth', v_depth,
    'lines', j_lines, 'bulks', j_bulks, 'runs', j_runs, 'retries', j_retries, 'retryRuns', j_retry_runs, 'pending', j_pending);
END $$`;

/** What `rest` answers. */
export interface Rested {
  /** False = another transaction has the turns of the lane. */
  ours: boolean;
  /** Lines, and accounts, that are due by their row and have nothing: `due` = when they will, null = a wake tells. */
  lines: [no: number, seq: number, due: number | null][] | null;
  accounts: [no: number, seq: number, due: number | null][] | null;
  /** Written, by number. */
  wroteLines: number[] | null;
  wroteAccounts: number[] | null;
  /** The earliest turn of the lane, those left out that have nothing. */
  due: number | null;
  /** The lowest wake above p_floor. */
  woken: number | null;
}

/**
 * Lines that were served, then the turns of their accounts: what is under them now. `may` = it was not written for a while,
 * so it may be written to remember less work, or none; `full` = its ring holds more than takes turns by itself, so it goes to
 * the end. Rows that rest unwritten are told: their `due_at` promises more than there is, or what only a newer node may claim.
 * p_owed: those of the lines that were served by an earlier transaction, so not locked yet; what somebody else holds is left out.
 * p_take: the turns of the lane are not had yet.
 */
const REST = `(p_lane bigint, p_now bigint, p_floor bigint, p_turn_floor bigint, p_lines bigint[], p_may boolean[], p_full boolean[], p_seqs bigint[],
  p_accounts bigint[], p_account_may boolean[], p_account_full boolean, p_account_seqs bigint[],
  p_rest_lines bigint[], p_rest_accounts bigint[], p_rest_account_seqs bigint[], p_take boolean, p_owed bigint[])
RETURNS json LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
  v_held bigint[];
  v_resting bigint[]; v_wrote bigint[]; v_wrote_accounts bigint[]; v_due bigint; v_quiet bigint[]; v_quiet_seqs bigint[];
  j_lines json; j_accounts json;
BEGIN
  IF p_take AND NOT pg_try_advisory_xact_lock(${TURN_LOCK}, p_lane::integer) THEN RETURN json_build_object('ours', false); END IF;
  IF cardinality(p_owed) > 0 THEN
    SELECT array_agg(o.no) FILTER (WHERE l.no IS NULL) INTO v_held FROM unnest(p_owed) AS o(no)
      LEFT JOIN LATERAL (SELECT r.no FROM line r WHERE r.no = o.no FOR NO KEY UPDATE SKIP LOCKED) l ON true;
  END IF;
  -- OFFSET 0: looked up once, not once for each column.
  WITH d AS MATERIALIZED (SELECT x.no, x.may, x.over, x.seq AS place, l.seq, l.low_at, l.idle, l.due, l.bound, l.newer, l.held
      FROM unnest(p_lines, p_may, p_full, p_seqs) AS x(no, may, over, seq)
      CROSS JOIN LATERAL (SELECT l.seq, l.low_at, l.due_at <= p_now AS held, l.paused OR u.due IS NULL OR u.due > p_now AS idle,
          CASE WHEN l.paused THEN NULL ELSE u.due END AS due, u.due AS bound,
          EXISTS (SELECT 1 FROM run q WHERE q.line = l.no AND q.needs > ${LEVEL}) AS newer
        FROM line l CROSS JOIN LATERAL (SELECT least(
          (SELECT min(r.due_at) FROM run r WHERE r.line = l.no AND r.due_at >= least(l.low_at, p_now) AND r.needs <= ${LEVEL}),
          (SELECT min(t.due_at) FROM retry t WHERE t.line = l.no AND t.due_at >= least(l.low_at, p_now) AND ${ABLE})) AS due OFFSET 0) u
        WHERE l.no = x.no OFFSET 0) l
      WHERE v_held IS NULL OR NOT x.no = ANY(v_held)),
    w AS (UPDATE line l SET seq = d.place, due_at = CASE WHEN d.due IS NULL THEN NULL ELSE greatest(d.due, p_now) END,
        low_at = least(d.bound, p_now - ${LOW_SLACK_MS})
      FROM d WHERE l.no = d.no AND l.no = ANY(p_lines) AND NOT d.newer
        AND (d.may AND (d.idle OR d.low_at < p_now - ${REST_MS + LOW_SLACK_MS}) OR d.over AND NOT d.idle)
      RETURNING l.no)
  SELECT (SELECT array_agg(w.no) FROM w),
      array_agg(d.no) FILTER (WHERE d.held AND d.idle AND NOT EXISTS (SELECT 1 FROM w WHERE w.no = d.no)),
      json_agg(json_build_array(d.no, d.seq, d.due)) FILTER (WHERE d.held AND d.idle AND NOT EXISTS (SELECT 1 FROM w WHERE w.no = d.no))
    INTO v_wrote, v_resting, j_lines FROM d;
  v_resting := p_rest_lines || coalesce(v_resting, '{}');

  WITH d AS MATERIALIZED (SELECT x.account, x.may, x.seq AS place, t.seq, t.low_at, t.due_at, t.due, t.bound
      FROM unnest(p_accounts, p_account_may, p_account_seqs) AS x(account, may, seq)
      CROSS JOIN LATERAL (SELECT t.seq, t.low_at, t.due_at, u.due, u.bound FROM turn t CROSS JOIN LATERAL (SELECT
          (SELECT min(l.due_at) FROM line l WHERE l.lane = p_lane AND l.account = x.account
            AND l.due_at >= least(t.low_at, p_now) AND NOT l.no = ANY(v_resting)) AS due,
          (SELECT min(l.due_at) FROM line l WHERE l.lane = p_lane AND l.account = x.account
            AND l.due_at >= least(t.low_at, p_now)) AS bound OFFSET 0) u
        WHERE t.lane = p_lane AND t.account = x.account OFFSET 0) t),
    w AS (UPDATE turn t SET seq = d.place, due_at = CASE WHEN d.bound IS NULL THEN NULL ELSE greatest(d.bound, p_now) END,
        low_at = least(d.bound, p_now - ${LOW_SLACK_MS})
      FROM d WHERE t.lane = p_lane AND t.account = d.account AND t.account = ANY(p_accounts)
        AND (d.may AND (d.bound IS NULL OR d.bound > p_now OR d.low_at < p_now - ${REST_MS + LOW_SLACK_MS})
          OR p_account_full AND d.due <= p_now)
      RETURNING t.account, t.seq)
  SELECT (SELECT array_agg(w.account) FROM w), array_agg(q.account), array_agg(q.seq),
      json_agg(json_build_array(q.account, q.seq, q.due))
    INTO v_wrote_accounts, v_quiet, v_quiet_seqs, j_accounts
    FROM (SELECT d.account, d.due, coalesce(w.seq, d.seq) AS seq FROM d LEFT JOIN w ON w.account = d.account
      WHERE coalesce(d.due > p_now, true) AND CASE WHEN w.seq IS NULL THEN d.due_at <= p_now ELSE d.bound <= p_now END) q;

  v_quiet := p_rest_accounts || v_quiet;
  v_quiet_seqs := p_rest_account_seqs || v_quiet_seqs;
  SELECT min(n.due_at) INTO v_due FROM turn n WHERE n.lane = p_lane AND n.due_at >= p_turn_floor
    AND (n.due_at > p_now OR n.seq IS DISTINCT FROM v_quiet_seqs[array_position(v_quiet, n.account)]);
  RETURN json_build_object('ours', true, 'lines', j_lines, 'accounts', j_accounts, 'wroteLines', v_wrote, 'wroteAccounts', v_wrote_accounts,
    'due', v_due, 'woken', (SELECT w.no FROM wake w WHERE w.lane = p_lane AND w.no > p_floor ORDER BY w.no LIMIT 1));
END $$`;

function named(word: string, text: string): { name: string; create: string } {
  const name = `${word}_${createHash('sha256').update(text).digest('hex').slice(0, 10)}`;
  return { name, create: `CREATE FUNCTION ${name} ${text}` };
}

export const load = named('claim_load', LOAD);
export const rest = named('claim_rest', REST);
/** What must be there before a claim. */
export const FUNCTIONS = [load, rest];
