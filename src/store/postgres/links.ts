/**
 * Short links and clicks: a row per spec that has links, which outlives the spec; who its messages went to, from when these
 * leave; clicks with their counts.
 *
 * Promises: counts are exact over all nodes; of one message at most CLICKS_KEPT clicks are kept and reported, further ones are
 * counted. Rows are locked in order of their keys, counts of messages before those of specs. What belongs to a link leaves in
 * bounded steps once it has expired; the row itself stays GONE_MS more, to say so.
 */
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
import { EVENT_CLICK, kindCode } from '../hooks.ts';
import { ANY_LINK, clickFigures, GONE_MS, type LinkColumns, type NewLink, toLink } from '../links.ts';
import { handOn } from './events.ts';
import { type Ask, byKey, list, plain, sql, type Tx, texts } from './tx.ts';

/** Numbers whose rows one step of retention takes away. */
const PURGE = 500;
/** Most messages of a spec, so that who sees only an account's links does not go on looking for one. */
const SPEC_MAX = 1_000_000;

const LINK = `first, "end", spec, account, bulk, bulk_id, entity, application, callback, urls, clicks, url, keep, expires_at`;
const of = (table: string): string =>
  LINK.split(', ')
    .map((column) => `${table}.${column}`)
    .join(', ');
const CLICK_KIND = kindCode('click');
const SUMS = `coalesce(sum(s.total), 0)::bigint AS total, coalesce(sum(s.once), 0)::bigint AS "unique",
  coalesce(sum(s.flagged), 0)::bigint AS flagged, count(*)::bigint AS specs`;

