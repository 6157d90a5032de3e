/**
 * retain: what is finished and old enough, or too much, leaves, oldest spec first, in steps small enough to stand beside the
 * accepts. A message leaves when it has been final for the retention time, no webhook of it is open and nobody may pull it; a
 * spec leaves with its last message, a bulk and an endpoint with their last spec. One node at a time does this (an advisory
 * lock that nobody waits for); content that nothing has referred to for a day goes too.
 *
 * By number: more finished messages than `most` are not kept, whatever their age, under the same conditions; a message with a
 * customer's own id stays for KEY_MS, so that a repeat is known (G3). They are counted in steps too, and not before so many
 * numbers were given out that there may be too many; one node counts, after countMs, or each time a hundredth of
 * `most` came in, and what leaves makes room for that hundredth.
 *
 * A step is a dozen statements whatever it holds: a statement for each row would let messages of requests of one come in
 * faster than they leave.
 */
import { smsLeader } from '../../domain/failover.ts';
import { STATE } from '../../domain/status.ts';
import { EVENT_CLICK, EXHAUSTED_MS, INBOUND_MIN_MS } from '../hooks.ts';
import { IDEM_MS } from './accept.ts';
import { leaveLinks, outliveMessages, retainLinks } from './links.ts';
import { RETAIN_LOCK } from './schema.ts';
import { list, sql, type Tx, texts } from './tx.ts';

/** Messages looked at or removed in one step; a spec counts as one more. */
const STEP = 500;
/** Rows of one other kind removed in one step. */
const OTHERS = 200;
/** Between two looks at what is not tied to a spec. */
const OTHERS_MS = 10_000;
/** Between two walks; longer where much must stay, since a walk looks at all that is old enough by its number. */
const WALK_MS = 60_000;
const LONG_WALK_MS = 3_600_000;
const LONG_WALK_KEPT = 10_000;
/** Unreferenced content younger than this may be about to be referred to. */
const ORPHAN_MS = 24 * 3_600_000;
/** A connection that has not written for so long is gone. */
const MARK_MS = 30 * 24 * 3_600_000;

/** Messages counted in one step. */
const COUNT = 5_000;
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

