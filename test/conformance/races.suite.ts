/**
 * Races on the store, each forced: two verbs at once (sent before either has answered), or one that comes between two others.
 * Whatever order an engine brings them into, what is promised holds. Only contract verbs are used.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Claim, Webhook } from '../../src/store/contract.ts';
import {
  accepted,
  DAY,
  DEFERRED,
  type Desk,
  type Harness,
  HOUR,
  LEASE,
  MINUTE,
  numbers,
  openDesk,
  REFUSED,
  SECOND,
  UNKNOWN,
  VALIDITY,
} from './desk.ts';
import type { Engine } from './store.suite.ts';

const URL = 'https://shop.example/reports';
const HOLD = { onUnknown: 'hold', reports: true } as const;

/** At once: all are asked before one has answered. */
const atOnce = <Result>(count: number, work: (n: number) => Promise<Result>): Promise<Result[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => work(n)));

export function raceSuite(name: string, engine: Engine): void {
  describe(`${name}: races`, () => {
    const timed = it.skipIf(!engine.clock);
    let h: Harness;
    let desk: Desk;
    beforeEach(async () => {
      h = await engine.open();
      desk = await openDesk(h);
    });
    afterEach(() => h.close());

    describe('of accepts', () => {
      it('with one Idempotency-Key: one is stored, all get its answer', async () => {
        const idem = { key: 'k', hash: 'h' };
        const requests = await atOnce(6, () => desk.request({ to: numbers(2), idem }));
        const answers = await atOnce(6, (n) => h.store.accept(requests[n] as (typeof requests)[0]));
        const kinds = answers.map((answer) => answer.kind).sort();
        expect(kinds).toEqual(['accepted', ...Array(5).fill('replayed')]);
        expect(new Set(answers.map((answer) => 'first' in answer && answer.first)).size).toBe(1);
        expect(await desk.logs()).toHaveLength(2);
        expect((await desk.claim()).claims).toHaveLength(2);
      });

      it('with one Idempotency-Key and other bodies: one is stored, the others are conflicts', async () => {
        const requests = await atOnce(4, (n) => desk.request({ idem: { key: 'k', hash: `h${n}` } }));
        const answers = await atOnce(4, (n) => h.store.accept(requests[n] as (typeof requests)[0]));
        const kinds = answers.map((answer) => answer.kind).sort();
        expect(kinds).toEqual(['accepted', ...Array(3).fill('idempotencyConflict')]);
        expect(await desk.logs()).toHaveLength(1);
      });

      it('with one messageId: one has it, the others are duplicates and send nothing', async () => {
        const requests = await atOnce(5, () => desk.request({ keys: [[0, 'order']] }));
        const answers = await atOnce(5, (n) => h.store.accept(requests[n] as (typeof requests)[0]));
        expect(answers.filter((answer) => 'duplicates' in answer && answer.duplicates.length === 0)).toHaveLength(1);
        expect(await desk.logs()).toHaveLength(1);
        expect((await desk.claim()).claims).toHaveLength(1);
      });

      it('that make one bulk: it is made once, and all are in it', async () => {
        const requests = await atOnce(5, () => desk.request({ to: numbers(2), bulkId: 'b' }));
        const answers = await atOnce(5, (n) => h.store.accept(requests[n] as (typeof requests)[0]));
        expect(new Set(answers.map((answer) => 'bulk' in answer && answer.bulk)).size).toBe(1);
        expect((await h.store.bulkGet(1, { id: 'b' }))?.progress).toMatchObject({ accepted: 10, waiting: 10 });
        expect((await h.store.bulkList(1, 10)).bulks).toHaveLength(1);
      });

      it('and a cancel of their bulk: what was accepted before ends with it, what comes after is refused', async () => {
        await desk.accept({ bulkId: 'b' });
        const requests = await atOnce(4, () => desk.request({ bulkId: 'b' }));
        const [steered, ...answers] = await Promise.all([
          h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]),
          ...requests.map((request) => h.store.accept(request)),
        ]);
        expect(steered.kind).toBe('done');
        const taken = answers.filter((answer) => answer.kind === 'accepted').length;
        expect(answers.filter((answer) => answer.kind === 'bulkCanceled')).toHaveLength(4 - taken);
        expect((await desk.claim()).claims).toEqual([]);
        await desk.sweep();
        expect((await h.store.bulkGet(1, { id: 'b' }))?.progress).toMatchObject({
          accepted: 1 + taken,
          failed: 1 + taken,
        });
      });
    });

    describe('of claims', () => {
      it('on one lane give each message once', async () => {
        const { nos } = await desk.accept({ to: numbers(150) });
        await desk.accept({ account: 2, to: numbers(50) });
        await desk.accept({ to: numbers(30), bulkId: 'b', groups: [10, 20] });
        const claimed = await atOnce(8, () => desk.claim(20));
        for (let n = 0; n < 40; n++) claimed.push(await desk.claim(20));
        const members = claimed.flatMap(({ claims }) => claims.flatMap((claim) => claim.members.map(({ no }) => no)));
        expect(members).toHaveLength(230);
        expect(new Set(members).size).toBe(230);
        expect(members).toEqual(expect.arrayContaining(nos));
        const tokens = claimed.flatMap(({ claims }) => claims.map((claim) => claim.token));
        expect(new Set(tokens).size).toBe(tokens.length);
      });

      timed('of one bulk with a speed limit take one turn after the other, on two lanes too', async () => {
        const second = await desk.laneOf('mmsc', 1);
        await desk.accept({ to: numbers(60), bulkId: 'b', every: 20 });
        await desk.accept({ to: numbers(60, 100), bulkId: 'b', lane: second });
        const turns: number[] = [];
        for (let n = 0; n < 20; n++) {
          const claimed = await atOnce(4, (k) => desk.claim(10, k % 2 ? second : desk.lane));
          turns.push(...claimed.flatMap(({ claims }) => claims.map((claim) => claim.notBeforeUs)));
          h.advance(100);
        }
        turns.sort((a, b) => a - b);
        expect(turns.length).toBeGreaterThan(60);
        for (let n = 1; n < turns.length; n++) expect((turns[n] as number) - (turns[n - 1] as number)).toBe(20_000);
      });

      it('and a pause of their bulk: nothing is claimed once the pause has answered', async () => {
        const { nos } = await desk.accept({ to: numbers(100), bulkId: 'b' });
        const [claimed] = await Promise.all([
          atOnce(3, () => desk.claim(5)),
          h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'pause' }]),
        ]);
        expect((await desk.claim()).claims).toEqual([]);
        const taken = claimed.flatMap(({ claims }) => claims);
        // What was claimed before runs on; put back, it waits with the others.
        await h.store.release(taken, h.now());
        expect((await desk.claim()).claims).toEqual([]);
        await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'resume' }]);
        expect((await desk.claim(1000)).claims.map((claim) => claim.leader).sort()).toEqual([...nos].sort());
      });

      it('and sweeps: nothing is lost or given twice', async () => {
        await desk.accept({ to: numbers(100) });
        const [claimed] = await Promise.all([atOnce(4, () => desk.claim(30)), atOnce(4, () => h.store.sweep())]);
        const taken = claimed.flatMap(({ claims }) => claims.map((claim) => claim.leader));
        const rest = (await desk.claim(1000)).claims.map((claim) => claim.leader);
        expect(new Set([...taken, ...rest]).size).toBe(100);
        expect(taken.length + rest.length).toBe(100);
      });
    });

    describe('of settles', () => {
      it('with one token: one decides', async () => {
        const no = await desk.one();
        const claim = await desk.claimOne();
        const outcomes = [REFUSED, accepted('a'), DEFERRED, UNKNOWN];
        const fresh = await atOnce(4, (n) => desk.settle(claim, outcomes[n] as (typeof outcomes)[0]));
        expect(fresh.filter((one) => one)).toHaveLength(1);
        expect((await desk.story(no)).attempts).toHaveLength(1);
        expect(await h.store.stats()).toMatchObject({ inFlight: 0 });
      });

      timed('of a lost lease and of the claim that took over: only the latter decides', async () => {
        await desk.open('retry');
        const no = await desk.one();
        const lost = await desk.claimOne();
        h.advance(LEASE + SECOND);
        await desk.sweep();
        h.advance(10 * SECOND);
        const now = await desk.claimOne();
        expect(now.leader).toBe(lost.leader);
        for (const outcome of [REFUSED, DEFERRED, UNKNOWN, accepted('old')]) {
          expect(await desk.settle(lost, outcome)).toBe(false);
        }
        await h.store.release([lost], h.now());
        expect((await desk.story(no)).message).toMatchObject({ status: 3, claimed: true });
        expect((await desk.claim()).claims).toEqual([]);
        const [old, fresh] = await Promise.all([desk.settle(lost, REFUSED), desk.settle(now, accepted('new'))]);
        expect([old, fresh]).toEqual([false, true]);
        expect(await desk.status(no)).toEqual([3, 0]);
        // Both ids are its own.
        expect(await desk.report('old', 'deferred')).toBe(true);
        expect(await desk.report('new', 'retrieved')).toBe(true);
        expect(await desk.status(no)).toEqual([5, 0]);
      });

      timed('and the loss of the lease: one of them decides', async () => {
        const { nos } = await desk.accept({ to: numbers(20) });
        const { claims } = await desk.claim();
        h.advance(LEASE + SECOND);
        const [fresh] = await Promise.all([
          atOnce(20, (n) => desk.settle(claims[n] as (typeof claims)[0], REFUSED)),
          h.store.sweep(),
        ]);
        await desk.sweep();
        for (const [n, no] of nos.entries()) {
          expect(await desk.status(no)).toEqual(fresh[n] ? [4, 15009] : [3, 15000]);
          expect((await desk.story(no)).attempts).toHaveLength(1);
        }
      });

      it('and a release of the same claim: one of them counts', async () => {
        const { nos } = await desk.accept({ to: numbers(10) });
        const { claims } = await desk.claim();
        const [fresh] = await Promise.all([
          atOnce(10, (n) => desk.settle(claims[n] as (typeof claims)[0], REFUSED)),
          h.store.release(claims, h.now()),
        ]);
        const back = (await desk.claim()).claims.map((claim) => claim.leader).sort();
        expect(back).toEqual(nos.filter((_, n) => !fresh[n]).sort());
        for (const [n, no] of nos.entries()) expect((await desk.status(no))[0]).toBe(fresh[n] ? 4 : 26);
      });

      it('and the report that their id is for: the report decides', async () => {
        const { nos } = await desk.accept({ to: numbers(12), endpoint: URL });
        const { claims } = await desk.claim();
        await Promise.all(
          claims.flatMap((claim, n) => {
            const settle = () => desk.settle(claim, accepted(`r${n}`));
            const report = () => desk.report(`r${n}`, 'retrieved');
            return n % 2 ? [settle(), report()] : [report(), settle()];
          }),
        );
        for (const no of nos) expect(await desk.status(no)).toEqual([5, 0]);
        const told = (await desk.webhooks()).webhooks.flatMap(({ events }) => events.map(({ no }) => no));
        expect(told.sort()).toEqual([...nos].sort());
      });

      timed('after a pause: what is to be repeated waits for its bulk', async () => {
        const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b' });
        const [sent, again, back] = (await desk.claim()).claims;
        if (!sent || !again || !back) throw new Error('three claims expected');
        await desk.steer(1, { id: 'b' }, 'PAUSED');
        await desk.settle(sent, accepted('s'));
        await desk.settle(again, DEFERRED);
        await h.store.release([back], h.now());
        h.advance(HOUR);
        expect((await desk.claim()).claims).toEqual([]);
        expect(await desk.status(nos[0] as number)).toEqual([3, 0]);
        await desk.steer(1, { id: 'b' }, 'PROCESSING');
        expect((await desk.claim()).claims.map((claim) => [claim.leader, claim.attempt]).sort()).toEqual([
          [nos[1], 2],
          [nos[2], 1],
        ]);
      });

      timed('after a cancel: what the carrier took runs on, what is to be repeated ends', async () => {
        const { nos } = await desk.accept({ to: numbers(3), groups: [2], bulkId: 'b' });
        const { claims } = await desk.claim();
        const group = claims.find((claim) => claim.members.length === 2);
        const single = claims.find((claim) => claim.members.length === 1);
        if (!group || !single) throw new Error('two claims expected');
        await Promise.all([
          h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]),
          desk.settle(group, DEFERRED),
          desk.settle(single, accepted('s')),
        ]);
        await desk.sweep();
        h.advance(2 * SECOND);
        await desk.sweep();
        expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
          [31, 4100],
          [31, 4100],
          [3, 0],
        ]);
        h.advance(HOUR);
        expect((await desk.claim()).claims).toEqual([]);
      });

      timed('after a move to another day: a repetition waits for it, and ends by its own validity', async () => {
        const no = await desk.one({ bulkId: 'b' });
        const claim = await desk.claimOne();
        await h.store.bulkSteer(1, { id: 'b' }, [
          { kind: 'pause' },
          { kind: 'reschedule', sendAt: h.now() + DAY },
          { kind: 'resume' },
        ]);
        await desk.sweep();
        await desk.settle(claim, DEFERRED);
        h.advance(HOUR);
        expect((await desk.claim()).claims).toEqual([]);
        h.advance(DAY - HOUR);
        expect(await desk.claimOne()).toMatchObject({ leader: no, attempt: 2, validUntil: claim.validUntil });
      });
    });

    describe('of ends', () => {
      timed('a validity that ends while it is in flight does not end it, the settle or the lease does', async () => {
        const { nos } = await desk.accept({ to: numbers(4), validityMs: MINUTE });
        h.advance(MINUTE - SECOND);
        const { claims } = await desk.claim();
        const [a, b, c] = claims;
        if (!a || !b || !c) throw new Error('claims expected');
        h.advance(SECOND);
        await Promise.all([h.store.sweep(), desk.settle(a, accepted('a'))]);
        await desk.sweep();
        expect(await desk.status(nos[1] as number)).toEqual([26, 0]);
        await desk.settle(b, DEFERRED);
        await h.store.release([c], h.now());
        expect((await desk.claim()).claims).toEqual([]);
        h.advance(LEASE + MINUTE);
        await desk.sweep();
        h.advance(MINUTE);
        await desk.sweep();
        expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
          [29, 815],
          [15, 15000],
          [15, 4100],
          [29, 815],
        ]);
      });

      timed('a report at the instant of the end decides, or is noted; there is one final status', async () => {
        const { nos } = await desk.accept({ to: numbers(20), validityMs: HOUR, endpoint: URL });
        for (const [n, claim] of (await desk.claim()).claims.entries()) await desk.settle(claim, accepted(`e${n}`));
        h.advance(HOUR);
        await Promise.all([atOnce(20, (n) => desk.report(`e${n}`, 'retrieved')), h.store.sweep()]);
        await desk.sweep();
        const told: number[] = [];
        for (const no of nos) {
          const { message, events } = await desk.story(no);
          expect([5, 29]).toContain(message.status);
          expect(events.filter(({ kind, status }) => kind === 'status' && status !== 3)).toHaveLength(1);
        }
        for (const { events } of (await desk.webhooks()).webhooks) told.push(...events.map(({ no }) => no));
        expect(told.sort()).toEqual([...nos].sort());
      });

      it('reports of one message at once: the first final wins, the others are noted', async () => {
        const no = await desk.one({ endpoint: URL });
        await desk.settle(await desk.claimOne(), accepted('m'));
        const kinds = ['retrieved', 'rejected', 'expired', 'retrieved'] as const;
        await atOnce(4, (n) => desk.report('m', kinds[n] as (typeof kinds)[0]));
        const { events, message } = await desk.story(no);
        expect(events.filter(({ kind }) => kind === 'noted')).toHaveLength(3);
        const told = (await desk.webhooks()).webhooks.flatMap((webhook) => webhook.events);
        expect(told).toMatchObject([{ no, status: message.status }]);
      });

      it('sweeps at once end each message once', async () => {
        const { nos } = await desk.accept({ to: numbers(40), bulkId: 'b', endpoint: URL });
        await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
        await atOnce(6, () => h.store.sweep());
        await desk.sweep();
        for (const no of nos) expect((await desk.story(no)).events.map(({ status }) => status)).toEqual([31]);
        expect((await h.store.bulkGet(1, { id: 'b' }))?.progress).toMatchObject({ accepted: 40, failed: 40 });
      });
    });

    describe('of steerings', () => {
      it('that exclude each other: one is done, the other finds what it did', async () => {
        await desk.accept({ to: numbers(5), bulkId: 'b', sendAt: h.now() + HOUR });
        const steer = (kind: 'cancel' | 'pause') => h.store.bulkSteer(1, { id: 'b' }, [{ kind }]);
        const [canceled, paused] = await Promise.all([steer('cancel'), steer('pause')]);
        expect(canceled.kind).toBe('done');
        if (paused.kind !== 'done') expect(paused).toEqual({ kind: 'conflict', status: 'CANCELED' });
        expect((await h.store.bulkGet(1, { id: 'b' }))?.status).toBe('CANCELED');
        await desk.sweep();
        expect((await h.store.bulkGet(1, { id: 'b' }))?.progress).toMatchObject({ accepted: 5, failed: 5 });
      });

      it('of a request without a bulk of its own, the first time, by several: it has one bulk', async () => {
        const { bulk } = await desk.accept({ to: numbers(5) });
        await desk.claimOne();
        const steered = await atOnce(4, () => h.store.bulkSteer(1, { no: bulk }, [{ kind: 'pause' }]));
        expect(steered.map(({ kind }) => kind)).toEqual(Array(4).fill('done'));
        expect((await h.store.bulkList(1, 10)).bulks).toMatchObject([{ no: bulk, status: 'PAUSED' }]);
        expect((await desk.claim()).claims).toEqual([]);
      });
    });

    describe('of webhooks', () => {
      it('two who ask at once get no POST twice, and no message in two', async () => {
        for (let n = 0; n < 6; n++) {
          await desk.one({ endpoint: `${URL}/${n}` });
          await desk.one({ endpoint: `${URL}/${n}` });
        }
        await desk.settleAll(() => REFUSED);
        const asked = await atOnce(4, () => desk.webhooks(4));
        const webhooks = asked.flatMap((one) => one.webhooks);
        for (let n = 0; n < 5; n++) webhooks.push(...(await desk.webhooks(4)).webhooks);
        expect(new Set(webhooks.map(({ no }) => no)).size).toBe(webhooks.length);
        const nos = webhooks.flatMap(({ events }) => events.map(({ no }) => no));
        expect([nos.length, new Set(nos).size]).toEqual([12, 12]);
      });

      it('settled twice at once counts once', async () => {
        const no = await desk.delivered({ endpoint: URL });
        const [webhook] = (await desk.webhooks()).webhooks as [Webhook];
        const settled = await atOnce(4, (n) => desk.answer(webhook, n % 2 === 0));
        expect(settled.filter((one) => one)).toHaveLength(1);
        expect((await desk.story(no)).webhooks).toHaveLength(1);
      });

      timed('a lost lease, given to another, is settled by that one alone, whatever the first says then', async () => {
        const no = await desk.delivered({ endpoint: URL });
        const [lost] = (await desk.webhooks()).webhooks as [Webhook];
        h.advance(30 * SECOND);
        const [again] = (await desk.webhooks()).webhooks as [Webhook];
        const settled = await Promise.all([desk.answer(lost, true), desk.answer(again, false, 'b')]);
        expect(settled).toEqual([false, true]);
        expect(await desk.answer(lost, true)).toBe(false);
        h.advance(MINUTE);
        const [third] = (await desk.webhooks()).webhooks as [Webhook];
        expect(third).toMatchObject({ no: lost.no, retry: 1, body: 'b' });
        expect((await desk.story(no)).webhooks).toMatchObject([{ retry: 0, status: 503 }]);
      });

      timed('a later status is not told while the earlier one is in flight or waits for its retry', async () => {
        const no = await desk.one({ endpoint: URL, intermediate: true });
        await desk.settle(await desk.claimOne(), accepted('i'));
        const [enroute] = (await desk.webhooks()).webhooks as [Webhook];
        expect(enroute.events).toMatchObject([{ no, status: 7 }]);
        await desk.answer(enroute, true);
        const [first] = (await desk.webhooks()).webhooks as [Webhook];
        await Promise.all([desk.report('i', 'retrieved'), desk.answer(first, false, 'b')]);
        expect((await desk.webhooks()).webhooks).toEqual([]);
        h.advance(MINUTE);
        const [retry] = (await desk.webhooks()).webhooks as [Webhook];
        expect(retry.events).toMatchObject([{ no, status: 3 }]);
        await desk.answer(retry, true);
        expect((await desk.webhooks()).webhooks[0]?.events).toMatchObject([{ no, status: 5 }]);
      });
    });

    describe('of reads that take', () => {
      it('each report is handed out once, whatever the filters of those who ask at once', async () => {
        const all: number[] = [];
        for (let n = 0; n < 8; n++) all.push(await desk.delivered(n % 2 ? { bulkId: 'b' } : {}));
        const pulled = await Promise.all([
          desk.pull({ limit: 3 }),
          desk.pull({ bulks: { nos: [], ids: ['b'] } }),
          desk.pull({ messages: { nos: [all[0] as number, all[2] as number], keys: [] } }),
          desk.pull({ limit: 3 }),
          desk.pull({ generalStatus: 'DELIVERED', limit: 2 }),
        ]);
        const nos = pulled.flat().map(({ no }) => no);
        nos.push(...(await desk.pull()).map(({ no }) => no));
        expect(nos.sort()).toEqual([...all].sort());
      });

      it('each link is fetched by one', async () => {
        for (let n = 0; n < 6; n++) await desk.accept({ links: [`https://a.example/${n}`] });
        const asked = await atOnce(4, () => h.store.mediaNext(3, LEASE));
        const jobs = asked.flatMap((one) => one.jobs);
        for (let n = 0; n < 3; n++) jobs.push(...(await h.store.mediaNext(3, LEASE)).jobs);
        expect(jobs.map(({ url }) => url).sort()).toEqual(
          Array.from({ length: 6 }, (_, n) => `https://a.example/${n}`),
        );
      });
    });

    describe('of a recipient who wants none with turns of a speed limit', () => {
      const optOut = (...destinations: string[]) =>
        h.store.optOutPut(
          1,
          destinations.map((destination) => ({ sender: 'shop', destination })),
        );
      /** All that may be claimed now: fewer than are due may be given, with the word that there is more. */
      const claimDue = async (): Promise<Claim[]> => {
        const claims: Claim[] = [];
        for (let n = 0; n < 10; n++) {
          const more = await desk.claim();
          claims.push(...more.claims);
          if (more.nextDue === null || more.nextDue > more.now) break;
        }
        return claims;
      };
      const turnsOf = (claims: Claim[]) => claims.map(({ leader, notBeforeUs }) => [leader, notBeforeUs / 1000]);

      timed('who opted out while its turn was to come takes none, nor one after another', async () => {
        const start = h.now();
        const { nos } = await desk.accept({ to: numbers(4), bulkId: 'b', every: HOUR });
        await desk.settle(await desk.claimOne(), accepted('a'));
        await optOut(...numbers(2, 2));
        h.advance(HOUR);
        expect(turnsOf(await claimDue())).toEqual([[nos[3], start + HOUR]]);
        for (const no of nos.slice(1, 3)) expect(await desk.status(no)).toEqual([10, 603]);
      });

      timed('in the midst of one claim the others leave an interval apart, with no gap', async () => {
        const { nos } = await desk.accept({ to: numbers(4), bulkId: 'b', every: 100 });
        await optOut(...numbers(1, 2));
        const at = h.now();
        expect(turnsOf(await claimDue())).toEqual([
          [nos[0], at],
          [nos[2], at + 100],
          [nos[3], at + 200],
        ]);
      });

      timed('a retry of one who opted out since takes no turn', async () => {
        const { nos } = await desk.accept({ to: numbers(2), bulkId: 'b', every: HOUR });
        await desk.settle(await desk.claimOne(), DEFERRED);
        await optOut(...numbers(1));
        h.advance(HOUR);
        expect((await claimDue()).map(({ leader }) => leader)).toEqual([nos[1]]);
        expect(await desk.status(nos[0] as number)).toEqual([10, 603]);
      });

      timed('a group without that member is the same submission on every try', async () => {
        const { nos } = await desk.accept({ to: numbers(3), groups: [3] });
        await optOut(...numbers(1, 2));
        const first = await desk.claimOne();
        expect(first.members.map(({ no }) => no)).toEqual([nos[0], nos[2]]);
        await desk.settle(first, DEFERRED);
        h.advance(HOUR);
        expect(await desk.claimOne()).toMatchObject({ members: first.members, generation: 0, attempt: 2 });
      });

      for (const how of ['claim', 'sweep'] as const) {
        const look = async () => {
          if (how === 'sweep') await desk.sweep();
          const claims = await claimDue();
          await desk.sweep();
          return claims.map(({ leader }) => leader);
        };

        timed(`turns that passed unused (${how}) are those of messages, not of numbers without one`, async () => {
          await desk.accept({ keys: [[0, 'known']], lane: await h.store.lane('other', HOLD) });
          await optOut(...numbers(1, 3));
          const more = { to: numbers(6), bulkId: 'b', every: HOUR, validityMs: HOUR };
          // Its numbers 1 and 2 have nothing to send: a repeated id, and one who wants none.
          const { nos } = await desk.accept({ ...more, keys: [[1, 'known']] });
          h.advance(2.5 * HOUR);
          // 0 had the turn at 0:00, 3 the one at 1:00, and 4 has the one at 2:00 for half an hour more.
          expect(await look()).toEqual([nos[4]]);
          for (const no of [nos[0], nos[3]]) expect(await desk.status(no as number)).toEqual([15, 4100]);
          expect((await desk.status(nos[5] as number))[0]).toBe(26);
          h.advance(HOUR);
          expect(await look()).toEqual([nos[5]]);
        });

        timed(`of a group whose turns passed unused (${how}) each member that waited had one`, async () => {
          await optOut(...numbers(1, 2));
          const { nos } = await desk.accept({
            to: numbers(4),
            groups: [3],
            bulkId: 'b',
            every: HOUR,
            validityMs: HOUR,
          });
          h.advance(2.5 * HOUR);
          expect(await look()).toEqual([nos[3]]);
          for (const no of [nos[0], nos[2]]) expect(await desk.status(no as number)).toEqual([15, 4100]);
        });
      }
    });

    timed('everything that raced ends all the same', async () => {
      const { nos } = await desk.accept({ to: numbers(60), bulkId: 'b', endpoint: URL });
      for (let round = 0; round < 4; round++) {
        const claimed = (await atOnce(3, () => desk.claim(8))).flatMap(({ claims }) => claims);
        const outcomes = [accepted(`x${round}`), DEFERRED, UNKNOWN, REFUSED];
        await Promise.all([
          ...claimed.map((claim, n) => desk.settle(claim, outcomes[n % 4] as (typeof outcomes)[0])),
          ...claimed.map((claim, n) => (n % 3 ? null : h.store.release([claim], h.now()))),
          desk.report(`x${round}`, 'retrieved'),
          h.store.bulkSteer(1, { id: 'b' }, [{ kind: round % 2 ? 'resume' : 'pause' }]),
          h.store.sweep(),
        ]);
        h.advance(10 * SECOND);
      }
      h.advance(VALIDITY);
      await desk.sweep();
      h.advance(VALIDITY);
      await desk.sweep();
      for (const no of nos) expect((await desk.story(no)).message.doneAt).not.toBeNull();
      expect(await h.store.stats()).toMatchObject({ waiting: 0, retries: 0, inFlight: 0 });
      const told: number[] = [];
      for (let n = 0; n < 10; n++) {
        for (const webhook of (await desk.webhooks()).webhooks) {
          told.push(...webhook.events.map(({ no }) => no));
          await desk.answer(webhook, true);
        }
      }
      expect(told.sort()).toEqual([...nos].sort());
    });
  });
}
