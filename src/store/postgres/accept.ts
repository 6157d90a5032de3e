/**
 * accept: numbered requests become rows, each wholly or not at all; one statement per kind of row however many requests
 * share the transaction. Conflicts (a used Idempotency-Key, a cancelled bulk, unknown uploads) are found before the first
 * write of their request, so that they are results and leave nothing behind.
 *
 * Against other nodes: a bulk that is joined is locked KEY SHARE, which a claim's lock does not mind but a steering verb
 * waits for; a bulk or an Idempotency-Key that another node makes at the same moment raises Conflict, and the request is
 * run again alone, when it finds the other's row.
 */
import { lanesOfWays, printWays } from '../../domain/failover.ts';
import { refusalError, refusalWords } from '../../domain/numbering.ts';
import { OPT_OUT_ERROR } from '../../domain/optout.ts';
import { reportForm } from '../../domain/report.ts';
import { nextOpening } from '../../domain/schedule.ts';
import { STATE } from '../../domain/status.ts';
import { firstDue, repaced } from '../clock.ts';
import type { Accept, Accepted } from '../contract.ts';
import { OPT_OUT_WORDS } from '../inbound.ts';
import { PLAIN_BULK, printSpeed } from '../steering.ts';
import type { createEvents } from './events.ts';
import { type AccountFacts, accountFacts } from './inbound.ts';
import { LEVEL } from './inside.ts';
import { type LineKey, type Lines, lineKey, type Wake } from './lines.ts';
import { addLinks } from './links.ts';
import { BULK, type BulkColumns, type BulkRow, RunBook, toBulk } from './runs.ts';
import { byKey, Conflict, list, plain, sql, type Tx, texts } from './tx.ts';

/** How long an Idempotency-Key answers with the first answer. */
export const IDEM_MS = 24 * 3_600_000;

