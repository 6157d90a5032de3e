/**
 * XML in and out: a strict reader under caps (saxes inside) and a writer that cannot be injected into. Used for SOAP, SMIL and
 * the XML form of reports.
 *
 * Promises: the reader takes well-formed XML 1.0 with namespaces and nothing more: any DOCTYPE, any entity beyond the five
 * predefined and numeric ones, anything over a limit is a fault; it stops at the first one, in time linear in the input
 * (saxes' look-up of prefixes walks the open elements, hence the cap on depth). Documents of nothing unusual are read without
 * saxes, to the same result (`readPlain`). The writer's markup is well-formed whatever
 * values it is given.
 *
 * Fails: `readXml` never throws, it answers `{ ok: false }`. The writer throws TypeError for a name that is none: a bug.
 */
import { SaxesParser, type SaxesTagNS } from 'saxes';

/** An element as read. Prefixes are gone: peers choose them freely. */
export interface XmlElement {
  /** Local name. */
  readonly name: string;
  /** Namespace, '' for none. */
  readonly uri: string;
  /** By local name, namespace declarations left out; where two share a local name, the one without prefix counts. */
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly XmlElement[];
  /** Its own character data (CDATA too), concatenated; not that of its children. */
  readonly text: string;
}

export interface XmlLimits {
  /** Bytes (or UTF-16 units of a string). */
  size: number;
  depth: number;
  elements: number;
  /** Of one element, namespace declarations counted. */
  attributes: number;
}

const LIMITS: XmlLimits = { size: 1024 * 1024, depth: 64, elements: 20_000, attributes: 64 };

/** `fault` = the first thing that is wrong, in words, at most 200 characters; `at` = behind which UTF-16 unit, where it has a place. */
export type XmlResult = { ok: true; root: XmlElement } | { ok: false; fault: string; at?: number };

/** What a handler throws to stop the parser. */
class Fault extends Error {
  at: number | undefined;
}

function stop(message: string): never {
  throw new Fault(message);
}

interface Open {
  name: string;
  uri: string;
  attributes: Record<string, string>;
  children: XmlElement[];
  text: string;
}

const XMLNS = 'http://www.w3.org/2000/xmlns/';

/**
 * Reads one document. Bytes are decoded by their byte order mark, else by the XML declaration, else as UTF-8; known
 * are UTF-8, UTF-16, ISO-8859-1 and US-ASCII. A string counts as decoded, whatever its declaration says.
 */
export function readXml(input: string | Uint8Array, limits: Partial<XmlLimits> = {}): XmlResult {
  const all = { ...LIMITS, ...limits };
  try {
    if (input.length > all.size) stop(`longer than ${all.size} bytes`);
    const text = typeof input === 'string' ? input.replace(/^\uFEFF/, '') : decode(input);
    return { ok: true, root: parse(text, all) };
  } catch (error) {
    const fault = (error instanceof Error ? error.message : String(error)).slice(0, 200);
    const at = error instanceof Fault ? error.at : undefined;
    return at === undefined ? { ok: false, fault } : { ok: false, fault, at };
  }
}

/** A parser with its handlers. Kept from one document to the next: on a short envelope that halves the time (34 for 70 us). */
class Reader {
  private readonly parser = new SaxesParser({
    xmlns: true,
    position: false,
    defaultXMLVersion: '1.0',
    forceXMLVersion: true,
  });
  private limits = LIMITS;
  private open: Open[] = [];
  private root: XmlElement | null = null;
  private elements = 0;
  private attributes = 0;

  constructor() {
    const { parser } = this;
    parser.on('error', (error) => {
      const fault = new Fault(`${error.message} (at character ${parser.position})`);
      fault.at = parser.position;
      throw fault;
    });
    parser.on('doctype', () => stop('DOCTYPE is not allowed'));
    parser.on('opentagstart', () => {
      this.attributes = 0;
      if (++this.elements > this.limits.elements) stop(`more than ${this.limits.elements} elements`);
      if (this.open.length >= this.limits.depth) stop(`nested deeper than ${this.limits.depth}`);
    });
    parser.on('attribute', () => {
      if (++this.attributes > this.limits.attributes) {
        stop(`more than ${this.limits.attributes} attributes in one element`);
      }
    });
    parser.on('opentag', (tag) => {
      const element: Open = { name: tag.local, uri: tag.uri, attributes: attributesOf(tag), children: [], text: '' };
      const parent = this.open.at(-1);
      if (parent) parent.children.push(element);
      else this.root = element;
      this.open.push(element);
    });
    const addText = (text: string): void => {
      const element = this.open.at(-1);
      if (element) element.text += text;
    };
    parser.on('text', addText);
    parser.on('cdata', addText);
    parser.on('closetag', () => {
      this.open.pop();
    });
  }

