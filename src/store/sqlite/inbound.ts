/**
 * Messages from handsets, the numbers that they come to, and opt-outs: what `inbound` stores, who it goes to, what is pulled
 * from the inbox, and what an accept asks before it takes a message for someone who wants none.
 */
import type { DatabaseSync } from 'node:sqlite';
import { type Leg, spanOf } from '../../domain/failover.ts';
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
import { EVENT_INBOUND, INBOX_MS } from '../hooks.ts';
import { answerOf, inboundRow, type NumberRow, OPT_OUT_WORDS, type PairedRow, toOwnNumber } from '../inbound.ts';
import type { Events, Live } from './events.ts';
import type { Lines } from './lines.ts';
import { SMS_SENDER } from './rows.ts';
import { prepare, type Tx } from './tx.ts';

/** Inbox entries fetched at a time. */
const PULLS = 200;
/** Accounts remembered. */
const ACCOUNTS = 10_000;

export type InboundVerbs = ReturnType<typeof createInbound>;

/** The verbs that write, on the transaction that they are given. */
export function createInbound(tx: Tx, lines: Lines, events: Events) {
  const db = tx.db;
  const q = {
    known: prepare<{ no: number }>(db, 'SELECT no FROM inbound WHERE carrier = ? AND ref = ?'),
    number: prepare<NumberRow>(
      db,
      'SELECT number, account, url, entity, application, callback FROM own_number WHERE number = ?',
    ),
    firstAccount: prepare<{ no: number }>(db, 'SELECT no FROM account ORDER BY no LIMIT 1'),
    ref: prepare<{ leader: number; members: number }>(
      db,
      'SELECT leader, members FROM carrier_ref WHERE lane = ? AND ref = ?',
    ),
    member: prepare<{ no: number }>(
      db,
      'SELECT no FROM message WHERE no >= ? AND no < ? AND account = ? ORDER BY "to" = ? DESC, no LIMIT 1',
    ),
    conversation: prepare<{ no: number }>(
      db,
      'SELECT no FROM conversation WHERE account = ? AND sender = ? AND destination = ?',
    ),
    paired: prepare<PairedRow>(
      db,
      'SELECT m.no, m.key, s.body, s.entity, s.application FROM message m JOIN spec s ON s.no = m.spec WHERE m.no = ?',
    ),
    add: prepare(
      db,
      'INSERT INTO inbound (no, account, carrier, ref, at, entity, application, body, paired) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
    ),
    part: prepare(db, 'INSERT INTO inbound_part (inbound, part, hash, content_type) VALUES (?, ?, ?, ?)'),
    box: prepare(db, 'INSERT INTO inbox (account, event, inbound, until) VALUES (?, ?, ?, ?)'),
    boxed: prepare<{
      event: number;
      inbound: number;
      until: number;
      entity: string | null;
      application: string | null;
      body: string;
    }>(
      db,
      `SELECT b.event, b.inbound, b.until, i.entity, i.application, i.body FROM inbox b JOIN inbound i ON i.no = b.inbound
       WHERE b.account = ? AND b.event > ? AND b.until > ? ORDER BY b.event LIMIT ${PULLS}`,
    ),
    unbox: prepare(db, 'DELETE FROM inbox WHERE account = ? AND event = ?'),
    taken: prepare(
      db,
      `INSERT OR REPLACE INTO taken (account, at, event, kind, message, spec, bulk, until) VALUES (?, ?, ?, 1, ?, 0, 0, ?)`,
    ),
    optOut: prepare(
      db,
      'INSERT OR IGNORE INTO optout (account, destination, sender, at, source) VALUES (?, ?, ?, ?, ?)',
    ),
    optIn: prepare(db, 'DELETE FROM optout WHERE account = ? AND destination = ? AND sender = ?'),
    live: prepare<Live>(db, 'SELECT no, account, spec, state, status, error, sent_at, leg FROM message WHERE no = ?'),
    sender: prepare<{ sender: string; sms: string | null }>(
      db,
      `SELECT sender, ${SMS_SENDER} AS sms FROM spec WHERE no = ?`,
    ),
    anyOptOut: prepare<{ one: number }>(db, 'SELECT 1 AS one FROM optout WHERE account = ? LIMIT 1'),
    // Pairs of sender and destination against the list; CROSS JOIN keeps the order of the loops.
    optedOut: prepare<{ at: number; sender: string }>(
      db,
      `SELECT x.key AS at, min(o.sender) AS sender FROM json_each(?2) x CROSS JOIN optout o
       WHERE o.account = ?1 AND o.destination = x.value ->> 1 AND o.sender IN ('', x.value ->> 0) GROUP BY x.key`,
    ),
  };

  // Accounts by whether anybody has opted out of theirs: asked for each message, and nearly always no.
  const withOptOuts = new Map<number, boolean>();

  function anyOptOut(account: number): boolean {
    const known = withOptOuts.get(account);
    if (known !== undefined) return known;
    const any = q.anyOptOut.get(account) !== undefined;
    if (withOptOuts.size >= ACCOUNTS) withOptOuts.clear();
    withOptOuts.set(account, any);
    return any;
  }
  function optOut(account: number, destination: string, sender: string, source: string): boolean {
    withOptOuts.delete(account);
    return q.optOut.run(account, destination, senderKey(sender), tx.now, source) > 0;
  }
  function optIn(account: number, destination: string, sender: string): boolean {
    withOptOuts.delete(account);
    return q.optIn.run(account, destination, senderKey(sender)) > 0;
  }

  /** Of pairs of sender and destination those that want nothing: the status by their place. */
  function unwanted(account: number, pairs: [string, string][]): Map<number, 10 | 14> {
    const found = q.optedOut.all(account, JSON.stringify(pairs));
    return new Map(found.map(({ at, sender }) => [Number(at), optOutStatus(sender)]));
  }

  /** The number of ours that it came to. */
  function ownerOf(message: InboundIn): NumberRow | null {
    for (const to of [...message.to, ...message.cc]) {
      const row = q.number.get(to);
      if (row) return row;
    }
    return null;
  }

  /** The message that it answers: as the carrier says, else the last one that this handset got from this number. */
  function pairedOf(message: InboundIn, account: number, to: string) {
    let no: number | undefined;
    const home = message.answers === null ? null : lines.homeOf(message.carrier);
    if (home !== null) {
      const ref = q.ref.get(home, refOf(message.answers ?? ''));
      const span = ref && spanOf(ref.leader, ref.members);
      if (span) no = q.member.get(span.first, span.end, account, message.from)?.no;
    }
    no ??= q.conversation.get(account, to, message.from)?.no;
    return no === undefined ? null : (q.paired.get(no) ?? null);
  }

  return {
    inbound(message: InboundIn): Inbound {
      const { no, carrier, from } = message;
      const ref = message.id.slice(0, 500);
      const known = q.known.get(carrier, ref);
      if (known) return { kind: 'duplicate', no: known.no };
      const number = ownerOf(message);
      const account = number?.account ?? q.firstAccount.get()?.no ?? 1;
      const to = number?.number ?? message.to[0] ?? '';
      const paired = pairedOf(message, account, to);
      const row = inboundRow(message, { account, to, number, paired, receivedAt: tx.now });
      const body = JSON.stringify(row);
      q.add.run(no, account, carrier, ref, tx.now, row.entity, row.application, body, row.paired?.no ?? null);
      message.parts.forEach(({ hash, contentType }, part) => {
        if (hash !== null) q.part.run(no, part, hash, contentType);
      });
      const event = events.add(no, account, EVENT_INBOUND, '');
      const endpoint =
        number?.url === ''
          ? null
          : number?.url
            ? events.endpoint(account, number.url, 'application/json', 'inbound')
            : events.standard(account, 'inbound');
      if (endpoint === null) q.box.run(account, event, no, tx.now + INBOX_MS);
      else events.handOn(endpoint, event);
      let recorded = false;
      if (message.asks !== null && from !== '' && to !== '') {
        recorded = message.asks === 'stop' ? optOut(account, from, to, 'handset') : optIn(account, from, to);
      }
      return { kind: 'stored', no, account, owned: number !== null, recorded };
    },

    takeInbox(filter: { account: number; limit: number; entity?: string; application?: string }): InboundRow[] {
      const { account, limit, entity, application } = filter;
      const rows: InboundRow[] = [];
      for (let place = 0; rows.length < limit; ) {
        const page = q.boxed.all(account, place, tx.now);
        for (const boxed of page) {
          place = boxed.event;
          if (rows.length >= limit) break;
          if (entity !== undefined && boxed.entity !== entity) continue;
          if (application !== undefined && boxed.application !== application) continue;
          q.unbox.run(account, boxed.event);
          q.taken.run(account, tx.now, boxed.event, boxed.inbound, boxed.until);
          rows.push(JSON.parse(boxed.body) as InboundRow);
        }
        if (page.length < PULLS) break;
      }
      return rows;
    },

    optOutPut: (account: number, list: { sender: string; destination: string }[]): number =>
      list.reduce((count, { sender, destination }) => count + Number(optOut(account, destination, sender, 'list')), 0),
    optOutDelete: (account: number, list: { sender: string; destination: string }[]): number =>
      list.reduce((count, { sender, destination }) => count + Number(optIn(account, destination, sender)), 0),

    /** After a rollback. */
    forget: (): void => withOptOuts.clear(),

    /** Numbers of a request's messages to those who want none, with the status that says so. */
    optedOut(request: Accept): Map<number, number> {
      const found = new Map<number, number>();
      if (!anyOptOut(request.account)) return found;
      const base = request.specs[0]?.first ?? request.first;
      const pairs: [string, string][] = [];
      for (const spec of request.specs) {
        const sender = senderKey(spec.sender);
        for (let no = spec.first; no < spec.end; no++) pairs.push([sender, request.to[no - base] as string]);
      }
      for (const [at, status] of unwanted(request.account, pairs)) found.set(base + at, status);
      return found;
    },

    /**
     * Of messages that are about to be claimed those that are wanted: who has opted out since the acceptance ends as rejected,
     * before it takes a turn. What an earlier attempt may have brought already goes on: to say that it was rejected might be
     * untrue. Of an SMS both its own sender and the message's count.
     */
    screen<Member extends { no: number; to: string }>(
      account: number,
      spec: number,
      members: Member[],
      leg: Leg,
    ): Member[] {
      if (members.length === 0 || !anyOptOut(account)) return members;
      const { sender = '', sms = null } = q.sender.get(spec) ?? {};
      const out = new Map<number, 10 | 14>();
      for (const from of leg === 1 && sms ? [sms, sender] : [sender]) {
        const key = senderKey(from);
        const some = unwanted(
          account,
          members.map(({ to }) => [key, to]),
        );
        for (const [at, status] of some) out.set(at, status);
      }
      if (out.size === 0) return members;
      return members.filter(({ no }, at) => {
        const status = out.get(at);
        const live = status === undefined ? undefined : q.live.get(no);
        return !live || status === undefined || !events.change(live, { kind: 'unwanted', status }, OPT_OUT_WORDS);
      });
    },
  };
}

