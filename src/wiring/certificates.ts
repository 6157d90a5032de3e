/**
 * Our certificates, for customers and for carriers, read from the files that the settings name.
 *
 * Fails: StartError where a file cannot be read, or the two are no certificate with its key.
 */
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { Config } from '../config.ts';
import { StartError } from './start-error.ts';

/** PEM. */
export interface Certificate {
  cert: string;
  key: string;
}

/** For carriers that call by https; null = there is none. */
export function listenerTls({ carrierTlsCert: cert, carrierTlsKey: key }: Config): Certificate | null {
  return certificate('POSTCARD_CARRIER_TLS', cert, key);
}

/** For customers; null = there is none. */
export function apiTls({ tlsCert, tlsKey }: Config): Certificate | null {
  return certificate('POSTCARD_TLS', tlsCert, tlsKey);
}

function certificate(settings: string, certFile: string | null, keyFile: string | null): Certificate | null {
  if (certFile === null || keyFile === null) return null;
  const read = (name: string, file: string): string => {
    try {
      return readFileSync(file, 'utf8');
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code ?? String(error);
      throw new StartError([`${name}: cannot read ${file} (${why}); name a readable PEM file`]);
    }
  };
  const pair = { cert: read(`${settings}_CERT`, certFile), key: read(`${settings}_KEY`, keyFile) };
  try {
    createSecureContext(pair);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new StartError([`${settings}_CERT: ${certFile} and ${keyFile} are no certificate with its key (${why})`]);
  }
  return pair;
}
