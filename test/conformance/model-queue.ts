/**
 * The model's queue: what waits, when each submission may leave, and what its outcome, the carrier's report or time make of
 * it. No cursor, ring or tally: for each submission the instant is worked out afresh from what its run and bulk say.
 *
 * The clock of a message starts at the first instant at which it may leave: the latest of acceptance, sendAt (its bulk's,
 * once that was moved), its window's opening, the end of a pause that covers that instant, and, where its bulk had a speed
 * limit by then, its turn.
 */
import { ELSEWHERE_WORDS, legOf, spanOf } from '../../src/domain/failover.ts';
import { carrierRetryDelay, HOLD_MS, unknownRetryDelay } from '../../src/domain/retry.ts';
import { type Admission, admit, nextOpening, type RateBucket } from '../../src/domain/schedule.ts';
import { isFinal, STATE } from '../../src/domain/status.ts';
import { type CarrierReport, type Outcome, refOf } from '../../src/domain/submission.ts';
import { closedAt, closing, endedWords } from '../../src/store/clock.ts';
import {
  type CallBack,
  type Claim,
  type Claims,
  REPORTED_MAX,
  type Reported,
  type Settle,
} from '../../src/store/contract.ts';
import { OPT_OUT_WORDS } from '../../src/store/inbound.ts';
import { CANCELED_WORDS } from '../../src/store/steering.ts';
import type { Events } from './model-events.ts';
import { nextOf, sendersOf } from './model-failover.ts';
import { specRows } from './model-reads.ts';
import {
  type Attempt,
  type Bulk,
  type Message,
  type Run,
  type Submission,
  type World,
  wordsOf,
} from './model-world.ts';

/** Turns of a speed limit are given out so early, with their instants. */
const AHEAD_MS = 250;
/** Attempts kept of one submission. */
const ATTEMPTS = 200;
/** Lost leases, and endings, in one step of the sweep. */
const LOST = 64;
const STEP = 500;
const HOUR = 3_600_000;
/** 15000 EC_MMS_GENERAL_ERROR: what an attempt without an answer is booked under. */
const NO_ANSWER = 15000;

export type Queue = ReturnType<typeof createQueue>;

