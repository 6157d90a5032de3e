/**
 * A message's story in words: one line for each thing that happened to it, in the order in which it happened. Used by
 * everything that shows a message (send --wait, show, demo), so that they all tell it alike. Pure.
 */
import type { StatusView, StoryView } from './client.ts';
import { type Paint, plain, shortInstant, table } from './terminal.ts';

/** One thing that happened to a message. */
export interface Happening {
  /** As the API writes instants. */
  at: string;
  what: 'accepted' | 'attempt' | 'status' | 'webhook' | 'click' | 'answer';
  words: string;
  good: boolean | null;
}

/** Nothing changes a status of these groups any more (2 UNDELIVERABLE, 3 DELIVERED, 4 EXPIRED, 5 REJECTED). */
export function isFinal(status: Pick<StatusView, 'groupId'>): boolean {
  return status.groupId >= 2;
}

/** The handset has it, or the carrier where it tells no more. */
export function isDelivered(status: Pick<StatusView, 'groupName'>): boolean {
  return status.groupName === 'DELIVERED';
}

const OUTCOMES: Record<string, string> = {
  accepted: 'taken by',
  deferred: 'put off by',
  throttled: 'slowed down by',
  refused: 'refused by',
  contentFailed: 'not sent to',
  unknown: 'outcome unknown at',
};

/** Everything that happened, oldest first. */
function happenings(story: StoryView): Happening[] {
  const accepted = `accepted as ${story.messageId} for ${story.to}`;
  const list: Happening[] = [
    { at: story.acceptedAt, what: 'accepted', words: accepted, good: null },
    ...story.attempts.map(ofAttempt),
    ...story.events.map(ofEvent),
    ...story.webhooks.map(ofWebhook),
    ...(story.answers ?? []).map(ofAnswer),
    ...(story.clicks ?? []).map(ofClick),
  ];
  // Stable: what has the same instant stays in the order of the kinds above, which is that of the message's way.
  return list.sort((a, b) => (a.at < b.at ? -1 : a.at > b.at ? 1 : 0));
}

type One<Key extends keyof StoryView> = NonNullable<StoryView[Key]> extends (infer Item)[] ? Item : never;

function ofAttempt(a: One<'attempts'>): Happening {
  const leg = a.channel === 'SMS' ? 'SMS ' : '';
  const named = a.outcome === 'accepted' && a.carrierMessageId ? ` as ${a.carrierMessageId}` : '';
  const words = `${leg}attempt ${a.attempt} ${OUTCOMES[a.outcome] ?? a.outcome} ${a.carrier}${named} in ${a.tookMs} ms`;
  const good = a.outcome === 'accepted' ? null : false;
  return { at: a.at, what: 'attempt', words: withReason(words, a.error, a.words), good };
}

function ofEvent(e: One<'events'>): Happening {
  const error = e.error && e.error.id !== 0 ? e.error : null;
  const words = withReason(e.status.name, error, e.words);
  if (e.kind === 'NOTED') return { at: e.at, what: 'status', words: `noted, changes nothing: ${words}`, good: null };
  return { at: e.at, what: 'status', words, good: isFinal(e.status) ? isDelivered(e.status) : null };
}

function ofWebhook(w: One<'webhooks'>): Happening {
  const status = w.reported ? `${w.reported} ` : '';
  const answer = w.httpStatus === 0 ? `no answer (${w.excerpt})` : `answered ${w.httpStatus}`;
  const retry = w.retry > 0 ? `, retry ${w.retry}` : '';
  const words = `${status}reported to ${w.url}: ${answer} in ${w.tookMs} ms${retry}`;
  return { at: w.at, what: 'webhook', words, good: w.httpStatus >= 200 && w.httpStatus < 300 ? null : false };
}

function ofAnswer(a: One<'answers'>): Happening {
  const words = `answered by ${a.from} (${a.channel} ${a.messageId})${a.text === '' ? '' : `: ${a.text}`}`;
  return { at: a.at, what: 'answer', words, good: null };
}

function ofClick(c: One<'clicks'>): Happening {
  const by = c.device === '' ? '' : ` on ${c.device}`;
  const words = c.flag === null ? `clicked: ${c.url}${by}` : `opened, not counted (${c.flag}): ${c.url}${by}`;
  return { at: c.at, what: 'click', words, good: null };
}

/** `words (15009 EC_..: what the peer said)`, as far as there is any of it. */
function withReason(words: string, error: { id: number; name: string } | null | undefined, said: string): string {
  const why = [error ? `${error.id} ${error.name}` : '', said].filter((text) => text !== '').join(': ');
  return why === '' ? words : `${words} (${why})`;
}

/** Tells what is new since the last time it was asked, so that a story can be followed by looking at it again and again. */
export function createFollower(): (story: StoryView) => Happening[] {
  const seen = new Set<string>();
  return (story) =>
    happenings(story).filter((happening) => {
      const key = JSON.stringify(happening);
      if (seen.has(key)) return false;
      seen.add(key);
      return true;
    });
}

/** One line for a terminal. */
export function happeningLine(happening: Happening, colors: Paint): string {
  const words = plain(happening.words);
  const shade = happening.good === null ? words : happening.good ? colors.good(words) : colors.bad(words);
  return `${colors.dim(shortInstant(happening.at))}  ${shade}\n`;
}

/** The whole story for `postcard show`. */
export function storyText(story: StoryView, colors: Paint): string {
  const rows: [string, string][] = [
    ['message', story.messageId],
    ['bulk', story.bulkId],
    ['from, to', `${story.sender}, ${story.to}`],
    ['content', contentWords(story.content)],
    ['status', statusWords(story)],
  ];
  if (story.channel === 'SMS') rows.push(['channel', 'SMS, its failover']);
  if (story.ended) rows.push(['why', story.ended.why]);
  if (!isFinal(story.status)) {
    if (story.validUntil) rows.push(['valid until', shortInstant(story.validUntil)]);
    if (story.waiting) {
      const until = story.waiting.until ? `, until ${shortInstant(story.waiting.until)}` : '';
      rows.push(['waiting', `${story.waiting.why}${until}`]);
    }
  }
  const head = table(
    [],
    rows.map(([name, value]) => [name, plain(value)]),
  );
  return `${head}\n${happenings(story)
    .map((happening) => happeningLine(happening, colors))
    .join('')}`;
}

/** The status, with the error where there is one. */
export function statusWords(view: Pick<StoryView, 'status' | 'error'>): string {
  const error =
    view.error && view.error.id !== 0 ? `, ${view.error.id} ${view.error.name}: ${view.error.description}` : '';
  return `${view.status.name} (${view.status.id})${error}`;
}

function contentWords(content: unknown): string {
  const { title, messageSegments } = (content ?? {}) as {
    title?: string;
    messageSegments?: { type: string; text?: string }[];
  };
  const segments = (messageSegments ?? []).map((segment) =>
    segment.type === 'TEXT' ? `TEXT ${JSON.stringify((segment.text ?? '').slice(0, 60))}` : segment.type,
  );
  return [title ? JSON.stringify(title) : '', ...segments].filter((part) => part !== '').join(', ');
}
