/**
 * Status changes of one transaction. `load` locks the messages and brings what deciding needs; `change` asks the state
 * machine and notes the outcome in memory; `flush` writes messages, events, outbox and pull entries, one statement per
 * kind. Nothing else writes a message's status (G4, G9, G10).
 *
 * Order of events: their numbers come from `event_numbers` at the flush, in the order of the changes. The message's lock
 * is held since before its events were decided, so the events of one message are numbered in their true order.
 */
import { FAILED_OVER, type Leg, spanOf, WITHDRAWN_WORDS } from '../../domain/failover.ts';
import { senderKey } from '../../domain/optout.ts';
import { isFree, legCost, PAID_MARK, type Paid, paidOf } from '../../domain/prices.ts';
import {
  ACCEPTED,
  isFinal,
  type MessageStatus,
  STATE,
  STATUS_CLAIMED,
  type State,
  type StatusEvent,
  transition,
} from '../../domain/status.ts';
import type { ReportKind } from '../../domain/submission.ts';
import { CLAIMED_WORDS, CLAIMS_TOLD, landed } from '../outcomes.ts';
import { SecondLegs } from './failover.ts';
import type { Lines } from './lines.ts';
import { smsSender } from './rows.ts';
import { Spend } from './spend.ts';
import { Tallies } from './tally.ts';
import { list, sql, type Tx, texts, together } from './tx.ts';

/** A message as the state machine needs it. */
export interface Live {
  no: number;
  account: number;
  spec: number;
  to: string;
  key: string | null;
  state: State;
  status: number;
  error: number;
  sent_at: number | null;
  leg: Leg;
}

/** Reports that change nothing are kept as notes, at most this many events a message. */
const NOTES = 20;
/** How long a final report can be pulled. */
const PULL_MS = 48 * 3_600_000;
/** Immutable columns of specs that are kept between transactions. */
const SPECS = 8192;

/** What proves that a submission left: the first of these is sentAt. */
const SENT = new Set<StatusEvent['kind']>(['accepted', 'deferred', 'refused', 'unknown', 'report']);

const EVENTS = `SELECT no, message, account, $8::bigint, status, error, kind, words, leg
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::integer[], $6::smallint[], $7::text[], $9::smallint[])
      AS x(no, message, account, status, error, kind, words, leg)
    WHERE kind = 0 OR (SELECT count(*) FROM event e WHERE e.message = x.message AND e.kind = 1) < ${NOTES}`;