const SQL = {
  add: sql(`INSERT INTO link (first, "end", spec, account, bulk, bulk_id, campaign, entity, application, callback, urls, clicks, url, keep,
      expires_at, purged, gone)
    SELECT first, "end", spec, account, bulk, bulk_id, campaign, entity, application, callback, urls, clicks, url, keep, expires_at, first, 0
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[],
      $10::text[], $11::text[], $12::boolean[], $13::text[], $14::bigint[], $15::bigint[])
      AS x(first, "end", spec, account, bulk, bulk_id, campaign, entity, application, callback, urls, clicks, url, keep, expires_at)`),
  // The spec of a message is the last one that begins at or before it.
  rows: sql(`SELECT x.no, ${of('l')} FROM unnest($1::bigint[]) AS x(no)
    CROSS JOIN LATERAL (SELECT ${LINK} FROM link r WHERE r.first <= x.no ORDER BY r.first DESC LIMIT 1) l WHERE x.no < l."end"`),
  tally: sql(`INSERT INTO clicked AS c (message, link, total, flagged)
    SELECT message, link, total, flagged FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[])
      AS x(message, link, total, flagged) ORDER BY message, link
    ON CONFLICT (message, link) DO UPDATE SET total = c.total + excluded.total, flagged = c.flagged + excluded.flagged
    RETURNING message, link, total, flagged`),
  count: sql(`INSERT INTO click_sum AS c (first, link, total, once, flagged)
    SELECT first, link, total, once, flagged FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::bigint[])
      AS x(first, link, total, once, flagged) ORDER BY first, link
    ON CONFLICT (first, link) DO UPDATE SET total = c.total + excluded.total, once = c.once + excluded.once,
      flagged = c.flagged + excluded.flagged`),
  clicks: sql(`INSERT INTO click (message, link, at, flag, device) SELECT message, link, at, flag, device
    FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::text[], $5::text[]) AS x(message, link, at, flag, device)`),
  standards: sql(
    `SELECT account, url FROM endpoint_setting WHERE account = ANY($1::bigint[]) AND kind = ${CLICK_KIND} AND standard`,
  ),
  endpoint: sql(`SELECT e.no FROM endpoint e WHERE e.account = $1 AND md5(e.url) = md5($2) AND e.url = $2
    AND e.content_type = 'application/json' AND e.kind = ${CLICK_KIND} FOR KEY SHARE`),
  endpointAdd: sql(`INSERT INTO endpoint (account, url, content_type, kind, secret, open, fails, fresh, due_at, seq)
    VALUES ($1, $2, 'application/json', ${CLICK_KIND}, NULL, 0, 0, false, NULL, 0) ON CONFLICT DO NOTHING`),
  numbers: sql('SELECT no FROM event_numbers($1::integer) AS no'),
  events: sql(`INSERT INTO event (no, message, account, at, status, error, kind, words)
    SELECT no, message, account, $5::bigint, 0, 0, ${EVENT_CLICK}, words
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS x(no, message, account, words)`),

  stay: sql(`INSERT INTO link_message (no, account, "to", key, done_at)
    SELECT m.no, m.account, m."to", m.key, CASE m.state WHEN ${STATE.delivered} THEN m.done_at END
    FROM unnest($1::bigint[]) AS x(no)
    CROSS JOIN LATERAL (SELECT r."end" FROM link r WHERE r.first <= x.no ORDER BY r.first DESC LIMIT 1) l
    CROSS JOIN LATERAL (SELECT no, account, "to", key, state, done_at FROM message r WHERE r.no = x.no OFFSET 0) m
    WHERE x.no < l."end" ON CONFLICT DO NOTHING`),
  late: sql(`UPDATE link l SET expires_at = greatest(l.expires_at, y.sent + l.keep)
    FROM (SELECT x.first, max(m.sent_at) AS sent FROM unnest($1::bigint[], $2::bigint[]) AS x(first, no)
      CROSS JOIN LATERAL (SELECT sent_at FROM message r WHERE r.no = x.no OFFSET 0) m GROUP BY x.first) y
    WHERE l.first = y.first AND l.first = ANY($1::bigint[]) AND y.sent + l.keep > l.expires_at`),
  left: sql('UPDATE link SET gone = 1 WHERE first = ANY($1::bigint[])'),
  expired: sql(`SELECT first, "end", purged FROM link WHERE gone = 1 AND expires_at <= $1 ORDER BY expires_at LIMIT 1`),
  purgeMessages: sql('DELETE FROM link_message WHERE no >= $1 AND no < $2'),
  purgeTallies: sql('DELETE FROM clicked WHERE message >= $1 AND message < $2'),
  purgeClicks: sql('DELETE FROM click WHERE message >= $1 AND message < $2'),
  purgeEvents: sql(`DELETE FROM event WHERE message >= $1 AND message < $2 AND kind = ${EVENT_CLICK}`),
  purged: sql(
    'UPDATE link SET purged = $2::bigint, gone = CASE WHEN $2::bigint >= "end" THEN 2 ELSE 1 END WHERE first = $1',
  ),
  gone: sql(`SELECT first FROM link WHERE gone = 2 AND expires_at <= $1 ORDER BY expires_at LIMIT ${PURGE}`),
  dropSums: sql('DELETE FROM click_sum WHERE first = ANY($1::bigint[])'),
  drop: sql('DELETE FROM link WHERE first = ANY($1::bigint[])'),

  link: sql(`SELECT ${of('l')}, m.state, m.sent_at
    FROM (SELECT ${LINK} FROM link r WHERE r.first <= $1 AND r.first > $1::bigint - ${SPEC_MAX} ORDER BY r.first DESC LIMIT 1) l
    LEFT JOIN message m ON m.no = $1
    WHERE l."end" > $1`),
  here: sql(`SELECT no, "to", key, CASE state WHEN ${STATE.delivered} THEN done_at END AS "doneAt" FROM message
    WHERE no = ANY($1::bigint[])`),
  away: sql(`SELECT no, "to", key, done_at AS "doneAt" FROM link_message WHERE no = ANY($1::bigint[])`),
  clicksOf: sql(`SELECT at, link, flag, device FROM click WHERE message = $1 ORDER BY no LIMIT ${CLICKS_KEPT}`),
  key: sql('SELECT no FROM message_key WHERE account = $1 AND key = $2'),
  keyAway: sql('SELECT no FROM link_message WHERE account = $1 AND key = $2 ORDER BY no DESC LIMIT 1'),
  bulkById: sql('SELECT bulk AS no FROM link WHERE account = $1 AND bulk_id = $2 LIMIT 1'),
  ofMessage: sql('SELECT link, total, least(total, 1) AS "unique", flagged FROM clicked WHERE message = $1'),
  bulkSum: sql(`SELECT ${SUMS} FROM link l LEFT JOIN click_sum s ON s.first = l.first AND s.link = ${ANY_LINK}
    WHERE l.account = $1 AND l.bulk = $2::bigint`),
  bulkSpecs: sql(
    `SELECT first, urls FROM link WHERE account = $1 AND bulk = $2::bigint ORDER BY first DESC LIMIT ${CLICK_SPECS}`,
  ),
  campaignSum: sql(`SELECT ${SUMS} FROM link l LEFT JOIN click_sum s ON s.first = l.first AND s.link = ${ANY_LINK}
    WHERE l.account = $1 AND l.campaign = $2::text`),
  campaignSpecs: sql(
    `SELECT first, urls FROM link WHERE account = $1 AND campaign = $2::text ORDER BY first DESC LIMIT ${CLICK_SPECS}`,
  ),
  sums: sql(`SELECT first, link, total, once AS "unique", flagged FROM click_sum
    WHERE first = ANY($1::bigint[]) AND link <> ${ANY_LINK}`),
};

