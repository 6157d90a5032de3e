/**
 * What a spend limit is held against after the door, for engines that send SMS: the failover is paid when it begins, and what a
 * leg that costs nothing after all had taken goes back. Each case needs a clock that can be moved.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DEFAULT_SETTINGS, type SpendLimit } from '../../src/domain/accounts.ts';
import { bucketOf, DAY_MS, type Purse, purseOf, SPEND, spendBucket } from '../../src/domain/limits.ts';
import { NO_CREDIT_WORDS } from '../../src/domain/prices.ts';
import type { Outcome } from '../../src/domain/submission.ts';
import {
  accepted,
  CONTENT_GONE,
  DAY,
  DEFERRED,
  type Desk,
  type Harness,
  HOUR,
  numbers,
  openDesk,
  SECOND,
} from './desk.ts';

const NO_MMS: Outcome = { kind: 'refused', error: { id: 15019, words: 'no MMS' } };
/** Millionths that the account may spend. */
const MOST = 10_000_000;
const MMS = 100_000;
/** Two segments of 0.04. */
const SMS = 80_000;
const TEXT = 'a'.repeat(161);

export function spendSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: money after the door`, () => {
    let h: Harness;
    let desk: Desk;
    let sms: number;
    let bucket: number;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      sms = await desk.laneOf('smsc');
      await h.store.putKey({ hash: 'h1', account: 1, label: 'k' }, false);
      await limit({ amount: 10, per: 'DAY' });
      ({ bucket } = bucketOf(h.now(), DAY_MS));
    });
    afterEach(() => h.close());

    const limit = (spend: SpendLimit | null) =>
      h.store.administer(
        [
          {
            kind: 'account',
            no: 1,
            name: 'account 1',
            settings: { ...DEFAULT_SETTINGS, limits: { ...DEFAULT_SETTINGS.limits, spend } },
          },
        ],
        { by: 'test', action: 'limit', account: 1, detail: {} },
      );
    const quota = async (want: number, least = 0): Promise<number> => {
      const take = { account: 1, scope: SPEND, bucket, buckets: 1, want, least, most: MOST, keepMs: 4 * DAY };
      return (await h.store.quota([take]))[0] as number;
    };
    /** What is spent, in millionths. */
    async function spent(): Promise<number> {
      const left = await quota(MOST);
      await quota(-left);
      return MOST - left;
    }
    /** Accepted and paid for as the door does it. `sms` false = no SMS was asked for. */
    async function paid(
      to: string[] = numbers(1),
      more: { counted?: boolean; bulkId?: string; validityMs?: number; smsMs?: number } = {},
    ) {
      const { counted = true, smsMs = HOUR, ...request } = more;
      const prices = {
        currency: 'EUR',
        MMS: { '': 0.1 },
        SMS: { '': 0.04 },
        ...(counted ? { spend: bucket } : {}),
      };
      const body = JSON.stringify({ sender: 'Shop', options: { smsFailover: { text: TEXT } }, prices });
      if (counted) expect(await quota(to.length * MMS, to.length * MMS)).toBe(to.length * MMS);
      const ways = { sms: { lane: sms, validityMs: smsMs } };
      return (await desk.accept({ ...request, to, ways, spec: { body } })).nos;
    }
    const smsClaim = async () => (await desk.claim(64, sms)).claims[0] as Awaited<ReturnType<Desk['claimOne']>>;

    it('pays for the SMS when it begins, by its segments, and for nothing where the MMS arrives', async () => {
      await paid(numbers(2));
      expect(await spent()).toBe(2 * MMS);
      await desk.settle(await desk.claimOne(), accepted('m1'));
      await desk.report('m1', 'retrieved');
      expect(await spent()).toBe(2 * MMS);
      await desk.settle(await desk.claimOne(), NO_MMS);
      expect(await spent()).toBe(2 * MMS + SMS);
      await desk.settle(await smsClaim(), accepted('s1'), sms);
      await desk.report('s1', 'retrieved', { carrier: 'smsc' });
      expect(await spent()).toBe(2 * MMS + SMS);
    });

    it('begins no SMS that the credit does not reach for: the outcome of the MMS is final, and the story says why', async () => {
      const nos = await paid(numbers(3));
      // Room for one of three.
      await quota(MOST - 3 * MMS - 2 * SMS + 1, 0);
      await desk.settleAll(() => NO_MMS);
      const ends = await Promise.all(nos.map((no) => desk.story(no)));
      expect(ends.map(({ message }) => [message.status, message.leg])).toEqual([
        [26, 1],
        [4, 0],
        [4, 0],
      ]);
      expect(ends.map(({ events }) => events.at(-1)?.words.includes(NO_CREDIT_WORDS))).toEqual([false, true, true]);
      expect((await desk.pull()).map(({ status }) => status)).toEqual([4, 4]);
      expect(await spent()).toBeLessThanOrEqual(MOST);
    });

    it('gives back what a message that is rejected, cancelled or never left in time had taken', async () => {
      await paid();
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      // Its SMS begins all the same.
      expect(await spent()).toBe(SMS);
      await desk.settle(await smsClaim(), accepted('s'), sms);
      await paid(numbers(3, 2), { bulkId: 'b' });
      expect(await spent()).toBe(SMS + 3 * MMS);
      await desk.settle(await desk.claimOne(), accepted('m'));
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      expect(await spent()).toBe(SMS + MMS);
      await limit(null);
      await paid(numbers(1, 7), { validityMs: HOUR });
      h.advance(HOUR);
      await desk.sweep();
      expect(await spent()).toBe(SMS + MMS);
    });

    it('keeps what a message cost that was tried and ended badly', async () => {
      await paid();
      await limit(null);
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(49 * HOUR);
      await desk.sweep();
      expect(await spent()).toBe(MMS);
    });

    it('gives the SMS back that is withdrawn, since the MMS arrived after all', async () => {
      const [no] = await paid();
      await desk.settle(await desk.claimOne(), accepted('m'));
      await desk.report('m', 'unreachable');
      expect(await spent()).toBe(MMS + SMS);
      await desk.report('m', 'retrieved');
      expect(await desk.status(no as number)).toEqual([5, 0]);
      expect(await spent()).toBe(MMS);
    });

    it('pays for an SMS with what its own MMS gives back', async () => {
      const [no] = await paid();
      await quota(MOST);
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      expect(await desk.status(no as number)).toEqual([26, 0]);
      expect(await spent()).toBe(MOST - MMS + SMS);
    });

    it('gives the SMS back that is cancelled before it leaves', async () => {
      await paid(numbers(1), { bulkId: 'b' });
      await desk.settle(await desk.claimOne(), NO_MMS);
      expect(await spent()).toBe(MMS + SMS);
      await h.store.bulkSteer(1, { id: 'b' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      expect(await spent()).toBe(MMS);
    });

    it('gives the SMS back whose time is over before it leaves, to the day that it was taken from', async () => {
      h.advance((bucket + 1) * DAY_MS - h.now() - 30 * SECOND);
      await paid(numbers(1), { smsMs: 40 * SECOND });
      await desk.settle(await desk.claimOne(), NO_MMS);
      expect(await spent()).toBe(MMS + SMS);
      h.advance(40 * SECOND);
      const tomorrow = { account: 1, scope: SPEND, bucket: bucket + 1, buckets: 1, least: 0, most: MOST, keepMs: DAY };
      expect(await h.store.quota([{ ...tomorrow, want: SMS }])).toEqual([SMS]);
      await desk.sweep();
      expect(await spent()).toBe(MMS);
      expect(await h.store.quota([{ ...tomorrow, want: MOST }])).toEqual([MOST - SMS]);
    });

    it('begins a new total where there was none, which what was spent before does not count against', async () => {
      const credit = (amount: number) =>
        h.store.administer([{ kind: 'credit', account: 1, amount, once: null }], {
          ...{ by: 'test', action: 'credit', account: 1, detail: {} },
        });
      /** The bucket that the account's total counts in. */
      const total = async (): Promise<number> => {
        const account = (await h.store.directory(-1))?.accounts.find(({ no }) => no === 1);
        return spendBucket(purseOf(account ?? {}) as Purse, h.now()).bucket;
      };
      await limit(null);
      await credit(10);
      bucket = await total();
      await paid(numbers(2));
      const first = await desk.claimOne();
      await desk.settle(first, NO_MMS);
      await quota(MOST);
      expect(await spent()).toBe(MOST);
      // More of the same goes on counting, by whichever verb.
      await limit({ amount: 11, per: 'TOTAL' });
      await credit(-1);
      expect(await total()).toBe(bucket);

      h.advance(SECOND);
      await limit(null);
      h.advance(SECOND);
      await credit(10);
      const before = bucket;
      bucket = await total();
      expect(bucket).toBe(h.now());
      await quota(2 * SMS);
      // Paid out of the first: that gets its MMS back, and no SMS of it goes into the second.
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      expect(await spent()).toBe(3 * SMS);
      h.advance(HOUR);
      await desk.sweep();
      expect(await spent()).toBe(2 * SMS);
      bucket = before;
      expect(await spent()).toBe(MOST - MMS);

      await limit({ amount: 10, per: 'DAY' });
      h.advance(SECOND);
      await limit({ amount: 10, per: 'TOTAL' });
      expect(await total()).toBe(h.now());
    });

    it('holds messages against nothing that were accepted without a limit', async () => {
      await paid(numbers(2), { counted: false });
      await quota(MOST);
      await desk.settle(await desk.claimOne(), NO_MMS);
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      expect(await spent()).toBe(MOST);
      expect((await desk.claim(64, sms)).claims).toHaveLength(2);
    });
  });
}
