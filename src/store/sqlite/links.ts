/**
 * Short links and clicks: a row per spec that has links, which outlives the spec; who its messages went to, from when these
 * leave; clicks with their counts. Writes run in the writer's transaction, `createLinkReads` beside it.
 *
 * Promises: counts are exact; of one message at most CLICKS_KEPT clicks are kept and reported, further ones are counted. What
 * belongs to a link leaves in bounded steps once it has expired; the row itself stays GONE_MS more, to say so.
 */
import type { DatabaseSync } from 'node:sqlite';
import type { ClickFlag } from '../../domain/links.ts';
import { STATE } from '../../domain/status.ts';
import {
  CLICK_SPECS,
  CLICKS_KEPT,
  type ClickCounts,
  type Clicked,
  type ClickFigures,
  type ClickIn,
  type ClickScope,
  type LinkRow,
  type Story,
} from '../contract.ts';
import { EVENT_CLICK } from '../hooks.ts';
import { ANY_LINK, clickFigures, GONE_MS, type LinkColumns, type NewLink, toLink } from '../links.ts';
import type { Events } from './events.ts';
import { prepare, type Tx } from './tx.ts';

/** Numbers whose rows one step of retention takes away. */
const PURGE = 250;
/** Between two walks. */
const WALK_MS = 60_000;

const LINK = `l.first, l."end" AS "end", l.spec, l.account, l.bulk, l.bulk_id, l.entity, l.application, l.callback, l.urls, l.clicks,
  l.url, l.keep, l.expires_at`;

export type Links = ReturnType<typeof createLinks>;

