/**
 * What each verb of the embedded engine costs in processor time, in groups as the writer thread makes them, without threads, HTTP
 * or syncs (synchronous=OFF). Messages go their whole way: accept, claim, settle, report, webhook. The figure to watch when
 * the engine changes: the lowest of many samples hardly moves, whoever else uses the machine.
 *
 *   node bench/engine.ts [messages, default 40000] [operations in a group, default 64]
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Claim, Claims, Webhooks } from '../src/store/contract.ts';
import { type Op, openEngine } from '../src/store/sqlite/engine.ts';
import { bodyOf, rowsOf } from './rows.ts';

const COUNT = Number(process.argv[2] ?? '40000');
const GROUP = Number(process.argv[3] ?? '64');
/** Messages of one sample. */
const SAMPLE = 2_000;
const dir = mkdtempSync(join(tmpdir(), 'postcard-engine-'));
const file = join(dir, 'engine.db');
const engine = openEngine({ file, retentionMs: 1e12, now: Date.now(), synchronous: 'OFF' });
const checkpoint = new DatabaseSync(file);

function apply(ops: Op[]): unknown[] {
  const results = engine.apply(ops, Date.now());
  engine.hints();
  return results.map((result) => {
    if (!('ok' in result)) throw new Error(JSON.stringify(result));
    return result.ok;
  });
}

const lane = apply([['lane', { carrier: 'bench', onUnknown: 'hold', reports: true }]])[0] as number;
let next = apply([['reserve', 10 * COUNT]])[0] as number;
const spec = {
  body: bodyOf('x'.repeat(500)),
  endpoint: { url: 'http://hook.test/', contentType: 'application/json' },
};

function accept(): Op {
  const first = next;
  next += 3;
  return ['accept', rowsOf({ first, count: 1, lane }, { spec })];
}

function cpu(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

let sum = 0;
/** Repeats `work`, which says how many messages it has served, until there were `COUNT`. */
function measure(name: string, work: () => number): void {
  const samples: number[] = [];
  for (let done = 0; done < COUNT; ) {
    const begin = cpu();
    let served = 0;
    while (served < SAMPLE && done + served < COUNT) served += work();
    if (served * 2 >= SAMPLE) samples.push((cpu() - begin) / served);
    done += served;
    if (statSync(`${file}-wal`).size > 64 * 1024 * 1024) checkpoint.exec('PRAGMA wal_checkpoint(RESTART)');
  }
  samples.sort((a, b) => a - b);
  const lowest = samples[0] ?? 0;
  sum += lowest;
  const middle = samples[Math.floor(samples.length / 2)] ?? 0;
  console.log(`${name.padEnd(10)} lowest ${lowest.toFixed(1).padStart(5)}   median ${middle.toFixed(1).padStart(5)}`);
}

/** Groups of operations for `claims`, one each, from the first to the last. */
function each(claims: Claim[], op: (claim: Claim) => Op): () => number {
  let at = 0;
  return () => {
    const part = claims.slice(at, at + GROUP);
    if (part.length === 0) throw new Error('wrong: fewer messages than were accepted');
    at += part.length;
    apply(part.map(op));
    return part.length;
  };
}

console.log(`processor time a message in us, groups of ${GROUP}, ${COUNT} messages, node ${process.version}`);
measure('accept', () => apply(Array.from({ length: GROUP }, accept)).length);
const claims: Claim[] = [];
measure('claim', () => {
  const [answer] = apply([['claim', { lane, limit: GROUP, leaseMs: 90_000 }]]) as [Claims];
  claims.push(...answer.claims);
  if (answer.claims.length === 0) throw new Error('wrong: nothing to claim');
  return answer.claims.length;
});
measure(
  'settle',
  each(claims, ({ token, leader }) => [
    'settle',
    {
      lane,
      token,
      leader,
      outcome: { kind: 'accepted', carrierMessageId: `m${leader}` },
      startedAt: Date.now(),
      tookMs: 1,
    },
  ]),
);
measure(
  'report',
  each(claims, ({ leader }) => [
    'report',
    { carrier: 'bench', carrierMessageId: `m${leader}`, addresses: [], kind: 'retrieved', words: 'retrieved' },
  ]),
);
measure('webhook', () => {
  const [answer] = apply([['webhookNext', { limit: 1, leaseMs: 30_000 }]]) as [Webhooks];
  let told = 0;
  for (const { no, token, events } of answer.webhooks) {
    told += events.length;
    apply([['webhookSettle', { no, token, ok: true, status: 200, tookMs: 1, excerpt: '', body: null }]]);
  }
  if (told === 0) throw new Error('wrong: no webhook is due');
  return told;
});
console.log(`in all     lowest ${sum.toFixed(1).padStart(5)}`);
checkpoint.close();
engine.close();
rmSync(dir, { recursive: true });
