import { expect, it } from 'vitest';
import type { Client } from './client.ts';
import { reroute } from './reroute.ts';
import { Failure, type Io } from './terminal.ts';

function desk(answers: (object | null)[]) {
  const asked: unknown[][] = [];
  let text = '';
  const out = (more: string): void => {
    text += more;
  };
  const io = { out } as unknown as Io;
  const change = async (...what: unknown[]) => {
    asked.push(what);
    return answers.shift() ?? null;
  };
  return { io, client: { url: 'http://here', change } as unknown as Client, asked, text: () => text };
}

it('asks for steps until nothing is left, and says how many went', async () => {
  const { io, client, asked, text } = desk([
    { moved: 500, more: true },
    { moved: 2, more: true },
    { moved: 0, more: false },
  ]);
  expect(await reroute(io, client, 'old', 'new', 'table')).toBe(0);
  expect(asked).toEqual(Array(3).fill(['POST', '/admin/1/reroute', { from: 'old', to: 'new' }]));
  expect(text()).toBe('502 messages go to new instead of old\n');
});

it('says what may be wrong where the server knows no such way', async () => {
  const { io, client } = desk([]);
  await expect(reroute(io, client, 'old', 'new', 'json')).rejects.toThrow(Failure);
});
