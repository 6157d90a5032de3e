/**
 * Runs the golden pairs of `send.table.ts` through a door: the bare validator, or a whole server. What a door answers is
 * held against the published schemas of answers each time.
 */
import { describe, expect, it } from 'vitest';
import { apiErrorAnswer, sendAnswer } from '../../src/api/answers.ts';
import { documented, full, GONE, type Row, raw, rows } from './send.table.ts';

export interface DoorAnswer {
  status: number;
  body: string;
}

/** Takes the body of POST /mms/2/messages. `whole`: 200s carry a body. */
export interface Door {
  name: string;
  whole: boolean;
  send(body: string | Uint8Array): Promise<DoorAnswer>;
}

/** A copy of `full` with one place changed. Every request gets message ids of its own. */
export function changed(path: string, value: unknown, id: string): unknown {
  const request = structuredClone(full) as unknown as Record<string, unknown>;
  full.messages[0]?.destinations.forEach((_, index) => {
    const message = (request.messages as { destinations: Record<string, unknown>[] }[])[0];
    const destination = message?.destinations[index];
    const single = (destination?.group as Record<string, unknown>[] | undefined)?.[0] ?? destination;
    if (single !== undefined) single.messageId = `${id}-${index}`;
  });
  const keys = path.split(/[.[\]]+/).filter((key) => key !== '');
  const last = keys.pop() ?? '';
  let parent = request;
  for (const key of keys) parent = parent[key] as Record<string, unknown>;
  if (value === GONE) delete parent[last];
  else parent[last] = value;
  return request;
}

/** A short name of a value for a test's title. */
function shown(value: unknown): string {
  if (value === GONE) return 'gone';
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 60 ? text : `${text.slice(0, 40)}... (${text.length} characters)`;
}

function pairs(path: string, answer: Row[2]): [string, string][] | null {
  return typeof answer === 'string' ? [[path, answer]] : answer;
}

function expectAnswer(door: Door, answer: DoorAnswer, wanted: [string, string][] | null): void {
  if (wanted === null) {
    expect(answer.status, answer.body).toBe(200);
    if (door.whole) sendAnswer.parse(JSON.parse(answer.body));
    return;
  }
  expect(answer.status, answer.body).toBe(400);
  const error = apiErrorAnswer.parse(JSON.parse(answer.body));
  expect(error.violations).toEqual(wanted.map(([property, violation]) => ({ property, violation })));
  expect(error).toMatchObject({
    errorCode: 'E400',
    description: 'Request cannot be processed.',
    action: 'Check the syntax, violations and adjust the request.',
    resources: [],
  });
}

export function sendSuite(door: Door): void {
  describe(`POST /mms/2/messages through ${door.name}`, () => {
    it('has at least 250 pairs', () => {
      expect(rows.length + documented.length + raw.length).toBeGreaterThanOrEqual(250);
    });

    describe('accepts what Infobip documents', () => {
      it.each(documented)('%s', async (_name, body, entries) => {
        const answer = await door.send(JSON.stringify(body));
        expectAnswer(door, answer, null);
        if (door.whole) expect(JSON.parse(answer.body).messages).toHaveLength(entries);
      });
    });

    describe('judges each member', () => {
      it.each(
        rows.map(([path, value, answer], index): [string, number] => [
          `${path} = ${shown(value)}: ${answer === null ? '200' : JSON.stringify(answer)}`,
          index,
        ]),
      )('%s', async (_name, index) => {
        const [path, value, answer] = rows[index] as Row;
        // Not JSON.stringify alone: it would write lone surrogates as escapes, which is what is wanted here.
        const body = JSON.stringify(changed(path, value, `${door.name}-${index}`));
        expectAnswer(door, await door.send(body), pairs(path, answer));
      });
    });

    describe('judges bodies as bytes', () => {
      it.each(raw)('%s', async (_name, body, answer) => {
        expectAnswer(door, await door.send(body), pairs('', answer));
      });
    });
  });
}
