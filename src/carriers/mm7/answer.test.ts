/** Peers' answers to a SubmitReq and what each must come to. */

import { describe, expect, it } from 'vitest';
import fc from '../../../test/properties.ts';
import { ERRORS } from '../../domain/codes.ts';
import type { Outcome, Submission } from '../../domain/submission.ts';
import { addressDigits, bounded, errorOf, type HttpAnswer, isGranted, outcomeOf, parseRetryAfter } from './answer.ts';

const NOW = Date.UTC(2026, 0, 1);
const SCHEMA = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/';

const submission: Submission = {
  transactionId: 'tx-1',
  sender: 'Postcard',
  recipients: ['441134960001'],
  parts: [],
  validUntil: NOW,
};
const group: Submission = { ...submission, recipients: ['441134960001', '441134960002', '12345'] };

function outcome(body: string | Uint8Array, change: Partial<HttpAnswer> = {}, to: Submission = submission): Outcome {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body;
  return outcomeOf({ status: 200, contentType: 'text/xml', retryAfter: undefined, body: bytes, ...change }, to, NOW);
}

const soap = (body: string, transactionId = 'tx-1', release = 'REL-6-MM7-1-4'): string =>
  `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><m:TransactionID xmlns:m="${SCHEMA}${release}" s:mustUnderstand="1">${transactionId}</m:TransactionID></s:Header><s:Body>${body}</s:Body></s:Envelope>`;
const status = (code: number | string, text: string, details = ''): string =>
  `<Status><StatusCode>${code}</StatusCode><StatusText>${text}</StatusText>${details}</Status>`;
const rsp = (code: number | string, text: string, details = '', id = 'mid-1'): string =>
  soap(
    `<SubmitRsp xmlns="${SCHEMA}REL-6-MM7-1-4"><MM7Version>6.8.0</MM7Version>${status(code, text, details)}<MessageID>${id}</MessageID></SubmitRsp>`,
  );
const fault = (inner: string, code = 'soap:Client'): string =>
  soap(`<s:Fault><faultcode>${code}</faultcode><faultstring>Client error</faultstring>${inner}</s:Fault>`);
const rsError = (code: number, name = 'RSErrorRsp'): string =>
  `<${name} xmlns="${SCHEMA}REL-6-MM7-1-4"><MM7Version>6.8.0</MM7Version>${status(code, 'no')}</${name}>`;

