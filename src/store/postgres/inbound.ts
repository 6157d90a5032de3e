/**
 * Messages from handsets, the numbers that they come to, and opt-outs: what `inbound` stores, who it goes to, what is pulled
 * from the inbox, and what an accept asks before it takes a message for someone who wants none.
 */
import type { Leg } from '../../domain/failover.ts';
import { optOutStatus, senderKey } from '../../domain/optout.ts';
import { refOf } from '../../domain/submission.ts';
import {
  type Accept,
  ANSWERS_SHOWN,
  type Inbound,
  type InboundIn,
  type InboundRow,
  type OptOut,
  type OptOutFilter,
  type OwnNumber,
  type Story,
} from '../contract.ts';
import { EVENT_INBOUND, INBOX_MS, kindCode } from '../hooks.ts';
import { answerOf, inboundRow, type NumberRow, OPT_OUT_WORDS, type PairedRow, toOwnNumber } from '../inbound.ts';
import { addEvent, type createEvents, handOn } from './events.ts';
import { smsSender } from './rows.ts';
import { type Ask, byKey, list, plain, sql, type Tx, texts } from './tx.ts';

const NUMBER = 'n.number, n.account, n.url, n.entity, n.application, n.callback';

/** `senderKey` of an expression. */
const asKey = (sender: string): string => `regexp_replace(lower(btrim(${sender})), '^\\+(\\d+)$', '\\1')`;

