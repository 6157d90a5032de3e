/**
 * Reads: logs, one message's story, the live feed, figures; and takeReports, the one read that consumes (so it runs in the
 * writer's transaction). All newest first by number unless said; every read takes the account.
 *
 * A filter never becomes SQL: values are bound, and what no index knows is looked at row by row, newest first, within a
 * budget. A page that used up its budget is short and says where to go on.
 */

import type { DatabaseSync } from 'node:sqlite';
import { STATUSES } from '../../domain/codes.ts';
import { legOf, smsLeader } from '../../domain/failover.ts';
import type { EventRow, MessageRow, SpecRow } from '../../domain/rows.ts';
import { transactionId } from '../../domain/submission.ts';
import type { Bulk, BulkName, Key, MessageFilter, Page, Stats, Story } from '../contract.ts';
import {
  type EventColumns,
  MESSAGE_JOINS,
  type MessageColumns,
  type MessageOwnColumns,
  toEvent,
  toMessage,
} from '../message-rows.ts';
import { gateOf, sharedEnd, type Unfetched, whyWaiting } from '../waiting.ts';
import { createAccountReads } from './accounts.ts';
import { createBulkReads } from './bulk.ts';
import { createDeliveryReads } from './deliveries.ts';
import { createInboundReads } from './inbound.ts';
import { createLinkReads } from './links.ts';
import { EVENT_COLUMNS, MESSAGE_COLUMNS, MESSAGE_OWN_COLUMNS, type Reads } from './rows.ts';
import { createRuns } from './runs.ts';
import { createSoughtReads } from './sought.ts';
import { prepare, type Tx } from './tx.ts';

/** What one page of logs may look at: a message costs 1, a spec SPEC_COST (a query of its own). About 0.2 s. */
const BUDGET = 400_000;
const SPEC_COST = 10;
/** Specs fetched at a time: few at first, since most pages end soon. */
const SPECS_FIRST = 64;
const SPECS_MOST = 4096;
/** Pull entries fetched at a time. */
const PULLS = 200;
/** Numbers of events that one call of the feed walks over at most, in steps. */
const FEED_STEP = 10_000;
const FEED_STEPS = 20;

interface SpecHead {
  no: number;
  account: number;
  bulk: number;
  first: number;
  end: number;
  accepted_at: number;
  sender: string;
  campaign: string | null;
  entity: string | null;
  application: string | null;
}
const SPEC_HEAD = 'no, account, bulk, first, "end" AS "end", accepted_at, sender, campaign, entity, application';

/** The ids of statuses in a group; an unknown group has none. */
function statusesOf(group: string): Set<number> {
  const ids = Object.values(STATUSES)
    .filter((status) => status.groupName === group)
    .map((status) => status.id);
  return new Set(ids);
}

/** A filter as two questions: does anything of this spec match, and does this message of it? */
function createFilter(db: DatabaseSync) {
  const q = {
    bulkById: prepare<{ no: number }>(db, 'SELECT no FROM bulk WHERE account = ? AND id = ?'),
    key: prepare<{ no: number }>(db, 'SELECT no FROM message_key WHERE account = ? AND key = ?'),
  };
  return function read(filter: MessageFilter) {
    const { account, sender, entity, application, destination, since, until } = filter;
    const bulks = filter.bulks
      ? new Set([...filter.bulks.nos, ...filter.bulks.ids.flatMap((id) => q.bulkById.get(account, id)?.no ?? [])])
      : null;
    const campaigns = filter.campaigns ? new Set(filter.campaigns) : null;
    const statuses = filter.generalStatus === undefined ? null : statusesOf(filter.generalStatus);
    let messages: Set<number> | null = null;
    let keyed: Set<number> | null = null;
    if (filter.messages) {
      keyed = new Set(filter.messages.keys.flatMap((key) => q.key.get(account, key)?.no ?? []));
      messages = new Set([...filter.messages.nos, ...keyed]);
    }
    return {
      bulks: bulks === null ? null : [...bulks],
      /** Newest first. */
      messages: messages === null ? null : [...messages].sort((a, b) => b - a),
      spec(spec: SpecHead): boolean {
        return (
          spec.account === account &&
          (bulks === null || bulks.has(spec.bulk)) &&
          (sender === undefined || spec.sender === sender) &&
          (entity === undefined || spec.entity === entity) &&
          (application === undefined || spec.application === application) &&
          (campaigns === null || (spec.campaign !== null && campaigns.has(spec.campaign))) &&
          // Nothing is sent before it is accepted.
          (until === undefined || spec.accepted_at <= until)
        );
      },
      message(row: MessageOwnColumns, spec: SpecHead): boolean {
        const at = row.m_sent ?? spec.accepted_at;
        return (
          // A key of the customer's own never hides behind a number of another's, nor the reverse.
          (messages === null || (messages.has(row.m_no) && (row.m_key === null || keyed?.has(row.m_no) === true))) &&
          (destination === undefined || row.m_to === destination) &&
          (statuses === null || statuses.has(row.m_status)) &&
          (since === undefined || at >= since) &&
          (until === undefined || at <= until)
        );
      },
    };
  };
}

