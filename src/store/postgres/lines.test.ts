/**
 * What a process remembers of a lane: where the scans of wakes begin (never behind one that nobody has taken, however late it was
 * committed), and which rows rest.
 */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../../env.ts';
import { AHEAD_MS } from '../waiting.ts';
import { createLines } from './lines.ts';
import type { Sql, Tx, Value } from './tx.ts';

interface WakeRow {
  no: number;
  line: number;
}

/** A lane's wakes and one line as a server would answer; `held` lines are locked by somebody else. */
function fake(clock: { monotonic(): number }) {
  const wakes = new Map<number, WakeRow>();
  const held = new Set<number>();
  const floors: number[] = [];
  /** Values of the statements that load. */
  const loads: Value[][] = [];
  const done: (() => void)[] = [];
  /** Values of the statements that put to rest. */
  const rests: Value[][] = [];
  /** What rests is for a newer node, so it is never written. */
  const version = { newer: false };
  let seq = 0;
  const unexpected = (): never => {
    throw new Error('not expected');
  };
  const tx: Tx = {
    get now() {
      return 1_000_000 + clock.monotonic();
    },
    early: false,
    begun: Promise.resolve(),
    seq: () => ++seq,
    as: () => undefined,
    hint: () => undefined,
    afterCommit: (run) => done.push(run),
    later: unexpected,
    async query<Row>(statement: Sql | string, values: Value[] = []): Promise<Row[]> {
      const text = typeof statement === 'string' ? statement : statement.text;
      if (text.includes('claim_load')) {
        const floor = values[2] as number;
        floors.push(floor);
        loads.push(values);
        const found = [...wakes.values()].filter(({ no }) => no > floor).sort((a, b) => a.no - b.no);
        const taken = found.filter(({ line }) => !held.has(line));
        for (const { no } of taken) wakes.delete(no);
        const answer = {
          ours: true,
          first: found[0]?.no ?? null,
          last: found.at(-1)?.no ?? null,
          held: found.find(({ line }) => held.has(line))?.no ?? null,
          woken: taken.length === 0 ? null : [...new Set(taken.map(({ line }) => line))],
          low: null,
          turns: 0,
          accounts: taken.length === 0 ? null : [3],
        };
        return [{ found: answer }] as Row[];
      }
      if (text.includes('claim_rest')) {
        rests.push(values);
        const may = values[5] === '{true}' && !version.newer;
        const waiting = [...wakes.keys()].filter((no) => no > (values[2] as number));
        const idle = [[7, 70, null]];
        const accounts = [[3, 30, null]];
        const written = may ? { wroteLines: [7], lines: null } : { wroteLines: null, lines: idle };
        return [
          {
            found: {
              ours: true,
              ...written,
              accounts: may ? null : accounts,
              wroteAccounts: null,
              due: null,
              woken: waiting.length === 0 ? null : Math.min(...waiting),
            },
          },
        ] as Row[];
      }
      if (text.includes('high_water')) {
        const floor = Number(String(values[1]).slice(1, -1));
        const first = [...wakes.keys()].filter((no) => no > floor).sort((a, b) => a - b)[0];
        return [{ lane: 1, now: 1_000_000, woken: first ?? null, due: null }] as Row[];
      }
      return unexpected();
    },
  };
  const add = (no: number, line = no): void => void wakes.set(no, { no, line });
  const commit = (): void => {
    for (const run of done.splice(0)) run();
  };
  return { tx, wakes, held, floors, loads, rests, version, add, commit };
}

/** Takes wakes 101 to 200, one every 50 ms: scans begin behind the first of them by then. */
async function busy(env: ReturnType<typeof testEnv>, server: ReturnType<typeof fake>) {
  const lines = createLines(env.clock);
  for (let no = 101; no <= 200; no++) {
    server.add(no);
    await lines.load(server.tx, 1, true, 64);
    server.commit();
    await env.clock.advance(50);
  }
  return lines;
}

