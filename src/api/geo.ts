/**
 * Where an address is, by a database that the operator gives (MaxMind DB format, as GeoLite2 City and others have it).
 *
 * Promises: nothing leaves the machine; an address that is not known, or a damaged entry, is null. A file that is replaced is taken
 * over within LOOK_MS of the next click, without a restart: such databases are renewed twice a week.
 *
 * Fails: `createGeo` throws where the bytes are no such database. While the server runs that is a line in the log, and the one
 * that was read before goes on to answer.
 */
import { isIP } from 'node:net';
import { type CityResponse, Reader } from 'mmdb-lib';
import type { Env } from '../env.ts';
import type { Geo } from './links.ts';

/** Zero bytes between the tree of a database and its data. */
const SEPARATOR = 16;
/** An IPv4 address as a socket that takes both families names it. */
const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/** Look-ups in the bytes of a database, in English names. Throws where they are none. */
export function createGeo(bytes: Buffer): Geo {
  const reader = new Reader<CityResponse>(bytes);
  const { searchTreeSize } = reader.metadata;
  const separator = bytes.subarray(searchTreeSize, searchTreeSize + SEPARATOR);
  if (separator.length < SEPARATOR || separator.some((byte) => byte !== 0)) throw new Error('the database is damaged');
  return (given) => {
    const address = MAPPED.exec(given)?.[1] ?? given;
    const family = isIP(address);
    // The reader would take any text for an address, and walk a tree of IPv4 by the first bits of an IPv6 one.
    if (family === 0 || (family === 6 && reader.metadata.ipVersion === 4)) return null;
    let found: CityResponse | null;
    try {
      found = reader.get(address);
    } catch {
      // A damaged entry.
      return null;
    }
    const country = found?.country?.names?.en ?? found?.registered_country?.names?.en;
    const city = found?.city?.names?.en;
    const place = { countryName: wordOf(country), city: wordOf(city) };
    return place.countryName === '' && place.city === '' ? null : place;
  };
}

/** What a database holds is anybody's: only texts are places. */
function wordOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** How often it is looked whether the file is another one. */
const LOOK_MS = 10_000;

/** A database file. */
interface GeoFile {
  path: string;
  read(): Promise<Buffer>;
  /** Names its state: differs when the file does, '' = there is none. */
  state(): string;
}

/** Look-ups in a file that may be replaced. `bytes`: what it held when its state was `state`. Throws as `createGeo`. */
export function followGeo(file: GeoFile, { bytes, state }: { bytes: Buffer; state: string }, env: Env): Geo {
  let geo = createGeo(bytes);
  let seen = state;
  let lookedAt = env.clock.monotonic();

  async function renew(): Promise<void> {
    try {
      if (seen === '') throw new Error('it is gone');
      geo = createGeo(await file.read());
      env.log.info({ file: file.path }, 'geo database taken over');
    } catch (error) {
      const why = (error as NodeJS.ErrnoException).code ?? (error as Error).message;
      env.log.warn({ file: file.path, why }, 'geo database cannot be read, the one before is used');
    }
  }

  return (address) => {
    const now = env.clock.monotonic();
    if (now - lookedAt >= LOOK_MS) {
      lookedAt = now;
      const state = file.state();
      // One that cannot be read is tried again when it has changed again.
      if (state !== seen) {
        seen = state;
        void renew();
      }
    }
    return geo(address);
  };
}
