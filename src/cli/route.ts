/**
 * `postcard route`: which carriers take a number, in which order and why. Works on the settings alone, without a server.
 *
 * Promises: exit code 0 = there is a way for an MMS, 1 = there is none.
 */

import type { Config } from '../config.ts';
import { routerOf } from '../configured.ts';
import { type Form, type Io, machine, plain, table } from './terminal.ts';

/** Explains the way of `to`. */
export function route(
  io: Io,
  config: Config,
  { to, from, account }: { to: string; from?: string | undefined; account?: number | undefined },
  form: Form,
): number {
  // What counts is which carriers, not which of their lanes.
  const names = ['sandbox', ...config.carriers.map(({ name }) => name)];
  const router = routerOf(config, (name) => [names.indexOf(name) + 1]);
  const told = router.explain(to, from, account);
  const ways = (['MMS', 'SMS'] as const).map((channel) => {
    const { rule, why, carriers } = told.ways[channel];
    const name = rule === null ? null : (config.routes[rule]?.name ?? null);
    return { channel, carriers, rule: rule === null ? null : rule + 1, name, why };
  });
  const code = told.ways.MMS.carriers.length > 0 ? 0 : 1;
  if (form !== 'table') {
    const { ways: _, ...rest } = told;
    io.out(
      machine(
        form,
        ways.map((way) => ({ ...rest, ...way })),
      ),
    );
    return code;
  }
  if (told.destination === null) {
    io.out(`${plain(to)} is not an address that a message can go to (status ${told.status}).\n`);
    return code;
  }
  const facts = [
    `${told.destination}${told.shortCode ? ' (a short code)' : ''}`,
    `network ${told.network ?? 'not in the number table'}`,
    ...(told.needsResellerCode ? ['needs a reseller code'] : []),
  ];
  io.out(`${facts.join(', ')}\n`);
  io.out(
    table(
      ['CHANNEL', 'CARRIERS, BEST FIRST', 'RULE', 'WHY'],
      ways.map(({ channel, carriers, rule, name, why }) => [
        channel,
        carriers.length > 0 ? carriers.map(plain).join(', ') : 'none',
        rule === null ? '' : `${rule}${name === null ? '' : ` ${plain(name)}`}`,
        why,
      ]),
    ),
  );
  return code;
}
