/** What the door does without waiting, and how many passwords it looks at. The store is the model that engines are held to. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createModelStore } from '../../test/conformance/model-store.ts';
import { DEFAULT_SETTINGS } from '../domain/accounts.ts';
import { testEnv } from '../env.ts';
import { type Auth, createAuth } from './auth.ts';

const WORK = { N: 1024, r: 8, p: 1 };
const basic = (user: string, password = 'right password'): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const DAY = 86_400_000;
const env = testEnv();
let store: ReturnType<typeof createModelStore>;
let auth: Auth;
beforeEach(async () => {
  store = createModelStore();
  await store.putKey({ hash: 'h', account: 1, label: 'k' }, false);
  auth = await createAuth(store, env, WORK);
  const body = { user: 'anna', scopes: null, password: await auth.passwords.made('anna', 'right password') };
  const deed = { by: 'test', action: 'add', account: 1, detail: {} };
  await store.administer([{ kind: 'put', what: 'login', name: 'anna', account: 1, body }], deed);
  await auth.refresh();
});
afterEach(() => auth.close());

describe('passwords', () => {
  it('are kept with a salt of their own', async () => {
    const [one, two] = [await auth.passwords.made('one', 'same'), await auth.passwords.made('two', 'same')];
    expect(one).toMatch(/^scrypt\$1024\$8\$1\$/);
    expect(one).not.toBe(two);
  });

  it('that were right are known at once the next time, until they change', async () => {
    const first = auth.caller(basic('anna'), '192.0.2.1');
    expect(first).toBeInstanceOf(Promise);
    const caller = { account: 1, name: 'user anna', scopes: null, requestsPerMinute: null };
    expect(await first).toEqual(caller);
    expect(auth.caller(basic('anna'), '192.0.2.1')).toEqual(caller);
    const body = { user: 'anna', scopes: null, password: await auth.passwords.made('anna', 'another password') };
    const deed = { by: 'test', action: 'change', account: 1, detail: {} };
    await store.administer([{ kind: 'put', what: 'login', name: 'anna', account: 1, body }], deed);
    await auth.refresh();
    expect(await auth.caller(basic('anna'), '192.0.2.1')).toBeNull();
  });

  it('are looked at two at a time, and 32 wait; more are told to come back', async () => {
    const asked = Array.from({ length: 40 }, (_, n) => auth.caller(basic(`user ${n}`), '192.0.2.1'));
    const answers = await Promise.all(asked);
    const busy = answers.filter((one) => one !== null && 'busyS' in one);
    expect(busy).toEqual(Array.from({ length: 6 }, () => ({ busyS: 1 })));
    expect(answers.filter((one) => one === null)).toHaveLength(34);
    expect(await auth.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
  });

  it('wrong ten times from one address are not looked at for a minute, right or wrong, and it is told for how long', async () => {
    for (let n = 0; n < 10; n++) expect(await auth.caller(basic('anna', `wrong ${n}`), '192.0.2.1')).toBeNull();
    expect(await auth.caller(basic('anna'), '192.0.2.1')).toEqual({ busyS: 60 });
    await env.clock.advance(14_500);
    expect(await auth.open('anna', 'wrong', 'OAUTH', '192.0.2.1')).toEqual({ busyS: 46 });
    await env.clock.advance(45_499);
    expect(await auth.caller(basic('anna'), '192.0.2.1')).toEqual({ busyS: 1 });
    expect(await auth.caller(basic('anna'), '192.0.2.2')).toMatchObject({ account: 1 });
    await env.clock.advance(1);
    expect(await auth.caller(basic('anna', 'wrong again'), '192.0.2.1')).toBeNull();
  });

  it('wrong a hundred times from one address, whoever they are tried for, are not looked at for a minute', async () => {
    const from = (n: number) => auth.caller(basic(`user ${n}`, 'Summer2026'), '192.0.2.7');
    for (let n = 0; n < 100; n++) expect(await from(n)).toBeNull();
    expect(await from(100)).toEqual({ busyS: 60 });
    expect(await auth.caller(basic('anna'), '192.0.2.7')).toEqual({ busyS: 60 });
    expect(await auth.caller(basic('anna'), '192.0.2.8')).toMatchObject({ account: 1 });
    // Who was right before is not looked at again, so the customer behind the same address goes on.
    expect(await auth.caller(basic('anna'), '192.0.2.7')).toMatchObject({ account: 1 });
    await env.clock.advance(60_000);
    expect(await from(101)).toBeNull();
  });
});

describe('passwords that were kept by an older rule', () => {
  const NEW = { memory: 64, passes: 1 };
  const deed = { by: 'test', action: 'set', account: 1, detail: {} };
  const keptOf = async (): Promise<string> => (await store.directory(-1))?.logins[0]?.password ?? '';
  const newer = (of = store): Promise<Auth> => createAuth(of, env, NEW);

  it('open, and are kept by the present one after that; sessions go on, and the audit log has a line', async () => {
    const old = await keptOf();
    expect(old).toMatch(/^scrypt\$1024\$8\$1\$/);
    await store.sessionPut({ hash: 's', user: 'anna', kind: 'IBSSO', ttlMs: 3_600_000, idle: true });
    const now = await newer();
    try {
      expect(await now.caller(basic('anna', 'wrong'), '192.0.2.1')).toBeNull();
      expect(await keptOf()).toBe(old);
      expect(await now.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
      // The version before can still read it, and this one has it in the new form.
      const kept = await keptOf();
      expect(kept).toBe(old);
      const anew = async () => (await store.directory(-1))?.logins[0]?.anew;
      expect(await anew()).toEqual({
        password: expect.stringMatching(/^\$argon2id\$v=19\$m=64,t=1,p=1\$/),
        at: env.clock.now(),
      });
      expect(await now.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
      expect(await now.caller(basic('anna', 'wrong'), '192.0.2.1')).toBeNull();
      expect(await store.sessionUse('s')).not.toBeNull();
      const [line] = await store.auditLog(1);
      expect([line?.action, line?.by, JSON.stringify(line)]).toEqual([
        'password kept anew',
        'postcard',
        expect.not.stringMatching(/argon2|scrypt|right password/),
      ]);
      // Who cannot make new ones so looks at them all the same, and leaves them.
      await auth.refresh();
      expect(await auth.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
      expect(await keptOf()).toBe(kept);
    } finally {
      now.close();
    }
  });

  it('are kept in both forms for a week, and in the new one alone at the next look after it', async () => {
    const look = async (): Promise<void> => {
      const now = await newer();
      expect(await now.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
      now.close();
    };
    const both = async () => (await store.directory(-1))?.logins[0];
    const old = await keptOf();
    await look();
    const anew = (await both())?.anew?.password as string;
    await env.clock.advance(7 * DAY - 1);
    await look();
    expect(await both()).toMatchObject({ password: old, anew: { password: anew } });
    await store.sessionPut({ hash: 's', user: 'anna', kind: 'IBSSO', ttlMs: 3_600_000, idle: true });
    await env.clock.advance(1);
    await look();
    expect(await both()).toEqual({ user: 'anna', account: 1, scopes: null, password: anew });
    expect(await store.sessionUse('s')).not.toBeNull();
    // Of two that every version can read there is nothing to wait for.
    const more = await createAuth(store, env, { memory: 128, passes: 1 });
    expect(await more.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
    more.close();
    expect(await both()).toEqual({
      ...{ user: 'anna', account: 1, scopes: null },
      password: expect.stringMatching(/^\$argon2id\$v=19\$m=128,t=1,p=1\$/),
    });
  });

  it('never come back over a new one that the operator gives meanwhile', async () => {
    const body = { user: 'anna', scopes: null, password: await auth.passwords.made('anna', 'another password') };
    const racing = {
      ...store,
      async administer(...[changes, asked, terms]: Parameters<typeof store.administer>) {
        await store.administer([{ kind: 'put', what: 'login', name: 'anna', account: 1, body }], deed);
        return store.administer(changes, asked, terms);
      },
    };
    const now = await newer(racing);
    try {
      expect(await now.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
      expect(await keptOf()).toBe(body.password);
    } finally {
      now.close();
    }
  });

  it('open also where they cannot be kept anew, and the log says so', async () => {
    const now = await newer({ ...store, administer: () => Promise.reject(new Error('no room on the disk')) });
    try {
      expect(await now.caller(basic('anna'), '192.0.2.1')).toMatchObject({ account: 1 });
      expect(JSON.stringify(env.lines.at(-1))).toMatch(/"warn".*could not be kept anew/);
    } finally {
      now.close();
    }
  });
});

describe('what the operator changes', () => {
  it('counts within five seconds where no hint comes', async () => {
    const silent = createModelStore();
    await silent.putKey({ hash: 'h', account: 1, label: 'k' }, false);
    const deaf = await createAuth({ ...silent, onHint: () => undefined }, env, WORK);
    try {
      const settings = { ...DEFAULT_SETTINGS, state: 'SUSPENDED' as const };
      const deed = { by: 'test', action: 'suspend', account: 1, detail: {} };
      await silent.administer([{ kind: 'account', no: 1, name: 'first', settings }], deed);
      expect(deaf.policy(1).state).toBe('ACTIVE');
      await env.clock.advance(5_000);
      expect(deaf.policy(1).state).toBe('SUSPENDED');
    } finally {
      deaf.close();
    }
  });
});
