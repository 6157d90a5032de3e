/**
 * The SMS failover, as every engine must have it: one message, two legs, one final status; opened once, in the transaction that
 * ends the MMS leg, never after a cancel; an SMS keeps window, pace and pauses and has a validity of its own. Only contract
 * verbs are used. Each case needs a clock that can be moved.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Ways } from '../../src/domain/failover.ts';
import { intervalUs } from '../../src/domain/schedule.ts';
import type { Outcome } from '../../src/domain/submission.ts';
import type { Claim } from '../../src/store/contract.ts';
import {
  accepted,
  CONTENT_GONE,
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
  type Request,
  SECOND,
  setNumber,
  UNKNOWN,
  VALIDITY,
} from './desk.ts';

const SMS_VALIDITY = 2 * HOUR;
const NO_MMS: Outcome = { kind: 'refused', error: { id: 15019, words: 'no MMS' } };

/** `callsBack` false: a store that never gives out what is to be called back. */
export function failoverSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: the SMS failover`, () => {
    let h: Harness;
    let desk: Desk;
    let sms: number;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      sms = await desk.laneOf('smsc');
    });
    afterEach(() => h.close());

    const way = (more: Partial<NonNullable<Ways['sms']>> = {}): Ways => ({
      sms: { lane: sms, validityMs: SMS_VALIDITY, ...more },
    });
    const one = (more: Request = {}): Promise<number> => desk.one({ ways: way(), ...more });
    const claimSms = async (limit = 64): Promise<Claim[]> => (await desk.claim(limit, sms)).claims;
    async function smsOne(): Promise<Claim> {
      const claims = await claimSms();
      expect(claims).toHaveLength(1);
      return claims[0] as Claim;
    }
    /** Refused by the MMSC, so that the SMS waits. */
    async function failed(more: Request = {}): Promise<number> {
      const no = await one(more);
      await desk.settle(await desk.claimOne(), NO_MMS);
      return no;
    }
    const smsReport = (id: string, kind: Parameters<Desk['report']>[1]) => desk.report(id, kind, { carrier: 'smsc' });
    const reports = async () => (await desk.pull()).map(({ no, status, error, leg }) => ({ no, status, error, leg }));

    it('follows a refusal, and only its outcome is final', async () => {
      const no = await failed();
      expect(await desk.status(no)).toEqual([26, 0]);
      expect(await reports()).toEqual([]);
      expect((await desk.claim()).claims).toEqual([]);
      const claim = await smsOne();
      expect(claim).toMatchObject({
        leader: -no,
        members: [{ no, to: '441134960001', key: null }],
        generation: 0,
        attempt: 1,
        validUntil: h.now() + SMS_VALIDITY,
      });
      expect((await desk.story(no)).message).toMatchObject({ claimed: true, leg: 1 });
      await desk.settle(claim, accepted('s1'), sms);
      expect(await desk.status(no)).toEqual([3, 0]);
      await smsReport('s1', 'retrieved');
      expect(await desk.status(no)).toEqual([5, 0]);
      expect(await reports()).toEqual([{ no, status: 5, error: 0, leg: 1 }]);
    });

    it.each([
      ['reported undelivered', 'unreachable', [9, 27]],
      ['expired by the carrier', 'expired', [15, 15006]],
    ] as const)('follows an MMS that is %s', async (_, kind, outcome) => {
      const no = await one();
      await desk.settle(await desk.claimOne(), accepted('m'));
      await desk.report('m', kind);
      expect((await desk.story(no)).events.map(({ status, error }) => [status, error])).toContainEqual(outcome);
      await desk.settle(await smsOne(), REFUSED, sms);
      expect(await desk.status(no)).toEqual([4, 15009]);
      expect(await claimSms()).toEqual([]);
    });

    it('follows an MMS that no carrier takes, which waited on the SMS lane and costs no try', async () => {
      const no = await one({ lane: sms });
      const claim = await smsOne();
      expect(claim).toMatchObject({ leader: no, attempt: 1 });
      const error = { id: 15023, words: 'no carrier takes an MMS to this destination' };
      await desk.settle(claim, { kind: 'contentFailed', error }, sms);
      expect((await desk.story(no)).events.map(({ status, error: id }) => [status, id])).toContainEqual([19, 15023]);
      expect(await desk.status(no)).toEqual([26, 0]);
      const second = await smsOne();
      expect(second).toMatchObject({ leader: -no, attempt: 1 });
      await desk.settle(second, accepted('s1'), sms);
      await smsReport('s1', 'retrieved');
      expect(await reports()).toEqual([{ no, status: 5, error: 0, leg: 1 }]);
    });

    it('follows an MMS that was never sent in time, with a validity of its own', async () => {
      const no = await one({ validityMs: HOUR });
      h.advance(HOUR);
      await desk.sweep();
      const claim = await smsOne();
      expect(claim.validUntil).toBe(h.now() + SMS_VALIDITY);
      await desk.settle(claim, accepted('s'), sms);
      h.advance(SMS_VALIDITY - 1);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([3, 0]);
      h.advance(1);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([29, 815]);
    });

    it('is not ended by the end of the validity of the MMS', async () => {
      const no = await failed({ validityMs: HOUR });
      h.advance(HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([26, 0]);
      h.advance(HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([15, 4100]);
      expect(await claimSms()).toEqual([]);
      expect(await reports()).toEqual([{ no, status: 15, error: 4100, leg: 1 }]);
    });

    it('follows content that is gone, before anything was sent', async () => {
      const no = await one();
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      await desk.settle(await smsOne(), accepted('s'), sms);
      await smsReport('s', 'retrieved');
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it('follows linked content that cannot be had, not before sendAt', async () => {
      const sendAt = h.now() + DAY;
      const no = await one({ links: ['https://example.com/a'], sendAt });
      const { jobs } = await h.store.mediaNext(1, LEASE);
      await h.store.mediaSettle(jobs[0] as (typeof jobs)[0], { kind: 'failed', error: 15024, words: '404' });
      await desk.sweep();
      expect(await desk.status(no)).toEqual([26, 0]);
      expect(await claimSms()).toEqual([]);
      h.advance(DAY);
      expect(await claimSms()).toHaveLength(1);
    });

    it('does not follow a refusal at the door, a cancel, or an outcome that is not known', async () => {
      const { nos } = await desk.accept({ to: numbers(2), refused: [[1, 52]], ways: way(), bulkId: 'b' });
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      const unknown = await one({ to: numbers(1, 9) });
      await desk.settle(await desk.claimOne(), accepted('m'));
      h.advance(VALIDITY);
      await desk.sweep();
      expect(await Promise.all([...nos, unknown].map((no) => desk.status(no)))).toEqual([
        [31, 4100],
        [52, 15201],
        [29, 815],
      ]);
      expect(await claimSms()).toEqual([]);
    });

    it('follows an outcome that is not known where that is asked for', async () => {
      const no = await one({ ways: way({ afterUnknown: true }) });
      await desk.settle(await desk.claimOne(), accepted('m'));
      h.advance(VALIDITY);
      await desk.sweep();
      await desk.settle(await smsOne(), accepted('s'), sms);
      await smsReport('s', 'retrieved');
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it('does not follow when its bulk was cancelled while the carrier had the MMS', async () => {
      const no = await one({ bulkId: 'b' });
      await desk.settle(await desk.claimOne(), accepted('m'));
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      await desk.report('m', 'unreachable');
      expect(await desk.status(no)).toEqual([9, 27]);
      expect(await claimSms()).toEqual([]);
    });

    it('is cancelled with its bulk, waiting, put off, and in flight', async () => {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', ways: way() });
      await desk.settleAll(() => NO_MMS);
      const [flying, later] = (await claimSms(2)) as [Claim, Claim];
      await desk.settle(later, DEFERRED, sms);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      const before = await Promise.all(nos.map((no) => desk.status(no)));
      expect(before.filter(([status]) => status === 31)).toHaveLength(2);
      expect(await desk.status(-flying.leader)).toEqual([26, 0]);
      await desk.settle(flying, DEFERRED, sms);
      h.advance(2 * SECOND);
      await desk.sweep();
      expect(await desk.status(-flying.leader)).toEqual([31, 4100]);
      h.advance(DAY);
      expect(await claimSms()).toEqual([]);
      expect(await desk.reported('x', 'retrieved')).toMatchObject({ known: false });
    });

    it('has no route: the outcome of the MMS is final, and its words say so', async () => {
      const no = await failed({ ways: way({ lane: null }) });
      expect(await desk.status(no)).toEqual([4, 15019]);
      expect((await desk.story(no)).events.at(-1)?.words).toBe('no MMS; no route for the SMS failover');
      expect(await reports()).toEqual([{ no, status: 4, error: 15019, leg: 0 }]);
    });

    it('tells the outcome of the MMS between, where that is asked for', async () => {
      const no = await failed({ endpoint: 'https://example.com/r', intermediate: true });
      const [first] = (await desk.webhooks()).webhooks;
      expect(first?.events.map(({ status, error, leg }) => [status, error, leg])).toEqual([[7, 0, 0]]);
      await desk.settle(await smsOne(), accepted('s'), sms);
      await smsReport('s', 'retrieved');
      const told: unknown[] = [];
      for (let hook = first; hook; hook = (await desk.webhooks()).webhooks[0]) {
        told.push(...hook.events.map(({ status, error, leg }) => [status, error, leg]));
        await desk.answer(hook, true);
      }
      expect(told).toEqual([
        [7, 0, 0],
        [4, 15019, 0],
        [7, 0, 1],
        [3, 0, 1],
        [5, 0, 1],
      ]);
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it('is not told between where it is not asked for, and never pulled as final', async () => {
      await failed({ endpoint: 'https://example.com/r' });
      expect((await desk.webhooks()).webhooks).toEqual([]);
      const no = await failed({ endpoint: 'https://example.com/s', intermediate: true });
      for (let tries = 0; tries < 21; tries++) {
        const [hook] = (await desk.webhooks()).webhooks;
        if (hook) await desk.answer(hook, false);
        h.advance(7 * HOUR);
      }
      expect((await reports()).filter((row) => row.no === no && row.status === 4)).toEqual([]);
    });

    describe('a late report of the MMS', () => {
      async function reportedThenLate(): Promise<number> {
        const no = await one();
        await desk.settle(await desk.claimOne(), accepted('m'));
        await desk.report('m', 'unreachable');
        return no;
      }

      it('that it was delivered wins while the SMS waits, and takes it back', async () => {
        const no = await reportedThenLate();
        expect(await desk.report('m', 'retrieved')).toBe(true);
        expect(await desk.status(no)).toEqual([5, 0]);
        expect(await claimSms()).toEqual([]);
        expect(await reports()).toEqual([{ no, status: 5, error: 0, leg: 0 }]);
        h.advance(3 * DAY);
        await desk.sweep();
        expect(await desk.status(no)).toEqual([5, 0]);
      });

      it('that it was delivered wins also where the SMS was tried, and its carrier did not take it', async () => {
        const no = await reportedThenLate();
        await desk.settle(await smsOne(), DEFERRED, sms);
        expect(await desk.status(no)).toEqual([26, 15000]);
        await desk.report('m', 'retrieved');
        expect(await reports()).toEqual([{ no, status: 5, error: 0, leg: 0 }]);
        h.advance(3 * DAY);
        await desk.sweep();
        expect(await claimSms()).toEqual([]);
        expect(await desk.status(no)).toEqual([5, 0]);
      });

      it.each([
        ['is on its way', async (_: Claim) => {}],
        ['may have left', (claim: Claim) => desk.settle(claim, UNKNOWN, sms)],
        ['was taken', (claim: Claim) => desk.settle(claim, accepted('s'), sms)],
      ])('is only recorded once the SMS %s', async (_, then) => {
        const no = await reportedThenLate();
        const claim = await smsOne();
        await then(claim);
        const before = await desk.status(no);
        await desk.report('m', 'retrieved', { words: 'Retrieved' });
        expect(await desk.status(no)).toEqual(before);
        expect((await desk.story(no)).events.at(-1)).toMatchObject({ kind: 'noted', words: 'Retrieved' });
        h.advance(20 * MINUTE);
        await desk.sweep();
        for (const again of await claimSms()) await desk.settle(again, accepted('s'), sms);
        await smsReport('s', 'retrieved');
        expect((await reports()).map(({ leg }) => leg)).toEqual(
          before[0] === 26 && !(await desk.story(no)).message.doneAt ? [] : [1],
        );
      });

      it('of another kind changes nothing', async () => {
        const no = await reportedThenLate();
        await desk.report('m', 'rejected');
        await desk.report('m', 'deferred');
        expect(await desk.status(no)).toEqual([26, 0]);
        expect(await claimSms()).toHaveLength(1);
      });
    });

    it('tells reports of the two legs apart, also under one id', async () => {
      const no = await failed();
      await desk.settle(await smsOne(), accepted('same'), sms);
      const other = await desk.one({ to: numbers(1, 7) });
      await desk.settle(await desk.claimOne(), accepted('same'));
      await desk.report('same', 'unreachable');
      expect(await desk.status(no)).toEqual([3, 0]);
      await smsReport('same', 'retrieved');
      expect(await desk.status(no)).toEqual([5, 0]);
      expect(await desk.status(other)).toEqual([9, 27]);
    });

    it('leaves one submission at a time: not beside an attempt of the MMS that is open', async () => {
      const no = await one();
      await desk.settle(await desk.claimOne(), accepted('m'));
      // Another attempt, as after a lost answer: the carrier's first report came meanwhile.
      const second = await desk.one({ to: numbers(1, 5), ways: way() });
      await desk.settle(await desk.claimOne(), UNKNOWN);
      h.advance(20 * MINUTE);
      const again = await desk.claimOne();
      expect(again.leader).toBe(second);
      await h.store.settle({
        lane: desk.lane,
        token: 0,
        leader: second,
        outcome: accepted('n'),
        startedAt: 0,
        tookMs: 0,
      });
      await desk.report('n', 'unreachable');
      await desk.report('m', 'unreachable');
      expect((await claimSms()).map(({ leader }) => leader)).toEqual([-no]);
      expect(await desk.settle(again, DEFERRED)).toBe(true);
      expect(await desk.status(second)).toEqual([26, 0]);
      h.advance(LEASE);
      expect((await claimSms()).map(({ leader }) => leader)).toContain(-second);
      h.advance(DAY);
      expect((await desk.claim()).claims).toEqual([]);
    });

    it('retries, holds and gives up as any submission, under its own attempts', async () => {
      const no = await failed();
      await desk.settle(await smsOne(), DEFERRED, sms);
      h.advance(2 * SECOND);
      const second = await smsOne();
      expect(second).toMatchObject({ attempt: 2, generation: 0, leader: -no });
      await desk.settle(second, UNKNOWN, sms);
      expect(await desk.status(no)).toEqual([3, 15000]);
      h.advance(15 * MINUTE);
      await desk.settle(await smsOne(), REFUSED, sms);
      expect(await desk.status(no)).toEqual([4, 15009]);
      const { attempts } = await desk.story(no);
      expect(attempts.map(({ n, channel, outcome, carrier }) => [n, channel, outcome, carrier])).toEqual([
        [1, 'MMS', 'refused', 'mmsc'],
        [1, 'SMS', 'deferred', 'smsc'],
        [2, 'SMS', 'unknown', 'smsc'],
        [3, 'SMS', 'refused', 'smsc'],
      ]);
      expect(attempts[1]?.transactionId).toBe(`${attempts[0]?.transactionId}-sms`);
    });

    it('is put back as if it had never been claimed', async () => {
      const no = await failed();
      const claim = await smsOne();
      h.advance(MINUTE);
      await h.store.release([claim], h.now());
      expect(await smsOne()).toMatchObject({ leader: -no, attempt: 1 });
    });

    it('is lost with its node as any submission', async () => {
      const no = await failed();
      await smsOne();
      h.advance(LEASE);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([3, 15000]);
      h.advance(15 * MINUTE);
      expect(await smsOne()).toMatchObject({ leader: -no, attempt: 2 });
    });

    it('goes to each member of a group alone, the others stay with the MMS', async () => {
      const { nos } = await desk.accept({ to: numbers(3), groups: [3], ways: way() });
      const group = await desk.claimOne();
      await desk.settle(group, {
        kind: 'accepted',
        carrierMessageId: 'g',
        refused: [{ recipient: numbers(3)[0] as string, error: { id: 15019 } }],
      });
      await desk.report('g', 'unreachable', { addresses: [numbers(3)[2] as string] });
      await desk.report('g', 'retrieved', { addresses: [numbers(3)[1] as string] });
      const claims = await claimSms();
      expect(claims.map(({ leader, members }) => [leader, members.length]).sort()).toEqual(
        [
          [-(nos[0] as number), 1],
          [-(nos[2] as number), 1],
        ].sort(),
      );
      for (const claim of claims) await desk.settle(claim, accepted(`s${claim.leader}`), sms);
      for (const claim of claims) await smsReport(`s${claim.leader}`, 'retrieved');
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [5, 0],
        [5, 0],
        [5, 0],
      ]);
      expect((await reports()).map(({ leg }) => leg).sort()).toEqual([0, 1, 1]);
    });

    it('of a member leaves the others of an uncertain group to their next attempt', async () => {
      const { nos } = await desk.accept({ to: numbers(2), groups: [2], ways: way() });
      const first = await desk.claimOne();
      await desk.settle(first, UNKNOWN);
      await h.store.settle({
        lane: desk.lane,
        token: 0,
        leader: first.leader,
        outcome: accepted('g'),
        startedAt: 0,
        tookMs: 0,
      });
      await desk.report('g', 'unreachable', { addresses: [numbers(2)[0] as string] });
      expect(await smsOne()).toMatchObject({ leader: -(nos[0] as number) });
      h.advance(15 * MINUTE);
      expect(await desk.claimOne()).toMatchObject({ leader: nos[0], members: [{ no: nos[1] }] });
    });

    it('goes the way of its own member, where members of a group go different ones', async () => {
      const other = await desk.laneOf('smsc2');
      const smsEach = [sms, other].map((lane) => ({ lane, validityMs: SMS_VALIDITY }));
      const { nos } = await desk.accept({ to: numbers(2), groups: [2], ways: { smsEach } });
      await desk.settle(await desk.claimOne(), NO_MMS);
      expect((await claimSms()).map(({ leader }) => leader)).toEqual([-(nos[0] as number)]);
      expect((await desk.claim(9, other)).claims.map(({ leader }) => leader)).toEqual([-(nos[1] as number)]);
    });

    it('takes turns of the speed limit of its bulk, its validity from its turn on', async () => {
      await desk.accept({ to: numbers(2), bulkId: 'b', every: 10 * SECOND, ways: way() });
      await desk.settle(await desk.claimOne(), NO_MMS);
      // The second MMS and the first SMS wait for the next turns.
      expect(await claimSms()).toEqual([]);
      h.advance(10 * SECOND);
      const next = [...(await desk.claim()).claims, ...(await claimSms())];
      expect(next).toHaveLength(1);
      expect(next[0]?.paced).toBe(true);
      h.advance(10 * SECOND);
      const last = [...(await desk.claim()).claims, ...(await claimSms())];
      expect(last).toHaveLength(1);
      const leaders = [...next, ...last].map(({ leader }) => Math.sign(leader)).sort();
      expect(leaders).toEqual([-1, 1]);
      const claim = [...next, ...last].find(({ leader }) => leader < 0);
      expect(claim?.validUntil).toBe(Math.ceil((claim?.notBeforeUs ?? 0) / 1000) + SMS_VALIDITY);
    });

    it('waits for its window', async () => {
      // The window of today closes in an hour.
      const minute = Math.floor((h.now() % DAY) / MINUTE);
      const window = { days: 0b1111111, from: (minute + 1440 - 60) % 1440, to: (minute + 60) % 1440 };
      await one({ window });
      await desk.settle(await desk.claimOne(), accepted('m'));
      h.advance(2 * HOUR);
      await desk.report('m', 'unreachable');
      expect(await claimSms()).toEqual([]);
      h.advance(20 * HOUR);
      expect(await claimSms()).toEqual([]);
      h.advance(2 * HOUR);
      const claim = await smsOne();
      expect(claim.validUntil).toBeGreaterThan(h.now());
    });

    it('stands still with its bulk, and leaves when that goes on', async () => {
      const { bulk } = await desk.accept({ ways: way() });
      await desk.settle(await desk.claimOne(), accepted('m'));
      // Its bulk gets a row, and lines of its own, only now.
      await desk.steer(1, { no: bulk }, 'PAUSED');
      h.advance(SECOND);
      await desk.report('m', 'unreachable');
      h.advance(DAY);
      await desk.sweep();
      expect(await claimSms()).toEqual([]);
      await desk.steer(1, { no: bulk }, 'PROCESSING');
      expect((await smsOne()).validUntil).toBe(h.now() + SMS_VALIDITY);
    });

    it('that waits already stands still, too', async () => {
      const { bulk } = await desk.accept({ to: numbers(2), ways: way() });
      await desk.settleAll(() => NO_MMS);
      await desk.settle((await claimSms(1))[0] as Claim, DEFERRED, sms);
      await desk.steer(1, { no: bulk }, 'PAUSED');
      h.advance(MINUTE);
      expect(await claimSms()).toEqual([]);
      await desk.steer(1, { no: bulk }, 'PROCESSING');
      await desk.sweep();
      expect(await claimSms()).toHaveLength(2);
    });

    it('moves with its bulk, waiting, put back and put off', async () => {
      await desk.accept({ to: numbers(3), bulkId: 'b', ways: way() });
      await desk.settleAll(() => NO_MMS);
      const [first, second] = (await claimSms(2)) as [Claim, Claim];
      await h.store.release([first], h.now());
      await desk.settle(second, DEFERRED, sms);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'pause' }]);
      const sendAt = h.now() + DAY;
      const moved = await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'reschedule', sendAt }, { kind: 'resume' }]);
      expect(moved.kind).toBe('done');
      await desk.sweep();
      h.advance(HOUR);
      await desk.sweep();
      expect(await claimSms()).toEqual([]);
      h.advance(DAY - HOUR);
      await desk.sweep();
      const claims = await claimSms();
      // What was tried has its own validity, which is over.
      expect(claims.map(({ leader }) => leader)).not.toContain(second.leader);
      expect(claims).toHaveLength(2);
      expect(claims.every(({ validUntil }) => validUntil === sendAt + SMS_VALIDITY)).toBe(true);
    });

    it('hears of a faster pace', async () => {
      await desk.accept({ to: numbers(2), bulkId: 'b', every: HOUR, ways: way() });
      await desk.settle(await desk.claimOne(), NO_MMS);
      expect(await claimSms()).toEqual([]);
      const speed = { amount: 60_000, timeUnit: 'MINUTE' } as const;
      expect(intervalUs(speed)).toBeLessThan(2000);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'limit', speed }]);
      await desk.sweep();
      h.advance(SECOND);
      await desk.sweep();
      expect(await claimSms()).toHaveLength(1);
    });

    it('is counted as waiting again in the figures of its bulk', async () => {
      const { bulk } = await desk.accept({ to: numbers(2), bulkId: 'b', ways: way() });
      await desk.settle((await desk.claim(1)).claims[0] as Claim, accepted('m'));
      await desk.report('m', 'unreachable');
      const figures = { accepted: 2, waiting: 2, sent: 0, delivered: 0, failed: 0 };
      expect((await h.store.bulkGet(1, { no: bulk }))?.progress).toEqual(figures);
      await desk.settle(await smsOne(), accepted('s'), sms);
      expect((await h.store.bulkGet(1, { no: bulk }))?.progress).toEqual({ ...figures, waiting: 1, sent: 1 });
    });

    describe('with a sender of its own', () => {
      const HANDSET = '441134960001';
      const own = (sender: string, smsSender?: string): Request => ({
        to: [HANDSET],
        spec: {
          sender,
          body: JSON.stringify({
            sender,
            content: { messageSegments: [] },
            // As a customer may write it into a text.
            options: { campaignReferenceId: '"smsFailover":{', smsFailover: { sender: smsSender, text: 'instead' } },
          }),
        },
      });
      const ours = (number: string) => ({
        number,
        account: 1,
        url: null,
        entity: null,
        application: null,
        callbackData: null,
      });
      const answered = async (to: string): Promise<number | undefined> => {
        const no = await h.store.reserve(1);
        const mo = { no, carrier: 'smsc', id: `mo-${no}`, channel: 'SMS' as const, from: HANDSET, to: [to], cc: [] };
        await h.store.inbound({ ...mo, subject: null, parts: [], answers: null, asks: null });
        return (await h.store.takeInbox({ account: 1, limit: 10 })).at(-1)?.paired?.no;
      };
      beforeEach(async () => {
        await h.store.putKey({ hash: 'h1', account: 1, label: 'k' }, false);
        for (const number of ['441134960000', '447700900500']) await setNumber(h.store, ours(number));
      });

      it('is what a handset answers there, not at the number of the MMS', async () => {
        const no = await failed(own('Shop', '+447700900500'));
        await desk.settle(await smsOne(), accepted('s1'), sms);
        expect(await answered('447700900500')).toBe(no);
        expect(await answered('441134960000')).toBeUndefined();
        const other = await failed(own('441134960000', '447700900500'));
        // Refused: the handset has nothing from there.
        expect(await answered('441134960000')).toBeUndefined();
        await desk.settle(await smsOne(), accepted('s2'), sms);
        expect(await answered('441134960000')).toBeUndefined();
        expect(await answered('447700900500')).toBe(other);
      });

      it('is else the sender of the message', async () => {
        for (const sender of [undefined, '']) {
          const no = await failed(own('441134960000', sender));
          await desk.settle(await smsOne(), accepted(`s${sender}`), sms);
          expect(await answered('441134960000')).toBe(no);
        }
      });

      it.each([
        ['the SMS', '447700900500'],
        ['the message', '441134960000'],
      ])('sends nothing to who has opted out of the sender of %s', async (_, sender) => {
        const no = await failed(own('441134960000', '447700900500'));
        await h.store.optOutPut(1, [{ sender, destination: HANDSET }]);
        h.advance(MINUTE);
        expect(await claimSms()).toEqual([]);
        expect(await desk.status(no)).toEqual([10, 603]);
        expect(await h.store.stats()).toMatchObject({ inFlight: 0, retries: 0 });
      });

      it('does not stop the MMS for who has opted out of it', async () => {
        await h.store.optOutPut(1, [{ sender: '447700900500', destination: HANDSET }]);
        const no = await one(own('441134960000', '447700900500'));
        expect((await desk.claimOne()).leader).toBe(no);
      });
    });

    it('survives a crash at every point, once', async () => {
      const no = await failed();
      await h.crash();
      await desk.settle(await smsOne(), accepted('s'), sms);
      await h.crash();
      await smsReport('s', 'unreachable');
      await h.crash();
      await smsReport('s', 'retrieved');
      await desk.sweep();
      expect(await desk.status(no)).toEqual([9, 27]);
      expect(await claimSms()).toEqual([]);
      expect(await reports()).toEqual([{ no, status: 9, error: 27, leg: 1 }]);
    });

    it('leaves with its message', async () => {
      const no = await failed();
      await desk.settle(await smsOne(), accepted('s'), sms);
      await smsReport('s', 'retrieved');
      await desk.pull();
      h.advance(31 * DAY);
      await desk.sweep();
      h.advance(HOUR);
      await desk.sweep();
      expect(await h.store.story(1, { no })).toBeNull();
      expect(await smsReport('s', 'retrieved')).toBe(false);
    });
  });

  describe(`${name}: second choices`, () => {
    let h: Harness;
    let desk: Desk;
    let second: number;
    let third: number;
    let sms: number;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      second = await desk.laneOf('second');
      third = await desk.laneOf('third');
      sms = await desk.laneOf('smsc');
    });
    afterEach(() => h.close());

    const ways = (): Ways => ({ alts: [second, third] });
    const DOWN: Outcome = { kind: 'deferred', error: { id: 15000, words: 'down' }, elsewhere: true };
    const NOT_OURS: Outcome = { kind: 'refused', error: { id: 15010, words: '4007' }, elsewhere: true };
    const on = async (lane: number): Promise<Claim[]> => (await desk.claim(64, lane)).claims;

    it('are asked one after the other, each as another submission, and the last one decides', async () => {
      const no = await desk.one({ ways: ways() });
      const validUntil = h.now() + VALIDITY;
      await desk.settle(await desk.claimOne(), DOWN);
      expect(await desk.status(no)).toEqual([26, 15000]);
      expect((await desk.story(no)).waiting?.carrier).toBe('second');
      expect((await desk.claim()).claims).toEqual([]);
      const [b] = (await on(second)) as [Claim];
      expect(b).toMatchObject({ leader: no, generation: 1, attempt: 2, validUntil });
      await desk.settle(b, NOT_OURS, second);
      expect(await desk.status(no)).toEqual([26, 15010]);
      const [c] = (await on(third)) as [Claim];
      expect(c).toMatchObject({ leader: no, generation: 2, attempt: 3, validUntil });
      await desk.settle(c, NOT_OURS, third);
      expect(await desk.status(no)).toEqual([4, 15010]);
      const { attempts } = await desk.story(no);
      expect(attempts.map(({ carrier }) => carrier)).toEqual(['mmsc', 'second', 'third']);
      expect(new Set(attempts.map(({ transactionId }) => transactionId)).size).toBe(3);
      expect((await desk.pull()).map(({ status }) => status)).toEqual([4]);
    });

    it('are left as they are for a reason of the message', async () => {
      const no = await desk.one({ ways: ways() });
      await desk.settle(await desk.claimOne(), REFUSED);
      expect(await desk.status(no)).toEqual([4, 15009]);
      const put = await desk.one({ ways: ways() });
      await desk.settle(await desk.claimOne(), DEFERRED);
      expect(await on(second)).toEqual([]);
      h.advance(2 * SECOND);
      expect(await desk.claimOne()).toMatchObject({ leader: put, generation: 0 });
    });

    it('come before the SMS also where the first carrier takes no MMS any more', async () => {
      const asked = { alts: [second], sms: { lane: sms, validityMs: HOUR } };
      const no = await desk.one({ ways: asked });
      const error = { id: 15023, words: 'no MMS any more' };
      await desk.settle(await desk.claimOne(), { kind: 'contentFailed', error, elsewhere: true });
      expect(await on(sms)).toEqual([]);
      expect(await desk.status(no)).toEqual([26, 15023]);
      const [claim] = (await on(second)) as [Claim];
      await desk.settle(claim, { kind: 'contentFailed', error, elsewhere: true }, second);
      expect((await on(sms)).map(({ leader }) => leader)).toEqual([-no]);
    });

    it('wait on the last one, which may heal', async () => {
      await desk.one({ ways: { alts: [second] } });
      await desk.settle(await desk.claimOne(), DOWN);
      await desk.settle((await on(second))[0] as Claim, DOWN, second);
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(5 * SECOND);
      expect(await on(second)).toMatchObject([{ attempt: 3, generation: 1 }]);
    });

    it('never get what the first may have', async () => {
      const no = await desk.one({ ways: ways() });
      await desk.settle(await desk.claimOne(), UNKNOWN);
      h.advance(15 * MINUTE);
      await desk.settle(await desk.claimOne(), DOWN);
      expect(await on(second)).toEqual([]);
      expect(await desk.status(no)).toEqual([3, 15000]);
    });

    it('get a group whole', async () => {
      const { nos } = await desk.accept({ to: numbers(3), groups: [3], ways: ways() });
      await desk.settle(await desk.claimOne(), DOWN);
      const [claim] = (await on(second)) as [Claim];
      expect(claim.members.map(({ no }) => no)).toEqual(nos);
      await desk.settle(claim, accepted('g'), second);
      await desk.report('g', 'retrieved', { carrier: 'second', addresses: numbers(3) });
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual(nos.map(() => [5, 0]));
    });

    it('have reports of their own, and answers that are late teach their ids', async () => {
      const no = await desk.one({ ways: ways() });
      const first = await desk.claimOne();
      await desk.settle(first, DOWN);
      const [b] = (await on(second)) as [Claim];
      expect(await desk.settle(first, accepted('same'))).toBe(false);
      await desk.settle(b, accepted('same'), second);
      await desk.report('same', 'retrieved', { carrier: 'second' });
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it('come before the SMS, which has second choices of its own', async () => {
      const sms2 = await desk.laneOf('smsc2');
      const no = await desk.one({ ways: { alts: [second], sms: { lane: sms, alts: [sms2], validityMs: HOUR } } });
      await desk.settle(await desk.claimOne(), NOT_OURS);
      expect(await on(sms)).toEqual([]);
      await desk.settle((await on(second))[0] as Claim, NOT_OURS, second);
      const [a] = (await on(sms)) as [Claim];
      await desk.settle(a, DOWN, sms);
      const [b] = (await on(sms2)) as [Claim];
      expect(b).toMatchObject({ leader: -no, generation: 1 });
      await desk.settle(b, accepted('s'), sms2);
      await desk.report('s', 'retrieved', { carrier: 'smsc2' });
      expect((await desk.pull()).map(({ status, leg }) => [status, leg])).toEqual([[5, 1]]);
    });

    it('get what is put back for them; the rest waits', async () => {
      const { nos } = await desk.accept({ to: numbers(2), ways: ways() });
      const alone = await desk.one({ to: numbers(1, 8) });
      const { claims } = await desk.claim();
      expect(claims).toHaveLength(3);
      expect(await h.store.release(claims, h.now() + MINUTE, true)).toBe(2);
      expect((await desk.claim()).claims).toEqual([]);
      const moved = await on(second);
      expect(moved.map(({ leader, attempt }) => [leader, attempt])).toEqual(nos.map((no) => [no, 1]));
      expect(moved.every(({ validUntil }) => validUntil === h.now() + VALIDITY)).toBe(true);
      h.advance(MINUTE);
      expect(await desk.claimOne()).toMatchObject({ leader: alone, attempt: 1, generation: 0 });
    });

    it('keep the pace, the pauses and the cancelling of their bulk', async () => {
      const { nos } = await desk.accept({ to: numbers(2), bulkId: 'b', every: 10 * SECOND, ways: ways() });
      await desk.settle(await desk.claimOne(), DOWN);
      expect(await on(second)).toEqual([]);
      h.advance(10 * SECOND);
      const next = [...(await desk.claim()).claims, ...(await on(second))];
      expect(next).toHaveLength(1);
      await h.store.release(next, h.now());
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'pause' }]);
      h.advance(MINUTE);
      expect([...(await desk.claim()).claims, ...(await on(second))]).toEqual([]);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'resume' }]);
      h.advance(MINUTE);
      expect([...(await desk.claim()).claims, ...(await on(second))].length).toBeGreaterThan(0);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      h.advance(LEASE);
      await desk.sweep();
      h.advance(DAY);
      await desk.sweep();
      expect(await on(second)).toEqual([]);
      for (const no of nos) expect([31, 3]).toContain((await desk.status(no))[0]);
    });

    it('also of a request that gets a bulk of its own meanwhile, waiting and in flight', async () => {
      const { bulk } = await desk.accept({ to: numbers(2), ways: ways() });
      await desk.settleAll(() => DOWN);
      const [flying] = (await desk.claim(1, second)).claims as [Claim];
      await desk.steer(1, { no: bulk }, 'PAUSED');
      expect(await on(second)).toEqual([]);
      await desk.settle(flying, DEFERRED, second);
      h.advance(MINUTE);
      expect(await on(second)).toEqual([]);
      await desk.steer(1, { no: bulk }, 'PROCESSING');
      await desk.sweep();
      expect(await on(second)).toHaveLength(2);
    });

    it('do not get what is of another channel, by whatever name it waits', async () => {
      await desk.accept({ to: numbers(2) });
      expect(await h.store.reroute('mmsc', 'smsc', 'SMS')).toEqual({ count: 0, next: null, otherChannel: true });
      expect((await desk.claim()).claims).toHaveLength(2);
      const no = await desk.one({ to: numbers(1, 9), ways: { sms: { lane: sms, validityMs: HOUR } } });
      await desk.settle(await desk.claimOne(), { kind: 'refused', error: { id: 15009 } });
      expect(await h.store.reroute('smsc', 'mmsc', 'MMS')).toEqual({ count: 0, next: null, otherChannel: true });
      const [claim] = (await desk.claim(10, sms)).claims as [Claim];
      expect(claim.leader).toBe(-no);
      // Where it waits for another try it is of that channel, too.
      await desk.settle(claim, DEFERRED, sms);
      expect(await h.store.reroute('smsc', 'mmsc', 'MMS')).toMatchObject({ count: 0, otherChannel: true });
      await desk.laneOf('smsc2');
      expect(await h.store.reroute('smsc', 'smsc2', 'SMS')).toMatchObject({ count: 1 });
    });

    it('get what waits for an SMS carrier that left, also where an MMS that no carrier takes waits there for its turn', async () => {
      const no = await desk.one({ lane: sms, ways: { sms: { lane: sms, validityMs: HOUR } } });
      const smsc2 = await desk.laneOf('smsc2');
      const otherChannel = { count: 0, next: null, otherChannel: true };
      expect(await h.store.reroute('smsc', 'mmsc', 'MMS')).toEqual(otherChannel);
      // Claimed, and put back as it was.
      const [claim] = (await on(sms)) as [Claim];
      await h.store.release([claim], h.now());
      expect(await h.store.reroute('smsc', 'mmsc', 'MMS')).toEqual(otherChannel);
      expect(await h.store.reroute('smsc', 'smsc2', 'SMS')).toMatchObject({ count: 1 });
      expect((await on(smsc2)).map(({ leader }) => leader)).toEqual([no]);
    });

    it('get what waits for an SMS carrier that left also the second time, and so does its SMS', async () => {
      const [smsc2, smsc3] = [await desk.laneOf('smsc2'), await desk.laneOf('smsc3')];
      const ways = { smsOnly: true, sms: { lane: sms, validityMs: HOUR } } as const;
      const no = await desk.one({ lane: sms, ways });
      const tried = await desk.one({ to: numbers(1, 5), lane: sms, ways });
      for (const claim of await on(sms)) {
        if (claim.leader === tried) await desk.settle(claim, DEFERRED, sms);
        else await h.store.release([claim], h.now());
      }
      h.advance(MINUTE);
      const otherChannel = { count: 0, next: null, otherChannel: true };
      const hop = async (from: string, to: string): Promise<number> => {
        expect(await h.store.reroute(from, 'mmsc', 'MMS')).toEqual(otherChannel);
        let count = 0;
        for (let more = true; more; ) {
          const step = await h.store.reroute(from, to, 'SMS');
          count += step?.count ?? 0;
          more = typeof step?.next === 'number';
        }
        return count;
      };
      expect(await hop('smsc', 'smsc2')).toBe(2);
      expect(await hop('smsc2', 'smsc3')).toBe(2);
      expect((await desk.claim(10, sms)).claims).toEqual([]);
      const here = (await on(smsc3)).sort((a, b) => a.leader - b.leader);
      expect(here.map(({ leader }) => leader)).toEqual([no, tried]);
      for (const one of here) await desk.settle(one, { kind: 'refused', error: { id: 15023 } }, smsc3);
      for (const gone of [sms, smsc2]) expect(await on(gone)).toEqual([]);
      expect((await on(smsc3)).map(({ leader }) => leader).sort((a, b) => a - b)).toEqual([-tried, -no]);
    });

    it('are where what waits for a carrier that left goes, at one word', async () => {
      expect(await h.store.reroute('mmsc', 'nobody')).toBeNull();
      expect(await h.store.reroute('mmsc', 'mmsc')).toBeNull();
      const sendAt = h.now() + HOUR;
      const later = await desk.one({ to: numbers(1, 20), bulkId: 'later', sendAt });
      const { bulk } = await desk.accept({ to: numbers(3), bulkId: 'b' });
      const { nos: group } = await desk.accept({ to: numbers(2, 30), groups: [2] });
      const again = await desk.one({ to: numbers(1, 40) });
      const unknown = await desk.one({ to: numbers(1, 50) });
      await desk.accept({ to: numbers(2, 60), bulkId: 'paused' });
      await desk.steer(1, { id: 'paused' }, 'PAUSED');
      const flying: Claim[] = [];
      for (const claim of (await desk.claim()).claims) {
        if (claim.leader === again) await desk.settle(claim, DEFERRED);
        else if (claim.leader === unknown) await desk.settle(claim, UNKNOWN);
        else if (claim.leader === group[0]) await h.store.release([claim], h.now());
        else flying.push(claim);
      }
      expect(flying).toHaveLength(3);
      let count = 0;
      for (;;) {
        const step = await h.store.reroute('mmsc', 'second');
        count += step?.count ?? 0;
        if (step?.next == null) break;
      }
      // The one of later, the group, the one to try again, the paused ones.
      expect(count).toBe(6);
      const moved = await on(second);
      expect(moved.map(({ leader }) => leader)).toEqual([group[0]]);
      h.advance(2 * SECOND);
      expect((await on(second)).map(({ leader, generation }) => [leader, generation])).toEqual([[again, 1]]);
      // What is in flight comes back to where it was.
      await desk.settle(flying[0] as Claim, DEFERRED);
      h.advance(2 * SECOND);
      expect((await desk.claim()).claims.map(({ leader }) => leader)).toEqual([flying[0]?.leader]);
      await desk.steer(1, { id: 'paused' }, 'PROCESSING');
      expect(await on(second)).toHaveLength(2);
      h.advance(HOUR);
      expect((await on(second)).map(({ leader }) => leader)).toEqual([later]);
      expect((await h.store.bulkGet(1, { no: bulk }))?.progress.accepted).toBe(3);
      // It may have reached the first: it stays there.
      expect((await desk.claim()).claims.map(({ leader }) => leader)).toContain(unknown);
    });

    it('end with the validity of the message, and survive a crash', async () => {
      const no = await desk.one({ validityMs: HOUR, ways: ways() });
      await desk.settle(await desk.claimOne(), DOWN);
      await h.crash();
      h.advance(HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([15, 15000]);
      expect(await on(second)).toEqual([]);
    });
  });

  describe(`${name}: what a carrier has of a cancelled bulk`, () => {
    let h: Harness;
    let desk: Desk;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
    });
    afterEach(() => h.close());
    const cancel = () => h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);

    it('is given out once to be called back; the story says what came of it, the status stays', async () => {
      const { nos } = await desk.accept({ to: numbers(5), groups: [2], bulkId: 'b' });
      const claims = (await desk.claim(3)).claims;
      for (const claim of claims) await desk.settle(claim, accepted(`m${claim.leader}`));
      await desk.report(`m${nos[2]}`, 'retrieved');
      expect(await h.store.callBacks(desk.lane, 10)).toEqual([]);
      await cancel();
      await desk.sweep();
      const given = await h.store.callBacks(desk.lane, 10);
      expect(
        given.map(({ leader, members, generation, carrierMessageId, sender }) => [
          leader,
          members,
          generation,
          carrierMessageId,
          sender,
        ]),
      ).toEqual([
        [nos[0], 2, 0, `m${nos[0]}`, 'Shop'],
        [nos[3], 1, 0, `m${nos[3]}`, 'Shop'],
      ]);
      expect(await h.store.callBacks(desk.lane, 10)).toEqual([]);
      await h.store.calledBack(nos[0] as number, 2, 'it will not be delivered');
      for (const no of nos.slice(0, 2)) {
        expect((await desk.story(no)).events.at(-1)).toMatchObject({
          kind: 'noted',
          words: 'it will not be delivered',
        });
      }
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [3, 0],
        [3, 0],
        [5, 0],
        [3, 0],
        [31, 4100],
      ]);
      await desk.report(`m${nos[3]}`, 'retrieved');
      expect(await desk.status(nos[3] as number)).toEqual([5, 0]);
    });

    it('is an SMS, too, and is not asked for after a day', async () => {
      const sms = await desk.laneOf('smsc');
      const sender = '+447700900500';
      const options = { smsFailover: { sender, text: 'instead' } };
      const body = JSON.stringify({ sender: 'Shop', content: { messageSegments: [] }, options });
      const ways = { sms: { lane: sms, validityMs: 40 * HOUR } };
      const no = await desk.one({ bulkId: 'b', ways, spec: { body } });
      await desk.settle(await desk.claimOne(), NO_MMS);
      await desk.settle((await desk.claim(1, sms)).claims[0] as Claim, accepted('s'), sms);
      await cancel();
      await desk.sweep();
      expect(await h.store.callBacks(desk.lane, 10)).toEqual([]);
      expect(await h.store.callBacks(sms, 10)).toMatchObject([{ leader: -no, carrierMessageId: 's', sender }]);
    });
  });
}
