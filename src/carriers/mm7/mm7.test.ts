/** The carrier against real sockets: what a peer can do to a connection, and what must come of it. */
import { createHash } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import { CA, CLIENT_CERT, CLIENT_KEY, OTHER_CA, SERVER_CERT, SERVER_KEY } from '../../../test/certificates.ts';
import type { Outcome, Submission } from '../../domain/submission.ts';
import { testEnv } from '../../env.ts';
import { NameFault, type Resolve } from '../../net/names.ts';
import type { Hand } from '../carrier.ts';
import { readMultipart } from '../mime.ts';
import { createMm7Carrier, type Mm7Config } from './mm7.ts';
import { readSoap } from './soap.ts';

const submission: Submission = {
  transactionId: 'tx-1',
  sender: 'Postcard',
  recipients: ['441134960001'],
  parts: [{ contentId: 't.txt', contentType: 'text/plain; charset=utf-8', bytes: Buffer.from('hello') }],
  validUntil: Date.UTC(2026, 0, 3),
};

interface Request {
  head: string;
  body: Buffer;
}
/** What the peer does with each whole request. */
type Behaviour = (socket: Socket, request: Request, n: number) => void;

const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

interface Peer {
  url: string;
  requests: Request[];
  connections: number;
}

/** An HTTP server as raw as can be. */
async function peer(
  behave: Behaviour,
  onConnect?: (socket: Socket) => void,
  listening: (onSocket: (socket: Socket) => void) => Server = createServer,
): Promise<Peer> {
  const sockets = new Set<Socket>();
  const seen: Peer = { url: '', requests: [], connections: 0 };
  const server: Server = listening((socket) => {
    seen.connections++;
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {});
    onConnect?.(socket);
    let pending: Buffer = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      pending = Buffer.concat([pending, chunk]);
      for (;;) {
        const end = pending.indexOf('\r\n\r\n');
        if (end < 0) return;
        const head = pending.subarray(0, end).toString('latin1');
        const length = Number(/^content-length: (\d+)/im.exec(head)?.[1]);
        if (pending.length < end + 4 + length) return;
        const request = { head, body: Buffer.from(pending.subarray(end + 4, end + 4 + length)) };
        pending = pending.subarray(end + 4 + length);
        seen.requests.push(request);
        behave(socket, request, seen.requests.length);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  undo.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((resolve) => server.close(resolve));
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  seen.url = `http://127.0.0.1:${address.port}/mm7?link=1`;
  return seen;
}

const TO = {
  name: 'c',
  namespace: 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4',
  version: '6.8.0',
  transferEncoding: 'binary',
  concurrency: 2,
  timeoutMs: 30_000,
} as const;

function carrierTo(url: string, change: Partial<Mm7Config> = {}) {
  const carrier = createMm7Carrier({ ...TO, url, ...change }, testEnv());
  undo.push(() => carrier.close?.());
  return carrier;
}

const never = new AbortController().signal;
const submit = (url: string, change: Partial<Mm7Config> = {}): Promise<Outcome> =>
  carrierTo(url, change).submit(submission, never);

function http(status: string, body: string, headers = 'Content-Type: text/xml\r\n'): string {
  return `HTTP/1.1 ${status}\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

function success({ body, head }: Request, id = 'mid-1'): string {
  const soap = readSoap(/^content-type: (.*)$/im.exec(head)?.[1], body);
  const transaction = soap.ok ? soap.message.transactionId : 'unreadable';
  return http(
    '200 OK',
    `<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Header><TransactionID>${transaction}</TransactionID></E:Header><E:Body><SubmitRsp><Status><StatusCode>1000</StatusCode><StatusText>Success</StatusText></Status><MessageID>${id}</MessageID></SubmitRsp></E:Body></E:Envelope>`,
  );
}

describe('a submission', () => {
  it('is one POST with the configured address, credentials and an empty SOAPAction', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const outcome = await submit(mmsc.url, { username: 'user', password: 'pässword' });
    expect(outcome).toEqual({ kind: 'accepted', carrierMessageId: 'mid-1', words: '1000 Success' });
    expect(mmsc.requests).toHaveLength(1);
    const { head, body } = mmsc.requests[0]!;
    expect(head.split('\r\n')[0]).toBe('POST /mm7?link=1 HTTP/1.1');
    expect(head).toMatch(/^soapaction: ""$/im);
    expect(head).toMatch(/^host: 127\.0\.0\.1:\d+$/im);
    expect(head).toContain(`authorization: Basic ${Buffer.from('user:pässword').toString('base64')}`);
    expect(head).toMatch(
      /^content-type: multipart\/related; boundary="pc-[0-9a-f]{32}"; type="text\/xml"; start="<mm7-submit@postcard>"$/im,
    );
    const soap = readSoap(/^content-type: (.*)$/im.exec(head)![1], body);
    expect(soap).toMatchObject({ ok: true, message: { operation: 'SubmitReq', transactionId: 'tx-1' } });
  });

  it('without credentials names none', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    await submit(mmsc.url);
    expect(mmsc.requests[0]!.head).not.toMatch(/authorization/i);
  });

  it('of a megabyte arrives whole', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const bytes = Buffer.from(Array.from({ length: 1_000_000 }, (_, i) => (i * 31) & 255));
    const parts = [{ contentId: 'big.jpg', contentType: 'image/jpeg', bytes }];
    const outcome = await carrierTo(mmsc.url).submit({ ...submission, parts }, never);
    expect(outcome.kind).toBe('accepted');
    const { head, body } = mmsc.requests[0]!;
    const soap = readSoap(/^content-type: (.*)$/im.exec(head)![1], body);
    if (!soap.ok) throw new Error(soap.fault);
    const content = soap.message.attachments[0]!;
    const inner = readMultipart(content.contentType, content.bytes);
    if (!inner.ok) throw new Error(inner.fault);
    expect(Buffer.compare(inner.parts[1]!.bytes, bytes)).toBe(0);
  });

  it('uses a kept connection again, and no more connections than configured', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const one = carrierTo(mmsc.url, { concurrency: 1 });
    for (let i = 0; i < 5; i++) expect((await one.submit(submission, never)).kind).toBe('accepted');
    expect(mmsc.connections).toBe(1);
    await one.close?.();
    const two = carrierTo(mmsc.url, { concurrency: 2 });
    const outcomes = await Promise.all(Array.from({ length: 20 }, () => two.submit(submission, never)));
    expect(outcomes.every((outcome) => outcome.kind === 'accepted')).toBe(true);
    expect(mmsc.connections).toBe(3);
  });
});

describe('the last moment', () => {
  it('is when there is a connection: what may not leave then sends nothing', async () => {
    let answer = (): void => undefined;
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const config = { ...TO, url: mmsc.url.replace('127.0.0.1', 'mmsc.test') };
    const carrier = createMm7Carrier(config, testEnv(), async () => {
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
      return { addresses: ['127.0.0.1'], ttlMs: 60_000 };
    });
    undo.push(() => carrier.close?.());
    let isOpen = true;
    const asked: boolean[] = [];
    const hand: Hand = {
      leaves: () => true,
      open: () => {
        asked.push(isOpen);
        return isOpen;
      },
      turn: () => ({ come: async () => true, drop: () => undefined }),
      late: () => undefined,
    };
    const late = carrier.submit(submission, never, hand);
    await new Promise((resolve) => setImmediate(resolve));
    expect(asked).toEqual([]);
    isOpen = false;
    answer();
    expect(await late).toMatchObject({ kind: 'deferred', unsent: true });
    expect([asked, mmsc.requests.length]).toEqual([[false], 0]);
    isOpen = true;
    expect(await carrier.submit(submission, never, hand)).toMatchObject({ kind: 'accepted' });
    expect([asked, mmsc.requests.length]).toEqual([[false, true], 1]);
  });
});

describe('a peer', () => {
  it('that is not there leaves the submission deferred', async () => {
    const mmsc = await peer(() => {});
    await undo.pop()?.();
    const outcome = await submit(mmsc.url);
    expect(outcome).toMatchObject({ kind: 'deferred', error: { id: 15000 }, elsewhere: true, unsent: true });
    expect(JSON.stringify(outcome)).toContain('ECONNREFUSED');
  });

  it('whose name nobody knows leaves it deferred', async () => {
    expect(await submit('http://mmsc.invalid/mm7')).toMatchObject({ kind: 'deferred', error: { id: 15000 } });
  });

  it('is found by its name without a thread of the pool, and left when the name servers do not answer', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const named = mmsc.url.replace('127.0.0.1', 'mmsc.example');
    const asked: string[] = [];
    const made = (resolve: Resolve) => {
      const carrier = createMm7Carrier(
        {
          name: 'c',
          url: named,
          namespace: 'n',
          version: '6.8.0',
          transferEncoding: 'binary',
          concurrency: 2,
          timeoutMs: 5_000,
        },
        testEnv(),
        resolve,
      );
      undo.push(() => carrier.close?.());
      return carrier;
    };
    const known = made(async (name) => {
      asked.push(name);
      return { addresses: ['127.0.0.1'], ttlMs: 60_000 };
    });
    expect((await known.submit(submission, never)).kind).toBe('accepted');
    expect(asked).toEqual(['mmsc.example']);
    const silent = made(() => Promise.reject(new NameFault('the name servers do not answer (ETIMEOUT)', true)));
    expect(await silent.submit(submission, never)).toMatchObject({
      kind: 'deferred',
      elsewhere: true,
      error: { words: 'the name servers do not answer (ETIMEOUT)' },
    });
  });

  it('that speaks no TLS on a https address leaves it deferred', async () => {
    const mmsc = await peer(
      () => {},
      (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    );
    expect(await submit(mmsc.url.replace('http:', 'https:'))).toMatchObject({ kind: 'deferred' });
    expect(mmsc.requests).toHaveLength(0);
  });

  const INTERIM = 'HTTP/1.1 100 Continue\r\n\r\n';
  it.each([
    ['100', INTERIM, 0],
    ['100 with headers, of HTTP/1.0', 'HTTP/1.0 100 Go on\r\nServer: x\r\nX-Empty:\r\n\r\n', 0],
    ['100 without words', 'HTTP/1.1 100\r\n\r\n', 0],
    ['several of them', INTERIM.repeat(3), 0],
    ['100 in pieces', INTERIM, 1],
    ['102', 'HTTP/1.1 102 Processing\r\n\r\n', 0],
    ['103 with a link', 'HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n', 0],
    ['100, 102 and 103', `${INTERIM}HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n`, 0],
  ])('that says %s before its answer is understood, and its connection kept', async (_, interim, piece) => {
    const mmsc = await peer((socket, request) => {
      const bytes = Buffer.from(interim + success(request));
      if (piece === 0) socket.write(bytes);
      else for (const byte of bytes) socket.write(Buffer.of(byte));
    });
    const carrier = carrierTo(mmsc.url, { concurrency: 1 });
    for (let n = 0; n < 3; n++) expect(await carrier.submit(submission, never)).toMatchObject({ kind: 'accepted' });
    expect([mmsc.requests.length, mmsc.connections]).toEqual([3, 1]);
  });

  it('that says 100 when it has read the head, and then its answer, is understood with a long body, too', async () => {
    const parts = [{ contentId: 'p.jpg', contentType: 'image/jpeg', bytes: Buffer.alloc(3_000_000, 7) }];
    const mmsc = await peer(
      (socket, request) => socket.write(success(request)),
      (socket) => socket.once('data', () => socket.write(INTERIM)),
    );
    expect(await carrierTo(mmsc.url).submit({ ...submission, parts }, never)).toMatchObject({ kind: 'accepted' });
  });

  it('that says 100 and hangs up, or nothing more, leaves it unknown', async () => {
    const gone = await peer((socket) => socket.end(INTERIM));
    expect(await submit(gone.url)).toMatchObject({ kind: 'unknown' });
    const half = await peer((socket) => socket.end(INTERIM.slice(0, 15)));
    expect(await submit(half.url)).toMatchObject({ kind: 'unknown' });
    // Again and again, too: that is no answer, and the time for one does not begin anew.
    const endless = await peer((socket) => {
      const again = setInterval(() => socket.write(INTERIM), 20);
      socket.on('close', () => clearInterval(again));
    });
    expect(await submit(endless.url, { timeoutMs: 400 })).toMatchObject({
      kind: 'unknown',
      error: { words: 'no answer within 360 ms' },
    });
  });

  it('whose answer has a 100 in its text keeps it', async () => {
    const mmsc = await peer((socket, request) => {
      const whole = success(request, 'HTTP/1.1 100 Continue');
      const cut = whole.indexOf('HTTP/1.1 100');
      socket.write(whole.slice(0, cut));
      setTimeout(() => socket.write(whole.slice(cut)), 30);
    });
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'accepted', carrierMessageId: 'HTTP/1.1 100 Continue' });
  });

  it('that hangs up after it has read the request leaves it unknown, and nothing is sent twice', async () => {
    const mmsc = await peer((socket) => socket.destroy());
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'unknown', error: { id: 15000 } });
    expect(mmsc.requests).toHaveLength(1);
    expect(mmsc.connections).toBe(1);
  });

  it('that resets the connection after it has read the request leaves it unknown', async () => {
    const mmsc = await peer((socket) => socket.resetAndDestroy());
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'unknown' });
    expect(mmsc.requests).toHaveLength(1);
  });

  it('that hangs up in the middle of its answer leaves it unknown', async () => {
    const mmsc = await peer((socket, request) => {
      socket.write(success(request).slice(0, -30));
      socket.end();
    });
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'unknown' });
  });

  const garbage: [string, string | Buffer][] = [
    ['bytes that are no HTTP', Buffer.from([0, 255, 1, 2, 13, 10, 13, 10])],
    ['text that is no HTTP', 'hello there\r\n\r\n'],
    ['a page', http('200 OK', '<html>welcome</html>', 'Content-Type: text/html\r\n')],
    ['nothing in 200', http('200 OK', '')],
    ['headers without end', `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(100_000)}`],
    ['an answer of a megabyte', http('200 OK', 'x'.repeat(1_000_000))],
    ['two different lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nhello'],
  ];
  it.each(garbage)('that answers with %s leaves it unknown', async (_, answer) => {
    const mmsc = await peer((socket) => socket.end(answer));
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'unknown', error: { id: 15000 } });
    expect(mmsc.requests).toHaveLength(1);
  });

  it('that redirects is not followed', async () => {
    const elsewhere = await peer((socket, request) => socket.write(success(request)));
    const mmsc = await peer((socket) => socket.write(http('307 Moved', '', `Location: ${elsewhere.url}\r\n`)));
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'deferred' });
    expect(elsewhere.connections).toBe(0);
  });

  it('that asks to slow down is heard', async () => {
    const mmsc = await peer((socket) => socket.write(http('429 Too Many Requests', '', 'Retry-After: 9\r\n')));
    expect(await submit(mmsc.url)).toMatchObject({ kind: 'throttled', retryAfterMs: 9000 });
  });

  it('that refuses in a fault with HTTP 500 is understood, and its connection kept', async () => {
    const fault =
      '<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Body><E:Fault><faultcode>E:Client</faultcode><faultstring>x</faultstring><detail><RSErrorRsp><Status><StatusCode>2003</StatusCode><StatusText>Address not found</StatusText></Status></RSErrorRsp></detail></E:Fault></E:Body></E:Envelope>';
    const mmsc = await peer((socket) => socket.write(http('500 Internal Server Error', fault)));
    const carrier = carrierTo(mmsc.url, { concurrency: 1 });
    for (let i = 0; i < 2; i++) {
      expect(await carrier.submit(submission, never)).toEqual({
        kind: 'refused',
        error: { id: 15009, words: '2003 Address not found' },
      });
    }
    expect(mmsc.connections).toBe(1);
  });

  it('that recovers is served again by the same carrier', async () => {
    const mmsc = await peer((socket, request, n) => (n === 1 ? socket.destroy() : socket.write(success(request))));
    const carrier = carrierTo(mmsc.url);
    expect((await carrier.submit(submission, never)).kind).toBe('unknown');
    expect((await carrier.submit(submission, never)).kind).toBe('accepted');
  });
});

describe('an abort', () => {
  it('before the start sends nothing', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    expect(await carrierTo(mmsc.url).submit(submission, AbortSignal.abort())).toMatchObject({ kind: 'deferred' });
    expect(mmsc.connections).toBe(0);
  });

  it('while the peer is silent leaves it unknown and hangs up', async () => {
    const control = new AbortController();
    const closed = Promise.withResolvers<void>();
    const mmsc = await peer(
      () => control.abort(),
      (socket) => socket.on('close', () => closed.resolve()),
    );
    expect(await carrierTo(mmsc.url).submit(submission, control.signal)).toEqual({
      kind: 'unknown',
      error: { id: 15000, words: 'no answer in time' },
    });
    await closed.promise;
  });

  it('of our own, below it, says how long nobody answered', async () => {
    const mmsc = await peer(() => {});
    expect(await submit(mmsc.url, { timeoutMs: 1000 })).toEqual({
      kind: 'unknown',
      error: { id: 15000, words: 'no answer within 900 ms' },
    });
  });

  it('while the peer drips its answer leaves it unknown', async () => {
    const control = new AbortController();
    const mmsc = await peer((socket, request) => {
      socket.write(success(request).slice(0, 60), () => control.abort());
    });
    expect(await carrierTo(mmsc.url).submit(submission, control.signal)).toMatchObject({ kind: 'unknown' });
  });

  it('while it waits for a connection leaves it deferred and never sends it', async () => {
    const held = Promise.withResolvers<() => void>();
    const mmsc = await peer((socket, request) => held.resolve(() => socket.write(success(request))));
    const carrier = carrierTo(mmsc.url, { concurrency: 1 });
    const first = carrier.submit(submission, never);
    const answerFirst = await held.promise;
    const control = new AbortController();
    const second = carrier.submit({ ...submission, transactionId: 'tx-2' }, control.signal);
    control.abort();
    expect(await second).toEqual({
      kind: 'deferred',
      error: { id: 15000, words: 'no connection in time' },
      unsent: true,
    });
    answerFirst();
    expect((await first).kind).toBe('accepted');
    expect(mmsc.requests).toHaveLength(1);
  });

  it('after the answer changes nothing', async () => {
    const control = new AbortController();
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const carrier = carrierTo(mmsc.url, { concurrency: 1 });
    expect((await carrier.submit(submission, control.signal)).kind).toBe('accepted');
    control.abort();
    expect((await carrier.submit(submission, never)).kind).toBe('accepted');
    expect(mmsc.connections).toBe(1);
  });
});

describe('what is configured for the request', () => {
  it('stands in its head: SOAPAction, headers of the carrier’s own, reseller code', async () => {
    const mmsc = await peer((socket, request) => socket.write(success(request)));
    const config = {
      soapAction: 'urn:submit',
      extraHeaders: { 'X-Key': 'k 1' },
      resellerCode: { header: 'X-Reseller' },
    };
    const carrier = carrierTo(mmsc.url, config);
    await carrier.submit({ ...submission, resellerCode: 12 }, never);
    await carrier.submit(submission, never);
    const [first, second] = mmsc.requests as [Request, Request];
    expect(first.head).toMatch(/^soapaction: "urn:submit"$/im);
    expect(first.head).toMatch(/^x-key: k 1$/im);
    expect(first.head).toMatch(/^x-reseller: 12$/im);
    expect(second.head).not.toMatch(/^x-reseller/im);
  });
});

describe('CancelReq', () => {
  const cancelRsp = (code: number, name = 'CancelRsp'): string =>
    http(
      '200 OK',
      `<E:Envelope xmlns:E="http://schemas.xmlsoap.org/soap/envelope/"><E:Body><${name}><Status><StatusCode>${code}</StatusCode></Status></${name}></E:Body></E:Envelope>`,
    );
  const named = { transactionId: 'tx-1', sender: 'Postcard' };

  it('is true where the carrier says so', async () => {
    const mmsc = await peer((socket) => socket.write(cancelRsp(1000)));
    expect(await carrierTo(mmsc.url).cancel?.('mid-1', named, never)).toBe(true);
    const { head, body } = mmsc.requests[0]!;
    expect(head).toMatch(/^content-type: text\/xml; charset=utf-8$/im);
    const soap = readSoap('text/xml', body);
    expect(soap).toMatchObject({ ok: true, message: { operation: 'CancelReq', transactionId: 'tx-1-cancel' } });
  });

  it('is false where it does not, or nobody answers', async () => {
    const mmsc = await peer((socket, _, n) => (n === 1 ? socket.write(cancelRsp(3001)) : socket.destroy()));
    const carrier = carrierTo(mmsc.url);
    expect(await carrier.cancel?.('mid-1', named, never)).toBe(false);
    expect(await carrier.cancel?.('mid-1', named, never)).toBe(false);
    expect(await carrier.cancel?.('mid-1', named, AbortSignal.abort())).toBe(false);
  });

  it('has a brother, ReplaceReq, that moves what the carrier has early', async () => {
    const mmsc = await peer((socket) => socket.write(cancelRsp(1000, 'ReplaceRsp')));
    const carrier = carrierTo(mmsc.url, { vaspId: 'v' });
    const earlier = { transactionId: 'tx-1', sender: '12345', earliestAt: Date.UTC(2026, 0, 2) };
    expect(await carrier.replace?.('<m-1@x>', earlier, never)).toBe(true);
    const sent = mmsc.requests[0]?.body.toString() ?? '';
    expect(sent).toContain('<mm7:MessageID>&lt;m-1@x&gt;</mm7:MessageID>');
    expect(sent).toContain('<mm7:EarliestDeliveryTime>2026-01-02T00:00:00Z</mm7:EarliestDeliveryTime>');
    expect(sent).toContain(`>tx-1-${earlier.earliestAt}</mm7:TransactionID>`);
    const refuses = await peer((socket) => socket.write(cancelRsp(3001, 'ReplaceRsp')));
    expect(await carrierTo(refuses.url).replace?.('m', earlier, never)).toBe(false);
    expect(await carrierTo(refuses.url).replace?.('m', earlier, AbortSignal.abort())).toBe(false);
  });

  it('is not offered where the carrier does not know it', async () => {
    expect(carrierTo('http://127.0.0.1:1', { cancel: false }).cancel).toBeUndefined();
  });
});

describe('Digest', () => {
  const config = { username: 'user', password: 'pass', auth: 'digest' } as const;
  /** A peer that gives each nonce `uses` requests, then calls it stale. It judges with eyes of its own. */
  const digestPeer = (uses: number, password = 'pass', offer = 'qop="auth", algorithm=MD5', overTls = false) => {
    const algorithm = /algorithm=([\w-]+)/.exec(offer)?.[1] ?? 'MD5';
    const hash = (text: string | Buffer): string =>
      createHash(algorithm.startsWith('MD5') ? 'md5' : 'sha256')
        .update(text)
        .digest('hex');
    let nonce = 0;
    let used = 0;
    return peer(
      (socket, request) => {
        const shown = /^authorization: Digest (.*)$/im.exec(request.head)?.[1] ?? '';
        const field = (name: string): string => new RegExp(`(?:^|, )${name}="?([^",]*)`).exec(shown)?.[1] ?? '';
        const plain = hash(`user:r:${password}`);
        const secret = algorithm.endsWith('-sess') ? hash(`${plain}:${field('nonce')}:${field('cnonce')}`) : plain;
        const what = `POST:/mm7?link=1${field('qop') === 'auth-int' ? `:${hash(request.body)}` : ''}`;
        const between = offer.includes('qop') ? `${field('nc')}:${field('cnonce')}:${field('qop')}:` : '';
        const right = hash(`${secret}:${field('nonce')}:${between}${hash(what)}`);
        const stale = field('nonce') !== `n${nonce}` || used >= uses;
        const counted = !offer.includes('qop') || Number.parseInt(field('nc'), 16) === used + 1;
        if (shown !== '' && field('response') === right && !stale && counted && field('algorithm') === algorithm) {
          used++;
          socket.write(success(request));
          return;
        }
        if (stale) {
          nonce++;
          used = 0;
        }
        const challenge = `WWW-Authenticate: Digest realm="r", nonce="n${nonce}", ${offer}${stale ? ', stale=true' : ''}`;
        socket.write(http('401 Unauthorized', 'no', `Content-Type: text/plain\r\n${challenge}\r\n`));
      },
      undefined,
      overTls ? (onSocket) => createTlsServer({ cert: SERVER_CERT, key: SERVER_KEY }, onSocket) : createServer,
    );
  };

  it.each([
    'qop="auth", algorithm=MD5',
    'qop="auth"',
    'qop=auth, algorithm=MD5-sess',
    'qop="auth", algorithm=SHA-256',
    'qop="auth,auth-int", algorithm=SHA-256-sess',
    'qop="auth-int", algorithm=MD5',
    'qop="auth-int", algorithm=SHA-256',
    'algorithm=MD5',
    'algorithm=SHA-256',
  ])('is understood by a peer that offers %s', async (offer) => {
    const mmsc = await digestPeer(2, 'pass', offer);
    const carrier = carrierTo(mmsc.url, config);
    for (let n = 0; n < 3; n++) expect((await carrier.submit(submission, never)).kind).toBe('accepted');
    // One challenge at the start, one where the nonce had become stale.
    expect(mmsc.requests).toHaveLength(5);
  });

  it('goes over TLS, too, and CancelReq shows it', async () => {
    const mmsc = await digestPeer(10, 'pass', 'qop="auth", algorithm=SHA-256', true);
    const carrier = carrierTo(mmsc.url.replace('http:', 'https:'), { ...config, tls: { ca: CA } });
    expect((await carrier.submit(submission, never)).kind).toBe('accepted');
    await carrier.cancel?.('mid-1', submission, never);
    expect(mmsc.requests).toHaveLength(3);
    expect(mmsc.requests[2]?.body.toString()).toContain('CancelReq');
    expect(mmsc.requests[2]?.head).toMatch(/^authorization: Digest .*nc=00000002/im);
  });

  it('answers a challenge, then uses its nonce again', async () => {
    const mmsc = await digestPeer(10);
    const carrier = carrierTo(mmsc.url, config);
    for (let n = 0; n < 3; n++) expect((await carrier.submit(submission, never)).kind).toBe('accepted');
    expect(mmsc.requests).toHaveLength(4);
    expect(mmsc.requests[0]?.head).not.toMatch(/^authorization/im);
  });

  it('takes a new nonce where the old one is stale', async () => {
    const mmsc = await digestPeer(1);
    const carrier = carrierTo(mmsc.url, config);
    for (let n = 0; n < 3; n++) expect((await carrier.submit(submission, never)).kind).toBe('accepted');
    expect(mmsc.requests).toHaveLength(6);
  });

  it('with a wrong password is asked twice and waits', async () => {
    const mmsc = await digestPeer(10, 'other');
    expect(await carrierTo(mmsc.url, config).submit(submission, never)).toMatchObject({
      kind: 'deferred',
      error: { words: expect.stringContaining('HTTP 401') },
    });
    expect(mmsc.requests).toHaveLength(2);
  });

  it('is not answered once the time of the submission is over: what was challenged was not taken, and goes back', async () => {
    const mmsc = await digestPeer(10);
    const carrier = carrierTo(mmsc.url, config);
    const asked: number[] = [];
    const hand = {
      ...{ leaves: () => true, turn: () => ({ come: async () => true, drop: () => undefined }), late: () => undefined },
      // It closes while the peer makes its challenge.
      open: () => asked.push(mmsc.requests.length) === 1,
    };
    expect(await carrier.submit(submission, never, hand)).toMatchObject({ kind: 'deferred' });
    expect([asked, mmsc.requests.length]).toEqual([[0, 1], 1]);
  });

  it('never shows the password', async () => {
    const mmsc = await digestPeer(10);
    await carrierTo(mmsc.url, config).submit(submission, never);
    for (const { head } of mmsc.requests) expect(head).not.toMatch(/Basic|pass/);
  });
});

describe('TLS', () => {
  const tlsPeer = (): Promise<Peer> =>
    peer(
      (socket, request) =>
        socket.write(success(request, (socket as TLSSocket).getPeerCertificate().subject?.CN as string)),
      undefined,
      (onSocket) => {
        const options = { cert: SERVER_CERT, key: SERVER_KEY, ca: CA, requestCert: true, rejectUnauthorized: true };
        const server = createTlsServer(options, onSocket);
        server.on('tlsClientError', () => {});
        return server;
      },
    );
  const at = ({ url }: Peer): string => url.replace('http:', 'https:');
  const ours = { cert: CLIENT_CERT, key: CLIENT_KEY };

  it('shows our certificate, and believes the configured authority', async () => {
    const mmsc = await tlsPeer();
    expect(await submit(at(mmsc), { tls: { ca: CA, ...ours } })).toMatchObject({
      kind: 'accepted',
      carrierMessageId: 'mmsc.example',
    });
  });

  it.each<[string, Mm7Config['tls']]>([
    ['from an unknown authority', { ca: OTHER_CA, ...ours }],
    ['without an authority to believe', ours],
    ['of another name', { ca: CA, ...ours, servername: 'mmsc.example' }],
  ])('to a peer with a certificate %s sends nothing: deferred', async (_, tls) => {
    const mmsc = await tlsPeer();
    expect((await submit(at(mmsc), { tls })).kind).toBe('deferred');
    expect(mmsc.requests).toHaveLength(0);
  });

  it('asks for a certificate that we have not: its alert comes after the request, which it has not read, so deferred', async () => {
    const mmsc = await tlsPeer();
    expect(await submit(at(mmsc), { tls: { ca: CA } })).toMatchObject({
      kind: 'deferred',
      elsewhere: true,
      error: { words: expect.stringContaining('the carrier wants a TLS certificate of ours, or another one') },
    });
    expect(mmsc.requests).toHaveLength(0);
  });
});
