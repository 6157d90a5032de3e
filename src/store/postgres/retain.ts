/**
 * retain: what is finished and old enough leaves, oldest spec first, in steps small enough to stand beside the accepts. A
 * message leaves when it has been final for the retention time, no webhook of it is open and nobody may pull it; a spec leaves with its last
 * message, a bulk and an endpoint with their last spec. One node at a time does this (an advisory
 * lock that nobody waits for); content that nothing has referred to for a day goes too.
 */
import { STATE } from '../../domain/status.ts';
import { IDEM_MS } from './accept.ts';
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

const SQL = {
  alone: sql(`SELECT pg_try_advisory_xact_lock(${RETAIN_LOCK}) AS held`),
  oldest: sql(
    `SELECT no, first, "end" AS "end", accepted_at, account, bulk, endpoint FROM spec WHERE no > $1 ORDER BY no LIMIT 1`,
  ),
  messages: sql(`SELECT no, key, state, done_at FROM message WHERE no >= $1 AND no < $2 ORDER BY no LIMIT ${STEP}`),
  open: sql(`SELECT 1 AS one FROM event e WHERE e.message = ANY($1::bigint[])
    AND (EXISTS (SELECT 1 FROM hook h WHERE h.no = e.hook AND h.state = 0)
      OR EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = $2 AND o.event = e.no)
      OR EXISTS (SELECT 1 FROM open_event x WHERE x.message = e.message)
      OR EXISTS (SELECT 1 FROM pull p WHERE p.account = $3 AND p.event = e.no AND p.until > $4)) LIMIT 1`),
  refsDelete: sql('DELETE FROM carrier_ref WHERE leader = ANY($1::bigint[])'),
  keysDelete: sql(`DELETE FROM message_key WHERE account = $1 AND key = ANY($2::text[]) AND no = ANY($3::bigint[])`),
  attempts: sql('DELETE FROM attempt WHERE leader = ANY($1::bigint[])'),
  retries: sql('DELETE FROM retry WHERE leader = ANY($1::bigint[])'),
  pull: sql(
    'DELETE FROM pull WHERE account = $1 AND event IN (SELECT no FROM event WHERE message = ANY($2::bigint[]))',
  ),
  events: sql('DELETE FROM event WHERE message = ANY($1::bigint[])'),
  messagesDelete: sql('DELETE FROM message WHERE no = ANY($1::bigint[])'),
  runs: sql('DELETE FROM run WHERE no >= $1 AND no < $2'),
  media: sql('DELETE FROM media WHERE spec = $1'),
  spec: sql('DELETE FROM spec WHERE no = $1'),
  // Locked before it is looked at: an accept that joins it holds a lock and makes us pass.
  bulkLock: sql('SELECT no FROM bulk WHERE no = $1 FOR UPDATE SKIP LOCKED'),
  bulkUsed: sql('SELECT 1 AS one FROM spec WHERE bulk = $1 LIMIT 1'),
  wakes: sql('DELETE FROM wake WHERE line IN (SELECT no FROM line WHERE bulk = $1 AND bulk <> 0)'),
  lines: sql('DELETE FROM line WHERE bulk = $1 AND bulk <> 0'),
  bulk: sql('DELETE FROM bulk WHERE no = $1'),
  hooks: sql(`SELECT no, endpoint FROM hook WHERE state > 0 AND at <= $1 ORDER BY at LIMIT ${OTHERS}`),
  tries: sql('DELETE FROM hook_try WHERE hook = ANY($1::bigint[])'),
  hooksDelete: sql('DELETE FROM hook WHERE no = ANY($1::bigint[])'),
  endpointsLock: sql('SELECT no FROM endpoint WHERE no = ANY($1::bigint[]) ORDER BY no FOR UPDATE SKIP LOCKED'),
  // Forget endpoints that nothing refers to any more; looked at under their locks.
  endpointsDelete: sql(`DELETE FROM endpoint e WHERE e.no = ANY($1::bigint[])
    AND NOT EXISTS (SELECT 1 FROM spec s WHERE s.endpoint = e.no) AND NOT EXISTS (SELECT 1 FROM hook h WHERE h.endpoint = e.no)
    AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.endpoint = e.no)`),
  idem: sql(`DELETE FROM idem WHERE (account, key) IN
    (SELECT account, key FROM idem WHERE at <= $1 ORDER BY at LIMIT ${OTHERS}) RETURNING account`),
  uploads: sql(`DELETE FROM upload WHERE (account, id) IN
    (SELECT account, id FROM upload WHERE expires_at <= $1 ORDER BY expires_at LIMIT ${OTHERS}) RETURNING account`),
  pulls: sql(`DELETE FROM pull WHERE (account, event) IN
    (SELECT account, event FROM pull WHERE until <= $1 ORDER BY until LIMIT ${OTHERS}) RETURNING account`),
  contents: sql(`SELECT c.hash FROM content c WHERE c.hash > $1 AND c.at <= $2 ORDER BY c.hash LIMIT ${OTHERS}`),
  contentsDelete: sql(`DELETE FROM content c WHERE c.hash = ANY($1::text[]) AND c.at <= $2
    AND NOT EXISTS (SELECT 1 FROM media m WHERE m.hash = c.hash) AND NOT EXISTS (SELECT 1 FROM upload u WHERE u.hash = c.hash)`),
  marks: sql('DELETE FROM mark WHERE at <= $1'),
};

