/**
 * Reads the settings (`settings.ts` lists them) and shows them.
 *
 * A value comes from the first of these that gives one: the environment (`POSTCARD_PORT`, or for secrets the file that
 * `POSTCARD_API_KEY_FILE` names), the YAML file (`POSTCARD_CONFIG`, else ./postcard.yaml where it exists), the default. An
 * empty environment variable counts as not given.
 *
 * Promises: pure but for the injected `readFile` and `realPath`; paths in a Config are absolute; secrets appear in no mistake and in no
 * description. All mistakes are found at once, one line each: which setting, what is wrong, what would be right. Unknown
 * names are mistakes, so that a misspelt limit is never silently the default. Nothing here throws.
 */
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import {
  CARRIER_FILES,
  CARRIER_GROUPS,
  CARRIER_KEYS,
  CARRIER_SECRETS,
  type CarrierConfig,
  carrierTogether,
  ROUTE_KEYS,
  routesTogether,
  shownCarrier,
} from './carrier-settings.ts';
import { isLoopback, isSqlite, SANDBOX, withoutPassword } from './configured.ts';
import { readNetworks } from './domain/networks.ts';
import { type Config, type Key, ROLES, SETTINGS, type Setting } from './settings.ts';

export { type Config, ROLES, type Role, SETTINGS } from './settings.ts';

/** Where each value comes from: `default`, an environment variable, or a file as it was named. */
export type Origins = Record<Key, string>;

// --- Loading ---------------------------------------------------------------------------------------------------------

const DEFAULT_FILE = 'postcard.yaml';
const PREFIX = 'POSTCARD_';
/** A configuration larger than this is a wrong path. */
const MAX_FILE_CHARS = 1024 * 1024;
const LOOPBACK = ['127.0.0.0/8', '::1/128'];

/** `cwd` is absolute; `readFile` answers UTF-8 text and throws Node's errors (`ENOENT` = no such file). */
export interface Sources {
  env: Record<string, string | undefined>;
  cwd: string;
  readFile(path: string): string;
  /** Where a path that is a symbolic link leads; any other path as it is. Absent = there are no links. */
  realPath?(path: string): string;
}

/** Settings with mistakes in them, each told in a line. */
export interface Mistaken {
  ok: false;
  mistakes: string[];
  /** What could be read of them: whoever tells the mistakes also tells what is wrong with the rest. Nothing starts with it. */
  config: Config;
  /** Keys of settings that stand at their default there, though that may be what nobody wants. */
  unsure: ReadonlySet<string>;
}

/** Reads all sources; either a Config that can be used as it is, or every mistake in them. */
export function loadConfig(sources: Sources): { ok: true; config: Config; origins: Origins } | Mistaken {
  const mistakes: string[] = [];
  const found = new Map<string, { value: unknown; typed: unknown; origin: string; where: string }>();
  const settings: readonly Setting[] = SETTINGS;

  const given = fromEnvironment(sources, settings, mistakes);
  const named = given.get('config')?.value;
  const file = typeof named === 'string' ? named : DEFAULT_FILE;
  const before = mistakes.length;
  const yaml = fromFile(sources, settings, file, typeof named === 'string', mistakes);
  const unread = yaml === null && mistakes.length > before;
  for (const s of settings) {
    const text = given.get(s.key);
    if (text) {
      const { value: typed, origin } = text;
      found.set(s.key, { value: s.kind.read(typed), typed, origin, where: origin });
    }
    if (!text && yaml && Object.hasOwn(yaml, s.key) && yaml[s.key] !== null && yaml[s.key] !== undefined) {
      const value = yaml[s.key];
      const read = typeof value === 'string' ? s.kind.read(value) : value;
      found.set(s.key, { value: read, typed: value, origin: file, where: `${file}: ${s.key}` });
    }
  }

  const values: Record<string, unknown> = {};
  const origins: Record<string, string> = {};
  const bad = new Set<string>();
  for (const s of settings) {
    const from = found.get(s.key);
    origins[s.key] = from?.origin ?? 'default';
    values[s.key] = s.default;
    if (!from) continue;
    const input =
      s.key === 'carriers'
        ? withSecretFiles(from.value, sources, from.where, mistakes)
        : s.key === 'networks'
          ? withTable(from.value, sources, from.where, mistakes)
          : from.value;
    if (input === undefined) {
      bad.add(s.key);
      continue;
    }
    const parsed = s.kind.schema.safeParse(input);
    if (parsed.success) values[s.key] = parsed.data;
    else {
      bad.add(s.key);
      if (LISTS.has(s.key)) mistakes.push(...listMistakes(parsed.error, input, from.where, s.key));
      else mistakes.push(valueMistake(s, from.where, Array.isArray(from.value) ? from.typed : from.value));
    }
  }
  const config = values as Config;
  mistakes.push(...together(config, origins as Origins, found, bad));
  const whole = finished(config, origins as Origins, sources, yaml ? file : null);
  if (mistakes.length === 0) return { ok: true, config: whole, origins: origins as Origins };
  const unsure = new Set(unread ? Object.keys(origins).filter((key) => origins[key] === 'default') : []);
  for (const key of bad) unsure.add(key);
  // Names and values come from the file: what they say is one line all the same.
  return { ok: false, mistakes: mistakes.map((line) => line.replace(/\p{Cc}/gu, '?')), config: whole, unsure };
}

