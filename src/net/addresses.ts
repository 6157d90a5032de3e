/**
 * Which addresses a customer may make us call: public unicast ones, and the networks that the operator allows
 * (POSTCARD_OUTBOUND_ALLOW). Judges addresses, not names and not spellings: the URL parser (WHATWG) has already turned
 * `0x7f.1`, `2130706433` and full-width digits into `127.0.0.1`, and what cannot be read here is refused.
 *
 * Promises: pure. An IPv4-mapped address is judged as the IPv4 address that the kernel would call. Other wrappings (6to4,
 * Teredo, NAT64, IPv4-compatible) are refused unless allowed by name, and then the address inside must be allowed too.
 *
 * Fails: never; a refusal is a value. A bad network in `allow` is the configuration's mistake and throws (config.ts checks).
 */
import ipaddr from 'ipaddr.js';

type Address = ipaddr.IPv4 | ipaddr.IPv6;
type Network = [Address, number];

/** Judges addresses by the rules above. */
export interface AddressRules {
  /** Null = may be called; else what is wrong with it in a word or two (`loopback`, `private`, `linkLocal`, ...). */
  fault(address: string): string | null;
}

/** Global unicast, the only part of IPv6 that is handed out (RFC 4291, 2.4). */
const GLOBAL_UNICAST: Network = [ipaddr.IPv6.parse('2000::'), 3];
/** Public by its number, yet answered by the host that a virtual machine runs on (Azure: keys and agent control). */
const HOST_SERVICES: Network[] = [[ipaddr.IPv4.parse('168.63.129.16'), 32]];

const V4_COMPATIBLE: Network = [ipaddr.IPv6.parse('::'), 96];
const V4_TRANSLATED: Network = [ipaddr.IPv6.parse('::ffff:0:0:0'), 96];
const NAT64: Network = [ipaddr.IPv6.parse('64:ff9b::'), 96];
const NAT64_LOCAL: Network = [ipaddr.IPv6.parse('64:ff9b:1::'), 48];
const SIX_TO_FOUR: Network = [ipaddr.IPv6.parse('2002::'), 16];
const TEREDO: Network = [ipaddr.IPv6.parse('2001::'), 32];

function within(address: Address, network: Network): boolean {
  const [base, bits] = network;
  if (address instanceof ipaddr.IPv4) return base instanceof ipaddr.IPv4 && address.match(base, bits);
  return base instanceof ipaddr.IPv6 && address.match(base, bits);
}

function v4(high: number, low: number): ipaddr.IPv4 {
  return new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff]);
}

/** The IPv4 addresses that packets to this one may end at; none = it wraps nothing. */
function wrapped(address: ipaddr.IPv6): ipaddr.IPv4[] {
  const [, p1, p2, p3, , , p6, p7] = address.parts as [number, number, number, number, number, number, number, number];
  if (within(address, SIX_TO_FOUR)) return [v4(p1, p2)];
  if (within(address, TEREDO)) return [v4(p2, p3), v4(p6 ^ 0xffff, p7 ^ 0xffff)];
  for (const network of [NAT64, NAT64_LOCAL, V4_TRANSLATED, V4_COMPATIBLE]) {
    if (within(address, network)) return [v4(p6, p7)];
  }
  return [];
}

function parse(text: string): Address | null {
  // A zone names an interface of this machine: nothing public has one.
  if (text.includes('%')) return null;
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return ipaddr.IPv4.parse(text);
  if (!ipaddr.IPv6.isValid(text)) return null;
  const address = ipaddr.IPv6.parse(text);
  return address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
}

function network(text: string): Network {
  const [address, bits] = ipaddr.parseCIDR(text);
  if (address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() && bits >= 96) {
    return [address.toIPv4Address(), bits - 96];
  }
  return [address, bits];
}

/**
 * The rules for one configuration.
 * @param allow networks (CIDR) that may be called besides the public ones
 */
export function addressRules(allow: readonly string[]): AddressRules {
  const allowed = allow.map(network);

  function faultOf(address: Address): string | null {
    const byName = allowed.some((entry) => within(address, entry));
    const inside = address instanceof ipaddr.IPv6 ? wrapped(address) : [];
    // `::1` lies in the IPv4-compatible range and wraps nothing.
    if (inside.length > 0 && address.range() !== 'loopback') {
      if (!byName) return address.range() === 'unspecified' ? 'unspecified' : 'an IPv4 address in disguise';
      return inside.map(faultOf).find((fault) => fault !== null) ?? null;
    }
    if (byName) return null;
    if (HOST_SERVICES.some((entry) => within(address, entry))) return 'metadata';
    const range = address.range();
    if (range !== 'unicast') return range;
    return address instanceof ipaddr.IPv6 && !within(address, GLOBAL_UNICAST) ? 'reserved' : null;
  }

  return {
    fault(text) {
      const address = parse(text);
      return address === null ? 'not an address' : faultOf(address);
    },
  };
}
