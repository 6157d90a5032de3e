/**
 * The operator's numbers: whose messages from handsets are, and where they go (`/admin/1/numbers`, `/admin/1/accounts/:account/numbers`).
 * Routes of the operator's door (`admin.ts`), which judges who may ask.
 *
 * Promises: a number belongs to one account; one that is another's is not taken from it (409), it is removed there first. A change
 * counts for the next message from a handset. Each is a line in the audit log, in the transaction that makes it.
 *
 * Fails: as the door: rejects with StoreUnavailable or a bug, all else is an Answer.
 */
import { z } from 'zod';
import type { AdminChange } from '../domain/accounts.ts';
import type { OwnNumber, Store } from '../store/contract.ts';
import type { Asked, Handler, Method } from './admin.ts';
import { type Answer, apiError } from './errors.ts';
import { ok, valid } from './intake.ts';

/** Digits, as carriers write them in what they bring; short codes too. */
const number = z
  .string()
  .regex(/^\+?\d{3,15}$/, 'must be 3 to 15 digits, with or without +')
  .transform((text) => text.replace('+', ''))
  .meta({ type: 'string', example: '441134960000' });
const words = (most: number) => z.string().min(1, 'must not be empty').max(most, `must be at most ${most} characters`);

/** A number, new or changed: the whole of it. */
export const numberBody = z
  .strictObject({
    number,
    url: words(2048)
      .nullable()
      .optional()
      .meta({ description: "Where its messages are posted; absent or null = the account's default inbound endpoint." }),
    pull: z.boolean().optional().meta({ description: 'True: they are only pulled from the inbox, never posted.' }),
    entityId: words(255).nullable().optional(),
    applicationId: words(255).nullable().optional(),
    callbackData: words(4000).nullable().optional(),
  })
  .refine(({ url, pull }) => !pull || url === undefined || url === null, 'has a url, or pull, not both')
  .meta({ id: 'NumberRequest' });

/** A number as this door shows it. */
export const numberAnswer = z
  .strictObject({
    number: z.string(),
    account: z.number().int(),
    url: z.string().nullable(),
    pull: z.boolean(),
    entityId: z.string().nullable(),
    applicationId: z.string().nullable(),
    callbackData: z.string().nullable(),
  })
  .meta({ id: 'Number' });

function numberView({ number, account, url, entity, application, callbackData }: OwnNumber): object {
  const pull = url === '';
  return { number, account, url: pull ? null : url, pull, entityId: entity, applicationId: application, callbackData };
}

/**
 * The routes; `checkCallout` says what is wrong with a URL that is to be called, null = nothing. `change` makes all changes with
 * their line in the log, and its answer.
 */
export function numberRoutes(options: {
  store: Pick<Store, 'numberList'>;
  change(asked: Asked, action: string, changes: AdminChange[], detail: object, answer: () => object): Promise<Answer>;
  checkCallout(url: string): string | null;
}): Record<string, Partial<Record<Method, Handler>>> {
  const { store, change, checkCallout } = options;
  const invalid = (property: string, violation: string): Answer =>
    apiError('E400', { violations: [{ property, violation }] });

  return {
    numbers: { GET: async () => ok({ results: (await store.numberList()).map(numberView) }) },
    'accounts/:account/numbers': {
      GET: async ({ account }) => ok({ results: (await store.numberList(account?.no)).map(numberView) }),
      async POST(asked) {
        const read = valid(numberBody, asked.body);
        if (!read.ok) return apiError('E400', { violations: read.violations });
        const { number: own, url = null, pull = false, entityId, applicationId, callbackData } = read.value;
        const wrong = url === null ? null : checkCallout(url);
        if (wrong !== null) return invalid('url', wrong);
        const account = asked.account?.no ?? 0;
        const put: OwnNumber = {
          ...{ number: own, account, url: pull ? '' : url },
          ...{ entity: entityId ?? null, application: applicationId ?? null, callbackData: callbackData ?? null },
        };
        const changes: AdminChange[] = [{ kind: 'number', number: put }];
        return change(asked, 'number set', changes, { number: own, url, pull }, () => numberView(put));
      },
    },
    'accounts/:account/numbers/:name': {
      async DELETE(asked) {
        const name = asked.name.replace('+', '');
        const changes: AdminChange[] = [{ kind: 'numberDrop', number: name, account: asked.account?.no ?? 0 }];
        return change(asked, 'number removed', changes, { number: name }, () => ({ removed: 1 }));
      },
    },
  };
}
