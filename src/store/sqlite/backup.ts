/**
 * A copy of everything that an embedded installation keeps, and the way back. `backupSqlite` works beside a running server,
 * from another process: it begins a read transaction on each file, and holds them while SQLite copies the pages (without
 * them every commit of the server would start a copy anew). Content is stored before the message that needs it, so the
 * later view of the content has what the earlier view of the log refers to; that is checked, byte for byte, for every
 * message that still waits. The sandbox commits nothing between its view and that of the log: else the log could wait for
 * a report that the sandbox has told, or the sandbox could miss a message that the log knows as handed over.
 *
 * Promises: the directory appears under its name only when all of it is written, synced and checked; nothing that exists is
 * overwritten. `restoreSqlite` puts back only what agrees with its manifest, while it holds the server's lock, and moves
 * the numbering on by SKIP, so that no number, event or webhook given out after the backup is ever given again.
 *
 * Fails: what is in the way (disk, rights, a damaged file, a running server) is a result in words, nothing is left behind.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import { STATE } from '../../domain/status.ts';
import { SCHEMA_VERSION } from './schema.ts';

/** Where the data stands. `sandbox` may not exist, and neither may the content before the first upload. */
export interface DataFiles {
  log: string;
  content: string;
  sandbox: string;
  /** Held by a server (and its sandbox) for as long as it lives. */
  locks: string[];
}

/** What a backup holds, counted in the copy itself. */
export interface BackupFigures {
  messages: number;
  /** Not final at the instant of the backup; `inFlight` of them were being submitted. */
  waiting: number;
  inFlight: number;
  /** Pieces of content, and how many of them waiting messages need. */
  contents: number;
  needed: number;
  /** Needed, but lost or damaged in the store itself. */
  missing: number;
}

/** `manifest.json` of a backup. */
export interface Manifest {
  format: 1;
  /** The Postcard that wrote it. */
  version: string;
  /** Schema of the message log. */
  schema: number;
  /** Instant of the message log's copy, ISO 8601. */
  at: string;
  files: { name: string; bytes: number; sha256: string }[];
  figures: BackupFigures;
}

/** Something was in the way; each line is one thing, and nothing was changed. */
export interface Refused {
  kind: 'refused';
  lines: string[];
}

export type BackupResult = { kind: 'done'; manifest: Manifest } | Refused;
/** `aside`: where the data that was there before is now. */
export type RestoreResult = { kind: 'done'; manifest: Manifest; aside: string | null } | Refused;

const LOG = 'postcard.db';
const CONTENT = 'content.db';
const SANDBOX = 'sandbox.db';
const MANIFEST = 'manifest.json';
/** Pages copied between two looks at `stop`. */
const STEP_PAGES = 1024;
const CHUNK = 1024 * 1024;
/** Looks for an instant at which the sandbox commits nothing; each takes well under a millisecond. */
const LOOKS = 1_000;
/** Largest manifest that is read. */
const MANIFEST_BYTES = 64 * 1024;
/** Numbers left out by a restore: more than any installation gives out between a backup and its use, far below 2^53. */
const SKIP = 2 ** 40;
/** SQLITE_BUSY */
const BUSY = 5;

class Stopped extends Error {
  override readonly name = 'Stopped';
}

/** Words of what the file system or SQLite says. */
function why(error: unknown): string {
  const { code, message, errstr } = error as { code?: string; message: string; errstr?: string };
  if (code === 'ERR_SQLITE_ERROR') return errstr && !message.includes(errstr) ? `${message} (${errstr})` : message;
  return code ?? message;
}

const refused = (...lines: string[]): Refused => ({ kind: 'refused', lines });

// --- Backup ----------------------------------------------------------------------------------------------------------

