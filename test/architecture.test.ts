/**
 * The house's plan, enforced: who may import whom (the table of docs/ARCHITECTURE.md), who may touch time, chance and the
 * network, and the habits that keep files readable. Each rule is a function from files to findings, run over the
 * repository as it is and over planted violations, so that a rule which finds nothing is known to look.
 *
 * Files are read with TypeScript's own scanner: comments, strings, templates and regular expressions are told apart by the
 * language's rules, not by guesses.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SyntaxKind } from 'typescript/unstable/ast';
import { createScanner } from 'typescript/unstable/ast/scanner';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

interface File {
  /** From the root, with `/`. */
  path: string;
  text: string;
}

type Rule = (files: File[]) => string[];

// -------------------------------------------------------------------------------------------------------------- scanning

interface Token {
  kind: SyntaxKind;
  text: string;
  start: number;
  end: number;
}

interface Scanned {
  /** Without comments and white space. */
  tokens: Token[];
  comments: { text: string; start: number; end: number }[];
}

/** After these a slash divides; after anything else it opens a regular expression. */
const ENDS_VALUE = new Set<SyntaxKind>([
  SyntaxKind.Identifier,
  SyntaxKind.NumericLiteral,
  SyntaxKind.BigIntLiteral,
  SyntaxKind.StringLiteral,
  SyntaxKind.NoSubstitutionTemplateLiteral,
  SyntaxKind.TemplateTail,
  SyntaxKind.RegularExpressionLiteral,
  SyntaxKind.CloseParenToken,
  SyntaxKind.CloseBracketToken,
  SyntaxKind.CloseBraceToken,
  SyntaxKind.ThisKeyword,
  SyntaxKind.SuperKeyword,
  SyntaxKind.TrueKeyword,
  SyntaxKind.FalseKeyword,
  SyntaxKind.NullKeyword,
  SyntaxKind.PlusPlusToken,
  SyntaxKind.MinusMinusToken,
]);

const scans = new Map<string, Scanned>();

function scan(text: string): Scanned {
  const known = scans.get(text);
  if (known) return known;
  const scanner = createScanner(false, undefined, text);
  const result: Scanned = { tokens: [], comments: [] };
  /** Depth of braces inside each open `${`. */
  const templates: number[] = [];
  for (;;) {
    let kind = scanner.scan();
    if (kind === SyntaxKind.EndOfFile) break;
    const last = result.tokens.at(-1)?.kind;
    if (kind === SyntaxKind.SlashToken || kind === SyntaxKind.SlashEqualsToken) {
      if (last === undefined || !ENDS_VALUE.has(last)) kind = scanner.reScanSlashToken();
    } else if (kind === SyntaxKind.OpenBraceToken && templates.length > 0) {
      templates[templates.length - 1]!++;
    } else if (
      kind === SyntaxKind.CloseBraceToken &&
      templates.length > 0 &&
      templates[templates.length - 1]!-- === 0
    ) {
      kind = scanner.reScanTemplateToken(false);
      if (kind === SyntaxKind.TemplateTail) templates.pop();
      else templates[templates.length - 1] = 0;
    }
    if (kind === SyntaxKind.TemplateHead) templates.push(0);
    const piece = { text: scanner.getTokenText(), start: scanner.getTokenStart(), end: scanner.getTokenEnd() };
    if (kind === SyntaxKind.SingleLineCommentTrivia || kind === SyntaxKind.MultiLineCommentTrivia) {
      result.comments.push(piece);
    } else if (kind !== SyntaxKind.WhitespaceTrivia && kind !== SyntaxKind.NewLineTrivia) {
      result.tokens.push({ kind, ...piece });
    }
  }
  scans.set(text, result);
  return result;
}

interface Import {
  specifier: string;
  /** Erased before it runs. */
  type: boolean;
  /** Loaded when that line runs, or by another thread. */
  later: boolean;
  /** What stands between the braces; empty = all of it, or nothing by name. */
  names: string[];
  at: number;
}

/** Static and dynamic imports, re-exports, require, and files that are started as threads (`new URL('./x.ts', ...)`). */
function importsOf(text: string): Import[] {
  const { tokens } = scan(text);
  const found: Import[] = [];
  tokens.forEach((token, i) => {
    if (token.kind !== SyntaxKind.StringLiteral) return;
    const specifier = token.text.slice(1, -1);
    const before = tokens[i - 1]?.text;
    const opener = tokens[i - 2]?.text ?? '';
    if (before === '(' && opener === 'URL' && !/^\.\.?\/.*\.ts$/.test(specifier)) return;
    if (before === 'import' || (before === '(' && ['import', 'require', 'URL'].includes(opener))) {
      // `import('./x.ts').Name` in a type position loads nothing, but a value may look the same: count it as a value.
      found.push({ specifier, type: false, later: before === '(', names: [], at: token.start });
    } else if (before === 'from') {
      let start = i - 2;
      while (start > 0 && tokens[start]?.text !== 'import' && tokens[start]?.text !== 'export') start--;
      const clause = tokens.slice(start + 1, i - 1).map((one) => one.text);
      const braced = clause
        .slice(clause.indexOf('{') + 1, clause.lastIndexOf('}'))
        .join(' ')
        .split(',');
      const names = clause[0] === '{' ? braced.map((one) => one.trim()).filter((one) => one !== '') : [];
      const type = clause[0] === 'type' || (names.length > 0 && names.every((one) => one.startsWith('type ')));
      found.push({ specifier, type, later: false, names, at: token.start });
    }
  });
  return found;
}

