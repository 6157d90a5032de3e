/**
 * Every setting of the product: name, environment variable, default, range, unit and one line of help, in one list
 * (`SETTINGS`), and the shape that they have together (`Config`). `config.ts` reads them.
 *
 * Promises: data and small pure functions; a Config is plain data, since it crosses to worker threads.
 */
import { z } from 'zod';
import { carriers, isCidr, isHost, isWebUrl, networkTable, prefixes, routes, withPrefix } from './carrier-settings.ts';
import { OPT_OUT_WORDS } from './domain/optout.ts';
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

function isBaseUrl(text: string): boolean {
  return isWebUrl(text) && !text.includes('?') && !text.includes('#');
}

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
  // No host in front of the path where one stands behind it: a socket's directory, as libpq has it.
  return /^postgres(ql)?:\/\/([^\s/]+\/[^\s/?#]+|\/[^\s/?#]+\?(\S*&)?host=)/.test(text);
}

const networks = kind(
  z.array(z.string().refine(isCidr).transform(withPrefix)).max(1000),
  'a list of networks like 10.0.0.0/8, fd00::/8, or none',
  (text) => (text === 'none' ? [] : text.split(',').map((part) => part.trim())),
);

// What an HTTP header can carry and a shell does not spoil.
const key = kind(z.string().regex(/^[\x21-\x7e]{1,256}$/), '1 to 256 visible ASCII characters without spaces');
const path = kind(z.string().regex(/^[^\u0000]{1,4096}$/), 'a path of at most 4096 characters');
// As `askOf` compares them: lower case, one space between words.
const askWords = kind(
  z
    .array(
      z
        .string()
        .regex(/^[\p{L}\p{N}][\p{L}\p{N} ]{0,30}$/u)
        .transform((word) => word.toLowerCase().trim().replace(/ +/g, ' ')),
    )
    .max(100),
  'a list of at most 100 words of letters and digits, or none',
  (text) => (text === 'none' ? [] : text.split(',').map((part) => part.trim())),
);
const word64 = kind(z.string().regex(/^[\w.:-]{1,64}$/), '1 to 64 of letters, digits and . _ : -');

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

// What stands behind the question mark is judged where it is used.
const BUCKET = /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](\/[A-Za-z0-9/._-]{0,200})?(\?[^\s#]{0,500})?$/;

export const SETTINGS = [
  setting('config', optional(path), null, 'YAML file with settings', {
    envOnly: true,
    defaultText: './postcard.yaml where it exists',
  }),
  setting('host', kind(z.string().refine(isHost), 'an IP address or a host name'), '127.0.0.1', 'where we listen'),
  setting('port', port, 8080, 'API for customers; 0 = any free port'),
  setting('tlsCert', optional(path), null, 'our certificate (PEM file) for customers; with it the API is https only', {
    defaultText: 'none: plain HTTP',
  }),
  setting('tlsKey', optional(path), null, 'the key of tlsCert (PEM file)', { defaultText: 'none' }),
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
  setting(
    'contentStore',
    optional(kind(z.string().regex(BUCKET), 's3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME')),
    null,
    'where the bytes of content are kept, if not in the store',
    { defaultText: 'none: in the store' },
  ),
  setting('s3AccessKey', optional(key), null, 'who we are to the content store', { secret: true, defaultText: 'none' }),
  setting('s3Secret', optional(key), null, 'the secret of s3AccessKey', { secret: true, defaultText: 'none' }),
  setting('roles', roles, [...ROLES], 'what this process does; all but on PostgreSQL'),
  setting('node', optional(word64), null, "this process's name among those on one store", {
    defaultText: 'host name and process id',
  }),
  setting('apiKey', optional(key), null, "the first account's API key", {
    secret: true,
    defaultText: 'made at the first start, printed once, kept hashed',
  }),
  setting('adminKey', optional(key), null, "the operator's key for /admin and `postcard account`", {
    secret: true,
    defaultText: 'none: there is no /admin',
  }),
  setting('adminAllow', networks, ['127.0.0.0/8', '::1/128'], 'networks that /admin answers to, or none'),
  setting('metricsAllow', networks, ['127.0.0.0/8', '::1/128'], 'networks that may read /metrics, or none'),
  setting('metricsToken', optional(key), null, 'with it /metrics is read from anywhere: Authorization: Bearer', {
    secret: true,
    defaultText: 'none',
  }),
  setting('trustedProxies', networks, [], 'networks of proxies whose X-Forwarded-For is believed, or none'),
  setting('maxWaiting', whole(1000, 1_000_000_000), 10_000_000, 'messages that may wait before senders are told 429', {
    unit: 'messages',
  }),
  setting(
    'secretKey',
    optional(
      kind(
        z.string().regex(/^[\x21-\x2b\x2d-\x7e]{32,256}(,[\x21-\x2b\x2d-\x7e]{32,256}){0,3}$/),
        '32 to 256 visible ASCII characters without spaces and commas; behind a comma older ones that still open',
      ),
    ),
    null,
    "what customers' secrets for their endpoints are sealed with in the store",
    { secret: true, defaultText: 'none: they are kept in clear' },
  ),
  setting('sandbox', flag, true, 'built-in carrier with virtual handsets'),
  setting('sandboxPort', port, 8081, 'the sandbox: handsets and its MM7 server'),
  setting('sandboxSmppPort', port, 2775, 'the sandbox: its SMPP server'),
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
  setting(
    'stopWords',
    askWords,
    [...OPT_OUT_WORDS.stop],
    'what a handset writes to hear no more from a number, or none',
  ),
  setting('startWords', askWords, [...OPT_OUT_WORDS.start], 'what a handset writes to hear from it again, or none'),
  setting('linkDays', whole(1, 3650), 90, 'how long a shortened link works', { unit: 'days' }),
  setting('geoDatabase', optional(path), null, 'MaxMind database (.mmdb file) for where clicks come from', {
    defaultText: 'none: clicks tell no place',
  }),
  setting('carrierTlsCert', optional(path), null, 'our certificate (PEM file) for carriers that call by https', {
    defaultText: 'none: plain HTTP',
  }),
  setting('carrierTlsKey', optional(path), null, 'the key of carrierTlsCert (PEM file)', { defaultText: 'none' }),
  { ...setting('carriers', kind(carriers, 'a list of carriers'), [], 'the MMSCs and SMSCs messages go to'), env: null },
  {
    ...setting('routes', kind(routes, 'a list of routes'), [], 'which carriers take what; without any, all in order'),
    env: null,
  },
  {
    ...setting(
      'networks',
      kind(networkTable, 'beginnings of numbers with their networks, or a file with lines like 4917,26201'),
      {},
      'number table for routes by network (MCC and MNC), or a file with it',
    ),
    env: null,
  },
  setting(
    'resellerCodeRequired',
    kind(prefixes, 'a list of beginnings of numbers like 82, or none', (text) =>
      text === 'none' ? [] : text.split(',').map((part) => part.trim()),
    ),
    [],
    'destinations that must come with a reseller code, by how they begin',
  ),
  setting(
    'failoverAfterUnknown',
    flag,
    false,
    'the SMS failover also follows an MMS of which nobody knows if it arrived',
  ),
] as const satisfies readonly Setting[];

type Listed = (typeof SETTINGS)[number];
/** A setting's name in the YAML file. */
export type Key = Listed['key'];

/** Every setting with its value; see `SETTINGS` for ranges and units. `store` is `sqlite:` and an absolute path, or a URL. */
export type Config = { [S in Listed as S['key']]: z.output<S['kind']['schema']> };
