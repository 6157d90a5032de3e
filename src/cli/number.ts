/**
 * `postcard number set|list|rm`: which numbers are ours, which account's messages from handsets to them are, and where they go.
 * For the operator (POSTCARD_ADMIN_KEY).
 *
 * Promises: exit code 0 = done as asked, else 1 with a line that says why.
 */
import type { Client } from './client.ts';
import { Failure, type Form, type Io, machine, plain, table } from './terminal.ts';

interface NumberView {
  number: string;
  account: number;
  url: string | null;
  pull: boolean;
  entityId: string | null;
  applicationId: string | null;
  callbackData: string | null;
}

const LIST = '/admin/1/numbers';
const of = (account: string): string => `/admin/1/accounts/${encodeURIComponent(account)}/numbers`;

/** Lists all numbers, or an account's; the exit code. */
export async function numberList(io: Io, client: Client, account: string | undefined, form: Form): Promise<number> {
  const found = await client.get<{ results: NumberView[] }>(account === undefined ? LIST : of(account));
  if (found === null) throw missing(client, account);
  if (form === 'table' && found.results.length === 0)
    io.out('no numbers: set one with postcard number set NUMBER --account ACCOUNT\n');
  else show(io, found.results, form);
  return 0;
}

/** Sets all that is said of a number; the exit code. */
export async function numberSet(io: Io, client: Client, account: string, setting: object, form: Form): Promise<number> {
  const set = await client.change<NumberView>('POST', of(account), setting);
  if (set === null) throw missing(client, account);
  show(io, [set], form);
  return 0;
}

/** Forgets a number, whosever it is; the exit code. */
export async function numberRemove(io: Io, client: Client, number: string, form: Form): Promise<number> {
  const found = await client.get<{ results: NumberView[] }>(LIST);
  if (found === null) throw missing(client, undefined);
  const one = found.results.find((own) => own.number === number.replace('+', ''));
  const path = one && `${of(String(one.account))}/${encodeURIComponent(one.number)}`;
  const done = path === undefined ? null : await client.change<{ removed: number }>('DELETE', path);
  if (done === null) throw new Failure(`no number ${plain(number)} on ${client.url}; see postcard number list`);
  io.out(form === 'table' ? 'forgotten\n' : machine(form, [done]));
  return 0;
}

function missing(client: Client, account: string | undefined): Failure {
  const none = account === undefined ? '' : `, or no account ${plain(account)}`;
  return new Failure(`the server at ${client.url} has no operator's door (POSTCARD_ADMIN_KEY)${none}`);
}

function show(io: Io, numbers: NumberView[], form: Form): void {
  if (form !== 'table') {
    io.out(machine(form, numbers));
    return;
  }
  const rows = numbers.map(({ number, account, url, pull, entityId, applicationId, callbackData }) => [
    plain(number),
    String(account),
    pull ? 'inbox only' : plain(url ?? 'default endpoint'),
    plain(entityId ?? '-'),
    plain(applicationId ?? '-'),
    plain(callbackData ?? '-'),
  ]);
  io.out(table(['NUMBER', 'ACCOUNT', 'GOES TO', 'ENTITY', 'APPLICATION', 'CALLBACK DATA'], rows));
}