const SQL = {
  messages: sql(`SELECT no, account, spec, "to", key, state, status, error, sent_at, leg FROM message
    WHERE no = ANY($1::bigint[]) ORDER BY no FOR NO KEY UPDATE`),
  // A sender that is a number of the account's can be answered.
  specs: sql(`SELECT s.no, s.endpoint, s.intermediate, s.bulk, s.counted, (SELECT n.number FROM own_number n
      WHERE n.number = ltrim(s.sender, '+') AND n.account = s.account) AS answered, (SELECT n.number FROM own_number n
      WHERE n.number = ltrim(coalesce(${smsSender('s')}, s.sender), '+') AND n.account = s.account) AS "answeredSms",
      EXISTS (SELECT 1 FROM run r WHERE r.no >= s.first AND r.no < s."end" AND r.ways IS NOT NULL) AS failover,
      CASE WHEN strpos(s.body, '${PAID_MARK}') > 0 THEN s.body END AS body
    FROM spec s WHERE s.no = ANY($1::bigint[])`),
  // A handset that answers means the last message that it got.
  conversations: sql(`INSERT INTO conversation (account, sender, destination, no)
    SELECT account, sender COLLATE "C" AS s, destination COLLATE "C" AS d, max(no)
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS x(account, sender, destination, no)
    GROUP BY account, s, d ORDER BY account, s, d
    ON CONFLICT (account, sender, destination) DO UPDATE SET no = excluded.no`),
  // For what is no change of status.
  other: sql(`INSERT INTO event (no, message, account, at, status, error, kind, words)
    SELECT n.no, $1, $2, $3, 0, 0, $4, $5 FROM event_numbers(1) AS n(no) RETURNING no`),
  // Of messages of which every change is told: whether something is still to be told, and whether the last was a claim. + 0: by its message.
  open: sql(`SELECT m.no AS message, (SELECT o.event FROM open_event o WHERE o.message = m.no LIMIT 1) IS NOT NULL AS open,
      (SELECT e.status FROM event e WHERE e.message = m.no AND e.kind = 0 ORDER BY e.no + 0 DESC LIMIT 1) = ${STATUS_CLAIMED} AS enroute
    FROM unnest($1::bigint[]) AS m(no)`),
  numbers: sql('SELECT no FROM event_numbers($1::integer) AS no'),
  events: sql(`INSERT INTO event (no, message, account, at, status, error, kind, words, leg) ${EVENTS}`),
  // All that a change of status writes, in one statement: messages ($10 on), where their events go ($17 on), and the events.
  told: sql(`WITH moved AS (UPDATE message m SET state = x.state, status = x.status, error = x.error, sent_at = x.sent_at,
      done_at = x.done_at, leg = x.leg
    FROM unnest($10::bigint[], $11::smallint[], $12::smallint[], $13::integer[], $14::bigint[], $15::bigint[], $16::smallint[])
      AS x(no, state, status, error, sent_at, done_at, leg) WHERE m.no = x.no AND m.no = ANY($10::bigint[])),
    handed AS (INSERT INTO outbox (endpoint, event) SELECT endpoint, event FROM unnest($17::bigint[], $18::bigint[]) AS x(endpoint, event)),
    woken AS (INSERT INTO endpoint_wake (endpoint, event) SELECT endpoint, min(event) FROM unnest($17::bigint[], $18::bigint[])
      AS x(endpoint, event) GROUP BY endpoint)
    INSERT INTO event (no, message, account, at, status, error, kind, words, leg) ${EVENTS}`),
  claimedLock: sql('SELECT no FROM message WHERE no = ANY($1::bigint[]) ORDER BY no FOR NO KEY UPDATE'),
  // Locked messages that are claimed, in order, as `emit` would do it for those of which every change is told. One that a report ended
  // while its lock was waited for has had its last word. OFFSET 0: see settle.ts, refs.
  claimed:
    sql(`WITH said AS MATERIALIZED (SELECT m.no, m.account, m.error, m.leg, s.endpoint, row_number() OVER (ORDER BY x.place) AS place
      FROM unnest($1::bigint[]) WITH ORDINALITY AS x(no, place)
      CROSS JOIN LATERAL (SELECT no, account, spec, error, leg FROM message q WHERE q.no = x.no AND q.state < ${STATE.delivered} OFFSET 0) m
      CROSS JOIN LATERAL (SELECT endpoint FROM spec q WHERE q.no = m.spec AND q.intermediate OFFSET 0) s
      CROSS JOIN LATERAL (SELECT count(*) AS n, max(q.no) AS last FROM event q WHERE q.message = x.no AND q.kind = 0 OFFSET 0) e
      WHERE e.n < ${CLAIMS_TOLD} AND (SELECT q.status FROM event q WHERE q.no = e.last) IS DISTINCT FROM ${STATUS_CLAIMED}),
    told AS MATERIALIZED (SELECT n.no AS event, s.no AS message, s.account, s.error, s.leg, s.endpoint,
        (SELECT o.event FROM open_event o WHERE o.message = s.no LIMIT 1) IS NULL AS first
      FROM said s JOIN event_numbers((SELECT count(*) FROM said)::integer) WITH ORDINALITY AS n(no, place) ON n.place = s.place),
    opened AS (INSERT INTO open_event (message, event) SELECT message, event FROM told WHERE endpoint IS NOT NULL),
    handed AS (INSERT INTO outbox (endpoint, event) SELECT endpoint, event FROM told WHERE endpoint IS NOT NULL AND first),
    woken AS (INSERT INTO endpoint_wake (endpoint, event) SELECT endpoint, min(event) FROM told WHERE endpoint IS NOT NULL AND first
      GROUP BY endpoint)
    INSERT INTO event (no, message, account, at, status, error, kind, words, leg)
    SELECT event, message, account, $2::bigint, ${STATUS_CLAIMED}, error, 0, '${CLAIMED_WORDS}', leg FROM told`),
  outbox: sql(`INSERT INTO outbox (endpoint, event) SELECT endpoint, event FROM unnest($1::bigint[], $2::bigint[])
    AS x(endpoint, event)`),
  endpointWake: sql(`INSERT INTO endpoint_wake (endpoint, event) SELECT endpoint, min(event)
    FROM unnest($1::bigint[], $2::bigint[]) AS x(endpoint, event) GROUP BY endpoint`),
  openAdd: sql(`INSERT INTO open_event (message, event) SELECT message, event FROM unnest($1::bigint[], $2::bigint[])
    AS x(message, event)`),
  pull: sql(`INSERT INTO pull (account, event, message, spec, bulk, until)
    SELECT account, event, message, spec, bulk, until
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
      AS x(account, event, message, spec, bulk, until) ON CONFLICT DO NOTHING`),
};

