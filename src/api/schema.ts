/**
 * The schema of POST /mms/2/messages: the one source of validation, of the OpenAPI document and (by the proof in
 * schema.test.ts) of the types in domain/message.ts. Every limit, enum and meaning of a request stands here, also of fields
 * whose life is elsewhere: an accepted field is never dropped.
 *
 * Promises: no coercion; unknown fields are ignored; the work is bounded by the limits however large the body is. About 2 us
 * for a message to one destination (node 24).
 *
 * Source: Infobip MMS API v2 and its wording of violations; what that leaves open is decided in docs/adr.
 *
 * Fails: never; violations are values.
 */
import { z } from 'zod';
import { checkSmil } from '../domain/content.ts';
import type { SendRequest } from '../domain/message.ts';
import { parseInstant, SCHEDULE_MAX_MS } from '../domain/schedule.ts';
import { SMIL_MAX } from '../domain/smil.ts';
import { type Found, inDocumentOrder, isObject, translate, type Violation, words } from './violations.ts';

export interface SendLimits {
  messages: number;
  /** In all messages of a request, group members counted. */
  destinations: number;
  segments: number;
}

export const DEFAULT_LIMITS: SendLimits = { messages: 1000, destinations: 10_000, segments: 20 };

export interface SendSettings {
  limits: SendLimits;
  /**
   * What is wrong with a URL that we shall call, null = nothing: "is not a valid url", or the setting that would allow a
   * literal address that we may not call.
   */
  checkCallout(url: string): string | null;
}

export type Validation = { ok: true; request: SendRequest } | { ok: false; violations: Violation[] };

const GROUP_MAX = 200;
const INT32_MAX = 2_147_483_647;

// --- Building blocks -------------------------------------------------------------------------------------------------

interface TextRules {
  /** In Unicode code points. */
  max?: number;
  blank?: false;
  example?: string;
  description?: string;
}

function codePoints(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) {
    // The second half of a pair is not counted; unpaired ones are refused elsewhere.
    if ((text.charCodeAt(i) & 0xfc00) !== 0xdc00) count++;
  }
  return count;
}

/** One check does all: each further one would cost as much as all that this one looks at. */
export function text(rules: TextRules = {}) {
  const { max = Number.POSITIVE_INFINITY, blank, ...meta } = rules;
  const schema = z.string().check((payload) => {
    const { value, issues } = payload;
    const say = (message: string) => issues.push({ code: 'custom', message, input: value, continue: true });
    if (value.length > max && codePoints(value) > max) say(words.size(0, max));
    if (value.includes('\0')) say(words.nul);
    if (!value.isWellFormed()) say(words.surrogate);
    if (blank === false && value.trim() === '') say(words.blank);
  });
  return schema.meta({
    ...meta,
    ...(max === Number.POSITIVE_INFINITY ? {} : { minLength: 0, maxLength: max }),
    ...(blank === false ? { pattern: '\\S' } : {}),
  });
}

function int(min: number, max: number = INT32_MAX, description?: string) {
  return z
    .number()
    .check(({ value, issues }) => {
      const say = (message: string) => issues.push({ code: 'custom', message, input: value });
      if (!Number.isInteger(value)) say(words.type('integer'));
      else if (value < min) say(words.least(min));
      else if (value > max) say(words.most(max));
    })
    .meta({
      type: 'integer',
      format: 'int32',
      minimum: min,
      maximum: max,
      ...(description === undefined ? {} : { description }),
    });
}

/** Checks on whole objects run when their members are sound. */
function complain(path: (string | number)[], message: string, input: unknown): z.core.$ZodRawIssue {
  return { code: 'custom', message, path, input };
}

// --- The request -----------------------------------------------------------------------------------------------------

interface Now {
  now: number;
}

/** When and how fast, as requests and bulks say it. `clock.now` is read at each parse. */
export function scheduleParts(clock: Now) {
  const sendAt = text({
    description: 'At most 180 days ahead; in the past = now.',
    example: '2026-02-22T17:42:05.390+0100',
  }).check(({ value, issues }) => {
    const at = parseInstant(value);
    if (at === null) issues.push(complain([], words.date, value));
    else if (at > clock.now + SCHEDULE_MAX_MS) issues.push(complain([], words.far, value));
  });
  const sendingSpeedLimit = z.object({
    amount: int(1),
    timeUnit: z.enum(['MINUTE', 'HOUR', 'DAY']).optional().meta({ default: 'MINUTE' }),
  });
  return { sendAt, sendingSpeedLimit };
}

