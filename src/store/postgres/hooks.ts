/**
 * The outbox to customers: an event waits under its endpoint (`outbox`), is formed with others into a hook (one POST, same
 * bytes and id for all its retries), and leaves when the hook is settled. Messages with intermediate reports keep their
 * open events in `open_event`, and only the oldest is handed on (G9).
 *
 * An endpoint's `due_at` is set only under its lock, after looking at what waits in a later statement; who adds to the
 * outbox inserts an `endpoint_wake` row, which is taken under the same lock. Lock order: hook, message, endpoint.
 *
 * What was told lies at the head of the outbox while somebody holds an old snapshot: an endpoint's events are looked for from `low_event`
 * on, which is exact (moved up under its lock, down by the wakes that are taken), and wakes, leases and due instants from bounds that
 * are remembered (heads.ts).
 */
import { statusView } from '../../domain/codes.ts';
import { FAILED_OVER } from '../../domain/failover.ts';
import { webhookDelay } from '../../domain/retry.ts';
import {
  type EndpointSetting,
  type EventRow,
  type InboundRow,
  PENDING_MAX,
  TRIES_MAX,
  type Webhook,
  type WebhookSettle,
  type Webhooks,
} from '../contract.ts';
import { EXHAUSTED_MS, kindOf, POST_MOST, postMostSql, validSecrets } from '../hooks.ts';
import { type EventColumns, MESSAGE_JOINS, toEvent } from '../message-rows.ts';
import { addToPull, handOn, type Pull } from './events.ts';
import type { HookBounds, HookFound, HookHeads } from './heads.ts';
import { EVENT_COLUMNS, readSpecs } from './rows.ts';
import { type Ask, byKey, list, plain, sql, type Tx, texts, together } from './tx.ts';

/** POSTs in flight to one endpoint: one that hangs takes no more of its neighbours' slots. */
const ENDPOINT_SLOTS = 8;
/** Of these, fresh ones that are not full: two, so that while one is answered the next fills. */
const FRESH_SLOTS = 2;
/** Failed tries in a row after which an endpoint has one slot, until a try succeeds. A delay, never a skip. */
const BREAKER = 5;
/** Lost leases taken back in one call. */
const LOST = 64;
/** Rounds over the endpoints in one call; each gives an endpoint one POST. */
const ROUNDS = 64;
/** First characters kept of an endpoint's answer. */
const EXCERPT = 500;

/** Endpoints of one step of the look for what older nodes left. */
const STRAY = 500;
/** Wakes taken in one call. */
const WAKES = 1000;

const ENDPOINT = 'e.no, e.account, e.url, e.content_type, e.kind, e.open, e.fails, e.fresh, e.low_event';
/**
 * Whether fresh events of endpoint x.no (of x.kind, with x.open POSTs out; none waits below `low`) may be formed into a POST: any, or only
 * a full one.
 */
const freshReady = (low: string): string => `CASE WHEN x.open < ${FRESH_SLOTS}
  THEN EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = x.no AND o.event >= ${low})
  ELSE EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = x.no AND o.event >= ${low} ORDER BY o.event
    OFFSET ${postMostSql('x.kind')} - 1 LIMIT 1) END`;

