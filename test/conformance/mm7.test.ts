/** The MM7 carrier against a fake MMSC with every fault that peers and networks have. */
import type { Socket } from 'node:net';
import { createMm7Listener } from '../../src/carriers/mm7/listener.ts';
import { createMm7Carrier } from '../../src/carriers/mm7/mm7.ts';
import type { Submission } from '../../src/domain/submission.ts';
import { testEnv } from '../../src/env.ts';
import { type CarrierWorld, carrierSuite, FAULTS, hooksOf } from './carrier.suite.ts';
import { openTcpPeer } from './tcp-peer.ts';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';

function http(status: string, body: string, headers = ''): string {
  return `HTTP/1.1 ${status}\r\nContent-Type: text/xml\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

function answer(transaction: string, code: number, id: string, details = ''): string {
  return `<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Header><TransactionID xmlns="${NS}">${transaction}</TransactionID></E:Header><E:Body><SubmitRsp xmlns="${NS}"><MM7Version>6.8.0</MM7Version><Status><StatusCode>${code}</StatusCode><StatusText>x</StatusText>${details}</Status><MessageID>${id}</MessageID></SubmitRsp></E:Body></E:Envelope>`;
}

async function open({
  timeoutMs,
  concurrency,
}: {
  timeoutMs: number;
  concurrency: number;
}): Promise<CarrierWorld<Submission>> {
  const env = testEnv();
  let read = 0;
  let lastId = '';

  function respond(socket: Socket, request: string): void {
    read++;
    const transaction = /TransactionID[^>]*>([^<]*)</.exec(request)?.[1] ?? '';
    const recipients = [...request.matchAll(/<mm7:Number>\+(\d+)<\/mm7:Number>/g)].map(([, number]) => number);
    const id = `mid-${read}`;
    switch (peer.fault) {
      case 'none':
        lastId = id;
        return void socket.write(http('200 OK', answer(transaction, 1000, id)));
      case 'partial': {
        const details = `<Details><Recipient><Number>+${recipients.at(-1)}</Number><StatusCode>2003</StatusCode></Recipient></Details>`;
        return void socket.write(http('200 OK', answer(transaction, 1100, id, details)));
      }
      case 'noAnswer':
        return;
      case 'halfAnswer':
        return void socket.write('HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 900\r\n\r\n<E:Envelope');
      case 'drip':
        return void socket.write(
          'HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n<\r\n',
        );
      case 'cutLate':
        return void socket.destroy();
      case 'throttle':
        return void socket.write(http('429 Too Many Requests', ''));
      case 'throttle7s':
        return void socket.write(http('503 Service Unavailable', '', 'Retry-After: 7\r\n'));
      case 'throttleDate':
        return void socket.write(
          http('429 Too Many Requests', '', `Retry-After: ${new Date(env.clock.now() + 60_000).toUTCString()}\r\n`),
        );
      case 'throttleAbsurd':
        return void socket.write(http('429 Too Many Requests', '', 'Retry-After: 99999999999\r\n'));
      case 'serverError':
        return void socket.write(http('500 Internal Server Error', 'oops'));
      case 'refuses':
        return void socket.write(http('200 OK', answer(transaction, 2003, '')));
      case 'unknownCode':
        return void socket.write(http('200 OK', answer(transaction, 7777, '')));
      case 'garbage':
        return void socket.write(http('200 OK', '\u0000<<<&'));
      case 'otherRequest':
        return void socket.write(http('200 OK', answer('another', 1000, 'not-yours')));
      case 'huge':
        return void socket.write(
          http('200 OK', answer(transaction, 1000, id, `<Details>${'x'.repeat(10_000_000)}</Details>`)),
        );
      default:
        return void socket.destroy();
    }
  }

  const peer = await openTcpPeer((socket) => {
    let pending = Buffer.alloc(0);
    return (chunk) => {
      pending = Buffer.concat([pending, chunk]);
      for (;;) {
        const end = pending.indexOf('\r\n\r\n');
        const length = Number(/^content-length: (\d+)/im.exec(pending.toString('latin1'))?.[1] ?? Number.NaN);
        if (end < 0 || !(pending.length >= end + 4 + length)) return;
        const request = pending.subarray(0, end + 4 + length).toString('latin1');
        pending = pending.subarray(end + 4 + length);
        respond(socket, request);
      }
    };
  });
  const config = {
    name: 'c',
    namespace: NS,
    version: '6.8.0',
    transferEncoding: 'binary',
    concurrency,
    timeoutMs,
  } as const;
  const plain = createMm7Carrier({ ...config, url: `http://127.0.0.1:${peer.port}/mm7` }, env);
  // The peer speaks no TLS: a handshake with it fails.
  const overTls = createMm7Carrier({ ...config, url: `https://127.0.0.1:${peer.port}/mm7` }, env);
  const { told, away, hooks } = hooksOf();
  const listener = await createMm7Listener({
    host: '127.0.0.1',
    port: 0,
    carriers: [{ name: 'c' }],
    ...hooks,
    env,
  });
  let calls = 0;
  /** One call of the peer's, as it makes them. True = taken. */
  const call = async (operation: string, body: string, transaction: string): Promise<boolean> => {
    const soap = `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID xmlns="${NS}">${transaction}</TransactionID></e:Header><e:Body><${operation} xmlns="${NS}"><MM7Version>6.8.0</MM7Version>${body}</${operation}></e:Body></e:Envelope>`;
    const response = await fetch(`${listener.url}/mm7/c`, {
      method: 'POST',
      headers: { 'content-type': 'text/xml' },
      body: soap,
    });
    return /<(?:\w+:)?StatusCode>1000</.test(await response.text());
  };

  return {
    env,
    carrier: {
      name: 'c',
      submit: (submission, signal) => (peer.fault === 'badTls' ? overTls : plain).submit(submission, signal),
    },
    peer: {
      fault: peer.set,
      read: () => read,
      lastId: () => lastId,
      cut: peer.cut,
      report: (id, otherwise) =>
        call(
          'DeliveryReportReq',
          `<MessageID>${otherwise ? `&lt;${id.toUpperCase()}@mmsc.example&gt;` : id}</MessageID><Recipient><Number>+441134960001</Number></Recipient><Sender><Number>441134960000</Number></Sender><Date>2026-01-01T10:00:00Z</Date><MMStatus>Retrieved</MMStatus>`,
          `report-${++calls}`,
        ),
      send: (n) =>
        call(
          'DeliverReq',
          `<LinkedID>link-${n}</LinkedID><Sender><Number>+447700900123</Number></Sender><Recipients><To><Number>+441134960000</Number></To></Recipients><Subject>${n}</Subject>`,
          `mo-${n}`,
        ),
    },
    told,
    away,
    async close() {
      await Promise.all([plain.close?.(), overTls.close?.(), listener.close()]);
      await peer.close();
    },
  };
}

carrierSuite<Submission>({
  name: 'MM7',
  faults: [...FAULTS, 'throttle7s', 'throttleDate', 'throttleAbsurd', 'partial'],
  open,
  submission: (n, recipients = 1) => ({
    transactionId: `tx-${n}`,
    sender: '441134960000',
    recipients: Array.from({ length: recipients }, (_, i) => String(441134960001 + i)),
    parts: [{ contentId: 't.txt', contentType: 'text/plain', bytes: Buffer.from('hello') }],
    validUntil: Date.UTC(2026, 0, 3),
  }),
});