  /** Throws at the first fault; the reader is then of no more use. */
  read(document: string, limits: XmlLimits): XmlElement {
    this.limits = limits;
    this.elements = 0;
    this.parser.write(document).close();
    const { root } = this;
    this.root = null;
    return root ?? stop('no element');
  }
}

/** Reading is synchronous, so one is enough. */
let idle: Reader | null = null;

function parse(document: string, limits: XmlLimits): XmlElement {
  const plainRoot = readPlain(document, limits);
  if (plainRoot) return plainRoot;
  const reader = idle ?? new Reader();
  idle = null;
  const root = reader.read(document, limits);
  idle = reader;
  return root;
}

const NO_ATTRIBUTES: Readonly<Record<string, string>> = Object.freeze(Object.create(null));

function attributesOf(tag: SaxesTagNS): Record<string, string> {
  let out: Record<string, string> | null = null;
  for (const name in tag.attributes) {
    const { local, prefix, uri, value } = tag.attributes[name]!;
    if (uri === XMLNS) continue;
    // No prototype: an attribute may be called __proto__.
    out ??= Object.create(null) as Record<string, string>;
    if (prefix === '' || !(local in out)) out[local] = value;
  }
  return out ?? NO_ATTRIBUTES;
}

// ------------------------------------------------------------------------------------------------------- plain documents

/** What a plain document has none of: entities, comments, CDATA, DOCTYPE, carriage returns, anything beyond the BMP or illegal. */
const NOT_PLAIN = /[&\r\u0000-\u0008\u000b\u000c\u000e-\u001f\ud800-\udfff\ufffe\uffff]|<!|\]\]>/;
const DECLARATION = /<\?xml version="1\.0"(?: encoding="[A-Za-z][\w.-]*")?(?: standalone="(?:yes|no)")?\?>/y;
const START_TAG =
  /<([A-Za-z_][\w.-]*)(?::([A-Za-z_][\w.-]*))?((?:[ \n\t]+[A-Za-z_][\w.:-]*="[^"<\n\t]*")*)[ \n\t]*(\/?)>/y;
const ATTRIBUTE = /[ \n\t]+([A-Za-z_][\w.-]*)(?::([A-Za-z_][\w.-]*))?="([^"]*)"/y;
const BLANK = /^[ \n\t]*$/;

/** Prefixes in scope, innermost first; '' is the default namespace. */
type Scope = { prefix: string; uri: string; outer: Scope; size: number } | null;
/** More declarations in scope than any peer makes: looking through them for every name would take too long. */
const SCOPE = 32;

interface OpenPlain {
  element: Open;
  /** As written. */
  tag: string;
  scope: Scope;
}

/**
 * Reads the documents that peers mostly send, markup of nothing but elements, attributes and text, in a quarter of saxes'
 * time (8 for 34 us an envelope; two are read per message). Null for whatever is unusual, wrong or over a limit: saxes then
 * has the word, so this never decides that a document is bad. `xml.test.ts` holds the two to the same trees.
 */
function readPlain(document: string, limits: XmlLimits): XmlElement | null {
  if (NOT_PLAIN.test(document)) return null;
  DECLARATION.lastIndex = 0;
  let at = DECLARATION.test(document) ? DECLARATION.lastIndex : 0;
  const open: OpenPlain[] = [];
  let root: XmlElement | null = null;
  let elements = 0;
  for (;;) {
    const next = document.indexOf('<', at);
    const parent = open.at(-1);
    if (!parent) {
      if (!BLANK.test(next < 0 ? document.slice(at) : document.slice(at, next))) return null;
      if (next < 0) return root;
      if (root) return null;
    } else {
      if (next < 0) return null;
      if (next > at) parent.element.text += document.slice(at, next);
    }
    if (document.charCodeAt(next + 1) === SLASH) {
      if (!parent || !document.startsWith(parent.tag, next + 2)) return null;
      at = next + 2 + parent.tag.length;
      if (document.charCodeAt(at) !== GREATER) return null;
      at++;
      open.pop();
      continue;
    }
    START_TAG.lastIndex = next;
    const found = START_TAG.exec(document);
    if (!found || ++elements > limits.elements || open.length >= limits.depth) return null;
    at = START_TAG.lastIndex;
    const started = startPlain(found, parent?.scope ?? null, limits);
    if (!started) return null;
    if (parent) parent.element.children.push(started.element);
    else root = started.element;
    if (found[4] === '') open.push(started);
  }
}

