/**
 * The schemas of what the API answers, as the published OpenAPI has them. They document and are held against every answer
 * in tests; at run time nothing is checked against them.
 */
import { z } from 'zod';
import { ERROR_GROUPS, STATUS_GROUPS } from '../domain/codes.ts';

const int32 = z.int32();
const instant = z
  .string()
  .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000$/)
  .meta({ format: 'date-time', example: '2026-07-07T06:32:15.101+0000' });

export const statusView = z
  .strictObject({
    groupId: int32,
    groupName: z.enum(STATUS_GROUPS),
    id: int32,
    name: z.string(),
    description: z.string(),
    action: z.string().optional(),
  })
  .meta({ id: 'MessageStatus' });

export const errorView = z
  .strictObject({
    groupId: int32,
    groupName: z.enum(ERROR_GROUPS),
    id: int32,
    name: z.string(),
    description: z.string(),
    permanent: z.boolean(),
  })
  .meta({ id: 'MessageError' });

export const sendAnswer = z
  .strictObject({
    bulkId: z.string(),
    messages: z.array(
      z
        .strictObject({ messageId: z.string(), status: statusView, destination: z.string() })
        .meta({ id: 'SentMessage' }),
    ),
  })
  .meta({ id: 'SendAnswer' });

const price = z.strictObject({ pricePerMessage: z.number(), currency: z.string() }).meta({ id: 'MessagePrice' });
const platform = z
  .strictObject({ entityId: z.string().optional(), applicationId: z.string().optional() })
  .meta({ id: 'Platform' });

export const reportView = z
  .strictObject({
    bulkId: z.string(),
    price,
    status: statusView,
    error: errorView,
    messageId: z.string(),
    to: z.string(),
    sender: z.string(),
    sentAt: instant,
    doneAt: instant,
    messageCount: int32,
    channel: z.literal('SMS').optional().meta({ description: 'Only where the message went as its SMS failover.' }),
    mccMnc: z.string().optional(),
    callbackData: z.string().optional(),
    platform: platform.optional(),
    campaignReferenceId: z.string().optional(),
  })
  .meta({ id: 'DeliveryReport' });

export const reportsAnswer = z.strictObject({ results: z.array(reportView) }).meta({ id: 'DeliveryReports' });

const contentId = z.string().optional();
const logSegment = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('TEXT'), contentId, text: z.string() }),
  z.strictObject({ type: z.literal('LINK'), contentId, contentUrl: z.string(), contentType: z.string().optional() }),
  z.strictObject({ type: z.literal('SMIL'), contentId, smil: z.string(), contentType: z.string() }),
  z.strictObject({ type: z.literal('UPLOADED_REFERENCE'), contentId, uploadedContentId: z.string() }),
]);

export const logView = z
  .strictObject({
    title: z.string().optional(),
    mccMnc: z.string().optional(),
    sender: z.string(),
    destination: z.string(),
    bulkId: z.string(),
    messageId: z.string(),
    sentAt: instant,
    doneAt: instant,
    messageCount: int32,
    price,
    status: statusView,
    error: errorView,
    platform: platform.optional(),
    content: z.strictObject({ title: z.string().optional(), messageSegments: z.array(logSegment) }),
    campaignReferenceId: z.string().optional(),
    channel: z.literal('SMS').optional().meta({ description: 'Only where the message went as its SMS failover.' }),
  })
  .meta({ id: 'MessageLog' });

export const logsAnswer = z
  .strictObject({
    results: z.array(logView),
    cursor: z.strictObject({ limit: int32, nextCursor: z.string().optional() }).optional(),
  })
  .meta({ id: 'MessageLogs' });

