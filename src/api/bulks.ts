/**
 * Bulks: GET and PUT /mms/2/bulks (when it leaves and how fast; the list) and /mms/2/bulks/status (pause, resume, cancel). Ours,
 * after the model of Infobip's SMS family.
 *
 * Promises: a change is answered after its commit, and holds from then on for all that waits; a change to what is so already is
 * a 200; one that the bulk's status forbids is a 409 that says so and changes nothing; a bulk of another account is a 404.
 *
 * Fails: rejects with StoreUnavailable or a bug; what makes no sense is an Answer.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { z } from 'zod';
import type { Ids } from '../domain/ids.ts';
import { formatInstant, parseInstant } from '../domain/schedule.ts';
import type { Env } from '../env.ts';
import type { Bulk, BulkChange, BulkName, BulkStatus, Steered, Store } from '../store/contract.ts';
import { type Answer, apiError, JSON_HEADERS, malformed } from './errors.ts';
import { parseJson } from './json.ts';
import { type Intake, isEncoded, isJson } from './messages.ts';
import { limit, readParameters, word } from './queries.ts';
import { scheduleParts } from './schema.ts';
import { type Found, inDocumentOrder, isObject, translate, type Violation, words } from './violations.ts';

/** Bytes of the largest body. */
const BODY_MAX = 16 * 1024;
/** Bulks of a page: default. */
const LIMIT_DEFAULT = 50;

const STATUSES = ['PENDING', 'PROCESSING', 'PAUSED', 'CANCELED', 'FINISHED'] as const satisfies readonly BulkStatus[];

/** GET /mms/2/bulks. */
export const bulksQuery = z.object({ bulkId: word.optional(), limit: limit.optional(), cursor: word.optional() });
/** All others. */
export const bulkQuery = z.object({ bulkId: word });

/** PUT /mms/2/bulks. `clock.now` is read at each parse. */
export function bulkBody(clock: { now: number }) {
  const { sendAt, sendingSpeedLimit } = scheduleParts(clock);
  return z
    .object({ sendAt: sendAt.optional(), sendingSpeedLimit: sendingSpeedLimit.optional() })
    .check(({ value, issues }) => {
      if (value.sendAt === undefined && value.sendingSpeedLimit === undefined) {
        issues.push({ code: 'custom', message: words.nothing, input: value });
      }
    })
    .meta({ id: 'BulkRequest', description: 'sendAt moves only while the bulk is PENDING or PAUSED.' });
}

/** PUT /mms/2/bulks/status. */
export const bulkStatusBody = z.object({ status: z.enum(STATUSES) }).meta({ id: 'BulkStatusRequest' });

export interface Bulks {
  /** One bulk, or the list. */
  get(account: number, query: unknown): Promise<Answer>;
  getStatus(account: number, query: unknown): Promise<Answer>;
  /** PUT to a URL with this query. */
  put(query: unknown): Intake<{ account: number; bulkId: string }>;
  putStatus(query: unknown): Intake<{ account: number; bulkId: string }>;
}

