/** A file that the server needs several requests for. */
import { describe, expect, it } from 'vitest';
import { applyFile } from './account-apply.ts';
import type { Client } from './client.ts';
import type { Io } from './terminal.ts';

/** A server that answers with these, the last one again and again. */
function asking(...answers: object[]) {
  const asked: string[] = [];
  let told = '';
  const stop = new AbortController();
  const client = {
    async change(_method: string, path: string) {
      asked.push(path);
      return answers[Math.min(asked.length, answers.length) - 1];
    },
  } as unknown as Client;
  const io = {
    err: (text: string) => {
      told += text;
    },
    readFile: () => Buffer.from('accounts: []'),
    stop: stop.signal,
  } as unknown as Io;
  const apply = () => applyFile(io, client, 'accounts.yaml', true);
  return { asked, told: () => told, apply, stop: () => stop.abort() };
}
const looking = (known: number) => ({ passwords: { known, of: 500 } });

describe('a file with many passwords', () => {
  it('is sent again until the server knows all of them, however long that takes', async () => {
    const done = { dryRun: true, changes: 0, accounts: [], differences: [] };
    const far = Array.from({ length: 40 }, (_, n) => looking(10 * n));
    const server = asking(...far, done);
    expect(await server.apply()).toBe(done);
    expect(server.asked).toEqual(Array(41).fill('/admin/1/apply?dryRun=true'));
    expect(server.told().split('\n').at(-2)).toBe('the server is looking at passwords: 390 of 500');
  });

  it('is given up where the server does not get on with them', async () => {
    const server = asking(looking(7));
    await expect(server.apply()).rejects.toMatchObject({ lines: [expect.stringContaining('does not get on')] });
    expect(server.asked.length).toBeLessThan(20);
  });

  it('is not sent again once somebody has stopped the command: nothing is changed behind their back', async () => {
    const server = asking(looking(7), { dryRun: false, changes: 1, accounts: [], differences: [] });
    const applied = server.apply();
    server.stop();
    await expect(applied).rejects.toMatchObject({ lines: ['stopped: nothing was changed'] });
    expect(server.asked).toHaveLength(1);
  });
});
