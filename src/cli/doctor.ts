/**
 * `postcard doctor`: does this machine keep what Postcard promises? Each check is one line, ok, warn or fail, with what to
 * do. It looks and measures; the only things it writes are a probe in the data directory, removed again.
 *
 * Promises: works beside a running server (it opens the store read-only and takes no lock that the server needs) and
 * without one. Exit code 1 when a check fails; warnings alone are 0.
 */
import {
  accessSync,
  closeSync,
  existsSync,
  fdatasyncSync,
  constants as fsConstants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { get } from 'node:https';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { Config } from '../config.ts';
import { publicUrlOf } from '../config.ts';
import { isSqlite, USUAL_SMPP_PORT } from '../configured.ts';
import type { Env } from '../env.ts';
import type { ServerFacts } from '../wiring/store.ts';
import { type Form, hasColor, type Io, machine, paint, plain } from './terminal.ts';

/** What one check found. */
export interface Check {
  check: string;
  result: 'ok' | 'warn' | 'fail';
  /** What was found. */
  found: string;
  /** What to do, empty when ok. */
  advice: string;
}

const NODE_MAJOR = 24;
/** Free space below which accepts may soon be refused, and below which they are about to be. */
const DISK_WARN = 1024 ** 3;
const DISK_FAIL = 64 * 1024 ** 2;
/** This code was not written before this instant: a clock that says less is wrong. */
const WRITTEN_AT = 1_767_225_600_000; // 2026-01-01
const CLOCK_BEHIND_MS = 2000;
/** More than this between our clock and the database's is worth a warning. */
const CLOCK_APART_MS = 2000;
/** Connections of one process with all roles: ten each for its two threads that use the store, three for the door's reads, one to start. */
const NODE_CONNECTIONS = 24;
/** Ours last milliseconds and are ended after 5 s. */
const OLD_TRANSACTION_MS = 60_000;
const PROBE_WRITES = 15;
/** No medium that survives a power cut answers faster, not even battery-backed memory behind a bus. */
const SYNC_TOO_FAST_US = 5;
/** Accepts wait for this: beyond it a single connection is slow. */
const SYNC_SLOW_MS = 50;
const PORT_ANSWER_MS = 2000;
const SQLITE_BUSY = 5;
/** What the probe's directory is called, while it is there. */
const PROBE = '.postcard-doctor-';

/** Makes all checks and shows them; the exit code. Fails only by bugs: what cannot be checked is a failed check. */
export async function doctor(io: Io, env: Env, config: Config, form: Form): Promise<number> {
  const checks: Check[] = [];
  checks.push(nodeCheck(process.versions.node));
  checks.push(dataDirCheck(config.dataDir));
  const place = existingPlace(config.dataDir);
  checks.push(fileSystemCheck(place), diskCheck(place));
  if (isSqlite(config.store)) {
    checks.push(...durabilityChecks(place, env));
    checks.push(...storeChecks(config, env));
  } else {
    // Loaded only here: which store there is, only the wiring knows.
    const { inspectStore } = await import('../wiring/store.ts');
    checks.push(...postgresChecks(await inspectStore(config, env)));
  }
  if (config.roles.includes('dispatch')) {
    const { findEncoders } = await import('../media/av.ts');
    checks.push(mediaCheck(await findEncoders()));
  }
  if (config.roles.includes('dispatch') && config.carriers.some(({ type }) => type === 'smpp')) {
    const { probeSmscs } = await import('../wiring/serving.ts');
    checks.push(...(await probeSmscs(config, env)).map(smscCheck));
  }
  if (config.contentStore !== null) {
    const { probeContentStore } = await import('../wiring/store.ts');
    checks.push(contentStoreCheck(config.contentStore, await probeContentStore(config, env)));
  }
  if (!checks.some((check) => check.check === 'clock')) checks.push(clockCheck(env.clock.now(), null));
  checks.push(...(await portChecks(config, env)));
  // Loaded here: it takes its words from this file.
  const { safetyChecks } = await import('./safety.ts');
  checks.push(...safetyChecks(config, env.clock.now(), process.getuid?.() ?? null));
  checks.push(routeCheck(config));

  const failed = checks.filter((check) => check.result === 'fail').length;
  if (form !== 'table') io.out(machine(form, checks));
  else {
    const colors = paint(hasColor(io));
    const shade = { ok: colors.good, warn: colors.brand, fail: colors.bad };
    const width = Math.max(...checks.map((check) => check.check.length));
    for (const { check, result, found, advice } of checks) {
      io.out(
        `${shade[result](result.padEnd(4))}  ${check.padEnd(width)}  ${plain(found)}${advice ? `; ${plain(advice)}` : ''}\n`,
      );
    }
  }
  return failed > 0 ? 1 : 0;
}

/** A check that found nothing wrong. */
export const ok = (check: string, found: string): Check => ({ check, result: 'ok', found, advice: '' });
/** One that found something to better. */
export const warn = (check: string, found: string, advice: string): Check => ({ check, result: 'warn', found, advice });
/** One that found what breaks a promise. */
export const fail = (check: string, found: string, advice: string): Check => ({ check, result: 'fail', found, advice });

/** `version` as in process.versions.node. */
export function nodeCheck(version: string): Check {
  const good = Number(version.split('.')[0]) >= NODE_MAJOR;
  return good ? ok('node', version) : fail('node', version, `install Node ${NODE_MAJOR} or later`);
}

// --- Disk ------------------------------------------------------------------------------------------------------------

/** The data directory, or the nearest directory above it that exists. */
function existingPlace(dir: string): string {
  let at = dir;
  while (!existsSync(at) && at !== dirname(at)) at = dirname(at);
  return at;
}

function dataDirCheck(dir: string): Check {
  const place = existingPlace(dir);
  try {
    if (!statSync(place).isDirectory()) {
      return fail('data directory', `${place} is a file`, 'name another POSTCARD_DATA_DIR');
    }
    accessSync(place, fsConstants.W_OK | fsConstants.R_OK | fsConstants.X_OK);
    // Root may do everything and still cannot write to /proc.
    rmSync(mkdtempSync(join(place, PROBE)), { recursive: true, force: true });
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error);
    return fail(
      'data directory',
      `cannot write to ${place} (${why})`,
      'let this user write there, or name another POSTCARD_DATA_DIR',
    );
  }
  if (place !== dir) return ok('data directory', `${dir} will be made by the first start`);
  const mode = statSync(dir).mode & 0o777;
  if ((mode & 0o007) !== 0)
    return warn('data directory', `${dir} is open to every user (${mode.toString(8)})`, `chmod 700 ${dir}`);
  return ok('data directory', dir);
}

