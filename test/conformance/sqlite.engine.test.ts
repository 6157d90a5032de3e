/** What only the SQLite engine promises: settings, its file, crashes between statements, a full disk, plans, threads. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, linkSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Accept, type Claims, type Store, StoreUnavailable } from '../../src/store/contract.ts';
import { openContent } from '../../src/store/sqlite/content.ts';
import {
  type Engine,
  type EngineOptions,
  type Op,
  type OpResult,
  openEngine,
  verifyDurability,
} from '../../src/store/sqlite/engine.ts';
import { createReader } from '../../src/store/sqlite/read.ts';
import { createReads } from '../../src/store/sqlite/rows.ts';
import { SchemaTooNew } from '../../src/store/sqlite/schema.ts';
import { connectSqlite, openSqlite, sqliteFiles } from '../../src/store/sqlite/sqlite.ts';
import { watchStatements } from '../../src/store/sqlite/tx.ts';
import { accepted, createDesk, DAY, type Harness, HOUR, LEASE, numbers, openDesk, SECOND } from './desk.ts';
import { openSynchronous, openThreaded } from './sqlite.harness.ts';

const NOW = Date.UTC(2026, 10, 24, 12);
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'postcard-sqlite-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function open(more: Partial<EngineOptions> = {}): Engine {
  return openEngine({ file: join(dir, 'a.db'), retentionMs: 7 * DAY, now: NOW, synchronous: 'OFF', ...more });
}

function one<Result>(engine: Engine, op: Op, now = NOW): Result {
  const [result] = engine.apply([op], now);
  if (!result || !('ok' in result)) throw new Error(JSON.stringify(result));
  return result.ok as Result;
}

/** A request with all that accept can write: keys, a refusal, a group, an upload, a bulk, an Idempotency-Key. */
function request(engine: Engine, lane: number): Accept {
  const first = one<number>(engine, ['reserve', 8]);
  const start = first + 2;
  one(engine, [
    'putUpload',
    { account: 1, id: 'pic', name: 'p.jpg', hash: 'aa', contentType: 'image/jpeg', size: 1, validityMs: DAY },
  ]);
  const run = { spec: first + 1, lane, window: null, validityMs: HOUR };
  return {
    account: 1,
    first,
    bulkId: `bulk-${first}`,
    sendAt: null,
    intervalUs: null,
    specs: [
      {
        first: start,
        end: start + 6,
        sender: 'Shop',
        campaign: null,
        entity: null,
        application: null,
        endpoint: { url: 'https://shop.example/', contentType: 'application/json' },
        intermediate: true,
        notify: true,
        body: '{}',
        uploads: [{ segment: 0, id: 'pic' }],
        links: [],
      },
    ],
    runs: [
      { ...run, first: start, end: start + 3, group: true },
      { ...run, first: start + 3, end: start + 5, group: false },
    ],
    to: numbers(6),
    refused: [[start + 5, 52]],
    keys: [[start + 1, `key-${first}`]],
    idem: { key: `idem-${first}`, hash: 'h' },
  };
}

const TABLES =
  'account bulk spec message message_key idem turn line run retry flight deadline attempt carrier_ref parked event endpoint outbox open_event hook pull media'.split(
    ' ',
  );

function counts(file: string): Record<string, number> {
  const db = new DatabaseSync(file);
  const result: Record<string, number> = {};
  for (const table of TABLES) {
    result[table] = (db.prepare(`SELECT count(*) AS n FROM "${table}"`).get() as { n: number }).n;
  }
  db.close();
  return result;
}

