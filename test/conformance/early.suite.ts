/**
 * What a carrier that keeps the time may have before its time, as every engine must hand it over: how long before, until when it is
 * valid, and what follows when its bulk is moved, paused or cancelled. Only contract verbs are used; needs a clock that can be moved.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { CallBack, Claim } from '../../src/store/contract.ts';
import {
  accepted,
  DEFERRED,
  type Desk,
  type Harness,
  HOUR,
  MINUTE,
  numbers,
  openDesk,
  type Request,
  SECOND,
  UNKNOWN,
} from './desk.ts';

const EARLY = 10 * MINUTE;

export function earlySuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: what a carrier may have early`, () => {
    let h: Harness;
    let desk: Desk;
    let sendAt: number;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      sendAt = h.now() + HOUR;
    });
    afterEach(() => h.close());

    const accept = async (request: Request = {}): Promise<number[]> =>
      (await desk.accept({ bulkId: 'b', sendAt, validityMs: HOUR, earlyMs: EARLY, ...request })).nos;
    const claims = async (lane = desk.lane): Promise<Claim[]> => (await desk.claim(64, lane)).claims;
    const move = async (to: number): Promise<void> => {
      expect((await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'reschedule', sendAt: to }])).kind).toBe('done');
      await desk.sweep();
    };
    const asked = async (): Promise<[number, number | undefined, string][]> =>
      (await h.store.callBacks(desk.lane, 100)).map(({ leader, earliestAt, carrierMessageId }: CallBack) => [
        leader,
        earliestAt,
        carrierMessageId,
      ]);

    it('leaves so long before its time, with its time, and ends when it would anyway', async () => {
      const nos = await accept({ to: numbers(2) });
      const { nos: others } = await desk.accept({ to: numbers(1, 9), sendAt, validityMs: HOUR });
      h.advance(HOUR - EARLY - 1);
      const { claims: none, nextDue } = await desk.claim();
      expect(none).toEqual([]);
      expect(nextDue).toBe(sendAt - EARLY);
      h.advance(1);
      const found = await claims();
      expect(found.map(({ leader }) => leader)).toEqual(nos);
      for (const claim of found) expect(claim).toMatchObject({ earliestAt: sendAt, validUntil: sendAt + HOUR });
      h.advance(EARLY);
      const [last] = (await claims()) as [Claim];
      expect(last.leader).toBe(others[0]);
      expect(last).not.toHaveProperty('earliestAt');
      for (const claim of [...found, last]) await desk.settle(claim, accepted(`m${claim.leader}`));
      h.advance(HOUR - 1);
      await desk.sweep();
      expect(await desk.status(nos[0] as number)).toEqual([3, 0]);
      h.advance(1);
      await desk.sweep();
      for (const no of nos) expect((await desk.status(no))[0]).toBe(29);
    });

    it('leaves on its time where that has come, where it goes by turns, and where it has a window', async () => {
      const day = new Date(sendAt);
      const from = day.getUTCHours() * 60 + day.getUTCMinutes();
      await desk.accept({ to: numbers(1), bulkId: 'paced', sendAt, every: SECOND, earlyMs: EARLY });
      const window = { days: 0b1111111, from, to: (from + 120) % 1440 };
      await desk.accept({ to: numbers(1, 2), bulkId: 'window', sendAt, window, earlyMs: EARLY });
      h.advance(HOUR - 1);
      expect(await claims()).toEqual([]);
      h.advance(1);
      const found = await claims();
      expect(found).toHaveLength(2);
      for (const claim of found) expect(claim).not.toHaveProperty('earliestAt');
    });

    it('is tried again early, and on its time by a second carrier, which does not keep it', async () => {
      const second = await desk.laneOf('second');
      const [one, two] = (await accept({ to: numbers(2), ways: { alts: [second] } })) as [number, number];
      h.advance(HOUR - EARLY);
      const [first, other] = (await claims()) as [Claim, Claim];
      await desk.settle(first, { kind: 'throttled', retryAfterMs: SECOND });
      await desk.settle(other, { kind: 'deferred', error: { id: 15000 }, elsewhere: true });
      h.advance(2 * SECOND);
      expect(await claims()).toMatchObject([{ leader: one, earliestAt: sendAt, validUntil: sendAt + HOUR }]);
      expect(await claims(second)).toEqual([]);
      h.advance(EARLY - 2 * SECOND);
      const [handed] = (await claims(second)) as [Claim];
      expect(handed.leader).toBe(two);
      expect(handed).not.toHaveProperty('earliestAt');
    });

    it('is kept for longer when its bulk is moved: each is asked for once, those in flight when they are taken', async () => {
      const nos = (await accept({ to: numbers(4), groups: [2] })) as [number, number, number, number];
      h.advance(HOUR - EARLY);
      const found = await claims();
      expect(found.map(({ leader }) => leader)).toEqual([nos[0], nos[2], nos[3]]);
      const [group, taken, flying] = found as [Claim, Claim, Claim];
      await desk.settle(group, accepted('g'));
      await desk.settle(taken, accepted('t'));
      expect(await asked()).toEqual([]);
      const later = sendAt + 3 * HOUR;
      await move(later);
      expect(await asked()).toEqual([
        [nos[0], later, 'g'],
        [nos[2], later, 't'],
      ]);
      expect(await asked()).toEqual([]);
      await desk.settle(flying, accepted('f'));
      expect(await asked()).toEqual([[nos[3], later, 'f']]);
      await h.store.calledBack(nos[2], 1, 'was asked');
      expect(JSON.stringify(await desk.story(nos[2]))).toContain('was asked');
      // Nobody ends at the end that it had before.
      h.advance(EARLY + 2 * HOUR);
      await desk.sweep();
      for (const no of nos) expect(await desk.status(no)).toEqual([3, 0]);
      h.advance(later + HOUR - h.now() - 1);
      await desk.sweep();
      for (const no of nos) expect(await desk.status(no)).toEqual([3, 0]);
      h.advance(1);
      await desk.sweep();
      for (const no of nos) expect((await desk.status(no))[0]).toBe(29);
    });

    it('may be moved again and again; the newest time counts, for what waits too', async () => {
      const nos = (await accept({ to: numbers(3) })) as [number, number, number];
      h.advance(HOUR - EARLY);
      const [first, second] = (await desk.claim(2)).claims as [Claim, Claim];
      await desk.settle(first, accepted('a'));
      await desk.settle(second, DEFERRED);
      await move(sendAt + 2 * HOUR);
      await move(sendAt + 4 * HOUR);
      expect(await asked()).toEqual([[nos[0], sendAt + 4 * HOUR, 'a']]);
      expect(await claims()).toEqual([]);
      h.advance(4 * HOUR - SECOND);
      expect(await claims()).toEqual([]);
      h.advance(SECOND);
      await desk.sweep();
      const found = await claims();
      expect(found.map(({ leader }) => leader).sort()).toEqual([nos[1], nos[2]]);
      for (const claim of found) {
        expect(claim).toMatchObject({ earliestAt: sendAt + 4 * HOUR, validUntil: sendAt + 5 * HOUR });
        await desk.settle(claim, accepted(`x${claim.leader}`));
      }
      // And back.
      await move(h.now() + SECOND);
      expect((await asked()).map(([leader, at]) => [leader, at])).toEqual(
        nos.map((no) => [no, h.now() + SECOND]).sort(),
      );
      h.advance(HOUR);
      await desk.sweep();
      for (const no of nos) expect(await desk.status(no)).toEqual([3, 0]);
      h.advance(SECOND);
      await desk.sweep();
      for (const no of nos) expect((await desk.status(no))[0]).toBe(29);
    });

    it('stays where it is once its time has come, and is called back with its bulk', async () => {
      const nos = (await accept({ to: numbers(2) })) as [number, number];
      h.advance(HOUR - EARLY);
      for (const claim of await claims()) await desk.settle(claim, accepted(`m${claim.leader}`));
      h.advance(EARLY);
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      await move(sendAt + 5 * HOUR);
      expect(await asked()).toEqual([]);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      expect(await asked()).toEqual(nos.map((no) => [no, undefined, `m${no}`]));
    });

    it('is called back and not kept where its bulk is moved and then cancelled', async () => {
      const [no] = (await accept()) as [number];
      h.advance(HOUR - EARLY);
      await desk.settle((await claims())[0] as Claim, accepted('m'));
      await move(sendAt + HOUR);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      expect(await asked()).toEqual([[no, undefined, 'm']]);
    });

    it('does not leave early while its bulk is paused, nor for a carrier that it was given to later', async () => {
      await accept();
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      h.advance(HOUR - EARLY);
      expect(await claims()).toEqual([]);
      await desk.steer(1, { id: 'b' }, 'PROCESSING');
      const other = await desk.laneOf('other');
      while ((await h.store.reroute('mmsc', 'other'))?.next === 0);
      expect(await claims(other)).toEqual([]);
      h.advance(EARLY);
      expect(await claims(other)).toHaveLength(1);
    });

    it('is followed by its SMS on its time, where its MMS has ended before that', async () => {
      const sms = await desk.laneOf('smsc');
      // The bulk has begun; what joins it later has a time of its own.
      await accept({ sendAt: h.now() });
      const [no] = (await accept({ to: numbers(1, 2), ways: { sms: { lane: sms, validityMs: HOUR } } })) as [number];
      h.advance(HOUR - EARLY);
      const claim = (await claims()).find(({ leader }) => leader === no) as Claim;
      await desk.settle(claim, { kind: 'refused', error: { id: 15019, words: 'no MMS' } });
      expect(await claims(sms)).toEqual([]);
      h.advance(EARLY - 1);
      expect(await claims(sms)).toEqual([]);
      h.advance(1);
      expect((await claims(sms)).map(({ members }) => members[0]?.no)).toEqual([no]);
    });

    it.each(['limited', 'paused and limited'])(
      'ends with its validity where its bulk is %s before its time',
      async (how) => {
        const [first, second, third] = (await accept({ to: numbers(3) })) as [number, number, number];
        h.advance(HOUR - EARLY);
        const [one, two] = (await desk.claim(2)).claims as [Claim, Claim];
        await desk.settle(one, accepted('a'));
        await desk.settle(two, DEFERRED);
        if (how !== 'limited') await desk.steer(1, { id: 'b' }, 'PAUSED');
        h.advance(MINUTE);
        await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'limit', speed: { amount: 1, timeUnit: 'MINUTE' } }]);
        await desk.sweep();
        h.advance(3 * EARLY);
        if (how !== 'limited') await desk.steer(1, { id: 'b' }, 'PROCESSING');
        for (let step = 0; step < 12; step++) {
          for (const claim of await claims()) await desk.settle(claim, accepted(`m${claim.leader}`));
          h.advance(10 * MINUTE);
          await desk.sweep();
        }
        for (const no of [first, second, third]) expect((await desk.status(no))[0]).toBe(29);
      },
    );

    it('is kept for longer though others are in flight yet', async () => {
      const nos = (await accept({ to: numbers(2) })) as [number, number];
      h.advance(HOUR - EARLY);
      const [, other] = (await claims()) as [Claim, Claim];
      await desk.settle(other, accepted('o'));
      await move(sendAt + HOUR);
      expect((await h.store.callBacks(desk.lane, 1)).map(({ leader }) => leader)).toEqual([nos[1]]);
    });

    it('is kept for longer with its group, also where the first of that was refused', async () => {
      const [first, second] = (await accept({ to: numbers(2), groups: [2] })) as [number, number];
      h.advance(HOUR - EARLY);
      const [group] = (await claims()) as [Claim];
      const refused = [{ recipient: numbers(1)[0] as string, error: { id: 15009, words: 'no such number' } }];
      await desk.settle(group, { kind: 'accepted', carrierMessageId: 'g', refused });
      expect(await desk.status(second)).toEqual([3, 0]);
      await move(sendAt + 3 * HOUR);
      expect(await asked()).toEqual([[first, sendAt + 3 * HOUR, 'g']]);
    });

    it('is kept for longer and called back with its group, also where the id of the first of that was used before', async () => {
      await desk.accept({ keys: [[0, 'used']] });
      const [first, second] = (await accept({ to: numbers(2), groups: [2], keys: [[0, 'used']] })) as [number, number];
      h.advance(HOUR - EARLY);
      const group = (await claims()).find(({ leader }) => leader === first) as Claim;
      expect(group.members.map(({ no }) => no)).toEqual([second]);
      await desk.settle(group, accepted('g'));
      await move(sendAt + HOUR);
      expect(await asked()).toEqual([[first, sendAt + HOUR, 'g']]);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      expect(await asked()).toEqual([[first, undefined, 'g']]);
    });

    it('is kept for longer by the carrier that has it, though the rest was given to another one since', async () => {
      const other = await desk.laneOf('other');
      const nos = (await accept({ to: numbers(4) })) as [number, number, number, number];
      h.advance(HOUR - EARLY);
      const [taken, again, flying] = (await desk.claim(3)).claims as [Claim, Claim, Claim];
      await desk.settle(taken, accepted('t'));
      await desk.settle(again, DEFERRED);
      while ((await h.store.reroute('mmsc', 'other'))?.next === 0);
      const later = sendAt + 3 * HOUR;
      await move(later);
      expect(await asked()).toEqual([[nos[0], later, 't']]);
      await desk.settle(flying, accepted('f'));
      expect(await asked()).toEqual([[nos[2], later, 'f']]);
      // Who has it keeps it, and the new one has the others in time, not before.
      h.advance(later - h.now() - SECOND);
      await desk.sweep();
      for (const no of [nos[0], nos[2]]) expect((await desk.status(no))[0]).toBe(3);
      expect([...(await claims()), ...(await claims(other))]).toEqual([]);
      h.advance(SECOND);
      const found = await claims(other);
      expect(found.map(({ leader }) => leader).sort()).toEqual([nos[1], nos[3]]);
      for (const claim of found) expect(claim).toMatchObject({ validUntil: later + HOUR });
    });

    it('waits for a report where nobody knows whether it was taken, and survives a crash', async () => {
      const [no] = (await accept()) as [number];
      h.advance(HOUR - EARLY);
      await desk.settle((await claims())[0] as Claim, UNKNOWN);
      await h.crash();
      await move(sendAt + HOUR);
      h.advance(15 * MINUTE);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([3, 15000]);
      h.advance(sendAt + HOUR - h.now());
      await desk.sweep();
      expect(await claims()).toMatchObject([{ leader: no, validUntil: sendAt + 2 * HOUR }]);
    });
  });
}
