import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CLIENT_KEY, SERVER_CERT, SERVER_KEY } from '../../test/certificates.ts';
import { loadConfig } from '../config.ts';
import { safetyChecks } from './safety.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-safety-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const file = (name: string, text: string, mode = 0o600): string => {
  const path = join(dir, name);
  writeFileSync(path, text);
  chmodSync(path, mode);
  return path;
};
const CERT = file('cert.pem', SERVER_CERT, 0o644);
const KEY = file('key.pem', SERVER_KEY);
const NOW = Date.UTC(2027, 0, 1);
const RANDOM = '0123456789abcdef'.repeat(4);
const SAFE = { POSTCARD_API_KEY: RANDOM, POSTCARD_SECRET_KEY: RANDOM };

/** What is not ok, as `check result: found; advice`. */
function troubles(env: Record<string, string>, yaml = '', now = NOW, uid = 1000, mode = 0o640): string[] {
  const path = file('postcard.yaml', yaml, mode);
  const loaded = loadConfig({
    env: { POSTCARD_CONFIG: path, ...env },
    cwd: dir,
    readFile: () => yaml,
  });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  return safetyChecks(loaded.config, now, uid)
    .filter(({ result }) => result !== 'ok')
    .map(({ check, result, found, advice }) => `${check} ${result}: ${found}; ${advice}`);
}

const CARRIER = (more: string): string => `carriers:\n  - {name: one, type: mm7, vaspId: "1", username: u, ${more}}\n`;

