/**
 * Reads: logs, one message's story, the live feed, figures; and takeReports, the one read that consumes (so it runs in a
 * transaction). Newest first by number unless said; every read takes the account. Statements run on the primary, never on a
 * replica: what was acknowledged is seen.
 */
import { STATUSES } from '../../domain/codes.ts';
import { legOf, smsLeader } from '../../domain/failover.ts';
import type { EventRow, MessageRow, SpecRow } from '../../domain/rows.ts';
import { transactionId } from '../../domain/submission.ts';
import type { Key, MessageFilter, Page, Stats, Story } from '../contract.ts';
import { type EventColumns, MESSAGE_JOINS, type MessageColumns, toEvent, toMessage } from '../message-rows.ts';
import { gateOf, sharedEnd, type Unfetched, whyWaiting } from '../waiting.ts';
import { answersOf } from './inbound.ts';
import { clicksOf } from './links.ts';
import { EVENT_COLUMNS, MESSAGE_COLUMNS, readSpecs } from './rows.ts';
import { BULK, type BulkColumns, RUN, type RunColumns, toBulk, toRun } from './runs.ts';
import { EVENT_LOCK } from './schema.ts';
import { soughtNumbers } from './sought.ts';
import { type Ask, list, plain, sql, type Tx, texts, type Value } from './tx.ts';

/** Messages that one page of logs may look at, in steps that grow: most pages end with the first. About 0.5 s. */
const BUDGET = 200_000;
const LOOK_FIRST = 2_000;
/** Of a filter that says something of specs: specs looked at in a step, those that pass, and messages of theirs. */
const SPECS_FIRST = 500;
const SPECS_MOST = 50_000;
const SPANS_MOST = 1_000;
const CHUNK_MOST = 50_000;
/** Attempts, events or tries shown of one message. */
const STORY_MAX = 1000;