/** What of a spec decides the way of its events. */
interface SpecWay {
  endpoint: number | null;
  intermediate: boolean;
  bulk: number;
  /** Its messages are in the bulk's tally. */
  counted: boolean;
  /** The account's number that it is sent from, where it is one; and its SMS. */
  answered: string | null;
  answeredSms: string | null;
  /** Its messages may have a second leg. */
  failover: boolean;
  /** Null = its messages are held against no spend limit. */
  paid: Paid | null;
}

/** An entry of the pull list. */
export interface Pull {
  account: number;
  event: number;
  message: number;
  spec: number;
  bulk: number;
  until: number;
}

interface NewEvent {
  message: number;
  account: number;
  spec: number;
  bulk: number;
  status: number;
  error: number;
  kind: 0 | 1;
  words: string;
  endpoint: number | null;
  pull: boolean;
  open: boolean;
  leg: Leg | typeof FAILED_OVER;
}

/** The event of something that is no change of status, about the number `of`; its own number. */
export async function addEvent(tx: Tx, of: number, account: number, kind: number, words: string): Promise<number> {
  const [row] = await tx.query<{ no: number }>(SQL.other, [of, account, tx.now, kind, words]);
  return (row as { no: number }).no;
}

/** Events to hand on to their endpoints: outbox rows and a wake-up. */
export async function handOn(tx: Tx, rows: { endpoint: number; event: number }[]): Promise<void> {
  if (rows.length === 0) return;
  const columns = [list(rows.map((row) => row.endpoint)), list(rows.map((row) => row.event))];
  tx.later(SQL.outbox, columns);
  tx.later(SQL.endpointWake, columns);
  tx.hint('webhooks');
}

/**
 * Messages that are claimed: on their way (7), where every change is told (others are left out here). Nothing where that is what
 * was told last: the claim before was put back as if it had never been. Locks the messages, asks nothing and waits for no answer.
 */
export function tellClaimed(tx: Tx, nos: readonly number[]): void {
  if (nos.length === 0) return;
  tx.later(SQL.claimedLock, [list(nos)]);
  tx.later(SQL.claimed, [list(nos), tx.now]);
  tx.hint('webhooks');
}

/** Events for those who fetch their reports themselves: each kept until its own `until` (epoch ms). */
export async function addToPull(tx: Tx, rows: Pull[]): Promise<void> {
  if (rows.length === 0) return;
  tx.later(SQL.pull, [
    list(rows.map((row) => row.account)),
    list(rows.map((row) => row.event)),
    list(rows.map((row) => row.message)),
    list(rows.map((row) => row.spec)),
    list(rows.map((row) => row.bulk)),
    list(rows.map((row) => row.until)),
  ]);
}

export type Changes = ReturnType<ReturnType<typeof createEvents>['begin']>;

