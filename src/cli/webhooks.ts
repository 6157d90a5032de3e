/**
 * `postcard webhooks`, `endpoint` and `optout`: what was told to which URL and what came of it, telling it again, the account's
 * own endpoints, and who wants nothing from which sender.
 *
 * Promises: exit code 0 = done as asked, else 1 with a line that says why. A secret that was made is shown once, and nowhere
 * else than on stdout.
 */
import type { Client } from './client.ts';
import { Failure, type Form, type Io, machine, plain, shortInstant, table } from './terminal.ts';

/** Rows asked for at a time. */
const PAGE = 100;

interface Cursor {
  nextCursor?: string;
}

interface DeliveryView {
  id: string;
  kind: string;
  endpoint: string;
  state: string;
  formedAt: string;
  nextTryAt: string | null;
  messageIds: string[];
  attempts: { at: string; httpStatus: number; excerpt: string }[];
}

/** An endpoint as the API shows it to its account and to the operator; `secret` only where it was just made. */
export interface EndpointView {
  kind: string;
  url: string;
  contentType: string;
  default: boolean;
  headers: Record<string, string>;
  secrets: { ending: string; validUntil: string | null }[];
  secret?: string;
}

interface OptOutView {
  sender: string;
  destination: string;
  createdAt: string;
  source: string;
}

/** What to list of webhooks, as it was typed. */
export interface DeliveriesWanted {
  message?: string;
  endpoint?: string;
  state?: string;
  limit: number;
}

const query = (parameters: Record<string, string | number | undefined>): string => {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined);
  return given.length === 0
    ? ''
    : `?${given.map(([name, value]) => `${name}=${encodeURIComponent(value as string)}`).join('&')}`;
};

/** Pages of `path` until `most` rows are there. */
async function pages<Row>(
  client: Client,
  path: string,
  parameters: Record<string, string | undefined>,
  most: number,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (let cursor: string | undefined; rows.length < most; ) {
    const limit = Math.min(PAGE, most - rows.length);
    const page = await client.get<{ results: Row[]; cursor: Cursor }>(path + query({ ...parameters, limit, cursor }));
    if (!page || !Array.isArray(page.results)) throw new Failure(`${client.url} does not know ${path}; is it older?`);
    rows.push(...page.results);
    cursor = page.cursor?.nextCursor;
    if (cursor === undefined) break;
  }
  return rows;
}

/** Lists the newest webhooks; the exit code. */
export async function webhooksList(io: Io, client: Client, wanted: DeliveriesWanted, form: Form): Promise<number> {
  const { message: messageId, endpoint, state } = wanted;
  const filter = { messageId, endpoint, state: state?.toUpperCase() };
  const rows = await pages<DeliveryView>(client, '/webhooks/1/deliveries', filter, wanted.limit);
  if (form !== 'table') io.out(machine(form, rows));
  else if (rows.length === 0) io.out('no webhooks\n');
  else {
    const head = ['WEBHOOK', 'FORMED', 'KIND', 'STATE', 'TRIES', 'LAST ANSWER', 'NEXT TRY', 'MESSAGES', 'ENDPOINT'];
    const shown = rows.map((row) => {
      const last = row.attempts.at(-1);
      const answer = last === undefined ? '-' : last.httpStatus === 0 ? plain(last.excerpt) : String(last.httpStatus);
      const next = row.nextTryAt === null ? '-' : shortInstant(row.nextTryAt);
      const told = row.messageIds.length === 1 ? plain(row.messageIds[0] as string) : String(row.messageIds.length);
      const { id, kind, state: now, formedAt, attempts, endpoint: url } = row;
      return [id, shortInstant(formedAt), kind, now, String(attempts.length), answer, next, told, plain(url)];
    });
    io.out(table(head, shown));
  }
  return 0;
}

/** Makes one webhook again; the exit code. */
export async function webhookReplay(io: Io, client: Client, id: string, form: Form): Promise<number> {
  const done = await client.change<{ replayed: number }>(
    'POST',
    `/webhooks/1/deliveries/${encodeURIComponent(id)}/replay`,
  );
  if (!done) throw new Failure(`no webhook ${plain(id)} on ${client.url}; list them with postcard webhooks list`);
  told(io, form, done, 'due again');
  return 0;
}

/** Makes those of a time or an endpoint again, to the end; the exit code. */
export async function webhooksReplay(
  io: Io,
  client: Client,
  range: { from?: string; to?: string; endpoint?: string; state?: string },
  form: Form,
): Promise<number> {
  const state = range.state?.toUpperCase();
  let replayed = 0;
  for (let cursor: string | undefined; ; ) {
    const body = { ...range, ...(state === undefined ? {} : { state }), ...(cursor === undefined ? {} : { cursor }) };
    const done = await client.change<{ replayed: number; cursor?: Cursor }>('POST', '/webhooks/1/replay', body);
    replayed += done?.replayed ?? 0;
    cursor = done?.cursor?.nextCursor;
    if (cursor === undefined) break;
  }
  told(io, form, { replayed }, `${replayed} due again`);
  return 0;
}

