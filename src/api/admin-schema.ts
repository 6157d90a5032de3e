/**
 * What the operator's door takes and gives: the schemas that validate its requests and stand in the OpenAPI document. Unlike those
 * for customers they refuse what they do not know: a misspelt limit is never silently no limit.
 */
import { z } from 'zod';
import { isNetwork, PRICES_MAX, SCOPES, SPEND_MAX } from '../domain/accounts.ts';
import { parseSender } from '../domain/address.ts';
import { formatInstant, parseInstant } from '../domain/schedule.ts';
import { ENDPOINTS_MAX } from '../store/contract.ts';
import { limit } from './queries.ts';
import { words as violated } from './violations.ts';
import { endpointHeaders } from './webhooks.ts';

const whole = (least: number, most: number) =>
  z
    .number()
    .refine((n) => Number.isInteger(n) && n >= least && n <= most, `must be a whole number from ${least} to ${most}`)
    .meta({ type: 'integer', minimum: least, maximum: most });
const words = (most: number) =>
  z
    .string()
    .refine(
      (text) => text.trim() !== '' && text.length <= most && !/[\u0000-\u001f\u007f]/.test(text),
      `must be 1 to ${most} characters, none of them a control`,
    );
/** One of these; who gives another is told all of them. */
const oneOf = <const Value extends string>(...values: readonly Value[]) =>
  z
    .string()
    .refine((text) => (values as readonly string[]).includes(text), `must be one of ${values.join(', ')}`)
    .transform((text) => text as Value)
    .meta({ type: 'string', enum: [...values] });
const scopes = z
  .array(oneOf(...SCOPES))
  .min(1)
  .max(SCOPES.length)
  .nullable();
const instant = z
  .string()
  .transform((value, { issues }) => {
    const at = parseInstant(value);
    if (at === null) issues.push({ code: 'custom', message: 'must be an instant with its zone', input: value });
    return at ?? 0;
  })
  .meta({ type: 'string', format: 'date-time', example: formatInstant(0) })
  .nullable();
const networks = z.array(z.string().refine(isNetwork, 'must be a network like 10.0.0.0/8 or an address')).max(100);
const money = z
  .number(violated.number)
  .refine((n) => n >= 0 && n <= SPEND_MAX, `must be an amount from 0 to ${SPEND_MAX}`);

/** Each row of a list under another name; null = it has none. `property` is where it is said that it has not. */
const onceEach =
  <Row>(nameOf: (row: Row) => string | null, property: string, message: string) =>
  ({ value, issues }: z.core.ParsePayload<Row[]>): void => {
    const seen = new Set<string>();
    for (const [at, row] of value.entries()) {
      const one = nameOf(row);
      if (one === null) continue;
      if (seen.has(one)) issues.push({ code: 'custom', message, path: [at, property], input: row });
      seen.add(one);
    }
  };

const limits = z.strictObject({
  requestsPerMinute: whole(1, 10_000_000).nullable().optional(),
  logsPerMinute: whole(1, 10_000_000).nullable().optional(),
  messagesPerDay: whole(1, 1_000_000_000).nullable().optional(),
  spend: z
    .strictObject({ amount: money, per: oneOf('DAY', 'MONTH', 'TOTAL') })
    .nullable()
    .optional(),
  flooding: z.boolean().optional(),
});

const settings = {
  state: oneOf('ACTIVE', 'SUSPENDED').optional(),
  application: words(255).nullable().optional(),
  entity: words(255).nullable().optional(),
  currency: z
    .string()
    .regex(/^[A-Z]{3}$/, 'must be three capital letters like EUR')
    .optional(),
  registeredOnly: z.boolean().optional(),
  failoverAfterUnknown: z.boolean().optional(),
  limits: limits.optional(),
};

const name = words(100).refine((text) => !/^\d+$/.test(text) && text !== 'all', 'must not be a number or "all"');
/** A new account. */
export const accountBody = z.strictObject({ name, ...settings });
/** A change of one. */
export const accountChange = z.strictObject({ name: name.optional(), ...settings });

/** What is added to a prepaid credit; below 0 takes away. */
export const creditBody = z.strictObject({
  amount: z
    .number(violated.number)
    .refine(
      (n) => n !== 0 && Math.abs(n) <= SPEND_MAX && Math.round(n * 1e6) / 1e6 === n,
      `must be an amount of at most ${SPEND_MAX}, not 0, with at most six decimals`,
    ),
});

const keyRules = {
  label: words(100),
  scopes: scopes.optional(),
  validFrom: instant.optional(),
  validUntil: instant.optional(),
  allow: networks.optional(),
  requestsPerMinute: whole(1, 10_000_000).nullable().optional(),
};
/** A new key. */
export const keyBody = z.strictObject(keyRules);