/** The verbs that only read. */
export function createInboundReads(db: DatabaseSync) {
  const q = {
    part: prepare<{ hash: string; contentType: string }>(
      db,
      'SELECT hash, content_type AS contentType FROM inbound_part WHERE inbound = ? AND part = ?',
    ),
    answers: prepare<{ body: string }>(
      db,
      `SELECT body FROM inbound WHERE paired = ? AND account = ? ORDER BY no LIMIT ${ANSWERS_SHOWN}`,
    ),
    numbers: prepare<NumberRow>(
      db,
      `SELECT number, account, url, entity, application, callback FROM own_number WHERE ?1 IS NULL OR account = ?1 ORDER BY number`,
    ),
    optOuts: prepare<OptOut>(
      db,
      `SELECT sender, destination, at, source FROM optout WHERE account = ?1 AND (destination, sender) > (?2, ?3)
         AND (?4 IS NULL OR destination = ?4) AND (?5 IS NULL OR sender = ?5) ORDER BY destination, sender LIMIT ? + 0`,
    ),
  };
  return {
    part: (no: number, part: number) => q.part.get(no, part) ?? null,
    answersOf: (message: number, account: number): Story['answers'] =>
      q.answers.all(message, account).map(({ body }) => answerOf(body)),
    numbers: (account: number | null): OwnNumber[] => q.numbers.all(account).map(toOwnNumber),
    optOuts(filter: OptOutFilter): OptOut[] {
      const { account, after, destination, sender, limit } = filter;
      const place = after ?? { destination: '', sender: '' };
      return q.optOuts.all(account, place.destination, place.sender, destination ?? null, sender ?? null, limit);
    },
  };
}
