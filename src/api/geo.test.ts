/** Places by databases in the MaxMind DB format (version 2.0), which are written here as its specification says. */
import { isIPv6 } from 'node:net';
import { describe, expect, it } from 'vitest';
import { testEnv } from '../env.ts';
import { createGeo, followGeo } from './geo.ts';

type Value = string | number | boolean | bigint | Value[] | { [name: string]: Value };

/** A control byte of a type with its size. Types above 7 stand in a byte of their own. */
function control(type: number, size: number): Buffer {
  const first = type > 7 ? 0 : type << 5;
  const extended = type > 7 ? [type - 7] : [];
  if (size < 29) return Buffer.from([first | size, ...extended]);
  if (size < 285) return Buffer.from([first | 29, ...extended, size - 29]);
  return Buffer.from([first | 30, ...extended, (size - 285) >> 8, (size - 285) & 255]);
}

function encode(value: Value): Buffer {
  if (typeof value === 'string') {
    const bytes = Buffer.from(value);
    return Buffer.concat([control(2, bytes.length), bytes]);
  }
  if (typeof value === 'boolean') return control(14, value ? 1 : 0);
  if (typeof value === 'bigint') {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(value);
    return Buffer.concat([control(9, 8), bytes]);
  }
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(Number.isInteger(value) ? 4 : 8);
    if (Number.isInteger(value)) bytes.writeUInt32BE(value);
    else bytes.writeDoubleBE(value);
    return Buffer.concat([control(Number.isInteger(value) ? 6 : 3, bytes.length), bytes]);
  }
  if (Array.isArray(value)) return Buffer.concat([control(11, value.length), ...value.map(encode)]);
  const members = Object.entries(value);
  return Buffer.concat([control(7, members.length), ...members.flatMap(([k, v]) => [encode(k), encode(v)])]);
}

function bitsOf(address: string, ipVersion: 4 | 6): string {
  const octets = (text: string): number[] => text.split('.').map(Number);
  const bytes = isIPv6(address) ? groupsOf(address).flatMap((group) => [group >> 8, group & 255]) : octets(address);
  const bits = bytes.map((byte) => byte.toString(2).padStart(8, '0')).join('');
  // In a tree for IPv6, IPv4 stands under ::/96.
  return ipVersion === 6 && bits.length === 32 ? '0'.repeat(96) + bits : bits;
}

