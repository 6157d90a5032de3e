import { describe, expect, it } from 'vitest';
import { type Config, describeConfig, loadConfig, publicUrlOf, SETTINGS } from './config.ts';

/** Loads with the given environment and files (absolute path to text). */
function load(env: Record<string, string> = {}, files: Record<string, string> = {}) {
  return loadConfig({
    env,
    cwd: '/srv',
    readFile(path) {
      const text = files[path];
      if (text !== undefined) return text;
      throw Object.assign(new Error(`no such file: ${path}`), { code: path.includes('locked') ? 'EACCES' : 'ENOENT' });
    },
  });
}

function good(env: Record<string, string> = {}, files: Record<string, string> = {}): Config {
  const loaded = load(env, files);
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  return loaded.config;
}

function mistakes(env: Record<string, string> = {}, files: Record<string, string> = {}): string[] {
  const loaded = load(env, files);
  return loaded.ok ? [] : loaded.mistakes;
}

const yaml = (text: string) => ({ '/srv/postcard.yaml': text });

describe('without any configuration', () => {
  it('everything has the documented default', () => {
    expect(good()).toEqual({
      config: null,
      host: '127.0.0.1',
      port: 8080,
      publicUrl: 'http://127.0.0.1:8080',
      dataDir: '/srv/data',
      store: 'sqlite:/srv/data/postcard.db',
      roles: ['api', 'dispatch', 'webhooks', 'sandbox'],
      node: null,
      apiKey: null,
      adminKey: null,
      adminAllow: ['127.0.0.0/8', '::1/128'],
      metricsAllow: ['127.0.0.0/8', '::1/128'],
      metricsToken: null,
      trustedProxies: [],
      maxWaiting: 10_000_000,
      contentStore: null,
      s3AccessKey: null,
      s3Secret: null,
      sandbox: true,
      sandboxPort: 8081,
      sandboxSmppPort: 2775,
      sandboxUrl: 'http://127.0.0.1:8081',
      carrierPort: 8082,
      carrierUrl: 'http://127.0.0.1:8082',
      outboundAllow: ['127.0.0.0/8', '::1/128'],
      logLevel: 'info',
      maxMessages: 1000,
      maxDestinations: 10_000,
      maxSegments: 20,
      maxBodyBytes: 8_388_608,
      maxUploadBytes: 5_242_880,
      uploadValidityMinutes: 69_120,
      logsHours: 48,
      retentionDays: 7,
      retentionMessages: 10_000_000,
      stopWords: ['stop', 'stopall', 'stop all', 'unsubscribe', 'cancel', 'end', 'quit'],
      startWords: ['start', 'yes', 'unstop'],
      linkDays: 90,
      geoDatabase: null,
      tlsCert: null,
      tlsKey: null,
      secretKey: null,
      carrierTlsCert: null,
      carrierTlsKey: null,
      carriers: [],
      routes: [],
      networks: {},
      resellerCodeRequired: [],
      failoverAfterUnknown: false,
    });
  });

  it('every default is a value that the setting itself would take', () => {
    for (const s of SETTINGS) {
      if (!s.key.endsWith('Url')) expect(s.kind.schema.safeParse(s.default).success, s.key).toBe(true);
    }
  });

  it('every setting has a name of its own in the environment, except lists of many keys', () => {
    const names = SETTINGS.map((s) => s.env).filter((name) => name !== null);
    expect(new Set(names).size).toBe(names.length);
    expect(SETTINGS.filter((s) => s.env === null).map((s) => s.key)).toEqual(['carriers', 'routes', 'networks']);
    expect(names).toEqual(
      expect.arrayContaining([
        'POSTCARD_CONFIG',
        'POSTCARD_HOST',
        'POSTCARD_PORT',
        'POSTCARD_PUBLIC_URL',
        'POSTCARD_DATA_DIR',
        'POSTCARD_STORE',
        'POSTCARD_API_KEY',
        'POSTCARD_SANDBOX',
        'POSTCARD_SANDBOX_PORT',
        'POSTCARD_SANDBOX_SMPP_PORT',
        'POSTCARD_CARRIER_PORT',
        'POSTCARD_OUTBOUND_ALLOW',
        'POSTCARD_LOG_LEVEL',
        'POSTCARD_MAX_BODY_BYTES',
      ]),
    );
  });
});

