/**
 * What costs more than it weighs, for everything that reads text: S8 (XML, 60 documents with their cost), S12 (SMIL, 50 documents),
 * S14 (regular expressions: every one in the product against 100 KB of what it dislikes most). What XML and SMIL may say is in
 * `src/xml.test.ts` and `src/domain/smil.test.ts`.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createContext, Script } from 'node:vm';
import { SyntaxKind } from 'typescript/unstable/ast';
import { createScanner } from 'typescript/unstable/ast/scanner';
import { describe, expect, it } from 'vitest';
import { makeSmil, printSmil, readSmil } from '../../src/domain/smil.ts';
import { readXml, type XmlElement } from '../../src/xml.ts';
import { costOf } from './cost.ts';

/** Most of these take under 20 ms; what is quadratic in 1 MiB takes minutes. */
const SOON_MS = 1500;
const MEMORY = 128 * 1024 * 1024;
const MIB = 1024 * 1024;

const fill = (one: string, size = MIB - 100): string => one.repeat(Math.floor(size / one.length));
const lol = (levels: number): string =>
  Array.from({ length: levels }, (_, i) => `<!ENTITY l${i} "${i === 0 ? 'lol' : `&l${i - 1};`.repeat(10)}">`).join('');

/** Near 1 MiB each where size is the attack. */
const XML: [string, string | Buffer][] = [
  ['an external entity', '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>'],
  ['an external entity by http', '<!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1:1/">]><x>&e;</x>'],
  ['a public entity', '<!DOCTYPE x [<!ENTITY e PUBLIC "p" "http://127.0.0.1:1/">]><x>&e;</x>'],
  ['a parameter entity', '<!DOCTYPE x [<!ENTITY % e SYSTEM "http://127.0.0.1:1/"> %e;]><x/>'],
  ['an external subset', '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>'],
  ['a DOCTYPE with nothing in it', '<!DOCTYPE x><x/>'],
  ['a DOCTYPE in lower case', '<!doctype x><x/>'],
  ['a DOCTYPE behind a comment', '<!-- x --><!DOCTYPE x><x/>'],
  ['a DOCTYPE behind a processing instruction', '<?x y?><!DOCTYPE x><x/>'],
  ['a DOCTYPE behind a byte order mark', Buffer.from('\ufeff<!DOCTYPE x><x/>')],
  ['a DOCTYPE in UTF-16', Buffer.from('\ufeff<!DOCTYPE x [<!ENTITY e "e">]><x>&e;</x>', 'utf16le')],
  ['a DOCTYPE inside the root', '<x><!DOCTYPE x></x>'],
  ['a DOCTYPE without end', `<!DOCTYPE x [${fill('<')}`],
  ['a billion laughs', `<!DOCTYPE x [${lol(10)}]><x>&l9;</x>`],
  ['a quadratic blow-up', `<!DOCTYPE x [<!ENTITY a "${fill('a', 50_000)}">]><x>${fill('&a;', 50_000)}</x>`],
  ['an entity in itself', '<!DOCTYPE x [<!ENTITY a "&a;">]><x>&a;</x>'],
  ['entities in each other', '<!DOCTYPE x [<!ENTITY a "&b;"><!ENTITY b "&a;">]><x>&a;</x>'],
  ['attributes by default', '<!DOCTYPE x [<!ATTLIST x a CDATA "b">]><x/>'],
  ['an entity that nobody declared', '<x>&e;</x>'],
  ['an entity in an attribute', '<x a="&e;"/>'],
  ['a flood of references', `<x>${fill('&#65;')}</x>`],
  ['a flood of references in hex', `<x>${fill('&#x41;')}</x>`],
  ['a flood of predefined entities', `<x>${fill('&amp;')}</x>`],
  ['a flood of entities in an attribute', `<x a="${fill('&lt;')}"/>`],
  ['references without end', `<x>${fill('&#')}</x>`],
  ['ampersands', `<x>${fill('&')}</x>`],
  ['a reference of a million digits', `<x>&#${fill('0')}65;</x>`],
  ['an entity with a name of a million', `<x>&${fill('e')};</x>`],
  ['elements inside each other', fill('<a>')],
  ['elements inside each other, closed', `${fill('<a>', MIB / 2)}${fill('</a>', MIB / 2)}`],
  ['elements beside each other', `<x>${fill('<a/>')}</x>`],
  ['elements that all differ', `<x>${Array.from({ length: 90_000 }, (_, i) => `<a${i}/>`).join('')}</x>`],
  ['a namespace at each level', fill('<a xmlns="u">')],
  ['a prefix at each level', Array.from({ length: 60_000 }, (_, i) => `<p${i}:a xmlns:p${i}="u">`).join('')],
  ['prefixes that look far up', `${'<a>'.repeat(60)}${fill('<p:b/>')}`],
  [
    'prefixes of 60 levels, looked up again and again',
    `${Array.from({ length: 60 }, (_, i) => `<a xmlns:p${i}="u">`).join('')}${fill('<p0:b/>')}`,
  ],
  ['attributes', `<x${fill(' a=""')}/>`],
  ['attributes that all differ', `<x ${Array.from({ length: 90_000 }, (_, i) => `a${i}=""`).join(' ')}/>`],
  [
    '60 attributes on each of many',
    `<x>${fill(`<a ${Array.from({ length: 60 }, (_, i) => `a${i}="b"`).join(' ')}/>`)}</x>`,
  ],
  [
    'namespaced attributes that clash late',
    `<x>${fill(`<a ${Array.from({ length: 30 }, (_, i) => `xmlns:p${i}="u${i}" p${i}:a=""`).join(' ')}/>`)}</x>`,
  ],
  ['an attribute of a million', `<x a="${fill('a')}"/>`],
  ['an attribute without end', `<x a="${fill('a')}`],
  ['quotes', `<x a="${fill("'")}"/>`],
  ['a name of a million', `<${fill('a')}/>`],
  ['a tag without end', `<x ${fill(' ')}`],
  ['a text of a million', `<x>${fill('a')}</x>`],
  ['blanks', fill(' ')],
  ['line ends', `<x>${fill('\r\n')}</x>`],
  ['carriage returns', `<x>${fill('\r')}</x>`],
  ['opening brackets', fill('<')],
  ['closing brackets', `<x>${fill('>')}</x>`],
  ['almost the end of CDATA', `<x><![CDATA[${fill(']]')}`],
  ['sections of CDATA', `<x>${fill('<![CDATA[]]>')}</x>`],
  ['a section of CDATA in another', `<x>${fill('<![CDATA[')}</x>`],
  ['almost the end of a comment', `<x><!--${fill('- ')}`],
  ['comments', `<x>${fill('<!---->')}</x>`],
  ['a comment of hyphens', `<x><!--${fill('-')}--></x>`],
  ['processing instructions', `<x>${fill('<?a?>')}</x>`],
  ['almost the end of an instruction', `<x><?a ${fill('?')}`],
  ['a declaration without end', `<?xml ${fill('version="1.0" ')}`],
  ['an encoding without end', Buffer.from(`<?xml version="1.0" encoding="${fill('a')}"?><x/>`)],
  ['closing tags', `<x>${fill('</x>')}`],
  ['combining marks', `<x>${fill('a\u0301')}</x>`],
  ['characters beyond the first plane', `<x>${fill('\u{1f600}')}</x>`],
];