describe('what the file promises', () => {
  it('runs in WAL with a sync at every commit, read back from SQLite', () => {
    const engine = open({ synchronous: 'FULL' });
    expect(engine.durability()).toEqual({ journalMode: 'wal', synchronous: 2 });
    engine.close();
    const byDefault = openEngine({ file: join(dir, 'b.db'), retentionMs: DAY, now: NOW });
    expect(byDefault.durability().synchronous).toBe(2);
    byDefault.close();
  });

  it('refuses settings that would not sync', () => {
    const db = new DatabaseSync(join(dir, 'c.db'));
    db.exec('PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL');
    expect(() => verifyDurability(db, 'FULL')).toThrow('unsafe store: journal_mode=delete synchronous=2');
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL');
    expect(() => verifyDurability(db, 'FULL')).toThrow('unsafe store: journal_mode=wal synchronous=1');
    db.exec('PRAGMA synchronous = FULL');
    expect(() => verifyDurability(db, 'FULL')).not.toThrow();
    db.close();
  });

  it('refuses a file of a newer version with one clear line, alone and behind its threads', async () => {
    const { file } = sqliteFiles(dir);
    const db = new DatabaseSync(file);
    db.exec('PRAGMA user_version = 99');
    db.close();
    expect(() => openEngine({ file, retentionMs: DAY, now: NOW })).toThrow(SchemaTooNew);
    const opening = openSqlite({ dataDir: dir, retentionMs: DAY, onCrash: () => {} });
    await expect(opening).rejects.toThrow(
      /^the data was written by a newer Postcard \(schema 99, this one knows \d+\)$/,
    );
    // The lock is free again.
    await expect(openSqlite({ dataDir: dir, retentionMs: DAY, onCrash: () => {} })).rejects.toThrow('newer Postcard');
  });

  it('refuses a file that is no database', async () => {
    const { file } = sqliteFiles(dir);
    copyFileSync(new URL(import.meta.url), file);
    await expect(openSqlite({ dataDir: dir, retentionMs: DAY, onCrash: () => {} })).rejects.toThrow('not a database');
  });

  it('refuses a file with a second name, under which another process would have a lock and a log of its own', async () => {
    const options = { dataDir: dir, retentionMs: DAY, onCrash: () => {} };
    await (await openSqlite(options)).close();
    const second = join(dir, 'second.db');
    linkSync(sqliteFiles(dir).file, second);
    await expect(openSqlite({ ...options, file: second })).rejects.toThrow('more than one name (hard links)');
    await expect(openSqlite(options)).rejects.toThrow('more than one name (hard links)');
    rmSync(second);
    await (await openSqlite(options)).close();
  });

  it('refuses a second opening of the same directory, by a thread or a process, until the first is closed', async () => {
    const options = { dataDir: dir, retentionMs: DAY, onCrash: () => {} };
    const host = await openSqlite(options);
    const words = 'another Postcard process uses this data directory';
    await expect(openSqlite(options)).rejects.toThrow(words);
    const module = pathToFileURL(join(import.meta.dirname, '../../src/store/sqlite/sqlite.ts')).href;
    const script = `import { openSqlite } from ${JSON.stringify(module)};
      openSqlite({ dataDir: ${JSON.stringify(dir)}, retentionMs: 1e9, onCrash: () => {} }).then(
        () => { console.log('opened'); process.exit(0); }, (error) => { console.log(error.message); process.exit(0); });`;
    const second = async (): Promise<string> => {
      writeFileSync(join(dir, 'second.mjs'), script);
      const run = promisify(execFile)(process.execPath, [join(dir, 'second.mjs')]);
      return (await run).stdout.trim();
    };
    expect(await second()).toBe(words);
    await host.close();
    expect(await second()).toBe('opened');
    const again = await openSqlite(options);
    await again.close();
  });

  it('its time never goes back over a restart, and its tokens and numbers go on', () => {
    let engine = open();
    const lane = one<number>(engine, ['lane', { carrier: 'm', onUnknown: 'hold', reports: true }]);
    one(engine, ['accept', request(engine, lane)], NOW + HOUR);
    const before = one<Claims>(engine, ['claim', { lane, limit: 1, leaseMs: LEASE }], NOW + HOUR);
    engine.close();
    engine = open({ now: NOW - DAY });
    const after = one<Claims>(engine, ['claim', { lane, limit: 1, leaseMs: LEASE }], NOW - DAY);
    expect(after.now).toBeGreaterThan(NOW + HOUR - SECOND);
    expect(after.claims[0]?.token).toBeGreaterThan(before.claims[0]?.token ?? Number.POSITIVE_INFINITY);
    engine.close();
  });
});

