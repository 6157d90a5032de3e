#!/usr/bin/env node
/**
 * The `postcard` command: what can be typed, and what comes of it. Each command stands in a file of its own.
 *
 * Promises: exit code 0 = done as asked, 1 = not, with one line on stderr for each thing that is wrong and what would be
 * right. A stack trace is a bug.
 */
import { readFileSync } from 'node:fs';
import { isatty } from 'node:tty';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { type Config, describeConfig, loadConfig, type Origins, publicUrlOf } from '../config.ts';
import { type Env, realEnv } from '../env.ts';
import { describeAccounts } from './account.ts';
import { backup, restore } from './backup.ts';
import { bulkChange, bulkList, bulkShow, bulkSteer } from './bulk.ts';
import { type Client, createClient } from './client.ts';
import { demo, demoConfig } from './demo.ts';
import { doctor, obstacles } from './doctor.ts';
import { listen } from './listen.ts';
import { numberList, numberRemove, numberSet } from './number.ts';
import { reroute } from './reroute.ts';
import { route } from './route.ts';
import { createStopper, SIGNALS, serve, sourcesOf } from './serve.ts';
import { tail } from './tail.ts';
import { Failure, FORMS, type Form, type Io, machine, plain, table } from './terminal.ts';
import {
  endpointList,
  endpointRemove,
  endpointSet,
  optOutAdd,
  optOutList,
  optOutRemove,
  rearm,
  webhookReplay,
  webhooksList,
  webhooksReplay,
} from './webhooks.ts';

/** Knows media types by their bytes: more code than all other commands, and no server's. Likewise `media`. */
const sending = () => import('./send.ts');

/** Runs one command line (without the program's own name) and resolves with its exit code. Never rejects but for bugs. */
export async function run(args: string[], io: Io): Promise<number> {
  let code = 0;
  const program = describe(io, (result) => {
    code = result;
  });
  try {
    await program.parseAsync(args, { from: 'user' });
    return code;
  } catch (error) {
    // Commander has written its line already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 1;
    // StartError of main has lines too; main is loaded only by the commands that start a server.
    const lines = error instanceof Failure || (error as Error).name === 'StartError' ? (error as Failure).lines : null;
    if (!lines) throw error;
    for (const line of lines) io.err(`postcard: ${plain(line)}\n`);
    return 1;
  }
}

interface Common {
  output: Form;
}

interface Remote extends Common {
  url?: string;
  key?: string;
}

interface Operating extends Common {
  url?: string;
  adminKey?: string;
}

/** Options of send as they were typed. */
interface Typed {
  to?: string[];
  sender?: string;
  text?: string[];
  media?: string[];
  title?: string;
  messageId?: string;
  wait?: boolean;
}

