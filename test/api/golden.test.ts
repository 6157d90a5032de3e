/** Reports and logs as customers get them, held against the published examples: by GET, as a webhook (JSON, XML), in the live feed. */
import { describe, expect, it } from 'vitest';
import { logsAnswer, reportsAnswer } from '../../src/api/answers.ts';
import { createReads, reportsOf } from '../../src/api/reads.ts';
import { createIds } from '../../src/domain/ids.ts';
import type { Segment, Spec } from '../../src/domain/message.ts';
import { createNetworks } from '../../src/domain/networks.ts';
import { type DeliveryReport, deliveryReport } from '../../src/domain/report.ts';
import type { EventRow, MessageRow, SpecRow } from '../../src/domain/rows.ts';
import { STATE } from '../../src/domain/status.ts';
import { testEnv } from '../../src/env.ts';
import type { Store } from '../../src/store/contract.ts';
import { formBody } from '../../src/webhooks/payload.ts';
import { readXml, type XmlElement } from '../../src/xml.ts';
import { differences, examples, published } from './published.ts';

const ids = createIds('000102030405060708090a0b0c0d0e0f');
const networks = createNetworks({ '44113': '22801' });
const AT = Date.UTC(2026, 6, 7, 6, 32, 15, 101);

/** The example counts three messages and costs something: an MMS counts as one, so it went as its failover of three segments. */
const example: Spec = {
  sender: '441134960000',
  content: { title: 'Some title', messageSegments: [{ type: 'TEXT', text: 'Some text' }] },
  options: { smsFailover: { text: 'x'.repeat(400) } },
  prices: { currency: 'EUR', MMS: { '': 7 }, SMS: { '': 5, '44': 1 } },
};
const message: MessageRow = {
  ...{ no: 7, key: '43u2ih-6453jbh-897kfs90u2nj', bulk: 5, bulkId: '3746923784', spec: 6, to: '441134960001' },
  ...{ state: STATE.delivered, status: 5, error: 0, claimed: false, leg: 1 as const },
  ...{ acceptedAt: AT - 1000, sentAt: AT, doneAt: AT },
};
const event: EventRow = { ...message, event: 1, at: AT };
const rowOf = (spec: Spec): SpecRow => ({
  ...{ no: 6, account: 1, sender: spec.sender, body: JSON.stringify(spec), acceptedAt: AT - 1000, media: [] },
});

/** What GET answers when the store holds one message of `spec`. */
async function get(path: 'reports' | 'logs', spec: Spec, row: EventRow): Promise<string> {
  const page = { rows: [row], specs: [rowOf(spec)], next: null };
  const store = { takeReports: async () => page, logs: async () => page } as unknown as Store;
  const reads = createReads({ store, env: testEnv({ now: AT }), ids, logsHours: 48, networks });
  const answer = await reads[path](1, { limit: '1' });
  expect(answer.status).toBe(200);
  expect(answer.headers['content-type']).toMatch(/^application\/json/);
  return answer.body as string;
}

/** The texts of a document by their paths, in its order. */
function leaves(element: XmlElement, path: string[] = []): [string, string][] {
  if (element.children.length === 0) return [[path.join('/'), element.text]];
  return element.children.flatMap((child) => leaves(child, [...path, child.name]));
}

describe('the published example of a report', () => {
  it('is what GET /mms/2/reports answers, with what its schema has besides', async () => {
    const body = JSON.parse(await get('reports', example, event));
    expect(differences(body, published.reports)).toEqual(['$.results[0].channel is not published']);
    expect(body).toEqual({
      results: [
        {
          ...examples.report,
          to: '441134960001',
          error: { groupId: 0, groupName: 'OK', id: 0, name: 'NO_ERROR', description: 'No Error', permanent: false },
          mccMnc: '22801',
          channel: 'SMS',
        },
      ],
    });
  });

  it('is posted to webhooks in the very same bytes, and told to the live feed in the same', async () => {
    const body = await get('reports', example, event);
    const report = deliveryReport(event, example, rowOf(example), ids, networks);
    expect(formBody([report], 'application/json')).toBe(body);
    expect(JSON.stringify({ results: reportsOf([event], [rowOf(example)], ids, networks) })).toBe(body);
  });

  it('is posted as XML with the names, the order and the values of the example', () => {
    const report = deliveryReport(event, example, rowOf(example), ids, networks);
    const xml = formBody([report, report], 'application/xml');
    const read = readXml(xml);
    if (!read.ok) throw new Error(read.fault);
    expect(xml.startsWith('<?xml version="1.0" encoding="UTF-8"?><DeliveryReports><results><result>')).toBe(true);
    const [results] = read.root.children;
    expect([read.root.name, results?.name, results?.children.map(({ name }) => name)]).toEqual([
      ...['DeliveryReports', 'results', ['result', 'result']],
    ]);
    const told = leaves(results?.children[0] as XmlElement);
    const names = new Set<string>(examples.reportXml.map(([name]) => name));
    expect(told.filter(([name]) => names.has(name))).toEqual(examples.reportXml);
    expect(told.filter(([name]) => !names.has(name))).toEqual([
      ['error/groupId', '0'],
      ['error/groupName', 'OK'],
      ['error/id', '0'],
      ['error/name', 'NO_ERROR'],
      ['error/description', 'No Error'],
      ['error/permanent', 'false'],
      ['to', '441134960001'],
      ['channel', 'SMS'],
      ['mccMnc', '22801'],
    ]);
  });
});