function lineOf(text: string, at: number): number {
  return text.slice(0, at).split('\n').length;
}

const isSource = ({ path }: File): boolean => path.startsWith('src/') && path.endsWith('.ts') && !isTest(path);

function isTest(path: string): boolean {
  return path.startsWith('test/') || path.endsWith('.test.ts');
}

// ----------------------------------------------------------------------------------------------------------- the rooms

/** The rooms of docs/ARCHITECTURE.md by the path of their files; first match counts. */
const ROOMS: [RegExp, string][] = [
  [/^src\/(main\.ts$|wiring\/.+)/, 'main'],
  [/^src\/cli\/.+/, 'cli'],
  [/^src\/(settings|carrier-settings|config|configured|reload)\.ts$/, 'config'],
  [/^src\/env\.ts$/, 'env'],
  [/^src\/xml\.ts$/, 'xml'],
  [/^src\/domain\/.+/, 'domain'],
  [/^src\/store\/contract(-customers)?\.ts$/, 'store contract'],
  [/^src\/store\/.+/, 'store'],
  [/^src\/api\/.+/, 'api'],
  [/^src\/media\/.+/, 'media'],
  [/^src\/dispatch\/.+/, 'dispatch'],
  [/^src\/carriers\/carrier\.ts$/, 'carrier contract'],
  [/^src\/carriers\/.+/, 'carriers'],
  [/^src\/webhooks\/.+/, 'webhooks'],
  [/^src\/net\/.+/, 'net'],
];

/** What each room may import besides itself, Node and packages. `main` may import everything. */
const MAY_IMPORT: Record<string, string[]> = {
  cli: ['config', 'env'],
  config: ['domain'],
  env: [],
  xml: [],
  domain: ['xml'],
  'store contract': ['domain'],
  store: ['domain', 'store contract'],
  api: ['domain', 'store contract', 'xml'],
  media: ['domain', 'store contract', 'net'],
  dispatch: ['domain', 'store contract', 'carrier contract'],
  'carrier contract': ['domain'],
  carriers: ['domain', 'net', 'xml', 'carrier contract'],
  webhooks: ['domain', 'store contract', 'net', 'xml'],
  net: ['env'],
};

/** Single files that may import what their room may not, and why. */
const ALSO: { from: RegExp; to: RegExp; why: string }[] = [
  { from: /^src\/cli\/(serve|demo)\.ts$/, to: /^src\/main\.ts$/, why: 'they start the server' },
  {
    from: /^src\/cli\/(backup|doctor)\.ts$/,
    to: /^src\/wiring\/(store|serving)\.ts$/,
    why: 'which store there is, only the wiring knows',
  },
  {
    from: /^src\/cli\/media\.ts$/,
    to: /^src\/(media\/(fit|fitting|image|kind)|domain\/(codes|content|profile))\.ts$/,
    why: 'it shows what the server would send, without one',
  },
  { from: /^src\/cli\/doctor\.ts$/, to: /^src\/media\/av\.ts$/, why: 'which encoders there are' },
  { from: /^src\/cli\/account\.ts$/, to: /^src\/domain\/accounts\.ts$/, why: 'the scopes that there are' },
  { from: /^src\/media\/fit-worker\.ts$/, to: /^src\/env\.ts$/, why: 'a process of its own: realClock' },
  { from: /^src\/net\/outbound\.ts$/, to: /^src\/domain\/address\.ts$/, why: 'the address rules' },
  { from: /^src\/store\/sqlite\/thread\.ts$/, to: /^src\/env\.ts$/, why: 'a thread is given no Env: realClock' },
];

function roomOf(path: string): string | null {
  return ROOMS.find(([pattern]) => pattern.test(path))?.[1] ?? null;
}

const everyFileHasItsRoom: Rule = (files) =>
  files.filter((file) => isSource(file) && roomOf(file.path) === null).map(({ path }) => `${path}: in no room`);

const roomsImportOnlyWhatTheyMay: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    const room = roomOf(path);
    if (room === null || room === 'main') return [];
    return importsOf(text).flatMap(({ specifier, type, at }) => {
      if (!specifier.startsWith('.')) return [];
      const target = posix.normalize(posix.join(posix.dirname(path), specifier));
      const other = roomOf(target);
      if (other === room || (other === 'env' && type)) return [];
      if (other !== null && (MAY_IMPORT[room] ?? []).includes(other)) return [];
      if (ALSO.some((one) => one.from.test(path) && one.to.test(target))) return [];
      return [`${path}:${lineOf(text, at)}: ${room} imports ${target} (${other ?? 'no room'})`];
    });
  });

const importsNameTheirFile: Rule = (files) =>
  files
    .filter(({ path }) => path.endsWith('.ts'))
    .flatMap(({ path, text }) =>
      importsOf(text)
        .filter(({ specifier }) => specifier.startsWith('.') && !/\.(ts|json|cjs)$/.test(specifier))
        .map(({ specifier, at }) => `${path}:${lineOf(text, at)}: "${specifier}" without its extension`),
    );

