/**
 * Reads: logs, one message's story, the live feed, figures; and takeReports, the one read that consumes (so it runs in the
 * writer's transaction). All newest first by number unless said; every read takes the account.
 */
import type { DatabaseSync, SQLInputValue } from 'node:sqlite';
import { STATUSES } from '../../domain/codes.ts';
import type { EventRow, MessageRow } from '../../domain/rows.ts';
import type { Key, MessageFilter, Page, Stats, Story } from '../contract.ts';
import { MESSAGE_COLUMNS, MESSAGE_JOINS, type MessageColumns, type Reads, toMessage } from './rows.ts';
import { prepare, type Statement, type Tx } from './tx.ts';

type EventColumns = MessageColumns & { event: number; at: number; e_status: number; e_error: number };
const EVENT_COLUMNS = `${MESSAGE_COLUMNS}, e.no AS event, e.at AS at, e.status AS e_status, e.error AS e_error`;

function toEvent(row: EventColumns): EventRow {
  return { ...toMessage(row), event: row.event, at: row.at, status: row.e_status, error: row.e_error, doneAt: row.at };
}

/** Statements by their text: filters make a bounded number of shapes. */
function cachedStatements<Row>(db: DatabaseSync): (sql: string) => Statement<Row> {
  const cache = new Map<string, Statement<Row>>();
  return (sql) => {
    let statement = cache.get(sql);
    if (!statement) {
      if (cache.size >= 200) cache.clear();
      statement = prepare<Row>(db, sql);
      cache.set(sql, statement);
    }
    return statement;
  };
}

/** Conditions of a filter on message m, spec s, bulk b. The account always comes first. */
function conditions(filter: MessageFilter): { where: string[]; values: SQLInputValue[] } {
  const where = ['m.account = ?'];
  const values: SQLInputValue[] = [filter.account];
  const oneOf = (column: string, list: SQLInputValue[]): string => {
    values.push(...list);
    return list.length === 0 ? '0' : `${column} IN (${list.map(() => '?').join(', ')})`;
  };
  if (filter.bulks) {
    const ids = filter.bulks.ids;
    where.push(`(${oneOf('s.bulk', filter.bulks.nos)} OR ${oneOf('b.id', ids)})`);
  }
  if (filter.messages) {
    // A key of the customer's own never hides behind a number of another's, nor the reverse.
    const nos = oneOf('m.no', filter.messages.nos);
    const keys = oneOf('m.key', filter.messages.keys);
    where.push(`((m.key IS NULL AND ${nos}) OR ${keys})`);
  }
  const equal = (column: string, value: SQLInputValue | undefined): void => {
    if (value === undefined) return;
    where.push(`${column} = ?`);
    values.push(value);
  };
  equal('s.sender', filter.sender);
  equal('m."to"', filter.destination);
  equal('s.entity', filter.entity);
  equal('s.application', filter.application);
  if (filter.campaigns) where.push(oneOf('s.campaign', filter.campaigns));
  if (filter.generalStatus !== undefined) {
    const group = filter.generalStatus;
    const ids = Object.values(STATUSES)
      .filter((status) => status.groupName === group)
      .map((status) => status.id);
    where.push(oneOf('m.status', ids));
  }
  if (filter.since !== undefined) {
    where.push('coalesce(m.sent_at, s.accepted_at) >= ?');
    values.push(filter.since);
  }
  if (filter.until !== undefined) {
    where.push('coalesce(m.sent_at, s.accepted_at) <= ?');
    values.push(filter.until);
  }
  return { where, values };
}

export function createTakeReports(tx: Tx, reads: Reads) {
  const statement = cachedStatements<EventColumns>(tx.db);
  const take = prepare(tx.db, 'DELETE FROM pull WHERE account = ? AND event = ?');
  return function takeReports(filter: MessageFilter): Page<EventRow> {
    const { where, values } = conditions(filter);
    const rows = statement(
      `SELECT ${EVENT_COLUMNS} FROM pull p JOIN event e ON e.no = p.event JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
       WHERE p.account = ? AND ${where.join(' AND ')} ORDER BY p.event DESC LIMIT ?`,
    ).all(filter.account, ...values, filter.limit);
    for (const row of rows) take.run(filter.account, row.event);
    const events = rows.map(toEvent);
    return { rows: events, specs: reads.specs([...new Set(events.map((event) => event.spec))]), next: null };
  };
}

