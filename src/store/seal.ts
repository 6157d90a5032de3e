/**
 * Secrets at rest: what signs our webhooks and the headers that customers gave for their endpoints (often an Authorization) are
 * kept sealed, with a key from the environment that is not in the database. Between the store and everyone: who asks the store
 * gets them open, whoever has a dump or a backup has nothing.
 *
 * Promises: AES-256-GCM, bound to the account, so that a sealed value copied into another account's row does not open. The same
 * value sealed again gives the same text (its nonce is a MAC of it), so that the store still sees when nothing changed; a
 * stranger sees only that. What was kept before there was a key is read as it is, and sealed by the next change.
 *
 * Fails: what cannot be opened (another key, or none any more) is never used: such an endpoint's webhooks stay until it can, and
 * the log says so; in lists it is shown as nothing.
 */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync } from 'node:crypto';
import type { Log } from '../env.ts';
import type { EndpointPut, EndpointSetting, Store } from './contract.ts';

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

/** The same store with sealed secrets. `clock` is asked only when something does not open. */
export function withSealed<S extends Pick<Store, 'endpointList' | 'endpointPut' | 'webhookNext'>>(
  store: S,
  sealer: Sealer,
  { log, clock }: { log: Log; clock: { monotonic(): number } },
): S {
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

  return {
    ...store,
    async endpointList(account: number) {
      return (await store.endpointList(account)).map((setting) => shown(account, setting));
    },
    async endpointPut(put: EndpointPut) {
      const sealed: EndpointPut = { ...put };
      if (put.secret) sealed.secret = { ...put.secret, value: sealer.seal(put.account, put.secret.value) };
      if (put.headers) {
        sealed.headers = headersOf(put.account, put.headers, (at, text) => sealer.seal(at, text)) as Record<
          string,
          string
        >;
      }
      const setting = await store.endpointPut(sealed);
      return setting === null ? null : shown(put.account, setting);
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
