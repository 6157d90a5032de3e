/**
 * The customers: what they send, when, and how they behave when an answer does not come. Each request is a function of the
 * seed and its index alone, so a run with fewer requests still makes the same ones.
 *
 * Promises: a request is repeated only where repeating is safe for the customer (an Idempotency-Key, or an own id on every
 * destination); every destination number is used once in a run, so a handset tells which request its copies belong to.
 */
import type { SpeedLimit } from '../../src/domain/message.ts';
import { formatInstant } from '../../src/domain/schedule.ts';
import type { BulkChange } from '../../src/store/contract.ts';
import { Dice, HOUR, MINUTE, SECOND, START } from './clockwork.ts';
import type { Plan } from './plan.ts';

/** One request of a customer. */
export interface Order {
  index: number;
  account: number;
  /** Virtual ms. */
  at: number;
  idem: string | null;
  /** May be repeated after an answer that did not come. */
  repeatable: boolean;
  /** Sent once more so many ms after its answer, though there was one; 0 = not. */
  twiceMs: number;
  body: string;
  /** Contents to upload before. */
  uploads: { id: string; text: string }[];
  /** The customer's name of its bulk, null = none. */
  bulkId: string | null;
  /** The order whose generated bulkId it uses, where that is known when it is sent; null = none. */
  joins: number | null;
  /** Epoch ms. */
  sendAt: number | null;
  limit: { amount: number; unitMs: number } | null;
  /** Its links are shortened; `host` null = nobody is told of clicks, `clicks` false = they are not counted either. */
  tracking: { host: string | null; clicks: boolean } | null;
  /** Where the link in a destination's text leads, by the last 7 digits of the destination. */
  pages: ReadonlyMap<string, string>;
  /** An SMS follows where the MMS fails, and a second carrier may be asked; nothing steers or paces these. */
  legs: boolean;
}

/** The index of the order that numbers of destinations belong to. */
export function orderIndexOf(to: readonly string[]): number {
  for (const one of to) {
    // Those refused at the door stand as they were written.
    const digits = /^(?:\+|00)?(?:441|385)(\d{4})\d{3}$/.exec(one)?.[1] ?? /^0(\d{4})\d{3}$/.exec(one)?.[1];
    if (digits !== undefined) return Number(digits);
  }
  return -1;
}

const DAYS = ['MONDAY', 'TUESDAY', 'WEDNESDAY', 'THURSDAY', 'FRIDAY', 'SATURDAY', 'SUNDAY'];

/** The requests of a run, by index. */
export function ordersOf(plan: Plan): Order[] {
  const orders = Array.from({ length: plan.requests }, (_, index) => orderOf(plan, index));
  const dice = new Dice(plan.seed, 'joins');
  for (const order of orders) {
    const joins = dice.chance(0.2);
    const place = dice.float();
    const others = orders.filter(
      ({ account, bulkId, at }) => account === order.account && bulkId === null && at < order.at,
    );
    if (!joins || order.bulkId !== null || order.legs) continue;
    const joined = others[Math.floor(place * others.length)];
    if (joined?.legs === false) order.joins = joined.index;
  }
  return orders;
}

export function hostOf(account: number, n: number): string {
  return `a${account}-${n}.example`;
}

