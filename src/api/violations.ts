/**
 * Violations: what is wrong with a request, in Infobip's words and with its path, in the order in which the request says it.
 *
 * Promises: deterministic; at most `MAX_VIOLATIONS`; no values of the request are quoted. Source of the wording: violations
 * seen in Infobip's published samples.
 */
import type { z } from 'zod';

/** One thing wrong with a request. `property`: JSON path like `messages[0].destinations[1].to`; '' = the whole body. */
export interface Violation {
  property: string;
  violation: string;
}

/** How many violations an answer lists; the rest would not help anybody. */
export const MAX_VIOLATIONS = 100;

export const words = {
  null: 'must not be null',
  number: 'must be a number',
  blank: 'must not be blank',
  empty: 'must not be empty',
  size: (min: number, max: number) => `size must be between ${min} and ${max}`,
  least: (min: number) => `must be greater than or equal to ${min}`,
  most: (max: number) => `must be less than or equal to ${max}`,
  // Article and all as the contract has it: integrations compare the text.
  type: (type: string) => `must be a ${type}`,
  enum: 'Provide one of the valid values.',
  date: "must be a date-time with zone: yyyy-MM-dd'T'HH:mm:ss.SSSZ",
  far: 'must not be more than 180 days ahead',
  nul: 'must not contain the character U+0000',
  surrogate: 'must not contain unpaired surrogates',
  toOrGroup: 'Provide either to or group, not both.',
  window: 'must be at least 1 hour after from',
  upload: 'refers to no uploaded content',
  unknown: 'is not known here',
  nothing: 'Provide sendAt, sendingSpeedLimit or both.',
} as const;

const SEGMENT_TYPES = ['TEXT', 'LINK', 'SMIL', 'UPLOADED_REFERENCE'] as const;

/** A violation before its path is text. */
export interface Found {
  path: readonly PropertyKey[];
  violation: string;
}

/** A JSON object, as opposed to null and arrays. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Our words for an issue of zod. */
export function translate(issue: z.core.$ZodIssue, path: readonly PropertyKey[], found: Found[]): void {
  const { input } = issue;
  const say = (violation: string) => found.push({ path, violation });
  switch (issue.code) {
    case 'custom':
      return void say(issue.message);
    case 'invalid_type':
      if (input === undefined || input === null) return void say(words.null);
      // A number that need not be whole says so itself.
      if (issue.expected === 'number' && issue.message === words.number) return void say(words.number);
      return void say(words.type(issue.expected === 'number' ? 'integer' : issue.expected));
    case 'invalid_value':
      if (input === undefined || input === null) return void say(words.null);
      return void say(typeof input === 'string' ? words.enum : words.type('string'));
    case 'too_small':
      return void say(words.empty);
    case 'too_big':
      return void say(words.size(1, Number(issue.maximum)));
    case 'unrecognized_keys':
      // Only where nothing that is not known is let pass: the operator's door.
      for (const key of issue.keys) found.push({ path: [...path, key], violation: words.unknown });
      return;
    case 'invalid_union':
      translateUnion(issue, path, found);
      return;
    default:
      return void say(issue.message);
  }
}

/** Unions here: segments by `type` (zod names the place), destinations by whether there is a `group`. */
function translateUnion(issue: z.core.$ZodIssueInvalidUnion, path: readonly PropertyKey[], found: Found[]): void {
  const { input } = issue;
  if (issue.errors.length === 0) {
    const type = isObject(input) ? input.type : undefined;
    const violation =
      type === undefined
        ? `${words.enum} Valid: ${SEGMENT_TYPES.join(', ')}.`
        : typeof type === 'string'
          ? words.enum
          : words.type('string');
    found.push({ path, violation });
    return;
  }
  const branch = issue.errors[isObject(input) && input.group !== undefined ? 1 : 0] ?? [];
  for (const inner of branch) translate(inner, [...path, ...inner.path], found);
}

/** Sorted as the request is written, a missing member after the present ones of its object; then cut to 100. */
export function inDocumentOrder(found: readonly Found[], body: unknown): Violation[] {
  const places = new Map<object, Map<string, number>>();
  const placeOf = (parent: object, key: PropertyKey): number => {
    if (typeof key === 'number') return key;
    let keys = places.get(parent);
    if (keys === undefined) {
      keys = new Map(Object.keys(parent).map((name, index) => [name, index]));
      places.set(parent, keys);
    }
    return keys.get(String(key)) ?? keys.size;
  };
  const ranked = found.map(({ path, violation }) => {
    const rank: number[] = [];
    let value = body;
    for (const key of path) {
      if (typeof value !== 'object' || value === null) break;
      rank.push(placeOf(value, key));
      value = (value as Record<PropertyKey, unknown>)[key];
    }
    return { rank, path, violation };
  });
  ranked.sort((a, b) => {
    for (let i = 0; i < a.rank.length && i < b.rank.length; i++) {
      const difference = a.rank[i]! - b.rank[i]!;
      if (difference !== 0) return difference;
    }
    return a.rank.length - b.rank.length;
  });
  return ranked.slice(0, MAX_VIOLATIONS).map(({ path, violation }) => ({ property: property(path), violation }));
}

/** `messages[0].destinations[1].to` */
export function property(path: readonly PropertyKey[]): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text;
}