describe('a success', () => {
  const accepted = { kind: 'accepted', carrierMessageId: 'mid-1', words: '1000 Success' };

  const shapes: [string, string, string?][] = [
    ['in the default namespace', rsp(1000, 'Success')],
    ...['REL-5-MM7-1-0', 'REL-5-MM7-1-2', 'REL-5-MM7-1-5', 'REL-6-MM7-1-0', 'REL-6-MM7-1-3'].map(
      (release): [string, string] => [
        `with a prefix in ${release}`,
        soap(
          `<mm7p6a0:SubmitRsp xmlns:mm7p6a0="${SCHEMA}${release}"><mm7p6a0:MM7Version>5.3.0</mm7p6a0:MM7Version><mm7p6a0:Status><mm7p6a0:StatusCode>1000</mm7p6a0:StatusCode><mm7p6a0:StatusText>Success</mm7p6a0:StatusText></mm7p6a0:Status><mm7p6a0:MessageID>mid-1</mm7p6a0:MessageID></mm7p6a0:SubmitRsp>`,
          'tx-1',
          release,
        ),
      ],
    ),
    ['in no namespace', soap(`<SubmitRsp>${status(1000, 'Success')}<MessageID>mid-1</MessageID></SubmitRsp>`)],
    ['in another order', soap(`<SubmitRsp><MessageID>mid-1</MessageID>${status(1000, 'Success')}</SubmitRsp>`)],
    ['with white space everywhere', rsp('\n 1000 \n', ' Success\n', '', '\n  mid-1\n').replace('tx-1', '\n tx-1 \n')],
    [
      'without a Status element',
      soap(
        '<SubmitRsp><StatusCode>1000</StatusCode><StatusText>Success</StatusText><MessageID>mid-1</MessageID></SubmitRsp>',
      ),
    ],
    [
      'without a header',
      `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><SubmitRsp>${status(1000, 'Success')}<MessageID>mid-1</MessageID></SubmitRsp></e:Body></e:Envelope>`,
    ],
    [
      'in SOAP 1.2',
      rsp(1000, 'Success').replace(
        'http://schemas.xmlsoap.org/soap/envelope/',
        'http://www.w3.org/2003/05/soap-envelope',
      ),
    ],
    [
      'in a multipart',
      `--b\r\nContent-Type: text/xml\r\nContent-ID: <r>\r\n\r\n${rsp(1000, 'Success')}\r\n--b--`,
      'multipart/related; boundary=b; start="<r>"',
    ],
    [
      'in a multipart behind another part',
      `--b\r\n\r\nx\r\n--b\r\nContent-ID: r\r\n\r\n${rsp(1000, 'Success')}\r\n--b--`,
      'multipart/related; boundary=b; start=r',
    ],
  ];
  it.each(shapes)('is read %s', (_, body, contentType = 'text/xml; charset="utf-8"') => {
    expect(outcome(body, { contentType })).toEqual(accepted);
  });

  it('is read whatever the Content-Type and the HTTP status', () => {
    for (const contentType of [undefined, 'application/xml', 'text/html', 'garbage']) {
      for (const code of [200, 202, 400, 500]) {
        expect(outcome(rsp(1000, 'Success'), { contentType, status: code })).toEqual(accepted);
      }
    }
  });

  it('keeps the MessageID as the peer wrote it', () => {
    for (const id of ['<qf8273.1@127.0.0.1>', 'ABCdef', '0012', 'a/b=='] as const) {
      expect(outcome(rsp(1000, 'Success', '', id.replace('<', '&lt;').replace('>', '&gt;')))).toMatchObject({
        carrierMessageId: id,
      });
    }
  });

  it('without a MessageID goes by our transaction id', () => {
    expect(outcome(rsp(1000, 'Success', '', ''))).toEqual({
      kind: 'accepted',
      carrierMessageId: 'tx-1',
      words: '1000 Success (no MessageID)',
    });
  });

  it('for another transaction is unknown', () => {
    expect(outcome(rsp(1000, 'Success').replace('tx-1', 'tx-2'))).toMatchObject({ kind: 'unknown' });
  });

  it('in another operation is unknown', () => {
    expect(outcome(soap(`<CancelRsp>${status(1000, 'Success')}</CancelRsp>`))).toMatchObject({ kind: 'unknown' });
    expect(outcome(fault(`<detail>${rsError(1000)}</detail>`))).toMatchObject({ kind: 'unknown' });
  });

  it('that is cut off is not believed', () => {
    const whole = rsp(1000, 'Success');
    for (let length = 1; length < whole.length; length += 13) {
      expect(outcome(whole.slice(0, length)).kind).toBe('unknown');
    }
  });
});

describe('a partial success', () => {
  const refusedOf = (details: string, to = group): unknown => {
    const result = outcome(rsp(1100, 'Partial success', `<Details>${details}</Details>`), {}, to);
    return result.kind === 'accepted'
      ? (result.refused ?? []).map((one) => [one.recipient, one.error.id])
      : result.kind;
  };

  it('names the refused recipients, in whatever form', () => {
    for (const details of [
      '<Number>+441134960002</Number>',
      '<Recipients><To><Number>441134960002/TYPE=PLMN</Number></To></Recipients>',
      'failed: +441134960002',
      'tel:441134960002,+999',
    ]) {
      expect(refusedOf(details)).toEqual([['441134960002', 15201]]);
    }
  });

  it('takes the status code that stands with an address', () => {
    const one = (number: string, code: number): string =>
      `<Recipient><Number>${number}</Number><StatusCode>${code}</StatusCode></Recipient>`;
    expect(refusedOf(one('441134960002', 2003) + one('441134960001', 1000) + one('12345', 2004))).toEqual([
      ['441134960002', 15009],
      ['12345', 15013],
    ]);
  });

  it('refuses all where all are named with codes, and nobody where all are named without', () => {
    const all = group.recipients.map((number) => `<R><Number>${number}</Number><StatusCode>2003</StatusCode></R>`);
    expect(refusedOf(all.join(''))).toBe('refused');
    expect(refusedOf(group.recipients.join(' '))).toEqual([]);
  });

  it('names nobody where nobody is named, or only one was sent to', () => {
    expect(refusedOf('some')).toEqual([]);
    expect(refusedOf('<Number>441134960001</Number>', submission)).toEqual([]);
    expect(outcome(rsp(1100, 'Partial success'), {}, group)).toMatchObject({
      kind: 'accepted',
      carrierMessageId: 'mid-1',
    });
  });
});

