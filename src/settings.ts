/**
 * Every setting of the product: name, environment variable, default, range, unit and one line of help, in one list
 * (`SETTINGS`), and the shape that they have together (`Config`). `config.ts` reads them.
 *
 * Promises: data and small pure functions; a Config is plain data, since it crosses to worker threads.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import type { LogLevel } from './env.ts';

// --- Kinds of value --------------------------------------------------------------------------------------------------

/** What values a setting takes: `right` says it in words, `read` turns text into the schema's input. */
export interface Kind<S extends z.ZodType = z.ZodType> {
  schema: S;
  right: string;
  read(text: string): unknown;
}

const same = (text: string): unknown => text;

function kind<S extends z.ZodType>(schema: S, right: string, read: (text: string) => unknown = same): Kind<S> {
  return { schema, right, read };
}

const decimal = (text: string): unknown => (/^\d{1,15}$/.test(text) ? Number(text) : text);

function whole(min: number, max: number) {
  return kind(z.number().int().min(min).max(max), `a whole number from ${min} to ${max}`, decimal);
}

const UNITS: Record<string, number> = { KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

function bytes(min: number, max: number) {
  return kind(
    z.number().int().min(min).max(max),
    `a size from ${size(min)} to ${size(max)}, in bytes or like 8MiB`,
    (text) => {
      const found = /^(\d{1,15}) ?(KiB|MiB|GiB)?$/.exec(text);
      return found ? Number(found[1]) * (UNITS[found[2] ?? ''] ?? 1) : text;
    },
  );
}

function size(n: number): string {
  for (const unit of ['GiB', 'MiB', 'KiB']) if (n % UNITS[unit]! === 0) return `${n / UNITS[unit]!}${unit}`;
  return `${n} bytes`;
}

const flag = kind(z.boolean(), 'true or false', (text) => (text === 'true' ? true : text === 'false' ? false : text));

const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const satisfies readonly LogLevel[];

function isHost(text: string): boolean {
  return isIP(text) !== 0 || (/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(text) && !/^[\d.]+$/.test(text));
}

function isWebUrl(text: string): boolean {
  if (/\s/.test(text) || !URL.canParse(text)) return false;
  const url = new URL(text);
  return (url.protocol === 'http:' || url.protocol === 'https:') && url.username === '' && url.password === '';
}

function isBaseUrl(text: string): boolean {
  return isWebUrl(text) && !text.includes('?') && !text.includes('#');
}

/** An address with or without a prefix length. */
function isCidr(text: string): boolean {
  const [address, prefix, ...more] = text.split('/');
  const family = isIP(address ?? '');
  if (family === 0 || more.length > 0 || address?.includes('%')) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128));
}

const withPrefix = (text: string): string => (text.includes('/') ? text : `${text}/${isIP(text) === 4 ? 32 : 128}`);

const baseUrl = kind(z.string().refine(isBaseUrl), 'an http or https URL without query');

/** What a process may do; on PostgreSQL each alone or together, any number of each. */
export const ROLES = ['api', 'dispatch', 'webhooks', 'sandbox'] as const;
export type Role = (typeof ROLES)[number];
const roles = kind(
  z
    .array(z.enum(ROLES))
    .min(1)
    .transform((list) => [...new Set(list)]),
  `a list of ${ROLES.join(', ')}`,
  (text) => text.split(',').map((part) => part.trim()),
);

