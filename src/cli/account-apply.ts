/**
 * `postcard account apply`: a YAML file of accounts to the operator's door, and what differed in words.
 *
 * Promises: what is wrong with the file is told with its line, column and field, whoever found it; a dry run changes nothing.
 *
 * Fails: with a `Failure` of such lines.
 */
import { isNode, LineCounter, parseDocument } from 'yaml';
import { type Client, Violated } from './client.ts';
import { Failure, type Io, plain } from './terminal.ts';

/** Of a file: as many prices and senders as one request may have, and more. */
const FILE_BYTES = 4 * 1024 * 1024;
/** Lines that say what is wrong. */
const TOLD = 20;

interface Difference {
  account: string;
  what: string;
  name: string;
  change: 'ADDED' | 'CHANGED' | 'REMOVED';
  fields: { name: string; from: unknown; to: unknown }[];
}

/** The door's answer. */
interface AppliedView {
  dryRun: boolean;
  changes: number;
  accounts: {
    account: number;
    name: string;
    added: boolean;
    keys: { label: string; key: string }[];
    endpoints: { kind: string; url: string; secret: string }[];
  }[];
  differences: Difference[];
}

/** The door has looked at some of the passwords so far, which take their time; nothing is done yet. */
interface LookingView {
  passwords: { known: number; of: number };
}

/** How often a server may say the same of its passwords. */
const STANDS_STILL = 10;

/** Sends it as often as the door needs to look at all passwords, telling how far it is. */
async function sent(io: Io, client: Client, path: string, value: object): Promise<AppliedView | null> {
  let before = -1;
  for (let still = 0; still < STANDS_STILL; still++) {
    const done = await client.change<AppliedView | LookingView>('POST', path, value);
    if (done === null || !('passwords' in done)) return done;
    const { known, of } = done.passwords;
    io.err(`the server is looking at passwords: ${known} of ${of}\n`);
    if (io.stop.aborted) throw new Failure('stopped: nothing was changed');
    if (known > before) still = 0;
    before = known;
  }
  throw new Failure('the server does not get on with the passwords; is it applying other files at the same time?');
}

/** Reads, sends and answers; see above. */
export async function applyFile(io: Io, client: Client, file: string, dry: boolean): Promise<AppliedView> {
  const { value, placeOf } = readFile(io, file);
  try {
    const done = await sent(io, client, `/admin/1/apply${dry ? '?dryRun=true' : ''}`, value);
    if (done !== null) return done;
  } catch (error) {
    if (!(error instanceof Violated)) throw error;
    const lines = error.violations.slice(0, TOLD).map(({ property, violation }) => {
      const place = placeOf(property);
      return `${place === null ? plain(file) : place} ${plain(property) || 'request'}: ${plain(violation)}`;
    });
    const more = error.violations.length - lines.length;
    throw new Failure(...lines, ...(more > 0 ? [`and ${more} more`] : []), 'nothing was changed');
  }
  throw new Failure('no such apply; is POSTCARD_ADMIN_KEY set at the server, and are you where it answers to?');
}

/** `file` as an object, and where in it a property like `accounts[0].limits` is: `file:line:column`, null = not there. */
function readFile(io: Io, file: string): { value: object; placeOf(property: string): string | null } {
  let text: string;
  try {
    const bytes = io.readFile(file === '-' ? '/dev/stdin' : file);
    if (bytes.length > FILE_BYTES) throw new Failure(`${plain(file)} is larger than ${FILE_BYTES} bytes: make it two`);
    text = bytes.toString('utf8');
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(`cannot read ${plain(file)} (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
  }
  const lines = new LineCounter();
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${plain(file)}:${line}:${col}`;
  };
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    throw new Failure(
      ...document.errors.slice(0, TOLD).map(({ pos, message }) => `${at(pos[0])} is not YAML: ${plain(message)}`),
    );
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 50 });
  } catch (error) {
    throw new Failure(`${plain(file)} is not YAML: ${plain((error as Error).message.split('\n')[0] ?? '')}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Failure(`${plain(file)} must have a list under "accounts:"`);
  }

  function placeOf(property: string): string | null {
    const path = [...property.matchAll(/\[(\d+)\]|([^.[\]]+)/g)].map(([, index, name]) =>
      index === undefined ? (name as string) : Number(index),
    );
    // What is missing is told at what it is missing in.
    for (let length = path.length; length > 0; length--) {
      const part = path.slice(0, length);
      const parent = document.getIn(part.slice(0, -1), true);
      const last = part.at(-1);
      // The name of a field, not its value: that is where people look.
      const pair = hasItems(parent) ? parent.items.find((item) => keyOf(item) === String(last)) : undefined;
      const node = pair?.key ?? document.getIn(part, true);
      if (isNode(node) && node.range) return at(node.range[0]);
    }
    return null;
  }
  return { value, placeOf };
}

function hasItems(value: unknown): value is { items: { key?: unknown }[] } {
  return typeof value === 'object' && value !== null && Array.isArray((value as { items?: unknown }).items);
}

function keyOf(item: { key?: unknown }): string | null {
  const { key } = item;
  return typeof key === 'object' && key !== null && 'value' in key ? String(key.value) : null;
}

const SIGNS = { ADDED: '+', CHANGED: '~', REMOVED: '-' } as const;

/** What differed, a line each; keys and secrets that were made; how many. */
export function showApplied(io: Io, done: AppliedView): void {
  for (const { account, what, name, change, fields } of done.differences) {
    const own = what === 'account' ? '' : ` of ${plain(account)}`;
    const changes = fields.map(({ name: field, from, to }) => `${field} ${shown(from)} -> ${shown(to)}`).join(', ');
    io.out(`${SIGNS[change]} ${what} ${plain(name)}${own}${changes === '' ? '' : `: ${changes}`}\n`);
  }
  const more = done.changes - done.differences.length;
  if (more > 0) io.out(`and ${more} more\n`);
  if (!done.dryRun) {
    for (const { name, keys, endpoints } of done.accounts) {
      for (const { label, key } of keys) io.out(`key ${plain(label)} of ${plain(name)}, shown only now: ${key}\n`);
      for (const { kind, url, secret } of endpoints) {
        io.out(`secret of ${kind} ${plain(url)} of ${plain(name)}, shown only now: ${secret}\n`);
      }
    }
  }
  if (done.changes === 0) io.out('nothing to change\n');
  else io.out(done.dryRun ? `${done.changes} would change; nothing was changed\n` : `${done.changes} changed\n`);
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return 'none';
  return plain(typeof value === 'string' ? value : JSON.stringify(value));
}
