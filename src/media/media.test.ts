import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { nameOf } from '../domain/content.ts';
import { realEnv, type TestEnv, testEnv } from '../env.ts';
import {
  type CallFault,
  type CallFaultKind,
  createOutbound,
  type Fetched,
  type FetchOptions,
} from '../net/outbound.ts';
import { type MediaJob, type MediaOutcome, StoreUnavailable } from '../store/contract.ts';
import { kindOf } from './kind.ts';
import { createMedia, type MediaOptions } from './media.ts';

const PNG = Buffer.from('89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489', 'hex');
const JPEG = Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex');
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Media jobs as the store keeps them: due, leased, settled. */
function jobStore(env: TestEnv) {
  const rows = new Map<string, { job: Omit<MediaJob, 'tries'>; tries: number; dueAt: number | null }>();
  const settled: { job: string; outcome: MediaOutcome; at: number }[] = [];
  const content = new Map<string, Uint8Array>();
  const hints: (() => void)[] = [];
  const store: MediaOptions['store'] = {
    async mediaNext(limit, leaseMs) {
      const now = env.clock.now();
      const jobs: MediaJob[] = [];
      for (const row of rows.values()) {
        if (row.dueAt === null || row.dueAt > now || jobs.length >= limit) continue;
        row.dueAt = now + leaseMs;
        jobs.push({ ...row.job, tries: row.tries + 1 });
      }
      const due = [...rows.values()].flatMap((row) => (row.dueAt === null ? [] : [row.dueAt]));
      return { now, jobs, nextDue: due.length > 0 ? Math.min(...due) : null };
    },
    async mediaSettle({ spec, segment }, outcome) {
      const name = `${spec}/${segment}`;
      settled.push({ job: name, outcome, at: env.clock.now() });
      const row = rows.get(name);
      if (row && outcome.kind === 'again') row.tries += 1;
      if (row) row.dueAt = outcome.kind === 'again' ? env.clock.now() + outcome.afterMs : null;
    },
    putContent: async (hash, bytes) => void content.set(hash, bytes),
    content: async (hash) => content.get(hash) ?? null,
    onHint: (listener) => void hints.push(() => listener({ kind: 'media' })),
  };
  return {
    store,
    settled,
    content,
    add(
      spec: number,
      url: string,
      contentType: string | null = null,
      more: { account?: number; validityMs?: number } = {},
    ) {
      const { account = 1, validityMs = 48 * 3_600_000 } = more;
      rows.set(`${spec}/0`, {
        job: { spec, segment: 0, account, url, contentType, validUntil: env.clock.now() + validityMs },
        tries: 0,
        dueAt: env.clock.now(),
      });
      for (const hint of hints) hint();
    },
  };
}

const ok = (body: Uint8Array, type = 'image/png', status = 200, more = {}): Fetched => ({
  ok: true,
  status,
  headers: { 'content-type': type, ...more },
  body,
  url: '',
});
const bad = (kind: CallFaultKind): CallFault => ({ ok: false, kind, words: `words of ${kind}` });

function site(env: TestEnv, behave: (url: string) => Promise<Fetched | CallFault> | Fetched | CallFault) {
  const calls: { url: string; at: number; options: FetchOptions }[] = [];
  return {
    calls,
    fetch: async (url: string, options: FetchOptions) => {
      calls.push({ url, at: env.clock.now(), options });
      return behave(url);
    },
  };
}

