/**
 * `postcard tail`: one line for each status change, as it happens. A broken connection is taken up again where it broke
 * (Last-Event-ID), so that a restart of the server loses no line. Ends when it is told to (exit code 0), or at once when the
 * very first connection fails, or when the server refuses us for good (a search that it does not understand, too).
 */
import type { Env } from '../env.ts';
import { type Client, type ReportView, Unreachable } from './client.ts';
import { isDelivered, isFinal } from './story.ts';
import { type Form, hasColor, type Io, machine, paint, plain, shortInstant } from './terminal.ts';

/** Pauses before the first, second, ... try to connect again; the last one repeats. */
const AGAIN_MS = [200, 500, 1000, 2000, 5000];

/** Follows until `io.stop`, all or what `search` finds; the exit code. Fails with a Failure as the file says. */
export async function tail(io: Io, env: Env, client: Client, form: Form, search?: string): Promise<number> {
  let last: string | null = null;
  let failures = 0;
  let everOpened = false;
  while (!io.stop.aborted) {
    try {
      const on = {
        opened() {
          if (failures > 0) io.err('postcard: connected again\n');
          else if (!everOpened && form === 'table' && io.tty) io.err(`postcard: following ${client.url}, ^C ends\n`);
          everOpened = true;
          failures = 0;
        },
        place(id: string) {
          last = id;
        },
        event(report: ReportView) {
          io.out(form === 'table' ? line(io, report) : machine('ndjson', [report]));
        },
      };
      await client.follow(last, io.stop, on, search);
    } catch (error) {
      if (io.stop.aborted) break;
      if (!(error instanceof Unreachable) || !everOpened) throw error;
      if (failures === 0) io.err(`postcard: ${error.lines[0]}; connecting again\n`);
      await env.clock.sleep(AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)] as number, io.stop);
      failures += 1;
    }
  }
  return 0;
}

function line(io: Io, report: ReportView): string {
  const colors = paint(hasColor(io));
  const { status, error } = report;
  const name = plain(status.name).padEnd(31);
  const shade = !isFinal(status) ? name : isDelivered(status) ? colors.good(name) : colors.bad(name);
  const why = error.id === 0 ? '' : `  ${error.id} ${plain(error.name)}`;
  const { doneAt, to, messageId } = report;
  return `${colors.dim(shortInstant(doneAt))}  ${shade}  ${plain(to)}  ${plain(messageId)}${why}\n`;
}
