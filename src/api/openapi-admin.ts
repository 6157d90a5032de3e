/**
 * What the OpenAPI document says of the operator's door and of the places where tokens are had: method, path and schemas, as
 * `openapi.ts` has them for customers.
 */
import { z } from 'zod';
import {
  accountBody,
  accountChange,
  adminAnswers,
  applyBody,
  blockBody,
  creditBody,
  domainBody,
  keyBody,
  loginBody,
  pricesBody,
  rerouteBody,
  senderBody,
} from './admin-schema.ts';
import { apiErrorAnswer, endpointAnswer, endpointsAnswer, olderErrorAnswer } from './answers.ts';
import { numberAnswer, numberBody } from './numbers.ts';
import { SESSION, sessionAnswer, sessionBody, TOKEN, tokenAnswer, tokenErrorAnswer } from './sessions.ts';
import { endpointBody, endpointQuery } from './webhooks.ts';

const json = (schema: z.ZodType, description: string) => ({ description, content: { 'application/json': { schema } } });
/** An error, which Accept may want as XML. */
const failure = (schema: z.ZodType, description: string) => ({
  description,
  content: { 'application/json': { schema }, 'application/xml': { schema } },
});

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** One operation for the document. */
export interface Described {
  method: Method;
  url: string;
  schema: object;
}

/** The ways to say who one is; the operator has one of their own. */
export const SECURITY_SCHEMES = {
  APIKeyHeader: {
    type: 'apiKey',
    name: 'Authorization',
    in: 'header',
    description: 'App, a space and the key.',
  },
  Basic: { type: 'http', scheme: 'basic' },
  IBSSOTokenHeader: {
    type: 'apiKey',
    name: 'Authorization',
    in: 'header',
    description: 'IBSSO, a space and the token of a session.',
  },
  OAuth2: { type: 'oauth2', flows: { clientCredentials: { tokenUrl: TOKEN, scopes: {} } } },
  AdminKey: {
    type: 'apiKey',
    name: 'Authorization',
    in: 'header',
    description: 'App, a space and the key of POSTCARD_ADMIN_KEY.',
  },
} as const;

const accountOf = { account: z.string().meta({ description: 'Number or name.' }) };
const { rows } = adminAnswers;

const IF_MATCH = z.object({
  'If-Match': z.string().optional().meta({
    description: 'The ETag of what was read: the change is only made where that still holds, else 412.',
  }),
});
const ONCE = z.object({
  'Idempotency-Key': z.string().min(1).max(255).optional().meta({
    description: 'The same amount under the same key within 24 h is added once.',
  }),
});

function admin(
  method: Method,
  path: string,
  operationId: string,
  summary: string,
  answer: z.ZodType,
  more: { body?: z.ZodType; querystring?: z.ZodType; headers?: z.ZodType; later?: z.ZodType } = {},
): Described {
  const { later, ...said } = more;
  const named = path.includes(':name');
  const params = path.includes(':account')
    ? { params: z.object(named ? { ...accountOf, name: z.string() } : accountOf) }
    : {};
  const failures = [400, 401, 404, 405, 409, ...(more.headers === IF_MATCH ? [412] : []), 413, 415, 500, 503];
  const words = 'As its errorCode and violations say.';
  return {
    method,
    url: `/admin/1/${path}`,
    schema: {
      operationId,
      summary,
      tags: ['Operator'],
      security: [{ AdminKey: [] }],
      ...params,
      ...said,
      response: {
        200: json(answer, 'Done.'),
        ...(later === undefined ? {} : { 202: json(later, 'Nothing is done yet: send the same again.') }),
        ...Object.fromEntries(failures.map((status) => [status, failure(apiErrorAnswer, words)])),
      },
    },
  };
}