const SQL = {
  bulkIds: sql('SELECT no FROM bulk WHERE account = $1 AND id = ANY($2::text[])'),
  keyNos: sql('SELECT no FROM message_key WHERE account = $1 AND key = ANY($2::text[])'),
  floor: sql('SELECT no FROM message WHERE account = $1 AND no < $2 ORDER BY no DESC OFFSET $3 LIMIT 1'),
  // By the index spec_account_first, here and below.
  specFloor: sql('SELECT first FROM spec WHERE account = $1 AND first < $2 ORDER BY first DESC OFFSET $3 LIMIT 1'),
  spansOfBulks: sql(`SELECT s.first, s."end" AS "end" FROM unnest($1::bigint[]) AS b (no)
    CROSS JOIN LATERAL (SELECT first, "end" FROM spec q WHERE q.bulk = b.no AND q.account + 0 = $2 AND q.first < $3
      ORDER BY q.first DESC LIMIT $4) s
    ORDER BY s.first DESC LIMIT $4`),
  one: sql(
    `SELECT ${MESSAGE_COLUMNS} FROM message m ${MESSAGE_JOINS} WHERE m.account = $1 AND m.no = $2 AND m.key IS NULL`,
  ),
  keyed: sql(`SELECT ${MESSAGE_COLUMNS} FROM message_key k JOIN message m ON m.no = k.no ${MESSAGE_JOINS}
    WHERE k.account = $1 AND k.key = $2`),
  run: sql(`SELECT ${RUN}, r.due_at, l.bulk, l.paused, x.carrier FROM run r JOIN line l ON l.no = r.line
    JOIN lane x ON x.no = l.lane WHERE r.no <= $1 AND r.no >= least($1, (SELECT s.first FROM spec s WHERE s.no = $2))
    ORDER BY r.no DESC LIMIT 1`),
  bulk: sql(`SELECT ${BULK} FROM bulk b WHERE b.no = $1`),
  // It may have been handed on to another carrier than its run's.
  retry:
    sql(`SELECT t.due_at, t.valid_until, x.carrier FROM retry t JOIN line l ON l.no = t.line JOIN lane x ON x.no = l.lane
    WHERE t.leader = $1`),
  unfetched: sql(`SELECT segment, tries, words, due_at AS due FROM media
    WHERE spec = $1 AND hash IS NULL AND due_at IS NOT NULL AND words IS NOT NULL ORDER BY segment LIMIT 1`),
  flight: sql('SELECT valid_until FROM flight WHERE leader = $1'),
  attempts: sql(`SELECT a.n, a.generation, a.at, a.took, a.outcome, a.error, a.words, a.ref, l.carrier FROM attempt a
    JOIN lane l ON l.no = a.lane WHERE a.leader = $1 ORDER BY a.n LIMIT ${STORY_MAX}`),
  events: sql(`SELECT no, at, status, error, kind, words FROM event WHERE message = $1 AND kind < 2 ORDER BY no
    LIMIT ${STORY_MAX}`),
  tries:
    sql(`SELECT e.no AS event, t.retry, t.at, t.took, t.status, t.excerpt, p.url FROM event e JOIN hook h ON h.no = e.hook
    JOIN hook_try t ON t.hook = h.no JOIN endpoint p ON p.no = h.endpoint WHERE e.message = $1
    ORDER BY t.at, e.no, t.retry LIMIT ${STORY_MAX}`),
  // The lowest number that an open transaction may still bring, minus one. The sequence is read first, in the same
  // statement's text order but safe in any: see event_numbers.
  lastEvent: sql('SELECT last_value AS no FROM event_no'),
  openEvents: sql(`SELECT min(((l.classid::bigint << 32) | l.objid::bigint) - ${EVENT_LOCK}) AS floor FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid::bigint >> 16 = ${EVENT_LOCK >> 48n}
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())`),
  feed: sql(`SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
    WHERE e.account = $2 AND e.no > $1 AND e.no <= $4 AND e.kind = 0 ORDER BY e.no LIMIT $3`),
  keys: sql('SELECT hash, account, label FROM key ORDER BY account, label'),
  install: sql("SELECT v FROM meta WHERE k = 'install'"),
  stats: sql(`SELECT (SELECT coalesce(sum("end" - next), 0)::bigint FROM run WHERE due_at IS NOT NULL) AS waiting,
    (SELECT count(*) FROM flight) AS "inFlight", (SELECT count(*) FROM retry) AS retries,
    (SELECT count(*) FROM hook WHERE state = 0) + (SELECT count(*) FROM outbox) AS "webhooksWaiting",
    (SELECT count(*) FROM hook WHERE state = 2) AS "webhooksExhausted", (SELECT count(*) FROM pull) AS pull`),
  waitingAt: sql(`SELECT l.carrier, sum(w.count)::bigint AS count FROM (
      SELECT line, sum("end" - next) AS count FROM run WHERE due_at IS NOT NULL GROUP BY line
      UNION ALL SELECT line, count(*) FROM retry GROUP BY line) w
    JOIN line n ON n.no = w.line JOIN lane l ON l.no = n.lane
    GROUP BY l.carrier HAVING sum(w.count) > 0 ORDER BY l.carrier COLLATE "C"`),
};

/** Conditions of a filter on message m, spec s; `values` begins with what the caller has used already. */
async function conditions(ask: Ask, filter: MessageFilter, values: Value[], status = 'm.status'): Promise<string[]> {
  const put = (value: Value): string => `$${values.push(value)}`;
  const where = [`m.account = ${put(filter.account)}`];
  // Ids become numbers first: OR over a join would keep every index from being used.
  if (filter.bulks) {
    const { nos, ids } = filter.bulks;
    const found = ids.length === 0 ? [] : await ask.query<{ no: number }>(SQL.bulkIds, [filter.account, texts(ids)]);
    where.push(`s.bulk = ANY(${put(list([...nos, ...found.map((row) => row.no)]))}::bigint[])`);
  }
  if (filter.messages) {
    const { nos, keys } = filter.messages;
    const found = keys.length === 0 ? [] : await ask.query<{ no: number }>(SQL.keyNos, [filter.account, texts(keys)]);
    const keyed = found.map((row) => row.no);
    // A key of the customer's own never hides behind a number of another's, nor the reverse.
    const all = put(list([...nos, ...keyed]));
    where.push(`m.no = ANY(${all}::bigint[]) AND (m.key IS NULL OR m.no = ANY(${put(list(keyed))}::bigint[]))`);
  }
  const equal = (column: string, value: string | undefined): void => {
    if (value !== undefined) where.push(`${column} = ${put(plain(value))}`);
  };
  equal('s.sender', filter.sender);
  equal('m."to"', filter.destination);
  equal('s.entity', filter.entity);
  equal('s.application', filter.application);
  if (filter.campaigns) where.push(`s.campaign = ANY(${put(texts(filter.campaigns))}::text[])`);
  if (filter.generalStatus !== undefined) {
    const group = filter.generalStatus;
    const ids = Object.values(STATUSES)
      .filter((status) => status.groupName === group)
      .map((status) => status.id);
    where.push(`${status} = ANY(${put(list(ids))}::smallint[])`);
  }
  if (filter.since !== undefined) where.push(`coalesce(m.sent_at, s.accepted_at) >= ${put(filter.since)}`);
  if (filter.until !== undefined) where.push(`coalesce(m.sent_at, s.accepted_at) <= ${put(filter.until)}`);
  return where;
}

