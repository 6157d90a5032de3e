/** Where the scans of wakes begin: never behind one that nobody has taken, however late it was committed. */
import { describe, expect, it } from 'vitest';
import { testEnv } from '../../env.ts';
import { createLines } from './lines.ts';
import type { Sql, Tx, Value } from './tx.ts';

interface WakeRow {
  no: number;
  line: number;
  due_at: number;
  locked: number | null;
}

/** A lane's wakes as a server would answer; `held` lines are locked by somebody else. */
function fake() {
  const wakes = new Map<number, WakeRow>();
  const held = new Set<number>();
  const floors: number[] = [];
  const done: (() => void)[] = [];
  let seq = 0;
  const tx: Tx = {
    now: 1_000_000,
    seq: () => ++seq,
    hint: () => undefined,
    afterCommit: (run) => done.push(run),
    async query<Row>(statement: Sql | string, values: Value[] = []): Promise<Row[]> {
      const text = typeof statement === 'string' ? statement : statement.text;
      if (text.includes('pg_try_advisory_xact_lock')) {
        const floor = values[1] as number;
        floors.push(floor);
        const found = [...wakes.values()].filter(({ no }) => no > floor).sort((a, b) => a.no - b.no);
        const rows = found.map((row) => ({ ...row, ours: true, locked: held.has(row.line) ? null : row.line }));
        return (rows.length > 0 ? rows : [{ ours: true, no: null }]) as Row[];
      }
      if (text.includes('DELETE FROM wake')) {
        for (const no of String(values[0]).slice(1, -1).split(',')) wakes.delete(Number(no));
        return [];
      }
      if (text.includes('high_water')) {
        const floor = values[1] as number;
        const first = [...wakes.keys()].filter((no) => no > floor).sort((a, b) => a - b)[0];
        return [{ now: 1_000_000, woken: first ?? null, due: null }] as Row[];
      }
      throw new Error(`not expected: ${text}`);
    },
  };
  const add = (no: number, line = no): void => void wakes.set(no, { no, line, due_at: 5, locked: null });
  const commit = (): void => {
    for (const run of done.splice(0)) run();
  };
  return { tx, wakes, held, floors, add, commit };
}

/** Takes wakes 101 to 160, one every 100 ms: scans begin behind the first of them by then. */
async function busy(env: ReturnType<typeof testEnv>, server: ReturnType<typeof fake>) {
  const lines = createLines(env.clock);
  for (let no = 101; no <= 160; no++) {
    server.add(no);
    await lines.fold(server.tx, 1);
    server.commit();
    await env.clock.advance(100);
  }
  return lines;
}

describe('where the scans of wakes begin', () => {
  it('follows what was taken, more than a second behind, so that dead entries are not walked each time', async () => {
    const env = testEnv();
    const server = fake();
    await busy(env, server);
    const behind = server.floors.map((floor, at) => 100 + at - floor).slice(30);
    const short = behind.filter((far) => far < 60);
    expect(short.length).toBeGreaterThan(20);
    // 100 ms a wake: at least ten of them are looked at again.
    expect(Math.min(...short)).toBeGreaterThanOrEqual(10);
    expect(Math.max(...short)).toBeLessThanOrEqual(25);
  });

  it('finds a wake of a low number that was committed late, by a claim', async () => {
    const env = testEnv();
    const server = fake();
    const lines = await busy(env, server);
    server.add(50);
    await env.clock.advance(10_000);
    await lines.fold(server.tx, 1);
    server.commit();
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('finds it by an idle look, and the claim after it takes it', async () => {
    const env = testEnv();
    const server = fake();
    const lines = await busy(env, server);
    server.add(50);
    await env.clock.advance(10_000);
    expect((await lines.peek(server.tx, 1)).woken).toBe(true);
    await lines.fold(server.tx, 1);
    server.commit();
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('never begins behind a wake whose line somebody else holds', async () => {
    const env = testEnv();
    const server = fake();
    server.add(100, 7);
    server.held.add(7);
    const lines = await busy(env, server);
    expect(Math.max(...server.floors)).toBeLessThan(100);
    server.held.clear();
    await lines.fold(server.tx, 1);
    server.commit();
    expect([...server.wakes.keys()]).toEqual([]);
  });

  it('takes nothing for granted that was rolled back', async () => {
    const env = testEnv();
    const server = fake();
    const lines = createLines(env.clock);
    for (let no = 101; no <= 140; no++) {
      server.add(no);
      await lines.fold(server.tx, 1);
      // No commit.
      await env.clock.advance(100);
    }
    expect(Math.max(...server.floors)).toBe(0);
  });
});
