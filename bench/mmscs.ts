/**
 * Several MMSCs in one process, as cheap as node:net allows: node bench/mmscs.ts MODE... with `takes`, `hangs`, `5xx`, `refuses`
 * (its port was free a moment ago and is closed). Prints {control, ports}; GET /reset and GET /figures on the control port:
 * {count, firstMs, lastMs} of what those that take have taken together.
 */
import { type AddressInfo, createServer, type Socket } from 'node:net';

const NS = 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4';
let count = 0;
let firstMs = 0;
let lastMs = 0;

function taken(socket: Socket, body: string): void {
  count++;
  lastMs = performance.now();
  if (count === 1) firstMs = lastMs;
  const id = /TransactionID[^>]*>([^<]*)</.exec(body)?.[1] ?? '';
  const xml = `<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Header><TransactionID xmlns="${NS}">${id}</TransactionID></e:Header><e:Body><SubmitRsp xmlns="${NS}"><MM7Version>6.8.0</MM7Version><Status><StatusCode>1000</StatusCode><StatusText>Success</StatusText></Status><MessageID>m${count}</MessageID></SubmitRsp></e:Body></e:Envelope>`;
  socket.write(`HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\ncontent-length: ${Buffer.byteLength(xml)}\r\n\r\n${xml}`);
}

function failed(socket: Socket): void {
  socket.write('HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n');
}

function serve(answer: (socket: Socket, body: string, head: string) => void): Promise<number> {
  const server = createServer((socket) => {
    socket.setNoDelay(true);
    socket.on('error', () => {});
    let pending = '';
    socket.on('data', (chunk) => {
      pending += chunk.toString('latin1');
      for (;;) {
        const split = pending.indexOf('\r\n\r\n');
        if (split < 0) return;
        const head = pending.slice(0, split);
        const end = split + 4 + Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
        if (pending.length < end) return;
        const body = pending.slice(split + 4, end);
        pending = pending.slice(end);
        answer(socket, body, head);
      }
    });
  });
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}

/** A port on which nobody listens. */
function closed(): Promise<number> {
  const server = createServer();
  return new Promise((resolve) =>
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    }),
  );
}

const ports: number[] = [];
for (const mode of process.argv.slice(2)) {
  if (mode === 'refuses') ports.push(await closed());
  else ports.push(await serve(mode === 'takes' ? taken : mode === '5xx' ? failed : () => undefined));
}
const control = await serve((socket, _, head) => {
  if (head.startsWith('GET /reset')) count = 0;
  const json = JSON.stringify({ count, firstMs, lastMs });
  socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${json.length}\r\n\r\n${json}`);
});
console.log(JSON.stringify({ control, ports }));
