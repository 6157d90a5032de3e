/**
 * What servers say, sorted: which errors mean that the connection is lost, which that the server cannot take writes now, which settings
 * make it unfit. Pure.
 */
import pg from 'pg';
import { StoreUnavailable } from '../contract.ts';

/** An identifier. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Nothing was heard for too long. */
export class Silence extends Error {
  override readonly name = 'Silence';
}

/** SQLSTATE of a server's answer, '' for anything else (a socket's error has a code too, but no severity). */
export function sqlState(error: unknown): string {
  const { code, severity } = error as { code?: string; severity?: string };
  return typeof code === 'string' && typeof severity === 'string' ? code : '';
}

/** The connection is gone or of no use: closed, ended by the server (57P0x, 25P03), refused (08), or read-only now. */
export function isLost(error: unknown): boolean {
  const state = sqlState(error);
  if (state === '') return !(error instanceof StoreUnavailable) && isTransport(error);
  return /^(08(?!P01)|57P0|25P03|25006|3D000|28)/.test(state) || (error as { severity?: string }).severity === 'FATAL';
}

function isTransport(error: unknown): boolean {
  if (error instanceof Silence) return true;
  const { code, message } = error as { code?: string; message?: string };
  if (typeof code === 'string' && /^(E[A-Z]+|ERR_STREAM_.*|ERR_SOCKET_.*)$/.test(code)) return true;
  return /Connection terminated|not queryable|Client was closed|timeout expired/i.test(message ?? '');
}

/** An error of the start of a session, in words that help where the client's own do not. */
export function openingError(error: unknown): unknown {
  const { message } = error as { message?: string };
  if (!/password must be a/.test(message ?? '')) return error;
  return new Error('the server asks for a password, and the URL has none');
}

/** The server cannot take writes now: disk full, memory, connections, I/O, a statement or lock out of time. */
export function isRefusal(error: unknown): boolean {
  return /^(53|58|57014|55P03)/.test(sqlState(error));
}

/** What makes a server unfit, in one line, or null. */
export function unsafeSettings(server: {
  version: number;
  fsync: string;
  pages: string;
  standby: boolean;
  readonly: string;
}): string | null {
  if (server.version < 150_000) {
    return `this is PostgreSQL ${Math.floor(server.version / 10_000)}; Postcard needs 15 or newer`;
  }
  if (server.fsync !== 'on') return 'fsync is off, so an acknowledged message could be lost; set fsync = on';
  if (server.pages !== 'on') {
    return 'full_page_writes is off, so a crash could damage the data; set full_page_writes = on';
  }
  if (server.standby)
    return 'this server is a standby and takes no writes; name the primary (or both, comma-separated)';
  if (server.readonly === 'on') return 'default_transaction_read_only is on for this role or database; turn it off';
  return null;
}

/** How values are read. */
export const TYPES = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    // bigint: numbers, instants and counts here stay below 2^53.
    if (oid === 20) return Number;
    if (oid === 1016) return (text: string) => (text === '{}' ? [] : text.slice(1, -1).split(',').map(Number));
    return pg.types.getTypeParser(oid, format as 'text');
  },
} as pg.CustomTypesConfig;
