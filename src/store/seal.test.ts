import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import type { Administered, Deed } from '../domain/accounts.ts';
import { testEnv } from '../env.ts';
import type { EndpointPut, EndpointSetting, OperatorChange, Webhook } from './contract.ts';
import { changed, validSecrets } from './hooks.ts';
import { createSealer, startReseal, withSealed } from './seal.ts';

const KEY = 'key-one-0123456789abcdef0123456789abcdef';
const OTHER = 'key-two-0123456789abcdef0123456789abcdef';

/** One account's one endpoint as the engines keep it. */
function engine() {
  const kept: { setting: EndpointSetting | null } = { setting: null };
  return {
    kept,
    endpointList: async (account: number) => (kept.setting && account === 7 ? [kept.setting] : []),
    endpointPut: async (put: EndpointPut) => {
      kept.setting = changed(kept.setting, put, 0);
      return kept.setting;
    },
    administer: async (changes: OperatorChange[], _deed: Deed): Promise<Administered> => {
      for (const one of changes) if (one.kind === 'endpoint') kept.setting = changed(kept.setting, one.put, 0);
      return { kind: 'done', accounts: [], dropped: 0, credits: [] };
    },
    webhookNext: async (_limit: number, _leaseMs: number) => {
      const { setting } = kept;
      const { url, contentType, headers, secrets } = setting as EndpointSetting;
      const endpoint = { no: 1, url, contentType, headers, secrets: validSecrets(secrets, 1) };
      return { now: 1, specs: [], nextDue: null, webhooks: [{ no: 1, account: 7, endpoint } as unknown as Webhook] };
    },
  };
}

const put = (secret: string, more: Partial<EndpointPut> = {}): EndpointPut => ({
  account: 7,
  kind: 'delivery',
  url: 'https://customer.example/hook?q',
  secret: { value: secret, oldForMs: 1000 },
  ...more,
});

