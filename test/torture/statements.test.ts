/**
 * The n-th statement fails, for every n of every verb that writes on the SQLite engine, once as a bug, once as a full disk, once as
 * an I/O error: the verb says so, nothing of it is stored, and in the end the same engine does the same verb as if nothing
 * had happened. (Crashes at every statement: `test/conformance/sqlite.engine.test.ts`.)
 */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it } from 'vitest';
import { DEFAULT_SETTINGS } from '../../src/domain/accounts.ts';
import type { Ways } from '../../src/domain/failover.ts';
import type { Outcome } from '../../src/domain/submission.ts';
import type {
  Accept,
  BulkChange,
  Claim,
  Claims,
  ClickIn,
  EndpointPut,
  InboundIn,
  Upload,
  Webhook,
  Webhooks,
} from '../../src/store/contract.ts';
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
  return openEngine({
    file,
    retentionMs: 7 * DAY,
    now: NOW,
    synchronous: 'OFF',
    soughtBlock: 3,
    ...(fault ? { watch } : {}),
  });
}

function one<Result>(engine: Engine, op: Op, at = NOW): Result {
  const [result] = engine.apply([op], at);
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

/** A sweep goes on in steps, and looks again after a while for what a step that failed has passed over: all of it is done. */
function finish(engine: Engine, op: Op, at: number): void {
  if (op[0] !== 'sweep') return;
  for (let hours = 0; hours < 3; hours++) {
    for (let step = 0; one<boolean>(engine, op, at + hours * HOUR); step++) expect(step).toBeLessThan(100);
  }
}

interface Case {
  name: string;
  op: Op;
  /** When it is done. */
  at: number;
}

/** [what is special about it, the op, how long after the store was made]. */
type Listed = [string, Op, number?];

/**
 * A store with something for every verb: a group, single messages, one with second ways and shortened links, one whose content
 * is fetched first, two bulks; claimed; with webhooks due and tried, a report parked for an id yet to be learnt, an inbound message.
 */
function origin(file: string): Record<Op[0], Listed[]> {
  const engine = open(file);
  const does = <Result>(op: Op): Result => one<Result>(engine, op);
  const mmsc = { carrier: 'm', onUnknown: 'retry', reports: true } as const;
  const lane = does<number>(['lane', mmsc]);
  const second = does<number>(['lane', { ...mmsc, carrier: 'n' }]);
  const sms = does<number>(['lane', { ...mmsc, carrier: 's' }]);
  const error = { id: 15000, words: 'planted' };
  const upload: Op = [
    'putUpload',
    { account: 1, id: 'pic', name: 'p.jpg', hash: 'aa', contentType: 'image/jpeg', size: 1, validityMs: DAY },
  ];
  does(upload);
  const url = 'https://shop.example/';
  const endpoint = { url, contentType: 'application/json' };
  const put: EndpointPut = {
    account: 1,
    kind: 'delivery',
    url,
    headers: { a: 'b' },
    secret: { value: 'x', oldForMs: DAY },
  };
  does(['endpointPut', { ...put, isDefault: true }]);

  interface Form {
    bulkId?: string;
    ways?: Ways;
    fetched?: boolean;
    tracked?: boolean;
    notify?: boolean;
  }
  const request = ({ bulkId, ways, fetched = false, tracked = false, notify = true }: Form): Accept => {
    const first = does<number>(['reserve', 8]);
    const run = { spec: first + 1, lane, window: null, validityMs: HOUR, ...(ways ? { ways } : {}) };
    const links = { urls: ['https://shop.example/a'], clicks: true, url, callbackData: 'c', keepMs: DAY };
    return {
      account: 1,
      first,
      bulkId: bulkId ?? null,
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
          endpoint: notify ? endpoint : null,
          intermediate: notify,
          notify,
          body: '{}',
          uploads: [{ segment: 0, id: 'pic' }],
          links: fetched ? [{ segment: 1, url: 'https://shop.example/b', contentType: null }] : [],
          ...(tracked ? { tracked: links } : {}),
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
    };
  };
  const claimed = (of: number, limit: number): { group: Claim; singles: Claim[] } => {
    const { claims } = does<Claims>(['claim', { lane: of, limit, leaseMs: LEASE }]);
    const group = claims.find((claim) => claim.members.length === 3) as Claim;
    return { group, singles: claims.filter((claim) => claim.members.length === 1) };
  };
  const report = (id: string, kind: 'retrieved' | 'unreachable' = 'retrieved'): Op => [
    'report',
    { carrier: 'm', carrierMessageId: id, addresses: numbers(1), kind, words: 'ok' },
  ];
  const settle = (claim: Claim, outcome: Outcome, of = lane): Op => [
    'settle',
    { lane: of, token: claim.token, leader: claim.leader, outcome, startedAt: NOW, tookMs: 1 },
  ];

  // Two requests are in flight: one with a way to an SMS and a second carrier, one with none.
  const both = request({
    bulkId: 'ways',
    tracked: true,
    ways: { alts: [second], sms: { lane: sms, validityMs: HOUR, afterUnknown: true } },
  });
  does(['accept', both]);
  const wayward = claimed(lane, 10);
  does(['accept', request({ bulkId: 'bulk' })]);
  const { group, singles } = claimed(lane, 10);
  const [single, other] = singles as [Claim, Claim];
  does(report('early'));
  does(settle(other, accepted('known')));
  does(settle(wayward.singles[0] as Claim, accepted('known too')));
  // Webhooks: one delivered, one whose lease is open, others due; reports to pull.
  const hook = (): Webhook => does<Webhooks>(['webhookNext', { limit: 1, leaseMs: LEASE }]).webhooks[0] as Webhook;
  const told = hook();
  const answer = (hook: Webhook, ok: boolean): Op => [
    'webhookSettle',
    { no: hook.no, token: hook.token, ok, status: ok ? 200 : 500, tookMs: 1, excerpt: 'x', body: ok ? null : '{}' },
  ];
  does(answer(told, true));
  // Those that go on to an SMS, of which one is claimed.
  does(settle(wayward.group, { kind: 'refused', error }));
  const { claims: texts } = does<Claims>(['claim', { lane: sms, limit: 1, leaseMs: LEASE }]);
  const telling = hook();
  const pulled = request({ notify: false });
  does(['accept', pulled]);
  const again = claimed(lane, 10);
  does(settle(again.singles[0] as Claim, { kind: 'refused', error }));
  does(settle(again.singles[1] as Claim, { kind: 'refused', error }));
  does(['takeReports', { account: 1, limit: 1 }]);
  // Content to fetch, a bulk that waits, an inbound message and who asked for silence.
  const fetching = request({ fetched: true });
  does(['accept', fetching]);
  const { jobs } = does<{ jobs: { spec: number; segment: number }[] }>(['mediaNext', { limit: 1, leaseMs: LEASE }]);
  const [job] = jobs as [{ spec: number; segment: number }];
  does(['accept', request({ bulkId: 'waits' })]);
  const number = { number: '44', account: 1, url, entity: null, application: null, callbackData: 'd' };
  const deed = { by: 'o', action: 'a', account: 1, detail: {} };
  const set = (one: typeof number): Op => ['administer', { changes: [{ kind: 'number', number: one }], deed }];
  // Only an account that is there has numbers.
  does(['putKey', { key: { hash: 'old', account: 1, label: 'own' }, replace: false }]);
  for (const own of [number, { ...number, number: '45', url: '' }]) {
    const { kind } = does<{ kind: string }>(set(own));
    if (kind !== 'done') throw new Error(`${own.number}: ${kind}`);
  }
  const mo = (id: string, asks: 'stop' | null): Op => [
    'inbound',
    {
      no: does<number>(['reserve', 1]),
      carrier: 'm',
      id,
      channel: 'MMS',
      from: numbers(1)[0] as string,
      to: ['44'],
      cc: [],
      subject: 's',
      parts: [{ contentId: 'p', contentType: 'image/jpeg', size: 1, hash: 'aa', text: null }],
      answers: 'known',
      asks,
    },
  ];
  const toPull = mo('pulled', null);
  does(['inbound', { ...(toPull[1] as InboundIn), to: ['45'] }]);
  const silence = [{ sender: '44', destination: '4915' }];
  does(['optOutPut', { account: 1, list: silence }]);
  does(['sessionPut', { hash: 's', user: 'u', kind: 'IBSSO', ttlMs: DAY, idle: true }]);
  const quota = { account: 1, scope: 'q', bucket: 1, buckets: 2, want: 1, least: 1, most: 9, keepMs: HOUR };
  does(['quota', [quota]]);
  const hold = { kind: 'put', what: 'sender', name: 'Shop', account: 1, body: {} } as const;
  does(['administer', { changes: [hold], deed }]);
  const shortened = (wayward.singles[1] as Claim).leader;
  const click: ClickIn = { no: shortened, link: 0, at: NOW, flag: null, device: 'd', body: '{}' };
  const steer = (change: BulkChange): Op => ['bulkSteer', { account: 1, bulk: { id: 'waits' }, changes: [change] }];
  const more = request({ bulkId: 'other' });
  const tracked = request({ tracked: true, fetched: true, ways: { alts: [second] } });
  const late = mo('late', null);
  const stop = mo('stop', 'stop');
  engine.close();

  const key = { hash: 'new', account: 1, label: 'own' };
  const rules = {
    id: 'k',
    createdAt: NOW,
    scopes: null,
    validFrom: null,
    validUntil: null,
    allow: [],
    revokedAt: null,
  };
  const apiKey = { ...key, ...rules, requestsPerMinute: null };
  const settings = { ...DEFAULT_SETTINGS, registeredOnly: true };
  return {
    reserve: [['', ['reserve', 5]]],
    lane: [['', ['lane', { ...mmsc, carrier: 'new' }]]],
    identity: [['', ['identity', null]]],
    accept: [
      ['', ['accept', more]],
      ['with links to fetch and to shorten', ['accept', tracked]],
      ['for the second time', ['accept', both]],
    ],
    putUpload: [['', [upload[0], { ...(upload[1] as Upload), id: 'other' }] as Op]],
    putVariant: [
      ['', ['putVariant', { source: 'aa', profile: 'p', variant: { hash: 'bb', contentType: 'image/png' } }]],
    ],
    claim: [
      ['', ['claim', { lane, limit: 10, leaseMs: LEASE }]],
      ['of an SMS', ['claim', { lane: sms, limit: 10, leaseMs: LEASE }]],
    ],
    settle: [
      ['as accepted, with a report that came before', settle(group, accepted('early'))],
      ['as accepted', settle(single, accepted('late'))],
      ['as deferred', settle(single, { kind: 'deferred', error })],
      [
        'as deferred, for another carrier',
        settle(wayward.singles[1] as Claim, { kind: 'deferred', error, elsewhere: true }),
      ],
      ['as throttled', settle(single, { kind: 'throttled', retryAfterMs: 5 })],
      ['as refused', settle(group, { kind: 'refused', error })],
      ['as refused, for an SMS', settle(wayward.singles[1] as Claim, { kind: 'refused', error })],
      [
        'as refused, for another carrier',
        settle(wayward.singles[1] as Claim, { kind: 'refused', error, elsewhere: true }),
      ],
      ['as without content', settle(group, { kind: 'contentFailed', error })],
      ['as unknown', settle(single, { kind: 'unknown', error })],
      ['of an SMS as accepted', settle(texts[0] as Claim, accepted('text'), sms)],
      ['of an SMS as refused', settle(texts[0] as Claim, { kind: 'refused', error }, sms)],
    ],
    release: [
      ['', ['release', { claims: [single, group], until: NOW + 1000 }]],
      [
        'to another carrier',
        ['release', { claims: [wayward.singles[1] as Claim], until: NOW + 1000, elsewhere: true }],
      ],
    ],
    report: [
      ['', report('known')],
      ['that an SMS follows', report('known too', 'unreachable')],
      ['that nobody waits for', report('stranger')],
    ],
    sweep: [
      ['of what was in flight', ['sweep', null], 2 * LEASE],
      ['of what is too late', ['sweep', null], 2 * HOUR],
      ['of what is too old', ['sweep', null], 30 * DAY],
    ],
    mediaNext: [['', ['mediaNext', { limit: 10, leaseMs: LEASE }], 2 * LEASE]],
    mediaSettle: [
      [
        'as ready',
        ['mediaSettle', { job, outcome: { kind: 'ready', hash: 'cc', contentType: 'image/png', name: 'n' } }],
      ],
      ['as failed', ['mediaSettle', { job, outcome: { kind: 'failed', error: 15025, words: 'w' } }]],
      ['as put off', ['mediaSettle', { job, outcome: { kind: 'again', afterMs: 1, error: 15025, words: 'w' } }]],
    ],
    webhookNext: [['', ['webhookNext', { limit: 10, leaseMs: LEASE }]]],
    webhookSettle: [
      ['as taken', answer(telling, true)],
      ['as failed', answer(telling, false)],
    ],
    takeReports: [['', ['takeReports', { account: 1, limit: 10 }]]],
    rearm: [['', ['rearm', { account: 1, kind: 'reports' }]]],
    webhookReplay: [['', ['webhookReplay', { account: 1, no: told.no }]]],
    webhookReplayRange: [['', ['webhookReplayRange', { account: 1 }]]],
    endpointPut: [['', ['endpointPut', { ...put, secret: { value: 'y', oldForMs: DAY } }]]],
    endpointDelete: [['', ['endpointDelete', { account: 1, kind: 'delivery', url }]]],
    inbound: [
      ['', late],
      ['that asks for silence', stop],
    ],
    takeInbox: [['', ['takeInbox', { account: 1, limit: 10 }]]],
    optOutPut: [['', ['optOutPut', { account: 1, list: [{ sender: '44', destination: '4916' }] }]]],
    optOutDelete: [['', ['optOutDelete', { account: 1, list: silence }]]],
    callBacks: [['', ['callBacks', { lane, limit: 10 }]]],
    calledBack: [['', ['calledBack', { leader: other.leader, members: 1, words: 'w' }]]],
    reroute: [['', ['reroute', { from: 'm', to: 'n' }]]],
    bulkSteer: [
      ['pause', steer({ kind: 'pause' })],
      ['cancel', steer({ kind: 'cancel' })],
      ['limit', steer({ kind: 'limit', speed: { amount: 1 } })],
    ],
    putKey: [['', ['putKey', { key, replace: true }]]],
    administer: [
      ['an account', ['administer', { changes: [{ kind: 'account', no: 1, name: 'n', settings }], deed }]],
      ['a key', ['administer', { changes: [{ kind: 'key', key: apiKey }], deed }]],
      ['a number', set({ ...number, number: '46' })],
      ['a number that goes', ['administer', { changes: [{ kind: 'numberDrop', number: '44', account: 1 }], deed }]],
      [
        'what it holds',
        [
          'administer',
          {
            changes: [
              { ...hold, name: 'Other' },
              { ...hold, kind: 'drop' },
            ],
            deed,
          },
        ],
      ],
    ],
    sessionPut: [['', ['sessionPut', { hash: 't', user: 'u', kind: 'OAUTH', ttlMs: DAY, idle: false }]]],
    sessionUse: [['', ['sessionUse', 's'], HOUR]],
    sessionDelete: [['', ['sessionDelete', 's']]],
    quota: [['', ['quota', [quota, { ...quota, scope: 'new' }]]]],
    click: [['', ['click', [click]]]],
  };
}

const file = join(dir, 'origin.db');
const cases: Case[] = Object.entries(origin(file)).flatMap(([verb, listed]) =>
  listed.map(([words, op, later = 0]) => ({ name: `${verb} ${words}`.trim(), op, at: NOW + later })),
);

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
  it.each(cases)(
    '$name: nothing of it is stored, and then it is done as if nothing had happened',
    ({ name, op, at }) => {
      const copy = join(dir, 'copy.db');
      const fresh = (fault: Fault | null): Engine => {
        for (const end of ['', '-wal', '-shm']) rmSync(`${copy}${end}`, { force: true });
        copyFileSync(file, copy);
        return open(copy, fault);
      };
      const undisturbed = fresh(null);
      one(undisturbed, op, at);
      finish(undisturbed, op, at);
      undisturbed.close();
      const wanted = outcome(copy);

      for (const [kind, error, says] of ERRORS) {
        const fault: Fault = { left: Number.POSITIVE_INFINITY, error };
        const engine = fresh(fault);
        const before = dump(copy);
        let n = 0;
        for (;;) {
          fault.left = ++n;
          const [result] = engine.apply([op], at);
          const done = fault.left > 0;
          fault.left = Number.POSITIVE_INFINITY;
          if (done) {
            expect(result, `${name}, after ${kind}`).toHaveProperty('ok');
            break;
          }
          expect(says(result), `${name}, statement ${n}, ${kind}: ${JSON.stringify(result)}`).toBe(true);
          expect(dump(copy), `${name}, statement ${n}, ${kind}`).toBe(before);
        }
        finish(engine, op, at);
        engine.close();
        // BEGIN, COMMIT, and what is between.
        expect(n, 'statements').toBeGreaterThan(3);
        expect(outcome(copy), `${name}, after ${kind}`).toEqual(wanted);
      }
    },
  );
});
