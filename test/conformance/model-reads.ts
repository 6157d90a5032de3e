/**
 * The model's reads: every one looks at all rows and keeps what the question names. Newest first by number unless said.
 */
import { STATUSES } from '../../src/domain/codes.ts';
import type { EventRow, MessageRow, SpecRow } from '../../src/domain/rows.ts';
import { nextOpening } from '../../src/domain/schedule.ts';
import { STATE } from '../../src/domain/status.ts';
import { transactionId } from '../../src/domain/submission.ts';
import {
  ANSWERS_SHOWN,
  type BulkName,
  type Gate,
  type MessageFilter,
  type Page,
  type Progress,
  type Bulk as StandingBulk,
  type Stats,
  type Story,
} from '../../src/store/contract.ts';
import { answerOf } from '../../src/store/inbound.ts';
import { PLAIN_BULK, statusOf } from '../../src/store/steering.ts';
import { type Unfetched, whyWaiting } from '../../src/store/waiting.ts';
import { eventRow } from './model-events.ts';
import type { Queue } from './model-queue.ts';
import type { Bulk, Event, Message, Run, Spec, World } from './model-world.ts';

export function messageRow(world: World, message: Message): MessageRow {
  const { no, key, spec, to, state, status, error, sentAt, doneAt } = message;
  return {
    no,
    key,
    bulk: spec.bulk,
    bulkId: world.bulks.get(spec.bulk)?.id ?? null,
    spec: spec.no,
    to,
    state,
    status,
    error,
    acceptedAt: spec.acceptedAt,
    sentAt,
    doneAt,
    claimed: message.submission?.stage === 'flying',
    leg: message.leg,
  };
}

/** What holds a run back, for a story. */
function gateOf(run: Run, bulk: Bulk | null): Gate {
  const moved = bulk !== null && bulk.sendAt !== null && bulk.moves > run.moves ? bulk.sendAt : null;
  const wanted = moved ?? Math.max(run.acceptedAt, run.sendAt ?? run.acceptedAt);
  return {
    opensAt: nextOpening(run.window, wanted),
    sendAt: bulk?.sendAt ?? null,
    window: run.window,
    paced: bulk !== null && bulk.intervalUs > 0,
    canceled: bulk !== null && bulk.canceledAt !== null,
  };
}

/** Specs by number, each once, with the media that are there. */
export function specRows(world: World, nos: number[]): SpecRow[] {
  return [...new Set(nos)].flatMap((no) => {
    const spec = world.specs.get(no);
    if (!spec) return [];
    const media = spec.media.flatMap(({ segment, hash, contentType, name }) =>
      hash === null
        ? []
        : [{ segment, hash, contentType: contentType ?? 'application/octet-stream', name: name ?? '' }],
    );
    const { account, sender, body, acceptedAt } = spec;
    return [{ no, account, sender, body, acceptedAt, media: media.sort((a, b) => a.segment - b.segment) }];
  });
}

/** Whether a filter names this message; `status` = that which counts. */
function matches(world: World, filter: MessageFilter, message: Message, status: number): boolean {
  const { spec, key, no } = message;
  const bulk = world.bulks.get(spec.bulk);
  const at = message.sentAt ?? spec.acceptedAt;
  const group = Object.values(STATUSES).find((one) => one.id === status)?.groupName;
  return (
    message.account === filter.account &&
    (filter.bulks === undefined ||
      filter.bulks.nos.includes(spec.bulk) ||
      (bulk?.id != null && filter.bulks.ids.includes(bulk.id))) &&
    // A customer's own id replaces the number.
    (filter.messages === undefined ||
      (key === null ? filter.messages.nos.includes(no) : filter.messages.keys.includes(key))) &&
    (filter.sender === undefined || spec.sender === filter.sender) &&
    (filter.entity === undefined || spec.entity === filter.entity) &&
    (filter.application === undefined || spec.application === filter.application) &&
    (filter.campaigns === undefined || (spec.campaign !== null && filter.campaigns.includes(spec.campaign))) &&
    (filter.destination === undefined || message.to === filter.destination) &&
    (filter.generalStatus === undefined || group === filter.generalStatus) &&
    (filter.since === undefined || at >= filter.since) &&
    (filter.until === undefined || at <= filter.until)
  );
}