/** Finals of the pull list, taken: locked rows of another taker are passed by, so each is handed out once (G16). */
export async function takeReports(tx: Tx, filter: MessageFilter): Promise<Page<EventRow>> {
  const values: Value[] = [];
  const where = await conditions(tx, filter, values, 'e.status');
  const now = values.push(tx.now);
  const account = values.push(filter.account);
  const limit = values.push(filter.limit);
  const rows = await tx.query<EventColumns>(
    // OFFSET 0, + 0: by the account's own list, whatever the planner makes of policies.
    `WITH picked AS (SELECT p.event FROM pull p
        CROSS JOIN LATERAL (SELECT message, status FROM event q WHERE q.no = p.event OFFSET 0) e JOIN message m ON m.no = e.message
        ${MESSAGE_JOINS} WHERE p.account = $${account} AND p.until + 0 > $${now} AND ${where.join(' AND ')} ORDER BY p.event DESC LIMIT $${limit}
        FOR UPDATE OF p SKIP LOCKED),
      taken AS (DELETE FROM pull p USING picked x WHERE p.account = $${account} AND p.event = x.event
        RETURNING p.event, p.message, p.spec, p.bulk, p.until),
      kept AS (INSERT INTO taken (account, at, event, kind, message, spec, bulk, until)
        SELECT $${account}, $${now}, event, 0, message, spec, bulk, until FROM taken ON CONFLICT DO NOTHING)
     SELECT ${EVENT_COLUMNS} FROM taken t JOIN event e ON e.no = t.event JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
     ORDER BY e.no DESC`,
    values,
  );
  const events = rows.map(toEvent);
  return {
    rows: events,
    specs: await readSpecs(
      tx,
      events.map((event) => event.spec),
    ),
    next: null,
  };
}

/** Pages of messages, newest first. What a filter leaves out is looked at in steps, and no more than BUDGET a page. */
export async function logs(ask: Ask, filter: MessageFilter): Promise<Page<MessageRow>> {
  const { account, limit, destination, messages } = filter;
  const before = filter.before ?? Number.MAX_SAFE_INTEGER;
  const found = messages || destination === undefined ? null : await soughtNumbers(ask, account, destination, before);
  if (!messages && !found && asksOfSpecs(filter)) return logsOfSpecs(ask, filter, before);
  const rows: MessageRow[] = [];
  let place = before;
  for (let look = LOOK_FIRST, left = BUDGET; ; look = Math.min(look * 8, left)) {
    // Named messages are few, and those to one destination.
    const among = found?.splice(0, look);
    let floor: number | null = null;
    if (among && found && found.length > 0) floor = among.at(-1) ?? null;
    else if (!found && !messages) floor = await floorOf(ask, account, place, look);
    const range = { floor: floor ?? 0, place, ...(among ? { among } : {}) };
    rows.push(...(await search(ask, filter, range, limit + 1 - rows.length)));
    if (rows.length > limit) return pageOf(ask, rows.slice(0, limit), rows[limit - 1]?.no ?? null);
    left -= look;
    if (floor === null || left <= 0) return pageOf(ask, rows, floor);
    place = floor;
  }
}

