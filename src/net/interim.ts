/**
 * `100 Continue` that nobody asked for. HTTP has a client pass over it (RFC 9110, 15.2); undici ends the connection there, and
 * what was sent is then unknown. Peers that answer so to every POST are in the field. What undici does pass over (102, 103) is
 * left to it.
 *
 * Promises: an answer arrives as it was sent but for each 100 in front of it; bytes within an answer are never touched; what is
 * held back is at most `HEAD_BYTES`. The limits on time are undici's, and do not begin anew with a 100.
 * Fails: nothing here fails; an end in the middle of a 100 is an end before the answer.
 */
import type { Socket } from 'node:net';

/** undici's own limit is of this order; a 100 has no headers worth speaking of. */
const HEAD_BYTES = 16 * 1024;
const CONTINUE = /^HTTP\/1\.[01] 100(?: |\r)/;
/** The shortest text that tells. */
const TELLING = 'HTTP/1.1 100 '.length;

/** A connector of undici's, whatever its options are. */
type Dial<Options> = (options: Options, callback: (...args: [null, Socket] | [Error, null]) => void) => void;

/** A connector whose sockets show no 100. */
export function passingContinue<Options>(dial: Dial<Options>): Dial<Options> {
  return (options, callback) =>
    dial(options, (...[error, socket]) => {
      if (error === null) callback(null, withoutContinue(socket));
      else callback(error, null);
    });
}

/**
 * undici reads by `read` and writes by `write` alone. An answer begins with the first bytes that follow bytes of ours: one request
 * at a time is under way.
 */
function withoutContinue<S extends Socket>(socket: S): S {
  const read = socket.read.bind(socket) as (size?: number) => Buffer | null;
  const write = socket.write.bind(socket) as (...of: unknown[]) => boolean;
  let begins = false;
  let held: Buffer | null = null;
  socket.write = ((...of: unknown[]) => {
    begins = true;
    return write(...of);
  }) as S['write'];
  socket.read = (size?: number): Buffer | null => {
    for (;;) {
      const chunk = read(size);
      if (chunk === null || !begins) return chunk;
      let left: Buffer = held === null ? chunk : Buffer.concat([held, chunk]);
      held = null;
      let length = interim(left);
      while (length > 0) {
        left = left.subarray(length);
        length = left.length === 0 ? 0 : interim(left);
      }
      if (length < 0) {
        held = left;
      } else if (left.length > 0) {
        begins = false;
        return left;
      }
    }
  };
  return socket;
}

/** Length of the 100 that these bytes begin with; 0 = they begin with something else, -1 = that cannot be told yet. */
function interim(bytes: Buffer): number {
  const start = bytes.toString('latin1', 0, TELLING);
  if (start.length < TELLING) return 'HTTP/1.'.startsWith(start.slice(0, 7)) ? -1 : 0;
  if (!CONTINUE.test(start)) return 0;
  const end = bytes.indexOf('\r\n\r\n');
  if (end >= 0) return end + 4;
  return bytes.length < HEAD_BYTES ? -1 : 0;
}
