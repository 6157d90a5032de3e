/**
 * Secrets at rest: what signs our webhooks and the headers that customers gave for their endpoints (often an Authorization) are
 * kept sealed, with a key from the environment that is not in the database. Between the store and everyone: who asks the store
 * gets them open, whoever has a dump or a backup has nothing.
 *
 * Promises: AES-256-GCM, bound to the account, so that a sealed value copied into another account's row does not open. The same
 * value sealed again gives the same text (its nonce is a MAC of it), so that the store still sees when nothing changed; a
 * stranger sees only that. What was kept before there was a key, or under an older one, is read as it is and sealed anew by the next
 * start (`reseal`) or its next change.
 *
 * Fails: what cannot be opened (another key, or none any more) is never used: such an endpoint's webhooks stay until it can, and
 * the log says so; in lists it is shown as nothing.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { AdminTerms, Deed } from '../domain/accounts.ts';
import type { Log } from '../env.ts';
import type { EndpointPut, EndpointSetting, OperatorChange, Store } from './contract.ts';

/** No secret of a customer may begin so: `sealed:1:` and base64url of nonce, tag and cipher text. */
const MARK = 'sealed:1:';
const NONCE = 12;
const TAG = 16;
/** The log says at most this often that something cannot be opened. */
const TELL_MS = 60_000;

interface Key {
  cipher: Buffer;
  nonce: Buffer;
}

/** Seals with the first of some keys, opens with any. */
export interface Sealer {
  /** False = it has no key and leaves all as it is. */
  readonly seals: boolean;
  seal(account: number, text: string): string;
  /** Null = it does not open. What is not sealed comes back as it is. */
  open(account: number, text: string): string | null;
}

/** `keys`: newest first, as the operator wrote them; none = nothing is sealed, and nothing sealed opens. */
export function createSealer(keys: readonly string[]): Sealer {
  const derived = keys.map((text): Key => {
    const of = (use: string): Buffer =>
      Buffer.from(hkdfSync('sha256', text, 'postcard secrets at rest', `${use} 1`, 32));
    return { cipher: of('cipher'), nonce: of('nonce') };
  });
  const bound = (account: number): Buffer => Buffer.from(`account ${account}`);
  return {
    seals: derived.length > 0,
    seal(account, text) {
      const key = derived[0];
      if (key === undefined) return text;
      const nonce = createHmac('sha256', key.nonce).update(`${account}\0${text}`).digest().subarray(0, NONCE);
      const cipher = createCipheriv('aes-256-gcm', key.cipher, nonce).setAAD(bound(account));
      const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
      return MARK + Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url');
    },
    open(account, text) {
      if (!text.startsWith(MARK)) return text;
      const bytes = Buffer.from(text.slice(MARK.length), 'base64url');
      if (bytes.length < NONCE + TAG) return null;
      for (const key of derived) {
        try {
          const cipher = createDecipheriv('aes-256-gcm', key.cipher, bytes.subarray(0, NONCE))
            .setAAD(bound(account))
            .setAuthTag(bytes.subarray(NONCE, NONCE + TAG));
          return Buffer.concat([cipher.update(bytes.subarray(NONCE + TAG)), cipher.final()]).toString('utf8');
        } catch {
          // Not this key's.
        }
      }
      return null;
    },
  };
}

/** What `reseal` did: endpoints whose settings it sealed anew, and those that no key of ours opens. */
export interface Resealed {
  sealed: number;
  shut: number;
}

/** Beside the store's verbs. */
export interface Reseal {
  /**
   * Seals with the newest key what is kept in clear or under an older one, an endpoint at a time; ends early when `stop` says so.
   * Without a key nothing is done. Rejects as the store does.
   */
  reseal(accounts: readonly number[], stop: () => boolean): Promise<Resealed>;
}