describe('a value', () => {
  it('comes from the environment before the file before the default, and says so', () => {
    const loaded = load({ POSTCARD_PORT: '9000' }, yaml('port: 7000\nhost: 127.0.0.2\n'));
    expect(loaded).toMatchObject({
      ok: true,
      config: { port: 9000, host: '127.0.0.2', config: '/srv/postcard.yaml' },
      origins: { port: 'POSTCARD_PORT', host: 'postcard.yaml', sandbox: 'default' },
    });
  });

  it('is read from the file that POSTCARD_CONFIG names', () => {
    const files = { '/etc/p.yaml': 'port: 1', '/srv/sub/p.yaml': 'port: 2', '/srv/postcard.yaml': 'port: 3' };
    expect(good({ POSTCARD_CONFIG: '/etc/p.yaml' }, files)).toMatchObject({ port: 1, config: '/etc/p.yaml' });
    expect(good({ POSTCARD_CONFIG: 'sub/p.yaml' }, files)).toMatchObject({ port: 2, config: '/srv/sub/p.yaml' });
  });

  it('that is empty, in the environment or in the file, is not given', () => {
    expect(good({ POSTCARD_PORT: '', POSTCARD_API_KEY: '' }, yaml('host:\n'))).toEqual({
      ...good(),
      config: '/srv/postcard.yaml',
    });
    expect(good({}, yaml('')).port).toBe(8080);
    expect(good({}, yaml('# nothing yet\n')).port).toBe(8080);
  });

  it('is read as the type its setting has', () => {
    expect(good({ POSTCARD_SANDBOX: 'false' }).sandbox).toBe(false);
    expect(good({ POSTCARD_MAX_BODY_BYTES: '16MiB' }).maxBodyBytes).toBe(16_777_216);
    expect(good({ POSTCARD_MAX_BODY_BYTES: '2048' }).maxBodyBytes).toBe(2048);
    expect(good({}, yaml('maxUploadBytes: 600 KiB')).maxUploadBytes).toBe(614_400);
    expect(good({ POSTCARD_OUTBOUND_ALLOW: '10.0.0.0/8, 192.0.2.7,fd00::/8,::1' }).outboundAllow).toEqual([
      '10.0.0.0/8',
      '192.0.2.7/32',
      'fd00::/8',
      '::1/128',
    ]);
    expect(good({}, yaml('outboundAllow: [10.0.0.0/8]')).outboundAllow).toEqual(['10.0.0.0/8']);
    expect(good({ POSTCARD_LOG_LEVEL: 'debug' }).logLevel).toBe('debug');
  });

  it('of a path is made absolute', () => {
    expect(good({ POSTCARD_DATA_DIR: 'x/../y' })).toMatchObject({
      dataDir: '/srv/y',
      store: 'sqlite:/srv/y/postcard.db',
    });
    expect(good({ POSTCARD_STORE: 'sqlite:a.db' }).store).toBe('sqlite:/srv/a.db');
    expect(good({ POSTCARD_STORE: 'sqlite:/var/a.db' }).store).toBe('sqlite:/var/a.db');
  });

  it('of a secret may come from a file, without the newline at its end', () => {
    const loaded = load({ POSTCARD_API_KEY_FILE: 'key.txt' }, { '/srv/key.txt': 's3cret\n' });
    expect(loaded).toMatchObject({
      ok: true,
      config: { apiKey: 's3cret' },
      origins: { apiKey: 'POSTCARD_API_KEY_FILE' },
    });
  });
});

describe('the public URL', () => {
  it('follows host and port unless it is given', () => {
    expect(good({ POSTCARD_PORT: '81', POSTCARD_HOST: 'mms.example' }).publicUrl).toBe('http://mms.example:81');
    expect(good({ POSTCARD_HOST: '::1' }).publicUrl).toBe('http://[::1]:8080');
    expect(good({ POSTCARD_HOST: '0.0.0.0' }).publicUrl).toBe('http://127.0.0.1:8080');
    expect(publicUrlOf('::', 5)).toBe('http://[::1]:5');
    expect(good({ POSTCARD_PUBLIC_URL: 'https://mms.example/a/' }).publicUrl).toBe('https://mms.example/a');
  });
});

describe('the networks that may be called', () => {
  it('are loopback only while we listen on loopback only and the sandbox is on', () => {
    for (const host of ['127.0.0.1', '127.8.0.1', '::1', 'localhost']) {
      expect(good({ POSTCARD_HOST: host }).outboundAllow).toEqual(['127.0.0.0/8', '::1/128']);
    }
    for (const host of ['0.0.0.0', '::', '10.0.0.1', 'mms.example']) {
      expect(good({ POSTCARD_HOST: host }).outboundAllow).toEqual([]);
    }
    expect(good({ POSTCARD_SANDBOX: 'false' }).outboundAllow).toEqual([]);
  });

  it('are what is given, also where that is none', () => {
    expect(good({ POSTCARD_OUTBOUND_ALLOW: 'none' }).outboundAllow).toEqual([]);
    expect(good({}, yaml('outboundAllow: []')).outboundAllow).toEqual([]);
    expect(good({ POSTCARD_OUTBOUND_ALLOW: '10.0.0.0/8' }).outboundAllow).toEqual(['10.0.0.0/8']);
  });
});

