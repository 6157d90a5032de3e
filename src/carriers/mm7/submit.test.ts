/** SubmitReq as bytes: one whole golden request, the schema's order, and no value that can break out of its place. */

import { describe, expect, it } from 'vitest';
import fc from '../../../test/properties.ts';
import type { Part, Submission } from '../../domain/submission.ts';
import { childOf, readXml, textOf } from '../../xml.ts';
import { headerValue, type MimePartIn, readMultipart } from '../mime.ts';
import { readSoap, type SoapMessage } from './soap.ts';
import { createSubmitEncoder, printCancel, printReplace, type SubmitBody, type SubmitOptions } from './submit.ts';

const REL6 = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';

const options: SubmitOptions = {
  namespace: REL6,
  version: '6.8.0',
  vaspId: 'acme',
  vasId: 'news',
  serviceCode: 'gold',
  transferEncoding: 'binary',
};

const submission: Submission = {
  transactionId: 'i1-42',
  sender: '+385911234567',
  recipients: ['441134960001', '441134960002', '12345'],
  subject: 'Fish & chips <today>',
  parts: [
    { contentId: 'text_1.txt', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('Dobar dan \u2713') },
    { contentId: 'fish.jpg', contentType: 'image/jpeg', bytes: Buffer.from([0xff, 0xd8, 0x0d, 0x0a]) },
  ],
  validUntil: Date.UTC(2026, 0, 3, 4, 5, 6, 789),
};

function encode(change: Partial<Submission> = {}, config: Partial<SubmitOptions> = {}): SubmitBody {
  return createSubmitEncoder({ ...options, ...config }, () => 'pc-0')({ ...submission, ...change });
}

const bytesOf = (body: SubmitBody): Buffer => Buffer.concat([body.opening, body.closing]);

/** As a peer reads it. */
function received(body: SubmitBody): { message: SoapMessage; smil: string; parts: MimePartIn[] } {
  const soap = readSoap(body.contentType, bytesOf(body));
  if (!soap.ok) throw new Error(soap.fault);
  const content = soap.message.attachments[0]!;
  expect(soap.message.attachments).toHaveLength(1);
  expect(childOf(soap.message.body, 'Content')?.attributes.href).toBe(`cid:${content.contentId}`);
  const inner = readMultipart(content.contentType, content.bytes);
  if (!inner.ok) throw new Error(inner.fault);
  const { params } = headerValue(content.contentType);
  expect(params.start).toBe(`<${inner.parts[0]!.contentId}>`);
  expect(params.type).toBe('application/smil');
  const [smil, ...parts] = inner.parts;
  return { message: soap.message, smil: Buffer.from(smil!.bytes).toString('utf8'), parts };
}

