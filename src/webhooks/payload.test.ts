/** The bytes of delivery webhooks, held against Infobip's published examples of both versions. */
import { describe, expect, it } from 'vitest';
import { type DeliveryReport, reportForm } from '../domain/report.ts';
import { formBody } from './payload.ts';

const delivered = {
  groupId: 3,
  groupName: 'DELIVERED',
  id: 5,
  name: 'DELIVERED_TO_HANDSET',
  description: 'Message delivered to handset',
} as const;
const noError = {
  groupId: 0,
  groupName: 'OK',
  id: 0,
  name: 'NO_ERROR',
  description: 'No Error',
  permanent: false,
} as const;

/** Published: "Received report" of the first version. */
const older = (messageId: string, to: string, at: string): DeliveryReport => ({
  bulkId: 'BULK-ID-123-xyz',
  price: { pricePerMessage: 0.01, currency: 'EUR' },
  status: delivered,
  error: noError,
  messageId,
  to,
  sender: 'InfoMMS',
  sentAt: at,
  doneAt: at,
  messageCount: 1,
  platform: { entityId: 'my-entity-id', applicationId: 'my-application-id' },
});
const two = [
  older('45db39c3-7822-4e72-a3ec-c87442c0ffz9', '41793026727', '2019-11-09T16:00:00.000+0000'),
  older('12db39c3-7822-4e72-a3ec-c87442c0ffc5', '41793026834', '2019-11-09T17:00:00.000+0000'),
];

describe('reports of messages that /mms/2 took', () => {
  const report: DeliveryReport = {
    bulkId: '3746923784',
    price: { pricePerMessage: 1, currency: 'EUR' },
    status: delivered,
    error: noError,
    messageId: '43u2ih-6453jbh-897kfs90u2nj',
    to: '41793026727',
    sender: '441134960000',
    sentAt: '2026-07-07T06:32:15.101+0000',
    doneAt: '2026-07-07T06:32:15.101+0000',
    messageCount: 3,
    mccMnc: '22801',
    callbackData: 'a < b & "c"',
    platform: { entityId: 'e', applicationId: 'a' },
    campaignReferenceId: 'spring',
  };

  it('are a list of results in JSON', () => {
    expect(formBody([report], 'application/json')).toBe(
      '{"results":[{"bulkId":"3746923784","price":{"pricePerMessage":1,"currency":"EUR"},"status":{"groupId":3,"groupName":"DELIVERED","id":5,' +
        '"name":"DELIVERED_TO_HANDSET","description":"Message delivered to handset"},"error":{"groupId":0,"groupName":"OK","id":0,"name":"NO_ERROR",' +
        '"description":"No Error","permanent":false},"messageId":"43u2ih-6453jbh-897kfs90u2nj","to":"41793026727","sender":"441134960000",' +
        '"sentAt":"2026-07-07T06:32:15.101+0000","doneAt":"2026-07-07T06:32:15.101+0000","messageCount":3,"mccMnc":"22801",' +
        '"callbackData":"a < b & \\"c\\"","platform":{"entityId":"e","applicationId":"a"},"campaignReferenceId":"spring"}]}',
    );
  });

  it('are DeliveryReports/results/result in XML, as published', () => {
    expect(formBody([report, report], 'application/xml')).toBe(
      `<?xml version="1.0" encoding="UTF-8"?><DeliveryReports><results>${(
        '<result><bulkId>3746923784</bulkId><price><pricePerMessage>1</pricePerMessage><currency>EUR</currency></price><status><groupId>3</groupId>' +
          '<groupName>DELIVERED</groupName><id>5</id><name>DELIVERED_TO_HANDSET</name><description>Message delivered to handset</description></status>' +
          '<error><groupId>0</groupId><groupName>OK</groupName><id>0</id><name>NO_ERROR</name><description>No Error</description>' +
          '<permanent>false</permanent></error><messageId>43u2ih-6453jbh-897kfs90u2nj</messageId><to>41793026727</to><sender>441134960000</sender>' +
          '<sentAt>2026-07-07T06:32:15.101+0000</sentAt><doneAt>2026-07-07T06:32:15.101+0000</doneAt><messageCount>3</messageCount>' +
          '<mccMnc>22801</mccMnc><callbackData>a &lt; b &amp; "c"</callbackData><platform><entityId>e</entityId><applicationId>a</applicationId></platform>' +
          '<campaignReferenceId>spring</campaignReferenceId></result>'
      ).repeat(2)}</results></DeliveryReports>`,
    );
  });
});

