/**
 * The model's second leg and second carriers: the SMS that follows an MMS is a run of one message under its number below 0; what a
 * carrier cannot take goes to the next of its choices.
 */
import { FAILOVER_WORDS, NO_FAILOVER_WORDS, nextLane, opensFailover, smsWayOf } from '../../src/domain/failover.ts';
import type { Channel } from '../../src/domain/routing.ts';
import { type MessageStatus, STATE, type StatusEvent } from '../../src/domain/status.ts';
import type { Rerouted } from '../../src/store/contract.ts';
import type { Message, Run, Submission, World } from './model-world.ts';

/** A submission that was never claimed. */
export function fresh(run: Run, leader: number, span: number, messages: Message[]): Submission {
  const one: Submission = {
    leader,
    span,
    run,
    lane: run.lane,
    leg: leader < 0 ? 1 : 0,
    messages,
    stage: 'fresh',
    token: 0,
    leaseUntil: 0,
    due: 0,
    attempts: 0,
    generation: 0,
    held: false,
    sent: 0,
    validUntil: null,
    passed: false,
    turn: null,
    tries: [],
  };
  run.submissions.push(one);
  return one;
}

/**
 * What follows the end of an MMS that becomes `next`: null = nothing (more) was asked for; `opened` = the message waits on its SMS
 * leg now.
 */
export function openSms(
  world: World,
  message: Message,
  by: StatusEvent,
  next: MessageStatus,
): { opened: boolean; words: string } | null {
  const mms = message.submission;
  const sms = mms && smsWayOf(mms.run.ways ?? {}, message.no - mms.run.first);
  if (!mms || !sms || !opensFailover(sms, by, next)) return null;
  const bulk = world.bulkOf(mms.run);
  if (bulk !== null && bulk.canceledAt !== null) return null;
  if (sms.lane === null) return { opened: false, words: NO_FAILOVER_WORDS };
  const { account, window, spec, bulk: bulkNo } = mms.run;
  // Not before the time of its request, which may be later than its bulk's.
  const own = bulk !== null && bulk.moves > mms.run.moves ? null : mms.run.sendAt;
  const run: Run = {
    first: -message.no,
    end: 1 - message.no,
    spec,
    lane: sms.lane,
    group: false,
    window,
    validityMs: sms.validityMs,
    ways: { sms },
    account,
    bulk: bulkNo,
    acceptedAt: world.now,
    sendAt: bulk?.sendAt == null ? own : Math.max(bulk.sendAt, own ?? 0),
    moves: bulk?.moves ?? 0,
    limited: bulk !== null && bulk.intervalUs > 0,
    submissions: [],
    failed: null,
    // One submission of a message at a time: an attempt of the MMS may be open yet.
    notBefore: mms.stage === 'flying' ? mms.leaseUntil : 0,
  };
  world.runs.set(run.first, run);
  message.submission = fresh(run, run.first, 1, [message]);
  message.leg = 1;
  world.hint('lane');
  return { opened: true, words: FAILOVER_WORDS };
}

/** The MMS arrived after all, before anything of the SMS left: there is none. False = it has left. */
export function withdrawSms(world: World, message: Message): boolean {
  const sms = message.submission;
  if (sms?.leg !== 1 || message.state !== STATE.pending || sms.stage === 'flying') return false;
  // What a carrier put off or refused it has not taken.
  if (sms.tries.some(({ outcome }) => outcome === 'accepted' || outcome === 'unknown')) return false;
  world.runs.delete(sms.run.first);
  message.submission = message.first;
  message.leg = 0;
  return true;
}

/** Whom a message is from on a leg: an SMS may have a sender of its own. */
export function sendersOf({ spec }: Message, leg: 0 | 1): string[] {
  const { options } = JSON.parse(spec.body) as { options?: { smsFailover?: { sender?: string } } };
  const own = options?.smsFailover?.sender;
  return leg === 1 && own ? [own, spec.sender] : [spec.sender];
}

/** Whether content of a run is still to be fetched. */
function linksOf(world: World, run: Run): boolean {
  return (world.specs.get(run.spec)?.media ?? []).some(({ url, hash }) => url !== null && hash === null);
}

/** The verb `reroute`, all in one step. */
export function reroute(world: World, from: string, to: string, channel?: Channel): Rerouted | null {
  const targets = world.lanes.filter(({ carrier }) => carrier === to);
  if (from === to || targets.length === 0 || world.lanes.every(({ carrier }) => carrier !== from)) return null;
  const moves = world.submissions().filter((one) => {
    if (world.carrierOf(one.lane) !== from) return false;
    // With a link to fetch it goes later, when it has it.
    if (one.stage === 'fresh') return !(one.run.first > 0 && linksOf(world, one.run));
    return one.stage === 'waiting' && one.messages.every(({ state }) => state !== STATE.uncertain);
  });
  const [first] = moves;
  const isSms = first && (first.leg === 1 || first.run.ways?.smsOnly || first.run.ways?.sms?.lane === first.lane);
  if (first && channel !== undefined && (isSms ? 'SMS' : 'MMS') !== channel) {
    return { count: 0, next: null, otherChannel: true };
  }
  for (const one of moves) {
    one.lane = (targets[0] as (typeof targets)[number]).no;
    const { ways } = one.run;
    if (ways?.smsOnly && ways.sms) one.run.ways = { ...ways, sms: { ...ways.sms, lane: one.lane } };
    if (one.stage === 'waiting') one.generation += 1;
  }
  const count = moves.reduce((sum, { span }) => sum + span, 0);
  return { count, next: moves.length > 0 ? 0 : null };
}

/** The lane of the next choice behind the one that it is on, where all of it may go there; null = there is none. */
export function nextOf(one: Submission): number | null {
  const open = one.messages.filter(
    ({ leg, state }) => leg === one.leg && (state === STATE.pending || state === STATE.uncertain),
  );
  // What may have reached a carrier stays there, which knows its transaction.
  if (open.length === 0 || open.some(({ state }) => state !== STATE.pending)) return null;
  return nextLane(one.run.ways ?? {}, one.leg, one.lane);
}
