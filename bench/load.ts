/**
 * Load source: closed loop over raw sockets, one request at a time a connection, so that the source costs little of the two
 * cores it shares with what is measured. Run as a process of its own: node bench/load.ts '<JSON of Load>'; prints one JSON line.
 */
import { connect } from 'node:net';

export interface Load {
  port: number;
  path: string;
  headers: Record<string, string>;
  /** One for all connections, or several that they take in turns. */
  body: string | string[];
  connections: number;
  /** Ms of load; latencies of the first tenth are not counted. */
  ms: number;
}

export interface LoadResult {
  /** Answered with 200, all of them; every request that was sent has its answer. */
  ok: number;
  /** Answered with 429: the server had too much to do, and the connection waited a moment. */
  refused: number;
  /** Other answers, and connections that broke. */
  bad: number;
  /** The first of them, as it came; '' = none. */
  badWords: string;
  /** After the first tenth. */
  perSecond: number;
  p50: number;
  p99: number;
  max: number;
}

/** A pause after a refusal. */
const AGAIN_MS = 50;

const load = JSON.parse(process.argv[2] ?? '{}') as Load;
const head = Object.entries({ host: '127.0.0.1', 'content-type': 'application/json', ...load.headers })
  .map(([name, value]) => `${name}: ${value}\r\n`)
  .join('');
const requests = [load.body].flat().map((body) => {
  return Buffer.from(`POST ${load.path} HTTP/1.1\r\n${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
});

const begin = performance.now();
const warm = begin + load.ms / 10;
const end = begin + load.ms;
const latencies: number[] = [];
let ok = 0;
let refused = 0;
let bad = 0;
let badWords = '';
let open = load.connections;

function finish(): void {
  if (--open > 0) return;
  latencies.sort((a, b) => a - b);
  const at = (q: number): number => latencies[Math.min(latencies.length - 1, Math.floor(q * latencies.length))] ?? 0;
  const result: LoadResult = {
    ok,
    refused,
    bad,
    badWords,
    perSecond: latencies.length / ((load.ms * 0.9) / 1000),
    p50: at(0.5),
    p99: at(0.99),
    max: at(1),
  };
  console.log(JSON.stringify(result));
  process.exit(0);
}

for (let i = 0; i < load.connections; i++) {
  const socket = connect(load.port, '127.0.0.1');
  socket.setNoDelay(true);
  let sent = 0;
  let pending = '';
  const send = (): void => {
    if (performance.now() >= end) {
      socket.destroy();
      finish();
      return;
    }
    sent = performance.now();
    socket.write(requests[i % requests.length] as Buffer);
  };
  socket.on('connect', send);
  socket.on('data', (chunk) => {
    pending += chunk.toString('latin1');
    const split = pending.indexOf('\r\n\r\n');
    if (split < 0) return;
    const length = /content-length: (\d+)/i.exec(pending.slice(0, split));
    if (length ? pending.length < split + 4 + Number(length[1]) : !pending.endsWith('0\r\n\r\n')) return;
    const now = performance.now();
    if (pending.startsWith('HTTP/1.1 200')) ok++;
    else if (pending.startsWith('HTTP/1.1 429')) {
      refused++;
      pending = '';
      setTimeout(send, AGAIN_MS);
      return;
    } else {
      bad++;
      badWords ||= pending;
    }
    if (sent >= warm) latencies.push(now - sent);
    pending = '';
    send();
  });
  socket.on('error', () => {
    bad++;
    finish();
  });
}