/** Fills in what depends on other settings, and makes paths absolute. */
function finished(config: Config, origins: Origins, sources: Sources, file: string | null): Config {
  const { cwd } = sources;
  const dataDir = resolve(cwd, config.dataDir);
  const local = isLoopback(config.host) && config.sandbox;
  return {
    ...config,
    config: file === null ? null : resolve(cwd, file),
    dataDir,
    tlsCert: config.tlsCert === null ? null : resolve(cwd, config.tlsCert),
    tlsKey: config.tlsKey === null ? null : resolve(cwd, config.tlsKey),
    carrierTlsCert: config.carrierTlsCert === null ? null : resolve(cwd, config.carrierTlsCert),
    carrierTlsKey: config.carrierTlsKey === null ? null : resolve(cwd, config.carrierTlsKey),
    store: isSqlite(config.store) ? `sqlite:${sqliteFile(config.store, dataDir, sources)}` : config.store,
    publicUrl: noSlash(
      origins.publicUrl === 'default'
        ? publicUrlOf(config.host, config.port, config.tlsCert !== null)
        : config.publicUrl,
    ),
    sandboxUrl: config.sandboxUrl === '' ? publicUrlOf(config.host, config.sandboxPort) : noSlash(config.sandboxUrl),
    carrierUrl: config.carrierUrl === '' ? publicUrlOf(config.host, config.carrierPort) : noSlash(config.carrierUrl),
    outboundAllow: origins.outboundAllow === 'default' ? (local ? [...LOOPBACK] : []) : config.outboundAllow,
  };
}

/** By its own name: what stands beside it, such as the lock, is found there, whatever link leads to it. */
function sqliteFile(store: string, dataDir: string, { cwd, realPath = (path) => path }: Sources): string {
  const path = store.slice('sqlite:'.length);
  const file = path === '' ? resolve(dataDir, 'postcard.db') : resolve(cwd, path);
  return realPath(file);
}

const noSlash = (url: string): string => url.replace(/\/$/, '');

/** The default of `publicUrl`: also for the port that was really taken where 0 was asked for. */
export function publicUrlOf(host: string, port: number, tls = false): string {
  // Nobody can call "every address": say the one that works on this machine.
  const name = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
  return `http${tls ? 's' : ''}://${isIP(name) === 6 ? `[${name}]` : name}:${port}`;
}

function fromEnvironment(
  { env, cwd, readFile }: Sources,
  settings: readonly Setting[],
  mistakes: string[],
): Map<string, { value: string; origin: string }> {
  const given = new Map<string, { value: string; origin: string }>();
  const known = new Map(settings.map((s) => [s.env ?? `${PREFIX}${s.key.toUpperCase()}`, s]));
  for (const [name, value] of Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!name.startsWith(PREFIX) || value === undefined || value === '') continue;
    const s = known.get(name);
    const ofFile = s ? undefined : known.get(name.replace(/_FILE$/, ''));
    if (s?.env === null) {
      mistakes.push(`${name}: ${s.key} can only be given in the YAML file`);
    } else if (s) {
      given.set(s.key, { value, origin: name });
    } else if (ofFile?.secret && ofFile.env !== null) {
      if (env[ofFile.env]) {
        mistakes.push(`${name}: ${ofFile.env} is given too; leave one of the two out`);
        continue;
      }
      const text = read(readFile, resolve(cwd, value));
      // Editors end a file with a newline that is not part of the secret.
      if ('text' in text) given.set(ofFile.key, { value: text.text.replace(/\r?\n$/, ''), origin: name });
      else mistakes.push(`${name}: cannot read ${value} (${text.error}); name a readable file that holds the secret`);
    } else if (ofFile) {
      mistakes.push(
        `${name}: only secrets are read from files; give the value itself in ${ofFile.env ?? 'the YAML file'}`,
      );
    } else {
      const names = [...known.values()].flatMap((k) => (k.env === null ? [] : [k.env]));
      mistakes.push(`${name}: no such setting${suggestion(name, names)}`);
    }
  }
  return given;
}