/** The verbs that write. */
export function createLinks(tx: Tx, events: Pick<Events, 'add' | 'endpoint' | 'standard' | 'handOn'>) {
  const db = tx.db;
  const q = {
    add: prepare(
      db,
      `INSERT INTO link (first, "end", spec, account, bulk, bulk_id, campaign, entity, application, callback, urls, clicks, url,
         keep, expires_at, purged, gone) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`,
    ),
    link: prepare<LinkColumns>(db, `SELECT ${LINK} FROM link l WHERE first <= ? ORDER BY first DESC LIMIT 1`),
    tally: prepare<{ total: number }>(
      db,
      `INSERT INTO clicked (message, link, total, flagged) VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT (message, link) DO UPDATE SET total = total + ?3, flagged = flagged + ?4 RETURNING total`,
    ),
    count: prepare(
      db,
      `INSERT INTO click_sum (first, link, total, once, flagged) VALUES (?1, ?2, ?3, ?4, ?5)
       ON CONFLICT (first, link) DO UPDATE SET total = total + ?3, once = once + ?4, flagged = flagged + ?5`,
    ),
    kept: prepare<{ n: number }>(
      db,
      `SELECT total + flagged AS n FROM clicked WHERE message = ? AND link = ${ANY_LINK}`,
    ),
    click: prepare(db, 'INSERT INTO click (message, link, at, flag, device) VALUES (?, ?, ?, ?, ?)'),

    stay: prepare(
      db,
      `INSERT OR IGNORE INTO link_message (no, account, "to", key, done_at)
       SELECT no, account, "to", key, CASE state WHEN ${STATE.delivered} THEN done_at END FROM message WHERE no = ?`,
    ),
    late: prepare(
      db,
      `UPDATE link SET expires_at = max(expires_at, (SELECT coalesce(max(sent_at), 0) + keep FROM message WHERE no = ?2)) WHERE first = ?1`,
    ),
    left: prepare(db, 'UPDATE link SET gone = 1 WHERE first = ?'),
    expired: prepare<{ first: number; end: number; purged: number }>(
      db,
      'SELECT first, "end" AS "end", purged FROM link WHERE gone = 1 AND gone > 0 AND expires_at <= ? ORDER BY expires_at LIMIT 1',
    ),
    purgeMessages: prepare(db, 'DELETE FROM link_message WHERE no >= ? AND no < ?'),
    purgeTallies: prepare(db, 'DELETE FROM clicked WHERE message >= ? AND message < ?'),
    purgeClicks: prepare(db, 'DELETE FROM click WHERE message >= ? AND message < ?'),
    purgeEvents: prepare(db, `DELETE FROM event WHERE message >= ? AND message < ? AND kind = ${EVENT_CLICK}`),
    purged: prepare(db, 'UPDATE link SET purged = ?1, gone = CASE WHEN ?1 >= "end" THEN 2 ELSE 1 END WHERE first = ?2'),
    gone: prepare<{ first: number }>(
      db,
      `SELECT first FROM link WHERE gone = 2 AND gone > 0 AND expires_at <= ? ORDER BY expires_at LIMIT ${PURGE}`,
    ),
    dropSums: prepare(db, 'DELETE FROM click_sum WHERE first = ?'),
    drop: prepare(db, 'DELETE FROM link WHERE first = ?'),
  };
  let pauseUntil = 0;

  return {
    add(link: NewLink): void {
      const { first, end, spec, account, bulk, bulkId, campaign, entity, application, from, tracked } = link;
      const { urls, clicks, url, callbackData, keepMs } = tracked;
      q.add.run(
        first,
        end,
        spec,
        account,
        bulk,
        bulkId,
        campaign,
        entity,
        application,
        callbackData,
        JSON.stringify(urls),
        clicks ? 1 : 0,
        url,
        keepMs,
        Math.max(from, tx.now) + keepMs,
        first,
      );
    },

    click(clicks: ClickIn[]): void {
      const sums = new Map<string, { first: number; link: number } & ClickCounts>();
      for (const { no, link, at, flag, device, body } of clicks) {
        const row = q.link.get(no);
        if (!row || no >= row.end || row.clicks === 0) continue;
        const before = q.kept.get(no)?.n ?? 0;
        const human = flag === null ? 1 : 0;
        for (const place of [link, ANY_LINK]) {
          const { total } = q.tally.get(no, place, human, 1 - human) as { total: number };
          const name = `${row.first} ${place}`;
          const sum = sums.get(name) ?? { first: row.first, link: place, total: 0, unique: 0, flagged: 0 };
          sum.total += human;
          sum.unique += human === 1 && total === 1 ? 1 : 0;
          sum.flagged += 1 - human;
          sums.set(name, sum);
        }
        if (before >= CLICKS_KEPT) continue;
        q.click.run(no, link, at, flag, device);
        if (body === null) continue;
        const endpoint =
          row.url === null
            ? events.standard(row.account, 'click', 'application/json')
            : events.endpoint(row.account, row.url, 'application/json', 'click');
        if (endpoint !== null) events.handOn(endpoint, events.add(no, row.account, EVENT_CLICK, body));
      }
      for (const { first, link, total, unique, flagged } of sums.values())
        q.count.run(first, link, total, unique, flagged);
    },

    /** Before a message leaves: what a click on its links must still know. */
    outlive(no: number): void {
      const row = q.link.get(no);
      if (!row || no >= row.end) return;
      q.stay.run(no);
      q.late.run(row.first, no);
    },

    /** The last message of the spec that begins with this one has left. */
    left: (first: number): unknown => q.left.run(first),

    /** One bounded step: what belongs to expired links leaves. True = more is left. */
    retain(): boolean {
      if (tx.now < pauseUntil) return false;
      const link = q.expired.get(tx.now);
      if (link) {
        const end = Math.min(link.end, link.purged + PURGE);
        for (const kind of [q.purgeMessages, q.purgeTallies, q.purgeClicks, q.purgeEvents]) kind.run(link.purged, end);
        q.purged.run(end, link.first);
        return true;
      }
      const gone = q.gone.all(tx.now - GONE_MS);
      for (const { first } of gone) {
        q.dropSums.run(first);
        q.drop.run(first);
      }
      if (gone.length === PURGE) return true;
      pauseUntil = tx.now + WALK_MS;
      return false;
    },
  };
}

