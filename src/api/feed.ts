/**
 * GET /mms/2/events: what happens to an account's messages, as server-sent events (WHATWG HTML, 9.2). `id` is the event's
 * number, `event` is `status`, `data` the delivery report. Resumes after Last-Event-ID, otherwise starts now. With a search,
 * only what it finds; of what it leaves out the last `id` is told alone, so that a client resumes behind that.
 *
 * Promises: each event of the account once and in order while the connection holds; the store is asked only while somebody
 * listens; at most `PER_ACCOUNT` listeners an account and `LISTENERS` in all (429 beyond); a listener that does not read is
 * not written to, and is dropped after `STALLED_MS`, so what it can make us hold is one batch.
 *
 * Fails: a store that cannot be read is waited for; the connection stays.
 */
import type { ServerResponse } from 'node:http';
import type { Ids } from '../domain/ids.ts';
import type { Networks } from '../domain/networks.ts';
import { isFound, type Search } from '../domain/search.ts';
import type { Env } from '../env.ts';
import type { Store } from '../store/contract.ts';
import { type Answer, apiError } from './errors.ts';
import { eventsQuery, readParameters, readSearch } from './queries.ts';
import { reportsOf } from './reads.ts';

const PER_ACCOUNT = 8;
const LISTENERS = 64;
const POLL_MS = 250;
const HEARTBEAT_MS = 15_000;
const STALLED_MS = 30_000;
/** Events of one write. */
const BATCH = 50;
/** How long a client waits before it comes back. */
const RETRY_MS = 2_000;

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  // Proxies that buffer would hold events back.
  'x-accel-buffering': 'no',
  // The stream is all that this connection is for: it ends with it.
  connection: 'close',
};

export interface Feed {
  /** An answer where nobody can be taken on, or `start`, which speaks until the client or `close` ends it. */
  listen(
    account: number,
    lastEventId: string | undefined,
    query?: unknown,
  ): Answer | { start(response: ServerResponse): void };
  listeners(): number;
  close(): void;
}

/** One feed for all streams of this process; it asks the store only while somebody listens. */
export function createFeed(options: { store: Store; env: Env; ids: Ids; networks?: Networks }): Feed {
  const { store, env, ids } = options;
  const open = new Map<ServerResponse, number>();
  const stop = new AbortController();

  async function speak(response: ServerResponse, account: number, from: number, search: Search | null): Promise<void> {
    const gone = new AbortController();
    const end = (): void => gone.abort();
    response.on('close', end);
    stop.signal.addEventListener('abort', end);
    try {
      // 0 = from now; a store without events says 0 again, and the first one must not be passed over.
      let place = from;
      /** When something was written last; null = nothing yet. */
      let spoken: number | null = null;
      while (!gone.signal.aborted) {
        const page = await readFeed(account, place);
        if (page !== null) {
          place = page.last === 0 ? -1 : page.last;
          let text = textOf(page, search);
          // Headers and first line leave when the place is known: who has them misses nothing that happens after.
          if (spoken === null) text = `retry: ${RETRY_MS}\n\n${text}`;
          else if (text === '' && env.clock.monotonic() - spoken >= HEARTBEAT_MS) text = ': still here\n\n';
          if (text !== '') {
            spoken = env.clock.monotonic();
            if (gone.signal.aborted) break;
            if (!response.write(text) && !(await drained(response, gone.signal))) break;
          }
          if (page.rows.length === BATCH) continue;
        }
        await env.clock.sleep(POLL_MS, gone.signal);
      }
    } catch (error) {
      env.log.error({ err: error, account }, 'event stream ended by a bug');
    } finally {
      response.off('close', end);
      stop.signal.removeEventListener('abort', end);
      open.delete(response);
      if (stop.signal.aborted) response.end();
      else response.destroy();
    }
  }

  /** The events of a page that are found; of what is left out behind the last of them, the last id alone. */
  function textOf({ rows, specs }: Awaited<ReturnType<Store['feed']>>, search: Search | null): string {
    let text = '';
    let passed = false;
    reportsOf(rows, specs, ids, options.networks).forEach((report, index) => {
      passed = search !== null && !isFound(report, search);
      if (!passed) text += `id: ${rows[index]?.event}\nevent: status\ndata: ${JSON.stringify(report)}\n\n`;
    });
    return passed ? `${text}id: ${rows.at(-1)?.event}\n\n` : text;
  }

  async function readFeed(account: number, place: number) {
    try {
      return await store.feed(account, place, BATCH);
    } catch (error) {
      env.log.warn({ err: error, account }, 'event stream waits for the store');
      return null;
    }
  }

  /** False = the client did not read for too long, or is gone. */
  async function drained(response: ServerResponse, gone: AbortSignal): Promise<boolean> {
    const read = new AbortController();
    const wake = (): void => read.abort();
    response.once('drain', wake);
    gone.addEventListener('abort', wake);
    await env.clock.sleep(STALLED_MS, read.signal);
    response.off('drain', wake);
    gone.removeEventListener('abort', wake);
    return read.signal.aborted && !gone.aborted;
  }

  return {
    listen(account, lastEventId, query) {
      const read = readParameters(eventsQuery, query);
      if (!read.ok) return apiError('E400', { violations: read.violations });
      const searched = readSearch(read.values.search, env.clock.now());
      if (!searched.ok) return apiError('E400', { violations: searched.violations });
      let mine = 0;
      for (const other of open.values()) if (other === account) mine++;
      if (mine >= PER_ACCOUNT || open.size >= LISTENERS) {
        return apiError('E429', {
          action: `Close one of the event streams: ${PER_ACCOUNT} are allowed at a time.`,
          headers: { 'retry-after': '10' },
        });
      }
      const resumed = lastEventId === undefined || lastEventId === '' ? null : lastEventId;
      if (resumed !== null && !/^\d{1,15}$/.test(resumed)) {
        return apiError('E400', {
          violations: [{ property: 'Last-Event-ID', violation: 'is not the id of an event' }],
        });
      }
      const from = resumed === null ? 0 : Number(resumed) || -1;
      return {
        start(response) {
          open.set(response, account);
          response.writeHead(200, HEADERS);
          void speak(response, account, from, searched.search);
        },
      };
    },
    listeners: () => open.size,
    close: () => stop.abort(),
  };
}
