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
import type { Store } from '../../src/store/contract.ts';
import { createDesk, DAY, type Desk, type Harness, HOUR, MINUTE } from './desk.ts';

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
      desk = createDesk(h);
      store = h.store;
      await desk.open();
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
      expect(made).toEqual({ kind: 'done', accounts: [3, 4], dropped: 0 });
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
