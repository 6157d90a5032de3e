import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { CarrierChanges } from './carrier-settings.ts';
import { type Config, loadConfig } from './config.ts';
import { type TestEnv, testEnv } from './env.ts';
import { createReloader, type Reloader } from './reload.ts';

const north = '  - {name: north, type: mm7, url: "https://mmsc.example/mm7", username: me, passwordFile: secret}\n';
const south = '  - {name: south, type: mm7, url: "https://mmsc.test/mm7"}\n';

let env: TestEnv;
let files: Record<string, string>;
let applied: { next: Config; changes: CarrierChanges & { certificate: boolean } }[];
let failing: boolean;
let reloader: Reloader;

const sources = {
  env: {},
  cwd: '/srv',
  readFile(path: string): string {
    const text = files[path];
    if (text === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    return text;
  },
};

function start(): void {
  const loaded = loadConfig(sources);
  if (!loaded.ok) throw new Error(loaded.mistakes.join('\n'));
  reloader = createReloader({
    env,
    config: loaded.config,
    sources,
    stateOf: (path) => files[path] ?? '',
    apply: async (next, changes) => {
      if (failing) throw new Error('no');
      applied.push({ next, changes });
    },
  });
}

beforeEach(() => {
  env = testEnv();
  files = { '/srv/postcard.yaml': `carriers:\n${north}`, '/srv/secret': 'one' };
  applied = [];
  failing = false;
  start();
});
afterEach(() => reloader.stop());

describe('a change', () => {
  it('of the file is taken over by itself, as a whole', async () => {
    files['/srv/postcard.yaml'] =
      `carriers:\n${north.replace('/mm7"', '/other"')}${south}routes: [{to: 49, carriers: [south]}]\n`;
    await env.clock.advance(2_000);
    expect(applied).toHaveLength(1);
    const { next, changes } = applied[0]!;
    expect(next.carriers.map(({ name }) => name)).toEqual(['north', 'south']);
    expect(next.routes).toHaveLength(1);
    expect(changes).toMatchObject({
      added: [{ name: 'south' }],
      removed: [],
      changed: [{ carrier: { name: 'north' }, keys: ['url'] }],
      routing: true,
      certificate: false,
    });
    expect(env.lines.at(-1)).toMatchObject({
      message: 'configuration taken over',
      fields: { added: ['south'], removed: [], changed: ['north: url'] },
    });
    await env.clock.advance(60_000);
    expect(applied).toHaveLength(1);
  });

  it('of a secret in a file of its own is one too', async () => {
    files['/srv/secret'] = 'two';
    await env.clock.advance(2_000);
    expect(applied[0]?.changes).toMatchObject({ changed: [{ keys: ['password'] }], routing: false });
    expect(JSON.stringify(env.lines)).not.toMatch(/"two"|"one"/);
  });

  it('of our certificate is told, though nothing else differs', async () => {
    await reloader.stop();
    files['/srv/postcard.yaml'] = `carriers:\n${south}carrierTlsCert: our.pem\ncarrierTlsKey: our.key\n`;
    files['/srv/our.pem'] = 'old';
    files['/srv/our.key'] = 'key';
    start();
    files['/srv/our.pem'] = 'new';
    await env.clock.advance(2_000);
    expect(applied[0]?.changes).toMatchObject({
      certificate: true,
      added: [],
      removed: [],
      changed: [],
      routing: false,
    });
  });

  it('with a mistake in it changes nothing and says each, until it is mended', async () => {
    files['/srv/postcard.yaml'] =
      `carriers:\n${south}  - {name: east, type: mm7}\n  - {name: "A!", type: mm7, url: "http://a.test"}\n`;
    await env.clock.advance(10_000);
    expect(applied).toEqual([]);
    const told = env.lines.filter(({ message }) => message === 'configuration not taken over');
    expect(told.map(({ fields }) => fields.mistake)).toEqual([
      expect.stringContaining('carriers[1].url is missing'),
      expect.stringContaining('carriers[2].name is "A!"'),
    ]);
    files['/srv/postcard.yaml'] = `carriers:\n${south}`;
    await env.clock.advance(2_000);
    expect(applied[0]?.changes).toMatchObject({ added: [{ name: 'south' }], removed: [{ name: 'north' }] });
  });

  it('of what needs a restart is named once and left alone', async () => {
    files['/srv/postcard.yaml'] = `port: 9000\ncarriers:\n${north}${south}`;
    await env.clock.advance(2_000);
    expect(applied[0]?.next).toMatchObject({ port: 8080, carriers: [{ name: 'north' }, { name: 'south' }] });
    files['/srv/postcard.yaml'] += '\n';
    await env.clock.advance(2_000);
    expect(env.lines.filter(({ level }) => level === 'warn')).toMatchObject([
      { fields: { settings: ['port', 'publicUrl'] } },
    ]);
  });

  it('that could not be brought about is tried again when asked', async () => {
    failing = true;
    files['/srv/postcard.yaml'] = `carriers:\n${south}`;
    expect(await reloader.reload()).toBe('failed');
    failing = false;
    expect(await reloader.reload()).toBe('changed');
    expect(applied[0]?.changes).toMatchObject({ added: [{ name: 'south' }], removed: [{ name: 'north' }] });
  });
});

describe('a reload', () => {
  it('of the same changes nothing', async () => {
    expect(await reloader.reload()).toBe('unchanged');
    expect(applied).toEqual([]);
  });

  it('that is asked for while another runs follows it', async () => {
    files['/srv/postcard.yaml'] = `carriers:\n${south}`;
    expect(await Promise.all([reloader.reload(), reloader.reload()])).toEqual(['changed', 'unchanged']);
  });

  it('after the stop does nothing', async () => {
    await reloader.stop();
    files['/srv/postcard.yaml'] = `carriers:\n${south}`;
    expect(await reloader.reload()).toBe('unchanged');
    await env.clock.advance(10_000);
    expect(applied).toEqual([]);
  });

  it('takes a carrier of another type for another carrier', async () => {
    files['/srv/postcard.yaml'] =
      'carriers:\n  - {name: north, type: smpp, host: a.example, systemId: s, password: p}\n';
    expect(await reloader.reload()).toBe('changed');
    expect(applied[0]?.changes).toMatchObject({ added: [{ type: 'smpp' }], removed: [{ type: 'mm7' }], changed: [] });
  });
});
