/**
 * One connection to PostgreSQL with one purpose, that heals by itself. It finds the host that takes writes (a URL may name several,
 * separated by commas), checks that commits are durable there, reconnects with back-off, and gives transactions whose end is always known.
 *
 * Promises: a resolved `transaction` is committed. When the answer to COMMIT is lost, the truth is looked up: every transaction first
 * writes its number into the connection's row of `mark`, so after reconnecting that row, read under its lock, tells whether it happened,
 * also on a standby that took over. A row is given up after MARK_MAX transactions for a new one: each version of a row lies in the way
 * while somebody holds an old snapshot. What surely did not commit is run again once while the caller's patience lasts; nothing is ever
 * applied twice.
 *
 * Statements are pipelined: what `later` was given, and the COMMIT behind it, are on the wire without waiting for answers,
 * and an `early` transaction's first question goes out behind its BEGIN. When one of them fails the server takes none of what follows and
 * answers the COMMIT with a rollback.
 *
 * Fails: StoreUnavailable when there is no writable server within the patience, and (`unknown`) when the truth could not be
 * learnt within RESOLVE_MS; Conflict and DatabaseError of the work itself after the rollback; UnsafeServer from `open`.
 */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import type { Clock, Log } from '../../env.ts';
import { type Hint, StoreUnavailable } from '../contract.ts';
import { hostsOf, shownUrl, waysTo, wrongIn } from './address.ts';
import { isLost, openingError, quoted, Silence, sqlState, TYPES, unsafeSettings } from './answers.ts';
import { Watch } from './silence.ts';
import { cut, gather } from './socket.ts';
import { type Ask, NOT_WITHIN, NOW, type Sql, sql, type Tx, type Value } from './tx.ts';

/**
 * A server must greet, and answer each question of a new connection, within this; twice as long after each connection that
 * failed by silence, up to the last: a machine that is short of time would never get one.
 */
const CONNECT_FIRST_MS = 3_000;
const CONNECT_LAST_MS = 12_000;
/** The server ends a statement that runs longer (also one that waits for a dead peer's lock, after LOCK_MS). */
const STATEMENT_MS = 8_000;
const LOCK_MS = 3_000;
/** A transaction of ours that says nothing for so long is ended by the server: its locks must not outlive its node. */
const IDLE_IN_TRANSACTION_MS = 5_000;
/** No answer at all for so long: the socket is half-open. Above STATEMENT_MS, so that a slow server is not taken for dead. */
const SILENCE_MS = 10_000;
/** A probe is a trivial statement: less patience. */
const PROBE_MS = 4_000;
/** Keepalive probes begin after this much silence on the socket. */
const KEEPALIVE_MS = 10_000;
/**
 * The server's side likewise: by its own defaults the session of a node that lost its power would stay for hours, with its
 * locks where an answer of the server was still under way.
 */
const SERVER_KEEPALIVE =
  'SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 25000';
const BACKOFF_FIRST_MS = 50;
const BACKOFF_LAST_MS = 2_000;
/** How long the truth about a COMMIT without an answer is looked for. */
const RESOLVE_MS = 25_000;
/**
 * Every statement here finds its rows by an index. The planner, which takes a range of numbers for a ninth of the table and
 * knows nothing of a table that was empty a minute ago, would scan it.
 */
export const PLANS = 'SET enable_seqscan = off; SET jit = off';
/** A statement behind one that failed. */
const ABORTED = '25P02';
/** Transactions that write one row of `mark`. */
const MARK_MAX = 128;
/**
 * A session makes its plans anew after so many transactions, then after four times as many and so on, and each REPLAN_MS: those of a
 * fresh database were made for tables that were empty, where the wrong index costs no more than the right one.
 */
const REPLAN_FIRST = 32;
const REPLAN_MS = 60_000;
/** Places and tokens per block of sequence `token`. */
const BLOCK = 1_048_576;
/** Places that a transaction may draw before its BEGIN is answered; with fewer left it waits for that. */
const EARLY_PLACES = 65_536;
/** The setting that holds the accounts in whose name a transaction runs, as an array literal; see wall.ts. */
export const ACCOUNTS = 'postcard.accounts';
/** For this transaction only, so that nothing of it outlives an error or a connection's turn. */
const ENTER = sql(`SELECT set_config('${ACCOUNTS}', $1, true), set_config('role', $2, true),
  ${NOT_WITHIN.map((way) => `set_config('${way}', $3, true)`).join()}`);

