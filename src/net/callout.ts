/**
 * What can be said about an address that a customer gives before anybody is asked: whether it is a URL that we may be asked to
 * call. Calling is `outbound.ts`'s; this is for the door, which needs no client.
 *
 * Promises: pure. Fails: never; what is wrong is a value.
 */
import { isIP } from 'node:net';
import { addressRules } from './addresses.ts';
import { isLocalName } from './names.ts';

/** The violation of what no URL can be read from. */
export const NOT_A_URL = 'is not a valid url';

/** Reads a URL we may be asked to call; null = it is none. Parsers differ on spaces, controls and `\`, so none may stand. */
export function readUrl(text: string): URL | null {
  if (text.length > 8192 || /[\u0000-\u0020\u007f\\]/.test(text)) return null;
  if (!/^https?:\/\/[^/?#@]+(?:[/?#]|$)/i.test(text)) return null;
  const url = URL.parse(text);
  if (url === null || url.hostname === '' || url.username !== '' || url.password !== '') return null;
  return url;
}

/** The address that a URL's host is, or null where it is a name. */
function literal(url: URL): string | null {
  const host = url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : url.hostname;
  return isIP(host) === 0 ? null : host;
}

/**
 * The check at the door: null = fine as far as can be told without asking anybody; else the violation. Names are judged
 * when they are called.
 * @param allow networks (CIDR) that may be called besides the public ones
 */
export function checkCallout(allow: readonly string[]): (url: string) => string | null {
  const rules = addressRules(allow);
  return (text) => {
    const url = readUrl(text);
    if (url === null) return NOT_A_URL;
    const name = url.hostname.replace(/\.$/, '');
    const addresses = isLocalName(name) ? ['127.0.0.1', '::1'] : [literal(url)].filter((found) => found !== null);
    if (addresses.length === 0) return null;
    const faults = addresses.map((address) => rules.fault(address));
    return faults.includes(null)
      ? null
      : `must be a public address or one that POSTCARD_OUTBOUND_ALLOW lists (this one is ${spaced(String(faults[0]))})`;
  };
}

/** `linkLocal` as people write it. */
export function spaced(range: string): string {
  return range.replace(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
