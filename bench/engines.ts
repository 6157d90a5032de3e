/**
 * PostgreSQL mode against the embedded store, end to end, on one machine in one run: two servers, each with all roles in one process
 * and its own sandbox as carrier, get the same load in turns from the same client (accept over HTTP, SubmitReq over MM7, delivery report,
 * webhook), and what is compared is how long everything that was accepted took until it was told delivered.
 *
 * Prints messages a second of both, their ratio (aim >= 0.5), processor time a message of the server, and for PostgreSQL of its sessions,
 * where those are on this machine. Ends with code 1 when something is wrong (an answer that is not 200, an accepted message
 * that was not reported delivered), never because the machine is slow.
 *
 *   node bench/engines.ts --postgres URL [--rounds 5] [--seconds 3] [--destinations 1] [--carrier sandbox|sink] [--statements] [--only]
 *
 * A database of its own is made on that server, and dropped at the end. --carrier sink: a bare MMSC in a process of its own instead of
 * the sandbox, which is durable and works in the server's process; the difference between the engines shows more.
 * --statements: what the sessions did, by statement, for each message of the rounds (pg_stat_statements must be loaded on that server;
 * figures that no other load of the machine moves). --only: PostgreSQL alone, for that.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { freePort, freePorts, KEY, type Ports } from '../test/torture/server.ts';
import type { Load, LoadResult } from './load.ts';
import { startScript } from './stand.ts';

const { values: given } = parseArgs({
  options: {
    postgres: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '3' },
    destinations: { type: 'string', default: '1' },
    carrier: { type: 'string', default: 'sandbox' },
    statements: { type: 'boolean', default: false },
    only: { type: 'boolean', default: false },
  },
});
const SERVER = given.postgres ?? process.env.POSTCARD_TEST_POSTGRES;
const ROUNDS = Number(given.rounds);
const MS = Number(given.seconds) * 1000;
const DESTINATIONS = Number(given.destinations);
const SINK = given.carrier === 'sink';
const CONNECTIONS = 64;
/** The server may take this long to start, and messages in flight this long without any being reported. */
const PATIENCE_MS = 60_000;
/** Aim of the ratio. */
const AIM = 0.5;

const root = fileURLToPath(new URL('..', import.meta.url));
const dir = mkdtempSync(join(root, 'data-bench-engines-'));
const children: ChildProcess[] = [];
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Side {
  name: string;
  child: ChildProcess;
  ports: Ports;
  sinkPort: number;
  /** Processor time that the database's sessions have used, us; null = they are not on this machine. */
  sessions(): Promise<number | null>;
}

async function startLine(script: string, ...args: string[]): Promise<string> {
  const { child, line } = await startScript(script, ...args);
  children.push(child);
  return line;
}