describe('a process that died', () => {
  it('leaves its fetches of links to the next one at once; what had failed before keeps its time', async () => {
    const harness = await openSynchronous({ now: NOW });
    try {
      const desk = await openDesk(harness);
      const { spec } = await desk.accept({ links: ['https://a.example/1', 'https://a.example/2'] });
      expect((await harness.store.mediaNext(10, LEASE)).jobs).toHaveLength(2);
      const outcome = { kind: 'again', error: 15024, words: 'the link answered 503', afterMs: HOUR } as const;
      await harness.store.mediaSettle({ spec, segment: 1 }, outcome);
      await harness.crash();
      const { jobs } = await harness.store.mediaNext(10, LEASE);
      expect(jobs.map(({ segment, tries }) => [segment, tries])).toEqual([[0, 1]]);
    } finally {
      await harness.close();
    }
  });
});

describe('a crash between any two statements', () => {
  /** Runs `work` and, before each of its statements, copies the files as a crash would leave them. */
  function crashes(engine: Engine, at: { hook: ((sql: string) => void) | null }, work: () => OpResult[]) {
    const file = join(dir, 'a.db');
    const copies: string[] = [];
    at.hook = () => {
      const copy = join(dir, `crash-${copies.length}.db`);
      copyFileSync(file, copy);
      if (existsSync(`${file}-wal`)) copyFileSync(`${file}-wal`, `${copy}-wal`);
      copies.push(copy);
    };
    const results = work();
    at.hook = null;
    engine.close();
    return { results, copies };
  }

  function watched() {
    const at: { hook: ((sql: string) => void) | null } = { hook: null };
    const engine = open({ watch: { before: (sql) => at.hook?.(sql) } });
    const lane = one<number>(engine, ['lane', { carrier: 'm', onUnknown: 'hold', reports: true }]);
    return { at, engine, lane };
  }

  it('leaves all of an accept or nothing', () => {
    const { at, engine, lane } = watched();
    const rows = request(engine, lane);
    const file = join(dir, 'a.db');
    const empty = counts(file);
    const { results, copies } = crashes(engine, at, () => engine.apply([['accept', rows]], NOW));
    expect(results[0]).toMatchObject({ ok: { kind: 'accepted' } });
    expect(copies.length).toBeGreaterThan(25);
    const full = counts(file);
    expect(full).not.toEqual(empty);
    // The last statement is COMMIT; before it nothing is there, after it everything.
    for (const copy of copies) expect(counts(copy)).toEqual(empty);
    const after = openEngine({ file, retentionMs: DAY, now: NOW, synchronous: 'OFF' });
    expect(one(after, ['accept', rows])).toMatchObject({ kind: 'replayed' });
    after.close();
    const before = openEngine({ file: copies.at(-1) as string, retentionMs: DAY, now: NOW, synchronous: 'OFF' });
    expect(one(before, ['accept', rows])).toMatchObject({ kind: 'accepted', duplicates: [] });
    before.close();
  });

  it('leaves all of a settle (with a parked report) or nothing', () => {
    const { at, engine, lane } = watched();
    one(engine, ['accept', request(engine, lane)]);
    const { claims } = one<Claims>(engine, ['claim', { lane, limit: 10, leaseMs: LEASE }]);
    const group = claims.find((claim) => claim.members.length === 3);
    if (!group) throw new Error('no group');
    one(engine, [
      'report',
      { carrier: 'm', carrierMessageId: 'g', addresses: numbers(1), kind: 'retrieved', words: 'ok' },
    ]);
    const before = counts(join(dir, 'a.db'));
    const settle: Op = [
      'settle',
      { lane, token: group.token, leader: group.leader, outcome: accepted('g'), startedAt: NOW, tookMs: 1 },
    ];
    const { results, copies } = crashes(engine, at, () => engine.apply([settle], NOW));
    expect(results).toEqual([{ ok: true }]);
    expect(copies.length).toBeGreaterThan(15);
    for (const copy of copies) expect(counts(copy)).toEqual(before);
    const after = counts(join(dir, 'a.db'));
    expect(after).toMatchObject({ flight: (before.flight ?? 0) - 1, parked: 0, attempt: 1, carrier_ref: 1 });
  });

  it('leaves all of a claim that is told or nothing, and asks nothing more where it is not told', () => {
    const { at, engine, lane } = watched();
    const quiet = request(engine, lane);
    for (const spec of quiet.specs) spec.intermediate = false;
    one(engine, ['accept', quiet]);
    const seen: string[] = [];
    at.hook = (sql) => void seen.push(sql);
    expect(one<Claims>(engine, ['claim', { lane, limit: 10, leaseMs: LEASE }]).claims).toHaveLength(3);
    expect(seen.length).toBeGreaterThan(5);
    expect(seen.filter((sql) => /\bevent\b|outbox|FROM message m\b/.test(sql))).toEqual([]);
    at.hook = null;
    one(engine, ['accept', request(engine, lane)]);
    const before = counts(join(dir, 'a.db'));
    const { copies } = crashes(engine, at, () => engine.apply([['claim', { lane, limit: 10, leaseMs: LEASE }]], NOW));
    for (const copy of copies) expect(counts(copy)).toEqual(before);
    const after = counts(join(dir, 'a.db'));
    expect(after).toMatchObject({
      event: (before.event ?? 0) + 5,
      open_event: (before.open_event ?? 0) + 5,
      outbox: (before.outbox ?? 0) + 5,
    });
  });

  it('tells of claims of what an older version accepted as its spec says', () => {
    const { engine, lane } = watched();
    for (const intermediate of [true, false]) {
      const rows = request(engine, lane);
      for (const spec of rows.specs) spec.intermediate = intermediate;
      one(engine, ['accept', rows]);
    }
    const db = new DatabaseSync(join(dir, 'a.db'));
    db.exec('UPDATE run SET intermediate = NULL');
    expect(one<Claims>(engine, ['claim', { lane, limit: 10, leaseMs: LEASE }]).claims).toHaveLength(6);
    const told = `SELECT s.intermediate, count(*) AS n FROM event e JOIN message m ON m.no = e.message JOIN spec s ON s.no = m.spec
      WHERE e.status = 7 GROUP BY 1`;
    expect(db.prepare(told).all()).toMatchObject([{ intermediate: 1, n: 5 }]);
    db.close();
  });

  it("an error at any statement of an op is that op's alone; its neighbours are stored", () => {
    const probe = { countdown: Number.POSITIVE_INFINITY, armed: false };
    const engine = open({
      watch: {
        before(sql) {
          if (!probe.armed || sql === 'BEGIN IMMEDIATE' || sql === 'COMMIT') return;
          if (--probe.countdown === 0) throw new Error('planted');
        },
      },
    });
    const lane = one<number>(engine, ['lane', { carrier: 'm', onUnknown: 'hold', reports: true }]);
    let planted = 0;
    for (let n = 1; n <= 60; n++) {
      const all = [request(engine, lane), request(engine, lane), request(engine, lane)];
      probe.armed = true;
      probe.countdown = n;
      // The group fails at statement n; alone, none of its ops does.
      const results = engine.apply(
        all.map((rows): Op => ['accept', rows]),
        NOW,
      );
      probe.armed = false;
      if (probe.countdown <= 0) planted++;
      for (const result of results) expect(result).toMatchObject({ ok: { kind: 'accepted', duplicates: [] } });
    }
    expect(planted).toBe(60);
    // An op that fails again and again harms only itself.
    const bad = request(engine, lane);
    bad.specs[0] = { ...(bad.specs[0] as Accept['specs'][number]), sender: null as unknown as string };
    const results = engine.apply(
      [
        ['accept', request(engine, lane)],
        ['accept', bad],
        ['accept', request(engine, lane)],
      ],
      NOW,
    );
    expect(results.map((result) => Object.keys(result)[0])).toEqual(['ok', 'bug', 'ok']);
    engine.close();
    expect(counts(join(dir, 'a.db')).spec).toBe(182);
  });
});

