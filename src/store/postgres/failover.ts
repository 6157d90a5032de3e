/**
 * The SMS leg of messages: what one transaction must know of it, and what it opens or withdraws. Opened in the transaction that
 * ends the MMS leg, as a run of its own, of one message, on its bulk's line (or the account's express line) of the SMS lane; so
 * window, turns, pauses, steering and validity hold for it as for any other (`domain/failover.ts` tells of its number).
 *
 * Promises: what decides is loaded with the message's row locked. The run of the MMS is held against a steering that gives its
 * request lines of its own (KEY SHARE). An SMS leg is withdrawn only with its run locked and no claim of it seen after that;
 * where somebody is at work on it, it is not waited for and stays.
 */
import {
  FAILOVER_WORDS,
  NO_FAILOVER_WORDS,
  opensFailover,
  readWays,
  type SmsWay,
  smsLeader,
  smsWayOf,
} from '../../domain/failover.ts';
import { NO_CREDIT_WORDS } from '../../domain/prices.ts';
import { nextOpening } from '../../domain/schedule.ts';
import { type MessageStatus, STATE, type StatusEvent } from '../../domain/status.ts';
import { opensOf } from '../clock.ts';
import type { Live } from './events.ts';
import { LEVEL } from './inside.ts';
import { type Lines, lineKey } from './lines.ts';
import { list, sql, type Tx, texts } from './tx.ts';

const SQL = {
  // The nearest run at or below a number is its own, but for those refused at the door.
  origins:
    sql(`SELECT m.no, r.no AS run, r.ways, r.days, r.from_min, r.to_min, r.opens_at, r.moves AS run_moves, l.bulk, b.paused_at, b.canceled_at, b.send_at,
      b.interval_us, b.moves, f.leader, f.lease_until
    FROM unnest($1::bigint[]) AS m(no)
    CROSS JOIN LATERAL (SELECT n.no, n."end", n.line, n.ways, n.days, n.from_min, n.to_min, n.opens_at, n.moves FROM run n
      WHERE n.no <= m.no ORDER BY n.no DESC LIMIT 1 FOR KEY SHARE) r
    CROSS JOIN LATERAL (SELECT bulk FROM line q WHERE q.no = r.line OFFSET 0) l
    LEFT JOIN LATERAL (SELECT paused_at, canceled_at, send_at, interval_us, moves FROM bulk q WHERE q.no = l.bulk OFFSET 0) b ON true
    LEFT JOIN LATERAL (SELECT n.leader, n.lease_until, n.leader + n.members AS "end" FROM flight n
      WHERE n.leader <= m.no ORDER BY n.leader DESC LIMIT 1) f ON f."end" > m.no
    WHERE r."end" > m.no`),
  add: sql(`INSERT INTO run (no, line, spec, next, "end", members, send_at, days, from_min, to_min, validity, opens_at, look_at,
      limited, moves, media, due_at, seq, ways, needs, intermediate)
    SELECT no, line, spec, no, no + 1, 0, send_at, days, from_min, to_min, validity, opens_at, opens_at + validity, limited, moves,
      false, due_at, seq, ways, ${LEVEL}, (SELECT s.intermediate FROM spec s WHERE s.no = x.spec)
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::integer[], $7::integer[],
      $8::bigint[], $9::bigint[], $10::boolean[], $11::integer[], $12::bigint[], $13::bigint[], $14::text[])
      AS x(no, line, spec, send_at, days, from_min, to_min, validity, opens_at, limited, moves, due_at, seq, ways)`),
  lock: sql(`SELECT no FROM run WHERE no = ANY($1::bigint[]) AND no < 0 ORDER BY no FOR UPDATE SKIP LOCKED`),
  lockRetries: sql('SELECT leader FROM retry WHERE leader = ANY($1::bigint[]) ORDER BY leader FOR UPDATE SKIP LOCKED'),
  // What a carrier put off or refused it has not taken.
  untouched: sql(`SELECT n.no FROM unnest($1::bigint[]) AS n(no)
    WHERE ((SELECT t.leader FROM retry t WHERE t.leader = n.no) IS NULL OR n.no = ANY($2::bigint[]))
      AND (SELECT f.leader FROM flight f WHERE f.leader = n.no) IS NULL
      AND (SELECT a.n FROM attempt a WHERE a.leader = n.no AND a.outcome IN ('accepted', 'unknown') LIMIT 1) IS NULL`),
  runsDelete: sql('DELETE FROM run WHERE no = ANY($1::bigint[])'),
  retriesDelete: sql('DELETE FROM retry WHERE leader = ANY($1::bigint[])'),
};

/** What is known of the first leg of a message. */
interface Origin {
  no: number;
  run: number;
  ways: string | null;
  days: number | null;
  from_min: number | null;
  to_min: number | null;
  opens_at: number;
  run_moves: number;
  /** 0 = it waits on the express line. */
  bulk: number;
  paused_at: number | null;
  canceled_at: number | null;
  send_at: number | null;
  interval_us: number | null;
  moves: number | null;
  /** An attempt of it that is open. */
  leader: number | null;
  lease_until: number | null;
}

/** Second legs of one transaction, until `flush`. */
export class SecondLegs {
  private readonly tx: Tx;
  private readonly origins = new Map<number, Origin>();
  /** Messages on their SMS leg of which nothing has left. */
  private readonly waiting = new Set<number>();
  private readonly opened: { message: Live; origin: Origin; sms: SmsWay & { lane: number } }[] = [];
  private readonly withdrawn: number[] = [];