describe('a report with everything', () => {
  const spec: Spec = {
    ...example,
    options: { platform: { entityId: 'entity', applicationId: 'app' }, campaignReferenceId: 'spring' },
    webhooks: { callbackData: '{"order":7}' },
  };
  const row: EventRow = { ...event, leg: 0, status: 9, error: 27, state: STATE.undeliverable, at: AT + 5 };

  it('is this text, member by member', async () => {
    expect(await get('reports', spec, row)).toBe(
      '{"results":[{"bulkId":"3746923784","price":{"pricePerMessage":7,"currency":"EUR"},' +
        '"status":{"groupId":2,"groupName":"UNDELIVERABLE","id":9,"name":"UNDELIVERABLE_NOT_DELIVERED",' +
        '"description":"Message sent not delivered"},' +
        '"error":{"groupId":1,"groupName":"HANDSET_ERRORS","id":27,"name":"EC_ABSENT_SUBSCRIBER",' +
        '"description":"Phone unreachable or off","permanent":false},' +
        '"messageId":"43u2ih-6453jbh-897kfs90u2nj","to":"441134960001","sender":"441134960000",' +
        '"sentAt":"2026-07-07T06:32:15.101+0000","doneAt":"2026-07-07T06:32:15.106+0000","messageCount":1,' +
        '"mccMnc":"22801","callbackData":"{\\"order\\":7}",' +
        '"platform":{"entityId":"entity","applicationId":"app"},"campaignReferenceId":"spring"}]}',
    );
  });

  it('holds what is published and nothing else, also as the schema of the document has it', async () => {
    const body = JSON.parse(await get('reports', spec, row));
    expect(differences(body, published.reports)).toEqual([]);
    expect(reportsAnswer.parse(body)).toEqual(body);
  });

  it('writes prices in digits, in JSON and in XML, however small', () => {
    for (const [price, words] of [
      [0.000001, '0.000001'],
      [0.1 + 0.2, '0.30000000000000004'],
      [1234567.5, '1234567.5'],
    ] as const) {
      const priced = { ...spec, prices: { currency: 'CHF', MMS: { '441': price } } };
      const report: DeliveryReport = deliveryReport(row, priced, rowOf(priced), ids);
      expect(report.price).toEqual({ pricePerMessage: price, currency: 'CHF' });
      expect(formBody([report], 'application/xml')).toContain(
        `<price><pricePerMessage>${words}</pricePerMessage><currency>CHF</currency></price>`,
      );
    }
  });
});

describe('the published example of a log', () => {
  it('is what GET /mms/2/logs answers, with what its schema has besides', async () => {
    const at = { sentAt: AT + 865, doneAt: AT + 865, at: AT + 865 };
    const body = JSON.parse(await get('logs', example, { ...event, ...at }));
    expect(differences(body, published.logs)).toEqual(['$.results[0].channel is not published']);
    expect(body).toEqual({
      results: [
        {
          ...examples.log,
          title: 'Some title',
          error: { groupId: 0, groupName: 'OK', id: 0, name: 'NO_ERROR', description: 'No Error', permanent: false },
          channel: 'SMS',
        },
      ],
    });
  });

  it('has with everything this text, and `type` in each segment, as strict clients need it', async () => {
    const messageSegments: Segment[] = [
      { type: 'SMIL', contentId: 's', smil: '<smil/>', contentType: 'application/smil' },
      { type: 'TEXT', contentId: 't', text: 'Some text' },
      { type: 'LINK', contentId: 'l', contentUrl: 'https://www.example.com/a.png', contentType: 'image/png' },
      { type: 'UPLOADED_REFERENCE', contentId: 'u', uploadedContentId: '0123' },
    ];
    const spec: Spec = {
      ...example,
      content: { title: 'Some title', messageSegments },
      options: { platform: { applicationId: 'app' }, campaignReferenceId: 'spring' },
      webhooks: { callbackData: 'not in logs' },
    };
    const open: EventRow = {
      ...event,
      leg: 0,
      state: STATE.pending,
      status: 26,
      error: 502,
      sentAt: null,
      doneAt: null,
    };
    const { event: _, at: __, ...row } = open;
    const text = await get('logs', spec, row as EventRow);
    expect(text).toBe(
      '{"results":[{"title":"Some title","mccMnc":"22801","sender":"441134960000","destination":"441134960001",' +
        '"bulkId":"3746923784","messageId":"43u2ih-6453jbh-897kfs90u2nj","sentAt":"2026-07-07T06:32:14.101+0000",' +
        '"doneAt":"2026-07-07T06:32:14.101+0000","messageCount":1,"price":{"pricePerMessage":7,"currency":"EUR"},' +
        '"status":{"groupId":1,"groupName":"PENDING","id":26,"name":"PENDING_ACCEPTED",' +
        '"description":"Message sent to next instance"},' +
        '"error":{"groupId":1,"groupName":"HANDSET_ERRORS","id":502,"name":"EC_NO_RESPONSE",' +
        '"description":"Operator gave no answer","permanent":false},' +
        `"platform":{"applicationId":"app"},"content":{"title":"Some title","messageSegments":${JSON.stringify(messageSegments)}},` +
        '"campaignReferenceId":"spring"}]}',
    );
    expect(differences(JSON.parse(text), published.logs)).toEqual([]);
    expect(logsAnswer.parse(JSON.parse(text))).toEqual(JSON.parse(text));
  });
});