describe('a full disk', () => {
  it('refuses the whole group as unavailable, keeps nothing of it, and heals by itself', () => {
    const disk = { full: false };
    const engine = open({
      watch: {
        before(sql) {
          if (disk.full && sql.startsWith('INSERT')) {
            throw Object.assign(new Error('database or disk is full'), { errcode: 13 });
          }
        },
      },
    });
    const lane = one<number>(engine, ['lane', { carrier: 'm', onUnknown: 'hold', reports: true }]);
    const [a, b] = [request(engine, lane), request(engine, lane)];
    const before = counts(join(dir, 'a.db'));
    disk.full = true;
    expect(
      engine.apply(
        [
          ['accept', a],
          ['accept', b],
        ],
        NOW,
      ),
    ).toEqual([{ unavailable: 'database or disk is full' }, { unavailable: 'database or disk is full' }]);
    expect(counts(join(dir, 'a.db'))).toEqual(before);
    disk.full = false;
    for (const result of engine.apply(
      [
        ['accept', a],
        ['accept', b],
      ],
      NOW,
    )) {
      expect(result).toMatchObject({ ok: { kind: 'accepted' } });
    }
    engine.close();
  });

  it('a file that really cannot grow gives unavailable, and what was acknowledged is there', () => {
    let engine = open({ maxPages: 400 });
    const lane = one<number>(engine, ['lane', { carrier: 'm', onUnknown: 'hold', reports: true }]);
    let stored = 0;
    let refused: OpResult | null = null;
    for (let n = 0; n < 500 && !refused; n++) {
      const [reserved] = engine.apply([['reserve', 8]], NOW);
      if (!reserved || !('ok' in reserved)) break;
      const rows = request(engine, lane);
      rows.specs[0] = { ...(rows.specs[0] as Accept['specs'][number]), body: 'x'.repeat(20_000) };
      const [result] = engine.apply([['accept', rows]], NOW);
      if (result && 'ok' in result) stored++;
      else refused = result ?? null;
    }
    expect(refused).toMatchObject({ unavailable: expect.stringContaining('full') });
    expect(stored).toBeGreaterThan(2);
    engine.close();
    expect(counts(join(dir, 'a.db')).spec).toBe(stored);
    engine = open();
    expect(one(engine, ['accept', request(engine, lane)])).toMatchObject({ kind: 'accepted' });
    engine.close();
  });
});

