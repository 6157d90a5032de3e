/**
 * `postcard bulk`: list, show and steer bulks. `show --follow` follows one to its end: a bar that redraws itself on a terminal,
 * a plain line for each change elsewhere.
 *
 * Promises: exit code 0 = done as asked (followed: the bulk has ended), else 1 with a line that says why. A server that
 * restarts is outlasted for two minutes while following.
 */
import type { Env } from '../env.ts';
import type { BulkView, Client } from './client.ts';
import { outlasting } from './outlast.ts';
import { Failure, type Form, hasColor, type Io, machine, paint, plain, shortInstant, table } from './terminal.ts';

/** How often a followed bulk is looked at. */
const LOOK_MS = 1000;
/** Bulks asked for at a time. */
const PAGE = 100;
/** Cells of the bar. */
const BAR = 30;

/** Lists the newest `most` bulks; the exit code. */
export async function bulkList(io: Io, client: Client, most: number, form: Form): Promise<number> {
  const bulks: BulkView[] = [];
  for (let cursor: string | undefined; bulks.length < most; ) {
    const page = await client.bulks(Math.min(PAGE, most - bulks.length), cursor);
    bulks.push(...page.results);
    cursor = page.cursor.nextCursor;
    if (cursor === undefined) break;
  }
  if (form !== 'table') io.out(machine(form, bulks));
  else if (bulks.length === 0) io.out('no bulks: requests with a bulkId, a schedule or a speed limit become ones\n');
  else {
    const head = ['BULK', 'STATUS', 'SENDS AT', 'LIMIT', 'ACCEPTED', 'WAITING', 'SENT', 'DELIVERED', 'FAILED'];
    const rows = bulks.map((bulk) => {
      const { accepted, waiting, sent, delivered, failed } = bulk.progress;
      const figures = [accepted, waiting, sent, delivered, failed].map(String);
      return [plain(bulk.bulkId), bulk.status, shortInstant(bulk.sendAt), limitOf(bulk), ...figures];
    });
    io.out(table(head, rows));
  }
  return 0;
}

/** Shows one bulk, or (with `following`) follows it to its end; the exit code. */
export async function bulkShow(io: Io, client: Client, bulkId: string, form: Form, following?: Env): Promise<number> {
  const bulk = await client.bulk(bulkId);
  if (!bulk) throw unknown(client, bulkId);
  if (following) return follow(io, following, client, bulk, form);
  shown(io, bulk, form);
  return 0;
}

/** Pauses, resumes or cancels; the exit code. */
export async function bulkSteer(io: Io, client: Client, bulkId: string, status: string, form: Form): Promise<number> {
  if (!(await client.steerBulk(bulkId, status))) throw unknown(client, bulkId);
  return bulkShow(io, client, bulkId, form);
}

/** Moves a bulk or changes its limit; the exit code. */
export async function bulkChange(io: Io, client: Client, bulkId: string, change: object, form: Form): Promise<number> {
  const bulk = await client.changeBulk(bulkId, change);
  if (!bulk) throw unknown(client, bulkId);
  shown(io, bulk, form);
  return 0;
}

function unknown(client: Client, bulkId: string): Failure {
  return new Failure(`${client.url} knows no bulk ${plain(bulkId)} of this account`);
}

function shown(io: Io, bulk: BulkView, form: Form): void {
  if (form === 'json') io.out(`${JSON.stringify(bulk, null, 2)}\n`);
  else if (form === 'ndjson') io.out(machine('ndjson', [bulk]));
  else {
    const { accepted, waiting, sent, delivered, failed } = bulk.progress;
    const rows = [
      ['bulk', plain(bulk.bulkId)],
      ['status', bulk.status],
      ['sends at', shortInstant(bulk.sendAt)],
      ['limit', limitOf(bulk)],
      ['accepted', String(accepted)],
      ['waiting', String(waiting)],
      ['sent', String(sent)],
      ['delivered', String(delivered)],
      ['failed', String(failed)],
    ];
    io.out(`${table([], rows)}${bar(io, bulk)}\n`);
  }
}

