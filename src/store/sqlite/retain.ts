/**
 * retain: what is finished and old enough leaves, oldest spec first, in steps small enough to stand between two accepts.
 * A message leaves when it has been final for the retention time, no webhook of it is open and nobody may pull it; a spec leaves with its last
 * message, a bulk and an endpoint with their last spec.
 */
import { STATE } from '../../domain/status.ts';
import { IDEM_MS } from './accept.ts';
import type { Events } from './events.ts';
import { prepare, type Tx } from './tx.ts';

/** Messages looked at or removed in one step; a spec counts as one more. */
const STEP = 500;
/** Rows of one other kind removed in one step. */
const OTHERS = 200;
/** Between two walks; longer where much must stay, since a walk looks at all that is old enough by its number. */
const WALK_MS = 60_000;
const LONG_WALK_MS = 3_600_000;
const LONG_WALK_KEPT = 10_000;

/** One bounded step of retention a call; true = more is left. */
export function createRetain(tx: Tx, events: Events, retentionMs: number) {
  const db = tx.db;
  const q = {
    oldest: prepare<{
      no: number;
      first: number;
      end: number;
      accepted_at: number;
      account: number;
      bulk: number;
      endpoint: number | null;
    }>(
      db,
      `SELECT no, first, "end" AS "end", accepted_at, account, bulk, endpoint FROM spec WHERE no > ? ORDER BY no LIMIT 1`,
    ),
    messages: prepare<{ no: number; key: string | null; state: number; done_at: number | null }>(
      db,
      `SELECT no, key, state, done_at FROM message WHERE no >= ? AND no < ? ORDER BY no LIMIT ${STEP}`,
    ),
    open: prepare<{ one: number }>(
      db,
      `SELECT 1 AS one FROM event e WHERE e.message = ?1 AND (EXISTS (SELECT 1 FROM hook h WHERE h.no = e.hook AND h.state = 0)
         OR EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = ?2 AND o.event = e.no)
         OR EXISTS (SELECT 1 FROM open_event x WHERE x.message = ?1)
         OR EXISTS (SELECT 1 FROM pull p WHERE p.account = ?3 AND p.event = e.no AND p.until > ?4)) LIMIT 1`,
    ),
    keyDelete: prepare(db, 'DELETE FROM message_key WHERE account = ? AND key = ? AND no = ?'),
    messageDelete: prepare(db, 'DELETE FROM message WHERE no = ?'),
    attempts: prepare(db, 'DELETE FROM attempt WHERE leader = ?'),
    retry: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    carrierRef: prepare(db, 'DELETE FROM carrier_ref WHERE leader = ?'),
    pull: prepare(db, 'DELETE FROM pull WHERE account = ? AND event IN (SELECT no FROM event WHERE message = ?)'),
    events: prepare(db, 'DELETE FROM event WHERE message = ?'),
    runs: prepare(db, 'DELETE FROM run WHERE no >= ? AND no < ?'),
    media: prepare(db, 'DELETE FROM media WHERE spec = ?'),
    spec: prepare(db, 'DELETE FROM spec WHERE no = ?'),
    bulkUsed: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM spec WHERE bulk = ? LIMIT 1'),
    lines: prepare(db, 'DELETE FROM line WHERE bulk = ?'),
    bulk: prepare(db, 'DELETE FROM bulk WHERE no = ?'),
    hooks: prepare<{ no: number; endpoint: number; state: number; at: number }>(
      db,
      `SELECT no, endpoint, state, at FROM hook WHERE no > ? ORDER BY no LIMIT ${OTHERS}`,
    ),
    hookDelete: prepare(db, 'DELETE FROM hook WHERE no = ?'),
    tries: prepare(db, 'DELETE FROM hook_try WHERE hook = ?'),
    idem: prepare(
      db,
      `DELETE FROM idem WHERE (account, key) IN (SELECT account, key FROM idem WHERE at <= ? ORDER BY at LIMIT ${OTHERS})`,
    ),
    uploads: prepare(
      db,
      `DELETE FROM upload WHERE (account, id) IN
         (SELECT account, id FROM upload WHERE expires_at <= ? ORDER BY expires_at LIMIT ${OTHERS})`,
    ),
    pulls: prepare(
      db,
      `DELETE FROM pull WHERE (account, event) IN
         (SELECT account, event FROM pull WHERE until <= ? ORDER BY until LIMIT ${OTHERS})`,
    ),
  };
  // The walks start over when they have reached what is too young; what must stay is passed, not waited for.
  let place = 0;
  let kept = 0;
  let pauseUntil = 0;
  let hookPlace = 0;
  let hookPauseUntil = 0;

  /** True = the step was used up. */
  function walkSpecs(old: number): boolean {
    if (tx.now < pauseUntil) return false;
    let left = STEP;
    while (left > 0) {
      const spec = q.oldest.get(place);
      if (!spec || spec.accepted_at > old) {
        place = 0;
        pauseUntil = tx.now + (kept > LONG_WALK_KEPT ? LONG_WALK_MS : WALK_MS);
        kept = 0;
        return false;
      }
      const messages = q.messages.all(spec.first, spec.end);
      left -= messages.length + 1;
      const stays = messages.some(
        (message) =>
          message.state < STATE.delivered ||
          (message.done_at ?? tx.now) > old ||
          q.open.get(message.no, spec.endpoint, spec.account, tx.now) !== undefined,
      );
      if (stays) {
        place = spec.no;
        kept++;
        continue;
      }
      for (const message of messages) {
        if (message.key !== null) q.keyDelete.run(spec.account, message.key, message.no);
        q.retry.run(message.no);
        q.carrierRef.run(message.no);
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
      if (spec.endpoint !== null) events.dropEndpoint(spec.endpoint);
    }
    return true;
  }

  function walkHooks(old: number): boolean {
    if (tx.now < hookPauseUntil) return false;
    const hooks = q.hooks.all(hookPlace);
    for (const hook of hooks) {
      if (hook.at > old) break;
      hookPlace = hook.no;
      if (hook.state === 0) continue;
      q.tries.run(hook.no);
      q.hookDelete.run(hook.no);
      events.dropEndpoint(hook.endpoint);
    }
    const last = hooks.at(-1);
    if (hooks.length === OTHERS && last && last.at <= old) return true;
    hookPlace = 0;
    hookPauseUntil = tx.now + WALK_MS;
    return false;
  }

  /** One bounded step of each kind. True = more is left. */
  return function retain(): boolean {
    const old = tx.now - retentionMs;
    const specs = walkSpecs(old);
    const hooks = walkHooks(old);
    const others = [q.idem.run(tx.now - IDEM_MS), q.uploads.run(tx.now), q.pulls.run(tx.now)];
    return specs || hooks || others.some((count) => count === OTHERS);
  };
}
