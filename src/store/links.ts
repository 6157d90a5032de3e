/**
 * What both engines apply to their rows of links and clicks, pure.
 */

import type { Tracked } from '../domain/rows.ts';
import { STATE } from '../domain/status.ts';
import type { ClickCounts, ClickFigures, LinkRow } from './contract.ts';

/** In rows that count by link: all links of a message (or spec) together. */
export const ANY_LINK = -1;

/** How long after its end a link is known to have been one. */
export const GONE_MS = 365 * 86_400_000;

/** A row of `link` as engines read it. */
export interface LinkColumns {
  first: number;
  end: number;
  spec: number;
  account: number;
  bulk: number;
  bulk_id: string | null;
  entity: string | null;
  application: string | null;
  callback: string | null;
  /** JSON. */
  urls: string;
  clicks: number;
  url: string | null;
  keep: number;
  expires_at: number;
}

/** A row for one of its messages, whose times stand in `message` as long as it is here. */
export function toLink(row: LinkColumns, message: { state: number; sent_at: number | null } | undefined): LinkRow {
  const waits = message !== undefined && message.sent_at === null && message.state < STATE.delivered;
  return {
    first: row.first,
    end: row.end,
    account: row.account,
    bulk: row.bulk,
    bulkId: row.bulk_id,
    entity: row.entity,
    application: row.application,
    callbackData: row.callback,
    urls: JSON.parse(row.urls) as string[],
    clicks: Boolean(row.clicks),
    expiresAt: waits ? null : Math.max(row.expires_at, (message?.sent_at ?? 0) + row.keep),
  };
}

/** Figures by URL from those of specs, whose `counts` name links by their place in `urls` (JSON). */
export function clickFigures(
  sum: ClickCounts,
  specs: { urls: string; counts: ({ link: number } & ClickCounts)[] }[],
  cut: boolean,
): ClickFigures {
  const links = new Map<string, ClickFigures['links'][number]>();
  for (const { urls, counts } of specs) {
    const names = JSON.parse(urls) as string[];
    for (const [place, url] of names.entries()) {
      const link = links.get(url) ?? { url, total: 0, unique: 0, flagged: 0 };
      const own = counts.find((one) => one.link === place);
      link.total += own?.total ?? 0;
      link.unique += own?.unique ?? 0;
      link.flagged += own?.flagged ?? 0;
      links.set(url, link);
    }
  }
  const { total, unique, flagged } = sum;
  const sorted = [...links.values()].sort((a, b) => b.total - a.total || (a.url < b.url ? -1 : 1));
  return { total, unique, flagged, links: sorted, cut };
}

/** A tracked spec as the accept stores it. */
export interface NewLink {
  first: number;
  end: number;
  spec: number;
  account: number;
  bulk: number;
  bulkId: string | null;
  campaign: string | null;
  entity: string | null;
  application: string | null;
  /** When its messages may leave. */
  from: number;
  tracked: Tracked;
}
