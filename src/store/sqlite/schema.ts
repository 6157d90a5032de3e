/**
 * The tables of the embedded engine and how they grow: numbered steps, forward only, each applied once inside one
 * transaction. `PRAGMA user_version` is the last step applied; a file newer than the code is refused.
 *
 * Shape (docs/adr/0004): waiting has three levels. turn = one account's place on a lane, line = one bulk's
 * place (or an account's express line), run = consecutive messages of one request. Each has `due_at` (NULL = nothing may
 * leave) and `seq`; served rows get due_at = now and the next seq, so an index scan in (due_at, seq) order is a fair ring.
 * What delays many messages is a column of bulk, line or run, never of message; a fresh message has no queue row at all.
 */
import type { DatabaseSync } from 'node:sqlite';

const STEPS: string[] = [
  `
CREATE TABLE meta (k TEXT PRIMARY KEY, v NOT NULL) WITHOUT ROWID;
CREATE TABLE account (no INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE key (hash TEXT PRIMARY KEY, account INTEGER NOT NULL, label TEXT NOT NULL) WITHOUT ROWID;

-- A bulk row exists only where there is something to steer: a bulkId given, a schedule, or a steering verb.
-- pauses = ended ones, JSON [[begin, end], ...]; limited_at = when it first had a speed limit (store/clock.ts).
CREATE TABLE bulk (
  no INTEGER PRIMARY KEY, account INTEGER NOT NULL, id TEXT, accepted_at INTEGER NOT NULL, send_at INTEGER,
  interval_us REAL NOT NULL, next_us REAL NOT NULL, limited_at INTEGER, paused_at INTEGER, pauses TEXT NOT NULL,
  canceled_at INTEGER);
CREATE UNIQUE INDEX bulk_id ON bulk (account, id) WHERE id IS NOT NULL;

CREATE TABLE spec (
  no INTEGER PRIMARY KEY, account INTEGER NOT NULL, bulk INTEGER NOT NULL, first INTEGER NOT NULL, "end" INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL, endpoint INTEGER, intermediate INTEGER NOT NULL, sender TEXT NOT NULL,
  campaign TEXT, entity TEXT, application TEXT, body TEXT NOT NULL);
CREATE INDEX spec_account ON spec (account);
CREATE INDEX spec_bulk ON spec (bulk);
CREATE INDEX spec_endpoint ON spec (endpoint) WHERE endpoint IS NOT NULL;

CREATE TABLE message (
  no INTEGER PRIMARY KEY, account INTEGER NOT NULL, spec INTEGER NOT NULL, "to" TEXT NOT NULL, key TEXT,
  state INTEGER NOT NULL, status INTEGER NOT NULL, error INTEGER NOT NULL, sent_at INTEGER, done_at INTEGER);
CREATE TABLE message_key (account INTEGER, key TEXT, no INTEGER NOT NULL, PRIMARY KEY (account, key)) WITHOUT ROWID;
CREATE TABLE idem (
  account INTEGER, key TEXT, hash TEXT NOT NULL, at INTEGER NOT NULL, answer TEXT NOT NULL,
  PRIMARY KEY (account, key)) WITHOUT ROWID;
CREATE INDEX idem_at ON idem (at);

CREATE TABLE lane (no INTEGER PRIMARY KEY, carrier TEXT NOT NULL UNIQUE, on_unknown TEXT NOT NULL, reports INTEGER NOT NULL);
CREATE TABLE turn (
  lane INTEGER, account INTEGER, due_at INTEGER, seq INTEGER NOT NULL, PRIMARY KEY (lane, account)) WITHOUT ROWID;
CREATE INDEX turn_due ON turn (lane, due_at, seq) WHERE due_at IS NOT NULL;
CREATE TABLE line (
  no INTEGER PRIMARY KEY, lane INTEGER NOT NULL, account INTEGER NOT NULL, bulk INTEGER, paused INTEGER NOT NULL,
  due_at INTEGER, seq INTEGER NOT NULL);
CREATE UNIQUE INDEX line_bulk ON line (lane, account, bulk) WHERE bulk IS NOT NULL;
CREATE UNIQUE INDEX line_express ON line (lane, account) WHERE bulk IS NULL;
CREATE INDEX line_due ON line (lane, account, due_at, seq) WHERE due_at IS NOT NULL;
CREATE INDEX line_of_bulk ON line (bulk) WHERE bulk IS NOT NULL;
-- no = the run's first message. members 0 = singles, else one group submission of that many numbers.
-- opens_at = first opening after acceptance and sendAt; look_at = when the sweep must see whether its
-- validity ended; limited = its bulk had a limit when it was accepted.
CREATE TABLE run (
  no INTEGER PRIMARY KEY, line INTEGER NOT NULL, spec INTEGER NOT NULL, next INTEGER NOT NULL, "end" INTEGER NOT NULL,
  members INTEGER NOT NULL, send_at INTEGER, days INTEGER, from_min INTEGER, to_min INTEGER, validity INTEGER NOT NULL,
  opens_at INTEGER NOT NULL, look_at INTEGER, limited INTEGER NOT NULL, media INTEGER NOT NULL, due_at INTEGER, seq INTEGER NOT NULL);
CREATE INDEX run_due ON run (line, due_at, seq) WHERE due_at IS NOT NULL;
CREATE INDEX run_look ON run (look_at) WHERE look_at IS NOT NULL;
-- sent = members of the last submission (a smaller one is a new generation).
CREATE TABLE retry (
  leader INTEGER PRIMARY KEY, line INTEGER NOT NULL, run INTEGER NOT NULL, members INTEGER NOT NULL, sent INTEGER NOT NULL,
  generation INTEGER NOT NULL, attempts INTEGER NOT NULL, held INTEGER NOT NULL, valid_until INTEGER NOT NULL,
  due_at INTEGER NOT NULL);
CREATE INDEX retry_due ON retry (line, due_at);
CREATE TABLE flight (
  leader INTEGER PRIMARY KEY, token INTEGER NOT NULL, lane INTEGER NOT NULL, line INTEGER NOT NULL, run INTEGER NOT NULL,
  members INTEGER NOT NULL, sent INTEGER NOT NULL, generation INTEGER NOT NULL, attempts INTEGER NOT NULL,
  held INTEGER NOT NULL, valid_until INTEGER NOT NULL, lease_until INTEGER NOT NULL);
-- Numbers [first, end) of a run that end at that instant unless they are final by then: by their validity (error NULL), or because
-- their content cannot be had (error).
CREATE TABLE deadline (
  at INTEGER, first INTEGER, "end" INTEGER NOT NULL, run INTEGER NOT NULL, error INTEGER, words TEXT,
  PRIMARY KEY (at, first)) WITHOUT ROWID;

CREATE TABLE attempt (
  leader INTEGER, n INTEGER, generation INTEGER NOT NULL, lane INTEGER NOT NULL, at INTEGER NOT NULL, took INTEGER NOT NULL,
  outcome TEXT NOT NULL, error INTEGER NOT NULL, words TEXT NOT NULL, ref TEXT, PRIMARY KEY (leader, n)) WITHOUT ROWID;
CREATE TABLE carrier_ref (
  lane INTEGER, ref TEXT, leader INTEGER NOT NULL, members INTEGER NOT NULL, PRIMARY KEY (lane, ref)) WITHOUT ROWID;
CREATE INDEX carrier_ref_leader ON carrier_ref (leader);
CREATE TABLE parked (no INTEGER PRIMARY KEY, lane INTEGER NOT NULL, ref TEXT NOT NULL, at INTEGER NOT NULL, report TEXT NOT NULL);
CREATE INDEX parked_ref ON parked (lane, ref);
CREATE INDEX parked_at ON parked (at);

-- kind 0 = the status changed, 1 = a report noted that changed nothing (late, doubled).
CREATE TABLE event (
  no INTEGER PRIMARY KEY AUTOINCREMENT, message INTEGER NOT NULL, account INTEGER NOT NULL, at INTEGER NOT NULL,
  status INTEGER NOT NULL, error INTEGER NOT NULL, kind INTEGER NOT NULL, words TEXT NOT NULL, hook INTEGER);
CREATE INDEX event_message ON event (message);
-- Numbers start at 2, so that "after 1" means from the first and 0 can mean from now.
INSERT INTO sqlite_sequence (name, seq) VALUES ('event', 1);
-- open = POSTs in flight, fails = failed tries in a row, fresh = the last one formed was a fresh one.
CREATE TABLE endpoint (
  no INTEGER PRIMARY KEY, account INTEGER NOT NULL, url TEXT NOT NULL, content_type TEXT NOT NULL, secret TEXT,
  open INTEGER NOT NULL, fails INTEGER NOT NULL, fresh INTEGER NOT NULL, due_at INTEGER, seq INTEGER NOT NULL);
CREATE UNIQUE INDEX endpoint_url ON endpoint (account, url, content_type);
CREATE INDEX endpoint_due ON endpoint (due_at, seq) WHERE due_at IS NOT NULL;
CREATE TABLE outbox (endpoint INTEGER, event INTEGER, PRIMARY KEY (endpoint, event)) WITHOUT ROWID;
-- Only for messages with intermediate reports: their open events in order; the oldest alone is in outbox or a hook.
CREATE TABLE open_event (message INTEGER, event INTEGER, PRIMARY KEY (message, event)) WITHOUT ROWID;
-- state 0 = open (due_at: its next try, or the end of its lease), 1 = delivered, 2 = exhausted.
CREATE TABLE hook (
  no INTEGER PRIMARY KEY AUTOINCREMENT, endpoint INTEGER NOT NULL, account INTEGER NOT NULL, state INTEGER NOT NULL,
  retry INTEGER NOT NULL, token INTEGER NOT NULL, leased INTEGER NOT NULL, due_at INTEGER, at INTEGER NOT NULL,
  events TEXT NOT NULL, body TEXT);
CREATE INDEX hook_of ON hook (endpoint, state, leased, due_at);
CREATE INDEX hook_lease ON hook (due_at) WHERE leased = 1;
CREATE INDEX hook_exhausted ON hook (state) WHERE state = 2;
CREATE TABLE hook_try (
  hook INTEGER, retry INTEGER, at INTEGER NOT NULL, took INTEGER NOT NULL, status INTEGER NOT NULL, excerpt TEXT NOT NULL,
  PRIMARY KEY (hook, retry)) WITHOUT ROWID;
CREATE TABLE pull (
  account INTEGER, event INTEGER, message INTEGER NOT NULL, spec INTEGER NOT NULL, bulk INTEGER NOT NULL,
  until INTEGER NOT NULL, PRIMARY KEY (account, event)) WITHOUT ROWID;
CREATE INDEX pull_bulk ON pull (account, bulk, event);
CREATE INDEX pull_until ON pull (until);

CREATE TABLE upload (
  account INTEGER, id TEXT, name TEXT NOT NULL, hash TEXT NOT NULL, content_type TEXT NOT NULL, size INTEGER NOT NULL,
  expires_at INTEGER NOT NULL, PRIMARY KEY (account, id)) WITHOUT ROWID;
CREATE INDEX upload_expires ON upload (expires_at);
CREATE INDEX upload_hash ON upload (hash);
-- hash NULL = to be fetched; due_at = next try or end of lease.
CREATE TABLE media (
  spec INTEGER, segment INTEGER, url TEXT, content_type TEXT, name TEXT, hash TEXT, tries INTEGER NOT NULL, due_at INTEGER,
  PRIMARY KEY (spec, segment)) WITHOUT ROWID;
CREATE INDEX media_due ON media (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX media_hash ON media (hash) WHERE hash IS NOT NULL;
`,
  `
-- A carrier may have several lanes. The one of shard 0 is its home: carrier_ref and parked are kept under that one, because
-- message ids are the carrier's, whatever lane submitted.
CREATE TABLE lanes (
  no INTEGER PRIMARY KEY, carrier TEXT NOT NULL, shard INTEGER NOT NULL, on_unknown TEXT NOT NULL, reports INTEGER NOT NULL,
  UNIQUE (carrier, shard));
INSERT INTO lanes (no, carrier, shard, on_unknown, reports) SELECT no, carrier, 0, on_unknown, reports FROM lane;
DROP TABLE lane;
ALTER TABLE lanes RENAME TO lane;
`,
  `
-- speed = the limit as the customer wrote it, JSON. moves = how often send_at was moved (a run keeps how many of them it
-- knows). drain, drain_no = spec and number from which the sweep has still to bring a steering to the bulk's runs.
ALTER TABLE bulk ADD COLUMN speed TEXT;
ALTER TABLE bulk ADD COLUMN moves INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bulk ADD COLUMN drain INTEGER;
ALTER TABLE bulk ADD COLUMN drain_no INTEGER NOT NULL DEFAULT 0;
CREATE INDEX bulk_account ON bulk (account, no);
CREATE INDEX bulk_drain ON bulk (drain) WHERE drain IS NOT NULL;
CREATE INDEX bulk_paused ON bulk (paused_at) WHERE paused_at IS NOT NULL AND canceled_at IS NULL;
ALTER TABLE run ADD COLUMN moves INTEGER NOT NULL DEFAULT 0;
-- What it waited for before it waited for its bulk (a turn, a new sendAt); NULL = it does not.
ALTER TABLE retry ADD COLUMN free_at INTEGER;
-- counted = 1: its messages are in its bulk's tally. Others (a request without a bulk of its own) are counted when asked.
ALTER TABLE spec ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
CREATE TABLE tally (
  bulk INTEGER PRIMARY KEY, accepted INTEGER NOT NULL, waiting INTEGER NOT NULL, sent INTEGER NOT NULL,
  delivered INTEGER NOT NULL, failed INTEGER NOT NULL);
-- Messages in flight when their bulk was cancelled: looked at again at that instant.
CREATE TABLE recall (no INTEGER PRIMARY KEY, at INTEGER NOT NULL);
CREATE INDEX recall_at ON recall (at);
`,
  `
-- What content became under a profile (media/fit.ts). at = when it was last seen to be needed.
CREATE TABLE variant (
  source TEXT, profile TEXT, hash TEXT NOT NULL, content_type TEXT NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY (source, profile)) WITHOUT ROWID;
CREATE INDEX variant_hash ON variant (hash);
CREATE INDEX variant_at ON variant (at);
`,
  `
-- An endpoint takes one kind of event (store/hooks.ts). endpoint_setting = how an account's own URLs are spoken to; secrets and
-- headers are JSON; standard = takes what names no URL.
ALTER TABLE endpoint ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
DROP INDEX endpoint_url;
CREATE UNIQUE INDEX endpoint_url ON endpoint (account, url, content_type, kind);
CREATE TABLE endpoint_setting (
  account INTEGER, kind INTEGER, url TEXT, content_type TEXT NOT NULL, standard INTEGER NOT NULL, secrets TEXT NOT NULL,
  headers TEXT NOT NULL, PRIMARY KEY (account, kind, url)) WITHOUT ROWID;
CREATE UNIQUE INDEX endpoint_standard ON endpoint_setting (account, kind) WHERE standard = 1;
ALTER TABLE hook ADD COLUMN ended_at INTEGER;
CREATE INDEX hook_account ON hook (account, at);
-- What was pulled, until it could not be pulled any more: kind 0 = reports, 1 = inbox.
CREATE TABLE taken (
  account INTEGER, at INTEGER, event INTEGER, kind INTEGER NOT NULL, message INTEGER NOT NULL, spec INTEGER NOT NULL,
  bulk INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (account, at, event)) WITHOUT ROWID;
CREATE INDEX taken_until ON taken (until);
CREATE INDEX taken_message ON taken (message);

-- Messages from handsets; numbers are of the same kind as messages' own. body = what the account sees, JSON.
CREATE TABLE own_number (
  number TEXT PRIMARY KEY, account INTEGER NOT NULL, url TEXT, entity TEXT, application TEXT, callback TEXT) WITHOUT ROWID;
CREATE TABLE inbound (
  no INTEGER PRIMARY KEY, account INTEGER NOT NULL, carrier TEXT NOT NULL, ref TEXT NOT NULL, at INTEGER NOT NULL,
  entity TEXT, application TEXT, body TEXT NOT NULL);
CREATE UNIQUE INDEX inbound_ref ON inbound (carrier, ref);
CREATE INDEX inbound_at ON inbound (at);
CREATE TABLE inbound_part (
  inbound INTEGER, part INTEGER, hash TEXT NOT NULL, content_type TEXT NOT NULL, PRIMARY KEY (inbound, part)) WITHOUT ROWID;
CREATE INDEX inbound_part_hash ON inbound_part (hash);
CREATE TABLE inbox (
  account INTEGER, event INTEGER, inbound INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (account, event)) WITHOUT ROWID;
CREATE INDEX inbox_until ON inbox (until);
-- The last message that a handset got from a number of ours.
CREATE TABLE conversation (
  account INTEGER, sender TEXT, destination TEXT, no INTEGER NOT NULL, PRIMARY KEY (account, sender, destination)) WITHOUT ROWID;
CREATE INDEX conversation_no ON conversation (no);
-- sender '' = any of the account's.
CREATE TABLE optout (
  account INTEGER, destination TEXT, sender TEXT, at INTEGER NOT NULL, source TEXT NOT NULL,
  PRIMARY KEY (account, destination, sender)) WITHOUT ROWID;
`,
  `
-- turn_from, turn_end = next_us of its bulk before and after the claim of a submission under a limit: what does not leave gives
-- its turns back.
ALTER TABLE flight ADD COLUMN turn_from REAL;
ALTER TABLE flight ADD COLUMN turn_end REAL;
-- valid_until 0 = put back before anything of it left: its clock is that of what its run has not handed out yet.
CREATE INDEX retry_untried ON retry (run, leader) WHERE valid_until = 0;
`,
  `
-- ways = second choices and the SMS failover, JSON (domain/failover.ts). leg 0 = MMS, 1 = SMS; what belongs to the SMS leg of message
-- no stands under -no in run, retry, flight, deadline, attempt and carrier_ref. Of an event, 2 = the end of an MMS leg that an
-- SMS followed: not final.
ALTER TABLE run ADD COLUMN ways TEXT;
ALTER TABLE message ADD COLUMN leg INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN leg INTEGER NOT NULL DEFAULT 0;
`,
  `
-- body = what the operator decided, JSON (domain/accounts.ts); NULL = nothing. held = logins, senders, domains, price lists, blocks
-- by their name. quota = counters of limits by the bucket of time. audit = what the operator did.
ALTER TABLE account ADD COLUMN body TEXT;
ALTER TABLE key ADD COLUMN body TEXT;
CREATE TABLE held (
  what TEXT, name TEXT, account INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (what, name)) WITHOUT ROWID;
CREATE TABLE session (
  hash TEXT PRIMARY KEY, user TEXT NOT NULL, kind TEXT NOT NULL, until INTEGER NOT NULL, idle INTEGER) WITHOUT ROWID;
CREATE INDEX session_until ON session (until);
CREATE TABLE quota (
  account INTEGER, scope TEXT, bucket INTEGER, used INTEGER NOT NULL, until INTEGER NOT NULL,
  PRIMARY KEY (account, scope, bucket)) WITHOUT ROWID;
CREATE INDEX quota_until ON quota (until);
CREATE TABLE audit (
  no INTEGER PRIMARY KEY, at INTEGER NOT NULL, by TEXT NOT NULL, action TEXT NOT NULL, account INTEGER, detail TEXT NOT NULL);
`,
  `
-- Short links: a row per spec that has some; it outlives the spec. urls = JSON, by their place in tokens; url = where clicks are reported;
-- gone 1 = its spec has left, 2 = so has what belongs to it, up to purged. link_message = whom a click is about, once the message
-- has left. clicked, click_sum = counts by message and by spec; link -1 = all of them (store/links.ts); once = messages.
CREATE TABLE link (
  first INTEGER PRIMARY KEY, "end" INTEGER NOT NULL, spec INTEGER NOT NULL, account INTEGER NOT NULL, bulk INTEGER NOT NULL, bulk_id TEXT,
  campaign TEXT, entity TEXT, application TEXT, callback TEXT, urls TEXT NOT NULL, clicks INTEGER NOT NULL, url TEXT, keep INTEGER NOT NULL,
  expires_at INTEGER NOT NULL, purged INTEGER NOT NULL, gone INTEGER NOT NULL);
CREATE INDEX link_bulk ON link (account, bulk);
CREATE INDEX link_bulk_id ON link (account, bulk_id) WHERE bulk_id IS NOT NULL;
CREATE INDEX link_campaign ON link (account, campaign) WHERE campaign IS NOT NULL;
CREATE INDEX link_expires ON link (gone, expires_at) WHERE gone > 0;
CREATE TABLE link_message (no INTEGER PRIMARY KEY, account INTEGER NOT NULL, "to" TEXT NOT NULL, key TEXT, done_at INTEGER);
CREATE INDEX link_message_key ON link_message (account, key) WHERE key IS NOT NULL;
CREATE TABLE click (
  no INTEGER PRIMARY KEY, message INTEGER NOT NULL, link INTEGER NOT NULL, at INTEGER NOT NULL, flag TEXT, device TEXT NOT NULL);
CREATE INDEX click_message ON click (message);
CREATE TABLE clicked (
  message INTEGER, link INTEGER, total INTEGER NOT NULL, flagged INTEGER NOT NULL, PRIMARY KEY (message, link)) WITHOUT ROWID;
CREATE TABLE click_sum (
  first INTEGER, link INTEGER, total INTEGER NOT NULL, once INTEGER NOT NULL, flagged INTEGER NOT NULL, PRIMARY KEY (first, link)) WITHOUT ROWID;
`,
  `
-- What carriers have of cancelled bulks, until they were asked to call it back.
CREATE TABLE callback (
  leader INTEGER PRIMARY KEY, lane INTEGER NOT NULL, at INTEGER NOT NULL, generation INTEGER NOT NULL, ref TEXT NOT NULL);
CREATE INDEX callback_lane ON callback (lane, leader);
CREATE INDEX callback_at ON callback (at);
`,
  `
-- The message that it answers, for that one's story.
ALTER TABLE inbound ADD COLUMN paired INTEGER;
CREATE INDEX inbound_paired ON inbound (paired) WHERE paired IS NOT NULL;
`,
  `
-- The sessions of a login, which end with a changed password.
CREATE INDEX session_login ON session (user);
`,
  `
-- Why the last fetch failed, while it is still tried.
ALTER TABLE media ADD COLUMN words TEXT;
`,
  `
-- How logs find destinations (store/sought.ts). unsought = specs whose messages from first on have no marks yet; sought = the marks of
-- a block by bucket; sought_block = its first and last number of a message.
CREATE TABLE unsought (
  account INTEGER, spec INTEGER, first INTEGER NOT NULL, "end" INTEGER NOT NULL, PRIMARY KEY (account, spec)) WITHOUT ROWID;
CREATE TRIGGER spec_unsought AFTER INSERT ON spec BEGIN
  INSERT INTO unsought (account, spec, first, "end") VALUES (new.account, new.no, new.first, new."end");
END;
INSERT INTO unsought (account, spec, first, "end") SELECT account, no, first, "end" FROM spec;
CREATE TABLE sought_block (no INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE sought (bucket INTEGER, block INTEGER, body BLOB NOT NULL, PRIMARY KEY (bucket, block)) WITHOUT ROWID;
`,
  `
-- early_ms: so long before its start its carrier may have it, which keeps the time. A callback with earliest_at asks to keep it longer;
-- ref '' = it was in flight, and its attempt tells.
ALTER TABLE run ADD COLUMN early_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE callback ADD COLUMN earliest_at INTEGER;
`,
  `
-- Its spec asks for intermediate reports, so claims of it are told; NULL = of an older version, its spec says.
ALTER TABLE run ADD COLUMN intermediate INTEGER;
`,
];

/** The last step this code knows. */
export const SCHEMA_VERSION = STEPS.length;

/** Thrown at open for a file this code must not touch. */
export class SchemaTooNew extends Error {
  override readonly name = 'SchemaTooNew';
}

/** Bring a file up to date. Throws SchemaTooNew for a file written by a newer Postcard. */
export function migrate(db: DatabaseSync): void {
  const version = Number((db.prepare('PRAGMA user_version').get() as { user_version: number }).user_version);
  if (version > STEPS.length) {
    throw new SchemaTooNew(
      `the data was written by a newer Postcard (schema ${version}, this one knows ${STEPS.length})`,
    );
  }
  for (let step = version; step < STEPS.length; step++) {
    db.exec('BEGIN IMMEDIATE');
    try {
      db.exec(STEPS[step] as string);
      db.exec(`PRAGMA user_version = ${step + 1}`);
      db.exec('COMMIT');
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK');
      throw error;
    }
  }
}
