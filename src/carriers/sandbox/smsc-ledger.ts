/**
 * The SMSC's rows in the sandbox's file (`ledger.ts` has the file and its commits): submit_sm that were taken, what is still to
 * happen to them, and the texts on handsets, put together from their segments.
 *
 * Promises and failures are the ledger's: a verb that returns a promise resolves after its commit, and may run twice before it, so
 * it changes nothing but rows and counters.
 */
import { createHash } from 'node:crypto';
import type { SQLInputValue } from 'node:sqlite';
import { smsStepsOf } from './behaviours.ts';

/** Made when missing; only ever added to. */
export const SMS_SCHEMA = `
  CREATE TABLE IF NOT EXISTS sms_segment (
    no INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, system_id TEXT NOT NULL, tx TEXT, part INTEGER NOT NULL,
    total INTEGER NOT NULL, ref INTEGER NOT NULL, sender TEXT NOT NULL, msisdn TEXT NOT NULL, text TEXT NOT NULL,
    taken_at INTEGER NOT NULL, expires_at INTEGER, registered INTEGER NOT NULL, step INTEGER NOT NULL,
    delivered INTEGER NOT NULL, due_at INTEGER, since INTEGER, tries INTEGER NOT NULL, shown INTEGER NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX IF NOT EXISTS sms_segment_tx ON sms_segment (system_id, tx, part) WHERE tx IS NOT NULL;
  CREATE INDEX IF NOT EXISTS sms_segment_due ON sms_segment (due_at) WHERE due_at IS NOT NULL;
  CREATE INDEX IF NOT EXISTS sms_segment_parts ON sms_segment (msisdn, sender, ref, total) WHERE shown = 0 AND delivered = 1;
  CREATE TABLE IF NOT EXISTS sms_inbox (
    no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, msisdn TEXT NOT NULL, sender TEXT NOT NULL,
    text TEXT NOT NULL, received_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS sms_inbox_order ON sms_inbox (msisdn, no);
  CREATE TABLE IF NOT EXISTS sms_busy (key BLOB PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;`;

/** Counted since the file was made. */
export const SMS_COUNTERS = {
  /** Segments taken. */
  smsTaken: 0,
  /** Segments whose transaction had been taken: dropped. */
  smsRepeated: 0,
  /** submit_sm answered with another status than 0, 0x14 or 0x58. */
  smsRefused: 0,
  /** Answers 0x14 and 0x58. */
  smsThrottled: 0,
  /** Whole texts that reached a handset. */
  smsDelivered: 0,
  /** Receipts that were answered with status 0; a doubled one counts once. */
  smsReported: 0,
  /** Tries of a receipt that were not. */
  smsReportsInVain: 0,
};
export type SmsCounter = keyof typeof SMS_COUNTERS;

/** Segments remembered, with their transactions; the oldest leave first. */
const KEEP_SEGMENTS = 1_000_000;
/** Throttled messages that are counted. */
const BUSY_MESSAGES = 10_000;
const DAY_MS = 86_400_000;
const REMOVED_AT_ONCE = 500;

/** One submit_sm to be taken. */
export interface SmsTake {
  systemId: string;
  /** The submission's own id, where it has one: repetitions are known by it. */
  tx: string | null;
  /** 1..`total`. */
  part: number;
  total: number;
  ref: number;
  /** As the handset shows it. */
  sender: string;
  msisdn: string;
  text: string;
  /** Epoch ms. */
  expiresAt: number | null;
  /** A receipt was asked for. */
  registered: boolean;
  /** Throttle the first so many tries. */
  busyTimes: number;
}

export type SmsTaken =
  | { kind: 'taken'; messageId: string; dueAt: number | null }
  | { kind: 'repeated'; messageId: string }
  /** The `tries`-th one in vain, from 1. */
  | { kind: 'busy'; tries: number };

/** A segment with something still to happen. */
export interface SmsPending {
  no: number;
  messageId: string;
  systemId: string;
  sender: string;
  msisdn: string;
  text: string;
  registered: boolean;
  step: number;
  delivered: boolean;
  takenAt: number;
  /** Epoch ms of the first time this step was tried; null = not yet. */
  since: number | null;
  tries: number;
  expiresAt: number | null;
}

/** A text on a handset. */
export interface HandsetSms {
  id: string;
  from: string;
  text: string;
  receivedAt: number;
}

/** The ledger's file as these rows use it. */
export interface SmsFile {
  sql(text: string): {
    get(...values: SQLInputValue[]): Record<string, unknown> | undefined;
    all(...values: SQLInputValue[]): Record<string, unknown>[];
    run(...values: SQLInputValue[]): number;
  };
  /** Runs in the next commit. */
  write<T>(run: () => T): Promise<T>;
  count(name: SmsCounter): void;
  /** Epoch ms. */
  now(): number;
  newId(): string;
  keepMs: number;
  perHandset: number;
}