const SQL = {
  waking: sql(`SELECT ${ENDPOINT} FROM endpoint e
    WHERE e.no = ANY(ARRAY(SELECT w.endpoint FROM endpoint_wake w WHERE w.no > $1 ORDER BY w.no LIMIT ${WAKES}))
    FOR NO KEY UPDATE OF e SKIP LOCKED`),
  // Those of locked endpoints; one of an older version does not say what it tells of. By place, as few of the many that lie there dead.
  fold: sql(`WITH gone AS (DELETE FROM endpoint_wake w WHERE w.ctid = ANY(ARRAY(SELECT n.ctid FROM (SELECT ctid, endpoint FROM endpoint_wake
      WHERE no > $2 ORDER BY no LIMIT ${WAKES}) n WHERE n.endpoint = ANY($1::bigint[]))) RETURNING w.endpoint, w.event),
    low AS (SELECT endpoint, min(coalesce(event, 0)) AS event FROM gone GROUP BY endpoint)
    UPDATE endpoint e SET low_event = l.event FROM low l WHERE e.no = l.endpoint AND e.no = ANY($1::bigint[]) AND e.low_event > l.event
    RETURNING e.no, e.low_event`),
  // Of some endpoints what a node of an older version, which knows no bound, has left below it. What is there may also be told of by a
  // wake: then it is looked for in vain.
  stray: sql(`WITH part AS (SELECT n.no, n.low_event FROM endpoint n WHERE n.no > $2 ORDER BY n.no LIMIT ${STRAY}),
    found AS (SELECT l.no FROM part p
      CROSS JOIN LATERAL (SELECT o.event FROM outbox o WHERE o.endpoint = p.no AND o.event < p.low_event ORDER BY o.event LIMIT 1) w
      CROSS JOIN LATERAL (SELECT r.no FROM endpoint r WHERE r.no = p.no OFFSET 0 FOR NO KEY UPDATE SKIP LOCKED) l),
    moved AS (UPDATE endpoint e SET low_event = 0, due_at = least(e.due_at, $1::bigint) WHERE e.no = ANY(ARRAY(SELECT no FROM found)))
    SELECT CASE WHEN count(*) = ${STRAY} THEN max(no) END AS last FROM part`),
  lost: sql(`SELECT h.no, h.endpoint FROM hook h WHERE h.leased AND h.due_at >= $2 AND h.due_at <= $1 ORDER BY h.due_at LIMIT ${LOST}
    FOR NO KEY UPDATE SKIP LOCKED`),
  free: sql('UPDATE hook SET leased = false, due_at = $2 WHERE no = ANY($1::bigint[])'),
  lock: sql(`SELECT ${ENDPOINT} FROM endpoint e WHERE e.no = ANY($1::bigint[]) ORDER BY e.no FOR NO KEY UPDATE OF e`),
  due: sql(`SELECT ${ENDPOINT} FROM endpoint e WHERE e.due_at >= $3 AND e.due_at <= $1 ORDER BY e.due_at, e.seq LIMIT $2
    FOR NO KEY UPDATE OF e SKIP LOCKED`),
  // What each of some locked endpoints could send next.
  ready: sql(`SELECT x.no, ${freshReady('x.low')} AS fresh, h.no AS hook, h.retry, h.events, h.body
    FROM unnest($1::bigint[], $2::integer[], $4::smallint[], $5::bigint[]) AS x(no, open, kind, low) LEFT JOIN LATERAL (SELECT n.no, n.retry, n.events, n.body FROM hook n
      WHERE n.endpoint = x.no AND n.state = 0 AND NOT n.leased AND n.due_at <= $3 ORDER BY n.due_at LIMIT 1) h ON true`),
  hooksLease: sql(`UPDATE hook h SET token = x.token, leased = true, due_at = $3 FROM unnest($1::bigint[], $2::bigint[])
    AS x(no, token) WHERE h.no = x.no AND h.no = ANY($1::bigint[])`),
  take: sql(`DELETE FROM outbox o WHERE o.ctid = ANY(ARRAY(
      SELECT n.ctid FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS p(endpoint, most, low)
      CROSS JOIN LATERAL (SELECT w.ctid FROM outbox w WHERE w.endpoint = p.endpoint AND w.event >= p.low ORDER BY w.event LIMIT p.most) n))
    RETURNING o.endpoint, o.event`),
  hooksAdd: sql(`INSERT INTO hook (endpoint, account, state, retry, token, leased, due_at, at, events)
    SELECT endpoint, account, 0, 0, token, true, $5::bigint, $6::bigint, events::bigint[]
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS x(endpoint, account, token, events)
    RETURNING no, token`),
  eventsHook: sql(
    `UPDATE event e SET hook = x.hook FROM unnest($1::bigint[], $2::bigint[]) AS x(no, hook)
      WHERE e.no = x.no AND e.no = ANY($1::bigint[])`,
  ),
  // Writes locked endpoints and their next due instant; what is due already goes to the end of the ring. x.low null = as it is.
  rest: sql(`UPDATE endpoint e SET open = x.open, fails = x.fails, fresh = x.fresh, seq = x.seq, low_event = coalesce(x.low, e.low_event),
      due_at = CASE WHEN x.open >= CASE WHEN x.fails >= ${BREAKER} THEN 1 ELSE ${ENDPOINT_SLOTS} END THEN NULL
        WHEN ${freshReady('coalesce(x.low, e.low_event)')} THEN $6::bigint
        ELSE (SELECT CASE WHEN min(h.due_at) IS NULL THEN NULL ELSE greatest(min(h.due_at), $6::bigint) END FROM hook h
          WHERE h.endpoint = x.no AND h.state = 0 AND NOT h.leased) END
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::boolean[], $5::bigint[],
      $7::smallint[], $8::bigint[]) AS x(no, open, fails, fresh, seq, kind, low)
    WHERE e.no = x.no AND e.no = ANY($1::bigint[]) RETURNING e.no, e.due_at`),
  peek: sql(`SELECT greatest(w.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
      (SELECT k.no FROM endpoint_wake k WHERE k.no > $1 ORDER BY k.no LIMIT 1) AS wake,
      (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM endpoint_wake_no_seq) AS given,
      (SELECT min(h.due_at) FROM hook h WHERE h.leased AND h.due_at >= $2) AS lease,
      (SELECT min(e.due_at) FROM endpoint e WHERE e.due_at >= $3) AS due FROM high_water w`),
  events: sql(`SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
    WHERE e.no = ANY($1::bigint[])`),
  inbound: sql(
    `SELECT e.no AS event, i.body FROM event e JOIN inbound i ON i.no = e.message WHERE e.no = ANY($1::bigint[])`,
  ),
  words: sql('SELECT no, words FROM event WHERE no = ANY($1::bigint[])'),
  pending: sql(`SELECT p.endpoint, (SELECT count(*) FROM (SELECT 1 FROM outbox o WHERE o.endpoint = p.endpoint
        AND o.event >= (SELECT e.low_event FROM endpoint e WHERE e.no = p.endpoint) LIMIT ${PENDING_MAX}) c)::integer AS n FROM unnest($1::bigint[]) AS p(endpoint)`),
  // OFFSET 0: see settle.ts, refs.
  settings: sql(`SELECT x.endpoint, s.secrets, s.headers
    FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[]) AS x(endpoint, account, kind, url)
    CROSS JOIN LATERAL (SELECT r.secrets, r.headers FROM endpoint_setting r WHERE r.account = x.account AND r.kind = x.kind
      AND md5(r.url) = md5(x.url) AND r.url = x.url OFFSET 0) s`),
  boxes: sql(`INSERT INTO inbox (account, event, inbound, until) SELECT account, no, message, $2::bigint FROM event
    WHERE no = ANY($1::bigint[]) ON CONFLICT DO NOTHING`),
  hooks: sql(`SELECT h.no, h.endpoint, h.account, h.retry, h.token, h.state, h.leased, h.events,
      (SELECT p.kind FROM endpoint p WHERE p.no = h.endpoint) AS kind
    FROM hook h WHERE h.no = ANY($1::bigint[]) ORDER BY h.no FOR NO KEY UPDATE OF h`),
  tries:
    // Numbered on over a replay, whose cycle begins again.
    sql(`INSERT INTO hook_try (hook, retry, at, took, status, excerpt)
    SELECT hook, (SELECT least(coalesce(max(t.retry) + 1, 0), ${TRIES_MAX - 1}) FROM hook_try t WHERE t.hook = x.hook), at, took,
      status, excerpt
    FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::text[]) AS x(hook, at, took, status, excerpt)
    ON CONFLICT (hook, retry) DO UPDATE SET at = excluded.at, took = excluded.took, status = excluded.status,
      excerpt = excluded.excerpt`),
  hooksSet: sql(`UPDATE hook h SET state = x.state, retry = x.retry, leased = false, due_at = x.due_at,
      body = coalesce(x.body, h.body), ended_at = CASE WHEN x.state > 0 THEN $6::bigint END
    FROM unnest($1::bigint[], $2::smallint[], $3::integer[], $4::bigint[], $5::text[]) AS x(no, state, retry, due_at, body)
    WHERE h.no = x.no AND h.no = ANY($1::bigint[])`),
  openMessages: sql(`SELECT m.no FROM message m WHERE m.no = ANY(ARRAY(SELECT o.message FROM event e
    CROSS JOIN LATERAL (SELECT message FROM open_event q WHERE q.message = e.message AND q.event = e.no OFFSET 0) o
    WHERE e.no = ANY($1::bigint[]))) ORDER BY m.no FOR NO KEY UPDATE`),
  openDelete: sql(`DELETE FROM open_event o WHERE o.ctid = ANY(ARRAY(SELECT f.ctid FROM event e
      CROSS JOIN LATERAL (SELECT ctid FROM open_event q WHERE q.message = e.message AND q.event = e.no OFFSET 0) f
      WHERE e.no = ANY($1::bigint[])))
    RETURNING o.message, o.event`),
  openNext: sql(
    'SELECT message, min(event) AS event FROM open_event WHERE message = ANY($1::bigint[]) GROUP BY message',
  ),
  pulls:
    sql(`SELECT e.no AS event, e.account, e.message, e.status, e.leg, m.spec, s.bulk FROM event e JOIN message m ON m.no = e.message
    JOIN spec s ON s.no = m.spec WHERE e.no = ANY($1::bigint[])`),
};