describe('S8: an XML document', () => {
  it(`is tried in ${XML.length} ways`, () => {
    expect(new Set(XML.map(([name]) => name)).size).toBe(XML.length);
    expect(XML.length).toBeGreaterThanOrEqual(60);
  });

  it.each(XML)('with %s costs little, and fetches nothing', (_, document) => {
    const before = process.memoryUsage().rss;
    const { result: read, ms } = costOf(() => readXml(document));
    expect(ms).toBeLessThan(SOON_MS);
    expect(process.memoryUsage().rss - before).toBeLessThan(MEMORY);
    if (/<!doctype|ENTITY|&e;/i.test(String(document).replaceAll('\0', '').slice(0, 200))) expect(read.ok).toBe(false);
    if (!read.ok) expect(read.fault.length).toBeLessThanOrEqual(200);
  });
});

const slide = (inner: string): string => `<smil><body><par>${inner}</par></body></smil>`;
const EVIL = 'http://evil.example/x';
const SCHEMES = [
  'http:',
  'https:',
  'HTTP:',
  '//',
  'ftp:',
  'file:///',
  'javascript:',
  'data:text/html,',
  'rtsp:',
  'tel:',
  'mms:',
  'sms:',
];
/** 50 presentations; a part named a.png stands beside each. */
const SMIL: string[] = [
  ...SCHEMES.map((scheme) => slide(`<img src="${scheme}//evil.example/x"/><img src="a.png"/>`)),
  ...[
    '&#104;ttp://evil.example/x',
    'ht&#9;tp://evil.example/x',
    ' http://evil.example/x',
    '\u0000'.length > 0 ? 'cid:http://evil.example/x' : '',
    'cid:cid:a.png',
    '../a.png',
    '/a.png',
    '\\\\evil.example\\x',
    'a.png#http://evil.example/x',
    'a.png?http://evil.example/x',
  ].map((src) => slide(`<img src="${src}"/><img src="a.png"/>`)),
  ...[
    'href',
    'longdesc',
    'xlink:href',
    'data',
    'codebase',
    'profile',
    'poster',
    'action',
    'style',
    'onload',
    'onclick',
    'onbegin',
  ].map((name) => slide(`<img xmlns:xlink="http://www.w3.org/1999/xlink" src="a.png" ${name}="${EVIL}"/>`)),
  ...[
    'script',
    'a',
    'area',
    'iframe',
    'object',
    'embed',
    'prefetch',
    'switch',
    'animate',
    'textstream',
    'brush',
    'link',
  ].map((name) => slide(`<img src="a.png"/><${name} src="${EVIL}" href="${EVIL}">${EVIL}</${name}>`)),
  `<smil><head><meta http-equiv="refresh" content="0;url=${EVIL}"/><link href="${EVIL}"/></head><body><par><img src="a.png"/></par></body></smil>`,
  `<smil><head><layout type="text/css">@import "${EVIL}"; .x{background:url(${EVIL})}</layout></head><body><par><img src="a.png"/></par></body></smil>`,
  `<?xml-stylesheet href="${EVIL}"?><smil><body><par><img src="a.png"/></par></body></smil>`,
  slide(`<img src="a.png"/><!-- ${EVIL} --><![CDATA[<img src="${EVIL}"/>]]>`),
  slide(
    '<img src="a.png" region="&quot;/&gt;&lt;script&gt;" dur="&#10;5s" alt="&#13;&#10;Content-Type: text/html&#13;&#10;"/>',
  ),
  `<smil><head><layout><region id="Image" src="${EVIL}" backgroundColor="url(${EVIL})" left="expression(${EVIL})"/></layout></head><body><par><img src="a.png" region="Image"/></par></body></smil>`,
];