/** The schema for given settings. `clock.now` is read at each parse (it is synchronous). */
export function sendSchema(settings: SendSettings, clock: Now) {
  const { limits } = settings;
  const url = (description: string) =>
    text({ description, example: 'https://www.example.com/path' }).check((payload) => {
      const fault = settings.checkCallout(payload.value);
      if (fault !== null) payload.issues.push(complain([], fault, payload.value));
    });

  const validityPeriod = z
    .object({
      amount: int(1, INT32_MAX, 'More than 48 h is set to 48 h.'),
      timeUnit: z.enum(['SECONDS', 'MINUTES', 'HOURS']).optional().meta({ default: 'MINUTES' }),
    })
    .meta({ id: 'ValidityPeriod', description: 'How long the message is worth sending. Default and maximum 48 h.' });

  const timeOfDay = z.object({ hour: int(0, 23), minute: int(0, 59).optional() });
  const deliveryTimeWindow = z
    .object({
      days: z
        .array(z.enum(['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY']))
        .min(1)
        .max(7),
      from: timeOfDay.optional(),
      to: timeOfDay.optional(),
    })
    .check(({ value, issues }) => {
      const { from, to } = value;
      if (from === undefined && to === undefined) return;
      if (from === undefined) issues.push(complain(['from'], words.null, undefined));
      else if (to === undefined) issues.push(complain(['to'], words.null, undefined));
      else {
        const minutes = (to.hour - from.hour) * 60 + (to.minute ?? 0) - (from.minute ?? 0);
        if ((minutes + 1440) % 1440 < 60) issues.push(complain(['to'], words.window, to));
      }
    })
    .meta({
      id: 'DeliveryTimeWindow',
      description:
        'Days and hours (UTC) in which the message may leave. from and to come together, at least 1 h apart.',
    });

  const regional = z
    .object({ southKorea: z.object({ resellerCode: int(0).optional() }).optional() })
    .meta({ id: 'RegionalOptions' });

  const options = z
    .object({
      platform: z
        .object({ entityId: text({ max: 255 }).optional(), applicationId: text({ max: 255 }).optional() })
        .optional(),
      validityPeriod: validityPeriod.optional(),
      deliveryTimeWindow: deliveryTimeWindow.optional(),
      smsFailover: z
        .object({
          sender: text().optional(),
          text: text({ blank: false }),
          validityPeriod: validityPeriod.optional(),
          regional: regional.optional(),
        })
        .optional()
        .meta({ description: 'An SMS that is sent when the MMS could not be delivered.' }),
      regional: regional.optional(),
      campaignReferenceId: text({ max: 255 }).optional(),
    })
    .meta({ id: 'MessageOptions' });

  const reportContentType = z.enum(['application/json', 'application/xml']);
  const webhooks = z
    .object({
      delivery: z
        .object({
          url: url('Where delivery reports are sent.').optional(),
          intermediateReport: z.boolean().optional().meta({ default: false }),
          notify: z.boolean().optional().meta({ description: 'false = no delivery report is pushed.' }),
          // Not documented here but sent here in production: taken when it makes sense, ignored when not.
          contentType: reportContentType.optional().catch(undefined).meta({ deprecated: true }),
        })
        .optional(),
      contentType: reportContentType.optional().meta({ default: 'application/json' }),
      callbackData: text({ max: 4000, description: 'Copied into every report and click.' }).optional(),
    })
    .meta({ id: 'Webhooks' });

  const contentId = text({ description: 'Name of the part within the message (SMIL src).' }).optional();
  const segment = z
    .discriminatedUnion('type', [
      z
        .object({ type: z.literal('TEXT'), contentId, text: text({ max: 4096, example: 'Some text' }) })
        .meta({ id: 'TextSegment' }),
      z
        .object({
          type: z.literal('LINK'),
          contentId,
          contentUrl: url('Where the content is fetched.'),
          contentType: text({ example: 'image/jpeg' }).optional(),
        })
        .meta({ id: 'LinkSegment' }),
      z
        .object({
          type: z.literal('SMIL'),
          contentId,
          smil: text({
            max: SMIL_MAX,
            blank: false,
            description: 'The presentation. Each src names another segment by contentId, file name or URL.',
          }),
          contentType: text({ blank: false, example: 'application/smil' }),
        })
        .meta({ id: 'SmilSegment' }),
      z
        .object({ type: z.literal('UPLOADED_REFERENCE'), contentId, uploadedContentId: text({ blank: false }) })
        .meta({ id: 'UploadedReferenceSegment' }),
    ])
    .meta({ id: 'Segment' });

  const content = z
    .object({
      title: text({ max: 66, example: 'Some title' }).optional(),
      messageSegments: z.array(segment).min(1).max(limits.segments),
    })
    .check(({ value, issues }) => {
      const smil = value.messageSegments.find((one) => one.type === 'SMIL')?.smil;
      // What is no text at all, or too long, has its own violation.
      if (smil === undefined || smil.trim() === '' || smil.includes('\0') || !smil.isWellFormed()) return;
      if (smil.length > SMIL_MAX && codePoints(smil) > SMIL_MAX) return;
      for (const { segment, member, words } of checkSmil(value.messageSegments).faults) {
        issues.push(complain(['messageSegments', segment, member], words, undefined));
      }
    })
    .meta({ id: 'Content' });

  const single = z
    .object({
      to: text({ example: '41793026727', description: 'International format; a bad one is REJECTED in the answer.' }),
      messageId: text({ max: 200, description: 'Your own id, unique for at least 48 h.' }).optional(),
    })
    .meta({ id: 'SingleDestination' });
  const group = z
    .object({ group: z.array(single).min(1).max(GROUP_MAX) })
    .meta({ id: 'GroupDestination', description: 'One group MMS to all members.' });

  const message = z
    .object({
      sender: text({ blank: false, example: '441134960000' }),
      destinations: z
        .array(z.union([single, group]))
        .min(1)
        .max(limits.destinations),
      content,
      options: options.optional(),
      webhooks: webhooks.optional(),
    })
    .meta({ id: 'Message' });

  const { sendAt, sendingSpeedLimit } = scheduleParts(clock);
  const requestOptions = z
    .object({
      schedule: z
        .object({
          bulkId: text({ max: 100 }).optional(),
          sendAt: sendAt.optional(),
          sendingSpeedLimit: sendingSpeedLimit.optional(),
        })
        .optional(),
      tracking: z
        .object({
          shortenUrl: z.boolean().optional().meta({ default: true }),
          trackClicks: z.boolean().optional().meta({ default: true }),
          trackingUrl: url('Where clicks are reported.').optional(),
          removeProtocol: z.boolean().optional().meta({ default: false }),
          customDomain: text().optional(),
        })
        .optional(),
    })
    .meta({ id: 'RequestOptions' });

  return z
    .object({ messages: z.array(message).min(1).max(limits.messages), options: requestOptions.optional() })
    .meta({ id: 'SendRequest' });
}