/** Prepared, too: as one text with what is below it took as long to be parsed and planned, each time, as a small transaction's work takes. */
const BEGIN: Sql = { name: 'begin', text: 'BEGIN ISOLATION LEVEL READ COMMITTED' };
/** What each transaction writes and asks first: its mark, its clock, a block of places where one is wanted. */
const FIRST =
  sql(`WITH marked AS (INSERT INTO mark (link, no, at) VALUES ($1, $2::bigint, extract(epoch FROM clock_timestamp()) * 1000)
    ON CONFLICT (link) DO UPDATE SET no = excluded.no, at = excluded.at)
  SELECT now, set_config('${NOW}', now::text, true), block FROM (
    SELECT greatest(at, floor(extract(epoch FROM clock_timestamp()) * 1000))::bigint AS now,
      CASE WHEN $3::boolean THEN nextval('token') END AS block FROM high_water OFFSET 0) h`);

/** A list of accounts as the setting holds it. */
const held = (accounts: readonly number[]): string => `{${accounts.map(Number).join(',')}}`;

/** The same statement behind the wall: it has plans of its own, or each change of role would make them anew. */
function within(statement: Sql | string): Sql | string {
  return typeof statement === 'string' ? statement : { name: `${statement.name}a`, text: statement.text };
}

/** Which setting that G1 needs the server has not any more, or null; a reload of its settings changes them under our sessions. */
export const STILL_SAFE =
  "SELECT CASE 'off' WHEN current_setting('fsync') THEN 'fsync' WHEN current_setting('full_page_writes') THEN 'full_page_writes' END AS unsafe";

/** The server's settings would break a promise; the message says which, where and what to do. */
export class UnsafeServer extends Error {
  override readonly name = 'UnsafeServer';
}

export interface LinkOptions {
  url: string;
  schema: string;
  node: string;
  /** What the connection is for; shown in pg_stat_activity and in the log. */
  purpose: string;
  /** It runs transactions (and so needs its row in `mark`). */
  writes: boolean;
  log: Log;
  clock: Clock;
  /** Tests only: the store's clock. */
  testNow: (() => number) | null;
  /** Called when an established connection was lost: others may be dead too. */
  onLost(): void;
  /** Shared by the connections of a store. */
  places: Places;
  /** What an account's transactions run as; null = there is no wall (wall.ts). */
  wall: { role: string | null };
  /** Of who brings the tables up to date: `query` waits so long, and repeats nothing, which may belong to a transaction. */
  setupMs?: number;
}

/** The node's present block of places; transactions draw from it. */
export interface Places {
  next: number;
  end: number;
}

export interface Link {
  /** One statement outside a transaction; repeated once after a lost connection, so only for what may run twice. */
  query<Row>(statement: Sql | string, values?: Value[], patienceMs?: number): Promise<Row[]>;
  /**
   * Reads in the name of an account, behind the wall where there is one: one transaction, and no round trip more than `work` makes.
   * Repeated once after a lost connection.
   */
  reads<Result>(account: number, work: (ask: Ask) => Promise<Result>, patienceMs: number): Promise<Result>;
  /** `early`: `work` begins before the BEGIN is answered (`Tx.early` says whether it has been); one round trip less. */
  transaction<Result>(
    work: (tx: Tx) => Promise<Result>,
    patienceMs: number,
    committed: (hints: Hint['kind'][]) => void,
    early?: boolean,
  ): Promise<Result>;
  /** Connects now, once, or throws what is in the way: for the start, when waiting would hide a mistake. */
  connect(): Promise<void>;
  /** Drops the connection when it does not answer soon, or its server does not sync any more. */
  probe(): Promise<void>;
  /** The connected client, for LISTEN; `onConnect` runs on each new one. */
  onConnect(run: (client: pg.Client) => Promise<void>): void;
  close(): Promise<void>;
}

