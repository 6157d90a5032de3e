/**
 * The carriers of a configuration as they run, and what dispatch serves. Nobody else makes a carrier.
 *
 * Promises: a carrier whose settings stay the same stays as it is. Fails: nothing here does.
 */

import type { Carrier } from '../carriers/carrier.ts';
import { createMm7Carrier, type Mm7Config } from '../carriers/mm7/mm7.ts';
import { NO_MMS_STATUS } from '../carriers/sandbox/behaviours.ts';
import { TRANSACTION_TAG } from '../carriers/sandbox/smsc.ts';
import {
  createSmppCarrier,
  probeSmsc,
  type SmppCarrier,
  type SmppConfig,
  type SmppHooks,
} from '../carriers/smpp/smpp.ts';
import type { Config } from '../config.ts';
import { SANDBOX, SANDBOX_SMS } from '../configured.ts';
import type { LaneOptions } from '../dispatch/dispatch.ts';
import type { Fit } from '../dispatch/fit.ts';
import type { Prepared } from '../dispatch/prepare.ts';
import { PROFILES } from '../domain/profile.ts';
import type { Env } from '../env.ts';
import { createLaneFit, type Fitter } from '../media/fit.ts';
import { type CarrierLanes, SANDBOX_SLOTS, SANDBOX_TIMEOUT_MS, SHARDS } from './lanes.ts';

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
