/**
 * The test of the tests: defects planted at the seams, most of them known from other queues. Each must be found within 200
 * seeds by an oracle. A new oracle or fault comes with the bug that it is meant to find.
 *
 * They live here and not as flags in the product: what a process gets as its store or carrier is wrapped, or an op and the
 * rows beside it are changed on the way to the engine. `seed` is where it was found last; the search begins there.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { Accepted, BulkChange, Claims, Steered, Store } from '../../src/store/contract.ts';
import type { Op } from '../../src/store/sqlite/engine.ts';
import type { Bug } from './sim.ts';

/** A planted bug, which promises it breaks, and a seed that shows it. */
export interface Planted extends Bug {
  what: string;
  seed: number;
}

function number(db: DatabaseSync, sql: string, ...values: (number | string)[]): number | null {
  const row = db.prepare(sql).get(...values) as { n: number | null } | undefined;
  return row?.n ?? null;
}

/** The op as it is, after something was done to the rows. */
function rows(kind: Op[0], how: (db: DatabaseSync) => void): NonNullable<Bug['op']> {
  return (op, db) => {
    if (op[0] === kind) how(db);
    return op;
  };
}

/** A change inside the engine's own transactions: a trigger, made once in the database file. */
function trigger(sql: string): NonNullable<Bug['op']> {
  const made = new WeakSet<DatabaseSync>();
  return (op, db) => {
    if (!made.has(db)) db.exec(`CREATE TRIGGER IF NOT EXISTS ${sql}`);
    made.add(db);
    return op;
  };
}

/** The op as it is, and something done to the rows of a bulk that was steered so. */
function afterSteering(
  kind: BulkChange['kind'],
  how: (db: DatabaseSync, bulk: number) => void,
): NonNullable<Bug['done']> {
  return (op, result, db) => {
    if (op[0] !== 'bulkSteer' || !('ok' in result)) return result;
    const steered = result.ok as Steered;
    if (steered.kind === 'done' && op[1].changes.some((change) => change.kind === kind)) how(db, steered.bulk.no);
    return result;
  };
}

