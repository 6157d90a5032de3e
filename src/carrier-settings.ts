/**
 * What stands under `carriers:`, `routes:` and `networks:` in the YAML file: the keys of each kind of carrier with range,
 * default and the words for what is wrong, and what tells one configuration from the next (`diffCarriers`). `settings.ts` lists
 * the three among all settings, `config.ts` reads them. What to ask a carrier for stands in docs/MM7.md and docs/SMPP.md, how to
 * write routes in docs/ROUTING.md.
 *
 * Promises: data and pure functions; what comes out is plain data with defaults filled in. A key that is none is a mistake.
 * Fails: as issues of zod whose messages begin with "must".
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { SANDBOX, SANDBOX_SMS } from './configured.ts';
import { ERRORS } from './domain/codes.ts';
import { type Profile, readProfile } from './domain/profile.ts';
import type { Choice, Rule } from './domain/routing.ts';
import { SUBMIT_REQ_CHILDREN } from './domain/submission.ts';

// --- Kinds of value --------------------------------------------------------------------------------------------------

/** An http or https URL without credentials in it. */
export function isWebUrl(text: string): boolean {
  if (/\s/.test(text) || !URL.canParse(text)) return false;
  const url = new URL(text);
  return (url.protocol === 'http:' || url.protocol === 'https:') && url.username === '' && url.password === '';
}

/** An IP address or a name that DNS may know. */
export function isHost(text: string): boolean {
  return isIP(text) !== 0 || (/^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(text) && !/^[\d.]+$/.test(text));
}

/** An address with or without a prefix length. */
export function isCidr(text: string): boolean {
  const [address, prefix, ...more] = text.split('/');
  const family = isIP(address ?? '');
  if (family === 0 || more.length > 0 || address?.includes('%')) return false;
  return prefix === undefined || (/^\d{1,3}$/.test(prefix) && Number(prefix) <= (family === 4 ? 32 : 128));
}

export const withPrefix = (text: string): string =>
  text.includes('/') ? text : `${text}/${isIP(text) === 4 ? 32 : 128}`;

const word = (max: number) => {
  const error = `must be text of 1 to ${max} characters`;
  return z.string(error).min(1, error).max(max, error);
};
const matching = (pattern: RegExp, error: string) => z.string(error).regex(pattern, error);
const count = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`;
  return z.number(error).int(error).min(min, error).max(max, error);
};
const choice = <const T extends readonly string[]>(values: T) =>
  z.enum(values, `must be ${values.slice(0, -1).join(', ')}${values.length > 1 ? ' or ' : ''}${values.at(-1)}`);
const yes = z.boolean('must be true or false');
const secret = word(1024);
const pem = (what: string) => {
  const error = `must be ${what} in PEM form (-----BEGIN ...)`;
  return z
    .string(error)
    .max(256 * 1024, error)
    .refine((text) => /-----BEGIN [A-Z0-9 ]+-----/.test(text), error);
};
const rate = z
  .number('must be a number above 0, at most 100000')
  .gt(0, 'must be above 0')
  .max(100_000, 'must be at most 100000');
const NETWORK = 'must be a network like 10.0.0.0/8 or an address';
const networkList = z
  .array(z.string(NETWORK).refine(isCidr, NETWORK).transform(withPrefix), 'must be a list of networks like 10.0.0.0/8')
  .max(1000, 'must be at most 1000 networks');

const VERSION = 'must be an MM7 version like 6.8.0';
const NAME = 'must be 1 to 40 of a-z, 0-9 and -';
const WEB = 'must be an http or https URL; user name and password have keys of their own';
const ERROR_ID = 'must be an id of the error table, like 15009';
const XML_NAME = 'must be the name of an XML element, without prefix';

const carrierName = matching(/^[a-z0-9-]{1,40}$/, NAME).refine(
  (name) => name !== SANDBOX && name !== SANDBOX_SMS,
  `must not be ${SANDBOX} or ${SANDBOX_SMS}: those are built in`,
);

// --- What all carriers have ------------------------------------------------------------------------------------------

const verdicts = choice(['refuse', 'retry', 'throttle']);
const errorId = z
  .number(ERROR_ID)
  .int(ERROR_ID)
  .refine((id) => id !== 0 && Object.hasOwn(ERRORS, id), ERROR_ID);

/** How we show ourselves over TLS, and whom we believe. Each also as `...File`. */
const tls = z.strictObject(
  {
    /** Authorities to believe instead of the well-known ones. */
    ca: pem('a certificate').optional(),
    /** Our certificate and its key, both or neither. */
    cert: pem('a certificate').optional(),
    key: pem('a private key').optional(),
    /** Of the key. */
    passphrase: secret.optional(),
    /** The name that their certificate must have, where it is not the host's. */
    servername: word(253).optional(),
  },
  'must be caFile, certFile, keyFile, passphraseFile, servername',
);

const onUnknown = choice(['hold', 'retry', 'fail']);

/** A profile's name or its own limits. */
const profile = z.unknown().transform((input, context): Profile => {
  const read = readProfile(input);
  if (read.ok) return read.profile;
  for (const mistake of read.mistakes) {
    const [, key = '', must = mistake] = /^([\w.]+) (must .*)$/s.exec(mistake) ?? [];
    const message = must.startsWith('must') ? must : `must be a profile's name or its limits: ${must}`;
    context.issues.push({ code: 'custom', path: key === '' ? [] : key.split('.'), message, input });
  }
  return z.NEVER;
});