function describe(io: Io, finish: (code: number) => void): Command {
  const program = new Command('postcard')
    .description("A self-hosted MMS platform with Infobip's MMS API v2")
    .version(version(), '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show help')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.out(text),
      writeErr: (text) => io.err(text),
      outputError: (text, write) => write(complaint(text)),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .addHelpText('after', '\nSettings come from POSTCARD_* variables and postcard.yaml: see `postcard config`.');

  const command = (name: string, description: string): Command => program.command(name).description(description);
  const output = (of: Command): Command =>
    of.addOption(new Option('-o, --output <form>', 'how results are shown').choices(FORMS).default('table'));
  const remote = (of: Command): Command =>
    output(of)
      .option('--url <url>', 'the server (default: this machine, by its settings)', webUrl)
      .option('--key <key>', 'API key (default: POSTCARD_API_KEY or apiKey of postcard.yaml)');

  command('serve', 'start the server; SIGTERM stops it')
    .option('--roles <list>', 'what this process does: api, dispatch, webhooks, sandbox (POSTCARD_ROLES)')
    .action(async (options: { roles?: string }) => {
      const env = options.roles === undefined ? io.env : { ...io.env, POSTCARD_ROLES: options.roles };
      const own = { ...io, env };
      const config = await startable(own);
      finish(await serve(own, ownEnv(config), config));
    });

  command('demo', 'start a server with the sandbox, send an MMS, and tell its story until it is delivered')
    .option('--exit', 'stop when the story is told instead of staying up')
    .action(async (options: { exit?: boolean }) => {
      const given = settings(io).config;
      const config = demoConfig(given, quietEnv());
      await free(config);
      finish(await demo(io, ownEnv(config), config, options.exit === true));
    });

  remote(command('send', 'send an MMS'))
    .option('--to <numbers>', 'destination; repeat it or separate by commas', list)
    .option('--sender <sender>', 'who it comes from: a number or a name')
    .option('--text <text>', 'text; repeat it for more', collect)
    .option('--media <file>', 'picture, audio, video or text file; repeat it for more', collect)
    .option('--title <title>', 'subject')
    .option('--message-id <id>', 'your own id, unique for 48 h; the same id is never sent twice')
    .option('--wait', 'follow it to its final status; exit code 0 only when it was delivered to all')
    .action(async (options: Remote & Typed, self: Command) => {
      const { to = [], sender, text = [], media = [], title, messageId } = options;
      const wrong: string[] = [];
      if (to.length === 0) wrong.push('where to? give --to');
      if (sender === undefined) wrong.push('from whom? give --sender');
      if (text.length + media.length === 0) wrong.push('nothing to send: give --text or --media');
      if (messageId !== undefined && to.length > 1) wrong.push('--message-id names one message: give one --to');
      if (wrong.length > 0 || sender === undefined) self.error(wrong.join('\n'));
      const env = quietEnv();
      const what = { to, sender, text, media, title, messageId, wait: options.wait === true, output: options.output };
      const { send } = await sending();
      finish(await send(io, env, clientOf(io, env, options), what));
    });

  remote(command('tail', 'follow status changes as they happen, a line each'))
    .option(
      '--filter <words>',
      'like \'status:undeliverable campaign:"spring sale"\': to from status bulk campaign before after',
    )
    .action(async (options: Remote & { filter?: string }) => {
      const env = quietEnv();
      finish(await tail(io, env, clientOf(io, env, options), options.output, options.filter));
    });

  remote(command('show', "tell one message's story"))
    .argument('<messageId>', 'the id that the answer to send gave')
    .action(async (id: string, options: Remote) => {
      const { show } = await sending();
      finish(await show(io, clientOf(io, quietEnv(), options), id, options.output));
    });

  const bulk = command('bulk', 'list, show and steer bulks');
  const bulkCommand = (name: string, description: string): Command =>
    remote(bulk.command(name).description(description));
  const ofBulk = (of: Command): Command =>
    of.argument('<bulkId>', 'the bulkId that you gave, or that the answer to send gave');

  bulkCommand('list', 'the newest bulks')
    .option('--limit <n>', 'how many', count, 20)
    .action(async (options: Remote & { limit: number }) => {
      finish(await bulkList(io, clientOf(io, quietEnv(), options), options.limit, options.output));
    });
  ofBulk(bulkCommand('show', 'one bulk with its progress'))
    .option('--follow', 'follow it to its end')
    .action(async (id: string, options: Remote & { follow?: boolean }) => {
      const env = quietEnv();
      finish(await bulkShow(io, clientOf(io, env, options), id, options.output, options.follow ? env : undefined));
    });
  for (const [name, status, description] of [
    ['pause', 'PAUSED', 'nothing more leaves until it is resumed'],
    ['resume', 'PROCESSING', 'it goes on'],
    ['cancel', 'CANCELED', 'nothing more leaves, for good; what a carrier has runs on'],
  ] as const) {
    ofBulk(bulkCommand(name, description)).action(async (id: string, options: Remote) => {
      finish(await bulkSteer(io, clientOf(io, quietEnv(), options), id, status, options.output));
    });
  }
  ofBulk(bulkCommand('reschedule', 'move it to another instant (while it is pending or paused)'))
    .requiredOption('--at <instant>', 'with its zone: 2026-12-24T18:00:00+01:00; or now', instant)
    .action(async (id: string, options: Remote & { at: string }) => {
      finish(await bulkChange(io, clientOf(io, quietEnv(), options), id, { sendAt: options.at }, options.output));
    });
  ofBulk(bulkCommand('speed', 'change its speed limit'))
    .argument('<limit>', 'like 60/minute, 1000/hour, 1/day', speed)
    .action(async (id: string, limit: object, options: Remote) => {
      const change = { sendingSpeedLimit: limit };
      finish(await bulkChange(io, clientOf(io, quietEnv(), options), id, change, options.output));
    });

  output(command('config', 'show every setting: its value, where that comes from, what it is for')).action(
    (options: Common) => {
      const { config, origins } = settings(io);
      io.out(configText(config, origins, options.output));
    },
  );

  describeWebhooks(io, finish, command, remote);
  describeAccounts({
    io,
    finish,
    command,
    client: (options) => operatorOf(io, quietEnv(), options),
    secret: () => Buffer.from(quietEnv().random.bytes(18)).toString('base64url'),
  });

  output(command('route', 'explain which carriers take a number, by the settings alone'))
    .argument('<number>', 'a destination as a request would name it')
    .option('--from <sender>', 'the sender, where rules ask for it')
    .option('--account <number>', 'the account, where rules ask for it', count)
    .action((number: string, options: Common & { from?: string; account?: number }) => {
      const { from, account, output: form } = options;
      finish(route(io, settings(io).config, { to: number, from, account }, form));
    });

  output(command('reroute', 'let what waits for a carrier that left the settings go to another'))
    .argument('<from>', 'the name that it had')
    .argument('<to>', 'a carrier for the same kind of messages')
    .option('--url <url>', 'the server (default: this machine, by its settings)', webUrl)
    .option('--admin-key <key>', "the operator's key (default: POSTCARD_ADMIN_KEY or adminKey of postcard.yaml)")
    .action(async (from: string, to: string, options: Operating) => {
      finish(await reroute(io, operatorOf(io, quietEnv(), options), from, to, options.output));
    });

  describeNumbers(io, finish, command, output);

  output(command('media', 'show what a carrier would be sent of files: sizes, pixels, types, or why it cannot be sent'))
    .argument('<files...>', 'pictures, sounds, films, texts: together one message')
    .option('--profile <name>', 'a ready-made profile (300k, image-basic, ...) or a configured carrier', '300k')
    .option('--out <directory>', 'write what would be sent there')
    .action(async (files: string[], options: Common & { profile: string; out?: string }) => {
      const { media } = await import('./media.ts');
      finish(await media(io, quietEnv(), settings(io).config, { files, ...options }));
    });

  output(command('doctor', 'check that this machine keeps what Postcard promises')).action(async (options: Common) => {
    const { config } = settings(io);
    finish(await doctor(io, quietEnv(), config, options.output));
  });

  output(command('backup', 'copy everything that is kept, beside a running server (embedded store)'))
    .argument('<directory>', 'a new directory for it')
    .action(async (dest: string, options: Common) => {
      const { config } = settings(io);
      finish(await backup(io, quietEnv(), config, { dest, output: options.output, version: version() }));
    });

  output(command('restore', 'put a backup where the server looks for its data, and say what comes next'))
    .argument('<directory>', 'the backup')
    .option('--to <directory>', 'another data directory than that of the settings')
    .option('--force', 'move data that is there aside instead of refusing')
    .action(async (source: string, options: Common & { to?: string; force?: boolean }) => {
      const { to, force = false, output: form } = options;
      const { config } = settings(io);
      finish(
        await restore(io, quietEnv(), config, { source, ...(to === undefined ? {} : { to }), force, output: form }),
      );
    });

  return program;
}