  constructor(tx: Tx) {
    this.tx = tx;
  }

  /** Of messages on their MMS leg whose spec asks for an SMS; their rows are locked. */
  async load(nos: number[]): Promise<void> {
    if (nos.length === 0) return;
    for (const row of await this.tx.query<Origin>(SQL.origins, [list(nos)])) this.origins.set(row.no, row);
  }

  /** Of messages on their SMS leg about which a report of the MMS may come; their rows are locked. */
  async loadWaiting(nos: number[]): Promise<void> {
    if (nos.length === 0) return;
    const held = await this.tx.query<{ no: number }>(SQL.lock, [list(nos.map(smsLeader))]);
    if (held.length === 0) return;
    const legs = list(held.map((row) => row.no));
    const retries = await this.tx.query<{ leader: number }>(SQL.lockRetries, [legs]);
    const values = [legs, list(retries.map((row) => row.leader))];
    const rows = await this.tx.query<{ no: number }>(SQL.untouched, values);
    for (const { no } of rows) this.waiting.add(smsLeader(no));
  }

  /**
   * Opens the SMS leg of a message that would end as `next`; null = none is due. `opened` false = due, and not possible. `pays` is
   * asked last of all.
   */
  open(
    message: Live,
    event: StatusEvent,
    next: MessageStatus,
    pays: () => boolean,
  ): { opened: boolean; words: string } | null {
    const origin = this.origins.get(message.no);
    if (!origin || origin.ways === null || origin.canceled_at !== null) return null;
    const sms = smsWayOf(readWays(origin.ways), message.no - origin.run);
    if (!sms || !opensFailover(sms, event, next)) return null;
    const { lane } = sms;
    if (lane === null) return { opened: false, words: NO_FAILOVER_WORDS };
    if (!pays()) return { opened: false, words: NO_CREDIT_WORDS };
    this.opened.push({ message, origin, sms: { ...sms, lane } });
    return { opened: true, words: FAILOVER_WORDS };
  }

  /** Takes an SMS leg of which nothing has left back. False = something has, or is about to. */
  withdraw(message: Live): boolean {
    const own = this.opened.findIndex((one) => one.message.no === message.no);
    if (own >= 0) {
      this.opened.splice(own, 1);
      return true;
    }
    if (message.state !== STATE.pending || !this.waiting.delete(message.no)) return false;
    this.withdrawn.push(smsLeader(message.no));
    return true;
  }

  /** `landed`: flights that this transaction ends. */
  async flush(lines: Lines, landed: ReadonlySet<number>): Promise<void> {
    const { tx } = this;
    if (this.withdrawn.length > 0) {
      tx.later(SQL.retriesDelete, [list(this.withdrawn)]);
      tx.later(SQL.runsDelete, [list(this.withdrawn)]);
    }
    if (this.opened.length === 0) return;
    const keyOf = ({ message, origin, sms }: (typeof this.opened)[number]) => {
      return { lane: sms.lane, account: message.account, bulk: origin.bulk, paused: origin.paused_at !== null };
    };
    // Legs that begin together take their turns in order of their messages, however a statement found those.
    this.opened.sort((a, b) => a.message.no - b.message.no);
    // Made by the accept; a bulk that was cancelled or left meanwhile has none, and needs none.
    const found = await lines.find(tx, this.opened.map(keyOf));
    const rows = this.opened.flatMap((one) => {
      const { message, origin, sms } = one;
      const line = found.get(lineKey(keyOf(one)));
      if (line === undefined) return [];
      const window =
        origin.days === null
          ? null
          : { days: origin.days, from: origin.from_min as number, to: origin.to_min as number };
      const bulk = origin.moves === null ? null : { moves: origin.moves, sendAt: origin.send_at };
      // Its MMS may have left, and ended, before its time.
      const mms = opensOf({ opensAt: origin.opens_at, moves: origin.run_moves, window }, bulk);
      const opensAt = nextOpening(window, Math.max(tx.now, origin.send_at ?? 0, mms));
      // An attempt of the MMS may be open yet, where an earlier one's report came first: one submission at a time (G7).
      const flies = origin.leader !== null && !landed.has(origin.leader);
      const due = Math.max(opensAt, flies ? (origin.lease_until ?? 0) : 0);
      return [{ message, origin, sms, line, window, opensAt, due }];
    });
    tx.later(SQL.add, [
      list(rows.map((row) => smsLeader(row.message.no))),
      list(rows.map((row) => row.line)),
      list(rows.map((row) => row.message.spec)),
      list(rows.map((row) => row.origin.send_at)),
      list(rows.map((row) => row.window?.days ?? null)),
      list(rows.map((row) => row.window?.from ?? null)),
      list(rows.map((row) => row.window?.to ?? null)),
      list(rows.map((row) => row.sms.validityMs)),
      list(rows.map((row) => row.opensAt)),
      list(rows.map((row) => (row.origin.interval_us ?? 0) > 0)),
      list(rows.map((row) => row.origin.moves ?? 0)),
      list(rows.map((row) => row.due)),
      list(rows.map(() => tx.seq())),
      texts(rows.map((row) => JSON.stringify({ sms: row.sms }))),
    ]);
    await lines.wake(
      tx,
      rows.map((row) => ({ lane: row.sms.lane, line: row.line, due: row.due })),
    );
  }
}