/** File systems by their magic number (statfs(2)) where SQLite's promises do not hold, or hold only for a while. */
const FILE_SYSTEMS: Record<number, Omit<Check, 'check'>> = {
  16914836: { result: 'warn', found: 'tmpfs', advice: 'all is lost when this machine stops; use a disk' },
  2240043254: { result: 'warn', found: 'ramfs', advice: 'all is lost when this machine stops; use a disk' },
  2035054128: {
    result: 'warn',
    found: 'overlay, a container layer',
    advice: 'all is lost with the container; mount a volume there',
  },
  26985: { result: 'fail', found: 'NFS', advice: 'its locks and syncs are not to be relied on; use a local disk' },
  4283649346: {
    result: 'fail',
    found: 'CIFS',
    advice: 'its locks and syncs are not to be relied on; use a local disk',
  },
  4266872130: {
    result: 'fail',
    found: 'SMB',
    advice: 'its locks and syncs are not to be relied on; use a local disk',
  },
};

function fileSystemCheck(place: string): Check {
  const type = statfsSync(place).type;
  const known = FILE_SYSTEMS[type];
  return known ? { check: 'file system', ...known } : ok('file system', `local (type 0x${type.toString(16)})`);
}

function diskCheck(place: string): Check {
  const { bavail, bsize } = statfsSync(place);
  return diskRoom(bavail * bsize);
}

/** `bytes`: what an ordinary user may still write. */
export function diskRoom(bytes: number): Check {
  const found = `${(bytes / 1024 ** 3).toFixed(1)} GiB free`;
  if (bytes < DISK_FAIL) return fail('disk', found, 'free some: when the disk is full, messages are answered with 503');
  if (bytes < DISK_WARN) return warn('disk', found, 'soon full: then messages are answered with 503');
  return ok('disk', found);
}

