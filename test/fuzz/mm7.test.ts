/**
 * Hostile bytes against everything that reads MM7: answers to submissions, calls of MMSCs, the sandbox's MMSC, challenges of HTTP
 * Digest. Cases are made from sound documents (bytes changed, cut, doubled, moved, spliced from another); runs and seeds: `generator.ts`.
 */
import { describe, expect, it } from 'vitest';
import { type CodeTables, isGranted, outcomeOf } from '../../src/carriers/mm7/answer.ts';
import { type Caller, readDeliver, readReadReply, readReport } from '../../src/carriers/mm7/calls.ts';
import { createDigest } from '../../src/carriers/mm7/digest.ts';
import { readSoap } from '../../src/carriers/mm7/soap.ts';
import { createSubmitEncoder, printCancel } from '../../src/carriers/mm7/submit.ts';
import { printDeliver, printReport, readSubmit } from '../../src/carriers/sandbox/peer.ts';
import { ERRORS } from '../../src/domain/codes.ts';
import type { Submission } from '../../src/domain/submission.ts';
import { Dice, many, RUNS } from './generator.ts';

const TIMEOUT_MS = 60_000 + RUNS * 2;
const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';

const submission: Submission = {
  transactionId: 'tx-1',
  sender: '441134960000',
  recipients: ['441134960001', '441134960002'],
  subject: 'Hi & <bye>',
  parts: [
    { contentId: 't.txt', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('hello') },
    { contentId: 'p.jpg', contentType: 'image/jpeg', bytes: Buffer.from([0xff, 0xd8, 13, 10, 45, 45]) },
  ],
  validUntil: Date.UTC(2026, 0, 3),
};

interface Case {
  contentType: string;
  body: Buffer;
}

const soap = (body: string): string =>
  `<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><m:TransactionID xmlns:m="${NS}" s:mustUnderstand="1">tx-1</m:TransactionID></s:Header><s:Body>${body}</s:Body></s:Envelope>`;
const xml = (body: string): Case => ({ contentType: 'text/xml; charset=utf-8', body: Buffer.from(soap(body)) });

const ANSWERS: Case[] = [
  xml(
    `<SubmitRsp xmlns="${NS}"><MM7Version>6.8.0</MM7Version><Status><StatusCode>1000</StatusCode><StatusText>Success</StatusText></Status><MessageID>mid-1</MessageID></SubmitRsp>`,
  ),
  xml(
    `<m:SubmitRsp xmlns:m="${NS}"><m:Status><m:StatusCode>1100</m:StatusCode><m:Details><m:Number>+441134960001</m:Number><m:StatusCode>2003</m:StatusCode></m:Details></m:Status><m:MessageID>m</m:MessageID></m:SubmitRsp>`,
  ),
  xml(
    `<s:Fault><faultcode>s:Server</faultcode><faultstring>no</faultstring><detail><RSErrorRsp xmlns="${NS}"><Status><StatusCode>4006</StatusCode></Status></RSErrorRsp></detail></s:Fault>`,
  ),
  xml(`<CancelRsp xmlns="${NS}"><Status><StatusCode>1000</StatusCode></Status></CancelRsp>`),
];

const deliver = printDeliver({
  transactionId: 'd-1',
  sender: '491700000001',
  to: ['441134960000', '12345'],
  cc: ['441134960009'],
  subject: 'Grüße',
  at: Date.UTC(2026, 0, 1),
  parts: submission.parts,
  smil: '<smil><body/></smil>',
});
const CALLS: Case[] = [
  xml(
    `<DeliveryReportReq xmlns="${NS}"><MM7Version>6.8.0</MM7Version><MessageID>&lt;ff01@x&gt;</MessageID><Recipient><To><Number>+441134960001/TYPE=PLMN</Number></To></Recipient><Sender><ShortCode>12345</ShortCode></Sender><Date>2026-01-01T00:00:00Z</Date><MMStatus>Rejected</MMStatus><MMStatusExtension>RejectionByOtherRS</MMStatusExtension></DeliveryReportReq>`,
  ),
  xml(
    `<ReadReplyReq xmlns="${NS}"><MessageID>1</MessageID><MMStatus>Read</MMStatus><TimeStamp>x</TimeStamp></ReadReplyReq>`,
  ),
  {
    contentType: 'text/xml',
    body: Buffer.from(
      printReport({
        transactionId: 'r-1',
        namespace: NS,
        version: '6.8.0',
        messageId: 'm',
        recipient: { kind: 'Number', text: '+1' },
        sender: { kind: 'ShortCode', text: '1' },
        at: 0,
        status: 'Retrieved',
      }),
    ),
  },
  { contentType: deliver.contentType, body: Buffer.from(deliver.body) },
];

