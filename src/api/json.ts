/**
 * Bytes of a request into a JSON value that the schemas can take: UTF-8 checked, parsed, bounded in depth, and with null
 * members gone (null in an optional field means absent; in a required one the schema then finds nothing).
 *
 * Promises: no recursion deeper than `MAX_DEPTH`, linear time, `__proto__` stays an ordinary own key. What is nested too deep or
 * has too many values is refused by a look at its bytes, before any of them becomes an object: 8 MiB of `{}` or of names that
 * all differ would hold the thread for 2 s, the look takes 20 ms. A fault is a value that names the place and quotes none of the
 * body (bodies hold private text, answers end up in logs).
 */
import { isUtf8 } from 'node:buffer';

/** How deep arrays and objects may nest. The request model needs 7; beyond this only an attack goes. */
export const MAX_DEPTH = 32;

/**
 * Values of a body, counted as its commas and opening brackets. The largest request that the default limits let through (10 000
 * destinations, 1 000 messages of 20 segments with all options) has some 200 000; parsed at their dearest these take 0.7 s.
 */
export const MAX_VALUES = 300_000;

export type Parsed = { ok: true; value: unknown } | { ok: false; fault: string };

/**
 * Parses the body of a request. A byte order mark is skipped, as RFC 8259 (8.1) allows. `maxValues`: see `MAX_VALUES`; more where
 * the operator allows larger requests. `nulls`: kept where null says something else than absent.
 */
export function parseJson(
  raw: Uint8Array,
  maxValues: number = MAX_VALUES,
  nulls: 'absent' | 'kept' = 'absent',
): Parsed {
  if (raw.length === 0) return { ok: false, fault: 'Request body is missing.' };
  if (!isUtf8(raw)) return { ok: false, fault: 'Request body is not valid UTF-8.' };
  // A shorter one cannot hold too much; what is nested too deep in it is found below.
  if (raw.length > maxValues) {
    const excess = excessIn(raw, maxValues);
    if (excess !== null) return { ok: false, fault: excess };
  }
  let text = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('utf8');
  if (text.charCodeAt(0) === 0xfeff) text = text.slice(1);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { ok: false, fault: faultIn(text) };
  }
  if (typeof value === 'object' && value !== null && !dropNulls(value, 1, nulls === 'kept')) {
    return { ok: false, fault: TOO_DEEP };
  }
  return { ok: true, value };
}

const TOO_DEEP = `Request body is nested deeper than ${MAX_DEPTH} levels.`;

/** What is too much in a text that may not even be JSON; null = nothing. Strings are passed over. */
function excessIn(raw: Uint8Array, maxValues: number): string | null {
  const bytes = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  let depth = 0;
  let values = 1;
  for (let at = 0; at < bytes.length; at++) {
    switch (bytes[at]) {
      case 34: {
        // To the closing quote: the first one behind an even number of backslashes.
        let end = bytes.indexOf(34, at + 1);
        while (end > 0) {
          let slashes = 0;
          while (bytes[end - 1 - slashes] === 92) slashes++;
          if (slashes % 2 === 0) break;
          end = bytes.indexOf(34, end + 1);
        }
        if (end < 0) return null;
        at = end;
        break;
      }
      case 91:
      case 123:
        if (++depth > MAX_DEPTH) return TOO_DEEP;
        if (++values > maxValues) return `Request body has more than ${maxValues} values.`;
        break;
      case 93:
      case 125:
        depth--;
        break;
      case 44:
        if (++values > maxValues) return `Request body has more than ${maxValues} values.`;
    }
  }
  return null;
}

/** Removes null members of objects, unless they are kept (not of arrays: a null element is a fault of its own). False = nested too deep. */
function dropNulls(value: object, depth: number, keep: boolean): boolean {
  if (depth > MAX_DEPTH) return false;
  if (Array.isArray(value)) {
    for (const item of value) {
      if (typeof item === 'object' && item !== null && !dropNulls(item, depth + 1, keep)) return false;
    }
    return true;
  }
  const members = value as Record<string, unknown>;
  // JSON.parse makes plain objects, so `in` sees own keys only.
  for (const key in members) {
    const member = members[key];
    if (typeof member !== 'object') continue;
    if (member !== null) {
      if (!dropNulls(member, depth + 1, keep)) return false;
    } else if (!keep) delete members[key];
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
