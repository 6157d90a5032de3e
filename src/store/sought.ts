/**
 * How logs find the messages to one number among millions, for both engines, pure. An index of destinations would cost every accept a
 * random page for each message (measured on the embedded engine, requests of 1 000: a sixteenth of the speed). So accepts leave a
 * row per spec (`unsought`), and the sweep makes marks of the destinations of a block of messages at a time: short rows, spread over
 * `buckets`, the same bucket of all blocks side by side. A search reads one bucket, and what waits in `unsought` message by message.
 *
 * Promises: a mark may be another destination's by chance (1 in 2^32), so what is found is looked at; what is there is found. The
 * reader asks for what waits first and for marks after: a block turns from one into the other in one transaction.
 */

/** Bytes of a mark in a row: 4 of the mark, 6 of the message's number (numbers below 2^48). */
const ENTRY = 10;

/** What stands for a destination of an account: `spread` chooses the bucket, `mark` tells it from others there. */
export function markOf(account: number, to: string): { spread: number; mark: number } {
  // FNV-1a twice with different beginnings, mixed at the end as murmur3 does. Stored: never to be changed.
  let a = 0x811c9dc5 ^ account;
  let b = 0x9747b28c ^ Math.imul(account, 0x85ebca6b);
  for (let at = 0; at < to.length; at++) {
    const unit = to.charCodeAt(at);
    a = Math.imul(a ^ unit, 0x01000193);
    b = Math.imul(b ^ unit, 0x5bd1e995);
    b ^= b >>> 15;
  }
  return { spread: mixed(a), mark: mixed(b) };
}

function mixed(value: number): number {
  let v = value ^ (value >>> 16);
  v = Math.imul(v, 0x85ebca6b);
  v ^= v >>> 13;
  v = Math.imul(v, 0xc2b2ae35);
  return (v ^ (v >>> 16)) >>> 0;
}

/** A block as rows: the marks of its messages by bucket; empty buckets have none. */
export function packBlock(
  messages: readonly { no: number; account: number; to: string }[],
  buckets: number,
): { bucket: number; body: Uint8Array }[] {
  const held = new Map<number, { mark: number; no: number }[]>();
  for (const { no, account, to } of messages) {
    const { spread, mark } = markOf(account, to);
    const bucket = spread % buckets;
    const entries = held.get(bucket);
    if (entries) entries.push({ mark, no });
    else held.set(bucket, [{ mark, no }]);
  }
  return [...held].map(([bucket, entries]) => {
    const body = Buffer.allocUnsafe(entries.length * ENTRY);
    entries.forEach(({ mark, no }, index) => {
      body.writeUInt32BE(mark, index * ENTRY);
      body.writeUIntBE(no, index * ENTRY + 4, 6);
    });
    return { bucket, body };
  });
}

/** Adds to `found` the numbers below `before` that a row has under a mark. */
export function numbersIn(body: Uint8Array, mark: number, before: number, found: number[]): void {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  for (let at = 0; at < body.byteLength; at += ENTRY) {
    if (view.getUint32(at) !== mark) continue;
    const no = view.getUint16(at + 4) * 2 ** 32 + view.getUint32(at + 6);
    if (no < before) found.push(no);
  }
}

/** Without repetitions, newest first. */
export function newestFirst(found: readonly number[]): number[] {
  return [...new Set(found)].sort((a, b) => b - a);
}

/** Messages that wait for their marks beyond which a search goes the long way: so much came in at once, or before an upgrade. */
export const WAITING_MOST = 100_000;