// --- MM7 -------------------------------------------------------------------------------------------------------------

const after = choice(SUBMIT_REQ_CHILDREN);

/** Headers that say how a request is framed, or that we print ourselves. */
const OUR_HEADERS =
  /^(?:content-.*|host|connection|transfer-encoding|te|trailer|upgrade|expect|authorization|soapaction|keep-alive|proxy-.*)$/i;
const HEADER =
  'must be the name of a header that is not ours to set (not Content-*, Host, Authorization, SOAPAction ...)';
const header = matching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/, HEADER).refine(
  (name) => !OUR_HEADERS.test(name),
  HEADER,
);
const HEADER_VALUE = 'must be text of 1 to 1000 visible ASCII characters and blanks';
const headerText = matching(/^[\x21-\x7e](?:[\x20-\x7e]{0,998}[\x21-\x7e])?$/, HEADER_VALUE);

const xmlName = matching(/^[A-Za-z_][A-Za-z0-9_.-]{0,99}$/, XML_NAME);

const extraElement = z.strictObject(
  {
    name: xmlName,
    /** May hold {sender}, {recipient}, {transactionId}, {campaignReferenceId}, {resellerCode}; left out where it comes out empty. */
    value: z.string('must be text').max(2000, 'must be at most 2000 characters').optional(),
    attributes: z
      .record(
        xmlName,
        z.string('must be text').max(1000, 'must be at most 1000 characters'),
        'must be names and values',
      )
      .optional(),
    /** Of the element, where it is not MM7's. */
    namespace: word(256).optional(),
    /** The child of SubmitReq that it follows; where the schema knows the name, it finds its place itself. */
    after: after.optional(),
  },
  'must be name, value and after',
);

const resellerCode = z.strictObject(
  {
    header: header.optional(),
    element: xmlName.optional(),
    namespace: word(256).optional(),
    after: after.optional(),
  },
  'must be header: NAME or element: NAME',
);

const CODE = 'must be a status code of four digits, 2000 or more';
const statusCodes = z.record(
  matching(/^[2-9]\d{3}$/, CODE),
  verdicts,
  'must be status codes with refuse, retry or throttle',
);
const errors = z.record(matching(/^[2-9]\d{3}$/, CODE), errorId, 'must be status codes with ids of the error table');