const password = z
  .string()
  .refine((text) => text.length >= 12 && text.length <= 256, 'must be 12 to 256 characters')
  .meta({ format: 'password' });
// A colon would end it in Basic.
const user = words(100).refine((text) => !text.includes(':'), 'must not contain a colon');
/** A login, new or changed. */
export const loginBody = z.strictObject({ user, password, scopes: scopes.optional() });

const sender = z
  .string()
  .refine((text) => parseSender(text).ok, 'must be 3 to 15 digits, or 3 to 11 letters, digits and blanks . - _ &');
/** A registered sender. */
export const senderBody = z.strictObject({ sender });

const domain = z
  .string()
  .max(253)
  .transform((text) => text.toLowerCase())
  .refine(
    (text) =>
      text.split('.').length > 1 && text.split('.').every((part) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(part)),
    'must be a host name like go.example.com',
  );
/** A domain for links. */
export const domainBody = z.strictObject({ domain });

const prices = z
  .array(
    z.strictObject({
      prefix: z.string().regex(/^\d{0,15}$/, 'must be at most 15 digits'),
      channel: oneOf('MMS', 'SMS'),
      price: money,
    }),
  )
  .max(PRICES_MAX)
  .check(onceEach(({ prefix, channel }) => `${channel} ${prefix}`, 'prefix', 'has its price in this list already'));
/** An account's price list, whole. */
export const pricesBody = z.strictObject({ prices });

/** A block; a `*` at the end stands for all that begin so. */
export const blockBody = z.strictObject({
  kind: oneOf('SENDER', 'DESTINATION'),
  value: words(40).refine((text) => !text.trim().slice(0, -1).includes('*'), 'may have a * at its end only'),
});

/** Which lines of the audit log. */
export const auditQuery = z.object({
  limit: limit.optional(),
  cursor: z
    .string()
    .regex(/^\d{1,15}$/, 'must be the nextCursor of an answer')
    .optional(),
});

/** Carriers by the names that they have, or had, in the configuration. */
export const rerouteBody = z.strictObject({ from: z.string().min(1).max(64), to: z.string().min(1).max(64) });

const APPLIED_ENDPOINTS = 'is there already, with the same kind';
/** An endpoint as it shall be: what is absent stays; `secret` null = no signature. */
const endpointWanted = (checkCallout: (url: string) => string | null) =>
  z
    .strictObject({
      kind: oneOf('DELIVERY', 'INBOUND', 'CLICK'),
      url: z
        .string()
        .min(1, 'must not be empty')
        .max(2048, 'must be at most 2048 characters')
        .check(({ value, issues }) => {
          const wrong = checkCallout(value);
          if (wrong !== null) issues.push({ code: 'custom', message: wrong, input: value });
        }),
      contentType: oneOf('application/json', 'application/xml').optional(),
      default: z.boolean().optional(),
      headers: endpointHeaders.optional(),
      secret: z
        .string()
        .refine((text) => text.length >= 16 && text.length <= 200, 'must be 16 to 200 characters')
        .nullable()
        .optional(),
    })
    .check(({ value, issues }) => {
      if (value.kind !== 'DELIVERY' && value.contentType === 'application/xml') {
        const message = 'must be application/json but for delivery reports';
        issues.push({ code: 'custom', message, path: ['contentType'], input: value });
      }
    });

/**
 * Accounts as they shall be. Lists that are given replace what is there, but what holds a secret (keys, logins, endpoints) is only
 * added and changed: what is missing from a file is not revoked by that.
 */
export const applyBody = (checkCallout: (url: string) => string | null) =>
  z.strictObject({
    accounts: z
      .array(
        z.strictObject({
          name,
          ...settings,
          keys: z
            .array(
              z.strictObject({
                ...keyRules,
                key: z
                  .string()
                  .regex(/^[\x21-\x7e]{16,256}$/, 'must be 16 to 256 visible ASCII characters')
                  .optional(),
              }),
            )
            .max(1000)
            .check(onceEach(({ label }) => label, 'label', 'is the label of another key in this list'))
            .check(onceEach(({ key }) => key ?? null, 'key', 'is another one in this list already'))
            .optional(),
          logins: z
            .array(loginBody)
            .max(1000)
            .check(onceEach(({ user }) => user, 'user', 'is there already'))
            .optional(),
          senders: z.array(sender).max(10_000).optional(),
          domains: z.array(domain).max(1000).optional(),
          endpoints: z
            .array(endpointWanted(checkCallout))
            .max(ENDPOINTS_MAX)
            .check(onceEach(({ kind, url }) => `${kind} ${url}`, 'url', APPLIED_ENDPOINTS))
            .check(
              onceEach(
                ({ kind, default: standard }) => (standard ? kind : null),
                'default',
                'is another one of this kind already',
              ),
            )
            .optional(),
          prices: prices.optional(),
          blocks: z.array(blockBody).max(10_000).optional(),
        }),
      )
      .max(1000)
      .check(onceEach((one) => one.name, 'name', 'is the name of another account in this list')),
  });
