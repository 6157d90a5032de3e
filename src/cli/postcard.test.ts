import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { crc32, inflateSync } from 'node:zlib';
import { fileTypeFromBuffer } from 'file-type';
import { afterAll, describe, expect, it } from 'vitest';
import { SETTINGS } from '../config.ts';
import { type Check, clockCheck, diskRoom, nodeCheck, syncCost } from './doctor.ts';
import { run } from './postcard.ts';
import type { Io } from './terminal.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const dir = mkdtempSync(join(tmpdir(), 'postcard-cli-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

async function postcard(args: string[], env: Record<string, string> = {}): Promise<Ran> {
  const ran: Ran = { code: -1, stdout: '', stderr: '' };
  const io: Io = {
    out(text) {
      ran.stdout += text;
    },
    err(text) {
      ran.stderr += text;
    },
    env,
    cwd: dir,
    tty: false,
    readFile: (path) => readFileSync(path),
    stop: new AbortController().signal,
  };
  ran.code = await run(args, io);
  return ran;
}

describe('what is typed wrong', () => {
  it.each<[string, string[], string[]]>([
    ['an unknown command', ['snd'], ["unknown command 'snd' (Did you mean send?)"]],
    ['an unknown option', ['tail', '--kye', 'x'], ["unknown option '--kye' (Did you mean --key?)"]],
    ['an option without its value', ['send', '--to'], ["option '--to <numbers>' argument missing"]],
    ['a missing argument', ['show'], ["missing required argument 'messageId'"]],
    ['one argument too many', ['config', 'x'], ["too many arguments for 'config'. Expected 0 arguments but got 1: x."]],
    [
      'an unknown form',
      ['config', '-o', 'xml'],
      ["option '-o, --output <form>' argument 'xml' is invalid. Allowed choices are table, json, ndjson."],
    ],
    [
      'a URL that is none',
      ['tail', '--url', 'localhost:8080'],
      ["option '--url <url>' argument 'localhost:8080' is invalid. It must be an http or https URL."],
    ],
    [
      'all that is missing',
      ['send', '--to', ','],
      ['where to? give --to', 'from whom? give --sender', 'nothing to send: give --text or --media'],
    ],
    [
      'one id for two',
      ['send', '--to', '1,2', '--to', '3', '--sender', 's', '--text', 't', '--message-id', 'x'],
      ['--message-id names one message: give one --to'],
    ],
    ['no key', ['show', 'x'], ['no API key: give it with --key, in POSTCARD_API_KEY, or as apiKey in postcard.yaml']],
  ])('%s is a line that says so, and exit code 1', async (_what, args, lines) => {
    const ran = await postcard(args);
    expect(ran).toEqual({ code: 1, stdout: '', stderr: lines.map((line) => `postcard: ${line}\n`).join('') });
  });

  it('all mistakes in the settings are told at once', async () => {
    const free = { POSTCARD_CARRIER_PORT: '0', POSTCARD_SANDBOX_PORT: '0', POSTCARD_DATA_DIR: join(dir, 'unmade') };
    const ran = await postcard(['serve'], { ...free, POSTCARD_PORT: '80x', POSTCARD_PROT: '1' });
    expect(ran.code).toBe(1);
    expect(ran.stderr.trimEnd().split('\n')).toEqual([
      'postcard: POSTCARD_PROT: no such setting; did you mean POSTCARD_PORT?',
      expect.stringMatching(/^postcard: POSTCARD_PORT is "80x": must be a whole number/),
    ]);
  });

  it('all that would stop a server from starting is told at once', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const port = String((server.address() as AddressInfo).port);
    const other = createServer();
    other.listen(0, '127.0.0.1');
    await once(other, 'listening');
    const smpp = (other.address() as AddressInfo).port;
    const file = join(dir, 'no-directory');
    writeFileSync(file, '');
    const env = {
      POSTCARD_DATA_DIR: file,
      POSTCARD_PORT: port,
      POSTCARD_CARRIER_PORT: '0',
      POSTCARD_SANDBOX_PORT: '0',
      POSTCARD_SANDBOX_SMPP_PORT: String(smpp),
    };
    const ran = await postcard(['serve'], env);
    server.close();
    other.close();
    expect(ran.code).toBe(1);
    expect(ran.stderr.trimEnd().split('\n')).toEqual([
      expect.stringMatching(/^postcard: POSTCARD_DATA_DIR: .*no-directory is a file; name another POSTCARD_DATA_DIR$/),
      `postcard: POSTCARD_PORT: 127.0.0.1:${port} is taken by another process; stop that process or choose another port with POSTCARD_PORT`,
      `postcard: POSTCARD_SANDBOX_SMPP_PORT: 127.0.0.1:${smpp} is taken by another process; stop that process or choose another port with POSTCARD_SANDBOX_SMPP_PORT`,
    ]);
  });

  it('mistakes in the settings hide neither a taken port nor a data directory that cannot be written, and cause no others', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const port = String((server.address() as AddressInfo).port);
    const file = join(dir, 'no-directory-either');
    writeFileSync(file, '');
    const env = {
      POSTCARD_PROT: '1',
      POSTCARD_LOG_LEVEL: 'loud',
      POSTCARD_DATA_DIR: file,
      POSTCARD_PORT: port,
      POSTCARD_CARRIER_PORT: '0',
      // Where the default of a setting that cannot be read leads is nobody's mistake.
      POSTCARD_SANDBOX: 'maybe',
      POSTCARD_SANDBOX_PORT: port,
    };
    const ran = await postcard(['serve'], env);
    server.close();
    expect(ran.code).toBe(1);
    expect(ran.stderr.trimEnd().split('\n')).toEqual([
      'postcard: POSTCARD_PROT: no such setting; did you mean POSTCARD_PORT?',
      expect.stringMatching(/^postcard: POSTCARD_SANDBOX is "maybe"/),
      expect.stringMatching(/^postcard: POSTCARD_LOG_LEVEL is "loud"/),
      `postcard: POSTCARD_SANDBOX_PORT: port ${port} is that of POSTCARD_PORT too; give each its own, or 0 for a free one`,
      expect.stringMatching(/^postcard: POSTCARD_DATA_DIR: .*either is a file; name another POSTCARD_DATA_DIR$/),
      `postcard: POSTCARD_PORT: 127.0.0.1:${port} is taken by another process; stop that process or choose another port with POSTCARD_PORT`,
    ]);
  });

  it('a second server on the data directory of a first is told so, whatever its ports', async () => {
    const data = join(dir, 'taken');
    mkdirSync(data, { mode: 0o700 });
    const lock = new DatabaseSync(join(data, 'postcard.lock'));
    lock.exec('BEGIN EXCLUSIVE');
    const free = { POSTCARD_PORT: '0', POSTCARD_CARRIER_PORT: '0', POSTCARD_SANDBOX_PORT: '0' };
    const ran = await postcard(['serve'], { ...free, POSTCARD_DATA_DIR: data });
    lock.close();
    expect([ran.code, ran.stderr]).toEqual([
      1,
      `postcard: POSTCARD_DATA_DIR: another Postcard process uses ${data}; stop that process or name another POSTCARD_DATA_DIR\n`,
    ]);
  });

  it('a second server on the store file of a first, with a data directory of its own, is told which file', async () => {
    const data = join(dir, 'shared');
    mkdirSync(data, { mode: 0o700 });
    const lock = new DatabaseSync(join(data, 'queue.lock'));
    lock.exec('BEGIN EXCLUSIVE');
    const store = join(data, 'queue.db');
    const free = { POSTCARD_PORT: '0', POSTCARD_CARRIER_PORT: '0', POSTCARD_SANDBOX_PORT: '0' };
    const ran = await postcard(['serve'], {
      ...free,
      POSTCARD_DATA_DIR: join(dir, 'own'),
      POSTCARD_STORE: `sqlite:${store}`,
    });
    lock.close();
    expect([ran.code, ran.stderr]).toEqual([
      1,
      `postcard: POSTCARD_STORE: another Postcard process uses ${store}; stop that process or name another POSTCARD_STORE\n`,
    ]);
  });

  it('a second server that is led to the store file of a first by a link is told so', async () => {
    const data = join(dir, 'linked');
    mkdirSync(data, { mode: 0o700 });
    const store = join(data, 'queue.db');
    writeFileSync(store, '');
    const link = join(dir, 'link.db');
    symlinkSync(store, link);
    const lock = new DatabaseSync(join(data, 'queue.lock'));
    lock.exec('BEGIN EXCLUSIVE');
    const free = { POSTCARD_PORT: '0', POSTCARD_CARRIER_PORT: '0', POSTCARD_SANDBOX_PORT: '0' };
    const ran = await postcard(['serve'], {
      ...free,
      POSTCARD_DATA_DIR: join(dir, 'own'),
      POSTCARD_STORE: `sqlite:${link}`,
    });
    lock.close();
    expect([ran.code, ran.stderr]).toEqual([
      1,
      `postcard: POSTCARD_STORE: another Postcard process uses ${store}; stop that process or name another POSTCARD_STORE\n`,
    ]);
  });

  it('a store that was begun by the name of a link keeps it, since its content lies beside the link', async () => {
    const [data, disk] = [join(dir, 'begun'), join(dir, 'disk')];
    for (const made of [data, disk]) mkdirSync(made, { mode: 0o700 });
    const [link, file] = [join(data, 'postcard.db'), join(disk, 'postcard.db')];
    writeFileSync(file, '');
    symlinkSync(file, link);
    const store = async (): Promise<string> => {
      const ran = await postcard(['config', '-o', 'json'], { POSTCARD_DATA_DIR: data });
      return JSON.parse(ran.stdout).find(({ key }: { key: string }) => key === 'store').value;
    };
    expect(await store()).toBe(`sqlite:${file}`);
    writeFileSync(join(data, 'content.db'), '');
    expect(await store()).toBe(`sqlite:${link}`);
    // Where that is a link, too, both names have the same content.
    rmSync(join(data, 'content.db'));
    writeFileSync(join(disk, 'content.db'), '');
    symlinkSync(join(disk, 'content.db'), join(data, 'content.db'));
    expect(await store()).toBe(`sqlite:${file}`);
  });

  it('a host that is not of this machine is one line, whatever the number of ports', async () => {
    // 192.0.2.0/24 is for documentation: no machine has it.
    const ran = await postcard(['serve'], { POSTCARD_HOST: '192.0.2.1', POSTCARD_DATA_DIR: join(dir, 'elsewhere') });
    expect([ran.code, ran.stderr]).toEqual([
      1,
      'postcard: POSTCARD_HOST: 192.0.2.1 is no address of this machine (EADDRNOTAVAIL); give one that it has, 127.0.0.1, or 0.0.0.0 for all\n',
    ]);
    expect(existsSync(join(dir, 'elsewhere'))).toBe(false);
  });

  it.runIf(existsSync('/proc/self'))('a data directory that not even root may make is told, and soon', async () => {
    const free = { POSTCARD_PORT: '0', POSTCARD_CARRIER_PORT: '0', POSTCARD_SANDBOX_PORT: '0' };
    const ran = await postcard(['serve'], { ...free, POSTCARD_DATA_DIR: '/proc/postcard/data' });
    expect([ran.code, ran.stderr]).toEqual([
      1,
      expect.stringMatching(
        /^postcard: POSTCARD_DATA_DIR: cannot write to \/proc \(\w+\); let this user write there.*\n$/,
      ),
    ]);
  });

  it('help and version are no mistakes', async () => {
    const help = await postcard(['--help']);
    expect([help.code, help.stderr]).toEqual([0, '']);
    expect(help.stdout).toMatch(/serve[\s\S]+demo[\s\S]+send[\s\S]+tail[\s\S]+show[\s\S]+config[\s\S]+doctor/);
    expect(await postcard(['--version'])).toMatchObject({ code: 0, stdout: '0.1.0\n' });
  });
});

