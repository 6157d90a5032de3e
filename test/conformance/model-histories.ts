/**
 * Random histories of verbs, applied to an engine and to the model side by side, answer by answer. Where the contract leaves a
 * choice (whose turn it is among those that are due, how ties are ordered), the model follows what the engine chose and
 * checks that it was one to choose: a claim that may not leave, that comes twice, or that is missing is a difference.
 *
 * Between verbs all that can be read is compared: messages with their status, bulks with their figures, webhooks, figures of
 * the store, the feed, stories. At the end everything is let go on until it has ended and is told.
 */
import { expect } from 'vitest';
import { smsLeader, type Ways } from '../../src/domain/failover.ts';
import { OPT_OUT_ERROR } from '../../src/domain/optout.ts';
import type { Tracked } from '../../src/domain/rows.ts';
import { isFinal, type State } from '../../src/domain/status.ts';
import type {
  Accept,
  BulkName,
  Claim,
  Delivery,
  EventRow,
  MediaOutcome,
  MessageFilter,
  MessageRow,
  SpecRow,
  Store,
  Story,
  Webhook,
} from '../../src/store/contract.ts';
import { DAY, dropNumber, type Harness, HOUR, LEASE, MINUTE, numbers, SECOND, setNumber } from './desk.ts';
import {
  ACCOUNTS,
  CHANGES,
  FILTERS,
  OUTCOMES,
  type OutcomeName,
  REMEMBERED,
  REROUTES,
  type Step,
  VALIDITIES,
  WINDOWS,
} from './model-steps.ts';
import { createModelStore, type ModelStore } from './model-store.ts';

const HOOK_LEASE = 30 * SECOND;

interface Given<Item> {
  engine: Item;
  model: Item;
}

/** Runs one history. Throws (an assertion) at the first difference. `every`: reads are compared after so many steps. */
export async function runHistory(h: Harness, steps: readonly Step[], every = 1): Promise<void> {
  const pair = await createPair(h);
  for (const [n, one] of steps.entries()) {
    await pair.run(one);
    if (n % every === every - 1) await pair.compare();
  }
  await pair.drain();
}

