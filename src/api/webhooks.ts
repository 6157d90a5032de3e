/**
 * Webhooks as their account handles them (ours, not in the published API): deliveries with their tries, making them again,
 * settings of endpoints, and the re-arming of a pulled answer that was lost.
 *
 * Promises: a secret is shown once, by the PUT that makes it; answers are bounded, and say where to go on.
 */
import { z } from 'zod';
import type { Ids } from '../domain/ids.ts';
import { readForm } from '../domain/report.ts';
import { formatInstant, parseInstant } from '../domain/schedule.ts';
import type { Env } from '../env.ts';
import {
  type Delivery,
  type DeliveryFilter,
  ENDPOINTS_MAX,
  type EndpointPut,
  type EndpointSetting,
  type HookKind,
  type Rearm,
  type ReplayRange,
  type Store,
} from '../store/contract.ts';
import { type Answer, apiError } from './errors.ts';
import { type Asker, bodyless, jsonIntake, ok } from './intake.ts';
import type { Intake } from './messages.ts';
import { limit, readParameters, word } from './queries.ts';
import { words } from './violations.ts';

export const DELIVERIES = '/webhooks/1/deliveries';
export const REPLAY = '/webhooks/1/replay';
export const REARM = '/webhooks/1/rearm';
export const ENDPOINTS = '/webhooks/1/endpoints';

const BODY_MAX = 64 * 1024;
const LIMIT_DEFAULT = 50;
/** Steps of the store in one answer: some 10 000 webhooks, or pulled rows. */
const STEPS = 20;
/** How long an old secret signs beside the new one, unless the request says otherwise. */
const OVERLAP_HOURS = 24;
const HOUR = 3_600_000;
/** The same in ms. */
export const OVERLAP_MS = OVERLAP_HOURS * HOUR;
const SECRET_BYTES = 24;
const URL_MAX = 2048;
const HEADERS_MAX = 20;
const HEADER_MAX = 1024;

const KINDS = ['DELIVERY', 'INBOUND', 'CLICK'] as const;
const STATES = ['OPEN', 'DELIVERED', 'EXHAUSTED'] as const;
/** As the store has it. */
export const kindOf = (kind: (typeof KINDS)[number]): HookKind => kind.toLowerCase() as HookKind;

const instantText = z
  .string()
  .transform((value, { issues }) => {
    const at = parseInstant(value);
    if (at === null) issues.push({ code: 'custom', message: words.date, input: value });
    return at ?? 0;
  })
  .meta({ type: 'string', format: 'date-time', example: '2026-07-07T06:32:15.101+0000' });
/** Of so many code points, as everywhere at the door. */
const text = (min: number, max: number) =>
  z.string().check(({ value, issues }) => {
    const { length } = [...value];
    if (length < min || length > max) {
      issues.push({ code: 'custom', message: words.size(min, max), input: value });
    }
    if (value.includes('\0')) issues.push({ code: 'custom', message: words.nul, input: value });
  });

/** GET /webhooks/1/deliveries. */
export const deliveriesQuery = z.object({
  messageId: word.optional(),
  endpoint: word.optional(),
  state: z.enum(STATES).optional(),
  limit: limit.optional(),
  cursor: word.optional(),
});

/** DELETE /webhooks/1/endpoints. */
export const endpointQuery = z.object({ kind: z.enum(KINDS), url: word });

/** POST /webhooks/1/replay. */
export const replayBody = z
  .object({
    from: instantText.optional(),
    to: instantText.optional(),
    endpoint: text(1, URL_MAX).optional(),
    state: z.enum(['DELIVERED', 'EXHAUSTED']).optional(),
    cursor: text(1, 100).optional(),
  })
  .check(({ value, issues }) => {
    if (value.from === undefined && value.to === undefined && value.endpoint === undefined) {
      issues.push({ code: 'custom', message: 'Provide from, to or endpoint.', input: value });
    }
  })
  .meta({ id: 'ReplayRequest', description: 'Webhooks formed in [from, to], or all that are kept of one endpoint.' });