/** Packages and Node modules that only some files may import. `names`: these of its exports are free for all. */
const ONLY_IN: { module: RegExp; files: RegExp; types?: true; names?: RegExp }[] = [
  // The way to customers' addresses is net; carriers' own pools are theirs.
  { module: /^undici$/, files: /^src\/(net\/outbound\.ts|carriers\/(mm7|sandbox)\/)/ },
  {
    module: /^(node:)?(http|https|http2|net|tls|dns|dns\/promises|dgram)$/,
    files: /^src\/(net|carriers|cli)\//,
    types: true,
    // Pure questions about a text, and the customers' door, which listens and never calls.
    names: /^(isIP|isIPv4|isIPv6|createServer( as \w+)?|createSecureContext|METHODS|STATUS_CODES|type \w+)$/,
  },
  // What decodes foreign bytes runs in a child only (fit-worker.ts starts it).
  { module: /^sharp$/, files: /^src\/media\/image\.ts$/ },
  { module: /^mediabunny$/, files: /^src\/media\/av\.ts$/ },
  { module: /^(node:)?child_process$/, files: /^src\/(media\/(av|fitting)|cli\/[a-z]+)\.ts$/ },
  { module: /^saxes$/, files: /^src\/xml\.ts$/ },
  { module: /^(nodemailer(\/.*)?|@fastify\/busboy)$/, files: /^src\/carriers\/mime\.ts$/ },
  { module: /^pino$/, files: /^src\/env\.ts$/ },
  // The doctor asks SQLite itself whether it keeps what a 200 promises here.
  { module: /^node:sqlite$/, files: /^src\/((store\/sqlite|carriers\/sandbox)\/|cli\/doctor\.ts$)/ },
  { module: /^(commander|cli-table3|eventsource-parser)$/, files: /^src\/cli\// },
  { module: /^(node:)?timers(\/promises)?$/, files: /^src\/env\.ts$/ },
];

const packagesStayInTheirPlace: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) =>
    importsOf(text).flatMap(({ specifier, type, names, at }) => {
      const rule = ONLY_IN.find(({ module }) => module.test(specifier));
      if (!rule || rule.files.test(path) || (rule.types && type)) return [];
      if (rule.names && names.length > 0 && names.every((name) => rule.names?.test(name))) return [];
      return [`${path}:${lineOf(text, at)}: imports ${specifier}`];
    }),
  );

// ------------------------------------------------------------------------------------------------- what a thread loads

/** What the file of a thread must not load before it works: a start is mostly the loading of code. */
const NOT_LOADED: { thread: string; never: RegExp }[] = [
  {
    thread: 'src/main.ts',
    never: /^(undici|nodemailer\/|pg$|fastify$|@fastify\/|file-type|src\/(api|store\/postgres)\/)/,
  },
  { thread: 'src/api/server.ts', never: /^(undici|@fastify\/|fastify-type-provider-zod|yaml)/ },
  {
    thread: 'src/cli/postcard.ts',
    never: /^(undici|pg$|fastify$|file-type|sharp|src\/(main\.ts|(api|media|store|wiring)\/))/,
  },
  {
    thread: 'src/wiring/carriers-thread.ts',
    never: /^(zod|yaml|fastify$|pg$|sharp|mediabunny|src\/(api|store\/postgres)\/|src\/carriers\/sandbox\/sandbox)/,
  },
  {
    thread: 'src/wiring/sandbox-thread.ts',
    never: /^(zod|yaml|fastify$|pg$|file-type|src\/(api|dispatch|media|webhooks|store\/postgres)\/)/,
  },
  { thread: 'src/store/sqlite/thread.ts', never: /^(pino|zod|undici|src\/(api|carriers|dispatch|webhooks)\/)/ },
];

const threadsLoadWhatTheyNeed: Rule = (files) => {
  const sources = new Map(files.filter(isSource).map((file) => [file.path, file.text]));
  return NOT_LOADED.flatMap(({ thread, never }) => {
    const by = new Map<string, string>([[thread, '']]);
    for (const path of by.keys()) {
      for (const { specifier, type, later } of importsOf(sources.get(path) ?? '')) {
        const target = specifier.startsWith('.') ? posix.join(posix.dirname(path), specifier) : specifier;
        if (!type && !later && !by.has(target)) by.set(target, path);
      }
    }
    return [...by]
      .filter(([target]) => never.test(target))
      .map(([target, path]) => `${thread}: ${path} loads ${target}`);
  });
};

// ------------------------------------------------------------------------------------------- time, chance, the network

/** Names nobody but env.ts may use, as they stand in the tokens. */
const MACHINE: [string, string[]][] = [
  ['Date.now', ['Date', '.', 'now']],
  ['new Date()', ['new', 'Date', '(', ')']],
  ['new Date', ['new', 'Date', ';']],
  ['Math.random', ['Math', '.', 'random']],
  ['performance', ['performance', '.']],
  ['process.hrtime', ['process', '.', 'hrtime']],
  ['globalThis', ['globalThis']],
  ...['setTimeout', 'setInterval', 'setImmediate', 'randomUUID', 'randomBytes', 'randomInt', 'getRandomValues'].map(
    (name): [string, string[]] => [name, [name]],
  ),
];

