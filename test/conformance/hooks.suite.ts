/**
 * The outbox as its account sees it, for every engine: deliveries with their tries, making webhooks again, endpoints of the
 * account, what was pulled and is re-armed, and how long all of it is kept.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readForm } from '../../src/domain/report.ts';
import { webhookDelay } from '../../src/domain/retry.ts';
import { ENDPOINTS_MAX, type Store, type Webhook } from '../../src/store/contract.ts';
import { DAY, type Desk, type Harness, HOUR, MINUTE, openDesk } from './desk.ts';

const URL = 'https://shop.example/reports';

/** `open` gives an empty store whose clock can be moved. */
export function hooksSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: webhooks as their account sees them`, () => {
    let h: Harness;
    let desk: Desk;
    let store: Store;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      store = h.store;
    });
    afterEach(() => h.close());

    const list = (filter: Partial<Parameters<Store['webhookDeliveries']>[0]> = {}) =>
      store.webhookDeliveries({ account: 1, limit: 100, ...filter });
    async function next(): Promise<Webhook> {
      const { webhooks } = await desk.webhooks(1);
      if (!webhooks[0]) throw new Error('no webhook is due');
      return webhooks[0];
    }
    /** Fails all tries of the one webhook that is there. */
    async function exhaust(): Promise<void> {
      for (let retry = 0; ; retry++) {
        await desk.answer(await next(), false, 'the bytes');
        const delay = webhookDelay(retry);
        if (delay === null) return;
        h.advance(delay);
      }
    }

    describe('deliveries', () => {
      it('shows each webhook with its tries, newest first, and only to its account', async () => {
        const first = await desk.delivered({ endpoint: URL });
        await desk.answer(await next(), false, 'b');
        h.advance(MINUTE);
        const second = await desk.delivered({ endpoint: `${URL}/2`, account: 1 });
        await desk.delivered({ endpoint: URL, account: 2 });
        const { deliveries, next: more } = await list();
        expect(more).toBeNull();
        // What waits has not been formed into a POST yet.
        expect(deliveries).toMatchObject([
          {
            kind: 'delivery',
            url: URL,
            contentType: 'application/json',
            state: 'OPEN',
            messages: [{ no: first, key: null }],
            tries: [{ status: 503, tookMs: 7, excerpt: 'busy' }],
            endedAt: null,
          },
        ]);
        expect(deliveries[0]?.nextTry).toBe((deliveries[0]?.tries[0]?.at ?? 0) + 7 + MINUTE);
        for (const webhook of (await desk.webhooks()).webhooks) await desk.answer(webhook, true);
        const { deliveries: all } = await list();
        expect(all.map(({ state, messages, tries }) => [state, messages[0]?.no, tries.length])).toEqual([
          ['DELIVERED', second, 1],
          ['DELIVERED', first, 2],
        ]);
        expect(all[0]?.endedAt).toBe(h.now());
        expect((await store.webhookDeliveries({ account: 2, limit: 10 })).deliveries).toHaveLength(1);
      });

      it('filters by message, by its own id too, by URL and by state, and pages to the end', async () => {
        const nos: number[] = [];
        for (let n = 0; n < 5; n++) {
          nos.push(await desk.delivered({ endpoint: `${URL}/${n % 2}`, keys: [[0, `order-${n}`]] }));
          await desk.answer(await next(), n !== 3, n === 3 ? 'b' : null);
          h.advance(1000);
        }
        const named = async (filter: Parameters<typeof list>[0]) =>
          (await list(filter)).deliveries.flatMap(({ messages }) => messages.map(({ no }) => no));
        expect(await named({ message: { no: nos[2] as number } })).toEqual([nos[2]]);
        expect(await named({ message: { key: 'order-4' } })).toEqual([nos[4]]);
        expect(await named({ message: { key: 'order-9' } })).toEqual([]);
        expect(await named({ url: `${URL}/1` })).toEqual([nos[3], nos[1]]);
        expect(await named({ state: 'OPEN' })).toEqual([nos[3]]);
        expect(await named({ state: 'DELIVERED', url: `${URL}/1` })).toEqual([nos[1]]);
        const paged: number[] = [];
        for (let before: number | undefined; ; ) {
          const page = await list({ limit: 2, ...(before === undefined ? {} : { before }) });
          paged.push(...page.deliveries.map(({ messages }) => messages[0]?.no as number));
          if (page.next === null) break;
          before = page.next;
        }
        expect(paged).toEqual([...nos].reverse());
      });
    });

    it('keeps reports of both versions of the API apart, at the same URL and at the default endpoint', async () => {
      const put = { account: 1, kind: 'delivery' as const, url: `${URL}/standard`, contentType: 'application/xml' };
      await store.endpointPut({ ...put, isDefault: true });
      const nos = [
        await desk.delivered({ endpoint: URL, spec: { older: true } }),
        await desk.delivered({ endpoint: URL }),
        await desk.delivered({ spec: { older: true, notify: true } }),
        await desk.delivered({ spec: { notify: true } }),
      ];
      const { webhooks } = await desk.webhooks();
      const told = webhooks.map(({ endpoint, events }) => [
        events.map(({ no }) => nos.indexOf(no)),
        endpoint.url,
        readForm(endpoint.contentType),
      ]);
      expect(told.sort()).toEqual([
        [[0], URL, { mediaType: 'application/json', older: true }],
        [[1], URL, { mediaType: 'application/json', older: false }],
        [[2], put.url, { mediaType: 'application/xml', older: true }],
        [[3], put.url, { mediaType: 'application/xml', older: false }],
      ]);
    });

    describe('making one again', () => {
      it('repeats an exhausted one with the same number and bytes, and takes its report off the pull list', async () => {
        const no = await desk.delivered({ endpoint: URL });
        await exhaust();
        const [given] = (await list()).deliveries;
        expect(given).toMatchObject({ state: 'EXHAUSTED', nextTry: null, endedAt: h.now() });
        expect(given?.tries).toHaveLength(21);
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect(await store.webhookReplay(1, given?.no as number)).toBe(true);
        expect(await desk.pull()).toEqual([]);
        const again = await next();
        expect(again).toMatchObject({ no: given?.no, body: 'the bytes', retry: 0, events: [{ no }] });
        // A cycle of its own begins, and the tries before it are not forgotten.
        await desk.answer(again, false);
        h.advance(MINUTE);
        await desk.answer(await next(), true);
        const [told] = (await list()).deliveries;
        expect(told?.state).toBe('DELIVERED');
        expect(told?.tries.map(({ status }) => status).slice(-3)).toEqual([503, 503, 200]);
        expect(told?.tries).toHaveLength(23);
        expect(await desk.pull()).toEqual([]);
      });

      it('repeats a delivered one; an open one is tried at once and keeps its place in the cycle', async () => {
        const no = await desk.delivered({ endpoint: URL });
        await desk.answer(await next(), true);
        const [done] = (await list()).deliveries;
        expect(await store.webhookReplay(1, done?.no as number)).toBe(true);
        const again = await next();
        expect([again.no, again.events[0]?.no]).toEqual([done?.no, no]);
        await desk.answer(again, false, 'b');
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect(await store.webhookReplay(1, done?.no as number)).toBe(true);
        expect(await next()).toMatchObject({ no: done?.no, retry: 1 });
      });

      it("leaves alone one in flight, another account's and one that is unknown", async () => {
        await desk.delivered({ endpoint: URL });
        const webhook = await next();
        expect(await store.webhookReplay(1, webhook.no)).toBe(true);
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect(await desk.answer(webhook, true)).toBe(true);
        expect(await store.webhookReplay(2, webhook.no)).toBe(false);
        expect(await store.webhookReplay(1, webhook.no + 999)).toBe(false);
        expect((await desk.webhooks()).webhooks).toEqual([]);
      });

      it('wakes who makes the POSTs', async () => {
        await desk.delivered({ endpoint: URL });
        await desk.answer(await next(), true);
        const hints: string[] = [];
        store.onHint(({ kind }) => hints.push(kind));
        await store.webhookReplay(1, (await list()).deliveries[0]?.no as number);
        expect(hints).toContain('webhooks');
      });

      it('repeats a range of time or all of an endpoint, in bounded steps, each once', async () => {
        const starts: number[] = [];
        for (let n = 0; n < 6; n++) {
          await desk.delivered({ endpoint: n < 4 ? URL : `${URL}/other` });
          starts.push(h.now());
          await desk.answer(await next(), true);
          h.advance(MINUTE);
        }
        const all = async (range: Omit<Parameters<Store['webhookReplayRange']>[0], 'account'>) => {
          let count = 0;
          for (let after: number | undefined; ; ) {
            const step = await store.webhookReplayRange({
              account: 1,
              ...range,
              ...(after === undefined ? {} : { after }),
            });
            count += step.count;
            if (step.next === null) break;
            after = step.next;
          }
          const { webhooks } = await desk.webhooks();
          for (const webhook of webhooks) await desk.answer(webhook, true);
          return [count, webhooks.length];
        };
        expect(await all({ from: starts[1] as number, to: starts[2] as number })).toEqual([2, 2]);
        expect(await all({ url: `${URL}/other` })).toEqual([2, 2]);
        expect(await all({ state: 'EXHAUSTED' })).toEqual([0, 0]);
        expect(await all({ from: h.now() })).toEqual([0, 0]);
        expect(await all({ state: 'DELIVERED' })).toEqual([6, 6]);
        expect(await store.webhookReplayRange({ account: 2 })).toEqual({ count: 0, next: null });
      });
    });

    describe('how long they are kept', () => {
      it('exhausted ones for 7 days from their end, and their bytes with them', async () => {
        await desk.delivered({ endpoint: URL });
        await exhaust();
        const { no } = (await list()).deliveries[0] as { no: number };
        h.advance(7 * DAY - HOUR);
        await desk.sweep();
        expect(await store.webhookReplay(1, no)).toBe(true);
        expect(await next()).toMatchObject({ no, body: 'the bytes' });
        h.advance(HOUR);
        await desk.answer(await next(), true);
        h.advance(8 * DAY);
        await desk.sweep();
        h.advance(2 * HOUR);
        await desk.sweep();
        expect((await list()).deliveries).toEqual([]);
        expect(await store.webhookReplay(1, no)).toBe(false);
      });
    });

    describe('endpoints of the account', () => {
      it('take what names no URL, in the form that is asked for, and nothing that wants no push', async () => {
        const put = await store.endpointPut({
          account: 1,
          kind: 'delivery',
          url: URL,
          contentType: 'application/xml',
          isDefault: true,
        });
        expect(put).toEqual({
          kind: 'delivery',
          url: URL,
          contentType: 'application/xml',
          isDefault: true,
          headers: {},
          secrets: [],
        });
        const no = await desk.delivered();
        expect(await next()).toMatchObject({
          endpoint: { url: URL, contentType: 'application/xml' },
          events: [{ no }],
        });
        const json = await desk.delivered({ spec: { contentType: 'application/json' } });
        expect(await next()).toMatchObject({ endpoint: { contentType: 'application/json' }, events: [{ no: json }] });
        const silent = await desk.delivered({ spec: { notify: false } });
        const other = await desk.delivered({ account: 2 });
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect((await desk.pull()).map((row) => row.no)).toEqual([silent]);
        expect((await desk.pull({ account: 2 })).map((row) => row.no)).toEqual([other]);
      });

      it('have one default a kind; the URL of a message comes first; a deleted one takes nothing more', async () => {
        const put = (url: string) => store.endpointPut({ account: 1, kind: 'delivery', url, isDefault: true });
        await put(URL);
        await put(`${URL}/new`);
        expect((await store.endpointList(1)).map(({ url, isDefault }) => [url, isDefault])).toEqual([
          [URL, false],
          [`${URL}/new`, true],
        ]);
        await desk.delivered();
        expect((await next()).endpoint.url).toBe(`${URL}/new`);
        await desk.delivered({ endpoint: `${URL}/own` });
        expect((await next()).endpoint.url).toBe(`${URL}/own`);
        expect(await store.endpointDelete(1, 'delivery', `${URL}/new`)).toBe(true);
        expect(await store.endpointDelete(1, 'delivery', `${URL}/new`)).toBe(false);
        await desk.delivered();
        expect((await desk.webhooks()).webhooks).toEqual([]);
        expect(await desk.pull()).toHaveLength(1);
      });

      it('sign with the new secret and the old one for as long as that is asked for, and carry headers', async () => {
        const secret = (value: string, oldForMs = HOUR) =>
          store.endpointPut({ account: 1, kind: 'delivery', url: URL, secret: { value, oldForMs } });
        await store.endpointPut({ account: 1, kind: 'delivery', url: URL, headers: { 'x-shop': '7' } });
        const spoken = async () => {
          await desk.delivered({ endpoint: URL });
          const webhook = await next();
          await desk.answer(webhook, true);
          return webhook.endpoint;
        };
        expect(await spoken()).toMatchObject({ secrets: [], headers: { 'x-shop': '7' } });
        await secret('one');
        expect((await spoken()).secrets).toEqual(['one']);
        await secret('two');
        expect((await spoken()).secrets).toEqual(['two', 'one']);
        // The same again is no rotation.
        await secret('two');
        expect((await spoken()).secrets).toEqual(['two', 'one']);
        h.advance(HOUR);
        expect((await spoken()).secrets).toEqual(['two']);
        await secret('three', 0);
        expect(await spoken()).toMatchObject({ secrets: ['three'], headers: { 'x-shop': '7' } });
        await store.endpointPut({ account: 1, kind: 'delivery', url: URL, secret: null });
        expect((await spoken()).secrets).toEqual([]);
        // Another account at the same URL is another customer.
        await secret('four');
        await desk.delivered({ endpoint: URL, account: 2 });
        expect((await next()).endpoint).toMatchObject({ secrets: [], headers: {} });
      });

      it('take other words for the same secrets, where those are still there', async () => {
        const of = { account: 1, kind: 'delivery', url: URL } as const;
        const headers = { 'x-shop': '7' };
        await store.endpointPut({ ...of, isDefault: true, headers, secret: { value: 'one', oldForMs: HOUR } });
        await store.endpointPut({ ...of, secret: { value: 'two', oldForMs: HOUR } });
        const before = (await store.endpointList(1))[0];
        const secrets = (before?.secrets ?? []).map(({ secret, until }) => ({ secret: `sealed ${secret}`, until }));
        const from = { secrets: before?.secrets ?? [], headers };
        const to = { secrets, headers: { 'x-shop': 'sealed 7' } };
        await store.endpointPut({ ...of, reworded: { from: { secrets: [], headers }, to } });
        expect(await store.endpointList(1)).toEqual([before]);
        await store.endpointPut({ ...of, reworded: { from, to } });
        // Neither a rotation nor another default.
        expect(await store.endpointList(1)).toEqual([{ ...before, ...to }]);
        const gone = { ...of, url: `${URL}/gone`, reworded: { from, to } };
        expect(await store.endpointPut(gone)).toBeNull();
        expect(await store.endpointPut({ ...gone, account: 2 })).toBeNull();
        expect(await store.endpointList(1)).toHaveLength(1);
      });

      it('are bounded in number', async () => {
        for (let n = 0; n < ENDPOINTS_MAX; n++) {
          await store.endpointPut({ account: 1, kind: 'delivery', url: `${URL}/${n}` });
        }
        const put = (account: number, url: string) => store.endpointPut({ account, kind: 'delivery', url });
        expect(await put(1, `${URL}/more`)).toBeNull();
        expect(await put(1, `${URL}/3`)).not.toBeNull();
        expect(await put(2, `${URL}/more`)).not.toBeNull();
        expect(await store.endpointList(1)).toHaveLength(ENDPOINTS_MAX);
      });

      it('survive a crash', async () => {
        const url = `${URL}/${'x'.repeat(4000)}`;
        await store.endpointPut({
          account: 1,
          kind: 'inbound',
          url,
          isDefault: true,
          secret: { value: 's', oldForMs: 0 },
        });
        await h.crash();
        expect(await h.store.endpointList(1)).toEqual([
          {
            kind: 'inbound',
            url,
            contentType: 'application/json',
            isDefault: true,
            headers: {},
            secrets: [{ secret: 's', until: null }],
          },
        ]);
      });
    });

    describe('what was pulled', () => {
      it('can be pulled again once it is re-armed, by time or by message, until it would have left the list', async () => {
        const first = await desk.delivered();
        const second = await desk.delivered({ keys: [[0, 'mine']] });
        const start = h.now();
        expect(await desk.pull()).toHaveLength(2);
        h.advance(MINUTE);
        const third = await desk.delivered();
        await desk.pull();
        const rearm = (what: object) => store.rearm({ account: 1, kind: 'reports', ...what });
        const pulled = async () => (await desk.pull()).map((row) => row.no);
        expect(await pulled()).toEqual([]);
        expect(await rearm({ from: start, to: start })).toEqual({ count: 2, more: false });
        expect(await pulled()).toEqual([second, first]);
        // Taken once more: also that can be undone.
        expect(await rearm({ message: { key: 'mine' } })).toEqual({ count: 1, more: false });
        expect(await pulled()).toEqual([second]);
        expect(await rearm({ message: { no: third } })).toEqual({ count: 1, more: false });
        expect(await pulled()).toEqual([third]);
        expect(await store.rearm({ account: 2, kind: 'reports' })).toEqual({ count: 0, more: false });
        expect(await store.rearm({ account: 1, kind: 'inbox' })).toEqual({ count: 0, more: false });
        h.advance(48 * HOUR);
        await desk.sweep();
        expect(await rearm({})).toEqual({ count: 0, more: false });
      });
    });
  });
}
