/**
 * The PostgreSQL store: the contract's verbs over a few connections, each with a purpose (accept, what comes back, claim,
 * webhooks, the rest of the writes, sweep, content, two for reads and three for those of accounts, one that listens), so that a slow query of one kind does
 * not stand in the way of another. Any number of nodes share one database.
 *
 * Promises: what arrives for a kind of verb while its transaction runs is the next transaction; a resolved write is
 * committed with synchronous_commit on. After a restart, a failover or a half-open socket everything reconnects by itself.
 *
 * Fails: `openPostgres` throws one clear line (unreachable, UnsafeServer, SchemaTooNew); a verb rejects with
 * StoreUnavailable while no writable server is there, or when the server refuses (disk full); any other rejection is a bug.
 */
import { randomBytes } from 'node:crypto';
import type { AdminTerms, Deed, NewSession, Take } from '../../domain/accounts.ts';
import type { Channel } from '../../domain/routing.ts';
import type { Clock, Log, Timer } from '../../env.ts';
import {
  type Accept,
  type BulkChange,
  type BulkName,
  type ClickIn,
  type ContentIndex,
  type EndpointPut,
  type Hint,
  type HookKind,
  type InboundIn,
  type Key,
  type MediaOutcome,
  type MessageFilter,
  type OperatorChange,
  type Rearm,
  type ReplayRange,
  type Stats,
  type Store,
  StoreUnavailable,
  type Upload,
  type Variant,
  type WebhookSettle,
} from '../contract.ts';
import { PAUSED_MAX_MS } from '../steering.ts';
import { createAccept, IDEM_MS } from './accept.ts';
import { administer, bumpDirectory, operatorReads, quota, sessionDelete, sessionPut, sessionUse } from './accounts.ts';
import { shownUrl } from './address.ts';
import { isRefusal, sqlState } from './answers.ts';
import type { BackOp } from './back.ts';
import { bulkGet, bulkList, createBulks } from './bulk.ts';
import { anyCallBacks, noteCallBack, takeCallBacks } from './callback.ts';
import { createClaim } from './claim.ts';
import { createClaims } from './claims.ts';
import {
  endpointDelete,
  endpointList,
  endpointPut,
  rearm,
  webhookDeliveries,
  webhookReplay,
  webhookReplayRange,
} from './deliveries.ts';
import { createEvents } from './events.ts';
import { type Found, Heads, HookHeads } from './heads.ts';
import { type PeekedHooks, peekHooks, webhookNext, webhookSettle } from './hooks.ts';
import {
  createScreen,
  inbound,
  inboundPart,
  numberList,
  optOutDelete,
  optOutList,
  optOutPut,
  takeInbox,
} from './inbound.ts';
import { laneLease } from './lanes.ts';
import { createLines } from './lines.ts';
import { createLink, type Link, type Places, STILL_SAFE } from './link.ts';
import { click, clickCounts, clicked, link as linkOf } from './links.ts';
import {
  type ContentOp,
  content,
  contentAt,
  contentOps,
  createMediaSettle,
  mediaNext,
  peekMedia,
  placesLost,
  putUpload,
  putVariant,
  uploadNames,
  variant,
} from './media.ts';
import { createGathered, createQueue } from './queue.ts';
import { feed, keys, logs, stats, story, takeReports } from './read.ts';
import { reroute } from './reroute.ts';
import { createRetain } from './retain.ts';
import { migrate } from './schema.ts';
import { createSettle, PARKED_MS } from './settle.ts';
import { createSought } from './sought.ts';
import { foldTallies } from './tally.ts';
import { type Ask, sql, type Tx } from './tx.ts';
import { raiseWall, type Wall } from './wall.ts';

