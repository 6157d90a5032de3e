/**
 * Who asks for every change is told when a message is claimed (7), as every engine must tell it: in the claim's own commit, in order before
 * what comes of it, once for as long as nothing else was told between, and to nobody else. Only contract verbs are used; needs a clock
 * that can be moved.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Claim, Webhook } from '../../src/store/contract.ts';
import {
  accepted,
  CONTENT_GONE,
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
  UNKNOWN,
} from './desk.ts';

const URL = 'https://shop.example/reports';
const ELSEWHERE = { kind: 'deferred', error: { id: 15000 }, elsewhere: true } as const;
const ALL = { endpoint: URL, intermediate: true } as const;

export function enrouteSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: that a message is on its way`, () => {
    let h: Harness;
    let desk: Desk;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
    });
    afterEach(() => h.close());

    const one = (request: Request = {}): Promise<number> => desk.one({ ...ALL, ...request });
    /** Its changes, in order, as [status, error]. */
    async function changes(no: number): Promise<[number, number][]> {
      const { events } = await desk.story(no);
      return events.filter(({ kind }) => kind === 'status').map(({ status, error }) => [status, error]);
    }
    /** All that its endpoint is told, as [status, error]; answers each POST. */
    async function told(no: number): Promise<[number, number][]> {
      const all: [number, number][] = [];
      for (let n = 0; n < 200; n++) {
        const [hook] = (await desk.webhooks(1)).webhooks;
        if (!hook) return all;
        // Only a message's oldest open event is in a POST.
        expect(new Set(hook.events.map((event) => event.no)).size).toBe(hook.events.length);
        for (const event of hook.events) if (event.no === no) all.push([event.status, event.error]);
        await desk.answer(hook, true, '{}');
      }
      throw new Error('webhooks never end');
    }

    it('is told in the commit of its claim, as of that instant, and before what comes of it', async () => {
      const no = await one();
      expect((await desk.webhooks()).webhooks).toEqual([]);
      h.advance(5 * SECOND);
      const at = h.now();
      const claim = await desk.claimOne();
      expect(await changes(no)).toEqual([[7, 0]]);
      const { message } = await desk.story(no);
      expect(message).toMatchObject({ status: 26, error: 0, claimed: true, sentAt: null, doneAt: null });
      h.advance(3 * SECOND);
      await desk.settle(claim, accepted('m'));
      await desk.report('m', 'retrieved');
      const [first] = (await desk.webhooks()).webhooks as [Webhook];
      expect(first.events).toMatchObject([{ no, status: 7, error: 0, doneAt: at, leg: 0 }]);
      expect((await desk.webhooks()).webhooks).toEqual([]);
      await desk.answer(first, true, '{}');
      expect(await told(no)).toEqual([
        [3, 0],
        [5, 0],
      ]);
    });

    it('is told to nobody who did not ask for every change, and is never pulled', async () => {
      const quiet = await desk.one({ endpoint: URL });
      const pulled = await desk.one({ intermediate: true });
      const { last: before } = await h.store.feed(1, 0, 10);
      for (const claim of (await desk.claim()).claims) await desk.settle(claim, accepted(`m${claim.leader}`));
      expect(await changes(quiet)).toEqual([[3, 0]]);
      // Nobody is told by POST; who looks on sees it.
      expect(await changes(pulled)).toEqual([
        [7, 0],
        [3, 0],
      ]);
      const { rows } = await h.store.feed(1, before, 10);
      expect(rows.map(({ no, status }) => [no, status]).sort()).toEqual(
        [
          [pulled, 7],
          [quiet, 3],
          [pulled, 3],
        ].sort(),
      );
      expect((await desk.webhooks()).webhooks).toEqual([]);
      expect(await desk.pull()).toEqual([]);
      await desk.report(`m${pulled}`, 'retrieved');
      expect((await desk.pull()).map(({ no, status }) => [no, status])).toEqual([[pulled, 5]]);
    });

    it('is told once, though its claim is put back untried or its carrier asks to wait', async () => {
      const no = await one();
      for (let n = 0; n < 3; n++) {
        const claim = await desk.claimOne();
        await h.store.release([claim], h.now());
      }
      for (let n = 0; n < 3; n++) {
        await desk.settle(await desk.claimOne(), { kind: 'throttled', retryAfterMs: SECOND });
        h.advance(2 * SECOND);
      }
      expect((await desk.story(no)).message).toMatchObject({ status: 26, error: 0, claimed: false });
      await desk.settle(await desk.claimOne(), accepted('m'));
      expect(await told(no)).toEqual([
        [7, 0],
        [3, 0],
      ]);
    });

    it('is told with each try that follows one that failed, and so is that it waits again', async () => {
      const no = await one();
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(2 * SECOND);
      const again = await desk.claimOne();
      expect(await changes(no)).toEqual([
        [7, 0],
        [26, 15000],
        [7, 15000],
      ]);
      await h.store.release([again], h.now());
      // The same error as before: the message is what it was, and yet it is not on its way any more.
      await desk.settle(await desk.claimOne(), DEFERRED);
      h.advance(5 * SECOND);
      await desk.settle(await desk.claimOne(), { kind: 'deferred', error: { id: 15014 } });
      h.advance(15 * SECOND);
      await desk.settle(await desk.claimOne(), REFUSED);
      expect(await told(no)).toEqual([
        [7, 0],
        [26, 15000],
        [7, 15000],
        [26, 15000],
        [7, 15000],
        [26, 15014],
        [7, 15014],
        [4, 15009],
      ]);
    });

    it('is told of one message a bounded number of times, and its end all the same', async () => {
      const no = await one();
      for (let n = 0; n < 60; n++) {
        await desk.settle(await desk.claimOne(), { kind: 'deferred', error: { id: 15000 }, retryAfterMs: SECOND });
        h.advance(SECOND);
      }
      await desk.settle(await desk.claimOne(), accepted('m'));
      const all = await told(no);
      expect(all.slice(0, 40)).toEqual(
        Array.from({ length: 40 }, (_, n) => (n === 0 ? [7, 0] : n % 2 === 0 ? [7, 15000] : [26, 15000])),
      );
      expect(all.slice(40)).toEqual([[3, 0]]);
      // And what is only noted still is.
      await desk.report('m', 'read');
      expect((await desk.story(no)).events.at(-1)).toMatchObject({ kind: 'noted' });
    });

    it('is told where nobody knows what became of the try before, and what is known then is told again', async () => {
      const no = await one();
      await desk.settle(await desk.claimOne(), UNKNOWN);
      h.advance(15 * MINUTE);
      await desk.settle(await desk.claimOne(), UNKNOWN);
      expect(await told(no)).toEqual([
        [7, 0],
        [3, 15000],
        [7, 15000],
        [3, 15000],
      ]);
      const other = await one();
      await desk.settle(await desk.claimOne(), UNKNOWN);
      h.advance(15 * MINUTE);
      await desk.settle(await desk.claimOne(), CONTENT_GONE);
      expect(await told(other)).toEqual([
        [7, 0],
        [3, 15000],
        [7, 15000],
        [3, 15000],
      ]);
    });

    it('is told before the report that says the same as was known, in whatever state that finds its message', async () => {
      const no = await one();
      const first = await desk.claimOne();
      await desk.settle(first, { kind: 'unknown', error: { id: 15004 } });
      h.advance(15 * MINUTE);
      const second = await desk.claimOne();
      // The first try's id comes late, and its report says what the try's error was.
      await h.store.settle({
        lane: desk.lane,
        token: first.token,
        leader: first.leader,
        outcome: accepted('m'),
        startedAt: h.now(),
        tookMs: 1,
      });
      await desk.report('m', 'deferred');
      await desk.settle(second, accepted('n'));
      expect(await told(no)).toEqual([
        [7, 0],
        [3, 15004],
        [7, 15004],
        [3, 15004],
      ]);
    });

    it('is told of each member of a group, and not of those who want nothing any more', async () => {
      const { nos } = await desk.accept({ ...ALL, to: numbers(3), groups: [3] });
      const single = await one({ to: ['441134960003'] });
      await h.store.optOutPut(1, [{ sender: 'Shop', destination: '441134960002' }]);
      const { claims } = await desk.claim();
      expect(claims.map(({ members }) => members.length).sort()).toEqual([1, 2]);
      for (const claim of claims) await desk.settle(claim, accepted(`m${claim.leader}`));
      const all = await Promise.all(nos.map(changes));
      expect(all.map((own) => own.map(([status]) => status))).toEqual([[7, 3], [10], [7, 3]]);
      expect(await changes(single)).toEqual([
        [7, 0],
        [3, 0],
      ]);
    });

    it('is told when its carrier gets it early, and not when its time has come', async () => {
      const sendAt = h.now() + HOUR;
      const no = await one({ bulkId: 'b', sendAt, earlyMs: 10 * MINUTE, validityMs: HOUR });
      h.advance(50 * MINUTE);
      const claim = await desk.claimOne();
      expect(claim.earliestAt).toBe(sendAt);
      expect(await changes(no)).toEqual([[7, 0]]);
      await desk.settle(claim, accepted('m'));
      h.advance(10 * MINUTE);
      expect((await desk.claim()).claims).toEqual([]);
      expect(await changes(no)).toEqual([
        [7, 0],
        [3, 0],
      ]);
    });

    it('is told again where another carrier gets it after a try, and not where it is only given over', async () => {
      const second = await desk.laneOf('second');
      const tried = await one({ ways: { alts: [second] } });
      const given = await one({ ways: { alts: [second] }, to: numbers(1, 2) });
      for (const claim of (await desk.claim()).claims) {
        if (claim.leader === tried) await desk.settle(claim, ELSEWHERE);
        else await h.store.release([claim], h.now(), true);
      }
      const { claims } = await desk.claim(64, second);
      expect(claims).toHaveLength(2);
      for (const claim of claims) await desk.settle(claim, accepted(`m${claim.leader}`), second);
      expect(await changes(tried)).toEqual([
        [7, 0],
        [26, 15000],
        [7, 15000],
        [3, 0],
      ]);
      expect(await changes(given)).toEqual([
        [7, 0],
        [3, 0],
      ]);
    });

    it('is followed by the report that overtook its answer, and by nothing that this one says then', async () => {
      const no = await one();
      const first = await desk.claimOne();
      h.advance(LEASE + SECOND);
      await desk.sweep();
      h.advance(15 * MINUTE);
      const second = await desk.claimOne();
      // The lost try had reached the carrier, whose report comes while the second is open.
      await desk.settle(first, accepted('m'));
      await desk.report('m', 'retrieved');
      await desk.settle(second, accepted('n'));
      expect(await told(no)).toEqual([
        [7, 0],
        [3, 15000],
        [7, 15000],
        [5, 0],
      ]);
    });

    it('is told of what a crash interrupted, and of the try after it', async () => {
      const no = await one();
      await desk.claimOne();
      await h.crash();
      h.advance(LEASE + SECOND);
      await desk.sweep();
      expect(await changes(no)).toEqual([
        [7, 0],
        [3, 15000],
      ]);
      h.advance(15 * MINUTE);
      await desk.settle(await desk.claimOne(), accepted('m'));
      expect(await told(no)).toEqual([
        [7, 0],
        [3, 15000],
        [7, 15000],
        [3, 0],
      ]);
    });

    it('stands before its end where nothing of it leaves any more', async () => {
      const no = await one({ validityMs: HOUR });
      await h.store.release([await desk.claimOne()], h.now() + 2 * HOUR);
      h.advance(HOUR);
      await desk.sweep();
      const canceled = await one({ bulkId: 'c' });
      await h.store.release([await desk.claimOne()], h.now() + HOUR);
      await h.store.bulkSteer(1, { id: 'c' }, [{ kind: 'cancel' }]);
      await desk.sweep();
      expect(await changes(no)).toEqual([
        [7, 0],
        [15, 4100],
      ]);
      expect(await changes(canceled)).toEqual([
        [7, 0],
        [31, 4100],
      ]);
    });

    it('stands in order, whoever asks at once: claims, reports about an earlier try, and answers to POSTs', async () => {
      const { nos } = await desk.accept({ ...ALL, to: numbers(12) });
      const firsts = (await desk.claim()).claims;
      expect(firsts).toHaveLength(12);
      h.advance(LEASE + SECOND);
      await desk.sweep();
      for (const claim of firsts) await desk.settle(claim, accepted(`m${claim.leader}`));
      h.advance(15 * MINUTE);
      const hooks = (await desk.webhooks(3)).webhooks;
      const [{ claims }] = await Promise.all([
        desk.claim(64),
        ...nos.map((no) => desk.report(`m${no}`, no % 3 === 0 ? 'deferred' : 'retrieved')),
        ...hooks.map((hook) => desk.answer(hook, true, '{}')),
      ]);
      await Promise.all(claims.map((claim: Claim) => desk.settle(claim, accepted(`n${claim.leader}`))));
      const seen = new Map<number, number[]>(nos.map((no) => [no, []]));
      const note = (hook: Webhook): void => {
        for (const { no, status } of hook.events) seen.get(no)?.push(status);
      };
      for (const hook of hooks) note(hook);
      for (let n = 0; n < 50; n++) {
        const { webhooks } = await desk.webhooks(8);
        if (webhooks.length === 0) break;
        for (const hook of webhooks) {
          note(hook);
          await desk.answer(hook, true, '{}');
        }
      }
      for (const no of nos) {
        const all = await changes(no);
        const statuses = all.map(([status]) => status);
        expect(statuses.slice(0, 2), `message ${no}`).toEqual([7, 3]);
        // Claimed again before its report, or not at all.
        const rest = no % 3 === 0 ? [3] : [5];
        expect([[...rest], [7, ...rest]], `message ${no}`).toContainEqual(statuses.slice(2));
        expect(seen.get(no), `message ${no}`).toEqual(statuses);
      }
    });
  });
}
