/**
 * What bulks cost: 10 000 bulks of one message, and one bulk of 100 000 that is steered, sent from and cancelled while another
 * account sends single messages. Prints times; ends with code 1 when a figure or a status is wrong, never for a slow machine.
 *
 * The embedded engine as the writer thread runs it, without its disk's sync (synchronous=OFF: what a sync costs is the disk's
 * business and measured in run.ts). The control is hashing for about as long as a claim: its p99 is what the machine adds.
 *
 *   node bench/bulks.ts [--quick]     a tenth of the messages
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { parseArgs } from 'node:util';
import type { Accept } from '../src/domain/rows.ts';
import type { Bulk, BulkChange, Claims, Steered } from '../src/store/contract.ts';
import { createBulkReads } from '../src/store/sqlite/bulk.ts';
import { type Op, openEngine } from '../src/store/sqlite/engine.ts';
import { rowsOf } from './rows.ts';

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
const SCALE = values.quick ? 10 : 1;
const SMALL = 10_000 / SCALE;
const REQUEST = 10_000;
const BIG = 100_000 / SCALE;
/** Ops in one commit, as many clients make them. */
const TOGETHER = 64;

const dir = mkdtempSync(join(tmpdir(), 'postcard-bulks-'));
const file = join(dir, 'bulks.db');
const engine = openEngine({ file, retentionMs: 1e12, now: Date.now(), synchronous: 'OFF' });
const reader = new DatabaseSync(file, { readOnly: true });
const reads = createBulkReads(reader);

function apply(ops: Op[]): unknown[] {
  return engine.apply(ops, Date.now()).map((result) => {
    if (!('ok' in result)) throw new Error(JSON.stringify(result));
    return result.ok;
  });
}
function one<Result>(...op: Op): Result {
  return apply([op])[0] as Result;
}

const lane = one<number>('lane', { carrier: 'bench', onUnknown: 'hold', reports: false });
let next = one<number>('reserve', 100 * BIG);

function request(account: number, count: number, bulkId: string | null): Accept {
  const first = next;
  next += count + 2;
  return rowsOf({ first, count, lane }, { account, bulkId });
}

function timed<Result>(into: number[], work: () => Result): Result {
  const began = performance.now();
  const result = work();
  into.push(performance.now() - began);
  return result;
}
function shown(times: number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const of = (share: number): string => (sorted[Math.floor((sorted.length - 1) * share)] ?? 0).toFixed(2);
  return `p50 ${of(0.5)} ms, p99 ${of(0.99)} ms, longest ${of(1)} ms`;
}
const print = (what: string, words: string): void => console.log(`${what.padEnd(52)} ${words}`);

let wrong = 0;
function check(good: boolean, words: string): void {
  if (good) return;
  wrong++;
  console.error(`wrong: ${words}`);
}
function stand(account: number, id: string): Bulk {
  const bulk = reads.get(account, { id }, Date.now());
  if (!bulk) throw new Error(`no bulk ${id}`);
  return bulk;
}

/** Claims and ends all that is due for `account`s. Returns how many. */
function sendAll(times: number[]): number {
  for (let count = 0; ; ) {
    const { claims } = timed(times, () => one<Claims>('claim', { lane, limit: TOGETHER, leaseMs: 60_000 }));
    if (claims.length === 0) return count;
    count += claims.length;
    apply(
      claims.map((claim): Op => {
        const outcome = { kind: 'accepted', carrierMessageId: `m${claim.leader}` } as const;
        return [
          'settle',
          { lane, token: claim.token, leader: claim.leader, outcome, startedAt: Date.now(), tookMs: 1 },
        ];
      }),
    );
  }
}

