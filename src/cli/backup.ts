/**
 * `postcard backup` and `postcard restore`: a copy of everything that an embedded installation keeps, taken beside a running
 * server, and the way back. What happens to the files is written in `store/sqlite/backup.ts`; here is what is typed and said.
 *
 * Promises: exit code 0 only for a backup that was checked, or a restore that took place. A restore says what the messages
 * of the backup will do at the next start, because some of them the carrier may have had already.
 */
import { resolve } from 'node:path';
import type { Config } from '../config.ts';
import { isSqlite, withoutPassword } from '../configured.ts';
import type { Env } from '../env.ts';
import { Failure, type Form, type Io, machine, plain, table } from './terminal.ts';

/** On PostgreSQL the server's own tools do this, and better: a line for each way. */
const POSTGRES_BACKUP = [
  'a copy at one instant, while Postcard runs: pg_dump --format=custom --file=postcard.dump "$POSTCARD_STORE"',
  'a copy to any later instant: pg_basebackup and WAL archiving (archive_mode = on), so that nothing acknowledged is lost',
  'see docs/OPERATIONS.md, Backup',
];
const POSTGRES_RESTORE = [
  'stop every node, then: pg_restore --clean --if-exists --no-privileges --dbname="$POSTCARD_STORE" postcard.dump',
  'or recover to an instant from pg_basebackup and the archived WAL',
  'then move the numbering on before the first start, or ids are given twice: see docs/OPERATIONS.md, Restore',
];

function onlyEmbedded(config: Config, command: string, instead: string[]): void {
  if (isSqlite(config.store)) return;
  const store = withoutPassword(config.store);
  throw new Failure(
    `${command} is for the embedded store; this one is ${store}, and its server's own tools do it`,
    ...instead,
  );
}

/** What the wiring knows of the data; loaded only by the commands that need it. */
const wiring = () => import('../wiring/store.ts');

/** Backs up into `dest`; the exit code. Fails with a Failure that says what is in the way. */
export async function backup(
  io: Io,
  env: Env,
  config: Config,
  options: { dest: string; output: Form; version: string },
): Promise<number> {
  onlyEmbedded(config, 'backup', POSTGRES_BACKUP);
  const dest = resolve(io.cwd, options.dest);
  const started = env.clock.monotonic();
  const { backupData } = await wiring();
  const result = await backupData(config, dest, { env, version: options.version, stop: io.stop });
  if (result.kind === 'refused') throw new Failure(...result.lines);
  const { manifest } = result;
  const tookMs = Math.round(env.clock.monotonic() - started);
  const { messages, waiting, inFlight, contents, needed, missing } = manifest.figures;
  const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  if (options.output !== 'table') io.out(one(options.output, { backup: dest, tookMs, ...manifest }));
  else {
    io.out(
      table(
        [],
        [
          ['backup', plain(dest)],
          ['instant', manifest.at],
          ['schema', `${manifest.schema}, written by Postcard ${manifest.version}`],
          ['messages', `${messages}: ${waiting} not final, ${inFlight} of them being submitted`],
          [
            'content',
            `${contents} pieces; ${needed - missing} of ${needed} that waiting messages need are there and whole`,
          ],
          ['files', manifest.files.map(({ name, bytes: size }) => `${name} ${mib(size)}`).join(', ')],
          [
            'checked',
            `integrity of each file, SHA-256 in manifest.json; ${mib(bytes)} in ${(tookMs / 1000).toFixed(1)} s`,
          ],
        ],
      ),
    );
  }
  if (missing === 0) return 0;
  io.err(
    `postcard: ${missing} pieces of content are lost or damaged in the store itself: the messages that need them will be rejected; the backup is kept\n`,
  );
  return 1;
}

/** Restores `source`; the exit code. Fails with a Failure that says what is in the way. */
export async function restore(
  io: Io,
  env: Env,
  config: Config,
  options: { source: string; to?: string; force: boolean; output: Form },
): Promise<number> {
  onlyEmbedded(config, 'restore', POSTGRES_RESTORE);
  const source = resolve(io.cwd, options.source);
  const dataDir = options.to === undefined ? config.dataDir : resolve(io.cwd, options.to);
  const target =
    options.to === undefined ? config : { ...config, dataDir, store: `sqlite:${resolve(dataDir, 'postcard.db')}` };
  const { restoreData } = await wiring();
  const result = await restoreData(target, source, { env, force: options.force });
  if (result.kind === 'refused') throw new Failure(...result.lines);
  const { manifest, aside } = result;
  const next = nextSteps(manifest, options.to === undefined ? null : dataDir);
  if (options.output !== 'table') {
    io.out(one(options.output, { restored: dataDir, from: source, aside, next, ...manifest }));
    return 0;
  }
  const { messages, waiting, inFlight } = manifest.figures;
  const rows = [
    ['restored', plain(dataDir)],
    ['from', `${plain(source)}, of ${manifest.at}`],
    ['messages', `${messages}: ${waiting} not final, ${inFlight} of them being submitted`],
  ];
  if (aside !== null) rows.push(['old data', plain(aside)]);
  io.out(`${table([], rows)}\n${next.map((line) => `- ${plain(line)}\n`).join('')}`);
  return 0;
}

/** What a person must know before the next start, most important first. */
function nextSteps(
  manifest: { at: string; figures: { waiting: number; inFlight: number } },
  dataDir: string | null,
): string[] {
  const { waiting, inFlight } = manifest.figures;
  const start = dataDir === null ? 'postcard serve' : `POSTCARD_DATA_DIR=${dataDir} postcard serve`;
  return [
    `Start with: ${start}. Never run it beside the old data: both would send.`,
    `${inFlight} messages were being submitted at ${manifest.at}. Nobody knows whether the carrier took them: each follows its carrier's onUnknown (hold, retry or fail).`,
    `${waiting - inFlight} more were not final. Those that left after that instant are sent again, with the transaction id of the first time: a carrier that drops repeats gives one copy, another gives two.`,
    'What was accepted after that instant is not here: its customers must send it again. Its reports find no message and are dropped after 48 h.',
    'What a carrier reported after that instant it does not report again: such a message stays handed over until its validity ends.',
    'Reports told or pulled after that instant are told or can be pulled again, webhooks under new ids.',
    'Numbering moved on: ids given out after that instant are not given again.',
  ];
}

function one(form: 'json' | 'ndjson', value: object): string {
  return form === 'json' ? `${JSON.stringify(value, null, 2)}\n` : machine('ndjson', [value]);
}

function mib(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}