/** Statements whose sorting or walking is over few rows, by words that only they hold. */
const BOUNDED = [
  'SELECT DISTINCT t.line, l.lane FROM (SELECT line FROM retry',
  'CROSS JOIN optout o',
  'ORDER BY "to" = ? DESC, no LIMIT 1',
  'FROM key ORDER BY account, label, hash',
  'FROM line l JOIN lane n ON n.no = l.lane WHERE n.carrier = ?',
  // Sessions end after 60 idle minutes; a login's are ended by hand only.
  'DELETE FROM session WHERE user = ?',
  // Figures, at most once a second: one row a line.
  'SELECT l.carrier, sum(w.count) AS count FROM (',
];

describe('plans', () => {
  it('no statement of a verb walks over a table that grows, or sorts more than it returns', () => {
    const statements = new Set<string>();
    const prepared = (sql: string): void => void statements.add(sql);
    const engine = open({ watch: { prepared } });
    const file = join(dir, 'a.db');
    const db = new DatabaseSync(file);
    watchStatements(db, { prepared });
    createReader(db, createReads(db));
    expect(statements.size).toBeGreaterThan(100);
    // lane, key, account, held, own_number: as many as are configured. t, x: what was given or built by the statement itself. flight: what is in flight, bounded by the lanes' slots.
    // parked: counted at the start, bounded. sqlite_sequence: one row. unsought, u: what has no marks yet, up to a limit.
    const small = new Set([
      'lane',
      'key',
      'account',
      'held',
      'own_number',
      't',
      'x',
      'flight',
      'parked',
      'unsought',
      'u',
      'sqlite_sequence',
      'CONSTANT',
    ]);
    const complaints: string[] = [];
    for (const sql of statements) {
      // Figures count what waits, at most once a second.
      if (sql.includes('webhooksWaiting')) continue;
      // Only at the start: what was leased then.
      if (sql === 'UPDATE hook SET due_at = 0 WHERE leased = 1') continue;
      // Sorts the tries of one message.
      if (sql.includes('FROM event e JOIN hook h ON h.no = e.hook')) continue;
      // What a submission's members wait on, of one run of numbers that is given back; the opt-outs among one request's destinations;
      // which member of one group is meant; the keys of all accounts, in order; lines of a carrier that an operator empties.
      if (BOUNDED.some((words) => sql.includes(words))) continue;
      const parameters = (sql.match(/\?/g) ?? []).length;
      const numbered = /\?\d/.test(sql) ? Math.max(...[...sql.matchAll(/\?(\d)/g)].map((hit) => Number(hit[1]))) : 0;
      const values = Array.from({ length: numbered || parameters }, () => 1);
      const plan = db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all(...values) as { detail: string }[];
      for (const { detail } of plan) {
        const scanned = /^SCAN (\w+)/.exec(detail)?.[1];
        const alias = scanned && new RegExp(`\\b(\\w+) (?:AS )?${scanned}\\b`).exec(sql)?.[1];
        const names = [scanned, alias];
        if (scanned && !names.some((name) => name !== undefined && small.has(name)))
          complaints.push(`${detail}: ${sql}`);
        if (detail.includes('TEMP B-TREE')) complaints.push(`${detail}: ${sql}`);
      }
    }
    expect(complaints).toEqual([]);
    db.close();
    engine.close();
  });
});