async function createPair(h: Harness) {
  const model: ModelStore = createModelStore(h.now());
  const names: [string, number][] = [
    ['mmsc', 0],
    ['mmsc', 1],
    ['other', 0],
    ['smsc', 0],
    ['smsc2', 0],
  ];
  const lanes: Given<number>[] = [];
  const claims: (Given<Claim> & { lane: number; done: boolean })[] = [];
  const posts: (Given<Webhook> & { done: boolean })[] = [];
  const postNos = new Map<number, number>();
  const jobs: { spec: number; segment: number }[] = [];
  const bulks: { account: number; name: BulkName }[] = [];
  /** Messages of specs that have short links, newest first. */
  const linked: number[] = [];
  const uploaded = { account: 1, id: 'pic', name: 'p.jpg', hash: 'aa', contentType: 'image/jpeg', size: 3 };
  let steered = false;
  let optedOut = false;
  /** Something may be with its carrier before its time. */
  let early = false;
  let ids = 0;
  const places: Given<number>[] = [
    { engine: -1, model: -1 },
    { engine: -1, model: -1 },
  ];

  async function lane(onUnknown: 'hold' | 'retry' | 'fail', reports: boolean): Promise<void> {
    for (const [n, [carrier, shard]] of names.entries()) {
      const policy = carrier === 'mmsc' ? { onUnknown, reports } : ({ onUnknown: 'retry', reports: true } as const);
      lanes[n] = {
        engine: await h.store.lane(carrier, policy, shard),
        model: await model.lane(carrier, policy, shard),
      };
    }
  }
  await lane('hold', true);
  for (const account of ACCOUNTS) {
    await both((store) => store.putKey({ hash: `h${account}`, account, label: 'k' }, false));
  }
  const laneAt = (n: number): Given<number> => lanes[n % lanes.length] as Given<number>;
  const mmsLane = (n: number): Given<number> => lanes[n % 3] as Given<number>;
  function waysBy(how: number, side: keyof Given<unknown>): Ways {
    const [, , other, sms, sms2] = lanes.map((one) => one[side]) as [number, number, number, number, number];
    const alts = how > 0 ? { alts: [other] } : {};
    if (how === 2) return alts;
    if (how === 3) return { smsOnly: true, sms: { lane: sms, validityMs: 3 * HOUR } };
    return { ...alts, sms: { lane: sms, validityMs: 3 * HOUR, ...(how === 1 ? { alts: [sms2] } : {}) } };
  }

  /** The same verb on both; answers are compared as they are, or as `seen` makes them. */
  async function both<Result>(
    work: (store: Store, side: keyof Given<unknown>) => Promise<Result>,
    seen: (result: Result) => unknown = (result) => result ?? null,
  ): Promise<Given<Result>> {
    const engine = await work(h.store, 'engine');
    const result = await work(model, 'model');
    expect(seen(engine)).toEqual(seen(result));
    return { engine, model: result };
  }

  async function accept(given: Extract<Step, { do: 'accept' }>): Promise<void> {
    // What no carrier takes goes alone, and nobody keeps its time.
    const one = given.ways === 3 ? without(given, 'group', 'early') : given;
    const { account, count } = one;
    const { engine: first } = await both((store) => store.reserve(count + 2));
    const start = first + 2;
    const end = start + count;
    const refused = one.refuse && count > 1 && !one.group ? 1 : 0;
    const joined = one.bulk !== undefined && one.bulk < 0 ? bulks.at(one.bulk) : undefined;
    const named = one.bulk !== undefined && one.bulk >= 0 ? one.bulk : undefined;
    const sendAt = one.sendAt === undefined ? null : h.now() + one.sendAt;
    const of = {
      spec: first + 1,
      window: named === undefined ? null : (WINDOWS[named] ?? null),
      validityMs: VALIDITIES[named ?? account] ?? HOUR,
    };
    const spec: Accept['specs'][number] = {
      first: start,
      end,
      // Some from a number of ours, so that handsets can answer.
      sender: one.count === 2 ? '+44113490' : 'Shop',
      campaign: one.tracked === undefined ? null : 'summer',
      entity: null,
      application: null,
      endpoint:
        one.endpoint === undefined
          ? null
          : { url: `https://e.example/${one.endpoint}`, contentType: 'application/json' },
      intermediate: one.intermediate ?? false,
      notify: true,
      // Some by the first version of the API, to the same URLs.
      ...(one.count === 3 ? { older: true as const } : {}),
      body: '{}',
      uploads: one.upload ? [{ segment: 1, id: 'pic' }] : [],
      links: one.link ? [{ segment: 0, url: 'https://c.example/', contentType: null }] : [],
      ...(one.tracked === undefined ? {} : { tracked: trackedBy(one.tracked) }),
    };
    const request = (side: keyof Given<unknown>): Accept => ({
      account,
      first,
      bulkId: one.bulk !== undefined && one.bulk >= 0 ? `bulk-${account}-${one.bulk}` : joined ? 'as-printed' : null,
      ...(joined && 'no' in joined.name && joined.account === account ? { bulk: joined.name.no } : {}),
      sendAt: sendAt !== null && sendAt > h.now() ? sendAt : null,
      intervalUs: one.every === undefined ? null : one.every * 1000,
      specs: [spec],
      runs:
        end - refused > start
          ? [
              {
                ...of,
                lane: (one.ways === 3 ? laneAt(3) : mmsLane(one.lane ?? 0))[side],
                first: start,
                end: end - refused,
                group: one.group ?? false,
                ...(one.early !== undefined && sendAt !== null && sendAt > h.now() ? { earlyMs: one.early } : {}),
                ...(one.ways === undefined ? {} : { ways: waysBy(one.ways, side) }),
              },
            ]
          : [],
      to: numbers(count),
      refused: refused ? [[end - 1, 52]] : [],
      keys: one.key === undefined ? [] : [[start, `key-${account}-${one.key}`]],
      idem: one.idem === undefined ? null : { key: `idem-${one.idem}`, hash: String(one.count) },
    });
    if (one.upload) await both((store) => store.putUpload({ ...uploaded, account, validityMs: HOUR }));
    const { engine: answer } = await both((store, side) => store.accept(request(side)));
    if (answer.kind !== 'accepted') return;
    bulks.push({ account, name: { no: answer.bulk } });
    if (answer.bulkId !== null) bulks.push({ account, name: { id: answer.bulkId } });
    if (one.every !== undefined) steered = true;
    if (one.early !== undefined) early = true;
    if (one.tracked === undefined) return;
    for (let no = start; no < end; no++) linked.unshift(no);
    linked.splice(REMEMBERED);
  }

  /** What waits for one carrier goes to another, all of it. Engines count numbers, also of messages that are none; claims tell the rest. */
  async function reroute(pair: number): Promise<void> {
    const [from, to, channel] = REROUTES[pair % REROUTES.length] as (typeof REROUTES)[number];
    await both(async (store) => {
      for (let n = 0; n < 50; n++) {
        const step = await store.reroute(from, to, channel);
        if (step === null || step.next === null) return step === null;
      }
      throw new Error('reroute never ends');
    });
  }

  /** Carriers are asked about what they have, and it is told what came of it. */
  async function callBacks(at: number, tell: boolean): Promise<void> {
    const lane = laneAt(at);
    const { engine } = await both((store, side) => store.callBacks(lane[side], 1000));
    if (!tell) return;
    for (const { leader, members } of engine) await both((store) => store.calledBack(leader, members, 'was asked'));
  }

  /** Somebody opens a link, perhaps one that no message has. */
  async function click(one: Extract<Step, { do: 'click' }>): Promise<void> {
    const no = linked[one.at % Math.max(linked.length, 1)] ?? -1;
    await both((store) => store.link(no));
    await both((store) => store.clicked([no, no + 1]));
    const flag = one.flag ? 'BOT' : null;
    const said = { no, link: one.link, at: h.now(), flag, device: 'Phone' } as const;
    const clicks = Array.from({ length: one.times }, (_, n) => ({ ...said, body: flag ? null : `{"click":${n}}` }));
    await both((store) => store.click(clicks));
    for (const account of ACCOUNTS) {
      await both((store) => store.clicks(account, { message: { no } }));
      await both((store) => store.clicks(account, { campaign: 'summer' }));
    }
  }

  async function claim(at: number, limit: number): Promise<void> {
    const here = laneAt(at);
    // A turn that passed unused is given away by the first who looks; let both look at the same time.
    if (model.expiredTurns(here.model) || (steered && optedOut)) await sweep();
    let engine = await h.store.claim(here.engine, limit, LEASE);
    // Fewer than are due may be given, with the word that there is more.
    for (let n = 0; n < 50 && engine.claims.length < limit && (engine.nextDue ?? engine.now + 1) <= engine.now; n++) {
      const more = await h.store.claim(here.engine, limit - engine.claims.length, LEASE);
      const specs = [...engine.specs, ...more.specs.filter(({ no }) => engine.specs.every((one) => one.no !== no))];
      engine = { ...more, claims: [...engine.claims, ...more.claims], specs };
    }
    // Who has opted out since is not among the claims, but has ended by this one; a group may have lost its first member.
    const leaders = engine.claims.map((one) => one.leader);
    const gone = optedOut ? (await unwanted()).filter((no) => !leaders.includes(no)) : [];
    model.prefer([...gone, ...leaders]);
    // What a steering lets go earlier is brought to it by the sweep; until then fewer may be given.
    const found = await model.claim(here.model, steered ? engine.claims.length : limit, LEASE);
    // Their order is in their instants.
    for (const { claims: some } of [engine, found]) some.sort((a, b) => a.leader - b.leader);
    const seen = (one: Claim): unknown => ({ ...one, token: 0 });
    expect(engine.claims.map(seen), 'claims').toEqual(found.claims.map(seen));
    // Specs of those who were left out may be among them.
    const used = engine.claims.map(({ spec }) => spec);
    expect(byNo(engine.specs).filter(({ no }) => used.includes(no))).toEqual(byNo(found.specs));
    if (!steered && found.nextDue !== null && engine.claims.length < limit) {
      expect(engine.nextDue ?? Number.POSITIVE_INFINITY, 'the lane would sleep too long').toBeLessThanOrEqual(
        found.nextDue,
      );
    }
    engine.claims.forEach((one, n) => {
      claims.unshift({ engine: one, model: found.claims[n] as Claim, lane: at, done: false });
    });
    claims.splice(REMEMBERED);
  }

  async function settle(one: (typeof claims)[number] | undefined, name: OutcomeName): Promise<void> {
    if (!one) return;
    one.done = true;
    const outcome = OUTCOMES[name](`id-${ids}`, one.engine);
    if (outcome.kind === 'accepted') ids++;
    await both((store, side) =>
      store.settle({
        lane: laneAt(one.lane)[side],
        token: one[side].token,
        leader: one[side].leader,
        outcome,
        startedAt: h.now(),
        tookMs: 5,
      }),
    );
  }

  /** Who has ended on the engine as unwanted, and waits yet in the model. */
  async function unwanted(): Promise<number[]> {
    const nos = async (store: Store, is: (row: MessageRow) => boolean): Promise<number[]> => {
      const pages = await Promise.all(ACCOUNTS.map((account) => store.logs({ account, limit: 10_000 })));
      return pages.flatMap(({ rows }) => rows.filter(is).map(({ no }) => no));
    };
    const waiting = await nos(model, (row) => !isFinal(row.state as State));
    return nos(h.store, (row) => row.error === OPT_OUT_ERROR && waiting.includes(row.no));
  }

  /** All that is due now, on both; who ended tells whose turn passed. */
  async function sweep(): Promise<void> {
    for (let n = 0; await h.store.sweep(); n++) if (n > 1000) throw new Error('the sweep never ends');
    const ended: number[] = [];
    for (const account of ACCOUNTS) {
      const { rows } = await h.store.logs({ account, limit: 10_000 });
      // Where an SMS follows, the MMS has ended.
      ended.push(...rows.filter(({ leg, state }) => leg === 1 || isFinal(state as State)).map(({ no }) => no));
      const last = rows.filter(({ leg, state }) => leg === 1 && isFinal(state as State));
      ended.push(...last.map(({ no }) => smsLeader(no)));
    }
    for (let n = 0; ; n++) {
      // Those on the SMS leg behind all others: their legs are opened by what ends first.
      model.prefer(ended.sort((a, b) => Number(a < 0) - Number(b < 0) || Math.abs(a) - Math.abs(b)));
      if (!(await model.sweep())) break;
      if (n > 1000) throw new Error("the model's sweep never ends");
    }
    steered = false;
  }

  async function post(limit: number): Promise<number> {
    const engine = await h.store.webhookNext(limit, HOOK_LEASE);
    model.prefer(
      engine.webhooks.map(({ no, account, kind, endpoint }) =>
        postNos.has(no)
          ? `retry ${postNos.get(no)}`
          : `fresh ${account} ${kind} ${endpoint.contentType} ${endpoint.url}`,
      ),
    );
    const found = await model.webhookNext(limit, HOOK_LEASE);
    expect(engine.webhooks.map(postSeen), 'webhooks').toEqual(found.webhooks.map(postSeen));
    expect(byNo(engine.specs)).toEqual(byNo(found.specs));
    if (found.nextDue !== null && engine.webhooks.length < limit) {
      expect(engine.nextDue ?? Number.POSITIVE_INFINITY, 'the outbox would sleep too long').toBeLessThanOrEqual(
        found.nextDue,
      );
    }
    engine.webhooks.forEach((one, n) => {
      const same = found.webhooks[n] as Webhook;
      postNos.set(one.no, same.no);
      posts.unshift({ engine: one, model: same, done: false });
    });
    posts.splice(REMEMBERED);
    return engine.webhooks.length;
  }

  async function answer(one: (typeof posts)[number] | undefined, ok: boolean): Promise<void> {
    if (!one) return;
    one.done = true;
    const more = { ok, status: ok ? 200 : 503, tookMs: 7, excerpt: ok ? 'thanks' : 'busy', body: ok ? null : 'bytes' };
    await both((store, side) => store.webhookSettle({ no: one[side].no, token: one[side].token, ...more }));
  }

  async function pull(filter: MessageFilter): Promise<void> {
    const engine = await h.store.takeReports(filter);
    model.prefer(engine.rows.map((row) => row.no));
    const found = await model.takeReports(filter);
    expect(rowsSeen(engine.rows), 'pulled').toEqual(rowsSeen(found.rows));
    expect(engine.next).toBe(found.next);
    const events = engine.rows.map((row) => row.event);
    expect(events, 'newest first').toEqual([...events].sort((a, b) => b - a));
  }

  async function fetched(at: number, kind: MediaOutcome['kind']): Promise<void> {
    const job = jobs[at % Math.max(jobs.length, 1)];
    if (!job) return;
    const outcomes: Record<MediaOutcome['kind'], MediaOutcome> = {
      ready: { kind, hash: 'bb', contentType: 'image/png', name: 'c.png' } as MediaOutcome,
      failed: { kind, error: 15024, words: '404' } as MediaOutcome,
      again: { kind, afterMs: MINUTE, error: 15024, words: '503' } as MediaOutcome,
    };
    await both((store) => store.mediaSettle(job, outcomes[kind]));
  }

  async function handset(one: Extract<Step, { do: 'handset' }>): Promise<void> {
    const { engine: no } = await both((store) => store.reserve(1));
    await both((store) =>
      store.inbound({
        no,
        carrier: 'mmsc',
        id: `mo-${one.id}`,
        channel: 'MMS',
        from: numbers(1, 1 + one.from)[0] as string,
        to: [`4411349${one.to}`],
        cc: [],
        subject: null,
        parts: [{ contentId: 'a', contentType: 'image/png', size: 1, hash: 'cc', text: null }],
        answers: one.answers === undefined ? null : `id-${Math.max(0, ids - one.answers)}`,
        asks: one.asks ?? null,
      }),
    );
    optedOut ||= one.asks === 'stop';
    await both((store) => store.inboundPart(no, 0));
  }

  async function run(one: Step): Promise<void> {
    switch (one.do) {
      case 'accept':
        return accept(one);
      case 'claim':
        return claim(one.lane, one.limit);
      case 'settle':
        return settle(pick(claims, one.at), one.outcome);
      case 'release': {
        const first = pick(claims, one.at);
        const given = first ? claims.slice(claims.indexOf(first)).slice(0, 3) : [];
        for (const claim of given) claim.done = true;
        await both((store, side) =>
          store.release(
            given.map((claim) => claim[side]),
            h.now() + one.in,
            one.elsewhere,
          ),
        );
        return;
      }
      case 'report': {
        // Known, not known yet, or never.
        const carrier = one.to === 5 ? 'other' : one.to >= 3 ? 'smsc' : 'mmsc';
        const addresses = [...numbers(1, 1 + one.to), ...numbers(1, 2 + one.to)];
        const id = `id-${Math.max(0, ids + 2 - one.id)}`;
        const report = { carrier, carrierMessageId: id, addresses, kind: one.kind, words: one.kind };
        await both((store) => store.report(report));
        return;
      }
      case 'steer': {
        const account = ACCOUNTS[Math.abs(one.bulk) % 2] as number;
        const bulk = one.bulk < 0 ? bulks.at(one.bulk) : { account, name: { id: `bulk-${account}-${one.bulk % 3}` } };
        if (!bulk) return;
        const changes = one.changes.map((name) => CHANGES[name](h.now()));
        await both((store) => store.bulkSteer(bulk.account, bulk.name, changes));
        steered = true;
        // A moved time is brought to each run by the sweep; what a carrier has early by then is to be the same on both sides.
        if (early) await sweep();
        return;
      }
      case 'callBacks':
        return callBacks(one.lane, one.ok);
      case 'reroute':
        return reroute(one.pair);
      case 'media': {
        const { engine } = await both(
          (store) => store.mediaNext(one.limit, LEASE),
          (next) => next.jobs.map((job) => ({ ...job, validUntil: 0 })),
        );
        jobs.unshift(...engine.jobs.map(({ spec, segment }) => ({ spec, segment })));
        jobs.splice(5);
        return;
      }
      case 'fetched':
        return fetched(one.at, one.outcome);
      case 'post':
        await post(one.limit);
        return;
      case 'answer':
        return answer(pick(posts, one.at), one.ok);
      case 'pull': {
        const filter = FILTERS[one.filter] as (typeof FILTERS)[number];
        return pull({ account: one.account, limit: one.limit, ...filter(one.account) });
      }
      case 'sweep':
        return sweep();
      case 'endpoint': {
        const { account, kind } = one;
        const url = `https://e.example/${one.url}`;
        if (one.as === 'gone') await both((store) => store.endpointDelete(account, kind, url));
        else {
          const isDefault = one.as === 'default';
          const secret = { value: `secret ${isDefault}`, oldForMs: HOUR };
          await both((store) => store.endpointPut({ account, kind, url, isDefault, secret }));
        }
        await both((store) => store.endpointList(account));
        return;
      }
      case 'again': {
        const given = posts[one.at % Math.max(posts.length, 1)];
        if (given) await both((store, side) => store.webhookReplay(given[side].account, given[side].no));
        return;
      }
      case 'againAll':
        await both((store) =>
          store.webhookReplayRange({ account: one.account, ...(one.state && { state: one.state }) }),
        );
        return;
      case 'rearm':
        await both((store) => store.rearm({ account: one.account, kind: one.kind }));
        return;
      case 'number': {
        const number = `4411349${one.n}`;
        const url = one.url === undefined ? null : `https://e.example/${one.url}`;
        const more = { url, entity: null, application: null, callbackData: `of ${one.account}` };
        if (one.gone) await both((store) => dropNumber(store, number, one.account));
        else await both((store) => setNumber(store, { number, account: one.account, ...more }).catch(String));
        await both((store) => store.numberList());
        return;
      }
      case 'handset':
        return handset(one);
      case 'inbox':
        await both((store) => store.takeInbox({ account: one.account, limit: one.limit }));
        return;
      case 'optOut': {
        optedOut = true;
        const entry = [{ sender: one.any ? '' : 'SHOP', destination: numbers(1, one.to + 1)[0] as string }];
        await both((store) => store[one.gone ? 'optOutDelete' : 'optOutPut'](one.account, entry));
        await both((store) => store.optOutList({ account: one.account, limit: 10 }));
        return;
      }
      case 'click':
        return click(one);
      case 'crash':
        await h.crash();
        model.crash();
        return;
      case 'policy':
        return lane(one.onUnknown, one.reports);
      case 'wait':
        h.advance(one.ms);
        model.advance(one.ms);
        return;
    }
  }

  /** All that can be read. */
  async function compare(): Promise<void> {
    for (const [n, account] of ACCOUNTS.entries()) {
      const place = places[n] as Given<number>;
      const { engine } = await both((store) => store.logs({ account, limit: 10_000 }), pageSeen);
      await both((store) => store.logs({ account, limit: 3, ...(FILTERS[2]?.(account) ?? {}) }), pageSeen);
      await both((store) => store.bulkList(account, 1000));
      await both(
        (store) => store.webhookDeliveries({ account, limit: 1000 }),
        ({ deliveries }) => deliveries.map(deliverySeen).sort(),
      );
      const feeds = await both(
        (store, side) => store.feed(account, place[side], 10_000),
        ({ rows }) => rowsSeen(rows),
      );
      places[n] = { engine: feeds.engine.last, model: feeds.model.last };
      // One story each time, of a message that may have changed.
      const row = engine.rows[h.now() % 7];
      if (!row) continue;
      const id = row.key === null ? { no: row.no } : { key: row.key };
      await both((store) => store.story(account, id), storySeen);
    }
    for (const { account, name } of bulks.slice(-4)) await both((store) => store.bulkGet(account, name));
    await both(
      (store) => store.stats(),
      ({ inFlight, webhooksExhausted }) => ({ inFlight, webhooksExhausted }),
    );
  }

  /** Faults off: everything ends and is told, on both sides alike. */
  async function drain(): Promise<void> {
    for (const { account, name } of bulks) {
      await both((store) => store.bulkSteer(account, name, [{ kind: 'resume' }]));
    }
    const open = async (): Promise<number[]> => {
      const pages = await Promise.all(ACCOUNTS.map((account) => h.store.logs({ account, limit: 10_000 })));
      const rows = pages.flatMap((page) => page.rows);
      return rows.filter((row) => !isFinal(row.state as State)).map((row) => row.no);
    };
    // Some rounds with a carrier that is busy, then nobody claims any more.
    for (let round = 0; round < 40; round++) {
      const ms = round < 4 ? 6 * HOUR : 40 * HOUR;
      h.advance(ms);
      model.advance(ms);
      await sweep();
      await compare();
      if ((await open()).length === 0) break;
      if (round >= 4) continue;
      for (let n = 0; n < lanes.length; n++) await claim(n, 1000);
      for (const one of claims) if (!one.done) await settle(one, 'deferred');
    }
    expect(await open(), 'never ended').toEqual([]);
    for (let round = 0; round < 200; round++) {
      if ((await post(10)) === 0) break;
      for (const one of posts.slice(0, 10)) await answer(one, true);
      for (const account of ACCOUNTS) await both((store) => store.takeInbox({ account, limit: 1000 }));
      h.advance(MINUTE);
      model.advance(MINUTE);
    }
    for (const account of ACCOUNTS) await pull({ account, limit: 10_000 });
    for (let n = 0; n < lanes.length; n++) await callBacks(n, true);
    await sweep();
    await compare();
    const idle = { inFlight: 0, webhooksWaiting: 0, pull: 0 };
    expect(await h.store.stats()).toMatchObject(idle);
    expect(await model.stats()).toMatchObject(idle);
  }

  return { run, compare, drain };
}