const inbound = z.strictObject(
  {
    /** What the carrier shows: password of HTTP Basic, X-Postcard-Secret or ?secret=. */
    secret: secret.optional(),
    /** Where its calls may come from; absent = anywhere. */
    allow: networkList.optional(),
    /** Authorities of its client certificate: with this, only TLS with such a certificate is taken. */
    clientCa: pem('a certificate').optional(),
    /** The name (CN or DNS) that the certificate must have. */
    clientName: word(253).optional(),
    /** Whether plain HTTP is refused. */
    tls: yes.optional(),
  },
  'must be secret, allow, clientCaFile, clientName, tls',
);

const CHARGED = ['Sender', 'Recipient', 'Both', 'Neither', 'ThirdParty'] as const;

/** One MMSC. Defaults are the most common in the field. */
const mm7Shape = {
  /** Part of the path that this carrier calls: /mm7/{name}. */
  name: carrierName,
  type: choice(['mm7', 'smpp']),
  url: z.string(WEB).refine(isWebUrl, WEB),
  /** Both or neither. */
  username: word(256)
    .refine((name) => !name.includes(':'), 'must not contain a colon (HTTP has no way to send it)')
    .optional(),
  password: secret.optional(),
  /** How they are shown; basic unless given. */
  auth: choice(['basic', 'digest']).optional(),
  tls: tls.optional(),
  namespace: word(256).default('http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4'),
  version: matching(/^\d{1,3}(\.\d{1,3}){2}$/, VERSION).default('6.8.0'),
  soapAction: z
    .string('must be text')
    .regex(/^[\x20\x21\x23-\x7e]{0,256}$/, 'must be text without quotes')
    .optional(),
  vaspId: word(256).optional(),
  vasId: word(256).optional(),
  serviceCode: word(256).optional(),
  transferEncoding: choice(['binary', 'base64']).default('binary'),
  /** Whether numbers carry a leading +. */
  plus: yes.default(true),
  /** Added to every number, for carriers that want /TYPE=PLMN. */
  numberSuffix: word(64).optional(),
  /** The element that numbers stand in; number unless given. */
  numberForm: choice(['number', 'rfc2822']).optional(),
  /** The element of the sender; auto (by what it is) unless given. */
  senderForm: choice(['auto', 'number', 'shortCode', 'rfc2822', 'omit']).optional(),
  chargedParty: choice(CHARGED).optional(),
  chargedPartyId: word(256).optional(),
  messageClass: choice(['Personal', 'Informational', 'Advertisement', 'Auto']).optional(),
  priority: choice(['Normal', 'High', 'Low']).optional(),
  readReply: yes.optional(),
  /** False = the message may not be passed on. */
  distributionIndicator: yes.optional(),
  /** Whether the carrier may change the content. */
  allowAdaptations: yes.optional(),
  /** How ExpiryDate is written; absolute unless given. */
  expiry: choice(['absolute', 'relative', 'none']).optional(),
  extraHeaders: z.record(header, headerText, 'must be headers with their values').optional(),
  extraElements: z.array(extraElement, 'must be a list of elements').max(20, 'must be at most 20 elements').optional(),
  resellerCode: resellerCode.optional(),
  /** Most recipients of one submission; a larger group goes as single messages. 200 unless given. */
  maxRecipients: count(1, 200).optional(),
  /** Whether CancelReq is understood; true unless given. */
  cancel: yes.optional(),
  /** It keeps EarliestDeliveryTime: what is scheduled may be handed over so long before sendAt; 0 unless given. */
  handOverEarlyMs: count(0, 86_400_000).optional(),
  profile: profile.optional(),
  /** What to do when we sent and do not know: hold for a report and then repeat once, repeat at once, give up. */
  onUnknown: onUnknown.default('hold'),
  /** Whether this carrier sends delivery reports; without them, taken is the final status. */
  reports: yes.default(true),
  statusCodes: statusCodes.optional(),
  errors: errors.optional(),
  /** How the ids of its reports differ from those of its answers (hex-to-dec: the reports' are hexadecimal); as-is unless given. */
  reportIdForm: choice(['as-is', 'hex-to-dec', 'dec-to-hex']).optional(),
  /** Submissions in flight at a time. */
  concurrency: count(1, 1000).default(10),
  /** Submissions a second; no limit when absent. */
  ratePerSecond: rate.optional(),
  /** At most 60 s, because a claim is leased for longer than that and no message may be submitted twice at a time. */
  timeoutMs: count(100, 60_000).default(30_000),
  /** What the carrier must show when it calls us: the short form of inbound.secret. */
  inboundSecret: secret.optional(),
  inbound: inbound.optional(),
};
const mm7 = z.strictObject(mm7Shape, 'must be a carrier: name, type, url and more');

