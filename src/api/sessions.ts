/**
 * Where credentials are had: POST and DELETE /auth/1/session (IBSSO), POST /auth/1/oauth2/token (client credentials, RFC 6749
 * 4.4). Both take a user with a password.
 *
 * Promises: a token is shown once and kept hashed; a wrong password tells nothing of whether the user exists.
 *
 * Fails: `body` rejects with StoreUnavailable (503) or a bug (500).
 */
import type { IncomingMessage } from 'node:http';
import { parse as parseForm } from 'node:querystring';
import { z } from 'zod';
import { type Auth, TOKEN_SECONDS } from './auth.ts';
import { type Answer, JSON_HEADERS, olderError, tooMany, unauthorized } from './errors.ts';
import { ok, refusal, valid } from './intake.ts';
import { parseJson } from './json.ts';
import { isEncoded, isJson } from './messages.ts';

export const SESSION = '/auth/1/session';
export const TOKEN = '/auth/1/oauth2/token';

const BODY_MAX = 16 * 1024;

/** What opens a session. `unsafe` is a client's own; it is not asked. */
export const sessionBody = z.object({
  username: z.string().min(1).max(255),
  password: z.string().min(1).max(1024),
  unsafe: z.boolean().optional(),
});

/** The answer to it. */
export const sessionAnswer = z.strictObject({ token: z.string() }).meta({ id: 'Session' });

/** The answer to a token's request. */
export const tokenAnswer = z
  .strictObject({ access_token: z.string(), expires_in: z.number(), token_type: z.literal('Bearer') })
  .meta({ id: 'OAuthToken' });

/** The error of a token's request, RFC 6749 5.2. */
export const tokenErrorAnswer = z
  .strictObject({ error: z.string(), error_description: z.string() })
  .meta({ id: 'OAuthError' });

/** One request for or about a token. */
export interface TokenIntake {
  limit: number;
  body(request: IncomingMessage, bytes: Buffer): Promise<Answer>;
}

const oauthError = (status: number, error: string, words: string, headers: Record<string, string> = {}): Answer => ({
  status,
  headers: { ...JSON_HEADERS, ...headers },
  body: JSON.stringify({ error, error_description: words }),
});

/** RFC 6749 has no error for 429 here; the name is that of 4.1.2.1, "temporary overloading", which its clients know. */
const oauthBusy = (seconds: number): Answer =>
  oauthError(429, 'temporarily_unavailable', `Too many requests. Ask again in ${seconds} s.`, {
    'retry-after': String(seconds),
  });

/** A client's id and secret in an Authorization header (RFC 6749, 2.3.1), null = there are none. */
function basicClient(authorization: string | undefined): [string, string] | null {
  const found = /^basic +([A-Za-z0-9+/=]{1,2000}) *$/i.exec(authorization ?? '');
  if (found === null) return null;
  const text = Buffer.from(found[1] as string, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 0 ? null : [decoded(text.slice(0, colon)), decoded(text.slice(colon + 1))];
}

/** They ought to be encoded as in a form; most clients send them as they are. */
function decoded(part: string): string {
  return /%[\da-f]{2}/i.test(part) ? (parseForm(`x=${part.replaceAll('&', '%26')}`).x as string) : part;
}

/** The intakes by method and path; null = none of these. */
export function createSessions(auth: Auth, addressOf: (request: IncomingMessage) => string) {
  async function open(request: IncomingMessage, bytes: Buffer): Promise<Answer> {
    if (!isJson(request.headers['content-type']) || isEncoded(request.headers)) return olderError('E415');
    const parsed = parseJson(bytes);
    if (!parsed.ok) return olderError('E400');
    const read = valid(sessionBody, parsed.value);
    if (!read.ok) return refusal('/mms/1/', read.violations);
    const { username, password } = read.value;
    const opened = await auth.open(username, password, 'IBSSO', addressOf(request));
    if (opened === null) return unauthorized(SESSION);
    return 'busyS' in opened ? tooMany(SESSION, opened.busyS) : ok(opened);
  }

  async function end(request: IncomingMessage): Promise<Answer> {
    const ended = await auth.end(request.headers.authorization);
    if (!ended) return unauthorized(SESSION);
    return { status: 204, headers: { 'cache-control': 'no-store' }, body: '' };
  }

  async function grant(request: IncomingMessage, bytes: Buffer): Promise<Answer> {
    const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
    if (type !== 'application/x-www-form-urlencoded' || isEncoded(request.headers)) {
      return oauthError(400, 'invalid_request', 'The body must be application/x-www-form-urlencoded.');
    }
    const form = parseForm(bytes.toString('utf8'));
    const one = (name: string): string => (typeof form[name] === 'string' ? form[name] : '');
    if (one('grant_type') === '') return oauthError(400, 'invalid_request', 'grant_type must be given, once.');
    if (one('grant_type') !== 'client_credentials') {
      return oauthError(400, 'unsupported_grant_type', 'grant_type must be client_credentials.');
    }
    const named = form.client_id !== undefined || form.client_secret !== undefined;
    const basic = basicClient(request.headers.authorization);
    // One way or the other, never both (2.3).
    const [user, password] = basic === null || named ? [one('client_id'), one('client_secret')] : basic;
    if (user === '' || password === '' || user.length > 255 || password.length > 1024 || (basic !== null && named)) {
      return oauthError(400, 'invalid_request', 'client_id and client_secret must be given once each, or as Basic.');
    }
    const opened = await auth.open(user, password, 'OAUTH', addressOf(request));
    if (opened !== null && 'busyS' in opened) return oauthBusy(opened.busyS);
    if (opened === null) {
      const scheme = { 'www-authenticate': 'Basic' };
      return oauthError(401, 'invalid_client', 'No such client, or another secret.', scheme);
    }
    const granted = ok({ access_token: opened.token, expires_in: TOKEN_SECONDS, token_type: 'Bearer' });
    // For caches older than Cache-Control (RFC 6749, 5.1).
    return { ...granted, headers: { ...granted.headers, pragma: 'no-cache' } };
  }

  return (method: string, path: string): TokenIntake | null => {
    if (path === TOKEN && method === 'POST') return { limit: BODY_MAX, body: grant };
    if (path !== SESSION) return null;
    return { limit: BODY_MAX, body: method === 'DELETE' ? end : open };
  };
}
