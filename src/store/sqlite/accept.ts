/**
 * accept: a numbered request becomes rows, wholly or not at all. Conflicts (a used Idempotency-Key, a cancelled bulk,
 * unknown uploads) are found before the first write, so that they are results and leave nothing behind.
 */
import { printWays } from '../../domain/failover.ts';
import { refusalError, refusalWords } from '../../domain/numbering.ts';
import { OPT_OUT_ERROR } from '../../domain/optout.ts';
import { reportForm } from '../../domain/report.ts';
import { nextOpening } from '../../domain/schedule.ts';
import { STATE } from '../../domain/status.ts';
import { firstDue, repaced } from '../clock.ts';
import type { Accept, Accepted, RunIn, SpecIn } from '../contract.ts';
import { OPT_OUT_WORDS } from '../inbound.ts';
import { PLAIN_BULK, printSpeed } from '../steering.ts';
import type { Tallies } from './bulk.ts';
import type { Events } from './events.ts';
import type { InboundVerbs } from './inbound.ts';
import type { Lines } from './lines.ts';
import type { Links } from './links.ts';
import type { BulkRow, Runs } from './runs.ts';
import { prepare, type Tx } from './tx.ts';

/** How long an Idempotency-Key answers with the first answer. */
export const IDEM_MS = 24 * 3_600_000;

interface Upload {
  hash: string;
  content_type: string;
  name: string;
}