interface EndpointRow {
  no: number;
  account: number;
  url: string;
  content_type: string;
  kind: number;
  open: number;
  fails: number;
  fresh: boolean;
  low_event: number;
  /** Its new bound, where this transaction moved it up. */
  low?: number;
}

interface HookRow {
  no: number;
  endpoint: number;
  account: number;
  retry: number;
  token: number;
  state: number;
  leased: boolean;
  events: number[];
  kind: number;
}

/** What there is to do. */
export interface PeekedHooks {
  now: number;
  woken: boolean;
  /** When the first POST of a node that died is taken back. */
  lease: number | null;
  /** When the first of all is due; null = nobody knows of anything. */
  due: number | null;
  /** Nothing is due now, not even a look for what older nodes left. */
  idle: boolean;
}

/** Whether anything may be due: one read, cheap enough for idle polls. `nowOf`: the store's clock, of the database's. */
export async function peekHooks(
  ask: Ask,
  heads: HookHeads,
  nowOf = (now: number): number => now,
): Promise<PeekedHooks> {
  const found = await heads.look(async ({ wake, lease, due }) => {
    const [row] = await ask.query<HookFound>(SQL.peek, [wake, lease, due]);
    if (!row) throw new Error('the store has no clock row');
    return { ...row, now: nowOf(row.now) };
  });
  const { now, lease } = found;
  const woken = found.wake !== null;
  const due = lease === null || found.due === null ? (lease ?? found.due) : Math.min(lease, found.due);
  return { now, woken, lease, due, idle: !woken && (due === null || due > now) && !heads.straying };
}

