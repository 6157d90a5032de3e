/**
 * The operator's way to an account's endpoints: the URLs that take its webhooks, what is sent along and what signs it
 * (`/admin/1/accounts/:account/endpoints`). Routes of the operator's door (`admin.ts`), which judges who may ask; the account itself
 * has the same under `/webhooks/1/endpoints`.
 *
 * Promises: a secret is shown once, by the request that makes it; the audit log names the place of a URL, never its query, its headers
 * or its secret.
 *
 * Fails: as the door: rejects with StoreUnavailable or a bug, all else is an Answer.
 */
import type { Env } from '../env.ts';
import type { OperatorChange, Store } from '../store/contract.ts';
import type { Asked, Handler, Method } from './admin.ts';
import { type Answer, apiError } from './errors.ts';
import { ok, valid } from './intake.ts';
import { readParameters } from './queries.ts';
import { endpointBody, endpointChange, endpointQuery, endpointView, kindOf } from './webhooks.ts';

/** Where a URL leads, without what may be secret in it. */
export function placeOf(url: string): string {
  const parsed = URL.parse(url);
  return parsed === null ? '' : parsed.origin + parsed.pathname;
}

/** The routes; `checkCallout` says what is wrong with a URL that is to be called, null = nothing. `change` makes all changes or none. */
export function endpointRoutes(options: {
  store: Store;
  env: Env;
  checkCallout(url: string): string | null;
  change(
    asked: Asked,
    action: string,
    changes: OperatorChange[],
    detail: object,
    answer: () => object | Promise<object>,
  ): Promise<Answer>;
}): Record<string, Partial<Record<Method, Handler>>> {
  const { store, env, change } = options;
  const body = endpointBody(options.checkCallout);
  const account = (asked: Asked): number => asked.account?.no ?? 0;

  return {
    'accounts/:account/endpoints': {
      GET: async (asked) => ok({ results: (await store.endpointList(account(asked))).map(endpointView) }),
      PUT: async (asked) => {
        const read = valid(body, asked.body);
        if (!read.ok) return apiError('E400', { violations: read.violations });
        const no = account(asked);
        const same = ({ kind, url }: { kind: string; url: string }): boolean =>
          kind === kindOf(read.value.kind) && url === read.value.url;
        const known = (await store.endpointList(no)).some(same);
        const { put, made } = endpointChange(no, read.value, known, env);
        const detail = { kind: put.kind, url: placeOf(put.url), secret: put.secret === undefined ? 'kept' : 'set' };
        return change(asked, 'endpoint set', [{ kind: 'endpoint', put }], detail, async () => {
          const setting = (await store.endpointList(no)).find(same);
          return {
            ...(setting === undefined ? {} : endpointView(setting)),
            ...(made === null ? {} : { secret: made }),
          };
        });
      },
      DELETE: async (asked) => {
        const read = readParameters(endpointQuery, Object.fromEntries(asked.query));
        if (!read.ok) return apiError('E400', { violations: read.violations });
        const { kind, url } = read.values;
        const drop = { kind: 'endpointDrop', account: account(asked), hook: kindOf(kind), url } as const;
        const detail = { kind: drop.hook, url: placeOf(url) };
        return change(asked, 'endpoint removed', [drop], detail, () => ({ removed: 1 }));
      },
    },
  };
}
