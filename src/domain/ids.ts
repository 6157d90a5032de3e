/**
 * Generated ids. A message, bulk or webhook number is turned into a 32-hex-digit id in UUID form and back, under the
 * installation's key: one AES block holding the kind, the number and eight zero bytes. So an id needs no index, cannot be
 * guessed (the zero bytes are a 64-bit check) and tells nothing of volumes. Pure: the key is an argument.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';

/** What an id names; ids of different kinds never parse as each other. */
export type IdKind = 'message' | 'bulk' | 'webhook';
const KINDS: Record<IdKind, number> = { message: 1, bulk: 2, webhook: 3 };

/** Numbers to public ids and back, under one key. */
export interface Ids {
  /** The public id of a number: an integer from 0 to 2^53 - 1, else RangeError. */
  print(kind: IdKind, no: number): string;
  /** The number behind an id, or null when it is not one of ours of that kind. */
  parse(kind: IdKind, id: string): number | null;
}

const SHAPE = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** `key`: 32 hex digits from `Store.identity`; throws RangeError for anything else. */
export function createIds(key: string): Ids {
  // Buffer.from would stop at the first wrong digit without a word.
  if (!/^[0-9a-f]{32}$/i.test(key)) throw new RangeError('the key of ids must be 32 hex digits');
  const bytes = Buffer.from(key, 'hex');
  // Kept open: ECB without padding gives each block at once, and one context per id would cost more than the block.
  const cipher = createCipheriv('aes-128-ecb', bytes, null).setAutoPadding(false);
  const decipher = createDecipheriv('aes-128-ecb', bytes, null).setAutoPadding(false);
  const block = Buffer.alloc(16);
  return {
    print(kind, no) {
      if (!Number.isSafeInteger(no) || no < 0) throw new RangeError(`no id for the number ${no}`);
      block.fill(0);
      block[0] = KINDS[kind];
      block.writeUIntBE(Math.floor(no / 2 ** 32), 1, 3);
      block.writeUInt32BE(no % 2 ** 32, 4);
      const hex = cipher.update(block).toString('hex');
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
    },
    parse(kind, id) {
      if (id.length !== 36 || !SHAPE.test(id)) return null;
      const plain = decipher.update(Buffer.from(id.replaceAll('-', ''), 'hex'));
      if (plain[0] !== KINDS[kind] || plain.readBigUInt64BE(8) !== 0n) return null;
      return plain.readUIntBE(1, 3) * 2 ** 32 + plain.readUInt32BE(4);
    },
  };
}