/** The verbs of bulks, each for one account. */
export function createBulks(options: { store: Store; env: Env; ids: Ids }): Bulks {
  const { store, env, ids } = options;
  const clock = { now: 0 };
  const body = bulkBody(clock);

  /** The names under which a bulk may be known: a generated id, and one that the customer gave. */
  function namesOf(bulkId: string): BulkName[] {
    const no = ids.parse('bulk', bulkId);
    return no === null ? [{ id: bulkId }] : [{ no }, { id: bulkId }];
  }

  async function find(account: number, bulkId: string): Promise<Bulk | null> {
    for (const name of namesOf(bulkId)) {
      const bulk = await store.bulkGet(account, name);
      if (bulk) return bulk;
    }
    return null;
  }

  async function steer(account: number, bulkId: string, changes: BulkChange[]): Promise<Steered> {
    let steered: Steered = { kind: 'notFound' };
    for (const name of namesOf(bulkId)) {
      steered = await store.bulkSteer(account, name, changes);
      if (steered.kind !== 'notFound') break;
    }
    if (steered.kind === 'done') {
      const { status, progress } = steered.bulk;
      env.log.info({ account, bulkId, changes: changes.map(({ kind }) => kind), status, progress }, 'bulk steered');
    }
    return steered;
  }

  const printed = (bulk: Bulk): string => bulk.id ?? ids.print('bulk', bulk.no);
  const standing = (bulk: Bulk): object => ({ bulkId: printed(bulk), status: bulk.status, progress: bulk.progress });
  const view = (bulk: Bulk): object => ({
    bulkId: printed(bulk),
    sendAt: formatInstant(bulk.sendAt),
    // Does not appear without a limit.
    sendingSpeedLimit: bulk.speed ?? undefined,
    status: bulk.status,
    progress: bulk.progress,
  });

  /** What the headers of a PUT tell; the query has its turn when the key is known. */
  function head(
    headers: IncomingHttpHeaders,
    account: number,
    query: unknown,
  ): Answer | { account: number; bulkId: string } {
    const read = readParameters(bulkQuery, query);
    if (!read.ok) return apiError('E400', { violations: read.violations });
    if (!isJson(headers['content-type'])) return apiError('E415');
    if (isEncoded(headers)) return apiError('E415', { action: 'Send the body as it is, without Content-Encoding.' });
    return { account, bulkId: read.values.bulkId };
  }

  function intake(
    query: unknown,
    answer: (account: number, bulkId: string, value: unknown) => Promise<Answer>,
  ): Intake<{ account: number; bulkId: string }> {
    return {
      limit: BODY_MAX,
      tooLarge: apiError('E413', { action: `Send at most ${BODY_MAX} bytes in one request.` }),
      head: (headers, account) => head(headers, account, query),
      async body({ account, bulkId }, bytes) {
        const parsed = parseJson(bytes);
        return parsed.ok ? answer(account, bulkId, parsed.value) : malformed(parsed.fault);
      },
    };
  }

  /** The answer to what was steered. */
  function told(steered: Steered, shown: (bulk: Bulk) => object, refusal: (status: BulkStatus) => Violation[]): Answer {
    switch (steered.kind) {
      case 'done':
        return ok(shown(steered.bulk));
      case 'notFound':
        return apiError('E404');
      case 'conflict':
        return apiError('E409', { violations: refusal(steered.status) });
    }
  }

  async function list(account: number, most: number, before: number | undefined): Promise<Answer> {
    const { bulks, next } = await store.bulkList(account, most, before);
    const cursor = { limit: most, ...(next === null ? {} : { nextCursor: ids.print('bulk', next) }) };
    return ok({ results: bulks.map(view), cursor });
  }

  return {
    async get(account, query) {
      const read = readParameters(bulksQuery, query);
      if (!read.ok) return apiError('E400', { violations: read.violations });
      const { bulkId, cursor } = read.values;
      if (bulkId !== undefined) {
        const bulk = await find(account, bulkId);
        return bulk ? ok(view(bulk)) : apiError('E404');
      }
      const before = cursor === undefined ? undefined : ids.parse('bulk', cursor);
      if (before === null) {
        return apiError('E400', { violations: [{ property: 'cursor', violation: 'is not a valid cursor' }] });
      }
      return list(account, read.values.limit ?? LIMIT_DEFAULT, before);
    },

    async getStatus(account, query) {
      const read = readParameters(bulkQuery, query);
      if (!read.ok) return apiError('E400', { violations: read.violations });
      const bulk = await find(account, read.values.bulkId);
      return bulk ? ok(standing(bulk)) : apiError('E404');
    },

    put: (query) =>
      intake(query, async (account, bulkId, value) => {
        clock.now = env.clock.now();
        const read = valid(body, value);
        if (!read.ok) return apiError('E400', { violations: read.violations });
        const { sendAt, sendingSpeedLimit: speed } = read.value;
        const changes: BulkChange[] = [];
        if (sendAt !== undefined) changes.push({ kind: 'reschedule', sendAt: parseInstant(sendAt) as number });
        if (speed !== undefined) changes.push({ kind: 'limit', speed });
        return told(await steer(account, bulkId, changes), view, (status) => {
          const over = status === 'CANCELED' || status === 'FINISHED';
          const violations: Violation[] = [];
          if (sendAt !== undefined && status !== 'PENDING' && status !== 'PAUSED') {
            const violation = `can be changed only while the bulk is PENDING or PAUSED, it is ${status}`;
            violations.push({ property: 'sendAt', violation });
          }
          if (speed !== undefined && over) {
            const violation = `can be changed only until the bulk has ended, it is ${status}`;
            violations.push({ property: 'sendingSpeedLimit', violation });
          }
          return violations;
        });
      }),

    putStatus: (query) =>
      intake(query, async (account, bulkId, value) => {
        const read = valid(bulkStatusBody, value);
        if (!read.ok) return apiError('E400', { violations: read.violations });
        const { status: wanted } = read.value;
        const refused = (status: BulkStatus): Violation[] => [
          { property: 'status', violation: `cannot become ${wanted} while the bulk is ${status}` },
        ];
        switch (wanted) {
          case 'PAUSED':
            return told(await steer(account, bulkId, [{ kind: 'pause' }]), standing, refused);
          case 'PROCESSING':
            return told(await steer(account, bulkId, [{ kind: 'resume' }]), standing, refused);
          case 'CANCELED':
            return told(await steer(account, bulkId, [{ kind: 'cancel' }]), standing, refused);
          case 'PENDING':
          case 'FINISHED': {
            // Nobody makes a bulk so; it is, or it is not. But what was paused ahead of its time is PENDING once resumed.
            const bulk = await find(account, bulkId);
            if (!bulk) return apiError('E404');
            if (bulk.status === wanted) return ok(standing(bulk));
            if (wanted === 'PENDING' && bulk.status === 'PAUSED' && bulk.sendAt > env.clock.now()) {
              return told(await steer(account, bulkId, [{ kind: 'resume' }]), standing, refused);
            }
            return apiError('E409', { violations: refused(bulk.status) });
          }
        }
      }),
  };
}

function ok(value: object): Answer {
  return { status: 200, headers: JSON_HEADERS, body: JSON.stringify(value) };
}

/** A parsed body against its schema, in the house's words. */
function valid<Value>(
  schema: z.ZodType<Value>,
  body: unknown,
): { ok: true; value: Value } | { ok: false; violations: Violation[] } {
  const result = schema.safeParse(body, { reportInput: true });
  if (result.success) return { ok: true, value: result.data };
  const found: Found[] = [];
  for (const issue of result.error.issues) translate(issue, issue.path, found);
  return { ok: false, violations: inDocumentOrder(found, isObject(body) ? body : {}) };
}
