import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type TestEnv, testEnv } from '../../env.ts';
import { childOf, readXml, textOf, type XmlElement } from '../../xml.ts';
import { startSandbox } from './sandbox.ts';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-5-MM7-1-2';
const PICTURE = Buffer.from([0xff, 0xd8, 0xff, 0, 13, 10, 45, 45, 0x80]);

interface Report {
  transactionId: string;
  messageId: string;
  recipient: string;
  sender: string;
  date: string;
  status: string;
  version: string;
  namespace: string;
}

let dir: string;
let env: TestEnv;
let sandbox: Awaited<ReturnType<typeof startSandbox>>;
let receiver: Server;
let reports: Report[];
/** Status codes of the next answers to reports; then 1000. 0 = no answer at all. */
let answers: number[];
let opened: { close(): Promise<void> }[];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sandbox-'));
  env = testEnv();
  reports = [];
  answers = [];
  opened = [];
  receiver = createServer((request, response) => {
    void bodyOf(request).then((body) => {
      const code = answers.shift() ?? 1000;
      if (code === 0) return response.destroy();
      const report = readReport(body);
      if (code === 1000) reports.push(report);
      return response.end(
        `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID xmlns="${NS}">${report.transactionId}` +
          `</TransactionID></e:Header><e:Body><DeliveryReportRsp xmlns="${NS}"><MM7Version>5.3.0</MM7Version><Status><StatusCode>` +
          `${code}</StatusCode><StatusText>x</StatusText></Status></DeliveryReportRsp></e:Body></e:Envelope>`,
      );
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  sandbox = await open(join(dir, 'sandbox.db'));
});

afterEach(async () => {
  for (const one of opened) await one.close();
  receiver.close();
  receiver.closeAllConnections();
  rmSync(dir, { recursive: true, force: true });
});

async function open(file: string, its: TestEnv = env): Promise<typeof sandbox> {
  const reportUrl = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/mm7/sandbox`;
  const made = await startSandbox({ host: '127.0.0.1', port: 0, file, reportUrl, env: its });
  opened.push(made);
  return made;
}

async function bodyOf(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function xml(bytes: string | Uint8Array): XmlElement {
  const read = readXml(bytes);
  if (!read.ok) throw new Error(read.fault);
  return read.root;
}

function readReport(body: Buffer): Report {
  const root = xml(body);
  const report = childOf(root, 'Body', 'DeliveryReportReq') as XmlElement;
  return {
    transactionId: textOf(root, 'Header', 'TransactionID') ?? '',
    messageId: textOf(report, 'MessageID') ?? '',
    recipient: textOf(report, 'Recipient', 'Number') ?? '',
    sender: textOf(report, 'Sender', 'Number') ?? '',
    date: textOf(report, 'Date') ?? '',
    status: textOf(report, 'MMStatus') ?? '',
    version: textOf(report, 'MM7Version') ?? '',
    namespace: report.uri,
  };
}

interface Mms {
  tx?: string;
  to?: string[];
  cc?: string[];
  extra?: string;
  report?: boolean;
  text?: string;
}

let counter = 0;

/** A SubmitReq as a VASP of release 5 would write it, with elements in no particular order. */
function submitReq({ tx, to = ['491700000001'], cc = [], extra = '', report = true, text = 'Grüße' }: Mms): {
  headers: Record<string, string>;
  body: Buffer;
} {
  const number = (msisdn: string): string => `<Number>+${msisdn}/TYPE=PLMN</Number>`;
  const soap =
    `<?xml version="1.0" encoding="UTF-8"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/"><soap:Header>` +
    `<TransactionID xmlns="${NS}" soap:mustUnderstand="1">\n ${tx ?? `tx-${++counter}`} \n</TransactionID></soap:Header><soap:Body>` +
    `<SubmitReq xmlns="${NS}"><MM7Version>5.3.0</MM7Version><DeliveryReport>${report}</DeliveryReport><SenderIdentification>` +
    `<VASPID>me</VASPID><VASID>news</VASID><SenderAddress><Number>+441134960000</Number></SenderAddress></SenderIdentification>` +
    `<Recipients>${to.length > 0 ? `<To>${to.map(number).join('')}</To>` : ''}${cc.length > 0 ? `<Cc>${cc.map(number).join('')}</Cc>` : ''}</Recipients>` +
    `${extra}<Subject>A &amp; B 😀</Subject><Content href="cid:all%40x" allowAdaptations="true"/></SubmitReq></soap:Body></soap:Envelope>`;
  const body = Buffer.concat([
    Buffer.from(
      `--out\r\nContent-Type: text/xml; charset=utf-8\r\nContent-ID: <soap>\r\n\r\n${soap}\r\n--out\r\n` +
        `Content-Type: multipart/related; boundary=in; type="application/smil"; start="<smil>"\r\nContent-ID: <all@x>\r\n\r\n` +
        `--in\r\nContent-Type: application/smil\r\nContent-ID: <smil>\r\n\r\n<smil><body/></smil>\r\n` +
        `--in\r\nContent-Type: text/plain; charset=utf-8\r\nContent-ID: <words>\r\n\r\n${text}\r\n` +
        `--in\r\nContent-Type: image/jpeg; name=p.jpg\r\nContent-Location: p.jpg\r\nContent-Transfer-Encoding: base64\r\n\r\n` +
        `${PICTURE.toString('base64')}\r\n--in--\r\n\r\n--out--\r\n`,
    ),
  ]);
  return {
    headers: { 'content-type': 'multipart/related; boundary="out"; type="text/xml"; start="<soap>"', soapaction: '""' },
    body,
  };
}

interface Answer {
  http: number;
  code: string | undefined;
  messageId: string | undefined;
  transactionId: string | undefined;
  namespace: string | undefined;
  version: string | undefined;
  details: XmlElement | undefined;
  fault: boolean;
}

async function post(headers: Record<string, string>, body: Buffer | string, at = sandbox): Promise<Answer> {
  const response = await fetch(`${at.url}/mm7`, { method: 'POST', headers, body });
  const root = xml(await response.text());
  const operation = childOf(root, 'Body')?.children[0];
  const fault = operation?.name === 'Fault';
  const rsp = fault ? childOf(operation, 'detail', 'RSErrorRsp') : operation;
  return {
    http: response.status,
    code: rsp && textOf(rsp, 'Status', 'StatusCode'),
    messageId: rsp && textOf(rsp, 'MessageID'),
    transactionId: textOf(root, 'Header', 'TransactionID'),
    namespace: rsp?.uri,
    version: rsp && textOf(rsp, 'MM7Version'),
    details: rsp && childOf(rsp, 'Status', 'Details'),
    fault,
  };
}

function submit(mms: Mms = {}, at = sandbox): Promise<Answer> {
  const { headers, body } = submitReq(mms);
  return post(headers, body, at);
}

async function get<T>(path: string, at = sandbox): Promise<T> {
  return (await (await fetch(at.url + path)).json()) as T;
}

interface Message {
  from: string;
  to: string[];
  subject: string;
  receivedAt: string;
  id: string;
  channel: string;
  parts: { contentType: string; contentId: string; size: number; sha256: string; text?: string; url: string }[];
}

async function inbox(msisdn: string, at = sandbox): Promise<Message[]> {
  return (await get<{ messages: Message[] }>(`/sandbox/handsets/${msisdn}/messages`, at)).messages;
}

async function counters(at = sandbox): Promise<Record<string, number>> {
  return (await get<{ counters: Record<string, number> }>('/sandbox', at)).counters;
}

/** Waits for real sockets and files (never for time) until it holds. */
async function eventually<T>(look: () => Promise<T>, good: (seen: T) => boolean): Promise<T> {
  for (let tries = 0; ; tries++) {
    const seen = await look();
    if (good(seen)) return seen;
    if (tries > 20_000) throw new Error(`never came: ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Passes `ms` of time and waits until so many reports (in all) have been answered and noted. */
async function pass(ms: number, reported: number, at = sandbox): Promise<void> {
  await env.clock.advance(ms);
  await eventually(
    () => counters(at),
    (seen) => seen.reported === reported,
  );
}

const statuses = (): string[] => reports.map((report) => report.status);

describe('a submission', () => {
  it('is answered in the words of its VASP, lies on the handset after a second, and is then reported', async () => {
    const answer = await submit({ tx: 'tx one', to: ['491700000001'], cc: ['491700000002'] });
    expect(answer).toMatchObject({ http: 200, code: '1000', transactionId: 'tx one', namespace: NS, version: '5.3.0' });
    expect(answer.messageId).toMatch(/^[0-9a-f]{24}$/);
    await env.clock.advance(999);
    expect(await inbox('491700000001')).toEqual([]);
    await pass(1, 2);
    const [message] = await inbox('491700000001');
    expect(message).toMatchObject({
      channel: 'MMS',
      id: answer.messageId,
      from: '441134960000',
      to: ['491700000001', '491700000002'],
      subject: 'A & B 😀',
      receivedAt: '2026-01-01T00:00:01.000+0000',
    });
    expect(message?.parts.map(({ url, ...part }) => part)).toEqual([
      expect.objectContaining({ contentType: 'application/smil', contentId: 'smil', text: '<smil><body/></smil>' }),
      expect.objectContaining({ contentType: 'text/plain; charset=utf-8', contentId: 'words', size: 7, text: 'Grüße' }),
      {
        contentType: 'image/jpeg',
        contentId: 'p.jpg',
        size: PICTURE.length,
        sha256: createHash('sha256').update(PICTURE).digest('hex'),
      },
    ]);
    const image = await fetch(message?.parts[2]?.url ?? '');
    expect(image.headers.get('content-type')).toBe('image/jpeg');
    expect(Buffer.from(await image.arrayBuffer())).toEqual(PICTURE);
    expect(await inbox('491700000002')).toHaveLength(1);
    expect(reports).toHaveLength(2);
    expect(reports.find((report) => report.recipient.includes('0001'))).toEqual({
      transactionId: `${answer.messageId}-0-0`,
      messageId: answer.messageId,
      recipient: '+491700000001/TYPE=PLMN',
      sender: '+441134960000',
      date: '2026-01-01T00:00:01.000Z',
      status: 'Retrieved',
      version: '5.3.0',
      namespace: NS,
    });
    expect(await counters()).toMatchObject({ taken: 1, delivered: 2, reported: 2, pending: 0, messagesOnHandsets: 2 });
  });

  it('that asks for no reports is delivered without one', async () => {
    await submit({ report: false });
    await env.clock.advance(1000);
    await eventually(counters, (seen) => seen.pending === 0);
    expect(await inbox('491700000001')).toHaveLength(1);
    expect(reports).toEqual([]);
  });

  it('waits for its EarliestDeliveryTime and is never delivered after its ExpiryDate', async () => {
    await submit({ extra: '<EarliestDeliveryTime>2026-01-01T01:00:00Z</EarliestDeliveryTime>' });
    await submit({ to: ['491700000002'], extra: '<ExpiryDate>2025-12-31T23:00:00+00:00</ExpiryDate>' });
    await submit({ to: ['491700009904'], extra: '<ExpiryDate>PT2S</ExpiryDate>' });
    await pass(1000, 2);
    expect(statuses().sort()).toEqual(['Deferred', 'Expired']);
    await pass(2000, 3);
    expect(statuses().at(-1)).toBe('Expired');
    expect([...(await inbox('491700000002')), ...(await inbox('491700009904'))]).toEqual([]);
    expect(await inbox('491700000001')).toEqual([]);
    await pass(3_598_000, 4);
    expect(await inbox('491700000001')).toHaveLength(1);
  });

  it('with a TransactionID that was taken is dropped, counted, and answered like the first', async () => {
    const first = await submit({ tx: 'again' });
    const second = await submit({ tx: 'again', text: 'something else' });
    expect(second).toMatchObject({ code: '1000', messageId: first.messageId, transactionId: 'again' });
    await pass(5000, 1);
    expect(await inbox('491700000001')).toHaveLength(1);
    expect(await counters()).toMatchObject({ taken: 1, repeated: 1 });
  });

  it('sent many times at the same moment under one TransactionID leaves one copy', async () => {
    const all = await Promise.all(Array.from({ length: 20 }, () => submit({ tx: 'burst' })));
    expect(new Set(all.map((answer) => answer.messageId)).size).toBe(1);
    await pass(1000, 1);
    expect(await counters()).toMatchObject({ taken: 1, repeated: 19, delivered: 1 });
  });

  it('carries its text in any charset', async () => {
    const { headers, body } = submitReq({ text: 'PLACE' });
    const latin = Buffer.from(
      body
        .toString('latin1')
        .replace('charset=utf-8\r\nContent-ID: <words>', 'charset=ISO-8859-1\r\nContent-ID: <words>')
        .replace('PLACE', 'Gr\u00fc\u00dfe'),
      'latin1',
    );
    await post(headers, latin);
    await pass(1000, 1);
    expect((await inbox('491700000001'))[0]?.parts[1]).toMatchObject({ text: 'Grüße', size: 5 });
  });
});

describe('the last four digits', () => {
  it('9901: the address is not found at submit', async () => {
    const answer = await submit({ to: ['491700009901'] });
    expect(answer).toMatchObject({ http: 200, code: '2003', fault: false, messageId: undefined });
    await env.clock.advance(10_000);
    expect(await counters()).toMatchObject({ taken: 0, refused: 1, pending: 0 });
  });

  it('9911: a handset without MMS refuses it at submit, alone or in a group', async () => {
    const answer = await submit({ to: ['491700009911'] });
    expect(answer).toMatchObject({ http: 200, code: '2519', fault: false, messageId: undefined });
    const group = await submit({ tx: 'group', to: ['491700000001', '491700009901', '491700009911'] });
    expect(group.code).toBe('1100');
    const refused = group.details?.children.map((one) => [textOf(one, 'Number'), textOf(one, 'StatusCode')]);
    expect(refused?.map(([number, code]) => `${number?.slice(1, 13)} ${code}`)).toEqual([
      '491700009901 2003',
      '491700009911 2519',
    ]);
    await pass(1000, 1);
    expect(statuses()).toEqual(['Retrieved']);
    expect(await inbox('491700009911')).toEqual([]);
    expect(await counters()).toMatchObject({ taken: 1, refused: 1, pending: 0 });
  });

  it.each([
    ['9902', 'Rejected'],
    ['9903', 'Expired'],
  ])('%s: reported as %s, nothing on the handset', async (digits, status) => {
    await submit({ to: [`49170000${digits}`] });
    await pass(1000, 1);
    expect(statuses()).toEqual([status]);
    expect(await inbox(`49170000${digits}`)).toEqual([]);
    expect(await counters()).toMatchObject({ pending: 0, contentBytes: 0 });
  });

  it('9904: deferred first, on the handset only when it is retrieved', async () => {
    await submit({ to: ['491700009904'] });
    await pass(1000, 1);
    expect(statuses()).toEqual(['Deferred']);
    expect(await inbox('491700009904')).toEqual([]);
    await pass(2000, 2);
    expect(statuses()).toEqual(['Deferred', 'Retrieved']);
    expect(await inbox('491700009904')).toHaveLength(1);
  });

  it('9905: taken, then silence for ever', async () => {
    expect((await submit({ to: ['491700009905'] })).code).toBe('1000');
    await env.clock.advance(3 * 86_400_000);
    expect(await counters()).toMatchObject({ taken: 1, pending: 0, reported: 0 });
    expect(await inbox('491700009905')).toEqual([]);
  });

  it('9906: busy twice whether or not the TransactionID changes, then fine; the next message begins anew', async () => {
    const to = ['491700009906'];
    expect((await submit({ to, tx: 'same' })).code).toBe('4006');
    expect((await submit({ to, tx: 'same' })).code).toBe('4006');
    expect((await submit({ to, tx: 'same' })).code).toBe('1000');
    expect((await submit({ to, tx: 'a' })).code).toBe('4006');
    expect((await submit({ to, tx: 'b' })).code).toBe('4006');
    expect((await submit({ to, tx: 'c' })).code).toBe('1000');
    await pass(1000, 2);
    expect(await inbox('491700009906')).toHaveLength(2);
    expect(await counters()).toMatchObject({ busy: 4, taken: 2, repeated: 0 });
  });

  it('9907: the connection is cut after the message was taken; its repetition is answered, one copy', async () => {
    const to = ['491700009907'];
    await expect(submit({ to, tx: 'cut' })).rejects.toThrow('fetch failed');
    expect(await counters()).toMatchObject({ taken: 1, cut: 1, repeated: 0 });
    await pass(1000, 1);
    const answer = await submit({ to, tx: 'cut' });
    expect(answer).toMatchObject({ code: '1000', messageId: reports[0]?.messageId });
    await env.clock.advance(60_000);
    expect(await inbox('491700009907')).toHaveLength(1);
    expect(await counters()).toMatchObject({ taken: 1, cut: 1, repeated: 1, reported: 1 });
  });

  it('9908: each report twice, the later one first', async () => {
    await submit({ to: ['491700009908'] });
    await pass(1000, 1);
    expect(statuses()).toEqual(['Retrieved', 'Retrieved']);
    await pass(200, 2);
    expect(statuses()).toEqual(['Retrieved', 'Retrieved', 'Deferred', 'Deferred']);
    expect(new Set(reports.map((report) => report.transactionId)).size).toBe(4);
    expect(await inbox('491700009908')).toHaveLength(1);
  });

  it('9909: the answer takes five seconds', async () => {
    const answer = submit({ to: ['491700009909'] });
    let done = false;
    void answer.then(() => {
      done = true;
    });
    await eventually(counters, (seen) => seen.taken === 1);
    await env.clock.advance(4999);
    await counters();
    expect(done).toBe(false);
    await env.clock.advance(1);
    expect((await answer).code).toBe('1000');
    expect(reports).toEqual([]);
    await pass(1000, 1);
    expect(await inbox('491700009909')).toHaveLength(1);
  });

  it('9910: garbage in answer to a message that was taken; its repetition is answered, one copy', async () => {
    const { headers, body } = submitReq({ to: ['491700009910'], tx: 'bin' });
    const first = await fetch(`${sandbox.url}/mm7`, { method: 'POST', headers, body });
    expect(first.status).toBe(200);
    expect(readXml(new Uint8Array(await first.arrayBuffer())).ok).toBe(false);
    expect((await submit({ to: ['491700009910'], tx: 'bin' })).code).toBe('1000');
    await pass(1000, 1);
    expect(await inbox('491700009910')).toHaveLength(1);
  });

  it('count for each member of a group; refused members are named in a partial success', async () => {
    const to = ['491700000001', '491700009901', '491700009902', '491700009904'];
    const answer = await submit({ to, tx: 'group' });
    expect(answer).toMatchObject({ http: 200, code: '1100' });
    const refused = answer.details?.children.map((one) => [textOf(one, 'Number'), textOf(one, 'StatusCode')]);
    expect(refused).toEqual([['+491700009901/TYPE=PLMN', '2003']]);
    expect(await submit({ to, tx: 'group' })).toMatchObject({ code: '1100', messageId: answer.messageId });
    await pass(1000, 3);
    await pass(2000, 4);
    expect(reports.map((report) => `${report.recipient.slice(9, 13)} ${report.status}`).sort()).toEqual([
      '0001 Retrieved',
      '9902 Rejected',
      '9904 Deferred',
      '9904 Retrieved',
    ]);
    expect((await inbox('491700000001'))[0]?.to).toEqual(to);
    expect(await inbox('491700009901')).toEqual([]);
    const none = await submit({ to: ['491700009901', '491800009901'] });
    expect(none).toMatchObject({ code: '2003', messageId: undefined });
  });
});

describe('a report', () => {
  it('is told again until it is answered with 1000, always under the same TransactionID', async () => {
    answers = [0, 2005, 3000];
    const { messageId } = await submit();
    await env.clock.advance(1000);
    for (const [n, pause] of [1000, 2000, 5000].entries()) {
      await eventually(counters, (seen) => seen.reportsInVain === n + 1);
      await env.clock.advance(pause - 1);
      expect(reports).toEqual([]);
      await env.clock.advance(1);
    }
    await eventually(counters, (seen) => seen.reported === 1);
    expect(reports.map((report) => [report.messageId, report.date])).toEqual([[messageId, '2026-01-01T00:00:01.000Z']]);
    expect(await inbox('491700000001')).toHaveLength(1);
    expect(env.lines.filter((line) => line.level === 'warn')).toHaveLength(1);
  });

  it('is given up after 48 hours', async () => {
    answers = Array.from({ length: 10_000 }, () => 3000);
    await submit({ to: ['491700009904'] });
    await env.clock.advance(1000);
    for (let tries = 1; ; tries++) {
      const seen = await eventually(counters, (now) => now.reportsInVain === tries || now.reportsGivenUp === 1);
      if (seen.reportsGivenUp === 1) break;
      await env.clock.advance(1000 * ([1, 2, 5, 10, 30, 60, 120][tries - 1] ?? 300));
    }
    const hours = (env.clock.now() - Date.parse('2026-01-01T00:00:01Z')) / 3_600_000;
    expect(hours).toBeGreaterThanOrEqual(48);
    expect(hours).toBeLessThan(48.1);
    answers = [];
    await pass(2000, 1);
    expect(statuses()).toEqual(['Retrieved']);
  });
});

describe('after a crash', () => {
  it('everything that was answered is still known: pending reports go out, a repetition leaves one copy', async () => {
    const file = join(dir, 'sandbox.db');
    const done = await submit({ tx: 'done', to: ['491700000001'] });
    await pass(1000, 1);
    await submit({ tx: 'half', to: ['491700009904'] });
    await pass(1000, 2);
    const fresh = await submit({ tx: 'fresh', to: ['491700000003'] });
    await expect(submit({ tx: 'cut', to: ['491700009907'] })).rejects.toThrow();
    await submit({ tx: 'busy', to: ['491700009906'] });

    // What a killed process leaves: its files as they are.
    const copy = join(dir, 'copy.db');
    for (const end of ['', '-wal']) if (existsSync(file + end)) copyFileSync(file + end, copy + end);
    const later = testEnv({ now: env.clock.now() + 3_600_000, seed: 2 });
    const told = reports.length;
    const again = await open(copy, later);
    await eventually(
      () => counters(again),
      (seen) => seen.pending === 0,
    );
    expect(reports.slice(told).map((report) => report.status)).toEqual(['Retrieved', 'Retrieved', 'Retrieved']);
    for (const [tx, to] of [
      ['done', '491700000001'],
      ['half', '491700009904'],
      ['fresh', '491700000003'],
      ['cut', '491700009907'],
    ] as const) {
      const answer = await submit({ tx, to: [to] }, again);
      expect(answer.code).toBe('1000');
      if (tx === 'done') expect(answer.messageId).toBe(done.messageId);
      if (tx === 'fresh') expect(answer.messageId).toBe(fresh.messageId);
      const messages = await inbox(to, again);
      expect(messages.map((message) => message.id)).toEqual([answer.messageId]);
      expect(Buffer.from(await (await fetch(messages[0]?.parts[2]?.url ?? '')).arrayBuffer())).toEqual(PICTURE);
    }
    expect((await submit({ tx: 'busy', to: ['491700009906'] }, again)).code).toBe('4006');
    expect((await submit({ tx: 'busy', to: ['491700009906'] }, again)).code).toBe('1000');
    expect(await counters(again)).toMatchObject({ taken: 5, repeated: 4, delivered: 4, cut: 1 });
  });

  it('a report whose answer was lost is told again and the handset still has one copy', async () => {
    const file = join(dir, 'sandbox.db');
    answers = [3000];
    await submit();
    await env.clock.advance(1000);
    await eventually(counters, (seen) => seen.reportsInVain === 1);
    const copy = join(dir, 'copy.db');
    for (const end of ['', '-wal']) if (existsSync(file + end)) copyFileSync(file + end, copy + end);
    const again = await open(copy, testEnv({ now: env.clock.now() + 60_000 }));
    await eventually(
      () => counters(again),
      (seen) => seen.reported === 1,
    );
    expect((await inbox('491700000001', again)).map((message) => message.receivedAt)).toEqual([
      '2026-01-01T00:00:01.000+0000',
    ]);
  });

  it('a message deleted from the handset does not come back with a report told again', async () => {
    answers = [3000];
    await submit();
    await env.clock.advance(1000);
    await eventually(counters, (seen) => seen.reportsInVain === 1);
    await fetch(`${sandbox.url}/sandbox/handsets/491700000001/messages`, { method: 'DELETE' });
    await pass(1000, 1);
    expect(await inbox('491700000001')).toEqual([]);
    expect(await counters()).toMatchObject({ contentBytes: 0, pending: 0 });
  });
});

describe('handsets', () => {
  it('show messages oldest first, also under a number with a plus, and are emptied by DELETE', async () => {
    await submit({ text: 'one' });
    await pass(1000, 1);
    await submit({ text: 'two' });
    await pass(1000, 2);
    const texts = (await inbox('%2B491700000001')).map((message) => message.parts[1]?.text);
    expect(texts).toEqual(['one', 'two']);
    expect((await inbox('+491700000001')).length).toBe(2);
    const { handsets } = await get<{ handsets: object[] }>('/sandbox/handsets');
    expect(handsets).toMatchObject([
      { msisdn: '491700000001', messages: 2, lastReceivedAt: '2026-01-01T00:00:02.000+0000' },
    ]);
    const url = (await inbox('491700000001'))[0]?.parts[2]?.url ?? '';
    const path = `${sandbox.url}/sandbox/handsets/491700000001/messages`;
    const gone = await fetch(path, { method: 'DELETE' });
    expect([gone.status, await gone.json()]).toEqual([200, { deleted: 2 }]);
    expect(await inbox('491700000001')).toEqual([]);
    expect((await fetch(url)).status).toBe(404);
    expect(await counters()).toMatchObject({ contentBytes: 0, messagesOnHandsets: 0 });
  });

  it('give a part with script in it as a download that may run nothing', async () => {
    const { headers, body } = submitReq({});
    await post(headers, Buffer.from(body.toString('latin1').replace('image/jpeg', 'image/svg+xml'), 'latin1'));
    await pass(1000, 1);
    const part = await fetch((await inbox('491700000001'))[0]?.parts[2]?.url ?? '', { method: 'HEAD' });
    expect(Object.fromEntries(part.headers)).toMatchObject({
      'content-type': 'image/svg+xml',
      'content-disposition': 'attachment',
      'x-content-type-options': 'nosniff',
      'content-security-policy': "sandbox; default-src 'none'",
    });
  });

  it('give links that begin as the caller reached them', async () => {
    await submit();
    await pass(1000, 1);
    const raw = await rawRequest(
      'GET /sandbox/handsets/491700000001/messages HTTP/1.1\r\nHost: box.example:99\r\nConnection: close\r\n\r\n',
    );
    expect(raw).toContain('"url":"http://box.example:99/sandbox/handsets/491700000001/messages/');
    const bad = await rawRequest(
      'GET /sandbox/handsets/491700000001/messages HTTP/1.1\r\nHost: a"b\r\nConnection: close\r\n\r\n',
    );
    expect(bad).toContain(`"url":"${sandbox.url}/sandbox/`);
  });
});

function rawRequest(request: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(sandbox.url).port), '127.0.0.1', () => socket.write(request));
    let seen = '';
    socket.on('data', (chunk) => {
      seen += chunk.toString('latin1');
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(seen));
  });
}

