/** `webhooks`, `endpoint`, `optout` and `listen` against a real server's API. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KEY, type OpenDoor, openDoor } from '../../test/api/door.ts';
import { signature } from '../webhooks/payload.ts';
import { run } from './postcard.ts';
import type { Io } from './terminal.ts';

let door: OpenDoor;
beforeAll(async () => {
  door = await openDoor({ now: Date.now });
});
afterAll(() => door?.close());

interface Said {
  code: number;
  out: string;
  err: string;
}

function start(args: string[], onText: (text: string) => void = () => {}): { stop(): void; done: Promise<Said> } {
  const stop = new AbortController();
  const said = { out: '', err: '' };
  const io: Io = {
    out: (text) => {
      said.out += text;
      onText(text);
    },
    err: (text) => {
      said.err += text;
      onText(text);
    },
    env: {},
    cwd: '/',
    tty: false,
    readFile: () => {
      throw Object.assign(new Error('no file'), { code: 'ENOENT' });
    },
    stop: stop.signal,
  };
  return { stop: () => stop.abort(), done: run(args, io).then((code) => ({ code, ...said })) };
}
const remote = ['--url', '', '--key', KEY];
const type = (...args: string[]): Promise<Said> => {
  remote[1] = door.url;
  return start([...args, ...remote]).done;
};
const json = async (...args: string[]) => {
  const said = await type(...args, '-o', 'json');
  expect(said.err).toBe('');
  return JSON.parse(said.out);
};

async function final(): Promise<void> {
  await door.send({
    messages: [
      {
        sender: 'Shop',
        destinations: [{ to: '41793026727' }],
        content: { messageSegments: [{ type: 'TEXT', text: 'hello' }] },
        webhooks: { delivery: { url: 'https://a.example/hook' } },
      },
    ],
  });
  await door.submit(() => ({ kind: 'refused', error: { id: 15009 } }));
}
async function post(ok: boolean): Promise<void> {
  const { webhooks } = await door.store.webhookNext(1, 30_000);
  for (const { no, token } of webhooks) {
    await door.store.webhookSettle({
      no,
      token,
      ok,
      status: ok ? 200 : 0,
      tookMs: 1,
      excerpt: 'timeout: \u001b[31mno',
      body: 'b',
    });
  }
}

describe('postcard webhooks', () => {
  it('lists them, and replays one, or all of an endpoint', async () => {
    expect((await type('webhooks', 'list')).out).toBe('no webhooks\n');
    await final();
    await post(true);
    const [one] = await json('webhooks', 'list');
    expect(one).toMatchObject({ state: 'DELIVERED', endpoint: 'https://a.example/hook' });
    expect((await type('webhooks', 'replay', one.id)).out).toBe('due again\n');
    await post(false);
    const shown = await type('webhooks', 'list', '--state', 'open');
    expect(shown.out).toContain('timeout: ?[31mno');
    expect(shown.out.split('\n')).toHaveLength(3);
    expect((await type('webhooks', 'list', '--state', 'exhausted')).out).toBe('no webhooks\n');
    expect((await type('webhooks', 'replay', '--endpoint', 'https://a.example/hook')).out).toBe('0 due again\n');
    await type('webhooks', 'replay', one.id);
    await post(true);
    expect(await json('webhooks', 'replay', '--endpoint', 'https://a.example/hook')).toEqual([{ replayed: 1 }]);
  });

  it('says what is wrong', async () => {
    expect(await type('webhooks', 'replay')).toMatchObject({ code: 1, err: expect.stringContaining('which ones?') });
    const unknown = await type('webhooks', 'replay', 'x');
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining('no webhook x') });
    const state = await type('webhooks', 'list', '--state', 'broken');
    expect(state).toMatchObject({ code: 1, err: 'postcard: state: Provide one of the valid values.\n' });
  });

  it('lets reports be pulled again', async () => {
    expect((await type('webhooks', 'rearm', '--since', '2020-01-01T00:00:00Z')).out).toBe('0 can be pulled again\n');
  });
});

describe('postcard endpoint', () => {
  it('sets, shows and forgets one; its secret is shown once', async () => {
    const url = 'https://b.example/hook';
    const set = await type('endpoint', 'set', url, '--default', '--xml', '--header', 'X-Shop: 7');
    expect(set.code).toBe(0);
    expect(set.out).toMatch(/secret whsec_\S+\n\(it is shown only now\)/);
    const [made] = await json('endpoint', 'list');
    expect(made).toMatchObject({
      kind: 'DELIVERY',
      url,
      default: true,
      contentType: 'application/xml',
      headers: { 'X-Shop': '7' },
    });
    const [changed] = await json('endpoint', 'set', url, '--no-default', '--rotate');
    expect(changed).toMatchObject({ default: false, contentType: 'application/xml' });
    expect(changed.secrets).toHaveLength(2);
    expect((await json('endpoint', 'set', url, '--unsigned'))[0].secrets).toEqual([]);
    expect((await type('endpoint', 'rm', url)).out).toBe('forgotten\n');
    expect(await type('endpoint', 'rm', url)).toMatchObject({ code: 1 });
    expect((await type('endpoint', 'list')).out).toContain('no endpoints');
  });
});

describe('postcard optout', () => {
  it('adds, shows and lifts', async () => {
    expect((await type('optout', 'add', '41793026727', '+41793026728', '--sender', 'Shop')).out).toBe('2 added\n');
    await type('optout', 'add', '41793026729');
    const rows = await json('optout', 'list');
    expect(rows.map((row: { sender: string; destination: string }) => `${row.sender} ${row.destination}`)).toEqual([
      'shop 41793026727',
      'shop 41793026728',
      '* 41793026729',
    ]);
    expect((await type('optout', 'rm', '41793026729')).out).toBe('lifted\n');
    expect(await type('optout', 'rm', '41793026729')).toMatchObject({ code: 1 });
    expect((await type('optout', 'list', '--sender', 'Shop')).out.split('\n')).toHaveLength(4);
    expect(await type('optout', 'add', 'nobody')).toMatchObject({ code: 1 });
  });
});

describe('postcard listen', () => {
  it('is the default endpoint while it runs, checks signatures, refuses the first, and takes all back', async () => {
    remote[1] = door.url;
    await type('endpoint', 'set', 'https://b.example/before', '--default');
    let ready: (text: string) => void = () => {};
    const listening = new Promise<string>((resolve) => {
      ready = resolve;
    });
    const args = ['listen', '--port', '0', '--fail', '1', '--default', '--xml', '-o', 'ndjson', ...remote];
    const running = start(args, (text) => ready(text));
    const base = /http:\/\/127\.0\.0\.1:\d+/.exec(await listening)?.[0] as string;
    const endpoint = (await door.store.endpointList(1)).find(({ url }) => url === `${base}/delivery`);
    expect(endpoint).toMatchObject({ isDefault: true, contentType: 'application/xml' });
    const secret = endpoint?.secrets[0]?.secret as string;
    const call = (body: string, headers: Record<string, string>) =>
      fetch(`${base}/delivery`, { method: 'POST', body, headers }).then(({ status }) => status);
    const body = '{"results":[]}';
    const statuses = [
      await call(body, signature([secret], 'id', Date.now(), body)),
      await call(body, signature(['another secret'], 'id', Date.now(), body)),
      await call('<a/>', {}),
    ];
    expect(statuses).toEqual([500, 200, 200]);
    expect((await fetch(base)).status).toBe(405);
    running.stop();
    const said = await running.done;
    expect(said.code).toBe(0);
    const lines = said.out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toMatchObject([
      { status: 500, signature: 'right', body: { results: [] } },
      { status: 200, signature: 'wrong' },
      { status: 200, signature: 'none', body: '<a/>' },
    ]);
    const after = await door.store.endpointList(1);
    expect(after.map(({ url, isDefault }) => [url, isDefault])).toEqual([['https://b.example/before', true]]);
  });

  it('shows bodies for people, and takes the secret that it is given', async () => {
    let ready: (text: string) => void = () => {};
    const listening = new Promise<string>((resolve) => {
      ready = resolve;
    });
    const running = start(['listen', '--port', '0', '--secret', 'my secret'], (text) => ready(text));
    const base = /http:\/\/127\.0\.0\.1:\d+/.exec(await listening)?.[0] as string;
    const post = (body: string, headers: Record<string, string>) =>
      fetch(`${base}/x`, { method: 'POST', body, headers });
    const body = '{"results":[{"to":"1\\u001b[2J"}]}';
    await post(body, { 'content-type': 'application/json', ...signature(['my secret'], 'the-id', Date.now(), body) });
    await post('<a><b>1</b></a>', { 'content-type': 'application/xml' });
    running.stop();
    const { out } = await running.done;
    expect(out).toContain('#1 /x  application/json  signature right  -> 200');
    expect(out).toContain('the-id');
    expect(out).toContain('"to": "1\\u001b[2J"');
    expect(out).toContain('#2 /x  application/xml  signature none  -> 200');
    expect(out).not.toContain('\u001b');
  });
});