async function pageOf(ask: Ask, rows: MessageRow[], next: number | null): Promise<Page<MessageRow>> {
  const specs = await readSpecs(
    ask,
    rows.map((row) => row.spec),
  );
  return { rows, specs, next };
}

/** The number of the `look`-th message of an account below `place`; null = there are fewer. */
async function floorOf(ask: Ask, account: number, place: number, look: number): Promise<number | null> {
  return (await ask.query<{ no: number }>(SQL.floor, [account, place, look - 1]))[0]?.no ?? null;
}

/** Messages in [floor, place) that pass the filter, newest first. */
async function search(
  ask: Ask,
  filter: MessageFilter,
  range: { floor: number; place: number; among?: number[] },
  limit: number,
): Promise<MessageRow[]> {
  const values: Value[] = [];
  const where = await conditions(ask, filter, values);
  where.push(`m.no >= $${values.push(range.floor)}`, `m.no < $${values.push(range.place)}`);
  if (range.among) where.push(`m.no = ANY($${values.push(list(range.among))}::bigint[])`);
  const last = values.push(limit);
  const rows = await ask.query<MessageColumns>(
    `SELECT ${MESSAGE_COLUMNS} FROM message m ${MESSAGE_JOINS} WHERE ${where.join(' AND ')} ORDER BY m.no DESC LIMIT $${last}`,
    values,
  );
  return rows.map(toMessage);
}

// --- by spec: what a filter says of specs is looked for there, and only the messages of those that pass are looked at

/** A spec's messages' numbers [first, end). */
interface Span {
  first: number;
  end: number;
}

function asksOfSpecs({ bulks, sender, entity, application, campaigns, until }: MessageFilter): boolean {
  return [bulks, sender, entity, application, campaigns, until].some((asked) => asked !== undefined);
}

/** `logs` for a filter that says something of specs. Numbers of specs and of their messages rise together within an account. */
async function logsOfSpecs(ask: Ask, filter: MessageFilter, before: number): Promise<Page<MessageRow>> {
  const { limit } = filter;
  const bulks = filter.bulks ? await bulkNos(ask, filter) : null;
  const rows: MessageRow[] = [];
  let top = before;
  let left = BUDGET;
  let chunk = LOOK_FIRST;
  for (let look = SPECS_FIRST; ; look = Math.min(look * 8, SPECS_MOST)) {
    const { spans, rest } = await spansOf(ask, filter, bulks, top, look);
    for (let at = 0; at < spans.length; chunk = Math.min(chunk * 8, CHUNK_MOST)) {
      const some: Span[] = [];
      let size = 0;
      for (; at < spans.length && size < chunk; at++) {
        const span = spans[at] as Span;
        some.push(span);
        size += span.end - span.first;
      }
      rows.push(...(await searchSpans(ask, filter, some, before, limit + 1 - rows.length)));
      if (rows.length > limit) return pageOf(ask, rows.slice(0, limit), rows[limit - 1]?.no ?? null);
      left -= size;
      // All that is older lies below its first one.
      if (left <= 0 && (rest !== null || at < spans.length)) return pageOf(ask, rows, (some.at(-1) as Span).first);
    }
    if (rest === null) return pageOf(ask, rows, null);
    left -= look;
    if (left <= 0) return pageOf(ask, rows, rest.first);
    top = rest.first;
  }
}

/** The account's specs below `top` that may pass, newest first, of `look` that are looked at; `rest` = the last of those, null = there are no more. */
async function spansOf(
  ask: Ask,
  filter: MessageFilter,
  bulks: number[] | null,
  top: number,
  look: number,
): Promise<{ spans: Span[]; rest: { first: number } | null }> {
  const { account } = filter;
  if (bulks !== null) {
    const spans = await ask.query<Span>(SQL.spansOfBulks, [list(bulks), account, top, look]);
    return { spans, rest: spans.length < look ? null : (spans.at(-1) ?? null) };
  }
  const [floor = null] = await ask.query<{ first: number }>(SQL.specFloor, [account, top, look - 1]);
  const values: Value[] = [account, floor?.first ?? 0, top];
  const put = (value: Value): string => `$${values.push(value)}`;
  const where: string[] = [];
  const equal = (column: string, value: string | undefined): void => {
    if (value !== undefined) where.push(`AND ${column} = ${put(plain(value))}`);
  };
  equal('sender', filter.sender);
  equal('entity', filter.entity);
  equal('application', filter.application);
  if (filter.campaigns) where.push(`AND campaign = ANY(${put(texts(filter.campaigns))}::text[])`);
  // Nothing is sent before it is accepted.
  if (filter.until !== undefined) where.push(`AND accepted_at <= ${put(filter.until)}`);
  const spans = await ask.query<Span>(
    `SELECT first, "end" AS "end" FROM spec WHERE account = $1 AND first >= $2 AND first < $3 ${where.join(' ')}
     ORDER BY first DESC LIMIT ${SPANS_MOST}`,
    values,
  );
  return { spans, rest: spans.length < SPANS_MOST ? floor : (spans.at(-1) ?? null) };
}

