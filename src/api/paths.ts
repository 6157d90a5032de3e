/**
 * The paths of the customer's door and the methods that each has. What is not here does not exist (404), whatever the router
 * could say of it.
 */
import { PART_PATH } from '../domain/inbound.ts';
import { CLICKS } from './clicks.ts';
import { INBOX, OPT_OUTS } from './inbox.ts';
import { SESSION, TOKEN } from './sessions.ts';
import { ADVANCED, OLDER_LOGS, OLDER_REPORTS } from './v1.ts';
import { DELIVERIES, ENDPOINTS, REARM, REPLAY } from './webhooks.ts';

export const SEND = '/mms/2/messages';
export const CONTENT = '/mms/1/content';
export const BULKS = '/mms/2/bulks';
export const BULK_STATUS = '/mms/2/bulks/status';
export const STORY = '/mms/2/messages/';
/** Every path and the methods that it has, as the Allow header says them. */
const ALLOW = new Map([
  [SEND, 'POST'],
  [CONTENT, 'POST'],
  ['/mms/2/reports', 'GET'],
  [BULKS, 'GET, PUT'],
  [BULK_STATUS, 'GET, PUT'],
  ['/mms/2/logs', 'GET'],
  ['/mms/2/events', 'GET'],
  [CLICKS, 'GET'],
  [ADVANCED, 'POST'],
  [OLDER_REPORTS, 'GET'],
  [OLDER_LOGS, 'GET'],
  [INBOX, 'GET'],
  [OPT_OUTS, 'GET, POST, DELETE'],
  [DELIVERIES, 'GET'],
  [REPLAY, 'POST'],
  [REARM, 'POST'],
  [ENDPOINTS, 'GET, PUT, DELETE'],
  [SESSION, 'POST, DELETE'],
  [TOKEN, 'POST'],
  ['/livez', 'GET, HEAD'],
  ['/readyz', 'GET, HEAD'],
  ['/metrics', 'GET, HEAD'],
  ['/openapi.json', 'GET, HEAD'],
]);

/** What every process has, whatever its roles. */
export const PROBES = new Set(['/livez', '/readyz', '/metrics']);

/** The methods of a path; undefined = there is no such path. */
export function allowOf(path: string): string | undefined {
  const allow = ALLOW.get(path);
  if (allow !== undefined) return allow;
  if (replayedId(path) !== null) return 'POST';
  // Whoever holds the URL of a part may ask how large it is before fetching it.
  if (isBelow(path, PART_PATH)) return 'GET, HEAD';
  return isBelow(path, STORY) ? 'GET' : undefined;
}

function isBelow(path: string, place: string): boolean {
  return path.length > place.length && path.startsWith(place) && !path.includes('/', place.length);
}

/** The webhook that POST to this path makes again; null = another path. */
export function replayedId(path: string): string | null {
  const found = /^\/webhooks\/1\/deliveries\/([^/]+)\/replay$/.exec(path);
  return found ? (found[1] as string) : null;
}

/** A URL without its query. */
export function pathOf(url: string): string {
  const end = url.indexOf('?');
  return end < 0 ? url : url.slice(0, end);
}
