/**
 * What handsets send, for those who pull it: GET /mms/1/inbox/reports (published), the bytes of parts behind their tokens, and
 * the list of opt-outs (both ours).
 *
 * Promises: a message is pulled once; a token opens one part until its time and asks for no key, and its bytes come as a
 * download that no browser runs. Errors have the older form, as everything under /mms/1.
 */
import { z } from 'zod';
import { parseDestination } from '../domain/address.ts';
import type { Ids } from '../domain/ids.ts';
import { inboxItem, type PartTokens, type PartUrls } from '../domain/inbound.ts';
import { senderKey } from '../domain/optout.ts';
import { formatInstant } from '../domain/schedule.ts';
import type { Env } from '../env.ts';
import type { OptOut, OptOutFilter, Store } from '../store/contract.ts';
import { type Answer, olderError } from './errors.ts';
import { type Asker, jsonIntake, ok, refusal } from './intake.ts';
import type { Intake } from './messages.ts';
import { limit, readParameters, word } from './queries.ts';
import { type Violation, words } from './violations.ts';

export const INBOX = '/mms/1/inbox/reports';
export const OPT_OUTS = '/mms/1/optouts';

const LIMIT_DEFAULT = 50;
/** Entries of one POST. */
const ENTRIES = 1000;
const BODY_MAX = 256 * 1024;
/** In requests and answers: any sender of the account. */
const ANY = '*';

/** GET /mms/1/inbox/reports. */
export const inboxQuery = z.object({
  limit: limit.optional(),
  applicationId: word.optional(),
  entityId: word.optional(),
});

/** GET /mms/1/optouts. */
export const optOutsQuery = z.object({
  sender: word.optional(),
  destination: word.optional(),
  limit: limit.optional(),
  cursor: word.optional(),
});

/** DELETE /mms/1/optouts. */
export const optOutQuery = z.object({ sender: word.optional(), destination: word });

const name = z.string().check(({ value, issues }) => {
  if (value.length < 1 || value.length > 20) {
    issues.push({ code: 'custom', message: words.size(1, 20), input: value });
  }
  if (value.includes('\0')) issues.push({ code: 'custom', message: words.nul, input: value });
});
const phone = z.string().transform((value, { issues }) => {
  const parsed = destinationOf(value);
  if (parsed === null) issues.push({ code: 'custom', message: 'must be a phone number', input: value });
  return parsed ?? '';
});

/** POST /mms/1/optouts. */
export const optOutsBody = z
  .object({
    optOuts: z
      .array(z.object({ sender: name.optional(), destination: phone.meta({ type: 'string' }) }))
      .min(1)
      .max(ENTRIES),
  })
  .meta({ id: 'OptOutsRequest', description: 'Without a sender (or with *), none of the account may write.' });

/** Bytes with their type: what only parts of messages are. */
export interface Bytes {
  status: number;
  headers: Record<string, string>;
  body: Uint8Array;
}

/** The answers under /mms/1 that handsets are behind. */
export interface Inbox {
  reports(account: number, query: unknown): Promise<Answer>;
  part(token: string): Promise<Answer | Bytes>;
  optOuts(account: number, query: unknown): Promise<Answer>;
  addOptOuts: Intake<Asker>;
  deleteOptOut(account: number, query: unknown): Promise<Answer>;
}

