/** What a group of reports asks of the server: what it reads, and in which order its events are numbered. */
import { describe, expect, it } from 'vitest';
import { STATE } from '../../domain/status.ts';
import { testEnv } from '../../env.ts';
import type { BackOp } from './back.ts';
import { createEvents } from './events.ts';
import { createLines } from './lines.ts';
import { createSettle } from './settle.ts';
import type { Sql, Tx, Value } from './tx.ts';

interface Named {
  lane: number;
  ref: string;
  leader: number | null;
  members: number;
}

const numbersIn = (literal: Value | undefined): number[] => String(literal).slice(1, -1).split(',').map(Number);

/**
 * A server of one carrier, as far as a group of reports asks. `known` = ids that are found at the first look, `met` = what stands under
 * the others once their locks are had. While message `told` is waited for, others draw numbers for events.
 */
function serve({ known = [], met = [], told = 0 }: { known?: Named[]; met?: Named[]; told?: number }) {
  const asked: { text: string; values: Value[] }[] = [];
  let last = 10;
  /** The last number that others had for the message. */
  let others = 0;
  const answer = (text: string, values: Value[]): unknown[] => {
    if (text.startsWith('SELECT l.no, l.carrier')) {
      return [{ no: 1, carrier: 'one', home: 1, on_unknown: 'retry', reports: true }];
    }
    if (text.includes('AS x(carrier, ref)')) return known;
    if (text.startsWith('INSERT INTO carrier_ref')) return met;
    if (text.includes('event_numbers')) return Array.from({ length: values[0] as number }, () => ({ no: ++last }));
    if (text.startsWith('SELECT no, account, spec, "to"')) {
      if (numbersIn(values[0]).includes(told)) {
        last += 5;
        others = last;
      }
      const row = { account: 1, spec: 5, to: '441134960001', key: null, sent_at: 1, leg: 0 };
      return numbersIn(values[0]).map((no) => ({ no, ...row, state: STATE.submitted, status: 3, error: 0 }));
    }
    if (text.startsWith('SELECT s.no, s.endpoint')) {
      const way = { endpoint: null, intermediate: false, bulk: 0, counted: false, failover: false, body: null };
      return numbersIn(values[0]).map((no) => ({ no, ...way, answered: null, answeredSms: null }));
    }
    return [];
  };
  const ask = (statement: Sql | string, values: Value[] = []): unknown[] => {
    const text = typeof statement === 'string' ? statement : statement.text;
    asked.push({ text, values });
    return answer(text, values);
  };
  const tx = {
    now: 1_000_000,
    early: false,
    begun: Promise.resolve(),
    seq: () => 1,
    as: () => undefined,
    hint: () => undefined,
    afterCommit: () => undefined,
    later: ask,
    query: async (statement: Sql | string, values?: Value[]) => ask(statement, values),
  } as unknown as Tx;
  const lines = createLines(testEnv().clock);
  const { group } = createSettle(lines, createEvents(lines));
  const reports = (...refs: string[]): BackOp[] =>
    refs.map((carrierMessageId) => {
      return { verb: 'report', arg: { carrier: 'one', carrierMessageId, addresses: [], kind: 'retrieved', words: '' } };
    });
  return { asked, others: () => others, report: (...refs: string[]) => group(tx, reports(...refs)) };
}

describe('a group of reports', () => {
  it('numbers the event of a message behind all that others told of it, also where its id was taught meanwhile', async () => {
    const late = { lane: 1, ref: 'late', leader: 2, members: 1 };
    const server = serve({ known: [{ ...late, ref: 'known', leader: 1 }], met: [late], told: 2 });
    expect(await server.report('late', 'known')).toMatchObject([{ known: true }, { known: true }]);
    const { values = [] } = server.asked.find(({ text }) => text.startsWith('WITH moved')) ?? {};
    const [numbers, messages] = [numbersIn(values[0]), numbersIn(values[1])];
    expect([...messages].sort()).toEqual([1, 2]);
    expect(server.others()).toBeGreaterThan(0);
    expect(numbers[messages.indexOf(2)]).toBeGreaterThan(server.others());
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  });

  it('reads nothing of what is parked under an id that stays unknown, however much that is', async () => {
    const server = serve({ met: [{ lane: 1, ref: 'nobody', leader: null, members: 0 }] });
    expect(await server.report('nobody', 'nobody')).toEqual([
      { known: false, messages: [] },
      { known: false, messages: [] },
    ]);
    const about = server.asked.filter(({ text }) => text.includes('parked'));
    expect(about.map(({ text }) => text.slice(0, 18))).toEqual(['INSERT INTO parked']);
  });
});