describe('content', () => {
  it('is collected a day after nobody refers to it, and a new put protects it', () => {
    const content = openContent(join(dir, 'content.db'));
    const put = (text: string, at: number): string => {
      const bytes = new TextEncoder().encode(text);
      const hash = createHash('sha256').update(bytes).digest('hex');
      content.put([{ hash, bytes }], at);
      return hash;
    };
    const orphan = put('orphan', NOW);
    const referred = put('referred', NOW);
    const again = put('again', NOW);
    const young = put('young', NOW + HOUR);
    put('again', NOW + HOUR);
    const isReferred = (hash: string): boolean => hash === referred;
    expect(content.collect(NOW + DAY - 1, '', isReferred)).toBe('');
    expect(content.get(orphan)).not.toBeNull();
    content.collect(NOW + DAY, '', isReferred);
    expect(content.get(orphan)).toBeNull();
    for (const hash of [referred, again, young]) expect(content.get(hash)).not.toBeNull();
    content.close();
  });

  it('walks in bounded steps over any number of hashes', () => {
    const content = openContent(join(dir, 'content.db'));
    const hashes = Array.from({ length: 450 }, (_, n) => createHash('sha256').update(`${n}`).digest('hex'));
    content.put(
      hashes.map((hash) => ({ hash, bytes: new Uint8Array(1) })),
      NOW,
    );
    const seen = new Set<string>();
    let place = '';
    let steps = 0;
    do {
      place = content.collect(NOW + DAY, place, (hash) => {
        seen.add(hash);
        return true;
      });
      steps++;
    } while (place !== '');
    expect(steps).toBe(3);
    expect(seen.size).toBe(450);
    content.close();
  });

  it('damaged bytes are not given out', () => {
    const file = join(dir, 'content.db');
    const content = openContent(file);
    const bytes = new TextEncoder().encode('true');
    const hash = createHash('sha256').update(bytes).digest('hex');
    content.put([{ hash, bytes }], NOW);
    const db = new DatabaseSync(file);
    db.prepare('UPDATE content SET bytes = ?').run(new TextEncoder().encode('trve'));
    db.close();
    expect(content.get(hash)).toBeNull();
    content.close();
  });
});

