/**
 * What handsets have sent and nobody has taken yet: rows of the sandbox's file, each with the very bytes of its DeliverReq, so
 * that a repetition is one. They leave when they are answered, or given up.
 */
import type { SmsFile } from './smsc-ledger.ts';

export const OUTGOING_SCHEMA = `
  CREATE TABLE IF NOT EXISTS outgoing (
    no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, msisdn TEXT NOT NULL, content_type TEXT NOT NULL,
    body BLOB NOT NULL, sent_at INTEGER NOT NULL, due_at INTEGER NOT NULL, tries INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS outgoing_due ON outgoing (due_at);`;

/** Counted since the file was made. */
export const OUTGOING_COUNTERS = {
  /** Messages that handsets sent. */
  sentByHandsets: 0,
  /** DeliverReq answered with 1000. */
  deliverReqTaken: 0,
  /** Tries that were not. */
  deliverReqInVain: 0,
  /** Given up after 48 h. */
  deliverReqGivenUp: 0,
};
type OutgoingCounter = keyof typeof OUTGOING_COUNTERS;

/** Messages that wait at a time, and their bytes. */
const WAITING = 10_000;
const WAITING_BYTES = 256 * 1024 * 1024;

/** A message on its way to the operator. */
export interface Outgoing {
  no: number;
  id: string;
  contentType: string;
  body: Uint8Array;
  /** Epoch ms. */
  sentAt: number;
  /** Times it was told in vain. */
  tries: number;
}

export interface OutgoingRows {
  /** False = too many wait. */
  add(message: { id: string; msisdn: string; contentType: string; body: Uint8Array }): Promise<boolean>;
  /** The longest due at `now`, those of `busy` left out. */
  due(now: number, busy: ReadonlySet<number>): Outgoing | null;
  /** Epoch ms when the next one after `now` is due. */
  nextDue(now: number): number | null;
  end(message: Outgoing, how: 'deliverReqTaken' | 'deliverReqGivenUp'): Promise<void>;
  postpone(message: Outgoing, due: number): Promise<void>;
  waiting(): number;
}

/** Rows in the ledger's file; verbs resolve after their commit. */
export function createOutgoingRows({
  sql,
  write,
  count,
  now,
}: Pick<SmsFile, 'sql' | 'write' | 'now'> & { count(name: OutgoingCounter): void }): OutgoingRows {
  const q = {
    size: sql('SELECT count(*) AS n, coalesce(sum(length(body)), 0) AS bytes FROM outgoing'),
    add: sql(
      'INSERT INTO outgoing (id, msisdn, content_type, body, sent_at, due_at, tries) VALUES (?, ?, ?, ?, ?, ?, 0)',
    ),
    due: sql('SELECT no FROM outgoing WHERE due_at <= ? ORDER BY due_at LIMIT ?'),
    one: sql('SELECT no, id, content_type, body, sent_at, tries FROM outgoing WHERE no = ?'),
    next: sql('SELECT due_at FROM outgoing WHERE due_at > ? ORDER BY due_at LIMIT 1'),
    end: sql('DELETE FROM outgoing WHERE no = ?'),
    again: sql('UPDATE outgoing SET tries = tries + 1, due_at = ? WHERE no = ?'),
  };
  return {
    add: ({ id, msisdn, contentType, body }) =>
      write(() => {
        const size = q.size.get();
        if (Number(size?.n) >= WAITING || Number(size?.bytes) + body.byteLength > WAITING_BYTES) return false;
        q.add.run(id, msisdn, contentType, body, now(), now());
        count('sentByHandsets');
        return true;
      }),
    due(at, busy) {
      const found = q.due.all(at, busy.size + 1).find(({ no }) => !busy.has(Number(no)));
      const row = found && q.one.get(Number(found.no));
      if (!row) return null;
      return {
        no: Number(row.no),
        id: String(row.id),
        contentType: String(row.content_type),
        body: row.body as Uint8Array,
        sentAt: Number(row.sent_at),
        tries: Number(row.tries),
      };
    },
    nextDue: (at) => (q.next.get(at)?.due_at as number | undefined) ?? null,
    end: ({ no }, how) =>
      write(() => {
        q.end.run(no);
        count(how);
      }),
    postpone: ({ no }, due) =>
      write(() => {
        q.again.run(due, no);
        count('deliverReqInVain');
      }),
    waiting: () => Number(q.size.get()?.n),
  };
}