describe('a status code', () => {
  const codes: [number, Outcome['kind'], number][] = [
    [2000, 'refused', 15008],
    [2001, 'refused', 15010],
    [2002, 'refused', 15201],
    [2003, 'refused', 15009],
    [2004, 'refused', 15013],
    [2005, 'refused', 15008],
    [2006, 'refused', 15008],
    [2007, 'refused', 15008],
    [2008, 'refused', 15008],
    [2009, 'refused', 15008],
    [2560, 'refused', 15008],
    [3000, 'deferred', 15000],
    [3001, 'refused', 15008],
    [3002, 'refused', 15008],
    [3003, 'refused', 15008],
    [3004, 'refused', 15008],
    [3500, 'deferred', 15000],
    [3510, 'throttled', 15000],
    [4000, 'deferred', 15000],
    [4001, 'deferred', 15010],
    [4002, 'deferred', 15000],
    [4003, 'refused', 15008],
    [4004, 'refused', 15008],
    [4005, 'refused', 15008],
    [4006, 'deferred', 15000],
    [4007, 'refused', 15010],
    [4008, 'refused', 15008],
    [4999, 'deferred', 15000],
    [5000, 'deferred', 15000],
    [6123, 'deferred', 15000],
    [99999, 'deferred', 15000],
    [7, 'deferred', 15000],
  ];
  it.each(codes)('%i is %s with %i, in a response, in faults and in damaged XML', (code, kind, id) => {
    const expected = { kind, error: { id } };
    expect(outcome(rsp(code, 'no'))).toMatchObject({ ...expected, error: { id, words: `${code} no` } });
    // What is about the service, not about the message, another carrier may not share.
    const elsewhere = code >= 4000 && code < 5000 && (kind === 'deferred' || code === 4007);
    expect((outcome(rsp(code, 'no')) as { elsewhere?: boolean }).elsewhere ?? false).toBe(elsewhere);
    expect(outcome(soap(rsError(code)), { status: 500 })).toMatchObject(expected);
    if (code < 1000) return;
    for (const http of [200, 400, 500, 502]) {
      expect(outcome(fault(`<detail>${rsError(code)}</detail>`), { status: http })).toMatchObject(expected);
    }
    expect(outcome(fault(`<detail>${rsError(code, 'VASPErrorRsp')}</detail>`))).toMatchObject(expected);
    expect(outcome(fault(`<detail>${status(code, 'no')}</detail>`, 'env:Server'))).toMatchObject(expected);
    const damaged = `<soap-env:Fault><soap-env:Fault><mm7:StatusCode>${code}</mm7:StatusCode></soap-env:Fault>`;
    expect(outcome(damaged)).toMatchObject({ ...expected, error: { id, words: `${code} (in a damaged answer)` } });
  });

  it('shows the details of a refusal, bounded', () => {
    const details = (inner: string) => outcome(rsp(2002, 'Address error', `<Details>${inner}</Details>`));
    expect(details('<Number>4411</Number><x>not ours</x>')).toMatchObject({
      error: { words: '2002 Address error (4411, not ours)' },
    });
    expect(details('')).toMatchObject({ error: { words: '2002 Address error' } });
    expect((details('<x>long</x>'.repeat(100)) as { error: { words: string } }).error.words.length).toBeLessThan(201);
  });

  it('always has an error that our table knows', () => {
    for (let code = 2000; code < 7000; code++) expect(ERRORS[errorOf(code)]).toBeDefined();
  });

  it('carries the wish of Retry-After where it may be tried again', () => {
    expect(outcome(rsp(4006, 'busy'), { retryAfter: '7' })).toMatchObject({ kind: 'deferred', retryAfterMs: 7000 });
    expect(outcome(rsp(3510, 'slow'), { retryAfter: '7' })).toMatchObject({ kind: 'throttled', retryAfterMs: 7000 });
    expect(outcome(rsp(3510, 'slow'))).toMatchObject({ kind: 'throttled', retryAfterMs: 2000 });
    expect(outcome(rsp(4006, 'busy'))).not.toHaveProperty('retryAfterMs');
  });
});