/** Lets what was pulled be pulled again, to the end; the exit code. */
export async function rearm(
  io: Io,
  client: Client,
  what: { kind?: string; takenSince?: string; takenUntil?: string; messageId?: string },
  form: Form,
): Promise<number> {
  let rearmed = 0;
  for (let more = true; more; ) {
    const done = await client.change<{ rearmed: number; more: boolean }>('POST', '/webhooks/1/rearm', what);
    rearmed += done?.rearmed ?? 0;
    more = done?.more === true;
  }
  told(io, form, { rearmed }, `${rearmed} can be pulled again`);
  return 0;
}

/** Lists the account's endpoints; the exit code. */
export async function endpointList(io: Io, client: Client, form: Form): Promise<number> {
  const found = await client.get<{ results: EndpointView[] }>('/webhooks/1/endpoints');
  showEndpoints(io, found?.results ?? [], form);
  return 0;
}

/** Sets an endpoint; the exit code. */
export async function endpointSet(io: Io, client: Client, setting: object, form: Form): Promise<number> {
  const made = await client.change<EndpointView>('PUT', '/webhooks/1/endpoints', setting);
  if (!made) throw new Failure(`${client.url} does not know endpoints; is it older?`);
  if (form !== 'table') io.out(machine(form, [made]));
  else {
    showEndpoints(io, [made], form);
    if (made.secret !== undefined) io.out(`\nsecret ${plain(made.secret)}\n(it is shown only now)\n`);
  }
  return 0;
}

/** Forgets an endpoint; the exit code. */
export async function endpointRemove(io: Io, client: Client, kind: string, url: string, form: Form): Promise<number> {
  const done = await client.change<{ deleted: number }>('DELETE', `/webhooks/1/endpoints${query({ kind, url })}`);
  if (!done) throw new Failure(`no ${kind.toLowerCase()} endpoint ${plain(url)}; see postcard endpoint list`);
  told(io, form, done, 'forgotten');
  return 0;
}

function showEndpoints(io: Io, endpoints: EndpointView[], form: Form): void {
  if (form !== 'table') io.out(machine(form, endpoints));
  else if (endpoints.length === 0) io.out('no endpoints: set one with postcard endpoint set URL\n');
  else {
    const rows = endpoints.map(({ kind, url, contentType, default: all, headers, secrets }) => [
      kind,
      all ? 'yes' : 'no',
      contentType,
      secrets.map(({ ending }) => `...${plain(ending)}`).join(' ') || '-',
      plain(Object.keys(headers).join(' ')) || '-',
      plain(url),
    ]);
    io.out(table(['KIND', 'DEFAULT', 'FORM', 'SECRETS', 'HEADERS', 'URL'], rows));
  }
}

/** Lists opt-outs; the exit code. */
export async function optOutList(
  io: Io,
  client: Client,
  filter: { sender?: string; destination?: string },
  most: number,
  form: Form,
): Promise<number> {
  const rows = await pages<OptOutView>(client, '/mms/1/optouts', { ...filter }, most);
  if (form !== 'table') io.out(machine(form, rows));
  else if (rows.length === 0) io.out('no opt-outs\n');
  else {
    const shown = rows.map(({ sender, destination, createdAt, source }) => [
      plain(destination),
      plain(sender),
      shortInstant(createdAt),
      source.toLowerCase(),
    ]);
    io.out(table(['DESTINATION', 'SENDER', 'SINCE', 'BY'], shown));
  }
  return 0;
}

/** Adds an opt-out for each destination; the exit code. */
export async function optOutAdd(
  io: Io,
  client: Client,
  destinations: string[],
  sender: string | undefined,
  form: Form,
): Promise<number> {
  const optOuts = destinations.map((destination) => ({ destination, ...(sender === undefined ? {} : { sender }) }));
  const done = await client.change<{ added: number }>('POST', '/mms/1/optouts', { optOuts });
  told(io, form, done ?? { added: 0 }, `${done?.added ?? 0} added`);
  return 0;
}

/** Lifts an opt-out; the exit code. */
export async function optOutRemove(
  io: Io,
  client: Client,
  destination: string,
  sender: string | undefined,
  form: Form,
): Promise<number> {
  const done = await client.change<{ removed: number }>('DELETE', `/mms/1/optouts${query({ destination, sender })}`);
  if (!done) throw new Failure(`no such opt-out of ${plain(destination)}; see postcard optout list`);
  told(io, form, done, 'lifted');
  return 0;
}

function told(io: Io, form: Form, answer: object, words: string): void {
  io.out(form === 'table' ? `${words}\n` : machine(form, [answer]));
}
