/**
 * Dispatch over the real engine, in virtual time, against a carrier that follows a script: what leaves, when, how often, and
 * what the store knows of it afterwards.
 */
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import type { ControlledStore } from '../../test/conformance/engine-store.ts';
import { acceptRequest, IDS, openVirtualStore, START } from '../../test/virtual-store.ts';
import type { Carrier } from '../carriers/carrier.ts';
import type { MessageRequest, SendRequest } from '../domain/message.ts';
import { createRouting } from '../domain/routing.ts';
import type { Outcome, Submission } from '../domain/submission.ts';
import { type TestEnv, testEnv } from '../env.ts';
import { type Claims, type Store, StoreUnavailable, type Story } from '../store/contract.ts';
import { createDispatch, type Dispatch } from './dispatch.ts';
import type { Fit } from './fit.ts';
import type { Prepared, PrepareResult } from './prepare.ts';

interface Call {
  at: number;
  ended: number | null;
  submission: Submission;
}

type Script = (call: Call, nth: number, signal: AbortSignal) => Promise<Outcome> | Outcome;

interface Setup {
  script?: Script;
  concurrency?: number;
  ratePerSecond?: number;
  timeoutMs?: number;
  fit?: (env: TestEnv) => Fit;
  onUnknown?: 'hold' | 'retry' | 'fail';
  /** Replaces verbs of the store, to be slow, away or silent. */
  verbs?: (store: Store, env: TestEnv) => Partial<Store>;
}

interface World {
  env: TestEnv;
  /** The engine itself, never away. */
  store: ControlledStore;
  dispatch: Dispatch;
  calls: Call[];
  claims: number[];
  accept(request: SendRequest): Promise<number[]>;
  story(no: number): Promise<Story>;
  run(ms: number): Promise<void>;
}

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function world(setup: Setup = {}): Promise<World> {
  const env = testEnv({ now: START });
  const store = openVirtualStore(env);
  closing.push(() => store.close());
  const claims: number[] = [];
  const counted: Store = new Proxy(store, {
    get(target, name: keyof Store) {
      if (name !== 'claim') return target[name];
      return async (...args: Parameters<Store['claim']>): Promise<Claims> => {
        const result = await target.claim(...args);
        claims.push(result.claims.length);
        return result;
      };
    },
  });
  const verbs = setup.verbs?.(counted, env) ?? {};
  const seen = new Proxy(counted, { get: (target, name: keyof Store) => verbs[name] ?? target[name] });
  const lane = await store.lane('carrier', { onUnknown: setup.onUnknown ?? 'retry', reports: true });
  const calls: Call[] = [];
  const script: Script = setup.script ?? ((_, nth) => accepted(`id-${nth}`));
  const carrier = {
    name: 'carrier',
    async submit(submission: Submission, signal: AbortSignal): Promise<Outcome> {
      const call: Call = { at: env.clock.monotonic(), ended: null, submission };
      const nth = calls.push(call) - 1;
      try {
        return await script(call, nth, signal);
      } finally {
        call.ended = env.clock.monotonic();
      }
    },
    close: async () => undefined,
  } as unknown as Carrier;
  const dispatch = createDispatch({
    store: seen,
    env,
    install: 'test',
    ids: IDS,
    node: 'one',
    lanes: [
      {
        no: lane,
        carrier,
        concurrency: setup.concurrency ?? 8,
        ratePerSecond: setup.ratePerSecond ?? 0,
        timeoutMs: setup.timeoutMs ?? 30_000,
        ...(setup.fit ? { fit: setup.fit(env) } : {}),
      },
    ],
  });
  return {
    env,
    store,
    dispatch,
    calls,
    claims,
    async accept(request) {
      return acceptRequest(store, request, { now: env.clock.now(), routing: createRouting([[lane]]) });
    },
    async story(no) {
      const story = await store.story(1, { no });
      if (!story) throw new Error(`no message ${no}`);
      return story;
    },
    run: (ms) => env.clock.advance(ms),
  };
}

const accepted = (carrierMessageId: string): Outcome => ({ kind: 'accepted', carrierMessageId });
const failed = (kind: 'deferred' | 'unknown' | 'refused'): Outcome => ({
  kind,
  error: { id: 15000, words: 'scripted' },
});

function number(i: number): string {
  return `49171${String(i).padStart(7, '0')}`;
}

function message(count: number, more: Partial<MessageRequest> = {}, from = 0): MessageRequest {
  return {
    sender: 'Sender',
    destinations: Array.from({ length: count }, (_, i) => ({ to: number(from + i) })),
    content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
    ...more,
  };
}

/** Content of one picture that was uploaded before; its bytes are what the store gives for `hash`. */
async function uploaded(w: World, hash: string): Promise<MessageRequest['content']> {
  const id = `up-${hash}`;
  await w.store.putUpload({ account: 1, id, name: 'x', hash, contentType: 'image/png', size: 7, validityMs: 1e9 });
  return { messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId: id }] };
}

const instant = (at: number): string => new Date(at).toISOString();

/** The most that lie in any half-open interval of `span`. */
function mostWithin(times: number[], span: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  let most = 0;
  for (let i = 0, j = 0; i < sorted.length; i++) {
    while ((sorted[i] as number) - (sorted[j] as number) >= span) j++;
    most = Math.max(most, i - j + 1);
  }
  return most;
}

