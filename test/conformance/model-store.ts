/**
 * The model store: the whole store contract in memory, in the simplest way there is, as an independent statement of what its
 * verbs mean. It is no engine: nothing is kept, and every verb looks at everything. It passes the engines' conformance
 * suite, and random histories are applied to it and to the engines side by side (model-histories.ts).
 *
 * Where things are: rows in model-world.ts; waiting, claims and endings in model-queue.ts; events, webhooks and pulls in
 * model-events.ts; deliveries, endpoints, handsets and opt-outs in model-hooks.ts; reads in model-reads.ts; all else here. A new verb: its rows into the world, what it means into the file it
 * belongs to, its name into `createModelStore`, and a command into model-histories.ts.
 */

import { refusalError, refusalWords } from '../../src/domain/numbering.ts';
import { OPT_OUT_ERROR } from '../../src/domain/optout.ts';
import { reportForm } from '../../src/domain/report.ts';
import { nextOpening } from '../../src/domain/schedule.ts';
import { isFinal, STATE } from '../../src/domain/status.ts';
import { repaced } from '../../src/store/clock.ts';
import type {
  Accept,
  Accepted,
  BulkChange,
  BulkName,
  Hint,
  Key,
  MediaJob,
  MediaOutcome,
  Steered,
  Store,
} from '../../src/store/contract.ts';
import { OPT_OUT_WORDS } from '../../src/store/inbound.ts';
import { PAUSED_MAX_MS, PLAIN_BULK, printSpeed, readSpeed, steered } from '../../src/store/steering.ts';
import { createModelAccounts } from './model-accounts.ts';
import { createEvents } from './model-events.ts';
import { fresh, reroute } from './model-failover.ts';
import { createHooks } from './model-hooks.ts';
import { createLinks } from './model-links.ts';
import { createQueue } from './model-queue.ts';
import { createReads } from './model-reads.ts';
import { type Bulk, createWorld, type Message, type Run, type Spec } from './model-world.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** Messages that retention removes in one step. */
const REMOVED = 250;

export interface ModelStore extends Store {
  advance(ms: number): void;
  now(): number;
  crash(): void;
  /** What an engine chose where the contract leaves a choice: it comes first, in this order, in the next verb. */
  prefer(names: (string | number)[]): void;
  /** Whether a claim on the lane would find messages whose turn passed unused. */
  expiredTurns(lane: number): boolean;
}

