/**
 * MM7 as peers really speak it (TS 23.140 as printed by MMSCs, gateways and aggregators in the field): each habit is a row, and
 * each row must be read. What must not be read stands at the end.
 */
import { describe, expect, it } from 'vitest';
import type { CarrierInbound, Outcome, Submission } from '../../domain/submission.ts';
import { outcomeOf } from './answer.ts';
import { readDeliver, readReport } from './calls.ts';
import { readSoap, type SoapMessage } from './soap.ts';

const SCHEMA = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/';
const RELEASES = [0, 1, 2, 3, 4, 5].flatMap((n) => [`REL-5-MM7-1-${n}`, `REL-6-MM7-1-${n}`]);
const ENV = 'http://schemas.xmlsoap.org/soap/envelope/';

const submission: Submission = {
  transactionId: 'tx-1',
  sender: '12345',
  recipients: ['15551230001'],
  parts: [],
  validUntil: 0,
};

const answered = (body: string, contentType = 'text/xml', status = 200): Outcome =>
  outcomeOf({ status, contentType, retryAfter: undefined, body: Buffer.from(body) }, submission, 0);

describe('an answer', () => {
  const minimum = `<SubmitRsp><MM7Version>6.8.0</MM7Version><Status><StatusCode>1000</StatusCode><StatusText>Success</StatusText></Status><MessageID>m1</MessageID></SubmitRsp>`;
  const wrap = (body: string, header = '<TransactionID>tx-1</TransactionID>'): string =>
    `<E:Envelope xmlns:E="${ENV}"><E:Header>${header}</E:Header><E:Body>${body}</E:Body></E:Envelope>`;

  it.each<[string, string, string?]>([
    ...RELEASES.map((release): [string, string] => [
      `in ${release}, whatever we asked in`,
      wrap(minimum.replace('<SubmitRsp>', `<SubmitRsp xmlns="${SCHEMA}${release}">`)),
    ]),
    ['with a byte order mark', `\ufeff${wrap(minimum)}`],
    [
      'with an XML declaration and a comment',
      `<?xml version='1.0' encoding='UTF-8' standalone="yes"?><!-- x -->${wrap(minimum)}`,
    ],
    [
      'with encodingStyle, actor and xsi:type',
      wrap(
        minimum.replace(
          '<MessageID>',
          `<MessageID xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:type="xs:string">`,
        ),
        `<m:TransactionID xmlns:m="${SCHEMA}REL-5-MM7-1-0" E:mustUnderstand="1" E:actor="" E:encodingStyle="">tx-1</m:TransactionID>`,
      ),
    ],
    ['in CDATA', wrap(minimum.replace('>m1<', '><![CDATA[m1]]><'))],
    ['with blanks around the transaction id', wrap(minimum, '<TransactionID>\n    tx-1\n  </TransactionID>')],
    [
      'with Details and Extensions',
      wrap(minimum.replace('</Status>', '<Details><x>y</x></Details></Status><Extension identity="a"/>')),
    ],
    ['as application/xml', wrap(minimum), 'application/xml; charset=utf-8'],
    ['in capitals of the Content-Type', wrap(minimum), 'TEXT/XML; CHARSET=UTF-8'],
    [
      'in a multipart with an unquoted boundary',
      `--bound\r\nContent-Type: text/xml\r\n\r\n${wrap(minimum)}\r\n--bound--\r\n`,
      'multipart/related; boundary=bound; type=text/xml',
    ],
    [
      'in a multipart whose boundary has blanks',
      `--Story 74 5\r\nContent-Type: text/xml\r\n\r\n${wrap(minimum)}\r\n--Story 74 5--\r\n`,
      'multipart/related; boundary="Story 74 5"',
    ],
    [
      'in a multipart with blanks behind its delimiters',
      `--b  \r\nContent-Type: text/xml\r\n\r\n${wrap(minimum)}\r\n--b--  \r\n`,
      'multipart/related; boundary="b"',
    ],
    [
      'in base64',
      `--b\r\nContent-Type: text/xml\r\nContent-Transfer-Encoding: BASE64\r\n\r\n${Buffer.from(wrap(minimum)).toString('base64')}\r\n--b--\r\n`,
      'multipart/related; boundary="b"',
    ],
  ])('%s is taken for what it is', (_, body, contentType) => {
    expect(answered(body, contentType)).toMatchObject({ kind: 'accepted', carrierMessageId: 'm1' });
  });

  it.each<[string, string, number, string]>([
    [
      'a fault with HTTP 200',
      wrap(
        '<E:Fault><faultcode>E:Client</faultcode><faultstring>Client error</faultstring><detail><RSErrorRsp><MM7Version>5.3.0</MM7Version><Status><StatusCode>2007</StatusCode><StatusText>Message format corrupt</StatusText></Status></RSErrorRsp></detail></E:Fault>',
        '<TransactionID>0000</TransactionID>',
      ),
      200,
      'refused',
    ],
    [
      'a fault with HTTP 502',
      wrap(
        '<E:Fault><faultcode>Server</faultcode><faultstring>x</faultstring><detail><VASPErrorRsp><Status><StatusCode>4006</StatusCode></Status></VASPErrorRsp></detail></E:Fault>',
      ),
      502,
      'deferred',
    ],
    [
      'a fault whose children are prefixed',
      wrap(
        '<E:Fault><E:faultcode>E:Server</E:faultcode><E:faultstring>x</E:faultstring><E:detail><m:RSErrorRsp xmlns:m="urn:x"><m:Status><m:StatusCode>3000</m:StatusCode></m:Status></m:RSErrorRsp></E:detail></E:Fault>',
      ),
      500,
      'deferred',
    ],
    [
      'a fault that is opened twice, and so no XML',
      `<soap-env:Envelope xmlns:soap-env="${ENV}"><soap-env:Body><soap-env:Fault><soap-env:Fault><faultcode>Client</faultcode><detail><RSErrorRsp><StatusCode>2002</StatusCode></RSErrorRsp></detail></soap-env:Fault></soap-env:Body></soap-env:Envelope>`,
      500,
      'refused',
    ],
    [
      'a code of a class that is none',
      wrap('<SubmitRsp><Status><StatusCode>6001</StatusCode></Status></SubmitRsp>'),
      200,
      'deferred',
    ],
    ['a bad password without SOAP', '<html>401</html>', 401, 'deferred'],
  ])('that is %s says that the message was not taken', (_, body, status, kind) => {
    expect(answered(body, 'text/xml', status).kind).toBe(kind);
  });

  it.each<[string, string]>([
    ['with a DOCTYPE', `<!DOCTYPE x [<!ENTITY a "b">]>${wrap(minimum)}`],
    ['that asks for an entity', wrap(minimum.replace('>m1<', '>&a;<'))],
    ['that is cut off', wrap(minimum).slice(0, -20)],
    ['deeper than any envelope', wrap(`${'<a>'.repeat(100)}${minimum}${'</a>'.repeat(100)}`)],
  ])('%s is not believed', (_, body) => {
    expect(answered(body)).toMatchObject({ kind: 'unknown' });
  });
});

