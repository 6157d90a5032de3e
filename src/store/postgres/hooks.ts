/**
 * The outbox to customers: an event waits under its endpoint (`outbox`), is formed with others into a hook (one POST, same
 * bytes and id for all its retries), and leaves when the hook is settled. Messages with intermediate reports keep their
 * open events in `open_event`, and only the oldest is handed on (G9).
 *
 * An endpoint's `due_at` is set only under its lock, after looking at what waits in a later statement; who adds to the
 * outbox inserts an `endpoint_wake` row, which is taken under the same lock. Lock order: hook, message, endpoint.
 */
import { statusView } from '../../domain/codes.ts';
import { webhookDelay } from '../../domain/retry.ts';
import type { EventRow, Webhook, WebhookSettle, Webhooks } from '../contract.ts';
import { addToPull, handOn } from './events.ts';
import { EVENT_COLUMNS, type EventColumns, MESSAGE_JOINS, readSpecs, toEvent } from './rows.ts';
import { type Ask, byKey, list, plain, sql, type Tx, texts } from './tx.ts';

/** Most events in one POST (contract: up to 100 reports). */
const POST_EVENTS = 100;
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
/** Where a webhook was exhausted, its final report can be pulled for this long. */
const EXHAUSTED_PULL_MS = 7 * 86_400_000;
/** First characters kept of an endpoint's answer. */
const EXCERPT = 500;

const ENDPOINT = 'e.no, e.account, e.url, e.content_type, e.secret, e.open, e.fails, e.fresh';
/** Whether fresh events of endpoint e (with x.open POSTs out) may be formed into a POST: any, or only a full one. */
const FRESH_READY = `CASE WHEN x.open < ${FRESH_SLOTS} THEN EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = x.no)
  ELSE EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = x.no ORDER BY o.event OFFSET ${POST_EVENTS - 1} LIMIT 1) END`;

const SQL = {
  waking: sql(`SELECT ${ENDPOINT} FROM endpoint e
    WHERE e.no IN (SELECT w.endpoint FROM endpoint_wake w ORDER BY w.no LIMIT 1000) FOR NO KEY UPDATE OF e SKIP LOCKED`),
  fold: sql('DELETE FROM endpoint_wake WHERE endpoint = ANY($1::bigint[])'),
  lost: sql(`SELECT h.no, h.endpoint FROM hook h WHERE h.leased AND h.due_at <= $1 ORDER BY h.due_at LIMIT ${LOST}
    FOR NO KEY UPDATE SKIP LOCKED`),
  free: sql('UPDATE hook SET leased = false, due_at = $2 WHERE no = ANY($1::bigint[])'),
  lock: sql(`SELECT ${ENDPOINT} FROM endpoint e WHERE e.no = ANY($1::bigint[]) ORDER BY e.no FOR NO KEY UPDATE OF e`),
  due: sql(`SELECT ${ENDPOINT} FROM endpoint e WHERE e.due_at <= $1 ORDER BY e.due_at, e.seq LIMIT $2
    FOR NO KEY UPDATE OF e SKIP LOCKED`),
  // What each of some locked endpoints could send next.
  ready: sql(`SELECT x.no, ${FRESH_READY} AS fresh, h.no AS hook, h.retry, h.events, h.body
    FROM unnest($1::bigint[], $2::integer[]) AS x(no, open) LEFT JOIN LATERAL (SELECT n.no, n.retry, n.events, n.body FROM hook n
      WHERE n.endpoint = x.no AND n.state = 0 AND NOT n.leased AND n.due_at <= $3 ORDER BY n.due_at LIMIT 1) h ON true`),
  hooksLease: sql(`UPDATE hook h SET token = x.token, leased = true, due_at = $3 FROM unnest($1::bigint[], $2::bigint[])
    AS x(no, token) WHERE h.no = x.no`),
  take: sql(`DELETE FROM outbox o USING (SELECT n.endpoint, n.event FROM unnest($1::bigint[]) AS p(endpoint)
      CROSS JOIN LATERAL (SELECT w.endpoint, w.event FROM outbox w WHERE w.endpoint = p.endpoint ORDER BY w.event
        LIMIT ${POST_EVENTS}) n) x
    WHERE o.endpoint = x.endpoint AND o.event = x.event RETURNING o.endpoint, o.event`),
  hooksAdd: sql(`INSERT INTO hook (endpoint, account, state, retry, token, leased, due_at, at, events)
    SELECT endpoint, account, 0, 0, token, true, $5::bigint, $6::bigint, events::bigint[]
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS x(endpoint, account, token, events)
    RETURNING no, token`),
  eventsHook: sql(
    `UPDATE event e SET hook = x.hook FROM unnest($1::bigint[], $2::bigint[]) AS x(no, hook) WHERE e.no = x.no`,
  ),
  // Writes locked endpoints and their next due instant; what is due already goes to the end of the ring.
  rest: sql(`UPDATE endpoint e SET open = x.open, fails = x.fails, fresh = x.fresh, seq = x.seq,
      due_at = CASE WHEN x.open >= CASE WHEN x.fails >= ${BREAKER} THEN 1 ELSE ${ENDPOINT_SLOTS} END THEN NULL
        WHEN ${FRESH_READY} THEN $6::bigint
        ELSE (SELECT CASE WHEN min(h.due_at) IS NULL THEN NULL ELSE greatest(min(h.due_at), $6::bigint) END FROM hook h
          WHERE h.endpoint = x.no AND h.state = 0 AND NOT h.leased) END
    FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::boolean[], $5::bigint[]) AS x(no, open, fails, fresh, seq)
    WHERE e.no = x.no RETURNING e.no, e.due_at`),
  peek: sql(`SELECT greatest(w.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
    EXISTS (SELECT 1 FROM endpoint_wake) AS woken, least((SELECT min(h.due_at) FROM hook h WHERE h.leased),
      (SELECT min(e.due_at) FROM endpoint e WHERE e.due_at IS NOT NULL)) AS due FROM high_water w`),
  events: sql(`SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
    WHERE e.no = ANY($1::bigint[])`),
  hooks: sql(`SELECT no, endpoint, account, retry, token, state, leased, events FROM hook WHERE no = ANY($1::bigint[])
    ORDER BY no FOR NO KEY UPDATE`),
  tries:
    sql(`INSERT INTO hook_try (hook, retry, at, took, status, excerpt) SELECT hook, retry, at, took, status, excerpt
    FROM unnest($1::bigint[], $2::integer[], $3::bigint[], $4::integer[], $5::integer[], $6::text[])
      AS x(hook, retry, at, took, status, excerpt)
    ON CONFLICT (hook, retry) DO UPDATE SET at = excluded.at, took = excluded.took, status = excluded.status,
      excerpt = excluded.excerpt`),
  hooksSet: sql(`UPDATE hook h SET state = x.state, retry = x.retry, leased = false, due_at = x.due_at,
      body = coalesce(x.body, h.body)
    FROM unnest($1::bigint[], $2::smallint[], $3::integer[], $4::bigint[], $5::text[]) AS x(no, state, retry, due_at, body)
    WHERE h.no = x.no`),
  openMessages: sql(`SELECT m.no FROM message m WHERE m.no IN (SELECT o.message FROM event e JOIN open_event o
    ON o.message = e.message AND o.event = e.no WHERE e.no = ANY($1::bigint[])) ORDER BY m.no FOR NO KEY UPDATE`),
  openDelete: sql(`DELETE FROM open_event o USING event e WHERE e.no = ANY($1::bigint[]) AND o.message = e.message
    AND o.event = e.no RETURNING o.message, o.event`),
  openNext: sql(
    'SELECT message, min(event) AS event FROM open_event WHERE message = ANY($1::bigint[]) GROUP BY message',
  ),
  pulls:
    sql(`SELECT e.no AS event, e.account, e.message, e.status, m.spec, s.bulk FROM event e JOIN message m ON m.no = e.message
    JOIN spec s ON s.no = m.spec WHERE e.no = ANY($1::bigint[])`),
};

