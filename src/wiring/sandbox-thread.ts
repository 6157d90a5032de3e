/**
 * The thread of the carrier in a box, which meets the others over sockets only. Started by `threads.ts`; fails to begin, with
 * a StartError, where a port or its file cannot be had.
 */
import { flushCompileCache } from 'node:module';
import { isatty } from 'node:tty';
import { startSandbox } from '../carriers/sandbox/sandbox.ts';
import { USUAL_SMPP_PORT } from '../configured.ts';
import { realEnv } from '../env.ts';
import { isPortError, portTaken, StartError } from './start-error.ts';
import { sandboxFile } from './store.ts';
import { type Duties, serveMain, type Work } from './threads.ts';

serveMain(begin);

async function begin({ config, reportUrl }: Work): Promise<Duties> {
  const env = realEnv({ level: config.logLevel, pretty: isatty(2) });
  const { host, sandboxPort, sandboxSmppPort, dataDir } = config;
  const file = sandboxFile(dataDir);
  const start = (smppPort: number): ReturnType<typeof startSandbox> =>
    startSandbox({ host, port: sandboxPort, smppPort, file, reportUrl: reportUrl as string, env });
  const sandbox = await start(sandboxSmppPort)
    .catch((error: unknown) => {
      const { code, port } = error as { code?: string; port?: number };
      // Nobody asked for the usual port: a second server beside the first need not name another.
      if (code !== 'EADDRINUSE' || port !== sandboxSmppPort || port !== USUAL_SMPP_PORT) throw error;
      env.log.warn({ port }, 'POSTCARD_SANDBOX_SMPP_PORT is taken; the sandbox takes SMPP on another port');
      return start(0);
    })
    .catch((error: unknown) => {
      const smpp = (error as { port?: number }).port === sandboxSmppPort;
      const [setting, port] = smpp
        ? (['POSTCARD_SANDBOX_SMPP_PORT', sandboxSmppPort] as const)
        : (['POSTCARD_SANDBOX_PORT', sandboxPort] as const);
      throw new StartError([
        isPortError(error)
          ? portTaken(setting, host, port, error)
          : `the sandbox's file in ${dataDir} cannot be opened: ${(error as Error).message}`,
      ]);
    });
  flushCompileCache();
  return { place: { url: sandbox.url, smppPort: sandbox.smppPort ?? 0 }, stop: () => sandbox.close() };
}
