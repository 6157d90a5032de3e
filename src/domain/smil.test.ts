/** Presentations: what is read, what of it travels, and what is made where there is none. */

import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { childOf, readXml, type XmlElement } from '../xml.ts';
import { makeSmil, type Presentation, printSmil, readSmil, type Shown, srcFaults, srcsOf } from './smil.ts';

function sound(source: string): Presentation {
  const read = readSmil(source);
  if (!read.ok) throw new Error(read.faults.join('; '));
  return read.smil;
}

const types: Record<string, string> = {
  png: 'image/png',
  txt: 'text/plain; charset=utf-8',
  mp4: 'video/mp4',
  amr: 'audio/amr',
};
const typeOf = (src: string) => types[src.split('.').at(-1) as string] ?? 'application/pdf';
/** As though there were a part for each `src` that does not say "gone". */
const all = (src: string): Shown | null =>
  src.startsWith('gone') ? null : { contentId: src, contentType: typeOf(src) };
const printed = (source: string, partOf = all): string | null => printSmil(sound(source), partOf);
const body = (inner: string): string => `<smil><body>${inner}</body></smil>`;
/** What stands between <body> and </body>. */
const slides = (source: string): string => /<body>(.*)<\/body>/s.exec(printed(source) as string)?.[1] as string;

function elementsOf(root: XmlElement): XmlElement[] {
  return [root, ...root.children.flatMap(elementsOf)];
}

