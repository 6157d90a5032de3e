import { describe, expect, it } from 'vitest';
import { createNetworks, readNetworks } from './networks.ts';

describe('the number table', () => {
  it('knows a number by its longest beginning', () => {
    const networks = createNetworks({ '+49': '26200', 4917: '26201', 491701: '26203' });
    expect(
      ['491700000000', '491701000000', '4930123456', '447700900001', '4', ''].map((to) => networks.of(to)),
    ).toEqual(['26201', '26203', '26200', null, null, null]);
  });

  it('is read line by line, whatever separates the columns', () => {
    expect(readNetworks('prefix,mccmnc\n# a comment\n\n49,26201\r\n+385;21901;Some Name\n"1"\t310260\n')).toEqual({
      ok: true,
      table: { 49: '26201', 385: '21901', 1: '310260' },
    });
  });

  it('tells each line that is none, at most twenty', () => {
    expect(readNetworks('49,26201\nx,y\n49')).toEqual({
      ok: false,
      mistakes: [
        'line 2: must be the beginning of numbers and a network, like 4917,26201',
        'line 3: must be the beginning of numbers and a network, like 4917,26201',
      ],
    });
    const many = readNetworks('1,2\n'.repeat(100));
    expect(many.ok ? 0 : many.mistakes.length).toBe(20);
  });
});