describe('where the scans of wakes begin', () => {
  it('at what was taken last, and every so often a second behind it, so that dead entries are not walked each time', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    await busy(env, server);
    const behind = server.floors.map((floor, at) => 100 + at - floor).slice(50);
    expect(behind.filter((far) => far === 0).length).toBeGreaterThan(30);
    // 50 ms a wake: twenty and more of them are looked at again.
    const late = behind.filter((far) => far > 0 && far < 100);
    expect(late.length).toBeGreaterThanOrEqual(5);
    expect(Math.min(...late)).toBeGreaterThanOrEqual(20);
    expect(Math.max(...late)).toBeLessThanOrEqual(50);
  });

  it('finds a wake that was committed a moment after a higher one', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = await busy(env, server);
    server.add(190);
    await env.clock.advance(200);
    await lines.load(server.tx, 1, true, 64);
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('finds it while every claim takes newer ones and looks behind it at its end', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = await busy(env, server);
    for (let no = 201; no <= 225; no++) {
      server.add(no);
      await lines.load(server.tx, 1, true, 64);
      await lines.served(server.tx, 1, { lines: [], accounts: [], crowded: false });
      server.commit();
      if (no === 201) server.add(190);
      await env.clock.advance(20);
    }
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('finds a wake of a low number that was committed late, by a claim', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = await busy(env, server);
    server.add(50);
    await env.clock.advance(10_000);
    await lines.load(server.tx, 1, true, 64);
    server.commit();
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('finds it by an idle look, and the claim after it takes it', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = await busy(env, server);
    server.add(50);
    await env.clock.advance(10_000);
    expect((await lines.peek(server.tx, [1])).get(1)?.woken).toBe(true);
    await lines.load(server.tx, 1, true, 64);
    server.commit();
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('never begins behind a wake whose line somebody else holds', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    server.add(100, 7);
    server.held.add(7);
    const lines = await busy(env, server);
    expect(Math.max(...server.floors)).toBeLessThan(100);
    server.held.clear();
    await lines.load(server.tx, 1, true, 64);
    server.commit();
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('takes nothing for granted that was rolled back', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    for (let no = 101; no <= 140; no++) {
      server.add(no);
      await lines.load(server.tx, 1, true, 64);
      // No commit.
      await env.clock.advance(100);
    }
    expect(Math.max(...server.floors)).toBe(0);
  });
});

describe('what a full claim owes', () => {
  const line = (no: number, more: { full?: boolean; spent?: boolean } = {}) => ({
    no,
    account: 3,
    full: false,
    seq: no * 10,
    spent: true,
    ...more,
  });
  const visited = (...lines: ReturnType<typeof line>[]) => ({ lines, accounts: [3], crowded: false });

  it('rests from its commit on, and is put to rest with what the next claim visits, locked first', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    expect(lines.owe(server.tx, 1, visited(line(7), line(8, { spent: false })))).toBe(true);
    expect(lines.owes(1)).toBe(false);
    server.commit();
    expect(lines.owes(1)).toBe(true);
    await lines.load(server.tx, 1, true, 64);
    // What may have more is looked at again.
    expect(server.loads.at(-1)?.slice(8, 10)).toEqual(['{7}', '{70}']);
    await lines.served(server.tx, 1, visited(line(8)));
    const [lane, , , , nos] = server.rests.at(-1) ?? [];
    expect([lane, nos]).toEqual([1, '{8,7}']);
    expect(server.rests.at(-1)?.slice(15)).toEqual([false, '{7}']);
    expect(lines.owes(1)).toBe(false);
  });

  it('rests for less than turns of a speed limit are handed out ahead, so that none passes unused', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    lines.owe(server.tx, 1, visited(line(7)));
    server.commit();
    await env.clock.advance(AHEAD_MS / 2);
    await lines.load(server.tx, 1, true, 64);
    expect(server.loads.at(-1)?.slice(8, 10)).toEqual(['{}', '{}']);
  });

  it('is done by itself when no claim does it, with the turns of the lane', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    lines.owe(server.tx, 1, visited(line(7)));
    server.commit();
    await lines.served(server.tx, 1, null);
    expect(server.rests.at(-1)?.slice(15)).toEqual([true, '{7}']);
    expect(lines.owes(1)).toBe(false);
  });

  it('is nothing where a full ring must move on, or too much is owed already', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    expect(lines.owe(server.tx, 1, visited(line(7, { full: true, spent: false })))).toBe(false);
    expect(lines.owe(server.tx, 1, { ...visited(line(7)), crowded: true })).toBe(false);
    for (let n = 0; n < 5; n++) {
      const many = Array.from({ length: 32 }, (_, i) => line(100 * n + i + 1, { full: true }));
      expect(lines.owe(server.tx, 1, visited(...many))).toBe(true);
      server.commit();
    }
    expect(lines.owe(server.tx, 1, visited(line(7)))).toBe(false);
  });
});

