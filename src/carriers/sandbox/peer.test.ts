import { describe, expect, it } from 'vitest';
import fc from '../../../test/properties.ts';
import { childOf, readXml, textOf } from '../../xml.ts';
import { printFault, printReport, printResponse, type Read, readSubmit } from './peer.ts';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
const NOW = Date.parse('2026-01-01T00:00:00Z');
const TYPE = 'multipart/related; boundary=b; type="text/xml"; start="<s>"';

const SOAP = `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><m:TransactionID xmlns:m="${NS}">t1</m:TransactionID></e:Header><e:Body><m:SubmitReq xmlns:m="${NS}"><m:MM7Version>6.8.0</m:MM7Version><m:SenderIdentification><m:VASPID>v</m:VASPID><m:SenderAddress><m:ShortCode>Shop</m:ShortCode></m:SenderAddress></m:SenderIdentification><m:Recipients><m:To><m:Number>491700000001</m:Number></m:To></m:Recipients><m:Priority>Normal</m:Priority><m:Subject>Hi</m:Subject><m:Content href="cid:c"/></m:SubmitReq></e:Body></e:Envelope>`;
const CONTENT = `Content-Type: text/plain\r\nContent-ID: <c>\r\n\r\nhello`;

function multipart(soap: string, content = CONTENT): Buffer {
  return Buffer.from(
    `--b\r\nContent-Type: text/xml\r\nContent-ID: <s>\r\n\r\n${soap}\r\n--b\r\n${content}\r\n--b--\r\n`,
  );
}

function read(change: (soap: string) => string = (soap) => soap, content = CONTENT): Read {
  return readSubmit(TYPE, multipart(change(SOAP), content), NOW);
}

function good(result: Read) {
  if (!result.ok) throw new Error(JSON.stringify(result.problem));
  if ('amend' in result) throw new Error('an amendment');
  return result.request;
}

describe('a SubmitReq', () => {
  it('is read with one part that is no multipart', () => {
    expect(good(read())).toMatchObject({
      transactionId: 't1',
      namespace: NS,
      version: '6.8.0',
      vasp: 'v',
      sender: { kind: 'ShortCode', text: 'Shop', shown: 'Shop' },
      recipients: [{ kind: 'Number', text: '491700000001', msisdn: '491700000001', list: 'To' }],
      subject: 'Hi',
      reports: false,
      earliestAt: null,
      expiresAt: null,
      parts: [{ contentType: 'text/plain', contentId: 'c', bytes: Buffer.from('hello') }],
    });
  });

  it.each([
    [
      'elements in no namespace',
      (soap: string) => soap.replace(/m:SubmitReq xmlns:m="[^"]*"/, 'SubmitReq').replace(/<(\/?)m:(?!Trans)/g, '<$1'),
      NS,
    ],
    [
      'release 5',
      (soap: string) => soap.replaceAll('REL-6-MM7-1-4', 'REL-5-MM7-1-0'),
      NS.replace('REL-6-MM7-1-4', 'REL-5-MM7-1-0'),
    ],
    [
      'a vendor element',
      (soap: string) => soap.replace('<m:Subject>', '<x:Own xmlns:x="urn:x">1</x:Own><m:Subject>'),
      NS,
    ],
    ['white space around values', (soap: string) => soap.replace(/>([^<>]+)</g, '> \n$1\t<'), NS],
  ])('is read with %s, and answered in the same namespace', (_, change, namespace) => {
    expect(good(read(change))).toMatchObject({ transactionId: 't1', namespace, subject: 'Hi' });
  });

  it.each([
    ['+491700000001/TYPE=PLMN', 'Number'],
    ['491700000001', 'Number'],
    ['+491700000001/type=plmn@mms.example.net', 'RFC2822Address'],
    ['491700000001', 'ShortCode'],
  ])('knows the number in %s', (text, kind) => {
    const request = good(
      read((soap) => soap.replace('<m:Number>491700000001</m:Number>', `<m:${kind}>${text}</m:${kind}>`)),
    );
    expect(request.recipients).toEqual([{ kind, text, msisdn: '491700000001', list: 'To' }]);
  });

  it('has each recipient once, whatever its spelling', () => {
    const request = good(
      read((soap) =>
        soap.replace('</m:To>', '<m:Number>+491700000001</m:Number></m:To><m:Bcc><m:Number>2</m:Number></m:Bcc>'),
      ),
    );
    expect(request.recipients.map(({ msisdn, list }) => [msisdn, list])).toEqual([
      ['491700000001', 'To'],
      ['2', 'Bcc'],
    ]);
  });

  it.each([
    ['<m:SenderAddress><m:Number>+4411/TYPE=PLMN</m:Number></m:SenderAddress>', '4411'],
    ['<m:SenderAddress><m:RFC2822Address>shop@example.org</m:RFC2822Address></m:SenderAddress>', 'shop@example.org'],
    ['<m:SenderAddress>+4411</m:SenderAddress>', '4411'],
    ['<m:VASID>news</m:VASID>', 'news'],
    ['', 'v'],
  ])('with the sender %s shows %s', (xml, shown) => {
    const request = good(read((soap) => soap.replace(/<m:SenderAddress>.*<\/m:SenderAddress>/, xml)));
    expect(request.sender.shown).toBe(shown);
  });

  it.each([
    ['P1D', NOW + 86_400_000],
    ['PT90M', NOW + 5_400_000],
    ['2026-01-02T01:00:00+01:00', NOW + 86_400_000],
    ['2026-01-02T00:00:00', NOW + 86_400_000],
  ])('may expire at %s', (value, at) => {
    expect(
      good(read((soap) => soap.replace('<m:Priority>', `<m:ExpiryDate>${value}</m:ExpiryDate><m:Priority>`))).expiresAt,
    ).toBe(at);
  });

  it('is another message when its content differs, the same one whatever its TransactionID', () => {
    const fingerprint = (result: Read): string =>
      result.ok && 'fingerprint' in result ? Buffer.from(result.fingerprint).toString('hex') : '';
    const first = fingerprint(read());
    expect(first).toHaveLength(64);
    expect(fingerprint(read((soap) => soap.replace('t1', 't2')))).toBe(first);
    expect(fingerprint(read(undefined, CONTENT.replace('hello', 'hallo')))).not.toBe(first);
    expect(fingerprint(read((soap) => soap.replace('0001', '0002')))).not.toBe(first);
  });
});

