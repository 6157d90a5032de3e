/**
 * The catalogue of docs/SECURITY.md, kept true: each attack S1 to S30 names a place and tests that exist, its numbers of cases are those
 * that the tests themselves hold their corpus to, and nobody goes around the one place of each defence. Like `test/architecture.test.ts`, each rule is tried on planted violations too.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

interface Row {
  name: string;
  attack: string;
  place: string;
  tests: string;
  cases: string;
}

const rows: Row[] = [...read('docs/SECURITY.md').matchAll(/^\| (S\d+) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$/gm)].map(
  ([, name, attack, place, tests, cases]) => ({ name, attack, place, tests, cases }) as Row,
);

/** How many cases there must be at least, where a number was set. */
const LEAST: Record<string, number> = {
  ...{ S1: 300, S2: 10_000, S5: 5_000, S6: 40, S7: 20_000, S8: 60, S12: 50, S15: 500, S17: 100_000, S20: 1_000_000 },
};
const numbers = (text: string): number[] =>
  [...text.matchAll(/(?<![\w.])\d{1,3}(?: \d{3})*(?![\w.])/g)].map(([found]) => Number(found.replaceAll(' ', '')));

describe('the catalogue', () => {
  it('has each attack from S1 to S30 once', () => {
    expect(rows.map(({ name }) => name)).toEqual(Array.from({ length: 30 }, (_, i) => `S${i + 1}`));
  });

  it.each(rows.map((row): [string, Row] => [row.name, row]))('%s names places and tests that exist', (_, row) => {
    for (const [, path] of row.place.matchAll(/`((?:src|test)\/[^`]+)`/g))
      expect(() => read(path as string)).not.toThrow();
    const tests = [...row.tests.matchAll(/`((?:src|test)\/[^`]+\.ts)`: "([^"]+)"/g)];
    if (tests.length === 0) expect(row.tests).toMatch(/^not yet held: .{10}/);
    for (const [, path, words] of tests) {
      expect((words as string).length, `${path}: ${words}`).toBeGreaterThanOrEqual(20);
      expect(read(path as string), `${path}: ${words}`).toContain(words);
    }
  });

  it('has as many cases as were asked for', () => {
    for (const [name, least] of Object.entries(LEAST)) {
      const said = rows.find((row) => row.name === name)?.cases ?? '';
      expect([name, said, (numbers(said)[0] ?? 0) >= least]).toEqual([name, said, true]);
    }
  });

  it.each(rows.filter(({ cases }) => numbers(cases).length > 0).map((row): [string, Row] => [row.name, row]))(
    '%s has its numbers from what the tests hold themselves to',
    (_, { tests, cases }) => {
      const files = [...tests.matchAll(/`((?:src|test)\/[^`]+\.ts)`/g)].map(([, path]) => code(read(path as string)));
      // `toBeGreaterThanOrEqual(60)`, `const PAIRS = 100_000`, `i < 10_000`.
      const held = files.flatMap((text) =>
        [...text.matchAll(/(?:toBeGreaterThan(?:OrEqual)?\(|[A-Z]+ = |\?\? |min\(|\w < )(\d[\d_]*)/g)].map(([, n]) =>
          Number((n as string).replaceAll('_', '')),
        ),
      );
      for (const number of numbers(cases)) expect(held, `${number} of "${cases}"`).toContain(number);
    },
  );
});

// ------------------------------------------------------------------------------------------------------- one place each

interface File {
  path: string;
  text: string;
}

function sources(): File[] {
  return readdirSync(join(ROOT, 'src'), { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile() && file.name.endsWith('.ts') && !file.name.endsWith('.test.ts'))
    .map((file) => join(file.parentPath, file.name))
    .map((path) => ({ path: relative(ROOT, path).replaceAll('\\', '/'), text: readFileSync(path, 'utf8') }));
}

/** The code without comments. */
function code(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, ' ').replace(/(^|\s)\/\/.*$/gm, ' ');
}

/** What stands in the code, which files may have it, and what it would go around. */
const PLACES: { says: string; what: RegExp; files: RegExp; planted: string }[] = [
  {
    says: 'TLS is never taken without its check',
    what: /rejectUnauthorized: (?!true)|NODE_TLS_REJECT_UNAUTHORIZED/,
    // It asks for certificates there and judges them itself, since each carrier has authorities of its own.
    files: /^src\/carriers\/mm7\/listener\.ts$/,
    planted: 'const x = { rejectUnauthorized: false };',
  },
  {
    says: 'the parser of HTTP is never the lenient one',
    what: /insecureHTTPParser: (?!false)/,
    files: /^$/,
    planted: 'createServer({ insecureHTTPParser: true });',
  },
  {
    says: 'no text becomes code',
    what: /(?<![\w.])(eval|Function)\(|new Function\b/,
    files: /^$/,
    planted: 'const f = new Function(text); eval(text);',
  },
  {
    says: 'bodies of requests are parsed by json.ts only',
    // What we wrote ourselves may be read by anyone.
    what: /\bJSON\.parse\((?!(answer|spec|row|story\.spec)\.body\))/,
    // A page's mark that we gave out, and our own document.
    files: /^src\/(?!api\/)|^src\/api\/(json|openapi|inbox)\.ts$/,
    planted: 'const x = JSON.parse(body);',
  },
  {
    says: 'ciphers are used by seal.ts only',
    what: /\bcreate(Cipheriv|Decipheriv)\(/,
    files: /^src\/(store\/seal|domain\/(ids|links|inbound))\.ts$/,
    planted: "createCipheriv('aes-256-cbc', key, iv);",
  },
  {
    says: 'secrets are compared in constant time by those who hold some',
    what: /\btimingSafeEqual\(/,
    files:
      /^src\/(api\/(auth|admin|gate|metrics|passwords|sessions)|carriers\/(mm7\/listener|smpp\/|sandbox\/)|domain\/(inbound|ids|links))/,
    planted: 'timingSafeEqual(a, b);',
  },
  {
    says: 'environment variables are read by the entry and the command line only',
    what: /\bprocess\.env\b/,
    files: /^src\/(cli\/|main\.ts|media\/(fitting|fit-worker|av)\.ts)/,
    planted: 'const x = process.env.POSTCARD_API_KEY;',
  },
  {
    says: 'nobody writes to stdout and stderr around the log',
    what: /\bconsole\.\w+\(|process\.std(out|err)\.write/,
    files: /^src\/(cli\/|env\.ts)/,
    planted: 'console.log(secret);',
  },
];

const around = (rule: (typeof PLACES)[number], files: readonly File[]): string[] =>
  files.filter(({ path, text }) => !rule.files.test(path) && rule.what.test(text)).map(({ path }) => path);

describe('each defence has one place', () => {
  const files = sources().map(({ path, text }) => ({ path, text: code(text) }));

  for (const rule of PLACES) {
    it(rule.says, () => {
      expect(around(rule, files)).toEqual([]);
      expect(around(rule, [{ path: 'src/api/planted.ts', text: rule.planted }])).toEqual(['src/api/planted.ts']);
      expect(
        around(rule, [{ path: 'src/api/planted.ts', text: code(`// ${rule.planted}\n/* ${rule.planted} */`) }]),
      ).toEqual([]);
    });
  }

  it('uses old hashes nowhere but in HTTP Digest, whose servers know no other', () => {
    const old = files.filter(({ text }) => /['"`](md5|sha1|MD5|SHA1)['"`]/.test(text)).map(({ path }) => path);
    expect(old.filter((path) => path !== 'src/carriers/mm7/digest.ts')).toEqual([]);
  });
});

