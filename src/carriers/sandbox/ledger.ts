/**
 * The sandbox's own durable file: what was taken (so that a repeated TransactionID is known), what is still to happen to it,
 * and what lies on the handsets. Shares nothing with Postcard's store.
 *
 * Promises: a verb that returns a promise resolves after its commit (WAL, synchronous=FULL); verbs called in the same
 * turn of the event loop, or while a commit runs, share one commit. Bytes are kept once per SHA-256 and leave with the last
 * message that shows them. One process per file (the operating system's lock).
 *
 * Fails: `openLedger` throws for a file that cannot be used; a verb rejects when the disk refuses, then nothing of it has
 * happened. One failing verb does not harm those that share its commit: they are run again one by one.
 */
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import type { Env } from '../../env.ts';
import { behaviourOf } from './behaviours.ts';
import { createOutgoingRows, OUTGOING_COUNTERS, OUTGOING_SCHEMA, type OutgoingRows } from './outgoing-ledger.ts';
import type { Recipient, SubmitReq } from './peer.ts';
import { createSmsRows, SMS_COUNTERS, SMS_SCHEMA, type SmsRows } from './smsc-ledger.ts';

const DAY = 86_400_000;
/** Submissions (and with them the memory of their TransactionIDs) and what lies on handsets leave after this long. */
export const KEEP_MS = 7 * DAY;
/** Submissions remembered; the oldest leave first. */
export const KEEP_SUBMISSIONS = 1_000_000;
/** Messages on one handset; the oldest leave first. */
export const HANDSET_MESSAGES = 1_000;
/** Bytes of content; the oldest messages on handsets leave first, and a submission that still does not fit is not taken. */
export const CONTENT_BYTES = 1024 * 1024 * 1024;
/** Messages whose 4006 answers are counted; the oldest are forgotten first. */
const BUSY_MESSAGES = 10_000;
/** Verbs in one commit. */
const GROUP = 512;
/** Submissions that one `sweep`, or one `take` that needs room, removes. */
const REMOVED_AT_ONCE = 500;
/** 4006 answers are counted per message for this long. */
const BUSY_KEEP_MS = DAY;

const SCHEMA_VERSION = 1;
const SCHEMA = `
  CREATE TABLE submission (
    no INTEGER PRIMARY KEY, message_id TEXT NOT NULL UNIQUE, vasp TEXT NOT NULL, tx TEXT NOT NULL, taken_at INTEGER NOT NULL,
    repeats INTEGER NOT NULL, expires_at INTEGER, reports INTEGER NOT NULL, namespace TEXT NOT NULL, version TEXT NOT NULL,
    sender TEXT NOT NULL, recipients TEXT NOT NULL, subject TEXT, UNIQUE (vasp, tx)
  ) STRICT;
  CREATE TABLE part (
    submission INTEGER NOT NULL, n INTEGER NOT NULL, content_type TEXT NOT NULL, content_id TEXT NOT NULL,
    size INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (submission, n)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX part_hash ON part (hash);
  CREATE TABLE content (no INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE pending (
    no INTEGER PRIMARY KEY, submission INTEGER NOT NULL, member INTEGER NOT NULL, step INTEGER NOT NULL,
    delivered INTEGER NOT NULL, due_at INTEGER NOT NULL, since INTEGER, tries INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX pending_due ON pending (due_at);
  CREATE INDEX pending_submission ON pending (submission);
  CREATE TABLE inbox (
    no INTEGER PRIMARY KEY AUTOINCREMENT, msisdn TEXT NOT NULL, submission INTEGER NOT NULL, received_at INTEGER NOT NULL,
    UNIQUE (msisdn, submission)
  ) STRICT;
  CREATE INDEX inbox_submission ON inbox (submission);
  CREATE INDEX inbox_order ON inbox (msisdn, no);
  CREATE TABLE busy (key BLOB PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${SCHEMA_VERSION};`;

