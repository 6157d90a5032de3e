/** Connections to an SMSC over real sockets: who is believed, who believes us, and what is said where it comes to nothing. */
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions as ServerTls } from 'node:tls';
import { afterEach, describe, expect, it } from 'vitest';
import {
  CA,
  CLIENT_CERT,
  CLIENT_KEY,
  OTHER_CA,
  SERVER_CERT,
  SERVER_KEY,
  STRANGER_CERT,
  STRANGER_KEY,
} from '../../../test/certificates.ts';
import { testEnv } from '../../env.ts';
import { dial, reasonOf, type Target } from './dial.ts';
import { createSmppCarrier, probeSmsc, type TlsOptions } from './smpp.ts';

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A server, and what it heard (nothing of a handshake). */
async function server(tls: ServerTls | null): Promise<{ port: number; heard: Buffer[] }> {
  const heard: Buffer[] = [];
  const open = new Set<Socket>();
  const each = (socket: Socket): void => {
    open.add(socket);
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => heard.push(chunk));
  };
  const listening: Server =
    tls === null ? createServer(each) : createTlsServer({ cert: SERVER_CERT, key: SERVER_KEY, ...tls }, each);
  listening.on('tlsClientError', () => undefined);
  if (tls !== null) listening.on('connection', (socket) => open.add(socket));
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  closing.push(() => {
    for (const socket of open) socket.destroy();
    return new Promise((resolve) => listening.close(resolve));
  });
  return { port: (listening.address() as { port: number }).port, heard };
}

/** What the doctor hears, with the second that a server has for its thoughts passing at once when all is said. */
async function probed(port: number, tls: boolean | TlsOptions, host = '127.0.0.1'): Promise<string> {
  const env = testEnv();
  let told: string | null = null;
  void probeSmsc({ host, port, tls, connectTimeoutMs: 600_000 }, env).then((words) => {
    told = words;
  });
  for (let turns = 0; told === null; turns++) {
    await turn();
    if (turns % 300 === 299) await env.clock.advance(1_000);
  }
  return told;
}

const MUTUAL: ServerTls = { ca: CA, requestCert: true, rejectUnauthorized: true };

describe('an SMSC over TLS', () => {
  it('is believed with the authority that is configured, by its address or name', async () => {
    const { port, heard } = await server({});
    expect(await probed(port, { ca: CA })).toBe('');
    expect(await probed(port, { ca: CA }, 'localhost')).toBe('');
    expect(heard).toEqual([]);
  });

  it.each<[string, boolean | TlsOptions, RegExp]>([
    [
      'of an authority that is not trusted',
      true,
      /^its certificate is signed by nobody that is trusted: give .*caFile/,
    ],
    ['of another authority', { ca: OTHER_CA }, /^its certificate is signed by nobody that is trusted/],
    [
      'for another name',
      { ca: CA, servername: 'mmsc.example' },
      /^its certificate is for DNS:localhost.*, not mmsc\.example: set tls\.servername/,
    ],
  ])('with a certificate %s is told nothing', async (_, tls, words) => {
    const { port, heard } = await server({});
    expect(await probed(port, tls)).toMatch(words);
    expect(heard).toEqual([]);
  });

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('that wants a certificate takes ours and no other, %s', async (version) => {
    const { port, heard } = await server({ ...MUTUAL, minVersion: version, maxVersion: version });
    expect(await probed(port, { ca: CA, cert: CLIENT_CERT, key: CLIENT_KEY })).toBe('');
    expect(await probed(port, { ca: CA })).toMatch(
      /^it refused our TLS certificate, or wants one: give tls\.certFile and tls\.keyFile/,
    );
    // This server says nothing more.
    expect(await probed(port, { ca: CA, cert: STRANGER_CERT, key: STRANGER_KEY })).toMatch(
      /^it hung up at the TLS handshake: it may want a certificate of ours, or another one/,
    );
    expect(heard).toEqual([]);
  });

  it('that is none: a port without TLS says so', async () => {
    const plain = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    });
    await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
    closing.push(() => new Promise((resolve) => plain.close(resolve)));
    const { port } = plain.address() as { port: number };
    expect(await probed(port, true)).toMatch(/^it does not speak TLS on this port/);
  });

  it('is bound to with our certificate, and without it the carrier says what is missing', async () => {
    const { port, heard } = await server(MUTUAL);
    const carrierOf = (tls: TlsOptions) => {
      const env = testEnv();
      const carrier = createSmppCarrier(
        { name: 'c', host: '127.0.0.1', port, tls, systemId: 'esme', password: 'secret' },
        { onReport: async () => undefined, onInbound: async () => undefined },
        env,
      );
      closing.push(async () => {
        let done = false;
        void carrier.close().then(() => {
          done = true;
        });
        while (!done) await env.clock.advance(1_000);
      });
      return carrier;
    };
    const bare = carrierOf({ ca: CA });
    while (bare.health().trouble === '') await turn();
    expect(bare.health().trouble).toMatch(/it refused our TLS certificate, or wants one/);
    expect(heard).toEqual([]);
    carrierOf({ ca: CA, cert: CLIENT_CERT, key: CLIENT_KEY });
    while (heard.length === 0) await turn();
    // bind_transceiver, and the password in it.
    expect(heard[0]?.readUInt32BE(4)).toBe(9);
    expect(heard[0]?.includes('secret')).toBe(true);
  });
});

describe('an SMSC that is not there', () => {
  it('has a reason', async () => {
    const { port } = await server(null);
    expect(await probed(port, false)).toBe('');
    await closing.pop()?.();
    expect(await probed(port, false)).toBe('nobody listens there (ECONNREFUSED)');
    expect(await probed(port, false, 'no-such-host.invalid')).not.toBe('');
  });

  it('is given up at the limit, or when nobody wants it any more', async () => {
    const env = testEnv();
    const target: Target = {
      host: 'smsc.example',
      port: 1,
      tls: false,
      connectTimeoutMs: 5_000,
      resolve: () => new Promise(() => undefined),
    };
    const never = new AbortController().signal;
    // A name server that says nothing is within the limit too.
    const mute = await server({});
    const slow = { ...target, tls: true, resolve: async () => ['127.0.0.1'], port: mute.port };
    await expect(dial({ ...slow, port: mute.port }, env, AbortSignal.abort())).rejects.toThrow('given up');
    const late = expect(dial({ ...target, host: '192.0.2.1' }, env, never)).rejects.toThrow(
      /not within 5000 ms|E[A-Z]+/,
    );
    await env.clock.advance(5_000);
    await late;
  });
});

describe('words', () => {
  it('carry the code where there is one, and are short', () => {
    expect(reasonOf(new Error('not within 10 ms'))).toBe('not within 10 ms');
    expect(reasonOf(Object.assign(new Error('x'), { code: 'CERT_HAS_EXPIRED' }))).toBe(
      'its certificate has expired (CERT_HAS_EXPIRED)',
    );
    expect(reasonOf(Object.assign(new Error('what else'), { code: 'EPROTO' }))).toBe('what else (EPROTO)');
    expect(reasonOf(new Error('x'.repeat(1_000)))).toHaveLength(200);
  });
});
