/**
 * Small JSON bodies of our own endpoints: who asks, the body under its limit, its schema; answers in the form that the path's
 * family has.
 *
 * Fails: `answer` rejects with StoreUnavailable or a bug, which `server.ts` turns into answers; all else is an Answer.
 */
import type { z } from 'zod';
import { type Answer, apiError, errorFor, JSON_HEADERS, malformed, olderError } from './errors.ts';
import { parseJson } from './json.ts';
import { type Intake, isEncoded, isJson } from './messages.ts';
import { type Found, inDocumentOrder, isObject, translate, type Violation } from './violations.ts';

/** The account that asks. */
export interface Asker {
  account: number;
}

/** 200 with `value` as its body. */
export function ok(value: object): Answer {
  return { status: 200, headers: JSON_HEADERS, body: JSON.stringify(value) };
}

/** 400: violations where the family's form has them, else in words. */
export function refusal(path: string, violations: Violation[]): Answer {
  if (!path.startsWith('/mms/1/')) return apiError('E400', { violations });
  const text = violations.map(({ property, violation }) => (property === '' ? violation : `${property} ${violation}`));
  return olderError('E400', { text: `Bad request: ${text.join('; ')}` });
}

/** A parsed body (or query) against its schema, in the house's words. */
export function valid<Value>(
  schema: z.ZodType<Value>,
  body: unknown,
): { ok: true; value: Value } | { ok: false; violations: Violation[] } {
  const result = schema.safeParse(body, { reportInput: true });
  if (result.success) return { ok: true, value: result.data };
  const found: Found[] = [];
  for (const issue of result.error.issues) translate(issue, issue.path, found);
  return { ok: false, violations: inDocumentOrder(found, isObject(body) ? body : {}) };
}

/** A request to `path` whose JSON body has `schema`, of at most `limit` bytes. */
export function jsonIntake<Value>(options: {
  path: string;
  limit: number;
  schema: z.ZodType<Value>;
  answer(account: number, value: Value): Promise<Answer>;
}): Intake<Asker> {
  const { path, limit, schema, answer } = options;
  return {
    limit,
    tooLarge: errorFor(path, 'E413', { action: `Send at most ${limit} bytes in one request.` }),
    head(headers, account) {
      return isJson(headers['content-type']) && !isEncoded(headers) ? { account } : errorFor(path, 'E415');
    },
    async body({ account }, bytes) {
      const parsed = parseJson(bytes);
      if (!parsed.ok) return path.startsWith('/mms/1/') ? olderError('E400') : malformed(parsed.fault);
      const read = valid(schema, parsed.value);
      return read.ok ? answer(account, read.value) : refusal(path, read.violations);
    },
  };
}

/** A request to `path` that needs no body; one that comes is thrown away. */
export function bodyless(path: string, answer: (account: number) => Promise<Answer>): Intake<Asker> {
  return {
    limit: 16 * 1024,
    tooLarge: errorFor(path, 'E413'),
    head: (_headers, account) => ({ account }),
    body: ({ account }) => answer(account),
  };
}