/** What has been counted since the file was made. */
const COUNTERS = {
  /** Submissions taken. */
  taken: 0,
  /** Submissions with a TransactionID that had been taken: dropped. */
  repeated: 0,
  /** Requests answered with another status than 1000, 1100 or 4006, or with a fault. */
  refused: 0,
  /** Answers 4006. */
  busy: 0,
  /** Connections cut before the answer (9907). */
  cut: 0,
  /** Answers that are no SOAP (9910). */
  garbage: 0,
  /** Copies that reached a handset. */
  delivered: 0,
  /** Reports that were answered with 1000; a doubled one counts once. */
  reported: 0,
  /** Tries of a report that were not answered with 1000. */
  reportsInVain: 0,
  /** Reports given up because nobody answered them. */
  reportsGivenUp: 0,
  /** Messages called back by CancelReq before they reached anybody. */
  canceled: 0,
  ...SMS_COUNTERS,
  ...OUTGOING_COUNTERS,
};
type Counter = keyof typeof COUNTERS;

/** A recipient with something still to happen. */
export interface Pending {
  no: number;
  submission: number;
  messageId: string;
  /** Place among the submission's recipients. */
  member: number;
  recipient: Recipient;
  sender: SubmitReq['sender'];
  /** Place in its behaviour's steps. */
  step: number;
  /** This step's message lies on the handset. */
  delivered: boolean;
  /** Epoch ms of the first time this step was tried; null = not yet. */
  since: number | null;
  /** Times its report was told in vain. */
  tries: number;
  /** Epoch ms; null = no ExpiryDate. */
  expiresAt: number | null;
  /** The VASP asked for reports. */
  reports: boolean;
  namespace: string;
  version: string;
}

export interface HandsetPart {
  contentType: string;
  contentId: string;
  size: number;
  /** Lower-case hex. */
  sha256: string;
}

export interface HandsetMessage {
  id: string;
  from: string;
  to: string[];
  subject: string;
  /** Epoch ms. */
  receivedAt: number;
  parts: HandsetPart[];
}

/** What came of a submission. `refused`: the recipients that do not exist, as given. */
export type Taken =
  | {
      kind: 'taken';
      messageId: string;
      refused: Recipient[];
      /** Epoch ms when its first step is due; null = it has none. */
      dueAt: number | null;
    }
  /** The TransactionID had been taken: nothing is taken now, the answer is the first one's. */
  | { kind: 'repeated'; messageId: string; refused: Recipient[] }
  | { kind: 'busy' }
  /** No room for its content. */
  | { kind: 'full' };

export interface Take {
  request: SubmitReq;
  /** What tells one message from another, whatever its TransactionID: counts the 4006 answers. */
  fingerprint: Uint8Array;
  /** Answer 4006 to the first so many tries. */
  busyTimes: number;
}

export interface Ledger {
  /** The SMSC's rows. */
  readonly sms: SmsRows;
  /** What handsets sent. */
  readonly outgoing: OutgoingRows;
  take(take: Take): Promise<Taken>;
  /** Due at `now`, longest due first. */
  due(now: number, limit: number): Pending[];
  /** Epoch ms when the next one after `now` is due. */
  nextDue(now: number): number | null;
  /** Whether it still is, and not called back or moved since it was read. */
  isDue(pending: Pending, now: number): boolean;
  /** Puts the message on the handset and notes that this step has. False = it was called back. */
  deliver(pending: Pending): Promise<boolean>;
  /** CancelReq: nobody who has not got it gets it. `late` = all have, or have refused. */
  cancel(vasp: string, messageId: string): Promise<'done' | 'unknown' | 'late'>;
  /** ReplaceReq: who has not got it gets it from `earliestAt` (epoch ms) on. */
  move(vasp: string, messageId: string, earliestAt: number | null): Promise<'done' | 'unknown' | 'late'>;
  /** The step is done: the next one at `next`, or none. */
  advance(pending: Pending, next: number | null, count?: Counter): Promise<void>;
  /** The report was told in vain: again at `due`. */
  postpone(pending: Pending, due: number): Promise<void>;
  /** Oldest first; at most HANDSET_MESSAGES. */
  inbox(msisdn: string): HandsetMessage[];
  /** Removes all messages of a handset; how many. */
  empty(msisdn: string): Promise<number>;
  /** Part `n` of a message on that handset. */
  part(msisdn: string, id: string, n: number): { part: HandsetPart; bytes: Uint8Array } | null;
  bytes(sha256: string): Uint8Array | null;
  /** Handsets with messages, by number, those after `after`. */
  handsets(after: string, limit: number): { msisdn: string; messages: number; lastReceivedAt: number }[];
  /** Counted with the next commit. */
  count(name: Counter): void;
  counters(): Record<
    Counter | 'pending' | 'messagesOnHandsets' | 'contentBytes' | 'smsPending' | 'smsOnHandsets' | 'deliverReqWaiting',
    number
  >;
  /** One bounded step of retention; true = more is left. */
  sweep(): Promise<boolean>;
  close(): void;
}