describe('a sealed value', () => {
  it('opens to what it was, for its account and its key only, and looks like nothing of it', () => {
    void fc.assert(
      fc.property(fc.string({ maxLength: 300, unit: 'binary' }), fc.nat(1000), (text, account) => {
        const sealer = createSealer([KEY]);
        const sealed = sealer.seal(account, text);
        const plain = text.toWellFormed();
        expect(sealed).toMatch(/^sealed:1:[\w-]+$/);
        if (plain.length > 6) expect(sealed).not.toContain(plain);
        expect(sealer.open(account, sealed)).toBe(plain);
        expect(sealer.open(account + 1, sealed)).toBe(null);
        expect(createSealer([OTHER]).open(account, sealed)).toBe(null);
        expect(createSealer([]).open(account, sealed)).toBe(null);
        expect(createSealer([OTHER, KEY]).open(account, sealed)).toBe(plain);
      }),
    );
  });

  it('does not open when any bit of it is changed, or any of its end is missing', () => {
    const sealer = createSealer([KEY]);
    const sealed = sealer.seal(7, 'whsec_secret');
    const bytes = Buffer.from(sealed.slice('sealed:1:'.length), 'base64url');
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const copy = Buffer.from(bytes);
      copy[bit >> 3] = (copy[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(sealer.open(7, `sealed:1:${copy.toString('base64url')}`)).toBe(null);
    }
    for (let length = 0; length < bytes.length; length++) {
      expect(sealer.open(7, `sealed:1:${bytes.subarray(0, length).toString('base64url')}`)).toBe(null);
    }
  });

  it('is the same for the same value and another for another, account or key', () => {
    const seal = (key: string, account: number, text: string): string => createSealer([key]).seal(account, text);
    expect(seal(KEY, 7, 'a')).toBe(seal(KEY, 7, 'a'));
    expect(new Set([seal(KEY, 7, 'a'), seal(KEY, 7, 'b'), seal(KEY, 8, 'a'), seal(OTHER, 7, 'a')]).size).toBe(4);
  });
});

describe('a store with sealed secrets', () => {
  it('keeps nothing of secrets and headers in clear, and gives them back to who asks', async () => {
    const { kept, ...inner } = engine();
    const store = withSealed(inner, createSealer([KEY]), testEnv());
    const answer = await store.endpointPut(put('whsec_planted', { headers: { Authorization: 'Bearer planted' } }));
    expect(answer?.secrets).toEqual([{ secret: 'whsec_planted', until: null }]);
    expect(JSON.stringify(kept)).not.toContain('planted');
    expect((await store.endpointList(7))[0]).toEqual(answer);
    const [webhook] = (await store.webhookNext(1, 1)).webhooks;
    expect(webhook?.endpoint).toMatchObject({
      secrets: ['whsec_planted'],
      headers: { Authorization: 'Bearer planted' },
    });
  });

  it('keeps in clear nothing of what the operator gives for an account either', async () => {
    const { kept, ...inner } = engine();
    const store = withSealed(inner, createSealer([KEY]), testEnv());
    const given = put('whsec_planted', { headers: { Authorization: 'Bearer planted' } });
    await store.administer([{ kind: 'endpoint', put: given }], { by: 'test', action: 'set', account: 7, detail: {} });
    expect(JSON.stringify(kept)).toMatch(/sealed:1:/);
    expect(JSON.stringify(kept)).not.toContain('planted');
    expect((await store.endpointList(7))[0]).toMatchObject({
      headers: given.headers,
      secrets: [{ secret: 'whsec_planted', until: null }],
    });
  });

  it('sees that a secret is the one that it has', async () => {
    const { kept: _, ...inner } = engine();
    const store = withSealed(inner, createSealer([KEY]), testEnv());
    await store.endpointPut(put('one'));
    expect((await store.endpointPut(put('one')))?.secrets).toHaveLength(1);
    expect((await store.endpointPut(put('two')))?.secrets.map(({ secret }) => secret)).toEqual(['two', 'one']);
  });

  it('reads what was kept before there was a key, and seals the next change', async () => {
    const { kept, ...inner } = engine();
    await inner.endpointPut(put('in clear'));
    const store = withSealed(inner, createSealer([KEY]), testEnv());
    expect((await store.webhookNext(1, 1)).webhooks[0]?.endpoint.secrets).toEqual(['in clear']);
    await store.endpointPut(put('anew'));
    expect(JSON.stringify(kept)).not.toContain('anew');
    expect((await store.webhookNext(1, 1)).webhooks[0]?.endpoint.secrets).toEqual(['anew', 'in clear']);
  });

  it('seals anew what was kept in clear or under an older key, once, and moves nothing by it', async () => {
    const { kept, ...inner } = engine();
    await inner.endpointPut(put('first', { headers: { Authorization: 'Bearer planted' }, isDefault: true }));
    await inner.endpointPut(put('second'));
    const reading = async (keys: string[]): Promise<unknown> =>
      (await withSealed(inner, createSealer(keys), testEnv()).endpointList(7))[0];
    const reseal = (keys: string[], stop = false) =>
      withSealed(inner, createSealer(keys), testEnv()).reseal([3, 7], () => stop);
    const before = await reading([]);
    expect(await reseal([])).toEqual({ sealed: 0, shut: 0 });
    expect(await reseal([KEY], true)).toEqual({ sealed: 0, shut: 0 });
    expect(await reading([])).toEqual(before);
    expect(await reseal([KEY])).toEqual({ sealed: 1, shut: 0 });
    expect(JSON.stringify(kept)).not.toMatch(/first|second|planted/);
    expect(await reading([KEY])).toEqual(before);
    expect(await reseal([KEY])).toEqual({ sealed: 0, shut: 0 });
    // Another key: the old one opens until all is sealed with the new one, and is of no use then.
    expect(await reseal([OTHER, KEY])).toEqual({ sealed: 1, shut: 0 });
    expect(await reading([OTHER])).toEqual(before);
    expect(await reseal([KEY])).toEqual({ sealed: 0, shut: 1 });
    expect(await reading([OTHER])).toEqual(before);
  });

  it('says how many it sealed and how many it cannot open, and no secret', async () => {
    const { kept: _, ...inner } = engine();
    await inner.endpointPut(put('planted'));
    const start = async (keys: string[], accounts = Promise.resolve([3, 7])) => {
      const { log, lines, clock } = testEnv();
      const end = startReseal(withSealed(inner, createSealer(keys), { log, clock }), accounts, log);
      await new Promise((resolve) => setImmediate(resolve));
      await end();
      return lines.map((line) => JSON.stringify(line));
    };
    const told = [await start([]), await start([KEY]), await start([KEY]), await start([OTHER])];
    expect(told).toEqual([
      [],
      [expect.stringContaining('were sealed with the newest key')],
      [],
      [expect.stringContaining('cannot be opened')],
    ]);
    expect(JSON.stringify(told)).not.toContain('planted');
    expect(await start([KEY], Promise.reject(new Error('away')))).toEqual([
      expect.stringContaining('the next start tries again'),
    ]);
  });

  it('leaves alone what is changed while it seals', async () => {
    const { kept, ...inner } = engine();
    await inner.endpointPut(put('first'));
    const racing = {
      ...inner,
      endpointPut: async (one: EndpointPut) => {
        await inner.endpointPut(put('second'));
        return inner.endpointPut(one);
      },
    };
    await withSealed(racing, createSealer([KEY]), testEnv()).reseal([3, 7], () => false);
    expect(kept.setting?.secrets.map(({ secret }) => secret)).toEqual(['second', 'first']);
  });

  it('opens with an older key, and with none of them hands out no webhook rather than an unsigned one, and says so', async () => {
    const { kept: _, ...inner } = engine();
    await withSealed(inner, createSealer([KEY]), testEnv()).endpointPut(put('one'));
    const both = withSealed(inner, createSealer([OTHER, KEY]), testEnv());
    expect((await both.webhookNext(1, 1)).webhooks).toHaveLength(1);
    for (const keys of [[OTHER], []]) {
      const env = testEnv();
      const store = withSealed(inner, createSealer(keys), { log: env.log, clock: env.clock });
      expect((await store.webhookNext(1, 1)).webhooks).toEqual([]);
      expect((await store.webhookNext(1, 1)).webhooks).toEqual([]);
      expect((await store.endpointList(7))[0]?.secrets).toEqual([{ secret: '', until: null }]);
      expect(env.lines.filter(({ level }) => level === 'error')).toHaveLength(1);
      expect(JSON.stringify(env.lines)).not.toContain('?q');
    }
  });
});