function limitOf(bulk: BulkView): string {
  const limit = bulk.sendingSpeedLimit;
  return limit ? `${limit.amount} per ${limit.timeUnit}` : '-';
}

/** `[#####>>>------]  41 %  delivered 40, failed 1, sent 25, waiting 34`: what has ended, what a carrier has, what waits. */
function bar(io: Io, bulk: BulkView): string {
  const { accepted, waiting, sent, delivered, failed } = bulk.progress;
  const colors = paint(hasColor(io));
  const cells = (part: number): number => (accepted === 0 ? 0 : Math.floor((part / accepted) * BAR));
  const [good, bad] = [cells(delivered), cells(delivered + failed) - cells(delivered)];
  const away = cells(delivered + failed + sent) - good - bad;
  const rest = '-'.repeat(BAR - good - bad - away);
  const percent = accepted === 0 ? 100 : Math.floor(((delivered + failed) / accepted) * 100);
  const drawn = `${colors.good('#'.repeat(good))}${colors.bad('x'.repeat(bad))}${'>'.repeat(away)}${colors.dim(rest)}`;
  return `[${drawn}] ${String(percent).padStart(3)} %  delivered ${delivered}, failed ${failed}, sent ${sent}, waiting ${waiting}`;
}

/** Whether nothing of it will change any more. */
function ended({ status, progress }: BulkView): boolean {
  return (status === 'FINISHED' || status === 'CANCELED') && progress.waiting + progress.sent === 0;
}

/** Draws or tells each change until the bulk has ended. */
async function follow(io: Io, env: Env, client: Client, first: BulkView, form: Form): Promise<number> {
  const drawing = form === 'table' && io.tty && io.env.TERM !== 'dumb';
  const tell = teller(io, env, first, drawing ? 'drawn' : form);
  const look = outlasting(io, env, (why) => `${drawing ? '\n' : ''}postcard: ${why}; still following\n`);
  for (let bulk: BulkView | null | 'away' = first; ; bulk = await look(() => client.bulk(first.bulkId))) {
    if (bulk === null) throw unknown(client, first.bulkId);
    if (bulk !== 'away') {
      tell(bulk);
      if (ended(bulk)) {
        if (drawing) io.out('\n');
        if (form === 'json') io.out(`${JSON.stringify(bulk, null, 2)}\n`);
        return 0;
      }
    }
    await env.clock.sleep(LOOK_MS, io.stop);
    if (io.stop.aborted) {
      if (drawing) io.out('\n');
      throw new Failure(`stopped following; postcard bulk show ${plain(first.bulkId)} --follow goes on`);
    }
  }
}

/** Tells how a bulk does: `drawn` = over the line before, with the time that is left; else only what has changed; in JSON only the end. */
function teller(io: Io, env: Env, first: BulkView, form: Form | 'drawn'): (bulk: BulkView) => void {
  const began = env.clock.monotonic();
  let before = '';
  return (bulk) => {
    const line = `${bar(io, bulk)}  ${bulk.status}`;
    const seconds = (env.clock.monotonic() - began) / 1000;
    if (form === 'drawn') io.out(`\r\u001b[2K${line}${left(bulk, done(bulk) - done(first), seconds)}`);
    else if (form === 'table' && line !== before) io.out(`${line}\n`);
    else if (form === 'ndjson' && line !== before) io.out(machine('ndjson', [bulk]));
    before = line;
  };
}

function done({ progress }: BulkView): number {
  return progress.delivered + progress.failed;
}

/** `  12.5/s, 3 min left`, once it can be told. */
function left(bulk: BulkView, ended: number, seconds: number): string {
  if (bulk.status !== 'PROCESSING' || ended <= 0 || seconds < 2) return '';
  const rate = ended / seconds;
  const rest = (bulk.progress.waiting + bulk.progress.sent) / rate;
  const words =
    rest < 90 ? `${Math.ceil(rest)} s` : rest < 5400 ? `${Math.round(rest / 60)} min` : `${Math.round(rest / 3600)} h`;
  return `  ${rate < 10 ? rate.toFixed(1) : Math.round(rate)}/s, ${words} left`;
}