describe('hostile and mistaken callers', () => {
  it.each([
    ['GET', '/mm7', 405],
    ['GET', '/', 404],
    ['GET', '/sandbox/handsets/abc/messages', 404],
    ['GET', '/sandbox/handsets/1%00/messages', 404],
    ['GET', '/sandbox/handsets/%/messages', 404],
    ['GET', '/sandbox/handsets/123456789012345678901/messages', 404],
    ['PUT', '/sandbox/handsets/491700000001/messages', 405],
    ['DELETE', '/sandbox/handsets', 405],
    ['GET', '/sandbox/handsets/491700000001/messages/00/parts/0', 404],
    ['GET', '/sandbox/handsets/..%2f..%2fetc/messages', 404],
  ])('%s %s is answered %i in JSON', async (method, path, status) => {
    const response = await fetch(sandbox.url + path, { method });
    expect(response.status).toBe(status);
    expect(Object.keys((await response.json()) as object)).toEqual(['error']);
  });

  it('gets 413 for a body over the limit, declared or not, and the connection lives on or ends cleanly', async () => {
    const type = { 'content-type': 'text/xml' };
    const eleven = Buffer.alloc(11 * 1024 * 1024, 32);
    const declared = await fetch(`${sandbox.url}/mm7`, { method: 'POST', headers: type, body: eleven });
    expect(declared.status).toBe(413);
    const huge = await rawRequest(
      'POST /mm7 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 5000000000\r\n\r\n<',
    );
    expect(huge).toMatch(/^HTTP\/1\.1 413 /);
    expect((await submit()).code).toBe('1000');
  });

  it('are answered, however late, when they close their sending half behind the request', async () => {
    const { headers, body } = submitReq({ to: ['491700009909'] });
    const socket = connect(Number(new URL(sandbox.url).port), '127.0.0.1', () => {
      socket.write(`POST /mm7 HTTP/1.1\r\nHost: x\r\nContent-Type: ${headers['content-type']}\r\n`);
      socket.write(`Content-Length: ${body.length}\r\n\r\n`);
      socket.end(body);
    });
    let seen = '';
    socket.on('data', (chunk: Buffer) => {
      seen += chunk.toString('latin1');
    });
    await eventually(counters, ({ taken }) => taken === 1);
    await env.clock.advance(5000);
    await once(socket, 'close');
    expect(seen).toMatch(/^HTTP\/1\.1 200 /);
  });

  it('loses nothing and breaks nothing with a body that ends early', async () => {
    await new Promise<void>((resolve) => {
      const socket = connect(Number(new URL(sandbox.url).port), '127.0.0.1', () => {
        socket.write('POST /mm7 HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 100\r\n\r\n<a>', () =>
          socket.destroy(),
        );
      });
      socket.on('close', () => resolve());
    });
    expect((await submit()).code).toBe('1000');
    expect(env.lines.filter((line) => line.level === 'error')).toEqual([]);
  });

  it('explains itself', async () => {
    const about = await get<{ behaviours: object; what: string }>('/sandbox');
    expect(Object.keys(about.behaviours)).toEqual([
      ...Array.from({ length: 11 }, (_, n) => `...${9901 + n}`),
      'any other',
    ]);
  });
});

describe('start and stop', () => {
  it('rejects with EADDRINUSE when the port is taken, and lets go of its file', async () => {
    const port = Number(new URL(sandbox.url).port);
    const file = join(dir, 'other.db');
    const options = { host: '127.0.0.1', file, reportUrl: 'http://127.0.0.1:9/', env };
    await expect(startSandbox({ ...options, port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
    await (await startSandbox({ ...options, port: 0 })).close();
  });

  it('rejects for a file that is none', async () => {
    const options = { host: '127.0.0.1', port: 0, reportUrl: 'http://127.0.0.1:9/', env };
    await expect(startSandbox({ ...options, file: join(dir, 'no', 'such', 'dir.db') })).rejects.toThrow();
  });

  it('answers what is open before it closes, and takes nothing afterwards', async () => {
    const slow = submit({ to: ['491700009909'], tx: 'slow' });
    await eventually(counters, (seen) => seen.taken === 1);
    await Promise.all([sandbox.close(), sandbox.close()]);
    expect((await slow).code).toBe('1000');
    await expect(submit()).rejects.toThrow('fetch failed');
    const again = await open(join(dir, 'sandbox.db'));
    expect((await submit({ tx: 'slow' }, again)).messageId).toBe((await slow).messageId);
  });
});
