import { describe, expect, it } from 'vitest';
import { errorView, STATUS_GROUPS, STATUSES, statusView } from './codes.ts';
import type { DeliveryReport } from './report.ts';
import { isFound, parseSearch, SEARCH_MAX } from './search.ts';

const NOW = Date.UTC(2026, 6, 7, 12);
const read = (text: string) => {
  const parsed = parseSearch(text, NOW);
  if (!parsed.ok) throw new Error(parsed.wrong);
  return parsed.search;
};
const wrong = (text: string): string => {
  const parsed = parseSearch(text, NOW);
  return parsed.ok ? `understood: ${JSON.stringify(parsed.search)}` : parsed.wrong;
};

describe('a search', () => {
  it('may have every word once, in any case and order, with values in quotes', () => {
    expect(
      read(
        '  campaign:"spring \\"sale\\" \\\\ 1"  TO:+41793026727 From:Postcard status:delivered bulk:a:b before:1h after:2026-07-01 ',
      ),
    ).toEqual({
      campaign: 'spring "sale" \\ 1',
      to: '41793026727',
      from: 'Postcard',
      status: { group: 'DELIVERED' },
      bulk: 'a:b',
      before: NOW - 3_600_000,
      after: Date.UTC(2026, 6, 1),
    });
    expect(read('')).toEqual({});
    expect(read(' \t\n')).toEqual({});
    expect(read('to:"12345"')).toEqual({ to: '12345' });
  });

  it('knows every group of statuses, and every status by id and by name', () => {
    for (const group of STATUS_GROUPS) expect(read(`status:${group.toLowerCase()}`).status).toEqual({ group });
    for (const { id, name } of Object.values(STATUSES)) {
      expect(read(`status:${id}`).status).toEqual({ id });
      if (name !== 'REJECTED') expect(read(`status:${name}`).status).toEqual({ id });
    }
  });

  it.each([
    ['2026-07-07', Date.UTC(2026, 6, 7)],
    ['2026-07-07T06:32', Date.UTC(2026, 6, 7, 6, 32)],
    ['2026-07-07T06:32Z', Date.UTC(2026, 6, 7, 6, 32)],
    ['2026-07-07T06:32+02:00', Date.UTC(2026, 6, 7, 4, 32)],
    ['2026-07-07T06:32:15.101+0000', Date.UTC(2026, 6, 7, 6, 32, 15, 101)],
    ['2026-07-07T06:32:15z', Date.UTC(2026, 6, 7, 6, 32, 15)],
    ['90s', NOW - 90_000],
    ['15m', NOW - 900_000],
    ['2h', NOW - 7_200_000],
    ['3D', NOW - 3 * 86_400_000],
  ])('takes the instant %s', (text, at) => {
    expect(read(`after:${text}`)).toEqual({ after: at });
    expect(read(`before:"${text}"`)).toEqual({ before: at });
  });

  it.each([
    ['colour:red', 'has no word colour:; words are to: from: status: bulk: campaign: before: after:'],
    ['constructor:x', 'has no word constructor:; words are to: from: status: bulk: campaign: before: after:'],
    [
      'to:1 41793026727',
      'does not know what "41793026727" should be; words are to: from: status: bulk: campaign: before: after:',
    ],
    ['"to:1"', 'does not know what ""to:1"" should be; words are to: from: status: bulk: campaign: before: after:'],
    [':x', 'does not know what ":x" should be; words are to: from: status: bulk: campaign: before: after:'],
    ['to: 41793026727', 'has nothing behind to:'],
    ['to:', 'has nothing behind to:'],
    ['campaign:""', 'has nothing behind campaign:'],
    ['campaign:"spring', 'has a quote that does not end'],
    ['campaign:"spring\\"', 'has a quote that does not end'],
    ['campaign:"a"b', 'has something behind a quote at "campaign:"a"b"'],
    ['to:1 to:2', 'has to: twice'],
    ['bulk:a\0b', 'has the character U+0000'],
    [
      'status:gone',
      'has no status "gone"; it is one of accepted, pending, undeliverable, delivered, expired, rejected, or a status by id or name',
    ],
    [
      'before:yesterday',
      'cannot read the instant "yesterday" of before:; write 2026-07-07, 2026-07-07T06:32Z, or an age like 90s, 15m, 2h, 3d',
    ],
    [
      'after:2026-02-30',
      'cannot read the instant "2026-02-30" of after:; write 2026-07-07, 2026-07-07T06:32Z, or an age like 90s, 15m, 2h, 3d',
    ],
    [`to:${'1'.repeat(SEARCH_MAX)}`, 'is longer than 2048 characters'],
  ])('refuses %j in words that say why', (text, words) => {
    expect(wrong(text)).toBe(words);
  });

  it('takes no longer for a text made to be hard', () => {
    for (const text of [
      '"'.repeat(2048),
      `to:"${'\\'.repeat(2040)}`,
      'a'.repeat(2048),
      ': '.repeat(1000),
      `"${'\\"'.repeat(1000)}`,
    ]) {
      expect(wrong(text)).toMatch(/^(has|does)/);
    }
  });
});

describe('what a search finds', () => {
  const report: DeliveryReport = {
    bulkId: 'spring',
    price: { pricePerMessage: 0, currency: 'EUR' },
    status: statusView(5),
    error: errorView(0),
    messageId: 'm',
    to: '41793026727',
    sender: 'Postcard',
    sentAt: '2026-07-07T06:32:15.101+0000',
    doneAt: '2026-07-07T06:32:16.000+0000',
    messageCount: 1,
    campaignReferenceId: 'sale',
  };

  it.each([
    ['', true],
    ['to:0041793026727 from:Postcard status:5 bulk:spring campaign:sale', true],
    ['to:41793026728', false],
    ['from:postcard', false],
    ['status:delivered', true],
    ['status:delivered_to_handset', true],
    ['status:delivered_to_operator', false],
    ['status:pending', false],
    ['bulk:autumn', false],
    ['campaign:sal', false],
    ['after:2026-07-07T06:32:15.101Z', true],
    ['after:2026-07-07T06:32:15.102Z', false],
    ['before:2026-07-07T06:32:15.101Z', false],
    ['before:2026-07-07T06:32:15.102Z', true],
    ['to:41793026727 status:pending', false],
  ])('%j: %s', (text, found) => {
    expect(isFound(report, read(text))).toBe(found);
  });

  it('without a campaign is not in any', () => {
    const { campaignReferenceId: _, ...without } = report;
    expect(isFound(without, read('campaign:sale'))).toBe(false);
  });
});