/** POST /webhooks/1/rearm. */
export const rearmBody = z
  .object({
    kind: z.enum(['REPORTS', 'INBOX']).optional(),
    takenSince: instantText.optional(),
    takenUntil: instantText.optional(),
    messageId: text(1, 200).optional(),
  })
  .check(({ value, issues }) => {
    if (value.takenSince === undefined && value.messageId === undefined) {
      issues.push({ code: 'custom', message: 'Provide takenSince or messageId.', input: value });
    }
  })
  .meta({ id: 'RearmRequest', description: 'What was pulled in [takenSince, takenUntil], or of one message.' });

/** Ours, or those of the connection: an account cannot set them. */
const OUR_HEADERS = new Set(
  'content-type content-length content-encoding transfer-encoding host connection keep-alive upgrade te trailer expect user-agent webhook-id webhook-timestamp webhook-signature'.split(
    ' ',
  ),
);

/** Headers of an account's own, sent with each webhook to a URL. */
export const endpointHeaders = z
  .record(z.string(), z.string())
  .check(({ value, issues }) => {
    const say = (message: string): void => void issues.push({ code: 'custom', message, input: value });
    const names = Object.keys(value);
    if (names.length > HEADERS_MAX) say(words.size(0, HEADERS_MAX));
    for (const name of names) {
      if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/.test(name)) say('has a name that no header can have');
      else if (OUR_HEADERS.has(name.toLowerCase())) say(`must not set ${name.toLowerCase()}`);
      if (!new RegExp(`^[\\t\\x20-\\x7e]{0,${HEADER_MAX}}$`).test(value[name] as string)) {
        say(`has a value that is not ${HEADER_MAX} printable ASCII characters at most`);
      }
    }
  })
  .meta({ type: 'object', description: 'Sent with each webhook to this URL.' });

/** PUT /webhooks/1/endpoints. */
export function endpointBody(checkCallout: (url: string) => string | null) {
  return z
    .object({
      kind: z.enum(KINDS),
      url: text(1, URL_MAX).check(({ value, issues }) => {
        const wrong = checkCallout(value);
        if (wrong !== null) issues.push({ code: 'custom', message: wrong, input: value });
      }),
      contentType: z.enum(['application/json', 'application/xml']).optional(),
      default: z.boolean().optional(),
      headers: endpointHeaders.optional(),
      secret: text(16, 200).optional(),
      rotateSecret: z.boolean().optional(),
      removeSecret: z.boolean().optional(),
      secretOverlapHours: z
        .number()
        .int()
        .check(({ value, issues }) => {
          if (value < 0) issues.push({ code: 'custom', message: words.least(0), input: value });
          if (value > 168) issues.push({ code: 'custom', message: words.most(168), input: value });
        })
        .optional(),
    })
    .check(({ value, issues }) => {
      const say = (path: string, message: string): void =>
        void issues.push({ code: 'custom', message, path: [path], input: value });
      if (value.kind !== 'DELIVERY' && value.contentType === 'application/xml') {
        say('contentType', 'must be application/json but for delivery reports');
      }
      const ways = [value.secret !== undefined, value.rotateSecret === true, value.removeSecret === true];
      if (ways.filter(Boolean).length > 1) say('secret', 'Provide one of secret, rotateSecret and removeSecret.');
    })
    .meta({ id: 'EndpointRequest', description: 'What is absent stays as it is; a new endpoint gets a secret.' });
}

/** What signs webhooks, as Standard Webhooks writes it. */
export function newSecret(env: Env): string {
  return `whsec_${Buffer.from(env.random.bytes(SECRET_BYTES)).toString('base64')}`;
}

/** What a request says of an endpoint. */
export type EndpointAsked = z.output<ReturnType<typeof endpointBody>>;