describe('reports of messages that the first version took', () => {
  it('have its shape in JSON, byte for byte as published', () => {
    const item = (messageId: string, to: string, at: string): string =>
      `{"bulkId":"BULK-ID-123-xyz","messageId":"${messageId}","to":"${to}","sentAt":"${at}","doneAt":"${at}","smsCount":1,` +
      '"price":{"pricePerMessage":0.01,"currency":"EUR"},"status":{"groupId":3,"groupName":"DELIVERED","id":5,"name":"DELIVERED_TO_HANDSET",' +
      '"description":"Message delivered to handset"},"error":{"groupId":0,"groupName":"OK","id":0,"name":"NO_ERROR","description":"No Error",' +
      '"permanent":false},"entityId":"my-entity-id","applicationId":"my-application-id"}';
    expect(formBody(two, reportForm('application/json', true))).toBe(
      `{"results":[${item('45db39c3-7822-4e72-a3ec-c87442c0ffz9', '41793026727', '2019-11-09T16:00:00.000+0000')},` +
        `${item('12db39c3-7822-4e72-a3ec-c87442c0ffc5', '41793026834', '2019-11-09T17:00:00.000+0000')}]}`,
    );
  });

  it('are MmsReportRequest/results/results in XML, as published', () => {
    const item = (messageId: string, to: string, at: string): string =>
      `<results><bulkId>BULK-ID-123-xyz</bulkId><messageId>${messageId}</messageId><to>${to}</to><sentAt>${at}</sentAt><doneAt>${at}</doneAt>` +
      '<smsCount>1</smsCount><price><pricePerMessage>0.01</pricePerMessage><currency>EUR</currency></price><status><groupId>3</groupId>' +
      '<groupName>DELIVERED</groupName><id>5</id><name>DELIVERED_TO_HANDSET</name><description>Message delivered to handset</description></status>' +
      '<error><groupId>0</groupId><groupName>OK</groupName><id>0</id><name>NO_ERROR</name><description>No Error</description><permanent>false</permanent>' +
      '</error><entityId>my-entity-id</entityId><applicationId>my-application-id</applicationId></results>';
    expect(formBody(two, reportForm('application/xml', true))).toBe(
      `<?xml version="1.0" encoding="UTF-8"?><MmsReportRequest><results>${item('45db39c3-7822-4e72-a3ec-c87442c0ffz9', '41793026727', '2019-11-09T16:00:00.000+0000')}` +
        `${item('12db39c3-7822-4e72-a3ec-c87442c0ffc5', '41793026834', '2019-11-09T17:00:00.000+0000')}</results></MmsReportRequest>`,
    );
  });

  it('carry network and callbackData where the old model has them, and nothing that came later', () => {
    const [report] = two as [DeliveryReport];
    const status = { ...delivered, action: 'none' };
    const more = { ...report, status, mccMnc: '22801', callbackData: 'cb', channel: 'SMS' as const };
    const body = formBody([{ ...more, campaignReferenceId: 'c' }], reportForm('application/json', true));
    const [item] = (JSON.parse(body) as { results: Record<string, unknown>[] }).results;
    expect(Object.keys(item ?? {})).toEqual([
      ...['bulkId', 'messageId', 'to', 'sentAt', 'doneAt', 'smsCount', 'mccMnc', 'callbackData', 'price', 'status'],
      ...['error', 'entityId', 'applicationId'],
    ]);
    expect(item?.status).toEqual(delivered);
  });
});