function without<One extends object, Name extends keyof One>(one: One, ...names: Name[]): Omit<One, Name> & One {
  return Object.fromEntries(Object.entries(one).filter(([name]) => !names.includes(name as Name))) as Omit<One, Name> &
    One;
}

/** Mostly what is still open, the n-th of it; else anything that ever was. */
function pick<Item extends { done: boolean }>(list: Item[], at: number): Item | undefined {
  const open = at % 8 === 7 ? list : list.filter(({ done }) => !done);
  return open[Math.floor(at / 8) % Math.max(open.length, 1)];
}

// --- What is compared of an answer ---

const byNo = (specs: SpecRow[]): SpecRow[] => [...specs].sort((a, b) => a.no - b.no);

/** Rows in order of their messages; events of one message stay in theirs. Numbers of events are each store's own. */
function rowsSeen(rows: EventRow[]): unknown {
  return rows.map((row) => ({ ...row, event: 0 })).sort((a, b) => a.no - b.no || a.at - b.at);
}

function pageSeen({ rows, specs, next }: { rows: unknown[]; specs: SpecRow[]; next: number | null }): unknown {
  return { rows, specs: byNo(specs), next };
}

/** What is kept of short links that a step asks for. */
function trackedBy(how: number): Tracked {
  const url = how === 0 ? 'https://e.example/clicks' : null;
  const urls = ['https://shop.example/', 'https://shop.example/terms'];
  return { urls, clicks: how !== 2, url, callbackData: 'order', keepMs: 3 * DAY };
}

function postSeen({ account, kind, endpoint, retry, body, events, inbound, pending }: Webhook): unknown {
  const { no: _, ...spoken } = endpoint;
  return { account, kind, spoken, retry, body, events: rowsSeen(events), inbound, pending };
}

/** Numbers of webhooks are each store's own. */
function deliverySeen({ no: _, messages, ...delivery }: Delivery): string {
  return JSON.stringify([messages.sort((a, b) => a.no - b.no), Object.entries(delivery).sort()]);
}

function storySeen(story: Story | null): unknown {
  if (!story) return null;
  const { message, spec, attempts, events, webhooks, waiting, validUntil, clicks } = story;
  const plain = (transaction: string): string => transaction.slice(transaction.indexOf('-'));
  return {
    message,
    spec,
    attempts: attempts.map((one) => ({ ...one, transactionId: plain(one.transactionId) })),
    events: events.map((one) => ({ ...one, event: 0 })),
    webhooks: webhooks.map((one) => ({ ...one, event: 0 })),
    clicks,
    why: waiting?.why ?? null,
    gate: waiting?.gate ?? null,
    // Of those that a carrier has it says the end of the run's clock, if that is one for all.
    validUntil: waiting === null || message.status === 3 ? null : validUntil,
  };
}
