/**
 * Bytes of a request into a JSON value that the schemas can take: UTF-8 checked, parsed, bounded in depth, and with null
 * members gone (null in an optional field means absent; in a required one the schema then finds nothing).
 *
 * Promises: no recursion deeper than `MAX_DEPTH`, linear time, `__proto__` stays an ordinary own key. A fault is a value that
 * names the place and quotes none of the body (bodies hold private text, answers end up in logs).
 */
import { isUtf8 } from 'node:buffer';

/** How deep arrays and objects may nest. The request model needs 7; beyond this only an attack goes. */
export const MAX_DEPTH = 32;

export type Parsed = { ok: true; value: unknown } | { ok: false; fault: string };

/** Parses the body of a request. A byte order mark is skipped, as RFC 8259 (8.1) allows. */
export function parseJson(raw: Uint8Array): Parsed {
  if (raw.length === 0) return { ok: false, fault: 'Request body is missing.' };
  if (!isUtf8(raw)) return { ok: false, fault: 'Request body is not valid UTF-8.' };
  let text = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('utf8');
  if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { ok: false, fault: faultIn(text) };
  }
  if (typeof value === 'object' && value !== null && !dropNulls(value, 1)) {
    return { ok: false, fault: `Request body is nested deeper than ${MAX_DEPTH} levels.` };
  }
  return { ok: true, value };
}

/** Removes null members of objects (not of arrays: a null element is a fault of its own). False = nested too deep. */
function dropNulls(value: object, depth: number): boolean {
  if (depth > MAX_DEPTH) return false;
  if (Array.isArray(value)) {
    for (const item of value) {
      if (typeof item === 'object' && item !== null && !dropNulls(item, depth + 1)) return false;
    }
    return true;
  }
  const members = value as Record<string, unknown>;
  // JSON.parse makes plain objects, so `in` sees own keys only.
  for (const key in members) {
    const member = members[key];
    if (typeof member !== 'object') continue;
    if (member === null) delete members[key];
    else if (!dropNulls(member, depth + 1)) return false;
  }
  return true;
}

const SPACE = /[ \t\n\r]*/y;
const SCALAR = /true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** Reads a string from its opening quote. By hand: a regular expression keeps a stack as long as the string. */
function readString(text: string, start: number): { whole: boolean; end: number } {
  let at = start + 1;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === 34) return { whole: true, end: at + 1 };
    if (code < 32) break;
    if (code === 92) {
      ESCAPE.lastIndex = at;
      if (!ESCAPE.test(text)) break;
      at = ESCAPE.lastIndex;
    } else at++;
  }
  return { whole: false, end: at };
}

/**
 * Where a text that JSON.parse refused goes wrong, in words. V8 tells the place only sometimes, and quotes the body; so this
 * reads the text once more, as a small machine over tokens (only for bodies that are refused).
 */
function faultIn(text: string): string {
  /** What is open, innermost last: true = object. */
  const open: boolean[] = [];
  let expect: 'value' | 'value or ]' | 'name' | 'name or }' | ':' | ', or end' = 'value';
  let at = 0;
  const take = (token: RegExp): boolean => {
    token.lastIndex = at;
    if (!token.test(text)) return false;
    at = token.lastIndex;
    return true;
  };
  const takeString = (): boolean => {
    if (text[at] !== '"') return false;
    // A broken string is reported at its broken character, not at its beginning.
    const { whole, end } = readString(text, at);
    at = end;
    return whole;
  };
  for (;;) {
    take(SPACE);
    const char = text[at];
    if (expect === 'value' || expect === 'value or ]') {
      if (char === ']' && expect === 'value or ]') {
        at++;
        open.pop();
        expect = ', or end';
      } else if (char === '{' || char === '[') {
        at++;
        open.push(char === '{');
        expect = char === '{' ? 'name or }' : 'value or ]';
      } else if (takeString() || take(SCALAR)) expect = ', or end';
      else break;
    } else if (expect === 'name' || expect === 'name or }') {
      if (char === '}' && expect === 'name or }') {
        at++;
        open.pop();
        expect = ', or end';
      } else if (takeString()) expect = ':';
      else break;
    } else if (expect === ':') {
      if (char !== ':') break;
      at++;
      expect = 'value';
    } else {
      const inside = open.at(-1);
      if (inside === undefined) break;
      if (char === ',') expect = inside ? 'name' : 'value';
      else if (char === (inside ? '}' : ']')) open.pop();
      else break;
      at++;
    }
  }
  const before = text.slice(0, at);
  let line = 1;
  for (let i = before.indexOf('\n'); i >= 0; i = before.indexOf('\n', i + 1)) line++;
  const place = `line ${line} column ${at - before.lastIndexOf('\n')}`;
  return at >= text.length
    ? `Request body is not valid JSON: it ends too early, at ${place}.`
    : `Request body is not valid JSON: unexpected character at ${place}.`;
}