const SQL = {
  add: sql(`INSERT INTO inbound (no, account, carrier, ref, at, entity, application, body) VALUES ($1, 0, $2, $3, $4, NULL, NULL, '')
    ON CONFLICT (carrier, ref) DO NOTHING RETURNING no`),
  known: sql('SELECT no FROM inbound WHERE carrier = $1 AND ref = $2'),
  fill: sql('UPDATE inbound SET account = $2, entity = $3, application = $4, body = $5, paired = $6 WHERE no = $1'),
  answers: sql(`SELECT body FROM inbound WHERE paired = $1 AND account = $2 ORDER BY no LIMIT ${ANSWERS_SHOWN}`),
  numbers: sql(`SELECT ${NUMBER} FROM own_number n WHERE n.number = ANY($1::text[])`),
  firstAccount: sql('SELECT min(no) AS no FROM account'),
  // carrier_ref is kept under the carrier's home lane.
  member: sql(`SELECT m.no FROM lane l JOIN carrier_ref r ON r.lane = l.no AND r.ref = $2
      JOIN message m ON m.no >= abs(r.leader) AND m.no < abs(r.leader) + r.members AND m.account = $3
    WHERE l.carrier = $1 AND l.shard = 0 ORDER BY m."to" = $4 DESC, m.no LIMIT 1`),
  conversation: sql('SELECT no FROM conversation WHERE account = $1 AND sender = $2 AND destination = $3'),
  paired: sql(
    `SELECT m.no, m.key, s.body, s.entity, s.application FROM message m JOIN spec s ON s.no = m.spec WHERE m.no = $1`,
  ),
  parts: sql(`INSERT INTO inbound_part (inbound, part, hash, content_type) SELECT $1, part, hash, content_type
    FROM unnest($2::integer[], $3::text[], $4::text[]) AS x(part, hash, content_type)`),
  box: sql('INSERT INTO inbox (account, event, inbound, until) VALUES ($1, $2, $3, $4)'),
  standard: sql(`SELECT url FROM endpoint_setting WHERE account = $1 AND kind = $2 AND standard`),
  endpoint: sql(`SELECT e.no FROM endpoint e WHERE e.account = $1 AND md5(e.url) = md5($2) AND e.url = $2
    AND e.content_type = 'application/json' AND e.kind = $3 FOR KEY SHARE`),
  endpointAdd: sql(`INSERT INTO endpoint (account, url, content_type, kind, secret, open, fails, fresh, due_at, seq)
    VALUES ($1, $2, 'application/json', $3, NULL, 0, 0, false, NULL, 0) ON CONFLICT DO NOTHING`),
  take: sql(`WITH picked AS (SELECT b.account, b.event, b.inbound, b.until FROM inbox b JOIN inbound i ON i.no = b.inbound
      WHERE b.account = $1 AND b.until > $2 AND ($3::text IS NULL OR i.entity = $3) AND ($4::text IS NULL OR i.application = $4)
      ORDER BY b.event LIMIT $5 FOR UPDATE OF b SKIP LOCKED),
    gone AS (DELETE FROM inbox b USING picked p WHERE b.account = p.account AND b.event = p.event RETURNING b.event),
    kept AS (INSERT INTO taken (account, at, event, kind, message, spec, bulk, until)
      SELECT p.account, $2, p.event, 1, p.inbound, 0, 0, p.until FROM picked p JOIN gone g ON g.event = p.event
      ON CONFLICT DO NOTHING)
    SELECT i.body FROM picked p JOIN gone g ON g.event = p.event JOIN inbound i ON i.no = p.inbound ORDER BY p.event`),
  part: sql('SELECT hash, content_type AS "contentType" FROM inbound_part WHERE inbound = $1 AND part = $2'),
  numberList: sql(`SELECT ${NUMBER} FROM own_number n WHERE $1::bigint IS NULL OR n.account = $1 ORDER BY n.number`),
  optOuts: sql(`INSERT INTO optout (account, destination, sender, at, source) SELECT $1, destination, sender, $4, $5
    FROM (SELECT DISTINCT destination, sender FROM unnest($2::text[], $3::text[]) AS u(destination, sender)) x
    ORDER BY destination COLLATE "C", sender COLLATE "C" ON CONFLICT DO NOTHING RETURNING sender`),
  optIns: sql(`DELETE FROM optout o USING (SELECT DISTINCT destination, sender
      FROM unnest($2::text[], $3::text[]) AS u(destination, sender)) x
    WHERE o.account = $1 AND o.destination = x.destination AND o.sender = x.sender RETURNING o.sender`),
  optOutList:
    sql(`SELECT sender, destination, at, source FROM optout WHERE account = $1 AND (destination, sender) > ($2, $3)
    AND ($4::text IS NULL OR destination = $4) AND ($5::text IS NULL OR sender = $5)
    ORDER BY destination, sender LIMIT $6`),
  // Pairs of sender and destination against the list. OFFSET 0: see settle.ts, refs.
  optedOut: sql(`SELECT x.no, min(o.sender) AS sender
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS x(account, destination, sender, no)
    CROSS JOIN LATERAL (SELECT r.sender FROM optout r WHERE r.account = x.account AND r.destination = x.destination
      AND r.sender IN ('', x.sender) OFFSET 0) o GROUP BY x.no`),
  anyOptOut: sql('SELECT EXISTS (SELECT 1 FROM optout) AS there'),
  // The same for what is being claimed; senders as senderKey has them. Of an SMS both its own sender and the message's count.
  claimedOut: sql(`SELECT x.no, min(o.sender) AS sender
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::smallint[]) AS x(no, destination, spec, leg)
    CROSS JOIN LATERAL (SELECT r.account, ${asKey('r.sender')} AS sender,
      CASE WHEN x.leg = 1 THEN ${asKey(smsSender('r'))} END AS own FROM spec r WHERE r.no = x.spec OFFSET 0) s
    CROSS JOIN LATERAL (SELECT r.sender FROM optout r WHERE r.account = s.account AND r.destination = x.destination
      AND (r.sender IN ('', s.sender) OR r.sender = s.own) OFFSET 0) o GROUP BY x.no`),
  // What an accept must know of its accounts.
  accounts:
    sql(`SELECT a.account, coalesce((SELECT true FROM optout o WHERE o.account = a.account LIMIT 1), false) AS unwanted, s.url, s.content_type
    FROM unnest($1::bigint[]) AS a(account) LEFT JOIN LATERAL (SELECT r.url, r.content_type FROM endpoint_setting r
      WHERE r.account = a.account AND r.kind = 0 AND r.standard OFFSET 0) s ON true`),
};

