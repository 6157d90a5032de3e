/**
 * The model's short links and clicks. Every click is kept as it came; all figures are worked out from them when asked.
 */
import { STATE } from '../../src/domain/status.ts';
import {
  CLICKS_KEPT,
  type ClickCounts,
  type Clicked,
  type ClickFigures,
  type ClickIn,
  type ClickScope,
  type LinkRow,
  type SpecIn,
  type Story,
} from '../../src/store/contract.ts';
import type { Events } from './model-events.ts';
import type { Message, Spec, World } from './model-world.ts';

const YEAR = 365 * 86_400_000;

interface Link {
  spec: Spec;
  bulkId: string | null;
  tracked: NonNullable<SpecIn['tracked']>;
  expiresAt: number;
  /** When its spec left: only then what belongs to it can go. */
  left: boolean;
  clicks: (ClickIn & { kept: boolean })[];
  /** Of messages that have left. */
  gone: Map<number, Clicked & { account: number }>;
}

export function createLinks(world: World, events: Events) {
  const links: Link[] = [];
  const linkOf = (no: number): Link | null => links.find(({ spec }) => no >= spec.first && no < spec.end) ?? null;
  /** Of a message that is here. */
  const deliveredAt = ({ state, doneAt }: Message): number | null => (state === STATE.delivered ? doneAt : null);

  function counts(clicks: Link['clicks']): ClickCounts {
    const humans = clicks.filter(({ flag }) => flag === null);
    const unique = new Set(humans.map(({ no }) => no)).size;
    return { total: humans.length, unique, flagged: clicks.length - humans.length };
  }

  function figures(some: Link[], of: (click: ClickIn) => boolean): ClickFigures | null {
    if (some.length === 0) return null;
    const urls = new Set(some.flatMap(({ tracked }) => tracked.urls));
    const by = (url: string): ClickCounts =>
      counts(some.flatMap(({ clicks, tracked }) => clicks.filter((one) => of(one) && tracked.urls[one.link] === url)));
    const sorted = [...urls]
      .map((url) => ({ url, ...by(url) }))
      .sort((a, b) => b.total - a.total || (a.url < b.url ? -1 : 1));
    return { ...counts(some.flatMap(({ clicks }) => clicks.filter(of))), links: sorted, cut: false };
  }

  return {
    add(spec: Spec, bulkId: string | null, sendAt: number | null): void {
      const { tracked } = spec;
      if (!tracked) return;
      const expiresAt = Math.max(sendAt ?? world.now, world.now) + tracked.keepMs;
      links.push({ spec, bulkId, tracked, expiresAt, left: false, clicks: [], gone: new Map() });
    },

    /** A message leaves: what its clicks are about stays. */
    outlive(message: Message): void {
      const link = linkOf(message.no);
      if (!link) return;
      const { no, to, key, account } = message;
      link.gone.set(no, { no, to, key, account, doneAt: deliveredAt(message) });
      link.expiresAt = Math.max(link.expiresAt, (message.sentAt ?? 0) + link.tracked.keepMs);
    },
    left(spec: Spec): void {
      const link = linkOf(spec.first);
      if (link) link.left = true;
    },
    retain(): void {
      for (const link of [...links]) {
        if (!link.left || link.expiresAt > world.now) continue;
        link.gone.clear();
        link.clicks = [];
        if (link.expiresAt + YEAR <= world.now) links.splice(links.indexOf(link), 1);
      }
    },

    link(no: number): LinkRow | null {
      const link = linkOf(no);
      if (!link) return null;
      const { spec, bulkId, tracked } = link;
      const message = world.messages.get(no);
      const waits = message !== undefined && message.sentAt === null && message.state < STATE.delivered;
      return {
        first: spec.first,
        end: spec.end,
        account: spec.account,
        bulk: spec.bulk,
        bulkId,
        entity: spec.entity,
        application: spec.application,
        callbackData: tracked.callbackData,
        urls: tracked.urls,
        clicks: tracked.clicks,
        expiresAt: waits ? null : Math.max(link.expiresAt, (message?.sentAt ?? 0) + tracked.keepMs),
      };
    },

    clicked: (nos: number[]): Clicked[] =>
      nos.flatMap((no) => {
        const message = world.messages.get(no);
        if (message) return [{ no, to: message.to, key: message.key, doneAt: deliveredAt(message) }];
        const gone = linkOf(no)?.gone.get(no);
        return gone ? [{ no, to: gone.to, key: gone.key, doneAt: gone.doneAt }] : [];
      }),

    click(clicks: ClickIn[]): void {
      for (const click of clicks) {
        const link = linkOf(click.no);
        if (!link?.tracked.clicks) continue;
        const kept = link.clicks.filter(({ no }) => no === click.no).length < CLICKS_KEPT;
        link.clicks.push({ ...click, kept });
        if (!kept || click.body === null) continue;
        const { account } = link.spec;
        const { url } = link.tracked;
        const to =
          url === null
            ? events.standard(account, 'click', 'application/json')
            : events.endpoint(account, url, 'application/json', 'click');
        if (to !== null) events.tellClick(account, click.no, click.body, to);
      }
    },

    clicksOf: (no: number): Story['clicks'] =>
      (linkOf(no)?.clicks ?? []).flatMap(({ no: of, at, link, flag, device, kept }) =>
        of === no && kept ? [{ at, url: linkOf(no)?.tracked.urls[link] ?? '', flag, device }] : [],
      ),

    clicks(account: number, scope: ClickScope): ClickFigures | null {
      const own = links.filter(({ spec }) => spec.account === account);
      if ('campaign' in scope)
        return figures(
          own.filter(({ spec }) => spec.campaign === scope.campaign),
          () => true,
        );
      if ('bulk' in scope) {
        const { bulk } = scope;
        const is = ({ spec, bulkId }: Link): boolean => ('no' in bulk ? spec.bulk === bulk.no : bulkId === bulk.id);
        return figures(own.filter(is), () => true);
      }
      const { message } = scope;
      const no =
        'no' in message
          ? message.no
          : (world.keys.get(`${account} ${message.key}`)?.no ??
            own.flatMap(({ gone }) => [...gone.values()]).findLast(({ key }) => key === message.key)?.no ??
            -1);
      const link = linkOf(no);
      return link?.spec.account === account ? figures([link], (click) => click.no === no) : null;
    },
  };
}
