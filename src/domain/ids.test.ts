import { describe, expect, it } from 'vitest';
import fc from '../../test/properties.ts';
import { createIds, type IdKind } from './ids.ts';

const KEY = '00112233445566778899aabbccddeeff';
const KINDS: IdKind[] = ['message', 'bulk', 'webhook'];
const kind = fc.constantFrom(...KINDS);
const number = fc.oneof(fc.maxSafeNat(), fc.nat(1000), fc.constantFrom(2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1));

describe('generated ids', () => {
  const ids = createIds(KEY);

  it('turn any number below 2^53 into an id and back', () => {
    void fc.assert(
      fc.property(kind, number, (of, no) => {
        const id = ids.print(of, no);
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
        expect(ids.parse(of, id)).toBe(no);
      }),
    );
  });

  it('are the same in every process with the key', () => {
    void fc.assert(
      fc.property(kind, number, (of, no) => {
        const id = ids.print(of, no);
        expect(createIds(KEY).print(of, no)).toBe(id);
        expect(createIds(KEY.toUpperCase()).parse(of, id)).toBe(no);
      }),
    );
    // What was given out once must be readable for ever. By `openssl enc -aes-128-ecb` of 01 00000000000001 and 8 zero bytes.
    expect(ids.print('message', 1)).toBe('079980d0-16c6-71a6-ff86-99d4a2696832');
  });

  it('do not parse as another kind', () => {
    void fc.assert(
      fc.property(kind, kind, number, (of, other, no) => {
        fc.pre(of !== other);
        expect(ids.parse(other, ids.print(of, no))).toBeNull();
      }),
    );
  });

  it('mean nothing under another key', () => {
    const other = createIds('ffeeddccbbaa99887766554433221100');
    void fc.assert(
      fc.property(kind, number, (of, no) => {
        expect(other.parse(of, ids.print(of, no))).toBeNull();
      }),
    );
  });

  it('cannot be guessed: one changed digit is no id any more', () => {
    void fc.assert(
      fc.property(kind, number, fc.nat(35), fc.integer({ min: 1, max: 15 }), (of, no, at, by) => {
        const id = ids.print(of, no);
        fc.pre(id[at] !== '-');
        const digit = ((Number.parseInt(id[at] as string, 16) + by) % 16).toString(16);
        expect(ids.parse(of, id.slice(0, at) + digit + id.slice(at + 1))).toBeNull();
      }),
    );
  });

  it('give null for whatever else stands in their place, and go on working', () => {
    const garbage = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.uuid(),
      fc.constantFrom('', '-', ' ', '__proto__', 'ÿ'.repeat(36), '0'.repeat(36), '-'.repeat(36)),
    );
    void fc.assert(
      fc.property(kind, garbage, number, (of, text, no) => {
        expect(ids.parse(of, text)).toBeNull();
        expect(ids.parse(of, ` ${ids.print(of, no)}`)).toBeNull();
        expect(ids.parse(of, ids.print(of, no))).toBe(no);
      }),
    );
  });

  it('tell nothing of how many there are: neighbours have nothing in common', () => {
    const printed = Array.from({ length: 1000 }, (_, no) => ids.print('message', no));
    expect(new Set(printed).size).toBe(1000);
    expect(new Set(printed.map((id) => id.slice(0, 8))).size).toBeGreaterThan(990);
  });

  it.each([-1, 0.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])(
    'are refused to %d, which is no number of ours',
    (no) => {
      expect(() => ids.print('message', no)).toThrow(RangeError);
    },
  );

  it.each(['', 'abc', 'zz'.repeat(16), KEY.slice(1), `${KEY}0`, `${KEY}${KEY}`])(
    'need a key of 32 hex digits, not "%s"',
    (key) => {
      expect(() => createIds(key)).toThrow(RangeError);
    },
  );
});