const CARRIER = `
carriers:
  - name: north
    type: mm7
    url: https://mmsc.example/mm7
`;

describe('a carrier', () => {
  it('needs a name, a type and a URL, and has defaults for the rest', () => {
    expect(good({}, yaml(CARRIER)).carriers).toEqual([
      {
        name: 'north',
        type: 'mm7',
        url: 'https://mmsc.example/mm7',
        namespace: 'http://www.3gpp.org/ftp/Specs/archive/23_series/23.140/schema/REL-6-MM7-1-4',
        version: '6.8.0',
        transferEncoding: 'binary',
        onUnknown: 'hold',
        reports: true,
        concurrency: 10,
        timeoutMs: 30_000,
        plus: true,
      },
    ]);
  });

  it('takes all that an MMSC may ask for', () => {
    const text = `${CARRIER}    username: me
    passwordFile: north.secret
    namespace: urn:x
    version: 5.3.0
    vaspId: v
    vasId: w
    serviceCode: s
    transferEncoding: base64
    onUnknown: retry
    reports: false
    concurrency: 1
    ratePerSecond: 0.5
    timeoutMs: 60000
    inboundSecret: t
    plus: false
    numberSuffix: /TYPE=PLMN
`;
    expect(good({}, { ...yaml(text), '/srv/north.secret': 'p\r\n' }).carriers[0]).toMatchObject({
      password: 'p',
      version: '5.3.0',
      onUnknown: 'retry',
      ratePerSecond: 0.5,
      numberSuffix: '/TYPE=PLMN',
    });
  });

  it.each<[string, string]>([
    ['carriers: north', 'postcard.yaml: carriers: must be a list, one item a carrier'],
    ['carriers: [north]', 'postcard.yaml: carriers[0]: must be a carrier: name, type, url and more'],
    [`${CARRIER}    name2: x`, 'postcard.yaml: carriers[0].name2: no such setting of a carrier; did you mean name?'],
    [
      CARRIER.replace('north', 'North'),
      'postcard.yaml: carriers[0].name is "North": must be 1 to 40 of a-z, 0-9 and -',
    ],
    [
      CARRIER.replace('north', 'sandbox'),
      'postcard.yaml: carriers[0].name is "sandbox": must not be sandbox or sandbox-sms: those are built in',
    ],
    [CARRIER.replace('mm7', 'mm4'), 'postcard.yaml: carriers[0].type is "mm4": must be mm7 or smpp'],
    [
      'carriers: [{name: a, type: mm7}]',
      'postcard.yaml: carriers[0].url is missing: must be an http or https URL; user name and password have keys of their own',
    ],
    [
      CARRIER.replace('https://', 'https://me:hunter2@'),
      'postcard.yaml: carriers[0].url: must be an http or https URL; user name and password have keys of their own',
    ],
    [`${CARRIER}    version: 6.8`, 'postcard.yaml: carriers[0].version is 6.8: must be an MM7 version like 6.8.0'],
    [`${CARRIER}    onUnknown: wait`, 'postcard.yaml: carriers[0].onUnknown is "wait": must be hold, retry or fail'],
    [`${CARRIER}    reports: "no"`, 'postcard.yaml: carriers[0].reports is "no": must be true or false'],
    [
      `${CARRIER}    concurrency: 0`,
      'postcard.yaml: carriers[0].concurrency is 0: must be a whole number from 1 to 1000',
    ],
    [`${CARRIER}    ratePerSecond: 0`, 'postcard.yaml: carriers[0].ratePerSecond is 0: must be above 0'],
    [
      `${CARRIER}    timeoutMs: 90000`,
      'postcard.yaml: carriers[0].timeoutMs is 90000: must be a whole number from 100 to 60000',
    ],
    [
      `${CARRIER}    username: me`,
      'postcard.yaml: carriers[0]: username and password go together; give both or neither',
    ],
    [
      `${CARRIER}    username: me\n    password: 7654321`,
      'postcard.yaml: carriers[0].password: must be text of 1 to 1024 characters',
    ],
    [
      `${CARRIER}    inboundSecretFile: gone`,
      'postcard.yaml: carriers[0].inboundSecretFile: cannot read gone (ENOENT); name a readable file that holds the secret',
    ],
    [
      `${CARRIER}  - {name: north, type: mm7, url: "http://b.example"}`,
      'postcard.yaml: carriers[1].name is "north": another carrier has that name; give each its own',
    ],
  ])('that is wrong is told so: %j', (text, mistake) => {
    expect(mistakes({}, yaml(text))).toEqual([mistake]);
  });
});