describe('a fault without a status code', () => {
  it('is the client’s for good and the server’s for now', () => {
    expect(outcome(fault('', 'soap:Client'))).toMatchObject({ kind: 'refused', error: { id: 15008 } });
    expect(outcome(fault('', 'Client.Authentication'))).toMatchObject({ kind: 'refused' });
    expect(outcome(fault('', 'env:Server'), { status: 500 })).toMatchObject({ kind: 'deferred', error: { id: 15000 } });
    expect(outcome(fault('', 'SERVER'))).toMatchObject({ kind: 'deferred' });
    expect(outcome(fault('', ''))).toMatchObject({ kind: 'deferred' });
  });

  it('in SOAP 1.2 is read too', () => {
    const body = (code: string): string =>
      `<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault><e:Code><e:Value>e:${code}</e:Value></e:Code><e:Reason><e:Text>why</e:Text></e:Reason></e:Fault></e:Body></e:Envelope>`;
    expect(outcome(body('Sender'))).toMatchObject({ kind: 'refused', error: { words: 'SOAP fault Client: why' } });
    expect(outcome(body('Receiver'))).toMatchObject({ kind: 'deferred', error: { words: 'SOAP fault Server: why' } });
  });

  it('from a gateway means what its HTTP status means', () => {
    expect(outcome(fault(''), { status: 401 })).toMatchObject({ kind: 'deferred' });
    expect(outcome(fault(''), { status: 429 })).toMatchObject({ kind: 'throttled' });
    expect(outcome(fault(''), { status: 502 })).toMatchObject({ kind: 'unknown' });
  });
});

describe('an answer without MM7 in it', () => {
  const plain: [number, string | undefined, object][] = [
    [200, undefined, { kind: 'unknown' }],
    [202, undefined, { kind: 'unknown' }],
    [204, undefined, { kind: 'unknown' }],
    [301, undefined, { kind: 'deferred' }],
    [307, undefined, { kind: 'deferred' }],
    [400, undefined, { kind: 'refused', error: { id: 15008 } }],
    [401, undefined, { kind: 'deferred' }],
    [403, undefined, { kind: 'deferred' }],
    [404, undefined, { kind: 'deferred' }],
    [407, undefined, { kind: 'deferred' }],
    [408, undefined, { kind: 'deferred' }],
    [413, undefined, { kind: 'refused', error: { id: 15026 } }],
    [415, undefined, { kind: 'refused', error: { id: 15013 } }],
    [422, undefined, { kind: 'refused', error: { id: 15008 } }],
    [429, undefined, { kind: 'throttled', retryAfterMs: 2000 }],
    [429, '30', { kind: 'throttled', retryAfterMs: 30_000 }],
    [500, undefined, { kind: 'deferred' }],
    [500, '30', { kind: 'deferred', retryAfterMs: 30_000 }],
    [502, undefined, { kind: 'unknown' }],
    [503, undefined, { kind: 'deferred' }],
    [503, '30', { kind: 'throttled', retryAfterMs: 30_000 }],
    [504, undefined, { kind: 'unknown' }],
    [599, undefined, { kind: 'deferred' }],
  ];
  it.each(plain)('HTTP %i with Retry-After %s is %j', (code, retryAfter, expected) => {
    for (const body of ['', '<html><p>sorry</html>', 'garbage', '{"ok":true}', '<Envelope/>', '<x/>']) {
      const result = outcome(body, { status: code, retryAfter });
      expect(result).toMatchObject(expected);
      expect(JSON.stringify(result)).toContain(`HTTP ${code}: `);
      expect(JSON.stringify(result)).not.toContain('sorry');
    }
  });

  it('says that the carrier refuses us, and where a redirect leads, its host alone', () => {
    const words = (status: number, location?: string, body = '') => outcome(body, { status, location });
    const refused = { error: { words: 'HTTP 401: the carrier refuses our user name or password' } };
    expect(words(401)).toMatchObject(refused);
    expect(words(401, undefined, fault(''))).toMatchObject(refused);
    expect(words(302, 'https://u:p@mmsc.example.net:8443/a?token=t')).toMatchObject({
      error: { words: 'HTTP 302: empty answer, redirects to mmsc.example.net:8443' },
    });
    expect(words(307, '/login?token=t')).toMatchObject({
      error: { words: 'HTTP 307: empty answer, redirects to another path' },
    });
  });

  it('shows a status code that it does not know', () => {
    expect(outcome(rsp(0, 'well'))).toMatchObject({
      kind: 'unknown',
      error: { words: 'HTTP 200: unexpected SubmitRsp with StatusCode "0" well' },
    });
    expect(outcome(rsp('OK', ''))).toMatchObject({
      kind: 'unknown',
      error: { words: 'HTTP 200: unexpected SubmitRsp with StatusCode "OK"' },
    });
  });

  it('gets an outcome whatever its bytes are', () => {
    const kinds = ['accepted', 'deferred', 'throttled', 'refused', 'unknown'];
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200 }),
        fc.integer({ min: 200, max: 599 }),
        fc.string(),
        (body, code, type) => {
          expect(kinds).toContain(outcome(body, { status: code, contentType: type }).kind);
        },
      ),
    );
    const whole = rsp(1000, 'Success');
    fc.assert(
      fc.property(fc.nat(whole.length), fc.nat(whole.length), fc.string({ maxLength: 5 }), (a, b, middle) => {
        const result = outcome(whole.slice(0, Math.min(a, b)) + middle + whole.slice(Math.max(a, b)));
        expect(kinds).toContain(result.kind);
      }),
    );
  });
});