function isStore(text: string): boolean {
  if (/^sqlite:[^\u0000]*$/.test(text)) return true;
  return /^postgres(ql)?:\/\/[^\s/]+\/[^\s/?#]+/.test(text);
}

const networks = kind(
  z.array(z.string().refine(isCidr).transform(withPrefix)).max(1000),
  'a list of networks like 10.0.0.0/8, fd00::/8, or none',
  (text) => (text === 'none' ? [] : text.split(',').map((part) => part.trim())),
);

// What an HTTP header can carry and a shell does not spoil.
const key = kind(z.string().regex(/^[\x21-\x7e]{1,256}$/), '1 to 256 visible ASCII characters without spaces');
const path = kind(z.string().regex(/^[^\u0000]{1,4096}$/), 'a path of at most 4096 characters');
const word64 = kind(z.string().regex(/^[\w.:-]{1,64}$/), '1 to 64 of letters, digits and . _ : -');

// --- Carriers --------------------------------------------------------------------------------------------------------

const word = (max: number) => {
  const error = `must be text of 1 to ${max} characters`;
  return z.string(error).min(1, error).max(max, error);
};
const count = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`;
  return z.number(error).int(error).min(min, error).max(max, error);
};
const choice = <const T extends readonly string[]>(values: T) =>
  z.enum(values, `must be ${values.slice(0, -1).join(', ')}${values.length > 1 ? ' or ' : ''}${values.at(-1)}`);
const yes = z.boolean('must be true or false');
const secret = word(1024);
const VERSION = 'must be an MM7 version like 6.8.0';
const NAME = 'must be 1 to 40 of a-z, 0-9 and -';
const WEB = 'must be an http or https URL; user name and password have keys of their own';

/** One MMSC. What each key is for stands in `docs/`; defaults are the most common in the field. */
const carrier = z.strictObject(
  {
    /** Part of the path that this carrier calls: /mm7/{name}. */
    name: z
      .string(NAME)
      .regex(/^[a-z0-9-]{1,40}$/, NAME)
      .refine((name) => name !== 'sandbox', 'must not be sandbox: that is the built-in carrier'),
    type: choice(['mm7']),
    url: z.string(WEB).refine(isWebUrl, WEB),
    /** HTTP Basic, both or neither. */
    username: word(256)
      .refine((name) => !name.includes(':'), 'must not contain a colon (HTTP Basic has no way to send it)')
      .optional(),
    password: secret.optional(),
    namespace: word(256).default('http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4'),
    version: z
      .string(VERSION)
      .regex(/^\d{1,3}(\.\d{1,3}){2}$/, VERSION)
      .default('6.8.0'),
    vaspId: word(256).optional(),
    vasId: word(256).optional(),
    serviceCode: word(256).optional(),
    transferEncoding: choice(['binary', 'base64']).default('binary'),
    /** What to do when we sent and do not know: hold for a report and then repeat once, repeat at once, give up. */
    onUnknown: choice(['hold', 'retry', 'fail']).default('hold'),
    /** Whether this carrier sends delivery reports; without them, taken is the final status. */
    reports: yes.default(true),
    /** Submissions in flight at a time. */
    concurrency: count(1, 1000).default(10),
    /** Submissions a second; no limit when absent. */
    ratePerSecond: z
      .number('must be a number above 0, at most 100000')
      .gt(0, 'must be above 0')
      .max(100_000, 'must be at most 100000')
      .optional(),
    /** At most 60 s, because a claim is leased for longer than that and no message may be submitted twice at a time. */
    timeoutMs: count(100, 60_000).default(30_000),
    /** What the carrier must show when it calls us. */
    inboundSecret: secret.optional(),
    /** Whether numbers carry a leading +. */
    plus: yes.default(true),
    /** Added to every number, for carriers that want /TYPE=PLMN. */
    numberSuffix: word(64).optional(),
  },
  'must be a carrier: name, type, url and more',
);

export const CARRIER_KEYS = Object.keys(carrier.shape);
/** Each may also be given as a file: `passwordFile`. */
export const CARRIER_SECRETS = ['password', 'inboundSecret'] as const;

/** One configured carrier, defaults filled in. */
export type CarrierConfig = z.output<typeof carrier>;

const carriers = kind(
  z.array(carrier, 'must be a list, one item a carrier').max(100, 'must be at most 100 carriers'),
  'a list of carriers',
);

// --- The list --------------------------------------------------------------------------------------------------------

export interface Setting<K extends string = string, S extends z.ZodType = z.ZodType> {
  key: K;
  /** Null = only in the YAML file. */
  env: string | null;
  kind: Kind<S>;
  default: z.output<S>;
  /** Shown instead of the default where that depends on other settings. */
  defaultText?: string;
  help: string;
  unit?: string;
  /** Masked everywhere, and readable from the file that `<env>_FILE` names. */
  secret?: true;
  /** The value may hold a secret: never repeated in a mistake. */
  discreet?: true;
  /** Not in the YAML file. */
  envOnly?: true;
}

type Extra = Partial<Pick<Setting, 'defaultText' | 'unit' | 'secret' | 'discreet' | 'envOnly'>>;

function setting<const K extends string, S extends z.ZodType>(
  name: K,
  of: Kind<S>,
  value: z.output<S>,
  help: string,
  extra: Extra = {},
): Setting<K, S> {
  const env = `POSTCARD_${name.replace(/[A-Z]/g, (upper) => `_${upper}`).toUpperCase()}`;
  return { key: name, env, kind: of, default: value, help, ...extra };
}

const MIB = 1024 ** 2;
const port = whole(0, 65_535);
const optional = <S extends z.ZodType>(of: Kind<S>) => kind(of.schema.nullable(), of.right, of.read);

export const SETTINGS = [
  setting('config', optional(path), null, 'YAML file with settings', {
    envOnly: true,
    defaultText: './postcard.yaml where it exists',
  }),
  setting('host', kind(z.string().refine(isHost), 'an IP address or a host name'), '127.0.0.1', 'where we listen'),
  setting('port', port, 8080, 'API for customers; 0 = any free port'),
  setting('publicUrl', baseUrl, '', 'how others reach us, for links', { defaultText: 'http://HOST:PORT' }),
  setting('dataDir', path, './data', 'directory for everything that is kept'),
  setting(
    'store',
    kind(z.string().refine(isStore), 'sqlite:, sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE'),
    'sqlite:',
    'where messages are kept',
    {
      defaultText: 'sqlite: (postcard.db in the data directory)',
      discreet: true,
    },
  ),
  setting('roles', roles, [...ROLES], 'what this process does; all but on PostgreSQL'),
  setting('node', optional(word64), null, "this process's name among those on one store", {
    defaultText: 'host name and process id',
  }),
  setting('apiKey', optional(key), null, "the first account's API key", {
    secret: true,
    defaultText: 'made at the first start, printed once, kept hashed',
  }),
  setting('sandbox', flag, true, 'built-in carrier with virtual handsets'),
  setting('sandboxPort', port, 8081, 'the sandbox: handsets and its MM7 server'),
  setting('sandboxSmppPort', port, 2775, 'the sandbox: its SMPP server (not yet in this version)'),
  setting('sandboxUrl', baseUrl, '', 'where the sandbox runs, when another process has that role', {
    defaultText: 'http://HOST:SANDBOX_PORT',
  }),
  setting('carrierPort', port, 8082, 'what carriers call: /mm7/{carrier}'),
  setting('carrierUrl', baseUrl, '', 'where the sandbox reports to, when another process dispatches', {
    defaultText: 'http://HOST:CARRIER_PORT',
  }),
  setting('outboundAllow', networks, [], 'networks beyond the public ones that customers may point URLs at, or none', {
    defaultText: 'loopback while host is loopback and the sandbox is on, else none',
  }),
  setting(
    'logLevel',
    kind(z.enum(LOG_LEVELS), `one of ${LOG_LEVELS.join(', ')}`),
    'info',
    'the least important lines that are logged',
  ),
  setting('maxMessages', whole(1, 100_000), 1000, 'messages in one request'),
  setting('maxDestinations', whole(1, 1_000_000), 10_000, 'destinations in one request, group members counted'),
  setting('maxSegments', whole(1, 1000), 20, 'segments in one message'),
  setting('maxBodyBytes', bytes(1024, 256 * MIB), 8 * MIB, 'JSON body of a request', { unit: 'bytes' }),
  setting('maxUploadBytes', bytes(1024, 256 * MIB), 5 * MIB, 'one uploaded content', { unit: 'bytes' }),
  setting('uploadValidityMinutes', whole(1, 525_600), 69_120, 'how long an upload is kept unless it says otherwise', {
    unit: 'minutes',
  }),
  setting('logsHours', whole(1, 8760), 48, 'how far back logs and reports can be read', { unit: 'hours' }),
  setting('retentionDays', whole(3, 3650), 7, 'how long finished messages and undelivered webhooks are kept', {
    unit: 'days',
  }),
  setting(
    'retentionMessages',
    whole(1000, 1_000_000_000),
    10_000_000,
    'finished messages kept at most; the oldest leave earlier',
    { unit: 'messages' },
  ),
  setting('linkDays', whole(1, 3650), 90, 'how long a shortened link works', { unit: 'days' }),
  { ...setting('carriers', carriers, [], 'the MMSCs that messages go to'), env: null },
] as const satisfies readonly Setting[];

type Listed = (typeof SETTINGS)[number];
/** A setting's name in the YAML file. */
export type Key = Listed['key'];

/** Every setting with its value; see `SETTINGS` for ranges and units. `store` is `sqlite:` and an absolute path, or a URL. */
export type Config = { [S in Listed as S['key']]: z.output<S['kind']['schema']> };