const SQL = {
  alone: sql(`SELECT pg_try_advisory_xact_lock(${RETAIN_LOCK}) AS held`),
  oldest: sql(
    `SELECT no, first, "end" AS "end", accepted_at, account, bulk, endpoint FROM spec WHERE no > $1 ORDER BY no LIMIT ${STEP}`,
  ),
  // The first STEP of each spec only: a large one leaves in several steps.
  messages: sql(`SELECT r.spec, m.no, m.key, m.state, m.done_at, m.leg
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS r (spec, first, "end")
    CROSS JOIN LATERAL (SELECT no, key, state, done_at, leg FROM message WHERE no >= r.first AND no < r."end" ORDER BY no LIMIT ${STEP}) m`),
  // Specs whose reports are still to be told or pulled.
  open: sql(`SELECT DISTINCT r.spec FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS r (no, spec, endpoint, account)
    WHERE EXISTS (SELECT 1 FROM event e WHERE e.message = r.no AND (
      EXISTS (SELECT 1 FROM hook h WHERE h.no = e.hook AND h.state = 0)
      OR EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = r.endpoint AND o.event = e.no)
      OR EXISTS (SELECT 1 FROM open_event x WHERE x.message = r.no)
      OR EXISTS (SELECT 1 FROM pull p WHERE p.account = r.account AND p.event = e.no AND p.until > $5)))`),
  refsDelete: sql('DELETE FROM carrier_ref WHERE leader = ANY($1::bigint[])'),
  keysDelete: sql(`DELETE FROM message_key WHERE ctid = ANY(ARRAY(
      SELECT k.ctid FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS r (account, key, no) CROSS JOIN LATERAL
        (SELECT ctid FROM message_key m WHERE m.account = r.account AND m.key = r.key AND m.no = r.no OFFSET 0) k))`),
  attempts: sql('DELETE FROM attempt WHERE leader = ANY($1::bigint[])'),
  retries: sql('DELETE FROM retry WHERE leader = ANY($1::bigint[])'),
  pull: sql(`DELETE FROM pull WHERE ctid = ANY(ARRAY(SELECT p.ctid FROM unnest($1::bigint[], $2::bigint[]) AS r (account, no)
      CROSS JOIN LATERAL (SELECT no FROM event n WHERE n.message = r.no OFFSET 0) e
      CROSS JOIN LATERAL (SELECT ctid FROM pull q WHERE q.account = r.account AND q.event = e.no OFFSET 0) p))`),
  // Clicks stay as long as their links do.
  events: sql(`DELETE FROM event WHERE message = ANY($1::bigint[]) AND kind <> ${EVENT_CLICK}`),
  messagesDelete: sql('DELETE FROM message WHERE no = ANY($1::bigint[])'),
  conversations: sql('DELETE FROM conversation WHERE no = ANY($1::bigint[])'),
  runs: sql(`DELETE FROM run WHERE no = ANY(ARRAY(SELECT x.no FROM unnest($1::bigint[], $2::bigint[]) AS r (first, "end")
    CROSS JOIN LATERAL (SELECT no FROM run WHERE no >= r.first AND no < r."end" OFFSET 0) x))`),
  media: sql('DELETE FROM media WHERE spec = ANY($1::bigint[])'),
  specs: sql('DELETE FROM spec WHERE no = ANY($1::bigint[])'),
  // Locked before they are looked at: an accept that joins one holds a lock and makes us pass.
  bulksLock: sql('SELECT no FROM bulk WHERE no = ANY($1::bigint[]) ORDER BY no FOR UPDATE SKIP LOCKED'),
  bulksUnused: sql(`SELECT r.no FROM unnest($1::bigint[]) AS r (no) WHERE r.no <> 0
    AND NOT EXISTS (SELECT 1 FROM spec s WHERE s.bulk = r.no)`),
  wakes: sql(
    `DELETE FROM wake WHERE line = ANY(ARRAY(SELECT no FROM line WHERE bulk = ANY($1::bigint[]) AND bulk <> 0))`,
  ),
  lines: sql('DELETE FROM line WHERE bulk = ANY($1::bigint[]) AND bulk <> 0'),
  tallies: sql('DELETE FROM tally WHERE bulk = ANY($1::bigint[])'),
  tallySums: sql('DELETE FROM tally_sum WHERE bulk = ANY($1::bigint[])'),
  bulks: sql('DELETE FROM bulk WHERE no = ANY($1::bigint[])'),
  given:
    sql(`SELECT c.next AS given, (SELECT min(no) FROM spec) AS first, (SELECT v FROM meta WHERE k = 'counted') AS counted
    FROM counter c WHERE c.k = 'number'`),
  counted: sql("INSERT INTO meta (k, v) VALUES ('counted', $1) ON CONFLICT (k) DO UPDATE SET v = excluded.v"),
  part: sql(`SELECT count(*)::integer AS n, (count(*) FILTER (WHERE state >= ${STATE.delivered}))::integer AS finished, max(no) AS last
    FROM (SELECT no, state FROM message WHERE no > $1 ORDER BY no LIMIT ${COUNT}) c`),
  manyHooks: sql(`SELECT no, endpoint, state FROM hook WHERE no > $1 AND no <= (SELECT max(no) FROM hook) - $2::bigint
    ORDER BY no LIMIT ${OTHERS}`),
  // An exhausted one stays for its time: it may be made again (G10).
  hooks: sql(`SELECT no, endpoint FROM hook WHERE state > 0 AND at <= $1
    AND (state = 1 OR coalesce(ended_at, at) <= $2) ORDER BY at LIMIT ${OTHERS}`),
  taken: sql(`DELETE FROM taken WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM taken WHERE until <= $1 ORDER BY until LIMIT ${OTHERS})) RETURNING account`),
  boxes: sql(`DELETE FROM inbox WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM inbox WHERE until <= $1 ORDER BY until LIMIT ${OTHERS})) RETURNING account`),
  // Once they are told, pulled or too old to be.
  inbound:
    sql(`SELECT i.no FROM inbound i WHERE i.at <= $1 AND NOT EXISTS (SELECT 1 FROM event e WHERE e.message = i.no AND (
      EXISTS (SELECT 1 FROM hook h WHERE h.no = e.hook AND h.state <> 1 AND coalesce(h.ended_at, $2) > $2 - ${EXHAUSTED_MS})
      OR EXISTS (SELECT 1 FROM endpoint p JOIN outbox o ON o.endpoint = p.no
        WHERE p.account = i.account AND p.kind = 1 AND o.event = e.no)
      OR EXISTS (SELECT 1 FROM inbox b WHERE b.account = i.account AND b.event = e.no AND b.until > $2)))
    ORDER BY i.at LIMIT ${OTHERS}`),
  inboundParts: sql('DELETE FROM inbound_part WHERE inbound = ANY($1::bigint[])'),
  inboundDelete: sql('DELETE FROM inbound WHERE no = ANY($1::bigint[])'),
  tries: sql('DELETE FROM hook_try WHERE hook = ANY($1::bigint[])'),
  hooksDelete: sql('DELETE FROM hook WHERE no = ANY($1::bigint[])'),
  endpointsLock: sql('SELECT no FROM endpoint WHERE no = ANY($1::bigint[]) ORDER BY no FOR UPDATE SKIP LOCKED'),
  // Forget endpoints that nothing refers to any more; looked at under their locks.
  endpointsDelete: sql(`DELETE FROM endpoint e WHERE e.no = ANY($1::bigint[])
    AND NOT EXISTS (SELECT 1 FROM spec s WHERE s.endpoint = e.no) AND NOT EXISTS (SELECT 1 FROM hook h WHERE h.endpoint = e.no)
    AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = e.no)`),
  idem: sql(`DELETE FROM idem WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idem WHERE at <= $1 ORDER BY at LIMIT ${OTHERS})) RETURNING account`),
  uploads: sql(`DELETE FROM upload WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM upload WHERE expires_at <= $1 ORDER BY expires_at LIMIT ${OTHERS})) RETURNING account`),
  pulls: sql(`DELETE FROM pull WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM pull WHERE until <= $1 ORDER BY until LIMIT ${OTHERS})) RETURNING account`),
  contents: sql(`SELECT c.hash FROM content c WHERE c.hash > $1 AND c.at <= $2 ORDER BY c.hash LIMIT ${OTHERS}`),
  contentsDelete: sql(`WITH gone AS (DELETE FROM content c WHERE c.hash = ANY($1::text[]) AND c.at <= $2
    AND NOT EXISTS (SELECT 1 FROM media m WHERE m.hash = c.hash) AND NOT EXISTS (SELECT 1 FROM upload u WHERE u.hash = c.hash)
    AND NOT EXISTS (SELECT 1 FROM variant v WHERE v.hash = c.hash)
    AND NOT EXISTS (SELECT 1 FROM inbound_part p WHERE p.hash = c.hash) RETURNING c.place)
    INSERT INTO content_lost (place) SELECT place FROM gone WHERE place IS NOT NULL ON CONFLICT DO NOTHING`),
  variants: sql(`SELECT source, profile, (EXISTS (SELECT 1 FROM media m WHERE m.hash = v.source)
      OR EXISTS (SELECT 1 FROM upload u WHERE u.hash = v.source)) AS used
    FROM variant v WHERE at <= $1 ORDER BY at LIMIT ${OTHERS}`),
  variantsKeep: sql(`UPDATE variant v SET at = $3 FROM unnest($1::text[], $2::text[]) AS x (source, profile)
    WHERE v.source = x.source AND v.profile = x.profile AND v.source = ANY($1::text[])`),
  variantsDelete: sql(`DELETE FROM variant v USING unnest($1::text[], $2::text[]) AS x (source, profile)
    WHERE v.source = x.source AND v.profile = x.profile AND v.source = ANY($1::text[])`),
  marks: sql('DELETE FROM mark WHERE at <= $1'),
};

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
  spec: number;
  no: number;
  key: string | null;
  state: number;
  done_at: number | null;
  leg: number;
}