/** The links of specs that are being accepted. */
export function addLinks(tx: Tx, links: NewLink[]): void {
  if (links.length === 0) return;
  tx.later(SQL.add, [
    list(links.map((row) => row.first)),
    list(links.map((row) => row.end)),
    list(links.map((row) => row.spec)),
    list(links.map((row) => row.account)),
    list(links.map((row) => row.bulk)),
    texts(links.map((row) => row.bulkId)),
    texts(links.map((row) => row.campaign)),
    texts(links.map((row) => row.entity)),
    texts(links.map((row) => row.application)),
    texts(links.map((row) => row.tracked.callbackData)),
    texts(links.map((row) => JSON.stringify(row.tracked.urls))),
    list(links.map((row) => row.tracked.clicks)),
    texts(links.map((row) => row.tracked.url)),
    list(links.map((row) => row.tracked.keepMs)),
    list(links.map((row) => Math.max(row.from, tx.now) + row.tracked.keepMs)),
  ]);
}

/** Counts clicks, and hands those with a body to the endpoint of their message. */
export async function click(tx: Tx, clicks: ClickIn[]): Promise<void> {
  const nos = [...new Set(clicks.map(({ no }) => no))];
  const rows = byKey(await tx.query<LinkColumns & { no: number }>(SQL.rows, [list(nos)]), (row) => row.no);
  const counted = clicks.filter(({ no }) => rows.get(no)?.clicks);
  if (counted.length === 0) return;

  const tallies = new Map<string, { no: number; link: number; human: number; flagged: number }>();
  for (const { no, link, flag } of counted) {
    for (const place of [link, ANY_LINK]) {
      const name = `${no} ${place}`;
      const tally = tallies.get(name) ?? { no, link: place, human: 0, flagged: 0 };
      if (flag === null) tally.human++;
      else tally.flagged++;
      tallies.set(name, tally);
    }
  }
  const added = [...tallies.values()];
  type Tally = { message: number; link: number; total: number; flagged: number };
  const after = await tx.query<Tally>(SQL.tally, [
    list(added.map((row) => row.no)),
    list(added.map((row) => row.link)),
    list(added.map((row) => row.human)),
    list(added.map((row) => row.flagged)),
  ]);
  const sums = new Map<string, { first: number; link: number } & ClickCounts>();
  /** How many of a message's clicks there were before. */
  const before = new Map<number, number>();
  for (const { message, link, total, flagged } of after) {
    const tally = tallies.get(`${message} ${link}`) as { human: number; flagged: number };
    const { first } = rows.get(message) as LinkColumns;
    const name = `${first} ${link}`;
    const sum = sums.get(name) ?? { first, link, total: 0, unique: 0, flagged: 0 };
    sum.total += tally.human;
    sum.unique += tally.human > 0 && total === tally.human ? 1 : 0;
    sum.flagged += tally.flagged;
    sums.set(name, sum);
    if (link === ANY_LINK) before.set(message, total + flagged - tally.human - tally.flagged);
  }
  const all = [...sums.values()];
  tx.later(SQL.count, [
    list(all.map((row) => row.first)),
    list(all.map((row) => row.link)),
    list(all.map((row) => row.total)),
    list(all.map((row) => row.unique)),
    list(all.map((row) => row.flagged)),
  ]);

  const kept = counted.filter(({ no }) => {
    const place = before.get(no) ?? 0;
    before.set(no, place + 1);
    return place < CLICKS_KEPT;
  });
  if (kept.length === 0) return;
  tx.later(SQL.clicks, [
    list(kept.map((one) => one.no)),
    list(kept.map((one) => one.link)),
    list(kept.map((one) => one.at)),
    texts(kept.map((one) => one.flag)),
    texts(kept.map((one) => one.device)),
  ]);
  await report(tx, kept, rows);
}

