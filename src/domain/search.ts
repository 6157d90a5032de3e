/**
 * The search words of our own tools (`postcard tail --filter`, `search` of the logs and of the event stream): `to:` `from:`
 * `status:` `bulk:` `campaign:` `before:` `after:`, several = all of them. A value with blanks stands in double quotes, in
 * which `\"` and `\\` are a quote and a backslash.
 *
 * Promises: pure; what is not understood is refused in words that name it, never ignored: a filter that silently shows
 * everything is worse than none.
 *
 * Fails: `wrong` says what is, as the end of a sentence about the search; at most `SEARCH_MAX` characters are looked at.
 */
import { parseDestination } from './address.ts';
import { STATUS_GROUPS, STATUSES, type StatusGroup } from './codes.ts';
import type { DeliveryReport } from './report.ts';
import { parseInstant } from './schedule.ts';

/** Characters of a search. */
export const SEARCH_MAX = 2048;

/** The words that there are, as one says them to people. */
export const SEARCH_WORDS = 'to: from: status: bulk: campaign: before: after:';

/** What is searched for; what is absent does not matter. Ids and senders are as they were typed. */
export interface Search {
  /** As messages keep it, where it is a destination. */
  to?: string;
  from?: string;
  /** A group of statuses, or one of them. */
  status?: { group: StatusGroup } | { id: number };
  bulk?: string;
  campaign?: string;
  /** Epoch ms of the first submission (else the acceptance): earlier than this. */
  before?: number;
  /** At this or later. */
  after?: number;
}

type Word = keyof Search;
const WORDS: ReadonlySet<string> = new Set(['to', 'from', 'status', 'bulk', 'campaign', 'before', 'after']);

const BY_NAME = new Map(Object.values(STATUSES).map(({ name, id }) => [name, id]));

/** Units of "so long ago", in ms. */
const AGO: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * Reads a search. `now`: epoch ms, for instants like `2h` (so long ago).
 * Instants are `2026-07-07` (UTC), `2026-07-07T06:32` (UTC), with seconds and a zone as the API writes and takes them, or an age.
 */
export function parseSearch(text: string, now: number): { ok: true; search: Search } | { ok: false; wrong: string } {
  if (text.length > SEARCH_MAX) return no(`is longer than ${SEARCH_MAX} characters`);
  const search: Search = {};
  const rest = /\s*(?:([A-Za-z]+):)?("(?:[^"\\]|\\.)*"|[^\s"]+)?(\S?)/y;
  for (let at = 0; at < text.trimEnd().length; at = rest.lastIndex) {
    rest.lastIndex = at;
    const [, word, raw, behind] = rest.exec(text) as RegExpExecArray;
    if (behind === '"' && raw === undefined) return no('has a quote that does not end');
    if (behind !== undefined && behind !== '') return no(`has something behind a quote at "${shown(text.slice(at))}"`);
    if (word === undefined) return no(`does not know what "${shown(raw ?? '')}" should be; words are ${SEARCH_WORDS}`);
    const name = word.toLowerCase();
    if (!WORDS.has(name)) return no(`has no word ${shown(word)}:; words are ${SEARCH_WORDS}`);
    const value = raw?.startsWith('"') ? raw.slice(1, -1).replace(/\\(.)/gs, '$1') : (raw ?? '');
    if (value === '') return no(`has nothing behind ${name}:`);
    if (value.includes('\0')) return no('has the character U+0000');
    if (search[name as Word] !== undefined) return no(`has ${name}: twice`);
    const wrong = take(search, name as Word, value, now);
    if (wrong !== null) return no(wrong);
  }
  return { ok: true, search };
}

function no(wrong: string): { ok: false; wrong: string } {
  return { ok: false, wrong };
}

/** What is quoted of what was typed. */
function shown(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}...` : text;
}

/** Puts one word's value into `search`, or says what is wrong with it. */
function take(search: Search, word: Word, value: string, now: number): string | null {
  switch (word) {
    case 'status': {
      const status = statusOf(value);
      if (status === null) {
        return `has no status "${shown(value)}"; it is one of ${STATUS_GROUPS.join(', ').toLowerCase()}, or a status by id or name`;
      }
      search.status = status;
      return null;
    }
    case 'before':
    case 'after': {
      const at = instantOf(value, now);
      if (at === null) {
        return `cannot read the instant "${shown(value)}" of ${word}:; write 2026-07-07, 2026-07-07T06:32Z, or an age like 90s, 15m, 2h, 3d`;
      }
      search[word] = at;
      return null;
    }
    case 'to': {
      const parsed = parseDestination(value);
      search.to = parsed.ok ? parsed.number : value;
      return null;
    }
    default:
      search[word] = value;
      return null;
  }
}

/** Whether a report is of what is searched for. Instants are those of its sentAt, as in the logs. */
export function isFound(report: DeliveryReport, search: Search): boolean {
  const { to, from, status, bulk, campaign, before, after } = search;
  const at = parseInstant(report.sentAt) ?? 0;
  return (
    (to === undefined || report.to === to) &&
    (from === undefined || report.sender === from) &&
    (status === undefined ||
      ('group' in status ? report.status.groupName === status.group : report.status.id === status.id)) &&
    (bulk === undefined || report.bulkId === bulk) &&
    (campaign === undefined || report.campaignReferenceId === campaign) &&
    (before === undefined || at < before) &&
    (after === undefined || at >= after)
  );
}

function statusOf(value: string): NonNullable<Search['status']> | null {
  const name = value.toUpperCase();
  const group = STATUS_GROUPS.find((one) => one === name);
  // REJECTED is a group, and a status of another channel.
  if (group !== undefined) return { group };
  const id = /^\d{1,4}$/.test(value) ? Number(value) : BY_NAME.get(name);
  return id === undefined || STATUSES[id] === undefined ? null : { id };
}

function instantOf(value: string, now: number): number | null {
  const age = /^(\d{1,6})([smhd])$/i.exec(value);
  if (age) return now - Number(age[1]) * (AGO[(age[2] as string).toLowerCase()] as number);
  const parts = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?)?(Z|[+-]\d\d:?\d\d)?$/i.exec(value);
  if (!parts) return null;
  const [, day, minute = '00:00', second = ':00', zone = 'Z'] = parts;
  return parseInstant(`${day}T${minute}${second}${zone.toUpperCase()}`);
}