// ---------------------------------------------------------------------------------------------------------- DeliverReq

function messageOf(contentType: string, body: string | Buffer): SoapMessage {
  const read = readSoap(contentType, Buffer.from(body));
  if (!read.ok) throw new Error(read.fault);
  return read.message;
}

function delivered(contentType: string, body: string | Buffer): CarrierInbound {
  const read = readDeliver({ name: 'c' }, messageOf(contentType, body));
  if (typeof read === 'string') throw new Error(read);
  return read;
}

interface Piece {
  head: string;
  body: string | Buffer;
}

function related(pieces: Piece[], boundary = 'b', parameters = ''): [string, Buffer] {
  const chunks: Buffer[] = [];
  for (const { head, body } of pieces)
    chunks.push(Buffer.from(`--${boundary}\r\n${head}\r\n\r\n`), Buffer.from(body), Buffer.from('\r\n'));
  chunks.push(Buffer.from(`--${boundary}--\r\n`));
  return [`multipart/related; boundary="${boundary}"${parameters}`, Buffer.concat(chunks)];
}

const soap = (body: string): string =>
  `<S:Envelope xmlns:S="${ENV}"><S:Header><TransactionID>t1</TransactionID></S:Header><S:Body>${body}</S:Body></S:Envelope>`;
const xml = (body: string): Piece => ({ head: 'Content-Type: text/xml\r\nContent-ID: <soap>', body: soap(body) });
const smil = '<smil><body><par><text src="a.txt"/></par></body></smil>';

