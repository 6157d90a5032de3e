/**
 * The presentation of an MM: SMIL in the subset that handsets agree on (OMA-MMS-CONF: head with layout, body of slides, one
 * slide a `par` of media elements). What a customer wrote is read into slides and printed again, so only known elements and
 * attributes with values of a known form ever travel; what was not given is made from the parts.
 *
 * Promises: what is printed is well-formed, its `src` are `cid:` of parts of the same message and nothing else (no outside
 * address can be smuggled in), and a presentation that shows nothing is never sent in the place of one that would. Work is
 * linear and bounded (SMIL_MAX, ELEMENTS, DEPTH).
 *
 * Fails: what cannot be a presentation is a list of faults, each with its place and what would be right; they quote nothing
 * that the customer wrote but the names of elements that we know.
 */
import { element, readXml, XML_DECLARATION, type XmlElement, type XmlText } from '../xml.ts';

/** Code points of a customer's SMIL. */
export const SMIL_MAX = 65_536;
const ELEMENTS = 500;
const DEPTH = 32;
/** Faults that are told of one presentation. */
const FAULTS = 10;

type Slot = 'img' | 'video' | 'audio' | 'text';
/** What may stand in a slide; `ref` takes the name of what it refers to. */
const MEDIA = new Set(['img', 'video', 'audio', 'text', 'ref']);

/** What a presentation must know of a part. */
export interface Shown {
  contentId: string;
  contentType: string;
}

/** One media element that has a `src`. */
interface Medium {
  name: string;
  src: string;
  attributes: Attributes;
  params: Attributes[];
  /** Which start tag of the document it is, 0 = the root's. */
  order: number;
}

interface Slide {
  attributes: Attributes;
  media: Medium[];
}

type Attributes = Record<string, string>;

/** A customer's presentation, read and sound in itself; whether its `src` lead anywhere is `srcFaults`' affair. */
export interface Presentation {
  readonly source: string;
  readonly meta: readonly Attributes[];
  readonly rootLayout: Attributes | null;
  readonly regions: readonly Attributes[];
  readonly slides: readonly Slide[];
}

export type SmilResult = { ok: true; smil: Presentation } | { ok: false; faults: string[] };

// --------------------------------------------------------------------------------------------------------------- reading