/** The most submissions that were out at once, of all or of one transaction id. */
function mostAtOnce(calls: Call[]): number {
  const edges = calls.flatMap((call) => [[call.at, 1] as const, [call.ended ?? Number.POSITIVE_INFINITY, -1] as const]);
  edges.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let now = 0;
  let most = 0;
  for (const [, step] of edges) {
    now += step;
    most = Math.max(most, now);
  }
  return most;
}

describe('claiming', () => {
  it('keeps all slots busy and never has more submissions out than it has slots', async () => {
    const w = await world({
      concurrency: 5,
      script: async (_, nth) => {
        await w.env.clock.sleep(20 + ((nth * 37) % 50));
        return accepted(`id-${nth}`);
      },
    });
    await w.accept({ messages: [message(200)] });
    w.dispatch.start();
    await w.run(10_000);
    expect(w.calls).toHaveLength(200);
    expect(mostAtOnce(w.calls)).toBe(5);
    const took = Math.max(...w.calls.map((call) => call.ended as number));
    const work = w.calls.reduce((sum, call) => sum + (call.ended as number) - call.at, 0);
    expect(took).toBeLessThan((work / 5) * 1.25);
  });

  it('takes many messages with one claim when many wait', async () => {
    const w = await world({
      concurrency: 64,
      script: async (_, nth) => {
        await w.env.clock.sleep(30 + (nth % 40));
        return accepted(`id-${nth}`);
      },
    });
    await w.accept({ messages: [message(3000)] });
    w.dispatch.start();
    await w.run(10_000);
    expect(w.calls).toHaveLength(3000);
    const working = w.claims.filter((count) => count > 0).length;
    expect(3000 / working).toBeGreaterThan(6);
  });

  it('does not answer a storm of hints with a storm of claims', async () => {
    const w = await world({
      concurrency: 64,
      script: async (_, nth) => {
        await w.env.clock.sleep(1);
        return accepted(`id-${nth}`);
      },
    });
    w.dispatch.start();
    await w.run(100);
    for (let i = 0; i < 500; i++) {
      await w.accept({ messages: [message(1, {}, i)] });
      w.dispatch.wake();
      await w.run(0.5);
    }
    await w.run(100);
    expect(w.calls).toHaveLength(500);
    expect(w.claims.length).toBeLessThan(100);
  });

  it.each([
    ['as long as it took', 20, 20],
    ['50 ms at most', 200, 50],
  ])(
    'lets a busy store rest after a claim, %s, so that what comes meanwhile shares the next',
    async (_, took, rest) => {
      const asked: { at: number; answeredAt: number; claims: number }[] = [];
      const w = await world({
        concurrency: 1000,
        verbs: (store, env) => ({
          claim: async (...given) => {
            const at = env.clock.monotonic();
            await env.clock.sleep(took);
            const found = await store.claim(...given);
            asked.push({ at, answeredAt: env.clock.monotonic(), claims: found.claims.length });
            return found;
          },
        }),
      });
      w.dispatch.start();
      for (let i = 0; i < 1000; i++) {
        await w.accept({ messages: [message(1, {}, i)] });
        w.dispatch.wake();
        await w.run(2);
      }
      await w.run(1_000);
      expect(w.calls).toHaveLength(1000);
      const rests = asked
        .slice(1)
        .flatMap(({ at, claims }, n) => (claims > 0 ? [at - (asked[n]?.answeredAt ?? 0)] : []));
      expect(rests.length).toBeGreaterThan(5);
      expect(rests.length).toBeLessThan(2 + 2_000 / (took + rest));
      for (const waited of rests) expect(waited).toBeGreaterThanOrEqual(rest);
      expect(Math.min(...rests)).toBeLessThan(rest + 5);
    },
  );

  it('submits a message at once when the lane is idle', async () => {
    const w = await world();
    w.dispatch.start();
    await w.run(500);
    await w.accept({ messages: [message(1)] });
    await w.run(0);
    expect(w.calls).toHaveLength(1);
  });

  it('does not spin when the store says that something is due and gives nothing', async () => {
    let asked = 0;
    const w = await world({
      verbs: (_, env) => ({
        claim: async () => {
          asked++;
          return { now: env.clock.now(), claims: [], specs: [], nextDue: env.clock.now() };
        },
      }),
    });
    w.dispatch.start();
    await w.run(60_000);
    expect(asked).toBeLessThan(80);
    expect(asked).toBeGreaterThan(50);
  });

  it('finds work that fell due without any hint', async () => {
    const w = await world({ verbs: () => ({ onHint: () => undefined }) });
    w.dispatch.start();
    await w.run(5_000);
    await w.accept({ messages: [message(1)] });
    await w.run(1_001);
    expect(w.calls).toHaveLength(1);
  });

  it('goes on after the store was away', async () => {
    let away = true;
    const w = await world({
      verbs: (store) => ({
        claim: async (...args) => {
          if (away) throw new StoreUnavailable('disk full');
          return store.claim(...args);
        },
      }),
    });
    await w.accept({ messages: [message(3)] });
    w.dispatch.start();
    await w.run(30_000);
    expect(w.calls).toHaveLength(0);
    expect(w.env.lines.filter((line) => line.message.startsWith('claim failed')).length).toBeLessThan(35);
    away = false;
    await w.run(2_000);
    expect(w.calls).toHaveLength(3);
  });
});