function everyAttribute(root: XmlElement): [string, string][] {
  return [...Object.entries(root.attributes), ...root.children.flatMap(everyAttribute)];
}

describe('S12: a presentation', () => {
  const parts = [{ contentId: 'a.png', contentType: 'image/png' }];

  it(`is tried in ${SMIL.length} ways`, () => {
    expect(new Set(SMIL).size).toBe(SMIL.length);
    expect(SMIL.length).toBeGreaterThanOrEqual(50);
  });

  it.each(SMIL.map((source, i): [number, string] => [i + 1, source]))(
    '(%i) travels without any address and anything that runs',
    (_, source) => {
      const read = readSmil(source);
      const printed = read.ok ? printSmil(read.smil, (src) => (src === 'a.png' ? parts[0]! : null)) : null;
      // What cannot travel is made anew from the parts.
      const document = printed ?? makeSmil(parts);
      const wire = readXml(document);
      if (!wire.ok) throw new Error(wire.fault);
      const attributes = everyAttribute(wire.root);
      expect(attributes.filter(([name]) => name === 'src')).toEqual([['src', 'cid:a.png']]);
      expect(attributes.filter(([name]) => /^on|href|style|poster|data|http-equiv/i.test(name))).toEqual([]);
      // Words for people may say what they like; nothing else may look like an address or a script.
      const rest = attributes.filter(([name]) => name !== 'alt' && name !== 'content');
      expect(rest.filter(([, value]) => /evil|url\(|:\/\/|javascript|[\r\n<>]/i.test(value))).toEqual([]);
      expect(document).not.toMatch(/<(script|a|iframe|object|embed|link|switch|animate|prefetch|\?xml-stylesheet)\b/i);
    },
  );
});

// ------------------------------------------------------------------------------------------------ regular expressions

const SRC = fileURLToPath(new URL('../../src', import.meta.url));
const LENGTH = 100_000;
/** Of this thread's time. A linear one takes 0.1 ms, or 40 times that, a quadratic one 5 s and more: a tenth of that on any machine. */
const REGEX_MS = 500;
/** On the wall, for all texts of one pattern together, which is only to save time: what is broken off is looked at alone. */
const TOGETHER_MS = 8_000;
/**
 * On the wall, after which one alone is broken off for the first time, and at the most. A machine that is busy gives this thread
 * little meanwhile: then it is tried anew for twice as long, until it has had what decides.
 */
const ALONE_MS = 2 * REGEX_MS;
const ALONE_MOST_MS = 64 * ALONE_MS;

function sources(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile() && file.name.endsWith('.ts') && !file.name.endsWith('.test.ts'))
    .map((file) => join(file.parentPath, file.name))
    .sort();
}

