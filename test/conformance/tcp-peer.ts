/**
 * The peer of a carrier as far as every protocol over TCP has it: a server that can be away, mute, or cut connections before it has read
 * anything, and that speaks no TLS. What it reads and answers is the protocol's (`mm7.test.ts`, `smpp.test.ts`).
 */
import { createServer, type Server, type Socket } from 'node:net';
import type { Fault } from './carrier.suite.ts';

export interface TcpPeer {
  port: number;
  /** What it does now. */
  readonly fault: Fault;
  /** From now on it does this. */
  set(next: Fault): Promise<void>;
  /** Breaks all connections. */
  cut(): void;
  close(): Promise<void>;
}

/** @param talk given a new connection, gives what is to be done with each chunk of bytes that comes on it. */
export async function openTcpPeer(talk: (socket: Socket) => (chunk: Buffer) => void): Promise<TcpPeer> {
  const sockets = new Set<Socket>();
  let fault: Fault = 'none';
  let server: Server;
  let port = 0;

  function listen(): Promise<void> {
    server = createServer((socket) => {
      sockets.add(socket);
      socket.on('close', () => sockets.delete(socket));
      socket.on('error', () => {});
      if (fault === 'cutEarly') return void socket.destroy();
      if (fault === 'mute') return void socket.resume();
      const take = talk(socket);
      socket.once('data', (first: Buffer) => {
        // What a server without TLS says to a handshake.
        if (first[0] === 0x16) return void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
        take(first);
        socket.on('data', take);
      });
    });
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, '127.0.0.1', () => resolve());
    });
  }
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  const hangUp = (): Promise<void> => {
    cut();
    return new Promise((resolve) => server.close(() => resolve()));
  };

  await listen();
  const address = server!.address();
  port = typeof address === 'object' && address ? address.port : 0;
  return {
    port,
    get fault() {
      return fault;
    },
    async set(next) {
      if (fault === 'refused' && next !== 'refused') await listen();
      if (next === 'refused' && fault !== 'refused') await hangUp();
      fault = next;
      // What fails as it connects must not find a connection that is up.
      if (next === 'mute' || next === 'cutEarly') cut();
    },
    cut,
    close: async () => {
      if (fault !== 'refused') await hangUp();
    },
  };
}
