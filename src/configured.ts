/**
 * What a checked configuration says, for the parts that only ask it: the names of the built-in carrier, which store there is,
 * the ways that it describes. Apart from what reads and checks it (`config.ts`, `settings.ts`, `carrier-settings.ts`), so that a
 * thread does not load all that to ask.
 *
 * Promises: pure. Fails: nothing here does.
 */
import { isIP } from 'node:net';
import type { CarrierConfig, Mm7CarrierConfig, Reloadable } from './carrier-settings.ts';
import { type Channel, createRouter, type RoutedCarrier, type Router } from './domain/routing.ts';

/** The built-in carrier's name, which routes may use. */
export const SANDBOX = 'sandbox';
/** Its SMSC in the store: a carrier's lanes are of one channel. */
export const SANDBOX_SMS = `${SANDBOX}-sms`;
/** The default of POSTCARD_SANDBOX_SMPP_PORT: nobody asked for it, so where it is taken another one does. */
export const USUAL_SMPP_PORT = 2775;

/** Whether `store` names a file of the embedded engine, else it is the URL of a PostgreSQL server. */
export function isSqlite(store: string): boolean {
  return store.startsWith('sqlite:');
}

/** A store as people may see it. */
export function withoutPassword(store: string): string {
  return store.replace(/^([a-z]+:\/\/[^:/@]*):.*@/, '$1:***@').replace(/([?&]password=)[^&]*/gi, '$1***');
}

/** Whether only this machine reaches what listens on `host`. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** Whether it is an MMSC. */
export function isMm7(carrier: CarrierConfig): carrier is Mm7CarrierConfig {
  return carrier.type === 'mm7';
}

/** How a carrier calls us, as the listener wants it. */
export function inboundOf(
  carrier: Mm7CarrierConfig,
): NonNullable<Mm7CarrierConfig['inbound']> &
  Pick<Mm7CarrierConfig, 'name' | 'statusCodes' | 'errors' | 'reportIdForm'> {
  const { name, inboundSecret, inbound: own, statusCodes: codes, errors: ids, reportIdForm } = carrier;
  return {
    ...own,
    name,
    ...(inboundSecret === undefined ? {} : { secret: inboundSecret }),
    ...(codes ? { statusCodes: codes } : {}),
    ...(ids ? { errors: ids } : {}),
    ...(reportIdForm ? { reportIdForm } : {}),
  };
}

/**
 * The ways that a configuration describes. `lanesOf` gives the lanes of a carrier for a channel; none = it takes no such
 * messages here.
 */
export function routerOf(
  config: Reloadable & { readonly sandbox: boolean },
  lanesOf: (name: string, channel: Channel) => readonly number[],
): Router {
  const carriers = config.carriers.map((one): RoutedCarrier => {
    if (one.type === 'smpp') return { name: one.name, channel: 'SMS', lanes: lanesOf(one.name, 'SMS') };
    const { name, maxRecipients, handOverEarlyMs: earlyMs } = one;
    return {
      name,
      channel: 'MMS',
      lanes: lanesOf(name, 'MMS'),
      ...(maxRecipients ? { maxRecipients } : {}),
      ...(earlyMs ? { earlyMs } : {}),
    };
  });
  const box = (['MMS', 'SMS'] as const).map(
    (channel): RoutedCarrier => ({
      name: SANDBOX,
      waitsAs: channel === 'SMS' ? SANDBOX_SMS : SANDBOX,
      channel,
      lanes: config.sandbox ? lanesOf(SANDBOX, channel) : [],
    }),
  );
  return createRouter({
    carriers: carriers.filter(({ lanes }) => lanes.length > 0),
    sandbox: box.filter(({ lanes }) => lanes.length > 0),
    configured: config.carriers.length,
    rules: config.routes,
    networks: config.networks,
    failoverAfterUnknown: config.failoverAfterUnknown === true,
    resellerCodeRequired: config.resellerCodeRequired,
  });
}
