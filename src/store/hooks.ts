/**
 * What both engines apply to their outbox, pure: codes of the kinds, how many events make a POST, how secrets take turns.
 */
import { isDeepStrictEqual } from 'node:util';
import type { DeliveryState, EndpointPut, EndpointSetting, HookKind } from './contract.ts';

/** Kinds by their code in rows; never reused. */
export const HOOK_KINDS = ['delivery', 'inbound', 'click'] as const satisfies readonly HookKind[];

/** The code of a kind. */
export function kindCode(kind: HookKind): number {
  return HOOK_KINDS.indexOf(kind);
}

/** The kind of a code. */
export function kindOf(code: number): HookKind {
  return HOOK_KINDS[code] ?? 'delivery';
}

/**
 * Kinds of event rows: 0 and 1 tell of a message's status (changed; noted), 2 of a message from a handset. 3 is a click's, about
 * the number of its message: its words are the body of its POST.
 */
export const EVENT_INBOUND = 2;
/** A click on a short link; its words are the body of its POST. */
export const EVENT_CLICK = 3;

/** Most events in one POST by the code of its kind: up to 100 reports; a click is an object of its own. */
export const POST_MOST = [100, 20, 1] as const;
/** The same in SQL, for an endpoint `e`-like row whose kind stands in `column`. */
export const postMostSql = (column: string): string =>
  `CASE ${column} WHEN 0 THEN ${POST_MOST[0]} WHEN 1 THEN ${POST_MOST[1]} ELSE ${POST_MOST[2]} END`;

/** How long an inbound message can be pulled. */
export const INBOX_MS = 7 * 86_400_000;
/** How long exhausted webhooks are kept from their end on. */
export const EXHAUSTED_MS = 7 * 86_400_000;
/** Messages from handsets are kept for this long at least: until nobody can pull them or fetch their parts, or repeat them. */
export const INBOUND_MIN_MS = 7 * 86_400_000;

type Secrets = EndpointSetting['secrets'];

/** The secrets that sign now. */
export function validSecrets(secrets: Secrets, now: number): string[] {
  return secrets.filter(({ until }) => until === null || until > now).map(({ secret }) => secret);
}

/** Settings after a change. */
export function changed(before: EndpointSetting | null, put: EndpointPut, now: number): EndpointSetting {
  const { reworded } = put;
  if (before !== null && reworded !== undefined) {
    const { secrets, headers } = before;
    return isDeepStrictEqual({ secrets, headers }, reworded.from) ? { ...before, ...reworded.to } : before;
  }
  return {
    kind: put.kind,
    url: put.url,
    contentType: put.contentType ?? before?.contentType ?? 'application/json',
    isDefault: put.isDefault ?? before?.isDefault ?? false,
    headers: put.headers ?? before?.headers ?? {},
    secrets: secretsAfter(before?.secrets ?? [], put.secret, now),
  };
}

function secretsAfter(before: Secrets, change: EndpointPut['secret'], now: number): Secrets {
  if (change === undefined) return before;
  if (change === null) return [];
  const present = before.find(({ until }) => until === null);
  if (present?.secret === change.value) return before;
  const old = present === undefined || change.oldForMs <= 0 ? [] : [{ ...present, until: now + change.oldForMs }];
  return [{ secret: change.value, until: null }, ...old];
}

/** Webhooks that one page of deliveries may look at. */
export const LOOKED_AT = 5_000;

/** By the number that a webhook's row holds. */
export const DELIVERY_STATES: readonly DeliveryState[] = ['OPEN', 'DELIVERED', 'EXHAUSTED'];