/** Messages of these specs below `place` that pass the filter, newest first. */
async function searchSpans(
  ask: Ask,
  filter: MessageFilter,
  spans: Span[],
  place: number,
  limit: number,
): Promise<MessageRow[]> {
  const values: Value[] = [];
  const { bulks: _, ...others } = filter;
  const where = await conditions(ask, others, values);
  const firsts = values.push(list(spans.map(({ first }) => first)));
  const ends = values.push(list(spans.map(({ end }) => end)));
  const below = values.push(place);
  const last = values.push(limit);
  const rows = await ask.query<MessageColumns>(
    `SELECT ${MESSAGE_COLUMNS} FROM unnest($${firsts}::bigint[], $${ends}::bigint[]) AS r (first, "end")
     CROSS JOIN LATERAL (SELECT no, account, spec, "to", key, state, status, error, sent_at, done_at, leg FROM message q
       WHERE q.no >= r.first AND q.no < r."end" AND q.no < $${below} OFFSET 0) m
     ${MESSAGE_JOINS} WHERE ${where.join(' AND ')} ORDER BY m.no DESC LIMIT $${last}`,
    values,
  );
  return rows.map(toMessage);
}

async function bulkNos(ask: Ask, filter: MessageFilter): Promise<number[]> {
  const { nos, ids } = filter.bulks ?? { nos: [], ids: [] };
  const found = ids.length === 0 ? [] : await ask.query<{ no: number }>(SQL.bulkIds, [filter.account, texts(ids)]);
  return [...new Set([...nos, ...found.map((row) => row.no)])];
}