const CERT = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----';
const KEY = '-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----';

describe('an MMSC with a dialect of its own', () => {
  const text = `${CARRIER}    username: me
    password: hunter2
    auth: digest
    tls: {caFile: ca.pem, certFile: our.pem, keyFile: our.key, passphrase: hunter3, servername: mmsc.example}
    soapAction: urn:submit
    numberForm: rfc2822
    senderForm: shortCode
    chargedParty: Neither
    chargedPartyId: "4711"
    messageClass: Informational
    priority: High
    readReply: true
    distributionIndicator: false
    allowAdaptations: false
    expiry: relative
    extraHeaders: {x-api-key: hunter4}
    extraElements:
      - {name: ContentClass, value: image-rich}
      - {name: Tel, value: "{sender}", namespace: "urn:kr", after: ServiceCode, attributes: {kind: callback}}
    resellerCode: {element: ResellerCode, after: Subject}
    maxRecipients: 20
    cancel: false
    profile: 300k
    statusCodes: {2001: retry, 3510: throttle, 4006: refuse}
    errors: {2003: 15003}
    inbound: {secretFile: in.secret, allow: [10.0.0.0/8, "fd00::1"], clientCaFile: ca.pem, clientName: mmsc.example, tls: true}
carrierTlsCert: our.pem
carrierTlsKey: our.key
`;
  const files = {
    ...yaml(text),
    '/srv/ca.pem': CERT,
    '/srv/our.pem': CERT,
    '/srv/our.key': `${KEY}\n`,
    '/srv/in.secret': 'hunter5',
  };

  it('is described by data, files read', () => {
    const config = good({}, files);
    expect(config).toMatchObject({ carrierTlsCert: '/srv/our.pem', carrierTlsKey: '/srv/our.key' });
    expect(config.carriers[0]).toMatchObject({
      auth: 'digest',
      tls: { ca: CERT, cert: CERT, key: KEY, passphrase: 'hunter3', servername: 'mmsc.example' },
      extraElements: [
        { name: 'ContentClass' },
        { name: 'Tel', attributes: { kind: 'callback' }, after: 'ServiceCode' },
      ],
      statusCodes: { 2001: 'retry', 3510: 'throttle', 4006: 'refuse' },
      errors: { 2003: 15_003 },
      inbound: { secret: 'hunter5', allow: ['10.0.0.0/8', 'fd00::1/128'], clientCa: CERT, clientName: 'mmsc.example' },
    });
  });

  it('shows no secret, no header and no certificate', () => {
    const loaded = load({}, files);
    if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
    const shown = JSON.stringify(describeConfig(loaded.config, loaded.origins));
    expect(shown).not.toMatch(/hunter|BEGIN/);
    expect(shown).toContain('x-api-key');
  });

  it.each<[string, string]>([
    ['tls: {certFile: our.pem}', 'carriers[0].tls: cert and key go together; give both or neither'],
    [
      'tls: {caFile: gone}',
      'carriers[0].tls.caFile: cannot read gone (ENOENT); name a readable file that holds the certificate',
    ],
    ['tls: {ca: hunter2}', 'carriers[0].tls.ca: must be a certificate in PEM form (-----BEGIN ...)'],
    ['tls: {certfile: x}', 'carriers[0].tls.certfile: no such setting of a carrier; did you mean certFile?'],
    [
      'auth: digest',
      'carriers[0].auth: there is nobody to show without username and password; give them, or leave auth out',
    ],
    ['auth: ntlm', 'carriers[0].auth is "ntlm": must be basic or digest'],
    [
      'chargedParty: Nobody',
      'carriers[0].chargedParty is "Nobody": must be Sender, Recipient, Both, Neither or ThirdParty',
    ],
    [
      'extraHeaders: {Content-Type: x}',
      'carriers[0].extraHeaders.Content-Type: must be the name of a header that is not ours to set (not Content-*, Host, Authorization, SOAPAction ...)',
    ],
    [
      'extraHeaders: {X-Key: "hunter2\\n"}',
      'carriers[0].extraHeaders.X-Key: must be text of 1 to 1000 visible ASCII characters and blanks',
    ],
    [
      'extraElements: [{name: "a b"}]',
      'carriers[0].extraElements[0].name is "a b": must be the name of an XML element, without prefix',
    ],
    [
      'extraElements: [{name: Tel}]',
      'carriers[0]: SubmitReq has no Tel in its schema; say after which child it stands, with after',
    ],
    ['resellerCode: {}', 'carriers[0].resellerCode: it goes into a header or an element; give one of the two'],
    ['statusCodes: {2001: wait}', 'carriers[0].statusCodes.2001 is "wait": must be refuse, retry or throttle'],
    ['statusCodes: {20: retry}', 'carriers[0].statusCodes.20: must be a status code of four digits, 2000 or more'],
    ['errors: {2003: 1234}', 'carriers[0].errors.2003 is 1234: must be an id of the error table, like 15009'],
    ['inbound: {allow: [x]}', 'carriers[0].inbound.allow[0]: must be a network like 10.0.0.0/8 or an address'],
    [
      'inbound: {tls: true}',
      'carriers[0].inbound: TLS needs a certificate of ours; give carrierTlsCert and carrierTlsKey',
    ],
    [
      'inboundSecret: a\n    inbound: {secret: b}',
      'carriers[0].inboundSecret: inbound.secret is given too; leave one of the two out',
    ],
    ['profile: {text: {charset: x}}', 'carriers[0].profile.text.charset is "x": must be utf-8 or us-ascii'],
  ])('that is wrong is told so: %j', (line, mistake) => {
    expect(mistakes({}, { ...files, ...yaml(`${CARRIER}    ${line}\n`) })).toEqual([`postcard.yaml: ${mistake}`]);
  });

  it('that is called without TLS has no use for a certificate', () => {
    const plain = `${CARRIER.replace('https', 'http')}    tls: {caFile: ca.pem}`;
    expect(mistakes({}, { ...files, ...yaml(plain) })).toEqual([
      'postcard.yaml: carriers[0].tls: north is called by plain http; give an https url, or leave tls out',
    ]);
  });
});