// --- Durability ------------------------------------------------------------------------------------------------------

/** The settings that a 200 rests on, asked of the very SQLite and disk that will be used, and what a sync costs. */
function durabilityChecks(place: string, env: Env): Check[] {
  let dir: string;
  try {
    dir = mkdtempSync(join(place, PROBE));
  } catch {
    return []; // The data directory check has said so.
  }
  try {
    return [settingsCheck(join(dir, 'probe.db')), syncCheck(join(dir, 'probe'), env)];
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function settingsCheck(file: string): Check {
  const db = new DatabaseSync(file);
  try {
    db.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE probe (x); INSERT INTO probe VALUES (1)',
    );
    const { journal_mode: journal } = db.prepare('PRAGMA journal_mode').get() as { journal_mode: string };
    const { synchronous } = db.prepare('PRAGMA synchronous').get() as { synchronous: number };
    const { v } = db.prepare('SELECT sqlite_version() v').get() as { v: string };
    const noSync = db
      .prepare("SELECT 1 FROM pragma_compile_options WHERE compile_options IN ('NO_SYNC', 'DISABLE_DIRSYNC')")
      .get();
    const found = `SQLite ${v}, journal_mode=${journal}, synchronous=${synchronous}`;
    if (journal !== 'wal' || synchronous !== 2 || noSync) {
      return fail(
        'durability',
        found,
        'wanted wal and 2 (FULL): a 200 would not be durable; use another file system or Node build',
      );
    }
    return ok('durability', `${found} (FULL): every 200 is on disk`);
  } catch (error) {
    return fail('durability', `SQLite cannot work here: ${(error as Error).message}`, 'use another file system');
  } finally {
    db.close();
  }
}

function syncCheck(file: string, env: Env): Check {
  const fd = openSync(file, 'w', 0o600);
  try {
    const block = Buffer.alloc(4096, 7);
    const took: number[] = [];
    for (let i = 0; i < PROBE_WRITES; i++) {
      writeSync(fd, block, 0, block.length, i * block.length);
      const start = env.clock.monotonic();
      fdatasyncSync(fd);
      took.push(env.clock.monotonic() - start);
    }
    took.sort((a, b) => a - b);
    return syncCost(took[PROBE_WRITES >> 1] as number);
  } catch (error) {
    return fail('sync', `fdatasync fails (${(error as NodeJS.ErrnoException).code})`, 'use another file system');
  } finally {
    closeSync(fd);
  }
}

/** `ms`: the median of a few fdatasync calls after 4 KiB each. */
export function syncCost(ms: number): Check {
  const found = `fdatasync takes ${ms < 1 ? `${Math.round(ms * 1000)} us` : `${ms.toFixed(1)} ms`}`;
  if (ms * 1000 < SYNC_TOO_FAST_US) {
    return warn('sync', found, 'too fast for a disk: something between us and it answers without writing');
  }
  if (ms > SYNC_SLOW_MS) return warn('sync', found, 'each answer waits for one; a faster disk serves more');
  return ok('sync', found);
}

/** What the store's file says, where there is one. */
function storeChecks(config: Config, env: Env): Check[] {
  const file = config.store.slice('sqlite:'.length);
  if (!existsSync(file)) return [ok('store', `${file} will be made by the first start`)];
  let db: DatabaseSync | null = null;
  try {
    db = new DatabaseSync(file, { readOnly: true });
    db.exec('PRAGMA busy_timeout = 2000');
    const { journal_mode: journal } = db.prepare('PRAGMA journal_mode').get() as { journal_mode: string };
    const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
    const clock = db.prepare("SELECT v FROM meta WHERE k = 'clock'").get() as { v: number | string } | undefined;
    const found = `${file}: schema ${version}, journal_mode=${journal}`;
    const store =
      journal === 'wal' ? ok('store', found) : fail('store', found, 'wanted wal; stop the server and start it again');
    return [store, clockCheck(env.clock.now(), clock ? Number(clock.v) : null)];
  } catch (error) {
    const why = (error as Error).message;
    return [
      fail(
        'store',
        `${file} cannot be read: ${why}`,
        'run this as the user that runs the server; restore a backup if it is damaged',
      ),
    ];
  } finally {
    db?.close();
  }
}

/** What the servers of a PostgreSQL store say. Of several one must take writes; the others stand by. */
export function postgresChecks(servers: ServerFacts[]): Check[] {
  const many = servers.length > 1;
  const checks = servers.flatMap((server) => {
    if (server.kind !== 'unreachable') return answeredChecks(server, many);
    const found = `${server.url} cannot be reached: ${server.words}`;
    return many
      ? [warn('store', found, 'while it is away nothing can take over from the other')]
      : [fail('store', found, 'start it, or correct POSTCARD_STORE')];
  });
  const primaries = servers.filter((server) => server.kind === 'answered' && !server.standby);
  if (many && primaries.length === 0) {
    checks.push(
      fail('store', 'none of the servers takes writes', 'promote one: until then messages are answered with 503'),
    );
  }
  if (primaries.length > 1) {
    const found = `${primaries.length} servers take writes`;
    checks.push(fail('store', found, 'two primaries lose messages when one becomes a standby: stop the older one'));
  }
  return checks;
}

function answeredChecks(server: Extract<ServerFacts, { kind: 'answered' }>, many: boolean): Check[] {
  const { url, version, settings, schema, clock, connections, transactions } = server;
  const named = (check: Check): Check => (many ? { ...check, found: `${url}: ${check.found}` } : check);
  // A standby beside a primary is as it should be; what else is unsafe there will matter when it takes over.
  const unfit = server.standby && many ? null : server.unsafe;
  const found = `${url}: PostgreSQL ${version}, ${server.standby ? 'standby' : 'primary'}, schema ${schema.version}`;
  const checks: Check[] = [];
  if (unfit !== null) checks.push(fail('store', found, unfit));
  else if (schema.version > schema.known) {
    checks.push(fail('store', found, `this Postcard knows schema ${schema.known} only; use the newer version`));
  } else if (schema.version < schema.known) {
    const will = schema.version === 0 ? 'make' : 'upgrade';
    checks.push(ok('store', `${found}; the next start will ${will} it (to ${schema.known})`));
  } else checks.push(ok('store', found));

  const { fsync, fullPageWrites, synchronousCommit, synchronousStandbys } = settings;
  const set = `fsync=${fsync}, full_page_writes=${fullPageWrites}, synchronous_commit=${synchronousCommit}`;
  if (fsync !== 'on' || fullPageWrites !== 'on') {
    checks.push(named(fail('durability', set, 'a 200 would not be durable; set both on')));
  } else if (synchronousCommit === 'off' || synchronousCommit === 'local') {
    checks.push(named(ok('durability', `${set}; Postcard sets it to on for itself: every 200 is on disk`)));
  } else {
    const copies = synchronousStandbys === '' ? 'on disk of one machine' : `on disk here and on ${synchronousStandbys}`;
    checks.push(named(ok('durability', `${set}: every 200 is ${copies}`)));
  }

  checks.push(named(serverClock(clock.aheadMs, clock.withinMs)));

  const free = connections.max - connections.reserved - connections.open;
  const used = `${connections.open} of ${connections.max} open`;
  checks.push(
    named(
      free < NODE_CONNECTIONS
        ? warn('connections', used, `a process takes up to ${NODE_CONNECTIONS}; raise max_connections`)
        : ok('connections', `${used}; room for ${Math.floor(free / NODE_CONNECTIONS)} more processes`),
    ),
  );

  const hidden = transactions.all ? '' : ' that this role may see (grant it pg_read_all_stats for all)';
  const { oldestMs } = transactions;
  if (oldestMs !== null && oldestMs > OLD_TRANSACTION_MS) {
    const words = `open for ${Math.round(oldestMs / 1000)} s (${transactions.application || 'without a name'})`;
    const advice = 'no dead row is cleared while it lives, and all gets slower: end it';
    checks.push(named(warn('transactions', words, advice)));
  } else checks.push(named(ok('transactions', `none open for long${hidden}`)));
  if (transactions.prepared > 0) {
    const advice =
      'Postcard makes none; each holds back the clearing of dead rows: commit or roll back what is forgotten';
    checks.push(named(warn('transactions', `${transactions.prepared} prepared ones`, advice)));
  }
  if (server.wall !== null) {
    const { role, why } = server.wall;
    const wall = 'row-level security';
    checks.push(
      named(
        role === null
          ? warn(wall, 'not there: accounts are kept apart by our statements alone', why)
          : ok(wall, `what an account asks for runs as ${role}, which sees that account's rows only`),
      ),
    );
  }
  if (server.sharedNames.length > 0) {
    const advice =
      'each takes the lanes of the other for its own, and carriers get twice their rate: give each a POSTCARD_NODE';
    checks.push(named(warn('nodes', `two processes run as ${server.sharedNames.join(', ')}`, advice)));
  }
  if (server.idleSlots.length > 0) {
    const advice = 'nobody reads them and the disk fills up: drop what is not needed';
    checks.push(named(warn('replication', `idle slots: ${server.idleSlots.join(', ')}`, advice)));
  }
  return checks;
}

/** The database's clock decides for all nodes; ours, that of logs and signatures, should agree. */
function serverClock(aheadMs: number, withinMs: number): Check {
  const found = `the database is ${Math.abs(aheadMs)} ms ${aheadMs < 0 ? 'behind' : 'ahead of'} this machine (within ${withinMs} ms)`;
  if (Math.abs(aheadMs) - withinMs > CLOCK_APART_MS) {
    return warn('clock', found, "set both clocks (NTP): schedules follow the database's, logs and signatures this one");
  }
  return ok('clock', found);
}

/** `encoders`: what ffmpeg can make; null = there is none. */
export function mediaCheck(encoders: ReadonlySet<string> | null): Check {
  if (encoders === null) {
    return warn(
      'media',
      'no ffmpeg',
      'sounds and films that do not fit a carrier are refused; install it to have them made smaller',
    );
  }
  const known = { libx264: 'H.264', h263: 'H.263', aac: 'AAC', libopencore_amrnb: 'AMR', libmp3lame: 'MP3' };
  const [can, not] = [true, false].map((has) =>
    Object.entries(known)
      .filter(([encoder]) => encoders.has(encoder) === has)
      .map(([, name]) => name),
  ) as [string[], string[]];
  const cannot = not.length > 0 ? `, not ${not.join(', ')}` : '';
  return ok('media', `ffmpeg makes ${can.join(', ') || 'nothing of use'}${cannot}`);
}

/** `wrong`: why it cannot be reached; '' = it can. Nobody bound there: that a password is right, only a server tells. */
function smscCheck({ name, place, wrong }: { name: string; place: string; wrong: string }): Check {
  const check = `smsc ${name}`;
  if (wrong === '') return ok(check, `${place} takes connections`);
  return fail(check, `${place}: ${wrong}`, 'until it is reached, SMS for it wait (docs/SMPP.md)');
}

/** `wrong`: what a probe that was put, read and deleted there came to; '' = all is well. */
function contentStoreCheck(url: string, wrong: string): Check {
  const found = url.replace(/\?.*/, '');
  if (wrong === '') return ok('content', `${found} puts, gives back and deletes`);
  return fail('content', `${found}: ${wrong}`, 'uploads and fetched media are refused (503) until it does');
}

/** `stored`: the latest instant that the store knows, epoch ms. Its clock never goes back, so a wall clock behind it stalls. */
export function clockCheck(now: number, stored: number | null): Check {
  const found = new Date(now).toISOString();
  if (now < WRITTEN_AT) return fail('clock', found, 'set the clock: schedules and validity follow it');
  if (stored !== null && stored - now > CLOCK_BEHIND_MS) {
    const behind = Math.round((stored - now) / 1000);
    return fail(
      'clock',
      `${found}, ${behind} s behind the store`,
      'set the clock (NTP): until it catches up no time passes for messages',
    );
  }
  return ok('clock', found);
}

// --- Ports -----------------------------------------------------------------------------------------------------------

interface Port {
  name: string;
  setting: string;
  /** The settings that say whether it is opened, and which. */
  by: (keyof Config)[];
  port: number;
  /** Something that our server answers there, and how. */
  path: string;
  ours(status: number): boolean;
  /** Our certificate there (PEM file). */
  tls?: string | null;
}

/** The ports that a server with these settings opens. */
function portsOf(config: Config): Port[] {
  const { port, carrierPort, sandboxPort } = config;
  const ports: Port[] = [
    {
      name: 'API port',
      setting: 'POSTCARD_PORT',
      by: ['port'],
      port,
      path: '/livez',
      ours: (status) => status === 200,
      tls: config.tlsCert,
    },
  ];
  if (config.roles.includes('dispatch')) {
    ports.push({
      name: 'carrier port',
      setting: 'POSTCARD_CARRIER_PORT',
      by: ['carrierPort', 'roles'],
      port: carrierPort,
      path: '/',
      ours: (status) => status >= 400 && status < 500,
    });
  }
  if (config.sandbox && config.roles.includes('sandbox')) {
    ports.push({
      name: 'sandbox port',
      setting: 'POSTCARD_SANDBOX_PORT',
      by: ['sandboxPort', 'roles', 'sandbox'],
      port: sandboxPort,
      path: '/sandbox/handsets/0/messages',
      ours: (status) => status === 200,
    });
  }
  return ports;
}

/**
 * What would stop a server from starting, a line each, all at once. The start itself finds the same, but one at a time; what
 * changes in between it finds too. Nothing is said of the settings in `unsure`: they are not what somebody wants.
 */
export async function obstacles(config: Config, unsure: ReadonlySet<string> = new Set()): Promise<string[]> {
  const lines: string[] = [];
  const sure = (...keys: (keyof Config)[]): boolean => !keys.some((key) => unsure.has(key));
  const dir = sure('dataDir') ? dataDirCheck(config.dataDir) : null;
  if (dir?.result === 'fail') lines.push(`POSTCARD_DATA_DIR: ${dir.found}; ${dir.advice}`);
  else if (dir !== null && sure('store') && isRunning(config)) {
    // A store file may lie outside the data directory: then the directory is free, the file is not.
    const file = config.store.slice('sqlite:'.length);
    const [setting, taken] =
      dirname(file) === resolve(config.dataDir) ? ['POSTCARD_DATA_DIR', config.dataDir] : ['POSTCARD_STORE', file];
    lines.push(`${setting}: another Postcard process uses ${taken}; stop that process or name another ${setting}`);
  }
  // Where the usual one is taken the sandbox takes another. The doctor cannot ask who has it: it speaks no SMPP.
  const { sandboxSmppPort, sandbox, roles } = config;
  const smpp: Pick<Port, 'setting' | 'by' | 'port'> = {
    setting: 'POSTCARD_SANDBOX_SMPP_PORT',
    by: ['sandboxSmppPort', 'roles', 'sandbox'],
    port: sandboxSmppPort,
  };
  const asked = sandbox && roles.includes('sandbox') && sandboxSmppPort !== USUAL_SMPP_PORT;
  for (const { setting, by, port } of [...portsOf(config), ...(asked ? [smpp] : [])]) {
    if (!sure('host', ...by)) continue;
    const state = await tryPort(config.host, port);
    if (state === 'free') continue;
    // With such a host no port can be opened: one line for all.
    if (isHostError(state)) return [...lines, `POSTCARD_HOST: ${notOurHost(config.host, state)}`];
    const { found, advice } = portTrouble(config.host, port, setting, state);
    lines.push(`${setting}: ${found}; ${advice}`);
  }
  return lines;
}

/** Whether the address is what is wrong, not the port. */
function isHostError(code: string): boolean {
  return code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EAI_AGAIN';
}

function notOurHost(host: string, code: string): string {
  return `${host} is no address of this machine (${code}); give one that it has, 127.0.0.1, or 0.0.0.0 for all`;
}

function portTrouble(host: string, port: number, setting: string, code: string): { found: string; advice: string } {
  const at = `${host}:${port}`;
  if (code === 'EADDRINUSE') {
    return {
      found: `${at} is taken by another process`,
      advice: `stop that process or choose another port with ${setting}`,
    };
  }
  const other = code === 'EACCES' ? 'one above 1023' : 'another port';
  return { found: `${at} cannot be opened (${code})`, advice: `choose ${other} with ${setting}` };
}

async function portChecks(config: Config, env: Env): Promise<Check[]> {
  const runs = isSqlite(config.store) ? isRunning(config) : null;
  const checks: Check[] = [];
  for (const port of portsOf(config)) checks.push(await portCheck(config.host, port, runs, env));
  return checks;
}

async function portCheck(
  host: string,
  { name, setting, port, path, ours, tls = null }: Port,
  runs: boolean | null,
  env: Env,
): Promise<Check> {
  const at = `${host}:${port}`;
  const state = await tryPort(host, port);
  if (state === 'free') return ok(name, port === 0 ? `any free one of ${host}` : `${at} is free`);
  const other = `choose another port with ${setting}`;
  if (isHostError(state)) {
    return fail(name, `${at} cannot be opened (${state})`, 'give POSTCARD_HOST an address of this machine');
  }
  if (state !== 'EADDRINUSE') {
    const { found, advice } = portTrouble(host, port, setting, state);
    return fail(name, found, advice);
  }
  const status = await answerOf(`${publicUrlOf(host, port, tls !== null)}${path}`, tls, env);
  if (status !== null && ours(status)) {
    // On PostgreSQL nothing tells whose it is.
    if (runs === null) return ok(name, `${at} is taken by something that answers like a Postcard`);
    if (runs) return ok(name, `${at} is taken by the server that runs on this data directory`);
    const found = `${at} is taken by something that answers like a Postcard on another data directory`;
    return fail(name, found, `stop it or ${other}`);
  }
  return fail(name, `${at} is taken by another process`, `stop it or ${other}`);
}

/** Whether a server holds this data directory: it keeps a lock for as long as it lives. */
function isRunning(config: Config): boolean {
  if (!isSqlite(config.store)) return false;
  const file = `${config.store.slice('sqlite:'.length).replace(/\.db$/, '')}.lock`;
  if (!existsSync(file)) return false;
  let db: DatabaseSync | null = null;
  try {
    db = new DatabaseSync(file, { readOnly: true });
    db.exec('PRAGMA busy_timeout = 0');
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
    return false;
  } catch (error) {
    return (error as { errcode?: number }).errcode === SQLITE_BUSY;
  } finally {
    db?.close();
  }
}

/** Whether we could listen there: `free`, or the error code that says why not. */
function tryPort(host: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve('free')));
  });
}

