/**
 * How the sandbox calls its operator: an MM7 request by POST to one URL, and whether the answer took it. Nothing is kept here.
 *
 * Promises: `post` never rejects; a request has `ANSWER_MS` to be answered, an answer is read up to `ANSWER_BYTES`.
 */
import { Pool } from 'undici';
import type { Env } from '../../env.ts';
import { isTaken } from './peer.ts';

/** For one request to be answered. */
const ANSWER_MS = 30_000;
const ANSWER_BYTES = 64 * 1024;

export interface Callback {
  /** Scheme and authority, for the log. */
  readonly origin: string;
  /** Whether the answer is `response` (like DeliverRsp) with status 1000. False too when `signal` aborts first. */
  post(contentType: string, body: string | Uint8Array, response: string, signal: AbortSignal): Promise<boolean>;
  close(): Promise<void>;
}

/** A pool of at most `connections` to `url`. */
export function createCallback({ url, connections, env }: { url: string; connections: number; env: Env }): Callback {
  const target = new URL(url);
  const pool = new Pool(target.origin, { connections, pipelining: 1 });
  return {
    origin: target.origin,
    async post(contentType, body, response, signal) {
      const limit = new AbortController();
      const end = (): void => limit.abort();
      const timeout = env.clock.setTimeout(end, ANSWER_MS);
      signal.addEventListener('abort', end, { once: true });
      try {
        const answer = await pool.request({
          method: 'POST',
          path: target.pathname + target.search,
          headers: { 'content-type': contentType, soapaction: '""' },
          body,
          signal: limit.signal,
          headersTimeout: 0,
          bodyTimeout: 0,
        });
        const chunks: Buffer[] = [];
        let size = 0;
        // Leaving the loop early destroys the connection.
        for await (const chunk of answer.body as AsyncIterable<Buffer>) {
          size += chunk.length;
          if (size > ANSWER_BYTES) return false;
          chunks.push(chunk);
        }
        const type = answer.headers['content-type'];
        return isTaken(Array.isArray(type) ? type[0] : type, Buffer.concat(chunks), response);
      } catch (error) {
        env.log.debug({ err: error }, 'sandbox: a call was not answered');
        return false;
      } finally {
        timeout.cancel();
        signal.removeEventListener('abort', end);
      }
    },
    close: () => pool.destroy(),
  };
}