/** The verb `accept` on the transaction that it is given. `generatedBulk`: that of a request that named none, with a row. */
export function createAccept(
  tx: Tx,
  lines: Lines,
  runs: Runs,
  events: Events,
  tallies: Tallies,
  inbound: Pick<InboundVerbs, 'optedOut'>,
  tracked: Pick<Links, 'add'>,
  generatedBulk: (account: number, no: number) => BulkRow | null,
) {
  const db = tx.db;
  const q = {
    idem: prepare<{ hash: string; at: number; answer: string }>(
      db,
      'SELECT hash, at, answer FROM idem WHERE account = ? AND key = ?',
    ),
    idemPut: prepare(db, 'INSERT OR REPLACE INTO idem (account, key, hash, at, answer) VALUES (?, ?, ?, ?, ?)'),
    bulkAdd: prepare(
      db,
      `INSERT INTO bulk (no, account, id, accepted_at, send_at, interval_us, next_us, limited_at, paused_at, pauses,
         canceled_at, speed) VALUES (?, ?, ?, ?, ?, ?, 0, ?, NULL, '[]', NULL, ?)`,
    ),
    // Runs that wait for a turn of the old pace are told by the sweep.
    bulkSpeed: prepare(db, 'UPDATE bulk SET speed = ?, drain = 0, drain_no = 0 WHERE no = ?'),
    upload: prepare<Upload>(
      db,
      'SELECT hash, content_type, name FROM upload WHERE account = ? AND id = ? AND expires_at > ?',
    ),
    key: prepare(db, 'INSERT OR IGNORE INTO message_key (account, key, no) VALUES (?, ?, ?)'),
    spec: prepare(
      db,
      `INSERT INTO spec (no, account, bulk, first, "end", accepted_at, endpoint, intermediate, sender, campaign, entity,
         application, body, counted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
    media: prepare(
      db,
      'INSERT INTO media (spec, segment, url, content_type, name, hash, tries, due_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?)',
    ),
    message: prepare(
      db,
      `INSERT INTO message (no, account, spec, "to", key, state, status, error, sent_at, done_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)`,
    ),
    run: prepare(
      db,
      `INSERT INTO run (no, line, spec, next, "end", members, send_at, days, from_min, to_min, validity, opens_at, look_at,
         limited, moves, media, due_at, seq, ways, early_ms, intermediate)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    ),
  };

  function replay(request: Accept): Accepted | null {
    if (!request.idem) return null;
    const row = q.idem.get(request.account, request.idem.key);
    if (!row || row.at <= tx.now - IDEM_MS) return null;
    if (row.hash !== request.idem.hash) return { kind: 'idempotencyConflict' };
    return { ...(JSON.parse(row.answer) as Extract<Accepted, { kind: 'replayed' }>), kind: 'replayed' };
  }

  /** A bulk with a row that the request names. */
  function usedBulk({ account, bulkId, bulk }: Accept): BulkRow | null {
    if (bulkId === null) return null;
    return runs.bulk(account, { id: bulkId }) ?? (bulk === undefined ? null : runs.bulk(account, { no: bulk }));
  }

  /** The bulk to join, or null where the request needs none of its own. */
  function bulkOf(request: Accept): BulkRow | null {
    const joined =
      usedBulk(request) ?? (request.bulk === undefined ? null : generatedBulk(request.account, request.bulk));
    if (joined) {
      if (request.intervalUs !== null && request.intervalUs !== joined.intervalUs) {
        runs.setClock(joined, repaced(joined, request.intervalUs, tx.now));
        q.bulkSpeed.run(printSpeed(request.speed), joined.no);
      }
      return joined;
    }
    if (request.bulkId === null && request.sendAt === null && request.intervalUs === null) return null;
    const intervalUs = request.intervalUs ?? 0;
    const limitedAt = intervalUs > 0 ? tx.now : null;
    q.bulkAdd.run(
      request.first,
      request.account,
      request.bulkId,
      tx.now,
      request.sendAt,
      intervalUs,
      limitedAt,
      printSpeed(request.speed),
    );
    const { first: no, bulkId: id, sendAt } = request;
    return { ...PLAIN_BULK, no, id, acceptedAt: tx.now, intervalUs, limitedAt, sendAt, speed: request.speed ?? null };
  }

  function addRun(request: Accept, run: RunIn, bulk: BulkRow | null, links: boolean): void {
    const line = lines.line(run.lane, request.account, bulk?.no ?? null, bulk !== null && bulk.pausedAt !== null);
    const opensAt = nextOpening(run.window, Math.max(tx.now, request.sendAt ?? 0));
    const paced = bulk !== null && bulk.intervalUs > 0;
    const due = links ? null : firstDue(run, { opensAt, paced, now: tx.now });
    q.run.run(
      run.first,
      line,
      run.spec,
      run.first,
      run.end,
      run.group ? run.end - run.first : 0,
      request.sendAt,
      run.window?.days ?? null,
      run.window?.from ?? null,
      run.window?.to ?? null,
      run.validityMs,
      opensAt,
      opensAt + run.validityMs,
      paced ? 1 : 0,
      bulk?.moves ?? 0,
      links ? 1 : 0,
      due,
      tx.seq(),
      printWays(run.ways),
      run.earlyMs ?? 0,
      request.specs[run.spec - request.first - 1]?.intermediate ? 1 : 0,
    );
    if (due !== null) lines.wake(line, run.lane, request.account, due);
  }

  /** Content that was uploaded before, by its id; and the ids that nothing is known under. */
  function uploadsOf({ account, specs }: Accept): { uploads: Map<string, Upload>; missing: string[] } {
    const uploads = new Map<string, Upload>();
    const missing = new Set<string>();
    for (const { id } of specs.flatMap((spec) => spec.uploads)) {
      const row = q.upload.get(account, id, tx.now);
      if (row) uploads.set(id, row);
      else missing.add(id);
    }
    return { uploads, missing: [...missing] };
  }

  /** Takes the customer's own ids. `duplicates`: messages whose id another one had before. */
  function takeKeys({ account, keys: asked }: Accept): { keys: Map<number, string>; duplicates: number[] } {
    const keys = new Map<number, string>();
    const duplicates: number[] = [];
    for (const [no, key] of asked) {
      if (q.key.run(account, key, no) === 0) duplicates.push(no);
      else keys.set(no, key);
    }
    return { keys, duplicates };
  }

  /** Who wants no messages of this sender, by what the store knows and what the door did; but for those that end for another reason. */
  function unwantedOf(request: Accept, duplicates: number[]): Map<number, number> {
    const unwanted = inbound.optedOut(request);
    for (const [no, status] of request.turnedAway ?? []) unwanted.set(no, status);
    for (const no of [...request.refused.map(([one]) => one), ...duplicates]) unwanted.delete(no);
    return unwanted;
  }

  function addSpec(request: Accept, spec: SpecIn, no: number, bulk: BulkRow | null): void {
    const { account } = request;
    const bulkNo = bulk?.no ?? request.first;
    const endpoint = spec.endpoint
      ? events.endpoint(account, spec.endpoint.url, reportForm(spec.endpoint.contentType, spec.older))
      : spec.notify
        ? events.standard(account, 'delivery', spec.contentType, spec.older)
        : null;
    q.spec.run(
      no,
      account,
      bulkNo,
      spec.first,
      spec.end,
      tx.now,
      endpoint,
      spec.intermediate ? 1 : 0,
      spec.sender,
      spec.campaign,
      spec.entity,
      spec.application,
      spec.body,
      bulk === null ? 0 : 1,
    );
    const { sender, body } = spec;
    const intermediate = spec.intermediate ? 1 : 0;
    events.added(no, { account, sender, body, endpoint, intermediate, bulk: bulkNo, counted: bulk === null ? 0 : 1 });
    if (spec.tracked) {
      const { first, end, campaign, entity, application } = spec;
      const of = { spec: no, account, bulk: bulkNo, bulkId: bulk?.id ?? null };
      const from = request.sendAt ?? tx.now;
      tracked.add({ ...of, first, end, campaign, entity, application, from, tracked: spec.tracked });
    }
  }

  /** `wanted`: a message is left to be sent; where none is, nobody fetches. */
  function addMedia(spec: SpecIn, no: number, uploads: Map<string, Upload>, wanted: boolean): void {
    for (const { segment, id } of spec.uploads) {
      const upload = uploads.get(id) as Upload;
      q.media.run(no, segment, null, upload.content_type, upload.name, upload.hash, null);
    }
    const fetchAt = wanted ? tx.now : null;
    for (const link of spec.links) q.media.run(no, link.segment, link.url, link.contentType, null, null, fetchAt);
    if (wanted && spec.links.length > 0) tx.hint('media');
  }

  return function accept(request: Accept): Accepted {
    const replayed = replay(request);
    if (replayed) return replayed;
    if (request.replayOnly) return { kind: 'notReplayed' };
    if (usedBulk(request)?.canceledAt != null) return { kind: 'bulkCanceled' };
    const { uploads, missing } = uploadsOf(request);
    if (missing.length > 0) return { kind: 'unknownUploads', ids: missing };

    const { account } = request;
    const { keys, duplicates } = takeKeys(request);
    const bulk = bulkOf(request);
    const bulkNo = bulk?.no ?? request.first;
    const base = request.specs[0]?.first ?? request.first;
    const refused = new Map(request.refused);
    const repeated = new Set(duplicates);
    const optedOut = unwantedOf(request, duplicates);
    const turnedAway = new Map(request.turnedAway?.map(([no, , error]) => [no, error]));

    function addMessage(no: number, spec: number): void {
      const unwanted = optedOut.get(no);
      const status = unwanted ?? refused.get(no);
      const to = request.to[no - base] as string;
      const state = status === undefined ? STATE.pending : STATE.rejected;
      const own = unwanted !== undefined && !turnedAway.has(no) ? OPT_OUT_ERROR : refusalError(status);
      const error = turnedAway.get(no) || own;
      const doneAt = status === undefined ? null : tx.now;
      q.message.run(no, account, spec, to, keys.get(no) ?? null, state, status ?? 26, error, doneAt);
      if (bulk !== null) tallies.accepted(bulkNo, state);
      if (status === undefined) return;
      const words = unwanted === undefined || turnedAway.has(no) ? refusalWords(status) : OPT_OUT_WORDS;
      events.emit({ no, account, spec }, { state, status, error }, words);
    }

    const linked = new Set<number>();
    request.specs.forEach((spec, index) => {
      const specNo = request.first + 1 + index;
      addSpec(request, spec, specNo, bulk);
      const nos = numbersOf(spec).filter((no) => !repeated.has(no));
      addMedia(
        spec,
        specNo,
        uploads,
        nos.some((no) => !refused.has(no) && !optedOut.has(no)),
      );
      for (const no of nos) addMessage(no, specNo);
      if (spec.links.length > 0) linked.add(specNo);
    });
    for (const run of request.runs) addRun(request, run, bulk, linked.has(run.spec));

    const answer: Accepted = {
      kind: 'accepted',
      first: request.first,
      bulkId: bulk?.id ?? null,
      bulk: bulkNo,
      duplicates,
      ...(optedOut.size > 0 ? { optedOut: [...optedOut] } : {}),
    };
    if (request.idem) q.idemPut.run(account, request.idem.key, request.idem.hash, tx.now, JSON.stringify(answer));
    return answer;
  };
}

const numbersOf = ({ first, end }: SpecIn): number[] => Array.from({ length: end - first }, (_, n) => first + n);