/** Copies `from` into the new directory `dest`. `now`: wall clock, epoch ms. `version`: of this Postcard. */
export async function backupSqlite(options: {
  from: DataFiles;
  dest: string;
  version: string;
  now(): number;
  stop: AbortSignal;
}): Promise<BackupResult> {
  const { from, dest } = options;
  if (existsSync(dest)) return refused(`${dest} exists; a backup is never written over anything: name a new directory`);
  if (!existsSync(from.log)) return refused(`there is nothing to back up: ${from.log} does not exist`);
  const parent = dirname(dest);
  let partial: string;
  try {
    partial = mkdtempSync(join(parent, `.${basename(dest)}.partial-`));
  } catch (error) {
    return refused(`cannot write to ${parent} (${why(error)}); name a directory whose parent this user may write to`);
  }
  try {
    const room = lacks(parent, [from.log, from.content, from.sandbox]);
    if (room !== null) return refused(`${parent}: ${room}`);
    const views = look(from, options.now);
    try {
      await copy(views.log, join(partial, LOG), options.stop);
      if (views.content) await copy(views.content, join(partial, CONTENT), options.stop);
      if (views.sandbox) await copy(views.sandbox, join(partial, SANDBOX), options.stop);
    } finally {
      for (const db of [views.log, views.content, views.sandbox]) db?.close();
    }
    const { at } = views;

    const names = [LOG, CONTENT, SANDBOX].filter((name) => existsSync(join(partial, name)));
    for (const name of names) {
      const damage = integrity(join(partial, name));
      if (damage !== null) return refused(`the copy of ${name} is damaged, and so is its source: ${damage}`);
    }
    const { schema, figures } = count(partial);
    const files = names.map((name) => ({ name, ...fingerprint(join(partial, name), true) }));
    const iso = new Date(at).toISOString();
    const manifest: Manifest = { format: 1, version: options.version, schema, at: iso, files, figures };
    writeFileSync(join(partial, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`, { mode: 0o600, flush: true });
    syncDirectory(partial);
    if (options.stop.aborted) throw new Stopped();
    // Onto an existing directory this fails, unless that is empty.
    renameSync(partial, dest);
    syncDirectory(parent);
    return { kind: 'done', manifest };
  } catch (error) {
    if (error instanceof Stopped) return refused('stopped; nothing is left of the backup');
    return refused(`the backup failed: ${why(error)}; nothing is left of it`);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

/** Read transactions on the files that exist; `at`: the instant of the log's. */
interface Views {
  at: number;
  log: DatabaseSync;
  content: DatabaseSync | null;
  sandbox: DatabaseSync | null;
}

/** Looks at all files as they are now; the caller closes what it gets. */
function look(from: DataFiles, now: () => number): Views {
  const begin = (file: string): DatabaseSync => {
    const db = new DatabaseSync(file, { readOnly: true });
    db.exec('PRAGMA busy_timeout = 5000; BEGIN');
    // The view is taken by the first read.
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
    return db;
  };
  if (!existsSync(from.sandbox)) {
    const at = now();
    const log = begin(from.log);
    return { at, log, content: existsSync(from.content) ? begin(from.content) : null, sandbox: null };
  }
  const probe = new DatabaseSync(from.sandbox, { readOnly: true });
  const version = (): unknown => (probe.prepare('PRAGMA data_version').get() as { data_version: number }).data_version;
  try {
    for (let tries = 1; ; tries++) {
      const before = version();
      const sandbox = begin(from.sandbox);
      const at = now();
      const log = begin(from.log);
      // A sandbox that never rests is copied as it is: what it loses is a report, never a message.
      if (version() === before || tries === LOOKS) {
        return { at, log, content: existsSync(from.content) ? begin(from.content) : null, sandbox };
      }
      log.close();
      sandbox.close();
    }
  } finally {
    probe.close();
  }
}

/** Copies what a view shows. */
async function copy(source: DatabaseSync, to: string, stop: AbortSignal): Promise<void> {
  // Nobody but this user reads numbers and texts, whatever the umask.
  closeSync(openSync(to, 'wx', 0o600));
  try {
    await backup(source, to, {
      rate: STEP_PAGES,
      progress: () => {
        if (stop.aborted) throw new Stopped();
      },
    });
  } catch (error) {
    // node:sqlite hands on what `progress` throws, by its message only in some versions.
    throw stop.aborted ? new Stopped() : error;
  }
  if (stop.aborted) throw new Stopped();
}

/** What says that there is too little room for copies of these files, or null. */
function lacks(dir: string, files: string[]): string | null {
  const { bavail, bsize } = statfsSync(dir);
  const wanted = files.reduce((sum, file) => sum + (existsSync(file) ? statSync(file).size : 0), 0);
  const mib = (bytes: number): string => `${Math.ceil(bytes / 1024 ** 2)} MiB`;
  return wanted > bavail * bsize ? `${mib(wanted)} are needed, ${mib(bavail * bsize)} are free` : null;
}

/** Opens a file that nobody else writes, without making a file beside it. */
function openStill(file: string): DatabaseSync {
  return new DatabaseSync(new URL(`${pathToFileURL(file).href}?immutable=1`), { readOnly: true });
}

/** What SQLite finds wrong with a file, or null. */
function integrity(file: string): string | null {
  let db: DatabaseSync | null = null;
  try {
    db = openStill(file);
    const { integrity_check: found } = db.prepare('PRAGMA integrity_check(1)').get() as { integrity_check: string };
    return found === 'ok' ? null : found;
  } catch (error) {
    return why(error);
  } finally {
    db?.close();
  }
}

/** Counts what a backup in `dir` holds, and looks whether the content that waiting messages need is there and whole. */
function count(dir: string): { schema: number; figures: BackupFigures } {
  const log = openStill(join(dir, LOG));
  const content = existsSync(join(dir, CONTENT)) ? openStill(join(dir, CONTENT)) : null;
  const number = (db: DatabaseSync, sql: string): number => Number((db.prepare(sql).get() as { n: number }).n);
  try {
    const { user_version: schema } = log.prepare('PRAGMA user_version').get() as { user_version: number };
    const needs = log.prepare(`SELECT DISTINCT d.hash FROM media d JOIN spec s ON s.no = d.spec WHERE d.hash IS NOT NULL
      AND EXISTS (SELECT 1 FROM message m WHERE m.no >= s.first AND m.no < s."end" AND m.state < ${STATE.delivered})`);
    const bytes = content?.prepare('SELECT bytes FROM content WHERE hash = ?');
    let needed = 0;
    let missing = 0;
    for (const row of needs.iterate()) {
      const { hash } = row as { hash: string };
      needed++;
      const found = bytes?.get(hash) as { bytes: Uint8Array } | undefined;
      if (!found || createHash('sha256').update(found.bytes).digest('hex') !== hash) missing++;
    }
    return {
      schema,
      figures: {
        messages: number(log, 'SELECT count(*) AS n FROM message'),
        waiting: number(log, `SELECT count(*) AS n FROM message WHERE state < ${STATE.delivered}`),
        inFlight: number(log, 'SELECT coalesce(sum(members), 0) AS n FROM flight'),
        contents: content ? number(content, 'SELECT count(*) AS n FROM content') : 0,
        needed,
        missing,
      },
    };
  } finally {
    log.close();
    content?.close();
  }
}

/** Size and SHA-256 of a file; `sync` also brings it to the disk. */
function fingerprint(file: string, sync: boolean): { bytes: number; sha256: string } {
  const fd = openSync(file, sync ? 'r+' : 'r');
  try {
    const hash = createHash('sha256');
    const chunk = Buffer.alloc(CHUNK);
    let bytes = 0;
    for (let read = readSync(fd, chunk); read > 0; read = readSync(fd, chunk)) {
      hash.update(chunk.subarray(0, read));
      bytes += read;
    }
    if (sync) fsyncSync(fd);
    return { bytes, sha256: hash.digest('hex') };
  } finally {
    closeSync(fd);
  }
}

function syncDirectory(dir: string): void {
  const fd = openSync(dir, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

// --- Restore ---------------------------------------------------------------------------------------------------------

/**
 * Puts the backup in directory `source` to where `to` says. `force`: data that is there is moved into a new directory beside
 * it, not deleted. `now`: wall clock, epoch ms, for that directory's name.
 */
export function restoreSqlite(options: { source: string; to: DataFiles; force: boolean; now: number }): RestoreResult {
  const { source, to, force } = options;
  const read = readManifest(source);
  if ('kind' in read) return read;
  const damage = disagreements(source, read);
  if (damage.length > 0) return refused(...damage);
  const held: DatabaseSync[] = [];
  const fresh: string[] = [];
  try {
    const dir = dirname(to.log);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    for (const lock of to.locks) {
      const db = new DatabaseSync(lock);
      held.push(db);
      try {
        db.exec('PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE');
      } catch (error) {
        if ((error as { errcode?: number }).errcode !== BUSY) throw error;
        return refused(`a server runs on ${dir}; stop it first`);
      }
    }
    const places: Record<string, string> = { [LOG]: to.log, [CONTENT]: to.content, [SANDBOX]: to.sandbox };
    const old = Object.values(places)
      .flatMap((file) => [file, `${file}-wal`, `${file}-shm`])
      .filter((file) => existsSync(file));
    if (old.length > 0 && !force) {
      return refused(
        `${dir} has data (${basename(old[0] as string)}); name another directory, or --force to move it aside`,
      );
    }
    const room = lacks(
      dir,
      read.files.map(({ name }) => join(source, name)),
    );
    if (room !== null) return refused(`${dir}: ${room}`);

    for (const { name, sha256 } of read.files) {
      const file = `${places[name]}.restoring`;
      fresh.push(file);
      copyFile(join(source, name), file);
      if (fingerprint(file, true).sha256 !== sha256) return refused(`${file} does not hold what was written to it`);
    }
    skipAhead(`${to.log}.restoring`);
    fingerprint(`${to.log}.restoring`, true);

    const aside = old.length > 0 ? join(dir, `before-restore-${stamp(options.now)}`) : null;
    if (aside !== null) {
      mkdirSync(aside, { mode: 0o700 });
      for (const file of old) renameSync(file, join(aside, basename(file)));
      syncDirectory(aside);
    }
    // The message log last: while it is missing, nothing here looks complete.
    for (const { name } of [...read.files].reverse()) renameSync(`${places[name]}.restoring`, places[name] as string);
    syncDirectory(dir);
    return { kind: 'done', manifest: read, aside };
  } catch (error) {
    return refused(`the restore failed: ${why(error)}`);
  } finally {
    for (const file of fresh) for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
    for (const db of held) db.close();
  }
}

function stamp(now: number): string {
  return new Date(now).toISOString().replace(/[-:.]/g, '');
}

function readManifest(source: string): Manifest | Refused {
  const file = join(source, MANIFEST);
  try {
    if (statSync(file).size > MANIFEST_BYTES) return refused(`${file} is no manifest of a backup`);
    const manifest = JSON.parse(readFileSync(file, 'utf8')) as Manifest;
    const files = manifest.files?.map(({ name }) => name) ?? [];
    if (
      manifest.format !== 1 ||
      !files.includes(LOG) ||
      files.some((name) => ![LOG, CONTENT, SANDBOX].includes(name))
    ) {
      return refused(`${file} is no manifest of a backup, or one of a newer Postcard`);
    }
    if (manifest.schema > SCHEMA_VERSION) {
      const schemas = `schema ${manifest.schema}, this one knows ${SCHEMA_VERSION}`;
      return refused(`${source} was written by a newer Postcard (${manifest.version}; ${schemas}); use that version`);
    }
    return {
      ...manifest,
      files: [LOG, CONTENT, SANDBOX].flatMap((name) => manifest.files.filter((f) => f.name === name)),
    };
  } catch (error) {
    return refused(`${source} is no backup: ${MANIFEST} cannot be read (${why(error)})`);
  }
}

/** Where the files differ from what the manifest says, a line each. */
function disagreements(source: string, manifest: Manifest): string[] {
  return manifest.files.flatMap(({ name, bytes, sha256 }) => {
    try {
      const found = fingerprint(join(source, name), false);
      if (found.bytes !== bytes) return [`${join(source, name)} has ${found.bytes} bytes, the manifest says ${bytes}`];
      if (found.sha256 !== sha256) return [`${join(source, name)} is damaged: its SHA-256 is not the manifest's`];
      return [];
    } catch (error) {
      return [`${join(source, name)} cannot be read (${why(error)})`];
    }
  });
}