describe('SubmitReq', () => {
  it('is these bytes', () => {
    const body = encode();
    expect(body.contentType).toBe('multipart/related; boundary="pc-0"; type="text/xml"; start="<mm7-submit@postcard>"');
    const inner = '=_postcard';
    const soap =
      '<?xml version="1.0" encoding="UTF-8"?>' +
      '<env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/"><env:Header>' +
      `<mm7:TransactionID xmlns:mm7="${REL6}" env:mustUnderstand="1">i1-42</mm7:TransactionID>` +
      `</env:Header><env:Body><mm7:SubmitReq xmlns:mm7="${REL6}">` +
      '<mm7:MM7Version>6.8.0</mm7:MM7Version>' +
      '<mm7:SenderIdentification><mm7:VASPID>acme</mm7:VASPID><mm7:VASID>news</mm7:VASID>' +
      '<mm7:SenderAddress><mm7:Number>+385911234567</mm7:Number></mm7:SenderAddress></mm7:SenderIdentification>' +
      '<mm7:Recipients><mm7:To><mm7:Number>+441134960001</mm7:Number><mm7:Number>+441134960002</mm7:Number>' +
      '<mm7:ShortCode>12345</mm7:ShortCode></mm7:To></mm7:Recipients>' +
      '<mm7:ServiceCode>gold</mm7:ServiceCode>' +
      '<mm7:ExpiryDate>2026-01-03T04:05:06Z</mm7:ExpiryDate>' +
      '<mm7:DeliveryReport>true</mm7:DeliveryReport>' +
      '<mm7:Subject>Fish &amp; chips &lt;today&gt;</mm7:Subject>' +
      '<mm7:Content href="cid:content@postcard"/>' +
      '</mm7:SubmitReq></env:Body></env:Envelope>';
    const smil =
      '<?xml version="1.0" encoding="UTF-8"?><smil><head><layout><root-layout width="100%" height="100%"/>' +
      '<region id="Image" left="0" width="100%" top="0" height="80%" fit="meet"/>' +
      '<region id="Text" left="0" width="100%" top="80%" height="20%"/></layout></head><body><par dur="5000ms">' +
      '<img src="cid:fish.jpg" region="Image"/><text src="cid:text_1.txt" region="Text"/></par></body></smil>';
    const golden = [
      '--pc-0',
      'Content-Type: text/xml; charset=utf-8',
      'Content-ID: <mm7-submit@postcard>',
      'Content-Transfer-Encoding: 8bit',
      '',
      soap,
      '--pc-0',
      `Content-Type: multipart/related; boundary="${inner}"; type="application/smil"; start="<presentation.smil>"`,
      'Content-ID: <content@postcard>',
      'Content-Transfer-Encoding: binary',
      '',
      `--${inner}`,
      'Content-Type: application/smil; charset=utf-8; name=presentation.smil',
      'Content-ID: <presentation.smil>',
      'Content-Location: presentation.smil',
      'Content-Transfer-Encoding: 8bit',
      '',
      smil,
      `--${inner}`,
      'Content-Type: text/plain; charset=utf-8; name=text_1.txt',
      'Content-ID: <text_1.txt>',
      'Content-Location: text_1.txt',
      'Content-Transfer-Encoding: binary',
      '',
      Buffer.from('Dobar dan \u2713').toString('latin1'),
      `--${inner}`,
      'Content-Type: image/jpeg; name=fish.jpg',
      'Content-ID: <fish.jpg>',
      'Content-Location: fish.jpg',
      'Content-Transfer-Encoding: binary',
      '',
      '\xff\xd8\r\n',
      `--${inner}--`,
      '',
      '--pc-0--',
      '',
    ].join('\r\n');
    expect(bytesOf(body).toString('latin1')).toBe(golden);
  });

  it('keeps the order of the schema, whatever is left out', () => {
    const schema =
      'MM7Version SenderIdentification Recipients ServiceCode ExpiryDate DeliveryReport Subject Content'.split(' ');
    for (const change of [{}, { subject: undefined }, { sender: '' }, { validUntil: Number.NaN }]) {
      for (const config of [{}, { serviceCode: undefined }, { vaspId: undefined, vasId: undefined }]) {
        const names = received(encode(change, config)).message.body.children.map((child) => child.name);
        expect(names).toEqual(schema.filter((name) => names.includes(name)));
        expect(names).toEqual(expect.arrayContaining(['MM7Version', 'Recipients', 'DeliveryReport', 'Content']));
      }
    }
  });

  it('uses the namespace and version that the carrier is configured with', () => {
    const REL5 = REL6.replace('REL-6-MM7-1-4', 'REL-5-MM7-1-0');
    const { message } = received(encode({}, { namespace: REL5, version: '5.3.0' }));
    expect(message).toMatchObject({ namespace: REL5, version: '5.3.0', transactionId: 'i1-42' });
    expect(message.body.children.every((child) => child.uri === REL5)).toBe(true);
  });

  const senders: [string, Partial<SubmitOptions>, string, string][] = [
    ['385911234567', {}, 'Number', '+385911234567'],
    ['+385911234567', { plus: false }, 'Number', '385911234567'],
    ['385911234567', { numberSuffix: '/TYPE=PLMN' }, 'Number', '+385911234567/TYPE=PLMN'],
    ['12345', { numberSuffix: '/TYPE=PLMN' }, 'ShortCode', '12345'],
    ['Fish & Co', {}, 'ShortCode', 'Fish & Co'],
  ];
  it.each(senders)('writes the sender %s under %j as %s %s', (sender, config, name, value) => {
    const { message } = received(encode({ sender }, config));
    expect(textOf(message.body, 'SenderIdentification', 'SenderAddress', name)).toBe(value);
  });

  it('gives the bytes of every part in either transfer encoding', () => {
    const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) & 255));
    for (const transferEncoding of ['binary', 'base64'] as const) {
      const parts = [...submission.parts, { contentId: 'all.bin', contentType: 'video/mp4', bytes }];
      const body = encode({ parts }, { transferEncoding });
      const read = received(body);
      expect(read.parts.map((part) => part.contentId)).toEqual(['text_1.txt', 'fish.jpg', 'all.bin']);
      read.parts.forEach((part, i) => {
        expect(Buffer.compare(part.bytes, parts[i]!.bytes)).toBe(0);
      });
      if (transferEncoding === 'base64') expect(bytesOf(body).every((byte) => byte < 0x80)).toBe(true);
    }
  });

  it('encodes the content of a campaign once, and anew when the content is another', () => {
    let boundaries = 0;
    const encoder = createSubmitEncoder(options, () => `pc-${boundaries++}`);
    const first = encoder(submission);
    const second = encoder({ ...submission, transactionId: 'i1-43', recipients: ['441134960009'] });
    expect(second.closing).toBe(first.closing);
    expect(second.contentType).toBe(first.contentType);
    expect(received(second).message.transactionId).toBe('i1-43');
    expect(textOf(received(second).message.body, 'Recipients', 'To', 'Number')).toBe('+441134960009');
    expect(received(encoder({ ...submission, subject: 'other' })).message.body.children.at(-2)?.text).toBe('other');
    expect(
      textOf(
        received(encoder({ ...submission, sender: 'Other' })).message.body,
        'SenderIdentification',
        'SenderAddress',
        'ShortCode',
      ),
    ).toBe('Other');
    expect(received(encoder({ ...submission, parts: [submission.parts[0]!] })).parts).toHaveLength(1);
    expect(boundaries).toBe(4);
  });

  it('carries any sender, subject, transaction id and recipient without breaking out of its place', () => {
    const anything = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.constantFrom(
        '</mm7:Subject><mm7:Content href="cid:evil"/>',
        '\r\n--pc-0\r\nContent-Type: text/xml\r\n\r\n<x/>',
        '\n--pc-0--\n',
        ']]><!--',
        '&#0;&xxe;',
        '\0\ud800\uffff',
      ),
    );
    const anyPart = fc.record({
      contentId: anything,
      contentType: fc.oneof(anything, fc.constantFrom('image/png', 'text/plain')),
      bytes: fc.oneof(
        fc.uint8Array({ maxLength: 100 }),
        anything.map((value) => Buffer.from(value)),
      ),
    });
    fc.assert(
      fc.property(
        fc.record({
          sender: anything,
          subject: anything,
          transactionId: anything,
          recipients: fc.array(anything, { minLength: 1, maxLength: 3 }),
        }),
        fc.array(anyPart, { maxLength: 4 }),
        fc.constantFrom<'binary' | 'base64'>('binary', 'base64'),
        (fields, parts: Part[], transferEncoding) => {
          const { message, smil, parts: read } = received(encode({ ...fields, parts }, { transferEncoding }));
          expect(message.operation).toBe('SubmitReq');
          expect(message.body.children.filter((child) => child.name === 'Content')).toHaveLength(1);
          expect(childOf(message.body, 'Recipients', 'To')?.children).toHaveLength(fields.recipients.length);
          expect(read).toHaveLength(parts.length);
          read.forEach((part, i) => {
            expect(Buffer.compare(part.bytes, parts[i]!.bytes)).toBe(0);
          });
          expect(readXml(smil).ok).toBe(true);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('the presentation', () => {
  const part = (contentId: string, contentType: string): Part => ({ contentId, contentType, bytes: Buffer.from('x') });
  const image = (n: number): Part => part(`i${n}`, 'image/jpeg');
  const words = (n: number): Part => part(`t${n}`, 'text/plain; charset=utf-8');
  const sound = (n: number): Part => part(`a${n}`, 'audio/amr');
  const video = (n: number): Part => part(`v${n}`, 'video/mp4');
  const card = part('c', 'text/vcard');

  const slides: [string, Part[], string[][]][] = [
    ['one slide of a text and a picture', [words(1), image(1)], [['i1', 't1']]],
    [
      'a slide per picture with its text',
      [image(1), words(1), image(2), words(2)],
      [
        ['i1', 't1'],
        ['i2', 't2'],
      ],
    ],
    ['pictures alone', [image(1), image(2)], [['i1'], ['i2']]],
    ['texts alone', [words(1), words(2)], [['t1'], ['t2']]],
    ['a sound with its picture and text', [image(1), words(1), sound(1)], [['i1', 't1', 'a1']]],
    ['a video without a sound', [video(1), sound(1), words(1)], [['v1'], ['t1', 'a1']]],
    ['no picture on the slide of a video', [video(1), image(1)], [['v1'], ['i1']]],
    ['no contact card', [image(1), card], [['i1']]],
    ['nothing to show', [card], []],
  ];
  it.each(slides)('that is made has %s', (_, parts, expected) => {
    const read = readXml(received(encode({ parts })).smil);
    if (!read.ok) throw new Error(read.fault);
    const pars = childOf(read.root, 'body')!.children;
    expect(pars.map((par) => par.children.map((child) => child.attributes.src!.slice(4)))).toEqual(expected);
  });

  it('has a name that no part has', () => {
    const body = encode({ parts: [part('Presentation.smil', 'image/gif')] });
    expect(bytesOf(body).toString('latin1')).toContain('Content-ID: <presentation_2.smil>');
  });

  it('that was prepared goes out as it is', () => {
    const smil = '<smil><body><par><img src="cid:i1"/></par></body></smil>';
    expect(received(encode({ smil, parts: [image(1)] })).smil).toBe(smil);
  });

  it('refers to parts by their ids, whatever files they are called', () => {
    const parts = [part('photo', 'image/jpeg'), part('photo.jpg', 'image/jpeg'), part('card.txt', 'text/vcard')];
    const sent = bytesOf(encode({ parts })).toString('latin1');
    expect(sent).toContain('Content-Type: image/jpeg; name=photo.jpg\r\nContent-ID: <photo>\r\n');
    expect(sent).toContain('Content-Type: image/jpeg; name=photo_2.jpg\r\nContent-ID: <photo.jpg>\r\n');
    expect(sent).toContain('Content-Type: text/vcard; name=card.vcf\r\nContent-ID: <card.txt>\r\n');
    expect(sent).toContain('<img src="cid:photo" region="Image"/>');
  });
});

describe('a carrier’s own dialect', () => {
  const body = (config: Partial<SubmitOptions>, change: Partial<Submission> = {}) =>
    received(encode(change, config)).message.body;
  const all: Partial<SubmitOptions> = {
    messageClass: 'Informational',
    priority: 'High',
    readReply: true,
    chargedParty: 'ThirdParty',
    chargedPartyId: '4711',
    distributionIndicator: false,
    reports: false,
    allowAdaptations: false,
    extraElements: [
      { name: 'ContentClass', value: 'image-rich' },
      { name: 'DRMContent', value: 'false' },
      { name: 'Tel', value: '{sender}', namespace: 'urn:kr', after: 'ServiceCode', attributes: { kind: 'a"b' } },
      { name: 'Campaign', value: '{campaignReferenceId}', after: 'Content' },
      { name: 'AuxApplicInfo', value: '{transactionId}/{recipient}/{other}' },
    ],
    resellerCode: { element: 'Reseller', after: 'Subject' },
  };

  it('keeps the order of the schema with all that can be configured', () => {
    const request = body(all, { resellerCode: 7, campaignReferenceId: 'spring' });
    expect(request.children.map((child) => child.name)).toEqual(
      (
        'MM7Version SenderIdentification Recipients ServiceCode Tel MessageClass ExpiryDate DeliveryReport ReadReply Priority ' +
        'Subject Reseller ChargedParty ChargedPartyID DistributionIndicator AuxApplicInfo ContentClass DRMContent Content Campaign'
      ).split(' '),
    );
    const value = (name: string): string | undefined => textOf(request, name);
    expect(value('Tel')).toBe('+385911234567');
    expect(childOf(request, 'Tel')).toMatchObject({ uri: 'urn:kr', attributes: { kind: 'a"b' } });
    expect(value('Reseller')).toBe('7');
    expect(childOf(request, 'Reseller')?.uri).toBe(REL6);
    expect(value('Campaign')).toBe('spring');
    expect(value('AuxApplicInfo')).toBe('i1-42/441134960001/{other}');
    expect(value('DeliveryReport')).toBe('false');
    expect(value('DistributionIndicator')).toBe('false');
    expect(childOf(request, 'Content')?.attributes.allowAdaptations).toBe('false');
  });

  it('leaves out what a message does not have', () => {
    const names = body(all).children.map((child) => child.name);
    expect(names).not.toContain('Reseller');
    expect(names).not.toContain('Campaign');
  });

  it('fills in each message’s own, though their content is encoded once', () => {
    const encoder = createSubmitEncoder({ ...options, ...all }, () => 'pc-0');
    for (const [resellerCode, to] of [
      [1, '15550000001'],
      [2, '15550000002'],
    ] as const) {
      const request = received(encoder({ ...submission, resellerCode, recipients: [to] })).message.body;
      expect(textOf(request, 'Reseller')).toBe(String(resellerCode));
      expect(textOf(request, 'AuxApplicInfo')).toContain(to);
    }
  });

  it('may put an element of its own in the stead of ours', () => {
    const request = body({ extraElements: [{ name: 'ServiceCode', value: 'own' }] });
    expect(request.children.filter((child) => child.name === 'ServiceCode').map((child) => child.text)).toEqual([
      'own',
    ]);
  });

  it('writes the end of validity as an instant, as a duration or not at all', () => {
    const now = submission.validUntil - 3_661_500;
    const expiry = (config: Partial<SubmitOptions>): string | undefined => {
      const encoded = createSubmitEncoder(
        { ...options, ...config },
        () => 'pc-0',
        () => now,
      )(submission);
      return textOf(received(encoded).message.body, 'ExpiryDate');
    };
    expect(expiry({})).toBe('2026-01-03T04:05:06Z');
    expect(expiry({ expiry: 'relative' })).toBe('PT3661S');
    expect(expiry({ expiry: 'none' })).toBeUndefined();
  });

  it.each<[string, Partial<SubmitOptions>, string, string]>([
    ['385911234567', { senderForm: 'number', numberSuffix: '/TYPE=PLMN' }, 'Number', '+385911234567/TYPE=PLMN'],
    ['12345', { senderForm: 'number' }, 'Number', '12345'],
    ['385911234567', { senderForm: 'shortCode' }, 'ShortCode', '385911234567'],
    [
      '385911234567',
      { numberForm: 'rfc2822', plus: false, numberSuffix: '@mms.example' },
      'RFC2822Address',
      '385911234567@mms.example',
    ],
    ['News', { senderForm: 'rfc2822' }, 'RFC2822Address', 'News'],
  ])('writes the sender %s under %j as %s %s', (sender, config, name, value) => {
    const address = childOf(body(config, { sender }), 'SenderIdentification', 'SenderAddress')?.children[0];
    expect([address?.name, address?.text]).toEqual([name, value]);
  });

  it('says when the carrier may deliver at the earliest, where it has the message before that', () => {
    const encode = createSubmitEncoder(options, () => 'b');
    const early = encode({ ...submission, earliestAt: Date.UTC(2026, 0, 2, 3, 4, 5) }).opening.toString();
    expect(early).toContain(
      '<mm7:EarliestDeliveryTime>2026-01-02T03:04:05Z</mm7:EarliestDeliveryTime><mm7:ExpiryDate>',
    );
    // The same content, and another message of it.
    expect(encode(submission).opening.toString()).not.toContain('EarliestDeliveryTime');
  });

  it('may name no sender at all', () => {
    expect(childOf(body({ senderForm: 'omit' }), 'SenderIdentification', 'SenderAddress')).toBeUndefined();
  });

  it('without a presentation is a multipart/mixed of the media alone', () => {
    const encoded = encode({}, { profile: { smil: 'none' } });
    const soap = readSoap(encoded.contentType, bytesOf(encoded));
    if (!soap.ok) throw new Error(soap.fault);
    const content = soap.message.attachments[0]!;
    expect(content.contentType).toMatch(/^multipart\/mixed; boundary=/);
    const inner = readMultipart(content.contentType, content.bytes);
    expect(inner.ok && inner.parts.map((part) => part.contentId)).toEqual(['text_1.txt', 'fish.jpg']);
  });
});

describe('what was submitted before', () => {
  const earlier = { transactionId: 'i1-42-cancel', carrierMessageId: '<a&b@mmsc>', sender: '385911234567' };

  it('is called back by CancelReq, in the order of the schema', () => {
    const read = readSoap('text/xml', Buffer.from(printCancel(options, earlier)));
    if (!read.ok) throw new Error(read.fault);
    expect(read.message).toMatchObject({ operation: 'CancelReq', transactionId: 'i1-42-cancel', namespace: REL6 });
    expect(read.message.body.children.map((child) => child.name)).toEqual([
      'MM7Version',
      'SenderIdentification',
      'MessageID',
    ]);
    expect(textOf(read.message.body, 'MessageID')).toBe('<a&b@mmsc>');
    expect(textOf(read.message.body, 'SenderIdentification', 'VASPID')).toBe('acme');
  });

  it('is moved by ReplaceReq, in the order of the schema', () => {
    const text = printReplace(
      { ...options, readReply: false, distributionIndicator: true },
      { ...earlier, earliestAt: Date.UTC(2026, 5, 1) },
    );
    const read = readSoap('text/xml', Buffer.from(text));
    if (!read.ok) throw new Error(read.fault);
    expect(read.message.operation).toBe('ReplaceReq');
    expect(read.message.body.children.map((child) => child.name)).toEqual(
      'MM7Version SenderIdentification MessageID ServiceCode ReadReply EarliestDeliveryTime DistributionIndicator'.split(
        ' ',
      ),
    );
    expect(textOf(read.message.body, 'EarliestDeliveryTime')).toBe('2026-06-01T00:00:00Z');
  });
});
