/**
 * The thread of what goes out and what comes back: dispatch, media and the listener that carriers call (role `dispatch`),
 * and webhooks (role `webhooks`). Started by `threads.ts`; fails to begin, with a StartError, where the store cannot be
 * reached or a port cannot be had.
 */
import { flushCompileCache } from 'node:module';
import { isatty } from 'node:tty';
import { createMm7Listener } from '../carriers/mm7/listener.ts';
import type { Config, Role } from '../config.ts';
import { inboundOf, isMm7, SANDBOX } from '../configured.ts';
import { createDispatch } from '../dispatch/dispatch.ts';
import { createIds, type Ids } from '../domain/ids.ts';
import { createPartUrls } from '../domain/inbound.ts';
import { createShortener } from '../domain/links.ts';
import { createNetworks } from '../domain/networks.ts';
import type { CarrierInbound, CarrierReport } from '../domain/submission.ts';
import { type Env, realEnv } from '../env.ts';
import { createFitter } from '../media/fit.ts';
import { createFitting } from '../media/fitting.ts';
import { createMedia } from '../media/media.ts';
import { createOutbound } from '../net/outbound.ts';
import type { Store } from '../store/contract.ts';
import { createInboundIntake } from '../webhooks/inbound.ts';
import { createWebhooks } from '../webhooks/webhooks.ts';
import { listenerTls } from './certificates.ts';
import { carrierLanes } from './lanes.ts';
import { bindsOf, type CarrierNeeds, closeCarrier, type MadeCarrier, servedLanes } from './serving.ts';
import { portTaken, StartError } from './start-error.ts';
import { connectStore, type StoreLink } from './store.ts';
import { type Duties, serveMain, type Work } from './threads.ts';

/** How long a stop waits for what is in flight; with the rest of the stop it stays under 35 s (G14). */
const STOP_MS = 30_000;

serveMain(begin);

async function begin(work: Work): Promise<Duties> {
  const { config } = work;
  const env = realEnv({ level: config.logLevel, pretty: isatty(2) });
  const has = (role: Role): boolean => config.roles.includes(role);
  const link = work.store as StoreLink;
  const store = await connectStore(link, config, env);
  const { install, idKey } = await store.identity();
  const ids = createIds(idKey);
  const outbound = createOutbound({ allow: config.outboundAllow, env });
  const webhooks = has('webhooks')
    ? createWebhooks({
        store,
        outbound,
        env,
        ids,
        partUrls: createPartUrls(config.publicUrl, idKey),
        networks: createNetworks(config.networks),
      })
    : null;
  const media = has('dispatch') ? createMedia({ store, outbound, env }) : null;
  const fitting = createFitting(env);
  const hooks = carrierHooks(config, store, ids, env);
  const listener = has('dispatch') ? await listenToCarriers(config, hooks, env) : null;
  let dispatch: ReturnType<typeof createDispatch> | null = null;
  let made: ReadonlyMap<string, MadeCarrier> = new Map();
  /** One at a time: main waits for each. */
  let reconfigure = async (_next: Config): Promise<void> => undefined;

  async function startDispatch(sandbox: CarrierNeeds['sandbox']): Promise<void> {
    const fitter = createFitter({ env, store, fitting });
    const smsHooks = { ...hooks, onInbound: async (mo: CarrierInbound) => void (await hooks.onInbound(mo)) };
    const needs: CarrierNeeds = { sandbox, fitter, hooks: smsHooks, env };
    let lanes: ReturnType<typeof servedLanes>['lanes'];
    ({ lanes, made } = servedLanes(await carrierLanes(config, store), needs, made));
    const node = 'postgres' in link ? link.postgres.node : 'one';
    const shortener = createShortener(config.publicUrl, idKey);
    const running = createDispatch({ store, env, install, shortener, ids, node, lanes });
    dispatch = running;
    running.start();
    reconfigure = async (next) => {
      listener?.setCarriers(callers(next), listenerTls(next) ?? undefined);
      const before = made;
      ({ lanes, made } = servedLanes(await carrierLanes(next, store), needs, before));
      await running.relane(lanes, STOP_MS);
      for (const [id, old] of before) if (made.get(id) !== old) await closeCarrier(old);
    };
  }

  return {
    place: { url: listener?.url ?? '', smppPort: 0 },
    async go(sandbox) {
      if (has('dispatch')) await startDispatch(sandbox);
      webhooks?.start();
      media?.start();
      flushCompileCache();
    },
    counters: () => ({
      lanes: dispatch?.counters() ?? [],
      binds: bindsOf(made),
      webhooks: webhooks?.counters() ?? {},
    }),
    reconfigure: (next) => reconfigure(next),
    async stop() {
      // First no new submissions; reports of what was in flight may still come until the last one is settled.
      await Promise.all([dispatch?.stop(STOP_MS), webhooks?.stop(), media?.stop()]);
      await Promise.all([listener?.close(), ...[...made.values()].map(closeCarrier)]);
      await fitting.close();
      await outbound.close();
      await store.close();
    },
  };
}

/** Where all that carriers tell goes. Both resolve after the commit. */
function carrierHooks(config: Config, store: Store, ids: Ids, env: Env) {
  const words = { stop: config.stopWords, start: config.startWords };
  return {
    onInbound: createInboundIntake({ store, ids, words, log: env.log }),
    async onReport(report: CarrierReport): Promise<void> {
      const { known, messages } = await store.report(report);
      const { carrier, carrierMessageId, kind } = report;
      const messageIds = messages.map(({ no, key }) => key ?? ids.print('message', no));
      env.log.info({ carrier, carrierMessageId, report: kind, messageIds, parked: !known }, 'report');
    },
  };
}

function listenToCarriers(
  config: Config,
  hooks: ReturnType<typeof carrierHooks>,
  env: Env,
): ReturnType<typeof createMm7Listener> {
  const { host, carrierPort: port } = config;
  const tls = listenerTls(config);
  return createMm7Listener({
    host,
    port,
    ...(tls ? { tls } : {}),
    carriers: callers(config),
    ...hooks,
    env,
  }).catch((error: unknown) => {
    throw new StartError([portTaken('POSTCARD_CARRIER_PORT', host, port, error)]);
  });
}

/** Who may call the listener. */
function callers(config: Config): Parameters<Awaited<ReturnType<typeof createMm7Listener>>['setCarriers']>[0] {
  return [...config.carriers.filter(isMm7).map(inboundOf), ...(config.sandbox ? [{ name: SANDBOX }] : [])];
}
