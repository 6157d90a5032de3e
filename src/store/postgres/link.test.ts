/** How a connection to PostgreSQL heals, against a server of the test's own that speaks just enough and misbehaves exactly. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type Clock, realEnv, type TestClock, testEnv } from '../../env.ts';
import { StoreUnavailable } from '../contract.ts';
import { createLink, type Link, type LinkOptions } from './link.ts';

// ------------------------------------------------------------------------------------------------------------ the server

const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};
const int16 = (value: number): Buffer => int32(value).subarray(2);
const word = (text: string): Buffer => Buffer.from(`${text}\0`);

/** A message of the protocol: its letter, its length, its content. */
function message(letter: string, ...content: Buffer[]): Buffer {
  const body = Buffer.concat(content);
  return Buffer.concat([Buffer.from(letter), int32(body.length + 4), body]);
}

const READY = message('Z', Buffer.from('I'));
const GREETING = Buffer.concat([message('R', int32(0)), READY]);
const GOODBYE = message(
  'E',
  ...['SFATAL', 'VFATAL', 'C57P01', 'Mterminating connection due to administrator command'].map(word),
  Buffer.from([0]),
);

/** One row, [name, type, value] for each column, and the end of the command. */
function row(columns: [string, number, string][]): Buffer {
  const heads = columns.map(([name, type]) =>
    Buffer.concat([word(name), int32(0), int16(0), int32(type), int16(-1), int32(-1), int16(0)]),
  );
  const values = columns.map(([, , value]) => Buffer.concat([int32(Buffer.byteLength(value)), Buffer.from(value)]));
  return Buffer.concat([
    message('T', int16(columns.length), ...heads),
    message('D', int16(columns.length), ...values),
    message('C', word('SELECT 1')),
    READY,
  ]);
}

const [BOOLEAN, INTEGER, TEXT] = [16, 23, 25];
const FIRST_ANSWER = row([
  ['version', INTEGER, '150004'],
  ['fsync', TEXT, 'on'],
  ['pages', TEXT, 'on'],
  ['commit', TEXT, 'on'],
  ['standby', BOOLEAN, 'f'],
  ['readonly', TEXT, 'off'],
  ['pid', INTEGER, '7'],
  ['started', TEXT, 'then'],
]);
const BEGUN = row([
  ['now', INTEGER, '1000'],
  ['block', INTEGER, '5'],
]);
const DONE = Buffer.concat([message('C', word('SET')), READY]);

/** A statement failed; the transaction is of no use any more. */
const failed = (code: string, words: string): Buffer =>
  Buffer.concat([
    message('E', ...['SERROR', 'VERROR', `C${code}`, `M${words}`].map(word), Buffer.from([0])),
    message('Z', Buffer.from('E')),
  ]);

/** What a transaction asks behind its BEGIN. */
const isFirst = (text: string): boolean => text.startsWith('WITH marked');

function answerTo(text: string): Buffer {
  if (text.includes('server_version_num')) return FIRST_ANSWER;
  if (isFirst(text)) return BEGUN;
  if (text.includes('SET synchronous_commit')) return row([['commit', TEXT, 'on']]);
  return DONE;
}

const servers: Server[] = [];
const sockets = new Set<Socket>();

/**
 * Starts a server. `behave` says what it does with the question `text` of its connection number `connection`, counted from 1:
 * bytes to send, or null = it says nothing. `connections` counts.
 */
async function serve(
  behave: (connection: number, text: string, socket: Socket) => Buffer | null,
  greet: (connection: number, socket: Socket) => boolean = () => true,
): Promise<{ url: string; connections(): number }> {
  let count = 0;
  const server = createServer((socket) => {
    const connection = ++count;
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    let bytes = Buffer.alloc(0);
    let started = false;
    /** Prepared statements by name, the one that is bound, and what is to be said before its answer. */
    const prepared = new Map<string, string>();
    let bound = '';
    let before: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      for (;;) {
        const head = started ? 1 : 0;
        if (bytes.length < head + 4) return;
        const end = head + bytes.readInt32BE(head);
        if (bytes.length < end) return;
        const content = bytes.subarray(head + 4, end);
        const text = content.subarray(0, -1).toString();
        const letter = started ? String.fromCharCode(bytes[0] as number) : '';
        bytes = bytes.subarray(end);
        if (!started) {
          started = true;
          if (greet(connection, socket)) socket.write(GREETING);
          continue;
        }
        const words = content.toString('latin1').split('\0');
        if (letter === 'P') prepared.set(words[0] ?? '', words[1] ?? '');
        if (letter === 'P') before.push(message('1'));
        if (letter === 'B') bound = prepared.get(words[1] ?? '') ?? '';
        if (letter === 'B') before.push(message('2'));
        if (letter !== 'Q' && letter !== 'S') continue;
        const answer = behave(connection, letter === 'Q' ? text : bound, socket);
        if (answer !== null) socket.write(Buffer.concat([...before, answer]));
        before = [];
      }
    });
  });
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { url: `postgres://postcard@127.0.0.1:${port}/postcard`, connections: () => count };
}

