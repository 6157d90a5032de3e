/**
 * retain: what is finished and old enough leaves, oldest spec first, in steps small enough to stand between two accepts.
 * A spec whose messages are not all final, or whose webhooks are still open, stays.
 */
import { STATE } from '../../domain/status.ts';
import { IDEM_MS } from './accept.ts';
import { prepare, type Tx } from './tx.ts';

/** Messages removed in one step. */
const STEP = 500;

export function createRetain(tx: Tx, retentionMs: number) {
  const db = tx.db;
  const q = {
    oldest: prepare<{ no: number; first: number; end: number; accepted_at: number; account: number; bulk: number }>(
      db,
      'SELECT no, first, "end" AS "end", accepted_at, account, bulk FROM spec WHERE no > ? ORDER BY no LIMIT 1',
    ),
    open: prepare<{ one: number }>(
      db,
      `SELECT 1 AS one FROM message m WHERE m.no >= ? AND m.no < ? AND (m.state < ${STATE.delivered}
         OR EXISTS (SELECT 1 FROM event e JOIN hook h ON h.no = e.hook WHERE e.message = m.no AND h.state = 0)) LIMIT 1`,
    ),
    messages: prepare<{ no: number; key: string | null }>(
      db,
      `SELECT no, key FROM message WHERE no >= ? AND no < ? ORDER BY no LIMIT ${STEP}`,
    ),
    refs: prepare<{ lane: number; ref: string }>(
      db,
      'SELECT lane, ref FROM attempt WHERE leader = ? AND ref IS NOT NULL',
    ),
    keyDelete: prepare(db, 'DELETE FROM message_key WHERE account = ? AND key = ?'),
    messageDelete: prepare(db, 'DELETE FROM message WHERE no = ?'),
    attempts: prepare(db, 'DELETE FROM attempt WHERE leader = ?'),
    carrierRef: prepare(db, 'DELETE FROM carrier_ref WHERE leader = ? AND lane = ? AND ref = ?'),
    pull: prepare(db, 'DELETE FROM pull WHERE account = ? AND event IN (SELECT no FROM event WHERE message = ?)'),
    events: prepare(db, 'DELETE FROM event WHERE message = ?'),
    runs: prepare(db, 'DELETE FROM run WHERE no >= ? AND no < ?'),
    media: prepare(db, 'DELETE FROM media WHERE spec = ?'),
    spec: prepare(db, 'DELETE FROM spec WHERE no = ?'),
    bulkUsed: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM spec WHERE bulk = ? LIMIT 1'),
    lines: prepare(db, 'DELETE FROM line WHERE bulk = ?'),
    bulk: prepare(db, 'DELETE FROM bulk WHERE no = ?'),
    hooks: prepare<{ no: number }>(db, 'SELECT no FROM hook WHERE state > 0 AND at <= ? ORDER BY no LIMIT 100'),
    hookDelete: prepare(db, 'DELETE FROM hook WHERE no = ?'),
    tries: prepare(db, 'DELETE FROM hook_try WHERE hook = ?'),
    idem: prepare(db, 'DELETE FROM idem WHERE at <= ?'),
    uploads: prepare(db, 'DELETE FROM upload WHERE expires_at <= ?'),
  };
  // The walk starts over when it has reached what is too young; a spec that must stay is passed, not waited for.
  let place = 0;
  let pauseUntil = 0;

  return function retain(refOf: (id: string) => string): boolean {
    if (tx.now < pauseUntil) return false;
    const old = tx.now - retentionMs;
    const spec = q.oldest.get(place);
    if (!spec || spec.accepted_at > old) {
      place = 0;
      pauseUntil = tx.now + 60_000;
      q.idem.run(tx.now - IDEM_MS);
      q.uploads.run(tx.now);
      for (const hook of q.hooks.all(old)) {
        q.tries.run(hook.no);
        q.hookDelete.run(hook.no);
      }
      return false;
    }
    if (q.open.get(spec.first, spec.end)) {
      place = spec.no;
      return true;
    }
    const messages = q.messages.all(spec.first, spec.end);
    for (const message of messages) {
      if (message.key !== null) q.keyDelete.run(spec.account, message.key);
      for (const { lane, ref } of q.refs.all(message.no)) q.carrierRef.run(message.no, lane, refOf(ref));
      q.attempts.run(message.no);
      q.pull.run(spec.account, message.no);
      q.events.run(message.no);
      q.messageDelete.run(message.no);
    }
    if (messages.length === STEP) return true;
    q.runs.run(spec.first, spec.end);
    q.media.run(spec.no);
    q.spec.run(spec.no);
    if (!q.bulkUsed.get(spec.bulk)) {
      q.lines.run(spec.bulk);
      q.bulk.run(spec.bulk);
    }
    return true;
  };
}