// --- SMPP ------------------------------------------------------------------------------------------------------------

const smppStatus = /^(?:0[xX][0-9a-fA-F]{1,8}|\d{1,10})$/;
const SMPP_HOST = 'must be an IP address or a host name';

/** One SMSC. */
const smppShape = {
  name: carrierName,
  type: choice(['mm7', 'smpp']),
  host: z.string(SMPP_HOST).refine(isHost, SMPP_HOST),
  port: count(1, 65_535).default(2775),
  tls: z.union([yes, tls], { error: 'must be true, false, or caFile, certFile, keyFile, servername' }).optional(),
  systemId: word(15),
  password: z.string('must be text').max(64, 'must be at most 64 characters'),
  systemType: z.string('must be text').max(12, 'must be at most 12 characters').default(''),
  bind: choice(['transceiver', 'pair']).default('transceiver'),
  /** Sessions at a time. */
  binds: count(1, 32).default(1),
  /** Unanswered requests of one session. */
  window: count(1, 1000).default(10),
  /** Segments a second, of all sessions together. */
  ratePerSecond: rate.optional(),
  enquireLinkMs: count(1000, 600_000).default(30_000),
  /** For one answer. */
  timeoutMs: count(100, 60_000).default(30_000),
  connectTimeoutMs: count(100, 60_000).default(10_000),
  addressing: z
    .strictObject(
      {
        sourceTon: count(0, 255).optional(),
        sourceNpi: count(0, 255).optional(),
        destTon: count(0, 255).optional(),
        destNpi: count(0, 255).optional(),
      },
      'must be sourceTon, sourceNpi, destTon, destNpi',
    )
    .optional(),
  /** Whether numbers carry a leading +. */
  plus: yes.default(false),
  serviceType: z.string('must be text').max(5, 'must be at most 5 characters').default(''),
  encoding: z
    .strictObject(
      {
        /** What data_coding 0 means to them. */
        default: choice(['gsm', 'latin1', 'ascii']).default('gsm'),
        packed: yes.default(false),
      },
      'must be default and packed',
    )
    .prefault({}),
  concatenation: choice(['udh', 'sar', 'payload']).default('udh'),
  registeredDelivery: choice(['last', 'all', 'none']).default('last'),
  receiptIdForm: choice(['auto', 'as-is', 'hex-to-dec', 'dec-to-hex']).default('auto'),
  validity: choice(['absolute', 'relative', 'none']).default('absolute'),
  /** Tag of the TLV that carries the reseller code. */
  resellerCodeTlv: count(0x1400, 0x3fff).optional(),
  statusTable: z
    .record(
      matching(smppStatus, 'must be a status like 0x58 or 88'),
      verdicts,
      'must be statuses with refuse, retry or throttle',
    )
    .optional(),
  onUnknown: onUnknown.default('hold'),
  /** Whether receipts come; without them, taken is the final status. */
  reports: yes.default(true),
};
const smpp = z.strictObject(smppShape, 'must be a carrier: name, type, host, systemId, password and more');

// --- One carrier -----------------------------------------------------------------------------------------------------

