/**
 * What an account may and what it pays, on the command line: `postcard account set|credit|prices|price|endpoints|endpoint|blocks|
 * block|unblock`.
 *
 * Promises: as `account.ts`: exit code 0 = done as asked, else 1 with a line that says why; what is not named stays as it is.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Client } from './client.ts';
import { Failure, type Form, type Io, machine, plain } from './terminal.ts';
import type { EndpointView } from './webhooks.ts';

interface Limits {
  requestsPerMinute: number | null;
  logsPerMinute: number | null;
  messagesPerDay: number | null;
  spend: { amount: number; per: string } | null;
  flooding: boolean;
}

/** An account as the operator's door shows it. */
export interface AccountView {
  account: number;
  name: string;
  state: string;
  currency: string;
  registeredOnly: boolean;
  limits: Limits;
}

interface PriceRow {
  prefix: string;
  channel: 'MMS' | 'SMS';
  price: number;
}

/** What a credit came to. */
interface CreditView {
  account: number;
  name: string;
  currency: string;
  amount: number;
  total: number;
  repeated: boolean;
}

/** What is used of limits that there are. */
interface UsageView {
  account: number;
  messagesPerDay: { used: number; most: number; left: number } | null;
  spend: { per: string; currency: string; used: number; most: number; left: number } | null;
}

interface BlockView {
  kind: string;
  value: string;
}

/** What every command of the operator is given. */
export interface Operator {
  url?: string;
  adminKey?: string;
  output: Form;
}

/** How the operator's commands are made and answered (`account.ts`). */
export interface Terms {
  io: Io;
  under(group: Command, name: string, description: string): Command;
  client(options: Operator): Client;
  asked<Answer extends object>(answer: Promise<Answer | null>, what: string): Promise<Answer>;
  show<Row extends object>(form: Form, rows: readonly Row[], head: string[], cells: (row: Row) => string[]): number;
  showAccount(form: Form, account: AccountView): number;
  of(account: string, what?: string): string;
  removed(client: Client, path: string, what: string, options: Operator): Promise<number>;
  finish(code: number): void;
}

const NONE = 'none';
const PER = ['DAY', 'MONTH', 'TOTAL'];

/** Commander makes '' of null; so `none` stays itself until it is said to the server. */
type OrNone<Value> = Value | typeof NONE;
const orNull = <Value>(value: OrNone<Value> | undefined): Value | null | undefined => (value === NONE ? null : value);

