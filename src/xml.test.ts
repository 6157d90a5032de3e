/** The reader against hostile and sloppy documents; the writer against any text, by reading back what it printed. */

import { describe, expect, it } from 'vitest';
import fc from '../test/properties.ts';
import { childOf, element, readXml, text, textOf, XML_DECLARATION, type XmlElement } from './xml.ts';

function root(input: string | Uint8Array): XmlElement {
  const result = readXml(input);
  if (!result.ok) throw new Error(result.fault);
  return result.root;
}

function fault(input: string | Uint8Array, limits?: Parameters<typeof readXml>[1]): string {
  const result = readXml(input, limits);
  return result.ok ? 'no fault' : result.fault;
}

const utf8 = (value: string): Buffer => Buffer.from(value, 'utf8');

function utf16(value: string, order: 'le' | 'be', mark = true): Buffer {
  const bytes = Buffer.from((mark ? '\ufeff' : '') + value, 'utf16le');
  return order === 'le' ? bytes : bytes.swap16();
}

describe('readXml', () => {
  it('gives elements by local name, with namespace, attributes, children and own text', () => {
    const read = root('<a:x xmlns:a="urn:a" one="1" a:two="2"> s<b xmlns="urn:b">in</b>t<![CDATA[<&>]]></a:x>');
    expect(read).toMatchObject({ name: 'x', uri: 'urn:a', attributes: { one: '1', two: '2' }, text: ' st<&>' });
    expect(read.children).toMatchObject([{ name: 'b', uri: 'urn:b', text: 'in', children: [] }]);
  });

  it('leaves namespace declarations out of the attributes, and prefers the attribute without prefix', () => {
    expect(root('<x xmlns:p="urn:p" xmlns="urn:d" p:id="1" id="2"/>').attributes).toEqual({ id: '2' });
    expect(root('<x xmlns:p="urn:p" id="2" p:id="1"/>').attributes).toEqual({ id: '2' });
  });

  it('takes __proto__ and constructor as plain names', () => {
    const read = root('<x __proto__="1" constructor="2"><__proto__>t</__proto__></x>');
    expect(Object.keys(read.attributes)).toEqual(['__proto__', 'constructor']);
    expect(textOf(read, '__proto__')).toBe('t');
    expect(root('<x/>').attributes.toString).toBeUndefined();
  });

  it('finds elements by a path of local names and trims their text', () => {
    const read = root('<x><y><z> one </z><z>two</z></y></x>');
    expect(textOf(read, 'y', 'z')).toBe('one');
    expect(childOf(read, 'y')?.children).toHaveLength(2);
    expect(textOf(read, 'y', 'no', 'z')).toBeUndefined();
    expect(childOf(read)).toBe(read);
  });

  it('reads predefined and numeric entities, in text and attributes', () => {
    const read = root('<x a="&lt;&#65;&#x42;&quot;">&amp;&apos;&gt;&#128512;</x>');
    expect([read.attributes.a, read.text]).toEqual(['<AB"', "&'>\u{1f600}"]);
  });

  const euro = '<x>\u00e9\u20ac</x>';
  const encodings: [string, Uint8Array, string][] = [
    ['UTF-8 without declaration', utf8(euro), '\u00e9\u20ac'],
    ['UTF-8 with byte order mark', utf8(`\ufeff<?xml version="1.0"?>${euro}`), '\u00e9\u20ac'],
    ['UTF-8 declared', utf8(`<?xml version="1.0" encoding="utf-8"?>${euro}`), '\u00e9\u20ac'],
    ['UTF-16 little endian', utf16(`<?xml version="1.0" encoding="UTF-16"?>${euro}`, 'le'), '\u00e9\u20ac'],
    ['UTF-16 big endian', utf16(`<?xml version="1.0" encoding="UTF-16"?>${euro}`, 'be'), '\u00e9\u20ac'],
    ['UTF-16 without byte order mark', utf16(`<?xml version="1.0"?>${euro}`, 'be', false), '\u00e9\u20ac'],
    ['UTF-16 declared, UTF-8 sent', utf8(`<?xml version="1.0" encoding="utf-16"?>${euro}`), '\u00e9\u20ac'],
    [
      'ISO-8859-1, not windows-1252',
      Buffer.from(`<?xml version='1.0' encoding='ISO-8859-1'?><x>\u00e9\u0080</x>`, 'latin1'),
      '\u00e9\u0080',
    ],
    ['US-ASCII', utf8('<?xml version="1.0" encoding="us-ascii"?><x>plain</x>'), 'plain'],
  ];
  it.each(encodings)('decodes %s', (_, bytes, expected) => {
    expect(root(bytes).text).toBe(expected);
  });

  const laughs = Array.from({ length: 9 }, (_, i) => `<!ENTITY l${i + 1} "${`&l${i};`.repeat(10)}">`).join('');
  const hostile: [string, string | Uint8Array, RegExp][] = [
    ['billion laughs', `<!DOCTYPE x [<!ENTITY l0 "ha">${laughs}]><x>&l9;</x>`, /DOCTYPE/],
    [
      'quadratic blow-up',
      `<!DOCTYPE x [<!ENTITY a "${'a'.repeat(50_000)}">]><x>${'&a;'.repeat(50_000)}</x>`,
      /DOCTYPE/,
    ],
    ['external entity', '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', /DOCTYPE/],
    ['external entity over http', '<!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1/">]><x>&e;</x>', /DOCTYPE/],
    ['parameter entity', '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/d">%p;]><x/>', /DOCTYPE/],
    ['external DTD', '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><x/>', /DOCTYPE/],
    ['public DTD', '<!DOCTYPE x PUBLIC "-//X//Y" "http://127.0.0.1/x.dtd"><x/>', /DOCTYPE/],
    ['bare DOCTYPE', '<!DOCTYPE x><x/>', /DOCTYPE/],
    ['DOCTYPE behind a comment', '<!-- c --><!DOCTYPE x><x/>', /DOCTYPE/],
    ['DOCTYPE in UTF-16', utf16('<!DOCTYPE x [<!ENTITY e "1">]><x>&e;</x>', 'le'), /DOCTYPE/],
    ['DOCTYPE that never ends', `<!DOCTYPE x [${'<!-- -->'.repeat(10_000)}`, /./],
    ['lower-case doctype', '<!doctype x><x/>', /./],
    ['DOCTYPE behind the root', '<x/><!DOCTYPE x>', /./],
    ['undefined entity', '<x>&nbsp;</x>', /undefined entity/],
    ['entity named as a member of Object', '<x>&constructor;</x>', /undefined entity/],
    ['entity named __proto__', '<x>&__proto__;</x>', /undefined entity/],
    ['entity without end', `<x>&${'a'.repeat(100_000)}</x>`, /./],
    ['empty entity', '<x>&;</x>', /empty entity/],
    ['NUL by reference', '<x>&#0;</x>', /character entity/],
    ['control character by reference', '<x>&#x1f;</x>', /character entity/],
    ['surrogate by reference', '<x>&#xD800;</x>', /character entity/],
    ['reference beyond Unicode', '<x>&#x110000;</x>', /character entity/],
    ['reference of a thousand digits', `<x>&#${'9'.repeat(1000)};</x>`, /character entity/],
    ['raw NUL', '<x>\0</x>', /disallowed character/],
    ['raw control character in an attribute', '<x a="\u0001"/>', /disallowed character/],
    ['lone surrogate', '<x>\ud800</x>', /./],
    ['65 levels', '<a>'.repeat(65) + '</a>'.repeat(65), /nested deeper than 64/],
    ['200 000 levels', '<a>'.repeat(200_000), /nested deeper than 64/],
    ['200 000 levels with a prefix each', '<p:a xmlns:p="u">'.repeat(50_000), /nested deeper than 64/],
    ['20 001 elements', `<x>${'<y/>'.repeat(20_000)}</x>`, /more than 20000 elements/],
    [
      '100 000 attributes',
      `<x ${Array.from({ length: 100_000 }, (_, i) => `a${i}=""`).join(' ')}/>`,
      /more than 64 attr/,
    ],
    ['65 namespaces', `<x ${Array.from({ length: 65 }, (_, i) => `xmlns:a${i}="u"`).join(' ')}/>`, /more than 64 attr/],
    ['attribute of 2 MB', `<x a="${'a'.repeat(2_000_000)}"/>`, /longer than/],
    ['name of 2 MB', `<${'a'.repeat(2_000_000)}/>`, /longer than/],
    ['text of 2 MB', `<x>${'a'.repeat(2_000_000)}</x>`, /longer than/],
    ['attribute twice', '<x a="1" a="2"/>', /duplicate attribute/],
    ['attribute twice by namespace', '<x xmlns:p="u" xmlns:q="u" p:a="1" q:a="2"/>', /duplicate attribute/],
    ['unbound prefix', '<p:x/>', /unbound namespace prefix/],
    ['prefix of an attribute unbound', '<x p:a=""/>', /unbound namespace prefix/],
    ['xmlns prefix bound', '<x xmlns:xmlns="u"/>', /./],
    ['xml prefix bound elsewhere', '<x xmlns:xml="u"/>', /./],
    ['two colons', '<a:b:c xmlns:a="u"/>', /./],
    ['attribute without quotes', '<x a=1/>', /./],
    ['attribute without value', '<x a/>', /./],
    ['less-than in an attribute', '<x a="<"/>', /disallowed character/],
    ['wrong end tag', '<x></y>', /unexpected close tag|unmatched/],
    ['opened twice', '<x><f><f></f></x>', /unexpected close tag|unmatched/],
    ['end tag too many', '<x/></x>', /./],
    ['two roots', '<x/><y/>', /./],
    ['text behind the root', '<x/>more', /./],
    ['text before the root', 'more<x/>', /./],
    ['no root', '<!-- only a comment -->', /must contain a root/],
    ['nothing', '', /must contain a root/],
    ['blanks', '   \n', /must contain a root/],
    ['cut off in a tag', '<x><y a="', /unclosed tag|end/],
    ['cut off in CDATA', '<x><![CDATA[abc', /./],
    ['cut off in a comment', '<x><!-- abc', /./],
    ['double hyphen in a comment', '<x><!-- a -- b --></x>', /malformed comment/],
    ['declaration not at the start', ' <?xml version="1.0"?><x/>', /./],
    ['end of CDATA in text', '<x>]]></x>', /./],
    ['HTML', '<html><body><p>503 Service Unavailable<br></body></html>', /./],
    ['JSON', '{"a":1}', /./],
    ['not UTF-8', Buffer.from([0x3c, 0x78, 0x3e, 0xff, 0xfe, 0x3c, 0x2f, 0x78, 0x3e]), /not valid UTF-8/],
    ['overlong UTF-8', Buffer.from([0x3c, 0x78, 0xc0, 0xbc, 0x2f, 0x3e]), /not valid UTF-8/],
    ['half a UTF-16 character', Buffer.concat([utf16('<x/>', 'le'), Buffer.from([0x20])]), /not valid UTF-16/],
    ['lone surrogate in UTF-16', utf16('<x>\ud800</x>', 'le'), /not valid UTF-16/],
    ['not US-ASCII as declared', utf8('<?xml version="1.0" encoding="US-ASCII"?><x>\u00e9</x>'), /not US-ASCII/],
    ['UTF-7', utf8('<?xml version="1.0" encoding="UTF-7"?><x>+ADw-y/+AD4-</x>'), /encoding UTF-7/],
    ['EBCDIC', utf8('<?xml version="1.0" encoding="cp037"?><x/>'), /encoding CP037/],
    ['encoding without a name', utf8('<?xml version="1.0" encoding=""?><x/>'), /encoding/],
    ['UTF-32', Buffer.from([0xff, 0xfe, 0, 0, 0x3c, 0, 0, 0, 0x78, 0, 0, 0]), /./],
    ['gzip', Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), /./],
    ['random bytes', Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 167) & 255)), /./],
  ];
  it.each(hostile)('refuses %s', (_, input, expected) => {
    const found = fault(input);
    expect(found).not.toBe('no fault');
    expect(found).toMatch(expected);
    expect(found.length).toBeLessThanOrEqual(200);
    // A fault leaves nothing behind for the next document.
    expect(root('<next>fine</next>').text).toBe('fine');
  });

  it('takes exactly its limits', () => {
    expect(fault('<a>'.repeat(64) + '</a>'.repeat(64))).toBe('no fault');
    expect(fault(`<x>${'<y/>'.repeat(19_999)}</x>`)).toBe('no fault');
    expect(fault(`<x ${Array.from({ length: 64 }, (_, i) => `a${i}=""`).join(' ')}/>`)).toBe('no fault');
    expect(fault('<abc/>', { size: 6 })).toBe('no fault');
    expect(fault('<abcd/>', { size: 6 })).toBe('longer than 6 bytes');
  });

  it('reads a document that says XML 1.1 by the rules of 1.0', () => {
    expect(fault('<?xml version="1.1"?><x>&#1;</x>')).toMatch(/character entity/);
  });

  it('reads plain documents by its short way as saxes does by the long one', () => {
    // A comment anywhere sends the whole document the long way.
    const long = (document: string): string => document.replace(/^\ufeff?(?:<\?xml[^>]*\?>)?/, '$&<!---->');
    const agree = (document: string): boolean => {
      const short = readXml(document);
      const full = readXml(long(document));
      expect(short.ok, document).toBe(full.ok);
      if (short.ok && full.ok) expect(short.root, document).toEqual(full.root);
      return short.ok;
    };
    const name = fc.constantFrom('a', 'b', 'p:a', 'p:b', 'q:a', 'r:a', 'xml:a', 'xmlns:a', 'a:b:c', '__proto__', 'é');
    const attribute = fc
      .tuple(
        fc.constantFrom(' ', '\n', '  ', ''),
        fc.constantFrom(
          'a',
          'b',
          'p:a',
          'q:a',
          'xml:lang',
          'xmlns',
          'xmlns:p',
          'xmlns:q',
          'xmlns:xml',
          'xmlns:xmlns',
          'xmlns:Xml2',
          'r:a',
          '__proto__',
        ),
        fc.constantFrom('=', ' = '),
        fc.constantFrom(
          '""',
          '"u"',
          '"v"',
          '" u"',
          "'u'",
          '"a>b"',
          '"a\nb"',
          '"&lt;"',
          '"http://www.w3.org/XML/1998/namespace"',
          '"http://www.w3.org/2000/xmlns/"',
          'u',
        ),
      )
      .map((pieces) => pieces.join(''));
    const attributes = fc.array(attribute, { maxLength: 4 }).map((list) => list.join(''));
    const words = fc.constantFrom(
      '',
      'text',
      ' ',
      '\n',
      '>',
      ']]',
      ']]>',
      '\r\n',
      '&amp;',
      '\u00e9',
      '\u{1f600}',
      '\u0085',
      '\u2028',
      '\ufffe',
    );
    const { node } = fc.letrec<{ node: string }>((tie) => ({
      node: fc
        .tuple(
          name,
          attributes,
          fc.constantFrom('', ' '),
          fc.array(fc.oneof({ maxDepth: 4 }, words, tie('node')), { maxLength: 3 }),
          fc.constantFrom('', ' ', '/'),
        )
        .map(([tag, list, blank, inner, end]) =>
          end === '/' ? `<${tag}${list}${blank}/>` : `<${tag}${list}${blank}>${inner.join('')}</${tag}${end}>`,
        ),
    }));
    const heads = fc.constantFrom(
      '',
      '',
      '<?xml version="1.0"?>',
      '<?xml version="1.0" encoding="UTF-8"?>\n',
      ' ',
      '\ufeff',
      '<?xml version="1.1"?>',
      '<?pi?>',
    );
    const scope = fc.constantFrom('', ' xmlns:p="u" xmlns:q="v"', ' xmlns="d" xmlns:p="u" xmlns:q="u"');
    const whole = fc
      .tuple(heads, scope, fc.array(fc.oneof(node, words), { maxLength: 4 }), fc.constantFrom('', '\n', 'x', '<a/>'))
      .map(([head, declared, inner, tail]) => `${head}<root${declared}>${inner.join('')}</root>${tail}`);
    const cut = fc
      .tuple(whole, fc.nat(), fc.nat(3), fc.constantFrom('', '<', '>', '/', '"', ' ', ':', '=', 'a'))
      .map(([document, at, removed, put]) => {
        const index = at % (document.length + 1);
        return document.slice(0, index) + put + document.slice(index + removed);
      });
    let good = 0;
    fc.assert(
      fc.property(fc.oneof(whole, cut), (document) => {
        if (agree(document)) good++;
      }),
      { numRuns: 5000 },
    );
    expect(good).toBeGreaterThan(500);
    const namespaces = Array.from({ length: 40 }, (_, i) => `<n xmlns:p${i}="u${i}">`);
    expect(agree(`${namespaces.join('')}<p0:x/><p39:x/>${'</n>'.repeat(40)}`)).toBe(true);
    expect(agree(`<x${' a=""'.repeat(200_000)}/>`)).toBe(false);
  });

  it('answers any text and any bytes without throwing', () => {
    const markup = fc.array(
      fc.constantFrom(
        '<',
        '>',
        '/',
        '&',
        ';',
        '"',
        "'",
        '=',
        ' ',
        'a',
        ':',
        '!',
        '[',
        ']',
        '?',
        '-',
        'xmlns',
        '<![CDATA[',
        '<!--',
        '<?xml ',
        '&#x',
        '\0',
      ),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(markup, (pieces) => typeof readXml(pieces.join('')).ok === 'boolean'),
      { numRuns: 3000 },
    );
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => typeof readXml(bytes).ok === 'boolean'));
  });
});

