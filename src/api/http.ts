/**
 * One request in, one answer out over node:http: bodies read under a limit, answers written in one go, refusals that the
 * client really sees although it is still sending.
 *
 * Promises: no body is held beyond its limit, all bodies together not beyond `BODIES_MAX`; every request gets at most one
 * answer; nothing here throws for anything a client does.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../env.ts';
import type { Answer } from './errors.ts';

/** Bytes of all bodies that are being read or worked on; above it requests are told to come back (503). */
const BODIES_MAX = 256 * 1024 * 1024;
/** How much of a refused body is read and thrown away, and for how long, so that the client gets to read the answer. */
const DRAIN_BYTES = 64 * 1024 * 1024;
const DRAIN_MS = 10_000;

/** What became of a body. `gone`: the client went away, there is nobody to answer. */
export type Body = { kind: 'whole'; bytes: Buffer } | { kind: 'tooLarge' } | { kind: 'busy' } | { kind: 'gone' };

const TOO_LARGE: Body = { kind: 'tooLarge' };
const BUSY: Body = { kind: 'busy' };
const GONE: Body = { kind: 'gone' };
const NOTHING = Buffer.alloc(0);

export interface Exchange {
  /**
   * Reads a body of at most `limit` bytes and calls `then` once. The bytes count as held until `release(bytes.length)`;
   * for the other kinds nothing is held.
   */
  read(request: IncomingMessage, limit: number, then: (body: Body) => void): void;
  release(bytes: number): void;
  /** Writes an answer, once; later ones and those to clients that have gone are dropped. */
  give(response: ServerResponse, answer: Answer): void;
  /** Answers a request whose body is (partly) unread, then reads the rest away within limits. */
  refuse(request: IncomingMessage, response: ServerResponse, answer: Answer): void;
  /** From now on connections end with their answer. */
  closing(): void;
}

/** `onAnswer` is told the status of each answer; `bodiesMax` in bytes. */
export function createExchange(
  clock: Clock,
  onAnswer: (status: number) => void,
  bodiesMax: number = BODIES_MAX,
): Exchange {
  let held = 0;
  let closing = false;

  function give(response: ServerResponse, answer: Answer): void {
    if (response.headersSent || response.destroyed) return;
    const { body, headers } = answer;
    // A flat list: node takes it as it is, and header and body leave in one write.
    const list: (string | number)[] = ['content-length', Buffer.byteLength(body)];
    for (const name in headers) list.push(name, headers[name] as string);
    if (closing) list.push('connection', 'close');
    onAnswer(answer.status);
    response.writeHead(answer.status, list as string[]);
    response.end(body);
  }

  function drain(request: IncomingMessage): void {
    let left = DRAIN_BYTES;
    const timer = clock.setTimeout(() => request.destroy(), DRAIN_MS);
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length;
      if (left < 0) request.destroy();
    });
    request.on('close', () => timer.cancel());
    request.resume();
  }

  return {
    give,
    release(bytes) {
      held -= bytes;
    },
    closing() {
      closing = true;
    },
    read(request, limit, then) {
      let first: Buffer | null = null;
      let more: Buffer[] | null = null;
      let size = 0;
      let done = false;
      const finish = (body: Body): void => {
        done = true;
        if (body.kind !== 'whole') held -= size;
        then(body);
      };
      request.on('data', (chunk: Buffer) => {
        if (done) return;
        size += chunk.length;
        held += chunk.length;
        if (size > limit) finish(TOO_LARGE);
        else if (held > bodiesMax) finish(BUSY);
        else if (first === null) first = chunk;
        else if (more === null) more = [first, chunk];
        else more.push(chunk);
      });
      request.on('end', () => {
        if (done) return;
        finish({ kind: 'whole', bytes: more === null ? (first ?? NOTHING) : Buffer.concat(more, size) });
      });
      request.on('close', () => {
        if (!done) finish(GONE);
      });
    },
    refuse(request, response, answer) {
      if (request.complete) {
        give(response, answer);
        return;
      }
      // A client that waits for "100 Continue" has sent nothing yet: what it would send next is anybody's guess.
      if (request.headers.expect !== undefined && request.readableDidRead === false) {
        give(response, { ...answer, headers: { ...answer.headers, connection: 'close' } });
        return;
      }
      give(response, answer);
      drain(request);
    },
  };
}
