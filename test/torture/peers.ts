/**
 * The two outer parties of a torture, each with a durable log of its own: an MMSC and a customer's webhook receiver. They
 * share no code with the product (the sandbox would share its reader), and they never die: what they say is the truth that
 * the store is compared with.
 *
 * The MMSC knows a repeated TransactionID, counts it, and answers it as the first time. What becomes of a message is
 * decided by the end of its number, see `fateOf`.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Agent, createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Journal, openJournal } from './journal.ts';

/** What the MMSC does with a message: the status that it reports first, and how it behaves on the way. */
export interface Fate {
  report: 'Retrieved' | 'Rejected' | 'Expired';
  /** The final status that this report must give its MMS. */
  final: number;
  /** It is sent with an SMS failover, which follows and is delivered. */
  failover: boolean;
  /** The first try is answered 4006. */
  busy: boolean;
  /** After the first report was answered it is told again, and then contradicted: neither may change anything. */
  contradicts: boolean;
}

export function fateOf(to: string): Fate {
  const end = Number(to.slice(-2)) % 20;
  const report = end === 17 ? 'Rejected' : end === 18 ? 'Expired' : 'Retrieved';
  return {
    report,
    final: { Retrieved: 5, Rejected: 9, Expired: 15 }[report],
    failover: report !== 'Retrieved' && Number(to.slice(-2)) >= 40,
    busy: end === 16,
    contradicts: end === 15,
  };
}

/** A message that the MMSC has taken. */
export interface Taken {
  tx: string;
  to: string;
  id: string;
  /** Times that it was read whole and answered as taken. */
  copies: number;
  /** The first report was answered. */
  reported: boolean;
  intact: boolean;
}

export interface Mmsc {
  port: number;
  taken: Map<string, Taken>;
  /** Transaction ids under which a number was taken: more than one is a second copy that no carrier can drop. */
  byNumber: Map<string, string[]>;
  /** Uploaded content that may come, by what it must contain whole. */
  contents: Set<string>;
  /** Ports where reports can be told, in turn. */
  reportTo: number[];
  journal: Journal;
  /** Reports not yet answered. */
  owed(): number;
  close(): Promise<void>;
}

const NAMESPACE = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
/** A report that is not answered in this time is told again. */
const REPORT_MS = 3_000;
const REPORT_AGAIN_MS = 500;
/** Reports on their way at a time. */
const REPORT_SLOTS = 32;
const MARK = /upload-\d+:[0-9a-f]+:end/;