export const BUGS: readonly Planted[] = [
  {
    name: 'ack-before-commit',
    what: 'the request is answered when it has been sent to the store, not when it is there',
    seed: 2,
    store: (store) => ({
      ...store,
      accept: (request) => {
        store.accept(request).catch(() => undefined);
        const answer: Accepted = {
          kind: 'accepted',
          first: request.first,
          bulkId: request.bulkId,
          bulk: request.first,
          duplicates: [],
        };
        return Promise.resolve(answer);
      },
    }),
  },
  {
    name: 'half-a-request',
    what: 'the last run of a request is not written',
    seed: 3,
    op: (op) =>
      op[0] === 'accept' && op[1].runs.length > 1 ? ['accept', { ...op[1], runs: op[1].runs.slice(0, -1) }] : op,
  },
  {
    name: 'early-report-dropped',
    what: 'a report that overtakes the answer to its submission is dropped instead of parked',
    seed: 4,
    op: (op, db) => {
      if (op[0] !== 'report') return op;
      const ref = op[1].carrierMessageId.trim().replace(/^<|>$/g, '').replace(/@.*$/, '').toLowerCase();
      return number(db, 'SELECT leader AS n FROM carrier_ref WHERE ref = ?', ref) === null ? { answer: false } : op;
    },
  },
  {
    name: 'report-id-exact',
    what: 'ids of reports are compared byte by byte, as peers do not write them',
    seed: 1,
    op: (op, db) => {
      if (op[0] !== 'report') return op;
      const known = number(db, 'SELECT leader AS n FROM carrier_ref WHERE ref = ?', op[1].carrierMessageId) !== null;
      return known || /^mmsc\d-\d+$/.test(op[1].carrierMessageId) ? op : { answer: false };
    },
  },
  {
    name: 'final-overwritten',
    what: 'a later report changes a final status',
    seed: 5,
    done: (op, result, db) => {
      if (op[0] !== 'report' || op[1].kind !== 'rejected') return result;
      const ref = op[1].carrierMessageId.trim().replace(/^<|>$/g, '').replace(/@.*$/, '').toLowerCase();
      const no = number(db, 'SELECT leader AS n FROM carrier_ref WHERE ref = ? AND members = 1', ref);
      if (no !== null) db.prepare('UPDATE message SET state = 4, status = 9, error = 15011 WHERE no = ?').run(no);
      return result;
    },
  },
  {
    name: 'webhook-abandoned',
    what: 'a webhook that failed twice is given up',
    seed: 9,
    store: (store) => {
      const failures = new Map<number, number>();
      return {
        ...store,
        webhookSettle: (settle) => {
          const count = settle.ok ? 0 : (failures.get(settle.no) ?? 0) + 1;
          failures.set(settle.no, count);
          return store.webhookSettle(count >= 2 ? { ...settle, ok: true } : settle);
        },
      };
    },
  },
  {
    name: 'webhooks-out-of-order',
    what: 'the later events of a message are posted although the earlier one is not taken',
    seed: 10,
    op: rows('webhookNext', (db) => {
      db.exec(`CREATE TEMP TABLE IF NOT EXISTS ahead (endpoint, event); DELETE FROM ahead;
        INSERT INTO ahead SELECT s.endpoint, o.event FROM open_event o JOIN message m ON m.no = o.message
          JOIN spec s ON s.no = m.spec JOIN event e ON e.no = o.event WHERE e.hook IS NULL;
        INSERT OR IGNORE INTO outbox SELECT * FROM ahead; DELETE FROM open_event WHERE event IN (SELECT event FROM ahead);
        UPDATE endpoint SET due_at = 0 WHERE open = 0 AND no IN (SELECT endpoint FROM ahead)`);
    }),
  },
  {
    name: 'webhook-lost-with-process',
    what: 'what a process had leased to post when it died never comes back',
    seed: 6,
    died: (db) => void db.exec('UPDATE hook SET leased = 2 WHERE leased = 1'),
  },
  {
    name: 'new-transaction-id',
    what: 'each attempt has a transaction id of its own',
    seed: 18,
    carrier: (carrier) => {
      let attempts = 0;
      return {
        ...carrier,
        submit: (submission, signal) =>
          carrier.submit({ ...submission, transactionId: `${submission.transactionId}~${++attempts}` }, signal),
      };
    },
  },
  {
    name: 'window-ignored-on-retry',
    what: 'a retry does not look at the delivery window',
    seed: 4,
    op: rows('claim', (db) => {
      db.exec('UPDATE run SET days = NULL WHERE next >= "end" AND no IN (SELECT run FROM retry)');
    }),
  },
  {
    name: 'validity-doubled',
    what: 'the validity is counted twice as long as asked for',
    seed: 2,
    op: (op) => {
      if (op[0] !== 'accept') return op;
      return ['accept', { ...op[1], runs: op[1].runs.map((run) => ({ ...run, validityMs: 2 * run.validityMs })) }];
    },
  },
  {
    name: 'send-at-forgotten',
    what: 'sendAt is lost on the way to the store',
    seed: 4,
    op: (op) => (op[0] === 'accept' ? ['accept', { ...op[1], sendAt: null }] : op),
  },
  {
    name: 'short-lease',
    what: 'the lease is shorter than the time-out of the carrier',
    seed: 3,
    store: (store) => ({ ...store, claim: (lane, limit, leaseMs) => store.claim(lane, limit, (leaseMs - 15_000) / 2) }),
  },
  {
    name: 'burst',
    what: 'an idle speed limit saves up turns',
    seed: 1,
    op: rows('claim', (db) => {
      db.exec('UPDATE bulk SET next_us = max(1, next_us - 2 * interval_us) WHERE interval_us > 0 AND next_us > 0');
    }),
  },
  {
    name: 'lease-by-other-clock',
    what: 'leases are judged by a clock that is a minute ahead',
    seed: 3,
    op: rows('sweep', (db) => void db.exec('UPDATE flight SET lease_until = lease_until - 20000')),
  },
  {
    name: 'cursor-moved-at-read',
    what: 'what a dead process had claimed is forgotten: the cursor has passed it',
    seed: 11,
    died: (db) => void db.exec('DELETE FROM flight'),
  },
  {
    name: 'settle-without-token',
    what: 'any settle of a message concludes its present claim',
    seed: 69,
    op: (op, db) => {
      if (op[0] !== 'settle') return op;
      const token = number(db, 'SELECT token AS n FROM flight WHERE leader = ?', op[1].leader);
      return token === null ? op : ['settle', { ...op[1], token }];
    },
  },
  {
    name: 'claim-used-after-pause',
    what: 'the clock that ages claims stands still while the process does',
    seed: 2,
    sleepyClock: true,
  },
  {
    name: 'unknown-is-failed',
    what: 'an attempt without an answer is booked as not taken',
    seed: 11,
    op: (op) =>
      op[0] === 'settle' && op[1].outcome.kind === 'unknown'
        ? ['settle', { ...op[1], outcome: { kind: 'deferred', error: op[1].outcome.error } }]
        : op,
  },
  {
    name: 'fail-is-retried',
    what: 'the policy "fail" for unknown outcomes is taken for "retry"',
    seed: 10,
    op: (op) => (op[0] === 'lane' && op[1].onUnknown === 'fail' ? ['lane', { ...op[1], onUnknown: 'retry' }] : op),
  },
  {
    name: 'hold-without-end',
    what: 'a held message is repeated as often as it is unknown',
    seed: 20,
    op: rows('settle', (db) => void db.exec('UPDATE flight SET held = 0')),
  },
  {
    name: 'hold-not-waited',
    what: 'a held message is repeated at once',
    seed: 2,
    op: rows('claim', (db) => {
      db.exec(`UPDATE retry SET due_at = 0 WHERE held = 1;
        UPDATE line SET due_at = 0 WHERE paused = 0 AND no IN (SELECT line FROM retry WHERE held = 1);
        UPDATE turn SET due_at = 0 WHERE (lane, account) IN (SELECT lane, account FROM line WHERE due_at = 0)`);
    }),
  },
  {
    name: 'carrier-rate-ignored',
    what: 'the rate of a carrier is not kept',
    seed: 1,
    lane: (lane) => ({ ...lane, ratePerSecond: 0 }),
  },
  {
    name: 'idempotency-forgotten',
    what: 'Idempotency-Keys are kept in the memory of the process',
    seed: 2,
    died: (db) => void db.exec('DELETE FROM idem'),
  },
  {
    name: 'idempotency-after-write',
    what: 'the key is written in a transaction of its own, after the answer',
    seed: 3,
    op: (op) => (op[0] === 'accept' && op[1].idem ? ['accept', { ...op[1], idem: null }] : op),
  },
  {
    name: 'duplicate-id-taken',
    what: 'a repeated message id is a new message',
    seed: 1,
    op: (op, db) => {
      if (op[0] === 'accept') {
        const drop = db.prepare('DELETE FROM message_key WHERE account = ? AND key = ?');
        for (const [, key] of op[1].keys) drop.run(op[1].account, key);
      }
      return op;
    },
  },
  {
    name: 'pause-ignored',
    what: 'a paused bulk goes on',
    seed: 4,
    done: afterSteering('pause', (db) => {
      db.exec('UPDATE line SET paused = 0, due_at = 0; UPDATE turn SET due_at = 0; UPDATE bulk SET paused_at = NULL');
    }),
  },
  {
    name: 'pause-ignored-by-retries',
    what: 'what comes back to be tried again wakes its line, paused or not',
    seed: 8,
    op: trigger(`retry_wakes AFTER INSERT ON retry BEGIN
      UPDATE line SET due_at = new.due_at WHERE no = new.line AND paused = 1;
      UPDATE turn SET due_at = min(ifnull(due_at, new.due_at), new.due_at)
      WHERE (lane, account) IN (SELECT lane, account FROM line WHERE no = new.line AND paused = 1); END`),
  },
  {
    name: 'cancel-leaves-lines',
    what: 'a cancel ends what waits, and its lines go on until that is done',
    seed: 66,
    done: afterSteering('cancel', (db, bulk) => {
      db.prepare('UPDATE line SET paused = 0, due_at = 0 WHERE bulk = ?').run(bulk);
      db.exec('UPDATE turn SET due_at = 0 WHERE (lane, account) IN (SELECT lane, account FROM line WHERE due_at = 0)');
    }),
  },
  {
    name: 'cancel-not-brought-home',
    what: 'what waits in a cancelled bulk is forgotten',
    seed: 2,
    done: afterSteering('cancel', (db, bulk) => {
      db.prepare('UPDATE bulk SET drain = NULL WHERE no = ?').run(bulk);
    }),
  },
  {
    name: 'drain-stops-at-first-page',
    what: 'a steering is brought to the first request of its bulk only',
    seed: 9,
    // The other requests are hidden while the sweep walks.
    op: rows('sweep', (db) => {
      db.exec(`UPDATE spec SET bulk = -bulk WHERE bulk IN (SELECT no FROM bulk WHERE drain IS NOT NULL)
        AND bulk > 0 AND accepted_at > (SELECT min(o.accepted_at) FROM spec o WHERE o.bulk = spec.bulk)`);
    }),
    done: (op, result, db) => {
      if (op[0] === 'sweep') db.exec('UPDATE spec SET bulk = -bulk WHERE bulk < 0');
      return result;
    },
  },
  {
    name: 'adopt-without-deadline',
    what: 'a move takes the end of their validity from those that have left',
    seed: 9,
    op: trigger(`no_deadline BEFORE INSERT ON deadline WHEN new.error IS NULL AND EXISTS (SELECT 1 FROM run r JOIN line l ON
      l.no = r.line JOIN bulk b ON b.no = l.bulk WHERE r.no = new.run AND new.first = r.no AND r.moves < b.moves)
      BEGIN SELECT raise(IGNORE); END`),
  },
  {
    name: 'move-ignored-by-retries',
    what: 'what is to be tried again does not wait for the moved sendAt',
    seed: 2,
    op: rows('claim', (db) => {
      db.exec(`UPDATE run SET opens_at = 0, moves = 1000000 WHERE next >= "end" AND no IN (SELECT run FROM retry);
        UPDATE line SET due_at = 0 WHERE paused = 0 AND bulk IS NOT NULL AND no IN (SELECT line FROM retry);
        UPDATE turn SET due_at = 0 WHERE (lane, account) IN (SELECT lane, account FROM line WHERE due_at = 0)`);
    }),
  },
  {
    name: 'move-unheard',
    what: 'a bulk that is moved to an earlier instant is looked at when it was due before',
    seed: 7,
    done: afterSteering('reschedule', (db, bulk) => {
      db.prepare('UPDATE bulk SET drain = NULL WHERE no = ?').run(bulk);
    }),
  },
  {
    name: 'move-given-to-join',
    what: 'a request that joins a moved bulk takes the sendAt of the bulk for its own',
    seed: 1,
    op: trigger('join_moved AFTER INSERT ON run BEGIN UPDATE run SET moves = 0 WHERE no = new.no; END'),
  },
  {
    name: 'no-recall',
    what: 'what was in flight when its bulk was cancelled is not looked at again',
    seed: 123,
    op: trigger('no_recall BEFORE INSERT ON recall BEGIN SELECT raise(IGNORE); END'),
  },
  {
    name: 'move-keeps-old-validity',
    what: 'a move to later leaves the end of validity where it was',
    seed: 9,
    op: trigger(`old_validity AFTER UPDATE OF moves ON run WHEN new.moves > old.moves AND new.opens_at > old.opens_at BEGIN
      UPDATE run SET validity = max(1000, validity - (new.opens_at - old.opens_at)) WHERE no = new.no; END`),
  },
  {
    name: 'move-not-given-to-retries',
    what: 'a bulk that is moved to an earlier instant leaves its retries where they were',
    seed: 84,
    op: trigger(`late_retry AFTER UPDATE OF free_at ON retry WHEN new.free_at IS NULL AND old.free_at IS NOT NULL BEGIN
      UPDATE retry SET due_at = old.due_at, free_at = old.free_at WHERE leader = new.leader; END`),
  },
  {
    name: 'turn-lost',
    what: 'a turn that was claimed and not used is lost',
    seed: 8,
    op: trigger(`turn_lost BEFORE UPDATE OF next_us ON bulk WHEN new.next_us < old.next_us AND new.interval_us = old.interval_us
      BEGIN SELECT raise(IGNORE); END`),
  },
  {
    name: 'turn-clock-ignored',
    what: 'the validity of what waits for its turn begins when its request does',
    seed: 18,
    op: trigger('one_clock AFTER INSERT ON run BEGIN UPDATE run SET limited = 0 WHERE no = new.no; END'),
  },
  {
    name: 'turn-clock-restarts',
    what: 'under a limit each attempt begins the validity anew',
    seed: 5,
    op: trigger(`clock_restarts AFTER INSERT ON flight WHEN new.turn_end IS NOT NULL BEGIN
      UPDATE flight SET valid_until = valid_until + 3600000 WHERE leader = new.leader;
      UPDATE deadline SET at = at + 3600000 WHERE first <= new.leader AND "end" > new.leader; END`),
  },
  {
    name: 'clock-goes-back',
    what: 'the store follows its machine’s clock back after a crash',
    seed: 50,
    died: (db) => void db.exec(`UPDATE meta SET v = 0 WHERE k = 'clock'`),
  },
  {
    name: 'bucket-reset',
    what: 'a new limit forgets the last turn',
    seed: 9,
    done: afterSteering('limit', (db, bulk) => void db.prepare('UPDATE bulk SET next_us = 0 WHERE no = ?').run(bulk)),
  },
  {
    name: 'limit-unheard',
    what: 'a faster limit is not told to what waits for its turn',
    seed: 85,
    done: afterSteering('limit', (db, bulk) => {
      db.prepare('UPDATE bulk SET drain = NULL WHERE no = ?').run(bulk);
    }),
  },
  {
    name: 'tally-not-decremented',
    what: 'what a carrier takes goes on being counted as waiting',
    seed: 1,
    op: trigger(`tally_leaks AFTER UPDATE OF waiting ON tally WHEN new.waiting < old.waiting AND new.sent > old.sent BEGIN
      UPDATE tally SET waiting = old.waiting WHERE bulk = new.bulk; END`),
  },
  {
    name: 'tally-written-twice',
    what: 'a group of ops that joins a bulk counts its messages twice',
    seed: 1,
    op: trigger(`tally_twice AFTER UPDATE OF accepted ON tally WHEN new.accepted > old.accepted AND old.accepted > 0 BEGIN
      UPDATE tally SET accepted = 2 * new.accepted - old.accepted, waiting = 2 * new.waiting - old.waiting
      WHERE bulk = new.bulk; END`),
  },
  {
    name: 'finished-too-early',
    what: 'a bulk is shown as finished when nothing of it waits',
    seed: 1,
    store: (store) => ({
      ...store,
      bulkGet: async (account, name) => {
        const bulk = await store.bulkGet(account, name);
        const done = bulk?.status === 'PROCESSING' && bulk.progress.waiting === 0;
        return bulk && done ? { ...bulk, status: 'FINISHED' } : bulk;
      },
    }),
  },
  {
    name: 'no-failover',
    what: 'the SMS that a request asks for is forgotten',
    seed: 1,
    op: (op) => {
      if (op[0] !== 'accept') return op;
      return ['accept', { ...op[1], runs: op[1].runs.map(({ ways: _, ...run }) => run) }];
    },
  },
  {
    name: 'outcome-told-as-final',
    what: 'the outcome of the MMS that an SMS follows is told as final',
    seed: 1,
    op: trigger(`told AFTER INSERT ON event WHEN new.leg = 2 BEGIN
      INSERT INTO pull (account, event, message, spec, bulk, until) SELECT new.account, new.no, m.no, m.spec, 0, 9e15
        FROM message m WHERE m.no = new.message; END`),
  },
  {
    name: 'sms-report-lost',
    what: 'what the SMSC reports is taken for a report of the MMS',
    seed: 1,
    op: trigger(`mixed AFTER INSERT ON carrier_ref WHEN new.leader < 0 BEGIN
      UPDATE carrier_ref SET leader = -leader WHERE lane = new.lane AND ref = new.ref; END`),
  },
  {
    name: 'click-told-once',
    what: 'of two clicks on a link in one batch only the first is told',
    seed: 1,
    op: (op) => {
      if (op[0] !== 'click') return op;
      const seen = new Set<number>();
      const clicks = op[1].map((click) => {
        const again = click.body !== null && seen.has(click.no);
        if (click.body !== null) seen.add(click.no);
        return again ? { ...click, body: null } : click;
      });
      return ['click', clicks];
    },
  },
  {
    name: 'click-lost-with-process',
    what: 'the webhook of a click that was in flight is forgotten when its process dies',
    seed: 6,
    died: (db) =>
      void db.exec('DELETE FROM hook WHERE leased = 1 AND endpoint IN (SELECT no FROM endpoint WHERE kind = 2)'),
  },
  {
    name: 'click-lost-with-store',
    what: 'clicks that the store did not take at once are given up',
    seed: 1,
    store: (store) => ({
      ...store,
      clicked: (nos) => store.clicked(nos).catch(() => []),
      click: (clicks) => store.click(clicks).catch(() => undefined),
    }),
  },
  {
    name: 'preview-counted',
    what: "a messaging app's preview is counted as a click",
    seed: 1,
    op: (op) => (op[0] === 'click' ? ['click', op[1].map((click) => ({ ...click, flag: null }))] : op),
  },
  {
    name: 'link-of-neighbour',
    what: 'the links of a message are remembered as those of the next ones, too',
    seed: 2,
    store: (store) => ({
      ...store,
      link: async (no) => {
        const row = await store.link(no);
        return row && { ...row, end: row.end + 4 };
      },
    }),
  },
  {
    name: 'pulled-twice',
    what: 'pulled reports are handed out again when the process dies before its next checkpoint',
    seed: 2,
    op: (op, db) => {
      if (op[0] === 'takeReports')
        db.exec(
          'CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM pull; DELETE FROM kept; INSERT INTO kept SELECT * FROM pull',
        );
      return op;
    },
    died: (db) => {
      const has = number(db, `SELECT count(*) AS n FROM sqlite_master WHERE name = 'kept'`);
      if (has) db.exec('INSERT OR IGNORE INTO pull SELECT * FROM kept');
    },
  },
  {
    name: 'other-accounts-reports',
    what: 'reports are pulled without regard to the account',
    seed: 1,
    op: (op, db) => {
      if (op[0] !== 'takeReports') return op;
      const account = number(db, 'SELECT account AS n FROM pull ORDER BY event DESC LIMIT 1');
      return account === null ? op : ['takeReports', { ...op[1], account }];
    },
  },
  {
    name: 'validity-never-ends',
    what: 'nothing looks for the end of validities',
    seed: 2,
    op: rows('sweep', (db) => void db.exec('UPDATE run SET look_at = NULL; DELETE FROM deadline')),
  },
  {
    name: 'retry-swallowed',
    what: 'a message that was deferred is put back only if nothing else is due',
    seed: 2,
    done: (op, result, db) => {
      const more = number(db, 'SELECT count(*) AS n FROM run WHERE due_at IS NOT NULL') ?? 0;
      if (op[0] === 'settle' && op[1].outcome.kind === 'deferred' && more > 0) {
        db.prepare('DELETE FROM retry WHERE leader = ?').run(op[1].leader);
      }
      return result;
    },
  },
  {
    name: 'second-claim',
    what: 'two processes that ask at the same moment are given the same messages',
    seed: 3,
    store: (store) => ({
      ...store,
      claim: async (lane, limit, leaseMs): Promise<Claims> => {
        const claims = await store.claim(lane, limit, leaseMs);
        const [first] = claims.claims;
        return first ? { ...claims, claims: [...claims.claims, first] } : claims;
      },
    }),
  },
  {
    name: 'claim-untold',
    what: 'who asks for every change is not told that a message is on its way',
    seed: 1,
    op: trigger(`claim_untold AFTER INSERT ON event WHEN new.status = 7 BEGIN
      UPDATE event SET status = 26 WHERE no = new.no;
    END`),
  },
  {
    name: 'claim-told-again',
    what: 'a claim that was put back untried is told again',
    seed: 8,
    op: trigger(`claim_told_again AFTER INSERT ON retry WHEN new.valid_until = 0 BEGIN
      UPDATE event SET status = 26 WHERE message = new.leader AND status = 7;
    END`),
  },
  {
    name: 'poll-only-when-told',
    what: 'a lost hint is never made up for: the lane believes that nothing is due',
    seed: 3,
    store: (store: Store): Store => {
      let hinted = true;
      store.onHint((hint) => {
        if (hint.kind === 'lane') hinted = true;
      });
      return {
        ...store,
        claim: async (lane, limit, leaseMs): Promise<Claims> => {
          if (!hinted) return { now: 0, claims: [], specs: [], nextDue: null };
          const claims = await store.claim(lane, limit, leaseMs);
          hinted = claims.claims.length > 0;
          return claims;
        },
      };
    },
  },
];