/** True = one of these has something that is due now or later. */
async function rest(tx: Tx, endpoints: EndpointRow[]): Promise<boolean> {
  return (await rested(tx, endpoints)).some((due) => due !== null);
}

/** When these are due next. Sent at once. */
async function rested(tx: Tx, endpoints: EndpointRow[]): Promise<(number | null)[]> {
  if (endpoints.length === 0) return [];
  const rows = await tx.query<{ due_at: number | null }>(SQL.rest, [
    list(endpoints.map((row) => row.no)),
    list(endpoints.map((row) => row.open)),
    list(endpoints.map((row) => row.fails)),
    list(endpoints.map((row) => row.fresh)),
    list(endpoints.map(() => tx.seq())),
    tx.now,
    list(endpoints.map((row) => row.kind)),
    list(endpoints.map((row) => row.low ?? null)),
  ]);
  return rows.map((row) => row.due_at);
}

/** POSTs whose node died wait again, with the same bytes and retry number. */
async function takeBackLost(tx: Tx, bounds: HookBounds): Promise<void> {
  const lost = await tx.query<{ no: number; endpoint: number }>(SQL.lost, [tx.now, bounds.lease]);
  if (lost.length === 0) return;
  tx.later(SQL.free, [list(lost.map((hook) => hook.no)), tx.now]);
  const endpoints = await tx.query<EndpointRow>(SQL.lock, [list([...new Set(lost.map((hook) => hook.endpoint))])]);
  for (const endpoint of endpoints) {
    const own = lost.filter((hook) => hook.endpoint === endpoint.no).length;
    endpoint.open = Math.max(0, endpoint.open - own);
  }
  await rest(tx, endpoints);
}

