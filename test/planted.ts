/**
 * The secrets that tests plant, as they would look in a log: keys and tokens in whatever place a test made them up, passwords, what
 * stores keep of them, whole phone numbers. `log-watch.ts` holds every line that a test's server wrote to it; as a program it does so for
 * the output of a whole run: `node test/planted.ts FILE...` ends with 1 and the first lines that show one.
 */
import { readFileSync } from 'node:fs';

const PLANTED: [string, RegExp][] = [
  [
    'a key or token',
    /(?<![\w-])[a-z0-9]+-(?:key|token|header-token|password|secret|seal-key|api-key)-?[a-z]*-?0123[0-9a-f]{4,}/,
  ],
  ['a key of our making', /"(?:key|apiKey|secret|token|password)":"(?!\[hidden\])/],
  ['a password', /correct horse battery|right password|another password|hunter\d|s3cret|canary-carrier-password/],
  ['a webhook secret', /whsec_[A-Za-z0-9+/=]{8,}/],
  ['a kept password', /scrypt\$\d|\$argon2id\$/],
  ['a private key', /PRIVATE KEY/],
  ['a credential', /\b(?:Basic|Bearer|IBSSO|App) (?!key\b)[A-Za-z0-9+/=_-]{16,}/],
  ['a whole number', /(?<![\w.+-])\+?(?:417[69]|4917[01]|441134|499900)\d{5,8}(?![\w.-])/],
];

/** What of this a log line shows; null = nothing. */
export function shows(line: string): string | null {
  return PLANTED.find(([, pattern]) => pattern.test(line))?.[0] ?? null;
}

/** Lines of our servers' logs in a mixed output: JSON of pino, or its pretty form. */
const LOGGED = /^\{"level":"|^\d\d:\d\d:\d\d (?:debug|info|warn|error) /;

if (process.argv[1] === import.meta.filename) {
  const found: string[] = [];
  let lines = 0;
  for (const path of process.argv.slice(2)) {
    for (const line of readFileSync(path, 'utf8').split('\n')) {
      if (!LOGGED.test(line)) continue;
      lines++;
      const what = shows(line);
      if (what !== null) found.push(`${what}: ${line.slice(0, 300)}`);
    }
  }
  console.log(`${lines} log lines, ${found.length} that show a secret`);
  for (const one of found.slice(0, 20)) console.log(one);
  process.exit(found.length === 0 ? 0 : 1);
}