interface Row {
  [column: string]: unknown;
}

/** @param contentBytes limit of all content; CONTENT_BYTES unless a test wants less. */
export function openLedger(file: string, env: Env, contentBytes: number = CONTENT_BYTES): Ledger {
  const lock = new DatabaseSync(`${file.replace(/\.db$/, '')}.lock`);
  let db: DatabaseSync | null = null;
  try {
    // A second process is told at once. A file of its own, so that a backup can read this one meanwhile.
    lock.exec('PRAGMA busy_timeout = 1000; BEGIN EXCLUSIVE');
    db = new DatabaseSync(file);
    prepareFile(db);
    return createLedger(db, lock, env, contentBytes);
  } catch (error) {
    db?.close();
    lock.close();
    throw error;
  }
}

function prepareFile(db: DatabaseSync): void {
  db.exec(`PRAGMA busy_timeout = 1000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16384; PRAGMA journal_size_limit = 67108864`);
  const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
  if (version > SCHEMA_VERSION) throw new Error(`the sandbox's file was written by a newer version (${version})`);
  if (version === 0) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
  db.exec(`BEGIN IMMEDIATE; ${SMS_SCHEMA} ${OUTGOING_SCHEMA} COMMIT`);
  const { synchronous } = db.prepare('PRAGMA synchronous').get() as { synchronous: number };
  if (synchronous !== 2) throw new Error(`unsafe sandbox file: synchronous is ${synchronous}, wanted 2`);
}

const PENDING = `p.no, p.submission, p.member, p.step, p.delivered, p.since, p.tries, s.message_id, s.recipients, s.sender,
  s.expires_at, s.reports, s.namespace, s.version`;