const SMSC = `
carriers:
  - {name: south, type: smpp, host: smsc.example, systemId: me, password: hunter2}
`;

describe('an SMSC', () => {
  it('needs a host, a system id and a password, and has defaults for the rest', () => {
    expect(good({}, yaml(SMSC)).carriers).toEqual([
      {
        name: 'south',
        type: 'smpp',
        host: 'smsc.example',
        port: 2775,
        systemId: 'me',
        password: 'hunter2',
        systemType: '',
        bind: 'transceiver',
        binds: 1,
        window: 10,
        enquireLinkMs: 30_000,
        timeoutMs: 30_000,
        connectTimeoutMs: 10_000,
        plus: false,
        serviceType: '',
        encoding: { default: 'gsm', packed: false },
        concatenation: 'udh',
        registeredDelivery: 'last',
        receiptIdForm: 'auto',
        validity: 'absolute',
        onUnknown: 'hold',
        reports: true,
      },
    ]);
  });

  it.each<[string, string]>([
    ['bind: x', 'carriers[0].bind is "x": must be transceiver or pair'],
    ['url: "http://a"', 'carriers[0].url: no such setting of a carrier; did you mean tls?'],
    ['systemId: sixteen-letters-', 'carriers[0].systemId is "sixteen-letters-": must be text of 1 to 15 characters'],
    ['statusTable: {0x58: later}', 'carriers[0].statusTable.88 is "later": must be refuse, retry or throttle'],
  ])('that is wrong is told so: %j', (part, mistake) => {
    const text = part.startsWith('systemId')
      ? SMSC.replace('systemId: me', part)
      : SMSC.replace('password', `${part}, password`);
    const told = mistakes({}, yaml(text));
    expect(told).toHaveLength(1);
    expect(told[0]).toContain(mistake.split(';')[0]);
  });
});