const SQL = {
  // OFFSET 0, here and below: see settle.ts, refs.
  idem: sql(`SELECT i.account, i.key, i.hash, i.answer FROM unnest($1::bigint[], $2::text[]) AS x(account, key)
    CROSS JOIN LATERAL (SELECT account, key, hash, answer FROM idem r
      WHERE r.account = x.account AND r.key = x.key AND r.at > $3 OFFSET 0) i`),
  idemPut: sql(`INSERT INTO idem (account, key, hash, at, answer)
    SELECT account, key, hash, $5::bigint, answer FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])
      AS x(account, key, hash, answer) ORDER BY account, key COLLATE "C"
    ON CONFLICT (account, key) DO UPDATE SET hash = excluded.hash, at = excluded.at, answer = excluded.answer
      WHERE idem.at <= $6::bigint RETURNING account`),
  bulks: sql(`SELECT ${BULK} FROM (SELECT f.no FROM unnest($1::bigint[], $2::text[]) AS x(account, id)
      CROSS JOIN LATERAL (SELECT no FROM bulk r WHERE r.account = x.account AND r.id = x.id OFFSET 0) f ORDER BY f.no OFFSET 0) f
    CROSS JOIN LATERAL (SELECT * FROM bulk r WHERE r.no = f.no FOR KEY SHARE) b ORDER BY b.no`),
  // A limit that changes moves the bucket: nobody may claim by the old one meanwhile.
  bulksLock: sql(`SELECT ${BULK} FROM bulk b WHERE b.no = ANY($1::bigint[]) ORDER BY b.no FOR NO KEY UPDATE OF b`),
  // Runs that wait for a turn of the old pace are told by the sweep.
  bulkSpeed: sql('UPDATE bulk SET speed = $2, drain = 0, drain_no = 0 WHERE no = $1'),
  bulkAdd:
    sql(`INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us, limited_at, pauses, speed)
    SELECT no, account, id, $6::bigint, send_at, interval_us, next_us, limited_at, '[]', speed
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::float8[], $7::float8[], $8::bigint[], $9::text[])
      AS x(no, account, id, send_at, interval_us, next_us, limited_at, speed)
    ORDER BY account, id COLLATE "C" ON CONFLICT DO NOTHING RETURNING no`),
  uploads:
    sql(`SELECT u.account, u.id, u.hash, u.content_type, u.name FROM unnest($1::bigint[], $2::text[]) AS x(account, id)
    CROSS JOIN LATERAL (SELECT account, id, hash, content_type, name FROM upload r
      WHERE r.account = x.account AND r.id = x.id AND r.expires_at > $3 OFFSET 0) u`),
  // In one order everywhere, so that two nodes cannot wait for each other.
  keys: sql(`INSERT INTO message_key (account, key, no) SELECT account, key, no
    FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS x(account, key, no) ORDER BY account, key COLLATE "C", no
    ON CONFLICT DO NOTHING RETURNING no`),
  // By its URL alone: see the index's step in schema.ts.
  endpoints: sql(`SELECT e.no, e.account, e.url, e.content_type FROM (SELECT f.no
      FROM unnest($1::bigint[], $2::text[], $3::text[]) AS x(account, url, content_type)
      CROSS JOIN LATERAL (SELECT no FROM endpoint r WHERE r.url = x.url AND r.account + 0 = x.account
        AND r.content_type || '' = x.content_type AND r.kind + 0 = 0 OFFSET 0) f ORDER BY f.no OFFSET 0) f
    CROSS JOIN LATERAL (SELECT no, account, url, content_type FROM endpoint r WHERE r.no = f.no FOR KEY SHARE) e
    ORDER BY e.no`),
  endpointAdd: sql(`INSERT INTO endpoint (account, url, content_type, secret, open, fails, fresh, due_at, seq)
    SELECT account, url, content_type, NULL, 0, 0, false, NULL, 0 FROM unnest($1::bigint[], $2::text[], $3::text[])
      AS x(account, url, content_type) ORDER BY account, url COLLATE "C", content_type COLLATE "C" ON CONFLICT DO NOTHING`),
  specs:
    sql(`INSERT INTO spec (no, account, bulk, first, "end", accepted_at, endpoint, intermediate, sender, campaign, entity,
      application, body, counted)
    SELECT no, account, bulk, first, "end", $13::bigint, endpoint, intermediate, sender, campaign, entity, application, body,
      counted
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[],
      $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $14::boolean[])
      AS x(no, account, bulk, first, "end", endpoint, intermediate, sender, campaign, entity, application, body, counted)`),
  media: sql(`INSERT INTO media (spec, segment, url, content_type, name, hash, tries, due_at)
    SELECT spec, segment, url, content_type, name, hash, 0, due_at
    FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
      AS x(spec, segment, url, content_type, name, hash, due_at)`),
  messages: sql(`INSERT INTO message (no, account, spec, "to", key, state, status, error, sent_at, done_at)
    SELECT no, account, spec, "to", key, state, status, error, NULL, done_at
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::smallint[], $7::smallint[],
      $8::integer[], $9::bigint[]) AS x(no, account, spec, "to", key, state, status, error, done_at)`),
  runs: sql(`INSERT INTO run (no, line, spec, next, "end", members, send_at, days, from_min, to_min, validity, opens_at, look_at,
      limited, moves, media, due_at, seq, ways, needs, early_ms, intermediate)
    SELECT no, line, spec, no, "end", members, send_at, days, from_min, to_min, validity, opens_at, opens_at + validity, limited, moves,
      media, due_at, seq, ways, CASE WHEN tracked OR ways IS NOT NULL THEN ${LEVEL} ELSE 0 END, early_ms, intermediate
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::integer[], $6::bigint[], $7::integer[],
      $8::integer[], $9::integer[], $10::bigint[], $11::bigint[], $12::boolean[], $13::boolean[], $14::bigint[],
      $15::bigint[], $16::integer[], $17::text[], $18::boolean[], $19::bigint[], $20::boolean[])
      AS x(no, line, spec, "end", members, send_at, days, from_min, to_min, validity, opens_at, limited, media, due_at, seq,
        moves, ways, tracked, early_ms, intermediate)`),
};

/** A bulk that this group makes. */
interface NewBulk extends BulkRow {
  account: number;
}

interface UploadRow {
  account: number;
  id: string;
  hash: string;
  content_type: string;
  name: string;
}

/** A request that will be stored. */
interface Going {
  index: number;
  request: Accept;
  bulk: BulkRow | null;
  bulkNo: number;
}