async function report(tx: Tx, clicks: ClickIn[], rows: ReadonlyMap<number, LinkColumns>): Promise<void> {
  const told = clicks.flatMap(({ no, body }) =>
    body === null ? [] : [{ no, body, row: rows.get(no) as LinkColumns }],
  );
  const open = [...new Set(told.flatMap(({ row }) => (row.url === null ? [row.account] : [])))];
  const standards =
    open.length === 0
      ? new Map<number, { url: string }>()
      : byKey(await tx.query<{ account: number; url: string }>(SQL.standards, [list(open)]), (row) => row.account);
  const due = told.flatMap((one) => {
    const url = one.row.url ?? standards.get(one.row.account)?.url;
    return url === undefined ? [] : [{ ...one, url, account: one.row.account }];
  });
  if (due.length === 0) return;
  const endpoints = new Map<string, number>();
  // In one order everywhere, so that two nodes cannot wait for each other.
  for (const name of [...new Set(due.map(({ account, url }) => `${account} ${url}`))].sort()) {
    const at = name.indexOf(' ');
    endpoints.set(name, await endpointOf(tx, Number(name.slice(0, at)), name.slice(at + 1)));
  }
  const numbers = (await tx.query<{ no: number }>(SQL.numbers, [due.length])).map((row) => row.no);
  tx.later(SQL.events, [
    list(numbers),
    list(due.map((one) => one.no)),
    list(due.map((one) => one.account)),
    texts(due.map((one) => one.body)),
    tx.now,
  ]);
  const handed = due.map(({ account, url }, n) => ({
    endpoint: endpoints.get(`${account} ${url}`) as number,
    event: numbers[n] as number,
  }));
  await handOn(tx, handed);
}

async function endpointOf(tx: Tx, account: number, url: string): Promise<number> {
  const look = async () => (await tx.query<{ no: number }>(SQL.endpoint, [account, url]))[0]?.no;
  const known = await look();
  if (known !== undefined) return known;
  await tx.query(SQL.endpointAdd, [account, url]);
  return (await look()) as number;
}

/** Before messages leave: what clicks on their links must still know. `firsts`: where the spec of each begins. */
export function outliveMessages(tx: Tx, nos: number[], firsts: number[]): void {
  tx.later(SQL.stay, [list(nos)]);
  tx.later(SQL.late, [list(firsts), list(nos)]);
}

/** The last messages of the specs that begin with these have left. */
export function leaveLinks(tx: Tx, firsts: number[]): void {
  tx.later(SQL.left, [list(firsts)]);
}

