/** The listener against real HTTP: what MMSCs send, what they get, and when. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { CarrierReport } from '../../domain/submission.ts';
import { type TestEnv, testEnv } from '../../env.ts';
import { textOf } from '../../xml.ts';
import { createMm7Listener, type Listener } from './listener.ts';
import { MM7_NAMESPACE, readSoap, SOAP_11, SOAP_12, statusOf } from './soap.ts';

const SCHEMA = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/';

let env: TestEnv;
let listener: Listener;
let reports: CarrierReport[];
let onReport: (report: CarrierReport) => Promise<void>;

beforeEach(async () => {
  env = testEnv();
  reports = [];
  onReport = async (report) => void reports.push(report);
  listener = await createMm7Listener({
    host: '127.0.0.1',
    port: 0,
    carriers: [{ name: 'open' }, { name: 'locked', inboundSecret: 's3cret:ö' }],
    onReport: (report) => onReport(report),
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
    expect(env.lines).toMatchObject([{ level: 'error', message: 'report could not be kept' }]);
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
  it('a read reply is acknowledged and logged', async () => {
    const body =
      '<r:ReadReplyReq xmlns:r="urn:r"><r:MM7Version>6.3.0</r:MM7Version><r:MessageID>mid-1</r:MessageID><r:MMStatus>Read</r:MMStatus></r:ReadReplyReq>';
    expect(await post(soap(body))).toMatchObject({
      http: 200,
      operation: 'ReadReplyRsp',
      status: 1000,
      version: '6.3.0',
    });
    expect(env.lines).toMatchObject([
      { level: 'info', message: 'read reply', fields: { carrierMessageId: 'mid-1', words: 'Read' } },
    ]);
  });

  it('a message from a handset and anything unknown get a fault that says so', async () => {
    for (const name of ['DeliverReq', 'SubmitReq', 'QueryStatusReq', 'Fault']) {
      const answer = await post(soap(`<${name}/>`));
      expect(answer).toMatchObject({ http: 500, operation: 'Fault', status: 4003, transactionId: 'peer-1' });
    }
    const twelve = await post(soap('<DeliverReq/>', 't', `${SCHEMA}REL-5-MM7-1-0`, SOAP_12));
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
      '/mm7/open/',
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
    for (const [headers, query] of good) expect((await post(body, headers, `/mm7/locked${query}`)).http).toBe(200);
    expect(reports).toHaveLength(4);
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
    expect(reports).toHaveLength(4);
    expect(JSON.stringify(env.lines)).not.toContain('s3cret');
  });

  it('takes bodies up to its limit, announced or chunked', async () => {
    const long = Buffer.alloc(1024 * 1024 + 1, ' ');
    expect((await post(long).catch(() => ({ http: 413 }))).http).toBe(413);
    const socket = connect(Number(new URL(listener.url).port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write('POST /mm7/open HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n');
    const chunk = Buffer.alloc(65_536, ' ');
    for (let i = 0; i < 17; i++) socket.write(Buffer.concat([Buffer.from('10000\r\n'), chunk, Buffer.from('\r\n')]));
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
    const second = createMm7Listener({ host: '127.0.0.1', port: Number(port), carriers: [], onReport, env });
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