/** `number`. */
function describeNumbers(
  io: Io,
  finish: (code: number) => void,
  command: (name: string, description: string) => Command,
  output: (of: Command) => Command,
): void {
  const number = command('number', 'numbers of ours: whose messages from handsets are, and where they go');
  const operating = (name: string, description: string): Command =>
    output(number.command(name).description(description))
      .option('--url <url>', 'the server (default: this machine, by its settings)', webUrl)
      .option('--admin-key <key>', "the operator's key (default: POSTCARD_ADMIN_KEY or adminKey of postcard.yaml)");
  operating('list', 'all of them, or those of an account')
    .option('--account <account>', 'by number or name')
    .action(async (options: Operating & { account?: string }) => {
      finish(await numberList(io, operatorOf(io, quietEnv(), options), options.account, options.output));
    });
  operating('set', 'give a number to an account, or change where its messages go')
    .argument('<number>', 'as carriers write it; short codes too')
    .requiredOption('--account <account>', 'by number or name')
    .option('--to <url>', "where its messages are posted (default: the account's default inbound endpoint)", webUrl)
    .option('--pull', 'they are only pulled from the inbox')
    .option('--entity <id>', 'entityId of its messages')
    .option('--application <id>', 'applicationId of its messages')
    .option('--callback-data <text>', 'told with each of its messages')
    .action(
      async (
        own: string,
        options: Operating & {
          account: string;
          to?: string;
          pull?: boolean;
          entity?: string;
          application?: string;
          callbackData?: string;
        },
      ) => {
        const { account, to: url, pull, entity: entityId, application: applicationId, callbackData } = options;
        const setting = { number: own, ...given({ url, pull, entityId, applicationId, callbackData }) };
        finish(await numberSet(io, operatorOf(io, quietEnv(), options), account, setting, options.output));
      },
    );
  operating('rm', 'forget a number: what comes to it goes to the first account')
    .argument('<number>', 'as the list shows it')
    .action(async (own: string, options: Operating) => {
      finish(await numberRemove(io, operatorOf(io, quietEnv(), options), own, options.output));
    });
}

