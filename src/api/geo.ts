/**
 * Where an address is, by a database that the operator gives (MaxMind DB format, as GeoLite2 City and others have it).
 *
 * Promises: nothing leaves the machine. Fails: `createGeo` throws where the bytes are no such database; an address that it does
 * not know is null.
 */
import { type CityResponse, Reader } from 'mmdb-lib';
import type { Geo } from './links.ts';

/** Look-ups in the bytes of a database, in English names. */
export function createGeo(bytes: Buffer): Geo {
  const reader = new Reader<CityResponse>(bytes);
  return (address) => {
    let found: CityResponse | null;
    try {
      found = reader.get(address);
    } catch {
      // No address, or a family that the database does not have.
      return null;
    }
    const countryName = found?.country?.names?.en ?? found?.registered_country?.names?.en ?? '';
    const city = found?.city?.names?.en ?? '';
    return countryName === '' && city === '' ? null : { countryName, city };
  };
}