/** The door for those who pull, and for their list of opt-outs. */
export function createInbox(options: { store: Store; env: Env; ids: Ids; tokens: PartTokens; urls: PartUrls }): Inbox {
  const { store, env, ids, tokens, urls } = options;
  const gone = olderError('E404');

  return {
    async reports(account, query) {
      const read = readParameters(inboxQuery, query);
      if (!read.ok) return refusal(INBOX, read.violations);
      const { limit: most = LIMIT_DEFAULT, applicationId, entityId } = read.values;
      const rows = await store.takeInbox({
        account,
        limit: most,
        ...(applicationId === undefined ? {} : { application: applicationId }),
        ...(entityId === undefined ? {} : { entity: entityId }),
      });
      if (rows.length > 0) env.log.info({ account, count: rows.length }, 'inbox pulled');
      return ok({ results: rows.map((row) => inboxItem(row, ids, urls)) });
    },

    async part(token) {
      const named = tokens.parse(token, env.clock.now());
      if (named === null) return gone;
      const part = await store.inboundPart(named.no, named.part);
      const bytes = part && (await store.content(part.hash));
      if (!bytes) return gone;
      return {
        status: 200,
        headers: {
          // A line break would be a header of its own.
          'content-type': /^[\x20-\x7e]+$/.test(part.contentType) ? part.contentType : 'application/octet-stream',
          'content-disposition': 'attachment',
          'content-security-policy': "default-src 'none'; sandbox",
          'x-content-type-options': 'nosniff',
          'cache-control': 'private, no-store',
          'referrer-policy': 'no-referrer',
        },
        body: bytes,
      };
    },

    async optOuts(account, query) {
      const read = readParameters(optOutsQuery, query);
      if (!read.ok) return refusal(OPT_OUTS, read.violations);
      const { sender, destination, cursor, limit: most = LIMIT_DEFAULT } = read.values;
      const filter: OptOutFilter = { account, limit: most + 1 };
      if (sender !== undefined) filter.sender = keyOf(sender);
      if (destination !== undefined) filter.destination = destinationOf(destination) ?? destination;
      if (cursor !== undefined) {
        const after = readCursor(cursor);
        if (after === null) return refusal(OPT_OUTS, [BAD_CURSOR]);
        filter.after = after;
      }
      const found = await store.optOutList(filter);
      const shown = found.slice(0, most);
      const last = found.length > most ? shown.at(-1) : undefined;
      return ok({
        results: shown.map(optOutView),
        cursor: { limit: most, ...(last === undefined ? {} : { nextCursor: printCursor(last) }) },
      });
    },

    addOptOuts: jsonIntake({
      path: OPT_OUTS,
      limit: BODY_MAX,
      schema: optOutsBody,
      async answer(account, { optOuts }) {
        const list = optOuts.map(({ sender = ANY, destination }) => ({ sender: keyOf(sender), destination }));
        const added = await store.optOutPut(account, list);
        env.log.info({ account, added }, 'opt-outs added');
        return ok({ added });
      },
    }),

    async deleteOptOut(account, query) {
      const read = readParameters(optOutQuery, query);
      if (!read.ok) return refusal(OPT_OUTS, read.violations);
      const { sender = ANY, destination } = read.values;
      const entry = { sender: keyOf(sender), destination: destinationOf(destination) ?? destination };
      const removed = await store.optOutDelete(account, [entry]);
      if (removed === 0) return gone;
      env.log.info({ account, removed }, 'opt-outs removed');
      return ok({ removed });
    },
  };
}

const BAD_CURSOR: Violation = { property: 'cursor', violation: 'is not a valid cursor' };

/** A `+` that was not escaped arrives as a space. */
function destinationOf(text: string): string | null {
  const parsed = parseDestination(/^ \d/.test(text) ? `+${text.slice(1)}` : text);
  if (parsed.ok) return parsed.number;
  // Short codes are destinations too.
  return /^\d{3,6}$/.test(text) ? text : null;
}

function keyOf(sender: string): string {
  return sender === ANY ? '' : senderKey(/^ \d/.test(sender) ? `+${sender.slice(1)}` : sender);
}

function optOutView({ sender, destination, at, source }: OptOut): object {
  return {
    sender: sender === '' ? ANY : sender,
    destination,
    createdAt: formatInstant(at),
    source: source === 'handset' ? 'HANDSET' : 'LIST',
  };
}

function printCursor({ destination, sender }: OptOut): string {
  return Buffer.from(JSON.stringify([destination, sender])).toString('base64url');
}

function readCursor(cursor: string): { destination: string; sender: string } | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'));
    if (!Array.isArray(value) || value.length !== 2 || value.some((part) => typeof part !== 'string')) return null;
    const [destination, sender] = value as [string, string];
    return destination.includes('\0') || sender.includes('\0') ? null : { destination, sender };
  } catch {
    return null;
  }
}