// --- 10 000 bulks of one, beside as many requests without a bulk ------------------------------------------------------
{
  const each: [string, (n: number) => string | null][] = [
    ['without a bulk', () => null],
    ['with a bulk of its own', (n) => `small-${n}`],
  ];
  for (const [words, idOf] of each) {
    const accepts: number[] = [];
    for (let n = 0; n < SMALL; n += TOGETHER) {
      const ops = Array.from(
        { length: Math.min(TOGETHER, SMALL - n) },
        (_, k): Op => ['accept', request(1, 1, idOf(n + k))],
      );
      timed(accepts, () => apply(ops));
    }
    const us = (accepts.reduce((sum, ms) => sum + ms, 0) * 1000) / SMALL;
    print(`${SMALL} requests of one, ${words}: accept`, `${us.toFixed(0)} us each`);
  }
  const pages: number[] = [];
  let listed = 0;
  for (let before: number | undefined; ; ) {
    const page = timed(pages, () => reads.list(1, 100, before, Date.now()));
    listed += page.bulks.length;
    if (page.next === null) break;
    before = page.next;
  }
  check(listed === SMALL, `${listed} bulks listed, ${SMALL} made`);
  print('  a page of 100 in the list', shown(pages));
  const claims: number[] = [];
  const began = performance.now();
  const sent = sendAll(claims);
  const us = ((performance.now() - began) * 1000) / sent;
  check(sent === 2 * SMALL, `${sent} sent`);
  print(`  claim of ${TOGETHER}, then settle`, `${shown(claims)}; ${us.toFixed(0)} us a message`);
  check(stand(1, 'small-7').status === 'FINISHED', 'a bulk of one that was delivered is FINISHED');
}

// --- one bulk of 100 000 ----------------------------------------------------------------------------------------------
{
  const accepts: number[] = [];
  for (let n = 0; n < BIG; n += REQUEST) timed(accepts, () => apply([['accept', request(2, REQUEST, 'big')]]));
  const us = (accepts.reduce((sum, ms) => sum + ms, 0) * 1000) / BIG;
  print(`one bulk of ${BIG}: accept`, `${us.toFixed(1)} us a message`);
  check(stand(2, 'big').progress.waiting === BIG, 'all of it waits');

  const steerings: number[] = [];
  const gets: number[] = [];
  const steer = (...changes: BulkChange[]): void => {
    const { kind } = timed(steerings, () => one<Steered>('bulkSteer', { account: 2, bulk: { id: 'big' }, changes }));
    check(kind === 'done', `${changes[0]?.kind} was ${kind}`);
    timed(gets, () => stand(2, 'big'));
  };
  for (let n = 0; n < 50; n++) {
    steer({ kind: 'pause' });
    steer({ kind: 'reschedule', sendAt: Date.now() + 86_400_000 });
    steer({ kind: 'limit', speed: { amount: 1000 + n } });
    steer({ kind: 'reschedule', sendAt: 0 });
    steer({ kind: 'resume' });
    while (one('sweep', null));
  }
  print('  pause, resume, reschedule, limit', shown(steerings));
  print('  a look at it with its figures', shown(gets));

  steer({ kind: 'limit', speed: { amount: 1_000_000 } });
  const claims: number[] = [];
  const waits: number[] = [];
  for (let n = 0; n < 200 / SCALE; n++) {
    const single = request(3, 1, null);
    apply([['accept', single]]);
    const began = performance.now();
    for (let turn = 0; ; turn++) {
      const found = timed(claims, () => one<Claims>('claim', { lane, limit: TOGETHER, leaseMs: 60_000 })).claims;
      if (found.some((claim) => claim.leader === single.first + 2)) break;
      if (turn > 100) {
        check(false, 'a single message waits behind the bulk');
        break;
      }
    }
    waits.push(performance.now() - began);
  }
  print(`  claim of ${TOGETHER} while it is sent`, shown(claims));
  print("  another account's single message, accept to claim", shown(waits));

  const cancels: number[] = [];
  const { kind } = timed(cancels, () =>
    one<Steered>('bulkSteer', { account: 2, bulk: { id: 'big' }, changes: [{ kind: 'cancel' }] }),
  );
  check(kind === 'done', 'cancelled');
  const steps: number[] = [];
  while (timed(steps, () => one<boolean>('sweep', null)));
  const total = steps.reduce((sum, ms) => sum + ms, 0);
  print('  cancel', `${shown(cancels)}; its rows in ${steps.length} steps of the sweep, ${total.toFixed(0)} ms in all`);
  print('  a step of the sweep', shown(steps));
  const { progress } = stand(2, 'big');
  check(
    progress.accepted === BIG && progress.waiting + progress.sent + progress.failed === BIG,
    JSON.stringify(progress),
  );
  check(progress.failed > 0.5 * BIG, `${progress.failed} ended`);
}

const block = Buffer.alloc(768 * 1024, 1);
const control: number[] = [];
for (let n = 0; n < 500; n++) timed(control, () => createHash('sha256').update(block).digest());
print('control: hashing', shown(control));

reader.close();
engine.close();
rmSync(dir, { recursive: true });
process.exitCode = wrong === 0 ? 0 : 1;