function orderOf(plan: Plan, index: number): Order {
  const dice = new Dice(plan.seed, 'order', index);
  const account = dice.int(1, plan.accounts);
  const at = dice.float() * plan.faultyMs * 0.9;
  const idem = dice.chance(0.4) ? `idem-${index}` : null;
  const keyed = dice.chance(idem === null ? 0.5 : 0.2);
  const uploads: Order['uploads'] = [];
  let count = 0;
  const destination = (allowBad: boolean): object => {
    const n = count++;
    // 7 digits of index and n behind a country code; some are no numbers at all.
    const digits = `${String(index).padStart(4, '0')}${String(n).padStart(3, '0')}`;
    const to =
      allowBad && dice.chance(0.04)
        ? `0${digits}`
        : dice.pick(['+', '00', '']) + (dice.chance(0.5) ? '441' : '385') + digits;
    return keyed && !dice.chance(idem === null ? 0 : 0.3) ? { to, messageId: `k-${index}-${n}` } : { to };
  };
  const messages = Array.from({ length: dice.chance(0.8) ? 1 : dice.int(2, 3) }, () => {
    const destinations: object[] = [];
    const size = dice.chance(0.5) ? 1 : dice.int(2, dice.chance(0.2) ? 25 : 8);
    for (let n = 0; n < size; n++) {
      if (dice.chance(0.12))
        destinations.push({ group: Array.from({ length: dice.int(1, 4) }, () => destination(false)) });
      else destinations.push(destination(true));
    }
    const segments: object[] = [{ type: 'TEXT', text: `hello ${index}` }];
    if (dice.chance(0.12)) {
      const id = `up-${index}-${uploads.length}`;
      uploads.push({ id, text: `picture of ${id}` });
      segments.push({ type: 'UPLOADED_REFERENCE', uploadedContentId: id });
    }
    if (dice.chance(0.12)) {
      const dir = dice.chance(0.2) ? 'gone' : 'kept';
      segments.push({ type: 'LINK', contentUrl: `http://media${dice.int(0, 2)}.example/${dir}/${index}` });
    }
    const options: Record<string, unknown> = {};
    if (dice.chance(0.5)) {
      options.validityPeriod = dice.chance(0.3)
        ? { amount: dice.int(20, 600), timeUnit: 'SECONDS' }
        : { amount: dice.int(5, 600) };
    }
    if (dice.chance(0.25)) options.deliveryTimeWindow = windowOf(dice, at);
    const webhooks: Record<string, unknown> = {};
    if (dice.chance(0.7)) {
      const delivery: Record<string, unknown> = {};
      if (dice.chance(0.85)) delivery.url = `http://${hostOf(account, dice.int(0, 1))}/reports`;
      if (dice.chance(0.4)) delivery.intermediateReport = true;
      if (dice.chance(0.15)) delivery.notify = false;
      webhooks.delivery = delivery;
      if (dice.chance(0.2)) webhooks.contentType = 'application/xml';
      if (dice.chance(0.3)) webhooks.callbackData = `data ${index}`;
    }
    return {
      sender: dice.chance(0.97) ? 'Shop' : '!',
      destinations,
      content: { messageSegments: segments },
      ...(Object.keys(options).length > 0 ? { options } : {}),
      ...(Object.keys(webhooks).length > 0 ? { webhooks } : {}),
    };
  });
  const schedule: Record<string, unknown> = {};
  let bulkId: string | null = null;
  if (dice.chance(0.35)) {
    bulkId = `bulk-${dice.int(0, 2)}`;
    schedule.bulkId = bulkId;
  }
  let sendAt: number | null = null;
  if (dice.chance(0.25)) {
    sendAt = START + Math.floor(at + dice.between(-0.5, 12) * HOUR);
    schedule.sendAt = formatInstant(sendAt);
  }
  let limit: Order['limit'] = null;
  if (dice.chance(0.25)) {
    // So that all of it fits into some hours.
    limit = dice.chance(0.7) ? { amount: dice.int(1, 30), unitMs: MINUTE } : { amount: dice.int(20, 90), unitMs: HOUR };
    const unit = limit.unitMs === HOUR ? { timeUnit: 'HOUR' } : {};
    schedule.sendingSpeedLimit = { amount: limit.amount, ...unit };
  }
  const request: Parameters<typeof track>[3] = {
    messages,
    ...(Object.keys(schedule).length > 0 ? { options: { schedule } } : {}),
  };
  const legs = follow(plan, index, request);
  const { tracking, pages } = track(plan, index, account, request);
  const body = JSON.stringify(request);
  const keys = (body.match(/"messageId"/g) ?? []).length;
  const repeatable = idem !== null || keys === count;
  const twiceMs = repeatable && dice.chance(0.15) ? dice.delay(MINUTE, 2 * HOUR) : 0;
  return {
    index,
    account,
    at,
    idem,
    repeatable,
    twiceMs,
    body,
    uploads,
    bulkId,
    joins: null,
    sendAt,
    limit,
    tracking,
    pages,
    legs,
  };
}

