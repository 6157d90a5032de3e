/**
 * `postcard account`, `key`, `login`, `sender` and `domain`: what an operator decides, over the operator's door of a running server
 * (limits, prices and blocks in `account-terms.ts`).
 *
 * Promises: exit code 0 = done as asked, else 1 with a line that says why. What opens the door (a key, a password that was made)
 * is shown once, on stdout and nowhere else. `apply` may be repeated: it changes only what differs.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { SCOPES } from '../domain/accounts.ts';
import { applyFile, showApplied } from './account-apply.ts';
import { type AccountView, describeTerms, type Operator } from './account-terms.ts';
import type { Client } from './client.ts';
import { Failure, FORMS, type Form, type Io, machine, plain, table } from './terminal.ts';

interface KeyView {
  id: string;
  label: string;
  scopes: string[] | null;
  validFrom: string | null;
  validUntil: string | null;
  allow: string[];
  requestsPerMinute: number | null;
  revokedAt: string | null;
  key?: string;
}

/** A line of the audit log. */
interface DeedView {
  at: string;
  by: string;
  action: string;
  account: number | null;
  detail: object;
}

/** What the command line gives. */
export interface Around {
  io: Io;
  finish(code: number): void;
  command(name: string, description: string): Command;
  /** A client with the operator's key. */
  client(options: { url?: string; adminKey?: string }): Client;
  /** A new password. */
  secret(): string;
}

const ROOT = '/admin/1';
const of = (account: string, what = ''): string => `${ROOT}/accounts/${encodeURIComponent(account)}${what}`;

