/**
 * Torture with real processes: a customer that sends through a fault proxy, one node on SQLite or two on PostgreSQL, an MMSC, an
 * SMSC and a webhook receiver. A cycle is load, one to three faults drawn from the seed, healing, and a comparison of four logs:
 * what the client was told, what the store says, what the carrier got, what the receiver was told.
 *
 * What must hold, whatever happened: each acknowledged message is in the store (G1, G2); a repeat under the same messageId or
 * Idempotency-Key sends nothing twice (G3); one final status, the one that the carrier reported first (G4, G5); at the
 * carrier one transaction id a message, and further copies only after outcomes that were unknown (G6); an SMS follows exactly those
 * MMS that failed and asked for it; each final is
 * reported and never two different ones (G10); a refusal is a 503 (or 429) with Retry-After that means it, never a 500 (G15); a process that ends
 * does so because we ended it, and with 0 after SIGTERM (G14).
 *
 * Messages that may rightly wait longer than a cycle (a lost lease, a webhook's first retry after a minute) are carried along
 * and judged when they end; `drain` waits for all of them. The seed decides faults and load, not the machine's timing.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Cluster, startCluster } from './cluster.ts';
import { type Journal, openJournal } from './journal.ts';
import { digest, fateOf, type Mmsc, type Receiver, startMmsc, startReceiver } from './peers.ts';
import { type FaultProxy, type ProxyFault, startProxy, type Way } from './proxy.ts';
import {
  call,
  eventually,
  failpointFile,
  freePorts,
  type Ports,
  type Postcard,
  ready,
  spawnPostcard,
  wait,
} from './server.ts';
import { type Smsc, startSmsc } from './smsc.ts';

export type Engine = 'sqlite' | 'postgres';

const CARRIER = 'mmsc';
const SMS_CARRIER = 'smsc';
const DATABASE = 'torture';
const SENDERS = 8;
/** A request without an answer in this time is one whose outcome the client does not know. */
const CLIENT_MS = 5_000;
/** After healing: ready again, each customer answered, fresh work done. Generous: the promises say 30 s and 90 s. */
const HEAL_MS = 90_000;
/** Nothing of it was done, come back: the store is away; more is under way than the node takes on at a time. */
const REFUSALS: ReadonlySet<number> = new Set([503, 429]);
/** A stop may take 35 s (G14), and the machine is slow. */
const STOP_MS = 40_000;

// ---------------------------------------------------------------------------------------------------------------- chance

