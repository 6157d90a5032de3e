/**
 * retain: what is finished and old enough, or too much, leaves, oldest spec first, in steps small enough to stand between two
 * accepts. A message leaves when it has been final for the retention time, no webhook of it is open and nobody may pull it; a
 * spec leaves with its last message, a bulk and an endpoint with their last spec.
 *
 * By number: more finished messages than `most` are not kept, whatever their age, under the same conditions; a message with a
 * customer's own id stays for KEY_MS, so that a repeat is known (G3). They are counted in steps too, and not before so many
 * numbers were given out that there may be too many; so the count is exact when it is made, after countMs or each time a
 * hundredth of `most` came in, and what leaves makes room for that hundredth.
 */
import { smsLeader } from '../../domain/failover.ts';
import { STATE } from '../../domain/status.ts';
import { EVENT_CLICK, EXHAUSTED_MS, INBOUND_MIN_MS } from '../hooks.ts';
import { IDEM_MS } from './accept.ts';
import type { Events } from './events.ts';
import type { Links } from './links.ts';
import { prepare, type Tx } from './tx.ts';

/** Messages looked at or removed in one step; a spec counts as one more. An accept waits for no more than one (about 5 ms). */
const STEP = 250;
/** Rows of one other kind removed in one step. */
const OTHERS = 200;
/** Between two walks; longer where much must stay, since a walk looks at all that is old enough by its number. */
const WALK_MS = 60_000;
const LONG_WALK_MS = 3_600_000;
const LONG_WALK_KEPT = 10_000;

/** How long a variant is kept at least, and how often it is looked at whether its content is still referred to. */
const VARIANT_MS = 24 * 3_600_000;

/** Messages counted in one step. */
const COUNT = 2_000;
/**
 * At least so long between two counts that no hundredth of `most` brought about, for each message that is kept: numbers are given out in
 * blocks ahead of the messages, so what came in is known only roughly. A count of so many costs about a thousandth of it.
 */
const COUNT_MS = 0.36;
const COUNT_LEAST_MS = 60_000;
const COUNT_MOST_MS = 3_600_000;
/** Between two counts where `most` messages are kept. */
const countMs = (most: number): number => Math.min(COUNT_MOST_MS, Math.max(COUNT_LEAST_MS, most * COUNT_MS));
/** A customer's id is known for this long after acceptance (G3). */
const KEY_MS = 48 * 3_600_000;

interface Spec {
  no: number;
  first: number;
  end: number;
  accepted_at: number;
  account: number;
  bulk: number;
  endpoint: number | null;
}

interface Message {
  no: number;
  key: string | null;
  state: number;
  done_at: number | null;
  leg: number;
}

/** How long and how many: finished messages are kept for `ms`, and at most `most` of them. */
export interface Retention {
  ms: number;
  most: number;
}