describe('small pieces', () => {
  it('Retry-After is seconds or a date, held to 1 s..1 h', () => {
    expect(parseRetryAfter('120', NOW)).toBe(120_000);
    expect(parseRetryAfter('Thu, 01 Jan 2026 00:02:00 GMT', NOW)).toBe(120_000);
    expect(parseRetryAfter('Thu, 01 Jan 2020 00:00:00 GMT', NOW)).toBe(1000);
    expect(parseRetryAfter('0', NOW)).toBe(1000);
    expect(parseRetryAfter('999999999', NOW)).toBe(3_600_000);
    for (const odd of [undefined, '', 'soon', '1e400', '99999999999999999999'])
      expect(parseRetryAfter(odd, NOW)).toBeUndefined();
  });

  it('addressDigits takes the dress off an address', () => {
    expect(addressDigits(' +385911234567/TYPE=PLMN\n')).toBe('385911234567');
    expect(addressDigits('tel:+385911234567')).toBe('385911234567');
    expect(addressDigits('12345')).toBe('12345');
  });

  it('bounded makes one line of at most 200 characters', () => {
    expect(bounded(' a\r\n\tb\0c ')).toBe('a b c');
    expect(bounded('\u{1f600}'.repeat(300))).toHaveLength(200);
    expect(bounded(`x${'\u{1f600}'.repeat(300)}`).isWellFormed()).toBe(true);
  });
});

describe('a carrier’s own table', () => {
  const own = {
    statusCodes: { 2001: 'retry', 3510: 'refuse', 4006: 'throttle', 5555: 'refuse' },
    errors: { 2001: 15020, 2003: 15003 },
  } as const;
  const judged = (code: number, to: Submission = submission, details = ''): Outcome =>
    outcomeOf(
      { status: 200, contentType: 'text/xml', retryAfter: undefined, body: Buffer.from(rsp(code, 'x', details)) },
      to,
      NOW,
      own,
    );

  it.each<[number, string, number]>([
    [2001, 'deferred', 15020],
    [3510, 'refused', 15000],
    [4006, 'throttled', 15000],
    [5555, 'refused', 15000],
    [2003, 'refused', 15003],
    [2002, 'refused', 15201],
  ])('decides about %i: %s with %i', (code, kind, id) => {
    expect(judged(code)).toMatchObject({ kind, error: { id } });
    expect(errorOf(code, own)).toBe(id);
  });

  it('holds within a partial success', () => {
    const details =
      '<Details><Recipient><Number>441134960002</Number><StatusCode>2003</StatusCode></Recipient></Details>';
    expect(judged(1100, group, details)).toMatchObject({
      refused: [{ recipient: '441134960002', error: { id: 15003 } }],
    });
  });
});

describe('the answer to a CancelReq', () => {
  it.each<[string, boolean]>([
    [soap(`<CancelRsp>${status(1000, 'Success')}</CancelRsp>`), true],
    [soap(`<CancelRsp>${status(2005, 'Message ID not found')}</CancelRsp>`), false],
    [soap(`<CancelRsp>${status(3001, 'Not possible')}</CancelRsp>`), false],
    [fault(`<detail>${rsError(4003)}</detail>`), false],
    [fault(`<detail>${rsError(1000)}</detail>`), false],
    ['', false],
    ['garbage', false],
  ])('is a yes only where it is one: %j', (body, expected) => {
    expect(isGranted({ status: 200, contentType: 'text/xml', retryAfter: undefined, body: Buffer.from(body) })).toBe(
      expected,
    );
  });
});
