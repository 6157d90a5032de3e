/**
 * What the operator decides, for every engine: accounts with their settings, keys with their rules, what is held by name, the
 * audit log, sessions, counters that nodes share, and messages turned away for what their account may.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type ApiKey,
  DEFAULT_SETTINGS,
  type Deed,
  type Directory,
  type NewSession,
  type Take,
} from '../../src/domain/accounts.ts';
import { ENDPOINTS_MAX, type Store } from '../../src/store/contract.ts';
import { DAY, type Desk, type Harness, HOUR, MINUTE, openDesk } from './desk.ts';

const DEED: Deed = { by: 'test', action: 'change', account: null, detail: { why: 'tests' } };

const key = (said: Partial<ApiKey> = {}): ApiKey => ({
  id: 'k1',
  hash: 'ab'.repeat(32),
  account: 1,
  label: 'shop',
  createdAt: 5,
  scopes: ['mms:manage'],
  validFrom: 10,
  validUntil: 20,
  allow: ['10.0.0.0/8'],
  revokedAt: null,
  requestsPerMinute: 7,
  ...said,
});

/** `open` gives an empty store whose clock can be moved. */
export function accountsSuite(name: string, open: () => Promise<Harness>): void {
  describe(`${name}: what the operator decides`, () => {
    let h: Harness;
    let desk: Desk;
    let store: Store;
    beforeEach(async () => {
      h = await open();
      desk = await openDesk(h);
      store = h.store;
      for (const account of [1, 2]) await store.putKey({ hash: `h${account}`, account, label: 'k' }, false);
    });
    afterEach(() => h.close());

    const now = async (): Promise<Directory> => {
      const found = await store.directory(-1);
      if (!found) throw new Error('no directory');
      return found;
    };

    it('gives everything once, and nothing again until something changes', async () => {
      const first = await now();
      expect(first.accounts.map(({ no, name: words, state }) => [no, words, state])).toEqual([
        [1, 'account 1', 'ACTIVE'],
        [2, 'account 2', 'ACTIVE'],
      ]);
      expect(first.keys.map(({ hash, account, scopes, revokedAt }) => [hash, account, scopes, revokedAt])).toEqual([
        ['h1', 1, null, null],
        ['h2', 2, null, null],
      ]);
      expect(await store.directory(first.revision)).toBeNull();
      await store.putKey({ hash: 'h3', account: 3, label: 'k' }, false);
      const second = await store.directory(first.revision);
      expect(second?.accounts).toHaveLength(3);
      expect(second?.revision).toBeGreaterThan(first.revision);
      expect(await store.directory((await now()).revision)).toBeNull();
    });

    it('gives a number to one account, with its line in the audit log, and takes it from nobody else', async () => {
      const number = {
        ...{
          number: '4411',
          account: 2,
          url: 'https://example.com/mo',
          entity: null,
          application: 'app',
          callbackData: null,
        },
      };
      const lines = async () => (await store.auditLog(10)).map(({ action, detail }) => [action, detail]);
      expect(await store.administer([{ kind: 'number', number }], DEED)).toMatchObject({ kind: 'done', dropped: 0 });
      expect(await store.numberList()).toEqual([number]);
      const changed = { ...number, url: '' };
      await store.administer([{ kind: 'number', number: changed }], { ...DEED, action: 'again' });
      expect(await store.numberList()).toEqual([changed]);
      const of = (account: number) => store.administer([{ kind: 'number', number: { ...number, account } }], DEED);
      expect(await of(1)).toEqual({ kind: 'conflict', change: 0 });
      expect(await of(77)).toEqual({ kind: 'notFound', change: 0 });
      const drop = (account: number) =>
        store.administer([{ kind: 'numberDrop', number: '4411', account }], { ...DEED, action: 'gone' });
      expect(await drop(1)).toMatchObject({ kind: 'done', dropped: 0 });
      expect(await store.numberList()).toEqual([changed]);
      expect(await drop(2)).toMatchObject({ kind: 'done', dropped: 1 });
      expect(await store.numberList()).toEqual([]);
      // What was refused, and what was not there, left no line.
      expect(await lines()).toEqual([
        ['gone', DEED.detail],
        ['again', DEED.detail],
        ['change', DEED.detail],
      ]);
    });

    it('makes accounts under the next number, and changes them whole', async () => {
      const settings = { ...DEFAULT_SETTINGS, currency: 'CHF', registeredOnly: true };
      const made = await store.administer(
        [
          { kind: 'account', no: null, name: 'shop', settings },
          { kind: 'account', no: null, name: 'bank', settings },
        ],
        DEED,
      );
      expect(made).toEqual({ kind: 'done', accounts: [3, 4], dropped: 0, credits: [] });
      const suspended = { ...settings, state: 'SUSPENDED' as const };
      await store.administer([{ kind: 'account', no: 3, name: 'shop two', settings: suspended }], DEED);
      const { accounts } = await now();
      expect(accounts.slice(2)).toEqual([
        { ...suspended, no: 3, name: 'shop two' },
        { ...settings, no: 4, name: 'bank' },
      ]);
    });

    it('does all changes of a call or none', async () => {
      const settings = DEFAULT_SETTINGS;
      const before = await now();
      const shop = { kind: 'account', no: null, name: 'shop', settings } as const;
      for (const [bad, answer] of [
        [{ kind: 'account', no: 99, name: 'nobody', settings }, 'notFound'],
        [{ kind: 'account', no: null, name: 'account 2', settings }, 'conflict'],
        [{ kind: 'account', no: 1, name: 'account 2', settings }, 'conflict'],
        [{ kind: 'key', key: key({ account: 99 }) }, 'notFound'],
        [{ kind: 'key', key: key({ hash: 'h2' }) }, 'conflict'],
        [{ kind: 'put', what: 'domain', name: 'x.example', account: 99, body: {} }, 'notFound'],
      ] as const) {
        expect(await store.administer([shop, bad], DEED)).toEqual({ kind: answer, change: 1 });
      }
      const after = await now();
      expect({ ...after, revision: 0 }).toEqual({ ...before, revision: 0 });
      expect(await store.auditLog(10)).toEqual([]);
    });

    it('judges a call as a whole: what it makes may be named, what it frees may be given, and nothing is given twice', async () => {
      const settings = DEFAULT_SETTINGS;
      const domain = (account: number, name: string) =>
        ({ kind: 'put', what: 'domain', name, account, body: { domain: name } }) as const;
      const drop = { kind: 'drop', what: 'domain', name: 'a.example', account: 1 } as const;
      await store.administer([domain(1, 'a.example')], DEED);
      // Account 3 is made here, and a.example goes from 1 to it.
      const moved = await store.administer(
        [{ kind: 'account', no: null, name: 'shop', settings }, drop, domain(3, 'a.example'), domain(3, 'b.example')],
        DEED,
      );
      expect(moved).toMatchObject({ kind: 'done', accounts: [3] });
      expect((await now()).domains).toEqual([
        { account: 3, domain: 'a.example' },
        { account: 3, domain: 'b.example' },
      ]);
      const before = await now();
      const shop = (name: string) => ({ kind: 'account', no: null, name, settings }) as const;
      for (const [changes, change] of [
        [[domain(1, 'c.example'), domain(2, 'c.example')], 1],
        [[shop('bank'), shop('bank')], 1],
        [
          [
            { kind: 'key', key: key() },
            { kind: 'key', key: key({ account: 2 }) },
          ],
          1,
        ],
        // Another's is not freed by who does not have it.
        [[drop, domain(1, 'a.example')], 1],
      ] as const) {
        expect(await store.administer([...changes], DEED)).toEqual({ kind: 'conflict', change });
      }
      expect(await store.administer([domain(4, 'd.example'), shop('late')], DEED)).toEqual({
        kind: 'notFound',
        change: 0,
      });
      expect({ ...(await now()), revision: 0 }).toEqual({ ...before, revision: 0 });
    });

    it('makes changes only for the directory that they were made for, and a dry run none', async () => {
      const put = { kind: 'put', what: 'sender', name: '1 shop', account: 1, body: { sender: 'shop' } } as const;
      const { revision } = await now();
      expect(await store.administer([put], DEED, { at: revision, dry: true })).toMatchObject({ kind: 'done' });
      const twice = { ...put, account: 2 };
      expect(await store.administer([put, twice], DEED, { dry: true })).toEqual({ kind: 'conflict', change: 1 });
      expect(await store.auditLog(10)).toEqual([]);
      expect(await store.directory(revision)).toBeNull();
      // Ten who read the same: one writes.
      const ten = await Promise.all(Array.from({ length: 10 }, () => store.administer([put], DEED, { at: revision })));
      expect(ten.map(({ kind }) => kind).sort()).toEqual(['done', ...Array<string>(9).fill('stale')]);
      expect(await store.auditLog(10)).toHaveLength(1);
      const after = await now();
      expect(after.senders).toEqual([{ account: 1, sender: 'shop' }]);
      expect((await store.administer([put], DEED, { at: after.revision })).kind).toBe('done');
    });

    it('adds to a credit what everybody adds, however many at a time, and once under one key for a day', async () => {
      const credit = (amount: number, once: { key: string; hash: string } | null = null, account = 1) =>
        store.administer([{ kind: 'credit', account, amount, once }], DEED);
      const total = async () => (await now()).accounts[0]?.limits.spend;
      const many = await Promise.all(Array.from({ length: 20 }, (_, n) => credit(n + 0.1)));
      expect(await total()).toEqual({ amount: 192, per: 'TOTAL' });
      expect(many.map((one) => one.kind === 'done' && one.credits[0]?.total).at(-1)).toBe(192);
      const once = { key: 'invoice 7', hash: 'of 5' };
      const same = await Promise.all(Array.from({ length: 5 }, () => credit(5, once)));
      expect(same.map((one) => (one.kind === 'done' ? one.credits[0] : one))).toEqual(
        expect.arrayContaining([
          { total: 197, repeated: false },
          ...Array.from({ length: 4 }, () => ({ total: 197, repeated: true })),
        ]),
      );
      expect(await store.auditLog(100)).toHaveLength(21);
      expect(await credit(6, { ...once, hash: 'of 6' })).toEqual({ kind: 'refused', change: 0, why: 'once' });
      // The key is that account's; a day later it is nobody's.
      expect(await credit(5, once, 2)).toMatchObject({ credits: [{ total: 5, repeated: false }] });
      expect(await credit(-192)).toMatchObject({ credits: [{ total: 5 }] });
      expect(await credit(5, once)).toMatchObject({ credits: [{ total: 197, repeated: true }] });
      h.advance(DAY);
      expect(await credit(5, once)).toMatchObject({ credits: [{ total: 10, repeated: false }] });
    });

    it('tells what counters stand at, without taking of them', async () => {
      const counter = { account: 1, scope: 'messages', bucket: 7 };
      const take = (want: number, bucket: number) =>
        store.quota([{ ...counter, bucket, buckets: 1, want, least: 0, most: 100, keepMs: HOUR }]);
      await take(30, 7);
      await take(5, 6);
      await take(-10, 7);
      const used = () =>
        store.quotaUsed([
          { ...counter, buckets: 1 },
          { ...counter, buckets: 2 },
          { ...counter, scope: 'spend', buckets: 1 },
          { ...counter, account: 2, buckets: 1 },
        ]);
      expect(await used()).toEqual([20, 25, 0, 0]);
      expect(await used()).toEqual([20, 25, 0, 0]);
      expect(await store.quotaUsed([])).toEqual([]);
    });

    it('adds to no other limit, takes no more than there is, and leaves all else of the account', async () => {
      const credit = (amount: number, account = 1) =>
        store.administer([{ kind: 'credit', account, amount, once: null }], DEED);
      expect(await credit(5, 77)).toEqual({ kind: 'notFound', change: 0 });
      expect(await credit(-1)).toEqual({ kind: 'refused', change: 0, why: 'amount' });
      const limits = { ...DEFAULT_SETTINGS.limits, messagesPerDay: 7, spend: { amount: 5, per: 'DAY' } as const };
      const settings = { ...DEFAULT_SETTINGS, currency: 'CHF', limits };
      await store.administer([{ kind: 'account', no: 1, name: 'daily', settings }], DEED);
      expect(await credit(5)).toEqual({ kind: 'refused', change: 0, why: 'period' });
      const prepaid = { ...limits, spend: { amount: 999_999_999, per: 'TOTAL' } as const };
      await store.administer(
        [{ kind: 'account', no: 1, name: 'daily', settings: { ...settings, limits: prepaid } }],
        DEED,
      );
      expect(await credit(2)).toEqual({ kind: 'refused', change: 0, why: 'amount' });
      expect(await credit(1)).toMatchObject({ credits: [{ total: 1_000_000_000 }] });
      const { spend, ...rest } = prepaid;
      expect((await now()).accounts[0]).toEqual({
        ...{ ...settings, no: 1, name: 'daily', totalSince: expect.any(Number) },
        limits: { ...rest, spend: { ...spend, amount: 1_000_000_000 } },
      });
    });

    it('sets endpoints with what else it changes, all or nothing, up to as many as an account may have', async () => {
      const endpoint = (url: string, account = 1) =>
        ({ kind: 'endpoint', put: { account, kind: 'delivery', url, isDefault: true } }) as const;
      const drop = (url: string, account = 1) => ({ kind: 'endpointDrop', account, hook: 'delivery', url }) as const;
      expect(
        await store.administer([endpoint('https://a.example/'), endpoint('https://x.example/', 77)], DEED),
      ).toEqual({
        ...{ kind: 'notFound', change: 1 },
      });
      expect(await store.endpointList(1)).toEqual([]);
      await store.administer([endpoint('https://a.example/'), endpoint('https://b.example/')], DEED);
      const listed = async (account = 1) =>
        (await store.endpointList(account)).map(({ url, isDefault }) => [url, isDefault]);
      expect(await listed()).toEqual([
        ['https://a.example/', false],
        ['https://b.example/', true],
      ]);
      expect(await store.administer([drop('https://a.example/', 2)], DEED)).toMatchObject({ dropped: 0 });
      expect(await store.administer([drop('https://a.example/')], DEED)).toMatchObject({ dropped: 1 });
      expect(await store.auditLog(10)).toHaveLength(2);
      const rest = Array.from({ length: ENDPOINTS_MAX - 1 }, (_, n) => endpoint(`https://c.example/${n}`));
      expect(await store.administer(rest, DEED)).toMatchObject({ kind: 'done' });
      expect(await store.administer([endpoint('https://d.example/')], DEED)).toEqual({
        ...{ kind: 'refused', change: 0, why: 'endpoints' },
      });
      // What goes makes room in the same call.
      const instead = [drop('https://c.example/0'), endpoint('https://d.example/')];
      expect(await store.administer(instead, DEED)).toMatchObject({ kind: 'done', dropped: 1 });
      expect(await listed()).toHaveLength(ENDPOINTS_MAX);
    });

    it('keeps the rules of a key, lets its account revoke it, and keys made before have none', async () => {
      await store.administer([{ kind: 'key', key: key() }], DEED);
      expect((await now()).keys.find(({ id }) => id === 'k1')).toEqual(key());
      await store.administer([{ kind: 'key', key: key({ revokedAt: 77 }) }], DEED);
      expect((await now()).keys.filter(({ id }) => id === 'k1')).toEqual([key({ revokedAt: 77 })]);
      expect((await store.keys()).map(({ hash }) => hash).sort()).toEqual(['ab'.repeat(32), 'h1', 'h2'].sort());
      // The configured key is put at each start: it keeps its rules.
      await store.putKey({ hash: key().hash, account: 1, label: 'shop' }, true);
      expect((await now()).keys.find(({ id }) => id === 'k1')?.revokedAt).toBe(77);
    });

    it('holds a name for one account only, and drops it only for that one', async () => {
      const put = (account: number, domain: string) =>
        store.administer([{ kind: 'put', what: 'domain', name: domain, account, body: { domain } }], DEED);
      const drop = (account: number) =>
        store.administer([{ kind: 'drop', what: 'domain', name: 'a.example', account }], DEED);
      expect((await put(1, 'a.example')).kind).toBe('done');
      expect((await put(2, 'a.example')).kind).toBe('conflict');
      expect((await put(2, 'b.example')).kind).toBe('done');
      // The same name of another kind is another thing; account 0 is all of them.
      const block = { kind: 'SENDER' as const, value: 'spam' };
      await store.administer([{ kind: 'put', what: 'block', name: 'a.example', account: 0, body: block }], DEED);
      expect((await now()).domains).toEqual([
        { account: 1, domain: 'a.example' },
        { account: 2, domain: 'b.example' },
      ]);
      expect((await now()).blocks).toEqual([{ ...block, account: 0 }]);
      expect(await drop(2)).toMatchObject({ dropped: 0 });
      expect(await drop(1)).toMatchObject({ dropped: 1 });
      expect(await drop(1)).toMatchObject({ dropped: 0 });
      expect((await put(2, 'a.example')).kind).toBe('done');
    });

    it('takes thousands of them in one call, drops them as well, and of one name said twice the last', async () => {
      const put = (n: number, body: object = { sender: `s${n}` }) =>
        ({ kind: 'put', what: 'sender', name: `1 s${n}`, account: 1, body }) as const;
      const many = Array.from({ length: 2500 }, (_, n) => put(n));
      const login = { kind: 'put', what: 'login', name: 'anna', account: 1, body: { user: 'anna' } } as const;
      await store.sessionPut({ hash: 's', user: 'anna', kind: 'IBSSO', ttlMs: HOUR, idle: true });
      await store.administer([...many, { ...login, same: true }, put(7, { sender: 'twice' })], DEED);
      expect(await store.sessionUse('s')).not.toBeNull();
      const { senders } = await now();
      expect(senders).toHaveLength(2500);
      expect(senders.filter(({ sender }) => sender === 'twice')).toHaveLength(1);
      expect(senders.some(({ sender }) => sender === 's7')).toBe(false);
      const drops = many.slice(0, 2400).map(({ what, name }) => ({ kind: 'drop', what, name, account: 1 }) as const);
      const drop = { kind: 'drop', what: 'login', name: 'anna', account: 1 } as const;
      expect(await store.administer([...drops, { ...drops[0]!, name: '1 none' }, drop, put(0)], DEED)).toMatchObject({
        dropped: 2401,
      });
      expect((await now()).senders.map(({ sender }) => sender)).toContain('s0');
      expect((await now()).senders).toHaveLength(101);
      expect(await store.sessionUse('s')).toBeNull();
    });

    it('writes a line for each call into the audit log, newest first, page by page', async () => {
      for (let n = 0; n < 5; n++) {
        await store.administer([], { by: `admin ${n}`, action: 'look', account: n, detail: { n } });
        h.advance(1000);
      }
      const [last, ...rest] = await store.auditLog(2);
      expect(last).toMatchObject({ by: 'admin 4', action: 'look', account: 4, detail: { n: 4 }, at: h.now() - 1000 });
      const older = await store.auditLog(10, rest[0]?.no);
      expect(older.map(({ by }) => by)).toEqual(['admin 2', 'admin 1', 'admin 0']);
    });

    it('tells who waits for changes, and survives a crash', async () => {
      const hints: string[] = [];
      store.onHint(({ kind }) => hints.push(kind));
      await store.administer([{ kind: 'key', key: key() }], DEED);
      await expect.poll(() => hints).toContain('keys');
      await h.crash();
      expect((await h.store.directory(-1))?.keys.some(({ id }) => id === 'k1')).toBe(true);
    });

    describe('sessions', () => {
      const session = (said: Partial<NewSession> = {}): NewSession => ({
        hash: 's1',
        user: 'anna',
        kind: 'IBSSO',
        ttlMs: HOUR,
        idle: true,
        ...said,
      });

      it('ends an hour after its last use', async () => {
        await store.sessionPut(session());
        h.advance(59 * MINUTE);
        expect(await store.sessionUse('s1')).toEqual({ hash: 's1', user: 'anna', kind: 'IBSSO' });
        h.advance(59 * MINUTE);
        expect(await store.sessionUse('s1')).not.toBeNull();
        h.advance(HOUR);
        expect(await store.sessionUse('s1')).toBeNull();
        expect(await store.sessionDelete('s1')).toBe(false);
      });

      it('ends at its time however much it is used, where it has no idle time', async () => {
        const fixed = session({ kind: 'OAUTH', idle: false });
        await store.sessionPut(fixed);
        h.advance(30 * MINUTE);
        expect(await store.sessionUse('s1')).toMatchObject({ kind: 'OAUTH' });
        h.advance(30 * MINUTE);
        expect(await store.sessionUse('s1')).toBeNull();
      });

      it('ends when it is ended, once', async () => {
        await store.sessionPut(session());
        expect(await store.sessionDelete('s2')).toBe(false);
        expect(await store.sessionDelete('s1')).toBe(true);
        expect(await store.sessionDelete('s1')).toBe(false);
        expect(await store.sessionUse('s1')).toBeNull();
      });

      it('ends all of a user with the password or the user, so that nobody who gets the name has them', async () => {
        const deed = { by: 'test', action: 'login', account: 1, detail: {} };
        const name = { what: 'login' as const, name: 'anna', account: 1 };
        const left = async () => [await store.sessionUse('s1'), await store.sessionUse('s2')].map((one) => one?.user);
        await store.administer([{ kind: 'put', ...name, body: { password: 'a', scopes: null } }], deed);
        await store.sessionPut(session());
        await store.sessionPut(session({ hash: 's2', user: 'bob' }));
        await store.administer([{ kind: 'drop', ...name, account: 2 }], deed);
        expect(await left()).toEqual(['anna', 'bob']);
        await store.administer([{ kind: 'put', ...name, body: { password: 'b', scopes: null } }], deed);
        expect(await left()).toEqual([undefined, 'bob']);
        await store.sessionPut(session({ kind: 'OAUTH', idle: false }));
        await store.administer([{ kind: 'drop', ...name }], deed);
        expect(await left()).toEqual([undefined, 'bob']);
      });
    });

    describe('counters', () => {
      const take = (said: Partial<Take> = {}): Take => ({
        account: 1,
        scope: 'requests',
        bucket: 10,
        buckets: 1,
        want: 4,
        least: 1,
        most: 10,
        keepMs: DAY,
        ...said,
      });

      it('gives what is there and never more than there is, however many ask at once', async () => {
        const given = (await Promise.all(Array.from({ length: 6 }, () => store.quota([take()])))).flat();
        expect(given.sort()).toEqual([0, 0, 0, 2, 4, 4]);
        expect(await store.quota([take({ want: 1 })])).toEqual([0]);
      });

      it('counts accounts, scopes and buckets apart, and several takes of one call together', async () => {
        const all = await store.quota([
          take({ want: 10 }),
          take({ account: 2, want: 10 }),
          take({ scope: 'logs', want: 10 }),
          take({ bucket: 11, want: 10 }),
          take({ want: 1 }),
        ]);
        expect(all).toEqual([10, 10, 10, 10, 0]);
      });

      it('gives all or nothing where no less will do, and takes back', async () => {
        expect(await store.quota([take({ want: 8 })])).toEqual([8]);
        expect(await store.quota([take({ want: 4, least: 4 })])).toEqual([0]);
        expect(await store.quota([take({ want: -3 })])).toEqual([-3]);
        expect(await store.quota([take({ want: 4, least: 4 })])).toEqual([4]);
        expect(await store.quota([take({ want: -100 })])).toEqual([-100]);
        expect(await store.quota([take({ want: 20 })])).toEqual([10]);
      });

      it('looks back over as many buckets as are asked for', async () => {
        const ask = async (bucket: number) => (await store.quota([take({ bucket, buckets: 3, want: 4, least: 4 })]))[0];
        expect([await ask(1), await ask(2), await ask(3)]).toEqual([4, 4, 0]);
        expect(await ask(4)).toBe(4);
        expect([await ask(5), await ask(6)]).toEqual([4, 0]);
      });

      it('forgets what has ended', async () => {
        await store.quota([take({ want: 10, keepMs: HOUR })]);
        h.advance(HOUR);
        await store.quota([]);
        expect(await store.quota([take({ want: 10 })])).toEqual([10]);
      });
    });

    describe('messages turned away', () => {
      it('stores them final with their error in their places of the run, and sends the others', async () => {
        const request = await desk.request({ to: ['41790000001', '41790000002', '41790000003'] });
        const [a, b, c] = request.to.map((_, at) => request.first + 2 + at) as [number, number, number];
        const answer = await store.accept({ ...request, turnedAway: [[b, 20, 4103]] });
        expect(answer).toMatchObject({ kind: 'accepted', optedOut: [[b, 20]] });
        const { rows } = await store.logs({ account: 1, limit: 10 });
        expect(rows.map(({ no, status, error }) => [no, status, error]).sort()).toEqual([
          [a, 26, 0],
          [b, 20, 4103],
          [c, 26, 0],
        ]);
        expect((await desk.story(b)).events.map(({ words }) => words)).toEqual([
          'refused at the door: too many messages to this number within an hour',
        ]);
        expect((await desk.claim()).claims.map(({ leader }) => leader).sort()).toEqual([a, c]);
      });

      it('gives the first answer to a repetition, whatever the account may now', async () => {
        const idem = { key: 'once', hash: 'x' };
        const asked = { to: ['41790000001', '41790000002'], idem };
        const request = await desk.request(asked);
        const first = await store.accept({ ...request, turnedAway: [[request.first + 3, 12, 0]] });
        expect(await store.accept(await desk.request(asked))).toEqual({ ...first, kind: 'replayed' });
      });
    });
  });
}