function count(value: string): OrNone<number> {
  if (value === NONE) return NONE;
  if (/^[1-9]\d{0,9}$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It must be a number of at least 1, or none.');
}

function amount(value: string): number {
  if (/^\d{1,10}(\.\d{1,6})?$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It must be an amount like 12.50.');
}

/** `500/MONTH`, `none`. */
function spend(value: string): OrNone<NonNullable<Limits['spend']>> {
  if (value === NONE) return NONE;
  const [sum = '', per = '', more] = value.split('/');
  if (more === undefined && PER.includes(per.toUpperCase())) return { amount: amount(sum), per: per.toUpperCase() };
  throw new InvalidArgumentError('It must be an amount per DAY, MONTH or TOTAL like 500/MONTH, or none.');
}

const onOff = (flags: string, description: string): Option => new Option(flags, description).choices(['on', 'off']);

/** Without what is undefined. */
function said<Values extends object>(values: Values): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

interface Settings extends Operator {
  name?: string;
  currency?: string;
  application?: string;
  entity?: string;
  registeredOnly?: 'on' | 'off';
  failoverAfterUnknown?: 'on' | 'off';
  requestsPerMinute?: OrNone<number>;
  logsPerMinute?: OrNone<number>;
  messagesPerDay?: OrNone<number>;
  spend?: OrNone<NonNullable<Limits['spend']>>;
  flooding?: 'on' | 'off';
}

/** Adds the commands to the group `account`. */
export function describeTerms(account: Command, terms: Terms): void {
  const { under, asked, show, of, finish, io } = terms;
  const own = (name: string, description: string): Command =>
    under(account, name, description).argument('<account>', 'its number or name');
  const isOn = (value: 'on' | 'off' | undefined): boolean | undefined => (value === undefined ? value : value === 'on');

  own('set', 'change what is named; the rest stays')
    .option('--name <name>', 'its new name')
    .option('--requests-per-minute <n>', 'requests a minute, none = no limit', count)
    .option('--logs-per-minute <n>', 'of GET logs a minute, none = no limit', count)
    .option('--messages-per-day <n>', 'messages a day (UTC), none = no limit', count)
    .option('--spend <limit>', 'what it may spend, like 500/MONTH, 20/DAY, 1000/TOTAL, or none', spend)
    .addOption(onOff('--flooding <state>', 'at most 6 equal or 20 messages to one number in an hour'))
    .addOption(onOff('--registered-only <state>', 'only its registered senders'))
    .addOption(onOff('--failover-after-unknown <state>', 'SMS also where it is not known whether the MMS arrived'))
    .option('--currency <code>', 'of its prices, like EUR')
    .option('--application <id>', 'of messages that name none, none = no such')
    .option('--entity <id>', 'of messages that name none, none = no such')
    .action(async (name: string, options: Settings) => {
      const limits = said({
        requestsPerMinute: orNull(options.requestsPerMinute),
        logsPerMinute: orNull(options.logsPerMinute),
        messagesPerDay: orNull(options.messagesPerDay),
        spend: orNull(options.spend),
        flooding: isOn(options.flooding),
      });
      const change = said({
        ...{ name: options.name, currency: options.currency },
        ...{ application: orNull(options.application), entity: orNull(options.entity) },
        registeredOnly: isOn(options.registeredOnly),
        failoverAfterUnknown: isOn(options.failoverAfterUnknown),
        limits: Object.keys(limits).length > 0 ? limits : undefined,
      });
      if (Object.keys(change).length === 0) throw new Failure('nothing to change: name a setting, see --help');
      const one = await asked(terms.client(options).change<AccountView>('PUT', of(name), change), 'account');
      finish(terms.showAccount(options.output, one));
    });

  own('credit', 'top up a prepaid credit (spend per TOTAL)')
    .argument('<amount>', 'what is added', amount)
    .option('--take', 'take it away instead, down to 0 at most')
    .option('--once <key>', 'the same amount under the same key is added once in 24 h, however often it is said')
    .action(async (name: string, given: number, options: Operator & { once?: string; take?: boolean }) => {
      const { once } = options;
      const more = options.take ? -given : given;
      const headers: Record<string, string> = once === undefined ? {} : { 'idempotency-key': once };
      const client = terms.client(options);
      const done = await asked(
        client.change<CreditView>('POST', of(name, '/credit'), { amount: more }, headers),
        'account',
      );
      const { total, currency, repeated } = done;
      if (options.output !== 'table') io.out(machine(options.output, [done]));
      else {
        const what = repeated ? `${more} was added before` : more < 0 ? `${-more} taken away` : `${more} added`;
        io.out(`${what}: ${plain(done.name)} may spend ${total} ${currency} in TOTAL\n`);
      }
      finish(0);
    });

  own('usage', 'what it has used of its messages a day and of its money').action(
    async (name: string, options: Operator) => {
      const one = await asked(terms.client(options).get<UsageView>(of(name, '/usage')), 'account');
      const { messagesPerDay: day, spend: money } = one;
      const rows = [
        ...(day === null ? [] : [['messages a day', day.used, day.most, day.left]]),
        ...(money === null ? [] : [[`${money.currency} in ${money.per}`, money.used, money.most, money.left]]),
      ];
      if (options.output !== 'table') io.out(machine(options.output, [one]));
      else if (rows.length === 0) io.out('it has no such limit\n');
      else show('table', rows, ['LIMIT', 'USED', 'MOST', 'LEFT'], (row) => row.map(String));
      finish(0);
    },
  );

  const PRICE_HEAD = ['PREFIX', 'CHANNEL', 'PRICE'];
  const priceCells = ({ prefix, channel, price }: PriceRow): string[] => [
    prefix || 'all others',
    channel,
    String(price),
  ];
  const prices = (client: Client, name: string) =>
    asked(client.get<{ prices: PriceRow[] }>(of(name, '/prices')), 'account');
  own('prices', 'its price list').action(async (name: string, options: Operator) => {
    const { prices: rows } = await prices(terms.client(options), name);
    finish(show(options.output, rows, PRICE_HEAD, priceCells));
  });
  own('price', 'set what messages to a prefix cost; the other prices stay')
    .argument('<prefix>', 'of the number, or all for those that no other prefix fits')
    .argument(
      '<price>',
      'of one message, or none to take it from the list',
      (value: string): OrNone<number> => (value === NONE ? NONE : amount(value)),
    )
    .addOption(new Option('--channel <channel>', 'of what').choices(['MMS', 'SMS']).default('MMS'))
    .action(
      async (name: string, given: string, price: OrNone<number>, options: Operator & { channel: 'MMS' | 'SMS' }) => {
        const client = terms.client(options);
        const { channel } = options;
        const prefix = given === 'all' ? '' : given.replace(/^\+|^00/, '');
        // '' is all others: nobody means that by a variable that is not set.
        if (prefix === '' && given !== 'all')
          throw new Failure('the prefix is empty; all is for those that no other fits');
        const changed = client.amend<{ prices: PriceRow[] }>(of(name, '/prices'), ({ prices: before }) => {
          const rest = before.filter((row) => row.prefix !== prefix || row.channel !== channel);
          if (price === NONE && rest.length === before.length) {
            throw new Failure(`no price for ${prefix === '' ? 'all' : plain(prefix)} ${channel}; see account prices`);
          }
          return { prices: price === NONE ? rest : [...rest, { prefix, channel, price }] };
        });
        const set = await asked(changed, 'account');
        finish(show(options.output, set.prices, PRICE_HEAD, priceCells));
      },
    );

  const ENDPOINT_HEAD = ['KIND', 'URL', 'FORM', 'DEFAULT', 'HEADERS', 'SIGNED'];
  const endpointCells = (one: EndpointView): string[] => [
    one.kind,
    plain(one.url),
    one.contentType,
    one.default ? 'yes' : 'no',
    plain(Object.keys(one.headers).join(' ')) || '-',
    one.secrets.map(({ ending }) => `...${ending}`).join(' ') || 'no',
  ];
  own('endpoints', 'URLs that take its webhooks').action(async (name: string, options: Operator) => {
    const { results } = await asked(
      terms.client(options).get<{ results: EndpointView[] }>(of(name, '/endpoints')),
      'account',
    );
    finish(show(options.output, results, ENDPOINT_HEAD, endpointCells));
  });
  own('endpoint', 'make or change one; a new one gets a secret, shown once')
    .argument('<url>', 'where its webhooks go')
    .addOption(
      new Option('--kind <kind>', 'what it takes').choices(['delivery', 'inbound', 'click']).default('delivery'),
    )
    .addOption(onOff('--default <state>', 'it takes what names no URL of its own'))
    .addOption(new Option('--form <form>', 'of reports').choices(['json', 'xml']))
    .option('--secret <secret>', 'signs from now on; the old one signs too for a day')
    .option('--rotate', 'a new secret, shown once; the old one signs too for a day')
    .option('--unsigned', 'no signature any more')
    .option('--remove', 'forget it')
    .action(
      async (
        name: string,
        url: string,
        options: Operator & {
          kind: string;
          default?: 'on' | 'off';
          form?: string;
          secret?: string;
          rotate?: boolean;
          unsigned?: boolean;
          remove?: boolean;
        },
      ) => {
        const client = terms.client(options);
        const what = options.kind.toUpperCase();
        if (options.remove) {
          const place = of(name, `/endpoints?${new URLSearchParams({ kind: what, url })}`);
          finish(await terms.removed(client, place, 'endpoint', options));
          return;
        }
        const body = said({
          ...{ kind: what, url, default: isOn(options.default), secret: options.secret },
          contentType: options.form === undefined ? undefined : `application/${options.form}`,
          ...{ rotateSecret: options.rotate, removeSecret: options.unsigned },
        });
        const one = await asked(client.change<EndpointView>('PUT', of(name, '/endpoints'), body), 'account');
        show(options.output, [one], ENDPOINT_HEAD, endpointCells);
        if (options.output === 'table' && one.secret !== undefined) {
          io.out(`its secret, shown only now: ${one.secret}\n`);
        }
        finish(0);
      },
    );

  const BLOCK_HEAD = ['KIND', 'VALUE'];
  const blockCells = ({ kind, value }: BlockView): string[] => [kind, plain(value)];
  const blocking = (name: string, description: string): Command =>
    under(account, name, description).argument('<account>', 'its number or name, or all');
  blocking('blocks', 'senders and destinations that are refused').action(async (name: string, options: Operator) => {
    const found = terms.client(options).get<{ results: BlockView[] }>(of(name, '/blocks'));
    const { results } = await asked(found, 'account');
    finish(show(options.output, results, BLOCK_HEAD, blockCells));
  });
  const kind = (value: string): string => {
    const upper = value.toUpperCase();
    if (upper === 'SENDER' || upper === 'DESTINATION') return upper;
    throw new InvalidArgumentError('It must be sender or destination.');
  };
  blocking('block', 'refuse a sender (status 13) or a destination (14)')
    .argument('<kind>', 'sender or destination', kind)
    .argument('<value>', 'a * at its end stands for all that begin so')
    .action(async (name: string, what: string, value: string, options: Operator) => {
      const made = terms.client(options).change<BlockView>('POST', of(name, '/blocks'), { kind: what, value });
      finish(show(options.output, [await asked(made, 'account')], BLOCK_HEAD, blockCells));
    });
  blocking('unblock', 'refuse it no more')
    .argument('<kind>', 'sender or destination', kind)
    .argument('<value>', 'as the list shows it')
    .action(async (name: string, what: string, value: string, options: Operator) => {
      const place = of(name, `/blocks?${new URLSearchParams({ kind: what, value })}`);
      finish(await terms.removed(terms.client(options), place, 'block', options));
    });
}
