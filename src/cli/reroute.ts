/**
 * `postcard reroute FROM TO`: what waits for a carrier that left the configuration goes to another, step by step. The server does
 * it, through the operator's door (POSTCARD_ADMIN_KEY).
 *
 * Promises: exit code 0 = nothing is left that may go; run again at any time, it goes on where it was. What may have reached the
 * old carrier stays and ends by its report, or as not known.
 */
import type { Client } from './client.ts';
import { Failure, type Form, type Io, machine } from './terminal.ts';

/** Asks for steps until there are none; the exit code. */
export async function reroute(io: Io, client: Client, from: string, to: string, form: Form): Promise<number> {
  let moved = 0;
  for (let more = true; more; ) {
    const step = await client.change<{ moved: number; more: boolean }>('POST', '/admin/1/reroute', { from, to });
    if (step === null) {
      throw new Failure(
        `the server at ${client.url} has no operator's door (POSTCARD_ADMIN_KEY), or never had a carrier ${from} and another ${to}`,
      );
    }
    moved += step.moved;
    more = step.more;
  }
  if (form === 'table')
    io.out(`${moved} ${moved === 1 ? 'message goes' : 'messages go'} to ${to} instead of ${from}\n`);
  else io.out(machine(form, [{ from, to, moved }]));
  return 0;
}
