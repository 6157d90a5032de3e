/** A real Postcard process for torture: started, killed and started again on the same data directory and ports. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, createServer as createTcp } from 'node:net';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli/postcard.ts', import.meta.url));
export const KEY = 'torture-key-0123456789abcdef0123456789abcdef';

export interface Ports {
  api: number;
  carrier: number;
  sandbox: number;
}

/** Free ports, found by opening them. */
export async function freePorts(): Promise<Ports> {
  const servers = await Promise.all(
    [0, 0, 0].map(async () => {
      const server = createTcp();
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) server.close();
  return { api: ports[0] as number, carrier: ports[1] as number, sandbox: ports[2] as number };
}

export interface Postcard {
  child: ChildProcess;
  url: string;
  sandboxUrl: string;
  output(): string;
  /** Ends it and waits for the end. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Starts the server (through `wrapper`, e.g. strace, where given) and resolves when it is ready. */
export async function startPostcard(dataDir: string, ports: Ports, wrapper: string[] = []): Promise<Postcard> {
  const command = [...wrapper, process.execPath, CLI, 'serve'];
  const child = spawn(command[0] as string, command.slice(1), {
    env: {
      PATH: process.env.PATH,
      POSTCARD_DATA_DIR: dataDir,
      POSTCARD_PORT: String(ports.api),
      POSTCARD_CARRIER_PORT: String(ports.carrier),
      POSTCARD_SANDBOX_PORT: String(ports.sandbox),
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
    },
    cwd: dataDir,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-20_000);
  };
  child.stdout?.on('data', collect);
  child.stderr?.on('data', collect);
  const url = `http://127.0.0.1:${ports.api}`;
  for (let tries = 0; ; tries++) {
    if (child.exitCode !== null) throw new Error(`postcard ended with ${child.exitCode}:\n${output}`);
    const ready = await fetch(`${url}/readyz`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (ready) break;
    if (tries > 300) throw new Error(`postcard is not ready after 30 s:\n${output}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    child,
    url,
    sandboxUrl: `http://127.0.0.1:${ports.sandbox}`,
    output: () => output,
    async end(signal) {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      child.kill(signal);
      await once(child, 'exit');
      return child.exitCode;
    },
  };
}

/** Asks the API with the torture key. */
export function call(url: string, path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${url}${path}`, {
    ...init,
    headers: { authorization: `App ${KEY}`, 'content-type': 'application/json', ...init.headers },
  });
}

export interface Receiver {
  url: string;
  /** Final statuses told for a messageId, in order of arrival. */
  reports: Map<string, number[]>;
  server: Server;
}

/** A customer's webhook receiver that remembers every report. */
export async function startReceiver(): Promise<Receiver> {
  const reports = new Map<string, number[]>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as {
        results: { messageId: string; status: { id: number } }[];
      };
      for (const { messageId, status } of body.results) {
        const list = reports.get(messageId);
        if (list) list.push(status.id);
        else reports.set(messageId, [status.id]);
      }
      response.writeHead(200).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/reports`, reports, server };
}
