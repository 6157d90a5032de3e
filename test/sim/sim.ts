/**
 * The deterministic simulation: whole days of the product under seeded faults, in less than a second. The production code of
 * domain, dispatch, webhooks, media, the API's intake and reads, and the SQLite engine runs unchanged; time, chance, the way
 * to the store, carriers, customers and their servers are simulated.
 *
 * Two phases: first everything in the plan goes wrong while customers send; then all heals, and the system must end its work:
 * every message final and told, nothing left open. A violation of what `oracles.ts` knows to be promised ends the run.
 *
 * Promises: the same seed, cuts and bug give the same run (`hash`). One node is the embedded store: its engine dies with the
 * process and is opened again. Several nodes share one engine that lives on, as they would share a PostgreSQL.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { plainPolicy } from '../../src/api/auth.ts';
import { type Bulks, createBulks } from '../../src/api/bulks.ts';
import type { Answer } from '../../src/api/errors.ts';
import { createLimits } from '../../src/api/limits.ts';
import { createLinks, type Links } from '../../src/api/links.ts';
import { createSend, type SendHead } from '../../src/api/messages.ts';
import { createReads, type Reads } from '../../src/api/reads.ts';
import { DEFAULT_LIMITS } from '../../src/api/schema.ts';
import type { Carrier } from '../../src/carriers/carrier.ts';
import { createDispatch, type Dispatch, type LaneOptions } from '../../src/dispatch/dispatch.ts';
import { createIds, type Ids } from '../../src/domain/ids.ts';
import { createPartUrls } from '../../src/domain/inbound.ts';
import { createShortener, LINK_PATH } from '../../src/domain/links.ts';
import { formatInstant } from '../../src/domain/schedule.ts';
import type { CarrierReport } from '../../src/domain/submission.ts';
import type { Env } from '../../src/env.ts';
import { createMedia, type MediaLoop } from '../../src/media/media.ts';
import { type BulkChange, type BulkName, type Hint, type Store, StoreUnavailable } from '../../src/store/contract.ts';
import { createWebhooks, type WebhookLoop } from '../../src/webhooks/webhooks.ts';
import { type Asker, Cistern, type StoreBug } from './cistern.ts';
import { type Look, looksOf } from './clicks.ts';
import { Dice, HOUR, MINUTE, type Owner, Scheduler, SECOND, StoreTime, simEnv, type TraceLine } from './clockwork.ts';
import { type Order, orderIndexOf, ordersOf, type Steering, steeringsOf } from './customers.ts';
import { Oracles, Violation } from './oracles.ts';
import { type Caller, Mmsc, Web } from './peers.ts';
import { type Cuts, momentOf, type Plan, planOf, SKEW_MAX_MS } from './plan.ts';

/** A defect planted at a seam, to see whether the oracles find it. */
export interface Bug extends StoreBug {
  name: string;
  carrier?(carrier: Carrier): Carrier;
  lane?(lane: LaneOptions): LaneOptions;
  /** The monotonic clock does not count the time a process stands still. */
  sleepyClock?: boolean;
}

export interface SimOptions {
  cuts?: Cuts;
  bug?: Bug;
}

export interface SimResult {
  seed: number;
  plan: Plan;
  hash: string;
  violation: Violation | null;
  messages: number;
  submissions: number;
  steps: number;
  /** Polls that found nothing and were passed over. */
  skipped: number;
  hours: number;
  lines: readonly TraceLine[];
}

/** Phase 2 may take this long. */
const HEALED_MS = 100 * HOUR;
const MAX_STEPS = 400_000;
/** A stop is bounded by 35 s; the store and the timers may add to it here. */
const STOP_MAX_MS = 40 * SECOND;
const CLIENT_PATIENCE_MS = 20 * SECOND;
const PEER_PATIENCE_MS = 15 * SECOND;

/** Runs one seed. */
export async function simulate(seed: number, options: SimOptions = {}): Promise<SimResult> {
  const world = new World(seed, options);
  const onRejection = (error: unknown): void => world.crashed(error);
  process.on('unhandledRejection', onRejection);
  try {
    await world.play();
  } catch (error) {
    world.crashed(error);
  } finally {
    process.off('unhandledRejection', onRejection);
    world.close();
  }
  return world.result();
}