describe('what rests', () => {
  const visited = { lines: [{ no: 7, account: 3, full: false, seq: 70, spent: true }], accounts: [3], crowded: false };

  it('is written sixteen times in a row, then twice a second, however often it runs empty', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    for (let n = 0; n < 200; n++) {
      await lines.served(server.tx, 1, visited);
      await env.clock.advance(50);
    }
    const may = server.rests.filter((values) => values[5] === '{true}').length;
    // 10 s at two a second, and the burst.
    expect(may).toBeGreaterThanOrEqual(34);
    expect(may).toBeLessThanOrEqual(38);
  });

  it('is passed over with its place until a wake of it is taken, and asks for a look when it may be written', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    let due: number | null = null;
    let calls = 0;
    while (due === null) {
      calls++;
      ({ due } = await lines.served(server.tx, 1, visited));
    }
    expect(calls).toBe(18);
    expect(due - server.tx.now).toBeGreaterThan(0);
    expect(due - server.tx.now).toBeLessThanOrEqual(500);
    expect((await lines.peek(server.tx, [1])).get(1)?.due).toBe(due);
    await lines.served(server.tx, 1, visited);
    expect(server.rests.at(-1)?.slice(12, 15)).toEqual(['{7}', '{3}', '{30}']);
    server.add(300, 7);
    await lines.load(server.tx, 1, true, 64);
    await lines.served(server.tx, 1, visited);
    expect(server.rests.at(-1)?.slice(12, 15)).toEqual(['{}', '{}', '{}']);
  });

  it('is an account no more once a line of it was woken, also one that did not rest', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    for (let n = 0; n < 18; n++) await lines.served(server.tx, 1, visited);
    await lines.load(server.tx, 1, true, 64);
    expect(server.loads.at(-1)?.slice(10, 12)).toEqual(['{3}', '{30}']);
    server.add(300, 8);
    await lines.load(server.tx, 1, true, 64);
    server.commit();
    await lines.load(server.tx, 1, true, 64);
    expect(server.loads.at(-1)?.slice(10, 12)).toEqual(['{}', '{}']);
  });

  it('is asked for twice a second where only a newer node may claim it', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    server.version.newer = true;
    const lines = createLines(env.clock);
    const { due } = await lines.served(server.tx, 1, visited);
    expect(due).toBe(server.tx.now + 500);
  });

  it('is looked at again when its time has come', async () => {
    const env = testEnv();
    const server = fake(env.clock);
    const lines = createLines(env.clock);
    for (let n = 0; n < 18; n++) await lines.served(server.tx, 1, visited);
    await env.clock.advance(500);
    await lines.served(server.tx, 1, visited);
    expect(server.rests.at(-1)?.slice(12, 15)).toEqual(['{}', '{}', '{}']);
    expect(server.rests.at(-1)?.[5]).toBe('{true}');
  });
});