export function createModelStore(start = Date.UTC(2026, 10, 24, 12)): ModelStore {
  const world = createWorld(start);
  const install = '00000000';
  const events = createEvents(world);
  const queue = createQueue(world, events);
  const reads = createReads(world, queue, install);
  const hooks = createHooks(world, events);
  const modelled = createLinks(world, events);
  const keys = new Map<string, Key>();
  const operator = createModelAccounts(world, keys, hooks);

  // --- accept ---

  /** A bulk with a row, made from what its first request said where it had none. */
  function own(account: number, name: BulkName): Bulk | null {
    const bulk = reads.find(account, name);
    if (bulk) world.bulks.set(bulk.no, bulk);
    return bulk;
  }

  function bulkOf(request: Accept): Bulk | null {
    const { account, bulkId, bulk: named, intervalUs, sendAt, speed, first: no } = request;
    const joined =
      (bulkId === null ? null : world.bulkNamed(account, { id: bulkId })) ??
      (named === undefined ? null : own(account, { no: named }));
    if (joined) {
      if (intervalUs !== null && intervalUs !== joined.intervalUs) {
        Object.assign(joined, repaced(joined, intervalUs, world.now), { speed: readSpeed(printSpeed(speed)) });
      }
      return joined;
    }
    if (bulkId === null && sendAt === null && intervalUs === null) return null;
    const pace = intervalUs ?? 0;
    const bulk: Bulk = {
      ...PLAIN_BULK,
      no,
      account,
      id: bulkId,
      acceptedAt: world.now,
      sendAt,
      intervalUs: pace,
      limitedAt: pace > 0 ? world.now : null,
      speed: readSpeed(printSpeed(speed)),
    };
    world.bulks.set(no, bulk);
    return bulk;
  }

  function accept(request: Accept): Accepted {
    const { account, idem, first } = request;
    const before = idem && world.idem.get(`${account} ${idem.key}`);
    if (before && before.at > world.now - 24 * HOUR) {
      if (before.hash !== idem.hash) return { kind: 'idempotencyConflict' };
      return { ...JSON.parse(before.answer), kind: 'replayed' };
    }
    if (request.replayOnly) return { kind: 'notReplayed' };
    if (request.bulkId !== null) {
      const used =
        world.bulkNamed(account, { id: request.bulkId }) ??
        (request.bulk === undefined ? null : world.bulkNamed(account, { no: request.bulk }));
      if (used && used.canceledAt !== null) return { kind: 'bulkCanceled' };
    }
    const uploadOf = (id: string) => {
      const upload = world.uploads.get(`${account} ${id}`);
      return upload && upload.expiresAt > world.now ? upload : null;
    };
    const ids = request.specs.flatMap((spec) => spec.uploads.map(({ id }) => id));
    const missing = [...new Set(ids.filter((id) => uploadOf(id) === null))];
    if (missing.length > 0) return { kind: 'unknownUploads', ids: missing };

    const bulk = bulkOf(request);
    const bulkNo = bulk?.no ?? first;
    const mine = new Map<number, string>();
    const duplicates: number[] = [];
    for (const [no, key] of request.keys) {
      if (world.keys.has(`${account} ${key}`) || [...mine.values()].includes(key)) duplicates.push(no);
      else mine.set(no, key);
    }
    const refused = new Map(request.refused);
    const turnedAway = new Map(request.turnedAway?.map(([no, , error]) => [no, error]));
    const optedOut = [
      ...hooks.optedOut(request).filter(([no]) => !turnedAway.has(no)),
      ...(request.turnedAway ?? []).map(([no, status]): [number, number] => [no, status]),
    ].filter(([no]) => !refused.has(no) && !duplicates.includes(no));
    const unwanted = new Map(optedOut);
    const base = request.specs[0]?.first ?? first;
    const refusals: Message[] = [];
    request.specs.forEach(({ uploads, links, ...said }, index) => {
      // Where no message is left to be sent, nobody fetches.
      const nos = Array.from({ length: said.end - said.first }, (_, n) => said.first + n);
      const waits = nos.some((no) => !duplicates.includes(no) && !unwanted.has(no) && !refused.has(no));
      const media: Spec['media'] = [
        ...uploads.map(({ segment, id }) => {
          const upload = uploadOf(id);
          const { hash, contentType, name } = upload as NonNullable<typeof upload>;
          return { segment, url: null, hash, contentType, name, tries: 0, words: null, due: null };
        }),
        ...links.map((link) => ({
          ...link,
          name: null,
          hash: null,
          tries: 0,
          words: null,
          due: waits ? world.now : null,
        })),
      ];
      if (links.length > 0) world.hint('media');
      const endpointOf = said.endpoint
        ? events.endpoint(account, said.endpoint.url, reportForm(said.endpoint.contentType, said.older))
        : said.notify
          ? events.standard(account, 'delivery', said.contentType, said.older)
          : null;
      const no = first + 1 + index;
      const spec: Spec = { ...said, no, account, bulk: bulkNo, acceptedAt: world.now, endpointOf, media };
      world.specs.set(spec.no, spec);
      modelled.add(spec, bulk?.id ?? null, request.sendAt);
      for (let no = spec.first; no < spec.end; no++) {
        if (duplicates.includes(no)) continue;
        const status = unwanted.get(no) ?? refused.get(no);
        const message: Message = {
          no,
          account,
          spec,
          submission: null,
          first: null,
          leg: 0,
          to: request.to[no - base] as string,
          key: mine.get(no) ?? null,
          state: status === undefined ? STATE.pending : STATE.rejected,
          status: status ?? 26,
          error: turnedAway.get(no) || (unwanted.has(no) && !turnedAway.has(no) ? OPT_OUT_ERROR : refusalError(status)),
          sentAt: null,
          doneAt: status === undefined ? null : world.now,
          lookAt: 0,
          recallAt: 0,
          recalled: false,
        };
        world.messages.set(no, message);
        if (message.key !== null) world.keys.set(`${account} ${message.key}`, message);
        if (status !== undefined) refusals.push(message);
      }
    });
    for (const message of refusals) {
      events.emit(
        message,
        unwanted.has(message.no) && !turnedAway.has(message.no) ? OPT_OUT_WORDS : refusalWords(message.status),
      );
    }
    for (const said of request.runs) addRun(request, said, bulk);
    if (request.runs.length > 0) world.hint('lane');
    const rows = { first, bulkId: bulk?.id ?? null, bulk: bulkNo, duplicates };
    const answer: Accepted = { kind: 'accepted', ...rows, ...(optedOut.length > 0 ? { optedOut } : {}) };
    if (idem) {
      world.idem.set(`${account} ${idem.key}`, { hash: idem.hash, at: world.now, answer: JSON.stringify(answer) });
    }
    return answer;
  }

  function addRun({ account, sendAt, first }: Accept, said: Accept['runs'][number], bulk: Bulk | null): void {
    const run: Run = {
      ...said,
      account,
      bulk: bulk?.no ?? first,
      acceptedAt: world.now,
      sendAt,
      moves: bulk?.moves ?? 0,
      limited: bulk !== null && bulk.intervalUs > 0,
      submissions: [],
      failed: null,
      notBefore: 0,
    };
    world.runs.set(run.first, run);
    const submission = (leader: number, span: number, messages: Message[]): void => {
      const one = fresh(run, leader, span, messages);
      for (const message of messages) Object.assign(message, { submission: one, first: one });
    };
    const all: Message[] = [];
    for (let no = run.first; no < run.end; no++) {
      const message = world.messages.get(no);
      // Final from the beginning: its recipient wants none.
      if (message && !isFinal(message.state)) all.push(message);
    }
    if (run.group) {
      if (all.length > 0) submission(run.first, run.end - run.first, all);
      // Who wants none is in the group's span all the same.
      for (let no = run.first; no < run.end; no++) {
        const message = world.messages.get(no);
        const [one = null] = run.submissions;
        if (message) Object.assign(message, { submission: one, first: one });
      }
    } else for (const message of all) submission(message.no, 1, [message]);
  }

  // --- media ---

  const runsOf = (spec: number): Run[] => [...world.runs.values()].filter((run) => run.spec === spec);
  /** An SMS is text alone. */
  const withContent = (spec: number): Run[] => runsOf(spec).filter(({ first }) => first > 0);
  /** Messages of a spec that its content is still of use to. */
  const awaited = (spec: number): Run[] =>
    withContent(spec).filter((run) => !run.failed && run.submissions.some(({ stage }) => stage === 'fresh'));

  function mediaNext(limit: number, leaseMs: number): { now: number; jobs: MediaJob[]; nextDue: number | null } {
    const all = (): { spec: Spec; item: Spec['media'][number] }[] =>
      [...world.specs.values()].flatMap((spec) => spec.media.map((item) => ({ spec, item })));
    const due = all()
      .filter(({ item }) => item.due !== null && item.due <= world.now)
      .sort((a, b) => (a.item.due as number) - (b.item.due as number))
      .slice(0, limit);
    const jobs: MediaJob[] = [];
    for (const { spec, item } of due) {
      const runs = awaited(spec.no);
      if (runs.length === 0) {
        for (const one of spec.media) one.due = null;
        continue;
      }
      item.due = world.now + leaseMs;
      const ends = runs.map((run) => {
        const bulk = world.bulkOf(run);
        const moved = bulk !== null && bulk.sendAt !== null && bulk.moves > run.moves;
        const wanted = moved ? (bulk.sendAt as number) : Math.max(run.acceptedAt, run.sendAt ?? 0);
        return nextOpening(run.window, wanted) + run.validityMs;
      });
      const { segment, url, contentType } = item;
      const tries = item.tries + 1;
      const end = Math.max(...ends);
      const validUntil = end > world.now ? end : world.now + 60_000;
      jobs.push({ spec: spec.no, segment, account: spec.account, url: url as string, contentType, tries, validUntil });
    }
    const dues = all().flatMap(({ item }) => item.due ?? []);
    return { now: world.now, jobs, nextDue: dues.length === 0 ? null : Math.min(...dues) };
  }

  function mediaSettle(job: { spec: number; segment: number }, outcome: MediaOutcome): void {
    const spec = world.specs.get(job.spec);
    const item = spec?.media.find((one) => one.segment === job.segment);
    if (!spec || !item) return;
    if (outcome.kind === 'again') {
      if (item.hash === null && item.due !== null) {
        item.due = world.now + outcome.afterMs;
        item.tries += 1;
        item.words = outcome.words.slice(0, 500);
      }
    } else if (outcome.kind === 'ready') {
      const { hash, contentType, name } = outcome;
      Object.assign(item, { hash, contentType, name, due: null });
      world.hint('lane');
    } else {
      for (const one of spec.media) one.due = null;
      const failed = { error: outcome.error, words: outcome.words.slice(0, 500) };
      for (const run of withContent(spec.no)) if (queue.closed(run)) run.failed ??= failed;
    }
  }

  // --- bulks ---

  function steer(account: number, name: BulkName, changes: BulkChange[]): Steered {
    const bulk = reads.find(account, name);
    if (!bulk) return { kind: 'notFound' };
    const steering = steered(bulk, reads.figures(bulk.no), changes, world.now);
    if (steering.kind === 'conflict') return steering;
    if (steering.to !== bulk) {
      const before = { sendAt: bulk.sendAt, moves: bulk.moves };
      Object.assign(bulk, steering.to);
      world.bulks.set(bulk.no, bulk);
      queue.keep(bulk, before);
      world.hint('lane');
    }
    return { kind: 'done', bulk: reads.standing(bulk) };
  }

  /** Bulks paused for too long are given up; where nothing is left to give up, the pause is over. */
  function giveUp(): void {
    for (const bulk of world.bulks.values()) {
      if (bulk.canceledAt !== null || bulk.pausedAt === null || bulk.pausedAt > world.now - PAUSED_MAX_MS) continue;
      const { waiting, sent } = reads.figures(bulk.no);
      steer(bulk.account, { no: bulk.no }, [{ kind: waiting + sent > 0 ? 'cancel' : 'resume' }]);
    }
  }

  // --- retention ---

  /** Final for long enough, told, and not to be pulled any more. */
  function mayLeave(message: Message, old: number): boolean {
    if (message.doneAt === null || message.doneAt > old || !isFinal(message.state)) return false;
    return !world.events.some(
      (event) =>
        event.message === message &&
        (event.open ||
          event.post?.state === 'open' ||
          world.pulls.some((pull) => pull.event === event && pull.until > world.now)),
    );
  }

  function remove(message: Message): void {
    modelled.outlive(message);
    world.messages.delete(message.no);
    if (message.key !== null) world.keys.delete(`${message.account} ${message.key}`);
    world.events = world.events.filter((event) => event.message !== message);
    world.pulls = world.pulls.filter(({ event }) => event.message !== message);
    for (const [name, last] of world.conversations) if (last === message) world.conversations.delete(name);
    for (const [ref, { leader }] of world.refs) if (Math.abs(leader) === message.no) world.refs.delete(ref);
  }

  /** Bytes that nothing refers to, a day after they were last put; what content became likewise. */
  function retainContent(): void {
    const specs = [...world.specs.values()].flatMap(({ media }) => media.map(({ hash }) => hash));
    const uploads = [...world.uploads.values()].map(({ hash }) => hash);
    const parts = [...world.inbounds.values()].flatMap((one) => one.parts.map(({ hash }) => hash));
    const used = new Set<string | null>([...specs, ...uploads, ...parts]);
    const variants = new Set([...world.variants.values()].map(({ variant }) => variant.hash));
    const old = world.now - DAY;
    for (const [name, one] of world.variants) if (one.at <= old && !used.has(one.source)) world.variants.delete(name);
    for (const [hash, { at }] of world.content) {
      if (at <= old && !used.has(hash) && !variants.has(hash)) world.content.delete(hash);
    }
  }

  /** Messages from handsets, once they are told, or too old to be pulled. */
  function retainInbound(): void {
    const old = world.now - Math.max(world.retentionMs, 7 * DAY);
    for (const [name, one] of world.inbounds) {
      if (one.receivedAt > old) continue;
      const about = world.events.filter((event) => event.inbound === one);
      const stays = about.some(
        (event) =>
          event.open ||
          event.post?.state === 'open' ||
          (event.post?.state === 'exhausted' && (event.post.endedAt ?? 0) > world.now - 7 * DAY) ||
          world.pulls.some((pull) => pull.event === event),
      );
      if (stays) continue;
      world.inbounds.delete(name);
      world.events = world.events.filter((event) => event.inbound !== one);
    }
  }

  /** True = more is left. */
  function retain(): boolean {
    const old = world.now - world.retentionMs;
    world.pulls = world.pulls.filter(({ until }) => until > world.now);
    world.taken = world.taken.filter(({ until }) => until > world.now);
    retainContent();
    for (const [key, { at }] of world.idem) if (at <= world.now - 24 * HOUR) world.idem.delete(key);
    for (const [id, { expiresAt }] of world.uploads) if (expiresAt <= world.now) world.uploads.delete(id);
    if (world.now < world.retainAt) return false;
    let left = REMOVED;
    for (const spec of [...world.specs.values()].sort((a, b) => a.no - b.no)) {
      const messages = [...world.messages.values()].filter((message) => message.spec === spec);
      if (spec.acceptedAt > old || !messages.every((message) => mayLeave(message, old))) continue;
      for (const message of messages.slice(0, left)) remove(message);
      left -= messages.length + 1;
      if (left < 0) return true;
      world.specs.delete(spec.no);
      modelled.left(spec);
      for (const run of runsOf(spec.no)) world.runs.delete(run.first);
      if (![...world.specs.values()].some(({ bulk }) => bulk === spec.bulk)) world.bulks.delete(spec.bulk);
    }
    modelled.retain();
    retainInbound();
    world.posts = world.posts.filter(
      ({ state, at, endedAt }) =>
        state === 'open' || at > old || (state === 'exhausted' && (endedAt ?? at) > world.now - 7 * DAY),
    );
    // Looked at once a minute.
    world.retainAt = world.now + 60_000;
    return false;
  }

  function sweep(): boolean {
    giveUp();
    const more = queue.sweep();
    return retain() || more;
  }

  const plain = <Value>(value: Value): Value => structuredClone(value);
  /** Each verb is one step; what it is given and gives is the caller's own. */
  const verb =
    <Args extends unknown[], Result>(work: (...args: Args) => Result) =>
    async (...args: Args): Promise<Result> => {
      const result = plain(work(...plain(args)));
      world.prefer = [];
      return result;
    };

  return {
    advance(ms) {
      world.now += ms;
    },
    now: () => world.now,
    crash() {
      queue.freeLeases();
      for (const post of world.posts) if (post.leased) post.due = 0;
      const media = [...world.specs.values()].flatMap((spec) => spec.media);
      for (const item of media) if (item.due !== null && item.tries === 0) item.due = 0;
    },
    prefer(names) {
      world.prefer = [...names];
    },
    expiredTurns: queue.expiredTurns,

    identity: async () => ({ install, idKey: '0'.repeat(32) }),
    reserve: verb((count: number) => {
      world.nextNumber += count;
      return world.nextNumber - count;
    }),
    lane: verb((carrier, policy, shard = 0) => {
      world.policies.set(carrier, policy);
      const found = world.lanes.find((one) => one.carrier === carrier && one.shard === shard);
      if (found) return found.no;
      const no = world.lanes.length + 1;
      world.lanes.push({ no, carrier, shard });
      return no;
    }) satisfies Store['lane'],
    laneLease: async (_node, lanes) => lanes,
    accept: verb(accept),
    putContent: verb(
      (hash, bytes) => void world.content.set(hash, { at: world.now, bytes }),
    ) satisfies Store['putContent'],
    putUpload: verb((upload) => {
      world.uploads.set(`${upload.account} ${upload.id}`, { ...upload, expiresAt: world.now + upload.validityMs });
    }) satisfies Store['putUpload'],
    uploadNames: verb((account, ids) =>
      ids.flatMap((id) => {
        const known = world.uploads.get(`${account} ${id}`);
        return known ? [{ id, name: known.name }] : [];
      }),
    ) satisfies Store['uploadNames'],
    content: verb((hash) => world.content.get(hash)?.bytes ?? null) satisfies Store['content'],
    variant: verb(
      (source, profile) => world.variants.get(`${source} ${profile}`)?.variant ?? null,
    ) satisfies Store['variant'],
    putVariant: verb((source, profile, variant) => {
      world.variants.set(`${source} ${profile}`, { at: world.now, source, variant });
    }) satisfies Store['putVariant'],
    claim: verb(queue.claim),
    settle: verb(queue.settle),
    release: verb(queue.release),
    report: verb(queue.report),
    sweep: verb(sweep),
    mediaNext: verb(mediaNext),
    mediaSettle: verb(mediaSettle),
    webhookNext: verb(events.webhookNext),
    webhookSettle: verb(events.webhookSettle),
    takeReports: verb(reads.takeReports),
    rearm: verb(hooks.rearm),
    webhookDeliveries: verb(hooks.deliveries),
    webhookReplay: verb(hooks.replay),
    webhookReplayRange: verb(hooks.replayRange),
    endpointList: verb(hooks.endpointList),
    endpointPut: verb(hooks.endpointPut),
    endpointDelete: verb(hooks.endpointDelete),
    inbound: verb(hooks.inbound),
    takeInbox: verb(hooks.takeInbox),
    inboundPart: verb(hooks.inboundPart),
    numberList: verb(hooks.numberList),
    optOutPut: verb(hooks.optOutPut),
    optOutDelete: verb(hooks.optOutDelete),
    optOutList: verb(hooks.optOutList),
    logs: verb(reads.logs),
    story: verb((account, id) => {
      const story = reads.story(account, id);
      return story && { ...story, clicks: modelled.clicksOf(story.message.no) };
    }) satisfies Store['story'],
    feed: verb(reads.feed),
    bulkGet: verb(reads.bulkGet),
    bulkList: verb(reads.bulkList),
    callBacks: verb(queue.callBacks),
    calledBack: verb(queue.calledBack),
    reroute: verb((from, to, channel) => reroute(world, from, to, channel)) satisfies Store['reroute'],
    bulkSteer: verb(steer),
    directory: verb(operator.directory),
    administer: verb(operator.administer),
    auditLog: verb(operator.auditLog),
    sessionPut: verb(operator.sessionPut),
    sessionUse: verb(operator.sessionUse),
    sessionDelete: verb(operator.sessionDelete),
    quota: verb(operator.quota),
    quotaUsed: verb(operator.quotaUsed),
    link: verb(modelled.link),
    clicked: verb(modelled.clicked),
    click: verb(modelled.click),
    clicks: verb(modelled.clicks),
    keys: async () => [...keys.values()],
    putKey: verb((key: Key, replace: boolean) => {
      world.accounts.add(key.account);
      for (const one of [...keys.values()]) {
        if (replace && one.account === key.account && one.label === key.label) keys.delete(one.hash);
      }
      keys.set(key.hash, key);
      operator.bump();
      world.hint('keys');
    }),
    stats: verb(reads.stats),
    onHint: (listener: (hint: Hint) => void) => world.onHint(listener),
    close: async () => undefined,
  };
}