describe('routes', () => {
  it('are rules in order, one or many of each, numbers as YAML has them', () => {
    const text = `${CARRIER}
routes:
  - {name: de, to: 49, network: [26201], carriers: [north]}
  - {to: ["+1", 385], account: 2, sender: [4711, "News*"], channel: MMS, carriers: [{name: north, weight: 3}, sandbox]}
  - {shortCodes: 12345, carriers: []}
networks: {4917: 26201, "+385": "21901"}
resellerCodeRequired: [82]
`;
    expect(good({}, yaml(text))).toMatchObject({
      routes: [
        { name: 'de', to: ['49'], network: ['26201'], carriers: [{ carrier: 'north' }] },
        {
          to: ['1', '385'],
          account: [2],
          sender: ['4711', 'News*'],
          channel: 'MMS',
          carriers: [{ carrier: 'north', weight: 3 }, { carrier: 'sandbox' }],
        },
        { shortCodes: ['12345'], carriers: [] },
      ],
      networks: { 4917: '26201', '+385': '21901' },
      resellerCodeRequired: ['82'],
    });
    expect(good({ POSTCARD_RESELLER_CODE_REQUIRED: '82,850' }).resellerCodeRequired).toEqual(['82', '850']);
  });

  it('take the number table from a file', () => {
    const files = { ...yaml('networks: net.csv'), '/srv/net.csv': 'prefix,mccmnc\n4917,26201\n\n# x\n"385";21901\r\n' };
    expect(good({}, files).networks).toEqual({ 4917: '26201', 385: '21901' });
  });

  it.each<[string, string]>([
    ['routes: [{to: 49}]', 'routes[0].carriers is missing: must be a list of carriers'],
    ['routes: [{to: abc, carriers: []}]', 'routes[0].to[0]: must be digits, how numbers begin, like "49"'],
    [
      'routes: [{prefix: 49, carriers: []}]',
      'routes[0].prefix: no such setting of a route; `postcard config` lists all',
    ],
    ['routes: [{carriers: [nowhere]}]', 'routes[0].carriers[0] is "nowhere": no such carrier; choose of sandbox'],
    [
      'routes: [{carriers: [{name: sandbox}]}]',
      'routes[0].carriers[0]: must be the name of a carrier, or {name: NAME, weight: NUMBER}',
    ],
    ['networks: {49: x}', 'networks.49 is "x": must be a network like "26201" (MCC and MNC)'],
    ['networks: {x: 26201}', 'networks.x: must be digits, how numbers begin, like "49"'],
    ['networks: gone.csv', 'networks: cannot read gone.csv (ENOENT); name a readable file with lines like 4917,26201'],
    ['networks: bad.csv', 'networks: bad.csv: line 2: must be the beginning of numbers and a network, like 4917,26201'],
  ])('that are wrong are told so: %j', (text, mistake) => {
    expect(mistakes({}, { ...yaml(text), '/srv/bad.csv': '49,26201\nfoo\n' })).toEqual([`postcard.yaml: ${mistake}`]);
  });
});