/** A POST that is formed but for what it tells of. */
type Made = Pick<Webhook, 'no' | 'token' | 'retry' | 'body'> & { of: EndpointRow; numbers: number[] };

/** Takes the wakes of some endpoints, which are locked, with what they tell of. */
async function fold(tx: Tx, woken: EndpointRow[], bounds: HookBounds): Promise<void> {
  if (woken.length === 0) return;
  const lowered = await tx.query<Pick<EndpointRow, 'no' | 'low_event'>>(SQL.fold, [
    list(woken.map((row) => row.no)),
    bounds.wake,
  ]);
  const low = byKey(lowered, (row) => row.no);
  for (const row of woken) row.low_event = low.get(row.no)?.low_event ?? row.low_event;
}

/** One POST for each of the endpoints next in turn, behind them those that were woken; `more` = the next round may find something, too. */
async function round(
  tx: Tx,
  most: number,
  lease: number,
  bounds: HookBounds,
  woken: EndpointRow[],
): Promise<{ made: Made[]; more: Promise<boolean> }> {
  const [, endpoints] = await together([
    fold(tx, woken, bounds),
    tx.query<EndpointRow>(SQL.due, [tx.now, most, bounds.due]),
  ]);
  const due = new Set(endpoints.map((row) => row.no));
  const others = woken.filter((row) => !due.has(row.no));
  endpoints.push(...others.splice(0, most - endpoints.length));
  // It wakes in its row, for a later round.
  rested(tx, others).catch(() => undefined);
  if (endpoints.length === 0) return { made: [], more: Promise.resolve(false) };
  type Ready = {
    no: number;
    fresh: boolean;
    hook: number | null;
    retry: number;
    events: number[];
    body: string | null;
  };
  const ready = byKey(
    await tx.query<Ready>(SQL.ready, [
      list(endpoints.map((row) => row.no)),
      list(endpoints.map((row) => row.open)),
      tx.now,
      list(endpoints.map((row) => row.kind)),
      list(endpoints.map((row) => row.low_event)),
    ]),
    (row) => row.no,
  );
  const retries: { endpoint: EndpointRow; token: number; of: Ready }[] = [];
  const fresh: { endpoint: EndpointRow; token: number }[] = [];
  for (const endpoint of endpoints) {
    const of = ready.get(endpoint.no);
    const full = endpoint.open >= (endpoint.fails >= BREAKER ? 1 : ENDPOINT_SLOTS);
    if (!of || full) continue;
    // Retries that are due and fresh events alternate.
    if (of.hook !== null && (endpoint.fresh || !of.fresh)) retries.push({ endpoint, token: tx.seq(), of });
    else if (of.fresh) fresh.push({ endpoint, token: tx.seq() });
  }
  const made = new Map<number, Made>();
  const add = (endpoint: EndpointRow, more: Omit<Made, 'of'>): void => {
    made.set(endpoint.no, { of: endpoint, ...more });
    endpoint.open++;
  };
  if (retries.length > 0) {
    const nos = retries.map(({ of }) => of.hook);
    tx.later(SQL.hooksLease, [list(nos), list(retries.map(({ token }) => token)), lease]);
    for (const { endpoint, token, of } of retries) {
      add(endpoint, { no: of.hook as number, token, retry: of.retry, body: of.body, numbers: of.events });
      endpoint.fresh = false;
    }
  }
  if (fresh.length > 0) {
    const taken = new Map<number, number[]>();
    const nos = list(fresh.map(({ endpoint }) => endpoint.no));
    const most = list(fresh.map(({ endpoint }) => POST_MOST[endpoint.kind] ?? 1));
    const lows = list(fresh.map(({ endpoint }) => endpoint.low_event));
    for (const row of await tx.query<{ endpoint: number; event: number }>(SQL.take, [nos, most, lows])) {
      const own = taken.get(row.endpoint);
      if (own) own.push(row.event);
      else taken.set(row.endpoint, [row.event]);
    }
    for (const own of taken.values()) own.sort((a, b) => a - b);
    const forming = fresh.filter(({ endpoint }) => taken.has(endpoint.no));
    const rows = await tx.query<{ no: number; token: number }>(SQL.hooksAdd, [
      list(forming.map(({ endpoint }) => endpoint.no)),
      list(forming.map(({ endpoint }) => endpoint.account)),
      list(forming.map(({ token }) => token)),
      texts(forming.map(({ endpoint }) => list(taken.get(endpoint.no) as number[]))),
      lease,
      tx.now,
    ]);
    const hookOf = new Map(rows.map((row) => [row.token, row.no]));
    const pairs: [number, number][] = [];
    for (const { endpoint, token } of forming) {
      const no = hookOf.get(token) as number;
      const numbers = taken.get(endpoint.no) as number[];
      for (const event of numbers) pairs.push([event, no]);
      // All that is below was taken by this look, which began after the lock; what is committed later has a wake.
      endpoint.low = (numbers.at(-1) as number) + 1;
      add(endpoint, { no, token, retry: 0, body: null, numbers });
      endpoint.fresh = true;
    }
    tx.later(SQL.eventsHook, [list(pairs.map(([event]) => event)), list(pairs.map(([, hook]) => hook))]);
  }
  const more = rested(tx, endpoints).then(
    (dues) => endpoints.length === most || dues.some((due) => due !== null && due <= tx.now),
  );
  more.catch(() => undefined);
  return { made: endpoints.flatMap((endpoint) => made.get(endpoint.no) ?? []), more };
}