function linkTo(url: string, clock: Clock, writes = true, more: Partial<LinkOptions> = {}): Link {
  const { log } = testEnv();
  const places = { next: 0, end: 0 };
  const onLost = (): void => undefined;
  const wall = { role: null };
  const base = { schema: 'postcard', node: 'n', purpose: 'test', testNow: null, log, clock, places, onLost, wall };
  return createLink({ ...base, ...more, url, writes });
}

afterEach(async () => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  for (const server of servers.splice(0)) server.close();
});

/** Lets virtual time pass until `work` has ended; real sockets answer meanwhile. */
async function pass<Result>(clock: TestClock, work: Promise<Result>, limitMs: number): Promise<Result> {
  let ended = false;
  const end = (): void => {
    ended = true;
  };
  work.then(end, end);
  for (let passed = 0; !ended; passed += 100) {
    if (passed > limitMs) throw new Error(`has not ended within ${limitMs} ms`);
    await clock.advance(100);
    await heardAll();
  }
  return work;
}

/** What is on its way between the two ends of a local socket has arrived. */
async function heardAll(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

// ------------------------------------------------------------------------------------------------------------- the tests

describe('a connection to PostgreSQL', () => {
  it('that ends in the same piece as its last first answer is not used for ever', async () => {
    const server = await serve((connection, text) => {
      const last = text.includes('plan_cache_mode');
      return connection === 1 && last ? Buffer.concat([answerTo(text), GOODBYE]) : answerTo(text);
    });
    const link = linkTo(server.url, realEnv({ level: 'silent' }).clock);
    expect(await link.query('SELECT 1', undefined, 10_000)).toEqual([]);
    expect(server.connections()).toBe(2);
  });

  it('is closed although the server does not answer any more', async () => {
    const { clock } = testEnv();
    let silent = false;
    const server = await serve((_, text) => (silent ? null : answerTo(text)));
    for (const writes of [true, false]) {
      silent = false;
      const link = linkTo(server.url, clock, writes);
      await pass(clock, link.query('SELECT 1', undefined, 10_000), 10_000);
      silent = true;
      await pass(clock, link.close(), 20_000);
    }
    expect(server.connections()).toBe(2);
  });

  it('whose listener gets no answer is given up for another one', async () => {
    const { clock } = testEnv();
    const server = await serve((connection, text) =>
      connection === 1 && text.startsWith('LISTEN') ? null : answerTo(text),
    );
    const link = linkTo(server.url, clock, false);
    link.onConnect(async (client) => {
      await client.query('LISTEN there');
    });
    expect(await pass(clock, link.query('SELECT 1', undefined, 60_000), 60_000)).toEqual([]);
    expect(server.connections()).toBe(2);
  });

  it('is waited for twice as long after each one that said nothing', async () => {
    const { clock } = testEnv();
    const arrived: number[] = [];
    const server = await serve(
      (_, text) => answerTo(text),
      (connection) => {
        arrived.push(clock.monotonic());
        return connection === 6;
      },
    );
    const link = linkTo(server.url, clock);
    await pass(clock, link.query('SELECT 1', undefined, 90_000), 90_000);
    const waits = arrived.slice(1).map((at, index) => at - (arrived[index] as number));
    // Each is the wait for a greeting and the back-off behind it.
    for (const [index, least] of [3_000, 6_000, 12_000, 12_000, 12_000].entries()) {
      expect(waits[index]).toBeGreaterThanOrEqual(least);
      expect(waits[index]).toBeLessThan(least + 2_500);
    }
  });

  it('is kept when a process that was paused finds its limit over and the answer in the socket', async () => {
    const { clock } = testEnv();
    let paused = 0;
    const held: { socket: Socket; answer: Buffer; at: number }[] = [];
    const server = await serve((_, text, socket) => {
      if (text !== 'SELECT 2') return answerTo(text);
      held.push({ socket, answer: answerTo(text), at: clock.monotonic() });
      return null;
    });
    const link = linkTo(server.url, {
      ...clock,
      monotonic: () => clock.monotonic() + paused,
      setTimeout(run, ms) {
        // The pause is over in the moment in which the first limit that it hid runs out.
        const wake = (): void => {
          if (paused === 0 && held.some(({ at }) => clock.monotonic() - at >= 9_500)) {
            paused = 60_000;
            for (const { socket, answer } of held) socket.write(answer);
          }
          run();
        };
        return clock.setTimeout(wake, ms);
      },
    });
    await pass(clock, link.query('SELECT 1', undefined, 10_000), 10_000);
    expect(await pass(clock, link.query('SELECT 2', undefined, 10_000), 30_000)).toEqual([]);
    expect(paused).toBe(60_000);
    expect(server.connections()).toBe(1);
  });

  it('that brings the tables up to date waits for a long step, and repeats none on a connection that is in no transaction', async () => {
    const { clock } = testEnv();
    let asked = 0;
    const server = await serve((_, text, socket) => {
      if (text !== 'ALTER TABLE spec') return answerTo(text);
      asked++;
      if (asked === 1) clock.setTimeout(() => socket.write(DONE), 60_000);
      else socket.destroy();
      return null;
    });
    const link = linkTo(server.url, clock, false, { setupMs: 620_000 });
    expect(await pass(clock, link.query('ALTER TABLE spec', undefined, 10_000), 70_000)).toEqual([]);
    expect(asked).toBe(1);
    const lost = link.query('ALTER TABLE spec', undefined, 10_000).catch((error: unknown) => error);
    expect(await pass(clock, lost, 10_000)).toBeInstanceOf(StoreUnavailable);
    expect(asked).toBe(2);
  });

  it('says why its BEGIN failed, not that what it asked behind it came too late', async () => {
    const { clock } = testEnv();
    let begun = 0;
    const server = await serve((_, text) => {
      // The first draws places; the second is asked behind its BEGIN, and both answers come in one piece.
      if (isFirst(text) && ++begun === 2) return null;
      if (text !== 'SELECT mine') return answerTo(text);
      return Buffer.concat([failed('53100', 'disk full'), failed('25P02', 'current transaction is aborted')]);
    });
    const link = linkTo(server.url, clock);
    const run = (text: string): Promise<unknown> =>
      pass(
        clock,
        link
          .transaction(
            (tx) => tx.query(text),
            1_500,
            () => undefined,
            true,
          )
          .catch((error: unknown) => error),
        60_000,
      );
    expect(await run('SELECT another')).toEqual([]);
    expect(await run('SELECT mine')).toMatchObject({ code: '53100' });
  });

  it('whose BEGIN is cancelled goes on with nothing that would happen outside a transaction', async () => {
    const { clock } = testEnv();
    const asked: string[] = [];
    let begins = 0;
    const server = await serve((_, text) => {
      asked.push(text);
      return text.startsWith('BEGIN') && ++begins === 2 ? failed('57014', 'canceling statement') : answerTo(text);
    });
    const link = linkTo(server.url, clock);
    const run = (first: string, second: string): Promise<unknown> =>
      pass(
        clock,
        link
          .transaction(
            async (tx) => {
              await tx.query(first);
              if (tx.now > 0) await tx.query(second);
            },
            1_500,
            () => undefined,
            true,
          )
          .catch((error: unknown) => error),
        60_000,
      );
    // The first draws places; the second is asked behind its BEGIN.
    expect(await run('SELECT one', 'UPDATE one')).toBe(undefined);
    expect(await run('SELECT two', 'UPDATE two')).toMatchObject({ code: '57014' });
    expect(await run('SELECT three', 'UPDATE three')).toBe(undefined);
    expect(asked.filter((text) => /^(UPDATE|COMMIT|ROLLBACK)/.test(text))).toEqual([
      ...['UPDATE one', 'COMMIT', 'ROLLBACK', 'UPDATE three', 'COMMIT'],
    ]);
    expect(server.connections()).toBe(1);
  });

  it('whose BEGIN is cancelled answers no read of an account, which nobody would have stood behind', async () => {
    const { clock } = testEnv();
    let begins = 0;
    const server = await serve((_, text) =>
      text.startsWith('BEGIN') && ++begins === 1 ? failed('57014', 'canceling statement') : answerTo(text),
    );
    const link = linkTo(server.url, clock, false, { wall: { role: 'account' } });
    const read = (): Promise<unknown> =>
      pass(
        clock,
        link.reads(1, (ask) => ask.query('SELECT mine'), 1_500).catch((error: unknown) => error),
        60_000,
      );
    expect(await read()).toMatchObject({ code: '57014' });
    expect(await read()).toEqual([]);
    expect(server.connections()).toBe(1);
  });

  it('lost for long at a commit says that nobody knows, and nothing of that kind where nothing was committed', async () => {
    const { clock } = testEnv();
    let away = false;
    const server = await serve((connection, text, socket) => {
      if (connection === 1 && text === 'COMMIT') away = true;
      if (!away) return answerTo(text);
      socket.destroy();
      return null;
    });
    const link = linkTo(server.url, clock);
    const write = (): Promise<unknown> =>
      link.transaction(
        (tx) => tx.query('UPDATE it'),
        1_500,
        () => undefined,
      );
    const why = (work: Promise<unknown>): Promise<unknown> =>
      pass(
        clock,
        work.catch((error: unknown) => error),
        60_000,
      );
    const unknown = await why(write());
    expect(unknown).toBeInstanceOf(StoreUnavailable);
    expect(unknown).toMatchObject({ unknown: true });
    const refused = await why(write());
    expect(refused).toBeInstanceOf(StoreUnavailable);
    expect(refused).toMatchObject({ unknown: false });
  });
});
