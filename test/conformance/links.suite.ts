/**
 * Short links and clicks, for every engine: what is known of a link and for how long, clicks counted and handed on, figures by
 * message, bulk and campaign, the story, and what outlives its message.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Tracked } from '../../src/domain/rows.ts';
import { CLICKS_KEPT, CLICKS_STEP, type ClickIn, type Store } from '../../src/store/contract.ts';
import { accepted, DAY, type Desk, type Harness, HOUR, MINUTE, numbers, openDesk, SECOND } from './desk.ts';

const SHOP = 'https://shop.example/sale';
const TERMS = 'https://shop.example/terms';
const CLICKS = 'https://customer.example/clicks';
const KEEP = 90 * DAY;

const tracked = (more: Partial<Tracked> = {}): { tracked: Tracked } => ({
  tracked: { urls: [SHOP, TERMS], clicks: true, url: CLICKS, callbackData: 'order 7', keepMs: KEEP, ...more },
});

/** `open` gives an empty store whose clock can be moved. */
export function linksSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: links and clicks`, () => {
    let h: Harness;
    let desk: Desk;
    let store: Store;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      store = h.store;
    });
    afterEach(() => h.close());

    const click = (no: number, more: Partial<ClickIn> = {}): ClickIn => ({
      no,
      link: 0,
      at: h.now(),
      flag: null,
      device: 'Phone, iOS 18',
      body: `{"messageId":${no}}`,
      ...more,
    });
    /** Until nothing more leaves, over the pauses between the walks. */
    async function leave(): Promise<void> {
      for (let round = 0; round < 4; round++) {
        await desk.sweep();
        h.advance(2 * HOUR);
      }
    }

    describe('a link', () => {
      it('is known by each message of its spec, with what its clicks tell', async () => {
        const { nos, bulk } = await desk.accept({
          to: numbers(3),
          bulkId: 'summer',
          spec: { ...tracked(), entity: 'e', application: 'a', campaign: 'c' },
        });
        const other = await desk.one();
        for (const no of nos) {
          expect(await store.link(no)).toEqual({
            first: nos[0],
            end: (nos[2] as number) + 1,
            account: 1,
            bulk,
            bulkId: 'summer',
            entity: 'e',
            application: 'a',
            callbackData: 'order 7',
            urls: [SHOP, TERMS],
            clicks: true,
            expiresAt: null,
          });
        }
        expect(await store.link(other)).toBeNull();
        expect(await store.link((nos[0] as number) - 1)).toBeNull();
        expect(await store.link(0)).toBeNull();
      });

      it('works for its time after the acceptance, or after sendAt where that is later, or after a late submission', async () => {
        const now = h.now();
        const sent = await desk.delivered({ spec: tracked() });
        expect((await store.link(sent))?.expiresAt).toBe(now + KEEP);
        const { nos } = await desk.accept({ sendAt: now + 5 * DAY, bulkId: 'b', spec: tracked({ keepMs: DAY }) });
        const late = nos[0] as number;
        expect((await store.link(late))?.expiresAt).toBeNull();
        await desk.steer(1, { id: 'b' }, 'PAUSED');
        h.advance(9 * DAY);
        await desk.steer(1, { id: 'b' }, 'PROCESSING');
        // It has not left, so its time has not begun.
        expect((await store.link(late))?.expiresAt).toBeNull();
        await desk.settle(await desk.claimOne(), accepted('late'));
        expect((await store.link(late))?.expiresAt).toBe(h.now() + DAY);
      });

      it('outlives its message, which leaves behind whom its clicks are about', async () => {
        const first = await desk.delivered({ to: ['4411'], keys: [[0, 'order-7']], spec: tracked() });
        const doneAt = (await store.story(1, { key: 'order-7' }))?.message.doneAt;
        expect(doneAt).toBe(h.now());
        h.advance(8 * DAY);
        await leave();
        expect(await store.story(1, { no: first })).toBeNull();
        expect(await store.link(first)).toMatchObject({ urls: [SHOP, TERMS], callbackData: 'order 7' });
        expect(await store.clicked([first])).toEqual([{ no: first, to: '4411', key: 'order-7', doneAt }]);
        await store.click([click(first)]);
        expect(await store.clicks(1, { message: { key: 'order-7' } })).toMatchObject({ total: 1, unique: 1 });
        const { webhooks } = await desk.webhooks();
        expect(webhooks).toMatchObject([{ kind: 'click', endpoint: { url: CLICKS }, body: `{"messageId":${first}}` }]);
      });

      it('that left late keeps its time after its message has left', async () => {
        const now = h.now();
        const { nos } = await desk.accept({ bulkId: 'b', sendAt: now + DAY, spec: tracked({ keepMs: 10 * DAY }) });
        const no = nos[0] as number;
        await desk.steer(1, { id: 'b' }, 'PAUSED');
        h.advance(6 * DAY);
        await desk.steer(1, { id: 'b' }, 'PROCESSING');
        await desk.settle(await desk.claimOne(), accepted('l'));
        await desk.report('l', 'retrieved');
        h.advance(9 * DAY);
        await leave();
        expect(await store.story(1, { no })).toBeNull();
        expect((await store.link(no))?.expiresAt).toBeGreaterThanOrEqual(now + 16 * DAY);
      });

      it('is known to have ended for a year, without its clicks; then it is forgotten', async () => {
        const no = await desk.delivered({ spec: tracked({ keepMs: 20 * DAY }) });
        await store.click([click(no)]);
        h.advance(21 * DAY);
        await leave();
        expect((await store.link(no))?.expiresAt).toBeLessThan(h.now());
        expect(await store.clicked([no])).toEqual([]);
        expect(await store.clicks(1, { message: { no } })).toMatchObject({ total: 0 });
        h.advance(366 * DAY);
        await leave();
        expect(await store.link(no)).toBeNull();
      });
    });

    describe('clicks', () => {
      it('are counted by link, by message, by bulk and by campaign: all, once a message, and the flagged beside', async () => {
        const { nos } = await desk.accept({
          to: numbers(3),
          bulkId: 'summer',
          spec: { ...tracked(), campaign: 'sale' },
        });
        const { nos: more } = await desk.accept({ bulkId: 'summer', spec: { ...tracked(), campaign: 'sale' } });
        const [a, b, c] = nos as [number, number, number];
        const d = more[0] as number;
        await store.click([click(a), click(a), click(a, { link: 1 }), click(b, { flag: 'BOT', body: null })]);
        await store.click([click(a), click(b), click(d, { flag: 'HEAD', body: null })]);

        expect(await store.clicks(1, { message: { no: a } })).toEqual({
          total: 4,
          unique: 1,
          flagged: 0,
          links: [
            { url: SHOP, total: 3, unique: 1, flagged: 0 },
            { url: TERMS, total: 1, unique: 1, flagged: 0 },
          ],
          cut: false,
        });
        expect(await store.clicks(1, { message: { no: c } })).toMatchObject({ total: 0, unique: 0, flagged: 0 });
        const all = {
          total: 5,
          unique: 2,
          flagged: 2,
          links: [
            { url: SHOP, total: 4, unique: 2, flagged: 2 },
            { url: TERMS, total: 1, unique: 1, flagged: 0 },
          ],
          cut: false,
        };
        expect(await store.clicks(1, { bulk: { id: 'summer' } })).toEqual(all);
        expect(await store.clicks(1, { campaign: 'sale' })).toEqual(all);
        expect(await store.clicks(1, { campaign: 'winter' })).toBeNull();
      });

      it('of a bulk without a name of its own are found by its number, and by nobody else', async () => {
        const { nos, bulk } = await desk.accept({ spec: { ...tracked(), campaign: 'c' } });
        await store.click([click(nos[0] as number)]);
        expect(await store.clicks(1, { bulk: { no: bulk } })).toMatchObject({ total: 1 });
        expect(await store.clicks(2, { bulk: { no: bulk } })).toBeNull();
        expect(await store.clicks(2, { message: { no: nos[0] as number } })).toBeNull();
        expect(await store.clicks(2, { campaign: 'c' })).toBeNull();
      });

      it('go to the URL of their message, one a POST, as they were formed', async () => {
        const no = await desk.one({ spec: tracked() });
        await store.click([click(no), click(no, { flag: 'PREVIEW', body: null }), click(no, { body: '{"n":2}' })]);
        const { webhooks } = await desk.webhooks();
        expect(webhooks.map(({ kind, body, endpoint, events }) => [kind, body, endpoint.url, events])).toEqual([
          ['click', `{"messageId":${no}}`, CLICKS, []],
          ['click', '{"n":2}', CLICKS, []],
        ]);
        for (const webhook of webhooks) expect(await desk.answer(webhook, true, webhook.body)).toBe(true);
        expect((await desk.webhooks()).webhooks).toEqual([]);
      });

      it('go to the default endpoint for clicks where their message names none; without one they are only counted', async () => {
        const no = await desk.one({ spec: tracked({ url: null }) });
        await store.click([click(no)]);
        expect((await desk.webhooks()).webhooks).toEqual([]);
        await store.endpointPut({ account: 1, kind: 'click', url: 'https://own.example/c', isDefault: true });
        await store.click([click(no)]);
        expect((await desk.webhooks()).webhooks).toMatchObject([
          { kind: 'click', endpoint: { url: 'https://own.example/c' } },
        ]);
        expect(await store.clicks(1, { message: { no } })).toMatchObject({ total: 2 });
      });

      it('follow the cycle of retries with the same bytes', async () => {
        const no = await desk.one({ spec: tracked() });
        await store.click([click(no)]);
        const [first] = (await desk.webhooks()).webhooks;
        await desk.answer(first as NonNullable<typeof first>, false, 'as sent');
        expect((await desk.webhooks()).webhooks).toEqual([]);
        h.advance(MINUTE + SECOND);
        expect((await desk.webhooks()).webhooks).toMatchObject([{ no: first?.no, retry: 1, body: 'as sent' }]);
      });

      it('are in the story of their message, with their URL and what opened it', async () => {
        const no = await desk.one({ spec: tracked() });
        const other = await desk.one({ spec: tracked() });
        await store.click([click(no, { link: 1 }), click(other), click(no, { flag: 'BOT', device: 'curl' })]);
        const { clicks, events } = await desk.story(no);
        expect(clicks).toEqual([
          { at: h.now(), url: TERMS, flag: null, device: 'Phone, iOS 18' },
          { at: h.now(), url: SHOP, flag: 'BOT', device: 'curl' },
        ]);
        // No change of its status.
        expect(events).toEqual([]);
        expect((await desk.story(other)).clicks).toHaveLength(1);
      });

      it('are nobody to those whose message asked for none, or has no links', async () => {
        const quiet = await desk.one({ spec: tracked({ clicks: false }) });
        const plain = await desk.one();
        await store.click([click(quiet), click(plain), click(999_999)]);
        expect(await store.clicks(1, { message: { no: quiet } })).toMatchObject({ total: 0, flagged: 0 });
        expect(await store.clicks(1, { message: { no: plain } })).toBeNull();
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect((await desk.story(quiet)).clicks).toEqual([]);
      });

      it('beyond a limit of one message are counted, and neither kept nor reported', async () => {
        const no = await desk.one({ spec: tracked() });
        const other = await desk.one({ spec: tracked({ url: `${CLICKS}/other` }) });
        for (let left = CLICKS_KEPT + 5; left > 0; left -= CLICKS_STEP) {
          const some = Array.from({ length: Math.min(left, CLICKS_STEP) }, () =>
            click(no, { flag: 'BOT', body: null }),
          );
          await store.click(some);
        }
        await store.click([click(no), click(other)]);
        expect(await store.clicks(1, { message: { no } })).toMatchObject({ total: 1, flagged: CLICKS_KEPT + 5 });
        expect((await desk.story(no)).clicks).toHaveLength(CLICKS_KEPT);
        expect((await desk.webhooks()).webhooks).toMatchObject([{ endpoint: { url: `${CLICKS}/other` } }]);
      });

      it('do not stand in the way of their message: its reports go on, and it leaves when its time has come', async () => {
        const no = await desk.one({
          endpoint: 'https://customer.example/reports',
          intermediate: true,
          spec: tracked(),
        });
        await store.click([click(no)]);
        await desk.settle(await desk.claimOne(), accepted('x'));
        await desk.report('x', 'retrieved');
        const { webhooks } = await desk.webhooks();
        expect(webhooks.map(({ kind }) => kind).sort()).toEqual(['click', 'delivery']);
        for (const webhook of webhooks) await desk.answer(webhook, true, webhook.body);
        // On its way, taken, delivered: one after the other.
        for (let n = 0; n < 2; n++) {
          for (const webhook of (await desk.webhooks()).webhooks) await desk.answer(webhook, true);
        }
        h.advance(8 * DAY);
        await leave();
        expect(await store.story(1, { no })).toBeNull();
      });
    });
  });
}
