/**
 * Who listens on the way: the customer's door behind its own TLS, and what its answers allow a browser. The carriers' listener has
 * the same in `src/carriers/mm7/listener.test.ts`.
 */
import { once } from 'node:events';
import { get, type RequestOptions } from 'node:https';
import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';
import { type DetailedPeerCertificate, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KEY, type OpenDoor, openDoor } from '../api/door.ts';
import { CA, CLIENT_CERT, CLIENT_KEY, OTHER_CA, SERVER_CERT, SERVER_KEY } from '../certificates.ts';

let door: OpenDoor;

beforeAll(async () => {
  door = await openDoor({ tls: { cert: SERVER_CERT, key: SERVER_KEY } });
});

afterAll(() => door?.close());

interface Got {
  status: number;
  headers: Record<string, unknown>;
  body: string;
  certificate: string;
}

function ask(path: string, options: RequestOptions = {}): Promise<Got> {
  return new Promise((resolve, reject) => {
    get(`https://localhost:${door.port}${path}`, { ca: CA, agent: false, ...options }, (response) => {
      // Gone from the socket once the answer has ended.
      const certificate = ((response.socket as TLSSocket).getPeerCertificate() as DetailedPeerCertificate).subject.CN;
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body,
          certificate: String(certificate),
        }),
      );
    }).on('error', reject);
  });
}

describe('the door behind TLS', () => {
  it('answers who believes its authority, and says that there is nothing but https here', async () => {
    expect(door.url).toMatch(/^https:/);
    const got = await ask('/livez');
    expect(got).toMatchObject({ status: 200, body: 'ok\n', certificate: 'localhost' });
    expect(got.headers['strict-transport-security']).toBe('max-age=31536000');
    const logs = await ask('/mms/2/logs', { headers: { authorization: `App ${KEY}` } });
    expect(logs.status).toBe(200);
  });

  it('is not believed by who believes another', async () => {
    await expect(ask('/livez', { ca: OTHER_CA })).rejects.toThrow(/certificate|issuer/);
  });

  it('never answers plain HTTP, so that no key is sent twice in clear', async () => {
    const text = await door
      .raw(`GET /mms/2/logs HTTP/1.1\r\nhost: x\r\nauthorization: App ${KEY}\r\n\r\n`)
      .catch(() => '');
    expect(text).not.toContain('HTTP/1.1 ');
  });

  it.each(['TLSv1', 'TLSv1.1'] as const)('does not speak %s', async (version) => {
    const socket = tlsConnect({
      port: door.port,
      host: '127.0.0.1',
      ca: CA,
      servername: 'localhost',
      minVersion: version,
      maxVersion: version,
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    await expect(once(socket, 'secureConnect')).rejects.toThrow(/protocol|alert/i);
  });

  it('takes a renewed certificate for new connections, and keeps the old one where the new one is none', async () => {
    door.renew({ cert: CLIENT_CERT, key: CLIENT_KEY });
    const got = await ask('/livez', { checkServerIdentity: () => undefined });
    expect(got.certificate).toBe('mmsc.example');
    expect(() => door.renew({ cert: 'none', key: 'none' })).toThrow();
    expect((await ask('/livez', { checkServerIdentity: () => undefined })).certificate).toBe('mmsc.example');
    door.renew({ cert: SERVER_CERT, key: SERVER_KEY });
    expect((await ask('/livez')).certificate).toBe('localhost');
  });

  it('closes at once although connections stand idle, or have said half a greeting', async () => {
    const other = await openDoor({ tls: { cert: SERVER_CERT, key: SERVER_KEY } });
    const idle = tlsConnect({ port: other.port, host: '127.0.0.1', ca: CA, servername: 'localhost' });
    await once(idle, 'secureConnect');
    const silent = connect(other.port, '127.0.0.1');
    await once(silent, 'connect');
    for (const socket of [idle, silent]) socket.on('error', () => undefined);
    const began = performance.now();
    await other.close();
    // Waiting for them would take 10 s.
    expect(performance.now() - began).toBeLessThan(5000);
    idle.destroy();
    silent.destroy();
  });
});

describe('every answer', () => {
  it.each(['/livez', '/openapi.json', '/metrics', '/mms/2/logs', '/mms/1/none', '/mms/2/none', '/mms/2/messages/none'])(
    'allows a browser nothing: %s',
    async (path) => {
      for (const headers of [{}, { authorization: `App ${KEY}` }]) {
        const got = await ask(path, { headers });
        expect(got.headers).toMatchObject({
          'x-content-type-options': 'nosniff',
          'content-security-policy': "default-src 'none'; frame-ancestors 'none'; sandbox",
          'referrer-policy': 'no-referrer',
        });
        expect(got.headers).not.toHaveProperty('access-control-allow-origin');
        expect(got.headers).not.toHaveProperty('server');
        expect(got.headers).not.toHaveProperty('x-powered-by');
      }
    },
  );
});