export interface PostgresOptions {
  /** postgres://user:password@host[:port][,host2[:port2]]/database; of several hosts the one that takes writes is used. */
  url: string;
  /** Finished messages leave after this many ms. */
  retentionMs: number;
  /** At most this many finished messages are kept; default all. */
  retentionMessages?: number;
  /** This node's name, unique among those that run. */
  node: string;
  log: Log;
  clock: Clock;
  /** The schema that holds the tables; default `postcard`. Lower-case letters, digits and `_`. */
  schema?: string;
  /** Tests only: the store's clock, instead of the database's. */
  testNow?: () => number;
  /** For tests: messages of a block of marks (sought.ts), fewer than usual. */
  soughtBlock?: number;
}

/** The store, and what only an engine of many nodes has. */
export interface PostgresStore extends Store, ContentIndex {
  /**
   * A beat of `node` with the lanes it could serve (numbers from `lane`): returns those it holds for `ttlMs` more. Nodes
   * with a fresh beat share the lanes evenly; a lease not renewed in time is free for the next beat of another. No lanes or
   * `ttlMs` 0 = the node leaves. Claims stay correct without it.
   */
  laneLease(node: string, lanes: number[], ttlMs: number): Promise<number[]>;
  /** How the second wall between accounts stands (wall.ts). */
  readonly wall: Wall;
}

/** A verb of the door must answer fast, with 503 if need be. */
const DOOR_PATIENCE_MS = 1_500;
const PATIENCE_MS = 3_000;
/** Rows of one accept transaction, ops of one of the others, bytes of one content transaction. */
const ACCEPT_ROWS = 5_000;
const GROUP_OPS = 512;
const CONTENT_BYTES = 16 * 1024 * 1024;
/** The listening connection is asked this often whether the server is there; the clock's high-water mark moves with it. */
const BEAT_MS = 2_000;
/** Wake-ups for other nodes are sent at most this often. */
const NOTIFY_MS = 20;
const STATS_MS = 1_000;
/** Above the ten minutes that the server gives a step of the schema: of millions of rows a step may need some. */
const SETUP_MS = 620_000;
/** An upgrade that nodes at work were in the way of (a deadlock with one of their transactions, a lock out of time) is tried again. */
const UPGRADE_TRIES = 5;

const SQL = {
  reserve: sql("UPDATE counter SET next = next + $1 WHERE k = 'number' RETURNING next"),
  identity: sql("SELECT k, v FROM meta WHERE k IN ('install', 'idKey')"),
  identityPut: sql(`INSERT INTO meta (k, v) VALUES ('install', $1), ('idKey', $2) ON CONFLICT DO NOTHING`),
  account: sql('INSERT INTO account (no, name) VALUES ($1, $2) ON CONFLICT DO NOTHING'),
  keyDrop: sql('DELETE FROM key WHERE account = $1 AND label = $2 AND hash <> $3'),
  keyPut: sql(`INSERT INTO key (hash, account, label) VALUES ($1, $2, $3)
    ON CONFLICT (hash) DO UPDATE SET account = excluded.account, label = excluded.label`),
  beat: sql(`UPDATE high_water SET at = floor(extract(epoch FROM clock_timestamp()) * 1000)
    WHERE at < extract(epoch FROM clock_timestamp()) * 1000 - 1000`),
  notify: sql('SELECT pg_notify($1, $2)'),
  sweepDue: sql(`SELECT greatest(h.at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
    (SELECT min(lease_until) FROM flight WHERE lease_until >= $4) AS lease,
    (SELECT min(at) FROM deadline WHERE at >= $5) AS deadline, (SELECT min(look_at) FROM run WHERE look_at >= $6) AS look,
    (SELECT no FROM tally WHERE no > $7 ORDER BY no LIMIT 1) AS tally, (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tally_no_seq) AS tallied,
    CASE WHEN $8 THEN least((SELECT min(at) FROM parked) + $1::bigint,
      (SELECT min(until) FROM pull), (SELECT min(at) FROM idem) + $2::bigint, (SELECT min(expires_at) FROM upload)) END AS other,
    least((SELECT min(at) FROM recall), (SELECT min(drain) * 0 FROM bulk WHERE drain IS NOT NULL),
      (SELECT min(paused_at) FROM bulk WHERE paused_at IS NOT NULL AND canceled_at IS NULL) + $3::bigint) AS steer
    FROM high_water h`),
};