/** One configured MMSC, defaults filled in. */
export type Mm7CarrierConfig = Omit<z.output<typeof mm7>, 'type'> & { type: 'mm7' };
/** One configured SMSC, defaults filled in. */
export type SmppCarrierConfig = Omit<z.output<typeof smpp>, 'type'> & { type: 'smpp' };
/** One configured carrier. */
export type CarrierConfig = Mm7CarrierConfig | SmppCarrierConfig;

const kindOf = (item: unknown): typeof mm7 | typeof smpp =>
  typeof item === 'object' && item !== null && (item as { type?: unknown }).type === 'smpp' ? smpp : mm7;

/** Not a union of zod's: an unknown `type` must not hide what else is wrong. */
const carrier = z.unknown().transform((item, context): CarrierConfig => {
  const read = kindOf(item).safeParse(item);
  if (read.success) {
    const done = read.data as CarrierConfig;
    if (done.type === 'mm7' && done.profile) {
      // The wire form is the carrier's; what is counted must be what is sent.
      done.profile = { ...done.profile, transferEncoding: done.transferEncoding };
    }
    return done;
  }
  for (const issue of read.error.issues) context.issues.push({ ...issue, input: item, continue: true } as never);
  return z.NEVER;
});

export const carriers = z.array(carrier, 'must be a list, one item a carrier').max(100, 'must be at most 100 carriers');

/** Never shown, and each also as a file: `passwordFile`. */
export const CARRIER_SECRETS: readonly string[] = ['password', 'inboundSecret', 'secret', 'key', 'passphrase'];
/** Also as a file: `caFile`. */
export const CARRIER_FILES: readonly string[] = [...CARRIER_SECRETS, 'ca', 'cert', 'clientCa'];
/** Objects of a carrier that may hold such keys. */
export const CARRIER_GROUPS: readonly string[] = ['tls', 'inbound'];

/** Keys that exist anywhere in a carrier, for "did you mean". */
export const CARRIER_KEYS: readonly string[] = [
  ...new Set([
    ...Object.keys(mm7Shape),
    ...Object.keys(smppShape),
    ...Object.keys(tls.shape),
    ...Object.keys(inbound.shape),
    ...Object.keys(extraElement.shape),
    ...CARRIER_FILES.map((name) => `${name}File`),
  ]),
];
/** A carrier as people may see it: secrets and the values of extra headers masked, certificates cut short. */
export function shownCarrier(carrier: CarrierConfig): Record<string, unknown> {
  const show = (value: object, group: string): Record<string, unknown> =>
    Object.fromEntries(
      Object.entries(value).map(([name, one]: [string, unknown]) => {
        if (CARRIER_SECRETS.includes(name) || group === 'extraHeaders') return [name, '***'];
        if (CARRIER_FILES.includes(name)) return [name, '(PEM)'];
        const inner = typeof one === 'object' && one !== null && !Array.isArray(one);
        return [name, inner ? show(one, name) : one];
      }),
    );
  return show(carrier, '');
}