/** Reads a customer's SMIL. */
export function readSmil(source: string): SmilResult {
  const read = readXml(withoutDoctype(source), { size: 2 * SMIL_MAX, elements: ELEMENTS, depth: DEPTH });
  if (!read.ok) {
    // Behind a colon or a quote stands what the customer wrote.
    const words = (/^[^:"(]*/.exec(read.fault)?.[0] ?? '').trim().replace(/\.$/, '');
    if (read.at === undefined) {
      const doctype = words.startsWith('DOCTYPE') ? source.indexOf('<!DOCTYPE') : -1;
      return {
        ok: false,
        faults: [
          doctype < 0
            ? `is not accepted: ${words}`
            : `must not have a DOCTYPE that declares anything (${placeOf(source, doctype)})`,
        ],
      };
    }
    return { ok: false, faults: [`must be well-formed XML: ${words} (${placeOf(source, Math.max(0, read.at - 1))})`] };
  }
  const { root } = read;
  if (root.name !== 'smil') {
    return { ok: false, faults: [`must have <smil> as its root element (${placeOfTag(source, 0)})`] };
  }
  const reader = new Reader(source);
  reader.smil(root);
  if (reader.faults.length > 0) return { ok: false, faults: reader.faults };
  const { meta, rootLayout, regions, slides } = reader;
  return { ok: true, smil: { source, meta, rootLayout, regions, slides } };
}

/**
 * Blanks in the place of a DOCTYPE that only names its DTD, as many editors write it; one that declares anything stays, and so
 * is refused.
 */
function withoutDoctype(source: string): string {
  return source.replace(
    /^(\ufeff?(?:<\?xml[^<>]{0,200}\?>)?\s*(?:<!--(?:(?!--)[\s\S]){0,2000}-->\s*){0,20})(<!DOCTYPE[^<>[\]]{0,500}>)/,
    (_, before: string, doctype: string) => before + doctype.replace(/[^\r\n]/g, ' '),
  );
}

/** Walks the tree in the order of its start tags. */
class Reader {
  readonly faults: string[] = [];
  readonly meta: Attributes[] = [];
  rootLayout: Attributes | null = null;
  readonly regions: Attributes[] = [];
  readonly slides: Slide[] = [];
  private readonly source: string;
  /** Of the next start tag. */
  private order = 0;

  constructor(source: string) {
    this.source = source;
  }

  smil(root: XmlElement): void {
    this.order++;
    for (const child of root.children) {
      if (child.name === 'head') this.head(child);
      else if (child.name === 'body') this.body(child, null);
      else this.skip(child);
    }
  }

  private head(head: XmlElement): void {
    this.order++;
    for (const child of head.children) {
      if (child.name === 'meta') this.meta.push(known(child, META));
      if (child.name === 'layout') {
        this.order++;
        for (const inner of child.children) {
          if (inner.name === 'root-layout') this.rootLayout ??= known(inner, ROOT_LAYOUT);
          if (inner.name === 'region') this.regions.push(known(inner, REGION));
          this.skip(inner);
        }
      } else this.skip(child);
    }
  }

  /**
   * The body is a sequence of slides. A `seq` says no more than that, and a medium alone is a slide of its own; what is
   * nested in a slide belongs to it, since no handset nests.
   */
  private body(parent: XmlElement, slide: Slide | null): void {
    this.order++;
    for (const child of parent.children) {
      if (child.name === 'seq') this.body(child, slide);
      else if (child.name === 'par') {
        let own = slide;
        if (own === null) {
          own = { attributes: known(child, PAR), media: [] };
          this.slides.push(own);
        }
        this.body(child, own);
      } else if (MEDIA.has(child.name)) this.medium(child, slide);
      else this.skip(child);
    }
  }

  private medium(medium: XmlElement, slide: Slide | null): void {
    const { order } = this;
    const { name } = medium;
    const src = medium.attributes.src?.trim() ?? '';
    const params = medium.children.filter((child) => child.name === 'param').map((child) => known(child, PARAM));
    this.skip(medium);
    if (src === '') {
      if (this.faults.length < FAULTS) {
        this.faults.push(`<${name}> at ${placeOfTag(this.source, order)} has no src; ${RIGHT}`);
      }
      return;
    }
    const made: Medium = { name, src, attributes: known(medium, MEDIUM), params, order };
    if (slide) slide.media.push(made);
    else this.slides.push({ attributes: durationOf(made.attributes), media: [made] });
  }

  private skip(element: XmlElement): void {
    this.order++;
    for (const child of element.children) this.skip(child);
  }
}

/** A medium that is a slide of its own says how long that lasts. */
function durationOf(attributes: Attributes): Attributes {
  return attributes.dur === undefined ? {} : { dur: attributes.dur };
}

const RIGHT = 'src must be the contentId, file name or URL of another segment of this message';

/** What a `src` leads to: the index of a segment, nothing, or more than one thing. */
export type Target = number | 'nothing' | 'several';

/** What is wrong with the `src` of a presentation; [] = all lead somewhere. */
export function srcFaults(smil: Presentation, targetOf: (src: string) => Target): string[] {
  const faults: string[] = [];
  for (const { media } of smil.slides) {
    for (const { name, src, order } of media) {
      const target = targetOf(src);
      if (typeof target === 'number' || faults.length >= FAULTS) continue;
      const where = `<${name}> at ${placeOfTag(smil.source, order)}`;
      faults.push(
        target === 'nothing'
          ? `${where}: ${RIGHT}`
          : `${where}: src fits several segments; give each of them a contentId of its own`,
      );
    }
  }
  return faults;
}

/** Every `src` of a presentation. */
export function srcsOf(smil: Presentation): string[] {
  return smil.slides.flatMap(({ media }) => media.map(({ src }) => src));
}

/** `line 3, column 14`, both from 1, as editors count. */
function placeOf(source: string, at: number): string {
  const before = source.slice(0, at).split(/\r\n|\n|\r/);
  return `line ${before.length}, column ${(before.at(-1) as string).length + 1}`;
}

/** What may stand between two start tags of a well-formed document, and the start tags themselves. */
const MARKUP = /<!--[\s\S]*?-->|<!\[CDATA\[[\s\S]*?\]\]>|<\?[\s\S]*?\?>|<[^/!?]/g;

/** Where the n-th start tag of a well-formed document stands. */
function placeOfTag(source: string, order: number): string {
  let n = 0;
  for (const match of source.matchAll(MARKUP)) {
    if (match[0].length !== 2) continue;
    if (n++ === order) return placeOf(source, match.index);
  }
  return placeOf(source, 0);
}

// ------------------------------------------------------------------------------------------------------------ attributes

/** The value as it may travel; null = it is left out. */
type Check = (value: string) => string | null;

const pattern =
  (form: RegExp): Check =>
  (value) =>
    form.test(value.trim()) ? value.trim() : null;
const length = pattern(/^(?:\d{1,5}(?:\.\d{1,3})?(?:px|%)?|auto)$/i);
const colour = pattern(/^#?[A-Za-z0-9]{1,30}$/);
const id = pattern(/^[A-Za-z_][\w.-]{0,99}$/);
const words: Check = (value) => value;
const STEP = { h: 3_600_000, min: 60_000, s: 1000, ms: 1 } as const;
const DAY_MS = 86_400_000;

/**
 * A clock value of SMIL (`5s`, `5000ms`, `1.5min`, `00:05`, `0:01:30.5`, `5` = seconds) in one of the two forms that every
 * handset reads; also `indefinite`. Events and lists are nothing that a handset knows.
 */
const clock: Check = (value) => {
  const text = value.trim().toLowerCase();
  if (/^\d{1,7}m?s$/.test(text) || text === 'indefinite') return text;
  const count = /^\+?(\d{1,8}(?:\.\d{1,6})?) ?(h|min|s|ms)?$/.exec(text);
  const full = /^(?:(\d{1,2}):)?([0-5]?\d):([0-5]?\d(?:\.\d{1,6})?)$/.exec(text);
  const ms = count
    ? Number(count[1]) * STEP[(count[2] as keyof typeof STEP | undefined) ?? 's']
    : full
      ? (Number(full[1] ?? 0) * 60 + Number(full[2])) * 60_000 + Number(full[3]) * 1000
      : Number.NaN;
  return ms <= DAY_MS ? `${Math.round(ms)}ms` : null;
};

const META = { name: words, content: words };
const ROOT_LAYOUT = { width: length, height: length, backgroundColor: colour, 'background-color': colour };
const REGION = {
  id,
  left: length,
  top: length,
  right: length,
  bottom: length,
  width: length,
  height: length,
  fit: pattern(/^(?:fill|hidden|meet|meetBest|scroll|slice)$/),
  'z-index': pattern(/^\d{1,4}$/),
  title: words,
  backgroundColor: colour,
  'background-color': colour,
};
const PAR = { id, dur: clock, begin: clock, end: clock, title: words };
const PARAM = { name: words, value: words };
const MEDIUM = { region: id, alt: words, begin: clock, end: clock, dur: clock, id, title: words };

/** Attributes that we know, with values of their form. */
function known(element: XmlElement, checks: Record<string, Check>): Attributes {
  const kept: Attributes = {};
  for (const [name, value] of Object.entries(element.attributes)) {
    const good = Object.hasOwn(checks, name) ? (checks[name] as Check)(value) : null;
    if (good !== null) kept[name] = good;
  }
  return kept;
}

// -------------------------------------------------------------------------------------------------------------- printing

/**
 * The presentation as it travels. Media whose part is not there, and slides without media, are left out; where no layout was
 * given, one is made; null = it shows nothing, so that one from the parts is better.
 */
export function printSmil(smil: Presentation, partOf: (src: string) => Shown | null): string | null {
  const slides: { attributes: Attributes; media: { medium: Medium; part: Shown; slot: Slot | null }[] }[] = [];
  for (const { attributes, media } of smil.slides) {
    const there = media.flatMap((medium) => {
      const part = partOf(medium.src);
      return part
        ? [{ medium, part, slot: medium.name === 'ref' ? slotOf(part.contentType) : (medium.name as Slot) }]
        : [];
    });
    if (there.length > 0) slides.push({ attributes, media: there });
  }
  if (slides.length === 0) return null;
  const all = slides.flatMap(({ media }) => media.map(({ slot }) => slot));
  const own = smil.regions.some((region) => region.id !== undefined);
  const regions = new Set(smil.regions.map((region) => region.id));
  const layout = own
    ? element(
        'layout',
        null,
        element('root-layout', smil.rootLayout),
        ...smil.regions.filter((region) => region.id !== undefined).map((region) => element('region', region)),
      )
    : madeLayout(all.includes('img') || all.includes('video'), all.includes('text'), smil.rootLayout);
  const pars = slides.map(({ attributes, media }) =>
    element(
      'par',
      attributes,
      ...media.map(({ medium, part, slot }) => {
        const { region, ...rest } = medium.attributes;
        const place = own ? (regions.has(region) ? region : undefined) : regionOf(slot);
        return element(
          slot ?? 'ref',
          { src: `cid:${part.contentId}`, region: place, ...rest },
          ...medium.params.map((param) => element('param', param)),
        );
      }),
    ),
  );
  return document([...smil.meta.map((meta) => element('meta', meta)), layout], pars);
}

/** How long a slide stays on the handset's screen when the customer says nothing about it. */
const SLIDE_MS = 5000;
/** How parts of one slide follow each other. */
const ORDER = ['img', 'video', 'text', 'audio'] as const;

/**
 * One slide per picture or video, with the text and the sound next to it; parts of other kinds (contact cards, documents)
 * travel as attachments and stand in no slide.
 */
export function makeSmil(parts: readonly Shown[]): string {
  const slides: Partial<Record<Slot, string>>[] = [];
  for (const part of parts) {
    const slot = slotOf(part.contentType);
    if (!slot) continue;
    let slide = slides.at(-1);
    if (!slide || !fits(slide, slot)) {
      slide = {};
      slides.push(slide);
    }
    slide[slot] = part.contentId;
  }
  const layout = madeLayout(
    slides.some((slide) => slide.img || slide.video),
    slides.some((slide) => slide.text),
    null,
  );
  const pars = slides.map((slide) =>
    element(
      'par',
      { dur: `${SLIDE_MS}ms` },
      ...ORDER.map((slot) => {
        const id = slide[slot];
        return id !== undefined && element(slot, { src: `cid:${id}`, region: regionOf(slot) });
      }),
    ),
  );
  return document([layout], pars);
}

function document(head: XmlText[], pars: XmlText[]): string {
  return XML_DECLARATION + element('smil', null, element('head', null, ...head), element('body', null, ...pars));
}

/** Regions `Image` and `Text`, the only names that every handset knows. */
function madeLayout(seen: boolean, read: boolean, root: Attributes | null): XmlText {
  const full = { left: 0, width: '100%' };
  return element(
    'layout',
    null,
    element('root-layout', root ?? { width: '100%', height: '100%' }),
    seen && element('region', { id: 'Image', ...full, top: 0, height: read ? '80%' : '100%', fit: 'meet' }),
    read && element('region', { id: 'Text', ...full, top: seen ? '80%' : 0, height: seen ? '20%' : '100%' }),
  );
}

function regionOf(slot: Slot | null): string | undefined {
  return slot === 'text' ? 'Text' : slot === 'img' || slot === 'video' ? 'Image' : undefined;
}

function slotOf(contentType: string): Slot | null {
  const type = contentType.trim().toLowerCase();
  if (type.startsWith('image/')) return 'img';
  if (type.startsWith('video/')) return 'video';
  if (type.startsWith('audio/')) return 'audio';
  return /^text\/plain(?:$|[\s;])/.test(type) ? 'text' : null;
}

/** A slide has room for one text, and for a picture and a sound, or for a video alone. */
function fits(slide: Partial<Record<Slot, string>>, slot: Slot): boolean {
  if (slide[slot]) return false;
  if (slot === 'img') return !slide.video;
  if (slot === 'audio') return !slide.video;
  return slot !== 'video' || (!slide.img && !slide.audio);
}
