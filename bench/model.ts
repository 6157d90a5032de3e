/**
 * Proof of the row model: 1 000 000 messages in one paused bulk, 10 000 bulks of one, one account sending all the time. Prints
 * the cost of a claim of 64, of steering the big bulk and of an accept, before the commit's sync (synchronous=OFF here; what a
 * sync costs is the disk's business and measured in run.ts) and how they change over the churn.
 *
 *   node bench/model.ts [minutes of churn, default 0.2] [directory]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Accept } from '../src/domain/rows.ts';
import type { Claims } from '../src/store/contract.ts';
import { type Op, openEngine } from '../src/store/sqlite/engine.ts';

const minutes = Number(process.argv[2] ?? '0.2');
const dir = mkdtempSync(join(process.argv[3] ?? tmpdir(), 'postcard-model-'));
const engine = openEngine({ file: join(dir, 'model.db'), retentionMs: 1e12, now: Date.now(), synchronous: 'OFF' });

function one<Result>(...op: Op): Result {
  const [result] = engine.apply([op], Date.now());
  if (!result || !('ok' in result)) throw new Error(JSON.stringify(result));
  return result.ok as Result;
}

function request(account: number, count: number, bulkId: string | null): Accept {
  const first = one<number>('reserve', count + 2);
  const start = first + 2;
  return {
    account,
    first,
    bulkId,
    sendAt: null,
    intervalUs: null,
    specs: [
      {
        first: start,
        end: start + count,
        sender: 'Bench',
        campaign: null,
        entity: null,
        application: null,
        endpoint: null,
        intermediate: false,
        notify: true,
        body: '{"sender":"Bench","content":{"messageSegments":[{"type":"TEXT","text":"hello"}]}}',
        uploads: [],
        links: [],
      },
    ],
    runs: [
      { first: start, end: start + count, spec: first + 1, lane, group: false, window: null, validityMs: 172_800_000 },
    ],
    to: Array.from({ length: count }, (_, i) => String(441134960000 + (i % 100_000))),
    refused: [],
    keys: [],
    idem: null,
  };
}

function timed(work: () => void): number {
  const begin = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - begin) / 1e6;
}

function summary(name: string, values: number[]): void {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (q: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0).toFixed(3);
  console.log(
    `${name.padEnd(34)} n ${String(sorted.length).padStart(6)}   p50 ${at(0.5)} ms   p99 ${at(0.99)} ms   max ${at(1)} ms`,
  );
}

const lane = one<number>('lane', { carrier: 'bench', onUnknown: 'hold', reports: true });
console.log('filling: 1 000 000 messages in one bulk, paused; 10 000 bulks of one');
one('accept', request(1, 10, 'big'));
one('bulkSteer', { account: 1, bulk: { id: 'big' }, to: 'PAUSED' });
const fill = timed(() => {
  for (let i = 0; i < 100; i++) one('accept', request(1, 10_000, 'big'));
});
const small = timed(() => {
  for (let i = 0; i < 10_000; i++) one('accept', request(2, 1, `bulk-${i}`));
});
console.log(`1 000 000 in ${(fill / 1000).toFixed(1)} s, 10 000 bulks in ${(small / 1000).toFixed(1)} s`);

const claims: number[] = [];
const accepts: number[] = [];
const steers: number[] = [];
const deadline = Date.now() + minutes * 60_000;
let rounds = 0;
let done = 0;
while (Date.now() < deadline) {
  const live = request(3, 1, null);
  accepts.push(timed(() => one('accept', live)));
  let result: Claims | null = null;
  claims.push(
    timed(() => {
      result = one<Claims>('claim', { lane, limit: 64, leaseMs: 90_000 });
    }),
  );
  const settles: Op[] = (result as unknown as Claims).claims.map((claim) => [
    'settle',
    {
      lane,
      token: claim.token,
      leader: claim.leader,
      outcome: { kind: 'accepted', carrierMessageId: `m${claim.leader}` },
      startedAt: Date.now(),
      tookMs: 1,
    },
  ]);
  done += settles.length;
  if (settles.length > 0) engine.apply(settles, Date.now());
  if (rounds++ % 20 === 0) {
    steers.push(timed(() => one('bulkSteer', { account: 1, bulk: { id: 'big' }, to: 'PROCESSING' })));
    steers.push(timed(() => one('bulkSteer', { account: 1, bulk: { id: 'big' }, to: 'PAUSED' })));
  }
}
const half = Math.floor(claims.length / 2);
summary('claim of up to 64, first half', claims.slice(0, half));
summary('claim of up to 64, second half', claims.slice(half));
summary('accept of one', accepts);
summary('pause or resume 1 000 000', steers);
console.log(`${rounds} rounds, ${done} submitted`);
engine.close();
rmSync(dir, { recursive: true });