/** `webhooks`, `endpoint`, `optout` and `listen`. */
function describeWebhooks(
  io: Io,
  finish: (code: number) => void,
  command: (name: string, description: string) => Command,
  remote: (of: Command) => Command,
): void {
  const client = (options: Remote): Client => clientOf(io, quietEnv(), options);

  const webhooks = command('webhooks', 'list what was told to whom, and tell it again');
  remote(webhooks.command('list').description('the newest webhooks with what came of them'))
    .option('--message <id>', 'only those of one message')
    .option('--endpoint <url>', 'only those of one URL')
    .option('--state <state>', 'open, delivered or exhausted')
    .option('--limit <n>', 'how many', count, 20)
    .action(async (options: Remote & { message?: string; endpoint?: string; state?: string; limit: number }) => {
      finish(await webhooksList(io, client(options), options, options.output));
    });
  remote(webhooks.command('replay').description('make webhooks again: the same bytes, the same id'))
    .argument('[webhookId]', 'one of the list; else --from, --to or --endpoint')
    .option('--from <instant>', 'those formed since then', instant)
    .option('--to <instant>', 'those formed until then', instant)
    .option('--endpoint <url>', 'those of one URL')
    .option('--state <state>', 'delivered or exhausted; default both')
    .action(
      async (
        id: string | undefined,
        options: Remote & { from?: string; to?: string; endpoint?: string; state?: string },
        self: Command,
      ) => {
        const { from, to, endpoint, state, output: form } = options;
        const range = { ...given({ from, to, endpoint, state }) };
        if ((id === undefined) === (Object.keys(range).length === 0)) {
          self.error('which ones? give a webhook id, or --from, --to or --endpoint');
        }
        const to1 = client(options);
        finish(id === undefined ? await webhooksReplay(io, to1, range, form) : await webhookReplay(io, to1, id, form));
      },
    );
  remote(webhooks.command('rearm').description('let reports (or messages) be pulled again whose answer was lost'))
    .option('--since <instant>', 'what was pulled since then', instant)
    .option('--until <instant>', 'what was pulled until then', instant)
    .option('--message <id>', 'of one message')
    .option('--inbox', 'messages from handsets instead of reports')
    .action(async (options: Remote & { since?: string; until?: string; message?: string; inbox?: boolean }) => {
      const { since: takenSince, until: takenUntil, message: messageId, inbox, output: form } = options;
      const kind = inbox ? 'INBOX' : 'REPORTS';
      finish(await rearm(io, client(options), { kind, ...given({ takenSince, takenUntil, messageId }) }, form));
    });

  const endpoint = command('endpoint', "the account's own URLs for webhooks");
  const kind = (of: Command): Command =>
    of.addOption(
      new Option('--kind <kind>', 'what it takes').choices(['delivery', 'inbound', 'click']).default('delivery'),
    );
  remote(endpoint.command('list').description('all of them')).action(async (options: Remote) => {
    finish(await endpointList(io, client(options), options.output));
  });
  kind(remote(endpoint.command('set').description('make or change one; a new one gets a secret, shown once')))
    .argument('<url>', 'where webhooks go')
    .option('--default', 'it takes what names no URL of its own')
    .option('--no-default', 'it takes only what names it')
    .option('--xml', 'reports as XML')
    .option('--json', 'reports as JSON')
    .option('--header <header>', 'sent with each webhook, like "X-Shop: 7"; repeat it for more', header)
    .option('--secret <secret>', 'signs from now on; the old one signs too for a day')
    .option('--rotate', 'a new secret, shown once; the old one signs too for a day')
    .option('--unsigned', 'no signature any more')
    .action(
      async (
        url: string,
        options: Remote & {
          kind: string;
          default?: boolean;
          xml?: boolean;
          json?: boolean;
          header?: Record<string, string>;
          secret?: string;
          rotate?: boolean;
          unsigned?: boolean;
        },
        self: Command,
      ) => {
        const { xml, json, rotate, unsigned, secret, output: form } = options;
        // Commander's --no-default alone would make it the default by default.
        const asked = self.getOptionValueSource('default') === 'cli' ? options.default : undefined;
        const setting = given({
          kind: options.kind.toUpperCase(),
          url,
          default: asked,
          contentType: xml ? 'application/xml' : json ? 'application/json' : undefined,
          headers: options.header,
          secret,
          rotateSecret: rotate,
          removeSecret: unsigned,
        });
        finish(await endpointSet(io, client(options), setting, form));
      },
    );
  kind(remote(endpoint.command('rm').description('forget its settings')))
    .argument('<url>', 'as the list shows it')
    .action(async (url: string, options: Remote & { kind: string }) => {
      finish(await endpointRemove(io, client(options), options.kind.toUpperCase(), url, options.output));
    });

  const optOut = command('optout', 'who wants nothing from which sender');
  remote(optOut.command('list').description('all entries, by destination'))
    .option('--sender <sender>', 'only those of one sender; * = for all senders')
    .option('--destination <number>', 'only those of one number')
    .option('--limit <n>', 'how many', count, 100)
    .action(async (options: Remote & { sender?: string; destination?: string; limit: number }) => {
      const { sender, destination, limit, output: form } = options;
      finish(await optOutList(io, client(options), given({ sender, destination }), limit, form));
    });
  remote(optOut.command('add').description('messages to these numbers are REJECTED from now on'))
    .argument('<numbers...>', 'destinations')
    .option('--sender <sender>', 'only from this sender; default all of the account')
    .action(async (numbers: string[], options: Remote & { sender?: string }) => {
      finish(await optOutAdd(io, client(options), numbers, options.sender, options.output));
    });
  remote(optOut.command('rm').description('lift one'))
    .argument('<number>', 'the destination')
    .option('--sender <sender>', 'as the list shows it; default that for all senders')
    .action(async (number: string, options: Remote & { sender?: string }) => {
      finish(await optOutRemove(io, client(options), number, options.sender, options.output));
    });

  remote(command('listen', 'receive webhooks on this machine and show what they are'))
    .option('--port <n>', 'where to listen; 0 = any free port', portNumber, 8090)
    .option('--secret <secret>', 'check signatures with it')
    .option('--fail <n>', 'answer 500 to the first n', count)
    .option('--default', "be the account's default endpoint until this ends")
    .option('--xml', 'with --default: get reports as XML')
    .action(
      async (options: Remote & { port: number; secret?: string; fail?: number; default?: boolean; xml?: boolean }) => {
        const env = quietEnv();
        const { port, secret, fail = 0, xml = false, output } = options;
        const account = options.default ? clientOf(io, env, options) : null;
        const what = { port, fail, xml, output, client: account, ...(secret === undefined ? {} : { secret }) };
        finish(await listen(io, env, what));
      },
    );
}