interface EndpointRow {
  no: number;
  account: number;
  url: string;
  content_type: string;
  secret: string | null;
  open: number;
  fails: number;
  fresh: boolean;
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
}

/** Whether anything may be due: one read, cheap enough for idle polls. */
export async function peekHooks(ask: Ask): Promise<{ now: number; woken: boolean; due: number | null }> {
  const [row] = await ask.query<{ now: number; woken: boolean; due: number | null }>(SQL.peek);
  if (!row) throw new Error('the store has no clock row');
  return row;
}

async function rest(tx: Tx, endpoints: EndpointRow[]): Promise<boolean> {
  if (endpoints.length === 0) return false;
  const rows = await tx.query<{ due_at: number | null }>(SQL.rest, [
    list(endpoints.map((row) => row.no)),
    list(endpoints.map((row) => row.open)),
    list(endpoints.map((row) => row.fails)),
    list(endpoints.map((row) => row.fresh)),
    list(endpoints.map(() => tx.seq())),
    tx.now,
  ]);
  return rows.some((row) => row.due_at !== null);
}

/** POSTs whose node died wait again, with the same bytes and retry number. */
async function takeBackLost(tx: Tx): Promise<void> {
  const lost = await tx.query<{ no: number; endpoint: number }>(SQL.lost, [tx.now]);
  if (lost.length === 0) return;
  await tx.query(SQL.free, [list(lost.map((hook) => hook.no)), tx.now]);
  const endpoints = await tx.query<EndpointRow>(SQL.lock, [list([...new Set(lost.map((hook) => hook.endpoint))])]);
  for (const endpoint of endpoints) {
    const own = lost.filter((hook) => hook.endpoint === endpoint.no).length;
    endpoint.open = Math.max(0, endpoint.open - own);
  }
  await rest(tx, endpoints);
}

type Made = Omit<Webhook, 'events'> & { numbers: number[] };