const SLASH = 47;
const GREATER = 62;

function startPlain(found: RegExpExecArray, outer: Scope, limits: XmlLimits): OpenPlain | null {
  const prefix = found[2] === undefined ? '' : found[1]!;
  const name = found[2] ?? found[1]!;
  let scope = outer;
  let attributes = NO_ATTRIBUTES as Record<string, string>;
  if (found[3] !== '') {
    const read = attributesPlain(found[3]!, outer, limits);
    if (!read) return null;
    ({ scope, attributes } = read);
  }
  const uri = lookUp(scope, prefix);
  if (uri === null) return null;
  const tag = prefix === '' ? name : `${prefix}:${name}`;
  return { element: { name, uri, attributes, children: [], text: '' }, tag, scope };
}

/** Two attributes with one local name go to saxes: they may be the same by namespace. */
function attributesPlain(
  written: string,
  outer: Scope,
  limits: XmlLimits,
): { scope: Scope; attributes: Record<string, string> } | null {
  let scope = outer;
  let attributes: Record<string, string> | null = null;
  let prefixes: string[] | null = null;
  let count = 0;
  ATTRIBUTE.lastIndex = 0;
  while (ATTRIBUTE.lastIndex < written.length) {
    const found = ATTRIBUTE.exec(written);
    if (!found || ++count > limits.attributes) return null;
    const [, first, second, value] = found as unknown as [string, string, string | undefined, string];
    const declared = second === undefined ? (first === 'xmlns' ? '' : null) : first === 'xmlns' ? second : null;
    if (declared !== null) {
      // The reserved prefixes and namespaces have rules of their own, and an empty one undeclares.
      if (/^xml/i.test(declared) || value === '' || /\s|^http:\/\/www\.w3\.org\/(?:XML\/|2000\/xmlns)/.test(value))
        return null;
      for (let own = scope; own !== outer; own = own!.outer) if (own!.prefix === declared) return null;
      scope = { prefix: declared, uri: value, outer: scope, size: (scope?.size ?? 0) + 1 };
      if (scope.size > SCOPE) return null;
      continue;
    }
    const local = second ?? first;
    if (second !== undefined) {
      prefixes ??= [];
      prefixes.push(first);
    }
    attributes ??= Object.create(null) as Record<string, string>;
    if (local in attributes) return null;
    attributes[local] = value;
  }
  // Declarations may stand behind the attributes that use them.
  for (const prefix of prefixes ?? []) if (lookUp(scope, prefix) === null) return null;
  return { scope, attributes: attributes ?? (NO_ATTRIBUTES as Record<string, string>) };
}

/** Null = not declared. */
function lookUp(scope: Scope, prefix: string): string | null {
  for (let at = scope; at; at = at.outer) if (at.prefix === prefix) return at.uri;
  return prefix === '' ? '' : null;
}

// ------------------------------------------------------------------------------------------------------------- encodings

const UTF8 = new TextDecoder('utf-8', { fatal: true });
const UTF16LE = new TextDecoder('utf-16le', { fatal: true });
const UTF16BE = new TextDecoder('utf-16be', { fatal: true });
/** An XML declaration is short; what stands further back is none. */
const DECLARATION_BYTES = 200;

