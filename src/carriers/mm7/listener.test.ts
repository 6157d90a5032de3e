/** The listener against real HTTP: what MMSCs send, what they get, and when. */
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  CA,
  CLIENT_CERT,
  CLIENT_KEY,
  OTHER_CA,
  SERVER_CERT,
  SERVER_KEY,
  STRANGER_CERT,
  STRANGER_KEY,
} from '../../../test/certificates.ts';
import type { CarrierInbound, CarrierReport } from '../../domain/submission.ts';
import { type TestEnv, testEnv } from '../../env.ts';
import { textOf } from '../../xml.ts';
import { createMm7Listener, type Inbound, type Listener } from './listener.ts';
import { MM7_NAMESPACE, readSoap, SOAP_11, SOAP_12, statusOf } from './soap.ts';

const SCHEMA = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/';

let env: TestEnv;
let listener: Listener;
let reports: CarrierReport[];
let onReport: (report: CarrierReport) => Promise<void>;
let inbound: CarrierInbound[];
let onInbound: (message: CarrierInbound) => Promise<{ id: string }>;

beforeEach(async () => {
  env = testEnv();
  reports = [];
  inbound = [];
  onInbound = async (message) => ({ id: String(inbound.push(message)) });
  onReport = async (report) => void reports.push(report);
  listener = await createMm7Listener({
    host: '127.0.0.1',
    port: 0,
    carriers: [{ name: 'open' }, { name: 'locked', secret: 's3cret:ö' }],
    onReport: (report) => onReport(report),
    onInbound: (message) => onInbound(message),
    env,
  });
});
afterEach(() => listener.close());

interface Answer {
  http: number;
  headers: Headers;
  text: string;
  operation: string;
  status: number;
  transactionId: string | null;
  namespace: string;
  soapNamespace: string;
  version: string | null;
}