/** What only shows when a carrier's good values are seen side by side; `at` names it. */
export function carrierTogether(carrier: CarrierConfig, at: string, listenerHasTls: boolean): string[] {
  const mistakes: string[] = [];
  const pair = (group: Record<string, unknown> | undefined, a: string, b: string, where: string): void => {
    if (group && (group[a] === undefined) !== (group[b] === undefined)) {
      mistakes.push(`${where}: ${a} and ${b} go together; give both or neither`);
    }
  };
  if (typeof carrier.tls === 'object') pair(carrier.tls, 'cert', 'key', `${at}.tls`);
  if (carrier.type === 'smpp') return mistakes;
  pair(carrier, 'username', 'password', at);
  if (carrier.auth !== undefined && carrier.username === undefined) {
    mistakes.push(`${at}.auth: there is nobody to show without username and password; give them, or leave auth out`);
  }
  if (carrier.tls !== undefined && carrier.url.startsWith('http:')) {
    mistakes.push(`${at}.tls: ${carrier.name} is called by plain http; give an https url, or leave tls out`);
  }
  if (carrier.inboundSecret !== undefined && carrier.inbound?.secret !== undefined) {
    mistakes.push(`${at}.inboundSecret: inbound.secret is given too; leave one of the two out`);
  }
  const { clientCa, clientName, tls: onlyTls } = carrier.inbound ?? {};
  if (clientName !== undefined && clientCa === undefined) {
    mistakes.push(`${at}.inbound.clientName: whose names count? give clientCaFile, or leave it out`);
  }
  if ((clientCa !== undefined || onlyTls === true) && !listenerHasTls) {
    mistakes.push(`${at}.inbound: TLS needs a certificate of ours; give carrierTlsCert and carrierTlsKey`);
  }
  const reseller = carrier.resellerCode;
  if (reseller && (reseller.header === undefined) === (reseller.element === undefined)) {
    mistakes.push(`${at}.resellerCode: it goes into a header or an element; give one of the two`);
  }
  const places = [
    ...(carrier.extraElements ?? []),
    ...(reseller?.element === undefined ? [] : [{ name: reseller.element, after: reseller.after }]),
  ];
  for (const { name, after: place } of places) {
    if (place === undefined && !(SUBMIT_REQ_CHILDREN as readonly string[]).includes(name)) {
      mistakes.push(`${at}: SubmitReq has no ${name} in its schema; say after which child it stands, with after`);
    }
  }
  return mistakes;
}

// --- Routes ----------------------------------------------------------------------------------------------------------

const PREFIX = 'must be digits, how numbers begin, like "49"';
const MCCMNC = 'must be a network like "26201" (MCC and MNC)';
const SENDER = 'must be a sender, or its beginning with *';
/** YAML makes numbers of digits: both forms are taken. */
const text = (schema: z.ZodType<string>) =>
  z.preprocess((value) => (typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value), schema);
/** One, or a list. */
const listOf = <S extends z.ZodType>(schema: S, error: string) =>
  z.preprocess(
    (value) => (value === undefined || Array.isArray(value) ? value : [value]),
    z.array(schema, error).min(1, error).max(1000, error),
  );
const prefix = text(matching(/^\+?\d{1,15}$/, PREFIX).transform((digits) => digits.replace('+', '')));
/** Beginnings of numbers. */
export const prefixes = z.array(prefix).max(1000);
const routeCarrier = matching(/^[a-z0-9-]{1,40}$/, 'must be the name of a carrier');

const route = z.strictObject(
  {
    /** For the explanation. */
    name: word(100).optional(),
    /** How destinations begin. */
    to: listOf(prefix, PREFIX).optional(),
    /** Short codes, whole. */
    shortCodes: listOf(
      text(matching(/^\d{3,8}$/, 'must be a short code of 3 to 8 digits')),
      'must be short codes',
    ).optional(),
    /** By the table under `networks`. */
    network: listOf(text(matching(/^\d{5,6}$/, MCCMNC)), MCCMNC).optional(),
    account: listOf(count(1, 2 ** 40), 'must be numbers of accounts').optional(),
    sender: listOf(text(matching(/^[^*]{1,16}\*?$/, SENDER)), SENDER).optional(),
    channel: choice(['MMS', 'SMS']).optional(),
    /** In order; those with a weight that follow each other share one place. Empty = no route. */
    carriers: z
      .array(
        z.union(
          [
            routeCarrier.transform((name): Choice => ({ carrier: name })),
            z
              .strictObject(
                { name: routeCarrier, weight: count(1, 1_000_000) },
                'must be the name of a carrier, or name and weight',
              )
              .transform(({ name, weight }): Choice => ({ carrier: name, weight })),
          ],
          { error: 'must be the name of a carrier, or {name: NAME, weight: NUMBER}' },
        ),
        'must be a list of carriers',
      )
      .max(20, 'must be at most 20 carriers'),
  },
  'must be a route: carriers, and what it is for',
);