describe('what is unsafe', () => {
  it('is a Node that cannot look at passwords that others kept', () => {
    const passwords = (argon2: boolean, env: Record<string, string> = {}) => {
      const loaded = loadConfig({ env: { ...SAFE, ...env }, cwd: dir, readFile: () => '' });
      if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
      return safetyChecks(loaded.config, NOW, 1000, argon2).filter(({ check }) => check === 'passwords');
    };
    expect(passwords(true)).toEqual([]);
    expect(passwords(false)).toMatchObject([{ result: 'warn', advice: 'run Node 24.7 or later on all nodes' }]);
    const other = { POSTCARD_ROLES: 'dispatch', POSTCARD_STORE: 'postgres://x@127.0.0.1/x' };
    expect(passwords(false, other)).toEqual([]);
  });

  it('is figures that anybody may read', () => {
    const open = {
      ...SAFE,
      POSTCARD_HOST: '0.0.0.0',
      POSTCARD_SANDBOX: 'false',
      POSTCARD_TLS_CERT: CERT,
      POSTCARD_TLS_KEY: KEY,
    };
    const of = (allow: string): string[] => troubles({ ...open, POSTCARD_METRICS_ALLOW: allow });
    expect(of('0.0.0.0/0')).toEqual([
      expect.stringMatching(/^metrics warn: anybody who reaches us can read .metrics; .*POSTCARD_METRICS_TOKEN/),
    ]);
    expect([of('10.0.0.0/8'), of('none'), troubles(open)]).toEqual([[], [], []]);
    expect(troubles({ ...SAFE, POSTCARD_METRICS_ALLOW: '0.0.0.0/0' })).toEqual([]);
  });

  it("is an operator's door that anybody may knock at, and a word that anybody may give", () => {
    const proxied = { ...SAFE, POSTCARD_ADMIN_KEY: 'c'.repeat(4) + RANDOM, POSTCARD_TRUSTED_PROXIES: '127.0.0.1' };
    const allow = { POSTCARD_ADMIN_ALLOW: '0.0.0.0/0' };
    expect(troubles({ ...proxied, ...allow })).toEqual([expect.stringMatching(/^admin warn: .*POSTCARD_ADMIN_ALLOW/)]);
    expect(troubles({ ...proxied, POSTCARD_ADMIN_ALLOW: '10.0.0.0/8' })).toEqual([]);
    expect(troubles({ ...SAFE, ...allow })).toEqual([]);
    const all = { ...SAFE, POSTCARD_TRUSTED_PROXIES: '0.0.0.0/0' };
    expect(troubles(all)).toEqual([expect.stringMatching(/^proxies warn: .*POSTCARD_TRUSTED_PROXIES/)]);
  });

  it('is nothing where all is as it should be', () => {
    expect(troubles(SAFE)).toEqual([]);
    const open = {
      ...SAFE,
      POSTCARD_HOST: '0.0.0.0',
      POSTCARD_SANDBOX: 'false',
      POSTCARD_TLS_CERT: CERT,
      POSTCARD_TLS_KEY: KEY,
    };
    expect(
      troubles(open, CARRIER('url: "https://mmsc.example/", password: x, inboundSecret: 0123456789abcdef')),
    ).toEqual([]);
  });

  it.each<[string, Record<string, string>, RegExp[]]>([
    [
      'an open host without TLS',
      { POSTCARD_HOST: '0.0.0.0', POSTCARD_SANDBOX: 'false' },
      [/^reach warn: 0\.0\.0\.0: others.*keys travel in clear; give POSTCARD_TLS_CERT/],
    ],
    [
      'an open sandbox',
      { POSTCARD_HOST: '10.0.0.1', POSTCARD_TLS_CERT: CERT, POSTCARD_TLS_KEY: KEY },
      [/^reach warn: .*handsets; set POSTCARD_SANDBOX=false/],
    ],
    ['a short key', { POSTCARD_API_KEY: 'secret' }, [/^keys warn: apiKey: short.*openssl/]],
    ['a key of one character', { POSTCARD_API_KEY: 'a'.repeat(64) }, [/^keys warn: apiKey/]],
    ['a key for all', { POSTCARD_ADMIN_KEY: RANDOM }, [/^keys fail: adminKey and apiKey are the same/]],
    ['secrets in clear', { POSTCARD_SECRET_KEY: '' }, [/^secrets warn: .*in clear.*POSTCARD_SECRET_KEY/]],
    [
      'everything inside open',
      { POSTCARD_OUTBOUND_ALLOW: '10.0.0.0/8,192.168.7.0/24' },
      [/^outbound warn: .*10\.0\.0\.0\/8; /],
    ],
    [
      'where a cloud keeps its credentials',
      { POSTCARD_OUTBOUND_ALLOW: '169.254.169.0/24,fd00:ec2::/64' },
      [/^metadata warn: .*169\.254\.169\.254, fd00:ec2::254.*POSTCARD_OUTBOUND_ALLOW/],
    ],
    [
      'a certificate with the key of another',
      { POSTCARD_TLS_CERT: CERT, POSTCARD_TLS_KEY: file('other.key', CLIENT_KEY) },
      [/^certificate fail: .*other\.key is not the key of/],
    ],
    [
      'no certificate',
      { POSTCARD_TLS_CERT: join(dir, 'gone'), POSTCARD_TLS_KEY: KEY },
      [/^certificate fail: .*\(ENOENT\)/],
    ],
    [
      'what is no certificate',
      { POSTCARD_CARRIER_TLS_CERT: KEY, POSTCARD_CARRIER_TLS_KEY: KEY },
      [/^carrier certificate fail: .*cannot be read/],
    ],
    [
      'a key that all may read',
      { POSTCARD_TLS_CERT: CERT, POSTCARD_TLS_KEY: file('open.key', SERVER_KEY, 0o644) },
      [/^certificate warn: .*chmod 600/],
    ],
  ])('is %s', (_, env, expected) => {
    const found = troubles({ ...SAFE, ...env });
    expect(found).toHaveLength(expected.length);
    for (const [i, one] of expected.entries()) expect(found[i]).toMatch(one);
  });

  it('is a certificate that has ended, ends soon or has not begun', () => {
    const env = { ...SAFE, POSTCARD_TLS_CERT: CERT, POSTCARD_TLS_KEY: KEY };
    expect(troubles(env, '', Date.UTC(2126, 10, 3))).toEqual([expect.stringMatching(/^certificate fail: .*renew it/)]);
    expect(troubles(env, '', Date.UTC(2126, 9, 25))).toEqual([expect.stringMatching(/^certificate warn: .*renew it/)]);
    expect(troubles(env, '', Date.UTC(2026, 0, 1))).toEqual([expect.stringMatching(/^certificate fail: .*clock/)]);
  });

  it('is root, and a file of passwords that all may read', () => {
    expect(troubles(SAFE, '', NOW, 0)).toEqual([expect.stringMatching(/^user warn/)]);
    const yaml = CARRIER('url: "https://mmsc.example/", password: planted-password');
    const found = troubles(SAFE, yaml, NOW, 1000, 0o644);
    expect(found).toEqual([expect.stringMatching(/^settings warn: .*postcard\.yaml/)]);
    expect(found.join()).not.toContain('planted');
  });

  it.each([
    [
      'url: "http://mmsc.example/", password: x, inboundSecret: 0123456789abcdef',
      /^carrier passwords warn: in clear to one/,
    ],
    ['url: "https://mmsc.example/", password: x', /^reports warn: whoever reaches port 8082.*of one/],
  ])('is a carrier like %s', (more, expected) => {
    const env = {
      ...SAFE,
      POSTCARD_HOST: '0.0.0.0',
      POSTCARD_SANDBOX: 'false',
      POSTCARD_TLS_CERT: CERT,
      POSTCARD_TLS_KEY: KEY,
    };
    expect(troubles(env, CARRIER(more))).toEqual([expect.stringMatching(expected)]);
  });

  it('is an SMSC that gets its password in clear', () => {
    const yaml = 'carriers:\n  - {name: two, type: smpp, host: smsc.example, systemId: a, password: b}\n';
    expect(troubles(SAFE, yaml)).toEqual([expect.stringMatching(/^carrier passwords warn: in clear to two/)]);
    expect(troubles(SAFE, yaml.replace('password: b', 'password: b, tls: true'))).toEqual([]);
  });
});