/** Takes what a handset sent. */
export async function inbound(tx: Tx, message: InboundIn): Promise<Inbound> {
  const { no, carrier } = message;
  const from = plain(message.from);
  const ref = plain(message.id).slice(0, 500);
  // First, since it decides between two nodes that are told the same; what it becomes is known behind it.
  const added = await tx.query(SQL.add, [no, carrier, ref, tx.now]);
  if (added.length === 0) {
    const [known] = await tx.query<{ no: number }>(SQL.known, [carrier, ref]);
    return { kind: 'duplicate', no: known?.no ?? no };
  }
  const named = [...message.to, ...message.cc].map(plain);
  const numbers = byKey(await tx.query<NumberRow>(SQL.numbers, [texts(named)]), (row) => row.number);
  const number = named.map((to) => numbers.get(to)).find((row) => row !== undefined) ?? null;
  const account = number?.account ?? (await tx.query<{ no: number | null }>(SQL.firstAccount))[0]?.no ?? FIRST_ACCOUNT;
  const to = number?.number ?? named[0] ?? '';
  const paired = await pairedOf(tx, message, account, { from, to });
  const row = inboundRow(message, { account, to, number, paired, receivedAt: tx.now });
  const body = plain(JSON.stringify(row));
  await tx.query(SQL.fill, [no, account, row.entity, row.application, body, row.paired?.no ?? null]);
  const parts = message.parts.map((part, index) => ({ ...part, index })).filter(({ hash }) => hash !== null);
  if (parts.length > 0) {
    await tx.query(SQL.parts, [
      no,
      list(parts.map(({ index }) => index)),
      texts(parts.map(({ hash }) => hash)),
      texts(parts.map(({ contentType }) => contentType)),
    ]);
  }
  const event = await addEvent(tx, no, account, EVENT_INBOUND, '');
  const url =
    number?.url ?? (await tx.query<{ url: string }>(SQL.standard, [account, kindCode('inbound')]))[0]?.url ?? '';
  if (url === '') await tx.query(SQL.box, [account, event, no, tx.now + INBOX_MS]);
  else await handOn(tx, [{ endpoint: await endpointOf(tx, account, url), event }]);
  let recorded = false;
  if (message.asks !== null && from !== '' && to !== '') {
    const one = [account, texts([from]), texts([senderKey(to)])];
    const rows =
      message.asks === 'stop'
        ? await tx.query(SQL.optOuts, [...one, tx.now, 'handset'])
        : await tx.query(SQL.optIns, one);
    recorded = rows.length > 0;
  }
  return { kind: 'stored', no, account, owned: number !== null, recorded };
}

/** Where nobody has a key yet. */
const FIRST_ACCOUNT = 1;

/** The message that it answers: as the carrier says, else the last one that this handset got from this number. */
async function pairedOf(
  tx: Tx,
  message: InboundIn,
  account: number,
  { from, to }: { from: string; to: string },
): Promise<PairedRow | null> {
  const ref = refOf(message.answers ?? '');
  let [found] = ref === '' ? [] : await tx.query<{ no: number }>(SQL.member, [message.carrier, ref, account, from]);
  found ??= (await tx.query<{ no: number }>(SQL.conversation, [account, to, from]))[0];
  if (!found) return null;
  return (await tx.query<PairedRow>(SQL.paired, [found.no]))[0] ?? null;
}

async function endpointOf(tx: Tx, account: number, url: string): Promise<number> {
  const values = [account, plain(url), kindCode('inbound')];
  const look = async () => (await tx.query<{ no: number }>(SQL.endpoint, values))[0]?.no;
  const known = await look();
  if (known !== undefined) return known;
  await tx.query(SQL.endpointAdd, values);
  return (await look()) as number;
}

/** Inbound messages that no webhook is due for, taken; locked rows of another taker are passed by. */
export async function takeInbox(
  tx: Tx,
  filter: { account: number; limit: number; entity?: string; application?: string },
): Promise<InboundRow[]> {
  const { account, limit, entity, application } = filter;
  const of = (text: string | undefined): string | null => (text === undefined ? null : plain(text));
  const values = [account, tx.now, of(entity), of(application), limit];
  return (await tx.query<{ body: string }>(SQL.take, values)).map(({ body }) => JSON.parse(body) as InboundRow);
}

/** One part's bytes by hash. */
export async function inboundPart(
  ask: Ask,
  no: number,
  part: number,
): Promise<{ hash: string; contentType: string } | null> {
  return (await ask.query<{ hash: string; contentType: string }>(SQL.part, [no, part]))[0] ?? null;
}

/** What handsets sent in answer to a message, oldest first. */
export async function answersOf(ask: Ask, message: number, account: number): Promise<Story['answers']> {
  return (await ask.query<{ body: string }>(SQL.answers, [message, account])).map(({ body }) => answerOf(body));
}

/** Numbers by number; `account` leaves out others'. */
export async function numberList(ask: Ask, account: number | undefined): Promise<OwnNumber[]> {
  return (await ask.query<NumberRow>(SQL.numberList, [account ?? null])).map(toOwnNumber);
}

type Pairs = { sender: string; destination: string }[];
const columns = (pairs: Pairs): [string, string] => [
  texts(pairs.map(({ destination }) => destination)),
  texts(pairs.map(({ sender }) => senderKey(sender))),
];

/** How many are new. */
export async function optOutPut(tx: Tx, account: number, pairs: Pairs): Promise<number> {
  return (await tx.query(SQL.optOuts, [account, ...columns(pairs), tx.now, 'list'])).length;
}

