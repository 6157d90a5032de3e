/**
 * Names to addresses without the thread pool: c-ares asks the name servers, so that slow ones delay nobody else's file or
 * hash. `localhost` and the hosts file are answered here, since c-ares' resolve calls know neither (a container's `--add-host`
 * is such an entry). Search domains are not applied: customers' names are full names.
 *
 * Promises: at most 2 tries of 2 s; at most 16 addresses a name; a cache of 2 000 names and 60 s (a TTL of 0 is not cached);
 * one question at a time per name. What comes out is unchecked: the caller judges every address.
 *
 * Fails: NameFault, with whether asking again may help.
 */
import { lookup as systemLookup } from 'node:dns';
import { Resolver } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { isIP, type LookupFunction } from 'node:net';
import { LRUCache } from 'lru-cache';
import type { Env } from '../env.ts';

/** No addresses for a name. */
export class NameFault extends Error {
  override readonly name = 'NameFault';
  /** False = the name servers say that there is no such name. */
  readonly mayHeal: boolean;
  constructor(message: string, mayHeal: boolean) {
    super(message);
    this.mayHeal = mayHeal;
  }
}

interface Addresses {
  addresses: string[];
  /** How long they may be kept; 0 = not at all. */
  ttlMs: number;
}

/** Asks for the addresses of a name (lower case, no trailing dot). Rejects with NameFault. */
export type Resolve = (name: string) => Promise<Addresses>;

const MAX_ADDRESSES = 16;
const MAX_TTL_MS = 60_000;
const CACHED_NAMES = 2_000;
const HOSTS_FILE = '/etc/hosts';
const HOSTS_BYTES = 256 * 1024;
const HOSTS_MS = 60_000;
const NAME_MAX = 253;

/** Adds a bounded cache and one-at-a-time to a resolver. */
export function cachedNames(resolve: Resolve, env: Pick<Env, 'clock'>): (name: string) => Promise<string[]> {
  const known = new LRUCache<string, { until: number; addresses: string[] }>({ max: CACHED_NAMES });
  const asking = new Map<string, Promise<string[]>>();
  return (written) => {
    const name = written.toLowerCase().replace(/\.$/, '');
    const hit = known.get(name);
    if (hit && hit.until > env.clock.monotonic()) return Promise.resolve(hit.addresses);
    const waiting = asking.get(name);
    if (waiting !== undefined) return waiting;
    if (name.length === 0 || name.length > NAME_MAX) return Promise.reject(new NameFault('not a host name', false));
    const answer = resolve(name)
      .then(({ addresses, ttlMs }) => {
        const some = addresses.slice(0, MAX_ADDRESSES);
        if (some.length === 0) throw new NameFault('the name has no addresses', true);
        const keep = Math.min(ttlMs, MAX_TTL_MS);
        if (keep > 0) known.set(name, { until: env.clock.monotonic() + keep, addresses: some });
        return some;
      })
      .finally(() => asking.delete(name));
    asking.set(name, answer);
    return answer;
  };
}

/**
 * How sockets find the hosts that an operator named: by these names, so that name servers which do not answer hold no thread of the
 * pool that files share. Only a name that they do not know is asked for in the system's way, which has search domains.
 */
export function lookupBy(names: (name: string) => Promise<string[]>): LookupFunction {
  return (hostname, options, callback) => {
    names(hostname).then(
      (addresses) => {
        const all = addresses.map((address) => ({ address, family: isIP(address) }));
        const { family } = options;
        const wanted = family === 4 || family === 6 ? all.filter((one) => one.family === family) : all;
        const [first] = wanted;
        if (options.all) callback(null, wanted);
        else if (first) callback(null, first.address, first.family);
        else callback(new NameFault('the name has no addresses of this kind', true), '');
      },
      (error: unknown) => {
        if (error instanceof NameFault && !error.mayHeal) systemLookup(hostname, options, callback as never);
        else callback(error as Error, '');
      },
    );
  };
}

/** The machine's own resolver: localhost, the hosts file, then the name servers of resolv.conf. IPv4 comes first. */
export function systemNames(env: Pick<Env, 'clock'>): Resolve {
  const servers = new Resolver({ timeout: 2_000, tries: 2 });
  let hosts: { until: number; names: Map<string, string[]> } | null = null;

  async function hostsFile(): Promise<Map<string, string[]>> {
    if (hosts && hosts.until > env.clock.monotonic()) return hosts.names;
    const text = await readFile(HOSTS_FILE, 'utf8').catch(() => '');
    hosts = { until: env.clock.monotonic() + HOSTS_MS, names: parseHosts(text.slice(0, HOSTS_BYTES)) };
    return hosts.names;
  }

  return async (name) => {
    // RFC 6761, 6.3: these never leave the machine, whatever the name servers say.
    if (isLocalName(name)) return { addresses: ['127.0.0.1', '::1'], ttlMs: MAX_TTL_MS };
    const local = (await hostsFile()).get(name);
    if (local) return { addresses: local, ttlMs: HOSTS_MS };
    const answers = await Promise.allSettled([
      servers.resolve4(name, { ttl: true }),
      servers.resolve6(name, { ttl: true }),
    ]);
    const found = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    if (found.length > 0) {
      const ttlMs = 1000 * Math.min(...found.map((record) => record.ttl));
      return { addresses: found.map((record) => record.address), ttlMs };
    }
    const codes = answers.map((answer) =>
      answer.status === 'rejected' ? (answer.reason as { code?: string }).code : '',
    );
    const absent = codes.every((code) => code === 'ENOTFOUND' || code === 'ENODATA' || code === 'EBADNAME');
    throw new NameFault(absent ? 'there is no such name' : `the name servers do not answer (${codes[0]})`, !absent);
  };
}

/** `localhost` and what is under it. */
export function isLocalName(name: string): boolean {
  return name === 'localhost' || name.endsWith('.localhost');
}

/** Names of a hosts file and their addresses, in its order. */
export function parseHosts(text: string): Map<string, string[]> {
  const names = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [address, ...aliases] = (line.split('#', 1)[0] as string).trim().split(/\s+/);
    if (!address || isIP(address) === 0) continue;
    for (const alias of aliases) {
      const name = alias.toLowerCase().replace(/\.$/, '');
      const list = names.get(name);
      if (list) list.push(address);
      else names.set(name, [address]);
    }
  }
  return names;
}