/**
 * At most `limit` POSTs, one an endpoint and round, so that no endpoint's backlog (or death) stands before the others'. `seen`: what was
 * peeked at before. What that did not see, the last look will.
 */
export async function webhookNext(
  tx: Tx,
  limit: number,
  leaseMs: number,
  seen: PeekedHooks,
  heads: HookHeads,
): Promise<Webhooks> {
  const bounds = heads.now;
  const lost = seen.lease !== null && seen.lease <= seen.now;
  if (lost || !seen.woken || heads.straying) await tx.begun;
  if (lost) await takeBackLost(tx, bounds);
  if (heads.straying) {
    const [part] = await tx.query<{ last: number | null }>(SQL.stray, [tx.now, heads.strayed]);
    tx.afterCommit(() => heads.stray(part?.last ?? null));
  }
  let woken = seen.woken ? await tx.query<EndpointRow>(SQL.waking, [bounds.wake]) : [];
  const webhooks: Webhook[] = [];
  for (let rounds = 0; webhooks.length < limit && rounds < ROUNDS; rounds++) {
    const { made, more } = await round(tx, limit - webhooks.length, tx.now + leaseMs, bounds, woken);
    woken = [];
    const [own, again] = await together([filled(tx, made), more]);
    webhooks.push(...own);
    if (!again) break;
  }
  const [specs, next] = await together([
    readSpecs(
      tx,
      webhooks.flatMap((hook) => hook.events.map((event) => event.spec)),
    ),
    peekHooks(tx, heads, () => tx.now),
  ]);
  return { now: tx.now, webhooks, specs, nextDue: next.woken ? tx.now : next.due };
}