/** All of them. */
export function operatorOperations(): Described[] {
  const { account, credit, usage, key, login, sender, domain, block, removed, applied, looking, rerouted, audit } =
    adminAnswers;
  const prices = pricesBody;
  const blockQuery = z.object({ kind: z.enum(['SENDER', 'DESTINATION']), value: z.string() });
  const page = z.object({ limit: z.string().optional(), cursor: z.string().optional() });
  const older = (...statuses: number[]) =>
    Object.fromEntries(statuses.map((status) => [status, failure(olderErrorAnswer, 'As its messageId says.')]));
  return [
    {
      method: 'POST',
      url: SESSION,
      schema: {
        operationId: 'open-session',
        summary: 'Open a session: a token for Authorization: IBSSO, until it is unused for 60 minutes',
        tags: ['Authentication'],
        body: sessionBody,
        response: { 200: json(sessionAnswer, 'Open.'), ...older(400, 401, 405, 413, 415, 429, 500, 503) },
      },
    },
    {
      method: 'DELETE',
      url: SESSION,
      schema: {
        operationId: 'end-session',
        summary: 'End the session of the Authorization header',
        tags: ['Authentication'],
        security: [{ IBSSOTokenHeader: [] }],
        response: { 204: z.undefined().describe('Ended.'), ...older(401, 405, 500, 503) },
      },
    },
    {
      method: 'POST',
      url: TOKEN,
      schema: {
        operationId: 'get-oauth2-token',
        summary: 'A Bearer token for a client id and secret (client credentials)',
        tags: ['Authentication'],
        consumes: ['application/x-www-form-urlencoded'],
        description: 'The client as client_id and client_secret in the form, or by HTTP Basic.',
        body: z.object({
          client_id: z.string().optional(),
          client_secret: z.string().optional(),
          grant_type: z.literal('client_credentials'),
        }),
        response: {
          200: json(tokenAnswer, 'Granted.'),
          400: json(tokenErrorAnswer, 'Not a request for one.'),
          401: json(tokenErrorAnswer, 'No such client, or another secret.'),
          429: json(tokenErrorAnswer, 'Too many wrong secrets, or too many at a time: Retry-After says for how long.'),
          ...older(405, 413, 500, 503),
        },
      },
    },
    admin('GET', 'accounts', 'list-accounts', 'All accounts', rows(account)),
    admin('POST', 'accounts', 'add-account', 'Add an account', account, { body: accountBody }),
    admin('GET', 'accounts/:account', 'get-account', 'One account', account),
    admin('PUT', 'accounts/:account', 'change-account', 'Change what is given; the rest stays', account, {
      body: accountChange,
      headers: IF_MATCH,
    }),
    admin('GET', 'accounts/:account/usage', 'get-usage', 'What it has used of its messages a day and its money', usage),
    admin(
      'POST',
      'accounts/:account/credit',
      'add-credit',
      'Add to its prepaid credit, what it may spend in TOTAL',
      credit,
      {
        body: creditBody,
        headers: ONCE,
      },
    ),
    admin('GET', 'accounts/:account/keys', 'list-keys', 'Its API keys', rows(key)),
    admin('POST', 'accounts/:account/keys', 'add-key', 'Make an API key; shown here and never again', key, {
      body: keyBody,
    }),
    admin('DELETE', 'accounts/:account/keys/:name', 'revoke-key', 'Revoke a key, everywhere within 5 s', key),
    admin('GET', 'accounts/:account/logins', 'list-logins', 'Its users with passwords', rows(login)),
    admin('POST', 'accounts/:account/logins', 'set-login', 'Add a user, or change its password or scopes', login, {
      body: loginBody,
    }),
    admin('DELETE', 'accounts/:account/logins/:name', 'remove-login', 'Remove a user; its sessions end', removed),
    admin('GET', 'accounts/:account/senders', 'list-senders', 'Its registered senders', rows(sender)),
    admin('POST', 'accounts/:account/senders', 'add-sender', 'Register a sender', sender, { body: senderBody }),
    admin('DELETE', 'accounts/:account/senders/:name', 'remove-sender', 'Remove a sender', removed),
    admin('GET', 'accounts/:account/domains', 'list-domains', 'Its domains for links', rows(domain)),
    admin('POST', 'accounts/:account/domains', 'add-domain', 'Give it a domain', domain, { body: domainBody }),
    admin('DELETE', 'accounts/:account/domains/:name', 'remove-domain', 'Take a domain away', removed),
    admin('GET', 'accounts/:account/endpoints', 'list-endpoints', "Its webhooks' endpoints", endpointsAnswer),
    admin(
      'PUT',
      'accounts/:account/endpoints',
      'set-endpoint',
      'Set an endpoint; a new secret is shown here',
      endpointAnswer,
      {
        body: endpointBody(() => null),
      },
    ),
    admin('DELETE', 'accounts/:account/endpoints', 'remove-endpoint', "Forget an endpoint's settings", removed, {
      querystring: endpointQuery,
    }),
    admin('GET', 'accounts/:account/prices', 'get-prices', 'Its price list', prices),
    admin('PUT', 'accounts/:account/prices', 'set-prices', 'Set the whole price list', prices, {
      body: pricesBody,
      headers: IF_MATCH,
    }),
    admin('GET', 'accounts/:account/blocks', 'list-blocks', 'Senders and destinations that are refused', rows(block)),
    admin('POST', 'accounts/:account/blocks', 'add-block', 'Refuse one; account "all" = for all accounts', block, {
      body: blockBody,
    }),
    admin('DELETE', 'accounts/:account/blocks', 'remove-block', 'Refuse it no more', removed, {
      querystring: blockQuery,
    }),
    admin('POST', 'apply', 'apply-accounts', 'Accounts as they shall be; again changes nothing', applied, {
      body: applyBody(() => null),
      querystring: z.object({ dryRun: z.enum(['true', 'false']).optional() }),
      later: looking,
    }),
    admin('GET', 'numbers', 'list-numbers', 'All numbers of ours', rows(numberAnswer)),
    admin('GET', 'accounts/:account/numbers', 'list-account-numbers', 'Its numbers', rows(numberAnswer)),
    admin('POST', 'accounts/:account/numbers', 'set-number', 'Set all of a number that it has', numberAnswer, {
      body: numberBody,
    }),
    admin('DELETE', 'accounts/:account/numbers/:name', 'remove-number', 'Take a number away', removed),
    admin('POST', 'reroute', 'reroute', 'One step: what waits for a carrier goes to another', rerouted, {
      body: rerouteBody,
    }),
    admin('GET', 'audit', 'get-audit-log', 'What operators did, newest first', audit, { querystring: page }),
  ];
}