/** The first of a spec's links whose last fetch failed. */
function unfetchedOf(spec: Spec): Unfetched | undefined {
  const failed = spec.media
    .filter(({ hash, due, words }) => hash === null && due !== null && words !== null)
    .sort((a, b) => a.segment - b.segment)[0];
  if (!failed) return undefined;
  const { segment, tries, words, due } = failed;
  return { segment, tries, words: words as string, due: due as number };
}

export function createReads(world: World, queue: Queue, install: string) {
  function figures(bulk: number): Progress {
    const states = [...world.messages.values()].filter((one) => one.spec.bulk === bulk).map((one) => one.state);
    const count = (...of: number[]): number => states.filter((state) => of.includes(state)).length;
    return {
      accepted: states.length,
      waiting: count(STATE.pending),
      sent: count(STATE.submitted, STATE.uncertain),
      delivered: count(STATE.delivered),
      failed: count(STATE.undeliverable, STATE.expired, STATE.rejected),
    };
  }

  /** A bulk that a name means; one without a row stands as its first request made it. */
  function find(account: number, name: BulkName): Bulk | null {
    const own = world.bulkNamed(account, name);
    if (own || !('no' in name)) return own;
    const first = [...world.specs.values()].find((spec) => spec.bulk === name.no);
    if (first?.account !== account) return null;
    return { ...PLAIN_BULK, no: name.no, account, id: null, acceptedAt: first.acceptedAt };
  }

  function standing(bulk: Bulk, progress = figures(bulk.no)): StandingBulk {
    const { no, id, acceptedAt, sendAt, speed } = bulk;
    const status = statusOf(bulk, progress, world.now);
    return { no, id, acceptedAt, sendAt: sendAt ?? acceptedAt, speed, status, progress };
  }

  return {
    figures,
    find,
    standing,
    logs(filter: MessageFilter): Page<MessageRow> {
      const all = [...world.messages.values()]
        .filter((one) => one.no < (filter.before ?? Number.POSITIVE_INFINITY))
        .filter((one) => matches(world, filter, one, one.status))
        .sort((a, b) => b.no - a.no);
      const rows = all.slice(0, filter.limit).map((one) => messageRow(world, one));
      const next = all.length > rows.length ? (rows.at(-1)?.no ?? null) : null;
      return {
        rows,
        specs: specRows(
          world,
          rows.map((row) => row.spec),
        ),
        next,
      };
    },

    takeReports(filter: MessageFilter): Page<EventRow> {
      // Those of one instant in any order.
      const rank = ({ message }: Event): number => Math.min(world.rank(message?.no ?? 0), Number.MAX_SAFE_INTEGER);
      const taken = world.pulls
        .filter(({ until, event: { message, status } }) => {
          return until > world.now && message !== null && matches(world, filter, message, status);
        })
        .sort(({ event: a }, { event: b }) => b.at - a.at || rank(a) - rank(b) || b.no - a.no)
        .slice(0, filter.limit);
      world.pulls = world.pulls.filter((pull) => !taken.includes(pull));
      world.taken.push(...taken.map((pull) => ({ ...pull, at: world.now })));
      const rows = taken.map(({ event }) => eventRow(world, event)).sort((a, b) => b.event - a.event);
      return {
        rows,
        specs: specRows(
          world,
          rows.map((row) => row.spec),
        ),
        next: null,
      };
    },

    story(account: number, id: { no: number } | { key: string }): Story | null {
      const message = [...world.messages.values()].find(
        (one) => one.account === account && ('no' in id ? one.no === id.no && one.key === null : one.key === id.key),
      );
      if (!message) return null;
      const { submission } = message;
      const row = messageRow(world, message);
      const events = world.events.filter((event) => event.message === message);
      const bulk = submission && world.bulkOf(submission.run);
      return {
        message: row,
        spec: specRows(world, [message.spec.no])[0] as SpecRow,
        attempts: [message.first, submission === message.first ? null : submission].flatMap((one) =>
          (one?.tries ?? []).map(({ lane, generation, ...attempt }) => ({
            ...attempt,
            channel: one?.leg === 1 ? ('SMS' as const) : ('MMS' as const),
            carrier: world.carrierOf(lane),
            transactionId: transactionId(install, one?.leader ?? 0, generation),
          })),
        ),
        events: events.map(({ no, at, status, error, kind, words }) => ({
          event: no,
          at,
          status,
          error,
          kind: kind === 'status' ? 'status' : 'noted',
          words,
        })),
        webhooks: world.events
          .filter((event) => event.message === message || event.about === message.no)
          .flatMap((event) =>
            (event.post?.tries ?? []).map((one) => ({
              event: event.no,
              ...one,
              url: event.post?.endpoint.url ?? '',
            })),
          )
          .sort((a, b) => a.at - b.at),
        waiting:
          submission === null || message.doneAt !== null
            ? null
            : whyWaiting(row, {
                due: queue.dueOf(submission),
                paused: bulk !== null && (bulk.pausedAt !== null || bulk.canceledAt !== null),
                media: queue.closed(submission.run),
                unfetched: unfetchedOf(message.spec),
                gate: gateOf(submission.run, bulk),
                carrier: world.carrierOf(submission.lane),
              }),
        validUntil: submission && queue.endOf(submission),
        clicks: [],
        answers: [...world.inbounds.values()]
          .filter((one) => one.account === account && one.paired?.no === message.no)
          .slice(0, ANSWERS_SHOWN)
          .map((one) => answerOf(JSON.stringify(one))),
      };
    },

    feed(account: number, after: number, limit: number): { rows: EventRow[]; specs: SpecRow[]; last: number } {
      const last = world.lastEvent;
      if (after === 0) return { rows: [], specs: [], last };
      const mine = (event: Event): boolean => event.no > after && event.kind === 'status' && event.account === account;
      const rows = world.events
        .filter(mine)
        .slice(0, limit)
        .map((event) => eventRow(world, event));
      const specs = specRows(
        world,
        rows.map((row) => row.spec),
      );
      return { rows, specs, last: rows.length < limit ? last : (rows.at(-1)?.event ?? last) };
    },

    bulkGet(account: number, name: BulkName): StandingBulk | null {
      const bulk = find(account, name);
      return bulk && standing(bulk);
    },
    bulkList(account: number, limit: number, before?: number): { bulks: StandingBulk[]; next: number | null } {
      const all = [...world.bulks.values()]
        .filter((bulk) => bulk.account === account && bulk.no < (before ?? Number.POSITIVE_INFINITY))
        .sort((a, b) => b.no - a.no);
      const bulks = all.slice(0, limit).map((bulk) => standing(bulk));
      return { bulks, next: all.length > bulks.length ? (bulks.at(-1)?.no ?? null) : null };
    },

    stats(): Stats {
      const waitingAt = (all: ReturnType<typeof world.submissions>): Stats['waitingAt'] => {
        const counts = new Map<string, number>();
        for (const one of all) {
          const waits =
            one.stage === 'fresh' ? !queue.closed(one.run) : one.stage === 'waiting' && queue.members(one).length > 0;
          const carrier = world.carrierOf(one.lane);
          if (waits) counts.set(carrier, (counts.get(carrier) ?? 0) + 1);
        }
        return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([carrier, count]) => ({ carrier, count }));
      };
      const all = world.submissions();
      const open = world.posts.filter((post) => post.state === 'open').length;
      const unformed = new Set(
        world.events.filter((event) => event.open && event.post === null).map((e) => e.message ?? e.inbound),
      );
      return {
        waiting: all.filter(({ stage, run }) => stage === 'fresh' && !queue.closed(run)).length,
        inFlight: all.filter(({ stage }) => stage === 'flying').length,
        retries: all.filter((one) => one.stage === 'waiting' && queue.members(one).length > 0).length,
        webhooksWaiting: open + unformed.size,
        webhooksExhausted: world.posts.filter((post) => post.state === 'exhausted').length,
        pull: world.pulls.filter(({ event }) => event.message !== null).length,
        walBytes: 0,
        waitingAt: waitingAt(all),
      };
    },
  };
}