export function createReader(db: DatabaseSync, reads: Reads) {
  const statement = cachedStatements<MessageColumns>(db);
  const q = {
    one: prepare<MessageColumns>(
      db,
      `SELECT ${MESSAGE_COLUMNS} FROM message m ${MESSAGE_JOINS} WHERE m.account = ? AND m.no = ? AND m.key IS NULL`,
    ),
    keyed: prepare<MessageColumns>(
      db,
      `SELECT ${MESSAGE_COLUMNS} FROM message_key k JOIN message m ON m.no = k.no ${MESSAGE_JOINS}
       WHERE k.account = ? AND k.key = ?`,
    ),
    leader: prepare<{ leader: number }>(
      db,
      `SELECT CASE WHEN r.members > 0 THEN r.no ELSE ? END AS leader FROM run r
       WHERE r.no <= ? AND r."end" > ? ORDER BY r.no DESC LIMIT 1`,
    ),
    attempts: prepare<{
      n: number;
      generation: number;
      at: number;
      took: number;
      outcome: Story['attempts'][number]['outcome'];
      error: number;
      words: string;
      ref: string | null;
      carrier: string;
    }>(
      db,
      `SELECT a.n, a.generation, a.at, a.took, a.outcome, a.error, a.words, a.ref, l.carrier FROM attempt a
       JOIN lane l ON l.no = a.lane WHERE a.leader = ? ORDER BY a.n LIMIT 1000`,
    ),
    events: prepare<{ no: number; at: number; status: number; error: number; kind: number; words: string }>(
      db,
      'SELECT no, at, status, error, kind, words FROM event WHERE message = ? ORDER BY no LIMIT 1000',
    ),
    tries: prepare<{
      event: number;
      retry: number;
      at: number;
      took: number;
      status: number;
      excerpt: string;
      url: string;
    }>(
      db,
      `SELECT e.no AS event, t.retry, t.at, t.took, t.status, t.excerpt, p.url FROM event e JOIN hook h ON h.no = e.hook
       JOIN hook_try t ON t.hook = h.no JOIN endpoint p ON p.no = h.endpoint WHERE e.message = ? ORDER BY t.at LIMIT 1000`,
    ),
    waiting: prepare<{ due: number | null; paused: number; media: number; until: number | null }>(
      db,
      `SELECT coalesce(t.due_at, r.due_at) AS due, l.paused, r.media, coalesce(t.valid_until, r.valid_until) AS until
       FROM run r JOIN line l ON l.no = r.line LEFT JOIN retry t ON t.leader = ?
       WHERE r.no <= ? AND r."end" > ? ORDER BY r.no DESC LIMIT 1`,
    ),
    feed: prepare<EventColumns>(
      db,
      `SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
       WHERE e.no > ? AND e.account = ? AND e.kind = 0 ORDER BY e.no LIMIT ?`,
    ),
    lastEvent: prepare<{ no: number | null }>(db, 'SELECT max(no) AS no FROM event'),
    keys: prepare<Key>(db, 'SELECT hash, account, label FROM key'),
    install: prepare<{ v: string }>(db, "SELECT v FROM meta WHERE k = 'install'"),
    stats: prepare<Omit<Stats, 'walBytes'>>(
      db,
      `SELECT (SELECT coalesce(sum("end" - next), 0) FROM run WHERE due_at IS NOT NULL) AS waiting,
         (SELECT count(*) FROM flight) AS inFlight, (SELECT count(*) FROM retry) AS retries,
         (SELECT count(*) FROM hook WHERE due_at IS NOT NULL) + (SELECT count(*) FROM outbox) AS webhooksWaiting,
         (SELECT count(*) FROM hook WHERE state = 2) AS webhooksExhausted, (SELECT count(*) FROM pull) AS pull`,
    ),
  };

  return {
    logs(filter: MessageFilter): Page<MessageRow> {
      const { where, values } = conditions(filter);
      if (filter.before !== undefined) {
        where.push('m.no < ?');
        values.push(filter.before);
      }
      const rows = statement(
        `SELECT ${MESSAGE_COLUMNS} FROM message m ${MESSAGE_JOINS} WHERE ${where.join(' AND ')} ORDER BY m.no DESC LIMIT ?`,
      ).all(...values, filter.limit + 1);
      const page = rows.slice(0, filter.limit).map(toMessage);
      const next = rows.length > filter.limit ? (page.at(-1)?.no ?? null) : null;
      return { rows: page, specs: reads.specs([...new Set(page.map((row) => row.spec))]), next };
    },
    story(account: number, id: { no: number } | { key: string }): Story | null {
      const row = 'no' in id ? q.one.get(account, id.no) : q.keyed.get(account, id.key);
      if (!row) return null;
      const message = toMessage(row);
      const spec = reads.specs([message.spec])[0];
      if (!spec) return null;
      const leader = q.leader.get(message.no, message.no, message.no)?.leader ?? message.no;
      const install = q.install.get()?.v ?? '';
      const waiting = q.waiting.get(leader, message.no, message.no);
      const final = message.doneAt !== null;
      return {
        message,
        spec,
        attempts: q.attempts.all(leader).map((attempt) => ({
          n: attempt.n,
          at: attempt.at,
          tookMs: attempt.took,
          outcome: attempt.outcome,
          error: attempt.error,
          words: attempt.words,
          carrier: attempt.carrier,
          carrierMessageId: attempt.ref,
          transactionId: transactionId(install, leader, attempt.generation),
        })),
        events: q.events.all(message.no).map((event) => ({
          event: event.no,
          at: event.at,
          status: event.status,
          error: event.error,
          kind: event.kind === 0 ? 'status' : 'noted',
          words: event.words,
        })),
        webhooks: q.tries.all(message.no).map((row) => ({
          event: row.event,
          retry: row.retry,
          at: row.at,
          tookMs: row.took,
          status: row.status,
          excerpt: row.excerpt,
          url: row.url,
        })),
        waiting: final || !waiting ? null : whyWaiting(message, waiting),
        validUntil: waiting?.until ?? null,
      };
    },
    feed(account: number, after: number, limit: number): { rows: EventRow[]; specs: []; last: number } {
      if (after === 0) return { rows: [], specs: [], last: q.lastEvent.get()?.no ?? 0 };
      const rows = q.feed.all(after, account, limit).map(toEvent);
      return { rows, specs: [], last: rows.at(-1)?.event ?? after };
    },
    keys: (): Key[] => q.keys.all().map((row) => ({ hash: row.hash, account: row.account, label: row.label })),
    stats(walBytes: number): Stats {
      return { ...(q.stats.get() as Omit<Stats, 'walBytes'>), walBytes };
    },
  };
}

function whyWaiting(
  message: MessageRow,
  waiting: { due: number | null; paused: number; media: number },
): { until: number | null; why: string } {
  if (message.claimed) return { until: null, why: 'being submitted' };
  if (message.status === 3) return { until: null, why: 'taken by the carrier, no final report yet' };
  if (waiting.paused === 1) return { until: null, why: 'its bulk is paused' };
  if (waiting.media === 1) return { until: null, why: 'its linked content is being fetched' };
  return { until: waiting.due, why: message.error === 0 ? 'its turn' : 'the next attempt' };
}

/** Stable per message and carrier, unique over installations: what carriers de-duplicate by (G6). */
export function transactionId(install: string, leader: number, generation: number): string {
  return generation === 0 ? `${install}-${leader}` : `${install}-${leader}-${generation}`;
}
