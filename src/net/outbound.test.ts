import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createHttps, type Server as HttpsServer } from 'node:https';
import { type AddressInfo, createServer as createTcp, type Socket, type Server as TcpServer } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it } from 'vitest';
import { realEnv, testEnv } from '../env.ts';
import { addressRules } from './addresses.ts';
import { checkCallout } from './callout.ts';
import { cachedNames, NameFault, parseHosts, type Resolve } from './names.ts';
import { createOutbound, type Outbound } from './outbound.ts';

const env = realEnv({ level: 'silent' });
const LOOPBACK = ['127.0.0.0/8', '::1/128'];
const open: (() => Promise<unknown> | unknown)[] = [];

afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

function outbound(options: { allow?: string[]; resolve?: Resolve } = {}): Outbound {
  const made = createOutbound({ allow: LOOPBACK, env, ...options });
  open.push(() => made.close());
  return made;
}

async function listening(server: Server | TcpServer | HttpsServer, host: string): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  open.push(() => {
    if ('closeAllConnections' in server) server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return (server.address() as AddressInfo).port;
}

async function http(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  return `http://127.0.0.1:${await listening(createServer(handle), '127.0.0.1')}`;
}

/** A TCP peer that answers each request's first bytes with `handle`. */
async function tcp(handle: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createTcp((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', () => handle(socket));
  });
  const port = await listening(server, '127.0.0.1');
  open.push(() => sockets.forEach((socket) => void socket.destroy()));
  return `http://127.0.0.1:${port}`;
}

const POST = { headers: { 'content-type': 'application/json' }, body: '{}', timeoutMs: 30_000 };
const GET = { timeoutMs: 30_000, maxBytes: 1_000, redirects: 3 };

// ------------------------------------------------------------------------------------------------ addresses, spelt out

/** IPv4 addresses that nobody may be made to call, by what they are. */
const FORBIDDEN_V4 = [
  ...['0.0.0.0', '0.1.2.3', '10.0.0.1', '10.255.255.255', '100.64.0.1', '100.100.100.200', '100.127.255.255'],
  ...['127.0.0.1', '127.1.2.3', '127.255.255.255', '168.63.129.16', '169.254.0.1', '169.254.169.254'],
  ...['172.16.0.1', '172.31.255.255', '192.0.0.1', '192.0.0.192', '192.0.2.1', '192.31.196.1', '192.52.193.1'],
  ...['192.88.99.1', '192.168.0.1', '192.168.255.255', '192.175.48.1', '198.18.0.1', '198.19.255.255'],
  ...['198.51.100.1', '203.0.113.1', '224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255'],
];
const FORBIDDEN_V6 = [
  ...['::', '::1', '0:0:0:0:0:0:0:1', '0000:0000:0000:0000:0000:0000:0000:0001', '::0.0.0.1', 'fe80::1', 'febf::1'],
  ...['fc00::1', 'fd00::1', 'fd00:ec2::254', 'fec0::1', 'ff02::1', 'ff0e::1', '100::1', '2001:db8::1', '3fff::1'],
  ...['5f00::1', '2001:2::1', '2001:10::1', '2001:20::1', '2001::1', '2002::1', '64:ff9b::', '64:ff9b:1::1', '4000::1'],
  ...['8000::1', '::ffff:0:0', '::ffff:0:127.0.0.1', '0100:0000::1', 'FE80::1', 'FD00::ABCD', '::2', '::ffff'],
];

function octets(v4: string): [number, number, number, number] {
  return v4.split('.').map(Number) as [number, number, number, number];
}

/** The ways to write an IPv4 address as a URL's host. */
function spellings(v4: string): string[] {
  const [a, b, c, d] = octets(v4);
  const all = ((a * 256 + b) * 256 + c) * 256 + d;
  const hex = (n: number) => `0x${n.toString(16)}`;
  const octal = (n: number) => `0${n.toString(8)}`;
  const wide = (text: string) => text.replace(/\d/g, (digit) => String.fromCharCode(0xff10 + Number(digit)));
  const circled = (text: string) =>
    text.replace(/\d/g, (digit) => (digit === '0' ? '\u24ea' : String.fromCharCode(0x2460 + Number(digit) - 1)));
  const h = ((a << 8) | b).toString(16);
  const l = ((c << 8) | d).toString(16);
  return [
    v4,
    `${v4}.`,
    String(all),
    hex(all),
    `0x${all.toString(16).toUpperCase().padStart(8, '0')}`,
    octal(all),
    [a, b, c, d].map(hex).join('.'),
    [a, b, c, d].map(octal).join('.'),
    `${hex(a)}.${octal(b)}.${c}.${d}`,
    `${a}.${b}.${c * 256 + d}`,
    `${a}.${(b * 256 + c) * 256 + d}`,
    `000${octal(a)}.${b}.${c}.${d}`,
    wide(v4),
    circled(v4),
    v4.replaceAll('.', '\u3002'),
    v4.replaceAll('.', '%2E'),
    `%3${String(a)[0]}${String(a).slice(1)}.${b}.${c}.${d}`,
    `[::ffff:${v4}]`,
    `[::ffff:${h}:${l}]`,
    `[0:0:0:0:0:FFFF:${h}:${l}]`,
    `[::${v4}]`,
    `[::ffff:0:${v4}]`,
    `[64:ff9b::${v4}]`,
    `[64:ff9b:1::${v4}]`,
    `[2002:${h}:${l}::1]`,
    `[2001:0:${h}:${l}::1]`,
    `[2001:0:808:808:0:0:${(((a << 8) | b) ^ 0xffff).toString(16)}:${(((c << 8) | d) ^ 0xffff).toString(16)}]`,
  ];
}

const HOSTS = [
  ...FORBIDDEN_V4.flatMap(spellings),
  ...FORBIDDEN_V6.flatMap((v6) => [`[${v6}]`, `[${v6.toUpperCase()}]`]),
  ...[
    'localhost',
    'LOCALHOST',
    'localhost.',
    'a.localhost',
    '\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3',
    '\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54',
  ],
];

/** Not one of these may even be taken for a URL. */
const NO_URLS = [
  ...[
    'http://127.0.0.1@93.184.216.34/',
    'http://93.184.216.34@127.0.0.1/',
    'http://user:pass@example.com/',
    'http://:@example.com/',
  ],
  ...[
    'http://example.com\\@127.0.0.1/',
    'http:\\\\127.0.0.1/',
    'http:/127.0.0.1/',
    'http:127.0.0.1',
    'http:///127.0.0.1/',
  ],
  ...[
    'http://exa mple.com/',
    ' http://example.com/',
    'http://example.com/ ',
    'http://exam\nple.com/',
    'http://exam\tple.com/',
  ],
  ...[
    'http://example.com/\u0000',
    'http://[fe80::1%25eth0]/',
    'http://[fe80::1%eth0]/',
    'http://[::1%251]/',
    'http://[::1/',
  ],
  ...[
    'http://256.256.256.256/',
    'http://1.2.3.4.5/',
    'http://0x100000000/',
    'http://4294967296/',
    'http://127.0.0.1:99999/',
  ],
  ...[
    'http://',
    'http://?x',
    'http://#x',
    '//example.com/',
    'gopher://127.0.0.1/',
    'file:///etc/passwd',
    'ftp://example.com/',
  ],
  ...[
    'javascript:alert(1)',
    'data:text/plain,x',
    'ws://example.com/',
    'unix:/tmp/x',
    'HTTP+unix://x',
    '',
    'example.com',
  ],
  ...[
    'http://%00/',
    'http://a%00b/',
    'http://127.0.0.1%00.example.com/',
    'http://ex%ample.com/',
    `http://a/${'x'.repeat(9000)}`,
  ],
];

describe('the address filter', () => {
  it(`refuses ${HOSTS.length} spellings of addresses that are not public, at the door and at the call`, async () => {
    expect(new Set(HOSTS).size).toBeGreaterThan(900);
    const check = checkCallout([]);
    const dialled: string[] = [];
    const made = createOutbound({
      allow: [],
      env,
      // Names that slipped through as such (a host may be anything) lead to the loopback, as a hostile zone would have it.
      resolve: async () => ({ addresses: ['127.0.0.1', '::1', '169.254.169.254'], ttlMs: 0 }),
      dial: (to, callback) => {
        dialled.push(to.hostname);
        callback(new Error('dialled'), null);
      },
    });
    const wrong: string[] = [];
    for (const host of HOSTS) {
      const url = `http://${host}:81/x`;
      if (check(url) === null) wrong.push(`door: ${host}`);
      const result = await made.post(url, POST);
      if (result.ok || (result.kind !== 'refused-address' && result.kind !== 'url')) wrong.push(`call: ${host}`);
    }
    expect(wrong).toEqual([]);
    expect(dialled).toEqual([]);
    await made.close();
  });

  it('names the setting for an address, and takes what is no URL for none', () => {
    const check = checkCallout([]);
    expect(check('http://127.0.0.1/x')).toBe(
      'must be a public address or one that POSTCARD_OUTBOUND_ALLOW lists (this one is loopback)',
    );
    expect(check('http://10.1.2.3/x')).toContain('(this one is private)');
    expect(check('http://169.254.1.1/x')).toContain('(this one is link local)');
    for (const url of NO_URLS) expect([url, check(url)]).toEqual([url, 'is not a valid url']);
  });

  it('lets public addresses and names pass, in any lawful spelling', () => {
    const check = checkCallout([]);
    const fine = [
      ...[
        'https://example.com/x?a=b#c',
        'http://EXAMPLE.com:8080',
        'https://b\u00fccher.example/\u00fc',
        'http://93.184.216.34/',
      ],
      ...[
        'http://[2606:2800:220:1:248:1893:25c8:1946]/',
        'http://0x5db8d822/',
        'http://[::ffff:93.184.216.34]/',
        'http://a.b./',
      ],
      ...[
        'http://172.15.0.1/',
        'http://172.32.0.1/',
        'http://100.63.0.1/',
        'http://100.128.0.1/',
        'http://localhost.example.com/',
      ],
    ];
    for (const url of fine) expect([url, check(url)]).toEqual([url, null]);
  });

  it('lets pass what the operator allows, and no more', () => {
    const check = checkCallout(['10.1.0.0/16', '127.0.0.0/8', '::1/128', 'fd12::/16']);
    for (const host of [
      '10.1.2.3',
      '127.9.9.9',
      '0x7f000001',
      '[::1]',
      '[::ffff:10.1.0.1]',
      '[fd12::1]',
      'localhost',
    ]) {
      expect([host, check(`http://${host}/`)]).toEqual([host, null]);
    }
    for (const host of [
      '10.2.0.1',
      '192.168.0.1',
      '[fd13::1]',
      '[2002:a01:203::1]',
      '[64:ff9b::10.1.2.3]',
      '[::10.1.2.3]',
    ]) {
      expect([host, check(`http://${host}/`)]).not.toEqual([host, null]);
    }
  });

  it('looks into a wrapped address even where the wrapping is allowed', () => {
    const rules = addressRules(['64:ff9b::/96', '2002::/16']);
    expect(rules.fault('64:ff9b::808:808')).toBe(null);
    expect(rules.fault('64:ff9b::7f00:1')).toBe('loopback');
    expect(rules.fault('2002:a00:1::1')).toBe('private');
    expect(addressRules(['::ffff:10.0.0.0/104']).fault('10.9.9.9')).toBe(null);
  });

  it('refuses what is not an address at all', () => {
    const rules = addressRules([]);
    for (const text of ['', 'x', '1.2.3', '1.2.3.4.5', '01.2.3.4', '1.2.3.256', 'fe80::1%eth0', '2606::1%1', '::g']) {
      expect([text, rules.fault(text)]).toEqual([text, 'not an address']);
    }
  });
});

describe('names', () => {
  it('never connects to a private address, however often the answer changes (10 000 rounds)', async () => {
    const dialled: string[] = [];
    let round = 0;
    const answers = [
      ['93.184.216.34'],
      ['127.0.0.1'],
      ['169.254.169.254', '::1'],
      ['10.0.0.1', '93.184.216.34'],
      ['::ffff:127.0.0.1'],
    ];
    const made = createOutbound({
      allow: [],
      env,
      resolve: async () => ({ addresses: answers[round++ % answers.length] as string[], ttlMs: 0 }),
      dial: (to, callback) => {
        dialled.push(to.hostname);
        callback(Object.assign(new Error('no route'), { code: 'ENETUNREACH' }), null);
      },
    });
    const kinds = new Map<string, number>();
    for (let i = 0; i < 10_000; i += 1) {
      const result = await made.post('http://rebind.example/', POST);
      const kind = result.ok ? 'ok' : result.kind;
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
    expect(Object.fromEntries(kinds)).toEqual({ connect: 4_000, 'refused-address': 6_000 });
    expect(dialled.every((address) => address === '93.184.216.34')).toBe(true);
    await made.close();
  });

  it('drops a socket that ended at another address than was dialled', async () => {
    const url = await http((_, response) => response.end());
    const { buildConnector } = await import('undici');
    const real = buildConnector({});
    const made = createOutbound({
      allow: [],
      env,
      resolve: async () => ({ addresses: ['93.184.216.34'], ttlMs: 0 }),
      dial: (to, callback) => real({ ...to, hostname: '127.0.0.1' }, callback),
    });
    const result = await made.post(`http://example.com:${new URL(url).port}/`, POST);
    expect(result).toMatchObject({ ok: false, kind: 'refused-address' });
    await made.close();
  });

  it('tries the next address when one does not answer the door', async () => {
    const url = await http((_, response) => response.end('here'));
    const made = outbound({ resolve: async () => ({ addresses: ['127.0.0.2', '127.0.0.1'], ttlMs: 0 }) });
    expect(await made.post(`http://two.example:${new URL(url).port}/`, POST)).toMatchObject({
      ok: true,
      excerpt: 'here',
    });
  });

  it('says what was said at an open door, not that another one is shut', async () => {
    const server = createHttps({ cert: CERTIFICATE, key: CERTIFICATE_KEY }, (_, response) => response.end());
    const port = await listening(server, '127.0.0.1');
    const made = outbound({ resolve: async () => ({ addresses: ['127.0.0.1', '127.0.0.2'], ttlMs: 0 }) });
    expect(await made.post(`https://two.example:${port}/`, POST)).toMatchObject({ ok: false, kind: 'tls' });
    const shut = outbound({ resolve: async () => ({ addresses: ['127.0.0.2', '127.0.0.1'], ttlMs: 0 }) });
    expect(await shut.post(`https://two.example:${port}/`, POST)).toMatchObject({ ok: false, kind: 'tls' });
  });

  it('reaches localhost without a name server', async () => {
    const url = await http((_, response) => response.end('here'));
    expect(await outbound().post(url.replace('127.0.0.1', 'localhost'), POST)).toMatchObject({ status: 200 });
  });

  it('tells an unknown name from name servers that do not answer', async () => {
    const made = outbound({
      resolve: async (name) => {
        throw new NameFault('words', name === 'down.example');
      },
    });
    expect(await made.post('http://gone.example/', POST)).toMatchObject({ kind: 'no-such-name', words: 'words' });
    expect(await made.post('http://down.example/', POST)).toMatchObject({ kind: 'dns' });
    expect(await made.post(`http://${'a'.repeat(60)}.${'b.'.repeat(120)}example/`, POST)).toMatchObject({ ok: false });
  });

  it('asks once for many, keeps answers for their time and at most a minute, and never a TTL of 0', async () => {
    const test = testEnv();
    let asked = 0;
    let ttlMs = 3_600_000;
    const names = cachedNames(async () => {
      asked += 1;
      return { addresses: Array.from({ length: 40 }, (_, i) => `198.51.100.${i}`), ttlMs };
    }, test);
    const both = await Promise.all([names('a.example'), names('A.example.')]);
    expect([asked, both[0]?.length]).toEqual([1, 16]);
    await test.clock.advance(59_999);
    await names('a.example');
    expect(asked).toBe(1);
    await test.clock.advance(2);
    ttlMs = 0;
    await names('a.example');
    await names('a.example');
    expect(asked).toBe(3);
  });

  it('reads a hosts file as the system does', () => {
    const names = parseHosts(
      '127.0.0.1 localhost\n# no\n10.0.0.5\tHost.docker.internal db # x\n::1 db\nbad line\n\n300.1.1.1 x',
    );
    expect(names.get('host.docker.internal')).toEqual(['10.0.0.5']);
    expect(names.get('db')).toEqual(['10.0.0.5', '::1']);
    expect(names.has('line') || names.has('x')).toBe(false);
  });
});

describe('a POST', () => {
  it('sends headers and bytes as given and tells what was answered', async () => {
    let got = '';
    const url = await http((request, response) => {
      request.setEncoding('utf8');
      request.on('data', (chunk: string) => {
        got += chunk;
      });
      request.on('end', () => {
        got += ` ${request.method} ${request.url} ${request.headers['x-a']} ${request.headers.host}`;
        response.writeHead(202, { 'x-b': ['1', '2'] }).end('thank\u0007 you');
      });
    });
    const result = await outbound().post(`${url}/p?q=\u00fc#f`, { ...POST, headers: { 'x-a': 'b' }, body: 'h\u00e9' });
    expect(result).toMatchObject({ ok: true, status: 202, excerpt: 'thank  you', headers: { 'x-b': '1, 2' } });
    expect(got).toBe(`h\u00e9 POST /p?q=%C3%BC b ${new URL(url).host}`);
  });

  it('reuses its connections', async () => {
    const ports = new Set<number | undefined>();
    const url = await http((request, response) => {
      ports.add(request.socket.remotePort);
      response.end();
    });
    const made = outbound();
    for (let i = 0; i < 20; i += 1) await made.post(url, POST);
    // The next call may come before the last one's connection is free again.
    expect(ports.size).toBeLessThanOrEqual(2);
  });

  it('does not follow a redirect', async () => {
    let calls = 0;
    const url = await http((_, response) => {
      calls += 1;
      response.writeHead(307, { location: '/other' }).end();
    });
    expect(await outbound().post(url, POST)).toMatchObject({ ok: true, status: 307 });
    expect(calls).toBe(1);
  });

  it('takes the status of a receiver that then never ends, or sends without end', async () => {
    const hanging = await http((_, response) => response.writeHead(200).write('taken'));
    expect(await outbound().post(hanging, { ...POST, timeoutMs: 60_000 })).toMatchObject({
      status: 200,
      excerpt: 'taken',
    });
    let sent = 0;
    const endless = await http((_, response) => {
      const more = (): void => {
        sent += 65_536;
        if (response.write('x'.repeat(65_536))) setImmediate(more);
        else response.once('drain', more);
      };
      more();
    });
    const result = await outbound().post(endless, POST);
    expect(result).toMatchObject({ status: 200, excerpt: 'x'.repeat(500) });
    expect(sent).toBeLessThan(64 * 1024 * 1024);
  });

  it('gives up on a receiver that does not answer, at each stage', async () => {
    const silent = await tcp(() => undefined);
    const short = { ...POST, timeoutMs: 100 };
    expect(await outbound().post(silent, short)).toEqual({
      ok: false,
      kind: 'timeout',
      words: 'no answer within 0.1 s',
    });
    const half = await tcp((socket) => socket.write('HTTP/1.1 200 OK\r\nx: '));
    expect(await outbound().post(half, short)).toMatchObject({ kind: 'timeout' });
    const nameless = outbound({ resolve: () => new Promise(() => undefined) });
    expect(await nameless.post('http://slow.example/', short)).toMatchObject({ kind: 'timeout' });
  });

  it('does not send what ran out of time while it waited for a connection', async () => {
    let release = (): void => undefined;
    let calls = 0;
    const url = await http((_, response) => {
      calls += 1;
      response.end();
    });
    const made = outbound({
      resolve: () =>
        new Promise((resolve) => {
          release = () => resolve({ addresses: ['127.0.0.1'], ttlMs: 60_000 });
        }),
    });
    const name = `http://late.example:${new URL(url).port}/`;
    expect(await made.post(name, { ...POST, timeoutMs: 50 })).toMatchObject({ kind: 'timeout' });
    release();
    expect(await made.post(name, POST)).toMatchObject({ status: 200 });
    expect(calls).toBe(1);
  });

  it('has a kind for each way to fail', async () => {
    const made = outbound();
    const port = new URL(await http((_, response) => response.end())).port;
    expect(await made.post('ftp://x/', POST)).toMatchObject({ kind: 'url' });
    expect(await made.post('http://10.0.0.1/', POST)).toEqual({
      ok: false,
      kind: 'refused-address',
      words: 'not a public address (private); POSTCARD_OUTBOUND_ALLOW lists exceptions',
    });
    expect(await made.post('http://127.0.0.1:1/', POST)).toMatchObject({ kind: 'connect' });
    expect(await made.post(`https://127.0.0.1:${port}/`, POST)).toMatchObject({ kind: 'tls' });
    expect(await made.post(await tcp((socket) => socket.end('garbage\r\n\r\n')), POST)).toMatchObject({
      kind: 'protocol',
    });
    // Nobody asked for a 100; HTTP has us pass over it all the same.
    const eager = await tcp((socket) =>
      socket.end('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 Done\r\n\r\n'),
    );
    expect(await made.post(eager, POST)).toMatchObject({ ok: true, status: 204 });
    expect(await made.post(await tcp((socket) => socket.destroy()), POST)).toMatchObject({ kind: 'closed' });
    expect(await made.post(await tcp((socket) => socket.resetAndDestroy()), POST)).toMatchObject({ kind: 'closed' });
    const flood = await tcp((socket) =>
      socket.write(`HTTP/1.1 200 OK\r\n${`x: ${'y'.repeat(1000)}\r\n`.repeat(40)}\r\n`),
    );
    expect(await made.post(flood, POST)).toMatchObject({ kind: 'protocol' });
    expect(await made.post(await http((_, r) => r.end()), { ...POST, headers: { 'x\n': 'y' } })).toMatchObject({
      kind: 'protocol',
    });
  });

  it('ends what is in flight when it is closed, and takes nothing more', async () => {
    const made = createOutbound({ allow: LOOPBACK, env });
    const silent = await tcp(() => void made.close());
    expect(await made.post(silent, POST)).toMatchObject({ kind: 'stopped' });
    expect(await made.post(silent, POST)).toMatchObject({ kind: 'stopped' });
  });
});

describe('a GET', () => {
  it('gives the bytes and the headers', async () => {
    const url = await http((request, response) => {
      response.writeHead(200, { 'content-type': 'image/png', 'x-asked': request.headers['accept-encoding'] });
      response.end(Buffer.from([1, 2, 0, 255]));
    });
    const result = await outbound().fetch(url, GET);
    expect(result).toMatchObject({
      ok: true,
      status: 200,
      headers: { 'content-type': 'image/png', 'x-asked': 'identity' },
    });
    expect(result.ok && [...result.body]).toEqual([1, 2, 0, 255]);
  });

  it('follows three redirects, relative and absolute, and no fourth', async () => {
    const url = await http((request, response) => {
      const n = Number(request.url?.slice(1));
      if (n === 0) response.end('found');
      else
        response.writeHead([301, 302, 303, 307, 308][n] as number, { location: `${n % 2 ? '' : url}/${n - 1}` }).end();
    });
    expect(await outbound().fetch(`${url}/3`, GET)).toMatchObject({ ok: true, url: `${url}/0` });
    expect(await outbound().fetch(`${url}/4`, GET)).toMatchObject({ ok: false, kind: 'too-many-redirects' });
  });

  it('judges each hop anew: address, scheme, credentials, port', async () => {
    const targets = [
      'http://10.0.0.1/',
      'http://[::ffff:a9fe:a9fe]/',
      'http://2130706433/x',
      '//169.254.169.254/latest',
    ];
    const closed = [
      'file:///etc/passwd',
      'ftp://127.0.0.1/',
      'gopher://127.0.0.1/',
      'http://u:p@127.0.0.1/',
      'http://[',
    ];
    let location = '';
    const url = await http((_, response) => response.writeHead(302, { location }).end());
    const made = outbound({ allow: ['127.0.0.1/32'] });
    for (location of targets) {
      const kind = location === 'http://2130706433/x' ? 'connect' : 'refused-address';
      expect([location, await made.fetch(url, GET)]).toMatchObject([location, { ok: false, kind }]);
    }
    for (location of closed) expect([location, await made.fetch(url, GET)]).toMatchObject([location, { kind: 'url' }]);
    location = 'http://127.0.0.1:25/';
    const words = "the redirect must not name port 25, which is another protocol's";
    expect(await made.fetch(url, GET)).toEqual({ ok: false, kind: 'url', words });
  });

  it('follows no redirect to an address that is not public, in any spelling, or to a name that leads to one', async () => {
    const here = '127.0.0.1';
    const hosts = [
      ...FORBIDDEN_V4.filter((v4) => v4 !== here).flatMap((v4, i) => spellings(v4).filter((_, n) => (n + i) % 2 === 0)),
      ...FORBIDDEN_V6.map((v6) => `[${v6}]`),
      'inside.example',
    ];
    expect(new Set(hosts).size).toBeGreaterThan(400);
    let location = '';
    const url = await http((_, response) => response.writeHead(307, { location }).end());
    const made = outbound({
      allow: [`${here}/32`],
      resolve: async () => ({ addresses: ['10.0.0.1', '::1', '169.254.169.254'], ttlMs: 0 }),
    });
    const wrong: string[] = [];
    for (const host of hosts) {
      location = `http://${host}:81/x`;
      // As bytes of a header travel: what is no Latin-1 in its escaped form.
      if (/[^\x20-\xff]/.test(host)) location = `http://${encodeURIComponent(host)}:81/x`;
      const result = await made.fetch(url, GET);
      if (result.ok || (result.kind !== 'refused-address' && result.kind !== 'url'))
        wrong.push(`${host}: ${JSON.stringify(result)}`);
    }
    expect(wrong).toEqual([]);
  });

  it('stops at the limit of bytes, declared or not', async () => {
    let written = 0;
    const declared = await http((_, response) => {
      response.writeHead(200, { 'content-length': 1_000_000 });
      response.write('x', () => {
        written += 1;
      });
    });
    expect(await outbound().fetch(declared, GET)).toEqual({
      ok: false,
      kind: 'too-big',
      words: 'more than 1000 bytes',
    });
    expect(written).toBe(1);
    const chunked = await http((_, response) => {
      response.write('x'.repeat(1000));
      response.end('x');
    });
    expect(await outbound().fetch(chunked, GET)).toMatchObject({ kind: 'too-big' });
    expect(await outbound().fetch(chunked, { ...GET, maxBytes: 1001 })).toMatchObject({ ok: true });
  });

  it('unpacks one packing, within the limit, and no bomb', async () => {
    const plain = Buffer.from('abc'.repeat(10_000));
    let packed = gzipSync(plain);
    let encoding = 'gzip';
    const url = await http((_, response) => response.writeHead(200, { 'content-encoding': encoding }).end(packed));
    const big = { ...GET, maxBytes: 5_000_000 };
    const made = outbound();
    const result = await made.fetch(url, big);
    expect(result.ok && plain.equals(result.body)).toBe(true);
    expect(await made.fetch(url, { ...GET, maxBytes: 20_000 })).toMatchObject({
      kind: 'too-big',
      words: 'more than 20000 bytes when unpacked',
    });
    packed = gzipSync(Buffer.alloc(4_000_000));
    expect(await made.fetch(url, big)).toMatchObject({
      kind: 'too-big',
      words: 'grows more than 20 times when unpacked',
    });
    packed = brotliCompressSync(Buffer.alloc(4_000_000));
    encoding = 'br';
    expect(await made.fetch(url, big)).toMatchObject({ kind: 'too-big' });
    packed = Buffer.from('no brotli');
    expect(await made.fetch(url, big)).toMatchObject({ kind: 'protocol' });
    encoding = 'gzip, gzip';
    expect(await made.fetch(url, big)).toMatchObject({ kind: 'protocol' });
  });

  it('does not take half a body for a whole one', async () => {
    const broken = await tcp((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'));
    expect(await outbound().fetch(broken, GET)).toMatchObject({ ok: false, kind: 'closed' });
    const slow = await tcp((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf'));
    expect(await outbound().fetch(slow, { ...GET, timeoutMs: 1_000 })).toEqual({
      ok: false,
      kind: 'timeout',
      words: 'not had within 1 s',
    });
  });

  it('reads no body but that of a 200', async () => {
    const url = await http((_, response) => response.writeHead(404).end('gone'));
    const result = await outbound().fetch(url, GET);
    expect(result).toMatchObject({ ok: true, status: 404 });
    expect(result.ok && result.body.length).toBe(0);
  });
});

// ------------------------------------------------------------------------------------------------------------- TLS

/** Self-signed for good.example, until 2126; made for this test only. */
const CERTIFICATE = `-----BEGIN CERTIFICATE-----
MIIBnzCCAUSgAwIBAgIULYzDvIJW24MH0oiP0LrVC4gtk2wwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMZ29vZC5leGFtcGxlMCAXDTI2MTEyNjA3MTU0OFoYDzIxMjYx
MTAyMDcxNTQ4WjAXMRUwEwYDVQQDDAxnb29kLmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAATOs1hxtZeWxrKDDKmG3dF7i87YjhDlZ5cbuzHnx5ee4osI
EpF+JHL6VqHQTBqDEAzWG5sdhYo7HGEWrQf2ckVdo2wwajAdBgNVHQ4EFgQUQmU5
DDBcshZklDMTQkotHQ9iDnwwHwYDVR0jBBgwFoAUQmU5DDBcshZklDMTQkotHQ9i
DnwwDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxnb29kLmV4YW1wbGUwCgYI
KoZIzj0EAwIDSQAwRgIhAK5mznS+tazhyxvZsdAYZmdT12+i9wbVBG7ELsQqPjd8
AiEAsga28WkuITbGaUCluueSHE1flfl3+IdjWLUbJI1AQIE=
-----END CERTIFICATE-----`;
const CERTIFICATE_KEY = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqtAix/gsVN9l92rh
1OLPdqjkd67fbqfZ81vD7OWPv4ShRANCAATOs1hxtZeWxrKDDKmG3dF7i87YjhDl
Z5cbuzHnx5ee4osIEpF+JHL6VqHQTBqDEAzWG5sdhYo7HGEWrQf2ckVd
-----END PRIVATE KEY-----`;

describe('TLS', () => {
  it("is verified against the name, not the address, and against the machine's authorities", async () => {
    const names: string[] = [];
    const server = createHttps({ cert: CERTIFICATE, key: CERTIFICATE_KEY }, (request, response) => {
      names.push((request.socket as { servername?: string }).servername ?? '');
      response.end('safe');
    });
    const port = await listening(server, '127.0.0.1');
    const resolve: Resolve = async () => ({ addresses: ['127.0.0.1'], ttlMs: 0 });
    const untrusting = outbound({ resolve });
    expect(await untrusting.post(`https://good.example:${port}/`, POST)).toMatchObject({ ok: false, kind: 'tls' });
    const before = getCACertificates('default');
    setDefaultCACertificates([CERTIFICATE]);
    open.push(() => setDefaultCACertificates(before));
    const made = outbound({ resolve });
    expect(await made.post(`https://good.example:${port}/`, POST)).toMatchObject({ ok: true, excerpt: 'safe' });
    expect(await made.post(`https://GOOD.example.:${port}/`, POST)).toMatchObject({ ok: true });
    expect(await made.post(`https://other.example:${port}/`, POST)).toMatchObject({ ok: false, kind: 'tls' });
    expect(await made.post(`https://127.0.0.1:${port}/`, POST)).toMatchObject({ ok: false, kind: 'tls' });
    expect(names).toEqual(['good.example', 'good.example']);
  });
});