/** A spec with its messages, or the first STEP of them. */
interface Held {
  spec: Spec;
  messages: Message[];
}

/** How long and how many: finished messages are kept for `ms`, and at most `most` of them. */
export interface Retention {
  ms: number;
  most: number;
}

/** Steps of retention over transactions that the caller opens. */
export function createRetain(retention: Retention) {
  // Where the walks stand; they start over when they have reached what is too young. What must stay is passed.
  let place = 0;
  let kept = 0;
  let pauseUntil = 0;
  let othersUntil = 0;
  let contentPlace = '';
  // By number: count, then take away what is too much, then wait until there may be too much again.
  let counting: { place: number; finished: number } | null = null;
  let excess = 0;
  let manyPlace = 0;
  let manyUntil = 0;
  let hookPlace = 0;
  /** Room made for what comes in until the next count. */
  const room = Math.floor(retention.most / 100);
  const bounded = Number.isFinite(retention.most);

  async function dropEndpoints(tx: Tx, nos: number[]): Promise<void> {
    if (nos.length === 0) return;
    const held = await tx.query<{ no: number }>(SQL.endpointsLock, [list([...new Set(nos)])]);
    if (held.length > 0) tx.later(SQL.endpointsDelete, [list(held.map((row) => row.no))]);
  }

  /** The oldest specs after `after` that are older than `old`, as many as one step may look at. */
  async function oldest(tx: Tx, after: number, old: number): Promise<Held[]> {
    const found: Held[] = [];
    let left = STEP;
    for (const spec of await tx.query<Spec>(SQL.oldest, [after])) {
      if (left <= 0 || spec.accepted_at > old) break;
      left -= Math.min(spec.end - spec.first, STEP) + 1;
      found.push({ spec, messages: [] });
    }
    if (found.length === 0) return found;
    const specs = found.map(({ spec }) => spec);
    const bySpec = new Map(found.map((held) => [held.spec.no, held]));
    const values = [
      list(specs.map(({ no }) => no)),
      list(specs.map(({ first }) => first)),
      list(specs.map(({ end }) => end)),
    ];
    for (const message of await tx.query<Message>(SQL.messages, values))
      bySpec.get(message.spec)?.messages.push(message);
    return found;
  }

  /** Those of which every message has been final since `old`, and is neither to be told nor to be pulled any more. */
  async function removable(tx: Tx, held: Held[], old: number): Promise<Held[]> {
    const done = held.filter(({ messages }) =>
      messages.every((one) => one.state >= STATE.delivered && (one.done_at ?? tx.now) <= old),
    );
    const all = done.flatMap(({ spec, messages }) => messages.map(({ no }) => ({ no, spec })));
    if (all.length === 0) return done;
    const open = await tx.query<{ spec: number }>(SQL.open, [
      list(all.map(({ no }) => no)),
      list(all.map(({ spec }) => spec.no)),
      list(all.map(({ spec }) => spec.endpoint)),
      list(all.map(({ spec }) => spec.account)),
      tx.now,
    ]);
    const told = new Set(open.map(({ spec }) => spec));
    return done.filter(({ spec }) => !told.has(spec.no));
  }

  /** Removes the messages, and each spec of which no more are left. */
  async function remove(tx: Tx, held: Held[]): Promise<void> {
    if (held.length === 0) return;
    const all = held.flatMap(({ spec, messages }) =>
      messages.map((message) => ({ ...message, account: spec.account, first: spec.first })),
    );
    if (all.length > 0) {
      const nos = list(all.map(({ no }) => no));
      const keyed = all.filter(({ key }) => key !== null);
      const accounts = (of: { account: number }[]): string => list(of.map(({ account }) => account));
      if (keyed.length > 0) {
        const values = [accounts(keyed), texts(keyed.map(({ key }) => key)), list(keyed.map(({ no }) => no))];
        tx.later(SQL.keysDelete, values);
      }
      const leaders = list(all.flatMap(({ no, leg }) => (leg === 1 ? [no, smsLeader(no)] : [no])));
      tx.later(SQL.retries, [leaders]);
      tx.later(SQL.refsDelete, [leaders]);
      tx.later(SQL.attempts, [leaders]);
      tx.later(SQL.pull, [accounts(all), nos]);
      outliveMessages(
        tx,
        all.map(({ no }) => no),
        all.map(({ first }) => first),
      );
      tx.later(SQL.events, [nos]);
      tx.later(SQL.conversations, [nos]);
      tx.later(SQL.messagesDelete, [nos]);
    }
    const specs = held.filter(({ messages }) => messages.length < STEP).map(({ spec }) => spec);
    if (specs.length === 0) return;
    const nos = list(specs.map(({ no }) => no));
    // Of both legs.
    const firsts = specs.flatMap(({ first, end }) => [first, 1 - end]);
    tx.later(SQL.runs, [list(firsts), list(specs.flatMap(({ first, end }) => [end, 1 - first]))]);
    tx.later(SQL.media, [nos]);
    tx.later(SQL.specs, [nos]);
    leaveLinks(
      tx,
      specs.map(({ first }) => first),
    );
    const locked = await tx.query<{ no: number }>(SQL.bulksLock, [list([...new Set(specs.map(({ bulk }) => bulk))])]);
    if (locked.length > 0) {
      const unused = await tx.query<{ no: number }>(SQL.bulksUnused, [list(locked.map(({ no }) => no))]);
      if (unused.length > 0) {
        const bulks = list(unused.map(({ no }) => no));
        tx.later(SQL.wakes, [bulks]);
        tx.later(SQL.lines, [bulks]);
        tx.later(SQL.tallies, [bulks]);
        tx.later(SQL.tallySums, [bulks]);
        tx.later(SQL.bulks, [bulks]);
      }
    }
    await dropEndpoints(
      tx,
      specs.flatMap(({ endpoint }) => endpoint ?? []),
    );
  }

  /** Where a walk goes on: past what stays, but not past a spec of which more messages are left. */
  function nextPlace(held: Held[], gone: Held[], at: number): number {
    const partly = new Set(gone.filter(({ messages }) => messages.length === STEP).map(({ spec }) => spec.no));
    let next = at;
    for (const { spec } of held) {
      if (partly.has(spec.no)) break;
      next = spec.no;
    }
    return next;
  }

  /** True = more is left. */
  async function walkSpecs(tx: Tx, old: number): Promise<boolean> {
    const held = await oldest(tx, place, old);
    if (held.length === 0) {
      const pause = kept > LONG_WALK_KEPT ? LONG_WALK_MS : WALK_MS;
      tx.afterCommit(() => {
        place = 0;
        kept = 0;
        pauseUntil = tx.now + pause;
      });
      return false;
    }
    const gone = await removable(tx, held, old);
    await remove(tx, gone);
    tx.afterCommit(() => {
      place = nextPlace(held, gone, place);
      kept += held.length - gone.length;
    });
    return true;
  }

  /** One step of the count; when it ends, `excess` is known. True = more is left. */
  async function countMessages(tx: Tx): Promise<boolean> {
    if (!counting) {
      const [row] = await tx.query<{ given: number; first: number | null; counted: string | null }>(SQL.given);
      const given = row?.given ?? 1;
      const last = JSON.parse(row?.counted ?? '{"at":0,"given":-1}') as { at: number; given: number };
      const due = tx.now - last.at >= countMs(retention.most) || given - last.given > room;
      if (given - (row?.first ?? given) <= retention.most || !due) {
        tx.afterCommit(() => {
          manyUntil = tx.now + WALK_MS;
        });
        return false;
      }
      // Said at the beginning, so that no other node counts too.
      tx.later(SQL.counted, [JSON.stringify({ at: tx.now, given })]);
    }
    const { place: from, finished: before } = counting ?? { place: 0, finished: 0 };
    const [part] = await tx.query<{ n: number; finished: number; last: number | null }>(SQL.part, [from]);
    const finished = before + (part?.finished ?? 0);
    const more = part?.n === COUNT;
    const over = Math.max(0, finished - (retention.most - room));
    tx.afterCommit(() => {
      counting = more ? { place: part?.last ?? from, finished } : null;
      if (more) return;
      excess = over;
      manyPlace = 0;
    });
    return more || over > 0;
  }

  /** One step of taking away what is too much. True = more is left. */
  async function walkMany(tx: Tx): Promise<boolean> {
    if (excess <= 0) return countMessages(tx);
    const held = await oldest(tx, manyPlace, tx.now);
    if (held.length === 0) {
      // All the rest must stay.
      tx.afterCommit(() => {
        excess = 0;
      });
      return false;
    }
    const free = held.filter(
      ({ spec, messages }) => spec.accepted_at <= tx.now - KEY_MS || messages.every(({ key }) => key === null),
    );
    let left = excess;
    const gone: Held[] = [];
    for (const one of await removable(tx, free, tx.now)) {
      if (left <= 0) break;
      left -= one.messages.length;
      gone.push(one);
    }
    await remove(tx, gone);
    tx.afterCommit(() => {
      manyPlace = nextPlace(held, gone, manyPlace);
      excess = left;
    });
    return true;
  }

  /** POSTs that are done leave by number too. Exhausted ones stay for their time: they may be asked for again (G10). */
  async function walkHooks(tx: Tx): Promise<boolean> {
    const hooks = await tx.query<{ no: number; endpoint: number; state: number }>(SQL.manyHooks, [
      hookPlace,
      retention.most,
    ]);
    const done = hooks.filter(({ state }) => state === 1);
    if (done.length > 0) {
      const nos = list(done.map(({ no }) => no));
      tx.later(SQL.tries, [nos]);
      tx.later(SQL.hooksDelete, [nos]);
      await dropEndpoints(
        tx,
        done.map(({ endpoint }) => endpoint),
      );
    }
    const more = hooks.length === OTHERS;
    tx.afterCommit(() => {
      hookPlace = more ? (hooks.at(-1)?.no ?? 0) : 0;
    });
    return more;
  }

  /** Variants of content that nothing refers to any more; what is still needed is looked at again in a day. */
  async function walkVariants(tx: Tx): Promise<unknown[]> {
    type Row = { source: string; profile: string; used: boolean };
    const rows = await tx.query<Row>(SQL.variants, [tx.now - ORPHAN_MS]);
    for (const used of [true, false]) {
      const these = rows.filter((row) => row.used === used);
      if (these.length === 0) continue;
      const names = [texts(these.map((row) => row.source)), texts(these.map((row) => row.profile))];
      if (used) tx.later(SQL.variantsKeep, [...names, tx.now]);
      else tx.later(SQL.variantsDelete, names);
    }
    return rows;
  }

  /** What is not tied to a spec. True = more is left of some kind. */
  async function walkOthers(tx: Tx, old: number): Promise<boolean> {
    const hooks = await tx.query<{ no: number; endpoint: number }>(SQL.hooks, [old, tx.now - EXHAUSTED_MS]);
    if (hooks.length > 0) {
      const nos = list(hooks.map((hook) => hook.no));
      tx.later(SQL.tries, [nos]);
      tx.later(SQL.hooksDelete, [nos]);
      await dropEndpoints(
        tx,
        hooks.map((hook) => hook.endpoint),
      );
    }
    const idem = await tx.query(SQL.idem, [tx.now - IDEM_MS]);
    const uploads = await tx.query(SQL.uploads, [tx.now]);
    const pulls = await tx.query(SQL.pulls, [tx.now]);
    const taken = await tx.query(SQL.taken, [tx.now]);
    const boxes = await tx.query(SQL.boxes, [tx.now]);
    const oldInbound = tx.now - Math.max(retention.ms, INBOUND_MIN_MS);
    const inbound = await tx.query<{ no: number }>(SQL.inbound, [oldInbound, tx.now]);
    if (inbound.length > 0) {
      const nos = list(inbound.map(({ no }) => no));
      tx.later(SQL.events, [nos]);
      tx.later(SQL.inboundParts, [nos]);
      tx.later(SQL.inboundDelete, [nos]);
    }
    const hashes = (await tx.query<{ hash: string }>(SQL.contents, [contentPlace, tx.now - ORPHAN_MS])).map(
      (row) => row.hash,
    );
    if (hashes.length > 0) tx.later(SQL.contentsDelete, [texts(hashes), tx.now - ORPHAN_MS]);
    tx.later(SQL.marks, [tx.now - MARK_MS]);
    const variants = await walkVariants(tx);
    const links = await retainLinks(tx);
    const manyHooks = bounded && (await walkHooks(tx));
    const more =
      manyHooks ||
      links ||
      [hooks, idem, uploads, pulls, taken, boxes, inbound, hashes, variants].some((rows) => rows.length >= OTHERS);
    tx.afterCommit(() => {
      contentPlace = hashes.length === OTHERS ? (hashes.at(-1) as string) : '';
      if (!more) othersUntil = tx.now + OTHERS_MS;
    });
    return more;
  }

  return {
    /** Whether a step may have work; asked before a transaction is begun for it. */
    due: (now: number): boolean => now >= pauseUntil || now >= othersUntil || (bounded && now >= manyUntil),
    /** Something with an end of its own has reached it. */
    dueNow(): void {
      othersUntil = 0;
    },

    /** One bounded step of each kind. True = more is left. */
    async step(tx: Tx): Promise<boolean> {
      const [alone] = await tx.query<{ held: boolean }>(SQL.alone);
      if (!alone?.held) return false;
      const old = tx.now - retention.ms;
      const aged = tx.now >= pauseUntil && (await walkSpecs(tx, old));
      const specs = aged || (bounded && tx.now >= manyUntil && (await walkMany(tx)));
      const others = tx.now >= othersUntil && (await walkOthers(tx, old));
      return specs || others;
    },
  };
}