function createLedger(db: DatabaseSync, lock: DatabaseSync, env: Env, contentLimit: number): Ledger {
  const sql = (text: string) => {
    const statement = db.prepare(text);
    return {
      get: (...values: SQLInputValue[]) => statement.get(...values) as Row | undefined,
      all: (...values: SQLInputValue[]) => statement.all(...values) as Row[],
      run: (...values: SQLInputValue[]) => Number(statement.run(...values).changes),
    };
  };
  const q = {
    begin: sql('BEGIN IMMEDIATE'),
    commit: sql('COMMIT'),
    rollback: sql('ROLLBACK'),
    known: sql('SELECT no, message_id, recipients FROM submission WHERE vasp = ? AND tx = ?'),
    repeat: sql('UPDATE submission SET repeats = repeats + 1 WHERE no = ?'),
    submission: sql(`INSERT INTO submission
      (message_id, vasp, tx, taken_at, repeats, expires_at, reports, namespace, version, sender, recipients, subject)
      VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?) RETURNING no`),
    submissionDelete: sql('DELETE FROM submission WHERE no = ?'),
    oldest: sql('SELECT no, taken_at FROM submission ORDER BY no LIMIT ?'),
    span: sql('SELECT coalesce(max(no) - min(no) + 1, 0) AS n FROM submission'),
    part: sql('INSERT INTO part (submission, n, content_type, content_id, size, hash) VALUES (?, ?, ?, ?, ?, ?)'),
    parts: sql('SELECT content_type, content_id, size, hash FROM part WHERE submission = ? ORDER BY n'),
    partsDelete: sql('DELETE FROM part WHERE submission = ?'),
    content: sql('INSERT OR IGNORE INTO content (hash, bytes) VALUES (?, ?)'),
    contentHas: sql('SELECT 1 AS there FROM content WHERE hash = ?'),
    contentGet: sql('SELECT bytes FROM content WHERE hash = ?'),
    contentShown: sql('SELECT 1 AS shown FROM part WHERE hash = ? LIMIT 1'),
    contentDelete: sql('DELETE FROM content WHERE hash = ?'),
    contentTotal: sql('SELECT coalesce(sum(length(bytes)), 0) AS n FROM content'),
    pending: sql(
      'INSERT INTO pending (submission, member, step, delivered, due_at, since, tries) VALUES (?, ?, 0, 0, ?, NULL, 0)',
    ),
    pendingDue: sql(`SELECT ${PENDING} FROM pending p JOIN submission s ON s.no = p.submission
      WHERE p.due_at <= ? ORDER BY p.due_at LIMIT ?`),
    pendingNext: sql('SELECT due_at FROM pending WHERE due_at > ? ORDER BY due_at LIMIT 1'),
    pendingIs: sql('SELECT 1 AS there FROM pending WHERE no = ? AND step = ? AND due_at <= ?'),
    pendingOpen: sql('SELECT no, member FROM pending WHERE submission = ? AND step = 0 AND delivered = 0'),
    pendingMove: sql('UPDATE pending SET due_at = ? WHERE no = ?'),
    owned: sql('SELECT no, recipients FROM submission WHERE vasp = ? AND message_id = ?'),
    pendingDelivered: sql('UPDATE pending SET delivered = 1, since = ? WHERE no = ?'),
    pendingStep: sql(
      'UPDATE pending SET step = step + 1, delivered = 0, since = NULL, tries = 0, due_at = ? WHERE no = ?',
    ),
    pendingAgain: sql('UPDATE pending SET tries = tries + 1, since = ?, due_at = ? WHERE no = ?'),
    pendingDelete: sql('DELETE FROM pending WHERE no = ?'),
    pendingCount: sql('SELECT count(*) AS n FROM pending'),
    pendingOf: sql('SELECT 1 AS there FROM pending WHERE submission = ? LIMIT 1'),
    pendingDrop: sql('DELETE FROM pending WHERE submission = ?'),
    inboxAdd: sql('INSERT OR IGNORE INTO inbox (msisdn, submission, received_at) VALUES (?, ?, ?)'),
    inboxOver: sql('SELECT no, submission FROM inbox WHERE msisdn = ? ORDER BY no DESC LIMIT 100 OFFSET ?'),
    inboxList: sql(`SELECT s.no, s.message_id, s.sender, s.recipients, s.subject, i.received_at FROM inbox i
      JOIN submission s ON s.no = i.submission WHERE i.msisdn = ? ORDER BY i.no LIMIT ?`),
    inboxOne: sql(`SELECT s.no FROM submission s JOIN inbox i ON i.submission = s.no AND i.msisdn = ?
      WHERE s.message_id = ?`),
    inboxAll: sql('SELECT submission FROM inbox WHERE msisdn = ?'),
    inboxEmpty: sql('DELETE FROM inbox WHERE msisdn = ?'),
    inboxDelete: sql('DELETE FROM inbox WHERE no = ?'),
    inboxOf: sql('SELECT 1 AS there FROM inbox WHERE submission = ? LIMIT 1'),
    inboxDrop: sql('DELETE FROM inbox WHERE submission = ?'),
    inboxCount: sql('SELECT count(*) AS n FROM inbox'),
    inboxOldest: sql('SELECT no, submission FROM inbox ORDER BY no LIMIT 1'),
    handsets: sql(`SELECT msisdn, count(*) AS messages, max(received_at) AS last FROM
      (SELECT msisdn, received_at FROM inbox UNION ALL SELECT msisdn, received_at FROM sms_inbox) WHERE msisdn > ?
      GROUP BY msisdn ORDER BY msisdn LIMIT ?`),
    busy: sql('SELECT n FROM busy WHERE key = ?'),
    busyPut: sql('INSERT OR REPLACE INTO busy (key, n, at) VALUES (?, ?, ?)'),
    busyDelete: sql('DELETE FROM busy WHERE key = ?'),
    busyOld: sql('DELETE FROM busy WHERE at < ? OR key IN (SELECT key FROM busy ORDER BY at DESC LIMIT -1 OFFSET ?)'),
    counters: sql('SELECT name, n FROM counter'),
    counter: sql('INSERT OR REPLACE INTO counter (name, n) VALUES (?, ?)'),
  };

  // ------------------------------------------------------------------------------------------------------- group commit

  let counts = { ...COUNTERS };
  for (const { name, n } of q.counters.all())
    if (Object.hasOwn(counts, String(name))) counts[name as Counter] = Number(n);
  let saved = { ...counts };
  let contentBytes = Number(q.contentTotal.get()?.n);
  const queue: { run(): unknown; resolve(value: unknown): void; reject(error: unknown): void }[] = [];

  function transaction<T>(work: () => T): T {
    const before = { counts: { ...counts }, contentBytes };
    q.begin.run();
    try {
      const result = work();
      for (const name of Object.keys(counts) as Counter[]) {
        if (counts[name] !== saved[name]) q.counter.run(name, counts[name]);
      }
      q.commit.run();
      saved = { ...counts };
      return result;
    } catch (error) {
      if (db.isTransaction) q.rollback.run();
      counts = before.counts;
      contentBytes = before.contentBytes;
      throw error;
    }
  }

  function flush(): void {
    const group = queue.splice(0, GROUP);
    if (group.length === 0) return;
    try {
      const results = transaction(() => group.map((verb) => verb.run()));
      for (const [i, verb] of group.entries()) verb.resolve(results[i]);
    } catch (error) {
      if (group.length === 1) group[0]!.reject(error);
      else {
        for (const verb of group) {
          try {
            verb.resolve(transaction(verb.run));
          } catch (own) {
            verb.reject(own);
          }
        }
      }
    }
    if (queue.length > 0) setImmediate(flush);
  }

  /** Runs `run` in the next commit. It may run twice, so it changes nothing but rows, `counts` and `contentBytes`. */
  function write<T>(run: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const verb = { run, resolve: resolve as (value: unknown) => void, reject };
      if (queue.push(verb) === 1) setImmediate(flush);
    });
  }

  const sms = createSmsRows({
    sql,
    write,
    count: (name) => {
      counts[name]++;
    },
    now: () => env.clock.now(),
    newId: () => Buffer.from(env.random.bytes(8)).toString('hex'),
    keepMs: KEEP_MS,
    perHandset: HANDSET_MESSAGES,
  });

  const outgoing = createOutgoingRows({
    sql,
    write,
    count: (name) => {
      counts[name]++;
    },
    now: () => env.clock.now(),
  });

  // -------------------------------------------------------------------------------------------- steps inside a commit

  /** Content leaves when neither a handset nor a pending step needs it. */
  function tidy(submission: number): void {
    if (q.inboxOf.get(submission) || q.pendingOf.get(submission)) return;
    dropContent(submission);
  }

  function dropContent(submission: number): void {
    const parts = q.parts.all(submission);
    q.partsDelete.run(submission);
    for (const part of parts) {
      const hash = part.hash as Uint8Array;
      if (q.contentShown.get(hash)) continue;
      if (q.contentDelete.run(hash) > 0) contentBytes -= Number(part.size);
    }
  }

  function makeRoom(bytes: number): boolean {
    for (let n = 0; contentBytes + bytes > contentLimit && n < REMOVED_AT_ONCE; n++) {
      const oldest = q.inboxOldest.get();
      if (!oldest) break;
      q.inboxDelete.run(Number(oldest.no));
      tidy(Number(oldest.submission));
    }
    return contentBytes + bytes <= contentLimit;
  }

  function take({ request, fingerprint, busyTimes }: Take): Taken {
    const known = q.known.get(request.vasp, request.transactionId);
    if (known) {
      q.repeat.run(Number(known.no));
      counts.repeated++;
      const refused = refusedOf(JSON.parse(String(known.recipients)) as Recipient[]);
      return { kind: 'repeated', messageId: String(known.message_id), refused };
    }
    const now = env.clock.now();
    const tried = busyTimes > 0 ? Number(q.busy.get(fingerprint)?.n ?? 0) : 0;
    if (tried < busyTimes) {
      q.busyPut.run(fingerprint, tried + 1, now);
      counts.busy++;
      return { kind: 'busy' };
    }
    if (busyTimes > 0) q.busyDelete.run(fingerprint);
    const fresh = new Map<string, number>();
    for (const part of request.parts) {
      if (!q.contentHas.get(part.hash)) fresh.set(Buffer.from(part.hash).toString('latin1'), part.bytes.byteLength);
    }
    const added = [...fresh.values()].reduce((sum, size) => sum + size, 0);
    if (!makeRoom(added)) {
      counts.busy++;
      return { kind: 'full' };
    }
    const messageId = Buffer.from(env.random.bytes(12)).toString('hex');
    const { no } = q.submission.get(
      messageId,
      request.vasp,
      request.transactionId,
      now,
      request.expiresAt,
      request.reports ? 1 : 0,
      request.namespace,
      request.version,
      JSON.stringify(request.sender),
      JSON.stringify(request.recipients),
      request.subject,
    ) as { no: number };
    for (const [n, part] of request.parts.entries()) {
      q.part.run(no, n, part.contentType, part.contentId, part.bytes.byteLength, part.hash);
      if (q.content.run(part.hash, part.bytes) > 0) contentBytes += part.bytes.byteLength;
    }
    const start = Math.max(now, request.earliestAt ?? 0);
    let dueAt: number | null = null;
    for (const [member, recipient] of request.recipients.entries()) {
      const first = behaviourOf(recipient.msisdn).steps[0];
      if (!first) continue;
      const due = start + first.afterMs;
      q.pending.run(no, member, due);
      dueAt = Math.min(dueAt ?? due, due);
    }
    tidy(no);
    counts.taken++;
    return { kind: 'taken', messageId, refused: refusedOf(request.recipients), dueAt };
  }

  function deliver(pending: Pending): boolean {
    const now = env.clock.now();
    const { msisdn } = pending.recipient;
    if (q.pendingDelivered.run(now, pending.no) === 0) return false;
    counts.delivered += q.inboxAdd.run(msisdn, pending.submission, now);
    for (const row of q.inboxOver.all(msisdn, HANDSET_MESSAGES)) {
      q.inboxDelete.run(Number(row.no));
      tidy(Number(row.submission));
    }
    return true;
  }

  /** Members whom nothing has reached: those with everything still to happen, and those to whom nothing ever does (9905). */
  function amend(
    vasp: string,
    messageId: string,
    change: (row: Row, recipient: Recipient) => void,
  ): 'done' | 'unknown' | 'late' {
    const found = q.owned.get(vasp, messageId);
    if (!found) return 'unknown';
    const no = Number(found.no);
    const recipients = JSON.parse(String(found.recipients)) as Recipient[];
    const open = q.pendingOpen.all(no);
    for (const row of open) change(row, recipients[Number(row.member)] as Recipient);
    tidy(no);
    return open.length > 0 || recipients.some(({ msisdn }) => isSilent(msisdn)) ? 'done' : 'late';
  }

  function cancel(vasp: string, messageId: string): 'done' | 'unknown' | 'late' {
    const outcome = amend(vasp, messageId, (row) => void q.pendingDelete.run(Number(row.no)));
    if (outcome === 'done') counts.canceled++;
    return outcome;
  }

  function move(vasp: string, messageId: string, earliestAt: number | null): 'done' | 'unknown' | 'late' {
    const start = Math.max(env.clock.now(), earliestAt ?? 0);
    return amend(vasp, messageId, (row, { msisdn }) => {
      const first = behaviourOf(msisdn).steps[0];
      if (earliestAt !== null && first) q.pendingMove.run(start + first.afterMs, Number(row.no));
    });
  }

  function advance(pending: Pending, next: number | null, count?: Counter): void {
    if (count) counts[count]++;
    if (next !== null) {
      q.pendingStep.run(next, pending.no);
      return;
    }
    q.pendingDelete.run(pending.no);
    tidy(pending.submission);
  }

  function empty(msisdn: string): number {
    const rows = q.inboxAll.all(msisdn);
    q.inboxEmpty.run(msisdn);
    for (const row of rows) tidy(Number(row.submission));
    return rows.length + sms.empty(msisdn);
  }

  function sweep(): boolean {
    const now = env.clock.now();
    q.busyOld.run(now - BUSY_KEEP_MS, BUSY_MESSAGES);
    let over = Number(q.span.get()?.n) - KEEP_SUBMISSIONS;
    let removed = 0;
    for (const row of q.oldest.all(REMOVED_AT_ONCE)) {
      // Nothing is pending by then: a report is told for 48 h, and EarliestDeliveryTime reaches 4 days.
      if (Number(row.taken_at) > now - KEEP_MS && over <= 0) break;
      const no = Number(row.no);
      q.inboxDrop.run(no);
      q.pendingDrop.run(no);
      dropContent(no);
      q.submissionDelete.run(no);
      over--;
      removed++;
    }
    return sms.sweep() || removed === REMOVED_AT_ONCE;
  }

  // ---------------------------------------------------------------------------------------------------------------- reads

  function pendingOf(row: Row): Pending {
    const member = Number(row.member);
    return {
      no: Number(row.no),
      submission: Number(row.submission),
      messageId: String(row.message_id),
      member,
      recipient: (JSON.parse(String(row.recipients)) as Recipient[])[member]!,
      sender: JSON.parse(String(row.sender)) as SubmitReq['sender'],
      step: Number(row.step),
      delivered: row.delivered === 1,
      since: row.since as number | null,
      tries: Number(row.tries),
      expiresAt: row.expires_at as number | null,
      reports: row.reports === 1,
      namespace: String(row.namespace),
      version: String(row.version),
    };
  }

  function partsOf(submission: number): HandsetPart[] {
    return q.parts.all(submission).map((row) => ({
      contentType: String(row.content_type),
      contentId: String(row.content_id),
      size: Number(row.size),
      sha256: Buffer.from(row.hash as Uint8Array).toString('hex'),
    }));
  }

  function bytes(sha256: string): Uint8Array | null {
    return (q.contentGet.get(Buffer.from(sha256, 'hex'))?.bytes as Uint8Array | undefined) ?? null;
  }

  function inbox(msisdn: string): HandsetMessage[] {
    return q.inboxList.all(msisdn, HANDSET_MESSAGES).map((row) => {
      // Whoever stands in Bcc is seen by nobody.
      const to = (JSON.parse(String(row.recipients)) as Recipient[])
        .filter((recipient) => recipient.list !== 'Bcc')
        .map((recipient) => recipient.msisdn);
      return {
        id: String(row.message_id),
        from: (JSON.parse(String(row.sender)) as SubmitReq['sender']).shown,
        to: to.length > 0 ? to : [msisdn],
        subject: (row.subject as string | null) ?? '',
        receivedAt: Number(row.received_at),
        parts: partsOf(Number(row.no)),
      };
    });
  }

  return {
    sms,
    outgoing,
    take: (one) => write(() => take(one)),
    due: (now, limit) => q.pendingDue.all(now, limit).map(pendingOf),
    nextDue: (now) => (q.pendingNext.get(now)?.due_at as number | undefined) ?? null,
    isDue: ({ no, step }, now) => q.pendingIs.get(no, step, now) !== undefined,
    deliver: (pending) => write(() => deliver(pending)),
    cancel: (vasp, messageId) => write(() => cancel(vasp, messageId)),
    move: (vasp, messageId, earliestAt) => write(() => move(vasp, messageId, earliestAt)),
    advance: (pending, next, count) => write(() => advance(pending, next, count)),
    postpone: (pending, due) =>
      write(() => {
        counts.reportsInVain++;
        q.pendingAgain.run(pending.since ?? env.clock.now(), due, pending.no);
      }),
    inbox,
    empty: (msisdn) => write(() => empty(msisdn)),
    part(msisdn, id, n) {
      const found = q.inboxOne.get(msisdn, id);
      const part = found && partsOf(Number(found.no))[n];
      const content = part && bytes(part.sha256);
      return content ? { part, bytes: content } : null;
    },
    bytes,
    handsets: (after, limit) =>
      q.handsets.all(after, limit).map((row) => ({
        msisdn: String(row.msisdn),
        messages: Number(row.messages),
        lastReceivedAt: Number(row.last),
      })),
    count(name) {
      counts[name]++;
    },
    counters: () => ({
      ...counts,
      pending: Number(q.pendingCount.get()?.n),
      messagesOnHandsets: Number(q.inboxCount.get()?.n),
      contentBytes,
      ...sms.counts(),
      deliverReqWaiting: outgoing.waiting(),
    }),
    sweep: () => write(sweep),
    close() {
      while (queue.length > 0) flush();
      db.close();
      lock.close();
    },
  };
}

/** Taken, and never heard of again. */
function isSilent(msisdn: string): boolean {
  const { atSubmit, steps } = behaviourOf(msisdn);
  return atSubmit === undefined && steps.length === 0;
}

function refusedOf(recipients: Recipient[]): Recipient[] {
  return recipients.filter(({ msisdn }) => ['unknown', 'noMms'].includes(behaviourOf(msisdn).atSubmit ?? ''));
}