/** The two ways to bind a place "before everything". */
const END = Number.MAX_SAFE_INTEGER;

/** The verb `takeReports`: a write, since what it hands out is taken. */
export function createTakeReports(tx: Tx, reads: Reads) {
  const db = tx.db;
  const readFilter = createFilter(db);
  const q = {
    newest: prepare<Pulled>(
      db,
      `SELECT event, message, spec FROM pull WHERE account = ? AND event < ? AND until > ? ORDER BY event DESC LIMIT ${PULLS}`,
    ),
    ofBulk: prepare<Pulled>(
      db,
      `SELECT event, message, spec FROM pull WHERE account = ? AND bulk = ? AND event < ? AND until > ?
       ORDER BY event DESC LIMIT ${PULLS}`,
    ),
    ofMessage: prepare<Pulled>(
      db,
      `SELECT p.event, p.message, p.spec FROM event e JOIN pull p ON p.account = ? AND p.event = e.no
       WHERE e.message = ? AND p.until > ? ORDER BY e.no DESC`,
    ),
    spec: prepare<SpecHead>(db, `SELECT ${SPEC_HEAD} FROM spec WHERE no = ?`),
    event: prepare<EventColumns>(
      db,
      `SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS} WHERE e.no = ?`,
    ),
    taken: prepare(
      db,
      `INSERT OR REPLACE INTO taken (account, at, event, kind, message, spec, bulk, until)
       SELECT account, ?, event, 0, message, spec, bulk, until FROM pull WHERE account = ? AND event = ?`,
    ),
    take: prepare(db, 'DELETE FROM pull WHERE account = ? AND event = ?'),
  };
  return function takeReports(filter: MessageFilter): Page<EventRow> {
    const { account, limit } = filter;
    const wanted = readFilter(filter);
    const specs = new Map<number, SpecHead | undefined>();
    const rows: EventRow[] = [];

    function consider(pulled: Pulled): void {
      if (!specs.has(pulled.spec)) specs.set(pulled.spec, q.spec.get(pulled.spec));
      const spec = specs.get(pulled.spec);
      if (!spec || !wanted.spec(spec)) return;
      const event = q.event.get(pulled.event);
      if (!event || !wanted.message({ ...event, m_status: event.e_status }, spec)) return;
      q.taken.run(tx.now, account, pulled.event);
      q.take.run(account, pulled.event);
      rows.push(toEvent(event));
    }
    function walk(next: (before: number) => Pulled[]): void {
      for (let before = END; rows.length < limit; ) {
        const page = next(before);
        for (const pulled of page) {
          if (rows.length >= limit) return;
          consider(pulled);
          before = pulled.event;
        }
        if (page.length < PULLS) return;
      }
    }
    if (wanted.messages !== null) {
      for (const no of wanted.messages) {
        for (const pulled of q.ofMessage.all(account, no, tx.now)) if (rows.length < limit) consider(pulled);
      }
    } else if (wanted.bulks !== null) {
      for (const bulk of wanted.bulks) walk((before) => q.ofBulk.all(account, bulk, before, tx.now));
    } else walk((before) => q.newest.all(account, before, tx.now));
    rows.sort((a, b) => b.event - a.event);
    return { rows, specs: reads.specs([...new Set(rows.map((row) => row.spec))]), next: null };
  };
}

interface Pulled {
  event: number;
  message: number;
  spec: number;
}