// --- Options ---------------------------------------------------------------------------------------------------------

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

/** Without what is undefined. */
function given<Values extends object>(values: Values): { [Name in keyof Values]?: Exclude<Values[Name], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

function header(value: string, before: Record<string, string> = {}): Record<string, string> {
  const at = value.indexOf(':');
  if (at <= 0) throw new InvalidArgumentError('It must be like "Name: value".');
  return { ...before, [value.slice(0, at).trim()]: value.slice(at + 1).trim() };
}

function portNumber(value: string): number {
  if (/^\d{1,5}$/.test(value) && Number(value) <= 65_535) return Number(value);
  throw new InvalidArgumentError('It must be a port.');
}

function list(value: string, before: string[] = []): string[] {
  return [
    ...before,
    ...value
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== ''),
  ];
}

function count(value: string): number {
  if (/^[1-9]\d{0,5}$/.test(value)) return Number(value);
  throw new InvalidArgumentError('It must be a number of at least 1.');
}

/** The server says what is wrong with an instant; only `now` is ours (the past is now to it). */
function instant(value: string): string {
  return value === 'now' ? '1970-01-01T00:00:00Z' : value;
}

function speed(value: string): object {
  const found = /^(\d{1,9})\/(minute|hour|day)$/i.exec(value);
  if (!found) throw new InvalidArgumentError('It must be like 60/minute, 1000/hour or 1/day.');
  return { amount: Number(found[1]), timeUnit: found[2]?.toUpperCase() };
}

function webUrl(value: string): string {
  if (URL.canParse(value) && /^https?:$/.test(new URL(value).protocol)) return value;
  throw new InvalidArgumentError('It must be an http or https URL.');
}