/** Where one of them stands for a reason. */
const MACHINE_EXCEPT: { file: RegExp; name: string; why: string }[] = [
  {
    file: /^src\/(store\/sqlite\/(thread|sqlite)|store\/postgres\/queue|carriers\/sandbox\/(ledger|sandbox))\.ts$/,
    name: 'setImmediate',
    why: 'collects what comes in one turn of the event loop into one commit; no time passes',
  },
  {
    file: /^src\/store\/sqlite\/engine\.ts$/,
    name: 'randomBytes',
    why: "the installation's name and id key, made once in its life",
  },
  { file: /^src\/store\/postgres\/(link|postgres)\.ts$/, name: 'randomBytes', why: 'names among those of all nodes' },
];

const onlyEnvTouchesTheMachine: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    if (path === 'src/env.ts') return [];
    const { tokens } = scan(text);
    return tokens.flatMap((_, i) =>
      MACHINE.flatMap(([name, words]) => {
        if (!words.every((word, k) => tokens[i + k]?.text === word)) return [];
        // `clock.setTimeout` is the Clock's; `node:crypto`'s are caught where they are imported or called.
        const before = tokens[i - 1]?.text;
        if ((before === '.' || before === '?.') && tokens[i - 2]?.text !== 'crypto') return [];
        if (MACHINE_EXCEPT.some((one) => one.file.test(path) && one.name === name)) return [];
        return [`${path}:${lineOf(text, tokens[i]!.start)}: ${name}`];
      }),
    );
  });

const onlyNetCallsOut: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    if (/^src\/(net|carriers|cli)\//.test(path)) return [];
    const { tokens } = scan(text);
    // A file's own function of that name is not the global one.
    const own = tokens.some(
      (token, i) => token.text === 'fetch' && ['function', 'const', 'let'].includes(tokens[i - 1]?.text ?? ''),
    );
    if (own) return [];
    return tokens.flatMap((token, i) =>
      token.text === 'fetch' && tokens[i + 1]?.text === '(' && !['.', '?.'].includes(tokens[i - 1]?.text ?? '')
        ? [`${path}:${lineOf(text, token.start)}: fetch`]
        : [],
    );
  });

/** API keys: the store's verbs about them, and who may use them. */
const KEYS: { words: string[]; files: RegExp }[] = [
  { words: ['.', 'putKey', '('], files: /^src\/(main\.ts|cli\/)/ },
  { words: ['store', '.', 'keys', '('], files: /^src\/(main\.ts|cli\/|api\/auth)/ },
  { words: ['store', '.', 'directory', '('], files: /^src\/(main|api\/auth)\.ts$/ },
  { words: ['store', '.', 'administer', '('], files: /^src\/(api\/(admin|apply|auth|numbers)|store\/seal)\.ts$/ },
  { words: ['store', '.', 'sessionUse', '('], files: /^src\/api\/auth\.ts$/ },
];

const onlyAuthHandlesKeys: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    const { tokens } = scan(text);
    return KEYS.filter((one) => !one.files.test(path)).flatMap(({ words }) =>
      tokens.flatMap((token, i) =>
        words.every((word, k) => tokens[i + k]?.text === word)
          ? [`${path}:${lineOf(text, token.start)}: ${words.join('')}`]
          : [],
      ),
    );
  });

// --------------------------------------------------------------------------------------------------------------- habits

const noDrawers: Rule = (files) =>
  files
    .filter(({ path }) => /^(src|test|bench|bin)\//.test(path))
    .filter(({ path }) => /(^|[/._-])(utils?|helpers?|common|types?|misc|shared)([/._-]|$)/i.test(path))
    .map(({ path }) => `${path}: a drawer`);

const filesOpenWithAComment: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    const body = text.replace(/^#!.*\n/, '');
    const first = scan(body).comments[0];
    return first && body.slice(0, first.start).trim() === '' && first.text.length >= 40 ? [] : [path];
  });

/** An interface may say what it is at its members instead: a record of options needs no sentence that says so. */
const exportsAreDocumented: Rule = (files) =>
  files.filter(isSource).flatMap(({ path, text }) => {
    const { tokens, comments } = scan(text);
    return tokens.flatMap((token, i) => {
      if (token.kind !== SyntaxKind.ExportKeyword) return [];
      let at = i + 1;
      while (['async', 'default', 'abstract', 'declare'].includes(tokens[at]?.text ?? '')) at++;
      if (!['function', 'class', 'interface'].includes(tokens[at]?.text ?? '')) return [];
      const doc = comments.findLast((one) => one.end <= token.start);
      // The file's own opening comment does not count as the first export's.
      const own = doc?.text.startsWith('/**') && text.slice(doc.end, token.start).trim() === '' && doc !== comments[0];
      const inside =
        tokens[at]?.text === 'interface' &&
        comments.some((one) => one.text.startsWith('/**') && isInside(one, tokens, at));
      return own || inside ? [] : [`${path}:${lineOf(text, token.start)}: ${tokens[at + 1]?.text}`];
    });
  });

