/**
 * The n-th statement fails, for every n of accept, claim, settle and report on the SQLite engine, once as a bug, once as a full
 * disk, once as an I/O error: the verb says so, nothing of it is stored, and the same engine then does the same verb as if
 * nothing had happened. (Crashes at every statement: `test/conformance/sqlite.engine.test.ts`.)
 */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it } from 'vitest';
import type { Claim, Claims } from '../../src/store/contract.ts';
import { type Engine, type Op, type OpResult, openEngine } from '../../src/store/sqlite/engine.ts';
import { accepted, DAY, HOUR, LEASE, numbers } from '../conformance/desk.ts';

const NOW = Date.UTC(2026, 10, 24, 12);
const dir = mkdtempSync(join(tmpdir(), 'postcard-statements-'));
afterAll(() => rmSync(dir, { recursive: true }));

/** Counts statements down to the one that fails. */
interface Fault {
  left: number;
  error: Error;
}

function open(file: string, fault: Fault | null = null): Engine {
  const watch = {
    before: () => {
      if (fault && --fault.left === 0) throw fault.error;
    },
  };
  return openEngine({ file, retentionMs: 7 * DAY, now: NOW, synchronous: 'OFF', ...(fault ? { watch } : {}) });
}

function one<Result>(engine: Engine, op: Op): Result {
  const [result] = engine.apply([op], NOW);
  if (!result || !('ok' in result)) throw new Error(JSON.stringify(result));
  return result.ok as Result;
}

/** Every row of every table but what may skip: the clock and the order counters. */
function dump(file: string): string {
  const db = new DatabaseSync(file, { readOnly: true });
  const names = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").all();
  const tables = (names as { name: string }[]).map(({ name }) => [
    name,
    db.prepare(`SELECT * FROM "${name}" ${name === 'meta' ? "WHERE k NOT IN ('clock', 'seq')" : ''}`).all(),
  ]);
  db.close();
  return JSON.stringify(tables);
}

/** What must be the same however often it was tried before: the messages, and how many rows there are. */
function outcome(file: string): unknown {
  const db = new DatabaseSync(file, { readOnly: true });
  const messages = db.prepare('SELECT no, state, status, error FROM message ORDER BY no').all();
  db.close();
  const sizes = (JSON.parse(dump(file)) as [string, unknown[]][]).map(([name, rows]) => [name, rows.length]);
  return { messages, sizes };
}

interface Case {
  name: string;
  op: Op;
  /** The database as it is before the op. */
  file: string;
}

/** A store with a group, two single messages, one in a bulk; claimed; with a report parked for an id yet to be learnt. */
function cases(): Case[] {
  const file = join(dir, 'origin.db');
  const engine = open(file);
  const lane = one<number>(engine, ['lane', { carrier: 'm', onUnknown: 'retry', reports: true }] as Op);
  const request = (bulkId: string | null): Op => {
    const first = one<number>(engine, ['reserve', 8]);
    one(engine, [
      'putUpload',
      { account: 1, id: 'pic', name: 'p.jpg', hash: 'aa', contentType: 'image/jpeg', size: 1, validityMs: DAY },
    ]);
    const run = { spec: first + 1, lane, window: null, validityMs: HOUR };
    return [
      'accept',
      {
        account: 1,
        first,
        bulkId,
        sendAt: null,
        intervalUs: null,
        specs: [
          {
            first: first + 2,
            end: first + 8,
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
          { ...run, first: first + 2, end: first + 5, group: true },
          { ...run, first: first + 5, end: first + 7, group: false },
        ],
        to: numbers(6),
        refused: [[first + 7, 52]],
        keys: [[first + 3, `key-${first}`]],
        idem: { key: `idem-${first}`, hash: 'h' },
      },
    ];
  };
  one(engine, request('bulk'));
  const { claims } = one<Claims>(engine, ['claim', { lane, limit: 10, leaseMs: LEASE }]);
  const group = claims.find((claim) => claim.members.length === 3) as Claim;
  const [single, other] = claims.filter((claim) => claim.members.length === 1) as [Claim, Claim];
  const report = (id: string): Op => [
    'report',
    { carrier: 'm', carrierMessageId: id, addresses: numbers(1), kind: 'retrieved', words: 'ok' },
  ];
  one(engine, report('early'));
  const settle = (claim: Claim, of: Extract<Op, ['settle', unknown]>[1]['outcome']): Op => [
    'settle',
    { lane, token: claim.token, leader: claim.leader, outcome: of, startedAt: NOW, tookMs: 1 },
  ];
  one(engine, settle(other, accepted('known')));
  const more = request('other');
  one(engine, request(null));
  engine.close();
  const error = { id: 15000, words: 'planted' };
  const list: [string, Op][] = [
    ['accept', more],
    ['claim', ['claim', { lane, limit: 10, leaseMs: LEASE }]],
    ['settle as accepted, with a report that came before', settle(group, accepted('early'))],
    ['settle as accepted', settle(single, accepted('late'))],
    ['settle as deferred', settle(single, { kind: 'deferred', error })],
    ['settle as refused', settle(group, { kind: 'refused', error })],
    ['settle as unknown', settle(single, { kind: 'unknown', error })],
    ['report', report('known')],
    ['report that nobody waits for', report('stranger')],
  ];
  return list.map(([name, op]) => ({ name, op, file }));
}

const ERRORS: [string, Error, (result: OpResult | undefined) => boolean][] = [
  ['a bug', new Error('planted'), (result) => result !== undefined && 'bug' in result],
  [
    'a full disk',
    Object.assign(new Error('database or disk is full'), { errcode: 13 }),
    (result) => result !== undefined && 'unavailable' in result,
  ],
  [
    'an I/O error',
    Object.assign(new Error('disk I/O error'), { errcode: 10 | (3 << 8) }),
    (result) => result !== undefined && 'unavailable' in result,
  ],
];

describe('the n-th statement fails, for every n', () => {
  it.each(cases())(
    '$name: nothing of it is stored, and then it is done as if nothing had happened',
    ({ name, op, file }) => {
      const copy = join(dir, 'copy.db');
      const fresh = (fault: Fault | null): Engine => {
        for (const end of ['', '-wal', '-shm']) rmSync(`${copy}${end}`, { force: true });
        copyFileSync(file, copy);
        return open(copy, fault);
      };
      const undisturbed = fresh(null);
      one(undisturbed, op);
      undisturbed.close();
      const wanted = outcome(copy);

      for (const [kind, error, says] of ERRORS) {
        let n = 1;
        for (; ; n++) {
          const fault: Fault = { left: Number.POSITIVE_INFINITY, error };
          const engine = fresh(fault);
          const before = dump(copy);
          fault.left = n;
          const [result] = engine.apply([op], NOW);
          if (fault.left > 0) {
            engine.close();
            break;
          }
          fault.left = Number.POSITIVE_INFINITY;
          expect(says(result), `${name}, statement ${n}, ${kind}: ${JSON.stringify(result)}`).toBe(true);
          expect(dump(copy), `${name}, statement ${n}, ${kind}`).toBe(before);
          one(engine, op);
          engine.close();
          expect(outcome(copy), `${name}, after statement ${n}, ${kind}`).toEqual(wanted);
        }
        expect(n, 'statements').toBeGreaterThan(4);
      }
    },
  );
});