describe('a link', () => {
  it('becomes content under its hash, with its type and name', async () => {
    const env = testEnv();
    const { store, settled, content, add } = jobStore(env);
    const web = site(env, () => ok(PNG));
    const media = createMedia({ store, outbound: web, env });
    media.start();
    add(1, 'https://cdn.example/a/cat.png?x=1');
    await env.clock.advance(100);
    const hash = createHash('sha256').update(PNG).digest('hex');
    expect(settled).toMatchObject([
      { job: '1/0', outcome: { kind: 'ready', hash, contentType: 'image/png', name: 'cat.png' } },
    ]);
    expect(content.get(hash)).toEqual(PNG);
    expect(web.calls[0]?.options).toMatchObject({ timeoutMs: 20_000, maxBytes: 5_242_880, redirects: 3 });
    await media.stop();
  });

  it('is fetched once for all segments that want it, also shortly after', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    const web = site(env, async () => {
      await env.clock.sleep(500);
      return ok(PNG);
    });
    const media = createMedia({ store, outbound: web, env });
    media.start();
    for (let spec = 1; spec <= 500; spec += 1) add(spec, 'https://cdn.example/cat.png');
    await env.clock.advance(1_000);
    add(501, 'https://cdn.example/cat.png');
    await env.clock.advance(100);
    expect([web.calls.length, settled.length]).toEqual([1, 501]);
    await env.clock.advance(61_000);
    add(502, 'https://cdn.example/cat.png');
    await env.clock.advance(1_000);
    expect(web.calls.length).toBe(2);
    await media.stop();
  });

  it('that cannot be had ends with the error that says why, at once where trying again cannot help', async () => {
    const cases: [Fetched | CallFault, number][] = [
      [ok(PNG, 'image/png', 404), 15024],
      [ok(PNG, 'image/png', 401), 15024],
      [ok(PNG, 'image/png', 204), 15024],
      [bad('no-such-name'), 15024],
      [bad('refused-address'), 15024],
      [bad('too-many-redirects'), 15024],
      [bad('tls'), 15024],
      [bad('too-big'), 15022],
      [bad('protocol'), 15025],
      [ok(Buffer.from('<!DOCTYPE html><p>log in'), 'text/html'), 15013],
      [ok(new Uint8Array(0)), 15013],
    ];
    for (const [result, error] of cases) {
      const env = testEnv();
      const { store, settled, add } = jobStore(env);
      const web = site(env, () => result);
      const media = createMedia({ store, outbound: web, env });
      media.start();
      add(1, 'https://cdn.example/cat.png');
      await env.clock.advance(600_000);
      expect([result, settled.map(({ outcome }) => outcome)]).toMatchObject([result, [{ kind: 'failed', error }]]);
      expect(web.calls).toHaveLength(1);
      await media.stop();
    }
  });

  it('is tried again where that may help, ever more rarely, as long as its message is worth sending', async () => {
    const cases: [Fetched | CallFault, number][] = [
      [ok(PNG, 'image/png', 503), 15024],
      [ok(PNG, 'image/png', 429), 15024],
      [bad('timeout'), 15024],
      [bad('connect'), 15024],
      [bad('dns'), 15024],
      [bad('closed'), 15025],
    ];
    for (const [result, error] of cases) {
      const env = testEnv();
      const { store, settled, add } = jobStore(env);
      const web = site(env, () => result);
      const media = createMedia({ store, outbound: web, env });
      media.start();
      const begun = env.clock.now();
      add(1, 'https://cdn.example/cat.png', null, { validityMs: 600_000 });
      await env.clock.advance(3_600_000);
      const gaps = web.calls.slice(1).map((call, i) => Math.round((call.at - (web.calls[i]?.at as number)) / 1_000));
      // The last one comes while there is still time to send.
      expect(gaps).toEqual([2, 5, 15, 30, 60, 120, 300, 58]);
      expect(settled.map(({ outcome }) => outcome.kind)).toEqual([...gaps.map(() => 'again'), 'failed']);
      expect(settled.at(-1)?.outcome).toMatchObject({ error });
      expect((settled.at(-1)?.at as number) - begun).toBeLessThan(600_000);
      await media.stop();
    }
  });

  it('is not tried again where the message would not outlive the wait', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    const media = createMedia({ store, outbound: site(env, () => bad('connect')), env });
    media.start();
    add(1, 'https://cdn.example/cat.png', null, { validityMs: 10_500 });
    await env.clock.advance(60_000);
    expect(settled.map(({ outcome }) => outcome)).toMatchObject([{ kind: 'failed', error: 15024 }]);
    await media.stop();
  });

  it('is not fetched for one account because another one did', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    const web = site(env, () => ok(PNG));
    const media = createMedia({ store, outbound: web, env });
    media.start();
    add(1, 'https://cdn.example/cat.png', null, { account: 1 });
    add(2, 'https://cdn.example/cat.png', null, { account: 2 });
    await env.clock.advance(1_000);
    expect([web.calls.length, settled.length]).toEqual([2, 2]);
    await media.stop();
  });

  it('that failed is asked for once by the requests of a bulk that come together', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    const web = site(env, () => ok(PNG, 'image/png', 404));
    const media = createMedia({ store, outbound: web, env });
    media.start();
    for (let spec = 1; spec <= 20; spec += 1) {
      add(spec, 'https://cdn.example/cat.png');
      await env.clock.advance(50);
    }
    await env.clock.advance(2_000);
    expect([web.calls.length, settled.length]).toEqual([1, 20]);
    add(21, 'https://cdn.example/cat.png');
    await env.clock.advance(1_000);
    expect(web.calls.length).toBe(2);
    await media.stop();
  });

  describe('fetched before', () => {
    const KNOWN = { etag: '"v1"', 'last-modified': 'Wed, 21 Oct 2015 07:28:00 GMT' };
    const unchanged = (url = ''): Fetched => ({ ok: true, status: 304, headers: {}, body: new Uint8Array(0), url });

    /** Fetches once, waits, and asks again with what the server answers then. */
    async function twice(
      first: Record<string, string>,
      second: (asked: Record<string, string>) => Fetched | CallFault,
      more: { waitMs?: number; between?: (content: Map<string, Uint8Array>) => void } = {},
    ) {
      const env = testEnv();
      const { store, settled, content, add } = jobStore(env);
      let n = 0;
      const asked: Record<string, string>[] = [];
      const web = {
        fetch: async (_: string, options: FetchOptions) => {
          const { 'user-agent': _agent, accept: _accept, ...rest } = options.headers ?? {};
          asked.push(rest);
          n += 1;
          return n === 1 ? ok(PNG, 'image/png', 200, first) : second(rest);
        },
      };
      const media = createMedia({ store, outbound: web, env });
      media.start();
      add(1, 'https://cdn.example/cat.png');
      await env.clock.advance(more.waitMs ?? 3_600_000);
      more.between?.(content);
      add(2, 'https://cdn.example/cat.png');
      await env.clock.advance(1_000);
      await media.stop();
      return { asked, outcomes: settled.map(({ outcome }) => outcome), content };
    }
    const conditional = { 'if-none-match': '"v1"', 'if-modified-since': KNOWN['last-modified'] };

    it('is the same content where the server says that it has not changed', async () => {
      const { asked, outcomes } = await twice(KNOWN, () => unchanged());
      expect(asked).toEqual([{}, conditional]);
      expect(outcomes[1]).toEqual(outcomes[0]);
    });

    it('is what the server gives now, where it has changed', async () => {
      const { asked, outcomes } = await twice(KNOWN, () => ok(JPEG, 'image/jpeg'));
      expect(asked).toEqual([{}, conditional]);
      expect(outcomes[1]).toMatchObject({ kind: 'ready', contentType: 'image/jpeg' });
    });

    it('is fetched whole where the question leads nowhere', async () => {
      const whole = (answer: Fetched | CallFault) => (headers: Record<string, string>) =>
        'if-none-match' in headers ? answer : ok(JPEG, 'image/jpeg');
      // Unchanged, but behind another redirect: the tag of another address.
      for (const answer of [unchanged('https://elsewhere.example/'), ok(PNG, 'image/png', 412), bad('timeout')]) {
        const { asked, outcomes } = await twice(KNOWN, whole(answer));
        expect(asked).toEqual([{}, conditional, {}]);
        expect(outcomes[1]).toMatchObject({ kind: 'ready', contentType: 'image/jpeg' });
      }
    });

    it('is fetched whole where our copy is gone', async () => {
      const { asked, outcomes } = await twice(
        KNOWN,
        (headers) => ('if-none-match' in headers ? unchanged() : ok(PNG)),
        {
          between: (content) => content.clear(),
        },
      );
      expect(asked).toEqual([{}, conditional, {}]);
      expect(outcomes[1]).toMatchObject({ kind: 'ready' });
    });

    it('is fetched whole after a day, or where nothing came to ask by', async () => {
      expect((await twice(KNOWN, () => ok(PNG), { waitMs: 90_000_000 })).asked).toEqual([{}, {}]);
      const nothing: Record<string, string>[] = [
        {},
        { etag: 'no quotes' },
        { etag: '"a\r\nx: y"' },
        { etag: `"${'x'.repeat(300)}"` },
        { 'last-modified': '"evil\r\n"' },
        { ...KNOWN, 'cache-control': 'private, No-Store' },
      ];
      for (const headers of nothing) expect((await twice(headers, () => ok(PNG))).asked).toEqual([{}, {}]);
    });
  });

  it('that comes back is taken, and waits as long as the server asks, at most an hour', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    let n = 0;
    const web = site(env, () => {
      n += 1;
      if (n === 1) return ok(PNG, 'image/png', 503, { 'retry-after': '10' });
      return n === 2 ? ok(PNG, 'image/png', 429, { 'retry-after': '99999' }) : ok(PNG);
    });
    const media = createMedia({ store, outbound: web, env });
    media.start();
    add(1, 'https://cdn.example/cat.png');
    await env.clock.advance(4_000_000);
    expect(settled.map(({ outcome }) => outcome)).toMatchObject([
      { kind: 'again', afterMs: 10_000 },
      { kind: 'again', afterMs: 3_600_000 },
      { kind: 'ready' },
    ]);
    await media.stop();
  });
});

