/** Networks, times of keys, blocklists, changes of settings, prices: what the door asks of the operator's rows. */
import { describe, expect, it } from 'vitest';
import {
  Blocklist,
  blockValue,
  changedSettings,
  DEFAULT_SETTINGS,
  holds,
  isNetwork,
  keyCounts,
  networksOf,
} from './accounts.ts';
import { micros, priceBook, priceOf, specPrices } from './prices.ts';

describe('networks', () => {
  it('hold addresses of both kinds, and IPv4 in the clothes of IPv6', () => {
    const inside = networksOf(['10.0.0.0/8', '2001:db8::/32', '192.0.2.7']);
    for (const address of ['10.1.2.3', '::ffff:10.1.2.3', '2001:db8::1', '192.0.2.7'])
      expect(inside(address)).toBe(true);
    for (const address of ['11.0.0.1', '2001:db9::1', '192.0.2.8', '', 'nonsense', '::1'])
      expect(inside(address)).toBe(false);
    expect(networksOf([])('127.0.0.1')).toBe(false);
    const mapped = networksOf(['::ffff:10.0.0.0/104', '::ffff:192.0.2.7']);
    expect(['10.1.2.3', '::ffff:10.1.2.3', '192.0.2.7', '11.0.0.1', '192.0.2.8'].map(mapped)).toEqual([
      ...[true, true, true, false, false],
    ]);
  });
  it.each([
    ...['10.0.0.0/33', 'example.com', '', '10.0.0/8/8', '::/129'],
    ...['010.0.0.1', '10.1', '10/8', '1', '0x0a.0.0.1', 'fe80::1%eth0', '10.0.0.0/', '10.0.0.0/-1'],
  ])('are not %s', (text) => {
    expect(isNetwork(text)).toBe(false);
  });
});

describe('keys and scopes', () => {
  const key = {
    id: 'k',
    createdAt: 0,
    scopes: null,
    validFrom: 10,
    validUntil: 20,
    allow: [],
    revokedAt: null,
    requestsPerMinute: null,
  };
  it('count from their first instant up to their last one', () => {
    expect([9, 10, 19, 20].map((now) => keyCounts(key, now))).toEqual([false, true, true, false]);
    expect(keyCounts({ ...key, revokedAt: 15 }, 12)).toBe(false);
  });
  it('need one of the scopes; none given = all', () => {
    expect(holds(null, ['mms:manage'])).toBe(true);
    expect(holds(['mms:logs:read'], ['mms:manage', 'mms:logs:read'])).toBe(true);
    expect(holds([], ['mms:manage'])).toBe(false);
  });
});

describe('blocklists', () => {
  it('know values and beginnings', () => {
    const list = new Blocklist();
    for (const value of ['4179*', '41760000001', 'spam', 'shop*']) list.add(value);
    for (const value of ['4179', '41790000001', '41760000001', 'spam', 'shopping']) expect(list.has(value)).toBe(true);
    for (const value of ['417', '4176000000', '417600000011', 'spammer', 'sho', ''])
      expect(list.has(value)).toBe(false);
  });
  it('compare numbers and names in one spelling', () => {
    expect(blockValue('DESTINATION', '+4179*')).toBe('4179*');
    expect(blockValue('DESTINATION', '004179')).toBe('4179');
    expect(blockValue('SENDER', '+44113*')).toBe('44113*');
    expect(blockValue('SENDER', 'My Shop*')).toBe('my shop*');
  });
});

it('settings change where something is given, limits one by one, and null takes a limit away', () => {
  const one = changedSettings(DEFAULT_SETTINGS, { currency: 'CHF', entity: undefined, limits: { messagesPerDay: 5 } });
  const two = changedSettings(one, { limits: { logsPerMinute: null, messagesPerDay: undefined } });
  expect(two).toEqual({
    ...DEFAULT_SETTINGS,
    currency: 'CHF',
    limits: { ...DEFAULT_SETTINGS.limits, messagesPerDay: 5, logsPerMinute: null },
  });
});

describe('prices', () => {
  const book = priceBook([
    { prefix: '', channel: 'MMS', price: 0.3 },
    { prefix: '41', channel: 'MMS', price: 0.2 },
    { prefix: '4179', channel: 'MMS', price: 0.1 },
    { prefix: '41', channel: 'SMS', price: 0.01 },
  ]);
  it('are those of the longest beginning, by channel', () => {
    const price = (channel: 'MMS' | 'SMS', number: string) => book.row(channel, number)?.price;
    expect([price('MMS', '41790000001'), price('MMS', '41760000001'), price('MMS', '49')]).toEqual([0.1, 0.2, 0.3]);
    expect([price('SMS', '41790000001'), price('SMS', '49')]).toEqual([0.01, undefined]);
  });
  it('kept with a spec are the same for each of its destinations', () => {
    const numbers = ['41790000001', '41760000001', '49170000001', '4'];
    const kept = specPrices(book, 'CHF', numbers, true);
    for (const number of numbers) {
      for (const channel of ['MMS', 'SMS'] as const) {
        expect(priceOf(kept, channel, number)).toBe(book.row(channel, number)?.price ?? 0);
      }
    }
    expect(specPrices(book, 'CHF', numbers, false).SMS).toBeUndefined();
  });
  it('add up in whole millionths', () => {
    expect(micros(0.1) + micros(0.2)).toBe(micros(0.3));
  });
});