/** The change of settings that a request asks for, where `known` says whether there are any; `made` = a new secret, to be shown once. */
export function endpointChange(
  account: number,
  body: EndpointAsked,
  known: boolean,
  env: Env,
): { put: EndpointPut; made: string | null } {
  const put: EndpointPut = { account, kind: kindOf(body.kind), url: body.url };
  if (body.contentType !== undefined) put.contentType = body.contentType;
  if (body.default !== undefined) put.isDefault = body.default;
  if (body.headers !== undefined) put.headers = body.headers;
  const none = body.removeSecret === true;
  const make = body.rotateSecret === true || (!known && !none && body.secret === undefined);
  const made = make ? newSecret(env) : null;
  const value = made ?? body.secret;
  if (value !== undefined) put.secret = { value, oldForMs: (body.secretOverlapHours ?? OVERLAP_HOURS) * HOUR };
  else if (none) put.secret = null;
  return { put, made };
}

/** 409: the account has as many endpoints as it may. */
export function endpointsFull(): Answer {
  const violation = `the account has ${ENDPOINTS_MAX} endpoints, which is the most`;
  return apiError('E409', { violations: [{ property: 'url', violation }] });
}

/** All answers of `/webhooks/1`. */
export interface WebhookDesk {
  deliveries(account: number, query: unknown): Promise<Answer>;
  endpoints(account: number): Promise<Answer>;
  deleteEndpoint(account: number, query: unknown): Promise<Answer>;
  replayOne(id: string): Intake<Asker>;
  replay: Intake<Asker>;
  rearm: Intake<Asker>;
  putEndpoint: Intake<Asker>;
}