export function createQueue(world: World, events: Events) {
  // --- When ---

  /** Still waits for linked content. */
  const waitsForContent = (run: Run): boolean =>
    run.first > 0 && (world.specs.get(run.spec)?.media ?? []).some((item) => item.url !== null && item.hash === null);

  /** Its bulk is paused or cancelled. */
  function still(run: Run): boolean {
    const bulk = world.bulkOf(run);
    return bulk !== null && (bulk.pausedAt !== null || bulk.canceledAt !== null);
  }

  /** First instant that a run's messages may leave, turns aside; null = a pause covers it. */
  function opens(run: Run): number | null {
    const bulk = world.bulkOf(run);
    const moved = bulk !== null && bulk.sendAt !== null && bulk.moves > run.moves;
    const wanted = moved ? (bulk.sendAt as number) : Math.max(run.acceptedAt, run.sendAt ?? run.acceptedAt);
    let at = nextOpening(run.window, wanted);
    for (const [begin, end] of bulk?.pauses ?? []) if (begin < at && at < end) at = nextOpening(run.window, end);
    return bulk !== null && bulk.pausedAt !== null && bulk.pausedAt < at ? null : at;
  }

  /** Whether each message has a clock of its own, from its turn. */
  function byTurns(run: Run): boolean {
    const bulk = world.bulkOf(run);
    if (bulk === null || bulk.limitedAt === null) return false;
    const at = opens(run);
    return run.limited || at === null || at > bulk.limitedAt;
  }

  function bucket(run: Run): RateBucket | null {
    const bulk = world.bulkOf(run);
    return bulk !== null && bulk.intervalUs > 0 ? { intervalUs: bulk.intervalUs, next: bulk.nextUs } : null;
  }

  /** How long before its time its carrier may have a submission, which keeps the time: only the carrier that its run was accepted for. */
  function earlyOf({ run, lane }: Submission): number {
    const paced = run.window !== null || byTurns(run) || bucket(run) !== null;
    return paced || lane !== run.lane ? 0 : (run.earlyMs ?? 0);
  }

  /** What `admit` says of a submission at an instant. */
  function admission(one: Submission, at: number): Admission | null {
    const { run } = one;
    const start = opens(run) ?? (one.validUntil === null ? null : at);
    if (start === null) return null;
    const bulk = world.bulkOf(run);
    const turns = byTurns(run);
    // A limit that was lifted: who had no turn yet may leave since then.
    const lifted = turns && bulk !== null && bulk.intervalUs === 0 ? Math.ceil(bulk.nextUs / 1000) : 0;
    const validUntil = one.validUntil ?? (turns ? null : start + run.validityMs);
    const { window, validityMs } = run;
    const first = start - earlyOf(one);
    const view = { acceptedAt: first, sendAt: Math.max(first, lifted), window, validityMs, validUntil, remaining: 1 };
    return admit(view, bucket(run), at, 1, AHEAD_MS);
  }

  /** The end of a submission's validity, as far as it is known. */
  function endOf(one: Submission): number | null {
    if (one.validUntil !== null) return one.validUntil;
    const start = opens(one.run);
    return start === null || byTurns(one.run) ? null : start + one.run.validityMs;
  }

  // --- Who may leave ---

  const waits = ({ state }: Message): boolean => state === STATE.pending || state === STATE.uncertain;
  /** Who of a submission may still be sent. */
  const members = (one: Submission): Message[] =>
    one.messages.filter((message) => message.leg === one.leg && waits(message));

  /** When it may be claimed, if nothing else happens; null = only something else will tell. */
  function dueOf(one: Submission): number | null {
    if (one.stage !== 'fresh' && one.stage !== 'waiting') return null;
    if (still(one.run) || members(one).length === 0 || one.run.failed) return null;
    if (one.stage === 'fresh' && waitsForContent(one.run)) return null;
    const opening = opens(one.run);
    const from = one.stage === 'waiting' ? one.due : opening === null ? null : opening - earlyOf(one);
    if (from === null) return null;
    const at = Math.max(from, world.now, one.stage === 'fresh' ? one.run.notBefore : 0);
    const said = admission(one, at);
    if (said === null || said.kind === 'expired') return null;
    return said.kind === 'go' ? at : said.until;
  }

  /** All that waits on a lane, of each run only its first. */
  function heads(lane: number | null): Submission[] {
    return [...world.runs.values()]
      .flatMap((run) => {
        const fresh = run.submissions.find((one) => one.stage === 'fresh');
        const again = run.submissions.filter((one) => one.stage === 'waiting');
        return fresh ? [fresh, ...again] : again;
      })
      .filter((one) => lane === null || one.lane === lane);
  }

  /** Of those whose clock starts at their turn: whose turn passed so long ago that their validity is over. */
  function late(lane: number | null): { one: Submission; said: Extract<Admission, { kind: 'expired' }> }[] {
    return heads(lane)
      .filter((one) => one.validUntil === null && byTurns(one.run) && !still(one.run) && !one.run.failed)
      .flatMap((one) => {
        const said = admission(one, world.now);
        return said?.kind === 'expired' ? [{ one, said }] : [];
      });
  }

  /** Turns that passed unused: the message whose turn it was has lost its validity. */
  function passTurns(lane: number | null, most: number): number {
    for (let count = 0; ; count++) {
      if (count >= most) return count;
      // What was put back is first in line.
      const [first] = late(lane).sort((a, b) =>
        compare(
          [world.rank(a.one.leader), a.said.at, a.one.stage === 'waiting' ? 0 : 1, a.one.leader],
          [world.rank(b.one.leader), b.said.at, b.one.stage === 'waiting' ? 0 : 1, b.one.leader],
        ),
      );
      if (!first) return count;
      const { one, said } = first;
      const bulk = world.bulkOf(one.run);
      // Each member that waits has a turn.
      if (bulk && bulk.intervalUs > 0) bulk.nextUs = said.bucketNext + (members(one).length - 1) * bulk.intervalUs;
      one.stage = 'over';
      one.passed = true;
    }
  }

  /** Fair turns: accounts, then bulks, then requests; retries and fresh ones alternate, what was put back goes first. */
  function turnOf(one: Submission): number[] {
    const { lane } = one;
    const { account, bulk, first } = one.run;
    const line = `${lane} ${account} ${world.bulks.has(bulk) ? bulk : ''}`;
    const at = (name: string): number => world.served.get(name) ?? 0;
    const alternate = world.lastWasRetry.has(line) === (one.stage === 'waiting') ? 1 : 0;
    return [
      Math.min(world.rank(one.leader), ...one.messages.map(({ no }) => world.rank(no))),
      at(`account ${lane} ${account}`),
      at(`line ${line}`),
      one.stage === 'waiting' && one.attempts === 0 ? 0 : 1,
      alternate,
      at(`run ${first}`),
      one.leader,
    ];
  }

  function serve(one: Submission): void {
    const { lane } = one;
    const { account, bulk, first } = one.run;
    const line = `${lane} ${account} ${world.bulks.has(bulk) ? bulk : ''}`;
    for (const name of [`account ${lane} ${account}`, `line ${line}`, `run ${first}`])
      world.served.set(name, world.tick());
    if (one.stage === 'fresh') world.lastWasRetry.delete(line);
    else if (one.attempts > 0) world.lastWasRetry.add(line);
  }

  /** The leased right to submit it, with the turn it takes. */
  function fly(one: Submission, leaseMs: number): Claim {
    const said = admission(one, world.now);
    if (said?.kind !== 'go') throw new Error(`${one.leader} may not leave`);
    const sent = members(one);
    const bulk = world.bulkOf(one.run);
    const paced = bulk !== null && bulk.intervalUs > 0;
    const start = opens(one.run);
    const early = earlyOf(one) > 0 && start !== null && start > world.now ? { earliestAt: start } : {};
    if (bulk && paced) {
      // Each member has a turn.
      const after = said.bucketNext + (sent.length - 1) * said.stepUs;
      one.turn = { before: bulk.nextUs, after };
      bulk.nextUs = after;
    } else one.turn = null;
    // Fewer members than last time are another submission; but what may have reached the carrier keeps its id.
    if (one.stage === 'waiting' && sent.length < one.sent && sent.every(({ state }) => state === STATE.pending)) {
      one.generation += 1;
    }
    serve(one);
    one.stage = 'flying';
    one.token = world.tick();
    one.leaseUntil = world.now + leaseMs;
    one.attempts += 1;
    one.sent = sent.length;
    one.validUntil ??= said.validUntil;
    events.claimed(sent);
    return {
      token: one.token,
      leader: one.leader,
      spec: one.run.spec,
      members: sent.map(({ no, to, key }) => ({ no, to, key })),
      generation: one.generation,
      attempt: one.attempts,
      notBeforeUs: said.firstAt,
      paced,
      ...early,
      validUntil: one.validUntil,
      ...closing(one.run.window, said.firstAt),
    };
  }

  /** Those who have opted out since end as rejected, before they take a turn. What an earlier attempt may have brought goes on. */
  function screen(one: Submission): void {
    for (const message of members(one)) {
      const [status] = sendersOf(message, one.leg).flatMap(
        (sender) => world.unwanted(message.account, sender, message.to) ?? [],
      );
      if (status !== undefined) events.change(message, { kind: 'unwanted', status }, OPT_OUT_WORDS);
    }
  }

  function claim(lane: number, limit: number, leaseMs: number): Claims {
    passTurns(lane, Number.POSITIVE_INFINITY);
    const claims: Claim[] = [];
    while (claims.length < limit) {
      const [next] = heads(lane)
        .filter((one) => {
          if (dueOf(one) !== world.now) return false;
          return admission(one, world.now)?.kind === 'go';
        })
        .map((one) => ({ one, turn: turnOf(one) }))
        .sort((a, b) => compare(a.turn, b.turn));
      if (!next) break;
      screen(next.one);
      if (members(next.one).length > 0) claims.push(fly(next.one, leaseMs));
      else next.one.stage = 'over';
    }
    const dues = heads(lane).flatMap((one) => dueOf(one) ?? []);
    return {
      now: world.now,
      claims,
      specs: specRows(
        world,
        claims.map((one) => one.spec),
      ),
      nextDue: dues.length === 0 ? null : Math.min(...dues),
    };
  }

  // --- What comes back ---

  /**
   * It took turns and has not left: where nobody took later ones, they go back. `anew`: it may have them itself; else nobody's
   * validity begins before now.
   */
  function giveBack(one: Submission, anew: boolean): void {
    const bulk = world.bulkOf(one.run);
    if (!bulk || bulk.intervalUs === 0 || !one.turn || bulk.nextUs !== one.turn.after) return;
    // Turns do not begin within a pause.
    const resumed = (bulk.pauses.at(-1)?.[1] ?? 0) * 1000;
    const first = Math.max(one.turn.before, resumed, anew ? 0 : world.now * 1000);
    bulk.nextUs = Math.min(first, one.turn.after);
  }

  function again(one: Submission, due: number): void {
    one.stage = 'waiting';
    one.due = due;
    world.hint('lane');
  }

  function conclude(one: Submission, outcome: Outcome, words: string): void {
    const carrier = world.carrierOf(one.lane);
    const policy = world.policies.get(carrier);
    if (!policy) throw new Error(`no carrier ${carrier}`);
    one.stage = 'over';
    const each = (by: Parameters<Events['change']>[1], how = words): void => {
      for (const message of mine) events.change(message, by, how);
    };
    // Those whose MMS ended by a report while this attempt of it was open are not its affair any more.
    const mine = one.messages.filter(({ leg }) => leg === one.leg);
    /** Null = nothing of it left: then it says nothing of the message, but the story may tell it. */
    const putOff = (error: number | null, how: string, told: boolean): void => {
      for (const message of mine) {
        const changed = events.change(message, { kind: 'deferred', error: error ?? message.error }, how);
        if (error === null && told && !changed) events.note(message, how);
      }
    };
    /** To the next carrier, where there is one: another submission. */
    const movesOn = (error: number | null): boolean => {
      const lane = nextOf(one);
      if (lane === null) return false;
      putOff(error, `${words}; ${ELSEWHERE_WORDS}`, true);
      Object.assign(one, { lane, generation: one.generation + 1, held: false });
      again(one, world.now);
      return true;
    };
    switch (outcome.kind) {
      case 'accepted': {
        learn(carrier, outcome.carrierMessageId, one);
        for (const message of mine) {
          const refused = outcome.refused?.find(({ recipient }) => recipient === message.to)?.error;
          if (refused) events.change(message, { kind: 'refused', error: refused.id }, refused.words ?? words);
          else events.change(message, { kind: 'accepted', reports: policy.reports }, words);
        }
        applyParked(carrier, outcome.carrierMessageId);
        break;
      }
      case 'deferred': {
        const error = outcome.unsent ? null : outcome.error.id;
        if (outcome.elsewhere && movesOn(error)) return;
        putOff(error, words, false);
        again(one, world.now + carrierRetryDelay(one.attempts, outcome.retryAfterMs));
        break;
      }
      case 'throttled':
        // No attempt.
        one.attempts -= 1;
        again(one, world.now + carrierRetryDelay(1, outcome.retryAfterMs));
        break;
      case 'refused':
      case 'contentFailed':
        if (outcome.elsewhere && movesOn(outcome.error.id)) return;
        each({ kind: outcome.kind, error: outcome.error.id });
        break;
      case 'unknown': {
        const { onUnknown } = policy;
        each({ kind: 'unknown', error: outcome.error.id, policy: onUnknown === 'fail' ? 'fail' : 'hold' });
        if (onUnknown === 'fail' || (onUnknown === 'hold' && one.held)) return;
        const soon = one.attempts < 3 ? unknownRetryDelay : carrierRetryDelay(one.attempts);
        one.held = onUnknown === 'hold';
        again(one, world.now + (one.held ? HOLD_MS : soon));
      }
    }
  }

  function learn(carrier: string, id: string, one: { leader: number; span: number }): void {
    // An answer without an id teaches nothing.
    if (refOf(id) !== '') world.refs.set(`${carrier} ${refOf(id)}`, { leader: one.leader, span: one.span });
  }

  function applyParked(carrier: string, id: string): void {
    const mine = world.parked.filter((one) => one.carrier === carrier && one.ref === refOf(id));
    world.parked = world.parked.filter((one) => !mine.includes(one));
    for (const { report } of mine) applyReport(carrier, report);
  }

  function applyReport(carrier: string, report: CarrierReport): Reported | null {
    const found = world.refs.get(`${carrier} ${refOf(report.carrierMessageId)}`);
    if (!found) return null;
    const span = spanOf(found.leader, found.span);
    const leg = legOf(found.leader);
    const about = [...world.messages.values()].filter(({ no }) => no >= span.first && no < span.end);
    const named = found.span === 1 ? about : about.filter(({ to }) => report.addresses.includes(to));
    const by = { kind: 'report', report: report.kind, ...(report.error ? { error: report.error } : {}) } as const;
    for (const message of named) {
      const moved =
        message.leg === leg
          ? events.change(message, by, report.words)
          : leg === 0 && events.reportLate(message, report.kind, report.words);
      if (!moved) events.note(message, report.words);
    }
    if (named.length === 0 && about[0]) {
      events.note(about[0], `names no recipient of this submission: ${report.words}`);
    }
    // Put back as never sent, and yet it had left: its clock runs, at the latest from now.
    const one = world.submission(found.leader);
    if (one?.stage === 'waiting' && members(one).length === 0) {
      one.validUntil ??= Math.min(endOf(one) ?? Number.POSITIVE_INFINITY, world.now + one.run.validityMs);
    }
    return { known: true, messages: named.slice(0, REPORTED_MAX).map(({ no, key }) => ({ no, key })) };
  }

  function tried(one: Submission, attempt: Omit<Submission['tries'][number], 'n' | 'generation' | 'lane'>): void {
    const n = Math.min(one.tries.length + 1, ATTEMPTS);
    one.tries[n - 1] = { n, generation: one.generation, lane: one.lane, ...attempt };
  }

  // --- What time brings ---

  function lose(one: Submission): void {
    const words = 'the node that submitted it was lost before the outcome was known';
    const at = world.now;
    tried(one, { at, tookMs: 0, outcome: 'unknown', error: NO_ANSWER, words, carrierMessageId: null });
    conclude(one, { kind: 'unknown', error: { id: NO_ANSWER, words } }, words);
  }

  function expire(message: Message, one: Submission): void {
    one.stage = 'over';
    const paused = still(one.run);
    const closed = closedAt(one.run, world.now);
    const unfetched = waitsForContent(one.run);
    const { state, error } = message;
    const words = endedWords({ state, error, attempts: one.tries, paused, closed, unfetched });
    const wasTried = message.state !== STATE.pending || message.error !== 0;
    events.change(message, { kind: 'validityEnded', tried: wasTried, lastError: message.error }, words);
  }

  /** The last time that a carrier took a submission under an id of its own. */
  const taken = (one: Submission): Attempt | undefined =>
    one.tries.findLast(({ outcome, carrierMessageId }) => outcome === 'accepted' && carrierMessageId);

  /** The carrier that has it may be asked to call it back, or to keep it until then. */
  function ask({ leader, ...one }: Submission, earliestAt: number | null): void {
    const had = taken({ leader, ...one });
    if (!had) return;
    const { lane, generation, carrierMessageId } = had;
    world.asked.set(leader, { leader, lane, at: world.now, generation, ref: carrierMessageId as string, earliestAt });
  }

  /** Messages of cancelled bulks. What a carrier may have runs on; it is not sent again. True = it did something. */
  function cancel(message: Message, one: Submission): boolean {
    const bulk = world.bulkOf(one.run);
    if (bulk === null || bulk.canceledAt === null || message.recallAt > world.now) return false;
    if (one.stage === 'flying') {
      message.recallAt = world.now + 1000;
      return false;
    }
    if (!message.recalled && message.state === STATE.submitted) ask(one, null);
    message.recalled = true;
    if (one.stage === 'over' && message.state !== STATE.pending) return false;
    one.stage = 'over';
    events.change(message, { kind: 'cancelled' }, CANCELED_WORDS);
    return true;
  }

  /** Ends a message whose time is over, or whose content cannot be had. True = it did something. */
  function end(message: Message, one: Submission): boolean {
    const { failed } = one.run;
    if (failed && one.stage === 'fresh') {
      events.change(message, { kind: 'contentFailed', error: failed.error }, failed.words);
      if (one.messages.every(({ state }) => isFinal(state))) one.stage = 'over';
      return true;
    }
    const at = one.passed ? world.now : endOf(one);
    if (at === null || at > world.now || message.lookAt > world.now) return false;
    if (one.stage === 'flying') {
      // Its settle comes first, or the loss of its lease.
      message.lookAt = Math.max(one.leaseUntil, world.now) + 1000;
      return false;
    }
    expire(message, one);
    return true;
  }

  return {
    claim,
    closed: waitsForContent,
    members,
    dueOf,
    endOf,
    expiredTurns: (lane: number): boolean => late(lane).length > 0,

    settle({ token, leader, lane, outcome, startedAt, tookMs }: Settle): boolean {
      const one = world.submission(leader);
      if (one?.stage !== 'flying' || one.token !== token) {
        if (outcome.kind === 'accepted') {
          const carrier = world.carrierOf(lane);
          learn(carrier, outcome.carrierMessageId, one ?? { leader, span: 1 });
          applyParked(carrier, outcome.carrierMessageId);
        }
        return false;
      }
      // Nothing was sent.
      if (outcome.kind === 'contentFailed') giveBack(one, false);
      const words = wordsOf(outcome);
      tried(one, {
        at: startedAt,
        tookMs,
        outcome: outcome.kind,
        error: outcome.kind === 'accepted' ? 0 : (outcome.error?.id ?? 0),
        words: words.slice(0, 500),
        carrierMessageId: outcome.kind === 'accepted' ? outcome.carrierMessageId.slice(0, 500) : null,
      });
      conclude(one, outcome, words);
      return true;
    },

    release(claims: { token: number; leader: number }[], until: number, elsewhere = false): number {
      let moved = 0;
      const mine = claims.flatMap(({ token, leader }) => {
        const one = world.submission(leader);
        return one && one.stage === 'flying' && one.token === token ? [one] : [];
      });
      // The last turn first: it goes back only where it is the bulk's last.
      for (const one of mine.sort((a, b) => (b.turn?.after ?? 0) - (a.turn?.after ?? 0))) {
        one.attempts -= 1;
        const lane = elsewhere ? nextOf(one) : null;
        if (lane !== null) {
          moved++;
          Object.assign(one, { lane, generation: one.generation + 1 });
        }
        again(one, lane === null ? Math.max(until, world.now) : world.now);
        // Never tried, not even asked to wait: as if it had never been claimed.
        const anew = one.tries.length === 0 && (one.validUntil as number) > world.now;
        giveBack(one, anew);
        if (anew) one.validUntil = null;
      }
      return moved;
    },

    report(report: CarrierReport): Reported {
      const unknown = { known: false, messages: [] };
      if (!world.policies.has(report.carrier)) return unknown;
      const known = applyReport(report.carrier, report);
      if (known) return known;
      const ref = refOf(report.carrierMessageId);
      const kept = { ...report, words: report.words.slice(0, 500) };
      if (ref !== '') world.parked.push({ carrier: report.carrier, ref, at: world.now, report: kept });
      return unknown;
    },

    /** The bulk has just been moved, whose sendAt was another one before: what has left before that is to be kept for longer. */
    keep(bulk: Bulk, before: { sendAt: number | null; moves: number }): void {
      const { sendAt } = bulk;
      if (sendAt === null || bulk.moves === before.moves) return;
      for (const run of world.runs.values()) {
        if (run.bulk !== bulk.no || !run.earlyMs || run.window !== null) continue;
        const moved = before.sendAt !== null && before.moves > run.moves;
        const opened = moved ? (before.sendAt as number) : Math.max(run.acceptedAt, run.sendAt ?? 0);
        if (opened <= world.now) continue;
        for (const one of run.submissions) {
          if (one.validUntil === opened + run.validityMs) one.validUntil = sendAt + run.validityMs;
          const { leader, lane, generation, span } = one;
          const nos = Array.from({ length: span }, (_, n) => leader + n);
          if (nos.some((no) => world.messages.get(no)?.state === STATE.submitted)) ask(one, sendAt);
          if (one.stage !== 'flying') continue;
          world.asked.set(leader, { leader, lane, at: world.now, generation, ref: '', earliestAt: sendAt });
        }
      }
    },

    callBacks(lane: number, limit: number): CallBack[] {
      const mine = [...world.asked.values()].filter(
        ({ lane: of, ref, leader }) => of === lane && (ref !== '' || world.submission(leader)?.stage !== 'flying'),
      );
      return mine
        .sort((a, b) => a.leader - b.leader)
        .slice(0, limit)
        .flatMap(({ leader, ref, generation, earliestAt }) => {
          world.asked.delete(leader);
          const one = world.submission(leader);
          const had = ref === '' ? one && taken(one) : { carrierMessageId: ref, generation };
          if (!one || !had) return [];
          const { carrierMessageId, generation: which } = had;
          const [sender] = sendersOf(one.messages[0] as Message, one.leg) as [string];
          const about = {
            leader,
            members: one.span,
            generation: which,
            carrierMessageId: carrierMessageId as string,
            sender,
          };
          return [{ ...about, ...(earliestAt === null ? {} : { earliestAt }) }];
        });
    },

    calledBack(leader: number, members: number, words: string): void {
      const { first, end } = spanOf(leader, members);
      for (const message of world.messages.values()) {
        if (message.no < first || message.no >= end || message.leg !== legOf(leader)) continue;
        if (message.state === STATE.submitted) events.note(message, words);
      }
    },

    freeLeases(): void {
      for (const one of world.submissions()) if (one.stage === 'flying') one.leaseUntil = 0;
    },

    /** One step of about `STEP` endings; true = more is left. */
    sweep(): boolean {
      let left = STEP;
      const open = [...world.messages.values()].filter(({ state }) => !isFinal(state));
      const some = (work: (message: Message, one: Submission) => boolean): void => {
        for (const message of open) {
          if (left <= 0) return;
          if (!isFinal(message.state) && message.submission && work(message, message.submission)) left -= 1;
        }
      };
      some(cancel);
      const lost = world.submissions().filter((one) => one.stage === 'flying' && one.leaseUntil <= world.now);
      for (const one of lost.slice(0, LOST)) lose(one);
      left -= passTurns(null, left);
      some(end);
      world.parked = world.parked.filter(({ at }) => at > world.now - 48 * HOUR);
      for (const { leader, at } of [...world.asked.values()])
        if (at <= world.now - 24 * HOUR) world.asked.delete(leader);
      return left <= 0 || lost.length >= LOST;
    },
  };
}

function compare(a: number[], b: number[]): number {
  for (let n = 0; n < a.length; n++) {
    const [x, y] = [a[n] as number, b[n] as number];
    if (x !== y) return x < y ? -1 : 1;
  }
  return 0;
}