export interface SmsRows {
  take(take: SmsTake): Promise<SmsTaken>;
  /** Due at `now`, longest due first. */
  due(now: number, limit: number): SmsPending[];
  nextDue(now: number): number | null;
  /** The segment is with the handset; with the last one the text lies there. */
  deliver(pending: SmsPending): Promise<void>;
  /** The step is done: the next one at `next`, or none. */
  advance(pending: SmsPending, next: number | null, reported: boolean): Promise<void>;
  /** Nobody took the receipt: again at `due`. */
  postpone(pending: SmsPending, due: number): Promise<void>;
  /** Receipts for `systemId` that waited for a bind are due now. */
  hasten(systemId: string): Promise<void>;
  /** Oldest first. */
  inbox(msisdn: string): HandsetSms[];
  one(msisdn: string, id: string): HandsetSms | null;
  counts(): { smsPending: number; smsOnHandsets: number };
  /** Inside a commit: removes all texts of a handset; how many. */
  empty(msisdn: string): number;
  /** Inside a commit: one bounded step of retention; true = more is left. */
  sweep(): boolean;
}

const PENDING = `no, message_id, system_id, sender, msisdn, text, registered, step, delivered, taken_at, since, tries,
  expires_at`;

/** The SMSC's verbs over the ledger's file, whose schema has been made. */
export function createSmsRows(file: SmsFile): SmsRows {
  const { sql, write, now } = file;
  const q = {
    known: sql('SELECT message_id FROM sms_segment WHERE system_id = ? AND tx = ? AND part = ?'),
    insert: sql(`INSERT INTO sms_segment (message_id, system_id, tx, part, total, ref, sender, msisdn, text, taken_at,
      expires_at, registered, step, delivered, due_at, since, tries, shown)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, NULL, 0, 0)`),
    due: sql(`SELECT ${PENDING} FROM sms_segment WHERE due_at <= ? ORDER BY due_at LIMIT ?`),
    next: sql('SELECT due_at FROM sms_segment WHERE due_at > ? ORDER BY due_at LIMIT 1'),
    delivered: sql('UPDATE sms_segment SET delivered = 1, since = ? WHERE no = ? AND delivered = 0'),
    parts: sql(`SELECT no, part, text FROM sms_segment WHERE msisdn = ? AND sender = ? AND ref = ? AND total = ? AND
      shown = 0 AND delivered = 1 ORDER BY part, no`),
    shape: sql('SELECT ref, total FROM sms_segment WHERE no = ?'),
    shown: sql('UPDATE sms_segment SET shown = 1 WHERE no = ?'),
    step: sql('UPDATE sms_segment SET step = step + 1, since = NULL, tries = 0, due_at = ? WHERE no = ?'),
    again: sql('UPDATE sms_segment SET tries = tries + 1, since = ?, due_at = ? WHERE no = ?'),
    hasten: sql('UPDATE sms_segment SET due_at = ? WHERE system_id = ? AND due_at > ? AND tries > 0'),
    pending: sql('SELECT count(*) AS n FROM sms_segment WHERE due_at IS NOT NULL'),
    show: sql('INSERT INTO sms_inbox (id, msisdn, sender, text, received_at) VALUES (?, ?, ?, ?, ?)'),
    over: sql(
      'DELETE FROM sms_inbox WHERE no IN (SELECT no FROM sms_inbox WHERE msisdn = ? ORDER BY no DESC LIMIT 100 OFFSET ?)',
    ),
    inbox: sql('SELECT id, sender, text, received_at FROM sms_inbox WHERE msisdn = ? ORDER BY no LIMIT ?'),
    one: sql('SELECT id, sender, text, received_at FROM sms_inbox WHERE msisdn = ? AND id = ?'),
    texts: sql('SELECT count(*) AS n FROM sms_inbox'),
    empty: sql('DELETE FROM sms_inbox WHERE msisdn = ?'),
    busy: sql('SELECT n FROM sms_busy WHERE key = ?'),
    busyPut: sql('INSERT OR REPLACE INTO sms_busy (key, n, at) VALUES (?, ?, ?)'),
    busyDelete: sql('DELETE FROM sms_busy WHERE key = ?'),
    busyOld: sql(
      'DELETE FROM sms_busy WHERE at < ? OR key IN (SELECT key FROM sms_busy ORDER BY at DESC LIMIT -1 OFFSET ?)',
    ),
    span: sql('SELECT coalesce(max(no) - min(no) + 1, 0) AS n FROM sms_segment'),
    old: sql(
      'DELETE FROM sms_segment WHERE no IN (SELECT no FROM sms_segment ORDER BY no LIMIT ?) AND (taken_at <= ? OR ?)',
    ),
    oldTexts: sql(
      'DELETE FROM sms_inbox WHERE no IN (SELECT no FROM sms_inbox ORDER BY no LIMIT ?) AND received_at <= ?',
    ),
  };

  function take(one: SmsTake): SmsTaken {
    const known = one.tx === null ? undefined : q.known.get(one.systemId, one.tx, one.part);
    if (known) {
      file.count('smsRepeated');
      return { kind: 'repeated', messageId: String(known.message_id) };
    }
    if (one.busyTimes > 0) {
      const key = createHash('sha256')
        .update(JSON.stringify([one.systemId, one.sender, one.msisdn, one.text]))
        .digest();
      const tries = Number(q.busy.get(key)?.n ?? 0) + 1;
      if (tries <= one.busyTimes) {
        q.busyPut.run(key, tries, now());
        file.count('smsThrottled');
        return { kind: 'busy', tries };
      }
      q.busyDelete.run(key);
    }
    const messageId = file.newId();
    const takenAt = now();
    const first = smsStepsOf(one.msisdn)[0];
    const dueAt = first ? takenAt + first.afterMs : null;
    q.insert.run(
      messageId,
      one.systemId,
      one.tx,
      one.part,
      one.total,
      one.ref,
      one.sender,
      one.msisdn,
      keptText(one.text),
      takenAt,
      one.expiresAt,
      one.registered ? 1 : 0,
      dueAt,
    );
    file.count('smsTaken');
    return { kind: 'taken', messageId, dueAt };
  }

  function deliver(pending: SmsPending): void {
    const at = now();
    if (q.delivered.run(at, pending.no) === 0) return;
    const { ref, total } = q.shape.get(pending.no) as { ref: number; total: number };
    const parts = new Map<number, Record<string, unknown>>();
    if (total === 1) parts.set(1, { no: pending.no, text: pending.text });
    // Of a part that is there twice the later one counts: references come round again.
    else for (const row of q.parts.all(pending.msisdn, pending.sender, ref, total)) parts.set(Number(row.part), row);
    if (parts.size < total) return;
    let text = '';
    for (const row of parts.values()) {
      text += String(row.text);
      q.shown.run(Number(row.no));
    }
    q.show.run(pending.messageId, pending.msisdn, pending.sender, joinedText(text), at);
    q.over.run(pending.msisdn, file.perHandset);
    file.count('smsDelivered');
  }

  return {
    take: (one) => write(() => take(one)),
    due: (at, limit) => q.due.all(at, limit).map(pendingOf),
    nextDue: (at) => (q.next.get(at)?.due_at as number | undefined) ?? null,
    deliver: (pending) => write(() => deliver(pending)),
    advance: (pending, next, reported) =>
      write(() => {
        if (reported) file.count('smsReported');
        q.step.run(next, pending.no);
      }),
    postpone: (pending, due) =>
      write(() => {
        file.count('smsReportsInVain');
        q.again.run(pending.since ?? now(), due, pending.no);
      }),
    hasten: (systemId) =>
      write(() => {
        q.hasten.run(now(), systemId, now());
      }),
    inbox: (msisdn) => q.inbox.all(msisdn, file.perHandset).map(smsOf),
    one(msisdn, id) {
      const row = q.one.get(msisdn, id);
      return row ? smsOf(row) : null;
    },
    counts: () => ({ smsPending: Number(q.pending.get()?.n), smsOnHandsets: Number(q.texts.get()?.n) }),
    empty: (msisdn) => q.empty.run(msisdn),
    sweep() {
      const at = now();
      q.busyOld.run(at - DAY_MS, BUSY_MESSAGES);
      const over = Number(q.span.get()?.n) > KEEP_SEGMENTS ? 1 : 0;
      const removed = q.old.run(REMOVED_AT_ONCE, at - file.keepMs, over);
      return q.oldTexts.run(REMOVED_AT_ONCE, at - file.keepMs) === REMOVED_AT_ONCE || removed === REMOVED_AT_ONCE;
    },
  };
}

/** A half of a character, which no file keeps, in a plane of its own: senders cut in the middle, and handsets join. */
function keptText(text: string): string {
  return text.replace(/[\ud800-\udfff]/gu, (half) => String.fromCodePoint(0x10_0000 + half.charCodeAt(0)));
}

function joinedText(kept: string): string {
  const half = (one: string): string => String.fromCharCode((one.codePointAt(0) as number) - 0x10_0000);
  return kept.replace(/[\u{10d800}-\u{10dfff}]/gu, half).toWellFormed();
}

function pendingOf(row: Record<string, unknown>): SmsPending {
  return {
    no: Number(row.no),
    messageId: String(row.message_id),
    systemId: String(row.system_id),
    sender: String(row.sender),
    msisdn: String(row.msisdn),
    text: String(row.text),
    registered: row.registered === 1,
    step: Number(row.step),
    delivered: row.delivered === 1,
    takenAt: Number(row.taken_at),
    since: row.since as number | null,
    tries: Number(row.tries),
    expiresAt: row.expires_at as number | null,
  };
}

function smsOf(row: Record<string, unknown>): HandsetSms {
  return {
    id: String(row.id),
    from: String(row.sender),
    text: String(row.text),
    receivedAt: Number(row.received_at),
  };
}
