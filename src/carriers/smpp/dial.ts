/**
 * A connection to an SMSC, over TCP or TLS, and in plain words why there is none.
 *
 * Promises: each address of the name is tried in its order, all within one limit. With TLS the peer has shown a certificate that is
 * trusted and made out to the name before anything is given back, so nothing is ever said to somebody else.
 *
 * Fails: `dial` rejects with an Error whose message `reasonOf` puts into words; whatever it had begun is closed.
 */
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { Env } from '../../env.ts';

/** TLS beyond "yes": what `node:tls` takes, in PEM form. */
export interface TlsOptions {
  ca?: string | undefined;
  cert?: string | undefined;
  key?: string | undefined;
  passphrase?: string | undefined;
  /** The name in the peer's certificate, where it is not `host`. */
  servername?: string | undefined;
}

/** Where to. */
export interface Target {
  host: string;
  port: number;
  /** True = the system's trust. */
  tls: boolean | TlsOptions;
  connectTimeoutMs: number;
  /** Addresses of a name, best first. */
  resolve(host: string): Promise<string[]>;
}

/** With TLS 1.3 a server judges our certificate after we took the connection for made: it has this long to refuse it. */
const SECOND_THOUGHTS_MS = 1_000;

/** Connects. When `signal` aborts, it rejects soon. */
export async function dial(target: Target, env: Env, signal: AbortSignal): Promise<Socket> {
  const { host, connectTimeoutMs } = target;
  const over = new AbortController();
  const give = (why: string) => () => over.abort(new Error(why));
  const limit = env.clock.setTimeout(give(`not within ${connectTimeoutMs} ms`), connectTimeoutMs);
  const stop = give('given up');
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    const addresses = isIP(host) ? [host] : await target.resolve(host);
    let failed: unknown = new Error('the name has no addresses');
    for (const address of addresses) {
      over.signal.throwIfAborted();
      try {
        return await connectTo(address, target, over.signal);
      } catch (error) {
        failed = error;
      }
    }
    over.signal.throwIfAborted();
    throw failed;
  } finally {
    limit.cancel();
    signal.removeEventListener('abort', stop);
  }
}

/** Connects, says nothing and leaves: why a bind could not even be tried, '' = it could. Never rejects. */
export async function probe(target: Target, env: Env): Promise<string> {
  try {
    const socket = await dial(target, env, new AbortController().signal);
    let refused = '';
    socket.on('error', (error) => {
      refused = reasonOf(error);
    });
    socket.on('close', () => {
      refused ||= HUNG_UP;
    });
    if (target.tls) {
      socket.resume();
      await env.clock.sleep(SECOND_THOUGHTS_MS);
    }
    const words = refused;
    socket.destroy();
    return words;
  } catch (error) {
    return reasonOf(error as Error);
  }
}

function connectTo(address: string, { host, port, tls }: Target, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const named = isIP(host) ? {} : { servername: host };
    const socket = tls
      ? connectTls({ host: address, port, ...named, ...(tls === true ? {} : withoutUndefined(tls)) })
      : connectTcp({ host: address, port });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    const ready = tls ? 'secureConnect' : 'connect';
    const end = (): void => {
      signal.removeEventListener('abort', onAbort);
      socket.off('close', onClose);
      socket.off(ready, onReady);
    };
    const failed = (error: Error): void => {
      end();
      // What it may still say is of no use.
      socket.on('error', () => undefined);
      socket.destroy();
      reject(error);
    };
    const onAbort = (): void => failed(signal.reason as Error);
    const onClose = (): void => failed(new Error('connection closed'));
    const onReady = (): void => {
      end();
      socket.off('error', failed);
      resolve(socket);
    };
    socket.once('error', failed);
    socket.once('close', onClose);
    socket.once(ready, onReady);
    signal.addEventListener('abort', onAbort, { once: true });
  });
}

function withoutUndefined(options: TlsOptions): Record<string, string> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Record<
    string,
    string
  >;
}

// --------------------------------------------------------------------------------------------------------------- words

const UNTRUSTED = 'its certificate is signed by nobody that is trusted: give the authority in tls.caFile';
const WANTS_OURS = 'it refused our TLS certificate, or wants one: give tls.certFile and tls.keyFile';
const HUNG_UP = 'it hung up at the TLS handshake: it may want a certificate of ours, or another one';
/** By the codes of Node and OpenSSL. */
const REASONS: Readonly<Record<string, string>> = {
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED,
  DEPTH_ZERO_SELF_SIGNED_CERT: UNTRUSTED,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT: UNTRUSTED,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED,
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet',
  CERT_REVOKED: 'its certificate was revoked',
  ERR_SSL_WRONG_VERSION_NUMBER: 'it does not speak TLS on this port',
  ERR_SSL_PACKET_LENGTH_TOO_LONG: 'it does not speak TLS on this port',
  ERR_SSL_UNSUPPORTED_PROTOCOL: 'it speaks no version of TLS that is safe',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: WANTS_OURS,
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: WANTS_OURS,
  'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE': WANTS_OURS,
  ECONNREFUSED: 'nobody listens there',
  ECONNRESET: 'it hung up',
  EHOSTUNREACH: 'there is no way to it',
  ENETUNREACH: 'there is no way to it',
  ETIMEDOUT: 'no answer',
};
/** OpenSSL's names of what a peer says of our certificate. */
const OF_OURS = /ALERT_(?:BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_\w+|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)/;

/** Why a connection was not made or ended, with the code in brackets where there is one. */
export function reasonOf(error: NodeJS.ErrnoException): string {
  const { code = '', message } = error;
  if (code === 'ECONNRESET' && /before secure TLS/.test(message)) return `${HUNG_UP} (${code})`;
  const known = REASONS[code] ?? (OF_OURS.test(code) ? WANTS_OURS : undefined);
  if (known !== undefined) return `${known} (${code})`;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const { host = '', cert } = error as { host?: string; cert?: { subjectaltname?: string } };
    const names = cert?.subjectaltname ?? 'another name';
    return `its certificate is for ${names}, not ${host}: set tls.servername (${code})`.slice(0, 200);
  }
  return (code === '' || message.includes(code) ? message : `${message} (${code})`).slice(0, 200);
}