/** The answer to a COMMIT behind a statement that failed: surely nothing has happened. */
class Aborted extends Error {
  override readonly name = 'Aborted';
}

interface Live {
  client: pg.Client;
  /** To find, and end, this session from another one. */
  pid: number;
  startedAt: string;
  /** Who waits for its answers. */
  watch: Watch;
  plannedAt: number;
  /** Transactions so far, and at how many of them plans are made anew. */
  runs: number;
  replanAt: number;
  dead: boolean;
}

/** One healing connection; it connects when it is first used. `options` name its purpose and its server. */
export function createLink(options: LinkOptions): Link {
  const { clock, log, node, purpose, schema } = options;
  const name = `${node}/${purpose}/${randomBytes(6).toString('hex')}`;
  const urls = hostsOf(options.url);
  const listeners: ((client: pg.Client) => Promise<void>)[] = [];
  let live: Live | null = null;
  let connecting: Promise<void> | null = null;
  let waiters: (() => void)[] = [];
  let lastError = 'not connected yet';
  let downSince: number | null = null;
  let closed = false;
  let markNo = 0;
  /** The row of `mark` that transaction `no` writes. */
  const markOf = (no: number): string => `${name}/${Math.floor(no / MARK_MAX)}`;
  /** A session that was lost while it may still hold locks: ended by the next connection. */
  let orphan: { pid: number; startedAt: string } | null = null;
  // One user at a time: a transaction owns its connection.
  let tail: Promise<unknown> = Promise.resolve();

  function drop(lost: Live, why: string, mayHoldLocks: boolean): void {
    if (lost.dead) return;
    lost.dead = true;
    lost.watch.stop();
    lastError = why;
    // Still being opened: whoever opens it sees that, and an older session may yet have to be ended.
    if (live !== lost) return;
    live = null;
    orphan = mayHoldLocks ? { pid: lost.pid, startedAt: lost.startedAt } : null;
    downSince ??= clock.monotonic();
    cut(lost.client);
    if (closed) return;
    log.warn({ purpose, why }, 'the connection to PostgreSQL was lost');
    options.onLost();
    connectSoon();
  }

  /** Asks with a limit on silence (silence.ts); the caller drops. By a callback: a promise of the client's would cost two more. */
  function ask<Row>(on: Live, statement: Sql | string, values: Value[] | undefined, ms: number): Promise<Row[]> {
    const { name, text } = typeof statement === 'string' ? { name: undefined, text: statement } : statement;
    const query = { text, ...(name === undefined ? {} : { name }), ...(values ? { values } : {}) };
    gather(on.client);
    return on.watch.within<Row[]>(ms, (resolve, reject) => {
      on.client.query(query, (error: Error | null, answer: pg.QueryResult | pg.QueryResult[]) => {
        if (error) return reject(error);
        on.watch.heard();
        // A text of several statements answers once for each; the last one counts.
        const last = Array.isArray(answer) ? answer.at(-1) : answer;
        if (last?.command === 'ROLLBACK' && statement === 'COMMIT') reject(new Aborted('the transaction was aborted'));
        else resolve((last?.rows ?? []) as Row[]);
      });
    });
  }

  /** What `answer` becomes, or Silence when nothing at all was heard of the server for `ms`. */
  function heard<Result>(on: Live, answer: Promise<Result>, ms: number): Promise<Result> {
    return on.watch.within<Result>(ms, (resolve, reject) => void answer.then(resolve, reject));
  }

  async function open(url: string, patienceMs: number): Promise<Live> {
    const client = new pg.Client({
      connectionString: url,
      application_name: `postcard ${node} ${purpose}`,
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEPALIVE_MS,
      statement_timeout: STATEMENT_MS,
      lock_timeout: LOCK_MS,
      idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS,
      types: TYPES,
      pipeline: true,
    });
    const one: Live = {
      client,
      pid: 0,
      startedAt: '',
      watch: new Watch(clock),
      plannedAt: clock.monotonic(),
      runs: 0,
      replanAt: REPLAN_FIRST,
      dead: false,
    };
    client.on('error', (error) => drop(one, error.message, true));
    try {
      await heard(one, client.connect(), patienceMs);
      await check(one, url, patienceMs);
      for (const listener of listeners) await heard(one, listener(client), patienceMs);
      // Lost behind the last answer: a server that shuts down says so in the same piece.
      if (one.dead) throw new Error(lastError);
      return one;
    } catch (error) {
      one.dead = true;
      one.watch.stop();
      cut(client);
      throw openingError(error);
    }
  }

  /** A server is used only where G1 holds on it. */
  async function check(on: Live, url: string, patienceMs: number): Promise<void> {
    const [server] = await ask<{
      version: number;
      fsync: string;
      pages: string;
      commit: string;
      standby: boolean;
      readonly: string;
      pid: number;
      started: string;
    }>(
      on,
      `SELECT current_setting('server_version_num')::integer AS version, current_setting('fsync') AS fsync,
         current_setting('full_page_writes') AS pages, current_setting('synchronous_commit') AS commit,
         pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS readonly,
         pg_backend_pid() AS pid, (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS started`,
      undefined,
      patienceMs,
    );
    if (!server) throw new Error('no answer to the first question');
    on.pid = server.pid;
    on.startedAt = server.started;
    const unsafe = unsafeSettings(server);
    if (unsafe) throw new UnsafeServer(`${shownUrl(url)}: ${unsafe}`);
    // Not as start-up options: those of the URL would replace them.
    const settings = `SET search_path = ${schema}; SET client_min_messages = warning; ${PLANS}; ${SERVER_KEEPALIVE}`;
    // Said also where it is right already: what the session has only from the server's settings changes with these.
    const wanted = ['off', 'local'].includes(server.commit) ? 'on' : server.commit;
    const raise = `${settings}; SET synchronous_commit = ${wanted}; SELECT current_setting('synchronous_commit') AS commit`;
    const [set] = await ask<{ commit: string }>(on, raise, undefined, patienceMs);
    if (set?.commit !== wanted)
      throw new UnsafeServer(`${shownUrl(url)}: synchronous_commit cannot be set to ${wanted}`);
    // Reads join what a filter names, so their plans are made for its values, each time.
    const plans = options.writes ? 'force_generic_plan' : 'force_custom_plan';
    await ask(on, `SET plan_cache_mode = ${plans}`, undefined, patienceMs);
    if (orphan) {
      // Same start instant: another session that got the same process id since is left alone.
      await ask(
        on,
        'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2',
        [orphan.pid, orphan.startedAt],
        patienceMs,
      );
      orphan = null;
    }
  }

  function connectSoon(): void {
    if (connecting || closed || live) return;
    connecting = connectLoop().finally(() => {
      connecting = null;
    });
  }

  async function connectLoop(): Promise<void> {
    let patience = CONNECT_FIRST_MS;
    for (let wait = BACKOFF_FIRST_MS; !closed && !live; wait = Math.min(wait * 2, BACKOFF_LAST_MS)) {
      try {
        const one = await openAny(patience);
        if (closed) {
          void one.client.end();
          one.watch.stop();
          return;
        }
        if (downSince !== null && lastError !== 'not connected yet') {
          const tookMs = Math.round(clock.monotonic() - downSince);
          log.info({ purpose, tookMs }, 'connected to PostgreSQL again');
        }
        live = one;
        downSince = null;
        const ready = waiters;
        waiters = [];
        for (const wake of ready) wake();
      } catch (error) {
        lastError = error instanceof Error ? error.message : String(error);
        if (error instanceof Silence) patience = Math.min(patience * 2, CONNECT_LAST_MS);
        downSince ??= clock.monotonic();
        await clock.sleep(wait);
      }
    }
  }

  /** The first host that takes writes; the error of the last one tried. */
  async function openAny(patienceMs: number): Promise<Live> {
    let failure: unknown = new Error('no host in the URL');
    for (const url of urls.flatMap(waysTo)) {
      try {
        const wrong = wrongIn(url);
        if (wrong !== null) throw new Error(wrong);
        return await open(url, patienceMs);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /** A connection within the patience. When it has been away for longer already, refused at once: no pile-up. */
  async function ensure(patienceMs: number): Promise<Live> {
    if (closed) throw new StoreUnavailable('the store is closed');
    if (live) return live;
    const away = downSince === null ? 0 : clock.monotonic() - downSince;
    connectSoon();
    if (away < patienceMs) {
      await new Promise<void>((resolve) => {
        const timer = clock.setTimeout(resolve, patienceMs - away);
        waiters.push(() => {
          timer.cancel();
          resolve();
        });
      });
    }
    if (live) return live;
    if (closed) throw new StoreUnavailable('the store is closed');
    throw new StoreUnavailable(`PostgreSQL cannot be reached: ${lastError}`);
  }

  function alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const run = tail.then(work, work);
    tail = run.catch(() => undefined);
    return run;
  }

  /** True = transaction `mark` has committed. */
  async function resolve(mark: number): Promise<boolean> {
    const began = clock.monotonic();
    // Its lock may still be held by the lost session: waiting for it is waiting for its end. That session is not ended
    // from here, since it may be waiting for a synchronous standby.
    orphan = null;
    for (;;) {
      const left = RESOLVE_MS - (clock.monotonic() - began);
      if (left <= 0 || closed) {
        log.error({ purpose }, 'whether a transaction has committed could not be learnt');
        throw new StoreUnavailable('the connection was lost during the commit and did not come back in time', true);
      }
      try {
        downSince = null; // the patience of this wait is its own
        const on = await ensure(left);
        const rows = await ask<{ no: number }>(
          on,
          // An insert, so that it waits for a transaction that has inserted the row and is not over.
          `INSERT INTO mark AS m (link, no, at) VALUES ($1, 0, extract(epoch FROM clock_timestamp()) * 1000)
           ON CONFLICT (link) DO UPDATE SET no = m.no RETURNING no`,
          [markOf(mark)],
          SILENCE_MS,
        );
        return rows[0]?.no === mark;
      } catch (error) {
        if (live && isLost(error)) drop(live, String(error), false);
        await clock.sleep(100);
      }
    }
  }

  async function once<Result>(
    on: Live,
    work: (tx: Tx) => Promise<Result>,
    early: boolean,
  ): Promise<{ value: Result; done: (() => void)[]; hints: Set<Hint['kind']> } | { lost: unknown }> {
    const hints = new Set<Hint['kind']>();
    const done: (() => void)[] = [];
    const { places } = options;
    const mark = ++markNo;
    const pending: Promise<void>[] = [];
    /** The first of `later` that failed; the others fail because of it. */
    let failed: { error: unknown } | null = null;
    /** The first of all statements that failed: `work` may not have looked at its answer yet. */
    let first: { error: unknown } | null = null;
    const failing = (error: unknown): void => {
      first ??= { error };
    };
    /** The BEGIN failed and the session lives (somebody cancelled it): what is asked behind it would each happen by itself. */
    let outside: { error: unknown } | null = null;
    let acting = false;
    const asked = <Row>(statement: Sql | string, values: Value[] | undefined): Promise<Row[]> => {
      const answer = outside
        ? Promise.reject<Row[]>(outside.error)
        : ask<Row>(on, acting ? within(statement) : statement, values, SILENCE_MS);
      answer.catch(failing);
      return answer;
    };
    let value: Result;
    try {
      const refill = places.end - places.next < BLOCK / 2;
      on.runs += 1;
      const replan = on.runs === on.replanAt || clock.monotonic() - on.plannedAt >= REPLAN_MS;
      if (on.runs === on.replanAt) on.replanAt *= 4;
      if (replan) on.plannedAt = clock.monotonic();
      let now = options.testNow ? options.testNow() : null;
      // Once in a while, and then with the BEGIN.
      const rare = [
        ...(replan ? ['DISCARD PLANS'] : []),
        ...(mark % MARK_MAX === 0 ? [`DELETE FROM mark WHERE link = '${markOf(mark - 1).replaceAll("'", "''")}'`] : []),
      ];
      asked(rare.length === 0 ? BEGIN : [BEGIN.text, ...rare].join('; '), undefined).catch((error: unknown) => {
        outside = { error };
      });
      const begins = asked<{ now: number; block: number | null }>(FIRST, [markOf(mark), mark, refill]);
      const begun = begins.then(([begin]) => {
        if (outside) throw outside.error;
        if (!begin) throw new Error('the store has no clock row');
        if (begin.block !== null && begin.block > places.next) {
          places.next = begin.block;
          places.end = begin.block + BLOCK;
        }
        now ??= begin.now;
      });
      // By itself, too: behind `begun` it would come after what is pipelined behind the BEGIN and failed because of it.
      begun.catch(failing);
      if (!early || places.end - places.next < EARLY_PLACES) await begun;
      const tx: Tx = {
        get now() {
          if (now === null) throw new Error('the clock of a transaction is known when its BEGIN is answered');
          return now;
        },
        begun,
        get early() {
          return now === null;
        },
        seq() {
          if (places.next >= places.end) throw new Error('one transaction used up a block of places');
          return places.next++;
        },
        as(accounts) {
          const { role } = options.wall;
          if (role === null || (accounts === null && !acting)) return;
          acting = false;
          tx.later(ENTER, accounts === null ? ['', 'none', 'on'] : [held(accounts), role, 'off']);
          acting = accounts !== null;
        },
        hint: (kind) => hints.add(kind),
        afterCommit: (run) => done.push(run),
        query: asked,
        later(statement, values) {
          const answer = asked(statement, values);
          pending.push(
            answer.then(
              () => undefined,
              (error: unknown) => {
                failed ??= { error };
              },
            ),
          );
        },
      };
      value = await work(tx);
      await begun;
    } catch (thrown) {
      // What `work` fell over may be only what an earlier statement left behind.
      await Promise.all(pending);
      const aborted = sqlState(thrown) === ABORTED;
      const error = ((outside ?? (aborted ? first : failed)) as { error: unknown } | null)?.error ?? thrown;
      if (isLost(error) || on.dead) {
        drop(on, error instanceof Error ? error.message : String(error), true);
        return { lost: error };
      }
      try {
        await ask(on, 'ROLLBACK', undefined, PROBE_MS);
      } catch (second) {
        drop(on, String(second), true);
      }
      throw error;
    }
    try {
      await ask(on, 'COMMIT', undefined, SILENCE_MS);
    } catch (error) {
      await Promise.all(pending);
      if (error instanceof Aborted) throw (first as { error: unknown } | null)?.error ?? error;
      // An ERROR in answer to COMMIT is a rollback; anything else leaves it open.
      if ((error as { severity?: string }).severity === 'ERROR') {
        if (isLost(error)) drop(on, String(error), true);
        throw error;
      }
      drop(on, error instanceof Error ? error.message : String(error), false);
      if (!(await resolve(mark))) return { lost: error };
      log.info({ purpose }, 'a commit whose answer was lost had happened');
      return { value, done, hints };
    }
    await Promise.all(pending);
    // Never sent, so the server knows nothing of it: the client found its values wrong.
    if (failed) throw new Error('a transaction committed without one of its statements', { cause: failed });
    return { value, done, hints };
  }

  async function transaction<Result>(
    work: (tx: Tx) => Promise<Result>,
    patienceMs: number,
    committed: (hints: Hint['kind'][]) => void,
    early = false,
  ): Promise<Result> {
    for (let attempt = 0; ; attempt++) {
      const on = await ensure(patienceMs);
      const end = await once(on, work, early);
      if ('value' in end) {
        for (const run of end.done) run();
        committed([...end.hints]);
        return end.value;
      }
      if (attempt === 1) throw new StoreUnavailable(`the connection to PostgreSQL was lost: ${String(end.lost)}`);
    }
  }

  async function query<Row>(statement: Sql | string, values?: Value[], patienceMs = 2_000): Promise<Row[]> {
    for (let attempt = options.setupMs ? 1 : 0; ; attempt++) {
      const on = await ensure(patienceMs);
      try {
        return await ask<Row>(on, statement, values, options.setupMs ?? SILENCE_MS);
      } catch (error) {
        if (!isLost(error) && !on.dead) throw error;
        drop(on, error instanceof Error ? error.message : String(error), false);
        if (attempt === 1) throw new StoreUnavailable(`the connection to PostgreSQL was lost: ${String(error)}`);
      }
    }
  }

  /** One transaction behind the wall that only reads. Its first and last words are answered while others wait for nothing. */
  async function onceReads<Result>(
    on: Live,
    begin: string,
    work: (ask: Ask) => Promise<Result>,
  ): Promise<{ value: Result } | { lost: unknown }> {
    let first: { error: unknown } | null = null;
    const noted = <Answer>(answer: Promise<Answer>): Promise<Answer> => {
      answer.catch((error: unknown) => {
        first ??= { error };
      });
      return answer;
    };
    /** Whoever has the connection next is behind it in the pipeline. */
    const end = (word: 'END' | 'ROLLBACK'): void => {
      ask(on, word, undefined, SILENCE_MS).catch((error: unknown) => drop(on, String(error), false));
    };
    try {
      void noted(ask(on, begin, undefined, SILENCE_MS));
      const value = await work({
        query: (statement, values) => noted(ask(on, within(statement), values, SILENCE_MS)),
      });
      // Without its BEGIN it was asked in nobody's name.
      if (first) throw (first as { error: unknown }).error;
      end('END');
      return { value };
    } catch (thrown) {
      const error = sqlState(thrown) === ABORTED ? ((first as { error: unknown } | null)?.error ?? thrown) : thrown;
      if (isLost(error) || on.dead) {
        drop(on, error instanceof Error ? error.message : String(error), false);
        return { lost: error };
      }
      end('ROLLBACK');
      throw error;
    }
  }

  async function reads<Result>(
    account: number,
    work: (ask: Ask) => Promise<Result>,
    role: string,
    patienceMs: number,
  ): Promise<Result> {
    const begin = `BEGIN; ${NOT_WITHIN.map((way) => `SET LOCAL ${way} = off; `).join('')}SET LOCAL ${ACCOUNTS} = '${held([account])}'; SET LOCAL ROLE ${quoted(role)}`;
    for (let attempt = 0; ; attempt++) {
      const end = await onceReads(await ensure(patienceMs), begin, work);
      if ('value' in end) return end.value;
      if (attempt === 1) throw new StoreUnavailable(`the connection to PostgreSQL was lost: ${String(end.lost)}`);
    }
  }

  return {
    query: (statement, values, patienceMs) => alone(() => query(statement, values, patienceMs)),
    reads(account, work, patienceMs) {
      const { role } = options.wall;
      if (role !== null) return alone(() => reads(account, work, role, patienceMs));
      return work({ query: (statement, values) => alone(() => query(statement, values, patienceMs)) });
    },
    transaction: (work, patienceMs, committed, early) => alone(() => transaction(work, patienceMs, committed, early)),
    async connect() {
      live = await openAny(CONNECT_FIRST_MS);
    },
    async probe() {
      const on = live;
      if (!on) return;
      // In turn with the work: a connection that is working has its own limit on silence.
      await alone(async () => {
        if (on.dead || live !== on) return;
        try {
          const [server] = await ask<{ unsafe: string | null }>(on, STILL_SAFE, undefined, PROBE_MS);
          // Whoever connects next is told what is wrong there.
          if (server?.unsafe) drop(on, `${server.unsafe} was turned off`, false);
        } catch (error) {
          drop(on, error instanceof Error ? error.message : String(error), false);
        }
      });
    },
    onConnect(run) {
      listeners.push(run);
    },
    async close() {
      await tail;
      closed = true;
      for (const wake of waiters) wake();
      const on = live as Live | null;
      if (on) {
        try {
          if (options.writes) await ask(on, 'DELETE FROM mark WHERE link = $1', [markOf(markNo)], PROBE_MS);
          on.dead = true;
          await heard(on, on.client.end(), PROBE_MS);
        } catch {
          // The client would wait for what it asked before it says goodbye.
          on.dead = true;
          cut(on.client);
        }
        on.watch.stop();
        live = null;
      }
      await connecting;
    },
  };
}