/** One bounded step of retention a call; true = more is left. */
export function createRetain(
  tx: Tx,
  events: Events,
  links: Pick<Links, 'outlive' | 'left' | 'retain'>,
  retention: Retention,
) {
  const db = tx.db;
  const q = {
    oldest: prepare<Spec>(
      db,
      `SELECT no, first, "end" AS "end", accepted_at, account, bulk, endpoint FROM spec WHERE no > ? ORDER BY no LIMIT 1`,
    ),
    messages: prepare<Message>(
      db,
      `SELECT no, key, state, done_at, leg FROM message WHERE no >= ? AND no < ? ORDER BY no LIMIT ${STEP}`,
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
    conversation: prepare(db, 'DELETE FROM conversation WHERE no = ?'),
    attempts: prepare(db, 'DELETE FROM attempt WHERE leader = ?'),
    retry: prepare(db, 'DELETE FROM retry WHERE leader = ?'),
    carrierRef: prepare(db, 'DELETE FROM carrier_ref WHERE leader = ?'),
    pull: prepare(db, 'DELETE FROM pull WHERE account = ? AND event IN (SELECT no FROM event WHERE message = ?)'),
    // Clicks stay as long as their links do.
    events: prepare(db, `DELETE FROM event WHERE message = ? AND kind <> ${EVENT_CLICK}`),
    runs: prepare(db, 'DELETE FROM run WHERE no >= ? AND no < ?'),
    media: prepare(db, 'DELETE FROM media WHERE spec = ?'),
    spec: prepare(db, 'DELETE FROM spec WHERE no = ?'),
    bulkUsed: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM spec WHERE bulk = ? LIMIT 1'),
    lines: prepare(db, 'DELETE FROM line WHERE bulk = ?'),
    bulk: prepare(db, 'DELETE FROM bulk WHERE no = ?'),
    tally: prepare(db, 'DELETE FROM tally WHERE bulk = ?'),
    hooks: prepare<{ no: number; endpoint: number; state: number; at: number; ended_at: number | null }>(
      db,
      `SELECT no, endpoint, state, at, ended_at FROM hook WHERE no > ? ORDER BY no LIMIT ${OTHERS}`,
    ),
    hookLast: prepare<{ no: number | null }>(db, 'SELECT max(no) AS no FROM hook'),
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
    variants: prepare<{ source: string; profile: string; used: number }>(
      db,
      `SELECT source, profile, (EXISTS (SELECT 1 FROM media m WHERE m.hash = v.source)
         OR EXISTS (SELECT 1 FROM upload u WHERE u.hash = v.source)) AS used
       FROM variant v WHERE at <= ? ORDER BY at LIMIT ${OTHERS}`,
    ),
    taken: prepare(
      db,
      `DELETE FROM taken WHERE (account, at, event) IN
         (SELECT account, at, event FROM taken WHERE until <= ? ORDER BY until LIMIT ${OTHERS})`,
    ),
    boxes: prepare(
      db,
      `DELETE FROM inbox WHERE (account, event) IN
         (SELECT account, event FROM inbox WHERE until <= ? ORDER BY until LIMIT ${OTHERS})`,
    ),
    inbound: prepare<{ no: number; at: number; open: number }>(
      db,
      `SELECT i.no, i.at, EXISTS (SELECT 1 FROM event e WHERE e.message = i.no AND (
           EXISTS (SELECT 1 FROM hook h WHERE h.no = e.hook AND h.state <> 1 AND coalesce(h.ended_at, ?3) > ?3 - ${EXHAUSTED_MS})
           OR EXISTS (SELECT 1 FROM endpoint p JOIN outbox o ON o.endpoint = p.no
             WHERE p.account = i.account AND p.kind = 1 AND o.event = e.no)
           OR EXISTS (SELECT 1 FROM inbox b WHERE b.account = i.account AND b.event = e.no AND b.until > ?3))) AS open
       FROM inbound i WHERE (i.at, i.no) > (?1, ?2) AND i.at <= ?4 ORDER BY i.at, i.no LIMIT ${OTHERS}`,
    ),
    inboundParts: prepare(db, 'DELETE FROM inbound_part WHERE inbound = ?'),
    inboundDelete: prepare(db, 'DELETE FROM inbound WHERE no = ?'),
    variantKeep: prepare(db, 'UPDATE variant SET at = ? WHERE source = ? AND profile = ?'),
    variantDrop: prepare(db, 'DELETE FROM variant WHERE source = ? AND profile = ?'),
    pulls: prepare(
      db,
      `DELETE FROM pull WHERE (account, event) IN
         (SELECT account, event FROM pull WHERE until <= ? ORDER BY until LIMIT ${OTHERS})`,
    ),
  };
  const count = {
    given: prepare<{ v: number }>(db, "SELECT v FROM meta WHERE k = 'next'"),
    first: prepare<{ no: number | null }>(db, 'SELECT min(no) AS no FROM spec'),
    part: prepare<{ n: number; finished: number; last: number | null }>(
      db,
      `SELECT count(*) AS n, coalesce(sum(state >= ${STATE.delivered}), 0) AS finished, max(no) AS last
       FROM (SELECT no, state FROM message WHERE no > ? ORDER BY no LIMIT ${COUNT})`,
    ),
  };
  // The walks start over when they have reached what is too young; what must stay is passed, not waited for.
  let place = 0;
  let kept = 0;
  let pauseUntil = 0;
  let hookPlace = 0;
  let hookPauseUntil = 0;
  let inboundPlace = { at: 0, no: 0 };
  let inboundPauseUntil = 0;

  /** Whether one of these must stay: not final since `old`, or its report is still to be told or pulled. */
  function stays(spec: Spec, messages: Message[], old: number): boolean {
    return messages.some(
      (message) =>
        message.state < STATE.delivered ||
        (message.done_at ?? tx.now) > old ||
        q.open.get(message.no, spec.endpoint, spec.account, tx.now) !== undefined,
    );
  }

  /** Removes these messages, and their spec unless more of it are left: then false. */
  function remove(spec: Spec, messages: Message[]): boolean {
    for (const message of messages) {
      if (message.key !== null) q.keyDelete.run(spec.account, message.key, message.no);
      for (const leader of message.leg === 1 ? [message.no, smsLeader(message.no)] : [message.no]) {
        q.retry.run(leader);
        q.carrierRef.run(leader);
        q.attempts.run(leader);
      }
      q.pull.run(spec.account, message.no);
      links.outlive(message.no);
      q.events.run(message.no);
      q.conversation.run(message.no);
      q.messageDelete.run(message.no);
    }
    if (messages.length === STEP) return false;
    q.runs.run(spec.first, spec.end);
    q.runs.run(1 - spec.end, 1 - spec.first);
    q.media.run(spec.no);
    q.spec.run(spec.no);
    links.left(spec.first);
    if (!q.bulkUsed.get(spec.bulk)) {
      q.lines.run(spec.bulk);
      q.bulk.run(spec.bulk);
      q.tally.run(spec.bulk);
    }
    if (spec.endpoint !== null) events.dropEndpoint(spec.endpoint);
    return true;
  }

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
      if (stays(spec, messages, old)) {
        place = spec.no;
        kept++;
      } else if (!remove(spec, messages)) return true;
    }
    return true;
  }

  // By number: count, then take away what is too much, then wait until there may be too much again.
  let counting: { place: number; finished: number; given: number } | null = null;
  let excess = 0;
  let manyPlace = 0;
  let countedAt = Number.NEGATIVE_INFINITY;
  let givenAtCount = Number.NEGATIVE_INFINITY;
  /** Room made for what comes in until the next count. */
  const room = Math.floor(retention.most / 100);

  /** One step of the count; when it ends, `excess` is known. True = more is left. */
  function countMessages(): boolean {
    if (!counting) {
      const given = Number(count.given.get()?.v ?? 1);
      if (given - (count.first.get()?.no ?? given) <= retention.most) return false;
      if (tx.now - countedAt < countMs(retention.most) && given - givenAtCount <= room) return false;
      counting = { place: 0, finished: 0, given };
    }
    const part = count.part.get(counting.place);
    counting.finished += part?.finished ?? 0;
    counting.place = part?.last ?? counting.place;
    if (part?.n === COUNT) return true;
    const { finished, given } = counting;
    counting = null;
    countedAt = tx.now;
    givenAtCount = given;
    manyPlace = 0;
    excess = finished > retention.most - room ? finished - (retention.most - room) : 0;
    return excess > 0;
  }

  /** One step of taking away what is too much. True = the step was used up. */
  function walkMany(): boolean {
    if (excess <= 0) return countMessages();
    let left = STEP;
    while (left > 0 && excess > 0) {
      const spec = q.oldest.get(manyPlace);
      if (!spec) {
        // All the rest must stay.
        excess = 0;
        return false;
      }
      const messages = q.messages.all(spec.first, spec.end);
      left -= messages.length + 1;
      const keyed = spec.accepted_at > tx.now - KEY_MS && messages.some((message) => message.key !== null);
      if (keyed || stays(spec, messages, tx.now)) {
        manyPlace = spec.no;
        continue;
      }
      excess -= messages.length;
      remove(spec, messages);
    }
    return true;
  }

  function walkHooks(old: number): boolean {
    if (tx.now < hookPauseUntil) return false;
    const hooks = q.hooks.all(hookPlace);
    // There are never more of them than messages. An exhausted one stays for its time: it may be made again (G10).
    const many = (q.hookLast.get()?.no ?? 0) - retention.most;
    const leaves = (hook: { no: number; at: number }): boolean => hook.at <= old || hook.no <= many;
    for (const hook of hooks) {
      if (!leaves(hook)) break;
      hookPlace = hook.no;
      if (hook.state === 0) continue;
      if (hook.state === 2 && (hook.ended_at ?? hook.at) > tx.now - EXHAUSTED_MS) continue;
      q.tries.run(hook.no);
      q.hookDelete.run(hook.no);
      events.dropEndpoint(hook.endpoint);
    }
    const last = hooks.at(-1);
    if (hooks.length === OTHERS && last && leaves(last)) return true;
    hookPlace = 0;
    hookPauseUntil = tx.now + WALK_MS;
    return false;
  }

  /** Messages from handsets, once they are told, pulled or too old to be. */
  function walkInbound(old: number): boolean {
    if (tx.now < inboundPauseUntil) return false;
    const rows = q.inbound.all(inboundPlace.at, inboundPlace.no, tx.now, old);
    for (const row of rows) {
      inboundPlace = row;
      if (row.open === 1) continue;
      q.events.run(row.no);
      q.inboundParts.run(row.no);
      q.inboundDelete.run(row.no);
    }
    if (rows.length === OTHERS) return true;
    inboundPlace = { at: 0, no: 0 };
    inboundPauseUntil = tx.now + WALK_MS;
    return false;
  }

  /** Variants of content that nothing refers to any more; what is still needed is looked at again in a day. */
  function walkVariants(): number {
    const rows = q.variants.all(tx.now - VARIANT_MS);
    for (const { source, profile, used } of rows) {
      if (used) q.variantKeep.run(tx.now, source, profile);
      else q.variantDrop.run(source, profile);
    }
    return rows.length;
  }

  /** One bounded step of each kind. True = more is left. */
  return function retain(): boolean {
    const old = tx.now - retention.ms;
    const specs = walkSpecs(old) || walkMany();
    const hooks = walkHooks(old);
    const inbound = walkInbound(tx.now - Math.max(retention.ms, INBOUND_MIN_MS));
    const ended = [q.pulls, q.taken, q.boxes].map((kind) => kind.run(tx.now));
    const others = [q.idem.run(tx.now - IDEM_MS), q.uploads.run(tx.now), ...ended, walkVariants()];
    const gone = links.retain();
    return specs || hooks || inbound || gone || others.some((count) => count === OTHERS);
  };
}