/** Starts the MMSC; `carrier` is its name on the side of Postcard. */
export async function startMmsc(file: string, carrier: string): Promise<Mmsc> {
  const journal = openJournal(file);
  const taken = new Map<string, Taken>();
  const byNumber = new Map<string, string[]>();
  const taking = new Map<string, Promise<void>>();
  const contents = new Set<string>();
  const busy = new Set<string>();
  const agent = new Agent({ keepAlive: true, maxSockets: REPORT_SLOTS });
  const queue: { entry: Taken; status: string; left: string[] }[] = [];
  const reportTo: number[] = [];
  let turn = 0;
  let out = 0;
  let owed = 0;
  let closed = false;

  async function take(body: string, request: { tx: string; to: string }): Promise<Taken | 'busy'> {
    const { tx, to } = request;
    await taking.get(tx);
    const known = taken.get(tx);
    if (known) {
      known.copies++;
      await journal.write({ kind: 'repeated', tx, to });
      return known;
    }
    if (fateOf(to).busy && !busy.has(to)) {
      busy.add(to);
      await journal.write({ kind: 'busy', tx, to });
      return 'busy';
    }
    const entry: Taken = { tx, to, id: `m-${taken.size + 1}`, copies: 1, reported: false, intact: intact(body, to) };
    taken.set(tx, entry);
    byNumber.set(to, [...(byNumber.get(to) ?? []), tx]);
    const written = journal.write({ kind: 'taken', tx, to, id: entry.id, intact: entry.intact });
    taking.set(tx, written);
    await written;
    taking.delete(tx);
    owed++;
    const { report, contradicts } = fateOf(to);
    const left = contradicts ? [report, report === 'Retrieved' ? 'Expired' : 'Retrieved'] : [];
    // Sometimes before we have answered: a report may overtake the answer to its submission.
    setTimeout(() => tell({ entry, status: report, left }), 2 + Math.random() * 250);
    return entry;
  }

  function intact(body: string, to: string): boolean {
    const mark = MARK.exec(body)?.[0];
    return body.includes(`message to ${to}`) && (mark === undefined || contents.has(digest(mark)));
  }

  function tell(report: { entry: Taken; status: string; left: string[] }): void {
    queue.push(report);
    next();
  }

  function next(): void {
    while (!closed && out < REPORT_SLOTS && queue.length > 0) {
      const report = queue.shift() as (typeof queue)[number];
      out++;
      void post(report.entry, report.status).then((answered) => {
        out--;
        if (!answered) setTimeout(() => tell(report), REPORT_AGAIN_MS);
        else void heard(report);
        next();
      });
    }
  }

  async function heard({ entry, status, left }: { entry: Taken; status: string; left: string[] }): Promise<void> {
    if (!entry.reported) {
      entry.reported = true;
      owed--;
    }
    await journal.write({ kind: 'reported', tx: entry.tx, to: entry.to, status });
    const again = left.shift();
    if (again !== undefined) tell({ entry, status: again, left });
  }

  function post(entry: Taken, status: string): Promise<boolean> {
    const xml = envelope(
      `r-${entry.id}`,
      `<DeliveryReportReq xmlns="${NAMESPACE}"><MM7Version>6.8.0</MM7Version><MessageID>${entry.id}</MessageID>` +
        `<Recipient><Number>+${entry.to}</Number></Recipient><Date>${new Date().toISOString()}</Date>` +
        `<MMStatus>${status}</MMStatus></DeliveryReportReq>`,
    );
    const port = reportTo[turn++ % Math.max(1, reportTo.length)];
    if (port === undefined) return Promise.resolve(false);
    return new Promise((resolve) => {
      const headers = { 'content-type': 'text/xml; charset=utf-8', 'content-length': Buffer.byteLength(xml) };
      const call = request({ agent, host: '127.0.0.1', port, path: `/mm7/${carrier}`, method: 'POST', headers });
      const limit = setTimeout(() => call.destroy(new Error('no answer')), REPORT_MS);
      const end = (ok: boolean): void => {
        clearTimeout(limit);
        resolve(ok);
      };
      call.on('error', () => end(false));
      call.on('response', (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', () => end(false));
        answer.on('close', () =>
          end(answer.complete && /StatusCode>\s*1000\s*</.test(Buffer.concat(chunks).toString())),
        );
      });
      call.end(xml);
    });
  }

  const server = createServer((call, response) => {
    const chunks: Buffer[] = [];
    call.on('error', () => undefined);
    call.on('data', (chunk: Buffer) => chunks.push(chunk));
    call.on('end', async () => {
      const body = Buffer.concat(chunks).toString('latin1');
      const tx = /TransactionID[^>]*>([^<]+)</.exec(body)?.[1] ?? '';
      const to = /Recipients>.*?Number>\+?(\d+)</s.exec(body)?.[1] ?? '';
      const entry = await take(body, { tx, to });
      const status = entry === 'busy' ? [4006, 'Service unavailable'] : [1000, 'Success'];
      const id = entry === 'busy' ? '' : `<MessageID>${entry.id}</MessageID>`;
      const xml = envelope(
        tx,
        `<SubmitRsp xmlns="${NAMESPACE}"><MM7Version>6.8.0</MM7Version><Status><StatusCode>${status[0]}</StatusCode>` +
          `<StatusText>${status[1]}</StatusText></Status>${id}</SubmitRsp>`,
      );
      setTimeout(() => {
        response.writeHead(200, { 'content-type': 'text/xml; charset=utf-8' });
        response.end(xml);
      }, Math.random() * 40);
    });
  });
  return {
    port: await listen(server),
    taken,
    byNumber,
    contents,
    reportTo,
    journal,
    owed: () => owed,
    async close() {
      closed = true;
      agent.destroy();
      await shut(server);
      await journal.close();
    },
  };
}

/** How uploaded content is recognised. */
export function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function envelope(tx: string, body: string): string {
  return (
    '<?xml version="1.0" encoding="UTF-8"?><soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/">' +
    `<soap:Header><TransactionID xmlns="${NAMESPACE}" soap:mustUnderstand="1">${tx}</TransactionID></soap:Header>` +
    `<soap:Body>${body}</soap:Body></soap:Envelope>`
  );
}

export interface Receiver {
  url: string;
  port: number;
  /** Final statuses told for a messageId, in order of arrival. */
  reports: Map<string, number[]>;
  /** Null = it keeps no log. */
  journal: Journal | null;
  close(): Promise<void>;
}

/** A customer's webhook receiver that remembers every report; with `file`, durably and before it answers. */
export async function startReceiver(file?: string): Promise<Receiver> {
  const journal = file === undefined ? null : openJournal(file);
  const reports = new Map<string, number[]>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('error', () => undefined);
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', async () => {
      const body = JSON.parse(Buffer.concat(chunks).toString()) as {
        results: { messageId: string; status: { id: number } }[];
      };
      const told = body.results.map(({ messageId, status }) => ({ id: messageId, status: status.id }));
      for (const { id, status } of told) reports.set(id, [...(reports.get(id) ?? []), status]);
      await journal?.write(...told);
      response.writeHead(200).end();
    });
  });
  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}/reports`,
    port,
    reports,
    journal,
    async close() {
      await shut(server);
      await journal?.close();
    },
  };
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

function shut(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