/** Whether a comment stands between the braces that open after token `at`. */
function isInside(comment: { start: number }, tokens: Token[], at: number): boolean {
  let open = at;
  while (open < tokens.length && tokens[open]?.text !== '{') open++;
  let close = open;
  for (let depth = 0; close < tokens.length; close++) {
    if (tokens[close]?.text === '{') depth++;
    if (tokens[close]?.text === '}' && --depth === 0) break;
  }
  return (tokens[open]?.start ?? 0) < comment.start && comment.start < (tokens[close]?.start ?? 0);
}

const ignoresHaveReasons: Rule = (files) =>
  files.flatMap(({ path, text }) => {
    if (!path.endsWith('.ts')) return [];
    return scan(text).comments.flatMap((comment) => {
      const where = `${path}:${lineOf(text, comment.start)}`;
      if (/@ts-(ignore|nocheck)|eslint-disable|biome-ignore-all/.test(comment.text)) return [`${where}: never`];
      const asked = /biome-ignore\s+\S+?:\s*(.*)|@ts-expect-error\s*(.*)|biome-ignore(.*)|knip-ignore\s*(.*)/.exec(
        comment.text,
      );
      if (!asked) return [];
      const reason = (asked[1] ?? asked[2] ?? '').replace(/\*\/$/, '').trim();
      return reason.length >= 10 ? [] : [`${where}: without a reason`];
    });
  });

/** Tests may be long where they are tables. */
const MAX_LINES = { source: 700, test: 2000 };

const filesAreOfReadableLength: Rule = (files) =>
  files
    .filter(({ path }) => path.endsWith('.ts'))
    .map(({ path, text }) => ({ path, lines: text.split('\n').length }))
    .filter(({ path, lines }) => lines > (isTest(path) ? MAX_LINES.test : MAX_LINES.source))
    .map(({ path, lines }) => `${path}: ${lines} lines`);

/**
 * docs/GUARANTEES.md names the tests that hold each guarantee, as `file`: "words of its name". Names go out of date; here they
 * do not.
 */
const guaranteesNameTestsThatExist: Rule = (files) =>
  files
    .filter(({ path }) => path === 'docs/GUARANTEES.md')
    .flatMap(({ text }) => {
      const named = [...text.matchAll(/`((?:src|test)\/[^`]+\.ts)`: "([^"]+)"/g)];
      const wrong = named.flatMap(([, path, words]) => {
        const file = [...files, ...repository].find((one) => one.path === path);
        const name = scan(file?.text ?? '').tokens.find(
          (token) => /^['"`}]/.test(token.text) && token.text.includes(words as string),
        );
        return name && (words as string).length >= 20 ? [] : [`${path}: no test "${words}"`];
      });
      const sections = text.split(/^## /m).filter((section) => /^G\d/.test(section));
      const numberOf = (section: string): number => Number.parseInt(section.slice(1), 10);
      const numbers = sections.map(numberOf);
      const missing = Array.from({ length: 20 }, (_, i) => i + 1).filter((number) => !numbers.includes(number));
      const empty = sections.filter((section) => !/`[^`]+\.ts`: "|Not yet held/.test(section));
      return [
        ...wrong,
        ...missing.map((number) => `G${number} is missing`),
        ...empty.map((section) => `G${numberOf(section)} names no test and does not say that it is not yet held`),
      ];
    });

/** Without a server these are left out, so nobody sees where .ci/run does not name them. Torture has a run of its own. */
const testsOfPostgresRunInCi: Rule = (files) => {
  const run = repository.find(({ path }) => path === '.ci/run')?.text ?? '';
  return files
    .filter(
      ({ path, text }) =>
        path.endsWith('.test.ts') && /\bPOSTCARD_TEST_POSTGRES\b|\bSERVER\b.*postgres\.ts'/.test(text),
    )
    .filter(({ path }) => !path.startsWith('test/torture/') && path !== 'test/architecture.test.ts')
    .flatMap(({ path }) => (run.split(/\s+/).includes(path) ? [] : [`${path} is not in .ci/run`]));
};

/** Somebody's own folders, and sections of papers that are not here: nothing of them may be needed to read the repository. */
const ELSEWHERE = [/(^|[\s"'`(])\/(home|Users|root|work|workspace)\/\w/, /\bdesign(\.md)? \d/i];
const UPWARDS = /(?:\.\.\/)+[\w.-]+/g;

const nothingPointsOutside: Rule = (files) =>
  files
    .filter(({ path }) => path !== 'test/architecture.test.ts')
    .flatMap(({ path, text }) =>
      text.split('\n').flatMap((line, i) => {
        const out = [...line.matchAll(UPWARDS)].some(([link]) =>
          posix.normalize(posix.join(posix.dirname(path), link)).startsWith('..'),
        );
        return out || ELSEWHERE.some((one) => one.test(line)) ? [`${path}:${i + 1}: ${line.trim()}`] : [];
      }),
    );

// ------------------------------------------------------------------------------------------------------------ the tests

const TEXT = /\.(ts|js|cjs|mjs|json|md|yaml|yml|sh|html|css)$|^\.ci\/|^LICENSE$|^\.npmrc$/;
const SKIP = new Set(['node_modules', 'data', 'dist', 'coverage', 'package-lock.json']);