/** One POST for each of the endpoints next in turn. Null = none is due. */
async function round(tx: Tx, most: number, lease: number): Promise<Made[] | null> {
  const endpoints = await tx.query<EndpointRow>(SQL.due, [tx.now, most]);
  if (endpoints.length === 0) return null;
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
  const add = (endpoint: EndpointRow, more: Pick<Made, 'no' | 'token' | 'retry' | 'body' | 'numbers'>): void => {
    const { no, account, url, content_type: contentType, secret } = endpoint;
    made.set(no, { account, endpoint: { no, url, contentType, secret }, ...more });
    endpoint.open++;
  };
  if (retries.length > 0) {
    const nos = retries.map(({ of }) => of.hook);
    await tx.query(SQL.hooksLease, [list(nos), list(retries.map(({ token }) => token)), lease]);
    for (const { endpoint, token, of } of retries) {
      add(endpoint, { no: of.hook as number, token, retry: of.retry, body: of.body, numbers: of.events });
      endpoint.fresh = false;
    }
  }
  if (fresh.length > 0) {
    const taken = new Map<number, number[]>();
    const nos = list(fresh.map(({ endpoint }) => endpoint.no));
    for (const row of await tx.query<{ endpoint: number; event: number }>(SQL.take, [nos])) {
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
      add(endpoint, { no, token, retry: 0, body: null, numbers });
      endpoint.fresh = true;
    }
    await tx.query(SQL.eventsHook, [list(pairs.map(([event]) => event)), list(pairs.map(([, hook]) => hook))]);
  }
  await rest(tx, endpoints);
  return endpoints.flatMap((endpoint) => made.get(endpoint.no) ?? []);
}

/** At most `limit` POSTs, one an endpoint and round, so that no endpoint's backlog (or death) stands before the others'. */
export async function webhookNext(tx: Tx, limit: number, leaseMs: number): Promise<Webhooks> {
  await takeBackLost(tx);
  const woken = await tx.query<EndpointRow>(SQL.waking);
  if (woken.length > 0) {
    await tx.query(SQL.fold, [list(woken.map((row) => row.no))]);
    await rest(tx, woken);
  }
  const made: Made[] = [];
  for (let rounds = 0; made.length < limit && rounds < ROUNDS; rounds++) {
    const more = await round(tx, limit - made.length, tx.now + leaseMs);
    if (more === null) break;
    made.push(...more);
  }
  const numbers = made.flatMap((hook) => hook.numbers);
  const rows = numbers.length === 0 ? [] : await tx.query<EventColumns>(SQL.events, [list(numbers)]);
  const events = byKey(rows.map(toEvent), (event) => event.event);
  const webhooks = made.map(({ numbers: own, ...hook }) => ({
    ...hook,
    events: own.map((no) => events.get(no)).filter((event): event is EventRow => event !== undefined),
  }));
  const specs = await readSpecs(
    tx,
    webhooks.flatMap((hook) => hook.events.map((event) => event.spec)),
  );
  const next = await peekHooks(tx);
  return { now: tx.now, webhooks, specs, nextDue: next.woken ? tx.now : next.due };
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
      body: settle.ok ? null : settle.body,
    });
    return true;
  });
  if (tries.length === 0) return results;
  await tx.query(SQL.tries, [
    list(tries.map(({ hook }) => hook.no)),
    list(tries.map(({ hook }) => hook.retry)),
    list(tries.map(({ settle }) => Math.round(tx.now - settle.tookMs))),
    list(tries.map(({ settle }) => Math.round(settle.tookMs))),
    list(tries.map(({ settle }) => settle.status)),
    texts(tries.map(({ settle }) => settle.excerpt.slice(0, EXCERPT))),
  ]);
  await tx.query(SQL.hooksSet, [
    list(sets.map(({ hook }) => hook.no)),
    list(sets.map((set) => set.state)),
    list(sets.map((set) => set.retry)),
    list(sets.map((set) => set.due)),
    texts(sets.map(({ body }) => (body === null ? null : plain(body)))),
  ]);

  // What ended: its messages' next open events come forward, and what nobody took goes to the pull list.
  const ended = sets.filter((set) => set.state !== 0);
  if (ended.length > 0) {
    const endpointOf = new Map(
      ended.flatMap(({ hook }) => hook.events.map((event) => [event, hook.endpoint] as const)),
    );
    const numbers = list([...endpointOf.keys()]);
    const exhausted = ended.filter((set) => set.state === 2).flatMap(({ hook }) => hook.events);
    if (exhausted.length > 0) {
      type Row = { event: number; account: number; message: number; status: number; spec: number; bulk: number };
      // Only finals are pulled: what came between is of no use once nobody listens.
      const rows = (await tx.query<Row>(SQL.pulls, [list(exhausted)])).filter(
        (row) => statusView(row.status).groupName !== 'PENDING',
      );
      const until = tx.now + EXHAUSTED_PULL_MS;
      await addToPull(
        tx,
        rows.map(({ event, account, message, spec, bulk }) => ({ event, account, message, spec, bulk, until })),
      );
    }
    const held = await tx.query<{ no: number }>(SQL.openMessages, [numbers]);
    if (held.length > 0) {
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