/** How many are gone. */
export async function optOutDelete(tx: Tx, account: number, pairs: Pairs): Promise<number> {
  return (await tx.query(SQL.optIns, [account, ...columns(pairs)])).length;
}

/** A page of the list, by destination and sender. */
export function optOutList(ask: Ask, filter: OptOutFilter): Promise<OptOut[]> {
  const { account, after, destination, sender, limit } = filter;
  const of = (text: string | undefined): string | null => (text === undefined ? null : plain(text));
  const values = [account, of(after?.destination) ?? '', of(after?.sender) ?? '', of(destination), of(sender), limit];
  return ask.query<OptOut>(SQL.optOutList, values);
}

/** For how long it is believed that somebody has opted out, or nobody at all. */
const ANYBODY_MS = 1_000;

export type Screen = ReturnType<typeof createScreen>;

/**
 * Who has opted out since a message was accepted: a claim asks before it gives turns, and ends those messages as rejected. What an
 * earlier attempt may have brought already goes on: to say that it was rejected might be untrue. Costs nothing while nobody has
 * opted out, else one statement a claim.
 */
export function createScreen(events: ReturnType<typeof createEvents>) {
  let anybody = { there: true, until: Number.NEGATIVE_INFINITY };
  return {
    /** Of messages that may be claimed those that are not wanted, with the status that says so. */
    async find(
      tx: Tx,
      count: number,
      all: () => readonly { no: number; to: string; spec: number; leg: Leg }[],
    ): Promise<ReadonlyMap<number, 10 | 14>> {
      if (count === 0) return new Map();
      if (tx.now >= anybody.until) {
        const [row] = await tx.query<{ there: boolean }>(SQL.anyOptOut);
        anybody = { there: row?.there ?? false, until: tx.now + ANYBODY_MS };
      }
      if (!anybody.there) return new Map();
      const members = all();
      const rows = await tx.query<{ no: number; sender: string }>(SQL.claimedOut, [
        list(members.map(({ no }) => no)),
        texts(members.map(({ to }) => to)),
        list(members.map(({ spec }) => spec)),
        list(members.map(({ leg }) => leg)),
      ]);
      return new Map(rows.map(({ no, sender }) => [no, optOutStatus(sender)]));
    },
    /** Ends those. */
    async end(tx: Tx, unwanted: ReadonlyMap<number, 10 | 14>): Promise<void> {
      if (unwanted.size === 0) return;
      const changes = events.begin(tx);
      await changes.load(unwanted.keys());
      for (const [no, status] of unwanted) {
        const live = changes.get(no);
        if (live) changes.change(live, { kind: 'unwanted', status }, OPT_OUT_WORDS);
      }
      await changes.flush();
    },
  };
}

/** What an accept must know of its accounts: where reports go that name no URL, and who wants nothing. */
export interface AccountFacts {
  standard: Map<number, { url: string; contentType: string }>;
  /** Statuses of messages to those who want none, by number. */
  optedOut: Map<number, number>;
}

/** One statement for all requests; a second where an account has opt-outs. */
export async function accountFacts(tx: Tx, requests: Accept[]): Promise<AccountFacts> {
  const facts: AccountFacts = { standard: new Map(), optedOut: new Map() };
  type Row = { account: number; unwanted: boolean; url: string | null; content_type: string };
  const unwanted = new Set<number>();
  const accounts = [...new Set(requests.map(({ account }) => account))];
  for (const row of await tx.query<Row>(SQL.accounts, [list(accounts)])) {
    if (row.url !== null) facts.standard.set(row.account, { url: row.url, contentType: row.content_type });
    if (row.unwanted) unwanted.add(row.account);
  }
  const asked = requests
    .filter(({ account }) => unwanted.has(account))
    .flatMap((request) => {
      const { account, specs, to } = request;
      const base = specs[0]?.first ?? request.first;
      return specs.flatMap((spec) => {
        const sender = senderKey(spec.sender);
        return to
          .slice(spec.first - base, spec.end - base)
          .map((destination, at) => ({ account, destination, sender, no: spec.first + at }));
      });
    });
  if (asked.length === 0) return facts;
  const found = await tx.query<{ no: number; sender: string }>(SQL.optedOut, [
    list(asked.map(({ account }) => account)),
    texts(asked.map(({ destination }) => destination)),
    texts(asked.map(({ sender }) => sender)),
    list(asked.map(({ no }) => no)),
  ]);
  for (const { no, sender } of found) facts.optedOut.set(no, optOutStatus(sender));
  return facts;
}