describe('a request that is wrong', () => {
  const without = (name: string) => (soap: string) => soap.replace(new RegExp(`<m:${name}[ >].*</m:${name}>`), '');
  const add = (xml: string) => (soap: string) => soap.replace('<m:Subject>', `${xml}<m:Subject>`);
  it.each<[string, (soap: string) => string, number, boolean]>([
    ['that is no XML', () => '<a', 4004, true],
    ['with a DOCTYPE', (soap) => `<!DOCTYPE a>${soap}`, 4004, true],
    [
      'in a SOAP 1.2 envelope',
      (soap) => soap.replace('http://schemas.xmlsoap.org/soap/envelope/', 'http://www.w3.org/2003/05/soap-envelope'),
      4004,
      true,
    ],
    ['without TransactionID', (soap) => soap.replace('>t1<', '><'), 4004, true],
    ['with a TransactionID without end', (soap) => soap.replace('t1', 'x'.repeat(257)), 4004, true],
    ['with an empty body', (soap) => soap.replace(/<e:Body>.*<\/e:Body>/, '<e:Body/>'), 4004, true],
    ['with two operations', (soap) => soap.replace('</e:Body>', `<m:SubmitReq xmlns:m="${NS}"/></e:Body>`), 4004, true],
    ['in a foreign namespace', (soap) => soap.replaceAll(NS, 'urn:mm7'), 4004, true],
    ['for another operation', (soap) => soap.replaceAll('SubmitReq', 'QueryStatusReq'), 4003, true],
    ['that cancels nothing', (soap) => soap.replaceAll('SubmitReq', 'CancelReq'), 4004, false],
    ['without version', without('MM7Version'), 4004, true],
    ['of an unknown version', (soap) => soap.replace('6.8.0', '7.0.0'), 4002, true],
    ['without SenderIdentification', without('SenderIdentification'), 4004, false],
    ['without recipients', without('Recipients'), 2002, false],
    ['with an empty To', (soap) => soap.replace(/<m:To>.*<\/m:To>/, '<m:To/>'), 2002, false],
    ['to letters', (soap) => soap.replace('491700000001', 'abc'), 2002, false],
    [
      'to too many',
      (soap) =>
        soap.replace(
          '</m:To>',
          `${Array.from({ length: 500 }, (_, n) => `<m:Number>${n}</m:Number>`).join('')}</m:To>`,
        ),
      2007,
      false,
    ],
    ['with an unknown kind of list', (soap) => soap.replaceAll('m:To>', 'm:Toto>'), 4004, false],
    ['with an unknown kind of address', (soap) => soap.replaceAll('m:Number>', 'm:Fax>'), 4004, false],
    ['with an element that the schema does not know', add('<m:Colour>red</m:Colour>'), 4004, false],
    ['with __proto__ as an element', add('<m:__proto__>1</m:__proto__>'), 4004, false],
    ['with two subjects', add('<m:Subject>Ho</m:Subject>'), 4004, false],
    ['with an unknown priority', (soap) => soap.replace('Normal', 'Urgent'), 2007, false],
    ['with a boolean that is none', add('<m:DeliveryReport>maybe</m:DeliveryReport>'), 2007, false],
    ['with a date that is none', add('<m:ExpiryDate>tomorrow</m:ExpiryDate>'), 2007, false],
    ['with a month 13', add('<m:ExpiryDate>2026-13-01T00:00:00Z</m:ExpiryDate>'), 2007, false],
    ['with an empty duration', add('<m:ExpiryDate>P</m:ExpiryDate>'), 2007, false],
    ['with a TimeStamp that is none', add('<m:TimeStamp>now</m:TimeStamp>'), 2007, false],
    ['for a far day', add('<m:EarliestDeliveryTime>P5D</m:EarliestDeliveryTime>'), 2007, false],
    ['without Content', (soap) => soap.replace('<m:Content href="cid:c"/>', ''), 2004, false],
    ['with Content that names nothing', (soap) => soap.replace('cid:c', 'cid:d'), 2004, false],
    ['with Content that names nothing decodable', (soap) => soap.replace('cid:c', 'cid:%zz'), 2004, false],
  ])('%s is refused', (_what, change, code, fault) => {
    const result = read(change);
    expect(result).toMatchObject({ ok: false, problem: { code, fault } });
    if (result.ok) return;
    const printed = fault
      ? printFault(result.dialect, result.problem)
      : printResponse(result.dialect, result.problem, null);
    const xml = readXml(printed);
    expect(xml.ok && textOf(xml.root, 'Header', 'TransactionID')).toBe(result.dialect.transactionId ?? '0000');
    expect(printed).toContain(`<mm7:StatusCode>${code}</mm7:StatusCode>`);
  });

  it.each([
    ['', 4004],
    ['application/json', 4004],
    ['multipart/mixed; boundary=b', 4004],
    ['multipart/related', 4004],
    ['multipart/related; boundary=zzz', 4004],
    ['multipart/related; boundary=b; start="<other>"', 4004],
  ])('with the Content-Type "%s" is refused', (type, code) => {
    expect(readSubmit(type, multipart(SOAP), NOW)).toMatchObject({ ok: false, problem: { code, fault: true } });
  });

  it('with content that is a broken multipart is refused with 2004', () => {
    const content = 'Content-Type: multipart/mixed; boundary=q\r\nContent-ID: <c>\r\n\r\nnothing here';
    expect(read(undefined, content)).toMatchObject({ ok: false, problem: { code: 2004, fault: false } });
  });

  it('names the recipients that are none', () => {
    const result = read((soap) => soap.replace('</m:To>', '<m:Number>12-3</m:Number></m:To>'));
    expect(result).toMatchObject({ ok: false, problem: { code: 2002, recipients: [{ text: '12-3' }] } });
  });

  it('never throws, whatever the bytes', () => {
    const noise = fc.string({ unit: 'binary', maxLength: 40 });
    fc.assert(
      fc.property(fc.nat(SOAP.length), fc.nat(60), noise, noise, (at, length, words, type) => {
        const soap = SOAP.slice(0, at) + words + SOAP.slice(at + length);
        expect(readSubmit(TYPE, multipart(soap), NOW)).toHaveProperty('ok');
        expect(readSubmit(`multipart/related; boundary=b;${type}`, multipart(SOAP), NOW)).toHaveProperty('ok');
        expect(readSubmit(type, Buffer.from(words), NOW)).toMatchObject({ ok: false });
      }),
      { seed: 7, numRuns: 300 },
    );
  });
});

describe('what is printed', () => {
  it('keeps whatever stands in ids and addresses as text', () => {
    const evil = '</mm7:MessageID><x/>&"\u0000';
    const xml = readXml(
      printReport({
        transactionId: evil,
        namespace: NS,
        version: '6.8.0',
        messageId: evil,
        recipient: { kind: 'Number', text: evil },
        sender: { kind: 'ShortCode', text: evil },
        at: NOW,
        status: 'Rejected',
      }),
    );
    const report = xml.ok ? childOf(xml.root, 'Body', 'DeliveryReportReq') : undefined;
    expect(report?.children.map((child) => child.name)).toEqual([
      'MM7Version',
      'MMSRelayServerID',
      'MessageID',
      'Recipient',
      'Sender',
      'Date',
      'MMStatus',
      'MMStatusExtension',
      'StatusText',
    ]);
    expect(report && textOf(report, 'MessageID')).toBe('</mm7:MessageID><x/>&"\ufffd');
  });
});
