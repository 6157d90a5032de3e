/**
 * The proof behind G1, from outside: between the arrival of a request and its 200 the kernel is asked to sync the message log.
 * Fails when `synchronous` is lowered, when the answer overtakes the commit, or when nothing is synced at all.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { call, freePorts, startPostcard } from './server.ts';

const dir = mkdtempSync(join(tmpdir(), 'postcard-sync-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function straceWorks(): boolean {
  try {
    execFileSync('strace', ['-o', '/dev/null', 'true']);
    return true;
  } catch {
    return false;
  }
}

/** The connection of a read, which strace names where the call began. */
function socketOf(lines: string[], at: number): string {
  const thread = `${lines[at]?.split(' ')[0]} `;
  const began = lines[at]?.includes('resumed')
    ? lines.findLast((line, n) => n < at && line.startsWith(thread) && line.includes('unfinished'))
    : lines[at];
  return /socket:\[\d+\]/.exec(began ?? '')?.[0] ?? 'none';
}

describe('durability seen from the kernel', () => {
  it.skipIf(!straceWorks())('syncs the message log between each request and its 200', async () => {
    const trace = join(dir, 'trace');
    const wrapper = ['strace', '-f', '-y', '-s', '120', '-e', 'trace=read,write,writev,fsync,fdatasync', '-o', trace];
    const server = await startPostcard(dir, await freePorts(), { wrapper });
    const marks = Array.from({ length: 5 }, (_, i) => `sync-proof-${i}`);
    for (const mark of marks) {
      const body = JSON.stringify({
        messages: [
          {
            sender: mark.slice(0, 3),
            destinations: [{ to: '491700000001', messageId: mark }],
            content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
          },
        ],
      });
      const answer = await call(server.url, '/mms/2/messages', { method: 'POST', body, headers: { 'x-mark': mark } });
      expect(answer.status).toBe(200);
    }
    await server.end('SIGTERM');

    const lines = readFileSync(trace, 'utf8').split('\n');
    let from = 0;
    for (let i = 0; i < marks.length; i++) {
      const arrived = lines.findIndex((line, at) => at >= from && line.includes('"POST /mms/2/messages HTTP/1.1'));
      // On the same connection: the carrier's listener answers with a 200, too, when it likes.
      const socket = socketOf(lines, arrived);
      const answered = lines.findIndex(
        (line, at) => at > arrived && line.includes(socket) && /write.*HTTP\/1\.1 200/.test(line),
      );
      expect(arrived).toBeGreaterThanOrEqual(0);
      expect(answered).toBeGreaterThan(arrived);
      const syncs = lines
        .slice(arrived, answered)
        .filter((line) => /f(data)?sync\(\d+<[^>]*postcard\.db(-wal)?>\)|f(data)?sync resumed/.test(line));
      expect(syncs.length, 'a sync of the log before the answer').toBeGreaterThan(0);
      from = answered + 1;
    }
  });
});
