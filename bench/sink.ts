/**
 * Load sink: an MMSC that takes every SubmitReq and reports it retrieved, and a customer that takes every webhook, both as
 * cheap as node:net allows. node bench/sink.ts <port for reports>; prints its port. /count answers {submits, reports, delivered,
 * repeated}: messages that a webhook said are delivered, and how often one was told again.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

const reportPort = Number(process.argv[2]);
let submits = 0;
let reports = 0;
let repeated = 0;
const delivered = new Set<string>();

// Reports go out over a few kept sockets, one at a time each, like a real MMSC's. Opened with the first report: the server
// under test starts after this process.
const SOCKETS = 16;
let opened = 0;
const idle: Socket[] = [];
const waiting: string[] = [];

function open(): void {
  opened++;
  const socket = connect(reportPort, '127.0.0.1');
  socket.setNoDelay(true);
  let pending = '';
  const free = (): void => {
    idle.push(socket);
    pump();
  };
  socket.on('connect', free);
  socket.on('data', (chunk) => {
    pending += chunk.toString('latin1');
    const split = pending.indexOf('\r\n\r\n');
    if (split < 0) return;
    const length = Number(/content-length: (\d+)/i.exec(pending)?.[1] ?? 0);
    if (pending.length < split + 4 + length) return;
    pending = '';
    reports++;
    free();
  });
  socket.on('error', (error) => console.error(`report socket: ${error.message}`));
  socket.on('close', () => {
    opened--;
    const at = idle.indexOf(socket);
    if (at >= 0) idle.splice(at, 1);
  });
}

function pump(): void {
  if (waiting.length > 0 && opened < SOCKETS) open();
  while (idle.length > 0 && waiting.length > 0) (idle.pop() as Socket).write(waiting.shift() as string);
}

interface Hook {
  results: { messageId: string; status: { name: string } }[];
}

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
const envelope = (id: string, body: string): string =>
  `<?xml version="1.0"?><env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/"><env:Header><m:TransactionID xmlns:m="${NS}" env:mustUnderstand="1">${id}</m:TransactionID></env:Header><env:Body>${body}</env:Body></env:Envelope>`;

function report(id: string, to: string): void {
  const xml = envelope(
    `r${id}`,
    `<m:DeliveryReportReq xmlns:m="${NS}"><m:MM7Version>6.8.0</m:MM7Version><m:MessageID>${id}</m:MessageID><m:Recipient><m:Number>${to}</m:Number></m:Recipient><m:Sender><m:Number>1</m:Number></m:Sender><m:Date>2026-01-01T00:00:00Z</m:Date><m:MMStatus>Retrieved</m:MMStatus></m:DeliveryReportReq>`,
  );
  waiting.push(
    `POST /mm7/bench HTTP/1.1\r\nhost: sink\r\ncontent-type: text/xml\r\ncontent-length: ${Buffer.byteLength(xml)}\r\n\r\n${xml}`,
  );
  pump();
}

function answer(socket: Socket, head: string, body: string): void {
  if (head.startsWith('GET /count')) {
    const json = JSON.stringify({ submits, reports, delivered: delivered.size, repeated });
    socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${json.length}\r\n\r\n${json}`);
    return;
  }
  if (head.startsWith('POST /hook')) {
    for (const { messageId, status } of (JSON.parse(body) as Hook).results) {
      if (delivered.has(messageId)) repeated++;
      if (status.name === 'DELIVERED_TO_HANDSET') delivered.add(messageId);
    }
    socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n');
    return;
  }
  submits++;
  const transaction = /TransactionID[^>]*>([^<]*)</.exec(body)?.[1] ?? '';
  const to = /<(?:\w+:)?Number[^>]*>\+?(\d+)/.exec(body.slice(body.indexOf('Recipients')))?.[1] ?? '';
  const id = `b${submits}`;
  const xml = envelope(
    transaction,
    `<m:SubmitRsp xmlns:m="${NS}"><m:MM7Version>6.8.0</m:MM7Version><m:Status><m:StatusCode>1000</m:StatusCode><m:StatusText>Success</m:StatusText></m:Status><m:MessageID>${id}</m:MessageID></m:SubmitRsp>`,
  );
  socket.write(`HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: ${Buffer.byteLength(xml)}\r\n\r\n${xml}`);
  report(id, to);
}

const server = createServer((socket) => {
  socket.setNoDelay(true);
  let pending = '';
  socket.on('data', (chunk) => {
    pending += chunk.toString('latin1');
    for (;;) {
      const split = pending.indexOf('\r\n\r\n');
      if (split < 0) return;
      const head = pending.slice(0, split);
      let end: number;
      let body: string;
      if (/transfer-encoding: chunked/i.test(head)) {
        end = pending.indexOf('\r\n0\r\n\r\n', split);
        if (end < 0) return;
        body = pending.slice(split + 4, end);
        end += 7;
      } else {
        end = split + 4 + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        if (pending.length < end) return;
        body = pending.slice(split + 4, end);
      }
      pending = pending.slice(end);
      answer(socket, head, body);
    }
  });
  socket.on('error', () => {});
});
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port));