function copyFile(from: string, to: string): void {
  rmSync(to, { force: true });
  const source = openSync(from, 'r');
  const target = openSync(to, 'wx', 0o600);
  try {
    const chunk = Buffer.alloc(CHUNK);
    for (let read = readSync(source, chunk); read > 0; read = readSync(source, chunk)) {
      for (let at = 0; at < read; ) at += writeSync(target, chunk, at, read - at);
    }
  } finally {
    closeSync(source);
    closeSync(target);
  }
}

/**
 * What was given out after the backup is known to customers and carriers but not to the backup. Given again it would name
 * two things at once: a peer that drops repeats (a transaction id, a webhook id) would drop what is new.
 */
function skipAhead(log: string): void {
  const db = new DatabaseSync(log);
  try {
    db.exec('PRAGMA synchronous = FULL; BEGIN IMMEDIATE');
    db.prepare("INSERT INTO meta (k, v) VALUES ('next', ?) ON CONFLICT (k) DO UPDATE SET v = v + ?").run(
      1 + SKIP,
      SKIP,
    );
    for (const table of ['event', 'hook']) {
      const moved = db.prepare('UPDATE sqlite_sequence SET seq = seq + ? WHERE name = ?').run(SKIP, table).changes;
      if (Number(moved) === 0) db.prepare('INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)').run(table, SKIP);
    }
    db.exec('COMMIT');
  } finally {
    db.close();
  }
}