describe('a message from a handset', () => {
  it('of an MMSC with prefixes, PLMN addresses and capitalised parameters', () => {
    const inner = related(
      [
        { head: 'Content-Type: application/smil;Charset="utf-8"\r\nContent-ID: <AAAA>', body: smil },
        { head: 'Content-Type: text/plain;Charset="utf-8";Name="a.txt"', body: 'grüße' },
        { head: 'Content-Type: image/gif;Name="p.gif"\r\nContent-Transfer-Encoding: BASE64', body: 'R0lGODlh' },
      ],
      '_=Part_1',
    );
    const type = `multipart/related; Boundary="_=Part_1"; Type="application/smil"; Start="<AAAA>"`;
    const [contentType, body] = related(
      [
        xml(
          `<mm7p6a0:DeliverReq xmlns:mm7p6a0="${SCHEMA}REL-6-MM7-1-4"><mm7p6a0:MM7Version>6.8.0</mm7p6a0:MM7Version><mm7p6a0:MMSRelayServerID>MMSC 5.0</mm7p6a0:MMSRelayServerID><mm7p6a0:LinkedID>BAAAAA</mm7p6a0:LinkedID><mm7p6a0:Sender><mm7p6a0:Number>+385912345678/TYPE=PLMN</mm7p6a0:Number></mm7p6a0:Sender><mm7p6a0:Recipients><mm7p6a0:To><mm7p6a0:Number>12345/TYPE=PLMN</mm7p6a0:Number></mm7p6a0:To><mm7p6a0:Cc><mm7p6a0:RFC2822Address>a@example.net</mm7p6a0:RFC2822Address></mm7p6a0:Cc></mm7p6a0:Recipients><mm7p6a0:TimeStamp>2026-01-01T10:00:00+01:00</mm7p6a0:TimeStamp><mm7p6a0:Content href="cid:content_15"/></mm7p6a0:DeliverReq>`,
        ),
        { head: `Content-Type: ${type}\r\nContent-ID: content_15`, body: inner[1] },
      ],
      '_=Part_10',
    );
    expect(delivered(contentType, body)).toMatchObject({
      from: '385912345678',
      to: ['12345'],
      cc: ['a@example.net'],
      answers: 'BAAAAA',
      at: Date.UTC(2026, 0, 1, 9),
      parts: [
        { contentId: 'a.txt', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('grüße') },
        { contentId: 'p.gif', contentType: 'image/gif', bytes: Buffer.from('GIF89a') },
      ],
    });
  });

  it('with Recipients before MMSRelayServerID, and one media part directly', () => {
    const [contentType, body] = related([
      xml(
        `<m:DeliverReq xmlns:m="${SCHEMA}REL-5-MM7-1-0"><m:MM7Version>5.3.0</m:MM7Version><m:Sender><m:Number>+15551230001</m:Number></m:Sender><m:Recipients><m:To><m:ShortCode>111</m:ShortCode></m:To></m:Recipients><m:MMSRelayServerID>x</m:MMSRelayServerID><m:Content href="cid:&lt;c&gt;" allowAdaptations="True"/></m:DeliverReq>`,
      ),
      { head: 'Content-Type: text/plain\r\nContent-ID: <c>', body: 'hello' },
    ]);
    expect(delivered(contentType, body)).toMatchObject({
      from: '15551230001',
      to: ['111'],
      parts: [{ contentType: 'text/plain', bytes: Buffer.from('hello') }],
    });
  });

  it.each<[string, string, Partial<CarrierInbound>]>([
    [
      'in no namespace and any order',
      '<DeliverReq><Content href="cid:c"/><Subject>s</Subject><Sender>+1 (555) 123-0001</Sender><Recipients><Number>15559990000</Number></Recipients></DeliverReq>',
      { from: '15551230001', to: ['15559990000'], subject: 's' },
    ],
    [
      'with nothing but version and content',
      '<DeliverReq><MM7Version>6.7.0</MM7Version><Content href="cid:c"/></DeliverReq>',
      { from: '', to: [], cc: [] },
    ],
    [
      'without a reference to its content',
      '<DeliverReq><Sender><Number>1555</Number></Sender></DeliverReq>',
      { from: '1555' },
    ],
    ['with a reference to nothing', '<DeliverReq><Content href="cid:gone"/></DeliverReq>', {}],
    ['with an encoded reference', '<DeliverReq><Content href="CID:%63"/></DeliverReq>', {}],
    [
      'with a mail address as sender',
      '<DeliverReq><Sender><RFC2822Address>a@example.net</RFC2822Address></Sender><Content href="cid:c"/></DeliverReq>',
      { from: 'a@example.net' },
    ],
    [
      'with a number at a host',
      '<DeliverReq><Sender><RFC2822Address>+385912345678/TYPE=PLMN@mms.example</RFC2822Address></Sender><Content href="c"/></DeliverReq>',
      { from: '385912345678' },
    ],
    [
      'with several recipients, one twice',
      '<DeliverReq><Recipients><To><Number>+1</Number><Number>+2/TYPE=PLMN</Number></To><To><Number>1</Number></To><Bcc><Number>3</Number></Bcc></Recipients></DeliverReq>',
      { to: ['+1', '2'].map((n) => n.replace('+', '')), cc: [] },
    ],
    ['with its own MessageID', '<DeliverReq><MessageID>own-1</MessageID></DeliverReq>', { id: 'own-1' }],
    ['with a priority', '<DeliverReq><Priority>High</Priority></DeliverReq>', { priority: 'High' }],
    ['with a priority in small letters', '<DeliverReq><Priority> low </Priority></DeliverReq>', { priority: 'Low' }],
    [
      'with a profile of its handset',
      '<DeliverReq><UACapabilities UAProf="http://uaprof.example/Maker/model-5g.xml" TimeStamp="2026-01-01T00:00:00Z"/></DeliverReq>',
      { userAgent: 'model-5g' },
    ],
    ['with a handset by name', '<DeliverReq><UACapabilities UAProf="model 5"/></DeliverReq>', { userAgent: 'model 5' }],
  ])('%s', (_, body, expected) => {
    const [contentType, bytes] = related([
      xml(body),
      { head: 'Content-Type: text/plain; charset=UTF-8\r\nContent-ID: <c>', body: 'hi' },
    ]);
    expect(delivered(contentType, bytes)).toMatchObject({
      parts: [{ contentType: 'text/plain; charset=utf-8' }],
      ...expected,
    });
  });

  it.each<[string, string, string | Buffer]>([
    ['base64', 'base64', 'aGk='],
    ['base64 in capitals', 'BASE64', 'aG\r\nk=\r\n'],
    ['quoted-printable', 'quoted-printable', 'h=69'],
    ['8bit', '8bit', 'hi'],
    ['7bit', '7BIT', 'hi'],
    ['binary', 'Binary', 'hi'],
  ])('in %s', (_, encoding, body) => {
    const [contentType, bytes] = related([
      xml('<DeliverReq><Content href="cid:c"/></DeliverReq>'),
      { head: `Content-Type: text/plain\r\nContent-Transfer-Encoding: ${encoding}\r\nContent-ID: <c>`, body },
    ]);
    expect(delivered(contentType, bytes).parts[0]?.bytes).toEqual(Buffer.from('hi'));
  });

  it.each<[string, string, string]>([
    ['with a slash and an @', 'cid:a/b@mms.example', 'Content-ID: <a/b@mms.example>'],
    ['percent-encoded against brackets', 'cid:a%2Fb%40mms.example', 'Content-ID: <a/b@mms.example>'],
    ['encoded on both sides', 'cid:a%2Fb', 'Content-ID: <a%2Fb>'],
    ['without brackets', 'cid:image_0.jpg', 'Content-ID: image_0.jpg'],
    ['to a Content-Location', 'image_0.jpg', 'Content-Location: image_0.jpg'],
    ['with a broken encoding', 'cid:100%', 'Content-ID: <100%>'],
  ])('finds its content by a reference %s', (_, href, head) => {
    const [contentType, bytes] = related([
      xml(`<DeliverReq><Content href="${href}"/></DeliverReq>`),
      { head: 'Content-Type: text/plain\r\nContent-ID: <other>', body: 'other' },
      { head: `Content-Type: text/plain\r\n${head}`, body: 'hi' },
    ]);
    expect(delivered(contentType, bytes).parts.map((part) => String(part.bytes))).toEqual(['hi']);
  });

  it.each(['mixed', 'alternative', 'related; type="application/smil"', 'related; start=""', 'x-unknown'])(
    'has the parts of a multipart/%s',
    (subtype) => {
      const inner = related(
        [
          { head: 'Content-Type: application/smil\r\nContent-ID: <s>', body: smil },
          { head: 'Content-Type: text/plain; charset=utf-8\r\nContent-Location: a.txt', body: 'hi' },
        ],
        '_=Part 2',
      );
      const [contentType, bytes] = related([
        xml('<DeliverReq><Content href="cid:c"/></DeliverReq>'),
        { head: `Content-Type: multipart/${subtype}; boundary="_=Part 2"\r\nContent-ID: <c>`, body: inner[1] },
      ]);
      expect(delivered(contentType, bytes).parts).toMatchObject([{ contentId: 'a.txt', bytes: Buffer.from('hi') }]);
    },
  );

  it('without any content is filed all the same', () => {
    expect(delivered('text/xml', soap('<DeliverReq/>'))).toMatchObject({ from: '', to: [], parts: [] });
  });

  it('names its parts safely, each once', () => {
    const inner = related(
      [
        { head: 'Content-Type: image/jpeg\r\nContent-Location: ../../etc/p\u0001.jpg', body: 'a' },
        { head: 'Content-Type: image/jpeg\r\nContent-Disposition: attachment; filename="p_.jpg"', body: 'b' },
        { head: 'Content-Type: image/jpeg', body: 'c' },
        { head: 'Content-Type: x\r\nContent-ID: <ü@x>', body: 'd' },
      ],
      'in',
    );
    const [contentType, bytes] = related([
      xml('<DeliverReq><Content href="cid:c"/></DeliverReq>'),
      { head: 'Content-Type: multipart/mixed; boundary=in\r\nContent-ID: <c>', body: inner[1] },
    ]);
    const names = delivered(contentType, bytes).parts.map((part) => part.contentId);
    expect(new Set(names).size).toBe(4);
    for (const name of names) expect(name).toMatch(/^[A-Za-z0-9._-]{1,64}$/);
    expect(delivered(contentType, bytes).parts[3]?.contentType).toBe('application/octet-stream');
  });

  it('that nests multiparts for ever is refused', () => {
    let inner = Buffer.from('x');
    let type = 'text/plain';
    for (let n = 0; n < 5; n++) {
      [type, inner] = related([{ head: `Content-Type: ${type}`, body: inner }], `n${n}`) as [
        string,
        Buffer<ArrayBuffer>,
      ];
    }
    const [contentType, bytes] = related([
      xml('<DeliverReq><Content href="cid:c"/></DeliverReq>'),
      { head: `Content-Type: ${type}\r\nContent-ID: <c>`, body: inner },
    ]);
    expect(readDeliver({ name: 'c' }, messageOf(contentType, bytes))).toBe('multiparts nested too deep');
  });
});