/** What transactions change of messages; `begin` opens the books of one. Remembers where reports of a spec go. */
export function createEvents(lines: Lines) {
  const known = new Map<number, SpecWay>();

  async function readWays(tx: Tx, nos: Iterable<number>): Promise<[number, SpecWay][]> {
    type Row = Omit<SpecWay, 'paid'> & { no: number; body: string | null };
    const rows = await tx.query<Row>(SQL.specs, [list([...nos])]);
    return rows.map(({ no, body, ...rest }) => {
      const way = { ...rest, paid: paidOf(body) };
      if (known.size >= SPECS) known.clear();
      // Read, so committed: nothing that a rollback takes back.
      known.set(no, way);
      return [no, way];
    });
  }

  /** Messages of these specs will come back soon: what deciding then needs is asked for now, and nobody waits for it. */
  function foresee(tx: Tx, specs: readonly number[]): void {
    const missing = specs.filter((no) => !known.has(no));
    if (missing.length > 0) readWays(tx, new Set(missing)).catch(() => undefined);
  }

  function begin(tx: Tx) {
    const messages = new Map<number, Live>();
    const ways = new Map<number, SpecWay>();
    /** Messages with an open event, where intermediate reports are asked for. */
    const open = new Set<number>();
    /** Of these, those whose last change was a claim. */
    const enroute = new Set<number>();
    const changed = new Map<number, { live: Live; doneAt: number | null }>();
    const events: NewEvent[] = [];
    /** Numbers for them, in order. */
    const drawn: number[] = [];
    const conversations: { account: number; sender: string; to: string; no: number }[] = [];
    const tallies = new Tallies();
    const second = new SecondLegs(tx);
    const spend = new Spend(tx);

    /** `leg` FAILED_OVER = it is not the last. */
    function emit(
      message: { no: number; account: number; spec: number },
      next: MessageStatus,
      words: string,
      leg: Leg | typeof FAILED_OVER = 0,
    ): void {
      const way = ways.get(message.spec);
      if (!way) throw new Error(`spec ${message.spec} is gone`);
      const final = isFinal(next.state) && leg !== FAILED_OVER;
      enroute.delete(message.no);
      const event: NewEvent = {
        message: message.no,
        account: message.account,
        spec: message.spec,
        bulk: way.bulk,
        status: next.status,
        error: next.error,
        kind: 0,
        words,
        endpoint: null,
        pull: false,
        open: false,
        leg,
      };
      events.push(event);
      if (way.endpoint === null) event.pull = final;
      else if (!way.intermediate) event.endpoint = final ? way.endpoint : null;
      else {
        event.open = true;
        if (!open.has(message.no)) event.endpoint = way.endpoint;
        open.add(message.no);
      }
    }

    return {
      emit,
      tallies,
      /** Where reports of a spec go, for one that is being accepted. */
      setWay: (spec: number, way: Omit<SpecWay, 'answered' | 'answeredSms' | 'paid'>): void =>
        void ways.set(spec, { ...way, answered: null, answeredSms: null, paid: null }),

      /**
       * Locks messages, in order of their numbers. Those that do not exist (refused duplicates) are left out. `draw`: one number for an
       * event of each is drawn in the same piece, behind the locks; what is not used stays a gap.
       */
      async load(nos: Iterable<number>, draw = false): Promise<void> {
        const wanted = [...new Set(nos)].filter((no) => !messages.has(no));
        if (wanted.length === 0) return;
        const [rows, numbers] = await together([
          tx.query<Live>(SQL.messages, [list(wanted)]),
          draw ? tx.query<{ no: number }>(SQL.numbers, [wanted.length]) : [],
        ]);
        for (const { no } of numbers) drawn.push(no);
        for (const row of rows) messages.set(row.no, row);
        const missing = new Set<number>();
        for (const { spec } of rows) {
          const way = known.get(spec);
          if (way) ways.set(spec, way);
          else missing.add(spec);
        }
        if (missing.size > 0) for (const [no, way] of await readWays(tx, missing)) ways.set(no, way);
        await second.load(
          rows.flatMap(({ no, spec, state, leg }) =>
            leg === 0 && !isFinal(state) && ways.get(spec)?.failover ? [no] : [],
          ),
        );
        await spend.load(
          rows.flatMap(({ account, spec, state, leg, to }) => {
            const way = ways.get(spec);
            const pays = way?.paid && way.failover && leg === 0 && !isFinal(state);
            return pays && legCost(way.paid as Paid, 1, to) > 0 ? [account] : [];
          }),
        );
        const several = rows.filter((row) => ways.get(row.spec)?.intermediate).map((row) => row.no);
        if (several.length === 0) return;
        type Told = { message: number; open: boolean; enroute: boolean | null };
        for (const row of await tx.query<Told>(SQL.open, [list(several)])) {
          if (row.open) open.add(row.message);
          if (row.enroute) enroute.add(row.message);
        }
      },
      get: (no: number): Live | undefined => messages.get(no),
      /** Of loaded messages on their SMS leg, about which a report of the MMS may come: whether it can be withdrawn. */
      async loadWaiting(nos: number[]): Promise<void> {
        const on = (no: number): boolean => messages.get(no)?.leg === 1 && messages.get(no)?.state === STATE.pending;
        await second.loadWaiting([...new Set(nos)].filter(on));
      },
      /** The loaded messages of a submission, in order. */
      span(leader: number, members: number): Live[] {
        const { first, end } = spanOf(leader, members);
        const found: Live[] = [];
        for (let no = first; no < end; no++) {
          const live = messages.get(no);
          if (live) found.push(live);
        }
        return found;
      },

      /** Move a message by the state machine. True = it changed. */
      change(message: Live, event: StatusEvent, words: string): boolean {
        const from: MessageStatus = { state: message.state, status: message.status, error: message.error };
        const { next, changed: moved, final } = transition(from, event);
        if (!moved) {
          if (landed(event) && enroute.has(message.no)) emit(message, from, words, message.leg);
          return false;
        }
        message.sent_at ??= SENT.has(event.kind) ? tx.now : null;
        const { leg } = message;
        const paid = ways.get(message.spec)?.paid ?? null;
        if (paid && final && isFree({ leg, status: next.status, error: next.error, sentAt: message.sent_at })) {
          spend.back(paid, leg, message);
        }
        const pays = (): boolean => paid === null || spend.take(paid, message);
        const follows = final && leg === 0 ? second.open(message, event, next, pays) : null;
        const then = follows?.opened ? ACCEPTED : next;
        message.state = then.state;
        message.status = then.status;
        message.error = then.error;
        if (follows?.opened) message.leg = 1;
        changed.set(message.no, { live: message, doneAt: isFinal(then.state) ? tx.now : null });
        const way = ways.get(message.spec);
        const speaks = leg === 1 ? way?.answeredSms : way?.answered;
        if (speaks && event.kind === 'accepted') {
          const { account, to, no } = message;
          conversations.push({ account, sender: senderKey(speaks), to, no });
        }
        if (way?.counted) tallies.moved(way.bulk, from.state, then.state);
        if (next.status !== from.status || next.error !== from.error || enroute.has(message.no)) {
          const all = follows ? [words, follows.words].filter((part) => part !== '').join('; ') : words;
          emit(message, next, all, follows?.opened ? FAILED_OVER : leg);
        }
        return true;
      },
      /** A report of the MMS leg after the SMS leg has begun: delivered wins while nothing of the SMS has left. True = it did. */
      reportLate(message: Live, report: ReportKind, words: string): boolean {
        if (report !== 'retrieved' || !second.withdraw(message)) return false;
        message.leg = 0;
        const paid = ways.get(message.spec)?.paid;
        if (paid) spend.back(paid, 1, message);
        return this.change(message, { kind: 'report', report }, `${words}; ${WITHDRAWN_WORDS}`);
      },
      /** A report that changed nothing (late, doubled) is still part of the story. */
      note(message: Live, words: string): void {
        const { no, account, spec, status, error, leg } = message;
        const ways = { endpoint: null, pull: false, open: false, leg };
        events.push({ message: no, account, spec, bulk: 0, status, error, kind: 1, words, ...ways });
      },

      /** `landed`: flights that this transaction ends. */
      async flush(landed: ReadonlySet<number> = new Set()): Promise<void> {
        await tallies.flush(tx);
        await second.flush(lines, landed);
        await spend.flush();
        if (conversations.length > 0) {
          tx.later(SQL.conversations, [
            list(conversations.map((one) => one.account)),
            texts(conversations.map((one) => one.sender)),
            texts(conversations.map((one) => one.to)),
            list(conversations.map((one) => one.no)),
          ]);
        }
        const rows = [...changed.values()];
        if (events.length === 0 && rows.length === 0) return;
        const more = events.length - drawn.length;
        if (more > 0) for (const { no } of await tx.query<{ no: number }>(SQL.numbers, [more])) drawn.push(no);
        const numbers = drawn.splice(0, events.length);
        const numbered = events.map((event, index) => ({ ...event, no: numbers[index] as number }));
        const handed = numbered.flatMap(({ endpoint, no }) => (endpoint === null ? [] : [{ endpoint, event: no }]));
        const told = [
          list(numbers),
          list(events.map((event) => event.message)),
          list(events.map((event) => event.account)),
          list(events.map((event) => event.status)),
          list(events.map((event) => event.error)),
          list(events.map((event) => event.kind)),
          texts(events.map((event) => event.words)),
          tx.now,
          list(events.map((event) => event.leg)),
        ];
        if (rows.length === 0) {
          // Of an accept, which may not change messages (wall.ts).
          tx.later(SQL.events, told);
          await handOn(tx, handed);
        } else {
          tx.later(SQL.told, [
            ...told,
            list(rows.map(({ live }) => live.no)),
            list(rows.map(({ live }) => live.state)),
            list(rows.map(({ live }) => live.status)),
            list(rows.map(({ live }) => live.error)),
            list(rows.map(({ live }) => live.sent_at)),
            list(rows.map(({ doneAt }) => doneAt)),
            list(rows.map(({ live }) => live.leg)),
            list(handed.map((row) => row.endpoint)),
            list(handed.map((row) => row.event)),
          ]);
          if (handed.length > 0) tx.hint('webhooks');
        }
        const opened = numbered.filter((event) => event.open);
        if (opened.length > 0) {
          tx.later(SQL.openAdd, [list(opened.map((one) => one.message)), list(opened.map((one) => one.no))]);
        }
        await addToPull(
          tx,
          numbered
            .filter((event) => event.pull)
            .map(({ account, no, message, spec, bulk }) => {
              return { account, event: no, message, spec, bulk, until: tx.now + PULL_MS };
            }),
        );
      },
    };
  }

  return { begin, foresee };
}
