/**
 * What is said of messages whose validity has ended: loaded for all of a step at once, told for each.
 */
import { closedAt, endedWords } from '../clock.ts';
import type { Live } from './events.ts';
import type { RunRow } from './runs.ts';
import { list, sql, type Tx } from './tx.ts';

const SQL = {
  attempts: sql('SELECT leader, outcome, words FROM attempt WHERE leader = ANY($1::bigint[]) ORDER BY leader, n'),
  paused: sql('SELECT no FROM line WHERE no = ANY($1::bigint[]) AND paused'),
};

/** Why a message ends, in words. */
export type Words = (message: Live, leader: number, run: RunRow | null) => string;

/** Loads the attempts of submissions and the lines of runs. */
export async function loadEnds(tx: Tx, leaders: number[], runs: RunRow[]): Promise<Words> {
  const attempts = new Map<number, { outcome: string; words: string }[]>();
  type Row = { leader: number; outcome: string; words: string };
  for (const { leader, ...attempt } of await tx.query<Row>(SQL.attempts, [list([...new Set(leaders)])])) {
    const before = attempts.get(leader);
    if (before) before.push(attempt);
    else attempts.set(leader, [attempt]);
  }
  const lines = [list([...new Set(runs.map((run) => run.line))])];
  const paused = new Set((await tx.query<{ no: number }>(SQL.paused, lines)).map((line) => line.no));
  return ({ state, error }, leader, run) =>
    endedWords({
      state,
      error,
      attempts: attempts.get(leader) ?? [],
      paused: run !== null && paused.has(run.line),
      closed: closedAt(run, tx.now),
      unfetched: run?.closed ?? false,
    });
}