/** Numbers in [0, 1) from a seed (mulberry32). */
export function chance(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The text of an SMS failover. */
const textFor = (to: string): string => `text to ${to}`;
/** Delivered. */
const SMS_FINAL = 5;

type Draw = () => number;

const between = (draw: Draw, low: number, high: number): number => low + draw() * (high - low);
const pick = <Item>(draw: Draw, items: readonly Item[]): Item => items[Math.floor(draw() * items.length)] as Item;

// ------------------------------------------------------------------------------------------------------------------ rig

export interface RigOptions {
  engine: Engine;
  seed: number;
  /** Default: 1 on SQLite, 2 on PostgreSQL. */
  nodes?: number;
  /** Where the nodes' directories are made; default a fresh temporary one, which `close` removes. */
  dir?: string;
  /** Where PostgreSQL's own directory is made; default the temporary directory. */
  clusterParent?: string;
  /** More settings for the nodes. */
  settings?: Record<string, string>;
  /** How long a carrier's answer may take; default 3 s. */
  carrierMs?: number;
}

export interface CycleOptions {
  /** Names of faults to choose from; default all of the engine's. */
  faults?: readonly string[];
  /** Whether faults between us and the receiver may be drawn: each costs a minute of webhook retry. */
  hooks?: boolean;
  /** Pauses of 20 to 70 s are drawn too. */
  longPauses?: boolean;
  /** Faults in one cycle at most; default 3. */
  most?: number;
}

export interface CycleResult {
  faults: string[];
  acknowledged: number;
  /** Requests that ended without a definite answer, and answers 503 or 429. */
  unanswered: number;
  refused: number;
  /** Judged in this cycle, and carried into the next. */
  judged: number;
  carried: number;
  /** From the end of the faults until every node was ready and every customer answered. */
  healMs: number;
  tookMs: number;
}

export interface Totals {
  requests: number;
  acknowledged: number;
  unanswered: number;
  refused: number;
  judged: number;
  /** Copies at the carrier beyond the first; each is justified or a violation. */
  copies: number;
  /** Messages that an SMS followed, and copies of those beyond the first. */
  texts: number;
  textCopies: number;
  /** Webhook reports beyond the first of a message. */
  repeatedReports: number;
  faults: Record<string, number>;
  longestHealMs: number;
}

interface Node {
  name: string;
  dir: string;
  ports: Ports;
  door: FaultProxy;
  listener: FaultProxy;
  server: Postcard | null;
  /** We have ended it, or are about to. */
  ended: boolean;
  starting: Promise<void> | null;
}

interface Message {
  id: string;
  to: string;
}

/** What the client journal says: `told` = the answer 200. */
type ClientLine = { kind: 'told'; id: string; to: string } | { kind: 'unknown' | 'refused'; to: string[] };

interface StoryAnswer {
  status: { id: number; groupId: number };
  attempts: { channel: 'MMS' | 'SMS'; outcome: string; transactionId: string; words: string }[];
  events: { status: { id: number; groupId: number } }[];
}

/** Nothing changes a status of these groups any more. */
const isFinal = (status: { groupId: number }): boolean => status.groupId >= 2;

export class Rig {
  readonly engine: Engine;
  readonly violations: string[] = [];
  readonly totals: Totals = {
    requests: 0,
    acknowledged: 0,
    unanswered: 0,
    refused: 0,
    judged: 0,
    copies: 0,
    texts: 0,
    textCopies: 0,
    repeatedReports: 0,
    faults: {},
    longestHealMs: 0,
  };
  readonly nodes: Node[] = [];
  readonly dir: string;
  mmsc!: Mmsc;
  smsc!: Smsc;
  receiver!: Receiver;
  cluster: Cluster | null = null;
  private readonly options: RigOptions;
  private readonly draw: Draw;
  private readonly ownDir: boolean;
  private client!: Journal;
  private toMmsc!: FaultProxy;
  private toSmsc!: FaultProxy;
  private toReceiver!: FaultProxy;
  private toDatabase: FaultProxy | null = null;
  private number = 491_500_000_000;
  private upload: string | null = null;
  private uploads = 0;
  /** Acknowledged and not judged yet. */
  private readonly open = new Map<string, Message>();
  private readonly judged = new Map<string, { to: string; status: number; copies: number; texts: number }>();
  /** Numbers whose request got no definite answer: the message may exist. */
  private readonly maybe = new Set<string>();
  /** Numbers whose only request was refused: nothing of it may have happened. */
  private readonly refused = new Set<string>();

  private constructor(options: RigOptions) {
    this.options = options;
    this.engine = options.engine;
    this.draw = chance(options.seed);
    this.ownDir = options.dir === undefined;
    this.dir = options.dir ?? mkdtempSync(join(tmpdir(), 'postcard-torture-'));
  }

  static async start(options: RigOptions): Promise<Rig> {
    const rig = new Rig(options);
    try {
      await rig.build();
      return rig;
    } catch (error) {
      await rig.close();
      throw error;
    }
  }

  private async build(): Promise<void> {
    // The parties' logs lie apart from the nodes: those may run on a disk that is made full.
    const logs = mkdtempSync(join(tmpdir(), 'postcard-torture-logs-'));
    this.logs = logs;
    this.client = openJournal(join(logs, 'client.log'));
    this.mmsc = await startMmsc(join(logs, 'carrier.log'), CARRIER);
    this.receiver = await startReceiver(join(logs, 'receiver.log'));
    this.smsc = await startSmsc(join(logs, 'smsc.log'));
    this.toMmsc = await startProxy(this.mmsc.port);
    this.toSmsc = await startProxy(this.smsc.port);
    this.toReceiver = await startProxy(this.receiver.port);
    if (this.engine === 'postgres') {
      this.cluster = await startCluster([DATABASE], this.options.clusterParent);
      this.toDatabase = await startProxy(this.cluster.port);
    }
    const count = this.options.nodes ?? (this.engine === 'postgres' ? 2 : 1);
    for (let n = 1; n <= count; n++) {
      const dir = join(this.dir, `node${n}`);
      mkdirSync(dir, { recursive: true });
      const ports = await freePorts();
      const node: Node = {
        name: `node${n}`,
        dir,
        ports,
        door: await startProxy(ports.api),
        listener: await startProxy(ports.carrier),
        server: null,
        ended: true,
        starting: null,
      };
      this.mmsc.reportTo.push(node.listener.port);
      this.nodes.push(node);
      // JSON is YAML. A short time-out makes short leases.
      const timeoutMs = this.options.carrierMs ?? 3_000;
      const carrier = {
        name: CARRIER,
        type: 'mm7',
        url: `http://127.0.0.1:${this.toMmsc.port}/mm7`,
        vaspId: 'postcard',
        onUnknown: 'retry',
        concurrency: 32,
        timeoutMs,
      };
      const sms = {
        name: SMS_CARRIER,
        type: 'smpp',
        host: '127.0.0.1',
        port: this.toSmsc.port,
        systemId: 'torture',
        password: 'torture',
        onUnknown: 'retry',
        timeoutMs,
        enquireLinkMs: 1_000,
      };
      writeFileSync(join(dir, 'postcard.yaml'), JSON.stringify({ carriers: [carrier, sms] }));
      await this.startNode(node);
    }
  }

  private logs = '';

  private settings(): Record<string, string> {
    return {
      POSTCARD_SANDBOX: 'false',
      POSTCARD_OUTBOUND_ALLOW: '127.0.0.0/8',
      ...(this.cluster && this.toDatabase ? { POSTCARD_STORE: this.cluster.url(DATABASE, this.toDatabase.port) } : {}),
      ...this.options.settings,
    };
  }

  private startOptions(): { settings: Record<string, string>; args: string[]; failpoint: boolean } {
    const args = this.engine === 'postgres' ? ['--roles', 'api,dispatch,webhooks'] : [];
    return { settings: this.settings(), args, failpoint: this.engine === 'sqlite' };
  }

  /** Starts a node that we have ended, again and again until it stands: what it needs may be away. */
  startNode(node: Node): Promise<void> {
    node.starting ??= (async () => {
      for (const until = Date.now() + HEAL_MS; ; ) {
        const server = spawnPostcard(node.dir, node.ports, this.startOptions());
        node.server = server;
        try {
          await ready(server, HEAL_MS);
          node.ended = false;
          return;
        } catch (error) {
          await server.end('SIGKILL');
          if (Date.now() > until) throw error;
          await wait(300);
        }
      }
    })().finally(() => {
      node.starting = null;
    });
    return node.starting;
  }

  /** Ends a node by a signal; the exit code and how long it took. */
  async endNode(node: Node, signal: NodeJS.Signals): Promise<{ code: number | null; tookMs: number }> {
    await node.starting;
    node.ended = true;
    const began = Date.now();
    const server = node.server as Postcard;
    const late = setTimeout(() => server.child.kill('SIGKILL'), STOP_MS + 20_000);
    const code = await server.end(signal);
    clearTimeout(late);
    return { code, tookMs: Date.now() - began };
  }

  violate(words: string): void {
    this.violations.push(words);
  }

  /** A second process on the first node's directory; resolves with its exit code and what it said. */
  async second(): Promise<{ code: number | null; output: string }> {
    const { dir } = this.nodes[0] as Node;
    const intruder = spawnPostcard(dir, await freePorts(), { settings: this.settings() });
    const late = setTimeout(() => intruder.child.kill('SIGKILL'), HEAL_MS);
    await eventually(HEAL_MS + 5_000, () => !intruder.running());
    clearTimeout(late);
    return { code: intruder.child.exitCode, output: intruder.output() };
  }

  // --------------------------------------------------------------------------------------------------------------- load

  /** Sends until `on()` is false; then customers who may repeat their request insist until they are answered. */
  load(on: () => boolean, count: { acknowledged: number; unanswered: number; refused: number }): Promise<unknown> {
    return Promise.all(
      Array.from({ length: SENDERS }, async (_, sender) => {
        const draw = chance(Math.floor(this.draw() * 2 ** 32));
        while (on()) {
          await this.send(this.nodes[sender % this.nodes.length] as Node, draw, on, count);
          await wait(5 + draw() * 20);
        }
      }),
    );
  }

  /** One request: `plain` is sent once, the others are repeated until the answer is known. Its numbers, null = not taken. */
  private async send(
    node: Node,
    draw: Draw,
    on: () => boolean,
    count: { acknowledged: number; unanswered: number; refused: number },
  ): Promise<string[] | null> {
    const kind = pick(draw, ['plain', 'messageId', 'key'] as const);
    const size = draw() < 0.1 ? 5 : 1;
    const to = Array.from({ length: size }, () => String(++this.number));
    const own = kind === 'messageId' ? to.map((one) => `own-${one}`) : [];
    const upload = draw() < 0.2 ? this.upload : null;
    const body = JSON.stringify({
      messages: to.map((one, n) => ({
        sender: 'Torture',
        destinations: [{ to: one, ...(own[n] ? { messageId: own[n] } : {}) }],
        content: {
          messageSegments: [
            { type: 'TEXT', text: `message to ${one}` },
            ...(upload ? [{ type: 'UPLOADED_REFERENCE', uploadedContentId: upload }] : []),
          ],
        },
        ...(fateOf(one).failover ? { options: { smsFailover: { sender: '4477', text: textFor(one) } } } : {}),
        webhooks: { delivery: { url: `http://127.0.0.1:${this.toReceiver.port}/reports` } },
      })),
    });
    const headers = kind === 'key' ? { 'idempotency-key': `key-${to[0]}` } : {};
    let unknown = false;
    let insistUntil: number | null = null;
    for (;;) {
      this.totals.requests++;
      const answer = await this.ask(node, '/mms/2/messages', { method: 'POST', body, headers });
      if (answer !== null && answer.status === 200) {
        const { messages } = answer.body as { messages: { messageId: string; status: { id: number } }[] };
        const bad = messages.filter(
          ({ status }) => status.id !== 26 && !(unknown && own.length > 0 && status.id === 23),
        );
        if (bad.length > 0 || messages.length !== to.length) {
          this.violate(`a request was answered with ${JSON.stringify(messages).slice(0, 300)}`);
        }
        const told = to.map((one, n) => ({ id: own[n] ?? (messages[n]?.messageId as string), to: one }));
        await this.client.write(...told.map((one) => ({ kind: 'told', ...one })));
        for (const one of told) this.open.set(one.id, one);
        for (const one of to) this.maybe.delete(one);
        count.acknowledged += told.length;
        this.totals.acknowledged += told.length;
        return to;
      }
      unknown = true;
      if (answer === null) {
        count.unanswered++;
        this.totals.unanswered++;
      } else if (REFUSALS.has(answer.status)) {
        count.refused++;
        this.totals.refused++;
        if (answer.retryAfter === null) this.violate(`a ${answer.status} without Retry-After`);
      } else this.violate(`a request was answered with ${answer.status}: ${JSON.stringify(answer.body).slice(0, 300)}`);
      if (kind === 'plain') {
        const refused = answer !== null && REFUSALS.has(answer.status);
        for (const one of to) (refused ? this.refused : this.maybe).add(one);
        await this.client.write({ kind: refused ? 'refused' : 'unknown', to });
        return null;
      }
      for (const one of to) this.maybe.add(one);
      if (!on()) insistUntil ??= Date.now() + HEAL_MS;
      if (insistUntil !== null && Date.now() > insistUntil) {
        this.violate(`a customer got no answer within ${HEAL_MS} ms after all was well: ${answer?.status ?? 'none'}`);
        return null;
      }
      await wait(50 + draw() * 100);
    }
  }

  /** Null = no answer. */
  private async ask(
    node: Node,
    path: string,
    init: RequestInit,
  ): Promise<{ status: number; retryAfter: string | null; body: unknown } | null> {
    try {
      const answer = await call(`http://127.0.0.1:${node.door.port}`, path, {
        ...init,
        signal: AbortSignal.timeout(CLIENT_MS),
      });
      const text = await answer.text();
      return {
        status: answer.status,
        retryAfter: answer.headers.get('retry-after'),
        body: text ? JSON.parse(text) : null,
      };
    } catch {
      return null;
    }
  }

  /** Sends one message through each node, again until it is taken; ms until the carrier has them all. */
  async probe(limitMs: number): Promise<number> {
    const began = Date.now();
    const count = { acknowledged: 0, unanswered: 0, refused: 0 };
    const numbers: string[] = [];
    const plain = (): number => 0.2;
    for (const node of this.nodes) {
      let told: string[] | null = null;
      while (told === null && Date.now() - began < limitMs) {
        told = await this.send(node, plain, () => false, count);
        if (told === null) await wait(100);
      }
      numbers.push(...(told ?? []));
    }
    const all = (): boolean =>
      numbers.length === this.nodes.length && numbers.every((to) => this.mmsc.byNumber.has(to));
    await eventually(limitMs - (Date.now() - began), all);
    return all() ? Date.now() - began : Number.POSITIVE_INFINITY;
  }

  /** Content for the messages to come; whatever was uploaded before is used on when this fails. */
  private async uploadOne(): Promise<void> {
    const text = `upload-${++this.uploads}:${digest(`${this.options.seed}/${this.uploads}`).repeat(100)}:end`;
    this.mmsc.contents.add(digest(text));
    const answer = await this.ask(this.nodes[0] as Node, '/mms/1/content', {
      method: 'POST',
      body: text,
      headers: { 'content-type': 'text/plain', 'x-content-id': 'note.txt', 'x-media-type': 'text/plain' },
    });
    if (answer?.status === 200) this.upload = (answer.body as { uploadedContentId: string }).uploadedContentId;
    else if (answer !== null && !REFUSALS.has(answer.status))
      this.violate(`an upload was answered with ${answer.status}`);
  }

  // ------------------------------------------------------------------------------------------------------------- faults

  private proxies(): Record<string, FaultProxy[]> {
    return {
      door: this.nodes.map((node) => node.door),
      carrier: [this.toMmsc, this.toSmsc],
      reports: this.nodes.map((node) => node.listener),
      hook: [this.toReceiver],
      ...(this.toDatabase ? { database: [this.toDatabase] } : {}),
    };
  }

  /** Breaks all connections of one kind for a while. */
  async proxyFault(where: string, fault: ProxyFault, ms: number): Promise<void> {
    const chosen = this.proxies()[where] as FaultProxy[];
    for (const proxy of chosen) proxy.set(fault);
    await wait(ms);
    for (const proxy of chosen) proxy.set({ kind: 'pass' });
  }

  /** A drawn fault: its words, and what does it. `process` ones are done one after the other. */
  private fault(
    name: string,
    options: CycleOptions,
    alone: boolean,
  ): { words: string; process: boolean; run(): Promise<void> } {
    const { draw } = this;
    const node = pick(draw, this.nodes);
    const pauseMs = Math.round(
      options.longPauses && draw() < 0.1 ? between(draw, 20_000, 70_000) : between(draw, 500, 5_000),
    );
    const forMs = Math.round(between(draw, 700, 3_000));
    const where = pick(draw, ['door', 'carrier', 'carrier', 'reports', ...(options.hooks === false ? [] : ['hook'])]);
    const network = pick<ProxyFault>(draw, [
      { kind: 'latency', ms: Math.round(between(draw, 50, 600)) },
      { kind: 'cut' },
      { kind: 'swallow', ways: ['there', 'back'] },
      { kind: 'swallow', ways: ['there'] },
      { kind: 'swallow', ways: ['back'] },
    ]);
    const shown = (place: string): string => {
      const { kind } = network;
      const how =
        kind === 'swallow' ? `${half(network.ways)} half-open` : kind === 'latency' ? `${network.ms} ms late` : kind;
      return `${place} ${how} for ${forMs} ms`;
    };
    switch (name) {
      case 'kill':
        return {
          words: `kill -9 ${node.name}`,
          process: true,
          run: async () => {
            await this.endNode(node, 'SIGKILL');
            await wait(draw() * 300);
          },
        };
      case 'stop':
        return {
          words: `SIGTERM ${node.name}`,
          process: true,
          run: async () => {
            const { code, tookMs } = await this.endNode(node, 'SIGTERM');
            // With the network broken at the same time a stop may have to break things off, but not to take longer.
            if (alone && code !== 0) this.violate(`SIGTERM ended with ${code}:\n${node.server?.output()}`);
            if (tookMs > STOP_MS) this.violate(`SIGTERM took ${tookMs} ms`);
          },
        };
      case 'pause':
        return {
          words: `SIGSTOP ${node.name} for ${pauseMs} ms`,
          process: true,
          run: async () => {
            await node.starting;
            node.server?.child.kill('SIGSTOP');
            await wait(pauseMs);
            node.server?.child.kill('SIGCONT');
          },
        };
      case 'writer': {
        const when = pick(draw, ['before', 'after']);
        return {
          words: `writer thread ended ${when} a commit`,
          process: true,
          run: async () => {
            await node.starting;
            node.ended = true;
            writeFileSync(failpointFile(node.dir), when);
            const server = node.server as Postcard;
            server.child.kill('SIGUSR2');
            if (!(await eventually(STOP_MS, () => !server.running()))) {
              this.violate('the process goes on without its writer thread');
              await server.end('SIGKILL');
            } else if (server.child.exitCode !== 70) {
              this.violate(`without its writer thread the process ended with ${server.child.exitCode}, not 70`);
            }
          },
        };
      }
      case 'database kill':
        return {
          words: 'kill -9 PostgreSQL',
          process: true,
          run: async () => {
            await this.cluster?.kill();
            await wait(draw() * 2_000);
            await this.cluster?.start();
          },
        };
      case 'database restart': {
        const how = pick(draw, ['fast', 'immediate'] as const);
        return {
          words: `PostgreSQL restarted (${how})`,
          process: true,
          run: async () => {
            await this.cluster?.stop(how);
            await wait(draw() * 2_000);
            await this.cluster?.start();
          },
        };
      }
      case 'backend kill':
        return {
          words: 'kill -9 a PostgreSQL backend',
          process: true,
          run: async () => {
            await this.cluster?.killBackend(DATABASE);
          },
        };
      case 'database network':
        return { words: shown('database'), process: false, run: () => this.proxyFault('database', network, forMs) };
      case 'network':
        return { words: shown(where), process: false, run: () => this.proxyFault(where, network, forMs) };
      default:
        throw new Error(`no such fault: ${name}`);
    }
  }

  // -------------------------------------------------------------------------------------------------------------- cycle

  /** Load, faults, healing, comparison. What went wrong is in `violations`. */
  async cycle(options: CycleOptions = {}): Promise<CycleResult> {
    const { draw } = this;
    const began = Date.now();
    const names = options.faults ?? FAULTS[this.engine];
    const chosen = Array.from({ length: 1 + Math.floor(draw() * (options.most ?? 3)) }, () => pick(draw, names));
    const faults = chosen.map((name) => this.fault(name, options, chosen.length === 1));
    for (const name of chosen) this.totals.faults[name] = (this.totals.faults[name] ?? 0) + 1;
    const count = { acknowledged: 0, unanswered: 0, refused: 0 };
    let on = true;
    await this.uploadOne();
    const load = this.load(() => on, count);
    await wait(between(draw, 300, 1_200));
    await Promise.all([
      (async () => {
        for (const fault of faults.filter((one) => one.process)) {
          await fault.run();
          await wait(draw() * 500);
          await this.revive(false);
        }
      })(),
      ...faults
        .filter((one) => !one.process)
        .map(async (fault) => {
          await wait(draw() * 700);
          await fault.run();
        }),
    ]);
    await wait(between(draw, 200, 600));
    on = false;
    const healing = Date.now();
    await this.revive(true);
    await load;
    const healMs = Date.now() - healing;
    this.totals.longestHealMs = Math.max(this.totals.longestHealMs, healMs);
    const before = this.judged.size;
    // What can end at once shall: the rest is carried along.
    for (const until = Date.now() + 2_500; ; ) {
      await this.examine();
      if (this.open.size === 0 || Date.now() > until) break;
      await wait(200);
    }
    return {
      faults: faults.map((fault) => fault.words),
      ...count,
      judged: this.judged.size - before,
      carried: this.open.size,
      healMs,
      tookMs: Date.now() - began,
    };
  }

  /** All that we ended stands again; what ended by itself is a violation. `wait` = and is ready. */
  async revive(untilReady: boolean): Promise<void> {
    await Promise.all(
      this.nodes.map(async (node) => {
        await node.starting;
        if (node.server && !node.server.running() && !node.ended) {
          this.violate(`${node.name} ended by itself with ${node.server.child.exitCode}:\n${node.server.output()}`);
          node.ended = true;
        }
        if (node.ended) {
          const started = this.startNode(node);
          if (untilReady) await started;
          else started.catch(() => undefined);
        } else if (untilReady && node.server) {
          await ready(node.server, HEAL_MS).catch((error: Error) => this.violate(`${node.name}: ${error.message}`));
        }
      }),
    );
  }

  // --------------------------------------------------------------------------------------------------------- comparison

  /** A node to ask, past the proxies. */
  private api(): string {
    return (this.nodes[0] as Node & { server: Postcard }).server.url;
  }

  private async read<Answer>(path: string): Promise<Answer | null> {
    for (const until = Date.now() + HEAL_MS; ; ) {
      const answer = await call(this.api(), path, { signal: AbortSignal.timeout(30_000) }).catch(() => null);
      if (answer?.status === 200) return (await answer.json()) as Answer;
      if (answer?.status === 404) return null;
      if (Date.now() > until) throw new Error(`${path} was answered with ${answer?.status ?? 'nothing'}`);
      await wait(200);
    }
  }

  /** Judges what has ended; finds what is lost. */
  private async examine(): Promise<void> {
    const waiting = [...this.open.values()];
    for (let at = 0; at < waiting.length; at += 50) {
      const chunk = waiting.slice(at, at + 50);
      const query = chunk.map(({ id }) => `messageId=${encodeURIComponent(id)}`).join('&');
      const page = await this.read<{ results: { messageId: string; status: { id: number; groupId: number } }[] }>(
        `/mms/2/logs?limit=1000&${query}`,
      );
      const found = new Map(page?.results.map((one) => [one.messageId, one.status]));
      await Promise.all(
        chunk.map(async (message) => {
          const status = found.get(message.id);
          if (!status) {
            this.open.delete(message.id);
            this.violate(`lost: ${message.id} to ${message.to} was acknowledged and is not in the store`);
          } else if (isFinal(status) && this.receiver.reports.has(message.id)) await this.judge(message);
        }),
      );
    }
  }

  /** Compares what the four parties know of one message that has ended. */
  private async judge({ id, to }: Message): Promise<void> {
    const story = await this.read<StoryAnswer>(`/mms/2/messages/${encodeURIComponent(id)}`);
    if (story === null) {
      this.violate(`lost: ${id} has no story`);
      return;
    }
    const wrong = (words: string): void =>
      this.violate(`${id} to ${to}: ${words}; attempts ${JSON.stringify(story.attempts)}`);
    const transactions = this.mmsc.byNumber.get(to) ?? [];
    const taken = this.mmsc.taken.get(transactions[0] ?? '');
    const finals = new Set(story.events.filter((event) => isFinal(event.status)).map((event) => event.status.id));
    const fate = fateOf(to);
    // The end of an MMS that an SMS follows is in the story too.
    const ends = fate.failover ? [fate.final, SMS_FINAL] : [fate.final];
    if (finals.size !== ends.length || !ends.every((end) => finals.has(end))) {
      wrong(`final statuses in the store: ${[...finals].join(', ')}`);
    }
    const told = new Set(this.receiver.reports.get(id));
    if (told.size !== 1 || !told.has(story.status.id)) {
      wrong(`is ${story.status.id} in the store, and the receiver was told ${[...told].join(', ')}`);
    }
    if (story.status.id !== ends.at(-1)) wrong(`is ${story.status.id}, the carrier reported ${fate.report}`);
    if (transactions.length !== 1) wrong(`the carrier took it under ${transactions.length} transaction ids`);
    if (taken && !taken.intact) wrong('its content did not arrive as it was sent');
    const mms = story.attempts.filter((attempt) => attempt.channel === 'MMS');
    const known = new Set(mms.map((attempt) => attempt.transactionId));
    if (known.size !== 1 || !known.has(transactions[0] ?? '')) {
      wrong(`its transaction is ${[...known].join(', ')} in the store, ${transactions.join(', ')} at the carrier`);
    }
    const of = (outcome: string, channel = 'MMS'): number =>
      story.attempts.filter((attempt) => attempt.channel === channel && attempt.outcome === outcome).length;
    const copies = taken?.copies ?? 0;
    // Each copy but the last was sent because the outcome of the one before was not known.
    if (copies > of('accepted') + of('unknown')) wrong(`${copies} copies at the carrier`);
    if (of('accepted') > 1) wrong('submitted again although it was accepted');
    const texts = this.smsc.byNumber.get(to)?.length ?? 0;
    if (fate.failover) {
      if (texts === 0) wrong('no SMS followed');
      if (texts > of('accepted', 'SMS') + of('unknown', 'SMS')) wrong(`${texts} copies at the SMSC`);
      if (of('accepted', 'SMS') > 1) wrong('its SMS was submitted again although it was accepted');
      const text = [...(this.smsc.texts.get(to) ?? [])];
      if (text.some((one) => one !== textFor(to))) wrong(`its SMS arrived as ${text.join(' | ')}`);
    } else if (texts > 0) wrong(`${texts} SMS followed, and none was asked for`);
    this.open.delete(id);
    this.totals.judged += this.judged.has(id) ? 0 : 1;
    this.judged.set(id, { to, status: story.status.id, copies, texts });
  }

  /** Waits until every message has ended and is reported; those that have not are violations. */
  async drain(limitMs: number, progress: (open: number) => void = () => undefined): Promise<void> {
    await this.revive(true);
    await eventually(limitMs, async () => {
      await this.examine();
      if (this.open.size === 0) return true;
      progress(this.open.size);
      await wait(500);
      return false;
    });
    for (const { id, to } of [...this.open.values()].slice(0, 20)) {
      const story = await this.read<StoryAnswer>(`/mms/2/messages/${encodeURIComponent(id)}`);
      const told = this.receiver.reports.get(id) ?? [];
      this.violate(
        `${id} to ${to} has not ended after ${limitMs} ms: ${JSON.stringify({ ...story, content: undefined })}, told ${told}`,
      );
    }
  }

  /**
   * The whole comparison once more, from the files that the parties wrote: every acknowledged message, whenever it was
   * judged, against what came after. Call it after `drain`.
   */
  async verdict(): Promise<string[]> {
    const told = this.client.read<ClientLine>();
    const acknowledged = new Map(told.flatMap((line) => (line.kind === 'told' ? [[line.id, line.to] as const] : [])));
    const reports = new Map<string, number[]>();
    for (const { id, status } of this.receiver.journal?.read<{ id: string; status: number }>() ?? []) {
      reports.set(id, [...(reports.get(id) ?? []), status]);
    }
    const transactions = new Map<string, Set<string>>();
    const copies = new Map<string, number>();
    for (const line of this.mmsc.journal.read<{ kind: string; tx: string; to: string }>()) {
      if (line.kind !== 'taken' && line.kind !== 'repeated') continue;
      copies.set(line.to, (copies.get(line.to) ?? 0) + 1);
      transactions.set(line.to, (transactions.get(line.to) ?? new Set()).add(line.tx));
    }
    for (const [id, to] of acknowledged) {
      const judged = this.judged.get(id);
      if (!judged) {
        if (!this.open.has(id)) this.violate(`${id} to ${to} was never judged`);
        continue;
      }
      const finals = new Set(reports.get(id));
      if (finals.size !== 1 || !finals.has(judged.status)) {
        this.violate(`${id}: ${judged.status} in the store, the receiver's log says ${[...finals].join(', ')}`);
      }
      this.totals.repeatedReports += (reports.get(id)?.length ?? 1) - 1;
      this.totals.copies += (copies.get(to) ?? 1) - 1;
      // Something came after it was judged.
      const texts = this.smsc.byNumber.get(to)?.length ?? 0;
      if (texts > 0) this.totals.texts++;
      this.totals.textCopies += Math.max(0, texts - 1);
      if (copies.get(to) !== judged.copies || texts !== judged.texts) await this.judge({ id, to });
    }
    const numbers = new Set(acknowledged.values());
    for (const to of this.smsc.byNumber.keys()) {
      if (!numbers.has(to) && !this.maybe.has(to)) this.violate(`${to} got an SMS, and nobody sent to it`);
      if (!transactions.has(to)) this.violate(`${to} got an SMS, and the MMSC nothing`);
    }
    for (const [to, txs] of transactions) {
      if (txs.size > 1) this.violate(`${to} was taken by the carrier under ${[...txs].join(', ')}`);
      if (this.refused.has(to)) this.violate(`${to} was refused (503 or 429), and sent all the same`);
      else if (!numbers.has(to) && !this.maybe.has(to)) this.violate(`${to} is at the carrier, and nobody sent to it`);
    }
    return this.violations;
  }

  /** For the proof that the comparison sees: pretends that the client was told this. */
  async plant({ told, refused }: { told: Message[]; refused: string }): Promise<void> {
    await this.client.write(...told.map((one) => ({ kind: 'told', ...one })));
    for (const one of told) this.open.set(one.id, one);
    this.refused.add(refused);
  }

  /** Ends everything; the directories stay when something went wrong. */
  async close(): Promise<void> {
    for (const node of this.nodes) {
      node.server?.child.kill('SIGCONT');
      await node.server?.end('SIGKILL');
      await node.door.close();
      await node.listener.close();
    }
    await this.toMmsc?.close();
    await this.toSmsc?.close();
    await this.toReceiver?.close();
    await this.toDatabase?.close();
    await this.mmsc?.close();
    await this.smsc?.close();
    await this.receiver?.close();
    await this.client?.close();
    await this.cluster?.close();
    if (this.violations.length > 0) return;
    if (this.ownDir) rmSync(this.dir, { recursive: true, force: true });
    rmSync(this.logs, { recursive: true, force: true });
  }
}

function half(ways: readonly Way[]): string {
  return ways.length === 2 ? 'both ways' : ways[0] === 'there' ? 'there' : 'back';
}

/** Faults of each engine; what stands twice is drawn twice as often. */
export const FAULTS: Record<Engine, readonly string[]> = {
  sqlite: ['kill', 'kill', 'kill', 'stop', 'pause', 'writer', 'network', 'network', 'network'],
  postgres: [
    'kill',
    'kill',
    'stop',
    'pause',
    'database kill',
    'database kill',
    'database restart',
    'backend kill',
    'database network',
    'database network',
    'network',
    'network',
  ],
};
