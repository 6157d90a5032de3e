/**
 * What may stand in the query of the GET endpoints. Lists come as repeated keys, comma-joined, or both, as official clients
 * send them; unknown keys are ignored.
 *
 * Fails: never; violations are values, with the parameter's name as property.
 */
import { z } from 'zod';
import { STATUS_GROUPS, type StatusGroup } from '../domain/codes.ts';
import type { Ids } from '../domain/ids.ts';
import { parseInstant } from '../domain/schedule.ts';
import { parseSearch, SEARCH_MAX, SEARCH_WORDS, type Search } from '../domain/search.ts';
import { type Found, inDocumentOrder, isObject, translate, type Violation, words } from './violations.ts';

/** How many rows an answer holds: default and maximum. */
const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 1000;
/** Characters of a list, commas included. */
const LIST_MAX = 2048;

/** A value that stands once; given twice it is an array, and a violation. */
export const word = z.string().check(({ value, issues }) => {
  const say = (message: string) => issues.push({ code: 'custom', message, input: value });
  if (value.includes('\0')) say(words.nul);
  if (value.length > LIST_MAX) say(words.size(0, LIST_MAX));
});

const list = z
  .union([z.string(), z.array(z.string())])
  .transform((value, { issues }) => {
    const joined = typeof value === 'string' ? value : value.join(',');
    if (joined.length > LIST_MAX) issues.push({ code: 'custom', message: words.size(0, LIST_MAX), input: value });
    if (joined.includes('\0')) issues.push({ code: 'custom', message: words.nul, input: value });
    // An id may have commas of its own: what was given counts as a whole, too.
    const whole = typeof value === 'string' ? [value] : value;
    // People write `a, b`; an id may begin with a blank of its own.
    const split = joined.split(',').flatMap((item) => [item, item.trim()]);
    return [...new Set([...split, ...whole])].filter((item) => item !== '');
  })
  .meta({
    type: 'array',
    items: { type: 'string' },
    description: 'Repeated or comma-separated; at most 2048 characters.',
  });

export const limit = z
  .string()
  .transform((value, { issues }) => {
    const say = (message: string) => issues.push({ code: 'custom', message, input: value });
    const number = /^-?\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
    if (Number.isNaN(number)) say(words.type('integer'));
    else if (number < 1) say(words.least(1));
    else if (number > LIMIT_MAX) say(words.most(LIMIT_MAX));
    return number;
  })
  .meta({ type: 'integer', format: 'int32', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT });

const instant = z
  .string()
  .transform((value, { issues }) => {
    // A `+` that was not escaped arrives as a space.
    const at = parseInstant(value.replace(' ', '+'));
    if (at === null) issues.push({ code: 'custom', message: words.date, input: value });
    return at ?? 0;
  })
  .meta({ format: 'date-time', example: '2020-02-22T17:42:05.390+01:00' });

const flag = z
  .string()
  .transform((value, { issues }) => {
    if (value !== 'true' && value !== 'false') {
      issues.push({ code: 'custom', message: words.type('boolean'), input: value });
    }
    return value === 'true';
  })
  .meta({ type: 'boolean' });

const search = z.string().meta({
  maxLength: SEARCH_MAX,
  example: 'status:undeliverable campaign:"spring sale" after:2h',
  description:
    `Ours. Words ${SEARCH_WORDS}, all of which must hold; values with blanks in double quotes. A status is a group, an id or a ` +
    'name; an instant is a date, a date-time or an age (90s, 15m, 2h, 3d) and is compared with sentAt.',
});

/** GET /mms/2/events. */
export const eventsQuery = z.object({ search: search.optional() });

/** GET /mms/2/reports. */
export const reportsQuery = z.object({
  bulkId: list.optional(),
  messageId: list.optional(),
  limit: limit.optional(),
  entityId: word.optional(),
  applicationId: word.optional(),
  campaignReferenceId: list.optional(),
});

/** GET /mms/2/logs. */
export const logsQuery = z.object({
  mcc: word.optional(),
  mnc: word.optional(),
  sender: word.optional(),
  destination: word.optional(),
  bulkId: list.optional(),
  messageId: list.optional(),
  generalStatus: z.enum(STATUS_GROUPS).optional(),
  sentSince: instant.optional(),
  sentUntil: instant.optional(),
  limit: limit.optional(),
  entityId: word.optional(),
  applicationId: word.optional(),
  campaignReferenceId: list.optional(),
  useCursor: flag.optional(),
  cursor: word.optional(),
  search: search.optional(),
});