/** `as`: the account in whose name it is done; absent = it is the system's or the operator's. */
type WorkOp = { as?: number } & (
  | { verb: 'identity' }
  | { verb: 'lane'; carrier: string; shard: number; onUnknown: string; reports: boolean }
  | { verb: 'putUpload'; upload: Upload }
  | { verb: 'putVariant'; source: string; profile: string; variant: Variant }
  | { verb: 'mediaNext'; limit: number; leaseMs: number }
  | { verb: 'mediaSettle'; job: { spec: number; segment: number }; outcome: MediaOutcome }
  | { verb: 'takeReports'; filter: MessageFilter }
  | { verb: 'rearm'; what: Rearm }
  | { verb: 'endpointPut'; put: EndpointPut }
  | { verb: 'endpointDelete'; account: number; kind: HookKind; url: string }
  | { verb: 'inbound'; message: InboundIn }
  | { verb: 'takeInbox'; filter: { account: number; limit: number; entity?: string; application?: string } }
  | { verb: 'click'; clicks: ClickIn[] }
  | { verb: 'optOutPut' | 'optOutDelete'; account: number; list: { sender: string; destination: string }[] }
  | { verb: 'callBacks'; lane: number; limit: number }
  | { verb: 'calledBack'; leader: number; members: number; words: string }
  | { verb: 'reroute'; from: string; to: string; channel?: Channel | undefined }
  | { verb: 'bulkSteer'; account: number; bulk: BulkName; changes: BulkChange[] }
  | { verb: 'putKey'; key: Key; replace: boolean }
  | { verb: 'administer'; changes: OperatorChange[]; deed: Deed; terms: AdminTerms }
  | { verb: 'sessionPut'; session: NewSession }
  | { verb: 'sessionUse' | 'sessionDelete'; hash: string }
  | { verb: 'quota'; takes: Take[] }
  | { verb: 'laneLease'; node: string; lanes: number[]; ttlMs: number }
);

type HookOp =
  | { verb: 'next'; limit: number; leaseMs: number; seen: PeekedHooks }
  | { verb: 'settle'; settle: WebhookSettle }
  | { verb: 'replay'; account: number; no: number }
  | { verb: 'replayRange'; range: ReplayRange };
type SweepOp = 'steer' | 'flights' | 'runs' | 'deadlines' | 'tallies' | 'sought' | 'rest';

