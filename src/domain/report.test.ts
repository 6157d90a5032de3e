import { describe, expect, it } from 'vitest';
import { createIds } from './ids.ts';
import type { Spec } from './message.ts';
import { deliveryReport } from './report.ts';
import type { EventRow, MessageRow, SpecRow } from './rows.ts';
import { STATE } from './status.ts';

const ids = createIds('000102030405060708090a0b0c0d0e0f');
const AT = Date.UTC(2026, 6, 7, 6, 32, 15, 101);

const message: MessageRow = {
  no: 7,
  key: null,
  bulk: 5,
  bulkId: null,
  spec: 6,
  to: '41793026727',
  state: STATE.delivered,
  status: 5,
  error: 0,
  acceptedAt: AT,
  sentAt: AT + 100,
  doneAt: AT + 2_000,
  claimed: false,
  leg: 0,
};
const event: EventRow = { ...message, event: 1, at: AT + 2_000 };
const spec: Spec = { sender: '441134960000', content: { messageSegments: [] } };
const specRow: SpecRow = { no: 6, account: 1, sender: '441134960000', body: '', acceptedAt: AT, media: [] };

describe('a delivery report', () => {
  it('has the published members in the published order', () => {
    const full: Spec = {
      ...spec,
      options: { platform: { entityId: 'e', applicationId: 'a' }, campaignReferenceId: 'c' },
      webhooks: { callbackData: 'mine' },
    };
    const report = deliveryReport(event, full, specRow, ids);
    expect(JSON.stringify(report)).toBe(
      JSON.stringify({
        bulkId: ids.print('bulk', 5),
        price: { pricePerMessage: 0, currency: 'EUR' },
        status: {
          groupId: 3,
          groupName: 'DELIVERED',
          id: 5,
          name: 'DELIVERED_TO_HANDSET',
          description: 'Message delivered to handset',
        },
        error: { groupId: 0, groupName: 'OK', id: 0, name: 'NO_ERROR', description: 'No Error', permanent: false },
        messageId: ids.print('message', 7),
        to: '41793026727',
        sender: '441134960000',
        sentAt: '2026-07-07T06:32:15.201+0000',
        doneAt: '2026-07-07T06:32:17.101+0000',
        messageCount: 1,
        callbackData: 'mine',
        platform: { entityId: 'e', applicationId: 'a' },
        campaignReferenceId: 'c',
      }),
    );
  });

  it("gives the customer's own ids where there are any", () => {
    const report = deliveryReport({ ...event, key: 'order-1', bulkId: 'spring' }, spec, specRow, ids);
    expect([report.messageId, report.bulkId]).toEqual(['order-1', 'spring']);
  });

  it('leaves out what nobody gave, also an empty platform', () => {
    const report = deliveryReport(event, { ...spec, options: { platform: {} } }, specRow, ids);
    expect(Object.keys(report)).toHaveLength(10);
    const half = deliveryReport(event, { ...spec, options: { platform: { entityId: 'e' } } }, specRow, ids);
    expect(half.platform).toEqual({ entityId: 'e' });
  });

  it('always has sentAt and doneAt: acceptance and event where nothing was submitted', () => {
    const refused: EventRow = { ...event, sentAt: null, doneAt: null, status: 19, error: 15023, at: AT + 50 };
    const report = deliveryReport(refused, spec, specRow, ids);
    expect([report.sentAt, report.doneAt]).toEqual(['2026-07-07T06:32:15.101+0000', '2026-07-07T06:32:15.151+0000']);
    const open = deliveryReport({ ...message, state: 0, status: 26, doneAt: null, sentAt: null }, spec, specRow, ids);
    expect(open.doneAt).toBe('2026-07-07T06:32:15.101+0000');
  });

  it('tells of an event what was true then, and of a claimed message that it is on its way', () => {
    const claimed = { state: STATE.pending, status: 26, claimed: true };
    expect(deliveryReport({ ...event, ...claimed }, spec, specRow, ids).status.id).toBe(26);
    expect(deliveryReport({ ...message, ...claimed }, spec, specRow, ids).status.id).toBe(7);
    expect(deliveryReport({ ...message, claimed: true }, spec, specRow, ids).status.id).toBe(5);
    // Of a try whose answer is not known, and of one that a report has overtaken.
    const held = { state: STATE.uncertain, status: 3, error: 15000, claimed: true };
    expect(deliveryReport({ ...message, ...held }, spec, specRow, ids)).toMatchObject({
      status: { id: 7 },
      error: { id: 15000 },
    });
    const overtaken = { state: STATE.submitted, status: 3, error: 15004, claimed: true };
    expect(deliveryReport({ ...message, ...overtaken }, spec, specRow, ids).status.id).toBe(3);
  });

  it('of an SMS failover says so, and counts the segments of its text', () => {
    const sms: Spec = { ...spec, options: { smsFailover: { text: 'x'.repeat(161) } } };
    const report = deliveryReport({ ...event, leg: 1 }, sms, specRow, ids);
    expect([report.channel, report.messageCount]).toEqual(['SMS', 2]);
    const mms = deliveryReport(event, sms, specRow, ids);
    expect([mms.channel, mms.messageCount]).toEqual([undefined, 1]);
    expect(Object.keys(report).slice(-2)).toEqual(['messageCount', 'channel']);
  });

  it('costs nothing where the leg that it tells of never left, whatever became of the other', () => {
    const prices = { currency: 'EUR', MMS: { '': 0.1 }, SMS: { '': 0.04 } };
    const price = (row: Partial<EventRow>): number =>
      deliveryReport({ ...event, ...row }, { ...spec, prices }, specRow, ids).price.pricePerMessage;
    const unsent = { status: 15, error: 4100 };
    expect(price({ leg: 1, ...unsent })).toBe(0);
    expect(price({ leg: 1, status: 31, error: 4100 })).toBe(0);
    expect(price({ leg: 1, status: 15, error: 15006 })).toBe(0.04);
    expect(price({ leg: 0, ...unsent })).toBe(0);
    expect(price({ leg: 0, status: 31, error: 4100 })).toBe(0.1);
    expect(price({ leg: 0, status: 4, error: 15019 })).toBe(0.1);
    expect(price({ leg: 0, status: 4, error: 15019, sentAt: null })).toBe(0);
  });

  it('refuses codes that are not in the tables', () => {
    expect(() => deliveryReport({ ...event, status: 9999 }, spec, specRow, ids)).toThrow(RangeError);
  });
});