/** Some plain requests ask for an SMS failover. Drawn from a stream of its own. */
function follow(
  plan: Plan,
  index: number,
  request: { messages: { destinations: object[]; options?: Record<string, unknown> }[]; options?: object },
): boolean {
  const dice = new Dice(plan.seed, 'legs', index);
  if (!dice.chance(0.5) || request.options || JSON.stringify(request).includes('"group"')) return false;
  for (const message of request.messages) {
    const validityPeriod = { amount: dice.int(5, 120) };
    message.options = { ...message.options, smsFailover: { text: `sms ${index}`, validityPeriod } };
  }
  return true;
}

type Tracked = Pick<Order, 'tracking' | 'pages'>;

/** Some requests have links in their texts, and ask for clicks. Drawn from a stream of its own. */
function track(
  plan: Plan,
  index: number,
  account: number,
  request: {
    messages: {
      destinations: object[];
      content: { messageSegments: object[] };
    }[];
    options?: Record<string, unknown>;
  },
): Tracked {
  const dice = new Dice(plan.seed, 'tracking', index);
  const pages = new Map<string, string>();
  if (!dice.chance(0.3)) return { tracking: null, pages };
  const host = dice.chance(0.85) ? hostOf(account, dice.int(0, 1)) : null;
  const clicks = dice.chance(0.9);
  request.messages.forEach(({ destinations, content }, n) => {
    const page = `https://shop.example/${index}/${n}`;
    content.messageSegments[0] = {
      type: 'TEXT',
      text: `hello ${index}, see ${page}`,
    };
    for (const [, digits] of JSON.stringify(destinations).matchAll(/"to":"[^"]*?(\d{7})"/g)) {
      pages.set(digits as string, page);
    }
  });
  const trackingUrl = host === null ? {} : { trackingUrl: `http://${host}/clicks` };
  request.options = {
    ...request.options,
    tracking: { ...trackingUrl, ...(clicks ? {} : { trackClicks: false }) },
  };
  return { tracking: { host, clicks }, pages };
}

/** A window that is open within a day of `at`. */
function windowOf(dice: Dice, at: number): object {
  const day = Math.floor(at / (24 * HOUR));
  const days = [DAYS[day % 7], DAYS[(day + 1) % 7], ...(dice.chance(0.5) ? [DAYS[(day + 2) % 7]] : [])];
  if (dice.chance(0.2)) return { days };
  const length = dice.int(60, 300);
  // Half of them close soon after the request.
  const minute = Math.floor((at % (24 * HOUR)) / MINUTE);
  const from = dice.chance(0.5) ? dice.int(0, 1439) : (minute + dice.int(1, 40) - length + 1440) % 1440;
  const to = (from + length) % 1440;
  return {
    days,
    from: { hour: Math.floor(from / 60), minute: from % 60 },
    to: { hour: Math.floor(to / 60), minute: to % 60 },
  };
}

/** What a customer asks of a bulk at one moment. */
export interface Steering {
  at: number;
  account: number;
  /** By the customer's own id, or the one that the answer to an order gave. */
  bulk: { id: string } | { order: number };
  changes: BulkChange[];
  /** Not 0: asked when a message of the bulk is with its carrier for (at least) so many times, after `at`. */
  ambush: number;
}