async function post(body: string | Buffer, headers: Record<string, string> = {}, path = '/mm7/open'): Promise<Answer> {
  const response = await fetch(listener.url + path, {
    method: 'POST',
    body: typeof body === 'string' ? Buffer.from(body) : new Uint8Array(body),
    headers: { 'content-type': 'text/xml; charset=utf-8', ...headers },
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  const soap = readSoap(response.headers.get('content-type') ?? undefined, bytes);
  const message = soap.ok ? soap.message : null;
  return {
    http: response.status,
    headers: response.headers,
    text: bytes.toString('utf8'),
    operation: message?.operation ?? '',
    status: message ? statusOf(message).code : 0,
    transactionId: message?.transactionId ?? null,
    namespace: message?.namespace ?? '',
    soapNamespace: message?.soapNamespace ?? '',
    version: message?.version ?? null,
  };
}

const soap = (body: string, transactionId = 'peer-1', ns = `${SCHEMA}REL-6-MM7-1-4`, soapNs = SOAP_11): string =>
  `<?xml version="1.0"?><S:Envelope xmlns:S="${soapNs}"><S:Header><q:TransactionID xmlns:q="${ns}" S:mustUnderstand="1">${transactionId}</q:TransactionID></S:Header><S:Body>${body}</S:Body></S:Envelope>`;
const report = (inner: string, ns = `${SCHEMA}REL-6-MM7-1-4`, version = '6.8.0'): string =>
  `<q:DeliveryReportReq xmlns:q="${ns}" xmlns="${ns}"><MM7Version>${version}</MM7Version>${inner}</q:DeliveryReportReq>`;
const usual = (mmStatus: string, more = ''): string =>
  `<MessageID>mid-1</MessageID><Recipient><Number>+441134960001</Number></Recipient><Sender><ShortCode>12345</ShortCode></Sender><Date>2026-01-01T10:00:00+01:00</Date><MMStatus>${mmStatus}</MMStatus>${more}`;

describe('a delivery report', () => {
  it('is handed on whole and answered in the peer’s own words', async () => {
    const answer = await post(soap(report(usual('Retrieved'))));
    expect(reports).toEqual([
      {
        carrier: 'open',
        carrierMessageId: 'mid-1',
        addresses: ['441134960001', '12345'],
        kind: 'retrieved',
        words: 'Retrieved',
        at: Date.UTC(2026, 0, 1, 9),
      },
    ]);
    expect(answer).toMatchObject({ http: 200, operation: 'DeliveryReportRsp', status: 1000, transactionId: 'peer-1' });
    expect(answer).toMatchObject({ namespace: `${SCHEMA}REL-6-MM7-1-4`, version: '6.8.0', soapNamespace: SOAP_11 });
    expect(answer.headers.get('content-type')).toBe('text/xml; charset=utf-8');
  });

  it('is answered in any release and in SOAP 1.2', async () => {
    for (const release of ['REL-5-MM7-1-0', 'REL-5-MM7-1-5', 'REL-6-MM7-1-0', 'REL-6-MM7-1-4']) {
      const ns = SCHEMA + release;
      for (const [soapNs, type] of [
        [SOAP_11, 'text/xml'],
        [SOAP_12, 'application/soap+xml'],
      ] as const) {
        const answer = await post(soap(report(usual('Retrieved'), ns, '5.3.0'), 't', ns, soapNs));
        expect(answer).toMatchObject({
          http: 200,
          namespace: ns,
          version: '5.3.0',
          soapNamespace: soapNs,
          status: 1000,
        });
        expect(answer.headers.get('content-type')).toContain(type);
      }
    }
    expect(reports).toHaveLength(8);
  });

  const shapes: [string, string, Record<string, string>?][] = [
    [
      'with every element prefixed and no namespace but the header’s',
      soap(`<DeliveryReportReq>${usual('Retrieved')}</DeliveryReportReq>`),
    ],
    [
      'in another order, sides swapped',
      soap(
        report(
          '<MMStatus>Retrieved</MMStatus><Sender><Number>441134960001</Number></Sender><Recipient><ShortCode>12345</ShortCode></Recipient><MessageID>mid-1</MessageID>',
        ),
      ),
    ],
    [
      'with white space everywhere',
      soap(
        report(
          '<MessageID>\n  mid-1\n</MessageID><Recipient>\n<Number> +441134960001/TYPE=PLMN\n</Number></Recipient><MMStatus>\n Retrieved </MMStatus>',
        ),
      ),
    ],
    [
      'with the recipient wrapped in To',
      soap(
        report(
          '<MessageID>mid-1</MessageID><Recipient><To><Number>+441134960001</Number></To></Recipient><MMStatus>Retrieved</MMStatus>',
        ),
      ),
    ],
    [
      'in a multipart',
      `--b\r\nContent-Type: text/xml\r\n\r\n${soap(report(usual('Retrieved')))}\r\n--b--`,
      { 'content-type': 'multipart/related; boundary=b' },
    ],
    [
      'without a header',
      `<S:Envelope xmlns:S="${SOAP_11}"><S:Body>${report(usual('Retrieved'))}</S:Body></S:Envelope>`,
    ],
    ['in ISO-8859-1', soap(report(usual('Retrieved'))).replace('version="1.0"', 'version="1.0" encoding="ISO-8859-1"')],
    [
      'with another SOAPAction, and attributes on its address',
      soap(report(usual('Retrieved').replace('<Number>', '<Number displayOnly="True" addressCoding="encrypted">'))),
      { soapaction: '"urn:anything"' },
    ],
    [
      'with a Content-Type that means nothing',
      soap(report(usual('Retrieved'))),
      { 'content-type': 'application/octet-stream' },
    ],
  ];
  it.each(shapes)('is read %s', async (_, body, headers = {}) => {
    const answer = await post(body, headers);
    expect(answer).toMatchObject({ http: 200, operation: 'DeliveryReportRsp', status: 1000 });
    expect(reports).toHaveLength(1);
    expect(reports[0]).toMatchObject({ carrierMessageId: 'mid-1', kind: 'retrieved' });
    expect(reports[0]!.addresses).toContain('441134960001');
  });

  it('about several recipients names them all', async () => {
    await post(
      soap(
        report(
          '<MessageID>m</MessageID><Recipient><To><Number>+441134960001</Number><Number>+441134960002</Number></To></Recipient><MMStatus>Retrieved</MMStatus>',
        ),
      ),
    );
    expect(reports[0]!.addresses).toEqual(['441134960001', '441134960002']);
  });

  it('has its addresses in digits, whatever stands before and behind them', async () => {
    for (const written of [
      '+441134960001',
      '00441134960001',
      'tel:+441134960001',
      '441134960001/TYPE=PLMN@mmsc.example',
    ]) {
      await post(
        soap(
          report(
            `<MessageID>m</MessageID><Recipient><Number>${written}</Number></Recipient><MMStatus>Retrieved</MMStatus>`,
          ),
        ),
      );
      expect(reports.at(-1)!.addresses).toEqual(['441134960001']);
    }
  });

  it('keeps the MessageID as it was written but for white space around it', async () => {
    for (const [written, id] of [
      ['&lt;a.1@mmsc.example&gt;', '<a.1@mmsc.example>'],
      [' AbC ', 'AbC'],
      ['a b', 'a b'],
    ]) {
      await post(soap(report(`<MessageID>${written}</MessageID><MMStatus>Retrieved</MMStatus>`)));
      expect(reports.at(-1)!.carrierMessageId).toBe(id);
    }
  });

  const kinds: [string, CarrierReport['kind']][] = [
    ['Retrieved', 'retrieved'],
    ['retrieved', 'retrieved'],
    ['RETRIEVED', 'retrieved'],
    ['Delivered', 'retrieved'],
    ['Expired', 'expired'],
    ['Rejected', 'rejected'],
    ['Deferred', 'deferred'],
    ['Forwarded', 'forwarded'],
    ['Processing', 'forwarded'],
    ['Indeterminate', 'indeterminate'],
    ['DeliveryConditionNotMet', 'indeterminate'],
    ['Delivery condition not met', 'indeterminate'],
    ['Cancelled', 'indeterminate'],
    ['Replaced', 'indeterminate'],
    ['Unrecognised', 'unrecognised'],
    ['Unrecognized', 'unrecognised'],
    ['Unreachable', 'unreachable'],
    ['NotSupported', 'unsupported'],
  ];
  it.each(kinds)('that says %s is %s', async (word, kind) => {
    expect((await post(soap(report(usual(word))))).status).toBe(1000);
    expect(reports).toMatchObject([{ kind, words: word }]);
    expect(env.lines).toEqual([]);
  });

  it('whose status nobody knows ends nothing, is kept with its words, and logged', async () => {
    expect((await post(soap(report(usual('constructor'))))).status).toBe(1000);
    expect(reports).toMatchObject([{ kind: 'forwarded', words: 'constructor' }]);
    expect(env.lines).toMatchObject([{ level: 'warn', message: 'report with an unknown status' }]);
  });

  it('says why where the peer says why', async () => {
    const cases: [string, string, number | undefined, string][] = [
      [
        'Rejected',
        '<MMStatusExtension>RejectionByMMSRecipient</MMStatusExtension>',
        undefined,
        'Rejected RejectionByMMSRecipient',
      ],
      ['Rejected', '<MMStatusExtension>RejectionByOtherRS</MMStatusExtension>', 15008, 'Rejected RejectionByOtherRS'],
      [
        'Rejected',
        '<StatusCode>2003</StatusCode><StatusText>Address not found</StatusText>',
        15009,
        'Rejected 2003 Address not found',
      ],
      [
        'Indeterminate',
        '<Status><StatusCode>2004</StatusCode><StatusText>x</StatusText></Status>',
        15013,
        'Indeterminate 2004 x',
      ],
      [
        'Retrieved',
        '<StatusCode>1000</StatusCode><StatusText>ok\n\n fine</StatusText>',
        undefined,
        'Retrieved 1000 ok fine',
      ],
      ['Expired', '<StatusCode>2003</StatusCode>', undefined, 'Expired 2003'],
    ];
    for (const [word, more, error, words] of cases) {
      await post(soap(report(usual(word, more))));
      expect(reports.at(-1)).toMatchObject({ words });
      expect(reports.at(-1)!.error).toBe(error);
    }
  });

  it('without a readable date has none', async () => {
    await post(soap(report('<MessageID>m</MessageID><Date>yesterday</Date><MMStatus>Retrieved</MMStatus>')));
    expect(reports).toEqual([
      { carrier: 'open', carrierMessageId: 'm', addresses: [], kind: 'retrieved', words: 'Retrieved' },
    ]);
  });

  it('is answered only after it is durable', async () => {
    const durable = Promise.withResolvers<void>();
    const arrived = Promise.withResolvers<void>();
    onReport = () => {
      arrived.resolve();
      return durable.promise;
    };
    let answered = false;
    const answer = post(soap(report(usual('Retrieved')))).then((value) => {
      answered = true;
      return value;
    });
    await arrived.promise;
    // Another call goes round while the first one waits, so the answer had its chance.
    expect((await post(soap('<ReadReplyReq/>'))).status).toBe(1000);
    expect(answered).toBe(false);
    durable.resolve();
    expect((await answer).status).toBe(1000);
  });

  it('that cannot be kept gets a 503 and a fault, so that the peer repeats it', async () => {
    onReport = () => Promise.reject(new Error('disk full'));
    const answer = await post(soap(report(usual('Retrieved'))));
    expect(answer).toMatchObject({ http: 503, operation: 'Fault', status: 4006, transactionId: 'peer-1' });
    expect(answer.headers.get('retry-after')).toBe('5');
    expect(answer.text).not.toContain('disk full');
    expect(env.lines).toMatchObject([{ level: 'error', message: 'call could not be kept' }]);
    onReport = async (one) => void reports.push(one);
    expect((await post(soap(report(usual('Retrieved'))))).http).toBe(200);
  });

  it('without MessageID or MMStatus is a client’s fault', async () => {
    for (const inner of [
      '<MMStatus>Retrieved</MMStatus>',
      '<MessageID> </MessageID><MMStatus>Retrieved</MMStatus>',
      '<MessageID>m</MessageID>',
    ]) {
      expect(await post(soap(report(inner)))).toMatchObject({ http: 400, operation: 'Fault', status: 4004 });
    }
    expect(reports).toEqual([]);
  });

  it('carries a transaction id that looks like markup back safely', async () => {
    const answer = await post(soap(report(usual('Retrieved')), '&lt;/x&gt;&amp;"'));
    expect(answer.transactionId).toBe('</x>&"');
  });
});

describe('other operations', () => {
  it('a read reply is handed on as one, which moves no status', async () => {
    const body =
      '<r:ReadReplyReq xmlns:r="urn:r"><r:MM7Version>6.3.0</r:MM7Version><r:MessageID>mid-1</r:MessageID><r:MMStatus>Read</r:MMStatus></r:ReadReplyReq>';
    expect(await post(soap(body))).toMatchObject({
      http: 200,
      operation: 'ReadReplyRsp',
      status: 1000,
      version: '6.3.0',
    });
    expect(reports).toEqual([
      { carrier: 'open', carrierMessageId: 'mid-1', addresses: [], kind: 'read', words: 'read reply: Read' },
    ]);
  });

  it('anything unknown gets a fault that says so', async () => {
    for (const name of ['SubmitReq', 'QueryStatusReq', 'Fault']) {
      const answer = await post(soap(`<${name}/>`));
      expect(answer).toMatchObject({ http: 500, operation: 'Fault', status: 4003, transactionId: 'peer-1' });
    }
    const twelve = await post(soap('<CancelReq/>', 't', `${SCHEMA}REL-5-MM7-1-0`, SOAP_12));
    expect(twelve).toMatchObject({ operation: 'Fault', soapNamespace: SOAP_12, status: 4003 });
    expect(twelve.text).toContain('<env:Value>env:Sender</env:Value>');
  });

  it('what is not MM7 gets a fault in our own words', async () => {
    const odd: (string | Buffer)[] = [
      '',
      'hello',
      '{"a":1}',
      '<x/>',
      '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
      '<a>'.repeat(100_000),
      Buffer.from([0xff, 0xfe, 0]),
      soap(''),
    ];
    for (const body of odd) {
      expect(await post(body)).toMatchObject({
        http: 400,
        operation: 'Fault',
        status: 4004,
        namespace: MM7_NAMESPACE,
        transactionId: '0000',
      });
    }
    expect(reports).toEqual([]);
  });
});

describe('the door', () => {
  it('knows its carriers and nobody else', async () => {
    for (const path of [
      '/mm7/other',
      '/mm7/',
      '/mm7',
      '/',
      '/mm7/OPEN',
      '/mm7/%6fpen',
      '/mm7/__proto__',
      '//mm7/open',
    ]) {
      expect((await post(soap(report(usual('Retrieved'))), {}, path)).http).toBe(404);
    }
    expect((await fetch(`${listener.url}/mm7/open`)).status).toBe(405);
    expect(reports).toEqual([]);
  });

  it('takes its path with a slash at the end, and in a whole URL', async () => {
    const body = soap(report(usual('Retrieved')));
    expect((await post(body, {}, '/mm7/open/')).http).toBe(200);
    const { port } = new URL(listener.url);
    const socket = connect(Number(port), '127.0.0.1');
    const head = (path: string) =>
      `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`;
    socket.end(head('http://mms.example:8082/mm7/open?x=1') + body);
    let answered = '';
    for await (const chunk of socket) answered += chunk;
    expect(answered).toMatch(/^HTTP\/1\.1 200 /);
    expect(reports).toHaveLength(2);
    for (const path of ['/mm7/open/x', '/mm7//open', '/mm7/', '//mm7/open', '/http://x/mm7/open']) {
      expect((await post(body, {}, path)).http).toBe(404);
    }
  });

  it('lets in who shows the secret: as password, as header or in the query', async () => {
    const basic = (pair: string): Record<string, string> => ({
      authorization: `Basic ${Buffer.from(pair).toString('base64')}`,
    });
    const body = soap(report(usual('Retrieved')));
    const good: [Record<string, string>, string][] = [
      [basic('anyone:s3cret:ö'), ''],
      [basic(':s3cret:ö'), ''],
      [{ 'x-postcard-secret': 's3cret:\u00c3\u00b6' }, ''],
      [{}, '?secret=s3cret%3A%C3%B6'],
    ];
    // Old clients write ISO-8859-1 there (RFC 7617).
    const latin1 = Buffer.from('anyone:s3cret:ö', 'latin1').toString('base64');
    good.push([{ authorization: `Basic ${latin1}` }, '']);
    for (const [headers, query] of good) expect((await post(body, headers, `/mm7/locked${query}`)).http).toBe(200);
    expect(reports).toHaveLength(5);
    const bad: [Record<string, string>, string][] = [
      [{}, ''],
      [{}, '?secret='],
      [{}, '?secret=s3cret'],
      [basic('s3cret:ö'), ''],
      [basic('anyone:wrong'), ''],
      [{ authorization: 'Basic !!!' }, ''],
      [{ authorization: 'Bearer s3cret:\u00c3\u00b6' }, ''],
      [{ 'x-postcard-secret': '' }, ''],
    ];
    for (const [headers, query] of bad) {
      const answer = await post(body, headers, `/mm7/locked${query}`);
      expect(answer.http).toBe(401);
      expect(answer.headers.get('www-authenticate')).toBe('Basic realm="postcard"');
    }
    expect(reports).toHaveLength(5);
    expect(JSON.stringify(env.lines)).not.toContain('s3cret');
  });

  it('takes bodies up to its limit, announced or chunked', async () => {
    const long = Buffer.alloc(12 * 1024 * 1024 + 1, ' ');
    expect((await post(long).catch(() => ({ http: 413 }))).http).toBe(413);
    const socket = connect(Number(new URL(listener.url).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write('POST /mm7/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    const chunk = Buffer.alloc(65_536, ' ');
    for (let i = 0; i < 193; i++) socket.write(Buffer.concat([Buffer.from('10000\r\n'), chunk, Buffer.from('\r\n')]));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 413 /);
    socket.destroy();
    const padded = soap(report(usual('Retrieved'))) + ' '.repeat(200_000);
    expect((await post(padded)).http).toBe(200);
  });

  it('takes no compressed bodies', async () => {
    expect((await post(Buffer.from([0x1f, 0x8b]), { 'content-encoding': 'gzip' })).http).toBe(415);
  });

  it('answers Expect: 100-continue', async () => {
    const body = soap(report(usual('Retrieved')));
    const socket = connect(Number(new URL(listener.url).port), '127.0.0.1');
    socket.write(
      `POST /mm7/open HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n`,
    );
    const [go] = (await once(socket, 'data')) as [Buffer];
    expect(go.toString()).toMatch(/^HTTP\/1\.1 100 /);
    socket.write(body);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 200 /);
    socket.destroy();
  });

  it('answers a peer that closes its sending half behind its report', async () => {
    // The store answers long after the peer's last byte.
    onReport = () => new Promise((resolve) => setTimeout(resolve, 100));
    const body = soap(report(usual('Retrieved')));
    const socket = connect(Number(new URL(listener.url).port), '127.0.0.1');
    socket.end(
      `POST /mm7/open HTTP/1.1\r\nhost: x\r\ncontent-type: text/xml\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
    let got = '';
    socket.on('data', (chunk: Buffer) => {
      got += chunk.toString('utf8');
    });
    await once(socket, 'close');
    expect(got).toMatch(/^HTTP\/1\.1 200 /);
    expect(got).toContain('>1000<');
  });

  it('survives peers that leave in the middle or speak no HTTP', async () => {
    const { port } = new URL(listener.url);
    for (const words of [
      'POST /mm7/open HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n<x>',
      'POST /mm7/op',
      '\0\xff\r\n\r\n',
      '',
    ]) {
      const socket = connect(Number(port), '127.0.0.1');
      await once(socket, 'connect');
      socket.end(words);
      socket.resume();
      socket.on('error', () => {});
      await once(socket, 'close');
    }
    expect((await post(soap(report(usual('Retrieved'))))).http).toBe(200);
    expect(reports).toHaveLength(1);
  });

  it('rejects when its address is taken', async () => {
    const { port } = new URL(listener.url);
    const second = createMm7Listener({ host: '127.0.0.1', port: Number(port), carriers: [], onReport, onInbound, env });
    await expect(second).rejects.toThrow('EADDRINUSE');
  });

  it('closes after what it was doing', async () => {
    const durable = Promise.withResolvers<void>();
    const arrived = Promise.withResolvers<void>();
    onReport = () => {
      arrived.resolve();
      return durable.promise;
    };
    const answer = post(soap(report(usual('Retrieved'))));
    await arrived.promise;
    const closed = listener.close();
    durable.resolve();
    expect((await answer).status).toBe(1000);
    await closed;
    await expect(post('')).rejects.toThrow();
  });
});

it('reads what it prints: the status of every answer is found again', async () => {
  const { text } = await post(soap(report(usual('Retrieved'))));
  const read = readSoap('text/xml', Buffer.from(text));
  expect(read.ok && textOf(read.message.body, 'Status', 'StatusText')).toBe('Success');
});

describe('a message from a handset', () => {
  const boundary = 'StoryParts 74526 8432 2002-77645';
  const multipart = (xml: string, media: string): Buffer =>
    Buffer.from(
      `--${boundary}\r\nContent-Type: text/xml\r\nContent-ID: <env>\r\n\r\n${xml}\r\n--${boundary} \r\n${media}\r\n--${boundary}--\r\n`,
    );
  const type = `multipart/related; boundary="${boundary}"; type="text/xml"; start="<env>"`;
  const deliver = (inner = ''): string =>
    soap(
      `<m:DeliverReq xmlns:m="${SCHEMA}REL-5-MM7-1-2"><m:MM7Version>5.3.0</m:MM7Version><m:LinkedID>link-1</m:LinkedID><m:Sender><m:Number>+385911234567/TYPE=PLMN</m:Number></m:Sender><m:Recipients><m:To><m:ShortCode>12345</m:ShortCode></m:To></m:Recipients>${inner}<m:Content href="cid:pic%40x"/></m:DeliverReq>`,
      'tx-9',
      `${SCHEMA}REL-5-MM7-1-2`,
    );
  const media =
    'Content-Type: image/jpeg; Name="p 1.jpg"\r\nContent-ID: <pic@x>\r\nContent-Transfer-Encoding: BASE64\r\n\r\n/9j/4A==';

  it('is handed on and answered in the peer’s own words once it is durable', async () => {
    const answer = await post(multipart(deliver('<m:Subject>hi</m:Subject>'), media), { 'content-type': type });
    expect(answer).toMatchObject({
      http: 200,
      operation: 'DeliverRsp',
      status: 1000,
      transactionId: 'tx-9',
      namespace: `${SCHEMA}REL-5-MM7-1-2`,
      version: '5.3.0',
    });
    expect(inbound).toMatchObject([
      {
        carrier: 'open',
        channel: 'MMS',
        from: '385911234567',
        to: ['12345'],
        cc: [],
        subject: 'hi',
        answers: 'link-1',
        parts: [{ contentId: 'p_1.jpg', contentType: 'image/jpeg', bytes: Buffer.from([0xff, 0xd8, 0xff, 0xe0]) }],
      },
    ]);
    expect(inbound[0]?.id).toMatch(/^tx-9~[0-9a-f]{32}$/);
  });

  it('has numbers that begin with 00 as any other; short codes and names stay', async () => {
    for (const [written, read] of [
      ['<m:Number>00385911234567</m:Number>', '385911234567'],
      ['<m:Number>00385911234567/TYPE=PLMN</m:Number>', '385911234567'],
      ['<m:RFC2822Address>00385911234567/TYPE=PLMN@mms.example</m:RFC2822Address>', '385911234567'],
      ['<m:Number>00 385 91 1234567</m:Number>', '385911234567'],
      ['<m:ShortCode>00123</m:ShortCode>', '00123'],
    ]) {
      const xml = deliver().replace(/<m:Number>.*?<\/m:Number>/, written as string);
      await post(multipart(xml, media), { 'content-type': type });
      expect(inbound.at(-1)?.from).toBe(read);
    }
  });

  it('has its subject decoded where the carrier wrote it as encoded words', async () => {
    const subject = '<m:Subject>=?UTF-8?B?R3LDvMOfZQ==?= =?ISO-8859-1?Q?caf=E9?=</m:Subject>';
    await post(multipart(deliver(subject), media), { 'content-type': type });
    expect(inbound).toMatchObject([{ subject: 'Grüßecafé' }]);
  });

  it('that is repeated has the same id, another one under the same transaction has not', async () => {
    for (const [inner, bytes] of [
      ['', media],
      ['', media],
      ['', media.replace('/9j/', '/9k/')],
      ['<m:Subject>x</m:Subject>', media],
    ] as const) {
      await post(multipart(deliver(inner), bytes), { 'content-type': type });
    }
    const ids = inbound.map(({ id }) => id);
    expect(ids[1]).toBe(ids[0]);
    expect(new Set(ids).size).toBe(3);
  });

  it('that cannot be kept gets a 503, so that the peer repeats it', async () => {
    onInbound = () => Promise.reject(new Error('disk full'));
    const answer = await post(multipart(deliver(), media), { 'content-type': type });
    expect(answer).toMatchObject({ http: 503, operation: 'Fault', status: 4006 });
    expect(listener.counters()).toMatchObject({ inbound: 1, failed: 1, open: 0 });
  });

  it('with content that cannot be taken apart is a client’s fault', async () => {
    const broken = 'Content-Type: multipart/mixed; boundary=nowhere\r\nContent-ID: <pic@x>\r\n\r\nx';
    const answer = await post(multipart(deliver(), broken), { 'content-type': type });
    expect(answer).toMatchObject({ http: 400, operation: 'Fault', status: 4004 });
    expect(inbound).toEqual([]);
  });
});

describe('who may call', () => {
  const good = soap(report(usual('Retrieved')));

  it('is an address of the list, and no other', async () => {
    listener.setCarriers([
      { name: 'near', allow: ['10.0.0.0/8', '127.0.0.0/8'] },
      { name: 'far', allow: ['10.0.0.0/8', '::1/128'] },
      { name: 'nobody', allow: [] },
    ]);
    expect((await post(good, {}, '/mm7/near')).http).toBe(200);
    expect((await post(good, {}, '/mm7/far')).http).toBe(403);
    expect((await post(good, {}, '/mm7/nobody')).http).toBe(403);
    expect(listener.counters()).toMatchObject({ reports: 1, refused: 2 });
  });

  it('may change while the listener runs', async () => {
    expect((await post(good, {}, '/mm7/open')).http).toBe(200);
    listener.setCarriers([{ name: 'new', secret: 's' }]);
    expect((await post(good, {}, '/mm7/open')).http).toBe(404);
    expect((await post(good, { 'x-postcard-secret': 's' }, '/mm7/new')).http).toBe(200);
  });

  it('finds the ids of its reports in the form of its answers', async () => {
    listener.setCarriers([
      { name: 'hex', reportIdForm: 'hex-to-dec' },
      { name: 'dec', reportIdForm: 'dec-to-hex' },
    ]);
    const named = (id: string): string => soap(report(usual('Retrieved').replace('mid-1', id)));
    for (const id of ['ff', '&lt;FF@mmsc&gt;', 'not-hex']) await post(named(id), {}, '/mm7/hex');
    for (const id of ['255', '255@mmsc', 'ff']) await post(named(id), {}, '/mm7/dec');
    expect(reports.map((one) => one.carrierMessageId)).toEqual(['255', '<255@mmsc>', 'not-hex', 'ff', 'ff@mmsc', 'ff']);
  });

  it('gets the error that its own table gives a code', async () => {
    listener.setCarriers([{ name: 'own', errors: { 2003: 15003 } }]);
    const body = soap(report(usual('Rejected', '<StatusCode>2003</StatusCode>')));
    await post(body, {}, '/mm7/own');
    expect(reports[0]?.error).toBe(15003);
  });
});

describe('with a certificate of ours', () => {
  let open: Listener;
  const carriers: Inbound[] = [
    { name: 'plain' },
    { name: 'tls', tls: true },
    { name: 'client', clientCa: CA, clientName: 'mmsc.example' },
    { name: 'named', clientCa: CA, clientName: 'other.example' },
    { name: 'other', clientCa: OTHER_CA },
  ];
  beforeEach(async () => {
    open = await createMm7Listener({
      host: '127.0.0.1',
      port: 0,
      tls: { cert: SERVER_CERT, key: SERVER_KEY },
      carriers,
      onReport: (one) => onReport(one),
      onInbound: (one) => onInbound(one),
      env,
    });
  });
  afterEach(() => open.close());

  const body = soap(report(usual('Retrieved')));
  async function status(path: string, tls: null | { cert?: string; key?: string }): Promise<number> {
    const { port } = new URL(open.url);
    if (tls === null) {
      const headers = { 'content-type': 'text/xml', connection: 'close' };
      return (await fetch(`http://127.0.0.1:${port}/mm7/${path}`, { method: 'POST', body, headers })).status;
    }
    return new Promise((resolve, reject) => {
      const request = httpsRequest(
        { host: '127.0.0.1', port, path: `/mm7/${path}`, method: 'POST', ca: CA, agent: false, ...tls },
        (response) => {
          response.resume();
          resolve(response.statusCode ?? 0);
        },
      );
      request.on('error', reject);
      request.end(body);
    });
  }

  const client = { cert: CLIENT_CERT, key: CLIENT_KEY };
  const stranger = { cert: STRANGER_CERT, key: STRANGER_KEY };

  it.each<[string, null | { cert?: string; key?: string }, number]>([
    ['plain', null, 200],
    ['plain', {}, 200],
    ['tls', null, 403],
    ['tls', {}, 200],
    ['client', null, 403],
    ['client', {}, 403],
    ['client', client, 200],
    ['client', stranger, 403],
    ['named', client, 403],
    ['other', client, 403],
    ['other', stranger, 200],
  ])('%s called with %j is answered %i', async (path, tls, expected) => {
    expect(await status(path, tls)).toBe(expected);
    expect(reports).toHaveLength(expected === 200 ? 1 : 0);
  });

  it('takes others’ authorities from the moment they are set', async () => {
    expect(await status('client', stranger)).toBe(403);
    open.setCarriers([{ name: 'client', clientCa: OTHER_CA }]);
    expect(await status('client', stranger)).toBe(200);
    expect(await status('client', client)).toBe(403);
  });

  it('leaves who says nothing', async () => {
    const socket = connect(Number(new URL(open.url).port), '127.0.0.1');
    await once(socket, 'connect');
    expect(await status('plain', null)).toBe(200);
    await env.clock.advance(10_000);
    await once(socket.resume(), 'close');
  });
});
