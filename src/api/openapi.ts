/**
 * What the OpenAPI document says of each operation. The schemas are those that validate requests and that tests hold answers
 * against, so the document cannot drift from what the server does.
 */
import { z } from 'zod';
import {
  addedAnswer,
  apiErrorAnswer,
  bulkAnswer,
  bulkStatusAnswer,
  bulksAnswer,
  deletedAnswer,
  deliveriesAnswer,
  endpointAnswer,
  endpointsAnswer,
  inboxAnswer,
  logsAnswer,
  olderAnswer,
  olderErrorAnswer,
  olderSendAnswer,
  optOutsAnswer,
  rearmAnswer,
  removedAnswer,
  replayAnswer,
  reportsAnswer,
  sendAnswer,
  storyAnswer,
  uploadAnswer,
  uploadErrorAnswer,
} from './answers.ts';
import { bulkBody, bulkQuery, bulkStatusBody, bulksQuery } from './bulks.ts';
import { clicksAnswer, clicksQuery } from './clicks.ts';
import { inboxQuery, optOutQuery, optOutsBody, optOutsQuery } from './inbox.ts';
import { eventsQuery, logsQuery, reportsQuery, word } from './queries.ts';
import { type SendSettings, sendSchema } from './schema.ts';
import { deliveriesQuery, endpointBody, endpointQuery, rearmBody, replayBody } from './webhooks.ts';

const json = (schema: z.ZodType, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});

const WORDS: Record<number, string> = {
  400: 'The request is not valid; violations say what and where.',
  401: 'No or a wrong API key.',
  403: 'The key may not do this.',
  404: 'There is no such thing.',
  405: 'Another method is needed; see the Allow header.',
  409: 'Conflicts with what exists.',
  413: 'The body is too large.',
  415: 'The body is not application/json in UTF-8.',
  429: 'Too many requests; see Retry-After.',
  500: 'Our fault.',
  503: 'Not now; nothing was done. See Retry-After.',
};

/** What whatever needs a key may say, besides 401. */
const BEHIND_THE_GATE = [403, 405, 429, 500, 503];

/** Errors of one schema: as JSON, and as XML where Accept prefers it (but for an upload's own form). */
function errors(schema: z.ZodType, ...statuses: number[]) {
  const all = statuses.includes(401) ? [...new Set([...statuses, ...BEHIND_THE_GATE])].sort() : statuses;
  return Object.fromEntries(
    all.map((status) => {
      const one = json(schema, WORDS[status] as string);
      const content = schema === uploadErrorAnswer ? one.content : { ...one.content, 'application/xml': { schema } };
      return [status, { ...one, content }];
    }),
  );
}

const SECURITY: Record<string, string[]>[] = [
  { APIKeyHeader: [] },
  { Basic: [] },
  { IBSSOTokenHeader: [] },
  { OAuth2: [] },
];
const plain = (description: string, ...types: string[]) => ({
  description,
  content: Object.fromEntries(types.map((type) => [type, { schema: z.string() }])),
});