const encode = createSubmitEncoder(
  { namespace: NS, version: '6.8.0', vaspId: 'v', transferEncoding: 'base64' },
  () => 'pc-0',
);
const request = encode(submission);
const SUBMITS: Case[] = [
  { contentType: request.contentType, body: Buffer.concat([request.opening, request.closing]) },
  {
    contentType: 'text/xml',
    body: Buffer.from(
      printCancel(
        { namespace: NS, version: '6.8.0', vaspId: 'v', transferEncoding: 'binary' },
        { transactionId: 'c', carrierMessageId: 'm', sender: '1' },
      ),
    ),
  },
];

const TOKENS = [
  '<',
  '>',
  '</',
  '/>',
  '&',
  '&amp;',
  '&#0;',
  '&#x10ffff;',
  '&x;',
  ']]>',
  '<![CDATA[',
  '<!DOCTYPE x [<!ENTITY a "b">]>',
  '<!--',
  '<?x?>',
  '\r\n',
  '\n',
  '--',
  '--pc-0',
  '--pc-0--',
  'Content-Type: multipart/mixed; boundary=b',
  'Content-Transfer-Encoding: base64',
  '\u0000',
  '\ufeff',
  '\ud800',
  '9'.repeat(400),
  'Status',
  'StatusCode',
  '__proto__',
  'constructor',
  'cid:',
  '%',
  '%ff',
  'xmlns=""',
  ' xmlns:m="urn:x"',
  '1000',
  '1100',
  '99999',
  '-1',
  '1e9',
  '+',
  '/TYPE=PLMN',
  '@',
  '<a>'.repeat(70),
  'é'.repeat(200),
];

class Spoiler extends Dice {
  /** A case that has gone wrong. */
  spoilt(cases: readonly Case[]): Case {
    const { contentType, body } = this.of(cases);
    let bytes = Buffer.from(body);
    let type = contentType;
    for (let n = this.below(6); n >= 0; n--) {
      const at = this.below(bytes.length + 1);
      const end = Math.min(bytes.length, at + this.below(60));
      switch (this.below(8)) {
        case 0:
          if (at < bytes.length) bytes[at] = this.below(256);
          break;
        case 1:
          bytes = bytes.subarray(0, at);
          break;
        case 2:
          bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
          break;
        case 3:
          bytes = Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
          break;
        case 4:
        case 5:
          bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(this.of(TOKENS)), bytes.subarray(at)]);
          break;
        case 6: {
          const other = this.of(cases).body;
          const from = this.below(other.length);
          bytes = Buffer.concat([
            bytes.subarray(0, at),
            other.subarray(from, from + this.below(300)),
            bytes.subarray(at),
          ]);
          break;
        }
        default:
          type =
            this.below(2) === 0 ? this.of(cases).contentType : type.slice(0, this.below(type.length)) + this.of(TOKENS);
      }
      bytes = Buffer.from(bytes);
    }
    return { contentType: type, body: bytes };
  }
}

const WIRE_NAME = /^[A-Za-z0-9._-]{1,64}$/;