const ENDS_VALUE = new Set<SyntaxKind>([
  SyntaxKind.Identifier,
  SyntaxKind.PrivateIdentifier,
  SyntaxKind.NumericLiteral,
  SyntaxKind.StringLiteral,
  SyntaxKind.NoSubstitutionTemplateLiteral,
  SyntaxKind.TemplateTail,
  SyntaxKind.RegularExpressionLiteral,
  SyntaxKind.CloseParenToken,
  SyntaxKind.CloseBracketToken,
  SyntaxKind.CloseBraceToken,
  SyntaxKind.ThisKeyword,
]);

/** The regular expressions of a file, as they stand there. */
function regexesOf(text: string): string[] {
  const scanner = createScanner(true, undefined, text);
  const found: string[] = [];
  const templates: number[] = [];
  let last: SyntaxKind | undefined;
  for (;;) {
    let kind = scanner.scan();
    if (kind === SyntaxKind.EndOfFile) return found;
    if (kind === SyntaxKind.SlashToken || kind === SyntaxKind.SlashEqualsToken) {
      if (last === undefined || !ENDS_VALUE.has(last)) kind = scanner.reScanSlashToken();
    } else if (kind === SyntaxKind.TemplateHead) templates.push(0);
    else if (kind === SyntaxKind.OpenBraceToken && templates.length > 0) templates[templates.length - 1]!++;
    else if (kind === SyntaxKind.CloseBraceToken && templates.length > 0 && templates[templates.length - 1]!-- === 0) {
      kind = scanner.reScanTemplateToken(false);
      if (kind === SyntaxKind.TemplateTail) templates.pop();
      else templates[templates.length - 1] = 0;
    }
    if (kind === SyntaxKind.RegularExpressionLiteral) found.push(scanner.getTokenText());
    last = kind;
  }
}

