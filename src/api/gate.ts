/**
 * Where every request that needs a key passes: who asks, whether the credential may use this endpoint, whether the account may ask
 * now, and whether the machine can take more. What is refused is refused before its body is read, in the form of its path's
 * family.
 *
 * Promises: one place for all endpoints; none is without a rule (what is not listed needs `mms:manage`). A request whose share of
 * the limits is at hand passes without waiting for anything.
 *
 * Fails: `pass` rejects with StoreUnavailable or a bug.
 */
import type { IncomingMessage } from 'node:http';
import { networksOf, type Scope } from '../domain/accounts.ts';
import { Places } from '../domain/limits.ts';
import type { Clock } from '../env.ts';
import type { Store } from '../store/contract.ts';
import { type Auth, type Caller, mayUse } from './auth.ts';
import { type Answer, errorFor, tooMany, unauthorized } from './errors.ts';
import type { Limits } from './limits.ts';

const SENDING: readonly Scope[] = ['message:send', 'mms:message:send', 'mms:manage'];
const LOGS: readonly Scope[] = ['mms:manage', 'mms:logs:read'];
const INBOUND: readonly Scope[] = ['inbound-message:read', 'mms:inbound-message:read', 'mms:manage'];
const MANAGE: readonly Scope[] = ['mms:manage'];

/** Scopes of which a credential needs one, by path. Source: Infobip, scopes of the MMS endpoints; ours follow the nearest. */
const SCOPES = new Map<string, readonly Scope[]>([
  ['/mms/2/messages', SENDING],
  ['/mms/2/reports', SENDING],
  ['/mms/2/logs', LOGS],
  ['/mms/2/events', LOGS],
  ['/mms/2/clicks', LOGS],
  ['/mms/2/bulks', SENDING],
  ['/mms/2/bulks/status', SENDING],
  ['/mms/1/content', MANAGE],
  ['/mms/1/inbox/reports', INBOUND],
  ['/mms/1/advanced', SENDING],
  ['/mms/1/single', SENDING],
  ['/mms/1/reports', SENDING],
  ['/mms/1/logs', LOGS],
]);
const STORY = '/mms/2/messages/';
const LOG_PATHS = new Set(['/mms/2/logs', '/mms/1/logs']);
/** What takes messages: places are counted for these. */
const SEND_PATHS = new Set(['/mms/2/messages', '/mms/1/advanced', '/mms/1/single']);

/** Seconds after which to come back to a door that is full for the moment, and to one with too much behind it. */
const FULL_S = 1;
const BEHIND_S = 30;
/** How old what is known of the backlog may be. */
const BACKLOG_MS = 2_000;

export interface Gate {
  pass(request: IncomingMessage, path: string): Caller | Answer | Promise<Caller | Answer>;
  /** The address of who asks, behind proxies that are trusted. */
  addressOf(request: IncomingMessage): string;
  /**
   * The same where it is certain; null = brought by a proxy that is not trusted and says so: nobody knows from where, so it must not
   * pass for the machine that the proxy runs on.
   */
  sureAddressOf(request: IncomingMessage): string | null;
  /**
   * A place for a request whose body is there; null = its path needs none. `leave` frees it; `answer`: what it came to, absent =
   * nothing.
   */
  enter(path: string, account: number): { leave(answer?: Answer): void } | Answer | null;
  figures(): { places: number; under: number; refused: number };
}