/** The verbs that only read; they run beside the writer on a connection of their own. */
export function createReader(db: DatabaseSync, reads: Reads) {
  const readFilter = createFilter(db);
  const runs = createRuns({ db, now: 0, seq: () => 0, hint: () => {} });
  const q = {
    specsOfAccount: prepare<SpecHead>(
      db,
      `SELECT ${SPEC_HEAD} FROM spec WHERE account = ? AND no < ? ORDER BY no DESC LIMIT ? + 0`,
    ),
    specsOfBulk: prepare<SpecHead>(
      db,
      `SELECT ${SPEC_HEAD} FROM spec WHERE bulk = ? AND no < ? ORDER BY no DESC LIMIT ? + 0`,
    ),
    spec: prepare<SpecHead>(db, `SELECT ${SPEC_HEAD} FROM spec WHERE no = ?`),
    bulkId: prepare<{ id: string | null }>(db, 'SELECT id FROM bulk WHERE no = ?'),
    messages: prepare<MessageOwnColumns>(
      db,
      `SELECT ${MESSAGE_OWN_COLUMNS} FROM message m WHERE m.no >= ? AND m.no < ? ORDER BY m.no DESC LIMIT ? + 0`,
    ),
    // Most filters leave few rows of a big spec: the frequent ones are asked in SQL.
    messagesTo: prepare<MessageOwnColumns>(
      db,
      `SELECT ${MESSAGE_OWN_COLUMNS} FROM message m WHERE m.no >= ? AND m.no < ? AND m."to" = ? ORDER BY m.no DESC LIMIT ? + 0`,
    ),
    message: prepare<MessageOwnColumns & { account: number }>(
      db,
      `SELECT ${MESSAGE_OWN_COLUMNS}, m.account AS account FROM message m WHERE m.no = ?`,
    ),
    one: prepare<MessageColumns>(
      db,
      `SELECT ${MESSAGE_COLUMNS} FROM message m ${MESSAGE_JOINS} WHERE m.account = ? AND m.no = ? AND m.key IS NULL`,
    ),
    keyed: prepare<MessageColumns>(
      db,
      `SELECT ${MESSAGE_COLUMNS} FROM message_key k JOIN message m ON m.no = k.no ${MESSAGE_JOINS}
       WHERE k.account = ? AND k.key = ?`,
    ),
    runOf: prepare<{ no: number }>(db, 'SELECT no FROM run WHERE no <= ? ORDER BY no DESC LIMIT 1'),
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
      'SELECT no, at, status, error, kind, words FROM event WHERE message = ? AND kind < 2 ORDER BY no LIMIT 1000',
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
    line: prepare<{ bulk: number | null; paused: number; lane: number; account: number; carrier: string }>(
      db,
      `SELECT n.bulk, n.paused, n.lane, n.account, l.carrier FROM line n JOIN lane l ON l.no = n.lane WHERE n.no = ?`,
    ),
    unfetched: prepare<Unfetched>(
      db,
      `SELECT segment, tries, words, due_at AS due FROM media
       WHERE spec = ? AND hash IS NULL AND due_at IS NOT NULL AND words IS NOT NULL ORDER BY segment LIMIT 1`,
    ),
    runDue: prepare<{ due: number | null }>(db, 'SELECT due_at AS due FROM run WHERE no = ?'),
    retry: prepare<{ due: number; until: number; line: number }>(
      db,
      'SELECT due_at AS due, valid_until AS until, line FROM retry WHERE leader = ?',
    ),
    flight: prepare<{ until: number }>(db, 'SELECT valid_until AS until FROM flight WHERE leader = ?'),
    feed: prepare<EventColumns>(
      db,
      `SELECT ${EVENT_COLUMNS} FROM event e JOIN message m ON m.no = e.message ${MESSAGE_JOINS}
       WHERE e.no > ? AND e.no <= ? AND e.account = ? AND e.kind = 0 ORDER BY e.no LIMIT ? + 0`,
    ),
    lastEvent: prepare<{ no: number }>(db, "SELECT seq AS no FROM sqlite_sequence WHERE name = 'event'"),
    keys: prepare<Key>(db, 'SELECT hash, account, label FROM key'),
    install: prepare<{ v: string }>(db, "SELECT v FROM meta WHERE k = 'install'"),
    clock: prepare<{ v: number }>(db, "SELECT v FROM meta WHERE k = 'clock'"),
    stats: prepare<Omit<Stats, 'walBytes' | 'waitingAt'>>(
      db,
      `SELECT (SELECT coalesce(sum("end" - next), 0) FROM run WHERE due_at IS NOT NULL) AS waiting,
         (SELECT count(*) FROM flight) AS inFlight, (SELECT count(*) FROM retry) AS retries,
         (SELECT count(*) FROM endpoint p JOIN hook h ON h.endpoint = p.no AND h.state = 0)
           + (SELECT count(*) FROM outbox) AS webhooksWaiting,
         (SELECT count(*) FROM hook WHERE state = 2) AS webhooksExhausted, (SELECT count(*) FROM pull) AS pull`,
    ),
    waitingAt: prepare<{ carrier: string; count: number }>(
      db,
      `SELECT l.carrier, sum(w.count) AS count FROM (
           SELECT line, sum("end" - next) AS count FROM run WHERE due_at IS NOT NULL GROUP BY line
           UNION ALL SELECT line, count(*) FROM retry GROUP BY line) w
         JOIN line n ON n.no = w.line JOIN lane l ON l.no = n.lane
       GROUP BY l.carrier HAVING sum(w.count) > 0 ORDER BY l.carrier`,
    ),
  };

  /** The store's time, which a wall clock set back does not turn. */
  const clock = (now: number): number => Math.max(now, q.clock.get()?.v ?? 0);
  const bulks = createBulkReads(db);
  const links = createLinkReads(db);
  const inbounds = createInboundReads(db);
  const sought = createSoughtReads(db);

  /** One page of logs, filled from whichever list is the shorter way to what is wanted. Each way ends it once. */
  function createPage(filter: MessageFilter, wanted: ReturnType<typeof readFilter>) {
    const { account, destination, limit } = filter;
    const before = filter.before ?? END;
    const rows: MessageRow[] = [];
    const bulkIds = new Map<number, string | null>();

    /** False = it is wanted, and the page is full. */
    function take(row: MessageOwnColumns, spec: SpecHead): boolean {
      if (!wanted.message(row, spec)) return true;
      if (rows.length >= limit) return false;
      if (!bulkIds.has(spec.bulk)) bulkIds.set(spec.bulk, q.bulkId.get(spec.bulk)?.id ?? null);
      const bulkId = bulkIds.get(spec.bulk) ?? null;
      rows.push(toMessage({ ...row, s_bulk: spec.bulk, s_accepted: spec.accepted_at, b_id: bulkId }));
      return true;
    }
    /** The page as it is. `next`: what it goes on below; null = there is no more. */
    const upTo = (next: number | null): Page<MessageRow> => ({
      rows,
      specs: reads.specs([...new Set(rows.map((row) => row.spec))]),
      next,
    });
    const full = (): Page<MessageRow> => upTo(rows.at(-1)?.no ?? null);

    /** Specs below a number, newest first. Numbers of an account's specs and those of their messages rise together: the request gives both. */
    function specsBelow(place: number, count: number): SpecHead[] {
      if (wanted.bulks === null) return q.specsOfAccount.all(account, place, count);
      const all = wanted.bulks.flatMap((bulk) => q.specsOfBulk.all(bulk, place, count));
      return wanted.bulks.length < 2 ? all : all.sort((a, b) => b.no - a.no).slice(0, count);
    }

    /** The messages of one spec below a number. False = the page is full. */
    function takeOf(spec: SpecHead, below: number): boolean {
      for (let from = below; from > spec.first; ) {
        const want = Math.max(limit - rows.length + 1, 64);
        const found =
          destination === undefined
            ? q.messages.all(spec.first, from, want)
            : q.messagesTo.all(spec.first, from, destination, want);
        if (!found.every((row) => take(row, spec))) return false;
        from = found.length < want ? spec.first : (found.at(-1) as MessageOwnColumns).m_no;
      }
      return true;
    }

    return {
      before,
      /** From messages by number, highest first, of which `most` are looked at. */
      ofMessages(numbers: number[], most: number): Page<MessageRow> {
        for (let looked = 0; looked < numbers.length; looked++) {
          const no = numbers[looked] as number;
          if (looked >= most) return upTo(numbers[looked - 1] ?? null);
          const row = no < before ? q.message.get(no) : undefined;
          if (!row || row.account !== account) continue;
          const spec = q.spec.get(row.m_spec);
          if (spec && wanted.spec(spec) && !take(row, spec)) return full();
        }
        return upTo(null);
      },
      /** From the account's requests, newest first, as far as BUDGET goes. */
      ofSpecs(): Page<MessageRow> {
        let budget = BUDGET;
        let place = before;
        for (let count = SPECS_FIRST; ; count = Math.min(count * 4, SPECS_MOST)) {
          const specs = specsBelow(place, count);
          for (const spec of specs) {
            if (wanted.spec(spec)) {
              // Of a page's first spec some messages were on the page before.
              const end = Math.min(spec.end, before);
              if (!takeOf(spec, end)) return full();
              budget -= Math.max(0, end - spec.first);
            }
            budget -= SPEC_COST;
            place = spec.no;
            // All older messages are below its first one.
            if (budget <= 0) return upTo(spec.first);
          }
          if (specs.length < count) return upTo(null);
        }
      },
    };
  }

  return {
    ...createDeliveryReads(db),
    ...inbounds,
    ...links,
    logs(filter: MessageFilter): Page<MessageRow> {
      const wanted = readFilter(filter);
      const page = createPage(filter, wanted);
      if (wanted.messages !== null) return page.ofMessages(wanted.messages, Number.POSITIVE_INFINITY);
      const found = filter.destination === undefined ? null : sought(filter.account, filter.destination, page.before);
      return found === null ? page.ofSpecs() : page.ofMessages(found, BUDGET / SPEC_COST);
    },
    story(account: number, id: { no: number } | { key: string }): Story | null {
      const row = 'no' in id ? q.one.get(account, id.no) : q.keyed.get(account, id.key);
      if (!row) return null;
      const message = toMessage(row);
      const spec = reads.specs([message.spec])[0];
      if (!spec) return null;
      const nearest = q.runOf.get(message.no);
      const found = nearest ? runs.get(nearest.no) : null;
      // Refused at the door: in no run.
      const placed = found !== null && found.end > message.no ? found : null;
      const run = message.leg === 1 ? runs.get(smsLeader(message.no)) : placed;
      const first = placed !== null && placed.members > 0 ? placed.no : message.no;
      // The leg that it is on.
      const leader = message.leg === 1 ? smsLeader(message.no) : first;
      const install = q.install.get()?.v ?? '';
      const retry = q.retry.get(leader);
      // It may have been handed on to another carrier.
      const line = run === null ? undefined : q.line.get(retry?.line ?? run.line);
      const bulk = line ? runs.bulkOf({ no: 0, ...line }) : null;
      const waiting = run && {
        due: retry?.due ?? q.runDue.get(run.no)?.due ?? null,
        paused: line?.paused === 1,
        media: run.closed,
        unfetched: run.closed ? q.unfetched.get(message.spec) : undefined,
        gate: gateOf(run, bulk),
        ...(line ? { carrier: line.carrier } : {}),
      };
      const shared = run === null ? null : sharedEnd(run, bulk);
      const validUntil = q.flight.get(leader)?.until ?? (retry?.until || shared);
      const final = message.doneAt !== null;
      return {
        message,
        spec,
        attempts: [
          ...q.attempts.all(first).map((attempt) => ({ ...attempt, leader: first })),
          ...q.attempts.all(smsLeader(message.no)).map((attempt) => ({ ...attempt, leader: smsLeader(message.no) })),
        ].map((attempt) => ({
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
        answers: inbounds.answersOf(message.no, account),
        clicks: links.clicksOf(message.no),
        waiting: final || !waiting ? null : whyWaiting(message, waiting),
        validUntil,
      };
    },
    feed(account: number, after: number, limit: number): { rows: EventRow[]; specs: SpecRow[]; last: number } {
      const head = q.lastEvent.get()?.no ?? 1;
      if (after === 0) return { rows: [], specs: [], last: head };
      let place = Math.max(after, 0);
      for (let step = 0; step < FEED_STEPS && place < head; step++) {
        const to = Math.min(place + FEED_STEP, head);
        const rows = q.feed.all(place, to, account, limit).map(toEvent);
        // A full page may have more behind its last row.
        const last = rows.length < limit ? to : (rows.at(-1)?.event ?? to);
        if (rows.length > 0) return { rows, specs: reads.specs([...new Set(rows.map((row) => row.spec))]), last };
        place = last;
      }
      return { rows: [], specs: [], last: Math.max(place, 1) };
    },
    bulkGet: (account: number, name: BulkName, now: number): Bulk | null => bulks.get(account, name, clock(now)),
    bulkList: (account: number, limit: number, before: number | undefined, now: number) =>
      bulks.list(account, limit, before, clock(now)),
    ...createAccountReads(db),
    keys: (): Key[] => q.keys.all().map((row) => ({ hash: row.hash, account: row.account, label: row.label })),
    stats(walBytes: number): Stats {
      const sums = q.stats.get() as Omit<Stats, 'walBytes' | 'waitingAt'>;
      return { ...sums, walBytes, waitingAt: q.waitingAt.all().map(({ carrier, count }) => ({ carrier, count })) };
    },
  };
}