describe('a presentation', () => {
  it('travels as it was where it is made of what handsets know', () => {
    const inner =
      '<head><meta name="author" content="A &amp; B"/><layout><root-layout width="160px" height="120px" backgroundColor="#FFFFFF"/>' +
      '<region id="Image" left="0" top="0%" width="100%" height="80%" fit="meet" z-index="1"/></layout></head>' +
      '<body><par id="p1" dur="5s"><img src="cid:a.png" region="Image" alt="&lt;&quot;&gt;" begin="0s" end="5000ms"/>' +
      '<text src="cid:b.txt"><param name="foreground-color" value="#000000"/></text></par></body>';
    expect(printed(`<smil>${inner.replaceAll('cid:', '')}</smil>`)).toBe(
      `<?xml version="1.0" encoding="UTF-8"?><smil>${inner}</smil>`,
    );
  });

  it('loses what no handset knows, and whatever could do harm', () => {
    const source =
      '<?xml-stylesheet href="http://evil.example/x"?><smil xmlns:xlink="http://www.w3.org/1999/xlink" onload="x()">' +
      '<script src="http://evil.example/x.js"/><head><meta http-equiv="refresh" content="0"/><switch><layout/></switch></head>' +
      '<body onclick="x()" style="x"><par dur="5s" onbegin="x" xlink:href="http://evil.example/"><img src="a.png" xlink:href="http://evil.example/" ' +
      'onload="x" region="javascript:x"/><animate src="b.png"/><a href="http://evil.example/"><img src="c.png"/></a>' +
      '<brush color="x"/><![CDATA[<img src="d.png"/>]]></par><excl><par><img src="e.png"/></par></excl></body></smil>';
    expect(printed(source)).toBe(
      '<?xml version="1.0" encoding="UTF-8"?><smil><head><meta content="0"/><layout><root-layout width="100%" height="100%"/>' +
        '<region id="Image" left="0" width="100%" top="0" height="100%" fit="meet"/></layout></head>' +
        '<body><par dur="5s"><img src="cid:a.png" region="Image"/></par></body></smil>',
    );
  });

  it('is a sequence of slides, however it is nested', () => {
    expect(slides(body('<seq><par><img src="a.png"/></par><seq><text src="b.txt"/></seq></seq>'))).toBe(
      '<par><img src="cid:a.png" region="Image"/></par><par><text src="cid:b.txt" region="Text"/></par>',
    );
    expect(
      slides(body('<par dur="2s"><par dur="1s"><img src="a.png"/></par><seq><text src="b.txt"/></seq></par>')),
    ).toBe('<par dur="2s"><img src="cid:a.png" region="Image"/><text src="cid:b.txt" region="Text"/></par>');
    expect(slides(body('<img src="a.png" dur="7s"/>'))).toBe(
      '<par dur="7s"><img src="cid:a.png" region="Image" dur="7s"/></par>',
    );
  });

  it('calls a ref by the name of what it shows', () => {
    expect(
      slides(body('<ref src="a.png"/><ref src="b.txt"/><ref src="c.mp4"/><ref src="d.amr"/><ref src="e.pdf"/>')),
    ).toBe(
      '<par><img src="cid:a.png" region="Image"/></par><par><text src="cid:b.txt" region="Text"/></par>' +
        '<par><video src="cid:c.mp4" region="Image"/></par><par><audio src="cid:d.amr"/></par><par><ref src="cid:e.pdf"/></par>',
    );
  });

  it.each([
    ['10s', '10s'],
    ['5000ms', '5000ms'],
    ['5', '5000ms'],
    ['1.5', '1500ms'],
    [' 5 S ', '5000ms'],
    ['+5s', '5000ms'],
    ['2min', '120000ms'],
    ['0.5h', '1800000ms'],
    ['00:05', '5000ms'],
    ['1:02.5', '62500ms'],
    ['00:00:05', '5000ms'],
    ['01:00:00.250', '3600250ms'],
    ['indefinite', 'indefinite'],
    ['25:00:00', null],
    ['100h', null],
    ['-5s', null],
    ['five', null],
    ['0s;5s', null],
    ['img1.end+2s', null],
    ['5s" onload="x', null],
    ['', null],
  ])('reads the duration %j as %j', (dur, travels) => {
    const found = slides(body(`<par dur="${dur.replaceAll('"', '&quot;')}"><img src="a.png"/></par>`));
    expect(/<par(?: dur="([^"]*)")?>/.exec(found)?.[1] ?? null).toBe(travels);
  });

  it.each([
    ['left', '10%', true],
    ['left', '12px', true],
    ['left', '12.5%', true],
    ['left', 'auto', true],
    ['left', '-5', false],
    ['left', '1e9', false],
    ['width', 'calc(1)', false],
    ['fit', 'meet', true],
    ['fit', 'contain', false],
    ['background-color', 'white', true],
    ['background-color', 'rgb(0,0,0)', false],
  ])('keeps a region with %s="%s": %s', (name, value, kept) => {
    const source = `<smil><head><layout><region id="A" ${name}="${value}"/></layout></head><body><img src="a.png"/></body></smil>`;
    expect(printed(source)?.includes(` ${name}="${value}"`)).toBe(kept);
  });

  it('does not refer to a region that is not there', () => {
    const head = '<head><layout><region id="Image"/><region left="0"/></layout></head>';
    const found = printed(
      `<smil>${head}<body><img src="a.png" region="Image"/><text src="b.txt" region="Text"/></body></smil>`,
    );
    expect(found).toContain('<layout><root-layout/><region id="Image"/></layout>');
    expect(found).toContain('<img src="cid:a.png" region="Image"/></par><par><text src="cid:b.txt"/></par>');
  });

  it('leaves out what has no part, and is none where nothing is left', () => {
    expect(slides(body('<par><img src="gone.png"/><text src="b.txt"/></par><par><img src="gone.png"/></par>'))).toBe(
      '<par><text src="cid:b.txt" region="Text"/></par>',
    );
    for (const nothing of ['<smil/>', body(''), body('<par/>'), body('<par><img src="gone"/></par>')]) {
      expect(printed(nothing)).toBe(null);
    }
  });

  it('is well-formed and refers to nothing but parts, whatever was written', () => {
    const word = fc.oneof(
      fc.constantFrom(
        'a.png',
        'b.txt',
        'cid:c.mp4',
        'http://x.example/',
        'gone',
        '5s',
        'Image',
        '"\'<>&',
        '\r\n\t',
        ']]>',
        '😀',
      ),
      fc.string({ unit: 'grapheme', maxLength: 12 }),
    );
    const escaped = (text: string) =>
      text
        .replace(/[^\t\n\r\x20-\ud7ff\ue000-\ufffd]/g, '?')
        .replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
    const names = [
      'par',
      'seq',
      'img',
      'text',
      'audio',
      'video',
      'ref',
      'a',
      'layout',
      'region',
      'param',
      'meta',
      'smil',
      'body',
      'x',
    ];
    const attributes = ['src', 'region', 'dur', 'begin', 'alt', 'id', 'name', 'value', 'fit', 'onload', 'href'];
    const tree = fc.letrec<{ node: string }>((tie) => ({
      node: fc
        .tuple(
          fc.constantFrom(...names),
          fc.dictionary(fc.constantFrom(...attributes), word, { maxKeys: 4 }),
          fc.oneof({ maxDepth: 4 }, fc.constant([]), fc.array(tie('node'), { maxLength: 4 })),
        )
        .map(([name, own, children]) => {
          const written = Object.entries(own).map(([key, value]) => ` ${key}="${escaped(value)}"`);
          return `<${name}${written.join('')}>${(children as string[]).join('')}</${name}>`;
        }),
    }));
    fc.assert(
      fc.property(fc.array(tree.node, { maxLength: 5 }), (nodes) => {
        const read = readSmil(`<smil><head>${nodes.slice(1).join('')}</head>${body(nodes.join('')).slice(6)}`);
        if (!read.ok) {
          expect(read.faults.every((fault) => /has no src|more than|nested/.test(fault))).toBe(true);
          return;
        }
        const out = printSmil(read.smil, all);
        if (out === null) return;
        const again = readXml(out);
        if (!again.ok) throw new Error(again.fault);
        const allowed = /^(?:smil|head|meta|layout|root-layout|region|body|par|img|text|audio|video|ref|param)$/;
        for (const found of elementsOf(again.root)) {
          expect(found.name).toMatch(allowed);
          for (const [name, value] of Object.entries(found.attributes)) {
            expect(name).not.toMatch(/^(?:on|href)/);
            if (name === 'src') expect(value.startsWith('cid:')).toBe(true);
          }
        }
        // What was printed reads as itself.
        expect(printSmil(sound(out), (src) => all(src.slice(4)))).toBe(out);
      }),
      { numRuns: 300 },
    );
  });
});