/** Fastify route schemas by operation. Made anew for each server: limits are settings. */
export function operations(settings: SendSettings) {
  return {
    send: {
      operationId: 'send-mms-messages',
      summary: 'Send MMS messages',
      description:
        'Sends messages to one or more destinations. A 200 means that all of it is durably stored; look at each status, since ' +
        'a destination may be REJECTED in it.',
      tags: ['Send'],
      security: SECURITY,
      headers: z.object({
        'Idempotency-Key': z.string().min(1).max(255).optional().meta({
          description: 'The same body under the same key within 24 h gives the same answer and sends nothing.',
        }),
      }),
      body: sendSchema(settings, { now: 0 }),
      response: {
        200: json(sendAnswer, 'Accepted.'),
        ...errors(apiErrorAnswer, 400, 401, 403, 405, 409, 413, 415, 429, 500, 503),
      },
    },
    story: {
      operationId: 'get-mms-message',
      summary: 'The whole life of one message',
      tags: ['Reports and logs'],
      security: SECURITY,
      params: z.object({ messageId: z.string() }),
      response: { 200: json(storyAnswer, 'Found.'), ...errors(apiErrorAnswer, 401, 404, 500, 503) },
    },
    reports: {
      operationId: 'get-outbound-mms-message-delivery-reports',
      summary: 'Get outbound MMS message delivery reports',
      description: 'Final reports that no webhook is due for. Each is given once.',
      tags: ['Reports and logs'],
      security: SECURITY,
      querystring: reportsQuery,
      response: { 200: json(reportsAnswer, 'Newest first.'), ...errors(apiErrorAnswer, 400, 401, 403, 500, 503) },
    },
    logs: {
      operationId: 'get-outbound-mms-message-logs',
      summary: 'Get outbound MMS message logs',
      tags: ['Reports and logs'],
      security: SECURITY,
      querystring: logsQuery,
      response: { 200: json(logsAnswer, 'Newest first.'), ...errors(apiErrorAnswer, 400, 401, 403, 429, 500, 503) },
    },
    bulks: {
      operationId: 'get-mms-bulks',
      summary: 'A bulk with its progress, or the list of bulks',
      description:
        'Without bulkId: bulks that have a bulkId, a schedule or a speed limit of their own, or were steered or joined, newest first.',
      tags: ['Bulks'],
      security: SECURITY,
      querystring: bulksQuery,
      response: {
        200: json(z.union([bulkAnswer, bulksAnswer]), 'Found.'),
        ...errors(apiErrorAnswer, 400, 401, 404, 500, 503),
      },
    },
    changeBulk: {
      operationId: 'change-mms-bulk',
      summary: 'Move a bulk to another instant, or change its speed limit',
      tags: ['Bulks'],
      security: SECURITY,
      querystring: bulkQuery,
      body: bulkBody({ now: 0 }),
      response: {
        200: json(bulkAnswer, 'Changed, or so already.'),
        ...errors(apiErrorAnswer, 400, 401, 404, 409, 413, 415, 500, 503),
      },
    },
    bulkStatus: {
      operationId: 'get-mms-bulk-status',
      summary: 'The status of a bulk',
      tags: ['Bulks'],
      security: SECURITY,
      querystring: bulkQuery,
      response: { 200: json(bulkStatusAnswer, 'Found.'), ...errors(apiErrorAnswer, 400, 401, 404, 500, 503) },
    },
    changeBulkStatus: {
      operationId: 'change-mms-bulk-status',
      summary: 'Pause, resume or cancel a bulk',
      tags: ['Bulks'],
      security: SECURITY,
      querystring: bulkQuery,
      body: bulkStatusBody,
      response: {
        200: json(bulkStatusAnswer, 'Changed, or so already.'),
        ...errors(apiErrorAnswer, 400, 401, 404, 409, 413, 415, 500, 503),
      },
    },
    advanced: {
      operationId: 'send-mms-message',
      summary: 'Send MMS message',
      description:
        'Deprecated: POST /mms/2/messages takes its place. Body and answer as the first version had them, in JSON or XML (root ' +
        'MmsAdvancedRequest).',
      deprecated: true,
      tags: ['Send'],
      security: SECURITY,
      body: z.looseObject({ bulkId: z.string().optional(), messages: z.array(z.looseObject({})) }),
      response: {
        200: {
          description: 'Accepted.',
          content: { 'application/json': { schema: olderSendAnswer }, 'application/xml': { schema: olderSendAnswer } },
        },
        ...errors(olderErrorAnswer, 400, 401, 403, 413, 415, 429, 500, 503),
      },
    },
    olderReports: {
      operationId: 'deprecated-get-outbound-mms-message-delivery-reports',
      summary: 'Get outbound MMS message delivery reports',
      description:
        'Deprecated: GET /mms/2/reports takes its place. Each report is given once, by whichever of the two.',
      deprecated: true,
      tags: ['Reports and logs'],
      security: SECURITY,
      querystring: reportsQuery,
      response: { 200: json(olderAnswer, 'Newest first.'), ...errors(olderErrorAnswer, 400, 401, 403, 500, 503) },
    },
    olderLogs: {
      operationId: 'deprecated-get-outbound-mms-message-logs',
      summary: 'Get outbound MMS message logs',
      description: 'Deprecated: GET /mms/2/logs takes its place.',
      deprecated: true,
      tags: ['Reports and logs'],
      security: SECURITY,
      querystring: logsQuery
        .omit({ sender: true, destination: true })
        .extend({ from: word.optional(), to: word.optional() }),
      response: { 200: json(olderAnswer, 'Newest first.'), ...errors(olderErrorAnswer, 400, 401, 403, 429, 500, 503) },
    },
    clicks: {
      operationId: 'get-mms-clicks',
      summary: 'How often short links were opened',
      tags: ['Reports and logs'],
      security: SECURITY,
      querystring: clicksQuery,
      response: { 200: json(clicksAnswer, 'Found.'), ...errors(apiErrorAnswer, 400, 401, 403, 404, 500, 503) },
    },
    inbox: {
      operationId: 'get-inbound-mms-messages',
      summary: 'Get inbound MMS messages',
      description: 'Messages from handsets that no webhook is due for. Each is given once, oldest first.',
      tags: ['Inbound'],
      security: SECURITY,
      querystring: inboxQuery,
      response: { 200: json(inboxAnswer, 'Oldest first.'), ...errors(olderErrorAnswer, 400, 401, 403, 500, 503) },
    },
    part: {
      operationId: 'get-inbound-mms-content',
      summary: 'One part of an inbound message, by the URL that told of it',
      tags: ['Inbound'],
      params: z.object({ token: z.string() }),
      response: {
        200: plain('Its bytes, under its own content type.', 'application/octet-stream'),
        ...errors(olderErrorAnswer, 404, 500, 503),
      },
    },
    optOuts: {
      operationId: 'get-mms-opt-outs',
      summary: 'Who wants nothing from which sender',
      tags: ['Inbound'],
      security: SECURITY,
      querystring: optOutsQuery,
      response: { 200: json(optOutsAnswer, 'By destination.'), ...errors(olderErrorAnswer, 400, 401, 500, 503) },
    },
    addOptOuts: {
      operationId: 'add-mms-opt-outs',
      summary: 'Add opt-outs: messages to them are REJECTED',
      tags: ['Inbound'],
      security: SECURITY,
      body: optOutsBody,
      response: {
        200: json(addedAnswer, 'How many are new.'),
        ...errors(olderErrorAnswer, 400, 401, 413, 415, 500, 503),
      },
    },
    deleteOptOut: {
      operationId: 'delete-mms-opt-out',
      summary: 'Lift an opt-out',
      tags: ['Inbound'],
      security: SECURITY,
      querystring: optOutQuery,
      response: { 200: json(removedAnswer, 'Lifted.'), ...errors(olderErrorAnswer, 400, 401, 404, 500, 503) },
    },
    deliveries: {
      operationId: 'get-webhook-deliveries',
      summary: 'Webhooks with their attempts, newest first',
      tags: ['Webhooks'],
      security: SECURITY,
      querystring: deliveriesQuery,
      response: { 200: json(deliveriesAnswer, 'Found.'), ...errors(apiErrorAnswer, 400, 401, 500, 503) },
    },
    replayOne: {
      operationId: 'replay-webhook',
      summary: 'Make one webhook again: the same bytes and id',
      tags: ['Webhooks'],
      security: SECURITY,
      params: z.object({ id: z.string() }),
      response: { 200: json(replayAnswer, 'It is due.'), ...errors(apiErrorAnswer, 401, 404, 500, 503) },
    },
    replay: {
      operationId: 'replay-webhooks',
      summary: 'Make the webhooks of a time, or all of an endpoint, again',
      description: 'In bounded steps: where the answer has a cursor, more is left; repeat the request with it.',
      tags: ['Webhooks'],
      security: SECURITY,
      body: replayBody,
      response: {
        200: json(replayAnswer, 'How many are due.'),
        ...errors(apiErrorAnswer, 400, 401, 413, 415, 500, 503),
      },
    },
    rearm: {
      operationId: 'rearm-pulled',
      summary: 'Give again what was pulled by a request whose answer was lost',
      tags: ['Webhooks'],
      security: SECURITY,
      body: rearmBody,
      response: {
        200: json(rearmAnswer, 'How many can be pulled.'),
        ...errors(apiErrorAnswer, 400, 401, 413, 415, 500, 503),
      },
    },
    endpoints: {
      operationId: 'get-webhook-endpoints',
      summary: "The account's endpoints",
      tags: ['Webhooks'],
      security: SECURITY,
      response: { 200: json(endpointsAnswer, 'By kind and URL.'), ...errors(apiErrorAnswer, 401, 500, 503) },
    },
    putEndpoint: {
      operationId: 'put-webhook-endpoint',
      summary: 'Set an endpoint: default, form, headers, secret',
      tags: ['Webhooks'],
      security: SECURITY,
      body: endpointBody(() => null),
      response: {
        200: json(endpointAnswer, 'Set. A secret that was made is shown here and never again.'),
        ...errors(apiErrorAnswer, 400, 401, 409, 413, 415, 500, 503),
      },
    },
    deleteEndpoint: {
      operationId: 'delete-webhook-endpoint',
      summary: "Forget an endpoint's settings",
      tags: ['Webhooks'],
      security: SECURITY,
      querystring: endpointQuery,
      response: { 200: json(deletedAnswer, 'Forgotten.'), ...errors(apiErrorAnswer, 400, 401, 404, 500, 503) },
    },
    events: {
      operationId: 'follow-mms-events',
      summary: 'Follow status changes as server-sent events',
      description: 'Each event carries a delivery report. Resumes after the event that Last-Event-ID names.',
      tags: ['Reports and logs'],
      security: SECURITY,
      querystring: eventsQuery,
      headers: z.object({ 'Last-Event-ID': z.string().optional() }),
      response: {
        200: plain('A stream that does not end.', 'text/event-stream'),
        ...errors(apiErrorAnswer, 400, 401, 429, 500),
      },
    },
    content: {
      operationId: 'upload-binary',
      summary: 'Upload content for UPLOADED_REFERENCE segments',
      tags: ['Content'],
      security: SECURITY,
      headers: z.object({
        'X-Content-Id': z.string().max(255).meta({ example: 'image_1_jpg' }),
        'X-Media-Type': z.string().max(255).meta({ example: 'image/jpeg' }),
        'X-Validity-Period-Minutes': z
          .number()
          .int()
          .min(1)
          .max(525_600)
          .optional()
          .meta({ type: 'integer', format: 'int64', default: 69_120 }),
      }),
      body: z.string().meta({ format: 'binary', description: 'The bytes.' }),
      consumes: ['application/octet-stream'],
      response: {
        200: json(uploadAnswer, 'Stored.'),
        ...errors(uploadErrorAnswer, 400),
        ...errors(olderErrorAnswer, 401, 403, 405, 413, 415, 500, 503),
      },
    },
    livez: {
      operationId: 'livez',
      summary: 'The process runs',
      tags: ['Operation'],
      response: { 200: plain('It does.', 'text/plain') },
    },
    readyz: {
      operationId: 'readyz',
      summary: 'Messages can be taken',
      tags: ['Operation'],
      response: { 200: plain('They can.', 'text/plain'), 503: plain('They cannot.', 'text/plain') },
    },
    metrics: {
      operationId: 'metrics',
      summary: "Figures in Prometheus' text format",
      description:
        'For the networks of POSTCARD_METRICS_ALLOW (loopback unless set), and with POSTCARD_METRICS_TOKEN as Bearer.',
      tags: ['Operation'],
      response: { 200: plain('All figures.', 'text/plain'), ...errors(apiErrorAnswer, 401, 403) },
    },
    openapi: {
      operationId: 'openapi',
      summary: 'This document',
      tags: ['Operation'],
      response: { 200: json(z.record(z.string(), z.unknown()), 'OpenAPI 3.1.') },
    },
  };
}

type Json = { [name: string]: unknown };

/**
 * The document without components that nobody refers to (each schema is generated once for each direction), and with plain
 * names for those that exist in one direction only.
 */
export function tidy(document: Json): Json {
  const components = document.components as { schemas: Json };
  const kept: Json = {};
  const keep = (part: unknown): void => {
    for (const [, name = ''] of JSON.stringify(part).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (name in kept) continue;
      kept[name] = components.schemas[name];
      keep(kept[name]);
    }
  };
  keep(document.paths);
  let text = JSON.stringify({ ...document, components: { ...components, schemas: kept } });
  for (const name of Object.keys(kept)) {
    const plainName = name.replace(/Input$/, '');
    if (plainName === name || plainName in kept) continue;
    text = text.replaceAll(`"#/components/schemas/${name}"`, `"#/components/schemas/${plainName}"`);
    text = text.replaceAll(`"${name}":{`, `"${plainName}":{`);
  }
  return JSON.parse(text) as Json;
}