describe('whatever comes', () => {
  it('as an answer gets an outcome that is whole', { timeout: TIMEOUT_MS }, async () => {
    const own: CodeTables = { statusCodes: { 2003: 'retry' }, errors: { 2003: 15003 } };
    const seen = new Set<string>();
    await many(Spoiler, RUNS, (generator) => {
      const { contentType, body } = generator.spoilt(ANSWERS);
      const status = generator.of([200, 202, 400, 401, 413, 429, 500, 502, 503]);
      const retryAfter = generator.of([undefined, '5', 'x', '-1', '1e99']);
      const answer = { status, contentType, retryAfter, body };
      const outcome = outcomeOf(answer, submission, 0, own);
      isGranted(answer);
      seen.add(outcome.kind);
      if ('error' in outcome && outcome.error) {
        if (!Object.hasOwn(ERRORS, outcome.error.id)) throw new Error(`error ${outcome.error.id}`);
        if ((outcome.error.words ?? '').length > 200) throw new Error('words too long');
      }
      if (outcome.kind === 'accepted') {
        if (outcome.carrierMessageId === '') throw new Error('accepted without an id');
        for (const { recipient } of outcome.refused ?? []) {
          if (!submission.recipients.includes(recipient)) throw new Error(`refused ${recipient}`);
        }
        if (outcome.refused?.length === submission.recipients.length) throw new Error('accepted for nobody');
      }
      if ('retryAfterMs' in outcome && outcome.retryAfterMs !== undefined) {
        if (!(outcome.retryAfterMs > 0 && outcome.retryAfterMs <= 3_600_000)) throw new Error('absurd pause');
      }
    });
    // The generator reaches both sound and broken documents.
    expect([...seen].sort()).toEqual(['accepted', 'deferred', 'refused', 'throttled', 'unknown']);
  });

  it('as a call is read into bounded words, or refused in words', { timeout: TIMEOUT_MS }, async () => {
    const seen = new Map<string, number>();
    await many(Spoiler, RUNS, (generator, n) => {
      const { contentType, body } = generator.spoilt(CALLS);
      const caller: Caller = { name: 'c', reportIdForm: generator.of(['as-is', 'hex-to-dec', 'dec-to-hex']) };
      const read = readSoap(contentType, body, { size: 1_000_000 });
      const note = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1);
      if (!read.ok) {
        if (read.fault === '' || read.fault.length > 300) throw new Error('no words');
        return note('unreadable');
      }
      const { message } = read;
      for (const report of [readReport(caller, message.body), readReadReply(caller, message.body)]) {
        if (report === null || typeof report === 'string') continue;
        const own = 'report' in report ? report.report : report;
        if (own.carrierMessageId.length > 1_500 || own.words.length > 200) throw new Error('too long');
        if (own.addresses.length > 500 || own.addresses.some((one) => one.length > 100)) throw new Error('addresses');
        note('report');
      }
      const inbound = readDeliver(caller, message);
      if (typeof inbound === 'string') return note('refused');
      if (inbound.id === '' || inbound.id.length > 500) throw new Error(`id of ${inbound.id.length}`);
      const names = inbound.parts.map((part) => part.contentId);
      if (new Set(names.map((name) => name.toLowerCase())).size !== names.length) throw new Error('names twice');
      for (const name of names) if (!WIRE_NAME.test(name)) throw new Error(`name ${JSON.stringify(name)}`);
      for (const { contentType: type } of inbound.parts) {
        if (!/^[\x20-\x7e]+$/.test(type)) throw new Error(`type ${JSON.stringify(type)}`);
      }
      // The same bytes, the same id: a repetition is one.
      if (n % 10 === 0) {
        const again = readSoap(contentType, body, { size: 1_000_000 });
        const twice = again.ok ? readDeliver(caller, again.message) : '';
        if (typeof twice === 'string' || twice.id !== inbound.id) throw new Error('another id');
      }
      return note('inbound');
    });
    for (const what of ['unreadable', 'report', 'refused', 'inbound']) expect(seen.get(what), what).toBeGreaterThan(0);
  });

  it('at the sandbox’s MMSC is taken or refused with a status', { timeout: TIMEOUT_MS }, async () => {
    const seen = new Set<string>();
    await many(Spoiler, RUNS, (generator) => {
      const { contentType, body } = generator.spoilt(SUBMITS);
      const read = readSubmit(contentType, body, 0);
      if (!read.ok) {
        if (!(read.problem.code >= 2000 && read.problem.code < 5000)) throw new Error(`code ${read.problem.code}`);
        seen.add('refused');
      } else seen.add('amend' in read ? 'amend' : 'taken');
    });
    expect([...seen].sort()).toEqual(['amend', 'refused', 'taken']);
  });

  it('as a challenge is answered or not, on one line', { timeout: TIMEOUT_MS }, async () => {
    const sound: Case[] = [
      'Digest realm="r", nonce="n", qop="auth,auth-int", algorithm=SHA-256, opaque="o"',
      'Basic realm="x", Digest realm="r\\"", nonce="n2", algorithm=MD5-sess, qop=auth',
      'Digest nonce=n3',
    ].map((text) => ({ contentType: '', body: Buffer.from(text) }));
    let answered = 0;
    await many(Spoiler, RUNS, (generator) => {
      const digest = createDigest('ü"ser', 'pass', (n) => new Uint8Array(n));
      const value = generator.spoilt(sound).body.toString('latin1');
      digest.informed(value);
      if (!digest.challenged([value], null)) return;
      answered++;
      const shown = digest.authorize('POST', '/mm7');
      if (shown === null) throw new Error('challenged and silent');
      if (shown.value.includes('pass')) throw new Error('the password');
      if (/[\r\n]/.test(shown.value) && !/[\r\n]/.test(value)) throw new Error('a line break of our own');
    });
    expect(answered).toBeGreaterThan(RUNS / 20);
  });
});