/** Commander's complaint, or several of ours, each on a line of its own. */
function complaint(text: string): string {
  const lines = text.startsWith('error: ')
    ? [
        text
          .replace(/^error: /, '')
          .trim()
          .replace(/\s*\n\s*/g, ' '),
      ]
    : text.trim().split('\n');
  return lines.map((line) => `postcard: ${plain(line)}\n`).join('');
}

function version(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

// --- Settings --------------------------------------------------------------------------------------------------------

function settings(io: Io): { config: Config; origins: Origins } {
  const loaded = loadConfig(sourcesOf(io));
  if (!loaded.ok) throw new Failure(...loaded.mistakes);
  return loaded;
}

/** Settings that a server can start with. Throws all that is wrong with them and all else that would stop it, in one go. */
async function startable(io: Io): Promise<Config> {
  const loaded = loadConfig(sourcesOf(io));
  if (!loaded.ok) throw new Failure(...loaded.mistakes, ...(await obstacles(loaded.config, loaded.unsure)));
  await free(loaded.config);
  return loaded.config;
}

/** Throws what would stop a server from starting. */
async function free(config: Config): Promise<void> {
  const lines = await obstacles(config);
  if (lines.length > 0) throw new Failure(...lines);
}

/** For commands that only ask: their log is nobody's business. */
function quietEnv(): Env {
  return realEnv({ level: 'silent' });
}

function ownEnv(config: Config): Env {
  return realEnv({ level: config.logLevel, pretty: isatty(2) });
}

/** With both given, the settings of this machine are of no interest, nor are their mistakes. */
function clientOf(io: Io, env: Env, options: Remote): Client {
  const { url, key } = options;
  if (url !== undefined && key !== undefined) return createClient({ url, key, env });
  const { config } = settings(io);
  const found = key ?? config.apiKey;
  if (!found) {
    throw new Failure('no API key: give it with --key, in POSTCARD_API_KEY, or as apiKey in postcard.yaml');
  }
  return createClient({ url: url ?? publicUrlOf(config.host, config.port, config.tlsCert !== null), key: found, env });
}

/** A client of the operator's door. */
function operatorOf(io: Io, env: Env, { url, adminKey }: Omit<Operating, 'output'>): Client {
  if (url !== undefined && adminKey !== undefined) return createClient({ url, key: adminKey, env });
  const { config } = settings(io);
  const key = adminKey ?? config.adminKey;
  if (!key) throw new Failure("no operator's key: give it with --admin-key or in POSTCARD_ADMIN_KEY");
  return createClient({ url: url ?? publicUrlOf(config.host, config.port, config.tlsCert !== null), key, env });
}

function configText(config: Config, origins: Origins, form: Form): string {
  const rows = describeConfig(config, origins);
  if (form !== 'table') return machine(form, rows);
  let cut = false;
  const short = (value: string): string => {
    if (value.length <= VALUE_SHOWN) return value;
    cut = true;
    return `${value.slice(0, VALUE_SHOWN - 3).toWellFormed()}...`;
  };
  const shown = table(
    ['SETTING', 'VALUE', 'FROM', 'WHAT IT IS'],
    rows.map(({ key, env, value, origin, help }) => [env || key, short(plain(value)), plain(origin), help]),
  );
  return cut ? `${shown}\nValues that end in ... are cut; -o json has them whole.\n` : shown;
}

/** Characters of a value in the table of settings: a list of carriers would make every row many screens wide. */
const VALUE_SHOWN = 60;

// --- The process -----------------------------------------------------------------------------------------------------

if (import.meta.main) {
  // `postcard tail | head` is no mistake.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  // Nobody reads what is wrong any more; that is no reason to end a server.
  process.stderr.on('error', () => {});
  const stopper = createStopper(quietEnv().clock, () => process.exit(1));
  for (const signal of SIGNALS) process.on(signal, () => stopper.signal());
  let hangup = (): void => stopper.signal();
  process.on('SIGHUP', () => hangup());
  const code = await run(process.argv.slice(2), {
    // Nothing is no reason to touch a stdout that cannot be written.
    out: (text) => void (text !== '' && process.stdout.write(text)),
    err: (text) => void process.stderr.write(text),
    env: process.env,
    cwd: process.cwd(),
    tty: process.stdout.isTTY === true,
    readFile: (path) => readFileSync(path),
    stop: stopper.stop,
    onHangup: (act) => {
      hangup = act;
    },
  });
  // What is left open (sockets kept alive) is of no use any more. A pipe gets its last bytes first.
  if (process.stdout.writableLength === 0) process.exit(code);
  process.stdout.write('', () => process.exit(code));
}
