/**
 * The operator's door: accounts, keys, logins, senders, domains, prices, blocks, the audit log, and all of it at once (`apply`).
 * Its own key (POSTCARD_ADMIN_KEY) and its own networks (POSTCARD_ADMIN_ALLOW, loopback unless set).
 *
 * Promises: without an admin key there is nothing here (404), as for whoever comes from elsewhere; keys are shown once, when they
 * are made, and passwords never; each change is a line in the audit log, in the transaction that makes it; `apply` changes nothing
 * where nothing differs.
 *
 * Fails: rejects with StoreUnavailable (503) or a bug (500); all else is an Answer.
 */
import { hash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import {
  type Account,
  type Administered,
  type AdminTerms,
  type ApiKey,
  type Block,
  blockName,
  blockValue,
  changedSettings,
  DEFAULT_SETTINGS,
  DIRECTORY_MAX,
  type Directory,
  type Held,
  networksOf,
  type Refused,
  SPEND_MAX,
} from '../domain/accounts.ts';
import { bucketOf, DAY_MS, purseOf, SPEND, spendBucket } from '../domain/limits.ts';
import { senderKey } from '../domain/optout.ts';
import { micros } from '../domain/prices.ts';
import type { Channel } from '../domain/routing.ts';
import { formatInstant } from '../domain/schedule.ts';
import type { Env } from '../env.ts';
import type { OperatorChange, Rerouted, Store } from '../store/contract.ts';
import { endpointRoutes } from './admin-endpoints.ts';
import {
  accountBody,
  accountChange,
  applyBody,
  auditQuery,
  blockBody,
  creditBody,
  domainBody,
  keyBody,
  loginBody,
  pricesBody,
  rerouteBody,
  senderBody,
} from './admin-schema.ts';
import { createApply } from './apply.ts';
import type { Auth } from './auth.ts';
import { type Answer, apiError, malformed, unauthorized, unavailable } from './errors.ts';
import { ok, valid } from './intake.ts';
import { MAX_VALUES, parseJson } from './json.ts';
import { MESSAGES } from './limits.ts';
import { BAD_KEY, isEncoded, isJson, KEY_CONFLICT, VISIBLE } from './messages.ts';
import { numberRoutes } from './numbers.ts';
import { loginKept } from './passwords.ts';
import { endpointsFull } from './webhooks.ts';

/** Where everything of this door lies. */
export const ADMIN = '/admin/1/';
/** A file with thousands of prices. */
const BODY_MAX = 4 * 1024 * 1024;
const AUDIT_PAGE = 100;
/** What money is counted in. */
const MICROS = micros(1);
/** How often what is read, changed and written again is tried while others come in between. */
const RUNS = 20;

export interface Admin {
  /** Bytes of the largest body. */
  limit: number;
  /** Judged before the body is read; null = go on. */
  refuse(request: IncomingMessage, path: string): Answer | null;
  answer(request: IncomingMessage, path: string, query: URLSearchParams, body: Buffer): Promise<Answer>;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** What a handler is told. */
export interface Asked {
  /** The account in the path; of `all`, which only blocks have, null. */
  account: Account | null;
  /** The last part of the path. */
  name: string;
  query: URLSearchParams;
  body: unknown;
  by: string;
  /** If-Match and Idempotency-Key as they came; undefined = there is none. */
  ifMatch: string | undefined;
  once: string | undefined;
}
export type Handler = (asked: Asked) => Promise<Answer>;

/** An account as this door shows it. */
export function accountView(account: Account): object {
  const { no, name, totalSince: _, ...settings } = account;
  return { account: no, name, ...settings };
}

/** A key without what would open the door. */
export function keyView(key: ApiKey): object {
  const instant = (at: number | null): string | null => (at === null ? null : formatInstant(at));
  return {
    id: key.id,
    label: key.label,
    scopes: key.scopes,
    validFrom: instant(key.validFrom),
    validUntil: instant(key.validUntil),
    allow: key.allow,
    requestsPerMinute: key.requestsPerMinute,
    createdAt: key.createdAt === 0 ? null : formatInstant(key.createdAt),
    revokedAt: instant(key.revokedAt),
  };
}

const NOT_FOUND = apiError('E404');
/** What is not there is not dropped. */
const DROPS: ReadonlySet<string> = new Set(['drop', 'numberDrop', 'endpointDrop']);
type Done = Extract<Administered, { kind: 'done' }>;

/** Makes the door; with no key it is not there. */
export function createAdmin(options: {
  store: Store;
  env: Env;
  auth: Auth;
  adminKey: string | null;
  adminAllow: readonly string[];
  /** Null = not known for certain. */
  sureAddressOf(request: IncomingMessage): string | null;
  /** What is wrong with a URL that we shall call; null = nothing. */
  checkCallout(url: string): string | null;
  /** Carriers of the configuration with their channels; undefined = not known. */
  channels?(): ReadonlyMap<string, Channel> | undefined;
}): Admin {
  const { store, env, auth, adminKey, sureAddressOf } = options;
  const allowed = networksOf(options.adminAllow);
  const right = adminKey === null ? null : Buffer.from(hash('sha256', adminKey), 'hex');

  function refuse(request: IncomingMessage, path: string): Answer | null {
    const address = sureAddressOf(request);
    if (right === null || address === null || !allowed(address)) return NOT_FOUND;
    const found = /^app +(\S{1,1000}) *$/i.exec(request.headers.authorization ?? '');
    const given = Buffer.from(hash('sha256', found?.[1] ?? ''), 'hex');
    if (!timingSafeEqual(given, right) || !found) return unauthorized(path);
    const route = routeOf(path);
    if (route === null) return NOT_FOUND;
    const allow = Object.keys(route.handlers).join(', ');
    if (!Object.hasOwn(route.handlers, request.method ?? '')) return apiError('E405', { headers: { allow } });
    const bodied = request.method === 'POST' || request.method === 'PUT';
    if (bodied && (!isJson(request.headers['content-type']) || isEncoded(request.headers))) return apiError('E415');
    return null;
  }

  /** All changes, and what they are to the client; null = the directory is not that of `terms` any more. */
  async function changed(
    asked: Asked,
    action: string,
    changes: OperatorChange[],
    detail: object,
    answer: (done: Done) => object | Promise<object>,
    terms: AdminTerms = {},
  ): Promise<Answer | null> {
    const account = asked.account?.no ?? null;
    const done = await store.administer(changes, { by: asked.by, action, account, detail }, terms);
    if (done.kind === 'stale') return null;
    if (done.kind === 'notFound') return NOT_FOUND;
    if (done.kind === 'conflict') return taken(changes[done.change] as OperatorChange);
    if (done.kind === 'refused') return refusedFor(done.why);
    if (changes.some(({ kind }) => DROPS.has(kind)) && done.dropped === 0) return NOT_FOUND;
    // Whoever asks next, here, meets the change.
    await auth.refresh();
    env.log.info({ action, account: account ?? done.accounts[0], by: asked.by }, 'administered');
    return ok(await answer(done));
  }

  /** As `changed`, of what does not hang on what was there. */
  async function change(
    asked: Asked,
    action: string,
    changes: OperatorChange[],
    detail: object,
    answer: (accounts: number[], done: Done) => object | Promise<object>,
  ): Promise<Answer> {
    const given = await changed(asked, action, changes, detail, (done) => answer(done.accounts, done));
    return given ?? unavailable(ADMIN, 1);
  }

  /**
   * What is read, changed and written again: as often as somebody else comes in between, so that no change undoes another. With
   * If-Match it is only done where what was read is what the client has seen (412).
   */
  async function amend(
    asked: Asked,
    view: () => object,
    make: () => { action: string; changes: OperatorChange[]; detail: object },
  ): Promise<Answer> {
    // Another node may have changed it, and the client may know that before us.
    if (asked.ifMatch !== undefined) await auth.refresh();
    for (let run = 0; run < RUNS; run++) {
      const at = auth.directory().revision;
      if (asked.ifMatch !== undefined && !matches(asked.ifMatch, tagOf(view()))) return apiError('E412');
      const { action, changes, detail } = make();
      const given = await changed(asked, action, changes, detail, view, { at });
      if (given !== null) return given.status === 200 ? tagged(view()) : given;
      await auth.refresh();
    }
    return unavailable(ADMIN, 1);
  }

  const numbered = (no: number): Account => auth.directory().accounts.find((one) => one.no === no) as Account;
  const put = (what: Held, name: string, account: number, body: object): OperatorChange => ({
    kind: 'put',
    what,
    name,
    account,
    body,
  });
  const mine = <Row extends { account: number }>(rows: readonly Row[], { account }: Asked): Row[] =>
    rows.filter((row) => row.account === (account?.no ?? 0));
  const list =
    <Row extends { account: number }>(
      rows: (directory: Directory) => readonly Row[],
      view: (row: Row) => object,
    ): Handler =>
    async (asked) =>
      ok({ results: mine(rows(auth.directory()), asked).map(view) });
  /** A body by its schema, and room for one more row. */
  const taking =
    <Value>(
      schema: Parameters<typeof valid<Value>>[0],
      rows: (directory: Directory) => readonly unknown[],
      work: (asked: Asked, value: Value) => Promise<Answer>,
    ): Handler =>
    async (asked) => {
      const read = valid(schema, asked.body);
      if (!read.ok) return apiError('E400', { violations: read.violations });
      if (rows(auth.directory()).length >= DIRECTORY_MAX) return full();
      return work(asked, read.value);
    };
  const dropping =
    (what: Held, nameOf: (asked: Asked) => string): Handler =>
    (asked) => {
      const account = asked.account?.no ?? 0;
      const name = nameOf(asked);
      return change(asked, `${what} removed`, [{ kind: 'drop', what, name, account }], { name }, () => ({
        removed: 1,
      }));
    };

  const apply = createApply({ store, env, auth });
  const applied = applyBody(options.checkCallout);
  const account = (asked: Asked): number => asked.account?.no ?? 0;
  const pricesOf = (asked: Asked): object => ({
    prices: mine(auth.directory().prices, asked).flatMap(({ prices }) => prices),
  });

  const ROUTES: Record<string, Partial<Record<Method, Handler>>> = {
    ...numberRoutes({ store, checkCallout: options.checkCallout, change }),
    ...endpointRoutes({ store, env, checkCallout: options.checkCallout, change }),
    accounts: {
      GET: async () => ok({ results: auth.directory().accounts.map(accountView) }),
      POST: taking(
        accountBody,
        (all) => all.accounts,
        (asked, { name, ...settings }) =>
          change(
            asked,
            'account added',
            [{ kind: 'account', no: null, name, settings: changedSettings(DEFAULT_SETTINGS, settings) }],
            { name, ...settings },
            ([no]) => accountView(numbered(no as number)),
          ),
      ),
    },
    'accounts/:account': {
      GET: async (asked) => tagged(accountView(asked.account as Account)),
      PUT: taking(
        accountChange,
        () => [],
        (asked, { name, ...settings }) => {
          const no = account(asked);
          return amend(
            asked,
            () => accountView(numbered(no)),
            () => {
              const before = numbered(no);
              const after = changedSettings(before, settings);
              return {
                action: 'account changed',
                changes: [{ kind: 'account', no, name: name ?? before.name, settings: after }],
                detail: { name, ...settings },
              };
            },
          );
        },
      ),
    },
    'accounts/:account/usage': {
      GET: async (asked) => {
        const { no, currency, limits } = asked.account as Account;
        const now = env.clock.now();
        const purse = purseOf(asked.account as Account);
        const spend = purse && { ...purse, ...spendBucket(purse, now) };
        const day = bucketOf(now, DAY_MS);
        const [messages = 0, spent = 0] = await store.quotaUsed([
          { account: no, scope: MESSAGES, bucket: day.bucket, buckets: 1 },
          { account: no, scope: SPEND, bucket: spend?.bucket ?? 0, buckets: 1 },
        ]);
        const most = limits.messagesPerDay;
        const money = spent / MICROS;
        return ok({
          account: no,
          messagesPerDay: most === null ? null : { used: messages, most, left: Math.max(0, most - messages) },
          spend: spend && {
            ...{ per: spend.per, currency, used: money, most: spend.amount },
            left: Math.max(0, Math.round((spend.amount - money) * MICROS) / MICROS),
          },
        });
      },
    },
    'accounts/:account/credit': {
      POST: taking(
        creditBody,
        () => [],
        async (asked, { amount }) => {
          const no = account(asked);
          const key = asked.once;
          if (key !== undefined && !VISIBLE.test(key)) return BAD_KEY;
          const once = key === undefined ? null : { key, hash: hash('sha256', String(amount)) };
          const changes: OperatorChange[] = [{ kind: 'credit', account: no, amount, once }];
          return change(asked, 'credit added', changes, { amount, key }, (_, { credits: [credit] }) => ({
            ...{ account: no, name: numbered(no).name, currency: numbered(no).currency, amount },
            ...{ total: credit?.total, repeated: credit?.repeated },
          }));
        },
      ),
    },
    'accounts/:account/keys': {
      GET: list((all) => all.keys, keyView),
      POST: taking(
        keyBody,
        (all) => all.keys,
        (asked, value) => {
          const {
            label,
            scopes = null,
            validFrom = null,
            validUntil = null,
            allow = [],
            requestsPerMinute = null,
          } = value;
          const secret = Buffer.from(env.random.bytes(32)).toString('hex');
          const key: ApiKey = {
            id: Buffer.from(env.random.bytes(8)).toString('hex'),
            hash: hash('sha256', secret),
            account: account(asked),
            label,
            scopes,
            validFrom,
            validUntil,
            allow,
            requestsPerMinute,
            createdAt: env.clock.now(),
            revokedAt: null,
          };
          const shown = keyView(key);
          return change(asked, 'key added', [{ kind: 'key', key }], shown, () => ({ ...shown, key: secret }));
        },
      ),
    },
    'accounts/:account/keys/:name': {
      DELETE: async (asked) => {
        const key = mine(auth.directory().keys, asked).find(
          ({ id, revokedAt }) => id === asked.name && revokedAt === null,
        );
        if (!key) return NOT_FOUND;
        const revoked = { ...key, revokedAt: env.clock.now() };
        const { id, label } = key;
        return change(asked, 'key revoked', [{ kind: 'key', key: revoked }], { id, label }, () => keyView(revoked));
      },
    },
    'accounts/:account/logins': {
      GET: list(
        (all) => all.logins,
        ({ user, scopes }) => ({ user, scopes }),
      ),
      POST: taking(
        loginBody,
        (all) => all.logins,
        async (asked, { user, password, scopes = null }) => {
          const no = account(asked);
          const shown = { user, scopes };
          for (let run = 0; run < RUNS; run++) {
            const { revision, logins } = auth.directory();
            const present = logins.find((login) => login.user === user && login.account === no);
            // Sessions go on where nothing but the scopes is new.
            const { same, body } = await loginKept(auth.passwords, present, user, password);
            const login = { ...put('login', user, no, { user, scopes, ...body }), same } as OperatorChange;
            // A new password counts whatever else was changed meanwhile; one that is written back must not undo a newer one.
            const terms = same ? { at: revision } : {};
            const given = await changed(asked, 'login set', [login], shown, () => shown, terms);
            if (given !== null) return given;
            await auth.refresh();
          }
          return unavailable(ADMIN, 1);
        },
      ),
    },
    'accounts/:account/logins/:name': { DELETE: dropping('login', ({ name }) => name) },
    'accounts/:account/senders': {
      GET: list(
        (all) => all.senders,
        ({ sender }) => ({ sender }),
      ),
      POST: taking(
        senderBody,
        (all) => all.senders,
        (asked, { sender }) => {
          const body = { sender: senderKey(sender) };
          const name = `${account(asked)} ${body.sender}`;
          return change(asked, 'sender added', [put('sender', name, account(asked), body)], body, () => body);
        },
      ),
    },
    'accounts/:account/senders/:name': {
      DELETE: dropping('sender', (asked) => `${account(asked)} ${senderKey(asked.name)}`),
    },
    'accounts/:account/domains': {
      GET: list(
        (all) => all.domains,
        ({ domain }) => ({ domain }),
      ),
      POST: taking(
        domainBody,
        (all) => all.domains,
        (asked, { domain }) =>
          change(asked, 'domain added', [put('domain', domain, account(asked), { domain })], { domain }, () => ({
            domain,
          })),
      ),
    },
    'accounts/:account/domains/:name': { DELETE: dropping('domain', ({ name }) => name.toLowerCase()) },
    'accounts/:account/prices': {
      GET: async (asked) => tagged(pricesOf(asked)),
      PUT: taking(
        pricesBody,
        () => [],
        (asked, { prices }) =>
          amend(
            asked,
            () => pricesOf(asked),
            () => ({
              action: 'prices set',
              changes: [put('prices', String(account(asked)), account(asked), { prices })],
              detail: { rows: prices.length },
            }),
          ),
      ),
    },
    'accounts/:account/blocks': {
      GET: list(
        (all) => all.blocks,
        ({ kind, value }) => ({ kind, value }),
      ),
      POST: taking(
        blockBody,
        (all) => all.blocks,
        (asked, { kind, value }) => {
          const block: Block = { account: account(asked), kind, value: blockValue(kind, value) };
          const shown = { kind, value: block.value };
          const changes = [put('block', blockName(block), block.account, shown)];
          return change(asked, 'block added', changes, shown, () => shown);
        },
      ),
      DELETE: dropping('block', (asked) => {
        const kind = asked.query.get('kind') === 'SENDER' ? 'SENDER' : 'DESTINATION';
        return blockName({ account: account(asked), kind, value: blockValue(kind, asked.query.get('value') ?? '') });
      }),
    },
    apply: {
      POST: taking(
        applied,
        () => [],
        async (asked, wanted) => {
          const dry = asked.query.get('dryRun');
          if (dry !== null && dry !== 'true' && dry !== 'false') {
            return apiError('E400', { violations: [{ property: 'dryRun', violation: 'must be true or false' }] });
          }
          const done = await apply(wanted, asked.by, dry === 'true');
          if (done.kind === 'refused') return apiError('E409', { violations: [done.violation] });
          if (done.kind === 'looking') return { ...ok({ passwords: done.passwords }), status: 202 };
          return done.kind === 'busy' ? unavailable(ADMIN, 1) : ok(done.answer);
        },
      ),
    },
    reroute: {
      POST: taking(
        rerouteBody,
        () => [],
        async (asked, { from, to }) => {
          const channels = options.channels?.();
          const channel = channels?.get(to);
          const cannot = (violation: string): Answer =>
            apiError('E409', { violations: [{ property: 'to', violation }] });
          if (channels !== undefined && channel === undefined) {
            return cannot('must be a carrier of the configuration: what waits for another does not leave');
          }
          const own = channels?.get(from) ?? channel;
          const step = own === channel ? await store.reroute(from, to, channel) : OTHER_CHANNEL;
          if (step === null) return NOT_FOUND;
          if (step.otherChannel && channel !== undefined) return cannot(otherChannel(from, to, channel));
          if (step.count > 0) {
            const detail = { from, to, moved: step.count };
            await store.administer([], { by: asked.by, action: 'rerouted', account: null, detail });
            env.log.info({ ...detail, by: asked.by }, 'rerouted');
          }
          return ok({ moved: step.count, more: step.next !== null });
        },
      ),
    },
    audit: {
      GET: async ({ query }) => {
        // What is empty is not asked for, as in customers' queries.
        const read = valid(auditQuery, Object.fromEntries([...query].filter(([, value]) => value !== '')));
        if (!read.ok) return apiError('E400', { violations: read.violations });
        const { limit = AUDIT_PAGE, cursor } = read.value;
        const rows = await store.auditLog(limit, cursor === undefined ? undefined : Number(cursor));
        const results = rows.map(({ at, by, action, account: no, detail }) => ({
          at: formatInstant(at),
          by,
          action,
          account: no,
          detail,
        }));
        const next = rows.length === limit ? { nextCursor: String(rows.at(-1)?.no) } : {};
        return ok({ results, cursor: { limit, ...next } });
      },
    },
  };

  function routeOf(path: string): { handlers: Partial<Record<Method, Handler>>; account: string; name: string } | null {
    const parts = path.slice(ADMIN.length).split('/');
    const shape = parts.map((part, at) => (at === 1 ? ':account' : at === 3 ? ':name' : part)).join('/');
    const handlers = Object.hasOwn(ROUTES, shape) ? ROUTES[shape] : undefined;
    if (handlers === undefined) return null;
    try {
      return { handlers, account: decodeURIComponent(parts[1] ?? ''), name: decodeURIComponent(parts[3] ?? '') };
    } catch {
      return null;
    }
  }

  /** By number or name. Undefined = none; null = all of them, for blocks only. */
  function named(text: string, path: string): Account | null | undefined {
    if (text === '') return null;
    if (text === 'all' && path.endsWith('/blocks')) return null;
    const { accounts } = auth.directory();
    return accounts.find(({ no }) => String(no) === text) ?? accounts.find(({ name }) => name === text);
  }

  return {
    limit: BODY_MAX,
    refuse,
    async answer(request, path, query, bytes) {
      const route = routeOf(path);
      const handler = route?.handlers[request.method as Method];
      if (!route || !handler) return NOT_FOUND;
      const found = named(route.account, path);
      if (found === undefined) return NOT_FOUND;
      let body: unknown;
      if (request.method === 'POST' || request.method === 'PUT') {
        // Null takes a limit away.
        const parsed = parseJson(bytes, MAX_VALUES, 'kept');
        if (!parsed.ok) return malformed(parsed.fault);
        body = parsed.value;
      }
      return handler({
        ...{ account: found, name: route.name, query, body, by: `admin from ${sureAddressOf(request)}` },
        ifMatch: request.headers['if-match'],
        once: request.headers['idempotency-key'] as string | undefined,
      });
    },
  };
}

function taken(change: OperatorChange): Answer {
  const property = change.kind === 'account' ? 'name' : change.kind === 'put' ? change.what : change.kind;
  return apiError('E409', { violations: [{ property, violation: 'is taken by another account' }] });
}

function refusedFor(why: Refused): Answer {
  if (why === 'once') return KEY_CONFLICT;
  if (why === 'endpoints') return endpointsFull();
  const violation =
    why === 'period'
      ? 'cannot be added: the account has a limit per day or month; set limits.spend'
      : `would make it less than 0 or more than ${SPEND_MAX}`;
  return apiError('E409', { violations: [{ property: 'amount', violation }] });
}

/** Of what a view shows. */
function tagOf(view: object): string {
  return `"${hash('sha256', JSON.stringify(view), 'base64url').slice(0, 22)}"`;
}

/** 200 with the tag that If-Match takes. */
function tagged(view: object): Answer {
  const answer = ok(view);
  return { ...answer, headers: { ...answer.headers, etag: tagOf(view) } };
}

/** Whether If-Match names it (RFC 9110, 13.1.1; a weak tag never does). */
function matches(header: string, tag: string): boolean {
  return header.trim() === '*' || header.split(',').some((one) => one.trim() === tag);
}

/** What the store answers, too. */
const OTHER_CHANNEL: Rerouted = { count: 0, next: null, otherChannel: true };

function otherChannel(from: string, to: string, channel: Channel): string {
  return `must take what waits for ${from}: ${to} carries ${channel} only`;
}

function full(): Answer {
  return apiError('E409', { violations: [{ property: '', violation: `there are ${DIRECTORY_MAX} of these already` }] });
}
