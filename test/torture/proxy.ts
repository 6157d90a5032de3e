/**
 * A TCP proxy that misbehaves on demand, between any two parts of a torture: client, node, PostgreSQL, carrier, receiver.
 *
 * Promises: bytes pass unchanged and in order unless a fault says otherwise; a fault can be set and lifted at any time and
 * works on open connections too. What a connection lost is lost for good: once bytes were swallowed it stays a black hole
 * in that direction until one of its ends closes it (a healed network does not bring back what a peer never got).
 *
 * Fails: rejects when it cannot listen. A target that is not there is a reset to the client.
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** From the client to the target, or back. */
export type Way = 'there' | 'back';

/** What the proxy does to its connections. */
export type ProxyFault =
  | { kind: 'pass' }
  /** Each piece arrives `ms` later. */
  | { kind: 'latency'; ms: number }
  /** Open connections are reset, new ones too. */
  | { kind: 'cut' }
  /** Connections stay open and nothing arrives, neither bytes nor their end: on both ways, or on one. */
  | { kind: 'swallow'; ways: Way[] };

export interface FaultProxy {
  port: number;
  set(fault: ProxyFault): void;
  /** Where new connections go. */
  aim(port: number): void;
  /** Open connections. */
  connections(): number;
  close(): Promise<void>;
}

/** Bytes that wait for a slow reader before we stop reading from the other side. */
const WAITING_BYTES = 1024 * 1024;

/** Starts a proxy on a free local port to a local one. */
export async function startProxy(target: number): Promise<FaultProxy> {
  let fault: ProxyFault = { kind: 'pass' };
  let aim = target;
  const pairs = new Set<Pair>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    if (fault.kind === 'cut') {
      client.on('error', () => undefined);
      client.resetAndDestroy();
      return;
    }
    const upstream = connect({ port: aim, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    const pair: Pair = { client, upstream };
    pairs.add(pair);
    forward(client, upstream, 'there');
    forward(upstream, client, 'back');
    const forget = (): void => {
      if (client.destroyed && upstream.destroyed) pairs.delete(pair);
    };
    client.on('close', forget);
    upstream.on('close', forget);
  });

  function swallows(way: Way): boolean {
    return fault.kind === 'swallow' && fault.ways.includes(way);
  }

  function forward(from: Socket, to: Socket, way: Way): void {
    const queue: { at: number; chunk: Buffer | null }[] = [];
    let hole = false;
    let timer: NodeJS.Timeout | null = null;
    let last = 0;

    function pump(): void {
      timer = null;
      for (let first = queue[0]; first; first = queue[0]) {
        const wait = first.at - performance.now();
        if (wait > 0) {
          timer = setTimeout(pump, wait);
          return;
        }
        queue.shift();
        if (to.destroyed) continue;
        if (first.chunk === null) to.end();
        else if (!to.write(first.chunk) && to.writableLength > WAITING_BYTES) {
          from.pause();
          to.once('drain', () => from.resume());
        }
      }
    }

    function send(chunk: Buffer | null): void {
      if (swallows(way)) hole = true;
      if (hole) return;
      last = Math.max(last, performance.now() + (fault.kind === 'latency' ? fault.ms : 0));
      queue.push({ at: last, chunk });
      if (timer === null) pump();
    }

    from.on('data', send);
    from.on('end', () => send(null));
    from.on('error', () => undefined);
    from.on('close', (failed) => {
      if (swallows(way)) hole = true;
      // A black hole tells nobody of an end either.
      if (hole || to.destroyed) return;
      if (failed || queue.length === 0) {
        if (failed || !to.writableEnded) to.resetAndDestroy();
      }
    });
  }

  function reset(): void {
    for (const { client, upstream } of pairs) {
      client.resetAndDestroy();
      upstream.resetAndDestroy();
    }
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    set(next) {
      fault = next;
      if (next.kind === 'cut') reset();
    },
    aim(port) {
      aim = port;
    },
    connections: () => pairs.size,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve));
      reset();
      await closed;
    },
  };
}

interface Pair {
  client: Socket;
  upstream: Socket;
}