/** The HTTP status that a URL of this machine answers with, by https where `tls` names its certificate; null = none in time. */
async function answerOf(url: string, tls: string | null, env: Env): Promise<number | null> {
  if (tls !== null) return secureAnswerOf(url, tls);
  const abort = new AbortController();
  const timer = env.clock.setTimeout(() => abort.abort(), PORT_ANSWER_MS);
  try {
    const answer = await fetch(url, { signal: abort.signal, redirect: 'manual' });
    await answer.body?.cancel();
    return answer.status;
  } catch {
    return null;
  } finally {
    timer.cancel();
  }
}

/** The server must have this certificate itself; its name is not that of this machine's address. */
function secureAnswerOf(url: string, certFile: string): Promise<number | null> {
  return new Promise((resolve) => {
    let ca: Buffer;
    try {
      ca = readFileSync(certFile);
    } catch {
      resolve(null);
      return;
    }
    const trust = { ca, allowPartialTrustChain: true, checkServerIdentity: () => undefined };
    const request = get(url, { ...trust, agent: false, timeout: PORT_ANSWER_MS }, (answer) => {
      answer.resume();
      resolve(answer.statusCode ?? null);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(null));
  });
}

function routeCheck(config: Config): Check {
  const names = config.carriers.map((carrier) => carrier.name).join(', ');
  if (config.carriers.length > 0)
    return ok('carriers', `messages go to ${names}${config.sandbox ? '; none to the sandbox' : ''}`);
  if (config.sandbox) {
    return warn(
      'carriers',
      'none: all messages go to the sandbox, none to a real handset',
      'add carriers to postcard.yaml when you mean it',
    );
  }
  return fail(
    'carriers',
    'none, and the sandbox is off: every message is rejected',
    'add carriers to postcard.yaml or set POSTCARD_SANDBOX=true',
  );
}