/** Rows of a table as they pile up; `columns` turns them round for unnest. */
function columnsOf<Row>(rows: readonly Row[]) {
  return {
    numbers: (pick: (row: Row) => number | boolean | null): string => list(rows.map(pick)),
    texts: (pick: (row: Row) => string | null): string => texts(rows.map(pick)),
  };
}

/** When a run may leave first. */
function dueOf(tx: Tx, request: Accept, run: Accept['runs'][number], bulk: BulkRow | null): number {
  const opensAt = nextOpening(run.window, Math.max(tx.now, request.sendAt ?? 0));
  return firstDue(run, { opensAt, paced: bulk !== null && bulk.intervalUs > 0, now: tx.now });
}

const pair = (account: number, name: string): string => `${account} ${name}`;

/** Where reports of a spec go: its own URL, else the account's default endpoint. */
function targetOf(
  account: number,
  spec: Accept['specs'][number],
  facts: AccountFacts,
): { url: string; contentType: string } | null {
  const standard = spec.notify ? facts.standard.get(account) : undefined;
  const target = spec.endpoint ?? standard;
  if (!target) return null;
  const mediaType = spec.endpoint ? target.contentType : (spec.contentType ?? target.contentType);
  return { url: target.url, contentType: reportForm(mediaType, spec.older) };
}

export type AcceptGroup = (tx: Tx, requests: Accept[]) => Promise<Accepted[]>;