describe('a link that does not answer', () => {
  it('is given up before the validity of the message ends, with its own words', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    const web = site(env, () => bad('timeout'));
    const slow: typeof web.fetch = async (url, options) => {
      const answer = await web.fetch(url, options);
      await env.clock.sleep(options.timeoutMs);
      return answer;
    };
    const media = createMedia({ store, outbound: { fetch: slow }, env });
    media.start();
    const startedAt = env.clock.now();
    add(1, 'https://hang.example/a.png', null, { validityMs: 60_000 });
    add(2, 'https://hang.example/b.png', null, { validityMs: 3_000 });
    await env.clock.advance(120_000);
    const ends = settled.filter(({ outcome }) => outcome.kind !== 'again');
    expect(
      ends.map(({ job, outcome, at }) => [job, outcome.kind, at - startedAt < (job === '1/0' ? 60_000 : 3_000)]),
    ).toEqual([
      ['2/0', 'failed', true],
      ['1/0', 'failed', true],
    ]);
    expect(web.calls.map(({ options }) => options.timeoutMs % 1000)).toEqual([0, 0, 0, 0]);
    await media.stop();
  });
});

describe('room', () => {
  it('is not taken from other hosts by one that hangs', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    let together = 0;
    let most = 0;
    const web = site(env, async (url) => {
      if (url.includes('hang')) {
        most = Math.max(most, ++together);
        await env.clock.sleep(20_000);
        together -= 1;
        return bad('timeout');
      }
      await env.clock.sleep(100);
      return ok(PNG);
    });
    const media = createMedia({ store, outbound: web, env });
    media.start();
    for (let spec = 1; spec <= 100; spec += 1)
      add(spec, `https://hang.example/${spec}`, null, { validityMs: 1_800_000 });
    for (let spec = 101; spec <= 200; spec += 1) add(spec, `https://h${spec}.example/x`);
    await env.clock.advance(2_000);
    expect(settled.filter(({ outcome }) => outcome.kind === 'ready')).toHaveLength(100);
    expect(most).toBe(4);
    await env.clock.advance(3_600_000);
    const ends = settled.filter(({ outcome }) => outcome.kind === 'failed').map(({ job }) => job);
    expect(new Set(ends).size).toBe(100);
    expect(most).toBe(4);
    await media.stop();
  });
});