/** Long texts made of what a pattern is made of, ending in what it cannot take. */
function disliked(pattern: string): string[] {
  const plain = pattern
    .replace(/\\[dD]/g, '1')
    .replace(/\\[wW]/g, 'a')
    .replace(/\\[sS]/g, ' ')
    .replace(/\\[pP]\{[^}]*\}/g, 'a')
    .replace(/\\x([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replace(/\\u([0-9a-f]{4})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  const own = [...new Set(plain)].filter((char) => !'^$*+?{}()|\\'.includes(char)).slice(0, 24);
  const words = plain.match(/[\w:/.<>="' -]{2,20}/g)?.slice(0, 6) ?? [];
  const units = [
    ...new Set([
      'a',
      '1',
      ' ',
      '\t',
      '\n',
      '/',
      '.',
      '=',
      '"',
      ',',
      ':',
      '-',
      'a1',
      ' a',
      'a ',
      '" ',
      ...own,
      ...words,
    ]),
  ];
  return units.flatMap((unit) => {
    const long = unit.repeat(LENGTH / unit.length);
    return [`${long}\u0000`, `${words[0] ?? ''}${long}!`];
  });
}

/** Null, or how it failed. */
function slowness(regex: string): string | null {
  const body = regex.slice(1, regex.lastIndexOf('/'));
  const texts = disliked(body);
  const script = new Script(
    `for (; at < texts.length; at++) { ${regex}.exec(texts[at]); texts[at].replace(${regex}, ''); }`,
  );
  const context = createContext({ texts, at: 0 });
  try {
    script.runInContext(context, { timeout: TOGETHER_MS });
    return null;
  } catch {
    // All together were slow: which one, and is it slow alone?
    const slow = texts.find((text) => isSlow(regex, text));
    return slow === undefined ? null : `${regex} on ${JSON.stringify(slow.slice(0, 12))} x ${slow.length}`;
  }
}

/** By what it costs this thread alone, however long that takes on the wall. */
function isSlow(regex: string, text: string): boolean {
  const alone = new Script(`${regex}.exec(text); text.replace(${regex}, '')`);
  for (let timeout = ALONE_MS; timeout <= ALONE_MOST_MS; timeout *= 2) {
    const { ms, result } = costOf(() => {
      try {
        alone.runInContext(createContext({ text }), { timeout });
        return 'done';
      } catch (error) {
        // One that backtracks may run out of stack first.
        return (error as { code?: string }).code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' ? 'broken off' : 'fell';
      }
    });
    if (result === 'fell' || ms >= REGEX_MS) return true;
    if (result === 'done') return false;
  }
  throw new Error(`the machine gave ${regex} less than ${REGEX_MS} ms in ${ALONE_MOST_MS / 1000} s`);
}

/** Patterns that only ever see what is short, and where that is bounded. */
const SHORT: [RegExp, string][] = [
  [/\/+$/, "the prefix of POSTCARD_CONTENT_STORE: 200 characters, the operator's own"],
];

describe('S14: a regular expression', () => {
  it('that backtracks is found: the case that shows that the others can fail', { timeout: 240_000 }, () => {
    expect(slowness('/^(a+)+$/')).toMatch(/\^\(a\+\)\+\$/);
    expect(slowness(String.raw`/\s+$/`)).not.toBe(null);
    expect(slowness(String.raw`/^\d+$/`)).toBe(null);
  });

  it('takes no longer than linear time on 100 KB of anything, wherever it stands in the product', {
    timeout: 240_000,
  }, () => {
    const all = new Map<string, string>();
    for (const file of sources(SRC)) {
      const path = relative(SRC, file).replaceAll('\\', '/');
      // The command line reads what its own user typed.
      if (path.startsWith('cli/')) continue;
      for (const regex of regexesOf(readFileSync(file, 'utf8'))) if (!all.has(regex)) all.set(regex, path);
    }
    expect(all.size).toBeGreaterThan(100);
    const slow = [...all].flatMap(([regex, path]) => {
      if (SHORT.some(([known]) => `/${known.source}/${known.flags}` === regex)) return [];
      const found = slowness(regex);
      return found === null ? [] : [`${path}: ${found}`];
    });
    expect(slow).toEqual([]);
  });
});