/** A message of an account with its events, attempts and why it waits; null = the account has none of that name. */
export async function story(ask: Ask, account: number, id: { no: number } | { key: string }): Promise<Story | null> {
  const [row] =
    'no' in id
      ? await ask.query<MessageColumns>(SQL.one, [account, id.no])
      : await ask.query<MessageColumns>(SQL.keyed, [account, plain(id.key)]);
  if (!row) return null;
  const message = toMessage(row);
  const [spec] = await readSpecs(ask, [message.spec]);
  if (!spec) return null;
  type Run = RunColumns & { due_at: number | null; bulk: number; paused: boolean; carrier: string };
  const [nearest] = await ask.query<Run>(SQL.run, [message.no, message.spec]);
  // Refused at the door: in no run.
  const origin = nearest && nearest.end > message.no ? nearest : null;
  const first = origin && origin.members > 0 ? origin.no : message.no;
  const sms = smsLeader(message.no);
  // The leg that it is on.
  const [second] = message.leg === 1 ? await ask.query<Run>(SQL.run, [sms, message.spec]) : [];
  const placed = message.leg === 1 ? (second?.no === sms ? second : null) : origin;
  const leader = message.leg === 1 ? sms : first;
  const run = placed ? toRun(placed) : null;
  const [bulkRow] = placed && placed.bulk !== 0 ? await ask.query<BulkColumns>(SQL.bulk, [placed.bulk]) : [];
  const [retry] = await ask.query<{ due_at: number; valid_until: number; carrier: string }>(SQL.retry, [leader]);
  const [flight] = await ask.query<{ valid_until: number }>(SQL.flight, [leader]);
  const [unfetched] = placed?.media ? await ask.query<Unfetched>(SQL.unfetched, [message.spec]) : [];
  const bulk = bulkRow ? toBulk(bulkRow) : null;
  const shared = run ? sharedEnd(run, bulk) : null;
  const install = (await ask.query<{ v: string }>(SQL.install))[0]?.v ?? '';
  type Attempt = {
    n: number;
    generation: number;
    at: number;
    took: number;
    outcome: Story['attempts'][number]['outcome'];
    error: number;
    words: string;
    ref: string | null;
    carrier: string;
  };
  const attempts: (Attempt & { leader: number })[] = [];
  for (const one of [first, sms]) {
    for (const attempt of await ask.query<Attempt>(SQL.attempts, [one])) attempts.push({ ...attempt, leader: one });
  }
  type Event = { no: number; at: number; status: number; error: number; kind: number; words: string };
  const events = await ask.query<Event>(SQL.events, [message.no]);
  type Try = { event: number; retry: number; at: number; took: number; status: number; excerpt: string; url: string };
  const tries = await ask.query<Try>(SQL.tries, [message.no]);
  return {
    message,
    spec,
    attempts: attempts.map((attempt) => ({
      n: attempt.n,
      channel: legOf(attempt.leader) === 1 ? 'SMS' : 'MMS',
      at: attempt.at,
      tookMs: attempt.took,
      outcome: attempt.outcome,
      error: attempt.error,
      words: attempt.words,
      carrier: attempt.carrier,
      carrierMessageId: attempt.ref,
      transactionId: transactionId(install, attempt.leader, attempt.generation),
    })),
    events: events.map((event) => ({
      event: event.no,
      at: event.at,
      status: event.status,
      error: event.error,
      kind: event.kind === 0 ? 'status' : 'noted',
      words: event.words,
    })),
    webhooks: tries.map((one) => ({
      event: one.event,
      retry: one.retry,
      at: one.at,
      tookMs: one.took,
      status: one.status,
      excerpt: one.excerpt,
      url: one.url,
    })),
    answers: await answersOf(ask, message.no, account),
    clicks: await clicksOf(ask, message.no),
    waiting:
      message.doneAt !== null || !placed
        ? null
        : whyWaiting(message, {
            due: retry?.due_at ?? placed.due_at,
            paused: placed.paused,
            media: Boolean(placed.media),
            unfetched,
            carrier: retry?.carrier ?? placed.carrier,
            ...(run ? { gate: gateOf(run, bulk) } : {}),
          }),
    validUntil: flight?.valid_until ?? (retry?.valid_until || shared),
  };
}

/** Events after a number (0 = from now, below = from the first), never past one that an open transaction may bring. */
export async function feed(
  ask: Ask,
  account: number,
  after: number,
  limit: number,
): Promise<{ rows: EventRow[]; specs: SpecRow[]; last: number }> {
  // Three statements in this order: numbers given so far, those still open among them, then what is committed.
  const [given] = await ask.query<{ no: number }>(SQL.lastEvent);
  const [open] = await ask.query<{ floor: number | null }>(SQL.openEvents);
  const head = Math.max(1, Math.min(given?.no ?? 1, open?.floor ?? Number.MAX_SAFE_INTEGER));
  if (after === 0) return { rows: [], specs: [], last: head };
  const place = Math.max(after, 0);
  const rows = (await ask.query<EventColumns>(SQL.feed, [place, account, limit, head])).map(toEvent);
  // A full page may have more behind its last row.
  const last = rows.length < limit ? Math.max(head, place) : (rows.at(-1)?.event ?? head);
  const specs = await readSpecs(
    ask,
    rows.map((row) => row.spec),
  );
  return { rows, specs, last };
}

export const keys = (ask: Ask): Promise<Key[]> => ask.query<Key>(SQL.keys);

/** Sizes of the queue for health and metrics. walBytes is always 0: the log is the server's. */
export async function stats(ask: Ask): Promise<Stats> {
  type Sums = Omit<Stats, 'walBytes' | 'waitingAt'>;
  const [row] = await ask.query<Sums>(SQL.stats);
  return { ...(row as Sums), walBytes: 0, waitingAt: await ask.query<Stats['waitingAt'][number]>(SQL.waitingAt) };
}
