import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, describe, expect, it } from 'vitest';
import { call, eventually, freePorts, logsOf, type Postcard, startPostcard } from '../../test/torture/server.ts';
import { backupSqlite } from '../store/sqlite/backup.ts';
import { run } from './postcard.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-backup-'));
let running: Postcard | null = null;
afterAll(async () => {
  await running?.end('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

async function postcard(
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const code = await run(args, {
    out(words) {
      stdout += words;
    },
    err(words) {
      stderr += words;
    },
    env,
    cwd: dir,
    tty: false,
    readFile: (path) => readFileSync(path),
    stop: new AbortController().signal,
  });
  return { code, stdout, stderr };
}

async function send(url: string, message: object, options: object = {}): Promise<string | null> {
  const body = JSON.stringify({ messages: [{ sender: 'Backup', ...message }], ...options });
  const answer = await call(url, '/mms/2/messages', { method: 'POST', body });
  if (answer.status !== 200) return null;
  return ((await answer.json()) as { messages: { messageId: string }[] }).messages[0]?.messageId ?? null;
}

const text = (words: string) => ({ messageSegments: [{ type: 'TEXT', text: words }] });

/** A data directory as a server leaves it after a clean stop, without the cost of a server. */
async function stillData(name: string, from: string): Promise<string> {
  const data = join(dir, name);
  cpSync(from, data, { recursive: true });
  return data;
}

describe('postcard backup and restore', () => {
  const backedUp = join(dir, 'backup');
  const first = join(dir, 'first');

  it('copy a server under load: all that was acknowledged before is there, finals stay, what waits goes on', async () => {
    mkdirSync(first, { mode: 0o700 });
    const ports = await freePorts();
    running = await startPostcard(first, ports);
    const { url } = running;
    const acknowledged: string[] = [];
    let on = true;
    let number = 491700000000;
    const sender = async (): Promise<void> => {
      while (on) {
        // The machine is killed under load: what gets no answer then was not acknowledged.
        const to = String(number++);
        const id = await send(url, { destinations: [{ to }], content: text('under load') }).catch(() => null);
        if (id !== null) acknowledged.push(id);
        // So that all of them can be asked for within the limit of log requests (120 of 50 ids), or nearly.
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const picture = randomBytes(300_000);
    const uploaded = await call(url, '/mms/1/content', {
      method: 'POST',
      body: picture,
      headers: { 'content-type': 'image/png', 'x-content-id': 'picture.png', 'x-media-type': 'image/png' },
    });
    const { uploadedContentId } = (await uploaded.json()) as { uploadedContentId: string };
    const scheduled = await send(
      url,
      {
        destinations: [{ to: '447700900123' }],
        content: { messageSegments: [{ type: 'UPLOADED_REFERENCE', uploadedContentId, contentId: 'picture.png' }] },
      },
      { options: { schedule: { bulkId: 'held', sendAt: new Date(Date.now() + 3_600_000).toISOString() } } },
    );
    expect(scheduled).not.toBeNull();
    const senders = Array.from({ length: 8 }, sender);
    expect(
      await eventually(90_000, async () => {
        if (acknowledged.length <= 200) return false;
        const logs = await logsOf(url, acknowledged.slice(0, 20));
        return [...logs.values()].some((log) => log.status.groupName === 'DELIVERED');
      }),
    ).toBe(true);

    const before = [...acknowledged];
    const finals = [...(await logsOf(url, before.slice(0, 100))).values()].filter(
      (log) => log.status.groupName === 'DELIVERED',
    );
    expect(finals.length).toBeGreaterThan(0);
    const made = await postcard(['backup', backedUp, '-o', 'json'], { POSTCARD_DATA_DIR: first });
    expect(made).toMatchObject({ code: 0, stderr: '' });
    const manifest = JSON.parse(made.stdout) as {
      files: { name: string }[];
      figures: Record<'messages' | 'waiting' | 'needed' | 'missing', number>;
    };
    expect(manifest.files.map(({ name }) => name)).toEqual(['postcard.db', 'content.db', 'sandbox.db']);
    expect(manifest.figures.messages).toBeGreaterThan(before.length);
    expect(manifest.figures).toMatchObject({ needed: 1, missing: 0 });
    expect(manifest.figures.waiting).toBeGreaterThan(0);
    // The load went on meanwhile, and what it brings now is lost with the first machine.
    const during = acknowledged.length;
    expect(await eventually(60_000, () => acknowledged.length > during + 50)).toBe(true);

    const refused = await postcard(['restore', backedUp], { POSTCARD_DATA_DIR: first });
    expect(refused).toEqual({ code: 1, stdout: '', stderr: `postcard: a server runs on ${first}; stop it first\n` });
    await running.end('SIGKILL');
    on = false;
    await Promise.allSettled(senders);

    const second = join(dir, 'second');
    const restored = await postcard(['restore', backedUp, '--to', second]);
    expect(restored).toMatchObject({ code: 0, stderr: '' });
    expect(restored.stdout).toContain(`POSTCARD_DATA_DIR=${second} postcard serve`);
    running = await startPostcard(second, ports);
    const after = await logsOf(running.url, before);
    expect(before.filter((id) => !after.has(id))).toEqual([]);
    for (const final of finals) expect(after.get(final.messageId)).toEqual(final);

    const fresh: string[] = [];
    for (let n = 0; n < 20; n++) {
      fresh.push(
        (await send(running.url, { destinations: [{ to: String(number++) }], content: text('after') })) as string,
      );
    }
    const given = new Set(acknowledged);
    expect(fresh.filter((id) => given.has(id))).toEqual([]);

    // What was to wait an hour is sent now.
    const moved = await call(running.url, '/mms/2/bulks?bulkId=held', {
      method: 'PUT',
      body: JSON.stringify({ sendAt: new Date().toISOString() }),
    });
    expect(moved.status).toBe(200);
    const all = [...before, scheduled as string, ...fresh];
    const { url: again, sandboxUrl } = running;
    let open = all;
    await eventually(240_000, async () => {
      const logs = await logsOf(again, open);
      open = open.filter((id) => logs.get(id)?.status.groupName !== 'DELIVERED');
      return open.length === 0;
    });
    expect(open).toEqual([]);
    const shown = await fetch(`${sandboxUrl}/sandbox/handsets/447700900123/messages`);
    const [message] = ((await shown.json()) as { messages: { parts: { contentType: string; url: string }[] }[] })
      .messages;
    const part = message?.parts.find(({ contentType }) => contentType.startsWith('image/'));
    const bytes = Buffer.from(await (await fetch(part?.url as string)).arrayBuffer());
    expect(bytes.equals(picture)).toBe(true);
    expect(await running.end('SIGTERM')).toBe(0);
  }, 600_000);

  it('a backup sees the sandbox and the log at one instant: what the one has told, the other knows', async () => {
    const data = await stillData('one-instant', join(dir, 'second'));
    const at = (name: string) => join(data, name);
    const told = (name: string, change: string): void => {
      const db = new DatabaseSync(name);
      db.exec(change);
      db.close();
    };
    for (const name of ['sandbox.db', 'postcard.db']) {
      told(at(name), 'CREATE TABLE told (n INTEGER) STRICT; INSERT INTO told VALUES (0)');
    }
    let times = 0;
    // Asked between the two views: a report is told, and taken, right there.
    const now = (): number => {
      if (times++ < 3) for (const name of ['sandbox.db', 'postcard.db']) told(at(name), 'UPDATE told SET n = n + 1');
      return Date.now();
    };
    const made = await backupSqlite({
      from: { log: at('postcard.db'), content: at('content.db'), sandbox: at('sandbox.db'), locks: [] },
      dest: join(dir, 'one-instant-backup'),
      version: '0',
      now,
      stop: new AbortController().signal,
    });
    expect(made.kind).toBe('done');
    const seen = ['sandbox.db', 'postcard.db'].map((name) => {
      const db = new DatabaseSync(join(dir, 'one-instant-backup', name));
      const row = db.prepare('SELECT n FROM told').get();
      db.close();
      return row;
    });
    expect(seen).toEqual([{ n: 3 }, { n: 3 }]);
  });

  it('a backup is for its owner only, complete, and never written over anything', async () => {
    expect(readdirSync(backedUp).sort()).toEqual(['content.db', 'manifest.json', 'postcard.db', 'sandbox.db']);
    expect(statSync(backedUp).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(backedUp)) expect(statSync(join(backedUp, name)).mode & 0o777, name).toBe(0o600);
    const again = await postcard(['backup', backedUp], { POSTCARD_DATA_DIR: first });
    expect(again.code).toBe(1);
    expect(again.stderr).toBe(
      `postcard: ${backedUp} exists; a backup is never written over anything: name a new directory\n`,
    );
    const nothing = await postcard(['backup', join(dir, 'none')], { POSTCARD_DATA_DIR: join(dir, 'empty') });
    expect(nothing.stderr).toContain('there is nothing to back up');
    const nowhere = await postcard(['backup', join(dir, 'no/where')], { POSTCARD_DATA_DIR: first });
    expect(nowhere.stderr).toContain('(ENOENT)');
    expect(readdirSync(dir).filter((name) => name.includes('.partial-'))).toEqual([]);
  });

  it('a restore leaves data alone that is there, unless it may move it aside', async () => {
    const data = await stillData('third', join(dir, 'second'));
    const kept = readFileSync(join(data, 'postcard.db'));
    const refused = await postcard(['restore', backedUp], { POSTCARD_DATA_DIR: data });
    expect(refused.code).toBe(1);
    expect(refused.stderr).toBe(
      `postcard: ${data} has data (postcard.db); name another directory, or --force to move it aside\n`,
    );
    expect(readFileSync(join(data, 'postcard.db')).equals(kept)).toBe(true);

    const forced = await postcard(['restore', backedUp, '--force', '-o', 'json'], { POSTCARD_DATA_DIR: data });
    expect(forced).toMatchObject({ code: 0, stderr: '' });
    const { aside } = JSON.parse(forced.stdout) as { aside: string };
    expect(readFileSync(join(aside, 'postcard.db')).equals(kept)).toBe(true);
    expect(readdirSync(data).filter((name) => name.includes('restoring'))).toEqual([]);
    expect(existsSync(join(data, 'postcard.db'))).toBe(true);
  });

  it('moves the numbering on, and nothing else', async () => {
    const to = join(dir, 'numbers');
    expect((await postcard(['restore', backedUp, '--to', to])).code).toBe(0);
    const read = (file: string) => {
      const db = new DatabaseSync(file);
      try {
        const next = Number((db.prepare("SELECT v FROM meta WHERE k = 'next'").get() as { v: number }).v);
        const rows = db.prepare('SELECT name, seq FROM sqlite_sequence ORDER BY name').all() as {
          name: string;
          seq: number;
        }[];
        const messages = db.prepare('SELECT count(*) AS n, sum(no) AS sum FROM message').get() as object;
        return { next, rows: new Map(rows.map(({ name, seq }) => [name, seq])), messages: { ...messages } };
      } finally {
        db.close();
      }
    };
    const copy = join(dir, 'copy');
    cpSync(backedUp, copy, { recursive: true });
    const was = read(join(copy, 'postcard.db'));
    const is = read(join(to, 'postcard.db'));
    expect(is.messages).toEqual(was.messages);
    expect(is.next - was.next).toBe(2 ** 40);
    for (const name of ['event', 'hook']) {
      expect((is.rows.get(name) ?? 0) - (was.rows.get(name) ?? 0), name).toBe(2 ** 40);
    }
  });

  it('a restore puts back only what its manifest vouches for', async () => {
    const bad = join(dir, 'bad');
    const to = join(dir, 'never');
    const attempt = async (spoil: () => void): Promise<string> => {
      rmSync(bad, { recursive: true, force: true });
      cpSync(backedUp, bad, { recursive: true });
      spoil();
      const ran = await postcard(['restore', bad, '--to', to]);
      expect(ran.code).toBe(1);
      expect(existsSync(join(to, 'postcard.db'))).toBe(false);
      return ran.stderr;
    };
    const manifest = JSON.parse(readFileSync(join(backedUp, 'manifest.json'), 'utf8')) as { schema: number };
    const damaged = await attempt(() => {
      const bytes = readFileSync(join(bad, 'postcard.db'));
      bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
      writeFileSync(join(bad, 'postcard.db'), bytes);
    });
    expect(damaged).toBe(`postcard: ${join(bad, 'postcard.db')} is damaged: its SHA-256 is not the manifest's\n`);
    expect(await attempt(() => appendFileSync(join(bad, 'content.db'), 'x'))).toContain('bytes, the manifest says');
    expect(await attempt(() => rmSync(join(bad, 'sandbox.db')))).toContain('cannot be read (ENOENT)');
    expect(await attempt(() => rmSync(join(bad, 'manifest.json')))).toContain('is no backup');
    expect(await attempt(() => writeFileSync(join(bad, 'manifest.json'), '{}'))).toContain(
      'is no manifest of a backup',
    );
    const newer = JSON.stringify({ ...manifest, schema: manifest.schema + 1000 });
    expect(await attempt(() => writeFileSync(join(bad, 'manifest.json'), newer))).toContain(
      'written by a newer Postcard',
    );
  });

  it('says when the store itself has lost content that a waiting message needs', async () => {
    const data = await stillData('lossy', backedUp);
    const content = new DatabaseSync(join(data, 'content.db'));
    content.exec('DELETE FROM content');
    content.close();
    const made = await postcard(['backup', join(dir, 'lossy-backup')], { POSTCARD_DATA_DIR: data });
    expect(made.code).toBe(1);
    expect(made.stderr).toContain('1 pieces of content are lost or damaged');
    expect(existsSync(join(dir, 'lossy-backup/manifest.json'))).toBe(true);
  });

  it('refuses to call a damaged file a backup', async () => {
    const data = await stillData('torn', backedUp);
    const bytes = readFileSync(join(data, 'postcard.db'));
    bytes.fill(0xa5, 8192, 8192 + 4096);
    writeFileSync(join(data, 'postcard.db'), bytes);
    const made = await postcard(['backup', join(dir, 'torn-backup')], { POSTCARD_DATA_DIR: data });
    expect(made.code).toBe(1);
    expect(made.stderr).toMatch(/damaged|malformed/);
    expect(existsSync(join(dir, 'torn-backup'))).toBe(false);
  });

  it('sends those who use PostgreSQL to its own tools', async () => {
    const env = { POSTCARD_STORE: 'postgres://me:secret@db.example/postcard' };
    for (const [command, tool] of [
      ['backup', 'pg_dump'],
      // Its grants name a role that another server does not have; the next start makes them.
      ['restore', 'pg_restore --clean --if-exists --no-privileges'],
    ] as const) {
      const ran = await postcard([command, 'x'], env);
      expect(ran.code).toBe(1);
      expect(ran.stderr).toContain(tool);
      expect(ran.stderr).toContain('docs/OPERATIONS.md');
      expect(ran.stderr).not.toContain('secret');
    }
  });
});
