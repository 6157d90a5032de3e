/** Starts that fail: what is undone, and what is said. A start that succeeds is in test/e2e. */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Config, loadConfig } from './config.ts';
import { realEnv } from './env.ts';
import { startServer } from './main.ts';

/** Threads that cannot be had, and those that main was given, with what was asked of them. */
const threads = vi.hoisted(() => ({ refused: new Set<string>(), asked: [] as string[] }));
vi.mock('./wiring/threads.ts', async (original) => {
  const real = await original<typeof import('./wiring/threads.ts')>();
  return {
    ...real,
    launch(...[role, ...more]: Parameters<typeof real.launch>) {
      if (threads.refused.has(role)) throw new Error(`no room for the thread of the ${role}`);
      const thread = real.launch(role, ...more);
      return {
        ...thread,
        async stop() {
          await thread.stop();
          threads.asked.push(`${role} stopped`);
        },
      };
    },
  };
});

const env = realEnv({ level: 'silent' });
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'postcard-start-'));
  threads.refused.clear();
  threads.asked.length = 0;
});
afterEach(() => rmSync(dir, { recursive: true }));

function configured(settings: Record<string, string> = {}): Config {
  const ports = ['PORT', 'CARRIER_PORT', 'SANDBOX_PORT', 'SANDBOX_SMPP_PORT'];
  const free = Object.fromEntries(ports.map((name) => [`POSTCARD_${name}`, '0']));
  const given = { ...free, POSTCARD_DATA_DIR: dir, POSTCARD_API_KEY: 'start-key-0123456789abcdef', ...settings };
  const loaded = loadConfig({ env: given, cwd: dir, readFile: (path) => readFileSync(path, 'utf8') });
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  return loaded.config;
}
const portOf = (server: Server): string => String((server.address() as { port: number }).port);
async function taken(port = 0): Promise<Server> {
  const server = createServer();
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

describe('a start that fails', () => {
  it('at its second thread stops the first, and says one line', async () => {
    threads.refused.add('sandbox');
    await expect(startServer(configured(), { env })).rejects.toMatchObject({
      ...{ name: 'StartError', lines: ['no room for the thread of the sandbox'] },
    });
    expect(threads.asked).toEqual(['carriers stopped']);
  });

  it('at any of its ports leaves none of the others behind, no thread and no lock: the next start has them', async () => {
    const other = await taken();
    // Free when asked for, and so again when each start that failed has given it back.
    const free = await taken();
    const carrierPort = portOf(free);
    free.close();
    await once(free, 'close');
    for (const name of ['SANDBOX_PORT', 'SANDBOX_SMPP_PORT', 'PORT']) {
      threads.asked.length = 0;
      const settings = { POSTCARD_CARRIER_PORT: carrierPort, [`POSTCARD_${name}`]: portOf(other) };
      await expect(startServer(configured(settings), { env })).rejects.toMatchObject({
        lines: [expect.stringMatching(`^POSTCARD_${name}: 127.0.0.1:${portOf(other)} is taken by another process`)],
      });
      expect(threads.asked).toEqual(['carriers stopped', 'sandbox stopped']);
      const again = await taken(Number(carrierPort));
      again.close();
      await once(again, 'close');
    }
    other.close();
    const running = await startServer(configured({ POSTCARD_CARRIER_PORT: carrierPort }), { env });
    expect((await fetch(`${running.url}/readyz`)).status).toBe(200);
    await running.stop();
  });
});