function read(dir: string): File[] {
  return readdirSync(dir).flatMap((name) => {
    if (SKIP.has(name) || (name.startsWith('.') && !['.ci', '.npmrc', '.github'].includes(name))) return [];
    const full = join(dir, name);
    if (statSync(full).isDirectory()) return read(full);
    const path = relative(ROOT, full).replaceAll('\\', '/');
    return TEXT.test(path) ? [{ path, text: readFileSync(full, 'utf8') }] : [];
  });
}

const repository = read(dirname(join(ROOT, 'package.json')));
const plant = (path: string, text: string): File[] => [{ path, text }];

function guarantees(held: (number: number) => string): string {
  return Array.from({ length: 20 }, (_, i) => `## G${i + 1} words\n\n${held(i + 1)}\n`).join('\n');
}

/** The rule, what it says, files it must object to (and how often), and files it must not. */
interface Case {
  says: string;
  rule: Rule;
  bad: [string, string, number?][];
  good: [string, string][];
}

const cases: Case[] = [
  {
    says: 'every source file has its room',
    rule: everyFileHasItsRoom,
    bad: [
      ['src/queue/queue.ts', ''],
      ['src/extra.ts', ''],
    ],
    good: [
      ['src/domain/deep/er.ts', ''],
      ['bench/run.ts', ''],
    ],
  },
  {
    says: 'rooms import only what the table allows',
    rule: roomsImportOnlyWhatTheyMay,
    bad: [
      ['src/api/send.ts', "import { createDispatch } from '../dispatch/dispatch.ts';"],
      ['src/api/send.ts', "import type { Carrier } from '../carriers/carrier.ts';"],
      ['src/api/send.ts', "export * from '../store/sqlite/engine.ts';"],
      ['src/api/send.ts', "const x = await import('../net/outbound.ts');"],
      ['src/domain/x.ts', "import { type Store } from '../store/contract.ts';"],
      ['src/domain/x.ts', "import { realClock } from '../env.ts';"],
      ['src/domain/x.ts', "import { type Env, realEnv } from '../env.ts';"],
      ['src/dispatch/x.ts', "import { createMm7Carrier } from '../carriers/mm7/mm7.ts';"],
      ['src/carriers/mm7/mm7.ts', "import type { Store } from '../../store/contract.ts';"],
      ['src/cli/send.ts', "import { startServer } from '../main.ts';"],
      ['src/webhooks/x.ts', "new Worker(new URL('../store/sqlite/thread.ts', import.meta.url))"],
      ['src/net/outbound.ts', "import { x } from '../domain/codes.ts';"],
      ['src/store/sqlite/engine.ts', "import { realClock } from '../../env.ts';"],
      ['src/xml.ts', "import { x } from './domain/codes.ts';"],
      ['src/media/x.ts', "import { x } from '../somewhere/else.ts';"],
      // biome-ignore lint/suspicious/noTemplateCurlyInString: source code in a string
      ['src/media/x.ts', 'const a = `${b + `${c}`}`; import x from "../api/server.ts";'],
    ],
    good: [
      ['src/main.ts', "import { openSqlite } from './store/sqlite/sqlite.ts';"],
      ['src/cli/serve.ts', "import { startServer } from '../main.ts';"],
      ['src/domain/x.ts', "import type { Clock } from '../env.ts';"],
      ['src/domain/x.ts', "import { type Clock, type Env } from '../env.ts';"],
      ['src/dispatch/x.ts', "import type { Carrier } from '../carriers/carrier.ts';"],
      ['src/net/outbound.ts', "import { masked } from '../domain/address.ts';"],
      ['src/store/sqlite/thread.ts', "import { realClock } from '../../env.ts';"],
      ['src/api/x.test.ts', "import { createDispatch } from '../dispatch/dispatch.ts';"],
      ['src/api/x.ts', "// import { createDispatch } from '../dispatch/dispatch.ts';"],
      ['src/api/x.ts', "const words = \"import x from '../dispatch/dispatch.ts'\"; const r = /from '..\\/main.ts'/;"],
      // biome-ignore lint/suspicious/noTemplateCurlyInString: source code in a string
      ['src/api/x.ts', 'const words = `${a} import x from "../dispatch/dispatch.ts"`;'],
    ],
  },
  {
    says: 'relative imports name their file with its extension',
    rule: importsNameTheirFile,
    bad: [['src/api/x.ts', "import { a } from './errors';"]],
    good: [['src/api/x.ts', "import { a } from './errors.ts'; import z from 'zod';"]],
  },
  {
    says: 'packages with a single place are imported only there',
    rule: packagesStayInTheirPlace,
    bad: [
      ['src/webhooks/post.ts', "import { request } from 'undici';"],
      ['src/media/fetch.ts', "import { request } from 'node:https';"],
      ['src/carriers/mm7/mm7.ts', "import { SaxesParser } from 'saxes';"],
      ['src/carriers/mm7/mm7.ts', "import MimeNode from 'nodemailer/lib/mime-node/index.js';"],
      ['src/api/content.ts', "import { Dicer } from '@fastify/busboy';"],
      ['src/dispatch/x.ts', "import { pino } from 'pino';"],
      ['src/dispatch/x.ts', "import { setTimeout } from 'node:timers/promises';"],
      ['src/webhooks/x.ts', "import { DatabaseSync } from 'node:sqlite';"],
      ['src/api/x.ts', "import { createServer, request } from 'node:http';"],
      ['src/api/x.ts', "import http from 'node:http';"],
      ['src/api/x.ts', "export * from 'node:http';"],
    ],
    good: [
      ['src/net/outbound.ts', "import { Agent } from 'undici';"],
      ['src/carriers/mm7/mm7.ts', "import { Pool } from 'undici';"],
      ['src/api/x.ts', "import type { IncomingMessage } from 'node:http';"],
      ['src/api/x.ts', "import { createServer, type IncomingMessage } from 'node:http';"],
      ['src/config.ts', "import { isIP } from 'node:net';"],
      ['src/xml.ts', "import { SaxesParser } from 'saxes';"],
    ],
  },
  {
    says: 'a thread loads what it needs before it works, and nothing else',
    rule: threadsLoadWhatTheyNeed,
    bad: [
      ['src/wiring/sandbox-thread.ts', "import { z } from 'zod';"],
      ['src/wiring/carriers-thread.ts', "import { createApi } from '../api/server.ts';"],
      ['src/main.ts', "export { Agent } from 'undici';"],
    ],
    good: [
      ['src/wiring/sandbox-thread.ts', "import type { z } from 'zod'; const later = import('zod');"],
      [
        'src/main.ts',
        "const door = import('./api/server.ts'); new Worker(new URL('./wiring/sandbox-thread.ts', url));",
      ],
    ],
  },
  {
    says: 'nothing but env.ts touches time, timers and chance',
    rule: onlyEnvTouchesTheMachine,
    bad: [
      ['src/api/x.ts', 'const now = Date.now();'],
      ['src/api/x.ts', 'const now = new Date();'],
      ['src/api/x.ts', 'const now = Math.random() * performance.now();', 2],
      ['src/api/x.ts', 'setTimeout(() => {}, 1); setInterval(f, 2); setImmediate(g);', 3],
      ['src/api/x.ts', "import { randomUUID } from 'node:crypto';"],
      ['src/api/x.ts', 'const id = crypto.randomUUID();'],
      ['src/api/x.ts', 'const later = globalThis.setTimeout;'],
      ['src/store/sqlite/claim.ts', 'setImmediate(flush);'],
    ],
    good: [
      ['src/api/x.ts', 'const text = new Date(at).toISOString(); env.clock.setTimeout(f, 1); env.random.uuid();'],
      ['src/api/x.ts', "// Date.now()\nconst words = 'Date.now() setTimeout';"],
      ['src/env.ts', 'const now = Date.now();'],
      ['src/store/sqlite/thread.ts', 'setImmediate(drain);'],
    ],
  },
  {
    says: 'nobody but net, carriers and the command line calls out',
    rule: onlyNetCallsOut,
    bad: [['src/webhooks/x.ts', 'await fetch(url);']],
    good: [
      ['src/webhooks/x.ts', 'await outbound.fetch(url);'],
      ['src/store/sqlite/read.ts', 'const fetch = (place: number) => q.all(place); fetch(1);'],
      ['src/cli/send.ts', 'await fetch(url);'],
    ],
  },
  {
    says: 'only auth, main and the command line handle API keys',
    rule: onlyAuthHandlesKeys,
    bad: [
      ['src/api/messages.ts', 'const all = await store.keys();'],
      ['src/api/auth.ts', 'await store.putKey(key, false);'],
      ['src/dispatch/x.ts', 'await this.store.keys();'],
      ['src/api/messages.ts', 'await store.directory(-1);'],
      ['src/api/bulks.ts', 'await store.administer([], deed);'],
    ],
    good: [
      ['src/api/apply.ts', 'await store.administer([], deed);'],
      ['src/api/auth.ts', 'const all = await store.keys();'],
      ['src/api/x.ts', 'Object.keys(x); map.keys();'],
      ['src/main.ts', 'await store.putKey(key, true);'],
    ],
  },
  {
    says: 'there are no drawers',
    rule: noDrawers,
    bad: [
      ['src/domain/utils.ts', ''],
      ['src/helpers/x.ts', ''],
      ['src/api/types.ts', ''],
      ['test/test-helpers.ts', ''],
      ['src/common/x.ts', ''],
    ],
    good: [
      ['src/domain/codes.ts', ''],
      ['src/domain/prototypes.ts', ''],
    ],
  },
  {
    says: 'every source file opens with what it is',
    rule: filesOpenWithAComment,
    bad: [
      ['src/api/x.ts', "import x from 'y';\n/** A long comment that comes after the first line of code. */"],
      ['src/api/x.ts', '// too short'],
      ['src/api/x.ts', ''],
    ],
    good: [
      ['src/api/x.ts', '/** What this is and promises, and what may fail in it. */\n'],
      ['src/cli/x.ts', '#!/usr/bin/env node\n/** What this is and promises, and what may fail in it. */\n'],
    ],
  },
  {
    says: 'every exported function, class and interface is documented',
    rule: exportsAreDocumented,
    bad: [
      ['src/api/x.ts', '/** file */\nexport function f() {}'],
      ['src/api/x.ts', '/** file */\n/** A */\nexport interface A {}\nexport class B {}'],
      ['src/api/x.ts', '/** file */\nexport interface A { a: number }\nexport interface B {\n/** b */\nb: number }'],
      ['src/api/x.ts', '/** file */\n/* no doc */\nexport async function f() {}'],
      ['src/api/x.ts', '/** file */\n/** other */\nconst x = 1;\nexport interface A {}'],
    ],
    good: [
      [
        'src/api/x.ts',
        '/** file */\n/** A */\nexport interface A {}\nexport const x = 1;\nexport type { A };\nfunction g() {}',
      ],
    ],
  },
  {
    says: 'what silences a checker says why',
    rule: ignoresHaveReasons,
    bad: [
      ['src/api/x.ts', '// biome-ignore lint/x: no'],
      ['src/api/x.ts', '// @ts-ignore because of a long reason'],
      ['src/api/x.ts', '/* eslint-disable */'],
      ['src/api/x.ts', '// @ts-expect-error'],
    ],
    good: [
      ['src/api/x.ts', '// biome-ignore lint/suspicious/noX: the peer sends it twice'],
      ['src/api/x.ts', '// @ts-expect-error: the typings lack this member'],
      ['src/api/x.ts', "const words = '// @ts-ignore';"],
    ],
  },
  {
    says: 'files are of readable length',
    rule: filesAreOfReadableLength,
    bad: [
      ['src/api/x.ts', '\n'.repeat(701)],
      ['test/x.test.ts', '\n'.repeat(2001)],
    ],
    good: [['src/api/x.ts', '\n'.repeat(600)]],
  },
  {
    says: 'every guarantee names tests that exist, or says that it is not yet held',
    rule: guaranteesNameTestsThatExist,
    bad: [
      ['docs/GUARANTEES.md', guarantees((n) => (n === 7 ? '`test/nowhere.test.ts`: "x"' : 'Not yet held'))],
      ['docs/GUARANTEES.md', guarantees((n) => (n === 7 ? 'words' : 'Not yet held'))],
      ['docs/GUARANTEES.md', guarantees((n) => (n === 7 ? '`src/domain/ids.ts`: "parse"' : 'Not yet held'))],
      ['docs/GUARANTEES.md', guarantees(() => 'Not yet held').replace('## G20', '## H20')],
    ],
    good: [
      ['docs/GUARANTEES.md', guarantees(() => 'Not yet held: x')],
      ['docs/GUARANTEES.md', guarantees(() => '`src/domain/ids.test.ts`: "turn any number below 2^53 into an id"')],
    ],
  },
  {
    says: 'tests that need PostgreSQL run in CI',
    rule: testsOfPostgresRunInCi,
    bad: [
      ['test/conformance/new.test.ts', "import { ownDatabase, SERVER } from '../postgres.ts';"],
      ['src/new.test.ts', '// Needs POSTCARD_TEST_POSTGRES.'],
    ],
    good: [
      ['test/conformance/wall.test.ts', "import { ownDatabase, SERVER } from '../postgres.ts';"],
      ['test/torture/new.test.ts', '// Needs POSTCARD_TEST_POSTGRES.'],
      ['src/new.test.ts', ''],
    ],
  },
  {
    says: 'nothing points outside the repository',
    rule: nothingPointsOutside,
    bad: [
      ['docs/x.md', 'see /home/somebody/notes'],
      ['src/api/x.ts', '// as in design 5'],
      ['README.md', 'see ../notes.md'],
      ['docs/adr/x.md', 'see [notes](../../../notes.md)'],
    ],
    good: [
      ['docs/x.md', 'the design of the house'],
      ['docs/adr/x.md', 'see [the house](../ARCHITECTURE.md) and `../../src/main.ts`'],
    ],
  },
];

