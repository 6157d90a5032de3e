import { describe, expect, it } from 'vitest';
import { refOf, transactionId } from './submission.ts';

describe("a carrier's message id", () => {
  it.each([
    ['ABC-1', 'abc-1'],
    [' <ABC-1@mmsc.example> ', 'abc-1'],
    ['< abc-1 >', 'abc-1'],
    ['abc\u0000-1', 'abc-1'],
    ['@mmsc.example', '@mmsc.example'],
    [' <> ', ''],
    ['x'.repeat(600), 'x'.repeat(500)],
  ])('%j is compared as %j', (given, compared) => {
    expect(refOf(given)).toBe(compared);
    expect(refOf(compared)).toBe(compared);
  });
});

describe('a transaction id', () => {
  it('differs by installation, submission and generation, and never by their seam', () => {
    const ids = [
      ['a', 1, 0],
      ['a', 1, 1],
      ['a', 11, 0],
      ['a', 1, 11],
      ['a', 11, 1],
      ['b', 1, 0],
    ].map(([install, leader, generation]) => transactionId(install as string, leader as number, generation as number));
    expect(ids[0]).toBe('a-1');
    expect(new Set(ids).size).toBe(ids.length);
  });
});