// ------------------------------------------------------------------------------------------------------------ a process

/** What a door's answer is given to. */
interface Reply {
  done(answer: Answer): void;
}

class SimNode implements Asker, Caller {
  readonly name: string;
  readonly owner: Owner;
  readonly dice: Dice;
  open = 0;
  calls = 0;
  ready = false;
  stopping = false;
  store!: Store;
  send!: ReturnType<typeof createSend>;
  reads!: Reads;
  bulks!: Bulks;
  ids!: Ids;
  dispatch!: Dispatch;
  webhooks!: WebhookLoop;
  media!: MediaLoop;
  links!: Links;
  readonly #world: World;
  readonly #listeners: ((hint: Hint) => void)[] = [];
  /** Time spent standing still. */
  slept = 0;

  constructor(world: World, name: string) {
    this.name = name;
    this.#world = world;
    this.dice = new Dice(world.plan.seed, 'process', name);
    this.owner = {
      dead: false,
      pausedUntil: 0,
      quietUntil: () => (this.open > 0 || this.calls > 0 || !this.ready ? 0 : world.cistern.quietUntil()),
    };
  }

  now(): number {
    return this.#world.scheduler.now;
  }

  onHint(kind: Hint['kind']): void {
    for (const listener of this.#listeners) listener({ kind });
  }

  /** Rejects when the store is away. */
  async start(): Promise<void> {
    const { scheduler, cistern, plan, bug, oracles, web, mmscs, smsc } = this.#world;
    const skewMs = plan.faults.skew > 0 ? this.dice.between(-SKEW_MAX_MS, SKEW_MAX_MS) * plan.faults.skew : 0;
    const env: Env = simEnv(scheduler, this.owner, this.dice, {
      skewMs: Math.round(skewMs),
      monotonic: () => scheduler.now - (bug?.sleepyClock ? this.slept : 0),
      onError: (message, fields) => oracles.logged(message, fields),
    });
    const plain = cistern.connect(this, this.#listeners);
    this.store = bug?.store?.(plain, this) ?? plain;
    const { install, idKey } = await this.store.identity();
    this.ids = createIds(idKey);
    oracles.install = install;
    const lanes: LaneOptions[] = [];
    for (const mmsc of mmscs) {
      const { name, onUnknown, reports, concurrency, ratePerSecond, timeoutMs } = mmsc.plan;
      const no = await this.store.lane(name, { onUnknown, reports });
      const carrier = mmsc.client(this);
      const lane = { no, carrier: bug?.carrier?.(carrier) ?? carrier, concurrency, ratePerSecond, timeoutMs };
      lanes.push(bug?.lane?.(lane) ?? lane);
    }
    const { name: smscName, onUnknown, reports, concurrency, ratePerSecond, timeoutMs } = smsc.plan;
    const smsNo = await this.store.lane(smscName, { onUnknown, reports });
    const pace = { concurrency, ratePerSecond, timeoutMs };
    const smsLane: LaneOptions = {
      no: smsNo,
      sms: smsc.smsClient(this),
      ...pace,
    };
    const outbound = web.client(this);
    const node = this.name.split('.')[0] as string;
    const shortener = createShortener('https://s.example', idKey);
    this.dispatch = createDispatch({
      store: this.store,
      env,
      install,
      shortener,
      ids: this.ids,
      node,
      lanes: [...lanes, smsLane],
    });
    this.webhooks = createWebhooks({
      store: this.store,
      outbound,
      env,
      ids: this.ids,
      partUrls: createPartUrls('http://postcard.example', '0'.repeat(32)),
    });
    this.media = createMedia({ store: this.store, outbound, env });
    // The first digit of a number decides its carrier.
    const laneFor = (to: string) => lanes[to.startsWith('385') ? lanes.length - 1 : 0]?.no ?? null;
    const laneForAll = (members: readonly string[]) => {
      const taken = new Set(members.map(laneFor));
      return taken.size === 1 ? ([...taken][0] ?? null) : null;
    };
    // Of a message that an SMS may follow the other carrier is asked, too.
    const alternatives = (to: string, lane: number): number[] =>
      oracles.orders.get(orderIndexOf([to]))?.legs && lane !== smsNo
        ? lanes.map(({ no }) => no).filter((no) => no !== lane)
        : [];
    const routing = { laneFor, laneForAll, smsLaneFor: () => smsNo, alternatives };
    this.bulks = createBulks({ store: this.store, env, ids: this.ids });
    this.send = createSend({
      limits: DEFAULT_LIMITS,
      checkCallout: () => null,
      maxBodyBytes: 8 * 1024 * 1024,
      store: this.store,
      env,
      ids: this.ids,
      routing,
      policy: plainPolicy,
      judge: createLimits({ store: this.store, clock: env.clock }).judge,
      onAccept: () => undefined,
    });
    const give = (response: ServerResponse, answer: Answer): void => (response as unknown as Reply).done(answer);
    this.links = createLinks({
      store: this.store,
      env,
      ids: this.ids,
      idKey,
      exchange: {
        give: (response, answer) => give(response, answer as Answer),
        refuse: (_, response, answer) => give(response, answer),
      },
      addressOf: () => '198.51.100.7',
    });
    this.reads = createReads({
      store: this.store,
      env,
      ids: this.ids,
      logsHours: 48,
    });
    this.dispatch.start();
    this.webhooks.start();
    this.media.start();
    this.ready = true;
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await Promise.all([this.dispatch.stop(30_000), this.webhooks.stop(), this.media.stop()]);
    await this.links.close();
  }

  /** Somebody opens a short link. */
  opens(token: string, { method, userAgent }: Look): Promise<Answer> {
    return new Promise((done) => {
      const request = {
        method,
        headers: { 'user-agent': userAgent },
      } as unknown as IncomingMessage;
      this.links.serve(LINK_PATH + token, request, {
        done,
      } as unknown as ServerResponse);
    });
  }
}

// ------------------------------------------------------------------------------------------------------------ the world

class World {
  readonly plan: Plan;
  readonly bug: Bug | undefined;
  readonly scheduler: Scheduler;
  readonly cistern: Cistern;
  readonly oracles: Oracles;
  readonly #time: StoreTime;
  readonly mmscs: Mmsc[];
  readonly smsc: Mmsc;
  readonly web: Web;
  readonly #orders: Order[];
  /** With those that were cut. */
  readonly #plannedOrders: Order[];
  readonly #looking: Dice;
  readonly #slots: (SimNode | null)[] = [];
  readonly #dice: Dice;
  #starts = 0;
  /** By slot, in a row. */
  readonly #failedStarts: number[] = [];
  #healed = false;
  #stoppedReading = false;
  /** As they were sent first, by order. */
  readonly #bodies = new Map<number, string>();
  /** Looks at short links that are still to come. */
  #looks = 0;
  /** Orders that were sent again after their answer. */
  readonly #doubled = new Set<number>();

  constructor(seed: number, options: SimOptions) {
    this.plan = planOf(seed, options.cuts);
    this.bug = options.bug;
    this.scheduler = new Scheduler(seed, MAX_STEPS);
    this.#dice = new Dice(seed, 'world');
    const orders = ordersOf(this.plan);
    this.plan.moments = orders.map((order) => order.at);
    this.#plannedOrders = orders;
    this.#looking = new Dice(seed, 'looking');
    this.#orders = orders.filter((order) => options.cuts?.only?.has(order.index) ?? true);
    const { scheduler, plan } = this;
    this.#time = new StoreTime(scheduler);
    this.oracles = new Oracles(scheduler, this.#time, plan);
    for (const order of this.#orders) this.oracles.orders.set(order.index, order);
    const watch = this.oracles;
    this.cistern = new Cistern(scheduler, this.#time, plan, options.bug ?? {}, watch);
    watch.db = this.cistern.db;
    watch.bulks.open(this.cistern.db);
    watch.clicks.open(this.cistern.db);
    // Links that were opened before are opened while something is away: a click must outlast that.
    const opened: string[] = [];
    const curious = new Dice(plan.seed, 'curious');
    watch.onTrouble = (ms) => {
      if (this.#healed || ms <= 0 || opened.length === 0) return;
      const token = curious.pick(opened);
      for (const look of looksOf(plan.seed, token, this.#looks)) {
        this.#looks++;
        scheduler.after(curious.between(0, Math.min(ms, MINUTE)), () => void this.#look(token, look, 0));
      }
    };
    watch.clicks.onLed = (token) => void opened.push(token);
    watch.onLink = (token, to, copies) => {
      for (const look of looksOf(plan.seed, to, copies)) {
        this.#looks++;
        scheduler.after(look.afterMs, () => void this.#look(token, look, 0));
      }
    };
    this.mmscs = plan.carriers.map(
      (carrier) => new Mmsc(carrier, scheduler, plan, watch, (report) => this.#deliver(report)),
    );
    this.smsc = new Mmsc(plan.smsc, scheduler, plan, watch, (report) => this.#deliver(report));
    this.web = new Web(scheduler, plan, watch);
  }

  crashed(error: unknown): void {
    if (error instanceof Violation) this.oracles.violation ??= error;
    else this.oracles.fail('nothing throws', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }

  close(): void {
    this.cistern.close();
  }

  result(): SimResult {
    const { scheduler, oracles } = this;
    return {
      seed: this.plan.seed,
      plan: this.plan,
      hash: scheduler.hash,
      violation: oracles.violation,
      messages: oracles.messages,
      submissions: oracles.submissions,
      steps: scheduler.steps,
      skipped: scheduler.skipped,
      hours: scheduler.now / HOUR,
      lines: scheduler.lines,
    };
  }

  async play(): Promise<void> {
    const { scheduler, plan } = this;
    const stop = (): boolean => this.oracles.violation !== null;
    for (let slot = 0; slot < plan.nodes; slot++) this.#launch(slot);
    this.#plot();
    while (scheduler.now < plan.faultyMs && !stop()) {
      await scheduler.run(Math.min(plan.faultyMs, scheduler.now + HOUR), stop);
      this.oracles.watch();
    }
    if (stop()) return;
    this.#heal();
    for (let hour = 0; hour < HEALED_MS / HOUR && !stop(); hour++) {
      await scheduler.run(scheduler.now + HOUR, stop);
      this.oracles.watch();
      if (
        this.mmscs.every((mmsc) => mmsc.pending === 0) &&
        this.smsc.pending === 0 &&
        this.#looks === 0 &&
        this.oracles.idle()
      )
        break;
    }
    if (stop()) return;
    this.oracles.finish();
    await this.#stopAll(stop);
  }

  // --------------------------------------------------------------------------------------------------------- processes

  #launch(slot: number): void {
    const name = `n${slot}.${++this.#starts}`;
    const node = new SimNode(this, name);
    this.#slots[slot] = node;
    this.cistern.open();
    this.oracles.processes(this.#slots.some((one) => one?.ready === true));
    this.scheduler.trace(`${name} starts`);
    node.start().then(
      () => {
        this.#failedStarts[slot] = 0;
        this.oracles.processes(true);
      },
      () => {
        if (node.owner.dead) return;
        // No store at the start: the process ends and its supervisor starts it again, less and less often.
        const failed = this.#failedStarts[slot] ?? 0;
        this.#failedStarts[slot] = failed + 1;
        this.#die(slot, node, Math.min(30, 2 ** failed) * SECOND);
      },
    );
  }

  #die(slot: number, node: SimNode, downMs: number): void {
    if (node.owner.dead) return;
    this.scheduler.trace(`${node.name} dies, back in ${Math.round(downMs)} ms`);
    node.owner.dead = true;
    node.ready = false;
    this.oracles.died(node);
    if (this.plan.nodes === 1) this.cistern.crash();
    else this.cistern.nodeDied();
    this.oracles.processes(this.#slots.some((one) => one?.ready === true));
    this.scheduler.after(downMs, () => this.#launch(slot));
  }

  #alive(): SimNode | null {
    const up = this.#slots.filter((node): node is SimNode => node?.ready === true && !node.stopping);
    return up.length === 0 ? null : this.#dice.pick(up);
  }

  #stopNode(slot: number, node: SimNode, downMs: number): void {
    if (!node.ready || node.stopping) return;
    const { scheduler } = this;
    scheduler.trace(`${node.name} is asked to stop`);
    const began = scheduler.now;
    const slept = node.slept;
    const limit = scheduler.after(STOP_MAX_MS + 10 * MINUTE, () => {
      if (!node.owner.dead) this.oracles.fail('a stop is bounded (G14)', `${node.name} does not stop`);
    });
    void node.stop().then(() => {
      limit.cancel();
      const tookMs = scheduler.now - began - (node.slept - slept);
      if (tookMs > STOP_MAX_MS) {
        this.oracles.fail('a stop is bounded (G14)', `${node.name} took ${Math.round(tookMs)} ms to stop`);
      }
      this.#die(slot, node, downMs);
    });
  }

  async #stopAll(stop: () => boolean): Promise<void> {
    const { scheduler } = this;
    const began = scheduler.now;
    const nodes = this.#slots.filter((node): node is SimNode => node?.ready === true);
    this.#stoppedReading = true;
    let stopped = 0;
    for (const node of nodes) void node.stop().then(() => stopped++);
    await scheduler.run(began + STOP_MAX_MS, () => stop() || stopped === nodes.length);
    if (stop()) return;
    if (stopped < nodes.length) this.oracles.fail('a stop is bounded (G14)', 'an idle process does not stop');
    for (const node of nodes) {
      if (node.open + node.calls > 0) this.oracles.fail('nothing is left open', `${node.name} has calls open`);
      const timers = scheduler.waiting(node.owner);
      if (timers > 0) this.oracles.fail('nothing is left open', `${node.name} stopped with ${timers} timers`);
    }
  }

  // ------------------------------------------------------------------------------------------------------------ faults

  #plot(): void {
    const { scheduler, plan } = this;
    const { kill, stop, pause } = plan.faults;
    const strike = (name: string, strength: number, most: number, how: (slot: number, dice: Dice) => void): void => {
      if (strength === 0) return;
      const dice = new Dice(plan.seed, name);
      for (let n = dice.int(1, 1 + Math.round(most * strength)); n > 0; n--) {
        const slot = dice.int(0, plan.nodes - 1);
        scheduler.at(momentOf(plan, dice), () => {
          if (!this.#healed) how(slot, dice);
        });
      }
    };
    strike('kill', kill, 8, (slot, dice) => {
      const node = this.#slots[slot];
      if (node) this.#die(slot, node, dice.chance(0.1) ? dice.between(1, 30) * MINUTE : dice.delay(5 * SECOND, MINUTE));
    });
    strike('stop', stop, 5, (slot, dice) => {
      const node = this.#slots[slot];
      const downMs = dice.delay(5 * SECOND, MINUTE);
      // A signal is seen when the process is awake.
      if (node) scheduler.after(0, () => this.#stopNode(slot, node, downMs), node.owner);
    });
    strike('pause', pause, 12, (slot, dice) => {
      const node = this.#slots[slot];
      const ms = dice.chance(0.3) ? dice.between(1, 10) * MINUTE : dice.between(0.5, 40) * SECOND;
      if (node) this.#suspend(node, ms);
    });
    this.#plotJumps();
    // Half of them strike where a process has something in its hands.
    const ambush = new Dice(plan.seed, 'ambush');
    const left = { kill: Math.round(8 * kill), pause: Math.round(8 * pause) };
    this.oracles.onMoment = (caller) => {
      const slot = this.#slots.indexOf(caller as SimNode);
      const node = this.#slots[slot];
      if (this.#healed || !node || node.owner.dead) return;
      if (left.kill > 0 && ambush.chance(0.03)) {
        left.kill--;
        const ms = ambush.chance(0.7) ? ambush.delay(20, 1000) : ambush.delay(3000, 20_000);
        scheduler.after(ms, () => this.#die(slot, node, ambush.delay(5 * SECOND, MINUTE)));
      } else if (left.pause > 0 && ambush.chance(0.04)) {
        left.pause--;
        const ms = ambush.chance(0.5) ? 0 : ambush.delay(100, 5000);
        const { timeoutMs } = ambush.pick(plan.carriers);
        // To wake up when others have just taken over what it had.
        const overslept = timeoutMs + ambush.between(15, 22) * SECOND;
        const forMs = ambush.chance(0.5) ? overslept : ambush.between(1, 150) * SECOND;
        scheduler.after(ms, () => this.#suspend(node, forMs));
      }
    };
    // And where a turn is lost that will not come again soon.
    const stall = new Dice(plan.seed, 'stall');
    let stalls = Math.round(8 * pause);
    this.oracles.onTurn = (asker) => {
      const node = this.#slots.find((one) => one === (asker as unknown));
      if (this.#healed || !node || stalls === 0 || !stall.chance(0.2)) return;
      stalls--;
      this.#suspend(node, stall.between(0.3, 5) * SECOND);
    };
    for (const order of this.#orders) scheduler.at(order.at, () => void this.#place(order, 0));
    const waiting = new Set<Steering>();
    for (const steering of steeringsOf(plan, this.#plannedOrders)) {
      scheduler.at(steering.at, () => {
        if (this.#healed) return;
        if (steering.ambush > 0) waiting.add(steering);
        else void this.#steer(steering, 0);
      });
    }
    const hurry = new Dice(plan.seed, 'hurry');
    this.oracles.onLeft = ({ account, id, order }, times) => {
      for (const steering of waiting) {
        const { bulk } = steering;
        if (times < steering.ambush) continue;
        if (steering.account !== account || ('id' in bulk ? bulk.id !== id : bulk.order !== order)) continue;
        waiting.delete(steering);
        if (this.#healed) continue;
        scheduler.after(hurry.delay(5, SECOND), () => void this.#steer(steering, 0));
      }
    };
    for (let account = 1; account <= plan.accounts; account++) this.#pullLater(account);
  }

  /** Somebody sets the clock of the store's machine. */
  #plotJumps(): void {
    const { scheduler, plan, cistern } = this;
    const { clockJump } = plan.faults;
    if (clockJump === 0) return;
    const dice = new Dice(plan.seed, 'jumps');
    const set = (ms: number): void => {
      if (this.#healed) return;
      if (cistern.jump(ms)) scheduler.trace(`the clock of the store is set by ${ms} ms`);
      else scheduler.after(5 * SECOND, () => set(ms));
    };
    for (let n = dice.int(1, 1 + Math.round(4 * clockJump)); n > 0; n--) {
      const small = dice.between(1, 120) * SECOND;
      const ms = dice.chance(0.5) ? small : dice.between(2, 180 * clockJump) * MINUTE;
      const back = dice.chance(0.5);
      scheduler.at(momentOf(plan, dice), () => set(Math.round(back ? -Math.min(ms, 10 * MINUTE) : ms)));
    }
  }

  #suspend(node: SimNode, ms: number): void {
    const { scheduler } = this;
    if (node.owner.dead || node.owner.pausedUntil > scheduler.now) return;
    scheduler.trace(`${node.name} stands still for ${Math.round(ms)} ms`);
    node.owner.pausedUntil = scheduler.now + ms;
    node.slept += ms;
    this.oracles.down(scheduler.now, scheduler.now + ms);
  }

  #heal(): void {
    this.#healed = true;
    this.scheduler.trace('all is well again');
    this.cistern.heal();
    this.web.heal();
    for (const mmsc of [...this.mmscs, this.smsc]) mmsc.heal();
    this.oracles.heal();
    // Behind what is still on its way.
    this.scheduler.after(MINUTE, () => {
      const changes: BulkChange[] = [{ kind: 'resume' }];
      for (const { account, order, id, pausedAt } of this.oracles.bulks.all) {
        if (pausedAt !== null) {
          void this.#steer({ at: 0, account, bulk: id === null ? { order } : { id }, changes, ambush: 0 }, 0);
        }
      }
    });
  }

  // --------------------------------------------------------------------------------------------------------- customers

  /** The value, or null when it was refused, did not come in time, or whoever promised it is dead. */
  #within<Value>(ms: number, promise: Promise<Value>): Promise<Value | null> {
    return new Promise((resolve) => {
      const timer = this.scheduler.after(ms, () => resolve(null));
      promise.then(
        (value) => {
          timer.cancel();
          resolve(value);
        },
        (error: unknown) => {
          timer.cancel();
          if (!(error instanceof StoreUnavailable)) this.crashed(error);
          resolve(null);
        },
      );
    });
  }

  async #place(order: Order, tries: number): Promise<void> {
    const { scheduler, oracles } = this;
    const node = this.#alive();
    const later = (): void => {
      const dice = new Dice(this.plan.seed, 'again', order.index, tries);
      scheduler.after(dice.between(2, 300) * SECOND, () => void this.#place(order, tries + 1));
    };
    // Nobody there: nothing has been sent.
    if (!node || node.owner.pausedUntil > scheduler.now) return later();
    for (const { id, text } of order.uploads) {
      const hash = createHash('sha256').update(text).digest('hex');
      const upload = { account: order.account, id, name: `${id}.txt`, hash, contentType: 'text/plain' };
      const put = node.store
        .putContent(hash, Buffer.from(text))
        .then(() => node.store.putUpload({ ...upload, size: text.length, validityMs: 96 * HOUR }));
      if ((await this.#within(CLIENT_PATIENCE_MS, put)) === null && !(await this.#uploaded(order.account, id))) {
        return later();
      }
    }
    if (node.owner.dead) return later();
    scheduler.trace(`order ${order.index} sent to ${node.name}`);
    const head: SendHead = { account: order.account, key: order.idem };
    const answer = await this.#within(CLIENT_PATIENCE_MS, node.send.body(head, Buffer.from(this.#bodyOf(order, node))));
    if (answer === null) {
      scheduler.trace(`order ${order.index} has no answer`);
      if (order.repeatable) later();
      return;
    }
    oracles.answered(order, answer, node.ids);
    if (order.twiceMs > 0 && !this.#doubled.has(order.index)) {
      this.#doubled.add(order.index);
      scheduler.after(order.twiceMs, () => void this.#place(order, tries + 1));
    }
  }

  /** With the generated bulkId that it joins. Who repeats a request sends the same. */
  #bodyOf(order: Order, node: SimNode): string {
    const known = this.#bodies.get(order.index);
    if (known !== undefined) return known;
    const no = order.joins === null ? null : this.oracles.bulks.ofOrder(order.joins);
    let { body } = order;
    if (no !== null) {
      const request = JSON.parse(body) as { options?: { schedule?: object } };
      const schedule = { ...request.options?.schedule, bulkId: node.ids.print('bulk', no) };
      body = JSON.stringify({ ...request, options: { ...request.options, schedule } });
    }
    this.#bodies.set(order.index, body);
    return body;
  }

  #uploaded(account: number, id: string): boolean {
    return this.cistern.db.prepare('SELECT 1 FROM upload WHERE account = ? AND id = ?').get(account, id) !== undefined;
  }

  async #steer(steering: Steering, tries: number): Promise<void> {
    const { account, bulk, changes } = steering;
    const generated = 'order' in bulk ? this.oracles.bulks.ofOrder(bulk.order) : null;
    const name = 'id' in bulk ? bulk : generated === null ? null : { no: generated };
    const node = this.#alive();
    const done =
      node && name ? await this.#within(PEER_PATIENCE_MS, this.#change(node, account, name, steering, tries)) : null;
    // After phase 1 nobody pauses any more; and who has had no answer to a request asks for its bulk a few times.
    if (done !== null || (this.#healed && changes[0]?.kind !== 'resume')) return;
    if (name === null && tries > 5) return;
    this.scheduler.after((name ? 5 : 60) * SECOND, () => void this.#steer(steering, tries + 1));
  }

  /** Half of the changes that fit into one request go through the door. */
  async #change(
    node: SimNode,
    account: number,
    name: BulkName,
    { at, changes }: Steering,
    tries: number,
  ): Promise<unknown> {
    const request = requestOf(changes);
    if (request === null || new Dice(this.plan.seed, 'door', Math.floor(at), tries).chance(0.5)) {
      return node.store.bulkSteer(account, name, changes);
    }
    const bulkId = 'id' in name ? name.id : node.ids.print('bulk', name.no);
    const intake = request.status ? node.bulks.putStatus({ bulkId }) : node.bulks.put({ bulkId });
    const answer = await intake.body({ account, bulkId }, Buffer.from(JSON.stringify(request.body)));
    this.oracles.steered(bulkId, request.body, answer);
    return answer;
  }

  #pullLater(account: number): void {
    const dice = this.#dice;
    const ms = this.#healed ? dice.between(60, 120) * MINUTE : dice.between(10, 60) * MINUTE;
    this.scheduler.after(ms, () => {
      void this.#pull(account).finally(() => {
        if (!this.#stoppedReading) this.#pullLater(account);
      });
    });
  }

  async #pull(account: number): Promise<void> {
    const node = this.#alive();
    if (!node) return;
    const answer = await this.#within(CLIENT_PATIENCE_MS, node.reads.reports(account, { limit: '1000' }));
    if (answer !== null) this.oracles.pulled(account, answer, node.ids);
    for (const bulk of this.oracles.bulks.all) {
      if (bulk.account !== account || !this.#looking.chance(0.2)) continue;
      const seen = await this.#within(
        PEER_PATIENCE_MS,
        node.store.bulkGet(account, bulk.id === null ? { no: bulk.no } : { id: bulk.id }),
      );
      if (seen) this.oracles.bulkSeen(seen);
    }
    if (!this.#dice.chance(0.3)) return;
    const page = await this.#within(CLIENT_PATIENCE_MS, node.reads.logs(account, { limit: '200' }));
    if (page !== null) this.oracles.logsRead(account, page, node.ids);
  }

  // ------------------------------------------------------------------------------------------------------------ handsets

  /** Somebody opens a link: tries again when nobody answers, and gives it up after a few times. */
  async #look(token: string, look: Look, tries: number): Promise<void> {
    const { scheduler, oracles } = this;
    const node = this.#alive();
    if (node && node.owner.pausedUntil <= scheduler.now) {
      oracles.clicks.asked(token);
      scheduler.trace(`link ${token} opened at ${node.name}`);
      const answer = await this.#within(PEER_PATIENCE_MS, node.opens(token, look));
      if (answer !== null && answer.status !== 503) {
        oracles.clicks.led(token, answer.status, answer.headers.location ?? null, node.owner);
        this.#looks--;
        return;
      }
    }
    if (tries >= 5) this.#looks--;
    else scheduler.after(10 * SECOND * (tries + 1), () => void this.#look(token, look, tries + 1));
  }

  // ------------------------------------------------------------------------------------------------------------ carriers

  /** A carrier's report to one of our listeners; false = it got no 200. */
  async #deliver(report: CarrierReport): Promise<boolean> {
    const node = this.#alive();
    if (!node || node.owner.pausedUntil > this.scheduler.now) return false;
    return (await this.#within(PEER_PATIENCE_MS, node.store.report(report))) !== null;
  }
}

/** The PUT that asks for these changes; null = it takes several. */
function requestOf(changes: readonly BulkChange[]): { status: boolean; body: Record<string, unknown> } | null {
  const body: Record<string, unknown> = {};
  for (const change of changes) {
    switch (change.kind) {
      case 'reschedule':
        body.sendAt = formatInstant(change.sendAt);
        break;
      case 'limit':
        body.sendingSpeedLimit = change.speed;
        break;
      default: {
        const status = { pause: 'PAUSED', resume: 'PROCESSING', cancel: 'CANCELED' }[change.kind];
        return changes.length === 1 ? { status: true, body: { status } } : null;
      }
    }
  }
  return { status: false, body };
}