export function createRetain(retentionMs: number) {
  // Where the walks stand; they start over when they have reached what is too young. What must stay is passed.
  let place = 0;
  let kept = 0;
  let pauseUntil = 0;
  let othersUntil = 0;
  let contentPlace = '';

  async function dropEndpoints(tx: Tx, nos: number[]): Promise<void> {
    if (nos.length === 0) return;
    const held = await tx.query<{ no: number }>(SQL.endpointsLock, [list([...new Set(nos)])]);
    if (held.length > 0) await tx.query(SQL.endpointsDelete, [list(held.map((row) => row.no))]);
  }

  /** True = the step was used up. */
  async function walkSpecs(tx: Tx, old: number): Promise<boolean> {
    let at = place;
    let stayed = kept;
    const leave = (until: number | null): void =>
      tx.afterCommit(() => {
        place = at;
        kept = stayed;
        if (until !== null) pauseUntil = until;
      });
    for (let left = STEP; left > 0; ) {
      type Spec = {
        no: number;
        first: number;
        end: number;
        accepted_at: number;
        account: number;
        bulk: number;
        endpoint: number | null;
      };
      const [spec] = await tx.query<Spec>(SQL.oldest, [at]);
      if (!spec || spec.accepted_at > old) {
        const pause = stayed > LONG_WALK_KEPT ? LONG_WALK_MS : WALK_MS;
        at = 0;
        stayed = 0;
        leave(tx.now + pause);
        return false;
      }
      type Message = { no: number; key: string | null; state: number; done_at: number | null };
      const messages = await tx.query<Message>(SQL.messages, [spec.first, spec.end]);
      left -= messages.length + 1;
      const young = messages.some((one) => one.state < STATE.delivered || (one.done_at ?? tx.now) > old);
      const nos = list(messages.map((message) => message.no));
      if (
        young ||
        (messages.length > 0 && (await tx.query(SQL.open, [nos, spec.endpoint, spec.account, tx.now])).length > 0)
      ) {
        at = spec.no;
        stayed++;
        continue;
      }
      if (messages.length > 0) await forget(tx, spec.account, messages, nos);
      if (messages.length === STEP) break;
      await tx.query(SQL.runs, [spec.first, spec.end]);
      await tx.query(SQL.media, [spec.no]);
      await tx.query(SQL.spec, [spec.no]);
      const held = await tx.query(SQL.bulkLock, [spec.bulk]);
      if (held.length > 0 && (await tx.query(SQL.bulkUsed, [spec.bulk])).length === 0) {
        await tx.query(SQL.wakes, [spec.bulk]);
        await tx.query(SQL.lines, [spec.bulk]);
        await tx.query(SQL.bulk, [spec.bulk]);
      }
      if (spec.endpoint !== null) await dropEndpoints(tx, [spec.endpoint]);
    }
    leave(null);
    return true;
  }

  /** What is not tied to a spec. True = more is left of some kind. */
  async function walkOthers(tx: Tx, old: number): Promise<boolean> {
    const hooks = await tx.query<{ no: number; endpoint: number }>(SQL.hooks, [old]);
    if (hooks.length > 0) {
      const nos = list(hooks.map((hook) => hook.no));
      await tx.query(SQL.tries, [nos]);
      await tx.query(SQL.hooksDelete, [nos]);
      await dropEndpoints(
        tx,
        hooks.map((hook) => hook.endpoint),
      );
    }
    const idem = await tx.query(SQL.idem, [tx.now - IDEM_MS]);
    const uploads = await tx.query(SQL.uploads, [tx.now]);
    const pulls = await tx.query(SQL.pulls, [tx.now]);
    const hashes = (await tx.query<{ hash: string }>(SQL.contents, [contentPlace, tx.now - ORPHAN_MS])).map(
      (row) => row.hash,
    );
    if (hashes.length > 0) await tx.query(SQL.contentsDelete, [texts(hashes), tx.now - ORPHAN_MS]);
    await tx.query(SQL.marks, [tx.now - MARK_MS]);
    const more = [hooks, idem, uploads, pulls, hashes].some((rows) => rows.length >= OTHERS);
    tx.afterCommit(() => {
      contentPlace = hashes.length === OTHERS ? (hashes.at(-1) as string) : '';
      if (!more) othersUntil = tx.now + OTHERS_MS;
    });
    return more;
  }

  async function forget(
    tx: Tx,
    account: number,
    messages: { no: number; key: string | null }[],
    nos: string,
  ): Promise<void> {
    const keys = messages.flatMap((message) => message.key ?? []);
    if (keys.length > 0) await tx.query(SQL.keysDelete, [account, texts(keys), nos]);
    await tx.query(SQL.retries, [nos]);
    await tx.query(SQL.refsDelete, [nos]);
    await tx.query(SQL.attempts, [nos]);
    await tx.query(SQL.pull, [account, nos]);
    await tx.query(SQL.events, [nos]);
    await tx.query(SQL.messagesDelete, [nos]);
  }

  return {
    /** Whether a step may have work; asked before a transaction is begun for it. */
    due: (now: number): boolean => now >= pauseUntil || now >= othersUntil,
    /** Something with an end of its own has reached it. */
    dueNow(): void {
      othersUntil = 0;
    },

    /** One bounded step of each kind. True = more is left. */
    async step(tx: Tx): Promise<boolean> {
      const [alone] = await tx.query<{ held: boolean }>(SQL.alone);
      if (!alone?.held) return false;
      const old = tx.now - retentionMs;
      const specs = tx.now >= pauseUntil && (await walkSpecs(tx, old));
      const others = tx.now >= othersUntil && (await walkOthers(tx, old));
      return specs || others;
    },
  };
}
