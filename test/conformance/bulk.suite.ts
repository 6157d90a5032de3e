/**
 * Bulks, as every engine must have them: their figures, their status, and what each steering does to what waits, what is in
 * flight and what a carrier has. Only contract verbs are used. Each case needs a clock that can be moved.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { intervalUs } from '../../src/domain/schedule.ts';
import type { Bulk, BulkChange, BulkName, Progress, Steered } from '../../src/store/contract.ts';
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

/** A figure that is not named is 0. */
function figures(some: Partial<Progress>): Progress {
  return { accepted: 0, waiting: 0, sent: 0, delivered: 0, failed: 0, ...some };
}

const B: BulkName = { id: 'b' };

export function bulkSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: bulks`, () => {
    let h: Harness;
    let desk: Desk;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
    });
    afterEach(() => h.close());

    const steer = (...changes: BulkChange[]): Promise<Steered> => h.store.bulkSteer(1, B, changes);
    async function get(bulk: BulkName = B, account = 1): Promise<Bulk> {
      const found = await h.store.bulkGet(account, bulk);
      if (!found) throw new Error('no such bulk');
      return found;
    }
    async function done(...changes: BulkChange[]): Promise<Bulk> {
      const steered = await steer(...changes);
      if (steered.kind !== 'done') throw new Error(JSON.stringify(steered));
      // What the verb answers is what is read afterwards.
      expect(await get()).toEqual(steered.bulk);
      return steered.bulk;
    }
    const leaders = async (limit = 1000): Promise<number[]> => (await desk.claim(limit)).claims.map((c) => c.leader);

    describe('figures', () => {
      it('follow each message from its acceptance to its end, refused ones included', async () => {
        const { nos } = await desk.accept({ to: numbers(6), bulkId: 'b', refused: [[5, 52]] });
        expect((await get()).progress).toEqual(figures({ accepted: 6, waiting: 5, failed: 1 }));
        const { claims } = await desk.claim();
        // On its way to a carrier is not there yet.
        expect((await get()).progress).toEqual(figures({ accepted: 6, waiting: 5, failed: 1 }));
        const [a, b, c, d, e] = claims as [
          (typeof claims)[0],
          (typeof claims)[0],
          (typeof claims)[0],
          (typeof claims)[0],
          (typeof claims)[0],
        ];
        await desk.settle(a, accepted('a'));
        await desk.settle(b, accepted('b'));
        await desk.settle(c, REFUSED);
        await desk.settle(d, DEFERRED);
        await desk.settle(e, UNKNOWN);
        expect((await get()).progress).toEqual(figures({ accepted: 6, waiting: 1, sent: 3, failed: 2 }));
        await desk.report('a', 'retrieved');
        await desk.report('a', 'rejected');
        expect((await get()).progress).toEqual(figures({ accepted: 6, waiting: 1, sent: 2, delivered: 1, failed: 2 }));
        h.advance(VALIDITY);
        await desk.sweep();
        expect(await get()).toMatchObject({
          status: 'FINISHED',
          progress: figures({ accepted: 6, delivered: 1, failed: 5 }),
        });
        expect(await desk.status(nos[3] as number)).toEqual([15, 15000]);
      });

      it('add up over requests, lanes, groups, crashes and folds', async () => {
        const other = await h.store.lane('other', { onUnknown: 'hold', reports: false });
        await desk.accept({ to: numbers(4), groups: [3], bulkId: 'b' });
        await desk.accept({ to: numbers(2, 50), bulkId: 'b', lane: other });
        await desk.accept({ to: numbers(2, 70), bulkId: 'b', account: 2 });
        await desk.sweep();
        for (const claim of (await desk.claim(10, other)).claims) await desk.settle(claim, accepted('x'), other);
        await h.crash();
        await desk.sweep();
        expect((await get()).progress).toEqual(figures({ accepted: 6, waiting: 4, delivered: 2 }));
        expect((await get(B, 2)).progress).toEqual(figures({ accepted: 2, waiting: 2 }));
        await desk.settleAll((claim) => (claim.members.length === 3 ? accepted('g') : REFUSED));
        expect((await get()).progress).toEqual(figures({ accepted: 6, sent: 3, delivered: 2, failed: 1 }));
        expect((await get()).status).toBe('PROCESSING');
      });

      it('count no duplicate, and no failed request', async () => {
        await desk.accept({ to: numbers(2), bulkId: 'b', keys: [[0, 'k']] });
        await desk.accept({ to: numbers(2), bulkId: 'b', keys: [[0, 'k']] });
        expect((await desk.accept({ to: numbers(2), bulkId: 'b', uploads: ['none'] })).answer.kind).toBe(
          'unknownUploads',
        );
        expect((await get()).progress).toEqual(figures({ accepted: 3, waiting: 3 }));
      });

      it('of a request without a bulk of its own are as true, before and after it is steered', async () => {
        const { bulk } = await desk.accept({ to: numbers(3) });
        const name = { no: bulk };
        await desk.settle(await desk.claimOne(), accepted('a'));
        const before = await get(name);
        expect(before).toMatchObject({ no: bulk, id: null, status: 'PROCESSING', speed: null });
        expect(before.sendAt).toBe(h.now());
        expect(before.progress).toEqual(figures({ accepted: 3, waiting: 2, sent: 1 }));
        const steered = await h.store.bulkSteer(1, name, [{ kind: 'pause' }]);
        expect(steered).toMatchObject({ kind: 'done', bulk: { status: 'PAUSED', progress: before.progress } });
        await desk.report('a', 'retrieved');
        expect(await get(name)).toMatchObject({ progress: figures({ accepted: 3, waiting: 2, delivered: 1 }) });
        await h.store.bulkSteer(1, name, [{ kind: 'cancel' }]);
        await desk.sweep();
        expect(await get(name)).toMatchObject({ progress: figures({ accepted: 3, delivered: 1, failed: 2 }) });
      });
    });

    describe('status', () => {
      it('is PENDING while sendAt is ahead, PROCESSING, then FINISHED when each message is final', async () => {
        const sendAt = h.now() + HOUR;
        await desk.accept({ to: numbers(2), bulkId: 'b', sendAt });
        expect(await get()).toMatchObject({ status: 'PENDING', sendAt });
        h.advance(HOUR);
        expect(await get()).toMatchObject({ status: 'PROCESSING', sendAt });
        await desk.settleAll((claim) => accepted(`s${claim.leader}`));
        // Listmonk's users tell of campaigns "finished" that were not: a carrier has them, nobody knows their end yet.
        expect((await get()).status).toBe('PROCESSING');
        h.advance(VALIDITY);
        await desk.sweep();
        expect((await get()).status).toBe('FINISHED');
      });

      it('FINISHED is reopened by a join, PAUSED makes it wait, CANCELED refuses it', async () => {
        await desk.delivered({ bulkId: 'b' });
        expect((await get()).status).toBe('FINISHED');
        const no = await desk.one({ bulkId: 'b' });
        expect((await get()).status).toBe('PROCESSING');
        await done({ kind: 'pause' });
        const joined = await desk.one({ bulkId: 'b' });
        expect(await leaders()).toEqual([]);
        await done({ kind: 'resume' });
        expect((await leaders()).sort()).toEqual([no, joined]);
        await done({ kind: 'cancel' });
        expect((await desk.accept({ bulkId: 'b' })).answer).toEqual({ kind: 'bulkCanceled' });
        expect((await get()).progress.accepted).toBe(3);
      });

      it('decides which steering is done, which is refused, and with which status', async () => {
        const plan = (): BulkChange[] => [
          { kind: 'pause' },
          { kind: 'resume' },
          { kind: 'reschedule', sendAt: h.now() + DAY },
          { kind: 'limit', speed: { amount: 60 } },
          { kind: 'cancel' },
        ];
        const outcomes = async (make: () => Promise<string>): Promise<string[]> => {
          const found: string[] = [];
          for (const change of plan()) {
            const id = await make();
            const steered = await h.store.bulkSteer(1, { id }, [change]);
            found.push(
              steered.kind === 'done'
                ? steered.bulk.status
                : `${steered.kind} ${(steered as { status: string }).status}`,
            );
          }
          return found;
        };
        let count = 0;
        const bulk =
          (more: object, then: (id: string) => Promise<unknown> = async () => undefined) =>
          async () => {
            const id = `s${++count}`;
            await desk.accept({ bulkId: id, ...more });
            await then(id);
            return id;
          };
        const paused = (id: string) => h.store.bulkSteer(1, { id }, [{ kind: 'pause' }]);
        const canceled = (id: string) => h.store.bulkSteer(1, { id }, [{ kind: 'cancel' }]);
        const ahead = { sendAt: h.now() + HOUR };
        expect(await outcomes(bulk(ahead))).toEqual(['PAUSED', 'conflict PENDING', 'PENDING', 'PENDING', 'CANCELED']);
        expect(await outcomes(bulk({}))).toEqual([
          'PAUSED',
          'PROCESSING',
          'conflict PROCESSING',
          'PROCESSING',
          'CANCELED',
        ]);
        expect(await outcomes(bulk(ahead, paused))).toEqual(['PAUSED', 'PENDING', 'PAUSED', 'PAUSED', 'CANCELED']);
        expect(await outcomes(bulk({}, paused))).toEqual(['PAUSED', 'PROCESSING', 'PAUSED', 'PAUSED', 'CANCELED']);
        const gone = Array(4).fill('conflict CANCELED');
        expect(await outcomes(bulk({}, canceled))).toEqual([...gone, 'CANCELED']);
        expect(await outcomes(bulk({ refused: [[0, 52]] }))).toEqual(Array(5).fill('conflict FINISHED'));
      });

      it('a join may have lower numbers than what it joins: another node gave them', async () => {
        const early = await desk.request({ to: numbers(2, 50), bulkId: 'as-printed' });
        const { bulk } = await desk.accept({ to: numbers(3) });
        expect(await h.store.accept({ ...early, bulk })).toMatchObject({ kind: 'accepted', bulk });
        expect((await get({ no: bulk })).progress).toEqual(figures({ accepted: 5, waiting: 5 }));
        expect((await h.store.bulkList(1, 5)).bulks).toEqual([await get({ no: bulk })]);
        await h.store.bulkSteer(1, { no: bulk }, [{ kind: 'cancel' }]);
        await desk.sweep();
        expect(await get({ no: bulk })).toMatchObject({ progress: figures({ accepted: 5, failed: 5 }) });
      });

      it('asked for again is what it is already: also PENDING, where the resume before said so', async () => {
        await desk.accept({ bulkId: 'b', sendAt: h.now() + HOUR });
        await done({ kind: 'pause' });
        await done({ kind: 'pause' });
        const resumed = await done({ kind: 'resume' });
        expect(resumed.status).toBe('PENDING');
        await h.crash();
        h.advance(SECOND);
        expect(await done({ kind: 'resume' })).toEqual(resumed);
      });

      it('is of one account; unknown bulks are unknown to every verb', async () => {
        const { bulk } = await desk.accept({ bulkId: 'b' });
        const plain = await desk.accept({});
        for (const name of [
          B,
          { no: bulk },
          { no: plain.bulk },
          { id: 'none' },
          { no: 99_999_999 },
          { id: "' OR 1=1" },
        ]) {
          expect(await h.store.bulkGet(2, name)).toBeNull();
          expect(await h.store.bulkSteer(2, name, [{ kind: 'pause' }])).toEqual({ kind: 'notFound' });
        }
        expect((await leaders()).length).toBe(2);
      });

      it('changes that come together are done together or not at all', async () => {
        await desk.accept({ bulkId: 'b', sendAt: h.now() + HOUR });
        const both = await done(
          { kind: 'reschedule', sendAt: h.now() + DAY },
          { kind: 'limit', speed: { amount: 5, timeUnit: 'DAY' } },
        );
        expect(both).toMatchObject({ sendAt: h.now() + DAY, speed: { amount: 5, timeUnit: 'DAY' } });
        expect(await steer({ kind: 'limit', speed: { amount: 7 } }, { kind: 'resume' })).toEqual({
          kind: 'conflict',
          status: 'PENDING',
        });
        expect(await get()).toEqual(both);
      });

      it('a generated bulkId that is used again joins its bulk, also a paused or cancelled one', async () => {
        const { bulk, nos } = await desk.accept({ to: numbers(2) });
        const join = async (account = 1) => {
          const rows = await desk.request({ account, bulkId: 'as-printed' });
          return h.store.accept({ ...rows, bulk });
        };
        expect(await join()).toMatchObject({ kind: 'accepted', bulk, bulkId: null });
        expect((await get({ no: bulk })).progress).toEqual(figures({ accepted: 3, waiting: 3 }));
        await h.store.bulkSteer(1, { no: bulk }, [{ kind: 'pause' }]);
        expect(await join()).toMatchObject({ bulk });
        expect(await leaders()).toEqual([]);
        // Of another account it is a name like any other.
        expect(((await join(2)) as { bulk: number }).bulk).not.toBe(bulk);
        await h.store.bulkSteer(1, { no: bulk }, [{ kind: 'cancel' }]);
        expect(await join()).toEqual({ kind: 'bulkCanceled' });
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([31, 4100]);
        expect((await get({ no: bulk })).progress).toEqual(figures({ accepted: 4, failed: 4 }));
      });

      it('survives a crash', async () => {
        await desk.accept({ to: numbers(3), bulkId: 'b', every: 1000 });
        await done(
          { kind: 'pause' },
          { kind: 'reschedule', sendAt: h.now() + DAY },
          { kind: 'limit', speed: { amount: 1, timeUnit: 'HOUR' } },
        );
        const before = await get();
        await h.crash();
        expect(await get()).toEqual(before);
        expect(await leaders()).toEqual([]);
      });
    });

    describe('the list', () => {
      it('has the bulks of the account that have something to steer, newest first, in pages', async () => {
        for (let n = 0; n < 7; n++) await desk.accept({ bulkId: `l${n}` });
        await desk.accept({ account: 2, bulkId: 'stranger' });
        await desk.accept({});
        const plain = await desk.accept({ to: numbers(2) });
        await h.store.bulkSteer(1, { no: plain.bulk }, [{ kind: 'pause' }]);
        const scheduled = await desk.accept({ sendAt: h.now() + HOUR });
        const seen: Bulk[] = [];
        for (let before: number | undefined; ; ) {
          const page = await h.store.bulkList(1, 3, before);
          expect(page.bulks.length).toBeLessThanOrEqual(3);
          seen.push(...page.bulks);
          if (page.next === null) break;
          before = page.next;
          await desk.accept({ bulkId: `new${seen.length}` });
        }
        expect(seen.map((bulk) => bulk.id ?? bulk.no)).toEqual([
          scheduled.bulk,
          plain.bulk,
          ...[6, 5, 4, 3, 2, 1, 0].map((n) => `l${n}`),
        ]);
        expect(seen[1]).toMatchObject({ status: 'PAUSED', progress: figures({ accepted: 2, waiting: 2 }) });
        expect(seen[8]).toEqual(await get({ id: 'l0' }));
        expect(await h.store.bulkList(3, 10)).toEqual({ bulks: [], next: null });
      });
    });

    describe('cancel', () => {
      it('ends what waits as 31 with 4100, reported, and lets run on what a carrier has', async () => {
        const { nos } = await desk.accept({ to: numbers(5), bulkId: 'b', endpoint: 'https://shop.example/r' });
        const { claims } = await desk.claim(3);
        const [sent, deferred, uncertain] = claims;
        if (!sent || !deferred || !uncertain) throw new Error('three claims');
        await desk.settle(sent, accepted('sent'));
        await desk.settle(deferred, DEFERRED);
        await desk.settle(uncertain, UNKNOWN);
        expect(await done({ kind: 'cancel' })).toMatchObject({ status: 'CANCELED' });
        h.advance(HOUR);
        expect(await leaders()).toEqual([]);
        await desk.sweep();
        expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
          [3, 0],
          [31, 4100],
          [3, 15000],
          [31, 4100],
          [31, 4100],
        ]);
        expect((await desk.story(nos[3] as number)).events.at(-1)?.words).toContain('cancelled');
        const told = (await desk.webhooks()).webhooks.flatMap((webhook) => webhook.events.map((event) => event.status));
        expect(told).toEqual([31, 31, 31]);
        await desk.report('sent', 'retrieved');
        expect(await desk.status(nos[0] as number)).toEqual([5, 0]);
        // What may have arrived is not sent again, and its end is that nobody knows.
        h.advance(VALIDITY);
        expect(await leaders()).toEqual([]);
        await desk.sweep();
        expect(await desk.status(nos[2] as number)).toEqual([29, 815]);
        expect(await get()).toMatchObject({
          status: 'CANCELED',
          progress: figures({ accepted: 5, delivered: 1, failed: 4 }),
        });
        expect(await h.store.stats()).toMatchObject({ waiting: 0, retries: 0, inFlight: 0 });
      });

      it('what was in flight ends by its outcome, or as cancelled when that is a retry', async () => {
        const { nos } = await desk.accept({ to: numbers(4), bulkId: 'b' });
        const { claims } = await desk.claim();
        const [a, b, c, d] = claims;
        if (!a || !b || !c || !d) throw new Error('four claims');
        await done({ kind: 'cancel' });
        await desk.sweep();
        for (const no of nos) expect(await desk.status(no)).toEqual([26, 0]);
        await desk.settle(a, accepted('a'));
        await desk.settle(b, DEFERRED);
        await h.store.release([c], h.now());
        h.advance(2 * SECOND);
        expect(await leaders()).toEqual([]);
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([3, 0]);
        expect(await desk.status(nos[1] as number)).toEqual([31, 4100]);
        expect(await desk.status(nos[2] as number)).toEqual([31, 4100]);
        // Its node is lost: what became of it is not known, and it is not sent again.
        h.advance(LEASE);
        await desk.sweep();
        h.advance(VALIDITY);
        await desk.sweep();
        expect(await leaders()).toEqual([]);
        expect(await desk.status(nos[3] as number)).toEqual([29, 815]);
      });

      it('is one step for the bulk; 10 000 rows follow in bounded steps', async () => {
        const { nos } = await desk.accept({ to: numbers(10_000), bulkId: 'b' });
        await done({ kind: 'cancel' });
        expect(await desk.status(nos[5_000] as number)).toEqual([26, 0]);
        expect(await leaders()).toEqual([]);
        let steps = 1;
        let last = 0;
        while (await h.store.sweep()) {
          steps++;
          const { failed } = (await get()).progress;
          expect(failed - last).toBeLessThanOrEqual(600);
          last = failed;
        }
        expect(steps).toBeGreaterThanOrEqual(15);
        expect((await get()).progress).toEqual(figures({ accepted: 10_000, failed: 10_000 }));
        expect(await desk.status(nos[9_999] as number)).toEqual([31, 4100]);
      });

      it('reaches every run of every request, groups and linked content included', async () => {
        const all: number[] = [];
        for (let n = 0; n < 5; n++) {
          all.push(...(await desk.accept({ to: numbers(7, 10 * n), groups: [3, 2], bulkId: 'b' })).nos);
        }
        all.push(...(await desk.accept({ to: numbers(3, 90), bulkId: 'b', links: ['https://cdn.example/a.png'] })).nos);
        await done({ kind: 'cancel' });
        await desk.sweep();
        for (const no of all) expect(await desk.status(no)).toEqual([31, 4100]);
        expect((await get()).progress).toEqual(figures({ accepted: 38, failed: 38 }));
      });

      it('a bulk that was paused for more than 30 days is cancelled; one that is done is not', async () => {
        const no = await desk.one({ bulkId: 'b', sendAt: h.now() + HOUR });
        await done({ kind: 'pause' });
        const sent = await desk.delivered({ bulkId: 'other' });
        await h.store.bulkSteer(1, { id: 'other' }, [{ kind: 'pause' }]);
        await desk.one({ bulkId: 'late' });
        await h.store.bulkSteer(1, { id: 'late' }, [{ kind: 'pause' }]);
        await h.store.bulkSteer(1, { id: 'late' }, [{ kind: 'resume' }]);
        h.advance(30 * DAY - SECOND);
        await desk.sweep();
        expect(await desk.status(no)).toEqual([26, 0]);
        h.advance(2 * SECOND);
        await desk.sweep();
        await desk.sweep();
        expect((await get()).status).toBe('CANCELED');
        expect(await desk.status(no)).toEqual([31, 4100]);
        expect(sent).toBeGreaterThan(0);
      });
    });

    describe('reschedule', () => {
      it('to later: nothing leaves before, validity starts there', async () => {
        const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', sendAt: h.now() + HOUR, validityMs: HOUR });
        const later = h.now() + 3 * DAY;
        await done({ kind: 'reschedule', sendAt: later });
        h.advance(HOUR);
        expect(await desk.claim()).toMatchObject({ claims: [], nextDue: later });
        h.advance(3 * HOUR);
        await desk.sweep();
        for (const no of nos) expect(await desk.status(no)).toEqual([26, 0]);
        h.advance(later - 1 - h.now());
        await desk.sweep();
        expect(await leaders()).toEqual([]);
        h.advance(1);
        const { claims } = await desk.claim();
        expect(claims.map((claim) => claim.validUntil)).toEqual(nos.map(() => later + HOUR));
      });

      it('to earlier, or to the past, which is now: it leaves within a sweep', async () => {
        await desk.accept({ to: numbers(3), bulkId: 'b', sendAt: h.now() + 100 * DAY });
        const sooner = h.now() + HOUR;
        expect(await done({ kind: 'reschedule', sendAt: sooner })).toMatchObject({ sendAt: sooner, status: 'PENDING' });
        await desk.sweep();
        h.advance(HOUR - 1);
        expect(await desk.claim()).toMatchObject({ claims: [], nextDue: sooner });
        h.advance(1);
        expect(await leaders(1)).toHaveLength(1);
        await desk.accept({ to: numbers(2), bulkId: 'c', sendAt: h.now() + 100 * DAY });
        const past = await h.store.bulkSteer(1, { id: 'c' }, [{ kind: 'reschedule', sendAt: h.now() - DAY }]);
        expect(past).toMatchObject({ kind: 'done', bulk: { sendAt: h.now(), status: 'PROCESSING' } });
        await desk.sweep();
        expect(await leaders()).toHaveLength(4);
      });

      it('goes to the first opening of each window, and may be done again and again', async () => {
        // The clock stands at noon; the window is 14:00 to 15:00.
        const noon = h.now();
        const window = { days: 127, from: 14 * 60, to: 15 * 60 };
        await desk.accept({ to: numbers(1), bulkId: 'b', sendAt: noon + 10 * DAY, window });
        for (const days of [20, 5, 40, 3]) {
          await done({ kind: 'reschedule', sendAt: noon + days * DAY });
          await desk.sweep();
          expect((await desk.claim()).nextDue).toBe(noon + days * DAY + 2 * HOUR);
        }
        h.advance(3 * DAY + 2 * HOUR);
        expect(await leaders()).toHaveLength(1);
      });

      it('of a paused bulk waits for the instant and for the end of the pause', async () => {
        await desk.accept({ to: numbers(2), bulkId: 'b', validityMs: HOUR });
        await done({ kind: 'pause' });
        await done({ kind: 'reschedule', sendAt: h.now() + DAY });
        await desk.sweep();
        h.advance(2 * DAY);
        await desk.sweep();
        expect(await leaders()).toEqual([]);
        expect(await done({ kind: 'resume' })).toMatchObject({ status: 'PROCESSING' });
        const { claims } = await desk.claim();
        expect(claims.map((claim) => claim.validUntil)).toEqual([h.now() + HOUR, h.now() + HOUR]);
      });

      it('leaves their clocks to those that have left, and their own turn to those that are tried again', async () => {
        const { nos } = await desk.accept({ to: numbers(4), bulkId: 'b', validityMs: 2 * HOUR });
        const { claims } = await desk.claim(2);
        const [sent, tried] = claims;
        if (!sent || !tried) throw new Error('two claims');
        await desk.settle(sent, accepted('s'));
        await desk.settle(tried, DEFERRED);
        await done({ kind: 'pause' }, { kind: 'reschedule', sendAt: h.now() + DAY }, { kind: 'resume' });
        h.advance(HOUR);
        // Nothing of a bulk that was moved to tomorrow leaves today.
        expect(await leaders()).toEqual([]);
        h.advance(HOUR);
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([29, 815]);
        expect(await desk.status(nos[1] as number)).toEqual([15, 15000]);
        expect(await desk.status(nos[2] as number)).toEqual([26, 0]);
        h.advance(22 * HOUR);
        expect(await leaders()).toEqual([nos[2], nos[3]]);
        expect(await h.store.stats()).toMatchObject({ retries: 0 });
      });

      it('tells what left before from what left after, though no sweep came in between', async () => {
        const { nos } = await desk.accept({ to: numbers(2), bulkId: 'b', validityMs: 30 * HOUR });
        await desk.settle(await desk.claimOne(), accepted('before'));
        await done({ kind: 'pause' }, { kind: 'reschedule', sendAt: h.now() + DAY }, { kind: 'resume' });
        h.advance(DAY);
        await desk.settle(await desk.claimOne(), accepted('after'));
        h.advance(6 * HOUR);
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([29, 815]);
        expect(await desk.status(nos[1] as number)).toEqual([3, 0]);
        h.advance(DAY);
        await desk.sweep();
        expect(await desk.status(nos[1] as number)).toEqual([29, 815]);
      });

      it('moves a retry with its bulk and lets it go where it may still arrive', async () => {
        await desk.accept({ bulkId: 'b' });
        await desk.settle(await desk.claimOne(), DEFERRED);
        await done({ kind: 'pause' }, { kind: 'reschedule', sendAt: h.now() + 20 * HOUR }, { kind: 'resume' });
        h.advance(HOUR);
        expect(await leaders()).toEqual([]);
        await done({ kind: 'reschedule', sendAt: h.now() + HOUR });
        await desk.sweep();
        h.advance(HOUR);
        expect(await desk.claimOne()).toMatchObject({ attempt: 2 });
      });

      it('does not move what joins afterwards', async () => {
        await desk.accept({ bulkId: 'b', sendAt: h.now() + HOUR });
        await done({ kind: 'reschedule', sendAt: h.now() + DAY });
        const now = await desk.one({ bulkId: 'b' });
        const soon = await desk.one({ bulkId: 'b', sendAt: h.now() + MINUTE });
        expect(await leaders()).toEqual([now]);
        h.advance(MINUTE);
        expect(await leaders()).toEqual([soon]);
        h.advance(HOUR);
        expect(await leaders()).toEqual([]);
        h.advance(DAY);
        expect(await leaders()).toHaveLength(1);
      });

      it('reaches a bulk of many requests in bounded steps', async () => {
        for (let n = 0; n < 450; n++) await desk.accept({ bulkId: 'b', to: numbers(1, n), sendAt: h.now() + DAY });
        await done({ kind: 'reschedule', sendAt: h.now() });
        await desk.sweep();
        expect(await desk.settleAll(() => REFUSED)).toBe(450);
        expect((await get()).status).toBe('FINISHED');
      });
    });

    it('gives no turn twice where two of its lanes are asked at one moment', async () => {
      const other = await desk.laneOf('other');
      const lanes = [desk.lane, other];
      const all = [...lanes, await desk.laneOf('third')];
      const two = async (bulkId: string, more: object): Promise<number[]> => {
        const sent: number[] = [];
        for (const [n, lane] of lanes.entries())
          sent.push(...(await desk.accept({ to: numbers(3, 10 * n), bulkId, lane, ...more })).nos);
        return sent;
      };
      const slow = await two('slow', { every: MINUTE });
      const claimed: [no: number, at: number][] = [];
      for (let round = 0; round < 40 && claimed.length < slow.length; round++) {
        const answers = await Promise.all(all.map((lane) => desk.claim(64, lane)));
        for (const { claims } of answers) for (const one of claims) claimed.push([one.leader, one.notBeforeUs]);
        h.advance(20 * SECOND);
      }
      expect(claimed.map(([no]) => no).sort((a, b) => a - b)).toEqual(slow);
      const turns = claimed.map(([, at]) => at).sort((a, b) => a - b);
      for (const [n, at] of turns.slice(1).entries()) {
        expect(at - (turns[n] as number)).toBeGreaterThanOrEqual(MINUTE * 1000);
      }
      // Without a limit both lanes get theirs, soon, and each its own.
      const fast = await two('fast', {});
      const found = new Map<number, number>();
      for (let round = 0; round < 10 && found.size < fast.length; round++) {
        const answers = await Promise.all(all.map(async (lane) => ({ lane, ...(await desk.claim(64, lane)) })));
        for (const { lane, claims } of answers) for (const { leader } of claims) found.set(leader, lane);
      }
      expect([...found].sort(([a], [b]) => a - b)).toEqual(fast.map((no, n) => [no, lanes[Math.floor(n / 3)]]));
    });

    describe('a new speed limit', () => {
      it('faster than the old one is heard by what waits for a turn, retries included', async () => {
        await desk.accept({ to: numbers(4), bulkId: 'b', every: DAY });
        await desk.settle(await desk.claimOne(), DEFERRED);
        h.advance(MINUTE);
        expect(await leaders()).toEqual([]);
        await done({ kind: 'limit', speed: { amount: 60 } });
        await desk.sweep();
        const turns: number[] = [];
        for (let tick = 0; tick < 40; tick++) {
          for (const claim of (await desk.claim()).claims) turns.push(claim.notBeforeUs / 1000);
          h.advance(250);
        }
        expect(turns).toHaveLength(4);
        for (let n = 1; n < turns.length; n++)
          expect((turns[n] as number) - (turns[n - 1] as number)).toBeGreaterThanOrEqual(1000);
      });

      it('given by a join is heard likewise, and told as the customer wrote it', async () => {
        await desk.accept({ to: numbers(4), bulkId: 'b', every: DAY });
        await desk.claimOne();
        h.advance(MINUTE);
        expect(await leaders()).toEqual([]);
        const rows = await desk.request({ to: numbers(1, 50), bulkId: 'b', every: 10 });
        await h.store.accept({ ...rows, speed: { amount: 6000 } });
        await desk.sweep();
        expect((await leaders()).length).toBeGreaterThanOrEqual(4);
        expect((await get()).speed).toEqual({ amount: 6000, timeUnit: 'MINUTE' });
      });

      it('slower than the old one holds from the last turn on', async () => {
        await desk.accept({ to: numbers(1000), bulkId: 'b', every: 100 });
        const last = (await desk.claim()).claims.at(-1)?.notBeforeUs as number;
        await done({ kind: 'limit', speed: { amount: 1, timeUnit: 'HOUR' } });
        await desk.sweep();
        h.advance(HOUR - SECOND);
        expect(await leaders()).toEqual([]);
        h.advance(2 * SECOND);
        const next = (await desk.claim()).claims;
        expect(next).toHaveLength(1);
        expect((next[0]?.notBeforeUs as number) - last).toBeGreaterThanOrEqual(3_600_000_000);
      });
    });

    describe('pace', () => {
      const cases: [string, number, 'MINUTE' | 'HOUR' | 'DAY', number, number][] = [
        ['1 per DAY', 1, 'DAY', 4, 5 * DAY],
        ['7 per HOUR', 7, 'HOUR', 20, 3 * HOUR],
        ['90 per MINUTE', 90, 'MINUTE', 220, 3 * MINUTE],
        ['1 000 000 per MINUTE', 1_000_000, 'MINUTE', 5_000, SECOND],
      ];
      for (const [words, amount, timeUnit, count, long] of cases) {
        it(`${words} is exact over every sliding ${timeUnit}, over crashes and pauses`, async () => {
          const unit = { MINUTE, HOUR, DAY }[timeUnit];
          const speed = { amount, timeUnit };
          const rows = await desk.request({ to: numbers(count), bulkId: 'b' });
          await h.store.accept({ ...rows, intervalUs: intervalUs(speed), speed });
          const turns: number[] = [];
          const start = h.now();
          let crashed = false;
          let paused = 0;
          while (h.now() < start + long && turns.length < count) {
            const { claims, nextDue, now } = await desk.claim(1000);
            for (const claim of claims) {
              expect(claim.notBeforeUs).toBeGreaterThanOrEqual(turns.at(-1) ?? 0);
              turns.push(claim.notBeforeUs);
            }
            await Promise.all(claims.map((claim) => desk.settle(claim, REFUSED)));
            if (!crashed && turns.length > count / 3) {
              crashed = true;
              await h.crash();
            }
            if (paused < 2 && turns.length > ((paused + 1) * count) / 4) {
              paused++;
              await done({ kind: 'pause' });
              h.advance(1);
              await done({ kind: 'resume' });
            }
            h.advance(Math.max(100, Math.min((nextDue ?? now) - now, unit)));
          }
          // Any interval [t, t + unit) holds at most `amount`: the turn `amount` later is a unit away.
          for (let n = amount; n < turns.length; n++) {
            expect((turns[n] as number) - (turns[n - amount] as number)).toBeGreaterThanOrEqual(unit * 1000);
          }
          expect(turns.length).toBe(count);
        });
      }
    });

    describe('a turn that was claimed and not used', () => {
      const paced = async (speed: { amount: number; timeUnit: 'MINUTE' | 'HOUR' | 'DAY' }, request: object = {}) => {
        const rows = await desk.request({ bulkId: 'b', ...request });
        await h.store.accept({ ...rows, intervalUs: intervalUs(speed), speed });
        return rows.to.map((_, index) => rows.first + 2 + index);
      };
      const DAILY = { amount: 1, timeUnit: 'DAY' } as const;
      const turnOf = ({ notBeforeUs }: { notBeforeUs: number }) => notBeforeUs / 1000;

      it('is had by the same message at once: at 1 per DAY no day is lost', async () => {
        const [first, second] = await paced(DAILY, { to: numbers(3) });
        const claim = await desk.claimOne();
        expect(claim.leader).toBe(first);
        h.advance(10 * SECOND);
        await h.store.release([claim], h.now());
        const again = await desk.claimOne();
        expect(again).toMatchObject({ leader: first, attempt: 1, generation: 0 });
        // Late as it is, it counts from when it leaves: the next one is a day after that, not after the turn it had first.
        expect(turnOf(again)).toBe(h.now());
        await desk.settle(again, accepted('a'));
        expect(await leaders()).toEqual([]);
        h.advance(DAY);
        const next = await desk.claimOne();
        expect(next.leader).toBe(second);
        expect(turnOf(next) - turnOf(again)).toBeGreaterThanOrEqual(DAY);
      });

      it('comes back after a crash and from a claim of a retry, again and again', async () => {
        await paced(DAILY, { to: numbers(2) });
        let turn = 0;
        for (let n = 0; n < 3; n++) {
          const claim = await desk.claimOne();
          turn = turnOf(claim);
          await h.store.release([claim], h.now());
          await h.crash();
        }
        await desk.settle(await desk.claimOne(), DEFERRED);
        h.advance(DAY + SECOND);
        // The retry takes a turn, and gives it back.
        const retry = await desk.claimOne();
        expect(retry).toMatchObject({ attempt: 2 });
        expect(turnOf(retry) - turn).toBeGreaterThanOrEqual(DAY);
        await h.store.release([retry], h.now() + MINUTE);
        const other = await desk.claimOne();
        expect(other).toMatchObject({ attempt: 1 });
        expect(turnOf(other)).toBeLessThanOrEqual(h.now() + 250);
      });

      it('is had by another request of the bulk while its own lane has to wait', async () => {
        const [first] = await paced(DAILY);
        const [other] = await paced(DAILY, { to: numbers(1, 50) });
        const claim = await desk.claimOne();
        // The other one has been told by now to wait for a day.
        expect((await desk.claim()).nextDue).toBeGreaterThan(h.now() + 23 * HOUR);
        await h.store.release([claim], h.now() + HOUR);
        const next = await desk.claim();
        expect(next.claims.map((one) => one.leader)).toEqual([claim.leader === first ? other : first]);
        await Promise.all(next.claims.map((one) => desk.settle(one, REFUSED)));
        h.advance(HOUR);
        expect(await desk.claim()).toMatchObject({ claims: [], nextDue: h.now() + DAY - HOUR });
      });

      it('comes back from content that turned out to be gone', async () => {
        const [, second] = await paced(DAILY, { to: numbers(2) });
        const claim = await desk.claimOne();
        expect(await leaders()).toEqual([]);
        await desk.settle(claim, { kind: 'contentFailed', error: { id: 15025, words: 'gone' } });
        expect(await leaders()).toEqual([second]);
      });

      it('comes back with all members of a group, and all of a stop', async () => {
        await paced({ amount: 2, timeUnit: 'DAY' }, { to: numbers(3), groups: [3] });
        const group = await desk.claimOne();
        await h.store.release([group], h.now());
        expect(await desk.claimOne()).toMatchObject({ leader: group.leader, notBeforeUs: group.notBeforeUs });
        await desk.accept({ to: numbers(9), bulkId: 'fast', every: 100 });
        const { claims } = await desk.claim();
        expect(claims).toHaveLength(3);
        await h.store.release(claims, h.now());
        expect((await desk.claim()).claims.map(turnOf)).toEqual(claims.map(turnOf));
      });

      it('is lost where a later one was taken', async () => {
        await desk.accept({ to: numbers(9), bulkId: 'b', every: 100 });
        const first = await desk.claimOne();
        const second = await desk.claimOne();
        await h.store.release([first], h.now());
        expect(turnOf(await desk.claimOne())).toBe(turnOf(second) + 100);
      });

      it('does not come back against a slower limit, nor from before the end of a pause', async () => {
        await paced({ amount: 1, timeUnit: 'MINUTE' }, { to: numbers(5) });
        const used = await desk.claimOne();
        await desk.settle(used, REFUSED);
        h.advance(MINUTE + SECOND);
        const unused = await desk.claimOne();
        await done({ kind: 'limit', speed: { amount: 1, timeUnit: 'HOUR' } });
        await h.store.release([unused], h.now());
        await desk.sweep();
        expect(await leaders()).toEqual([]);
        h.advance(HOUR + MINUTE);
        const next = await desk.claimOne();
        expect(turnOf(next) - turnOf(used)).toBeGreaterThanOrEqual(HOUR);
        await done({ kind: 'pause' });
        h.advance(10 * SECOND);
        await done({ kind: 'resume' });
        await h.store.release([next], h.now());
        expect(turnOf(await desk.claimOne())).toBe(h.now());
      });

      it('is one message’s: when that ends untried, the next one has its own', async () => {
        const [first, second] = await paced(DAILY, { to: numbers(2), validityMs: HOUR });
        const turn = h.now();
        // However often it is tried to be tried: a carrier that takes nothing moves no clock.
        for (let n = 0; n < 12; n++) {
          const claim = await desk.claimOne();
          expect(claim.leader).toBe(first);
          await h.store.release([claim], h.now());
          h.advance(MINUTE);
          await desk.sweep();
        }
        h.advance(48 * MINUTE - SECOND);
        await desk.sweep();
        expect(await desk.status(first as number)).toEqual([26, 0]);
        h.advance(2 * SECOND);
        await desk.sweep();
        expect(await desk.status(first as number)).toEqual([15, 4100]);
        h.advance(23 * HOUR - 2 * SECOND);
        await desk.sweep();
        expect(await desk.status(second as number)).toEqual([26, 0]);
        expect(await leaders()).toEqual([]);
        h.advance(SECOND);
        const last = await desk.claimOne();
        expect(last.leader).toBe(second);
        expect(turnOf(last) - turn).toBeGreaterThanOrEqual(DAY);
        await h.store.release([last], h.now());
        h.advance(HOUR + SECOND);
        await desk.sweep();
        expect(await desk.status(second as number)).toEqual([15, 4100]);
        expect((await get()).status).toBe('FINISHED');
        expect(await h.store.stats()).toMatchObject({ retries: 0, inFlight: 0 });
      });
    });

    describe('what was claimed and put back before it left', () => {
      const away = (days = 1): BulkChange[] => [
        { kind: 'pause' },
        { kind: 'reschedule', sendAt: h.now() + days * DAY },
        { kind: 'resume' },
      ];

      it('begins its validity anew when its bulk is moved, before or after it was put back', async () => {
        const { nos } = await desk.accept({ to: numbers(4), bulkId: 'b', validityMs: HOUR });
        const { claims } = await desk.claim(3);
        const [before, after, tried] = claims as [(typeof claims)[0], (typeof claims)[0], (typeof claims)[0]];
        await h.store.release([before], h.now());
        await desk.settle(tried, DEFERRED);
        const later = h.now() + DAY;
        await done(...away());
        await desk.sweep();
        await h.store.release([after], h.now());
        h.advance(2 * HOUR);
        await desk.sweep();
        expect(await leaders()).toEqual([]);
        expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
          [26, 0],
          [26, 0],
          [15, 15000],
          [26, 0],
        ]);
        expect((await desk.story(nos[0] as number)).validUntil).toBe(later + HOUR);
        h.advance(later - h.now());
        const again = (await desk.claim()).claims;
        expect(again.map((claim) => claim.leader)).toEqual([nos[0], nos[1], nos[3]]);
        expect(again.map((claim) => claim.validUntil)).toEqual(Array(3).fill(later + HOUR));
        await Promise.all(again.map((claim) => desk.settle(claim, DEFERRED)));
        h.advance(HOUR);
        await desk.sweep();
        for (const no of [nos[0], nos[1], nos[3]]) expect(await desk.status(no as number)).toEqual([15, 15000]);
      });

      it('ends with its bulk’s new validity when nothing takes it, moved twice and paused over it', async () => {
        const { nos } = await desk.accept({ to: numbers(1), bulkId: 'b', validityMs: HOUR });
        await h.store.release([await desk.claimOne()], h.now());
        await done(...away(3));
        await desk.sweep();
        await done(...away(1));
        h.advance(DAY - HOUR);
        await done({ kind: 'pause' });
        await desk.sweep();
        h.advance(2 * DAY);
        await desk.sweep();
        await done({ kind: 'resume' });
        h.advance(HOUR - SECOND);
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([26, 0]);
        h.advance(SECOND);
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([15, 4100]);
        expect(await h.store.stats()).toMatchObject({ retries: 0, inFlight: 0 });
      });

      it('likewise by turns, where its clock starts at the turn it has then', async () => {
        const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', every: 100, validityMs: HOUR });
        const { claims } = await desk.claim(2);
        await h.store.release([claims[0] as (typeof claims)[0]], h.now());
        await h.store.release([claims[1] as (typeof claims)[0]], h.now());
        const later = h.now() + DAY;
        await done(...away());
        h.advance(2 * HOUR);
        await desk.sweep();
        for (const no of nos) expect(await desk.status(no)).toEqual([26, 0]);
        h.advance(later - h.now());
        const again = (await desk.claim()).claims;
        expect(again.map((claim) => claim.leader)).toEqual(nos);
        expect(again.map((claim) => claim.validUntil)).toEqual([0, 100, 200].map((ms) => later + ms + HOUR));
        await Promise.all(again.map((claim) => desk.settle(claim, accepted(`m${claim.leader}`))));
        h.advance(HOUR - SECOND);
        await desk.sweep();
        for (const no of nos) expect(await desk.status(no)).toEqual([3, 0]);
        h.advance(2 * SECOND);
        await desk.sweep();
        for (const no of nos) expect(await desk.status(no)).toEqual([29, 815]);
      });

      it('is not what its carrier asked to wait: that had left', async () => {
        const { nos } = await desk.accept({ bulkId: 'b', validityMs: HOUR });
        await desk.settle(await desk.claimOne(), { kind: 'throttled', retryAfterMs: SECOND });
        h.advance(2 * SECOND);
        await h.store.release([await desk.claimOne()], h.now());
        await done(...away());
        h.advance(HOUR);
        await desk.sweep();
        expect(await desk.status(nos[0] as number)).toEqual([15, 4100]);
      });

      it('keeps its end where nothing is moved', async () => {
        const start = h.now();
        const { nos } = await desk.accept({ to: numbers(2), bulkId: 'b', validityMs: HOUR });
        await h.store.release((await desk.claim()).claims, h.now());
        h.advance(30 * MINUTE);
        const { claims } = await desk.claim();
        expect(claims.map((claim) => claim.validUntil)).toEqual([start + HOUR, start + HOUR]);
        await h.store.release(claims, h.now());
        await done({ kind: 'pause' });
        h.advance(30 * MINUTE);
        await desk.sweep();
        for (const no of nos) expect(await desk.status(no)).toEqual([15, 4100]);
      });
    });

    describe('expiry', () => {
      const last = async (no: number): Promise<[number, number, string]> => {
        const { message, events } = await desk.story(no);
        return [message.status, message.error, events.at(-1)?.words ?? ''];
      };

      const NEVER = 'validity ended, never tried: its carrier was down, or had no room for it';

      it('never tried: a carrier that is down, one that is behind, a pause after its turn, and one that asked to wait', async () => {
        const down = await desk.one({ validityMs: HOUR });
        const paused = await desk.one({ bulkId: 'b', validityMs: HOUR });
        h.advance(MINUTE);
        await done({ kind: 'pause' });
        h.advance(HOUR);
        await desk.sweep();
        expect(await last(down)).toEqual([15, 4100, NEVER]);
        expect(await last(paused)).toEqual([15, 4100, 'validity ended, never tried: its bulk was paused']);

        // One a minute is all that this carrier takes: what is left after an hour ends, what was taken does not.
        const behind = await desk.accept({ to: numbers(80), validityMs: HOUR });
        for (let n = 0; n < 60; n++) {
          await desk.settle(await desk.claimOne(), accepted(`r${n}`));
          h.advance(MINUTE);
        }
        await desk.sweep();
        expect(await last(behind.nos[59] as number)).toEqual([29, 815, 'no final report by the end of its validity']);
        expect(await last(behind.nos[60] as number)).toEqual([15, 4100, NEVER]);

        const throttled = await desk.one({ validityMs: HOUR });
        await desk.settle(await desk.claimOne(), { kind: 'throttled', retryAfterMs: HOUR });
        h.advance(HOUR);
        await desk.sweep();
        expect(await last(throttled)).toEqual([15, 4100, 'validity ended: tried, and the carrier asked to wait once']);

        // Claimed and put back is not tried either: nothing has left.
        const putBack = await desk.one({ validityMs: HOUR });
        await h.store.release([await desk.claimOne()], h.now() + 2 * HOUR);
        h.advance(HOUR);
        await desk.sweep();
        expect(await last(putBack)).toEqual([15, 4100, NEVER]);
        expect(await h.store.stats()).toMatchObject({ waiting: 0, retries: 0, inFlight: 0 });
      });

      it('never sent: no carrier could be reached, however often; what was tried before keeps its error', async () => {
        const unsent = { kind: 'deferred', error: { id: 15000, words: 'refused' }, unsent: true } as const;
        const never = await desk.one({ validityMs: HOUR });
        await desk.settle(await desk.claimOne(), unsent);
        const tried = await desk.one({ validityMs: HOUR });
        await desk.settle(await desk.claimOne(), { kind: 'deferred', error: { id: 15003, words: 'busy' } });
        expect(await desk.status(never)).toEqual([26, 0]);
        h.advance(MINUTE);
        for (const claim of (await desk.claim()).claims) await desk.settle(claim, unsent);
        expect(await desk.status(tried)).toEqual([26, 15003]);
        h.advance(HOUR);
        await desk.sweep();
        const words = 'validity ended, never sent: its carrier could not be reached in 2 attempts, the last: refused';
        expect(await last(never)).toEqual([15, 4100, words]);
        expect(await last(tried)).toEqual([15, 15003, 'validity ended after 2 attempts, the last: refused']);
        // Its attempts are told all the same.
        const attempts = (await desk.story(never)).attempts.map(({ outcome, error }) => [outcome, error]);
        expect(attempts).toEqual([
          ['deferred', 15000],
          ['deferred', 15000],
        ]);
      });

      it('tried: how often, the last error, and the pause that came then', async () => {
        const once = await desk.one({ validityMs: HOUR });
        await desk.settle(await desk.claimOne(), DEFERRED);
        const twice = await desk.one({ bulkId: 'b', validityMs: HOUR });
        await desk.settle(await desk.claimOne(), DEFERRED);
        h.advance(2 * SECOND);
        for (const claim of (await desk.claim()).claims) {
          const failed = { kind: 'deferred', error: { id: 15003, words: 'down' } } as const;
          if (claim.leader === twice) await desk.settle(claim, failed);
          else await h.store.release([claim], h.now() + HOUR);
        }
        await done({ kind: 'pause' });
        h.advance(HOUR);
        await desk.sweep();
        expect(await last(once)).toEqual([15, 15000, 'validity ended after 1 attempt, the last: busy']);
        const words = 'validity ended after 2 attempts, the last: down; then its bulk was paused';
        expect(await last(twice)).toEqual([15, 15003, words]);
      });

      it('a window that closes before the first try, and before the next one', async () => {
        // Noon; the window is 14:00 to 15:00, and a retry finds it closed.
        const window = { days: 127, from: 14 * 60, to: 15 * 60 };
        const tried = await desk.one({ window, validityMs: 90 * MINUTE });
        const never = await desk.one({ window, validityMs: 90 * MINUTE, account: 2 });
        h.advance(3 * HOUR - SECOND);
        const { claims } = await desk.claim();
        // They are told until when they may leave.
        expect(claims.map(({ closesAt }) => closesAt)).toEqual([h.now() + SECOND, h.now() + SECOND]);
        for (const claim of claims) {
          if (claim.leader === tried) await desk.settle(claim, DEFERRED);
          else await h.store.release([claim], h.now());
        }
        h.advance(2 * HOUR);
        expect(await leaders()).toEqual([]);
        await desk.sweep();
        const words = 'validity ended after 1 attempt, the last: busy; then its window was closed';
        expect(await last(tried)).toEqual([15, 15000, words]);
        const story = (await desk.story(never, 2)).events.at(-1);
        expect(story).toMatchObject({ status: 15, error: 4100, words: `${NEVER}, until its window closed` });
      });
    });

    describe('fairness', () => {
      it('a bulk of 20 000 does not stand before a single message, of its own or another account', async () => {
        for (let n = 0; n < 2; n++) await desk.accept({ to: numbers(10_000, n * 10_000), bulkId: 'b' });
        await desk.claim(64);
        const stranger = await desk.one({ account: 2 });
        const own = await desk.one({});
        // Both are in the lane's very next turn, however much waits.
        const next = await leaders(64);
        expect(next).toContain(stranger);
        expect(next).toContain(own);
      });

      it('a drain of a big bulk does not stand before them either', async () => {
        await desk.accept({ to: numbers(10_000), bulkId: 'b' });
        await done({ kind: 'cancel' });
        await h.store.sweep();
        const stranger = await desk.one({ account: 2 });
        expect(await leaders(64)).toEqual([stranger]);
        expect(await h.store.sweep()).toBe(true);
      });
    });
  });
}
