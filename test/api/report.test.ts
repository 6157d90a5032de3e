/** What domain makes of an event is what the API publishes: the same schema for pull and push. */
import { expect, it } from 'vitest';
import { reportView } from '../../src/api/answers.ts';
import { ERRORS, STATUSES } from '../../src/domain/codes.ts';
import { createIds } from '../../src/domain/ids.ts';
import type { Spec } from '../../src/domain/message.ts';
import { createNetworks } from '../../src/domain/networks.ts';
import { deliveryReport } from '../../src/domain/report.ts';
import type { EventRow, SpecRow } from '../../src/domain/rows.ts';

const ids = createIds('000102030405060708090a0b0c0d0e0f');
const spec: Spec = {
  sender: 'Postcard',
  content: { messageSegments: [] },
  options: { platform: { entityId: 'e', applicationId: 'a' }, campaignReferenceId: 'c' },
  webhooks: { callbackData: 'mine' },
};
const specRow: SpecRow = { no: 6, account: 1, sender: 'Postcard', body: '', acceptedAt: 0, media: [] };
const event: EventRow = {
  ...{ no: 7, key: null, bulk: 5, bulkId: null, spec: 6, to: '41793026727', state: 3, status: 5, error: 0 },
  ...{ acceptedAt: 0, sentAt: 1, doneAt: 2, claimed: false, leg: 0, event: 1, at: 2 },
};

it('a report has exactly the published members, in the published order', () => {
  const report = deliveryReport(event, spec, specRow, ids);
  expect(reportView.parse(report)).toEqual(report);
  const order = Object.keys(reportView.shape).filter((name) => name in report);
  expect(Object.keys(report)).toEqual(order);
  expect(Object.keys(reportView.shape).filter((name) => !(name in report))).toEqual(['channel', 'mccMnc']);
  const networks = createNetworks({ '41': '22801' });
  const full = deliveryReport({ ...event, leg: 1 }, spec, specRow, ids, networks);
  expect(Object.keys(full)).toEqual(Object.keys(reportView.shape));
  expect(reportView.parse(full)).toEqual(full);
});

it('every status and every error there is makes a report that the published schema takes', () => {
  const wrong: string[] = [];
  for (const status of Object.keys(STATUSES)) {
    for (const error of Object.keys(ERRORS)) {
      const row = { ...event, status: Number(status), error: Number(error) };
      if (!reportView.safeParse(deliveryReport(row, spec, specRow, ids)).success) wrong.push(`${status} ${error}`);
    }
  }
  expect(wrong).toEqual([]);
});
