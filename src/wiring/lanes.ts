/**
 * The lanes on which messages wait for the carriers of a configuration, and the ways to them.
 *
 * Promises: the same lanes for every process with the same configuration. Fails: what the store fails with.
 */
import type { CarrierConfig } from '../carrier-settings.ts';
import type { Config } from '../config.ts';
import { isSqlite, routerOf, SANDBOX, SANDBOX_SMS } from '../configured.ts';
import type { Channel, Router } from '../domain/routing.ts';
import type { Store } from '../store/contract.ts';

/** Lanes of one carrier on a store of many nodes, so that several can share its work. */
export const SHARDS = 4;
/** Enough that 5 s answers of 9909 do not starve the rest. */
export const SANDBOX_SLOTS = 64;
export const SANDBOX_TIMEOUT_MS = 30_000;

/** A carrier's lanes, and how they are served. */
export interface CarrierLanes {
  /** In the configuration, and in its routes. */
  name: string;
  channel: Channel;
  numbers: number[];
  /** Lanes that a configuration with more slots or a higher rate may have left work on: served, but nothing new goes there. */
  spare: number[];
  concurrency: number;
  /** 0 = no limit. */
  ratePerSecond: number;
  timeoutMs: number;
  /** Null = the sandbox. */
  config: CarrierConfig | null;
}

/** The lanes of each carrier, configured ones first, in their order; the same for every process with this configuration. */
export async function carrierLanes(config: Config, store: Store): Promise<CarrierLanes[]> {
  const all: CarrierLanes[] = [];
  const add = async (
    stored: string,
    policy: Parameters<Store['lane']>[1],
    pace: Omit<CarrierLanes, 'numbers' | 'spare'>,
  ): Promise<void> => {
    const { concurrency, ratePerSecond } = pace;
    const most = Math.min(SHARDS, concurrency, ratePerSecond > 0 ? Math.max(1, Math.floor(ratePerSecond)) : SHARDS);
    const [shards, count] = isSqlite(config.store) ? [1, 1] : [SHARDS, most];
    const lanes: number[] = [];
    for (let shard = 0; shard < shards; shard++) lanes.push(await store.lane(stored, policy, shard));
    all.push({ ...pace, numbers: lanes.slice(0, count), spare: lanes.slice(count) });
  };
  for (const carrier of config.carriers) {
    const { name, onUnknown, reports, timeoutMs } = carrier;
    const channel = carrier.type === 'smpp' ? 'SMS' : 'MMS';
    const concurrency = carrier.type === 'smpp' ? carrier.binds * carrier.window : carrier.concurrency;
    const ratePerSecond = carrier.ratePerSecond ?? 0;
    await add(name, { onUnknown, reports }, { name, channel, concurrency, ratePerSecond, timeoutMs, config: carrier });
  }
  if (config.sandbox) {
    const pace = {
      name: SANDBOX,
      concurrency: SANDBOX_SLOTS,
      ratePerSecond: 0,
      timeoutMs: SANDBOX_TIMEOUT_MS,
      config: null,
    };
    await add(SANDBOX, { onUnknown: 'retry', reports: true }, { ...pace, channel: 'MMS' });
    await add(SANDBOX_SMS, { onUnknown: 'retry', reports: true }, { ...pace, channel: 'SMS' });
  }
  return all;
}

/** The ways that a configuration describes over these lanes. */
export function routerFor(config: Config, lanes: readonly CarrierLanes[]): Router {
  return routerOf(
    config,
    (name, channel) => lanes.find((one) => one.name === name && one.channel === channel)?.numbers ?? [],
  );
}