describe('S28: dependencies', () => {
  const manifest = JSON.parse(read('package.json')) as Record<string, Record<string, string>>;
  const lock = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { hasInstallScript?: boolean; resolved?: string; integrity?: string; inBundle?: boolean }>;
  };

  it('are pinned to the digit, and none runs a script when it is installed', () => {
    for (const kind of ['dependencies', 'devDependencies', 'optionalDependencies']) {
      for (const [name, version] of Object.entries(manifest[kind] ?? {}))
        expect(version, name).toMatch(/^\d+\.\d+\.\d+$/);
    }
    expect(read('.npmrc')).toMatch(/^ignore-scripts=true$/m);
    const scripted = Object.entries(lock.packages).filter(([, one]) => one.hasInstallScript === true);
    // Told by the lock file, and not run: `ignore-scripts` above.
    expect(
      scripted.map(([name]) => name).filter((name) => !/node_modules\/(fsevents|node-(bin-)?linux[\w-]*)$/.test(name)),
    ).toEqual([]);
  });

  it('come from the registry, each with its hash', () => {
    for (const [name, { resolved, integrity, inBundle }] of Object.entries(lock.packages)) {
      // The few that lie inside another's archive come under its hash.
      if (name === '' || inBundle) continue;
      // Left out = the registry that is asked, which is npm's own unless a machine says otherwise.
      if (resolved !== undefined) expect(resolved, name).toMatch(/^https:\/\/registry\.npmjs\.org\//);
      expect(integrity, name).toMatch(/^sha512-/);
    }
  });

  it('that run with the server are written down with their reason', () => {
    const reasons = read('docs/adr/0008-runtime-dependencies.md');
    for (const name of Object.keys(manifest.dependencies ?? {})) expect(reasons, name).toContain(name);
  });
});
