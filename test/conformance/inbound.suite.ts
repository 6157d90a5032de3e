/**
 * Messages from handsets, the numbers that they come to, the inbox and opt-outs, for every engine.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { webhookDelay } from '../../src/domain/retry.ts';
import type { Claim, InboundIn, InboundRow, OwnNumber, Store, Webhook } from '../../src/store/contract.ts';
import {
  accepted,
  DAY,
  type Desk,
  dropNumber,
  type Harness,
  HOUR,
  MINUTE,
  numbers,
  openDesk,
  setNumber,
  UNKNOWN,
} from './desk.ts';

const OURS = '441134960000';
const HANDSET = '441134960001';
const URL = 'https://shop.example/inbound';

/** `open` gives an empty store whose clock can be moved. */
export function inboundSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: messages from handsets`, () => {
    let h: Harness;
    let desk: Desk;
    let store: Store;
    let ids = 0;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      store = h.store;
      ids = 0;
      for (const account of [1, 2]) await store.putKey({ hash: `h${account}`, account, label: 'k' }, false);
    });
    afterEach(() => h.close());

    async function message(more: Partial<InboundIn> = {}): Promise<InboundIn> {
      ids += 1;
      return {
        no: await store.reserve(1),
        carrier: 'mmsc',
        id: `mo-${ids}`,
        channel: 'MMS',
        from: HANDSET,
        to: [OURS],
        cc: [],
        subject: 'Hello',
        priority: 'High',
        userAgent: 'model-5g',
        parts: [
          { contentId: 'a', contentType: 'image/png', size: 4, hash: 'aa11', text: null },
          { contentId: 'b', contentType: 'text/plain', size: 2, hash: null, text: 'hi' },
        ],
        answers: null,
        asks: null,
        ...more,
      };
    }
    const number = (more: Partial<OwnNumber> = {}): Promise<void> =>
      setNumber(store, {
        number: OURS,
        account: 1,
        url: null,
        entity: null,
        application: null,
        callbackData: null,
        ...more,
      });
    const bring = async (more: Partial<InboundIn> = {}) => store.inbound(await message(more));
    const inbox = (filter: { account?: number; limit?: number; entity?: string; application?: string } = {}) =>
      store.takeInbox({ account: 1, limit: 100, ...filter });
    async function next(): Promise<Webhook> {
      const { webhooks } = await desk.webhooks(1);
      if (!webhooks[0]) throw new Error('no webhook is due');
      return webhooks[0];
    }
    const only = (rows: InboundRow[]): InboundRow => {
      expect(rows).toHaveLength(1);
      return rows[0] as InboundRow;
    };

    describe('who gets them', () => {
      it('go to the account of the number, with all that they hold, once', async () => {
        await number({ account: 2, entity: 'e', application: 'app', callbackData: 'shop 7' });
        const mo = await message({ to: ['449', OURS], cc: ['447'] });
        expect(await store.inbound(mo)).toEqual({
          kind: 'stored',
          no: mo.no,
          account: 2,
          owned: true,
          recorded: false,
        });
        expect(await inbox()).toEqual([]);
        expect(only(await inbox({ account: 2 }))).toEqual({
          no: mo.no,
          account: 2,
          carrier: 'mmsc',
          channel: 'MMS',
          from: HANDSET,
          to: OURS,
          group: [{ to: '449' }, { to: OURS }, { cc: '447' }],
          subject: 'Hello',
          priority: 'High',
          userAgent: 'model-5g',
          parts: mo.parts,
          receivedAt: h.now(),
          paired: null,
          callbackData: 'shop 7',
          entity: 'e',
          application: 'app',
        });
        expect(await inbox({ account: 2 })).toEqual([]);
      });

      it('go to the first account where nobody owns the number, and say so', async () => {
        expect(await bring()).toMatchObject({ kind: 'stored', account: 1, owned: false });
        expect(await bring({ to: [] })).toMatchObject({ kind: 'stored', account: 1, owned: false });
        expect((await inbox()).map(({ to }) => to)).toEqual([OURS, '']);
      });

      it('are the same when a carrier repeats them, also after a crash, for 48 h', async () => {
        const mo = await message();
        await store.inbound(mo);
        const again = { ...mo, no: await store.reserve(1) };
        expect(await store.inbound(again)).toEqual({ kind: 'duplicate', no: mo.no });
        // Another carrier's ids are its own.
        expect(await store.inbound({ ...again, carrier: 'other' })).toMatchObject({ kind: 'stored' });
        expect(await inbox()).toHaveLength(2);
        await h.crash();
        store = h.store;
        h.advance(48 * HOUR);
        await desk.sweep();
        expect(await store.inbound({ ...mo, no: await store.reserve(1) })).toMatchObject({ kind: 'duplicate' });
        expect(await inbox()).toEqual([]);
      });

      it('two that are told at the same moment are one', async () => {
        const mo = await message();
        const other = { ...mo, no: await store.reserve(1) };
        const kinds = (await Promise.all([store.inbound(mo), store.inbound(other)])).map(({ kind }) => kind);
        expect(kinds.sort()).toEqual(['duplicate', 'stored']);
        expect(await inbox()).toHaveLength(1);
      });
    });

    describe('the webhook', () => {
      it("goes to the number's URL, else to the account's default endpoint, else nowhere; never mixed with reports", async () => {
        await store.endpointPut({
          account: 1,
          kind: 'inbound',
          url: `${URL}/default`,
          isDefault: true,
          secret: { value: 's', oldForMs: 0 },
        });
        await number();
        await number({ number: '4471', url: URL });
        await number({ number: '4472', url: '' });
        const [a, b, c] = [await message(), await message({ to: ['4471'] }), await message({ to: ['4472'] })];
        for (const mo of [a, b, c]) await store.inbound(mo as InboundIn);
        await desk.delivered({ endpoint: URL });
        const { webhooks } = await desk.webhooks();
        const told = webhooks.map(({ kind, endpoint, inbound, events }) => ({
          kind,
          url: endpoint.url,
          secrets: endpoint.secrets,
          inbound: inbound.map(({ no }) => no),
          events: events.length,
        }));
        expect(told.sort((x, y) => (x.kind + x.url < y.kind + y.url ? -1 : 1))).toEqual([
          { kind: 'delivery', url: URL, secrets: [], inbound: [], events: 1 },
          { kind: 'inbound', url: URL, secrets: [], inbound: [b?.no], events: 0 },
          { kind: 'inbound', url: `${URL}/default`, secrets: ['s'], inbound: [a?.no], events: 0 },
        ]);
        expect((await inbox()).map(({ no }) => no)).toEqual([c?.no]);
        for (const webhook of webhooks) expect(await desk.answer(webhook, true)).toBe(true);
        expect(await inbox()).toEqual([]);
        const { deliveries } = await store.webhookDeliveries({ account: 1, limit: 10, url: URL });
        expect(deliveries.map(({ kind, messages }) => [kind, messages.length]).sort()).toEqual([
          ['delivery', 1],
          ['inbound', 1],
        ]);
      });

      it('tells how many wait behind it, and gathers twenty at a time', async () => {
        await number({ url: URL });
        for (let n = 0; n < 50; n++) await bring();
        const first = await next();
        expect([first.inbound.length, first.pending]).toEqual([20, 30]);
        const second = await next();
        expect([second.inbound.length, second.pending]).toEqual([20, 10]);
        await desk.answer(first, true);
        await desk.answer(second, true);
        const third = await next();
        expect([third.inbound.length, third.pending]).toEqual([10, 0]);
      });

      it('that was exhausted leaves its messages in the inbox for 7 days; made again it takes them off', async () => {
        await number({ url: URL });
        const mo = await message();
        await store.inbound(mo);
        for (let retry = 0; ; retry++) {
          await desk.answer(await next(), false, 'bytes');
          const delay = webhookDelay(retry);
          if (delay === null) break;
          h.advance(delay);
        }
        const [given] = (await store.webhookDeliveries({ account: 1, limit: 1 })).deliveries;
        expect(given).toMatchObject({ state: 'EXHAUSTED', kind: 'inbound', messages: [{ no: mo.no, key: null }] });
        await store.webhookReplay(1, given?.no as number);
        expect(await inbox()).toEqual([]);
        expect(await next()).toMatchObject({ body: 'bytes', inbound: [{ no: mo.no }] });
      });
    });

    describe('the inbox', () => {
      it('gives the oldest first, bounded, filtered, and to one taker only', async () => {
        await number({ number: '4471', entity: 'e1', application: 'a1' });
        await number({ number: '4472', entity: 'e2', application: 'a1' });
        const nos: number[] = [];
        for (let n = 0; n < 6; n++) {
          const mo = await message({ to: [n % 2 === 0 ? '4471' : '4472'] });
          nos.push(mo.no);
          await store.inbound(mo);
        }
        const of = async (filter: Parameters<typeof inbox>[0]) => (await inbox(filter)).map(({ no }) => no);
        expect(await of({ entity: 'nobody' })).toEqual([]);
        expect(await of({ entity: 'e2', limit: 1 })).toEqual([nos[1]]);
        expect(await of({ application: 'a1', limit: 2 })).toEqual([nos[0], nos[2]]);
        const both = (await Promise.all([of({}), of({})])).flat();
        expect(both.sort((a, b) => a - b)).toEqual([nos[3], nos[4], nos[5]]);
      });

      it('can be pulled again once it is re-armed', async () => {
        const mo = await message();
        await store.inbound(mo);
        await bring();
        await inbox();
        expect(await store.rearm({ account: 1, kind: 'inbox', message: { no: mo.no } })).toEqual({
          count: 1,
          more: false,
        });
        expect((await inbox()).map(({ no }) => no)).toEqual([mo.no]);
        h.advance(MINUTE);
        expect(await store.rearm({ account: 1, kind: 'inbox', from: h.now() })).toEqual({ count: 0, more: false });
        expect(await store.rearm({ account: 1, kind: 'inbox' })).toEqual({ count: 2, more: false });
        expect(await inbox()).toHaveLength(2);
      });

      it('keeps them for 7 days, and nothing after retention', async () => {
        const mo = await message();
        await store.inbound(mo);
        expect(await store.inboundPart(mo.no, 0)).toEqual({ hash: 'aa11', contentType: 'image/png' });
        // A text stands in the message itself.
        expect(await store.inboundPart(mo.no, 1)).toBeNull();
        h.advance(7 * DAY - 1);
        await desk.sweep();
        expect(await store.inboundPart(mo.no, 0)).not.toBeNull();
        h.advance(1);
        expect(await inbox()).toEqual([]);
        h.advance(2 * HOUR);
        await desk.sweep();
        expect(await store.inboundPart(mo.no, 0)).toBeNull();
        expect(await store.inbound({ ...mo, no: await store.reserve(1) })).toMatchObject({ kind: 'stored' });
      });
    });

    describe('what they answer', () => {
      const sent = async (id: string, more: Parameters<Desk['one']>[0] = {}) => {
        const no = await desk.one({ to: [HANDSET], spec: { sender: `+${OURS}` }, ...more });
        await desk.settle(await desk.claimOne(), accepted(id));
        return no;
      };

      it('is the message that the carrier names', async () => {
        const named = await sent('<m1@mmsc>', { keys: [[0, 'order-1']] });
        await sent('m2');
        await bring({ answers: 'M1' });
        expect(only(await inbox()).paired).toEqual({ no: named, key: 'order-1' });
        // One of another account is nobody's business.
        await number({ number: '4472', account: 2 });
        await bring({ answers: 'm1', to: ['4472'] });
        expect(only(await inbox({ account: 2 })).paired).toBeNull();
      });

      it('stands in the story of that message, oldest first, and in no other', async () => {
        const named = await sent('m1');
        const other = await sent('m2');
        const text = (words: string) => [
          { contentId: 't', contentType: 'text/plain', size: words.length, hash: null, text: words },
        ];
        await bring({ answers: 'm1', parts: text('x'.repeat(300)) });
        await bring({ answers: 'm1', parts: [], subject: 'Re: spring', channel: 'SMS' });
        const story = await store.story(1, { no: named });
        expect(story?.answers).toEqual([
          { no: expect.any(Number), at: h.now(), channel: 'MMS', from: HANDSET, text: 'x'.repeat(200) },
          { no: expect.any(Number), at: h.now(), channel: 'SMS', from: HANDSET, text: 'Re: spring' },
        ]);
        expect((await store.story(1, { no: other }))?.answers).toEqual([]);
      });

      it('is the member of a group that it comes from', async () => {
        const to = numbers(3);
        const { nos } = await desk.accept({ to, groups: [3] });
        await desk.settle(await desk.claimOne(), accepted('g1'));
        await bring({ answers: 'g1', from: to[1] as string });
        expect(only(await inbox()).paired).toEqual({ no: nos[1], key: null });
      });

      it('is else the last message that this handset got from this number, with its callback data', async () => {
        await number({ callbackData: 'of the number' });
        await sent('m1');
        const body = JSON.stringify({
          sender: OURS,
          content: { messageSegments: [] },
          webhooks: { callbackData: 'of the message' },
        });
        const last = await sent('m2', { spec: { sender: OURS, body, entity: 'e', application: 'app' } });
        // Taken by no carrier yet: it is not what the handset answers.
        await desk.one({ to: [HANDSET], spec: { sender: OURS } });
        await bring();
        await bring({ from: '441134960009' });
        const [paired, stranger] = await inbox();
        expect(paired).toMatchObject({
          paired: { no: last, key: null },
          callbackData: 'of the message',
          entity: 'e',
          application: 'app',
        });
        expect(stranger).toMatchObject({ paired: null, callbackData: 'of the number' });
      });

      it('is nothing once that message has left', async () => {
        await number();
        await sent('m1');
        await desk.report('m1', 'retrieved');
        await desk.pull();
        h.advance(8 * DAY);
        await desk.sweep();
        h.advance(2 * HOUR);
        await desk.sweep();
        await bring();
        expect(only(await inbox()).paired).toBeNull();
      });
    });

    describe('opt-outs', () => {
      const send = (sender = OURS, more: Parameters<Desk['accept']>[0] = {}) =>
        desk.accept({ to: [HANDSET], spec: { sender }, ...more });
      const optedOut = async (sender = OURS, more: Parameters<Desk['accept']>[0] = {}) => {
        const { answer } = await send(sender, more);
        return answer.kind === 'accepted' ? (answer.optedOut ?? []).map(([, status]) => status) : answer.kind;
      };

      it('STOP is recorded per account, sender and destination, and START lifts it', async () => {
        await number();
        expect(await bring({ asks: 'stop' })).toMatchObject({ recorded: true });
        expect(await bring({ asks: 'stop' })).toMatchObject({ recorded: false });
        expect(await store.optOutList({ account: 1, limit: 10 })).toEqual([
          { sender: OURS, destination: HANDSET, at: h.now(), source: 'handset' },
        ]);
        expect(await optedOut()).toEqual([10]);
        expect(await optedOut(`+${OURS}`)).toEqual([10]);
        expect(await optedOut('441134960099')).toEqual([]);
        expect(await optedOut(OURS, { account: 2 })).toEqual([]);
        expect(await optedOut(OURS, { to: ['441134960002'] })).toEqual([]);
        expect(await bring({ asks: 'start' })).toMatchObject({ recorded: true });
        expect(await optedOut()).toEqual([]);
      });

      it('a message to one who wants none is rejected with 603, tells so, and never leaves', async () => {
        await store.optOutPut(1, [{ sender: 'Shop', destination: '441134960003' }]);
        const { nos, answer } = await desk.accept({ to: numbers(5), endpoint: URL, spec: { sender: 'SHOP' } });
        expect(answer).toMatchObject({ kind: 'accepted', optedOut: [[nos[2], 10]] });
        expect(await desk.status(nos[2] as number)).toEqual([10, 603]);
        const { claims } = await desk.claim();
        expect(claims.map(({ leader }) => leader).sort()).toEqual([nos[0], nos[1], nos[3], nos[4]]);
        expect((await next()).events).toMatchObject([{ no: nos[2], status: 10, error: 603 }]);
        const story = await desk.story(nos[2] as number);
        expect(story.events).toMatchObject([{ words: 'the recipient wants nothing from this sender' }]);
      });

      it('who opts out while messages wait gets none of them, on retries neither', async () => {
        await number();
        const { nos } = await desk.accept({ to: numbers(3), spec: { sender: OURS } });
        await desk.settle(await desk.claimOne(), { kind: 'deferred', error: { id: 15000 } });
        await store.optOutPut(1, [
          { sender: OURS, destination: numbers(3)[0] as string },
          { sender: '', destination: numbers(3)[2] as string },
        ]);
        h.advance(HOUR);
        const { claims } = await desk.claim();
        expect(claims.map(({ leader }) => leader)).toEqual([nos[1]]);
        expect(await desk.status(nos[0] as number)).toEqual([10, 603]);
        expect(await desk.status(nos[2] as number)).toEqual([14, 603]);
        await desk.settle(claims[0] as Claim, accepted('m'));
        expect(await store.stats()).toMatchObject({ inFlight: 0, retries: 0 });
      });

      it('of a group that waits the others still get it; what may have arrived already is not called rejected', async () => {
        const { nos } = await desk.accept({ to: numbers(3), groups: [3] });
        const lone = await desk.one({ to: ['441134960009'] });
        const first = await desk.claim();
        for (const claim of first.claims) {
          const unknown = claim.leader === lone;
          await desk.settle(claim, unknown ? UNKNOWN : { kind: 'deferred', error: { id: 15000 } });
        }
        await store.optOutPut(1, [
          { sender: 'Shop', destination: numbers(3)[1] as string },
          { sender: 'Shop', destination: '441134960009' },
        ]);
        h.advance(HOUR);
        const { claims } = await desk.claim();
        const members = claims.map((claim) => claim.members.map(({ no }) => no));
        expect(members.sort((a, b) => (a[0] as number) - (b[0] as number))).toEqual([[nos[0], nos[2]], [lone]]);
        expect(await desk.status(nos[1] as number)).toEqual([10, 603]);
      });

      it('of a group only that member is left out', async () => {
        await store.optOutPut(1, [{ sender: 'shop', destination: '441134960002' }]);
        const { nos } = await desk.accept({ to: numbers(3), groups: [3] });
        const claim = await desk.claimOne();
        expect(claim.members.map(({ no }) => no)).toEqual([nos[0], nos[2]]);
        await desk.settle(claim, accepted('g'));
        expect(await desk.status(nos[1] as number)).toEqual([10, 603]);
      });

      it('an entry for any sender is status 14; what is refused or repeated anyway stays what it is', async () => {
        await store.optOutPut(1, [{ sender: '', destination: HANDSET }]);
        expect(await optedOut('Anyone')).toEqual([14]);
        const { answer, nos } = await send('Anyone', { refused: [[0, 52]] });
        expect(answer).not.toHaveProperty('optedOut');
        expect(await desk.status(nos[0] as number)).toEqual([52, 15201]);
        await desk.accept({ keys: [[0, 'k']], to: ['441134960007'] });
        const repeated = await send('Anyone', { keys: [[0, 'k']] });
        expect(repeated.answer).toMatchObject({ duplicates: [repeated.nos[0]] });
        expect(repeated.answer).not.toHaveProperty('optedOut');
      });

      it('a repeated Idempotency-Key answers the same', async () => {
        await store.optOutPut(1, [{ sender: 'shop', destination: HANDSET }]);
        const idem = { key: 'i', hash: 'h' };
        const first = await desk.accept({ to: [HANDSET], idem });
        const again = await desk.accept({ to: [HANDSET], idem });
        expect(again.answer).toEqual({ ...first.answer, kind: 'replayed' });
        expect(again.answer).toMatchObject({ optedOut: [[first.nos[0], 10]] });
      });

      it('lists are edited and shown in order, filtered and paged, per account', async () => {
        const entries = numbers(5).map((destination) => ({ sender: 'Shop', destination }));
        expect(await store.optOutPut(1, [...entries, ...entries, { sender: '+4477', destination: '4400' }])).toBe(6);
        expect(await store.optOutPut(2, entries.slice(0, 1))).toBe(1);
        const page = (filter: object) => store.optOutList({ account: 1, limit: 4, ...filter });
        const first = await page({});
        expect(first.map(({ sender, destination, source }) => [sender, destination, source])).toEqual([
          ['4477', '4400', 'list'],
          ...numbers(3).map((destination) => ['shop', destination, 'list']),
        ]);
        const last = first.at(-1);
        const rest = await page({ after: { destination: last?.destination, sender: last?.sender } });
        expect(rest.map(({ destination }) => destination)).toEqual(numbers(2, 4));
        expect(await page({ sender: '4477' })).toHaveLength(1);
        expect(await page({ destination: numbers(1)[0] })).toHaveLength(1);
        expect(await store.optOutDelete(1, [...entries, { sender: 'x', destination: 'y' }])).toBe(5);
        expect(await page({})).toHaveLength(1);
        expect(await store.optOutList({ account: 2, limit: 9 })).toHaveLength(1);
      });
    });

    describe('numbers', () => {
      it('are kept, changed, listed by account and deleted', async () => {
        await number({ number: '4472', account: 2, url: '' });
        await number({ url: URL, callbackData: 'c' });
        await number({ url: null, callbackData: 'd' });
        const plain = { url: null, entity: null, application: null, callbackData: null };
        expect(await store.numberList()).toEqual([
          { ...plain, number: OURS, account: 1, callbackData: 'd' },
          { ...plain, number: '4472', account: 2, url: '' },
        ]);
        expect((await store.numberList(2)).map((one) => one.number)).toEqual(['4472']);
        expect(await dropNumber(store, '4472', 1)).toBe(false);
        expect(await dropNumber(store, '4472', 2)).toBe(true);
        expect(await dropNumber(store, '4472', 2)).toBe(false);
        await h.crash();
        expect(await h.store.numberList()).toHaveLength(1);
      });
    });
  });
}
