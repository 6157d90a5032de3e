/**
 * The proof behind G1 and G6, from outside: between the arrival of a request and its 200 the kernel is asked to sync the message log,
 * and once more (the claim) before the first byte of the submission leaves. Fails when `synchronous` is lowered, when the answer or the
 * submission overtakes the commit, or when nothing is synced at all.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { call, eventually, freePorts, logsOf, startPostcard } from './server.ts';

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

/** Where a call began, which is where strace names its file or connection: it may be told in two halves. */
function begun(lines: string[], at: number): string {
  const thread = `${lines[at]?.split(' ')[0]} `;
  const began = lines[at]?.includes('resumed')
    ? lines.findLast((line, n) => n < at && line.startsWith(thread) && line.includes('unfinished'))
    : lines[at];
  return began ?? '';
}

/** The connection of a read. */
const socketOf = (lines: string[], at: number): string => /socket:\[\d+\]/.exec(begun(lines, at))?.[0] ?? 'none';

/** Lines [from, to) in which the message log was synced, each by the end of its call. */
const synced = (lines: string[], from: number, to: number): number[] =>
  Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n).filter(
    (at) =>
      /f(data)?sync(\(.*| resumed.*)= 0/.test(lines[at] ?? '') && /<[^>]*postcard\.db(-wal)?>/.test(begun(lines, at)),
  );

describe('durability seen from the kernel', () => {
  it.skipIf(!straceWorks())(
    'syncs the message log between each request and its 200, and again before its submission leaves',
    async () => {
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
        // One after the other, and each to its end: the submission behind a request in the trace is its own, and so is the next sync.
        const ended = async (): Promise<boolean> =>
          (await logsOf(server.url, [mark])).get(mark)?.status.groupName === 'DELIVERED';
        expect(await eventually(60_000, ended)).toBe(true);
      }
      await server.end('SIGTERM');

      const lines = readFileSync(trace, 'utf8').split('\n');
      let [from, claims] = [0, 0];
      for (let i = 0; i < marks.length; i++) {
        const arrived = lines.findIndex((line, at) => at >= from && line.includes('"POST /mms/2/messages HTTP/1.1'));
        // On the same connection: the carrier's listener answers with a 200, too, when it likes.
        const socket = socketOf(lines, arrived);
        const answered = lines.findIndex(
          (line, at) => at > arrived && line.includes(socket) && /write.*HTTP\/1\.1 200/.test(line),
        );
        expect(arrived).toBeGreaterThanOrEqual(0);
        expect(answered).toBeGreaterThan(arrived);
        const [accept] = synced(lines, arrived, answered);
        expect(accept, 'a sync of the log before the answer').toBeDefined();
        const submitted = lines.findIndex((line, at) => at > arrived && /write.*"POST \/mm7 HTTP/.test(line));
        expect(submitted, 'the submission').toBeGreaterThan(0);
        if (synced(lines, (accept as number) + 1, submitted).length > 0) claims++;
        from = Math.max(answered, submitted) + 1;
      }
      // A lane also asks by itself once in a while: such a claim may share the commit, and its sync, of what is just being accepted.
      expect(claims, 'a sync of the claim before its first byte').toBeGreaterThanOrEqual(marks.length - 2);
    },
  );
});