describe('faults of a presentation', () => {
  it('stand where an editor shows them, whatever comes before', () => {
    const source =
      '<smil>\r\n<!-- <img src="x"/> --><body>\n<![CDATA[<img/>]]><?pi <img ?>\n\t<par title="&gt;"><img\nsrc="x"/><img src="y"/></par></body></smil>';
    const faults = srcFaults(sound(source), () => 'nothing');
    expect(faults.map((fault) => /line \d+, column \d+/.exec(fault)?.[0])).toEqual([
      'line 4, column 20',
      'line 5, column 10',
    ]);
    expect(srcsOf(sound(source))).toEqual(['x', 'y']);
  });

  it('quote nothing that the customer wrote', () => {
    for (const source of [
      '<SECRET',
      '<smil SECRET',
      '<SECRET:smil/>',
      '<smil></SECRET>',
      '<smil>&SECRET;</smil>',
      'SECRET',
      '<SECRET/>',
    ]) {
      const read = readSmil(source);
      expect(read.ok).toBe(false);
      expect(JSON.stringify(read)).not.toContain('SECRET');
    }
    expect(srcFaults(sound(body('<img src="SECRET"/>')), () => 'several').join()).not.toContain('SECRET');
  });

  it('are at most ten, and cost no more than reading does', () => {
    const many = body('<img src="x"/>'.repeat(490));
    expect(srcFaults(sound(many), () => 'nothing')).toHaveLength(10);
    const read = readSmil(body('<img/>'.repeat(490)));
    expect(!read.ok && read.faults.length).toBe(10);
  });
});

describe('a presentation that is made', () => {
  const part = (contentId: string, contentType: string): Shown => ({ contentId, contentType });

  it('has regions for what it shows only', () => {
    const layout = (parts: Shown[]): string[] => {
      const read = readXml(makeSmil(parts));
      if (!read.ok) throw new Error(read.fault);
      return (childOf(read.root, 'head', 'layout') as XmlElement).children.map(
        (child) => child.attributes.id ?? child.name,
      );
    };
    expect(layout([part('a', 'image/png')])).toEqual(['root-layout', 'Image']);
    expect(layout([part('a', 'text/plain')])).toEqual(['root-layout', 'Text']);
    expect(layout([part('a', 'TEXT/PLAIN ;charset=x'), part('b', 'Video/MP4')])).toEqual([
      'root-layout',
      'Image',
      'Text',
    ]);
    expect(layout([part('a', 'audio/amr')])).toEqual(['root-layout']);
    expect(layout([])).toEqual(['root-layout']);
  });

  it('is one that reads as itself', () => {
    const parts = [
      part('t', 'text/plain'),
      part('i', 'image/png'),
      part('j', 'image/gif'),
      part('s', 'audio/amr'),
      part('c', 'text/vcard'),
    ];
    const made = makeSmil(parts);
    expect(printSmil(sound(made), (src) => parts.find((one) => `cid:${one.contentId}` === src) ?? null)).toBe(made);
  });
});