function fromFile(
  { cwd, readFile }: Sources,
  settings: readonly Setting[],
  file: string,
  required: boolean,
  mistakes: string[],
): Record<string, unknown> | null {
  const text = read(readFile, resolve(cwd, file));
  if ('error' in text) {
    if (text.error === 'ENOENT' && !required) return null;
    const advice = required
      ? 'name a readable YAML file, or leave POSTCARD_CONFIG out'
      : 'make it readable or remove it';
    mistakes.push(`${required ? 'POSTCARD_CONFIG: ' : ''}cannot read ${file} (${text.error}); ${advice}`);
    return null;
  }
  if (text.text.length > MAX_FILE_CHARS) {
    mistakes.push(`${file}: larger than 1 MiB; name the file with the settings`);
    return null;
  }
  const parsed = parseYaml(text.text);
  if ('errors' in parsed) {
    mistakes.push(...parsed.errors.map((error) => `${file}: ${error}`));
    return null;
  }
  const value = parsed.value ?? {};
  if (typeof value !== 'object' || Array.isArray(value)) {
    mistakes.push(`${file}: must be a list of "setting: value" lines, like "port: 8080"`);
    return null;
  }
  const names = settings.filter((s) => !s.envOnly).map((s) => s.key);
  for (const name of Object.keys(value)) {
    if (names.includes(name)) continue;
    const env = settings.find((s) => s.env === name || s.key === name);
    if (env?.envOnly) mistakes.push(`${file}: ${name}: can only be given in the environment`);
    else
      mistakes.push(
        `${file}: ${name}: no such setting${env ? `; here it is called ${env.key}` : suggestion(name, names)}`,
      );
  }
  return value as Record<string, unknown>;
}

function parseYaml(text: string): { value: unknown } | { errors: string[] } {
  const doc = parseDocument(text, { prettyErrors: false, logLevel: 'silent' });
  if (doc.errors.length > 0) {
    // The first one of a line: what follows it there is its echo.
    const errors = new Map<number, string>();
    for (const error of doc.errors) {
      const line = text.slice(0, error.pos[0]).split('\n').length;
      if (!errors.has(line)) errors.set(line, `line ${line}: not YAML: ${error.message.split('\n')[0]}`);
    }
    return { errors: [...errors.values()] };
  }
  try {
    return { value: doc.toJS({ maxAliasCount: 50 }) };
  } catch (error) {
    return { errors: [`not usable YAML: ${error instanceof Error ? error.message : String(error)}`] };
  }
}

function read(readFile: Sources['readFile'], file: string): { text: string } | { error: string } {
  try {
    return { text: readFile(file) };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    return { error: typeof code === 'string' ? code : String(error) };
  }
}

/** Replaces `passwordFile` and its like, also in `tls` and `inbound` of each carrier, by what those files hold. */
function withSecretFiles(list: unknown, sources: Sources, where: string, mistakes: string[]): unknown {
  if (!Array.isArray(list)) return list;
  return list.map((item: unknown, index) => withFiles(item, sources, `${where}[${index}]`, mistakes));
}