describe('threads', () => {
  it('the write-ahead log stays bounded under load', async () => {
    const bound = 1024 * 1024;
    const host = await openSqlite({
      dataDir: dir,
      retentionMs: DAY,
      walBoundBytes: bound,
      synchronous: 'OFF',
      onCrash: (message) => {
        throw new Error(message);
      },
    });
    const store = connectSqlite(host.connect());
    const desk = createDesk(harness(store));
    await desk.open();
    const body = 'x'.repeat(400_000);
    let largest = 0;
    for (let n = 0; n < 300; n++) {
      await desk.accept({ spec: { body } });
      largest = Math.max(largest, statSync(`${sqliteFiles(dir).file}-wal`).size);
    }
    // 120 MB were written; 16 MiB may be kept, and 64 commits lie between two looks.
    expect(largest).toBeLessThan(64 * 1024 * 1024);
    await store.close();
    await host.close();
  });

  it('refuses customers, not its own work, when too much waits for the disk', async () => {
    const h = await openThreaded();
    const desk = createDesk(h);
    await desk.open();
    const pulls = Array.from({ length: 21_000 }, () => h.store.takeReports({ account: 1, limit: 1 }));
    const settle = h.store.report({
      carrier: 'mmsc',
      carrierMessageId: 'x',
      addresses: [],
      kind: 'retrieved',
      words: '',
    });
    const results = await Promise.allSettled(pulls);
    const refused = results.filter((result) => result.status === 'rejected');
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThanOrEqual(1000);
    for (const one of refused) expect(one.reason).toBeInstanceOf(StoreUnavailable);
    expect(await settle).toEqual({ known: false, messages: [] });
    expect(await h.store.takeReports({ account: 1, limit: 1 })).toMatchObject({ rows: [] });
    await h.close();
  });

  it('a stop answers what was asked before it, and refuses what comes after', async () => {
    const host = await openSqlite({ dataDir: dir, retentionMs: DAY, onCrash: () => {} });
    const store = connectSqlite(host.connect());
    const desk = createDesk(harness(store));
    await desk.open();
    const { nos } = await desk.accept();
    const asked = Array.from({ length: 50 }, () => store.reserve(1));
    await new Promise((resolve) => setImmediate(resolve));
    await host.close();
    const results = await Promise.allSettled(asked);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(StoreUnavailable);
    }
    await expect(store.reserve(1)).rejects.toBeInstanceOf(StoreUnavailable);
    const again = await openSqlite({ dataDir: dir, retentionMs: DAY, onCrash: () => {} });
    const reader = connectSqlite(again.connect());
    expect((await reader.logs({ account: 1, limit: 10 })).rows.map((row) => row.no)).toEqual(nos);
    await reader.close();
    await again.close();
  });

  it('verbs of several connections meet in one store', async () => {
    const host = await openSqlite({ dataDir: dir, retentionMs: DAY, onCrash: () => {} });
    const [a, b] = [connectSqlite(host.connect()), connectSqlite(host.connect())];
    const [x, y] = [createDesk(harness(a)), createDesk(harness(b))];
    await Promise.all([x.open(), y.open()]);
    expect(y.lane).toBe(x.lane);
    await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? x : y).accept({ to: numbers(3) })));
    const claims = (await Promise.all([x.claim(64), y.claim(64)])).flatMap((page) => page.claims);
    expect(new Set(claims.map((claim) => claim.leader)).size).toBe(60);
    expect(claims).toHaveLength(60);
    await a.close();
    await b.close();
    await host.close();
  });
});

function harness(store: Store): Harness {
  const never = (): never => {
    throw new Error('not here');
  };
  return { store, advance: never, now: () => Date.now(), crash: never, close: never };
}

describe('the harness', () => {
  it('opens an empty store each time', async () => {
    const h = await openSynchronous();
    expect(await h.store.reserve(1)).toBe(1);
    await h.close();
  });
});
