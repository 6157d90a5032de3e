/** The socket under a client of `pg`, which it does not show: how what is written leaves, and how it is ended. Cannot fail. */
import type pg from 'pg';

/** Sends what is asked in one go of the program as one piece: a system call, and a wake-up of the server's process, instead of one each. */
export function gather(client: pg.Client): void {
  const { stream } = (client as unknown as { connection: pg.Connection }).connection;
  if (stream.writableCorked > 0) return;
  stream.cork();
  process.nextTick(() => stream.uncork());
}

/** Ends a client's socket without a word. */
export function cut(client: pg.Client): void {
  (client as unknown as { connection: pg.Connection }).connection.stream.destroy();
}
