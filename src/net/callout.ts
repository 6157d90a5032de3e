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

/**
 * Ports where other protocols listen, some of which read an HTTP request as commands of theirs (mail, above all). Browsers call none of
 * them either; the list is theirs (WHATWG Fetch, "bad port") from 20 on: what listens below does nothing that is told to it.
 */
const OTHERS_PORTS = new Set([
  ...[
    20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123,
  ],
  ...[
    135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587,
  ],
  ...[601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667],
  ...[6668, 6669, 6679, 6697, 10080],
]);

/** What is wrong with the port of a URL; null = nothing. */
export function portFault(url: URL): string | null {
  const isOthers = url.port !== '' && OTHERS_PORTS.has(Number(url.port));
  return isOthers ? `must not name port ${url.port}, which is another protocol's` : null;
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
  // A customer's requests name the same few.
  const known = new Map<string, string | null>();
  const judged = (text: string): string | null => {
    const url = readUrl(text);
    if (url === null) return NOT_A_URL;
    const port = portFault(url);
    if (port !== null) return port;
    const name = url.hostname.replace(/\.$/, '');
    const addresses = isLocalName(name) ? ['127.0.0.1', '::1'] : [literal(url)].filter((found) => found !== null);
    if (addresses.length === 0) return null;
    const faults = addresses.map((address) => rules.fault(address));
    return faults.includes(null)
      ? null
      : `must be a public address or one that POSTCARD_OUTBOUND_ALLOW lists (this one is ${spaced(String(faults[0]))})`;
  };
  return (text) => {
    const before = known.get(text);
    if (before !== undefined) return before;
    const verdict = judged(text);
    if (text.length <= KNOWN_LENGTH) {
      if (known.size >= KNOWN) known.clear();
      known.set(text, verdict);
    }
    return verdict;
  };
}

/** Verdicts kept, and how long the URL of one may be. */
const KNOWN = 1_000;
const KNOWN_LENGTH = 500;

/** `linkLocal` as people write it. */
export function spaced(range: string): string {
  return range.replace(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