/** What customers steer in phase 1; what they paused is resumed at its end. */
export function steeringsOf(plan: Plan, orders: readonly Order[]): Steering[] {
  const dice = new Dice(plan.seed, 'steering');
  const all: Steering[] = [];
  if (dice.chance(0.4)) return all;
  for (let account = 1; account <= plan.accounts; account++) {
    for (let n = 0; n < 3; n++) {
      const bulk = { id: `bulk-${n}` };
      const own = orders.filter((order) => order.account === account && order.bulkId === bulk.id);
      for (let turns = dice.int(0, 3); turns > 0; turns--) {
        const near = own.length > 0 && dice.chance(0.7) ? dice.pick(own).at : dice.float() * plan.faultyMs;
        steer(dice, near + soon(dice), account, bulk, all);
      }
    }
  }
  for (const order of orders) {
    if (order.bulkId !== null || !dice.chance(0.2)) continue;
    steer(dice, order.at + soon(dice), order.account, { order: order.index }, all);
  }
  const plain = ({ bulk }: Steering): boolean => !('order' in bulk) || orders[bulk.order]?.legs === false;
  return all.filter((one) => one.at < plan.faultyMs && plain(one));
}

/** After a request: while its messages are with a carrier, or when they have come back. */
function soon(dice: Dice): number {
  return dice.chance(0.3) ? dice.between(0.1, 20) * SECOND : dice.delay(5 * MINUTE, HOUR);
}

/** One turn of a customer: what belongs together, minutes apart. */
function steer(dice: Dice, from: number, account: number, bulk: Steering['bulk'], all: Steering[]): void {
  let at = from;
  let ambush = dice.chance(0.4) ? dice.pick([1, 2, 2]) : 0;
  const what = ambush > 0 && dice.chance(0.4) ? 1 : dice.float();
  if (ambush > 0) at -= dice.delay(MINUTE, HOUR);
  const ask = (...changes: BulkChange[]): void => {
    all.push({ at: Math.max(0, at), account, bulk, changes, ambush });
    if (ambush > 0) at = from;
    ambush = 0;
    // Some in a hurry, some much later.
    at += dice.chance(0.3) ? dice.between(0, 10) * SECOND : dice.delay(20 * MINUTE, 3 * HOUR);
  };
  const move = (): BulkChange => {
    const ahead = dice.chance(0.3) ? dice.between(-10, 10) * MINUTE : dice.between(-0.5, 4) * HOUR;
    return { kind: 'reschedule', sendAt: START + Math.floor(at + ahead) };
  };
  const limit = (): BulkChange => ({ kind: 'limit', speed: speedOf(dice) });
  if (dice.chance(0.15)) {
    // Put off and called back, if possible while some of it is tried again.
    if (ambush === 0 && dice.chance(0.6)) ambush = 2;
    const off = START + Math.floor(at + dice.between(2, 4) * HOUR);
    ask({ kind: 'pause' }, { kind: 'reschedule', sendAt: off }, { kind: 'resume' });
    ask({ kind: 'reschedule', sendAt: START + Math.floor(at + dice.between(-5, 5) * MINUTE) });
  } else if (what < 0.17) {
    ask({ kind: 'pause' });
    ask({ kind: 'resume' });
  } else if (what < 0.44) {
    ask({ kind: 'pause' });
    for (let n = dice.int(1, 2); n > 0; n--) ask(move());
    ask({ kind: 'resume' });
  } else if (what < 0.54) {
    ask({ kind: 'pause' }, move(), limit());
    ask({ kind: 'resume' });
  } else if (what < 0.62) {
    ask(move());
  } else if (what < 0.8) {
    for (let n = dice.int(1, 4); n > 0; n--) ask(limit());
  } else {
    if (ambush === 0 && dice.chance(0.7)) ask({ kind: 'pause' });
    ask({ kind: 'cancel' });
  }
}

function speedOf(dice: Dice): SpeedLimit {
  if (dice.chance(0.3)) return { amount: dice.int(20, 90), timeUnit: 'HOUR' };
  return { amount: dice.chance(0.6) ? dice.int(1, 10) : dice.int(30, 600) };
}