/** POSTs with what they tell of and how their endpoints are spoken to. */
async function filled(tx: Tx, made: Made[]): Promise<Webhook[]> {
  if (made.length === 0) return [];
  const endpoints = [...byKey(made, ({ of }) => of.no).values()].map(({ of }) => of);
  type Setting = { endpoint: number; secrets: string; headers: string };
  const numbersOf = (kind: number): number[] =>
    made.filter(({ of }) => of.kind === kind).flatMap(({ numbers }) => numbers);
  const [found, events] = await together([
    tx.query<Setting>(SQL.settings, [
      list(endpoints.map((row) => row.no)),
      list(endpoints.map((row) => row.account)),
      list(endpoints.map((row) => row.kind)),
      texts(endpoints.map((row) => row.url)),
    ]),
    eventsOf(tx, numbersOf(0)),
  ]);
  const settings = byKey(found, (row) => row.endpoint);
  const inbound = new Map<number, InboundRow>();
  const pending = new Map<number, number>();
  const told = numbersOf(1);
  if (told.length > 0) {
    for (const row of await tx.query<{ event: number; body: string }>(SQL.inbound, [list(told)])) {
      inbound.set(row.event, JSON.parse(row.body) as InboundRow);
    }
    const nos = list(endpoints.filter(({ kind }) => kind === 1).map(({ no }) => no));
    for (const row of await tx.query<{ endpoint: number; n: number }>(SQL.pending, [nos])) {
      pending.set(row.endpoint, row.n);
    }
  }
  const clicks = numbersOf(2);
  const words = new Map<number, string>();
  if (clicks.length > 0) {
    for (const row of await tx.query<{ no: number; words: string }>(SQL.words, [list(clicks)])) {
      words.set(row.no, row.words);
    }
  }
  const rowsOf = <Row>(numbers: number[], rows: Map<number, Row>): Row[] =>
    numbers.map((no) => rows.get(no)).filter((row): row is Row => row !== undefined);
  return made.map(({ of, numbers, body, ...hook }) => {
    const setting = settings.get(of.no);
    const secrets = JSON.parse(setting?.secrets ?? '[]') as EndpointSetting['secrets'];
    return {
      ...hook,
      account: of.account,
      kind: kindOf(of.kind),
      endpoint: {
        no: of.no,
        url: of.url,
        contentType: of.content_type,
        secrets: validSecrets(secrets, tx.now),
        headers: JSON.parse(setting?.headers ?? '{}') as EndpointSetting['headers'],
      },
      body: body ?? (of.kind === 2 ? (words.get(numbers[0] as number) ?? null) : null),
      events: of.kind === 0 ? rowsOf(numbers, events) : [],
      inbound: of.kind === 1 ? rowsOf(numbers, inbound) : [],
      pending: pending.get(of.no) ?? 0,
    };
  });
}

async function eventsOf(tx: Tx, numbers: number[]): Promise<Map<number, EventRow>> {
  if (numbers.length === 0) return new Map();
  const rows = await tx.query<EventColumns>(SQL.events, [list(numbers)]);
  return byKey(rows.map(toEvent), (event) => event.event);
}

/** Endpoints after something outside changed what waits under them. */
export async function hooksAgain(tx: Tx, endpoints: Iterable<number>): Promise<void> {
  const locked = await tx.query<EndpointRow>(SQL.lock, [list([...new Set(endpoints)])]);
  if (await rest(tx, locked)) tx.hint('webhooks');
}

