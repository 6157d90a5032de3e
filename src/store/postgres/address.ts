/**
 * Which servers a store's URL names, and how each is called. The URL means what it means to psql and pg_dump, which are given the
 * same one: several hosts, a socket's directory, and `sslmode` as libpq reads it. Pure; what is no URL is left for the client to refuse.
 */

/**
 * `postgres://u:p@a:1,b:2/db?x`, or with `host=a,b&port=1,2` behind the question mark as libpq has it, as one URL per host.
 * IPv6 addresses stand in brackets in front of the path, without them behind.
 */
export function hostsOf(url: string): string[] {
  const parts = /^(postgres(?:ql)?:\/\/)([^/?]*@)?([^/?]*)([^?]*)(?:\?(.*))?$/.exec(url);
  if (!parts) return [url];
  const [, scheme, login = '', front = '', path = '', query = ''] = parts;
  const words = query === '' ? [] : query.split('&');
  const listed = (name: string): string[] => {
    const found = words.findLast((word) => word.startsWith(`${name}=`));
    return found === undefined ? [] : found.slice(name.length + 1).split(/,|%2c/i);
  };
  const hosts = listed('host');
  const named = listed('port');
  // Hosts behind the question mark stand in for those in front, and not for their ports.
  const ports =
    named.length > 0 || hosts.length === 0 ? named : front.split(',').map((host) => /:(\d+)$/.exec(host)?.[1] ?? '');
  const rest = words.filter((word) => !/^(host|port)=/.test(word));
  const written = (authority: string, more: string[]): string => {
    const all = [...more, ...rest];
    return `${scheme}${login}${authority}${path}${all.length > 0 ? `?${all.join('&')}` : ''}`;
  };
  if (hosts.length === 0) {
    const more = (no: number): string[] => {
      const port = ports[ports.length === 1 ? 0 : no];
      return port ? [`port=${port}`] : [];
    };
    return front.split(',').map((host, no) => written(host, more(no)));
  }
  return hosts.map((host, no) => {
    const port = ports[ports.length === 1 ? 0 : no];
    // The client takes the host from behind the question mark only where none is in front.
    return written('', [`host=${host}`, ...(port ? [`port=${port}`] : [])]);
  });
}

/** A URL for a log line or an error: hosts and database only, and rather less than a piece of a password that should have been encoded. */
export function shownUrl(url: string): string {
  const behind = /[?&]host=([^&]*)/.exec(url)?.[1];
  const [front = '', ...query] = url.split('?');
  // It may be a password with a question mark.
  if (!front.includes('@') && query.join('').includes('@')) return 'postgres://...';
  const shown = front.replace(/^(postgres(?:ql)?:\/\/).*@/, '$1');
  return behind === undefined ? shown : shown.replace(/^([a-z]+:\/\/)[^/]*/, `$1${behind}`);
}

/**
 * How one host's URL is tried, in order. `sslmode` is libpq's: `prefer` is TLS or else none, `allow` the other way round, `require` is TLS
 * whoever answers (with `sslrootcert`: whoever it signed), `verify-ca` and `verify-full` are what they say; none and `disable` are
 * no TLS. `no-verify`, the client's own, stays. `sslrootcert=system` is `verify-full` by the authorities that Node brings.
 */
export function waysTo(url: string): string[] {
  const mode = /[?&]sslmode=([^&]*)/.exec(url)?.[1];
  const root = /[?&]sslrootcert=([^&]*)/.exec(url)?.[1];
  const as = (wanted: string): string => {
    const set = url.replace(/([?&]sslmode=)[^&]*/, `$1${wanted}`);
    // Without this word the client takes every mode for verify-full, and says so on stderr.
    return wanted === 'disable' || /[?&]uselibpqcompat=/.test(set) ? set : `${set}&uselibpqcompat=true`;
  };
  if (root === 'system' && mode !== 'disable' && wrongIn(url) === null) {
    // Whom this machine trusts the client trusts by itself. As libpq has it the name must be right then, whatever the mode.
    const rest = url.replace(/([?&])sslrootcert=system&|[?&]sslrootcert=system$/, '$1');
    if (mode === undefined) return [`${rest}${rest.includes('?') ? '&' : '?'}sslmode=verify-full`];
    return [rest.replace(/([?&]sslmode=)[^&]*/, '$1verify-full')];
  }
  if (mode === 'prefer') return [as('require'), as('disable')];
  if (mode === 'allow') return [as('disable'), as('require')];
  if (mode === 'require') return [as('require')];
  // Signed by anyone whom this machine trusts says nothing without the name.
  if (mode === 'verify-ca') return [as(root === undefined ? 'verify-full' : 'verify-ca')];
  return [url];
}

/** Why a URL cannot mean what it says, in one line, or null: what the client would take silently for something else. */
export function wrongIn(url: string): string | null {
  const mode = /[?&]sslmode=([^&]*)/.exec(url)?.[1];
  const modes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full', 'no-verify'];
  if (mode !== undefined && !modes.includes(mode)) return `sslmode=${mode} is none of ${modes.join(', ')}`;
  if (/[?&]dbname=/.test(url)) return 'dbname= behind the question mark is not read; name the database in front of it';
  return null;
}