describe('a store that is away', () => {
  it('loses no job', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    let failures = 6;
    const flaky: typeof store = {
      ...store,
      mediaNext: async (...args) => {
        if (failures-- > 3) throw new Error('away');
        return store.mediaNext(...args);
      },
      putContent: async (...args) => {
        if (failures-- > 0) throw new Error('disk full');
        return store.putContent(...args);
      },
    };
    const media = createMedia({ store: flaky, outbound: site(env, () => ok(PNG)), env });
    media.start();
    add(1, 'https://cdn.example/cat.png');
    await env.clock.advance(600_000);
    expect(settled.map(({ outcome }) => outcome.kind)).toEqual(['ready']);
    await media.stop();
  });
});

describe('a place for content that is away', () => {
  it('is waited for a little, so that the link need not be fetched again', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    let away = 3;
    const flaky: typeof store = {
      ...store,
      putContent: async (...args) => {
        if (away-- > 0) throw new StoreUnavailable('the content store does not answer');
        return store.putContent(...args);
      },
    };
    const web = site(env, () => ok(PNG));
    const media = createMedia({ store: flaky, outbound: web, env });
    media.start();
    add(1, 'https://cdn.example/cat.png');
    await env.clock.advance(4_000);
    expect(settled.map(({ outcome }) => outcome.kind)).toEqual(['ready']);
    expect(web.calls).toHaveLength(1);
    await media.stop();
  });
});

