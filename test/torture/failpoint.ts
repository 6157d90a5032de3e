/**
 * Preloaded into a torture's node (`--import`): ends the thread that writes the message log at a commit, on demand. SIGUSR2
 * makes it read the file that TORTURE_FAILPOINT names: `before` = the next COMMIT does not happen; `after` = it happens and
 * nobody is told. Either way the thread is gone, as if it had crashed, and the process has to deal with that.
 *
 * Nothing of the product knows of this; without the preload it is not there.
 */
import { readFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { BroadcastChannel, isMainThread, workerData } from 'node:worker_threads';

const CHANNEL = 'torture-failpoint';
/** Any code that the product does not use itself. */
const EXIT = 99;

if (isMainThread) {
  const channel = new BroadcastChannel(CHANNEL);
  channel.unref();
  process.on('SIGUSR2', () =>
    channel.postMessage(readFileSync(process.env.TORTURE_FAILPOINT as string, 'utf8').trim()),
  );
} else if ((workerData as { role?: string } | null)?.role === 'writer') {
  let when = '';
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = (event) => {
    when = String((event as MessageEvent).data);
  };
  channel.unref();
  const { exec } = DatabaseSync.prototype;
  DatabaseSync.prototype.exec = function (sql: string): void {
    if (when === '' || sql !== 'COMMIT') {
      exec.call(this, sql);
      return;
    }
    if (when === 'after') exec.call(this, sql);
    process.exit(EXIT);
  };
}
