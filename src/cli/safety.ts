/**
 * What of `postcard doctor` is about who can reach, read and pretend what: listeners, certificates, keys, files, carriers. Each
 * check looks at the settings and the files they name, and nothing else.
 *
 * Fails: never; a file that cannot be read is a failed check.
 */
import crypto, { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { BlockList } from 'node:net';
import type { Config } from '../config.ts';
import { isLoopback, isSqlite } from '../configured.ts';
import { type Check, fail, ok, warn } from './doctor.ts';

/** A certificate that ends sooner is worth a warning: most are renewed 30 days before. */
const CERTIFICATE_WARN_MS = 14 * 86_400_000;
/** A key of our own making has 64 characters; what people make up is guessed. */
const KEY_MIN = 24;
/** A network wider than this lets customers call most of what is inside. */
const WIDE_V4 = 16;
const WIDE_V6 = 48;

/** Where clouds answer their machines: AWS and most others, AWS by IPv6, Alibaba, Azure. */
const METADATA = ['169.254.169.254', 'fd00:ec2::254', '100.100.100.200', '168.63.129.16'];

/** All of them; `now` is epoch ms, `uid` the user's number (null = the system has none), `argon2` = this Node has that. */
export function safetyChecks(config: Config, now: number, uid: number | null, argon2 = 'argon2' in crypto): Check[] {
  return [
    exposureCheck(config),
    ...metricsCheck(config),
    ...operatorChecks(config),
    ...certificateChecks(config, now),
    ...keyChecks(config),
    ...passwordCheck(config, argon2),
    ...fileChecks(config),
    ...carrierChecks(config),
    ...outboundCheck(config),
    ...(uid === 0 ? [warn('user', 'this runs as root', 'give it a user of its own: it needs no rights')] : []),
  ];
}

/** Who can reach what has no lock: the sandbox's handsets are open to everyone, and keys travel in clear over HTTP. */
function exposureCheck(config: Config): Check {
  const { host, sandbox, tlsCert } = config;
  if (isLoopback(host)) return ok('reach', `${host}: this machine only`);
  const open = sandbox && config.roles.includes('sandbox') ? "anyone there can read the sandbox's handsets" : '';
  const quiet = 'set POSTCARD_SANDBOX=false when you mean it';
  if (tlsCert !== null) {
    return open === '' ? ok('reach', `${host}: others reach us by https`) : warn('reach', `${host}: ${open}`, quiet);
  }
  return warn(
    'reach',
    `${host}: others reach us over HTTP without TLS; ${open === '' ? '' : `${open}; `}keys travel in clear`,
    `give POSTCARD_TLS_CERT and POSTCARD_TLS_KEY, or put a proxy with TLS in front${open === '' ? '' : `, and ${quiet}`}`,
  );
}

/** Figures name carriers and tell how much is sent. */
function metricsCheck({ host, metricsAllow, metricsToken }: Config): Check[] {
  if (isLoopback(host)) return [];
  const wide = metricsAllow.filter((network) => Number(network.split('/')[1]) === 0);
  if (wide.length > 0) {
    const found = 'anybody who reaches us can read /metrics';
    return [
      warn(
        'metrics',
        found,
        'name the networks of your Prometheus in POSTCARD_METRICS_ALLOW, or give POSTCARD_METRICS_TOKEN',
      ),
    ];
  }
  const from = metricsAllow.length > 0 ? `from ${metricsAllow.join(', ')}` : '';
  const shown = metricsToken === null ? '' : 'with the token';
  return [ok('metrics', [from, shown].filter((part) => part !== '').join(' and ') || 'nobody')];
}

/** Who may knock at the operator's door, and who may say that somebody else knocks. */
function operatorChecks({ host, adminKey, adminAllow, trustedProxies }: Config): Check[] {
  const checks: Check[] = [];
  const isReached = !isLoopback(host) || trustedProxies.length > 0;
  const anybody = (networks: readonly string[]): boolean => networks.some((one) => Number(one.split('/')[1]) === 0);
  if (adminKey !== null && isReached && anybody(adminAllow)) {
    const found = 'anybody who reaches us may try keys at /admin';
    checks.push(warn('admin', found, 'name the networks of your operators in POSTCARD_ADMIN_ALLOW'));
  }
  if (anybody(trustedProxies)) {
    const found =
      'whoever reaches us may say that another does (X-Forwarded-For): networks of keys and of /admin hold nobody';
    checks.push(warn('proxies', found, 'name your proxies only in POSTCARD_TRUSTED_PROXIES'));
  }
  return checks;
}

/** Passwords are kept by Argon2id where there is one; a process without it cannot look at those. */
function passwordCheck({ roles }: Config, argon2: boolean): Check[] {
  if (argon2 || !roles.includes('api')) return [];
  return [
    warn(
      'passwords',
      'this Node has no Argon2: new passwords are kept by scrypt, and those that another process kept by Argon2id open nothing here',
      'run Node 24.7 or later on all nodes',
    ),
  ];
}

function certificateChecks(config: Config, now: number): Check[] {
  const { tlsCert, tlsKey, carrierTlsCert, carrierTlsKey } = config;
  return [
    ...(tlsCert !== null && tlsKey !== null ? [certificateCheck('certificate', tlsCert, tlsKey, now)] : []),
    ...(carrierTlsCert !== null && carrierTlsKey !== null
      ? [certificateCheck('carrier certificate', carrierTlsCert, carrierTlsKey, now)]
      : []),
  ];
}

function certificateCheck(name: string, certFile: string, keyFile: string, now: number): Check {
  try {
    const certificate = new X509Certificate(readFileSync(certFile));
    const until = certificate.validToDate.getTime();
    const found = `${certFile}: until ${new Date(until).toISOString().slice(0, 10)}`;
    if (!certificate.checkPrivateKey(createPrivateKey(readFileSync(keyFile)))) {
      return fail(name, `${keyFile} is not the key of ${certFile}`, 'name the two that belong together');
    }
    if (until < now) return fail(name, found, 'renew it: nobody believes it any more');
    if (certificate.validFromDate.getTime() > now) return fail(name, found, 'it does not count yet: set the clock');
    if (until - now < CERTIFICATE_WARN_MS)
      return warn(name, found, 'renew it; the running server takes it over by itself');
    if (isOpen(keyFile)) return warn(name, `${keyFile} can be read by other users`, `chmod 600 ${keyFile}`);
    return ok(name, found);
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code ?? 'not PEM';
    return fail(name, `${certFile} or ${keyFile} cannot be read (${why})`, 'name readable PEM files');
  }
}

function keyChecks(config: Config): Check[] {
  const checks: Check[] = [];
  const weak = (['apiKey', 'adminKey'] as const).filter((name) => {
    const key = config[name];
    return key !== null && (key.length < KEY_MIN || new Set(key).size < 8);
  });
  if (weak.length > 0) {
    const found = `${weak.join(' and ')}: short enough to be guessed`;
    checks.push(warn('keys', found, 'take 32 random bytes: openssl rand -hex 32'));
  }
  if (config.adminKey !== null && config.adminKey === config.apiKey) {
    checks.push(fail('keys', 'adminKey and apiKey are the same', 'give each its own: customers are no operators'));
  }
  checks.push(
    config.secretKey === null
      ? warn(
          'secrets',
          "customers' webhook secrets are kept in clear in the store and its backups",
          'give POSTCARD_SECRET_KEY (openssl rand -base64 32), kept elsewhere than the data',
        )
      : ok('secrets', 'sealed in the store'),
  );
  return checks;
}

/** Files that hold secrets and should be nobody else's to read. */
function fileChecks(config: Config): Check[] {
  const holds = config.apiKey !== null || config.adminKey !== null || config.carriers.length > 0;
  const password = !isSqlite(config.store) && /:[^:/@]+@/.test(config.store);
  if (config.config === null || !(holds || password) || !isOpen(config.config)) return [];
  return [warn('settings', `${config.config} can be read by every user, passwords too`, `chmod 640 ${config.config}`)];
}

function isOpen(file: string): boolean {
  const found = statSync(file, { throwIfNoEntry: false });
  return found !== undefined && (found.mode & 0o004) !== 0;
}

function carrierChecks(config: Config): Check[] {
  const checks: Check[] = [];
  const clear = config.carriers.filter((one) => {
    if (one.type === 'smpp') return (one.tls === undefined || one.tls === false) && !isLoopback(one.host);
    return one.url.startsWith('http:') && one.password !== undefined && !isLoopback(new URL(one.url).hostname);
  });
  if (clear.length > 0) {
    const names = clear.map(({ name }) => name).join(', ');
    checks.push(warn('carrier passwords', `in clear to ${names}`, 'take TLS, or a VPN or a line of your own to them'));
  }
  const open = config.carriers.flatMap((one) => {
    if (one.type !== 'mm7' || isLoopback(config.host)) return [];
    const { inboundSecret, inbound } = one;
    const locked = inboundSecret ?? inbound?.secret ?? inbound?.clientCa ?? (inbound?.allow ?? []).length > 0;
    return locked === false ? [one.name] : [];
  });
  if (open.length > 0) {
    checks.push(
      warn(
        'reports',
        `whoever reaches port ${config.carrierPort} can make up reports of ${open.join(', ')}`,
        'give inbound.secret, inbound.allow or inbound.clientCaFile',
      ),
    );
  }
  return checks;
}

function outboundCheck(config: Config): Check[] {
  const wide = config.outboundAllow.filter((network) => {
    const bits = Number(network.split('/')[1]);
    return bits < (network.includes(':') ? WIDE_V6 : WIDE_V4) && !isLoopback(network.split('/')[0] as string);
  });
  const checks: Check[] = [];
  if (wide.length > 0) {
    const found = `customers may point URLs at all of ${wide.join(', ')}`;
    checks.push(warn('outbound', found, 'name only the networks where their receivers are'));
  }
  const allowed = new BlockList();
  const family = (address: string) => (address.includes(':') ? 'ipv6' : 'ipv4');
  for (const network of config.outboundAllow) {
    const [base = '', bits] = network.split('/');
    allowed.addSubnet(base, Number(bits), family(base));
  }
  const keepers = METADATA.filter((address) => allowed.check(address, family(address)));
  if (keepers.length > 0) {
    const found = `customers may point URLs at ${keepers.join(', ')}: there a cloud gives its machines their credentials`;
    checks.push(warn('metadata', found, 'take it out of POSTCARD_OUTBOUND_ALLOW'));
  }
  return checks;
}