/** The story of one message: ours, not in the published API. */
export const storyAnswer = z
  .strictObject({
    messageId: z.string(),
    bulkId: z.string(),
    to: z.string(),
    sender: z.string(),
    channel: z.enum(['MMS', 'SMS']).meta({ description: 'The one that it is on, or ended on.' }),
    mccMnc: z.string().optional(),
    acceptedAt: instant,
    sentAt: instant.nullable(),
    doneAt: instant.nullable(),
    status: statusView,
    error: errorView,
    waiting: z
      .strictObject({ until: instant.nullable(), why: z.string(), carrier: z.string().optional() })
      .nullable()
      .meta({ description: 'What an open message waits for; null when it is final.' }),
    ended: z
      .strictObject({ at: instant, why: z.string() })
      .nullable()
      .meta({ description: 'Why a final message is what it is; null while it is open.' }),
    validUntil: instant.nullable(),
    messageCount: int32,
    price,
    platform: platform.optional(),
    campaignReferenceId: z.string().optional(),
    callbackData: z.string().optional(),
    content: z.strictObject({ title: z.string().optional(), messageSegments: z.array(logSegment) }),
    attempts: z.array(
      z.strictObject({
        attempt: int32.meta({ description: 'Counted by channel.' }),
        channel: z.enum(['MMS', 'SMS']),
        at: instant,
        tookMs: int32,
        carrier: z.string(),
        outcome: z.enum(['accepted', 'deferred', 'throttled', 'refused', 'contentFailed', 'unknown']),
        error: errorView.nullable(),
        words: z.string(),
        carrierMessageId: z.string().nullable(),
        transactionId: z.string(),
      }),
    ),
    events: z.array(
      z.strictObject({
        at: instant,
        kind: z
          .enum(['STATUS', 'NOTED'])
          .meta({ description: 'NOTED: told by the carrier too late to change anything, or only to be known.' }),
        status: statusView,
        error: errorView.nullable(),
        words: z.string(),
      }),
    ),
    webhooks: z.array(
      z.strictObject({
        at: instant,
        retry: int32,
        url: z.string(),
        reported: z.string().optional().meta({ description: 'The status that it told.' }),
        httpStatus: int32.meta({ description: '0 = no answer.' }),
        tookMs: int32,
        excerpt: z.string(),
      }),
    ),
    answers: z
      .array(
        z.strictObject({
          at: instant,
          messageId: z.string(),
          channel: z.enum(['MMS', 'SMS']),
          from: z.string(),
          text: z.string().meta({ description: 'Its first words.' }),
        }),
      )
      .meta({ description: 'What handsets sent in answer; the first 100.' }),
    clicks: z
      .array(
        z.strictObject({
          at: instant,
          url: z.string(),
          flag: z
            .enum(['HEAD', 'PREFETCH', 'BOT', 'PREVIEW', 'EARLY'])
            .nullable()
            .meta({ description: "Why it is not counted as a human's; null = it is." }),
          device: z.string(),
        }),
      )
      .meta({ description: 'Of its short links; the first 1000.' }),
  })
  .meta({ id: 'MessageStory' });

const bulkStatus = z.enum(['PENDING', 'PROCESSING', 'PAUSED', 'CANCELED', 'FINISHED']).meta({ id: 'BulkStatus' });
const bulkProgress = z
  .strictObject({
    accepted: z.number().meta({ type: 'integer', format: 'int64', description: 'The sum of the others.' }),
    waiting: z.number().meta({ type: 'integer', format: 'int64', description: 'Not taken by a carrier yet.' }),
    sent: z.number().meta({ type: 'integer', format: 'int64', description: 'With a carrier, not final yet.' }),
    delivered: z.number().meta({ type: 'integer', format: 'int64' }),
    failed: z.number().meta({ type: 'integer', format: 'int64', description: 'Final, but not delivered.' }),
  })
  .meta({ id: 'BulkProgress' });

/** A bulk: ours, after the SMS family's. */
export const bulkAnswer = z
  .strictObject({
    bulkId: z.string(),
    sendAt: instant,
    sendingSpeedLimit: z.strictObject({ amount: int32, timeUnit: z.enum(['MINUTE', 'HOUR', 'DAY']) }).optional(),
    status: bulkStatus,
    progress: bulkProgress,
  })
  .meta({ id: 'Bulk' });

export const bulkStatusAnswer = z
  .strictObject({ bulkId: z.string(), status: bulkStatus, progress: bulkProgress })
  .meta({ id: 'BulkStanding' });

export const bulksAnswer = z
  .strictObject({
    results: z.array(bulkAnswer),
    cursor: z.strictObject({ limit: int32, nextCursor: z.string().optional() }),
  })
  .meta({ id: 'Bulks' });

const cursor = z.strictObject({ limit: int32, nextCursor: z.string().optional() });

/** A message from a handset, as it is pulled; `message` is a text that holds JSON. */
export const inboxAnswer = z
  .strictObject({
    results: z.array(
      z
        .strictObject({
          messageId: z.string(),
          to: z.string(),
          from: z.string(),
          message: z.string(),
          group: z.array(z.union([z.strictObject({ to: z.string() }), z.strictObject({ cc: z.string() })])).optional(),
          receivedAt: instant,
          mmsCount: int32,
          pairedMessageId: z.string().optional(),
          callbackData: z.string().optional(),
          price,
          channel: z.literal('SMS').optional(),
          applicationId: z.string().optional(),
          entityId: z.string().optional(),
        })
        .meta({ id: 'InboundMessage' }),
    ),
  })
  .meta({ id: 'InboundMessages' });

export const optOutsAnswer = z
  .strictObject({
    results: z.array(
      z
        .strictObject({
          sender: z.string().meta({ description: '* = any of the account.' }),
          destination: z.string(),
          createdAt: instant,
          source: z.enum(['HANDSET', 'LIST']),
        })
        .meta({ id: 'OptOut' }),
    ),
    cursor,
  })
  .meta({ id: 'OptOuts' });
