/**
 * The verbs that write, each as the one op of the engine that it is: told once for all who speak to an engine, whatever lies between (the
 * writer's thread; in tests a call, in the simulation a wire that fails).
 */
import type { Store } from '../contract.ts';
import type { Op } from './engine.ts';

/** @param write gives an op to the engine and what it answered to the caller. */
export function writeVerbs(write: <Result>(...op: Op) => Promise<Result>) {
  return {
    identity: () => write('identity', null),
    reserve: (count) => write('reserve', count),
    lane: (carrier, policy, shard = 0) => write('lane', { carrier, shard, ...policy }),
    accept: (request) => write('accept', request),
    putUpload: (upload) => write('putUpload', upload),
    putVariant: (source, profile, variant) => write('putVariant', { source, profile, variant }),
    claim: (lane, limit, leaseMs) => write('claim', { lane, limit, leaseMs }),
    settle: (settle) => write('settle', settle),
    release: (claims, until, elsewhere = false) => write('release', { claims, until, elsewhere }),
    report: (report) => write('report', report),
    sweep: () => write('sweep', null),
    mediaNext: (limit, leaseMs) => write('mediaNext', { limit, leaseMs }),
    mediaSettle: (job, outcome) => write('mediaSettle', { job, outcome }),
    webhookNext: (limit, leaseMs) => write('webhookNext', { limit, leaseMs }),
    webhookSettle: (settle) => write('webhookSettle', settle),
    takeReports: (filter) => write('takeReports', filter),
    rearm: (what) => write('rearm', what),
    webhookReplay: (account, no) => write('webhookReplay', { account, no }),
    webhookReplayRange: (range) => write('webhookReplayRange', range),
    endpointPut: (put) => write('endpointPut', put),
    endpointDelete: (account, kind, url) => write('endpointDelete', { account, kind, url }),
    inbound: (message) => write('inbound', message),
    takeInbox: (filter) => write('takeInbox', filter),
    optOutPut: (account, list) => write('optOutPut', { account, list }),
    optOutDelete: (account, list) => write('optOutDelete', { account, list }),
    click: (clicks) => write('click', clicks),
    callBacks: (lane, limit) => write('callBacks', { lane, limit }),
    calledBack: (leader, members, words) => write('calledBack', { leader, members, words }),
    reroute: (from, to, channel) => write('reroute', { from, to, channel }),
    bulkSteer: (account, bulk, changes) => write('bulkSteer', { account, bulk, changes }),
    administer: (changes, deed, terms = {}) => write('administer', { changes, deed, terms }),
    sessionPut: (session) => write('sessionPut', session),
    sessionUse: (hash) => write('sessionUse', hash),
    sessionDelete: (hash) => write('sessionDelete', hash),
    quota: (takes) => write('quota', takes),
    putKey: (key, replace) => write('putKey', { key, replace }),
  } satisfies Partial<Store>;
}