/** What XML 1.0 can carry; the rest comes back as U+FFFD. */
function carried(value: string): string {
  return value.toWellFormed().replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd');
}

describe('element and text', () => {
  it('print what they are told, and leave out what is absent', () => {
    const inner = element('b', { one: 1, none: undefined, two: 'a"<\n' });
    expect(element('a:x', null, text('1 < 2 & 3'), null, false, undefined, inner, text(5))).toBe(
      '<a:x>1 &lt; 2 &amp; 3<b one="1" two="a&quot;&lt;&#10;"/>5</a:x>',
    );
  });

  it('refuse names that are none', () => {
    for (const name of ['', 'a b', '1a', 'a>', 'a:b:c', 'a/', '<a', 'a\n', ':a', 'a:', 'é'.repeat(200)]) {
      expect(() => element(name, null)).toThrow(TypeError);
      expect(() => element('x', { [name]: '' })).toThrow(TypeError);
    }
  });

  it('print documents that read back as they were, whatever text and attribute values are given', () => {
    const any = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string(),
      fc.constantFrom(']]>', '\r\n', '\ud800', '\0', '-->'),
    );
    fc.assert(
      fc.property(any, any, (inner, attribute) => {
        const read = root(XML_DECLARATION + element('x', { a: attribute }, text(inner), element('y', null)));
        expect(read.attributes.a).toBe(carried(attribute));
        expect(read.text).toBe(carried(inner));
        expect(read.children.map((child) => child.name)).toEqual(['y']);
      }),
      { numRuns: 2000 },
    );
  });
});