/** The same store with sealed secrets. `clock` is asked only when something does not open. */
export function withSealed<S extends Pick<Store, 'endpointList' | 'endpointPut' | 'administer' | 'webhookNext'>>(
  store: S,
  sealer: Sealer,
  { log, clock }: { log: Log; clock: { monotonic(): number } },
): S & Reseal {
  let told = Number.NEGATIVE_INFINITY;

  function shut(account: number, endpoint: string): void {
    if (clock.monotonic() - told < TELL_MS) return;
    told = clock.monotonic();
    log.error(
      { account, endpoint },
      'secrets of an endpoint cannot be opened: POSTCARD_SECRET_KEY is not what they were sealed with; its webhooks wait',
    );
  }

  function headersOf(
    account: number,
    headers: Record<string, string>,
    change: (account: number, text: string) => string | null,
  ): Record<string, string> | null {
    const out: Record<string, string> = {};
    for (const [name, value] of Object.entries(headers)) {
      const changed = change(account, value);
      if (changed === null) return null;
      out[name] = changed;
    }
    return out;
  }

  /** As a list shows it. */
  function shown(account: number, setting: EndpointSetting): EndpointSetting {
    const secrets = setting.secrets.map(({ secret, until }) => ({ secret: sealer.open(account, secret) ?? '', until }));
    return {
      ...setting,
      secrets,
      headers: headersOf(account, setting.headers, (at, text) => sealer.open(at, text) ?? '') as Record<string, string>,
    };
  }

  function sealedPut(put: EndpointPut): EndpointPut {
    const sealed: EndpointPut = { ...put };
    if (put.secret) sealed.secret = { ...put.secret, value: sealer.seal(put.account, put.secret.value) };
    if (put.headers) {
      sealed.headers = headersOf(put.account, put.headers, (at, text) => sealer.seal(at, text)) as Record<
        string,
        string
      >;
    }
    return sealed;
  }

  /** Under the newest key; null = it does not open. */
  const anew = (account: number, text: string): string | null => {
    const open = sealer.open(account, text);
    return open === null ? null : sealer.seal(account, open);
  };

  return {
    ...store,
    async reseal(accounts, stop) {
      const found: Resealed = { sealed: 0, shut: 0 };
      if (!sealer.seals) return found;
      for (const account of accounts) {
        if (stop()) break;
        for (const { kind, url, secrets, headers } of await store.endpointList(account)) {
          const sealed = secrets.map(({ secret, until }) => ({ secret: anew(account, secret), until }));
          const changed = headersOf(account, headers, anew);
          if (changed === null || sealed.some(({ secret }) => secret === null)) {
            found.shut++;
            continue;
          }
          const from = { secrets, headers };
          const to = { secrets: sealed as typeof secrets, headers: changed };
          if (isDeepStrictEqual(from, to)) continue;
          await store.endpointPut({ account, kind, url, reworded: { from, to } });
          found.sealed++;
        }
      }
      return found;
    },
    async endpointList(account: number) {
      return (await store.endpointList(account)).map((setting) => shown(account, setting));
    },
    async endpointPut(put: EndpointPut) {
      const setting = await store.endpointPut(sealedPut(put));
      return setting === null ? null : shown(put.account, setting);
    },
    administer(changes: OperatorChange[], deed: Deed, terms?: AdminTerms) {
      const sealed = changes.map((one) => (one.kind === 'endpoint' ? { ...one, put: sealedPut(one.put) } : one));
      return store.administer(sealed, deed, terms);
    },
    async webhookNext(limit: number, leaseMs: number) {
      const answer = await store.webhookNext(limit, leaseMs);
      const webhooks = answer.webhooks.flatMap((webhook) => {
        const { account, endpoint } = webhook;
        const headers = headersOf(account, endpoint.headers, sealer.open);
        const secrets = endpoint.secrets.map((secret) => sealer.open(account, secret));
        if (headers === null || secrets.includes(null)) {
          shut(account, new URL(endpoint.url).origin);
          return [];
        }
        return [{ ...webhook, endpoint: { ...endpoint, headers, secrets: secrets as string[] } }];
      });
      return { ...answer, webhooks };
    },
  };
}

/**
 * Reseals what these accounts have beside the work; returns what ends it and waits for that. What is left over, the next start finds.
 */
export function startReseal(store: Reseal, accounts: Promise<readonly number[]>, log: Log): () => Promise<void> {
  let stopping = false;
  const done = accounts
    .then((all) => store.reseal(all, () => stopping))
    .then(
      ({ sealed, shut }) => {
        if (sealed > 0) log.info({ endpoints: sealed }, 'secrets of endpoints were sealed with the newest key');
        if (shut > 0)
          log.error({ endpoints: shut }, 'secrets of endpoints cannot be opened: POSTCARD_SECRET_KEY lacks the key');
      },
      (error: unknown) =>
        log.warn({ err: error }, 'secrets of endpoints were not all sealed; the next start tries again'),
    );
  return () => {
    stopping = true;
    return done;
  };
}