/** The verbs that only read. */
export function createLinkReads(db: DatabaseSync) {
  const q = {
    link: prepare<LinkColumns>(db, `SELECT ${LINK} FROM link l WHERE first <= ? ORDER BY first DESC LIMIT 1`),
    times: prepare<{ state: number; sent_at: number | null }>(db, 'SELECT state, sent_at FROM message WHERE no = ?'),
    message: prepare<Clicked>(
      db,
      `SELECT no, "to" AS "to", key, CASE state WHEN ${STATE.delivered} THEN done_at END AS doneAt FROM message WHERE no = ?`,
    ),
    gone: prepare<Clicked>(db, 'SELECT no, "to" AS "to", key, done_at AS doneAt FROM link_message WHERE no = ?'),
    clicks: prepare<{ at: number; link: number; flag: ClickFlag | null; device: string }>(
      db,
      `SELECT at, link, flag, device FROM click WHERE message = ? ORDER BY no LIMIT ${CLICKS_KEPT}`,
    ),
    key: prepare<{ no: number }>(db, 'SELECT no FROM message_key WHERE account = ? AND key = ?'),
    keyGone: prepare<{ no: number }>(
      db,
      'SELECT no FROM link_message WHERE account = ? AND key = ? ORDER BY no DESC LIMIT 1',
    ),
    bulkById: prepare<{ no: number }>(db, 'SELECT bulk AS no FROM link WHERE account = ? AND bulk_id = ? LIMIT 1'),
    ofMessage: prepare<{ link: number } & ClickCounts>(
      db,
      'SELECT link, total, min(total, 1) AS "unique", flagged FROM clicked WHERE message = ?',
    ),
    ...scoped('bulk', 'l.account = ? AND l.bulk = ?'),
    ...scoped('campaign', 'l.account = ? AND l.campaign = ?'),
  };

  function scoped<Name extends string>(name: Name, where: string) {
    return {
      [`${name}Sum`]: prepare<ClickCounts & { specs: number }>(
        db,
        `SELECT coalesce(sum(s.total), 0) AS total, coalesce(sum(s.once), 0) AS "unique", coalesce(sum(s.flagged), 0) AS flagged,
           count(*) AS specs
         FROM link l LEFT JOIN click_sum s ON s.first = l.first AND s.link = ${ANY_LINK} WHERE ${where}`,
      ),
      [`${name}Specs`]: prepare<{ first: number; urls: string }>(
        db,
        `SELECT l.first, l.urls FROM link l WHERE ${where} ORDER BY l.first DESC LIMIT ${CLICK_SPECS}`,
      ),
    } as Record<`${Name}Sum`, ReturnType<typeof prepare<ClickCounts & { specs: number }>>> &
      Record<`${Name}Specs`, ReturnType<typeof prepare<{ first: number; urls: string }>>>;
  }
  const sums = prepare<{ link: number } & ClickCounts>(
    db,
    `SELECT link, total, once AS "unique", flagged FROM click_sum WHERE first = ? AND link <> ${ANY_LINK}`,
  );

  /** The row of the spec that has this message. */
  function rowOf(no: number) {
    const row = q.link.get(no);
    return row && no < row.end ? row : null;
  }

  return {
    link(no: number): LinkRow | null {
      const row = rowOf(no);
      return row === null ? null : toLink(row, q.times.get(no));
    },
    clicked: (nos: number[]): Clicked[] => nos.flatMap((no) => q.message.get(no) ?? q.gone.get(no) ?? []),
    /** For the story. */
    clicksOf(no: number): Story['clicks'] {
      const row = rowOf(no);
      if (row === null) return [];
      const urls = JSON.parse(row.urls) as string[];
      return q.clicks.all(no).map(({ at, link, flag, device }) => ({ at, url: urls[link] ?? '', flag, device }));
    },
    clicks(account: number, scope: ClickScope): ClickFigures | null {
      if ('message' in scope) {
        const { message } = scope;
        const no =
          'no' in message
            ? message.no
            : (q.key.get(account, message.key)?.no ?? q.keyGone.get(account, message.key)?.no ?? -1);
        const row = rowOf(no);
        if (row === null || row.account !== account) return null;
        const counts = q.ofMessage.all(no);
        const sum = counts.find(({ link }) => link === ANY_LINK) ?? { total: 0, unique: 0, flagged: 0 };
        return clickFigures(sum, [{ urls: row.urls, counts }], false);
      }
      let values: [number, string | number];
      if ('campaign' in scope) values = [account, scope.campaign];
      else {
        const bulk = 'no' in scope.bulk ? scope.bulk.no : (q.bulkById.get(account, scope.bulk.id)?.no ?? -1);
        values = [account, bulk];
      }
      const [sum, specs] =
        'campaign' in scope
          ? [q.campaignSum.get(...values), q.campaignSpecs.all(...values)]
          : [q.bulkSum.get(...values), q.bulkSpecs.all(...values)];
      if (!sum || sum.specs === 0) return null;
      return clickFigures(
        sum,
        specs.map(({ first, urls }) => ({ urls, counts: sums.all(first) })),
        sum.specs > specs.length,
      );
    },
  };
}