/** The door for those who look after their webhooks. */
export function createWebhookDesk(options: {
  store: Store;
  env: Env;
  ids: Ids;
  checkCallout(url: string): string | null;
}): WebhookDesk {
  const { store, env, ids, checkCallout } = options;
  const badCursor = apiError('E400', { violations: [{ property: 'cursor', violation: 'is not a valid cursor' }] });

  /** A message by its id, which may be one that we gave or the customer's own. */
  async function names(account: number, messageId: string): Promise<{ no: number } | { key: string }> {
    const no = ids.parse('message', messageId);
    // A generated id names its number; where the customer gave us one that only looks so, the key decides.
    if (no === null || (await store.story(account, { key: messageId }))) return { key: messageId };
    return { no };
  }

  return {
    async deliveries(account, query) {
      const read = readParameters(deliveriesQuery, query);
      if (!read.ok) return apiError('E400', { violations: read.violations });
      const { messageId, endpoint, state, cursor } = read.values;
      const most = read.values.limit ?? LIMIT_DEFAULT;
      const filter: DeliveryFilter = { account, limit: most };
      if (messageId !== undefined) filter.message = await names(account, messageId);
      if (endpoint !== undefined) filter.url = endpoint;
      if (state !== undefined) filter.state = state;
      if (cursor !== undefined) {
        const before = ids.parse('webhook', cursor);
        if (before === null) return badCursor;
        filter.before = before;
      }
      const { deliveries, next } = await store.webhookDeliveries(filter);
      const nextCursor = next === null ? {} : { nextCursor: ids.print('webhook', next) };
      return ok({ results: deliveries.map((one) => deliveryView(one, ids)), cursor: { limit: most, ...nextCursor } });
    },

    replayOne: (id) =>
      bodyless(DELIVERIES, async (account) => {
        const no = ids.parse('webhook', id);
        if (no === null || !(await store.webhookReplay(account, no))) return apiError('E404');
        env.log.info({ account, webhook: id }, 'webhook replayed');
        return ok({ replayed: 1 });
      }),

    replay: jsonIntake({
      path: REPLAY,
      limit: BODY_MAX,
      schema: replayBody,
      async answer(account, { from, to, endpoint, state, cursor }) {
        const range: ReplayRange = { account };
        if (from !== undefined) range.from = from;
        if (to !== undefined) range.to = to;
        if (endpoint !== undefined) range.url = endpoint;
        if (state !== undefined) range.state = state;
        if (cursor !== undefined) {
          const after = ids.parse('webhook', cursor);
          if (after === null) return badCursor;
          range.after = after;
        }
        // What this very replay makes again and ends again is not of the range any more.
        range.to = Math.min(range.to ?? Number.MAX_SAFE_INTEGER, env.clock.now());
        let replayed = 0;
        let next: number | null = null;
        for (let step = 0; step < STEPS; step++) {
          const done = await store.webhookReplayRange(range);
          replayed += done.count;
          next = done.next;
          if (next === null) break;
          range.after = next;
        }
        env.log.info({ account, replayed }, 'webhooks replayed');
        return ok({ replayed, ...(next === null ? {} : { cursor: { nextCursor: ids.print('webhook', next) } }) });
      },
    }),

    rearm: jsonIntake({
      path: REARM,
      limit: BODY_MAX,
      schema: rearmBody,
      async answer(account, { kind, takenSince, takenUntil, messageId }) {
        const what: Rearm = { account, kind: kind === 'INBOX' ? 'inbox' : 'reports' };
        if (takenSince !== undefined) what.from = takenSince;
        if (takenUntil !== undefined) what.to = takenUntil;
        if (messageId !== undefined) what.message = await names(account, messageId);
        let rearmed = 0;
        let more = true;
        for (let step = 0; more && step < STEPS; step++) {
          const done = await store.rearm(what);
          rearmed += done.count;
          more = done.more;
        }
        env.log.info({ account, kind: what.kind, rearmed }, 'pulled answers re-armed');
        return ok({ rearmed, more });
      },
    }),

    async endpoints(account) {
      return ok({ results: (await store.endpointList(account)).map(endpointView) });
    },

    putEndpoint: jsonIntake({
      path: ENDPOINTS,
      limit: BODY_MAX,
      schema: endpointBody(checkCallout),
      async answer(account, body) {
        const kind = kindOf(body.kind);
        const known = (await store.endpointList(account)).some((one) => one.kind === kind && one.url === body.url);
        const { put, made } = endpointChange(account, body, known, env);
        const setting = await store.endpointPut(put);
        if (setting === null) {
          return endpointsFull();
        }
        env.log.info({ account, kind, origin: URL.parse(body.url)?.origin, rotated: made !== null }, 'endpoint set');
        return ok({ ...endpointView(setting), ...(made === null ? {} : { secret: made }) });
      },
    }),

    async deleteEndpoint(account, query) {
      const read = readParameters(endpointQuery, query);
      if (!read.ok) return apiError('E400', { violations: read.violations });
      const { kind, url } = read.values;
      if (!(await store.endpointDelete(account, kindOf(kind), url))) return apiError('E404');
      env.log.info({ account, kind: kindOf(kind), origin: URL.parse(url)?.origin }, 'endpoint deleted');
      return ok({ deleted: 1 });
    },
  };
}

function deliveryView(delivery: Delivery, ids: Ids): object {
  const { no, kind, url, contentType, state, formedAt, nextTry, endedAt, messages, tries } = delivery;
  return {
    id: ids.print('webhook', no),
    kind: kind.toUpperCase(),
    endpoint: url,
    contentType: readForm(contentType).mediaType,
    state,
    formedAt: formatInstant(formedAt),
    nextTryAt: nextTry === null ? null : formatInstant(nextTry),
    endedAt: endedAt === null ? null : formatInstant(endedAt),
    messageIds: messages.map((message) => message.key ?? ids.print('message', message.no)),
    attempts: tries.map(({ at, tookMs, status, excerpt }, index) => ({
      attempt: index + 1,
      at: formatInstant(at),
      httpStatus: status,
      tookMs,
      excerpt,
    })),
  };
}

/** Without its secrets: of each the last characters, so that one can tell which it is. */
export function endpointView(setting: EndpointSetting): object {
  const { kind, url, contentType, isDefault, headers: own, secrets } = setting;
  return {
    kind: kind.toUpperCase(),
    url,
    contentType,
    default: isDefault,
    headers: own,
    secrets: secrets.map(({ secret, until }) => ({
      ending: secret.slice(-4),
      validUntil: until === null ? null : formatInstant(until),
    })),
  };
}