describe('a stop', () => {
  it('takes nothing more, waits a little, and is bounded', async () => {
    const env = testEnv();
    const { store, settled, add } = jobStore(env);
    const web = site(env, async (url) => {
      await env.clock.sleep(url.includes('slow') ? 1e9 : 1_000);
      return ok(PNG);
    });
    const media = createMedia({ store, outbound: web, env });
    media.start();
    add(1, 'https://a.example/x');
    add(2, 'https://slow.example/x');
    await env.clock.advance(100);
    const stopping = media.stop();
    add(3, 'https://a.example/y');
    await env.clock.advance(5_000);
    await stopping;
    expect(settled.map(({ job }) => job)).toEqual(['1/0']);
    expect(web.calls).toHaveLength(2);
  });
});

describe('what bytes are', () => {
  const text = (value: string) => Buffer.from(value);
  it('is told by the bytes, then the server, then the customer', async () => {
    const cases: [Uint8Array, string | undefined, string | null, string][] = [
      [PNG, 'image/png', null, 'image/png'],
      [PNG, 'image/jpeg', 'image/gif', 'image/png'],
      [PNG, 'text/html; charset=utf-8', null, 'image/png'],
      [JPEG, undefined, null, 'image/jpeg'],
      [JPEG, 'application/octet-stream', null, 'image/jpeg'],
      [text('#!AMR\nxxxxxxxxxxxx'), 'text/plain', null, 'audio/amr'],
      [text('%PDF-1.4 xxxx'), undefined, null, 'application/pdf'],
      [text('BEGIN:VCARD\r\nVERSION:3.0\r\nEND:VCARD'), 'text/plain', null, 'text/vcard'],
      [text('hello'), 'text/plain; charset=UTF-8', null, 'text/plain; charset=utf-8'],
      [text('hello'), 'text/plain; charset="ISO-8859-1"', null, 'text/plain; charset=iso-8859-1'],
      [Buffer.from([0x68, 0xe9]), 'text/plain; charset=iso-8859-1', null, 'text/plain; charset=iso-8859-1'],
      [text('hello'), 'nonsense', null, 'text/plain; charset=utf-8'],
      [text('a,b'), 'text/plain', 'text/csv', 'text/csv'],
      [text('<smil><body/></smil>'), 'application/octet-stream', 'application/smil', 'application/smil'],
      [text('<?xml version="1.0"?><smil><body/></smil>'), 'application/smil', null, 'application/smil'],
      [Buffer.from([0, 1, 2, 3, 4, 5, 6, 7]), 'application/octet-stream', 'audio/sp-midi', 'audio/sp-midi'],
      [text('x'), 'text/plain\r\nevil: yes', 'image/x"y', 'text/plain; charset=utf-8'],
    ];
    for (const [bytes, served, declared, contentType] of cases) {
      expect([served, declared, await kindOf(bytes, served, declared)]).toEqual([
        served,
        declared,
        { ok: true, contentType },
      ]);
    }
  });

  it('may not be a web page, an archive, a program, nothing, or a riddle', async () => {
    const cases: [Uint8Array, string | undefined, string | null][] = [
      [text('<!DOCTYPE html><html>'), 'image/jpeg', 'image/jpeg'],
      [text('\ufeff\n <!-- x --> <HTML>'), undefined, null],
      [text('<?xml version="1.0"?><html xmlns="x">'), 'image/png', null],
      [text('<div>'), 'text/html', 'image/png'],
      [text('<p>'), 'application/xhtml+xml', null],
      [text('PK\u0003\u0004xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'), 'image/png', null],
      [text('MZxxxxxxxxxxxxxxxxxxxx'), 'image/png', null],
      [new Uint8Array(0), 'image/png', 'image/png'],
      [text('{"error":1}'), 'application/json', 'image/png'],
      [Buffer.from([0, 1, 2, 3, 4, 5, 6, 7]), undefined, null],
      [Buffer.from([0, 1, 2, 3, 4, 5, 6, 7]), 'text/plain', null],
      [text('Not found'), 'text/plain', 'image/png'],
      [text('Not found'), 'image/jpeg', null],
      [text('quota exceeded'), undefined, 'video/mp4'],
      [Buffer.from([0, 1, 2, 3, 4, 5, 6, 7]), 'image/gif', 'image/gif'],
      [PNG.subarray(1), 'image/png', null],
    ];
    for (const [bytes, served, declared] of cases) {
      expect([served, declared, await kindOf(bytes, served, declared)]).toMatchObject([
        served,
        declared,
        { ok: false },
      ]);
    }
  });

  it('is told in time whatever the bytes', async () => {
    for (const fill of [' ', '<', '<!--', '<?xml ', '\n<?xml>', '<!-- > ']) {
      const bytes = Buffer.from(fill.repeat(Math.ceil(100_000 / fill.length)));
      // Of this thread, not on the wall: the machine may be busy with something else.
      const began = process.threadCpuUsage();
      await kindOf(bytes, undefined, null);
      const { user, system } = process.threadCpuUsage(began);
      expect((user + system) / 1000).toBeLessThan(500);
    }
  });

  it('takes a name from a plain link only', () => {
    expect(nameOf('https://a.example/b/cat_1.png?x')).toBe('cat_1.png');
    for (const url of [
      'https://a.example/',
      'https://a.example/%2e%2e',
      'https://a.example/a%22b',
      'https://a.example/.x',
      'no',
    ]) {
      expect([url, nameOf(url)]).toEqual([url, '']);
    }
  });
});