/** Open (and bring up to date) a store. Rejects with one line that says what is wrong. */
export async function openPostgres(options: PostgresOptions): Promise<PostgresStore> {
  const { clock, log, node } = options;
  const schema = options.schema ?? 'postcard';
  if (!/^[a-z_][a-z0-9_]{0,47}$/.test(schema)) throw new Error(`"${schema}" cannot be the name of a schema`);
  const testNow = options.testNow ?? null;
  const instance = randomBytes(6).toString('hex');
  const places: Places = { next: 0, end: 0 };
  const links: Link[] = [];
  let closing = false;

  const open = (purpose: string, writes: boolean): Link => {
    const { url } = options;
    const to = { url, schema, node, purpose, writes, log, clock, testNow, places, onLost: suspect, wall };
    const link = createLink(to);
    links.push(link);
    return link;
  };

  let suspecting = false;
  /** One connection lost its server: the others are asked whether they still have theirs. */
  function suspect(): void {
    if (suspecting || closing) return;
    suspecting = true;
    void Promise.all(links.map((link) => link.probe())).finally(() => {
      suspecting = false;
    });
  }

  const wall = await upgrade();
  const link = {
    accept: open('accept', true),
    back: open('settle', true),
    claim: open('claim', true),
    hooks: open('webhooks', true),
    work: open('work', true),
    sweep: open('sweep', true),
    content: open('content', true),
    listen: open('listen', false),
    reads: [open('read 1', false), open('read 2', false)],
    // A verb of these has its connection from its first statement to its last; opened by who has such verbs.
    own: [1, 2, 3].map((no) => ({ at: open(`read of accounts ${no}`, false), busy: 0 })),
  };

  async function upgrade(): Promise<Wall> {
    const setup = createLink({
      url: options.url,
      schema,
      node,
      purpose: 'setup',
      writes: false,
      log,
      clock,
      testNow,
      places,
      onLost: () => undefined,
      wall: { role: null },
      setupMs: SETUP_MS,
    });
    const migrated = async (): Promise<boolean> => {
      for (let run = 1; ; run++) {
        try {
          return await migrate(setup, schema);
        } catch (error) {
          if (run === UPGRADE_TRIES || !/^(40P01|55P03)$/.test(sqlState(error))) throw error;
          await clock.sleep(run * 200);
        }
      }
    };
    try {
      await setup.connect();
      return await raiseWall(setup, schema, await migrated());
    } catch (error) {
      const name = error instanceof Error ? error.name : '';
      if (name === 'UnsafeServer' || name === 'SchemaTooNew' || name === 'HiddenRows') throw error;
      throw new Error(`${shownUrl(options.url)}: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      await setup.close();
    }
  }

  // ------------------------------------------------------------------------------------------------------------- hints

  const channel = `postcard_${schema}`;
  const listeners: ((hint: Hint) => void)[] = [];
  const tell = (kind: Hint['kind']): void => {
    for (const listener of listeners) listener({ kind });
  };
  let toNotify = new Set<Hint['kind']>();
  let notifyTimer: Timer | null = null;

  /** After a commit: this node at once, the others by a notification of its own (NOTIFY inside would serialize commits). */
  function committed(hints: Hint['kind'][]): void {
    for (const kind of hints) {
      tell(kind);
      toNotify.add(kind);
    }
    if (toNotify.size === 0 || notifyTimer || closing) return;
    notifyTimer = clock.setTimeout(() => {
      notifyTimer = null;
      const kinds = [...toNotify];
      toNotify = new Set();
      // Lost is lost: those who wait for it look again by themselves.
      link.listen.query(SQL.notify, [channel, `${instance} ${kinds.join(',')}`], 0).catch(() => undefined);
    }, NOTIFY_MS);
  }

  const KINDS: Hint['kind'][] = ['lane', 'webhooks', 'media', 'keys'];
  let listenedBefore = false;
  link.listen.onConnect(async (client) => {
    client.on('notification', ({ payload = '' }) => {
      const [from, kinds = ''] = payload.split(' ');
      if (from === instance) return;
      for (const kind of kinds.split(',')) if (KINDS.includes(kind as Hint['kind'])) tell(kind as Hint['kind']);
    });
    await client.query(`LISTEN ${channel}`);
    // What was told while nobody listened is not known.
    if (listenedBefore) for (const kind of KINDS) tell(kind);
    listenedBefore = true;
  });

  let beatTimer: Timer | null = null;
  const beatless = (error: unknown): void => log.debug({ err: error }, 'no beat');
  async function beat(): Promise<void> {
    // The test's clock is not this one: its high water stays where it is.
    if (!testNow) await link.listen.query(SQL.beat, [], 0).catch(beatless);
    const [server] = (await link.listen.query<{ unsafe: string | null }>(STILL_SAFE, [], 0).catch(beatless)) ?? [];
    if (server?.unsafe) {
      log.error(
        { setting: server.unsafe },
        'PostgreSQL was set not to sync: nothing is accepted until that is set right',
      );
      suspect();
    }
    if (!closing) beatTimer = clock.setTimeout(() => void beat(), BEAT_MS);
  }

  // ------------------------------------------------------------------------------------------------------------- verbs

  const lines = createLines(clock);
  const events = createEvents(lines);
  const bulks = createBulks(lines, events);
  const accept = createAccept(lines, events, bulks.generated);
  const settle = createSettle(lines, events);
  const mediaSettle = createMediaSettle(lines);
  const retain = createRetain({
    ms: options.retentionMs,
    most: options.retentionMessages ?? Number.POSITIVE_INFINITY,
  });
  const sought = createSought(options.soughtBlock);
  const one = (): number => 1;
  const base = { clock, committed, patienceMs: PATIENCE_MS, maxWeight: GROUP_OPS, weight: one };

  const accepts = createQueue<Accept>({
    ...base,
    link: link.accept,
    early: true,
    patienceMs: DOOR_PATIENCE_MS,
    maxWeight: ACCEPT_ROWS,
    weight: (request) => request.to.length + 1,
    async work(tx, requests) {
      tx.as([...new Set(requests.map(({ account }) => account))]);
      return accept(tx, requests);
    },
  });
  const backs = createQueue<BackOp>({ ...base, link: link.back, early: true, work: settle.group });
  // With the tests' clock a look takes no time, so each looks at all.
  const monotonic = testNow ? { monotonic: testNow } : clock;
  const heads = new Heads(monotonic);
  const hookHeads = new HookHeads(monotonic);
  const hooks = createQueue<HookOp>({
    ...base,
    link: link.hooks,
    early: true,
    async work(tx, ops) {
      if (ops.some((op) => 'account' in op || 'range' in op)) await tx.begun;
      const settles = ops.flatMap((op) => (op.verb === 'settle' ? [op.settle] : []));
      const settled = settles.length === 0 ? [] : await webhookSettle(tx, settles);
      const results: unknown[] = [];
      for (const op of ops) {
        tx.as('range' in op ? [op.range.account] : 'account' in op ? [op.account] : null);
        if (op.verb === 'settle') results.push(settled.shift());
        else if (op.verb === 'next') results.push(await webhookNext(tx, op.limit, op.leaseMs, op.seen, hookHeads));
        else if (op.verb === 'replay') results.push(await webhookReplay(tx, op.account, op.no));
        else results.push(await webhookReplayRange(tx, op.range));
      }
      return results;
    },
  });
  const contents = createQueue<ContentOp>({
    ...base,
    link: link.content,
    maxWeight: CONTENT_BYTES,
    weight: (op) => (op.verb === 'put' ? op.bytes.byteLength : 0) + 1,
    work: contentOps,
  });
  const reserves = createQueue<number>({
    ...base,
    link: link.work,
    patienceMs: DOOR_PATIENCE_MS,
    async work(tx, counts) {
      const total = counts.reduce((sum, count) => sum + count, 0);
      const [row] = await tx.query<{ next: number }>(SQL.reserve, [total]);
      let next = (row as { next: number }).next - total;
      return counts.map((count) => {
        next += count;
        return next - count;
      });
    },
  });
  const works = createQueue<WorkOp>({
    ...base,
    link: link.work,
    patienceMs: DOOR_PATIENCE_MS,
    async work(tx, ops) {
      const results: unknown[] = [];
      for (const op of ops) {
        tx.as(op.as === undefined ? null : [op.as]);
        results.push(await workOp(tx, op));
      }
      return results;
    },
  });
  const sweeps = createQueue<SweepOp>({
    ...base,
    maxWeight: 1,
    link: link.sweep,
    async work(tx, [step]) {
      if (step === 'steer') return [await bulks.sweep(tx)];
      if (step === 'sought') return [await sought.step(tx)];
      if (step === 'tallies') return [await foldTallies(tx, heads.now.tally)];
      if (step === 'flights') return [await settle.sweepFlights(tx, heads.now.lease)];
      if (step === 'runs') return [await settle.sweepRuns(tx, heads.now.look)];
      if (step === 'deadlines') return [await settle.sweepDeadlines(tx, heads.now.deadline)];
      const parked = await settle.sweepParked(tx);
      return [(await retain.step(tx)) || parked];
    },
  });

  async function workOp(tx: Tx, op: WorkOp): Promise<unknown> {
    switch (op.verb) {
      case 'identity':
        await tx.query(SQL.identityPut, [randomBytes(4).toString('hex'), randomBytes(16).toString('hex')]);
        return identity(tx);
      case 'lane':
        return lines.lane(tx, op.carrier, op.shard, op.onUnknown, op.reports);
      case 'putUpload':
        return putUpload(tx, op.upload);
      case 'putVariant':
        return putVariant(tx, op.source, op.profile, op.variant);
      case 'mediaNext':
        return mediaNext(tx, op.limit, op.leaseMs);
      case 'mediaSettle':
        return mediaSettle(tx, op.job, op.outcome);
      case 'takeReports':
        return takeReports(tx, op.filter);
      case 'rearm':
        return rearm(tx, op.what);
      case 'endpointPut':
        return endpointPut(tx, op.put);
      case 'endpointDelete':
        return endpointDelete(tx, op.account, op.kind, op.url);
      case 'inbound':
        return inbound(tx, op.message);
      case 'takeInbox':
        return takeInbox(tx, op.filter);
      case 'click':
        return click(tx, op.clicks);
      case 'optOutPut':
        return optOutPut(tx, op.account, op.list);
      case 'optOutDelete':
        return optOutDelete(tx, op.account, op.list);
      case 'callBacks':
        return takeCallBacks(tx, op.lane, op.limit);
      case 'calledBack':
        return noteCallBack(tx, events, op);
      case 'reroute':
        return reroute(tx, lines, op.from, op.to, op.channel);
      case 'bulkSteer':
        return bulks.steer(tx, op.account, op.bulk, op.changes);
      case 'putKey': {
        const { hash, account, label } = op.key;
        await bumpDirectory(tx);
        await tx.query(SQL.account, [account, `account ${account}`]);
        if (op.replace) await tx.query(SQL.keyDrop, [account, label, hash]);
        await tx.query(SQL.keyPut, [hash, account, label]);
        tx.hint('keys');
        return undefined;
      }
      case 'administer':
        return administer(tx, op.changes, op.deed, op.terms);
      case 'sessionPut':
        return sessionPut(tx, op.session);
      case 'sessionUse':
        return sessionUse(tx, op.hash);
      case 'sessionDelete':
        return sessionDelete(tx, op.hash);
      case 'quota':
        return quota(tx, op.takes);
      case 'laneLease':
        return laneLease(tx, op.node, op.lanes, op.ttlMs);
    }
  }

  async function identity(ask: Ask): Promise<{ install: string; idKey: string } | null> {
    const rows = await ask.query<{ k: string; v: string }>(SQL.identity);
    const of = (k: string): string | undefined => rows.find((row) => row.k === k)?.v;
    const [install, idKey] = [of('install'), of('idKey')];
    return install !== undefined && idKey !== undefined ? { install, idKey } : null;
  }

  /** Reads and peeks: what the server refuses (a search out of time, no memory) is no bug of the caller. */
  const asker = (chosen: Link): Ask => ({
    async query(statement, values) {
      try {
        return await chosen.query(statement, values, PATIENCE_MS);
      } catch (error) {
        throw refused(error);
      }
    },
  });
  const refused = (error: unknown): unknown =>
    isRefusal(error) ? new StoreUnavailable(`PostgreSQL refuses: ${(error as Error).message}`) : error;
  let turn = 0;
  const reader = (): Ask => {
    turn = (turn + 1) % link.reads.length;
    return asker(link.reads[turn] as Link);
  };
  /** In the name of an account. */
  async function within<Result>(account: number, work: (ask: Ask) => Promise<Result>): Promise<Result> {
    const own = link.own.reduce((best, one) => (one.busy < best.busy ? one : best));
    own.busy++;
    try {
      return await own.at.reads(account, work, PATIENCE_MS);
    } catch (error) {
      throw refused(error);
    } finally {
      own.busy--;
    }
  }
  const nowOf = (now: number): number => (testNow ? testNow() : now);
  const claims = createClaims({
    queue: { ...base, link: link.claim },
    clock,
    lines,
    claim: createClaim(lines, createScreen(events), events.foresee),
    own: asker(link.claim),
    reader,
    nowOf,
  });

  let counted: { at: number; value: Stats } | null = null;
  async function figures(): Promise<Stats> {
    const now = clock.monotonic();
    // Counting is linear in what waits: at most once a second, whoever asks.
    if (testNow || !counted || now - counted.at >= STATS_MS) counted = { at: now, value: await stats(reader()) };
    return counted.value;
  }

  /** A few short transactions, so that none holds its locks for the others' work. */
  async function sweep(): Promise<boolean> {
    type Row = Found & { other: number | null; steer: number | null };
    const due = await heads.look(async ({ lease, deadline, look, tally }, all) => {
      const bounds = [lease, deadline, look, tally, all];
      const values = [PARKED_MS, IDEM_MS, PAUSED_MAX_MS, ...bounds];
      const [row] = await asker(link.sweep).query<Row>(SQL.sweepDue, values);
      if (!row) throw new Error('the store has no clock row');
      return { ...row, now: nowOf(row.now) };
    });
    const { now } = due;
    let more = false;
    if (due.steer !== null && due.steer <= now) more = await sweeps.push<boolean>('steer');
    if (due.lease !== null && due.lease <= now) more = (await sweeps.push<boolean>('flights')) || more;
    const looked = due.look !== null && due.look <= now;
    if (looked) more = (await sweeps.push<boolean>('runs')) || more;
    // What a look has found ends in the same call.
    if (looked || (due.deadline !== null && due.deadline <= now))
      more = (await sweeps.push<boolean>('deadlines')) || more;
    // Parked reports, pull entries, keys and uploads have ends of their own.
    if (due.other !== null && due.other <= now) retain.dueNow();
    if (due.tally !== null) more = (await sweeps.push<boolean>('tallies')) || more;
    if (sought.due(now)) more = (await sweeps.push<boolean>('sought')) || more;
    if (retain.due(now)) more = (await sweeps.push<boolean>('rest')) || more;
    return more;
  }

  const called = createGathered((nos) => anyCallBacks(asker(link.sweep), nos));
  void beat();

  return {
    async identity() {
      return (await identity(reader())) ?? works.push({ verb: 'identity' });
    },
    reserve: (count) => reserves.push(count),
    lane: (carrier, policy, shard = 0) => works.push({ verb: 'lane', carrier, shard, ...policy }),
    accept: (request) => accepts.push(request),
    putContent: (hash, bytes) => contents.push({ verb: 'put', hash, bytes }),
    contentAt: (hash) => contentAt(reader(), hash),
    contentUsed: (hash) => contents.push({ verb: 'used', hash }),
    contentPlaced: (hash, place) => contents.push({ verb: 'placed', hash, place }),
    placesLost: (limit) => placesLost(reader(), limit),
    placesGone: (places) => contents.push({ verb: 'gone', places }),
    putUpload: (upload) => works.push({ verb: 'putUpload', upload, as: upload.account }),
    content: (hash) => content(reader(), hash),
    uploadNames: (account, ids) => within(account, (ask) => uploadNames(ask, account, ids)),
    variant: (source, profile) => variant(reader(), source, profile),
    putVariant: (source, profile, made) => works.push({ verb: 'putVariant', source, profile, variant: made }),
    claim(lane, limit, leaseMs) {
      heads.leased(leaseMs);
      return claims.claim(lane, limit, leaseMs);
    },
    settle: (arg) => backs.push({ verb: 'settle', arg }),
    release: (list, until, elsewhere = false) =>
      backs.push({ verb: 'release', arg: { claims: list, until, elsewhere } }),
    report: (arg) => backs.push({ verb: 'report', arg }),
    sweep,
    async mediaNext(limit, leaseMs) {
      const { now, due } = await peekMedia(asker(link.work));
      const at = nowOf(now);
      if (due === null || due > at) return { now: at, jobs: [], nextDue: due };
      return works.push({ verb: 'mediaNext', limit, leaseMs });
    },
    mediaSettle: (job, outcome) => works.push({ verb: 'mediaSettle', job, outcome }),
    async webhookNext(limit, leaseMs) {
      hookHeads.leased(leaseMs);
      const seen = await peekHooks(asker(link.hooks), hookHeads, nowOf);
      if (seen.idle) return { now: seen.now, webhooks: [], specs: [], nextDue: seen.due };
      return hooks.push({ verb: 'next', limit, leaseMs, seen });
    },
    webhookSettle: (one) => hooks.push({ verb: 'settle', settle: one }),
    takeReports: (filter) => works.push({ verb: 'takeReports', filter, as: filter.account }),
    rearm: (what) => works.push({ verb: 'rearm', what, as: what.account }),
    webhookDeliveries: (filter) => within(filter.account, (ask) => webhookDeliveries(ask, filter)),
    webhookReplay: (account, no) => hooks.push({ verb: 'replay', account, no }),
    webhookReplayRange: (range) => hooks.push({ verb: 'replayRange', range }),
    endpointList: (account) => within(account, (ask) => endpointList(ask, account)),
    endpointPut: (put) => works.push({ verb: 'endpointPut', put, as: put.account }),
    endpointDelete: (account, kind, url) => works.push({ verb: 'endpointDelete', account, kind, url, as: account }),
    inbound: (message) => works.push({ verb: 'inbound', message }),
    takeInbox: (filter) => works.push({ verb: 'takeInbox', filter, as: filter.account }),
    link: (no) => linkOf(reader(), no),
    clicked: (nos) => clicked(reader(), nos),
    click: (clicks) => works.push({ verb: 'click', clicks }),
    clicks: (account, scope) => within(account, (ask) => clickCounts(ask, account, scope)),
    inboundPart: (no, part) => inboundPart(reader(), no, part),
    numberList: (account) =>
      account === undefined ? numberList(reader(), account) : within(account, (ask) => numberList(ask, account)),
    optOutPut: (account, list) => works.push({ verb: 'optOutPut', account, list, as: account }),
    optOutDelete: (account, list) => works.push({ verb: 'optOutDelete', account, list, as: account }),
    optOutList: (filter) => within(filter.account, (ask) => optOutList(ask, filter)),
    logs: (filter) => within(filter.account, (ask) => logs(ask, filter)),
    story: (account, id) => within(account, (ask) => story(ask, account, id)),
    feed: (account, after, limit) => within(account, (ask) => feed(ask, account, after, limit)),
    bulkGet: (account, bulk) => within(account, (ask) => bulkGet(ask, account, bulk, testNow)),
    bulkList: (account, limit, before) => within(account, (ask) => bulkList(ask, account, limit, before, testNow)),
    // Nearly always none: one read, each second, for all lanes.
    callBacks: async (lane, limit) => ((await called(lane)) ? works.push({ verb: 'callBacks', lane, limit }) : []),
    calledBack: (leader, members, words) => works.push({ verb: 'calledBack', leader, members, words }),
    reroute: (from, to, channel) => works.push({ verb: 'reroute', from, to, channel }),
    bulkSteer: (account, bulk, changes) => works.push({ verb: 'bulkSteer', account, bulk, changes, as: account }),
    ...operatorReads(reader),
    administer: (changes, deed, terms = {}) => works.push({ verb: 'administer', changes, deed, terms }),
    sessionPut: (session) => works.push({ verb: 'sessionPut', session }),
    sessionUse: (hash) => works.push({ verb: 'sessionUse', hash }),
    sessionDelete: (hash) => works.push({ verb: 'sessionDelete', hash }),
    quota: (takes) => works.push({ verb: 'quota', takes }),
    keys: () => keys(reader()),
    putKey: (key, replace) => works.push({ verb: 'putKey', key, replace }),
    stats: figures,
    wall,
    laneLease: (name, lanes, ttlMs) => works.push({ verb: 'laneLease', node: name, lanes, ttlMs }),
    onHint: (listener) => void listeners.push(listener),
    async close() {
      closing = true;
      beatTimer?.cancel();
      notifyTimer?.cancel();
      claims.stop();
      const queues = [accepts, backs, claims, hooks, contents, reserves, works, sweeps];
      await Promise.all(queues.map((queue) => queue.drain()));
      await Promise.all(links.map((each) => each.close()));
    },
  };
}