function groupsOf(address: string): number[] {
  const [head = '', tail] = address.split('::');
  const numbers = (text: string): number[] =>
    text === '' ? [] : text.split(':').map((one) => Number.parseInt(one, 16));
  const [before, after] = [numbers(head), numbers(tail ?? '')];
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

interface Database {
  ipVersion?: 4 | 6;
  recordSize?: 24 | 28 | 32;
  /** Networks (`1.2.0.0/16`) and what is known of them. */
  networks: Record<string, Value>;
  /** Entries after the first are pointers to it where they are equal (as real databases do). */
  type?: string;
}

/** The bytes of a database. */
function database({ ipVersion = 6, recordSize = 28, networks, type = 'GeoLite2-City' }: Database): Buffer {
  interface Node {
    no: number;
    sides: [Node | number | null, Node | number | null];
  }
  const nodes: Node[] = [{ no: 0, sides: [null, null] }];
  const parts: Buffer[] = [];
  const placed = new Map<string, number>();
  let length = 0;
  for (const [network, value] of Object.entries(networks)) {
    const [address = '', prefix] = network.split('/');
    const skip = ipVersion === 6 && !isIPv6(address) ? 96 : 0;
    const bits = bitsOf(address, ipVersion).slice(0, skip + Number(prefix));
    const name = JSON.stringify(value);
    if (!placed.has(name)) {
      const bytes = encode(value);
      placed.set(name, length);
      parts.push(bytes);
      length += bytes.length;
    }
    let node = nodes[0] as Node;
    for (let depth = 0; depth < bits.length; depth++) {
      const side = Number(bits[depth]);
      if (depth === bits.length - 1) {
        node.sides[side] = placed.get(name) as number;
        break;
      }
      let next = node.sides[side];
      if (next === null || next === undefined || typeof next === 'number') {
        next = { no: nodes.length, sides: [null, null] };
        nodes.push(next);
        node.sides[side] = next;
      }
      node = next;
    }
  }
  const record = (side: Node | number | null): number =>
    side === null ? nodes.length : typeof side === 'number' ? nodes.length + 16 + side : side.no;
  const tree = nodes.map(({ sides }) => {
    const [left, right] = sides.map(record) as [number, number];
    const bytes = Buffer.alloc(recordSize / 4);
    if (recordSize === 24) {
      bytes.writeUIntBE(left, 0, 3);
      bytes.writeUIntBE(right, 3, 3);
    } else if (recordSize === 28) {
      bytes.writeUIntBE(left & 0xff_ffff, 0, 3);
      bytes[3] = ((left >> 24) << 4) | (right >> 24);
      bytes.writeUIntBE(right & 0xff_ffff, 4, 3);
    } else {
      bytes.writeUInt32BE(left, 0);
      bytes.writeUInt32BE(right, 4);
    }
    return bytes;
  });
  const metadata = encode({
    node_count: nodes.length,
    record_size: recordSize,
    ip_version: ipVersion,
    database_type: type,
    languages: ['en'],
    binary_format_major_version: 2,
    binary_format_minor_version: 0,
    build_epoch: 1_764_000_000n,
    description: { en: 'a test' },
  });
  const marker = Buffer.concat([Buffer.from([0xab, 0xcd, 0xef]), Buffer.from('MaxMind.com')]);
  return Buffer.concat([...tree, Buffer.alloc(16), ...parts, marker, metadata]);
}

const named = (country: string, city?: string): Value => ({
  ...(city === undefined ? {} : { city: { geoname_id: 5_368_361, names: { de: `${city} (de)`, en: city } } }),
  country: { iso_code: 'XX', names: { de: `${country} (de)`, en: country }, is_in_european_union: true },
  location: { latitude: 34.0544, longitude: -118.2441, time_zone: 'America/Los_Angeles' },
  subdivisions: [{ iso_code: 'CA', names: { en: 'California' } }],
});
const NETWORKS = {
  '81.2.69.0/24': named('United Kingdom', 'London'),
  '1.128.0.0/11': named('Australia'),
  '2001:db8:1234::/48': named('Switzerland', 'Zürich'),
  '203.0.113.7/32': { registered_country: { names: { en: 'Norway' } } },
  '192.0.2.0/24': { traits: { is_anonymous_proxy: true } },
};
const LONDON = { countryName: 'United Kingdom', city: 'London' };

describe.each([24, 28, 32] as const)('a database with records of %i bits', (recordSize) => {
  it('tells country and city of IPv4 and IPv6, in English', () => {
    const geo = createGeo(database({ recordSize, networks: NETWORKS }));
    expect(geo('81.2.69.160')).toEqual(LONDON);
    expect(geo('::ffff:81.2.69.160')).toEqual(LONDON);
    expect(geo('1.159.255.255')).toEqual({ countryName: 'Australia', city: '' });
    expect(geo('2001:db8:1234::1')).toEqual({ countryName: 'Switzerland', city: 'Zürich' });
    expect(geo('203.0.113.7')).toEqual({ countryName: 'Norway', city: '' });
    const unknown = ['192.0.2.1', '81.2.70.1', '1.160.0.0', '2001:db8:1235::1', '::1', '', 'unknown', '81.2.69', '%'];
    expect(unknown.map(geo)).toEqual(unknown.map(() => null));
  });

  it('of IPv4 only knows nothing of IPv6', () => {
    // Its first bits are those of 32.1.0.0.
    const geo = createGeo(database({ ipVersion: 4, recordSize, networks: { '32.1.0.0/16': named('Nowhere') } }));
    expect([geo('32.1.5.5')?.countryName, geo('2001:5::5')]).toEqual(['Nowhere', null]);
  });
});

it('a database of countries tells no city', () => {
  const geo = createGeo(database({ type: 'GeoLite2-Country', networks: { '81.2.69.0/24': named('United Kingdom') } }));
  expect(geo('81.2.69.1')).toEqual({ countryName: 'United Kingdom', city: '' });
});

describe('a file that is no database', () => {
  const whole = database({ networks: NETWORKS });
  it.each<[string, Buffer]>([
    ['an empty one', Buffer.alloc(0)],
    ['a text', Buffer.from('<html>not found</html>'.repeat(100))],
    ['one whose end is missing', whole.subarray(0, whole.length - 200)],
    ['one whose beginning is missing', whole.subarray(100)],
    ['zeros', Buffer.alloc(1000)],
  ])('%s is refused', (_, bytes) => {
    expect(() => createGeo(bytes)).toThrow();
  });

  it('with one damaged entry knows the others', () => {
    const bytes = Buffer.from(whole);
    // The first byte of London's entry: a type that there is not.
    const at = bytes.indexOf('city') - 2;
    bytes.set([0, 200], at);
    const geo = createGeo(bytes);
    expect([geo('81.2.69.160'), geo('1.128.0.1')?.countryName]).toEqual([null, 'Australia']);
  });
});

describe('a file that is replaced while the server runs', () => {
  const bytes = database({ networks: NETWORKS });
  const newer = database({ networks: { '81.2.69.0/24': named('United Kingdom', 'Leeds') } });

  function follow() {
    const env = testEnv();
    const held = { bytes, state: '1', reads: 0 };
    const file = {
      path: '/geo.mmdb',
      state: () => held.state,
      read: async () => {
        held.reads++;
        return held.bytes;
      },
    };
    const geo = followGeo(file, { bytes, state: '1' }, env);
    const warnings = (): unknown[] =>
      env.lines.filter(({ level }) => level === 'warn').map(({ fields }) => fields?.why);
    const city = async (): Promise<string | undefined> => {
      await env.clock.advance(10_000);
      geo('81.2.69.1');
      await env.clock.advance(0);
      return geo('81.2.69.1')?.city;
    };
    return { held, city, warnings };
  }

  it('is taken over, and read once', async () => {
    const { held, city } = follow();
    expect(await city()).toBe('London');
    Object.assign(held, { bytes: newer, state: '2' });
    expect([await city(), await city(), held.reads]).toEqual(['Leeds', 'Leeds', 1]);
  });

  it('by what is none, or by nothing, goes on to answer as before and says why, once', async () => {
    const { held, city, warnings } = follow();
    Object.assign(held, { bytes: newer.subarray(0, 50), state: '2' });
    expect([await city(), await city()]).toEqual(['London', 'London']);
    expect(warnings()).toHaveLength(1);
    held.state = '';
    expect(await city()).toBe('London');
    expect(warnings()[1]).toBe('it is gone');
    Object.assign(held, { bytes: newer, state: '3' });
    expect([await city(), warnings().length]).toEqual(['Leeds', 2]);
  });
});