/** The work of one accept transaction: a result for each request, in order. Throws Conflict after losing a race with another node. */
export function createAccept(
  lines: Lines,
  events: ReturnType<typeof createEvents>,
  generatedBulk: (tx: Tx, account: number, no: number) => Promise<BulkRow | null>,
): AcceptGroup {
  async function replays(tx: Tx, requests: Accept[]): Promise<Map<string, { hash: string; answer: string }>> {
    const asked = requests.filter((request) => request.idem !== null);
    if (asked.length === 0) return new Map();
    const rows = await tx.query<{ account: number; key: string; hash: string; answer: string }>(SQL.idem, [
      list(asked.map((request) => request.account)),
      texts(asked.map((request) => (request.idem as { key: string }).key)),
      tx.now - IDEM_MS,
    ]);
    return byKey(rows, (row) => pair(row.account, row.key));
  }

  async function usedBulks(tx: Tx, requests: Accept[]): Promise<Map<string, BulkRow>> {
    const asked = requests.filter((request) => request.bulkId !== null);
    if (asked.length === 0) return new Map();
    const wanted = byKey(asked, (request) => pair(request.account, request.bulkId as string));
    type Row = BulkColumns & { account: number };
    const rows = await tx.query<Row>(SQL.bulks, [
      list([...wanted.values()].map((request) => request.account)),
      texts([...wanted.values()].map((request) => request.bulkId)),
    ]);
    const found = byKey(rows, (row) => row.no);
    const names = new Set(
      asked
        .filter((request) => request.intervalUs !== null)
        .map((request) => pair(request.account, request.bulkId as string)),
    );
    const pacing = rows.filter((row) => names.has(pair(row.account, row.id as string))).map((row) => row.no);
    if (pacing.length > 0) for (const row of await tx.query<Row>(SQL.bulksLock, [list(pacing)])) found.set(row.no, row);
    const bulks = new Map([...found.values()].map((row) => [pair(row.account, row.id as string), toBulk(row)]));
    for (const { account, bulkId, bulk } of wanted.values()) {
      const name = pair(account, bulkId as string);
      const joined = bulk === undefined || bulks.has(name) ? null : await generatedBulk(tx, account, bulk);
      if (joined) bulks.set(name, joined);
    }
    return bulks;
  }

  async function knownUploads(tx: Tx, requests: Accept[]): Promise<Map<string, UploadRow>> {
    const asked = requests.flatMap(({ account, specs }) =>
      specs.flatMap((spec) => spec.uploads.map(({ id }) => ({ account, id }))),
    );
    if (asked.length === 0) return new Map();
    const wanted = [...byKey(asked, (one) => pair(one.account, one.id)).values()];
    const rows = await tx.query<UploadRow>(SQL.uploads, [
      list(wanted.map((one) => one.account)),
      texts(wanted.map((one) => one.id)),
      tx.now,
    ]);
    return byKey(rows, (row) => pair(row.account, row.id));
  }

  /** Numbers of the endpoints, made on first use; locked (KEY SHARE), so that retention does not drop one that is used again. */
  async function endpointsOf(tx: Tx, requests: Accept[], facts: AccountFacts): Promise<Map<string, number>> {
    const key = (account: number, url: string, type: string): string => `${account} ${type} ${url}`;
    const found = new Map<string, number>();
    const missing = new Map<string, { account: number; url: string; contentType: string }>();
    for (const { account, specs } of requests) {
      for (const spec of specs) {
        const endpoint = targetOf(account, spec, facts);
        if (!endpoint) continue;
        const url = plain(endpoint.url);
        const name = key(account, url, endpoint.contentType);
        missing.set(name, { account, url, contentType: endpoint.contentType });
      }
    }
    if (missing.size === 0) return found;
    const look = async (rows: { account: number; url: string; contentType: string }[]): Promise<void> => {
      type Row = { no: number; account: number; url: string; content_type: string };
      const of = columnsOf(rows);
      const values = [of.numbers((row) => row.account), of.texts((row) => row.url), of.texts((row) => row.contentType)];
      for (const row of await tx.query<Row>(SQL.endpoints, values)) {
        found.set(key(row.account, row.url, row.content_type), row.no);
      }
    };
    await look([...missing.values()]);
    const absent = [...missing].filter(([name]) => !found.has(name)).map(([, row]) => row);
    if (absent.length > 0) {
      const of = columnsOf(absent);
      tx.later(SQL.endpointAdd, [
        of.numbers((row) => row.account),
        of.texts((row) => row.url),
        of.texts((row) => row.contentType),
      ]);
      await look(absent);
    }
    return found;
  }

  return async function accept(tx: Tx, requests: Accept[]): Promise<Accepted[]> {
    const results: Accepted[] = new Array(requests.length);
    // The first question of all: with its answer the clock is known.
    const facts = await accountFacts(tx, requests);
    const stored = await replays(tx, requests);
    const bulks = await usedBulks(tx, requests);
    const uploads = await knownUploads(tx, requests);

    // --- who goes, and into which bulk ---
    const going: Going[] = [];
    /** Idempotency-Keys of this group: a second request with the same key answers as the first will. */
    const inGroup = new Map<string, { hash: string; index: number }>();
    const again: { index: number; first: number }[] = [];
    const bulkAdds: NewBulk[] = [];
    const book = new RunBook(tx);
    const speeds = new Map<number, string | null>();
    requests.forEach((request, index) => {
      const { account, idem } = request;
      if (idem) {
        const key = pair(account, idem.key);
        const row = stored.get(key);
        const sibling = inGroup.get(key);
        const hash = row?.hash ?? sibling?.hash;
        if (hash !== undefined && hash !== idem.hash) {
          results[index] = { kind: 'idempotencyConflict' };
          return;
        }
        if (row) {
          results[index] = { ...(JSON.parse(row.answer) as Extract<Accepted, { kind: 'accepted' }>), kind: 'replayed' };
          return;
        }
        if (sibling) {
          again.push({ index, first: sibling.index });
          return;
        }
      }
      if (request.replayOnly) {
        results[index] = { kind: 'notReplayed' };
        return;
      }
      let bulk = request.bulkId === null ? null : (bulks.get(pair(account, request.bulkId)) ?? null);
      if (bulk?.canceledAt != null) {
        results[index] = { kind: 'bulkCanceled' };
        return;
      }
      const ids = request.specs.flatMap((spec) => spec.uploads.map((upload) => upload.id));
      const missing = [...new Set(ids.filter((id) => !uploads.has(pair(account, id))))];
      if (missing.length > 0) {
        results[index] = { kind: 'unknownUploads', ids: missing };
        return;
      }
      if (bulk) {
        if (request.intervalUs !== null && request.intervalUs !== bulk.intervalUs) {
          const paced = repaced(bulk, request.intervalUs, tx.now);
          // One made by this group is not written yet.
          if (bulkAdds.some((made) => made.no === bulk?.no)) Object.assign(bulk, paced);
          else {
            book.setClock(bulk, paced);
            speeds.set(bulk.no, printSpeed(request.speed));
          }
          bulk.speed = request.speed ?? null;
        }
      } else if (request.bulkId !== null || request.sendAt !== null || request.intervalUs !== null) {
        const intervalUs = request.intervalUs ?? 0;
        const made: NewBulk = {
          ...PLAIN_BULK,
          no: request.first,
          account,
          id: request.bulkId,
          acceptedAt: tx.now,
          intervalUs,
          limitedAt: intervalUs > 0 ? tx.now : null,
          sendAt: request.sendAt,
          speed: request.speed ?? null,
        };
        bulkAdds.push(made);
        bulk = made;
        if (request.bulkId !== null) bulks.set(pair(account, request.bulkId), made);
      }
      if (idem) inGroup.set(pair(account, idem.key), { hash: idem.hash, index });
      going.push({ index, request, bulk, bulkNo: bulk?.no ?? request.first });
    });
    if (going.length > 0) await store(tx, going, { bulkAdds, uploads, results, facts });
    await book.flush();
    for (const [no, speed] of speeds) tx.later(SQL.bulkSpeed, [no, speed]);
    for (const { index, first } of again) {
      results[index] = { ...(results[first] as Extract<Accepted, { kind: 'accepted' }>), kind: 'replayed' };
    }
    return results;
  };

  async function store(
    tx: Tx,
    going: Going[],
    context: {
      bulkAdds: NewBulk[];
      uploads: Map<string, UploadRow>;
      results: Accepted[];
      facts: AccountFacts;
    },
  ): Promise<void> {
    const { bulkAdds, uploads, results, facts } = context;
    if (bulkAdds.length > 0) {
      const of = columnsOf(bulkAdds);
      const made = await tx.query(SQL.bulkAdd, [
        of.numbers((row) => row.no),
        of.numbers((row) => row.account),
        of.texts((row) => row.id),
        of.numbers((row) => row.sendAt),
        of.numbers((row) => row.intervalUs),
        tx.now,
        of.numbers((row) => row.nextUs),
        of.numbers((row) => row.limitedAt),
        of.texts((row) => printSpeed(row.speed)),
      ]);
      if (made.length !== bulkAdds.length) throw new Conflict('a bulkId was used by another node at the same moment');
    }

    // --- the customers' own message ids ---
    const keyOf = new Map<number, string>();
    const asked = going.flatMap(({ request }) =>
      request.keys.map(([no, key]) => ({ account: request.account, key: plain(key), no })),
    );
    const taken = new Set<number>();
    if (asked.length > 0) {
      const of = columnsOf(asked);
      const values = [of.numbers((row) => row.account), of.texts((row) => row.key), of.numbers((row) => row.no)];
      for (const { no } of await tx.query<{ no: number }>(SQL.keys, values)) taken.add(no);
      for (const { no, key } of asked) if (taken.has(no)) keyOf.set(no, key);
    }
    const repeated = new Set(asked.filter(({ no }) => !taken.has(no)).map(({ no }) => no));

    const requests = going.map(({ request }) => request);
    const endpoints = await endpointsOf(tx, requests, facts);
    const wantedLines: LineKey[] = going.flatMap(({ request, bulk }) =>
      request.runs.map((run) => ({
        lane: run.lane,
        account: request.account,
        bulk: bulk?.no ?? 0,
        paused: bulk !== null && bulk.pausedAt !== null,
        ...(request.specs[run.spec - request.first - 1]?.links.length === 0
          ? { due: dueOf(tx, request, run, bulk) }
          : {}),
      })),
    );
    // Where messages may go later: made now, with the bulk's row held, so that steering finds these lines, too.
    for (const { request, bulk } of going) {
      const paused = bulk !== null && bulk.pausedAt !== null;
      for (const run of request.runs) {
        for (const lane of lanesOfWays(run.ways)) {
          wantedLines.push({ lane, account: request.account, bulk: bulk?.no ?? 0, paused });
        }
      }
    }
    const lineNos = await lines.find(tx, wantedLines);

    const changes = events.begin(tx);
    const specRows: {
      no: number;
      account: number;
      bulk: number;
      endpoint: number | null;
      spec: Accept['specs'][number];
      counted: boolean;
    }[] = [];
    const mediaRows: {
      spec: number;
      segment: number;
      url: string | null;
      type: string | null;
      name: string | null;
      hash: string | null;
      due: number | null;
    }[] = [];
    const messageRows: {
      no: number;
      account: number;
      spec: number;
      to: string;
      state: number;
      status: number;
      error: number;
      doneAt: number | null;
    }[] = [];
    const runRows: {
      run: Accept['runs'][number];
      line: number;
      sendAt: number | null;
      opensAt: number;
      limited: boolean;
      moves: number;
      media: boolean;
      due: number | null;
      /** Its texts hold short links, which a version without them would send as they are. */
      tracked: boolean;
      intermediate: boolean;
    }[] = [];
    const wakes: Wake[] = [];
    const tracked: Parameters<typeof addLinks>[1] = [];

    for (const { index, request, bulk, bulkNo } of going) {
      const { account } = request;
      request.specs.forEach(({ first, end, campaign, entity, application, tracked: links }, at) => {
        if (!links) return;
        const of = { spec: request.first + 1 + at, account, bulk: bulkNo, bulkId: bulk?.id ?? null };
        const from = request.sendAt ?? tx.now;
        tracked.push({ ...of, first, end, campaign, entity, application, from, tracked: links });
      });
      const base = request.specs[0]?.first ?? request.first;
      const refused = new Map(request.refused);
      const linked = new Set<number>();
      const optedOut: [number, number][] = [];
      const turnedAway = new Map(request.turnedAway?.map(([no, , error]) => [no, error]));
      for (const [no, status] of request.turnedAway ?? []) facts.optedOut.set(no, status);
      request.specs.forEach((spec, at) => {
        const no = request.first + 1 + at;
        const target = targetOf(account, spec, facts);
        const endpoint = target && (endpoints.get(`${account} ${target.contentType} ${plain(target.url)}`) ?? null);
        const counted = bulk !== null;
        specRows.push({ no, account, bulk: bulkNo, endpoint, spec, counted });
        changes.setWay(no, { endpoint, intermediate: spec.intermediate, bulk: bulkNo, counted, failover: false });
        for (const { segment, id } of spec.uploads) {
          const { content_type: type, name, hash } = uploads.get(pair(account, id)) as UploadRow;
          mediaRows.push({ spec: no, segment, url: null, type, name, hash, due: null });
        }
        if (spec.links.length > 0) linked.add(no);
        // Where no message is left to be sent, nobody fetches.
        let fetch: number | null = null;
        for (let one = spec.first; one < spec.end && fetch === null && spec.links.length > 0; one++) {
          if (!repeated.has(one) && !refused.has(one) && !facts.optedOut.has(one)) fetch = tx.now;
        }
        for (const { segment, url, contentType } of spec.links) {
          mediaRows.push({ spec: no, segment, url, type: contentType, name: null, hash: null, due: fetch });
        }
        if (fetch !== null) tx.hint('media');
        for (let message = spec.first; message < spec.end; message++) {
          if (repeated.has(message)) continue;
          const unwanted = refused.has(message) ? undefined : facts.optedOut.get(message);
          if (unwanted !== undefined) optedOut.push([message, unwanted]);
          const status = unwanted ?? refused.get(message);
          const state = status === undefined ? STATE.pending : STATE.rejected;
          const own = unwanted !== undefined && !turnedAway.has(message) ? OPT_OUT_ERROR : refusalError(status);
          const error = turnedAway.get(message) || own;
          const to = request.to[message - base] as string;
          const doneAt = status === undefined ? null : tx.now;
          messageRows.push({ no: message, account, spec: no, to, state, status: status ?? 26, error, doneAt });
          if (counted) changes.tallies.accepted(bulkNo, state);
          if (status !== undefined) {
            const words = unwanted === undefined || turnedAway.has(message) ? refusalWords(status) : OPT_OUT_WORDS;
            changes.emit({ no: message, account, spec: no }, { state, status, error }, words);
          }
        }
      });
      for (const run of request.runs) {
        const line = lineNos.get(lineKey({ lane: run.lane, account, bulk: bulk?.no ?? 0 })) as number;
        const opensAt = nextOpening(run.window, Math.max(tx.now, request.sendAt ?? 0));
        const media = linked.has(run.spec);
        const limited = bulk !== null && bulk.intervalUs > 0;
        const moves = bulk?.moves ?? 0;
        const spec = request.specs[run.spec - request.first - 1];
        const due = dueOf(tx, request, run, bulk);
        runRows.push({
          run,
          line,
          sendAt: request.sendAt,
          opensAt,
          limited,
          moves,
          media,
          due: media ? null : due,
          tracked: spec?.tracked !== undefined,
          intermediate: spec?.intermediate === true,
        });
        if (!media) wakes.push({ lane: run.lane, line, due });
      }
      const duplicates = request.keys.filter(([no]) => repeated.has(no)).map(([no]) => no);
      const unwanted = optedOut.length > 0 ? { optedOut } : {};
      const name = { first: request.first, bulkId: bulk?.id ?? null, bulk: bulkNo };
      results[index] = { kind: 'accepted', ...name, duplicates, ...unwanted };
    }

    addLinks(tx, tracked);
    const spec = columnsOf(specRows);
    tx.later(SQL.specs, [
      spec.numbers((row) => row.no),
      spec.numbers((row) => row.account),
      spec.numbers((row) => row.bulk),
      spec.numbers((row) => row.spec.first),
      spec.numbers((row) => row.spec.end),
      spec.numbers((row) => row.endpoint),
      spec.numbers((row) => row.spec.intermediate),
      spec.texts((row) => row.spec.sender),
      spec.texts((row) => row.spec.campaign),
      spec.texts((row) => row.spec.entity),
      spec.texts((row) => row.spec.application),
      spec.texts((row) => row.spec.body),
      tx.now,
      spec.numbers((row) => row.counted),
    ]);
    if (mediaRows.length > 0) {
      const of = columnsOf(mediaRows);
      tx.later(SQL.media, [
        of.numbers((row) => row.spec),
        of.numbers((row) => row.segment),
        of.texts((row) => row.url),
        of.texts((row) => row.type),
        of.texts((row) => row.name),
        of.texts((row) => row.hash),
        of.numbers((row) => row.due),
      ]);
    }
    if (messageRows.length > 0) {
      const of = columnsOf(messageRows);
      tx.later(SQL.messages, [
        of.numbers((row) => row.no),
        of.numbers((row) => row.account),
        of.numbers((row) => row.spec),
        of.texts((row) => row.to),
        of.texts((row) => keyOf.get(row.no) ?? null),
        of.numbers((row) => row.state),
        of.numbers((row) => row.status),
        of.numbers((row) => row.error),
        of.numbers((row) => row.doneAt),
      ]);
    }
    if (runRows.length > 0) {
      const of = columnsOf(runRows);
      tx.later(SQL.runs, [
        of.numbers(({ run }) => run.first),
        of.numbers((row) => row.line),
        of.numbers(({ run }) => run.spec),
        of.numbers(({ run }) => run.end),
        of.numbers(({ run }) => (run.group ? run.end - run.first : 0)),
        of.numbers((row) => row.sendAt),
        of.numbers(({ run }) => run.window?.days ?? null),
        of.numbers(({ run }) => run.window?.from ?? null),
        of.numbers(({ run }) => run.window?.to ?? null),
        of.numbers(({ run }) => run.validityMs),
        of.numbers((row) => row.opensAt),
        of.numbers((row) => row.limited),
        of.numbers((row) => row.media),
        of.numbers((row) => row.due),
        of.numbers(() => tx.seq()),
        of.numbers((row) => row.moves),
        of.texts(({ run }) => printWays(run.ways)),
        of.numbers((row) => row.tracked),
        of.numbers(({ run }) => run.earlyMs ?? 0),
        of.numbers((row) => row.intermediate),
      ]);
    }
    await lines.wake(tx, wakes);
    await changes.flush();

    const named = going.filter(({ request }) => request.idem !== null);
    if (named.length > 0) {
      const of = columnsOf(named);
      const put = await tx.query(SQL.idemPut, [
        of.numbers(({ request }) => request.account),
        of.texts(({ request }) => request.idem?.key ?? ''),
        of.texts(({ request }) => request.idem?.hash ?? ''),
        of.texts(({ index }) => JSON.stringify(results[index])),
        tx.now,
        tx.now - IDEM_MS,
      ]);
      if (put.length !== named.length)
        throw new Conflict('an Idempotency-Key was used on another node at the same moment');
    }
  }
}