describe('time and pace', () => {
  it.each([1, 7, 50, 300])('holds %i a second in every sliding second, and uses them', async (rate) => {
    const w = await world({
      concurrency: 100,
      ratePerSecond: rate,
      script: async (_, nth) => {
        await w.env.clock.sleep((nth * 7919) % 300);
        return accepted(`id-${nth}`);
      },
      verbs: (store, env) => ({
        // Commits take 0 to 30 ms.
        claim: async (...args) => {
          const result = await store.claim(...args);
          await env.clock.sleep(env.random.float() * 30);
          return result;
        },
      }),
    });
    await w.accept({ messages: [message(rate * 20)] });
    w.dispatch.start();
    await w.run(10_000);
    const times = w.calls.map((call) => call.at);
    // Short of a second by less than what adding up fractions of a millisecond may lose.
    expect(mostWithin(times, 1000 - 1e-6)).toBe(rate);
    expect(times.length).toBeGreaterThanOrEqual(Math.floor(rate * 10 * 0.97));
  });

  it('holds a rate below one a second', async () => {
    const w = await world({ ratePerSecond: 0.25 });
    await w.accept({ messages: [message(10)] });
    w.dispatch.start();
    await w.run(20_001);
    expect(w.calls.map((call) => Math.round(call.at / 1000))).toEqual([0, 4, 8, 12, 16, 20]);
  });

  it('holds the rate when this process stands still and all timers fire at once', async () => {
    const w = await world({ concurrency: 100, ratePerSecond: 10 });
    const sleep = w.env.clock.sleep;
    // For 3 s nobody wakes up: the sleepers of that time come out together.
    w.env.clock.sleep = async (ms, signal) => {
      await sleep(ms, signal);
      const now = w.env.clock.monotonic();
      if (now > 2_000 && now < 5_000) await sleep(5_000 - now);
    };
    await w.accept({ messages: [message(200)] });
    w.dispatch.start();
    await w.run(12_000);
    const times = w.calls.map((call) => call.at);
    expect(mostWithin(times, 1000)).toBeLessThanOrEqual(10);
    expect(times.filter((at) => at >= 5_000).length).toBeGreaterThan(60);
  });

  const slowClaims = (store: Store, env: TestEnv): Partial<Store> => ({
    // 100 ms on the way to the store, 50 ms back.
    claim: async (...args) => {
      await env.clock.sleep(100);
      const result = await store.claim(...args);
      await env.clock.sleep(50);
      return result;
    },
  });

  it('never leaves before sendAt, and not noticeably after, though the claim answers late', async () => {
    const w = await world({ verbs: slowClaims });
    w.dispatch.start();
    await w.run(1_234);
    await w.accept({ messages: [message(1)], options: { schedule: { sendAt: instant(START + 61_700) } } });
    await w.run(61_700 - 1_234 - 1);
    expect(w.calls).toHaveLength(0);
    await w.run(400);
    expect(w.calls).toHaveLength(1);
    expect(w.calls[0]?.at).toBeGreaterThanOrEqual(61_700);
  });

  it('leaves on its turn of a speed limit, not before, though the claim answers late', async () => {
    const w = await world({ verbs: slowClaims });
    const schedule = { sendingSpeedLimit: { amount: 60, timeUnit: 'MINUTE' as const } };
    await w.accept({ messages: [message(20)], options: { schedule } });
    w.dispatch.start();
    await w.run(30_000);
    expect(w.calls).toHaveLength(20);
    // The first turn is when the store read the first claim.
    for (const [k, call] of w.calls.entries()) {
      const turn = 100 + (k * 60_250) / 60;
      expect(call.at).toBeGreaterThanOrEqual(turn - 0.01);
      expect(call.at).toBeLessThan(turn + 60);
    }
  });

  it('does not take for punctual what was claimed while this process stood still', async () => {
    let stood = 0;
    const w = await world({
      verbs: (store, env) => ({
        claim: async (...args) => {
          const result = await store.claim(...args);
          // Between the store's commit and our reading of it.
          if (result.claims.length > 0 && stood++ % 2 === 0) await env.clock.sleep(4_279);
          return result;
        },
      }),
    });
    await w.accept({ messages: [message(4)], options: { schedule: { sendingSpeedLimit: { amount: 1 } } } });
    w.dispatch.start();
    await w.run(8 * 60_250);
    const at = w.calls.map((call) => call.at);
    expect(at).toHaveLength(4);
    for (let n = 1; n < at.length; n++) {
      expect((at[n] as number) - (at[n - 1] as number)).toBeGreaterThanOrEqual(60_000);
    }
  });

  it("holds a bulk's speed limit in every sliding minute, whatever store and carrier do", async () => {
    const w = await world({
      concurrency: 50,
      script: async (_, nth) => {
        await w.env.clock.sleep((nth * 7919) % 3000);
        return accepted(`id-${nth}`);
      },
      verbs: (store, env) => ({
        claim: async (...args) => {
          const result = await store.claim(...args);
          // Now and then far beyond the slack: those must take a new turn.
          await env.clock.sleep(env.random.float() < 0.05 ? 900 : env.random.float() * 60);
          return result;
        },
      }),
    });
    const schedule = { sendingSpeedLimit: { amount: 120, timeUnit: 'MINUTE' as const } };
    await w.accept({ messages: [message(600)], options: { schedule } });
    w.dispatch.start();
    await w.run(180_000);
    const times = w.calls.map((call) => call.at);
    expect(mostWithin(times, 60_000)).toBeLessThanOrEqual(120);
    expect(times.length).toBeGreaterThan(280);
    expect(new Set(w.calls.map((call) => call.submission.transactionId)).size).toBe(times.length);
  });

  it('gives a new turn to what became late in its preparation, so that it does not crowd its successors', async () => {
    const slow = new Set<string>();
    const w = await world({
      concurrency: 50,
      verbs: (_, env) => ({
        content: async (hash) => {
          if (slow.delete(hash)) await env.clock.sleep(4_000);
          return Buffer.from(hash);
        },
      }),
    });
    const schedule = { bulkId: 'paced', sendingSpeedLimit: { amount: 120, timeUnit: 'MINUTE' as const } };
    for (let i = 0; i < 20; i++) {
      const hash = createHash('sha256').update(`${i}`).digest('hex');
      slow.add(hash);
      const content = await uploaded(w, hash);
      await w.accept({ messages: [message(1, { content }, i)], options: { schedule } });
    }
    await w.accept({ messages: [message(400, {}, 100)], options: { schedule } });
    w.dispatch.start();
    await w.run(120_000);
    const times = w.calls.map((call) => call.at);
    expect(mostWithin(times, 60_000)).toBeLessThanOrEqual(120);
    expect(slow.size).toBe(0);
    const ids = w.calls.map((call) => call.submission.transactionId);
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('puts back a claim that became old in its preparation, and sends it once with the next', async () => {
    let slow = true;
    const bytes = Buffer.from('picture');
    const hash = createHash('sha256').update(bytes).digest('hex');
    const w = await world({
      verbs: (_, env) => ({
        content: async () => {
          if (slow) await env.clock.sleep(6_000);
          slow = false;
          return bytes;
        },
      }),
    });
    const content = await uploaded(w, hash);
    const [no] = await w.accept({ messages: [message(1, { content })] });
    w.dispatch.start();
    await w.run(5_999);
    expect(w.calls).toHaveLength(0);
    await w.run(2_000);
    expect(w.calls).toHaveLength(1);
    expect(w.claims.reduce((sum, count) => sum + count, 0)).toBe(2);
    const story = await w.story(no as number);
    expect(story.attempts.map((attempt) => attempt.outcome)).toEqual(['accepted']);
    expect(story.message.status).toBe(3);
  });

  it('does not send what its validity has left behind', async () => {
    const w = await world({
      verbs: (store, env) => ({
        claim: async (...args) => {
          const result = await store.claim(...args);
          await env.clock.sleep(3_000);
          return result;
        },
      }),
    });
    const [no] = await w.accept({
      messages: [message(1, { options: { validityPeriod: { amount: 2, timeUnit: 'SECONDS' } } })],
    });
    w.dispatch.start();
    await w.run(60_000);
    expect(w.calls).toHaveLength(0);
    const { message: row } = await w.story(no as number);
    expect([row.status, row.error]).toEqual([15, 4100]);
  });

  it('does not send what its window has closed before, though it was claimed in time', async () => {
    let slow = 0;
    const w = await world({
      verbs: (store, env) => ({
        claim: async (...args) => {
          const result = await store.claim(...args);
          if (result.claims.length > 0) await env.clock.sleep(slow);
          return result;
        },
      }),
    });
    // The window closes on the next full hour but one; the claim is answered in time, and two seconds later.
    const HOUR = 3_600_000;
    const closes = (Math.floor(w.env.clock.now() / HOUR) + 2) * HOUR;
    await w.run(closes - w.env.clock.now() - 10_000);
    const hour = (closes / HOUR) % 24;
    const days = ['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'] as const;
    const window = { days: [...days], from: { hour: (hour + 23) % 24 }, to: { hour } };
    w.dispatch.start();
    await w.accept({ messages: [message(1, { options: { deliveryTimeWindow: window } })] });
    await w.run(5_000);
    expect(w.calls).toHaveLength(1);
    slow = 2_000;
    await w.run(closes - w.env.clock.now() - 1_000);
    await w.accept({ messages: [message(1, { options: { deliveryTimeWindow: window } })] });
    await w.run(HOUR);
    expect(w.calls).toHaveLength(1);
    // It is the first of the next day's.
    slow = 0;
    await w.run(closes + 23 * HOUR + 1_000 - w.env.clock.now());
    expect(w.calls).toHaveLength(2);
  });
});

describe('outcomes', () => {
  it('has one submission of a message out at a time, with one transaction id, until it is taken', async () => {
    const w = await world({
      concurrency: 20,
      timeoutMs: 5_000,
      script: async (call, nth, signal) => {
        const roll = w.env.random.float();
        const repeated = w.calls.filter((one) => one.submission.transactionId === call.submission.transactionId).length;
        if (repeated > 3) return accepted(`id-${nth}`);
        await w.env.clock.sleep(roll * 8_000, signal);
        if (signal.aborted || roll < 0.3) return failed('unknown');
        return roll < 0.6 ? failed('deferred') : accepted(`id-${call.submission.recipients[0]}-${nth}`);
      },
    });
    const numbers = await w.accept({ messages: [message(60)] });
    w.dispatch.start();
    await w.run(3_600_000);
    for (const no of numbers) {
      const mine = w.calls.filter((call) => call.submission.transactionId === `test-${no}`);
      expect(mostAtOnce(mine)).toBe(1);
      const story = await w.story(no);
      expect(story.attempts).toHaveLength(mine.length);
      expect(story.attempts.at(-1)?.outcome).toBe('accepted');
    }
    expect(new Set(w.calls.map((call) => call.submission.transactionId)).size).toBe(60);
    expect(w.calls.length).toBeGreaterThan(80);
  });

  it('takes a submission that meets its time-out as unknown', async () => {
    const w = await world({
      timeoutMs: 1_000,
      onUnknown: 'hold',
      script: async (_, _nth, signal) => {
        await w.env.clock.sleep(60_000, signal);
        throw signal.reason;
      },
    });
    const [no] = await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(999);
    expect((await w.story(no as number)).attempts).toHaveLength(0);
    await w.run(2);
    const story = await w.story(no as number);
    expect(story.attempts[0]).toMatchObject({ outcome: 'unknown', tookMs: 1000, words: 'no answer within 1000 ms' });
    expect(story.message.status).toBe(3);
  });

  it('takes back the slot of a carrier that does not heed its time-out, and still learns its id', async () => {
    const w = await world({
      concurrency: 1,
      timeoutMs: 1_000,
      onUnknown: 'hold',
      script: async (_, nth) => {
        if (nth === 0) await w.env.clock.sleep(20_000);
        return accepted(`id-${nth}`);
      },
    });
    const [late, next] = await w.accept({ messages: [message(2)] });
    w.dispatch.start();
    await w.run(4_000);
    expect(w.calls).toHaveLength(2);
    expect((await w.story(next as number)).message.status).toBe(3);
    expect((await w.story(late as number)).attempts.map((attempt) => attempt.outcome)).toEqual(['unknown']);
    await w.run(20_000);
    const report = { carrier: 'carrier', carrierMessageId: 'id-0', addresses: [number(0)], words: 'Retrieved' };
    expect((await w.store.report({ ...report, kind: 'retrieved' })).known).toBe(true);
    expect((await w.story(late as number)).message.status).toBe(5);
  });

  it('takes an exception of the carrier as unknown, and says so in the log', async () => {
    const w = await world({
      onUnknown: 'hold',
      script: () => {
        throw new TypeError('a bug');
      },
    });
    const [no] = await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(10);
    expect((await w.story(no as number)).attempts.map((attempt) => attempt.outcome)).toEqual(['unknown']);
    expect(w.env.lines.filter((line) => line.level === 'error').map((line) => line.message)).toEqual(['carrier threw']);
  });

  it('tells of each attempt in one line that names its messages as their customers know them, at most ten', async () => {
    const w = await world();
    const to = (count: number) => Array.from({ length: count }, (_, n) => ({ to: String(441134960000 + n) }));
    const [single, ...group] = await w.accept({
      messages: [
        { ...message(1), destinations: [{ to: '441134960999', messageId: 'own' }] },
        { ...message(1), destinations: [{ group: to(12) }] },
      ],
    });
    w.dispatch.start();
    await w.run(10);
    const lines = w.env.lines.filter((line) => line.message === 'attempt').map((line) => line.fields);
    expect(lines).toHaveLength(2);
    expect(lines).toContainEqual(expect.objectContaining({ messageIds: ['own'], attempt: 1, outcome: 'accepted' }));
    const ten = group.slice(0, 10).map((no) => IDS.print('message', no));
    expect(lines).toContainEqual(expect.objectContaining({ messageIds: ten, members: 12, carrier: 'carrier' }));
    const raw = new Set<unknown>([single, ...group]);
    expect(lines.filter(({ leader, message, no }) => [leader, message, no].some((value) => raw.has(value)))).toEqual(
      [],
    );
  });

  it('rejects a message whose content is gone, with 15025 and without asking the carrier', async () => {
    const w = await world();
    const hash = createHash('sha256').update('gone').digest('hex');
    const content = await uploaded(w, hash);
    const [no] = await w.accept({ messages: [message(1, { content })] });
    w.dispatch.start();
    await w.run(10);
    expect(w.calls).toHaveLength(0);
    const story = await w.story(no as number);
    expect([story.message.status, story.message.error]).toEqual([100, 15025]);
    expect(story.message.sentAt).toBe(null);
    expect(story.attempts[0]?.outcome).toBe('contentFailed');
    expect(story.attempts[0]?.words).toBe('content of segment 0 is gone or damaged');
  });

  it('puts back, and does not call unknown, what could not be prepared because the store was away', async () => {
    let away = true;
    const bytes = Buffer.from('picture');
    const hash = createHash('sha256').update(bytes).digest('hex');
    const w = await world({
      verbs: () => ({
        content: async () => {
          if (away) throw new StoreUnavailable('closing');
          return bytes;
        },
      }),
    });
    const content = await uploaded(w, hash);
    const [no] = await w.accept({ messages: [message(1, { content })] });
    w.dispatch.start();
    await w.run(10_000);
    away = false;
    await w.run(3_000);
    const story = await w.story(no as number);
    expect(story.attempts.map((attempt) => attempt.outcome)).toEqual(['accepted']);
  });

  it('hands a group over in one submission, and again under the same id when that was unknown', async () => {
    const w = await world({ script: (_, nth) => (nth === 0 ? failed('unknown') : accepted('id')) });
    const group = [0, 1, 2].map((i) => ({ to: number(i) }));
    const numbers = await w.accept({ messages: [message(0, { destinations: [{ group }] })] });
    w.dispatch.start();
    await w.run(10_000);
    expect(w.calls.map((call) => call.submission.recipients)).toEqual([group, group].map((g) => g.map((m) => m.to)));
    expect(new Set(w.calls.map((call) => call.submission.transactionId)).size).toBe(1);
    for (const no of numbers) expect((await w.story(no)).message.status).toBe(3);
  });

  it('settles a known outcome when the store comes back, and submits nothing twice', async () => {
    let away = false;
    const w = await world({
      timeoutMs: 10_000,
      script: async (_, nth) => {
        away = true;
        return accepted(`id-${nth}`);
      },
      verbs: (store) => {
        const closed = <Args extends unknown[], Result>(verb: (...args: Args) => Promise<Result>) => {
          return async (...args: Args): Promise<Result> => {
            if (away) throw new StoreUnavailable('disk full');
            return verb(...args);
          };
        };
        return { settle: closed(store.settle), claim: closed(store.claim), sweep: closed(store.sweep) };
      },
    });
    const [no] = await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(60_000);
    expect((await w.story(no as number)).attempts).toHaveLength(0);
    expect(w.env.lines.filter((line) => line.message.startsWith('the store is away'))).toHaveLength(1);
    away = false;
    await w.run(3_000);
    const story = await w.story(no as number);
    expect(story.attempts.map((attempt) => attempt.carrierMessageId)).toEqual(['id-0']);
    expect(story.message.status).toBe(3);
    expect(w.calls).toHaveLength(1);
  });

  it('claims nothing more while too many outcomes wait to be settled', async () => {
    const w = await world({
      concurrency: 4,
      verbs: () => ({
        settle: async () => {
          throw new StoreUnavailable('disk full');
        },
      }),
    });
    await w.accept({ messages: [message(100)] });
    w.dispatch.start();
    await w.run(30_000);
    expect(w.calls).toHaveLength(8);
  });
});

describe('a carrier in trouble', () => {
  it('pauses the whole lane for as long as the carrier asks, and puts back what was about to leave', async () => {
    const w = await world({
      concurrency: 3,
      ratePerSecond: 10,
      script: (_, nth) => (nth === 2 ? { kind: 'throttled', retryAfterMs: 10_000 } : accepted(`id-${nth}`)),
    });
    const numbers = await w.accept({ messages: [message(20)] });
    w.dispatch.start();
    await w.run(5_000);
    expect(w.calls).toHaveLength(3);
    expect(w.dispatch.counters()[0]).toMatchObject({ blocked: true, inFlight: 0 });
    await w.run(60_000);
    const gap = (w.calls[3]?.at as number) - (w.calls[2]?.at as number);
    expect(gap).toBeGreaterThanOrEqual(10_000);
    expect(gap).toBeLessThan(10_500);
    expect(w.calls).toHaveLength(21);
    for (const no of numbers) expect((await w.story(no)).message.status).toBe(3);
  });

  it.each([
    [0, 1_000],
    [Number.NaN, 2_000],
    [365 * 86_400_000, 3_600_000],
  ])('holds a wish of %d ms to %d ms', async (wish, pause) => {
    const script: Script = (_, nth) => (nth === 0 ? { kind: 'throttled', retryAfterMs: wish } : accepted('id'));
    const w = await world({ script });
    await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(pause - 1);
    expect(w.calls).toHaveLength(1);
    await w.run(1_000);
    expect(w.calls).toHaveLength(2);
  });

  it('sends one probe every 5 s while all fails, and opens up with the first success', async () => {
    let sick = true;
    const w = await world({
      concurrency: 10,
      script: async (_, nth) => {
        await w.env.clock.sleep(100);
        return sick ? failed('deferred') : accepted(`id-${nth}`);
      },
    });
    await w.accept({ messages: [message(500)] });
    w.dispatch.start();
    await w.run(1_000);
    // 20 failures, and what was out when the 20th came.
    const burst = w.calls.length;
    expect(burst).toBeGreaterThanOrEqual(20);
    expect(burst).toBeLessThan(30);
    expect(w.dispatch.counters()[0]?.blocked).toBe(true);
    await w.run(50_000);
    const probes = w.calls.slice(burst);
    expect(probes.length).toBeGreaterThanOrEqual(9);
    expect(probes.length).toBeLessThanOrEqual(10);
    expect(mostAtOnce(probes)).toBe(1);
    sick = false;
    const before = w.calls.length;
    await w.run(20_000);
    expect(w.calls.length).toBeGreaterThan(before + 400);
    expect(mostAtOnce(w.calls)).toBe(10);
  });

  it('does not let the stragglers of a dead carrier put off the probe', async () => {
    const w = await world({
      concurrency: 40,
      timeoutMs: 30_000,
      script: async (_, nth) => {
        // The first 40 fail one by one over 10 s, the probe succeeds.
        if (nth >= 40) return accepted(`id-${nth}`);
        await w.env.clock.sleep(250 * (nth + 1));
        return failed('unknown');
      },
      onUnknown: 'hold',
    });
    await w.accept({ messages: [message(40)] });
    w.dispatch.start();
    await w.run(4_999);
    expect(w.dispatch.counters()[0]?.blocked).toBe(false);
    await w.run(2);
    expect(w.dispatch.counters()[0]?.blocked).toBe(true);
    await w.accept({ messages: [message(20, {}, 100)] });
    // The breaker opened at 5 s with the 20th failure, the last straggler came back at 10 s: now it is the probe's turn.
    await w.run(4_990);
    expect(w.calls).toHaveLength(40);
    await w.run(50);
    expect(w.calls).toHaveLength(60);
  });
});

describe('stopping', () => {
  it('takes no more, waits for what is out and settles it, puts back the rest, and leaves no timer', async () => {
    const w = await world({
      concurrency: 4,
      ratePerSecond: 20,
      script: async (_, nth) => {
        await w.env.clock.sleep(5_000);
        return accepted(`id-${nth}`);
      },
    });
    const numbers = await w.accept({ messages: [message(50)] });
    w.dispatch.start();
    await w.run(120);
    const out = w.calls.length;
    expect(out).toBe(3);
    let stopped = false;
    const stop = w.dispatch.stop(30_000).then(() => {
      stopped = true;
    });
    await w.run(4_000);
    expect(stopped).toBe(false);
    await w.run(1_100);
    await stop;
    expect(w.calls).toHaveLength(out);
    expect(w.env.clock.pending()).toBe(0);
    let waiting = 0;
    for (const no of numbers) {
      const story = await w.story(no);
      if (story.attempts.length > 0) expect(story.attempts.map((one) => one.outcome)).toEqual(['accepted']);
      else waiting++;
    }
    expect(waiting).toBe(50 - out);
    expect((await w.store.stats()).inFlight).toBe(0);
    await w.run(60_000);
    expect(w.calls).toHaveLength(out);
  });

  it('does not wait for those who wait for their turn', async () => {
    const w = await world({ ratePerSecond: 20 });
    await w.accept({ messages: [message(50)] });
    w.dispatch.start();
    await w.run(20);
    expect(w.dispatch.counters()[0]?.inFlight).toBeGreaterThan(0);
    let stopped = false;
    void w.dispatch.stop(30_000).then(() => {
      stopped = true;
    });
    await w.run(0);
    expect(stopped).toBe(true);
    expect(w.env.clock.pending()).toBe(0);
    expect((await w.store.stats()).inFlight).toBe(0);
  });

  it('puts back what a claim brings that was on its way', async () => {
    const w = await world({
      verbs: (store, env) => ({
        claim: async (...args) => {
          const result = await store.claim(...args);
          await env.clock.sleep(500);
          return result;
        },
      }),
    });
    await w.accept({ messages: [message(5)] });
    w.dispatch.start();
    await w.run(100);
    const stop = w.dispatch.stop(30_000);
    await w.run(600);
    await stop;
    expect(w.calls).toHaveLength(0);
    expect((await w.store.stats()).inFlight).toBe(0);
    expect(w.env.clock.pending()).toBe(0);
  });

  it('breaks off at the limit what is still out, and settles it as unknown', async () => {
    const w = await world({
      onUnknown: 'hold',
      timeoutMs: 60_000,
      script: async (_, _nth, signal) => {
        await w.env.clock.sleep(100_000, signal);
        return failed('unknown');
      },
    });
    const [no] = await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(1_000);
    const stop = w.dispatch.stop(10_000);
    await w.run(10_001);
    await stop;
    expect((await w.story(no as number)).attempts.map((attempt) => attempt.outcome)).toEqual(['unknown']);
    expect(w.env.clock.pending()).toBe(0);
  });

  it('ends in bounded time though neither carrier nor store answers', async () => {
    let away = false;
    const w = await world({
      timeoutMs: 20_000,
      script: () => new Promise(() => undefined),
      verbs: (store) => ({
        settle: async (...args) => {
          if (away) throw new StoreUnavailable('disk full');
          return store.settle(...args);
        },
      }),
    });
    await w.accept({ messages: [message(3)] });
    w.dispatch.start();
    await w.run(1_000);
    away = true;
    const stop = w.dispatch.stop(5_000);
    await w.run(8_000);
    await stop;
    expect(w.env.clock.pending()).toBe(0);
  });

  it('has nothing to wait for before its start and when idle', async () => {
    const w = await world();
    await w.dispatch.stop(1_000);
    const idle = await world();
    idle.dispatch.start();
    await idle.run(5_000);
    await idle.dispatch.stop(1_000);
    expect(idle.env.clock.pending()).toBe(0);
  });
});

describe('endings that time brings', () => {
  it('sweeps in the background, and goes on when a sweep fails', async () => {
    let fail = 3;
    const w = await world({
      verbs: (store) => ({
        sweep: async () => {
          if (fail-- > 0) throw new StoreUnavailable('disk full');
          return store.sweep();
        },
        claim: async (lane) => store.claim(lane, 0, 1),
      }),
    });
    const [no] = await w.accept({
      messages: [message(1, { options: { validityPeriod: { amount: 10, timeUnit: 'SECONDS' } } })],
    });
    w.dispatch.start();
    await w.run(12_000);
    expect((await w.story(no as number)).message.status).toBe(15);
  });
});

describe('sharing lanes with other nodes', () => {
  it('claims only while it holds the lane, and finishes what it has claimed', async () => {
    let held = false;
    let away = false;
    const beats: [string, number][] = [];
    const t: World = await world({
      script: async (_call, nth) => {
        await t.env.clock.sleep(2_000);
        return accepted(`id-${nth}`);
      },
      verbs: () => ({
        laneLease: async (node, lanes, ttlMs) => {
          beats.push([node, ttlMs]);
          if (away) throw new StoreUnavailable('away');
          return held ? lanes : [];
        },
      }),
    });
    t.dispatch.start();
    await t.accept({ messages: [message(3)] });
    await t.run(20_000);
    expect(t.calls, 'another node holds the lane').toHaveLength(0);

    held = true;
    await t.run(6_000);
    expect(t.calls).toHaveLength(3);

    // The store does not answer the beats: the lease is trusted to its end and no longer.
    away = true;
    await t.run(20_000);
    await t.accept({ messages: [message(1, {}, 10)] });
    await t.run(2_000);
    expect(t.calls).toHaveLength(4);
    await t.run(20_000);
    await t.accept({ messages: [message(1, {}, 20)] });
    await t.run(30_000);
    expect(t.calls, 'the lease has run out').toHaveLength(4);

    away = false;
    await t.run(6_000);
    expect(t.calls).toHaveLength(5);
    const stopped = t.dispatch.stop(30_000);
    await t.run(40_000);
    await stopped;
    expect(beats.at(-1), 'it leaves, so that others need not wait').toEqual(['one', 0]);
    expect(t.env.clock.pending()).toBe(0);
  });
});

describe('content that is made to fit', () => {
  const smaller = (prepared: Prepared): Prepared => ({ ...prepared, subject: 'fitted' });

  it('is what is submitted', async () => {
    const w = await world({ fit: () => (prepared) => ({ ok: true, prepared: smaller(prepared) }) });
    await w.accept({ messages: [message(3)] });
    w.dispatch.start();
    await w.run(1_000);
    expect(w.calls.map(({ submission }) => submission.subject)).toEqual(['fitted', 'fitted', 'fitted']);
  });

  it('ends the message with the error that says why where it cannot', async () => {
    const w = await world({ fit: () => async () => ({ ok: false, error: 15026, words: 'too large' }) });
    const [no = 0] = await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(1_000);
    expect(w.calls).toEqual([]);
    const { message: row, attempts } = await w.story(no);
    expect([row.status, row.error]).toEqual([100, 15026]);
    expect(attempts).toMatchObject([{ outcome: 'contentFailed', words: 'too large' }]);
  });

  it('keeps no claim beyond its age: it is put back, and sent once what it waits for is there', async () => {
    let made: Promise<PrepareResult> | null = null;
    const w = await world({
      concurrency: 2,
      fit: (env) => (prepared) => {
        made ??= env.clock.sleep(20_000).then(() => ({ ok: true, prepared: smaller(prepared) }));
        return made;
      },
    });
    const nos = await w.accept({ messages: [message(2)] });
    w.dispatch.start();
    await w.run(19_000);
    expect(w.calls).toEqual([]);
    // Once every six seconds: five that a claim lives, one that it waits.
    expect(w.claims.filter((count) => count > 0)).toHaveLength(4);
    await w.run(6_000);
    expect(w.calls.map(({ submission }) => submission.subject)).toEqual(['fitted', 'fitted']);
    for (const no of nos) expect((await w.story(no)).attempts).toHaveLength(1);
  });

  it('holds no slot while it is made: what is ready goes by, even on the same line', async () => {
    let filming = 0;
    let ready = false;
    let made: Promise<PrepareResult> | null = null;
    const w = await world({
      concurrency: 2,
      timeoutMs: 10_000,
      fit: (env) => (prepared) => {
        if (prepared.parts.length < 2) return { ok: true, prepared };
        filming++;
        made ??= env.clock.sleep(60_000).then(() => {
          ready = true;
          return { ok: true, prepared: smaller(prepared) };
        });
        return ready ? { ok: true, prepared: smaller(prepared) } : made;
      },
    });
    const text = { type: 'TEXT', text: 'x' } as const;
    const film = { ...message(100), content: { messageSegments: [text, text] } };
    await w.accept({ messages: [film] });
    w.dispatch.start();
    await w.run(5_000);
    expect(w.calls).toEqual([]);
    const waited: number[] = [];
    for (let n = 0; n < 10; n++) {
      const from = w.env.clock.monotonic();
      await w.accept({ messages: [message(1)] });
      await w.run(3_000);
      expect(w.calls).toHaveLength(n + 1);
      waited.push((w.calls[n] as Call).at - from);
    }
    expect(Math.max(...waited)).toBeLessThanOrEqual(1_500);
    // Two slots, a quarter of a second each, for 35 s.
    expect(filming).toBeLessThanOrEqual(35 * 8);
    await w.run(70_000);
    expect(w.calls).toHaveLength(110);
  });

  it('is asked for again where nothing could be said, and no message ends by it', async () => {
    let calls = 0;
    const w = await world({
      fit: () => (prepared) =>
        ++calls < 3 ? Promise.reject(new Error('busy')) : { ok: true, prepared: smaller(prepared) },
    });
    await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(10_000);
    expect(calls).toBe(3);
    expect(w.calls).toHaveLength(1);
  });

  it('does not hold up a stop', async () => {
    const w = await world({ fit: () => () => new Promise<never>(() => undefined) });
    const [no = 0] = await w.accept({ messages: [message(1)] });
    w.dispatch.start();
    await w.run(1_000);
    let stopped = false;
    void w.dispatch.stop(30_000).then(() => {
      stopped = true;
    });
    await w.run(10);
    expect(stopped).toBe(true);
    expect((await w.story(no)).message.claimed).toBe(false);
  });
});