function withFiles(item: unknown, sources: Sources, where: string, mistakes: string[]): unknown {
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return item;
  const copy: Record<string, unknown> = { ...item };
  for (const name of CARRIER_GROUPS) {
    if (Object.hasOwn(copy, name)) copy[name] = withFiles(copy[name], sources, `${where}.${name}`, mistakes);
  }
  for (const name of CARRIER_FILES) {
    const file = copy[`${name}File`];
    if (file === undefined) continue;
    delete copy[`${name}File`];
    const at = `${where}.${name}File`;
    const what = CARRIER_SECRETS.includes(name) ? 'holds the secret' : 'holds the certificate';
    if (typeof file !== 'string' || file === '') mistakes.push(`${at}: must be the path of a file that ${what}`);
    else if (copy[name] !== undefined) mistakes.push(`${at}: ${name} is given too; leave one of the two out`);
    else {
      const text = read(sources.readFile, resolve(sources.cwd, file));
      if ('text' in text) copy[name] = text.text.replace(/\r?\n$/, '');
      else mistakes.push(`${at}: cannot read ${file} (${text.error}); name a readable file that ${what}`);
    }
  }
  return copy;
}

/** The number table, where it is a file. Undefined = the mistakes say why there is none. */
function withTable(value: unknown, { cwd, readFile }: Sources, where: string, mistakes: string[]): unknown {
  if (typeof value !== 'string') return value;
  const text = read(readFile, resolve(cwd, value));
  if ('error' in text) {
    mistakes.push(`${where}: cannot read ${value} (${text.error}); name a readable file with lines like 4917,26201`);
    return undefined;
  }
  const table = readNetworks(text.text);
  if (table.ok) return table.table;
  mistakes.push(...table.mistakes.map((mistake) => `${where}: ${value}: ${mistake}`));
  return undefined;
}

// --- Mistakes --------------------------------------------------------------------------------------------------------

function valueMistake(s: Setting, where: string, value: unknown): string {
  const shown = s.secret || s.discreet ? '' : ` is ${quoted(value)}:`;
  const example =
    s.default === null || s.default === '' || typeof s.default === 'object' ? '' : `, for example ${s.default}`;
  return `${where}${shown || ':'} must be ${s.kind.right}${shown ? example : ''}`;
}