describe('over real sockets', () => {
  it('fetches what is there, through a redirect, and tells what is not', async () => {
    const server = createServer((request, response) => {
      if (request.url === '/cat.png') response.writeHead(200, { 'content-type': 'image/png' }).end(PNG);
      else if (request.url === '/moved') response.writeHead(302, { location: '/cat.png' }).end();
      else if (request.url === '/inside') response.writeHead(302, { location: 'http://169.254.169.254/' }).end();
      else if (request.url === '/big')
        response.writeHead(200, { 'content-type': 'image/png' }).end(Buffer.alloc(2_000));
      else if (request.url === '/page') response.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closers.push(() => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    });
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const env = realEnv({ level: 'silent' });
    const { store, settled, add } = jobStore(testEnv());
    const outbound = createOutbound({ allow: ['127.0.0.0/8'], env });
    const media = createMedia({ store, outbound, env, maxBytes: 1_000 });
    media.start();
    const paths = ['/cat.png', '/moved', '/inside', '/big', '/page', '/gone'];
    paths.forEach((path, spec) => void add(spec, base + path));
    while (settled.length < paths.length) await env.clock.sleep(10);
    await media.stop();
    await outbound.close();
    const outcomes = settled.sort((a, b) => (a.job < b.job ? -1 : 1)).map(({ outcome }) => outcome);
    expect(outcomes).toMatchObject([
      { kind: 'ready', contentType: 'image/png', name: 'cat.png' },
      { kind: 'ready', contentType: 'image/png', name: 'moved' },
      { kind: 'failed', error: 15024, words: expect.stringContaining('POSTCARD_OUTBOUND_ALLOW') },
      { kind: 'failed', error: 15022 },
      { kind: 'failed', error: 15013 },
      { kind: 'failed', error: 15024, words: 'the link answered 404' },
    ]);
  });
});
