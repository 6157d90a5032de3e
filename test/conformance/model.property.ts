/**
 * Random operation sequences against any engine, with crashes in between. A small model of what was promised runs beside
 * it; after each step, and once everything has been drained, the promises are checked:
 *
 * - no acknowledged message is lost, none appears that was not accepted (G1, G2);
 * - one final status per message, never changed (G4), and everything ends within its validity and ten minutes;
 * - at most one open claim per message (G7), never before sendAt, after validity, or while paused (G8);
 * - webhooks of a message come in the order of its events and each event at least once, in one POST number (G9, G10);
 * - each pulled report once (G16), and every message is told exactly one final status, by push or by pull.
 */
import { expect } from 'vitest';
import type { Claim, Webhook } from '../../src/store/contract.ts';
import {
  accepted,
  createDesk,
  DEFERRED,
  type Desk,
  type Harness,
  HOUR,
  MINUTE,
  numbers,
  REFUSED,
  SECOND,
  UNKNOWN,
} from './desk.ts';

/** mulberry32 (T. Ettinger, public domain). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const FINAL = 3;

interface Known {
  account: number;
  bulk: string | null;
  notBefore: number;
  final: [number, number] | null;
  push: boolean;
  told: number;
  lastEvent: number;
}

/** Runs one sequence. Throws (an assertion) at the first broken promise; the seed reproduces it. */
export async function runSequence(h: Harness, seed: number, steps: number): Promise<void> {
  const desk = createDesk(h);
  const next = random(seed);
  const int = (n: number): number => Math.floor(next() * n);
  const pick = <Item>(list: readonly Item[]): Item => list[int(list.length)] as Item;
  const chance = (p: number): boolean => next() < p;

  const policy = pick(['hold', 'retry', 'fail'] as const);
  await desk.open(policy, chance(0.8));
  const known = new Map<number, Known>();
  const paused = new Map<string, boolean>();
  const canceled = new Set<string>();
  /** Claims this node holds, by message. */
  const open = new Map<number, { claim: Claim; until: number }>();
  const stale: Claim[] = [];
  const hooks = new Map<number, { webhook: Webhook; until: number }>();
  const ids: string[] = [];
  let named = 0;

  async function accept(): Promise<void> {
    const account = 1 + int(2);
    const bulk = chance(0.5) ? `bulk-${account}-${int(3)}` : undefined;
    const count = pick([1, 1, 2, 5]);
    const group = count > 1 && chance(0.4);
    const sendAt = chance(0.2) ? h.now() + int(2 * HOUR) : undefined;
    const push = chance(0.6);
    const keys: [number, string][] = chance(0.3) ? [[0, `key-${account}-${int(20)}`]] : [];
    const { answer, nos } = await desk.accept({
      account,
      to: numbers(count, int(50) * 10),
      keys,
      validityMs: pick([5 * MINUTE, HOUR, 6 * HOUR]),
      intermediate: chance(0.5),
      ...(group ? { groups: [count] } : {}),
      ...(bulk === undefined ? {} : { bulkId: bulk }),
      ...(sendAt === undefined ? {} : { sendAt }),
      ...(chance(0.15) && bulk !== undefined ? { every: pick([SECOND, MINUTE]) } : {}),
      ...(push ? { endpoint: `https://e.example/${account}/${int(2)}` } : {}),
      ...(chance(0.1) && !group ? { refused: [[count - 1, 52]] as [number, number][] } : {}),
    });
    if (answer.kind === 'bulkCanceled' && bulk !== undefined && canceled.has(bulk)) return;
    if (answer.kind !== 'accepted') throw new Error(`not accepted: ${answer.kind}`);
    if (bulk !== undefined && !paused.has(bulk)) paused.set(bulk, false);
    for (const no of nos) {
      if (answer.duplicates.includes(no)) continue;
      known.set(no, {
        account,
        bulk: bulk ?? null,
        notBefore: sendAt ?? 0,
        final: null,
        push,
        told: 0,
        lastEvent: 0,
      });
    }
  }

  function drop(no: number): void {
    const held = open.get(no);
    if (held) for (const member of held.claim.members) open.delete(member.no);
  }

  async function claim(): Promise<void> {
    const { claims, now } = await desk.claim(1 + int(20));
    for (const one of claims) {
      expect(one.validUntil, 'claimed after its validity').toBeGreaterThan(now);
      expect(one.notBeforeUs / 1000, 'leaves after its validity').toBeLessThan(one.validUntil);
      for (const member of one.members) {
        const message = known.get(member.no);
        expect(message, `claimed ${member.no}, which was never accepted`).toBeDefined();
        if (!message) return;
        expect(message.final, `claimed ${member.no}, which is final`).toBeNull();
        expect(now, 'claimed before sendAt').toBeGreaterThanOrEqual(message.notBefore);
        if (message.bulk !== null) expect(paused.get(message.bulk), 'claimed while paused').toBe(false);
        const held = open.get(member.no);
        // A lease that is over may be claimed again, by its policy.
        expect(held === undefined || held.until <= now, `two claims of ${member.no}`).toBe(true);
        if (held) stale.push(held.claim);
        open.set(member.no, { claim: one, until: now + 45 * SECOND });
      }
    }
  }

  async function settle(): Promise<void> {
    const held = [...open.values()];
    if (held.length === 0) return;
    const { claim: one, until } = pick(held);
    const id = chance(0.95) ? `id-${named++}` : '';
    const fresh = await desk.settle(
      one,
      pick([
        accepted(id),
        accepted(id),
        {
          kind: 'accepted',
          carrierMessageId: id,
          refused: [{ recipient: one.members[0]?.to ?? '', error: { id: 15009 } }],
        },
        DEFERRED,
        { kind: 'throttled', retryAfterMs: 2 * SECOND },
        REFUSED,
        UNKNOWN,
      ]),
    );
    if (id !== '') ids.push(id);
    if (fresh) stale.push(one);
    else expect(until, 'a live lease was refused').toBeLessThanOrEqual(h.now());
    for (const member of one.members) drop(member.no);
  }

  async function settleStale(): Promise<void> {
    if (stale.length === 0) return;
    const one = pick(stale);
    const id = `id-${named++}`;
    expect(await desk.settle(one, pick([accepted(id), REFUSED, DEFERRED])), 'a stale token decided').toBe(false);
    ids.push(id);
  }

  async function report(): Promise<void> {
    // Known, unknown for ever, or not known yet.
    const id = pick([pick(ids.length > 0 ? ids : ['none']), `id-${named + int(3)}`, 'never']);
    const addresses = numbers(1, int(50) * 10 + int(5));
    await desk.report(id, pick(['retrieved', 'rejected', 'deferred', 'expired', 'forwarded', 'indeterminate']), {
      addresses,
    });
  }

  async function steer(): Promise<void> {
    if (paused.size === 0) return;
    const bulk = pick([...paused.keys()]);
    const to = chance(0.5) ? 'PAUSED' : 'PROCESSING';
    const account = Number(bulk.split('-')[1]);
    if (chance(0.3)) return change(account, bulk);
    if (await desk.steer(account, { id: bulk }, to)) paused.set(bulk, to === 'PAUSED');
    else {
      const status = (await h.store.bulkGet(account, { id: bulk }))?.status;
      const refuses = to === 'PAUSED' ? ['FINISHED', 'CANCELED'] : ['FINISHED', 'CANCELED', 'PENDING'];
      expect(refuses).toContain(status);
      expect(status === 'CANCELED').toBe(canceled.has(bulk));
    }
  }

  /** Moves a bulk, changes its pace, or gives it up. */
  async function change(account: number, bulk: string): Promise<void> {
    const sendAt = h.now() + int(HOUR);
    const asked = pick([
      { kind: 'reschedule', sendAt },
      { kind: 'reschedule', sendAt },
      { kind: 'limit', speed: { amount: pick([1, 60]) } },
      { kind: 'cancel' },
    ] as const);
    const steered = await h.store.bulkSteer(account, { id: bulk }, [asked]);
    if (steered.kind !== 'done') return;
    if (asked.kind === 'cancel') {
      canceled.add(bulk);
      paused.set(bulk, true);
    }
    if (asked.kind !== 'reschedule') return;
    for (const message of known.values()) if (message.bulk === bulk) message.notBefore = sendAt;
  }

  function tell(no: number, event: number, status: number, final: boolean): void {
    const message = known.get(no);
    if (!message) throw new Error(`told of ${no}, which was never accepted`);
    expect(event, `an event of ${no} out of order`).toBeGreaterThanOrEqual(message.lastEvent);
    if (event > message.lastEvent && final) message.told++;
    message.lastEvent = event;
    expect(message.told, `${no} was told two final statuses (${status})`).toBeLessThanOrEqual(1);
  }

  async function post(): Promise<void> {
    const { webhooks, now } = await desk.webhooks(1 + int(5));
    for (const webhook of webhooks) {
      const held = hooks.get(webhook.no);
      expect(held === undefined || held.until <= now, `two leases of POST ${webhook.no}`).toBe(true);
      expect(webhook.events.length).toBeGreaterThan(0);
      expect(new Set(webhook.events.map((event) => event.no)).size, 'two events of a message in one POST').toBe(
        webhook.events.length,
      );
      for (const event of webhook.events)
        tell(event.no, event.event, event.status, event.status !== 26 && event.status !== 3);
      if (chance(0.8)) {
        hooks.delete(webhook.no);
        expect(await desk.answer(webhook, chance(0.7), 'body')).toBe(true);
      } else hooks.set(webhook.no, { webhook, until: now + 30 * SECOND });
    }
  }

  async function pull(): Promise<void> {
    const account = 1 + int(2);
    for (const row of await desk.pull({ account, limit: 1 + int(5) })) {
      expect(known.get(row.no)?.push, 'pulled what is pushed').toBe(false);
      tell(row.no, row.event, row.status, true);
    }
  }

  async function check(): Promise<void> {
    for (const account of [1, 2]) {
      const { rows } = await h.store.logs({ account, limit: 100_000 });
      const mine = [...known].filter(([, message]) => message.account === account).map(([no]) => no);
      expect(rows.map((row) => row.no)).toEqual(mine.sort((a, b) => b - a));
      for (const row of rows) {
        const message = known.get(row.no) as Known;
        const status: [number, number] = [row.status, row.error];
        if (message.final) expect(status, `the final status of ${row.no} changed`).toEqual(message.final);
        else if (row.state >= FINAL) message.final = status;
      }
      for (const bulk of paused.keys()) {
        if (Number(bulk.split('-')[1]) !== account) continue;
        const states = rows.filter((row) => row.bulkId === bulk).map((row) => row.state);
        const count = (from: number, to: number): number =>
          states.filter((state) => state >= from && state <= to).length;
        expect((await h.store.bulkGet(account, { id: bulk }))?.progress, `the figures of ${bulk}`).toEqual({
          accepted: states.length,
          waiting: count(0, 0),
          sent: count(1, 2),
          delivered: count(3, 3),
          failed: count(4, 6),
        });
      }
    }
  }

  const deeds: [number, () => Promise<void>][] = [
    [6, accept],
    [8, claim],
    [8, settle],
    [1, settleStale],
    [6, report],
    [2, steer],
    [6, post],
    [2, pull],
    [3, async () => void (await h.store.sweep())],
    [
      1,
      async () => {
        await h.crash();
        hooks.clear();
        // What was in flight is given up by the next sweep; until then its outcome is still welcome.
        for (const held of open.values()) held.until = 0;
      },
    ],
    [4, async () => h.advance(pick([SECOND, 10 * SECOND, MINUTE, 20 * MINUTE]))],
    [
      1,
      async () => {
        const held = [...open.values()];
        if (held.length === 0) return;
        const { claim: one } = pick(held);
        await h.store.release([one], h.now());
        stale.push(one);
        for (const member of one.members) drop(member.no);
      },
    ],
  ];
  const total = deeds.reduce((sum, [weight]) => sum + weight, 0);
  for (let step = 0; step < steps; step++) {
    const at = int(total);
    let sum = 0;
    const deed = deeds.find(([weight]) => {
      sum += weight;
      return at < sum;
    }) as (typeof deeds)[number];
    await deed[1]();
    // After a claim or a sweep a message may have become final under an open claim; the books follow the store.
    if (step % 10 === 0) await check();
    else if (deed[1] === claim || deed[1] === settle || deed[1] === report) await check();
  }
  await drain(h, desk, known, paused, post, pull, check);
}

/** Faults off: everything must end and be told. */
async function drain(
  h: Harness,
  desk: Desk,
  known: Map<number, Known>,
  paused: Map<string, boolean>,
  post: () => Promise<void>,
  pull: () => Promise<void>,
  check: () => Promise<void>,
): Promise<void> {
  for (const bulk of paused.keys()) {
    await desk.steer(Number(bulk.split('-')[1]), { id: bulk }, 'PROCESSING');
    paused.set(bulk, false);
  }
  for (let round = 0; round < 14; round++) {
    h.advance(HOUR);
    await desk.sweep();
  }
  await check();
  for (const [no, message] of known) expect(message.final, `${no} never ended`).not.toBeNull();
  expect(await h.store.stats()).toMatchObject({ waiting: 0, inFlight: 0, retries: 0 });
  for (let round = 0; round < 600; round++) {
    h.advance(10 * MINUTE);
    await post();
    await pull();
  }
  for (const [no, message] of known) expect(message.told, `${no} was not told its end`).toBe(1);
  expect(await h.store.stats()).toMatchObject({ webhooksWaiting: 0, pull: 0 });
}