describe('a report', () => {
  it.each<[string, string, string[]]>([
    [
      'with its sides swapped and a host behind the id',
      '<m:DeliveryReportReq xmlns:m="urn:x"><m:MM7Version>5.3.0</m:MM7Version><m:Recipient><m:ShortCode>111</m:ShortCode></m:Recipient><m:Sender><m:Number>+15551230001</m:Number></m:Sender><m:MessageID>qf8273.1.x268.15@127.0.0.1</m:MessageID><m:Date>2026-11-23T15:37:56Z</m:Date><m:MMStatus>Retrieved</m:MMStatus></m:DeliveryReportReq>',
      ['111', '15551230001'],
    ],
    [
      'with its recipient wrapped in To',
      '<DeliveryReportReq><MessageID>qf8273.1.x268.15@127.0.0.1</MessageID><Recipient><To><Number>+15551230001/TYPE=PLMN</Number></To></Recipient><MMStatus>RETRIEVED</MMStatus></DeliveryReportReq>',
      ['15551230001'],
    ],
    [
      'with an address as plain text',
      '<DeliveryReportReq><MMStatus>retrieved</MMStatus><MessageID> qf8273.1.x268.15@127.0.0.1 </MessageID><Recipient>tel:+15551230001</Recipient></DeliveryReportReq>',
      ['15551230001'],
    ],
  ])('%s', (_, body, addresses) => {
    const read = readReport({ name: 'c' }, messageOf('text/xml', soap(body)).body);
    expect(read).toMatchObject({
      known: true,
      report: { carrierMessageId: 'qf8273.1.x268.15@127.0.0.1', kind: 'retrieved', addresses },
    });
  });
});