export type Wanted = z.output<ReturnType<typeof applyBody>>;

// --- Answers -----------------------------------------------------------------------------------------------------------

const rows = (row: z.ZodType) => z.strictObject({ results: z.array(row) });
/** What the document says of answers. */
export const adminAnswers = {
  account: z
    .strictObject({
      account: z.number().int(),
      name: z.string(),
      state: z.string(),
      application: z.string().nullable(),
      entity: z.string().nullable(),
      currency: z.string(),
      registeredOnly: z.boolean(),
      failoverAfterUnknown: z.boolean(),
      limits: z.strictObject({
        requestsPerMinute: z.number().nullable(),
        logsPerMinute: z.number().nullable(),
        messagesPerDay: z.number().nullable(),
        spend: z.strictObject({ amount: z.number(), per: z.string() }).nullable(),
        flooding: z.boolean(),
      }),
    })
    .meta({ id: 'Account' }),
  key: z
    .strictObject({
      id: z.string(),
      label: z.string(),
      scopes: z.array(z.string()).nullable(),
      validFrom: z.string().nullable(),
      validUntil: z.string().nullable(),
      allow: z.array(z.string()),
      requestsPerMinute: z.number().nullable(),
      createdAt: z.string().nullable(),
      revokedAt: z.string().nullable(),
      key: z.string().optional().meta({ description: 'Only where it was made by this request.' }),
    })
    .meta({ id: 'ApiKey' }),
  login: z.strictObject({ user: z.string(), scopes: z.array(z.string()).nullable() }).meta({ id: 'Login' }),
  sender: z.strictObject({ sender: z.string() }).meta({ id: 'Sender' }),
  domain: z.strictObject({ domain: z.string() }).meta({ id: 'Domain' }),
  block: z.strictObject({ kind: z.string(), value: z.string() }).meta({ id: 'Block' }),
  removed: z.strictObject({ removed: z.number().int() }).meta({ id: 'Removed' }),
  usage: z
    .strictObject({
      account: z.number().int(),
      messagesPerDay: z.strictObject({ used: z.number(), most: z.number(), left: z.number() }).nullable(),
      spend: z
        .strictObject({
          ...{ per: z.string(), currency: z.string(), used: z.number(), most: z.number(), left: z.number() },
        })
        .nullable(),
    })
    .meta({
      id: 'Usage',
      description:
        'Of limits that it has, else null. A fiftieth of each, for each node, may be held and not used yet: it counts as used.',
    }),
  credit: z
    .strictObject({
      account: z.number().int(),
      name: z.string(),
      currency: z.string(),
      amount: z.number(),
      total: z.number().meta({ description: 'What may be spent in TOTAL after it.' }),
      repeated: z.boolean().meta({ description: 'It had been added before, under the same Idempotency-Key.' }),
    })
    .meta({ id: 'Credit' }),
  applied: z
    .strictObject({
      dryRun: z.boolean(),
      changes: z.number().int(),
      accounts: z.array(
        z.strictObject({
          account: z.number().int(),
          name: z.string(),
          added: z.boolean(),
          keys: z.array(z.strictObject({ label: z.string(), key: z.string() })),
          endpoints: z.array(z.strictObject({ kind: z.string(), url: z.string(), secret: z.string() })),
        }),
      ),
      differences: z
        .array(
          z.strictObject({
            account: z.string(),
            what: z.string(),
            name: z.string(),
            change: z.enum(['ADDED', 'CHANGED', 'REMOVED']),
            fields: z.array(z.strictObject({ name: z.string(), from: z.unknown(), to: z.unknown() })),
          }),
        )
        .meta({ description: 'What differed, the first 1000 of it; secrets without their values.' }),
    })
    .meta({ id: 'Applied' }),
  looking: z
    .strictObject({ passwords: z.strictObject({ known: z.number().int(), of: z.number().int() }) })
    .meta({ id: 'Looking' }),
  rerouted: z.strictObject({ moved: z.number().int(), more: z.boolean() }).meta({ id: 'Rerouted' }),
  audit: z
    .strictObject({
      results: z.array(
        z.strictObject({
          at: z.string(),
          by: z.string(),
          action: z.string(),
          account: z.number().nullable(),
          detail: z.record(z.string(), z.unknown()),
        }),
      ),
      cursor: z.strictObject({ limit: z.number(), nextCursor: z.string().optional() }),
    })
    .meta({ id: 'Audit' }),
  rows,
};