export const routes = z
  .array(
    route.transform((rule): Rule => rule),
    'must be a list, one item a route',
  )
  .max(10_000, 'must be at most 10000 routes');
export const ROUTE_KEYS: readonly string[] = Object.keys(route.shape);

const MANY = 2_000_000;
/** Number table: how numbers begin -> network. */
export const networkTable = z
  .record(
    matching(/^\+?\d{1,15}$/, PREFIX),
    text(matching(/^\d{5,6}$/, MCCMNC)),
    'must be beginnings of numbers with their networks',
  )
  .refine((table) => Object.keys(table).length <= MANY, `must be at most ${MANY} beginnings`);

/** What of `routes` names a carrier that is not there; `at` names the setting. */
export function routesTogether(rules: readonly Rule[], names: ReadonlySet<string>, at: string): string[] {
  return rules.flatMap((rule, index) =>
    rule.carriers.flatMap(({ carrier: name }, place) => {
      if (names.has(name)) return [];
      const known = [...names].join(', ') || 'there is none';
      return [`${at}[${index}].carriers[${place}] is "${name}": no such carrier; choose of ${known}`];
    }),
  );
}

// --- From one configuration to the next ------------------------------------------------------------------------------

/** What a reload changes. */
export interface CarrierChanges {
  added: CarrierConfig[];
  /** Their messages wait until they come back, or their validity ends. */
  removed: CarrierConfig[];
  /** The new form, and the keys that differ. */
  changed: { carrier: CarrierConfig; keys: string[] }[];
  /** Whether `routes`, `networks`, `resellerCodeRequired` or the order of carriers differ. */
  routing: boolean;
}

/** What is read again when the configuration changes. */
export type Reloadable = Readonly<{
  carriers: readonly CarrierConfig[];
  routes: readonly Rule[];
  networks: Readonly<Record<string, string>>;
  resellerCodeRequired: readonly string[];
  failoverAfterUnknown?: boolean;
}>;

/** What is different in `next`. A carrier of the same name and another type is removed and added. */
export function diffCarriers(last: Reloadable, next: Reloadable): CarrierChanges {
  const old = new Map(last.carriers.map((one) => [one.name, one]));
  const fresh = new Map(next.carriers.map((one) => [one.name, one]));
  const changes: CarrierChanges = { added: [], removed: [], changed: [], routing: false };
  for (const [name, one] of fresh) {
    const before = old.get(name);
    if (!before || before.type !== one.type) changes.added.push(one);
    else {
      const keys = changedKeys(before, one);
      if (keys.length > 0) changes.changed.push({ carrier: one, keys });
    }
  }
  for (const [name, one] of old) {
    if (fresh.get(name)?.type !== one.type) changes.removed.push(one);
  }
  const shape = (config: Reloadable): string =>
    JSON.stringify([
      config.carriers.map(({ name, type }) => [name, type]),
      config.routes,
      config.networks,
      config.resellerCodeRequired,
      config.failoverAfterUnknown === true,
    ]);
  changes.routing =
    shape(last) !== shape(next) || changes.changed.some(({ keys }) => keys.some((key) => SHAPES.has(key)));
  return changes;
}

/** Keys of a carrier that say where messages may go, or on how many lanes. */
const SHAPES: ReadonlySet<string> = new Set([
  'maxRecipients',
  'handOverEarlyMs',
  'concurrency',
  'ratePerSecond',
  'binds',
  'window',
]);

/** Names of the top-level keys whose values differ. */
export function changedKeys(a: object, b: object): string[] {
  const one = a as Record<string, unknown>;
  const other = b as Record<string, unknown>;
  return [...new Set([...Object.keys(one), ...Object.keys(other)])].filter(
    (key) => JSON.stringify(one[key]) !== JSON.stringify(other[key]),
  );
}