/** One bounded step: what belongs to expired links leaves. True = more is left. */
export async function retainLinks(tx: Tx): Promise<boolean> {
  const [link] = await tx.query<{ first: number; end: number; purged: number }>(SQL.expired, [tx.now]);
  if (link) {
    const end = Math.min(link.end, link.purged + PURGE);
    for (const kind of [SQL.purgeMessages, SQL.purgeTallies, SQL.purgeClicks, SQL.purgeEvents]) {
      tx.later(kind, [link.purged, end]);
    }
    tx.later(SQL.purged, [link.first, end]);
    return true;
  }
  const gone = (await tx.query<{ first: number }>(SQL.gone, [tx.now - GONE_MS])).map((row) => row.first);
  if (gone.length === 0) return false;
  tx.later(SQL.dropSums, [list(gone)]);
  tx.later(SQL.drop, [list(gone)]);
  return gone.length === PURGE;
}

type Found = LinkColumns & { state: number | null; sent_at: number | null };

async function rowOf(ask: Ask, no: number): Promise<Found | null> {
  return (await ask.query<Found>(SQL.link, [no]))[0] ?? null;
}

/** The links of the spec that has this message. */
export async function link(ask: Ask, no: number): Promise<LinkRow | null> {
  const row = await rowOf(ask, no);
  if (row === null) return null;
  const { state, sent_at } = row;
  return toLink(row, state === null ? undefined : { state, sent_at });
}

/** Who clicks on these messages' links are about. */
export async function clicked(ask: Ask, nos: number[]): Promise<Clicked[]> {
  const here = await ask.query<Clicked>(SQL.here, [list(nos)]);
  const missing = new Set(nos);
  for (const { no } of here) missing.delete(no);
  return missing.size === 0 ? here : [...here, ...(await ask.query<Clicked>(SQL.away, [list([...missing])]))];
}

/** For the story. */
export async function clicksOf(ask: Ask, no: number): Promise<Story['clicks']> {
  type Row = { at: number; link: number; flag: ClickFlag | null; device: string };
  const rows = await ask.query<Row>(SQL.clicksOf, [no]);
  if (rows.length === 0) return [];
  const urls = JSON.parse((await rowOf(ask, no))?.urls ?? '[]') as string[];
  return rows.map(({ at, link: place, flag, device }) => ({ at, url: urls[place] ?? '', flag, device }));
}

/** The figures of one scope of an account. */
export async function clickCounts(ask: Ask, account: number, scope: ClickScope): Promise<ClickFigures | null> {
  type One = { no: number };
  if ('message' in scope) {
    const { message } = scope;
    const values = 'key' in message ? [account, plain(message.key)] : [];
    const no =
      'no' in message
        ? message.no
        : ((await ask.query<One>(SQL.key, values))[0] ?? (await ask.query<One>(SQL.keyAway, values))[0])?.no;
    const row = no === undefined ? null : await rowOf(ask, no);
    if (row === null || row.account !== account) return null;
    const counts = await ask.query<{ link: number } & ClickCounts>(SQL.ofMessage, [no as number]);
    const sum = counts.find((one) => one.link === ANY_LINK) ?? { total: 0, unique: 0, flagged: 0 };
    return clickFigures(sum, [{ urls: row.urls, counts }], false);
  }
  let values: [number, string | number];
  if ('campaign' in scope) values = [account, plain(scope.campaign)];
  else {
    const { bulk } = scope;
    const no = 'no' in bulk ? bulk.no : (await ask.query<One>(SQL.bulkById, [account, plain(bulk.id)]))[0]?.no;
    values = [account, no ?? -1];
  }
  const [total, each] = 'campaign' in scope ? [SQL.campaignSum, SQL.campaignSpecs] : [SQL.bulkSum, SQL.bulkSpecs];
  const [sum] = await ask.query<ClickCounts & { specs: number }>(total, values);
  if (!sum || sum.specs === 0) return null;
  const specs = await ask.query<{ first: number; urls: string }>(each, values);
  type Sum = { first: number; link: number } & ClickCounts;
  const sums = Map.groupBy(await ask.query<Sum>(SQL.sums, [list(specs.map(({ first }) => first))]), (row) => row.first);
  return clickFigures(
    sum,
    specs.map(({ first, urls }) => ({ urls, counts: sums.get(first) ?? [] })),
    sum.specs > specs.length,
  );
}