describe('postcard config', () => {
  it('shows every setting in three forms, and no secret in any', async () => {
    const env = { POSTCARD_API_KEY: 'very-secret', POSTCARD_PORT: '9999' };
    const shown = await postcard(['config'], env);
    const json = await postcard(['config', '-o', 'json'], env);
    const ndjson = await postcard(['config', '--output=ndjson'], env);
    for (const { code, stdout } of [shown, json, ndjson]) {
      expect(code).toBe(0);
      expect(stdout).not.toContain('very-secret');
    }
    expect(shown.stdout.split('\n')[0]).toMatch(/^SETTING +VALUE +FROM +WHAT IT IS$/);
    expect(shown.stdout).toMatch(/^POSTCARD_PORT +9999 +POSTCARD_PORT +API for customers/m);
    const rows = JSON.parse(json.stdout) as { key: string; value: string }[];
    expect(rows.map(({ key }) => key)).toEqual(SETTINGS.map(({ key }) => key));
    expect(rows.find(({ key }) => key === 'apiKey')?.value).toBe('***');
    expect(
      ndjson.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as object),
    ).toEqual(rows);
  });

  it('reads postcard.example.yaml, which names every setting, without a mistake', async () => {
    const example = readFileSync(join(root, 'postcard.example.yaml'), 'utf8');
    for (const { key, env } of SETTINGS)
      if (key !== 'config') expect(example, String(env)).toMatch(new RegExp(`^#? ?${key}:`, 'm'));
    const file = join(dir, 'all.yaml');
    writeFileSync(file, example.replaceAll(/^# ([a-zA-Z0-9]+:| {2,}- | {4})/gm, '$1'));
    const ran = await postcard(['config', '-o', 'json'], { POSTCARD_CONFIG: file });
    expect(ran.stderr).toBe('');
    const rows = JSON.parse(ran.stdout) as { key: string; origin: string; value: string }[];
    expect(rows.filter(({ origin }) => origin === 'default')).toEqual([]);
    expect(rows.find(({ key }) => key === 'carriers')?.value).toContain('mmsc.example.com');
    const table = (await postcard(['config'], { POSTCARD_CONFIG: file })).stdout.split('\n');
    const help = table[0]?.indexOf('WHAT IT IS') ?? 0;
    expect(Math.max(...table.map((line) => line.slice(0, help).length))).toBeLessThan(140 + file.length);
    expect(table.find((line) => line.includes('mmsc.example.com') || line.includes('[{'))).toMatch(/\.\.\. /);
    expect(table.at(-2)).toBe('Values that end in ... are cut; -o json has them whole.');
  });
});

describe('postcard doctor', () => {
  const free = { POSTCARD_PORT: '0', POSTCARD_CARRIER_PORT: '0', POSTCARD_SANDBOX_PORT: '0' };
  const checksOf = async (env: Record<string, string>): Promise<{ code: number; checks: Map<string, Check> }> => {
    const { code, stdout } = await postcard(['doctor', '-o', 'json'], env);
    return { code, checks: new Map((JSON.parse(stdout) as Check[]).map((check) => [check.check, check])) };
  };

  it('finds that a new place is fit, in words and for programs, and leaves nothing behind', async () => {
    const data = join(dir, 'new', 'data');
    const { code, checks } = await checksOf({ ...free, POSTCARD_DATA_DIR: data });
    expect(code).toBe(0);
    expect([...checks.values()].filter(({ result }) => result === 'fail')).toEqual([]);
    expect(checks.get('durability')?.found).toContain('journal_mode=wal, synchronous=2');
    expect(checks.get('carriers')).toMatchObject({ result: 'warn', found: expect.stringContaining('sandbox') });
    expect(existsSync(join(dir, 'new'))).toBe(false);
    const shown = await postcard(['doctor'], { ...free, POSTCARD_DATA_DIR: data });
    expect(shown.stdout).toMatch(/^ok {4}durability +SQLite/m);
  });

  it('fails when another process has a port, and says which setting to change', async () => {
    const server = createServer((_request, response) => void response.writeHead(404).end());
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const { code, checks } = await checksOf({ ...free, POSTCARD_SANDBOX_PORT: String(port) });
    server.close();
    expect(code).toBe(1);
    expect(checks.get('sandbox port')).toEqual({
      check: 'sandbox port',
      result: 'fail',
      found: `127.0.0.1:${port} is taken by another process`,
      advice: 'stop it or choose another port with POSTCARD_SANDBOX_PORT',
    });
  });

  it('knows the server of this data directory from one of another', async () => {
    const server = createServer((_request, response) => void response.end('ok'));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const data = join(dir, 'running');
    mkdirSync(data, { mode: 0o700 });
    const env = { ...free, POSTCARD_DATA_DIR: data, POSTCARD_PORT: String(port) };
    const other = await checksOf(env);
    expect(other.checks.get('API port')).toMatchObject({
      result: 'fail',
      found: expect.stringContaining('another data directory'),
    });
    const lock = new DatabaseSync(join(data, 'postcard.lock'));
    lock.exec('BEGIN EXCLUSIVE');
    const own = await checksOf(env);
    lock.close();
    server.close();
    server.closeAllConnections();
    expect(own.checks.get('API port')).toMatchObject({ result: 'ok', advice: '' });
  });

  it('fails when the data directory is a file, or every message would be rejected', async () => {
    const file = join(dir, 'file');
    writeFileSync(file, '');
    const bad = await checksOf({ ...free, POSTCARD_DATA_DIR: file });
    expect([bad.code, bad.checks.get('data directory')?.result]).toEqual([1, 'fail']);
    const nowhere = await checksOf({ ...free, POSTCARD_SANDBOX: 'false' });
    expect([nowhere.code, nowhere.checks.get('carriers')?.result]).toEqual([1, 'fail']);
  });

  it('reads the store that is there: its journal, and a clock that is ahead of ours', async () => {
    const data = join(dir, 'kept');
    mkdirSync(data, { mode: 0o755 });
    const db = new DatabaseSync(join(data, 'postcard.db'));
    db.exec(
      "CREATE TABLE meta (k TEXT PRIMARY KEY, v NOT NULL) WITHOUT ROWID; INSERT INTO meta VALUES ('clock', 99999999999999)",
    );
    const rollback = await checksOf({ ...free, POSTCARD_DATA_DIR: data });
    expect(rollback.code).toBe(1);
    expect(rollback.checks.get('store')).toMatchObject({
      result: 'fail',
      found: expect.stringContaining('journal_mode=delete'),
    });
    expect(rollback.checks.get('clock')).toMatchObject({
      result: 'fail',
      found: expect.stringContaining('behind the store'),
    });
    expect(rollback.checks.get('data directory')).toMatchObject({ result: 'warn', advice: `chmod 700 ${data}` });
    db.exec('PRAGMA journal_mode = WAL; UPDATE meta SET v = 1');
    const wal = await checksOf({ ...free, POSTCARD_DATA_DIR: data });
    db.close();
    expect([wal.checks.get('store')?.result, wal.checks.get('clock')?.result]).toEqual(['ok', 'ok']);
    writeFileSync(join(data, 'postcard.db'), 'this is no database at all, whatever its name says'.repeat(100));
    rmSync(join(data, 'postcard.db-wal'), { force: true });
    expect((await checksOf({ ...free, POSTCARD_DATA_DIR: data })).checks.get('store')?.result).toBe('fail');
  });

  it('warns where others than this machine reach the server', async () => {
    const near = await checksOf({ ...free, POSTCARD_DATA_DIR: join(dir, 'new', 'data') });
    expect(near.checks.get('reach')).toMatchObject({ result: 'ok', found: '127.0.0.1: this machine only' });
    const far = await checksOf({ ...free, POSTCARD_DATA_DIR: join(dir, 'new', 'data'), POSTCARD_HOST: '0.0.0.0' });
    expect([far.code, far.checks.get('reach')]).toMatchObject([
      0,
      { result: 'warn', found: expect.stringContaining("sandbox's handsets"), advice: expect.stringContaining('TLS') },
    ]);
  });

  it('judges what it measures', () => {
    expect(nodeCheck('20.20.2').result).toBe('fail');
    expect(nodeCheck('24.0.0').result).toBe('ok');
    expect([diskRoom(1e6), diskRoom(5e8), diskRoom(5e9)].map(({ result }) => result)).toEqual(['fail', 'warn', 'ok']);
    expect([syncCost(0.001), syncCost(0.2), syncCost(80)].map(({ result }) => result)).toEqual(['warn', 'ok', 'warn']);
    const now = 1_800_000_000_000;
    expect(clockCheck(now, now + 1000).result).toBe('ok');
    expect(clockCheck(now, now + 60_000)).toMatchObject({
      result: 'fail',
      found: expect.stringContaining('60 s behind'),
    });
    expect(clockCheck(0, null).result).toBe('fail');
  });
});

describe('what is written for people', () => {
  const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md'];

  it.each(pages)('%s links only to what is there', (page) => {
    const links = [...readFileSync(join(root, page), 'utf8').matchAll(/\]\(([^)#]+)/g)].map((match) => match[1] ?? '');
    expect(links.length).toBeGreaterThan(0);
    expect(links.filter((link) => !/^https?:/.test(link) && !existsSync(join(root, link)))).toEqual([]);
  });

  it('README names only settings, scripts and commands that exist', async () => {
    const text = readFileSync(join(root, 'README.md'), 'utf8');
    const names = new Set<string>(SETTINGS.flatMap(({ env }) => (env === null ? [] : [env, `${env}_FILE`])));
    const written = [...text.matchAll(/POSTCARD_[A-Z_]+/g)].map(([name]) => name);
    expect(written.filter((name) => !names.has(name))).toEqual([]);
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object };
    expect([...text.matchAll(/npm run (\w+)/g)].filter(([, name]) => !Object.hasOwn(scripts, name ?? ''))).toEqual([]);
    const help = (await postcard(['--help'])).stdout;
    const commands = [...text.matchAll(/npx postcard (\w+)/g)].map((match) => match[1] ?? '');
    expect(commands.length).toBeGreaterThan(3);
    for (const name of commands) expect(help).toMatch(new RegExp(`^  ${name} `, 'm'));
  });

  it('the picture of the demo is a picture', async () => {
    const bytes = readFileSync(join(root, 'src/cli/demo/greetings.png'));
    expect((await fileTypeFromBuffer(bytes))?.mime).toBe('image/png');
    const idat: Buffer[] = [];
    for (let at = 8; at < bytes.length; at += bytes.readUInt32BE(at) + 12) {
      const chunk = bytes.subarray(at + 4, at + 8 + bytes.readUInt32BE(at));
      expect(crc32(chunk)).toBe(bytes.readUInt32BE(at + 4 + chunk.length));
      if (chunk.toString('latin1', 0, 4) === 'IDAT') idat.push(chunk.subarray(4));
    }
    // 360 x 240 pixels of three bytes, and a filter byte a line.
    expect(inflateSync(Buffer.concat(idat)).length).toBe((360 * 3 + 1) * 240);
  });
});

describe('bin/postcard.cjs', () => {
  const bin = join(root, 'bin', 'postcard.cjs');
  /** Makes a Node believe that it is an old one. */
  const old = join(dir, 'old.cjs');
  writeFileSync(
    old,
    "Object.defineProperty(process, 'versions', { value: Object.assign({}, process.versions, { node: '18.3.0' }) });" +
      "Object.defineProperty(process, 'version', { value: 'v18.3.0' });",
  );
  const installed = existsSync(join(root, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node'));

  it.runIf(installed)('runs on an old Node with the one that came with the install', () => {
    const ran = spawnSync(process.execPath, ['-r', old, bin, 'tail', '--what'], { encoding: 'utf8', cwd: dir });
    expect(ran).toMatchObject({ status: 1, stdout: '', stderr: "postcard: unknown option '--what'\n" });
    const good = spawnSync(process.execPath, ['-r', old, bin, '--version'], { encoding: 'utf8', cwd: dir });
    expect(good).toMatchObject({ status: 0, stdout: '0.1.0\n', stderr: '' });
  });

  it('says in one line what to do when there is no Node that will do', () => {
    const alone = join(dir, 'alone', 'bin');
    cpSync(bin, join(alone, 'postcard.cjs'));
    const ran = spawnSync(process.execPath, ['-r', old, join(alone, 'postcard.cjs'), 'serve'], { encoding: 'utf8' });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toBe(
      'postcard: needs Node 24 or later, this is v18.3.0; install Node 24, or run `npm ci` without --omit=optional ' +
        '(it brings one on Linux x64 and arm64)\n',
    );
  });

  it('under npx it ends with the shell that npx puts in between, which passes no signal on', async () => {
    const gone = Promise.withResolvers<void>();
    const server = createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': hello\n\n');
      response.on('close', () => gone.resolve());
      connected.resolve();
    });
    const connected = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    // The `:` keeps the shell from giving its process to the command.
    const shell = spawn('sh', ['-c', `"${process.execPath}" "${bin}" tail --url ${url} --key k; :`], {
      stdio: 'ignore',
      env: { ...process.env, npm_command: 'exec' },
    });
    await connected.promise;
    shell.kill('SIGTERM');
    await gone.promise;
    server.close();
  });

  it.runIf(installed)('bin/with-node puts it before an older one of the host, for every script of package.json', () => {
    const bin = join(dir, 'host');
    mkdirSync(bin);
    writeFileSync(join(bin, 'node'), '#!/bin/sh\necho v18.19.0\n', { mode: 0o755 });
    const env = { PATH: `${bin}:/usr/bin:/bin` };
    const ran = spawnSync(join(root, 'bin', 'with-node'), ['node', '--version'], { encoding: 'utf8', cwd: dir, env });
    expect(ran).toMatchObject({ status: 0, stdout: expect.stringMatching(/^v24\./) });
    cpSync(join(root, 'bin', 'with-node'), join(dir, 'bare', 'bin', 'with-node'));
    const bare = spawnSync(join(dir, 'bare', 'bin', 'with-node'), ['node', '--version'], { encoding: 'utf8', env });
    expect(bare).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringMatching(/^postcard: needs Node 24 or later, this is v18\.19\.0; .*\n$/),
    });
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object };
    for (const script of Object.values(scripts) as string[]) {
      expect(script.split(' && ')).toEqual(
        script.split(' && ').map(() => expect.stringMatching(/^(exec )?bin\/with-node /)),
      );
    }
  });

  it('passes signals on and ends as the command ends', async () => {
    const server = createServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(': hello\n\n');
      connected.resolve();
    });
    const connected = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const child: ChildProcess = spawn(process.execPath, [bin, 'tail', '--url', url, '--key', 'k'], { stdio: 'ignore' });
    await connected.promise;
    child.kill('SIGTERM');
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    server.closeAllConnections();
    server.close();
    expect([code, signal]).toEqual([0, null]);
  });
});