/** A gate with all rules. */
export function createGate(options: {
  auth: Auth;
  limits: Limits;
  store: Store;
  clock: Clock;
  /** Networks of proxies whose X-Forwarded-For is believed. */
  trustedProxies: readonly string[];
  /** Messages that may wait; beyond it sends are told to come back. */
  maxWaiting: number;
}): Gate {
  const { auth, limits, store, clock, maxWaiting } = options;
  const trusted = networksOf(options.trustedProxies);
  const places = new Places();
  let refused = 0;
  let turnBegan: number | null = null;
  let waiting = 0;
  let asked = Number.NEGATIVE_INFINITY;

  function addressOf(request: IncomingMessage): string {
    let address = request.socket.remoteAddress ?? '';
    if (options.trustedProxies.length === 0) return address;
    const forwarded = String(request.headers['x-forwarded-for'] ?? '').split(',');
    // From the right: the last one was written by our own proxy, the first by anybody.
    while (trusted(address) && forwarded.length > 0) {
      // Some write the port too: `192.0.2.1:443`, `[2001:db8::1]:443`.
      const before = (forwarded.pop() as string).trim().replace(/^\[([\da-f:.]+)\](:\d+)?$|^([\d.]+):\d+$/i, '$1$3');
      if (before === '') break;
      address = before;
    }
    return address;
  }

  function sureAddressOf(request: IncomingMessage): string | null {
    const { headers, socket } = request;
    const says = headers['x-forwarded-for'] !== undefined;
    if (says ? !trusted(socket.remoteAddress ?? '') : headers.forwarded !== undefined) return null;
    return addressOf(request);
  }

  /**
   * When the thread began with what had come by then: whoever is served last of a rush has waited since, and that counts. Without
   * it a thread that is behind looks as quick as ever.
   */
  function turn(): number {
    if (turnBegan === null) {
      turnBegan = clock.monotonic();
      clock.setTimeout(() => {
        turnBegan = null;
      }, 0);
    }
    return turnBegan;
  }

  function behind(): boolean {
    const now = clock.monotonic();
    if (now - asked >= BACKLOG_MS) {
      asked = now;
      store.stats().then(
        (stats) => {
          waiting = stats.waiting;
        },
        // The accept itself will tell.
        () => undefined,
      );
    }
    return waiting >= maxWaiting;
  }

  /** The refusals of a rush, made once: by path and seconds, of few paths. */
  const made = new Map<string, Answer>();
  const refusal = (path: string, seconds: number): Answer => {
    refused++;
    if (!SEND_PATHS.has(path) || seconds > BEHIND_S) return tooMany(path, seconds);
    const name = `${path} ${seconds}`;
    const found = made.get(name) ?? tooMany(path, seconds);
    made.set(name, found);
    return found;
  };

  function judged(caller: Caller, path: string): Caller | Answer | Promise<Caller | Answer> {
    const scopes = SCOPES.get(path) ?? (path.startsWith(STORY) ? LOGS : MANAGE);
    if (!mayUse(caller, scopes)) return errorFor(path, 'E403');
    if (SEND_PATHS.has(path)) {
      if (!places.free(caller.account, clock.monotonic())) return refusal(path, FULL_S);
      if (behind()) return refusal(path, BEHIND_S);
    }
    const wait = limits.request(caller, auth.policy(caller.account), LOG_PATHS.has(path));
    if (typeof wait === 'number') return wait === 0 ? caller : refusal(path, wait);
    return wait.then((seconds) => (seconds === 0 ? caller : refusal(path, seconds)));
  }

  return {
    addressOf,
    sureAddressOf,
    pass(request, path) {
      const given = auth.caller(request.headers.authorization, addressOf(request));
      const next = (caller: Awaited<typeof given>) => {
        if (caller === null) return unauthorized(path);
        return 'busyS' in caller ? refusal(path, caller.busyS) : judged(caller, path);
      };
      return given instanceof Promise ? given.then(next) : next(given);
    },
    enter(path, account) {
      if (!SEND_PATHS.has(path)) return null;
      const entered = clock.monotonic();
      if (!places.free(account, entered)) return refusal(path, FULL_S);
      places.enter(account, entered);
      const began = turn();
      return {
        leave(answer) {
          const now = clock.monotonic();
          // What was refused for its words never waited for the disk.
          const took = answer?.status === 200 ? { ms: now - began, waited: entered - began } : null;
          places.leave(account, took, now);
        },
      };
    },
    figures: () => ({ places: places.places, under: places.under, refused }),
  };
}