function quoted(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Settings of many values, each of which has a place of its own in a mistake. */
const LISTS: ReadonlySet<string> = new Set(['carriers', 'routes', 'networks']);
/** At most so many mistakes of one such setting: a table may have thousands. */
const LIST_MISTAKES = 50;

function listMistakes(error: z.ZodError, input: unknown, where: string, setting: string): string[] {
  const what = setting === 'carriers' ? 'a carrier' : 'a route';
  const names = setting === 'carriers' ? CARRIER_KEYS : ROUTE_KEYS;
  return error.issues.slice(0, LIST_MISTAKES).flatMap((issue) => {
    const at = `${where}${issue.path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${String(step)}`)).join('')}`;
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((name) => `${at}.${name}: no such setting of ${what}${suggestion(name, names)}`);
    }
    let value = input;
    for (const step of issue.path) value = (value as Record<PropertyKey, unknown> | undefined)?.[step];
    // What a header or a file holds may be a secret, and so may a whole group or a URL.
    const hidden =
      typeof value === 'object' ||
      issue.path.length === 0 ||
      typeof issue.path.at(-1) === 'number' ||
      issue.path.some((step) => step === 'url' || step === 'extraHeaders' || CARRIER_FILES.includes(String(step)));
    // A bad name of a table's row says so itself, in the issues beneath.
    const own = issue.code === 'invalid_key' ? issue.issues[0]?.message : issue.message;
    const must = own?.startsWith('must') ? own : 'must be of the right type';
    if (value === undefined) return [`${at} is missing: ${must}`];
    return [hidden || issue.code === 'invalid_key' ? `${at}: ${must}` : `${at} is ${quoted(value)}: ${must}`];
  });
}

/** What only shows when good values are seen side by side. */
function together(
  config: Config,
  origins: Origins,
  found: ReadonlyMap<string, { where: string }>,
  bad: ReadonlySet<string>,
): string[] {
  const mistakes: string[] = [];
  const envOf = (k: Key): string => SETTINGS.find((s) => s.key === k)?.env ?? k;
  const name = (k: Key): string => (origins[k] === 'default' ? envOf(k) : (found.get(k)?.where ?? k));
  // A setting with a bad value stands at its default here, which nobody asked for.
  const asked: Key[] = ['port', 'sandboxPort', 'sandboxSmppPort', 'carrierPort'];
  const ports = asked.filter((k) => !bad.has(k) && config[k] !== 0 && (config.sandbox || !k.startsWith('sandbox')));
  for (const [index, a] of ports.entries()) {
    const b = ports.slice(0, index).find((other) => config[other] === config[a]);
    if (!b) continue;
    const clash = `port ${String(config[a])} is that of ${name(b)} too`;
    mistakes.push(`${name(a)}: ${clash}; give each its own, or 0 for a free one`);
  }
  const missing = ROLES.filter((role) => role !== 'sandbox' && !config.roles.includes(role));
  if (isSqlite(config.store) && missing.length > 0 && !bad.has('store')) {
    const why = `on the embedded store one process does all, and ${missing.join(' and ')} would be missing`;
    mistakes.push(`${name('roles')}: ${why}; name all, or give ${name('store')} a PostgreSQL URL`);
  }
  if (config.logsHours > config.retentionDays * 24) {
    const advice = `raise ${name('retentionDays')} to ${Math.ceil(config.logsHours / 24)} days, or lower it`;
    mistakes.push(`${name('logsHours')}: ${config.logsHours} hours is longer than messages are kept; ${advice}`);
  }
  const names = new Set<string>();
  for (const [index, c] of config.carriers.entries()) {
    const at = `${name('carriers')}[${index}]`;
    if (names.has(c.name))
      mistakes.push(`${at}.name is ${quoted(c.name)}: another carrier has that name; give each its own`);
    names.add(c.name);
    mistakes.push(...carrierTogether(c, at, config.carrierTlsCert !== null));
  }
  for (const [cert, key] of [
    ['tlsCert', 'tlsKey'],
    ['carrierTlsCert', 'carrierTlsKey'],
  ] as const) {
    if ((config[cert] === null) === (config[key] === null)) continue;
    const [given, missing]: [Key, Key] = config[cert] === null ? [key, cert] : [cert, key];
    mistakes.push(`${name(given)}: ${envOf(missing)} is needed too; give both or neither`);
  }
  for (const k of ['s3AccessKey', 's3Secret'] as const) {
    if (config.contentStore !== null && config[k] === null && !bad.has(k)) {
      mistakes.push(`${name('contentStore')}: ${envOf(k)} is needed too, or the file that ${envOf(k)}_FILE names`);
    }
  }
  if (!bad.has('carriers')) {
    if (config.sandbox) names.add(SANDBOX);
    mistakes.push(...routesTogether(config.routes, names, name('routes')));
  }
  return mistakes;
}

function suggestion(name: string, names: readonly string[]): string {
  let best = '';
  let least = Math.min(4, Math.ceil(name.length / 3) + 1);
  for (const candidate of names) {
    const distance = edits(name.toLowerCase().slice(0, 80), candidate.toLowerCase());
    if (distance < least) {
      best = candidate;
      least = distance;
    }
  }
  return best === '' ? '; `postcard config` lists all' : `; did you mean ${best}?`;
}

/** Levenshtein distance. */
function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

// --- Showing ---------------------------------------------------------------------------------------------------------

/** One row of `postcard config`. */
export interface Described {
  key: string;
  /** Empty where only the YAML file can give it. */
  env: string;
  value: string;
  origin: string;
  default: string;
  help: string;
}

/** The effective values and where they come from, in the order of `SETTINGS`; secrets are `***`. */
export function describeConfig(config: Config, origins: Origins): Described[] {
  return SETTINGS.map((s: Setting) => {
    const value: unknown = config[s.key as Key];
    return {
      key: s.key,
      env: s.env ?? '',
      value: s.secret ? (value === null ? '' : '***') : shown(s, value),
      origin: origins[s.key as Key],
      default: s.defaultText ?? shown(s, s.default),
      help: s.unit ? `${s.help} (${s.unit})` : s.help,
    };
  });
}

function shown(s: Setting, value: unknown): string {
  if (s.key === 'carriers') {
    const masked = (value as CarrierConfig[]).map(shownCarrier);
    return masked.length === 0 ? 'none' : JSON.stringify(masked);
  }
  if (s.key === 'routes') return (value as object[]).length === 0 ? 'none' : JSON.stringify(value);
  if (s.key === 'networks') {
    const count = Object.keys(value as object).length;
    return count === 0 ? 'none' : `${count} beginnings`;
  }
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(',');
  if (s.key === 'store') return withoutPassword(String(value));
  return value === null ? '' : String(value);
}