function whole(value: string): number {
  if (/^[1-9]\d{0,8}$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It must be a number of at least 1.');
}

function collected(value: string, before: string[] = []): string[] {
  return [...before, ...value.split(',').map((part) => part.trim())];
}

/** Without what is undefined. */
function said(values: object): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

/** Adds the commands. */
export function describeAccounts(around: Around): void {
  const { io, finish, command } = around;
  const operator = (made: Command): Command =>
    made
      .addOption(new Option('-o, --output <form>', 'how results are shown').choices(FORMS).default('table'))
      .option('--url <url>', 'the server (default: this machine, by its settings)')
      .option('--admin-key <key>', "the operator's key (default: POSTCARD_ADMIN_KEY or adminKey of postcard.yaml)");
  const under = (group: Command, name: string, description: string): Command =>
    operator(group.command(name).description(description));
  const ofAccount = (made: Command): Command => made.argument('<account>', 'its number or name');

  async function asked<Answer extends object>(answer: Promise<Answer | null>, what: string): Promise<Answer> {
    const given = await answer;
    if (given === null) {
      throw new Failure(`no such ${what}; is POSTCARD_ADMIN_KEY set at the server, and are you where it answers to?`);
    }
    return given;
  }

  function show<Row extends object>(
    form: Form,
    rows: readonly Row[],
    head: string[],
    cells: (row: Row) => string[],
  ): number {
    if (form !== 'table') io.out(machine(form, rows));
    else if (rows.length === 0) io.out('none\n');
    else io.out(table(head, rows.map(cells)));
    return 0;
  }

  const HEAD = ['ACCOUNT', 'NAME', 'STATE', 'CURRENCY', 'LIMITS'];
  const accountCells = ({ account, name, state, currency, limits }: AccountView): string[] => {
    const set = Object.entries(limits).filter(([, value]) => value !== null && value !== false);
    const shown = set.map(([name, value]) => `${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`);
    return [String(account), plain(name), state, currency, plain(shown.join(' '))];
  };

  // --- account ---
  const account = command('account', 'accounts of this installation: list, add, change, suspend, apply a file');
  under(account, 'list', 'all of them').action(async (options: Operator) => {
    const { results } = await asked(
      around.client(options).get<{ results: AccountView[] }>(`${ROOT}/accounts`),
      'list of accounts',
    );
    finish(show(options.output, results, HEAD, accountCells));
  });
  ofAccount(under(account, 'show', 'one with all its settings')).action(async (name: string, options: Operator) => {
    const one = await asked(around.client(options).get<AccountView>(of(name)), 'account');
    if (options.output === 'table') io.out(`${JSON.stringify(one, null, 2)}\n`);
    else io.out(machine(options.output, [one]));
    finish(0);
  });
  under(account, 'add', 'a new one, with a key that is shown once')
    .argument('<name>', 'unique; not a number')
    .action(async (name: string, options: Operator) => {
      const client = around.client(options);
      const made = await asked(client.change<AccountView>('POST', `${ROOT}/accounts`, { name }), 'list of accounts');
      const key = await asked(
        client.change<KeyView>('POST', of(String(made.account), '/keys'), { label: 'first' }),
        'account',
      );
      if (options.output !== 'table') io.out(machine(options.output, [{ ...made, key: key.key }]));
      else io.out(`account ${made.account} ${plain(name)}\nits key, shown only now: ${key.key}\n`);
      finish(0);
    });
  for (const [verb, state, description] of [
    ['revoke', 'SUSPENDED', 'lets nobody of it in any more; what was accepted runs on'],
    ['restore', 'ACTIVE', 'lets it in again'],
  ] as const) {
    ofAccount(under(account, verb, description)).action(async (name: string, options: Operator) => {
      const one = await asked(around.client(options).change<AccountView>('PUT', of(name), { state }), 'account');
      finish(show(options.output, [one], HEAD, accountCells));
    });
  }
  describeTerms(account, {
    ...{ io, under, asked, show, of, removed, finish },
    client: around.client,
    showAccount: (form, one) => show(form, [one], HEAD, accountCells),
  });
  under(account, 'apply', 'accounts as a YAML file says they shall be; again changes nothing')
    .argument('<file>', 'with `accounts:`, see docs/ACCOUNTS.md; - = what is piped in')
    .option('--dry-run', 'tell what would change, and change nothing')
    .action(async (file: string, options: Operator & { dryRun?: boolean }) => {
      const { dryRun = false, output } = options;
      const done = await applyFile(io, around.client(options), file, dryRun);
      if (output !== 'table') io.out(machine(output, [done]));
      else showApplied(io, done);
      finish(0);
    });

  under(account, 'audit', 'what operators did, the last of it first')
    .option('--limit <n>', 'lines, at most 1000', whole, 50)
    .action(async (options: Operator & { limit: number }) => {
      const { results } = await asked(
        around.client(options).get<{ results: DeedView[] }>(`${ROOT}/audit?limit=${options.limit}`),
        'audit log',
      );
      const cells = ({ at, by, action, account: no, detail }: DeedView): string[] => [
        ...[at, plain(by), plain(action), no === null ? '-' : String(no), plain(JSON.stringify(detail))],
      ];
      finish(show(options.output, results, ['AT', 'BY', 'ACTION', 'ACCOUNT', 'DETAIL'], cells));
    });

  // --- key ---
  const key = command('key', "an account's API keys");
  const KEY_HEAD = ['KEY', 'LABEL', 'SCOPES', 'FROM', 'UNTIL', 'NETWORKS', 'REVOKED'];
  const keyCells = (one: KeyView): string[] => [
    one.id,
    plain(one.label),
    one.scopes?.join(' ') ?? 'all',
    one.validFrom ?? '-',
    one.validUntil ?? '-',
    one.allow.join(' ') || 'any',
    one.revokedAt ?? '-',
  ];
  ofAccount(under(key, 'list', 'all, revoked ones too')).action(async (name: string, options: Operator) => {
    const { results } = await asked(around.client(options).get<{ results: KeyView[] }>(of(name, '/keys')), 'account');
    finish(show(options.output, results, KEY_HEAD, keyCells));
  });
  ofAccount(under(key, 'add', 'a new one, shown once'))
    .requiredOption('--label <words>', 'what it is for')
    .option('--scope <scopes>', `what it may do: ${SCOPES.join(', ')}; default everything`, collected)
    .option('--from <instant>', 'counts from then on, like 2027-01-01T00:00:00Z')
    .option('--until <instant>', 'counts until then')
    .option('--allow <networks>', 'where it may come from, like 192.0.2.0/24', collected)
    .option('--per-minute <n>', 'requests a minute', whole)
    .action(
      async (
        name: string,
        options: Operator & {
          label: string;
          scope?: string[];
          from?: string;
          until?: string;
          allow?: string[];
          perMinute?: number;
        },
      ) => {
        const {
          label,
          scope: scopes,
          from: validFrom,
          until: validUntil,
          allow,
          perMinute: requestsPerMinute,
        } = options;
        const rules = said({ label, scopes, validFrom, validUntil, allow, requestsPerMinute });
        const made = await asked(around.client(options).change<KeyView>('POST', of(name, '/keys'), rules), 'account');
        if (options.output !== 'table') io.out(machine(options.output, [made]));
        else io.out(`key ${made.id}, shown only now: ${made.key}\n`);
        finish(0);
      },
    );
  ofAccount(under(key, 'revoke', 'it opens nothing any more, on all nodes within 5 s'))
    .argument('<id>', 'as the list shows it')
    .action(async (name: string, id: string, options: Operator) => {
      const path = of(name, `/keys/${encodeURIComponent(id)}`);
      const one = await asked(around.client(options).change<KeyView>('DELETE', path), 'account with that key');
      finish(show(options.output, [one], KEY_HEAD, keyCells));
    });

  // --- login ---
  const login = command('login', "an account's users with passwords: Basic, IBSSO sessions, OAuth");
  type LoginView = { user: string; scopes: string[] | null };
  const loginCells = ({ user, scopes }: LoginView): string[] => [plain(user), scopes?.join(' ') ?? 'all'];
  ofAccount(under(login, 'list', 'all of them')).action(async (name: string, options: Operator) => {
    const { results } = await asked(
      around.client(options).get<{ results: LoginView[] }>(of(name, '/logins')),
      'account',
    );
    finish(show(options.output, results, ['USER', 'SCOPES'], loginCells));
  });
  ofAccount(under(login, 'add', 'a new one, or a new password for it; shown once'))
    .argument('<user>', 'unique over all accounts')
    .option('--scope <scopes>', `what it may do: ${SCOPES.join(', ')}; default all`, collected)
    .option('--password-file <file>', 'a file with the password; default one is made')
    .action(async (name: string, user: string, options: Operator & { scope?: string[]; passwordFile?: string }) => {
      const { scope: scopes, passwordFile: file, output } = options;
      const password = file === undefined ? around.secret() : textOf(io, file).replace(/\r?\n$/, '');
      const body = said({ user, password, scopes });
      const made = await asked(around.client(options).change<LoginView>('POST', of(name, '/logins'), body), 'account');
      if (output !== 'table') io.out(machine(output, [{ ...made, ...(file === undefined ? { password } : {}) }]));
      else io.out(file === undefined ? `password of ${plain(user)}, shown only now: ${password}\n` : 'set\n');
      finish(0);
    });
  ofAccount(under(login, 'rm', 'it opens nothing any more, nor do its sessions'))
    .argument('<user>', 'as the list shows it')
    .action(async (name: string, user: string, options: Operator) => {
      finish(await removed(around.client(options), of(name, `/logins/${encodeURIComponent(user)}`), 'login', options));
    });

  // --- sender and domain: names of an account ---
  for (const [what, path, description] of [
    ['sender', 'senders', "an account's registered senders"],
    ['domain', 'domains', "an account's domains for shortened links"],
  ] as const) {
    const group = command(what, description);
    ofAccount(under(group, 'list', 'all of them')).action(async (name: string, options: Operator) => {
      const { results } = await asked(
        around.client(options).get<{ results: Record<string, string>[] }>(of(name, `/${path}`)),
        'account',
      );
      finish(show(options.output, results, [what.toUpperCase()], (row) => [plain(row[what] ?? '')]));
    });
    ofAccount(under(group, 'add', 'one more'))
      .argument(`<${what}>`, what === 'sender' ? 'a number, a short code or a name' : 'like go.example.com')
      .action(async (name: string, value: string, options: Operator) => {
        const body = { [what]: value };
        const made = await asked(
          around.client(options).change<Record<string, string>>('POST', of(name, `/${path}`), body),
          'account',
        );
        finish(show(options.output, [made], [what.toUpperCase()], (row) => [plain(row[what] ?? '')]));
      });
    ofAccount(under(group, 'rm', 'take one away'))
      .argument(`<${what}>`, 'as the list shows it')
      .action(async (name: string, value: string, options: Operator) => {
        const place = of(name, `/${path}/${encodeURIComponent(value)}`);
        finish(await removed(around.client(options), place, what, options));
      });
  }

  async function removed(client: Client, path: string, what: string, options: Operator): Promise<number> {
    const done = await asked(client.change<{ removed: number }>('DELETE', path), `account with that ${what}`);
    io.out(options.output === 'table' ? 'removed\n' : machine(options.output, [done]));
    return 0;
  }
}

function textOf(io: Io, file: string): string {
  try {
    return io.readFile(file).toString('utf8');
  } catch (error) {
    throw new Failure(`cannot read ${plain(file)} (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
  }
}