/** Both queries as one: what only logs have is absent in reports. */
export interface Query {
  mcc?: string;
  mnc?: string;
  sender?: string;
  destination?: string;
  bulkId?: string[];
  messageId?: string[];
  generalStatus?: StatusGroup;
  sentSince?: number;
  sentUntil?: number;
  limit: number;
  entityId?: string;
  applicationId?: string;
  campaignReferenceId?: string[];
  useCursor?: boolean;
  /** One status, where a search names one rather than a group. */
  status?: number;
  /** Place after which to go on, read from `cursor`. */
  before?: number;
}

/**
 * The cursor of a page: the number of its last message, as unreadable as an id (it would tell how much all accounts send).
 * `readQuery` reads it.
 */
export function printCursor(before: number, ids: Ids): string {
  return ids.print('message', before);
}

/** Reads parameters as Fastify gives them. An empty value counts as absent (forms and SDKs send `bulkId=`). */
export function readParameters<Values>(
  schema: z.ZodType<Values>,
  raw: unknown,
): { ok: true; values: Values } | { ok: false; violations: Violation[] } {
  const given: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(isObject(raw) ? raw : {})) if (value !== '') given[name] = value;
  const result = schema.safeParse(given, { reportInput: true });
  if (result.success) return { ok: true, values: result.data };
  const found: Found[] = [];
  for (const issue of result.error.issues) translate(issue, issue.path, found);
  return { ok: false, violations: inDocumentOrder(found, given) };
}

/** What a search word says too, as a parameter of its own. */
const BESIDE = [
  ['to', 'destination'],
  ['from', 'sender'],
  ['status', 'generalStatus'],
  ['bulk', 'bulkId'],
  ['campaign', 'campaignReferenceId'],
  ['before', 'sentUntil'],
  ['after', 'sentSince'],
] as const satisfies readonly (readonly [keyof Search, keyof Query])[];

/** Reads a search; null = none was given. `now`: epoch ms. */
export function readSearch(
  text: string | undefined,
  now: number,
): { ok: true; search: Search | null } | { ok: false; violations: Violation[] } {
  if (text === undefined) return { ok: true, search: null };
  const read = parseSearch(text, now);
  return read.ok ? read : { ok: false, violations: [{ property: 'search', violation: read.wrong }] };
}

/** What a search says, as the parameters that say it. */
function asQuery({ to, from, status, bulk, campaign, before, after }: Search): Partial<Query> {
  const query: Partial<Query> = {};
  if (to !== undefined) query.destination = to;
  if (from !== undefined) query.sender = from;
  if (status !== undefined)
    Object.assign(query, 'group' in status ? { generalStatus: status.group } : { status: status.id });
  if (bulk !== undefined) query.bulkId = [bulk];
  if (campaign !== undefined) query.campaignReferenceId = [campaign];
  if (before !== undefined) query.sentUntil = before - 1;
  if (after !== undefined) query.sentSince = after;
  return query;
}

/** Reads the query of reports or logs. `now`: epoch ms. */
export function readQuery(
  schema: typeof reportsQuery | typeof logsQuery,
  raw: unknown,
  ids: Ids,
  now: number,
): { ok: true; query: Query } | { ok: false; violations: Violation[] } {
  const read = readParameters(schema as z.ZodType<z.infer<typeof logsQuery>>, raw);
  if (!read.ok) return read;
  const { cursor, search: text, ...rest } = read.values;
  const before = cursor === undefined ? undefined : ids.parse('message', cursor);
  if (before === null) return { ok: false, violations: [{ property: 'cursor', violation: 'is not a valid cursor' }] };
  const searched = readSearch(text, now);
  if (!searched.ok) return searched;
  const search = searched.search ?? {};
  const twice = BESIDE.find(([name, parameter]) => search[name] !== undefined && rest[parameter] !== undefined);
  if (twice !== undefined) {
    return { ok: false, violations: [{ property: 'search', violation: `says ${twice[0]}: beside ${twice[1]}` }] };
  }
  return {
    ok: true,
    query: {
      ...rest,
      ...asQuery(search),
      limit: rest.limit ?? LIMIT_DEFAULT,
      ...(before === undefined ? {} : { before }),
    },
  };
}