describe('architecture', () => {
  it('is read from the files that are there', () => {
    expect(repository.filter(isSource).length).toBeGreaterThan(40);
    for (const [pattern] of ROOMS)
      expect(repository.filter(({ path }) => pattern.test(path)).length, `${pattern}`).toBeGreaterThan(0);
  });

  it('has the rooms that docs/ARCHITECTURE.md lists, and no others', () => {
    const table = repository.find(({ path }) => path === 'docs/ARCHITECTURE.md')?.text ?? '';
    const listed = [...table.matchAll(/^\| (`src\/[^|]+?) \|/gm)].flatMap(([, cell]) => [
      ...(cell ?? '').matchAll(/`(src\/[^`]+)`/g),
    ]);
    const names = listed.map(([, path]) => (path as string).replace(/\/$/, '/x'));
    for (const name of names) expect(roomOf(name), name).not.toBeNull();
    const rooms = new Set(names.map(roomOf));
    for (const [, room] of ROOMS) if (!room.endsWith('contract')) expect(rooms, room).toContain(room);
  });

  for (const { says, rule, bad, good } of cases) {
    it(says, () => {
      expect(rule(repository)).toEqual([]);
    });

    it(`finds planted violations: ${says}`, () => {
      for (const [path, text, times = 1] of bad)
        expect(rule(plant(path, text)), `${path}\n${text}`).toHaveLength(times);
      for (const [path, text] of good) expect(rule(plant(path, text)), `${path}\n${text}`).toEqual([]);
    });
  }
});