// --- Validation ------------------------------------------------------------------------------------------------------

/**
 * A validator for parsed bodies (see `parseJson`). Over-long arrays are cut to their limit before the schema sees them, so
 * that 8 MiB of `{},{},{}` cost no more than the limit; the request is refused all the same.
 */
export function createSendValidator(settings: SendSettings): (body: unknown, now: number) => Validation {
  const clock: Now = { now: 0 };
  const schema = sendSchema(settings, clock);
  return (body, now) => {
    clock.now = now;
    const found = bound(body, settings.limits);
    const result = schema.safeParse(body, REPORT_INPUT);
    if (result.success && found.length === 0) return { ok: true, request: result.data };
    if (!result.success) for (const issue of result.error.issues) translate(issue, issue.path, found);
    return { ok: false, violations: inDocumentOrder(found, body) };
  };
}

const REPORT_INPUT = { reportInput: true } as const;

/** What the schema cannot say alone: sums over the request, and destinations with both `to` and `group`. */
function bound(body: unknown, limits: SendLimits): Found[] {
  const found: Found[] = [];
  if (!isObject(body) || !Array.isArray(body.messages)) return found;
  const { messages } = body;
  cut(messages, 1, limits.messages, ['messages'], found);
  let left = limits.destinations;
  for (let m = 0; m < messages.length; m++) {
    const message: unknown = messages[m];
    if (!isObject(message)) continue;
    const { content, destinations, options } = message;
    if (isObject(content) && Array.isArray(content.messageSegments)) {
      cut(content.messageSegments, 1, limits.segments, ['messages', m, 'content', 'messageSegments'], found);
    }
    if (isObject(options) && isObject(options.deliveryTimeWindow) && Array.isArray(options.deliveryTimeWindow.days)) {
      cut(options.deliveryTimeWindow.days, 1, 7, ['messages', m, 'options', 'deliveryTimeWindow', 'days'], found);
    }
    if (Array.isArray(destinations)) left = boundDestinations(destinations, m, left, limits, found);
  }
  return found;
}

/** How many destinations are left of the request's limit after these; below 0 stays below 0. */
function boundDestinations(list: unknown[], m: number, before: number, limits: SendLimits, found: Found[]): number {
  const path = ['messages', m, 'destinations'];
  let left = before;
  for (let d = 0; d < list.length; d++) {
    const destination = list[d];
    let members = 1;
    if (isObject(destination) && destination.group !== undefined) {
      if (destination.to !== undefined) found.push({ path: [...path, d], violation: words.toOrGroup });
      if (Array.isArray(destination.group)) {
        cut(destination.group, 1, GROUP_MAX, [...path, d, 'group'], found);
        members = destination.group.length;
      }
    }
    left -= members;
    if (left < 0) {
      if (before >= 0) {
        const violation = words.size(1, limits.destinations);
        found.push(
          before === limits.destinations
            ? { path, violation }
            : { path: ['messages'], violation: `destinations of all messages: ${violation}` },
        );
      }
      list.length = Math.max(d, 1);
      // The one that is kept for its form's sake may be a group of 200.
      if (d === 0 && isObject(destination) && Array.isArray(destination.group)) {
        destination.group.length = Math.min(destination.group.length, 1);
      }
      break;
    }
  }
  return left;
}

function cut(list: unknown[], min: number, max: number, path: PropertyKey[], found: Found[]): void {
  if (list.length <= max) return;
  list.length = max;
  found.push({ path, violation: words.size(min, max) });
}
