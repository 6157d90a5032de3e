/**
 * The carriers of a configuration: the lanes on which their messages wait, the ways to them, and the carriers as they run. Part
 * of the wiring, like main.ts: nobody else makes a carrier.
 *
 * Promises: the same lanes for every process with the same configuration; a carrier whose settings stay the same stays as it
 * is. Fails: what the store fails with.
 */
import { type CarrierConfig, routerOf, SANDBOX, SANDBOX_SMS } from './carrier-settings.ts';
import type { Carrier } from './carriers/carrier.ts';
import { createMm7Carrier, type Mm7Config } from './carriers/mm7/mm7.ts';
import { NO_MMS_STATUS, TRANSACTION_TAG } from './carriers/sandbox/sandbox.ts';
import {
  createSmppCarrier,
  probeSmsc,
  type SmppCarrier,
  type SmppConfig,
  type SmppHooks,
} from './carriers/smpp/smpp.ts';
import { type Config, isSqlite } from './config.ts';
import type { LaneOptions } from './dispatch/dispatch.ts';
import type { Fit } from './dispatch/fit.ts';
import type { Prepared } from './dispatch/prepare.ts';
import { PROFILES } from './domain/profile.ts';
import type { Channel, Router } from './domain/routing.ts';
import type { Env } from './env.ts';
import { createLaneFit, type Fitter } from './media/fit.ts';
import type { Store } from './store/contract.ts';

/** Lanes of one carrier on a store of many nodes, so that several can share its work. */
const SHARDS = 4;
/** Enough that 5 s answers of 9909 do not starve the rest. */
const SANDBOX_SLOTS = 64;
const SANDBOX_TIMEOUT_MS = 30_000;

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

/** Where the carrier in a box is. */
export interface SandboxPlace {
  url: string;
  smppHost: string;
  smppPort: number;
}

/** What carriers are made with. */
export interface CarrierNeeds {
  /** Null = there is none. */
  sandbox: SandboxPlace | null;
  fitter: Fitter;
  /** What SMSCs tell. */
  hooks: SmppHooks;
  env: Env;
}

/** A carrier as it runs, and the settings that made it. */
export interface MadeCarrier {
  from: string;
  way: { carrier: Carrier; fit: Fit } | { sms: SmppCarrier };
}

/** Lets go of a carrier that no lane uses any more. */
export async function closeCarrier({ way }: MadeCarrier): Promise<void> {
  await ('sms' in way ? way.sms : way.carrier).close?.();
}

/** How the binds of SMSCs do, for the metrics page. */
export function bindsOf(
  made: ReadonlyMap<string, MadeCarrier>,
): { carrier: string; binds: number; bound: number; outstanding: number }[] {
  return [...made.values()].flatMap(({ way }) => {
    if (!('sms' in way)) return [];
    const { binds, bound, outstanding } = way.sms.health();
    return [{ carrier: way.sms.name, binds, bound, outstanding }];
  });
}

/** Whether the configured SMSCs can be reached, without a bind: `wrong` '' = yes. Never rejects; takes a second or two. */
export function probeSmscs(config: Config, env: Env): Promise<{ name: string; place: string; wrong: string }[]> {
  const smscs = config.carriers.filter((carrier) => carrier.type === 'smpp');
  return Promise.all(
    smscs.map(async (smsc) => ({
      name: smsc.name,
      place: `${smsc.host}:${smsc.port}`,
      wrong: await probeSmsc(smsc, env),
    })),
  );
}

/**
 * What dispatch serves. The lanes of a carrier divide its slots and its rate, and share its connections. `made`: carriers that
 * run already, which are used again where their settings are the same; returns with those that are used now.
 */
export function servedLanes(
  all: readonly CarrierLanes[],
  needs: CarrierNeeds,
  made: ReadonlyMap<string, MadeCarrier>,
): { lanes: LaneOptions[]; made: Map<string, MadeCarrier> } {
  const used = new Map<string, MadeCarrier>();
  const lanes = all.flatMap((one): LaneOptions[] => {
    const { numbers, spare, concurrency, ratePerSecond, timeoutMs } = one;
    const id = `${one.channel} ${one.name}`;
    const from = JSON.stringify([one.config, needs.sandbox]);
    const known = made.get(id);
    const running = known?.from === from ? known : { from, way: makeCarrier(one, needs) };
    used.set(id, running);
    const serving = numbers.map(
      (no, shard): LaneOptions => ({
        ...running.way,
        no,
        concurrency: share(concurrency, shard, numbers.length),
        ratePerSecond: share(ratePerSecond, shard, numbers.length),
        timeoutMs,
      }),
    );
    const slow = Math.min(1, ratePerSecond / SHARDS);
    return [
      ...serving,
      ...spare.map((no): LaneOptions => ({ ...running.way, no, concurrency: 1, ratePerSecond: slow, timeoutMs })),
    ];
  });
  return { lanes, made: used };
}

function makeCarrier({ config, channel, timeoutMs }: CarrierLanes, needs: CarrierNeeds): MadeCarrier['way'] {
  const { env, fitter, hooks } = needs;
  if (channel === 'SMS') {
    // Below dispatch's own limit, so that the words can say which phase took too long.
    const own = { timeoutMs: Math.max(1, Math.floor(timeoutMs * 0.9)) };
    const smsc =
      config?.type === 'smpp' ? { ...config, ...own } : { ...sandboxSmsc(needs.sandbox as SandboxPlace), ...own };
    return { sms: createSmppCarrier(smsc, hooks, env) };
  }
  const own = config?.type === 'mm7' ? config : sandboxMmsc((needs.sandbox as SandboxPlace).url);
  const profile =
    config?.type === 'mm7' && config.profile
      ? config.profile
      : { ...PROFILES.any, transferEncoding: own.transferEncoding };
  return { carrier: createMm7Carrier(own, env), fit: createLaneFit<Prepared>(fitter, profile) };
}

/** Whole parts, so that a rate that each lane holds in every second is held by all together; the first takes the fraction. */
function share(total: number, shard: number, count: number): number {
  const whole = Math.floor(total);
  const rest = shard === 0 ? total - whole : 0;
  return Math.floor(whole / count) + (shard < whole % count ? 1 : 0) + rest;
}

function sandboxMmsc(url: string): Mm7Config {
  return {
    name: SANDBOX,
    url: `${url}/mm7`,
    namespace: 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4',
    version: '6.8.0',
    vaspId: 'postcard',
    vasId: 'postcard',
    transferEncoding: 'binary',
    // 15019 EC_HANDSET_DOES_NOT_SUPPORT_MMS
    errors: { [NO_MMS_STATUS]: 15019 },
    concurrency: SANDBOX_SLOTS,
    timeoutMs: SANDBOX_TIMEOUT_MS,
  };
}

function sandboxSmsc({ smppHost, smppPort }: SandboxPlace): SmppConfig {
  return {
    name: SANDBOX_SMS,
    host: smppHost,
    port: smppPort,
    systemId: 'postcard',
    password: 'postcard',
    window: SANDBOX_SLOTS,
    transactionTlv: TRANSACTION_TAG,
    receiptIdForm: 'as-is',
  };
}