export const addedAnswer = z.strictObject({ added: int32 }).meta({ id: 'Added' });
export const removedAnswer = z.strictObject({ removed: int32 }).meta({ id: 'Removed' });

const hookKind = z.enum(['DELIVERY', 'INBOUND', 'CLICK']).meta({ id: 'WebhookKind' });

/** A webhook with its attempts. */
export const deliveriesAnswer = z
  .strictObject({
    results: z.array(
      z
        .strictObject({
          id: z.string().meta({ description: 'As in the webhook-id header.' }),
          kind: hookKind,
          endpoint: z.string(),
          contentType: z.string(),
          state: z.enum(['OPEN', 'DELIVERED', 'EXHAUSTED']),
          formedAt: instant,
          nextTryAt: instant.nullable(),
          endedAt: instant.nullable(),
          messageIds: z.array(z.string()),
          attempts: z.array(
            z.strictObject({
              attempt: int32,
              at: instant,
              httpStatus: int32.meta({ description: '0 = no answer.' }),
              tookMs: int32,
              excerpt: z.string(),
            }),
          ),
        })
        .meta({ id: 'WebhookDelivery' }),
    ),
    cursor,
  })
  .meta({ id: 'WebhookDeliveries' });

export const replayAnswer = z
  .strictObject({ replayed: int32, cursor: z.strictObject({ nextCursor: z.string() }).optional() })
  .meta({ id: 'Replayed' });
export const rearmAnswer = z.strictObject({ rearmed: int32, more: z.boolean() }).meta({ id: 'Rearmed' });

const endpoint = z.strictObject({
  kind: hookKind,
  url: z.string(),
  contentType: z.string(),
  default: z.boolean(),
  headers: z.record(z.string(), z.string()),
  secrets: z.array(z.strictObject({ ending: z.string(), validUntil: instant.nullable() })),
});
export const endpointsAnswer = z
  .strictObject({ results: z.array(endpoint.meta({ id: 'Endpoint' })) })
  .meta({ id: 'Endpoints' });
export const endpointAnswer = endpoint.extend({ secret: z.string().optional() }).meta({ id: 'EndpointSet' });
export const deletedAnswer = z.strictObject({ deleted: int32 }).meta({ id: 'Deleted' });

export const uploadAnswer = z.strictObject({ uploadedContentId: z.string() }).meta({ id: 'UploadedContent' });

export const uploadErrorAnswer = z
  .strictObject({ bulkId: z.literal(''), messages: z.array(z.unknown()).max(0), errorMessage: z.string() })
  .meta({ id: 'UploadError' });

/** The five members, no more: a strict client drops the whole error over a sixth. */
export const apiErrorAnswer = z
  .strictObject({
    errorCode: z.string(),
    description: z.string(),
    action: z.string(),
    violations: z
      .array(z.strictObject({ property: z.string(), violation: z.string() }).meta({ xml: { name: 'violation' } }))
      .meta({ xml: { wrapped: true } }),
    resources: z
      .array(z.strictObject({ name: z.string(), url: z.string() }).meta({ xml: { name: 'resource' } }))
      .meta({ xml: { wrapped: true } }),
  })
  .meta({ id: 'ApiError', xml: { name: 'ApiError' } });

export const olderErrorAnswer = z
  .strictObject({
    requestError: z.strictObject({
      serviceException: z.strictObject({
        messageId: z.string(),
        text: z.string(),
        validationErrors: z.record(z.string(), z.array(z.string())).optional(),
      }),
    }),
  })
  .meta({ id: 'ApiException', xml: { name: 'ApiException' } });

/** POST /mms/1/advanced. */
export const olderSendAnswer = z
  .strictObject({
    bulkId: z.string(),
    messages: z
      .array(z.strictObject({ to: z.string(), status: statusView, messageId: z.string() }))
      .meta({ xml: { wrapped: true } }),
  })
  .meta({ id: 'OlderSendAnswer', xml: { name: 'SendResult' } });

/** One item of GET /mms/1/reports and GET /mms/1/logs; title and messageSegments are the logs'. */
export const olderAnswer = z
  .strictObject({
    results: z.array(
      z.strictObject({
        bulkId: z.string(),
        messageId: z.string(),
        to: z.string(),
        from: z.string(),
        title: z.string().optional(),
        messageSegments: z.array(z.looseObject({})).optional(),
        sentAt: instant,
        doneAt: instant,
        mmsCount: int32,
        mccMnc: z.string().optional(),
        callbackData: z.string().optional(),
        price,
        status: statusView,
        error: errorView.omit({ permanent: true }),
        entityId: z.string().optional(),
        applicationId: z.string().optional(),
      }),
    ),
  })
  .meta({ id: 'OlderResults' });