describe('a mistake', () => {
  it.each<[Record<string, string>, string]>([
    [{ POSTCARD_PORT: '80a' }, 'POSTCARD_PORT is "80a": must be a whole number from 0 to 65535, for example 8080'],
    [{ POSTCARD_PORT: '65536' }, 'POSTCARD_PORT is 65536: must be a whole number from 0 to 65535, for example 8080'],
    [{ POSTCARD_PORT: '-1' }, 'POSTCARD_PORT is "-1": must be a whole number from 0 to 65535, for example 8080'],
    [{ POSTCARD_PORT: '1e3' }, 'POSTCARD_PORT is "1e3": must be a whole number from 0 to 65535, for example 8080'],
    [{ POSTCARD_PORT: ' ' }, 'POSTCARD_PORT is " ": must be a whole number from 0 to 65535, for example 8080'],
    [{ POSTCARD_SANDBOX: 'yes' }, 'POSTCARD_SANDBOX is "yes": must be true or false, for example true'],
    [{ POSTCARD_HOST: 'a b' }, 'POSTCARD_HOST is "a b": must be an IP address or a host name, for example 127.0.0.1'],
    [
      { POSTCARD_HOST: '1.2.3' },
      'POSTCARD_HOST is "1.2.3": must be an IP address or a host name, for example 127.0.0.1',
    ],
    [
      { POSTCARD_LOG_LEVEL: 'loud' },
      'POSTCARD_LOG_LEVEL is "loud": must be one of debug, info, warn, error, silent, for example info',
    ],
    [
      { POSTCARD_PUBLIC_URL: 'mms.example' },
      'POSTCARD_PUBLIC_URL is "mms.example": must be an http or https URL without query',
    ],
    [
      { POSTCARD_MAX_BODY_BYTES: '8MB' },
      'POSTCARD_MAX_BODY_BYTES is "8MB": must be a size from 1KiB to 256MiB, in bytes or like 8MiB, for example 8388608',
    ],
    [
      { POSTCARD_OUTBOUND_ALLOW: '10.0.0.0/33' },
      'POSTCARD_OUTBOUND_ALLOW is "10.0.0.0/33": must be a list of networks like 10.0.0.0/8, fd00::/8, or none',
    ],
    [{ POSTCARD_PROT: '1' }, 'POSTCARD_PROT: no such setting; did you mean POSTCARD_PORT?'],
    [{ POSTCARD_port: '1' }, 'POSTCARD_port: no such setting; did you mean POSTCARD_PORT?'],
    [{ POSTCARD_COLOUR_OF_THE_SKY: 'x' }, 'POSTCARD_COLOUR_OF_THE_SKY: no such setting; `postcard config` lists all'],
    [{ POSTCARD_CARRIERS: '[]' }, 'POSTCARD_CARRIERS: carriers can only be given in the YAML file'],
    [
      { POSTCARD_PORT_FILE: 'p' },
      'POSTCARD_PORT_FILE: only secrets are read from files; give the value itself in POSTCARD_PORT',
    ],
    [
      { POSTCARD_API_KEY_FILE: 'locked' },
      'POSTCARD_API_KEY_FILE: cannot read locked (EACCES); name a readable file that holds the secret',
    ],
    [
      { POSTCARD_API_KEY: 'a', POSTCARD_API_KEY_FILE: 'b' },
      'POSTCARD_API_KEY_FILE: POSTCARD_API_KEY is given too; leave one of the two out',
    ],
    [{ POSTCARD_API_KEY: 'my key' }, 'POSTCARD_API_KEY: must be 1 to 256 visible ASCII characters without spaces'],
    [
      { POSTCARD_STORE: 'postgres://me:hunter2@db' },
      'POSTCARD_STORE: must be sqlite:, sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE',
    ],
    [
      { POSTCARD_STORE: 'mysql://me:hunter2@db/x' },
      'POSTCARD_STORE: must be sqlite:, sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE',
    ],
    [
      { POSTCARD_ROLES: 'api,dispatch,sandbox' },
      'POSTCARD_ROLES: on the embedded store one process does all, and webhooks would be missing; name all, or give POSTCARD_STORE a PostgreSQL URL',
    ],
    [
      { POSTCARD_ROLES: 'api,disptach' },
      'POSTCARD_ROLES is "api,disptach": must be a list of api, dispatch, webhooks, sandbox',
    ],
    [
      { POSTCARD_CONFIG: 'gone.yaml' },
      'POSTCARD_CONFIG: cannot read gone.yaml (ENOENT); name a readable YAML file, or leave POSTCARD_CONFIG out',
    ],
    [
      { POSTCARD_PORT: '8081' },
      'POSTCARD_SANDBOX_PORT: port 8081 is that of POSTCARD_PORT too; give each its own, or 0 for a free one',
    ],
    [
      { POSTCARD_LOGS_HOURS: '200' },
      'POSTCARD_LOGS_HOURS: 200 hours is longer than messages are kept; raise POSTCARD_RETENTION_DAYS to 9 days, or lower it',
    ],
  ])('in the environment is one clear line: %j', (env, mistake) => {
    expect(mistakes(env)).toEqual([mistake]);
  });

  it.each<[string, string]>([
    ['prot: 1', 'postcard.yaml: prot: no such setting; did you mean port?'],
    ['POSTCARD_PORT: 1', 'postcard.yaml: POSTCARD_PORT: no such setting; here it is called port'],
    ['config: x.yaml', 'postcard.yaml: config: can only be given in the environment'],
    ['__proto__: {port: 1}', 'postcard.yaml: __proto__: no such setting; `postcard config` lists all'],
    ['port: 80.5', 'postcard.yaml: port is 80.5: must be a whole number from 0 to 65535, for example 8080'],
    ['port: [1]', 'postcard.yaml: port is [1]: must be a whole number from 0 to 65535, for example 8080'],
    ['apiKey: 7654321', 'postcard.yaml: apiKey: must be 1 to 256 visible ASCII characters without spaces'],
    ['- port: 1', 'postcard.yaml: must be a list of "setting: value" lines, like "port: 8080"'],
    ['just words', 'postcard.yaml: must be a list of "setting: value" lines, like "port: 8080"'],
    ['port: 1\nport: 2', 'postcard.yaml: line 2: not YAML: Map keys must be unique'],
  ])('in the file is one clear line: %j', (text, mistake) => {
    expect(mistakes({}, yaml(text))).toEqual([mistake]);
  });

  it('in the YAML itself names the line', () => {
    expect(mistakes({}, yaml('port: 1\nhost: "x\n'))[0]).toMatch(/^postcard\.yaml: line \d: not YAML: /);
  });

  it('in the YAML is told once a line, without its echoes', () => {
    const lines = mistakes({}, yaml('a: b: c\n\t- x')).map((mistake) => /line \d+/.exec(mistake)?.[0]);
    expect(lines).toEqual(['line 1', 'line 2']);
  });

  it('in a file that nobody may read is not taken for a missing file', () => {
    const loaded = loadConfig({
      env: {},
      cwd: '/srv',
      readFile() {
        throw Object.assign(new Error('no'), { code: 'EACCES' });
      },
    });
    expect(loaded).toMatchObject({
      ok: false,
      mistakes: ['cannot read postcard.yaml (EACCES); make it readable or remove it'],
    });
    // What stood in it is anybody's guess, but for what the environment says.
    expect(loaded.ok ? [] : [...loaded.unsure]).toEqual(SETTINGS.map(({ key }) => key));
  });

  it('does not hide another: all are told at once', () => {
    const told = mistakes(
      { POSTCARD_PORT: 'x', POSTCARD_HOTS: 'y', POSTCARD_API_KEY_FILE: 'gone' },
      yaml('sandbox: maybe\nlinkDays: 0\nnope: 1\ncarriers: [{name: "A!", type: x}]\n'),
    );
    expect(told).toHaveLength(9);
    for (const name of ['PORT', 'HOTS', 'API_KEY_FILE', 'sandbox', 'linkDays', 'nope', '.name', '.type', '.url']) {
      expect(told.filter((line) => line.includes(name)).length).toBeGreaterThanOrEqual(1);
    }
    for (const line of told) expect(line).not.toContain('\n');
  });

  it('is not followed by others that only its default would cause', () => {
    expect(mistakes({ POSTCARD_PORT: 'x', POSTCARD_SANDBOX_PORT: '8080' })).toHaveLength(1);
  });

  it('never repeats a secret', () => {
    const text = `${CARRIER}    username: [hunter2]\n    password: [hunter2]\n    inboundSecret: {hunter2: 1}\napiKey: [hunter2]\n`;
    const told = mistakes({ POSTCARD_STORE: 'x://hunter2' }, yaml(text.replace('username: [hunter2]', 'username: me')));
    expect(told).toHaveLength(4);
    expect(told.join('\n')).not.toContain('hunter2');
  });
});