async function startSide(name: string, store: string | null, sessions: Side['sessions']): Promise<Side> {
  const ports = await freePorts();
  const smpp = await freePort();
  const sinkPort = Number(await startLine('sink.ts', String(ports.carrier)));
  const dataDir = join(dir, name);
  mkdirSync(dataDir, { recursive: true });
  const config = join(dataDir, 'bench.yaml');
  const carrier = `name: bench, type: mm7, url: 'http://127.0.0.1:${sinkPort}/mm7', concurrency: 64, onUnknown: retry`;
  writeFileSync(config, SINK ? `carriers: [{ ${carrier} }]\n` : '{}\n');
  const child = spawn(process.execPath, [join(root, 'src/cli/postcard.ts'), 'serve'], {
    env: {
      PATH: process.env.PATH,
      POSTCARD_DATA_DIR: dataDir,
      POSTCARD_CONFIG: config,
      POSTCARD_PORT: String(ports.api),
      POSTCARD_CARRIER_PORT: String(ports.carrier),
      POSTCARD_SANDBOX: String(!SINK),
      POSTCARD_SANDBOX_PORT: String(ports.sandbox),
      POSTCARD_SANDBOX_SMPP_PORT: String(smpp),
      POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
      POSTCARD_API_KEY: KEY,
      POSTCARD_LOG_LEVEL: 'warn',
      ...(store === null ? {} : { POSTCARD_STORE: store }),
    },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  children.push(child);
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end && child.exitCode === null; ) {
    const ready = await fetch(`http://127.0.0.1:${ports.api}/readyz`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (ready) return { name, child, ports, sinkPort, sessions };
    await wait(50);
  }
  throw new Error(`the server on ${name} did not become ready`);
}

/** What the sessions did since the last reset, for each of `messages`. */
async function statements(admin: pg.Client, database: string, messages: number): Promise<void> {
  type Row = { calls: number; ms: number; plan: number; rows: number; top: boolean; text: string };
  const { rows } = (await admin.query(
    `SELECT s.calls::float8 AS calls, s.total_exec_time AS ms, s.total_plan_time AS plan, s.rows::float8 AS rows, s.toplevel AS top,
       regexp_replace(s.query, '\\s+', ' ', 'g') AS text
     FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1 ORDER BY s.total_exec_time + s.total_plan_time DESC`,
    [database],
  )) as { rows: Row[] };
  const top = rows.filter((row) => row.top);
  const sum = (pick: (row: Row) => number): number => top.reduce((all, row) => all + pick(row), 0) / messages;
  line('PostgreSQL: statements a message', sum((row) => row.calls).toFixed(2));
  const us = (sum((row) => row.ms + row.plan) * 1000).toFixed(0);
  line(
    'PostgreSQL: executed and planned, us a message by the clock',
    `${us} (planned ${(sum((row) => row.plan) * 1000).toFixed(0)})`,
  );
  for (const { calls, ms, plan, rows: moved, top: own, text } of rows.slice(0, 60)) {
    const figures = [calls / messages, (ms * 1000) / messages, (plan * 1000) / messages, moved / calls];
    console.log(
      `  ${own ? ' ' : '>'} ${figures.map((figure) => figure.toFixed(2).padStart(8)).join(' ')}  ${text.slice(0, 110)}`,
    );
  }
}

/** Processor time of a process of this machine, us. */
function cpu(pid: number | undefined): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

async function counts(side: Side): Promise<{ delivered: number; repeated: number }> {
  return (await (await fetch(`http://127.0.0.1:${side.sinkPort}/count`)).json()) as never;
}

/** Bodies for so many connections. Each has destinations of its own: they spread over the carrier's lanes, as a campaign's do. */
function bodies(side: Side): string[] {
  return Array.from({ length: CONNECTIONS }, (_, n) => body(side, n * DESTINATIONS));
}

function body(side: Side, from: number): string {
  return JSON.stringify({
    messages: [
      {
        sender: '441134960000',
        destinations: Array.from({ length: DESTINATIONS }, (_, i) => ({ to: String(441134960001 + from + i) })),
        content: {
          title: 'Some title',
          messageSegments: [
            { type: 'TEXT', text: 'Some text, long enough to look like a real alert of a real customer.' },
          ],
        },
        webhooks: { delivery: { url: `http://127.0.0.1:${side.sinkPort}/hook` } },
      },
    ],
  });
}

interface Figures {
  done: number;
  perSecond: number;
  cpuUs: number;
  sessionsUs: number | null;
  p99: number;
  refused: number;
}

async function round(side: Side, ms: number): Promise<Figures> {
  const before = await counts(side);
  const [cpuBefore, sessionsBefore] = [cpu(side.child.pid), await side.sessions()];
  const load: Load = {
    port: side.ports.api,
    path: '/mms/2/messages',
    headers: { authorization: `App ${KEY}` },
    body: bodies(side),
    connections: CONNECTIONS,
    ms,
  };
  const begin = performance.now();
  const result = JSON.parse(await startLine('load.ts', JSON.stringify(load))) as LoadResult;
  if (result.bad > 0 || result.ok === 0) {
    throw new Error(`wrong on ${side.name}: ${result.ok} good and ${result.bad} bad answers: ${result.badWords}`);
  }
  const accepted = result.ok * DESTINATIONS;
  let done = 0;
  let progress = performance.now();
  for (;;) {
    const { delivered } = await counts(side);
    if (delivered - before.delivered > done) progress = performance.now();
    done = delivered - before.delivered;
    if (done >= accepted || performance.now() - progress > PATIENCE_MS) break;
    await wait(20);
  }
  const seconds = (performance.now() - begin) / 1000;
  if (done !== accepted) throw new Error(`wrong: ${accepted} accepted, ${done} told delivered on ${side.name}`);
  const sessions = await side.sessions();
  return {
    done,
    perSecond: done / seconds,
    cpuUs: (cpu(side.child.pid) - cpuBefore) / done,
    sessionsUs: sessions === null || sessionsBefore === null ? null : (sessions - sessionsBefore) / done,
    p99: result.p99,
    refused: result.refused / (result.ok + result.refused),
  };
}

const median = (of: number[]): number => [...of].sort((a, b) => a - b)[Math.floor(of.length / 2)] ?? 0;
const show = (of: number[], digits: number): string =>
  `${median(of).toFixed(digits)} [${Math.min(...of).toFixed(digits)}..${Math.max(...of).toFixed(digits)}]`;
const line = (name: string, value: string): void => console.log(`${name.padEnd(66)} ${value}`);

async function main(server: string): Promise<void> {
  const admin = new pg.Client({ connectionString: server });
  await admin.connect();
  const database = `postcard_engines_${process.pid}`;
  await admin.query(`CREATE DATABASE ${database}`);
  try {
    const url = new URL(server);
    url.pathname = `/${database}`;
    /** Sessions live as long as the server that opened them. */
    async function sessions(): Promise<number | null> {
      const { rows } = await admin.query('SELECT pid FROM pg_stat_activity WHERE datname = $1', [database]);
      const pids = (rows as { pid: number }[]).map(({ pid }) => pid).filter((pid) => existsSync(`/proc/${pid}/stat`));
      return pids.length === 0 ? null : pids.reduce((sum, pid) => sum + cpu(pid), 0);
    }
    const sides = [
      ...(given.only ? [] : [await startSide('embedded', null, async () => null)]),
      await startSide('postgresql', url.href, sessions),
    ];
    const figures = new Map<Side, Figures[]>(sides.map((side) => [side, []]));
    // Compilers have done most of their work by the end of it, and plans are made.
    for (const side of sides) await round(side, MS);
    if (given.statements) {
      const extension = 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements; SELECT pg_stat_statements_reset()';
      await admin.query(extension);
    }
    for (let n = 0; n < ROUNDS; n++) {
      const order = n % 2 === 0 ? sides : [...sides].reverse();
      for (const side of order) figures.get(side)?.push(await round(side, MS));
    }
    const [postgres = [], embedded = []] = [...figures.values()].reverse();
    console.log(
      `${ROUNDS} rounds in turns after one of warm-up, bursts of ${MS / 1000} s, ${CONNECTIONS} connections, ${DESTINATIONS} destination(s) a ` +
        `request, carrier: ${given.carrier}; median [min..max]\nnode ${process.version}, ${cpus().length} processors, load ${loadavg()[0]?.toFixed(1)}`,
    );
    for (const [name, of] of [
      ['embedded', embedded],
      ['PostgreSQL', postgres],
    ] as const) {
      if (of.length === 0) continue;
      line(
        `${name}: messages/s`,
        show(
          of.map((one) => one.perSecond),
          0,
        ),
      );
      line(
        `${name}: CPU us a message in the server's process`,
        show(
          of.map((one) => one.cpuUs),
          0,
        ),
      );
      line(
        `${name}: accept p99 under full dispatch, ms`,
        show(
          of.map((one) => one.p99),
          1,
        ),
      );
      const refused = of.map((one) => one.refused * 100);
      if (Math.max(...refused) > 0) line(`${name}: refused as too much at once (429), % of requests`, show(refused, 1));
    }
    const inSessions = postgres.flatMap(({ sessionsUs }) => (sessionsUs === null ? [] : [sessionsUs]));
    if (inSessions.length > 0) line('PostgreSQL: CPU us a message in its sessions', show(inSessions, 0));
    if (given.statements) {
      await statements(
        admin,
        database,
        postgres.reduce((all, one) => all + one.done, 0),
      );
    }
    if (given.only) return;
    const ratios = postgres.map((one, n) => one.perSecond / (embedded[n] as Figures).perSecond);
    line(`RATIO PostgreSQL / embedded, messages/s (aim >= ${AIM})`, show(ratios, 2));
  } finally {
    for (const child of children) child.kill('SIGKILL');
    await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
    await admin.end();
  }
}

try {
  if (!SERVER) throw new Error('name a server: --postgres postgres://...');
  await main(SERVER);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
}