function decode(bytes: Uint8Array): string {
  const [a, b, c, d] = bytes;
  // The decoders drop the byte order mark themselves. Without one, UTF-16 shows by the zeros of "<?".
  if (a === 0xff && b === 0xfe) return decodeBy(UTF16LE, bytes, 'UTF-16');
  if (a === 0xfe && b === 0xff) return decodeBy(UTF16BE, bytes, 'UTF-16');
  if (a === 0x3c && b === 0 && c === 0x3f && d === 0) return decodeBy(UTF16LE, bytes, 'UTF-16');
  if (a === 0 && b === 0x3c && c === 0 && d === 0x3f) return decodeBy(UTF16BE, bytes, 'UTF-16');
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (a === 0xef && b === 0xbb && c === 0xbf) return decodeBy(UTF8, bytes, 'UTF-8');
  const head = buffer.toString('latin1', 0, DECLARATION_BYTES);
  const name = /^<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]*)["']/.exec(head)?.[1]?.toUpperCase() ?? 'UTF-8';
  switch (name) {
    case 'UTF-8':
    case 'UTF8':
    // Declared in what are plainly single bytes: peers that print to a UTF-16 string and send it as UTF-8.
    case 'UTF-16':
      return decodeBy(UTF8, bytes, 'UTF-8');
    case 'ISO-8859-1':
    case 'LATIN1':
      return buffer.toString('latin1');
    case 'US-ASCII':
    case 'ASCII':
      for (const byte of bytes) if (byte > 0x7f) stop('not US-ASCII as declared');
      return buffer.toString('latin1');
    default:
      return stop(`encoding ${name} is not supported`);
  }
}

function decodeBy(decoder: InstanceType<typeof TextDecoder>, bytes: Uint8Array, name: string): string {
  try {
    return decoder.decode(bytes);
  } catch {
    return stop(`not valid ${name}`);
  }
}

// ------------------------------------------------------------------------------------------------------------ navigation

/** The first element at this path of local names below `element`; undefined where any step is missing. */
export function childOf(element: XmlElement, ...path: string[]): XmlElement | undefined {
  let at: XmlElement | undefined = element;
  for (const name of path) {
    at = at.children.find((child) => child.name === name);
    if (!at) return undefined;
  }
  return at;
}

/** The own text of the element at this path, white space around it removed; undefined where the element is missing. */
export function textOf(element: XmlElement, ...path: string[]): string | undefined {
  return childOf(element, ...path)?.text.trim();
}

// --------------------------------------------------------------------------------------------------------------- writing

declare const safe: unique symbol;
/** Markup made by this file, safe to stand inside an element. */
export type XmlText = string & { readonly [safe]: true };

/** Stands before the root of a document that is sent as UTF-8. */
export const XML_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>';

const SPECIAL = /[&<>"\u0000-\u001f\ufffe\uffff\ud800-\udfff]/;
const NAME = /^[A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?$/;
/** Names that have been checked: a program has few. Bounded, should a caller ever make them up. */
const known = new Set<string>();

function checked(name: string): string {
  if (known.has(name)) return name;
  if (!NAME.test(name)) throw new TypeError(`not an XML name: ${JSON.stringify(name.slice(0, 80))}`);
  if (known.size < 1000) known.add(name);
  return name;
}

/** What XML 1.0 cannot carry at all (control characters, lone surrogates, U+FFFE, U+FFFF) becomes U+FFFD. */
function legal(value: string): string {
  return value.toWellFormed().replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '\ufffd');
}

const ENTITY: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
};

/** Character data. A carriage return is kept as a reference, since readers make line feeds of raw ones. */
export function text(value: string | number): XmlText {
  const plainText = String(value);
  if (!SPECIAL.test(plainText)) return plainText as XmlText;
  return legal(plainText).replace(/[&<>\r]/g, (found) => ENTITY[found]!) as XmlText;
}

/**
 * One element. Names are `local` or `prefix:local` in ASCII (else TypeError: a bug). Undefined attributes and null,
 * undefined or false children are left out.
 */
export function element(
  name: string,
  attributes: Record<string, string | number | undefined> | null,
  ...children: (XmlText | null | undefined | false)[]
): XmlText {
  let out = `<${checked(name)}`;
  if (attributes) {
    for (const key in attributes) {
      const value = attributes[key];
      if (value !== undefined) out += ` ${checked(key)}="${quoted(String(value))}"`;
    }
  }
  let inner = '';
  for (const child of children) if (child) inner += child;
  return (inner === '' ? `${out}/>` : `${out}>${inner}</${name}>`) as XmlText;
}

/** White space as references: a reader would turn each into a blank. */
function quoted(value: string): string {
  return SPECIAL.test(value) ? legal(value).replace(/[&<>"\t\n\r]/g, (found) => ENTITY[found]!) : value;
}