/** Outcomes of POSTs, in one transaction. False = the token was stale. */
export async function webhookSettle(tx: Tx, settles: WebhookSettle[]): Promise<boolean[]> {
  const hooks = byKey(
    await tx.query<HookRow>(SQL.hooks, [list([...new Set(settles.map((settle) => settle.no))])]),
    (hook) => hook.no,
  );
  const tries: { hook: HookRow; settle: WebhookSettle }[] = [];
  const sets: { hook: HookRow; state: number; retry: number; due: number | null; body: string | null }[] = [];
  const results = settles.map((settle) => {
    const hook = hooks.get(settle.no);
    if (hook?.state !== 0 || !hook.leased || hook.token !== settle.token) return false;
    hooks.delete(settle.no);
    tries.push({ hook, settle });
    const delay = settle.ok ? null : webhookDelay(hook.retry);
    const state = settle.ok ? 1 : delay === null ? 2 : 0;
    const due = delay === null ? null : tx.now + delay;
    sets.push({
      hook,
      state,
      retry: delay === null ? hook.retry : hook.retry + 1,
      due,
      body: settle.body,
    });
    return true;
  });
  if (tries.length === 0) return results;
  tx.later(SQL.tries, [
    list(tries.map(({ hook }) => hook.no)),
    list(tries.map(({ settle }) => Math.round(tx.now - settle.tookMs))),
    list(tries.map(({ settle }) => Math.round(settle.tookMs))),
    list(tries.map(({ settle }) => settle.status)),
    texts(tries.map(({ settle }) => settle.excerpt.slice(0, EXCERPT))),
  ]);
  tx.later(SQL.hooksSet, [
    list(sets.map(({ hook }) => hook.no)),
    list(sets.map((set) => set.state)),
    list(sets.map((set) => set.retry)),
    list(sets.map((set) => set.due)),
    texts(sets.map(({ body }) => (body === null ? null : plain(body)))),
    tx.now,
  ]);

  // What ended: its messages' next open events come forward, and what nobody took goes to the pull list.
  const unheard = sets.filter((set) => set.state === 2 && set.hook.kind === 1).flatMap(({ hook }) => hook.events);
  if (unheard.length > 0) tx.later(SQL.boxes, [list(unheard), tx.now + EXHAUSTED_MS]);
  const ended = sets.filter((set) => set.state !== 0 && set.hook.kind === 0);
  if (ended.length > 0) {
    const endpointOf = new Map(
      ended.flatMap(({ hook }) => hook.events.map((event) => [event, hook.endpoint] as const)),
    );
    const numbers = list([...endpointOf.keys()]);
    const exhausted = ended.filter((set) => set.state === 2).flatMap(({ hook }) => hook.events);
    if (exhausted.length > 0) {
      type Row = Omit<Pull, 'until'> & { status: number; leg: number };
      // Only finals are pulled: what came between is of no use once nobody listens.
      const rows = (await tx.query<Row>(SQL.pulls, [list(exhausted)])).filter(
        (row) => row.leg !== FAILED_OVER && statusView(row.status).groupName !== 'PENDING',
      );
      const until = tx.now + EXHAUSTED_MS;
      await addToPull(
        tx,
        rows.map(({ event, account, message, spec, bulk }) => ({ event, account, message, spec, bulk, until })),
      );
    }
    if ((await tx.query<{ no: number }>(SQL.openMessages, [numbers])).length > 0) {
      const closed = await tx.query<{ message: number; event: number }>(SQL.openDelete, [numbers]);
      const next = await tx.query<{ message: number; event: number }>(SQL.openNext, [
        list(closed.map((row) => row.message)),
      ]);
      const endpointOfMessage = new Map(closed.map((row) => [row.message, endpointOf.get(row.event) as number]));
      await handOn(
        tx,
        next.map(({ message, event }) => ({ endpoint: endpointOfMessage.get(message) as number, event })),
      );
    }
  }
  const endpoints = byKey(
    await tx.query<EndpointRow>(SQL.lock, [list([...new Set(tries.map(({ hook }) => hook.endpoint))])]),
    (row) => row.no,
  );
  for (const { hook, settle } of tries) {
    const endpoint = endpoints.get(hook.endpoint);
    if (!endpoint) throw new Error(`endpoint ${hook.endpoint} is gone`);
    endpoint.open = Math.max(0, endpoint.open - 1);
    endpoint.fails = settle.ok ? 0 : endpoint.fails + 1;
  }
  if (await rest(tx, [...endpoints.values()])) tx.hint('webhooks');
  return results;
}