describe('a configuration', () => {
  it('is plain data that crosses to a thread unchanged', () => {
    const config = good({}, yaml(CARRIER));
    expect(structuredClone(config)).toEqual(config);
    expect(JSON.parse(JSON.stringify(config))).toEqual(config);
  });

  it('is shared with no other: changing one leaves the next as it should be', () => {
    good().outboundAllow.push('10.0.0.0/8');
    expect(good().outboundAllow).toEqual(['127.0.0.0/8', '::1/128']);
  });

  it('describes itself: effective values, where they come from, no secrets', () => {
    const text = `${CARRIER}    username: me\n    password: hunter2\n    inboundSecret: hunter3\n`;
    const loaded = load({ POSTCARD_API_KEY: 'hunter1', POSTCARD_PORT: '9000' }, yaml(text));
    if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
    const rows = describeConfig(loaded.config, loaded.origins);
    expect(rows.map((row) => row.key)).toEqual(SETTINGS.map((s) => s.key));
    expect(JSON.stringify(rows)).not.toMatch(/hunter/);
    const row = (key: string) => rows.find((r) => r.key === key);
    expect(row('port')).toEqual({
      key: 'port',
      env: 'POSTCARD_PORT',
      value: '9000',
      origin: 'POSTCARD_PORT',
      default: '8080',
      help: 'API for customers; 0 = any free port',
    });
    expect(row('apiKey')).toMatchObject({ value: '***', origin: 'POSTCARD_API_KEY' });
    expect(row('publicUrl')).toMatchObject({ value: 'http://127.0.0.1:9000', origin: 'default' });
    expect(row('carriers')).toMatchObject({ env: '', origin: 'postcard.yaml' });
    expect(row('carriers')?.value).toContain('"password":"***"');
    expect(row('outboundAllow')?.value).toBe('127.0.0.0/8,::1/128');
    expect(row('maxBodyBytes')?.help).toContain('(bytes)');
    for (const r of rows) expect(r.help, r.key).not.toBe('');
  });
});

describe('a store on PostgreSQL', () => {
  const url = 'postgres://me:hunter2@db.example:5433/mms?sslmode=require';

  it('is taken as it is, and lets a process have only some roles', () => {
    const config = good({ POSTCARD_STORE: url, POSTCARD_ROLES: 'webhooks, api,api' });
    expect(config.store).toBe(url);
    expect(config.roles).toEqual(['webhooks', 'api']);
  });

  it('may have its host behind the question mark, as libpq has it', () => {
    const socket = 'postgres:///mms?host=/run/postgresql';
    expect(good({ POSTCARD_STORE: socket }).store).toBe(socket);
    expect(load({ POSTCARD_STORE: 'postgres:///mms?hostile=1' }).ok).toBe(false);
  });

  it('never shows its password', () => {
    const loaded = load({ POSTCARD_STORE: `${url}&password=hunter2` });
    if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
    const row = describeConfig(loaded.config, loaded.origins).find((item) => item.key === 'store');
    expect(row?.value).toBe('postgres://me:***@db.example:5433/mms?sslmode=require&password=***');
  });
});
