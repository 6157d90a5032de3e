/**
 * HTTP Digest (RFC 7616, and RFC 2069's form without qop) for one peer: answers its challenges with MD5 or SHA-256, each also as
 * `-sess`, qop `auth`, and `auth-int` where the peer offers nothing else (it costs a hash of the whole body). A nonce is used
 * again, counted up, until the peer gives another.
 *
 * Promises: the strongest algorithm that the peer offers and we know; nothing of the password leaves but in hashes. Fails: a
 * challenge that cannot be answered (another scheme, another algorithm, another qop) is a value.
 */
import { createHash } from 'node:crypto';

export interface Digest {
  /** `value` of Authorization for this request, and the nonce in it; null = there is no challenge to answer yet. `body`: its pieces. */
  authorize(method: string, uri: string, body?: readonly Uint8Array[]): { value: string; nonce: string } | null;
  /**
   * Reads WWW-Authenticate of a 401. True = it holds a challenge that can be answered, and another one than the request showed
   * (`shown`, null = none): the same again says that the answer was wrong.
   */
  challenged(values: readonly string[], shown: string | null): boolean;
  /** Reads Authentication-Info: the peer may name the nonce of the next request. */
  informed(value: string | undefined): void;
}

interface Challenge {
  realm: string;
  nonce: string;
  opaque: string | null;
  algorithm: (typeof ALGORITHMS)[number];
  /** Null = the peer knows none. */
  qop: 'auth' | 'auth-int' | null;
  /** Requests that showed it. */
  count: number;
}

/** Best first. */
const ALGORITHMS = ['SHA-256-sess', 'SHA-256', 'MD5-sess', 'MD5'] as const;

/** Cheapest first. */
const QOPS = ['auth', 'auth-int'] as const;

/** `bytes` gives unpredictable bytes. */
export function createDigest(username: string, password: string, bytes: (n: number) => Uint8Array): Digest {
  let current: Challenge | null = null;
  return {
    authorize(method, uri, body = []) {
      if (current === null) return null;
      current.count++;
      const cnonce = Buffer.from(bytes(16)).toString('hex');
      const value = answer(current, { method, uri, body }, { username, password, cnonce });
      return { value, nonce: current.nonce };
    },
    challenged(values, shown) {
      const offers = values.flatMap(readChallenges).filter((one) => one !== null);
      offers.sort((a, b) => ALGORITHMS.indexOf(a.algorithm) - ALGORITHMS.indexOf(b.algorithm));
      const best = offers[0];
      if (best === undefined || best.nonce === shown) return false;
      // Another request may have brought the same one a moment ago: it is counted on.
      if (current?.nonce !== best.nonce) current = best;
      return true;
    },
    informed(value) {
      if (current === null || value === undefined) return;
      const nonce = parameters(value).nextnonce;
      if (nonce) current = { ...current, nonce, count: 0 };
    },
  };
}

function answer(
  challenge: Challenge,
  { method, uri, body }: { method: string; uri: string; body: readonly Uint8Array[] },
  { username, password, cnonce }: { username: string; password: string; cnonce: string },
): string {
  const { realm, nonce, opaque, algorithm, qop, count } = challenge;
  const hash = (...pieces: (string | Uint8Array)[]): string => {
    const made = createHash(algorithm.startsWith('MD5') ? 'md5' : 'sha256');
    for (const piece of pieces) made.update(piece);
    return made.digest('hex');
  };
  let secret = hash(`${username}:${realm}:${password}`);
  if (algorithm.endsWith('-sess')) secret = hash(`${secret}:${nonce}:${cnonce}`);
  const request = qop === 'auth-int' ? hash(`${method}:${uri}:${hash(...body)}`) : hash(`${method}:${uri}`);
  const nc = count.toString(16).padStart(8, '0');
  const response = qop
    ? hash(`${secret}:${nonce}:${nc}:${cnonce}:${qop}:${request}`)
    : hash(`${secret}:${nonce}:${request}`);
  const fields = [
    `username=${quoted(username)}`,
    `realm=${quoted(realm)}`,
    `nonce=${quoted(nonce)}`,
    `uri=${quoted(uri)}`,
    `algorithm=${algorithm}`,
    `response="${response}"`,
  ];
  if (opaque !== null) fields.push(`opaque=${quoted(opaque)}`);
  if (qop) fields.push(`qop=${qop}`, `nc=${nc}`);
  if (qop || algorithm.endsWith('-sess')) fields.push(`cnonce="${cnonce}"`);
  return `Digest ${fields.join(', ')}`;
}

/** Latin-1 as headers are written; quotes and backslashes escaped. */
function quoted(value: string): string {
  return `"${Buffer.from(value, 'utf8').toString('latin1').replace(/["\\]/g, '\\$&')}"`;
}

/** Of one header value, which may hold several challenges. */
function readChallenges(value: string): (Challenge | null)[] {
  return value
    .slice(0, 8192)
    .split(/(?:^|,)\s*(?=[A-Za-z][A-Za-z0-9-]*\s+[A-Za-z])/)
    .map((text) => text.trim())
    .filter((text) => /^digest\s/i.test(text))
    .map((text) => {
      const { realm, nonce, opaque, qop, algorithm: name = 'MD5' } = parameters(text.slice(7));
      const algorithm = ALGORITHMS.find((one) => one.toLowerCase() === name.toLowerCase());
      const offered = qop?.toLowerCase().split(/[\s,]+/);
      const chosen = offered === undefined ? null : QOPS.find((one) => offered.includes(one));
      if (!nonce || algorithm === undefined || chosen === undefined) return null;
      return {
        realm: realm ?? '',
        nonce,
        opaque: opaque ?? null,
        algorithm,
        qop: chosen,
        count: 0,
      };
    });
}

/** `name=value` and `name="value"`, comma between them. */
function parameters(text: string): Record<string, string> {
  const found: Record<string, string> = Object.create(null);
  for (const [, name, inQuotes, plain] of text.matchAll(
    /([A-Za-z*-]{1,40})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g,
  )) {
    const key = (name as string).toLowerCase();
    if (!(key in found)) found[key] = inQuotes === undefined ? (plain as string) : inQuotes.replace(/\\(.)/g, '$1');
  }
  return found;
}
