/**
 * One suite for the store's contract. Each engine runs it from a test file of its own, with a factory for an empty store.
 * Only contract verbs are used; what an engine does inside is tested beside it.
 */
import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Accept, Claim, Hint, MessageFilter, Webhook } from '../../src/store/contract.ts';
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
  SECOND,
  UNKNOWN,
  VALIDITY,
} from './desk.ts';

const URL = 'https://shop.example/reports';

export interface Engine {
  open(): Promise<Harness>;
  /** False = time cannot be moved (threads on the machine's clock): cases that need it are left out. */
  clock: boolean;
}

export function storeSuite(name: string, engine: Engine): void {
  describe(name, () => cases(engine));
}

function cases(engine: Engine): void {
  const timed = it.skipIf(!engine.clock);
  let h: Harness;
  let desk: Desk;

  beforeEach(async () => {
    h = await engine.open();
    desk = await openDesk(h);
  });
  afterEach(() => h.close());

  describe('identity, numbers, lanes, keys', () => {
    it('has a name and a key of ids that never change', async () => {
      const first = await h.store.identity();
      expect(first.install).toMatch(/^[0-9a-f]{8}$/);
      expect(first.idKey).toMatch(/^[0-9a-f]{32}$/);
      await h.crash();
      expect({ ...(await h.store.identity()) }).toEqual({ ...first });
    });

    it('never gives a number twice, not even over a crash', async () => {
      const a = await h.store.reserve(10);
      const b = await h.store.reserve(1);
      await h.crash();
      const c = await h.store.reserve(5);
      expect(b).toBeGreaterThanOrEqual(a + 10);
      expect(c).toBeGreaterThanOrEqual(b + 1);
    });

    it('a carrier has as many lanes as are asked for, each with work of its own', async () => {
      const policy = { onUnknown: 'hold', reports: true } as const;
      const third = await h.store.lane('mmsc', policy, 2);
      const second = await h.store.lane('mmsc', policy, 1);
      expect(new Set([desk.lane, second, third]).size).toBe(3);
      expect(await h.store.lane('mmsc', policy)).toBe(desk.lane);
      expect(await h.store.lane('mmsc', policy, 0)).toBe(desk.lane);
      expect(await h.store.lane('mmsc', policy, 2)).toBe(third);
      // Asked for by another shard first, its home is there all the same.
      const late = await h.store.lane('late', policy, 3);
      expect(await h.store.lane('late', policy)).not.toBe(late);
      const no = await desk.one({ lane: third });
      expect((await desk.claim(10, second)).claims).toEqual([]);
      expect((await desk.claim(10)).claims).toEqual([]);
      expect((await desk.claim(10, third)).claims.map((claim) => claim.leader)).toEqual([no]);
    });

    it('a policy holds on all lanes of its carrier', async () => {
      const second = await desk.laneOf('mmsc', 1);
      await desk.laneOf('other', 1);
      await h.store.lane('mmsc', { onUnknown: 'fail', reports: false });
      const nos = [await desk.one({ lane: second }), await desk.one({ lane: second })];
      const [one, two] = (await desk.claim(10, second)).claims;
      if (!one || !two) throw new Error('two claims expected');
      await desk.settle(one, accepted('x'), second);
      await desk.settle(two, UNKNOWN, second);
      expect(await desk.status(nos[0] as number)).toEqual([2, 0]);
      expect(await desk.status(nos[1] as number)).toEqual([29, 815]);
    });

    it('a report finds its message whatever lane of the carrier submitted it', async () => {
      const policy = { onUnknown: 'hold', reports: true } as const;
      const lanes = [desk.lane, await h.store.lane('mmsc', policy, 1), await h.store.lane('mmsc', policy, 2)];
      for (const [shard, lane] of lanes.entries()) {
        const settled = await desk.one({ lane });
        const early = await desk.one({ lane });
        const [one, two] = (await desk.claim(10, lane)).claims;
        if (!one || !two) throw new Error('two claims expected');
        await desk.settle(one, accepted(`settled-${shard}`), lane);
        expect(await desk.report(`settled-${shard}`, 'retrieved')).toBe(true);
        expect(await desk.report(`early-${shard}`, 'retrieved')).toBe(false);
        await desk.settle(two, accepted(`early-${shard}`), lane);
        expect(await desk.status(settled)).toEqual([5, 0]);
        expect(await desk.status(early)).toEqual([5, 0]);
        expect((await desk.story(early)).attempts).toMatchObject([{ carrier: 'mmsc' }]);
      }
    });

    it('an answer that comes too late teaches its id on any lane', async () => {
      const lane = await desk.laneOf('mmsc', 1);
      const no = await desk.one({ lane });
      const [claim] = (await desk.claim(1, lane)).claims;
      if (!claim) throw new Error('a claim expected');
      await desk.settle(claim, UNKNOWN, lane);
      expect(await desk.settle(claim, accepted('late'), lane)).toBe(false);
      expect(await desk.report('late', 'retrieved')).toBe(true);
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it('gives a carrier one lane and keeps its newest policy', async () => {
      const again = await h.store.lane('mmsc', { onUnknown: 'fail', reports: false });
      expect(again).toBe(desk.lane);
      expect(await desk.laneOf('other')).not.toBe(desk.lane);
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('x'));
      expect(await desk.status(no)).toEqual([2, 0]);
    });

    it('keeps keys; replacing drops only the same label of the same account', async () => {
      await h.store.putKey({ hash: 'a', account: 1, label: 'configured' }, false);
      await h.store.putKey({ hash: 'b', account: 1, label: 'other' }, false);
      await h.store.putKey({ hash: 'c', account: 2, label: 'configured' }, false);
      await h.store.putKey({ hash: 'd', account: 1, label: 'configured' }, true);
      await h.crash();
      expect((await h.store.keys()).map((key) => key.hash).sort()).toEqual(['b', 'c', 'd']);
    });
  });

  describe('accept', () => {
    it('stores every message of a request before it answers', async () => {
      const { answer, nos, bulk } = await desk.accept({ to: numbers(3), keys: [[1, 'mine']] });
      expect(answer).toMatchObject({ kind: 'accepted', bulkId: null, duplicates: [] });
      await h.crash();
      expect(await desk.logs()).toEqual([...nos].reverse());
      const { message, spec, waiting, validUntil } = await desk.story(nos[0] as number);
      expect(message).toMatchObject({ to: numbers(1)[0], key: null, bulk, status: 26, error: 0, claimed: false });
      expect(message).toMatchObject({ sentAt: null, doneAt: null });
      expect(spec).toMatchObject({ account: 1, sender: 'Shop', media: [] });
      expect(waiting).not.toBeNull();
      expect(validUntil).toBeGreaterThanOrEqual(message.acceptedAt + VALIDITY);
      expect((await h.store.story(1, { key: 'mine' }))?.message.no).toBe(nos[1]);
    });

    it('takes a request of 10 000 destinations as a whole', async () => {
      const { nos } = await desk.accept({ to: numbers(10_000) });
      expect(nos).toHaveLength(10_000);
      expect((await h.store.logs({ account: 1, limit: 1 })).rows[0]?.no).toBe(nos.at(-1));
      expect((await desk.claim(1000)).claims).toHaveLength(1000);
    });

    it('keeps what was refused at the door as final messages, each with a report', async () => {
      const { nos } = await desk.accept({
        to: ['441134960001', '', '0041', '123'],
        refused: [
          [1, 51],
          [2, 8],
          [3, 19],
        ],
      });
      const statuses = await Promise.all(nos.map((no) => desk.status(no)));
      expect(statuses).toEqual([
        [26, 0],
        [51, 15201],
        [8, 15201],
        [19, 15023],
      ]);
      expect((await desk.pull()).map((row) => row.no)).toEqual([nos[3], nos[2], nos[1]]);
      expect((await desk.claim()).claims.map((claim) => claim.leader)).toEqual([nos[0]]);
      expect((await desk.story(nos[1] as number)).waiting).toBeNull();
    });

    it('answers a repeated messageId as duplicate and leaves the first alone', async () => {
      const first = await desk.accept({ keys: [[0, 'order-1']] });
      const again = await desk.accept({
        to: numbers(3),
        keys: [
          [0, 'order-1'],
          [1, 'order-2'],
          [2, 'order-2'],
        ],
      });
      expect(again.answer).toMatchObject({ kind: 'accepted', duplicates: [again.nos[0], again.nos[2]] });
      expect((await h.store.story(1, { key: 'order-1' }))?.message.no).toBe(first.nos[0]);
      // No row, no submission.
      expect(await desk.logs()).toEqual([again.nos[1], first.nos[0]]);
      expect((await desk.claim()).claims.map((claim) => claim.leader).sort()).toEqual(
        [first.nos[0], again.nos[1]].sort(),
      );
      // Another account's keys are its own.
      expect((await desk.accept({ account: 2, keys: [[0, 'order-1']] })).answer).toMatchObject({ duplicates: [] });
    });

    it('replays an Idempotency-Key with the same body and refuses it with another', async () => {
      const idem = { key: 'k1', hash: 'h1' };
      const first = await desk.accept({ idem, keys: [[0, 'a']] });
      const again = await desk.accept({ idem, keys: [[0, 'a']] });
      expect(again.answer).toEqual({ ...first.answer, kind: 'replayed' });
      expect((await desk.accept({ idem: { key: 'k1', hash: 'h2' } })).answer).toEqual({ kind: 'idempotencyConflict' });
      expect((await desk.accept({ account: 2, idem: { key: 'k1', hash: 'h2' } })).answer.kind).toBe('accepted');
      expect(await desk.logs()).toEqual(first.nos);
    });

    it('gives the first answer and nothing else to who asks for that only', async () => {
      const idem = { key: 'k1', hash: 'h1' };
      const ask = async () => h.store.accept({ ...(await desk.request({ idem })), replayOnly: true });
      expect(await ask()).toEqual({ kind: 'notReplayed' });
      const first = await desk.accept({ idem });
      expect(await ask()).toEqual({ ...first.answer, kind: 'replayed' });
      expect(await desk.logs()).toEqual(first.nos);
    });

    timed('forgets an Idempotency-Key after 24 h', async () => {
      const idem = { key: 'k1', hash: 'h1' };
      await desk.accept({ idem });
      h.advance(24 * HOUR - 1);
      expect((await desk.accept({ idem })).answer.kind).toBe('replayed');
      h.advance(1);
      await desk.sweep();
      expect((await desk.accept({ idem: { key: 'k1', hash: 'h2' } })).answer.kind).toBe('accepted');
    });

    it('joins a bulk that exists, per account', async () => {
      const a = await desk.accept({ bulkId: 'spring' });
      const b = await desk.accept({ bulkId: 'spring' });
      const other = await desk.accept({ account: 2, bulkId: 'spring' });
      expect(b.bulk).toBe(a.bulk);
      expect(other.bulk).not.toBe(a.bulk);
      expect(b.answer).toMatchObject({ bulkId: 'spring', bulk: a.bulk });
      expect((await desk.story(b.nos[0] as number)).message).toMatchObject({ bulk: a.bulk, bulkId: 'spring' });
    });

    it('refuses unknown uploads and stores nothing of that request', async () => {
      await h.store.putUpload(upload('known', 'aa'));
      const { answer } = await desk.accept({ uploads: ['known', 'no', 'nope', 'no'], keys: [[0, 'k']], bulkId: 'b' });
      expect(answer).toEqual({ kind: 'unknownUploads', ids: ['no', 'nope'] });
      expect(await desk.logs()).toEqual([]);
      expect(await desk.steer(1, { id: 'b' }, 'PAUSED')).toBe(false);
      expect((await desk.accept({ keys: [[0, 'k']] })).answer).toMatchObject({ duplicates: [] });
      // Another account's upload is unknown.
      expect((await desk.accept({ account: 2, uploads: ['known'] })).answer.kind).toBe('unknownUploads');
    });

    timed('knows an upload until its own end, and messages keep what they refer to', async () => {
      await h.store.putUpload({ ...upload('pic', 'aa'), validityMs: HOUR });
      const no = await desk.one({ uploads: ['pic'] });
      h.advance(HOUR);
      await desk.sweep();
      expect((await desk.accept({ uploads: ['pic'] })).answer.kind).toBe('unknownUploads');
      expect((await desk.story(no)).spec.media).toEqual([
        { segment: 0, hash: 'aa', contentType: 'image/jpeg', name: 'pic.jpg' },
      ]);
    });

    it('tells the names of uploads to their account only', async () => {
      await h.store.putUpload(upload('a"b\\', 'aa'));
      await h.store.putUpload(upload('pic', 'aa'));
      const ids = ['pic', 'none', 'a"b\\', '{}'];
      const byId = (await h.store.uploadNames(1, ids)).sort((a, b) => (a.id < b.id ? -1 : 1));
      expect(byId).toEqual([
        { id: 'a"b\\', name: 'a"b\\.jpg' },
        { id: 'pic', name: 'pic.jpg' },
      ]);
      expect(await h.store.uploadNames(2, ids)).toEqual([]);
      expect(await h.store.uploadNames(1, [])).toEqual([]);
    });

    timed(
      'keeps the bytes of an upload that has ended while a message waits for them, and not much longer',
      async () => {
        const bytes = new TextEncoder().encode('a picture for later');
        const hash = createHash('sha256').update(bytes).digest('hex');
        await h.store.putContent(hash, bytes);
        await h.store.putUpload({ ...upload('pic', hash), validityMs: HOUR });
        const { nos } = await desk.accept({ uploads: ['pic'], sendAt: h.now() + 30 * DAY });
        for (let day = 0; day < 30; day++) {
          h.advance(DAY);
          for (let n = 0; n < 3; n++) await desk.sweep();
        }
        expect(await h.store.uploadNames(1, ['pic'])).toEqual([]);
        const { claims, specs } = await desk.claim();
        expect(claims.map((claim) => claim.leader)).toEqual(nos);
        const kept = await h.store.content(specs[0]?.media[0]?.hash ?? '');
        expect(Buffer.from(kept ?? []).toString()).toBe('a picture for later');
        await desk.settle(claims[0] as Claim, accepted(`r${nos[0]}`));
        await desk.report(`r${nos[0]}`, 'retrieved');
        for (let day = 0; day < 10; day++) {
          h.advance(DAY);
          for (let n = 0; n < 5; n++) {
            await desk.pull();
            await desk.sweep();
          }
        }
        expect(await h.store.content(hash)).toBeNull();
      },
    );
  });

  describe('content', () => {
    it('gives back the bytes of a hash, written once or twice', async () => {
      const bytes = new TextEncoder().encode('a picture');
      const hash = createHash('sha256').update(bytes).digest('hex');
      expect(await h.store.content(hash)).toBeNull();
      await h.store.putContent(hash, bytes);
      await h.store.putContent(hash, bytes);
      expect(Buffer.from((await h.store.content(hash)) ?? []).toString()).toBe('a picture');
    });
  });

  describe('claim, settle, release', () => {
    it('claims each message once, with all that a submission needs', async () => {
      const { nos, spec } = await desk.accept({ to: numbers(2) });
      const { claims, specs, now } = await desk.claim();
      expect(claims.map((claim) => claim.leader)).toEqual(nos);
      expect(claims[0]).toMatchObject({
        spec,
        members: [{ no: nos[0], to: numbers(1)[0], key: null }],
        generation: 0,
        attempt: 1,
        paced: false,
      });
      expect(claims[0]?.notBeforeUs).toBeLessThanOrEqual(now * 1000);
      expect(specs.map((row) => row.no)).toEqual([spec]);
      expect(new Set(claims.map((claim) => claim.token)).size).toBe(2);
      expect((await desk.claim()).claims).toEqual([]);
      expect((await desk.story(nos[0] as number)).message.claimed).toBe(true);
    });

    it('names members by the id that the customer gave', async () => {
      const { nos } = await desk.accept({ to: numbers(4), groups: [2], keys: [1, 2].map((n) => [n, `own-${n}`]) });
      const { claims } = await desk.claim();
      const members = claims.flatMap((claim) => claim.members);
      expect(members.sort((a, b) => a.no - b.no).map(({ no, key }) => [no, key])).toEqual([
        [nos[0], null],
        [nos[1], 'own-1'],
        [nos[2], 'own-2'],
        [nos[3], null],
      ]);
      await h.store.release(claims, 0);
      const again = (await desk.claim()).claims.flatMap((claim) => claim.members);
      expect(again.map((member) => member.key).sort()).toEqual(members.map((member) => member.key).sort());
    });

    it('gives a lane only its own messages', async () => {
      const other = await desk.laneOf('other');
      const no = await desk.one({ lane: other });
      expect((await desk.claim()).claims).toEqual([]);
      expect((await desk.claim(10, other)).claims.map((claim) => claim.leader)).toEqual([no]);
    });

    it('an accepted message waits for its report as 3, or is final as 2 where the carrier gives none', async () => {
      const no = await desk.one();
      expect(await desk.settle(await desk.claimOne(), accepted('m1'))).toBe(true);
      expect(await desk.status(no)).toEqual([3, 0]);
      const quiet = await h.store.lane('quiet', { onUnknown: 'hold', reports: false });
      const silent = await desk.one({ lane: quiet });
      const [claim] = (await desk.claim(1, quiet)).claims;
      if (claim) await desk.settle(claim, accepted('q1'), quiet);
      expect(await desk.status(silent)).toEqual([2, 0]);
      expect((await desk.pull()).map((row) => row.no)).toEqual([silent]);
    });

    it('a refused message is final as 4', async () => {
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), REFUSED);
      expect(await desk.status(no)).toEqual([4, 15009]);
      expect(await desk.pull()).toMatchObject([{ no, status: 4, error: 15009 }]);
      expect((await desk.claim()).claims).toEqual([]);
    });

    it('a message whose content is gone is rejected as 100, and was never sent', async () => {
      const { nos } = await desk.accept({ to: numbers(3), groups: [2] });
      await desk.settleAll(() => CONTENT_GONE);
      for (const no of nos) {
        expect(await desk.status(no)).toEqual([100, 15025]);
        const { message, attempts, events } = await desk.story(no);
        expect([message.sentAt, message.doneAt !== null]).toEqual([null, true]);
        expect(attempts).toMatchObject([{ outcome: 'contentFailed', error: 15025, words: 'content is gone' }]);
        expect(events.at(-1)).toMatchObject({ status: 100, words: 'content is gone' });
      }
      expect((await desk.claim()).claims).toEqual([]);
      expect(await desk.report('none', 'retrieved')).toBe(false);
    });

    timed('content that goes between two attempts of which one may have arrived decides nothing', async () => {
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), UNKNOWN);
      h.advance(15 * MINUTE);
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      expect(await desk.status(no)).toEqual([3, 15000]);
      h.advance(VALIDITY);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([29, 815]);
    });

    timed('a deferred message is tried again with the same transaction, later each time', async () => {
      const no = await desk.one();
      const first = await desk.claimOne();
      await desk.settle(first, DEFERRED);
      expect(await desk.status(no)).toEqual([26, 15000]);
      const early = await desk.claim();
      expect(early.claims).toEqual([]);
      expect(early.nextDue).toBe(h.now() + 2 * SECOND);
      h.advance(2 * SECOND);
      const second = await desk.claimOne();
      expect(second).toMatchObject({ leader: no, generation: 0, attempt: 2, validUntil: first.validUntil });
      expect(second.token).not.toBe(first.token);
      await desk.settle(second, { ...DEFERRED, retryAfterMs: 20 * SECOND } as typeof DEFERRED);
      expect((await desk.claim()).nextDue).toBe(h.now() + 20 * SECOND);
      const story = await desk.story(no);
      expect(story.attempts.map((attempt) => [attempt.n, attempt.outcome, attempt.words])).toEqual([
        [1, 'deferred', 'busy'],
        [2, 'deferred', 'busy'],
      ]);
      expect(new Set(story.attempts.map((attempt) => attempt.transactionId)).size).toBe(1);
    });

    timed("a throttled submission is no attempt and comes back after the carrier's wish", async () => {
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), { kind: 'throttled', retryAfterMs: 10 * SECOND });
      expect(await desk.status(no)).toEqual([26, 0]);
      expect((await desk.claim()).nextDue).toBe(h.now() + 10 * SECOND);
      h.advance(10 * SECOND);
      expect((await desk.claimOne()).attempt).toBe(1);
    });

    timed('a wish of nothing or of a year is held to what makes sense', async () => {
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), { kind: 'throttled', retryAfterMs: 0 });
      expect((await desk.claim()).nextDue).toBeGreaterThan(h.now());
      h.advance(MINUTE);
      const claim = await desk.claimOne();
      expect(claim.leader).toBe(no);
      await desk.settle(claim, { kind: 'throttled', retryAfterMs: 365 * DAY });
      expect((await desk.claim()).nextDue).toBeLessThanOrEqual(h.now() + HOUR);
    });

    timed('a carrier that throttles for two days leaves a bounded story', async () => {
      const no = await desk.one();
      for (let n = 0; n < 260; n++) {
        await desk.settle(await desk.claimOne(), { kind: 'throttled', retryAfterMs: SECOND });
        h.advance(SECOND);
      }
      expect((await desk.story(no)).attempts.length).toBeLessThanOrEqual(200);
      expect((await desk.claimOne()).attempt).toBe(1);
    });

    it('a stale token decides nothing, but its carrier id is learnt', async () => {
      const no = await desk.one();
      const claim = await desk.claimOne();
      await desk.settle(claim, DEFERRED);
      expect(await desk.settle(claim, accepted('late-1'))).toBe(false);
      expect(await desk.status(no)).toEqual([26, 15000]);
      expect(await desk.report('late-1', 'retrieved')).toBe(true);
      expect(await desk.status(no)).toEqual([5, 0]);
      // Delivered: nothing is left to send.
      if (engine.clock) h.advance(HOUR);
      expect((await desk.claim()).claims).toEqual([]);
      expect(await desk.settle({ ...claim, token: claim.token + 1 }, REFUSED)).toBe(false);
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    timed('a stale answer for a group is learnt for all its members', async () => {
      const { nos } = await desk.accept({ to: numbers(3), groups: [3] });
      const claim = await desk.claimOne();
      h.advance(LEASE + 1);
      await desk.sweep();
      expect(await desk.settle(claim, accepted('g-late'))).toBe(false);
      await desk.report('g-late', 'retrieved', { addresses: [numbers(3)[2] as string] });
      expect(await desk.status(nos[2] as number)).toEqual([5, 0]);
    });

    it('release puts back, first in line, as if nothing had happened', async () => {
      const a = await desk.accept({ to: numbers(4) });
      const { claims } = await desk.claim(2);
      await h.store.release(claims, 0);
      const again = (await desk.claim(3)).claims;
      expect(again.map((claim) => claim.leader)).toEqual(a.nos.slice(0, 3));
      expect(again.map((claim) => claim.attempt)).toEqual([1, 1, 1]);
      expect((await desk.story(a.nos[0] as number)).attempts).toEqual([]);
      // A stale release changes nothing.
      await h.store.release(claims, 0);
      expect((await desk.claim(10)).claims.map((claim) => claim.leader)).toEqual([a.nos[3]]);
    });

    timed('release until an instant is not claimable before it', async () => {
      const no = await desk.one();
      await h.store.release((await desk.claim()).claims, h.now() + MINUTE);
      expect(await desk.claim()).toMatchObject({ claims: [], nextDue: h.now() + MINUTE });
      h.advance(MINUTE);
      expect((await desk.claimOne()).leader).toBe(no);
    });

    it('wakes a lane for work that is due, and for work that will be', async () => {
      const hints: Hint['kind'][] = [];
      h.store.onHint((hint) => hints.push(hint.kind));
      await desk.one();
      await until(() => hints.includes('lane'));
      await desk.claim();
      hints.length = 0;
      await desk.one({ account: 2, sendAt: h.now() + HOUR });
      await until(() => hints.includes('lane'));
      expect((await desk.claim()).nextDue).toBeGreaterThan(h.now() + HOUR - MINUTE);
    });
  });

  describe('lost leases and unknown outcomes', () => {
    timed(
      'hold: the message waits 15 minutes for a report, is sent once more, and then only time decides',
      async () => {
        const no = await desk.one();
        const claim = await desk.claimOne();
        h.advance(LEASE + 1);
        await desk.sweep();
        expect(await desk.status(no)).toEqual([3, 15000]);
        expect(await desk.claim()).toMatchObject({ claims: [], nextDue: h.now() + 15 * MINUTE });
        h.advance(15 * MINUTE);
        const second = await desk.claimOne();
        expect(second).toMatchObject({ leader: no, generation: claim.generation, attempt: 2 });
        await desk.settle(second, UNKNOWN);
        h.advance(24 * HOUR);
        await desk.sweep();
        expect((await desk.claim()).claims).toEqual([]);
        h.advance(24 * HOUR);
        await desk.sweep();
        expect(await desk.status(no)).toEqual([29, 815]);
      },
    );

    timed('retry: the same transaction again within ten seconds, and 29 if it is never known', async () => {
      await desk.open('retry');
      const no = await desk.one();
      await desk.claimOne();
      h.advance(LEASE + 1);
      await desk.sweep();
      const { nextDue } = await desk.claim();
      expect(nextDue).toBeLessThanOrEqual(h.now() + 10 * SECOND);
      h.advance(10 * SECOND);
      const second = await desk.claimOne();
      expect(second.generation).toBe(0);
      await desk.settle(second, UNKNOWN);
      h.advance(VALIDITY);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([29, 815]);
    });

    timed('fail: the message ends as 29 at once, never as undeliverable', async () => {
      await desk.open('fail');
      const no = await desk.one();
      await desk.claimOne();
      h.advance(LEASE + 1);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([29, 815]);
      expect((await desk.claim()).claims).toEqual([]);
    });

    timed('a lease is kept until its end', async () => {
      const no = await desk.one();
      const claim = await desk.claimOne();
      h.advance(LEASE - 1);
      await desk.sweep();
      expect((await desk.story(no)).message.claimed).toBe(true);
      expect(await desk.settle(claim, accepted('m'))).toBe(true);
    });

    timed('after a crash what was in flight follows the policy at once', async () => {
      const no = await desk.one();
      const waiting = await desk.one();
      const claim = await desk.claimOne();
      await h.crash();
      await desk.sweep();
      expect(await desk.status(no)).toEqual([3, 15000]);
      expect(await desk.settle(claim, REFUSED)).toBe(false);
      expect((await desk.claim()).claims.map((one) => one.leader)).toEqual([waiting]);
    });

    timed('many lost leases are concluded in bounded steps', async () => {
      const { nos } = await desk.accept({ to: numbers(300) });
      await desk.claim(1000);
      h.advance(LEASE + 1);
      expect(await h.store.sweep()).toBe(true);
      await desk.sweep();
      for (const no of [nos[0], nos[150], nos[299]]) expect(await desk.status(no as number)).toEqual([3, 15000]);
    });
  });

  describe('reports', () => {
    it('ends a message once; what comes later is only noted', async () => {
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('m1'));
      expect(await desk.report('m1', 'retrieved')).toBe(true);
      expect(await desk.report('m1', 'retrieved')).toBe(true);
      expect(await desk.report('m1', 'rejected')).toBe(true);
      expect(await desk.status(no)).toEqual([5, 0]);
      expect((await desk.pull()).map((row) => row.status)).toEqual([5]);
      const { events } = await desk.story(no);
      expect(events.map((event) => [event.status, event.kind])).toEqual([
        [3, 'status'],
        [5, 'status'],
        [5, 'noted'],
        [5, 'noted'],
      ]);
    });

    it('keeps a bounded number of notes', async () => {
      const no = await desk.delivered();
      for (let n = 0; n < 40; n++) await desk.report(`d${no}`, 'rejected');
      expect((await desk.story(no)).events.length).toBeLessThanOrEqual(30);
    });

    it('a report that overtakes the settle is parked and applied by it', async () => {
      const no = await desk.one();
      const claim = await desk.claimOne();
      expect(await desk.report('early', 'deferred')).toBe(false);
      expect(await desk.report('early', 'retrieved')).toBe(false);
      await desk.settle(claim, accepted('early'));
      expect(await desk.status(no)).toEqual([5, 0]);
      expect((await desk.story(no)).events.map((event) => event.status)).toEqual([3, 3, 5]);
    });

    it('parked reports survive a crash', async () => {
      const no = await desk.one();
      await desk.report('early', 'retrieved');
      await h.crash();
      await desk.settle(await desk.claimOne(), accepted('early'));
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    timed('a parked report is kept 48 h and no longer', async () => {
      await desk.report('a', 'retrieved');
      await desk.report('b', 'retrieved');
      h.advance(48 * HOUR - 1);
      await desk.sweep();
      const fresh = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('a'));
      expect(await desk.status(fresh)).toEqual([5, 0]);
      h.advance(2);
      await desk.sweep();
      const late = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('b'));
      expect(await desk.status(late)).toEqual([3, 0]);
    });

    it('moves only messages of the carrier that told it', async () => {
      await desk.laneOf('other');
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('m1'));
      expect(await desk.report('m1', 'retrieved', { carrier: 'other' })).toBe(false);
      expect(await desk.report('m1', 'retrieved', { carrier: 'nobody' })).toBe(false);
      expect(await desk.status(no)).toEqual([3, 0]);
    });

    it('names the messages that it moved or noted, at most ten', async () => {
      const { nos } = await desk.accept({ to: numbers(13), groups: [12], keys: [[12, 'own']] });
      const { claims } = await desk.claim();
      for (const claim of claims) await desk.settle(claim, accepted(claim.members.length > 1 ? 'group' : 'single'));
      const first = nos.slice(0, 10).map((no) => ({ no, key: null }));
      const all = await desk.reported('group', 'deferred', { addresses: numbers(12) });
      expect(all).toEqual({ known: true, messages: first });
      const one = await desk.reported('group', 'retrieved', { addresses: [numbers(12)[3] as string] });
      expect(one).toEqual({ known: true, messages: [first[3]] });
      expect(await desk.reported('group', 'retrieved')).toEqual({ known: true, messages: [] });
      const single = { known: true, messages: [{ no: nos[12], key: 'own' }] };
      expect(await desk.reported('single', 'retrieved')).toEqual(single);
      expect(await desk.reported('single', 'rejected')).toEqual(single);
      expect(await desk.reported('other', 'retrieved')).toEqual({ known: false, messages: [] });
    });

    it('knows an id in the forms carriers give it', async () => {
      const no = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('<ABC-1@mmsc.example>'));
      expect(await desk.report(' abc-1 ', 'retrieved')).toBe(true);
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it("an empty id is nobody's", async () => {
      const { nos } = await desk.accept({ to: numbers(2) });
      for (const claim of (await desk.claim()).claims) await desk.settle(claim, accepted(''));
      expect(await desk.report('', 'retrieved')).toBe(false);
      expect(await desk.status(nos[0] as number)).toEqual([3, 0]);
      expect(await desk.status(nos[1] as number)).toEqual([3, 0]);
    });

    it('a carrier that begins its ids anew means the newest message', async () => {
      const old = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('1'));
      const fresh = await desk.one();
      await desk.settle(await desk.claimOne(), accepted('1'));
      await desk.report('1', 'retrieved');
      expect(await desk.status(fresh)).toEqual([5, 0]);
      expect(await desk.status(old)).toEqual([3, 0]);
    });

    timed('a report of an earlier attempt ends the message while the next attempt waits or flies', async () => {
      await desk.open('retry');
      const waits = await desk.one();
      const first = await desk.claimOne();
      h.advance(LEASE + 1);
      await desk.sweep();
      await desk.settle(first, accepted('w'));
      await desk.report('w', 'retrieved');
      h.advance(MINUTE);
      expect((await desk.claim()).claims).toEqual([]);
      expect(await desk.status(waits)).toEqual([5, 0]);

      const flies = await desk.one();
      const lost = await desk.claimOne();
      h.advance(LEASE + 1);
      await desk.sweep();
      h.advance(10 * SECOND);
      const second = await desk.claimOne();
      await desk.settle(lost, accepted('f'));
      await desk.report('f', 'retrieved');
      expect(await desk.settle(second, REFUSED)).toBe(true);
      expect(await desk.status(flies)).toEqual([5, 0]);
      h.advance(HOUR);
      expect((await desk.claim()).claims).toEqual([]);
    });

    it('gives the error that a kind implies', async () => {
      const { nos } = await desk.accept({ to: numbers(4) });
      const kinds = ['rejected', 'expired', 'unreachable', 'deferred'] as const;
      const { claims } = await desk.claim();
      for (const [n, claim] of claims.entries()) await desk.settle(claim, accepted(`k${n}`));
      for (const [n, kind] of kinds.entries()) await desk.report(`k${n}`, kind);
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [9, 15011],
        [15, 15006],
        [9, 27],
        [3, 15004],
      ]);
    });
  });

  describe('groups', () => {
    it('a group is one claim with all its members, from 1 to 200', async () => {
      const { nos } = await desk.accept({ to: numbers(202), groups: [1, 200] });
      const { claims } = await desk.claim();
      expect(claims.map((claim) => claim.members.length).sort()).toEqual([1, 1, 200]);
      const big = claims.find((claim) => claim.members.length === 200);
      expect(big?.members.map((member) => member.no)).toEqual(nos.slice(1, 201));
      expect((await desk.story(nos[150] as number)).message.claimed).toBe(true);
    });

    it('members that the carrier refused end alone; the others are taken', async () => {
      const { nos } = await desk.accept({ to: numbers(3), groups: [3] });
      await desk.settle(await desk.claimOne(), {
        kind: 'accepted',
        carrierMessageId: 'g1',
        refused: [{ recipient: numbers(3)[1] as string, error: { id: 15009, words: 'unknown' } }],
      });
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [3, 0],
        [4, 15009],
        [3, 0],
      ]);
      expect((await desk.pull()).map((row) => row.no)).toEqual([nos[1]]);
    });

    it('reports find their member by address; a report that names nobody decides nothing', async () => {
      const to = numbers(3);
      const { nos } = await desk.accept({ to, groups: [3] });
      await desk.settle(await desk.claimOne(), accepted('g1'));
      expect(await desk.report('g1', 'retrieved', { addresses: ['12345', to[2] as string] })).toBe(true);
      expect(await desk.report('g1', 'rejected', { addresses: [] })).toBe(true);
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [3, 0],
        [3, 0],
        [5, 0],
      ]);
      const noted = (await desk.story(nos[0] as number)).events.filter((event) => event.kind === 'noted');
      expect(noted).toHaveLength(1);
    });

    timed('all members are tried again together, and expire together', async () => {
      const { nos } = await desk.accept({ to: numbers(3), groups: [3], validityMs: HOUR });
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(2 * SECOND);
      const second = await desk.claimOne();
      expect(second).toMatchObject({ generation: 0, attempt: 2 });
      expect(second.members).toHaveLength(3);
      await desk.settle(second, DEFERRED);
      h.advance(HOUR);
      await desk.sweep();
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [15, 15000],
        [15, 15000],
        [15, 15000],
      ]);
      expect((await h.store.stats()).retries).toBe(0);
      expect((await desk.story(nos[2] as number)).events.at(-1)?.words).toContain('2 attempts');
    });

    timed('what is left of a group after a clear no is another submission', async () => {
      const to = numbers(3);
      const { nos } = await desk.accept({ to, groups: [3] });
      const first = await desk.claimOne();
      h.advance(LEASE + 1);
      await desk.sweep();
      // The first attempt was lost; its late answer taught the id, and one member is reported.
      await desk.settle(first, accepted('g1'));
      await desk.report('g1', 'rejected', { addresses: [to[0] as string] });
      h.advance(15 * MINUTE);
      const second = await desk.claimOne();
      expect(second.members.map((member) => member.no)).toEqual(nos.slice(1));
      // It may have reached the carrier: the same transaction, so that the carrier can drop it.
      expect(second.generation).toBe(0);

      const other = await desk.accept({ to: numbers(2, 100), groups: [2], bulkId: 'g' });
      const claim = (await desk.claim()).claims.find((one) => one.leader === other.nos[0]);
      if (!claim) throw new Error('no claim');
      await desk.settle(claim, DEFERRED);
      // An answer to nothing that is open teaches an id by which one member becomes final.
      await desk.settle(claim, accepted('g2'));
      await desk.report('g2', 'retrieved', { addresses: [numbers(1, 100)[0] as string] });
      h.advance(2 * SECOND);
      const rest = (await desk.claim()).claims.find((one) => one.leader === other.nos[0]);
      expect(rest?.members.map((member) => member.no)).toEqual([other.nos[1]]);
      expect(rest?.generation).toBe(1);
      const story = await desk.story(other.nos[1] as number);
      expect(story.attempts.map((attempt) => attempt.transactionId)).toHaveLength(1);
    });

    timed('every member takes a turn of the speed limit', async () => {
      await desk.accept({ to: numbers(6), groups: [3, 3], bulkId: 'slow', every: 10_000 });
      const first = (await desk.claim()).claims;
      expect(first).toHaveLength(1);
      h.advance(29 * SECOND);
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(SECOND);
      expect((await desk.claim()).claims).toHaveLength(1);
    });

    timed('a group that was never sent in time expires whole, under a speed limit too', async () => {
      const { nos } = await desk.accept({
        to: numbers(3),
        groups: [3],
        bulkId: 'slow',
        every: 1000,
        validityMs: MINUTE,
      });
      h.advance(2 * HOUR);
      expect((await desk.claim()).claims).toEqual([]);
      await desk.sweep();
      for (const no of nos) expect(await desk.status(no)).toEqual([15, 4100]);
    });
  });

  describe('time', () => {
    timed('nothing leaves before sendAt', async () => {
      const no = await desk.one({ sendAt: h.now() + HOUR });
      expect(await desk.claim()).toMatchObject({ claims: [], nextDue: h.now() + HOUR });
      h.advance(HOUR - 1);
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(1);
      const claim = await desk.claimOne();
      expect(claim).toMatchObject({ leader: no, validUntil: h.now() + VALIDITY });
    });

    timed('nothing leaves outside the window, retries included', async () => {
      // The clock stands at noon UTC; the window is 14:00 to 15:00 daily.
      const start = h.now();
      await desk.one({ window: { days: 127, from: 14 * 60, to: 15 * 60 } });
      expect(await desk.claim()).toMatchObject({ claims: [], nextDue: start + 2 * HOUR });
      h.advance(3 * HOUR - SECOND);
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(2 * SECOND);
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(start + DAY + 2 * HOUR - h.now());
      expect((await desk.claim()).claims).toHaveLength(1);
    });

    timed('a validity that ends before the window opens again is not outlived', async () => {
      const no = await desk.one({ window: { days: 127, from: 14 * 60, to: 15 * 60 }, validityMs: 2 * HOUR });
      h.advance(2 * HOUR);
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(2 * HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([15, 15000]);
    });

    timed(
      'never tried: 15 with 4100; tried: 15 with the last error; sent: 29 with 815; each at the end of validity',
      async () => {
        const tried = await desk.one();
        await desk.settle(await desk.claimOne(), DEFERRED);
        const sent = await desk.one();
        await desk.settle(await desk.claimOne(), accepted('s'));
        const never = await desk.one();
        h.advance(VALIDITY - 1);
        await desk.sweep();
        expect((await desk.pull()).length).toBe(0);
        expect((await desk.story(never)).validUntil).toBe(h.now() + 1);
        h.advance(1);
        expect((await desk.claim()).claims).toEqual([]);
        await desk.sweep();
        expect(await desk.status(never)).toEqual([15, 4100]);
        expect(await desk.status(tried)).toEqual([15, 15000]);
        expect(await desk.status(sent)).toEqual([29, 815]);
        expect((await desk.pull()).length).toBe(3);
        expect(await h.store.stats()).toMatchObject({ waiting: 0, retries: 0, inFlight: 0 });
      },
    );

    timed('a message in flight at the end of its validity is decided by its outcome', async () => {
      const taken = await desk.one({ validityMs: MINUTE });
      h.advance(MINUTE - SECOND);
      const claim = await desk.claimOne();
      h.advance(2 * SECOND);
      await desk.sweep();
      expect(await desk.status(taken)).toEqual([26, 0]);
      await desk.settle(claim, accepted('t'));
      await desk.report('t', 'retrieved');
      expect(await desk.status(taken)).toEqual([5, 0]);

      const failed = await desk.one({ validityMs: MINUTE });
      h.advance(MINUTE - SECOND);
      const second = await desk.claimOne();
      h.advance(2 * SECOND);
      await desk.sweep();
      await desk.settle(second, DEFERRED);
      h.advance(2 * MINUTE);
      await desk.sweep();
      expect(await desk.status(failed)).toEqual([15, 15000]);
      expect((await desk.claim()).claims).toEqual([]);
    });

    timed('a retry never leaves after the validity', async () => {
      await desk.one({ validityMs: 10 * SECOND });
      await desk.settle(await desk.claimOne(), { ...DEFERRED, retryAfterMs: HOUR } as typeof DEFERRED);
      h.advance(HOUR);
      expect((await desk.claim()).claims).toEqual([]);
    });

    timed('10 000 messages expire in bounded steps', async () => {
      const { nos } = await desk.accept({ to: numbers(10_000), validityMs: MINUTE });
      h.advance(MINUTE);
      let steps = 1;
      while (await h.store.sweep()) steps++;
      expect(steps).toBeGreaterThanOrEqual(10);
      expect(await desk.status(nos[9_999] as number)).toEqual([15, 4100]);
    });

    timed('many small requests expire many a step', async () => {
      for (let n = 0; n < 300; n++) await desk.one({ validityMs: MINUTE });
      h.advance(MINUTE);
      let steps = 1;
      while (await h.store.sweep()) steps++;
      expect(steps).toBeLessThanOrEqual(5);
      expect((await desk.pull()).length).toBe(300);
    });
  });

  describe('pace', () => {
    timed('a speed limit spaces the turns of its bulk, over a crash and over requests', async () => {
      await desk.accept({ to: numbers(3), bulkId: 'slow', every: 1000 });
      await desk.accept({ to: numbers(3, 50), bulkId: 'slow' });
      const turns: number[] = [];
      for (let tick = 0; tick < 80; tick++) {
        if (tick === 25) await h.crash();
        const { claims } = await desk.claim();
        for (const claim of claims) {
          expect(claim.paced).toBe(true);
          turns.push(claim.notBeforeUs);
          await desk.settle(claim, accepted(`p${claim.leader}`));
        }
        h.advance(100);
      }
      expect(turns).toHaveLength(6);
      for (let n = 1; n < turns.length; n++)
        expect((turns[n] as number) - (turns[n - 1] as number)).toBeGreaterThanOrEqual(1_000_000);
    });

    timed('a fast limit hands out turns ahead, with their instants', async () => {
      await desk.accept({ to: numbers(1000), bulkId: 'fast', every: 10 });
      const { claims, now } = await desk.claim(1000);
      expect(claims.length).toBeGreaterThan(5);
      expect(claims.length).toBeLessThanOrEqual(26);
      claims.forEach((claim, n) => {
        expect(claim.notBeforeUs).toBe(now * 1000 + n * 10_000);
      });
    });

    timed('retries take turns too', async () => {
      await desk.accept({ to: numbers(2), bulkId: 'slow', every: 10_000 });
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(10 * SECOND);
      const second = (await desk.claim()).claims;
      expect(second).toHaveLength(1);
      h.advance(9 * SECOND);
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(SECOND);
      expect((await desk.claim()).claims).toHaveLength(1);
    });

    timed('each message of a limited bulk has its own validity, from its turn', async () => {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'slow', every: HOUR, validityMs: 90 * MINUTE });
      const ends: number[] = [];
      const start = h.now();
      for (let n = 0; n < 3; n++) {
        const claim = await desk.claimOne();
        ends.push(claim.validUntil - start);
        await desk.settle(claim, accepted(`v${n}`));
        h.advance(HOUR);
      }
      expect(ends).toEqual([90 * MINUTE, 150 * MINUTE, 210 * MINUTE]);
      await desk.sweep();
      expect(await desk.status(nos[0] as number)).toEqual([29, 815]);
      expect(await desk.status(nos[1] as number)).toEqual([29, 815]);
      expect(await desk.status(nos[2] as number)).toEqual([3, 0]);
      h.advance(30 * MINUTE);
      await desk.sweep();
      expect(await desk.status(nos[2] as number)).toEqual([29, 815]);
    });

    timed('a limited bulk that nobody claims ends turn by turn all the same', async () => {
      const { nos } = await desk.accept({ to: numbers(5), bulkId: 'slow', every: HOUR, validityMs: 30 * MINUTE });
      h.advance(2 * HOUR + 30 * MINUTE);
      await desk.sweep();
      expect(await Promise.all(nos.map((no) => desk.status(no)))).toEqual([
        [15, 4100],
        [15, 4100],
        [15, 4100],
        [26, 0],
        [26, 0],
      ]);
      h.advance(2 * HOUR);
      await desk.sweep();
      expect(await desk.status(nos[4] as number)).toEqual([15, 4100]);
      expect((await desk.claim()).claims).toEqual([]);
    });

    timed('a join changes the limit of the bulk from its last turn on', async () => {
      await desk.accept({ to: numbers(3), bulkId: 'b', every: HOUR });
      await desk.claimOne();
      await desk.accept({ to: numbers(1, 9), bulkId: 'b', every: MINUTE });
      h.advance(MINUTE - SECOND);
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(SECOND);
      expect((await desk.claim()).claims).toHaveLength(1);
    });

    timed('a limit that comes later paces what is left and keeps the clocks that ran', async () => {
      const { nos } = await desk.accept({ to: numbers(4), bulkId: 'b', validityMs: 3 * HOUR });
      const claim = (await desk.claim(1)).claims[0];
      if (claim) await desk.settle(claim, accepted('first'));
      h.advance(HOUR);
      await desk.accept({ to: numbers(1, 9), bulkId: 'b', every: 30 * MINUTE, validityMs: 3 * HOUR });
      const paced = (await desk.claim()).claims;
      expect(paced).toHaveLength(1);
      h.advance(2 * HOUR);
      await desk.sweep();
      expect(await desk.status(nos[0] as number)).toEqual([29, 815]);
      expect(await desk.status(nos[3] as number)).toEqual([15, 4100]);
    });

    timed('a limit lifted late does not end what still waited for its turn', async () => {
      const { nos } = await desk.accept({ to: numbers(100), bulkId: 'b', every: HOUR, validityMs: HOUR });
      for (let n = 0; n < 4; n++) {
        await desk.settle(await desk.claimOne(), accepted(`l${n}`));
        h.advance(HOUR);
      }
      await desk.accept({ to: numbers(1, 900), bulkId: 'b', every: 0 });
      await desk.sweep();
      expect(await desk.status(nos[50] as number)).toEqual([26, 0]);
      const left = (await desk.claim(1000)).claims.filter((claim) => claim.leader <= (nos[99] as number));
      expect(left).toHaveLength(96);
      expect(left[0]?.validUntil).toBe(h.now() + HOUR);
    });
  });

  describe('bulks', () => {
    it('a paused bulk gives no claims, a resumed one goes on, unknown ones are unknown', async () => {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b' });
      expect(await desk.steer(1, { id: 'b' }, 'PAUSED')).toBe(true);
      expect(await desk.steer(1, { id: 'b' }, 'PAUSED')).toBe(true);
      expect((await desk.claim()).claims).toEqual([]);
      expect((await desk.story(nos[0] as number)).waiting?.why).toContain('paused');
      // Joining a paused bulk waits.
      await desk.accept({ to: numbers(1, 9), bulkId: 'b' });
      expect((await desk.claim()).claims).toEqual([]);
      expect(await desk.steer(2, { id: 'b' }, 'PROCESSING')).toBe(false);
      expect(await desk.steer(1, { id: 'no' }, 'PAUSED')).toBe(false);
      expect(await desk.steer(1, { no: 99_999 }, 'PAUSED')).toBe(false);
      expect(await desk.steer(1, { id: 'b' }, 'PROCESSING')).toBe(true);
      expect((await desk.claim()).claims).toHaveLength(4);
    });

    it('a bulk that was paused once is not paused on a lane it joins later', async () => {
      await desk.accept({ bulkId: 'b' });
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      await desk.steer(1, { id: 'b' }, 'PROCESSING');
      const other = await desk.laneOf('other');
      const no = await desk.one({ bulkId: 'b', lane: other });
      expect((await desk.claim(10, other)).claims.map((claim) => claim.leader)).toEqual([no]);
    });

    it('a request without bulkId can be steered by its number, what is in flight included', async () => {
      const a = await desk.accept({ to: numbers(3) });
      const b = await desk.accept({ to: numbers(1, 9) });
      const claim = await desk.claimOne();
      expect(await desk.steer(2, { no: a.bulk }, 'PAUSED')).toBe(false);
      expect(await desk.steer(1, { no: a.bulk }, 'PROCESSING')).toBe(true);
      expect(await desk.steer(1, { no: a.bulk }, 'PAUSED')).toBe(true);
      expect((await desk.claim()).claims.map((one) => one.leader)).toEqual(b.nos);
      await h.store.release([claim], 0);
      expect((await desk.claim()).claims).toEqual([]);
      await h.crash();
      expect((await desk.claim()).claims).toEqual([]);
      await desk.steer(1, { no: a.bulk }, 'PROCESSING');
      expect((await desk.claim()).claims.map((one) => one.leader)).toEqual(a.nos);
    });

    timed('a pause that begins before the clock moves it, as often as it happens', async () => {
      const start = h.now();
      const { nos } = await desk.accept({ bulkId: 'b', sendAt: start + HOUR, validityMs: HOUR });
      const no = nos[0] as number;
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      h.advance(5 * HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([26, 0]);
      await desk.steer(1, { id: 'b' }, 'PROCESSING');
      expect((await desk.story(no)).validUntil).toBe(start + 6 * HOUR);
      // A second pause, after the clock has started, does not move it.
      h.advance(MINUTE);
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      h.advance(30 * MINUTE);
      await desk.steer(1, { id: 'b' }, 'PROCESSING');
      h.advance(28 * MINUTE);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([26, 0]);
      const claim = await desk.claimOne();
      expect(claim.validUntil).toBe(start + 6 * HOUR);
      await h.store.release([claim], 0);
      h.advance(MINUTE);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([15, 4100]);
    });

    timed('a pause after the clock has started lets messages expire while it lasts', async () => {
      const no = await desk.one({ bulkId: 'b', validityMs: HOUR });
      h.advance(SECOND);
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      h.advance(HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([15, 4100]);
    });

    timed('a pause of a limited bulk moves the turns that were still to come', async () => {
      const { nos } = await desk.accept({ to: numbers(3), bulkId: 'b', every: HOUR, validityMs: 2 * HOUR });
      await desk.settle(await desk.claimOne(), accepted('first'));
      h.advance(MINUTE);
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      h.advance(50 * HOUR);
      await desk.sweep();
      expect(await desk.status(nos[1] as number)).toEqual([26, 0]);
      await desk.steer(1, { id: 'b' }, 'PROCESSING');
      await desk.sweep();
      const claim = await desk.claimOne();
      expect(claim).toMatchObject({ leader: nos[1], validUntil: h.now() + 2 * HOUR });
      expect((await desk.claim()).claims).toEqual([]);
      h.advance(HOUR);
      expect((await desk.claimOne()).leader).toBe(nos[2]);
    });

    timed('many pauses are remembered', async () => {
      const start = h.now();
      const no = await desk.one({ bulkId: 'b', sendAt: start + 30 * MINUTE, validityMs: HOUR });
      for (let n = 0; n < 120; n++) {
        await desk.steer(1, { id: 'b' }, 'PAUSED');
        h.advance(MINUTE);
        await desk.steer(1, { id: 'b' }, 'PROCESSING');
        if (n < 29) continue;
        // From the half hour on the clock has started at the end of the pause that covered it.
        expect((await desk.story(no)).validUntil).toBeGreaterThanOrEqual(start + 90 * MINUTE);
      }
    });
  });

  describe('an answer to a claim', () => {
    timed('of one passes over lines whose time is over and gives what is due', async () => {
      for (let n = 0; n < 12; n++) await desk.one({ bulkId: `late-${n}`, validityMs: HOUR });
      h.advance(2 * HOUR);
      const no = await desk.one();
      const { claims } = await desk.claim(1);
      expect(claims.map(({ leader }) => leader)).toEqual([no]);
    });

    timed('without claims names no instant that has come, whatever lies on the lane', async () => {
      for (let n = 0; n < 200; n++) await desk.one({ bulkId: `late-${n}`, validityMs: HOUR });
      h.advance(2 * HOUR);
      for (let n = 0; n < 20; n++) {
        const { claims, nextDue, now } = await desk.claim(1);
        expect(claims).toEqual([]);
        if (nextDue !== null) expect(nextDue).toBeGreaterThan(now);
      }
    });

    it('of as many as were asked for says that there may be more, and the next one that there is not', async () => {
      const nos: number[] = [];
      for (let n = 0; n < 8; n++) nos.push(await desk.one({ bulkId: `bulk-${n % 4}` }));
      const seen: number[] = [];
      for (let n = 0; n < 4; n++) seen.push(...(await desk.claim(2)).claims.map(({ leader }) => leader));
      expect(seen.sort((a, b) => a - b)).toEqual(nos);
      const { claims, nextDue, now } = await desk.claim(2);
      expect(claims).toEqual([]);
      if (nextDue !== null) expect(nextDue).toBeGreaterThan(now);
      // What comes on a line that was just served is found at once.
      const no = await desk.one({ bulkId: 'bulk-0' });
      expect((await desk.claim(2)).claims.map(({ leader }) => leader)).toEqual([no]);
    });

    timed('gives all that a request brings, however often its account ran empty before', async () => {
      for (let n = 0; n < 40; n++) {
        const no = await desk.one({ bulkId: `bulk-${n}` });
        expect((await desk.claim(10)).claims.map(({ leader }) => leader)).toEqual([no]);
        expect((await desk.claim(10)).claims).toEqual([]);
      }
      const { nos } = await desk.accept({ bulkId: 'all', to: numbers(30) });
      const seen: number[] = [];
      for (let n = 0; n < 3; n++) seen.push(...(await desk.claim(10)).claims.map(({ leader }) => leader));
      expect(seen).toEqual(nos);
    });
  });

  describe('fairness', () => {
    it('accounts take turns, however much one of them has waiting', async () => {
      await desk.accept({ account: 1, to: numbers(500) });
      const { nos } = await desk.accept({ account: 2, to: numbers(2) });
      const seen: number[] = [];
      for (let n = 0; n < 4; n++) seen.push((await desk.claimOne()).leader);
      expect(seen).toEqual(expect.arrayContaining(nos));
      const { claims } = await desk.claim(64);
      expect(claims).toHaveLength(64);
    });

    it('bulks of one account take turns', async () => {
      await desk.accept({ to: numbers(500), bulkId: 'big' });
      const small = await desk.accept({ to: numbers(1, 900), bulkId: 'small' });
      const express = await desk.accept({ to: numbers(1, 901) });
      const leaders = (await desk.claim(64)).claims.map((claim) => claim.leader);
      expect(leaders).toEqual(expect.arrayContaining([...small.nos, ...express.nos]));
    });

    it('requests of one line take turns', async () => {
      await desk.accept({ to: numbers(500) });
      const alert = await desk.one({ to: numbers(1, 900) });
      const leaders = (await desk.claim(16)).claims.map((claim) => claim.leader);
      expect(leaders).toContain(alert);
    });

    timed('retries and fresh messages alternate, with one slot too', async () => {
      const { nos } = await desk.accept({ to: numbers(40) });
      for (const claim of (await desk.claim(20)).claims) await desk.settle(claim, DEFERRED);
      h.advance(MINUTE);
      const kinds: string[] = [];
      for (let n = 0; n < 8; n++) kinds.push((await desk.claimOne()).attempt === 1 ? 'fresh' : 'retry');
      expect(kinds.filter((kind) => kind === 'fresh')).toHaveLength(4);
      expect(nos).toHaveLength(40);
    });
  });

  describe('webhooks', () => {
    it('a final report goes to its endpoint once, with all that its body needs', async () => {
      const no = await desk.delivered({ endpoint: URL });
      const { webhooks, specs } = await desk.webhooks();
      expect(webhooks).toMatchObject([
        {
          account: 1,
          kind: 'delivery',
          endpoint: { url: URL, contentType: 'application/json', secrets: [], headers: {} },
          retry: 0,
          body: null,
          events: [{ no, status: 5, error: 0 }],
        },
      ]);
      expect(specs.map((spec) => spec.no)).toEqual([webhooks[0]?.events[0]?.spec]);
      expect((await desk.webhooks()).webhooks).toEqual([]);
      expect(await desk.answer(webhooks[0] as Webhook, true)).toBe(true);
      expect(await desk.answer(webhooks[0] as Webhook, true)).toBe(false);
      expect((await desk.webhooks()).webhooks).toEqual([]);
      expect(await desk.pull()).toEqual([]);
      expect((await desk.story(no)).webhooks).toMatchObject([{ retry: 0, status: 200, url: URL, excerpt: 'thanks' }]);
    });

    it('gathers up to 100 reports of one endpoint in a POST, oldest first', async () => {
      const { nos } = await desk.accept({ to: numbers(250), endpoint: URL });
      expect(await desk.settleAll(() => REFUSED)).toBe(250);
      const seen: number[] = [];
      let calls = 0;
      while (seen.length < 250 && calls++ < 20) {
        for (const webhook of (await desk.webhooks()).webhooks) {
          expect(webhook.events.length).toBeLessThanOrEqual(100);
          seen.push(...webhook.events.map((event) => event.no));
          await desk.answer(webhook, true);
        }
      }
      expect(calls).toBeLessThanOrEqual(3);
      expect([...seen].sort((a, b) => a - b)).toEqual(nos);
    });

    it('never mixes accounts, URLs or content types in a POST', async () => {
      const xml = { url: URL, contentType: 'application/xml' };
      await desk.delivered({ endpoint: URL });
      await desk.delivered({ endpoint: xml });
      await desk.delivered({ endpoint: `${URL}/2` });
      await desk.delivered({ account: 2, endpoint: URL });
      const { webhooks } = await desk.webhooks();
      const names = webhooks.map(({ account, endpoint }) => `${account} ${endpoint.contentType} ${endpoint.url}`);
      expect(names.sort()).toEqual([
        `1 application/json ${URL}`,
        `1 application/json ${URL}/2`,
        `1 application/xml ${URL}`,
        `2 application/json ${URL}`,
      ]);
      for (const webhook of webhooks) expect(webhook.events).toHaveLength(1);
    });

    it('hints when there is something to post', async () => {
      const hints: Hint['kind'][] = [];
      h.store.onHint((hint) => hints.push(hint.kind));
      await desk.delivered({ endpoint: URL });
      await until(() => hints.includes('webhooks'));
    });

    timed(
      'retries with the same number and bytes after 1 min + 1 min x n x n, then gives up to the pull list',
      async () => {
        const no = await desk.delivered({ endpoint: URL });
        const start = h.now();
        let number = 0;
        for (let n = 0; n <= 20; n++) {
          const [webhook, more] = (await desk.webhooks()).webhooks;
          if (!webhook) throw new Error(`no try ${n}`);
          expect(more).toBeUndefined();
          number ||= webhook.no;
          expect(webhook).toMatchObject({ no: number, retry: n, body: n === 0 ? null : 'bytes' });
          expect(webhook.events.map((event) => event.no)).toEqual([no]);
          await desk.answer(webhook, false, 'bytes');
          if (n === 20) break;
          const wait = MINUTE + MINUTE * n * n;
          expect((await desk.webhooks()).nextDue).toBe(h.now() + wait);
          h.advance(wait - 1);
          expect((await desk.webhooks()).webhooks).toEqual([]);
          h.advance(1);
        }
        expect(h.now() - start).toBe(41 * HOUR + 30 * MINUTE);
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect((await h.store.stats()).webhooksExhausted).toBe(1);
        expect((await desk.story(no)).webhooks).toHaveLength(21);
        h.advance(7 * DAY - 1);
        await desk.sweep();
        expect((await desk.pull()).map((row) => row.no)).toEqual([no]);
      },
    );

    it('a failure is not repeated before its time, and what is fresh goes on', async () => {
      await desk.delivered({ endpoint: URL });
      const [first] = (await desk.webhooks()).webhooks;
      await desk.answer(first as Webhook, false, 'bytes');
      const no = await desk.delivered({ endpoint: URL });
      const { webhooks } = await desk.webhooks();
      expect(webhooks.map((webhook) => webhook.events.map((event) => event.no))).toEqual([[no]]);
    });

    timed('a lost lease is given to the next who asks; the old token settles nothing', async () => {
      await desk.delivered({ endpoint: URL });
      const [lost] = (await desk.webhooks()).webhooks as [Webhook];
      h.advance(30 * SECOND - 1);
      expect((await desk.webhooks()).webhooks).toEqual([]);
      h.advance(1);
      const [again] = (await desk.webhooks()).webhooks as [Webhook];
      expect(again).toMatchObject({ no: lost.no, retry: 0 });
      expect(await desk.answer(lost, true)).toBe(false);
      expect(await desk.answer(again, true)).toBe(true);
    });

    it('after a crash open POSTs come again at once', async () => {
      const no = await desk.delivered({ endpoint: URL });
      const [lost] = (await desk.webhooks()).webhooks as [Webhook];
      await h.crash();
      const [again] = (await desk.webhooks()).webhooks as [Webhook];
      expect(again).toMatchObject({ no: lost.no, events: [{ no }] });
      expect(await desk.answer(lost, true)).toBe(false);
    });

    timed('intermediate reports come one at a time, in order, and the final one last', async () => {
      const no = await desk.one({ endpoint: URL, intermediate: true });
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(2 * SECOND);
      await desk.settle(await desk.claimOne(), accepted('i'));
      await desk.report('i', 'deferred');
      await desk.report('i', 'retrieved');
      const seen: number[][] = [];
      for (let n = 0; n < 6; n++) {
        const { webhooks } = await desk.webhooks();
        expect(webhooks).toHaveLength(1);
        const [webhook] = webhooks as [Webhook];
        seen.push(...webhook.events.map((event) => [event.no, event.status, event.error]));
        // The second fails once: nothing of this message passes it.
        if (n === 1) {
          await desk.answer(webhook, false, 'b');
          expect((await desk.webhooks()).webhooks).toEqual([]);
          h.advance(MINUTE);
          await desk.answer((await desk.webhooks()).webhooks[0] as Webhook, true);
        } else await desk.answer(webhook, true);
      }
      expect(seen).toEqual([
        [no, 7, 0],
        [no, 26, 15000],
        [no, 7, 15000],
        [no, 3, 0],
        [no, 3, 15004],
        [no, 5, 0],
      ]);
      expect((await desk.webhooks()).webhooks).toEqual([]);
    });

    timed('of exhausted intermediate reports only the final one is pulled', async () => {
      const no = await desk.one({ endpoint: URL, intermediate: true });
      await desk.settle(await desk.claimOne(), accepted('i'));
      await desk.report('i', 'retrieved');
      for (let n = 0; n < 63; n++) {
        const { webhooks, nextDue } = await desk.webhooks();
        for (const webhook of webhooks) await desk.answer(webhook, false, 'b');
        if (webhooks.length === 0 && nextDue !== null) h.advance(nextDue - h.now());
        else if (webhooks.length > 0) h.advance(7 * HOUR);
      }
      expect((await desk.pull()).map((row) => [row.no, row.status])).toEqual([[no, 5]]);
    });

    it('without intermediate reports only the final one is sent', async () => {
      await desk.one({ endpoint: URL });
      await desk.settle(await desk.claimOne(), accepted('i'));
      await desk.report('i', 'deferred');
      expect((await desk.webhooks()).webhooks).toEqual([]);
    });

    it('an endpoint that hangs takes at most eight slots and no turn of the others', async () => {
      await desk.accept({ to: numbers(2000), endpoint: 'https://hangs.example/' });
      expect(await desk.settleAll(() => REFUSED)).toBe(2000);
      for (let n = 0; n < 20; n++) {
        await desk.one({ endpoint: `https://fine.example/${n}` });
        await desk.settle(await desk.claimOne(), REFUSED);
      }
      const first = (await desk.webhooks(30)).webhooks;
      const hangs = first.filter((webhook) => webhook.endpoint.url.includes('hangs'));
      expect(hangs.length).toBeLessThanOrEqual(8);
      expect(hangs.length).toBeGreaterThanOrEqual(2);
      expect(new Set(first.map((webhook) => webhook.endpoint.url)).size).toBe(21);
      for (let n = 0; n < 3; n++) {
        const more = (await desk.webhooks(30)).webhooks;
        hangs.push(...more.filter((webhook) => webhook.endpoint.url.includes('hangs')));
      }
      expect(hangs).toHaveLength(8);
    });

    timed('retries of a dead endpoint do not stand before the others either, and it gets one slot', async () => {
      await desk.accept({ to: numbers(3000), endpoint: 'https://dead.example/' });
      expect(await desk.settleAll(() => REFUSED)).toBe(3000);
      for (let n = 0; n < 40; n++) {
        for (const webhook of (await desk.webhooks(64)).webhooks) await desk.answer(webhook, false, 'b');
      }
      h.advance(HOUR);
      await desk.one({ endpoint: URL });
      await desk.settle(await desk.claimOne(), REFUSED);
      const { webhooks } = await desk.webhooks(64);
      expect(webhooks.map((webhook) => webhook.endpoint.url).sort()).toEqual(['https://dead.example/', URL]);
      // One success opens it again.
      const dead = webhooks.find((webhook) => webhook.endpoint.url !== URL) as Webhook;
      await desk.answer(dead, true);
      expect((await desk.webhooks(64)).webhooks).toHaveLength(8);
    });

    it('answers an exact count of a small limit', async () => {
      for (let n = 0; n < 5; n++) await desk.delivered({ endpoint: `${URL}/${n}` });
      expect((await desk.webhooks(2)).webhooks).toHaveLength(2);
      expect((await desk.webhooks(2)).webhooks).toHaveLength(2);
      expect((await desk.webhooks(2)).webhooks).toHaveLength(1);
    });
  });

  describe('the pull list', () => {
    it('hands out each final report once, newest first, whoever asks at the same time', async () => {
      const nos: number[] = [];
      for (let n = 0; n < 6; n++) nos.push(await desk.delivered());
      const both = await Promise.all([desk.pull({ limit: 4 }), desk.pull({ limit: 4 })]);
      const taken = both.flat().map((row) => row.no);
      expect([...taken].sort((a, b) => a - b)).toEqual(nos);
      expect(both[0].map((row) => row.no)).toEqual([...both[0].map((row) => row.no)].sort((a, b) => b - a));
      expect(await desk.pull()).toEqual([]);
      await h.crash();
      expect(await desk.pull()).toEqual([]);
    });

    it('takes only what each filter names, and only of the account', async () => {
      const spec = (part: object) => ({ spec: part });
      const plain = await desk.delivered();
      const sender = await desk.delivered(spec({ sender: 'Bank' }));
      const entity = await desk.delivered(spec({ entity: 'e1' }));
      const application = await desk.delivered(spec({ application: 'a1' }));
      const campaign = await desk.delivered(spec({ campaign: 'c1' }));
      const keyed = await desk.delivered({ keys: [[0, 'mine']] });
      const bulk = await desk.delivered({ bulkId: 'b1' });
      const numbered = await desk.accept({ to: numbers(1, 500) });
      await desk.settle(await desk.claimOne(), REFUSED);
      const foreign = await desk.delivered({ account: 2, bulkId: 'b1', keys: [[0, 'mine']] });
      const nos = async (filter: Partial<MessageFilter>) => (await desk.pull(filter)).map((row) => row.no);
      expect(await nos({ bulks: { nos: [], ids: ['nothing'] } })).toEqual([]);
      expect(await nos({ bulks: { nos: [], ids: [] } })).toEqual([]);
      expect(await nos({ messages: { nos: [], keys: [] } })).toEqual([]);
      expect(await nos({ campaigns: [] })).toEqual([]);
      expect(await nos({ messages: { nos: [foreign, keyed], keys: [] } })).toEqual([]);
      expect(await nos({ entity: 'e1' })).toEqual([entity]);
      expect(await nos({ application: 'a1' })).toEqual([application]);
      expect(await nos({ campaigns: ['c0', 'c1'] })).toEqual([campaign]);
      expect(await nos({ messages: { nos: [], keys: ['mine'] } })).toEqual([keyed]);
      expect(await nos({ bulks: { nos: [], ids: ['b1'] } })).toEqual([bulk]);
      expect(await nos({ bulks: { nos: [numbered.bulk], ids: [] } })).toEqual(numbered.nos);
      expect(await nos({ sender: 'Bank' })).toEqual([sender]);
      expect(await nos({ generalStatus: 'REJECTED' })).toEqual([]);
      expect(await nos({ messages: { nos: [plain], keys: [] }, generalStatus: 'DELIVERED' })).toEqual([plain]);
      expect(await nos({})).toEqual([]);
      expect((await desk.pull({ account: 2 })).map((row) => row.no)).toEqual([foreign]);
    });

    timed('keeps a report 48 h', async () => {
      const no = await desk.delivered();
      h.advance(48 * HOUR - 1);
      await desk.sweep();
      const late = await desk.delivered();
      h.advance(1);
      expect((await desk.pull()).map((row) => row.no)).toEqual([late]);
      await desk.sweep();
      expect((await h.store.stats()).pull).toBe(0);
      expect(await desk.status(no)).toEqual([5, 0]);
    });

    it('walks past any number of reports that a filter leaves out', async () => {
      const wanted = await desk.delivered({ spec: { sender: 'Bank' } });
      await desk.accept({ to: numbers(450), refused: numbers(450).map((_, n): [number, number] => [n, 52]) });
      expect((await desk.pull({ sender: 'Bank' })).map((row) => row.no)).toEqual([wanted]);
      expect(await desk.pull()).toHaveLength(450);
    });
  });

  describe('logs', () => {
    it('filters by each of its fields, alone and together, and never by guess', async () => {
      const a = await desk.one({ to: ['441'], bulkId: 'b1', keys: [[0, 'k1']] });
      const b = await desk.one({ to: ['442'], spec: { sender: 'Bank', campaign: 'c1', entity: 'e1' } });
      const c = await desk.one({ to: ['442'], spec: { application: 'a1' } });
      const numbered = await desk.accept({ to: ['443'] });
      const d = numbered.nos[0] as number;
      const foreign = await desk.one({ account: 2, to: ['441'], bulkId: 'b1', keys: [[0, 'k1']] });
      expect(await desk.logs()).toEqual([d, c, b, a]);
      expect(await desk.logs({ bulks: { nos: [], ids: ['b1'] } })).toEqual([a]);
      expect(await desk.logs({ bulks: { nos: [numbered.bulk], ids: ['b1', 'x'] } })).toEqual([d, a]);
      expect(await desk.logs({ messages: { nos: [b, foreign], keys: ['k1'] } })).toEqual([b, a]);
      // The number of a message with a key of its own is not its id.
      expect(await desk.logs({ messages: { nos: [a], keys: [] } })).toEqual([]);
      expect(await desk.logs({ destination: '442' })).toEqual([c, b]);
      expect(await desk.logs({ destination: '442', sender: 'Bank' })).toEqual([b]);
      expect(await desk.logs({ entity: 'e1' })).toEqual([b]);
      expect(await desk.logs({ application: 'a1' })).toEqual([c]);
      expect(await desk.logs({ campaigns: ['c1', 'c2'] })).toEqual([b]);
      expect(await desk.logs({ generalStatus: 'PENDING' })).toEqual([d, c, b, a]);
      expect(await desk.logs({ generalStatus: 'DELIVERED' })).toEqual([]);
      expect(await desk.logs({ generalStatus: 'NONSENSE' })).toEqual([]);
      expect(await desk.logs({ bulks: { nos: [], ids: [] } })).toEqual([]);
      expect(await desk.logs({ account: 3 })).toEqual([]);
    });

    it('finds all messages to a number, page by page, in whatever state the index of destinations is', async () => {
      const wanted: number[] = [];
      for (let n = 0; n < 24; n++) {
        const { nos } = await desk.accept({
          to: ['4470', `4471${n % 3}`, '4470', ...numbers(n % 4, 100)],
          bulkId: `b${n % 2}`,
        });
        wanted.unshift(nos[2] as number, nos[0] as number);
        await desk.one({ account: 2, to: ['4470'] });
        // What came last has not been looked at by the sweep.
        if (n % 5 === 2) await desk.sweep();
      }
      for (const limit of [1, 7, 100]) {
        const given: number[] = [];
        for (let before: number | undefined; ; ) {
          const filter = { account: 1, limit, destination: '4470', ...(before === undefined ? {} : { before }) };
          const page = await h.store.logs(filter);
          given.push(...page.rows.map((row) => row.no));
          expect(page.rows.length).toBeLessThanOrEqual(limit);
          if (page.next === null) break;
          before = page.next;
        }
        expect(given).toEqual(wanted);
      }
      expect(await desk.logs({ destination: '4470', bulks: { nos: [], ids: ['b1'] } })).toHaveLength(24);
      expect(await desk.logs({ destination: '44710' })).toHaveLength(8);
      expect(await desk.logs({ destination: '447' })).toEqual([]);
      expect(await desk.logs({ destination: '4470', generalStatus: 'DELIVERED' })).toEqual([]);
      expect(await desk.logs({ account: 2, destination: '4470' })).toHaveLength(24);
      expect(await desk.logs({ account: 3, destination: '4470' })).toEqual([]);
    });

    it('takes hostile values as values', async () => {
      const no = await desk.one();
      const evil = `x' OR 1=1; DROP TABLE message; --`;
      for (const filter of [
        { destination: evil },
        { sender: evil },
        { entity: evil },
        { application: evil },
        { campaigns: [evil] },
        { generalStatus: evil },
        { bulks: { nos: [], ids: [evil] } },
        { messages: { nos: [], keys: [evil] } },
      ]) {
        expect(await desk.logs(filter)).toEqual([]);
        expect(await desk.pull(filter)).toEqual([]);
      }
      expect(await h.store.story(1, { key: evil })).toBeNull();
      expect(await desk.logs()).toEqual([no]);
    });

    timed('compares sentSince and sentUntil with the first submission, else with acceptance', async () => {
      const start = h.now();
      const sent = await desk.one();
      const waits = await desk.one({ sendAt: start + DAY });
      h.advance(HOUR);
      await desk.settle(await desk.claimOne(), accepted('m'));
      expect(await desk.logs({ since: start + 1 })).toEqual([sent]);
      expect(await desk.logs({ until: start })).toEqual([waits]);
      expect(await desk.logs({ since: start, until: start + HOUR })).toEqual([waits, sent]);
      expect((await desk.story(sent)).message.sentAt).toBe(start + HOUR);
    });

    it('pages to the end without loss or repetition while rows arrive', async () => {
      const nos: number[] = [];
      nos.push(...(await desk.accept({ to: numbers(150) })).nos);
      for (let n = 0; n < 40; n++) nos.push(await desk.one());
      nos.push(...(await desk.accept({ to: numbers(30), bulkId: 'b' })).nos);
      const seen: number[] = [];
      let before: number | undefined;
      for (let page = 0; page < 100; page++) {
        const filter = { account: 1, limit: 7, ...(before === undefined ? {} : { before }) };
        const { rows, specs, next } = await h.store.logs(filter);
        expect(rows.length).toBeLessThanOrEqual(7);
        expect(specs.map((spec) => spec.no).sort()).toEqual([...new Set(rows.map((row) => row.spec))].sort());
        seen.push(...rows.map((row) => row.no));
        await desk.one();
        if (next === null) break;
        before = next;
      }
      expect(seen).toEqual([...nos].reverse());
    });

    it('pages through requests with several specs in order', async () => {
      const rows = await severalSpecs(desk, 5, 3);
      await h.store.accept(rows);
      const all = rows.specs.flatMap((spec) => range(spec.first, spec.end));
      const seen: number[] = [];
      let before: number | undefined;
      for (let page = 0; page < 50; page++) {
        const found = await h.store.logs({ account: 1, limit: 2, ...(before === undefined ? {} : { before }) });
        seen.push(...found.rows.map((row) => row.no));
        if (found.next === null) break;
        before = found.next;
      }
      expect(seen).toEqual(all.reverse());
    });

    it('finds a needle in a big request', async () => {
      const { nos } = await desk.accept({ to: numbers(10_000) });
      expect(await desk.logs({ destination: numbers(1, 1234)[0] as string })).toEqual([nos[1233]]);
    });
  });

  describe('feed and story', () => {
    it('starts now, or at a place, and misses nothing in between', async () => {
      const start = (await h.store.feed(1, 0, 10)).last;
      expect(start).toBeGreaterThan(0);
      const no = await desk.delivered();
      await desk.delivered({ account: 2 });
      const first = await h.store.feed(1, start, 1);
      expect(first.rows.map((row) => [row.no, row.status])).toEqual([[no, 3]]);
      expect(first.specs.map((spec) => spec.no)).toEqual([first.rows[0]?.spec]);
      const second = await h.store.feed(1, first.last, 10);
      expect(second.rows.map((row) => [row.no, row.status])).toEqual([[no, 5]]);
      const third = await h.store.feed(1, second.last, 10);
      expect(third.rows).toEqual([]);
      expect(third.last).toBeGreaterThanOrEqual(second.last);
      expect((await h.store.feed(1, 0, 10)).rows).toEqual([]);
      expect((await h.store.feed(1, -1, 10)).rows).toHaveLength(2);
      // What the pull list handed out is still in the feed, and notes are not.
      await desk.pull();
      await desk.report(`d${no}`, 'retrieved');
      expect((await h.store.feed(1, start, 10)).rows).toHaveLength(2);
    });

    it('numbers events so that their order is the order of changes', async () => {
      const start = (await h.store.feed(1, 0, 1)).last;
      for (let n = 0; n < 20; n++) await desk.delivered();
      const { rows } = await h.store.feed(1, start, 1000);
      expect(rows).toHaveLength(40);
      for (let n = 1; n < rows.length; n++) expect(rows[n]?.event).toBeGreaterThan(rows[n - 1]?.event as number);
    });

    it("walks over another account's events", async () => {
      const start = (await h.store.feed(1, 0, 1)).last;
      const to = numbers(9000);
      const refused = to.map((_, n): [number, number] => [n, 52]);
      await desk.accept({ account: 2, to, refused });
      await desk.accept({ account: 2, to, refused });
      const no = await desk.delivered();
      let place = start;
      const seen: number[] = [];
      for (let call = 0; call < 5 && seen.length < 2; call++) {
        const { rows, last } = await h.store.feed(1, place, 10);
        seen.push(...rows.map((row) => row.no));
        place = last;
      }
      expect(seen).toEqual([no, no]);
    });

    it('tells the whole life of a message, and only to its account', async () => {
      const no = await desk.delivered({ endpoint: URL });
      await desk.answer((await desk.webhooks()).webhooks[0] as Webhook, true);
      const { install } = await h.store.identity();
      const story = await desk.story(no);
      expect(story.message).toMatchObject({ no, status: 5, claimed: false });
      expect(story.message.doneAt).not.toBeNull();
      expect(story.attempts).toMatchObject([
        {
          n: 1,
          outcome: 'accepted',
          carrier: 'mmsc',
          carrierMessageId: `d${no}`,
          transactionId: `${install}-${no}`,
          tookMs: 5,
        },
      ]);
      expect(story.events.map((event) => event.status)).toEqual([3, 5]);
      expect(story.webhooks).toHaveLength(1);
      expect(story.waiting).toBeNull();
      expect(await h.store.story(2, { no })).toBeNull();
      expect(await h.store.story(1, { no: no + 1000 })).toBeNull();
    });

    it('a message with a key of its own is found by the key, not by its number', async () => {
      const no = await desk.one({ keys: [[0, 'mine']] });
      expect(await h.store.story(1, { no })).toBeNull();
      expect((await h.store.story(1, { key: 'mine' }))?.message.no).toBe(no);
      expect(await h.store.story(2, { key: 'mine' })).toBeNull();
    });
  });

  describe('media', () => {
    const ready = { kind: 'ready', hash: 'aa', contentType: 'image/png', name: 'a.png' } as const;

    it('a run with links opens when the last of them is there', async () => {
      const { nos, spec } = await desk.accept({
        to: numbers(2),
        links: ['https://a.example/1', 'https://a.example/2'],
      });
      expect((await desk.claim()).claims).toEqual([]);
      expect((await desk.story(nos[0] as number)).waiting?.why).toContain('content');
      const { jobs } = await h.store.mediaNext(10, LEASE);
      expect(jobs.map((job) => [job.spec, job.segment, job.url, job.tries])).toEqual([
        [spec, 0, 'https://a.example/1', 1],
        [spec, 1, 'https://a.example/2', 1],
      ]);
      expect((await h.store.mediaNext(10, LEASE)).jobs).toEqual([]);
      await h.store.mediaSettle({ spec, segment: 1 }, ready);
      expect((await desk.claim()).claims).toEqual([]);
      await h.store.mediaSettle({ spec, segment: 0 }, { ...ready, hash: 'bb' });
      const { claims, specs } = await desk.claim();
      expect(claims.map((claim) => claim.leader)).toEqual(nos);
      expect(specs[0]?.media.map((item) => [item.segment, item.hash, item.contentType])).toEqual([
        [0, 'bb', 'image/png'],
        [1, 'aa', 'image/png'],
      ]);
      await h.store.mediaSettle({ spec, segment: 0 }, ready);
      expect((await desk.claim()).claims).toEqual([]);
    });

    it('content that cannot be had ends its messages with the error that says why', async () => {
      const { nos, spec } = await desk.accept({ to: numbers(1200), links: ['https://a.example/1'] });
      const other = await desk.accept({ to: numbers(1, 5000) });
      await h.store.mediaNext(10, LEASE);
      await h.store.mediaSettle({ spec, segment: 0 }, { kind: 'failed', error: 15024, words: '404' });
      await desk.sweep();
      for (const n of [0, 600, 1199]) expect(await desk.status(nos[n] as number)).toEqual([100, 15024]);
      expect(await desk.status(other.nos[0] as number)).toEqual([26, 0]);
      expect((await h.store.mediaNext(10, LEASE)).jobs).toEqual([]);
      // A late success does not bring them back.
      await h.store.mediaSettle({ spec, segment: 0 }, ready);
      expect((await desk.claim()).claims.map((claim) => claim.leader)).toEqual(other.nos);
    });

    timed('a fetch is repeated when asked, and when its lease is lost', async () => {
      const { nos, spec } = await desk.accept({ links: ['https://a.example/1'] });
      await h.store.mediaNext(10, LEASE);
      await h.store.mediaSettle({ spec, segment: 0 }, { kind: 'again', afterMs: MINUTE, error: 15024, words: '503' });
      expect((await h.store.mediaNext(10, LEASE)).nextDue).toBe(h.now() + MINUTE);
      const waiting = (await desk.story(nos[0] as number)).waiting;
      expect(waiting?.until).toBe(h.now() + MINUTE);
      expect(waiting?.why).toContain('messageSegments[0] failed once: 503');
      h.advance(MINUTE);
      expect((await h.store.mediaNext(10, LEASE)).jobs).toMatchObject([{ spec, tries: 2 }]);
      // A lost lease is no try: nobody may have been asked.
      h.advance(LEASE);
      expect((await h.store.mediaNext(10, LEASE)).jobs).toMatchObject([{ spec, account: 1, tries: 2 }]);
      await h.store.mediaSettle(
        { spec, segment: 0 },
        { kind: 'again', afterMs: HOUR, error: 15024, words: 'no answer' },
      );
      expect((await desk.story(nos[0] as number)).waiting?.why).toContain('failed 2 times, last: no answer');
      h.advance(HOUR);
      await h.store.mediaNext(10, LEASE);
      await h.store.mediaSettle({ spec, segment: 0 }, ready);
      expect((await desk.story(nos[0] as number)).waiting?.why).toBe('its turn');
    });

    timed('messages whose content does not come in time expire, and nobody fetches for them', async () => {
      const no = await desk.one({ links: ['https://a.example/1'], validityMs: HOUR });
      h.advance(HOUR);
      await desk.sweep();
      expect(await desk.status(no)).toEqual([15, 4100]);
      const words = 'validity ended, never tried: its linked content could not be fetched in time';
      expect((await desk.story(no)).events.at(-1)?.words).toBe(words);
      expect(await h.store.mediaNext(10, LEASE)).toMatchObject({ jobs: [], nextDue: null });
    });

    it('content that comes while its bulk is paused waits for the bulk', async () => {
      const { spec, nos } = await desk.accept({ links: ['https://a.example/1'], bulkId: 'b' });
      await desk.steer(1, { id: 'b' }, 'PAUSED');
      await h.store.mediaNext(10, LEASE);
      await h.store.mediaSettle({ spec, segment: 0 }, ready);
      expect((await desk.claim()).claims).toEqual([]);
      await desk.steer(1, { id: 'b' }, 'PROCESSING');
      expect((await desk.claim()).claims.map((claim) => claim.leader)).toEqual(nos);
    });

    timed('content that comes early waits for sendAt', async () => {
      const { spec } = await desk.accept({ links: ['https://a.example/1'], sendAt: h.now() + HOUR });
      await h.store.mediaNext(10, LEASE);
      await h.store.mediaSettle({ spec, segment: 0 }, ready);
      expect(await desk.claim()).toMatchObject({ claims: [], nextDue: h.now() + HOUR });
    });
  });

  describe('retention and figures', () => {
    timed('what is finished leaves after the retention time, its key, story and reports with it', async () => {
      const { nos } = await desk.accept({ to: numbers(1200), keys: [[0, 'mine']], bulkId: 'b', endpoint: URL });
      await desk.settleAll((claim) => accepted(`r${claim.leader}`));
      await Promise.all(nos.map((no) => desk.report(`r${no}`, 'retrieved')));
      for (let n = 0; n < 20; n++)
        for (const webhook of (await desk.webhooks()).webhooks) await desk.answer(webhook, true);
      h.advance(7 * DAY - SECOND);
      await desk.sweep();
      expect(await desk.logs({ limit: 1 })).toEqual([nos.at(-1)]);
      h.advance(2 * MINUTE);
      let steps = 1;
      while (await h.store.sweep()) steps++;
      expect(steps).toBeGreaterThanOrEqual(3);
      expect(await desk.logs()).toEqual([]);
      expect(await h.store.story(1, { key: 'mine' })).toBeNull();
      expect(await desk.steer(1, { id: 'b' }, 'PAUSED')).toBe(false);
      expect(await desk.report(`r${nos[0]}`, 'retrieved')).toBe(false);
      expect((await h.store.feed(1, -1, 10)).rows).toEqual([]);
      expect((await desk.accept({ keys: [[0, 'mine']], endpoint: URL })).answer).toMatchObject({ duplicates: [] });
      h.advance(2 * MINUTE);
      await desk.sweep();
      await desk.settle(await desk.claimOne(), REFUSED);
      expect((await desk.webhooks()).webhooks).toHaveLength(1);
    });

    timed('what is not finished, or not told yet, stays', async () => {
      const waits = await desk.one({ sendAt: h.now() + 30 * DAY });
      const untold = await desk.delivered({ endpoint: URL });
      const recent = await desk.one({ sendAt: h.now() + 8 * DAY });
      h.advance(8 * DAY);
      await desk.settle(await desk.claimOne(), REFUSED);
      await desk.sweep();
      h.advance(2 * MINUTE);
      await desk.sweep();
      expect(await desk.logs()).toEqual([recent, untold, waits]);
      expect((await desk.webhooks()).webhooks[0]?.events.map((event) => event.no)).toEqual([untold]);
    });

    timed('counts what waits', async () => {
      await desk.accept({ to: numbers(5) });
      await desk.claim(2);
      const { nos } = await desk.accept({ account: 2, to: numbers(1), endpoint: URL });
      const { claims } = await desk.claim(64);
      const mine = claims.find((claim) => claim.leader === nos[0]);
      if (mine) await desk.settle(mine, REFUSED);
      const other = claims.find((claim) => claim.leader !== nos[0]);
      if (other) await desk.settle(other, DEFERRED);
      await desk.accept({ to: ['1'], refused: [[0, 52]] });
      await desk.accept({ to: numbers(7), sendAt: h.now() + HOUR });
      expect(await h.store.stats()).toMatchObject({
        waiting: 7,
        inFlight: 4,
        retries: 1,
        webhooksWaiting: 1,
        webhooksExhausted: 0,
        pull: 1,
        waitingAt: [{ carrier: 'mmsc', count: 8 }],
      });
    });

    timed('what waits is counted by carrier, also one that is not configured any more', async () => {
      const { store } = h;
      const south = await store.lane('south', { onUnknown: 'hold', reports: true });
      const shard = await store.lane('south', { onUnknown: 'hold', reports: true }, 1);
      await desk.accept({ to: numbers(3) });
      await desk.accept({ to: numbers(4), lane: south });
      await desk.accept({ to: numbers(2), lane: shard, sendAt: h.now() + HOUR, bulkId: 'later' });
      expect((await store.stats()).waitingAt).toEqual([
        { carrier: 'mmsc', count: 3 },
        { carrier: 'south', count: 6 },
      ]);
      await desk.claim(64);
      expect((await store.stats()).waitingAt).toEqual([{ carrier: 'south', count: 6 }]);
    });

    timed('the story of a message that waits says what holds it', async () => {
      const day = { days: 127, from: 0, to: 60 };
      const gateOf = async (request: Parameters<typeof desk.accept>[0]) =>
        (await desk.story((await desk.accept(request)).nos[0] as number)).waiting?.gate;
      const sendAt = h.now() + 2 * HOUR;
      expect(await gateOf({})).toMatchObject({ sendAt: null, window: null, paced: false, canceled: false });
      expect((await gateOf({}))?.opensAt).toBeLessThanOrEqual(h.now());
      expect(await gateOf({ sendAt, bulkId: 'later' })).toMatchObject({ sendAt, opensAt: sendAt, paced: false });
      expect(await gateOf({ every: 1000, bulkId: 'slow' })).toMatchObject({ paced: true });
      const windowed = await gateOf({ window: day });
      expect(windowed).toMatchObject({ window: day });
      expect((windowed?.opensAt ?? 0) % (24 * HOUR)).toBeLessThan(HOUR);
      const { nos } = await desk.accept({ sendAt, bulkId: 'stopped' });
      await h.store.bulkSteer(1, { id: 'stopped' }, [{ kind: 'cancel' }]);
      expect((await desk.story(nos[0] as number)).waiting?.gate?.canceled).toBe(true);
    });
  });
}

function upload(id: string, hash: string) {
  return { account: 1, id, name: `${id}.jpg`, hash, contentType: 'image/jpeg', size: 10, validityMs: DAY };
}

function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, n) => first + n);
}

/** One request with several elements of `messages`. */
async function severalSpecs(desk: Desk, specs: number, each: number): Promise<Accept> {
  const rows = await desk.request();
  const [spec] = rows.specs;
  const [run] = rows.runs;
  if (!spec || !run) throw new Error('no spec');
  const first = await desk.store.reserve(1 + specs + specs * each);
  const start = (n: number): number => first + 1 + specs + n * each;
  return {
    ...rows,
    first,
    specs: Array.from({ length: specs }, (_, n) => ({ ...spec, first: start(n), end: start(n + 1) })),
    runs: Array.from({ length: specs }, (_, n) => ({
      ...run,
      first: start(n),
      end: start(n + 1),
      spec: first + 1 + n,
    })),
    to: numbers(specs * each),
  };
}

/** For what arrives by a message of another thread. */
async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; !condition(); turn++) {
    if (turn > 10_000) throw new Error('it never happened');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
